//! Back ends that each parse a request's target in a different way: `tests/node/back-end.mjs`,
//! `tests/python/back_end.py` and `tests/php/index.php`.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Process, checkout, free_port, node, wait_for};

/// A running back end. It answers with its reading of the target: `SECRET` for `/internal` or
/// below, `PUBLIC` for `/public` or below, otherwise `OTHER`; and at `/public/headers` with the
/// headers that it received, as JSON.
pub struct BackEnd {
    _process: Process,
    port: u16,
}

impl BackEnd {
    /// Starts Node: `url` uses `new URL`, `express` uses Express.
    #[track_caller]
    pub fn node(how: &str) -> Self {
        Self::printing_its_port(node::command("back-end.mjs").arg(how))
    }

    /// Starts Python: `raw` uses `urlsplit` on the request line; `bottle` and `flask` use these
    /// frameworks.
    #[track_caller]
    pub fn python(how: &str) -> Self {
        let python = std::env::var_os("EDGE_SESSION_PYTHON").expect(
            "EDGE_SESSION_PYTHON is what scripts/setup python makes: TARGET/tools/python/bin/python",
        );
        let program = checkout().join("tests/python/back_end.py");
        Self::printing_its_port(Command::new(python).arg(program).arg(how))
    }

    /// Starts PHP's built-in server.
    #[track_caller]
    pub fn php() -> Self {
        let port = free_port();
        let mut command = Command::new("php");
        command
            .args(["-S", &format!("127.0.0.1:{port}"), "index.php"])
            .current_dir(checkout().join("tests/php"))
            // It logs every request.
            .stderr(Stdio::null());
        let back_end = Self { _process: Process::start(&mut command), port };
        wait_for("PHP to listen", Duration::from_secs(10), || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        back_end
    }

    #[track_caller]
    fn printing_its_port(command: &mut Command) -> Self {
        let (process, line) = Process::printing(command);
        let port = line.trim().parse().expect("the back end prints its port");
        Self { _process: process, port }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
