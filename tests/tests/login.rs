//! Logging in and out, and the page that asks for it.

use edge_session_tests::{Database, Launch, Visitor};

#[test]
fn logging_in_changes_the_session_id_and_keeps_the_count() {
    let database = Database::new();
    let server = Launch::new(database.url()).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let anonymous = visitor.session_id();

    let page = visitor.log_in("ada");
    assert_eq!((page.status, page.location()), (303, Some("/account")));
    assert_ne!(visitor.session_id(), anonymous);
    assert_eq!(database.session(&anonymous), None, "the old identifier must be worth nothing");

    let account = visitor.get("/account");
    assert_eq!(account.status, 200);
    assert!(account.body.contains("ada"), "{}", account.body);
    assert_eq!(visitor.get("/").count(), 2);
    server.stop();
}

#[test]
fn logging_out_clears_the_cookie_and_deletes_the_stored_session() {
    let database = Database::new();
    let server = Launch::new(database.url()).start();
    let mut visitor = server.visitor();
    visitor.log_in("ada");
    let (id, mut thief) = (visitor.session_id(), visitor.clone());
    assert!(database.session(&id).is_some());

    visitor.get("/account");
    let page = visitor.post("/logout", &[]);
    assert_eq!((page.status, page.location()), (303, Some("/")));
    assert!(!visitor.has_cookie(), "the cookie must be expired: {:?}", page.set_cookies());
    assert_eq!(database.session(&id), None);

    assert_eq!(
        thief.get("/account").status,
        302,
        "a kept copy of the cookie must be worth nothing"
    );
    assert_eq!(visitor.get("/").count(), 1);
    server.stop();
}

#[test]
fn the_protected_page_sends_a_stranger_to_the_login_and_the_login_back() {
    let server = Launch::new("memory:").start();
    let mut visitor = server.visitor();
    let page = visitor.get("/account");
    assert_eq!(page.status, 302);
    let login = page.location().expect("it redirects").to_owned();
    assert!(login == "/login" || login.starts_with("/login?"), "{login}");

    assert_eq!(visitor.get(&login).status, 200);
    let page = visitor.post("/login", &[("username", "ada"), ("return", "/account")]);
    assert_eq!((page.status, page.location()), (303, Some("/account")));
    server.stop();
}

#[test]
fn the_login_leads_to_no_other_site() {
    let server = Launch::new("memory:").start();
    for elsewhere in
        ["https://example.com/", "//example.com/", "/\\example.com/", "javascript:alert(1)"]
    {
        let mut visitor = server.visitor();
        visitor.get("/login");
        let page = visitor.post("/login", &[("username", "ada"), ("return", elsewhere)]);
        assert_eq!((page.status, page.location()), (303, Some("/account")), "for {elsewhere}");
    }
    server.stop();
}

#[test]
fn a_form_without_its_token_changes_nothing() {
    let server = Launch::new("memory:").start();
    let mut visitor = server.visitor();
    visitor.get("/login");
    let refused = |visitor: &mut Visitor, path: &str, csrf: &[(&str, &str)]| {
        let fields = [&[("username", "ada"), ("key", "k"), ("value", "v")], csrf].concat();
        assert_eq!(
            visitor.post_without_csrf(path, &fields).status,
            403,
            "POST {path} with {csrf:?}"
        );
    };
    for path in ["/login", "/logout", "/demo/set"] {
        refused(&mut visitor, path, &[]);
        refused(&mut visitor, path, &[("csrf", "")]);
        refused(&mut visitor, path, &[("csrf", "guessed")]);
    }
    assert_eq!(visitor.get("/account").status, 302, "nobody is logged in");
    server.stop();
}
