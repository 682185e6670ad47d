//! `edge-session`: the reference host. `edge-session serve` is the main job.

mod app;
mod cli;
mod config;
mod serve;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let Command::Serve(arguments) = Cli::parse().command;
    let filter = EnvFilter::builder()
        .with_env_var("EDGE_SESSION_LOG")
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    match runtime.block_on(serve::serve(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Errors at start are for a person: plain text, not a log line.
fn failed(message: &str) -> ExitCode {
    eprintln!("edge-session: {message}");
    ExitCode::FAILURE
}
