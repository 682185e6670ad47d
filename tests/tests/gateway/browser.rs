//! Python and JavaScript applications behind the gateway, in a real browser.

use edge_session_tests::node::{App, browse};
use edge_session_tests::{Launch, count_in};
use serde_json::{Value, json};

fn a_browser_counts_and_logs_in_and_out(app: &App) {
    let config = r#"
        [gateway]
        identity = "/user"
        logout = "/logout"

        [[guard]]
        paths = ["/account"]
        require = "/user"
        login = "/login"
    "#;
    let server = Launch::new("memory:").upstream(&app.url()).config(config).start();
    let goto = |path: &str| json!({ "goto": format!("{}{path}", server.url()) });
    let notes = browse(
        true,
        &[
            goto("/"),
            goto("/"),
            goto("/account?x=1&y=2"),
            json!({ "fill": ["input[name=username]", "Ada \u{1f600}"] }),
            json!({ "click": "button" }),
            goto("/"),
            goto("/logout"),
            goto("/account"),
        ],
    );
    let [first, second, turned_away, _, account, third, logged_out, turned_away_again] = &notes[..]
    else {
        panic!("one note per step: {notes:#?}");
    };
    let text = |note: &Value| note["text"].as_str().unwrap().to_owned();
    let at = |note: &Value| note["url"].as_str().unwrap().replace(&server.url(), "");
    let cookie = |note: &Value| note["cookies"][0]["value"].clone();
    assert_eq!([first, second, third].map(|note| count_in(&text(note))), [1, 2, 3]);
    assert_eq!(at(turned_away), "/login?return=%2Faccount%3Fx%3D1%26y%3D2");
    assert_eq!(at(account), "/account?x=1&y=2", "back where it was turned away");
    assert_eq!(text(account).trim(), "You are Ada \u{1f600}");
    assert_ne!(cookie(account), cookie(second), "logging in must change the identifier");
    assert_eq!((at(logged_out), count_in(&text(logged_out))), ("/".to_owned(), 1));
    assert_eq!(at(turned_away_again), "/login?return=%2Faccount");
    for note in &notes {
        assert_eq!(note["cookies"].as_array().map(Vec::len), Some(1), "{note}");
        assert_eq!(note["cookies"][0]["httpOnly"], true);
    }
    server.stop();
}

#[test]
fn a_browser_counts_and_logs_in_and_out_in_front_of_python() {
    a_browser_counts_and_logs_in_and_out(&App::python());
}

#[test]
fn a_browser_counts_and_logs_in_and_out_in_front_of_express() {
    a_browser_counts_and_logs_in_and_out(&App::express());
}
