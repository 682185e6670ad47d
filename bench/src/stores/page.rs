//! The page of the comparison of stores, with edge-session's layer or with a client's own
//! operations. For each, this program runs itself: `store-page WHO NAME PORT`.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Html;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge_session::store::{
    CachedStore, MongoOptions, MongoStore, PostgresOptions, PostgresStore, RedisOptions,
    RedisStore, Store,
};
use edge_session::{Component, Options, Session, SessionLayer};
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use redis::AsyncCommands as _;
use serde_json::Value;
use tokio_postgres::NoTls;

use super::{Database, LIFETIME, Who, uri};
use crate::{Result, SECRET, component_path};

type Failure = (StatusCode, String);

fn failed(error: impl std::fmt::Display) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn page(count: u64) -> Html<String> {
    Html(format!("<h1>you have visited this page {count} times</h1>"))
}

/// Serves until killed.
pub(crate) fn serve(database: &str, who: &str, name: &str, port: &str) -> Result<()> {
    let database = Database::of(database)?;
    let who = Who::of(who)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = match who {
            Who::Client | Who::Comparing => client(database, who, name).await?,
            Who::Ours | Who::OursTouching | Who::OursCached | Who::OursPreparing => {
                ours(database, who, name).await?
            }
            Who::Express => return Err("express is another program".into()),
        };
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        axum::serve(listener, app).await?;
        Ok(())
    })
}

async fn ours(database: Database, who: Who, name: &str) -> Result<Router> {
    let uri = uri(database)?;
    // The database shares the cores with the load.
    let timeout = Duration::from_secs(30);
    let mut store: Arc<dyn Store> = match database {
        Database::MongoDb => {
            let db_name = Some(name.to_owned());
            let options = MongoOptions { db_name, timeout, ..MongoOptions::default() };
            Arc::new(MongoStore::connect(&uri, &options).await?)
        }
        Database::Redis => {
            let prefix = format!("{name}:");
            let options = RedisOptions { prefix, timeout, ..RedisOptions::default() };
            Arc::new(RedisStore::connect(&uri, &options).await?)
        }
        Database::Postgres => {
            let table = name.to_owned();
            let prepare = who == Who::OursPreparing;
            let options = PostgresOptions { table, prepare, timeout, ..PostgresOptions::default() };
            Arc::new(PostgresStore::connect(&uri, &options).await?)
        }
    };
    let mut options = Options::default();
    options.secret(SECRET);
    match who {
        Who::OursTouching => {
            options.set("store.touch_after", 0);
        }
        Who::OursCached => {
            store = Arc::new(CachedStore::new(store, Duration::from_secs(1), 64 << 20));
        }
        _ => {}
    }
    let component = Component::from_file(component_path(), None)?;
    let layer = SessionLayer::with_deadline(component, options, store, timeout)?;
    let read = async |session: Session| {
        let count = session.get::<u64>("viewCount").map_err(failed)?.unwrap_or(0);
        Ok::<_, Failure>(page(count))
    };
    let count = async |session: Session| {
        let count = session.get::<u64>("viewCount").map_err(failed)?.unwrap_or(0) + 1;
        session.insert("viewCount", count).map_err(failed)?;
        Ok::<_, Failure>(page(count))
    };
    Ok(Router::new()
        .route("/read", get(read))
        .route("/count", get(count))
        .layer(layer)
        .route("/bare", get(async || page(100))))
}

static COMPARE: LazyLock<redis::Script> = LazyLock::new(|| {
    redis::Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return 1",
    )
});

/// The client's own operations, as an application without a session library would call them.
#[derive(Clone)]
enum Client {
    MongoDb(mongodb::Collection<Document>),
    Redis(redis::aio::ConnectionManager, String),
    Postgres(deadpool_postgres::Pool, Arc<str>),
}

#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Read,
    Touch,
    Count,
    /// Counts, unless the session has changed since it was read.
    CountIfUnchanged,
}

async fn client(database: Database, who: Who, name: &str) -> Result<Router> {
    let uri = uri(database)?;
    let client = match database {
        Database::MongoDb => {
            let mut options = ClientOptions::parse(&uri).await?;
            options.write_concern = Some(WriteConcern::majority());
            let client = mongodb::Client::with_options(options)?;
            Client::MongoDb(client.database(name).collection("sessions"))
        }
        Database::Redis => {
            let config = redis::aio::ConnectionManagerConfig::new()
                .set_response_timeout(Some(Duration::from_secs(30)));
            let client = redis::Client::open(uri)?;
            let connection = redis::aio::ConnectionManager::new_with_config(client, config).await?;
            Client::Redis(connection, format!("{name}:"))
        }
        Database::Postgres => {
            let manager = deadpool_postgres::Manager::new(uri.parse()?, NoTls);
            let pool = deadpool_postgres::Pool::builder(manager).max_size(10).build()?;
            Client::Postgres(pool, format!("\"{name}\"").into())
        }
    };
    let page = |deed: Deed| {
        let client = client.clone();
        get(async move |headers: HeaderMap| client.answer(deed, &headers).await)
    };
    Ok(Router::new().route("/read", page(Deed::Read)).route("/touch", page(Deed::Touch)).route(
        "/count",
        page(if who == Who::Comparing { Deed::CountIfUnchanged } else { Deed::Count }),
    ))
}

