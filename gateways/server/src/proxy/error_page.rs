//! The form of the proxy's own error responses: an HTML page for a person, a problem (RFC 9457) for
//! a script that accepts JSON, otherwise a line of text.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use anyhow::{anyhow, bail};
use axum::body::Body;
use http::header::{
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response, StatusCode};
use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;

use super::guards::{accepts, wants_page};

const STYLE: &str = include_str!("error_page.css");

/// The page contains no script and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The placeholder for the request's identifier in the operator's pages.
const REQUEST_ID: &str = "{request-id}";

/// The maximum size of the operator's pages, in bytes. Every response contains a copy.
const LARGEST: u64 = 1 << 20;

/// The form that a client accepts.
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

/// The operator's pages, by status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ErrorPages(HashMap<u16, String>);

impl ErrorPages {
    /// Reads the files of a directory that are named after a status: `502.html`. An error says what
    /// is wrong.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        // Show the absolute path, since people may expect a relative one elsewhere.
        let directory = &std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let failed = |error| anyhow!("cannot read {}: {error}", directory.display());
        let mut pages = HashMap::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let failed = |why: &dyn Display| anyhow!("cannot read {}: {why}", path.display());
            let is_page = path.extension().is_some_and(|it| it == "html");
            let name = path.file_stem().and_then(|it| it.to_str()).filter(|it| it.len() == 3);
            let status = name.and_then(|it| it.parse::<u16>().ok());
            if let Some(status) = status.filter(|it| is_page && (400..600).contains(it)) {
                // Reading a pipe might never end.
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
            bail!("{shown} has no page called as a status is, such as 502.html");
        }
        Ok(Self(pages))
    }

    /// Fills a response with `text`, which describes the error, in the given form.
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
                    // Identifiers contain only letters, digits and `-_.`, so they need no escaping.
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
