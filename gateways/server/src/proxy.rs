//! The reverse proxy: sessions, guards and a safe cookie for an application in any language.
//!
//! A request passes through [`Proxy::admit`], which refuses invalid requests, the [`SessionLayer`],
//! and [`Shared::answer`], which applies the guards and forwards to the application.

mod body;
mod error_page;
mod exchange;
mod guards;
mod headers;
mod journal;
mod logout;
mod pace;
mod path;
mod pool;
mod readers;
mod refusal;
mod target;
mod upstreams;
#[cfg(feature = "app")]
mod wasi_app;
#[cfg(not(feature = "app"))]
#[path = "proxy/no_wasi_app.rs"]
mod wasi_app;

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::BoxError;
use axum::body::Body;
use edge_session::{Origin, Refused, Session, SessionLayer, SessionService};
use edge_session_headers::{self as session_headers, Action, Answer, Change};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tower_layer::Layer as _;
use tower_service::Service;

use self::body::{Bounded, Bounds, Progress};
use self::error_page::{ErrorPages, Form};
pub(crate) use self::exchange::{Exchange, Forwarded, Relayed};
use self::guards::Verdict;
pub(crate) use self::guards::{Guard, Rule};
pub(crate) use self::headers::{TrustedProxies, clean_trailers};
use self::journal::{Journal, RequestLog};
pub(crate) use self::path::{PlainPath, RulePath, path_of};
pub(crate) use self::pool::AppAddress;
use self::readers::Readers;
pub(crate) use self::refusal::Refusal;
pub(crate) use self::target::host as host_of;
use self::upstreams::AnsweredBy;
pub(crate) use self::upstreams::{Health, RouteConfig, UpstreamTimeouts, Upstreams};
pub(crate) use self::wasi_app::App;
use crate::admin;
use crate::net::connections::{Answers, Interim, Peer, TurnedAway};
use crate::net::tunnel;
use crate::telemetry::traces::Traces;

/// Responses up to this size, in bytes, are read from the application at once: HTTP/1 connections
/// buffer them, even if the client reads slowly.
const TAKEN_AT_ONCE: u64 = 8 * 1024;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that has passed this many of our gateways is in a loop.
const MAX_ROUNDS: usize = 5;

/// The proxy's settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// The application as a component; there are no routes then.
    pub(crate) app: Option<PathBuf>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) guards: Vec<Guard>,
    pub(crate) health: Health,
    /// The path that ends the session, and where it redirects to.
    pub(crate) logout: Option<(RulePath, String)>,
    /// The JSON pointer to the logged-in user.
    pub(crate) identity: Option<String>,
    /// JSON pointers to the values that change at login: the identity, or the values that guards
    /// check.
    pub(crate) renewed_for: Vec<String>,
    /// The application owns the sessions; they are read-only here.
    pub(crate) is_shared: bool,
    /// Whether to hide the session cookie from the applications.
    pub(crate) hide_cookie: bool,
    /// Whether to pass on escaped slashes in paths.
    pub(crate) escaped_slashes: bool,
    /// The directory of error pages that replace the built-in ones.
    pub(crate) error_pages: Option<PathBuf>,
    /// Whether responses with a status of 500 and above change sessions, too.
    pub(crate) save_failed: bool,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) timeouts: UpstreamTimeouts,
    /// How long a body may make no progress, in either direction.
    pub(crate) idle: Duration,
    /// The time limit of a whole exchange.
    pub(crate) whole: Option<Duration>,
    /// The maximum size of a request's body.
    pub(crate) body_bytes: Option<u64>,
    /// How much of a request's body is buffered before it is forwarded.
    pub(crate) buffer_bytes: usize,
    /// The minimum rate at which clients must send and read, in bytes per second.
    pub(crate) min_rate: Option<u64>,
}

/// The proxy as a service.
#[derive(Clone)]
pub(crate) struct Proxy {
    inner: SessionService<Behind>,
    shared: Arc<Shared>,
}

/// The service behind the session layer.
#[derive(Clone)]
struct Behind(Arc<Shared>);

