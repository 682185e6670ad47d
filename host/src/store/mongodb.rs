//! `mongodb://…` — sessions in MongoDB, in the documents and with the queries of
//! connect-mongo 6, so that a Node application shares them.
//!
//! A document is `{_id, expires: Date, session}`, `session` being JSON text unless another
//! [format](MongoOptions) is configured.

mod address;
mod crypto;
mod envelope;
mod format;
mod value;

use std::future::IntoFuture;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use lru::LruCache;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::options::{
    CollectionOptions, IndexOptions, ReadPreference, SelectionCriteria, UpdateModifications,
    WriteConcern,
};
use mongodb::{Client, Collection, IndexModel};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Browse, Changed, Content, Created, Entry, Page, Store, StoreError, Stored, digest};
use crypto::Cipher;
pub use crypto::{Crypto, CryptoFormat};
use format::Format;

/// The server's code for a duplicate key in a unique index.
const DUPLICATE_KEY: i32 = 11000;

/// The server's codes for a document that it can never store.
const REFUSALS: [(i32, &str); 4] = [
    (121, "the collection's validator does not allow it"),
    (10334, "it is too large"),
    (17419, "it is too large"),
    (17420, "it is too large"),
];

/// Attempts at a client-side compare-and-swap, for formats that the server cannot compare.
const TRIES: usize = 16;

/// How many documents that are too large are remembered.
const KNOWN_LARGE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How expired documents are deleted. Expired sessions are never served, whichever is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoRemove {
    /// By MongoDB, with a TTL index on `expires` that is created at start.
    #[default]
    Native,
    /// By this process, every [`MongoOptions::auto_remove_interval`].
    Interval,
    /// Not by this process.
    Disabled,
}

/// How a session's identifier is mapped to a document's `_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransformId {
    /// Unchanged.
    #[default]
    None,
    /// Its SHA-256 in hexadecimal, so that reading the database does not reveal usable identifiers.
    Sha256,
}

/// connect-mongo's options that concern the database.
#[derive(Clone, Debug)]
pub struct MongoOptions {
    /// The collection. Default: `sessions`.
    pub collection: String,
    /// The database. Default: the one named in the URI, else `test`.
    pub db_name: Option<String>,
    /// How expired documents are deleted. Default: [`AutoRemove::Native`].
    pub auto_remove: AutoRemove,
    /// How often they are deleted with [`AutoRemove::Interval`]. Default: 10 minutes.
    pub auto_remove_interval: Duration,
    /// Store sessions as JSON text instead of documents. Both are read. Default: true.
    pub stringify: bool,
    /// Keep `createdAt` and `updatedAt` in the documents. Default: false.
    pub timestamps: bool,
    /// Keep `lastModified` in the documents, as connect-mongo does with `touchAfter`: set it
    /// together with the option `store.touch_after`. Default: false.
    pub last_modified: bool,
    /// How identifiers are mapped. Default: [`TransformId::None`].
    pub transform_id: TransformId,
    /// Encrypt sessions. Sessions in other forms are then not trusted. Default: none.
    pub crypto: Option<Crypto>,
    /// A larger session counts as unreadable and is fetched only once: set it together with
    /// the option `max_session_bytes`. Default: 1 MiB.
    pub max_session_bytes: u32,
    /// How long to wait for a writable server and for a connection. Default: 2 s.
    pub timeout: Duration,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            collection: "sessions".to_owned(),
            db_name: None,
            auto_remove: AutoRemove::default(),
            auto_remove_interval: Duration::from_secs(600),
            stringify: true,
            timestamps: false,
            last_modified: false,
            transform_id: TransformId::default(),
            crypto: None,
            max_session_bytes: 1 << 20,
            timeout: Duration::from_secs(2),
        }
    }
}

/// Sessions in a MongoDB collection. Writes use the URI's write concern, else `majority`. Reads go
/// to the primary, whatever the URI says.
pub struct MongoStore {
    documents: Documents,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Limits concurrent operations.
    permits: Arc<Semaphore>,
    /// Deletes expired documents.
    remover: Option<JoinHandle<()>>,
}

