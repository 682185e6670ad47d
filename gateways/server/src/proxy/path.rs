//! Paths in the form that rules compare.
//!
//! Applications differ in how they read `//`, upper case or `/a;b`. A rule that protects `/admin`
//! must apply to every spelling that some application treats as such. Rules therefore compare a
//! normalized form of the path, and a path that can be read in two ways is refused. Conversely, an
//! exception from a rule applies to only one spelling.

use std::borrow::Cow;
use std::fmt::{Display, Formatter};

use percent_encoding::percent_decode_str;
use unicode_normalization::{UnicodeNormalization as _, is_nfkc};

/// Characters that end a segment for some applications: `;` begins parameters, and applications
/// that decode the target before splitting it see `?` and `#` as the beginning of a query or
/// fragment.
const ENDS: [char; 3] = [';', '?', '#'];

/// A path in normalized form: decoded once; without empty segments, the part of a segment after
/// `;`, `?` or `#`, surrounding spaces, trailing dots, and compatibility characters (Unicode's
/// NFKC); in lower case. It begins with a slash and does not end with one, except `/` itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RulePath {
    plain: String,
    /// The same path with escaped slashes as parts of names, if there are any.
    with_names: Option<String>,
}

/// A path whose meaning differs between applications: it begins with two slashes, which precede a
/// host in a URL reference (RFC 3986, section 4.2), or it contains a dot segment, an escaped slash
/// or backslash, a control character, an invalid escape, or escaped bytes that are not UTF-8, which
/// some applications drop and others replace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ambiguous;

impl RulePath {
    /// Parses the path of a request's target, as received.
    pub(crate) fn parse(path: &str) -> Result<Self, Ambiguous> {
        Self::parse_with(path, false)
    }

    /// Parses a path in which escaped slashes are allowed if `escaped_slashes`: each counts as a
    /// slash and also as part of a name, see [`RulePath::with_names`].
    pub(crate) fn parse_with(path: &str, escaped_slashes: bool) -> Result<Self, Ambiguous> {
        if path.starts_with("//") {
            return Err(Ambiguous);
        }
        let (mut plain, mut with_names) = (String::with_capacity(path.len()), None::<String>);
        for segment in path.split('/') {
            // The decoder ignores invalid escapes.
            let is_escaped = segment.contains('%');
            if is_escaped && !has_whole_escapes(segment) {
                return Err(Ambiguous);
            }
            let segment = percent_decode_str(segment).decode_utf8().map_err(|_| Ambiguous)?;
            let has_slash = segment.contains('/');
            if segment.contains('\\')
                || segment.contains(char::is_control)
                || (has_slash && !escaped_slashes)
            {
                return Err(Ambiguous);
            }
            if has_slash {
                with_names.get_or_insert_with(|| plain.clone());
            }
            let before = plain.len();
            // A compatibility character may stand for a slash. After a semicolon, some applications
            // let it begin a segment and others skip it.
            let segment = compatible(&segment);
            if segment.contains(['/', '\\']) && segment.contains(ENDS) {
                return Err(Ambiguous);
            }
            for segment in segment.split(['/', '\\']) {
                let segment = segment.split(ENDS).next().unwrap_or_default();
                let is_end = |c: char| c == '.' || c.is_whitespace();
                if segment.contains('.') && segment.chars().all(is_end) {
                    return Err(Ambiguous);
                }
                // Some file systems ignore spaces around a name and dots after it.
                let segment = segment.trim_start().trim_end_matches(is_end);
                if !segment.is_empty() {
                    plain.push('/');
                    push_folded(&mut plain, segment);
                }
            }
            if let Some(with_names) = with_names.as_mut().filter(|_| plain.len() > before) {
                with_names.push('/');
                with_names.push_str(&plain[before + 1..].replace('/', "%2f"));
            }
        }
        if plain.is_empty() {
            plain.push('/');
        }
        Ok(Self { plain, with_names })
    }

    /// Returns whether the path is `prefix` or below it. An escaped slash counts as a slash.
    pub(crate) fn is_below(&self, prefix: &Self) -> bool {
        is_below(&self.plain, &prefix.plain)
    }

    /// Returns the path as read by applications that treat an escaped slash as part of a name; none
    /// if there is no escaped slash.
    pub(crate) fn with_names(&self) -> Option<Self> {
        self.with_names.clone().map(|plain| Self { plain, with_names: None })
    }

    /// Returns the specificity: longer prefixes precede shorter ones.
    pub(crate) fn len(&self) -> usize {
        self.plain.len()
    }
}

impl Display for RulePath {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.plain)
    }
}

