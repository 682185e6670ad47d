//! The options: one table with names, values, defaults and help; how they are read; and their
//! validation. It runs once, when an instance is configured, and reports all problems together.

use std::str::FromStr;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cookie_header::{MAX_COOKIE, is_domain, is_name, is_path};
use crate::session_cookie::is_lifetime;
use crate::wit::{self, Millis, OptionDescription, Problem, Setting};

/// In text, shorter pieces before a comma are treated as parts of a secret that contains commas.
const SHORTEST_PIECE: usize = 16;

/// A longer name resembles no option, and comparing it costs too much.
const MAX_NAME: usize = 64;

/// The minimum length of a secret: HMAC-SHA256 is only as strong as its key (RFC 2104, section 3).
const MIN_SECRET: usize = 32;

/// RFC 6265bis, section 5.5: browsers limit lifetimes to this.
const MAX_LIFETIME_DAYS: f64 = 400.0;

/// A longer `ttl`, in seconds, is in milliseconds by mistake, or leads beyond the dates of
/// JavaScript: 100 years.
const MAX_TTL: u64 = 100 * 365 * 86_400;

/// The longest default of `touch_after`, in milliseconds.
const TOUCH_PAUSE: Millis = 60_000;

/// RFC 6265bis, section 5.6: browsers ignore longer attribute values.
const MAX_ATTRIBUTE: usize = 1024;

/// The set of defaults to start from. It also selects behaviours that have no option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Preset {
    Safe,
    Express,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unset {
    Keep,
    Destroy,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Secure {
    Never,
    Always,
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SameSite {
    Strict,
    Lax,
    None,
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Priority {
    Low,
    Medium,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Conflicts {
    Merge,
    Overwrite,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OnStoreError {
    Deny,
    Anonymous,
}

/// Cookie settings of new sessions. A stored session keeps its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CookieOptions {
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    /// In milliseconds, a JavaScript number.
    pub(crate) max_age: Option<f64>,
    pub(crate) expires: Option<Millis>,
    pub(crate) http_only: bool,
    /// None: treated as `Never`, and not stored.
    pub(crate) secure: Option<Secure>,
    pub(crate) same_site: Option<SameSite>,
    pub(crate) partitioned: Option<bool>,
    pub(crate) priority: Option<Priority>,
}

/// All options; [`TABLE`] describes them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) preset: Preset,
    pub(crate) name: String,
    /// The newest one first.
    pub(crate) secrets: Vec<Vec<u8>>,
    pub(crate) allow_weak_secret: bool,
    pub(crate) resave: bool,
    pub(crate) save_uninitialized: bool,
    pub(crate) rolling: bool,
    pub(crate) unset: Unset,
    pub(crate) proxy: Option<bool>,
    pub(crate) cookie: CookieOptions,
    /// In seconds.
    pub(crate) ttl: u64,
    /// In seconds. None: see [`Options::touch_pause`].
    pub(crate) touch_after: Option<u64>,
    pub(crate) conflicts: Conflicts,
    pub(crate) on_store_error: OnStoreError,
    pub(crate) max_session_bytes: u32,
}

impl Options {
    /// Returns how long after a touch a session with this lifetime is not touched again. Both are
    /// in milliseconds.
    pub(crate) fn touch_pause(&self, lifetime: Millis) -> Millis {
        match (self.touch_after, self.preset) {
            (Some(seconds), _) => seconds.saturating_mul(1000),
            // A session that is in use ends early by no more than this.
            (None, Preset::Safe) if !self.rolling => TOUCH_PAUSE.min(lifetime / 10),
            // With `rolling`, the cookie is sent each time, and both must live equally long.
            (None, _) => 0,
        }
    }
}

/// An option: its name, its values, and how it is read and written.
struct Entry {
    name: &'static str,
    values: &'static str,
    help: &'static str,
    get: fn(&Options) -> Value,
    /// Returns false if the value is not one of `values`.
    set: fn(&mut Options, &Given) -> bool,
}

/// A value as it was given.
struct Given {
    value: Value,
    /// Whether it is text, which may stand for a number or a word.
    is_text: bool,
}

impl Given {
    /// Describes the value in a message. A text may be a secret in the wrong place: only one of an
    /// option with few values is quoted.
    fn shown(&self, entry: &Entry) -> String {
        let shown = match &self.value {
            _ if self.is_text => return String::new(),
            Value::String(text) => {
                let is_word = text.len() <= 60 && !text.contains('@') && !text.contains("://");
                let is_one_of_few =
                    entry.values.contains('"') || entry.values.starts_with("a date");
                match is_word && is_one_of_few {
                    true => format!("{text:?}"),
                    false => "a string".to_owned(),
                }
            }
            other => other.to_string(),
        };
        format!("{shown}, ")
    }

    /// Reads a text that stands for another value.
    fn parsed<T: FromStr>(&self) -> Option<T> {
        self.value.as_str().filter(|_| self.is_text)?.parse().ok()
    }

    fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.parsed())
    }

    fn text(&self) -> Option<String> {
        self.value.as_str().map(str::to_owned)
    }

    fn number(&self) -> Option<f64> {
        self.value.as_f64().or_else(|| self.parsed())
    }

    /// Returns a whole number of zero or more.
    fn whole(&self) -> Option<u64> {
        self.value.as_u64().or_else(|| self.parsed())
    }

    /// Returns a time: milliseconds since the Unix epoch, or a date with an offset (RFC 3339).
    fn time(&self) -> Option<Millis> {
        self.whole().or_else(|| {
            let date = OffsetDateTime::parse(self.value.as_str()?, &Rfc3339).ok()?;
            Millis::try_from(date.unix_timestamp_nanos() / 1_000_000).ok()
        })
    }

    /// Returns one of several values by name, in any case.
    fn choice<T: Copy>(&self, names: &[(&str, T)]) -> Option<T> {
        let text = self.value.as_str()?;
        names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
    }
}

/// Sets `place`, unless the value is not one of the option.
fn put<T>(place: &mut T, value: Option<T>) -> bool {
    value.is_some_and(|value| {
        *place = value;
        true
    })
}

fn put_some<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    put(place, value.map(Some))
}

fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> Value {
    names.iter().find(|(_, it)| *it == value).map_or(Value::Null, |(name, _)| (*name).into())
}

const PRESETS: &[(&str, Preset)] = &[("safe", Preset::Safe), ("express", Preset::Express)];
const UNSETS: &[(&str, Unset)] = &[("keep", Unset::Keep), ("destroy", Unset::Destroy)];
const CONFLICTS: &[(&str, Conflicts)] =
    &[("merge", Conflicts::Merge), ("overwrite", Conflicts::Overwrite)];
const POLICIES: &[(&str, OnStoreError)] =
    &[("deny", OnStoreError::Deny), ("anonymous", OnStoreError::Anonymous)];
pub(crate) const SAME_SITES: &[(&str, SameSite)] = &[
    ("strict", SameSite::Strict),
    ("lax", SameSite::Lax),
    ("none", SameSite::None),
    ("auto", SameSite::Auto),
];
pub(crate) const PRIORITIES: &[(&str, Priority)] =
    &[("low", Priority::Low), ("medium", Priority::Medium), ("high", Priority::High)];

const FLAG: &str = "true or false";
const WHOLE: &str = "a whole number of 0 or more, such as 60";

/// All options but `secret`, of which there may be several.
const TABLE: &[Entry] = &[
    Entry {
        name: "preset",
        values: "one of \"safe\", \"express\"",
        help: "The set of defaults to start from. \"safe\": sessions without data are not stored, \
               logout clears the cookie, parallel requests are merged, and a weak configuration is \
               refused. \"express\": the historical behaviour of express-session 1.19, including \
               its quirks.",
        get: |o| name_of(PRESETS, o.preset),
        set: |o, it| put(&mut o.preset, it.choice(PRESETS)),
    },
    Entry {
        name: "name",
        values: "a string",
        help: "The cookie's name.",
        get: |o| o.name.as_str().into(),
        set: |o, it| put(&mut o.name, it.text()),
    },
    Entry {
        name: "allow_weak_secret",
        values: FLAG,
        help: "Accept secrets of fewer than 32 bytes.",
        get: |o| o.allow_weak_secret.into(),
        set: |o, it| put(&mut o.allow_weak_secret, it.flag()),
    },
    Entry {
        name: "resave",
        values: FLAG,
        help: "Save loaded sessions even when nothing changed.",
        get: |o| o.resave.into(),
        set: |o, it| put(&mut o.resave, it.flag()),
    },
    Entry {
        name: "save_uninitialized",
        values: FLAG,
        help: "Save new sessions even when they are empty.",
        get: |o| o.save_uninitialized.into(),
        set: |o, it| put(&mut o.save_uninitialized, it.flag()),
    },
    Entry {
        name: "rolling",
        values: FLAG,
        help: "Send the cookie with every response, which restarts its lifetime; with `preset = \
               \"safe\"`, unless `touch_after` spares the touch.",
        get: |o| o.rolling.into(),
        set: |o, it| put(&mut o.rolling, it.flag()),
    },
    Entry {
        name: "unset",
        values: "one of \"keep\", \"destroy\"",
        help: "What happens to the stored session when the application unsets it. \"keep\": the \
               stored session is kept, and the request's changes are dropped. \"destroy\": the \
               stored session is deleted.",
        get: |o| name_of(UNSETS, o.unset),
        set: |o, it| put(&mut o.unset, it.choice(UNSETS)),
    },
    Entry {
        name: "proxy",
        values: FLAG,
        help: "true: trust X-Forwarded-Proto. false: only the gateway's own TLS counts as secure. \
               Unset: what the gateway's framework reports.",
        get: |o| o.proxy.into(),
        set: |o, it| put_some(&mut o.proxy, it.flag()),
    },
    Entry {
        name: "conflicts",
        values: "one of \"merge\", \"overwrite\"",
        help: "How a save handles a session that has changed in the store since it was loaded. \
               \"merge\": the request's changes are applied to the currently stored session, by \
               top-level key; for the same key, the last writer wins. \"overwrite\": the stored \
               session is overwritten, even if it was deleted in the meantime (express-session's \
               behaviour).",
        get: |o| name_of(CONFLICTS, o.conflicts),
        set: |o, it| put(&mut o.conflicts, it.choice(CONFLICTS)),
    },
    Entry {
        name: "on_store_error",
        values: "one of \"deny\", \"anonymous\"",
        help: "How requests are handled while the store is unavailable. \"deny\": the request \
               fails. \"anonymous\": if a new session cannot be stored, the request continues \
               without one; if a session cannot be loaded, the request gets an empty one, and all \
               changes to it are dropped, including a logout. Changing or ending a session that \
               was loaded still fails.",
        get: |o| name_of(POLICIES, o.on_store_error),
        set: |o, it| put(&mut o.on_store_error, it.choice(POLICIES)),
    },
    Entry {
        name: "max_session_bytes",
        values: "a whole number up to 4294967295, such as 1048576",
        help: "The maximum size of a session that is stored or read, in bytes of its JSON text.",
        get: |o| o.max_session_bytes.into(),
        set: |o, it| {
            put(&mut o.max_session_bytes, it.whole().and_then(|it| u32::try_from(it).ok()))
        },
    },
    Entry {
        name: "cookie.path",
        values: "a string",
        help: "The Path attribute. Requests to a path that is neither equal to it nor below it get \
               no session (path-match: RFC 6265, section 5.1.4).",
        get: |o| o.cookie.path.as_str().into(),
        set: |o, it| put(&mut o.cookie.path, it.text()),
    },
    Entry {
        name: "cookie.domain",
        values: "a string",
        help: "The Domain attribute. Unset: the cookie is sent to the exact host only.",
        get: |o| o.cookie.domain.clone().into(),
        set: |o, it| put_some(&mut o.cookie.domain, it.text()),
    },
    Entry {
        name: "cookie.max_age",
        values: "a number of milliseconds, such as 60000",
        help: "The lifetime since the last save or touch, in milliseconds. Unset: until the \
               browser closes.",
        get: |o| o.cookie.max_age.map_or(Value::Null, number),
        set: |o, it| put_some(&mut o.cookie.max_age, it.number()),
    },
    Entry {
        name: "cookie.expires",
        values: "a date such as 2030-01-02T03:04:05Z",
        help: "A fixed expiry instead of `max_age`: a date with an offset (RFC 3339), or \
               milliseconds since the Unix epoch.",
        get: |o| o.cookie.expires.into(),
        set: |o, it| put_some(&mut o.cookie.expires, it.time()),
    },
    Entry {
        name: "cookie.http_only",
        values: FLAG,
        help: "The HttpOnly attribute.",
        get: |o| o.cookie.http_only.into(),
        set: |o, it| put(&mut o.cookie.http_only, it.flag()),
    },
    Entry {
        name: "cookie.secure",
        values: "true, false or \"auto\"",
        help: "The Secure attribute. A Secure cookie is never sent in response to an insecure \
               request. \"auto\": set if the request that created the session was secure.",
        get: |o| match o.cookie.secure {
            None => Value::Null,
            Some(Secure::Auto) => "auto".into(),
            Some(secure) => (secure == Secure::Always).into(),
        },
        set: |o, it| {
            let flag = it.flag().map(|flag| if flag { Secure::Always } else { Secure::Never });
            put_some(&mut o.cookie.secure, flag.or(it.choice(&[("auto", Secure::Auto)])))
        },
    },
    Entry {
        name: "cookie.same_site",
        values: "one of \"strict\", \"lax\", \"none\", \"auto\"",
        help: "The SameSite attribute (RFC 6265bis, section 5.4.7). \"auto\": \"none\" if the \
               request that created the session was secure, otherwise \"lax\". true is \
               \"strict\"; false omits the attribute.",
        get: |o| o.cookie.same_site.map_or(Value::Null, |it| name_of(SAME_SITES, it)),
        set: |o, it| {
            let flag = it.flag().map(|flag| flag.then_some(SameSite::Strict));
            put(&mut o.cookie.same_site, flag.or(it.choice(SAME_SITES).map(Some)))
        },
    },
    Entry {
        name: "cookie.partitioned",
        values: FLAG,
        help: "The Partitioned attribute (CHIPS).",
        get: |o| o.cookie.partitioned.into(),
        set: |o, it| put_some(&mut o.cookie.partitioned, it.flag()),
    },
    Entry {
        name: "cookie.priority",
        values: "one of \"low\", \"medium\", \"high\"",
        help: "The Priority attribute, which Chromium supports.",
        get: |o| o.cookie.priority.map_or(Value::Null, |it| name_of(PRIORITIES, it)),
        set: |o, it| put_some(&mut o.cookie.priority, it.choice(PRIORITIES)),
    },
    Entry {
        name: "store.ttl",
        values: WHOLE,
        help: "The store lifetime of a session whose cookie has no expiry, in seconds \
               (connect-mongo's `ttl`).",
        get: |o| o.ttl.into(),
        set: |o, it| put(&mut o.ttl, it.whole()),
    },
    Entry {
        name: "store.touch_after",
        values: WHOLE,
        help: "A session that was touched more recently than this many seconds ago is not touched \
               again; 0: always touch (connect-mongo's `touchAfter`). Unset: 60 seconds, but at \
               most a tenth of the session's lifetime, with `preset = \"safe\"` and without \
               `rolling`; otherwise 0.",
        get: |o| o.touch_after.into(),
        set: |o, it| put_some(&mut o.touch_after, it.whole()),
    },
];

