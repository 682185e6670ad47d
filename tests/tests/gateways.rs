//! Real Envoy, nginx, Caddy, Traefik and HAProxy, as `deploy/` configures them.

mod ext_proc;
mod forward_auth;
mod proxy_wasm;
mod session_api;

use std::sync::{Arc, OnceLock};

use edge_session_tests::{
    Asked, Caller, Front, Fronted, Launch, Reply, Upstream, as_it_is, call_session_api,
};
use serde_json::{Value, json};

const NAVIGATION: &[&str] = &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: same-origin"];
const FETCH: &[&str] = &["Sec-Fetch-Mode: cors", "Accept: application/json"];

/// A gateway in front of an application that logs in whoever visits /login, and counts at /count.
struct Chain {
    front: Front,
    fronted: Fronted,
    app: Upstream,
}

impl Chain {
    #[track_caller]
    fn start(front: Front, store: &str, options: &str) -> Self {
        Self::edited(front, Launch::new(store), options, &as_it_is)
    }

    #[track_caller]
    fn edited(
        front: Front,
        launch: Launch,
        options: &str,
        edit: &dyn Fn(String) -> String,
    ) -> Self {
        let api = Arc::new(OnceLock::<String>::new());
        let for_app = api.clone();
        let app = Upstream::app(move |asked| answer(asked, for_app.get().map(String::as_str)));
        let fronted = front.start(launch, options, port(&app), edit);
        if ![Front::Envoy, Front::EnvoyProxyWasm].contains(&front) {
            api.set(fronted.asked()).unwrap();
        }
        Self { front, fronted, app }
    }

    fn caller(&self) -> Caller {
        self.fronted.caller()
    }

    /// Returns a caller who has logged in as `user`.
    #[track_caller]
    fn logged_in(&self, user: &str) -> Caller {
        let mut caller = self.caller();
        let reply = caller.get(&format!("/login?user={user}"), NAVIGATION);
        assert_eq!(reply.status, 200, "{:?}: {reply:#?}", self.front);
        assert!(caller.cookie.is_some(), "{:?}: {reply:#?}", self.front);
        caller
    }
}

fn port(app: &Upstream) -> u16 {
    let address = app.address();
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("it has a port")
}

/// The application; `api` is the address of the session API, unless it answers by headers.
fn answer(asked: &Asked, api: Option<&str>) -> Reply {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let told = asked.header("edge-session").unwrap_or("{}");
    let told: Value = serde_json::from_str(told).expect("it is JSON");
    let patch = match path {
        "/login" => json!({ "user": query.strip_prefix("user=") }),
        "/count" => json!({ "count": told["count"].as_u64().unwrap_or(0) + 1 }),
        "/add" => {
            let (key, value) = query.split_once('=').expect("it says what");
            json!({ key: value })
        }
        _ => Value::Null,
    };
    let mut reply = Reply::text(&json!({ "told": told, "changed": patch }).to_string());
    match api {
        _ if patch.is_null() => {}
        None => reply = reply.line(format!("Edge-Session-Merge: {patch}")),
        Some(api) => {
            // Before its own cookies: nginx before 1.23 looks only at the first.
            let own = asked.header("cookie").unwrap_or_default();
            let new = call_session_api(api, asked, own, "PATCH", "/session", Some(&patch));
            if let Some(cookie) = new {
                reply = reply.line(format!("Set-Cookie: {cookie}"));
            }
        }
    }
    for line in asked.head.all("say") {
        reply = reply.line(line);
    }
    reply.line("Set-Cookie: theme=dark; Path=/").line("Set-Cookie: lang=de; Path=/")
}

