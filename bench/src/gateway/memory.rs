//! The memory used by idle connections and stored sessions.

use std::fmt::Write as _;
use std::time::Duration;

use super::client::{Connection, each};
use super::database::Database;
use super::subjects::{Ground, Kind, Server};
use super::{Effort, WIDE, grouped, invite, write_cookies};
use crate::plots::{Bar, Panel};
use crate::wrk::Load;
use crate::{Result, say};

/// Returns the tables, and their content as a plot.
pub(super) fn measure(
    effort: &Effort,
    ground: &Ground,
    database: &Database,
) -> Result<(String, Vec<Panel>)> {
    let mut tables = String::new();
    let idle = idle(effort, ground, &mut tables)?;
    let in_memory = in_memory(effort, ground, &mut tables)?;
    in_database(effort, ground, database, &mut tables)?;
    Ok((tables, vec![idle, in_memory]))
}

fn idle(effort: &Effort, ground: &Ground, tables: &mut String) -> Result<Panel> {
    /// The total number of requests on every connection.
    const REQUESTS: usize = 5;
    let count = effort.idle;
    let shown = grouped(count as u64);
    write!(
        tables,
        "### {shown} idle connections\n\n\
         | resident memory | before | {shown} open, 1 request each | {REQUESTS} requests each | \
         for each connection | all closed |\n|---|--:|--:|--:|--:|--:|\n"
    )?;
    let mut panel =
        Panel { title: format!("Memory with {shown} idle connections"), bars: Vec::new() };
    for kind in [Kind::Nginx, Kind::Memory, Kind::Express] {
        let proxy = ground.start(kind)?;
        let server = &proxy.server;
        let mut first = Connection::open(server.port)?;
        let cookie = first.get("/count", None)?.cookie;
        let cookie = cookie.as_deref();
        for _ in 0..1000 {
            first.get("/", cookie)?;
        }
        let before = server.process.memory()?;
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let mut connection = Connection::open(server.port)?;
            connection.get("/", cookie)?;
            connections.push(connection);
        }
        let open = server.process.memory()?;
        // This also shows that each of them has stayed open.
        for _ in 1..REQUESTS {
            for connection in &mut connections {
                connection.get("/", cookie)?;
            }
        }
        let used = server.process.memory()?;
        drop(connections);
        std::thread::sleep(effort.rest * 4);
        let closed = server.process.memory()?;
        let kib = (used - before) * 1024.0 / count as f64;
        let name = kind.name();
        say(format!("{name}: {before:.1} MiB, {used:.1} MiB with {shown} idle connections"));
        writeln!(
            tables,
            "| {name} | {before:.1} MiB | {open:.1} MiB | {used:.1} MiB | {kib:.1} KiB | \
             {closed:.1} MiB |"
        )?;
        panel.bars.push(bar(name.to_owned(), used, kind));
    }
    tables.push('\n');
    Ok(panel)
}

fn in_memory(effort: &Effort, ground: &Ground, tables: &mut String) -> Result<Panel> {
    const STEPS: usize = 4;
    let step = effort.stored / STEPS;
    let proxy = ground.start(Kind::Memory)?;
    let server = &proxy.server;
    let mut values = vec![(0, server.process.memory()?)];
    let mut cookies = Vec::new();
    for at in 1..=STEPS {
        let new = each(server.port, step, |connection, number| {
            let cookie = connection.get("/count", None)?.cookie;
            Ok(cookie.filter(|_| number % 100 == 0))
        })?;
        cookies.extend(new.into_iter().flatten());
        values.push((at * step, server.process.memory()?));
        let (count, memory) = values[at];
        say(format!("{} sessions in memory: {memory:.0} MiB", grouped(count as u64)));
    }
    // Every hundredth visitor returns, including the first ones.
    let counts = each(server.port, cookies.len(), |connection, number| {
        Ok(connection.get("/count", Some(&cookies[number]))?.count)
    })?;
    let known = counts.iter().filter(|count| **count == Some(2)).count();
    let total = grouped(effort.stored as u64);
    write!(tables, "### {total} sessions in memory\n\n| sessions |")?;
    for (count, _) in &values {
        write!(tables, " {} |", grouped(*count as u64))?;
    }
    write!(tables, "\n|---|{}\n| resident memory |", "--:|".repeat(values.len()))?;
    for (_, memory) in &values {
        write!(tables, " {memory:.1} MiB |")?;
    }
    let each_costs = (values[STEPS].1 - values[0].1) * 1_048_576.0 / effort.stored as f64;
    writeln!(
        tables,
        "\n\n{each_costs:.0} bytes for each session. Afterwards {} of {} visitors were known.\n",
        grouped(known as u64),
        grouped(cookies.len() as u64),
    )?;
    let bars = values
        .iter()
        .map(|(count, memory)| bar(grouped(*count as u64), *memory, Kind::Memory))
        .collect();
    Ok(Panel { title: "Memory with sessions stored in it".to_owned(), bars })
}

fn in_database(
    effort: &Effort,
    ground: &Ground,
    database: &Database,
    tables: &mut String,
) -> Result<()> {
    let proxy = ground.start(Kind::MongoDb)?;
    let server = &proxy.server;
    let start = server.process.memory()?;
    let file = ground.path("few");
    write_cookies(&file, &invite(server, effort.visitors)?)?;
    let before = database.count()?;
    let few = visit(effort, server, &file)?;
    say(format!("storing {} sessions in MongoDB …", grouped(effort.stored as u64)));
    let cookies = database.fill(effort.stored)?;
    let known = Connection::open(server.port)?.get("/count", Some(&cookies[0]))?.count;
    if known.is_none_or(|count| count < 2) {
        return Err("a session that was put into MongoDB is not known".into());
    }
    let file = ground.path("many");
    write_cookies(&file, &cookies)?;
    let many = visit(effort, server, &file)?;
    let after = database.count()?;
    if after != before + effort.stored as u64 {
        return Err(format!("{before} sessions became {after}, while none were new").into());
    }
    let [before, after] = [before, after].map(grouped);
    say(format!("{after} sessions in MongoDB: {many:.0} MiB"));
    writeln!(
        tables,
        "### {} sessions in MongoDB\n\n\
         | sessions | at start | {before} | {after} |\n|---|--:|--:|--:|\n\
         | resident memory of edge-session after {} s of visits | {start:.1} MiB | {few:.1} MiB \
         | {many:.1} MiB |",
        grouped(effort.stored as u64),
        effort.seconds,
    )?;
    Ok(())
}

/// Sends visitors for a while; returns the memory that is then used.
fn visit(effort: &Effort, server: &Server, cookies: &std::path::Path) -> Result<f64> {
    let (url, cookies) = (server.url("/"), Some(cookies));
    Load { url, connections: WIDE, seconds: effort.seconds, cookies }.run()?;
    std::thread::sleep(effort.rest.max(Duration::from_millis(200)));
    server.process.memory()
}

fn bar(name: String, memory: f64, kind: Kind) -> Bar {
    Bar { name, value: memory, shown: format!("{memory:.1} MiB"), colour: kind.colour() }
}
