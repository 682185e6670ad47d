//! The built-in app in a real browser.

use edge_session_tests::{Launch, count_in, node::browse};
use serde_json::{Value, json};

fn count(note: &Value) -> u64 {
    count_in(note["text"].as_str().expect("a note has the page's text"))
}

#[test]
fn a_browser_counts_one_two_three() {
    let server = Launch::new("memory:").start();
    let visit = json!({ "goto": server.url() });
    let notes = browse(true, &[visit.clone(), visit.clone(), visit]);
    assert_eq!(notes.iter().map(count).collect::<Vec<_>>(), [1, 2, 3]);

    let cookies = &notes[2]["cookies"];
    assert_eq!(cookies.as_array().map(Vec::len), Some(1), "{cookies}");
    assert_eq!(cookies[0]["name"], "connect.sid");
    assert_eq!(cookies[0]["httpOnly"], true);
    assert_eq!(cookies[0]["sameSite"], "Lax");
    assert_eq!(cookies[0]["secure"], false, "over plain HTTP a browser would not send it back");
    server.stop();
}

fn a_browser_logs_in_and_out(javascript: bool) {
    let server = Launch::new("memory:").start();
    let url = |path: &str| format!("{}{path}", server.url());
    let notes = browse(
        javascript,
        &[
            json!({ "goto": url("/") }),
            json!({ "goto": url("/account") }),
            json!({ "fill": ["input[name=username]", "Ada"] }),
            json!({ "click": "form[action^='/login'] button" }),
            json!({ "goto": url("/") }),
            json!({ "goto": url("/account") }),
            json!({ "click": "form[action='/logout'] button" }),
            json!({ "goto": url("/account") }),
        ],
    );
    let [anonymous, redirected, _, account, home, _, logged_out, turned_away] = &notes[..] else {
        panic!("one note per step: {notes:#?}");
    };
    let at = |note: &Value| note["url"].as_str().unwrap().replace(&server.url(), "");
    let cookie = |note: &Value| note["cookies"][0]["value"].clone();

    assert_eq!(count(anonymous), 1);
    assert!(at(redirected).starts_with("/login"), "{redirected}");
    assert_eq!(at(account), "/account");
    assert!(account["text"].as_str().unwrap().contains("Ada"), "{account}");
    assert_ne!(cookie(account), cookie(anonymous), "logging in must change the identifier");
    assert_eq!(count(home), 2);
    assert_eq!(at(logged_out), "/");
    assert_eq!(count(logged_out), 1);
    assert!(at(turned_away).starts_with("/login"), "{turned_away}");
    server.stop();
}

#[test]
fn a_browser_logs_in_and_out_with_javascript() {
    a_browser_logs_in_and_out(true);
}

#[test]
fn a_browser_logs_in_and_out_without_javascript() {
    a_browser_logs_in_and_out(false);
}
