//! What every command begins with: loads the component, the configuration and the store.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use async_trait::async_trait;
use edge_session::store::{
    Browse, CachedStore, Crypto, FileStore, MemoryStore, MongoStore, Page, PostgresStore,
    RedisStore, Store, StoreError,
};
use edge_session::{
    BUNDLED_COMPONENT, CodeCache, Component, InForce, Options, Problem, SessionHasher,
};
use edge_session_headers::is_of_kubernetes;

use crate::admin::inspector::Inspector;
use crate::cli;
use crate::config::{self, File, Settings};
use crate::proxy;
use crate::telemetry;

const STORE: &str = "file:data/sessions.redb";

/// The default file name of `init`.
pub(crate) const FILE: &str = "edge-session.toml";

/// A validated configuration.
pub(crate) struct Setup {
    pub(crate) component: Component,
    pub(crate) options: Options,
    in_force: InForce,
    secrets: Vec<Vec<u8>>,
    pub(crate) settings: Settings,
    pub(crate) store_url: String,
    /// Grants access to the sessions at the admin address.
    pub(crate) admin_token: Option<String>,
    /// Grants applications access to their sessions at `auth.listen`.
    pub(crate) auth_token: Option<String>,
    source: Source,
    /// Settings that are valid but not advisable.
    warnings: Vec<String>,
}

impl Setup {
    /// Reads the configuration; the error lists everything that is wrong with it.
    pub(crate) fn read(arguments: &cli::Configured) -> anyhow::Result<Self> {
        let mut warnings = Vec::new();
        let component = load_component(arguments.component.as_deref(), &mut warnings)?;
        let source = Source::read(arguments.config.as_deref())?;
        let Configured { options, in_force, secrets, settings, admin_token, auth_token } =
            configure(arguments, &component, &source)?;
        warnings.extend(weak_secrets(&secrets));
        warnings.extend(quoted_secrets(&secrets));
        warnings.extend(odd_secrets(&secrets));
        if arguments.config.is_none() && Path::new(FILE).exists() {
            warnings.push(format!(
                "{FILE} exists in this directory but is not read: pass --config {FILE}"
            ));
        }
        warnings.extend(config::warnings(&settings));
        let store_url = store_url(arguments, &settings);
        for (token, name, listen, key) in [
            (&admin_token, ADMIN_TOKEN, settings.admin.is_some(), "admin.listen"),
            (&auth_token, AUTH_TOKEN, settings.auth.is_some(), "auth.listen"),
        ] {
            if token.is_some() && !listen {
                let message = format!("{name} is set but has no effect, since {key} is not set");
                warnings.push(message);
            }
        }
        if let Some(address) =
            settings.admin.filter(|it| !it.ip().is_loopback() && admin_token.is_some())
        {
            warnings.push(format!(
                "admin.listen: {address} has no TLS, so that the admin token crosses the network \
                 unencrypted"
            ));
        }
        Ok(Self {
            component,
            options,
            in_force,
            secrets,
            settings,
            store_url,
            admin_token,
            auth_token,
            source,
            warnings,
        })
    }

    /// Formats problems, each with its place.
    pub(crate) fn tell(&self, problems: &[Problem]) -> String {
        self.source.tell(problems)
    }

    /// Logs the warnings.
    pub(crate) fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Returns the store's URL as shown to people.
    pub(crate) fn shown_store(&self) -> String {
        let shown = without_secrets(&self.store_url);
        match &self.settings.mongodb.db_name {
            Some(name) => format!("{shown}, database {name}"),
            None => shown,
        }
    }

    /// Returns an inspector for the sessions of a store.
    pub(crate) fn inspector(&self, browse: Arc<dyn Browse>) -> Inspector {
        let secret = self.secrets.first().map_or(&[][..], Vec::as_slice);
        let hasher = SessionHasher::new(secret);
        Inspector { browse, hasher, identity: self.settings.identity.clone() }
    }

