//! Many concurrent requests that change one session, through the tower layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use edge_session::store::{Changed, Content, Created, MemoryStore, Store, StoreError, Stored};
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{Gateway, component, cookie, text, visits};

/// A store with the latency of a remote one, which counts its operations.
#[derive(Default)]
struct Remote {
    sessions: MemoryStore,
    loads: AtomicUsize,
    writes: AtomicUsize,
    /// It never replies to a conditional write.
    hangs: bool,
    /// How much longer a load takes.
    load_delay: Duration,
}

impl Remote {
    async fn asked(&self, counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(10)).await;
    }

    /// Returns the number of operations since the last call.
    fn counts(&self) -> (usize, usize) {
        (self.loads.swap(0, Ordering::Relaxed), self.writes.swap(0, Ordering::Relaxed))
    }
}

#[async_trait]
impl Store for Remote {
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        // The value at the time of the request: it may have changed by the time of the reply.
        let found = self.sessions.load(id).await;
        self.asked(&self.loads).await;
        sleep(self.load_delay).await;
        found
    }
    async fn create(&self, id: &str, new: Content) -> Result<Created, StoreError> {
        self.asked(&self.writes).await;
        self.sessions.create(id, new).await
    }
    async fn replace(
        &self,
        id: &str,
        new: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        self.asked(&self.writes).await;
        if self.hangs && expected.is_some() {
            std::future::pending::<()>().await;
        }
        if new.data.contains("poison") {
            return Err(StoreError::refused("poison is not kept here"));
        }
        self.sessions.replace(id, new, expected).await
    }
    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        self.asked(&self.writes).await;
        self.sessions.touch(id, expires).await
    }
    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        self.asked(&self.writes).await;
        self.sessions.delete(id, expected).await
    }
}

/// Several processes that share a store.
struct Processes {
    store: Arc<Remote>,
    gateways: Vec<Arc<Gateway>>,
    cookie: String,
}

impl Processes {
    /// Creates the processes, with a visitor who has a session.
    async fn with(count: usize, store: Remote, max_session_bytes: u32) -> Self {
        let store = Arc::new(store);
        let component = component();
        let gateway = |_| {
            let configure = |o: &mut edge_session::Options| {
                o.set("max_session_bytes", max_session_bytes);
            };
            Arc::new(Gateway::with(component.clone(), configure, store.clone()))
        };
        let gateways: Vec<_> = (0..count).map(gateway).collect();
        let cookie = cookie(&gateways[0].get("/", None).await);
        store.counts();
        Self { store, gateways, cookie }
    }

    async fn new(count: usize) -> Self {
        Self::with(count, Remote::default(), 1 << 20).await
    }

    /// Sends requests to these paths concurrently, distributed over the processes; returns their
    /// status codes.
    async fn post(&self, paths: impl Iterator<Item = String>) -> Vec<StatusCode> {
        let mut running = JoinSet::new();
        for (path, gateway) in paths.zip(self.gateways.iter().cycle()) {
            let (gateway, cookie) = (gateway.clone(), self.cookie.clone());
            running.spawn(async move { gateway.post(&path, Some(&cookie)).await.status() });
        }
        running.join_all().await
    }

    /// Returns the session's identifier.
    fn id(&self) -> String {
        let (_, value) = self.cookie.split_once("s%3A").expect("it is signed");
        value.split_once('.').expect("it has a signature").0.to_owned()
    }

    /// Returns the number of keys in the session.
    async fn keys(&self) -> usize {
        let data = text(self.gateways[0].get("/data", Some(&self.cookie)).await).await;
        serde_json::from_str::<serde_json::Map<_, _>>(&data).unwrap().len()
    }
}

fn changes(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("/set/k{n}/{n}"))
}

