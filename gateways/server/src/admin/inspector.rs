//! Lists and ends sessions for operators, on the command line and on the admin pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use edge_session::store::{Browse, Entry, StoreError};
use edge_session::{Found, SessionHasher, Unreadable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Inspects the sessions of one store.
#[derive(Clone)]
pub(crate) struct Inspector {
    pub(crate) browse: Arc<dyn Browse>,
    pub(crate) hasher: SessionHasher,
    /// The JSON pointer to the logged-in user.
    pub(crate) identity: Option<String>,
}

/// A listed session. `session` is its name, not its identifier, which is never shown.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Listed {
    pub(crate) session: String,
    /// The logged-in user.
    pub(crate) subject: Option<String>,
    /// Whether there is, or may be, a subject that cannot be read.
    pub(crate) unreadable: bool,
    /// In milliseconds since the Unix epoch, like all times here; none if the store does not record
    /// it.
    pub(crate) created: Option<u64>,
    /// None: never.
    pub(crate) expires: Option<u64>,
    /// The size of the stored text.
    pub(crate) bytes: usize,
}

/// A list of sessions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Listing {
    /// Most recently used first, provided that all have the same lifetime.
    pub(crate) sessions: Vec<Listed>,
    /// The approximate number of sessions in the store.
    pub(crate) total: u64,
    /// Whether there are more than the limit.
    pub(crate) has_more: bool,
}

/// A session with its data.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    pub(crate) listed: Listed,
    /// None: the stored text is not a JSON object.
    pub(crate) data: Option<Value>,
    /// The stored text, if there is no `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw: Option<String>,
}

/// The result of ending all sessions of a subject.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Ended {
    pub(crate) ended: u64,
    /// How many sessions of unreadable subjects are left, which may belong to this one.
    pub(crate) unreadable: u64,
}

