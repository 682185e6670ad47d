//! The presets' defaults and the validation of options. Validation runs once, when an engine is
//! opened, and reports all problems together.

use crate::cookie_header::{MAX_COOKIE, is_domain, is_name, is_path};
use crate::session_cookie::is_lifetime;
use crate::wit::{
    Conflicts, CookieOptions, OnStoreError, Options, Preset, Problem, SameSite, Secure, Unset,
};

/// The minimum length of a secret: HMAC-SHA256 is only as strong as its key (RFC 2104, section 3).
const MIN_SECRET: usize = 32;

/// RFC 6265bis, section 5.5: browsers limit lifetimes to this.
const MAX_LIFETIME_DAYS: f64 = 400.0;

/// RFC 6265bis, section 5.6: browsers ignore longer attribute values.
const MAX_ATTRIBUTE: usize = 1024;

/// Returns the options of a preset; `secrets` is empty.
pub fn defaults(preset: Preset) -> Options {
    let safe = preset == Preset::Safe;
    Options {
        preset,
        name: "connect.sid".into(),
        secrets: Vec::new(),
        allow_weak_secret: !safe,
        resave: !safe,
        save_uninitialized: !safe,
        rolling: false,
        unset: Unset::Keep,
        proxy: None,
        cookie: CookieOptions {
            path: "/".into(),
            domain: None,
            max_age: None,
            expires: None,
            http_only: true,
            secure: safe.then_some(Secure::Auto),
            same_site: safe.then_some(SameSite::Lax),
            partitioned: None,
            priority: None,
        },
        ttl: 14 * 24 * 60 * 60,
        touch_after: 0,
        conflicts: if safe { Conflicts::Merge } else { Conflicts::Overwrite },
        on_store_error: OnStoreError::Deny,
        max_session_bytes: if safe { 1 << 20 } else { 15 << 20 },
    }
}

/// Returns all problems with `options`.
pub(crate) fn check(options: &Options) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    check_secrets(options, &mut problems);
    check_syntax(options, &mut problems);
    if options.preset == Preset::Safe {
        check_safety(options, &mut problems);
    }
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn when(&mut self, wrong: bool, option: &str, message: impl Into<String>) {
        if wrong {
            self.0.push(Problem { name: option.into(), message: message.into() });
        }
    }
}

fn check_secrets(options: &Options, problems: &mut Problems) {
    problems.when(
        options.secrets.is_empty(),
        "secret",
        "is missing: set at least one secret of 32 random bytes or more",
    );
    for (at, secret) in options.secrets.iter().enumerate() {
        let number = at + 1;
        problems.when(secret.is_empty(), "secret", format!("number {number} is empty"));
        problems.when(
            !secret.is_empty() && secret.len() < MIN_SECRET && !options.allow_weak_secret,
            "secret",
            format!(
                "number {number} has {} bytes, fewer than {MIN_SECRET}: use a longer one, or set \
                 allow_weak_secret = true",
                secret.len()
            ),
        );
    }
}

/// Checks for what express-session itself could not write.
fn check_syntax(options: &Options, problems: &mut Problems) {
    let cookie = &options.cookie;
    problems.when(
        !is_name(&options.name),
        "name",
        format!(
            "{:?} is not a cookie name: only letters, digits and !#$%&'*+-.^_`|~ are allowed",
            options.name
        ),
    );
    problems.when(
        options.name.len() > MAX_COOKIE / 2,
        "name",
        format!(
            "has {} bytes: a cookie's name and value together have at most {MAX_COOKIE}",
            options.name.len()
        ),
    );
    problems.when(
        !is_path(&cookie.path) || !cookie.path.starts_with('/'),
        "cookie.path",
        format!("{:?} is not a path: a path begins with / and contains no ;", cookie.path),
    );
    if let Some(domain) = &cookie.domain {
        problems.when(
            !is_domain(domain),
            "cookie.domain",
            format!("{domain:?} is not a host name"),
        );
    }
    problems.when(
        cookie.max_age.is_some_and(|age| !is_lifetime(age)),
        "cookie.max_age",
        "is not a lifetime: use a number of milliseconds up to 8.64e15",
    );
    problems.when(options.ttl == 0, "store.ttl", "must be at least 1 second");
    problems.when(
        options.touch_after > 0 && options.touch_after >= options.ttl,
        "store.touch_after",
        format!(
            "{} seconds is not less than store.ttl, {} seconds: sessions in use would expire",
            options.touch_after, options.ttl
        ),
    );
    problems.when(options.max_session_bytes == 0, "max_session_bytes", "must be at least 1");
}

