//! The configuration file: TOML with the option names of express-session and connect-mongo.
//!
//! Reading does not stop at the first problem: it collects all of them, each with its key.

mod gateway;
mod hints;
mod together;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use edge_session::store::{
    AutoRemove, CryptoFormat, MongoOptions, PostgresOptions, RedisOptions, TransformId,
};
use edge_session::{Options, Problem};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::auth::ValueHeader;
use crate::net::address::Address;
use crate::net::connections::Limits;
use crate::net::tls::TlsFiles;
use crate::proxy;
use crate::telemetry::Log;

pub(crate) use self::hints::{line_of, meant};
pub(crate) use self::together::{problems, warnings};

/// A configuration file.
pub(crate) struct File {
    root: Section,
    cookie: Section,
    store: Section,
    gateway: gateway::Sections,
    tls: Section,
    ext_proc: Section,
    auth: Section,
    admin: Section,
    log: Section,
    telemetry: Section,
    problems: Vec<Problem>,
}

/// The settings of a configuration file besides the component's options.
pub(crate) struct Settings {
    pub(crate) listen: Option<Address>,
    pub(crate) store: Option<String>,
    pub(crate) mongodb: MongoOptions,
    pub(crate) redis: RedisOptions,
    pub(crate) postgres: PostgresOptions,
    /// How long a session that was read is not read again.
    pub(crate) cache: Option<Duration>,
    /// Where sessions are: the option `cookie.path`.
    pub(crate) cookie_path: String,
    /// How sessions are encrypted. The file does not contain the secret.
    pub(crate) crypto: Option<CryptoFormat>,
    /// Limits on clients.
    pub(crate) limits: Limits,
    /// The JSON pointer to the logged-in user.
    pub(crate) identity: Option<String>,
    /// None: the demo.
    pub(crate) gateway: Option<proxy::Settings>,
    pub(crate) tls: Option<TlsFiles>,
    /// The address of Envoy's external processing.
    pub(crate) ext_proc: Option<Address>,
    /// The address of forward authentication.
    pub(crate) auth: Option<Address>,
    /// Values that forward authentication sends in headers of their own.
    pub(crate) auth_headers: Vec<ValueHeader>,
    /// The address of the metrics and the admin pages.
    pub(crate) admin: Option<SocketAddr>,
    /// The host names that the admin address accepts besides addresses and localhost.
    pub(crate) admin_hosts: Vec<String>,
    pub(crate) log: Log,
    /// Where traces are sent by OTLP.
    pub(crate) otlp: Option<String>,
}

impl Settings {
    /// Returns whether requests are served at `listen`: with an application, or the demo's.
    pub(crate) fn serves_http(&self) -> bool {
        self.gateway.as_ref().is_none_or(proxy::Settings::has_application)
    }
}

/// The file that `edge-session init` writes, with every key and its purpose.
pub(crate) const TEMPLATE: &str = include_str!("config/edge-session.toml");

/// The component's options but the secret, with their sections.
const OPTIONS: [&str; 22] = [
    "preset",
    "name",
    "allow_weak_secret",
    "resave",
    "save_uninitialized",
    "rolling",
    "unset",
    "proxy",
    "conflicts",
    "on_store_error",
    "max_session_bytes",
    "cookie.path",
    "cookie.domain",
    "cookie.max_age",
    "cookie.expires",
    "cookie.http_only",
    "cookie.secure",
    "cookie.same_site",
    "cookie.partitioned",
    "cookie.priority",
    "store.ttl",
    "store.touch_after",
];

/// All other keys, with their sections.
const OTHERS: &[&str] = &[
    "listen",
    "upstream",
    "app",
    "route",
    "guard",
    "store.url",
    "store.timeout_ms",
    "store.cache_ms",
    "store.collection",
    "store.db_name",
    "store.auto_remove",
    "store.auto_remove_interval",
    "store.stringify",
    "store.timestamps",
    "store.transform_id",
    "store.crypto",
    "store.prefix",
    "store.disable_ttl",
    "store.disable_touch",
    "store.wait_replicas",
    "store.schema",
    "store.table",
    "store.create_table",
    "store.prune_interval",
    "store.connections",
    "store.prepare",
    "gateway.sessions",
    "gateway.identity",
    "gateway.login",
    "gateway.logout",
    "gateway.after_logout",
    "gateway.hide_cookie",
    "gateway.escaped_slashes",
    "gateway.save_failed",
    "gateway.error_pages",
    "gateway.trusted_proxies",
    "gateway.health_path",
    "gateway.health_interval_ms",
    "timeouts.connect_ms",
    "timeouts.header_ms",
    "timeouts.response_ms",
    "timeouts.idle_ms",
    "timeouts.whole_ms",
    "timeouts.drain_ms",
    "limits.connections",
    "limits.requests",
    "limits.per_client",
    "limits.header_bytes",
    "limits.body_bytes",
    "limits.buffer_bytes",
    "limits.min_rate",
    "tls.certificate",
    "tls.key",
    "ext_proc.listen",
    "auth.listen",
    "auth.headers",
    "admin.listen",
    "admin.hosts",
    "log.format",
    "log.requests",
    "telemetry.otlp",
];

