//! Requests that a proxy and an application could parse differently, byte by byte.

use std::time::Duration;

use edge_session_tests::{Answer, Launch, Reply, Server, Upstream, wait_for};

/// Starts an application that answers everything, and a gateway in front of it.
fn pair(config: &str) -> (Upstream, Server) {
    let upstream = Upstream::app(|_| Reply::text("hello"));
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    (upstream, server)
}

/// Sends these bytes on a connection; returns all responses. The connection must be closed after
/// them.
#[track_caller]
fn answers(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    let mut wire = server.wire();
    wire.send(bytes);
    let mut all = Vec::new();
    while let Ok(answer) = wire.try_answer() {
        all.push(answer);
    }
    assert_eq!(wire.rest(), b"", "the connection ends with half an answer");
    all
}

#[track_caller]
fn statuses(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    answers(server, bytes).iter().map(|answer| answer.status).collect()
}

#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let (upstream, server) = pair("");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nTransfer-Encoding:\tchunked\r\n",
        "Content-Length: 6\r\ntransfer-encoding: CHUNKED\r\n",
    ];
    for (at, lengths) in both.iter().enumerate() {
        // The length claims that the body continues, or that it ends before the chunks do.
        let bytes = format!("POST /{at} HTTP/1.1\r\nHost: a\r\n{lengths}\r\n0\r\n\r\n{smuggled}");
        let statuses = statuses(&server, bytes);
        assert!(statuses == [200] || statuses == [400], "{lengths:?}: {statuses:?}");
        let asked = upstream.asked();
        assert!(asked.iter().all(|asked| asked.target != "/smuggled"), "{lengths:?}: {asked:#?}");
        let ours = asked.iter().filter(|asked| asked.target == format!("/{at}"));
        for asked in ours.clone() {
            assert_eq!(asked.body, b"", "{asked:#?}");
            let lengths = asked.head.all("content-length").len();
            assert!(lengths + asked.head.all("transfer-encoding").len() <= 1, "{asked:#?}");
        }
        assert_eq!(ours.count(), usize::from(statuses == [200]));
    }
    let as_bytes = upstream.received().concat();
    assert!(!as_bytes.contains("smuggled"), "{as_bytes}");
    server.stop();
}

#[test]
fn chunks_count_where_a_length_says_otherwise() {
    let (upstream, server) = pair("");
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n8\r\nSMUGGLED\r\n0\r\n\r\n");
        assert_eq!(statuses(&server, bytes), [200], "{lengths:?}");
        let asked = upstream.last();
        assert_eq!(asked.body, b"SMUGGLED");
        assert_eq!(asked.header("content-length"), Some("8"), "what it really is");
    }
    server.stop();
}

#[test]
fn a_request_whose_body_has_no_certain_end_is_refused() {
    let (upstream, server) = pair("");
    let body = "\r\n1\r\nx\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked;x\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}{body}");
        assert_eq!(statuses(&server, bytes), [400], "{lines:?}");
    }
    let old = format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{body}");
    assert_eq!(statuses(&server, old), [400], "HTTP/1.0 has no chunks");
    assert_eq!(upstream.count(), 0, "{:?}", upstream.received());
    wait_for("the count", Duration::from_secs(5), || {
        (server.refused("malformed") == 16).then_some(())
    });
    server.stop();
}

#[test]
fn a_head_that_is_not_http_is_refused() {
    let (upstream, server) = pair("");
    let heads: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / HTTP/11\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ];
    for head in heads {
        let text = String::from_utf8_lossy(head);
        assert_eq!(statuses(&server, head), [400], "{text:?}");
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.received());
    server.stop();
}

#[test]
fn a_request_is_for_one_host() {
    let (upstream, server) = pair("");
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://a:1/ HTTP/1.1\r\nHost: a:2\r\n\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut wire = server.wire();
        wire.send(head);
        assert_eq!(wire.answer().status, 400, "{head:?}");
    }
    assert_eq!(upstream.count(), 0);
    assert!(server.refused("bad-request") > 8);

    for (head, host) in [
        ("GET http://a.example/x?y HTTP/1.1\r\nHost: A.example\r\n\r\n", Some("A.example")),
        ("GET http://a.example/x?y HTTP/1.0\r\n\r\n", Some("a.example")),
        ("GET /x?y HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", Some("[::1]:8080")),
    ] {
        let mut wire = server.wire();
        wire.send(head);
        assert_eq!(wire.answer().status, 200, "{head:?}");
        let asked = upstream.last();
        assert_eq!(asked.target, "/x?y", "an application is asked in origin form");
        assert_eq!(asked.header("host"), host, "{head:?}");
    }
    server.stop();
}