fn number(value: f64) -> Value {
    // A whole number is written as JavaScript writes it.
    if value.fract() == 0.0 && value.abs() < 9e15 { (value as i64).into() } else { value.into() }
}

/// Describes all options.
pub fn describe() -> Vec<OptionDescription> {
    let secret = OptionDescription {
        name: "secret".to_owned(),
        values: "a string or a list of strings".to_owned(),
        help: "The signing keys, newest first. The first one signs; all of them verify. Each has \
               32 random bytes or more."
            .to_owned(),
        safe: "null".to_owned(),
        express: "null".to_owned(),
    };
    let [safe, express] = [Preset::Safe, Preset::Express].map(defaults);
    let others = TABLE.iter().map(|entry| OptionDescription {
        name: entry.name.to_owned(),
        values: entry.values.to_owned(),
        safe: (entry.get)(&safe).to_string(),
        express: (entry.get)(&express).to_string(),
        help: entry.help.to_owned(),
    });
    std::iter::once(secret).chain(others).collect()
}

/// Returns the options, secrets excepted, as JSON.
pub(crate) fn in_force(options: &Options) -> Vec<Setting> {
    let setting = |entry: &Entry| Setting {
        name: entry.name.to_owned(),
        value: wit::Value::Json((entry.get)(options).to_string()),
    };
    TABLE.iter().map(setting).collect()
}

