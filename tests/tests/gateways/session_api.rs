//! The session API and the question `/auth`, asked directly.

use edge_session_tests::{
    AUTH_TOKEN, Answer, Caller, Database, Launch, Mongod, Server, checkout, free_port,
};
use serde_json::{Value, json};

const CONFIG: &str = r#"
    [gateway]
    logout = "/logout"
    [[guard]]
    paths = ["/account"]
    require = "/user"
    login = "/login"
    [[guard]]
    paths = ["/internal"]
    deny = true
"#;

/// An edge-session that only answers gateways and applications.
struct Asked {
    server: Server,
    address: String,
}

impl Asked {
    #[track_caller]
    fn start(launch: Launch, config: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let server = launch
            .config(config)
            .as_gateway()
            .env("EDGE_SESSION_AUTH_LISTEN", &address)
            .env("EDGE_SESSION_AUTH_TOKEN", AUTH_TOKEN)
            .start();
        Self { server, address }
    }

    fn caller(&self) -> Caller {
        self.server.caller_at(&self.address)
    }

    /// Asks about a visitor's request.
    #[track_caller]
    fn auth(&self, caller: &mut Caller, method: &str, uri: &str, more: &[&str]) -> Answer {
        let own = [
            format!("X-Forwarded-Method: {method}"),
            format!("X-Forwarded-Uri: {uri}"),
            "X-Forwarded-Host: shop.example".to_owned(),
            "X-Forwarded-Proto: https".to_owned(),
        ];
        let lines: Vec<_> = own.iter().map(String::as_str).chain(more.iter().copied()).collect();
        caller.get("/auth", &lines)
    }
}

const JSON: &str = "Content-Type: application/json";

