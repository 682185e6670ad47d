//! The binary under test, as a child process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Visitor, built, checkout, temp_dir, wait_for};

/// The secret that servers get unless a test sets another.
pub const SECRET: &str = "only-for-tests-0123456789-abcdefghij";

const READY_WITHIN: Duration = Duration::from_secs(10);
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// Strings that must not appear in a log: secrets, session identifiers, signatures.
pub(crate) type Confidential = Arc<Mutex<BTreeSet<String>>>;

/// How to start `edge-session serve`. It can be started more than once.
#[derive(Clone)]
pub struct Launch {
    env: BTreeMap<String, String>,
    config: Option<String>,
    confidential: Confidential,
}

impl Launch {
    /// With this `--store` URL and [`SECRET`].
    pub fn new(store: &str) -> Self {
        let launch =
            Self { env: BTreeMap::new(), config: None, confidential: Confidential::default() };
        launch.env("EDGE_SESSION_STORE", store).env("EDGE_SESSION_SECRET", SECRET)
    }

    /// With an environment variable. All `EDGE_SESSION_*` of the test's own environment are removed.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Without an environment variable that [`Launch::new`] sets.
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// With a configuration file of this content.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// Starts it on a free port and waits until it is healthy.
    #[track_caller]
    pub fn start(&self) -> Server {
        let port = free_port();
        let mut server = self.spawn(port);
        wait_for("the server to be ready", READY_WITHIN, || {
            if let Some(status) = server.child.try_wait().expect("the child can be asked") {
                panic!("the server ended with {status} instead of serving");
            }
            let health = ureq::get(format!("{}/healthz", server.url())).call();
            health.is_ok_and(|response| response.status() == 200).then_some(())
        });
        server
    }

    /// Starts it, expects it to refuse within ten seconds, and returns all that it printed.
    #[track_caller]
    pub fn refusal(&self) -> String {
        let mut server = self.spawn(free_port());
        let status = server.wait(Duration::from_secs(10));
        let output = server.log();
        assert!(!status.success(), "it ended with success, having said: {output}");
        assert!(status.code().is_some(), "it was killed ({status}), having said: {output}");
        assert!(!output.contains("panicked"), "it panicked: {output}");
        output
    }

    fn spawn(&self, port: u16) -> Server {
        let dir = temp_dir("server-");
        let log = File::create(dir.path().join("log")).expect("the log can be created");
        let mut command = Command::new(built(
            "EDGE_SESSION_BIN",
            || target_dir().join("debug/edge-session"),
            "cargo build -p edge-session",
        ));
        let component = built(
            "EDGE_SESSION_COMPONENT",
            || checkout().join("target/session.wasm"),
            "make component",
        );
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EDGE_SESSION_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .env("EDGE_SESSION_COMPONENT", component)
            .envs(&self.env)
            .current_dir(dir.path())
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log);
        if let Some(config) = &self.config {
            let path = dir.path().join("config.toml");
            fs::write(&path, config).expect("the configuration can be written");
            command.arg("--config").arg(path);
        }
        self.confidential.lock().unwrap().extend(
            self.env.get("EDGE_SESSION_SECRET").iter().flat_map(|s| s.split(',')).map(String::from),
        );
        Server {
            child: command.spawn().expect("the binary can be started"),
            port,
            dir,
            confidential: self.confidential.clone(),
        }
    }
}

/// A running `edge-session serve`. However it ends, its log is checked for what must not be there.
pub struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
    confidential: Confidential,
}

impl Server {
    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Somebody who was never here.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.url(), self.confidential.clone())
    }

    /// What it printed so far, on either stream.
    pub fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).expect("the log can be read");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Asks it to stop, without waiting.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the server is still there");
    }

    /// SIGTERM, and it must end well.
    #[track_caller]
    pub fn stop(mut self) {
        self.terminate();
        let status = self.wait(STOPPED_WITHIN);
        assert!(status.success(), "stopped by SIGTERM, it ended with {status}");
    }

    /// `kill -9`
    pub fn kill(mut self) {
        self.end();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    #[track_caller]
    fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("the server to end", limit, || {
            self.child.try_wait().expect("the child can be asked")
        })
    }

    fn end(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{log}");
            return;
        }
        for confidential in &*self.confidential.lock().unwrap() {
            assert!(!log.contains(confidential), "{confidential:?} is in the log:\n{log}");
        }
        assert!(!log.contains("panicked"), "something panicked:\n{log}");
    }
}

/// Cargo's target folder: the test itself runs in `TARGET/PROFILE/deps`.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a program knows its path");
    test.ancestors().nth(3).expect("the test is in TARGET/PROFILE/deps").to_owned()
}

/// A port below those that the kernel hands to clients, so that none of those takes it in between.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    (0..1000)
        .map(|_| 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("there is a free port")
}
