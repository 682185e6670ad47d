//! The health check.

use axum::extract::State;
use axum::http::StatusCode;
use edge_session::SessionLayer;

/// Responds with OK if requests can be served, which requires the store.
pub(crate) async fn healthz(State(layer): State<SessionLayer>) -> (StatusCode, &'static str) {
    match layer.check_store().await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(why) => {
            tracing::warn!("not healthy: {why}");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not respond\n")
        }
    }
}
