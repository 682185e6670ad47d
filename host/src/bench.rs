//! Runs the component without HTTP and without a store, for `bench/` only.

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

impl Runner {
    /// Checks the options and creates the first instance.
    pub fn open(component: Component, options: Options) -> Result<Self, OptionsError> {
        Ok(Self(Instances::open(component.0, options)?))
    }

    /// Begins an exchange.
    pub fn begin(&self, request: &wit::Request) -> wit::Step {
        self.0.begin(request).expect(TRAPPED)
    }

    /// Resumes an exchange after the store has answered a load.
    pub fn resume(&self, exchange: wit::Exchange, known: &wit::Known) -> wit::Step {
        self.0.at_once(&exchange, known, None, Some(&wit::StoreReply::Found)).expect(TRAPPED)
    }

    /// Finishes an exchange with the application's change.
    pub fn finish(
        &self,
        exchange: wit::Exchange,
        known: &wit::Known,
        change: &wit::Change,
    ) -> wit::Step {
        self.0.at_once(&exchange, known, Some(change), None).expect(TRAPPED)
    }
}
