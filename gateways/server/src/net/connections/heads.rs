//! The heads of requests on a connection of HTTP/1, read in pieces: their queries are escaped.

use memchr::memchr;

use crate::net::query::{must_be_escaped, push};

/// What follows the head of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// A body of this length, then the next request.
    Body(u64),
    /// Only hyper knows.
    Unknown,
}

/// The heads of requests on a connection, read in pieces. Their queries are escaped.
pub(crate) struct Heads {
    at: At,
    /// How many bytes of empty lines there are before the request line.
    blank: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Head {
        target: Part,
        line: Since,
    },
    /// Behind a head: [`Heads::go_on`] comes next.
    Behind,
    Body(u64),
    Unknown,
}

/// How far a request line has been read (RFC 9112, section 3).
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// Before it: empty lines are ignored (RFC 9112, section 2.2).
    Before,
    Method,
    Target,
    Query,
    /// Behind its target, or this is no request line.
    End,
}

/// What a line has so far.
#[derive(Clone, Copy, PartialEq)]
enum Since {
    Nothing,
    Return,
    Something,
}

/// How many bytes of empty lines may come before a request line, of which RFC 9112, section 2.2, asks
/// to ignore one.
const MAX_BLANK_BYTES: usize = 1024;

const START: At = At::Head { target: Part::Before, line: Since::Something };

impl Default for Heads {
    fn default() -> Self {
        Self { at: START, blank: 0 }
    }
}

impl Heads {
    /// Returns whether a head has ended, so that what follows must be said.
    pub(crate) fn needs_next(&self) -> bool {
        self.at == At::Behind
    }

    /// Returns whether the next bytes belong to a body of known length.
    pub(crate) fn is_body(&self) -> bool {
        matches!(self.at, At::Body(_))
    }

    /// Returns whether so many empty lines have come before a request line that none will.
    pub(crate) fn is_empty_for_long(&self) -> bool {
        self.blank > MAX_BLANK_BYTES
    }

    /// Says what follows the head.
    pub(crate) fn go_on(&mut self, next: Next) {
        self.at = match next {
            Next::Body(0) => START,
            Next::Body(length) => At::Body(length),
            Next::Unknown => At::Unknown,
        };
    }

    /// Follows bytes to the end of a head, or of all. Returns how many of them these are, and, if
    /// some are escaped, what becomes of them.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        let mut at = 0;
        let mut escaped: Option<Vec<u8>> = None;
        while at < bytes.len() {
            let (rest, from) = (&bytes[at..], at);
            match &mut self.at {
                At::Unknown => at = bytes.len(),
                At::Behind => break,
                At::Body(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    at += count;
                    *left -= count as u64;
                    if *left == 0 {
                        self.at = START;
                    }
                }
                At::Head { target: Part::End, line } => match memchr(b'\n', rest) {
                    Some(length) => {
                        at += length + 1;
                        match since(*line, &rest[..length]) {
                            Since::Something => *line = Since::Nothing,
                            Since::Nothing | Since::Return => self.at = At::Behind,
                        }
                    }
                    None => {
                        at = bytes.len();
                        *line = since(*line, rest);
                    }
                },
                At::Head { target, .. } => {
                    *target = match (*target, rest[0]) {
                        (Part::Before, b'\r' | b'\n') => Part::Before,
                        (Part::Before | Part::Method, b'A'..=b'Z') => Part::Method,
                        (Part::Method, b' ') | (Part::Target, b'!'..=b'>' | b'@'..) => Part::Target,
                        (Part::Target, b'?') | (Part::Query, b'!'..) => Part::Query,
                        _ => Part::End,
                    };
                    if *target == Part::End {
                        // This byte may end the line.
                        continue;
                    }
                    self.blank = if *target == Part::Before { self.blank + 1 } else { 0 };
                    at += 1;
                    if *target == Part::Query && must_be_escaped(rest[0]) {
                        push(escaped.get_or_insert_with(|| bytes[..from].to_vec()), rest[0]);
                        continue;
                    }
                }
            }
            if let Some(escaped) = &mut escaped {
                escaped.extend_from_slice(&bytes[from..at]);
            }
        }
        (at, escaped)
    }
}

