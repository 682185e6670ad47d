//! Guards: access rules for paths, checked before a request is forwarded.

use axum::body::Body;
use edge_session::Session;
use edge_session_headers::dashed;
use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, HeaderValue, LOCATION, ORIGIN,
    VARY,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::path::{PlainPath, RulePath, path_of, return_path};
use super::refusal::Refusal;

/// Escapes a return path in a query, except unreserved characters.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An access rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    /// The rule applies to these paths and all below them,
    pub(crate) paths: Vec<RulePath>,
    /// except these and all below them, in exactly this spelling.
    pub(crate) except: Vec<PlainPath>,
    /// Whether the application answers CORS preflights itself.
    pub(crate) preflights: bool,
    pub(crate) rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    /// Refuse everyone.
    Deny,
    /// Require a value in the session.
    Require {
        /// A JSON pointer (RFC 6901) into the session's data.
        pointer: String,
        /// The required value, if not any.
        equals: Option<Value>,
        /// Where visitors log in: a path on this host.
        login: Option<String>,
    },
}

/// Returns the JSON pointers to the logged-in user: the identity, else the values that guards
/// require to exist. A guard that requires a certain value checks a permission, not an identity.
pub(crate) fn identities(guards: &[Guard], identity: Option<&str>) -> Vec<String> {
    let pointers = guards.iter().filter_map(|guard| match &guard.rule {
        Rule::Require { pointer, equals: None, .. } => Some(pointer.clone()),
        _ => None,
    });
    identity.map_or_else(|| pointers.collect(), |identity| vec![identity.to_owned()])
}

impl Guard {
    /// Returns whether it requires a value in the session.
    pub(crate) fn wants_session(&self) -> bool {
        matches!(self.rule, Rule::Require { .. })
    }

    /// Returns where visitors log in, if it leads them there.
    pub(crate) fn login(&self) -> Option<&str> {
        match &self.rule {
            Rule::Require { login, .. } => login.as_deref(),
            Rule::Deny => None,
        }
    }
}

/// The guards' decision about a request.
pub(crate) enum Verdict {
    Pass,
    /// The request passes as a CORS preflight: see [`only_cors`].
    Preflight,
    Refused(Response<Body>),
}

/// Decides whether a request may pass: the first guard that refuses it decides. `identity` contains the JSON pointers to the logged-in user.
pub(crate) fn check(
    guards: &[Guard],
    identity: &[String],
    path: &RulePath,
    session: Option<&Session>,
    request: &Request<Body>,
) -> Verdict {
    let mut verdict = Verdict::Pass;
    let plain = PlainPath::parse(request.uri().path());
    let is_excepted = |guard: &Guard| {
        let plain = plain.as_ref();
        plain.is_some_and(|plain| guard.except.iter().any(|it| plain.is_below(it)))
    };
    let concerned = guards.iter().filter(|guard| guard.paths.iter().any(|it| path.is_below(it)));
    for guard in concerned.filter(|guard| !is_excepted(guard)) {
        if guard.preflights && is_preflight(request) {
            verdict = Verdict::Preflight;
            continue;
        }
        match &guard.rule {
            Rule::Deny => return Verdict::Refused(Refusal::Denied.respond()),
            Rule::Require { pointer, equals, login } => {
                // The login path must be reachable without a login.
                let login_path = login.as_deref().and_then(|it| PlainPath::parse(path_of(it)));
                if plain.is_some() && plain == login_path {
                    continue;
                }
                let at = |pointer| session.and_then(|session| session.pointer(pointer));
                let is_logged_in =
                    || identity.iter().any(|it| at(it).is_some_and(|value| is_somebody(&value)));
                let passes = match (at(pointer).filter(is_somebody), equals) {
                    (Some(value), Some(wanted)) => value == *wanted,
                    (Some(_), None) => true,
                    // Another login would not help.
                    (None, _) if is_logged_in() => false,
                    (None, _) => {
                        return Verdict::Refused(match login {
                            Some(login) if is_navigation(request) => to_login(login, request),
                            _ => Refusal::LoginRequired.respond(),
                        });
                    }
                };
                if !passes {
                    return Verdict::Refused(Refusal::Denied.respond());
                }
            }
        }
    }
    verdict
}

/// Returns whether a value identifies a user, or is true. Applications write null, false or an
/// empty text if no user is logged in; 0 may be an identifier, as in passport.
fn is_somebody(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value.as_str() != Some("")
}

/// Returns whether a request is a genuine CORS preflight (Fetch, section 3.2.2): without
/// credentials, body or method override.
fn is_preflight(request: &Request<Body>) -> bool {
    const NEVER: [&str; 9] = [
        "cookie",
        "authorization",
        "content-length",
        "transfer-encoding",
        "content-type",
        "upgrade",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ];
    let headers = request.headers();
    *request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && !headers.keys().any(|name| NEVER.contains(&&*dashed(name)))
        && request.body().is_end_stream()
}

/// Reduces a response to a preflight to its CORS headers, because some applications answer any
/// method with a page.
pub(crate) fn only_cors(response: Response<Body>) -> Response<Body> {
    let (mut head, _) = response.into_parts();
    let all = std::mem::take(&mut head.headers);
    // It is no longer the application's own, if another gateway forwards its body.
    head.extensions.clear();
    for (name, value) in &all {
        let is_cors = name.as_str().starts_with("access-control-");
        if is_cors || [VARY, CACHE_CONTROL, ALLOW].contains(name) {
            head.headers.append(name, value.clone());
        }
    }
    Response::from_parts(head, Body::empty())
}

/// Returns whether a person waits for a page, so that a redirect is useful (Fetch Metadata; without
/// it, the Accept header).
pub(super) fn is_navigation(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && wants_page(request)
}

/// Returns whether a person waits for the response, also to a form. Scripts identify themselves by
/// a header or accept JSON first.
pub(super) fn wants_page(request: &Request<Body>) -> bool {
    let headers = request.headers();
    let is_script = headers
        .get("x-requested-with")
        .is_some_and(|with| with.as_bytes().eq_ignore_ascii_case(b"XMLHttpRequest"));
    match headers.get("sec-fetch-mode") {
        _ if is_script => false,
        Some(mode) => mode == "navigate",
        None => accepts(headers, &["text/html"]) && !accepts(headers, &["application/json"]),
    }
}

/// Returns whether one of these media types is accepted (RFC 9110, section 12.5.1).
pub(super) fn accepts(headers: &HeaderMap, types: &[&str]) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| {
            let weight =
                part.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("q"));
            weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|it| it <= 0.0))
        });
        !is_refused && types.iter().any(|it| it.eq_ignore_ascii_case(name))
    })
}

fn to_login(login: &str, request: &Request<Body>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = return_path(target);
    let mark = if login.contains('?') { '&' } else { '?' };
    let location = format!("{login}{mark}return={}", utf8_percent_encode(&target, QUERY_VALUE));
    redirect(StatusCode::FOUND, &location)
}

/// Returns a redirect that is not cached.
pub(crate) fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // The configured part was validated, and the rest is escaped.
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, location);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
