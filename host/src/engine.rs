//! What decides about sessions: the component, or its source as native code.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use edge_session_component::wit::{
    Beginning, Change, DataChange, Failure, Obstacle, Plan, Request, Stored, Visit,
};

use crate::error::OptionsError;
#[cfg(feature = "wasmtime")]
use crate::instance::Instances;
#[cfg(feature = "native")]
use crate::native::NativeEngine;
use crate::options::{InForce, Options};

/// The source of the time.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The store's answer to a load; the error says why it is unavailable.
pub(crate) type Loaded = Result<Option<Arc<Stored>>, String>;

/// Calls with more bytes of text than this are large: they take milliseconds.
pub(crate) const LARGE: usize = 64 << 10;

/// The session logic: a [`Component`](crate::Component) in its sandbox or, with the feature
/// `native`, [`Native`](crate::Native) code.
#[derive(Clone)]
pub struct Logic(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    #[cfg(feature = "wasmtime")]
    Component(crate::runtime::Runtime),
    #[cfg(feature = "native")]
    Native(crate::native::System),
}

impl std::fmt::Debug for Logic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logic").finish_non_exhaustive()
    }
}

/// A call of the logic. A small one is already done; a large one runs on another thread.
pub(crate) enum Call<T> {
    Done(Option<Result<T, Failure>>),
    Large(Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>),
}

impl<T: Unpin> Future for Call<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Done(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Self::Large(call) => call.as_mut().poll(context),
        }
    }
}

/// The logic with checked options.
pub(crate) enum Engine {
    #[cfg(feature = "wasmtime")]
    Component(Instances),
    #[cfg(feature = "native")]
    Native(NativeEngine),
}

/// Calls the same function of either engine.
macro_rules! of {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            #[cfg(feature = "wasmtime")]
            Self::Component($engine) => $call,
            #[cfg(feature = "native")]
            Self::Native($engine) => $call,
        }
    };
}

impl Engine {
    pub(crate) fn open(logic: Logic, options: &Options) -> Result<Self, OptionsError> {
        match logic.0 {
            #[cfg(feature = "wasmtime")]
            Kind::Component(runtime) => Instances::open(runtime, options).map(Self::Component),
            #[cfg(feature = "native")]
            Kind::Native(system) => NativeEngine::open(system, options).map(Self::Native),
        }
    }

    pub(crate) fn in_force(&self) -> &InForce {
        of!(self, engine => engine.in_force())
    }

    /// Begins a request.
    pub(crate) fn begin(&self, request: Request) -> Result<Beginning, Failure> {
        of!(self, engine => engine.begin(request))
    }

    /// Continues with what the store has loaded.
    pub(crate) fn loaded(&self, visit: Visit, loaded: Loaded) -> Call<Beginning> {
        let bytes = size(loaded.as_ref().map_or(None, Option::as_deref));
        of!(self, engine => engine.sized(bytes, move |it| it.loaded(visit, loaded)))
    }

    /// Decides about the application's change.
    pub(crate) fn finish(
        &self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
    ) -> Call<Plan> {
        let bytes = size(stored.as_deref()) + size_of_change(&change);
        of!(self, engine => engine.sized(bytes, move |it| it.finish(visit, stored, change)))
    }

    /// Decides again after the write `at` has met an obstacle.
    pub(crate) fn resume(
        &self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
        at: usize,
        obstacle: Obstacle,
    ) -> Call<Plan> {
        let current = match &obstacle {
            Obstacle::Conflict(current) => size(Some(current)),
            _ => 0,
        };
        let bytes = size(stored.as_deref()) + size_of_change(&change) + current;
        of!(self, engine => {
            engine.sized(bytes, move |it| it.resume(visit, stored, change, at, obstacle))
        })
    }
}

/// Returns the size of a session's text, in bytes.
fn size(stored: Option<&Stored>) -> usize {
    stored.map_or(0, |it| it.data.len())
}

/// Returns the size of a change's text, in bytes.
fn size_of_change(change: &Change) -> usize {
    match &change.data {
        DataChange::Nothing => 0,
        DataChange::Whole(text) => text.len(),
        DataChange::Edits(edits) => edits
            .iter()
            .map(|edit| edit.key.len() + edit.value.as_ref().map_or(0, String::len))
            .sum(),
    }
}