struct Shared {
    settings: Settings,
    applications: Applications,
    cookie_name: String,
    journal: Journal,
    readers: Option<Readers>,
    error_pages: ErrorPages,
    /// JSON pointers to the logged-in user.
    identities: Vec<String>,
    /// Whether the log says that an application behind another gateway sets our cookie.
    tells_of_cookie: AtomicBool,
}

/// What answers requests.
pub(crate) enum Applications {
    Upstreams(Upstreams),
    Component(App),
    /// Those of another gateway, which forwards requests itself: every request needs an
    /// [`Exchange`].
    Elsewhere,
}

/// The results of admitting a request.
#[derive(Clone)]
struct Admitted {
    path: RulePath,
    /// Without its port.
    host: Option<String>,
    via: Via,
    /// Whether the request comes from a trusted proxy.
    is_trusted: bool,
}

/// Where a request comes from.
#[derive(Clone)]
enum Via {
    /// A client's connection.
    Connection(Peer),
    /// A gateway that asks before it forwards the request.
    Gateway(Exchange),
}

impl Settings {
    /// Returns whether there is an application to forward to.
    pub(crate) fn has_application(&self) -> bool {
        self.app.is_some() || !self.routes.is_empty()
    }

    /// Sets up what answers requests.
    pub(crate) fn applications(&self) -> anyhow::Result<Applications> {
        Ok(match &self.app {
            Some(file) => Applications::Component(App::load(file, self.timeouts.response)?),
            None => Applications::Upstreams(Upstreams::new(self.routes.clone(), self.timeouts)),
        })
    }
}

impl Proxy {
    /// With `logs_requests`, every request is logged.
    pub(crate) fn new(
        mut settings: Settings,
        applications: Applications,
        layer: &SessionLayer,
        traces: Option<Traces>,
        logs_requests: bool,
    ) -> anyhow::Result<Self> {
        // What is denied to everyone needs no login first.
        settings.guards.sort_by_key(Guard::wants_session);
        let cookie_name = layer.options().text("name").to_owned();
        let journal = Journal::new(layer.hasher().clone(), traces, logs_requests);
        let readers = settings.min_rate.map(Readers::new);
        let layer = match settings.is_shared {
            true => layer.clone().read_only(),
            false => layer.clone(),
        };
        let error_pages = error_pages(&settings).context("gateway.error_pages")?;
        let identities = guards::identities(&settings.guards, settings.identity.as_deref());
        let shared = Arc::new(Shared {
            settings,
            applications,
            cookie_name,
            journal,
            readers,
            error_pages,
            identities,
            tells_of_cookie: AtomicBool::new(false),
        });
        Ok(Self { inner: layer.layer(Behind(shared.clone())), shared })
    }

    /// Checks the applications' health and cuts off slow readers. Never returns.
    pub(crate) async fn watch(&self) {
        let health = async {
            if let Applications::Upstreams(upstreams) = &self.shared.applications {
                upstreams.watch(&self.shared.settings.health).await;
            }
        };
        let readers = async {
            if let Some(readers) = &self.shared.readers {
                readers.sweep().await;
            }
        };
        tokio::join!(health, readers);
    }