/// Checks for what express-session accepts, but browsers reject or attackers exploit.
fn check_safety(options: &Options, problems: &mut Problems) {
    let cookie = &options.cookie;
    let always_secure = cookie.secure == Some(Secure::Always);
    let prefixed = |prefix: &str| {
        options.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if prefixed("__Host-") {
        problems.when(
            cookie.domain.is_some(),
            "cookie.domain",
            "must not be set: the name's prefix __Host- forbids a domain",
        );
        problems.when(
            cookie.path != "/",
            "cookie.path",
            "must be \"/\": the name's prefix __Host- requires it",
        );
    }
    problems.when(
        (prefixed("__Host-") || prefixed("__Secure-")) && !always_secure,
        "cookie.secure",
        "must be true: the name's prefix requires it",
    );
    problems.when(
        cookie.same_site == Some(SameSite::None) && !always_secure,
        "cookie.same_site",
        "\"none\" requires cookie.secure = true: browsers reject the cookie otherwise",
    );
    problems.when(
        cookie.partitioned == Some(true) && !always_secure,
        "cookie.partitioned",
        "requires cookie.secure = true: browsers reject the cookie otherwise",
    );
    problems.when(
        cookie.max_age.is_some() && cookie.expires.is_some(),
        "cookie.expires",
        "conflicts with cookie.max_age: set one of them",
    );
    problems.when(
        cookie.max_age.is_some_and(|age| age < 0.0),
        "cookie.max_age",
        "is negative: every session would expire at once",
    );
    problems.when(
        cookie.max_age.is_some_and(|age| age > MAX_LIFETIME_DAYS * 86_400_000.0),
        "cookie.max_age",
        format!("is more than {MAX_LIFETIME_DAYS} days (in milliseconds): browsers shorten it"),
    );
    for (option, value) in
        [("cookie.path", Some(&cookie.path)), ("cookie.domain", cookie.domain.as_ref())]
    {
        problems.when(
            value.is_some_and(|value| value.len() > MAX_ATTRIBUTE),
            option,
            format!("has more than {MAX_ATTRIBUTE} bytes: browsers ignore it"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe() -> Options {
        Options { secrets: vec![vec![7; 32]], ..defaults(Preset::Safe) }
    }

    fn named(options: &Options) -> Vec<String> {
        check(options).into_iter().map(|problem| problem.name).collect()
    }

    #[test]
    fn the_presets_are_sound_once_they_have_a_secret() {
        assert_eq!(check(&safe()), []);
        let express =
            Options { secrets: vec![b"keyboard cat".to_vec()], ..defaults(Preset::Express) };
        assert_eq!(check(&express), []);
    }

    #[test]
    fn all_problems_are_reported_together() {
        let mut options = defaults(Preset::Safe);
        options.name = "__Host-a b".into();
        options.cookie.domain = Some("exa mple".into());
        options.cookie.path = "a".into();
        options.cookie.same_site = Some(SameSite::None);
        options.ttl = 0;
        assert_eq!(
            named(&options),
            [
                "secret",
                "name",
                "cookie.path",
                "cookie.domain",
                "store.ttl",
                "cookie.domain",
                "cookie.path",
                "cookie.secure",
                "cookie.same_site",
            ]
        );
    }

    #[test]
    fn a_weak_secret_is_refused_by_length_and_never_quoted() {
        let mut options = safe();
        options.secrets.push(b"hunter2".to_vec());
        let problems = check(&options);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.starts_with("number 2 has 7 bytes"));
        assert!(!problems[0].message.contains("hunter2"));
        options.allow_weak_secret = true;
        assert_eq!(check(&options), []);
        options.secrets.push(Vec::new());
        assert_eq!(named(&options), ["secret"]);
    }

    #[test]
    fn combinations_that_browsers_refuse_are_refused() {
        type Spoil = fn(&mut Options);
        let cases: [(&str, Spoil); 9] = [
            ("cookie.secure", |o| o.name = "__secure-sid".into()),
            ("cookie.partitioned", |o| o.cookie.partitioned = Some(true)),
            ("cookie.same_site", |o| o.cookie.same_site = Some(SameSite::None)),
            ("cookie.max_age", |o| o.cookie.max_age = Some(401.0 * 86_400_000.0)),
            ("cookie.max_age", |o| o.cookie.max_age = Some(-1.0)),
            ("cookie.max_age", |o| o.cookie.max_age = Some(f64::NAN)),
            ("cookie.path", |o| o.cookie.path = format!("/{}", "a".repeat(1024))),
            ("store.touch_after", |o| o.touch_after = o.ttl),
            ("cookie.expires", |o| {
                o.cookie.max_age = Some(1.0);
                o.cookie.expires = Some(1);
            }),
        ];
        for (option, configure) in cases {
            let mut options = safe();
            configure(&mut options);
            assert_eq!(named(&options), [option]);
        }
    }

    #[test]
    fn bounds_are_met_exactly() {
        let mut options = safe();
        options.name = "n".repeat(MAX_COOKIE / 2);
        options.cookie.max_age = Some(400.0 * 86_400_000.0);
        options.cookie.path = format!("/{}", "a".repeat(MAX_ATTRIBUTE - 1));
        assert_eq!(check(&options), []);
        options.name.push('n');
        options.cookie.max_age = Some(400.0 * 86_400_000.0 + 1.0);
        options.cookie.path.push('a');
        assert_eq!(named(&options), ["name", "cookie.max_age", "cookie.path"]);
    }

    #[test]
    fn express_takes_every_lifetime_that_is_one() {
        let of = |age| {
            let mut options = Options { secrets: vec![vec![7; 32]], ..defaults(Preset::Express) };
            options.cookie.max_age = Some(age);
            named(&options)
        };
        for age in [-1.0, 0.5, 8.64e15] {
            assert_eq!(of(age), <[&str; 0]>::default(), "{age}");
        }
        for age in [f64::NAN, f64::INFINITY, -8.65e15] {
            assert_eq!(of(age), ["cookie.max_age"], "{age}");
        }
    }

    #[test]
    fn a_host_prefixed_secure_cookie_is_fine() {
        let mut options = safe();
        options.name = "__Host-sid".into();
        options.cookie.secure = Some(Secure::Always);
        options.cookie.same_site = Some(SameSite::None);
        options.cookie.partitioned = Some(true);
        assert_eq!(check(&options), []);
    }
}
