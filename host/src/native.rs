//! The component's source, linked as native code: no sandbox, and no limit on memory and time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use edge_session_component::failure::unavailable;
use edge_session_component::wit::{
    Beginning, Change, Failure, Obstacle, Plan, Request, Stored, Visit,
};
use edge_session_component::{Engine, Environment};
use rand::RngExt as _;
#[cfg(feature = "bench")]
use rand::SeedableRng as _;
use rand::TryRng as _;
use rand::rngs::{StdRng, SysRng};

use crate::engine::{Call, Clock, Kind, LARGE, Loaded, Logic};
use crate::error::OptionsError;
use crate::options::{InForce, Options};

/// The session logic as native code, from the same source as the component. Tests compare the two.
///
/// It costs a fraction of the component, and needs no WebAssembly runtime. What a fault in the logic
/// could reach is not limited.
#[derive(Clone)]
pub struct Native(System);

impl Native {
    /// Takes the time from `clock` instead of the system: for tests.
    #[must_use]
    pub fn with_clock(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(System { clock: Arc::new(clock), random: None })
    }
}

impl Default for Native {
    fn default() -> Self {
        Self::with_clock(SystemTime::now)
    }
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").finish_non_exhaustive()
    }
}

impl From<Native> for Logic {
    fn from(native: Native) -> Self {
        Self(Kind::Native(native.0))
    }
}

/// The native logic with checked options.
pub(crate) struct NativeEngine(Arc<Shared>, InForce);

pub(crate) struct Shared {
    engine: Engine,
    system: System,
}

impl Shared {
    pub(crate) fn loaded(&self, visit: Visit, loaded: Loaded) -> Result<Beginning, Failure> {
        let loaded = loaded.as_ref().map(Option::as_deref).map_err(Clone::clone);
        self.engine.loaded(&self.system, visit, loaded)
    }

    pub(crate) fn finish(
        &self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
    ) -> Result<Plan, Failure> {
        self.engine.finish(&self.system, visit, stored.as_deref(), &change)
    }

    pub(crate) fn resume(
        &self,
        visit: Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<Change>,
        at: usize,
        obstacle: Obstacle,
    ) -> Result<Plan, Failure> {
        self.engine.resume(&self.system, visit, stored.as_deref(), &change, at, obstacle)
    }
}

/// The clock and the random source.
#[derive(Clone)]
pub(crate) struct System {
    clock: Clock,
    /// For comparisons; otherwise the numbers are unpredictable.
    random: Option<Arc<Mutex<StdRng>>>,
}

impl System {
    #[cfg(feature = "bench")]
    pub(crate) fn with_seed(self, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random: Some(Arc::new(Mutex::new(random))), ..self }
    }
}

impl Environment for System {
    fn now(&self) -> u64 {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as u64
    }

    fn random(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        match &self.random {
            // Read when it is needed, as for the component.
            None => SysRng.try_fill_bytes(&mut bytes).expect("the system has random numbers"),
            // In the order of the component.
            Some(random) => {
                let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in bytes.chunks_exact_mut(8) {
                    chunk.copy_from_slice(&random.random::<u64>().to_le_bytes());
                }
            }
        }
        bytes
    }
}

impl NativeEngine {
    pub(crate) fn open(system: System, options: &Options) -> Result<Self, OptionsError> {
        let engine =
            Engine::configure(&options.settings()).map_err(|problems| OptionsError { problems })?;
        let in_force = InForce::new(engine.in_force());
        Ok(Self(Arc::new(Shared { engine, system }), in_force))
    }

    pub(crate) fn in_force(&self) -> &InForce {
        &self.1
    }

    pub(crate) fn begin(&self, request: Request) -> Result<Beginning, Failure> {
        Ok(self.0.engine.begin(&self.0.system, &request))
    }

    /// Makes a call. A large one must not delay the other requests of its thread.
    pub(crate) fn sized<T: Send + 'static>(
        &self,
        bytes: usize,
        call: impl FnOnce(&Shared) -> Result<T, Failure> + Send + 'static,
    ) -> Call<T> {
        if bytes <= LARGE {
            return Call::Done(Some(call(&self.0)));
        }
        let shared = self.0.clone();
        Call::Large(Box::pin(async move {
            let answer = tokio::task::spawn_blocking(move || call(&shared)).await;
            answer.unwrap_or_else(|error| Err(unavailable(format!("a call failed: {error}"))))
        }))
    }
}
