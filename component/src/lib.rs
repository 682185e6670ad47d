//! express-session's session logic, as plain Rust modules and a WebAssembly component built from
//! them.
//!
//! The logic makes decisions and never does I/O: it takes facts (a request's cookies, the store's
//! replies) and returns what to do next. The contract is `wit/engine.wit`; the types of [`wit`] are
//! generated from it.
//!
//! | module | its job |
//! |---|---|
//! | [`engine`] | one request from its cookie to its Set-Cookie: the state machine |
//! | `state` | what a request's next call has to know, and its encoding |
//! | `failure` | status and sentences of requests that fail |
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

#[cfg(all(target_arch = "wasm32", feature = "exports"))]
mod arena;
mod bindings;
mod cookie_header;
mod document;
pub mod engine;
mod failure;
mod glue;
mod identifier;
mod json;
mod lifecycle;
mod moved;
mod options;
mod session_cookie;
mod signature;
mod state;
#[cfg(test)]
mod vectors;

pub use bindings::exports::edge::session::engine as wit;
pub use engine::{Engine, Environment};
pub use options::describe;
