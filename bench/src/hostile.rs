//! What a bystander observes while an attacker tries to take the gateway down, and the memory that
//! the attack uses: before and during each attack, compared with nginx where it supports the case.

pub(crate) mod app;
pub(crate) mod attacks;
mod bystander;
mod cases;
mod subjects;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use self::bystander::Seen;
use self::cases::{CASES, Case};
use self::subjects::{Ground, Kind};
use crate::gateway::database::Database;
use crate::gateway::subjects::nginx;
use crate::process::last_core;
use crate::report::{Report, locked};
use crate::{Result, directory, median, say};

/// How thorough a run is.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// The bystander's minimum number of visits, before the attack and during it.
    visits: usize,
    /// The minimum and maximum duration of an attack. A bystander without responses makes fewer
    /// visits.
    least: Duration,
    most: Duration,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 3,
        visits: 1000,
        least: Duration::from_secs(4),
        most: Duration::from_secs(8),
    };
    /// For checking that the bench itself works. Its figures are inaccurate and are not kept.
    const QUICK: Self = Self {
        rounds: 1,
        visits: 200,
        least: Duration::from_secs(1),
        most: Duration::from_secs(3),
    };
}

/// One round of one case with one proxy.
struct Figures {
    before: Seen,
    under: Seen,
    /// MiB.
    memory: f64,
    peak: f64,
    /// Shares of a core.
    cpu: f64,
    notes: String,
}

/// Runs the bench. Arguments: `--quick`, and `--only PART` of a case's name.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (is_quick, only) = match arguments {
        [] => (false, ""),
        ["--quick"] => (true, ""),
        ["--only", part] => (false, *part),
        ["--quick", "--only", part] => (true, *part),
        _ => return Err("usage: hostile [--quick] [--only PART]".into()),
    };
    let effort = if is_quick { Effort::QUICK } else { Effort::FULL };
    let uri = std::env::var("MONGODB_URI")
        .map_err(|_| "MONGODB_URI is not set: run `make bench-hostile`")?;
    let ground = Ground::prepare(&uri)?;
    let database = Database::open(&uri, ground.database())?;
    say(format!("proxies on core 0, all else on core {}", last_core()));
    let mut table = String::from(
        "| under | proxy | p50, p99 before | p50, p99 under attack | p99 under attack ÷ before | \
         at most doubled | failed | memory before | increase at its peak | bound | within | CPU | \
         outcome |\n|---|---|--:|--:|--:|---|--:|--:|--:|--:|---|--:|---|\n",
    );
    for case in CASES.iter().filter(|case| case.name.contains(only)) {
        for kind in [Kind::EdgeSession, Kind::Nginx] {
            if kind == Kind::Nginx && !case.nginx_has_it {
                continue;
            }
            let mut rounds = Vec::new();
            for round in 0..effort.rounds {
                let figures = measure(case, kind, &effort, &ground, &database)
                    .map_err(|error| format!("{}: {}: {error}", case.name, kind.name()))?;
                let [before, under] = [&figures.before, &figures.under].map(|it| it.quantile(0.99));
                say(format!(
                    "round {} of {}: {}: {}: p99 {before:.2} → {under:.2} ms, {:.0} MiB more",
                    round + 1,
                    effort.rounds,
                    case.name,
                    kind.name(),
                    figures.peak - figures.memory,
                ));
                rounds.push(figures);
            }
            row(&mut table, case, kind, &rounds)?;
        }
    }
    if "Python".contains(only) {
        table += &python()?;
    }
    println!("\n{table}");
    if is_quick || !only.is_empty() {
        say("not a full run: nothing is kept");
        return Ok(());
    }
    let with = circumstances(&database)?;
    Report { file: "hostile.md", command: "make bench-hostile", with }.keep(&table)
}

