//! Load generation with wrk, and its output.

use std::path::Path;

use crate::Result;
use crate::process::{last_core, on_core};

pub(crate) struct Load<'l> {
    pub(crate) url: String,
    pub(crate) connections: u64,
    pub(crate) seconds: u64,
    /// A file with the visitors' Cookie headers; none: all visitors are new.
    pub(crate) cookies: Option<&'l Path>,
}

/// The result. Every response was successful.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// All bytes received, including those of unfinished responses.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// The median and the 99th percentile of the response times, in milliseconds.
    pub(crate) half: f64,
    pub(crate) most: f64,
}

impl Load<'_> {
    pub(crate) fn run(&self) -> Result<Outcome> {
        let mut command = on_core(last_core(), "wrk");
        command
            .args(["-t1", "--timeout", "30s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .arg("-s")
            .arg(crate::directory().join("src/visit.lua"))
            .arg(&self.url);
        if let Some(cookies) = self.cookies {
            command.arg("--").arg(cookies);
        }
        let output = command
            .output()
            .map_err(|error| format!("wrk cannot be run ({error}): scripts/setup wrk"))?;
        let output = String::from_utf8_lossy(&output.stdout);
        let figures = output.lines().find_map(|line| line.strip_prefix("figures: "));
        let figures = figures.ok_or_else(|| format!("wrk said no figures:\n{output}"))?;
        let figures = figures.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let figures: Vec<f64> = figures;
        let [requests, failed, bytes, micros, half, most] = figures[..] else {
            return Err(format!("wrk said other figures:\n{output}").into());
        };
        if requests == 0.0 || failed > 0.0 {
            return Err(format!("{}: {failed} failures:\n{output}", self.url).into());
        }
        Ok(Outcome {
            requests: requests as u64,
            bytes: bytes as u64,
            seconds: micros / 1e6,
            half: half / 1e3,
            most: most / 1e3,
        })
    }
}