/// The collection of documents, and its operations.
#[derive(Clone)]
struct Documents {
    sessions: Collection<Document>,
    format: Arc<Format>,
    max_session_bytes: usize,
    /// Keys of documents that were recently found to be larger.
    large: Arc<Mutex<LruCache<String, ()>>>,
    transform_id: TransformId,
    timestamps: bool,
    last_modified: bool,
    /// When the operation began.
    now: DateTime,
}

impl Drop for MongoStore {
    fn drop(&mut self) {
        if let Some(remover) = &self.remover {
            remover.abort();
        }
    }
}

impl MongoStore {
    /// Connects to the server, and creates the TTL index.
    pub async fn connect(uri: &str, options: &MongoOptions) -> Result<Self, StoreError> {
        let invalid = |error| {
            // Hides the driver's text, which may quote a part of the URI.
            StoreError::new("the mongodb:// address is not valid").caused_by(Hidden::from(error))
        };
        // A mongodb+srv:// address is resolved by DNS.
        let (mut client, without_effect) =
            within(options.timeout * 2, address::read(uri)).await??;
        if !without_effect.is_empty() {
            let names = without_effect.join(", ");
            tracing::warn!("these options of the mongodb:// address have no effect: {names}");
        }
        client.server_selection_timeout.get_or_insert(options.timeout);
        client.connect_timeout.get_or_insert(options.timeout);
        client.app_name.get_or_insert_with(|| "edge-session".to_owned());
        client.write_concern.get_or_insert_with(WriteConcern::majority);
        let client = Client::with_options(client).map_err(invalid)?;
        Self::from_client(&client, options).await
    }

    /// Checks that `uri` is a valid address, without connecting, and returns the names of its
    /// options that have no effect here. The servers of a `mongodb+srv://` address are resolved by
    /// DNS.
    pub async fn check_address(uri: &str) -> Result<Vec<String>, StoreError> {
        let (_, without_effect) = address::read(uri).await?;
        Ok(without_effect.into_iter().map(str::to_owned).collect())
    }

    /// Creates a store with the application's client, whose write concern applies.
    pub async fn from_client(client: &Client, options: &MongoOptions) -> Result<Self, StoreError> {
        let database = match &options.db_name {
            Some(name) => client.database(name),
            None => client.default_database().unwrap_or_else(|| client.database("test")),
        };
        // Read from the primary: changes based on a secondary's outdated session would be lost.
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let read = CollectionOptions::builder().selection_criteria(primary).build();
        let sessions: Collection<Document> =
            database.collection_with_options(&options.collection, read);
        let remover = match options.auto_remove {
            AutoRemove::Disabled => None,
            AutoRemove::Interval => {
                Some(tokio::spawn(remove_expired(sessions.clone(), options.auto_remove_interval)))
            }
            AutoRemove::Native => {
                let made = let_expire(&sessions);
                within(options.timeout * 2, made).await?.map_err(store_error)?;
                None
            }
        };
        let format = match (&options.crypto, options.stringify) {
            (Some(crypto), _) => Format::Encrypted(Cipher::new(crypto.clone()).await?),
            (None, true) => Format::Text,
            (None, false) => Format::Document,
        };
        let documents = Documents {
            sessions,
            max_session_bytes: options.max_session_bytes as usize,
            large: Arc::new(Mutex::new(LruCache::new(KNOWN_LARGE))),
            format: Arc::new(format),
            transform_id: options.transform_id,
            timestamps: options.timestamps,
            last_modified: options.last_modified,
            now: DateTime::now(),
        };
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self { documents, clock: Arc::new(SystemTime::now), permits, remover })
    }

    /// Takes the time from `clock` instead of the system: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Runs an operation to completion even if its caller is dropped: the driver's connection pool
    /// stalls for good when waiters for a connection are dropped (mongodb 3.9 checks one waiter per
    /// free connection).
    async fn run<T: Send + 'static, F: Future<Output = Result<T, StoreError>> + Send>(
        &self,
        work: impl FnOnce(Documents) -> F + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::new("the store is closed"))?;
        let now = DateTime::from_system_time((self.clock)());
        let documents = Documents { now, ..self.documents.clone() };
        let work = async move {
            // A connection may be lost without an error.
            let result = within(PATIENCE, work(documents)).await;
            drop(permit);
            result?
        };
        ToItsEnd { work: Some(Box::pin(work)), runtime: Handle::try_current().ok() }.await
    }
}

