//! Streamed bodies through the gateway, and connections that switch protocols.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use edge_session_tests::{Launch, Reply, Upstream, wait_for};
use serde_json::json;

const MIB: usize = 1 << 20;

/// Returns this many bytes, no two sections of which are equal.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 16).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn events_arrive_one_by_one() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        call.say(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        for event in 0..3 {
            let text = format!("data: {event}\n\n");
            call.say(format!("{:x}\r\n{text}\r\n", text.len()));
            let _ = may_go_on.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        call.say("0\r\n\r\n");
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.caller().begin("GET", "/", &[], b"");
    assert_eq!(wire.head().header("content-type"), Some("text/event-stream"));
    for event in 0..3 {
        // The next one is sent only when this one has arrived.
        assert_eq!(wire.chunk().unwrap(), format!("data: {event}\n\n").as_bytes());
        go_on.send(()).unwrap();
    }
    assert_eq!(wire.chunk().unwrap(), b"");
    server.stop();
}

#[test]
fn a_visitor_who_leaves_ends_the_stream_of_the_application() {
    let (gone, is_gone) = channel();
    let gone = Mutex::new(gone);
    let upstream = Upstream::raw(move |call| {
        call.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        let end = call.wire.some();
        gone.lock().unwrap().send(end.is_err() || end.is_ok_and(|end| end.is_empty())).unwrap();
        call.hang_up();
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.caller().begin("GET", "/", &[], b"");
    wire.head();
    wire.chunk().unwrap();
    wire.close();
    drop(wire);
    assert_eq!(is_gone.recv_timeout(Duration::from_secs(10)), Ok(true));
    server.stop();
}

#[test]
fn large_bodies_pass_both_ways_without_being_kept() {
    const LENGTH: usize = 64 * MIB;
    let upstream = Upstream::app(|asked| Reply::new(200).body(&asked.body));
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let body = pattern(LENGTH);
    let mut caller = server.caller();
    // The fixed cost of an exchange is paid before.
    assert_eq!(caller.ask("POST", "/", &[], &body[..MIB]).body, body[..MIB]);
    let before = server.memory("VmHWM");
    assert!(caller.ask("POST", "/", &[], &body).body == body, "the body is another");
    let grown = server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more for a body of {} KiB", LENGTH / 1024);

    // The same in chunks, and with a slow receiver.
    let mut wire = server.wire();
    let mut half = wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(MIB + 13) {
        half = half.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
    }
    half.send("0\r\n\r\n");
    assert!(wire.answer().body == body, "the body is another");
    let grown = server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more for a body of {} KiB", LENGTH / 1024);
    server.stop();
}

#[test]
fn a_sender_is_held_up_while_the_receiver_is() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        let _ = may_go_on.lock().unwrap().recv_timeout(Duration::from_secs(20));
        call.read_body().unwrap();
        let length = call.asked.body.len().to_string();
        call.reply(Reply::text(&length));
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let before = server.memory("VmHWM");
    let mut wire = server.wire();
    let length = 48 * MIB;
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    let sending = thread::spawn(move || {
        wire.send(pattern(length));
        wire.answer().text()
    });
    // Long enough to send all of it, if it were received.
    thread::sleep(Duration::from_millis(500));
    assert!(!sending.is_finished());
    go_on.send(()).unwrap();
    assert_eq!(sending.join().unwrap(), length.to_string());
    let grown = server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more for a body of {} KiB", length / 1024);
    server.stop();
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::raw(|call| {
        call.read_body().unwrap();
        call.say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n",
        );
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.wire();
    wire.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Check\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 7\r\n\r\n",
    );
    let answer = wire.answer();
    let trailer = |all: &[(String, String)], name: &str| {
        let found = all.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(answer.text(), "ok");
    assert_eq!(trailer(&answer.trailers, "x-sum").as_deref(), Some("42"), "{answer:#?}");
    let asked = upstream.last();
    assert_eq!(asked.body, b"abc");
    assert_eq!(asked.header("te"), Some("trailers"));
    assert_eq!(trailer(&asked.trailers, "x-check").as_deref(), Some("7"), "{asked:#?}");
    server.stop();
}

#[test]
fn a_body_is_asked_for_only_when_it_is_wanted() {
    let upstream = Upstream::app(|asked| Reply::new(200).body(&asked.body));
    let config = "[limits]\nbody_bytes = 100\n[[guard]]\npaths = [\"/no\"]\ndeny = true";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let ask = |path: &str, length: usize| {
        let mut wire = server.wire();
        wire.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        ));
        wire
    };
    let mut wire = ask("/", 5);
    assert_eq!(wire.head().status(), 100);
    assert_eq!(wire.send("hello").answer().text(), "hello");
    assert_eq!(upstream.last().header("expect"), None);
    for (path, length, status) in [("/no", 5, 403), ("/", 101, 413), ("/a/../b", 5, 400)] {
        assert_eq!(ask(path, length).head().status(), status, "{path}");
    }
    server.stop();
}

