//! Metrics. Handles into the `metrics` facade are created once, because looking one up by its
//! labels costs more than counting.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::bindings::exports::edge::session::engine as wit;

/// Names of [`wit::Origin`], in its order.
const ORIGINS: [&str; 8] =
    ["loaded", "absent", "malformed", "forged", "oversized", "unknown", "damaged", "detached"];

/// Names of [`wit::Event`], in its order.
const EVENTS: [&str; 7] = ["none", "created", "saved", "touched", "moved", "destroyed", "gone"];

const FAILURES: [&str; 4] = ["unavailable", "invalid-change", "too-large", "contention"];

const OPERATIONS: [&str; 5] = ["load", "create", "replace", "touch", "delete"];

pub(crate) struct Counters {
    begun: [Counter; 8],
    finished: [Counter; 7],
    conflicts: Counter,
    failures: [Counter; 4],
    store_seconds: [Histogram; 5],
    store_errors: [Counter; 5],
}

impl Counters {
    /// Creates handles of the currently installed recorder.
    pub(crate) fn new() -> Self {
        Self {
            begun: ORIGINS.map(|it| counter!("edge_session_begun_total", "origin" => it)),
            finished: EVENTS.map(|it| counter!("edge_session_finished_total", "event" => it)),
            conflicts: counter!("edge_session_conflicts_total"),
            failures: FAILURES.map(|it| counter!("edge_session_failures_total", "reason" => it)),
            store_seconds: OPERATIONS
                .map(|it| histogram!("edge_session_store_seconds", "operation" => it)),
            store_errors: OPERATIONS
                .map(|it| counter!("edge_session_store_errors_total", "operation" => it)),
        }
    }

    pub(crate) fn begun(&self, origin: wit::Origin) {
        self.begun[origin as usize].increment(1);
    }

    pub(crate) fn finished(&self, outcome: &wit::Outcome) {
        self.finished[outcome.event as usize].increment(1);
        if outcome.conflicts > 0 {
            self.conflicts.increment(outcome.conflicts.into());
        }
    }

    pub(crate) fn failed(&self, failure: &wit::Failure) {
        self.failures[match failure {
            wit::Failure::Unavailable(_) => 0,
            wit::Failure::InvalidChange(_) => 1,
            wit::Failure::TooLarge(_) => 2,
            wit::Failure::Contention => 3,
        }]
        .increment(1);
    }

    pub(crate) fn store(&self, operation: usize, took: Duration, failed: bool) {
        self.store_seconds[operation].record(took);
        if failed {
            self.store_errors[operation].increment(1);
        }
    }
}

/// Returns the origin's name for logs.
pub(crate) fn origin_name(origin: wit::Origin) -> &'static str {
    ORIGINS[origin as usize]
}

/// Returns the event's name for logs.
pub(crate) fn event_name(event: wit::Event) -> &'static str {
    EVENTS[event as usize]
}

/// Returns the index of the store operation and its name.
pub(crate) fn operation(request: &wit::StoreRequest) -> (usize, &'static str) {
    let operation = match request {
        wit::StoreRequest::Load => 0,
        wit::StoreRequest::Create(_) => 1,
        wit::StoreRequest::Replace(_) => 2,
        wit::StoreRequest::Touch(_) => 3,
        wit::StoreRequest::Delete(_) => 4,
    };
    (operation, OPERATIONS[operation])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_contract() {
        assert_eq!(origin_name(wit::Origin::Loaded), "loaded");
        assert_eq!(origin_name(wit::Origin::Oversized), "oversized");
        assert_eq!(origin_name(wit::Origin::Detached), "detached");
        assert_eq!(EVENTS[wit::Event::None as usize], "none");
        assert_eq!(EVENTS[wit::Event::Moved as usize], "moved");
        assert_eq!(EVENTS[wit::Event::Gone as usize], "gone");
    }
}
