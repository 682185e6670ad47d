//! A real MongoDB: databases for single tests, and servers that a test may disrupt.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mongodb::bson::{Bson, Document, doc};
use mongodb::sync::{Client, Collection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{checkout, temp_dir};

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
                Self::at(&mongod.uri.clone(), Some(mongod))
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

/// A MongoDB server for one test, with its data on disk; a replica set with one member.
pub struct Mongod {
    uri: String,
    dir: TempDir,
}

impl Mongod {
    /// Starts a server.
    #[track_caller]
    pub fn start() -> Self {
        let dir = temp_dir("mongod-");
        Self { uri: start_in(&dir), dir }
    }

    /// Returns the connection string with a database: a `--store` URL.
    pub fn url(&self) -> String {
        with_database(&self.uri, "edge_session_test")
    }

    /// Runs a command on the `admin` database.
    #[track_caller]
    pub fn admin(&self, command: Document) -> Document {
        let client = Client::with_uri_str(&self.uri).expect("it is a connection string");
        client.database("admin").run_command(command).run().expect("MongoDB does as told")
    }

    /// Kills the server: `kill -9`.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Suspends the server: connections stay open, and no request is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Mongod::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Restarts the server after [`Mongod::kill`], with the same data and port.
    #[track_caller]
    pub fn restart(&self) {
        assert_eq!(start_in(&self.dir), self.uri);
    }

    fn signal(&self, signal: Signal) {
        send(signal, self.dir.path());
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
        Self { uri: start("start-three", &dir), dir }
    }

    /// Returns the connection string with a database: a `--store` URL.
    pub fn url(&self) -> String {
        with_database(&self.uri, "edge_session_test")
    }

    /// Kills the primary server: `kill -9`.
    #[track_caller]
    pub fn kill_primary(&self) {
        let members = ["1", "2", "3"].map(|member| self.dir.path().join(member));
        let primary = members.iter().find(|member| {
            let port = fs::read_to_string(member.join("port")).expect("it has a port");
            let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", port.trim());
            let client = Client::with_uri_str(uri).expect("it is a connection string");
            let hello = client.database("admin").run_command(doc! { "hello": 1 }).run();
            hello.expect("MongoDB answers").get_bool("isWritablePrimary").unwrap_or(false)
        });
        send(Signal::KILL, primary.expect("there is a primary"));
    }
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        for member in ["1", "2", "3"] {
            send(Signal::KILL, &self.dir.path().join(member));
        }
    }
}

/// Sends a signal to the server of a folder.
fn send(signal: Signal, dir: &Path) {
    let pid = fs::read_to_string(dir.join("pid")).expect("mongod wrote its pid");
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("it is a pid");
    // A failure means that it has already exited.
    let _ = kill_process(pid, signal);
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn start_in(dir: &TempDir) -> String {
    start("start", dir)
}

#[track_caller]
fn start(action: &str, dir: &TempDir) -> String {
    let mut command = Command::new(checkout().join("scripts/mongod"));
    let output = command.arg(action).arg(dir.path()).output().expect("scripts/mongod can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
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