/// Work that continues in a task of its own if its caller is dropped. Until then it needs none, and
/// no switching between threads.
struct ToItsEnd<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// That of the driver, wherever the caller is dropped.
    runtime: Option<Handle>,
}

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that what panics is not continued.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let result = work.as_mut().poll(context);
        if result.is_pending() {
            self.work = Some(work);
        }
        result
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        if let (Some(work), Some(runtime)) = (self.work.take(), &self.runtime) {
            runtime.spawn(work);
        }
    }
}

impl Documents {
    /// Returns the document's `_id`.
    fn key(&self, id: &str) -> String {
        match self.transform_id {
            TransformId::None => id.to_owned(),
            TransformId::Sha256 => digest(id),
        }
    }

    /// Returns the query for the document with this `_id`, unless it has expired. MongoDB plans it
    /// with less effort than connect-mongo's `$or` of no expiry and a later one.
    fn live(&self, key: &str) -> Document {
        doc! { "_id": key, "expires": { "$not": { "$lte": self.now } } }
    }

    /// Returns whether a document has not expired, as connect-mongo's query decides: there is no
    /// expiry, or a later date, which may be one of several.
    fn is_live(&self, document: &Document) -> bool {
        let is_later = |it: &Bson| matches!(it, Bson::DateTime(at) if *at > self.now);
        match document.get("expires") {
            None => true,
            Some(Bson::Array(all)) => all.iter().any(is_later),
            Some(other) => is_later(other),
        }
    }

    /// Reads a document. A query for the `_id` alone needs no plan, so its expiry is compared here.
    async fn find(&self, key: &str) -> Result<Option<Document>, StoreError> {
        let found = self.sessions.find_one(doc! { "_id": key }).await.map_err(store_error)?;
        Ok(found.filter(|document| self.is_live(document)))
    }

    fn large(&self) -> MutexGuard<'_, LruCache<String, ()>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stored(&self, document: &Document) -> Stored {
        let millis = |key| document.get_datetime(key).ok().map(|at| at.timestamp_millis().max(0));
        Stored {
            data: self.format.read(document.get("session")).await,
            expires: millis("expires").map(i64::unsigned_abs),
            touched: millis("lastModified").map(i64::unsigned_abs).filter(|_| self.last_modified),
        }
    }

    /// Returns the update that sets `set` and the configured timestamps.
    fn update(&self, mut set: Document, is_new_allowed: bool) -> Document {
        if self.last_modified {
            set.insert("lastModified", self.now);
        }
        let mut update = doc! { "$set": set };
        if self.timestamps {
            update.insert("$currentDate", doc! { "updatedAt": true });
            if is_new_allowed {
                update.insert("$setOnInsert", doc! { "createdAt": self.now });
            }
        }
        update
    }

    /// Performs a conditional write. `write` gets the query for a document that holds the expected
    /// session, and the document if it had to be read, and returns how many documents matched.
    async fn conditionally<F: Future<Output = Result<u64, StoreError>>>(
        &self,
        key: &str,
        expected: &str,
        write: impl Fn(Document, Option<Document>) -> F,
    ) -> Result<Changed, StoreError> {
        if self.format.is_comparable() {
            let mut query = self.live(key);
            query.insert("session", expected);
            if write(query, None).await? > 0 {
                return Ok(Changed::Done);
            }
        }
        // Compare here, and write only if the document is unchanged.
        let mut last = Changed::Missing;
        for _ in 0..TRIES {
            let Some(document) = self.find(key).await? else { return Ok(Changed::Missing) };
            let stored = self.stored(&document).await;
            if stored.data != expected {
                return Ok(Changed::Conflict(stored));
            }
            let mut query = self.live(key);
            let session = document.get("session").cloned().unwrap_or(Bson::Null);
            query.insert("session", doc! { "$eq": session });
            if write(query, Some(document)).await? > 0 {
                return Ok(Changed::Done);
            }
            last = Changed::Conflict(stored);
        }
        Ok(last)
    }
}

