//! Sessions in Redis, shared with Express and connect-redis.

use edge_session_tests::node::ExpressApp;
use edge_session_tests::{
    Launch, Redis, RedisCluster, SECRET, free_port, new_certificate, temp_dir,
};

#[test]
fn express_and_the_edge_count_in_one_session() {
    let redis = Redis::start();
    let edge = Launch::new(redis.url()).start();
    let express = ExpressApp::with_redis(SECRET, redis.url());
    for sides in [[edge.url(), express.url()], [express.url(), edge.url()]] {
        let mut visitor = edge.visitor();
        for count in 0..6 {
            visitor = visitor.moved_to(sides[count % 2].clone());
            assert_eq!(visitor.get("/").count(), count as u64 + 1);
        }
    }
    edge.stop();
}

#[test]
fn a_key_and_its_value_are_those_of_connect_redis() {
    let redis = Redis::start();
    let edge =
        Launch::new(redis.url()).config("preset = \"express\"\n[store]\nttl = 86400").start();
    let express = ExpressApp::with_redis(SECRET, redis.url());
    let written = [express.url(), edge.url()].map(|url| {
        let mut visitor = edge.visitor().moved_to(url);
        visitor.get("/");
        let key = format!("sess:{}", visitor.session_id());
        let left: i64 = redis.run(&["TTL", &key]).parse().expect("it has a lifetime");
        assert!((86_390..=86_400).contains(&left), "{left}");
        redis.run(&["GET", &key])
    });
    let cookie = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"#;
    assert_eq!(written[0], format!("{cookie}\"viewCount\":1}}"));
    // The built-in page also keeps a token.
    assert!(written[1].starts_with(cookie), "{}", written[1]);
    assert!(written[1].contains("\"viewCount\":1"), "{}", written[1]);
    edge.stop();
}

#[test]
fn what_redis_refuses_is_told_with_the_remedy_and_costs_no_session() {
    let redis = Redis::start();
    let server = Launch::new(redis.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();
    let mut count = 1;
    for (hurt, heal, told) in [
        (
            &["CONFIG", "SET", "maxmemory", "1"][..],
            &["CONFIG", "SET", "maxmemory", "0"][..],
            "Redis is full (OOM): raise its maxmemory",
        ),
        (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
            "is a read-only replica: the address must name the master",
        ),
        (
            &["ACL", "SETUSER", "default", "-set"],
            &["ACL", "SETUSER", "default", "+set"],
            "the Redis user may not do this",
        ),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "Redis has too few replicas to accept writes",
        ),
    ] {
        assert_eq!(redis.run(hurt), "OK");
        assert_eq!(visitor.get("/").status, 503, "{told}");
        assert!(server.log().contains(told), "{told}: {}", server.log());
        assert_eq!(redis.run(heal), "OK");
        count += 1;
        assert_eq!(visitor.get("/").count(), count, "{told}");
        assert_eq!(visitor.cookie(), cookie, "{told}");
    }
    let id = visitor.session_id();
    assert!(!server.log().contains(&id), "no identifier is logged");
    server.stop();
}

#[test]
fn what_is_no_session_is_left_alone_and_a_new_one_begins() {
    let redis = Redis::start();
    let server = Launch::new(redis.url()).start();
    for text in ["", "no JSON", "[]", "{\"a\":1}", "\u{1}"] {
        let mut visitor = server.visitor();
        visitor.get("/");
        let (key, old) = (format!("sess:{}", visitor.session_id()), visitor.session_id());
        redis.run(&["SET", &key, text]);
        assert_eq!(visitor.get("/").count(), 1, "{text:?}");
        assert_ne!(visitor.session_id(), old, "{text:?}");
        assert_eq!(redis.run(&["STRLEN", &key]), text.len().to_string(), "{text:?}");
    }
    let mut visitor = server.visitor();
    visitor.get("/");
    let key = format!("sess:{}", visitor.session_id());
    redis.run(&["DEL", &key]);
    redis.run(&["LPUSH", &key, "a list"]);
    assert_eq!(visitor.get("/").status, 503);
    assert!(server.log().contains("a session's key holds another type"), "{}", server.log());
    server.stop();
}

