//! Many concurrent requests of one visitor.

use std::thread;

use edge_session_tests::{Database, Launch, Mongod, PgBouncer, Postgres, Redis, Server, temp_dir};
use mongodb::bson::{Bson, doc};

const AT_ONCE: usize = 64;

/// Sends the writes concurrently, distributed over the servers.
fn parallel_writes_are_all_kept(servers: Vec<Server>) {
    let mut visitor = servers[0].visitor();
    visitor.get("/login");
    thread::scope(|scope| {
        for n in 0..AT_ONCE {
            let mut tab = visitor.clone().moved_to(servers[n % servers.len()].url());
            scope.spawn(move || {
                let page =
                    tab.post("/demo/set", &[("key", &format!("key-{n:02}")), ("value", "kept")]);
                assert!(page.status < 400, "{page:#?}");
            });
        }
    });
    let page = visitor.get("/");
    assert_eq!(page.count(), 1);
    let lost: Vec<_> = (0..AT_ONCE)
        .map(|n| format!("key-{n:02}"))
        .filter(|key| !page.body.contains(key))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    servers.into_iter().for_each(Server::stop);
}

/// Logs out during concurrent writes, which must not bring the session back. `stored` returns
/// whether the session of an identifier exists.
fn a_destroyed_session_stays_destroyed(server: Server, stored: impl Fn(&str) -> bool) {
    const ROUNDS: usize = 4;
    for _ in 0..ROUNDS {
        let mut visitor = server.visitor();
        visitor.log_in("ada");
        visitor.get("/account");
        let (id, mut ghost) = (visitor.session_id(), visitor.clone());
        thread::scope(|scope| {
            for n in 0..AT_ONCE {
                let mut tab = visitor.clone();
                // Late ones are refused; how many is random.
                scope.spawn(move || {
                    tab.post("/demo/set", &[("key", &format!("key-{n}")), ("value", "late")])
                });
                if n == AT_ONCE / 2 {
                    let mut leaving = visitor.clone();
                    scope.spawn(move || assert_eq!(leaving.post("/logout", &[]).status, 303));
                }
            }
        });
        assert!(!stored(&id), "it was destroyed and is stored again");
        assert_eq!(ghost.get("/account").status, 302, "the old cookie still logs in");
        assert_eq!(ghost.get("/").count(), 1);
        assert_ne!(ghost.session_id(), id, "an identifier that was destroyed is in use again");
    }
    server.stop();
}

#[test]
fn sixty_four_parallel_writes_are_all_kept_in_memory() {
    parallel_writes_are_all_kept(vec![Launch::new("memory:").start()]);
}

#[test]
fn sixty_four_parallel_writes_are_all_kept_in_the_embedded_store() {
    let dir = temp_dir("store-");
    let store = format!("file:{}/sessions.redb", dir.path().display());
    parallel_writes_are_all_kept(vec![Launch::new(&store).start()]);
}

#[test]
fn sixty_four_parallel_writes_are_all_kept_in_mongodb() {
    let database = Database::new();
    parallel_writes_are_all_kept(vec![Launch::new(database.url()).start()]);
}

#[test]
fn sixty_four_parallel_writes_through_two_processes_are_all_kept_in_mongodb() {
    let database = Database::new();
    let launch = Launch::new(database.url());
    parallel_writes_are_all_kept(vec![launch.start(), launch.start()]);
}

#[test]
fn sixty_four_parallel_writes_through_two_processes_are_all_kept_in_redis() {
    let redis = Redis::start();
    let launch = Launch::new(redis.url());
    parallel_writes_are_all_kept(vec![launch.start(), launch.start()]);
}

#[test]
fn sixty_four_parallel_writes_are_all_kept_behind_a_pgbouncer_in_its_transaction_mode() {
    let postgres = PgBouncer::start();
    let launch = Launch::new(postgres.url()).env("EDGE_SESSION_STORE_CREATE_TABLE", "true");
    parallel_writes_are_all_kept(vec![launch.start(), launch.start()]);
}

