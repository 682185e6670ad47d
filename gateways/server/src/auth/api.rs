//! The session API: an application behind a gateway that asks reads and changes its session.
//!
//! The application passes on the visitor's Cookie, and relays the Set-Cookie of the response.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, to_bytes};
use axum::response::IntoResponse as _;
use edge_session::{Origin, Refused, Session, SessionLayer, SessionService};
use edge_session_headers::{Action, Answer, Change};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use serde_json::json;
use tower_layer::Layer as _;
use tower_service::Service;

use super::{X_FORWARDED_PROTO, X_FORWARDED_URI, single};
use crate::net::query;
use crate::proxy::apply;

const ID: HeaderName = HeaderName::from_static("edge-session-id");

/// The maximum size of a request's body, in bytes; a session is limited by `max_session_bytes`.
const BODY_BYTES: usize = 4 << 20;

/// The session API.
pub(super) struct Api {
    sessions: SessionService<Sessions>,
    cookie_path: Uri,
    is_shared: bool,
}

/// What a request does with the session.
#[derive(Clone)]
enum Operation {
    Read,
    Change(Arc<Answer>),
    Renew,
}

impl Api {
    pub(super) fn new(
        layer: &SessionLayer,
        cookie_path: String,
        is_shared: bool,
        renewed_for: Vec<String>,
    ) -> Self {
        let layer = if is_shared { layer.clone().read_only() } else { layer.clone() };
        let sessions = layer.layer(Sessions { renewed_for: renewed_for.into() });
        let cookie_path = Uri::try_from(cookie_path).unwrap_or_else(|_| Uri::from_static("/"));
        Self { sessions, cookie_path, is_shared }
    }

    /// Performs an operation; the caller has checked the token.
    pub(super) async fn respond(&self, request: Request<Body>) -> Response<Body> {
        let result = self.try_respond(request).await;
        let mut response = result.unwrap_or_else(|problem| problem);
        match response.extensions_mut().remove::<Refused>() {
            Some(Refused { is_invalid: true, .. }) => {
                let what = "the change cannot be stored: a key is not allowed, or the session would \
                            exceed max_session_bytes; the log says which";
                response = problem(StatusCode::UNPROCESSABLE_ENTITY, what);
            }
            Some(Refused { text, .. }) => response = problem(response.status(), &text),
            None => {}
        }
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        response
    }

    /// The error is the response, too.
    async fn try_respond(&self, request: Request<Body>) -> Result<Response<Body>, Response<Body>> {
        let (head, body) = request.into_parts();
        let bad = |what: String| problem(StatusCode::BAD_REQUEST, &what);
        let operation = operation(&head.method, head.uri.path(), &head.headers, body).await?;
        if self.is_shared && !matches!(operation, Operation::Read) {
            let what = "the application owns the sessions (gateway.sessions): change them there";
            return Err(problem(StatusCode::CONFLICT, what));
        }
        let path = match single(&head.headers, &X_FORWARDED_URI).map_err(bad)? {
            Some(path) => {
                let path = query::parse(path.as_bytes());
                path.ok_or_else(|| bad("X-Forwarded-Uri is not a path".to_owned()))?
            }
            None => self.cookie_path.clone(),
        };
        let mut request = Request::new(());
        *request.uri_mut() = path;
        request.extensions_mut().insert(operation);
        for name in [COOKIE, X_FORWARDED_PROTO] {
            for value in head.headers.get_all(&name) {
                request.headers_mut().append(&name, value.clone());
            }
        }
        let Ok(response) = self.sessions.clone().call(request).await;
        Ok(response)
    }
}

