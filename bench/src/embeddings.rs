//! The cost of a session in each embedding, compared with its language's usual session library.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use crate::report::Report;
use crate::{Effort, Result, directory, layer, say, versions};

/// An embedding and its peer: microseconds per request to the view counter.
struct Row {
    embedding: &'static str,
    peer: &'static str,
    /// The page without a session.
    bare: f64,
    with_peer: f64,
    with_ours: f64,
}

/// The measurements, and the versions involved.
pub(crate) struct Figures {
    table: String,
    with: String,
}

pub(crate) fn run(effort: &Effort) -> Result<Figures> {
    say("Rust: the tower layer beside tower-sessions …");
    let [bare, with_peer, with_ours, _] = layer::costs(effort)?.map(|nanos| nanos / 1000.0);
    let peer = "tower-sessions, signed";
    let rust = Row { embedding: "Rust: `SessionLayer`", peer, bare, with_peer, with_ours };
    say("Node: the drop-in beside express-session …");
    let mut node = Command::new("node");
    node.arg("bench.mjs").current_dir(directory().join("../gateways/node"));
    let (node, on_node) = row("Node: the drop-in", "express-session", node, effort)?;
    say("Python: the ASGI middleware beside Starlette's SessionMiddleware …");
    let python = std::env::var_os("EDGE_SESSION_PYTHON").unwrap_or("python3".into());
    let mut python = Command::new(python);
    python.arg("bench.py").current_dir(directory().join("../gateways/python"));
    python.env("EDGE_SESSION_COMPONENT", crate::component_path());
    let peer = "Starlette's `SessionMiddleware`";
    let (python, on_python) = row("Python: the ASGI middleware", peer, python, effort)?;
    let table = table(&[rust, node, python])?;
    println!("\n{table}");
    Ok(Figures { table, with: format!("{}; {on_node}; {on_python}", versions()) })
}

impl Figures {
    pub(crate) fn keep(self) -> Result<()> {
        let Self { table, with } = self;
        Report { file: "README.md", command: "make bench-embeddings", with }.keep(&table)
    }
}

/// Runs an embedding's own bench; also returns the versions that it reports.
fn row(
    embedding: &'static str,
    peer: &'static str,
    mut bench: Command,
    effort: &Effort,
) -> Result<(Row, String)> {
    let numbers = [effort.turns.to_string(), effort.requests.to_string()];
    let bench = bench.arg("--json").args(numbers).stderr(Stdio::inherit());
    let output = bench.output().map_err(|error| format!("{embedding}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{embedding}: its bench failed").into());
    }
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let figure = |name| {
        figures[name].as_f64().ok_or_else(|| format!("{embedding}: its bench says no `{name}`"))
    };
    let (bare, with_peer, with_ours) = (figure("bare")?, figure("peer")?, figure("ours")?);
    let with = figures["with"].as_str().unwrap_or("unknown versions").to_owned();
    Ok((Row { embedding, peer, bare, with_peer, with_ours }, with))
}

fn table(rows: &[Row]) -> Result<String> {
    let mut table = String::from(
        "| embedding | its peer | bare page | with the peer | with edge-session | \
         the peer's share | edge-session's share | ratio of the shares |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for Row { embedding, peer, bare, with_peer, with_ours } in rows {
        let (theirs, ours) = (with_peer - bare, with_ours - bare);
        writeln!(
            table,
            "| {embedding} | {peer} | {bare:.2} µs | {with_peer:.2} µs | {with_ours:.2} µs | \
             {theirs:.2} µs | **{ours:.2} µs** | **{:.2}** |",
            ours / theirs,
        )?;
    }
    Ok(table)
}
