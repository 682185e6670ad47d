//! Sessions in an axum application. In the repository's root, run
//! `EDGE_SESSION_SECRET=$(openssl rand -base64 48) cargo run -p example-axum`, then open
//! http://127.0.0.1:3000.

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
    let secret = std::env::var("EDGE_SESSION_SECRET").expect("EDGE_SESSION_SECRET is not set");
    options.secret(secret);
    let layer = SessionLayer::new(Component::bundled()?, options, MemoryStore::default())?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, Router::new().route("/", get(count)).layer(layer)).await?)
}
