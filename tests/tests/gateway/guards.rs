//! Guards, and the paths that must match them.

use edge_session_tests::{Caller, Launch, Reply, Server, Upstream};
use serde_json::json;

fn gateway(upstream: &Upstream) -> Server {
    let config = r#"
        [gateway]
        login = "/sign-in"
        logout = "/logout"
        after_logout = "/bye"

        [[guard]]
        paths = ["/account", "/orders"]
        require = "/passport/user"
        login = "/login"

        [[guard]]
        paths = ["/orders/all"]
        require = "/passport/role"
        equals = "admin"

        [[guard]]
        paths = ["/internal"]
        deny = true
    "#;
    Launch::new("memory:").upstream(&upstream.url()).config(config).start()
}

fn logged_in(server: &Server, data: &str) -> Caller {
    logged_in_by(server, "/", data)
}

/// Returns a caller with a session that the application starts at `path`.
fn logged_in_by(server: &Server, path: &str, data: &str) -> Caller {
    let mut caller = server.caller();
    caller.get(path, &[&format!("Say: Edge-Session: {data}")]);
    caller
}

const NAVIGATION: &[&str] = &["Sec-Fetch-Mode: navigate"];
const FETCH: &[&str] = &["Sec-Fetch-Mode: cors", "Accept: text/html"];

#[test]
fn what_is_denied_to_everyone_needs_no_login_first() {
    let upstream = Upstream::parrot();
    let config = "[gateway]\nlogin = \"/login\"\n[[guard]]\npaths = [\"/\"]\nrequire = \"/user\"\n\
                  [[guard]]\npaths = [\"/internal\"]\ndeny = true";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    for (path, status) in [("/internal/x", 403), ("/x", 302), ("/login", 200)] {
        assert_eq!(server.caller().get(path, NAVIGATION).status, status, "{path}");
    }
}

#[test]
fn a_guarded_path_is_for_those_who_are_logged_in() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut anonymous = server.caller();
    // A person gets the login page, with the path to return to.
    for headers in [NAVIGATION, &["Accept: text/html,application/xhtml+xml;q=0.9"]] {
        let answer = anonymous.get("/account?x=1", headers);
        assert_eq!(answer.status, 302);
        assert_eq!(answer.head.header("location"), Some("/login?return=%2Faccount%3Fx%3D1"));
        assert_eq!(answer.head.header("cache-control"), Some("no-store"));
    }
    // A script gets the status.
    for headers in [FETCH, &["Accept: application/json"], &[]] {
        let answer = anonymous.get("/account?x=1", headers);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.head.header("location"), None);
    }
    assert_eq!(anonymous.ask("POST", "/account", NAVIGATION, b"x").status, 401);
    assert_eq!(upstream.count(), 0, "the application hears nothing of it");
    assert_eq!(server.refused("login-required"), 4);

    let mut ada = logged_in(&server, r#"{"passport":{"user":"ada"}}"#);
    assert_eq!(ada.get("/account?x=1", NAVIGATION).status, 200);
    assert_eq!(upstream.last().target, "/account?x=1");
    // No user: missing or null.
    for data in [r#"{"passport":{"user":null}}"#, r#"{"passport":{}}"#, r#"{"passport":"user"}"#] {
        assert_eq!(logged_in(&server, data).get("/account", FETCH).status, 401, "{data}");
    }
    // A forged session is no session.
    let mut forger = server.caller();
    let real = ada.cookie.clone().unwrap();
    let signature = if real.ends_with("xxxxxxxx") { "yyyyyyyy" } else { "xxxxxxxx" };
    forger.cookie = Some(format!("{}{signature}", &real[..real.len() - 8]));
    assert_eq!(forger.get("/account", FETCH).status, 401);
    server.stop();
}