    /// Describes what `serve` will do, for a person who checks the configuration.
    pub(crate) fn summary(&self) -> String {
        let Settings { gateway, admin, tls, ext_proc, auth, .. } = &self.settings;
        let app = match gateway {
            None => "the built-in view counter".to_owned(),
            Some(gateway) if !gateway.has_application() => {
                "other gateways, which forward requests themselves".to_owned()
            }
            Some(gateway) => {
                let count = |n: usize, what: &str| match n {
                    1 => format!("1 {what}"),
                    n => format!("{n} {what}s"),
                };
                let routes = count(gateway.routes.len(), "route");
                format!("a gateway with {routes} and {}", count(gateway.guards.len(), "guard"))
            }
        };
        let mut lines = vec![
            "The configuration is valid.".to_owned(),
            format!(
                "  file      {}",
                self.source.file.as_deref().unwrap_or("none (--config FILE)")
            ),
            format!("  serves    {app}{}", if tls.is_some() { ", with TLS" } else { "" }),
            format!("  cookie    {}", self.in_force.text("name")),
            format!("  sessions  {}", self.shown_store()),
        ];
        lines.extend(gateway.as_ref().and_then(identity));
        lines.extend(ext_proc.as_ref().map(|address| format!("  ext_proc  {address}")));
        lines.extend(auth.as_ref().map(|address| {
            let api = match self.auth_token {
                Some(_) => ", with the session API",
                None => ", without the session API (EDGE_SESSION_AUTH_TOKEN)",
            };
            format!("  auth      {address}{api}")
        }));
        lines.extend(admin.map(|address| format!("  admin     http://{address}")));
        lines.extend(self.warnings.iter().map(|warning| format!("  warning   {warning}")));
        lines.join("\n")
    }

    pub(crate) async fn open_store(&self) -> anyhow::Result<Stores> {
        open_store(&self.store_url, &self.settings).await
    }
}

/// Describes what counts as a login, if anything does.
fn identity(gateway: &proxy::Settings) -> Option<String> {
    if gateway.is_shared {
        return Some(
            "  shared    the application owns the sessions: the gateway only reads them".to_owned(),
        );
    }
    let all = gateway.renewed_for.join(", ");
    let what = "sessions get new identifiers when it changes";
    (!all.is_empty()).then(|| format!("  identity  {all}: {what}"))
}

// ------------------------------------------------------------------ the component ----

fn load_component(given: Option<&Path>, warnings: &mut Vec<String>) -> anyhow::Result<Component> {
    let cache = match cache_directory().map(CodeCache::open) {
        Some(Ok(cache)) => Some(cache),
        Some(Err(why)) => {
            warnings.push(format!(
                "{why}. Until this is fixed, every start compiles the component, \
                 which takes about 0.3 s"
            ));
            None
        }
        None => {
            let why = "compiled code cannot be cached, since neither XDG_CACHE_HOME nor HOME is \
                       an absolute path";
            warnings.push(format!(
                "{why}: every start compiles the component, which takes about 0.3 s"
            ));
            None
        }
    };
    let component = match given {
        Some(path) => Component::from_file(path, cache.as_ref()),
        None => Component::from_bytes(BUNDLED_COMPONENT, cache.as_ref()),
    };
    // Its text has the cause in it.
    component.map_err(|error| anyhow!("{error}"))
}

/// Returns the directory for compiled code, which must belong to the current user.
fn cache_directory() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or(absolute("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("edge-session").join("compiled"))
}

// ---------------------------------------------------------------- the configuration ----

/// The configuration file, if there is one.
struct Source {
    /// The path as given.
    file: Option<String>,
    text: String,
}

impl Source {
    fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, text: String::new() }) };
        let file = path.display().to_string();
        let text =
            read_text(path).with_context(|| format!("cannot read the configuration {file}"))?;
        Ok(Self { file: Some(file), text })
    }

    /// Formats all problems in the order of the file, each with its line or variable.
    fn tell(&self, problems: &[Problem]) -> String {
        let place = |problem: &Problem| {
            let variable = config::variable(&problem.name);
            if config::keys().any(|key| key == problem.name) && env::var_os(&variable).is_some() {
                return format!(" ({variable})");
            }
            let line = config::line_of(&self.text, &problem.name);
            line.zip(self.file.as_ref())
                .map_or_else(String::new, |(line, file)| format!(" ({file}, line {line})"))
        };
        let line = |problem: &Problem| {
            format!("\n  {}: {}{}", problem.name, problem.message, place(problem))
        };
        let mut problems: Vec<_> = problems.iter().collect();
        // What is missing has no line, and comes last: a misspelt option may be the reason.
        problems.sort_by_key(|it| config::line_of(&self.text, &it.name).unwrap_or(usize::MAX));
        let lines: String = problems.iter().copied().map(line).collect();
        let count = match problems.len() {
            1 => "a problem".to_owned(),
            n => format!("{n} problems"),
        };
        format!("the configuration has {count}:{lines}")
    }
}

