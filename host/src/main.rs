//! `edge-session`: the reference host. `edge-session serve` is the main job.

mod admin;
mod app;
mod cli;
mod config;
mod gateway;
mod serve;
mod server;
mod setup;
mod telemetry;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::setup::Setup;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Errors at start are for a person: plain text, not a log line.
            eprintln!("edge-session: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Serve(arguments) => {
            let setup = Setup::read(&arguments.configured)?;
            telemetry::log(setup.settings.log);
            runtime()?.block_on(serve::serve(setup))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start: {error}"))
}
