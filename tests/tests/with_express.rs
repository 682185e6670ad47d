//! `examples/with-express`: an Express application and edge-session share one MongoDB.

use edge_session_tests::node::{ExpressApp, browse};
use edge_session_tests::{Database, Launch, SECRET, checkout, count_in};
use serde_json::json;

#[test]
fn who_logs_in_on_one_is_known_on_the_other_and_logs_out_on_either() {
    let database = Database::new();
    let config = checkout().join("examples/with-express/edge-session.toml");
    let config = std::fs::read_to_string(config).expect("the example has a configuration");
    let edge = Launch::new(database.url()).config(&config).start();
    let express = ExpressApp::example(SECRET, database.url());
    let at = |url: String, path: &str| json!({ "goto": format!("{url}{path}") });
    let (on_express, on_edge) = (|path| at(express.url(), path), |path| at(edge.url(), path));
    let notes = browse(
        true,
        &[
            on_express("/"),
            on_edge("/"),
            // Log in on Express …
            on_express("/login"),
            json!({ "fill": ["input[name=username]", "ada"] }),
            json!({ "fill": ["input[name=password]", "analytical engine"] }),
            json!({ "click": "button" }),
            on_edge("/account"),
            on_edge("/"),
            // … log out on the edge.
            json!({ "click": "form[action='/logout'] button" }),
            on_express("/account"),
            // Log in on the edge …
            on_edge("/login"),
            json!({ "fill": ["input[name=username]", "ada"] }),
            json!({ "click": "form[action^='/login'] button" }),
            on_express("/account"),
            // … log out on Express.
            json!({ "click": "form[action='/logout'] button" }),
            on_edge("/account"),
        ],
    );
    let text = |at: usize| notes[at]["text"].as_str().unwrap_or_default();
    let url = |at: usize| notes[at]["url"].as_str().unwrap_or_default();
    assert_eq!((count_in(text(0)), count_in(text(1))), (1, 2));
    assert!(text(5).contains("You are ada"), "{}", text(5));
    assert!(url(6).ends_with("/account") && text(6).contains("ada"), "{}", text(6));
    assert_eq!(count_in(text(7)), 3, "the counter went through the login");
    assert!(url(9).starts_with(&express.url()) && url(9).ends_with("/login"), "{}", url(9));
    assert!(text(13).contains("You are ada"), "{}", text(13));
    assert!(url(15).contains("/login"), "{}", url(15));
    edge.stop();
}