/// The result of [`configure`].
struct Configured {
    options: Options,
    in_force: InForce,
    secrets: Vec<Vec<u8>>,
    settings: Settings,
    admin_token: Option<String>,
    auth_token: Option<String>,
}

/// Reads the component's options, the program's settings, and the secrets.
fn configure(
    arguments: &cli::Configured,
    component: &Component,
    source: &Source,
) -> anyhow::Result<Configured> {
    // Keys with a flag are read from the environment by clap.
    let flags = ["EDGE_SESSION_LISTEN", "EDGE_SESSION_STORE"];
    let variable = |name: &str| env::var(name).ok().filter(|_| !flags.contains(&name));
    let file = File::parse(&source.text, variable).map_err(|error| {
        anyhow!("{} is not TOML: {error}", source.file.as_deref().unwrap_or_default())
    })?;
    let file = match &arguments.upstream {
        Some(upstream) => file.with_upstream(upstream),
        None => file,
    };
    let file = match &arguments.app {
        Some(app) => file.with_app(app),
        None => file,
    };
    let (mut options, mut settings, mut problems) = file.read();
    problems.extend(unknown_variables(env::vars_os()));
    problems.extend(wrong_level(&env::var(telemetry::VARIABLE).unwrap_or_default()));
    let secrets = secrets().unwrap_or_else(|message| {
        problems.push(Problem { name: "secret".to_owned(), message });
        Vec::new()
    });
    for secret in &secrets {
        options.secret(secret.clone());
    }
    let mut problem = |name: &str, message: String| {
        problems.push(Problem { name: name.to_owned(), message });
    };
    match (settings.crypto, crypto_secret()) {
        (Some(format), Ok(Some(secret))) => {
            settings.mongodb.crypto = Some(Crypto { format, secret });
        }
        (Some(_), Ok(None)) => problem(
            "store.crypto",
            format!(
                "needs a secret: set {CRYPTO_SECRET} to connect-mongo's secret, or \
                 {CRYPTO_SECRET_FILE} to a file that contains it"
            ),
        ),
        (None, Ok(Some(_))) => problem(
            "store.crypto",
            format!("is not set, but {CRYPTO_SECRET} is: sessions would not be encrypted"),
        ),
        (None, Ok(None)) => {}
        (_, Err(message)) => problem("store.crypto", message),
    }
    let mut token = |name, file, risk| {
        token(name, file, risk).unwrap_or_else(|message| {
            problem(name, message);
            None
        })
    };
    let admin_token = token(ADMIN_TOKEN, ADMIN_TOKEN_FILE, "end all sessions");
    let auth_token = token(AUTH_TOKEN, AUTH_TOKEN_FILE, "change sessions whose cookie they have");
    settings.listen = arguments.listen.clone().or(settings.listen);
    let store_url = store_url(arguments, &settings);
    if !is_store(&store_url) {
        let shown = without_secrets(&store_url);
        let hint = match &store_url {
            url if url.starts_with("file:~") => {
                ": only shells know what ~ is, so give the path of the directory".to_owned()
            }
            url if url.starts_with("file:///") => {
                format!(": did you mean file:{}?", &url["file://".len()..])
            }
            path if path.starts_with('/') || path.ends_with(".redb") => {
                format!(": did you mean file:{path}?")
            }
            text if text.contains("${") => ": variables are not substituted".to_owned(),
            text if text.starts_with(['"', '\'']) => ": remove the quotation marks".to_owned(),
            _ => String::new(),
        };
        problem("store.url", format!("{shown} {NO_STORE}{hint}"));
    }
    problems.extend(config::problems(&settings, &store_url));
    let checked = component.check(&options);
    if settings.cache.is_some()
        && checked.as_ref().is_ok_and(|in_force| in_force.text("conflicts") != "merge")
    {
        let message = "needs conflicts = \"merge\": with \"overwrite\", a copy that is out of date \
                       would overwrite changes";
        problems.push(Problem { name: "store.cache_ms".to_owned(), message: message.to_owned() });
    }
    match checked {
        Ok(in_force) if problems.is_empty() => {
            settings.mongodb.last_modified = in_force.number("store.touch_after") > 0;
            let bytes = in_force.number("max_session_bytes");
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            settings.mongodb.max_session_bytes = bytes;
            settings.redis.max_session_bytes = bytes;
            settings.postgres.max_session_bytes = bytes;
            return Ok(Configured {
                options,
                in_force,
                secrets,
                settings,
                admin_token,
                auth_token,
            });
        }
        Ok(_) => {}
        // The component would only report missing secrets; their source is known here.
        Err(error) => {
            let is_told = |it: &Problem| secrets.is_empty() && it.name == "secret";
            problems.extend(error.problems.into_iter().filter(|it| !is_told(it)));
        }
    }
    bail!(source.tell(&problems))
}

