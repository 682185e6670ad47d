//! The conditions of measurements, and the files with the figures.

use std::process::Command;

use crate::{Result, say};

const LOCK: &str = include_str!("../../Cargo.lock");

/// A file with figures between marks.
pub(crate) struct Report {
    pub(crate) file: &'static str,
    /// The command that measures them.
    pub(crate) command: &'static str,
    /// The versions of the software involved.
    pub(crate) with: String,
}

impl Report {
    /// Writes `table` to the file.
    pub(crate) fn keep(&self, table: &str) -> Result<()> {
        let Self { file, command, .. } = self;
        let path = crate::directory().join(file);
        let text = std::fs::read_to_string(&path)?;
        let begin = format!("<!-- Written by `{command}`: begin -->");
        let end = format!("<!-- Written by `{command}`: end -->");
        let parts = text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(&end)?;
            Some((before, after))
        });
        let (before, after) = parts.ok_or_else(|| format!("bench/{file} has lost its marks"))?;
        let circumstances = self.circumstances();
        std::fs::write(path, format!("{before}{begin}\n{circumstances}\n{table}{end}{after}"))?;
        say(format!("written to bench/{file}"));
        Ok(())
    }

    fn circumstances(&self) -> String {
        let cpu = first_line("/proc/cpuinfo", "model name");
        let cpu = cpu.split_once(':').map_or("unknown CPU", |(_, model)| model.trim());
        let cores = crate::process::cores();
        let kernel = first_line("/proc/sys/kernel/osrelease", "");
        let date = output("date", &["-u", "+%F"]);
        let rustc = output("rustc", &["--version"]);
        let Self { command, with, .. } = self;
        format!(
            "Measured on {date} by `{command}` on {cores} cores of {cpu}, Linux {kernel}, with \
             {rustc}, {with}.\n"
        )
    }
}

/// States whether a ratio is within its limit.
pub(crate) fn limit(ratio: f64, limit: f64) -> String {
    format!("The limit of {limit} is {}.", if ratio <= limit { "held" } else { "missed" })
}

/// Returns the version of a dependency that this program was built with.
pub(crate) fn locked(name: &str) -> &'static str {
    let entry = format!("name = \"{name}\"\nversion = \"");
    LOCK.split_once(&entry)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("(unknown version)", |(version, _)| version)
}

/// Returns wrk's version.
pub(crate) fn wrk() -> String {
    output("wrk", &["-v"]).split(" [").next().unwrap_or_default().to_owned()
}

fn first_line(file: &str, prefix: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find(|line| line.starts_with(prefix)).unwrap_or("unknown").to_owned()
}

/// Returns the first line of a program's output. wrk prints its version and fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return format!("{program} (unknown)");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}
