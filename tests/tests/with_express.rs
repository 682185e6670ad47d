//! `examples/with-express`: an Express application and edge-session share one database.

use edge_session_tests::node::{App, ExpressApp, browse};
use edge_session_tests::{Database, Launch, Postgres, Redis, SECRET, Upstream, checkout, count_in};
use mongodb::bson::doc;
use serde_json::json;

#[test]
fn who_logs_in_on_one_is_known_on_the_other_and_logs_out_on_either() {
    let database = Database::new();
    logins_are_shared(database.url(), |edge| edge);
}

#[test]
fn logins_are_shared_in_redis() {
    let redis = Redis::start();
    logins_are_shared(redis.url(), |edge| edge);
}

#[test]
fn logins_are_shared_in_postgresql() {
    let postgres = Postgres::bare();
    logins_are_shared(postgres.url(), |edge| edge.env("EDGE_SESSION_STORE_CREATE_TABLE", "true"));
}

fn logins_are_shared(store: &str, configured: impl Fn(Launch) -> Launch) {
    let config = checkout().join("examples/with-express/edge-session.toml");
    let config = std::fs::read_to_string(config).expect("the example has a configuration");
    let edge = configured(Launch::new(store).config(&config)).start();
    let express = ExpressApp::example(SECRET, store);
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

/// A gateway in front of an application that manages its own sessions.
fn in_front_of(app: &str, store: &str) -> Launch {
    let config = "[gateway]\nsessions = \"shared\"\nlogin = \"/login\"\n\
                  [[guard]]\npaths = [\"/account\"]\nrequire = \"/passport/user\"";
    Launch::new(store).upstream(app).config(config)
}

#[test]
fn an_unchanged_application_logs_people_in_behind_a_gateway_that_shares_its_sessions() {
    let database = Database::new();
    let express = ExpressApp::example(SECRET, database.url());
    let gateway = in_front_of(&express.url(), database.url()).start();
    let at = |url: String, path: &str| json!({ "goto": format!("{url}{path}") });
    let (inside, outside) = (|path| at(express.url(), path), |path| at(gateway.url(), path));
    let log_in = [
        json!({ "fill": ["input[name=username]", "ada"] }),
        json!({ "fill": ["input[name=password]", "analytical engine"] }),
        json!({ "click": "button" }),
    ];
    let [name, password, button] = &log_in;
    let notes = browse(
        true,
        &[
            outside("/account"),
            name.clone(),
            password.clone(),
            button.clone(),
            outside("/account"),
            json!({ "click": "form[action='/logout'] button" }),
            outside("/account"),
            // Another process with the same sessions.
            inside("/login"),
            name.clone(),
            password.clone(),
            button.clone(),
            outside("/account"),
        ],
    );
    let text = |at: usize| notes[at]["text"].as_str().unwrap_or_default();
    let url = |at: usize| notes[at]["url"].as_str().unwrap_or_default();
    assert!(url(0).contains("/login?return=%2Faccount"), "{}", url(0));
    let cookie = |at: usize| notes[at]["cookies"][0]["value"].clone();
    assert_ne!(cookie(0), cookie(4), "the login has renewed the identifier");
    for at in [4, 11] {
        assert!(url(at).starts_with(&gateway.url()), "{}", url(at));
        assert!(url(at).ends_with("/account") && text(at).contains("ada"), "{}", text(at));
    }
    assert!(url(6).contains("/login?return=%2Faccount"), "{}", url(6));
    let log = gateway.log();
    assert!(!log.contains("WARN") && !log.contains("a new session begins"), "{log}");
    gateway.stop();
}

#[test]
fn shared_sessions_are_read_and_nothing_else() {
    let database = Database::new();
    let express = ExpressApp::start(SECRET, database.url());
    let app = Upstream::parrot();
    let gateway = in_front_of(&app.url(), database.url()).start();
    let mut visitor = gateway.visitor().moved_to(express.url());
    visitor.get("/");
    let (id, cookie) = (visitor.session_id(), visitor.cookie().to_owned());
    let before = database.session(&id);
    let mut caller = gateway.caller();
    let pair = format!("Cookie: connect.sid={cookie}");
    let own = "Say: Set-Cookie: connect.sid=s%3Amine.of-the-application; Path=/";
    let change = r#"Say: Edge-Session: {"changed":true}"#;
    let answer = caller.ask("GET", "/", &[&pair, own, change], b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.head.all("set-cookie"), ["connect.sid=s%3Amine.of-the-application; Path=/"]);
    let asked = app.last();
    assert_eq!(asked.head.header("edge-session-id"), Some(""), "headers cannot change it");
    assert!(asked.head.header("edge-session").is_some_and(|data| data.contains("viewCount")));
    assert!(asked.head.all("cookie").join(";").contains(&cookie), "the application reads it, too");
    // Requests without a session get none, and the application receives none.
    for headers in [&[][..], &["Cookie: connect.sid=s%3Aforged.AAAA"]] {
        let answer = gateway.caller().ask("GET", "/", headers, b"");
        assert_eq!((answer.status, answer.head.header("set-cookie")), (200, None));
        let asked = app.last();
        assert_eq!(asked.head.header("edge-session-id"), Some(""));
        assert_eq!(asked.head.header("edge-session"), Some("{}"));
        assert_eq!(gateway.caller().ask("GET", "/account", headers, b"").status, 401);
    }
    assert_eq!(database.session(&id), before, "neither changed nor touched");
    // The application uses the first cookie of the name, and so do guards.
    let sessions = database.sessions();
    let logged_in =
        doc! { "$set": { "session": r#"{"cookie":{"path":"/"},"passport":{"user":1}}"# } };
    sessions.update_one(doc! { "_id": &id }, logged_in).run().unwrap();
    let before = database.session(&id);
    let ask = |cookies: &str| gateway.caller().ask("GET", "/account", &[cookies], b"").status;
    assert_eq!(ask(&pair), 200);
    for first in ["garbage", "s%3Aforged.AAAA", "s%3A.x", ""] {
        let twice = format!("Cookie: connect.sid={first}; connect.sid={cookie}");
        assert_eq!(ask(&twice), 401, "{first}");
    }
    // If the application sets its cookie, cacheable responses become private.
    let public = "Say: Cache-Control: public, s-maxage=100";
    let answer = gateway.caller().ask("GET", "/", &[&pair, own, public], b"");
    assert_eq!(answer.head.header("cache-control"), Some("private"));
    assert_eq!(database.session(&id), before, "neither changed nor touched");
    assert_eq!(database.sessions().count_documents(doc! {}).run().unwrap(), 1);
    gateway.stop();
}

#[test]
fn an_application_that_gives_up_its_store_logs_people_in_by_the_headers() {
    let database = Database::new();
    let app = App::with_header_sessions();
    let config = "[gateway]\nlogin = \"/login\"\n\
                  [[guard]]\npaths = [\"/account\"]\nrequire = \"/passport/user\"";
    let launch = Launch::new(database.url()).upstream(&app.url()).config(config);
    let (one, other) = (launch.start(), launch.start());
    let at = |url: String, path: &str| json!({ "goto": format!("{url}{path}") });
    let (on_one, on_other) = (|path| at(one.url(), path), |path| at(other.url(), path));
    let notes = browse(
        true,
        &[
            on_one("/"),
            on_one("/account"),
            json!({ "fill": ["input[name=username]", "ada"] }),
            json!({ "fill": ["input[name=password]", "analytical engine"] }),
            json!({ "click": "button" }),
            // Another process with the same sessions.
            on_other("/account"),
            on_other("/"),
            on_other("/account"),
            json!({ "click": "form[action='/logout'] button" }),
            on_one("/account"),
        ],
    );
    let text = |at: usize| notes[at]["text"].as_str().unwrap_or_default();
    let url = |at: usize| notes[at]["url"].as_str().unwrap_or_default();
    let cookie = |at: usize| notes[at]["cookies"][0]["value"].clone();
    assert_eq!(count_in(text(0)), 1);
    assert!(url(1).contains("/login?return=%2Faccount"), "{}", url(1));
    assert_ne!(cookie(0), cookie(4), "the login has renewed the identifier");
    for at in [4, 5] {
        assert!(url(at).ends_with("/account") && text(at).contains("You are ada"), "{}", text(at));
    }
    assert_eq!(count_in(text(6)), 2, "the counter went through the login");
    assert_eq!(count_in(text(8)), 1, "nothing is left of it after the logout");
    assert!(url(9).contains("/login?return=%2Faccount"), "{}", url(9));
    one.stop();
    other.stop();
}
