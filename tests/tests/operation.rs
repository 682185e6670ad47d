//! Operators' tasks: configuring, inspecting and ending sessions.

use std::fs;
use std::time::{Duration, Instant};

use edge_session_tests::{
    Asked, Caller, Database, Launch, Postgres, Redis, Reply, Server, Upstream, Wire, free_port,
    node::browse, temp_dir, wait_for,
};
use serde_json::{Value, json};

const TOKEN: &str = "a token that opens the admin page";

/// An application that logs in the user in the path, and counts all other visits.
fn app() -> Upstream {
    Upstream::app(|asked: &Asked| match asked.target.strip_prefix("/login/") {
        Some("markup") => Reply::text("hello")
            .line("Edge-Session-Merge: {\"passport\":{\"user\":\"<b>Zoe</b>\"}}"),
        Some(name) => Reply::text("hello")
            .line(format!("Edge-Session-Merge: {{\"passport\":{{\"user\":\"{name}\"}}}}")),
        None => {
            Reply::text(&asked.session().to_string()).line("Edge-Session-Merge: {\"viewCount\":1}")
        }
    })
}

/// A gateway whose sessions can be inspected at this port.
fn with_admin(store: &str, app: &Upstream, port: u16) -> Launch {
    Launch::new(store)
        .env("EDGE_SESSION_UPSTREAM", &app.url())
        .env("EDGE_SESSION_GATEWAY_IDENTITY", "/passport/user")
        .env("EDGE_SESSION_ADMIN_LISTEN", &format!("127.0.0.1:{port}"))
        .env("EDGE_SESSION_ADMIN_TOKEN", TOKEN)
}

fn log_in(server: &Server, name: &str) -> Caller {
    let mut caller = server.caller();
    assert_eq!(caller.get(&format!("/login/{name}"), &[]).status, 200);
    caller
}

/// Returns the session's name in the first line about `subject`.
fn name_of(subject: &str, listing: &str) -> String {
    let line = listing.lines().find(|line| line.contains(subject));
    let line = line.unwrap_or_else(|| panic!("nobody is {subject}: {listing}"));
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

fn is_known(caller: &mut Caller, name: &str) -> bool {
    caller.get("/", &[]).text().contains(name)
}

#[test]
fn init_writes_a_configuration_that_check_finds_in_order() {
    let dir = temp_dir("init-");
    let launch = Launch::new("memory:");
    let (done, said) = launch.run(dir.path(), &["init"]);
    assert!(done && said.contains("edge-session check"), "{said}");
    let (done, said) = launch.run(dir.path(), &["check", "--config", "edge-session.toml"]);
    assert!(done && said.contains("is valid") && said.contains("connect.sid"), "{said}");

    fs::write(dir.path().join("edge-session.toml"), "mine").unwrap();
    let (done, said) = launch.run(dir.path(), &["init"]);
    assert!(!done && said.contains("already exists"), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("edge-session.toml")).unwrap(), "mine");
}

#[test]
fn check_says_all_that_is_wrong_with_file_and_environment() {
    let dir = temp_dir("check-");
    fs::write(dir.path().join("bad.toml"), "[[guard]]\npaths = [\"x\"]\n[limits]\nspeed = 1")
        .unwrap();
    let launch = Launch::new("memory:")
        .env("EDGE_SESSION_COOKIE_SAME_SITE", "sometimes")
        .env("EDGE_SESSION_UPSTREAM", "localhost");
    let (done, said) = launch.run(dir.path(), &["check", "--config", "bad.toml"]);
    assert!(!done);
    for key in
        ["guard[0].paths", "guard[0].require", "limits.speed", "cookie.same_site", "upstream"]
    {
        assert!(said.contains(&format!("\n  {key}: ")), "{key}: {said}");
    }
    let short = Launch::new("memory:").env("EDGE_SESSION_ADMIN_TOKEN", "short");
    let (done, said) = short.run(dir.path(), &["check"]);
    assert!(
        !done && said.contains("EDGE_SESSION_ADMIN_TOKEN") && !said.contains("short\""),
        "{said}"
    );
}

