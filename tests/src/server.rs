//! The binary under test, as a child process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Caller, Visitor, Wire, built, checkout, temp_dir, wait_for};

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
    is_gateway: bool,
    admin: Option<u16>,
    open_files: Option<u32>,
    listen: Option<String>,
    confidential: Confidential,
}

impl Launch {
    /// With this `--store` URL and [`SECRET`].
    pub fn new(store: &str) -> Self {
        let launch = Self {
            env: BTreeMap::new(),
            config: None,
            is_gateway: false,
            admin: None,
            open_files: None,
            listen: None,
            confidential: Confidential::default(),
        };
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

    /// With so many open files at most.
    pub fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// Listening there instead of at a port.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// With a configuration file of this content.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// As a gateway to this application, or to several, separated by commas. Its metrics are
    /// at an address of their own.
    pub fn upstream(self, url: &str) -> Self {
        self.env("EDGE_SESSION_UPSTREAM", url).as_gateway()
    }

    /// In front of the component `target/NAME` of `make middleware`.
    pub fn app(self, name: &str) -> Self {
        let component = checkout().join("target").join(name);
        assert!(component.exists(), "{} is missing: run make middleware", component.display());
        self.env("EDGE_SESSION_APP", &component.display().to_string()).as_gateway()
    }

    /// As a gateway whose admin address the settings say: at this port.
    pub fn as_gateway_at(mut self, port: u16) -> Self {
        self.admin = Some(port);
        self.as_gateway()
    }

    /// As a gateway to whatever the configuration file says.
    pub fn as_gateway(mut self) -> Self {
        self.is_gateway = true;
        self
    }

    /// Starts it on a free port and waits until it is healthy.
    #[track_caller]
    pub fn start(&self) -> Server {
        self.ready(self.spawn(free_port(), None))
    }

    /// Starts it on a socket that is handed over, and waits until it is healthy.
    #[track_caller]
    pub fn start_on(&self, listener: &TcpListener) -> Server {
        let port = listener.local_addr().expect("it is bound").port();
        let handed = listener.try_clone().expect("a socket can have two handles");
        self.ready(self.spawn(port, Some(handed.into())))
    }

    /// The same with a unix socket.
    #[track_caller]
    pub fn start_on_unix(&self, listener: &UnixListener) -> Server {
        let handed = listener.try_clone().expect("a socket can have two handles");
        self.ready(self.spawn(free_port(), Some(handed.into())))
    }

    #[track_caller]
    fn ready(&self, mut server: Server) -> Server {
        wait_for("the server to be ready", READY_WITHIN, || {
            if let Some(status) = server.child.try_wait().expect("the child can be asked") {
                panic!("the server ended with {status} instead of serving");
            }
            // A gateway's own paths are all the applications'.
            let health = match server.admin {
                Some(port) => format!("http://127.0.0.1:{port}/readyz"),
                None => format!("{}/healthz", server.url()),
            };
            ureq::get(health).call().is_ok_and(|response| response.status() == 200).then_some(())
        });
        server
    }

    /// Starts it, expects it to refuse within ten seconds, and returns all that it printed.
    #[track_caller]
    pub fn refusal(&self) -> String {
        let mut server = self.spawn(free_port(), None);
        let status = server.wait(Duration::from_secs(10));
        let output = server.log();
        assert!(!status.success(), "it ended with success, having said: {output}");
        assert!(status.code().is_some(), "it was killed ({status}), having said: {output}");
        assert!(!output.contains("panicked"), "it panicked: {output}");
        output
    }

    /// Runs another command of the program to its end, in this folder, with the same settings:
    /// whether it succeeded, and what it printed.
    #[track_caller]
    pub fn run(&self, dir: &Path, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(binary());
        self.settle(&mut command, dir);
        let output = command.args(arguments).output().expect("the binary can be started");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Gives a command its environment, and nothing of the test's own.
    fn settle(&self, command: &mut Command, dir: &Path) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EDGE_SESSION_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        // The program has one of its own.
        if let Some(component) = std::env::var_os("EDGE_SESSION_COMPONENT") {
            command.env("EDGE_SESSION_COMPONENT", component);
        }
        command.envs(&self.env).current_dir(dir);
    }

    fn spawn(&self, port: u16, handed: Option<OwnedFd>) -> Server {
        let dir = temp_dir("server-");
        let log = File::create(dir.path().join("log")).expect("the log can be created");
        let binary = binary();
        let mut command = match handed {
            None => match self.open_files {
                None => Command::new(binary),
                Some(most) => {
                    let mut command = Command::new("sh");
                    let script = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
                    command.args(["-c", &script]).arg(binary);
                    command
                }
            },
            Some(handed) => {
                // The socket comes as standard input, and is handed on as systemd does it.
                let mut command = Command::new("sh");
                let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
                command.args(["-c", script]).arg(binary);
                command.stdin(handed);
                command
            }
        };
        let admin = self.is_gateway.then(|| self.admin.unwrap_or_else(free_port));
        self.settle(&mut command, dir.path());
        command
            .arg("serve")
            .args(["--listen", self.listen.as_ref().unwrap_or(&format!("127.0.0.1:{port}"))])
            .envs(admin.map(|port| ("EDGE_SESSION_ADMIN_LISTEN", format!("127.0.0.1:{port}"))))
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
            admin,
            dir,
            confidential: self.confidential.clone(),
        }
    }
}

