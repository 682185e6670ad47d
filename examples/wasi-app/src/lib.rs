//! A view counter with login and logout as a `wasi:http` component. It has no session code: it
//! reads the header `Edge-Session`, and responds with the changes. `make middleware` joins it with
//! the middleware and a store as `target/served.wasm`.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;

use serde_json::{Value, json};

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::http::types::{ErrorCode, Fields, Method, Request, Response};
use bindings::{wit_future, wit_stream};

struct App;

impl Guest for App {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let told = request.get_headers().get("edge-session").pop().unwrap_or_default();
        let session: Value = serde_json::from_slice(&told).unwrap_or_default();
        let target = request.get_path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        Ok(match (request.get_method(), path) {
            (Method::Get, "/") => {
                let count = session["viewCount"].as_u64().unwrap_or(0) + 1;
                let change = json!({ "viewCount": count }).to_string();
                let page = format!("you have visited this page {count} times\n");
                answer(200, page, &[("edge-session-merge", &change)])
            }
            (Method::Post, "/login") => {
                // A new identifier makes one that was planted by an attacker worthless.
                let mut data = session;
                data["user"] = "ada".into();
                let headers =
                    [("edge-session-action", "regenerate"), ("edge-session", &data.to_string())];
                answer(200, "welcome, ada\n".to_owned(), &headers)
            }
            (Method::Post, "/logout") => {
                answer(200, "goodbye\n".to_owned(), &[("edge-session-action", "destroy")])
            }
            _ => answer(404, "there is nothing here\n".to_owned(), &[]),
        })
    }
}

fn answer(status: u16, body: String, headers: &[(&str, &str)]) -> Response {
    let fields = Fields::new();
    for (name, value) in headers.iter().chain(&[("content-type", "text/plain; charset=utf-8")]) {
        fields.append(name, value.as_bytes()).expect("it is a header");
    }
    let (mut writer, content) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields, Some(content), trailers);
    response.set_status_code(status).expect("it is a status");
    // The body is read after the response has been returned.
    wit_bindgen::spawn_local(async move {
        writer.write_all(body.into_bytes()).await;
    });
    response
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(App with_types_in crate::bindings);
    use super::App;
}
