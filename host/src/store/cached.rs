//! A cache of sessions that were read, in front of another store.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lru::LruCache;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Changed, Content, Created, Store, StoreError, Stored, is_expired, now};

/// The number of locks: requests of different sessions seldom share one.
const SHARDS: usize = 64;

/// The size of an entry beside its texts: keys, pointers, the allocator's overhead.
const OVERHEAD: usize = 200;

/// Keeps what a shared store has returned, so that a session is not read again for a while. A
/// session that was ended elsewhere lives on here for at most that long, and less if the store is
/// told of it ([`Store::watch`]). Changes are compared with
/// the store itself, so none is lost: a copy that is out of date costs one conflict. That needs the
/// option `conflicts = "merge"`.
///
/// Only sessions that exist are kept, under the identifier that was asked for. The least recently
/// used ones make room for others.
pub struct CachedStore {
    store: Arc<dyn Store>,
    lifetime: Duration,
    copies: Arc<Copies>,
    /// Drops copies of sessions that were ended elsewhere. None without a runtime.
    watching: Option<JoinHandle<()>>,
}

struct Copies {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Copies {
    fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.bytes, shard.changes) = (0, shard.changes + 1);
            shard.copies.clear();
        }
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[self.hasher.hash_one(id) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CachedStore {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

/// Drops the copies of ended sessions, as the store is told of them.
async fn watch(store: Arc<dyn Store>, copies: Arc<Copies>) {
    let mut is_told = false;
    loop {
        let ended = |id: &str| drop(copies.shard(id).forget(id));
        if let Err(error) = store.watch(&ended).await
            && !std::mem::replace(&mut is_told, true)
        {
            tracing::info!(
                "the cache is not told of sessions that end elsewhere, which live on here until \
                 their copies are too old: {error}"
            );
        }
        // What has ended last was perhaps not told.
        copies.clear();
        tokio::time::sleep(PAUSE).await;
    }
}

/// How long to wait until the store is asked again.
const PAUSE: Duration = Duration::from_secs(5);

struct Shard {
    copies: LruCache<String, Copy>,
    bytes: usize,
    max_bytes: usize,
    /// The number of changes that were begun or done. What was read meanwhile is not kept.
    changes: u64,
}

struct Copy {
    stored: Stored,
    /// When the store was asked.
    since: Instant,
}

impl CachedStore {
    /// Keeps sessions of `store` for `lifetime`, and of at most about `max_bytes` in all.
    pub fn new(store: Arc<dyn Store>, lifetime: Duration, max_bytes: usize) -> Self {
        let shard = || Shard {
            copies: LruCache::unbounded(),
            bytes: 0,
            max_bytes: max_bytes / SHARDS,
            changes: 0,
        };
        let copies = Arc::new(Copies {
            shards: std::array::from_fn(|_| Mutex::new(shard())),
            hasher: RandomState::new(),
        });
        let watching = Handle::try_current().ok();
        let watching = watching.map(|runtime| runtime.spawn(watch(store.clone(), copies.clone())));
        Self { store, lifetime, copies, watching }
    }

    /// Forgets all copies, so that the next request of each session reads the store.
    pub fn clear(&self) {
        self.copies.clear();
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        self.copies.shard(id)
    }

    /// Changes a session in the store. `after` returns what it is then, and since when, if that is
    /// known: the copy is replaced, or else dropped. While the outcome is unknown, there is none.
    async fn change<T>(
        &self,
        id: &str,
        change: impl Future<Output = Result<T, StoreError>>,
        after: impl FnOnce(&T, Instant, Option<Copy>) -> Option<(Stored, Instant)>,
    ) -> Result<T, StoreError> {
        let since = Instant::now();
        let (begun, before) = {
            let mut shard = self.shard(id);
            let before = shard.forget(id);
            (shard.changes, before)
        };
        let mut forgetting = Forgetting { cache: self, id: Some(id) };
        let done = change.await;
        forgetting.id = None;
        let mut shard = self.shard(id);
        // Which of several changes at once was the last one is not known.
        let is_alone = shard.changes == begun;
        shard.forget(id);
        if is_alone
            && let Ok(done) = &done
            && let Some((stored, since)) = after(done, since, before)
        {
            shard.keep(id, stored, since);
        }
        done
    }
}

/// If a change is given up, its outcome is unknown: drops what was read meanwhile.
struct Forgetting<'c> {
    cache: &'c CachedStore,
    id: Option<&'c str>,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.cache.shard(id).forget(id);
        }
    }
}

