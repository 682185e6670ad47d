//! Running instances of the component, and the pool that provides them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use wasmtime::Store;
use crate::bindings::Session;
use crate::bindings::exports::edge::session::engine::{
    Beginning, Change, DataChange, Failure, Obstacle, OptionDescription, Plan, Problem, Request,
    Setting, Stored, Visit,
};
use crate::error::{OptionsError, trapped};
use crate::options::{InForce, Options};
use crate::runtime::{Runtime, State, TICKS_PER_CALL};

/// A configured instance.
pub(crate) struct Instance {
    store: Store<State>,
    session: Session,
}

/// Describes the component's options.
pub(crate) fn options(runtime: &Runtime) -> wasmtime::Result<Vec<OptionDescription>> {
    let (mut store, session) = runtime.instantiate()?;
    session.edge_session_engine().call_options(&mut store)
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

/// Checks `options`, and returns those in force.
pub(crate) fn check(runtime: &Runtime, options: &Options) -> Result<InForce, OptionsError> {
    let (_, in_force) = Instance::configured(runtime, &options.settings())?;
    Ok(InForce::new(in_force))
}

impl Instance {
    /// Creates an instance and returns it with the options in force.
    fn configured(
        runtime: &Runtime,
        settings: &[Setting],
    ) -> Result<(Self, Vec<Setting>), OpenError> {
        let (mut store, session) = runtime.instantiate().map_err(OpenError::Trap)?;
        let in_force = session
            .edge_session_engine()
            .call_configure(&mut store, settings)
            .map_err(OpenError::Trap)?
            .map_err(OpenError::Options)?;
        Ok((Self { store, session }, in_force))
    }
}

/// Calls with more bytes of text than this are large: they take milliseconds.
pub(crate) const LARGE: usize = 64 << 10;

/// Returns how many ticks a call with this many bytes of text may take: a hundred times the
/// duration on an idle machine, because other threads compete for the processors.
fn ticks(bytes: usize) -> u64 {
    TICKS_PER_CALL * (1 + (bytes >> 20) as u64 * 2)
}

/// The arguments of a call after the application has finished.
pub(crate) struct Work {
    pub(crate) visit: Visit,
    /// The session as it was loaded.
    pub(crate) stored: Option<Arc<Stored>>,
    /// The application's change.
    pub(crate) change: Change,
}

impl Work {
    /// Returns the size of the text, in bytes.
    fn size(&self) -> usize {
        let stored = self.stored.as_ref().map_or(0, |it| it.data.len());
        let change = match &self.change.data {
            DataChange::Nothing => 0,
            DataChange::Whole(text) => text.len(),
            DataChange::Edits(edits) => edits
                .iter()
                .map(|edit| edit.key.len() + edit.value.as_ref().map_or(0, String::len))
                .sum(),
        };
        stored + change
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
    settings: Vec<Setting>,
    in_force: InForce,
    slots: Box<[Mutex<Option<Instance>>]>,
    /// Limits large calls.
    permits: Arc<Semaphore>,
}

impl Instances {
    pub(crate) fn open(runtime: Runtime, options: &Options) -> Result<Self, OptionsError> {
        // The first instance checks the options once for all.
        let settings = options.settings();
        let (first, in_force) = Instance::configured(&runtime, &settings)?;
        let in_force = InForce::new(in_force);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let slots: Box<[_]> = (0..threads).map(|_| Mutex::default()).collect();
        *slots[0].lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        let permits = Arc::new(Semaphore::new((threads / 2).max(1)));
        Ok(Self(Arc::new(Shared { runtime, settings, in_force, slots, permits })))
    }

    pub(crate) fn in_force(&self) -> &InForce {
        &self.0.in_force
    }

    /// Begins a request.
    pub(crate) fn begin(&self, request: &Request) -> Result<Beginning, Failure> {
        let begun = self.0.call(|instance| {
            instance.session.edge_session_engine().call_begin(&mut instance.store, request)
        });
        begun.unwrap_or_else(|error| Err(trapped(&error)))
    }

    /// Continues with what the store has loaded, or the reason why it is unavailable.
    pub(crate) async fn loaded(
        &self,
        visit: Visit,
        loaded: Result<Option<Arc<Stored>>, String>,
    ) -> Result<Beginning, Failure> {
        let bytes = match &loaded {
            Ok(Some(stored)) => stored.data.len(),
            Ok(None) | Err(_) => 0,
        };
        let call = move |instance: &mut Instance| instance.loaded(&visit, &loaded);
        self.sized(bytes, call).await?
    }

    /// Decides about the application's change.
    pub(crate) async fn finish(&self, work: Work) -> Result<(Work, Plan), Failure> {
        let bytes = work.size();
        let call = move |instance: &mut Instance| {
            let plan = instance.finish(&work.visit, work.stored.as_deref(), &work.change)?;
            Ok(plan.map(|plan| (work, plan)))
        };
        self.sized(bytes, call).await?
    }

    /// Decides again after the write `at` has met an obstacle, which is returned.
    pub(crate) async fn resume(
        &self,
        work: Work,
        at: usize,
        obstacle: Obstacle,
    ) -> Result<(Work, Plan, Obstacle), Failure> {
        let bytes = work.size() + match &obstacle {
            Obstacle::Conflict(current) => current.data.len(),
            _ => 0,
        };
        let call = move |instance: &mut Instance| {
            let plan = instance.resume(&work, at, &obstacle)?;
            Ok(plan.map(|plan| (work, plan, obstacle)))
        };
        self.sized(bytes, call).await?
    }

    /// Makes a call with this many bytes of text.
    async fn sized<T: Send + 'static>(
        &self,
        bytes: usize,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        if bytes <= LARGE {
            return self.0.call(call).map_err(|error| trapped(&error));
        }
        let permit = self.0.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|error| trapped(&error))?;
        let shared = self.0.clone();
        let large = move || {
            // Held until the call ends, even if its caller has gone.
            let _permit = permit;
            let mut instance = shared.instance()?;
            instance.store.set_epoch_deadline(ticks(bytes));
            call(&mut instance).inspect_err(|_| count_trap())
        };
        let answer = tokio::task::spawn_blocking(large).await.map_err(|error| trapped(&error))?;
        answer.map_err(|error| trapped(&error))
    }

    /// Calls as the others do, whatever the size: for `bench/`.
    #[cfg(feature = "bench")]
    pub(crate) fn at_once<T>(
        &self,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        self.0.call(call)
    }
}

