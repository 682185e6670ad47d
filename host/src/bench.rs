//! Runs the component without HTTP and without a store, for `bench/` only.

use std::sync::Arc;

use crate::bindings::exports::edge::session::engine;
use crate::instance::Instances;
use crate::{Component, Options, OptionsError};

/// The contract's types.
pub mod wit {
    pub use super::engine::*;
}

/// Runs the component as a [`crate::SessionLayer`] does. Panics where the layer would answer with
/// an error.
pub struct Runner(Instances);

const TRAPPED: &str = "the component runs";
const SUCCEEDED: &str = "the request succeeds";

impl Runner {
    /// Checks the options and creates the first instance.
    pub fn open(component: Component, options: Options) -> Result<Self, OptionsError> {
        Ok(Self(Instances::open(component.0, &options)?))
    }

    /// Begins a request.
    pub fn begin(&self, request: &wit::Request) -> wit::Beginning {
        self.0.begin(request).expect(SUCCEEDED)
    }

    /// Continues after the store has loaded a session.
    pub fn loaded(&self, visit: wit::Visit, stored: &Arc<wit::Stored>) -> wit::Beginning {
        let loaded = Ok(Some(stored.clone()));
        self.0.at_once(|it| it.loaded(&visit, &loaded)).expect(TRAPPED).expect(SUCCEEDED)
    }

    /// Decides about the application's change.
    pub fn finish(
        &self,
        visit: wit::Visit,
        stored: Option<&Arc<wit::Stored>>,
        change: &wit::Change,
    ) -> wit::Plan {
        let (visit, stored) = (&visit, stored.map(|stored| &**stored));
        self.0.at_once(|it| it.finish(visit, stored, change)).expect(TRAPPED).expect(SUCCEEDED)
    }
}
