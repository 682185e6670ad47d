//! The sessions in a database: the bench fills it and counts in it, as a client of its own.

use mongodb::bson::{Document, doc};
use ring::hmac;
use tokio_postgres::NoTls;

use super::page::{later, text};
use super::{Database, LIFETIME, uri};
use crate::gateway::database::cookie;
use crate::{Result, SECRET};

/// How many sessions are sent at once.
const AT_ONCE: usize = 10_000;

/// The sessions of this run only. Dropping it removes them.
pub(super) struct Data {
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Of the database in MongoDB, of the table in PostgreSQL; the prefix of keys in Redis.
    name: String,
}

enum Client {
    MongoDb(mongodb::Client),
    Redis(redis::aio::MultiplexedConnection),
    Postgres(tokio_postgres::Client),
}

impl Data {
    pub(super) fn open(database: Database, name: &str) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let uri = uri(database)?;
        let client = runtime.block_on(async {
            Ok::<_, crate::Error>(match database {
                Database::MongoDb => {
                    let client = mongodb::Client::with_uri_str(uri).await?;
                    Client::MongoDb(client)
                }
                Database::Redis => {
                    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
                    let client = redis::Client::open(uri)?;
                    Client::Redis(
                        client.get_multiplexed_async_connection_with_config(&config).await?,
                    )
                }
                Database::Postgres => {
                    let (client, connection) = tokio_postgres::connect(&uri, NoTls).await?;
                    tokio::spawn(connection);
                    // As connect-pg-simple creates it.
                    let sql = format!(
                        "CREATE TABLE \"{name}\" (sid varchar NOT NULL COLLATE \"default\" \
                         PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL); \
                         CREATE INDEX ON \"{name}\" (expire)"
                    );
                    client.batch_execute(&sql).await?;
                    Client::Postgres(client)
                }
            })
        })?;
        Ok(Self { runtime, client, name: name.to_owned() })
    }

    /// Stores the sessions with these numbers, as Express stores them after a first visit.
    pub(super) fn fill(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let text = text(1);
        let name = &self.name;
        self.runtime.block_on(async {
            for first in numbers.clone().step_by(AT_ONCE) {
                let numbers = first..numbers.end.min(first + AT_ONCE);
                match &self.client {
                    Client::MongoDb(client) => {
                        let sessions = client.database(name).collection::<Document>("sessions");
                        let documents = numbers
                            .map(|it| doc! { "_id": id(it), "expires": later(), "session": &text });
                        sessions.insert_many(documents).ordered(false).await?;
                    }
                    Client::Redis(connection) => {
                        let mut pipeline = redis::pipe();
                        for number in numbers {
                            let key = format!("{name}:{}", id(number));
                            pipeline.set_ex(key, &text, LIFETIME.as_secs()).ignore();
                        }
                        pipeline.exec_async(&mut connection.clone()).await?;
                    }
                    Client::Postgres(client) => {
                        let sql = format!(
                            "INSERT INTO \"{name}\" SELECT it, $2::text::json, \
                             now() + make_interval(secs => $3) FROM unnest($1::text[]) it"
                        );
                        let ids: Vec<_> = numbers.map(id).collect();
                        let seconds = LIFETIME.as_secs_f64();
                        client.execute(&sql, &[&ids, &text, &seconds]).await?;
                    }
                }
            }
            if let Client::Postgres(client) = &self.client {
                // As autovacuum would, some time later.
                client.batch_execute(&format!("VACUUM ANALYZE \"{name}\"")).await?;
            }
            Ok(())
        })
    }

    /// Returns the number of sessions.
    pub(super) fn count(&self) -> Result<u64> {
        let name = &self.name;
        self.runtime.block_on(async {
            Ok(match &self.client {
                Client::MongoDb(client) => {
                    let sessions = client.database(name).collection::<Document>("sessions");
                    sessions.count_documents(doc! {}).await?
                }
                Client::Redis(connection) => {
                    redis::cmd("DBSIZE").query_async(&mut connection.clone()).await?
                }
                Client::Postgres(client) => {
                    let sql = format!("SELECT count(*) FROM \"{name}\"");
                    client.query_one(&sql, &[]).await?.get::<_, i64>(0).unsigned_abs()
                }
            })
        })
    }

    pub(super) fn version(&self) -> Result<String> {
        self.runtime.block_on(async {
            Ok(match &self.client {
                Client::MongoDb(client) => {
                    let admin = client.database("admin");
                    let answer = admin.run_command(doc! { "buildInfo": 1 }).await?;
                    format!("MongoDB {}", answer.get_str("version")?)
                }
                Client::Redis(connection) => {
                    let info: String = redis::cmd("INFO")
                        .arg("server")
                        .query_async(&mut connection.clone())
                        .await?;
                    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
                    format!("Redis {}", version.unwrap_or("(unknown version)"))
                }
                Client::Postgres(client) => {
                    let answer = client.query_one("SHOW server_version", &[]).await?;
                    let version: String = answer.try_get(0)?;
                    let version = version.split(' ').next().unwrap_or_default();
                    format!("PostgreSQL {version}")
                }
            })
        })
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let name = &self.name;
        // A failure here could not be reported.
        self.runtime.block_on(async {
            match &self.client {
                Client::MongoDb(client) => drop(client.database(name).drop().await),
                Client::Redis(connection) => {
                    let all = "local at = '0' repeat local found = redis.call('SCAN', at, 'MATCH', \
                               ARGV[1], 'COUNT', 10000) at = found[1] for _, key in \
                               ipairs(found[2]) do redis.call('UNLINK', key) end until at == '0'";
                    let mut delete = redis::cmd("EVAL");
                    delete.arg(all).arg(0).arg(format!("{name}:*"));
                    drop(delete.exec_async(&mut connection.clone()).await);
                }
                Client::Postgres(client) => {
                    drop(client.batch_execute(&format!("DROP TABLE \"{name}\"")).await);
                }
            }
        });
    }
}

fn id(number: usize) -> String {
    format!("visitor-{number:024}")
}

/// Returns the visitors' Cookie headers.
pub(super) fn cookies(count: usize) -> Vec<String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    (0..count).map(|number| cookie(&key, &id(number))).collect()
}