/// All keys. Each can also be set by an environment variable.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> + Clone {
    OPTIONS.iter().chain(OTHERS).copied()
}

/// Returns the environment variable of a key: `EDGE_SESSION_COOKIE_MAX_AGE` for `cookie.max_age`.
pub(crate) fn variable(key: &str) -> String {
    match key {
        "store.url" => "EDGE_SESSION_STORE".to_owned(),
        key => format!("EDGE_SESSION_{}", key.replace('.', "_").to_ascii_uppercase()),
    }
}

impl File {
    /// Parses a file; variables override its keys. Fails only if the text is not TOML.
    pub(crate) fn parse(
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut table: Table = text.parse().map_err(|error| not_toml(text, &error))?;
        for key in keys() {
            let Some(text) = variable(&self::variable(key)) else { continue };
            let place = match key.split_once('.') {
                None => Some((&mut table, key)),
                Some((section, key)) => {
                    let section = table.entry(section).or_insert_with(|| Table::new().into());
                    // A section that is not a table is reported later.
                    section.as_table_mut().map(|section| (section, key))
                }
            };
            if let Some((table, key)) = place {
                table.insert(key.to_owned(), value_of(&text));
            }
        }
        Ok(Self::new(table))
    }

    /// Sets an application, or several separated by commas, for all paths without a route.
    pub(crate) fn with_upstream(mut self, upstream: &str) -> Self {
        self.gateway.upstream = Some(Value::String(upstream.to_owned()));
        self
    }

    /// Sets a component as the application.
    pub(crate) fn with_app(mut self, file: &str) -> Self {
        self.gateway.app = Some(Value::String(file.to_owned()));
        self
    }

    fn new(table: Table) -> Self {
        let mut problems = Vec::new();
        let is_tls_empty = table.get("tls").and_then(Value::as_table).is_some_and(Table::is_empty);
        let mut root = Section { prefix: String::new(), table };
        let mut section = |name: &str| {
            let table = root.take(name, &mut problems).unwrap_or_default();
            Section { prefix: format!("{name}."), table }
        };
        let [cookie, store, tls, admin, log, telemetry] =
            ["cookie", "store", "tls", "admin", "log", "telemetry"].map(&mut section);
        let [ext_proc, auth] = ["ext_proc", "auth"].map(&mut section);
        let [gateway, timeouts, limits] = ["gateway", "timeouts", "limits"].map(section);
        // What was commented out, or not yet filled in: plain HTTP would be a surprise.
        if is_tls_empty {
            let message = "is empty: set `certificate` and `key`, or remove the section".to_owned();
            problems.push(Problem { name: "tls".to_owned(), message });
        }
        let gateway = gateway::Sections {
            gateway,
            timeouts,
            limits,
            routes: root.take("route", &mut problems).unwrap_or_default(),
            guards: root.take("guard", &mut problems).unwrap_or_default(),
            upstream: root.table.remove("upstream"),
            app: root.table.remove("app"),
        };
        Self { root, cookie, store, gateway, tls, ext_proc, auth, admin, log, telemetry, problems }
    }

