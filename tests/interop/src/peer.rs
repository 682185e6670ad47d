//! The running `tests/node/interop.mjs`: the real packages, or the drop-in for express-session.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// What the Node side has for sessions.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(crate) enum Package {
    /// The real one.
    ExpressSession,
    /// `gateways/node`, in its place.
    DropIn,
}

/// A Node process. Dropping it ends the process.
pub(crate) struct Peer {
    calls: AtomicU64,
    waiting: Waiting,
    lines: mpsc::UnboundedSender<String>,
    _child: Child,
}

impl Peer {
    pub(crate) fn start(
        checkout: &Path,
        package: Package,
        store: (&str, &str),
    ) -> Result<Self, String> {
        let directory = checkout.join("tests/node");
        if !directory.join("node_modules/.installed-lock").exists() {
            return Err("npm packages are missing: run scripts/setup node".to_owned());
        }
        let gateway = checkout.join("gateways/node");
        let module = (package == Package::DropIn).then(|| gateway.join("index.cjs"));
        if module.is_some() && !gateway.join("generated").exists() {
            return Err("the drop-in is not built: run npm --prefix gateways/node run build".into());
        }
        let mut child = Command::new("node")
            .arg("interop.mjs")
            .args(module)
            .current_dir(directory)
            .env("STORE", store.0)
            .env("STORE_URL", store.1)
            .env("NO_DEPRECATION", "express-session")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("node cannot be run: {error}"))?;
        let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (lines, mut queue) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let (Some(line), Some(stdin)) = (queue.recv().await, &mut stdin) {
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let waiting = Waiting::default();
        let answers = waiting.clone();
        tokio::spawn(async move {
            let Some(stdout) = stdout else { return };
            let mut stdout = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = stdout.next_line().await {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else {
                    eprintln!("node: {line}");
                    continue;
                };
                let call = answer["call"].as_u64().unwrap_or_default();
                if let Some(waiting) = answers.lock().unwrap().remove(&call) {
                    let _ = waiting.send(answer);
                }
            }
            // Node has exited: no more replies will arrive.
            answers.lock().unwrap().clear();
        });
        Ok(Self { calls: AtomicU64::new(1), waiting, lines, _child: child })
    }

    /// Sends a job to perform at the time `now`.
    pub(crate) async fn call(&self, job: &str, now: u64, mut task: Value) -> Result<Value, String> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let object = task.as_object_mut().ok_or("a task is an object")?;
        object.extend([
            ("call".to_owned(), json!(call)),
            ("job".to_owned(), json!(job)),
            ("now".to_owned(), json!(now)),
        ]);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(call, sender);
        let ended = |_| "node has ended".to_owned();
        self.lines.send(format!("{task}\n")).map_err(|_| "node has ended".to_owned())?;
        let answer = answer.await.map_err(ended)?;
        match answer["failed"].as_str() {
            None => Ok(answer),
            Some(failed) => Err(format!("node: {failed}")),
        }
    }
}
