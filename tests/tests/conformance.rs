//! Plays one list of scenarios through every gateway and expects the same cookies and documents.
//!
//! Every gateway has a server that performs the operations in the header X-Deeds on its session;
//! see `tests/conformance/scenarios.json` and `host/examples/conformance_server.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edge_session_tests::{
    Asked, Database, Front, Fronted, Head, KeyValue, Launch, Nats, Process, Redis, Reply, SECRET,
    Served, Server, Upstream, Wash, Wire, call_session_api, checkout, free_port, temp_dir,
    wait_for,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A running gateway server. Dropping it ends the server.
enum Running {
    Process { _process: Process, port: u16, _dir: Option<TempDir> },
    Proxy { server: Server, _app: Upstream },
    App(Server),
    Wasi(Served),
    Wash { wash: Wash, _kv: TempDir },
    Fronted { fronted: Fronted, _app: Upstream },
}

impl Running {
    fn url(&self) -> String {
        match self {
            Self::Process { port, .. } => format!("http://127.0.0.1:{port}"),
            Self::Proxy { server, .. } | Self::App(server) => server.url(),
            Self::Wasi(served) => served.url(),
            Self::Wash { wash, .. } => wash.url(),
            Self::Fronted { fronted, .. } => fronted.url(),
        }
    }
}

/// A way to embed the component.
struct Gateway {
    name: &'static str,
    /// Operations that its applications cannot request.
    lacks: &'static [&'static str],
    start: fn(store: &str, options: &Value) -> Running,
}

const RUST_LAYER: Gateway = Gateway { name: "Rust layer", lacks: &[], start: start_layer };
const PROXY: Gateway = Gateway { name: "proxy", lacks: &["renew", "maxAge"], start: start_proxy };

const NODE_EXPRESS: Gateway = Gateway { name: "Node Express", lacks: &[], start: start_express };
const NODE_FETCH: Gateway = Gateway { name: "Node fetch", lacks: &[], start: start_fetch };

fn start_node(kind: &str, store: &str, options: &Value) -> Running {
    let mut command = Command::new("node");
    command.arg(checkout().join("gateways/node/test/conformance-server.mjs")).arg(kind);
    start_process(command, store, options)
}

fn start_express(store: &str, options: &Value) -> Running {
    start_node("express", store, options)
}

fn start_fetch(store: &str, options: &Value) -> Running {
    start_node("fetch", store, options)
}

const DENO: Gateway = Gateway { name: "Deno", lacks: &[], start: start_deno };
const BUN: Gateway = Gateway { name: "Bun", lacks: &[], start: start_bun };
/// Its store is in the isolate's memory.
const WORKERD: Gateway = Gateway { name: "workerd", lacks: &[], start: start_workerd };

/// Its store is in memory.
const GO: Gateway = Gateway { name: "Go", lacks: &[], start: start_go };

/// Returns a runtime that npm installs in `tests/runtimes`.
fn runtime(path: &str) -> Command {
    let program = checkout().join("tests/runtimes/node_modules").join(path);
    assert!(program.exists(), "{} is missing: run scripts/setup runtimes", program.display());
    Command::new(program)
}

fn start_deno(store: &str, options: &Value) -> Running {
    let mut command = runtime("@deno/linux-x64-glibc/deno");
    // The package's own dependencies, and nothing from elsewhere.
    command.args(["run", "-A", "--quiet", "--no-remote", "--node-modules-dir=manual"]);
    command.arg(checkout().join("gateways/node/test/runtimes/deno.mjs"));
    start_process(command, store, options)
}

fn start_bun(store: &str, options: &Value) -> Running {
    let mut command = runtime("@oven/bun-linux-x64/bin/bun");
    command.arg(checkout().join("gateways/node/test/runtimes/bun.mjs"));
    start_process(command, store, options)
}

