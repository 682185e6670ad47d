//! The tools of the black-box tests: the built binary as a child process ([`Server`]), its clients
//! ([`Visitor`], [`Caller`], [`Wire`]), applications behind it ([`Upstream`]), a real MongoDB
//! ([`Database`], [`Mongod`]), [`Postgres`] and [`Redis`], the Node programs ([`node`]) and real back ends ([`BackEnd`]).
//!
//! Nothing here uses the code under test, only its command line, HTTP and the data in its stores. A
//! missing tool fails the test and the error says how to install it; no test is skipped.

mod back_end;
mod front;
mod mongo;
pub mod node;
mod postgres;
mod process;
mod redis;
mod server;
mod store_server;
mod upstream;
mod visitor;
mod wash;
mod wasi;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub use back_end::BackEnd;
pub use front::{AUTH_TOKEN, Edit, Front, Fronted, as_it_is, call_session_api};
pub use mongo::{Database, Mongod, ReplicaSet};
pub use postgres::{PgBouncer, Postgres};
pub use process::Process;
pub use redis::{Redis, RedisCluster, RedisSentinels};
pub use server::{Launch, SECRET, Server, binary, component, free_port};
pub use store_server::StoreServer;
pub use upstream::{Asked, Call, Reply, Upstream};
pub use visitor::{Page, Visitor, count_in};
pub use wash::{KeyValue, Nats, Wash};
pub use wasi::Served;
pub use wire::{Answer, Caller, Head, Wire};

/// Returns the root of this checkout.
pub fn checkout() -> &'static Path {
    // Read at run time, because checkouts may share a target directory and its compiled tests.
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        Path::new(&manifest).parent().expect("the crate is a folder of the workspace").into()
    });
    &ROOT
}

/// Creates a folder on disk that is removed when dropped, inside the folder of the whole run if
/// there is one.
pub fn temp_dir(prefix: &str) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    match std::env::var_os("EDGE_SESSION_TEST_DIR") {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    }
    .expect("a temporary folder can be made")
}

/// Returns the number of files in a folder, at any depth.
pub fn count_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

/// Repeats `attempt` until it returns a value; panics with `what` after `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the path in the environment variable, which `make test` sets, or else the usual one;
/// panics with `remedy` if nothing is there.
fn built(variable: &str, usual: impl FnOnce() -> PathBuf, remedy: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(usual, PathBuf::from);
    assert!(path.exists(), "{} is missing: run {remedy}", path.display());
    path
}

/// Writes a new certificate for localhost and its key to this folder.
#[track_caller]
pub fn new_certificate(dir: &Path) {
    // A server certificate: rustls refuses a CA certificate as a server's own.
    let config = "[req]\ndistinguished_name = dn\nx509_extensions = own\n[dn]\n\
                  [own]\nsubjectAltName = DNS:localhost\nbasicConstraints = critical, CA:FALSE\n";
    std::fs::write(dir.join("openssl.cnf"), config).expect("the folder is writable");
    let output = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=localhost", "-config", "openssl.cnf"])
        .args(["-days", "1", "-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl is installed: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
