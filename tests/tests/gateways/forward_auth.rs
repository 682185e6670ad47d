//! What gateways that ask do beyond the answers of edge-session.

use std::process::{Command, Stdio};
use std::time::Duration;

use edge_session_tests::{
    AUTH_TOKEN, Front, Launch, Mongod, Process, Upstream, as_it_is, checkout, wait_for,
};

use super::{Chain, FETCH, NAVIGATION};

#[test]
fn the_cookie_of_a_login_wins_over_that_of_the_question() {
    // With `rolling`, both the question and the API set the session's cookie. In Traefik
    // and with Envoy's ext_authz, the question's wins: docs/gateways.md.
    for front in [Front::Nginx, Front::Caddy, Front::Haproxy] {
        let options = "rolling = true\ncookie.max_age = 3600000";
        let chain = Chain::start(front, "memory:", options);
        let mut caller = chain.caller();
        caller.get("/count", FETCH);
        let anonymous = caller.session_id();
        let reply = caller.get("/free", FETCH);
        assert_eq!(super::cookies(&reply.head), ["connect.sid", "lang", "theme"], "{front:?}");
        assert_eq!(caller.get("/login?user=ada", NAVIGATION).status, 200);
        assert_ne!(caller.session_id(), anonymous, "{front:?}");
        assert_eq!(caller.get("/account", FETCH).status, 200, "{front:?}");
    }
}

#[test]
fn without_an_answer_nobody_passes() {
    for (front, without_store, without_edge) in [
        (Front::EnvoyExtAuthz, 503, 503),
        (Front::Nginx, 500, 500),
        (Front::Caddy, 503, 502),
        (Front::Traefik, 503, 500),
        (Front::Haproxy, 503, 503),
    ] {
        let mongod = Mongod::start();
        let launch = Launch::new(&mongod.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "300");
        let mut chain = Chain::edited(front, launch, "", &as_it_is);
        let mut caller = chain.logged_in("ada");
        let before = chain.app.count();
        mongod.freeze();
        assert_eq!(caller.get("/free", FETCH).status, without_store, "{front:?}: the store");
        mongod.thaw();
        chain.fronted.kill_edge();
        assert_eq!(caller.get("/free", FETCH).status, without_edge, "{front:?}: edge-session");
        assert_eq!(chain.app.count(), before, "{front:?}");
    }
}

#[test]
fn a_session_of_many_kilobytes_reaches_the_application() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        // In parts, since gateways limit the length of a target.
        for part in 0..8 {
            caller.get(&format!("/add?part{part}={}", "x".repeat(5_000)), FETCH);
        }
        let reply = caller.get("/free", FETCH);
        assert_eq!(reply.status, 200, "{front:?}: {reply:#?}");
        let told = chain.app.last().session();
        assert_eq!(told.to_string().matches('x').count(), 40_000, "{front:?}");
    }
}

#[test]
fn the_application_of_the_folder_counts_logs_in_and_is_logged_out() {
    let python = std::env::var_os("EDGE_SESSION_PYTHON").expect("run scripts/setup python");
    for front in Front::ASKING {
        let dir = edge_session_tests::temp_dir("app-");
        let port = edge_session_tests::free_port();
        // A port for the gateway to begin with; the application itself comes later.
        let waiting = Upstream::at(&format!("127.0.0.1:{port}"), |call| {
            call.reply(edge_session_tests::Reply::text("not yet"));
        });
        let fronted = front.start(Launch::new("memory:"), "", port, &as_it_is);
        drop(waiting);
        std::fs::write(dir.path().join("token"), AUTH_TOKEN).unwrap();
        let source = checkout().join("deploy/app.py");
        let source = std::fs::read_to_string(source).unwrap();
        let source = source
            .replace("http://127.0.0.1:9091", &fronted.asked())
            .replace("3000)", &format!("{port})"));
        std::fs::write(dir.path().join("app.py"), source).unwrap();
        let mut app = Command::new(&python);
        app.arg("app.py").current_dir(dir.path());
        app.env("EDGE_SESSION_AUTH_TOKEN_FILE", "token");
        let _app = Process::start(app.stdout(Stdio::null()).stderr(Stdio::null()));
        wait_for("the application to serve", Duration::from_secs(10), || {
            let mut page = ureq::get(format!("http://127.0.0.1:{port}/bye")).call().ok()?;
            (page.body_mut().read_to_string().ok()? == "Good-bye.").then_some(())
        });
        let mut caller = fronted.caller();
        for count in 1..3 {
            let page = caller.get("/", NAVIGATION).text();
            assert_eq!(page, format!("you have visited this page {count} times"), "{front:?}");
        }
        assert_eq!(caller.get("/account", NAVIGATION).status, 302, "{front:?}");
        let form = ["Content-Type: application/x-www-form-urlencoded"];
        let reply = caller.ask("POST", "/login", &form, b"user=ada");
        assert_eq!(reply.status, 303, "{front:?}: {reply:#?}");
        assert_eq!(reply.head.header("cache-control"), Some("no-store"), "{front:?}");
        assert!(caller.get("/account", NAVIGATION).text().contains("Log out"), "{front:?}");
        caller.ask("POST", "/logout", NAVIGATION, b"");
        assert_eq!(caller.cookie, None, "{front:?}");
    }
}

