//! The gateways that people run, as `deploy/` configures them, in front of an application.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::server::target_dir;
use crate::{
    Asked, Caller, Launch, Process, SECRET, Server, Wire, checkout, free_port, temp_dir, wait_for,
};

/// The token of the session API in these tests.
pub const AUTH_TOKEN: &str = "only-for-tests-of-the-session-api";

/// A gateway that people run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Front {
    /// With external processing.
    Envoy,
    /// With ext_authz, by HTTP.
    EnvoyExtAuthz,
    /// With `filter.wasm`, which has no guards.
    EnvoyProxyWasm,
    /// With `auth_request`.
    Nginx,
    /// With `forward_auth`, written out.
    Caddy,
    /// With ForwardAuth.
    Traefik,
    /// With Lua.
    Haproxy,
}

/// A running gateway with its edge-session, until it is dropped.
pub struct Fronted {
    process: Process,
    port: u16,
    asked: u16,
    edge: Option<Server>,
    dir: TempDir,
}

impl Front {
    /// All that have guards.
    pub const ALL: [Self; 6] =
        [Self::Envoy, Self::EnvoyExtAuthz, Self::Nginx, Self::Caddy, Self::Traefik, Self::Haproxy];

    /// Those whose applications change sessions by the session API.
    pub const ASKING: [Self; 5] =
        [Self::EnvoyExtAuthz, Self::Nginx, Self::Caddy, Self::Traefik, Self::Haproxy];

    fn folder(self) -> PathBuf {
        let name = match self {
            Self::Envoy => "envoy",
            Self::EnvoyExtAuthz => "envoy-ext-authz",
            Self::EnvoyProxyWasm => "envoy-proxy-wasm",
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Haproxy => "haproxy",
        };
        checkout().join("deploy").join(name)
    }

    /// Starts it in front of the application at `app`, a port of this machine, and waits until it
    /// answers. `launch` has the store; `options` are further lines of TOML, before the first
    /// section; `edit` changes the gateway's own files.
    #[track_caller]
    pub fn start(self, launch: Launch, options: &str, app: u16, edit: &Edit<'_>) -> Fronted {
        let asked = free_port();
        let port = free_port();
        let own = fs::read_to_string(self.folder().join("edge-session.toml")).expect("it is there");
        let own = own.replace("9091", &asked.to_string()).replace("9092", &asked.to_string());
        let launch = launch.config(&format!("{options}\n{own}")).as_gateway();
        let launch = match self {
            // Its options are the filter's.
            Self::EnvoyProxyWasm => launch.config(&own).env("EDGE_SESSION_AUTH_TOKEN", AUTH_TOKEN),
            Self::Envoy => launch,
            _ => launch.env("EDGE_SESSION_AUTH_TOKEN", AUTH_TOKEN),
        };
        let edge = launch.start();
        self.start_before(edge, asked, port, app, edit)
    }

    fn start_before(
        self,
        edge: Server,
        asked: u16,
        port: u16,
        app: u16,
        edit: &Edit<'_>,
    ) -> Fronted {
        let dir = temp_dir("front-");
        let path = dir.path();
        for entry in fs::read_dir(self.folder()).expect("it is there").flatten() {
            let text = fs::read_to_string(entry.path()).expect("it is a text");
            let text = edit(text)
                .replace("THE AUTH TOKEN", AUTH_TOKEN)
                .replace("THE SECRET", SECRET)
                .replace("9091", &asked.to_string())
                .replace("9092", &asked.to_string())
                .replace("8080", &port.to_string())
                .replace("3000", &app.to_string());
            fs::write(path.join(entry.file_name()), text).expect("the folder is writable");
        }
        if self == Self::EnvoyProxyWasm {
            let filter = checkout().join("target/filter.wasm");
            assert!(filter.exists(), "{} is missing: run make middleware", filter.display());
            fs::copy(filter, path.join("filter.wasm")).expect("the folder is writable");
        }
        let log = File::create(path.join("log")).expect("the log can be created");
        let mut command = self.command(path);
        command.current_dir(path);
        command.stdout(log.try_clone().expect("the log can be shared")).stderr(log);
        let process = Process::start(&mut command);
        let mut fronted = Fronted { process, port, asked, edge: Some(edge), dir };
        wait_for("the gateway to answer", Duration::from_secs(30), || {
            let log = || read_log(&fronted.dir);
            fronted.process.must_run(log);
            // Without its routes, it answers with 404; without the others, with 502 or 503.
            let config = ureq::Agent::config_builder().http_status_as_error(false).build();
            let answer = ureq::Agent::new_with_config(config).get(fronted.url()).call().ok()?;
            let log = || fronted.edge().log();
            let is_misconfigured =
                || ["is misconfigured", "give it the address"].iter().any(|it| log().contains(it));
            let serves = ![404, 502, 503].contains(&answer.status().as_u16());
            (serves || is_misconfigured()).then_some(())
        });
        fronted
    }

