//! HTTP/2 frame by frame (RFC 9113): malformed frames and floods.

use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use edge_session_tests::{Launch, Reply, Server, Upstream, Wire, wait_for};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// CANCEL, REFUSED_STREAM (section 7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const REFUSED_STREAM: u32 = 7;

/// A connection that uses HTTP/2 from the start. It does not reply to pings, so a server that shuts
/// down waits for it as long as it may.
pub(super) struct Http2 {
    pub(super) wire: Wire,
    stream: u32,
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// A response, with one of the statuses that HPACK has an index for.
    Answered(u16),
    Reset(u32),
    /// The whole connection was closed.
    Gone(u32),
    Closed,
}

impl End {
    /// Whether it is a stream or connection error of type PROTOCOL_ERROR, or 400.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Reset(1) | Self::Gone(1) | Self::Answered(400))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes header fields as literals without indexing (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

fn get<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let usual = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    [&usual[..], more].concat()
}

impl Http2 {
    pub(super) fn open(server: &Server) -> Self {
        Self::over(server.wire())
    }

    pub(super) fn over(mut wire: Wire) -> Self {
        wire.send(PREFACE).send(frame(SETTINGS, 0, 0, b""));
        Self { wire, stream: 1 }
    }

    /// Sends a request on the next stream, with this header block.
    pub(super) fn ask_by(&mut self, block: &[u8]) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        self.wire.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, block));
        stream
    }

    pub(super) fn get(&mut self, path: &str) -> u32 {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
        self.ask_by(&block(&fields))
    }

    /// Whether the server closes the connection in time. Until then, this replies to pings; a
    /// stubborn client does not reply to the one that asks it to close.
    fn is_left(&mut self, limit: Duration, is_stubborn: bool) -> bool {
        let (start, mut was_told) = (Instant::now(), false);
        while start.elapsed() < limit {
            let head = match self.wire.exactly(9) {
                Ok(head) => head,
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Ok(payload) = self.wire.exactly(length) else { return true };
            match (head[3], head[4]) {
                (GOAWAY, _) => was_told = true,
                (PING, 0) if was_told && is_stubborn => was_told = false,
                (PING, 0) if self.wire.try_send(frame(PING, ACK, 0, &payload)).is_err() => {
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    fn ask(&mut self, stream: u32, fields: &[(&str, &str)], flags: u8) {
        self.wire.send(frame(HEADERS, flags | END_HEADERS, stream, &block(fields)));
    }

    fn end_of(&mut self, stream: u32) -> End {
        loop {
            let Ok(head) = self.wire.exactly(9) else { return End::Closed };
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let on = u32::from_be_bytes(head[5..9].try_into().unwrap());
            let Ok(payload) = self.wire.exactly(length) else { return End::Closed };
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match head[3] {
                // The static table's statuses (RFC 7541, appendix A).
                HEADERS if on == stream => {
                    let statuses = [200, 204, 206, 304, 400, 404, 500];
                    let status =
                        payload[0].checked_sub(0x88).and_then(|at| statuses.get(at as usize));
                    return End::Answered(*status.unwrap_or(&0));
                }
                RST_STREAM if on == stream => return End::Reset(number(0)),
                // After a graceful GOAWAY, the remaining streams are still answered.
                GOAWAY if number(4) != 0 => return End::Gone(number(4)),
                _ => {}
            }
        }
    }
}

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn pair() -> (Upstream, Server) {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    (upstream, server)
}

#[test]
fn a_malformed_request_of_http2_reaches_no_application() {
    let (upstream, server) = pair();
    let mut connection = Http2::open(&server);
    connection.ask(1, &get(&[]), END_STREAM);
    assert_eq!(connection.end_of(1), End::Answered(200));
    assert_eq!(upstream.count(), 1);
    let path =
        |path| vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
    for fields in [
        // Section 8.2: names and values.
        get(&[("X-Upper", "1")]),
        get(&[("x-a", "1\r\nedge-session: {}")]),
        get(&[("x-a\r\nx-b", "1")]),
        get(&[("x-a", "1\u{0}")]),
        // Section 8.2.2: connection-specific fields of HTTP/1.
        get(&[("connection", "keep-alive")]),
        get(&[("transfer-encoding", "chunked")]),
        get(&[("upgrade", "h2c")]),
        get(&[("te", "gzip")]),
        // Section 8.3: pseudo-header fields.
        get(&[(":method", "POST")]),
        get(&[(":status", "200")]),
        get(&[(":mine", "1")]),
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a")],
        vec![(":scheme", "http"), (":path", "/"), (":authority", "a")],
        vec![("x-a", "1"), (":method", "GET"), (":scheme", "http"), (":path", "/")],
        path(""),
        path("/a b"),
        path("/\r\nx: y"),
        // The rules of all HTTP versions.
        get(&[("host", "b")]),
        path("/a/../b"),
        path("http://b/"),
        path("?x"),
    ] {
        let mut connection = Http2::open(&server);
        connection.ask(1, &fields, END_STREAM);
        let end = connection.end_of(1);
        assert!(end.is_refusal(), "{fields:?}: {end:?}");
    }
    assert_eq!(upstream.count(), 1);
    // A target with an empty path before its fragment is the root.
    let mut connection = Http2::open(&server);
    connection.ask(1, &path("#/x"), END_STREAM);
    assert_eq!(connection.end_of(1), End::Answered(200));
    let received = upstream.received().concat();
    assert_eq!(received.matches("GET / HTTP/1.1\r\n").count(), 2, "{received}");
    drop(connection);
    server.stop();
}

#[test]
fn head_is_answered_without_a_body_whoever_answers() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let config = "[[guard]]\npaths = [\"/internal\"]\ndeny = true";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let builtin = Launch::new("memory:").start();
    for (server, path) in [
        (&server, "/internal"),
        (&server, "/a/../b"),
        (&server, "/"),
        (&builtin, "/nowhere"),
        (&builtin, "/"),
    ] {
        for accept in ["text/html", "application/json", "*/*"] {
            let mut client = Http2::open(server);
            let fields = [
                (":method", "HEAD"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "a"),
                ("accept", accept),
            ];
            let stream = client.ask_by(&block(&fields));
            // The next request's response comes after all of it.
            let (mut head_flags, mut next) = (None, None);
            while next.is_none() {
                let head = client.wire.exactly(9).unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                client.wire.exactly(length).unwrap();
                let on = u32::from_be_bytes(head[5..9].try_into().unwrap());
                match head[3] {
                    HEADERS if on == stream => {
                        head_flags = Some(head[4]);
                        next = Some(client.get("/"));
                    }
                    DATA if on == stream => panic!("{path}: a body"),
                    _ => {}
                }
            }
            assert_eq!(head_flags.unwrap() & END_STREAM, END_STREAM, "{path} {accept}");
            assert!(matches!(client.end_of(next.unwrap()), End::Answered(_)), "{path} {accept}");
        }
    }
    server.stop();
    builtin.stop();
}

#[test]
fn a_body_of_http2_that_is_not_as_long_as_it_says_is_no_whole_one() {
    let (upstream, server) = pair();
    for body in ["hell", "hello!"] {
        let mut connection = Http2::open(&server);
        connection.ask(1, &get(&[("content-length", "5")]), 0);
        connection.wire.send(frame(DATA, END_STREAM, 1, body.as_bytes()));
        let end = connection.end_of(1);
        assert!(end.is_refusal(), "{body}: {end:?}");
    }
    assert!(upstream.asked().iter().all(|asked| asked.body.is_empty()), "{:?}", upstream.asked());
    assert_eq!(server.caller().get("/", &[]).status, 200);
    server.stop();
}

#[test]
fn a_frame_that_is_none_ends_its_connection_alone() {
    let (_upstream, server) = pair();
    let mut regular = Http2::open(&server);
    for bytes in [
        // Larger than SETTINGS_MAX_FRAME_SIZE; without a stream; on a stream that is not open;
        // settings of a wrong length; a header block that is not HPACK; an even stream.
        frame(DATA, 0, 1, &[0; 20_000]),
        frame(HEADERS, END_HEADERS, 0, &block(&get(&[]))),
        frame(DATA, END_STREAM, 5, b"x"),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 8]),
        frame(HEADERS, END_HEADERS | END_STREAM, 2, &block(&get(&[]))),
        frame(CONTINUATION, END_HEADERS, 1, &block(&get(&[]))),
    ] {
        let mut connection = Http2::open(&server);
        connection.wire.send(&bytes);
        let end = connection.end_of(1);
        assert!(matches!(end, End::Gone(1..) | End::Closed), "{:?}: {end:?}", &bytes[..9]);
    }
    regular.ask(1, &get(&[]), END_STREAM);
    assert_eq!(regular.end_of(1), End::Answered(200));
    drop(regular);
    server.stop();
}

#[test]
fn floods_of_frames_cost_others_nothing() {
    let (upstream, server) = pair();
    let before = server.memory("VmHWM");
    // Streams that are reset as soon as they are opened (CVE-2023-44487).
    let mut resets = Vec::new();
    for stream in (1..20_000).step_by(2) {
        resets.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get(&[]))));
        resets.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    // An endless header (CVE-2024-27316).
    let mut endless = frame(HEADERS, END_STREAM, 1, &block(&get(&[])));
    let more = block(&[("x-a", &"a".repeat(100)), ("x-b", &"b".repeat(100))]);
    for _ in 0..50_000 {
        endless.extend(frame(CONTINUATION, 0, 1, &more));
    }
    // A flood of settings that must be acknowledged (CVE-2019-9515).
    let settings = frame(SETTINGS, 0, 0, b"").repeat(200_000);
    for (name, bytes) in [("resets", resets), ("continuation", endless), ("settings", settings)] {
        let mut connection = Http2::open(&server);
        // The server may close the connection before everything is sent.
        for part in bytes.chunks(64 * 1024) {
            if connection.wire.try_send(part).is_err() {
                break;
            }
        }
        assert_eq!(server.caller().get("/", &[]).status, 200, "{name}");
        connection.wire.close();
    }
    let grown = server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB more");
    let mut connection = Http2::open(&server);
    connection.ask(1, &get(&[]), END_STREAM);
    assert_eq!(connection.end_of(1), End::Answered(200));
    assert!(upstream.count() < 10_000);
    drop(connection);
    server.stop();
}

