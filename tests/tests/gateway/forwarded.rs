//! What applications receive about the origin of a request.

use edge_session_tests::{Launch, Upstream, Wire, free_port};

const SAID: &[&str] = &[
    "X-Forwarded-For: 192.0.2.1, 198.51.100.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example",
    "X-Forwarded-Port: 443",
    "X-Real-IP: 192.0.2.1",
    "Forwarded: for=192.0.2.1;proto=https",
    "X-Request-Id: from-a-proxy.1_2",
];
const UNTRUSTING: &str = "[gateway]\ntrusted_proxies = [\"10.0.0.0/8\"]";

#[test]
fn what_a_trusted_proxy_says_is_continued() {
    let upstream = Upstream::parrot();
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let answer = server.caller().get("/", SAID);
    let asked = upstream.last();
    let header = |name| asked.header(name);
    assert_eq!(header("x-forwarded-for"), Some("192.0.2.1, 198.51.100.7, 127.0.0.1"));
    assert_eq!(header("x-forwarded-proto"), Some("https"));
    assert_eq!(header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(header("x-forwarded-port"), Some("443"));
    assert_eq!(header("x-real-ip"), Some("192.0.2.1"));
    let forwarded = "for=192.0.2.1;proto=https, for=127.0.0.1;proto=http";
    assert_eq!(header("forwarded"), Some(forwarded));
    assert_eq!(header("x-request-id"), Some("from-a-proxy.1_2"));
    assert_eq!(answer.head.header("x-request-id"), Some("from-a-proxy.1_2"));
    // Several headers form one list.
    let lines = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"];
    server.caller().get("/", &lines);
    let chain = upstream.last().head.all("x-forwarded-for").join(", ");
    assert_eq!(chain, "192.0.2.1, 192.0.2.2, 127.0.0.1");
    // An id that is not suitable for logs is replaced.
    for id in ["a b", "<script>", "\u{e9}", &"x".repeat(129)] {
        server.caller().get("/", &[&format!("X-Request-Id: {id}")]);
        let asked = upstream.last();
        let new = asked.header("x-request-id").unwrap();
        assert!(new.len() == 16 && new.bytes().all(|byte| byte.is_ascii_hexdigit()), "{new}");
    }
    server.stop();
}

#[test]
fn what_anybody_else_says_is_dropped() {
    let upstream = Upstream::parrot();
    let server = Launch::new("memory:").upstream(&upstream.url()).config(UNTRUSTING).start();
    let answer = server.caller().get("/", SAID);
    let asked = upstream.last();
    let header = |name| asked.header(name);
    assert_eq!(header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(header("x-forwarded-proto"), Some("http"));
    assert_eq!(header("x-forwarded-host"), Some(&*server.address()));
    for name in ["x-forwarded-port", "x-real-ip", "forwarded"] {
        assert_eq!(header(name), None);
    }
    let id = header("x-request-id").expect("every request has a name");
    assert_ne!(id, "from-a-proxy.1_2");
    assert_eq!(answer.head.header("x-request-id"), Some(id));
    server.stop();
}

#[test]
fn every_request_has_a_name_of_its_own() {
    let upstream = Upstream::parrot();
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let ids = [(), (), ()].map(|()| {
        let answer = server.caller().get("/", &[]);
        let id = answer.head.header("x-request-id").expect("there is a name").to_owned();
        assert_eq!(upstream.last().header("x-request-id"), Some(&*id));
        id
    });
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    // An application's own id is kept.
    let answer = server.caller().get("/", &["Say: X-Request-Id: mine"]);
    assert_eq!(answer.head.header("x-request-id"), Some("mine"));
    server.stop();
}

#[test]
fn a_cookie_is_secure_where_a_trusted_proxy_ends_tls() {
    let upstream = Upstream::parrot();
    for (config, trusted) in [("", true), (UNTRUSTING, false)] {
        let launch = Launch::new("memory:").upstream(&upstream.url());
        let always = launch.config(&format!("proxy = true\n{config}\n[cookie]\nsecure = true"));
        let server = always.start();
        let new = r#"Say: Edge-Session: {"a":1}"#;
        let answer = server.caller().get("/", &[new, "X-Forwarded-Proto: https"]);
        let cookies = answer.head.all("set-cookie");
        assert_eq!(cookies.len(), usize::from(trusted), "{cookies:?}");
        assert!(cookies.iter().all(|cookie| cookie.contains("; Secure")), "{cookies:?}");
        let answer = server.caller().get("/", &[new]);
        assert_eq!(answer.head.all("set-cookie").len(), 0, "over plain HTTP");
        server.stop();

        // By default, it depends on the connection, and the application receives the same.
        for (proxy, believes) in [("", true), ("proxy = true\n", true), ("proxy = false\n", false)]
        {
            let auto = Launch::new("memory:").upstream(&upstream.url());
            let server = auto.config(&format!("{proxy}{config}")).start();
            for (proto, secure) in [("https", trusted && believes), ("http", false)] {
                let proto = format!("X-Forwarded-Proto: {proto}");
                let answer = server.caller().get("/", &[new, &proto]);
                let cookie = answer.head.header("set-cookie").expect("a session was begun");
                assert_eq!(cookie.contains("; Secure"), secure, "{proxy}: {cookie}");
                if believes {
                    let told = upstream.last().head.header("x-forwarded-proto") == Some("https");
                    assert_eq!(told, secure, "{proxy}");
                }
            }
            server.stop();
        }
    }
}

#[test]
fn a_request_that_comes_back_again_and_again_ends() {
    // Two gateways in a loop: each is the other's application.
    let [one, other] = [free_port(), free_port()];
    let gateway = |own: u16, upstream: u16| {
        let launch = Launch::new("memory:").upstream(&format!("http://127.0.0.1:{upstream}"));
        launch.listen(&format!("127.0.0.1:{own}")).start()
    };
    let (first, second) = (gateway(one, other), gateway(other, one));
    let answer = Wire::open(("127.0.0.1", one)).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer();
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert!(answer.text().contains("leads back to a gateway"), "{}", answer.text());
    let refused: u64 = [&first, &second].map(|it| it.refused("loop")).iter().sum();
    assert_eq!(refused, 1);
    first.stop();
    second.stop();
}

#[test]
fn who_has_passed_other_gateways_is_not_taken_for_a_ring() {
    let upstream = Upstream::parrot();
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    let others = "CDN-Loop: edge-session.example, a;b=c, edge-session;v=1";
    let answer = server.caller().get("/", &[others, "CDN-Loop: edge-session, x"]);
    assert_eq!(answer.status, 200);
    let passed = upstream.last();
    let passed = passed.head.all("cdn-loop").join(", ");
    assert_eq!(
        passed,
        "edge-session.example, a;b=c, edge-session;v=1, edge-session, x, edge-session"
    );
    server.stop();
}
