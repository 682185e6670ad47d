//! Sockets: where they are, who may come in by them, and TLS.

pub(crate) mod address;
pub(crate) mod connections;
pub(crate) mod tls;
pub(crate) mod tunnel;
