//! The proxy's own error responses.

use axum::body::Body;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::net::connections::TurnedAway;

/// Why a request was not or could not be answered by an application.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// It violates the HTTP standards.
    BadRequest(&'static str),
    /// Its path is ambiguous.
    AmbiguousPath,
    /// TRACE or CONNECT.
    Method,
    Denied,
    LoginRequired,
    /// A logout that another site initiated.
    CrossSite,
    /// A logout by a method that must not log out.
    LogoutMethod,
    /// A logout that no user requested: a prefetch or a subresource.
    LogoutUnasked,
    NoRoute,
    /// It has passed this gateway repeatedly.
    Loop,
    RequestTimeout,
    BodyTooLarge,
    /// The application's server does not accept a header of this size, which includes the session.
    HeaderTooLarge,
    /// The application responded with invalid session headers.
    BadSessionHeaders,
    UpstreamUnreachable,
    UpstreamFailed,
    UpstreamTimeout,
    TurnedAway(TurnedAway),
}

impl Refusal {
    /// Returns the reason for logs and counters.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::AmbiguousPath => "ambiguous-path",
            Self::Method => "method",
            Self::Denied => "denied",
            Self::LoginRequired => "login-required",
            Self::CrossSite => "cross-site",
            Self::LogoutMethod => "logout-method",
            Self::LogoutUnasked => "logout-unasked",
            Self::NoRoute => "no-route",
            Self::Loop => "loop",
            Self::RequestTimeout => "request-timeout",
            Self::BodyTooLarge => "body-too-large",
            Self::HeaderTooLarge => "header-too-large",
            Self::BadSessionHeaders => "bad-session-headers",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::TurnedAway(why) => why.reason(),
        }
    }

    fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(what) => (StatusCode::BAD_REQUEST, what),
            Self::AmbiguousPath => {
                (StatusCode::BAD_REQUEST, "The path can be read in more than one way.")
            }
            Self::Method | Self::LogoutMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "This method is not allowed.")
            }
            Self::Denied => (StatusCode::FORBIDDEN, "You may not see this."),
            Self::LoginRequired => (StatusCode::UNAUTHORIZED, "Please log in."),
            Self::CrossSite => (StatusCode::FORBIDDEN, "This request came from another site."),
            Self::LogoutUnasked => {
                (StatusCode::FORBIDDEN, "Nobody has asked for this logout by a form or a link.")
            }
            Self::NoRoute => (StatusCode::NOT_FOUND, "There is nothing here."),
            Self::Loop => (
                StatusCode::LOOP_DETECTED,
                "The request came here again and again: an application's address leads back to a gateway.",
            ),
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive.")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The request is too large."),
            Self::HeaderTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The application takes no request with so large a header.",
            ),
            Self::BadSessionHeaders | Self::UpstreamFailed => {
                (StatusCode::BAD_GATEWAY, "The application gave no valid answer.")
            }
            Self::UpstreamUnreachable => {
                (StatusCode::BAD_GATEWAY, "The application cannot be reached.")
            }
            Self::UpstreamTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "The application did not answer in time.")
            }
            Self::TurnedAway(why) => why.status_and_text(),
        }
    }

    pub(crate) fn text(self) -> &'static str {
        self.status_and_text().1
    }

    /// Returns the response, and counts it.
    pub(crate) fn respond(self) -> Response<Body> {
        metrics::counter!("edge_session_refused_total", "reason" => self.reason()).increment(1);
        let (status, text) = self.status_and_text();
        let mut response = Response::new(Body::from(format!("{text}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let allowed = match self {
            Self::Method => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            Self::LogoutMethod => Some("GET, POST"),
            _ => None,
        };
        if let Some(allowed) = allowed {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response.extensions_mut().insert(self);
        response
    }
}