#[test]
fn a_bare_line_feed_ends_a_line_of_a_head_and_no_line_of_chunks() {
    let (upstream, server) = pair("");
    // RFC 9112, section 2.2, allows the first. One request with proper line ends is forwarded.
    let mut wire = server.wire();
    wire.send("GET /a HTTP/1.1\nHost: a\nX-One: 1\r\nX-Two: 2\nConnection: close\n\n");
    assert_eq!(wire.answer().status, 200);
    assert_eq!(upstream.last().header("x-one"), Some("1"));
    assert_eq!(upstream.last().header("x-two"), Some("2"));
    let received = upstream.received().concat();
    assert_eq!(received.matches('\n').count(), received.matches("\r\n").count(), "{received:?}");
    assert_eq!(upstream.count(), 1);

    let head = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["1\nx\r\n0\r\n\r\n", "1\r\nx\n0\r\n\r\n", "1;a\nx\r\n0\r\n\r\n", "1\r\nx\r\n0\n\n"]
    {
        let statuses = statuses(&server, format!("{head}{body}GET /c HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(matches!(statuses[..], [status] if status >= 400), "{body:?}: {statuses:?}");
    }
    assert!(upstream.asked().iter().all(|asked| asked.target != "/c"), "{:#?}", upstream.asked());
    server.stop();
}

#[test]
fn chunks_that_are_none_end_the_request() {
    let (upstream, server) = pair("");
    let head = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(64 * 1024));
    let many = "1;eeeeeeee\r\nx\r\n".repeat(8 * 1024) + "0\r\n\r\n";
    for body in [
        "x\r\n",
        "-1\r\nx\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        "1 1\r\nx\r\n",
        "\r\nx\r\n",
        "ffffffffffffffff1\r\nx\r\n",
        "fffffffffffffffff\r\nx\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nx\r0\r\n\r\n",
        &long,
        &many,
    ] {
        let statuses = statuses(&server, format!("{head}{body}{next}"));
        let shown = &body[..body.len().min(40)];
        assert!(matches!(statuses[..], [status] if status >= 400), "{shown:?}: {statuses:?}");
    }
    assert!(upstream.asked().iter().all(|asked| asked.target == "/chunks"), "no more than that");
    server.stop();
}

#[test]
fn a_body_that_is_not_http_is_the_visitors_doing() {
    let (upstream, server) = pair("");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["x\r\n", "1\nx\r\n0\r\n\r\n", "1\r\nxy\r\n0\r\n\r\n"] {
        assert_eq!(statuses(&server, format!("{head}{body}")), [400], "{body:?}");
    }
    assert_eq!(server.refused("upstream-failed"), 0, "the application did nothing wrong");
    assert!(!server.log().contains("sent no valid response"), "{}", server.log());
    drop(upstream);
    server.stop();
}

#[test]
fn a_body_in_a_coding_that_nobody_undoes_is_refused() {
    let (upstream, server) = pair("");
    // Decoding the chunks and dropping the other codings would change the body's meaning.
    for codings in ["gzip, chunked", "x, chunked", "chunked, chunked"] {
        let mut wire = server.wire();
        wire.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {codings}\r\n\r\n\
             1\r\nx\r\n0\r\n\r\n"
        ));
        let status = wire.answer().status;
        assert!(status == 400 || status == 501, "{codings}: {status}");
    }
    assert_eq!(upstream.count(), 0);
    server.stop();
}

#[test]
fn what_is_no_host_is_told_to_no_application() {
    let (upstream, server) = pair("");
    for head in [
        "GET http://user@a/ HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    ] {
        let mut wire = server.wire();
        wire.send(head);
        assert_eq!(wire.answer().status, 400, "{head:?}: {:?}", upstream.received());
    }
    server.stop();
}

