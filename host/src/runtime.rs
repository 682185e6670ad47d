//! wasmtime, configured for the component: the engine, what an instance can access, and its
//! functions.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use edge_session_component::wit::{
    Beginning, Change, Failure, Obstacle, OptionDescription, Plan, Problem, Request, Setting,
    Stored, Visit,
};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt as _, SeedableRng as _, TryRng as _};
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, ComponentType, InstancePre, Lift, Linker, Lower,
    TypedFunc,
};
use wasmtime::{
    Cache, CacheConfig, Config, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    StoreLimits, StoreLimitsBuilder, UpdateDeadline,
};

use crate::code_cache::CodeCache;
use crate::engine::{Clock, Loaded};

/// The interval between ticks.
const TICK: Duration = Duration::from_millis(10);

/// A call into the component that takes more ticks is aborted; a normal call takes microseconds.
/// Ticks count only while the call runs: a call is not aborted because its thread, or the machine,
/// was stopped for a while.
pub(crate) const TICKS_PER_CALL: u64 = 20;

/// The maximum memory of one instance. The component copies a session a few times.
const MAX_MEMORY: usize = 128 << 20;

/// The interface that the component exports.
const INTERFACE: &str = "edge:session/engine@0.2.0";

/// The component, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runtime {
    pre: InstancePre<State>,
    exports: Exports,
    clock: Clock,
    /// For comparisons; otherwise the numbers are unpredictable.
    seed: Option<u64>,
}

/// Where the functions are in the component.
#[derive(Clone, Copy)]
struct Exports {
    options: ComponentExportIndex,
    configure: ComponentExportIndex,
    begin: ComponentExportIndex,
    loaded: ComponentExportIndex,
    finish: ComponentExportIndex,
    resume: ComponentExportIndex,
}

/// A function that may fail.
type Fallible<Arguments, Answer> = TypedFunc<Arguments, (Result<Answer, Failure>,)>;

/// The answer of `configure`.
type Configured = Result<Vec<Setting>, Vec<Problem>>;

/// The arguments of `finish` and of `resume`.
type Finish = (Visit, Option<Arc<Stored>>, Arc<Change>);
type Resume = (Visit, Option<Arc<Stored>>, Arc<Change>, u32, Obstacle);

/// The functions of an instance. Arguments that are needed again are shared.
pub(crate) struct Functions {
    pub(crate) options: TypedFunc<(), (Vec<OptionDescription>,)>,
    pub(crate) configure: TypedFunc<(Arc<Vec<Setting>>,), (Configured,)>,
    pub(crate) begin: Fallible<(Request,), Beginning>,
    pub(crate) loaded: Fallible<(Visit, Loaded), Beginning>,
    pub(crate) finish: Fallible<Finish, Plan>,
    pub(crate) resume: Fallible<Resume, Plan>,
}