/// Normalizes as some applications do (Unicode's NFKC), and removes invisible characters, as some
/// do.
fn compatible(segment: &str) -> Cow<'_, str> {
    match segment.is_ascii() {
        true => Cow::Borrowed(segment),
        false => {
            let visible: String = segment.nfkc().filter(|c| !is_invisible(*c)).collect();
            // Removing characters may make the neighbors combine.
            visible.nfkc().collect::<String>().into()
        }
    }
}

/// Returns whether a character is invisible: soft hyphens, joiners, fillers, direction marks,
/// variation selectors. These are Unicode's `Default_Ignorable_Code_Point`
/// (DerivedCoreProperties.txt, as of Unicode 16) and U+180E, which used to be a space.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Appends a segment in lower case. Letters that some applications fold to ASCII are included: the
/// Kelvin sign becomes `k`, the long s `s`, the dotless and the dotted capital i `i`.
fn push_folded(plain: &mut String, segment: &str) {
    for c in segment.chars() {
        match c {
            c if c.is_ascii() => plain.push(c.to_ascii_lowercase()),
            '\u{130}' => plain.push('i'),
            c => plain.extend(c.to_uppercase().flat_map(char::to_lowercase)),
        }
    }
}

/// A path that all applications read alike: decoded once, with every segment in canonical spelling.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlainPath(String);