    /// Returns the component's options, which only the component can check, the program's settings,
    /// and what is wrong with these.
    pub(crate) fn read(self) -> (Options, Settings, Vec<Problem>) {
        let Self { mut root, mut cookie, mut store, gateway, mut problems, .. } = self;
        let Self { mut tls, mut ext_proc, mut auth, mut admin, mut log, mut telemetry, .. } = self;
        let wrong = &mut problems;
        // Also if an address is not valid: the guards have a purpose.
        let is_asked = [&ext_proc, &auth].iter().any(|it| it.table.contains_key("listen"));
        let ext_proc_listen = ext_proc.address("listen", wrong);
        let auth_listen = auth.address("listen", wrong);
        let auth_headers = auth.value_headers(wrong);
        let (limits, identity, gateway) = gateway::read(gateway, is_asked, wrong);
        let admin_hosts = admin.hosts(wrong);
        let mut settings = Settings {
            listen: None,
            store: None,
            mongodb: MongoOptions::default(),
            redis: RedisOptions::default(),
            postgres: PostgresOptions::default(),
            cache: None,
            cookie_path: "/".to_owned(),
            crypto: None,
            limits,
            identity,
            gateway,
            tls: None,
            ext_proc: ext_proc_listen,
            auth: auth_listen,
            auth_headers,
            admin: admin.port("listen", wrong),
            admin_hosts,
            log: Log::default(),
            otlp: telemetry.take("otlp", wrong),
        };

        let mut options = Options::default();
        let mut given = BTreeMap::new();
        for key in OPTIONS {
            let value = match key.split_once('.') {
                Some(("cookie", key)) => cookie.table.remove(key),
                Some((_, key)) => store.table.remove(key),
                None => root.table.remove(key),
            };
            if let Some(value) = value {
                let value = json(value);
                options.set(key, &value);
                given.insert(key, value);
            }
        }
        if let Some(path) = given.get("cookie.path").and_then(serde_json::Value::as_str) {
            path.clone_into(&mut settings.cookie_path);
        }
        if let Some(gateway) = &settings.gateway {
            // Forwarding headers of untrusted peers have been removed before, and applications are
            // told the same.
            if !given.contains_key("proxy") {
                options.set("proxy", true);
            }
            let is_safe = given.get("preset").is_none_or(|it| it == "safe");
            if gateway.is_shared && is_safe {
                // If several cookies have the name, the application uses the first one. Guards must
                // use the same session. Everything else that matters stays as it is.
                options.set("preset", "express");
                if !given.contains_key("allow_weak_secret") {
                    options.set("allow_weak_secret", false);
                }
                if !given.contains_key("max_session_bytes") {
                    options.set("max_session_bytes", 1 << 20);
                }
            }
        }
        settings.listen = root.address("listen", wrong);
        if root.table.remove("secret").is_some() {
            let message = "must not be in the configuration file, which others may read: set \
                           EDGE_SESSION_SECRET or EDGE_SESSION_SECRET_FILE instead";
            wrong.push(Problem { name: "secret".to_owned(), message: message.to_owned() });
        }

        settings.store = store.take("url", wrong);
        set(&mut settings.mongodb.collection, store.take("collection", wrong));
        settings.mongodb.db_name = store.take("db_name", wrong);
        let removers = [
            ("native", AutoRemove::Native),
            ("interval", AutoRemove::Interval),
            ("disabled", AutoRemove::Disabled),
        ];
        set(&mut settings.mongodb.auto_remove, store.choose("auto_remove", &removers, wrong));
        let interval = store.minutes("auto_remove_interval", wrong);
        set(&mut settings.mongodb.auto_remove_interval, interval);
        set(&mut settings.mongodb.stringify, store.take("stringify", wrong));
        set(&mut settings.mongodb.timestamps, store.take("timestamps", wrong));
        let transforms = [("none", TransformId::None), ("sha256", TransformId::Sha256)];
        set(&mut settings.mongodb.transform_id, store.choose("transform_id", &transforms, wrong));
        let formats =
            [("kruptein", CryptoFormat::Kruptein), ("webcrypto", CryptoFormat::WebCrypto)];
        settings.crypto = store.choose("crypto", &formats, wrong);
        set(&mut settings.redis.prefix, store.take("prefix", wrong));
        set(&mut settings.redis.disable_ttl, store.take("disable_ttl", wrong));
        set(&mut settings.redis.wait_replicas, store.take("wait_replicas", wrong));
        let disable_touch = store.take("disable_touch", wrong);
        set(&mut settings.redis.disable_touch, disable_touch);
        set(&mut settings.postgres.disable_touch, disable_touch);
        settings.postgres.schema = store.take("schema", wrong);
        set(&mut settings.postgres.table, store.take("table", wrong));
        set(&mut settings.postgres.create_table, store.take("create_table", wrong));
        let interval = store.take("prune_interval", wrong).map(Duration::from_secs);
        let interval = interval.map(|it| Some(it).filter(|it| !it.is_zero()));
        set(&mut settings.postgres.prune_interval, interval);
        set(&mut settings.postgres.connections, store.take("connections", wrong));
        set(&mut settings.postgres.prepare, store.take("prepare", wrong));
        if settings.postgres.connections == 0 {
            let message = "must be at least 1".to_owned();
            wrong.push(Problem { name: "store.connections".to_owned(), message });
        }
        let timeout = store.take("timeout_ms", wrong).map(Duration::from_millis);
        set(&mut settings.mongodb.timeout, timeout);
        set(&mut settings.redis.timeout, timeout);
        set(&mut settings.postgres.timeout, timeout);
        let cache = store.take("cache_ms", wrong).map(Duration::from_millis);
        settings.cache = cache.filter(|cache| !cache.is_zero());
        if timeout == Some(Duration::ZERO) {
            let message = "must be at least 1".to_owned();
            wrong.push(Problem { name: "store.timeout_ms".to_owned(), message });
        }

        let paths = ["certificate", "key"].map(|key| tls.take::<PathBuf>(key, wrong));
        match paths {
            [Some(certificate), Some(key)] => settings.tls = Some(TlsFiles { certificate, key }),
            [None, None] => {}
            _ => {
                let message = "needs both `certificate` and `key`".to_owned();
                wrong.push(Problem { name: "tls".to_owned(), message });
            }
        }
        let formats = [("text", false), ("json", true)];
        set(&mut settings.log.json, log.choose("format", &formats, wrong));
        set(&mut settings.log.requests, log.take("requests", wrong));
        if let Some(url) = &settings.otlp
            && !url.starts_with("http://")
        {
            let message = format!("is {url:?}, not a URL such as http://127.0.0.1:4318");
            wrong.push(telemetry.problem("otlp", message));
        }

        for section in [root, cookie, store, tls, ext_proc, auth, admin, log, telemetry] {
            section.report_unknown(wrong);
        }
        (options, settings, problems)
    }
}

