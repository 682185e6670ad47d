//! The head of a message in its wire format, so that seeds are readable.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Splits `data` into the first line and the headers on the other lines. Invalid headers are
/// skipped.
pub(crate) fn parse(data: &[u8]) -> (&[u8], HeaderMap) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    (first, lines.filter_map(header).collect())
}

/// Returns a header's name in CGI (RFC 3875, section 4.1.18), without its `HTTP_`.
pub(crate) fn cgi(name: &HeaderName) -> String {
    let variable = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.as_str().chars().map(variable).collect()
}

/// Returns all values of a header.
pub(crate) fn all<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}
