//! One process takes over from another during traffic.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use edge_session_tests::{
    Caller, Database, Head, Launch, Reply, Server, Upstream, Wire, count_in, free_port, wait_for,
};

const CLIENTS: usize = 12;
const LIMIT: Duration = Duration::from_secs(30);

/// An application that counts visits in the session that the gateway sends.
fn counter() -> Upstream {
    Upstream::app(|asked| {
        let count = asked.session()["viewCount"].as_u64().unwrap_or(0) + 1;
        Reply::text(&format!("you have visited this page {count} times"))
            .line(format!("Edge-Session-Merge: {{\"viewCount\":{count}}}"))
    })
}

/// A visitor who keeps a connection open as long as the server does, as browsers do.
struct Regular {
    caller: Caller,
    address: String,
    wire: Option<Wire>,
}

impl Regular {
    fn visit(&mut self, is_post: bool) -> Result<u64, String> {
        let wire = self.wire.get_or_insert_with(|| Wire::open(&*self.address));
        let cookie = self.caller.cookie.as_deref().unwrap_or_default();
        let common = format!("Host: a\r\nCookie: connect.sid={cookie}\r\n");
        let request = match is_post {
            true => format!("POST / HTTP/1.1\r\n{common}Content-Length: 5\r\n\r\nhello"),
            false => format!("GET / HTTP/1.1\r\n{common}\r\n"),
        };
        wire.try_send(request).map_err(|error| error.to_string())?;
        let answer = wire.try_answer().map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("{answer:#?}"));
        }
        self.caller.take_in(&answer.head);
        if closes(&answer.head) {
            self.wire = None;
        }
        Ok(count_in(&answer.text()))
    }
}

fn closes(head: &Head) -> bool {
    head.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"))
}

#[test]
fn a_new_process_takes_over_without_a_failed_request() {
    let upstream = counter();
    let database = Database::new();
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("the port is free");
    let launch = Launch::new(database.url())
        .upstream(&upstream.url())
        .config("[timeouts]\ndrain_ms = 10000");
    let old = launch.start_on(&listener);
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let visits = |times: u64| {
        let from = acknowledged.load(Relaxed);
        wait_for("visits", LIMIT, || (acknowledged.load(Relaxed) >= from + times).then_some(()));
    };
    let new = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (acknowledged, is_over) = (&acknowledged, &is_over);
                let (caller, address) = (old.caller(), old.address());
                scope.spawn(move || {
                    let mut regular = Regular { caller, address, wire: None };
                    let mut count = 0;
                    while !is_over.load(Relaxed) {
                        let visited = regular.visit(count % 3 == 2).unwrap_or_else(|error| {
                            is_over.store(true, Relaxed);
                            panic!("after {count} visits one failed: {error}")
                        });
                        count += 1;
                        assert_eq!(visited, count, "a visit was lost, or counted twice");
                        acknowledged.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        visits(200);
        let new = launch.start_on(&listener);
        visits(200);
        old.terminate();
        old.ended();
        visits(200);
        is_over.store(true, Relaxed);
        for thread in threads {
            thread.join().expect("no request failed");
        }
        new
    });
    // Both have used the socket, and it was never closed in between.
    assert!(new.metric("edge_session_begun_total{origin=\"loaded\"}") > 200);
    new.stop();
}

#[test]
fn a_process_that_stops_finishes_what_it_has_begun() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let config = "[timeouts]\ndrain_ms = 20000\n[limits]\nbuffer_bytes = 0";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut kept = server.wire();
    kept.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!closes(&kept.answer().head));
    // A connection that a browser has opened for its next request.
    let mut ahead = server.wire();
    // A request whose body is still being sent.
    let mut sending = server.wire();
    sending.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    wait_for("it to arrive", LIMIT, || (upstream.count() == 2).then_some(()));

    server.terminate();
    wait_for("the word", LIMIT, || server.log().contains("stopping:").then_some(()));
    let refused = || std::net::TcpStream::connect(server.address()).is_err();
    wait_for("the socket to close", LIMIT, || refused().then_some(()));
    sending.send("world");
    let answer = sending.answer();
    assert_eq!((answer.status, closes(&answer.head)), (200, true), "{answer:#?}");
    // The kept connection's next response announces that it is the last one.
    kept.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = kept.answer();
    assert_eq!((answer.status, closes(&answer.head)), (200, true), "{answer:#?}");
    assert_eq!(kept.rest(), b"");
    ahead.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = ahead.answer();
    assert_eq!((answer.status, closes(&answer.head)), (200, true), "{answer:#?}");
    server.ended();
}

#[test]
fn a_process_that_stops_waits_no_longer_than_it_may() {
    let upstream = Upstream::raw(|call| {
        call.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        let _ = call.wire.some();
    });
    let config = "[timeouts]\ndrain_ms = 500";
    let server: Server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut endless = server.caller().begin("GET", "/", &[], b"");
    endless.head();
    let mut idle = server.wire();
    idle.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    server.terminate();
    wait_for("the word", LIMIT, || {
        server.log().contains("connections did not end within 0.5 s").then_some(())
    });
    server.ended();
}

#[test]
fn a_websocket_goes_on_while_a_process_stops_and_ends_with_it() {
    let upstream = Upstream::raw(|call| {
        call.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        while let Ok(bytes) = call.wire.some() {
            if bytes.is_empty() {
                break;
            }
            call.say(bytes);
        }
        call.hang_up();
    });
    let handshake = ["Connection: Upgrade", "Upgrade: websocket"];
    for (drain, is_patient) in [("20000", true), ("1000", false)] {
        let config = format!("[timeouts]\ndrain_ms = {drain}");
        let server = Launch::new("memory:").upstream(&upstream.url()).config(&config).start();
        let mut socket = server.caller().begin("GET", "/", &handshake, b"");
        assert_eq!(socket.head().status(), 101);
        server.terminate();
        wait_for("the word", LIMIT, || server.log().contains("stopping: 1 ").then_some(()));
        socket.send("still here");
        assert_eq!(socket.exactly(10).unwrap(), b"still here");
        if is_patient {
            socket.finish();
        }
        assert_eq!(socket.rest(), b"");
        let was_cut = server.log().contains("connections did not end within");
        server.ended();
        assert_eq!(was_cut, !is_patient);
    }
}