impl PlainPath {
    /// Parses the path of a request's target, as received; none if it has another spelling.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        RulePath::parse(path).ok()?;
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        let decoded = decoded.strip_suffix('/').unwrap_or(&decoded);
        // Applications that decode again, remove parameters or normalize would read another path.
        let mut segments = decoded.split('/');
        let is_absolute = segments.next() == Some("");
        let is_plain = segments.all(|segment| {
            !segment.is_empty()
                && !segment.contains(ENDS)
                && !segment.contains(is_invisible)
                && !segment.ends_with(['.', ' '])
                && !segment.starts_with(' ')
                && !has_an_escape(segment)
                && is_nfkc(segment)
        });
        (is_absolute && is_plain).then(|| Self(decoded.to_owned()))
    }

    /// Returns whether the path is `prefix` or below it.
    pub(crate) fn is_below(&self, prefix: &Self) -> bool {
        is_below(&self.0, &prefix.0)
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn begins_with_hex(rest: &str) -> bool {
    rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
}

fn has_whole_escapes(segment: &str) -> bool {
    segment.split('%').skip(1).all(begins_with_hex)
}

/// Returns whether a segment contains something that some applications treat as an escape, such as
/// `%u002e`.
fn has_an_escape(segment: &str) -> bool {
    let begins = |rest: &str| begins_with_hex(rest.strip_prefix(['u', 'U']).unwrap_or(rest));
    segment.split('%').skip(1).any(begins)
}

/// Returns a target's path, without its query and its fragment.
pub(crate) fn path_of(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

/// Returns a request's target as a return path, always on this host. Browsers treat `//host` and
/// `/\host` as another host.
pub(crate) fn return_path(path_and_query: &str) -> String {
    let path = path_and_query.trim_start_matches(['/', '\\']);
    format!("/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(path: &str) -> String {
        RulePath::parse(path).unwrap().plain
    }

    #[test]
    fn spellings_of_one_path_are_one() {
        for path in
            ["/admin", "/admin//", "/admin/", "/%61dmin", "/ADMIN", "/admin;x=1", "/;y/admin"]
        {
            assert_eq!(plain(path), "/admin", "{path}");
        }
        assert_eq!(plain("/"), "/");
        assert_eq!(plain("*"), "/*");
        assert_eq!(plain("/a%20b/c%C3%A9"), "/a b/cé");
        // An application that decodes first sees the beginning of a query or fragment.
        for path in
            ["/admin%3Fx", "/admin%23x", "/admin%3B/", "/%3Fx/admin%23/%23", "/%20/%20admin%20"]
        {
            assert_eq!(plain(path), "/admin", "{path}");
        }
        // An application may ignore dots and spaces at the end of a name.
        for path in ["/admin.", "/admin...", "/admin.%20.", "/admin%20./"] {
            assert_eq!(plain(path), "/admin", "{path}");
        }
        assert_eq!(plain("/.well-known/a.b"), "/.well-known/a.b");
        assert_eq!(plain("/cafe%E2%80%8D%CC%81"), "/café");
        for hidden in ['\u{34f}', '\u{61c}', '\u{180e}', '\u{3164}', '\u{ffa0}', '\u{e0001}'] {
            assert_eq!(plain(&format!("/ad{hidden}min")), "/admin", "{hidden:?}");
        }
        assert_eq!(plain("/wiki/Who%3F/C%23"), "/wiki/who/c");
        // Fullwidth letters and slash, a small full stop, a soft hyphen, a direction mark.
        assert_eq!(plain("/%EF%BD%81dm%C2%ADin"), "/admin");
        assert_eq!(plain("/a%EF%BC%8Fb%EF%B9%92c%E2%80%8E"), "/a/b.c");
        // The Kelvin sign, the long s, the dotless and the dotted capital i.
        assert_eq!(plain("/\u{212a}i\u{17f}\u{131}\u{130}"), "/kisii");
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused() {
        for path in [
            "/a/../b",
            "/./a",
            "/%2e%2e/",
            "/.%2E",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/%00",
            "/a%0d%0a",
            "/%",
            "/%4",
            "/%zz",
            "/..;/admin",
            "/a/..;x=1/b",
            "/a/..%20/b",
            "/a/..%20./b",
            "/a/.%20./b",
            "/a/.../b",
            "/a/..%3Fx/b",
            "/a/..%23x/b",
            // Fullwidth dots, a two-dot leader, dots with a soft hyphen, fullwidth slashes.
            "/a/%EF%BC%8E%EF%BC%8E/b",
            "/a/%E2%80%A5/b",
            "/a/.%C2%AD./b",
            "/a/x%EF%BC%8F..%EF%BC%8Fb",
            "/app;%EF%BC%8Fx/admin",
            "/app;%E2%84%80/admin",
            "/app%3F%EF%BC%BCx/admin",
            // As URL references, these have the path `/admin`.
            "//x/admin",
            "///x/admin",
            "//admin",
            "//user@x/admin",
            // Bytes that are not UTF-8: alone, in an overlong form, and as a surrogate.
            "/admin%ff",
            "/ad%ffmin",
            "/a%c0%afb",
            "/%ed%a0%80",
        ] {
            assert_eq!(RulePath::parse(path), Err(Ambiguous), "{path}");
        }
    }

    #[test]
    fn an_escaped_slash_is_one_and_a_part_of_a_name() {
        for (path, plain, with_names) in [
            ("/@scope%2fname/1", "/@scope/name/1", "/@scope%2fname/1"),
            ("/a/b%2Fc%2F/d;x/", "/a/b/c/d", "/a/b%2fc/d"),
            ("/%2fa%2F", "/a", "/a"),
        ] {
            let path = RulePath::parse_with(path, true).unwrap();
            assert_eq!((&*path.plain, &*path.with_names().unwrap().plain), (plain, with_names));
        }
        assert!(RulePath::parse_with("/a/b", true).unwrap().with_names().is_none());
        for path in
            ["/app;%2fx/admin", "/a%2f..%2fb", "/%2e%2e%2f", "/a%5Cb", "/a%2f%00", "//a%2fb"]
        {
            assert_eq!(RulePath::parse_with(path, true), Err(Ambiguous), "{path}");
        }
        assert!(PlainPath::parse("/a%2fb").is_none());
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let path = RulePath::parse("/admin/users").unwrap();
        let is_below = |prefix: &str| path.is_below(&RulePath::parse(prefix).unwrap());
        assert!(
            is_below("/") && is_below("/admin") && is_below("/Admin/") && is_below("/admin/users")
        );
        assert!(!is_below("/adm") && !is_below("/admin/users/1") && !is_below("/users"));
    }

    #[test]
    fn a_plain_path_has_one_spelling() {
        let plain = |path| PlainPath::parse(path).map(|it| it.0);
        assert_eq!(plain("/public/a%20b/C%C3%A9"), Some("/public/a b/Cé".to_owned()));
        assert_eq!(plain("/public/"), Some("/public".to_owned()));
        assert_eq!(plain("/100%25"), Some("/100%".to_owned()));
        assert_eq!(plain("/"), Some("".to_owned()));
        for path in [
            "/a//b",
            "/a;b",
            "/a%3bb",
            "/a%3Fb",
            "/a%23b",
            "/%2561",
            "/a/%252e%252e/b",
            "//a",
            "/a/../b",
            "/a%EF%BC%8Fb",
            "/%EF%BD%81",
            "/a%C2%ADb",
            "/a%E2%80%8Db",
            "/a%D8%9Cb",
            "/a.",
            "/a%20",
            "/%20a",
            "/%25u002e%25u002e/b",
            "*",
        ] {
            assert_eq!(plain(path), None, "{path}");
        }
        let public = PlainPath::parse("/public").unwrap();
        let is_below = |path| PlainPath::parse(path).is_some_and(|it| it.is_below(&public));
        assert!(is_below("/public") && is_below("/public/x") && is_below("/%70ublic/x"));
        assert!(!is_below("/PUBLIC") && !is_below("/publicity") && !is_below("/"));
    }

    #[test]
    fn a_return_path_never_leaves_this_host() {
        for (target, path) in [
            ("/a?b=//c", "/a?b=//c"),
            ("//evil.example", "/evil.example"),
            ("/\\evil.example", "/evil.example"),
            ("///\\//evil.example/x", "/evil.example/x"),
            ("", "/"),
        ] {
            assert_eq!(return_path(target), path);
        }
    }
}
