//! kill -9 under load: acknowledged counts are never lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use edge_session_tests::{
    Database, Launch, Mongod, Page, Postgres, Redis, RedisCluster, RedisSentinels, Visitor,
    temp_dir, wait_for,
};

const VISITORS: usize = 24;
/// The number of acknowledged requests before something is killed.
const WARM_UP: u64 = 600;
const PATIENCE: Duration = Duration::from_secs(60);

/// Visits `/` until the results are `enough`, and returns the last acknowledged count. Every count
/// must exceed the previous one, whatever happened to the requests in between.
fn visit_until(
    visitor: &mut Visitor,
    acknowledged: &AtomicU64,
    enough: impl Fn(&Result<Page, ureq::Error>) -> bool,
) -> u64 {
    let start = Instant::now();
    let mut last = 0;
    loop {
        let outcome = visitor.try_get("/");
        if let Ok(page) = &outcome
            && page.status == 200
        {
            let count = page.count();
            assert!(count > last, "{last} was acknowledged, and now it is {count}");
            last = count;
            acknowledged.fetch_add(1, Relaxed);
        }
        if enough(&outcome) {
            return last;
        }
        assert!(start.elapsed() < PATIENCE, "still {outcome:?}");
    }
}

fn killing_the_process_loses_nothing(store: &str) {
    let launch = Launch::new(store);
    let server = launch.start();
    let acknowledged = AtomicU64::new(0);
    let visitors: Vec<(Visitor, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..VISITORS)
            .map(|_| {
                let (mut visitor, acknowledged) = (server.visitor(), &acknowledged);
                scope.spawn(move || {
                    let last = visit_until(&mut visitor, acknowledged, Result::is_err);
                    (visitor, last)
                })
            })
            .collect();
        wait_for("some load", PATIENCE, || (acknowledged.load(Relaxed) >= WARM_UP).then_some(()));
        server.kill();
        threads.into_iter().map(|thread| thread.join().expect("nothing is lost")).collect()
    });

    let server = launch.start();
    for (visitor, last) in visitors {
        let count = visitor.moved_to(server.url()).get("/").count();
        assert!(count > last, "{last} was acknowledged, and after the restart it is {count}");
    }
    server.stop();
}

#[test]
fn killing_the_process_loses_no_acknowledged_count_in_the_embedded_store() {
    let dir = temp_dir("store-");
    killing_the_process_loses_nothing(&format!("file:{}/sessions.redb", dir.path().display()));
}

#[test]
fn killing_the_process_loses_no_acknowledged_count_in_mongodb() {
    killing_the_process_loses_nothing(Database::new().url());
}

#[test]
fn killing_mongodb_loses_no_acknowledged_count() {
    let mongod = Mongod::start();
    killing_the_store_loses_nothing(&mongod.url(), || {
        mongod.kill();
        mongod.restart();
    });
}

#[test]
fn killing_redis_loses_no_acknowledged_count() {
    let redis = Redis::start();
    killing_the_store_loses_nothing(redis.url(), || {
        redis.kill();
        redis.restart();
    });
}

#[test]
fn killing_postgresql_loses_no_acknowledged_count() {
    let postgres = Postgres::start();
    killing_the_store_loses_nothing(postgres.url(), || {
        postgres.kill();
        postgres.restart();
    });
}

#[test]
fn killing_a_master_of_a_redis_cluster_loses_no_count_that_a_replica_has() {
    let cluster = RedisCluster::start();
    let launch = Launch::new(cluster.url()).env("EDGE_SESSION_STORE_WAIT_REPLICAS", "1");
    a_fail_over_loses_nothing(&launch, || {
        let master = cluster.kill_a_master();
        wait_for("the fail-over", PATIENCE, || cluster.has_failed_over().then_some(()));
        // The new master needs a replica, too.
        cluster.restart(&master);
    });
}

#[test]
fn killing_a_redis_master_that_sentinels_watch_loses_no_count_that_a_replica_has() {
    let redis = RedisSentinels::start();
    let launch = Launch::new(redis.url()).env("EDGE_SESSION_STORE_WAIT_REPLICAS", "1");
    a_fail_over_loses_nothing(&launch, || {
        redis.kill_master();
        wait_for("the fail-over", PATIENCE, || redis.have_failed_over().then_some(()));
        // The new master needs a replica, too.
        redis.restart_master();
    });
}

#[test]
fn a_redis_master_that_freezes_is_left_for_the_one_that_sentinels_name() {
    let redis = RedisSentinels::start();
    let server = Launch::new(redis.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "500").start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    redis.freeze_master();
    wait_for("the fail-over", PATIENCE, || redis.have_failed_over().then_some(()));
    wait_for("a page", PATIENCE, || (visitor.get("/").status == 200).then_some(()));
    // When it continues, it is a replica.
    redis.thaw_master();
    let count = visitor.get("/").count();
    assert_eq!(visitor.get("/").count(), count + 1);
    server.stop();
}

fn killing_the_store_loses_nothing(store: &str, kill_and_restart: impl Fn()) {
    a_fail_over_loses_nothing(&Launch::new(store), kill_and_restart);
}

/// Counts visits while `kill_and_restart` is called, until each visitor gets a page again.
fn a_fail_over_loses_nothing(launch: &Launch, kill_and_restart: impl Fn()) {
    let server = launch.start();
    let acknowledged = AtomicU64::new(0);
    let restarted = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..VISITORS {
            let (mut visitor, acknowledged, restarted) =
                (server.visitor(), &acknowledged, &restarted);
            // Until the first page after the restart of the database.
            scope.spawn(move || {
                visit_until(&mut visitor, acknowledged, |outcome| {
                    let page = outcome.as_ref().expect("the server itself never goes away");
                    assert!([200, 503].contains(&page.status), "{page:?}");
                    restarted.load(Relaxed) && page.status == 200
                })
            });
        }
        wait_for("some load", PATIENCE, || (acknowledged.load(Relaxed) >= WARM_UP).then_some(()));
        kill_and_restart();
        restarted.store(true, Relaxed);
    });
    server.stop();
}
