//! Sessions for applications that are `wasi:http` components: `middleware.wasm`.
//!
//! It exports a `wasi:http` handler and imports another one, the application. It adds the session
//! to the request, and stores the session before the response's headers are sent. Bodies are
//! streamed, never buffered. The rules are those of `session.wasm`, linked in; the application uses
//! the same headers as behind the reverse proxy.
//!
//! | module | its job |
//! |---|---|
//! | `options` | the options, from environment variables |
//! | `sessions` | the loop: asks the engine and performs its operations on the imported store |
//! | `change` | applies an application's answer to the session's data |
//! | `message` | reads and builds requests and responses |
//! | `log` | writes lines to stderr |
//!
//! Like `session.wasm`, it exports symbols that only a WebAssembly linker understands. In a native
//! build, only its plain modules are used, by their tests.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;
mod change;
mod log;
mod message;
mod options;
mod sessions;

use std::rc::Rc;

use edge_session_component::wit::{Change, Failure, FailureKind};
use edge_session_headers::{self as session_headers, Answer};
use http::header::{HeaderValue, SET_COOKIE};

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::http::handler;
use bindings::wasi::http::types::{ErrorCode, Request, Response};
use log::log;
use message::{Incoming, Outgoing, refusal};
use sessions::Sessions;

thread_local! {
    /// Created at an instance's first request and used for all later ones.
    static SESSIONS: Result<Rc<Sessions>, String> = Sessions::open().map(Rc::new);
}

struct Middleware;

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        answer(request.into()).await.map_or_else(|early| early, Ok)
    }
}

/// An early result: our own response, or the application's failure.
type Early = Result<Response, ErrorCode>;

async fn answer(mut request: Incoming) -> Result<Response, Early> {
    let sessions = SESSIONS.with(Clone::clone).map_err(|problems| {
        log(problems);
        Ok(refusal(500, "Sessions are not configured."))
    })?;
    session_headers::strip(&mut request.headers);
    let begun = sessions.begin(&request.facts(sessions.believes_proto())).await;
    let Some(begun) = begun.map_err(|failure| Ok(failed(&failure)))? else {
        session_headers::tell(&mut request.headers, None);
        let mut response = application(request).await?;
        session_headers::strip(&mut response.headers);
        return Ok(response.into());
    };
    let data = begun.data();
    session_headers::tell(&mut request.headers, Some((&begun.session.visit.id, &data)));
    let mut response = application(request).await?;
    let change = take(&mut response, &data);
    let is_valid = change.is_some();
    let change = change.unwrap_or_else(change::nothing);
    let outcome = sessions.finish(begun, &change).await.map_err(|failure| Ok(failed(&failure)))?;
    if !is_valid {
        return Err(Ok(refusal(502, "The application sent no valid response.")));
    }
    let headers = &mut response.headers;
    if session_headers::remove_set_cookie(headers, sessions.cookie_name()) {
        log("the application tried to set the session's cookie; it was not passed on");
    }
    let set_cookie = outcome.set_cookie.and_then(|text| HeaderValue::try_from(text).ok());
    if let Some(set_cookie) = set_cookie {
        headers.append(SET_COOKIE, set_cookie);
        if outcome.no_store {
            session_headers::keep_private(headers);
        }
    }
    Ok(response.into())
}

/// Calls the application.
async fn application(request: Incoming) -> Result<Outgoing, Early> {
    let request = Request::try_from(request).map_err(|what| {
        log(format!("a request cannot be passed to the application: {what}"));
        Ok(refusal(500, "The request could not be forwarded."))
    })?;
    handler::handle(request).await.map(Outgoing::from).map_err(Err)
}

/// Takes the requested change out of the response of the application, which received `data`. None:
/// the answer is not valid.
fn take(response: &mut Outgoing, data: &str) -> Option<Change> {
    let answer = Answer::take(&mut response.headers);
    let change = match answer {
        Ok(answer) if response.status >= 500 => {
            if !answer.is_nothing() {
                log(format!(
                    "a response with status {} does not change the session",
                    response.status
                ));
            }
            Ok(change::nothing())
        }
        answer => answer.and_then(|answer| change::of(answer, data)),
    };
    let report =
        |what: &String| log(format!("the application's session headers are not valid: {what}"));
    change.inspect_err(report).ok()
}

/// Returns the response to a request whose session failed.
fn failed(failure: &Failure) -> Response {
    // A failure of the store was logged when it occurred.
    if failure.kind != FailureKind::Unavailable {
        log(format!("a session failed: {}", failure.reason));
    }
    refusal(failure.status, &failure.message)
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(Middleware with_types_in crate::bindings);
    use super::Middleware;
}
