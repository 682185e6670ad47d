//! What a visitor sees of an answer that the gateway gives itself: a page where a person waits for
//! one, a problem (RFC 9457) where a script asks for JSON, else a line of text.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use axum::body::Body;
use http::header::{
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response, StatusCode};
use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;

use super::guards::{accepts, wants_page};

const STYLE: &str = include_str!("error_page.css");

/// The page has no script, and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// In a page of one's own, what stands for the request's identifier.
const REQUEST_ID: &str = "{request-id}";

/// The largest page of one's own, in bytes. Every answer has a copy.
const LARGEST: u64 = 1 << 20;

/// How somebody wants to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Page,
    Problem,
    Text,
}

impl Form {
    pub(crate) fn of(request: &Request<Body>) -> Self {
        if wants_page(request) {
            return Self::Page;
        }
        match accepts(request.headers(), &["application/json", "application/problem+json"]) {
            true => Self::Problem,
            false => Self::Text,
        }
    }
}

/// Pages of the operator's own, by their statuses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ErrorPages(HashMap<u16, String>);

impl ErrorPages {
    /// The files of a directory that are called as a status is: `502.html`. An error says what is
    /// wrong.
    pub(crate) fn read(directory: &Path) -> Result<Self, String> {
        // People look for what is relative in other places.
        let directory = &std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let failed = |error| format!("cannot read {}: {error}", directory.display());
        let mut pages = HashMap::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let failed = |why: &dyn Display| format!("cannot read {}: {why}", path.display());
            let is_page = path.extension().is_some_and(|it| it == "html");
            let name = path.file_stem().and_then(|it| it.to_str()).filter(|it| it.len() == 3);
            let status = name.and_then(|it| it.parse::<u16>().ok());
            if let Some(status) = status.filter(|it| is_page && (400..600).contains(it)) {
                // Of a pipe there might never be an end.
                match std::fs::metadata(&path).map_err(|error| failed(&error))? {
                    it if !it.is_file() => return Err(failed(&"it is no file")),
                    it if it.len() > LARGEST => {
                        return Err(failed(&format_args!("it has more than {LARGEST} bytes")));
                    }
                    _ => {}
                }
                let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
                pages.insert(status, text);
            }
        }
        if pages.is_empty() {
            let shown = directory.display();
            return Err(format!("{shown} has no page called as a status is, such as 502.html"));
        }
        Ok(Self(pages))
    }

    /// Put `text`, which says what is wrong, into the form that is wanted.
    pub(crate) fn fill(
        &self,
        form: Form,
        text: &str,
        request_id: &str,
        response: &mut Response<Body>,
    ) {
        let status = response.status();
        let (body, kind) = match form {
            Form::Text => return,
            Form::Problem => {
                let problem = json!({
                    "type": "about:blank",
                    "title": status.canonical_reason(),
                    "status": status.as_u16(),
                    "detail": text,
                    "request_id": request_id,
                });
                (problem.to_string() + "\n", "application/problem+json")
            }
            Form::Page => {
                let own = self.0.get(&status.as_u16());
                let page = match own {
                    // An identifier has letters, digits and `-_.` only.
                    Some(page) => page.replace(REQUEST_ID, request_id),
                    None => page(status, text, request_id),
                };
                (page, "text/html; charset=utf-8")
            }
        };
        let is_own = form == Form::Page && self.0.contains_key(&status.as_u16());
        *response.body_mut() = Body::from(body);
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if form == Form::Page && !is_own {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        }
    }
}

fn page(status: StatusCode, text: &str, request_id: &str) -> String {
    let title = status.canonical_reason().unwrap_or("Error");
    let may_pass = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    p.status { (status.as_u16()) }
                    h1 { (title) }
                    p { (text) }
                    p.actions {
                        @if may_pass { a.button href="" { "Try again" } }
                        a href="/" { "Start page" }
                    }
                    p.id { "If you tell somebody about this, say the number of your request: " code { (request_id) } }
                }
            }
        }
    };
    page.into_string()
}
