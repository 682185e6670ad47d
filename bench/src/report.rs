//! Where and with what it was measured, and the README that keeps the figures.

use std::process::Command;

use crate::{Result, say};

const LOCK: &str = include_str!("../../Cargo.lock");

const BEGIN: &str = "<!-- Written by `make bench`: begin -->";
const END: &str = "<!-- Written by `make bench`: end -->";

/// Put `table` into the README, between the marks.
pub(crate) fn keep(table: &str) -> Result<()> {
    let path = crate::directory().join("README.md");
    let readme = std::fs::read_to_string(&path)?;
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or("bench/README.md has lost its marks")?;
    let circumstances = circumstances();
    std::fs::write(path, format!("{before}{BEGIN}\n{circumstances}\n{table}{END}{after}"))?;
    say("written to bench/README.md");
    Ok(())
}

fn circumstances() -> String {
    let cpu = first_line("/proc/cpuinfo", "model name");
    let cpu = cpu.split_once(':').map_or("unknown CPU", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = first_line("/proc/sys/kernel/osrelease", "");
    let date = output("date", &["-u", "+%F"]);
    let rustc = output("rustc", &["--version"]);
    let wrk = output("wrk", &["-v"]);
    let wrk = wrk.split(" [").next().unwrap_or_default();
    let versions: Vec<_> = ["wasmtime", "axum", "tower-sessions", "tokio"]
        .iter()
        .map(|name| format!("{name} {}", locked(name)))
        .collect();
    format!(
        "Measured on {date} by `make bench` on {cores} cores of {cpu}, Linux {kernel}, with \
         {rustc}, {}, {wrk}.\n",
        versions.join(", ")
    )
}

/// The version of a dependency that this program was built with.
fn locked(name: &str) -> &'static str {
    let entry = format!("name = \"{name}\"\nversion = \"");
    LOCK.split_once(&entry)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("(unknown version)", |(version, _)| version)
}

fn first_line(file: &str, prefix: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find(|line| line.starts_with(prefix)).unwrap_or("unknown").to_owned()
}

/// The first line of what a program says; wrk says its version and fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return format!("{program} (unknown)");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}
