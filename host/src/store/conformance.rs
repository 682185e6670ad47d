//! The test suite for stores, including your own.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use edge_session::store::{MemoryStore, conformance};
//!
//! conformance::check(std::sync::Arc::new(MemoryStore::default())).await;
//! # });
//! ```

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Browse, Changed, Content, Created, Store, Stored, digest, now};

macro_rules! promise {
    ($promise:literal, $actual:expr, $expected:expr) => {
        let actual = $actual.await.expect("the store works");
        assert_eq!(actual, $expected, "{}", $promise);
    };
}

/// Checks every promise of [`Store`].
///
/// # Panics
///
/// With a description of the broken promise. Sessions whose identifiers begin with `conformance-`,
/// in upper or lower case, are overwritten and deleted.
pub async fn check(store: Arc<impl Store>) {
    let store = Suite { store };
    store.creating().await;
    store.replacing().await;
    store.replacing_when_expected().await;
    store.touching().await;
    store.deleting().await;
    store.expired_sessions_are_missing().await;
    store.texts_survive().await;
    store.identifiers_differ().await;
    store.one_of_many_wins().await;
    store.one_of_many_creates().await;
    store.one_of_many_deletes().await;
    store.touches_leave_changes().await;
}

/// Checks every promise of [`Browse`]. The store must be empty.
///
/// # Panics
///
/// With a description of the broken promise.
pub async fn check_browsing(store: Arc<impl Store + Browse>) {
    const COUNT: usize = 2500;
    let mut creations = JoinSet::new();
    for number in 0..COUNT {
        let store = store.clone();
        let data = content(&format!("{{\"cookie\":{{}},\"number\":{number}}}"));
        creations.spawn(async move { store.create(&key(&number.to_string()), data).await });
    }
    for created in creations.join_all().await {
        assert_eq!(created.expect("the store works"), Created::Done);
    }
    let expired = Content { data: "{}".to_owned(), expires: 1 };
    let created = store.create(&key("expired"), expired).await;
    assert_eq!(created.expect("the store works"), Created::Done);

    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(after.as_deref()).await.expect("the store works");
        entries.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut digests: Vec<_> = entries.iter().map(|entry| entry.digest.clone()).collect();
    let mut expected: Vec<_> = (0..COUNT).map(|n| digest(&key(&n.to_string()))).collect();
    digests.sort();
    expected.sort();
    assert!(digests == expected, "every session that has not expired is on exactly one page");
    let count = store.count().await.expect("the store works");
    assert!((COUNT as u64..=COUNT as u64 + 1).contains(&count), "all are counted: {count}");
    for entry in &entries {
        let data = &entry.stored.data;
        assert!(data.contains("number"), "an entry holds what is stored");
        let is_now = |created: u64| created <= now() && created + 600_000 > now();
        assert!(entry.created.is_none_or(is_now), "a session was created when it was created");
    }
    let [first, others @ ..] = &entries[..] else { panic!("there are sessions") };
    promise!("an entry's key removes it", store.remove(&first.key), true);
    promise!("what was removed is not there", store.remove(&first.key), false);
    let mut removals = JoinSet::new();
    for entry in others {
        let (store, key) = (store.clone(), entry.key.clone());
        removals.spawn(async move { store.remove(&key).await });
    }
    for removed in removals.join_all().await {
        assert!(removed.expect("the store works"), "all can be removed");
    }
    let left = store.page(None).await.expect("the store works").entries;
    assert!(left.is_empty(), "nothing is left");
}

struct Suite<S> {
    store: Arc<S>,
}

const LATER: u64 = 4_102_444_800_000; // The year 2100.
const EVEN_LATER: u64 = LATER + 60_000;

/// The number of concurrent operations.
const AT_ONCE: usize = 64;

// Some databases check that a session's text is JSON.
const A: &str = r#"{"is":"a"}"#;
const B: &str = r#"{"is":"b"}"#;
const C: &str = r#"{"is":"c"}"#;

fn key(id: &str) -> String {
    format!("conformance-{id}")
}

fn content(data: &str) -> Content {
    until(data, LATER)
}