impl Runtime {
    /// Connects a component with its imports. Fails if it is not one of the contract.
    pub(crate) fn new(
        engine: &wasmtime::Engine,
        component: &wasmtime::component::Component,
    ) -> wasmtime::Result<Self> {
        let interface = component.get_export_index(None, INTERFACE);
        let interface = interface
            .ok_or_else(|| wasmtime::Error::msg(format!("it does not export {INTERFACE}")))?;
        let index = |name: &str| {
            component
                .get_export_index(Some(&interface), name)
                .ok_or_else(|| wasmtime::Error::msg(format!("it does not export `{name}`")))
        };
        let exports = Exports {
            options: index("options")?,
            configure: index("configure")?,
            begin: index("begin")?,
            loaded: index("loaded")?,
            finish: index("finish")?,
            resume: index("resume")?,
        };
        let pre = linker(engine)?.instantiate_pre(component)?;
        let runtime = Self { pre, exports, clock: Arc::new(SystemTime::now), seed: None };
        // Compares the types of all functions.
        runtime.instantiate()?;
        Ok(runtime)
    }

    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    #[cfg(feature = "bench")]
    pub(crate) fn with_seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Creates an instance with its own memory.
    pub(crate) fn instantiate(&self) -> wasmtime::Result<(Store<State>, Functions)> {
        let state = State {
            clock: self.clock.clone(),
            random: self.seed.map(StdRng::seed_from_u64),
            limits: StoreLimitsBuilder::new().memory_size(MAX_MEMORY).build(),
            ticks: 0,
        };
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| {
            let left = &mut store.data_mut().ticks;
            *left = left.checked_sub(1).ok_or(wasmtime::Trap::Interrupt)?;
            Ok(UpdateDeadline::Continue(1))
        });
        allow(&mut store, TICKS_PER_CALL);
        let instance = self.pre.instantiate(&mut store)?;
        let Exports { options, configure, begin, loaded, finish, resume } = self.exports;
        fn typed<Params, Return>(
            instance: &wasmtime::component::Instance,
            store: &mut Store<State>,
            index: ComponentExportIndex,
        ) -> wasmtime::Result<TypedFunc<Params, Return>>
        where
            Params: ComponentNamedList + Lower,
            Return: ComponentNamedList + Lift,
        {
            instance.get_typed_func(store, index)
        }
        let functions = Functions {
            options: typed(&instance, &mut store, options)?,
            configure: typed(&instance, &mut store, configure)?,
            begin: typed(&instance, &mut store, begin)?,
            loaded: typed(&instance, &mut store, loaded)?,
            finish: typed(&instance, &mut store, finish)?,
            resume: typed(&instance, &mut store, resume)?,
        };
        Ok((store, functions))
    }
}

/// What an instance can access: the time, randomness, and its memory limit.
pub(crate) struct State {
    clock: Clock,
    /// For comparisons; otherwise the numbers are the system's.
    random: Option<StdRng>,
    limits: StoreLimits,
    /// How many more ticks the call may take.
    ticks: u64,
}

/// Sets how many ticks the next call may take.
pub(crate) fn allow(store: &mut Store<State>, ticks: u64) {
    store.data_mut().ticks = ticks;
    store.set_epoch_deadline(1);
}

/// The record of `wasi:clocks/wall-clock`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Returns a linker with the two functions that the component imports.
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::<State>::new(engine);
    linker.instance("wasi:clocks/wall-clock@0.2.0")?.func_wrap("now", |store, (): ()| {
        let now = (store.data().clock)();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok((Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() },))
    })?;
    linker.instance("wasi:random/random@0.2.0")?.func_wrap(
        "get-random-u64",
        |mut store: wasmtime::StoreContextMut<'_, State>, (): ()| {
            let number = match &mut store.data_mut().random {
                Some(random) => random.random::<u64>(),
                // Read when it is needed: a process that forks, or is restored twice from one
                // snapshot, repeats nothing.
                None => SysRng.try_next_u64().map_err(|error| {
                    wasmtime::Error::msg(format!("the system has no random numbers: {error}"))
                })?,
            };
            Ok((number,))
        },
    )?;
    Ok(linker)
}

/// Creates an engine for synchronous components: without concurrency inside the component, a call
/// is several times cheaper.
pub(crate) fn engine(cache: Option<&CodeCache>) -> wasmtime::Result<wasmtime::Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.max_memory_size(MAX_MEMORY).linear_memory_keep_resident(1 << 20);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .epoch_interruption(true);
    if let Some(cache) = cache {
        let mut settings = CacheConfig::new();
        settings.with_directory(cache.directory());
        match Cache::new(settings) {
            Ok(cache) => {
                config.cache(Some(cache));
            }
            Err(error) => tracing::warn!("compiled code is not cached: {error:#}"),
        }
    }
    let engine = wasmtime::Engine::new(&config)?;
    let ticking = engine.weak();
    thread::Builder::new()
        .name("edge-session-ticks".to_owned())
        .spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })
        .map_err(|error| wasmtime::Error::msg(format!("cannot start a thread: {error}")))?;
    Ok(engine)
}
