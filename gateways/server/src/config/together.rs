//! Checks options that are valid individually but not together.

use std::net::IpAddr;

use edge_session::Problem;
use edge_session::store::{AutoRemove, MongoOptions, PostgresOptions, RedisOptions, TransformId};

use super::Settings;
use crate::net::address::Address;
use crate::proxy::{AppAddress, RouteConfig, Rule, RulePath};
use crate::setup::{is_mongodb, is_postgres, is_redis, is_server};

/// Returns combinations that cannot work.
pub(crate) fn problems(settings: &Settings, store_url: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |name: &str, message: String| {
        problems.push(Problem { name: name.to_owned(), message });
    };
    let listen = settings.serves_http().then(|| settings.listen.clone().unwrap_or_default());
    let own = [
        ("listen", listen),
        ("admin.listen", settings.admin.map(Address::Port)),
        ("ext_proc.listen", settings.ext_proc.clone()),
        ("auth.listen", settings.auth.clone()),
    ];
    let own = own.into_iter().filter_map(|(key, address)| Some((key, address?)));
    let own: Vec<_> = own.collect();
    for (at, (key, address)) in own.iter().enumerate() {
        if let Some(why) = address.why_not() {
            problem(key, format!("is {address}: {why}"));
        }
        if let Some((other, _)) = own[..at].iter().find(|(_, other)| is_same(address, other)) {
            let what = if matches!(address, Address::Port(_)) { "port" } else { "path" };
            let message =
                format!("is {address}, which `{other}` already uses: choose another {what}");
            problem(key, message);
        }
    }
    let routes = settings.gateway.as_ref().map_or(&[][..], |gateway| &gateway.routes);
    for (route, upstream) in
        routes.iter().flat_map(|it| it.upstreams.iter().map(move |to| (it, to)))
    {
        if let Some((key, _)) = own.iter().find(|(_, own)| leads_to(upstream, own)) {
            let message = format!("{upstream} is this program's own `{key}`: requests would loop");
            problem(&route.key, message);
        }
    }
    for (at, route) in routes.iter().enumerate() {
        let host = |route: &RouteConfig| route.host.as_ref().map(|it| it.to_ascii_lowercase());
        let is_same = |other: &&RouteConfig| other.path == route.path && host(other) == host(route);
        if let Some(other) = routes[..at].iter().find(is_same) {
            let other = &other.key;
            let message =
                format!("has the same host and path as {other}, which receives all requests");
            problem(&route.key, message);
        }
    }
    for (at, outside) in outside_of_sessions(settings) {
        if let Outside::Wholly(path) = outside {
            let message = format!(
                "{path} is not below cookie.path ({}): its requests have no session, so nobody \
                 would pass",
                settings.cookie_path
            );
            problem(&format!("guard[{at}].paths"), message);
        }
    }
    let is_shared = settings.gateway.as_ref().is_some_and(|gateway| gateway.is_shared);
    if is_shared && !is_server(store_url) {
        let message = "\"shared\" requires the application's store: set store.url to its \
                       mongodb://, redis:// or postgres:// address";
        problem("gateway.sessions", message.to_owned());
    }
    if settings.cache.is_some() && !is_server(store_url) {
        let message = "is only for mongodb://, redis:// and postgres:// stores: unset it, or change \
                       store.url";
        problem("store.cache_ms", message.to_owned());
    }
    let set = &settings.mongodb;
    let MongoOptions { collection, auto_remove_interval, .. } = MongoOptions::default();
    let of_mongodb = [
        ("collection", set.collection != collection),
        ("db_name", set.db_name.is_some()),
        ("auto_remove", set.auto_remove != AutoRemove::default()),
        ("auto_remove_interval", set.auto_remove_interval != auto_remove_interval),
        ("stringify", !set.stringify),
        ("timestamps", set.timestamps),
        ("transform_id", set.transform_id != TransformId::None),
        ("crypto", settings.crypto.is_some()),
    ];
    let set = &settings.redis;
    let of_redis = [
        ("prefix", set.prefix != RedisOptions::default().prefix),
        ("disable_ttl", set.disable_ttl),
        ("wait_replicas", set.wait_replicas > 0),
    ];
    let of_both = [("disable_touch", set.disable_touch)];
    let set = &settings.postgres;
    let PostgresOptions { table, prune_interval, connections, .. } = PostgresOptions::default();
    let of_postgres = [
        ("schema", set.schema.is_some()),
        ("table", set.table != table),
        ("create_table", set.create_table),
        ("prune_interval", set.prune_interval != prune_interval),
        ("connections", set.connections != connections),
        ("prepare", set.prepare),
    ];
    let (is_redis, is_postgres) = (is_redis(store_url), is_postgres(store_url));
    for (schemes, is_used, options) in [
        ("mongodb://", is_mongodb(store_url), &of_mongodb[..]),
        ("redis://", is_redis, &of_redis),
        ("redis:// and postgres://", is_redis || is_postgres, &of_both),
        ("postgres://", is_postgres, &of_postgres),
    ] {
        for (key, _) in options.iter().filter(|(_, is_set)| *is_set && !is_used) {
            let message = format!("is only for {schemes} stores: unset it, or change store.url");
            problem(&format!("store.{key}"), message);
        }
    }
    problems
}