fn start_workerd(store: &str, options: &Value) -> Running {
    let dir = temp_dir("workerd-");
    let mut bundle = Command::new("node");
    bundle.current_dir(checkout().join("gateways/node"));
    bundle.args(["node_modules/esbuild/bin/esbuild", "test/runtimes/workerd.mjs", "--bundle"]);
    bundle.args(["--format=esm", "--conditions=workerd", "--external:*/mongodb.js"]);
    bundle.args(["--loader:.wasm=copy", "--asset-names=[name]", "--log-level=warning"]);
    bundle.arg(format!("--outfile={}", dir.path().join("worker.mjs").display()));
    assert!(bundle.status().expect("node is installed").success());
    let port = free_port();
    let text = |value: &str| Value::from(value).to_string();
    let config = format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
           const config :Workerd.Config = (
             services = [(name = "main", worker = .main)],
             sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "main")]
           );
           const main :Workerd.Worker = (
             modules = [
               (name = "worker.mjs", esModule = embed "worker.mjs"),
               (name = "session.core.wasm", wasm = embed "session.core.wasm"),
               (name = "session.core2.wasm", wasm = embed "session.core2.wasm"),
               (name = "session.core3.wasm", wasm = embed "session.core3.wasm")
             ],
             bindings = [
               (name = "EDGE_SESSION_SECRET", text = {}),
               (name = "EDGE_SESSION_STORE", text = {}),
               (name = "EDGE_SESSION_OPTIONS", text = {})
             ],
             compatibilityDate = "2026-11-01"
           );"#,
        text(SECRET),
        text(store),
        text(&options.to_string()),
    );
    std::fs::write(dir.path().join("config.capnp"), config).expect("the folder is writable");
    let mut command = runtime("@cloudflare/workerd-linux-64/bin/workerd");
    command.current_dir(dir.path()).args(["serve", "config.capnp"]);
    start_process_at(port, command, Some(dir), store, options)
}

const PYTHON: Gateway = Gateway { name: "Python ASGI", lacks: &[], start: start_python };

fn start_python(store: &str, options: &Value) -> Running {
    let python = std::env::var_os("EDGE_SESSION_PYTHON").expect(
        "EDGE_SESSION_PYTHON is what scripts/setup python makes: TARGET/tools/python/bin/python",
    );
    let folder = checkout().join("gateways/python");
    let mut command = Command::new(python);
    command.arg(folder.join("tests/conformance_server.py")).env("PYTHONPATH", folder.join("src"));
    start_process(command, store, options)
}

fn start_go(store: &str, options: &Value) -> Running {
    let program = beside_the_tests("example-embedding-go", "scripts/setup go");
    let mut command = Command::new(program);
    command.arg("-conformance");
    start_process(command, store, options)
}

fn start_process(mut command: Command, store: &str, options: &Value) -> Running {
    let port = free_port();
    command.arg(port.to_string());
    start_process_at(port, command, None, store, options)
}

fn start_process_at(
    port: u16,
    mut command: Command,
    dir: Option<TempDir>,
    store: &str,
    options: &Value,
) -> Running {
    command
        .env("EDGE_SESSION_COMPONENT", component())
        .env("EDGE_SESSION_SECRET", SECRET)
        .env("EDGE_SESSION_STORE", store)
        .env("EDGE_SESSION_OPTIONS", options.to_string())
        .stdout(Stdio::null());
    let running = Running::Process { _process: Process::start(&mut command), port, _dir: dir };
    let url = running.url();
    wait_for("the gateway to answer", Duration::from_secs(20), || ureq::get(&url).call().ok());
    running
}

fn component() -> PathBuf {
    std::env::var_os("EDGE_SESSION_COMPONENT")
        .map_or_else(|| checkout().join("host/session.wasm"), PathBuf::from)
}

/// Returns a program in TARGET/PROFILE. The tests are in TARGET/PROFILE/deps.
fn beside_the_tests(path: &str, remedy: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a program knows its path");
    let program = tests.ancestors().nth(2).expect("it is in a profile's folder").join(path);
    assert!(program.exists(), "{} is missing: run {remedy}", program.display());
    program
}

fn start_layer(store: &str, options: &Value) -> Running {
    let remedy = "cargo build -p edge-session --examples";
    let server = beside_the_tests("examples/conformance_server", remedy);
    start_process(Command::new(server), store, options)
}

/// Returns the options as a configuration file.
fn toml(options: &Value) -> String {
    let line = |(key, value): (&String, &Value)| format!("{key} = {value}\n");
    let options = options.as_object().expect("options are an object");
    let own: String = options.iter().filter(|(_, value)| !value.is_object()).map(line).collect();
    let cookie = options.get("cookie").and_then(Value::as_object);
    let cookie: String = cookie.into_iter().flatten().map(line).collect();
    format!("{own}[cookie]\n{cookie}")
}

