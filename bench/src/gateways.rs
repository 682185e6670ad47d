//! Gateways that people run, each alone and asking edge-session: the CPU time of the whole chain.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::gateway::client::{Connection, each};
use crate::gateway::subjects::{Server, app_core, free_port, program, serve};
use crate::gateway::{Figure, grouped};
use crate::plots::{Bar, Panel, svg};
use crate::process::on_core;
use crate::report::{Report, locked, wrk};
use crate::wrk::Load;
use crate::{Result, SECRET, directory, median, say};

const CONNECTIONS: u64 = 32;
const VISITORS: usize = 1000;

/// For the filter's calls of the store.
const TOKEN: &str = "only-for-the-benchmark-0123456789";

/// A gateway, as `deploy/` configures it.
#[derive(Clone, Copy, PartialEq)]
enum Front {
    Envoy,
    EnvoyExtAuthz,
    EnvoyProxyWasm,
    Nginx,
    Caddy,
    Traefik,
    Haproxy,
}

impl Front {
    const ALL: [Self; 7] = [
        Self::Envoy,
        Self::EnvoyExtAuthz,
        Self::EnvoyProxyWasm,
        Self::Nginx,
        Self::Caddy,
        Self::Traefik,
        Self::Haproxy,
    ];

    /// Whether it is measured alone, too.
    fn is_program(self) -> bool {
        !matches!(self, Self::EnvoyExtAuthz | Self::EnvoyProxyWasm)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Envoy => "Envoy",
            Self::EnvoyExtAuthz => "Envoy, ext_authz",
            Self::EnvoyProxyWasm => "Envoy, proxy-wasm",
            Self::Nginx => "nginx",
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::Haproxy => "HAProxy",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Envoy | Self::EnvoyExtAuthz | Self::EnvoyProxyWasm => "envoy",
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Haproxy => "haproxy",
        }
    }

    /// Its folder in `deploy/`.
    fn folder(self) -> &'static str {
        match self {
            Self::EnvoyExtAuthz => "envoy-ext-authz",
            Self::EnvoyProxyWasm => "envoy-proxy-wasm",
            other => other.command(),
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Envoy | Self::EnvoyExtAuthz | Self::EnvoyProxyWasm => "#7c3aed",
            Self::Nginx => "#059669",
            Self::Caddy => "#0891b2",
            Self::Traefik => "#d97706",
            Self::Haproxy => "#6b7280",
        }
    }

    /// How it asks.
    fn by(self) -> &'static str {
        match self {
            Self::Envoy => "ext_proc",
            Self::EnvoyProxyWasm => "its filter",
            _ => "forward authentication",
        }
    }

    /// Returns its configuration without edge-session.
    fn alone(self, text: String) -> String {
        let without = |text: &str, what: &[&str]| {
            let lines = text.lines().filter(|line| !what.iter().any(|it| line.contains(it)));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        let cut = |text: &str, from: &str, to: &str| match text.split_once(from) {
            Some((before, rest)) => match rest.split_once(to) {
                Some((_, after)) => format!("{before}{to}{after}"),
                None => text.to_owned(),
            },
            None => text.to_owned(),
        };
        match self {
            Self::EnvoyExtAuthz | Self::EnvoyProxyWasm => text,
            Self::Envoy => cut(
                &text,
                "- name: envoy.filters.http.ext_proc",
                "- name: envoy.filters.http.router",
            ),
            Self::Nginx => {
                let text =
                    cut(&text, "    # If the application relays", "    server {\n        listen");
                let text = cut(&text, "        location = /edge-session/auth", "    }\n}");
                without(&text, &["auth_request", "$edge_session", "error_page 401"])
            }
            Self::Caddy => cut(&text, "# forward_auth, written", "reverse_proxy 127.0.0.1:3000"),
            Self::Traefik => text.replace("middlewares: [strip, edge-session]", "middlewares: []"),
            Self::Haproxy => without(&text, &["lua", "edge_session", "edge-session"]),
        }
    }
}

