//! The `wasi:http` middleware in `wasmtime serve`, with an application that does what each request
//! says (`tests/wasi-app`).

use std::time::Duration;

use edge_session_tests::{Answer, Caller, SECRET, Served, wait_for};
use serde_json::{Value, json};

fn served(options: &[(&str, &str)]) -> Served {
    let secret = [("EDGE_SESSION_SECRET", SECRET)];
    let env = secret.iter().chain(options);
    Served::start(&env.map(|(name, value)| ((*name).into(), (*value).into())).collect::<Vec<_>>())
}

/// Makes the application respond with these header lines.
#[track_caller]
fn say(caller: &mut Caller, lines: &[&str]) -> Answer {
    let lines: Vec<_> = lines.iter().map(|line| format!("Say: {line}")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let answer = caller.get("/parrot", &lines);
    assert!(!answer.head.has_any("edge-session"), "the visitor sees it: {answer:#?}");
    answer
}

/// Returns what the application receives about the session now.
#[track_caller]
fn told(caller: &mut Caller) -> Value {
    let answer = say(caller, &[]);
    let told = answer.head.header("told-edge-session").expect("the application is told");
    serde_json::from_str(told).expect("it is JSON")
}

#[test]
fn without_a_secret_every_request_fails_and_the_log_says_why() {
    let served = Served::start(&[("EDGE_SESSION_ROLING".to_owned(), "true".to_owned())]);
    let answer = served.caller().get("/", &[]);
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), "Sessions are not configured.\n");
    wait_for("the log", Duration::from_secs(10), || {
        served.log().contains("EDGE_SESSION_ROLING is not an option").then_some(())
    });

    let served = Served::start(&[]);
    assert_eq!(served.caller().get("/", &[]).status, 500);
    wait_for("the log", Duration::from_secs(10), || {
        served.log().contains("EDGE_SESSION_SECRET is missing").then_some(())
    });
}

