//! Applications that are down, failing, slow, or send invalid responses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use edge_session_tests::{Call, Launch, Reply, Server, Upstream, free_port, wait_for};

fn gateway(url: &str, config: &str) -> Server {
    Launch::new("memory:").upstream(url).config(config).start()
}

const SOON: Duration = Duration::from_secs(5);

#[test]
fn an_application_that_cannot_be_reached_is_a_bad_gateway() {
    let server = gateway(
        &format!("http://127.0.0.1:{}", free_port()),
        "[timeouts]\nconnect_ms = 300\nresponse_ms = 5000",
    );
    let answer = server.caller().get("/", &[]);
    assert_eq!(answer.status, 502);
    assert_eq!(answer.head.header("cache-control"), Some("no-store"));
    assert!(answer.head.header("x-request-id").is_some());
    assert_eq!(server.refused("upstream-unreachable"), 1);
    // There is no other one to try.
    assert_eq!(server.metric("edge_session_upstream_retries_total"), 0);
    server.stop();

    // TEST-NET-1: packets may be dropped forever, or refused at once.
    let server = gateway("http://192.0.2.1", "[timeouts]\nconnect_ms = 300\nresponse_ms = 5000");
    let start = Instant::now();
    assert_eq!(server.caller().ask("POST", "/", &[], b"x").status, 502);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    server.stop();
}

#[test]
fn an_application_that_gives_no_answer_is_a_bad_gateway() {
    let upstream = Upstream::raw(|call| {
        let answer: &[u8] = match &*call.asked.target {
            "/dies" => b"",
            "/half" => b"HTTP/1.1 200 OK\r\nContent-",
            "/garbage" => b"\x00\xff\xfe not HTTP\r\n\r\n",
            "/greets" => b"220 mail.example ESMTP\r\n\r\n",
            "/nul" => b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "/folded" => b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "/status" => b"HTTP/1.1 9999 OK\r\n\r\n",
            "/lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "/unasked" => {
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                            Upgrade: websocket\r\n\r\n\x81\x01x"
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        call.say(answer);
        if call.asked.target != "/" {
            call.hang_up();
        }
    });
    let server = gateway(&upstream.url(), "");
    let mut caller = server.caller();
    let targets = [
        "/dies", "/half", "/garbage", "/greets", "/nul", "/status", "/lengths", "/length",
        "/unasked",
    ];
    for target in targets {
        let answer = caller.ask("POST", target, &[], b"x");
        assert_eq!(answer.status, 502, "{target}: {answer:#?}");
        assert_eq!(caller.get("/", &[]).text(), "ok", "after {target}");
    }
    assert_eq!(server.refused("upstream-failed"), targets.len() as u64);
    let folded = caller.get("/folded", &[]);
    assert!(folded.status == 502 || folded.head.header("x") == Some("a b"), "{folded:#?}");
    server.stop();
}

#[test]
fn an_application_that_never_answers_is_a_timeout() {
    let upstream = Upstream::raw(|call| {
        if call.asked.target == "/" {
            return call.reply(Reply::text("ok"));
        }
        let _ = call.wire.some();
    });
    let server = gateway(&upstream.url(), "[timeouts]\nresponse_ms = 300");
    let mut caller = server.caller();
    assert_eq!(caller.get("/hangs", &[]).status, 504);
    assert_eq!(caller.ask("POST", "/hangs", &[], b"x").status, 504);
    assert_eq!(server.refused("upstream-timeout"), 2);
    assert_eq!(upstream.count(), 2, "what took too long once is not asked for again");
    assert_eq!(caller.get("/", &[]).status, 200);
    server.stop();
}

#[test]
fn an_answer_that_ends_early_is_not_a_whole_one() {
    let upstream = Upstream::raw(|call| {
        let answer = match &*call.asked.target {
            "/chunks" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                          5\r\nhello\r\n"
            }
            "/midst" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "/nonsense" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                            5\r\nhello\r\nzz\r\n\r\n"
            }
            "/more" => {
                // At once: what comes only after the next request is the response to that.
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
                 HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
            }
            _ => return call.reply(Reply::text("ok")),
        };
        call.say(answer);
        if call.asked.target != "/more" {
            call.hang_up();
        }
    });
    let server = gateway(&upstream.url(), "");
    let mut caller = server.caller();
    for (at, target) in ["/chunks", "/midst", "/length", "/nonsense"].iter().enumerate() {
        let mut wire = caller.begin("GET", target, &[], b"");
        let answer = wire.try_answer();
        assert!(answer.is_err(), "{target} looks whole: {answer:#?}");
        let cut = "edge_session_responses_cut_total";
        wait_for("the count", SOON, || (server.metric(cut) == at as u64 + 1).then_some(()));
        assert_eq!(caller.get("/", &[]).text(), "ok", "after {target}");
    }
    // What follows the end of a response is discarded.
    for _ in 0..3 {
        assert_eq!(caller.get("/more", &[]).text(), "hello");
        assert_eq!(caller.get("/", &[]).text(), "ok");
    }
    server.stop();
}