/// Returns the cookies that a response sets, by their names.
fn cookies(head: &edge_session_tests::Head) -> Vec<&str> {
    let mut names: Vec<_> =
        head.all("set-cookie").iter().map(|it| it.split('=').next().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_visitor_is_counted_logs_in_passes_the_guard_and_logs_out() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.caller();
        for count in 1..4 {
            let reply = caller.get("/count", FETCH).json();
            assert_eq!(reply["changed"], json!({ "count": count }), "{front:?}");
        }

        // A person is sent to log in, with an address to return to; a script gets the status.
        let before = chain.app.count();
        let reply = caller.get("/account?x=1", NAVIGATION);
        assert_eq!(reply.status, 302, "{front:?}: {reply:#?}");
        let to = reply.head.header("location").unwrap_or_default();
        let path = to.strip_prefix(&chain.fronted.url()).unwrap_or(to);
        assert_eq!(path, "/login?return=%2Faccount%3Fx%3D1", "{front:?}");
        assert_eq!(caller.get("/account", FETCH).status, 401, "{front:?}");
        assert_eq!(caller.ask("POST", "/account", FETCH, b"").status, 401, "{front:?}");
        assert_eq!(chain.app.count(), before, "{front:?}: the application hears nothing of it");

        // The login renews the identifier, and keeps the data.
        let anonymous = caller.session_id();
        assert_eq!(caller.get("/login?user=ada", NAVIGATION).status, 200, "{front:?}");
        assert_ne!(caller.session_id(), anonymous, "{front:?}");
        let reply = caller.get("/account", NAVIGATION);
        assert_eq!(reply.status, 200, "{front:?}: {reply:#?}");
        assert_eq!(reply.json()["told"], json!({ "count": 3, "user": "ada" }), "{front:?}");
        let asked = chain.app.last();
        let id = asked.header("edge-session-id").unwrap_or_default();
        if front == Front::Envoy {
            assert_eq!(id, caller.session_id());
        } else {
            // Headers cannot change the session.
            assert_eq!((id, asked.header("remote-user")), ("", Some("ada")), "{front:?}");
        }

        // A page of another site cannot log out.
        let before = chain.app.count();
        let foreign = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: cross-site"];
        assert_eq!(caller.ask("POST", "/logout", &foreign, b"").status, 403, "{front:?}");
        let old = caller.clone();
        let reply = caller.ask("POST", "/logout", NAVIGATION, b"");
        assert!([302, 303].contains(&reply.status), "{front:?}: {reply:#?}");
        let to = reply.head.header("location").unwrap_or_default();
        assert_eq!(to.strip_prefix(&chain.fronted.url()).unwrap_or(to), "/bye", "{front:?}");
        assert_eq!(caller.cookie, None, "{front:?}: {reply:#?}");
        assert_eq!(chain.app.count(), before, "{front:?}");
        assert_eq!(old.clone().get("/account", FETCH).status, 401, "{front:?}: it has ended");
    }
}

#[test]
fn nothing_that_a_visitor_says_reaches_the_application_as_ours() {
    let forged = r#"{"user":"eve"}"#;
    let lines = [
        format!("Edge-Session: {forged}"),
        format!("edge-session: {forged}"),
        format!("Edge_Session: {forged}"),
        format!("Edge.Session: {forged}"),
        format!("Edge!Session: {forged}"),
        format!("Edge~Session: {forged}"),
        "Edge-Session-Id: forged".to_owned(),
        "Edge_Session_Id: forged".to_owned(),
        format!("Edge-Session-Merge: {forged}"),
        "Edge-Session-Action: destroy".to_owned(),
        "Edge-Session-Whatever: 1".to_owned(),
        format!("Connection: close, Edge-Session\r\nEdge-Session: {forged}"),
        "Connection: Edge-Session".to_owned(),
        "Connection: close, edge-session-id".to_owned(),
        "Connection: close\r\nConnection: Remote-User, Edge-Session".to_owned(),
        "Remote-User: eve".to_owned(),
        "remote-user: eve".to_owned(),
        "Remote_User: eve".to_owned(),
        "X-Original-URL: /free".to_owned(),
        "X-Rewrite-URL: /free".to_owned(),
    ];
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        for line in &lines {
            let before = chain.app.count();
            let reply = caller.get("/free", &[line]);
            if chain.app.count() == before {
                let refused = if front == Front::Nginx { 403 } else { 400 };
                assert_eq!(reply.status, refused, "{front:?}: {line}: {reply:#?}");
                continue;
            }
            let asked = chain.app.last();
            let told = asked.header("edge-session");
            assert_eq!(told, Some(r#"{"user":"ada"}"#), "{front:?}: {line}");
            if front != Front::Envoy {
                assert_eq!(asked.header("remote-user"), Some("ada"), "{front:?}: {line}");
            }
            for (name, value) in asked.head.headers() {
                let read =
                    name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                let expected = match &*read {
                    "edge-session" => Some(r#"{"user":"ada"}"#.to_owned()),
                    "edge-session-id" if front == Front::Envoy => Some(caller.session_id()),
                    "edge-session-id" => Some(String::new()),
                    // Envoy leaves it to its own filters.
                    "remote-user" if front == Front::Envoy => continue,
                    "remote-user" => Some("ada".to_owned()),
                    _ if read.starts_with("edge-session") => None,
                    "x-original-url" | "x-rewrite-url" if front == Front::Envoy => None,
                    _ => continue,
                };
                assert_eq!(Some(value.to_owned()), expected, "{front:?}: {line}: {name}");
            }
        }
        // Nor does it say which path is guarded.
        let mut anonymous = chain.caller();
        for line in [
            "X-Forwarded-Uri: /free",
            "X-Original-URI: /free",
            "X-Original-URL: http://x/free",
            "X-Forwarded-Method: OPTIONS\r\nOrigin: http://x\r\nAccess-Control-Request-Method: GET",
            "X-Forwarded-Host: other",
            "X-Rewrite-URL: /free",
        ] {
            let before = chain.app.count();
            let status = anonymous.get("/account", &[line]).status;
            assert!([400, 401, 403].contains(&status), "{front:?}: {line}: {status}");
            assert_eq!(chain.app.count(), before, "{front:?}: {line}");
        }
    }
}

#[test]
fn a_query_with_quotes_and_angle_brackets_passes() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        let reply = caller.get("/account?q=\"<b>\"", FETCH);
        assert_eq!(reply.status, 200, "{front:?}: {reply:#?}");
        assert_eq!(reply.json()["told"]["user"], "ada", "{front:?}");
    }
}

