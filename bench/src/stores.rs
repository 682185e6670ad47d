//! The stores' cost: a page with its session in each database, compared with the same page and the
//! client's own operations, and with Express and its store.

mod data;
pub(crate) mod page;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::data::{Data, cookies};
use crate::gateway::client::Connection;
use crate::gateway::subjects::{Server, free_port};
use crate::gateway::{Figure, grouped, versions_of_packages};
use crate::plots::{Bar, Panel, svg};
use crate::process::{cores, last_core};
use crate::report::{Report, limit, locked};
use crate::wrk::Load;
use crate::{Result, SECRET, directory, median, say};

const CONNECTIONS: u64 = 32;

/// Few enough that in a run, a session is read much more often than it is touched.
const VISITORS: usize = 1000;

/// How long a session lives: connect-mongo's default.
const LIFETIME: Duration = Duration::from_secs(14 * 86_400);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Database {
    MongoDb,
    Redis,
    Postgres,
}

impl Database {
    const ALL: [Self; 3] = [Self::MongoDb, Self::Redis, Self::Postgres];

    fn name(self) -> &'static str {
        match self {
            Self::MongoDb => "MongoDB",
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
        }
    }

    fn of(name: &str) -> Result<Self> {
        Ok(Self::ALL.into_iter().find(|it| it.name() == name).ok_or("no such database")?)
    }

    fn variable(self) -> &'static str {
        match self {
            Self::MongoDb => "MONGODB_URI",
            Self::Redis => "REDIS_URL",
            Self::Postgres => "POSTGRES_URL",
        }
    }

    /// The library of edge-session's store and of the page beside it.
    fn library(self) -> &'static str {
        match self {
            Self::MongoDb => "mongodb",
            Self::Redis => "redis",
            Self::Postgres => "tokio-postgres",
        }
    }

    /// Express's store.
    fn package(self) -> &'static str {
        match self {
            Self::MongoDb => "connect-mongo",
            Self::Redis => "connect-redis",
            Self::Postgres => "connect-pg-simple",
        }
    }
}

fn uri(database: Database) -> Result<String> {
    let variable = database.variable();
    Ok(std::env::var(variable)
        .map_err(|_| format!("{variable} is not set: run `make bench-stores`"))?)
}

/// Who serves the page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// The client's own operations: find, insert and update, unconditional.
    Client,
    /// The same, whose updates are conditional as ours are: only if the session has not changed.
    Comparing,
    Ours,
    /// Ours with `touch_after = 0`.
    OursTouching,
    /// Ours behind a cache of one second.
    OursCached,
    /// Ours with `prepare = true`, which only PostgreSQL has.
    OursPreparing,
    Express,
}

impl Who {
    const ALL: [Self; 7] = [
        Self::Client,
        Self::Comparing,
        Self::Ours,
        Self::OursTouching,
        Self::OursCached,
        Self::OursPreparing,
        Self::Express,
    ];

    fn key(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Comparing => "comparing",
            Self::Ours => "ours",
            Self::OursTouching => "touching",
            Self::OursCached => "cached",
            Self::OursPreparing => "preparing",
            Self::Express => "express",
        }
    }

    fn of(key: &str) -> Result<Self> {
        Ok(Self::ALL.into_iter().find(|it| it.key() == key).ok_or("no such server")?)
    }

    fn name(self, database: Database) -> String {
        match self {
            Self::Client => format!("the client alone ({})", database.library()),
            Self::Comparing => "the client alone, compare and write".to_owned(),
            Self::Ours => "edge-session".to_owned(),
            Self::OursTouching => "edge-session, `touch_after = 0`".to_owned(),
            Self::OursCached => "edge-session, `cache_ms = 1000`".to_owned(),
            Self::OursPreparing => "edge-session, `prepare = true`".to_owned(),
            Self::Express => format!("Express with {}", database.package()),
        }
    }
}

/// What a request does to its session.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    /// A page without a session.
    Bare,
    Read,
    Touch,
    Change,
    New,
}

impl Case {
    /// Those with sessions: the columns.
    const ALL: [Self; 4] = [Self::Read, Self::Touch, Self::Change, Self::New];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "no session",
            Self::Read => "read",
            Self::Touch => "read and touched",
            Self::Change => "changed",
            Self::New => "new",
        }
    }
}

