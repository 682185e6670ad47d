//! What the black-box tests stand on: the built binary as a child process ([`Server`]), its
//! visitors ([`Visitor`], [`Caller`], [`Wire`]), applications behind it ([`Upstream`]), a real
//! MongoDB ([`Database`], [`Mongod`]), the Node programs ([`node`]) and real back ends
//! ([`BackEnd`]).
//!
//! Nothing here uses the code under test, only its command line, HTTP and what it leaves in its
//! stores. A tool that is missing fails the test and says how to install it; no test is skipped.

mod back_end;
mod mongo;
pub mod node;
mod server;
mod upstream;
mod visitor;
mod wasi;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub use back_end::BackEnd;
pub use mongo::{Database, Mongod, ReplicaSet};
pub use server::{Launch, SECRET, Server, binary, component, free_port};
pub use upstream::{Asked, Call, Reply, Upstream};
pub use visitor::{Page, Visitor, count_in};
pub use wasi::Served;
pub use wire::{Answer, Caller, Head, Wire};

/// The root of this checkout.
pub fn checkout() -> &'static Path {
    // As cargo says it now: checkouts may share a target directory, and with it what was compiled.
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        Path::new(&manifest).parent().expect("the crate is a folder of the workspace").into()
    });
    &ROOT
}

/// A new folder that is removed when it is dropped: on disk, in the folder of the whole run if
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

/// Tries until `attempt` gives something; panics with `what` when it has not within `limit`.
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

/// The path in the environment variable, which `make test` sets, or else the usual one; panics with
/// `remedy` when nothing is there.
fn built(variable: &str, usual: impl FnOnce() -> PathBuf, remedy: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(usual, PathBuf::from);
    assert!(path.exists(), "{} is missing: run {remedy}", path.display());
    path
}
