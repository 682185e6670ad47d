//! The configuration of the proxy: routes, guards, limits.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Duration;

use edge_session::Problem;
use edge_session_headers::is_ours;
use http::Uri;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::uri::PathAndQuery;
use ipnet::IpNet;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::{Section, quoted};
use crate::auth::ValueHeader;
use crate::net::address::LONGEST;
use crate::net::connections::{Bounds, Limits};
use crate::proxy::{
    AppAddress, Guard, Health, PlainPath, RouteConfig, Rule, RulePath, Settings, TrustedProxies,
    UpstreamTimeouts, path_of,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The sections of the file about connections and upstreams.
pub(super) struct Sections {
    pub(super) gateway: Section,
    pub(super) timeouts: Section,
    pub(super) limits: Section,
    pub(super) routes: Vec<Table>,
    pub(super) guards: Vec<Table>,
    /// The application for all other paths.
    pub(super) upstream: Option<Value>,
    /// The application as a component.
    pub(super) app: Option<Value>,
}

/// Reads the sections: the limits, the pointer to the logged-in user, and the proxy's settings.
/// Without a route there is no proxy, unless other gateways ask it.
pub(super) fn read(
    sections: Sections,
    is_asked: bool,
    wrong: &mut Vec<Problem>,
) -> (Limits, Option<String>, Option<Settings>) {
    let Sections { mut gateway, mut timeouts, mut limits, routes, guards, upstream, app } =
        sections;
    let mut millis = |key: &str, default: Duration, wrong: &mut Vec<Problem>| {
        let millis = timeouts.take::<u64>(key, wrong).map(Duration::from_millis);
        if millis == Some(Duration::ZERO) && key != "whole_ms" {
            wrong.push(timeouts.problem(key, "must be at least 1".to_owned()));
        }
        millis.unwrap_or(default)
    };
    let connect = millis("connect_ms", Duration::from_secs(2), wrong);
    let header = millis("header_ms", Duration::from_secs(30), wrong);
    let response = millis("response_ms", MINUTE, wrong);
    let idle = millis("idle_ms", MINUTE, wrong);
    let whole = Some(millis("whole_ms", Duration::ZERO, wrong)).filter(|whole| !whole.is_zero());
    let drain = millis("drain_ms", Duration::from_secs(10), wrong);

    let mut places = |key: &str, default: usize, wrong: &mut Vec<Problem>| {
        let places = limits.take(key, wrong).unwrap_or(default);
        if !(1..=1_000_000).contains(&places) {
            wrong.push(limits.problem(key, "must be between 1 and 1000000".to_owned()));
        }
        places
    };
    let connections = places("connections", 8192, wrong);
    // A wrong number is told once, not again for what follows from it.
    let connections = connections.clamp(1, 1_000_000);
    let requests = places("requests", connections, wrong).clamp(1, 1_000_000);
    // Prevents a single client from taking all places.
    let per_client = places("per_client", 512.min(requests.div_ceil(4)), wrong);
    if per_client > requests {
        let message = format!("is {per_client}, more than limits.requests, {requests}");
        wrong.push(limits.problem("per_client", message));
    }
    let header_bytes = limits.take("header_bytes", wrong).unwrap_or(128 * 1024);
    if !(8 * 1024..=1024 * 1024).contains(&header_bytes) {
        let message = format!("is {header_bytes}, not between 8192 and 1048576");
        wrong.push(limits.problem("header_bytes", message));
    }
    let body_bytes = limits.take("body_bytes", wrong).filter(|most| *most > 0);
    let buffer_bytes = limits.take("buffer_bytes", wrong).unwrap_or(64 * 1024);
    if buffer_bytes > 16 << 20 {
        let message = format!(
            "is {buffer_bytes}, more than 16777216: every request may use this much memory"
        );
        wrong.push(limits.problem("buffer_bytes", message));
    }
    let min_rate = limits.take("min_rate", wrong).unwrap_or(500);
    let min_rate = Some(min_rate).filter(|rate| *rate > 0);

    let login = gateway.login(wrong);
    let logout = gateway.plain_path("logout", wrong);
    let after_logout = gateway.path("after_logout", wrong).unwrap_or_else(|| "/".to_owned());
    let logout = logout.and_then(|path| Some((RulePath::parse(&path).ok()?, after_logout)));
    if let Some((logout, after)) = &logout
        && RulePath::parse(path_of(after)).as_ref() == Ok(logout)
    {
        let message =
            format!("is {logout}, where gateway.after_logout leads: the redirect would never end");
        wrong.push(gateway.problem("logout", message));
    }
    let identity = gateway.pointer("identity", wrong);
    if let (Some((logout, _)), Some(login)) = (&logout, &login)
        && RulePath::parse(path_of(login)).as_ref() == Ok(logout)
    {
        let message = "is also the path of gateway.login: nobody could log in";
        wrong.push(gateway.problem("logout", message.to_owned()));
    }
    let modes = [("own", false), ("shared", true)];
    let is_shared = gateway.choose("sessions", &modes, wrong).unwrap_or(false);
    let hide_cookie = gateway.take("hide_cookie", wrong).unwrap_or(false);
    for (key, is_set) in [("logout", logout.is_some()), ("hide_cookie", hide_cookie)] {
        if is_shared && is_set {
            let message = "cannot be set with sessions = \"shared\": the application itself reads \
                           the cookie and ends sessions";
            wrong.push(gateway.problem(key, message.to_owned()));
        }
    }
    let escaped_slashes = gateway.take("escaped_slashes", wrong).unwrap_or(false);
    let error_pages = gateway.take::<PathBuf>("error_pages", wrong);
    let save_failed = gateway.take("save_failed", wrong).unwrap_or(false);
    let trusted_proxies = gateway.networks("trusted_proxies", wrong).unwrap_or_else(|| {
        let loopback = ["127.0.0.0/8", "::1/128"];
        TrustedProxies(loopback.iter().filter_map(|network| network.parse().ok()).collect())
    });
    let exempt = trusted_proxies.0.clone();
    let bounds = Bounds { connections, requests, per_client, exempt };
    let limits_read = Limits { bounds, header_bytes, header, idle, drain };
    let health_path = gateway.path("health_path", wrong);
    let interval = gateway.take("health_interval_ms", wrong).map(Duration::from_millis);
    if interval == Some(Duration::ZERO) {
        wrong.push(gateway.problem("health_interval_ms", "must be at least 1".to_owned()));
    }
    let health = Health {
        path: health_path.and_then(|path| PathAndQuery::try_from(path).ok()),
        interval: interval.unwrap_or(Duration::from_secs(5)),
    };

    let mut all_routes = Vec::new();
    for (at, table) in routes.into_iter().enumerate() {
        let mut section = Section { prefix: format!("route[{at}]."), table };
        all_routes.extend(route(&mut section, wrong));
        section.report_unknown(wrong);
    }
    let mut root = Section { prefix: String::new(), table: Table::new() };
    root.table.extend(
        [("upstream", upstream), ("app", app)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?))),
    );
    let app = root.take::<String>("app", wrong).map(PathBuf::from);
    if !root.table.is_empty() {
        all_routes.extend(route(&mut root, wrong));
    }
    if app.is_some() && is_shared {
        let message =
            "\"shared\" requires an application that has its own store, not `app`".to_owned();
        wrong.push(gateway.problem("sessions", message));
    }
    if app.is_some() && !all_routes.is_empty() {
        let message = "excludes `upstream` and [[route]]: it receives all requests".to_owned();
        wrong.push(root.problem("app", message));
    }
    let mut all_guards = Vec::new();
    for (at, table) in guards.into_iter().enumerate() {
        let mut section = Section { prefix: format!("guard[{at}]."), table };
        let guard = guard(&mut section, login.as_deref(), wrong);
        // Other gateways have their own routes.
        let routes = Some(&all_routes).filter(|it| !it.is_empty() && !is_asked);
        if let (Some(guard), Some(routes)) = (&guard, routes) {
            check_routes(guard, routes, &section, wrong);
        }
        all_guards.extend(guard);
        section.report_unknown(wrong);
    }
    check_logins(&all_guards, wrong);
    for section in [gateway, timeouts, limits] {
        section.report_unknown(wrong);
    }
    let looked_at = all_guards.iter().filter_map(|guard| match &guard.rule {
        Rule::Require { pointer, .. } => Some(pointer.clone()),
        Rule::Deny => None,
    });
    let renewed_for: BTreeSet<_> = match &identity {
        Some(identity) => [identity.clone()].into(),
        None => looked_at.collect(),
    };
    // With several pointers, one of them may be a role instead of a user.
    let only = renewed_for.first().filter(|_| renewed_for.len() == 1);
    let identity = identity.or_else(|| only.cloned());
    if all_routes.is_empty() && app.is_none() && !is_asked {
        if !all_guards.is_empty() {
            let message =
                "there is nothing to guard: set `upstream`, `app`, a [[route]], ext_proc.listen or \
                 auth.listen"
                    .to_owned();
            wrong.push(Problem { name: "guard".to_owned(), message });
        }
        return (limits_read, identity, None);
    }
    let settings = Settings {
        app,
        routes: all_routes,
        guards: all_guards,
        health,
        logout,
        identity: identity.clone(),
        renewed_for: renewed_for.into_iter().collect(),
        is_shared,
        hide_cookie,
        escaped_slashes,
        error_pages,
        save_failed,
        trusted_proxies,
        timeouts: UpstreamTimeouts { connect, response },
        idle,
        whole,
        body_bytes,
        buffer_bytes,
        min_rate,
    };
    (limits_read, identity, Some(settings))
}

