//! The gateway's cost compared with other proxies: CPU time, speed and memory, with sessions and
//! without.

pub(crate) mod app;
pub(crate) mod client;
pub(crate) mod database;
mod memory;
pub(crate) mod subjects;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::client::{Connection, each};
use self::database::Database;
use self::subjects::{Ground, Kind, Proxy, Server, nginx};
use crate::plots::{Bar, Panel, svg};
use crate::process::last_core;
use crate::report::{Report, limit, locked};
use crate::wrk::Load;
use crate::{Result, directory, median, say};

/// The number of connections.
const FEW: u64 = 32;
const MANY: u64 = 1000;

/// The number of connections for loads whose memory is measured.
const WIDE: u64 = FEW;

/// How thorough a run is.
struct Effort {
    /// How often each case is measured, each time for `seconds`.
    rounds: usize,
    seconds: u64,
    /// Idle servers that use almost no CPU for this long have finished.
    rest: Duration,
    cells: &'static [Cell],
    visitors: usize,
    /// The number of idle connections.
    idle: usize,
    /// The number of stored sessions.
    stored: usize,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 3,
        seconds: 3,
        rest: Duration::from_millis(250),
        cells: &[
            Cell(Case::Plain, FEW),
            Cell(Case::Changing, FEW),
            Cell(Case::New, FEW),
            Cell(Case::Big, FEW),
            Cell(Case::Plain, MANY),
            Cell(Case::Changing, MANY),
            Cell(Case::New, MANY),
            Cell(Case::Big, MANY),
        ],
        // Enough that no visitor returns before its last response has arrived.
        visitors: 10_000,
        idle: 10_000,
        stored: 1_000_000,
    };
    /// For checking that the bench itself works. Its figures are inaccurate and are not kept.
    const QUICK: Self = Self {
        rounds: 1,
        seconds: 1,
        rest: Duration::from_millis(100),
        cells: &[
            Cell(Case::Plain, FEW),
            Cell(Case::Changing, FEW),
            Cell(Case::New, FEW),
            Cell(Case::Big, FEW),
            Cell(Case::Plain, MANY),
        ],
        visitors: 1000,
        idle: 1000,
        stored: 10_000,
    };
}

/// The requested page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Plain,
    Changing,
    New,
    Big,
}

/// A case, and its number of concurrent connections.
struct Cell(Case, u64);

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "returning visitor",
            Self::Changing => "returning, session changed",
            Self::New => "new visitor",
            Self::Big => "returning, 1 MiB",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Plain => "/",
            Self::Changing | Self::New => "/count",
            Self::Big => "/big",
        }
    }
}

