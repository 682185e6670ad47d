//! Documents that other software left in MongoDB under a session's identifier.

use edge_session_tests::{Database, Launch};
use mongodb::bson::{Bson, doc};

#[test]
fn a_damaged_document_gets_a_fresh_session_and_is_left_as_it_is() {
    let database = Database::new();
    let server = Launch::new(database.url()).start();
    let keys: String = (0..10_000).map(|n| format!(",\"{n}\":0")).collect();
    let cases: [(&str, Bson); 9] = [
        ("no text at all", "".into()),
        ("not JSON", "{ \"cookie\": ".into()),
        ("no object", "[1, 2]".into()),
        ("JSON's null", "null".into()),
        ("without a cookie", "{\"viewCount\":7}".into()),
        ("a number", 42.into()),
        ("BSON's null", Bson::Null),
        ("too large", format!("{{\"cookie\":{{}},\"a\":\"{}\"}}", "x".repeat(1 << 20)).into()),
        ("too many keys", format!("{{\"cookie\":{{}}{keys}}}").into()),
    ];
    for (case, session) in cases {
        let mut visitor = server.visitor();
        assert_eq!(visitor.get("/").count(), 1);
        let id = visitor.session_id();
        let damage = doc! { "$set": { "session": session } };
        database.sessions().update_one(doc! { "_id": &id }, damage).run().unwrap();
        let damaged = database.session(&id);
        let log_before = server.log().len();

        assert_eq!(visitor.get("/").count(), 1, "{case}");
        assert_ne!(visitor.session_id(), id, "{case}");
        assert_eq!(visitor.get("/").count(), 2, "{case}");
        assert_eq!(database.session(&id), damaged, "{case}");
        let said = server.log()[log_before..].to_owned();
        assert!(said.contains("damaged"), "{case}: the log says nothing of it: {said}");
    }
    server.stop();
}

#[test]
fn a_session_that_is_too_large_is_fetched_once() {
    let database = Database::new();
    let server = Launch::new(database.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();
    let id = visitor.session_id();
    let visit_again = || {
        let mut again = server.visitor();
        again.set_cookie(&cookie);
        again.get("/").count()
    };
    let large = format!("{{\"cookie\":{{}},\"a\":\"{}\"}}", "x".repeat(15 << 20));
    let change = doc! { "$set": { "session": large } };
    database.sessions().update_one(doc! { "_id": &id }, change).run().unwrap();
    database.profile();
    for _ in 0..4 {
        assert_eq!(visit_again(), 1);
    }
    let sizes = database.fetched(&id);
    assert_eq!(sizes.iter().filter(|size| **size > 1 << 20).count(), 1, "{sizes:?}");
    // The size may be read once more if all of this takes longer than ten seconds.
    assert!(sizes.len() <= 2, "{sizes:?}");
    server.stop();
}