#[test]
fn a_client_that_sends_little_but_frames_of_no_request_is_sent_away_and_a_proxy_is_not() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let config = "[gateway]\ntrusted_proxies = [\"127.0.0.9\"]";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let floods = [
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(SETTINGS, 0, 0, b""),
        frame(200, 0, 0, &[0; 8]),
    ];
    for (at, flood) in floods.iter().enumerate() {
        let mut connection = Http2::open(&server);
        // As many as a browser may have.
        connection.wire.send(flood.repeat(1000));
        assert_eq!(connection.get("/"), 1);
        assert_eq!(connection.end_of(1), End::Answered(200), "{at}");
        let flood = flood.repeat(1000);
        let is_sent_away = (0..1000).any(|_| connection.wire.try_send(&flood).is_err());
        assert!(is_sent_away && server.refused("flood") == at as u64 + 1, "{at}");
    }
    let mut proxy = Http2::over(Wire::open_from("127.0.0.9", &server.address()));
    proxy.wire.send(floods[2].repeat(20_000));
    assert_eq!(proxy.get("/"), 1);
    assert_eq!(proxy.end_of(1), End::Answered(200));
    server.stop();
}

#[test]
fn who_resets_streams_gives_its_places_back_and_is_sent_away_when_that_is_all_it_does() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        if call.asked.target == "/slow" {
            let _ = may_go_on.lock().unwrap().recv();
        }
        call.reply(Reply::text("ok"));
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut connection = Http2::open(&server);
    let limit = 128;
    for number in 0..limit {
        let stream = connection.get("/slow");
        wait_for("it to arrive", Duration::from_secs(10), || {
            (upstream.count() > number).then_some(())
        });
        connection.wire.send(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    // None of them is being handled any more.
    let stream = connection.get("/");
    assert_eq!(connection.end_of(stream), End::Answered(200));
    let stream = connection.get("/slow");
    wait_for("one more", Duration::from_secs(10), || (upstream.count() == limit + 2).then_some(()));
    connection.wire.send(frame(RST_STREAM, 0, stream, &CANCEL));
    let stream = connection.stream;
    assert_eq!(connection.end_of(stream), End::Closed);
    assert_eq!(server.caller().get("/", &[]).status, 200, "others are not concerned");
    drop(go_on);
    server.stop();
}

#[test]
fn a_connection_has_so_many_requests_at_work_and_the_next_one_may_be_asked_again() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        let _ = may_go_on.lock().unwrap().recv();
        call.reply(Reply::text("ok"));
    });
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let mut connection = Http2::open(&server);
    let streams: Vec<_> = (0..128).map(|_| connection.get("/slow")).collect();
    let next = connection.get("/slow");
    assert_eq!(connection.end_of(next), End::Reset(REFUSED_STREAM));
    drop(go_on);
    assert_eq!(connection.end_of(streams[127]), End::Answered(200));
    server.stop();
}

