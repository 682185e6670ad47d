//! All metrics: the kind and the description of each.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// In seconds.
    Seconds,
}

use Kind::{Counter, Gauge, Seconds};

pub(super) const METRICS: [(&str, Kind, &str); 21] = [
    (
        "edge_session_app_traps_total",
        Counter,
        "Instances of a component application that ended with a trap.",
    ),
    ("edge_session_begun_total", Counter, "Sessions at the beginning of requests, by origin."),
    (
        "edge_session_component_traps_total",
        Counter,
        "Calls of the session component that ended with a trap.",
    ),
    (
        "edge_session_conflicts_total",
        Counter,
        "Changes to sessions that another request had changed meanwhile.",
    ),
    (
        "edge_session_connections_full_total",
        Counter,
        "Connections that arrived while limits.connections was reached.",
    ),
    (
        "edge_session_connections_let_go_total",
        Counter,
        "Idle connections that were closed to make room.",
    ),
    (
        "edge_session_failures_total",
        Counter,
        "Requests that failed because of their session, by reason.",
    ),
    ("edge_session_finished_total", Counter, "Sessions at the end of requests, by event."),
    (
        "edge_session_memory_store_evictions_total",
        Counter,
        "Sessions that the memory store evicted for lack of space.",
    ),
    (
        "edge_session_refused_total",
        Counter,
        "Requests and connections that the gateway itself refused, by reason.",
    ),
    (
        "edge_session_request_seconds",
        Seconds,
        "Time from a request's header to its response's header.",
    ),
    (
        "edge_session_requests_total",
        Counter,
        "Requests that got a response, by the first digit of its status.",
    ),
    (
        "edge_session_ext_proc_given_up_total",
        Counter,
        "Streams that Envoy ended while a session was loaded or stored.",
    ),
    ("edge_session_responses_cut_total", Counter, "Responses of applications that ended early."),
    (
        "edge_session_slow_readers_total",
        Counter,
        "Responses that were cut off because the client read too slowly.",
    ),
    (
        "edge_session_store_errors_total",
        Counter,
        "Store operations that failed, by operation and store.",
    ),
    (
        "edge_session_store_seconds",
        Seconds,
        "Duration of store operations, by operation and store; 0 for sessions in memory.",
    ),
    (
        "edge_session_stripped_total",
        Counter,
        "Requests from which session headers set by the client were removed.",
    ),
    ("edge_session_tunnels", Gauge, "Open WebSockets and other upgraded connections."),
    ("edge_session_upstream_retries_total", Counter, "Requests that were sent a second time."),
    ("edge_session_upstream_up", Gauge, "Whether an application is healthy: 1, else 0."),
];

/// Describes all metrics to the installed recorder.
pub(super) fn describe() {
    for (name, kind, help) in METRICS {
        match kind {
            Counter => describe_counter!(name, help),
            Gauge => describe_gauge!(name, help),
            Seconds => describe_histogram!(name, metrics::Unit::Seconds, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_all_metrics() {
        let page = include_str!("../../../../docs/gateway.md");
        for (name, _, help) in METRICS {
            assert!(page.contains(&format!("| `{name}` | {help} |")), "{name}");
        }
        let names = page.split('`').filter(|word| word.starts_with("edge_session_"));
        for name in names.map(|name| name.split('{').next().unwrap_or_default()) {
            assert!(METRICS.iter().any(|(known, ..)| *known == name), "{name}");
        }
    }
}
