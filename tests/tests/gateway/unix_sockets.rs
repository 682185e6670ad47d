//! Unix sockets for listening and for reaching applications.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use edge_session_tests::{Launch, Reply, Upstream, temp_dir, wait_for};

fn app() -> Upstream {
    Upstream::app(|asked| {
        let host = asked.head.header("host").unwrap_or_default().to_owned();
        Reply::text(&format!("{} at {host}", asked.target)).line("Edge-Session-Merge: {\"n\":1}")
    })
}

/// A gateway in front of what listens on that socket.
fn in_front_of(socket: &str) -> Launch {
    Launch::new("memory:").env("EDGE_SESSION_NAME", "outer.sid").upstream(socket)
}

#[test]
fn a_gateway_listens_at_a_unix_socket_and_asks_an_application_at_one() {
    let (app, dir) = (app(), temp_dir("socket-"));
    let socket = format!("unix:{}", dir.path().join("http.sock").display());
    let inner = Launch::new("memory:").upstream(&app.url()).listen(&socket);
    let outer = in_front_of(&socket).start();
    let mut caller = outer.caller();
    assert_eq!(caller.get("/", &[]).status, 502, "nobody listens there");
    let running = inner.start();
    for _ in 0..3 {
        let answer = caller.get("/a?b", &["Host: a.example"]);
        assert_eq!((answer.status, answer.text()), (200, "/a?b at a.example".to_owned()));
    }
    let cookie = caller.get("/", &[]).head.header("set-cookie").map(str::to_owned);
    assert!(cookie.is_none_or(|cookie| !cookie.is_empty()));
    // A client of a unix socket is on this machine, and its headers are trusted.
    assert!(running.log().contains(&socket), "{}", running.log());
    let taken = inner.refusal();
    assert!(taken.contains(&format!("cannot listen on {socket}")), "{taken}");
    assert_eq!(caller.get("/a", &[]).status, 200, "the one that was first goes on");
    // The socket file of a killed process does not block a new one.
    running.kill();
    let running = inner.start();
    assert_eq!(caller.get("/a", &[]).status, 200);
    running.stop();
    outer.stop();
}

#[test]
fn what_is_no_socket_is_not_removed_for_one() {
    let (app, dir) = (app(), temp_dir("socket-"));
    let file = dir.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let launch = Launch::new("memory:").upstream(&app.url());
    let refusal = launch.listen(&format!("unix:{}", file.display())).refusal();
    assert!(refusal.contains("the file is not a socket"), "{refusal}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn a_unix_socket_may_be_handed_over() {
    let (app, dir) = (app(), temp_dir("socket-"));
    let path = dir.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let inner = Launch::new("memory:").upstream(&app.url()).start_on_unix(&listener);
    let outer = in_front_of(&format!("unix:{}", path.display())).start();
    assert_eq!(outer.caller().get("/", &[]).status, 200);
    outer.stop();
    inner.stop();
}

#[test]
fn an_application_is_named_as_it_is_told_to_listen() {
    let app = app();
    let port = app.url().rsplit_once(':').unwrap().1.to_owned();
    for short in [format!(":{port}"), format!("localhost:{port}")] {
        let server = Launch::new("memory:").upstream(&short).listen("localhost:0").start();
        wait_for("the port that was chosen", Duration::from_secs(10), || {
            server.log().contains("serving http://127.0.0.1:").then_some(())
        });
        server.stop();
        let server = Launch::new("memory:").upstream(&short).start();
        assert_eq!(server.caller().get("/", &[]).status, 200, "{short}");
        server.stop();
    }
}
