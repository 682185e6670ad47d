//! A real Redis: a server for one test, which it may disrupt.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::checkout;
use crate::temp_dir;

/// A Redis server with its data on disk.
pub struct Redis {
    url: String,
    dir: TempDir,
}

impl Redis {
    /// Starts a server.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with options of `redis-server`.
    #[track_caller]
    pub fn with(options: &[&str]) -> Self {
        let dir = temp_dir("redis-");
        Self { url: start_in(&dir, options), dir }
    }

    /// Returns its address: a `--store` URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the port.
    pub fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap_or_default()
    }

    /// Runs a command and returns the reply, as `redis-cli` prints it.
    #[track_caller]
    pub fn run(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", self.port()]).args(command).output();
        let output = output.expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Kills the server: `kill -9`.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Suspends the server: connections stay open, and no request is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Redis::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Restarts the server after [`Redis::kill`], with the same data and port.
    #[track_caller]
    pub fn restart(&self) {
        assert_eq!(start_in(&self.dir, &[]), self.url);
    }

    fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(self.dir.path().join("pid")).expect("Redis wrote its pid");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("it is a pid");
        // A failure means that it has already exited.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn start_in(dir: &TempDir, options: &[&str]) -> String {
    let mut command = Command::new(checkout().join("scripts/redis"));
    let output = command.arg("start").arg(dir.path()).args(options).output();
    let output = output.expect("scripts/redis can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
