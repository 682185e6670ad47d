//! Paths as rules see them.
//!
//! Applications differ in what they make of `//`, of letters' case or of `/a;b`. A rule that
//! protects `/admin` must hold for every spelling that some application takes for it, so
//! rules match a plain form of the path, and a path that can be read in two ways is refused.

use percent_encoding::percent_decode_str;

/// A path in plain form: decoded once, without empty segments, without parameters
/// (`;…`), in lower case. Begins with a slash and does not end with one, except `/` itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RulePath(String);

/// Applications differ in what such a path means: it holds a dot segment, a slash or a
/// backslash that is escaped, a control character, or an escape that is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ambiguous;

impl RulePath {
    /// The path of a request's target, as it was received.
    pub(crate) fn parse(path: &str) -> Result<Self, Ambiguous> {
        let mut plain = String::with_capacity(path.len());
        for segment in path.split('/') {
            // Decoding passes over an escape that is none.
            let is_escaped = segment.contains('%');
            if is_escaped && !has_whole_escapes(segment) {
                return Err(Ambiguous);
            }
            let segment = percent_decode_str(segment).decode_utf8_lossy();
            if segment.contains(['/', '\\']) || segment.contains(char::is_control) {
                return Err(Ambiguous);
            }
            let segment = segment.split(';').next().unwrap_or_default();
            match segment {
                "." | ".." => return Err(Ambiguous),
                "" => {}
                _ => {
                    plain.push('/');
                    plain.extend(segment.chars().map(|c| c.to_ascii_lowercase()));
                }
            }
        }
        if plain.is_empty() {
            plain.push('/');
        }
        Ok(Self(plain))
    }

    /// Whether it is `prefix` or below it.
    pub(crate) fn is_below(&self, prefix: &Self) -> bool {
        if prefix.0 == "/" {
            return true;
        }
        self.0.strip_prefix(&prefix.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How specific it is: longer prefixes come before shorter ones.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn has_whole_escapes(segment: &str) -> bool {
    segment.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    })
}

/// A request's target as the place to return to: a path on this host, whatever it says.
/// Browsers take `//host` and `/\host` for another host.
pub(crate) fn return_path(path_and_query: &str) -> String {
    let path = path_and_query.trim_start_matches(['/', '\\']);
    format!("/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(path: &str) -> String {
        RulePath::parse(path).unwrap().0
    }

    #[test]
    fn spellings_of_one_path_are_one() {
        for path in
            ["/admin", "//admin", "/admin/", "/%61dmin", "/ADMIN", "/admin;x=1", "/;y/admin"]
        {
            assert_eq!(plain(path), "/admin", "{path}");
        }
        assert_eq!(plain("/"), "/");
        assert_eq!(plain("*"), "/*");
        assert_eq!(plain("/a%20b/c%C3%A9"), "/a b/cé");
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
        ] {
            assert_eq!(RulePath::parse(path), Err(Ambiguous), "{path}");
        }
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
