//! A case to play on both sides: options, and a history of requests.

use edge_session::Options;
use edge_session::store::{Crypto, CryptoFormat, MongoOptions, TransformId};
use mongodb::bson::Document;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::records::Kind;

/// The time at which every history begins: in the future, so that no server removes what expires in
/// it.
pub(crate) const START: u64 = 1_893_456_000_000;

/// The keys that applications use in these cases.
pub(crate) const KEYS: [&str; 10] =
    ["a", "viewCount", "10", "2", "0", "4294967295", "é\"", "with space", "o", "touched"];

/// A configuration of the store that has cases of its own.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(crate) enum Set {
    /// connect-mongo's defaults, also with documents that others wrote.
    Text,
    /// Our safe preset, as far as express-session can be configured to do the same.
    Safe,
    /// `stringify: false`.
    Documents,
    /// `timestamps` and `touchAfter`.
    Times,
    /// `crypto`, and a `transformId`.
    Kruptein,
    /// `cryptoAdapter`.
    Webcrypto,
    /// connect-redis's defaults.
    Redis,
    /// Our safe preset in Redis.
    RedisSafe,
    /// connect-pg-simple's defaults.
    Postgres,
    /// Our safe preset in PostgreSQL.
    PostgresSafe,
}

impl Set {
    /// Returns the sets of a store.
    pub(crate) fn of(kind: Kind) -> Vec<Self> {
        match kind {
            Kind::Mongodb => vec![
                Self::Text,
                Self::Safe,
                Self::Documents,
                Self::Times,
                Self::Kruptein,
                Self::Webcrypto,
            ],
            Kind::Redis => vec![Self::Redis, Self::RedisSafe],
            Kind::Postgres => vec![Self::Postgres, Self::PostgresSafe],
        }
    }

    /// Whether it has our safe preset.
    pub(crate) fn is_safe(self) -> bool {
        matches!(self, Self::Safe | Self::RedisSafe | Self::PostgresSafe)
    }

    const SECRET: &str = "the store's own secret";

    /// kruptein derives a key for every session that it reads or writes.
    pub(crate) fn is_slow(self) -> bool {
        self == Self::Kruptein
    }

    /// Returns the store's options for connect-mongo. `touchAfter` belongs to a case.
    pub(crate) fn theirs(self) -> Value {
        match self {
            Self::Text | Self::Safe => json!({}),
            Self::Redis | Self::RedisSafe => json!({ "kind": "redis" }),
            Self::Postgres | Self::PostgresSafe => json!({ "kind": "postgres" }),
            Self::Documents => json!({ "stringify": false }),
            Self::Times => json!({ "timestamps": true }),
            Self::Kruptein => json!({
                "crypto": { "format": "kruptein", "secret": Self::SECRET },
                "transformId": "sha256",
            }),
            Self::Webcrypto => {
                json!({ "crypto": { "format": "webcrypto", "secret": Self::SECRET } })
            }
        }
    }

    /// Returns the same options for `MongoStore`.
    pub(crate) fn ours(self) -> MongoOptions {
        let crypto = |format| Some(Crypto { format, secret: Self::SECRET.into() });
        let options = MongoOptions::default();
        match self {
            Self::Documents => MongoOptions { stringify: false, ..options },
            Self::Times => MongoOptions { timestamps: true, last_modified: true, ..options },
            Self::Kruptein => MongoOptions {
                crypto: crypto(CryptoFormat::Kruptein),
                transform_id: TransformId::Sha256,
                ..options
            },
            Self::Webcrypto => MongoOptions { crypto: crypto(CryptoFormat::WebCrypto), ..options },
            _ => options,
        }
    }
}

/// Secrets for signing cookies. The last one is not configured anywhere.
pub(crate) const SECRETS: [&str; 3] = ["keyboard cat", "s3cr€t", "unknown"];

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) set: Set,
    pub(crate) settings: Settings,
    pub(crate) steps: Vec<Step>,
}

