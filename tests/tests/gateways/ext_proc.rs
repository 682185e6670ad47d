//! Envoy with external processing: what can be configured wrongly, and what must pass unchanged.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use edge_session_tests::{
    Front, Launch, Mongod, ReplicaSet, Reply, Upstream, as_it_is, free_port, new_certificate,
    temp_dir, wait_for,
};
use mongodb::bson::doc;
use serde_json::json;

use super::{Chain, FETCH, NAVIGATION, port};

#[test]
fn an_application_changes_and_ends_its_session_by_headers() {
    let chain = Chain::start(Front::Envoy, "memory:", "");
    let mut caller = chain.logged_in("ada");
    caller.get("/free", &[r#"Say: Edge-Session-Merge: {"a":{"b":1}}"#]);
    let reply = caller.get("/free", FETCH);
    assert_eq!(reply.json()["told"], json!({ "user": "ada", "a": { "b": 1 } }));
    let old = caller.session_id();
    caller.get("/free", &["Say: Edge-Session-Action: regenerate", r#"Say: Edge-Session: {"n":1}"#]);
    assert_ne!(caller.session_id(), old);
    let reply = caller.get("/free", &["Say: Edge-Session-Action: destroy"]);
    assert_eq!((reply.status, &caller.cookie), (200, &None), "{reply:#?}");
}

#[test]
fn an_invalid_session_header_of_the_application_is_502_and_changes_nothing() {
    let chain = Chain::start(Front::Envoy, "memory:", "");
    let mut caller = chain.logged_in("ada");
    for line in [
        "Say: Edge-Session: no json",
        "Say: Edge-Session-Action: explode",
        "Say: Edge-Session-Unknown: 1",
    ] {
        let reply = caller.get("/free", &[line, "Accept: text/html"]);
        assert_eq!(reply.status, 502, "{line}");
        assert!(reply.text().contains("sent no valid response"), "the page is ours: {reply:#?}");
        assert!(!reply.head.has_any("edge-session"), "{reply:#?}");
    }
    assert_eq!(caller.get("/free", FETCH).json()["told"], json!({ "user": "ada" }));
    assert_eq!(
        chain.fronted.edge().metric("edge_session_refused_total{reason=\"bad-session-headers\"}"),
        3
    );
}

#[test]
fn a_response_that_is_sent_slowly_and_a_request_body_pass_as_they_are() {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let app = Upstream::raw(move |call| {
        let _ = call.read_body();
        let body = call.asked.body.clone();
        call.say("HTTP/1.1 200 OK\r\nEdge-Session-Merge: {\"a\":1}\r\nTransfer-Encoding: chunked\r\n\r\n");
        if call.asked.target == "/slow" {
            call.say("5\r\nfirst\r\n");
            let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
            call.say("4\r\nlast\r\n0\r\n\r\n");
        } else {
            call.say(format!("{:x}\r\n", body.len()));
            call.say(&body);
            call.say("\r\n0\r\n\r\n");
        }
    });
    let fronted = Front::Envoy.start(Launch::new("memory:"), "", port(&app), &as_it_is);
    let mut caller = fronted.caller();
    let large = vec![b'x'; 3 << 20];
    let reply = caller.ask("POST", "/echo", FETCH, &large);
    assert_eq!(reply.status, 200);
    assert!(reply.body == large, "{} bytes", reply.body.len());

    // The first part arrives before the last one is sent, and the session is stored by then.
    let mut wire = caller.begin("GET", "/slow", &[], b"");
    assert_eq!(wire.head().status(), 200);
    assert_eq!(wire.chunk().unwrap(), b"first");
    assert_eq!(caller.get("/echo", FETCH).status, 200);
    assert_eq!(app.last().session(), json!({ "a": 1 }));
    go.send(()).unwrap();
    assert_eq!(wire.chunk().unwrap(), b"last");
}

#[test]
fn bodies_that_envoy_sends_are_left_alone_and_the_log_says_so() {
    for mode in ["STREAMED", "BUFFERED"] {
        let edit = |text: String| {
            text.replace("request_body_mode: NONE", &format!("request_body_mode: {mode}"))
                .replace("response_body_mode: NONE", &format!("response_body_mode: {mode}"))
        };
        let chain = Chain::edited(Front::Envoy, Launch::new("memory:"), "", &edit);
        let mut caller = chain.caller();
        for count in 1..4 {
            let reply = caller.ask("POST", "/count", FETCH, b"some body");
            assert_eq!(reply.status, 200, "{mode}");
            assert_eq!(reply.json()["changed"]["count"], json!(count), "{mode}");
            assert_eq!(chain.app.last().body, b"some body", "{mode}");
        }
        let log = chain.fronted.edge().log();
        assert_eq!(
            log.matches("request_body_mode and response_body_mode to NONE").count(),
            1,
            "{log}"
        );
    }
}

#[test]
fn bodies_that_envoy_sends_and_waits_for_are_refused_and_the_log_says_so() {
    let edit = |text: String| {
        text.replace("request_body_mode: NONE", "request_body_mode: FULL_DUPLEX_STREAMED")
            .replace("response_body_mode: NONE", "response_body_mode: FULL_DUPLEX_STREAMED")
            // Envoy requires it.
            .replace("response_trailer_mode: SKIP", "response_trailer_mode: SEND")
    };
    let app = Upstream::parrot();
    let fronted = Front::Envoy.start(Launch::new("memory:"), "", port(&app), &edit);
    assert!(fronted.caller().ask("POST", "/", FETCH, b"some body").status >= 500);
    assert_eq!(app.count(), 0);
    let log = fronted.edge().log();
    assert!(log.contains("in FULL_DUPLEX_STREAMED"), "{log}");
}

/// Envoy repeats a request behind external processing: its session is loaded and stored once.
#[test]
fn a_request_that_envoy_repeats_changes_the_session_once() {
    let tries = AtomicUsize::new(0);
    let app = Upstream::raw(move |call| {
        let told = call.asked.session();
        let count = told["count"].as_u64().unwrap_or(0) + 1;
        let status = if tries.fetch_add(1, Relaxed) % 3 < 2 { 503 } else { 200 };
        call.reply(
            Reply::new(status)
                .line(format!("Edge-Session-Merge: {{\"count\":{count}}}"))
                .body(count.to_string()),
        );
    });
    let edit = |text: String| {
        text.replace(
            "timeout: 60s",
            "timeout: 60s, retry_policy: { retry_on: 5xx, num_retries: 2 }",
        )
    };
    let fronted = Front::Envoy.start(Launch::new("memory:"), "", port(&app), &edit);
    let mut caller = fronted.caller();
    let before = app.count();
    for count in 1..4 {
        let reply = caller.get("/", FETCH);
        assert_eq!((reply.status, &*reply.text()), (200, &*count.to_string()));
        assert_eq!(app.count(), before + 3 * count);
    }
}

#[test]
fn without_allow_mode_override_headers_of_responses_must_be_sent() {
    let skipping =
        |text: String| text.replace("response_header_mode: SEND", "response_header_mode: SKIP");
    // It is asked for.
    let chain = Chain::edited(Front::Envoy, Launch::new("memory:"), "", &skipping);
    let mut caller = chain.caller();
    for count in 1..3 {
        assert_eq!(caller.get("/count", FETCH).json()["changed"]["count"], json!(count));
    }
    // It cannot be asked for: nothing is stored, and the log says why.
    let neither = |text: String| {
        skipping(text).replace("allow_mode_override: true", "allow_mode_override: false")
    };
    let chain = Chain::edited(Front::Envoy, Launch::new("memory:"), "", &neither);
    let mut caller = chain.caller();
    for _ in 0..20 {
        assert_eq!(caller.get("/count", FETCH).json()["changed"]["count"], json!(1));
    }
    wait_for("the log to say so", Duration::from_secs(5), || {
        chain.fronted.edge().log().contains("response_header_mode").then_some(())
    });
}

#[test]
fn a_client_without_http2_is_told_so() {
    let chain = Chain::start(Front::Envoy, "memory:", "");
    let address = chain.fronted.asked().trim_start_matches("http://").to_owned();
    let reply = chain.fronted.edge().caller_at(&address).get("/", &[]);
    assert_eq!(reply.status, 505);
    assert!(chain.fronted.edge().log().contains("http2_protocol_options"));
}

#[test]
fn envoy_asks_about_its_health() {
    // Without a healthy host, Envoy answers with 503, and the gateway would not become ready.
    let edit = |text: String| {
        let check = "    - name: edge_session\n      \
                     common_lb_config: { healthy_panic_threshold: { value: 0 } }\n      \
                     health_checks:\n        \
                     - timeout: 1s\n          interval: 0.2s\n          no_traffic_interval: 0.2s\n          healthy_threshold: 1\n          \
                     unhealthy_threshold: 1\n          grpc_health_check: {}";
        text.replace("    - name: edge_session", check)
    };
    let mongod = Mongod::start();
    let launch = Launch::new(&mongod.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "500");
    let chain = Chain::edited(Front::Envoy, launch, "", &edit);
    assert_eq!(chain.caller().get("/free", FETCH).status, 200);
    mongod.freeze();
    // The whole edge-session is left, not only the visitors who have sessions.
    wait_for("Envoy to leave it", Duration::from_secs(20), || {
        (chain.caller().get("/free", FETCH).status == 503).then_some(())
    });
    mongod.thaw();
    wait_for("Envoy to come back", Duration::from_secs(20), || {
        (chain.caller().get("/free", FETCH).status == 200).then_some(())
    });
}

#[test]
fn a_message_timeout_below_the_stores_deadline_is_logged() {
    let mongod = Mongod::start();
    let edit = |text: String| text.replace("message_timeout: 10s", "message_timeout: 0.3s");
    let chain = Chain::edited(Front::Envoy, Launch::new(&mongod.url()), "", &edit);
    let mut caller = chain.logged_in("ada");
    mongod.freeze();
    assert_eq!(caller.get("/free", FETCH).status, 504, "that is Envoy's answer");
    wait_for("the log to say so", Duration::from_secs(5), || {
        chain.fronted.edge().log().contains("message_timeout").then_some(())
    });
    mongod.thaw();
}

#[test]
fn session_headers_in_a_visitors_trailers_do_not_pass() {
    let edit = |text: String| {
        text.replace(
            "stat_prefix: visitors\n",
            "stat_prefix: visitors\n                http_protocol_options: { enable_trailers: true }\n",
        )
        .replace(
            "    - name: application\n      connect_timeout: 2s\n",
            "    - name: application\n      connect_timeout: 2s\n      \
             typed_extension_protocol_options:\n        \
             envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n          \
             explicit_http_config: { http_protocol_options: { enable_trailers: true } }\n",
        )
    };
    let chain = Chain::edited(Front::Envoy, Launch::new("memory:"), "", &edit);
    let caller = chain.caller();
    let headers = ["Transfer-Encoding: chunked", "Trailer: X-Own"];
    let mut wire = caller.begin("POST", "/free", &headers, b"");
    wire.send("3\r\nabc\r\n0\r\nX-Own: 1\r\nEdge-Session: {\"user\":\"eve\"}\r\nedge_session_id: x\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
    let asked = chain.app.last();
    assert_eq!(asked.body, b"abc");
    let names: Vec<_> = asked.trailers.iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(names, ["x-own"]);
    assert_eq!(asked.session(), json!({}));
}

#[test]
fn what_a_guard_answers_is_a_page_for_a_person_and_a_problem_for_a_script() {
    let chain = Chain::start(Front::Envoy, "memory:", "");
    let reply = chain.caller().get("/account", FETCH);
    assert_eq!(reply.head.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.json()["status"], 401);
    assert!(reply.head.header("x-request-id").is_some());
    let reply = chain.caller().ask("POST", "/account", NAVIGATION, b"x=1");
    assert_eq!(reply.status, 401);
    assert!(reply.text().starts_with("<!DOCTYPE html>"), "{}", reply.text());
    // HEAD has no body.
    let mut wire = chain.caller().begin("HEAD", "/account", &[], b"");
    assert_eq!(wire.head().status(), 401);
    assert!(wire.rest().is_empty());
}

#[test]
fn a_primary_that_freezes_and_one_that_dies_cost_no_acknowledged_change() {
    const VISITORS: usize = 8;
    const VISITS: usize = 150;
    let mongodb = ReplicaSet::start();
    let chain = Chain::edited(Front::Envoy, Launch::new(&mongodb.url()), "", &as_it_is);
    let acknowledged = AtomicUsize::new(0);
    let visit = || {
        let mut caller = chain.caller();
        let (mut last, mut since) = (0, Instant::now());
        while acknowledged.load(Relaxed) < 3 * VISITS {
            let reply = caller.get("/count", FETCH);
            if reply.status != 200 {
                assert!([503, 504].contains(&reply.status), "{reply:#?}");
                assert!(since.elapsed() < Duration::from_secs(40), "no answer for so long");
                continue;
            }
            let count = reply.json()["changed"]["count"].as_u64().unwrap();
            assert!(count > last, "an acknowledged visit was lost: {count} after {last}");
            (last, since) = (count, Instant::now());
            acknowledged.fetch_add(1, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..VISITORS {
            scope.spawn(visit);
        }
        let wait_until = |count| {
            wait_for("visits", Duration::from_secs(60), || {
                (acknowledged.load(Relaxed) >= count).then_some(())
            });
        };
        wait_until(VISITS);
        mongodb.freeze_primary(|| wait_until(2 * VISITS));
        mongodb.kill_primary();
        wait_until(3 * VISITS);
    });
}

#[test]
fn a_change_is_stored_to_its_end_although_the_visitor_has_left() {
    let mongod = Mongod::start();
    let chain = Chain::edited(Front::Envoy, Launch::new(&mongod.url()), "", &as_it_is);
    let mut caller = chain.logged_in("ada");
    // A renewal is two writes: the visitor leaves during the first.
    mongod.admin(doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 500 },
    });
    let wire = caller.begin("GET", "/login?user=bob", NAVIGATION, b"");
    mongod.admin(doc! {
        "waitForFailPoint": "failCommand",
        "timesEntered": 1,
        "maxTimeMS": 10_000,
    });
    drop(wire);
    wait_for("the old session to end", Duration::from_secs(10), || {
        (caller.get("/free", FETCH).json()["told"]["user"] != "ada").then_some(())
    });
}

#[test]
fn envoy_reaches_edge_session_by_a_unix_socket_and_by_tls() {
    let dir = temp_dir("ext-proc-");
    let own = "socket_address: { address: 127.0.0.1, port_value: 9092 }";
    let socket = dir.path().join("s").display().to_string();
    let by_socket = |text: String| text.replace(own, &format!("pipe: {{ path: {socket} }}"));
    let launch =
        Launch::new("memory:").env("EDGE_SESSION_EXT_PROC_LISTEN", &format!("unix:{socket}"));
    let chain = Chain::edited(Front::Envoy, launch, "", &by_socket);
    assert_eq!(chain.caller().get("/count", FETCH).json()["changed"]["count"], json!(1));
    drop(chain);

    new_certificate(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let by_tls = |text: String| {
        let tls = format!(
            "    - name: edge_session\n      transport_socket:\n        \
             name: envoy.transport_sockets.tls\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n          \
             sni: localhost\n          common_tls_context:\n            alpn_protocols: [h2]\n            \
             validation_context: {{ trusted_ca: {{ filename: {} }} }}",
            file("certificate.pem")
        );
        text.replace("    - name: edge_session", &tls)
    };
    let launch = Launch::new("memory:")
        .env("EDGE_SESSION_TLS_CERTIFICATE", &file("certificate.pem"))
        .env("EDGE_SESSION_TLS_KEY", &file("key.pem"));
    let chain = Chain::edited(Front::Envoy, launch, "", &by_tls);
    assert_eq!(chain.caller().get("/count", FETCH).json()["changed"]["count"], json!(1));
}

#[test]
fn one_edge_session_serves_several_envoys() {
    let first = Chain::start(Front::Envoy, "memory:", "");
    let asked = first.fronted.asked().rsplit_once(':').unwrap().1.to_owned();
    // Its own edge-session is not asked.
    let edit = |text: String| text.replace("port_value: 9092", &format!("port_value: {asked}"));
    let second = Chain::edited(Front::Envoy, Launch::new("memory:"), "", &edit);
    let mut one = first.logged_in("ada");
    let mut other = second.caller();
    other.cookie = one.cookie.clone();
    assert_eq!(other.get("/account", FETCH).json()["told"], json!({ "user": "ada" }));
    assert_eq!(other.get("/count", FETCH).status, 200);
    assert_eq!(one.get("/free", FETCH).json()["told"], json!({ "user": "ada", "count": 1 }));
}

#[test]
fn an_envoy_that_only_observes_is_an_error_in_the_log() {
    let edit = |text: String| text.replace("allow_mode_override: true", "observability_mode: true");
    let chain = Chain::edited(Front::Envoy, Launch::new("memory:"), "", &edit);
    assert_eq!(chain.caller().get("/account", FETCH).status, 200, "nothing is guarded");
    wait_for("the log to say so", Duration::from_secs(5), || {
        chain.fronted.edge().log().contains("observability_mode").then_some(())
    });
}

#[test]
fn external_processing_that_is_sent_to_auth_listen_passes_nobody_and_is_an_error_in_the_log() {
    let auth = free_port();
    let edit = |text: String| text.replace("9092", &auth.to_string());
    let options = format!("auth.listen = \"127.0.0.1:{auth}\"");
    let chain = Chain::edited(Front::Envoy, Launch::new("memory:"), &options, &edit);
    let before = chain.app.count();
    for path in ["/account", "/free"] {
        assert_eq!(chain.caller().get(path, FETCH).status, 503, "{path}");
    }
    assert_eq!(chain.app.count(), before, "nothing passes");
    let log = chain.fronted.edge().log();
    assert!(log.contains("give it the address in ext_proc.listen"), "{log}");
}

#[test]
fn of_two_edge_sessions_in_a_row_the_outer_one_says_why_nobody_can_log_in() {
    let app = Upstream::parrot();
    let inner = Launch::new("memory:").upstream(&app.url()).start();
    let port = inner.address().rsplit_once(':').unwrap().1.parse().unwrap();
    let outer = Front::Envoy.start(Launch::new("memory:"), "", port, &as_it_is);
    let mut caller = outer.caller();
    caller.get("/", &[r#"Say: Edge-Session: {"user":"ada"}"#]);
    assert_eq!(caller.cookie, None);
    assert!(outer.edge().log().contains("nobody can log in there"), "{}", outer.edge().log());
}
