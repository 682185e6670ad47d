//! Running instances of the component, and the pool that provides them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use edge_session_component::wit::{
    Beginning, Change, Failure, Obstacle, OptionDescription, Plan, Problem, Request, Setting,
    Stored, Visit,
};
use tokio::sync::Semaphore;
use wasmtime::Store;

use crate::engine::{Call, LARGE, Loaded};
use crate::error::{OptionsError, trapped};
use crate::options::{InForce, Options};
use crate::runtime::{Functions, Runtime, State, TICKS_PER_CALL, allow};

/// A configured instance.
pub(crate) struct Instance {
    store: Store<State>,
    functions: Functions,
}

/// Describes the component's options.
pub(crate) fn options(runtime: &Runtime) -> wasmtime::Result<Vec<OptionDescription>> {
    let (mut store, functions) = runtime.instantiate()?;
    functions.options.call(&mut store, ()).map(|(options,)| options)
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
    let (_, in_force) = Instance::configured(runtime, &Arc::new(options.settings()))?;
    Ok(InForce::new(in_force))
}

impl Instance {
    /// Creates an instance and returns it with the options in force.
    fn configured(
        runtime: &Runtime,
        settings: &Arc<Vec<Setting>>,
    ) -> Result<(Self, Vec<Setting>), OpenError> {
        let (mut store, functions) = runtime.instantiate().map_err(OpenError::Trap)?;
        let configured = functions.configure.call(&mut store, (settings.clone(),));
        let (in_force,) = configured.map_err(OpenError::Trap)?;
        Ok((Self { store, functions }, in_force.map_err(OpenError::Options)?))
    }
}

/// The answer of a function; the outer error is a trap.
type Called<T> = wasmtime::Result<(Result<T, Failure>,)>;

impl Instance {
    pub(crate) fn loaded(&mut self, visit: Visit, loaded: Loaded) -> Called<Beginning> {
        self.functions.loaded.call(&mut self.store, (visit, loaded))
    }

    pub(crate) fn finish(
        &mut self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
    ) -> Called<Plan> {
        self.functions.finish.call(&mut self.store, (visit, stored, change))
    }

    pub(crate) fn resume(
        &mut self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
        at: usize,
        obstacle: Obstacle,
    ) -> Called<Plan> {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.functions.resume.call(&mut self.store, (visit, stored, change, at, obstacle))
    }
}

/// Returns how many ticks a call with this many bytes of text may take: a hundred times the
/// duration on an idle machine, because other threads compete for the processors.
fn ticks(bytes: usize) -> u64 {
    TICKS_PER_CALL * (1 + (bytes >> 20) as u64 * 2)
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
    settings: Arc<Vec<Setting>>,
    in_force: InForce,
    slots: Box<[Mutex<Option<Instance>>]>,
    /// Limits large calls.
    permits: Arc<Semaphore>,
}

impl Instances {
    pub(crate) fn open(runtime: Runtime, options: &Options) -> Result<Self, OptionsError> {
        // The first instance checks the options once for all.
        let settings = Arc::new(options.settings());
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

    pub(crate) fn begin(&self, request: Request) -> Result<Beginning, Failure> {
        let begun = self.0.call(|it| it.functions.begin.call(&mut it.store, (request,)));
        begun.map_or_else(|error| Err(trapped(&error)), |(begun,)| begun)
    }

    /// Makes a call with this many bytes of text.
    pub(crate) fn sized<T: Send + 'static>(
        &self,
        bytes: usize,
        call: impl FnOnce(&mut Instance) -> Called<T> + Send + 'static,
    ) -> Call<T> {
        let flat = |answer: Called<T>| {
            answer.map_or_else(|error| Err(trapped(&error)), |(answer,)| answer)
        };
        if bytes <= LARGE {
            return Call::Done(Some(flat(self.0.call(call))));
        }
        let shared = self.0.clone();
        Call::Large(Box::pin(async move {
            let permit = shared.permits.clone().acquire_owned().await;
            let permit = permit.map_err(|error| trapped(&error))?;
            let large = move || {
                // Held until the call ends, even if its caller has gone.
                let _permit = permit;
                let mut instance = shared.instance()?;
                allow(&mut instance.store, ticks(bytes));
                call(&mut instance).inspect_err(|_| count_trap())
            };
            let answer = tokio::task::spawn_blocking(large).await;
            flat(answer.map_err(|error| trapped(&error))?)
        }))
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
        allow(&mut instance.store, ticks(0));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::SystemTime;

    use super::*;
    use crate::{BUNDLED_COMPONENT, runtime};

    fn options() -> Options {
        let mut options = Options::default();
        options.secret("a secret for tests, long enough to sign with");
        options
    }

    fn request() -> Request {
        Request {
            cookies: Vec::new(),
            path: "/".to_owned(),
            tls: false,
            secure: false,
            forwarded_proto: None,
        }
    }

    /// The clock is read in the middle of a call.
    #[test]
    fn a_call_is_not_aborted_because_the_machine_was_stopped_meanwhile() {
        let engine = runtime::engine(None).unwrap();
        let component = wasmtime::component::Component::new(&engine, BUNDLED_COMPONENT).unwrap();
        let ticking = engine.clone();
        let was_read = Arc::new(AtomicBool::new(false));
        let read = was_read.clone();
        let clock = move || {
            read.store(true, Ordering::Relaxed);
            for _ in 0..100 * TICKS_PER_CALL {
                ticking.increment_epoch();
            }
            SystemTime::now()
        };
        let runtime = Runtime::new(&engine, &component).unwrap().with_clock(Arc::new(clock));
        let instances = Instances::open(runtime, &options()).unwrap();
        instances.begin(request()).unwrap();
        assert!(was_read.load(Ordering::Relaxed), "the call went by the clock");
    }

    #[test]
    fn a_call_that_has_had_its_ticks_is_aborted_and_the_next_one_works() {
        let engine = runtime::engine(None).unwrap();
        let component = wasmtime::component::Component::new(&engine, BUNDLED_COMPONENT).unwrap();
        let runtime = Runtime::new(&engine, &component).unwrap();
        let instances = Instances::open(runtime, &options()).unwrap();
        for (ticks, is_aborted) in [(TICKS_PER_CALL, false), (0, true)] {
            let called = instances.0.call(|it| {
                allow(&mut it.store, ticks);
                engine.increment_epoch();
                it.functions.options.call(&mut it.store, ())
            });
            assert_eq!(called.is_err(), is_aborted, "{ticks} ticks");
            if let Err(error) = called {
                assert_eq!(trapped(&error).status, 503);
                let trap = error.downcast_ref::<wasmtime::Trap>();
                assert_eq!(trap, Some(&wasmtime::Trap::Interrupt));
            }
            instances.begin(request()).unwrap();
        }
    }
}