/// Options of express-session and the store.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    /// The indices of [`SECRETS`].
    pub(crate) secrets: Vec<usize>,
    pub(crate) resave: bool,
    save_uninitialized: bool,
    rolling: bool,
    destroy_unset: bool,
    proxy: Option<bool>,
    pub(crate) path: &'static str,
    domain: Option<&'static str>,
    pub(crate) max_age: Option<f64>,
    /// Milliseconds after [`START`].
    pub(crate) expires: Option<u64>,
    http_only: bool,
    /// true, false or "auto".
    secure: Option<Value>,
    same_site: Option<&'static str>,
    partitioned: Option<bool>,
    priority: Option<&'static str>,
    ttl: u64,
    pub(crate) touch_after: u64,
    /// Compares raw texts, including those that JavaScript did not write.
    pub(crate) shows_raw: bool,
    /// Notes about moved sessions are kept, as the safe preset does: see `explained.rs`.
    pub(crate) keeps_notes: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Request(Request),
    /// Another tool replaces the session's text or document.
    Write(Foreign),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Milliseconds since the last step; negative if the clock was set back.
    pub(crate) after: i64,
    pub(crate) path: &'static str,
    pub(crate) tls: bool,
    pub(crate) proto: Option<&'static str>,
    pub(crate) cookie: CookieIn,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) app_cookie: bool,
    /// If the two sides share a database: edge-session responds.
    pub(crate) by_us: bool,
}

/// The cookie that a request sends, derived from one that was set before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CookieIn {
    None,
    Last,
    First,
    Raw,
    Quoted,
    /// With one character of the signature changed.
    Tampered(usize),
    Cut,
    Unsigned,
    /// Signed with this secret.
    Signed(usize),
    UnknownId,
    EmptyId,
    Empty,
    Malformed,
    /// Another cookie of the same name precedes the last one …
    AfterBogus,
    /// … or follows it.
    BeforeBogus,
    AmongOthers,
    TwoHeaders,
}

/// An operation of the application.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Set(&'static str, String),
    Remove(&'static str),
    Clear,
    Regenerate,
    Destroy,
    Unset,
    MaxAge(Option<f64>),
    /// Milliseconds after [`START`].
    Expires(u64),
    Path(&'static str),
    Domain(&'static str),
    HttpOnly(bool),
    Secure(bool),
    SameSite(&'static str),
    Partitioned(bool),
    Priority(&'static str),
}

/// What other tools write.
#[derive(Clone, Debug)]
pub(crate) enum Foreign {
    /// The member `session`.
    Text(String),
    /// The member `session` as a document.
    Document,
    Number,
    Nothing,
    /// The member `expires` is not a date.
    ExpiresText,
    ExpiresNumber,
    ExpiresNothing,
    /// Any members.
    Set(Document),
}

fn same_site() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["strict", "lax", "none"])
}

fn priority() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["low", "medium", "high"])
}

/// Expired at once, expired long ago, or fractional.
const ODD_LIFETIMES: [f64; 7] = [0.0, -0.5, -1.0, -70_000.25, -9e11, 0.75, 1500.5];