/// Creates the TTL index. If that fails, another program may have created one, under any name.
/// Otherwise expired documents stay, which is harmless for a while.
async fn let_expire(sessions: &Collection<Document>) -> mongodb::error::Result<()> {
    let index = IndexModel::builder()
        .keys(doc! { "expires": 1 })
        .options(IndexOptions::builder().expire_after(Duration::ZERO).build())
        .build();
    let Err(error) = sessions.create_index(index).await else { return Ok(()) };
    if !matches!(error.kind.as_ref(), ErrorKind::Command(_)) {
        return Err(error);
    }
    if !has_index(sessions).await.unwrap_or(false) {
        tracing::warn!(
            "expired sessions are not removed from MongoDB, although they are never served: {}. \
             Create an index on expires with expireAfterSeconds 0, or set auto_remove to \"interval\"",
            store_error(error)
        );
    }
    Ok(())
}

async fn has_index(sessions: &Collection<Document>) -> mongodb::error::Result<bool> {
    let mut indexes = sessions.list_indexes().await?;
    while indexes.advance().await? {
        let index = indexes.deserialize_current()?;
        let is_on_expires = index.keys.keys().eq(["expires"]);
        let after = index.options.and_then(|options| options.expire_after);
        if is_on_expires && after == Some(Duration::ZERO) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn remove_expired(sessions: Collection<Document>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let expired = doc! { "expires": { "$lt": DateTime::now() } };
        if let Err(error) = sessions.delete_many(expired).await {
            tracing::warn!("expired sessions were not removed: {}", store_error(error));
        }
    }
}

/// Limits the duration of `work`, because the driver has no socket timeout.
async fn within<T>(limit: Duration, work: impl IntoFuture<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work.into_future()).await.map_err(|_| {
        StoreError::new(format!("MongoDB did not respond within {} s", limit.as_secs_f32()))
    })
}

fn date(millis: u64) -> Bson {
    DateTime::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)).into()
}

