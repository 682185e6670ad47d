//! Parses the `Cookie` header and serializes `Set-Cookie`, byte for byte as express-session does
//! with `cookie` 0.7.2.
//!
//! The `cookie` crate is used only as a reference in tests. It writes attributes in a different
//! order, keeps quotes around values, refuses header values that are not UTF-8, and decodes
//! malformed percent-escapes that `decodeURIComponent` leaves alone.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that `encodeURIComponent` does not encode.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The maximum size of the Cookie header; beyond it, it is not parsed. Node refuses
/// requests whose headers exceed 16 KiB.
const MAX_HEADER: usize = 16 * 1024;

/// The maximum size of a cookie: browsers keep at most 4096 octets of name and value (RFC 6265bis,
/// section 5.6).
pub(crate) const MAX_COOKIE: usize = 4096;

/// The result of looking up a cookie in the Cookie header.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<'a> {
    /// Missing, or empty, which is equivalent.
    Absent,
    /// The value, unquoted and percent-decoded.
    Value(Cow<'a, str>),
    /// The cookie or all cookies together exceed the size of any legitimate one.
    Oversized,
}

/// Returns the first `most` cookies called `name`.
pub(crate) fn find<'a>(header: &'a [u8], name: &str, most: usize) -> Vec<Found<'a>> {
    if header.len() > MAX_HEADER {
        return vec![Found::Oversized];
    }
    let values = pairs(header).filter_map(|pair| {
        let equals = memchr(b'=', pair)?;
        (trim(&pair[..equals]) == name.as_bytes()).then(|| unquote(trim(&pair[equals + 1..])))
    });
    let found = values.take(most).map(|value| match value.len() {
        0 => Found::Absent,
        n if n > MAX_COOKIE => Found::Oversized,
        _ => Found::Value(decode(value)),
    });
    found.collect()
}

/// Splits a header at its semicolons.
fn pairs(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(header);
    std::iter::from_fn(move || {
        let all = rest?;
        let end = memchr(b';', all);
        rest = end.map(|end| &all[end + 1..]);
        Some(&all[..end.unwrap_or(all.len())])
    })
}

/// Trims spaces and tabs only.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        [b'"'] => &[],
        _ => value,
    }
}

/// Decodes like `decodeURIComponent`, or returns the text unchanged where that would throw. Bytes
/// that are not UTF-8 are read as Latin-1, as Node reads headers.
fn decode(value: &[u8]) -> Cow<'_, str> {
    let text = if value.is_ascii() {
        std::str::from_utf8(value).map_or_else(|_| latin1(value), Cow::Borrowed)
    } else {
        latin1(value)
    };
    let decoded = percent_decoded(text.as_bytes()).and_then(|it| String::from_utf8(it).ok());
    decoded.map_or(text, Cow::Owned)
}

/// Decodes percent-escapes; none if there are none, or an incomplete one.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut rest = text;
    let mut decoded = Vec::new();
    while let Some(at) = memchr(b'%', rest) {
        let [high, low, ..] = rest[at + 1..] else { return None };
        let byte = digit(high)? * 16 + digit(low)?;
        if decoded.is_empty() {
            decoded.reserve(text.len());
        }
        decoded.extend_from_slice(&rest[..at]);
        decoded.push(byte as u8);
        rest = &rest[at + 3..];
    }
    if rest.len() == text.len() {
        return None;
    }
    decoded.extend_from_slice(rest);
    Some(decoded)
}

fn latin1(value: &[u8]) -> Cow<'static, str> {
    Cow::Owned(value.iter().map(|b| char::from(*b)).collect())
}

/// The attributes of a Set-Cookie, as text.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Attributes<'a> {
    pub(crate) domain: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
    /// As IMF-fixdate (RFC 9110, section 5.6.7).
    pub(crate) expires: Option<String>,
    /// In seconds.
    pub(crate) max_age: Option<i64>,
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    pub(crate) partitioned: bool,
    pub(crate) priority: Option<&'static str>,
    pub(crate) same_site: Option<&'static str>,
}

/// Serializes `name=value` and its attributes in express-session's order.
pub(crate) fn serialize(name: &str, value: &str, attributes: &Attributes<'_>) -> String {
    let mut text = String::with_capacity(name.len() + value.len() + 96);
    text.push_str(name);
    text.push('=');
    text.extend(utf8_percent_encode(value, COMPONENT));
    let mut attribute = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(value);
    };
    if let Some(domain) = attributes.domain {
        attribute("; Domain=", domain);
    }
    if let Some(path) = attributes.path {
        attribute("; Path=", path);
    }
    if let Some(expires) = &attributes.expires {
        attribute("; Expires=", expires);
    }
    if let Some(seconds) = attributes.max_age {
        attribute("; Max-Age=", &seconds.to_string());
    }
    if attributes.http_only {
        attribute("; HttpOnly", "");
    }
    if attributes.secure {
        attribute("; Secure", "");
    }
    if attributes.partitioned {
        attribute("; Partitioned", "");
    }
    if let Some(priority) = attributes.priority {
        attribute("; Priority=", priority);
    }
    if let Some(same_site) = attributes.same_site {
        attribute("; SameSite=", same_site);
    }
    text
}