fn settings(set: Set) -> impl Strategy<Value = Settings> {
    let session = (
        prop::sample::select(vec!["connect.sid", "connect.sid", "sid!#$"]),
        prop::sample::select(vec![vec![0], vec![1], vec![1, 0], vec![0, 1]]),
        any::<[bool; 4]>(),
        of(any::<bool>()),
    );
    let secure = vec![Value::from(false), true.into(), "auto".into()];
    let cookie = (
        prop::sample::select(vec!["/", "/", "/", "/app"]),
        of(Just("example.com")),
        of(prop_oneof![
            9 => prop::sample::select(vec![1000.0, 60_000.0, 86_400_000.0]),
            1 => prop::sample::select(ODD_LIFETIMES.to_vec()),
        ]),
        prop::option::weighted(0.2, prop::sample::select(vec![30_000_u64, 600_000])),
        prop::bool::weighted(0.8),
        of(prop::sample::select(secure)),
        of(prop_oneof![same_site(), Just("auto")]),
        of(any::<bool>()),
        of(priority()),
    );
    let store = (prop::sample::select(vec![60_u64, 1_209_600]), prop::sample::select(vec![5, 50]));
    (session, cookie, store).prop_map(move |(session, cookie, store)| {
        let (name, secrets, [resave, save_uninitialized, rolling, destroy_unset], proxy) = session;
        let (path, domain, max_age, expires, http_only, secure, same_site, partitioned, priority) =
            cookie;
        // express-session uses whichever of the two is given last.
        let expires = expires.filter(|_| max_age.is_none());
        let (ttl, touch_after) = store;
        // Excludes what the safe preset refuses or does differently.
        let is_safe = set.is_safe();
        let secure = secure.or_else(|| is_safe.then(|| false.into()));
        let is_refused = is_safe && secure != Some(true.into());
        let same_site = same_site.filter(|it| !is_refused || *it != "none");
        let partitioned = partitioned.filter(|_| !is_refused);
        let (resave, save_uninitialized) = (resave && !is_safe, save_uninitialized && !is_safe);
        let max_age = max_age.filter(|age| !is_safe || *age > 0.0);
        Settings {
            name,
            secrets,
            // For the combination with both, see `explained.rs`.
            resave: resave && set != Set::Times,
            save_uninitialized,
            rolling,
            destroy_unset,
            proxy,
            path,
            domain,
            max_age,
            expires,
            http_only,
            secure,
            same_site,
            partitioned,
            priority,
            ttl,
            touch_after: if set == Set::Times { touch_after } else { 0 },
            shows_raw: false,
            keeps_notes: false,
        }
    })
}

/// Generates JSON as JavaScript writes it.
fn value(set: Set) -> impl Strategy<Value = String> {
    let mut leaves = vec![
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "1e+21",
        "0.9452706955539223",
        "52.52000659999999",
        "12345678901",
        "5e-324",
        "\"\"",
        "\"a\"",
        "\"é\\n\\u0001\\\"\\\\/\u{7f}\u{2028}\u{1F600}\"",
        "\"2030-01-01T00:00:00.000Z\"",
        "{\"2\":1,\"10\":2,\"b\":{},\"a\":[]}",
    ];
    if set != Set::Documents {
        leaves.push("\"\\ud800\"");
    }
    let leaf = prop::sample::select(leaves).prop_map(str::to_owned);
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| format!("[{}]", values.join(","))),
            inner.prop_map(|value| format!("{{\"x\":{value}}}")),
        ]
    })
}

fn deed(set: Set) -> impl Strategy<Value = Deed> {
    let key = || prop::sample::select(KEYS.to_vec());
    prop_oneof![
        8 => (key(), value(set)).prop_map(|(key, value)| Deed::Set(key, value)),
        3 => key().prop_map(Deed::Remove),
        1 => Just(Deed::Clear),
        2 => Just(Deed::Regenerate),
        1 => Just(Deed::Destroy),
        1 => Just(Deed::Unset),
        2 => of(prop::sample::select(vec![500.0, 70_000.0])).prop_map(Deed::MaxAge),
        1 => prop::sample::select(ODD_LIFETIMES.to_vec()).prop_map(|age| Deed::MaxAge(Some(age))),
        1 => prop::sample::select(vec![100_u64, 700_000]).prop_map(Deed::Expires),
        1 => prop::sample::select(vec!["/", "/app", "/x y"]).prop_map(Deed::Path),
        1 => prop::sample::select(vec!["a.example", ".b.example"]).prop_map(Deed::Domain),
        1 => any::<bool>().prop_map(Deed::HttpOnly),
        1 => any::<bool>().prop_map(Deed::Secure),
        1 => same_site().prop_map(Deed::SameSite),
        1 => any::<bool>().prop_map(Deed::Partitioned),
        1 => priority().prop_map(Deed::Priority),
    ]
}

fn cookie_in() -> impl Strategy<Value = CookieIn> {
    use CookieIn::*;
    prop_oneof![
        16 => Just(Last),
        2 => prop::sample::select(vec![None, First, Raw, Quoted, AmongOthers, TwoHeaders, BeforeBogus]),
        2 => prop::sample::select(vec![Cut, Unsigned, UnknownId, EmptyId, Empty, Malformed, AfterBogus]),
        1 => (0..43_usize).prop_map(Tampered),
        1 => (0..SECRETS.len()).prop_map(Signed),
    ]
}

