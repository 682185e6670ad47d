//! `edge-session init`: writes a configuration file to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::bail;

use super::say;
use crate::config;

/// Writes the template to `file`, which must not exist yet.
pub(crate) fn run(file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    let mut options = OpenOptions::new();
    let result = options.write(true).create_new(true).open(file);
    match result.and_then(|mut new| new.write_all(config::TEMPLATE.as_bytes())) {
        Ok(()) => {
            say(&format!("{shown} was written. Next: edge-session check --config {shown}"));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{shown} already exists and was left unchanged")
        }
        Err(error) => bail!("cannot write {shown}: {error}"),
    }
}
