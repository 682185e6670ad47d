//! A request: the loop that every gateway runs, in the steps of proxy-wasm.
//!
//! The gateway calls this at the request's headers, at the answer to each store operation, and at
//! the response's headers. Where an operation is needed, the request or the response waits.

use std::mem::replace;
use std::rc::Rc;

use edge_session_component::wit::{
    Beginning, Change, Failure, Obstacle, Outcome, Plan, Request, Session, Stored, Visit as Decided,
};
use edge_session_headers::{self as session_headers, Answer};
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

use crate::host::Host;
use crate::settings::Settings;
use crate::store::{self, Call};
use crate::{change, log};

/// The limit of the rules for all Cookie headers together. One byte more is copied, to show that
/// the limit is exceeded.
const COOKIES: usize = 16 * 1024;

/// A request.
pub(crate) struct Visit {
    settings: Rc<Settings>,
    at: At,
}

/// How far a request has come.
enum At {
    /// Before its headers, or after it was answered.
    Nowhere,
    /// Its session is being loaded.
    Loading(Decided),
    /// The application runs.
    Application(Begun),
    /// The path has no session; the application runs.
    Sessionless,
    /// A change is being stored.
    Storing(Box<Job>),
}

/// A session for the application, with what the store has returned for it.
struct Begun {
    session: Session,
    stored: Option<Stored>,
}

impl Begun {
    /// Returns the session's data.
    fn data(&self) -> String {
        let stored = self.stored.as_ref().map(|it| &*it.data);
        session_headers::data(self.session.text.as_deref().or(stored).unwrap_or("{}"))
    }
}

/// A change on its way to the store.
struct Job {
    plan: Plan,
    /// The next write of the plan.
    next: usize,
    stored: Option<Stored>,
    seen: Option<Stored>,
    change: Change,
    is_valid: bool,
    /// Whether the application was told any data, so that its response may depend on it.
    has_data: bool,
}

/// What comes next.
enum Next {
    /// The answer to a store operation.
    Wait,
    /// The request goes to the application, or the response to the visitor.
    Proceed,
    /// The gateway has answered the visitor.
    Answered,
}

impl Visit {
    pub(crate) fn new(settings: Rc<Settings>) -> Self {
        Self { settings, at: At::Nowhere }
    }

    /// Goes on until there is something to wait for, or the session is there.
    fn begin(&mut self, mut beginning: Beginning, mut stored: Option<Stored>) -> Next {
        loop {
            beginning = match beginning {
                Beginning::None => {
                    self.at = At::Sessionless;
                    self.tell(None);
                    return Next::Proceed;
                }
                Beginning::Ready(session) => {
                    let begun = Begun { session, stored };
                    let data = begun.data();
                    self.tell(Some((&begun.session.visit.id, &data)));
                    self.at = At::Application(begun);
                    return Next::Proceed;
                }
                Beginning::Load(visit) => match self.call(&Call::load(&visit.id)) {
                    Ok(()) => {
                        self.at = At::Loading(visit);
                        return Next::Wait;
                    }
                    Err(why) => {
                        stored = None;
                        match self.settings.engine.loaded(&Host, visit, Err(report(why))) {
                            Ok(beginning) => beginning,
                            Err(failure) => return self.fail(&failure),
                        }
                    }
                },
            };
        }
    }

    /// Takes the answer to a load.
    fn loaded(&mut self, visit: Decided, answer: store::Answer) -> Next {
        let loaded = store::loaded(answer).map_err(report);
        let stored = loaded.clone().unwrap_or_default();
        let loaded = loaded.as_ref().map(Option::as_ref).map_err(Clone::clone);
        match self.settings.engine.loaded(&Host, visit, loaded) {
            Ok(beginning) => self.begin(beginning, stored),
            Err(failure) => self.fail(&failure),
        }
    }

    /// Stores the application's change.
    fn finish(&mut self, begun: Begun, change: Option<Change>) -> Next {
        let has_data = begun.data() != "{}";
        let Begun { session, stored } = begun;
        let is_valid = change.is_some();
        let change = change.unwrap_or_else(change::nothing);
        let plan = self.settings.engine.finish(&Host, session.visit, stored.as_ref(), &change);
        match plan {
            Ok(plan) => {
                let seen = stored.clone();
                self.perform(Box::new(Job {
                    plan,
                    next: 0,
                    stored,
                    seen,
                    change,
                    is_valid,
                    has_data,
                }))
            }
            Err(failure) => self.fail(&failure),
        }
    }