const PREFIX: &str = "EDGE_SESSION_";

/// Returns unknown variables with our prefix, which may be misspelled.
fn unknown_variables(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<Problem> {
    const OTHERS: [&str; 13] = [
        "EDGE_SESSION_UPSTREAM",
        "EDGE_SESSION_APP",
        "EDGE_SESSION_CONFIG",
        "EDGE_SESSION_COMPONENT",
        telemetry::VARIABLE,
        SECRET,
        SECRET_FILE,
        CRYPTO_SECRET,
        CRYPTO_SECRET_FILE,
        ADMIN_TOKEN,
        ADMIN_TOKEN_FILE,
        AUTH_TOKEN,
        AUTH_TOKEN_FILE,
    ];
    let is_known = |name: &str| {
        OTHERS.contains(&name) || config::keys().any(|key| config::variable(key) == name)
    };
    let names = all.filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX))
        .filter(|name| !is_known(name) && !is_of_kubernetes(name))
        .collect();
    unknown.sort();
    let known: Vec<_> = config::keys().map(config::variable).collect();
    // All have the same prefix.
    let rest = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    let rests: Vec<_> = known.iter().map(String::as_str).chain(OTHERS).map(rest).collect();
    let problem = |name: String| {
        let remedy = match config::meant(&rest(&name), rests.iter().map(String::as_str)) {
            Some(known) => format!("did you mean {PREFIX}{known}?"),
            None => "correct its name, or unset it".to_owned(),
        };
        Problem { message: format!("is not a known variable: {remedy}"), name }
    };
    unknown.into_iter().map(problem).collect()
}

/// Reports a word that is not a level: it would be taken for a module's name, and nothing else
/// would be logged.
fn wrong_level(text: &str) -> Option<Problem> {
    let levels = ["off", "error", "warn", "info", "debug", "trace", ""];
    let is_level = |piece: &str| {
        let level = piece.rsplit_once('=').map_or(piece, |(_, level)| level);
        levels.iter().any(|it| level.trim().eq_ignore_ascii_case(it))
    };
    let wrong = text.split(',').find(|piece| !is_level(piece))?;
    let message = format!("is {wrong:?}, not error, warn, info, debug, trace or off");
    Some(Problem { name: telemetry::VARIABLE.to_owned(), message })
}