    fn command(self, dir: &Path) -> Command {
        match self {
            Self::Envoy | Self::EnvoyExtAuthz | Self::EnvoyProxyWasm => {
                let mut command = Command::new(tool("envoy"));
                // Several run at once in the tests.
                command.args(["-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "2"]);
                command.args(["--log-level", "warning"]);
                command
            }
            Self::Nginx => {
                // One process, so that it ends when it is killed.
                let file = dir.join("nginx.conf");
                let text = fs::read_to_string(&file).expect("it was written");
                let text = text.replace("events {}", "master_process off;\nevents {}");
                fs::write(&file, text).expect("the folder is writable");
                let mut command = Command::new(tool("nginx"));
                command.arg("-p").arg(dir).args(["-e", "stderr", "-c", "nginx.conf"]);
                command
            }
            Self::Caddy => {
                let mut command = Command::new(tool("caddy"));
                command.args(["run", "--config", "Caddyfile"]).env("HOME", dir);
                command.env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
                command
            }
            Self::Traefik => {
                let mut command = Command::new(tool("traefik"));
                command.args(["--configFile=traefik.yaml"]);
                command
            }
            Self::Haproxy => {
                let program = tool("haproxy");
                let mut command = Command::new(&program);
                let libraries = program.with_file_name("haproxy-lib");
                command.args(["-f", "haproxy.cfg"]).env("LD_LIBRARY_PATH", libraries);
                command
            }
        }
    }
}

/// A change of a gateway's files.
pub type Edit<'e> = dyn Fn(String) -> String + 'e;

/// Leaves a gateway's files as they are.
pub fn as_it_is(text: String) -> String {
    text
}

/// Calls the session API at `api` for the visitor of a request, who has this cookie. Returns the
/// cookie to relay.
#[track_caller]
pub fn call_session_api(
    api: &str,
    asked: &Asked,
    cookie: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Option<String> {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{api}{path}"))
        .header("authorization", format!("Bearer {AUTH_TOKEN}"))
        .header("x-forwarded-uri", &asked.target)
        .header("cookie", cookie);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let answer = ureq::run(request.body(body).expect("it is valid")).expect("the API answers");
    assert_eq!(answer.status(), 204, "{method} {path}");
    answer.headers().get("set-cookie").and_then(|it| it.to_str().ok()).map(str::to_owned)
}

/// Returns a program that `scripts/setup gateways` has fetched, or the system's.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("EDGE_SESSION_TOOLS");
    let tools = tools.map_or_else(|| target_dir().join("tools"), PathBuf::from);
    let fetched = tools.join(name);
    if fetched.exists() {
        return fetched;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|it| it.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: run scripts/setup gateways"))
}

impl Fronted {
    /// Returns `http://127.0.0.1:PORT` of the gateway.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the address at which the gateway asks edge-session, with `http://`.
    pub fn asked(&self) -> String {
        format!("http://127.0.0.1:{}", self.asked)
    }

    /// Returns the edge-session beside it.
    pub fn edge(&self) -> &Server {
        self.edge.as_ref().expect("it is only taken at the end")
    }

    /// Kills the edge-session beside it: `kill -9`.
    pub fn kill_edge(&mut self) {
        self.edge.take().expect("it is killed once").kill();
    }

    /// Returns a new caller of the gateway.
    pub fn caller(&self) -> Caller {
        Caller::new(format!("127.0.0.1:{}", self.port), self.edge().confidential())
    }

    /// Opens a new connection to the gateway.
    #[track_caller]
    pub fn wire(&self) -> Wire {
        Wire::open(format!("127.0.0.1:{}", self.port))
    }

    /// Returns what the gateway has logged.
    pub fn log(&self) -> String {
        read_log(&self.dir)
    }
}

pub(crate) fn read_log(dir: &TempDir) -> String {
    let log = fs::read(dir.path().join("log")).expect("the log can be read");
    String::from_utf8_lossy(&log).into_owned()
}

impl Drop for Fronted {
    fn drop(&mut self) {
        self.process.end();
        if std::thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}