#[test]
fn nothing_of_ours_reaches_a_browser_and_the_applications_cookies_do() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        let reply = caller.get("/free", &["Say: X-Own: 1", "Say: Edge-Session-Id: x"]);
        assert!(!reply.head.has_any("edge-session"), "{front:?}: {reply:#?}");
        assert_eq!(reply.head.header("x-own"), Some("1"), "{front:?}");
        assert_eq!(cookies(&reply.head), ["lang", "theme"], "{front:?}");
        let reply = chain.caller().get("/count", &[]);
        assert_eq!(cookies(&reply.head), ["connect.sid", "lang", "theme"], "{front:?}");
        // A redirect of the guard shows none either.
        let reply = chain.caller().get("/account", NAVIGATION);
        assert!(!reply.head.has_any("edge-session"), "{front:?}: {reply:#?}");
    }
}

#[test]
fn paths_that_can_be_read_in_two_ways_pass_no_guard() {
    let paths = [
        "/account/",
        "//account",
        "/./account",
        "/x/../account",
        "/%61ccount",
        "/ACCOUNT",
        "//x/account",
        "/account%2f..%2ffree",
        "/free/..%2faccount",
        "/free%2f..%2faccount",
        "/account;x=1",
        "/account%00",
        "/%2e/account",
        "/account%ff",
    ];
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let before = chain.app.count();
        for path in paths {
            let status = chain.caller().get(path, FETCH).status;
            let asked = chain.app.asked();
            let passed: Vec<_> = asked[before..].iter().map(|it| &it.target).collect();
            // What the application got is not below the guarded path, however it is read.
            let is_harmless =
                passed.iter().all(|it| it.starts_with("/free") || **it == "/x/account");
            assert!(is_harmless, "{front:?}: {path} arrived as {passed:?} ({status})");
        }
    }
}

#[test]
fn without_edge_session_or_its_store_nobody_passes() {
    for front in Front::ALL {
        let mut chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        let before = chain.app.count();
        chain.fronted.kill_edge();
        let status = caller.get("/free", FETCH).status;
        assert!((500..=504).contains(&status), "{front:?}: {status}");
        assert_eq!(chain.app.count(), before, "{front:?}");
    }
}

#[test]
fn a_websocket_is_opened_with_the_session() {
    for front in Front::ALL {
        let app = Upstream::raw(|call| {
            if call.asked.header("upgrade").is_none() {
                call.reply(Reply::text("ok"));
                return;
            }
            call.say(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: x\r\n\r\nhello",
            );
            if let Ok(bytes) = call.wire.exactly(4) {
                call.say(bytes);
            }
            call.hang_up();
        });
        let fronted = front.start(Launch::new("memory:"), "", port(&app), &as_it_is);
        let mut wire = fronted.wire();
        wire.send(format!(
            "GET /free HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            fronted.url().trim_start_matches("http://")
        ));
        let head = wire.head();
        assert_eq!(head.status(), 101, "{front:?}: {head:#?}");
        assert_eq!(wire.exactly(5).unwrap(), b"hello", "{front:?}");
        wire.send("ping");
        assert_eq!(wire.exactly(4).unwrap(), b"ping", "{front:?}");
        assert_eq!(app.last().header("edge-session"), Some("{}"), "{front:?}");
    }
}