impl Instance {
    pub(crate) fn loaded(
        &mut self,
        visit: &Visit,
        loaded: &Result<Option<Arc<Stored>>, String>,
    ) -> wasmtime::Result<Result<Beginning, Failure>> {
        let loaded = loaded.as_ref().map(Option::as_deref).map_err(String::as_str);
        self.session.edge_session_engine().call_loaded(&mut self.store, visit, loaded)
    }

    pub(crate) fn finish(
        &mut self,
        visit: &Visit,
        stored: Option<&Stored>,
        change: &Change,
    ) -> wasmtime::Result<Result<Plan, Failure>> {
        let engine = self.session.edge_session_engine();
        engine.call_finish(&mut self.store, visit, stored, change)
    }

    fn resume(
        &mut self,
        work: &Work,
        at: usize,
        obstacle: &Obstacle,
    ) -> wasmtime::Result<Result<Plan, Failure>> {
        let Work { visit, stored, change } = work;
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let engine = self.session.edge_session_engine();
        engine.call_resume(&mut self.store, visit, stored.as_deref(), change, at, obstacle)
    }
}

fn count_trap() {
    metrics::counter!("edge_session_component_traps_total").increment(1);
}

impl Shared {
    fn instance(&self) -> wasmtime::Result<Instance> {
        let configured = Instance::configured(&self.runtime, &self.settings);
        configured.map(|(instance, _)| instance).map_err(|error| match error {
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
