//! The middleware with the tests' application and a key-value store, in wasmCloud (`wash dev`).

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::front::{read_log, tool};
use crate::{Process, checkout, free_port, temp_dir, wait_for};

/// A running `wash dev`, until it is dropped.
pub struct Wash {
    process: Process,
    port: u16,
    dir: TempDir,
}

/// Where wasmCloud keeps keys and values.
#[derive(Clone, Copy, Debug)]
pub enum KeyValue<'k> {
    /// In this folder.
    Folder(&'k str),
    /// In the NATS server at this URL.
    Nats(&'k str),
    /// In the Redis server at this URL.
    Redis(&'k str),
}

impl Wash {
    /// Starts it with these environment variables, which the component sees.
    #[track_caller]
    pub fn start(store: KeyValue<'_>, env: &[(String, String)]) -> Self {
        let component = checkout().join("target/served-for-tests.wasm");
        assert!(component.exists(), "{} is missing: run make middleware", component.display());
        let dir = temp_dir("wash-");
        let port = free_port();
        let store = match store {
            KeyValue::Folder(path) => format!("wasi_keyvalue_path: {path:?}"),
            KeyValue::Nats(url) => format!("wasi_keyvalue_nats_url: {url:?}"),
            KeyValue::Redis(url) => format!("wasi_keyvalue_redis_url: {url:?}"),
        };
        let env: String = env
            .iter()
            .map(|(name, value)| format!("      {name}: {}\n", serde_json::Value::from(&**value)))
            .collect();
        let config = format!(
            "build: {{ command: \"true\", component_path: {:?} }}\n\
             workload:\n  environment:\n    config:\n{env}\
             dev: {{ address: \"127.0.0.1:{port}\", {store} }}\n",
            component.display().to_string(),
        );
        fs::create_dir(dir.path().join(".wash")).expect("the folder is writable");
        fs::write(dir.path().join(".wash/config.yaml"), config).expect("the folder is writable");
        let log = File::create(dir.path().join("log")).expect("the log can be created");
        let mut command = Command::new(tool("wash"));
        // Its own files are not this user's.
        command.arg("dev").current_dir(dir.path()).env("HOME", dir.path());
        for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.stdout(log.try_clone().expect("the log can be shared")).stderr(log);
        let process = Process::start(&mut command);
        let mut wash = Self { process, port, dir };
        // It compiles the component first.
        wait_for("wasmCloud to serve", Duration::from_secs(90), || {
            let log = || read_log(&wash.dir);
            wash.process.must_run(log);
            ureq::get(wash.url()).call().ok()
        });
        wash
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Wash {
    fn drop(&mut self) {
        self.process.end();
        if std::thread::panicking() {
            eprintln!("wasmCloud's log:\n{}", read_log(&self.dir));
        }
    }
}

/// A NATS server with JetStream, until it is dropped.
pub struct Nats {
    _process: Process,
    port: u16,
    _dir: TempDir,
}

impl Nats {
    /// Starts it, and waits until it accepts connections.
    #[track_caller]
    pub fn start() -> Self {
        let (dir, port) = (temp_dir("nats-"), free_port());
        let mut command = Command::new(tool("nats-server"));
        command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(dir.path());
        command.arg("-l").arg(dir.path().join("log"));
        let process = Process::start(&mut command);
        wait_for("NATS to serve", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { _process: process, port, _dir: dir }
    }

    /// Returns `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}
