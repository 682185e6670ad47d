//! Web sessions compatible with express-session, decided by a WebAssembly component.
//!
//! A gateway embeds them as a tower layer, and handlers extract a [`Session`]:
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use edge_session::{Component, Options, Session, SessionError, SessionLayer, store::MemoryStore};
//!
//! async fn count(session: Session) -> Result<String, SessionError> {
//!     let count = session.get::<u64>("viewCount")?.unwrap_or(0) + 1;
//!     session.insert("viewCount", count)?;
//!     Ok(format!("you have visited this page {count} times"))
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = Options::default();
//! options.secret(std::env::var("EDGE_SESSION_SECRET")?);
//! let layer = SessionLayer::new(Component::bundled()?, options, MemoryStore::default())?;
//! let app: Router = Router::new().route("/", get(count)).layer(layer);
//! # Ok(())
//! # }
//! ```
//!
//! The rules of sessions are in the component (`session.wasm`), which imports only a clock and
//! randomness. This crate runs it, keeps sessions in a [`store::Store`], and speaks HTTP.

// Compiles the examples of both READMEs with this crate's doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "wasmtime")]
mod code_cache;
#[cfg(feature = "wasmtime")]
mod component;
mod counters;
mod driver;
mod engine;
mod error;
mod found;
mod hasher;
#[cfg(feature = "wasmtime")]
mod instance;
mod layer;
#[cfg(feature = "native")]
mod native;
mod options;
mod run_to_completion;
#[cfg(feature = "wasmtime")]
mod runtime;
mod session;
pub mod store;
mod timed_store;
mod turns;

#[cfg(feature = "wasmtime")]
pub use code_cache::{CodeCache, CodeCacheError};
#[cfg(feature = "wasmtime")]
pub use component::{BUNDLED_COMPONENT, Component};
pub use edge_session_component::wit::{OptionDescription, Origin, Problem};
pub use engine::Logic;
#[cfg(feature = "wasmtime")]
pub use error::ComponentError;
pub use error::OptionsError;
pub use found::{Found, Unreadable};
pub use hasher::SessionHasher;
pub use layer::{Encrypted, Refused, SessionLayer, SessionService};
#[cfg(feature = "native")]
pub use native::Native;
pub use options::{InForce, Options};
pub use session::{NoSession, Session, SessionError, ValueError};
