//! What is stored, read without the code under test.

use edge_session::store::{PostgresOptions, PostgresStore, RedisOptions, RedisStore};
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use redis::aio::ConnectionManager;
use std::sync::Arc;

use crate::case::START;
use crate::world::clock;

/// What keeps the sessions.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// With connect-mongo.
    Mongodb,
    /// With connect-redis.
    Redis,
    /// With connect-pg-simple.
    Postgres,
}

impl Kind {
    /// Returns the address of the server.
    pub(crate) fn url(self) -> Result<String, String> {
        let variable = match self {
            Self::Mongodb => "MONGODB_URI",
            Self::Redis => "REDIS_URL",
            Self::Postgres => "POSTGRES_URL",
        };
        std::env::var(variable).map_err(|_| format!("{variable} names no server"))
    }

    /// Returns the name of the package beside express-session.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Mongodb => "connect-mongo",
            Self::Redis => "connect-redis",
            Self::Postgres => "connect-pg-simple",
        }
    }
}

/// A connection to the server.
#[derive(Clone)]
pub(crate) enum Server {
    Mongodb(mongodb::Client),
    Redis(ConnectionManager),
    Postgres(Arc<tokio_postgres::Client>),
}

/// The sessions of one side, by their keys.
pub(crate) enum Records {
    Mongodb(Collection<Document>),
    Redis(ConnectionManager, String),
    Postgres(Arc<tokio_postgres::Client>, String),
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Server {
    pub(crate) async fn connect(kind: Kind) -> Result<Self, String> {
        let url = kind.url()?;
        match kind {
            Kind::Mongodb => {
                mongodb::Client::with_uri_str(&url).await.map(Self::Mongodb).map_err(text)
            }
            Kind::Redis => {
                let client = redis::Client::open(url).map_err(text)?;
                ConnectionManager::new(client).await.map(Self::Redis).map_err(text)
            }
            Kind::Postgres => {
                let (client, connection) =
                    tokio_postgres::connect(&url, tokio_postgres::NoTls).await.map_err(text)?;
                tokio::spawn(connection);
                Ok(Self::Postgres(Arc::new(client)))
            }
        }
    }

    /// Returns the sessions of a side, whose collection, table or prefix has this name.
    pub(crate) fn records(&self, database: &str, name: &str) -> Records {
        match self {
            Self::Mongodb(client) => Records::Mongodb(client.database(database).collection(name)),
            Self::Redis(connection) => Records::Redis(connection.clone(), prefix(name)),
            Self::Postgres(client) => Records::Postgres(client.clone(), name.to_owned()),
        }
    }
}

/// Opens the store of a side in Redis.
pub(crate) async fn in_redis(name: &str) -> Result<RedisStore, String> {
    let options = RedisOptions { prefix: prefix(name), ..RedisOptions::default() };
    let store = RedisStore::connect(&Kind::Redis.url()?, &options).await;
    Ok(store.map_err(text)?.with_clock(clock))
}

/// Opens the store of a side in PostgreSQL.
pub(crate) async fn in_postgres(name: &str) -> Result<PostgresStore, String> {
    let options = PostgresOptions {
        table: name.to_owned(),
        create_table: true,
        prune_interval: None,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::connect(&Kind::Postgres.url()?, &options).await;
    Ok(store.map_err(text)?.with_clock(clock))
}

fn prefix(name: &str) -> String {
    format!("{name}:")
}

impl Records {
    /// Returns the text of a session, and how long it lives: in Redis from now on, in PostgreSQL
    /// since the start of the history.
    pub(crate) async fn text(&self, id: &str) -> Result<Option<(String, String)>, String> {
        match self {
            Self::Mongodb(_) => Err("documents are not texts".to_owned()),
            Self::Redis(connection, prefix) => {
                let mut commands = redis::Pipeline::new();
                commands.get(format!("{prefix}{id}")).pttl(format!("{prefix}{id}"));
                let (text, left): (Option<String>, i64) =
                    commands.query_async(&mut connection.clone()).await.map_err(self::text)?;
                let left = if left < 0 { left } else { (left + 999) / 1000 };
                Ok(text.map(|text| (text, format!("{left} s"))))
            }
            Self::Postgres(client, table) => {
                let sql = format!(
                    "SELECT sess::text, (extract(epoch FROM expire::timestamptz) * 1000)::int8 \
                     FROM \"{table}\" WHERE sid = $1"
                );
                let rows = client.query(&sql, &[&id]).await.map_err(self::text)?;
                Ok(rows.first().map(|row| {
                    let expires: i64 = row.get(1);
                    (row.get(0), format!("{} ms", expires - START as i64))
                }))
            }
        }
    }

    /// Deletes sessions.
    pub(crate) async fn delete(&self, keys: Vec<String>) -> Result<(), String> {
        if keys.is_empty() {
            return Ok(());
        }
        match self {
            Self::Mongodb(collection) => {
                let gone = collection.delete_many(doc! { "_id": { "$in": keys } }).await;
                gone.map(drop).map_err(text)
            }
            Self::Redis(connection, prefix) => {
                let mut command = redis::cmd("DEL");
                command.arg(keys.iter().map(|key| format!("{prefix}{key}")).collect::<Vec<_>>());
                command.query_async(&mut connection.clone()).await.map_err(text)
            }
            Self::Postgres(client, table) => {
                let sql = format!("DELETE FROM \"{table}\" WHERE sid = ANY($1)");
                client.execute(&sql, &[&keys]).await.map(drop).map_err(text)
            }
        }
    }
}
