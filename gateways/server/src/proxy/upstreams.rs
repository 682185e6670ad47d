//! The applications behind the proxy: chooses one for a request and sends the request to it.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, SET_COOKIE, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use rustix::io::Errno;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::body::{Progress, refusal_of};
use super::path::RulePath;
use super::pool::{Answer, AppAddress, Connector, Pool, SendError};
use super::refusal::Refusal;

/// How long an unreachable application is skipped.
const PENALTY: Duration = Duration::from_secs(2);

/// The time limits for applications.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UpstreamTimeouts {
    pub(crate) connect: Duration,
    /// Until the response's header has arrived.
    pub(crate) response: Duration,
}

/// How an application's health is determined.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    /// Requested by GET; a response below 500 means healthy. None: only requests determine it.
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) interval: Duration,
}

/// A configured route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteConfig {
    /// Without a port; none: every host.
    pub(crate) host: Option<String>,
    pub(crate) path: RulePath,
    /// At least one.
    pub(crate) upstreams: Vec<AppAddress>,
    /// The option that configures it.
    pub(crate) key: String,
}

/// Sends requests for one host and below one path to one of its applications.
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
    /// For requests without a host.
    host: HeaderValue,
    pool: Pool,
    /// The result of the health check.
    is_well: AtomicBool,
    /// Whether the warning about its blocked session cookie was logged.
    is_told: AtomicBool,
    /// Skipped until then, in milliseconds since `Upstreams::start`.
    shunned_until: AtomicU64,
}

/// The application that produced this response.
#[derive(Clone)]
pub(crate) struct AnsweredBy(Arc<Upstream>);

impl AnsweredBy {
    /// Returns its name at the first call only.
    pub(crate) fn untold(&self) -> Option<&str> {
        let is_told = self.0.is_told.swap(true, Ordering::Relaxed);
        (!is_told).then_some(&self.0.name)
    }
}

/// All routes and their connections.
pub(crate) struct Upstreams {
    routes: Vec<Route>,
    connector: Connector,
    timeouts: UpstreamTimeouts,
    start: Instant,
}

impl Upstreams {
    pub(crate) fn new(mut routes: Vec<RouteConfig>, timeouts: UpstreamTimeouts) -> Self {
        // The most specific route first.
        routes.sort_by_key(|route| std::cmp::Reverse((route.host.is_some(), route.path.len())));
        let routes = routes.into_iter().map(Route::new).collect();
        let connector = Connector::new(timeouts.connect);
        Self { routes, connector, timeouts, start: Instant::now() }
    }

    /// Returns the route of a request, if there is one.
    fn route(&self, host: Option<&str>, path: &RulePath) -> Option<&Route> {
        self.routes.iter().find(|route| {
            let is_host = match &route.host {
                None => true,
                Some(wanted) => host.is_some_and(|host| host.eq_ignore_ascii_case(wanted)),
            };
            is_host && path.is_below(&route.path)
        })
    }

    /// Sends a request to an application. `host` has no port. The time limit for the response
    /// begins when the body last made progress.
    pub(crate) async fn send(
        &self,
        request: &mut Request<Body>,
        host: Option<&str>,
        path: &RulePath,
        progress: &Progress,
    ) -> Result<Response<Answer>, Refusal> {
        let route = self.route(host, path).ok_or(Refusal::NoRoute)?;
        // If an escaped slash decides which route applies, the path is ambiguous.
        if let Some(path) = path.with_names()
            && !self.route(host, &path).is_some_and(|it| std::ptr::eq(it, route))
        {
            return Err(Refusal::AmbiguousPath);
        }
        *request.version_mut() = Version::HTTP_11;
        let has_body = !request.body().is_end_stream();
        // hyper's client would treat a GET without a length as one without a body.
        if has_body && !request.headers().contains_key(CONTENT_LENGTH) {
            let length = request.body().size_hint().exact();
            let headers = request.headers_mut();
            match length {
                Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
                None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
            };
        }
        // An empty path, which HTTP/2 allows, only looks like a slash.
        let path = request.uri().path_and_query().filter(|path| path.as_str() != "/").cloned();
        *request.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
        let first = self.choose(route, None);
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        // Safe to send twice: if one application fails, another one may answer.
        let again = (is_safe && !has_body).then(|| copy(request));
        match (self.try_one(&first, request, progress, true).await, again) {
            (Err(Failure { may_retry: true, refusal }), Some(mut again)) => {
                let second = self.choose(route, Some(&first));
                if refusal == Refusal::UpstreamUnreachable && Arc::ptr_eq(&first, &second) {
                    return Err(refusal);
                }
                metrics::counter!("edge_session_upstream_retries_total").increment(1);
                let progress = &Progress::default();
                // Another idle connection may have been closed, too.
                let result = Box::pin(self.try_one(&second, &mut again, progress, false)).await;
                result.map_err(|failure| failure.refusal)
            }
            (result, _) => result.map_err(|failure| failure.refusal),
        }
    }

