//! Two gateways in front of one MongoDB replica set of three servers, under load: one gateway is
//! killed, then the primary.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use edge_session_tests::{Asked, Launch, ReplicaSet, Reply, Server, Upstream, Visitor};

const VISITORS: usize = 12;

/// The number of acknowledged visits before each of the two failures, and after them.
const VISITS: usize = 400;

/// The maximum time for which a visitor may be without a response.
const RECOVERED_WITHIN: Duration = Duration::from_secs(20);

fn counter(asked: &Asked) -> Reply {
    let count = asked.session()["viewCount"].as_u64().unwrap_or(0) + 1;
    Reply::text(&format!("you have visited this page {count} times"))
        .line(format!("Edge-Session-Merge: {{\"viewCount\":{count}}}"))
}

/// What all visitors observed.
#[derive(Default)]
struct Seen {
    acknowledged: AtomicUsize,
    failures: Mutex<Vec<Instant>>,
}

/// Visits whichever gateway answers, until all visitors together have received enough responses.
fn visit(mut visitor: Visitor, urls: &[String; 2], seen: &Seen) {
    let session = visitor.session_id();
    let (mut last, mut at) = (1, 0);
    let mut since = Instant::now();
    while seen.acknowledged.load(SeqCst) < 3 * VISITS {
        match visitor.try_get("/") {
            Ok(page) if page.status == 200 => {
                let count = page.count();
                assert!(count > last, "an acknowledged visit was lost: {count} after {last}");
                last = count;
                since = Instant::now();
                seen.acknowledged.fetch_add(1, SeqCst);
            }
            // 503 while there is no primary; an error while there is no gateway.
            result => {
                if let Ok(page) = result {
                    assert_eq!(page.status, 503, "{page:?}");
                }
                assert!(
                    since.elapsed() < RECOVERED_WITHIN,
                    "no answer since {:?}",
                    since.elapsed()
                );
                seen.failures.lock().unwrap().push(Instant::now());
                at = 1 - at;
                visitor = visitor.moved_to(urls[at].clone());
            }
        }
        assert_eq!(visitor.session_id(), session, "a visitor was logged out");
    }
}

#[test]
fn neither_a_gateway_that_dies_nor_a_primary_costs_a_change_or_a_session() {
    let mongodb = ReplicaSet::start();
    let app = Upstream::app(counter);
    let launch = Launch::new(&mongodb.url()).upstream(&app.url());
    let gateways = [launch.start(), launch.start()];
    let urls = [gateways[0].url(), gateways[1].url()];
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            let mut visitor = gateways[number % 2].visitor();
            assert_eq!(visitor.get("/").count(), 1);
            visitor
        })
        .collect();

    let seen = Seen::default();
    let [first, _second]: [Server; 2] = gateways;
    let (gateway_died, primary_died) = thread::scope(|scope| {
        for visitor in visitors {
            scope.spawn(|| visit(visitor, &urls, &seen));
        }
        let wait_until = |count| {
            while seen.acknowledged.load(SeqCst) < count {
                thread::sleep(Duration::from_millis(1));
            }
        };
        wait_until(VISITS);
        let gateway_died = Instant::now();
        first.kill();
        wait_until(2 * VISITS);
        let primary_died = Instant::now();
        mongodb.kill_primary();
        (gateway_died, primary_died)
    });

    let failures = seen.failures.into_inner().unwrap();
    let window = |from: Instant, to: Option<Instant>| {
        let within = failures.iter().filter(|at| **at >= from && to.is_none_or(|to| **at < to));
        let after: Vec<_> = within.map(|at| at.duration_since(from)).collect();
        let last = after.iter().max().copied().unwrap_or_default();
        format!("{} failed requests within {} ms", after.len(), last.as_millis())
    };
    eprintln!("after the gateway's death: {}", window(gateway_died, Some(primary_died)));
    eprintln!("after the primary's death: {}", window(primary_died, None));
    assert!(failures.iter().all(|at| *at >= gateway_died), "nothing failed before");
}