/// Reads a file's text, without the byte-order mark that some editors add.
fn read_text(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Returns a variable's value, or else the content of the file named by another one, and whether it
/// is from a file.
fn from_environment(variable: &str, file: &str) -> Result<(String, bool), String> {
    match (env::var(variable), env::var_os(file)) {
        (Ok(_), Some(_)) => Err(format!("{variable} and {file} are both set: unset one")),
        (Ok(text), None) => Ok((text, false)),
        (Err(env::VarError::NotUnicode(_)), _) => {
            Err(format!("{variable} is not UTF-8: use {file}"))
        }
        (Err(env::VarError::NotPresent), Some(path)) => match read_text(Path::new(&path)) {
            Ok(text) if text.trim().is_empty() => {
                Err(format!("the file in {file} is empty: {}", path.display()))
            }
            Ok(text) => Ok((text, true)),
            Err(error) => Err(format!("cannot read {file}: {}: {error}", path.display())),
        },
        (Err(env::VarError::NotPresent), None) => Ok((String::new(), false)),
    }
}

const CRYPTO_SECRET: &str = "EDGE_SESSION_CRYPTO_SECRET";
const CRYPTO_SECRET_FILE: &str = "EDGE_SESSION_CRYPTO_SECRET_FILE";

/// Returns the secret that encrypts sessions in the database, if any.
fn crypto_secret() -> Result<Option<Vec<u8>>, String> {
    let (text, is_file) = from_environment(CRYPTO_SECRET, CRYPTO_SECRET_FILE)?;
    let secret = if is_file { text.trim() } else { &text };
    Ok((!secret.is_empty()).then(|| secret.as_bytes().to_vec()))
}

const ADMIN_TOKEN: &str = "EDGE_SESSION_ADMIN_TOKEN";
const ADMIN_TOKEN_FILE: &str = "EDGE_SESSION_ADMIN_TOKEN_FILE";

const AUTH_TOKEN: &str = "EDGE_SESSION_AUTH_TOKEN";
const AUTH_TOKEN_FILE: &str = "EDGE_SESSION_AUTH_TOKEN_FILE";

/// Returns the token in one of these variables, if any. `risk` is what anyone who guesses it can
/// do.
fn token(name: &str, file: &str, risk: &str) -> Result<Option<String>, String> {
    const SHORTEST: usize = 16;
    let (token, is_file) = from_environment(name, file)?;
    let token = token.trim();
    if (1..SHORTEST).contains(&token.len()) {
        let place = if is_file { format!(" in the file in {file}") } else { String::new() };
        return Err(format!("is shorter than {SHORTEST} bytes{place}: who guesses it can {risk}"));
    }
    Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
}

const SECRET: &str = "EDGE_SESSION_SECRET";
const SECRET_FILE: &str = "EDGE_SESSION_SECRET_FILE";

/// Shorter pieces before a comma are treated as parts of a secret that contains commas.
const SHORTEST_PIECE: usize = 16;

/// Returns the secrets, newest first.
fn secrets() -> Result<Vec<Vec<u8>>, String> {
    let (text, is_file) = from_environment(SECRET, SECRET_FILE)?;
    let secrets = split_secrets(&text, is_file)?;
    if secrets.is_empty() {
        return Err(format!(
            "is missing: set {SECRET}, for example to the output of `openssl rand -base64 48`, or \
             {SECRET_FILE} to a file of secrets"
        ));
    }
    Ok(secrets)
}

/// Splits a file at its lines, or a variable at its commas.
fn split_secrets(text: &str, is_file: bool) -> Result<Vec<Vec<u8>>, String> {
    let between = |c| if is_file { c == '\n' } else { c == ',' || c == '\n' };
    let pieces = text.split(between).map(str::trim).filter(|piece| !piece.is_empty());
    let secrets: Vec<_> = pieces.map(|piece| piece.as_bytes().to_vec()).collect();
    let short = secrets.iter().position(|secret| secret.len() < SHORTEST_PIECE);
    match short {
        Some(at) if !is_file && secrets.len() > 1 => Err(format!(
            "number {} has {} bytes, fewer than {SHORTEST_PIECE}: commas in {SECRET} separate \
             secrets. Put a secret that contains a comma into a file, one secret per line, and set \
             {SECRET_FILE}",
            at + 1,
            secrets[at].len()
        )),
        _ => Ok(secrets),
    }
}

/// Warns about quotation marks around a secret, which some readers of variable files keep.
fn quoted_secrets(secrets: &[Vec<u8>]) -> impl Iterator<Item = String> {
    let what = |secret: &Vec<u8>| match (secret.first(), secret.last()) {
        _ if secret.len() < 2 => None,
        (Some(b'"'), Some(b'"')) | (Some(b'\''), Some(b'\'')) => Some(
            "begins and ends with a quotation mark, which is part of the secret. Docker's \
             --env-file keeps quotation marks; other tools remove them",
        ),
        (Some(b'['), _) | (_, Some(b']')) => Some(
            "begins or ends with a bracket, which is part of the secret. Separate secrets by commas, \
             or in a file by line breaks, without brackets",
        ),
        _ => None,
    };
    let found = secrets.iter().enumerate().filter_map(move |(at, it)| Some((at + 1, what(it)?)));
    found.map(|(number, what)| format!("secret: number {number} {what}"))
}

/// Reports pieces that are probably not secrets: a comment, or a line for another program.
fn odd_secrets(secrets: &[Vec<u8>]) -> impl Iterator<Item = String> {
    let what = |secret: &Vec<u8>| {
        let name = secret.split(|byte| *byte == b'=').next().unwrap_or_default();
        let is_name = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
        match secret.first() {
            Some(b'#') => {
                Some("begins with #, but comments are not supported: it is used as a secret")
            }
            _ if name.len() > 5 && name.len() < secret.len() && name.iter().all(is_name) => {
                Some("looks like NAME=value: the whole text is the secret")
            }
            _ => None,
        }
    };
    let odd = secrets.iter().enumerate().filter_map(move |(at, secret)| Some((at, what(secret)?)));
    odd.map(|(at, what)| format!("secret: number {} {what}", at + 1))
}

/// Warns about valid secrets that can be guessed (RFC 2104, section 3), such as a piece of a longer
/// one.
fn weak_secrets(secrets: &[Vec<u8>]) -> impl Iterator<Item = String> {
    const WEAK: usize = 32;
    let weak = secrets.iter().enumerate().filter(|(_, secret)| secret.len() < WEAK);
    let number = secrets.len();
    weak.map(move |(at, secret)| {
        let comma = match number {
            1 => String::new(),
            _ => format!(
                " (If a secret contains a comma, use {SECRET_FILE}, with one secret per line.)"
            ),
        };
        format!(
            "secret: number {} has {} bytes: anyone who guesses it can forge sessions. Use at \
             least {WEAK} random bytes.{comma}",
            at + 1,
            secret.len()
        )
    })
}

// ------------------------------------------------------------------------ the store ----

/// One store, for requests and for operators.
pub(crate) struct Stores {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) browse: Arc<dyn Browse>,
}