impl Documents {
    /// Loads a session, unless it was too large and has not shrunk: fetching 15 MiB takes a while,
    /// to no avail, and delays other requests.
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let key = self.key(id);
        let mut find = self.sessions.find_one(doc! { "_id": &key });
        if self.large().get(&key).is_some() {
            let is_large =
                doc! { "$gt": [{ "$bsonSize": "$$ROOT" }, self.max_session_bytes as i64] };
            let session = doc! { "$cond": [is_large, "$$REMOVE", "$session"] };
            find = find.projection(doc! { "expires": 1, "lastModified": 1, "session": session });
        }
        let found = find.await.map_err(store_error)?;
        let Some(document) = found.filter(|it| self.is_live(it)) else { return Ok(None) };
        let stored = self.stored(&document).await;
        if stored.data.len() > self.max_session_bytes {
            self.large().put(key, ());
        }
        Ok(Some(stored))
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        // In the member order of connect-mongo's upsert.
        let mut document = doc! { "_id": self.key(id) };
        if self.timestamps {
            document.insert("createdAt", self.now);
        }
        document.insert("expires", date(content.expires));
        if self.last_modified {
            document.insert("lastModified", self.now);
        }
        document.insert("session", self.format.write(content.data, None).await?);
        if self.timestamps {
            document.insert("updatedAt", self.now);
        }
        let is_duplicate = |error: &mongodb::error::Error| {
            matches!(error.kind.as_ref(), ErrorKind::Write(WriteFailure::WriteError(write))
                if write.code == DUPLICATE_KEY)
        };
        match self.sessions.insert_one(&document).await {
            Ok(_) => return Ok(Created::Done),
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(store_error(error)),
        }
        // It may have expired, and not have been removed yet. An upsert, because the server may
        // remove it just now.
        let expired = doc! { "_id": self.key(id), "expires": { "$lte": self.now } };
        match self.sessions.replace_one(expired, document).upsert(true).await {
            Ok(_) => Ok(Created::Done),
            Err(error) if is_duplicate(&error) => Ok(Created::Taken),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let key = &self.key(id);
        let Content { data, expires } = &content;
        let set = async |old: Option<Document>| {
            let old = old.as_ref().and_then(|document| document.get("session"));
            let session = self.format.write(data.clone(), old).await?;
            Ok::<_, StoreError>(doc! { "session": session, "expires": date(*expires) })
        };
        if let Some(expected) = expected {
            let write = async |query, old| {
                let update = self.update(set(old).await?, false);
                let updated = self.sessions.update_one(query, update).await.map_err(store_error)?;
                Ok(updated.matched_count)
            };
            return self.conditionally(key, expected, write).await;
        }
        let old = match *self.format {
            Format::Document => self.find(key).await?,
            _ => None,
        };
        // In the member order of connect-mongo's upsert.
        let mut members = doc! { "_id": key };
        members.extend(set(old).await?);
        let update = self.update(members, true);
        let update = self.sessions.update_one(doc! { "_id": key }, update).upsert(true);
        update.await.map_err(store_error)?;
        Ok(Changed::Done)
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        let update = if self.last_modified {
            // connect-mongo updates `lastModified` only if it exists.
            let is_date = doc! { "$eq": [{ "$type": "$lastModified" }, "date"] };
            let moved = doc! { "$cond": [is_date, self.now, "$$REMOVE"] };
            let mut set = doc! { "expires": date(expires), "lastModified": moved };
            if self.timestamps {
                set.insert("updatedAt", "$$NOW");
            }
            UpdateModifications::Pipeline(vec![doc! { "$set": set }])
        } else {
            self.update(doc! { "expires": date(expires) }, false).into()
        };
        let query = self.live(&self.key(id));
        let updated = self.sessions.update_one(query, update).await.map_err(store_error)?;
        Ok(if updated.matched_count == 0 { Changed::Missing } else { Changed::Done })
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let key = &self.key(id);
        let delete = async |query, _| {
            let deleted = self.sessions.delete_one(query).await.map_err(store_error)?;
            Ok(deleted.deleted_count)
        };
        match expected {
            Some(expected) => self.conditionally(key, expected, delete).await,
            None if delete(self.live(key), None).await? == 0 => Ok(Changed::Missing),
            None => Ok(Changed::Done),
        }
    }
}

#[async_trait]
impl Store for MongoStore {
    fn name(&self) -> &'static str {
        "mongodb"
    }

    async fn watch(
        &self,
        ended: &(dyn for<'i> Fn(&'i str) + Send + Sync),
    ) -> Result<(), StoreError> {
        let Documents { sessions, transform_id, .. } = &self.documents;
        if *transform_id != TransformId::None {
            return std::future::pending().await;
        }
        let pipeline = [
            doc! { "$match": { "operationType": "delete" } },
            doc! { "$project": { "documentKey": 1, "operationType": 1, "ns": 1 } },
        ];
        let mut events = sessions.watch().pipeline(pipeline).await.map_err(store_error)?;
        while events.is_alive() {
            let event = events.next_if_any().await.map_err(store_error)?;
            if let Some(key) = event.and_then(|event| event.document_key)
                && let Ok(id) = key.get_str("_id")
            {
                ended(id);
            }
        }
        Ok(())
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let id = id.to_owned();
        self.run(move |it| async move { it.load(&id).await }).await
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let id = id.to_owned();
        self.run(move |it| async move { it.create(&id, content).await }).await
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let (id, expected) = (id.to_owned(), expected.map(str::to_owned));
        self.run(move |it| async move { it.replace(&id, content, expected.as_deref()).await }).await
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        let id = id.to_owned();
        self.run(move |it| async move { it.touch(&id, expires).await }).await
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let (id, expected) = (id.to_owned(), expected.map(str::to_owned));
        self.run(move |it| async move { it.delete(&id, expected.as_deref()).await }).await
    }
}

