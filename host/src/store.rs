//! Stores, which keep sessions.
//!
//! A store has five operations on texts. It knows nothing about cookies, signatures or session
//! rules, which belong to the component.

use async_trait::async_trait;

use crate::hasher::sha256 as digest;

pub use edge_session_component::wit::{Content, Stored};

mod cached;
pub mod conformance;
#[cfg(feature = "file")]
mod file;
mod memory;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

pub use cached::CachedStore;
#[cfg(feature = "file")]
pub use file::FileStore;
pub use memory::MemoryStore;
#[cfg(feature = "mongodb")]
pub use mongodb::{AutoRemove, Crypto, CryptoFormat, MongoOptions, MongoStore, TransformId};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};

/// The store failed, or cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    message: String,
    is_refusal: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// Creates an error. `message` is logged: it must contain no session identifier and no
    /// password.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_refusal: false, source: None }
    }

    /// Creates an error of a store that works but can never keep this session. The request fails,
    /// whatever the options say about unavailable stores.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { is_refusal: true, ..Self::new(message) }
    }

    /// Returns whether the store works but can never keep this session.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Adds the error's cause.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// The result of a [`Store::create`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Created {
    /// The session is stored.
    Done,
    /// The identifier is in use; nothing was changed.
    Taken,
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Changed {
    /// The change was made.
    Done,
    /// The session does not exist or has expired; nothing was changed.
    Missing,
    /// The stored text is not the expected one; nothing was changed. Contains what is stored.
    Conflict(Stored),
}

/// Five operations on sessions. Times are milliseconds since the Unix epoch. A store may round an
/// expiry up to a second.
///
/// Every operation treats an expired session as missing. A confirmed write is as durable as the
/// store's documentation promises. The host sets a deadline for every call and drops the call when
/// it passes: a dropped operation may or may not have been done, but never partially.
///
/// [`conformance`] tests an implementation against all of these promises.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the session `id`, or none.
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError>;

    /// Stores a session under a new identifier. Never overwrites.
    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError>;

    /// Replaces the stored session with `content`. Without `expected`, it does so unconditionally
    /// and creates a missing session (upsert). With `expected`, only if the stored text equals it:
    /// comparing and writing are one atomic operation.
    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError>;

    /// Moves the expiry. Never creates a session, never changes the text, never conflicts.
    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError>;

    /// Deletes the session; with `expected` only if the stored text equals it.
    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError>;

    /// Returns what the metrics call the store.
    fn name(&self) -> &'static str {
        "custom"
    }

    /// Calls `ended` with the identifier of each session that ends from now on, wherever that is
    /// done, until the database cannot tell any more. The default is a store that is told nothing.
    ///
    /// [`CachedStore`] drops its copies by this, and needs no such store.
    async fn watch(
        &self,
        ended: &(dyn for<'i> Fn(&'i str) + Send + Sync),
    ) -> Result<(), StoreError> {
        let _ = ended;
        std::future::pending().await
    }

    /// Returns whether every operation completes when it is first polled, as one in memory does.
    /// Requests for one session then do not queue.
    fn is_immediate(&self) -> bool {
        false
    }
}

/// A session as shown to an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The store's key, for [`Browse::remove`]. It may be the identifier, which is secret.
    pub key: String,
    /// The SHA-256 of the session's identifier, in hexadecimal.
    pub digest: String,
    /// The stored session.
    pub stored: Stored,
    /// When it was created; none if the store does not record that.
    pub created: Option<u64>,
}

/// One page of a store's sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Sessions that have not expired, in no particular order.
    pub entries: Vec<Entry>,
    /// Where the next page begins; none after the last page.
    pub next: Option<String>,
}

/// Lists all sessions for operators. Gateways do not need it, and no request waits for it.
#[async_trait]
pub trait Browse: Send + Sync + 'static {
    /// Returns the first page, or the page after `after`. A session that is created or ended during
    /// the listing may or may not appear; every other session appears exactly once (in
    /// Redis, it may appear twice while the server resizes its table).
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError>;

    /// Deletes the session with this [`Entry::key`], and returns whether it existed.
    async fn remove(&self, key: &str) -> Result<bool, StoreError>;

    /// Returns the approximate number of sessions, which may include expired ones.
    async fn count(&self) -> Result<u64, StoreError>;
}

/// Returns the current time in milliseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn is_expired(expires: Option<u64>, now: u64) -> bool {
    expires.is_some_and(|expires| expires <= now)
}
