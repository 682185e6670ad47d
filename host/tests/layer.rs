//! Requests through the tower layer, with the real component.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edge_session::store::{Changed, Content, Created, MemoryStore, Store, StoreError, Stored};
use http::Request;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::support::{Gateway, component, cookie, signed, text, visits};

fn gateway() -> Gateway {
    Gateway::new(MemoryStore::default())
}

#[tokio::test]
async fn a_visitor_is_counted_one_two_three() {
    let gateway = gateway();
    let first = gateway.get("/", None).await;
    let cookie = cookie(&first);
    assert_eq!(visits(&first), 1);
    assert_eq!(first.headers()["cache-control"], "no-store");
    let second = gateway.get("/", Some(&cookie)).await;
    assert_eq!(visits(&second), 2);
    assert!(!second.headers().contains_key("set-cookie"));
    assert_eq!(visits(&gateway.get("/", Some(&cookie)).await), 3);
    assert_eq!(visits(&gateway.get("/", None).await), 1);
}

#[tokio::test]
async fn a_session_without_data_is_neither_stored_nor_sent() {
    let response = gateway().get("/data", None).await;
    assert!(!response.headers().contains_key("set-cookie"));
    assert_eq!(text(response).await, "{}");
}

#[tokio::test]
async fn logging_out_deletes_the_session_and_clears_the_cookie() {
    let gateway = gateway();
    let cookie = cookie(&gateway.get("/", None).await);
    let response = gateway.post("/logout", Some(&cookie)).await;
    let header = response.headers()["set-cookie"].to_str().unwrap();
    assert!(header.starts_with("connect.sid=; "), "{header}");
    assert!(header.contains("Expires=Thu, 01 Jan 1970 00:00:00 GMT"), "{header}");
    assert_eq!(visits(&gateway.get("/", Some(&cookie)).await), 1);
}

#[tokio::test]
async fn renewing_keeps_the_data_under_a_new_identifier() {
    let gateway = gateway();
    let old = cookie(&gateway.get("/", None).await);
    let new = cookie(&gateway.post("/renew", Some(&old)).await);
    assert_ne!(new, old);
    assert_eq!(visits(&gateway.get("/", Some(&new)).await), 2);
    assert_eq!(text(gateway.get("/data", Some(&old)).await).await, "{}");
    assert_eq!(gateway.get("/", Some(&old)).await.status(), 503, "its change is nobody's");
}

#[tokio::test]
async fn regenerating_begins_anew() {
    let gateway = gateway();
    let old = cookie(&gateway.get("/", None).await);
    let new = cookie(&gateway.post("/regenerate", Some(&old)).await);
    assert_ne!(new, old);
    assert_eq!(visits(&gateway.get("/", Some(&new)).await), 1);
}

#[tokio::test]
async fn clearing_keeps_the_session() {
    let gateway = gateway();
    let cookie = cookie(&gateway.get("/", None).await);
    let cleared = gateway.post("/clear", Some(&cookie)).await;
    assert!(!cleared.headers().contains_key("set-cookie"));
    assert_eq!(text(gateway.get("/data", Some(&cookie)).await).await, "{}");
}

#[tokio::test]
async fn a_remembered_visitor_gets_a_cookie_that_lasts() {
    let gateway = gateway();
    let session = cookie(&gateway.get("/", None).await);
    let response = gateway.post("/remember", Some(&session)).await;
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("; Expires="));
    assert_eq!(cookie(&response), session);
    assert_eq!(visits(&gateway.get("/", Some(&session)).await), 2);
}

#[tokio::test]
async fn the_applications_own_headers_stay() {
    let response = gateway().get("/own-cookie", None).await;
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2);
    assert_eq!(cookies[0], "mine=1");
    assert_eq!(response.headers()["cache-control"], "private, max-age=5");
}

#[tokio::test]
async fn a_reserved_key_is_an_error_and_nothing_is_stored() {
    let gateway = gateway();
    let response = gateway.post("/set/cookie/x", None).await;
    assert_eq!(response.status(), 500);
    assert!(!response.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn an_encrypted_request_gets_a_secure_cookie() {
    let configure = |o: &mut edge_session::Options| {
        o.set("cookie.secure", true);
    };
    let gateway = Gateway::with(component(), configure, Arc::new(MemoryStore::default()));
    assert!(!gateway.get("/", None).await.headers().contains_key("set-cookie"));
    // The client's own X-Forwarded-Proto is ignored unless a proxy is trusted.
    let claimed = gateway.send(Request::get("/").header("x-forwarded-proto", "https"), None).await;
    assert!(!claimed.headers().contains_key("set-cookie"));
    let encrypted = Request::get("/").extension(edge_session::Encrypted);
    let response = gateway.send(encrypted, None).await;
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("; Secure"));
}

/// Returns the counters' names and labels, and their values.
fn counters(snapshotter: &Snapshotter) -> Vec<(String, u64)> {
    let metrics = snapshotter.snapshot().into_vec().into_iter();
    metrics
        .filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) => {
                let labels: Vec<_> = key.key().labels().map(|l| l.value().to_owned()).collect();
                Some((format!("{} {}", key.key().name(), labels.join(" ")), count))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn bad_cookies_are_counted_and_never_reach_the_store() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            // This store fails every operation.
            let gateway = Gateway::new(Failing);
            let truncated = &signed("somebody")[..60];
            let oversized = format!("connect.sid=s%3A{}", "x".repeat(64 << 10));
            for cookie in ["connect.sid=s%3Aa.b", truncated, "connect.sid=hello", &oversized] {
                let response = gateway.get("/data", Some(cookie)).await;
                assert_eq!(response.status(), 200, "{cookie:.40}");
            }
            let bytes = http::HeaderValue::from_bytes(b"connect.sid=s:\xff\xfe.\x80").unwrap();
            let response = gateway.send(Request::get("/data").header("cookie", bytes), None).await;
            assert_eq!(response.status(), 200);
            assert_eq!(gateway.get("/data", Some(&signed("somebody"))).await.status(), 503);
        });
    });
    let mut counters = counters(&snapshotter);
    counters.retain(|(name, count)| name.starts_with("edge_session_begun") && *count > 0);
    counters.sort();
    let begun = |origin: &str, n| (format!("edge_session_begun_total {origin}"), n);
    assert_eq!(counters, [begun("forged", 3), begun("malformed", 1), begun("oversized", 1)]);
}