#[test]
fn an_answer_that_stalls_is_cut() {
    let upstream = Upstream::raw(|call| {
        call.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let _ = call.wire.some();
    });
    let server = gateway(&upstream.url(), "[timeouts]\nidle_ms = 300");
    let start = Instant::now();
    assert!(server.caller().begin("GET", "/", &[], b"").try_answer().is_err());
    assert!(start.elapsed() < SOON);
    server.stop();
}

#[test]
fn a_get_is_tried_once_more_elsewhere_and_a_post_is_not() {
    let dies = |call: &mut Call| call.hang_up();
    let (one, other) = (Upstream::raw(dies), Upstream::raw(dies));
    let server = gateway(&format!("{},{}", one.url(), other.url()), "");
    let mut caller = server.caller();
    assert_eq!(caller.get("/", &[]).status, 502);
    assert_eq!((one.count(), other.count()), (1, 1), "each one once");
    for (at, method) in ["POST", "PUT", "DELETE", "PATCH"].iter().enumerate() {
        assert_eq!(caller.ask(method, "/", &[], b"x").status, 502);
        assert_eq!(one.count() + other.count(), 2 + at + 1, "{method} twice");
    }
    // Nor is a GET whose body is being sent.
    assert_eq!(caller.ask("GET", "/", &[], b"x").status, 502);
    assert_eq!(one.count() + other.count(), 7);
    server.stop();

    let well = Upstream::app(|_| Reply::text("well"));
    let both = format!("{}, {}", one.url(), well.url());
    let server = gateway(&both, "");
    let mut caller = server.caller();
    for _ in 0..6 {
        assert_eq!(caller.get("/", &[]).text(), "well");
    }
    let down = format!("http://127.0.0.1:{}", free_port());
    let server_with_one_down = gateway(&format!("{down},{}", well.url()), "");
    let mut caller = server_with_one_down.caller();
    assert_eq!(caller.get("/", &[]).text(), "well");
    // By now, the gateway knows which one is down.
    for _ in 0..6 {
        assert_eq!(caller.ask("POST", "/", &[], b"x").text(), "well");
    }
    server.stop();
    server_with_one_down.stop();
}

#[test]
fn several_applications_take_turns() {
    let [one, other] = ["one", "other"].map(|name| Upstream::app(move |_| Reply::text(name)));
    let server = gateway(&format!("{},{}", one.url(), other.url()), "");
    let mut caller = server.caller();
    for _ in 0..10 {
        caller.ask("POST", "/", &[], b"x");
    }
    assert_eq!((one.count(), other.count()), (5, 5));
    server.stop();
}

