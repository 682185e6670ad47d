//! Loads and compiles `session.wasm`.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::code_cache::CodeCache;
use crate::engine::{Kind, Logic};
use crate::error::{ComponentError, OptionsError};
use crate::instance;
use crate::runtime::{Runtime, engine};
use crate::{InForce, OptionDescription, Options};

/// The version of the contract that this crate speaks.
const VERSION: &str = "0.2.0";

/// The bytes of the bundled component, `session.wasm`, for use with other runtimes, too.
pub const BUNDLED_COMPONENT: &[u8] = include_bytes!("../session.wasm");

/// The session logic, compiled for this machine. Cheap to clone.
#[derive(Clone)]
pub struct Component(pub(crate) Runtime);

impl Component {
    /// Loads the component from the file `path`.
    ///
    /// `cache` keeps the compiled code, so that only the first start compiles. Without a cache
    /// every start compiles, which takes about 0.3 s.
    pub fn from_file(
        path: impl AsRef<Path>,
        cache: Option<&CodeCache>,
    ) -> Result<Self, ComponentError> {
        let path = path.as_ref();
        let unreadable = |source| ComponentError::Unreadable { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Self::compile(&bytes, &path.display().to_string(), cache)
    }

    /// Loads the component from bytes, otherwise as [`Self::from_file`].
    pub fn from_bytes(bytes: &[u8], cache: Option<&CodeCache>) -> Result<Self, ComponentError> {
        Self::compile(bytes, "the input", cache)
    }

    /// Loads and compiles the bundled component, [`BUNDLED_COMPONENT`], in about 0.3 s. To keep the
    /// compiled code, pass the bytes and a cache to [`Self::from_bytes`].
    pub fn bundled() -> Result<Self, ComponentError> {
        Self::compile(BUNDLED_COMPONENT, "the component of this crate", None)
    }

    fn compile(
        bytes: &[u8],
        name: &str,
        cache: Option<&CodeCache>,
    ) -> Result<Self, ComponentError> {
        let name = name.to_owned();
        let reason = |error: wasmtime::Error| format!("{error:#}");
        let refused = |reason: &str| {
            Err(ComponentError::NotAComponent { name: name.clone(), reason: reason.to_owned() })
        };
        // The magic number, then version and layer: a core module has 1 and 0.
        match bytes {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => return refused("it is a core module"),
            [0, b'a', b's', b'm', ..] => {}
            _ => return refused("it does not begin with WebAssembly's magic number"),
        }
        let engine = engine(cache).map_err(|error| ComponentError::Runtime(reason(error)))?;
        let component = match wasmtime::component::Component::from_binary(&engine, bytes) {
            Ok(component) => component,
            Err(error) => {
                return Err(ComponentError::NotAComponent { name, reason: reason(error) });
            }
        };
        if let Some(version) = engine_version(&engine, &component).filter(|it| it != VERSION) {
            return Err(ComponentError::OtherVersion { name, version });
        }
        let made = Runtime::new(&engine, &component).map(Self);
        made.map_err(|error| ComponentError::OtherWorld { name, reason: reason(error) })
    }

    /// Takes the time from `clock` instead of the system: for tests.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(self.0.with_clock(Arc::new(clock)))
    }

    /// Describes all options, with their defaults.
    pub fn options(&self) -> Result<Vec<OptionDescription>, ComponentError> {
        instance::options(&self.0).map_err(|error| ComponentError::Runtime(format!("{error:#}")))
    }

    /// Checks `options`, and returns those in force. The error lists everything that is wrong with
    /// them.
    pub fn check(&self, options: &Options) -> Result<InForce, OptionsError> {
        instance::check(&self.0, options)
    }
}

/// Returns the version of the contract that the component fulfils; none if it is another one.
fn engine_version(
    engine: &wasmtime::Engine,
    component: &wasmtime::component::Component,
) -> Option<String> {
    let exports = component.component_type();
    let mut names = exports.exports(engine).map(|(name, _)| name);
    names.find_map(|name| name.strip_prefix("edge:session/engine@")).map(str::to_owned)
}

impl From<Component> for Logic {
    fn from(component: Component) -> Self {
        Self(Kind::Component(component.0))
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").finish_non_exhaustive()
    }
}
