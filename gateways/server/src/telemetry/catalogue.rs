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

pub(super) const METRICS: [(&str, Kind, &str); 20] = [
    (
        "edge_session_app_traps_total",
        Counter,
        "Instances of an application that is a component that ended by a trap.",
    ),
    (
        "edge_session_begun_total",
        Counter,
        "Sessions that requests began with, by what their cookies named (origin).",
    ),
    (
        "edge_session_component_traps_total",
        Counter,
        "Calls of the session component that ended by a trap.",
    ),
    (
        "edge_session_conflicts_total",
        Counter,
        "Changes that met a session which another request had changed.",
    ),
    (
        "edge_session_connections_full_total",
        Counter,
        "Connections that came when all that may be open were open.",
    ),
    (
        "edge_session_connections_let_go_total",
        Counter,
        "Quiet connections that were closed to make room.",
    ),
    ("edge_session_failures_total", Counter, "Requests that failed for their session, by reason."),
    (
        "edge_session_finished_total",
        Counter,
        "What became of sessions at the end of requests (event).",
    ),
    (
        "edge_session_memory_store_evictions_total",
        Counter,
        "Sessions that the memory store ended for want of room.",
    ),
    (
        "edge_session_refused_total",
        Counter,
        "Requests and connections that the gateway refused itself, by reason.",
    ),
    (
        "edge_session_request_seconds",
        Seconds,
        "Time from a request's header to its answer's header.",
    ),
    (
        "edge_session_requests_total",
        Counter,
        "Answered requests, by the first digit of the status.",
    ),
    (
        "edge_session_responses_cut_total",
        Counter,
        "Answers of applications that ended before their end.",
    ),
    (
        "edge_session_slow_readers_total",
        Counter,
        "Answers that were cut because the client read too slowly.",
    ),
    ("edge_session_store_errors_total", Counter, "Store operations that failed, by operation."),
    ("edge_session_store_seconds", Seconds, "Time of store operations, by operation."),
    (
        "edge_session_stripped_total",
        Counter,
        "Requests whose client had set session headers, which were removed.",
    ),
    ("edge_session_tunnels", Gauge, "WebSockets and other changed protocols that are open."),
    (
        "edge_session_upstream_retries_total",
        Counter,
        "Requests that a second application was asked for.",
    ),
    ("edge_session_upstream_up", Gauge, "Whether an application is well: 1, else 0."),
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
