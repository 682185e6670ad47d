//! Bytes of a query that clients send as they are and `http::Uri` refuses: `"`, `<` and `>`. nginx
//! and Node pass them on; here they are escaped (RFC 3986, section 2.1), which no application that
//! decodes its query can tell.

use http::Uri;

/// Returns whether a byte of a query is refused as it is.
pub(crate) fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>')
}

/// Appends a byte of a query, escaped if that is necessary.
pub(crate) fn push(escaped: &mut Vec<u8>, byte: u8) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_parsed_with_its_query_escaped() {
        let parsed = |target: &[u8]| parse(target).map(|uri| uri.to_string());
        assert_eq!(parsed(b"/a?b=\"<>&c=%22").unwrap(), "/a?b=%22%3C%3E&c=%22");
        assert_eq!(parsed("/a?\u{e9}".as_bytes()).unwrap(), "/a?\u{e9}");
        assert_eq!(parsed(b"/a?\xff"), None);
        assert_eq!(parsed(b"/a?b").unwrap(), "/a?b");
        assert_eq!(parsed(b"/<?b"), None);
        assert_eq!(parsed(b"/a?b c"), None);
    }
}
