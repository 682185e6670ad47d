//! The subcommands.

pub(crate) mod check;
pub(crate) mod serve;
pub(crate) mod sessions;
