//! Running instances of the component, and the pool that hands them out.

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

/// An instance whose engine is open.
struct Instance {
    store: Store<State>,
    session: Session,
    engine: ResourceAny,
}

/// The options that `preset` stands for.
pub(crate) fn defaults(runtime: &Runtime, preset: Preset) -> wasmtime::Result<Options> {
    let (mut store, session) = runtime.instantiate()?;
    session.edge_session_engine().call_defaults(&mut store, preset)
}

/// Why instances cannot be had.
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
                message: format!("failed while it checked the options: {error:#}"),
            }],
        };
        Self { problems }
    }
}

/// Whether an engine can be opened with `options`.
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

/// Calls with more text than this, in bytes, are large: they take milliseconds.
pub(crate) const LARGE: usize = 64 << 10;

/// How long a call with so many bytes of text may take, in ticks: a hundred times what it
/// takes on an idle machine, since other threads want the processors, too.
fn ticks(bytes: usize) -> u64 {
    TICKS_PER_CALL * (1 + (bytes >> 20) as u64 * 2)
}

/// What a call after the beginning is about.
pub(crate) struct Work {
    pub(crate) exchange: Exchange,
    pub(crate) known: Known,
    /// What the application did; none before it.
    pub(crate) change: Option<Change>,
}

impl Work {
    /// How much text there is, in bytes.
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
/// There is one for each thread that calls, so that a call is an ordinary function call and
/// seldom waits for another. Calls about large sessions would hold up all others of their
/// thread. They are made on tokio's threads for blocking work, each with an instance of its
/// own that is given up afterwards, together with its memory; and so few at once that half of
/// the processors remain for the others. Beyond that they wait, in their order, without a
/// thread.
pub(crate) struct Instances(Arc<Shared>);

struct Shared {
    runtime: Runtime,
    options: Options,
    slots: Box<[Mutex<Option<Instance>>]>,
    /// For large calls.
    permits: Arc<Semaphore>,
}

impl Instances {
    pub(crate) fn open(runtime: Runtime, options: Options) -> Result<Self, OptionsError> {
        // The options are checked here, once, with the first instance.
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

    /// As [`Self::finish`] and [`Self::resume`], whatever the size: for `bench/`.
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

    /// The application is done.
    pub(crate) async fn finish(&self, work: Work) -> wasmtime::Result<(Work, Step)> {
        self.answer(work, None).await
    }

    /// The store has replied.
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
            // Until it is over, also when nobody waits for it any more.
            let _permit = permit;
            let mut instance = shared.instance()?;
            instance.store.set_epoch_deadline(ticks(bytes));
            call(work, &mut instance).inspect_err(|_| count_trap())
        };
        tokio::task::spawn_blocking(large).await?
    }
}

impl Instance {
    /// After the beginning: to the application's change, or to the store's reply.
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
            (None, None) => Err(wasmtime::Error::msg("there is nothing to be answered")),
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
                wasmtime::Error::msg("options that were valid are not any more")
            }
        })
    }

    /// Call this thread's instance. One that trapped is in no state to be trusted: it is
    /// dropped, and the next call makes a new one.
    fn call<T>(
        &self,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        let slot = &self.slots[thread_number() % self.slots.len()];
        let mut slot = slot.lock().unwrap_or_else(|poisoned| {
            // A panic went through a call: what it left is not to be trusted either.
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

/// Threads numbered in the order in which they first came here.
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
