//! HTTP/2 frame by frame (RFC 9113): what is malformed, and floods.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use edge_session_tests::{Launch, Reply, Server, Upstream, Wire, wait_for};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// CANCEL (section 7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A connection that speaks HTTP/2 from its beginning. It answers no ping: a server that stops
/// waits for it as long as it may.
struct Http2(Wire);

/// What became of a stream.
#[derive(Debug, PartialEq)]
enum End {
    /// Its answer began, with one of the statuses that HPACK has a number for.
    Answered(u16),
    Reset(u32),
    /// The whole connection was ended.
    Gone(u32),
    Closed,
}

impl End {
    /// A stream error or a connection error of the kind PROTOCOL_ERROR, or 400.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Reset(1) | Self::Gone(1) | Self::Answered(400))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields as literals that no table remembers (RFC 7541, section 6.2.2).
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
    fn open(server: &Server) -> Self {
        let mut wire = server.wire();
        wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(frame(SETTINGS, 0, 0, b""));
        Self(wire)
    }

    fn ask(&mut self, stream: u32, fields: &[(&str, &str)], flags: u8) {
        self.0.send(frame(HEADERS, flags | END_HEADERS, stream, &block(fields)));
    }

    fn end_of(&mut self, stream: u32) -> End {
        loop {
            let Ok(head) = self.0.exactly(9) else { return End::Closed };
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let on = u32::from_be_bytes(head[5..9].try_into().unwrap());
            let Ok(payload) = self.0.exactly(length) else { return End::Closed };
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
                // Of a graceful end, the rest is still answered.
                GOAWAY if number(4) != 0 => return End::Gone(number(4)),
                _ => {}
            }
        }
    }
}

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
        // Section 8.2.2: what belongs to connections of HTTP/1.
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
        // The same rules as everywhere.
        get(&[("host", "b")]),
        path("/a/../b"),
        path("http://b/"),
    ] {
        let mut connection = Http2::open(&server);
        connection.ask(1, &fields, END_STREAM);
        let end = connection.end_of(1);
        assert!(end.is_refusal(), "{fields:?}: {end:?}");
    }
    assert_eq!(upstream.count(), 1);
    drop(connection);
    server.stop();
}

#[test]
fn a_body_of_http2_that_is_not_as_long_as_it_says_is_no_whole_one() {
    let (upstream, server) = pair();
    for body in ["hell", "hello!"] {
        let mut connection = Http2::open(&server);
        connection.ask(1, &get(&[("content-length", "5")]), 0);
        connection.0.send(frame(DATA, END_STREAM, 1, body.as_bytes()));
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
        // Larger than SETTINGS_MAX_FRAME_SIZE says; on no stream; of a stream that is not open;
        // settings of a wrong length; a header block that is no HPACK; an even stream.
        frame(DATA, 0, 1, &[0; 20_000]),
        frame(HEADERS, END_HEADERS, 0, &block(&get(&[]))),
        frame(DATA, END_STREAM, 5, b"x"),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 8]),
        frame(HEADERS, END_HEADERS | END_STREAM, 2, &block(&get(&[]))),
        frame(CONTINUATION, END_HEADERS, 1, &block(&get(&[]))),
    ] {
        let mut connection = Http2::open(&server);
        connection.0.send(&bytes);
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
    // A header that never ends (CVE-2024-27316).
    let mut endless = frame(HEADERS, END_STREAM, 1, &block(&get(&[])));
    let more = block(&[("x-a", &"a".repeat(100)), ("x-b", &"b".repeat(100))]);
    for _ in 0..50_000 {
        endless.extend(frame(CONTINUATION, 0, 1, &more));
    }
    // Settings that all want to be acknowledged (CVE-2019-9515).
    let settings = frame(SETTINGS, 0, 0, b"").repeat(200_000);
    for (name, bytes) in [("resets", resets), ("continuation", endless), ("settings", settings)] {
        let mut connection = Http2::open(&server);
        // It may be ended before it has sent everything.
        for part in bytes.chunks(64 * 1024) {
            if connection.0.try_send(part).is_err() {
                break;
            }
        }
        assert_eq!(server.caller().get("/", &[]).status, 200, "{name}");
        connection.0.close();
    }
    let grown = server.memory("VmHWM") - before;
    assert!(grown < 48 * 1024, "{grown} KiB more");
    let mut connection = Http2::open(&server);
    connection.ask(1, &get(&[]), END_STREAM);
    assert_eq!(connection.end_of(1), End::Answered(200));
    assert!(upstream.count() < 10_000);
    drop(connection);
    server.stop();
}

#[test]
fn who_resets_streams_has_no_more_requests_at_work_than_others() {
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
    let slow = [(":method", "GET"), (":scheme", "http"), (":path", "/slow"), (":authority", "a")];
    let limit = 128;
    for number in 0..limit {
        let stream = 2 * number as u32 + 1;
        connection.ask(stream, &slow, END_STREAM);
        // It is at work, and what it answers will be saved whoever is still there.
        wait_for("it to arrive", Duration::from_secs(10), || {
            (upstream.count() > number).then_some(())
        });
        connection.0.send(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    let stream = 2 * limit as u32 + 1;
    connection.ask(stream, &slow, END_STREAM);
    assert_eq!(server.caller().get("/", &[]).status, 200, "others are not concerned");
    assert_eq!(connection.end_of(stream), End::Reset(REFUSED_STREAM));
    assert_eq!(upstream.count(), limit + 1);
    // When one is done, the next one is begun.
    go_on.send(()).unwrap();
    wait_for("the next one", Duration::from_secs(20), || {
        let stream = connection.next(&slow);
        let is_in_time = || (upstream.count() == limit + 2).then_some(());
        is_in_time().or_else(|| match connection.end_of(stream) {
            End::Reset(REFUSED_STREAM) => None,
            end => panic!("{end:?}"),
        })
    });
    drop(go_on);
    drop(connection);
    server.stop();
}
