//! Cookies that no legitimate browser sends: each gets a new session, and nothing fails.

use std::io::{Read, Write};
use std::net::TcpStream;

use edge_session_tests::{Database, Launch, SECRET, Server, count_in};

const OTHER_SECRET: &str = "another-secret-of-the-tests-9876543210";

/// Sends GET / with these bytes as the Cookie header; returns the whole response as text.
fn get_with_cookie(server: &Server, cookie: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    let request =
        [b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nCookie: ", cookie, b"\r\n\r\n"]
            .concat();
    stream.write_all(&request).expect("the server reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("the server answers");
    String::from_utf8_lossy(&response).into_owned()
}

#[test]
fn a_bad_cookie_gets_a_fresh_session() {
    let server = Launch::new("memory:").start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let good = visitor.cookie().to_owned();
    let (id, signature) = good.rsplit_once('.').unwrap();
    let mut other = server.visitor();
    other.get("/");
    let (_, other_signature) = other.cookie().rsplit_once('.').unwrap();

    let sid = |value: &str| format!("connect.sid={value}").into_bytes();
    let cases: &[(&str, Vec<u8>)] = &[
        ("empty header", vec![]),
        ("no value", b"connect.sid".to_vec()),
        ("empty value", sid("")),
        ("unsigned", sid(id.trim_start_matches("s%3A"))),
        ("without its signature", sid(id)),
        ("empty signature", sid(&format!("{id}."))),
        ("empty identifier", sid(&format!("s%3A.{signature}"))),
        ("signature of another session", sid(&format!("{id}.{other_signature}"))),
        ("signature of zeros", sid(&format!("{id}.{}", "A".repeat(43)))),
        ("truncated", sid(&good[..good.len() - 1])),
        ("extended", sid(&format!("{good}A"))),
        ("broken escape", sid(&format!("{good}%"))),
        ("escaped zero byte", sid(&format!("{good}%00"))),
        ("64 KiB value", sid(&"A".repeat(64 * 1024))),
        ("64 KiB signed-looking value", sid(&format!("s%3A{}.{signature}", "A".repeat(64 * 1024)))),
        ("64 KiB of other cookies", "a=b; ".repeat(13_108).into_bytes()),
        ("not UTF-8", [sid("s%3A"), vec![0xff, 0xfe, b'.', 0x80, 0xc3]].concat()),
        ("escaped, not UTF-8", sid("s%3A%ff%fe.%80")),
    ];
    for (case, cookie) in cases {
        let response = get_with_cookie(&server, cookie);
        assert!(response.starts_with("HTTP/1.1 200 "), "{case}: {response}");
        assert_eq!(count_in(&response), 1, "{case}");
        assert!(!response.contains(&good), "{case}: the good session was handed out");
    }
    assert_eq!(visitor.get("/").count(), 2, "and the good one is as it was");
    server.stop();
}

#[test]
fn of_several_session_cookies_the_first_counts_that_has_a_session() {
    let server = Launch::new("memory:").start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let good = visitor.cookie();
    // A stale cookie counts as forged, or its session has ended.
    let mut gone = server.visitor();
    gone.get("/");
    let stale = gone.cookie().to_owned();
    gone.post("/logout", &[]);
    for (at, others) in
        [["s%3Aforged.AAAA", "x"], ["x", &stale], [&stale, "s%3Aforged.AAAA"]].iter().enumerate()
    {
        let [one, other] = others;
        let cookies =
            format!("connect.sid={one}; connect.sid={other}; a=b; connect.sid={good}; a=c");
        let count = 2 + 2 * at as u64;
        assert_eq!(count_in(&get_with_cookie(&server, cookies.as_bytes())), count, "{others:?}");
        let cookies = format!("connect.sid={good}; connect.sid={one}");
        assert_eq!(count_in(&get_with_cookie(&server, cookies.as_bytes())), count + 1);
    }
    server.stop();
}

#[test]
fn a_cookie_signed_with_another_secret_is_not_accepted() {
    let database = Database::new();
    let ours = Launch::new(database.url()).start();
    let theirs = Launch::new(database.url()).env("EDGE_SESSION_SECRET", OTHER_SECRET).start();
    let mut visitor = theirs.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let id = visitor.session_id();
    let mut visitor = visitor.moved_to(ours.url());
    assert_eq!(visitor.get("/").count(), 1);
    assert_ne!(visitor.session_id(), id);
    ours.stop();
    theirs.stop();
}

#[test]
fn a_cookie_signed_with_an_older_secret_is_accepted() {
    let database = Database::new();
    let before = Launch::new(database.url()).env("EDGE_SESSION_SECRET", OTHER_SECRET).start();
    let mut visitor = before.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    before.stop();

    let newest_first = format!("{SECRET},{OTHER_SECRET}");
    let after = Launch::new(database.url()).env("EDGE_SESSION_SECRET", &newest_first).start();
    assert_eq!(visitor.moved_to(after.url()).get("/").count(), 2);
    after.stop();
}
