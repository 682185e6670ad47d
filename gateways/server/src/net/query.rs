//! Bytes of a query that clients send as they are and `http::Uri` refuses: `"`, `<`, `>` and those
//! that are not UTF-8. nginx and Node pass them on; here they are escaped (RFC 3986, section 2.1), as
//! is all that is not ASCII. No application that decodes its query can tell.

use http::Uri;

fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | 0x80..)
}

fn push(escaped: &mut Vec<u8>, byte: u8) {
    if must_be_escaped(byte) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let digit = |of: u8| DIGITS[usize::from(of & 15)];
        escaped.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
    } else {
        escaped.push(byte);
    }
}

/// Reads a request's target, escaping what is necessary in its query.
pub(crate) fn parse(target: &[u8]) -> Option<Uri> {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) if target[at..].iter().copied().any(must_be_escaped) => {
            let mut escaped = target[..at].to_vec();
            target[at..].iter().for_each(|byte| push(&mut escaped, *byte));
            Uri::from_maybe_shared(escaped).ok()
        }
        _ => Uri::try_from(target).ok(),
    }
}

/// A request line that is read in pieces (RFC 9112, section 3).
#[derive(Default)]
pub(crate) struct Line(Part);

/// How far a request line has been read.
#[derive(Clone, Copy, Default, PartialEq)]
enum Part {
    /// Before it: empty lines are ignored (RFC 9112, section 2.2).
    #[default]
    Before,
    Method,
    Target,
    Query,
    /// Behind its target, or this is no request line.
    End,
}

impl Line {
    /// Returns the bytes with those of the query escaped, if there is anything to escape.
    pub(crate) fn escape(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut escaped: Option<Vec<u8>> = None;
        for (at, &byte) in bytes.iter().enumerate() {
            self.0 = match (self.0, byte) {
                (Part::End, _) => {
                    if let Some(escaped) = &mut escaped {
                        escaped.extend_from_slice(&bytes[at..]);
                    }
                    return escaped;
                }
                (Part::Before, b'\r' | b'\n') => Part::Before,
                (Part::Before | Part::Method, b'A'..=b'Z') => Part::Method,
                (Part::Method, b' ') | (Part::Target, b'!'..=b'>' | b'@'..) => Part::Target,
                (Part::Target, b'?') | (Part::Query, b'!'..) => Part::Query,
                _ => Part::End,
            };
            if self.0 == Part::Query && must_be_escaped(byte) {
                push(escaped.get_or_insert_with(|| bytes[..at].to_vec()), byte);
            } else if let Some(escaped) = &mut escaped {
                escaped.push(byte);
            }
        }
        escaped
    }

    /// Returns whether what follows is not to be escaped.
    pub(crate) fn has_ended(&self) -> bool {
        self.0 == Part::End
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds a line in these pieces.
    fn feed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut line = Line::default();
        pieces.iter().flat_map(|it| line.escape(it).unwrap_or_else(|| it.to_vec())).collect()
    }

    #[test]
    fn in_a_query_what_http_refuses_is_escaped() {
        let line = b"GET /a\"b?q=\"<\xc3\xa9>\" HTTP/1.1\r\nX: /?\"<>\r\n\r\n?\"";
        let expected = b"GET /a\"b?q=%22%3C%C3%A9%3E%22 HTTP/1.1\r\nX: /?\"<>\r\n\r\n?\"";
        assert_eq!(feed(&[line]), expected);
        for at in 0..line.len() {
            let (one, other) = line.split_at(at);
            assert_eq!(feed(&[one, other]), expected, "{at}");
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
            assert_eq!(feed(&[text.as_bytes()]), text.as_bytes(), "{text}");
        }
        assert_eq!(feed(&[b"\r\nGET /?\" HTTP/1.1"]), b"\r\nGET /?%22 HTTP/1.1");
    }

    #[test]
    fn a_target_is_parsed_with_its_query_escaped() {
        let parsed = |target: &[u8]| parse(target).map(|uri| uri.to_string());
        assert_eq!(parsed(b"/a?b=\"<>\xff&c=%22").unwrap(), "/a?b=%22%3C%3E%FF&c=%22");
        assert_eq!(parsed(b"/a?b").unwrap(), "/a?b");
        assert_eq!(parsed(b"/<?b"), None);
        assert_eq!(parsed(b"/a?b c"), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_lengths_only_grow(
            text in "[A-Z]{1,3} /[ -~\u{e9}\r\n]{0,40}", cuts in prop::collection::vec(0..50_usize, 0..4)
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|it| &bytes[it[0]..it[1]]).collect();
            let whole = feed(&[bytes]);
            prop_assert_eq!(feed(&pieces), whole.clone());
            // Unescaped, it is what it was: nothing else has changed.
            let line = bytes.iter().position(|it| *it == b'\n').unwrap_or(bytes.len());
            prop_assert!(whole.ends_with(&bytes[line..]));
            prop_assert!(whole.len() >= bytes.len());
        }
    }
}