/// Returns the options with these settings, or everything that is wrong with them.
pub(crate) fn read(settings: &[Setting]) -> Result<Options, Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    let mut given = Vec::new();
    let mut secrets = Vec::new();
    for setting in settings {
        let Setting { name, value } = setting;
        if normal(name) == "secret" {
            if let Err(wrong) = read_secret(value, &mut secrets) {
                problems.when(true, name, wrong);
            }
            continue;
        }
        let Some(entry) = find(name) else {
            problems.when(true, name, unknown(name));
            continue;
        };
        let value = match value {
            wit::Value::Json(json) => match scalar(json) {
                Some(Value::Null) => {
                    given.retain(|(it, ..): &(&Entry, _, _)| it.name != entry.name);
                    continue;
                }
                value => value.map(|value| Given { value, is_text: false }),
            },
            wit::Value::Text(text) => Some(Given { value: text.as_str().into(), is_text: true }),
            wit::Value::Bytes(_) => None,
        };
        match value {
            Some(value) => given.push((entry, name, value)),
            None => problems.when(true, name, format!("is not {}", entry.values)),
        }
    }
    // The preset comes first, because it determines all defaults.
    given.sort_by_key(|(entry, ..)| entry.name != "preset");
    let mut options = defaults(Preset::Safe);
    for (entry, name, value) in &given {
        let is_set = (entry.set)(&mut options, value);
        problems.when(!is_set, name, format!("is {}not {}", value.shown(entry), entry.values));
        if entry.name == "preset" {
            options = defaults(options.preset);
        }
    }
    options.secrets = secrets;
    let named = |problem: Problem| {
        let given = given.iter().rev().find(|(entry, ..)| entry.name == problem.name);
        let name = given.map_or(problem.name, |(_, name, _)| name.to_string());
        Problem { name, ..problem }
    };
    // A value that could not be read is reported once.
    let unread: Vec<_> = problems.0.iter().map(|it| it.name.clone()).collect();
    let checked = check(&options).into_iter().map(named);
    problems.0.extend(checked.filter(|problem| !unread.contains(&problem.name)));
    if problems.0.is_empty() { Ok(options) } else { Err(problems.0) }
}

