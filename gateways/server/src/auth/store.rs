//! The five store operations over HTTP, for gateways that run the rules themselves: the proxy-wasm
//! filter.
//!
//! A session's identifier is in the body, since paths are logged.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use edge_session::store::{Changed, Content, Created, Store, StoreError, Stored};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::api::{json_body, problem};

/// The store, with the deadline of an operation.
pub(super) struct StoreApi {
    store: Arc<dyn Store>,
    deadline: Duration,
}

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    id: String,
    data: Option<String>,
    expires: Option<u64>,
    expected: Option<String>,
}

impl StoreApi {
    pub(super) fn new(store: Arc<dyn Store>, deadline: Duration) -> Self {
        Self { store, deadline }
    }

    /// Performs an operation; the caller has checked the token.
    pub(super) async fn respond(&self, request: Request<Body>) -> Response<Body> {
        self.try_respond(request).await.unwrap_or_else(|problem| problem)
    }

    async fn try_respond(&self, request: Request<Body>) -> Result<Response<Body>, Response<Body>> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Err(problem(StatusCode::METHOD_NOT_ALLOWED, "use POST"));
        }
        let text = json_body(&head.headers, &["application/json"], body).await?;
        let bad = |what: &str| problem(StatusCode::BAD_REQUEST, what);
        let question: Question = serde_json::from_str(&text).map_err(|_| {
            bad("the body is not an object with `id`, and as needed `data`, `expires`, `expected`")
        })?;
        let Question { id, data, expires, expected } = question;
        let content = data.zip(expires).map(|(data, expires)| Content { data, expires });
        let content = content.ok_or("`data` or `expires` is missing");
        let expected = expected.as_deref();
        let store = &self.store;
        let operation = head.uri.path().strip_prefix("/store/").unwrap_or_default();
        match operation {
            "load" => self.within(store.load(&id)).await.map(|stored| match stored {
                Some(stored) => found(StatusCode::OK, stored),
                None => StatusCode::NOT_FOUND.into_response(),
            }),
            "create" => {
                self.within(store.create(&id, content.map_err(bad)?)).await.map(|created| {
                    match created {
                        Created::Done => StatusCode::NO_CONTENT.into_response(),
                        Created::Taken => StatusCode::CONFLICT.into_response(),
                    }
                })
            }
            "replace" => {
                self.within(store.replace(&id, content.map_err(bad)?, expected)).await.map(changed)
            }
            "touch" => {
                let expires = expires.ok_or_else(|| bad("`expires` is missing"))?;
                self.within(store.touch(&id, expires)).await.map(changed)
            }
            "delete" => self.within(store.delete(&id, expected)).await.map(changed),
            _ => {
                let what = "there are /store/load, create, replace, touch and delete";
                Err(problem(StatusCode::NOT_FOUND, what))
            }
        }
    }

    /// Performs an operation within the deadline. The error is the response.
    async fn within<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Response<Body>> {
        match timeout(self.deadline, operation).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                tracing::error!("a store operation failed: {error}");
                let status = match error.is_refusal() {
                    true => StatusCode::UNPROCESSABLE_ENTITY,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                Err(problem(status, &error.to_string()))
            }
            Err(_) => {
                let what = "the store does not respond in time";
                tracing::error!("{what}");
                Err(problem(StatusCode::SERVICE_UNAVAILABLE, what))
            }
        }
    }
}

fn changed(changed: Changed) -> Response<Body> {
    match changed {
        Changed::Done => StatusCode::NO_CONTENT.into_response(),
        Changed::Missing => StatusCode::NOT_FOUND.into_response(),
        Changed::Conflict(current) => found(StatusCode::CONFLICT, current),
    }
}

fn found(status: StatusCode, Stored { data, expires, touched }: Stored) -> Response<Body> {
    let stored = json!({ "data": data, "expires": expires, "touched": touched });
    (status, [(CONTENT_TYPE, "application/json")], stored.to_string()).into_response()
}