impl Stores {
    fn of(store: impl Store + Browse) -> Self {
        let store = Arc::new(store);
        Self { store: store.clone(), browse: store }
    }
}

/// A store behind a cache: whatever an operator removes is forgotten.
struct BehindCache {
    browse: Arc<dyn Browse>,
    cache: Arc<CachedStore>,
}

#[async_trait]
impl Browse for BehindCache {
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        self.browse.page(after).await
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let removed = self.browse.remove(key).await;
        // The key may be a hash of the identifier.
        self.cache.clear();
        removed
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.browse.count().await
    }
}

async fn open_store(url: &str, settings: &Settings) -> anyhow::Result<Stores> {
    let Stores { store, browse } = open_uncached(url, settings).await?;
    let Some(lifetime) = settings.cache else { return Ok(Stores { store, browse }) };
    let cache = Arc::new(CachedStore::new(store, lifetime, CACHE_BYTES));
    Ok(Stores { store: cache.clone(), browse: Arc::new(BehindCache { browse, cache }) })
}

/// The most memory of the cache, in bytes.
const CACHE_BYTES: usize = 64 << 20;

async fn open_uncached(url: &str, settings: &Settings) -> anyhow::Result<Stores> {
    let shown = without_secrets(url);
    let failed = |error: StoreError| anyhow!("the store {shown}: {error}");
    if url == "memory:" {
        tracing::warn!("sessions are kept in memory and end with this process");
        return Ok(Stores::of(MemoryStore::default()));
    }
    if let Some(path) = url.strip_prefix("file:").filter(|path| !path.is_empty()) {
        return Ok(Stores::of(FileStore::open(path).map_err(|error| anyhow!("{error}"))?));
    }
    if is_mongodb(url) {
        let store = MongoStore::connect(url, &settings.mongodb);
        return Ok(Stores::of(store.await.map_err(failed)?));
    }
    if is_redis(url) {
        let store = RedisStore::connect(url, &settings.redis);
        return Ok(Stores::of(store.await.map_err(failed)?));
    }
    if is_postgres(url) {
        let store = PostgresStore::connect(url, &settings.postgres);
        return Ok(Stores::of(store.await.map_err(failed)?));
    }
    bail!("the store {shown} {NO_STORE}")
}