/// A proxy and its measurements.
struct Subject {
    kind: Kind,
    proxy: Proxy,
    cookies: PathBuf,
    /// Visits that changed sessions, and that created sessions: lower and upper bounds.
    changed: [u64; 2],
    made: [u64; 2],
    /// For each cell, one figure per round.
    figures: Vec<Vec<Figure>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Figure {
    /// Microseconds of CPU time per request.
    pub(crate) cpu: f64,
    pub(crate) per_second: f64,
    /// The median and the 99th percentile of the response times, in milliseconds.
    pub(crate) half: f64,
    pub(crate) most: f64,
}

/// Measures everything and writes the figures, unless it is a quick run.
pub(crate) fn run(is_quick: bool) -> Result<()> {
    let effort = if is_quick { Effort::QUICK } else { Effort::FULL };
    let uri = std::env::var("MONGODB_URI")
        .map_err(|_| "MONGODB_URI is not set: run `make bench-gateway`")?;
    let ground = Ground::prepare(&uri)?;
    let database = Database::open(&uri, &ground.database)?;
    say(format!("proxies on core 0, wrk on core {}", last_core()));
    let mut table = String::new();
    let mut plots = Vec::new();
    for (connections, panels) in under_load(&effort, &ground, &database, &mut table)? {
        let title = format!("CPU time per request, {} connections", grouped(connections));
        plots.push((format!("cpu-{connections}.svg"), svg(&title, &panels)?));
    }
    let (memory, panels) = memory::measure(&effort, &ground, &database)?;
    table += &memory;
    plots.push(("memory.svg".to_owned(), svg("Resident memory", &panels)?));
    println!("\n{table}");
    let report = Report {
        file: "gateway.md",
        command: "make bench-gateway",
        with: circumstances(&database)?,
    };
    // The plots are drawn even in a quick run, to check that this works.
    if is_quick {
        say("a quick run: nothing is kept");
        return Ok(());
    }
    let folder = directory().join("plots");
    std::fs::create_dir_all(&folder)?;
    for (name, plot) in plots {
        std::fs::write(folder.join(name), plot)?;
    }
    report.keep(&table)
}

/// Puts all proxies under load. Returns the tables as plots, for each number of connections.
fn under_load(
    effort: &Effort,
    ground: &Ground,
    database: &Database,
    table: &mut String,
) -> Result<Vec<(u64, Vec<Panel>)>> {
    let mut subjects = Vec::new();
    for kind in Kind::ALL {
        subjects.push(Subject::start(kind, ground, effort)?);
    }
    for subject in &mut subjects {
        // Proxies without sessions get cookies of the same length.
        match subject.kind.has_sessions() {
            true => subject.invite(effort)?,
            false => subject.cookies = ground.path(Kind::Memory.name()),
        }
    }
    for subject in &mut subjects {
        subject.measure(&Cell(Case::Plain, FEW), effort)?;
    }
    for round in 0..effort.rounds {
        for (at, cell) in effort.cells.iter().enumerate() {
            // In this order, and in the opposite one every second time.
            let mut order: Vec<_> = subjects.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                let figure = subject.measure(cell, effort)?;
                subject.figures[at].push(figure);
                let (name, Cell(case, connections)) = (subject.kind.name(), cell);
                let Figure { cpu, per_second, .. } = figure;
                say(format!(
                    "round {} of {}: {}, {connections} connections: {name}: {cpu:.1} µs, \
                     {per_second:.0}/s",
                    round + 1,
                    effort.rounds,
                    case.name(),
                ));
            }
        }
    }
    for subject in &subjects {
        subject.check(effort, database).map_err(|error| subject.proxy.server.explain(&error))?;
    }
    let mut plots = Vec::new();
    for connections in [FEW, MANY] {
        let cells = effort.cells.iter().enumerate().filter(|(_, cell)| cell.1 == connections);
        let cells: Vec<_> = cells.map(|(at, cell)| (at, cell.0)).collect();
        plots.push((connections, tables(&subjects, connections, &cells, table)?));
    }
    Ok(plots)
}

fn tables(
    subjects: &[Subject],
    connections: u64,
    cells: &[(usize, Case)],
    table: &mut String,
) -> Result<Vec<Panel>> {
    let heads: String = cells.iter().map(|(_, case)| format!(" {} |", case.name())).collect();
    let lines = "--:|".repeat(cells.len());
    let of = |subject: &Subject, at: usize, part: fn(&Figure) -> f64| {
        median(&subject.figures[at].iter().map(part).collect::<Vec<_>>())
    };
    writeln!(table, "### {} connections\n", grouped(connections))?;
    writeln!(table, "| CPU time per request, beside nginx |{heads}\n|---|{lines}")?;
    for subject in subjects {
        write!(table, "| {} |", subject.kind.name())?;
        for (at, _) in cells {
            let [cpu, nginx] = [subject, &subjects[0]].map(|it| of(it, *at, |it| it.cpu));
            write!(table, " {cpu:.1} µs, {:.2}× |", cpu / nginx)?;
        }
        table.push('\n');
    }
    writeln!(table, "\n| answers per second; half, 99 of 100 within |{heads}\n|---|{lines}")?;
    for subject in subjects {
        write!(table, "| {} |", subject.kind.name())?;
        for (at, _) in cells {
            let per_second = grouped(of(subject, *at, |it| it.per_second) as u64);
            let [half, most] =
                [|it: &Figure| it.half, |it: &Figure| it.most].map(|part| of(subject, *at, part));
            write!(table, " {per_second}; {half:.1}, {most:.1} ms |")?;
        }
        table.push('\n');
    }
    let memory = subjects.iter().find(|it| it.kind == Kind::Memory).ok_or("no such subject")?;
    if let Some((at, _)) = cells.iter().find(|(_, case)| *case == Case::Plain) {
        let ratios: Vec<_> = (memory.figures[*at].iter().zip(&subjects[0].figures[*at]))
            .map(|(ours, nginx)| ours.cpu / nginx.cpu)
            .collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ratio = of(memory, *at, |it| it.cpu) / of(&subjects[0], *at, |it| it.cpu);
        writeln!(
            table,
            "\nA returning visitor's request with its session in memory costs **{ratio:.2}×** \
             nginx's CPU time (round by round {least:.2} to {most:.2}). {}\n",
            limit(ratio, 1.7)
        )?;
    }
    let panels = cells.iter().map(|(at, case)| {
        let bars = subjects.iter().map(|subject| {
            let (kind, value) = (subject.kind, of(subject, *at, |it| it.cpu));
            let (name, shown) = (kind.name().to_owned(), format!("{value:.1} µs"));
            Bar { name, value, shown, colour: kind.colour() }
        });
        let case = case.name();
        Panel { title: case[..1].to_uppercase() + &case[1..], bars: bars.collect() }
    });
    Ok(panels.collect())
}