    /// Performs the plan's next write, or ends.
    fn perform(&mut self, mut job: Box<Job>) -> Next {
        loop {
            let Some(write) = job.plan.writes.get(job.next) else { return self.end(*job) };
            match self.call(&Call::of(write, job.seen.as_ref())) {
                Ok(()) => {
                    self.at = At::Storing(job);
                    return Next::Wait;
                }
                Err(why) => match self.resume(job, Obstacle::Unavailable(report(why))) {
                    Ok(again) => job = again,
                    Err(failure) => return self.fail(&failure),
                },
            }
        }
    }

    /// Takes the answer to a write.
    fn written(&mut self, mut job: Box<Job>, answer: store::Answer) -> Next {
        let write = &job.plan.writes[job.next];
        match store::written(&write.operation, answer) {
            Ok(()) => job.next += 1,
            Err(obstacle) => {
                if let Obstacle::Unavailable(why) = &obstacle {
                    report(why.clone());
                }
                match self.resume(job, obstacle) {
                    Ok(again) => job = again,
                    Err(failure) => return self.fail(&failure),
                }
            }
        }
        self.perform(job)
    }

    /// Decides again after an obstacle.
    fn resume(&self, mut job: Box<Job>, obstacle: Obstacle) -> Result<Box<Job>, Failure> {
        if let Obstacle::Conflict(current) = &obstacle {
            job.seen = Some(current.clone());
        }
        let Job { plan, next, stored, seen, change, is_valid, has_data } = *job;
        let engine = &self.settings.engine;
        let plan = engine.resume(&Host, plan.visit, stored.as_ref(), &change, next, obstacle)?;
        Ok(Box::new(Job { plan, next: 0, stored, seen, change, is_valid, has_data }))
    }

    /// The change is stored: the response may leave, with its cookie.
    fn end(&mut self, job: Job) -> Next {
        self.at = At::Nowhere;
        if !job.is_valid {
            return self.answer(502, "The application sent no valid response.");
        }
        let Outcome { set_cookie, no_store, .. } = job.plan.outcome;
        let old = self.response();
        let mut new = old.clone();
        if job.has_data {
            session_headers::vary_by_cookie(&mut new);
        }
        if session_headers::remove_set_cookie(&mut new, &self.settings.cookie_name) {
            let text = "the application tried to set the session's cookie; it was not passed on";
            log(LogLevel::Warn, text);
        }
        if let Some(cookie) = set_cookie.and_then(|text| HeaderValue::try_from(text).ok()) {
            new.append(SET_COOKIE, cookie);
            if no_store {
                session_headers::keep_private(&mut new);
            }
        }
        self.change_response(&old, &new);
        Next::Proceed
    }

    /// Answers the visitor in place of the application.
    fn fail(&mut self, failure: &Failure) -> Next {
        log(LogLevel::Error, &format!("a session failed: {}", failure.reason));
        self.answer(failure.status, &failure.message)
    }

    fn answer(&mut self, status: u16, text: &str) -> Next {
        self.at = At::Nowhere;
        let headers =
            vec![("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")];
        self.send_http_response(status.into(), headers, Some(format!("{text}\n").as_bytes()));
        Next::Answered
    }

    /// Sends a store operation. The error says why it cannot be sent.
    fn call(&self, call: &Call) -> Result<(), String> {
        let service = &self.settings.service;
        let token = format!("Bearer {}", service.token);
        let headers = vec![
            (":method", "POST"),
            (":path", call.path),
            (":authority", "edge-session"),
            ("authorization", &token),
            ("content-type", "application/json"),
        ];
        let body = Some(call.body.as_bytes());
        let sent =
            self.dispatch_http_call(&service.cluster, headers, body, vec![], service.timeout());
        let refused = |status| {
            format!("the gateway sends nothing to the cluster in `service.cluster`: {status:?}")
        };
        sent.map(drop).map_err(refused)
    }

    /// Sets the application's session headers, in place of all that a visitor has sent.
    fn tell(&self, session: Option<(&str, &str)>) {
        let old = request_headers(self);
        let mut new = old.clone();
        session_headers::strip(&mut new);
        session_headers::tell(&mut new, session);
        differences(
            &old,
            &new,
            |name| self.set_http_request_header_bytes(name, None),
            |name, value| self.add_http_request_header_bytes(name, value),
        );
    }