fn start_proxy(store: &str, options: &Value) -> Running {
    let app = Upstream::app(perform);
    let server = Launch::new(store).config(&toml(options)).upstream(&app.url()).start();
    Running::Proxy { server, _app: app }
}

/// An application that is a component also uses the proxy's session headers.
const APP: Gateway = Gateway { name: "serve --app", lacks: &["renew", "maxAge"], start: start_app };

fn start_app(store: &str, options: &Value) -> Running {
    let launch = Launch::new(store).config(&toml(options)).app("wasi-app-for-tests.wasm");
    Running::App(launch.start())
}

/// Its application uses the proxy's session headers. `wasmtime serve` provides an in-memory store,
/// whatever the URL.
const WASI_HTTP: Gateway =
    Gateway { name: "wasi:http", lacks: &["renew", "maxAge"], start: start_wasi_http };

fn start_wasi_http(_: &str, options: &Value) -> Running {
    Running::Wasi(Served::start(&of_middleware(options)))
}

/// The same components in another host, which keeps keys and values in a folder.
const WASMCLOUD: Gateway =
    Gateway { name: "wasmCloud", lacks: &["renew", "maxAge"], start: start_wasmcloud };

fn start_wasmcloud(_: &str, options: &Value) -> Running {
    let kv = temp_dir("keyvalue-");
    let folder = kv.path().display().to_string();
    let wash = Wash::start(KeyValue::Folder(&folder), &of_middleware(options));
    Running::Wash { wash, _kv: kv }
}

/// The same with the store that compares and swaps.
const WASMCLOUD_SWAPS: Gateway = Gateway {
    name: "wasmCloud, wasmcloud:keyvalue",
    lacks: &["renew", "maxAge"],
    start: start_wasmcloud_swaps,
};

fn start_wasmcloud_swaps(_: &str, options: &Value) -> Running {
    let wash = Wash::start(KeyValue::SwapsInMemory, &of_middleware(options));
    Running::Wash { wash, _kv: temp_dir("keyvalue-") }
}

/// Returns the options as the middleware's environment variables.
pub(crate) fn of_middleware(options: &Value) -> Vec<(String, String)> {
    let options = options.as_object().expect("options are an object");
    let mut env = vec![("EDGE_SESSION_SECRET".to_owned(), SECRET.to_owned())];
    let mut say = |key: &str, value: &Value| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        env.push((format!("EDGE_SESSION_{}", key.to_uppercase()), value));
    };
    for (key, value) in options {
        match value.as_object() {
            None => say(key, value),
            Some(section) => {
                section.iter().for_each(|(own, value)| say(&format!("{key}_{own}"), value));
            }
        }
    }
    env
}

/// Envoy's application uses the proxy's session headers.
const ENVOY: Gateway = Gateway {
    name: "Envoy",
    lacks: &["renew", "maxAge"],
    start: |store, options| start_front(Front::Envoy, store, options),
};

const PROXY_WASM: Gateway = Gateway {
    name: "Envoy, proxy-wasm",
    lacks: &["renew", "maxAge"],
    start: |store, options| start_front(Front::EnvoyProxyWasm, store, options),
};

/// The applications behind these use the session API.
const EXT_AUTHZ: Gateway = Gateway {
    name: "Envoy, ext_authz",
    lacks: &["maxAge"],
    start: |store, options| start_front(Front::EnvoyExtAuthz, store, options),
};
const NGINX: Gateway = Gateway {
    name: "nginx",
    lacks: &["maxAge"],
    start: |store, options| start_front(Front::Nginx, store, options),
};
const CADDY: Gateway = Gateway {
    name: "Caddy",
    lacks: &["maxAge"],
    start: |store, options| start_front(Front::Caddy, store, options),
};
const TRAEFIK: Gateway = Gateway {
    name: "Traefik",
    lacks: &["maxAge"],
    start: |store, options| start_front(Front::Traefik, store, options),
};
const HAPROXY: Gateway = Gateway {
    name: "HAProxy",
    lacks: &["maxAge"],
    start: |store, options| start_front(Front::Haproxy, store, options),
};

