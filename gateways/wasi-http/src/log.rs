//! Logs problems to stderr, which the host redirects. No line contains an identifier, a secret or a
//! session value.

use crate::bindings::wasi::cli::stderr;
use crate::bindings::wit_stream;

/// Writes a line.
pub(crate) fn log(line: impl std::fmt::Display) {
    let line = format!("edge-session: {line}\n").into_bytes();
    let (mut writer, reader) = wit_stream::new();
    let written = stderr::write_via_stream(reader);
    wit_bindgen::spawn_local(async move {
        writer.write_all(line).await;
        drop(writer);
        // A failed write cannot be reported anywhere.
        let _ = written.await;
    });
}
