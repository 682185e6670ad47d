//! The cost of a session in a server: CPU time per request under load, compared with
//! tower-sessions, each relative to the same page without a session.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::process::{Process, last_core, on_core};
use crate::report::limit;
use crate::server::Kind;
use crate::wrk::Load;
use crate::{Effort, Result, median, say};

const VISITORS: u64 = 1000;
const CONNECTIONS: u64 = 32;

/// A server and its visitors.
struct Subject {
    name: &'static str,
    kind: Kind,
    server: Server,
    /// A file with the visitors' Cookie headers.
    cookies: PathBuf,
    /// The number of requests answered under load.
    requests: u64,
    loads: u64,
    /// The cost of a request, one figure per round.
    costs: Vec<Cost>,
}

/// Microseconds of CPU time per request, in user and in kernel mode.
#[derive(Clone, Copy)]
struct Cost {
    user: f64,
    system: f64,
}

impl Cost {
    fn both(self) -> f64 {
        self.user + self.system
    }
}

pub(crate) fn measure(effort: &Effort) -> Result<String> {
    let directory = tempfile::tempdir()?;
    say(format!("servers on core 0, wrk on core {}; {VISITORS} visitors each …", last_core()));
    let cookies = |name: &str| directory.path().join(name);
    let [theirs, ours, native] = ["theirs", "ours", "native"].map(cookies);
    // In this order, and in the opposite one every second time.
    let mut subjects = [
        Subject::start("tower-sessions: bare", Kind::Bare, &theirs)?,
        Subject::start("tower-sessions", Kind::TowerSessions, &theirs)?,
        Subject::start("edge-session", Kind::EdgeSession, &ours)?,
        Subject::start("edge-session, native", Kind::EdgeSessionNative, &native)?,
        Subject::start("edge-session: bare", Kind::Bare, &ours)?,
    ];
    for subject in &subjects {
        if subject.kind != Kind::Bare {
            subject.server.invite(&subject.cookies)?;
        }
    }
    for subject in &mut subjects {
        subject.load(1)?;
    }
    for round in 0..effort.rounds {
        let mut order = [0, 1, 2, 3, 4];
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let subject = &mut subjects[at];
            let cost = subject.load(effort.load.as_secs())?;
            subject.costs.push(cost);
            let (name, Cost { user, system }) = (subject.name, cost);
            let rounds = effort.rounds;
            say(format!("round {} of {rounds}: {name}: {user:.2} + {system:.2} µs", round + 1));
        }
    }
    for subject in &subjects {
        if subject.kind != Kind::Bare {
            subject.check_counts()?;
        }
    }
    table(&subjects.map(|subject| subject.costs))
}

fn table(costs: &[Vec<Cost>; 5]) -> Result<String> {
    let [bare_theirs, theirs, ours, native, bare_ours] = costs;
    let mut table = String::from(
        "### The layer beside tower-sessions, under load\n\n\
         | CPU time per request | bare page | with a session | the session's share | \
         of it in the program | in the kernel |\n|---|--:|--:|--:|--:|--:|\n",
    );
    let of = |costs: &[Cost], part: fn(Cost) -> f64| {
        median(&costs.iter().map(|cost| part(*cost)).collect::<Vec<_>>())
    };
    let mut row = |name: &str, bare: &[Cost], with: &[Cost]| {
        let share = |part| of(with, part) - of(bare, part);
        let both = share(Cost::both);
        writeln!(
            table,
            "| {name} | {:.2} µs | {:.2} µs | **{both:.2} µs** | {:.2} µs | {:.2} µs |",
            of(bare, Cost::both),
            of(with, Cost::both),
            share(|cost| cost.user),
            share(|cost| cost.system),
        )?;
        Ok::<_, std::fmt::Error>(both)
    };
    let their_share = row("axum + tower-sessions, signed", bare_theirs, theirs)?;
    let variants =
        [("axum + edge-session", ours, 1.6), ("axum + edge-session, native", native, 0.9)];
    let mut sentences = String::new();
    for (name, with, most_allowed) in variants {
        let ratio = row(name, bare_ours, with)? / their_share;
        let share = |with: &[Cost], bare: &[Cost], at: usize| with[at].both() - bare[at].both();
        let rounds = (0..with.len())
            .map(|at| share(with, bare_ours, at) / share(theirs, bare_theirs, at))
            .collect::<Vec<_>>();
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        writeln!(
            sentences,
            "\n{name}: the session's share is **{ratio:.2}×** that of tower-sessions (medians of \
             {} rounds; round by round {least:.2} to {most:.2}). {}",
            rounds.len(),
            limit(ratio, most_allowed),
        )?;
    }
    table += &sentences;
    Ok(table)
}