impl Client {
    async fn answer(
        &self,
        deed: Deed,
        headers: &HeaderMap,
    ) -> std::result::Result<Html<String>, Failure> {
        let cookie = headers.get(header::COOKIE).and_then(|cookie| cookie.to_str().ok());
        let Some(id) = cookie.and_then(|cookie| cookie.strip_prefix("connect.sid=s%3A")) else {
            let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
            self.create(&id, &text(1)).await.map_err(failed)?;
            return Ok(page(1));
        };
        let id = id.split_once('.').map_or(id, |(id, _)| id);
        let found = self.find(id).await.map_err(failed)?;
        let mut session: Value = serde_json::from_str(&found).map_err(failed)?;
        let count = session["viewCount"].as_u64().unwrap_or(0);
        match deed {
            Deed::Read => Ok(page(count)),
            Deed::Touch => {
                self.touch(id).await.map_err(failed)?;
                Ok(page(count))
            }
            Deed::Count | Deed::CountIfUnchanged => {
                session["viewCount"] = (count + 1).into();
                let expected = (deed == Deed::CountIfUnchanged).then_some(&*found);
                self.update(id, &session.to_string(), expected).await.map_err(failed)?;
                Ok(page(count + 1))
            }
        }
    }

    async fn find(&self, id: &str) -> Result<String> {
        match self {
            Self::MongoDb(sessions) => {
                let found = sessions.find_one(doc! { "_id": id }).await?.ok_or("no session")?;
                Ok(found.get_str("session")?.to_owned())
            }
            Self::Redis(connection, prefix) => {
                Ok(connection.clone().get(format!("{prefix}{id}")).await?)
            }
            Self::Postgres(pool, table) => {
                let connection = pool.get().await?;
                let sql = format!("SELECT sess::text FROM {table} WHERE sid = $1");
                let statement = connection.prepare_cached(&sql).await?;
                Ok(connection.query_one(&statement, &[&id]).await?.try_get(0)?)
            }
        }
    }

    async fn create(&self, id: &str, text: &str) -> Result<()> {
        match self {
            Self::MongoDb(sessions) => {
                let document = doc! { "_id": id, "expires": later(), "session": text };
                sessions.insert_one(document).await?;
            }
            Self::Redis(connection, prefix) => {
                let key = format!("{prefix}{id}");
                let _: () = connection.clone().set_ex(key, text, LIFETIME.as_secs()).await?;
            }
            Self::Postgres(pool, table) => {
                let sql = format!("INSERT INTO {table} VALUES ($1, $2::text::json, $3)");
                change(pool, &sql, &[&id, &text, &at()]).await?;
            }
        }
        Ok(())
    }

    async fn update(&self, id: &str, text: &str, expected: Option<&str>) -> Result<()> {
        match self {
            Self::MongoDb(sessions) => {
                let mut query = doc! { "_id": id };
                if let Some(expected) = expected {
                    query.insert("session", expected);
                }
                let set = doc! { "$set": { "session": text, "expires": later() } };
                sessions.update_one(query, set).await?;
                Ok(())
            }
            Self::Redis(connection, prefix) => match expected {
                None => self.create(id, text).await,
                Some(expected) => {
                    let mut script = COMPARE.key(format!("{prefix}{id}"));
                    script.arg(expected).arg(text).arg(LIFETIME.as_secs());
                    let _: i64 = script.invoke_async(&mut connection.clone()).await?;
                    Ok(())
                }
            },
            Self::Postgres(pool, table) => {
                let sql =
                    format!("UPDATE {table} SET sess = $2::text::json, expire = $3 WHERE sid = $1");
                match expected {
                    None => change(pool, &sql, &[&id, &text, &at()]).await,
                    Some(expected) => {
                        let sql = sql + " AND sess::text = $4";
                        change(pool, &sql, &[&id, &text, &at(), &expected]).await
                    }
                }
            }
        }
    }

    async fn touch(&self, id: &str) -> Result<()> {
        match self {
            Self::MongoDb(sessions) => {
                let set = doc! { "$set": { "expires": later() } };
                sessions.update_one(doc! { "_id": id }, set).await?;
            }
            Self::Redis(connection, prefix) => {
                let (key, seconds) = (format!("{prefix}{id}"), LIFETIME.as_secs() as i64);
                let _: () = connection.clone().expire(key, seconds).await?;
            }
            Self::Postgres(pool, table) => {
                let sql = format!("UPDATE {table} SET expire = $2 WHERE sid = $1");
                change(pool, &sql, &[&id, &at()]).await?;
            }
        }
        Ok(())
    }
}

async fn change(
    pool: &deadpool_postgres::Pool,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<()> {
    let connection = pool.get().await?;
    let statement = connection.prepare_cached(sql).await?;
    connection.execute(&statement, values).await?;
    Ok(())
}

/// Returns a session as express-session stores it.
pub(super) fn text(count: u64) -> String {
    format!(
        "{{\"cookie\":{{\"originalMaxAge\":null,\"expires\":null,\"httpOnly\":true,\"path\":\"/\"}},\
         \"viewCount\":{count}}}"
    )
}

/// Returns when a session expires that is used now, as PostgreSQL's `timestamp`.
pub(super) fn at() -> SystemTime {
    SystemTime::now() + LIFETIME
}

pub(super) fn later() -> DateTime {
    let millis = at().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    DateTime::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
