//! Errors of loading a component or of its options.

#[cfg(feature = "wasmtime")]
use std::path::PathBuf;

use edge_session_component::failure::unavailable;
use edge_session_component::wit::Failure;

use crate::Problem;

/// A component that cannot be used.
#[cfg(feature = "wasmtime")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The file cannot be read.
    #[error("cannot read the component {path}: {source}. It is built by `make component`")]
    Unreadable {
        /// The file's path.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The bytes are not a component.
    #[error("{name} is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// The component's name, for example its file.
        name: String,
        /// The compiler's message.
        reason: String,
    },
    /// A component of another version of `edge:session`.
    #[error(
        "{name} is a component of edge:session/engine@{version}, and this program needs \
         edge:session/engine@0.2.0: use the component and the program of one release"
    )]
    OtherVersion {
        /// The component's name, for example its file.
        name: String,
        /// The version that it exports.
        version: String,
    },
    /// A component of another world than `edge:session/session`.
    #[error(
        "{name} is a component of another world: {reason}. It must export \
         edge:session/engine@0.2.0 and import nothing but wasi:clocks/wall-clock@0.2 and \
         wasi:random/random@0.2"
    )]
    OtherWorld {
        /// The component's name, for example its file.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// The WebAssembly engine cannot be set up on this machine.
    #[error("cannot set up WebAssembly on this machine: {0}")]
    Runtime(String),
}

/// Options that cannot be used, with everything that is wrong with them.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionsError {
    /// The problems, one entry each.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for OptionsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the options cannot be used:")?;
        for Problem { name, message } in &self.problems {
            write!(f, "\n  {name}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for OptionsError {}

/// Returns the failure of a request whose call into the component failed.
pub(crate) fn trapped(error: &dyn std::fmt::Display) -> Failure {
    unavailable(format!("the component failed: {error}"))
}
