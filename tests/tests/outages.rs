//! A store that becomes unavailable and returns, and a server that is stopped.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use edge_session_tests::{
    Database, Launch, Mongod, Postgres, Redis, Server, Visitor, temp_dir, wait_for,
};
use mongodb::bson::doc;

/// The maximum time until a 503. The server's own deadline is 2 s per operation.
const PATIENCE: Duration = Duration::from_secs(5);
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// Uses a store of its own, so that no other test is affected by the outage.
fn outage_and_recovery(store: &str, hurt: impl Fn(), heal: impl Fn()) {
    let server = Launch::new(store).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();

    hurt();
    for path in ["/", "/", "/healthz"] {
        let asked = Instant::now();
        assert_eq!(visitor.get(path).status, 503, "{path} without a store");
        assert!(asked.elapsed() < PATIENCE, "{path} took {:?}", asked.elapsed());
    }
    assert_eq!(visitor.cookie(), cookie, "an outage must cost nobody their session");

    heal();
    assert!(recovered_count(&server, &mut visitor) >= 2);
    assert_eq!(visitor.cookie(), cookie);
    server.stop();
}

fn recovered_count(server: &Server, visitor: &mut Visitor) -> u64 {
    wait_for("the server to be healthy again", RECOVERED_WITHIN, || {
        (server.visitor().get("/healthz").status == 200).then_some(())
    });
    visitor.get("/").count()
}

#[test]
fn a_mongodb_that_dies_is_a_503_until_it_is_back() {
    let mongod = Mongod::start();
    outage_and_recovery(&mongod.url(), || mongod.kill(), || mongod.restart());
}

#[test]
fn a_mongodb_that_hangs_is_a_503_until_it_goes_on() {
    let mongod = Mongod::start();
    outage_and_recovery(&mongod.url(), || mongod.freeze(), || mongod.thaw());
}

#[test]
fn a_redis_that_dies_is_a_503_until_it_is_back() {
    let redis = Redis::start();
    outage_and_recovery(redis.url(), || redis.kill(), || redis.restart());
}

#[test]
fn a_redis_that_hangs_is_a_503_until_it_goes_on() {
    let redis = Redis::start();
    outage_and_recovery(redis.url(), || redis.freeze(), || redis.thaw());
}

#[test]
fn a_postgresql_that_dies_is_a_503_until_it_is_back() {
    let postgres = Postgres::start();
    outage_and_recovery(postgres.url(), || postgres.kill(), || postgres.restart());
}

#[test]
fn a_postgresql_that_hangs_is_a_503_until_it_goes_on() {
    let postgres = Postgres::start();
    outage_and_recovery(postgres.url(), || postgres.freeze(), || postgres.thaw());
}

#[test]
fn a_file_store_on_a_full_disk_can_be_read_and_is_written_again_when_there_is_space() {
    let folder = temp_dir("disk-");
    let store = format!("file:{}", folder.path().join("sessions.redb").display());
    // Every visit is a touch.
    let launch = Launch::new(&store).config("[store]\ntouch_after = 0\n");
    let server = launch.disk(folder.path(), 8 << 20).start();
    let mut ada = server.visitor();
    ada.log_in("ada");
    let cookie = ada.cookie().to_owned();

    let filler = server.sees(folder.path()).join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    // The database has some space of its own.
    wait_for("the database to be full", RECOVERED_WITHIN, || {
        (server.visitor().get("/").status == 503).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(server.visitor().get("/").status, 503);
        assert_eq!(server.visitor().get("/healthz").status, 503);
        let account = ada.get("/account");
        assert!(account.status == 200 && account.body.contains("ada"), "{account:?}");
    }
    assert_eq!(ada.cookie(), cookie);

    fs::remove_file(filler).unwrap();
    drop(file);
    assert_eq!(recovered_count(&server, &mut ada), 1);
    assert_eq!(ada.cookie(), cookie);
    server.stop();
}

#[test]
fn sigterm_lets_a_request_in_flight_finish() {
    let mongod = Mongod::start();
    let server = Launch::new(&mongod.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);

    mongod.admin(doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 1000 },
    });
    let in_flight = thread::spawn(move || visitor.get("/").count());
    mongod.admin(doc! {
        "waitForFailPoint": "failCommand",
        "timesEntered": 1,
        "maxTimeMS": 10_000,
    });
    server.stop();
    assert_eq!(in_flight.join().expect("the request was answered"), 2);
}

#[test]
fn a_mongodb_that_can_only_be_read_is_not_healthy() {
    let mongod = Mongod::start();
    let server = Launch::new(&mongod.url()).start();
    assert_eq!(server.visitor().get("/healthz").status, 200);
    // The error of a user with the role `read`: "not authorized".
    mongod.admin(doc! {
        "configureFailPoint": "failCommand",
        "mode": "alwaysOn",
        "data": { "failCommands": ["update"], "errorCode": 13 },
    });
    assert_eq!(server.visitor().get("/healthz").status, 503);
    mongod.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" });
    assert_eq!(server.visitor().get("/healthz").status, 200);
    server.stop();
}

#[test]
fn a_collection_that_is_not_quite_as_wished_is_used_and_what_is_missing_is_named() {
    let index = |name: &str, after: Option<i32>| {
        let mut index = doc! { "key": { "expires": 1 }, "name": name };
        index.extend(after.map(|after| ("expireAfterSeconds".to_owned(), after.into())));
        doc! { "createIndexes": "sessions", "indexes": [index] }
    };
    let capped = doc! { "create": "sessions", "capped": true, "size": 1 << 20 };
    for (case, command, is_warned_of) in [
        ("the same index under another name", index("mine", Some(0)), false),
        ("an index that expires nothing", index("expires_1", None), true),
        ("an index that expires later", index("expires_1", Some(3600)), true),
        ("a capped collection", capped, true),
    ] {
        let database = Database::new();
        database.run(command);
        let server = Launch::new(database.url()).start();
        let mut visitor = server.visitor();
        assert_eq!([visitor.get("/").count(), visitor.get("/").count()], [1, 2], "{case}");
        let warning = "expired sessions are not removed from MongoDB";
        assert_eq!(server.log().contains(warning), is_warned_of, "{case}: {}", server.log());
        server.stop();
    }
}

#[test]
fn a_user_who_may_not_make_the_index_is_told_of_it_and_served() {
    let mongod = Mongod::start();
    mongod.admin(doc! {
        "configureFailPoint": "failCommand",
        "mode": "alwaysOn",
        "data": { "failCommands": ["createIndexes", "listIndexes"], "errorCode": 13 },
    });
    let server = Launch::new(&mongod.url()).start();
    let mut visitor = server.visitor();
    assert_eq!([visitor.get("/").count(), visitor.get("/").count()], [1, 2]);
    let log = server.log();
    assert!(log.contains("expired sessions are not removed from MongoDB"), "{log}");
    assert!(log.contains("Unauthorized (13). Create an index on expires"), "{log}");
    server.stop();
}

#[test]
fn a_document_that_a_collection_does_not_take_is_no_outage() {
    let database = Database::new();
    database.run(doc! { "create": "sessions", "validator": { "tenant": { "$exists": true } } });
    let server = Launch::new(database.url()).start();
    assert_eq!(server.visitor().get("/").status, 500);
    assert!(server.log().contains("the collection's validator does not allow it"));
    server.stop();
}
