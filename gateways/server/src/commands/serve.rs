//! `edge-session serve`: sets up what was configured, and serves until it is stopped.

use std::future::Future;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use edge_session::SessionLayer;
use ipnet::{Ipv4Net, Ipv6Net};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::auth::{Auth, AuthSettings};
use crate::demo;
use crate::ext_proc::ExtProc;
use crate::health::healthz;
use crate::net::address::{Address, Bound};
use crate::net::connections::{self, Answers, Bounds, Limits};
use crate::net::tls::Tls;
use crate::proxy::{Applications, Proxy};
use crate::setup::Setup;
use crate::telemetry;
use crate::telemetry::traces::Traces;

/// Serves. The error is shown to the person who started the program.
pub(crate) async fn serve(setup: Setup) -> anyhow::Result<()> {
    let recorder = setup.settings.admin.is_some().then(telemetry::record_metrics).transpose()?;
    let stores = setup.open_store().await?;
    let inspector = setup.inspector(stores.browse);
    let shown = setup.shown_store();
    let Setup { component, options, settings, admin_token, auth_token, .. } = setup;
    let deadline = settings.mongodb.timeout;
    let layer = SessionLayer::with_deadline(component, options, stores.store.clone(), deadline)?;
    let store = stores.store;
    let is_served = settings.serves_http();
    let tls = settings.tls.map(Tls::load).transpose()?;
    let mut limits = settings.limits;
    let files = allow_files(&limits.bounds);
    fit(&mut limits.bounds, files);
    let bound = is_served.then(|| Bound::at(settings.listen)).transpose()?;
    let ext_proc = settings.ext_proc.map(|at| bind(&at, "ext_proc.listen")).transpose()?;
    let auth = settings.auth.map(|at| bind(&at, "auth.listen")).transpose()?;
    let stop = stop_signal()?;
    reload_on_hangup(tls.clone())?;
    let mut servers = Servers::new(tls, limits);
    let traces = match (&settings.gateway, settings.otlp.as_deref()) {
        (Some(_), Some(url)) => Some(Traces::to(url)?),
        _ => None,
    };
    let proxy = |gateway, applications| {
        Proxy::new(gateway, applications, &layer, traces.clone(), settings.log.requests)
    };
    // An application that is a component is compiled here.
    match (&settings.gateway, bound) {
        (_, None) => {}
        (Some(gateway), Some(bound)) => {
            let proxy = proxy(gateway.clone(), gateway.applications()?)?;
            let watch = proxy.clone();
            servers.serve(bound, proxy, &format!(", sessions in {shown}"))?;
            tokio::spawn(async move { watch.watch().await });
        }
        (None, Some(bound)) => {
            // The session panel shows some of the options in force.
            let app = demo::router().layer(layer.clone()).layer(axum::Extension(layer.clone()));
            let health = Router::new().route("/healthz", get(healthz)).with_state(layer.clone());
            servers.serve(bound, app.merge(health), &format!(", sessions in {shown}"))?;
        }
    }
    if let Some(gateway) = settings.gateway.filter(|_| ext_proc.is_some() || auth.is_some()) {
        // The connections of one gateway are those of many clients.
        servers.limits.bounds.exempt = vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
        let asked = proxy(gateway.clone(), Applications::Elsewhere)?;
        if let Some(bound) = ext_proc {
            let service = ExtProc::new(asked.clone(), layer.clone());
            servers.serve(
                bound,
                service,
                &format!(" for Envoy's ext_proc, sessions in {shown}"),
            )?;
        }
        if let Some(bound) = auth {
            let settings = AuthSettings {
                values: settings.auth_headers,
                trusted: gateway.trusted_proxies,
                cookie_path: settings.cookie_path,
                is_shared: gateway.is_shared,
                renewed_for: gateway.renewed_for,
            };
            let service =
                Auth::new(asked, &layer, (store, deadline), settings, auth_token.as_deref());
            let api = match auth_token {
                Some(_) => "with the session API",
                None => "without the session API, since EDGE_SESSION_AUTH_TOKEN is not set",
            };
            servers.serve(bound, service, &format!("/auth, {api}, sessions in {shown}"))?;
        }
    }
    if let (Some(address), Some(recorder)) = (settings.admin, recorder) {
        let token = admin_token.as_deref();
        let admin = Admin::new(layer, recorder, inspector, token, settings.admin_hosts);
        admin.serve(address).await?;
    }
    stop.await;
    servers.end().await;
    if let Some(traces) = traces {
        let _ = tokio::task::spawn_blocking(move || traces.end()).await;
    }
    tracing::info!("stopped");
    Ok(())
}

fn bind(address: &Address, key: &str) -> anyhow::Result<Bound> {
    Bound::new(address).with_context(|| format!("cannot listen on {address} ({key})"))
}

/// The servers at all addresses but the admin address.
struct Servers {
    tls: Option<Tls>,
    limits: Limits,
    running: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Servers {
    fn new(tls: Option<Tls>, limits: Limits) -> Self {
        Self { tls, limits, running: JoinSet::new(), stop: watch::Sender::default() }
    }

    /// Begins to serve. The log tells the address, followed by `what`.
    fn serve(&mut self, bound: Bound, service: impl Answers, what: &str) -> anyhow::Result<()> {
        let address = bound.address()?;
        let listener = bound.listen().with_context(|| format!("cannot listen on {address}"))?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &address {
            Address::Port(address) => tracing::info!("serving {scheme}://{address}{what}"),
            Address::Unix(_) => tracing::info!("serving {scheme} at {address}{what}"),
        }
        let mut stop = self.stop.subscribe();
        let stop = async move {
            // The sender lives as long as the servers.
            let _ = stop.wait_for(|is_over| *is_over).await;
        };
        let (tls, limits) = (self.tls.clone(), self.limits.clone());
        self.running.spawn(connections::serve(listener, tls, limits, service, stop));
        Ok(())
    }

    /// Drains all connections.
    async fn end(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
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
        "this process can open only {files} files: limits.connections is {}, not {}, \
         limits.requests is {}, not {}, limits.per_client is {}, not {}; raise the limit with \
         `ulimit -n {needed}`",
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
                Some(Ok(())) => tracing::info!("the TLS certificate was reloaded"),
                Some(Err(why)) => tracing::error!(
                    "the TLS certificate was not reloaded, and the old one stays in use: {why}"
                ),
                None => tracing::info!("there is no TLS certificate to reload"),
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