    /// Checks whether a request can be answered at all, and records its properties before its
    /// session is loaded.
    fn admit(&self, request: &mut Request<Body>) -> Result<(), Refusal> {
        let settings = &self.shared.settings;
        let extensions = request.extensions_mut();
        let via = match (extensions.remove::<Exchange>(), extensions.remove::<Peer>()) {
            (Some(exchange), _) => Via::Gateway(exchange),
            (None, Some(peer)) => Via::Connection(peer),
            (None, None) => return Err(Refusal::BadRequest("The connection is unknown.")),
        };
        let is_trusted = match &via {
            Via::Gateway(_) => true,
            Via::Connection(peer) => settings.trusted_proxies.contains(peer.address),
        };
        let headers = request.headers_mut();
        name(headers, is_trusted);
        headers::remove_untrusted(headers, is_trusted);
        if session_headers::strip(headers) {
            metrics::counter!("edge_session_stripped_total").increment(1);
        }

        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method);
        }
        if headers::rounds(request.headers()) >= MAX_ROUNDS {
            return Err(Refusal::Loop);
        }
        if headers::has_unknown_coding(request.headers()) {
            return Err(Refusal::BadRequest("The body has an unknown transfer coding."));
        }
        if headers::lists_too_much(request.headers()) {
            return Err(Refusal::BadRequest("The Connection header lists too many names."));
        }
        // Only OPTIONS asks about the server as a whole (RFC 9112, section 3.2.4).
        if request.uri().path() == "*" && *request.method() != Method::OPTIONS {
            return Err(Refusal::BadRequest("The request target is not a path."));
        }
        let path = target::path(request.uri(), settings.escaped_slashes)
            .map_err(|path::Ambiguous| Refusal::AmbiguousPath)?;
        let host = target::host(request.uri(), request.headers(), request.version())
            .map_err(Refusal::BadRequest)?;
        let declared = request.body().size_hint().lower();
        if settings.body_bytes.is_some_and(|most| declared > most) {
            return Err(Refusal::BodyTooLarge);
        }

        let is_http2 = request.version() == Version::HTTP_2;
        let headers = request.headers_mut();
        if is_http2 {
            headers::join_cookies(headers);
        }
        if let (Some(host), false) = (&host, headers.contains_key(HOST))
            && let Ok(host) = HeaderValue::from_str(host)
        {
            headers.insert(HOST, host);
        }
        let host = host.map(|host| target::without_port(&host).to_owned());
        request.extensions_mut().insert(Admitted { path, host, via, is_trusted });
        Ok(())
    }
}

/// Reads the operator's error pages. The error is shown to the person who started the program.
pub(crate) fn error_pages(settings: &Settings) -> anyhow::Result<ErrorPages> {
    Ok(settings.error_pages.as_deref().map(ErrorPages::read).transpose()?.unwrap_or_default())
}

/// Sets a request's identifier for logs, unless a trusted proxy has set it.
fn name(headers: &mut http::HeaderMap, is_trusted: bool) {
    if !is_trusted || !has_request_id(headers) {
        headers.insert(X_REQUEST_ID, new_request_id());
    }
}

fn has_request_id(headers: &http::HeaderMap) -> bool {
    headers.get(X_REQUEST_ID).is_some_and(|id| {
        let id = id.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=128).contains(&id.len()) && id.iter().all(is_plain)
    })
}

fn new_request_id() -> HeaderValue {
    HeaderValue::from_str(&format!("{:016x}", rand::random::<u64>()))
        .unwrap_or(HeaderValue::from_static("-"))
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let admitted = self.admit(&mut request);
        let is_trusted = request.extensions().get().is_some_and(|it: &Admitted| it.is_trusted);
        let log = self.shared.journal.open(&mut request, is_trusted);
        // Dropped if the client disconnects before the application begins to answer. After that,
        // the layer ensures that the answer's changes are saved.
        let form = Form::of(&request);
        let answer = admitted.map(|()| self.inner.call(request));
        let (shared, asked) = (self.shared.clone(), log.asked.clone());
        Box::pin(async move {
            let mut response = match answer {
                Ok(answer) => asked.during(answer).await?,
                Err(refusal) => refusal.respond(),
            };
            shared.complete(log, form, &mut response);
            Ok(response)
        })
    }
}

impl Answers for Proxy {
    fn turn_away(
        &self,
        mut request: Request<Body>,
        address: IpAddr,
        why: TurnedAway,
    ) -> Response<Body> {
        let is_trusted = self.shared.settings.trusted_proxies.contains(address);
        name(request.headers_mut(), is_trusted);
        let log = self.shared.journal.open(&mut request, is_trusted);
        let mut response = Refusal::TurnedAway(why).respond();
        self.shared.complete(log, Form::of(&request), &mut response);
        response
    }
}

impl Service<Request<Body>> for Behind {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        // The request stays where it is, in the only large future.
        Box::pin(async move { Ok(shared.answer(&mut request).await) })
    }
}

impl Shared {
    /// Converts the proxy's own responses to the form that the client accepts, and closes the
    /// request's log.
    fn complete(&self, log: RequestLog, form: Form, response: &mut Response<Body>) {
        let refused = response.extensions_mut().remove::<Refused>();
        let refusal = response.extensions().get::<Refusal>();
        let refused = refused.as_ref().map(|it| it.text.as_str());
        let wrong = refusal.map(|it| it.text()).or(refused);
        if let Some(wrong) = wrong {
            self.error_pages.fill(form, wrong, log.asked.id(), response);
        }
        self.journal.close(log, response);
    }