/// Returns a value as JSON, in which a date is a text.
fn json(value: Value) -> serde_json::Value {
    match value {
        Value::Datetime(date) => date.to_string().into(),
        Value::Float(number) if !number.is_finite() => number.to_string().into(),
        value => serde_json::to_value(value).unwrap_or_default(),
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The sections of the file.
const SECTIONS: [&str; 11] = [
    "cookie",
    "store",
    "tls",
    "ext_proc",
    "auth",
    "admin",
    "log",
    "telemetry",
    "gateway",
    "timeouts",
    "limits",
];

/// Returns the message for an unknown key, with the key that was probably meant.
fn not_an_option(prefix: &str, key: &str) -> String {
    let elsewhere = || meant(&format!("{prefix}{key}"), keys().chain(SECTIONS));
    let of_tables =
        |keys: &'static [&'static str]| meant(key, keys.iter().copied()).or_else(elsewhere);
    let known = match prefix.split('[').next() {
        Some("guard") => {
            of_tables(&["paths", "except", "require", "equals", "login", "deny", "preflights"])
        }
        Some("route") => of_tables(&["host", "path", "upstream"]),
        _ => elsewhere(),
    };
    match known {
        Some(known) => format!("is not an option: did you mean {known}?"),
        None => "is not an option".to_owned(),
    }
}

/// Returns the problem and its position. The line itself is omitted, since it may contain a
/// password.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let message = error.message().replace('\n', ", ");
    format!("line {line}, column {column}: {message}")
}

/// Quotes a text in a message, unless it may contain a password, as URLs do.
fn quoted(text: &str) -> String {
    match text.contains('@') || text.contains("://") || text.len() > 60 {
        true => "a string".to_owned(),
        false => format!("{text:?}"),
    }
}

