//! express-session's session logic, as plain Rust modules and a WebAssembly component built from
//! them.
//!
//! The logic makes decisions and never does I/O: it takes facts (a request's cookies, the store's
//! replies) and returns what to do next. The contract is `wit/engine.wit`; [`wit`] has its types.
//!
//! | module | its job |
//! |---|---|
//! | [`wit`] | the types of the contract |
//! | `engine` | one request from its cookie to its Set-Cookie: the state machine |
//! | `state` | what a request's next call has to know, and its encoding |
//! | [`failure`] | status and sentences of requests that fail |
//! | `lifecycle` | the rules: when to save, touch, set the cookie |
//! | `options` | the table of options, reading and validating them |
//! | `cookie_header` | reading `Cookie`, writing `Set-Cookie` |
//! | `signature` | HMAC-SHA256 over identifiers, with several secrets |
//! | `identifier` | new identifiers |
//! | `moved` | notes that record the new identifier of a session |
//! | `json` | splitting JSON text without interpreting values |
//! | `document` | parsing the stored JSON text, and changing only what changed |
//! | `session_cookie` | the `cookie` member of that text |
//! | `arena` | the component's allocator |
//! | `glue` | WIT exports and the two imports; holds no logic |
//!
//! The feature `logic` is everything but the types and the failures. With `wasmtime`, the types are
//! those of a host that runs the component in wasmtime.

// Only a WebAssembly linker understands what these export.
#[cfg(all(target_arch = "wasm32", feature = "exports"))]
mod arena;
#[cfg(all(target_arch = "wasm32", feature = "exports"))]
mod bindings;
#[cfg(all(target_arch = "wasm32", feature = "exports"))]
mod glue;

#[cfg(all(target_arch = "wasm32", feature = "exports"))]
pub use bindings::exports::edge::session::engine as wit;
/// The types of the contract. In the component, they are the generated ones, which are alike: nothing
/// has to be converted there.
#[cfg(not(all(target_arch = "wasm32", feature = "exports")))]
pub mod wit;

pub mod failure;

#[cfg(feature = "logic")]
mod cookie_header;
#[cfg(feature = "logic")]
mod document;
#[cfg(feature = "logic")]
mod engine;
#[cfg(feature = "logic")]
mod identifier;
#[cfg(feature = "logic")]
mod json;
#[cfg(feature = "logic")]
mod lifecycle;
#[cfg(feature = "logic")]
mod moved;
#[cfg(feature = "logic")]
mod options;
#[cfg(feature = "logic")]
mod session_cookie;
#[cfg(feature = "logic")]
mod signature;
#[cfg(feature = "logic")]
mod state;
#[cfg(all(test, feature = "logic"))]
mod vectors;

#[cfg(feature = "logic")]
pub use engine::{Engine, Environment};
#[cfg(feature = "logic")]
pub use options::describe;
