//! The frames of a connection of HTTP/2, read in pieces.

/// The preface, which comes before the frames (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows the frames of a connection (RFC 9113, section 4.1), read in pieces.
pub(crate) struct Frames {
    /// How many bytes of the preface are missing.
    preface: usize,
    head: [u8; HEAD],
    /// How many bytes of a frame's head are there.
    known: usize,
    /// How many bytes of a frame's payload are missing.
    left: usize,
}

const HEAD: usize = 9;

impl Default for Frames {
    fn default() -> Self {
        Self { preface: PREFACE.len(), head: [0; HEAD], known: 0, left: 0 }
    }
}

impl Frames {
    /// Returns how many frames that belong to no request begin in these bytes.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        while !bytes.is_empty() {
            for missing in [&mut self.preface, &mut self.left] {
                let skipped = bytes.len().min(*missing);
                *missing -= skipped;
                bytes = &bytes[skipped..];
            }
            let taken = bytes.len().min(HEAD - self.known);
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.known = 0;
                count += u32::from(!is_of_request(kind));
            }
        }
        count
    }
}

/// Returns whether frames of a kind belong to a request: DATA, HEADERS, RST_STREAM, CONTINUATION.
/// They have limits of their own.
fn is_of_request(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 3 | 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn frames_that_belong_to_no_request_are_counted_wherever_they_are_split() {
        let payload = frame(6, &[0; 8]).repeat(8);
        let sent = [
            PREFACE.to_vec(),
            frame(4, &[]),
            frame(1, &payload),
            frame(6, &[0; 8]),
            frame(0, &payload),
            frame(8, &[0; 4]),
            frame(9, &[]),
            frame(3, &[0; 4]),
            frame(200, &payload),
        ]
        .concat();
        for at in 0..sent.len() {
            let mut frames = Frames::default();
            let (one, other) = sent.split_at(at);
            assert_eq!(frames.follow(one) + frames.follow(other), 4, "{at}");
        }
    }
}
