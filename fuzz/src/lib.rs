//! One function for each fuzz target; see README.md for which parsers they cover.
//!
//! What is part of a program, and so cannot be linked, is compiled once more from its sources.
//! Those find here what they use of their own crates.

pub mod answer;
pub mod component;
pub mod gateway;
mod head;
pub mod options;
mod readings;
pub mod stored;

// For host/src/session.rs: the module that it reads values with.
#[allow(dead_code)]
#[path = "../../host/src/found.rs"]
mod found;

// For host/src/session.rs, too: the contract's types are the same on both of its sides.
use edge_session_component::wit::{Cookie, CookieEdit, Origin};
mod bindings {
    pub(crate) mod exports {
        pub(crate) mod edge {
            pub(crate) mod session {
                pub(crate) use edge_session_component::wit as engine;
            }
        }
    }
}

// For host/src/store/mongodb: the driver is not needed to read documents.
extern crate self as mongodb;
#[doc(hidden)]
pub use ::bson;