#[test]
fn sixty_four_parallel_writes_through_two_processes_are_all_kept_in_postgresql() {
    let postgres = Postgres::start();
    let launch = Launch::new(postgres.url());
    parallel_writes_are_all_kept(vec![launch.start(), launch.start()]);
}

/// Sends a thousand concurrent changes, distributed over the servers: all are kept, with at most
/// three store operations each.
fn a_thousand_changes_at_once_are_no_storm(mongod: &Mongod, servers: Vec<Server>) {
    const CHANGES: usize = 1000;
    let asked = || {
        let status = mongod.admin(doc! { "serverStatus": 1 });
        let counters = status.get_document("opcounters").unwrap();
        let count = |name| {
            counters
                .get(name)
                .and_then(Bson::as_i64)
                .unwrap_or_else(|| counters.get_i32(name).map_or(0, i64::from))
        };
        ["insert", "query", "update", "delete"].map(count).iter().sum::<i64>()
    };
    let mut visitor = servers[0].visitor();
    visitor.get("/login");
    let before = asked();
    thread::scope(|scope| {
        for n in 0..CHANGES {
            let mut tab = visitor.clone().moved_to(servers[n % servers.len()].url());
            scope.spawn(move || {
                let page = tab.post("/demo/set", &[("key", &format!("k{n}.")), ("value", "kept")]);
                assert!(page.status < 400, "{page:#?}");
            });
        }
    });
    let asked = asked() - before;
    println!("{asked} operations");
    assert!(asked <= 3 * CHANGES as i64, "{asked} operations");
    let page = visitor.get("/");
    let lost: Vec<_> =
        (0..CHANGES).map(|n| format!("k{n}.")).filter(|key| !page.body.contains(key)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    servers.into_iter().for_each(Server::stop);
}

#[test]
fn a_thousand_parallel_writes_are_all_kept_in_mongodb_and_are_no_storm() {
    let mongod = Mongod::start();
    let server = Launch::new(&mongod.url()).start();
    a_thousand_changes_at_once_are_no_storm(&mongod, vec![server]);
}

#[test]
fn a_thousand_parallel_writes_through_two_processes_are_no_storm() {
    let mongod = Mongod::start();
    let launch = Launch::new(&mongod.url());
    let servers = vec![launch.start(), launch.start()];
    a_thousand_changes_at_once_are_no_storm(&mongod, servers);
}

// The servers can be inspected by a test; for other stores, the pages show the result.

#[test]
fn a_session_destroyed_amid_writes_stays_destroyed_in_memory() {
    a_destroyed_session_stays_destroyed(Launch::new("memory:").start(), |_| false);
}

#[test]
fn a_session_destroyed_amid_writes_stays_destroyed_in_the_embedded_store() {
    let dir = temp_dir("store-");
    let store = format!("file:{}/sessions.redb", dir.path().display());
    a_destroyed_session_stays_destroyed(Launch::new(&store).start(), |_| false);
}

#[test]
fn a_session_destroyed_amid_writes_stays_destroyed_in_mongodb() {
    let database = Database::new();
    let server = Launch::new(database.url()).start();
    a_destroyed_session_stays_destroyed(server, |id| database.session(id).is_some());
}

#[test]
fn a_session_destroyed_amid_writes_stays_destroyed_in_redis() {
    let redis = Redis::start();
    let server = Launch::new(redis.url()).start();
    a_destroyed_session_stays_destroyed(server, |id| {
        redis.run(&["EXISTS", &format!("sess:{id}")]) == "1"
    });
}

#[test]
fn a_session_destroyed_amid_writes_stays_destroyed_in_postgresql() {
    let postgres = Postgres::start();
    let server = Launch::new(postgres.url()).start();
    a_destroyed_session_stays_destroyed(server, |id| {
        postgres.run(&format!("SELECT count(*) FROM session WHERE sid = '{id}'")) == "1"
    });
}
