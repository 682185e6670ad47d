//! A server that uses the library and performs each request's operations on its session, for the
//! tests that compare all gateways: `conformance_server PORT`.
//!
//! EDGE_SESSION_SECRET, EDGE_SESSION_STORE (`memory:` or `mongodb://…`) and EDGE_SESSION_OPTIONS
//! (JSON with the names of the configuration file) configure it. The header X-Deeds contains a list
//! of `["set", KEY, VALUE]`, `["remove", KEY]`, `["regenerate"]`, `["renew"]`, `["destroy"]` and
//! `["maxAge", MILLISECONDS or null]`. The response is `{"data": …}`, the session's data before
//! them.

use std::env::var;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use edge_session::store::{MemoryStore, MongoOptions, MongoStore, Store};
use edge_session::{Component, Options, Session, SessionLayer};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: conformance_server PORT")?.parse()?;
    let component = Component::from_file(&var("EDGE_SESSION_COMPONENT")?, None)?;
    let mut options = Options::default();
    options.secret(var("EDGE_SESSION_SECRET")?);
    apply(&var("EDGE_SESSION_OPTIONS").unwrap_or("{}".to_owned()).parse()?, &mut options);
    let url = var("EDGE_SESSION_STORE")?;
    let store: Arc<dyn Store> = match url.as_str() {
        "memory:" => Arc::new(MemoryStore::default()),
        url => Arc::new(MongoStore::connect(url, &MongoOptions::default()).await?),
    };
    let layer = SessionLayer::with_deadline(component, options, store, Duration::from_secs(2))?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("ready");
    Ok(axum::serve(listener, Router::new().fallback(perform).layer(layer)).await?)
}

/// Sets the options of a scenario.
fn apply(json: &Value, options: &mut Options) {
    for (name, value) in json.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(section) => {
                for (key, value) in section {
                    options.set(&format!("{name}.{key}"), value);
                }
            }
            None => {
                options.set(name, value);
            }
        }
    }
}

async fn perform(session: Option<Session>, headers: HeaderMap) -> Result<String, String> {
    let Some(session) = session else { return Ok(json!({ "data": null }).to_string()) };
    let answer = json!({ "data": session.data() }).to_string();
    let deeds = headers.get("x-deeds").map_or(&b"[]"[..], |deeds| deeds.as_bytes());
    let deeds: Vec<Vec<Value>> =
        serde_json::from_slice(deeds).map_err(|error| error.to_string())?;
    for deed in deeds {
        match &deed[..] {
            [Value::String(set), Value::String(key), value] if set == "set" => {
                session.insert(key, value).map_err(|error| error.to_string())?;
            }
            [Value::String(remove), Value::String(key)] if remove == "remove" => {
                session.remove(key)
            }
            [Value::String(max_age), millis] if max_age == "maxAge" => {
                session.set_max_age(millis.as_u64().map(Duration::from_millis));
            }
            [Value::String(deed)] => match deed.as_str() {
                "regenerate" => session.regenerate(),
                "renew" => session.renew(),
                "destroy" => session.destroy(),
                _ => return Err(format!("unknown deed {deed}")),
            },
            _ => return Err("unknown deed".to_owned()),
        }
    }
    Ok(answer)
}