fn sessions_are_listed_and_ended(store: &str) {
    let (app, port) = (app(), free_port());
    let launch = with_admin(store, &app, port);
    let server = launch.clone().as_gateway_at(port).start();
    let dir = temp_dir("sessions-");
    let run = |arguments: &[&str]| launch.run(dir.path(), &[&["sessions"], arguments].concat());

    let mut ada = log_in(&server, "Ada");
    let mut others = [log_in(&server, "Zoe"), log_in(&server, "Zoe")];
    let (done, listing) = run(&["list"]);
    assert!(done && listing.contains("3 of about 3 sessions"), "{listing}");
    assert!(!listing.contains(&ada.session_id()), "an identifier is nobody's business");
    let (_, some) = run(&["list", "--subject", "ada"]);
    let name = name_of("Ada", &some);
    assert!(!some.contains("Zoe"), "{some}");

    let (done, shown) = run(&["show", &name]);
    let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
    assert!(done && shown["data"]["passport"]["user"] == "Ada", "{shown}");
    let (done, said) = run(&["end", &name, "000000000000"]);
    assert!(!done && said.contains(&format!("{name} was ended")), "{said}");
    assert!(said.contains("there is no session 000000000000"), "{said}");
    assert!(!is_known(&mut ada, "Ada"), "who was ended is known no more");

    let (done, said) = run(&["end-all", "--subject", "Zoe"]);
    assert!(done && said.starts_with("2 sessions"), "{said}");
    for other in &mut others {
        assert!(!is_known(other, "Zoe"));
    }
    server.stop();
}

/// A gateway whose application responds with the header lines in the request.
fn parrot(store: &str) -> (Launch, Server, Upstream) {
    let (app, port) = (Upstream::parrot(), free_port());
    let launch = with_admin(store, &app, port);
    let server = launch.clone().as_gateway_at(port).start();
    (launch, server, app)
}

/// A caller with this session. Its JSON is not representable by Rust's `Value`.
fn with_session(server: &Server, data: &str) -> Caller {
    let mut caller = server.caller();
    assert_eq!(caller.get("/", &[&format!("Say: Edge-Session: {data}")]).status, 200);
    caller
}

