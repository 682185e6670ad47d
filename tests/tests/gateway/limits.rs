//! Clients that request too much leave enough for others.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use edge_session_tests::{Launch, Reply, Upstream, Wire, wait_for};

use super::http2::Http2;

const LIMIT: Duration = Duration::from_secs(20);
const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ASK_SLOWLY: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

/// An application with a page that blocks until it is released.
fn slow() -> (Upstream, Sender<()>) {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        if call.asked.target == "/slow" {
            let _ = may_go_on.lock().unwrap().recv();
        }
        call.reply(Reply::text("ok"));
    });
    (upstream, go_on)
}

#[test]
fn who_asks_for_slow_pages_by_the_thousand_leaves_files_and_places_for_others() {
    let (upstream, go_on) = slow();
    let server = Launch::new("memory:")
        .upstream(&upstream.url())
        .config("[gateway]\ntrusted_proxies = []")
        .open_files(1024)
        .start();
    assert!(server.log().contains("can open only 1024 files"), "it says what it does about it");
    let mut attackers: Vec<_> = (0..9).map(|_| Http2::open(&server)).collect();
    for attacker in &mut attackers {
        for _ in 0..128 {
            attacker.get("/slow");
        }
    }
    wait_for("the attack", LIMIT, || (upstream.count() >= 60).then_some(()));
    // The excess requests have been refused, and all others have a slot.
    wait_for("refusals", LIMIT, || (server.refused("client-busy") > 500).then_some(()));
    assert!(upstream.count() < 100, "{} requests of one client", upstream.count());
    for _ in 0..3 {
        let mut other = Wire::open_from("127.0.0.2", &server.address());
        other.send(ASK);
        assert_eq!(other.answer().status, 200);
    }
    let log = server.log();
    assert!(log.lines().count() < 50, "{log}");
    drop((go_on, attackers));
    server.stop();
}

#[test]
fn a_request_that_finds_no_place_is_told_to_come_again() {
    let (upstream, go_on) = slow();
    let config = "[limits]\nrequests = 2\n[log]\nrequests = true";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut at_work: Vec<_> = (0..2).map(|_| server.wire()).collect();
    for wire in &mut at_work {
        wire.send(ASK_SLOWLY);
    }
    wait_for("both to be at work", LIMIT, || (upstream.count() == 2).then_some(()));
    let (mut third, start) = (server.wire(), Instant::now());
    third.send(ASK);
    let answer = third.answer();
    assert_eq!((answer.status, answer.head.header("retry-after")), (503, Some("1")));
    assert!(start.elapsed() >= Duration::from_secs(1), "it has waited for its turn");
    assert_eq!((server.refused("busy"), upstream.count()), (1, 2));
    // A request that waits for less than that is handled when another one finishes.
    let mut fourth = server.wire();
    fourth.send(ASK);
    go_on.send(()).unwrap();
    assert_eq!(fourth.answer().status, 200);
    // The same connection may send another request.
    third.send(ASK);
    assert_eq!(third.answer().status, 200);
    // Such a response has an id, a format and a log line like any other.
    let id = answer.head.header("x-request-id").expect("its name");
    let line = format!("request=\"{id}\" session=\"-\" method=GET path=\"/\" status=503");
    wait_for("its line", LIMIT, || server.log().contains(&line).then_some(()));
    drop(go_on);
    server.stop();
}

