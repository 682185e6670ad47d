//! Sockets: addresses, connections and their limits, and TLS.

pub(crate) mod address;
pub(crate) mod connections;
pub(crate) mod tls;
pub(crate) mod tunnel;