#[test]
fn a_rule_may_want_a_value_or_let_nobody_in() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut user = logged_in(&server, r#"{"passport":{"user":"ada","role":"user"}}"#);
    let mut admin = logged_in(&server, r#"{"passport":{"user":"eve","role":"admin"}}"#);
    let mut only_role = logged_in(&server, r#"{"passport":{"role":"admin"}}"#);
    // Both guards apply to a path below both.
    for (caller, orders, all) in
        [(&mut user, 200, 403), (&mut admin, 200, 200), (&mut only_role, 401, 401)]
    {
        assert_eq!(caller.get("/orders", FETCH).status, orders);
        assert_eq!(caller.get("/orders/all", FETCH).status, all);
        assert_eq!(caller.get("/orders/all/1", FETCH).status, all);
        assert_eq!(caller.get("/orders-all", FETCH).status, 200);
    }
    // A user who is logged in but does not satisfy another guard is not sent to the login page,
    // because logging in again would change nothing.
    let answer = only_role.get("/orders", NAVIGATION);
    assert_eq!(answer.head.header("location"), Some("/login?return=%2Forders"));
    let mut no_role = logged_in(&server, r#"{"passport":{"user":"zoe"}}"#);
    for caller in [&mut no_role, &mut user] {
        assert_eq!(caller.get("/orders/all", NAVIGATION).status, 403);
    }

    let before = upstream.count();
    for path in ["/internal", "/internal/x", "/INTERNAL/", "/internal//x", "/internal;a=b"] {
        assert_eq!(admin.get(path, NAVIGATION).status, 403, "{path}");
    }
    assert_eq!(upstream.count(), before);
    assert_eq!(server.refused("denied"), 9);
    server.stop();
}

#[test]
fn who_is_logged_in_and_may_not_is_refused_and_not_sent_to_log_in_for_ever() {
    let upstream = Upstream::parrot();
    let config = r#"
        [gateway]
        login = "/login"
        identity = "/user"
        [[guard]]
        paths = ["/admin"]
        require = "/role"
        equals = "admin"
        [[guard]]
        paths = ["/staff"]
        require = "/staff"
    "#;
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    for (data, admin, staff) in [
        (r#"{"user":"zoe"}"#, 403, 403),
        (r#"{"user":"zoe","role":"user"}"#, 403, 403),
        (r#"{"user":"zoe","role":"admin","staff":1}"#, 200, 200),
        (r#"{"user":null}"#, 302, 302),
        (r#"{"role":"user"}"#, 403, 302),
        ("{}", 302, 302),
        // Values that applications use for nobody or nothing.
        (r#"{"user":"","staff":false}"#, 302, 302),
        (r#"{"user":0,"staff":0}"#, 403, 200),
    ] {
        let mut caller = logged_in(&server, data);
        assert_eq!(caller.get("/admin", NAVIGATION).status, admin, "{data}");
        assert_eq!(caller.get("/staff", NAVIGATION).status, staff, "{data}");
    }
    server.stop();
    // Without an identity, satisfying one of the guards counts as being logged in.
    let config = config.replace("identity = \"/user\"", "").replace("/staff\"]", "/user\"]");
    let config = config.replace("require = \"/staff\"", "require = \"/user\"");
    let server = Launch::new("memory:").upstream(&upstream.url()).config(&config).start();
    let mut zoe = logged_in(&server, r#"{"user":"zoe"}"#);
    assert_eq!(zoe.get("/user", NAVIGATION).status, 200);
    assert_eq!(zoe.get("/admin", NAVIGATION).status, 403);
    server.stop();
}

#[test]
fn what_guards_look_at_is_who_is_logged_in_unless_it_is_said() {
    let upstream = Upstream::parrot();
    let guards = "[[guard]]\npaths = [\"/a\"]\nrequire = \"/user\"\n\
                  [[guard]]\npaths = [\"/b\"]\nrequire = \"/role\"\n";
    for (config, renewing, keeping) in [
        (guards.to_owned(), &["user", "role"][..], &["n"][..]),
        (format!("[gateway]\nidentity = \"/user\"\n{guards}"), &["user"], &["role", "n"]),
        ("[gateway]\nhide_cookie = true\n".to_owned(), &[], &["user"]),
    ] {
        let server = Launch::new("memory:").upstream(&upstream.url()).config(&config).start();
        for key in renewing.iter().chain(keeping) {
            let mut caller = logged_in(&server, r#"{"begun":true}"#);
            let before = caller.session_id();
            caller.get("/", &[&format!("Say: Edge-Session-Merge: {{\"{key}\":\"zoe\"}}")]);
            assert_eq!(caller.session_id() != before, renewing.contains(key), "{config}: {key}");
        }
        server.stop();
    }
}

#[test]
fn every_spelling_of_a_guarded_path_is_guarded() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut caller = server.caller();
    let absolute = format!("http://{}/account", server.address());
    for path in [
        "/account",
        "/account/",
        "/account//",
        "/;x//account",
        "/%61ccount",
        "/%61%63%63%6f%75%6E%74",
        "/ACCOUNT",
        "/Account/x",
        "/account;x",
        "/account;x=1/y",
        "/;x/account",
        "/account?",
        "/account?/../",
        "/account/%20",
        "/account/..%3bx",
        &absolute,
    ] {
        let status = caller.get(path, FETCH).status;
        assert!(status == 401 || (path.contains("..%3b") && status == 400), "{path}: {status}");
    }
    assert_eq!(upstream.count(), 0);
    for path in ["/accounts", "/my/account", "/accoun", "/%2561ccount"] {
        assert_eq!(caller.get(path, FETCH).status, 200, "{path}");
        assert_eq!(upstream.last().target, path, "the application gets it as it was sent");
    }
    server.stop();
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut caller = server.caller();
    let paths = [
        "/%2e%2e/",
        "/%2E%2e/account",
        "/.%2e/account",
        "/x/%2e./account",
        "/./account",
        "/a/../b",
        "/..",
        "/a%2fb",
        "/a%2Fb",
        "/x%5caccount",
        "/a\\b",
        "/..;/",
        "/x/..;a=b/account",
        "/.;/account",
        "/%00",
        "/account%00.png",
        "/%0d%0aX-Evil:1",
        "/%7f",
        "/%",
        "/%a",
        "/%zz",
        "/x%u0061",
        // A URL reference with a host (RFC 3986, section 4.2): its path is `/account`.
        "//x/account",
        "///x/account",
        "//user@x/account",
        "//account",
        // Some servers drop what is not UTF-8, some replace it.
        "/account%ff",
        "/acc%ffount",
        "/%c0%afaccount",
        "/acc%ed%a0%80ount",
        // Some file systems ignore spaces.
        "/x/..%20/account",
    ];
    for path in paths {
        assert_eq!(caller.get(path, FETCH).status, 400, "{path}");
    }
    assert_eq!(upstream.count(), 0);
    // An invalid target is refused before its path is examined.
    assert!(server.refused("ambiguous-path") >= paths.len() as u64 - 2);
    server.stop();
}

#[test]
fn the_way_back_never_leads_to_another_host() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut caller = server.caller();
    let config = "[[guard]]\npaths = [\"/\"]\nrequire = \"/user\"\nlogin = \"/login?x=1\"";
    let closed = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut outside = closed.caller();
    let absolute = format!("http://{}//evil.example/", closed.address());
    for target in ["//evil.example/account", "///evil.example", "//evil.example//", &absolute] {
        let answer = outside.get(target, NAVIGATION);
        assert_eq!((answer.status, answer.head.header("location")), (400, None), "{target}");
    }
    // No part of a query escapes from the parameter.
    let answer = outside.get("/a?b=c&return=//evil.example#d", NAVIGATION);
    if answer.status == 302 {
        let location = answer.head.header("location").unwrap();
        assert_eq!(location.matches('&').count(), 1, "{location}");
        assert!(!location.contains("//evil"), "{location}");
    }
    // A user without access can still log in.
    assert_eq!(outside.get("/login?return=%2F", NAVIGATION).status, 200);
    assert_eq!(outside.get("/login/", NAVIGATION).status, 200);
    // What may be another page of the application does not count as the login page.
    for other in ["/login/x", "/LOGIN", "/login;x", "/x//login", "/%256cogin"] {
        assert_eq!(outside.get(other, NAVIGATION).status, 302, "{other}");
    }
    let answer = caller.get("/account//", NAVIGATION);
    assert_eq!(answer.head.header("location"), Some("/login?return=%2Faccount%2F%2F"));
    closed.stop();
    server.stop();
}

#[test]
fn what_is_not_an_exception_of_a_guard_is_guarded_in_every_spelling() {
    let upstream = Upstream::parrot();
    let config = r#"
        [gateway]
        login = "/login"

        [[guard]]
        paths = ["/"]
        except = ["/public", "/a b", "/100%25"]
        require = "/passport/user"

        [[guard]]
        paths = ["/internal"]
        except = ["/internal/health"]
        deny = true
    "#;
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let mut anonymous = server.caller();
    let open = ["/public", "/public/", "/public/x.css?y=//z", "/%70ublic", "/a%20b/c", "/100%25"];
    for target in open {
        assert_eq!(anonymous.get(target, FETCH).status, 200, "{target}");
        assert_eq!(upstream.last().target, target);
    }
    let before = upstream.count();
    for target in [
        "/",
        "/account.json",
        "/index.php/account",
        "/%2561ccount",
        "/publicity",
        "/PUBLIC/x",
        "/public;x=/../account",
        "/public/x;y",
        "/public//account",
        "/public/%252e%252e/account",
        "/public/%252faccount",
        "/x/../public",
        "//public",
        "/public%ff",
        "/internal/health",
    ] {
        let status = anonymous.get(target, FETCH).status;
        assert!(matches!(status, 400 | 401), "{target}: {status}");
    }
    assert_eq!(upstream.count(), before);
    let mut ada = logged_in_by(&server, "/public", r#"{"passport":{"user":"ada"}}"#);
    for (target, status) in [("/", 200), ("/internal/x", 403), ("/internal/health", 200)] {
        assert_eq!(ada.get(target, FETCH).status, status, "{target}");
    }
    server.stop();
}

#[test]
fn an_exception_that_opens_everything_or_nothing_and_a_login_that_nobody_reaches_are_refused() {
    let config = "upstream = \"http://127.0.0.1:1\"\n[[guard]]\npaths = [\"/\"]\nexcept = [\"/\", \
                  \"/a;b\", \"x\", \"/c*\"]\nrequire = \"/user\"\nlogin = \"/in;x\"\n[[guard]]\n\
                  paths = [\"/a\"]\nexcept = [\"/a/b\", \"/b/a\"]\ndeny = true\n[admin]\n\
                  hosts = [\"a b\"]";
    let refusal = Launch::new("memory:").config(config).refusal();
    for wrong in [
        "would leave nothing to guard",
        "\"/a;b\"",
        "\"x\"",
        "\"/c*\"",
        "guard[0].login",
        "\"/b/a\" is not below any of the guard's paths",
        "\"a b\" is not a host name",
    ] {
        assert!(refusal.contains(wrong), "{wrong}: {refusal}");
    }
    assert!(!refusal.contains("\"/a/b\""), "{refusal}");
}

#[test]
fn a_logout_from_an_origin_that_is_none_is_refused() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    for origin in ["/", "", "://", "null", "http:/", "http://", "a/", "http://elsewhere"] {
        let mut ada = logged_in(&server, r#"{"passport":{"user":"ada"}}"#);
        let answer = ada.ask("POST", "/logout", &[&format!("Origin: {origin}")], b"");
        assert_eq!(answer.status, 403, "{origin:?}");
        assert_eq!(ada.get("/account", FETCH).status, 200, "{origin:?}");
    }
    let mut ada = logged_in(&server, r#"{"passport":{"user":"ada"}}"#);
    let own = format!("Origin: http://{}", server.address());
    assert_eq!(ada.ask("POST", "/logout", &[&own], b"").status, 303);
    server.stop();
}

#[test]
fn the_logout_path_ends_the_session_unless_another_site_asks() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut ada = logged_in(&server, r#"{"passport":{"user":"ada"}}"#);
    let stays = ada.clone();
    let before = upstream.count();
    for site in ["cross-site", "same-site"] {
        let answer = ada.get("/logout", &[&format!("Sec-Fetch-Site: {site}")]);
        assert_eq!(answer.status, 403);
        assert_eq!(ada.cookie, stays.cookie);
    }
    assert_eq!(server.refused("cross-site"), 2);
    assert_eq!(ada.clone().get("/account", FETCH).status, 200, "still logged in");

    let answer = ada.ask("POST", "/LogOut/", &["Sec-Fetch-Site: same-origin"], b"x=1");
    assert_eq!(answer.status, 303);
    assert_eq!(answer.head.header("location"), Some("/bye"));
    assert!(ada.cookie.is_none(), "the cookie is cleared");
    assert_eq!(stays.clone().get("/account", FETCH).status, 401, "its session is gone");
    assert_eq!(upstream.count(), before + 1, "the application is not asked");
    // Logging out without a session works too.
    let answer = server.caller().get("/logout", &["Accept: text/html"]);
    assert_eq!((answer.status, answer.head.header("location")), (303, Some("/bye")));
    assert_eq!(stays.clone().get("/", &[]).json(), json!({}));
    server.stop();
}

#[test]
fn only_a_person_logs_out() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let logged_in = || logged_in(&server, r#"{"passport":{"user":"ada"}}"#);
    for (method, headers, status) in [
        ("HEAD", NAVIGATION, 405),
        ("OPTIONS", &[], 405),
        ("PUT", &[], 405),
        ("DELETE", &[], 405),
        ("GET", &[], 403),
        ("GET", &["Accept: image/avif,*/*"], 403),
        ("GET", &["Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"], 403),
        ("GET", &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"], 403),
        ("GET", &["Sec-Fetch-Mode: navigate", "Sec-Purpose: prefetch;prerender"], 403),
        ("GET", &["Accept: text/html", "Purpose: prefetch"], 403),
        ("GET", &["Accept: text/html", "X-Moz: prefetch"], 403),
        ("GET", &["Accept: text/html", "Next-Router-Prefetch: 1"], 403),
        ("GET", &["Accept: text/html", "HX-Preloaded: true"], 403),
        ("GET", &["Accept: text/html", "X-Requested-With: XMLHttpRequest"], 403),
    ] {
        let mut ada = logged_in();
        let head = ada.begin(method, "/logout", headers, b"").head();
        assert_eq!(head.status(), status, "{method} {headers:?}");
        assert_eq!(ada.get("/account", FETCH).status, 200, "{method} {headers:?}");
    }
    for (method, headers) in [
        ("GET", &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"][..]),
        ("GET", &["Accept: text/html"]),
        ("POST", &["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"]),
    ] {
        let mut ada = logged_in();
        assert_eq!(ada.ask(method, "/logout", headers, b"").status, 303, "{method} {headers:?}");
        assert_eq!(ada.get("/account", FETCH).status, 401, "{method} {headers:?}");
    }
    server.stop();
}

#[test]
fn scripts_get_a_status_and_preflights_pass_no_guard() {
    let upstream = Upstream::parrot();
    let server = gateway(&upstream);
    let mut anonymous = server.caller();
    for headers in [
        &["Accept: application/json, text/html"][..],
        &["Accept: text/html", "X-Requested-With: XMLHttpRequest"],
    ] {
        assert_eq!(anonymous.get("/account", headers).status, 401, "{headers:?}");
    }
    // Requests that look like a preflight do not pass, because applications run pages for OPTIONS
    // too.
    let preflight = ["Origin: http://elsewhere", "Access-Control-Request-Method: PUT"];
    assert_eq!(anonymous.ask("OPTIONS", "/account", &preflight, b"").status, 401);
    assert_eq!(upstream.count(), 0);
    server.stop();
}

#[test]
fn a_guard_that_lets_preflights_pass_lets_nothing_else_pass() {
    let upstream = Upstream::app(|_| {
        let headers =
            ["Access-Control-Allow-Origin: http://elsewhere", "Vary: Origin", "X-Page: 1"];
        headers.iter().fold(Reply::text("SECRET"), |reply, line| reply.line(line))
    });
    let rules = "[[guard]]\npaths = [\"/api\"]\nrequire = \"/passport/user\"\npreflights = true\n\
                 [[guard]]\npaths = [\"/strict\"]\nrequire = \"/passport/user\"\n";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(rules).start();
    let mut caller = server.caller();
    let preflight = ["Origin: http://elsewhere", "Access-Control-Request-Method: PUT"];
    let answer = caller.ask("OPTIONS", "/api/things", &preflight, b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    let allowed = answer.head.header("access-control-allow-origin");
    assert_eq!(allowed, Some("http://elsewhere"));
    assert!(answer.head.header("vary").is_some_and(|vary| vary.contains("Origin")));
    assert_eq!(answer.head.header("x-page"), None);
    let asked = upstream.count();
    for (method, path, more, body) in [
        ("OPTIONS", "/strict", "X-Other: 1", ""),
        ("GET", "/api", "X-Other: 1", ""),
        ("OPTIONS", "/api", "Cookie: a=1", ""),
        ("OPTIONS", "/api", "Authorization: Basic eDp5", ""),
        ("OPTIONS", "/api", "X-HTTP-Method-Override: GET", ""),
        ("OPTIONS", "/api", "X_HTTP.Method~Override: GET", ""),
        ("OPTIONS", "/api", "X-Other: 1", "body"),
    ] {
        let headers = [preflight[0], preflight[1], more];
        let answer = caller.ask(method, path, &headers, body.as_bytes());
        assert_eq!(answer.status, 401, "{method} {path} {more} {body}");
    }
    for one in preflight {
        assert_eq!(caller.ask("OPTIONS", "/api", &[one], b"").status, 401, "{one}");
    }
    assert_eq!(upstream.count(), asked);
    server.stop();
}

#[test]
fn an_escaped_slash_is_passed_on_where_it_may_be_and_counts_as_a_slash() {
    let [upstream, other] = [Upstream::parrot(), Upstream::parrot()];
    let rules = format!(
        "[gateway]\nescaped_slashes = true\n[[route]]\npath = \"/api\"\nupstream = \"{}\"\n\
         [[guard]]\npaths = [\"/internal\", \"/a/b\"]\ndeny = true\n\
         [[guard]]\npaths = [\"/files\"]\nexcept = [\"/files/public\"]\ndeny = true\n",
        other.url()
    );
    let server = Launch::new("memory:").upstream(&upstream.url()).config(&rules).start();
    let mut caller = server.caller();
    for (path, application) in [
        ("/@scope%2Fname", &upstream),
        ("/x/group%2fproject/1?a=%2F", &upstream),
        ("/api/a%2Fb", &other),
    ] {
        assert_eq!(caller.get(path, &[]).status, 200, "{path}");
        assert_eq!(application.last().target, path);
    }
    for path in ["/internal%2fx", "/a%2Fb", "/%2finternal", "/files%2Fpublic", "/files/public%2f1"]
    {
        assert_eq!(caller.get(path, &[]).status, 403, "{path}");
    }
    for path in ["/api%2Fx", "/x%2F..%2finternal", "/x%2f%2e%2e/internal", "/a%5cb"] {
        assert_eq!(caller.get(path, &[]).status, 400, "{path}");
    }
    server.stop();
    let server = Launch::new("memory:").upstream(&upstream.url()).start();
    assert_eq!(server.caller().get("/@scope%2Fname", &[]).status, 400);
    server.stop();
}
