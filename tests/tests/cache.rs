//! The cache of sessions that were read, in front of a store that two processes share.

use std::time::Duration;

use edge_session_tests::{Database, Launch, Redis, Server, Visitor, wait_for};

fn two(cache_ms: &str) -> (Redis, Server, Server) {
    let redis = Redis::start();
    let launch = Launch::new(redis.url()).env("EDGE_SESSION_STORE_CACHE_MS", cache_ms);
    let (one, other) = (launch.start(), launch.start());
    (redis, one, other)
}

fn at(visitor: &Visitor, server: &Server) -> Visitor {
    visitor.clone().moved_to(server.url())
}

fn is_logged_in(visitor: &Visitor, server: &Server) -> bool {
    at(visitor, server).get("/account").body.contains("ada")
}

#[test]
fn changes_of_two_processes_with_old_copies_are_all_kept() {
    let (_redis, one, other) = two("60000");
    let mut visitor = one.visitor();
    visitor.get("/login");
    for number in 0..20 {
        let server = [&one, &other][number % 2];
        let page = at(&visitor, server)
            .post("/demo/set", &[("key", &format!("k{number}.")), ("value", "kept")]);
        assert!(page.status < 400, "{page:#?}");
    }
    // The last one to change it has the newest copy.
    let page = at(&visitor, &other).get("/");
    for number in 0..20 {
        assert!(page.body.contains(&format!("k{number}.")), "k{number} is lost");
    }
    one.stop();
    other.stop();
}

/// The copies would be good for a minute.
fn a_logout_elsewhere_is_told_by_the_database(url: &str) {
    let launch = Launch::new(url).env("EDGE_SESSION_STORE_CACHE_MS", "60000");
    let (one, other) = (launch.start(), launch.start());
    // The database is listened to soon after the start, and tells soon after a logout.
    let mut left: Vec<Visitor> = Vec::new();
    wait_for("a logout to be told", Duration::from_secs(20), || {
        if left.iter().any(|old| !is_logged_in(old, &other)) {
            return Some(());
        }
        let mut visitor = one.visitor();
        visitor.log_in("ada");
        visitor.get("/account");
        assert!(is_logged_in(&visitor, &one) && is_logged_in(&visitor, &other));
        at(&visitor, &one).post("/logout", &[]);
        assert!(!is_logged_in(&visitor, &one));
        left.push(visitor);
        None
    });
    one.stop();
    other.stop();
}

#[test]
fn a_logout_elsewhere_is_told_by_a_change_stream_of_mongodb() {
    let database = Database::new();
    a_logout_elsewhere_is_told_by_the_database(database.url());
}

#[test]
fn a_logout_elsewhere_is_told_by_key_events_of_redis() {
    let redis = Redis::with(&["--notify-keyspace-events", "Kg"]);
    a_logout_elsewhere_is_told_by_the_database(redis.url());
}

#[test]
fn a_logout_counts_here_at_once_and_elsewhere_in_time() {
    let (redis, one, other) = two("1000");
    let mut visitor = one.visitor();
    visitor.log_in("ada");
    visitor.get("/account");
    assert!(is_logged_in(&visitor, &one) && is_logged_in(&visitor, &other));
    let reads = || -> u64 {
        let all = redis.run(&["INFO", "commandstats"]);
        let line = all.lines().find(|line| line.starts_with("cmdstat_getrange:")).unwrap_or("");
        let calls = line.split("calls=").nth(1).and_then(|it| it.split(',').next());
        calls.and_then(|it| it.parse().ok()).unwrap_or(0)
    };
    let before = reads();
    for _ in 0..20 {
        assert!(is_logged_in(&visitor, &other));
    }
    assert!(reads() - before < 10, "{} of 20 requests read the store", reads() - before);

    let old = visitor.clone();
    at(&visitor, &one).post("/logout", &[]);
    assert!(!is_logged_in(&old, &one), "the process that has ended it");
    wait_for("the other process to notice", Duration::from_secs(5), || {
        (!is_logged_in(&old, &other)).then_some(())
    });
    one.stop();
    other.stop();
}