/// Returns the path of a page, if this server is measured with it.
fn path(who: Who, case: Case) -> Option<&'static str> {
    Some(match (who, case) {
        (Who::Client, Case::Touch) => "/touch",
        (Who::Client | Who::Ours | Who::OursCached | Who::OursPreparing, Case::Read)
        // Express touches whatever it reads.
        | (Who::OursTouching | Who::Express, Case::Touch) => "/read",
        (
            Who::Client
            | Who::Comparing
            | Who::Ours
            | Who::OursCached
            | Who::OursPreparing
            | Who::Express,
            Case::Change,
        )
        | (Who::Client | Who::Ours | Who::OursPreparing | Who::Express, Case::New) => "/count",
        (Who::Ours, Case::Bare) => "/bare",
        _ => return None,
    })
}

/// How thorough a run is.
struct Effort {
    rounds: usize,
    seconds: u64,
    /// The numbers of stored sessions.
    few: usize,
    many: usize,
    /// How long a database has for tidying up, such as a checkpoint, after many were stored.
    rest: Duration,
}

impl Effort {
    const FULL: Self =
        Self { rounds: 5, seconds: 3, few: 10_000, many: 1_000_000, rest: Duration::from_secs(75) };
    /// For checking that the bench itself works. Its figures are inaccurate and are not kept.
    const QUICK: Self =
        Self { rounds: 1, seconds: 1, few: 2000, many: 20_000, rest: Duration::ZERO };
}

/// A server and its measurements.
struct Subject {
    who: Who,
    server: Server,
    /// One figure per round, for each case; the last ones with many sessions stored.
    figures: Vec<(Case, Vec<Figure>)>,
}

/// Measures everything and writes the figures, unless it is a quick run.
pub(crate) fn run(rest: &[&str]) -> Result<()> {
    let (is_quick, only) = match rest {
        [] => (false, None),
        ["--quick"] => (true, None),
        ["--only", name] => (false, Some(Database::of(name)?)),
        _ => return Err("usage: edge-session-bench stores [--quick | --only DATABASE]".into()),
    };
    let effort = if is_quick { Effort::QUICK } else { Effort::FULL };
    let folder = tempfile::tempdir()?;
    let visitors = folder.path().join("visitors");
    std::fs::write(&visitors, cookies(VISITORS).join("\n") + "\n")?;
    say(format!("servers and databases on all {} cores, wrk on core {}", cores(), last_core()));
    let mut table = String::new();
    let mut versions = Vec::new();
    let mut panels = Vec::new();
    for database in Database::ALL {
        if only.is_some_and(|only| only != database) {
            continue;
        }
        let measured = measure(database, &effort, folder.path(), &visitors, &mut table)?;
        versions.push(measured.0);
        panels.extend(measured.1);
    }
    println!("\n{table}");
    let plot = svg("CPU time of the server per request", &panels)?;
    if is_quick || only.is_some() {
        say("not a whole run: nothing is kept");
        return Ok(());
    }
    std::fs::write(directory().join("plots/stores.svg"), plot)?;
    let libraries = Database::ALL.map(|it| format!("{} {}", it.library(), locked(it.library())));
    let packages = Database::ALL.map(Database::package);
    let with = format!(
        "edge-session {}, {}, {}, {}, {}",
        env!("CARGO_PKG_VERSION"),
        libraries.join(", "),
        versions.join(", "),
        versions_of_packages(&[&["express", "express-session"][..], &packages].concat())?,
        crate::report::wrk(),
    );
    Report { file: "stores.md", command: "make bench-stores", with }.keep(&table)
}

