//! The programs in `tests/node`: the reference implementations, and a browser.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::{Process, checkout};

/// Runs a program to its end and returns its output.
#[track_caller]
pub fn run(program: &str, argument: &str, env: &[(&str, &str)]) -> String {
    let output =
        command(program).arg(argument).envs(env.iter().copied()).output().expect("node can be run");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs `steps` in a browser with an empty profile (`browser.mjs` lists the possible ones) and
/// returns its state after each: `url`, `status`, `text`, `cookies`.
#[track_caller]
pub fn browse(javascript: bool, steps: &[Value]) -> Vec<Value> {
    let task = json!({ "javascript": javascript, "steps": steps });
    serde_json::from_str(&run("browser.mjs", &task.to_string(), &[]))
        .expect("browser.mjs prints JSON")
}

/// A running view counter that uses the session headers.
pub struct App(ExpressApp);

impl App {
    /// Starts `tests/python/counter_app.py`.
    #[track_caller]
    pub fn python() -> Self {
        let mut command = Command::new("python3");
        command.arg(checkout().join("tests/python/counter_app.py"));
        Self(ExpressApp::run(command, "", ""))
    }

    /// Starts `tests/node/gateway-app.mjs`.
    #[track_caller]
    pub fn express() -> Self {
        Self(ExpressApp::run(command("gateway-app.mjs"), "", ""))
    }

    /// Starts `tests/node/headers-app.mjs`.
    #[track_caller]
    pub fn with_header_sessions() -> Self {
        Self(ExpressApp::run(command("headers-app.mjs"), "", ""))
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.0.url()
    }
}

/// A running view counter on Express, express-session and connect-mongo.
pub struct ExpressApp {
    _process: Process,
    port: u16,
}

impl ExpressApp {
    /// Starts the application with this secret and database.
    #[track_caller]
    pub fn start(secret: &str, mongodb: &str) -> Self {
        Self::run(command("express-app.mjs"), secret, mongodb)
    }

    /// Starts the application with connect-mongodb-session instead of connect-mongo.
    #[track_caller]
    pub fn with_other_store(secret: &str, mongodb: &str) -> Self {
        let mut command = command("express-app.mjs");
        command.env("STORE", "connect-mongodb-session");
        Self::run(command, secret, mongodb)
    }

    /// Starts the application with connect-redis instead of connect-mongo.
    #[track_caller]
    pub fn with_redis(secret: &str, redis: &str) -> Self {
        let mut command = command("express-app.mjs");
        command.env("STORE", "connect-redis");
        Self::run(command, secret, redis)
    }

    /// Starts the application with connect-pg-simple instead of connect-mongo.
    #[track_caller]
    pub fn with_postgres(secret: &str, postgres: &str) -> Self {
        let mut command = command("express-app.mjs");
        command.env("STORE", "connect-pg-simple");
        Self::run(command, secret, postgres)
    }

    /// Starts the application of `examples/with-express`.
    #[track_caller]
    pub fn example(secret: &str, store: &str) -> Self {
        let mut command = command_in("examples/with-express", "app.mjs");
        command.env("PORT", "0");
        Self::run(command, secret, store)
    }

    #[track_caller]
    fn run(mut command: Command, secret: &str, store: &str) -> Self {
        let (process, line) =
            Process::printing(command.env("SECRET", secret).env("STORE_URL", store));
        // Either the port or an address that ends with it.
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Self { _process: process, port: port.expect("the application prints its port") }
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// A command that runs one of them.
#[track_caller]
pub fn command(program: &str) -> Command {
    command_in("tests/node", program)
}

#[track_caller]
fn command_in(folder: &str, program: &str) -> Command {
    let dir: PathBuf = checkout().join(folder);
    assert!(
        dir.join("node_modules/.installed-lock").exists(),
        "npm packages are missing: run scripts/setup node"
    );
    let mut command = Command::new("node");
    command.arg(program).current_dir(dir);
    command
}