    async fn answer(&self, request: &mut Request<Body>) -> Response<Body> {
        let settings = &self.settings;
        let Some(admitted) = request.extensions_mut().remove::<Admitted>() else {
            return Refusal::BadRequest("The request was not admitted.").respond();
        };
        let session = request.extensions_mut().remove::<Session>();
        // A shared session that is not stored counts as absent.
        let session = session.filter(|it| !settings.is_shared || it.origin() == Origin::Loaded);
        if let Some((path, then)) = &settings.logout
            && *path == admitted.path
        {
            return logout::answer(request, session.as_ref(), then);
        }
        let verdict = guards::check(
            &settings.guards,
            &self.identities,
            &admitted.path,
            session.as_ref(),
            request,
        );
        if let Verdict::Refused(response) = verdict {
            return response;
        }
        let is_preflight = matches!(verdict, Verdict::Preflight);
        if is_preflight {
            // Nothing would reduce these responses to their CORS headers.
            request.extensions_mut().remove::<Interim>();
            if let Via::Gateway(Exchange { sees_response: false, .. }) = &admitted.via {
                return Refusal::LoginRequired.respond();
            }
        }
        let mut response = match self.forward(request, &admitted, session.as_ref()).await {
            Ok(response) if is_preflight => guards::only_cors(response),
            Ok(response) => response,
            Err(refusal) => refusal.respond(),
        };
        if let Some(session) = session.filter(|_| self.journal.wants_session()) {
            response.extensions_mut().insert(journal::RequestSession(session));
        }
        response
    }

    async fn send(
        &self,
        request: &mut Request<Body>,
        admitted: &Admitted,
        peer: &Peer,
        progress: &Progress,
    ) -> Result<Response<Body>, Refusal> {
        match &self.applications {
            Applications::Upstreams(upstreams) => {
                let host = admitted.host.as_deref();
                let answer = upstreams.send(request, host, &admitted.path, progress).await?;
                Ok(answer.map(Body::new))
            }
            Applications::Component(app) => {
                let request = std::mem::take(request);
                Box::pin(app.answer(request, peer.tls, progress)).await
            }
            Applications::Elsewhere => Err(Refusal::NoRoute),
        }
    }

    /// Tells the application its session. `sees_response`: its response can change the session.
    fn tell(
        &self,
        headers: &mut http::HeaderMap,
        session: Option<&Session>,
        sees_response: bool,
    ) -> Told {
        if self.settings.hide_cookie {
            headers::hide_cookie(headers, &self.cookie_name);
        }
        // An operator's browser sends this cookie to every port of the host.
        headers::hide_cookie(headers, admin::COOKIE_NAME);
        let session_now = session.map(|session| (session.id(), session.to_json()));
        let told = session_now.as_ref().map(|(id, data)| (id.as_str(), data.as_str()));
        // Without an identifier, the application knows that headers cannot change the session.
        let is_changed_by_headers = sees_response && !self.settings.is_shared;
        let named = told.map(|(id, data)| (if is_changed_by_headers { id } else { "" }, data));
        session_headers::tell(headers, named);
        Told {
            bytes: told.map_or(0, |(_, data)| data.len()),
            has_session: told.is_some_and(|(_, data)| data != "{}"),
        }
    }