/// Calls the API for a visitor.
#[track_caller]
fn call(caller: &mut Caller, method: &str, path: &str, body: &Value) -> Answer {
    let token = format!("Authorization: Bearer {AUTH_TOKEN}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    caller.ask(method, path, &[&token, JSON], body.as_bytes())
}

#[track_caller]
fn data(caller: &mut Caller) -> Value {
    let answer = call(caller, "GET", "/session", &Value::Null);
    assert_eq!(answer.status, 200, "{answer:#?}");
    answer.json()
}

#[test]
fn an_application_reads_merges_replaces_renews_regenerates_and_ends_sessions() {
    let database = Database::new();
    let asked = Asked::start(Launch::new(database.url()), CONFIG);
    let mut visitor = asked.caller();
    assert_eq!(data(&mut visitor), json!({}));
    assert_eq!(visitor.cookie, None, "nothing is stored by reading");

    let answer = call(&mut visitor, "PATCH", "/session", &json!({ "a": 1, "o": { "x": 1 } }));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.head.header("cache-control"), Some("no-store"));
    call(&mut visitor, "PATCH", "/session", &json!({ "b": "é", "a": null, "o": { "y": 2 } }));
    assert_eq!(data(&mut visitor), json!({ "o": { "x": 1, "y": 2 }, "b": "é" }));
    let stored = database.session(&visitor.session_id()).expect("it is stored");
    assert!(stored.get_str("session").unwrap().contains(r#""b":"é""#), "{stored:?}");

    call(&mut visitor, "PUT", "/session", &json!({ "only": true }));
    assert_eq!(data(&mut visitor), json!({ "only": true }));

    let old = visitor.clone();
    assert_eq!(call(&mut visitor, "POST", "/session/renew", &Value::Null).status, 204);
    assert_ne!(visitor.session_id(), old.session_id());
    assert_eq!(data(&mut visitor), json!({ "only": true }));
    assert_eq!(database.session(&old.session_id()).map(|it| it.contains_key("only")), None);

    // A login renews on its own, since a guard requires /user.
    let old = visitor.session_id();
    call(&mut visitor, "PATCH", "/session", &json!({ "user": "ada" }));
    assert_ne!(visitor.session_id(), old);

    let before = visitor.clone();
    assert_eq!(call(&mut visitor, "POST", "/session/regenerate", &Value::Null).status, 204);
    assert_eq!(data(&mut before.clone()), json!({}), "the old one has ended");

    call(&mut visitor, "PATCH", "/session", &json!({ "c": 1 }));
    let id = visitor.session_id();
    let answer = call(&mut visitor, "DELETE", "/session", &Value::Null);
    assert_eq!(answer.status, 204);
    assert_eq!(visitor.cookie, None, "the cookie is cleared: {answer:#?}");
    assert!(database.session(&id).is_none());
    asked.server.stop();
}

#[test]
fn parallel_changes_by_the_api_are_all_kept() {
    let database = Database::new();
    let asked = Asked::start(Launch::new(database.url()), CONFIG);
    let mut visitor = asked.caller();
    call(&mut visitor, "PATCH", "/session", &json!({ "begun": true }));
    std::thread::scope(|scope| {
        for number in 0..32 {
            let mut one = visitor.clone();
            scope.spawn(move || {
                let patch = json!({ format!("k{number}"): number });
                assert_eq!(call(&mut one, "PATCH", "/session", &patch).status, 204);
            });
            let mut other = visitor.clone();
            let asked = &asked;
            scope.spawn(move || {
                assert_eq!(asked.auth(&mut other, "GET", "/free", &[]).status, 200);
            });
        }
    });
    assert_eq!(data(&mut visitor).as_object().unwrap().len(), 33);
    asked.server.stop();
}

#[test]
fn the_session_api_refuses_with_a_sentence() {
    let asked = Asked::start(Launch::new("memory:"), CONFIG);
    let mut visitor = asked.caller();
    let token = format!("Authorization: Bearer {AUTH_TOKEN}");
    let short = "Authorization: Bearer wrong";
    let big = vec![b' '; (4 << 20) + 1];
    let large = json!({ "a": "x".repeat(2 << 20) }).to_string().into_bytes();
    for (method, path, lines, body, status, text) in [
        ("GET", "/session", &[][..], &b""[..], 401, "EDGE_SESSION_AUTH_TOKEN"),
        ("GET", "/session", &[short], b"", 401, "Bearer"),
        ("PATCH", "/session", &[&*token], b"{}", 415, "application/merge-patch+json"),
        ("PATCH", "/session", &[&*token, JSON], b"[1]", 400, "not a JSON object"),
        ("PUT", "/session", &[&*token, JSON], b"{\"a\":", 400, "not a JSON object"),
        ("PUT", "/session", &[&*token, JSON], b"\xff", 400, "not UTF-8"),
        ("PUT", "/session", &[&*token, JSON], &big, 413, "larger than"),
        ("POST", "/session", &[&*token, JSON], b"{}", 405, "method"),
        ("GET", "/session/renew", &[&*token], b"", 405, "method"),
        ("POST", "/session/whatever", &[&*token], b"", 404, "/session/regenerate"),
        ("PUT", "/session", &[&*token, JSON], b"{\"cookie\":{}}", 422, "a key is not allowed"),
        ("PATCH", "/session", &[&*token, JSON], &large, 422, "max_session_bytes"),
        (
            "GET",
            "/session",
            &[&*token, "X-Forwarded-Uri: /a", "X-Forwarded-Uri: /b"],
            b"",
            400,
            "more than one",
        ),
    ] {
        let answer = visitor.ask(method, path, lines, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:#?}");
        assert_eq!(answer.head.header("content-type"), Some("application/problem+json"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(text), "{detail}");
    }
    assert_eq!(visitor.get("/", &[]).status, 404);
    assert_eq!(visitor.get("/healthz", &[]).status, 200);
    asked.server.stop();

    // Without a token, nobody may use it.
    let address = format!("127.0.0.1:{}", free_port());
    let server =
        Launch::new("memory:").as_gateway().env("EDGE_SESSION_AUTH_LISTEN", &address).start();
    let answer = server.caller_at(&address).get("/session", &[&token]);
    assert_eq!(answer.status, 403);
    assert!(answer.json()["detail"].as_str().unwrap().contains("EDGE_SESSION_AUTH_TOKEN"));
    server.stop();
}

#[test]
fn the_description_names_what_there_is() {
    let asked = Asked::start(Launch::new("memory:"), CONFIG);
    let mut visitor = asked.caller();
    let served = visitor.get("/openapi.json", &[]).json();
    let paths = served["paths"].as_object().unwrap();
    for (path, item) in paths {
        for method in ["get", "put", "patch", "post", "delete", "options"] {
            let body = if method == "put" || method == "patch" { json!({}) } else { Value::Null };
            let status = call(&mut visitor, &method.to_uppercase(), path, &body).status;
            assert_eq!(status != 405, item.get(method).is_some(), "{method} {path}: {status}");
        }
    }
    let source = checkout().join("gateways/server/src/auth/openapi.json");
    let source: Value = serde_json::from_str(&std::fs::read_to_string(source).unwrap()).unwrap();
    assert_eq!(served, source);
    asked.server.stop();
}

#[test]
fn every_answer_that_lets_a_request_pass_has_all_of_our_headers() {
    let config = format!("{CONFIG}\n[auth.headers]\nRemote-User = \"/user\"\nX-Role = \"/r/0\"");
    let asked = Asked::start(Launch::new("memory:"), &config);
    let mut visitor = asked.caller();
    let answer = asked.auth(&mut visitor, "GET", "/free", &[]);
    assert_eq!(answer.status, 200);
    let header = |answer: &Answer, name: &str| answer.head.header(name).map(str::to_owned);
    for (name, value) in
        [("edge-session", "{}"), ("edge-session-id", ""), ("remote-user", ""), ("x-role", "")]
    {
        assert_eq!(header(&answer, name).as_deref(), Some(value), "{name}");
    }
    call(&mut visitor, "PUT", "/session", &json!({ "user": "ada", "r": ["admin"] }));
    let answer = asked.auth(&mut visitor, "GET", "/account", &[]);
    assert_eq!(header(&answer, "remote-user").as_deref(), Some("ada"));
    assert_eq!(header(&answer, "x-role").as_deref(), Some("admin"));
    assert_eq!(header(&answer, "edge-session").unwrap(), r#"{"user":"ada","r":["admin"]}"#);
    // A gateway whose configuration does not name them would pass on a visitor's own.
    for line in ["Remote-User: eve", "remote_user: eve", "X-Role: admin", "x.role: admin"] {
        let answer = asked.auth(&mut visitor, "GET", "/free", &[line]);
        assert_eq!(answer.status, 400, "{line}");
    }
    // Refusals have none, since gateways pass them on to browsers.
    let answer = asked.auth(&mut visitor, "GET", "/internal", &[]);
    assert_eq!(answer.status, 403);
    assert!(!answer.head.has_any("edge-session") && !answer.head.has_any("remote-"), "{answer:#?}");
    asked.server.stop();
}

#[test]
fn a_redirect_has_an_absolute_address_or_comes_as_401() {
    let asked = Asked::start(Launch::new("memory:"), CONFIG);
    let mut visitor = asked.caller();
    let person = ["Sec-Fetch-Mode: navigate"];
    let answer = asked.auth(&mut visitor, "GET", "/account?a=b", &person);
    assert_eq!(answer.status, 302);
    let to = "https://shop.example/login?return=%2Faccount%3Fa%3Db";
    assert_eq!(answer.head.header("location"), Some(to));
    let lines = [
        "X-Forwarded-Method: GET",
        "X-Forwarded-Uri: /account?a=b",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Proto: https",
        person[0],
    ];
    let answer = visitor.get("/auth?status=401", &lines);
    assert_eq!(answer.status, 401);
    assert_eq!(answer.head.header("location"), Some(to));
    // Envoy's ext_authz appends the path, with the visitor's method.
    let answer = visitor.get("/auth/account?a=b", &["Host: shop.example", person[0]]);
    assert_eq!(answer.status, 302);
    assert_eq!(visitor.ask("POST", "/auth/free", &[], b"").status, 200);
    assert_eq!(visitor.ask("POST", "/auth/account", &[], b"").status, 401);
    asked.server.stop();
}

#[test]
fn a_gateway_that_forgets_to_say_what_was_asked_is_told_so() {
    let asked = Asked::start(Launch::new("memory:"), CONFIG);
    let mut caller = asked.caller();
    for (lines, missing) in [
        (&["X-Forwarded-Method: GET"][..], "X-Forwarded-Uri"),
        (&["X-Forwarded-Uri: /"], "X-Forwarded-Method"),
    ] {
        let answer = caller.get("/auth", lines);
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains(missing), "{answer:#?}");
    }
    assert!(asked.server.log().contains("X-Forwarded-Uri"), "the operator is told, too");
    asked.server.stop();

    // Somebody else's question is not answered.
    let config = format!("{CONFIG}\n").replacen(
        "[gateway]",
        "[gateway]\ntrusted_proxies = [\"10.0.0.1\"]",
        1,
    );
    let asked = Asked::start(Launch::new("memory:"), &config);
    let answer = asked.auth(&mut asked.caller(), "GET", "/", &[]);
    assert_eq!(answer.status, 403);
    assert!(asked.server.log().contains("gateway.trusted_proxies"));
    asked.server.stop();
}

#[test]
fn asking_renews_the_lifetime_and_sets_at_most_one_cookie() {
    let database = Database::new();
    let config = format!("rolling = true\n[cookie]\nmax_age = 3600000\n{CONFIG}");
    let asked = Asked::start(Launch::new(database.url()), &config);
    let mut visitor = asked.caller();
    let token = format!("Authorization: Bearer {AUTH_TOKEN}");
    let lines = [&*token, JSON, "X-Forwarded-Proto: https"];
    assert_eq!(visitor.ask("PATCH", "/session", &lines, br#"{"a":1}"#).status, 204);
    let answer = asked.auth(&mut visitor, "GET", "/free", &[]);
    let set = answer.head.all("set-cookie");
    assert_eq!(set.len(), 1, "{answer:#?}");
    assert!(set[0].contains("Secure") && set[0].contains("Expires="), "{set:?}");
    assert_eq!(answer.head.header("cache-control"), Some("no-store"));
    asked.server.stop();
}

#[test]
fn while_the_store_is_down_no_request_passes() {
    let mongod = Mongod::start();
    let launch = Launch::new(&mongod.url()).env("EDGE_SESSION_STORE_TIMEOUT_MS", "200");
    let asked = Asked::start(launch, CONFIG);
    let mut visitor = asked.caller();
    call(&mut visitor, "PATCH", "/session", &json!({ "a": 1 }));
    mongod.freeze();
    assert_eq!(asked.auth(&mut visitor, "GET", "/free", &[]).status, 503);
    let answer = call(&mut visitor, "GET", "/session", &Value::Null);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.head.header("content-type"), Some("application/problem+json"));
    mongod.thaw();
    assert_eq!(data(&mut visitor), json!({ "a": 1 }));
    asked.server.stop();
}

#[test]
fn wrong_tokens_do_not_delay_the_right_one() {
    let asked = Asked::start(Launch::new("memory:"), CONFIG);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            let mut caller = asked.caller();
            scope.spawn(move || {
                let answer = caller.get("/session", &["Authorization: Bearer wrong"]);
                assert_eq!(answer.status, 401);
            });
        }
        let start = std::time::Instant::now();
        let mut visitor = asked.caller();
        for _ in 0..20 {
            assert_eq!(data(&mut visitor), json!({}));
        }
        assert!(start.elapsed() < std::time::Duration::from_millis(900), "{:?}", start.elapsed());
    });
    asked.server.stop();
}

#[test]
fn the_store_is_there_for_gateways_with_the_token() {
    let asked = Asked::start(Launch::new("memory:"), CONFIG);
    let mut gateway = asked.caller();
    let token = format!("Authorization: Bearer {AUTH_TOKEN}");
    let mut ask = |operation: &str, body: &str| {
        let path = format!("/store/{operation}");
        let answer = gateway.ask("POST", &path, &[&token, JSON], body.as_bytes());
        (answer.status, answer.text())
    };
    let far = 4_000_000_000_000_u64;
    let with = |rest: &str| format!(r#"{{"id":"an-id"{rest}}}"#);
    let content = |data: &str| with(&format!(r#","data":{data:?},"expires":{far}"#));
    assert_eq!(ask("load", &with("")).0, 404);
    assert_eq!(ask("create", &content("{}")).0, 204);
    assert_eq!(ask("create", &content("{}")).0, 409);
    let (status, found) = ask("load", &with(""));
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((status, &found["data"], &found["expires"]), (200, &json!("{}"), &json!(far)));
    let expecting =
        |text: &str| with(&format!(r#","data":"{{\"a\":1}}","expires":{far},"expected":{text:?}"#));
    let (status, conflict) = ask("replace", &expecting("other"));
    assert!(status == 409 && conflict.contains(r#""data":"{}""#), "{status} {conflict}");
    assert_eq!(ask("replace", &expecting("{}")).0, 204);
    assert_eq!(ask("touch", &with(&format!(r#","expires":{far}"#))).0, 204);
    assert_eq!(ask("delete", &with(r#","expected":"{}""#)).0, 409);
    assert_eq!(ask("delete", &with("")).0, 204);
    assert_eq!(ask("delete", &with("")).0, 404);
    for (operation, body, status, said) in [
        ("create", with(""), 400, "`data` or `expires` is missing"),
        ("touch", with(""), 400, "`expires` is missing"),
        ("load", "[]".to_owned(), 400, "not an object with `id`"),
        ("load", with(r#","speed":1"#), 400, "not an object with `id`"),
        ("drop", with(""), 404, "/store/load"),
    ] {
        let (got, text) = ask(operation, &body);
        assert!(got == status && text.contains(said), "{operation} {body}: {got} {text}");
    }
    assert_eq!(gateway.ask("POST", "/store/load", &[JSON], with("").as_bytes()).status, 401);
    assert_eq!(gateway.ask("GET", "/store/load", &[&token], b"").status, 405);
    asked.server.stop();
}