    async fn try_one(
        &self,
        upstream: &Arc<Upstream>,
        request: &mut Request<Body>,
        progress: &Progress,
        may_reuse: bool,
    ) -> Result<Response<Answer>, Failure> {
        request.headers_mut().entry(HOST).or_insert_with(|| upstream.host.clone());
        let sent = upstream.pool.send(&self.connector, &upstream.address, request, may_reuse);
        let name = &upstream.name;
        match progress.within(self.timeouts.response, pin!(sent)).await {
            Some(Ok(mut response)) => {
                if response.headers().contains_key(SET_COOKIE) {
                    response.extensions_mut().insert(AnsweredBy(upstream.clone()));
                }
                Ok(response)
            }
            None => {
                let limit = self.timeouts.response;
                tracing::warn!("the application at {name} did not respond within {limit:?}");
                Err(Failure::of(Refusal::UpstreamTimeout))
            }
            Some(Err(SendError::Connect(error))) => {
                let cause = deepest(&*error);
                tracing::warn!("the application at {name} cannot be reached: {cause}");
                // Running out of file descriptors is not the application's fault.
                if !is_out_of_files(cause) {
                    self.shun(upstream);
                }
                Err(Failure { refusal: Refusal::UpstreamUnreachable, may_retry: true })
            }
            Some(Err(SendError::Http(error))) => {
                // Caused by the client, not by the application.
                if let Some(refusal) = refusal_of(&error) {
                    return Err(Failure::of(refusal));
                }
                let cause = deepest(&error);
                tracing::warn!("the application at {name} sent no valid response: {cause}");
                let is_gone = error.is_incomplete_message()
                    || error.is_canceled()
                    || error.is_closed()
                    || cause.downcast_ref::<io::Error>().is_some();
                Err(Failure { refusal: Refusal::UpstreamFailed, may_retry: is_gone })
            }
        }
    }

    /// Chooses the next application in turn that seems healthy; if none does, the next one. Avoids
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

    /// Checks all applications periodically and closes idle connections. Never returns.
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
                    (true, false) => tracing::warn!("the application at {name} is unhealthy"),
                    (false, true) => {
                        tracing::info!("the application at {name} is healthy again");
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
        let mut request = Request::<Body>::default();
        *request.uri_mut() = path.clone().into();
        request.headers_mut().insert(HOST, upstream.host.clone());
        edge_session_headers::tell(request.headers_mut(), None);
        let sent = upstream.pool.send(&self.connector, &upstream.address, &mut request, true);
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

/// Returns a copy of a request that has no body.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::default();
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    // Who is told about interim responses.
    request.extensions().clone_into(copy.extensions_mut());
    copy
}

struct Failure {
    refusal: Refusal,
    /// The application has not begun to respond.
    may_retry: bool,
}

impl Failure {
    fn of(refusal: Refusal) -> Self {
        Self { refusal, may_retry: false }
    }
}

/// Returns whether this process has reached its limit on open files.
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