#[test]
fn an_ill_application_is_left_alone_until_it_is_well_again() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let health = is_ill.clone();
    let one = Upstream::app(move |asked| match &*asked.target {
        "/health?deep" if health.load(Relaxed) => Reply::new(503),
        _ => Reply::text("one"),
    });
    let other = Upstream::app(|_| Reply::text("other"));
    let server = gateway(
        &format!("{},{}", one.url(), other.url()),
        "[gateway]\nhealth_path = \"/health?deep\"\nhealth_interval_ms = 50",
    );
    let up = format!("edge_session_upstream_up{{upstream=\"{}\"}}", one.address());
    let mut caller = server.caller();
    let mut answers =
        || -> Vec<String> { (0..6).map(|_| caller.ask("POST", "/", &[], b"x").text()).collect() };
    for _ in 0..2 {
        wait_for("it to be well", SOON, || (server.metric(&up) == 1).then_some(()));
        assert!(answers().contains(&"one".to_owned()));
        is_ill.store(true, Relaxed);
        wait_for("it to be ill", SOON, || (server.metric(&up) == 0).then_some(()));
        assert_eq!(answers(), ["other"; 6]);
        is_ill.store(false, Relaxed);
    }
    server.stop();
}

#[test]
fn routes_are_chosen_by_host_and_path() {
    let [root, api, v2, shop] =
        ["root", "api", "v2", "shop"].map(|name| Upstream::app(move |_| Reply::text(name)));
    let config = format!(
        "[[route]]\npath = \"/app\"\nupstream = \"{}\"\n\
         [[route]]\npath = \"/api\"\nupstream = \"{}\"\n\
         [[route]]\npath = \"/api/v2\"\nupstream = [\"{}\"]\n\
         [[route]]\nhost = \"shop.example\"\nupstream = \"{}\"\n",
        root.url(),
        api.url(),
        v2.url(),
        shop.url(),
    );
    let server = Launch::new("memory:").as_gateway().config(&config).start();
    let mut caller = server.caller();
    for (host, path, text) in [
        ("a.example", "/app", "root"),
        ("a.example", "/app/x", "root"),
        ("a.example", "/api", "api"),
        ("a.example", "/API/x?y", "api"),
        ("a.example", "/api//", "api"),
        ("a.example", "/api/v20", "api"),
        ("a.example", "/api/v2/x", "v2"),
        ("shop.example", "/api/v2", "shop"),
        ("SHOP.example:8080", "/", "shop"),
    ] {
        let answer = caller.get(path, &[&format!("Host: {host}")]);
        assert_eq!(answer.text(), text, "{host}{path}");
    }
    for (host, path) in
        [("a.example", "/"), ("a.example", "/apiary"), ("a.shop.example", "/"), ("shop", "/")]
    {
        let answer = caller.get(path, &[&format!("Host: {host}")]);
        assert_eq!(answer.status, 404, "{host}{path}");
    }
    assert_eq!(server.refused("no-route"), 4);
    server.stop();
}

#[test]
fn requests_one_after_another_use_one_connection_to_an_application() {
    let upstream = Upstream::raw(|call| {
        call.read_body().unwrap();
        match call.asked.target.as_str() {
            "/chunks" => call
                .say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            "/nothing" => call.reply(Reply::new(204)),
            _ => call.reply(Reply::text("ok")),
        }
    });
    let server = gateway(&upstream.url(), "");
    let mut caller = server.caller();
    for (method, target, body) in [
        ("GET", "/", &b""[..]),
        ("GET", "/chunks", b""),
        ("POST", "/", b"hello"),
        ("GET", "/nothing", b""),
        ("GET", "/", b""),
    ] {
        let status = caller.ask(method, target, &[], body).status;
        assert_eq!(status, if target == "/nothing" { 204 } else { 200 });
    }
    assert_eq!(upstream.received().len(), 1);
    // Node keeps them for 5 s.
    wait_for("it to be closed", Duration::from_secs(10), || upstream.is_left().then_some(()));
    assert_eq!(caller.get("/", &[]).status, 200);
    assert_eq!(upstream.received().len(), 2);
    server.stop();
}

