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

/// The secret of servers, unless a test sets another.
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
    disk: Option<String>,
    listen: Option<String>,
    confidential: Confidential,
}

impl Launch {
    /// Creates a launch with this `--store` URL and [`SECRET`].
    pub fn new(store: &str) -> Self {
        let launch = Self {
            env: BTreeMap::new(),
            config: None,
            is_gateway: false,
            admin: None,
            open_files: None,
            disk: None,
            listen: None,
            confidential: Confidential::default(),
        };
        launch.env("EDGE_SESSION_STORE", store).env("EDGE_SESSION_SECRET", SECRET)
    }

    /// Sets an environment variable. All `EDGE_SESSION_*` of the test's own environment are
    /// removed.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Removes an environment variable that [`Launch::new`] sets.
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Limits the number of open files.
    pub fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// Mounts an empty disk of this size at a folder, for the server alone. See [`Server::sees`].
    pub fn disk(mut self, folder: &Path, bytes: u64) -> Self {
        let folder = folder.display();
        self.disk = Some(format!("mount -t tmpfs -o size={bytes} none '{folder}'"));
        self
    }

    /// Sets the address to listen on instead of a port.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Sets the content of the configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// Makes it a proxy for this application, or for several, separated by commas. Its metrics have
    /// a separate address.
    pub fn upstream(self, url: &str) -> Self {
        self.env("EDGE_SESSION_UPSTREAM", url).as_gateway()
    }

    /// Makes it run the component `target/NAME` of `make middleware`.
    pub fn app(self, name: &str) -> Self {
        let component = checkout().join("target").join(name);
        assert!(component.exists(), "{} is missing: run make middleware", component.display());
        self.env("EDGE_SESSION_APP", &component.display().to_string()).as_gateway()
    }

    /// Makes it a proxy whose settings put the admin address at this port.
    pub fn as_gateway_at(mut self, port: u16) -> Self {
        self.admin = Some(port);
        self.as_gateway()
    }

    /// Makes it a proxy for the applications in the configuration file.
    pub fn as_gateway(mut self) -> Self {
        self.is_gateway = true;
        self
    }

    /// Starts the server on a free port and waits until it is healthy.
    #[track_caller]
    pub fn start(&self) -> Server {
        self.ready(self.spawn(free_port(), None))
    }

    /// Starts the server on a free port and waits for nothing.
    pub fn begin(&self) -> Server {
        self.spawn(free_port(), None)
    }

    /// Starts the server on a handed-over socket and waits until it is healthy.
    #[track_caller]
    pub fn start_on(&self, listener: &TcpListener) -> Server {
        let port = listener.local_addr().expect("it is bound").port();
        let handed = listener.try_clone().expect("a socket can have two handles");
        self.ready(self.spawn(port, Some(handed.into())))
    }