fn until(data: &str, expires: u64) -> Content {
    Content { data: data.to_owned(), expires }
}

fn stored(data: &str) -> Stored {
    stored_until(data, LATER)
}

fn stored_until(data: &str, expires: u64) -> Stored {
    Stored { data: data.to_owned(), expires: Some(expires), touched: None }
}

/// Returns what every store returns: without the time of the last touch, which only some stores
/// know, and with the expiry to the nearest ten seconds. Some stores round it up to a second, or
/// count from their own clock.
fn plain(stored: Stored) -> Stored {
    let expires = stored.expires.map(|it| (it + 5_000) / 10_000 * 10_000);
    Stored { expires, touched: None, ..stored }
}

fn plainly(changed: Changed) -> Changed {
    match changed {
        Changed::Conflict(stored) => Changed::Conflict(plain(stored)),
        other => other,
    }
}

impl<S: Store> Suite<S> {
    /// Stores a session, whatever was stored before, and returns its identifier.
    async fn with(&self, id: &str, data: &str) -> String {
        let id = key(id);
        let _ = self.store.replace(&id, content(data), None).await.expect("the store works");
        id
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, super::StoreError> {
        Ok(self.store.load(id).await?.map(plain))
    }

    async fn without(&self, id: &str) -> String {
        let id = key(id);
        let _ = self.store.delete(&id, None).await.expect("the store works");
        id
    }

    async fn creating(&self) {
        let store = &self.store;
        let id = self.without("create").await;
        promise!("what was never stored is missing", self.load(&id), None);
        promise!("creating stores", store.create(&id, content(A)), Created::Done);
        promise!("what was stored is found", self.load(&id), Some(stored(A)));
        promise!("creating never overwrites", store.create(&id, content(B)), Created::Taken);
        promise!("after a refused creation the old text is there", self.load(&id), Some(stored(A)));
        self.without("create").await;
    }

    async fn replacing(&self) {
        let store = &self.store;
        let id = self.without("replace").await;
        promise!("replacing creates", store.replace(&id, content(A), None), Changed::Done);
        promise!("replacing overwrites", store.replace(&id, content(B), None), Changed::Done);
        promise!("the last text is found", self.load(&id), Some(stored(B)));
        let replaced = store.replace(&id, until(C, EVEN_LATER), None);
        promise!("so does it with another expiry", replaced, Changed::Done);
        promise!("which is found, too", self.load(&id), Some(stored_until(C, EVEN_LATER)));
        self.without("replace").await;
    }

    async fn replacing_when_expected(&self) {
        let store = &self.store;
        let id = self.with("expect", A).await;
        let replace = async |data, expected| {
            store.replace(&id, content(data), Some(expected)).await.map(plainly)
        };
        promise!("the expected text is replaced", replace(B, A), Changed::Done);
        promise!("another text is a conflict", replace(C, A), Changed::Conflict(stored(B)));
        promise!("after a conflict nothing has changed", self.load(&id), Some(stored(B)));
        promise!("the same text can be stored again", replace(B, B), Changed::Done);
        let replaced = store.replace(&id, until(C, EVEN_LATER), Some(B));
        promise!("so can another, with another expiry", replaced, Changed::Done);
        promise!("which is found, too", self.load(&id), Some(stored_until(C, EVEN_LATER)));
        self.without("expect").await;
        promise!("a missing session is not created", replace(C, B), Changed::Missing);
        promise!("nor is it there afterwards", self.load(&id), None);
    }

    async fn touching(&self) {
        let store = &self.store;
        let id = self.with("touch", A).await;
        promise!("touching moves the expiry", store.touch(&id, EVEN_LATER), Changed::Done);
        promise!("and leaves the text", self.load(&id), Some(stored_until(A, EVEN_LATER)));
        promise!("touching twice is fine", store.touch(&id, EVEN_LATER), Changed::Done);
        self.without("touch").await;
        promise!("touching never creates", store.touch(&id, LATER), Changed::Missing);
        promise!("nor is it there afterwards", self.load(&id), None);
    }

    async fn deleting(&self) {
        let store = &self.store;
        let id = self.with("delete", A).await;
        let delete = async |expected| store.delete(&id, Some(expected)).await.map(plainly);
        promise!("another text is not deleted", delete(B), Changed::Conflict(stored(A)));
        promise!("the expected one is", delete(A), Changed::Done);
        promise!("what was deleted is missing", self.load(&id), None);
        promise!("deleting nothing says so", store.delete(&id, None), Changed::Missing);
        promise!("also when something was expected", delete(A), Changed::Missing);
        self.with("delete", A).await;
        promise!("without a condition it is deleted", store.delete(&id, None), Changed::Done);
        promise!("and is missing then", self.load(&id), None);
    }

    async fn expired_sessions_are_missing(&self) {
        let store = &self.store;
        let id = self.with("expired", A).await;
        let past = now() - 1000;
        promise!("a session can be made to end", store.touch(&id, past), Changed::Done);
        promise!("an expired session is not loaded", self.load(&id), None);
        promise!("nor touched", store.touch(&id, LATER), Changed::Missing);
        let replaced = store.replace(&id, content(B), Some(A));
        promise!("nor replaced", replaced, Changed::Missing);
        promise!("nor deleted", store.delete(&id, Some(A)), Changed::Missing);
        promise!("also without a condition", store.delete(&id, None), Changed::Missing);
        promise!("nor brought back by any of these", self.load(&id), None);
        promise!("its identifier is free", store.create(&id, content(A)), Created::Done);
        promise!("and is in use then", store.create(&id, content(B)), Created::Taken);
        promise!("it can end again", store.touch(&id, past), Changed::Done);
        let replaced = store.replace(&id, content(B), None);
        promise!("without a condition it is replaced", replaced, Changed::Done);
        promise!("and is there then", self.load(&id), Some(stored(B)));
        self.without("expired").await;
        let created = store.create(&id, until(A, past));
        promise!("a session may be over when it is created", created, Created::Done);
        promise!("and is not loaded", self.load(&id), None);
        let replaced = store.replace(&id, until(A, past), None);
        promise!("or when it is replaced", replaced, Changed::Done);
        promise!("and is not loaded then", self.load(&id), None);
        let id = self.with("expired", A).await;
        let replaced = store.replace(&id, until(B, past), Some(A));
        promise!("also if a text is expected", replaced, Changed::Done);
        promise!("and is not loaded after that", self.load(&id), None);
    }

    async fn texts_survive(&self) {
        let store = &self.store;
        let long = format!(r#"{{"long":"{}"}}"#, "x".repeat((1 << 20) - 20));
        for text in [
            "{}",
            " { } ",
            r#"{"a":"\u0000"}"#,
            "{\"a\":\"\\ud800 é \u{10ffff}\"}",
            r#"{"\"'$.\\%s":1.0,"b":1,"b":2}"#,
            &long,
        ] {
            let id = self.with("text", text).await;
            promise!("a text comes back byte for byte", self.load(&id), Some(stored(text)));
            let same = store.replace(&id, content(A), Some(text));
            promise!("and is recognised", same, Changed::Done);
        }
        for id in ["$where", "a.b", "é", "'; --", "../x", "%s"] {
            let id = self.with(id, A).await;
            promise!("any text can be an identifier", self.load(&id), Some(stored(A)));
            promise!("and be deleted", store.delete(&id, None), Changed::Done);
        }
        self.without("text").await;
    }

    async fn identifiers_differ(&self) {
        let similar = ["conformance-e", "conformance-E", "conformance-e ", "CONFORMANCE-E"];
        for id in similar {
            let deleted = self.store.delete(id, None).await;
            let _ = deleted.expect("the store works");
        }
        for (number, id) in similar.into_iter().enumerate() {
            let created = self.store.create(id, content(&format!("{{\"is\":{number}}}")));
            promise!("each identifier is another session", created, Created::Done);
        }
        for (number, id) in similar.into_iter().enumerate() {
            let expected = stored(&format!("{{\"is\":{number}}}"));
            promise!("with its own text", self.load(id), Some(expected));
            promise!("and its own end", self.store.delete(id, None), Changed::Done);
        }
    }

    /// Returns the results of concurrent operations, by number.
    async fn at_once<T: Send + 'static, F>(
        &self,
        id: &str,
        operation: impl Fn(Arc<S>, String, usize) -> F,
    ) -> Vec<T>
    where
        F: Future<Output = Result<T, super::StoreError>> + Send + 'static,
    {
        let running = (0..AT_ONCE)
            .map(|number| tokio::spawn(operation(self.store.clone(), id.to_owned(), number)));
        let mut all = Vec::new();
        for one in running.collect::<Vec<_>>() {
            all.push(one.await.expect("no panic").expect("the store works"));
        }
        all
    }

    async fn one_of_many_wins(&self) {
        let id = self.with("race", A).await;
        for round in 1..=8 {
            let found = self.load(&id).await.expect("the store works");
            let expected = Arc::new(found.expect("the session is there").data);
            let all = self.at_once(&id, |store, id, writer| {
                let mine = content(&format!("{{\"by\":\"{round}-{writer}\"}}"));
                let expected = expected.clone();
                async move { store.replace(&id, mine, Some(&expected)).await }
            });
            let all = all.await;
            let won: Vec<_> = (0..AT_ONCE).filter(|at| all[*at] == Changed::Done).collect();
            assert_eq!(won.len(), 1, "of many that expect the same text, exactly one replaces it");
            let expected = stored(&format!("{{\"by\":\"{round}-{}\"}}", won[0]));
            promise!("it is that one's", self.load(&id), Some(expected));
        }
        self.without("race").await;
    }

    async fn one_of_many_creates(&self) {
        for round in 1..=8 {
            let id = self.without("race").await;
            if round % 2 == 0 {
                // The place of a session that has expired is free, too.
                self.with("race", A).await;
                let ended = self.store.touch(&id, now() - 1000);
                promise!("a session can be made to end", ended, Changed::Done);
            }
            let all = self.at_once(&id, |store, id, writer| async move {
                let mine = format!("{{\"by\":{writer}}}");
                let created = store.create(&id, content(&mine)).await?;
                Ok((created == Created::Done).then_some(mine))
            });
            let won: Vec<_> = all.await.into_iter().flatten().collect();
            assert_eq!(won.len(), 1, "of many that create a session, exactly one does");
            promise!("it is that one's", self.load(&id), Some(stored(&won[0])));
        }
        self.without("race").await;
    }

    async fn one_of_many_deletes(&self) {
        for _ in 1..=8 {
            let id = self.with("race", A).await;
            let all = self.at_once(&id, |store, id, number| async move {
                match number % 2 {
                    0 => store.delete(&id, Some(A)).await,
                    _ => store.replace(&id, content(B), Some(A)).await,
                }
            });
            let all = all.await;
            let won: Vec<_> = (0..AT_ONCE).filter(|at| all[*at] == Changed::Done).collect();
            assert_eq!(won.len(), 1, "of many that delete or replace a text, exactly one does");
            let expected = (won[0] % 2 == 1).then(|| stored(B));
            promise!("what that one did is there", self.load(&id), expected);
        }
        self.without("race").await;
    }

    async fn touches_leave_changes(&self) {
        // The change is the first, one in between, or the last operation.
        for at in (0..AT_ONCE).step_by(9) {
            let id = self.with("race", A).await;
            let all = self.at_once(&id, |store, id, number| async move {
                match number == at {
                    true => store.replace(&id, content(B), Some(A)).await,
                    false => store.touch(&id, LATER).await,
                }
            });
            let all = all.await;
            let are_done = all.iter().all(|changed| *changed == Changed::Done);
            assert!(are_done, "touches and a change do not hinder each other");
            promise!("a touch does not undo a change", self.load(&id), Some(stored(B)));
            let all = self.at_once(&id, |store, id, number| async move {
                match number == at {
                    true => store.delete(&id, None).await,
                    false => store.touch(&id, LATER).await,
                }
            });
            assert_eq!(all.await[at], Changed::Done, "touches do not hinder a deletion");
            promise!("a touch does not undo a deletion", self.load(&id), None);
        }
        self.without("race").await;
    }
}