/// Measures all servers with one database. Returns its version, and the table as plots.
fn measure(
    database: Database,
    effort: &Effort,
    folder: &Path,
    visitors: &Path,
    table: &mut String,
) -> Result<(String, Vec<Panel>)> {
    let name = format!("edge_session_bench_{}", std::process::id());
    let data = Data::open(database, &name)?;
    say(format!("{}: storing {} sessions …", database.name(), grouped(effort.few as u64)));
    data.fill(0..effort.few)?;
    let mut subjects = Vec::new();
    for who in Who::ALL {
        if who == Who::OursPreparing && database != Database::Postgres {
            continue;
        }
        subjects.push(Subject::start(who, database, &name, folder)?);
    }
    // Connections are opened, and code is compiled.
    for subject in &mut subjects {
        for case in Case::ALL {
            subject.load(case, 1, visitors)?;
        }
    }
    let cases = [Case::Bare, Case::Read, Case::Touch, Case::Change, Case::New];
    for round in 0..effort.rounds {
        for case in cases {
            let mut order: Vec<_> = subjects.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                if let Some(figure) = subject.load(case, effort.seconds, visitors)? {
                    let what = format!("{}: {}", subject.who.name(database), case.name());
                    let Figure { cpu, per_second, .. } = figure;
                    let round = format!("round {} of {}", round + 1, effort.rounds);
                    say(format!("{round}: {what}: {cpu:.1} µs, {per_second:.0}/s"));
                    subject.keep(case, figure);
                }
            }
        }
    }
    write_tables(database, &subjects, table)?;
    say(format!("{}: storing {} sessions …", database.name(), grouped(effort.many as u64)));
    data.fill(effort.few..effort.many)?;
    std::thread::sleep(effort.rest);
    let stored = data.count()?;
    if stored < effort.many as u64 {
        return Err(format!("{stored} sessions are stored instead of {}", effort.many).into());
    }
    write_growth(effort, stored, &mut subjects, visitors, table)?;
    let panels = Case::ALL.map(|case| {
        let bars = subjects.iter().filter_map(|subject| {
            let value = subject.of(case, |figure| figure.cpu)?;
            let (name, colour) = match subject.who {
                Who::Client => ("the client alone", "#6b7280"),
                Who::Comparing => ("the same, comparing", "#6b7280"),
                Who::Ours => ("edge-session", "#2563eb"),
                Who::OursTouching => ("touch_after = 0", "#2563eb"),
                Who::OursCached => ("cache_ms = 1000", "#93c5fd"),
                Who::OursPreparing => ("prepare = true", "#93c5fd"),
                Who::Express => ("Express", "#d97706"),
            };
            Some(Bar { name: name.to_owned(), value, shown: format!("{value:.0} µs"), colour })
        });
        Panel { title: format!("{}: {}", database.name(), case.name()), bars: bars.collect() }
    });
    Ok((data.version()?, panels.into()))
}

fn write_tables(database: Database, subjects: &[Subject], table: &mut String) -> Result<()> {
    let heads = Case::ALL.map(|case| format!(" {} |", case.name())).concat();
    let lines = "--:|".repeat(Case::ALL.len());
    let [client, ours] = [Who::Client, Who::Ours].map(|who| find(subjects, who));
    let (client, ours) = (client?, ours?);
    let bare = ours.of(Case::Bare, |figure| figure.cpu).ok_or("no bare page")?;
    writeln!(table, "### {}\n", database.name())?;
    writeln!(table, "| CPU time of the server per request |{heads}\n|---|{lines}")?;
    for subject in subjects {
        write!(table, "| {} |", subject.who.name(database))?;
        for case in Case::ALL {
            match subject.of(case, |figure| figure.cpu) {
                Some(cpu) => write!(table, " {cpu:.0} µs |")?,
                None => write!(table, " – |")?,
            }
        }
        table.push('\n');
    }
    writeln!(table, "\n| requests per second; p50, p99 |{heads}\n|---|{lines}")?;
    for subject in subjects {
        write!(table, "| {} |", subject.who.name(database))?;
        for case in Case::ALL {
            let of = |part| subject.of(case, part);
            match (of(|it| it.per_second), of(|it| it.half), of(|it| it.most)) {
                (Some(rate), Some(half), Some(most)) => {
                    write!(table, " {}; {half:.1}, {most:.1} ms |", grouped(rate as u64))?;
                }
                _ => write!(table, " – |")?,
            }
        }
        table.push('\n');
    }
    writeln!(table, "\nThe page without a session takes {bare:.0} µs. Without that:\n")?;
    writeln!(table, "| edge-session ÷ the client alone |{heads}\n|---|{lines}")?;
    for part in ["CPU time", "requests per second"] {
        write!(table, "| {part} |")?;
        for case in Case::ALL {
            let ours = if case == Case::Touch { find(subjects, Who::OursTouching)? } else { ours };
            let ratio = |part: fn(&Figure) -> f64, less: f64| {
                Some((ours.of(case, part)? - less) / (client.of(case, part)? - less))
            };
            let ratio = match part {
                "CPU time" => ratio(|figure| figure.cpu, bare),
                _ => ratio(|figure| figure.per_second, 0.0),
            };
            write!(table, " {:.2} |", ratio.ok_or("a case was not measured")?)?;
        }
        table.push('\n');
    }
    let comparing = find(subjects, Who::Comparing)?;
    let of = |subject: &Subject, part| subject.of(Case::Change, part).ok_or("not measured");
    for (what, client) in [("", client), (" that compares and writes", comparing)] {
        let per_second: fn(&Figure) -> f64 = |figure| figure.per_second;
        let rate = of(ours, per_second)? / of(client, per_second)?;
        let [ours, client] = [of(ours, |it| it.cpu)? - bare, of(client, |it| it.cpu)? - bare];
        let cpu = ours / client;
        write!(
            table,
            "\nChanged sessions beside a client{what}: **{rate:.2}** of its rate, **{cpu:.2}** times \
             its CPU time.",
        )?;
        if database == Database::MongoDb {
            let is_held = if rate >= 0.9 { "held" } else { "missed" };
            write!(table, " At least 0.9 of the rate is {is_held}. {}", limit(cpu, 1.35))?;
        }
        table.push('\n');
    }
    table.push('\n');
    Ok(())
}

