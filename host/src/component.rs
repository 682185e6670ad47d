//! `session.wasm`, loaded and compiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::{Session, SessionPre};
use crate::code_cache::CodeCache;
use crate::instance::State;
use crate::sessions::OptionsError;
use crate::{Options, Preset};

/// How often time is looked at while the component runs.
const TICK: Duration = Duration::from_millis(10);

/// A call into the component that takes this long is ended: one takes microseconds.
pub(crate) const TICKS_PER_CALL: u64 = 20;

/// The most memory that one instance may use. A session passes through it a few times.
pub(crate) const MAX_MEMORY: usize = 128 << 20;

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The file cannot be read.
    #[error("cannot read the component {path}: {source}. It is made by `make component`")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is something else than a component.
    #[error("{path} is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// Which file.
        path: PathBuf,
        /// What the compiler says.
        reason: String,
    },
    /// A component, but not one of the world `edge:session/session`.
    #[error(
        "{path} is a component of another world: {reason}. Expected is one that exports \
         edge:session/engine@0.1.0 and imports nothing but wasi:clocks/wall-clock@0.2 and \
         wasi:random/random@0.2"
    )]
    OtherWorld {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The engine that runs components cannot be set up on this machine.
    #[error("cannot set up WebAssembly on this machine: {0}")]
    Runtime(String),
}

/// The session logic, compiled for this machine. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    pub(crate) pre: SessionPre<State>,
    pub(crate) clock: Clock,
}

/// Where the component's time comes from.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

impl Component {
    /// Load the component in the file `path`.
    ///
    /// The compiled code is kept in `cache`, so that only the first start compiles; none: it is
    /// compiled at every start, which takes about 0.3 s.
    pub fn from_file(
        path: impl AsRef<Path>,
        cache: Option<&CodeCache>,
    ) -> Result<Self, ComponentError> {
        let path = path.as_ref();
        let unreadable = |source| ComponentError::Unreadable { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Self::from_bytes(&bytes, path, cache)
    }

    fn from_bytes(
        bytes: &[u8],
        path: &Path,
        cache: Option<&CodeCache>,
    ) -> Result<Self, ComponentError> {
        let path = path.to_owned();
        let reason = |error: wasmtime::Error| format!("{error:#}");
        let refused = |reason: &str| {
            Err(ComponentError::NotAComponent { path: path.clone(), reason: reason.to_owned() })
        };
        // The magic number, and then the version and layer: 1 and 0 are a core module's.
        match bytes {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => return refused("it is a core module"),
            [0, b'a', b's', b'm', ..] => {}
            _ => return refused("it does not begin as WebAssembly does"),
        }
        let engine = engine(cache).map_err(|error| ComponentError::Runtime(reason(error)))?;
        let component = match wasmtime::component::Component::from_binary(&engine, bytes) {
            Ok(component) => component,
            Err(error) => {
                return Err(ComponentError::NotAComponent { path, reason: reason(error) });
            }
        };
        let mut linker = Linker::new(&engine);
        Session::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |state| state)
            .map_err(|error| ComponentError::Runtime(reason(error)))?;
        let pre = linker.instantiate_pre(&component).and_then(SessionPre::new);
        let made = pre.and_then(|pre| {
            let made = Self { pre, clock: Arc::new(SystemTime::now) };
            // The functions' types are compared at the first call.
            crate::instance::defaults(&made, Preset::Safe)?;
            Ok(made)
        });
        made.map_err(|error| ComponentError::OtherWorld { path, reason: reason(error) })
    }

    /// Take the time from `clock` instead of the system: for tests.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The options that a preset stands for. `secrets` is empty and must be set.
    pub fn defaults(&self, preset: Preset) -> Result<Options, ComponentError> {
        crate::instance::defaults(self, preset)
            .map_err(|error| ComponentError::Runtime(format!("{error:#}")))
    }

    /// Everything that is wrong with `options`.
    pub fn check(&self, options: &Options) -> Result<(), OptionsError> {
        crate::instance::check(self, options).map_err(OptionsError::from)
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").finish_non_exhaustive()
    }
}

/// An engine for synchronous components: without support for concurrency inside the
/// component, a call is several times cheaper.
fn engine(cache: Option<&CodeCache>) -> wasmtime::Result<wasmtime::Engine> {
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
            Err(error) => tracing::warn!("compiled code is not kept: {error:#}"),
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
        .map_err(|error| wasmtime::Error::msg(format!("no thread: {error}")))?;
    Ok(engine)
}
