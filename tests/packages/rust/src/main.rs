//! A view counter with the library alone: its component is the one that comes with it.

use axum::{Router, routing::get};
use edge_session::{Component, Preset, Session, SessionError, SessionLayer, store::MemoryStore};

async fn count(session: Session) -> Result<String, SessionError> {
    let count = session.get::<u64>("viewCount")?.unwrap_or(0) + 1;
    session.insert("viewCount", count)?;
    Ok(format!("you have visited this page {count} times"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let component = Component::bundled()?;
    let mut options = component.defaults(Preset::Safe)?;
    options.secrets = vec![std::env::var("SECRET")?.into_bytes()];
    let layer = SessionLayer::new(component, options, MemoryStore::default())?;
    let app: Router = Router::new().route("/", get(count)).layer(layer);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", std::env::var("PORT")?.parse()?)).await?;
    Ok(axum::serve(listener, app).await?)
}