fn sessions_with_strange_values_are_ended_by_their_subject(store: &str) {
    let (launch, server, _app) = parrot(store);
    let dir = temp_dir("sessions-");
    let run = |arguments: &[&str]| launch.run(dir.path(), &[&["sessions"], arguments].concat());
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let mut zoes = [
        with_session(&server, r#"{"passport":{"user":"Zoe"},"note":"\ud800"}"#),
        with_session(&server, r#"{"passport":{"note":"\ud800","user":"Zoe"}}"#),
        with_session(&server, &format!(r#"{{"deep":{deep},"passport":{{"user":"Zoe"}}}}"#)),
    ];
    let (done, listing) = run(&["list", "--subject", "zoe"]);
    assert!(done && listing.contains("3 of about 3 sessions"), "{listing}");
    let (done, shown) = run(&["show", &name_of("Zoe", &listing)]);
    assert!(done && shown.contains("Zoe"), "{shown}");
    let (done, said) = run(&["end-all", "--subject", "Zoe"]);
    assert!(done && said.starts_with("3 sessions"), "{said}");
    for zoe in &mut zoes {
        assert!(!is_known(zoe, "Zoe"));
    }
    server.stop();
}

#[test]
fn a_value_that_serde_cannot_read_hides_no_session_of_a_process() {
    sessions_with_strange_values_are_ended_by_their_subject("memory:");
}

#[test]
fn a_value_that_serde_cannot_read_hides_no_session_of_a_database() {
    let database = Database::new();
    sessions_with_strange_values_are_ended_by_their_subject(database.url());
}

#[test]
fn a_value_that_serde_cannot_read_hides_no_session_of_redis() {
    let redis = Redis::start();
    sessions_with_strange_values_are_ended_by_their_subject(redis.url());
}

#[test]
fn a_value_that_serde_cannot_read_hides_no_session_of_postgresql() {
    let postgres = Postgres::start();
    sessions_with_strange_values_are_ended_by_their_subject(postgres.url());
}

fn what_cannot_be_read_is_told(store: &str) {
    let (launch, server, _app) = parrot(store);
    let dir = temp_dir("sessions-");
    let run = |arguments: &[&str]| launch.run(dir.path(), &[&["sessions"], arguments].concat());
    let mut zoe = with_session(&server, r#"{"passport":{"user":"Zoe"}}"#);
    let mut nobody = with_session(&server, r#"{"passport":{"user":"\ud800"},"is":"nobody"}"#);

    let (done, listing) = run(&["list", "--subject", "Zoe"]);
    let name = name_of("unreadable", &listing);
    assert!(done && listing.contains("2 of about 2 sessions"), "{listing}");
    let (done, shown) = run(&["show", &name]);
    assert!(done && shown.contains(r"\\ud800") && shown.contains("nobody"), "{shown}");

    let (done, said) = run(&["end-all", "--subject", "Zoe"]);
    assert!(!done, "who may still be there is not gone: {said}");
    assert!(said.contains("1 sessions of \"Zoe\" were ended"), "{said}");
    assert!(
        said.contains("1 session cannot be read") && said.contains("sessions end NAME"),
        "{said}"
    );
    assert!(!is_known(&mut zoe, "Zoe"));
    assert!(is_known(&mut nobody, "nobody"));

    let (done, said) = run(&["end", &name]);
    assert!(done, "{said}");
    assert!(!is_known(&mut nobody, "nobody"));
    let (done, said) = run(&["end-all", "--subject", "Zoe"]);
    assert!(done && said.starts_with("0 sessions"), "{said}");
    server.stop();
}

#[test]
fn a_subject_that_cannot_be_read_is_told_and_ended_by_name_through_a_process() {
    what_cannot_be_read_is_told("memory:");
}

#[test]
fn a_subject_that_cannot_be_read_is_told_and_ended_by_name_in_a_database() {
    let database = Database::new();
    what_cannot_be_read_is_told(database.url());
}

#[test]
fn the_admin_page_says_how_many_sessions_it_cannot_read() {
    let (_launch, server, _app) = parrot("memory:");
    with_session(&server, r#"{"passport":{"user":"Zoe"}}"#);
    with_session(&server, r#"{"passport":{"user":"\ud800<b>"},"bidi":"\u202e"}"#);
    let agent: ureq::Agent = ureq::Agent::new_with_defaults();
    let token = format!("Bearer {TOKEN}");
    let admin = |path: &str| format!("http://127.0.0.1:{}{path}", server.admin_port());
    let page = |path: &str| {
        let request = agent.get(admin(path)).header("authorization", &token);
        request.call().unwrap().body_mut().read_to_string().unwrap()
    };
    let listing = page("/sessions");
    let row = listing.split("<tr>").find(|row| row.contains("unreadable")).expect("it is listed");
    let shown = page(row.split('"').find(|part| part.starts_with("/sessions/")).unwrap());
    assert!(shown.contains("&quot;\\ud800&lt;b&gt;&quot;"), "{shown}");

    let form = agent.post(admin("/sessions/end-all")).header("authorization", &token);
    let form = form.config().max_redirects(0).max_redirects_will_error(false).build();
    let answer = form.send_form([("subject", "Zoe")]).unwrap();
    let told = page(answer.headers()["location"].to_str().unwrap());
    assert!(told.contains("1 session was ended"), "{told}");
    assert!(told.contains("role=\"alert\"") && told.contains("1 session cannot be read"), "{told}");
    assert!(told.contains("unreadable"), "it is on the page that tells of it: {told}");

    let asked = agent.delete(admin("/api/sessions?subject=Zoe")).header("authorization", &token);
    let answer: Value =
        serde_json::from_reader(asked.call().unwrap().into_body().into_reader()).unwrap();
    assert_eq!(answer, json!({ "ended": 0, "unreadable": 1 }));
    server.stop();
}

#[test]
fn without_an_identity_nobodys_sessions_are_looked_for() {
    let (app, port) = (Upstream::parrot(), free_port());
    let launch = with_admin("memory:", &app, port).without_env("EDGE_SESSION_GATEWAY_IDENTITY");
    let server = launch.clone().as_gateway_at(port).start();
    let database = Database::new();
    let dir = temp_dir("sessions-");
    for launch in [&launch, &Launch::new(database.url())] {
        for arguments in [["end-all", "--subject", "zoe"], ["list", "--subject", "zoe"]] {
            let (done, said) = launch.run(dir.path(), &[&["sessions"], &arguments[..]].concat());
            assert!(!done && said.contains("gateway.identity"), "{arguments:?}: {said}");
        }
        let (done, said) = launch.run(dir.path(), &["sessions", "list"]);
        assert!(done, "{said}");
    }
    server.stop();
}

#[test]
fn sessions_in_memory_are_listed_and_ended_through_their_process() {
    sessions_are_listed_and_ended("memory:");
}

#[test]
fn sessions_in_mongodb_are_listed_and_ended() {
    let database = Database::new();
    sessions_are_listed_and_ended(database.url());
}

#[test]
fn sessions_in_redis_are_listed_and_ended() {
    let redis = Redis::start();
    sessions_are_listed_and_ended(redis.url());
}

#[test]
fn sessions_in_postgresql_are_listed_and_ended() {
    let postgres = Postgres::start();
    sessions_are_listed_and_ended(postgres.url());
}

#[test]
fn sessions_in_a_file_are_listed_while_it_is_open_and_after_that() {
    let dir = temp_dir("file-");
    let store = format!("file:{}", dir.path().join("sessions.redb").display());
    sessions_are_listed_and_ended(&store);
    let (done, listing) = Launch::new(&store).run(dir.path(), &["sessions", "list"]);
    assert!(done && listing.contains("sessions"), "{listing}");
}

#[test]
fn who_cannot_be_asked_is_named_with_what_to_do() {
    let dir = temp_dir("sessions-");
    let (done, said) = Launch::new("memory:").run(dir.path(), &["sessions", "list"]);
    assert!(
        !done && said.contains("admin.listen") && said.contains("EDGE_SESSION_ADMIN_TOKEN"),
        "{said}"
    );
    let file = dir.path().join("none.redb");
    let missing = Launch::new(&format!("file:{}", file.display()));
    let (done, said) = missing.run(dir.path(), &["sessions", "list"]);
    assert!(!done && said.contains("none.redb does not exist"), "{said}");
    assert!(!file.exists(), "looking makes no file");
    let nobody = Launch::new("memory:")
        .env("EDGE_SESSION_ADMIN_LISTEN", &format!("127.0.0.1:{}", free_port()))
        .env("EDGE_SESSION_ADMIN_TOKEN", TOKEN);
    let (done, said) = nobody.run(dir.path(), &["sessions", "list"]);
    assert!(!done && said.contains("cannot be reached"), "{said}");
}

#[test]
fn without_the_token_nobody_sees_or_ends_sessions() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    let mut ada = log_in(&server, "Ada");
    let admin = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .into();
    let wrong = [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic x")];
    for authorization in wrong {
        let with = |request: ureq::RequestBuilder<_>| match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        };
        assert_eq!(with(agent.get(admin("/api/sessions"))).call().unwrap().status(), 401);
        let end = agent.delete(admin("/api/sessions?subject=Ada"));
        assert_eq!(with(end).call().unwrap().status(), 401);
    }
    let page = agent.get(admin("/sessions")).call().unwrap();
    assert_eq!(page.status(), 303);
    assert_eq!(page.headers()["location"], "/login");
    let form = agent.post(admin("/sessions/end-all")).send_form([("subject", "Ada")]).unwrap();
    assert_eq!(form.status(), 303);
    assert!(is_known(&mut ada, "Ada"));
    server.stop();

    // Without a token, there are no pages to open.
    let (app, port) = (self::app(), free_port());
    let launch = with_admin("memory:", &app, port).without_env("EDGE_SESSION_ADMIN_TOKEN");
    let server = launch.as_gateway_at(port).start();
    for path in ["/sessions", "/api/sessions", "/login", "/"] {
        let url = format!("http://127.0.0.1:{port}{path}");
        assert_eq!(agent.get(url).call().unwrap().status(), 404, "{path}");
    }
    server.stop();
}

/// Sends a request to the admin address on a separate connection.
fn ask_admin(port: u16, lines: &[&str], body: &str) -> edge_session_tests::Answer {
    let mut wire = Wire::open(("127.0.0.1", port));
    let length = format!("Content-Length: {}", body.len());
    let head = [lines, &["Connection: close", &length]].concat();
    wire.send(head.join("\r\n") + "\r\n\r\n" + body);
    wire.answer()
}

#[test]
fn the_admin_address_answers_whoever_else_is_silent_there() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).open_files(300).start();
    let silent: Vec<_> = (0..400)
        .map(|at| {
            let mut wire = Wire::open(("127.0.0.1", port));
            // Some start a request and never complete it.
            let begin = ["", "GET /metr", "POST /login HTTP/1.1\r\nHost: localhost\r\n"];
            let _ = wire.try_send(begin[at % 3]);
            wire
        })
        .collect();
    let start = Instant::now();
    let answer = ask_admin(port, &["GET /metrics HTTP/1.1", "Host: 127.0.0.1"], "");
    assert_eq!(answer.status, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
    assert_eq!(server.caller().get("/", &[]).status, 200, "visitors have their own places");
    drop(silent);
    server.stop();
}

#[test]
fn forms_that_never_end_keep_nobody_from_the_admin_address() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    let admin = format!("127.0.0.1:{port}");
    let unfinished: Vec<_> = ["127.0.0.2", "127.0.0.3"]
        .iter()
        .flat_map(|source| [source; 32])
        .map(|source| {
            let mut wire = Wire::open_from(source, &admin);
            wire.send(
                "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken=",
            );
            wire
        })
        .collect();
    let answer = ask_admin(port, &["GET /healthz HTTP/1.1", "Host: 127.0.0.1"], "");
    assert_eq!(answer.status, 200);
    // Those that are not closed receive a timeout, or too many requests.
    let answers = unfinished.into_iter().filter_map(|mut it| it.try_answer().ok());
    let statuses: std::collections::BTreeSet<_> = answers.map(|answer| answer.status).collect();
    assert_eq!(Vec::from_iter(statuses), [408, 503]);
    server.stop();
}

#[test]
fn the_admin_address_is_for_nobody_who_knows_it_by_another_name() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port)
        .env("EDGE_SESSION_ADMIN_HOSTS", "edge.internal")
        .as_gateway_at(port)
        .start();
    let status = |path: &str, host: &str| {
        let first = format!("GET {path} HTTP/1.1");
        ask_admin(port, &[&first, &format!("Host: {host}")], "").status
    };
    for host in ["127.0.0.1", "192.0.2.7:9090", "[::1]:9090", "localhost:9090", "Edge.internal"] {
        assert_eq!(status("/metrics", host), 200, "{host}");
    }
    for path in ["/metrics", "/healthz", "/login", "/api/sessions", "/nothing"] {
        for host in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example"] {
            assert_eq!(status(path, host), 421, "{path} of {host}");
        }
    }
    // What is not clear (RFC 9112, section 3.2) is refused before.
    for head in [
        "GET /metrics HTTP/1.1\r\nConnection: close",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost",
    ] {
        let mut wire = Wire::open(("127.0.0.1", port));
        wire.send(format!("{head}\r\n\r\n"));
        assert_eq!(wire.answer().status, 400, "{head}");
    }
    server.stop();
}

#[test]
fn a_wrong_token_is_answered_late_also_when_many_are_tried() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    let api = |token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        ask_admin(port, &["GET /api/sessions HTTP/1.1", "Host: localhost", &bearer], "").status
    };
    let form = |token: &str| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let body = format!("token={token}");
        ask_admin(port, &["POST /login HTTP/1.1", "Host: localhost", kind], &body).status
    };
    let start = Instant::now();
    assert_eq!((api("wrong"), form("wrong")), (401, 403));
    assert!(start.elapsed() >= Duration::from_secs(2), "after {:?}", start.elapsed());
    // Concurrent attempts are not answered sooner, and the right one has its turn among them.
    let start = Instant::now();
    std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..12).map(|_| scope.spawn(|| api("wrong"))).collect();
        assert_eq!(api(TOKEN), 200);
        for guess in guesses {
            assert_eq!(guess.join().unwrap(), 401);
        }
    });
    assert!(start.elapsed() >= Duration::from_secs(3), "after {:?}", start.elapsed());

    // Whoever sends many from several addresses does not delay the others.
    let mut guesses = Vec::new();
    for at in 0..64 {
        let mut wire =
            Wire::open_from(&format!("127.0.0.{}", 2 + at % 8), &format!("127.0.0.1:{port}"));
        wire.send(
            "GET /api/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n",
        );
        guesses.push(wire);
    }
    let start = Instant::now();
    assert_eq!(ask_admin(port, &["GET /readyz HTTP/1.1", "Host: localhost"], "").status, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "after {:?}", start.elapsed());
    server.stop();
}