#[test]
fn an_http2_connection_without_requests_ends_though_its_client_answers_pings() {
    let upstream = Upstream::app(|_| Reply::text("ok"));
    let config = "[timeouts]\nheader_ms = 500";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    for is_stubborn in [false, true] {
        let mut connection = Http2::open(&server);
        let stream = connection.get("/");
        assert_eq!(connection.end_of(stream), End::Answered(200));
        assert!(connection.is_left(Duration::from_secs(10), is_stubborn), "it stays for ever");
    }
    server.stop();
}

#[test]
fn a_request_may_take_longer_than_a_connection_may_be_idle() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        if call.asked.target == "/slow" {
            let _ = may_go_on.lock().unwrap().recv();
        }
        call.reply(Reply::text("ok"));
    });
    let config = "[timeouts]\nheader_ms = 300";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut slow = Http2::open(&server);
    let stream = slow.get("/slow");
    // By the time an idle connection that was opened later has been closed.
    let mut idle = Http2::open(&server);
    let first = idle.get("/");
    assert_eq!(idle.end_of(first), End::Answered(200));
    assert!(idle.is_left(Duration::from_secs(10), false));
    go_on.send(()).unwrap();
    assert_eq!(slow.end_of(stream), End::Answered(200));
    drop(slow);
    server.stop();
}

