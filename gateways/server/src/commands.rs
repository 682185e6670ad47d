//! The subcommands.

pub(crate) mod check;
pub(crate) mod init;
pub(crate) mod serve;
pub(crate) mod sessions;

use std::io::Write as _;

/// Prints a line. A closed pipe (`| head -1`) is not an error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
