//! The processes of servers under load, and their data in `/proc`.

use std::process::{Child, Command};

use crate::Result;

/// A server. Dropping it ends the process.
pub(crate) struct Process {
    child: Child,
    /// The process that does the work, if the one that was started only supervises it.
    worker: Option<u32>,
}

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self { child, worker: None }
    }

    /// From now on, measures the child of this process.
    pub(crate) fn look_at_worker(&mut self) -> Result<()> {
        let parent = self.child.id().to_string();
        // The socket accepts connections before there is a worker.
        for _ in 0..100 {
            for entry in std::fs::read_dir("/proc")? {
                let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                // The parent is the 2nd field after the name. Processes may appear and disappear.
                if stat(pid).is_ok_and(|fields| fields.get(1) == Some(&parent)) {
                    self.worker = Some(pid);
                    return Ok(());
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err("a server has no worker".into())
    }

    fn id(&self) -> u32 {
        self.worker.unwrap_or(self.child.id())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns the CPU time of all threads so far, in microseconds, in user and in kernel mode.
    pub(crate) fn cpu_time(&self) -> Result<[u64; 2]> {
        // utime and stime are the 12th and 13th field after the name. Linux counts in hundredths of
        // a second.
        let fields = stat(self.id())?;
        let mut fields = fields.iter().skip(11).map(|field| field.parse::<u64>());
        let mut field = || match fields.next() {
            Some(Ok(ticks)) => Ok(ticks * 10_000),
            _ => Err("/proc says nothing of a server's CPU time"),
        };
        Ok([field()?, field()?])
    }

    /// Returns the current memory use in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// Resets the peak memory use.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?)
    }

    /// Returns the peak memory use in MiB.
    pub(crate) fn peak_memory(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: Option<f64> = resident.and_then(|it| it.trim().strip_suffix(" kB")?.parse().ok());
        Ok(kib.ok_or("/proc says nothing of a server's memory")? / 1024.0)
    }
}

/// Returns the fields of `/proc/PID/stat` after the program's name, which may contain anything.
fn stat(pid: u32) -> Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    Ok(fields.split(' ').map(str::to_owned).collect())
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited already.
        match self.worker {
            // If killed, it would leave its worker running.
            Some(_) => drop(Command::new("kill").arg(self.child.id().to_string()).status()),
            None => drop(self.child.kill()),
        }
        let _ = self.child.wait();
    }
}

/// Returns the core for wrk; the servers are on core 0.
pub(crate) fn last_core() -> usize {
    cores() - 1
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns a command that is pinned to a core.
pub(crate) fn on_core(core: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}