#[test]
fn the_beginning_of_a_connection_may_come_byte_by_byte_and_costs_nothing_meanwhile() {
    let (_upstream, server) = pair();
    let begun: Vec<_> = (0..400)
        .map(|_| {
            let mut wire = server.wire();
            wire.send("P");
            wire
        })
        .collect();
    // The last of them has been accepted.
    assert_eq!(server.caller().get("/", &[]).status, 200);
    let (before, start) = (server.cpu(), Instant::now());
    // There is no other way to observe that nothing happens.
    std::thread::sleep(Duration::from_secs(2));
    let (took, of) = (server.cpu() - before, start.elapsed());
    assert!(took < of / 20, "it computed for {took:?} of {of:?} when nobody asked for anything");
    drop(begun);

    let mut wire = server.wire();
    for byte in PREFACE.as_bytes() {
        wire.send([*byte]);
    }
    wire.send(frame(SETTINGS, 0, 0, b""));
    let mut connection = Http2 { wire, stream: 1 };
    let stream = connection.get("/");
    assert_eq!(connection.end_of(stream), End::Answered(200));
    // Bytes that begin like the preface but differ are parsed as they were received.
    let mut wire = server.wire();
    for part in ["P", "O", "ST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
        wire.send(part);
    }
    assert_eq!(wire.answer().status, 200);
    let mut wire = server.wire();
    wire.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_eq!(wire.answer().status, 400);
    drop(connection);
    server.stop();
}

