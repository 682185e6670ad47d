//! The applications behind the gateway: which one a request goes to, and how.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, SET_COOKIE, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Version, request};
use http_body::Body as _;
use rustix::io::Errno;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::body::{Progress, refusal_of};
use super::path::RulePath;
use super::pool::{Answer, AppAddress, Connector, Pool, SendError};
use super::refusal::Refusal;

/// How long an application that could not be reached is passed over.
const PENALTY: Duration = Duration::from_secs(2);

/// How long applications may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UpstreamTimeouts {
    pub(crate) connect: Duration,
    /// Until the header of the response is there.
    pub(crate) response: Duration,
}

/// How it is found out whether an application is well.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    /// Asked by GET; an answer below 500 is a good one. None: only requests show it.
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) interval: Duration,
}

/// A route as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteConfig {
    /// Without a port; none: every host.
    pub(crate) host: Option<String>,
    pub(crate) path: RulePath,
    /// One or more.
    pub(crate) upstreams: Vec<AppAddress>,
    /// The option that says so.
    pub(crate) key: String,
}

/// Requests of one host and below one path go to one of some applications.
struct Route {
    host: Option<String>,
    path: RulePath,
    upstreams: Vec<Arc<Upstream>>,
    next: AtomicUsize,
}

struct Upstream {
    address: AppAddress,
    /// The address, for logs.
    name: String,
    /// For requests that name no host.
    host: HeaderValue,
    pool: Pool,
    /// What the health check says.
    is_well: AtomicBool,
    /// Whether it was said that its session cookie is not passed on.
    is_told: AtomicBool,
    /// Not to be tried before this, in milliseconds since `Upstreams::start`.
    shunned_until: AtomicU64,
}

/// The application that sets cookies by this answer.
#[derive(Clone)]
pub(crate) struct AnsweredBy(Arc<Upstream>);

impl AnsweredBy {
    /// Its name, the first time that this is asked.
    pub(crate) fn untold(&self) -> Option<&str> {
        let is_told = self.0.is_told.swap(true, Ordering::Relaxed);
        (!is_told).then_some(&self.0.name)
    }
}

/// All routes, and the connections behind them.
pub(crate) struct Upstreams {
    routes: Vec<Route>,
    connector: Connector,
    timeouts: UpstreamTimeouts,
    start: Instant,
}

impl Upstreams {
    pub(crate) fn new(mut routes: Vec<RouteConfig>, timeouts: UpstreamTimeouts) -> Self {
        // The most specific one first.
        routes.sort_by_key(|route| std::cmp::Reverse((route.host.is_some(), route.path.len())));
        let routes = routes.into_iter().map(Route::new).collect();
        let connector = Connector::new(timeouts.connect);
        Self { routes, connector, timeouts, start: Instant::now() }
    }

    /// The applications for a request; none: there is no route.
    fn route(&self, host: Option<&str>, path: &RulePath) -> Option<&Route> {
        self.routes.iter().find(|route| {
            let is_host = match &route.host {
                None => true,
                Some(wanted) => host.is_some_and(|host| host.eq_ignore_ascii_case(wanted)),
            };
            is_host && path.is_below(&route.path)
        })
    }

