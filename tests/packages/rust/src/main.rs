//! A view counter with the library alone: its component is the one that comes with it.

use axum::{Router, routing::get};
use edge_session::{Component, Options, Session, SessionError, SessionLayer, store::MemoryStore};

async fn count(session: Session) -> Result<String, SessionError> {
    let count = session.get::<u64>("viewCount")?.unwrap_or(0) + 1;
    session.insert("viewCount", count)?;
    Ok(format!("you have visited this page {count} times"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::default();
    options.secret(std::env::var("SECRET")?);
    let layer = SessionLayer::new(Component::bundled()?, options, MemoryStore::default())?;
    let app: Router = Router::new().route("/", get(count)).layer(layer);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", std::env::var("PORT")?.parse()?)).await?;
    Ok(axum::serve(listener, app).await?)
}
