//! One function for each fuzz target; see README.md for which parsers they cover.
//!
//! Parts of programs cannot be linked, so they are compiled again from their sources. They find the
//! items of their own crates here.

pub mod answer;
pub mod component;
pub mod ext_proc;
pub mod gateway;
mod head;
pub mod options;
mod readings;
pub mod stored;

// For host/src/session.rs: the module with which it reads values.
#[allow(dead_code)]
#[path = "../../host/src/found.rs"]
mod found;

// Also for host/src/session.rs: the contract's types are the same on both of its sides.
use edge_session_component::wit::Origin;

mod store {
    pub(crate) use edge_session_component::wit::Stored;
}

// For gateways/server/src/ext_proc/translation.rs.
extern crate axum_core as axum;
mod proxy {
    pub(crate) use crate::gateway::headers::clean_trailers;
}
mod net {
    pub(crate) use crate::gateway::query;
}

// For host/src/store/mongodb: reading documents does not require the driver.
extern crate self as mongodb;
#[doc(hidden)]
pub use ::bson;
