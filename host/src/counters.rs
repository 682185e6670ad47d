//! Metrics. Handles into the `metrics` facade are created once, because looking one up by its
//! labels costs more than counting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use edge_session_component::wit;

const ORIGINS: [&str; 8] =
    ["loaded", "absent", "malformed", "forged", "oversized", "unknown", "damaged", "detached"];

const EVENTS: [&str; 7] = ["none", "created", "saved", "touched", "moved", "destroyed", "gone"];

const FAILURES: [&str; 5] = ["unavailable", "invalid-change", "too-large", "contention", "misuse"];

const OPERATIONS: [&str; 5] = ["load", "create", "replace", "touch", "delete"];

pub(crate) struct Counters {
    begun: [Counter; 8],
    finished: [Counter; 7],
    /// As the counter of the event, for those who read it.
    created: AtomicU64,
    conflicts: Counter,
    failures: [Counter; 5],
    store_seconds: [Histogram; 5],
    store_errors: [Counter; 5],
}

impl Counters {
    /// Creates handles of the currently installed recorder. `store` is the store's name.
    pub(crate) fn new(store: &'static str) -> Self {
        Self {
            begun: ORIGINS.map(|it| counter!("edge_session_begun_total", "origin" => it)),
            finished: EVENTS.map(|it| counter!("edge_session_finished_total", "event" => it)),
            created: AtomicU64::new(0),
            conflicts: counter!("edge_session_conflicts_total"),
            failures: FAILURES.map(|it| counter!("edge_session_failures_total", "reason" => it)),
            store_seconds: OPERATIONS.map(
                |it| histogram!("edge_session_store_seconds", "operation" => it, "store" => store),
            ),
            store_errors: OPERATIONS.map(|it| {
                counter!("edge_session_store_errors_total", "operation" => it, "store" => store)
            }),
        }
    }

    pub(crate) fn begun(&self, origin: wit::Origin) {
        self.begun[origin_place(origin)].increment(1);
    }

    pub(crate) fn finished(&self, event: wit::Event) {
        self.finished[event_place(event)].increment(1);
        if event == wit::Event::Created {
            self.created.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A conditional write met another text than the expected one.
    pub(crate) fn conflict(&self) {
        self.conflicts.increment(1);
    }

    /// How many sessions were created.
    pub(crate) fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self, kind: wit::FailureKind) {
        self.failures[match kind {
            wit::FailureKind::Unavailable => 0,
            wit::FailureKind::InvalidChange => 1,
            wit::FailureKind::TooLarge => 2,
            wit::FailureKind::Contention => 3,
            wit::FailureKind::Misuse => 4,
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
    ORIGINS[origin_place(origin)]
}

/// Returns the event's name for logs.
pub(crate) fn event_name(event: wit::Event) -> &'static str {
    EVENTS[event_place(event)]
}

fn origin_place(origin: wit::Origin) -> usize {
    match origin {
        wit::Origin::Loaded => 0,
        wit::Origin::Absent => 1,
        wit::Origin::Malformed => 2,
        wit::Origin::Forged => 3,
        wit::Origin::Oversized => 4,
        wit::Origin::Unknown => 5,
        wit::Origin::Damaged => 6,
        wit::Origin::Detached => 7,
    }
}

fn event_place(event: wit::Event) -> usize {
    match event {
        wit::Event::None => 0,
        wit::Event::Created => 1,
        wit::Event::Saved => 2,
        wit::Event::Touched => 3,
        wit::Event::Moved => 4,
        wit::Event::Destroyed => 5,
        wit::Event::Gone => 6,
    }
}

/// Returns the index of the store operation and its name.
pub(crate) fn operation(operation: &wit::Operation) -> (usize, &'static str) {
    let place = match operation {
        wit::Operation::Load => 0,
        wit::Operation::Create(_) => 1,
        wit::Operation::Replace(_) => 2,
        wit::Operation::Touch(_) => 3,
        wit::Operation::Delete => 4,
    };
    (place, OPERATIONS[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(origin_name(wit::Origin::Loaded), "loaded");
        assert_eq!(origin_name(wit::Origin::Oversized), "oversized");
        assert_eq!(origin_name(wit::Origin::Detached), "detached");
        assert_eq!(event_name(wit::Event::None), "none");
        assert_eq!(event_name(wit::Event::Moved), "moved");
        assert_eq!(event_name(wit::Event::Gone), "gone");
    }
}