#[test]
fn one_client_has_no_more_requests_at_work_than_it_may_and_a_proxy_has() {
    let (upstream, go_on) = slow();
    let config = "[gateway]\ntrusted_proxies = [\"127.0.0.9\"]\n[limits]\nper_client = 2";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut open = Vec::new();
    for (source, count) in [("127.0.0.2", 2), ("127.0.0.3", 2), ("127.0.0.9", 5)] {
        for _ in 0..count {
            let mut wire = Wire::open_from(source, &server.address());
            wire.send(ASK_SLOWLY);
            open.push(wire);
        }
    }
    wait_for("all to be at work", LIMIT, || (upstream.count() == 9).then_some(()));
    let mut another = Wire::open_from("127.0.0.2", &server.address());
    let start = Instant::now();
    another.send(ASK);
    assert_eq!(another.answer().status, 503);
    assert!(start.elapsed() >= Duration::from_secs(1), "it has waited for its turn");
    assert_eq!((server.refused("client-busy"), upstream.count()), (1, 9));
    let mut proxy = Wire::open_from("127.0.0.9", &server.address());
    proxy.send(ASK);
    assert_eq!(proxy.answer().status, 200);
    drop(go_on);
    server.stop();
}

#[test]
fn silent_connections_make_room_for_those_that_ask() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let config = "[gateway]\ntrusted_proxies = []\n[limits]\nconnections = 8";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    // All connections of one client, then all that the server accepts; some have sent a part of a
    // request.
    for sources in [&["127.0.0.2"][..], &["127.0.0.3", "127.0.0.4", "127.0.0.5"]] {
        let silent: Vec<_> = (0..20)
            .map(|at| {
                let mut wire = Wire::open_from(sources[at % sources.len()], &server.address());
                let _ = wire.try_send(["", "P", "GET / HT"][at % 3]);
                wire
            })
            .collect();
        let start = Instant::now();
        let mut asking = Wire::open_from("127.0.0.2", &server.address());
        asking.send(ASK);
        assert_eq!(asking.answer().status, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
        drop(silent);
    }
    server.stop();
}

#[test]
fn silent_connections_stay_with_the_system_while_all_places_are_taken() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let config = "[gateway]\ntrusted_proxies = []\n[limits]\nconnections = 4";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut visitors: Vec<_> = (0..4).map(|_| server.wire()).collect();
    for visitor in &mut visitors {
        visitor.send(ASK);
        assert_eq!(visitor.answer().status, 200);
    }
    // The first one shows that all are taken. Then there is nothing to close for the others.
    let _first = server.wire();
    assert_eq!(visitors.remove(0).rest(), b"");
    let _silent: Vec<_> = (0..20).map(|_| server.wire()).collect();
    for visitor in &mut visitors {
        visitor.send(ASK);
        assert_eq!(visitor.answer().status, 200);
    }
    assert_eq!(server.metric("edge_session_connections_full_total"), 1);
    server.stop();
}

#[test]
fn a_websocket_keeps_the_place_of_its_request() {
    let upstream = Upstream::raw(|call| {
        if call.asked.target == "/" {
            return call.reply(Reply::text("ok"));
        }
        call.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        while call.wire.some().is_ok_and(|bytes| !bytes.is_empty()) {}
        call.hang_up();
    });
    let config = "[limits]\nrequests = 1";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let handshake = ["Connection: Upgrade", "Upgrade: websocket"];
    let mut socket = server.caller().begin("GET", "/socket", &handshake, b"");
    assert_eq!(socket.head().status(), 101);
    assert_eq!(server.caller().get("/", &[]).status, 503);
    socket.close();
    wait_for("its end", LIMIT, || (server.caller().get("/", &[]).status == 200).then_some(()));
    server.stop();
}

#[test]
fn connections_that_close_give_their_memory_back() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let before = server.memory("VmRSS");
    let mut connections = Vec::new();
    for client in 1..=4 {
        for _ in 0..400 {
            let mut connection = Wire::open_from(&format!("127.0.0.{client}"), &server.address());
            connection.send(ASK);
            assert_eq!(connection.answer().status, 200);
            connections.push(connection);
        }
    }
    let grown = server.memory("VmRSS").saturating_sub(before);
    drop(connections);
    wait_for("half of the memory", LIMIT, || {
        // Threads give back what others have freed when they have nothing more to do: this wakes one.
        assert_eq!(server.caller().get("/", &[]).status, 200);
        (server.memory("VmRSS").saturating_sub(before) < grown / 2).then_some(())
    });
    server.stop();
}
