//! All stores pass the same conformance suite.

use std::sync::Arc;

use edge_session::store::{
    AutoRemove, Changed, Content, Created, Crypto, CryptoFormat, FileStore, MemoryStore,
    MongoOptions, MongoStore, PostgresOptions, PostgresStore, RedisOptions, RedisStore, Store,
    StoreError, Stored, TransformId, conformance,
};

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

#[tokio::test]
async fn the_memory_store_can_be_browsed() {
    conformance::check_browsing(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn the_file_store_can_be_browsed() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path().join("sessions.redb")).unwrap();
    conformance::check_browsing(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mongodb_store_can_be_browsed() {
    for (collection, transform_id) in
        [("browsed", TransformId::None), ("browsed-sha256", TransformId::Sha256)]
    {
        let options = MongoOptions { transform_id, timestamps: true, ..MongoOptions::default() };
        conformance::check_browsing(Arc::new(mongodb(collection, options).await)).await;
    }
}

fn mongodb_uri() -> String {
    std::env::var("MONGODB_URI")
        .expect("MONGODB_URI names a MongoDB server: `make test` starts one")
}

async fn mongodb(collection: &str, options: MongoOptions) -> MongoStore {
    let options = MongoOptions {
        db_name: Some("edge-session-conformance".into()),
        collection: collection.into(),
        ..options
    };
    MongoStore::connect(&mongodb_uri(), &options).await.unwrap()
}

/// The server removes expired sessions at any time, also between two commands of one operation.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_that_mongodb_removes_meanwhile_leaves_its_identifier_free() {
    use ::mongodb::{
        Client,
        bson::{Bson, DateTime, Document, doc},
    };

    // The test removes it.
    let options = MongoOptions { auto_remove: AutoRemove::Disabled, ..MongoOptions::default() };
    let store = mongodb("removed-meanwhile", options).await;
    let until = |expires| Content { data: "{}".into(), expires };
    assert_eq!(store.replace("a", until(1), None).await.unwrap(), Changed::Done);
    let client = Client::with_uri_str(&mongodb_uri()).await.unwrap();
    let namespace = "edge-session-conformance.removed-meanwhile";
    let admin = async |command| client.database("admin").run_command(command).await.unwrap();
    let set = admin(doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": {
            "failCommands": ["update"],
            "namespace": namespace,
            "blockConnection": true,
            "blockTimeMS": 500,
        },
    })
    .await;
    let removed = async {
        let entered = doc! {
            "waitForFailPoint": "failCommand",
            // The server counts from its start.
            "timesEntered": set.get("count").and_then(Bson::as_i64).unwrap_or(0) + 1,
            "maxTimeMS": 10_000,
        };
        admin(entered).await;
        let sessions = client.database("edge-session-conformance");
        let sessions = sessions.collection::<Document>("removed-meanwhile");
        let expired = doc! { "_id": "a", "expires": { "$lte": DateTime::now() } };
        sessions.delete_one(expired).await.unwrap();
    };
    let (created, ()) = tokio::join!(store.create("a", until(4_102_444_800_000)), removed);
    assert_eq!(created.unwrap(), Created::Done);
    assert_eq!(store.create("a", until(4_102_444_800_000)).await.unwrap(), Created::Taken);
    assert_eq!(store.delete("a", None).await.unwrap(), Changed::Done);
}

/// The driver's pool stalls for good when those who wait for a connection are dropped.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_leave_do_not_block_the_mongodb_store() {
    let options = MongoOptions {
        db_name: Some("edge-session-conformance".into()),
        collection: "left".into(),
        ..MongoOptions::default()
    };
    let uri = format!("{}&maxPoolSize=1", mongodb_uri());
    let store = MongoStore::connect(&uri, &options).await.unwrap();
    let content = Content { data: "{}".into(), expires: 4_102_444_800_000 };
    for round in 0..200 {
        let id = format!("left-{round}");
        let mut leaving = Box::pin(store.replace(&id, content.clone(), None));
        // Polled once, it waits for the connection, or for the server.
        assert!(poll_once(leaving.as_mut()).await.is_none());
        // Or else tokio would let nothing proceed after some of them.
        tokio::task::yield_now().await;
    }
    let patience = std::time::Duration::from_secs(30);
    let found = tokio::time::timeout(patience, async {
        // What was begun is done, although nobody waits for it.
        loop {
            let mut found = 0;
            for round in 0..200 {
                found += usize::from(store.load(&format!("left-{round}")).await?.is_some());
            }
            if found == 200 {
                return Ok::<_, StoreError>(());
            }
        }
    });
    found.await.expect("the pool works").expect("the store works");
    for round in 0..200 {
        let _ = store.delete(&format!("left-{round}"), None).await.unwrap();
    }
}

