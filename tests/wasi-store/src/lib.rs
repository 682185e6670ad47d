//! A component between the middleware and its application, for the tests. For `POST /store`, it
//! performs the store operation in the body (`["load", ID]`, `["create", ID, DATA, EXPIRES]`, …)
//! and responds with its result. All other requests go to the application.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;

use serde_json::{Value, json};

use bindings::edge::session::store::{self, Changed, Created};
use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::http::handler;
use bindings::wasi::http::types::{ErrorCode, Fields, Request, Response};
use bindings::{wit_future, wit_stream};

struct Store;

impl Guest for Store {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        if request.get_path_with_query().as_deref() != Some("/store") {
            return handler::handle(request).await;
        }
        let (body, _) = Request::consume_body(request, wit_future::new(|| Ok(())).1);
        let asked = serde_json::from_slice(&body.collect().await).expect("it is JSON");
        let said = ask(&asked).await.to_string();
        let (mut writer, content) = wit_stream::new();
        wit_bindgen::spawn_local(async move {
            writer.write_all(said.into_bytes()).await;
        });
        let (_, trailers) = wit_future::new(|| Ok(None));
        Ok(Response::new(Fields::new(), Some(content), trailers).0)
    }
}

/// Performs a store operation.
async fn ask(asked: &Value) -> Value {
    let id = asked[1].as_str().expect("there is an identifier").to_owned();
    let expected = |at: usize| asked[at].as_str().map(str::to_owned);
    let content = || store::Content {
        data: asked[2].as_str().expect("there are data").to_owned(),
        expires: asked[3].as_u64().expect("there is an expiry"),
    };
    let changed = match asked[0].as_str().expect("there is an operation") {
        "load" => {
            let stored = store::load(id).await.expect("the store answers");
            return stored.map_or(Value::Null, shown);
        }
        "create" => {
            return match store::create(id, content()).await.expect("the store answers") {
                Created::Done => "done".into(),
                Created::Taken => "taken".into(),
            };
        }
        "replace" => store::replace(id, content(), expected(4)).await,
        "touch" => store::touch(id, asked[2].as_u64().expect("there is an expiry")).await,
        "delete" => store::delete(id, expected(2)).await,
        other => panic!("a store cannot {other}"),
    };
    match changed.expect("the store answers") {
        Changed::Done => "done".into(),
        Changed::Missing => "missing".into(),
        Changed::Conflict(stored) => json!({ "conflict": shown(stored) }),
    }
}

fn shown(stored: store::Stored) -> Value {
    json!({ "data": stored.data, "expires": stored.expires })
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(Store with_types_in crate::bindings);
    use super::Store;
}
