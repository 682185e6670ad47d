//! Reads the options from environment variables, named as those of the server.

use edge_session_headers::is_of_kubernetes;
use std::collections::BTreeMap;

use edge_session_component::defaults;
use edge_session_component::wit::{
    Conflicts, OnStoreError, Options, Preset, Priority, Problem, SameSite, Secure, Unset,
};

const PREFIX: &str = "EDGE_SESSION_";

/// Shorter pieces before a comma are treated as parts of a secret that contains commas.
const SHORTEST_PIECE: usize = 16;

/// The variables that have not been read yet, and the problems of those that have.
struct Variables<'v> {
    left: BTreeMap<&'v str, &'v str>,
    problems: Vec<Problem>,
}

impl<'v> Variables<'v> {
    fn problem(&mut self, key: &str, message: String) {
        self.problems.push(Problem { name: format!("{PREFIX}{key}"), message });
    }

    fn text(&mut self, key: &str) -> Option<&'v str> {
        self.left.remove(key)
    }

    /// Reads one of several named values.
    fn choose<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        if chosen.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.problem(key, format!("is not one of {}", names.join(", ")));
        }
        chosen.map(|(_, value)| value.clone())
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.choose(key, &[("true", true), ("false", false)])
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Option<T> {
        let number = self.text(key)?.parse().ok();
        if number.is_none() {
            self.problem(key, "is not a whole number, or is too large".to_owned());
        }
        number
    }
}

/// Returns the options in these variables, or everything that is wrong with them. An unknown
/// variable is refused, since it may be a misspelled option.
pub(crate) fn read(environment: &[(String, String)]) -> Result<Options, String> {
    let ours = environment.iter();
    let ours = ours.filter(|(name, _)| !is_of_kubernetes(name));
    let ours = ours.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())));
    let mut from = Variables { left: ours.collect(), problems: Vec::new() };

    let presets = [("safe", Preset::Safe), ("express", Preset::Express)];
    let mut options = defaults(from.choose("PRESET", &presets).unwrap_or(Preset::Safe));
    if let Some(secrets) = from.text("SECRET") {
        let secrets = secrets.split(',').map(str::trim).filter(|secret| !secret.is_empty());
        options.secrets = secrets.map(|secret| secret.as_bytes().to_vec()).collect();
        let short = options.secrets.iter().position(|secret| secret.len() < SHORTEST_PIECE);
        if let (Some(at), true) = (short, options.secrets.len() > 1) {
            from.problem(
                "SECRET",
                format!(
                    "number {} has {} bytes, fewer than {SHORTEST_PIECE}: secrets are separated by \
                     commas, and cannot contain one",
                    at + 1,
                    options.secrets[at].len()
                ),
            );
        }
    }
    set(&mut options.name, from.text("NAME").map(str::to_owned));
    set(&mut options.allow_weak_secret, from.flag("ALLOW_WEAK_SECRET"));
    set(&mut options.resave, from.flag("RESAVE"));
    set(&mut options.save_uninitialized, from.flag("SAVE_UNINITIALIZED"));
    set(&mut options.rolling, from.flag("ROLLING"));
    let unset = [("keep", Unset::Keep), ("destroy", Unset::Destroy)];
    set(&mut options.unset, from.choose("UNSET", &unset));
    options.proxy = from.flag("PROXY");
    let conflicts = [("merge", Conflicts::Merge), ("overwrite", Conflicts::Overwrite)];
    set(&mut options.conflicts, from.choose("CONFLICTS", &conflicts));
    let policies = [("deny", OnStoreError::Deny), ("anonymous", OnStoreError::Anonymous)];
    set(&mut options.on_store_error, from.choose("ON_STORE_ERROR", &policies));
    set(&mut options.max_session_bytes, from.number("MAX_SESSION_BYTES"));
    set(&mut options.ttl, from.number("STORE_TTL"));
    set(&mut options.touch_after, from.number("STORE_TOUCH_AFTER"));

    let cookie = &mut options.cookie;
    set(&mut cookie.path, from.text("COOKIE_PATH").map(str::to_owned));
    cookie.domain = from.text("COOKIE_DOMAIN").map(str::to_owned);
    cookie.max_age = from.number::<u64>("COOKIE_MAX_AGE").map(|millis| millis as f64);
    set(&mut cookie.http_only, from.flag("COOKIE_HTTP_ONLY"));
    let secure = [("true", Secure::Always), ("false", Secure::Never), ("auto", Secure::Auto)];
    set(&mut cookie.secure, from.choose("COOKIE_SECURE", &secure).map(Some));
    let same_site = [
        ("strict", SameSite::Strict),
        ("lax", SameSite::Lax),
        ("none", SameSite::None),
        ("auto", SameSite::Auto),
    ];
    set(&mut cookie.same_site, from.choose("COOKIE_SAME_SITE", &same_site).map(Some));
    cookie.partitioned = from.flag("COOKIE_PARTITIONED");
    let priorities =
        [("low", Priority::Low), ("medium", Priority::Medium), ("high", Priority::High)];
    cookie.priority = from.choose("COOKIE_PRIORITY", &priorities);

    let unknown: Vec<_> = from.left.keys().copied().collect();
    for key in unknown {
        from.problem(key, "is not an option of the middleware".to_owned());
    }
    if from.problems.is_empty() { Ok(options) } else { Err(explain(&from.problems)) }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Returns all problems in one text.
