//! `edge-session serve`: put together what was configured, and serve until told to stop.

use std::future::Future;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use edge_session::SessionLayer;
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Admin;
use crate::app;
use crate::gateway::Gateway;
use crate::server;
use crate::setup::{Setup, without_secrets};
use crate::telemetry;
use crate::tls::Tls;
use crate::traces::Traces;

const LISTEN: &str = "127.0.0.1:8080";

/// Serve. An error is for the person who started the program.
pub(crate) async fn serve(setup: Setup) -> Result<(), String> {
    let recorder = setup.settings.admin.is_some().then(telemetry::record_metrics).transpose()?;
    let stores = setup.open_store().await?;
    let inspector = setup.inspector(stores.browse);
    let Setup { component, options, settings, store_url, admin_token } = setup;
    let deadline = settings.mongodb.timeout;
    let layer = SessionLayer::with_deadline(component, options, stores.store, deadline)
        .map_err(|error| error.to_string())?;
    let tls = settings.tls.map(Tls::load).transpose()?;
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    allow_connections(settings.limits.connections);
    let stop = stop_signal()?;
    reload_on_hangup(tls.clone())?;
    if let (Some(address), Some(recorder)) = (settings.admin, recorder) {
        let admin = Admin::new(layer.clone(), recorder, inspector, admin_token.as_deref());
        admin.serve(address).await?;
    }

    let scheme = if tls.is_some() { "https" } else { "http" };
    let shown = without_secrets(&store_url);
    tracing::info!("serving {scheme}://{address}, sessions in {shown}");
    match settings.gateway {
        Some(gateway) => {
            let traces = settings.otlp.as_deref().map(Traces::to).transpose()?;
            let gateway = Gateway::new(gateway, &layer, traces.clone(), settings.log.requests)?;
            let watch = gateway.clone();
            tokio::spawn(async move { watch.watch().await });
            server::serve(listener, tls, settings.limits, gateway, stop).await;
            if let Some(traces) = traces {
                let _ = tokio::task::spawn_blocking(move || traces.end()).await;
            }
        }
        None => {
            // The session panel shows some of the options that are in force.
            let app = app::router().layer(layer.clone()).layer(axum::Extension(layer.clone()));
            let health = Router::new().route("/healthz", get(healthz)).with_state(layer);
            server::serve(listener, tls, settings.limits, app.merge(health), stop).await;
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Ready to serve requests, which need the store.
pub(crate) async fn healthz(State(layer): State<SessionLayer>) -> (StatusCode, &'static str) {
    match layer.check_store().await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(why) => {
            tracing::warn!("not healthy: {why}");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n")
        }
    }
}

/// A socket that was handed over (systemd's socket activation), or a new one.
async fn listen(address: Option<std::net::SocketAddr>) -> Result<TcpListener, String> {
    let handed = ListenFd::from_env()
        .take_tcp_listener(0)
        .map_err(|error| format!("the socket that was handed over cannot be used: {error}"))?;
    if let Some(listener) = handed {
        let listener = listener.set_nonblocking(true).map(|()| listener);
        return listener
            .and_then(TcpListener::from_std)
            .map_err(|error| format!("the socket that was handed over cannot be used: {error}"));
    }
    let address = address.map_or(LISTEN.to_owned(), |address| address.to_string());
    TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Every connection needs a file descriptor; while it waits for an application, two.
fn allow_connections(connections: usize) {
    const OTHERS: u64 = 256;
    let needed = 2 * connections as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < needed) else { return };
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(wanted), maximum };
    let now = setrlimit(Resource::Nofile, limit).map_or(current, |()| wanted);
    if now < needed {
        tracing::warn!(
            "only {now} files may be open, which is too few for {connections} connections \
             (limits.connections): raise it with `ulimit -n {needed}`"
        );
    }
}

/// SIGHUP: the certificate's files have changed.
fn reload_on_hangup(tls: Option<Tls>) -> Result<(), String> {
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| format!("cannot handle signals: {error}"))?;
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

/// SIGTERM, or Ctrl-C.
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    let handler = |kind| signal(kind).map_err(|error| format!("cannot handle signals: {error}"));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