#[test]
fn answers_without_a_body_stay_so() {
    let upstream = Upstream::raw(|call| match &*call.asked.target {
        "/head" => call.say("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        "/304" => call.say("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        "/old" => {
            call.say("HTTP/1.0 200 OK\r\n\r\nuntil the end");
            call.hang_up();
        }
        _ => call.say("HTTP/1.1 204 No Content\r\n\r\n"),
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.wire();
    wire.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\nGET /204 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.head().header("content-length"), Some("1234"));
    assert_eq!(wire.head().status(), 204, "right behind the head");
    wire.send("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.head();
    assert_eq!((head.status(), head.header("etag")), (304, Some("\"x\"")));
    let mut caller = server.caller();
    assert_eq!(caller.get("/old", &[]).text(), "until the end");
    server.stop();
}

#[test]
fn early_hints_arrive_before_the_response() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        call.say(
            "HTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\
             Set-Cookie: a=b\r\nEdge-Session: {}\r\nConnection: close\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nX-Other: 1\r\n\r\n",
        );
        if call.asked.target == "/slow" {
            let _ = may_go_on.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        call.say("HTTP/1.1 200 OK\r\nEdge-Session: {\"a\":1}\r\nContent-Length: 2\r\n\r\nok");
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.wire();
    for target in ["/slow", "/slow"] {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let hints = wire.head();
        let all: Vec<_> = hints.headers().collect();
        assert_eq!(hints.status(), 103, "{target}");
        assert_eq!(all, [("link", "</a.css>; rel=preload"), ("link", "</b.js>")], "no others");
        let _ = go_on.send(());
        let answer = wire.answer();
        assert_eq!((answer.status, &*answer.text()), (200, "ok"));
        assert!(answer.head.header("set-cookie").is_some());
    }
    // HTTP/1.0 knows none (RFC 9110, section 15.2).
    let _ = go_on.send(());
    wire.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(wire.head().status(), 200);
    server.stop();
}

/// hyper takes the next request before the client has read the last response, if its body came late.
#[test]
fn early_hints_are_never_inside_another_response() {
    const REQUESTS: usize = 100;
    let upstream = Upstream::raw(|call| {
        call.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        thread::sleep(Duration::from_millis(5));
        let large = format!("X-Large: {}\r\n", "x".repeat(100_000));
        call.say(format!("HTTP/1.1 200 OK\r\n{large}Content-Length: 0\r\n\r\n"));
        let _ = call.read_body();
    });
    let config = "[limits]\nbuffer_bytes = 0\n";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut wire = server.wire();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    wire.send(head);
    for _ in 1..REQUESTS {
        thread::sleep(Duration::from_millis(15));
        wire.send(format!("x{head}"));
    }
    wire.send("x");
    let mut answers = 0;
    while answers < REQUESTS {
        let head = wire.head();
        match head.status() {
            103 => assert_eq!(head.header("link"), Some("</a>")),
            status => {
                assert_eq!((status, head.header("x-large").map(str::len)), (200, Some(100_000)));
                answers += 1;
            }
        }
    }
    server.stop();
}

#[test]
fn early_hints_do_not_pass_a_guard_with_a_preflight() {
    let upstream = Upstream::raw(|call| {
        call.say("HTTP/1.1 103 Early Hints\r\nLink: </private>\r\n\r\n");
        thread::sleep(Duration::from_millis(50));
        call.reply(Reply::text("secret").line("Access-Control-Allow-Origin: *"));
    });
    let config = "[[guard]]\npaths = [\"/account\"]\nrequire = \"/user\"\npreflights = true\n";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let lines = ["Origin: http://b", "Access-Control-Request-Method: GET"];
    let head = server.caller().begin("OPTIONS", "/account", &lines, b"").head();
    assert_eq!((head.status(), head.header("link")), (200, None));
    server.stop();
}

#[test]
fn early_hints_that_are_too_large_or_too_many_are_left_out() {
    let upstream = Upstream::raw(|call| {
        let hints =
            |length| format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "a".repeat(length));
        call.say(hints(20_000) + &hints(1_000).repeat(50));
        thread::sleep(Duration::from_millis(100));
        call.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut count = 0;
    loop {
        let head = wire.head();
        if head.status() == 200 {
            break;
        }
        assert!(head.header("link").unwrap().len() < 2_000);
        count += 1;
    }
    assert!((1..=50).contains(&count), "{count} hints");
    assert_eq!(wire.exactly(2).unwrap(), b"ok");
    server.stop();
}

#[test]
fn a_websocket_passes_and_is_guarded_and_has_the_session() {
    // The key and its response are those of RFC 6455, section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let upstream = Upstream::raw(|call| {
        if call.asked.header("upgrade") != Some("websocket") {
            return call.reply(call.asked.parrot());
        }
        assert_eq!(call.asked.header("sec-websocket-key"), Some(KEY));
        let name = call.asked.session()["name"].as_str().unwrap_or("nobody").to_owned();
        call.say(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\nEdge-Session-Merge: {{\"sockets\":1}}\r\n\r\n"
        ));
        // A text frame: FIN and opcode 1, and a length below 126.
        call.say([&[0x81, name.len() as u8], name.as_bytes()].concat());
        while let Ok(bytes) = call.wire.some() {
            if bytes.is_empty() {
                break;
            }
            call.say(bytes);
        }
        call.hang_up();
    });
    let config = "[timeouts]\nresponse_ms = 2000\n\
                  [[guard]]\npaths = [\"/socket\"]\nrequire = \"/name\"";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut caller = server.caller();
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let handshake = [
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        &key,
    ];
    assert_eq!(caller.begin("GET", "/socket", &handshake, b"").head().status(), 401);

    caller.get("/", &[r#"Say: Edge-Session: {"name":"Ada"}"#]);
    let mut socket = caller.begin("GET", "/socket", &handshake, b"");
    let head = socket.head();
    assert_eq!(head.status(), 101, "{head:#?}");
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
    assert!(head.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert!(!head.has_any("edge-session"), "{head:#?}");
    assert_eq!(socket.exactly(5).unwrap(), b"\x81\x03Ada");
    assert_eq!(server.metric("edge_session_tunnels"), 1);
    assert_eq!(caller.get("/", &[]).json()["sockets"], 1, "saved before the protocol changed");
    for payload in [b"\x81\x82\x01\x02\x03\x04ik".to_vec(), pattern(MIB / 4)] {
        socket.send(&payload[..payload.len() / 2]);
        socket.send(&payload[payload.len() / 2..]);
        assert!(socket.exactly(payload.len()).unwrap() == payload);
    }
    socket.finish();
    assert_eq!(socket.rest(), b"");
    server.stop();
}

#[test]
fn a_visitor_who_leaves_gives_the_application_back_unless_it_has_begun_to_answer() {
    let (gone, is_gone) = channel();
    let gone = Mutex::new(gone);
    let app = Upstream::raw(move |call| match call.asked.target.as_str() {
        "/slow" => {
            let end = call.wire.some();
            gone.lock().unwrap().send(end.is_ok_and(|end| end.is_empty())).unwrap();
            call.hang_up();
        }
        "/begun" => {
            call.say(
                "HTTP/1.1 200 OK\r\nEdge-Session-Merge: {\"last\":\"begun\"}\r\n\
                 Content-Length: 1000000\r\n\r\nx",
            );
            let _ = call.wire.some();
            call.hang_up();
        }
        _ => {
            let reply = call.asked.parrot();
            call.reply(reply);
        }
    });
    let server = Launch::new("memory:").upstream(&app.url()).start();
    let mut caller = server.caller();
    caller.get("/", &["Say: Edge-Session: {\"last\":\"first\"}"]);

    let mut wire = caller.begin("GET", "/slow", &[], b"");
    wait_for("it to arrive", Duration::from_secs(5), || {
        app.asked().iter().any(|asked| asked.target == "/slow").then_some(())
    });
    wire.close();
    assert_eq!(is_gone.recv_timeout(Duration::from_secs(10)), Ok(true), "nobody waits for it");
    assert_eq!(caller.get("/", &[]).json(), json!({"last": "first"}));

    let mut wire = caller.begin("GET", "/begun", &[], b"");
    wait_for("the change to be saved", Duration::from_secs(5), || {
        (caller.get("/", &[]).json() == json!({"last": "begun"})).then_some(())
    });
    wire.close();
    server.stop();
}

#[test]
fn who_sends_slowly_holds_no_application() {
    let app = Upstream::app(|asked| Reply::new(200).body(&asked.body));
    let config = "[limits]\nbuffer_bytes = 1000";
    let server = Launch::new("memory:").upstream(&app.url()).config(config).start();
    for head in
        ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let mut slow = server.wire();
        slow.send(format!("POST /slow HTTP/1.1\r\nHost: a\r\n{head}"));
        let before = app.count();
        for _ in 0..10 {
            assert_eq!(server.caller().get("/", &[]).status, 200);
        }
        assert_eq!(app.count(), before + 10, "the slow one has not arrived");
        let rest = if head.contains("chunked") { "5\r\nworld\r\n0\r\n\r\n" } else { "world" };
        assert_eq!(slow.send(rest).answer().text(), "helloworld");
    }
    // A body that exceeds the buffer is streamed.
    let mut large = server.wire();
    large.send("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 2001\r\n\r\n");
    large.send(pattern(2000));
    wait_for("it to arrive", Duration::from_secs(5), || {
        app.received().iter().any(|all| all.contains("/large")).then_some(())
    });
    assert_eq!(large.send("x").answer().body.len(), 2001);
    server.stop();
}

#[test]
fn the_body_of_a_get_arrives_whatever_its_form() {
    let app = Upstream::app(|asked| Reply::new(200).body(&asked.body));
    for config in ["", "[limits]\nbuffer_bytes = 0"] {
        let server = Launch::new("memory:").upstream(&app.url()).config(config).start();
        for method in ["GET", "OPTIONS", "DELETE", "POST"] {
            for length in [5, 200_000] {
                let body = pattern(length);
                let mut wire = server.wire();
                let chunked = "Transfer-Encoding: chunked";
                wire.send(format!(
                    "{method} / HTTP/1.1\r\nHost: a\r\n{chunked}\r\n\r\n{length:x}\r\n"
                ));
                wire.send(&body).send("\r\n0\r\n\r\n");
                assert!(wire.answer().body == body, "{method} {length} {config}");
                let mut wire = server.wire();
                let counted = format!("Content-Length: {length}");
                wire.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{counted}\r\n\r\n"))
                    .send(&body);
                assert!(wire.answer().body == body, "{method} {length} {config}");
            }
        }
        server.stop();
    }
}
