//! Queries with bytes that `http::Uri` refuses, and bytes elsewhere that look like them.

use std::time::Duration;

use edge_session_tests::{Launch, Reply, Server, Upstream, wait_for};

const QUERY: &str = "/?q=\"<a&b>\"&name=Zo\u{eb}";
const ESCAPED: &str = "/?q=%22%3Ca&b%3E%22&name=Zo\u{eb}";

fn pair(config: &str) -> (Upstream, Server) {
    let upstream = Upstream::app(|asked| Reply::text(&asked.target));
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    (upstream, server)
}

#[test]
fn quotes_and_angle_brackets_reach_the_application_escaped() {
    let (_upstream, server) = pair("");
    let mut wire = server.wire();
    for head in [
        format!("GET {QUERY} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("\r\nGET {QUERY} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET http://a{QUERY} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("POST {QUERY} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        format!("GET {QUERY} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        assert_eq!(wire.send(&head).answer().text(), ESCAPED, "{head}");
    }
    // Ahead of time.
    let line = format!("GET {QUERY} HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.send(line.repeat(3));
    (0..3).for_each(|_| assert_eq!(wire.answer().text(), ESCAPED));
    // In pieces.
    for byte in format!("GET {QUERY} HTTP/1.1\r\nHost: a\r\n\r\n").bytes() {
        wire.send([byte]);
    }
    assert_eq!(wire.answer().text(), ESCAPED);
    // What does not fit into one buffer.
    let many = "\"".repeat(3_000);
    let head = format!("GET /?{many} HTTP/1.1\r\nHost: a\r\nX: \"<>\"\r\n\r\n");
    assert_eq!(wire.send(head).answer().text(), format!("/?{}", "%22".repeat(3_000)));
    server.stop();
}

#[test]
fn in_a_path_they_are_refused_as_before() {
    let (upstream, server) = pair("");
    for target in ["/<", "/a>b?c"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(server.wire().send(head).answer().status, 400, "{target}");
    }
    assert_eq!(upstream.count(), 0);
    server.stop();
}

#[test]
fn headers_bodies_and_websockets_that_look_like_requests_stay_as_they_are() {
    let line = format!("GET {QUERY} HTTP/1.1\r\nHost: a\r\n\r\n");
    let upstream = Upstream::raw(|call| {
        if call.asked.header("upgrade").is_some() {
            call.say(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\n\r\n",
            );
            while let Ok(bytes) = call.wire.some() {
                if bytes.is_empty() {
                    break;
                }
                call.wire.send(bytes);
            }
        } else if call.read_body().is_ok() {
            call.reply(Reply::new(200).body(&call.asked.body));
        }
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.wire();
    for _ in 0..2 {
        wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", line.len()));
        wire.send("X: /?q=\"<a>\"\r\n\r\n").send(&line);
        assert_eq!(wire.answer().text(), line);
        assert_eq!(upstream.last().header("x"), Some("/?q=\"<a>\""));
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(format!("{:x}\r\n", line.len())).send(&line).send("\r\n0\r\n\r\n");
        assert_eq!(wire.answer().text(), line);
    }
    wire.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(wire.head().status(), 101);
    wire.send(&line);
    assert_eq!(wire.exactly(line.len()).unwrap(), line.as_bytes());
    server.stop();
}

/// Escaping makes bytes longer: a body that nobody reads would end later than its length says.
#[test]
fn a_body_that_the_application_does_not_read_becomes_no_request() {
    let upstream = Upstream::raw(|call| {
        call.reply(Reply::text("early"));
        call.hang_up();
    });
    let config = "[limits]\nbuffer_bytes = 0\n";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let line = format!("GET /smuggled{QUERY} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(20);
    let mut wire = server.wire();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", line.len());
    assert_eq!(wire.send(head).answer().text(), "early");
    let _ = wire.try_send(&line);
    let _ = wire.try_send("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // Answered, or closed because the body was not read.
    let _ = wire.rest();
    wait_for("the requests", Duration::from_secs(10), || (upstream.count() > 0).then_some(()));
    let asked = upstream.asked();
    assert!(asked.iter().all(|it| !it.target.contains("smuggled")), "{asked:#?}");
    server.stop();
}

/// The application responds before it has the body, and the next request comes before the response.
#[test]
fn bodies_that_come_late_or_ahead_of_time_become_no_requests() {
    let upstream = Upstream::raw(|call| {
        call.reply(Reply::text("early"));
        let _ = call.read_body();
    });
    let config = "[limits]\nbuffer_bytes = 0\n";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nXX: 1\r\n\r\n";
    // As many bytes more, if they are escaped, as the smuggled request has.
    let body = format!("GET /?{} {smuggled}", "\"".repeat(smuggled.len() / 2));
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..50 {
        let mut wire = server.wire();
        for _ in 0..20 {
            // A connection may be closed because a body was not read.
            if wire.try_send(&head).is_err() || wire.try_answer().is_err() {
                break;
            }
            let _ = wire.try_send(&body);
        }
    }
    // The end of the second head is in the same piece as its body.
    for at in 1..4 {
        let (begin, end) = head.split_at(head.len() - at);
        let mut wire = server.wire();
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{begin}")).answer();
        wire.send([end, &body].concat());
        let _ = wire.try_answer();
    }
    let asked = upstream.asked();
    assert!(asked.len() > 50);
    assert!(asked.iter().all(|it| it.target == "/"), "{asked:#?}");
    server.stop();
}