/// Polls once.
async fn poll_once<T>(
    mut work: std::pin::Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> Option<T> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match work.as_mut().poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mongodb_store_conforms() {
    let store = mongodb("plain", MongoOptions::default()).await;
    conformance::check(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mongodb_store_conforms_with_every_format_and_option() {
    for format in [CryptoFormat::Kruptein, CryptoFormat::WebCrypto] {
        let options = MongoOptions {
            crypto: Some(Crypto { format, secret: b"for tests".to_vec() }),
            auto_remove: AutoRemove::Interval,
            timestamps: true,
            last_modified: true,
            transform_id: TransformId::Sha256,
            ..MongoOptions::default()
        };
        let store = mongodb(&format!("{format:?}"), options).await;
        conformance::check(Arc::new(store)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_stops_waiting_keeps_nobody_from_being_served() {
    let store = Arc::new(mongodb("crowd", MongoOptions::default()).await);
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let store = store.clone();
        // Cancels as the host does when its deadline passes or the client disconnects.
        let patience = std::time::Duration::from_millis(1);
        crowd.spawn(async move { tokio::time::timeout(patience, store.load("x")).await.is_ok() });
    }
    crowd.join_all().await;
    let patience = std::time::Duration::from_secs(10);
    let served = tokio::time::timeout(patience, store.load("x")).await;
    assert_eq!(served.expect("somebody who waits is served").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_documents_are_removed_at_intervals() {
    let options = MongoOptions {
        auto_remove: AutoRemove::Interval,
        auto_remove_interval: std::time::Duration::from_millis(20),
        ..MongoOptions::default()
    };
    let store = mongodb("interval", options).await;
    let uri = mongodb_uri();
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let documents = client
        .database("edge-session-conformance")
        .collection::<mongodb::bson::Document>("interval");
    documents.delete_many(mongodb::bson::doc! {}).await.unwrap();
    let content = |expires| Content { data: "{}".into(), expires };
    assert_eq!(store.create("old", content(1)).await.unwrap(), Created::Done);
    assert_eq!(store.create("live", content(4_102_444_800_000)).await.unwrap(), Created::Done);
    let began = std::time::Instant::now();
    while documents.count_documents(mongodb::bson::doc! {}).await.unwrap() > 1 {
        assert!(began.elapsed().as_secs() < 10, "nothing was removed");
        tokio::task::yield_now().await;
    }
    assert!(store.load("live").await.unwrap().is_some());
}

/// Only sessions can be converted to documents, so the suite, which uses arbitrary texts, does not
/// apply.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_as_documents_are_compared_and_replaced_like_texts() {
    let options = MongoOptions { stringify: false, ..MongoOptions::default() };
    let store = mongodb("documents", options).await;
    let content = |n| Content {
        data: format!(r#"{{"cookie":{{"expires":null,"path":"/"}},"n":{n}}}"#),
        expires: 4_102_444_800_000,
    };
    let text = async || store.load("id").await.unwrap().unwrap().data;
    let _ = store.delete("id", None).await.unwrap();
    assert_eq!(store.create("id", content(1)).await.unwrap(), Created::Done);
    assert_eq!(store.create("id", content(2)).await.unwrap(), Created::Taken);
    let first = text().await;
    assert!(first.ends_with(r#""path":"/","sameSite":null},"n":1}"#), "{first}");
    let replaced = store.replace("id", content(2), Some(&first)).await.unwrap();
    assert_eq!(replaced, Changed::Done);
    let conflict = store.replace("id", content(3), Some(&first)).await.unwrap();
    assert!(matches!(conflict, Changed::Conflict(stored) if stored.data == text().await));
    let conflict = store.delete("id", Some(&first)).await.unwrap();
    assert!(matches!(conflict, Changed::Conflict(_)));
    assert_eq!(store.delete("id", Some(&text().await)).await.unwrap(), Changed::Done);
    assert_eq!(store.replace("id", content(4), Some(&first)).await.unwrap(), Changed::Missing);
    assert_eq!(store.replace("id", content(4), None).await.unwrap(), Changed::Done);
    let surrogate = Content { data: r#"{"cookie":{},"s":"\ud800"}"#.into(), ..content(5) };
    let error = store.replace("id", surrogate, None).await.unwrap_err().to_string();
    assert!(error.starts_with("a session cannot be written as a document"), "{error}");
    assert!(text().await.ends_with(r#""n":4}"#));
}

async fn redis(prefix: &str) -> RedisStore {
    let uri = std::env::var("REDIS_URL").expect("REDIS_URL names a server: `make test` starts one");
    let options = RedisOptions { prefix: prefix.to_owned(), ..RedisOptions::default() };
    RedisStore::connect(&uri, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_store_conforms() {
    conformance::check(Arc::new(redis("conforms:").await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_store_can_be_browsed() {
    conformance::check_browsing(Arc::new(redis("browsed[*]:").await)).await;
}

async fn postgres(table: &str, prepare: bool) -> PostgresStore {
    let uri =
        std::env::var("POSTGRES_URL").expect("POSTGRES_URL names a server: `make test` starts one");
    let options = PostgresOptions {
        table: table.to_owned(),
        create_table: true,
        prepare,
        ..PostgresOptions::default()
    };
    PostgresStore::connect(&uri, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_conforms() {
    conformance::check(Arc::new(postgres("conforms", false).await)).await;
    conformance::check(Arc::new(postgres("conforms", true).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_that_postgresql_cannot_have_is_unknown() {
    let store = postgres("conforms", false).await;
    assert_eq!(store.load("a\0b").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_can_be_browsed() {
    conformance::check_browsing(Arc::new(postgres("of \"visitors\"", false).await)).await;
}

/// A memory store with a flaw.
struct Flawed {
    store: MemoryStore,
    flaw: Flaw,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    FoldsCase,
    TrimsSpaces,
    KeepsExpiry,
    KeepsExpiryUnlessExpected,
    CreatesInTwoSteps,
    ReplacesInTwoSteps,
    DeletesInTwoSteps,
    TouchesInTwoSteps,
    DeletesWhatHasExpired,
}

impl Flawed {
    fn id(&self, id: &str) -> String {
        match self.flaw {
            Flaw::FoldsCase => id.to_lowercase(),
            Flaw::TrimsSpaces => id.trim().to_owned(),
            _ => id.to_owned(),
        }
    }

    /// Returns what is stored, and lets others run.
    async fn look(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let found = self.store.load(id).await;
        tokio::task::yield_now().await;
        found
    }
}

#[async_trait::async_trait]
impl Store for Flawed {
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        self.store.load(&self.id(id)).await
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let id = self.id(id);
        if self.flaw == Flaw::CreatesInTwoSteps {
            if self.look(&id).await?.is_some() {
                return Ok(Created::Taken);
            }
            let _ = self.store.replace(&id, content, None).await?;
            return Ok(Created::Done);
        }
        self.store.create(&id, content).await
    }

    async fn replace(
        &self,
        id: &str,
        mut content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let id = self.id(id);
        let keeps = match self.flaw {
            Flaw::KeepsExpiry => expected.is_some(),
            Flaw::KeepsExpiryUnlessExpected => expected.is_none(),
            _ => false,
        };
        if keeps && let Some(found) = self.store.load(&id).await? {
            content.expires = found.expires.unwrap_or(content.expires);
        }
        if self.flaw == Flaw::ReplacesInTwoSteps && expected.is_some() {
            return match self.look(&id).await? {
                None => Ok(Changed::Missing),
                Some(found) if Some(&*found.data) != expected => Ok(Changed::Conflict(found)),
                Some(_) => self.store.replace(&id, content, None).await,
            };
        }
        self.store.replace(&id, content, expected).await
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        let id = self.id(id);
        if self.flaw == Flaw::TouchesInTwoSteps {
            let Some(Stored { data, .. }) = self.look(&id).await? else {
                return Ok(Changed::Missing);
            };
            return self.store.replace(&id, Content { data, expires }, None).await;
        }
        self.store.touch(&id, expires).await
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let id = self.id(id);
        if self.flaw == Flaw::DeletesInTwoSteps && expected.is_some() {
            return match self.look(&id).await? {
                None => Ok(Changed::Missing),
                Some(found) if Some(&*found.data) != expected => Ok(Changed::Conflict(found)),
                Some(_) => {
                    let _ = self.store.delete(&id, None).await?;
                    Ok(Changed::Done)
                }
            };
        }
        let deleted = self.store.delete(&id, expected).await?;
        let is_flawed = self.flaw == Flaw::DeletesWhatHasExpired && expected.is_none();
        Ok(if is_flawed { Changed::Done } else { deleted })
    }
}

#[tokio::test]
async fn a_flawed_store_does_not_conform() {
    for flaw in [
        Flaw::None,
        Flaw::FoldsCase,
        Flaw::TrimsSpaces,
        Flaw::KeepsExpiry,
        Flaw::KeepsExpiryUnlessExpected,
        Flaw::CreatesInTwoSteps,
        Flaw::ReplacesInTwoSteps,
        Flaw::DeletesInTwoSteps,
        Flaw::TouchesInTwoSteps,
        Flaw::DeletesWhatHasExpired,
    ] {
        let store = Arc::new(Flawed { store: MemoryStore::default(), flaw });
        let checked = tokio::spawn(conformance::check(store)).await;
        assert_eq!(checked.is_ok(), flaw == Flaw::None, "{flaw:?}");
    }
}
