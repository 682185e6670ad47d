//! Running instances of the component, and the pool that provides them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::Session;
use crate::bindings::exports::edge::session::engine::{
    Change, DataChange, Exchange, Known, Options, Preset, Problem, Request, Step, StoreReply,
    Stored,
};
use crate::error::OptionsError;
use crate::runtime::{Runtime, State, TICKS_PER_CALL};

/// An instance with an open engine.
struct Instance {
    store: Store<State>,
    session: Session,
    engine: ResourceAny,
}

/// Returns the options that `preset` stands for.
pub(crate) fn defaults(runtime: &Runtime, preset: Preset) -> wasmtime::Result<Options> {
    let (mut store, session) = runtime.instantiate()?;
    session.edge_session_engine().call_defaults(&mut store, preset)
}

/// Why an instance cannot be created.
enum OpenError {
    Options(Vec<Problem>),
    Trap(wasmtime::Error),
}

impl From<OpenError> for OptionsError {
    fn from(error: OpenError) -> Self {
        let problems = match error {
            OpenError::Options(problems) => problems,
            OpenError::Trap(error) => vec![Problem {
                name: "component".to_owned(),
                message: format!("failed while checking the options: {error:#}"),
            }],
        };
        Self { problems }
    }
}

/// Checks whether an engine can be opened with `options`.
pub(crate) fn check(runtime: &Runtime, options: &Options) -> Result<(), OptionsError> {
    Instance::open(runtime, options)?;
    Ok(())
}

impl Instance {
    fn open(runtime: &Runtime, options: &Options) -> Result<Self, OpenError> {
        let (mut store, session) = runtime.instantiate().map_err(OpenError::Trap)?;
        let engine = session
            .edge_session_engine()
            .call_open(&mut store, options)
            .map_err(OpenError::Trap)?
            .map_err(OpenError::Options)?;
        Ok(Self { store, session, engine })
    }
}

/// Calls with more bytes of text than this are large: they take milliseconds.
pub(crate) const LARGE: usize = 64 << 10;

/// Returns how many ticks a call with this many bytes of text may take: a hundred times the
/// duration on an idle machine, because other threads compete for the processors.
fn ticks(bytes: usize) -> u64 {
    TICKS_PER_CALL * (1 + (bytes >> 20) as u64 * 2)
}

/// The arguments of a call after the beginning.
pub(crate) struct Work {
    pub(crate) exchange: Exchange,
    pub(crate) known: Known,
    /// The application's change; none before it has run.
    pub(crate) change: Option<Change>,
}

impl Work {
    /// Returns the size of the text, in bytes.
    fn size(&self) -> usize {
        let stored = |stored: &Option<Stored>| stored.as_ref().map_or(0, |it| it.data.len());
        let change = match self.change.as_ref().map(|change| &change.data) {
            None | Some(DataChange::Nothing) => 0,
            Some(DataChange::Whole(text)) => text.len(),
            Some(DataChange::Edits(edits)) => edits
                .iter()
                .map(|edit| edit.key.len() + edit.value.as_ref().map_or(0, String::len))
                .sum(),
        };
        stored(&self.known.loaded) + stored(&self.known.current) + change
    }
}

/// Instances with the same options.
///
/// Each calling thread has an instance, so a call is an ordinary function call that seldom waits
/// for another. Calls with large sessions would block all other calls of their thread. They run on
/// tokio's blocking threads, each with its own instance that is dropped afterwards to free its
/// memory. A semaphore limits them to half of the processors; further ones wait in order, without
/// occupying a thread.
pub(crate) struct Instances(Arc<Shared>);

struct Shared {
    runtime: Runtime,
    options: Options,
    slots: Box<[Mutex<Option<Instance>>]>,
    /// Limits large calls.
    permits: Arc<Semaphore>,
}

