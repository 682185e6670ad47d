//! What gateways that ask do beyond the answers of edge-session.

use edge_session_tests::Front;

use super::{Chain, FETCH, NAVIGATION};

#[test]
fn the_cookie_of_a_login_wins_over_that_of_the_question() {
    // With `rolling`, both the question and the API set the session's cookie. Traefik keeps the
    // question's: docs/gateways.md.
    for front in [Front::Nginx, Front::Caddy, Front::Haproxy] {
        let options = "rolling = true\ncookie.max_age = 3600000";
        let chain = Chain::start(front, "memory:", options);
        let mut caller = chain.caller();
        caller.get("/count", FETCH);
        let anonymous = caller.session_id();
        let reply = caller.get("/free", FETCH);
        assert_eq!(super::cookies(&reply.head), ["connect.sid", "lang", "theme"], "{front:?}");
        assert_eq!(caller.get("/login?user=ada", NAVIGATION).status, 200);
        assert_ne!(caller.session_id(), anonymous, "{front:?}");
        assert_eq!(caller.get("/account", FETCH).status, 200, "{front:?}");
    }
}

#[test]
fn a_session_of_many_kilobytes_reaches_the_application() {
    for front in Front::ASKING {
        let chain = Chain::start(front, "memory:", "");
        let user = "x".repeat(12_000);
        let mut caller = chain.caller();
        // Set by a short path, since gateways limit the length of a target.
        caller.get("/count", FETCH);
        let api = chain.fronted.asked();
        let request = ureq::http::Request::builder()
            .method("PATCH")
            .uri(format!("{api}/session"))
            .header("authorization", format!("Bearer {}", edge_session_tests::AUTH_TOKEN))
            .header("content-type", "application/json")
            .header("cookie", format!("connect.sid={}", caller.cookie.clone().unwrap()))
            .body(serde_json::json!({ "large": user }).to_string())
            .unwrap();
        assert_eq!(ureq::run(request).unwrap().status(), 204);
        let reply = caller.get("/free", FETCH);
        assert_eq!(reply.status, 200, "{front:?}: {reply:#?}");
        assert!(chain.app.last().header("edge-session").unwrap().len() > 12_000, "{front:?}");
    }
}
