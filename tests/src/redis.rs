//! A real Redis: a server for one test.

use std::ops::Deref;
use std::process::Command;

use crate::store_server::StoreServer;

/// A Redis server with its data on disk, which a test may disrupt.
pub struct Redis(StoreServer);

impl Deref for Redis {
    type Target = StoreServer;

    fn deref(&self) -> &StoreServer {
        &self.0
    }
}

impl Redis {
    /// Starts a server.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with options of `redis-server`. Its folder is the current one.
    #[track_caller]
    pub fn with(options: &[&str]) -> Self {
        Self(StoreServer::start("redis", options))
    }

    /// Returns its address: a `--store` URL.
    pub fn url(&self) -> &str {
        self.address()
    }

    /// Returns the port.
    pub fn port(&self) -> &str {
        self.url().rsplit(':').next().unwrap_or_default()
    }

    /// Runs a command and returns the reply, as `redis-cli` prints it.
    #[track_caller]
    pub fn run(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", self.port()]).args(command).output();
        let output = output.expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}