fn route(section: &mut Section, wrong: &mut Vec<Problem>) -> Option<RouteConfig> {
    let host = section.take::<String>("host", wrong);
    if let Some(host) = host.as_deref().filter(|host| !is_host_name(host)) {
        wrong.push(section.problem("host", format!("{} {NO_HOST_NAME}", quoted(host))));
    }
    let path = section.plain_path("path", wrong).unwrap_or_else(|| "/".to_owned());
    let path = RulePath::parse(&path).ok()?;
    let urls = section.list("upstream", wrong);
    if urls.as_ref().is_none_or(Vec::is_empty) {
        let message = "is missing: set a URL such as http://127.0.0.1:3000".to_owned();
        wrong.push(section.problem("upstream", message));
    }
    let mut upstreams = Vec::new();
    for url in urls.unwrap_or_default() {
        match upstream(&url) {
            Ok(address) => upstreams.push(address),
            Err(what) => wrong.push(section.problem("upstream", what)),
        }
    }
    let key = format!("{}upstream", section.prefix);
    (!upstreams.is_empty()).then_some(RouteConfig { host, path, upstreams, key })
}

const NO_HOST_NAME: &str = "is not a host name (without a port)";

fn is_host_name(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(is_plain)
}

fn upstream(text: &str) -> Result<AppAddress, String> {
    if text.is_empty() {
        return Err("is empty: set a URL such as http://127.0.0.1:3000".to_owned());
    }
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        if path.len() > LONGEST {
            return Err(format!("the path of a socket has at most {LONGEST} bytes"));
        }
        // A missing socket may be created later.
        let is_other = std::fs::metadata(path).is_ok_and(|it| !it.file_type().is_socket());
        return match is_other {
            true => Err(format!("unix:{path} is not a socket")),
            false => Ok(AppAddress::Unix(path.into())),
        };
    }
    let socket = text.strip_prefix("http://unix:").or(Some(text)).filter(|it| it.starts_with('/'));
    if let Some(path) = socket {
        return Err(format!(
            "{text:?} is not a URL: for an application's socket, write unix:{path}"
        ));
    }
    // Accepts the form of `listen` addresses, without a scheme.
    let with_scheme;
    let url = match text.split_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            with_scheme = format!("http://{host}:{port}");
            &with_scheme
        }
        _ => text,
    };
    // A URL may contain a password,
    let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
    // also after the host.
    let host = shown.find("://").map_or(0, |at| at + "://".len());
    let end = shown[host..].find(['/', '?', '#']).map_or(shown.len(), |at| host + at);
    let shown = &shown[..end];
    // An invalid port may be the password of a truncated URL.
    let port = shown[host..].rsplit_once(':').map(|(before, port)| (host + before.len(), port));
    let shown = match port {
        Some((end, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            &format!("{}:…", &shown[..end])
        }
        _ => shown,
    };
    let uri: Uri = url.parse().map_err(|error| format!("{shown:?} is not a URL: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
        return Err(format!(
            "{shown:?} is neither a URL such as http://127.0.0.1:3000 nor a socket such as \
             unix:/run/app.sock"
        ));
    }
    if url.contains('@') {
        return Err(format!("the URL of {shown:?} contains a user name, which is not supported"));
    }
    let after_host = uri.authority().and_then(|it| it.as_str().rsplit_once(':'));
    if let Some((_, port)) = after_host.filter(|(_, port)| !port.contains(']'))
        && !port.is_empty()
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return Err(format!("the port of {shown:?} is not between 1 and 65535"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!(
            "{shown:?} is followed by a path or a query: requests keep their own, so give only the \
             host"
        ));
    }
    Ok(AppAddress::Url(uri))
}

/// Reports a guard of which no request can reach a path, or the login page.
fn check_routes(
    guard: &Guard,
    routes: &[RouteConfig],
    section: &Section,
    wrong: &mut Vec<Problem>,
) {
    for path in &guard.paths {
        if !routes.iter().any(|it| it.path.is_below(path) || path.is_below(&it.path)) {
            let message = format!("{path} is on no route: no request has this path");
            wrong.push(section.problem("paths", message));
        }
    }
    if let Some(login) = guard.login()
        && RulePath::parse(path_of(login))
            .is_ok_and(|it| !routes.iter().any(|to| it.is_below(&to.path)))
    {
        let message = format!("leads to {login} (login), which is on no route: add one");
        wrong.push(section.problem("require", message));
    }
}

/// Reports guards that deny everyone the page where another one lets visitors log in.
fn check_logins(guards: &[Guard], wrong: &mut Vec<Problem>) {
    for (at, denying) in guards.iter().enumerate().filter(|(_, it)| it.rule == Rule::Deny) {
        let logins = guards.iter().filter_map(Guard::login);
        let denied = logins.filter(|it| {
            let path = path_of(it);
            let is_excepted = PlainPath::parse(path)
                .is_some_and(|it| denying.except.iter().any(|other| it.is_below(other)));
            let is_guarded = RulePath::parse(path)
                .is_ok_and(|it| denying.paths.iter().any(|other| it.is_below(other)));
            is_guarded && !is_excepted
        });
        for login in denied.take(1) {
            let message =
                format!("denies everyone {login}, where other guards let visitors log in");
            wrong.push(Problem { name: format!("guard[{at}].deny"), message });
        }
    }
}

fn guard(section: &mut Section, login: Option<&str>, wrong: &mut Vec<Problem>) -> Option<Guard> {
    let mut paths = Vec::new();
    match section.list("paths", wrong) {
        Some(list) if !list.is_empty() => {
            for path in list {
                match RulePath::parse(&path) {
                    Ok(parsed) if is_plain(&path) => paths.push(parsed),
                    _ => wrong.push(section.problem("paths", not_plain(&path, "/admin"))),
                }
            }
        }
        _ => wrong.push(section.problem("paths", "is missing: set a list of paths".to_owned())),
    }
    let mut except = Vec::new();
    for path in section.list("except", wrong).unwrap_or_default() {
        match PlainPath::parse(&path) {
            Some(_) if path == "/" => {
                let message = "\"/\" would leave nothing to guard: all paths are below it";
                wrong.push(section.problem("except", message.to_owned()));
            }
            Some(parsed) if is_plain(&path) => {
                let excepted = RulePath::parse(&path).ok();
                let is_below =
                    |guarded: &RulePath| excepted.as_ref().is_some_and(|it| it.is_below(guarded));
                if !paths.is_empty() && !paths.iter().any(is_below) {
                    let message = format!("{path:?} is not below any of the guard's paths");
                    wrong.push(section.problem("except", message));
                }
                let is_whole =
                    |guarded: &&RulePath| excepted.as_ref().is_some_and(|it| guarded.is_below(it));
                if let Some(guarded) = paths.iter().find(is_whole) {
                    let message = format!("{path:?} would leave nothing of {guarded} to guard");
                    wrong.push(section.problem("except", message));
                }
                except.push(parsed);
            }
            _ => wrong.push(section.problem("except", not_plain(&path, "/public"))),
        }
    }
    let before = wrong.len();
    let preflights = section.take("preflights", wrong).unwrap_or(false);
    let deny = section.take("deny", wrong).unwrap_or(false);
    let pointer = section.pointer("require", wrong);
    let equals = section.table.remove("equals");
    let is_scalar =
        |value: &Value| matches!(value, Value::String(_) | Value::Integer(_) | Value::Boolean(_));
    if equals.as_ref().is_some_and(|value| !is_scalar(value)) {
        wrong.push(
            section.problem("equals", "is not a string, a whole number, true or false".to_owned()),
        );
    }
    let login = section.login(wrong).or_else(|| login.map(str::to_owned));
    let rule = match (deny, pointer) {
        (true, None) => Rule::Deny,
        (false, Some(pointer)) => {
            let equals = equals.and_then(|value| serde_json::to_value(value).ok());
            Rule::Require { pointer, equals: equals.filter(|value: &Json| !value.is_null()), login }
        }
        // A present but invalid value has been reported.
        (false, None) if wrong.len() > before => return None,
        (is_denied, _) => {
            let message = match is_denied {
                true => "excludes `deny = true`, which lets nobody pass",
                false => "is missing: set a JSON pointer such as \"/user\", or `deny = true`",
            };
            wrong.push(section.problem("require", message.to_owned()));
            return None;
        }
    };
    Some(Guard { paths, except, preflights, rule })
}

/// Headers that have a meaning for gateways.
const RESERVED: [HeaderName; 13] = [
    CACHE_CONTROL,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    LOCATION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VARY,
];

/// Returns whether a header has a meaning for gateways, so that it cannot transport a value.
fn is_reserved(name: &HeaderName) -> bool {
    is_ours(name) || RESERVED.contains(name) || name.as_str().starts_with("x-forwarded-")
}

/// Returns whether a text is only a path: rules would never match a pattern or a query. What stands
/// for itself can be escaped, such as a comma (`%2C`).
fn is_plain(path: &str) -> bool {
    let is_pattern = path.contains(['*', '{', '<', ',']) || path.contains("/:");
    path.starts_with('/') && !path.contains(['?', '#']) && !is_pattern
}

fn not_plain(path: &str, example: &str) -> String {
    format!(
        "{path:?} is not a path such as {example:?}, which includes everything below it: patterns, \
         queries and several paths in one text have no meaning here"
    )
}

impl Section {
    /// Reads host names, without ports.
    pub(super) fn hosts(&mut self, wrong: &mut Vec<Problem>) -> Vec<String> {
        let hosts = self.list("hosts", wrong).unwrap_or_default();
        for host in hosts.iter().filter(|host| !is_host_name(host)) {
            wrong.push(self.problem("hosts", format!("{host:?} {NO_HOST_NAME}")));
        }
        hosts
    }

    /// Reads a string or a list of strings.
    fn list(&mut self, key: &str, wrong: &mut Vec<Problem>) -> Option<Vec<String>> {
        if let Some(Value::String(text)) = self.table.get_mut(key) {
            let parts = text.split(',').map(|part| Value::String(part.trim().to_owned()));
            let parts = parts.collect();
            self.table.insert(key.to_owned(), Value::Array(parts));
        }
        self.take(key, wrong)
    }

    /// Reads a path on this host that can be redirected to.
    fn path(&mut self, key: &str, wrong: &mut Vec<Problem>) -> Option<String> {
        let path: String = self.take(key, wrong)?;
        let is_path = path.starts_with('/') && !path.starts_with("//");
        let is_valid =
            PathAndQuery::try_from(&*path).is_ok() && RulePath::parse(path_of(&path)).is_ok();
        if is_path && is_valid {
            return Some(path);
        }
        let message = format!("is {path:?}, not a path of this host, which begins with one slash");
        wrong.push(self.problem(key, message));
        None
    }

    /// Reads the login path. Guards exempt only this exact spelling.
    fn login(&mut self, wrong: &mut Vec<Problem>) -> Option<String> {
        let login = self.path("login", wrong)?;
        if PlainPath::parse(path_of(&login)).is_none() {
            let message = format!("is {login:?}: use a plain path, without // or ;");
            wrong.push(self.problem("login", message));
        }
        Some(login)
    }

    /// Reads a path that requests are compared with.
    fn plain_path(&mut self, key: &str, wrong: &mut Vec<Problem>) -> Option<String> {
        let path = self.path(key, wrong)?;
        if is_plain(&path) {
            return Some(path);
        }
        let message = format!("is {path:?}: give only a path, without a pattern or a query");
        wrong.push(self.problem(key, message));
        None
    }

    fn pointer(&mut self, key: &str, wrong: &mut Vec<Problem>) -> Option<String> {
        let pointer: String = self.take(key, wrong)?;
        if pointer.len() > 1 && pointer.starts_with('/') {
            return Some(pointer);
        }
        let message = format!("is {pointer:?}, not a JSON pointer such as \"/passport/user\"");
        wrong.push(self.problem(key, message));
        None
    }

    /// Reads the headers of values: names, with JSON pointers.
    pub(super) fn value_headers(&mut self, wrong: &mut Vec<Problem>) -> Vec<ValueHeader> {
        let table: Table = self.take("headers", wrong).unwrap_or_default();
        let mut section = Section { prefix: format!("{}headers.", self.prefix), table };
        let names: Vec<_> = section.table.keys().cloned().collect();
        let mut headers = Vec::<ValueHeader>::new();
        for key in names {
            let Some(pointer) = section.pointer(&key, wrong) else { continue };
            match HeaderName::try_from(&key) {
                Ok(name) if headers.iter().any(|known| known.name == name) => {
                    let message = "is there twice: names of headers have no case".to_owned();
                    wrong.push(section.problem(&key, message));
                }
                Ok(name) if is_reserved(&name) => {
                    let message = format!(
                        "cannot be set: gateways or this program need it (and all of {}, \
                         edge-session-…, x-forwarded-…)",
                        RESERVED.map(|name| name.to_string()).join(", ")
                    );
                    wrong.push(section.problem(&key, message));
                }
                Ok(name) => headers.push(ValueHeader { name, pointer }),
                Err(_) => {
                    let message = format!("{} is not the name of a header", quoted(&key));
                    wrong.push(self.problem("headers", message));
                }
            }
        }
        headers
    }

    fn networks(&mut self, key: &str, wrong: &mut Vec<Problem>) -> Option<TrustedProxies> {
        let mut networks = Vec::new();
        for text in self.list(key, wrong)?.into_iter().filter(|text| !text.is_empty()) {
            let network: Result<IpNet, _> =
                text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => networks.push(network),
                Err(_) => {
                    let shown = quoted(&text);
                    let message = format!(
                        "{shown} is neither an IP address nor a network such as 10.0.0.0/8"
                    );
                    wrong.push(self.problem(key, message));
                }
            }
        }
        Some(TrustedProxies(networks))
    }
}
