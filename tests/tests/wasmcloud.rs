//! The store over `wasmcloud:keyvalue`, in wasmCloud with a NATS server.

use std::thread;
use std::time::{Duration, Instant};

use edge_session_tests::{KeyValue, Nats, Wash};
use serde_json::{Value, json};

use crate::conformance::{ask_at, of_middleware};
use crate::middleware::keeps_the_promises_of_a_store;

/// How many visits come at the same time.
const AT_ONCE: usize = 32;

/// Performs a store operation (`tests/wasi-store`).
fn store(wash: &Wash, asked: &Value) -> Value {
    let mut answer = ureq::post(format!("{}/store", wash.url())).send(asked.to_string());
    let body = answer.as_mut().expect("it answers").body_mut().read_to_string();
    serde_json::from_str(&body.expect("it has a body")).expect("it is JSON")
}

fn status_of(url: &str, cookie: &str, deeds: &Value) -> u16 {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = agent.get(url).header("cookie", cookie).header("x-deeds", deeds.to_string());
    request.call().expect("it answers").status().as_u16()
}

/// One test, because each start of wasmCloud compiles the component.
#[test]
fn its_store_keeps_its_promises_on_two_hosts_and_while_its_database_fails() {
    let nats = Nats::start();
    let env = of_middleware(&json!({}));
    let hosts = [(); 2].map(|()| Wash::start(KeyValue::SwapsInNats(&nats.url()), &env));
    a_missing_bucket_is_a_503_until_it_is_created(&nats, &hosts);
    it_keeps_the_promises_of_a_store(&hosts);
    parallel_changes_are_all_kept(&hosts);
    a_logout_beside_changes_counts(&hosts);
    a_database_that_does_not_reply_is_a_503_in_time(&nats, &hosts);
}

fn a_missing_bucket_is_a_503_until_it_is_created(nats: &Nats, [wash, _]: &[Wash; 2]) {
    let status = || status_of(&wash.url(), "", &json!([["set", "n", 1]]));
    assert_eq!(status(), 503);
    let why = "wasmcloud:keyvalue has no bucket \"default\": create it";
    assert!(wash.log().contains(why), "{}", wash.log());
    nats.add_bucket("default");
    assert_eq!(status(), 200);
}

fn it_keeps_the_promises_of_a_store([one, other]: &[Wash; 2]) {
    keeps_the_promises_of_a_store(|asked| store(one, &asked));
    assert_eq!(store(other, &json!(["load", "a"]))["data"], "again", "the other host finds it");
}

/// Returns a cookie whose session has `{"first": true}`.
fn begin(url: &str) -> String {
    ask_at(url, None, &json!([["set", "first", true]])).1.expect("there is a session")
}

/// Visits with one cookie at the same time, on the hosts in turn.
fn at_once(hosts: &[Wash; 2], cookie: &str, deeds: impl Fn(usize) -> Value) {
    let urls = hosts.each_ref().map(Wash::url);
    let answers: Vec<_> = thread::scope(|scope| {
        let visits = (0..AT_ONCE).map(|n| {
            let (url, deeds) = (&urls[n % 2], deeds(n));
            scope.spawn(move || status_of(url, cookie, &deeds))
        });
        let visits: Vec<_> = visits.collect();
        visits.into_iter().map(|visit| visit.join().expect("it ends")).collect()
    });
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
}

fn parallel_changes_are_all_kept(hosts: &[Wash; 2]) {
    let cookie = begin(&hosts[0].url());
    at_once(hosts, &cookie, |n| json!([["set", format!("key {n}"), n]]));
    let (data, _) = ask_at(&hosts[1].url(), Some(&cookie), &json!([]));
    assert_eq!(data.as_object().expect("it is an object").len(), AT_ONCE + 1, "{data}");
}

fn a_logout_beside_changes_counts(hosts: &[Wash; 2]) {
    let cookie = begin(&hosts[0].url());
    at_once(hosts, &cookie, |n| match n {
        20 => json!([["destroy"]]),
        _ => json!([["set", format!("key {n}"), n]]),
    });
    for wash in hosts {
        assert_eq!(ask_at(&wash.url(), Some(&cookie), &json!([])).0, json!({}));
    }
}

fn a_database_that_does_not_reply_is_a_503_in_time(nats: &Nats, [wash, _]: &[Wash; 2]) {
    let (url, cookie) = (wash.url(), begin(&wash.url()));
    nats.frozen(|| {
        for deeds in [json!([]), json!([["set", "n", 2]])] {
            let start = Instant::now();
            assert_eq!(status_of(&url, &cookie, &deeds), 503);
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(8), "it took {waited:?}");
        }
    });
    let (data, _) = ask_at(&url, Some(&cookie), &json!([["set", "n", 3]]));
    assert_eq!(data, json!({ "first": true }));
    assert_eq!(ask_at(&url, Some(&cookie), &json!([])).0, json!({ "first": true, "n": 3 }));
}
