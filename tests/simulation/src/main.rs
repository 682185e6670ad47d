//! `make simulate`: random histories of several gateways, several visitors and one store that
//! fails, in one process and under a seed. After every step, the promises of the session logic are
//! checked. A history that breaks one is shrunk to a short script.
//!
//! | module | its job |
//! |---|---|
//! | `history` | what happens: the events of a history, generated and shrunk |
//! | `world` | plays a history, and checks the promises |
//! | `store` | the store, its faults, and what it knows about sessions |

mod history;
mod store;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use history::History;
use world::Rig;

const USAGE: &str = "usage: edge-session-simulation [--seconds N] [--histories N] [--seed N]
  Plays random histories until told to stop. The same seed plays the same histories.";

/// How often progress is reported.
const EVERY: Duration = Duration::from_secs(10);

struct Arguments {
    until: Option<Duration>,
    most: u64,
    seed: u64,
}

fn arguments() -> Option<Arguments> {
    let mut found = Arguments { until: None, most: u64::MAX, seed: rand::rng().random() };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let number: u64 = given.next()?.parse().ok()?;
        match name.as_str() {
            "--seconds" => found.until = Some(Duration::from_secs(number)),
            "--histories" => found.most = number,
            "--seed" => found.seed = number,
            _ => return None,
        }
    }
    Some(found)
}

fn main() -> ExitCode {
    let Some(Arguments { until, most, seed }) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("==> seed {seed}");
    let rig = Rig::new();
    let began = Instant::now();
    let mut told = EVERY;
    let mut count = 0;
    while count < most && until.is_none_or(|until| began.elapsed() < until) {
        let history = History::random(&mut StdRng::seed_from_u64(seed.wrapping_add(count)));
        count += 1;
        if let Err(broken) = rig.play(&history, false) {
            println!("==> history {count} breaks a promise: {broken}");
            let (short, broken) = history.shrunk(|history| rig.play(history, false).err(), broken);
            println!("==> shrunk to {} events: {broken}\n{short}", short.events.len());
            let _ = rig.play(&short, true);
            println!("==> again: --seed {} --histories 1", seed.wrapping_add(count - 1));
            return ExitCode::FAILURE;
        }
        if began.elapsed() >= told {
            told += EVERY;
            println!("    {count} histories");
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = count as f64 / seconds * 60.0;
    println!("==> no promise is broken in {count} histories ({seconds:.1} s, {rate:.0} a minute)");
    ExitCode::SUCCESS
}