/// Parses a JSON value. None: it is no JSON, or it is nested. The component's stack is small, and
/// parsing nested values needs much of it.
pub(crate) fn scalar(json: &str) -> Option<Value> {
    let is_nested = json.trim_start().starts_with(['[', '{']);
    if is_nested { None } else { serde_json::from_str(json).ok() }
}

/// Reads one setting of `secret`, which may hold several. Fails with what is wrong.
fn read_secret(value: &wit::Value, secrets: &mut Vec<Vec<u8>>) -> Result<(), String> {
    let not_text = || "is not a string, bytes or a list of strings".to_owned();
    match value {
        wit::Value::Bytes(secret) => secrets.push(secret.clone()),
        wit::Value::Json(json) => {
            let list = match scalar(json) {
                Some(Value::Null) => return Ok(()),
                Some(Value::String(secret)) => vec![secret],
                _ => serde_json::from_str::<Vec<String>>(json).map_err(|_| not_text())?,
            };
            secrets.extend(list.into_iter().map(String::into_bytes));
        }
        wit::Value::Text(text) => {
            let list = text.split(',').map(str::trim).filter(|secret| !secret.is_empty());
            let list: Vec<_> = list.map(|secret| secret.as_bytes().to_vec()).collect();
            let short = list.iter().position(|secret| secret.len() < SHORTEST_PIECE);
            if let (Some(at), true) = (short, list.len() > 1) {
                return Err(format!(
                    "number {} has {} bytes, fewer than {SHORTEST_PIECE}: secrets are separated \
                     by commas, and cannot contain one",
                    at + 1,
                    list[at].len()
                ));
            }
            secrets.extend(list);
        }
    }
    Ok(())
}

/// Returns a name without what does not matter in names.
fn normal(name: &str) -> String {
    let matters = |c: &char| !matches!(c, '_' | '-' | '.');
    name.chars().filter(matters).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the option of this name; the section of `store.ttl` may be omitted.
fn find(name: &str) -> Option<&'static Entry> {
    let name = normal(name);
    let is_it = |entry: &&Entry| {
        let full = normal(entry.name);
        full == name || full.strip_prefix("store").is_some_and(|short| short == name)
    };
    TABLE.iter().find(is_it)
}

/// Returns what is wrong with a name, with the option that was probably meant.
fn unknown(name: &str) -> String {
    if name.len() > MAX_NAME {
        return "is not an option".to_owned();
    }
    let given = normal(name);
    let is_in = |entry: &&Entry| entry.name.split_once('.').is_some_and(|it| it.0 == given);
    if let Some(entry) = TABLE.iter().find(is_in) {
        return format!("is not an option, but a group of options, such as {}", entry.name);
    }
    let known = TABLE.iter().map(|entry| entry.name).chain(["secret"]);
    let from = |name: &str| {
        let full = normal(name);
        let short = full.strip_prefix("store").unwrap_or(&full);
        distance(&given, short).min(distance(&given, &full))
    };
    let nearest = known.map(|it| (from(it), it)).min();
    match nearest {
        Some((distance, it)) if distance <= 2.max(given.len() / 3) => {
            format!("is not an option: did you mean {it}?")
        }
        _ => "is not an option".to_owned(),
    }
}

/// Returns the number of insertions, deletions and substitutions between two texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