fn request(set: Set) -> impl Strategy<Value = Request> {
    // Then the safe preset tries the next cookie: see `explained.rs`.
    let cookie = move |cookie| match (set, cookie) {
        (set, CookieIn::AfterBogus) if set.is_safe() => CookieIn::BeforeBogus,
        (_, cookie) => cookie,
    };
    (
        prop_oneof![
            8 => 0..2000_i64,
            2 => prop::sample::select(vec![999, 1000, 1001, 5000, 60_000, 100_000]),
            1 => prop::sample::select(vec![-1, -1000, -100_000]),
        ],
        // For `/application` with the cookie path `/app`, see `explained.rs`.
        prop::sample::select(vec!["/", "/app", "/app/lication?x=/", "/ap", "/other"]),
        prop::bool::weighted(0.3),
        of(prop::sample::select(vec!["https", "http", "HTTPS, http", " https ", "http,https", ""])),
        cookie_in().prop_map(cookie),
        vec(deed(set), 0..4),
        any::<[bool; 2]>(),
    )
        .prop_map(move |(after, path, tls, proto, cookie, mut deeds, [app_cookie, by_us])| {
            // After these, there is no session.
            if set.is_safe() {
                // The safe preset treats a changed cookie as a change; express-session does not.
                deeds.retain(|deed| deed.cookie_edit().is_none());
            }
            let last = deeds.iter().position(|deed| matches!(deed, Deed::Destroy | Deed::Unset));
            deeds.truncate(last.map_or(deeds.len(), |last| last + 1));
            Request { after, path, tls, proto, cookie, deeds, app_cookie, by_us }
        })
}

/// Members that other tools write beside the cookie.
const MEMBERS: [&str; 10] = [
    "",
    ",\"a\":1",
    " , \"a\" : 1.0",
    ",\"a\":1,\"a\":[2]",
    ",\"10\":1,\"2\":{\"b\":1,\"1\":2}",
    ",\"id\":1,\"toString\":2,\"req\":3,\"a\":4,\"__proto__\":5",
    ",\"a\":12345678901234567890,\"o\":-0,\"viewCount\":1E2",
    ",\"\\u0061\":\"\\u0041\\/\"",
    ",",
    ",\"a\"",
];

/// Settings that other tools write into the cookie.
const COOKIE_SETTINGS: [&str; 26] = [
    "\"originalMaxAge\":null",
    "\"originalMaxAge\":60000",
    "\"originalMaxAge\":1500.5",
    "\"expires\":null",
    "\"expires\":\"2030-01-01T00:00:30.000Z\"",
    "\"httpOnly\":false",
    "\"path\":\"/app\"",
    "\"path\":null",
    "\"domain\":\"x.com\"",
    "\"domain\":\"\"",
    "\"secure\":true",
    "\"secure\":0",
    "\"sameSite\":true",
    "\"sameSite\":\"STRICT\"",
    "\"sameSite\":false",
    "\"priority\":\"High\"",
    "\"partitioned\":true",
    "\"unknown\":{}",
    "\"expires\":\"soon\"",
    "\"expires\":\"2030-01-02\"",
    "\"expires\":5",
    "\"originalMaxAge\":false",
    "\"sameSite\":\"bogus\"",
    "\"priority\":5",
    "\"path\":\"/a;b\"",
    "\"domain\":\"a b\"",
];