/// Reads what a request asks for. The error is the response.
async fn operation(
    method: &Method,
    path: &str,
    headers: &http::HeaderMap,
    body: Body,
) -> Result<Operation, Response<Body>> {
    let change = |change, action| Operation::Change(Arc::new(Answer { change, action }));
    let bad = |what: &str| problem(StatusCode::BAD_REQUEST, what);
    let allowed = match (path, method.as_str()) {
        ("/session", "GET" | "HEAD") => return Ok(Operation::Read),
        ("/session", "DELETE") => return Ok(change(Change::Nothing, Action::Destroy)),
        ("/session", "PUT") => {
            let text = json_body(headers, &["application/json"], body).await?;
            return match serde_json::from_str::<serde_json::Map<_, _>>(&text) {
                Ok(_) => Ok(change(Change::Whole(text), Action::Keep)),
                Err(_) => Err(bad("the body is not a JSON object")),
            };
        }
        ("/session", "PATCH") => {
            let types = ["application/merge-patch+json", "application/json"];
            let text = json_body(headers, &types, body).await?;
            return match serde_json::from_str(&text) {
                Ok(patch) => Ok(change(Change::Merge(patch), Action::Keep)),
                Err(_) => Err(bad("the body is not a JSON object")),
            };
        }
        ("/session/renew", "POST") => return Ok(Operation::Renew),
        ("/session/regenerate", "POST") => return Ok(change(Change::Nothing, Action::Regenerate)),
        ("/session", _) => "GET, HEAD, PUT, PATCH, DELETE",
        ("/session/renew" | "/session/regenerate", _) => "POST",
        _ => {
            let what = "there are /session, /session/renew and /session/regenerate";
            return Err(problem(StatusCode::NOT_FOUND, what));
        }
    };
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Err(response)
}

pub(super) async fn json_body(
    headers: &http::HeaderMap,
    types: &[&str],
    body: Body,
) -> Result<String, Response<Body>> {
    let given = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if !types.iter().any(|it| it.eq_ignore_ascii_case(given)) {
        let what = format!("send Content-Type: {}", types.join(" or "));
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &what));
    }
    let Ok(bytes) = to_bytes(body, BODY_BYTES).await else {
        let what = format!("the body is incomplete, or larger than {BODY_BYTES} bytes");
        return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, &what));
    };
    String::from_utf8(bytes.into())
        .map_err(|_| problem(StatusCode::BAD_REQUEST, "the body is not UTF-8"))
}

/// Returns a problem (RFC 9457).
pub(super) fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let kind = [(CONTENT_TYPE, "application/problem+json")];
    (status, kind, format!("{problem}\n")).into_response()
}

/// Performs the operations, inside of the session layer.
#[derive(Clone)]
struct Sessions {
    renewed_for: Arc<[String]>,
}

impl Service<Request<()>> for Sessions {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let extensions = request.extensions_mut();
        let response = match (extensions.remove(), extensions.remove()) {
            (Some(session), Some(operation)) => self.perform(&session, operation),
            // Nothing is there to read, and nothing to change.
            (None, Some(Operation::Read)) => read("{}".to_owned()),
            _ => {
                let what = "X-Forwarded-Uri is outside of cookie.path, so there is no session";
                problem(StatusCode::CONFLICT, what)
            }
        };
        Box::pin(ready(Ok(response)))
    }
}

impl Sessions {
    fn perform(&self, session: &Session, operation: Operation) -> Response<Body> {
        match operation {
            Operation::Read => {
                let mut response = read(session.to_json());
                let id = HeaderValue::try_from(session.id());
                if let (Origin::Loaded, Ok(id)) = (session.origin(), id) {
                    response.headers_mut().insert(ID, id);
                }
                return response;
            }
            Operation::Renew => session.renew(),
            Operation::Change(answer) => {
                let answer = Arc::unwrap_or_clone(answer);
                if let Err(what) = apply(answer, session, &self.renewed_for) {
                    return problem(StatusCode::CONFLICT, what);
                }
            }
        }
        StatusCode::NO_CONTENT.into_response()
    }
}

fn read(data: String) -> Response<Body> {
    ([(CONTENT_TYPE, "application/json")], data).into_response()
}