    /// Lets the application's response change the session, and removes from the response what is
    /// not for clients.
    fn conclude(
        &self,
        head: &mut http::response::Parts,
        session: Option<&Session>,
        told: Told,
    ) -> Result<(), Refusal> {
        let settings = &self.settings;
        if matches!(head.status.as_u16(), 414 | 431) {
            let session_bytes = told.bytes;
            tracing::warn!(
                session_bytes,
                "an application refused a request with status {}: the session is sent in a header, \
                 and the application's server may not allow headers of this size",
                head.status.as_u16()
            );
            if head.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
                // The rest of the body need not arrive: Node resets the connection.
                return Err(Refusal::HeaderTooLarge);
            }
        }
        let answer = Answer::take(&mut head.headers).map_err(|what| {
            tracing::warn!("an application responded with invalid session headers: {what}");
            Refusal::BadSessionHeaders
        })?;
        // The response may depend on the session.
        if told.has_session {
            session_headers::vary_by_cookie(&mut head.headers);
        }
        if settings.is_shared {
            if !answer.is_nothing() {
                tracing::warn!(
                    "an application that owns the sessions (gateway.sessions) responded with \
                     session headers, which have no effect"
                );
            }
        } else if head.status.is_server_error() && !settings.save_failed {
            if !answer.is_nothing() {
                tracing::warn!(
                    "a response with status {} does not change the session",
                    head.status
                );
            }
        } else if let Some(session) = session {
            apply(answer, session, &settings.renewed_for).map_err(|what| {
                tracing::warn!("an application's change to its session is not valid: {what}");
                Refusal::BadSessionHeaders
            })?;
        } else if !answer.is_nothing() {
            tracing::warn!(
                "an application responded with session headers, which have no effect: the path is \
                 outside cookie.path, so there is no session"
            );
        }
        let answered_by = head.extensions.remove::<AnsweredBy>();
        if settings.is_shared {
            if session_headers::has_set_cookie(&head.headers, &self.cookie_name) {
                session_headers::keep_private(&mut head.headers);
            }
        } else if session_headers::remove_set_cookie(&mut head.headers, &self.cookie_name)
            && let Some(name) = self.untold(answered_by.as_ref())
        {
            tracing::warn!(
                "the application{name} sets the cookie {:?} itself. The gateway removes it, so \
                 nobody can log in there. Let the application own the sessions (gateway.sessions = \
                 \"shared\"), or let it use the gateway's, through the Edge-Session headers: see \
                 docs/gateway.md. This is logged once",
                self.cookie_name
            );
        }
        Ok(())
    }

    /// Returns which application set our cookie, unless the log already says so.
    fn untold(&self, answered_by: Option<&AnsweredBy>) -> Option<String> {
        match answered_by {
            Some(answered_by) => Some(format!(" at {}", answered_by.untold()?)),
            None => {
                let is_told = self.tells_of_cookie.swap(true, Ordering::Relaxed);
                (!is_told).then(String::new)
            }
        }
    }

    /// Answers a gateway that forwards the request itself.
    async fn relay(
        &self,
        request: &mut Request<Body>,
        exchange: &Exchange,
        session: Option<&Session>,
    ) -> Result<Response<Body>, Refusal> {
        let headers = request.headers_mut();
        let told = self.tell(headers, session, exchange.sees_response);
        headers::add_round(headers);
        let mut head = exchange.forward(std::mem::take(headers)).await?;
        self.conclude(&mut head, session, told)?;
        head.extensions.insert(Relayed);
        Ok(Response::from_parts(head, Body::empty()))
    }

    /// Forwards a request to an application.
    async fn forward(
        &self,
        request: &mut Request<Body>,
        admitted: &Admitted,
        session: Option<&Session>,
    ) -> Result<Response<Body>, Refusal> {
        let peer = match &admitted.via {
            Via::Connection(peer) => peer,
            Via::Gateway(exchange) => {
                return Box::pin(self.relay(request, exchange, session)).await;
            }
        };
        let settings = &self.settings;
        let end = settings.whole.map(|whole| Instant::now() + whole);
        let (idle, rate) = (settings.idle, settings.min_rate);
        let bounds = Bounds { idle, end, bytes: settings.body_bytes, rate };
        let is_http2 = request.version() == Version::HTTP_2;
        let visitor = request.extensions_mut().remove::<OnUpgrade>();
        let wants = headers::upgrade(request.headers()).filter(|_| visitor.is_some());
        let interim = request.extensions_mut().remove::<Interim>();
        request.extensions_mut().clear();
        if let Some(interim) = interim {
            hyper::ext::on_informational(request, move |response| {
                interim.send(response.status(), response.headers());
            });
        }
        let sent = request.headers_mut();
        headers::remove_hop_by_hop(sent);
        if let Some(protocol) = &wants {
            sent.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            sent.insert(UPGRADE, protocol.clone());
        }
        headers::add_forwarded(sent, peer.address, peer.tls);
        let told = self.tell(sent, session, true);
        let progress = Progress::default();
        if !request.body().is_end_stream() {
            let body = std::mem::take(request.body_mut());
            let bounded = Bounded::new(body, bounds, |error: &BoxError| {
                tracing::info!("a request's body ended early: {error}");
            });
            let body = Body::new(bounded.telling(progress.clone()));
            let gathered = Box::pin(body::gather(body, settings.buffer_bytes)).await;
            *request.body_mut() = gathered.map_err(|error| {
                body::refusal_of(&*error)
                    .unwrap_or(Refusal::BadRequest("The body is incomplete or malformed."))
            })?;
        }
        let sending = pin!(self.send(request, admitted, peer, &progress));
        let response = match end {
            None => sending.await?,
            Some(end) => tokio::time::timeout_at(end, sending)
                .await
                .map_err(|_| Refusal::UpstreamTimeout)??,
        };

        let (mut head, body) = response.into_parts();
        // HTTP versions are per hop.
        head.version = Version::HTTP_11;
        if headers::has_unknown_coding(&head.headers) {
            tracing::warn!("an application responded with an unknown transfer coding");
            return Err(Refusal::UpstreamFailed);
        }
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = headers::upgrade(&head.headers);
        headers::remove_hop_by_hop(&mut head.headers);
        let upstream = head.extensions.remove::<OnUpgrade>();
        let change = match (switches, wants, visitor, upstream, protocol) {
            (false, ..) => None,
            (true, Some(_), Some(visitor), Some(upstream), Some(protocol)) => {
                Some((visitor, upstream, protocol))
            }
            (true, ..) => {
                tracing::warn!("an application switched protocols without being asked");
                return Err(Refusal::UpstreamFailed);
            }
        };
        self.conclude(&mut head, session, told)?;
        if let Some((visitor, upstream, protocol)) = change {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, protocol);
            tunnel::open(visitor, upstream, settings.idle, peer.clone());
            return Ok(Response::from_parts(head, Body::empty()));
        }
        head.extensions.clear();
        if body.is_end_stream() {
            return Ok(Response::from_parts(head, Body::empty()));
        }
        // Applications may send slowly for a long time.
        let bounds = Bounds { bytes: None, rate: None, ..bounds };
        let is_small = !is_http2 && body.size_hint().upper().is_some_and(|it| it <= TAKEN_AT_ONCE);
        let body = Body::new(Bounded::new(body, bounds, |error: &BoxError| {
            metrics::counter!("edge_session_responses_cut_total").increment(1);
            tracing::warn!("an application's response ended early: {error}");
        }));
        let body = match &self.readers {
            Some(readers) if !is_small => readers.watched(body),
            _ => body,
        };
        Ok(Response::from_parts(head, body))
    }
}

