//! Sends the same traffic through express-session with connect-mongo, connect-redis or
//! connect-pg-simple and through edge-session, with one server, and compares every Set-Cookie, status,
//! value and stored session.
//!
//! On the reference side, express-session handles all requests. On the other side, each request is
//! handled by either implementation, at random, so that both use the same sessions. The case
//! controls the time on both sides.

mod case;
mod compare;
mod explained;
mod peer;
mod records;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use edge_session::Component;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use case::{Set, case};
use peer::{Package, Peer};
use records::{Kind, Server};
use world::{DATABASE, Rig};

/// Compare edge-session with express-session and its stores.
///
/// MONGODB_URI, REDIS_URL or POSTGRES_URL names the server. In MongoDB, the database
/// `edge_session_interop` is used.
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// How many cases of every set are played
    #[arg(long, default_value_t = 1000)]
    cases: u64,
    /// What the cases are generated from [default: a new one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// What keeps the sessions
    #[arg(long, value_enum, default_value_t = Kind::Mongodb)]
    store: Kind,
    /// Only these sets
    #[arg(long)]
    set: Vec<Set>,
    /// What the Node side has for sessions
    #[arg(long, value_enum, default_value_t = Package::ExpressSession)]
    peer: Package,
    /// Say that there is a difference, and do not look for its smallest case
    #[arg(long)]
    no_shrink: bool,
}

/// The number of cases of one set that are played concurrently.
const THREADS: u64 = 16;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        now.as_nanos() as u64 % 1_000_000_000
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let all = Set::of(arguments.store);
    if let Some(other) = arguments.set.iter().find(|set| !all.contains(set)) {
        return Err(format!("{other:?} is not a set of --store {:?}", arguments.store));
    }
    let sets = if arguments.set.is_empty() { all } else { arguments.set.clone() };
    let rig = Arc::new(runtime.block_on(rig(&sets, arguments))?);
    println!("==> seed {seed}");
    // The drop-in shares what differs from express-session.
    let is_default = arguments.set.is_empty() && arguments.store == Kind::Mongodb;
    if is_default && arguments.peer == Package::ExpressSession {
        let shown = runtime.block_on(explained::check(&rig))?;
        println!("==> {shown} differences that docs/migration.md explains are as it says");
    }
    for set in sets {
        // Each session costs kruptein 10 ms of key derivation on each side, so fewer cases are
        // played by default.
        let fewer = set.is_slow() && arguments.set.is_empty();
        let cases = if fewer { arguments.cases.div_ceil(20) } else { arguments.cases };
        let began = Instant::now();
        if set == Set::Text {
            for quirk in case::quirks() {
                let compared = runtime.block_on(compare::compare(&rig, &quirk));
                compared.map_err(|difference| {
                    format!("{set:?} differ:\n{difference}\n\nthe case, which is always played:\n{quirk:#?}")
                })?;
            }
        }
        play(&runtime, &rig, set, cases, seed, arguments)?;
        let seconds = began.elapsed().as_secs_f32();
        println!("==> {set:?}: no difference in {cases} cases ({seconds:.1} s)");
    }
    Ok(())
}

async fn rig(sets: &[Set], arguments: &Arguments) -> Result<Rig, String> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("run it by cargo")?;
    let checkout = PathBuf::from(manifest).join("../..");
    let kind = arguments.store;
    let mut url = kind.url()?;
    let server = Server::connect(kind).await?;
    if kind == Kind::Mongodb {
        let (server, parameters) = url.split_once('?').unwrap_or((&url, ""));
        url = format!("{}/{DATABASE}?{parameters}", server.trim_end_matches('/'));
    }
    let component = Component::from_file(checkout.join("host/session.wasm"), None)
        .map_err(|error| error.to_string())?
        .with_clock(world::clock);
    let peer = Peer::start(&checkout, arguments.peer, (kind.package(), &url))?;
    let mut rig = Rig { peer, component, server, stores: BTreeMap::new() };
    for set in sets {
        rig.add(*set).await?;
    }
    Ok(rig)
}

/// Plays the cases of one set. Shrinks a case that differs.
fn play(
    runtime: &tokio::runtime::Runtime,
    rig: &Arc<Rig>,
    set: Set,
    cases: u64,
    seed: u64,
    arguments: &Arguments,
) -> Result<(), String> {
    let shrinking = if arguments.no_shrink { 0 } else { 4000 };
    let played = Arc::new(AtomicU64::new(0));
    // The thread, counted from 1, that found a difference. The others then stop.
    let finder = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (rig, handle, played) = (rig.clone(), runtime.handle().clone(), played.clone());
            let finder = finder.clone();
            std::thread::spawn(move || {
                let mine = cases / THREADS + u64::from(thread < cases % THREADS);
                let config = Config {
                    cases: mine as u32,
                    failure_persistence: None,
                    max_shrink_iters: shrinking,
                    ..Config::default()
                };
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&seed.to_le_bytes());
                bytes[8] = thread as u8;
                let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
                let result = TestRunner::new_with_rng(config, random).run(&case(set), |case| {
                    let found_by = finder.load(Ordering::Relaxed);
                    if found_by != 0 && found_by != thread + 1 {
                        return Ok(());
                    }
                    let played = played.fetch_add(1, Ordering::Relaxed) + 1;
                    if found_by == 0 && played.is_multiple_of(500) {
                        println!("    {set:?}: {played} of {cases}");
                    }
                    let mut compared = handle.block_on(compare::compare(&rig, &case));
                    if matches!(rig.server, Server::Redis(_)) && compared.is_err() {
                        // Its clock is not the case's: a second may have begun in between.
                        compared = handle.block_on(compare::compare(&rig, &case));
                    }
                    compared.map_err(|difference| {
                        let order = Ordering::Relaxed;
                        let _ = finder.compare_exchange(0, thread + 1, order, order);
                        TestCaseError::fail(difference)
                    })
                });
                result.map_err(Box::new)
            })
        })
        .collect();
    // Join all threads before anything that they use is dropped.
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    for result in results {
        match result.map_err(|_| "a thread panicked")?.map_err(|error| *error) {
            Ok(()) => {}
            Err(TestError::Abort(reason)) => return Err(reason.to_string()),
            Err(TestError::Fail(reason, case)) => {
                let peer = if arguments.peer == Package::DropIn { " --peer drop-in" } else { "" };
                let store = match arguments.store {
                    Kind::Mongodb => "",
                    Kind::Redis => " --store redis",
                    Kind::Postgres => " --store postgres",
                };
                return Err(format!(
                    "{set:?} differ:\n{reason}\n\nthe smallest case:\n{case:#?}\n\n\
                     again by: make interop CASES={cases} ARGS=\"--seed {seed} --set {set:?}{store}{peer}\""
                ));
            }
        }
    }
    Ok(())
}
