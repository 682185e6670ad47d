//! The session headers that the gateway and an application exchange.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use edge_session_tests::{Caller, Launch, Reply, Server, Upstream, wait_for};
use serde_json::{Value, json};

fn gateway(upstream: &Upstream, config: &str) -> Server {
    Launch::new("memory:").upstream(&upstream.url()).config(config).start()
}

/// Makes the application of [`Upstream::parrot`] respond with these header lines.
#[track_caller]
fn say(caller: &mut Caller, lines: &[&str]) {
    let lines: Vec<_> = lines.iter().map(|line| format!("Say: {line}")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let answer = caller.get("/", &lines);
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert!(!answer.head.has_any("edge-session"), "the visitor sees it: {answer:#?}");
}

/// Returns what the application receives about the session now.
#[track_caller]
fn told(caller: &mut Caller) -> Value {
    caller.get("/", &[]).json()
}

#[test]
fn an_application_is_told_the_session_and_changes_it_by_headers() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "");
    let mut caller = server.caller();

    assert_eq!(told(&mut caller), json!({}));
    assert!(caller.cookie.is_none(), "nothing was stored: there is nothing to remember");
    say(&mut caller, &[r#"Edge-Session: {"name":"Ada","n":[1,2],"deep":{"a":1,"b":2}}"#]);
    assert_eq!(told(&mut caller), json!({"name": "Ada", "n": [1, 2], "deep": {"a": 1, "b": 2}}));
    assert_eq!(upstream.last().header("edge-session-id"), Some(&*caller.session_id()));

    // RFC 7396: null removes a key, objects are merged, and all else replaces the old value.
    say(
        &mut caller,
        &[r#"Edge-Session-Merge: {"name":null,"n":"x","deep":{"b":null,"c":{"d":null,"e":3}}}"#],
    );
    assert_eq!(told(&mut caller), json!({"n": "x", "deep": {"a": 1, "c": {"e": 3}}}));

    say(&mut caller, &[r#"Edge-Session: {"only":"this"}"#]);
    assert_eq!(told(&mut caller), json!({"only": "this"}));
    say(&mut caller, &["Edge-Session: {}"]);
    assert_eq!(told(&mut caller), json!({}));

    // Without any of the headers, nothing changes.
    say(&mut caller, &[r#"Edge-Session-Merge: {"a":1}"#]);
    say(&mut caller, &[]);
    assert_eq!(told(&mut caller), json!({"a": 1}));
    server.stop();
}

#[test]
fn an_application_destroys_and_regenerates_and_touches_sessions() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "rolling = true\n[cookie]\nmax_age = 60000");
    let mut caller = server.caller();
    say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
    let first = caller.clone();

    say(&mut caller, &["Edge-Session-Action: touch"]);
    assert_eq!(caller.session_id(), first.session_id());
    assert_eq!(told(&mut caller), json!({"a": 1}));

    // A new identifier, and only the data sent with the action.
    say(&mut caller, &["Edge-Session-Action: regenerate", r#"Edge-Session-Merge: {"b":2}"#]);
    assert_ne!(caller.session_id(), first.session_id());
    assert_eq!(told(&mut caller), json!({"b": 2}));
    assert_eq!(told(&mut first.clone()), json!({}), "the old identifier leads nowhere");

    let before = caller.clone();
    say(&mut caller, &["Edge-Session-Action: destroy"]);
    assert!(caller.cookie.is_none(), "the cookie is cleared");
    assert_eq!(told(&mut before.clone()), json!({}));
    server.stop();
}

#[test]
fn who_logs_in_gets_a_new_identifier() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "[gateway]\nidentity = \"/passport/user\"");
    let mut caller = server.caller();
    say(&mut caller, &[r#"Edge-Session: {"cart":[1]}"#]);
    let planted = caller.clone();
    say(&mut caller, &[r#"Edge-Session-Merge: {"passport":{"user":"ada"}}"#]);
    assert_ne!(caller.session_id(), planted.session_id());
    assert_eq!(told(&mut caller), json!({"cart": [1], "passport": {"user": "ada"}}));
    assert_eq!(told(&mut planted.clone()), json!({}), "the old cookie works no more");

    // While the identity stays the same, the identifier does too, whatever else changes.
    let before = caller.session_id();
    say(&mut caller, &[r#"Edge-Session-Merge: {"passport":{"user":"ada"},"cart":null}"#]);
    assert_eq!(caller.session_id(), before);
    // Logging out, and logging in as another user, also change the identity.
    say(&mut caller, &[r#"Edge-Session: {"passport":{"user":"eve"}}"#]);
    let as_eve = caller.session_id();
    assert_ne!(as_eve, before);
    say(&mut caller, &[r#"Edge-Session-Merge: {"passport":null}"#]);
    assert_ne!(caller.session_id(), as_eve);
    server.stop();
}

#[test]
fn who_logs_in_gets_a_new_identifier_whatever_serde_can_read() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "[gateway]\nidentity = \"/passport/user\"");
    let mut caller = server.caller();
    let mut now = |data: &str| {
        say(&mut caller, &[&format!("Edge-Session: {data}")]);
        caller.session_id()
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let beside = |user: &str| format!(r#"{{"passport":{{"user":{user},"note":"\ud800"}}}}"#);
    let below = |user: &str| format!(r#"{{"passport":{{"user":{user},"deep":{deep}}}}}"#);
    let own = |user: &str| format!(r#"{{"passport":{{"user":{user}}}}}"#);
    for [one, other] in [
        [beside(r#""eve""#), beside(r#""ada""#)],
        [below(r#""eve""#), below(r#""ada""#)],
        [own(r#""\ud800eve""#), own(r#""\ud800ada""#)],
        ["{}".to_owned(), own(r#""\ud800""#)],
    ] {
        let planted = now(&one);
        assert_eq!(now(&one), planted, "nobody logs in: {one}");
        assert_ne!(now(&other), planted, "{one} becomes {other}");
    }
    server.stop();
}

#[test]
fn session_headers_never_come_from_visitors() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "");
    let mut caller = server.caller();
    let answer = caller.get(
        "/",
        &[
            r#"Edge-Session: {"admin":true}"#,
            r#"edge-session: {"admin":true}"#,
            "EDGE-SESSION-ID: planted",
            "Edge-Session-Action: destroy",
            "Edge-Session-Whatever: x",
            "Edge-Sessions: x",
        ],
    );
    assert_eq!(answer.json(), json!({}));
    let asked = upstream.last();
    let ours = asked.head.headers.iter().filter(|(name, _)| name.starts_with("edge-session"));
    let mut names: Vec<_> = ours.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["edge-session", "edge-session-id"]);
    assert_ne!(asked.header("edge-session-id"), Some("planted"));
    assert!(!asked.head.headers.iter().any(|(_, value)| value.contains("admin")), "{asked:#?}");
    assert_eq!(server.metric("edge_session_stripped_total"), 1);

    // The hop-by-hop mechanism cannot remove them either.
    let answer = caller.get("/", &["Connection: close, Edge-Session, Edge-Session-Id"]);
    assert_eq!(answer.json(), json!({}));
    server.stop();
}

#[test]
fn a_connection_header_takes_nothing_away_that_applications_rely_on() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "");
    let listed = "Connection: close, Host, X-Request-Id, X-Forwarded-For, X-Forwarded-Proto, \
                  X-Forwarded-Host, Content-Length, X-Mine";
    let mut caller = server.caller();
    say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
    let lines = [listed, "X-Mine: 1", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"];
    caller.ask("POST", "/", &lines, b"12345");
    let asked = upstream.last();
    assert_eq!(asked.header("x-mine"), None, "what is this connection's own goes no further");
    assert_eq!(asked.body, b"12345");
    assert_eq!(asked.session(), json!({"a": 1}));
    assert_eq!(asked.header("host"), Some(&*server.address()));
    assert_eq!(asked.header("x-forwarded-host"), Some(&*server.address()));
    assert!(asked.header("x-request-id").is_some());
    assert_eq!(asked.header("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    server.stop();
}

#[test]
fn an_application_cannot_set_the_session_cookie_itself() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "");
    let mut caller = server.caller();
    let answer = caller.get(
        "/",
        &[
            "Say: Set-Cookie: connect.sid=planted; Path=/",
            "Say: Set-Cookie: theme=dark; Path=/",
            r#"Say: Edge-Session: {"a":1}"#,
        ],
    );
    let cookies = answer.head.all("set-cookie");
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies.contains(&"theme=dark; Path=/"), "{cookies:?}");
    assert!(!answer.head.headers.iter().any(|(_, value)| value.contains("planted")));
    assert_eq!(told(&mut caller), json!({"a": 1}));
    // The hint about what to do is logged once.
    caller.get("/", &["Say: Set-Cookie: connect.sid=planted; Path=/"]);
    assert_eq!(server.log().matches("gateway.sessions = ").count(), 1, "{}", server.log());
    server.stop();
}

#[test]
fn the_session_cookie_reaches_applications_unless_it_is_hidden() {
    let upstream = Upstream::parrot();
    for (config, is_hidden) in [("", false), ("[gateway]\nhide_cookie = true", true)] {
        let server = gateway(&upstream, config);
        let mut caller = server.caller();
        say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
        let pair = format!("connect.sid={}", caller.cookie.take().unwrap());
        let line = format!("Cookie: a=1; {pair}; b=2");
        assert_eq!(caller.get("/", &[&line]).json(), json!({"a": 1}));
        let cookies = upstream.last().head.all("cookie").join("; ");
        assert_eq!(cookies.contains(&pair), !is_hidden, "{cookies}");
        assert!(cookies.contains("a=1") && cookies.contains("b=2"), "{cookies}");
        caller.get("/", &[&format!("Cookie: {pair}")]);
        assert_eq!(upstream.last().header("cookie"), (!is_hidden).then_some(&*pair));
        server.stop();
    }
}

#[test]
fn an_answer_with_session_headers_that_are_none_is_refused_and_changes_nothing() {
    const SECRET: &str = "hunter2";
    let upstream = Upstream::app(|asked| match &*asked.target {
        "/latin1" => Reply::new(200).line(b"Edge-Session: {\"a\":\"hunter2\xe9\"}"),
        _ => asked.parrot(),
    });
    let server = gateway(&upstream, "");
    let mut caller = server.caller();
    say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
    let cases: &[&[&str]] = &[
        &["Say: Edge-Session: {\"a\": hunter2"],
        &["Say: Edge-Session: [\"hunter2\"]"],
        &["Say: Edge-Session: \"hunter2\""],
        &["Say: Edge-Session: null"],
        &["Say: Edge-Session:"],
        &["Say: Edge-Session: {\"a\":\"hunter2\"} x"],
        &["Say: Edge-Session-Merge: [\"hunter2\"]"],
        &["Say: Edge-Session-Merge: {\"a\":hunter2}"],
        &["Say: Edge-Session: {\"a\":\"hunter2\"}", "Say: Edge-Session-Merge: {}"],
        &["Say: Edge-Session: {\"a\":\"hunter2\"}", "Say: Edge-Session: {\"a\":\"hunter2\"}"],
        &["Say: Edge-Session-Merge: {\"a\":\"hunter2\"}", "Say: edge-session-merge: {}"],
        &["Say: Edge-Session-Action: hunter2"],
        &["Say: Edge-Session-Action: DESTROY, touch"],
        &["Say: Edge-Session-Action: destroy", "Say: Edge-Session-Action: destroy"],
        &["Say: Edge-Session-Action: destroy", "Say: Edge-Session: {\"a\":\"hunter2\"}"],
        &["Say: Edge-Session-Foo: hunter2", "Say: Edge-Session: {\"a\":\"hunter2\"}"],
    ];
    let before = caller.cookie.clone();
    for lines in cases {
        let answer = caller.get("/", lines);
        assert_eq!(answer.status, 502, "{lines:?}: {answer:#?}");
        assert!(!answer.head.has_any("edge-session"), "{answer:#?}");
        assert!(!answer.text().contains(SECRET), "{answer:#?}");
        assert_eq!(told(&mut caller), json!({"a": 1}), "{lines:?}");
    }
    assert_eq!(caller.get("/latin1", &[]).status, 502);
    assert_eq!(told(&mut caller), json!({"a": 1}));
    assert_eq!(caller.cookie, before);

    assert_eq!(server.refused("bad-session-headers"), cases.len() as u64 + 1);
    let log = server.log();
    assert!(log.matches("WARN").count() > cases.len(), "{log}");
    assert!(!log.contains(SECRET), "a value of a session is in the log:\n{log}");
    server.stop();
}

#[test]
fn a_failed_answer_changes_nothing_unless_it_is_configured() {
    let upstream = Upstream::parrot();
    for (config, saves) in [("", false), ("[gateway]\nsave_failed = true", true)] {
        let server = gateway(&upstream, config);
        let mut caller = server.caller();
        say(&mut caller, &[r#"Edge-Session: {"a":1}"#]);
        for status in [500, 503] {
            let say_status = format!("Say-Status: {status}");
            let lines = [&*say_status, r#"Say: Edge-Session-Merge: {"a":2}"#];
            let answer = caller.get("/", &lines);
            assert_eq!(answer.status, status);
            assert!(!answer.head.has_any("edge-session"), "{answer:#?}");
            let expected = if saves { 2 } else { 1 };
            assert_eq!(told(&mut caller), json!({"a": expected}), "{status}");
        }
        // With a 4xx status, the change is applied as usual.
        caller.get("/", &["Say-Status: 404", r#"Say: Edge-Session-Merge: {"a":4}"#]);
        assert_eq!(told(&mut caller), json!({"a": 4}));
        // An invalid header counts with any status.
        let answer = caller.get("/", &["Say-Status: 500", "Say: Edge-Session: x"]);
        assert_eq!(answer.status, 502);
        server.stop();
    }
}

#[test]
fn no_value_of_a_session_becomes_a_header() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "");
    let mut caller = server.caller();
    // Values that JSON escapes are stored as their text, and are returned unchanged.
    let values = [
        r#""a\r\nX-Evil: 1\r\n\r\nGET /evil HTTP/1.1""#,
        r#""\u000d\u000aX-Evil: 1""#,
        r#""\u0000\u0007\u007f\u0085\u2028""#,
        r#""\"}\\\",\"x\":1""#,
        r#""\ud83d\ude00 Zo\u00eb""#,
        "\"\u{1f600} Zo\u{eb}\"",
    ];
    for value in values {
        say(&mut caller, &[&format!(r#"Edge-Session: {{"v":{value}}}"#)]);
        let expected: Value = serde_json::from_str(&format!(r#"{{"v":{value}}}"#)).unwrap();
        assert_eq!(told(&mut caller), expected, "{value}");
        let asked = upstream.last();
        assert!(!asked.head.has_any("x-evil"), "{asked:#?}");
        let text = asked.header("edge-session").unwrap();
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    }
    // The same for keys.
    say(&mut caller, &["Edge-Session: {\"k\\r\\nX-Evil: 1\u{1f600}\":1}"]);
    assert_eq!(told(&mut caller), json!({ "k\r\nX-Evil: 1\u{1f600}": 1 }));
    assert!(!upstream.last().head.has_any("x-evil"));
    // JSON.stringify writes a lone surrogate like this; it is JSON, but not Unicode text.
    say(&mut caller, &[r#"Edge-Session: {"half":"\ud800","a":1}"#]);
    assert_eq!(caller.get("/", &[]).text(), r#"{"half":"\ud800","a":1}"#);
    // It does not affect other keys.
    say(&mut caller, &[r#"Edge-Session-Merge: {"a":2}"#]);
    assert_eq!(caller.get("/", &[]).text(), r#"{"half":"\ud800","a":2}"#);
    assert!(upstream.received().iter().all(|bytes| !bytes.contains("\nGET /evil")));
    server.stop();
}

#[test]
fn a_session_is_saved_before_the_headers_leave() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        if call.asked.target != "/slow" {
            return call.reply(call.asked.parrot());
        }
        call.say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
             Edge-Session: {\"slow\":true}\r\n\r\n5\r\nfirst\r\n",
        );
        let _ = may_go_on.lock().unwrap().recv_timeout(Duration::from_secs(20));
        call.say("4\r\nlast\r\n0\r\n\r\n");
    });
    let server = gateway(&upstream, "");
    let mut caller = server.caller();
    let mut wire = caller.begin("GET", "/slow", &[], b"");
    let head = wire.head();
    assert!(!head.has_any("edge-session"), "{head:#?}");
    caller.take_in(&head);
    assert_eq!(wire.chunk().unwrap(), b"first");
    assert_eq!(told(&mut caller), json!({"slow": true}), "while the first body is going on");
    go_on.send(()).unwrap();
    assert_eq!(wire.chunk().unwrap(), b"last");
    assert_eq!(wire.chunk().unwrap(), b"");
    server.stop();
}

#[test]
fn no_trailer_carries_a_session() {
    let upstream = Upstream::raw(|call| {
        call.read_body().unwrap();
        call.say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum, Edge-Session, Edge-Session-Merge\r\n\r\n2\r\nok\r\n0\r\n\
             X-Sum: 1\r\nEdge-Session: {\"a\":1}\r\nEdge-Session-Merge: {}\r\n\r\n",
        );
    });
    let server = gateway(&upstream, "");
    let mut wire = server.wire();
    wire.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: X-Sum, Edge-Session\r\n\r\n1\r\nx\r\n0\r\n\
         X-Sum: 1\r\nEdge-Session: {\"admin\":true}\r\n\r\n",
    );
    let answer = wire.answer();
    let is_ours = |(name, _): &&(String, String)| name.to_lowercase().starts_with("edge-session");
    let asked = upstream.last();
    assert_eq!(asked.trailers.iter().find(is_ours), None, "from the visitor");
    assert_eq!(answer.trailers.iter().find(is_ours), None, "to the visitor");
    server.stop();
}

#[test]
fn a_connection_header_of_an_application_hides_no_change_of_the_session() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream, "");
    let mut caller = server.caller();
    say(&mut caller, &["Connection: Edge-Session", r#"Edge-Session: {"a":1}"#]);
    assert_eq!(told(&mut caller), json!({"a": 1}));
    server.stop();
}

/// Returns names that CGI, PHP and WSGI read as session headers, or as other relevant headers.
fn spellings() -> Vec<String> {
    let names = [
        "Edge?Session",
        "Edge-Session?Id",
        "Edge?Session-Action",
        "X?Forwarded?For",
        "X-Forwarded?Proto",
        "X?Real?IP",
        "X?Original?URL",
        "X?Request?Id",
        "Transfer?Encoding",
        "Content?Length",
        "Sec?Fetch?Site",
    ];
    let others = "_.!#$%&'*+^`|~".chars();
    others.flat_map(|c| names.map(|name| name.replace('?', &c.to_string()))).collect()
}

#[test]
fn no_client_is_believed_who_spells_a_header_in_another_way() {
    let app = Upstream::parrot();
    let server = Launch::new("memory:").upstream(&app.url()).start();
    for names in spellings().chunks(50) {
        let lines: Vec<_> = names.iter().map(|name| format!("{name}: {{\"user\":1}}")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(server.caller().get("/", &lines).status, 200);
        let asked = app.last();
        for name in names {
            assert!(asked.head.all(name).is_empty(), "{name} reached the application");
        }
        assert_eq!(asked.session(), json!({}));
    }
    // Unrelated names pass.
    server.caller().get("/", &["api_key: 1", "X.Y: 2"]);
    assert_eq!((app.last().header("api_key"), app.last().header("x.y")), (Some("1"), Some("2")));
    server.stop();
}

#[test]
fn no_trailer_looks_like_a_header_that_matters() {
    let app = Upstream::parrot();
    let server = gateway(&app, "");
    for names in spellings().chunks(40) {
        let mut wire = server.wire();
        let fields: String = names.iter().map(|name| format!("{name}: 1\r\n")).collect();
        let list = names.join(", ");
        wire.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
             Trailer: X-Sum, {list}\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n{fields}\r\n"
        ));
        assert_eq!(wire.answer().status, 200);
        let trailers = app.last().trailers;
        assert_eq!(trailers.len(), 1, "{trailers:?}");
    }
    server.stop();
}

#[test]
fn every_request_to_an_application_has_the_session_headers() {
    let app = Upstream::parrot();
    let config = "[cookie]\npath = \"/app\"\n[gateway]\nhealth_path = \"/health\"\n\
                  health_interval_ms = 20";
    let server = gateway(&app, config);
    let mut caller = server.caller();
    caller.get("/app/x", &["Say: Edge-Session: {\"a\":1}"]);
    for (target, data, has_id) in [("/app/x", json!({"a": 1}), true), ("/y", json!({}), false)] {
        caller.get(target, &["Edge.Session: {\"b\":2}"]);
        let asked = app.last_of(target);
        assert_eq!(asked.head.all("edge-session").len(), 1, "{target}");
        assert_eq!(asked.session(), data, "{target}");
        let id = asked.header("edge-session-id").expect("an identifier, or an empty one");
        assert_eq!(!id.is_empty(), has_id, "{target}");
    }
    let asked = wait_for("a health check", Duration::from_secs(5), || {
        app.asked().into_iter().find(|asked| asked.target == "/health")
    });
    assert_eq!(
        (asked.header("edge-session"), asked.header("edge-session-id")),
        (Some("{}"), Some(""))
    );
    server.stop();
}

#[test]
fn nobody_changes_what_a_request_is_for_behind_the_guards() {
    let app = Upstream::parrot();
    // Every client on this machine is a trusted proxy.
    let server = gateway(&app, "[[guard]]\npaths = [\"/internal\"]\ndeny = true");
    let lines = [
        "X-Original-URL: /internal",
        "X-Rewrite-URL: /internal",
        "X-Original-URI: /internal",
        "Script-Name: /x",
        "SCRIPT_NAME: /x",
        "PATH_INFO: /internal",
        "X-Script-Name: /x",
        "Proxy: http://127.0.0.1:1",
    ];
    assert_eq!(server.caller().get("/x/internal", &lines).status, 200);
    let asked = app.last();
    for line in lines {
        let name = line.split(':').next().unwrap();
        assert!(asked.head.all(name).is_empty(), "{name} reached the application");
    }
    server.stop();
}

#[test]
fn what_depends_on_a_session_is_kept_from_shared_caches() {
    let upstream = Upstream::parrot();
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut caller = server.caller();
    let said = |answer: &edge_session_tests::Answer, name: &str| {
        answer.head.all(name).iter().map(|it| it.to_string()).collect::<Vec<_>>().join(", ")
    };
    // Without a session, anyone may receive the same response.
    let public = "Say: Cache-Control: public, max-age=60, s-maxage=600";
    let answer = caller.get("/", &[public]);
    assert_eq!(said(&answer, "cache-control"), "public, max-age=60, s-maxage=600");
    assert_eq!(said(&answer, "vary"), "");
    // With a new cookie.
    let answer = caller.get("/", &[public, "Say: Vary: Accept", "Say: Edge-Session: {\"a\":1}"]);
    assert!(answer.head.header("set-cookie").is_some());
    assert_eq!(said(&answer, "cache-control"), "private, max-age=60");
    assert_eq!(said(&answer, "vary"), "Accept, Cookie");
    // A response that depends on the session.
    let answer = caller.get("/", &["Say: Cache-Control: max-age=60"]);
    assert_eq!(said(&answer, "vary"), "Cookie");
    let answer = caller.get("/", &["Say: Vary: accept, cookie"]);
    assert_eq!(said(&answer, "vary"), "accept, cookie");
    server.stop();
}
