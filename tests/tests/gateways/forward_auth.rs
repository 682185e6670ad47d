//! What gateways that ask do beyond the answers of edge-session.

use edge_session_tests::{Front, Launch, Mongod, as_it_is};

use super::{Chain, FETCH, NAVIGATION};

#[test]
fn the_cookie_of_a_login_wins_over_that_of_the_question() {
    // With `rolling`, both the question and the API set the session's cookie. In Traefik
    // and with Envoy's ext_authz, the question's wins: docs/gateways.md.
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
fn without_an_answer_nobody_passes() {
    for (front, without_store, without_edge) in [
        (Front::EnvoyExtAuthz, 503, 503),
        (Front::Nginx, 500, 500),
        (Front::Caddy, 503, 502),
        (Front::Traefik, 503, 500),
        (Front::Haproxy, 503, 503),
    ] {
        let mongod = Mongod::start();
        let launch = Launch::new(&mongod.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "300");
        let mut chain = Chain::edited(front, launch, "", &as_it_is);
        let mut caller = chain.logged_in("ada");
        let before = chain.app.count();
        mongod.freeze();
        assert_eq!(caller.get("/free", FETCH).status, without_store, "{front:?}: the store");
        mongod.thaw();
        chain.fronted.kill_edge();
        assert_eq!(caller.get("/free", FETCH).status, without_edge, "{front:?}: edge-session");
        assert_eq!(chain.app.count(), before, "{front:?}");
    }
}

#[test]
fn a_session_of_many_kilobytes_reaches_the_application() {
    for front in Front::ALL {
        let chain = Chain::start(front, "memory:", "");
        let mut caller = chain.logged_in("ada");
        // In parts, since gateways limit the length of a target.
        for part in 0..8 {
            caller.get(&format!("/add?part{part}={}", "x".repeat(5_000)), FETCH);
        }
        let reply = caller.get("/free", FETCH);
        assert_eq!(reply.status, 200, "{front:?}: {reply:#?}");
        let told = chain.app.last().session();
        assert_eq!(told.to_string().matches('x').count(), 40_000, "{front:?}");
    }
}
