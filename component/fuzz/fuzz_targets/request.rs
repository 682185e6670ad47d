//! Cookie headers and forwarded protocols, as a client may send them.
#![no_main]

use edge_session_component::wit::{Request, Step};
use edge_session_fuzz::{Fixed, engine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let cookies = data.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let request = Request {
        cookies,
        path: format!("/{}", String::from_utf8_lossy(data)),
        tls: false,
        secure: false,
        forwarded_proto: Some(data.to_vec()),
    };
    // Nobody guesses a signature: the store is never asked.
    assert!(matches!(engine().begin(&Fixed, &request), Step::Ready(_)));
});