fn start_front(front: Front, store: &str, options: &Value) -> Running {
    let asked = Arc::new(OnceLock::<String>::new());
    let for_app = asked.clone();
    let app = Upstream::app(move |request| match for_app.get() {
        _ if [Front::Envoy, Front::EnvoyProxyWasm].contains(&front) => perform(request),
        Some(api) => perform_by_api(request, api),
        None => Reply::text("not ready"),
    });
    let name = options["name"].as_str().unwrap_or("connect.sid").to_owned();
    let members: String = options
        .as_object()
        .expect("options are an object")
        .iter()
        .map(|(key, value)| format!(",\n                              {key:?}: {value}"))
        .collect();
    // The filter's own options, in its configuration.
    let edit = move |text: String| {
        let text = text.replace("\"THE SECRET\"", &format!("{:?}{members}", SECRET));
        text.replace("connect.sid", &name)
    };
    let port = app.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let fronted =
        front.start(Launch::new(store), &toml(options), port.expect("it has a port"), &edit);
    asked.set(fronted.asked()).expect("it is set once");
    Running::Fronted { fronted, _app: app }
}

/// The application behind a gateway that asks: performs the operations with the session API.
fn perform_by_api(asked: &Asked, api: &str) -> Reply {
    let told = asked.session();
    let mut reply = Reply::text(&json!({ "data": told }).to_string());
    let deeds: Vec<Vec<Value>> =
        serde_json::from_str(asked.header("x-deeds").unwrap_or("[]")).expect("deeds are JSON");
    let mut cookie = asked.header("cookie").unwrap_or_default().to_owned();
    let mut relayed = None;
    let mut ask = |method: &str, path: &str, body: Option<&Value>| {
        if let Some(new) = call_session_api(api, asked, &cookie, method, path, body) {
            new.split(';').next().unwrap_or_default().clone_into(&mut cookie);
            relayed = Some(new);
        }
    };
    let mut data = told.as_object().cloned().unwrap_or_default();
    let mut is_changed = false;
    for deed in &deeds {
        match (deed[0].as_str(), deed.get(1).and_then(Value::as_str)) {
            (Some("set"), Some(key)) => drop(data.insert(key.to_owned(), deed[2].clone())),
            (Some("remove"), Some(key)) => drop(data.shift_remove(key)),
            (Some("regenerate"), _) => {
                ask("POST", "/session/regenerate", None);
                data = Map::new();
            }
            (Some("renew"), _) => {
                ask("POST", "/session/renew", None);
                continue;
            }
            (Some("destroy"), _) => {
                ask("DELETE", "/session", None);
                is_changed = false;
                continue;
            }
            _ => panic!("an application behind a gateway that asks cannot do {deed:?}"),
        }
        is_changed = true;
    }
    if is_changed {
        ask("PUT", "/session", Some(&Value::Object(data)));
    }
    if let Some(cookie) = relayed {
        reply = reply.line(format!("Set-Cookie: {cookie}"));
    }
    reply
}

/// Returns the text of a session in the middleware's store, which only the application can see: the
/// test application returns it.
fn stored_in_wasi_http(url: &str, id: &str) -> Option<String> {
    let asked = ureq::post(format!("{url}/store")).send(json!(["load", id]).to_string());
    let said = asked.expect("it answers").body_mut().read_to_string().expect("it is a text");
    let said: Value = serde_json::from_str(&said).expect("it is JSON");
    said["data"].as_str().map(str::to_owned)
}

/// The application behind the proxy: performs the operations with session headers.
fn perform(asked: &Asked) -> Reply {
    let told = asked.session();
    let reply = Reply::text(&json!({ "data": told }).to_string());
    let deeds: Vec<Vec<Value>> =
        serde_json::from_str(asked.header("x-deeds").unwrap_or("[]")).expect("deeds are JSON");
    if deeds.is_empty() {
        return reply;
    }
    let mut data = told.as_object().cloned().unwrap_or_default();
    let mut action = None;
    for deed in &deeds {
        match (deed[0].as_str(), deed.get(1).and_then(Value::as_str)) {
            (Some("set"), Some(key)) => drop(data.insert(key.to_owned(), deed[2].clone())),
            (Some("remove"), Some(key)) => drop(data.shift_remove(key)),
            (Some("regenerate"), _) => (data, action) = (Map::new(), Some("regenerate")),
            (Some("destroy"), _) => action = Some("destroy"),
            _ => panic!("an application of the proxy cannot do {deed:?}"),
        }
    }
    match action {
        Some("destroy") => reply.line("Edge-Session-Action: destroy"),
        action => {
            let reply = reply.line(format!("Edge-Session: {}", ascii(&Value::Object(data))));
            match action {
                Some(action) => reply.line(format!("Edge-Session-Action: {action}")),
                None => reply,
            }
        }
    }
}

