//! Envoy with the proxy-wasm filter.

use edge_session_tests::{Front, Launch, Mongod, as_it_is};
use serde_json::json;

use super::{Chain, FETCH, cookies};

fn chain() -> Chain {
    Chain::start(Front::EnvoyProxyWasm, "memory:", "")
}

#[test]
fn the_filter_counts_and_keeps_the_applications_cookies() {
    let chain = chain();
    let mut caller = chain.caller();
    let first = caller.get("/count", FETCH);
    assert_eq!(cookies(&first.head), ["connect.sid", "lang", "theme"]);
    for count in 2..5 {
        let reply = caller.get("/count", &["Say: X-Own: 1"]);
        assert_eq!(reply.json()["changed"], json!({ "count": count }));
        assert_eq!(cookies(&reply.head), ["lang", "theme"]);
        assert!(!reply.head.has_any("edge-session"), "{reply:#?}");
        assert_eq!(reply.head.header("x-own"), Some("1"));
    }
    assert_eq!(chain.app.last().header("edge-session-id"), Some(&*caller.session_id()));
    // The application cannot set the session's cookie itself.
    let reply = caller.get("/free", &["Say: Set-Cookie: connect.sid=own"]);
    assert_eq!(cookies(&reply.head), ["lang", "theme"]);
    let old = caller.session_id();
    caller.get("/free", &["Say: Edge-Session-Action: regenerate", r#"Say: Edge-Session: {"n":1}"#]);
    assert_ne!(caller.session_id(), old);
    caller.get("/free", &["Say: Edge-Session-Action: destroy"]);
    assert_eq!(caller.cookie, None);
}

#[test]
fn what_a_visitor_says_does_not_pass_the_filter() {
    let chain = chain();
    let mut caller = chain.caller();
    caller.get("/count", FETCH);
    for line in [
        r#"Edge-Session: {"user":"eve"}"#,
        r#"edge_session: {"user":"eve"}"#,
        r#"Edge.Session: {"user":"eve"}"#,
        "Edge-Session-Id: forged",
        "Edge_Session_Id: forged",
        r#"Edge-Session-Merge: {"user":"eve"}"#,
    ] {
        assert_eq!(caller.get("/free", &[line]).status, 200, "{line}");
        let asked = chain.app.last();
        let ours: Vec<_> = asked
            .head
            .headers()
            .filter(|(name, _)| name.to_ascii_lowercase().starts_with("edge"))
            .collect();
        let id = caller.session_id();
        assert_eq!(ours.len(), 2, "{line}: {ours:?}");
        assert_eq!(asked.header("edge-session"), Some(r#"{"count":1}"#), "{line}");
        assert_eq!(asked.header("edge-session-id"), Some(&*id), "{line}");
    }
}

#[test]
fn an_invalid_answer_is_502_and_a_failed_one_changes_nothing() {
    let chain = chain();
    let mut caller = chain.caller();
    caller.get("/count", FETCH);
    let reply = caller.get("/free", &["Say: Edge-Session: no json"]);
    assert_eq!(reply.status, 502);
    assert!(!reply.head.has_any("edge-session"), "{reply:#?}");
    assert_eq!(caller.get("/free", FETCH).json()["told"], json!({ "count": 1 }));
}

#[test]
fn parallel_changes_are_all_kept() {
    let chain = chain();
    let mut caller = chain.caller();
    caller.get("/count", FETCH);
    std::thread::scope(|scope| {
        for number in 0..32 {
            let mut one = caller.clone();
            scope.spawn(move || {
                let target = format!("/add?k{number}=x");
                assert_eq!(one.get(&target, FETCH).status, 200);
            });
        }
    });
    let told = caller.get("/free", FETCH).json()["told"].clone();
    assert_eq!(told.as_object().unwrap().len(), 33, "{told}");
}

#[test]
fn without_its_store_the_filter_answers_503() {
    let mongod = Mongod::start();
    let launch = Launch::new(&mongod.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "300");
    let mut chain = Chain::edited(Front::EnvoyProxyWasm, launch, "", &as_it_is);
    let mut caller = chain.caller();
    caller.get("/count", FETCH);
    let before = chain.app.count();
    mongod.freeze();
    assert_eq!(caller.get("/count", FETCH).status, 503);
    mongod.thaw();
    chain.fronted.kill_edge();
    assert_eq!(caller.get("/count", FETCH).status, 503);
    assert_eq!(chain.app.count(), before);
}

#[test]
fn a_configuration_that_is_not_valid_lets_nobody_pass_and_the_log_says_why() {
    let edit = |text: String| text.replace("\"proxy\": true", "\"rolling\": \"hunter2\"");
    let started = std::panic::catch_unwind(|| {
        Chain::edited(Front::EnvoyProxyWasm, Launch::new("memory:"), "", &edit)
    });
    // Envoy refuses to start with it.
    let Err(why) = started else { panic!("it started") };
    let why = why.downcast_ref::<String>().expect("it is a text");
    assert!(why.contains("rolling") && !why.contains("hunter2"), "{why}");
}
