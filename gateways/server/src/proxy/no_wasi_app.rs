//! In place of `wasi_app` in a program that was built without the feature `app`.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use axum::body::Body;
use http::{Request, Response};

use super::body::Progress;
use super::refusal::Refusal;

/// An application that is a component. There is none.
pub(crate) enum App {}

impl App {
    /// Fails, since such an application cannot be run.
    pub(crate) fn load(_: &Path, _: Duration) -> anyhow::Result<Self> {
        bail!(
            "this program was built without the feature `app`, which runs applications that are \
             components: build it with `cargo build --release -p edge-session-server`"
        )
    }

    pub(crate) async fn answer(
        &self,
        _: Request<Body>,
        _: bool,
        _: &Progress,
    ) -> Result<Response<Body>, Refusal> {
        match *self {}
    }
}