/// Whether `text` is a cookie name: an RFC 9110 token.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether `text` is a host name, with an optional leading dot.
pub(crate) fn is_domain(domain: &str) -> bool {
    domain.strip_prefix('.').unwrap_or(domain).split('.').all(|label| {
        let bytes = label.as_bytes();
        matches!(bytes, [first, .., last] | [first @ last] if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
            && bytes.len() <= 63
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

/// Whether `text` is printable ASCII without `;` and `<`, the rule of `cookie` 0.7.2.
pub(crate) fn is_path(path: &str) -> bool {
    path.bytes().all(|b| matches!(b, 0x20..=0x3a | 0x3d..=0x7e))
}

/// Whether browsers send a cookie of `cookie_path` with a request for `path`: path-match of RFC
/// 6265, section 5.1.4. `/foo` matches `/foo/bar`, but not `/foobar`.
pub(crate) fn path_matches(path: &str, cookie_path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie_path.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first<'a>(header: &'a [u8], name: &str) -> Found<'a> {
        find(header, name, 1).pop().unwrap_or(Found::Absent)
    }

    fn found(header: &[u8]) -> Option<String> {
        match first(header, "connect.sid") {
            Found::Value(value) => Some(value.into_owned()),
            _ => None,
        }
    }

    #[test]
    fn cookies_are_read_as_express_reads_them() {
        for (header, value) in [
            (&b"connect.sid=s%3Aa.b"[..], Some("s:a.b")),
            (b"connect.sid=\"s%3Aa.b\"", Some("s:a.b")),
            (b" a=1 ; connect.sid=x; connect.sid=y", Some("x")),
            (b"connect.sid=%E0%A4%A", Some("%E0%A4%A")),
            (b"connect.sid=%E0%A4", Some("%E0%A4")),
            (b"connect.sid=%41", Some("A")),
            // One malformed escape prevents all decoding.
            (b"connect.sid=%41%4", Some("%41%4")),
            (b"connect.sid=%41%g1", Some("%41%g1")),
            (b"connect.sid=%41%1g", Some("%41%1g")),
            (b"connect.sid=%zz%41", Some("%zz%41")),
            (b"foo; connect.sid=1", Some("1")),
            (b"connect.sid=a=b", Some("a=b")),
            (b"connect.sid=", None),
            (b"connect.sid=\"", None),
            (b"=v; connect.sid=z", Some("z")),
            (b"CONNECT.SID=u", None),
            (b"a=1,connect.sid=2", None),
            (b"connect.sid \t=\t q ", Some("q")),
            (b"connect.sid=\xe9", Some("é")),
            (b"\xff\xfe=1; connect.sid=q", Some("q")),
            (b"", None),
        ] {
            assert_eq!(found(header).as_deref(), value, "{}", header.escape_ascii());
        }
    }

    #[test]
    fn cookies_of_one_name_are_found_in_their_order_and_no_more_than_are_wanted() {
        let large = [b"n=", vec![b'x'; MAX_COOKIE + 1].as_slice()].concat();
        let header = [b"n=1; m=2; n=; n=\"3\"; ", &*large, b"; nn=4;n=5"].concat();
        let all = [
            Found::Value("1".into()),
            Found::Absent,
            Found::Value("3".into()),
            Found::Oversized,
            Found::Value("5".into()),
        ];
        for most in 0..7 {
            assert_eq!(find(&header, "n", most), all[..most.min(5)]);
        }
    }

    #[test]
    fn oversized_cookies_are_not_looked_at() {
        assert_eq!(first(&vec![b'x'; 64 * 1024], "n"), Found::Oversized);
        let of = |length| [b"n=".to_vec(), vec![b'x'; length]].concat();
        assert_eq!(first(&of(MAX_COOKIE + 1), "n"), Found::Oversized);
        assert!(matches!(first(&of(MAX_COOKIE), "n"), Found::Value(_)));
        let others = |length| [vec![b'y'; length - 4].as_slice(), b";n=1"].concat();
        assert_eq!(first(&others(MAX_HEADER + 1), "n"), Found::Oversized);
        assert_eq!(first(&others(MAX_HEADER), "n"), Found::Value("1".into()));
    }

    #[test]
    fn attributes_come_in_expresss_order_and_max_age_behind_expires() {
        let all = Attributes {
            domain: Some(".Example.com"),
            path: Some("/"),
            expires: Some("Wed, 02 Jan 2030 03:04:05 GMT".into()),
            max_age: Some(60),
            http_only: true,
            secure: true,
            partitioned: true,
            priority: Some("High"),
            same_site: Some("None"),
        };
        assert_eq!(
            serialize("connect.sid", "s:a+b/c.d", &all),
            "connect.sid=s%3Aa%2Bb%2Fc.d; Domain=.Example.com; Path=/; \
             Expires=Wed, 02 Jan 2030 03:04:05 GMT; Max-Age=60; HttpOnly; Secure; Partitioned; \
             Priority=High; SameSite=None"
        );
        assert_eq!(serialize("n", "é !'()*~", &Attributes::default()), "n=%C3%A9%20!'()*~");
    }

    #[test]
    fn names_domains_and_paths_are_checked_as_express_checks_them() {
        for good in ["connect.sid", "__Host-sid", "a"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a b", "sess;x", "é", "a=b"] {
            assert!(!is_name(bad), "{bad}");
        }
        for good in ["example.com", ".Example.com", "a", "x-y.z"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", "exa mple", "a..b", "-a", "a-", "..a", &"a".repeat(64)] {
            assert!(!is_domain(bad), "{bad}");
        }
        assert!(is_path("/a b:=") && !is_path("/a;b") && !is_path("/\n") && !is_path("/é"));
    }

    #[test]
    fn a_path_takes_in_itself_and_what_is_below_it() {
        for (path, cookie_path) in [
            ("/", "/"),
            ("/admin", "/"),
            ("/admin", "/admin"),
            ("/admin/", "/admin"),
            ("/admin/users", "/admin"),
            ("/admin/", "/admin/"),
            ("/admin/users", "/admin/"),
            ("/admin//", "/admin/"),
        ] {
            assert!(path_matches(path, cookie_path), "{path} {cookie_path}");
        }
        for (path, cookie_path) in [
            ("/administrator", "/admin"),
            ("/admin.js", "/admin"),
            ("/admin%2Fusers", "/admin"),
            ("/admin", "/admin/"),
            ("/Admin", "/admin"),
            ("/adm", "/admin"),
            ("/x/admin", "/admin"),
            ("*", "/"),
        ] {
            assert!(!path_matches(path, cookie_path), "{path} {cookie_path}");
        }
    }

    proptest! {
        /// Compares with the wording of the three cases of RFC 6265, section 5.1.4.
        #[test]
        fn paths_match_as_the_standard_says(path in "/[a/]{0,5}", cookie_path in "/[a/]{0,5}") {
            let is_prefix = path.len() >= cookie_path.len()
                && path.as_bytes()[..cookie_path.len()] == *cookie_path.as_bytes();
            let next = path.as_bytes().get(cookie_path.len());
            let expected = path == cookie_path
                || (is_prefix && cookie_path.as_bytes().last() == Some(&b'/'))
                || (is_prefix && next == Some(&b'/'));
            prop_assert_eq!(path_matches(&path, &cookie_path), expected);
        }

        #[test]
        fn no_header_panics(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            find(&header, "n", 8);
        }

        #[test]
        fn what_is_written_is_read_back(value in ".{1,200}") {
            let header = serialize("n", &value, &Attributes::default());
            prop_assert_eq!(first(header.as_bytes(), "n"), Found::Value(value.into()));
        }

        #[test]
        fn the_cookie_crate_reads_what_is_written(value in "[ -~]{0,99}", path in "/[a-z]{0,9}", max_age: Option<u32>, secure: bool, http_only: bool) {
            let max_age = max_age.map(i64::from);
            let attributes = Attributes { path: Some(&path), max_age, secure, http_only, same_site: Some("Lax"), ..Attributes::default() };
            let text = serialize("n", &value, &attributes);
            let judge = cookie::Cookie::parse_encoded(&text).unwrap();
            prop_assert_eq!(judge.value(), value);
            prop_assert_eq!(judge.path(), Some(path.as_str()));
            prop_assert_eq!(judge.max_age().map(|age| age.whole_seconds()), max_age);
            prop_assert_eq!(judge.secure().unwrap_or(false), secure);
            prop_assert_eq!(judge.http_only().unwrap_or(false), http_only);
            prop_assert_eq!(judge.same_site(), Some(cookie::SameSite::Lax));
        }

        #[test]
        fn the_cookie_crate_finds_the_same_value(header in "[a-c =;]{0,40}") {
            // Both agree on cookies that are not empty and contain `=`.
            let judge = cookie::Cookie::split_parse(header.as_str()).flatten().find(|c| c.name() == "a");
            let ours = match first(header.as_bytes(), "a") { Found::Value(v) => v.into_owned(), _ => String::new() };
            prop_assert_eq!(ours, judge.map_or(String::new(), |c| c.value().to_owned()));
        }
    }
}
