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
mod bindings;
mod code_cache;
mod component;
mod counters;
mod driver;
mod error;
mod found;
mod hasher;
mod instance;
mod layer;
mod options;
mod run_to_completion;
mod runtime;
mod session;
pub mod store;
mod timed_store;
mod turns;

pub use bindings::exports::edge::session::engine::{OptionDescription, Origin, Problem};
pub use code_cache::{CodeCache, CodeCacheError};
pub use component::{BUNDLED_COMPONENT, Component};
pub use error::{ComponentError, OptionsError};
pub use found::{Found, Unreadable};
pub use hasher::SessionHasher;
pub use layer::{Encrypted, Refused, SessionLayer, SessionService};
pub use options::{InForce, Options};
pub use session::{NoSession, Session, SessionError, ValueError};