#[test]
fn a_request_of_very_many_headers_passes_no_guard() {
    // HAProxy goes on after a fault of Lua, which too many headers cause.
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let before = chain.app.count();
        for count in 80..105 {
            let own: Vec<_> = (0..count).map(|number| format!("X-P{number}: a")).collect();
            let mut lines: Vec<_> = own.iter().map(String::as_str).collect();
            lines.push(r#"Edge-Session: {"user":"admin"}"#);
            let caller = chain.caller();
            let mut wire = caller.begin("GET", "/account", &lines, b"");
            // Some are not answered at all.
            if let Ok(Some(head)) = wire.try_head() {
                assert!(head.status() >= 400, "{front:?}: {count}: {head:#?}");
            }
        }
        assert_eq!(chain.app.count(), before, "{front:?}");
    }
}

#[test]
fn a_fragment_in_a_target_hides_no_guarded_path() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        for target in ["/free#/../account/x", "/#/../account/x", "/free?a#/../../account"] {
            chain.caller().get(target, FETCH);
        }
        for asked in chain.app.asked() {
            assert!(!asked.target.contains('#'), "{front:?}: {}", asked.target);
        }
    }
}

#[test]
fn a_preflight_does_not_pass_where_its_response_is_not_seen() {
    for front in Front::ASKING {
        let chain = Chain::edited(front, Launch::new("memory:"), "", &as_it_is);
        let before = chain.app.count();
        let lines = ["Origin: https://evil.example", "Access-Control-Request-Method: GET"];
        let status = chain.caller().ask("OPTIONS", "/account", &lines, b"").status;
        assert_eq!((status, chain.app.count()), (401, before), "{front:?}");
    }
}

#[test]
fn a_response_that_depends_on_the_session_says_so_to_caches() {
    // Traefik cannot add to a header of the response.
    for front in Front::ALL.into_iter().chain([Front::EnvoyProxyWasm]) {
        if front == Front::Traefik {
            continue;
        }
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.caller();
        caller.get("/count", FETCH);
        let reply = caller.get("/free", &["Say: Cache-Control: public, max-age=600"]);
        let vary = reply.head.all("vary").join(", ").to_lowercase();
        assert!(vary.contains("cookie"), "{front:?}: {reply:#?}");
    }
}

#[test]
fn who_a_visitor_is_and_which_host_was_meant_is_said_by_the_gateway_alone() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        let lines = [
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Host: evil.example",
            "X-Forwarded-Proto: https",
            "X-Real-IP: 6.6.6.6",
            "Forwarded: for=6.6.6.6;host=evil.example",
        ];
        assert_eq!(caller.get("/free", &lines).status, 200, "{front:?}");
        let asked = chain.app.last();
        for (name, value) in asked.head.headers() {
            // Gateways add to this list; who came last is true.
            let value = match name.eq_ignore_ascii_case("x-forwarded-for") {
                true => value.rsplit(',').next().unwrap_or_default(),
                false => value,
            };
            let is_forged = value.contains("evil") || value.contains("6.6.6.6");
            assert!(!is_forged, "{front:?}: {name}: {value}");
        }
        let proto = asked.header("x-forwarded-proto").unwrap_or_default();
        assert_eq!(proto, "http", "{front:?}");
        let reply = chain.caller().get("/account", &[NAVIGATION[0], lines[1]]);
        let to = reply.head.header("location").unwrap_or_default();
        assert!(!to.contains("evil"), "{front:?}: {to}");
    }
}
