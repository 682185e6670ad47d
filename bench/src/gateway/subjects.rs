//! The proxies that are compared, each a separate process in front of one application.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::client::Connection;
use crate::process::{Process, cores, last_core, on_core};
use crate::{Error, Result, SECRET, component_path};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Nginx,
    /// edge-session, configured so that no path has a session.
    Bare,
    Memory,
    MongoDb,
    Express,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Nginx, Self::Bare, Self::Memory, Self::MongoDb, Self::Express];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Bare => "edge-session, no sessions",
            Self::Memory => "edge-session, memory",
            Self::MongoDb => "edge-session, MongoDB",
            Self::Express => "Express",
        }
    }

    /// The colour in plots.
    pub(super) fn colour(self) -> &'static str {
        match self {
            Self::Nginx => "#6b7280",
            Self::Bare => "#93c5fd",
            Self::Memory => "#2563eb",
            Self::MongoDb => "#1e3a8a",
            Self::Express => "#d97706",
        }
    }

    pub(super) fn has_sessions(self) -> bool {
        !matches!(self, Self::Nginx | Self::Bare)
    }
}

/// A process that serves HTTP, with its output in a file.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, which must listen on `port`, and waits until it does.
    pub(crate) fn start(mut command: Command, port: u16, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        let program = command.get_args().nth(2).unwrap_or_default().display().to_string();
        let started = command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let process = Process::new(started.spawn()?);
        let mut server = Self { process, port, log: log.to_owned() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.process.has_ended() || Instant::now() > deadline {
                return Err(server.explain(&format!("{program} does not serve")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Returns an error that includes the last lines of the server's output.
    pub(crate) fn explain(&self, error: &dyn std::fmt::Display) -> Error {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n");
        format!("{error}; the server said last:\n{last}").into()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns the number of lines that it has written.
    pub(crate) fn lines(&self) -> Result<usize> {
        Ok(std::fs::read(&self.log)?.iter().filter(|byte| **byte == b'\n').count())
    }
}

/// A proxy with its own application, so that requests left over from one proxy's load are not
/// counted for another.
pub(super) struct Proxy {
    pub(super) server: Server,
    app: Server,
}

impl Proxy {
    /// Returns the number of requests that the application has answered.
    pub(super) fn answered(&self) -> Result<u64> {
        Ok(Connection::open(self.app.port)?.get("/answered", None)?.body.parse()?)
    }
}

/// The folder for the servers' files.
pub(super) struct Ground {
    directory: tempfile::TempDir,
    pub(super) database: String,
    mongodb_uri: String,
}

impl Ground {
    pub(super) fn prepare(mongodb_uri: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let database = format!("edge_session_bench_{}", std::process::id());
        Ok(Self { directory, database, mongodb_uri: mongodb_uri.to_owned() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a proxy on core 0, with one worker thread, and its application.
    pub(super) fn start(&self, kind: Kind) -> Result<Proxy> {
        let port = free_port()?;
        let mut command = on_core(app_core(), std::env::current_exe()?);
        command.args(["app", &port.to_string()]);
        let app = Server::start(command, port, &self.log(port))?;
        let port = free_port()?;
        let command = match kind {
            Kind::Nginx => self.nginx(port, &app)?,
            Kind::Express => express(port, &app),
            Kind::Bare | Kind::Memory | Kind::MongoDb => self.edge_session(kind, port, &app)?,
        };
        let mut server = Server::start(command, port, &self.log(port))?;
        if kind == Kind::Nginx {
            server.process.look_at_worker()?;
        }
        Ok(Proxy { server, app })
    }

    fn log(&self, port: u16) -> PathBuf {
        self.path(&format!("{port}.log"))
    }

    fn nginx(&self, port: u16, app: &Server) -> Result<Command> {
        let prefix = self.path(&format!("nginx-{port}"));
        std::fs::create_dir(&prefix)?;
        let configuration = include_str!("nginx.conf")
            .replace("PORT_OF_APP", &app.port.to_string())
            .replace("PORT", &port.to_string());
        std::fs::write(prefix.join("nginx.conf"), configuration)?;
        let mut command = on_core(0, nginx());
        command.arg("-p").arg(&prefix).args(["-c", "nginx.conf", "-e", "stderr"]);
        Ok(command)
    }

    fn edge_session(&self, kind: Kind, port: u16, app: &Server) -> Result<Command> {
        // Idle visitors must not be disconnected, and a database that shares the core must not
        // count as broken.
        let mut configuration = "[limits]\nconnections = 12288\n\
                                 [timeouts]\nheader_ms = 300_000\n"
            .to_owned();
        let store = match kind {
            Kind::MongoDb => {
                let database = &self.database;
                configuration +=
                    &format!("[store]\ndb_name = \"{database}\"\ntimeout_ms = 30_000\n");
                self.mongodb_uri.as_str()
            }
            _ => "memory:",
        };
        if kind == Kind::Bare {
            configuration += "[cookie]\npath = \"/none\"\n";
        }
        let file = self.path(&format!("{port}.toml"));
        std::fs::write(&file, configuration)?;
        let mut command = on_core(0, std::env::current_exe()?.with_file_name("edge-session"));
        serve(&mut command, port, app, &file, store);
        command.env("TOKIO_WORKER_THREADS", "1");
        Ok(command)
    }
}

/// Configures edge-session to serve in front of `app`.
pub(crate) fn serve(command: &mut Command, port: u16, app: &Server, file: &Path, store: &str) {
    // Variables set for another server must not affect this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EDGE_SESSION_") {
            command.env_remove(name);
        }
    }
    command
        .args(["serve", "--upstream", &app.url("")])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--config")
        .arg(file)
        .env("EDGE_SESSION_STORE", store)
        .env("EDGE_SESSION_COMPONENT", component_path())
        .env("EDGE_SESSION_SECRET", String::from_utf8_lossy(SECRET).as_ref());
}

fn express(port: u16, app: &Server) -> Command {
    let mut command = on_core(0, "node");
    command
        .arg(crate::directory().join("node/proxy.mjs"))
        .args([port.to_string(), app.url("")])
        .arg(String::from_utf8_lossy(SECRET).as_ref())
        .env("NODE_ENV", "production");
    command
}

/// The application shares wrk's core if there are only two cores.
pub(crate) fn app_core() -> usize {
    if cores() > 2 { last_core() - 1 } else { last_core() }
}

/// Returns nginx.
pub(crate) fn nginx() -> PathBuf {
    program("nginx")
}

/// Returns a program that scripts/setup installed next to mongod, or the one on the path.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| crate::directory().join("../target"));
    let tools = [target.join("tools")];
    let places = tools.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]);
    let mut programs = places.map(|place| place.join(name));
    programs.find(|program| program.is_file()).unwrap_or(name.into())
}

/// Returns a port on which nothing listens.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
