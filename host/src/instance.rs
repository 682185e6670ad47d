//! Running instances of the component, and the pool that hands them out.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt as _, SeedableRng as _};
use wasmtime::component::ResourceAny;
use wasmtime::{Store, StoreLimits, StoreLimitsBuilder};

use crate::bindings::Session;
use crate::bindings::exports::edge::session::engine::{
    Change, Exchange, Guest, Known, Options, Preset, Problem, Request, Step, StoreReply,
};
use crate::bindings::wasi::{clocks::wall_clock, random::random};
use crate::component::{Clock, Component, MAX_MEMORY, TICKS_PER_CALL};

/// What an instance can reach: the time, randomness, and its memory limit.
pub(crate) struct State {
    clock: Clock,
    random: StdRng,
    limits: StoreLimits,
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wall_clock::Datetime {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        wall_clock::Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
    }

    fn resolution(&mut self) -> wall_clock::Datetime {
        wall_clock::Datetime { seconds: 0, nanoseconds: 1 }
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> Vec<u8> {
        // Longer than any honest request for randomness.
        let mut bytes = vec![0; len.min(1 << 16) as usize];
        self.random.fill(bytes.as_mut_slice());
        bytes
    }

    fn get_random_u64(&mut self) -> u64 {
        self.random.random()
    }
}

/// An instance whose engine is open.
struct Instance {
    store: Store<State>,
    session: Session,
    engine: ResourceAny,
}

fn instantiate(component: &Component) -> wasmtime::Result<(Store<State>, Session)> {
    let state = State {
        clock: component.clock.clone(),
        random: StdRng::try_from_rng(&mut SysRng)
            .map_err(|error| wasmtime::Error::msg(format!("no randomness: {error}")))?,
        limits: StoreLimitsBuilder::new().memory_size(MAX_MEMORY).build(),
    };
    let mut store = Store::new(component.pre.engine(), state);
    store.limiter(|state| &mut state.limits);
    store.set_epoch_deadline(TICKS_PER_CALL);
    let session = component.pre.instantiate(&mut store)?;
    Ok((store, session))
}

/// The options that `preset` stands for.
pub(crate) fn defaults(component: &Component, preset: Preset) -> wasmtime::Result<Options> {
    let (mut store, session) = instantiate(component)?;
    session.edge_session_engine().call_defaults(&mut store, preset)
}

/// Why instances cannot be had.
pub(crate) enum OpenError {
    Options(Vec<Problem>),
    Trap(wasmtime::Error),
}

/// Whether an engine can be opened with `options`.
pub(crate) fn check(component: &Component, options: &Options) -> Result<(), OpenError> {
    Instance::open(component, options).map(drop)
}

impl Instance {
    fn open(component: &Component, options: &Options) -> Result<Self, OpenError> {
        let (mut store, session) = instantiate(component).map_err(OpenError::Trap)?;
        let engine = session
            .edge_session_engine()
            .call_open(&mut store, options)
            .map_err(OpenError::Trap)?
            .map_err(OpenError::Options)?;
        Ok(Self { store, session, engine })
    }
}

/// Instances with the same options, one for each thread that calls.
pub(crate) struct Instances {
    component: Component,
    options: Options,
    slots: Box<[Mutex<Option<Instance>>]>,
}

impl Instances {
    pub(crate) fn open(component: Component, options: Options) -> Result<Self, OpenError> {
        // The options are checked here, once, with the first instance.
        let first = Instance::open(&component, &options)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let slots: Box<[_]> = (0..threads).map(|_| Mutex::default()).collect();
        *slots[0].lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        Ok(Self { component, options, slots })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn begin(&self, request: &Request) -> wasmtime::Result<Step> {
        self.call(|guest, engine, store| guest.engine().call_begin(store, engine, request))
    }

    pub(crate) fn finish(
        &self,
        exchange: &Exchange,
        known: &Known,
        change: &Change,
    ) -> wasmtime::Result<Step> {
        self.call(|guest, engine, store| {
            guest.engine().call_finish(store, engine, exchange, known, change)
        })
    }

    pub(crate) fn resume(
        &self,
        exchange: &Exchange,
        known: &Known,
        change: Option<&Change>,
        reply: &StoreReply,
    ) -> wasmtime::Result<Step> {
        self.call(|guest, engine, store| {
            guest.engine().call_resume(store, engine, exchange, known, change, reply)
        })
    }

    /// Call this thread's instance. One that trapped is in no state to be trusted: it is
    /// dropped, and the next call makes a new one.
    fn call<T>(
        &self,
        call: impl FnOnce(&Guest, ResourceAny, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        let slot = &self.slots[thread_number() % self.slots.len()];
        let mut slot = slot.lock().unwrap_or_else(|poisoned| {
            // A panic went through a call: what it left is not to be trusted either.
            slot.clear_poison();
            let mut slot = poisoned.into_inner();
            *slot = None;
            slot
        });
        let instance =
            match &mut *slot {
                Some(instance) => instance,
                empty => empty.insert(Instance::open(&self.component, &self.options).map_err(
                    |error| match error {
                        OpenError::Trap(error) => error,
                        OpenError::Options(_) => {
                            wasmtime::Error::msg("options that were valid are not any more")
                        }
                    },
                )?),
            };
        instance.store.set_epoch_deadline(TICKS_PER_CALL);
        let guest = instance.session.edge_session_engine();
        let result = call(guest, instance.engine, &mut instance.store);
        if result.is_err() {
            *slot = None;
            metrics::counter!("edge_session_component_traps_total").increment(1);
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