impl Subject {
    fn start(kind: Kind, ground: &Ground, effort: &Effort) -> Result<Self> {
        let proxy = ground.start(kind)?;
        let count = Connection::open(proxy.server.port)?.get("/count", None)?.count;
        if count.is_some() != kind.has_sessions() {
            return Err(format!("{}: a first visit was counted as {count:?}", kind.name()).into());
        }
        let cookies = ground.path(kind.name());
        let figures = effort.cells.iter().map(|_| Vec::new()).collect();
        Ok(Self { kind, proxy, cookies, changed: [0; 2], made: [1; 2], figures })
    }

    /// Creates sessions for all visitors and keeps their cookies.
    fn invite(&mut self, effort: &Effort) -> Result<()> {
        write_cookies(&self.cookies, &invite(&self.proxy.server, effort.visitors)?)?;
        self.made = self.made.map(|made| made + effort.visitors as u64);
        Ok(())
    }

    /// Puts the proxy under load once.
    fn measure(&mut self, cell: &Cell, effort: &Effort) -> Result<Figure> {
        let Cell(case, connections) = *cell;
        // The first request on each connection waits until all are open. So that these are fewer
        // than 1 of 100, a load of many connections takes longer where the latency matters.
        let is_long = matches!(cell, Cell(Case::Plain, MANY));
        let load = Load {
            url: self.proxy.server.url(case.path()),
            connections,
            seconds: effort.seconds * if is_long { 4 } else { 1 },
            cookies: (case != Case::New).then_some(&self.cookies),
        };
        let name = self.kind.name();
        let answered_before = self.proxy.answered()?;
        let before = self.proxy.server.process.cpu_time()?;
        let outcome = load.run().map_err(|error| self.proxy.server.explain(&error))?;
        let answered = settled(effort, &self.proxy)? - answered_before;
        let after = self.proxy.server.process.cpu_time()?;
        let seen = outcome.requests;
        if !(seen..=seen + connections).contains(&answered) {
            return Err(format!("{name}: {answered} answers were given and {seen} seen").into());
        }
        match case {
            Case::Changing => {
                self.changed = [self.changed[0] + seen, self.changed[1] + answered];
            }
            Case::New => self.made = [self.made[0] + seen, self.made[1] + answered],
            Case::Plain | Case::Big => {}
        }
        // wrk abandons a request on each connection. Small ones were handled like all others; for
        // big ones, the bytes sent of their responses count.
        let requests = match case {
            Case::Big => outcome.bytes as f64 / app::BIG as f64,
            _ => answered as f64,
        };
        let cpu = (after[0] + after[1] - before[0] - before[1]) as f64;
        Ok(Figure {
            cpu: cpu / requests,
            per_second: seen as f64 / outcome.seconds,
            half: outcome.half,
            most: outcome.most,
        })
    }

