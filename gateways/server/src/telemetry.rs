//! Logs and metrics for operators.

mod catalogue;
mod of_request;
mod summary;
#[cfg(feature = "otlp")]
pub(crate) mod traces;
#[cfg(not(feature = "otlp"))]
#[path = "telemetry/no_traces.rs"]
pub(crate) mod traces;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::anyhow;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use self::of_request::Asked;
use self::of_request::OfRequest;
use self::summary::Summary;

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Log {
    pub(crate) json: bool,
    /// Whether every request is logged.
    pub(crate) requests: bool,
}

/// The variable that filters the log.
pub(crate) const VARIABLE: &str = "EDGE_SESSION_LOG";

/// Histogram bounds in seconds, for stores and applications.
const BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// How often measurements are moved into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Logs to standard error, as filtered by `EDGE_SESSION_LOG`. [`Summary::keep`] reports suppressed
/// lines.
pub(crate) fn log(settings: Log) -> Summary {
    let mut filter = EnvFilter::builder()
        .with_env_var(VARIABLE)
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    // It says only that a connection has ended. The request that needs another one says why.
    if let Ok(quiet) = "deadpool_postgres=off".parse() {
        filter = filter.add_directive(quiet);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let summary = Summary::default();
    let is_json = settings.json;
    let format = tracing_subscriber::fmt::format().with_target(false);
    match is_json {
        true => {
            let format = OfRequest { format: format.json().flatten_event(true), is_json };
            let lines = lines.event_format(format).fmt_fields(JsonFields::new());
            lines.finish().with(summary.clone()).init();
        }
        false => {
            let lines = lines.event_format(OfRequest { format, is_json });
            lines.finish().with(summary.clone()).init();
        }
    }
    summary
}

/// Begins to record metrics.
pub(crate) fn record_metrics() -> anyhow::Result<PrometheusHandle> {
    let wrong = |error: &dyn std::fmt::Display| anyhow!("metrics cannot be recorded: {error}");
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .map_err(|error| wrong(&error))?
        .install_recorder()
        .map_err(|error| wrong(&error))?;
    catalogue::describe();
    let upkeep = recorder.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(recorder)
}