#[test]
fn a_connection_header_that_lists_more_than_there_can_be_is_refused() {
    let (upstream, server) = pair("");
    let get = |list: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close,{list}\r\n\r\n");
    assert_eq!(statuses(&server, get(&"a,".repeat(60_000))), [400]);
    assert_eq!(statuses(&server, get(&"a,".repeat(100))), [400]);
    assert_eq!(upstream.count(), 0);
    assert_eq!(statuses(&server, get("x-a, x-b")), [200]);
    server.stop();
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let (upstream, server) = pair("[limits]\nheader_bytes = 8192");
    let long_value = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let fields = |count| {
        let lines: String = (0..count).map(|at| format!("x{at}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    };
    assert_eq!(statuses(&server, long_value), [431]);
    assert_eq!(statuses(&server, fields(100)), [431]);
    let mut wire = server.wire();
    wire.send(fields(99));
    assert_eq!(wire.answer().status, 200);
    assert_eq!(upstream.count(), 1);
    server.stop();

    let (upstream, server) = pair("[limits]\nheader_bytes = 131072");
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(66_000));
    assert_eq!(statuses(&server, long_target), [414]);
    let wide = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut wire = server.wire();
    wire.send(wide);
    assert_eq!(wire.answer().status, 200, "as much as it is configured");
    assert_eq!(upstream.count(), 1);
    server.stop();
}

#[test]
fn methods_that_are_for_proxies_themselves_are_refused() {
    let (upstream, server) = pair("");
    for head in [
        "TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret=1\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    ] {
        let mut wire = server.wire();
        wire.send(head);
        let answer = wire.answer();
        assert_eq!(answer.status, 405, "{head:?}");
        assert!(answer.head.header("allow").is_some_and(|allow| allow.contains("GET")));
    }
    assert_eq!(server.refused("method"), 2);
    assert_eq!(upstream.count(), 0);

    let mut wire = server.wire();
    wire.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
    assert_eq!(upstream.last().method, "OPTIONS");
    let mut wire = server.wire();
    wire.send("GET * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.answer().status, 400);
    let mut wire = server.wire();
    wire.send("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.answer().status, 200, "applications may have their own");
    server.stop();
}

#[test]
fn a_few_empty_lines_before_a_request_are_ignored() {
    let (_upstream, server) = pair("");
    let mut wire = server.wire();
    wire.send(format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(100)));
    assert_eq!(wire.answer().status, 200);
    wire.send("\r\n".repeat(600));
    assert_eq!(wire.rest(), b"");
    assert_eq!(server.refused("malformed"), 1);
    server.stop();
}

#[test]
fn an_upgrade_to_http2_is_not_passed_on() {
    let (upstream, server) = pair("");
    for protocol in ["h2c", "H2C", "h2", "h2c, websocket"] {
        let mut wire = server.wire();
        wire.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        assert_eq!(wire.answer().status, 200);
        let asked = upstream.last();
        let upgrade = asked.header("upgrade").unwrap_or_default().to_ascii_lowercase();
        assert!(!upgrade.contains("h2"), "{protocol}: {asked:#?}");
        assert!(!asked.head.has_any("http2-settings"), "{asked:#?}");
    }
    server.stop();
}

#[test]
fn an_upgrade_to_http2_is_not_passed_on_among_others() {
    let (upstream, server) = pair("");
    for lines in ["Upgrade: websocket, h2c\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n"] {
        let mut wire = server.wire();
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{lines}\r\n"));
        assert_eq!(wire.answer().status, 200);
        let upgrades = upstream.last().head.all("upgrade").join(", ");
        assert!(!upgrades.contains("h2"), "{lines:?}: {upgrades}");
    }
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::app(|asked| Reply::text(&asked.target));
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut wire = server.wire();
    wire.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 23\r\n\r\nGET /evil HTTP/1.1\r\nA:1\
         GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let texts = [wire.answer().text(), wire.answer().text(), wire.answer().text()];
    assert_eq!(texts, ["/1", "/2", "/3"]);
    assert_eq!(upstream.asked()[0].body, b"GET /evil HTTP/1.1\r\nA:1");
    server.stop();
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let (upstream, server) = pair("[limits]\nbody_bytes = 1000");
    let mut wire = server.wire();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(wire.answer().status, 413, "before a byte of it comes");
    assert_eq!(upstream.count(), 0);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = server.wire();
    wire.send(chunked).send(format!("1f4\r\n{0}\r\n1f5\r\n{0}y\r\n", "x".repeat(500)));
    assert_eq!(wire.answer().status, 413);
    assert_eq!(server.refused("body-too-large"), 2);

    let mut wire = server.wire();
    wire.send(chunked).send(format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000)));
    assert_eq!(wire.answer().status, 200);
    assert_eq!(upstream.last().body.len(), 1000);
    server.stop();
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let (upstream, server) = pair("[timeouts]\nheader_ms = 300\nidle_ms = 300");
    // Nothing at all, half a head, and nothing after a complete exchange.
    let mut silent = server.wire();
    let mut half = server.wire();
    half.send("GET / HTTP/1.1\r\nHost:");
    let mut idle = server.wire();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    for wire in [&mut silent, &mut half, &mut idle] {
        assert_eq!(wire.rest(), b"");
    }
    wait_for("the count", Duration::from_secs(5), || (server.refused("slow") >= 1).then_some(()));

    for head in ["Content-Length: 10\r\n\r\n12345", "Transfer-Encoding: chunked\r\n\r\n5\r\n12345"]
    {
        let mut stalled = server.wire();
        stalled.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
        assert_eq!(stalled.answer().status, 408);
        assert_eq!(stalled.rest(), b"", "what would come next is the rest of that body");
    }
    assert_eq!(server.refused("request-timeout"), 2);
    assert!(upstream.asked().iter().all(|asked| asked.body.is_empty()));
    server.stop();
}

#[test]
fn who_begins_a_head_and_stops_is_counted_as_slow() {
    let (_upstream, server) = pair("[timeouts]\nheader_ms = 300");
    let mut half = server.wire();
    half.send("GET / HTTP/1.1\r\nHost:");
    // An idle connection after a response is not an error.
    let mut idle = server.wire();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    assert_eq!((half.rest(), idle.rest()), (vec![], vec![]));
    wait_for("the count", Duration::from_secs(2), || (server.refused("slow") == 1).then_some(()));
    server.stop();
}
