//! wasmtime, configured for the component: the engine, and what an instance can access.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt as _, SeedableRng as _};
use wasmtime::{
    Cache, CacheConfig, Config, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    StoreLimits, StoreLimitsBuilder,
};

use crate::bindings::wasi::{clocks::wall_clock, random::random};
use crate::bindings::{Session, SessionPre};
use crate::code_cache::CodeCache;

/// The interval at which a running call is checked against its deadline.
const TICK: Duration = Duration::from_millis(10);

/// A call into the component that takes this many ticks is aborted; a normal call takes
/// microseconds.
pub(crate) const TICKS_PER_CALL: u64 = 20;

/// The maximum memory of one instance. The component copies a session a few times.
pub(crate) const MAX_MEMORY: usize = 128 << 20;

/// The source of the component's time.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The component, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub(crate) pre: SessionPre<State>,
    pub(crate) clock: Clock,
}

impl Runtime {
    /// Creates an instance with its own memory and source of randomness.
    pub(crate) fn instantiate(&self) -> wasmtime::Result<(Store<State>, Session)> {
        let state = State {
            clock: self.clock.clone(),
            random: StdRng::try_from_rng(&mut SysRng)
                .map_err(|error| wasmtime::Error::msg(format!("no random numbers: {error}")))?,
            limits: StoreLimitsBuilder::new().memory_size(MAX_MEMORY).build(),
        };
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(TICKS_PER_CALL);
        let session = self.pre.instantiate(&mut store)?;
        Ok((store, session))
    }
}

/// What an instance can access: the time, randomness, and its memory limit.
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
        // Bounds a request for randomness; valid ones are shorter.
        let mut bytes = vec![0; len.min(1 << 16) as usize];
        self.random.fill(bytes.as_mut_slice());
        bytes
    }

    fn get_random_u64(&mut self) -> u64 {
        self.random.random()
    }
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