impl Instances {
    pub(crate) fn open(runtime: Runtime, options: Options) -> Result<Self, OptionsError> {
        // The first instance checks the options once for all.
        let first = Instance::open(&runtime, &options)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let slots: Box<[_]> = (0..threads).map(|_| Mutex::default()).collect();
        *slots[0].lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        let permits = Arc::new(Semaphore::new((threads / 2).max(1)));
        Ok(Self(Arc::new(Shared { runtime, options, slots, permits })))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn begin(&self, request: &Request) -> wasmtime::Result<Step> {
        self.0.call(|instance| {
            let engine = instance.session.edge_session_engine().engine();
            engine.call_begin(&mut instance.store, instance.engine, request)
        })
    }

    /// Calls as [`Self::finish`] and [`Self::resume`] do, whatever the size: for `bench/`.
    #[cfg(feature = "bench")]
    pub(crate) fn at_once(
        &self,
        exchange: &Exchange,
        known: &Known,
        change: Option<&Change>,
        reply: Option<&StoreReply>,
    ) -> wasmtime::Result<Step> {
        self.0.call(|instance| instance.answer(exchange, known, change, reply))
    }

    /// Finishes an exchange with the application's change.
    pub(crate) async fn finish(&self, work: Work) -> wasmtime::Result<(Work, Step)> {
        self.answer(work, None).await
    }

    /// Resumes an exchange with the store's reply.
    pub(crate) async fn resume(
        &self,
        work: Work,
        reply: StoreReply,
    ) -> wasmtime::Result<(Work, Step)> {
        self.answer(work, Some(reply)).await
    }

    async fn answer(
        &self,
        work: Work,
        reply: Option<StoreReply>,
    ) -> wasmtime::Result<(Work, Step)> {
        let bytes = work.size();
        let call = move |work: Work, instance: &mut Instance| {
            let Work { exchange, known, change } = &work;
            let step = instance.answer(exchange, known, change.as_ref(), reply.as_ref())?;
            Ok((work, step))
        };
        if bytes <= LARGE {
            return self.0.call(|instance| call(work, instance));
        }
        let permit = self.0.permits.clone().acquire_owned().await?;
        let shared = self.0.clone();
        let large = move || {
            // Held until the call ends, even if its caller has gone.
            let _permit = permit;
            let mut instance = shared.instance()?;
            instance.store.set_epoch_deadline(ticks(bytes));
            call(work, &mut instance).inspect_err(|_| count_trap())
        };
        tokio::task::spawn_blocking(large).await?
    }
}

impl Instance {
    /// Passes on the application's change or the store's reply.
    fn answer(
        &mut self,
        exchange: &Exchange,
        known: &Known,
        change: Option<&Change>,
        reply: Option<&StoreReply>,
    ) -> wasmtime::Result<Step> {
        let engine = self.session.edge_session_engine().engine();
        let store = &mut self.store;
        match (reply, change) {
            (Some(reply), _) => {
                engine.call_resume(store, self.engine, exchange, known, change, reply)
            }
            (None, Some(change)) => engine.call_finish(store, self.engine, exchange, known, change),
            (None, None) => Err(wasmtime::Error::msg("there is neither a change nor a reply")),
        }
    }
}

fn count_trap() {
    metrics::counter!("edge_session_component_traps_total").increment(1);
}

impl Shared {
    fn instance(&self) -> wasmtime::Result<Instance> {
        Instance::open(&self.runtime, &self.options).map_err(|error| match error {
            OpenError::Trap(error) => error,
            OpenError::Options(_) => {
                wasmtime::Error::msg("options that were valid before are refused")
            }
        })
    }

    /// Calls this thread's instance. An instance that trapped cannot be trusted: it is dropped, and
    /// the next call creates a new one.
    fn call<T>(
        &self,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        let slot = &self.slots[thread_number() % self.slots.len()];
        let mut slot = slot.lock().unwrap_or_else(|poisoned| {
            // A panic unwound through a call: the instance it left cannot be trusted either.
            slot.clear_poison();
            let mut slot = poisoned.into_inner();
            *slot = None;
            slot
        });
        let instance = match &mut *slot {
            Some(instance) => instance,
            empty => empty.insert(self.instance()?),
        };
        instance.store.set_epoch_deadline(ticks(0));
        let result = call(instance);
        if result.is_err() {
            *slot = None;
            count_trap();
        }
        result
    }
}

/// Returns this thread's number, in the order of first calls.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(Some(new));
            new
        })
    })
}