fn foreign() -> impl Strategy<Value = Foreign> {
    let cookie = vec(prop::sample::select(COOKIE_SETTINGS.to_vec()), 0..4)
        .prop_map(|settings| format!("{{{}}}", settings.join(",")));
    let cookie = prop_oneof![8 => cookie, 1 => Just("null".to_owned()), 1 => Just("5".to_owned())];
    let session = (cookie, prop::sample::select(MEMBERS.to_vec()))
        .prop_map(|(cookie, members)| format!("{{\"cookie\":{cookie}{members}}}"));
    let other = ["", "null", "[]", "{}", "5", "{\"a\":1}", "{\"cookie\":{}} x", "not json"];
    prop_oneof![
        12 => session.prop_map(Foreign::Text),
        2 => prop::sample::select(other.map(str::to_owned).to_vec()).prop_map(Foreign::Text),
        1 => Just(Foreign::Document),
        1 => Just(Foreign::Number),
        1 => Just(Foreign::Nothing),
        1 => Just(Foreign::ExpiresText),
        1 => Just(Foreign::ExpiresNumber),
        1 => Just(Foreign::ExpiresNothing),
    ]
}

/// Returns cases that are always played: every quirk once, in isolation.
pub(crate) fn quirks() -> Vec<Case> {
    use CookieIn::*;
    let request = |cookie, deeds: &[Deed]| {
        Step::Request(Request {
            after: 10,
            path: "/",
            tls: true,
            proto: Option::None,
            cookie,
            deeds: deeds.to_vec(),
            app_cookie: false,
            by_us: true,
        })
    };
    let set = |value: &str| Deed::Set("a", value.to_owned());
    // Every response shows the cookie.
    let settings = || Settings { rolling: true, ..Settings::plain() };
    let members = MEMBERS.map(|members| format!("{{\"cookie\":{{}}{members}}}"));
    let cookies = COOKIE_SETTINGS.map(|setting| format!("{{\"cookie\":{{{setting}}}}}"));
    let texts = members.into_iter().chain(cookies).map(|text| {
        vec![
            request(None, &[set("1")]),
            Step::Write(Foreign::Text(text)),
            request(Last, &[]),
            request(Last, &[set("2")]),
        ]
    });
    let sent = [
        None,
        Last,
        First,
        Raw,
        Quoted,
        Tampered(0),
        Tampered(42),
        Cut,
        Unsigned,
        Signed(0),
        Signed(1),
        Signed(2),
        UnknownId,
        EmptyId,
        Empty,
        Malformed,
        AfterBogus,
        BeforeBogus,
        AmongOthers,
        TwoHeaders,
    ];
    let sent = sent.into_iter().map(|cookie| {
        vec![request(None, &[set("1")]), request(cookie, &[set("2")]), request(Last, &[])]
    });
    let keys = KEYS.map(|key| {
        let set = |key, value: &str| Deed::Set(key, value.to_owned());
        vec![
            request(None, &[set("o", "1"), set("5", "1"), set(key, "2")]),
            request(Last, &[Deed::Clear, set("o", "3"), set(key, "4"), set("5", "5")]),
            request(Last, &[Deed::Remove(key), set("10", "6")]),
        ]
    });
    let all = texts.chain(sent).chain(keys);
    all.map(|steps| Case { set: Set::Text, settings: settings(), steps }).collect()
}

pub(crate) fn case(set: Set) -> impl Strategy<Value = Case> {
    let step = prop_oneof![
        6 => request(set).prop_map(Step::Request),
        2 * u32::from(set == Set::Text) => foreign().prop_map(Step::Write),
    ];
    let steps = (request(set), vec(step, 1..6)).prop_map(|(first, mut steps)| {
        steps.insert(0, Step::Request(first));
        steps
    });
    (settings(set), steps).prop_map(move |(settings, steps)| Case { set, settings, steps })
}

impl Settings {
    /// Returns settings without special features.
    pub(crate) fn plain() -> Self {
        Self {
            name: "connect.sid",
            secrets: vec![0],
            resave: false,
            save_uninitialized: false,
            rolling: false,
            destroy_unset: false,
            proxy: None,
            path: "/",
            domain: None,
            max_age: None,
            expires: None,
            http_only: true,
            secure: Some(false.into()),
            same_site: None,
            partitioned: None,
            priority: None,
            ttl: 60,
            touch_after: 0,
            shows_raw: false,
            keeps_notes: false,
        }
    }

