//! The middleware with the tests' application and a key-value store, in wasmCloud (`wash dev`).

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::front::{read_log, tool};
use crate::{Process, checkout, free_port, temp_dir, wait_for};

/// A running `wash dev`, until it is dropped.
pub struct Wash {
    process: Process,
    port: u16,
    dir: TempDir,
}

/// Where wasmCloud keeps keys and values, and which store component uses them.
#[derive(Clone, Copy, Debug)]
pub enum KeyValue<'k> {
    /// `store-keyvalue.wasm`, in this folder.
    Folder(&'k str),
    /// `store-keyvalue.wasm`, in the NATS server at this URL.
    Nats(&'k str),
    /// `store-keyvalue.wasm`, in the Redis server at this URL.
    Redis(&'k str),
    /// `store-wasmcloud.wasm`, in wasmCloud's memory.
    SwapsInMemory,
    /// `store-wasmcloud.wasm`, in the NATS server at this URL.
    SwapsInNats(&'k str),
}

impl Wash {
    /// Starts it with these environment variables, which the component sees.
    #[track_caller]
    pub fn start(store: KeyValue<'_>, env: &[(String, String)]) -> Self {
        let component = match store {
            KeyValue::SwapsInMemory | KeyValue::SwapsInNats(_) => "served-wasmcloud-for-tests.wasm",
            _ => "served-for-tests.wasm",
        };
        let component = checkout().join("target").join(component);
        assert!(component.exists(), "{} is missing: run make middleware", component.display());
        let dir = temp_dir("wash-");
        let port = free_port();
        let store = match store {
            KeyValue::Folder(path) => format!("wasi_keyvalue_path: {path:?}"),
            KeyValue::Nats(url) => format!("wasi_keyvalue_nats_url: {url:?}"),
            KeyValue::Redis(url) => format!("wasi_keyvalue_redis_url: {url:?}"),
            KeyValue::SwapsInMemory => "host_interfaces: []".to_owned(),
            KeyValue::SwapsInNats(url) => format!(
                "host_interfaces: [{{ namespace: wasmcloud, package: keyvalue, \
                 interfaces: [store, cas], config: {{ backend: nats, url: {url:?} }} }}]"
            ),
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
            std::thread::sleep(Duration::from_millis(100));
            ureq::get(wash.url()).call().ok()
        });
        wash
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        // Requests before it serves, one line each.
        let log = read_log(&self.dir);
        log.lines()
            .filter(|line| !line.contains("no workload registered"))
            .fold(String::new(), |text, line| text + line + "\n")
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
            eprintln!("wasmCloud's log:\n{}", self.log());
        }
    }
}

/// A NATS server with JetStream, until it is dropped.
pub struct Nats {
    process: Process,
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
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { process, port, _dir: dir }
    }

    /// Creates a bucket, as `nats kv add NAME` does.
    #[track_caller]
    pub fn add_bucket(&self, name: &str) {
        let config = json!({
            "name": format!("KV_{name}"), "subjects": [format!("$KV.{name}.>")],
            "max_msgs_per_subject": 1, "discard": "new", "storage": "file", "num_replicas": 1,
            "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true,
        })
        .to_string();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("NATS accepts");
        let mut lines = BufReader::new(&stream).lines();
        let request = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB reply 1\r\n\
             PUB $JS.API.STREAM.CREATE.KV_{name} reply {}\r\n{config}\r\n",
            config.len(),
        );
        (&stream).write_all(request.as_bytes()).expect("NATS reads");
        let created = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("{\"")));
        let created = created.expect("NATS answers").expect("NATS answers");
        assert!(!created.contains("\"error\""), "{created}");
    }

    /// Freezes it for as long as `during` takes.
    pub fn frozen<T>(&self, during: impl FnOnce() -> T) -> T {
        self.process.frozen(during)
    }

    /// Returns `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}