/// The time limit of an operation. Longer than any deadline: see [`MongoStore::run`].
const PATIENCE: Duration = Duration::from_secs(60);

/// The maximum number of concurrent operations; further ones wait.
const AT_ONCE: usize = 256;

/// The number of documents read for one page.
const PAGE: i64 = 1000;

impl Documents {
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        // Documents of other tools may have keys of other types, which are skipped.
        let mut query = self.live(after.unwrap_or_default());
        query.insert("_id", doc! { "$gt": after.unwrap_or_default() });
        let find = self.sessions.find(query).sort(doc! { "_id": 1 }).limit(PAGE);
        let mut cursor = find.await.map_err(store_error)?;
        let mut page = Page::default();
        let mut count = 0;
        while cursor.advance().await.map_err(store_error)? {
            count += 1;
            let document = cursor.deserialize_current().map_err(store_error)?;
            let Ok(key) = document.get_str("_id") else { continue };
            page.next = (count == PAGE).then(|| key.to_owned());
            if !self.is_live(&document) {
                continue;
            }
            let millis = |key| document.get_datetime(key).ok().map(|at| at.timestamp_millis());
            page.entries.push(Entry {
                key: key.to_owned(),
                digest: match self.transform_id {
                    TransformId::None => digest(key),
                    TransformId::Sha256 => key.to_owned(),
                },
                stored: self.stored(&document).await,
                created: millis("createdAt").and_then(|at| u64::try_from(at).ok()),
            });
        }
        Ok(page)
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let deleted = self.sessions.delete_one(doc! { "_id": key }).await.map_err(store_error)?;
        Ok(deleted.deleted_count > 0)
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.sessions.estimated_document_count().await.map_err(store_error)
    }
}

#[async_trait]
impl Browse for MongoStore {
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        self.run(move |it| async move { it.page(after.as_deref()).await }).await
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.run(move |it| async move { it.remove(&key).await }).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.run(move |it| async move { it.count().await }).await
    }
}

fn store_error(error: mongodb::error::Error) -> StoreError {
    if let ErrorKind::Write(WriteFailure::WriteError(write)) = error.kind.as_ref()
        && let Some((_, why)) = REFUSALS.iter().find(|(code, _)| *code == write.code)
    {
        return StoreError::refused(format!("MongoDB refused the document: {why}"))
            .caused_by(Hidden::from(error));
    }
    let message = match error.kind.as_ref() {
        ErrorKind::ServerSelection { .. } => "no MongoDB server can be reached".to_owned(),
        ErrorKind::Authentication { .. } => "MongoDB refused the user or password".to_owned(),
        ErrorKind::Io(io) => format!("the connection to MongoDB failed: {io}"),
        ErrorKind::Command(command) => {
            format!("MongoDB refused the operation: {} ({})", command.code_name, command.code)
        }
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            // Its message may quote the identifier.
            format!("MongoDB refused the write: code {}", write.code)
        }
        _ => "MongoDB failed".to_owned(),
    };
    StoreError::new(message).caused_by(Hidden::from(error))
}

/// A driver error that programs can inspect but logs do not show: its text may contain the URI's
/// password or an identifier.
struct Hidden(mongodb::error::Error);

impl From<mongodb::error::Error> for Hidden {
    fn from(error: mongodb::error::Error) -> Self {
        Self(error)
    }
}

impl std::error::Error for Hidden {}

impl std::fmt::Display for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an error of the MongoDB driver")?;
        let mut labels: Vec<_> = self.0.labels().iter().collect();
        labels.sort();
        if labels.is_empty() { Ok(()) } else { write!(f, " {labels:?}") }
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
