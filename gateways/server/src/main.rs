//! `edge-session`: the program. `edge-session serve` is the main job.

mod admin;
mod cli;
mod commands;
mod config;
mod demo;
mod health;
mod net;
mod proxy;
mod setup;
mod telemetry;
mod web;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::commands::{check, serve, sessions};
use crate::setup::Setup;

/// Every request allocates some dozens of small pieces, on one thread and not seldom freed on
/// another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
            let summary = telemetry::log(setup.settings.log);
            setup.warn();
            complete(async {
                tokio::spawn(summary.keep());
                serve::serve(setup).await
            })
        }
        Command::Sessions(arguments) => {
            let setup = Setup::read(&arguments.configured)?;
            telemetry::log(setup.settings.log);
            complete(sessions::run(&setup, &arguments.command))
        }
        Command::Init(arguments) => init(&arguments.file),
        Command::Check(arguments) => {
            let setup = Setup::read(&arguments.configured)?;
            let found = complete(check::run(&setup, arguments.connect))?;
            say(&[setup.summary(), found].concat());
            Ok(())
        }
    }
}

/// Print a line. Whoever has read enough (`| head -1`) does not mind the rest.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn init(file: &Path) -> Result<(), String> {
    let shown = file.display();
    let mut options = OpenOptions::new();
    let result = options.write(true).create_new(true).open(file);
    match result.and_then(|mut new| new.write_all(config::TEMPLATE.as_bytes())) {
        Ok(()) => {
            say(&format!("{shown} is written. Try: edge-session check --config {shown}"));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(format!("{shown} is there already and was left as it is"))
        }
        Err(error) => Err(format!("cannot write {shown}: {error}")),
    }
}

/// Do it, and leave the rest to the end of the process: the MongoDB driver's tasks may panic when they
/// are stopped half-way, as they are when a runtime is dropped.
fn complete<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    std::mem::forget(runtime);
    result
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    // A worker's own queue holds 256 tasks, and more spill into the common one, which is looked at
    // every 61 tasks as a rule: with 1,000 connections at work, what spilled would starve. As often
    // it looks what has come by the network, which need not wait that long either.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .global_queue_interval(1)
        .event_interval(8)
        .enable_all()
        .build();
    runtime.map_err(|error| format!("cannot start: {error}"))
}
