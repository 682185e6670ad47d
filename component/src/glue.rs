//! Connects the component's exports and imports to the logic. Contains no logic itself.
//!
//! `export!` defines symbols that only a WebAssembly linker understands. It is omitted from native
//! builds (unit tests, benches) and where another component links this crate.
#![cfg_attr(not(all(target_arch = "wasm32", feature = "exports")), allow(dead_code))]

use crate::bindings::wasi::{clocks::wall_clock, random::random};
use crate::engine::{Engine, Environment};
use crate::options::defaults;
use crate::wit::{
    self, Change, Exchange, Guest, GuestEngine, Known, Options, Preset, Problem, Request, Step,
    StoreReply,
};

/// The clock and the random source that the component imports.
struct Wasi;

impl Environment for Wasi {
    fn now(&self) -> wit::Millis {
        let now = wall_clock::now();
        now.seconds * 1000 + u64::from(now.nanoseconds / 1_000_000)
    }

    fn random(&self) -> [u8; 24] {
        // Three integers cross the boundary more cheaply than one list.
        let mut bytes = [0; 24];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&random::get_random_u64().to_le_bytes());
        }
        bytes
    }
}

struct Component;

impl Guest for Component {
    type Engine = Engine;

    fn defaults(preset: Preset) -> Options {
        defaults(preset)
    }

    fn open(options: Options) -> Result<wit::Engine, Vec<Problem>> {
        let engine = Engine::open(options).map(wit::Engine::new)?;
        #[cfg(all(target_arch = "wasm32", feature = "exports"))]
        crate::arena::keep();
        Ok(engine)
    }
}

impl GuestEngine for Engine {
    fn begin(&self, request: Request) -> Step {
        Engine::begin(self, &Wasi, &request)
    }

    fn finish(&self, exchange: Exchange, known: Known, change: Change) -> Step {
        Engine::finish(self, &Wasi, exchange, &known, &change)
    }

    fn resume(
        &self,
        exchange: Exchange,
        known: Known,
        change: Option<Change>,
        reply: StoreReply,
    ) -> Step {
        Engine::resume(self, &Wasi, exchange, &known, change.as_ref(), reply)
    }
}

#[cfg(all(target_arch = "wasm32", feature = "exports"))]
#[allow(unsafe_code, unreachable_pub, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(Component with_types_in crate::bindings);
    use super::Component;
}