    /// Send a request on. `host` is without its port. The time for the answer begins when the
    /// body has moved for the last time.
    pub(crate) async fn send(
        &self,
        mut head: request::Parts,
        body: Body,
        host: Option<&str>,
        path: &RulePath,
        progress: &Progress,
    ) -> Result<Response<Answer>, Refusal> {
        let route = self.route(host, path).ok_or(Refusal::NoRoute)?;
        // An escaped slash that decides who is asked has two meanings.
        if let Some(path) = path.with_names()
            && !self.route(host, &path).is_some_and(|it| std::ptr::eq(it, route))
        {
            return Err(Refusal::AmbiguousPath);
        }
        head.version = Version::HTTP_11;
        // The client would take a GET without a length for one without a body.
        if !body.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
            let length = body.size_hint().exact();
            match length {
                Some(length) => head.headers.insert(CONTENT_LENGTH, length.into()),
                None => head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
            };
        }
        let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if !is_safe || !body.is_end_stream() {
            let upstream = self.choose(route, None);
            let sent = self.try_one(&upstream, head, body, progress);
            return sent.await.map_err(|failure| failure.refusal);
        }
        // Nothing happens when it arrives twice: another one may answer it.
        let first = self.choose(route, None);
        match self.try_one(&first, head.clone(), Body::empty(), progress).await {
            Err(Failure { may_retry: true, .. }) => {
                metrics::counter!("edge_session_upstream_retries_total").increment(1);
                let second = self.choose(route, Some(&first));
                let progress = &Progress::default();
                let result = self.try_one(&second, head, Body::empty(), progress).await;
                result.map_err(|failure| failure.refusal)
            }
            result => result.map_err(|failure| failure.refusal),
        }
    }

    async fn try_one(
        &self,
        upstream: &Arc<Upstream>,
        mut head: request::Parts,
        body: Body,
        progress: &Progress,
    ) -> Result<Response<Answer>, Failure> {
        // Where it is empty, as it may be in HTTP/2, it only looks like a slash.
        let path = head.uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
        head.uri = path.unwrap_or(PathAndQuery::from_static("/")).into();
        head.headers.entry(HOST).or_insert_with(|| upstream.host.clone());
        let request = Request::from_parts(head, body);
        let sent = upstream.pool.send(&self.connector, &upstream.address, request);
        let name = &upstream.name;
        match progress.within(self.timeouts.response, sent).await {
            Some(Ok(mut response)) => {
                if response.headers().contains_key(SET_COOKIE) {
                    response.extensions_mut().insert(AnsweredBy(upstream.clone()));
                }
                Ok(response)
            }
            None => {
                let limit = self.timeouts.response;
                tracing::warn!("the application at {name} did not answer within {limit:?}");
                Err(Failure::of(Refusal::UpstreamTimeout))
            }
            Some(Err(SendError::Connect(error))) => {
                let cause = deepest(&*error);
                tracing::warn!("the application at {name} cannot be reached: {cause}");
                // That there are too many connections is not the application's fault.
                if !is_out_of_files(cause) {
                    self.shun(upstream);
                }
                Err(Failure { refusal: Refusal::UpstreamUnreachable, may_retry: true })
            }
            Some(Err(SendError::Http(error))) => {
                // The visitor's doing, not the application's.
                if let Some(refusal) = refusal_of(&error) {
                    return Err(Failure::of(refusal));
                }
                let cause = deepest(&error);
                tracing::warn!("the application at {name} gave no valid answer: {cause}");
                let is_gone = error.is_incomplete_message()
                    || error.is_canceled()
                    || error.is_closed()
                    || cause.downcast_ref::<io::Error>().is_some();
                Err(Failure { refusal: Refusal::UpstreamFailed, may_retry: is_gone })
            }
        }
    }

    /// The next one in turn that seems to be well; if none does, the next one, other than
    /// `not` if there is another.
    fn choose(&self, route: &Route, not: Option<&Arc<Upstream>>) -> Arc<Upstream> {
        let all = &route.upstreams;
        if let [only] = &all[..] {
            return only.clone();
        }
        let now = self.start.elapsed().as_millis() as u64;
        let first = route.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..all.len()).map(|at| &all[first.wrapping_add(at) % all.len()]);
        let is_other = |it: &&Arc<Upstream>| not.is_none_or(|not| !Arc::ptr_eq(not, it));
        let seems_well = |it: &&Arc<Upstream>| {
            it.is_well.load(Ordering::Relaxed) && it.shunned_until.load(Ordering::Relaxed) <= now
        };
        let best = in_turn().filter(is_other).find(seems_well);
        best.or_else(|| in_turn().find(is_other)).unwrap_or(&all[0]).clone()
    }

    fn shun(&self, upstream: &Upstream) {
        let until = (self.start.elapsed() + PENALTY).as_millis() as u64;
        upstream.shunned_until.store(until, Ordering::Relaxed);
    }

    /// Ask all applications again and again how they are, and close connections that are not
    /// used. Never ends.
    pub(crate) async fn watch(&self, health: &Health) {
        let check = async {
            if let Some(path) = &health.path {
                self.check(path, health.interval).await;
            }
        };
        let close = async {
            let mut ticks = ticks(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                self.all().for_each(|upstream| upstream.pool.close_idle());
            }
        };
        tokio::join!(check, close);
    }

    async fn check(&self, path: &PathAndQuery, interval: Duration) {
        let mut ticks = ticks(interval);
        loop {
            ticks.tick().await;
            for upstream in self.all() {
                let is_well = self.is_well(upstream, path, interval).await;
                let was_well = upstream.is_well.swap(is_well, Ordering::Relaxed);
                let name = &upstream.name;
                match (was_well, is_well) {
                    (true, false) => tracing::warn!("the application at {name} is not well"),
                    (false, true) => {
                        tracing::info!("the application at {name} is well again");
                        upstream.shunned_until.store(0, Ordering::Relaxed);
                    }
                    _ => {}
                }
                metrics::gauge!("edge_session_upstream_up", "upstream" => name.clone())
                    .set(f64::from(u8::from(is_well)));
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.routes.iter().flat_map(|route| &route.upstreams)
    }

    async fn is_well(&self, upstream: &Upstream, path: &PathAndQuery, limit: Duration) -> bool {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.clone().into();
        request.headers_mut().insert(HOST, upstream.host.clone());
        edge_session_headers::tell(request.headers_mut(), None);
        let sent = upstream.pool.send(&self.connector, &upstream.address, request);
        let answer = timeout(limit, sent).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|it| !it.status().is_server_error()))
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Route {
    fn new(config: RouteConfig) -> Self {
        let upstream = |address: AppAddress| {
            let host = match &address {
                AppAddress::Url(uri) => HeaderValue::from_str(uri.authority()?.as_str()).ok()?,
                AppAddress::Unix(_) => HeaderValue::from_static("localhost"),
            };
            Some(Arc::new(Upstream {
                name: address.to_string(),
                address,
                host,
                pool: Pool::default(),
                is_well: AtomicBool::new(true),
                is_told: AtomicBool::new(false),
                shunned_until: AtomicU64::new(0),
            }))
        };
        Self {
            host: config.host,
            path: config.path,
            upstreams: config.upstreams.into_iter().filter_map(upstream).collect(),
            next: AtomicUsize::new(0),
        }
    }
}

struct Failure {
    refusal: Refusal,
    /// The application has not begun to answer.
    may_retry: bool,
}

impl Failure {
    fn of(refusal: Refusal) -> Self {
        Self { refusal, may_retry: false }
    }
}

/// Whether this process has as many files open as it may.
fn is_out_of_files(cause: &(dyn std::error::Error + 'static)) -> bool {
    let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    code.is_some_and(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
}

fn deepest<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