pub(crate) fn explain(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems
        .iter()
        .map(|Problem { name, message }| {
            let name = if name == "secret" { "EDGE_SESSION_SECRET" } else { name };
            format!("{name} {message}")
        })
        .collect();
    format!("every request fails until the options are corrected: {}", lines.join("; "))
}

#[cfg(test)]
mod tests {
    use edge_session_component::Engine;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Options, String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        read(&variables.iter().map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn without_variables_the_defaults_hold_and_the_secret_is_missing() {
        let options = of(&[("PATH", "/bin")]).unwrap();
        assert_eq!(options, defaults(Preset::Safe));
        let problems = Engine::open(options).err().unwrap();
        assert!(explain(&problems).contains("EDGE_SESSION_SECRET is missing"));
    }

    #[test]
    fn every_option_has_its_variable() {
        let options = of(&[
            ("EDGE_SESSION_PRESET", "express"),
            ("EDGE_SESSION_SECRET", "0123456789 newer, 0123456789 older,"),
            ("EDGE_SESSION_NAME", "sid"),
            ("EDGE_SESSION_ALLOW_WEAK_SECRET", "false"),
            ("EDGE_SESSION_RESAVE", "false"),
            ("EDGE_SESSION_SAVE_UNINITIALIZED", "false"),
            ("EDGE_SESSION_ROLLING", "true"),
            ("EDGE_SESSION_UNSET", "destroy"),
            ("EDGE_SESSION_PROXY", "true"),
            ("EDGE_SESSION_CONFLICTS", "merge"),
            ("EDGE_SESSION_ON_STORE_ERROR", "anonymous"),
            ("EDGE_SESSION_MAX_SESSION_BYTES", "1000"),
            ("EDGE_SESSION_STORE_TTL", "60"),
            ("EDGE_SESSION_STORE_TOUCH_AFTER", "10"),
            ("EDGE_SESSION_COOKIE_PATH", "/app"),
            ("EDGE_SESSION_COOKIE_DOMAIN", "example.com"),
            ("EDGE_SESSION_COOKIE_MAX_AGE", "5000"),
            ("EDGE_SESSION_COOKIE_HTTP_ONLY", "false"),
            ("EDGE_SESSION_COOKIE_SECURE", "true"),
            ("EDGE_SESSION_COOKIE_SAME_SITE", "none"),
            ("EDGE_SESSION_COOKIE_PARTITIONED", "true"),
            ("EDGE_SESSION_COOKIE_PRIORITY", "high"),
            // Kubernetes sets these for a service of that name.
            ("EDGE_SESSION_SERVICE_HOST", "10.0.0.1"),
            ("EDGE_SESSION_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ])
        .unwrap();
        let default = defaults(Preset::Express);
        let expected = Options {
            secrets: vec![b"0123456789 newer".to_vec(), b"0123456789 older".to_vec()],
            name: "sid".into(),
            allow_weak_secret: false,
            resave: false,
            save_uninitialized: false,
            rolling: true,
            unset: Unset::Destroy,
            proxy: Some(true),
            conflicts: Conflicts::Merge,
            on_store_error: OnStoreError::Anonymous,
            max_session_bytes: 1000,
            ttl: 60,
            touch_after: 10,
            cookie: edge_session_component::wit::CookieOptions {
                path: "/app".into(),
                domain: Some("example.com".into()),
                max_age: Some(5000.0),
                expires: None,
                http_only: false,
                secure: Some(Secure::Always),
                same_site: Some(SameSite::None),
                partitioned: Some(true),
                priority: Some(Priority::High),
            },
            ..default
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn all_problems_are_told_at_once_and_no_value_is_quoted() {
        let problems = of(&[
            ("EDGE_SESSION_ROLLING", "perhaps"),
            ("EDGE_SESSION_COOKIE_MAX_AGE", "hunter2"),
            ("EDGE_SESSION_SECRETS", "hunter2"),
        ])
        .unwrap_err();
        for name in ["ROLLING is not one of true, false", "COOKIE_MAX_AGE is", "SECRETS is not"] {
            assert!(problems.contains(name), "{problems}");
        }
        assert!(!problems.contains("hunter2"));
    }

    #[test]
    fn a_comma_inside_a_secret_is_not_taken_for_the_end_of_it() {
        for preset in ["safe", "express"] {
            let of =
                |secret| of(&[("EDGE_SESSION_PRESET", preset), ("EDGE_SESSION_SECRET", secret)]);
            let problem = of("only-for-tests-0123456789-abcdefghij,hunter2").unwrap_err();
            assert!(problem.contains("EDGE_SESSION_SECRET number 2 has 7 bytes"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
            assert!(of("keyboard cat").is_ok(), "one short secret is nobody's accident");
        }
    }
}