#[test]
fn an_answer_to_the_beginning_of_a_body_is_one_and_the_rest_arrives_too() {
    let upstream = Upstream::raw(|call| {
        if call.asked.method == "POST" {
            call.reply(Reply::text("enough"));
            call.read_body().unwrap();
        } else {
            call.reply(Reply::text("ok"));
        }
    });
    let server = gateway(&upstream.url(), "[limits]\nbuffer_bytes = 0");
    let mut wire = server.wire();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(wire.answer().text(), "enough");
    wire.send("world");
    wait_for("the rest", Duration::from_secs(5), || {
        (upstream.last().body == b"helloworld").then_some(())
    });
    assert_eq!(server.caller().get("/", &[]).status, 200);
    server.stop();
}

#[test]
fn a_connection_that_an_application_closes_while_it_is_idle_costs_no_request() {
    // Like servers that close kept connections after a while: right after a response.
    let upstream = Upstream::raw(|call| {
        if call.read_body().is_ok() {
            call.reply(Reply::text("ok"));
            call.hang_up();
        }
    });
    let server = gateway(&upstream.url(), "");
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    if server.caller().get("/", &[]).status != 200 {
                        failed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(failed.load(Relaxed), 0, "a GET can be sent again");
    server.stop();
}

#[test]
fn an_answer_in_chunks_is_whole_whatever_length_it_claims() {
    let upstream = Upstream::raw(|call| {
        call.say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n",
        );
    });
    let server = gateway(&upstream.url(), "");
    let answer = server.caller().get("/", &[]);
    // RFC 9112, section 6.3: chunks take precedence, or else the response is invalid.
    assert!(answer.status == 502 || answer.text() == "hello", "{answer:#?}");
    server.stop();
}

#[test]
fn an_application_of_http_1_0_costs_no_visitor_a_connection() {
    let upstream = Upstream::raw(|call| {
        call.say("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
        call.hang_up();
    });
    let server = gateway(&upstream.url(), "");
    let mut wire = server.wire();
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = wire.answer();
        // RFC 9110, section 2.5: the version is that of this connection.
        assert_eq!(answer.head.first, "HTTP/1.1 200 OK");
    }
    server.stop();
}

#[test]
fn an_exchange_that_takes_longer_than_it_may_ends() {
    let app = Upstream::raw(|call| {
        call.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // There is always progress, and it never ends.
        while call.wire.try_send("1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        call.hang_up();
    });
    let server = Launch::new("memory:")
        .upstream(&app.url())
        .env("EDGE_SESSION_TIMEOUTS_WHOLE_MS", "500")
        .start();
    let began = Instant::now();
    let mut wire = server.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(wire.head().first.contains("200"));
    let rest = wire.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the end does not look like one");
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    server.stop();
}

#[test]
fn more_connections_than_may_be_open_wait_until_others_end() {
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let app = Upstream::raw(move |call| {
        let _ = may_go_on.lock().unwrap().recv();
        call.reply(Reply::text("ok"));
    });
    let server = Launch::new("memory:")
        .upstream(&app.url())
        .env("EDGE_SESSION_LIMITS_CONNECTIONS", "2")
        .start();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut open: Vec<_> = (0..2).map(|_| server.wire()).collect();
    for wire in &mut open {
        wire.send(ask);
    }
    let at_work = || (app.count() == 2).then_some(());
    wait_for("both to be at work", Duration::from_secs(5), at_work);
    let mut third = server.wire();
    third.send(ask);
    wait_for("the gateway to be full", Duration::from_secs(5), || {
        server.log().contains("new connections wait").then_some(())
    });
    assert_eq!(app.count(), 2, "the third one waits");
    go_on.send(()).unwrap();
    wait_for("the third one", Duration::from_secs(5), || (app.count() == 3).then_some(()));
    drop(go_on);
    assert_eq!(third.answer().status, 200);
    server.stop();
}