/// The component under test.
pub fn component() -> PathBuf {
    let usual = || checkout().join("host/session.wasm");
    built("EDGE_SESSION_COMPONENT", usual, "make bundle")
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let usual = || target_dir().join("debug/edge-session");
    built("EDGE_SESSION_BIN", usual, "cargo build -p edge-session-server")
}

/// A running `edge-session serve`. However it ends, its log is checked for what must not be there.
pub struct Server {
    child: Child,
    port: u16,
    admin: Option<u16>,
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

    /// Somebody who was never here, and who says things that no browser would.
    pub fn caller(&self) -> Caller {
        Caller::new(self.address(), self.confidential.clone())
    }

    /// A new connection to it.
    #[track_caller]
    pub fn wire(&self) -> Wire {
        Wire::open(self.address())
    }

    /// The port of a gateway's admin address.
    #[track_caller]
    pub fn admin_port(&self) -> u16 {
        self.admin.expect("only a gateway has an admin address")
    }

    /// The value of a gateway's metric, by its name and labels as they are shown; 0 if there is
    /// none.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let port = self.admin_port();
        let mut page = ureq::get(format!("http://127.0.0.1:{port}/metrics")).call().unwrap();
        let page = page.body_mut().read_to_string().expect("metrics are text");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a metric is a number"))
    }

    /// How many requests and connections a gateway refused for this reason.
    #[track_caller]
    pub fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("edge_session_refused_total{{reason=\"{reason}\"}}"))
    }

    /// A line of its `/proc/PID/status`, such as VmHWM, in KiB.
    #[track_caller]
    pub fn memory(&self, key: &str) -> u64 {
        let pid = self.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{key} is not in: {status}"))
    }

    /// How long it has computed so far.
    #[track_caller]
    pub fn cpu(&self) -> Duration {
        let pid = self.pid().as_raw_nonzero();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        // The second field, a name in brackets, may hold spaces.
        let fields = stat.rsplit_once(')').expect("it has a name").1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// SIGHUP
    pub fn hang_up(&self) {
        kill_process(self.pid(), Signal::HUP).expect("the server is still there");
    }

    /// Waits until it has ended, and it must end well.
    #[track_caller]
    pub fn ended(mut self) {
        let status = self.wait(STOPPED_WITHIN);
        assert!(status.success(), "it ended with {status}");
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
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    (0..1000)
        .map(|_| 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("there is a free port")
}