/// Describes a value. Texts are not quoted, since one may contain a password.
fn kind(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Integer(number) => number.to_string(),
        // With its decimal point.
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(word) => word.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// Rewrites serde's message about a value of another type in plain words.
fn mismatch(kind: String, message: &str) -> String {
    let expected = match message.rsplit_once("expected ").map_or(message, |(_, it)| it.trim()) {
        "u64" | "u32" | "u16" | "u8" | "usize"
            if message.starts_with("invalid value") && !kind.starts_with('-') =>
        {
            return format!("is {kind}, which is too large");
        }
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number of 0 or more, such as 60",
        "a boolean" => "true or false",
        "a string" | "path string" => "a string in quotation marks",
        "a sequence" if kind == "a table" => "a list: write its name in double brackets",
        "a sequence" => "a list in brackets",
        "a map" => "a section of options, such as [log]",
        other => return format!("is {kind}: {other}"),
    };
    format!("is {kind}, not {expected}")
}

/// Parses a variable's value: TOML, or a text without quotation marks.
fn value_of(text: &str) -> Value {
    let table = format!("value = {text}").parse::<Table>();
    let value = table.ok().filter(|table| table.len() == 1).and_then(|mut it| it.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// One table of the file. Keys are removed as they are read.
struct Section {
    prefix: String,
    table: Table,
}

impl Section {
    fn problem(&self, key: &str, message: String) -> Problem {
        Problem { name: format!("{}{key}", self.prefix), message }
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<T> {
        let value = self.table.remove(key)?;
        let kind = kind(&value);
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                problems.push(self.problem(key, mismatch(kind, error.message())));
                None
            }
        }
    }

    /// Reads an address to listen on.
    fn address(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<Address> {
        let parsed = self.take::<String>(key, problems)?.parse();
        parsed.map_err(|message| problems.push(self.problem(key, message))).ok()
    }

    /// Reads an address that must not be a unix socket.
    fn port(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<SocketAddr> {
        match self.address(key, problems)? {
            Address::Port(address) => Some(address),
            Address::Unix(_) => {
                let message = "cannot be a unix socket: give an address with a port".to_owned();
                problems.push(self.problem(key, message));
                None
            }
        }
    }

    /// Reads one of several words.
    fn choose<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let value = self.table.remove(key)?;
        let chosen = choices.iter().find(|(word, _)| value.as_str() == Some(word));
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            // A value of another type may contain a secret.
            let is = match &value {
                Value::String(word) => quoted(word),
                other => format!("a value of type {}", other.type_str()),
            };
            problems.push(self.problem(key, format!("is {is}, not one of {}", words.join(", "))));
        }
        chosen.map(|(_, choice)| *choice)
    }

    /// Reads a number of minutes, at least one.
    fn minutes(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<Duration> {
        let minutes: u32 = self.take(key, problems)?;
        if minutes == 0 {
            problems.push(self.problem(key, "must be at least 1 minute".to_owned()));
        }
        Some(Duration::from_secs(u64::from(minutes) * 60))
    }

    fn report_unknown(self, problems: &mut Vec<Problem>) {
        for key in self.table.keys() {
            let is_name = !key.contains('@') && !key.contains("://");
            let shown = if is_name { key } else { "(a key that is not a name)" };
            problems.push(self.problem(shown, not_an_option(&self.prefix, shown)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use edge_session::{Component, InForce};

    use super::*;

    /// Reads a file, and lets the component check its options.
    fn checked(file: File) -> (Option<InForce>, Settings, Vec<Problem>) {
        static COMPONENT: OnceLock<Component> = OnceLock::new();
        let component = COMPONENT.get_or_init(|| Component::bundled().unwrap());
        let (mut options, settings, mut problems) = file.read();
        options.secret([7; 32]);
        match component.check(&options) {
            Ok(in_force) => (Some(in_force), settings, problems),
            Err(error) => {
                problems.extend(error.problems);
                (None, settings, problems)
            }
        }
    }

    fn read(text: &str) -> (Option<InForce>, Settings, Vec<String>) {
        let (in_force, settings, problems) = checked(File::parse(text, |_| None).unwrap());
        let problems = problems.into_iter().map(|p| format!("{}: {}", p.name, p.message));
        (in_force, settings, problems.collect())
    }

    #[test]
    fn the_options_are_the_components() {
        let described = Component::bundled().unwrap().options().unwrap();
        let names = described.iter().map(|it| it.name.as_str()).filter(|it| *it != "secret");
        assert_eq!(names.collect::<Vec<_>>(), OPTIONS);
    }

    #[test]
    fn every_option_can_be_set() {
        let (in_force, settings, problems) = read(
            r#"
            preset = "express"
            listen = "127.0.0.1:9"
            name = "sid"
            allow_weak_secret = true
            resave = true
            save_uninitialized = true
            rolling = true
            unset = "destroy"
            proxy = true
            conflicts = "overwrite"
            on_store_error = "anonymous"
            max_session_bytes = 7
            [cookie]
            path = "/a"
            domain = "x.com"
            max_age = 60000
            expires = 2030-01-02T03:04:05.678Z
            http_only = false
            secure = true
            same_site = "none"
            partitioned = true
            priority = "high"
            [store]
            url = "memory:"
            ttl = 7
            touch_after = 6
            collection = "c"
            db_name = "d"
            auto_remove = "interval"
            auto_remove_interval = 9
            stringify = false
            timestamps = true
            transform_id = "sha256"
            crypto = "webcrypto"
            timeout_ms = 8
            "#,
        );
        assert_eq!(problems, Vec::<String>::new());
        let in_force = in_force.unwrap();
        let expected = serde_json::json!({
            "preset": "express",
            "name": "sid",
            "allow_weak_secret": true,
            "resave": true,
            "save_uninitialized": true,
            "rolling": true,
            "unset": "destroy",
            "proxy": true,
            "conflicts": "overwrite",
            "on_store_error": "anonymous",
            "max_session_bytes": 7,
            "cookie.path": "/a",
            "cookie.domain": "x.com",
            "cookie.max_age": 60000,
            "cookie.expires": 1_893_553_445_678_u64,
            "cookie.http_only": false,
            "cookie.secure": true,
            "cookie.same_site": "none",
            "cookie.partitioned": true,
            "cookie.priority": "high",
            "store.ttl": 7,
            "store.touch_after": 6,
        });
        for name in OPTIONS {
            assert_eq!(*in_force.get(name), expected[name], "{name}");
        }
        assert_eq!(settings.cookie_path, "/a");
        assert_eq!(settings.listen, Some(Address::Port(([127, 0, 0, 1], 9).into())));
        assert_eq!(settings.store.as_deref(), Some("memory:"));
        assert_eq!(settings.mongodb.collection, "c");
        assert_eq!(settings.mongodb.db_name.as_deref(), Some("d"));
        assert_eq!(settings.mongodb.auto_remove, AutoRemove::Interval);
        assert_eq!(settings.mongodb.auto_remove_interval, Duration::from_secs(540));
        assert!(!settings.mongodb.stringify && settings.mongodb.timestamps);
        assert_eq!(settings.mongodb.transform_id, TransformId::Sha256);
        assert_eq!(settings.crypto, Some(CryptoFormat::WebCrypto));
        assert_eq!(settings.mongodb.timeout, Duration::from_millis(8));
    }

    #[test]
    fn all_problems_are_collected_under_their_keys() {
        let (_, _, problems) = read(
            "resave = \"yes\"\nsaveUninitialized = true\nunset = \"no\"\nsecret = \"hunter2\"\n\
             [cookie]\nsecure = \"maybe\"\nexpires = \"soon\"\nmax_age = -1\nsize = 3\n[store]\ntimeout_ms = 0",
        );
        let keys: Vec<_> = problems.iter().map(|p| p.split(':').next().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "secret",
                "store.timeout_ms",
                "saveUninitialized",
                "cookie.size",
                "resave",
                "unset",
                "cookie.expires",
                "cookie.secure",
                "cookie.max_age",
            ]
        );
        assert!(!problems.concat().contains("hunter2"));
        assert_eq!(problems[5], "unset: is \"no\", not one of \"keep\", \"destroy\"");
        let (_, _, problems) = read("[store.crypto]\nsecret = \"hunter2\"");
        assert_eq!(
            problems,
            ["store.crypto: is a value of type table, not one of \"kruptein\", \"webcrypto\""]
        );
    }

    /// Returns the template with everything uncommented except contradicting keys.
    fn whole_template() -> String {
        let is_prose = |line: &str| {
            let text = line.trim_start_matches("# ");
            !text.starts_with('[') && !text.contains(" = ") || line.starts_with("#  ")
        };
        let lines = TEMPLATE.lines().filter(|line| !(line.starts_with('#') && is_prose(line)));
        let lines = lines.filter(|line| !line.starts_with("# expires"));
        let lines =
            lines.filter(|line| !(line.starts_with("# ") && line.contains("EDGE_SESSION_")));
        lines.map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_template_is_valid_and_says_the_defaults() {
        let (in_force, settings, problems) = read(TEMPLATE);
        let (defaults, unset, _) = read("");
        assert_eq!(problems, Vec::<String>::new());
        for name in OPTIONS {
            let of = |in_force: &Option<InForce>| in_force.as_ref().unwrap().get(name).clone();
            assert_eq!(of(&in_force), of(&defaults), "{name}");
        }
        assert_eq!(settings.mongodb.timeout, unset.mongodb.timeout);
        assert_eq!(settings.limits, unset.limits);
        assert_eq!(settings.log, unset.log);
        // The proxy's defaults apply only if there is an application.
        let with_upstream = |text: &str| {
            let file = File::parse(text, |_| None).unwrap().with_upstream("http://a:1");
            file.read().1.gateway.unwrap()
        };
        assert_eq!(with_upstream(TEMPLATE), with_upstream(""));
    }

    #[test]
    fn what_the_template_comments_out_is_valid_and_no_key_is_missing() {
        let text = whole_template();
        let (_, settings, problems) = checked(File::parse(&text, |_| None).unwrap());
        // The template shows two alternative ways to set the application, and attributes that only
        // a Secure cookie may have.
        let names: Vec<_> = problems.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["app", "cookie.partitioned"], "{problems:?}");
        let gateway = settings.gateway.unwrap();
        assert_eq!((gateway.routes.len(), gateway.guards.len()), (2, 2));
        let table: Table = text.parse().unwrap();
        for key in keys() {
            let is_there = match key.split_once('.') {
                None => table.contains_key(key),
                Some((section, key)) => table[section].as_table().unwrap().contains_key(key),
            };
            assert!(is_there || key == "cookie.expires", "{key}");
        }
    }

    #[test]
    fn the_page_shows_the_template() {
        let page = include_str!("../../../docs/configuration.md");
        assert_eq!(page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap(), TEMPLATE);
    }

    #[test]
    fn whatever_a_value_is_it_is_read_or_its_key_is_told() {
        let values = r#"
| "" | "/" | "//a" | "/%" | "/é" | "é:é@é" | ":" | "@" | "," | "http://" | "http://[::1" | "http://a:99999"
| "1/33" | "\u0000" | 0 | -1 | 18446744073709551615 | 9223372036854775807 | 1e308 | nan | true | [] | [[]]
| ["", 1] | {} | { a = 1 } | 1979-05-27 | 2030-02-30T00:00:00Z | 9999-12-31T23:59:59.999999999-23:59"#;
        let values: Vec<_> = values.split('|').map(str::trim).collect();
        let mut keys: Vec<_> = keys().map(str::to_owned).collect();
        let of_lists = ["path", "paths", "host", "upstream", "require", "equals", "deny", "login"];
        keys.extend(
            ["route", "guard"].iter().flat_map(|list| of_lists.map(|key| format!("{list}.{key}"))),
        );
        for (key, value) in
            keys.iter().flat_map(|key| values.iter().map(move |value| (key, *value)))
        {
            let text = match key.split_once('.') {
                None => format!("{key} = {value}"),
                Some((list @ ("route" | "guard"), key)) => format!("[[{list}]]\n{key} = {value}"),
                Some((section, key)) => format!("[{section}]\n{key} = {value}"),
            };
            if let Ok(file) = File::parse(&text, |_| None) {
                let _ = file.read();
            }
            let asked = |name: &str| (name == variable(key)).then(|| value.to_owned());
            let (_, _, problems) = checked(File::parse("", asked).unwrap());
            let root = key.split('.').next().unwrap();
            let is_told = |problem: &Problem| problem.name.starts_with(root);
            assert!(problems.iter().all(is_told), "{key} = {value}: {problems:?}");
        }
    }

    #[test]
    fn every_key_can_be_given_in_the_environment() {
        let whole: Table = whole_template().parse().unwrap();
        for key in keys().filter(|key| *key != "cookie.expires") {
            let value = match key.split_once('.') {
                None => &whole[key],
                Some((section, key)) => &whole[section][key],
            };
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let asked = |name: &str| (name == variable(key)).then(|| text.clone());
            let read = |text: &str, asked: &dyn Fn(&str) -> Option<String>| {
                let (in_force, settings, _) = checked(File::parse(text, asked).unwrap());
                let in_force = format!("{in_force:?}");
                (in_force, settings.log, settings.limits, settings.store, settings.gateway)
            };
            let line = format!("{key} = {value}");
            let by_file = match key {
                // These are tables, which do not fit on one line.
                "route" | "guard" => {
                    let mut table = Table::new();
                    table.insert(key.to_owned(), value.clone());
                    table.to_string()
                }
                _ => line,
            };
            assert_eq!(read("", &asked), read(&by_file, &|_| None), "{key}");
        }
    }

    #[test]
    fn no_message_quotes_what_may_be_a_password() {
        for text in [
            "listen = \"http://u:hunter2@h\"",
            "upstream = [\"http://h?k=hunter2\", \"http://u:hunter2@h\", \"ftp://h/hunter2\"]",
            "store = \"mongodb://u:hunter2@h\"",
            "cookie.http_only = \"hunter2\"",
            "[limits]\nrequests = \"hunter2\"",
        ] {
            let problems = read(text).2;
            assert!(!problems.is_empty(), "{text}");
            assert!(!problems.concat().contains("hunter2"), "{text}: {problems:#?}");
        }
        for (text, place) in [
            ("a = 1\nstore.url = \"mongodb://u:hunter2@h", "line 2, column "),
            ("url = \"mongodb://u:hunter2@h\" x", "line 1, column 31: "),
            ("store = \"mongodb://u:hunter2@h\"\nstore.url = 1", "line 2, column 1: "),
        ] {
            let Err(error) = File::parse(text, |_| None) else { panic!("{text} is TOML") };
            assert!(error.starts_with(place) && !error.contains("hunter2"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_of_another_type_is_told_in_the_words_of_people() {
        for (text, told) in [
            ("resave = \"yes\"", "resave: is a string, not true or false"),
            ("name = 5", "name: is 5, not a string"),
            ("max_session_bytes = -1", "max_session_bytes: is -1, not a whole number up to"),
            ("max_session_bytes = 1.5", "max_session_bytes: is 1.5, not a whole number up to"),
            ("listen = \"8080\"", "listen: is neither an address with a port, such as 127"),
            ("log = 1", "log: is 1, not a section of options"),
            ("guard = 1", "guard: is 1, not a list in brackets"),
            ("[guard]", "guard: is a table, not a list: write its name in double brackets"),
            ("[limits]\nrequests = 2\nper_client = 3", "limits.per_client: is 3, more than"),
            (
                "upstream = \"http://a\"\n[[guard]]\npaths = [\"/a\"]\nrequire = \"/u\"\ndeny = true",
                "guard[0].require: excludes",
            ),
        ] {
            let problems = read(text).2;
            assert!(problems.iter().any(|it| it.starts_with(told)), "{told}: {problems:#?}");
        }
    }

    #[test]
    fn no_client_alone_has_all_places_unless_it_is_told_so() {
        for (text, per_client) in [
            ("", 512),
            ("[limits]\nrequests = 512", 128),
            ("[limits]\nrequests = 1", 1),
            ("[limits]\nrequests = 512\nper_client = 512", 512),
        ] {
            assert_eq!(read(text).1.limits.bounds.per_client, per_client, "{text}");
        }
    }

    #[test]
    fn a_variable_is_toml_or_a_text() {
        assert_eq!(value_of("true"), Value::Boolean(true));
        assert_eq!(value_of("[\"a\", \"b\"]").as_array().unwrap().len(), 2);
        for text in ["a b", "", "x\ny = 1", "http://a:1", "/login"] {
            assert_eq!(value_of(text), Value::String(text.to_owned()));
        }
    }

    #[test]
    fn all_problems_of_a_gateway_are_told_at_once() {
        let problems = read(
            "upstream = [\"http://a/path\", \"ftp://b\", \"http://u:hunter2@c\"]\n\
             [gateway]\nlogin = \"//evil\"\nidentity = \"user\"\ntrusted_proxies = [\"x\"]\n\
             [[guard]]\npaths = [\"account\"]\nrequire = \"/a\"\n[[guard]]\npaths = [\"/b\"]\n\
             [[route]]\npath = \"/x\"\nhost = \"a:80\"\nspeed = 1\nname = \"sid\"\n\
             [timeouts]\nidle_ms = 0\n\
             [limits]\nconnections = 0\nrequests = 0\nper_client = 0\nheader_bytes = 1\n\
             [admin]\nhosts = [\"a:80\"]\n\
             [tls]\nkey = \"k\"\n[telemetry]\notlp = \"localhost\"",
        );
        let problems = problems.2;
        for expected in [
            "upstream: \"http://a\" is followed by a path",
            "upstream: \"ftp://b\" is neither a URL such as",
            "upstream: the URL of \"c\" contains a user name",
            "gateway.login: is \"//evil\"",
            "gateway.identity: is \"user\"",
            "gateway.trusted_proxies: \"x\"",
            "guard[0].paths: \"account\" is not a path",
            "guard[1].require: is missing",
            "route[0].host: ",
            "route[0].upstream: is missing",
            "route[0].speed: is not an option",
            "route[0].name: is not an option: did you mean name, before the first [section]?",
            "timeouts.idle_ms: must be",
            "limits.connections: must be",
            "limits.requests: must be",
            "limits.per_client: must be",
            "admin.hosts: \"a:80\"",
            "limits.header_bytes: is 1,",
            "tls: needs both",
            "telemetry.otlp: is",
        ] {
            assert!(
                problems.iter().any(|it| it.starts_with(expected)),
                "{expected}: {problems:#?}"
            );
        }
        assert!(!problems.concat().contains("hunter2"));
    }

    #[test]
    fn the_migration_example_is_valid() {
        let page = include_str!("../../../docs/migration.md");
        let example = page.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        let (in_force, settings, problems) = read(example);
        assert_eq!(problems, Vec::<String>::new());
        let in_force = in_force.unwrap();
        assert_eq!(in_force.number("cookie.max_age"), 86_400_000);
        assert_eq!(in_force.number("store.touch_after"), 3600);
        assert_eq!(settings.mongodb.db_name.as_deref(), Some("app"));
    }

    #[test]
    fn the_example_with_express_is_valid() {
        let example = include_str!("../../../examples/with-express/edge-session.toml");
        assert_eq!(read(example).2, Vec::<String>::new());
    }

    #[test]
    fn a_section_that_is_no_table_is_a_problem() {
        assert_eq!(read("cookie = 5").2.len(), 1);
    }
}