/// Why sessions cannot be found by subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(
        "sessions have no subject: gateway.identity is not set. Set it to the JSON pointer to the \
         logged-in user, for example /passport/user"
    )]
    NoIdentity,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Inspector {
    /// Lists at most `limit` sessions whose subject contains `subject`, ignoring case, or is
    /// unreadable.
    pub(crate) async fn list(
        &self,
        subject: Option<&str>,
        limit: usize,
    ) -> Result<Listing, InspectError> {
        if subject.is_some() && self.identity.is_none() {
            return Err(InspectError::NoIdentity);
        }
        let wanted = subject.map(str::to_lowercase);
        let mut sessions = Vec::new();
        let mut has_more = false;
        self.scan(|inspector, entry| {
            if is_note(entry) {
                return true;
            }
            let listed = inspector.listed(entry);
            let subject = || listed.subject.as_ref().map(|subject| subject.to_lowercase());
            let is_wanted = match &wanted {
                None => true,
                Some(_) if listed.unreadable => true,
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

    /// Returns the session with this name.
    pub(crate) async fn show(&self, name: &str) -> Result<Option<Shown>, StoreError> {
        let mut found = None;
        self.scan(|inspector, entry| {
            if inspector.hasher.name_of_digest(&entry.digest) == name {
                let data = data(entry);
                let raw = data.is_none().then(|| entry.stored.data.clone());
                found = Some(Shown { listed: inspector.listed(entry), data, raw });
            }
            found.is_none()
        })
        .await?;
        Ok(found)
    }

    /// Ends the session with this name, and returns whether it existed.
    pub(crate) async fn end(&self, name: &str) -> Result<bool, StoreError> {
        let named = |inspector: &Self, entry: &Entry| {
            inspector.hasher.name_of_digest(&entry.digest) == name
        };
        Ok(self.end_where(named).await? > 0)
    }

    /// Ends all sessions of exactly this subject.
    pub(crate) async fn end_all(&self, subject: &str) -> Result<Ended, InspectError> {
        if self.identity.is_none() {
            return Err(InspectError::NoIdentity);
        }
        let unreadable = AtomicU64::new(0);
        let theirs = |inspector: &Self, entry: &Entry| match inspector.subject(entry) {
            Subject::Nobody => false,
            Subject::Named(name) => name == subject,
            Subject::Unreadable => {
                unreadable.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
        let ended = self.end_where(theirs).await?;
        Ok(Ended { ended, unreadable: unreadable.into_inner() })
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

    /// Visits all sessions until `look` returns false.
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
        let (subject, unreadable) = match self.subject(entry) {
            Subject::Nobody => (None, false),
            Subject::Named(name) => (Some(name), false),
            Subject::Unreadable => (None, true),
        };
        Listed {
            session: self.hasher.name_of_digest(&entry.digest),
            subject,
            unreadable,
            created: entry.created,
            expires: entry.stored.expires,
            bytes: entry.stored.data.len(),
        }
    }

    /// Returns the logged-in user, as guards read it.
    fn subject(&self, entry: &Entry) -> Subject {
        let Some(identity) = &self.identity else { return Subject::Nobody };
        let found = Found::in_data(&entry.stored.data, identity);
        match (found.value(), found.text()) {
            (Ok(None | Some(Value::Null)), _) => Subject::Nobody,
            (Ok(Some(Value::String(name))), _) => Subject::Named(name),
            // As written, since two long numbers may have the same `Value`.
            (Ok(Some(Value::Number(_))), Ok(Some(number))) => Subject::Named(number.to_owned()),
            (Ok(Some(other)), _) => Subject::Named(other.to_string()),
            (Err(Unreadable), _) => Subject::Unreadable,
        }
    }
}

/// The logged-in user of a session.
enum Subject {
    Nobody,
    Named(String),
    /// A user may be logged in.
    Unreadable,
}

/// Returns whether an entry is not a session but the note that the component stores for some
/// seconds under an old identifier, for late requests.
fn is_note(entry: &Entry) -> bool {
    const KEY: &str = "movedTo";
    entry.stored.data.contains(KEY)
        && data(entry).is_some_and(|data| {
            data.as_object().is_some_and(|data| data.len() == 1 && data.contains_key(KEY))
        })
}

/// Returns the session's own data, an object.
fn data(entry: &Entry) -> Option<Value> {
    let mut data: Map<String, Value> = serde_json::from_str(&entry.stored.data).ok()?;
    data.shift_remove("cookie");
    Some(Value::Object(data))
}

/// Makes a text safe to print to a terminal, whatever applications stored: escapes control
/// characters and those that change the direction of the text.
pub(crate) fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' => harmless.push(c),
            // In JSON these occur only in strings, where the escape is equivalent.
            c if c.is_control() || turns => harmless.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => harmless.push(c),
        }
    }
    harmless
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_session::store::{Content, Created, MemoryStore, Store as _};

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
            ("surrogate", r#"{"cookie":{},"passport":{"user":"Zoe\ud800"}}"#),
            ("key", r#"{"cookie":{},"\ud800":1,"passport":{"user":"Ada"}}"#),
            ("beside", r#"{"cookie":{},"a":"\ud800","passport":{"a":"\ud800","user":"Ada"}}"#),
            ("long", r#"{"cookie":{},"passport":{"user":10000000000000000000001}}"#),
            ("longer", r#"{"cookie":{},"passport":{"user":10000000000000000000002}}"#),
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

    async fn subjects(inspector: &Inspector, subject: &str) -> Vec<Option<String>> {
        let listing = inspector.list(Some(subject), 100).await.unwrap();
        let mut subjects: Vec<_> = listing.sessions.into_iter().map(|it| it.subject).collect();
        subjects.sort();
        subjects
    }

    #[tokio::test]
    async fn sessions_are_found_by_a_part_of_their_subject() {
        let inspector = inspector().await;
        let all = inspector.list(None, 100).await.unwrap();
        assert_eq!((all.sessions.len(), all.total, all.has_more), (11, 11, false));
        assert_eq!(all.sessions.iter().filter(|it| it.unreadable).count(), 2);
        let some = |names: &[&str]| names.iter().map(|it| Some((*it).to_owned())).collect();
        // Sessions with unreadable subjects may belong to anyone.
        let with = |names: &[&str]| [vec![None, None], some(names)].concat();
        assert_eq!(subjects(&inspector, "zo").await, with(&["Zoe", "Zoe", "zoey"]));
        assert_eq!(subjects(&inspector, "7").await, with(&["7"]));
        assert_eq!(subjects(&inspector, "ada").await, with(&["Ada", "Ada"]));
        let some = inspector.list(None, 2).await.unwrap();
        assert_eq!((some.sessions.len(), some.has_more), (2, true));
    }

    #[tokio::test]
    async fn a_session_is_shown_and_ended_by_its_name() {
        let inspector = inspector().await;
        let name = inspector.hasher.name("nobody");
        let shown = inspector.show(&name).await.unwrap().unwrap();
        assert_eq!((shown.listed.subject, shown.listed.unreadable), (None, false));
        assert_eq!(shown.data.unwrap(), serde_json::json!({ "viewCount": 1 }));
        assert_eq!(shown.raw, None);
        assert!(inspector.end(&name).await.unwrap());
        assert!(!inspector.end(&name).await.unwrap());
        assert!(inspector.show(&name).await.unwrap().is_none());
        for (id, text) in [("damaged", "not JSON"), ("key", r#""\ud800":1"#)] {
            let shown = inspector.show(&inspector.hasher.name(id)).await.unwrap().unwrap();
            assert!(shown.data.is_none() && shown.raw.unwrap().contains(text), "{id}");
            assert!(inspector.end(&inspector.hasher.name(id)).await.unwrap());
        }
    }

    #[tokio::test]
    async fn ending_all_of_somebody_ends_nobody_elses_and_says_who_may_be_left() {
        let inspector = inspector().await;
        for (subject, ended) in
            [("Zo", 0), ("Zoe", 2), ("Ada", 2), ("10000000000000000000001", 1), ("null", 0)]
        {
            let expected = Ended { ended, unreadable: 2 };
            assert_eq!(inspector.end_all(subject).await.unwrap(), expected, "{subject}");
        }
        assert_eq!(inspector.list(None, 100).await.unwrap().total, 6);
        for id in ["damaged", "surrogate"] {
            assert!(inspector.end(&inspector.hasher.name(id)).await.unwrap());
        }
        let expected = Ended { ended: 1, unreadable: 0 };
        assert_eq!(inspector.end_all("zoey").await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_a_moved_session_leaves_behind_is_not_listed() {
        let inspector = inspector().await;
        let before = inspector.list(None, 100).await.unwrap().sessions.len();
        let store = MemoryStore::default();
        for (id, data) in [
            ("note", r#"{"cookie":{},"movedTo":"sealed"}"#),
            ("session", r#"{"cookie":{},"movedTo":"sealed","a":1}"#),
        ] {
            let content = Content { data: data.to_owned(), expires: u64::MAX };
            assert_eq!(store.create(id, content).await.unwrap(), Created::Done);
        }
        let inspector = Inspector { browse: Arc::new(store), ..inspector };
        assert!(before > 0);
        assert_eq!(inspector.list(None, 100).await.unwrap().sessions.len(), 1);
    }

    #[tokio::test]
    async fn without_an_identity_nobody_is_looked_for() {
        let inspector = Inspector { identity: None, ..inspector().await };
        let refused = |error: InspectError| error.to_string().contains("gateway.identity");
        assert!(refused(inspector.end_all("Zoe").await.unwrap_err()));
        assert!(refused(inspector.list(Some("Zoe"), 100).await.unwrap_err()));
        assert_eq!(inspector.list(None, 100).await.unwrap().sessions.len(), 11);
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let json = serde_json::to_string_pretty(&["zo\u{eb}\u{1b}\u{9b}\u{7f}\u{202e}\u{2066}"]);
        let shown = harmless(&json.unwrap());
        assert_eq!(shown, "[\n  \"zo\u{eb}\\u001b\\u009b\\u007f\\u202e\\u2066\"\n]");
    }
}
