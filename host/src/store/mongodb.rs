//! `mongodb://…` — sessions in MongoDB, in the documents and with the queries of
//! connect-mongo 6, so that a Node application shares them.
//!
//! A document is `{_id, expires: Date, session: String}`.

use std::future::IntoFuture;
use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::options::{ClientOptions, IndexOptions, WriteConcern};
use mongodb::{Client, Collection, IndexModel};

use super::{Changed, Content, Created, Store, StoreError, Stored, now};

/// The server's code for a unique key that is in use.
const DUPLICATE_KEY: i32 = 11000;

/// Who deletes expired documents. Expired sessions are never served, whoever does.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoRemove {
    /// MongoDB, by a TTL index on `expires` that is made at start.
    #[default]
    Native,
    /// Nobody here.
    Disabled,
}

/// connect-mongo's options, as far as they concern the database.
#[derive(Clone, Debug)]
pub struct MongoOptions {
    /// The collection. Default: `sessions`.
    pub collection: String,
    /// The database. Default: the one that the URI names, else `test`.
    pub db_name: Option<String>,
    /// Who deletes expired documents. Default: [`AutoRemove::Native`].
    pub auto_remove: AutoRemove,
    /// How long to wait for a server that can be written to, and for a connection.
    /// Default: 2 s.
    pub timeout: Duration,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            collection: "sessions".to_owned(),
            db_name: None,
            auto_remove: AutoRemove::default(),
            timeout: Duration::from_secs(2),
        }
    }
}

/// Sessions in a MongoDB collection. What was answered was written with the URI's write
/// concern, else with `majority`.
pub struct MongoStore {
    sessions: Collection<Document>,
}

impl MongoStore {
    /// Connect to the server, and make the TTL index.
    pub async fn connect(uri: &str, options: &MongoOptions) -> Result<Self, StoreError> {
        let invalid = |error| {
            // Not the driver's text alone: it may quote a part of the URI.
            StoreError::new("the mongodb:// address is not valid").caused_by(Hidden::from(error))
        };
        // A mongodb+srv:// address is looked up in the DNS.
        let parsed = within(options.timeout * 2, ClientOptions::parse(uri)).await?;
        let mut client = parsed.map_err(invalid)?;
        client.server_selection_timeout.get_or_insert(options.timeout);
        client.connect_timeout.get_or_insert(options.timeout);
        client.app_name.get_or_insert_with(|| "edge-session".to_owned());
        client.write_concern.get_or_insert_with(WriteConcern::majority);
        let client = Client::with_options(client).map_err(invalid)?;
        Self::from_client(&client, options).await
    }

    /// Use a client that the application has already, with the write concern of its own.
    pub async fn from_client(client: &Client, options: &MongoOptions) -> Result<Self, StoreError> {
        let database = match &options.db_name {
            Some(name) => client.database(name),
            None => client.default_database().unwrap_or_else(|| client.database("test")),
        };
        let sessions = database.collection(&options.collection);
        let store = Self { sessions };
        if options.auto_remove == AutoRemove::Native {
            let index = IndexModel::builder()
                .keys(doc! { "expires": 1 })
                .options(IndexOptions::builder().expire_after(Duration::ZERO).build())
                .build();
            let made = store.sessions.create_index(index);
            drop(within(options.timeout * 2, made).await?.map_err(unavailable)?);
        }
        Ok(store)
    }

    async fn find(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let found = self.sessions.find_one(live(id)).await.map_err(unavailable)?;
        Ok(found.map(|document| Stored {
            // Another tool's document: an empty text is what no session is, so that the
            // component calls it damaged.
            data: document.get_str("session").unwrap_or_default().to_owned(),
            expires: document
                .get_datetime("expires")
                .ok()
                .map(|at| at.timestamp_millis().max(0) as u64),
        }))
    }

    /// Why a write that demanded a certain text met no document.
    async fn refusal(&self, id: &str) -> Result<Changed, StoreError> {
        Ok(self.find(id).await?.map_or(Changed::Missing, Changed::Conflict))
    }
}

/// The driver has no socket timeout.
async fn within<T>(limit: Duration, work: impl IntoFuture<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work.into_future()).await.map_err(|_| {
        StoreError::new(format!("MongoDB did not answer within {} s", limit.as_secs_f32()))
    })
}

/// connect-mongo's query: the document of that `_id` which has not expired.
fn live(id: &str) -> Document {
    doc! {
        "_id": id,
        "$or": [{ "expires": { "$exists": false } }, { "expires": { "$gt": date(now()) } }],
    }
}

fn live_and_equal(id: &str, expected: Option<&str>) -> Document {
    let mut query = live(id);
    if let Some(expected) = expected {
        query.insert("session", expected);
    }
    query
}

fn date(millis: u64) -> Bson {
    DateTime::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)).into()
}

#[async_trait]
impl Store for MongoStore {
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        self.find(id).await
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        // The order that an upsert of connect-mongo's leaves.
        let document =
            doc! { "_id": id, "expires": date(content.expires), "session": content.data };
        match self.sessions.insert_one(document).await {
            Ok(_) => Ok(Created::Done),
            Err(error) => match error.kind.as_ref() {
                ErrorKind::Write(WriteFailure::WriteError(write))
                    if write.code == DUPLICATE_KEY =>
                {
                    Ok(Created::Taken)
                }
                _ => Err(unavailable(error)),
            },
        }
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let Content { data, expires } = content;
        let set = doc! { "$set": { "_id": id, "session": data, "expires": date(expires) } };
        let conditional = expected.is_some();
        let query = if conditional {
            live_and_equal(id, expected)
        } else {
            doc! { "_id": id }
        };
        let update = self.sessions.update_one(query, set).upsert(!conditional);
        let updated = update.await.map_err(unavailable)?;
        if conditional && updated.matched_count == 0 {
            return self.refusal(id).await;
        }
        Ok(Changed::Done)
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        let set = doc! { "$set": { "expires": date(expires) } };
        let updated = self.sessions.update_one(live(id), set).await.map_err(unavailable)?;
        Ok(if updated.matched_count == 0 { Changed::Missing } else { Changed::Done })
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let conditional = expected.is_some();
        let query = live_and_equal(id, expected);
        let deleted = self.sessions.delete_one(query).await.map_err(unavailable)?;
        match deleted.deleted_count {
            0 if conditional => self.refusal(id).await,
            0 => Ok(Changed::Missing),
            _ => Ok(Changed::Done),
        }
    }
}

fn unavailable(error: mongodb::error::Error) -> StoreError {
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

/// An error of the driver's for programs, but not for logs: its text may hold the URI's
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