/// Returns combinations that work but are not advisable.
pub(crate) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (at, outside) in outside_of_sessions(settings) {
        if let Outside::Partly = outside {
            warnings.push(format!(
                "guard[{at}].paths: paths outside cookie.path ({}) have no sessions, so nobody \
                 passes there",
                settings.cookie_path
            ));
        }
    }
    let is_public = match &settings.listen {
        Some(Address::Port(address)) => !address.ip().is_loopback(),
        _ => false,
    };
    if settings.gateway.is_none() && is_public {
        warnings.push(
            "listen: the built-in view counter lets anyone log in without a password, and others \
             can reach this address. It is only a demo: set `upstream` to serve an application"
                .to_owned(),
        );
    }
    if settings.listen.is_some() && !settings.serves_http() {
        warnings.push(
            "listen: has no effect, since there is no application to forward to: other gateways \
             forward requests themselves (ext_proc.listen, auth.listen). Unset it, or set \
             `upstream`"
                .to_owned(),
        );
    }
    if let Some(gateway) = &settings.gateway {
        warnings.extend(of_gateway(gateway));
    }
    if settings.auth.is_none() && !settings.auth_headers.is_empty() {
        warnings.push("auth.headers: has no effect, since auth.listen is not set".to_owned());
    }
    warnings
}

/// Returns what is not advisable in the section of the proxy and its guards.
fn of_gateway(gateway: &crate::proxy::Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(all) = gateway.trusted_proxies.0.iter().find(|it| it.prefix_len() == 0) {
        warnings.push(format!(
            "gateway.trusted_proxies: {all} is every address: all clients are believed what they \
             say about where they come from, and none has a limit of its own"
        ));
    }
    let pointers = gateway.guards.iter().filter_map(|guard| match &guard.rule {
        Rule::Require { pointer, equals: None, .. } => Some(pointer),
        _ => None,
    });
    let is_part = |one: &str, of: &str| {
        one.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(identity) = &gateway.identity
        && let Some(other) = pointers.clone().next()
        && !pointers.clone().any(|it| is_part(it, identity) || is_part(identity, it))
    {
        warnings.push(format!(
            "gateway.identity: is {identity:?}, but guards require {other:?}: sessions are renewed \
             only when the former changes, so that an identifier from before a login stays valid"
        ));
    }
    let root = RulePath::parse("/");
    for (at, guard) in gateway.guards.iter().enumerate().filter(|_| !gateway.is_shared) {
        let is_everywhere = guard.paths.iter().any(|it| Ok(it) == root.as_ref());
        if is_everywhere
            && guard.except.is_empty()
            && guard.wants_session()
            && guard.login().is_none()
        {
            warnings.push(format!(
                "guard[{at}]: covers every path without a login page, so that nobody can log in \
                 here: set gateway.login, or `except` for what is public"
            ));
        }
    }
    warnings
}

fn is_same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Port(one), Address::Port(other)) => {
            let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
            // With port 0, the system chooses a free port.
            one.port() == other.port() && one.port() != 0 && (is_any || one.ip() == other.ip())
        }
        (Address::Unix(one), Address::Unix(other)) => one == other,
        _ => false,
    }
}

/// Returns whether an application's address is this program's own. Names are not resolved.
fn leads_to(upstream: &AppAddress, own: &Address) -> bool {
    match (upstream, own) {
        (AppAddress::Unix(path), Address::Unix(own)) => path == own,
        (AppAddress::Url(uri), Address::Port(own)) => {
            let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
                Some("https") => 443,
                _ => 80,
            });
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let is_local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
            let is_own = match host.parse::<IpAddr>() {
                Ok(ip) => ip == own.ip() || (is_local(ip) && own.ip().is_unspecified()),
                Err(_) => host.eq_ignore_ascii_case("localhost") && is_local(own.ip()),
            };
            port == own.port() && is_own
        }
        _ => false,
    }
}

/// How much of a guarded path is outside of the paths that have sessions.
enum Outside {
    Wholly(String),
    Partly,
}

/// Returns the guards that require a session but cover paths without sessions.
fn outside_of_sessions(settings: &Settings) -> Vec<(usize, Outside)> {
    let Ok(with_sessions) = RulePath::parse(&settings.cookie_path) else { return Vec::new() };
    let guards = settings.gateway.iter().flat_map(|gateway| gateway.guards.iter().enumerate());
    let wanting = guards.filter(|(_, guard)| guard.wants_session());
    let paths = wanting.flat_map(|(at, guard)| guard.paths.iter().map(move |path| (at, path)));
    paths
        .filter(|(_, path)| !path.is_below(&with_sessions))
        .map(|(at, path)| match with_sessions.is_below(path) {
            true => (at, Outside::Partly),
            false => (at, Outside::Wholly(path.to_string())),
        })
        .collect()
}
