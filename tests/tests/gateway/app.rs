//! `edge-session serve --app`: the application is a component in the same process.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use edge_session_tests::{
    Caller, Launch, Server, Upstream, checkout, count_files, temp_dir, wait_for,
};

const MIB: usize = 1 << 20;

fn with_app(config: &str) -> Server {
    Launch::new("memory:").config(config).app("wasi-app-for-tests.wasm").start()
}

#[test]
fn the_sample_counts_visits_and_logs_in_and_out() {
    let dir = temp_dir("app-");
    let store = format!("file:{}", dir.path().join("sessions.redb").display());
    let launch = Launch::new(&store).app("wasi-app.wasm");
    let server = launch.start();
    let mut caller = server.caller();
    for count in 1..=3 {
        let page = caller.get("/", &[]).text();
        assert_eq!(page.trim(), format!("you have visited this page {count} times"));
    }
    let before = caller.session_id();
    assert_eq!(caller.ask("POST", "/login", &[], b"").text().trim(), "welcome, ada");
    assert_ne!(caller.session_id(), before, "a login gives a new identifier");
    let cookie = caller.cookie.clone();
    server.stop();

    let server = launch.start();
    let mut caller = server.caller();
    caller.cookie = cookie;
    assert!(caller.get("/", &[]).text().contains(" 4 times"), "the store has kept it");
    caller.ask("POST", "/logout", &[], b"");
    assert!(caller.get("/", &[]).text().contains(" 1 times"));
    server.stop();
}

#[test]
fn it_listens_when_the_application_is_compiled() {
    // Nothing has been compiled before.
    let cache = tempfile::tempdir().unwrap();
    let launch = Launch::new("memory:").app("wasi-app.wasm");
    let server = launch.env("XDG_CACHE_HOME", cache.path().to_str().unwrap()).begin();
    let admin = format!("127.0.0.1:{}", server.admin_port());
    let listens = |address: &str| {
        wait_for("it to listen", Duration::from_secs(120), || TcpStream::connect(address).ok())
    };
    listens(&server.address());
    let compiled = count_files(cache.path());
    assert_eq!(server.caller().get("/", &[]).status, 200);
    assert_eq!(count_files(cache.path()), compiled, "something was compiled for the first request");
    listens(&admin);
    assert_eq!(ureq::get(format!("http://{admin}/readyz")).call().unwrap().status(), 200);
    server.stop();
}

#[test]
fn an_application_hears_and_says_what_it_may() {
    let server = with_app("");
    let planted = ["Edge-Session: {\"admin\":true}", "Edge_Session: {\"admin\":true}"];
    let answer = server.caller().get("/parrot", &planted);
    assert_eq!(answer.head.header("told-edge-session"), Some("{}"));
    assert_eq!(answer.head.header("told-edge_session"), None);
    assert!(answer.head.header("told-edge-session-id").is_some());
    let bad = server.caller().get("/parrot", &["Say: Edge-Session: {"]);
    assert_eq!(bad.status, 502);
    assert!(!bad.head.has_any("set-cookie"));
    server.stop();
}

#[test]
fn bodies_stream_both_ways() {
    let server = with_app("[limits]\nbuffer_bytes = 0");
    let mut wire = server.caller().begin("POST", "/parrot", &["Transfer-Encoding: chunked"], b"");
    wire.send("5\r\nhello\r\n");
    assert_eq!(wire.head().status(), 200);
    assert_eq!(wire.chunk().unwrap(), b"hello", "before the rest was sent");
    let before = server.memory("VmHWM");
    let part = vec![b'x'; MIB / 4];
    for _ in 0..128 {
        wire.send(format!("{:x}\r\n", part.len())).send(&part).send("\r\n");
        let mut echoed = 0;
        while echoed < part.len() {
            echoed += wire.chunk().unwrap().len();
        }
        assert_eq!(echoed, part.len());
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.chunk().unwrap(), b"");
    let grown = server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more for a body of 32 MiB");
    server.stop();
}

/// A visitor whose session must survive whatever happens to other requests.
struct Regular(Caller);

impl Regular {
    fn of(server: &Server) -> Self {
        let mut caller = server.caller();
        caller.get("/", &["X-Deeds: [[\"set\",\"n\",1]]"]);
        Self(caller)
    }

    fn is_well(&mut self) {
        assert_eq!(self.0.get("/", &[]).json()["data"]["n"], 1);
    }
}

#[test]
fn an_application_that_fails_costs_its_own_requests() {
    let server = with_app("");
    let mut regular = Regular::of(&server);
    for target in ["/trap", "/greedy"] {
        assert_eq!(server.caller().get(target, &[]).status, 502, "{target}");
        regular.is_well();
    }
    assert_eq!(server.metric("edge_session_app_traps_total"), 2);
    server.stop();
}

#[test]
fn an_application_that_never_answers_is_not_waited_for() {
    let server = with_app("[timeouts]\nresponse_ms = 500");
    let mut regular = Regular::of(&server);
    assert_eq!(server.caller().get("/never", &[]).status, 504);
    regular.is_well();

    // Other requests are answered during and after one that computes endlessly.
    thread::scope(|scope| {
        let endless = scope.spawn(|| server.caller().get("/loop", &[]).status);
        while !endless.is_finished() {
            regular.is_well();
        }
        assert_eq!(endless.join().unwrap(), 504);
    });
    wait_for("the instance to be ended", Duration::from_secs(20), || {
        server.log().contains("guest timed out").then_some(())
    });
    regular.is_well();
    server.stop();
}

#[test]
fn many_visitors_are_counted_at_once() {
    let server = Launch::new("memory:").app("wasi-app.wasm").start();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut caller = server.caller();
                for count in 1..=25 {
                    let page = caller.get("/", &[]).text();
                    assert_eq!(page.trim(), format!("you have visited this page {count} times"));
                }
            });
        }
    });
    server.stop();
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let dir = temp_dir("app-");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let text = file("app.txt", b"hello");
    let module = file("module.wasm", b"\0asm\x01\0\0\0");
    let session = checkout().join("host/session.wasm").display().to_string();
    let middleware = checkout().join("target/middleware.wasm").display().to_string();
    for (path, what) in [
        ("/does/not/exist.wasm", "cannot read the application /does/not/exist.wasm"),
        (&text, "app.txt is not a WebAssembly component"),
        (&module, "module.wasm is not a WebAssembly component"),
        (&session, "exports neither wasi:http/handler@0.3 nor wasi:http/incoming-handler@0.2"),
        (&middleware, "imports something that is not available"),
    ] {
        let output = Launch::new("memory:").env("EDGE_SESSION_APP", path).refusal();
        assert!(output.contains(what), "{what:?} is not in: {output}");
    }
    let upstream = Upstream::parrot();
    let both = Launch::new("memory:").app("wasi-app.wasm").upstream(&upstream.url()).refusal();
    assert!(both.contains("app: excludes `upstream`"), "{both}");
}