#[test]
fn a_password_is_needed_and_never_shown() {
    let redis = Redis::with(&["--requirepass", "hunter2"]);
    let with = |user: &str| format!("redis://{user}@127.0.0.1:{}", redis.port());
    for wrong in [redis.url().to_owned(), with(":hunter3"), with("nobody:hunter3")] {
        let output = Launch::new(&wrong).refusal();
        assert!(output.contains("Redis refuses the user or the password"), "{output}");
        assert!(!output.contains("hunter3"), "{output}");
    }
    let output = Launch::new(&format!("{}/99", with(":hunter2"))).refusal();
    assert!(output.contains("Redis does not have the database in the address"), "{output}");
    let server = Launch::new(&with(":hunter2")).start();
    assert_eq!(server.visitor().get("/").count(), 1);
    assert!(!server.log().contains("hunter2"), "{}", server.log());
    server.stop();
}

#[test]
fn a_server_that_forgets_its_scripts_is_sent_them_again() {
    let redis = Redis::start();
    let server = Launch::new(redis.url()).start();
    let mut visitor = server.visitor();
    for count in 1..=3 {
        assert_eq!(visitor.get("/").count(), count);
        assert_eq!(redis.run(&["SCRIPT", "FLUSH"]), "OK");
    }
    server.stop();
}

#[test]
fn a_prefix_and_the_options_of_connect_redis_are_respected() {
    let redis = Redis::start();
    let mut launch = Launch::new(redis.url());
    for (key, value) in [("PREFIX", "app[1]*:"), ("DISABLE_TTL", "true"), ("DISABLE_TOUCH", "true")]
    {
        launch = launch.env(&format!("EDGE_SESSION_STORE_{key}"), value);
    }
    let server = launch.clone().start();
    let mut visitor = server.visitor();
    visitor.get("/");
    visitor.get("/");
    let key = format!("app[1]*:{}", visitor.session_id());
    assert_eq!(redis.run(&["TTL", &key]), "-1");
    // As a pattern, the prefix would match these keys, and not its own.
    for other in ["app1x:other", "app1:other"] {
        redis.run(&["SET", other, "{\"cookie\":{}}"]);
    }
    let dir = temp_dir("sessions-");
    let (done, listing) = launch.run(dir.path(), &["sessions", "list"]);
    assert!(done && listing.contains("1 of about 1 sessions"), "{listing}");
    server.stop();
}

#[test]
fn a_server_is_reached_by_a_unix_socket_and_by_tls() {
    let redis = Redis::with(&["--unixsocket", "socket"]);
    let url = format!("redis+unix://{}/socket", redis.dir().display());
    let server = Launch::new(&url).start();
    assert_eq!(server.visitor().get("/").count(), 1);
    server.stop();

    let dir = temp_dir("certificate-");
    new_certificate(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (certificate, key, port) = (file("certificate.pem"), file("key.pem"), free_port());
    let port = port.to_string();
    let tls = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let _redis = Redis::with(&[&tls[..], &["--tls-auth-clients", "no"]].concat());
    let launch = Launch::new(&format!("rediss://localhost:{port}"));
    let refusal = launch.clone().refusal();
    assert!(refusal.contains("Redis cannot be reached"), "not the certificate's: {refusal}");
    let server = launch.env("SSL_CERT_FILE", &certificate).start();
    assert_eq!(server.visitor().get("/").count(), 1);
    server.stop();
}

#[test]
fn sessions_are_shared_with_a_cluster_of_servers() {
    let cluster = RedisCluster::start();
    let launch = Launch::new(cluster.url());
    let server = launch.start();
    // Their sessions are on different servers.
    for _ in 0..12 {
        let mut visitor = server.visitor();
        for count in 1..=3 {
            assert_eq!(visitor.get("/").count(), count);
        }
        visitor.log_in("ada");
        assert!(visitor.get("/account").body.contains("ada"));
        visitor.post("/logout", &[]);
        assert!(!visitor.get("/account").body.contains("ada"));
    }
    let dir = temp_dir("sessions-");
    let (done, listing) = launch.run(dir.path(), &["sessions", "list"]);
    assert!(!done && listing.contains("sessions in a Redis cluster cannot be listed"), "{listing}");
    server.stop();
}

#[test]
fn a_change_that_too_few_replicas_have_is_not_confirmed() {
    let redis = Redis::start();
    let launch = Launch::new(redis.url())
        .env("EDGE_SESSION_STORE_WAIT_REPLICAS", "1")
        .env("EDGE_SESSION_STORE_TIMEOUT_MS", "500");
    let server = launch.start();
    assert_eq!(server.visitor().get("/").status, 503);
    let told = "only 0 of 1 replicas have confirmed a change, which a fail-over may lose";
    assert!(server.log().contains(told), "{}", server.log());
    server.stop();
}
