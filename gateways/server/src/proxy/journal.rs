//! Records every request: counters, a trace and a log line.

use std::time::Instant;

use axum::body::Body;
use edge_session::{Session, SessionHasher};
use http::{Method, Request, Response};
use metrics::{Counter, Histogram, counter, histogram};

use super::X_REQUEST_ID;
use super::refusal::Refusal;
use crate::net::connections::TurnedAway;
use crate::telemetry::Asked;
use crate::telemetry::traces::{RequestSpan, Traces};

/// Records requests.
pub(crate) struct Journal {
    hasher: SessionHasher,
    traces: Option<Traces>,
    logs_requests: bool,
    /// Requests by the first digit of their response's status.
    requests: [Counter; 5],
    seconds: Histogram,
}

/// The record of one request.
pub(crate) struct RequestLog {
    began: Instant,
    pub(super) asked: Asked,
    span: Option<RequestSpan>,
    /// For the log line.
    method: Option<Method>,
}

/// The session of a response's request, for the log.
#[derive(Clone)]
pub(crate) struct RequestSession(pub(crate) Session);

impl Journal {
    pub(crate) fn new(hasher: SessionHasher, traces: Option<Traces>, logs_requests: bool) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Self {
            hasher,
            traces,
            logs_requests,
            requests: classes.map(|it| counter!("edge_session_requests_total", "status" => it)),
            seconds: histogram!("edge_session_request_seconds"),
        }
    }

    /// Opens the record of a request, which may come from a trusted proxy.
    pub(crate) fn open(&self, request: &mut Request<Body>, is_trusted: bool) -> RequestLog {
        RequestLog {
            began: Instant::now(),
            span: self.traces.as_ref().map(|traces| traces.begin(request, is_trusted)),
            asked: Asked {
                id: request.headers().get(X_REQUEST_ID).cloned(),
                uri: request.uri().clone(),
            },
            method: self.logs_requests.then(|| request.method().clone()),
        }
    }

    /// Returns whether the log needs the session.
    pub(crate) fn wants_session(&self) -> bool {
        self.logs_requests
    }

    pub(crate) fn close(&self, log: RequestLog, response: &mut Response<Body>) {
        let RequestLog { began, asked, span, method } = log;
        let took = began.elapsed();
        let status = response.status();
        if let Some(counter) = self.requests.get(usize::from(status.as_u16() / 100).wrapping_sub(1))
        {
            counter.increment(1);
        }
        self.seconds.record(took);
        if let Some(span) = span {
            span.answered(response);
        }
        let (request, path) = (asked.id(), asked.uri.path());
        // There may be thousands of requests without a place: a warning is logged, and summarized.
        if let Some(refusal) = response.extensions_mut().remove::<Refusal>()
            && !matches!(refusal, Refusal::TurnedAway(TurnedAway::Full(_)))
        {
            let (status, reason) = (status.as_u16(), refusal.reason());
            tracing::info!(status, reason, request, path, "a request was refused");
        }
        if let Some(method) = method {
            let of = response.extensions_mut().remove::<RequestSession>();
            let session = of.map(|RequestSession(session)| self.hasher.name(&session.id()));
            let session = session.as_deref().unwrap_or("-");
            let status = status.as_u16();
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tracing::info!(request, session, %method, path, status, micros, "request");
        }
        if let Some(id) = asked.id {
            response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
        }
    }
}
