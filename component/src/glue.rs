//! Connects the component's exports and imports to the logic. Contains no logic itself.

use std::cell::Cell;

use crate::bindings::wasi::{clocks::wall_clock, random::random};
use crate::engine::{Engine, Environment};
use crate::failure::misuse;
use crate::options::describe;
use crate::wit::{
    self, Beginning, Change, Failure, Guest, Obstacle, OptionDescription, Plan, Problem, Request,
    Setting, Stored, Visit,
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

thread_local! {
    /// The engine that `configure` has made. It is kept as long as the instance.
    static ENGINE: Cell<Option<&'static Engine>> = const { Cell::new(None) };
}

fn engine() -> Result<&'static Engine, Failure> {
    ENGINE.get().ok_or_else(|| misuse("the instance is not configured"))
}

struct Component;

impl Guest for Component {
    fn options() -> Vec<OptionDescription> {
        describe()
    }

    fn configure(settings: Vec<Setting>) -> Result<Vec<Setting>, Vec<Problem>> {
        let engine = Engine::configure(&settings)?;
        drop(settings);
        let in_force = engine.in_force();
        ENGINE.set(Some(Box::leak(Box::new(engine))));
        crate::arena::keep();
        Ok(in_force)
    }

    fn begin(request: Request) -> Result<Beginning, Failure> {
        Ok(engine()?.begin(&Wasi, &request))
    }

    fn loaded(visit: Visit, stored: Result<Option<Stored>, String>) -> Result<Beginning, Failure> {
        let stored = stored.as_ref().map(Option::as_ref).map_err(Clone::clone);
        engine()?.loaded(&Wasi, visit, stored)
    }

    fn finish(visit: Visit, stored: Option<Stored>, change: Change) -> Result<Plan, Failure> {
        engine()?.finish(&Wasi, visit, stored.as_ref(), &change)
    }

    fn resume(
        visit: Visit,
        stored: Option<Stored>,
        change: Change,
        at: u32,
        obstacle: Obstacle,
    ) -> Result<Plan, Failure> {
        engine()?.resume(&Wasi, visit, stored.as_ref(), &change, at as usize, obstacle)
    }
}

#[allow(unsafe_code, unreachable_pub, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(Component with_types_in crate::bindings);
    use super::Component;
}