/// Returns what a line has with these bytes, none of which ends it.
fn since(before: Since, bytes: &[u8]) -> Since {
    match (before, bytes) {
        (before, []) => before,
        (Since::Nothing, [b'\r']) => Since::Return,
        _ => Since::Something,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows a connection in these pieces, with this after each head.
    fn feed(pieces: &[&[u8]], next: Next) -> String {
        let mut heads = Heads::default();
        let mut all = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                if heads.needs_next() {
                    heads.go_on(next);
                }
                let (count, escaped) = heads.follow(piece);
                all.extend(escaped.unwrap_or_else(|| piece[..count].to_vec()));
                piece = &piece[count..];
            }
        }
        String::from_utf8(all).unwrap()
    }

    const HEAD: &str = "GET /a\"b?q=\"<\u{e9}>\" HTTP/1.1\r\nX: /?\"<>\r\nGET /?\"\r\nY:\r\n\r\n";
    const ESCAPED: &str =
        "GET /a\"b?q=%22%3C\u{e9}%3E%22 HTTP/1.1\r\nX: /?\"<>\r\nGET /?\"\r\nY:\r\n\r\n";
    const LINE: &str = "GET /?\" HTTP/1.1\r\n\r\n";

    #[test]
    fn in_queries_what_http_refuses_is_escaped_and_nothing_else() {
        let sent = [HEAD, LINE, "\r\n", LINE, HEAD].concat();
        let line = "GET /?%22 HTTP/1.1\r\n\r\n";
        let expected = [ESCAPED, line, "\r\n", line, ESCAPED].concat();
        for at in 0..sent.len() {
            let (one, other) = sent.as_bytes().split_at(at);
            assert_eq!(feed(&[one, other], Next::Body(0)), expected, "{at}");
        }
    }

    #[test]
    fn bodies_stay_whatever_they_look_like_and_wherever_they_are_split() {
        let sent = [HEAD, LINE, HEAD, LINE].concat();
        let expected = [ESCAPED, LINE, ESCAPED, LINE].concat();
        let length = Next::Body(LINE.len() as u64);
        for at in 0..sent.len() {
            let (one, other) = sent.as_bytes().split_at(at);
            assert_eq!(feed(&[one, other], length), expected, "{at}");
        }
        assert_eq!(feed(&[sent.as_bytes()], Next::Unknown), [ESCAPED, LINE, HEAD, LINE].concat());
    }

    #[test]
    fn heads_end_at_an_empty_line() {
        for (head, rest) in [
            ("GET / HTTP/1.1\r\n\r\n", "\r\n"),
            ("GET / HTTP/1.1\n\n", "\n"),
            ("GET / HTTP/1.1\r\n\n", "x"),
            ("GET / HTTP/1.1\n\r\n", "x"),
            ("\r\n\nGET / HTTP/1.1\r\nA: b\r\n\r\n", "GET /?\""),
            ("GET /?\n\n", "x"),
            ("GET /\n\n", "x"),
            ("?\r\n\r\n", "x"),
            ("GET\r\n\r\n", "x"),
        ] {
            let both = [head, rest].concat();
            let mut heads = Heads::default();
            assert_eq!(heads.follow(both.as_bytes()), (head.len(), None), "{head:?}");
            assert!(heads.needs_next());
        }
        for no_end in ["GET / HTTP/1.1\r\n\rA\r\n", "GET / HTTP/1.1\r\r\n", "\r\n\r\n"] {
            let mut heads = Heads::default();
            assert_eq!(heads.follow(no_end.as_bytes()), (no_end.len(), None), "{no_end:?}");
            assert!(!heads.needs_next(), "{no_end:?}");
        }
    }

    #[test]
    fn what_is_no_request_line_stays() {
        for text in [
            "GET?\"",
            "get /?\"",
            "GET: /?\"",
            "GET \"?\r\n\"",
            "GET  /?\"",
            "GET /\t?\"",
            " GET /?\"",
            "GET /? \"",
            "GET /?\t\"",
            "{\"a\": \"GET /?\\\"\"}",
            "0\r\n\r\n",
        ] {
            assert_eq!(feed(&[text.as_bytes()], Next::Unknown), text, "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "([A-Z]{1,3} /[ -~\u{e9}\r\n]{0,20}( H\r\n)?(A: [ -~]{0,9}\r\n)?(\r\n)?){1,4}",
            cuts in prop::collection::vec(0..99_usize, 0..5),
            length in 0..9_u64,
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|it| &bytes[it[0]..it[1]]).collect();
            let whole = feed(&[bytes], Next::Body(length));
            prop_assert_eq!(feed(&pieces, Next::Body(length)), whole.clone());
            prop_assert_eq!(whole.lines().count(), text.lines().count());
        }
    }
}