fn count(statuses: &[StatusCode], status: u16) -> usize {
    statuses.iter().filter(|it| **it == status).count()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_changes_of_one_session_at_once_are_stored_by_few_writes() {
    let processes = Processes::new(1).await;
    let began = Instant::now();
    let statuses = processes.post(changes(1000)).await;
    let (took, (loads, writes)) = (began.elapsed(), processes.store.counts());
    assert_eq!(count(&statuses, 200), 1000);
    assert_eq!(processes.keys().await, 1001);
    // One load by the first request, and one for all others.
    assert_eq!(loads, 2);
    assert!(writes <= 80, "{writes} writes");
    // So many requests of one session are let in at 2,000 per second.
    assert!(took >= Duration::from_millis(450) && took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_begins_while_a_session_is_loaded_sees_what_was_stored_meanwhile() {
    let processes = Processes::new(2).await;
    let visit = |gateway: usize| {
        let (gateway, cookie) = (processes.gateways[gateway].clone(), processes.cookie.clone());
        tokio::spawn(async move { text(gateway.get("/data", Some(&cookie)).await).await })
    };
    let first = visit(0);
    sleep(Duration::from_millis(5)).await;
    // As if another process stored it in the meantime.
    let id = processes.id();
    let mut stored = processes.store.sessions.load(&id).await.unwrap().unwrap();
    stored.data = stored.data.replacen('{', "{\"new\":1,", 1);
    let content = Content { data: stored.data, expires: stored.expires.unwrap() };
    let replaced = processes.store.sessions.replace(&id, content, None).await.unwrap();
    assert_eq!(replaced, Changed::Done);
    let others: Vec<_> = (0..10).map(|_| visit(0)).collect();
    assert!(!first.await.unwrap().contains("new"));
    for other in others {
        assert!(other.await.unwrap().contains("new"));
    }
    assert_eq!(processes.store.counts().0, 2);
}

#[tokio::test(start_paused = true)]
async fn when_who_was_to_load_a_session_leaves_the_others_are_answered() {
    let processes = Processes::new(1).await;
    let visit = || {
        let (gateway, cookie) = (processes.gateways[0].clone(), processes.cookie.clone());
        tokio::spawn(async move { gateway.get("/data", Some(&cookie)).await.status() })
    };
    let (first, second) = (visit(), visit());
    sleep(Duration::from_millis(5)).await;
    let others: Vec<_> = (0..10).map(|_| visit()).collect();
    sleep(Duration::from_millis(1)).await;
    first.abort();
    sleep(Duration::from_millis(1)).await;
    // It now has the turn that all others wait for.
    second.abort();
    for other in others {
        assert_eq!(other.await.unwrap(), 200);
    }
    assert_eq!(processes.store.counts().0, 2, "what was begun is not begun anew");
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_a_page_are_not_held_back() {
    let processes = Processes::new(1).await;
    let began = Instant::now();
    let statuses = processes.post(changes(65)).await;
    assert_eq!(count(&statuses, 200), 65);
    // Two loads and a few writes.
    assert!(began.elapsed() < Duration::from_millis(60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_waits_for_two_slow_loads_at_most() {
    let store = Remote { load_delay: Duration::from_millis(1500), ..Remote::default() };
    let processes = Processes::with(1, store, 1 << 20).await;
    let began = Instant::now();
    let statuses = processes.post(changes(900)).await;
    assert_eq!(count(&statuses, 200), 900);
    assert!(began.elapsed() < Duration::from_millis(4000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_two_deadlines_while_a_store_does_not_reply() {
    let store = Remote { load_delay: Duration::from_secs(60), ..Remote::default() };
    let processes = Processes::with(1, store, 1 << 20).await;
    let began = Instant::now();
    let visits = processes.post(changes(300));
    let late = async {
        sleep(Duration::from_secs(1)).await;
        processes.post(changes(300)).await
    };
    let (first, late) = tokio::join!(visits, late);
    assert_eq!((count(&first, 503), count(&late, 503)), (300, 300));
    // The store's deadline is 2 s.
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_large_session_that_cannot_be_read_is_fetched_again_after_a_while() {
    let processes = Processes::new(1).await;
    let id = processes.id();
    let readable = processes.store.sessions.load(&id).await.unwrap().unwrap();
    let expires = readable.expires.unwrap();
    let store = async |data: String| {
        let content = Content { data, expires };
        let replaced = processes.store.sessions.replace(&id, content, None).await.unwrap();
        assert_eq!(replaced, Changed::Done);
    };
    let visit = async || {
        let data = text(processes.gateways[0].get("/data", Some(&processes.cookie)).await).await;
        (data, processes.store.counts().0)
    };
    let empty = || "{}".to_owned();
    // This also checks whether the session has moved. A small session costs little.
    store("{".to_owned()).await;
    assert_eq!((visit().await, visit().await), ((empty(), 2), (empty(), 2)));
    store(format!("{{\"a\":[{}0]}}", "0,".repeat(100_000))).await;
    assert_eq!((visit().await, visit().await), ((empty(), 2), (empty(), 1)));
    store(readable.data).await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!(visit().await, (empty(), 1));
    sleep(Duration::from_secs(1)).await;
    let (data, loads) = visit().await;
    assert_eq!(loads, 1);
    assert_ne!(data, empty());
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_while_others_are_stored_lose_nothing() {
    let processes = Processes::new(1).await;
    let first = processes.post(changes(200));
    let late = async {
        // Loaded before the first write has completed, and stored after it.
        sleep(Duration::from_millis(5)).await;
        processes.post((0..200).map(|n| format!("/set/late{n}/{n}"))).await
    };
    let (first, late) = tokio::join!(first, late);
    assert_eq!((count(&first, 200), count(&late, 200)), (200, 200));
    assert_eq!(processes.keys().await, 401);
    let (_, writes) = processes.store.counts();
    assert!(writes <= 40, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn two_processes_with_five_hundred_changes_each_make_way_for_each_other() {
    let processes = Processes::new(2).await;
    let statuses = processes.post(changes(1000)).await;
    let (loads, writes) = processes.store.counts();
    assert_eq!(count(&statuses, 200), 1000);
    assert_eq!(processes.keys().await, 1001);
    assert!(loads + writes <= 1500, "{loads} loads, {writes} writes");
}

#[tokio::test(start_paused = true)]
async fn ten_processes_with_a_hundred_changes_each_make_way_for_each_other() {
    let processes = Processes::new(10).await;
    let statuses = processes.post(changes(1000)).await;
    let (loads, writes) = processes.store.counts();
    assert_eq!(count(&statuses, 200), 1000);
    assert_eq!(processes.keys().await, 1001);
    assert!(loads + writes <= 3000, "{loads} loads, {writes} writes");
}

#[tokio::test(start_paused = true)]
async fn changes_that_the_session_has_no_room_for_fail_alone() {
    let processes = Processes::with(1, Remote::default(), 1000).await;
    let value = "x".repeat(50);
    let paths = (0..40).map(|n| format!("/set/k{n}/{value}"));
    let statuses = processes.post(paths).await;
    let stored = count(&statuses, 200);
    assert!((5..20).contains(&stored), "{stored}");
    assert_eq!(count(&statuses, 500), 40 - stored);
    assert_eq!(processes.keys().await, 1 + stored);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_store_can_never_keep_fails_alone() {
    let processes = Processes::new(1).await;
    let paths = changes(10).chain(["/set/bad/poison".to_owned()]).chain(changes(30).skip(10));
    let statuses = processes.post(paths).await;
    assert_eq!((count(&statuses, 200), count(&statuses, 500)), (30, 1));
    assert_eq!(processes.keys().await, 31);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_the_bound() {
    let store = Remote { hangs: true, ..Remote::default() };
    let processes = Processes::with(1, store, 1 << 20).await;
    let began = Instant::now();
    let statuses = processes.post(changes(1000)).await;
    assert_eq!(count(&statuses, 503), 1000);
    // 5 s for a turn, and 2 s for the store.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn more_than_a_thousand_who_wait_are_refused() {
    let processes = Processes::new(1).await;
    let statuses = processes.post(changes(3000)).await;
    let stored = count(&statuses, 200);
    // Those who find no room to wait for the load perform their own, and then want to write at once.
    assert!((2000..2500).contains(&stored), "{stored}");
    assert_eq!(count(&statuses, 503), 3000 - stored);
    assert_eq!(processes.keys().await, 1 + stored);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_amid_changes_takes_along_what_was_stored() {
    let processes = Processes::new(1).await;
    let gateway = processes.gateways[0].clone();
    let changes = processes.post(changes(300));
    let renewed = async {
        sleep(Duration::from_millis(5)).await;
        gateway.post("/renew", Some(&processes.cookie)).await
    };
    let (statuses, renewed) = tokio::join!(changes, renewed);
    assert_eq!((count(&statuses, 200), renewed.status().as_u16()), (300, 200));
    let moved = cookie(&renewed);
    let data = text(gateway.get("/data", Some(&moved)).await).await;
    let keys = serde_json::from_str::<serde_json::Map<_, _>>(&data).unwrap().len();
    // It had to wait for its turn.
    assert_eq!(keys, 301);
    // A late request with the old cookie starts no other session in its place.
    assert_eq!(gateway.get("/", Some(&processes.cookie)).await.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_amid_changes_stays_ended() {
    let processes = Processes::new(1).await;
    let changes = processes.post(changes(300));
    let logout = async {
        sleep(Duration::from_millis(15)).await;
        processes.gateways[0].post("/logout", Some(&processes.cookie)).await.status()
    };
    let (statuses, logout) = tokio::join!(changes, logout);
    assert_eq!((count(&statuses, 200), logout.as_u16()), (300, 200));
    assert_eq!(visits(&processes.gateways[0].get("/", Some(&processes.cookie)).await), 1);
}

#[tokio::test(start_paused = true)]
async fn no_change_beside_a_renewal_of_another_process_is_said_to_be_stored_and_lost() {
    let mut stored_in_all = 0;
    for delay in (0..80).step_by(5) {
        let processes = Processes::new(2).await;
        let [changing, renewing] = [0, 1].map(|at| processes.gateways[at].clone());
        let changes = async {
            let mut running = JoinSet::new();
            for path in changes(100) {
                let (gateway, cookie) = (changing.clone(), processes.cookie.clone());
                running.spawn(async move { gateway.post(&path, Some(&cookie)).await.status() });
            }
            running.join_all().await
        };
        let renewed = async {
            sleep(Duration::from_millis(delay)).await;
            renewing.post("/renew", Some(&processes.cookie)).await
        };
        let (statuses, renewed) = tokio::join!(changes, renewed);
        let stored = count(&statuses, 200);
        assert_eq!(count(&statuses, 503), 100 - stored, "{delay} ms");
        if renewed.status() != 200 {
            continue;
        }
        let data = text(renewing.get("/data", Some(&cookie(&renewed))).await).await;
        let keys = serde_json::from_str::<serde_json::Map<_, _>>(&data).unwrap().len();
        assert_eq!(keys, 1 + stored, "{delay} ms");
        stored_in_all += stored;
    }
    assert!(stored_in_all > 800, "{stored_in_all}");
}

#[tokio::test(start_paused = true)]
async fn changes_that_a_renewal_overtakes_follow_the_session() {
    let processes = Processes::new(1).await;
    let gateway = processes.gateways[0].clone();
    let renewed = gateway.post("/renew", Some(&processes.cookie));
    let changes = async {
        // Loaded while the session exists, and stored after it has moved.
        sleep(Duration::from_millis(15)).await;
        processes.post(changes(100)).await
    };
    let (renewed, statuses) = tokio::join!(renewed, changes);
    assert_eq!((count(&statuses, 200), renewed.status().as_u16()), (100, 200));
    let data = text(gateway.get("/data", Some(&cookie(&renewed))).await).await;
    let keys = serde_json::from_str::<serde_json::Map<_, _>>(&data).unwrap().len();
    assert_eq!(keys, 101);
}
