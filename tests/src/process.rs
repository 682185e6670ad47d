//! A program that ends with the test that started it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

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
        let send = |signal| {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("it is a pid"));
            kill_process(pid.expect("it is not 0"), signal).expect("it runs");
        };
        send(Signal::STOP);
        let result = during();
        send(Signal::CONT);
        result
    }

    /// Kills it: `kill -9`.
    pub fn end(&mut self) {
        // A failure means that it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
