//! `memory:` — sessions in this process, lost when it ends.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lru::LruCache;

use super::{
    Browse, Changed, Content, Created, Entry, Page, Store, StoreError, Stored, digest, is_expired,
    now,
};

/// The number of locks: requests of different sessions seldom share one.
const SHARDS: usize = 16;

/// The size of an entry beside its texts: keys, pointers, the allocator's overhead.
const OVERHEAD: usize = 168;

/// Sessions in memory, for one process. Bounded: a full store evicts the least recently used
/// sessions. Each write also removes expired sessions from among the least recently used.
pub struct MemoryStore {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

struct Shard {
    sessions: LruCache<String, Kept>,
    bytes: usize,
    max_bytes: usize,
}

struct Kept {
    stored: Stored,
    created: u64,
}

impl Default for MemoryStore {
    /// Creates a store of at most 512 MiB.
    fn default() -> Self {
        Self::with_max_bytes(512 << 20)
    }
}

impl MemoryStore {
    /// Creates a store of at most about `max_bytes` of memory. A session larger than a sixteenth of
    /// that is not kept.
    pub fn with_max_bytes(max_bytes: usize) -> Self {
        let shard =
            || Shard { sessions: LruCache::unbounded(), bytes: 0, max_bytes: max_bytes / SHARDS };
        Self { shards: std::array::from_fn(|_| Mutex::new(shard())), hasher: RandomState::new() }
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[self.hasher.hash_one(id) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(id: &str, data: &str) -> usize {
    OVERHEAD + id.len() + data.len()
}

impl Shard {
    /// Returns the session `id`, unless it has expired.
    fn live(&mut self, id: &str) -> Option<&mut Stored> {
        let stored = &mut self.sessions.get_mut(id)?.stored;
        (!is_expired(stored.expires, now())).then_some(stored)
    }

    /// Stores a session, if the stored text is the expected one.
    fn put(
        &mut self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let now = now();
        let found = self.sessions.get_mut(id);
        if let Some(expected) = expected {
            match found.as_ref().filter(|it| !is_expired(it.stored.expires, now)) {
                None => return Ok(Changed::Missing),
                Some(kept) if kept.stored.data != expected => {
                    return Ok(Changed::Conflict(kept.stored.clone()));
                }
                Some(_) => {}
            }
        }
        let Content { data, expires } = content;
        let cost = cost(id, &data);
        if cost > self.max_bytes {
            return Err(StoreError::new(format!(
                "a session of {} bytes does not fit into the memory store",
                data.len()
            )));
        }
        let stored = Stored { data, expires: Some(expires), touched: None };
        self.bytes += cost;
        match found {
            Some(old) => {
                self.bytes -= self::cost(id, &old.stored.data);
                if is_expired(old.stored.expires, now) {
                    old.created = now;
                }
                old.stored = stored;
            }
            None => {
                self.sessions.put(id.to_owned(), Kept { stored, created: now });
            }
        }
        // The new entry is the most recently used one and therefore stays.
        while self.bytes > self.max_bytes {
            let Some((old, evicted)) = self.sessions.pop_lru() else { break };
            self.bytes -= self::cost(&old, &evicted.stored.data);
            if !is_expired(evicted.stored.expires, now) {
                metrics::counter!("edge_session_memory_store_evictions_total").increment(1);
            }
        }
        self.expire_some(now);
        Ok(Changed::Done)
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(old) = self.sessions.pop(id) else { return false };
        self.bytes -= cost(id, &old.stored.data);
        true
    }

    /// Every write checks the two least recently used sessions, so that expired ones are removed
    /// even if they are never requested.
    fn expire_some(&mut self, now: u64) {
        for _ in 0..2 {
            let Some((id, oldest)) = self.sessions.peek_lru() else { return };
            if !is_expired(oldest.stored.expires, now) {
                return;
            }
            let id = id.clone();
            self.remove(&id);
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        Ok(self.shard(id).live(id).cloned())
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let mut shard = self.shard(id);
        if shard.live(id).is_some() {
            return Ok(Created::Taken);
        }
        shard.put(id, content, None).map(|_| Created::Done)
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        self.shard(id).put(id, content, expected)
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        Ok(match self.shard(id).live(id) {
            None => Changed::Missing,
            Some(stored) => {
                stored.expires = Some(expires);
                Changed::Done
            }
        })
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let mut shard = self.shard(id);
        match (shard.live(id), expected) {
            (None, _) => return Ok(Changed::Missing),
            (Some(stored), Some(expected)) if stored.data != expected => {
                return Ok(Changed::Conflict(stored.clone()));
            }
            _ => {}
        }
        shard.remove(id);
        Ok(Changed::Done)
    }

    fn is_immediate(&self) -> bool {
        true
    }
}

#[async_trait]
impl Browse for MemoryStore {
    /// Each shard is one page.
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        let at = after.map_or(0, |after| after.parse().unwrap_or(SHARDS));
        let Some(shard) = self.shards.get(at) else { return Ok(Page::default()) };
        let now = now();
        let entries = {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let live =
                shard.sessions.iter().filter(|(_, kept)| !is_expired(kept.stored.expires, now));
            let entry =
                |(id, kept): (&String, &Kept)| (id.clone(), kept.stored.clone(), kept.created);
            live.map(entry).collect::<Vec<_>>()
        };
        let entry = |(key, stored, created): (String, Stored, u64)| Entry {
            digest: digest(&key),
            key,
            stored,
            created: Some(created),
        };
        let next = (at + 1 < SHARDS).then(|| (at + 1).to_string());
        Ok(Page { entries: entries.into_iter().map(entry).collect(), next })
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.shard(key).remove(key))
    }

    async fn count(&self) -> Result<u64, StoreError> {
        let len = |shard: &Mutex<Shard>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).sessions.len() as u64
        };
        Ok(self.shards.iter().map(len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: usize) -> String {
        format!("{id:032}")
    }

    fn content(size: usize, expires: u64) -> Content {
        Content { data: "x".repeat(size), expires }
    }

    fn usage(store: &MemoryStore) -> (usize, usize) {
        let shards = store.shards.iter().map(|shard| shard.lock().unwrap());
        shards.fold((0, 0), |(n, bytes), shard| (n + shard.sessions.len(), bytes + shard.bytes))
    }

    #[tokio::test]
    async fn it_stays_within_its_bound() {
        let store = MemoryStore::with_max_bytes(1 << 20);
        for n in 0..10_000 {
            assert_eq!(store.create(&id(n), content(1000, u64::MAX)).await.unwrap(), Created::Done);
        }
        let (sessions, bytes) = usage(&store);
        assert!(bytes <= 1 << 20, "{bytes}");
        assert!(sessions > 700, "{sessions}");
        assert!(store.load(&id(9999)).await.unwrap().is_some());
        assert!(store.load(&id(0)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn expired_sessions_leave_without_being_asked_for() {
        let store = MemoryStore::default();
        for n in 0..1000 {
            assert_eq!(store.create(&id(n), content(10, 1)).await.unwrap(), Created::Done);
        }
        for n in 1000..3000 {
            assert_eq!(store.create(&id(n), content(10, u64::MAX)).await.unwrap(), Created::Done);
        }
        assert_eq!(usage(&store).0, 2000);
    }

    #[tokio::test]
    async fn what_cannot_fit_is_refused() {
        let store = MemoryStore::with_max_bytes(16 * 1000);
        assert!(store.create(&id(1), content(1001, u64::MAX)).await.is_err());
        assert_eq!(usage(&store), (0, 0));
    }

    #[tokio::test]
    async fn removing_gives_the_memory_back() {
        let store = MemoryStore::default();
        let content = || content(100, u64::MAX);
        assert_eq!(store.create("a", content()).await.unwrap(), Created::Done);
        assert_eq!(store.replace("a", content(), None).await.unwrap(), Changed::Done);
        assert_eq!(store.delete("a", None).await.unwrap(), Changed::Done);
        assert_eq!(usage(&store), (0, 0));
    }
}