#[test]
fn an_application_changes_the_session_by_headers() {
    let served = served(&[]);
    let mut caller = served.caller();
    assert_eq!(told(&mut caller), json!({}));
    assert!(caller.cookie.is_none(), "nothing was stored: there is nothing to remember");
    let answer = say(&mut caller, &[r#"Edge-Session: {"name":"Zoë","deep":{"a":1,"b":2}}"#]);
    assert_eq!(answer.head.header("cache-control"), Some("no-store"));
    assert_eq!(told(&mut caller), json!({"name": "Zoë", "deep": {"a": 1, "b": 2}}));
    say(&mut caller, &[r#"Edge-Session-Merge: {"name":null,"deep":{"b":null,"c":3}}"#]);
    assert_eq!(told(&mut caller), json!({"deep": {"a": 1, "c": 3}}));

    let before = caller.clone();
    say(&mut caller, &["Edge-Session-Action: regenerate", r#"Edge-Session-Merge: {"d":4}"#]);
    assert_ne!(caller.session_id(), before.session_id());
    assert_eq!(told(&mut caller), json!({"d": 4}));
    assert_eq!(told(&mut before.clone()), json!({}), "the old identifier leads nowhere");

    let before = caller.clone();
    say(&mut caller, &["Edge-Session-Action: destroy"]);
    assert!(caller.cookie.is_none(), "the cookie is cleared");
    assert_eq!(told(&mut before.clone()), json!({}));
}

#[test]
fn session_headers_never_come_from_visitors() {
    let served = served(&[]);
    let planted = [
        r#"Edge-Session: {"admin":true}"#,
        r#"Edge_Session: {"admin":true}"#,
        "EDGE-SESSION-ID: planted",
        "Connection: close, Edge-Session, Edge-Session-Id",
    ];
    let answer = served.caller().get("/parrot", &planted);
    assert_eq!(answer.head.header("told-edge-session"), Some("{}"));
    assert_ne!(answer.head.header("told-edge-session-id"), Some("planted"));
    assert!(answer.head.header("told-edge_session").is_none(), "{answer:#?}");
}

#[test]
fn session_headers_that_are_not_valid_get_502_and_change_nothing() {
    let served = served(&[]);
    let mut caller = served.caller();
    say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
    for wrong in [
        &["Edge-Session: {"][..],
        &["Edge-Session-Merge: [1]"],
        &["Edge-Session: {}", "Edge-Session-Merge: {}"],
        &["Edge-Session-Action: explode"],
        &["Edge-Session-Marge: {}"],
    ] {
        let answer = say(&mut caller, wrong);
        assert_eq!((answer.status, answer.text().as_str()), {
            (502, "The application sent no valid response.\n")
        });
        assert_eq!(told(&mut caller), json!({"a": 1}), "{wrong:?}");
    }
    // The engine refuses a key that JavaScript's sessions cannot have.
    assert_eq!(say(&mut caller, &[r#"Edge-Session-Merge: {"cookie":{}}"#]).status, 500);
    assert_eq!(told(&mut caller), json!({"a": 1}));
}

#[test]
fn an_answer_with_a_server_error_is_passed_on_and_changes_no_session() {
    let served = served(&[]);
    let mut caller = served.caller();
    say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
    let lines = ["Say-Status: 500", r#"Say: Edge-Session: {"a":2}"#, "Say: X-Mine: 1"];
    let answer = caller.get("/parrot", &lines);
    assert_eq!((answer.status, answer.head.header("x-mine")), (500, Some("1")));
    assert!(!answer.head.has_any("edge-session"));
    assert_eq!(told(&mut caller), json!({"a": 1}));
}

#[test]
fn an_application_cannot_set_the_session_cookie() {
    let served = served(&[]);
    let mut caller = served.caller();
    let answer = say(&mut caller, &["Set-Cookie: connect.sid=mine; Path=/", "Set-Cookie: a=1"]);
    assert_eq!(answer.head.all("set-cookie"), ["a=1"]);
    assert!(caller.cookie.is_none());
}

#[test]
fn a_path_without_sessions_is_passed_on_without_one() {
    let served = served(&[("EDGE_SESSION_COOKIE_PATH", "/app")]);
    let answer = say(&mut served.caller(), &[r#"Edge-Session: {"a":1}"#, "X-Mine: 1"]);
    assert_eq!((answer.status, answer.head.header("x-mine")), (200, Some("1")));
    assert!(!answer.head.has_any("set-cookie"), "{answer:#?}");
    // The application learns from the middleware, and only from it, that there is no session.
    let told = ["told-edge-session-id", "told-edge-session"].map(|name| answer.head.header(name));
    assert_eq!(told, [Some(""), Some("{}")]);
}

#[test]
fn bodies_pass_piece_by_piece() {
    let served = served(&[]);
    let mut wire = served.caller().begin("POST", "/parrot", &["Transfer-Encoding: chunked"], b"");
    for piece in ["first", "second", "third"] {
        wire.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        if piece == "first" {
            assert_eq!(wire.head().status(), 200);
        }
        // The next piece is sent only when this one has arrived.
        assert_eq!(wire.chunk().unwrap(), piece.as_bytes());
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.chunk().unwrap(), b"");
}

#[test]
fn trailers_pass_without_session_headers() {
    let served = served(&[]);
    let lines = ["Transfer-Encoding: chunked", "TE: trailers", "Say: Trailer: X-Sum, Edge-Session"];
    let mut wire = served.caller().begin("POST", "/parrot", &lines, b"");
    wire.send("3\r\nabc\r\n0\r\nX-Sum: 1\r\nEdge-Session: {}\r\nEdge_Session: {}\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[test]
fn answers_without_a_body_keep_their_heads() {
    let served = served(&[]);
    for (method, said, status, length) in
        [("HEAD", "Say: Content-Length: 5", 200, Some("5")), ("GET", "Say-Status: 204", 204, None)]
    {
        let mut wire = served.caller().begin(method, "/parrot", &[said], b"");
        let head = wire.head();
        assert_eq!((head.status(), head.header("content-length")), (status, length));
        assert_eq!(wire.rest(), b"");
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    let served = served(&[]);
    let body: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
    let answer = served.caller().ask("POST", "/parrot", &[], &body);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
}

#[test]
fn the_store_in_keyvalue_keeps_the_promises_of_a_store() {
    let served = served(&[]);
    keeps_the_promises_of_a_store(|asked| {
        let body = asked.to_string();
        served.caller().ask("POST", "/store", &[], body.as_bytes()).json()
    });
}

/// Checks a store that performs the operations passed to `ask` (`tests/wasi-store`).
pub(crate) fn keeps_the_promises_of_a_store(ask: impl Fn(Value) -> Value) {
    let far = 4_000_000_000_000_u64;
    let is = |data: &str, expires: u64| json!({ "data": data, "expires": expires });

    assert_eq!(ask(json!(["load", "a"])), Value::Null);
    assert_eq!(ask(json!(["touch", "a", far])), "missing");
    assert_eq!(ask(json!(["delete", "a", null])), "missing");
    assert_eq!(ask(json!(["replace", "a", "{}", far, "{}"])), "missing");
    assert_eq!(ask(json!(["load", "a"])), Value::Null, "none of them created it");

    assert_eq!(ask(json!(["create", "a", "{\"n\": 1e2}", far])), "done");
    assert_eq!(ask(json!(["create", "a", "{}", far])), "taken");
    assert_eq!(ask(json!(["load", "a"])), is("{\"n\": 1e2}", far), "byte for byte");
    assert_eq!(ask(json!(["touch", "a", far + 1])), "done");
    assert_eq!(ask(json!(["load", "a"])), is("{\"n\": 1e2}", far + 1));

    let conflict = json!({ "conflict": is("{\"n\": 1e2}", far + 1) });
    assert_eq!(ask(json!(["replace", "a", "new", far, "other"])), conflict);
    assert_eq!(ask(json!(["delete", "a", "other"])), conflict);
    assert_eq!(ask(json!(["replace", "a", "new", far, "{\"n\": 1e2}"])), "done");
    assert_eq!(ask(json!(["load", "a"])), is("new", far));
    assert_eq!(ask(json!(["delete", "a", "new"])), "done");
    assert_eq!(ask(json!(["load", "a"])), Value::Null);
    assert_eq!(ask(json!(["replace", "a", "anew", far, null])), "done", "created");
    assert_eq!(ask(json!(["load", "a"])), is("anew", far));

    // A store treats an expired session as missing.
    assert_eq!(ask(json!(["touch", "a", 1])), "done");
    assert_eq!(ask(json!(["load", "a"])), Value::Null);
    assert_eq!(ask(json!(["create", "a", "again", 1])), "done");
    assert_eq!(ask(json!(["replace", "a", "new", far, "again"])), "missing");
    assert_eq!(ask(json!(["touch", "a", far])), "missing");
    assert_eq!(ask(json!(["create", "a", "again", far])), "done");
}
