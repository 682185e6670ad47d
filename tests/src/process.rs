//! A program that ends with the test that started it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait_for;

/// A running program. Dropping it ends the program.
pub struct Process(Child);

impl Process {
    /// Starts it.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}")))
    }

    /// Starts it, and returns the first line that it prints.
    #[track_caller]
    pub(crate) fn printing(command: &mut Command) -> (Self, String) {
        let mut process = Self::start(command.stdout(Stdio::piped()));
        let stdout = process.0.stdout.take().expect("its output is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("its output can be read");
        (process, line)
    }

    /// Panics if it has ended.
    #[track_caller]
    pub(crate) fn must_run(&mut self, log: impl FnOnce() -> String) {
        if let Some(status) = self.0.try_wait().expect("the child can be asked") {
            panic!("a program ended with {status}, having said: {}", log());
        }
    }

    /// Freezes it for as long as `during` takes: `kill -STOP`.
    pub(crate) fn frozen<T>(&self, during: impl FnOnce() -> T) -> T {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("it is a pid");
        send(pid, Signal::STOP);
        let result = during();
        send(pid, Signal::CONT);
        result
    }

    /// Kills it: `kill -9`.
    pub fn end(&mut self) {
        // A failure means that it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal, and waits until a `STOP` has arrived: the kernel stops one thread after another,
/// and on a busy machine some still answer a request meanwhile.
#[track_caller]
pub(crate) fn send(pid: Pid, signal: Signal) {
    // A failure means that it has already exited.
    if kill_process(pid, signal).is_ok() && signal == Signal::STOP {
        wait_for("a process to stop", Duration::from_secs(10), || is_stopped(pid).then_some(()));
    }
}

/// Returns whether all threads of a process are stopped, or it has exited.
fn is_stopped(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    threads.into_iter().flatten().flatten().all(|thread| {
        // PID (NAME) STATE …, where the name may contain anything.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['T', 'Z']))
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