    /// Returns the settings in express-session's format.
    pub(crate) fn theirs(&self, store: Value, collection: &str) -> Value {
        let mut cookie = json!({ "path": self.path, "httpOnly": self.http_only });
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                cookie[key] = value;
            }
        };
        set("domain", self.domain.map(Into::into));
        set("maxAge", self.max_age.map(Into::into));
        set("expires", self.expires.map(|after| (START + after).into()));
        set("secure", self.secure.clone());
        set("sameSite", self.same_site.map(Into::into));
        set("partitioned", self.partitioned.map(Into::into));
        set("priority", self.priority.map(Into::into));
        let mut session = json!({
            "name": self.name,
            "secret": self.secrets.iter().map(|at| SECRETS[*at]).collect::<Vec<_>>(),
            "resave": self.resave,
            "saveUninitialized": self.save_uninitialized,
            "rolling": self.rolling,
            "unset": if self.destroy_unset { "destroy" } else { "keep" },
            "cookie": cookie,
        });
        if let Some(proxy) = self.proxy {
            session["proxy"] = proxy.into();
        }
        let mut store = store;
        store["collection"] = collection.into();
        store["ttl"] = self.ttl.into();
        store["touchAfter"] = self.touch_after.into();
        json!({ "session": session, "store": store })
    }

    /// Returns the settings for the component, with those of a preset.
    pub(crate) fn ours(&self, preset: &str) -> Options {
        let mut options = Options::default();
        for at in &self.secrets {
            options.secret(SECRETS[*at]);
        }
        options
            .set("preset", preset)
            .set("allow_weak_secret", true)
            .set("name", self.name)
            .set("resave", self.resave)
            .set("save_uninitialized", self.save_uninitialized)
            .set("rolling", self.rolling)
            .set("unset", if self.destroy_unset { "destroy" } else { "keep" })
            .set("proxy", self.proxy)
            .set("cookie.path", self.path)
            .set("cookie.domain", self.domain)
            .set("cookie.max_age", self.max_age)
            .set("cookie.expires", self.expires.map(|after| START + after))
            .set("cookie.http_only", self.http_only)
            .set("cookie.secure", &self.secure)
            // Unset, it is not the safe preset's.
            .set("cookie.same_site", self.same_site.map_or(Value::from(false), Value::from))
            .set("cookie.partitioned", self.partitioned)
            .set("cookie.priority", self.priority)
            .set("store.ttl", self.ttl)
            .set("store.touch_after", self.touch_after);
        options
    }
}

impl Deed {
    /// Returns the step for `interop.mjs`.
    pub(crate) fn theirs(&self) -> Value {
        let cookie =
            |key: &str, value: Value| json!({ "deed": "cookie", "key": key, "value": value });
        match self {
            Self::Set(key, value) => json!({ "deed": "set", "key": key, "value": value }),
            Self::Remove(key) => json!({ "deed": "remove", "key": key }),
            Self::Clear => json!({ "deed": "clear" }),
            Self::Regenerate => json!({ "deed": "regenerate" }),
            Self::Destroy => json!({ "deed": "destroy" }),
            Self::Unset => json!({ "deed": "unset" }),
            Self::MaxAge(age) => cookie("maxAge", json!(age)),
            Self::Expires(after) => cookie("expires", (START + after).into()),
            Self::Path(path) => cookie("path", (*path).into()),
            Self::Domain(domain) => cookie("domain", (*domain).into()),
            Self::HttpOnly(it) => cookie("httpOnly", (*it).into()),
            Self::Secure(it) => cookie("secure", (*it).into()),
            Self::SameSite(it) => cookie("sameSite", (*it).into()),
            Self::Partitioned(it) => cookie("partitioned", (*it).into()),
            Self::Priority(it) => cookie("priority", (*it).into()),
        }
    }

    /// Returns the assignment to the cookie, if it is one: the setting and its value.
    pub(crate) fn cookie_edit(&self) -> Option<(String, Value)> {
        let theirs = self.theirs();
        match (theirs["deed"].as_str(), theirs["key"].as_str()) {
            (Some("cookie"), Some(key)) => Some((key.to_owned(), theirs["value"].clone())),
            _ => None,
        }
    }
}
