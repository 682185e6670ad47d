//! The `wasi:http` application of the tests: behind the middleware, and in `serve --app`.
//!
//! Like all applications of the conformance test, it performs the operations in the header
//! `X-Deeds` on its session, and responds with `{"data": …}`, the session before. `/parrot`
//! responds with its `Say` headers as headers, the status `Say-Status`, and the request's body,
//! streamed. `/trap`, `/loop`, `/never` and `/greedy` misbehave.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;

use serde_json::{Map, Value, json};

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::clocks0_3_0::monotonic_clock;
use bindings::wasi::http::types::{ErrorCode, Fields, Headers, Request, Response};
use bindings::{wit_future, wit_stream};
use wit_bindgen::StreamReader;

type Lines = Vec<(String, Vec<u8>)>;

struct App;

impl Guest for App {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let headers = request.get_headers();
        let path = request.get_path_with_query().unwrap_or_default();
        let (body, trailers) = Request::consume_body(request, wit_future::new(|| Ok(())).1);
        Ok(match path.as_str() {
            "/trap" => panic!("as the visitor asked"),
            "/loop" => loop {
                std::hint::black_box(());
            },
            "/never" => {
                monotonic_clock::wait_for(u64::MAX).await;
                answer(200, Vec::new(), text("at last".to_owned()))
            }
            "/greedy" => {
                let mut kept = Vec::new();
                while kept.len() < 1 << 16 {
                    kept.push(vec![1_u8; 1 << 20]);
                }
                answer(200, Vec::new(), text(kept.len().to_string()))
            }
            "/parrot" => {
                let status = first(&headers, "say-status").and_then(|it| it.parse().ok());
                let said = headers.get("say").into_iter().map(|line| {
                    let line = String::from_utf8(line).expect("a line is a text");
                    let (name, value) = line.split_once(": ").expect("a line is a header");
                    (name.to_owned(), value.as_bytes().to_vec())
                });
                let mut said: Lines = said.collect();
                // Returns what the application received, for the test to check.
                for name in ["edge-session", "edge-session-id", "edge_session"] {
                    if let Some(told) = first(&headers, name) {
                        said.push((format!("told-{name}"), told.into_bytes()));
                    }
                }
                let fields = Fields::from_list(&said).expect("they are headers");
                let (response, _) = Response::new(fields, Some(body), trailers);
                response.set_status_code(status.unwrap_or(200)).expect("it is a status");
                response
            }
            _ => perform(&headers),
        })
    }
}

/// Performs the operations.
fn perform(headers: &Headers) -> Response {
    let told: Value = first(headers, "edge-session")
        .map_or(Value::Null, |told| told.parse().expect("the session is JSON"));
    let answered = json!({ "data": told }).to_string();
    let deeds = first(headers, "x-deeds").unwrap_or_else(|| "[]".to_owned());
    let deeds: Vec<Vec<Value>> = serde_json::from_str(&deeds).expect("deeds are JSON");
    if deeds.is_empty() {
        return answer(200, Vec::new(), text(answered));
    }
    let mut data = told.as_object().cloned().unwrap_or_default();
    let mut action = None;
    for deed in &deeds {
        match (deed[0].as_str(), deed.get(1).and_then(Value::as_str)) {
            (Some("set"), Some(key)) => drop(data.insert(key.to_owned(), deed[2].clone())),
            (Some("remove"), Some(key)) => drop(data.shift_remove(key)),
            (Some("regenerate"), _) => (data, action) = (Map::new(), Some("regenerate")),
            (Some("destroy"), _) => action = Some("destroy"),
            _ => panic!("an application behind the middleware cannot do {deed:?}"),
        }
    }
    let mut lines = Lines::new();
    if action != Some("destroy") {
        let data = Value::Object(data).to_string();
        lines.push(("edge-session".to_owned(), data.into_bytes()));
    }
    if let Some(action) = action {
        lines.push(("edge-session-action".to_owned(), action.as_bytes().to_vec()));
    }
    answer(200, lines, text(answered))
}

fn first(headers: &Headers, name: &str) -> Option<String> {
    let value = headers.get(name).into_iter().next()?;
    Some(String::from_utf8(value).expect("it is a text"))
}

fn text(text: String) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        writer.write_all(text.into_bytes()).await;
    });
    reader
}

fn answer(status: u16, headers: Lines, body: StreamReader<u8>) -> Response {
    let fields = Fields::from_list(&headers).expect("they are headers");
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields, Some(body), trailers);
    response.set_status_code(status).expect("it is a status");
    response
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(App with_types_in crate::bindings);
    use super::App;
}