    /// Checks that every visit was counted, and that every new visitor has a session.
    fn check(&self, effort: &Effort, database: &Database) -> Result<()> {
        if !self.kind.has_sessions() {
            return Ok(());
        }
        let name = self.kind.name();
        let cookies = std::fs::read_to_string(&self.cookies)?;
        let cookies: Vec<_> = cookies.lines().collect();
        let counts = each(self.proxy.server.port, cookies.len(), |connection, number| {
            let count = connection.get("/count", Some(cookies[number]))?.count;
            Ok(count.ok_or("a visit was not counted")?)
        })?;
        let counted: u64 = counts.iter().sum();
        // Each visitor's first visit, those under load, and this one.
        let [least, most] = self.changed.map(|changed| changed + 2 * effort.visitors as u64);
        if !(least..=most).contains(&counted) {
            let error = format!("{name}: {least} to {most} visits were made and {counted} counted");
            return Err(error.into());
        }
        say(format!("{name}: all {} visits were counted", grouped(counted)));
        if self.kind == Kind::MongoDb {
            let (stored, [least, most]) = (database.count()?, self.made);
            if !(least..=most).contains(&stored) {
                let error = format!("{name}: {least} to {most} sessions were made, {stored} kept");
                return Err(error.into());
            }
            say(format!("{name}: all {} sessions were stored", grouped(stored)));
        }
        Ok(())
    }
}

/// Returns the number of answered requests, once those that wrk abandoned are finished: no more
/// responses, and the proxy is idle.
fn settled(effort: &Effort, proxy: &Proxy) -> Result<u64> {
    let state = || -> Result<_> {
        let [user, system] = proxy.server.process.cpu_time()?;
        Ok((proxy.answered()?, Duration::from_micros(user + system)))
    };
    let mut before = state()?;
    loop {
        std::thread::sleep(effort.rest);
        let now = state()?;
        if now.0 == before.0 && now.1 - before.1 < effort.rest / 10 {
            return Ok(now.0);
        }
        before = now;
    }
}

/// Returns the cookies of new visitors.
fn invite(server: &Server, count: usize) -> Result<Vec<String>> {
    each(server.port, count, |connection, _| {
        let answer = connection.get("/count", None)?;
        match answer.cookie {
            Some(cookie) if answer.count == Some(1) => Ok(cookie),
            _ => Err("a new visitor was not counted, or got no cookie".into()),
        }
    })
}

fn write_cookies(file: &Path, cookies: &[String]) -> Result<()> {
    Ok(std::fs::write(file, cookies.join("\n") + "\n")?)
}

/// Formats a number for people: 1,000,000.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the versions of all software involved.
fn circumstances(database: &Database) -> Result<String> {
    let nginx = Command::new(nginx()).arg("-v").output()?;
    let nginx = String::from_utf8_lossy(&nginx.stderr);
    let nginx = nginx.trim().rsplit_once(": ").map_or("nginx", |(_, name)| name);
    let node = Command::new("node").arg("--version").output()?;
    let node = String::from_utf8_lossy(&node.stdout);
    let names = ["express", "express-session", "http-proxy-middleware"];
    Ok(format!(
        "{}, hyper {}, wasmtime {}, tokio {}, {nginx}, Node {}, {}, MongoDB {}, {}",
        format_args!("edge-session {}", env!("CARGO_PKG_VERSION")),
        locked("hyper"),
        locked("wasmtime"),
        locked("tokio"),
        node.trim(),
        versions_of_packages(&names)?,
        database.version()?,
        crate::report::wrk(),
    ))
}

/// Returns the versions of npm packages.
pub(crate) fn versions_of_packages(names: &[&str]) -> Result<String> {
    let packages = std::fs::read_to_string(directory().join("node/package.json"))?;
    let package = |name: &&str| {
        let rest = packages.split_once(&format!("\"{name}\": \"")).map(|(_, rest)| rest);
        let version = rest.and_then(|rest| rest.split('"').next()).unwrap_or("(unknown version)");
        format!("{name} {version}")
    };
    Ok(names.iter().map(package).collect::<Vec<_>>().join(", "))
}
