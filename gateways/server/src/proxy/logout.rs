//! The path that ends the session.

use axum::body::Body;
use edge_session::Session;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};

use super::guards::{is_navigation, redirect};
use super::refusal::Refusal;
use super::target;

/// Headers by which browsers and frameworks mark prefetches.
const SPECULATIVE: [&str; 8] = [
    "sec-purpose",
    "purpose",
    "x-purpose",
    "x-moz",
    "x-sec-purpose",
    "next-router-prefetch",
    "x-middleware-prefetch",
    "hx-preloaded",
];

/// Ends the session if a person on this site requested it by a form or a link.
pub(crate) fn answer(
    request: &Request<Body>,
    session: Option<&Session>,
    then: &str,
) -> Response<Body> {
    let headers = request.headers();
    if !is_of_this_site(headers) {
        let said = |name| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or("-");
        let (origin, host) = (said(ORIGIN), said(HOST));
        tracing::info!(
            origin,
            host,
            "a logout request came from another site, or a proxy changes the Host header"
        );
        return Refusal::CrossSite.respond();
    }
    let is_wanted = match *request.method() {
        Method::POST => true,
        Method::GET => is_navigation(request) && is_for_a_page(headers),
        _ => return Refusal::LogoutMethod.respond(),
    };
    if !is_wanted || SPECULATIVE.iter().any(|name| headers.contains_key(*name)) {
        return Refusal::LogoutUnasked.respond();
    }
    if let Some(session) = session {
        session.destroy();
    }
    redirect(StatusCode::SEE_OTHER, then)
}

/// Checks Fetch Metadata, and without it the origin.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "cross-site" && site != "same-site";
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    origin.is_none_or(|origin| target::is_own_origin(origin, host))
}

/// Returns whether a request is for a whole page, not for a frame or a subresource.
fn is_for_a_page(headers: &HeaderMap) -> bool {
    const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");
    headers.get(DESTINATION).is_none_or(|destination| destination == "document")
}