    fn response(&self) -> HeaderMap {
        map(self.get_http_response_headers_bytes())
    }

    fn change_response(&self, old: &HeaderMap, new: &HeaderMap) {
        differences(
            old,
            new,
            |name| self.set_http_response_header_bytes(name, None),
            |name, value| self.add_http_response_header_bytes(name, value),
        );
    }

    /// Takes the requested change out of the application's response; none: it is not valid.
    fn take(&self, data: &str) -> Option<Change> {
        let old = self.response();
        let mut new = old.clone();
        let answer = Answer::take(&mut new);
        self.change_response(&old, &new);
        let status = self.get_http_response_header(":status");
        let failed = status.is_some_and(|status| status.starts_with('5'));
        let change = match answer {
            Ok(answer) if failed => {
                if !answer.is_nothing() {
                    let text = "a response with status 500 or above does not change the session";
                    log(LogLevel::Warn, text);
                }
                Ok(change::nothing())
            }
            answer => answer.and_then(|answer| change::of(answer, data)),
        };
        let report = |what: &String| {
            log(
                LogLevel::Warn,
                &format!("the application's session headers are not valid: {what}"),
            );
        };
        change.inspect_err(report).ok()
    }
}

fn request_headers(visit: &Visit) -> HeaderMap {
    map(visit.get_http_request_headers_bytes())
}

/// Returns headers without the pseudo-headers. What is no header for the crate http is dropped: the
/// gateway has checked all.
fn map(pairs: Vec<(String, proxy_wasm::types::Bytes)>) -> HeaderMap {
    let pairs = pairs.into_iter().filter(|(name, _)| !name.starts_with(':'));
    let pairs = pairs.filter_map(|(name, value)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_slice()).ok()?))
    });
    pairs.collect()
}

/// Turns headers into others: removes names whose values differ, and adds their values again.
fn differences(old: &HeaderMap, new: &HeaderMap, remove: impl Fn(&str), add: impl Fn(&str, &[u8])) {
    let is_same = |name: &HeaderName| old.get_all(name).iter().eq(new.get_all(name));
    for name in old.keys().filter(|name| !is_same(name)) {
        remove(name.as_str());
    }
    for name in new.keys().filter(|name| !is_same(name)) {
        for value in new.get_all(name) {
            add(name.as_str(), value.as_bytes());
        }
    }
}

/// Logs why the store failed, and returns the reason.
fn report(why: String) -> String {
    log(LogLevel::Error, &format!("the store failed: {why}"));
    why
}

impl Context for Visit {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        let status = status.and_then(|status| status.parse().ok()).filter(|_| headers > 0);
        let body = self.get_http_call_response_body(0, body);
        let body = body.map(|body| body.as_slice().to_vec()).unwrap_or_default();
        let answer = status.map(|status| (status, body));
        match replace(&mut self.at, At::Nowhere) {
            At::Loading(visit) => {
                if let Next::Proceed = self.loaded(visit, answer) {
                    self.resume_http_request();
                }
            }
            At::Storing(job) => {
                if let Next::Proceed = self.written(job, answer) {
                    self.resume_http_response();
                }
            }
            at => self.at = at,
        }
    }
}

impl HttpContext for Visit {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let headers = request_headers(self);
        let mut cookies = session_headers::cookies(&headers);
        cookies.truncate(COOKIES + 1);
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let proto = headers.get("x-forwarded-proto").map(|value| value.as_bytes().to_vec());
        let request = Request {
            cookies,
            path: path.split(['?', '#']).next().unwrap_or_default().to_owned(),
            tls: false,
            // The gateway says so, if it is told to be believed.
            secure: false,
            forwarded_proto: proto.filter(|_| self.settings.believes_proto),
        };
        let beginning = self.settings.engine.begin(&Host, &request);
        action(&self.begin(beginning, None))
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        match replace(&mut self.at, At::Nowhere) {
            At::Application(begun) => {
                let change = self.take(&begun.data());
                action(&self.finish(begun, change))
            }
            // The visitor was answered by the gateway itself, or there is no session.
            _ => {
                let old = self.response();
                let mut new = old.clone();
                if session_headers::strip(&mut new) {
                    self.change_response(&old, &new);
                }
                Action::Continue
            }
        }
    }
}

fn action(next: &Next) -> Action {
    match next {
        Next::Proceed => Action::Continue,
        Next::Wait | Next::Answered => Action::Pause,
    }
}