/// Returns JSON that is valid in a header.
fn ascii(value: &Value) -> String {
    let escape = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    value.to_string().chars().map(escape).collect()
}

/// A visitor who keeps every cookie.
struct Jar {
    name: String,
    values: Vec<String>,
}

impl Jar {
    fn send(&self, what: &str) -> Option<String> {
        let last = self.values.last();
        let value = match what {
            "last" => last?.clone(),
            "first" => self.values.first()?.clone(),
            "forged" => {
                let (id, signature) = last?.split_once('.').expect("it is signed");
                format!("{id}.{}", signature.chars().rev().collect::<String>())
            }
            "cut" => last?[..last?.len() - 3].to_owned(),
            "unsigned" => last?.split_once('.')?.0.to_owned(),
            // Signed with the right secret, but never stored.
            "unknown" => "s%3Aunknown-0123456789-abcdefghijklm.".to_owned() + UNKNOWN_SIGNATURE,
            other => panic!("unknown cookie {other}"),
        };
        Some(format!("{}={value}", self.name))
    }
}

/// HMAC-SHA256 of `unknown-0123456789-abcdefghijklm` under [`SECRET`].
const UNKNOWN_SIGNATURE: &str = "GgUSg06w72i0lbWlj9l68%2F9mCanF1PsA6e34gdKEcmc";

/// The observable result of a step, with normalized values where runs differ.
#[derive(Debug, PartialEq)]
struct Seen {
    step: String,
    set_cookie: Option<String>,
    document: Option<String>,
}

fn without_dates(text: &str) -> String {
    // Both forms end in GMT or Z: `Expires=Mon, 01 …GMT` and `"expires":"2030-…Z"`.
    let mut rest = text;
    let mut plain = String::new();
    while let Some(at) = rest
        .find("Expires=")
        .map(|at| at + 8)
        .or_else(|| rest.find("\"expires\":\"").map(|at| at + 11))
    {
        let end = rest[at..].find([';', '"']).map_or(rest.len(), |end| at + end);
        plain.push_str(&rest[..at]);
        plain.push('*');
        rest = &rest[end..];
    }
    plain + rest
}

/// A function that returns the text of a session, given the gateway's URL and the identifier.
type Look<'l> = Option<&'l dyn Fn(&str, &str) -> Option<String>>;

/// Plays all scenarios that a gateway supports; returns the results by scenario.
fn play(gateway: &Gateway, store: &str, look: Look<'_>) -> BTreeMap<String, Vec<Seen>> {
    let text = std::fs::read_to_string(checkout().join("tests/conformance/scenarios.json"));
    let scenarios: Vec<Value> = serde_json::from_str(&text.expect("it is there")).expect("JSON");
    let mut servers: Vec<(Value, Running)> = Vec::new();
    let mut all = BTreeMap::new();
    for scenario in &scenarios {
        let name = scenario["name"].as_str().expect("a scenario has a name");
        let needs = scenario["needs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if needs.into_iter().any(|need| gateway.lacks.contains(&need)) {
            continue;
        }
        let options = scenario.get("options").cloned().unwrap_or(json!({}));
        let at = servers.iter().position(|(known, _)| *known == options).unwrap_or_else(|| {
            servers.push((options.clone(), (gateway.start)(store, &options)));
            servers.len() - 1
        });
        let url = servers[at].1.url();
        let cookie_name = options["name"].as_str().unwrap_or("connect.sid").to_owned();
        let mut jar = Jar { name: cookie_name, values: Vec::new() };
        let mut seen = Vec::new();
        for (number, step) in scenario["steps"].as_array().expect("steps").iter().enumerate() {
            let context = format!("{}: {name}: step {}", gateway.name, number + 1);
            seen.push(take(&url, step, &mut jar, look, &context));
        }
        all.insert(name.to_owned(), seen);
    }
    all
}

