//! `edge-session serve`: sets up what was configured, and serves until it is stopped.

use std::future::Future;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use edge_session::SessionLayer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Admin};
use crate::demo;
use crate::health::healthz;
use crate::net::address::{Address, Bound};
use crate::net::connections::{self, Bounds};
use crate::net::tls::Tls;
use crate::proxy::Proxy;
use crate::setup::Setup;
use crate::telemetry;
use crate::telemetry::traces::Traces;

/// Serves. The error is shown to the person who started the program.
pub(crate) async fn serve(setup: Setup) -> anyhow::Result<()> {
    let recorder = setup.settings.admin.is_some().then(telemetry::record_metrics).transpose()?;
    let stores = setup.open_store().await?;
    let inspector = setup.inspector(stores.browse);
    let shown = setup.shown_store();
    let Setup { component, options, settings, admin_token, .. } = setup;
    let deadline = settings.mongodb.timeout;
    let layer = SessionLayer::with_deadline(component, options, stores.store, deadline)?;
    let tls = settings.tls.map(Tls::load).transpose()?;
    let mut limits = settings.limits;
    let files = allow_files(&limits.bounds);
    fit(&mut limits.bounds, files);
    let bound = Bound::at(settings.listen)?;
    let address = bound.address()?;
    let stop = stop_signal()?;
    reload_on_hangup(tls.clone())?;
    // An application that is a component is compiled here.
    let gateway = match settings.gateway {
        Some(gateway) => {
            let traces = settings.otlp.as_deref().map(Traces::to).transpose()?;
            let gateway = Proxy::new(gateway, &layer, traces.clone(), settings.log.requests)?;
            Some((gateway, traces))
        }
        None => None,
    };
    let listener = bound.listen().with_context(|| format!("cannot listen on {address}"))?;
    if let (Some(address), Some(recorder)) = (settings.admin, recorder) {
        let token = admin_token.as_deref();
        let admin = Admin::new(layer.clone(), recorder, inspector, token, settings.admin_hosts);
        admin.serve(address).await?;
    }

    let scheme = if tls.is_some() { "https" } else { "http" };
    match &address {
        Address::Port(address) => {
            tracing::info!("serving {scheme}://{address}, sessions in {shown}");
        }
        Address::Unix(_) => tracing::info!("serving {scheme} at {address}, sessions in {shown}"),
    }
    match gateway {
        Some((gateway, traces)) => {
            let watch = gateway.clone();
            tokio::spawn(async move { watch.watch().await });
            connections::serve(listener, tls, limits, gateway, stop).await;
            if let Some(traces) = traces {
                let _ = tokio::task::spawn_blocking(move || traces.end()).await;
            }
        }
        None => {
            // The session panel shows some of the options in force.
            let app = demo::router().layer(layer.clone()).layer(axum::Extension(layer.clone()));
            let health = Router::new().route("/healthz", get(healthz)).with_state(layer);
            connections::serve(listener, tls, limits, app.merge(health), stop).await;
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// File descriptors besides clients' and upstream connections: for the admin address, the store and
/// the rest.
const OTHER_FILES: usize = admin::CONNECTIONS + 192;

/// Returns the number of file descriptors needed: one per connection, and one per request for its
/// upstream connection.
fn files_for(bounds: &Bounds) -> usize {
    bounds.connections + bounds.requests + OTHER_FILES
}

/// Raises the limit on open files as far as needed and permitted, and returns the resulting limit.
fn allow_files(bounds: &Bounds) -> usize {
    let needed = files_for(bounds) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < needed) else { return usize::MAX };
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(wanted), maximum };
    let now = setrlimit(Resource::Nofile, limit).map_or(current, |()| wanted);
    usize::try_from(now).unwrap_or(usize::MAX)
}

/// Lowers the bounds to what the file limit permits: without free descriptors, neither client nor
/// upstream connections can be opened.
fn fit(bounds: &mut Bounds, files: usize) {
    let needed = files_for(bounds);
    if needed <= files {
        return;
    }
    let usable = files.saturating_sub(OTHER_FILES).max(files / 4).max(2);
    let asked = bounds.clone();
    bounds.requests = asked.requests.min((usable / 3).max(1));
    bounds.connections = asked.connections.min(usable - bounds.requests);
    // Prevents a single client from taking all of them.
    bounds.per_client = asked.per_client.min(bounds.requests.div_ceil(4));
    tracing::warn!(
        "only {files} files may be open: limits.connections is {}, not {}, limits.requests is {}, \
         not {}, limits.per_client is {}, not {}; raise it with `ulimit -n {needed}`",
        bounds.connections,
        asked.connections,
        bounds.requests,
        asked.requests,
        bounds.per_client,
        asked.per_client,
    );
}

/// Reloads the certificate on SIGHUP.
fn reload_on_hangup(tls: Option<Tls>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle signals")?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.as_ref().map(Tls::reload) {
                Some(Ok(())) => tracing::info!("the TLS certificate was read again"),
                Some(Err(why)) => tracing::error!("the old TLS certificate stays: {why}"),
                None => tracing::info!("there is no TLS certificate to read again"),
            }
        }
    });
    Ok(())
}

/// Completes on SIGTERM or Ctrl-C.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let handler = |kind| signal(kind).context("cannot handle signals");
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(files: usize) -> Bounds {
        let mut bounds =
            Bounds { connections: 8192, requests: 8192, per_client: 512, exempt: Vec::new() };
        fit(&mut bounds, files);
        bounds
    }

    #[test]
    fn bounds_are_lowered_to_what_the_open_files_are_enough_for() {
        let whole = fitted(20_000);
        assert_eq!((whole.connections, whole.requests, whole.per_client), (8192, 8192, 512));
        for files in [1, 64, 256, 1024, 4096, 16_000] {
            let fitted = fitted(files);
            let Bounds { connections, requests, per_client, .. } = fitted;
            assert!(connections > 0 && requests > 0 && per_client > 0, "{files}: {fitted:?}");
            assert!(per_client <= requests, "{files}: {fitted:?}");
            assert!(files < 512 || files_for(&fitted) <= files, "{files}: {fitted:?}");
        }
    }
}