/// What the application was told of its session.
#[derive(Clone, Copy)]
struct Told {
    /// The size of the data.
    bytes: usize,
    /// Whether there is any data.
    has_session: bool,
}

/// Applies the application's answer to the session. If that changes, or may change, a value in
/// `renewed_for`, a user has logged in or out and the session gets a new identifier.
pub(crate) fn apply(
    answer: Answer,
    session: &Session,
    renewed_for: &[String],
) -> Result<(), &'static str> {
    let who = || renewed_for.iter().map(|pointer| session.find(pointer)).collect::<Vec<_>>();
    match answer.action {
        Action::Destroy => {
            session.destroy();
            return Ok(());
        }
        Action::Regenerate => session.regenerate(),
        Action::Keep => {}
    }
    let before = who();
    match answer.change {
        Change::Nothing => {}
        Change::Whole(json) => {
            session.set_json(&json).map_err(|_| "Edge-Session cannot be read")?;
        }
        Change::Merge(patch) => {
            session
                .merge(patch)
                .map_err(|_| "Edge-Session-Merge applies to a value that cannot be read")?;
        }
    }
    if who().iter().zip(&before).any(|(after, before)| !after.is_surely(before)) {
        session.renew();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of the future that a method returns, in bytes.
    fn size<'a, F: Future>(_: impl FnOnce(&'a Shared, &'a mut Request<Body>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_in_progress_keeps_little_memory() {
        // With a thousand requests in progress, every kilobyte is a megabyte that the CPU's cache
        // does not hold.
        let bytes = size(Shared::answer);
        assert!(bytes <= 2560, "{bytes} bytes");
    }
}
