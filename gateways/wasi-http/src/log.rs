//! What went wrong, on stderr: the host says where that goes. No line holds an identifier, a
//! secret or a value of a session.

use crate::bindings::wasi::cli::stderr;
use crate::bindings::wit_stream;

/// Write a line.
pub(crate) fn log(line: impl std::fmt::Display) {
    let line = format!("edge-session: {line}\n").into_bytes();
    let (mut writer, reader) = wit_stream::new();
    let written = stderr::write_via_stream(reader);
    wit_bindgen::spawn_local(async move {
        writer.write_all(line).await;
        drop(writer);
        // Whether it could be written: there is nowhere to tell.
        let _ = written.await;
    });
}
