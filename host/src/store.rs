//! Where sessions are kept.
//!
//! A store is five operations on texts. It knows nothing of cookies, signatures or
//! the rules of sessions: these are the component's.

use async_trait::async_trait;

use crate::hasher::sha256 as digest;

pub use crate::bindings::exports::edge::session::engine::{Content, Stored};

pub mod conformance;
#[cfg(feature = "file")]
mod file;
mod memory;
#[cfg(feature = "mongodb")]
mod mongodb;

#[cfg(feature = "file")]
pub use file::FileStore;
pub use memory::MemoryStore;
#[cfg(feature = "mongodb")]
pub use mongodb::{AutoRemove, Crypto, CryptoFormat, MongoOptions, MongoStore, TransformId};

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
    /// `message` is for the log: it must hold no session identifier and no password.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_refusal: false, source: None }
    }

    /// The store works, and can never keep such a session. The request fails, whatever the
    /// options say of stores that do not answer.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { is_refusal: true, ..Self::new(message) }
    }

    pub(crate) fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Keep what caused it.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// What became of a [`Store::create`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Created {
    /// The session is stored.
    Done,
    /// The identifier is in use; nothing was changed.
    Taken,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Changed {
    /// It was made.
    Done,
    /// There is no such session, or it has expired; nothing was changed.
    Missing,
    /// The stored text is not the expected one; nothing was changed. This one is stored.
    Conflict(Stored),
}

/// Five operations. Times are milliseconds since the Unix epoch.
///
/// To every operation an expired session is a missing one. What was answered is
/// durable to the degree that the store promises in its documentation. The host puts a
/// deadline around every call, and drops it then: an operation that was dropped may have
/// been done or not, but never by half.
///
/// [`conformance`] tests all promises of an implementation.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The session `id`, or none.
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError>;

    /// Store a session whose identifier is new. Never overwrites.
    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError>;

    /// Store `content` in place of what is there; without `expected` in any case, created
    /// when it is missing. With `expected` only while the stored text equals it: comparing
    /// and writing are one atomic operation.
    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError>;

    /// Move the expiry. Never creates, never changes the text, never conflicts.
    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError>;

    /// Delete the session; with `expected` only while the stored text equals it.
    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError>;
}

/// A session as an operator looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the store calls it, for [`Browse::remove`]. It may be the identifier: a secret.
    pub key: String,
    /// The SHA-256 of its identifier, in hexadecimal.
    pub digest: String,
    /// What is stored.
    pub stored: Stored,
    /// When it was created; none where the store does not keep that.
    pub created: Option<u64>,
}

/// Some of the sessions of a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Sessions that have not expired, in no order that means anything.
    pub entries: Vec<Entry>,
    /// Where to go on; none: these were the last ones.
    pub next: Option<String>,
}

/// Looking at all sessions, for operators: no gateway needs it, and no request waits for it.
#[async_trait]
pub trait Browse: Send + Sync + 'static {
    /// The first sessions, or those after a page. A session that is created or ended meanwhile
    /// may be on a page or not; any other is on exactly one.
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError>;

    /// Delete what [`Entry::key`] names; whether it was there.
    async fn remove(&self, key: &str) -> Result<bool, StoreError>;

    /// How many sessions there are, about: expired ones may be among them.
    async fn count(&self) -> Result<u64, StoreError>;
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn is_expired(expires: Option<u64>, now: u64) -> bool {
    expires.is_some_and(|expires| expires <= now)
}