impl Shard {
    /// Returns the copy, unless it is too old or its session has expired.
    fn fresh(&mut self, id: &str, lifetime: Duration) -> Option<Stored> {
        let copy = self.copies.get(id)?;
        let is_fresh = copy.since.elapsed() < lifetime && !is_expired(copy.stored.expires, now());
        is_fresh.then(|| copy.stored.clone())
    }

    fn keep(&mut self, id: &str, stored: Stored, since: Instant) {
        self.drop_copy(id);
        let cost = cost(id, &stored);
        if cost > self.max_bytes {
            return;
        }
        self.bytes += cost;
        self.copies.put(id.to_owned(), Copy { stored, since });
        while self.bytes > self.max_bytes {
            let Some((old, copy)) = self.copies.pop_lru() else { break };
            self.bytes -= self::cost(&old, &copy.stored);
        }
    }

    fn drop_copy(&mut self, id: &str) -> Option<Copy> {
        let copy = self.copies.pop(id)?;
        self.bytes -= cost(id, &copy.stored);
        Some(copy)
    }

    /// Drops the copy, also what is being read now.
    fn forget(&mut self, id: &str) -> Option<Copy> {
        self.changes += 1;
        self.drop_copy(id)
    }
}

fn cost(id: &str, stored: &Stored) -> usize {
    OVERHEAD + id.len() + stored.data.len()
}

fn stored(content: &Content) -> Stored {
    Stored { data: content.data.clone(), expires: Some(content.expires), touched: None }
}

#[async_trait]
impl Store for CachedStore {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let since = Instant::now();
        let begun = {
            let mut shard = self.shard(id);
            if let Some(stored) = shard.fresh(id, self.lifetime) {
                metrics::counter!("edge_session_cache_hits_total").increment(1);
                return Ok(Some(stored));
            }
            shard.changes
        };
        let loaded = self.store.load(id).await?;
        if let Some(stored) = &loaded {
            let mut shard = self.shard(id);
            // What was read may be older than a change that has ended meanwhile.
            if shard.changes == begun {
                shard.keep(id, stored.clone(), since);
            }
        }
        Ok(loaded)
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let kept = stored(&content);
        self.change(id, self.store.create(id, content), |created, since, _| {
            (*created == Created::Done).then_some((kept, since))
        })
        .await
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let kept = stored(&content);
        self.change(id, self.store.replace(id, content, expected), |changed, since, _| {
            // After a conflict, the next attempt has to see what is stored then.
            (*changed == Changed::Done).then_some((kept, since))
        })
        .await
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        self.change(id, self.store.touch(id, expires), |changed, _, before| {
            // Its text was not read again: the copy is as old as before.
            let Copy { stored, since } = before.filter(|_| *changed == Changed::Done)?;
            Some((Stored { expires: Some(expires), touched: None, ..stored }, since))
        })
        .await
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        self.change(id, self.store.delete(id, expected), |_, _, _| None).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::super::{MemoryStore, conformance};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LATER: u64 = 4_102_444_800_000; // The year 2100.

    /// A store that counts what is read, and whose reads can be held up.
    struct Shared {
        store: MemoryStore,
        reads: AtomicUsize,
        gate: Semaphore,
    }

