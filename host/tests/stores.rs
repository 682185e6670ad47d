//! The same promises, kept by every store.

use std::sync::Arc;

use edge_session::store::{FileStore, MemoryStore, MongoOptions, MongoStore, conformance};

#[tokio::test]
async fn the_memory_store_conforms() {
    conformance::check(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn the_file_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path().join("sessions.redb")).unwrap();
    conformance::check(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mongodb_store_conforms() {
    let uri = std::env::var("MONGODB_URI")
        .expect("MONGODB_URI names a MongoDB server: `make test` starts one");
    let options = MongoOptions {
        db_name: Some("edge-session-conformance".into()),
        ..MongoOptions::default()
    };
    let store = MongoStore::connect(&uri, &options).await.unwrap();
    conformance::check(Arc::new(store)).await;
}
