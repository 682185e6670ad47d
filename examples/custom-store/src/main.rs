//! Sessions in a custom store. In the repository's root, run
//! `EDGE_SESSION_SECRET=$(openssl rand -base64 48) cargo run -p example-custom-store`, then open
//! http://127.0.0.1:3000. This store uses a map; any database works that can replace a value on the
//! condition that it has not changed since it was read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use axum::{Router, routing::get};
use edge_session::store::{Changed, Content, Created, Store, StoreError, Stored};
use edge_session::{Component, Options, Session, SessionError, SessionLayer};

/// Sessions by identifier.
#[derive(Default)]
struct MapStore(Mutex<HashMap<String, Stored>>);

impl MapStore {
    /// Returns the sessions that have not expired: a store treats an expired session as missing.
    fn live(&self) -> MutexGuard<'_, HashMap<String, Stored>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, stored| stored.expires.is_none_or(|at| u128::from(at) > now));
        sessions
    }
}

/// Converts a content to what is stored. This store does not record when a session was touched.
fn stored(Content { data, expires }: Content) -> Stored {
    Stored { data, expires: Some(expires), touched: None }
}

/// Returns why a conditional change cannot be made.
fn refusal(now: Option<&Stored>, expected: Option<&str>) -> Option<Changed> {
    match (now, expected) {
        (None, Some(_)) => Some(Changed::Missing),
        (Some(now), Some(text)) if now.data != text => Some(Changed::Conflict(now.clone())),
        _ => None,
    }
}

#[async_trait]
impl Store for MapStore {
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        Ok(self.live().get(id).cloned())
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let mut sessions = self.live();
        if sessions.contains_key(id) {
            return Ok(Created::Taken);
        }
        sessions.insert(id.to_owned(), stored(content));
        Ok(Created::Done)
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        // The lock makes comparing and writing atomic.
        let mut sessions = self.live();
        if let Some(refusal) = refusal(sessions.get(id), expected) {
            return Ok(refusal);
        }
        sessions.insert(id.to_owned(), stored(content));
        Ok(Changed::Done)
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        Ok(match self.live().get_mut(id) {
            None => Changed::Missing,
            Some(stored) => {
                stored.expires = Some(expires);
                Changed::Done
            }
        })
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let mut sessions = self.live();
        if let Some(refusal) = refusal(sessions.get(id), expected) {
            return Ok(refusal);
        }
        Ok(if sessions.remove(id).is_some() { Changed::Done } else { Changed::Missing })
    }
}

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
    let layer = SessionLayer::new(Component::bundled()?, options, MapStore::default())?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, Router::new().route("/", get(count)).layer(layer)).await?)
}

#[cfg(test)]
mod tests {
    /// The suite that the library's own stores pass.
    #[tokio::test]
    async fn it_keeps_every_promise_of_a_store() {
        let store = std::sync::Arc::new(super::MapStore::default());
        edge_session::store::conformance::check(store).await;
    }
}