/// Measures again with many sessions stored, and compares the medians of the response times.
fn write_growth(
    effort: &Effort,
    stored: u64,
    subjects: &mut [Subject],
    visitors: &Path,
    table: &mut String,
) -> Result<()> {
    let cases = [Case::Read, Case::Change];
    let ours = subjects.iter_mut().find(|it| it.who == Who::Ours).ok_or("not measured")?;
    let few = grouped(effort.few as u64);
    writeln!(
        table,
        "| p50 of edge-session, sessions stored | from {few} | {} | ratio |\n|---|--:|--:|--:|",
        grouped(stored)
    )?;
    for case in cases {
        let before = ours.of(case, |figure| figure.half).ok_or("not measured")?;
        let mut halves = Vec::new();
        for _ in 0..effort.rounds {
            let figure = ours.load(case, effort.seconds, visitors)?.ok_or("not measured")?;
            halves.push(figure.half);
        }
        let after = median(&halves);
        let ratio = after / before;
        let name = case.name();
        writeln!(table, "| {name} | {before:.2} ms | {after:.2} ms | {ratio:.2} |")?;
    }
    table.push('\n');
    Ok(())
}

fn find(subjects: &[Subject], who: Who) -> Result<&Subject> {
    Ok(subjects.iter().find(|subject| subject.who == who).ok_or("not measured")?)
}

impl Subject {
    fn start(who: Who, database: Database, name: &str, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let all = format!("0-{}", last_core());
        let mut command = Command::new("taskset");
        command.args(["-c", &all]);
        if who == Who::Express {
            command
                .arg("node")
                .arg(directory().join("node/stores.mjs"))
                .args([&port.to_string(), &uri(database)?, name])
                .arg(String::from_utf8_lossy(SECRET).as_ref())
                .env("NODE_ENV", "production");
        } else {
            command
                .arg(std::env::current_exe()?)
                .args(["store-page", database.name(), who.key(), name, &port.to_string()])
                // Logs and metrics are off; so is what a developer has set.
                .env_remove("RUST_LOG");
        }
        let log: PathBuf = folder.join(format!("{port}.log"));
        let server = Server::start(command, port, &log)?;
        let subject = Self { who, server, figures: Vec::new() };
        // It knows the sessions that the bench has stored.
        let cookie = cookies(1).remove(0);
        let answer = Connection::open(port)?.get("/read", Some(&cookie));
        let answer = answer.map_err(|error| subject.server.explain(&error))?;
        if !answer.body.starts_with("<h1>you have visited this page ")
            || answer.body.contains(" 0 times")
        {
            let error = format!("a visitor is not known: {}", answer.body);
            return Err(subject.server.explain(&error));
        }
        Ok(subject)
    }

    /// Puts the server under load, if it has this case.
    fn load(&mut self, case: Case, seconds: u64, visitors: &Path) -> Result<Option<Figure>> {
        let Some(path) = path(self.who, case) else { return Ok(None) };
        let load = Load {
            url: self.server.url(path),
            connections: CONNECTIONS,
            seconds,
            cookies: (case != Case::New).then_some(visitors),
        };
        let before = self.server.process.cpu_time()?;
        let outcome = load.run().map_err(|error| self.server.explain(&error))?;
        // What wrk abandoned is a request on each connection.
        std::thread::sleep(Duration::from_millis(100));
        let after = self.server.process.cpu_time()?;
        let cpu = (after[0] + after[1] - before[0] - before[1]) as f64;
        Ok(Some(Figure {
            cpu: cpu / outcome.requests as f64,
            per_second: outcome.requests as f64 / outcome.seconds,
            half: outcome.half,
            most: outcome.most,
        }))
    }

    fn keep(&mut self, case: Case, figure: Figure) {
        match self.figures.iter_mut().find(|(of, _)| *of == case) {
            Some((_, figures)) => figures.push(figure),
            None => self.figures.push((case, vec![figure])),
        }
    }

    /// Returns the median of a case.
    fn of(&self, case: Case, part: fn(&Figure) -> f64) -> Option<f64> {
        let (_, figures) = self.figures.iter().find(|(of, _)| *of == case)?;
        Some(median(&figures.iter().map(part).collect::<Vec<_>>()))
    }
}
