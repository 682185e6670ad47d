//! Seeing and ending sessions, for operators: on the command line and on the admin page.

use std::sync::Arc;

use edge_session::SessionHasher;
use edge_session::store::{Browse, Entry, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Looks at the sessions of one store.
#[derive(Clone)]
pub(crate) struct Inspector {
    pub(crate) browse: Arc<dyn Browse>,
    pub(crate) hasher: SessionHasher,
    /// The JSON pointer to who is logged in.
    pub(crate) identity: Option<String>,
}

/// What is told of a session. Its name is not its identifier, which nobody is told.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Listed {
    pub(crate) session: String,
    /// Who is logged in.
    pub(crate) subject: Option<String>,
    /// Milliseconds since the Unix epoch, as all times here; none: the store does not know.
    pub(crate) created: Option<u64>,
    /// None: never.
    pub(crate) expires: Option<u64>,
    /// The size of its text.
    pub(crate) bytes: usize,
}

/// Some sessions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Listing {
    /// Those that were used last come first, as far as lifetimes are the same.
    pub(crate) sessions: Vec<Listed>,
    /// How many sessions the store has, about.
    pub(crate) total: u64,
    /// There are more than were wanted.
    pub(crate) has_more: bool,
}

/// A session with its data.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    pub(crate) listed: Listed,
    /// None: what is stored cannot be read.
    pub(crate) data: Option<Value>,
}

impl Inspector {
    /// At most `limit` sessions whose subject contains `subject`, in any case of letters.
    pub(crate) async fn list(
        &self,
        subject: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        let wanted = subject.map(str::to_lowercase);
        let mut sessions = Vec::new();
        let mut has_more = false;
        self.scan(|inspector, entry| {
            let listed = inspector.listed(entry);
            let subject = || listed.subject.as_ref().map(|subject| subject.to_lowercase());
            let is_wanted = match &wanted {
                None => true,
                Some(wanted) => subject().is_some_and(|subject| subject.contains(wanted)),
            };
            if is_wanted && sessions.len() < limit {
                sessions.push(listed);
            } else if is_wanted {
                has_more = true;
            }
            !has_more
        })
        .await?;
        sessions.sort_by_key(|listed| std::cmp::Reverse(listed.expires));
        Ok(Listing { sessions, total: self.browse.count().await?, has_more })
    }

    /// The session of this name.
    pub(crate) async fn show(&self, name: &str) -> Result<Option<Shown>, StoreError> {
        let mut found = None;
        self.scan(|inspector, entry| {
            if inspector.hasher.name_of_digest(&entry.digest) == name {
                found = Some(Shown { listed: inspector.listed(entry), data: data(entry) });
            }
            found.is_none()
        })
        .await?;
        Ok(found)
    }

    /// End the session of this name; whether there was one.
    pub(crate) async fn end(&self, name: &str) -> Result<bool, StoreError> {
        let named = |inspector: &Self, entry: &Entry| {
            inspector.hasher.name_of_digest(&entry.digest) == name
        };
        Ok(self.end_where(named).await? > 0)
    }

    /// End all sessions of exactly this subject; how many there were.
    pub(crate) async fn end_all(&self, subject: &str) -> Result<u64, StoreError> {
        let theirs = |inspector: &Self, entry: &Entry| {
            inspector.subject(data(entry).as_ref()).as_deref() == Some(subject)
        };
        self.end_where(theirs).await
    }

    async fn end_where(
        &self,
        is_meant: impl Fn(&Self, &Entry) -> bool + Send + Sync,
    ) -> Result<u64, StoreError> {
        let mut keys = Vec::new();
        self.scan(|inspector, entry| {
            if is_meant(inspector, entry) {
                keys.push(entry.key.clone());
            }
            true
        })
        .await?;
        let mut ended = 0;
        for key in keys {
            if self.browse.remove(&key).await? {
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Look at all sessions, as long as `look` wants to go on.
    async fn scan(
        &self,
        mut look: impl FnMut(&Self, &Entry) -> bool + Send,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.browse.page(after.as_deref()).await?;
            for entry in &page.entries {
                if !look(self, entry) {
                    return Ok(());
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn listed(&self, entry: &Entry) -> Listed {
        Listed {
            session: self.hasher.name_of_digest(&entry.digest),
            subject: self.subject(data(entry).as_ref()),
            created: entry.created,
            expires: entry.stored.expires,
            bytes: entry.stored.data.len(),
        }
    }

    fn subject(&self, data: Option<&Value>) -> Option<String> {
        match data?.pointer(self.identity.as_deref()?)? {
            Value::Null => None,
            Value::String(subject) => Some(subject.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// The session's own data, an object.
fn data(entry: &Entry) -> Option<Value> {
    let mut data: Map<String, Value> = serde_json::from_str(&entry.stored.data).ok()?;
    data.shift_remove("cookie");
    Some(Value::Object(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_session::store::{Content, MemoryStore, Store as _};

    const LATER: u64 = 4_102_444_800_000;

    async fn inspector() -> Inspector {
        let store = MemoryStore::default();
        for (id, data) in [
            ("one", r#"{"cookie":{},"passport":{"user":"Zoe"}}"#),
            ("two", r#"{"cookie":{},"passport":{"user":"Zoe"}}"#),
            ("three", r#"{"cookie":{},"passport":{"user":"zoey"}}"#),
            ("number", r#"{"cookie":{},"passport":{"user":7}}"#),
            ("nobody", r#"{"cookie":{},"viewCount":1}"#),
            ("damaged", "not JSON"),
        ] {
            let content = Content { data: data.to_owned(), expires: LATER };
            let _ = store.create(id, content).await.unwrap();
        }
        Inspector {
            browse: Arc::new(store),
            hasher: SessionHasher::new(b"a secret"),
            identity: Some("/passport/user".to_owned()),
        }
    }

    #[tokio::test]
    async fn sessions_are_found_by_a_part_of_their_subject() {
        let inspector = inspector().await;
        let all = inspector.list(None, 100).await.unwrap();
        assert_eq!((all.sessions.len(), all.total, all.has_more), (6, 6, false));
        assert_eq!(inspector.list(Some("zo"), 100).await.unwrap().sessions.len(), 3);
        assert_eq!(inspector.list(Some("7"), 100).await.unwrap().sessions.len(), 1);
        let some = inspector.list(None, 2).await.unwrap();
        assert_eq!((some.sessions.len(), some.has_more), (2, true));
    }

    #[tokio::test]
    async fn a_session_is_shown_and_ended_by_its_name() {
        let inspector = inspector().await;
        let name = inspector.hasher.name("nobody");
        let shown = inspector.show(&name).await.unwrap().unwrap();
        assert_eq!(shown.listed.subject, None);
        assert_eq!(shown.data.unwrap(), serde_json::json!({ "viewCount": 1 }));
        assert!(inspector.end(&name).await.unwrap());
        assert!(!inspector.end(&name).await.unwrap());
        assert!(inspector.show(&name).await.unwrap().is_none());
        let damaged = inspector.show(&inspector.hasher.name("damaged")).await.unwrap().unwrap();
        assert!(damaged.data.is_none());
    }

    #[tokio::test]
    async fn ending_all_of_somebody_ends_nobody_elses() {
        let inspector = inspector().await;
        assert_eq!(inspector.end_all("Zo").await.unwrap(), 0);
        assert_eq!(inspector.end_all("Zoe").await.unwrap(), 2);
        assert_eq!(inspector.list(None, 100).await.unwrap().total, 4);
    }
}