fn take(url: &str, step: &Value, jar: &mut Jar, look: Look<'_>, context: &str) -> Seen {
    let mut request = ureq::get(url).header("x-deeds", ascii(&step["deeds"]));
    let is_new = jar.values.is_empty() && step.get("send").is_none();
    let sent = if is_new { None } else { jar.send(step["send"].as_str().unwrap_or("last")) };
    if let Some(cookie) = &sent {
        request = request.header("cookie", cookie);
    }
    let mut response = request.call().unwrap_or_else(|error| panic!("{context}: {error}"));
    let body = response.body_mut().read_to_string().expect("it has a body");
    let body: Value = serde_json::from_str(&body).expect("the answer is JSON");
    assert_eq!(body["data"], step["data"], "{context}: the data");

    let prefix = format!("{}=", jar.name);
    let cookies = response.headers().get_all("set-cookie").iter();
    let cookies =
        cookies.filter_map(|value| value.to_str().ok()).filter(|it| it.starts_with(&prefix));
    let cookies: Vec<_> = cookies.map(str::to_owned).collect();
    assert!(cookies.len() <= 1, "{context}: {cookies:?}");
    let cookie = cookies.first();
    let (pair, attributes) = cookie.map_or(("", ""), |it| it.split_once("; ").unwrap_or((it, "")));
    let value = pair.strip_prefix(&prefix).unwrap_or_default();
    let id = |value: &str| value.split('.').next().unwrap_or_default().to_owned();
    match step["cookie"].as_str().expect("a step says what becomes of the cookie") {
        "none" => assert_eq!(cookie, None, "{context}"),
        "new" => {
            let is_known = jar.values.iter().any(|known| id(known) == id(value));
            assert!(value.starts_with("s%3A") && !is_known, "{context}: {cookie:?}");
            jar.values.push(value.to_owned());
        }
        "same" => assert_eq!(Some(&value.to_owned()), jar.values.last(), "{context}"),
        "cleared" => {
            assert!(value.is_empty() && attributes.contains("1970"), "{context}: {cookie:?}")
        }
        other => panic!("{context}: unknown expectation {other}"),
    }
    let attributes = without_dates(attributes);
    if let Some(expected) = step["attributes"].as_str() {
        assert_eq!(attributes, expected, "{context}");
    }

    let mut seen = Seen {
        step: context.split_once(": ").map_or("", |it| it.1).to_owned(),
        set_cookie: None,
        document: None,
    };
    seen.set_cookie = cookie.map(|_| attributes);
    if let (Some(look), Some(expected)) = (look, step.get("stored")) {
        let current = if value.is_empty() { sent.as_deref() } else { Some(pair) };
        let current = current.and_then(|it| it.split_once("=s%3A")).map(|(_, it)| id(it));
        let text = current.and_then(|id| look(url, &id));
        let own = text.as_deref().map(|text| {
            let mut data: Map<String, Value> = serde_json::from_str(text).expect("it is JSON");
            data.shift_remove("cookie");
            Value::Object(data).to_string()
        });
        assert_eq!(own.as_deref(), expected.as_str(), "{context}: the document");
        seen.document = text.as_deref().map(without_dates);
    }
    seen
}

/// Checks that in memory and in MongoDB, all documents equal those of the Rust layer.
fn conforms(gateway: &Gateway) {
    play(gateway, "memory:", None);
    let database = Database::new();
    compare(gateway, database.url(), &|_, id| text_in(&database, id));
}

/// Checks that in this store, all documents equal those of the Rust layer in MongoDB.
fn compare(gateway: &Gateway, store: &str, look: &dyn Fn(&str, &str) -> Option<String>) {
    let ours = Database::new();
    let expected = play(&RUST_LAYER, ours.url(), Some(&|_, id| text_in(&ours, id)));
    for (name, seen) in play(gateway, store, Some(look)) {
        assert_eq!(&seen, &expected[&name], "{}: {name}", gateway.name);
    }
}

fn text_in(database: &Database, id: &str) -> Option<String> {
    let document = database.session(id)?;
    Some(document.get_str("session").expect("it is a text").to_owned())
}

#[test]
fn the_rust_layer_plays_all_scenarios() {
    conforms(&RUST_LAYER);
}

#[test]
fn the_proxy_plays_all_scenarios() {
    conforms(&PROXY);
}

#[test]
fn node_with_express_plays_all_scenarios() {
    conforms(&NODE_EXPRESS);
}

#[test]
fn node_with_fetch_handlers_plays_all_scenarios() {
    conforms(&NODE_FETCH);
}

