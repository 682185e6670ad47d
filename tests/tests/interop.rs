//! edge-session and express-session with connect-mongo, sharing one MongoDB and one secret.

use edge_session_tests::node::{self, ExpressApp};
use edge_session_tests::{Database, Launch, SECRET};
use mongodb::bson::doc;

#[test]
fn the_vectors_are_what_the_real_packages_answer() {
    let output = node::command("vectors.mjs").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

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
fn to_express_a_session_that_has_moved_is_there_under_its_new_identifier_alone() {
    let database = Database::new();
    let ours = Launch::new(database.url()).start();
    let express = ExpressApp::start(SECRET, database.url());
    let mut visitor = ours.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let (old, late) = (visitor.session_id(), visitor.clone());
    visitor.log_in("ada");

    // Next to the session is the note about its move: not a session, and without an identifier.
    let of = doc! { "session": { "$regex": "movedTo" } };
    let note = database.sessions().find_one(of).run().unwrap().expect("a note");
    let shown = format!("{note}");
    assert!(!shown.contains("ada") && !shown.contains(&old), "{shown}");
    assert!(!shown.contains(&visitor.session_id()), "{shown}");
    assert_eq!(database.sessions().count_documents(doc! {}).run().unwrap(), 2);

    assert_eq!(late.moved_to(express.url()).get("/").count(), 1, "the old cookie is nobody's");
    let mut visitor = visitor.moved_to(express.url());
    assert_eq!(visitor.get("/").count(), 2);
    assert_eq!(visitor.moved_to(ours.url()).get("/").count(), 3);
    ours.stop();
}

#[test]
fn sessions_of_connect_mongodb_session_are_read_and_written_as_documents() {
    let database = Database::new();
    let ours = Launch::new(database.url()).config("[store]\nstringify = false").start();
    let express = ExpressApp::with_other_store(SECRET, database.url());
    let mut visitor = ours.visitor().moved_to(express.url());
    assert_eq!(visitor.get("/").count(), 1);
    let mut visitor = visitor.moved_to(ours.url());
    assert_eq!(visitor.get("/").count(), 2);
    let mut visitor = visitor.moved_to(express.url());
    assert_eq!(visitor.get("/").count(), 3);
    ours.stop();

    // They are also read with other options.
    let ours = Launch::new(database.url()).start();
    assert_eq!(visitor.moved_to(ours.url()).get("/").count(), 4);
    ours.stop();
}

#[test]
fn encrypted_sessions_are_read_with_their_secret_alone() {
    let database = Database::new();
    let launch = |format: &str, secret: &str| {
        let config = format!("[store]\ncrypto = \"{format}\"");
        Launch::new(database.url())
            .config(&config)
            .env("EDGE_SESSION_CRYPTO_SECRET", secret)
            .start()
    };
    let ours = launch("webcrypto", "one");
    let mut visitor = ours.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let id = visitor.session_id();
    let stored = database.session(&id);
    ours.stop();

    let same = launch("webcrypto", "one");
    let mut visitor = visitor.moved_to(same.url());
    assert_eq!(visitor.clone().get("/").count(), 2);
    same.stop();

    for other in [
        launch("webcrypto", "another"),
        launch("kruptein", "one"),
        Launch::new(database.url()).start(),
    ] {
        let stored = database.session(&id);
        visitor = visitor.moved_to(other.url());
        assert_eq!(visitor.clone().get("/").count(), 1, "what cannot be read is a new session");
        assert_eq!(database.session(&id), stored, "and stays as it is");
        assert!(other.log().contains("damaged"), "{}", other.log());
        other.stop();
    }
    assert!(stored.is_some());
}

#[test]
fn a_session_as_large_as_a_document_can_be_is_left_alone() {
    let database = Database::new();
    let server = Launch::new(database.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let id = visitor.session_id();
    let text = database.session(&id).unwrap().get_str("session").unwrap().to_owned();
    // A document is limited to 16 MiB, including the driver's overhead and other members.
    let value = "x".repeat((16 << 20) - 1024);
    let text = format!("{},\"big\":\"{value}\"}}", text.strip_suffix('}').unwrap());
    let change = doc! { "$set": { "session": text } };
    database.sessions().update_one(doc! { "_id": &id }, change).run().unwrap();
    let stored = database.session(&id);
    assert_eq!(visitor.get("/").count(), 1, "above max_session_bytes: a new session begins");
    assert_ne!(visitor.session_id(), id);
    assert!(server.log().contains("exceeds the limits"), "{}", server.log());
    assert_eq!(database.session(&id).unwrap().get("session"), stored.unwrap().get("session"));
    server.stop();
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
