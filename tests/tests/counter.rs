//! The view counter at `/`, in each store and across restarts.

use edge_session_tests::{Database, Launch, temp_dir};

#[test]
fn a_visitor_counts_one_two_three() {
    let server = Launch::new("memory:").start();
    let mut visitor = server.visitor();
    assert_eq!([(); 3].map(|()| visitor.get("/").count()), [1, 2, 3]);
    server.stop();
}

#[test]
fn every_visitor_has_a_count_of_their_own() {
    let server = Launch::new("memory:").start();
    let (mut ada, mut grace) = (server.visitor(), server.visitor());
    assert_eq!(ada.get("/").count(), 1);
    assert_eq!(ada.get("/").count(), 2);
    assert_eq!(grace.get("/").count(), 1);
    assert_ne!(ada.session_id(), grace.session_id());
    server.stop();
}

#[test]
fn the_count_goes_on_after_a_restart_with_the_embedded_store() {
    let dir = temp_dir("store-");
    let launch = Launch::new(&format!("file:{}/sessions.redb", dir.path().display()));
    let server = launch.start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    assert_eq!(visitor.get("/").count(), 2);
    server.stop();

    let server = launch.start();
    assert_eq!(visitor.moved_to(server.url()).get("/").count(), 3);
    server.stop();
}

#[test]
fn two_processes_behind_one_database_count_together() {
    let database = Database::new();
    let launch = Launch::new(database.url());
    let (one, two) = (launch.start(), launch.start());
    let mut visitor = one.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let mut visitor = visitor.moved_to(two.url());
    assert_eq!(visitor.get("/").count(), 2);
    let mut visitor = visitor.moved_to(one.url());
    assert_eq!(visitor.get("/").count(), 3);
    one.stop();
    assert_eq!(visitor.moved_to(two.url()).get("/").count(), 4);
    two.stop();
}
