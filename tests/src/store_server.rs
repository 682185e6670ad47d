//! The server of a store, which a script starts in a folder on disk, and which a test may disrupt.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::{checkout, process, temp_dir};

/// A running server. Dropping it kills it.
pub struct StoreServer {
    script: &'static str,
    address: String,
    dir: TempDir,
}

impl StoreServer {
    /// Starts a server by `scripts/SCRIPT start DIR OPTION…`.
    #[track_caller]
    pub(crate) fn start(script: &'static str, options: &[&str]) -> Self {
        let dir = temp_dir(&format!("{script}-"));
        Self { script, address: run(script, "start", dir.path(), options), dir }
    }

    /// Returns the address that the script has printed.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the server's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills the server: `kill -9`.
    pub fn kill(&self) {
        send(Signal::KILL, self.dir());
    }

    /// Suspends the server: connections stay open, and no request is answered.
    pub fn freeze(&self) {
        send(Signal::STOP, self.dir());
    }

    /// Ends [`StoreServer::freeze`].
    pub fn thaw(&self) {
        send(Signal::CONT, self.dir());
    }

    /// Restarts the server after [`StoreServer::kill`], with the same data and port.
    #[track_caller]
    pub fn restart(&self) {
        assert_eq!(run(self.script, "start", self.dir(), &[]), self.address);
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a script to its end, and returns what it prints.
#[track_caller]
pub(crate) fn run(script: &str, action: &str, dir: &Path, options: &[&str]) -> String {
    let mut command = Command::new(checkout().join("scripts").join(script));
    let output = command.arg(action).arg(dir).args(options).output();
    let output = output.expect("the script can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Sends a signal to the server of a folder.
pub(crate) fn send(signal: Signal, dir: &Path) {
    let pid = fs::read_to_string(dir.join("pid")).expect("the server wrote its pid");
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("it is a pid");
    process::send(pid, signal);
}