#[test]
fn deno_plays_all_scenarios() {
    conforms(&DENO);
}

#[test]
fn bun_plays_all_scenarios() {
    conforms(&BUN);
}

#[test]
fn workerd_plays_all_scenarios_in_memory() {
    play(&WORKERD, "memory:", None);
}

#[test]
fn go_plays_all_scenarios_in_memory() {
    play(&GO, "memory:", None);
}

#[test]
fn parallel_changes_of_a_session_are_all_kept_in_go() {
    let running = (GO.start)("memory:", &json!({}));
    let (_, cookie) = ask(&running, None, &json!([["set", "first", true]]));
    let visit = &|n: i32| ask(&running, cookie.as_deref(), &json!([["set", n.to_string(), n]]));
    std::thread::scope(|scope| {
        for n in 0..64 {
            scope.spawn(move || visit(n));
        }
    });
    let (data, _) = ask(&running, cookie.as_deref(), &json!([]));
    assert_eq!(data.as_object().expect("it is an object").len(), 65, "{data}");
}

#[test]
fn a_websocket_has_the_session_in_deno_bun_and_workerd() {
    for gateway in [&DENO, &BUN, &WORKERD] {
        let running = (gateway.start)("memory:", &json!({}));
        let (_, cookie) = ask(&running, None, &json!([["set", "a", 1]]));
        let cookie = cookie.expect("a new session has a cookie");
        for count in 1..3 {
            let (mut wire, head) = upgraded(&running, &cookie);
            assert_eq!(head.header("set-cookie"), None, "{}", gateway.name);
            // A text frame, masked by zeros (RFC 6455, section 5.2).
            wire.send([&[0x81, 0x82, 0, 0, 0, 0][..], b"hi"].concat());
            let expected = format!("hi {count}");
            let frame = wire.exactly(2 + expected.len()).expect("it answers");
            assert_eq!(&frame[2..], expected.as_bytes(), "{}", gateway.name);
        }
        let (data, _) = ask(&running, Some(&cookie), &json!([]));
        assert_eq!(data, json!({ "a": 1, "sockets": 2 }), "{}", gateway.name);

        let (_wire, head) = upgraded(&running, "theme=dark");
        let new = head.header("set-cookie").expect("a new session has a cookie");
        let new = new.split(';').next();
        let (data, _) = ask(&running, new, &json!([]));
        assert_eq!(data, json!({ "sockets": 1 }), "{}", gateway.name);
    }
}

/// Opens a WebSocket with this cookie.
fn upgraded(gateway: &Running, cookie: &str) -> (Wire, Head) {
    let mut wire = Wire::open(gateway.url().trim_start_matches("http://"));
    wire.send(format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Cookie: {cookie}\r\n\r\n"
    ));
    let head = wire.head();
    assert_eq!(head.status(), 101, "{head:#?}");
    (wire, head)
}

#[test]
fn python_plays_all_scenarios() {
    conforms(&PYTHON);
}

#[test]
fn an_application_in_the_host_plays_all_scenarios() {
    conforms(&APP);
}

#[test]
fn envoy_with_external_processing_plays_all_scenarios() {
    conforms(&ENVOY);
}

#[test]
fn envoy_with_ext_authz_and_the_session_api_plays_all_scenarios() {
    conforms(&EXT_AUTHZ);
}

#[test]
fn envoy_with_the_proxy_wasm_filter_plays_all_scenarios() {
    conforms(&PROXY_WASM);
}

#[test]
fn nginx_with_the_session_api_plays_all_scenarios() {
    conforms(&NGINX);
}

#[test]
fn caddy_with_the_session_api_plays_all_scenarios() {
    conforms(&CADDY);
}

#[test]
fn traefik_with_the_session_api_plays_all_scenarios() {
    conforms(&TRAEFIK);
}

#[test]
fn haproxy_with_the_session_api_plays_all_scenarios() {
    conforms(&HAPROXY);
}

#[test]
fn the_middleware_plays_all_scenarios_in_wasmcloud() {
    compare(&WASMCLOUD, "memory:", &stored_in_wasi_http);
}

#[test]
fn the_middleware_plays_all_scenarios_with_the_store_that_swaps_in_wasmcloud() {
    compare(&WASMCLOUD_SWAPS, "memory:", &stored_in_wasi_http);
}

