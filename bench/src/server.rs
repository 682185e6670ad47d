//! A page with and without a session, and servers for it: for each, the program runs itself.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use edge_session::{Component, Logic, Native, Options, SessionLayer};
use tower_sessions::SessionManagerLayer;
use tower_sessions::cookie::Key;

use crate::{Result, SECRET, component_path};

/// What a server's page does.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Does not use sessions.
    Bare,
    /// Counts visits in a session of tower-sessions.
    TowerSessions,
    /// Counts visits in a session of edge-session.
    EdgeSession,
    /// The same without the sandbox: the feature `native`.
    EdgeSessionNative,
}

impl Kind {
    const ALL: [Self; 4] =
        [Self::Bare, Self::TowerSessions, Self::EdgeSession, Self::EdgeSessionNative];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::TowerSessions => "tower-sessions",
            Self::EdgeSession => "edge-session",
            Self::EdgeSessionNative => "edge-session-native",
        }
    }
}

/// Returns the page and its layer.
pub(crate) fn app(kind: Kind) -> Result<Router> {
    Ok(match kind {
        Kind::Bare => Router::new().route("/", get(static_page)),
        Kind::TowerSessions => {
            let layer = SessionManagerLayer::new(tower_sessions::MemoryStore::default())
                .with_secure(false)
                .with_signed(Key::from(SECRET));
            Router::new().route("/", get(count_in_tower_sessions)).layer(layer)
        }
        Kind::EdgeSession => edge_session_app(Component::from_file(component_path(), None)?)?,
        Kind::EdgeSessionNative => edge_session_app(Native::default())?,
    })
}

fn edge_session_app(logic: impl Into<Logic>) -> Result<Router> {
    let mut options = Options::default();
    options.secret(SECRET);
    let store = edge_session::store::MemoryStore::default();
    let layer = SessionLayer::new(logic, options, store)?;
    Ok(Router::new().route("/", get(count_in_edge_session)).layer(layer))
}

/// Serves until killed. The port is the first line of the output.
pub(crate) fn serve(kind: &str) -> Result<()> {
    let kind =
        Kind::ALL.into_iter().find(|it| it.name() == kind).ok_or("no such kind of server")?;
    let app = app(kind)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        axum::serve(listener, app).await?;
        Ok(())
    })
}

fn page(count: u64) -> Html<String> {
    Html(format!("<h1>you have visited this page {count} times</h1>"))
}

async fn static_page() -> Html<String> {
    // As many digits as the counts of the others.
    static COUNT: AtomicU64 = AtomicU64::new(100);
    page(COUNT.load(Ordering::Relaxed))
}

async fn count_in_tower_sessions(
    session: tower_sessions::Session,
) -> std::result::Result<Html<String>, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let count = session.get::<u64>("viewCount").await.map_err(failed)?.unwrap_or(0) + 1;
    session.insert("viewCount", count).await.map_err(failed)?;
    Ok(page(count))
}

async fn count_in_edge_session(
    session: edge_session::Session,
) -> std::result::Result<Html<String>, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let count = session.get::<u64>("viewCount").map_err(failed)?.unwrap_or(0) + 1;
    session.insert("viewCount", count).map_err(failed)?;
    Ok(page(count))
}