const NO_STORE: &str = "is not one of memory:, file:PATH, mongodb://HOST/DATABASE, redis://HOST, \
                        postgres://HOST/DATABASE";

fn is_store(url: &str) -> bool {
    // `file://a/b` means the file /b on the host a.
    let file = url.strip_prefix("file:");
    let is_path = |path: &str| {
        !path.is_empty()
            && !path.starts_with('~')
            && !path.starts_with("//")
            && !path.contains("://")
    };
    url == "memory:" || is_server(url) || file.is_some_and(is_path)
}

fn store_url(arguments: &cli::Configured, settings: &Settings) -> String {
    let url = arguments.store.as_deref().or(settings.store.as_deref());
    url.unwrap_or(STORE).to_owned()
}

pub(crate) fn is_mongodb(url: &str) -> bool {
    url.starts_with("mongodb://") || url.starts_with("mongodb+srv://")
}

pub(crate) fn is_redis(url: &str) -> bool {
    let schemes = ["redis", "rediss", "redis+unix", "valkey", "valkeys", "valkey+unix"];
    url.split_once("://").is_some_and(|(scheme, _)| {
        let several = scheme.strip_suffix("+cluster").or(scheme.strip_suffix("+sentinel"));
        schemes.contains(&several.unwrap_or(scheme))
    })
}

pub(crate) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Returns whether the store is a server, which several processes can use.
pub(crate) fn is_server(url: &str) -> bool {
    is_mongodb(url) || is_redis(url) || is_postgres(url)
}