    #[async_trait]
    impl Store for Shared {
        async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let loaded = self.store.load(id).await;
            let _open = self.gate.acquire().await;
            loaded
        }
        async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
            self.store.create(id, content).await
        }
        async fn replace(
            &self,
            id: &str,
            content: Content,
            expected: Option<&str>,
        ) -> Result<Changed, StoreError> {
            match content.data.as_str() {
                "fail" => Err(StoreError::new("the reply is lost")),
                _ => self.store.replace(id, content, expected).await,
            }
        }
        async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
            self.store.touch(id, expires).await
        }
        async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
            self.store.delete(id, expected).await
        }
    }

    fn shared() -> Arc<Shared> {
        let (store, reads) = (MemoryStore::default(), AtomicUsize::new(0));
        Arc::new(Shared { store, reads, gate: Semaphore::new(1000) })
    }

    fn cached(shared: &Arc<Shared>) -> CachedStore {
        CachedStore::new(shared.clone(), SECOND, 1 << 20)
    }

    fn content(data: &str) -> Content {
        Content { data: data.to_owned(), expires: LATER }
    }

    async fn text(store: &impl Store, id: &str) -> Option<String> {
        store.load(id).await.unwrap().map(|stored| stored.data)
    }

    #[tokio::test]
    async fn it_keeps_every_promise_of_a_store() {
        conformance::check(Arc::new(CachedStore::new(shared(), SECOND, 512 << 20))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_read_once_in_its_time() {
        let shared = shared();
        let store = cached(&shared);
        let _ = shared.replace("a", content("1"), None).await.unwrap();
        let reads = || shared.reads.swap(0, Ordering::Relaxed);
        for (after, read) in [(0, 1), (999, 0), (1, 1), (999, 0)] {
            tokio::time::advance(Duration::from_millis(after)).await;
            assert_eq!(text(&store, "a").await.as_deref(), Some("1"));
            assert_eq!(reads(), read, "after {after} ms");
        }
        // A touch does not make a copy younger.
        assert_eq!(store.touch("a", LATER + 1).await.unwrap(), Changed::Done);
        let touched = store.load("a").await.unwrap().unwrap();
        assert_eq!((touched.expires, reads()), (Some(LATER + 1), 0));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((text(&store, "a").await.as_deref(), reads()), (Some("1"), 1));
        // What does not exist is asked for each time, and nobody gets another's.
        assert_eq!((text(&store, "b").await, text(&store, "b").await, reads()), (None, None, 2));
        // What this process stores need not be read.
        let _ = store.replace("a", content("2"), Some("1")).await.unwrap();
        assert_eq!((text(&store, "a").await.as_deref(), reads()), (Some("2"), 0));
        store.clear();
        assert_eq!((text(&store, "a").await.as_deref(), reads()), (Some("2"), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_elsewhere_is_a_conflict_and_an_end_is_seen_in_time() {
        let shared = shared();
        let (here, elsewhere) = (cached(&shared), cached(&shared));
        let _ = here.create("a", content("1")).await.unwrap();
        let _ = elsewhere.replace("a", content("2"), Some("1")).await.unwrap();
        assert_eq!(text(&here, "a").await.as_deref(), Some("1"));
        let refused = here.replace("a", content("3"), Some("1")).await.unwrap();
        assert!(matches!(refused, Changed::Conflict(stored) if stored.data == "2"));
        assert_eq!(text(&here, "a").await.as_deref(), Some("2"), "as the conflict said");

        assert_eq!(elsewhere.delete("a", None).await.unwrap(), Changed::Done);
        assert_eq!(text(&elsewhere, "a").await, None);
        assert_eq!(text(&here, "a").await.as_deref(), Some("2"));
        assert_eq!(here.replace("a", content("4"), Some("2")).await.unwrap(), Changed::Missing);
        assert_eq!(text(&here, "a").await, None, "the change was told");
        let _ = here.create("b", content("1")).await.unwrap();
        assert_eq!(elsewhere.delete("b", None).await.unwrap(), Changed::Done);
        tokio::time::advance(SECOND).await;
        assert_eq!(text(&here, "b").await, None);
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_kept_after_it() {
        let shared = shared();
        let store = Arc::new(cached(&shared));
        for delete in [true, false] {
            let _ = shared.replace("a", content("1"), None).await.unwrap();
            let held = shared.gate.acquire_many(1000).await.unwrap();
            let reading = tokio::spawn({
                let store = store.clone();
                async move { text(&*store, "a").await }
            });
            while shared.reads.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            if delete {
                let _ = store.delete("a", None).await.unwrap();
            } else {
                let _ = store.replace("a", content("2"), None).await.unwrap();
            }
            drop(held);
            assert_eq!(reading.await.unwrap().as_deref(), Some("1"));
            shared.reads.store(0, Ordering::Relaxed);
            let now = if delete { None } else { Some("2") };
            assert_eq!(text(&*store, "a").await.as_deref(), now);
            shared.reads.store(0, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn after_a_failure_the_store_is_asked() {
        let shared = shared();
        let store = cached(&shared);
        let _ = store.create("a", content("1")).await.unwrap();
        assert!(store.replace("a", content("fail"), Some("1")).await.is_err());
        assert_eq!(text(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(shared.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn copies_are_bounded_in_bytes() {
        let shared = shared();
        let store = CachedStore::new(shared.clone(), SECOND, SHARDS * 10_000);
        for number in 0..5000 {
            let _ = store.create(&number.to_string(), content(&"x".repeat(1000))).await.unwrap();
        }
        let _ = store.create("large", content(&"x".repeat(20_000))).await.unwrap();
        let mut kept = 0;
        for shard in &store.copies.shards {
            let shard = shard.lock().unwrap();
            let costs = shard.copies.iter().map(|(id, copy)| cost(id, &copy.stored));
            assert_eq!(shard.bytes, costs.sum::<usize>());
            assert!(shard.bytes <= 10_000, "{}", shard.bytes);
            kept += shard.copies.len();
        }
        assert!((SHARDS * 4..SHARDS * 9).contains(&kept), "{kept}");
        assert_eq!(text(&store, "large").await.map(|it| it.len()), Some(20_000));
    }
}