/// A gateway, alone or not; or edge-session as a proxy.
struct Subject {
    front: Option<(Front, bool)>,
    /// None: edge-session itself.
    server: Option<Server>,
    /// For each case, one of each round.
    figures: [Vec<Measured>; 2],
}

/// The requested page.
#[derive(Clone, Copy)]
enum Case {
    Read,
    Changed,
}

impl Case {
    const ALL: [Self; 2] = [Self::Read, Self::Changed];

    fn title(self) -> &'static str {
        match self {
            Self::Read => "A returning visitor's session is read",
            Self::Changed => "The application changes the session by headers",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Read => "/",
            Self::Changed => "/count",
        }
    }

    /// Only where the application's response is seen, it can change the session.
    fn is_for(self, subject: &Subject) -> bool {
        match self {
            Self::Read => true,
            Self::Changed => {
                matches!(subject.front, None | Some((Front::Envoy | Front::EnvoyProxyWasm, true)))
            }
        }
    }
}

/// Figures of one load: all, and how much of the CPU time is edge-session's.
#[derive(Clone, Copy)]
struct Measured {
    whole: Figure,
    edge: f64,
}

impl Subject {
    fn name(&self) -> String {
        match self.front {
            None => "edge-session as the proxy".to_owned(),
            Some((front, true)) if front.is_program() => {
                format!("{} + edge-session", front.name())
            }
            Some((front, _)) => front.name().to_owned(),
        }
    }

    fn median(&self, case: usize, of: impl Fn(&Measured) -> f64) -> f64 {
        median(&self.figures[case].iter().map(of).collect::<Vec<_>>())
    }
}

/// The processes that all share.
struct Ground {
    directory: tempfile::TempDir,
    app: Server,
    edge: Server,
    /// The ports of external processing and of forward authentication.
    asked: [u16; 2],
}

