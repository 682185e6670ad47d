//! A real MongoDB: databases for single tests, and servers that a test may disrupt.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use mongodb::bson::{Bson, Document, doc};
use mongodb::sync::{Client, Collection};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::store_server::{StoreServer, run, send};
use crate::{temp_dir, wait_for};

/// A new, empty database, dropped at the end: on the server of `MONGODB_URI`, else on its own
/// server.
pub struct Database {
    client: Client,
    name: String,
    url: String,
    _own: Option<Mongod>,
}

impl Database {
    /// Creates a database on the server that all tests share.
    #[track_caller]
    pub fn new() -> Self {
        match std::env::var("MONGODB_URI") {
            Ok(uri) => Self::at(&uri, None),
            Err(_) => {
                let mongod = Mongod::start();
                {
                    let uri = mongod.address().to_owned();
                    Self::at(&uri, Some(mongod))
                }
            }
        }
    }

    fn at(uri: &str, own: Option<Mongod>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "edge_session_test_{}_{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let client = Client::with_uri_str(uri).expect("MONGODB_URI is a connection string");
        Self { client, url: with_database(uri, &name), name, _own: own }
    }

    /// Returns the connection string with the database: a `--store` URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the collection of sessions.
    pub fn sessions(&self) -> Collection<Document> {
        self.client.database(&self.name).collection("sessions")
    }

    /// Returns the document of one session.
    #[track_caller]
    pub fn session(&self, id: &str) -> Option<Document> {
        self.sessions().find_one(doc! { "_id": id }).run().expect("MongoDB answers")
    }

    /// Runs a command on the database.
    #[track_caller]
    pub fn run(&self, command: Document) {
        self.client.database(&self.name).run_command(command).run().expect("MongoDB does it");
    }

    /// Records all queries from now on.
    #[track_caller]
    pub fn profile(&self) {
        self.run(doc! { "profile": 2 });
    }

    /// Returns the response sizes, in bytes, of all reads of one session's document since then.
    #[track_caller]
    pub fn fetched(&self, id: &str) -> Vec<i64> {
        let asked: Collection<Document> =
            self.client.database(&self.name).collection("system.profile");
        let finds = doc! { "command.find": "sessions", "command.filter._id": id };
        let found = asked.find(finds).run().expect("MongoDB answers");
        let bytes = |entry: Document| entry.get("responseLength").and_then(as_number);
        found.map(|entry| bytes(entry.expect("MongoDB answers")).expect("it is a number")).collect()
    }
}

fn as_number(value: &Bson) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

impl Default for Database {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // After a failure, the rest is removed with the server.
        let _ = self.client.database(&self.name).drop().run();
    }
}

/// A MongoDB server for one test, which it may disrupt; a replica set with one member.
pub struct Mongod(StoreServer);

impl Deref for Mongod {
    type Target = StoreServer;

    fn deref(&self) -> &StoreServer {
        &self.0
    }
}

impl Mongod {
    /// Starts a server.
    #[track_caller]
    pub fn start() -> Self {
        Self(StoreServer::start("mongod", &[]))
    }

    /// Returns the connection string with a database: a `--store` URL.
    pub fn url(&self) -> String {
        with_database(self.address(), "edge_session_test")
    }

    /// Runs a command on the `admin` database.
    #[track_caller]
    pub fn admin(&self, command: Document) -> Document {
        let client = Client::with_uri_str(self.address()).expect("it is a connection string");
        client.database("admin").run_command(command).run().expect("MongoDB does as told")
    }
}

/// A replica set of three MongoDB servers for one test.
pub struct ReplicaSet {
    uri: String,
    dir: TempDir,
}

impl ReplicaSet {
    /// Starts the servers.
    #[track_caller]
    pub fn start() -> Self {
        let dir = temp_dir("mongods-");
        Self { uri: run("mongod", "start-three", dir.path(), &[]), dir }
    }

    /// Returns the connection string with a database: a `--store` URL.
    pub fn url(&self) -> String {
        with_database(&self.uri, "edge_session_test")
    }

    /// Kills the primary server: `kill -9`.
    #[track_caller]
    pub fn kill_primary(&self) {
        send(Signal::KILL, &self.primary());
    }

    /// Freezes the primary server for as long as `during` takes: `kill -STOP`.
    #[track_caller]
    pub fn freeze_primary(&self, during: impl FnOnce()) {
        let primary = self.primary();
        send(Signal::STOP, &primary);
        during();
        send(Signal::CONT, &primary);
    }

    /// Returns the folder of the primary server, as soon as there is one.
    #[track_caller]
    fn primary(&self) -> PathBuf {
        let members = ["1", "2", "3"].map(|member| self.dir.path().join(member));
        let is_primary = |member: &&PathBuf| {
            let port = fs::read_to_string(member.join("port")).expect("it has a port");
            let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", port.trim());
            let client = Client::with_uri_str(uri).expect("it is a connection string");
            let hello = client.database("admin").run_command(doc! { "hello": 1 }).run();
            hello.is_ok_and(|it| it.get_bool("isWritablePrimary").unwrap_or(false))
        };
        let limit = std::time::Duration::from_secs(30);
        wait_for("a primary server", limit, || members.iter().find(is_primary).cloned())
    }
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        for member in ["1", "2", "3"] {
            send(Signal::KILL, &self.dir.path().join(member));
        }
    }
}

/// Replaces the database in a connection string.
fn with_database(uri: &str, name: &str) -> String {
    let (hosts, options) =
        uri.split_once('?').map_or((uri, None), |(hosts, options)| (hosts, Some(options)));
    let hosts_start = hosts.find("://").map_or(0, |at| at + 3);
    let hosts_end = hosts[hosts_start..].find('/').map_or(hosts.len(), |at| hosts_start + at);
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{}/{name}{options}", &hosts[..hosts_end])
}
