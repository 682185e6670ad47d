//! Why a component, or its options, cannot be used.

use std::path::PathBuf;

use crate::Problem;

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
    /// Something else than a component.
    #[error("{name} is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// Which one: its file, for example.
        name: String,
        /// What the compiler says.
        reason: String,
    },
    /// A component, but not one of the world `edge:session/session`.
    #[error(
        "{name} is a component of another world: {reason}. Expected is one that exports \
         edge:session/engine@0.1.0 and imports nothing but wasi:clocks/wall-clock@0.2 and \
         wasi:random/random@0.2"
    )]
    OtherWorld {
        /// Which one: its file, for example.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// The engine that runs components cannot be set up on this machine.
    #[error("cannot set up WebAssembly on this machine: {0}")]
    Runtime(String),
}

/// The options cannot be used, and why: everything that is wrong with them.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionsError {
    /// What is wrong, one entry for each problem.
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
