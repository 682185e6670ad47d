//! What the fuzz targets share: an engine whose time and randomness stand still.

use edge_session_component::wit::Preset;
use edge_session_component::{Engine, Environment, defaults};

/// A clock and randomness that stand still, so that a finding can be repeated.
pub struct Fixed;

impl Environment for Fixed {
    fn now(&self) -> u64 {
        1_893_456_000_000
    }
    fn random(&self) -> [u8; 24] {
        [7; 24]
    }
}

/// An engine that believes X-Forwarded-Proto, so that this is read too.
pub fn engine() -> Engine {
    let mut options = defaults(Preset::Safe);
    options.secrets = vec![vec![b'k'; 32]];
    options.proxy = Some(true);
    let Ok(engine) = Engine::open(options) else { unreachable!("the options are valid") };
    engine
}