#[test]
fn a_login_at_the_admin_page_ends_after_hours() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let body = format!("token={}", TOKEN.replace(' ', "+"));
    let answer = ask_admin(port, &["POST /login HTTP/1.1", "Host: localhost", kind], &body);
    let cookie = answer.head.header("set-cookie").expect("there is a cookie").to_owned();
    assert!(cookie.contains("; Max-Age=28800"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let with = |cookie: &str| {
        let cookie = format!("Cookie: {cookie}");
        ask_admin(port, &["GET /sessions HTTP/1.1", "Host: localhost", &cookie], "").status
    };
    assert_eq!(with(pair), 200);
    // Its expiry cannot be extended.
    let (name, value) = pair.split_once('=').unwrap();
    let (end, signature) = value.split_once('.').expect("its end is in it");
    let later = end.parse::<u64>().unwrap() + 3600;
    assert_eq!(with(&format!("{name}={later}.{signature}")), 303);
    server.stop();
}

#[test]
fn an_operator_finds_and_ends_a_session_in_a_browser_without_javascript() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    let (mut ada, mut zoe) = (log_in(&server, "Ada"), log_in(&server, "markup"));
    let notes = browse(
        false,
        &[
            json!({ "goto": format!("http://127.0.0.1:{port}/") }),
            json!({ "fill": ["#token", "a wrong token"] }),
            json!({ "click": "form[action='/login'] button" }),
            json!({ "fill": ["#token", TOKEN] }),
            json!({ "click": "form[action='/login'] button" }),
            json!({ "fill": ["#subject", "ada"] }),
            json!({ "click": "form.search button" }),
            json!({ "click": "table a" }),
            json!({ "click": "form[action='/sessions/end'] button" }),
            // The browser asks for confirmation first.
            json!({ "click": "form[method=post][action='/sessions/end'] button" }),
        ],
    );
    let text = |at: usize| notes[at]["text"].as_str().unwrap();
    assert!(text(0).contains("Log in") && notes[0]["url"].as_str().unwrap().ends_with("/login"));
    assert!(text(2).contains("The token is wrong") && notes[2]["status"] == 403, "{}", notes[2]);
    assert!(text(4).contains("Live sessions") && text(4).contains("Ada"), "{}", notes[4]);
    assert!(text(4).contains("<b>Zoe</b>"), "what a session holds is text: {}", notes[4]);
    assert!(text(6).contains("Ada") && !text(6).contains("Zoe"), "{}", notes[6]);
    assert!(text(7).contains("passport") && text(7).contains("Ada"), "{}", notes[7]);
    assert!(text(8).contains("End the session of “Ada”?"), "{}", notes[8]);
    assert!(text(9).contains("1 session was ended"), "{}", notes[9]);
    assert!(!is_known(&mut ada, "Ada"));
    assert!(is_known(&mut zoe, "Zoe"));
    server.stop();
}