/// A store that is unavailable.
struct Failing;

#[async_trait]
impl Store for Failing {
    async fn load(&self, _: &str) -> Result<Option<Stored>, StoreError> {
        Err(StoreError::new("down"))
    }
    async fn create(&self, _: &str, _: Content) -> Result<Created, StoreError> {
        Err(StoreError::new("down"))
    }
    async fn replace(&self, _: &str, _: Content, _: Option<&str>) -> Result<Changed, StoreError> {
        Err(StoreError::new("down"))
    }
    async fn touch(&self, _: &str, _: u64) -> Result<Changed, StoreError> {
        Err(StoreError::new("down"))
    }
    async fn delete(&self, _: &str, _: Option<&str>) -> Result<Changed, StoreError> {
        Err(StoreError::new("down"))
    }
}

#[tokio::test]
async fn a_store_that_is_down_denies_by_default() {
    let gateway = Gateway::new(Failing);
    let failed = gateway.get("/", None).await;
    assert_eq!(failed.status(), 503);
    assert!(!failed.headers().contains_key("set-cookie"));
    assert!(text(failed).await.contains("Please try again"));
}

#[tokio::test]
async fn or_lets_everybody_be_anonymous() {
    for conflicts in ["merge", "overwrite"] {
        let configure = |o: &mut edge_session::Options| {
            o.set("on_store_error", "anonymous").set("conflicts", conflicts);
        };
        let gateway = Gateway::with(component(), configure, Arc::new(Failing));
        for cookie in [None, Some(signed("somebody"))] {
            let response = gateway.get("/", cookie.as_deref()).await;
            assert_eq!((response.status().as_u16(), visits(&response)), (200, 1));
            assert!(!response.headers().contains_key("set-cookie"));
        }
    }
}

/// A store that never replies.
struct Hanging;

#[async_trait]
impl Store for Hanging {
    async fn load(&self, _: &str) -> Result<Option<Stored>, StoreError> {
        std::future::pending().await
    }
    async fn create(&self, _: &str, _: Content) -> Result<Created, StoreError> {
        std::future::pending().await
    }
    async fn replace(&self, _: &str, _: Content, _: Option<&str>) -> Result<Changed, StoreError> {
        std::future::pending().await
    }
    async fn touch(&self, _: &str, _: u64) -> Result<Changed, StoreError> {
        std::future::pending().await
    }
    async fn delete(&self, _: &str, _: Option<&str>) -> Result<Changed, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_given_up_at_the_deadline() {
    let gateway = Gateway::new(Hanging);
    let began = tokio::time::Instant::now();
    assert_eq!(gateway.get("/", Some(&signed("somebody"))).await.status(), 503);
    assert_eq!(began.elapsed().as_secs(), Duration::from_secs(2).as_secs());
}

/// A store in which every operation takes 10 ms.
struct Slow(MemoryStore);

impl Slow {
    async fn wait() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[async_trait]
impl Store for Slow {
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        Self::wait().await;
        self.0.load(id).await
    }
    async fn create(&self, id: &str, new: Content) -> Result<Created, StoreError> {
        Self::wait().await;
        self.0.create(id, new).await
    }
    async fn replace(
        &self,
        id: &str,
        new: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        Self::wait().await;
        self.0.replace(id, new, expected).await
    }
    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        Self::wait().await;
        self.0.touch(id, expires).await
    }
    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        Self::wait().await;
        self.0.delete(id, expected).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_to_end_ends_though_the_visitor_has_left() {
    let gateway = Gateway::new(Slow(MemoryStore::default()));
    // A logout loads and deletes. A renewal loads, creates, writes the note and deletes.
    for (path, leaves_after) in [("/logout", 15), ("/renew", 15), ("/renew", 25)] {
        let old = cookie(&gateway.get("/", None).await);
        let request = gateway.post(path, Some(&old));
        let left = tokio::time::timeout(Duration::from_millis(leaves_after), request).await;
        assert!(left.is_err(), "{path} was answered");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let data = text(gateway.get("/data", Some(&old)).await).await;
        assert_eq!(data, "{}", "{path} was left half-way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_of_one_visitor_keep_all_their_changes() {
    let gateway = Arc::new(gateway());
    let cookie = cookie(&gateway.get("/", None).await);
    let mut running = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (gateway, cookie) = (gateway.clone(), cookie.clone());
        running.spawn(async move {
            gateway.post(&format!("/set/k{n}/{n}"), Some(&cookie)).await.status()
        });
    }
    while let Some(status) = running.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let data = text(gateway.get("/data", Some(&cookie)).await).await;
    let data: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&data).unwrap();
    assert_eq!(data.len(), 65);
}
