//! A real PostgreSQL: a server for one test.

use std::fs;
use std::ops::Deref;
use std::process::Command;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::store_server::{self, StoreServer};
use crate::{process, temp_dir};

/// A PostgreSQL server with its data on disk, which a test may disrupt.
pub struct Postgres(StoreServer);

impl Deref for Postgres {
    type Target = StoreServer;

    fn deref(&self) -> &StoreServer {
        &self.0
    }
}

impl Postgres {
    /// Starts a server, which has no table of sessions.
    #[track_caller]
    pub fn bare() -> Self {
        Self::with(&[])
    }

    /// Starts a server with options of `postgres`. Its folder of data is the current one.
    #[track_caller]
    pub fn with(options: &[&str]) -> Self {
        Self(StoreServer::start("postgres", options))
    }

    /// Starts a server with connect-pg-simple's table.
    #[track_caller]
    pub fn start() -> Self {
        let server = Self::bare();
        server.run(
            "CREATE TABLE session (sid varchar NOT NULL COLLATE \"default\" PRIMARY KEY, \
             sess json NOT NULL, expire timestamp(6) NOT NULL)",
        );
        server
    }

    /// Returns its address: a `--store` URL.
    pub fn url(&self) -> &str {
        self.address()
    }

    /// Returns the address of another user.
    pub fn url_of(&self, user: &str) -> String {
        self.url().replacen("edge:edge", user, 1)
    }

    /// Kills the server and the processes of its connections: `kill -9`.
    pub fn kill(&self) {
        // So that it does not start others in between.
        self.0.freeze();
        self.signal_connections(Signal::KILL);
        self.0.kill();
    }

    /// Suspends the server and the processes of its connections.
    pub fn freeze(&self) {
        self.0.freeze();
        self.signal_connections(Signal::STOP);
    }

    /// Ends [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal_connections(Signal::CONT);
        self.0.thaw();
    }

    fn signal_connections(&self, signal: Signal) {
        let pid = fs::read_to_string(self.dir().join("pid")).expect("the server wrote its pid");
        let found = Command::new("pgrep").args(["-P", pid.trim()]).output();
        let found = String::from_utf8(found.expect("pgrep can be run").stdout);
        let pids: Vec<_> = found.expect("it prints pids").lines().map(str::to_owned).collect();
        assert!(!pids.is_empty(), "the server has no processes");
        for pid in pids.iter().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)) {
            process::send(pid, signal);
        }
    }

    /// Runs SQL and returns the result, as `psql -At` prints it.
    #[track_caller]
    pub fn run(&self, sql: &str) -> String {
        let mut command = Command::new("psql");
        let output =
            command.args(["-AtqX", "-v", "ON_ERROR_STOP=1", "-c", sql, self.url()]).output();
        let output = output.expect("psql can be run");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

/// A PostgreSQL server behind a PgBouncer in its transaction mode, which has two connections to it.
/// Dropping it kills both.
pub struct PgBouncer {
    dir: TempDir,
    url: String,
}

impl PgBouncer {
    /// Starts both.
    #[track_caller]
    pub fn start() -> Self {
        let dir = temp_dir("pgbouncer-");
        let url = store_server::run("postgres", "start-bouncer", dir.path(), &[]);
        Self { dir, url }
    }

    /// Returns PgBouncer's address: a `--store` URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        store_server::send(Signal::KILL, self.dir.path());
        store_server::send(Signal::INT, &self.dir.path().join("server"));
    }
}