impl Ground {
    fn prepare() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let mut command = on_core(app_core(), std::env::current_exe()?);
        command.args(["app", &port.to_string()]);
        let app = Server::start(command, port, &directory.path().join("app.log"))?;
        let asked = [free_port()?, free_port()?];
        let file = directory.path().join("edge-session.toml");
        let [ext_proc, auth] = asked;
        std::fs::write(
            &file,
            format!(
                "ext_proc.listen = \"127.0.0.1:{ext_proc}\"\nauth.listen = \"127.0.0.1:{auth}\"\n"
            ),
        )?;
        let port = free_port()?;
        let mut command = on_core(0, std::env::current_exe()?.with_file_name("edge-session"));
        serve(&mut command, port, &app, &file, "memory:");
        command.env("TOKIO_WORKER_THREADS", "1").env("EDGE_SESSION_AUTH_TOKEN", TOKEN);
        let edge = Server::start(command, port, &directory.path().join("edge.log"))?;
        Ok(Self { directory, app, edge, asked })
    }

    /// Starts a gateway on core 0, with one thread.
    fn start(&self, front: Front, asks: bool) -> Result<Server> {
        let port = free_port()?;
        let folder = self.directory.path().join(port.to_string());
        std::fs::create_dir(&folder)?;
        let source = directory().join("../deploy").join(front.folder());
        let [ext_proc, auth] = self.asked;
        for entry in std::fs::read_dir(source)? {
            let entry = entry?;
            let text = std::fs::read_to_string(entry.path())?;
            let text = if asks { text } else { front.alone(text) };
            let text = text
                .replace("9092", &ext_proc.to_string())
                .replace("9091", &auth.to_string())
                .replace("8080", &port.to_string())
                .replace("3000", &self.app.port.to_string())
                .replace("THE AUTH TOKEN", TOKEN)
                .replace("THE SECRET", &String::from_utf8_lossy(SECRET));
            let text = match front {
                Front::Nginx => text.replace("events {}", "master_process off;\nevents {}"),
                Front::Haproxy => text.replace("global\n", "global\n    nbthread 1\n"),
                _ => text,
            };
            std::fs::write(folder.join(entry.file_name()), text)?;
        }
        if front == Front::EnvoyProxyWasm {
            std::fs::copy(directory().join("../target/filter.wasm"), folder.join("filter.wasm"))?;
        }
        let mut command = on_core(0, program(front.command()));
        command.current_dir(&folder).env("GOMAXPROCS", "1").env("HOME", &folder);
        match front {
            Front::Envoy | Front::EnvoyExtAuthz | Front::EnvoyProxyWasm => command
                .args(["-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"])
                .args(["--log-level", "warning"]),
            Front::Nginx => {
                command.arg("-p").arg(&folder).args(["-e", "stderr", "-c", "nginx.conf"])
            }
            Front::Caddy => command.args(["run", "--config", "Caddyfile"]),
            Front::Traefik => command.args(["--configFile=traefik.yaml"]),
            Front::Haproxy => command
                .args(["-f", "haproxy.cfg"])
                .env("LD_LIBRARY_PATH", program("haproxy").with_file_name("haproxy-lib")),
        };
        let server = Server::start(command, port, &folder.join("log"))?;
        // Routes may come later than the listener.
        for _ in 0..500 {
            if Connection::open(port)?.get("/", None).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(server.explain(&format!("{} does not answer", front.name())))
    }

    /// Lets visitors begin sessions; returns the file of their cookies.
    fn invite(&self) -> Result<PathBuf> {
        let cookies = each(self.edge.port, VISITORS, |connection, _| {
            connection.get("/count", None)?.cookie.ok_or_else(|| "a visitor got no cookie".into())
        })?;
        let file = self.directory.path().join("cookies");
        std::fs::write(&file, cookies.join("\n") + "\n")?;
        Ok(file)
    }

    /// Puts a subject under load once.
    fn measure(
        &self,
        subject: &Subject,
        path: &str,
        cookies: &Path,
        seconds: u64,
    ) -> Result<Measured> {
        let server = subject.server.as_ref().unwrap_or(&self.edge);
        let cpu = |server: &Server| server.process.cpu_time().map(|[user, kernel]| user + kernel);
        let before = [cpu(server)?, cpu(&self.edge)?];
        let load = Load {
            url: server.url(path),
            connections: CONNECTIONS,
            seconds,
            cookies: Some(cookies),
        };
        let outcome = load.run().map_err(|error| server.explain(&error))?;
        // What wrk has left is finished before the time is read.
        std::thread::sleep(Duration::from_millis(200));
        let of_each = |after: u64, before: u64| (after - before) as f64 / outcome.requests as f64;
        let own = of_each(cpu(server)?, before[0]);
        let edge = of_each(cpu(&self.edge)?, before[1]);
        let cpu = if subject.server.is_some() { own + edge } else { own };
        let per_second = outcome.requests as f64 / outcome.seconds;
        let whole = Figure { cpu, per_second, half: outcome.half, most: outcome.most };
        Ok(Measured { whole, edge })
    }
}

