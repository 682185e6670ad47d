//! A store that goes away and comes back, and a server that is told to stop.

use std::thread;
use std::time::{Duration, Instant};

use edge_session_tests::{Launch, Mongod, Server, Visitor, wait_for};
use mongodb::bson::doc;

/// No visitor is to wait longer than this for a 503. The server's own deadline is 2 s per operation.
const PATIENCE: Duration = Duration::from_secs(5);
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// With a private server, so that no other test meets the outage.
fn outage_and_recovery(hurt: impl Fn(&Mongod), heal: impl Fn(&Mongod)) {
    let mongod = Mongod::start();
    let server = Launch::new(&mongod.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();

    hurt(&mongod);
    for path in ["/", "/", "/healthz"] {
        let asked = Instant::now();
        assert_eq!(visitor.get(path).status, 503, "{path} without a store");
        assert!(asked.elapsed() < PATIENCE, "{path} took {:?}", asked.elapsed());
    }
    assert_eq!(visitor.cookie(), cookie, "an outage must cost nobody their session");

    heal(&mongod);
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
    outage_and_recovery(Mongod::kill, Mongod::restart);
}

#[test]
fn a_mongodb_that_hangs_is_a_503_until_it_goes_on() {
    outage_and_recovery(Mongod::freeze, Mongod::thaw);
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
