//! Runs the logic without HTTP and without a store: for `bench/`, and to compare the component with
//! the native code.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub use edge_session_component::wit;

use wit::{Beginning, Change, Failure, Obstacle, Plan, Request, Stored, Visit};

use crate::engine::{Engine, Kind};
use crate::{Logic, Options, OptionsError};

/// Runs the logic as a [`crate::SessionLayer`] does.
pub struct Runner(Engine);

impl Runner {
    /// Checks the options and creates the first instance.
    pub fn open(logic: impl Into<Logic>, options: &Options) -> Result<Self, OptionsError> {
        Engine::open(logic.into(), options).map(Self)
    }

    /// Begins a request.
    pub fn begin(&self, request: Request) -> Result<Beginning, Failure> {
        self.0.begin(request)
    }

    /// Continues with what the store has loaded.
    pub fn loaded(
        &self,
        visit: Visit,
        loaded: Result<Option<Arc<Stored>>, String>,
    ) -> Result<Beginning, Failure> {
        run(self.0.loaded(visit, loaded))
    }

    /// Decides about the application's change.
    pub fn finish(
        &self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
    ) -> Result<Plan, Failure> {
        run(self.0.finish(visit, stored, change))
    }

    /// Decides again after an obstacle.
    pub fn resume(
        &self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
        at: usize,
        obstacle: Obstacle,
    ) -> Result<Plan, Failure> {
        run(self.0.resume(visit, stored, change, at, obstacle))
    }
}

impl Logic {
    /// Draws the same random numbers every time, so that two runs can be compared.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self(match self.0 {
            #[cfg(feature = "wasmtime")]
            Kind::Component(runtime) => Kind::Component(runtime.with_seed(seed)),
            #[cfg(feature = "native")]
            Kind::Native(system) => Kind::Native(system.with_seed(seed)),
        })
    }
}

/// Runs a call with a small session, which never waits.
fn run<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a call with a small session waits"),
    }
}