/// Measures before and during an attack.
fn measure(
    case: &Case,
    kind: Kind,
    effort: &Effort,
    ground: &Ground,
    database: &Database,
) -> Result<Figures> {
    let proxy = ground.start(case, kind)?;
    let (port, path) = match case.is_of_admin {
        true => (proxy.admin, "/readyz"),
        false => (proxy.server.port, "/"),
    };
    let visitor = if case.is_of_admin { None } else { proxy.visitor()? };
    let mut cookie = visitor.clone();
    if let Some(bytes) = case.costly {
        cookie = Some(database.store_costly(bytes)?);
    } else if case.is_storm {
        cookie = proxy.visitor()?;
    }
    let bystander = bystander::Bystander { port, path, cookie: visitor.as_deref() };
    // One-time work, such as connecting to the database, is done by then.
    bystander.visit(effort.visits / 4, Duration::ZERO, effort.most);
    let before = bystander.visit(effort.visits, Duration::ZERO, effort.most);
    if before.failed > 0 {
        let error = format!("{} of the bystander's visits failed in peace", before.failed);
        return Err(proxy.server.explain(&error));
    }
    let memory = proxy.server.process.memory()?;
    proxy.server.process.forget_peak()?;

    let (lines, operations) = (proxy.server.lines()?, database.operations()?);
    let attack = ground.attack(case, &proxy, cookie.as_deref().unwrap_or_default())?;
    let used = proxy.server.process.cpu_time()?;
    let under = bystander.visit(effort.visits, effort.least, effort.most);
    let used = proxy.server.process.cpu_time()?.iter().sum::<u64>() - used.iter().sum::<u64>();
    let cpu = used as f64 / under.elapsed.as_micros() as f64;
    let held = proxy.held()?;
    let peak = proxy.server.process.peak_memory()?;
    let outcome = attack.end()?;
    let operations = database.operations()? - operations;
    let lines = proxy.server.lines()? - lines;
    let per_request = operations as f64 / (outcome.answers() + under.visits.len() as u64) as f64;
    let mut notes = Vec::new();
    let answers = outcome.answers();
    if answers > 0 {
        notes.push(format!(
            "{answers} responses: {} good, {} with status 503",
            outcome.good, outcome.unavailable
        ));
    }
    if case.is_storm {
        notes.push(format!("{per_request:.1} store operations per request"));
    }
    if case.shows_connections {
        notes.push(format!("{} connections open, {} closed", outcome.open, outcome.closed));
    }
    if case.shows_sent {
        notes.push(format!("{:.2} MiB sent", outcome.sent as f64 / 1_048_576.0));
    }
    if case.shows_held {
        notes.push(format!("the application held {} requests, at most {}", held[0], held[1]));
    }
    notes.push(format!("{lines} lines logged"));
    Ok(Figures { before, under, memory, peak, cpu, notes: notes.join("; ") })
}

fn row(table: &mut String, case: &Case, kind: Kind, rounds: &[Figures]) -> Result<()> {
    let of = |part: &dyn Fn(&Figures) -> f64| median(&rounds.iter().map(part).collect::<Vec<_>>());
    let quantiles = |seen: fn(&Figures) -> &Seen| {
        [0.5, 0.99].map(|share| of(&|figures| seen(figures).quantile(share)))
    };
    let [before, under] = [quantiles(|it| &it.before), quantiles(|it| &it.under)];
    let ratio = under[1] / before[1];
    let failed: usize = rounds.iter().map(|it| it.under.failed).sum();
    let visits: usize = rounds.iter().map(|it| it.under.visits.len()).sum();
    let more = of(&|it| it.peak - it.memory);
    let is_doubled_at_most = ratio <= 2.0 && failed == 0;
    writeln!(
        table,
        "| {} | {} | {:.2}, {:.2} ms | {:.2}, {:.2} ms | **{ratio:.2}×** | {} | {failed} of \
         {visits} | {:.0} MiB | {more:.0} MiB | {:.0} MiB | {} | {:.0} % | {} |",
        case.name,
        kind.name(),
        before[0],
        before[1],
        under[0],
        under[1],
        yes(is_doubled_at_most),
        of(&|it| it.memory),
        case.bound,
        yes(more <= case.bound),
        of(&|it| it.cpu * 100.0),
        rounds.last().map_or("", |it| &it.notes),
    )?;
    Ok(())
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "**no**" }
}

/// Returns the cost of a Cookie header of 16 MiB in the ASGI middleware, called in a separate
/// process.
fn python() -> Result<String> {
    say("Python: a cookie header of 16 MiB …");
    let python = std::env::var_os("EDGE_SESSION_PYTHON").unwrap_or("python3".into());
    let output = Command::new(python)
        .arg("hostile.py")
        .current_dir(directory())
        .env("EDGE_SESSION_COMPONENT", crate::component_path())
        .output()?;
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let figure = |name: &str| figures[name].as_f64().ok_or(format!("hostile.py says no {name}"));
    let (more, bound) = (figure("mib")?, 64.0);
    Ok(format!(
        "\nPython's ASGI middleware, a cookie header of 16 MiB: memory grows by **{more:.0} MiB** \
         (within the bound of {bound:.0} MiB: {}), the event loop is blocked for **{:.0} ms** \
         ({:.1} ms with a small header), and the response has status {}.\n",
        yes(more <= bound),
        figure("milliseconds")?,
        figure("small")?,
        figures["status"],
    ))
}

/// Returns the versions of all software involved.
fn circumstances(database: &Database) -> Result<String> {
    let nginx = Command::new(nginx()).arg("-v").output()?;
    let nginx = String::from_utf8_lossy(&nginx.stderr);
    let nginx = nginx.trim().rsplit_once(": ").map_or("nginx", |(_, name)| name);
    Ok(format!(
        "edge-session {}, hyper {}, h2 {}, wasmtime {}, tokio {}, {nginx}, MongoDB {}",
        env!("CARGO_PKG_VERSION"),
        locked("hyper"),
        locked("h2"),
        locked("wasmtime"),
        locked("tokio"),
        database.version()?,
    ))
}