#[test]
fn every_request_is_logged_as_json_with_its_id_and_its_sessions_name() {
    let app = app();
    let server = Launch::new("memory:")
        .upstream(&app.url())
        .env("EDGE_SESSION_LOG_FORMAT", "json")
        .env("EDGE_SESSION_LOG_REQUESTS", "true")
        .start();
    let mut caller = server.caller();
    caller.get("/", &[]);
    let answer = caller.get("/page?secret=hunter2", &["X-Request-Id: from-a-proxy.1"]);
    assert_eq!(answer.status, 200);
    let line: Value = wait_for("the line", Duration::from_secs(5), || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("from-a-proxy.1"))?;
        Some(serde_json::from_str(line).expect("a line is JSON"))
    });
    assert_eq!(
        (&line["path"], &line["status"], &line["method"]),
        (&json!("/page"), &json!(200), &json!("GET"))
    );
    assert!(line["micros"].is_u64(), "{line}");
    assert_eq!(line["session"].as_str().map(str::len), Some(12), "{line}");
    assert!(!server.log().contains("hunter2") && !server.log().contains(&caller.session_id()));
    server.stop();
}

#[test]
fn traces_reach_a_collector_and_the_application() {
    let (app, collector) = (app(), Upstream::app(|_| Reply::new(200)));
    let server = Launch::new("memory:")
        .upstream(&app.url())
        .env("EDGE_SESSION_TELEMETRY_OTLP", &collector.url())
        .start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    server.caller().get("/", &[&format!("traceparent: 00-{trace}-00f067aa0ba902b7-01")]);
    let told = app.last().header("traceparent").expect("the trace goes on").to_owned();
    assert!(told.contains(trace) && !told.contains("00f067aa0ba902b7"), "{told}");
    // What was not sent yet is sent at shutdown.
    server.stop();
    let sent = collector.last();
    assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", "/v1/traces"));
    let id: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&trace[2 * at..2 * at + 2], 16).unwrap()).collect();
    assert!(sent.body.windows(16).any(|bytes| bytes == id), "the span is part of the trace");
}

