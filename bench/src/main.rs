//! The cost of a session. `make bench` runs this program and writes the figures to
//! `bench/README.md`; `make bench-gateway` compares the gateway with other proxies, for
//! `bench/gateway.md`; `make bench-hostile` attacks the gateway, for `bench/hostile.md`;
//! `make bench-embeddings` compares every embedding with its peer, for `bench/README.md`;
//! `make bench-stores` compares the stores with their clients and with Express, for
//! `bench/stores.md`; `make bench-gateways` measures gateways that ask edge-session, for
//! `bench/gateways.md`.
//!
//! | module | its job |
//! |---|---|
//! | `component` | the component compared with the same logic compiled natively |
//! | `layer` | the layer compared with tower-sessions, called without HTTP |
//! | `load` | the same under load, with HTTP |
//! | `server` | the page with either layer; its server is this program, run as `serve KIND` |
//! | `embeddings` | each embedding compared with its language's usual session library |
//! | `gateway` | the gateway compared with nginx and Express, in front of one application |
//! | `gateways` | gateways that people run, alone and asking edge-session |
//! | `hostile` | the gateway and nginx under attack, as another visitor sees them |
//! | `stores` | a page with its session in MongoDB, Redis and PostgreSQL |
//! | `process`, `wrk` | server processes, and load generation |
//! | `report`, `plots` | the machine, the versions, the files with the figures, and charts |

mod component;
mod embeddings;
mod gateway;
mod gateways;
mod hostile;
mod layer;
mod load;
mod plots;
mod process;
mod report;
mod server;
mod stores;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::report::Report;

type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;

/// The key with which both sides sign.
const SECRET: &[u8] = b"only-for-the-benchmark-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEF";

/// How thorough a run is.
struct Effort {
    /// How often each server is put under load, each time for `load`.
    rounds: usize,
    load: Duration,
    /// How often each case in this process is measured, each time for `batch`.
    batches: usize,
    batch: Duration,
    /// How often each embedding in another language is measured, and the requests each time: few,
    /// so that changes in the machine's speed affect all in a round equally.
    turns: usize,
    requests: usize,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 6,
        load: Duration::from_secs(5),
        batches: 50,
        batch: Duration::from_millis(10),
        turns: 61,
        requests: 800,
    };
    /// For checking that the bench itself works. Its figures are inaccurate and are not kept.
    const QUICK: Self = Self {
        rounds: 1,
        load: Duration::from_secs(1),
        batches: 10,
        batch: Duration::from_millis(2),
        turns: 3,
        requests: 100,
    };
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] => run(&Effort::FULL).and_then(|table| keep(&table)),
        ["--quick"] => run(&Effort::QUICK).map(|_| say("a quick run: nothing is kept")),
        ["layer", seconds] => layer::repeat(seconds),
        ["serve", kind] => server::serve(kind),
        ["gateway"] => gateway::run(false),
        ["gateway", "--quick"] => gateway::run(true),
        ["gateways"] => gateways::run(false),
        ["gateways", "--quick"] => gateways::run(true),
        ["embeddings"] => embeddings::run(&Effort::FULL).and_then(|figures| figures.keep()),
        ["embeddings", "--quick"] => {
            embeddings::run(&Effort::QUICK).map(|_| say("a quick run: nothing is kept"))
        }
        ["hostile", rest @ ..] => hostile::run(rest),
        ["hostile-app", port] => hostile::app::serve(port),
        ["attack", name, port, cookie] => hostile::attacks::run(name, port, cookie),
        ["stores", rest @ ..] => stores::run(rest),
        ["store-page", database, who, name, port] => stores::page::serve(database, who, name, port),
        ["app", port] => gateway::app::serve(port),
        _ => {
            Err("usage: edge-session-bench [gateway | gateways | embeddings | hostile | stores] [--quick]"
                .into())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("==> failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(effort: &Effort) -> Result<String> {
    let mut table = component::measure(effort)?;
    table.push('\n');
    table += &layer::measure(effort)?;
    table.push('\n');
    table += &load::measure(effort)?;
    println!("\n{table}");
    Ok(table)
}

fn keep(table: &str) -> Result<()> {
    let with = format!("{}, {}", versions(), report::wrk());
    Report { file: "README.md", command: "make bench", with }.keep(table)
}

/// Returns the versions of what both layers use.
fn versions() -> String {
    let names = ["wasmtime", "axum", "tower-sessions", "tokio"];
    names.map(|name| format!("{name} {}", report::locked(name))).join(", ")
}

/// Returns this crate's folder, from cargo at run time rather than at compile time, because
/// checkouts may share a target directory.
fn directory() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into()).into()
}

fn component_path() -> PathBuf {
    directory().join("../host/session.wasm")
}

fn say(text: impl std::fmt::Display) {
    println!("==> {text}");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    }
}
