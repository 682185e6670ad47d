//! Finds a problem's line in the file, and the key that a misspelled one was meant to be.

/// The minimum similarity of two names, from 0 to 1, for one to be suggested for the other.
const ALIKE: f64 = 0.85;

/// Settings that are not keys of the file, and the names that people use for them.
const ELSEWHERE: [(&str, &str); 13] = [
    ("secret", "EDGE_SESSION_SECRET, an environment variable"),
    ("secrets", "EDGE_SESSION_SECRET, an environment variable"),
    ("store.crypto_secret", "EDGE_SESSION_CRYPTO_SECRET, an environment variable"),
    ("store.secret", "EDGE_SESSION_CRYPTO_SECRET, an environment variable"),
    ("admin.token", "EDGE_SESSION_ADMIN_TOKEN, an environment variable"),
    ("auth.token", "EDGE_SESSION_AUTH_TOKEN, an environment variable"),
    ("log.level", "EDGE_SESSION_LOG, an environment variable"),
    ("port", "listen"),
    ("admin.port", "admin.listen"),
    ("store.type", "store.url"),
    ("store.uri", "store.url"),
    ("store.path", "store.url"),
    ("store.file", "store.url"),
];

/// Returns which of the `known` names was meant by `name`. Recognizes express-session's spelling
/// (`saveUninitialized`) and a missing or wrong section (`max_age` for `cookie.max_age`).
pub(crate) fn meant<'k>(
    name: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> Option<String> {
    if let Some((_, meant)) = ELSEWHERE.iter().find(|(from, _)| *from == name) {
        return Some((*meant).to_owned());
    }
    let (section, last) = parts(name);
    let same_key: std::collections::BTreeSet<_> =
        known.clone().filter(|it| letters(parts(it).1) == letters(last)).collect();
    if let Some(own) = same_key.iter().find(|it| parts(it).0 == section) {
        return Some((*own).to_owned());
    }
    if !same_key.is_empty() {
        let is_before = |it: &&str| !it.contains('.') && !section.is_empty();
        let place =
            if same_key.iter().any(is_before) { ", before the first [section]" } else { "" };
        let names: Vec<_> = same_key.into_iter().collect();
        return Some(format!("{}{place}", names.join(" or ")));
    }
    let alike = |it: &str| strsim::jaro_winkler(&letters(last), &letters(parts(it).1));
    let own = known.filter(|it| parts(it).0 == section).map(|it| (alike(it), it));
    let best = own.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(likeness, _)| *likeness > ALIKE).map(|(_, name)| name.to_owned())
}

/// Splits a name into section and key.
fn parts(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

fn letters(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.');
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the line of a TOML text, counted from 1, that sets `name`, such as `cookie.path` or
/// `guard[1].require`; otherwise the line where its section begins, if any.
pub(crate) fn line_of(text: &str, name: &str) -> Option<usize> {
    let (mut section, mut section_line) = (String::new(), None);
    let mut tables = std::collections::HashMap::<String, usize>::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(array) = line.strip_prefix("[[").and_then(|it| it.split("]]").next()) {
            let count = tables.entry(array.trim().to_owned()).or_default();
            section = format!("{}[{count}].", array.trim());
            *count += 1;
        } else if let Some(table) = line.strip_prefix('[').and_then(|it| it.split(']').next()) {
            section = format!("{}.", table.trim());
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim().replace(['"', '\''], "");
            if !line.starts_with('#') && format!("{section}{key}") == name {
                return Some(at + 1);
            }
            continue;
        } else {
            continue;
        }
        if name == section.trim_end_matches('.') || name.starts_with(&section) {
            section_line = section_line.or(Some(at + 1));
        }
    }
    section_line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{keys, variable};

    #[test]
    fn a_misspelt_option_is_known_by_what_it_is_like() {
        for (name, known) in [
            ("listn", "listen"),
            (
                "store.listen",
                "admin.listen or auth.listen or ext_proc.listen or listen, before the first [section]",
            ),
            ("admin.token", "EDGE_SESSION_ADMIN_TOKEN, an environment variable"),
            ("auth.token", "EDGE_SESSION_AUTH_TOKEN, an environment variable"),
            ("gateway.requests", "limits.requests or log.requests"),
            ("saveUninitialized", "save_uninitialized"),
            ("max_age", "cookie.max_age"),
            ("cookie.maxAge", "cookie.max_age"),
            ("cookie.httponly", "cookie.http_only"),
            ("cookie.same-site", "cookie.same_site"),
            ("limits.request", "limits.requests"),
            ("store.uri", "store.url"),
            ("gateway.trusted_proxy", "gateway.trusted_proxies"),
            ("gateway.max_age", "cookie.max_age"),
        ] {
            assert_eq!(meant(name, keys()).as_deref(), Some(known), "{name}");
        }
        for name in ["speed", "x", "mongodb://u:p@h", "", "store.speed", "admin.file"] {
            assert_eq!(meant(name, keys()), None, "{name}");
        }
        let variables: Vec<_> = keys().map(variable).collect();
        let meant = meant("EDGE_SESSION_COOKIE_MAXAGE", variables.iter().map(String::as_str));
        assert_eq!(meant.as_deref(), Some("EDGE_SESSION_COOKIE_MAX_AGE"));
    }

    #[test]
    fn the_line_of_an_option_is_found() {
        let text = "name = \"a\"\ncookie.path = \"/\"\n\n# listen = 1\n[limits]\n  requests=1\n\
                    [[guard]]\npaths = [\n  \"/a\",\n]\n[[guard]] # the second\n\"require\" = \"x\"\n";
        for (name, line) in [
            ("name", Some(1)),
            ("cookie.path", Some(2)),
            ("limits.requests", Some(6)),
            ("guard[0].paths", Some(8)),
            ("guard[1].require", Some(12)),
            ("guard[1].paths", Some(11)),
            ("limits.connections", Some(5)),
            ("listen", None),
            ("guard[2].paths", None),
        ] {
            assert_eq!(line_of(text, name), line, "{name}");
        }
    }
}
