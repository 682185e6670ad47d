//! Sockets: addresses, connections and their limits, TLS, and queries as clients send them.

pub(crate) mod address;
pub(crate) mod connections;
pub(crate) mod query;
pub(crate) mod tls;
pub(crate) mod tunnel;