/// Returns the options of a preset; `secrets` is empty.
pub(crate) fn defaults(preset: Preset) -> Options {
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
        touch_after: None,
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

/// Quotes the beginning of a value.
fn quoted(value: &str) -> String {
    let mut start = value.chars().take(MAX_NAME).collect::<String>();
    if start.len() < value.len() {
        start.push('…');
    }
    format!("{start:?}")
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
            "{} is not a cookie name: only letters, digits and !#$%&'*+-.^_`|~ are allowed",
            quoted(&options.name)
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
        format!("{} is not a path: a path begins with / and contains no ;", quoted(&cookie.path)),
    );
    if let Some(domain) = &cookie.domain {
        problems.when(
            !is_domain(domain),
            "cookie.domain",
            format!("{} is not a host name", quoted(domain)),
        );
    }
    problems.when(
        cookie.max_age.is_some_and(|age| !is_lifetime(age)),
        "cookie.max_age",
        "is not a lifetime: use a number of milliseconds up to 8.64e15",
    );
    problems.when(options.ttl == 0, "store.ttl", "must be at least 1 second");
    problems.when(
        options.ttl > MAX_TTL,
        "store.ttl",
        "is more than 100 years: it is a number of seconds",
    );
    let touch_after = options.touch_after.unwrap_or(0);
    problems.when(
        touch_after > 0 && touch_after >= options.ttl,
        "store.touch_after",
        format!(
            "{touch_after} seconds is not less than store.ttl, {} seconds: sessions in use would \
             expire",
            options.ttl
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
        cookie.max_age.is_some_and(|age| age <= 0.0),
        "cookie.max_age",
        "must be more than 0: every session would expire at once",
    );
    let touch_after = options.touch_after.unwrap_or(0);
    problems.when(
        cookie.max_age.is_some_and(|age| age > 0.0 && touch_after as f64 * 1000.0 >= age),
        "store.touch_after",
        format!(
            "{touch_after} seconds is not less than cookie.max_age, which is in milliseconds: \
             sessions in use would expire"
        ),
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

    fn json(name: &str, value: &str) -> Setting {
        Setting { name: name.into(), value: wit::Value::Json(value.into()) }
    }

    fn text(name: &str, value: &str) -> Setting {
        Setting { name: name.into(), value: wit::Value::Text(value.into()) }
    }

    fn secret() -> Setting {
        Setting { name: "secret".into(), value: wit::Value::Bytes(vec![7; 32]) }
    }

    #[test]
    fn every_option_is_described_and_reads_what_it_is_said_to_have() {
        let described = describe();
        assert_eq!(described.len(), TABLE.len() + 1);
        for preset in ["safe", "express"] {
            let defaults = described
                .iter()
                .filter(|it| it.name != "secret")
                .map(|it| json(&it.name, if preset == "safe" { &it.safe } else { &it.express }));
            let settings: Vec<_> = defaults.chain([secret()]).collect();
            let options = read(&settings).expect("no problem");
            let named = if preset == "safe" { Preset::Safe } else { Preset::Express };
            assert_eq!(options, Options { secrets: vec![vec![7; 32]], ..defaults_of(named) });
            let settings: Vec<_> = in_force(&options).into_iter().chain([secret()]).collect();
            assert_eq!(read(&settings), Ok(options));
        }
        for OptionDescription { name, values, help, .. } in described {
            assert!(help.ends_with('.') && !values.is_empty(), "{name}");
        }
    }

    fn defaults_of(preset: Preset) -> Options {
        defaults(preset)
    }

    #[test]
    fn every_option_can_be_set_as_json_and_as_text() {
        let all = [
            ("preset", "\"express\""),
            ("name", "\"sid\""),
            ("allow_weak_secret", "false"),
            ("resave", "false"),
            ("saveUninitialized", "false"),
            ("ROLLING", "true"),
            ("unset", "\"destroy\""),
            ("proxy", "true"),
            ("conflicts", "\"merge\""),
            ("onStoreError", "\"anonymous\""),
            ("MAX_SESSION_BYTES", "1000"),
            ("ttl", "60"),
            ("STORE_TOUCH_AFTER", "10"),
            ("cookie.path", "\"/app\""),
            ("COOKIE_DOMAIN", "\"example.com\""),
            ("cookie.maxAge", "5000"),
            ("cookie.expires", "\"2030-01-01T00:00:00.5Z\""),
            ("cookie-http-only", "false"),
            ("cookie.secure", "true"),
            ("cookie.sameSite", "\"None\""),
            ("cookie.partitioned", "true"),
            ("cookie.priority", "\"high\""),
        ];
        assert_eq!(all.len(), TABLE.len());
        let expected = Options {
            preset: Preset::Express,
            secrets: vec![vec![7; 32]],
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
            touch_after: Some(10),
            cookie: CookieOptions {
                path: "/app".into(),
                domain: Some("example.com".into()),
                max_age: Some(5000.0),
                expires: Some(1_893_456_000_500),
                http_only: false,
                secure: Some(Secure::Always),
                same_site: Some(SameSite::None),
                partitioned: Some(true),
                priority: Some(Priority::High),
            },
        };
        let as_json = all.map(|(name, value)| json(name, value));
        let as_text = all.map(|(name, value)| text(name, value.trim_matches('"')));
        for settings in [as_json, as_text] {
            let settings: Vec<_> = [secret()].into_iter().chain(settings).collect();
            assert_eq!(read(&settings), Ok(expected.clone()));
        }
    }

    #[test]
    fn what_is_no_option_or_no_value_of_one_is_refused_under_the_name_that_was_given() {
        let long = "max_age".repeat(100_000);
        let settings = [
            json("cookie.maxage", "\"an hour\""),
            json("cookie.maxAges", "1"),
            json("rolling", "\"true\""),
            json("proxi", "true"),
            json("frobnicate", "true"),
            json("tll", "1"),
            json("cookie", "{}"),
            text("COOKIE", "a"),
            json(&long, "1"),
            json("cookie.secure", "{"),
            json("touchAfter", "-1"),
            text("MAX_SESSION_BYTES", "4294967296"),
            json("ttl", "0"),
            json("secret", "[1]"),
        ];
        let problems = read(&settings).expect_err("problems");
        let problems: Vec<_> =
            problems.iter().map(|it| format!("{} {}", it.name, it.message)).collect();
        assert_eq!(
            problems,
            [
                "cookie.maxAges is not an option: did you mean cookie.max_age?",
                "proxi is not an option: did you mean proxy?",
                "frobnicate is not an option",
                "tll is not an option: did you mean store.ttl?",
                "cookie is not an option, but a group of options, such as cookie.path",
                "COOKIE is not an option, but a group of options, such as cookie.path",
                &format!("{long} is not an option"),
                "cookie.secure is not true, false or \"auto\"",
                "secret is not a string, bytes or a list of strings",
                "cookie.maxage is a string, not a number of milliseconds, such as 60000",
                "rolling is a string, not true or false",
                "touchAfter is -1, not a whole number of 0 or more, such as 60",
                "MAX_SESSION_BYTES is not a whole number up to 4294967295, such as 1048576",
                "ttl must be at least 1 second",
            ]
        );
    }

    fn only_problem(setting: Setting) -> String {
        let problems = read(&[secret(), setting]).expect_err("a problem");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].message.clone()
    }

    #[test]
    fn a_value_is_quoted_only_where_it_can_be_no_secret() {
        let quoted = |name: &str, value: &str| {
            only_problem(json(name, &format!("{value:?}"))).contains(value)
        };
        let word = "w".repeat(60);
        assert!(quoted("unset", "other") && quoted("unset", &word));
        assert!(quoted("cookie.expires", "tomorrow") && quoted("cookie.secure", "maybe"));
        for secret in [&format!("{word}w"), "a@b", "redis://b"] {
            assert!(!quoted("unset", secret), "{secret}");
        }
        assert!(!quoted("cookie.max_age", "other"), "of many values");
        assert!(!only_problem(text("unset", "other")).contains("other"), "a variable");
        assert!(only_problem(json("name", "\"a b\"")).starts_with("\"a b\" is not a cookie name"));
        let exact = " ".repeat(MAX_NAME);
        let shown = |value: &str| only_problem(json("name", &format!("{value:?}")));
        assert!(shown(&exact).starts_with(&format!("{exact:?} is")));
        assert!(shown(&format!("{exact}x")).starts_with(&format!("\"{exact}…\" is")));
    }

    #[test]
    fn a_name_is_compared_with_all_options_unless_it_is_too_long() {
        let hint = |name: &str| only_problem(json(name, "1"));
        assert_eq!(
            hint("save_uninitialized_sessions"),
            "is not an option: did you mean save_uninitialized?"
        );
        let padded = |length| format!("{:_<length$}", "cookie.maxages");
        assert!(hint(&padded(MAX_NAME)).contains("did you mean cookie.max_age?"));
        assert_eq!(hint(&padded(MAX_NAME + 1)), "is not an option");
        for (a, b, apart) in
            [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), apart, "{a} {b}");
        }
    }

    #[test]
    fn a_number_is_told_as_javascript_writes_it() {
        let told = |age: f64| {
            let mut options = safe();
            options.cookie.max_age = Some(age);
            let all = in_force(&options);
            let of = all.into_iter().find(|setting| setting.name == "cookie.max_age");
            of.map(|setting| setting.value)
        };
        for (age, text) in
            [(5000.0, "5000"), (0.5, "0.5"), (-1.0, "-1"), (9e15, "9000000000000000.0")]
        {
            assert_eq!(told(age), Some(wit::Value::Json(text.into())), "{age}");
        }
    }

    #[test]
    fn secure_is_told_as_it_is_set() {
        for value in ["true", "false", "\"auto\""] {
            let options = read(&[secret(), json("cookie.secure", value)]).unwrap();
            assert!(in_force(&options).contains(&json("cookie.secure", value)), "{value}");
        }
    }

    #[test]
    fn a_secret_is_one_text_or_none_too() {
        let key = "k".repeat(32);
        let one = read(&[json("secret", &format!("{key:?}"))]).map(|options| options.secrets);
        assert_eq!(one, Ok(vec![key.into_bytes()]));
        let none = read(&[json("secret", "null")]).expect_err("no secret");
        assert!(none[0].message.starts_with("is missing"), "{none:?}");
    }

    #[test]
    fn null_is_the_default_after_another_value_too() {
        let settings = [secret(), json("resave", "true"), json("RESAVE", "null")];
        assert_eq!(read(&settings).map(|options| options.resave), Ok(false));
        let settings = [secret(), json("resave", "null"), json("resave", "true")];
        assert_eq!(read(&settings).map(|options| options.resave), Ok(true));
    }

    #[test]
    fn a_long_value_is_quoted_in_part() {
        let long = " ".repeat(1 << 20);
        let settings = [
            secret(),
            json("name", &format!("{long:?}")),
            json("cookie.domain", &format!("{long:?}")),
        ];
        let problems = read(&settings).expect_err("problems");
        assert!(problems.iter().all(|it| it.message.len() < 300), "{}", problems.len());
    }

    #[test]
    fn secrets_are_read_in_all_forms_and_never_quoted() {
        let secrets = |settings: &[Setting]| {
            let weak = [json("allow_weak_secret", "true")];
            read(&[settings, &weak].concat()).map(|options| options.secrets)
        };
        let two = vec![b"0123456789 newer".to_vec(), b"0123456789 older".to_vec()];
        let list = r#"["0123456789 newer","0123456789 older"]"#;
        assert_eq!(secrets(&[json("secret", list)]), Ok(two.clone()));
        assert_eq!(
            secrets(&[text("SECRET", "0123456789 newer, 0123456789 older,")]),
            Ok(two.clone())
        );
        let [newer, older] = [0, 1].map(|at: usize| Setting {
            name: "secret".into(),
            value: wit::Value::Bytes(two[at].clone()),
        });
        assert_eq!(secrets(&[newer, older]), Ok(two));
        assert_eq!(secrets(&[text("SECRET", "keyboard cat")]), Ok(vec![b"keyboard cat".to_vec()]));
        let problems = secrets(&[text("SECRET", "only-for-tests-0123456789-abcdefghij,hunter2")]);
        let problems = problems.expect_err("a problem");
        assert!(problems[0].message.starts_with("number 2 has 7 bytes"), "{problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }

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
        let cases: [(&str, Spoil); 12] = [
            ("cookie.secure", |o| o.name = "__secure-sid".into()),
            ("cookie.partitioned", |o| o.cookie.partitioned = Some(true)),
            ("cookie.same_site", |o| o.cookie.same_site = Some(SameSite::None)),
            ("cookie.max_age", |o| o.cookie.max_age = Some(401.0 * 86_400_000.0)),
            ("cookie.max_age", |o| o.cookie.max_age = Some(-1.0)),
            ("cookie.max_age", |o| o.cookie.max_age = Some(0.0)),
            ("store.touch_after", |o| {
                o.cookie.max_age = Some(5000.0);
                o.touch_after = Some(5);
            }),
            ("store.ttl", |o| o.ttl = MAX_TTL + 1),
            ("cookie.max_age", |o| o.cookie.max_age = Some(f64::NAN)),
            ("cookie.path", |o| o.cookie.path = format!("/{}", "a".repeat(1024))),
            ("store.touch_after", |o| o.touch_after = Some(o.ttl)),
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
        options.ttl = MAX_TTL;
        options.touch_after = Some(400 * 86_400 - 1);
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
