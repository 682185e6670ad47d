//! The applications behind the gateway: which one a request goes to, and how.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{BodyError, Progress, broken_bound};
use super::path::RulePath;
use super::refusal::Refusal;

/// How long an application that could not be reached is passed over.
const PENALTY: Duration = Duration::from_secs(2);

/// Below the 5 s after which Node closes connections: the gateway closes them first.
const POOL_IDLE: Duration = Duration::from_secs(4);

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
    /// One or more, each with scheme and authority only.
    pub(crate) upstreams: Vec<Uri>,
}

/// Requests of one host and below one path go to one of some applications.
struct Route {
    host: Option<String>,
    path: RulePath,
    upstreams: Vec<Arc<Upstream>>,
    next: AtomicUsize,
}

struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// What the health check says.
    is_well: AtomicBool,
    /// Not to be tried before this, in milliseconds since `Upstreams::start`.
    shunned_until: AtomicU64,
}

/// All routes, and the connections behind them.
pub(crate) struct Upstreams {
    routes: Vec<Route>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    timeouts: UpstreamTimeouts,
    start: Instant,
}

impl Upstreams {
    pub(crate) fn new(mut routes: Vec<RouteConfig>, timeouts: UpstreamTimeouts) -> Self {
        // The most specific one first.
        routes.sort_by_key(|route| std::cmp::Reverse((route.host.is_some(), route.path.len())));
        let routes = routes.into_iter().map(Route::new).collect();
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http_connector(timeouts.connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { routes, client, timeouts, start: Instant::now() }
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
    ) -> Result<Response<Incoming>, Refusal> {
        let route = self.route(host, path).ok_or(Refusal::NoRoute)?;
        head.version = Version::HTTP_11;
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
        upstream: &Upstream,
        mut head: request::Parts,
        body: Body,
        progress: &Progress,
    ) -> Result<Response<Incoming>, Failure> {
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(upstream.scheme.clone());
        uri.authority = Some(upstream.authority.clone());
        if uri.path_and_query.is_none() {
            uri.path_and_query = Some(PathAndQuery::from_static("/"));
        }
        head.uri = Uri::from_parts(uri)
            .map_err(|_| Failure::of(Refusal::BadRequest("The target is not valid.")))?;
        let mut sent = pin!(self.client.request(Request::from_parts(head, body)));
        let name = &upstream.authority;
        let answered = loop {
            let deadline = progress.last() + self.timeouts.response;
            match timeout_at(deadline, &mut sent).await {
                Err(_) if progress.last() + self.timeouts.response > Instant::now() => {}
                answered => break answered,
            }
        };
        match answered {
            Ok(Ok(response)) => Ok(response),
            Err(_) => {
                let limit = self.timeouts.response;
                tracing::warn!("the application at {name} did not answer within {limit:?}");
                Err(Failure::of(Refusal::UpstreamTimeout))
            }
            Ok(Err(error)) => {
                // The visitor's doing, not the application's.
                match broken_bound(&error) {
                    Some(BodyError::TooLarge(_)) => return Err(Failure::of(Refusal::BodyTooLarge)),
                    Some(BodyError::Broken) => {
                        return Err(Failure::of(Refusal::BadRequest("The body is broken.")));
                    }
                    Some(_) => return Err(Failure::of(Refusal::RequestTimeout)),
                    None => {}
                }
                let cause = deepest(&error);
                if error.is_connect() {
                    tracing::warn!("the application at {name} cannot be reached: {cause}");
                    self.shun(upstream);
                    return Err(Failure { refusal: Refusal::UpstreamUnreachable, may_retry: true });
                }
                tracing::warn!("the application at {name} gave no valid answer: {cause}");
                let hyper_error = error.source().and_then(|it| it.downcast_ref::<hyper::Error>());
                let is_gone = hyper_error.is_some_and(|it| {
                    it.is_incomplete_message() || it.is_canceled() || it.is_closed()
                }) || cause.downcast_ref::<std::io::Error>().is_some();
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

    /// Ask all applications again and again how they are. Never ends.
    pub(crate) async fn watch(&self, health: &Health) {
        let Some(path) = &health.path else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(health.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let upstreams = self.routes.iter().flat_map(|route| &route.upstreams);
            for upstream in upstreams {
                let is_well = self.is_well(upstream, path, health.interval).await;
                let was_well = upstream.is_well.swap(is_well, Ordering::Relaxed);
                let name = &upstream.authority;
                match (was_well, is_well) {
                    (true, false) => tracing::warn!("the application at {name} is not well"),
                    (false, true) => {
                        tracing::info!("the application at {name} is well again");
                        upstream.shunned_until.store(0, Ordering::Relaxed);
                    }
                    _ => {}
                }
                metrics::gauge!("edge_session_upstream_up", "upstream" => name.to_string())
                    .set(f64::from(u8::from(is_well)));
            }
        }
    }

    async fn is_well(&self, upstream: &Upstream, path: &PathAndQuery, limit: Duration) -> bool {
        let uri = Uri::builder()
            .scheme(upstream.scheme.clone())
            .authority(upstream.authority.clone())
            .path_and_query(path.clone());
        let Ok(uri) = uri.build() else { return false };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri;
        let answer = timeout(limit, self.client.request(request)).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|it| !it.status().is_server_error()))
    }
}

fn http_connector(limit: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(limit));
    connector
}

impl Route {
    fn new(config: RouteConfig) -> Self {
        let upstream = |uri: Uri| {
            let parts = uri.into_parts();
            Some(Arc::new(Upstream {
                scheme: parts.scheme?,
                authority: parts.authority?,
                is_well: AtomicBool::new(true),
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

fn deepest<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
