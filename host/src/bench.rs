//! Runs the component without HTTP and without a store, for `bench/` only.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub use edge_session_component::wit;

use crate::engine::Engine;
use crate::{Logic, Options, OptionsError};

/// Runs the component as a [`crate::SessionLayer`] does. Panics where the layer would answer with
/// an error.
pub struct Runner(Engine);

const SUCCEEDED: &str = "the request succeeds";

impl Runner {
    /// Checks the options and creates the first instance.
    pub fn open(logic: impl Into<Logic>, options: Options) -> Result<Self, OptionsError> {
        Ok(Self(Engine::open(logic.into(), &options)?))
    }

    /// Begins a request.
    pub fn begin(&self, request: wit::Request) -> wit::Beginning {
        self.0.begin(request).expect(SUCCEEDED)
    }

    /// Continues after the store has loaded a session.
    pub fn loaded(&self, visit: wit::Visit, stored: Arc<wit::Stored>) -> wit::Beginning {
        run(self.0.loaded(visit, Ok(Some(stored))))
    }

    /// Decides about the application's change.
    pub fn finish(
        &self,
        visit: wit::Visit,
        stored: Option<Arc<wit::Stored>>,
        change: Arc<wit::Change>,
    ) -> wit::Plan {
        run(self.0.finish(visit, stored, change))
    }
}

/// Runs a call with a small session, which never waits.
fn run<T>(call: impl Future<Output = Result<T, wit::Failure>>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.expect(SUCCEEDED),
        Poll::Pending => panic!("a call with a small session waits"),
    }
}
