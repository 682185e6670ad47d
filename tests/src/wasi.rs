//! A component in front of an application, both in `wasmtime serve`.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::front::read_log;
use crate::server::Confidential;
use crate::{Caller, Process, built, checkout, free_port, temp_dir, wait_for};

/// The middleware with the tests' application (`tests/wasi-app`) and a store in the instance's
/// memory. It stops when dropped.
pub struct Served {
    process: Process,
    address: SocketAddr,
    dir: TempDir,
    confidential: Confidential,
}

impl Served {
    /// Starts it with only these environment variables.
    #[track_caller]
    pub fn start(env: &[(String, String)]) -> Self {
        let wasmtime =
            built("EDGE_SESSION_WASMTIME", || "wasmtime".into(), "scripts/setup wasmtime");
        let component = checkout().join("target/served-for-tests.wasm");
        assert!(component.exists(), "{} is missing: run make middleware", component.display());
        let dir = temp_dir("served-");
        let log = File::create(dir.path().join("log")).expect("the log can be created");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(wasmtime);
        command.args(["serve", "-Scli", "-Skeyvalue", "--addr", &address.to_string()]);
        // The store is in the memory of one instance, so that instance must stay and remain the
        // only one. wasmtime creates another one for a request that arrives while the first is busy
        // in another thread.
        command.env("TOKIO_WORKER_THREADS", "1");
        command.args(["--max-instance-reuse-count", "1000000"]);
        command.args(["--max-instance-concurrent-reuse-count", "1000000"]);
        command.args(["--idle-instance-timeout", "3600s"]);
        for (name, value) in env {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.arg(component);
        command.stdout(log.try_clone().expect("the log can be shared")).stderr(log);
        let process = Process::start(&mut command);
        let mut served = Self { process, address, dir, confidential: Confidential::default() };
        // It compiles the components first.
        wait_for("wasmtime to serve", Duration::from_secs(60), || {
            let log = || read_log(&served.dir);
            served.process.must_run(log);
            std::net::TcpStream::connect(address).ok()
        });
        served
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a new caller.
    pub fn caller(&self) -> Caller {
        Caller::new(self.address.to_string(), self.confidential.clone())
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        read_log(&self.dir)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.process.end();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the log of wasmtime:\n{log}");
            return;
        }
        for confidential in &*self.confidential.lock().unwrap() {
            assert!(!log.contains(confidential), "{confidential:?} is in the log:\n{log}");
        }
    }
}
