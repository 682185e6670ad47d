//! The admin address: metrics, and whether the program is well.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use edge_session::SessionLayer;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::serve::healthz;

/// What the admin address shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) layer: SessionLayer,
    pub(crate) recorder: PrometheusHandle,
}

/// Serve the admin address in the background, as long as the program runs.
pub(crate) async fn serve(address: SocketAddr, admin: Admin) -> Result<(), String> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address} (admin.listen): {error}"))?;
    tracing::info!("metrics at http://{address}/metrics");
    let router = router(admin);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn router(admin: Admin) -> Router {
    let health = Router::new().route("/readyz", get(healthz)).with_state(admin.layer.clone());
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async |State(admin): State<Admin>| admin.recorder.render()))
        .with_state(admin)
        .merge(health)
}