impl Subject {
    fn start(name: &'static str, kind: Kind, cookies: &Path) -> Result<Self> {
        let server = Server::start(kind)?;
        Ok(Self {
            name,
            kind,
            server,
            cookies: cookies.to_owned(),
            requests: 0,
            loads: 0,
            costs: Vec::new(),
        })
    }

    /// Puts the server under load; returns the cost of a request.
    fn load(&mut self, seconds: u64) -> Result<Cost> {
        let load = Load {
            url: self.server.url("/"),
            connections: CONNECTIONS,
            seconds,
            cookies: Some(&self.cookies),
        };
        let before = self.server.process.cpu_time()?;
        let requests = load.run()?.requests;
        let after = self.server.process.cpu_time()?;
        self.requests += requests;
        self.loads += 1;
        let per_request = |at: usize| (after[at] - before[at]) as f64 / requests as f64;
        Ok(Cost { user: per_request(0), system: per_request(1) })
    }

    /// Checks that every visit was counted: the first one of each visitor, those under load, and
    /// the one in which this reads the count.
    fn check_counts(&self) -> Result<()> {
        let mut counted = 0;
        for cookie in std::fs::read_to_string(&self.cookies)?.lines() {
            let (count, _) = self.server.visit(Some(cookie))?;
            if count < 3 {
                return Err(format!("{}: a visitor was counted {count} times", self.name).into());
            }
            counted += count;
        }
        let answered = self.requests + 2 * VISITORS;
        // Requests that were in progress when wrk stopped.
        let abandoned = CONNECTIONS * self.loads;
        if !(answered..=answered + abandoned).contains(&counted) {
            return Err(format!(
                "{}: {answered} visits were answered and {counted} counted",
                self.name
            )
            .into());
        }
        say(format!("{}: all {answered} visits were counted", self.name));
        Ok(())
    }
}

/// A server process. Dropping it ends the process.
struct Server {
    process: Process,
    port: u16,
    client: ureq::Agent,
}

impl Server {
    fn start(kind: Kind) -> Result<Self> {
        let mut process = on_core(0, std::env::current_exe()?)
            .args(["serve", kind.name()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        // From here on, it is stopped on failure.
        let process = Process::new(process);
        let mut server = Self { process, port: 0, client: ureq::Agent::new_with_defaults() };
        server.port =
            line.trim().parse().map_err(|_| format!("the server {} failed", kind.name()))?;
        Ok(server)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Visits the page; returns the count that it shows and the cookie that it sets.
    fn visit(&self, cookie: Option<&str>) -> Result<(u64, Option<String>)> {
        let mut request = self.client.get(self.url("/"));
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let mut response = request.call()?;
        let set_cookie = match response.headers().get("set-cookie") {
            Some(header) => header.to_str()?.split(';').next().map(str::to_owned),
            None => None,
        };
        let page = response.body_mut().read_to_string()?;
        let count = page
            .strip_prefix("<h1>you have visited this page ")
            .and_then(|rest| rest.strip_suffix(" times</h1>"))
            .ok_or_else(|| format!("not the page: {page}"))?;
        Ok((count.parse()?, set_cookie))
    }

    /// Creates sessions for all visitors, and writes their cookies to `file`.
    fn invite(&self, file: &Path) -> Result<()> {
        let mut cookies = String::new();
        for _ in 0..VISITORS {
            let (count, cookie) = self.visit(None)?;
            if count != 1 {
                return Err(format!("a new visitor was counted {count} times").into());
            }
            writeln!(cookies, "{}", cookie.ok_or("a new visitor got no cookie")?)?;
        }
        std::fs::write(file, cookies)?;
        Ok(())
    }
}
