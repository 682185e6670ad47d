//! Cookie headers and forwarded protocols, as a client may send them.
#![no_main]

use edge_session_component::wit::{Preset, Request, Step};
use edge_session_component::{Engine, Environment, defaults};
use libfuzzer_sys::fuzz_target;

struct Fixed;

impl Environment for Fixed {
    fn now(&self) -> u64 {
        1_893_456_000_000
    }
    fn random(&self) -> [u8; 24] {
        [7; 24]
    }
}

fuzz_target!(|data: &[u8]| {
    let mut options = defaults(Preset::Safe);
    options.secrets = vec![vec![b'k'; 32]];
    options.proxy = Some(true);
    let Ok(engine) = Engine::open(options) else { unreachable!("the options are valid") };
    let cookies = data.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let request = Request {
        cookies,
        path: String::from_utf8_lossy(data).into_owned(),
        tls: false,
        secure: false,
        forwarded_proto: Some(data.to_vec()),
    };
    let request = Request { path: format!("/{}", request.path), ..request };
    // Nobody guesses a signature: the store is never asked.
    assert!(matches!(engine.begin(&Fixed, &request), Step::Ready(_)));
});
