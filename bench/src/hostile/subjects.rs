//! The proxies under attack, each in front of its own application, and the attackers.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use super::attacks::Outcome;
use super::cases::Case;
use crate::Result;
use crate::gateway::client::Connection;
use crate::gateway::subjects::{Server, app_core, free_port, nginx, serve};
use crate::process::{Process, last_core, on_core};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    EdgeSession,
    Nginx,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EdgeSession => "edge-session",
            Self::Nginx => "nginx",
        }
    }
}

/// A proxy, and the application behind it.
pub(super) struct Proxy {
    pub(super) server: Server,
    pub(super) admin: u16,
    http2: u16,
    kind: Kind,
    app: Server,
}

impl Proxy {
    /// Returns the cookie of a new visitor, if there are sessions.
    pub(super) fn visitor(&self) -> Result<Option<String>> {
        if self.kind == Kind::Nginx {
            return Ok(None);
        }
        let cookie = Connection::open(self.server.port)?.get("/count", None)?.cookie;
        Ok(Some(cookie.ok_or("a new visitor got no cookie")?))
    }

    /// Returns the numbers of requests in progress in the application, now and at most.
    pub(super) fn held(&self) -> Result<[u64; 2]> {
        let body = Connection::open(self.app.port)?.get("/held", None)?.body;
        let (now, most) = body.split_once(' ').ok_or("the application does not count")?;
        Ok([now.parse()?, most.parse()?])
    }
}

/// The folder for the servers' files.
pub(super) struct Ground {
    directory: tempfile::TempDir,
    database: String,
    mongodb_uri: String,
    /// The gateway's program.
    program: PathBuf,
}

impl Ground {
    pub(super) fn prepare(mongodb_uri: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let database = format!("edge_session_hostile_{}", std::process::id());
        let program = match std::env::var_os("EDGE_SESSION_BIN") {
            Some(program) => program.into(),
            None => std::env::current_exe()?.with_file_name("edge-session"),
        };
        Ok(Self { directory, database, mongodb_uri: mongodb_uri.to_owned(), program })
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a proxy on core 0, and its application.
    pub(super) fn start(&self, case: &Case, kind: Kind) -> Result<Proxy> {
        let log = |port: u16| self.path(&format!("{port}.log"));
        let port = free_port()?;
        let mut command = on_core(app_core(), std::env::current_exe()?);
        command.args(["hostile-app", &port.to_string()]);
        let app = Server::start(command, port, &log(port))?;
        let (port, admin) = (free_port()?, free_port()?);
        let (command, http2) = match kind {
            Kind::EdgeSession => (self.edge_session(case, port, admin, &app)?, port),
            Kind::Nginx => (self.nginx(case, port, admin, &app)?, admin),
        };
        let mut server = Server::start(command, port, &log(port))?;
        if kind == Kind::Nginx {
            server.process.look_at_worker()?;
        }
        Ok(Proxy { server, admin, http2, kind, app })
    }

    fn edge_session(&self, case: &Case, port: u16, admin: u16, app: &Server) -> Result<Command> {
        // Visitors do not come through a trusted proxy.
        let store = match case.in_database {
            true => format!("[store]\ndb_name = \"{}\"\n", self.database),
            false => String::new(),
        };
        let configuration = format!(
            "[gateway]\ntrusted_proxies = []\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n{store}{}",
            case.configuration,
        );
        let file = self.path(&format!("{port}.toml"));
        std::fs::write(&file, configuration)?;
        let mut command = limited(case.files, &self.program);
        let store = if case.in_database { self.mongodb_uri.as_str() } else { "memory:" };
        serve(&mut command, port, app, &file, store);
        command.env("EDGE_SESSION_ADMIN_TOKEN", "only-for-the-benchmark-0123456789-abcdefghijklm");
        Ok(command)
    }

    /// Starts nginx with its defaults, apart from what the other bench sets; with HTTP/2 on another
    /// port.
    fn nginx(&self, case: &Case, port: u16, http2: u16, app: &Server) -> Result<Command> {
        let prefix = self.path(&format!("nginx-{port}"));
        std::fs::create_dir(&prefix)?;
        let listen =
            format!("listen 127.0.0.1:PORT backlog=4096;\n    listen 127.0.0.1:{http2} http2;");
        let mut configuration = include_str!("../gateway/nginx.conf")
            .replace("listen 127.0.0.1:PORT backlog=4096;", &listen)
            .replace("  proxy_max_temp_file_size 0;\n", "");
        if case.shows_connections {
            configuration = configuration.replace("keepalive_timeout 300s", "keepalive_timeout 1s");
        }
        let configuration = configuration
            .replace("PORT_OF_APP", &app.port.to_string())
            .replace("PORT", &port.to_string());
        std::fs::write(prefix.join("nginx.conf"), configuration)?;
        let mut command = limited(case.files, nginx());
        command.arg("-p").arg(&prefix).args(["-c", "nginx.conf", "-e", "stderr"]);
        Ok(command)
    }

    pub(super) fn attack(&self, case: &Case, proxy: &Proxy, cookie: &str) -> Result<Attack> {
        let port = match (case.is_on_admin, case.is_http2) {
            (true, _) => proxy.admin,
            (false, true) => proxy.http2,
            (false, false) => proxy.server.port,
        };
        // The attackers on this machine must not take the bystander's CPU time. A lower priority
        // alone does not suffice: their bursts delay it by milliseconds.
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "taskset", "-c", &last_core().to_string()]);
        command.arg(std::env::current_exe()?);
        command.args(["attack", case.attack, &port.to_string(), cookie]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("an attacker without an output")?;
        let input = child.stdin.take();
        let mut attack =
            Attack { _process: Process::new(child), input, output: BufReader::new(output) };
        let line = attack.line()?;
        if line.trim() != "ready" {
            return Err(format!("an attacker said {line:?}").into());
        }
        Ok(attack)
    }
}

/// Returns a command that is pinned to the proxies' core and may open this many files.
fn limited(files: u64, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let pinned = on_core(0, program);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={files}:{files}"));
    command.arg(pinned.get_program()).args(pinned.get_args());
    command
}

/// A running attacker. Dropping it ends the process.
pub(super) struct Attack {
    _process: Process,
    input: Option<std::process::ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Attack {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// Ends the attack; returns the results.
    pub(super) fn end(mut self) -> Result<Outcome> {
        drop(self.input.take());
        Outcome::parse(&self.line()?)
    }
}