    /// Starts the server on a handed-over unix socket and waits until it is healthy.
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
            // A proxy's own paths all belong to the applications.
            let health = match server.admin {
                Some(port) => format!("http://127.0.0.1:{port}/readyz"),
                None => format!("{}/healthz", server.url()),
            };
            ureq::get(health).call().is_ok_and(|response| response.status() == 200).then_some(())
        });
        server
    }

    /// Starts the server, expects it to refuse within ten seconds, and returns its output.
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

    /// Runs another command of the program in this folder with the same settings. Returns whether
    /// it succeeded, and its output.
    #[track_caller]
    pub fn run(&self, dir: &Path, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(binary());
        self.settle(&mut command, dir);
        let output = command.args(arguments).output().expect("the binary can be started");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Sets a command's environment, without the test's own variables.
    fn settle(&self, command: &mut Command, dir: &Path) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EDGE_SESSION_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        // The program has its own component.
        if let Some(component) = std::env::var_os("EDGE_SESSION_COMPONENT") {
            command.env("EDGE_SESSION_COMPONENT", component);
        }
        command.envs(&self.env).current_dir(dir);
    }

    fn spawn(&self, port: u16, handed: Option<OwnedFd>) -> Server {
        let dir = temp_dir("server-");
        let log = File::create(dir.path().join("log")).expect("the log can be created");
        let binary = binary();
        // The program replaces the shell, which prepares what it is to find.
        let prepared = |shell: &[&str], script: &str| {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", &format!("{script} exec \"$0\" \"$@\"")]);
            command.arg(&binary);
            command
        };
        let mut command = match (handed, &self.disk, self.open_files) {
            (Some(handed), ..) => {
                // The socket arrives as standard input and is passed on as systemd does.
                let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$";
                let mut command = prepared(&["sh"], script);
                command.stdin(handed);
                command
            }
            (None, Some(mount), _) => {
                prepared(&["unshare", "--mount", "sh"], &format!("{mount} &&"))
            }
            (None, None, Some(most)) => prepared(&["sh"], &format!("ulimit -n {most};")),
            (None, None, None) => Command::new(&binary),
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

/// Returns the component under test.
pub fn component() -> PathBuf {
    let usual = || checkout().join("host/session.wasm");
    built("EDGE_SESSION_COMPONENT", usual, "make bundle")
}

/// Returns the binary under test.
pub fn binary() -> PathBuf {
    let usual = || target_dir().join("debug/edge-session");
    built("EDGE_SESSION_BIN", usual, "cargo build -p edge-session-server")
}

/// A running `edge-session serve`. At its end, its log is always checked for confidential strings.
pub struct Server {
    child: Child,
    port: u16,
    admin: Option<u16>,
    dir: TempDir,
    confidential: Confidential,
}

impl Server {
    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns a new visitor.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.url(), self.confidential.clone())
    }

    /// Returns a new caller, who can send requests that no browser would.
    pub fn caller(&self) -> Caller {
        Caller::new(self.address(), self.confidential.clone())
    }

    pub(crate) fn confidential(&self) -> Confidential {
        self.confidential.clone()
    }

    /// Returns a new caller of another address of this server.
    pub fn caller_at(&self, address: &str) -> Caller {
        Caller::new(address.to_owned(), self.confidential.clone())
    }

    /// Opens a new connection to the server.
    #[track_caller]
    pub fn wire(&self) -> Wire {
        Wire::open(self.address())
    }

    /// Returns the port of a proxy's admin address.
    #[track_caller]
    pub fn admin_port(&self) -> u16 {
        self.admin.expect("only a gateway has an admin address")
    }

    /// Returns the value of a proxy's metric, by its name and labels as shown; 0 if missing.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let port = self.admin_port();
        let mut page = ureq::get(format!("http://127.0.0.1:{port}/metrics")).call().unwrap();
        let page = page.body_mut().read_to_string().expect("metrics are text");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a metric is a number"))
    }

    /// Returns how many requests and connections a proxy refused for this reason.
    #[track_caller]
    pub fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("edge_session_refused_total{{reason=\"{reason}\"}}"))
    }

    /// Returns a value of `/proc/PID/status`, such as VmHWM, in KiB. The kernel's counts are not
    /// exact: a later VmHWM may be smaller.
    #[track_caller]
    pub fn memory(&self, key: &str) -> u64 {
        let pid = self.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{key} is not in: {status}"))
    }

    /// Returns the CPU time used so far.
    #[track_caller]
    pub fn cpu(&self) -> Duration {
        let pid = self.pid().as_raw_nonzero();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        // The second field, a name in brackets, may contain spaces.
        let fields = stat.rsplit_once(')').expect("it has a name").1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Returns the path at which the test finds what the server finds at `path`.
    pub fn sees(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").expect("it is absolute");
        PathBuf::from(format!("/proc/{}/root", self.pid().as_raw_nonzero())).join(path)
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        kill_process(self.pid(), Signal::HUP).expect("the server is still there");
    }

    /// Waits for the server to exit, which must succeed.
    #[track_caller]
    pub fn ended(mut self) {
        let status = self.wait(STOPPED_WITHIN);
        assert!(status.success(), "it ended with {status}");
    }

    /// Returns the output so far, of both streams.
    pub fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).expect("the log can be read");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Sends SIGTERM, without waiting.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the server is still there");
    }

    /// Sends SIGTERM and waits for a successful exit.
    #[track_caller]
    pub fn stop(mut self) {
        self.terminate();
        let status = self.wait(STOPPED_WITHIN);
        assert!(status.success(), "stopped by SIGTERM, it ended with {status}");
    }

    /// Kills the server: `kill -9`.
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
        // A failure means that it has already exited.
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

/// Returns cargo's target folder: the test itself runs in `TARGET/PROFILE/deps`.
pub(crate) fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a program knows its path");
    test.ancestors().nth(3).expect("the test is in TARGET/PROFILE/deps").to_owned()
}

/// Returns a port below the kernel's ephemeral range, so that no client takes it in the meantime.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    (0..1000)
        .map(|_| 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("there is a free port")
}
