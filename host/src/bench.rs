//! The component's runner without HTTP and without a store: for `bench/`, not for use.

use crate::bindings::exports::edge::session::engine;
use crate::instance::Instances;
use crate::{Component, Options, OptionsError};

/// The contract's types.
pub mod wit {
    pub use super::engine::*;
}

/// What runs the component inside a [`crate::SessionLayer`]. Panics where that one
/// would answer with an error.
pub struct Runner(Instances);

const TRAPPED: &str = "the component runs";

impl Runner {
    /// Check the options and make the first instance.
    pub fn open(component: Component, options: Options) -> Result<Self, OptionsError> {
        Ok(Self(Instances::open(component.0, options)?))
    }

    /// Begin an exchange.
    pub fn begin(&self, request: &wit::Request) -> wit::Step {
        self.0.begin(request).expect(TRAPPED)
    }

    /// The store has answered to a load.
    pub fn resume(&self, exchange: wit::Exchange, known: &wit::Known) -> wit::Step {
        self.0.at_once(&exchange, known, None, Some(&wit::StoreReply::Found)).expect(TRAPPED)
    }

    /// The application is done.
    pub fn finish(
        &self,
        exchange: wit::Exchange,
        known: &wit::Known,
        change: &wit::Change,
    ) -> wit::Step {
        self.0.at_once(&exchange, known, Some(change), None).expect(TRAPPED)
    }
}
