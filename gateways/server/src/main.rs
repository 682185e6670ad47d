//! `edge-session`: the program. Its main command is `edge-session serve`.

mod admin;
mod allocator;
mod auth;
mod cli;
mod commands;
mod config;
mod demo;
mod ext_proc;
mod health;
mod net;
mod proxy;
mod setup;
mod telemetry;
mod web;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::commands::{check, init, say, serve, sessions};
use crate::setup::Setup;

fn main() -> ExitCode {
    allocator::return_free_memory();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Errors at start are read by a person: plain text, not a log line.
            eprintln!("edge-session: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(arguments) => {
            let setup = Setup::read(&arguments.configured)?;
            let summary = telemetry::log(setup.settings.log);
            setup.warn();
            complete(async {
                tokio::spawn(summary.keep());
                // On a worker: what the main thread allocates, no `on_thread_park` collects.
                tokio::spawn(serve::serve(setup)).await.context("serving has failed")?
            })
        }
        Command::Sessions(arguments) => {
            let setup = Setup::read(&arguments.configured)?;
            telemetry::log(setup.settings.log);
            complete(sessions::run(&setup, &arguments.command))
        }
        Command::Init(arguments) => init::run(&arguments.file),
        Command::Check(arguments) => {
            let setup = Setup::read(&arguments.configured)?;
            let found = complete(check::run(&setup, arguments.connect))?;
            say(&[setup.summary(), found].concat());
            Ok(())
        }
    }
}

/// Runs the work, and leaks the runtime until the process ends: dropping it aborts the MongoDB
/// driver's tasks, which may panic then.
fn complete<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    std::mem::forget(runtime);
    result
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // A worker's local queue holds 256 tasks. Further ones spill into the global queue, which is
    // polled every 61 tasks by default, so that with 1,000 busy connections they would starve. For
    // the same reason, network events are polled more often.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .global_queue_interval(1)
        .event_interval(8)
        .on_thread_park(allocator::collect)
        .enable_all()
        .build();
    runtime.context("cannot start the async runtime")
}