/// Measures everything and writes the figures, unless it is a quick run.
pub(crate) fn run(is_quick: bool) -> Result<()> {
    let (rounds, seconds) = if is_quick { (1, 1) } else { (5, 3) };
    let ground = Ground::prepare()?;
    let cookies = ground.invite()?;
    let mut subjects =
        vec![Subject { front: None, server: None, figures: [const { Vec::new() }; 2] }];
    for front in Front::ALL {
        for asks in [false, true] {
            if !asks && !front.is_program() {
                continue;
            }
            say(format!("starting {}{}", front.name(), if asks { ", asking" } else { "" }));
            let server = Some(ground.start(front, asks)?);
            subjects.push(Subject {
                front: Some((front, asks)),
                server,
                figures: [const { Vec::new() }; 2],
            });
        }
    }
    for round in 0..=rounds {
        say(match round {
            0 => "warming up".to_owned(),
            _ => format!("round {round} of {rounds}"),
        });
        let mut order: Vec<_> = subjects.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            for (at, case) in Case::ALL.into_iter().enumerate() {
                if !case.is_for(subject) {
                    continue;
                }
                let measured = ground.measure(subject, case.path(), &cookies, seconds)?;
                // The first round only warms up.
                if round > 0 {
                    subject.figures[at].push(measured);
                }
            }
        }
    }
    let mut table = String::new();
    let mut panels = Vec::new();
    for (at, case) in Case::ALL.into_iter().enumerate() {
        let concerned: Vec<_> = subjects.iter().filter(|it| case.is_for(it)).collect();
        write_table(&mut table, case, &concerned, at)?;
        panels.push(panel(case, &concerned, at));
    }
    println!("\n{table}");
    let plot = svg("CPU time per request of all processes but the application, µs", &panels)?;
    if is_quick {
        say("a quick run: nothing is kept");
        return Ok(());
    }
    std::fs::write(directory().join("plots/gateways.svg"), plot)?;
    let report =
        Report { file: "gateways.md", command: "make bench-gateways", with: circumstances()? };
    report.keep(&table)
}

fn write_table(table: &mut String, case: Case, subjects: &[&Subject], at: usize) -> Result<()> {
    let cpu = |subject: &Subject| subject.median(at, |it| it.whole.cpu);
    let proxy = subjects.iter().find(|it| it.front.is_none()).map_or(f64::NAN, |it| cpu(it));
    writeln!(
        table,
        "### {}\n\n\
         | | asks by | CPU per request, µs | of that edge-session's | ÷ edge-session as the proxy \
         | requests per second | p50, ms | p99, ms |\n\
         |---|---|--:|--:|--:|--:|--:|--:|",
        case.title()
    )?;
    for subject in subjects {
        let by = match subject.front {
            None => "is the proxy",
            Some((_, false)) => "has no sessions",
            Some((front, true)) => front.by(),
        };
        let median = |of: fn(&Measured) -> f64| subject.median(at, of);
        writeln!(
            table,
            "| {} | {by} | {:.0} | {:.0} | {:.2} | {} | {:.2} | {:.2} |",
            subject.name(),
            cpu(subject),
            if matches!(subject.front, Some((_, false))) { 0.0 } else { median(|it| it.edge) },
            cpu(subject) / proxy,
            grouped(median(|it| it.whole.per_second) as u64),
            median(|it| it.whole.half),
            median(|it| it.whole.most),
        )?;
    }
    table.push('\n');
    Ok(())
}

fn panel(case: Case, subjects: &[&Subject], at: usize) -> Panel {
    let bar = |subject: &&Subject| {
        let value = subject.median(at, |it| it.whole.cpu);
        let colour = subject.front.map_or("#2563eb", |(front, _)| front.colour());
        Bar { name: subject.name(), value, shown: format!("{value:.0}"), colour }
    };
    Panel { title: case.title().to_owned(), bars: subjects.iter().map(bar).collect() }
}

/// Returns the versions of all software involved.
fn circumstances() -> Result<String> {
    let mut versions = vec![
        format!("edge-session {}", env!("CARGO_PKG_VERSION")),
        format!("hyper {}", locked("hyper")),
        format!("tonic {}", locked("tonic")),
    ];
    for (command, arguments) in [
        ("envoy", &["--version"][..]),
        ("nginx", &["-v"]),
        ("caddy", &["version"]),
        ("traefik", &["version"]),
        ("haproxy", &["-v"]),
    ] {
        let mut asked = Command::new(program(command));
        let libraries = program("haproxy").with_file_name("haproxy-lib");
        let output = asked.args(arguments).env("LD_LIBRARY_PATH", libraries).output()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let is_part = |c: char| c.is_ascii_digit() || c == '.';
        let version = text
            .split(|c: char| !is_part(c))
            .find(|it| it.matches('.').count() == 2 && it.len() >= 5)
            .unwrap_or("(unknown version)");
        versions.push(format!("{command} {version}"));
    }
    versions.push(wrk());
    Ok(versions.join(", "))
}
