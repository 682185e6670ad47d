//! A real Redis: a server for one test.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::store_server::{self, StoreServer};
use crate::temp_dir;

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
        run(self.port(), command)
    }
}

#[track_caller]
fn run(port: &str, command: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", port]).args(command).output();
    let output = output.expect("redis-cli can be run");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A Redis cluster of three masters with a replica each. Dropping it kills all servers.
pub struct RedisCluster {
    dir: TempDir,
    url: String,
}

impl RedisCluster {
    /// Starts a cluster.
    #[track_caller]
    pub fn start() -> Self {
        let dir = temp_dir("cluster-");
        let url = store_server::run("redis", "start-cluster", dir.path(), &[]);
        Self { dir, url }
    }

    /// Returns its address: a `--store` URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills a master that has keys: `kill -9`. Returns its folder, for [`RedisCluster::restart`].
    #[track_caller]
    pub fn kill_a_master(&self) -> PathBuf {
        for member in self.members() {
            let port = fs::read_to_string(member.join("port")).expect("a server has a port");
            let (role, keys) = (run(port.trim(), &["ROLE"]), run(port.trim(), &["DBSIZE"]));
            if role.starts_with("master") && keys != "0" {
                store_server::send(Signal::KILL, &member);
                return member;
            }
        }
        panic!("no master has a key");
    }

    /// Starts a server again, which becomes the replica of its successor.
    #[track_caller]
    pub fn restart(&self, member: &Path) {
        let bus = fs::read_to_string(member.join("bus")).expect("a server has a second port");
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let options = [&options[..], &["--cluster-port", bus.trim()]].concat();
        store_server::run("redis", "start", member, &options);
    }

    /// Returns whether the servers that are left serve all keys again.
    pub fn has_failed_over(&self) -> bool {
        let answers: Vec<_> = self
            .members()
            .map(|member| {
                let port = fs::read_to_string(member.join("port")).expect("a server has a port");
                run(port.trim(), &["CLUSTER", "INFO"])
            })
            .filter(|info| !info.is_empty())
            .collect();
        answers.len() == 5
            && answers.iter().all(|info| {
                info.contains("cluster_state:ok") && info.contains("cluster_slots_fail:0")
            })
    }

    fn members(&self) -> impl Iterator<Item = PathBuf> {
        (1..=6).map(|member| self.dir.path().join(member.to_string()))
    }
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        self.members().for_each(|member| store_server::send(Signal::KILL, &member));
    }
}

/// A Redis master, its replica, and three sentinels that watch them. Dropping it kills all servers.
pub struct RedisSentinels {
    dir: TempDir,
    url: String,
}

impl RedisSentinels {
    /// Starts the servers.
    #[track_caller]
    pub fn start() -> Self {
        let dir = temp_dir("sentinels-");
        let url = store_server::run("redis", "start-sentinels", dir.path(), &[]);
        Self { dir, url }
    }

    /// Returns their address: a `--store` URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills the first master: `kill -9`.
    pub fn kill_master(&self) {
        store_server::send(Signal::KILL, &self.dir.path().join("1"));
    }

    /// Suspends the first master: connections stay open, and no request is answered.
    pub fn freeze_master(&self) {
        store_server::send(Signal::STOP, &self.dir.path().join("1"));
    }

    /// Ends [`RedisSentinels::freeze_master`].
    pub fn thaw_master(&self) {
        store_server::send(Signal::CONT, &self.dir.path().join("1"));
    }

    /// Starts the first master again, which becomes the replica of its successor.
    #[track_caller]
    pub fn restart_master(&self) {
        store_server::run("redis", "start", &self.dir.path().join("1"), &[]);
    }

    /// Returns whether all sentinels name the replica as the master, and it is one.
    pub fn have_failed_over(&self) -> bool {
        let port = |member: usize| {
            let file = self.dir.path().join(member.to_string()).join("port");
            fs::read_to_string(file).expect("a server has a port").trim().to_owned()
        };
        let named = format!("127.0.0.1\n{}", port(2));
        let name = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "edge"];
        run(&port(2), &["ROLE"]).starts_with("master")
            && (3..=5).all(|sentinel| run(&port(sentinel), &name) == named)
    }
}

impl Drop for RedisSentinels {
    fn drop(&mut self) {
        for member in 1..=5 {
            store_server::send(Signal::KILL, &self.dir.path().join(member.to_string()));
        }
    }
}