#[test]
fn sessions_of_wasmcloud_survive_its_restart_on_disk_in_nats_and_in_redis() {
    let folder = temp_dir("keyvalue-");
    let folder = folder.path().display().to_string();
    let (nats, redis) = (Nats::start(), Redis::start());
    let (nats, redis) = (nats.url(), redis.url().to_owned());
    let env = of_middleware(&json!({}));
    for store in [KeyValue::Folder(&folder), KeyValue::Nats(&nats), KeyValue::Redis(&redis)] {
        let mut cookie: Option<String> = None;
        for (before, after) in [(json!({}), 1), (json!({ "n": 1 }), 2)] {
            let wash = Wash::start(store, &env);
            let deeds = json!([["set", "n", after]]);
            let (data, set) = ask_at(&wash.url(), cookie.as_deref(), &deeds);
            assert_eq!(data, before, "{store:?}");
            cookie = set.or(cookie);
        }
    }
}

#[test]
fn the_wasi_http_middleware_plays_all_scenarios() {
    compare(&WASI_HTTP, "memory:", &stored_in_wasi_http);
}

/// Sends these operations with this cookie; returns the data before them, and the cookie that the
/// gateway sets.
fn ask(gateway: &Running, cookie: Option<&str>, deeds: &Value) -> (Value, Option<String>) {
    ask_at(&gateway.url(), cookie, deeds)
}

pub(crate) fn ask_at(url: &str, cookie: Option<&str>, deeds: &Value) -> (Value, Option<String>) {
    let mut request = ureq::get(url).header("x-deeds", ascii(deeds));
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    let mut response = request.call().expect("the gateway answers");
    let body = response.body_mut().read_to_string().expect("it has a body");
    let body: Value = serde_json::from_str(&body).expect("the answer is JSON");
    let cookie = response.headers().get("set-cookie").and_then(|value| value.to_str().ok());
    let pair = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
    (body["data"].clone(), pair)
}

#[test]
fn a_session_moves_through_all_gateways() {
    let database = Database::new();
    let start = |gateway: &Gateway| (gateway.start)(database.url(), &json!({}));
    let [python, express, fetch, layer, app, proxy] =
        [&PYTHON, &NODE_EXPRESS, &NODE_FETCH, &RUST_LAYER, &APP, &PROXY].map(start);
    let [envoy, nginx, caddy, traefik, haproxy] =
        [&ENVOY, &NGINX, &CADDY, &TRAEFIK, &HAPROXY].map(start);
    let [ext_authz, proxy_wasm] = [&EXT_AUTHZ, &PROXY_WASM].map(start);
    let [deno, bun] = [&DENO, &BUN].map(start);

    let (data, cookie) = ask(&python, None, &json!([["set", "made", "in Python"]]));
    assert_eq!(data, json!({}));
    let cookie = cookie.expect("a new session has a cookie");
    let cookie = Some(cookie.as_str());
    let mut expected = json!({ "made": "in Python" });
    let middle = [
        (&express, "Express"),
        (&fetch, "fetch"),
        (&layer, "Rust"),
        (&app, "wasm"),
        (&envoy, "Envoy"),
        (&ext_authz, "ext_authz"),
        (&proxy_wasm, "proxy-wasm"),
        (&nginx, "nginx"),
        (&caddy, "Caddy"),
        (&traefik, "Traefik"),
        (&haproxy, "HAProxy"),
        (&deno, "Deno"),
        (&bun, "Bun"),
    ];
    for (gateway, key) in middle {
        let (data, again) = ask(gateway, cookie, &json!([["set", key, "was here"]]));
        assert_eq!((&data, again), (&expected, None), "{key}");
        expected[key] = "was here".into();
    }
    let (data, cleared) = ask(&proxy, cookie, &json!([["destroy"]]));
    assert_eq!(data, expected);
    assert_eq!(cleared.as_deref(), Some("connect.sid="));
    let all = [
        &python,
        &express,
        &fetch,
        &layer,
        &app,
        &proxy,
        &envoy,
        &ext_authz,
        &proxy_wasm,
        &nginx,
        &caddy,
        &traefik,
        &haproxy,
        &deno,
        &bun,
    ];
    for gateway in all {
        assert_eq!(ask(gateway, cookie, &json!([])).0, json!({}), "it has ended everywhere");
    }
}