/// Returns a store's URL for people, without user, password and parameters.
pub(crate) fn without_secrets(url: &str) -> String {
    if url == "memory:" || (url.starts_with("file:") && !url.contains("://")) {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        // A malformed URL may contain a password after its first word.
        return match url.find([':', '@', '?']) {
            Some(end) => format!("{}…", &url[..end]),
            None if url.contains("//") => {
                format!("{}…", url.split("//").next().unwrap_or_default())
            }
            None => url.to_owned(),
        };
    };
    // An unescaped password may contain any character.
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    // Without an @, an invalid port may be the beginning of a truncated password.
    let place = hosts.split(['/', '?']).next().unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit() || byte == b']');
    if place.split(',').any(|host| host.rsplit_once(':').is_some_and(|(_, port)| !is_port(port))) {
        return format!("{scheme}://…");
    }
    format!("{scheme}://{}", hosts.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_of_the_log_is_refused() {
        for text in ["", "info", "INFO", "debug,h2=info", "edge_session=trace, warn", "off"] {
            assert!(wrong_level(text).is_none(), "{text}");
        }
        for text in ["verbose", "warning", "info,h2=loud"] {
            assert!(wrong_level(text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_variable_that_begins_as_ours_is_one_that_is_read_or_kubernetes() {
        let unknown = |names: &[&str]| {
            let all = names.iter().map(|name| (OsString::from(name), OsString::new()));
            let problems = unknown_variables(all).into_iter().map(|problem| problem.name);
            problems.collect::<Vec<_>>()
        };
        assert_eq!(
            unknown(&[
                "PATH",
                "EDGE_SESSION_COOKIE_MAX_AGE",
                "EDGE_SESSION_STORE",
                "EDGE_SESSION_LISTEN",
                "EDGE_SESSION_SECRET_FILE",
                "EDGE_SESSION_LOG",
                "EDGE_SESSION_SERVICE_HOST",
                "EDGE_SESSION_SERVICE_PORT",
                "EDGE_SESSION_SERVICE_PORT_HTTP",
                "EDGE_SESSION_PORT",
                "EDGE_SESSION_PORT_8080_TCP",
                "EDGE_SESSION_PORT_8080_TCP_ADDR",
                "EDGE_SESSION_ADMIN_SERVICE_HOST",
            ]),
            [""; 0]
        );
        let wrong = ["EDGE_SESSION_COOKIE_MAXAGE", "EDGE_SESSION_SECRETS"];
        assert_eq!(unknown(&wrong), wrong);
    }

    #[test]
    fn secrets_are_lines_of_a_file_or_between_commas() {
        let (long, other) = ("0123456789abcdef", "fedcba9876543210");
        let split = |text: &str, is_file| {
            split_secrets(text, is_file).map(|secrets| {
                secrets.into_iter().map(|it| String::from_utf8(it).unwrap()).collect()
            })
        };
        let some = |secrets: &[&str]| {
            Ok::<Vec<_>, String>(secrets.iter().map(|it| (*it).to_owned()).collect())
        };
        assert_eq!(split(&format!("{long}, {other},"), false), some(&[long, other]));
        assert_eq!(split("keyboard cat", false), some(&["keyboard cat"]));
        assert_eq!(split(",keyboard cat\n", false), some(&["keyboard cat"]));
        assert_eq!(split("a,b\r\n\nold\n", true), some(&["a,b", "old"]));
        assert_eq!(split(" ,\n", false), some(&[]));
        for (text, number) in [
            (format!("hunter2,{long}"), 1),
            (format!("{long},hunter2"), 2),
            (format!("{long}\nhunter2"), 2),
            ("hunter2,hunter3".to_owned(), 1),
        ] {
            let error = split(&text, false).unwrap_err();
            assert!(error.starts_with(&format!("number {number} has 7 bytes")), "{error}");
            assert!(error.contains("EDGE_SESSION_SECRET_FILE"), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn weak_secrets_are_told_by_their_number() {
        let secrets = [vec![7; 32], vec![7; 31], b"hunter2".to_vec()];
        let told: Vec<_> = weak_secrets(&secrets).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("number 2 has 31 bytes"), "{told:?}");
        assert!(told[1].contains("number 3 has 7 bytes"), "{told:?}");
        assert!(!told.concat().contains("hunter2"));
    }

    #[test]
    fn a_shown_url_holds_no_secrets() {
        for (url, shown) in [
            ("mongodb://user:p@ss:word@db:27017/app?authSource=admin", "mongodb://db:27017/app"),
            ("mongodb://db/app?x=secret", "mongodb://db/app"),
            ("file:data/a@b.redb", "file:data/a@b.redb"),
            ("mongodb://u:p?ss@db", "mongodb://db"),
            ("mongodb://u:p/a?ss@db/app?w=1", "mongodb://db/app"),
            ("mongodb//u:hunter2@db", "mongodb//u…"),
            ("/tmp/s.redb", "/tmp/s.redb"),
            ("mongodb://u:hunter2", "mongodb://…"),
            ("mongodb://a:1,b:2/c", "mongodb://a:1,b:2/c"),
            ("mongodb://[::1]:1,[::1]/c", "mongodb://[::1]:1,[::1]/c"),
            ("file:mongodb://u:hunter2@h", "file:mongodb://h"),
            ("mongodb:/u:hunter2@db", "mongodb…"),
            ("u:hunter2@db", "u…"),
            ("mongodb://db?x=a@b", "mongodb://b"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[tokio::test]
    async fn an_unknown_store_is_quoted_with_what_there_is() {
        let (_, settings, _) = config::File::parse("", |_| None).unwrap().read();
        let error = open_store("mysql://u:hunter2@h", &settings).await.err().unwrap().to_string();
        assert!(error.contains("mysql://h") && error.contains("memory:, file:PATH"), "{error}");
        assert!(!error.contains("hunter2"));
    }
}