#[test]
fn a_request_of_http2_has_no_more_fields_than_one_of_http1() {
    let (upstream, server) = pair();
    let named: Vec<_> = (0..101).map(|at| (format!("x-{at}"), "1")).collect();
    let fields: Vec<_> = named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let cookies = vec![("cookie", "a=1"); 150];
    let mut connection = Http2::open(&server);
    let stream = connection.ask_by(&block(&get(&fields)));
    connection.end_of(stream);
    assert_eq!((server.refused("too-many-fields"), upstream.count()), (1, 0));
    // Clients may split the Cookie header into one field per cookie (section 8.2.3).
    let stream = connection.ask_by(&block(&get(&[&fields[..100], &cookies[..]].concat())));
    assert_eq!(connection.end_of(stream), End::Answered(200));
    drop(connection);
    server.stop();
}

/// Returns a header that refers to one field of 4 KiB this many times: a few bytes that expand to
/// many.
fn bomb(path: &str, times: usize) -> (Vec<u8>, Vec<u8>) {
    let value = "v".repeat(4000);
    // A literal that is added to the table, with a length of two bytes (RFC 7541, section 5.1).
    let length = value.len() - 127;
    let mut first = block(&get(&[]));
    first.extend([0x40, 1, b'x', 127, (length % 128 + 128) as u8, (length / 128) as u8]);
    first.extend(value.as_bytes());
    // The first field of the table, repeated.
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
    let next = [block(&fields), vec![0xbe; times]].concat();
    (first, next)
}

#[test]
fn headers_that_unfold_to_a_thousand_times_their_size_are_bounded() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::raw(move |call| {
        if call.asked.target == "/slow" {
            let _ = may_go_on.lock().unwrap().recv();
        }
        call.reply(Reply::text("ok"));
    });
    let config = "[gateway]\ntrusted_proxies = []";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let before = server.memory("VmRSS");
    // As large as an HTTP/1 header may be, and as large as an HTTP/2 header may be.
    for (at, times) in [31, 7].into_iter().enumerate() {
        let (first, next) = bomb("/slow", times);
        let mut connections: Vec<_> = (0..8).map(|_| Http2::open(&server)).collect();
        for connection in &mut connections {
            let stream = connection.ask_by(&first);
            assert_eq!(connection.end_of(stream), End::Answered(200));
        }
        for connection in &mut connections {
            for _ in 0..127 {
                connection.ask_by(&next);
            }
        }
        // All have been parsed; as many are being handled as one client may have.
        if at == 1 {
            wait_for("as many as may be at work", Duration::from_secs(20), || {
                (upstream.count() >= 512).then_some(())
            });
        }
        for connection in &mut connections {
            connection.wire.send(frame(PING, 0, 0, b"are all?"));
            while connection.wire.exactly(9).is_ok_and(|head| {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                connection.wire.exactly(length).is_ok() && (head[3], head[4]) != (PING, ACK)
            }) {}
        }
        let grown = server.memory("VmRSS").saturating_sub(before);
        eprintln!("{times} times 4 KiB: {} MiB more", grown / 1024);
        assert!(grown < 96 * 1024, "{times} times 4 KiB: {} MiB more", grown / 1024);
    }
    drop(go_on);
    server.kill();
}

#[test]
fn a_client_that_takes_nothing_of_an_answer_does_not_keep_the_application() {
    let upstream = Upstream::raw(|call| {
        call.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
        while call.wire.try_send(&chunk).is_ok() {}
        call.hang_up();
    });
    let config = "[timeouts]\nidle_ms = 500";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut connection = Http2::open(&server);
    let stream = connection.get("/");
    assert_eq!(connection.end_of(stream), End::Answered(200));
    // Its window is not extended, although data is still read from the connection.
    assert_eq!(connection.end_of(stream), End::Reset(8));
    wait_for("the application to be left", Duration::from_secs(10), || {
        upstream.is_left().then_some(())
    });
    assert_eq!(server.refused("not-taken"), 1);
    drop(connection);
    server.stop();
}