#[test]
fn no_visitor_hides_a_request_from_the_traces() {
    let (app, collector) = (app(), Upstream::app(|_| Reply::new(200)));
    let server = Launch::new("memory:")
        .upstream(&app.url())
        .config("[gateway]\ntrusted_proxies = [\"10.0.0.0/8\"]")
        .env("EDGE_SESSION_TELEMETRY_OTLP", &collector.url())
        .start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    server.caller().get("/", &[&format!("traceparent: 00-{trace}-00f067aa0ba902b7-00")]);
    let told = app.last().header("traceparent").expect("the application is told").to_owned();
    assert!(told.ends_with("-01") && !told.contains(trace), "a trace of our own: {told}");
    server.stop();
    let id: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&told[3 + 2 * at..5 + 2 * at], 16).unwrap()).collect();
    let sent = collector.last();
    assert!(sent.body.windows(16).any(|bytes| bytes == id), "the span was recorded");
}

#[test]
fn lines_about_a_request_say_which_one_and_numbers_are_numbers() {
    let app = Upstream::parrot();
    for is_json in [true, false] {
        let launch = Launch::new("memory:").upstream(&app.url());
        let format = if is_json { "json" } else { "text" };
        let server = launch.env("EDGE_SESSION_LOG_FORMAT", format).start();
        let mut caller = server.caller();
        let id = "X-Request-Id: an-id";
        caller.get("/quote%22?secret=hunter2", &[id, "Say: Edge-Session: ["]);
        caller.get("/a/../b", &[id]);
        caller.get("/", &[id, r#"Say: Edge-Session: {"a":1}"#]);
        let too_large = caller.get("/large", &[id, "Say-Status: 431", "Say: Edge-Session: {}"]);
        assert_eq!(too_large.text(), "The request header is too large for the application.\n");
        caller.get("/large", &[id, "Say-Status: 414"]);
        let log = server.log();
        assert!(!log.contains("hunter2"), "{log}");
        for (text, path) in [
            ("invalid session headers", "/quote%22"),
            ("a request was refused", "/a/../b"),
            ("an application refused a request with status 431", "/large"),
        ] {
            let mut lines = log.lines().filter(|line| line.contains(text));
            let line = lines.find(|line| line.contains(path));
            let line = line.unwrap_or_else(|| panic!("{text}: {log}"));
            if is_json {
                let line: Value = serde_json::from_str(line).expect("a line is JSON");
                assert_eq!((&line["request"], &line["path"]), (&json!("an-id"), &json!(path)));
            } else {
                assert!(line.contains("request=") && line.contains("an-id"), "{line}");
                assert!(line.contains(&format!("path={path:?}")), "{line}");
            }
        }
        if is_json {
            let last = log.lines().rfind(|line| line.contains("with status 414")).unwrap();
            let last: Value = serde_json::from_str(last).unwrap();
            assert_eq!(last["session_bytes"], json!(r#"{"a":1}"#.len()));
        }
        server.stop();
    }
}

#[test]
fn every_metric_says_what_it_is() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    server.caller().get("/", &[]);
    let metrics = ask_admin(port, &["GET /metrics HTTP/1.1", "Host: 127.0.0.1"], "").text();
    let names: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.len() > 5, "{metrics}");
    for name in names.iter().filter_map(|line| line.split(' ').next()) {
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}: {metrics}");
    }
    server.stop();
}

#[test]
fn a_session_file_that_was_moved_or_replaced_is_told_and_the_process_is_asked() {
    let (app, port, dir) = (app(), free_port(), temp_dir("moved-"));
    let file = dir.path().join("s.redb");
    let launch = with_admin(&format!("file:{}", file.display()), &app, port).as_gateway_at(port);
    let server = launch.start();
    server.caller().get("/", &[]);
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    assert_eq!(server.caller().get("/", &[]).status, 200, "visitors go on");
    let said =
        format!("the session file {} was moved, removed, replaced or truncated", file.display());
    assert!(server.log().contains(&said), "{}", server.log());
    // The list comes from the server that holds the sessions, so the missing file does not matter.
    let (done, listing) = launch.run(dir.path(), &["sessions", "list"]);
    assert!(done && listing.contains("2 sessions"), "{listing}");
    server.stop();
}

#[test]
fn a_secure_cookie_that_plain_http_keeps_from_visitors_is_told_once() {
    let app = app();
    let server =
        Launch::new("memory:").upstream(&app.url()).config("[cookie]\nsecure = true").start();
    for _ in 0..3 {
        assert_eq!(server.caller().get("/", &[]).head.header("set-cookie"), None);
    }
    server.caller().get("/", &["X-Forwarded-Proto: https"]);
    assert_eq!(server.log().matches("a session began over plain HTTP").count(), 1);
    server.stop();
}

#[test]
fn the_admin_page_fits_a_phone_and_asks_before_it_ends_all_sessions_of_somebody() {
    let (app, port) = (app(), free_port());
    let server = with_admin("memory:", &app, port).as_gateway_at(port).start();
    let mut all = [log_in(&server, "Ada"), log_in(&server, "Ada")];
    let mut steps = Vec::new();
    for (width, scheme) in [(390, "light"), (390, "dark"), (1200, "light"), (1200, "dark")] {
        steps.push(json!({ "window": [width, 800, scheme] }));
        steps.push(json!({ "goto": format!("http://127.0.0.1:{port}/sessions") }));
        if steps.len() == 2 {
            steps.push(json!({ "fill": ["#token", TOKEN] }));
            steps.push(json!({ "click": "form[action='/login'] button" }));
        }
        steps.push(json!({ "click": "table a" }));
        steps.push(json!({ "goto": format!("http://127.0.0.1:{port}/sessions?subject=Ada") }));
    }
    steps.push(json!({ "click": "form[action='/sessions/end-all'] button" }));
    steps.push(json!({ "click": "form[method=post] button.end" }));
    let notes = browse(false, &steps);
    for note in &notes {
        assert!(note["overflow"].as_i64().is_some_and(|more| more <= 0), "{note}");
    }
    let text = |from_end: usize| notes[notes.len() - from_end]["text"].as_str().unwrap();
    assert!(text(2).contains("End all sessions of exactly “Ada”?"), "{}", text(2));
    assert!(text(1).contains("2 sessions were ended"), "{}", text(1));
    assert!(all.iter_mut().all(|caller| !is_known(caller, "Ada")));
    server.stop();
}
