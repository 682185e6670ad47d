//! One MongoDB and one secret, used by edge-session and by express-session with connect-mongo.

use edge_session_tests::node::{self, ExpressApp};
use edge_session_tests::{Database, Launch, SECRET};

#[test]
fn express_counts_on_from_our_cookie_and_we_from_its() {
    let database = Database::new();
    let ours = Launch::new(database.url()).start();
    let express = ExpressApp::start(SECRET, database.url());

    let mut visitor = ours.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();
    let mut visitor = visitor.moved_to(express.url());
    assert_eq!(visitor.get("/").count(), 2);
    let mut visitor = visitor.moved_to(ours.url());
    assert_eq!(visitor.get("/").count(), 3);
    assert_eq!(visitor.cookie(), cookie);

    let mut visitor = ours.visitor().moved_to(express.url());
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();
    let mut visitor = visitor.moved_to(ours.url());
    assert_eq!(visitor.get("/").count(), 2);
    let mut visitor = visitor.moved_to(express.url());
    assert_eq!(visitor.get("/").count(), 3);
    assert_eq!(visitor.cookie(), cookie);
    ours.stop();
}

#[test]
fn the_cookie_signature_package_accepts_our_cookie() {
    let server = Launch::new("memory:").start();
    let mut visitor = server.visitor();
    visitor.get("/");
    let unsign = |secret| node::run("unsign.mjs", &visitor.cookie_header(), &[("SECRET", secret)]);
    assert_eq!(unsign(SECRET), visitor.session_id());
    assert_eq!(unsign("another secret"), "false");
    server.stop();
}
