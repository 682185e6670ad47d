//! The admin address: metrics, health, and, with a token, the sessions.

mod charts;
pub(crate) mod inspector;
mod key;
mod pages;

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Extension, Form, FromRequestParts, Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use edge_session::SessionLayer;
use metrics_exporter_prometheus::PrometheusHandle;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::timeout;

use self::charts::History;
use self::key::LOGIN_LASTS;
pub(crate) use self::key::{Key, bearer};
pub(crate) use self::pages::span;
use crate::admin::inspector::{Ended, InspectError, Inspector};
use crate::health::healthz;
use crate::net::address::{Address, Bound};
use crate::net::connections::{self, Bounds, Limits, Peer};
use crate::proxy::host_of;
use crate::web::with_safe_headers;

/// The cookie that grants access to the sessions. The proxy hides it from applications.
pub(crate) const COOKIE_NAME: &str = "edge-session-admin";

/// How many sessions a page shows, and how many the command line can list.
const ON_A_PAGE: usize = 100;
const TOLD_AT_ONCE: usize = 10_000;

/// The maximum number of open connections: few people and programs use this address.
pub(crate) const CONNECTIONS: usize = 64;

/// The maximum number of concurrent requests of one client.
const PER_CLIENT: usize = CONNECTIONS / 4;

/// How long a request may take in total, and until it has arrived completely.
const WHOLE: Duration = Duration::from_secs(60);
const COMING: Duration = Duration::from_secs(5);

/// The maximum size of a form, in bytes.
const FORM_BYTES: usize = 16 * 1024;

/// The service of the admin address.
#[derive(Clone)]
pub(crate) struct Admin {
    layer: SessionLayer,
    recorder: PrometheusHandle,
    inspector: Inspector,
    history: History,
    key: Option<Key>,
    /// The host names that it accepts.
    hosts: Arc<[String]>,
}

impl Admin {
    /// Without a token, sessions can be neither seen nor ended.
    pub(crate) fn new(
        layer: SessionLayer,
        recorder: PrometheusHandle,
        inspector: Inspector,
        token: Option<&str>,
        hosts: Vec<String>,
    ) -> Self {
        let key = token.map(Key::new);
        let (history, hosts) = (History::default(), hosts.into());
        Self { layer, recorder, inspector, history, key, hosts }
    }

    /// Serves in the background until the program ends.
    pub(crate) async fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let bound = Bound::new(&Address::Port(address));
        let listener = bound
            .and_then(Bound::listen)
            .with_context(|| format!("cannot listen on {address} (admin.listen)"))?;
        tracing::info!("metrics at http://{address}/metrics");
        if self.key.is_some() {
            tracing::info!("sessions at http://{address}/sessions");
            let history = self.history.clone();
            tokio::spawn(history.keep(self.layer.clone(), self.inspector.clone()));
        }
        let limits = Limits {
            bounds: Bounds {
                connections: CONNECTIONS,
                requests: CONNECTIONS,
                per_client: PER_CLIENT,
                exempt: Vec::new(),
            },
            header_bytes: 16 * 1024,
            header: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            drain: Duration::ZERO,
        };
        tokio::spawn(connections::serve(listener, None, limits, self.router(), pending()));
        Ok(())
    }

    fn router(self) -> Router {
        let health = Router::new().route("/readyz", get(healthz)).with_state(self.layer.clone());
        let metrics = async |State(admin): State<Self>| admin.recorder.render();
        let mut router =
            Router::new().route("/healthz", get(async || "ok\n")).route("/metrics", get(metrics));
        if self.key.is_some() {
            router = router
                .route("/", get(async || Redirect::to("/sessions")))
                .route("/login", get(show_login).post(log_in))
                .route("/logout", post(log_out))
                .route("/style.css", get(style))
                .route("/sessions", get(list))
                .route("/sessions/end", get(ask_end).post(end))
                .route("/sessions/end-all", get(ask_end_all).post(end_all))
                .route("/sessions/{name}", get(show))
                .route("/api/sessions", get(api_list).delete(api_end_all))
                .route("/api/sessions/{name}", get(api_show).delete(api_end));
        }
        let hosts = self.hosts.clone();
        router
            .with_state(self)
            .merge(health)
            .layer(from_fn_with_state(hosts, of_known_host))
            .layer(from_fn(in_time))
            .layer(map_response(with_safe_headers))
    }
}

// ------------------------------------------------------------------------ access ----

/// Refuses unknown host names. Otherwise a page of another site could point its own name here (DNS
/// rebinding) and read everything.
async fn of_known_host(
    State(hosts): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    match host_of(request.uri(), request.headers(), request.version()) {
        Err(what) => return (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response(),
        // Every browser sends a host.
        Ok(host) if host.as_deref().is_none_or(|host| is_known(host, &hosts)) => {
            return next.run(request).await;
        }
        Ok(_) => {}
    }
    let text = "This host name is not allowed: use an IP address, localhost, or a name in \
                admin.hosts of the configuration.\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn is_known(host: &str, hosts: &[String]) -> bool {
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Limits a request's duration, so that a stalled request does not occupy its place forever.
async fn in_time(request: Request, next: Next) -> Response {
    let late = || (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response();
    let (head, body) = request.into_parts();
    let body = match timeout(COMING, to_bytes(body, FORM_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let text = "the request body is too large or invalid\n";
            return (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
        }
        Err(_) => return late(),
    };
    let request = Request::from_parts(head, body.into());
    timeout(WHOLE, next.run(request)).await.unwrap_or_else(|_| late())
}

/// Checks a token, with a delay if it is wrong. An error has the response's status and text.
async fn check(key: &Key, token: &str, peer: &Peer) -> Result<(), (StatusCode, &'static str)> {
    let address = peer.address;
    match key.opens(token, address).await {
        Some(true) => Ok(()),
        Some(false) => {
            tracing::warn!("a client at {address} sent a wrong admin token");
            Err((StatusCode::UNAUTHORIZED, "The token is wrong."))
        }
        None => {
            tracing::warn!("a token of a client at {address} was not compared: too many wait");
            let text = "Too many tokens are being compared. Please try again in a few seconds.";
            Err((StatusCode::TOO_MANY_REQUESTS, text))
        }
    }
}

/// A client that has authenticated with the token. Every handler of sessions extracts it.
struct Operator;

impl FromRequestParts<Admin> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Response> {
        let Some(key) = &admin.key else { return Err(StatusCode::NOT_FOUND.into_response()) };
        if let Some(token) = bearer(&parts.headers) {
            let Some(peer) = parts.extensions.get::<Peer>() else {
                return Err(StatusCode::UNAUTHORIZED.into_response());
            };
            let checked = check(key, token, peer).await;
            return checked
                .map(|()| Self)
                .map_err(|(status, text)| (status, format!("{text}\n")).into_response());
        }
        let is_own = parts.method == Method::GET || is_own_form(&parts.headers);
        if is_own && cookie(&parts.headers).is_some_and(|pass| key.is_pass(pass, SystemTime::now()))
        {
            return Ok(Self);
        }
        if parts.uri.path().starts_with("/api/") {
            return Err((StatusCode::UNAUTHORIZED, "a token is required\n").into_response());
        }
        Err(Redirect::to("/login").into_response())
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|it| it.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE_NAME).map(|(_, value)| value.trim())
}

/// Refuses forms of other sites, for browsers that do not support `SameSite` cookies.
fn is_own_form(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

async fn show_login() -> Response {
    page(StatusCode::OK, pages::login(None))
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

async fn log_in(
    State(admin): State<Admin>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(form): Form<Token>,
) -> Response {
    let Some(key) = &admin.key else { return StatusCode::NOT_FOUND.into_response() };
    if !is_own_form(&headers) {
        return page(StatusCode::FORBIDDEN, pages::login(Some("The form is another site's.")));
    }
    if let Err((status, text)) = check(key, &form.token, &peer).await {
        // 401 would need a scheme that browsers know.
        let status =
            if status == StatusCode::UNAUTHORIZED { StatusCode::FORBIDDEN } else { status };
        return page(status, pages::login(Some(text)));
    }
    let (pass, lasts) = (key.pass(SystemTime::now()), LOGIN_LASTS.as_secs());
    let cookie =
        format!("{COOKIE_NAME}={pass}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lasts}");
    ([(SET_COOKIE, cookie)], Redirect::to("/sessions")).into_response()
}

async fn log_out(_: Operator, State(admin): State<Admin>) -> Response {
    if let Some(key) = &admin.key {
        key.end_all_passes();
    }
    let cookie = format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    ([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

// ------------------------------------------------------------------------- the pages ----

fn page(status: StatusCode, page: maud::Markup) -> Response {
    (status, Html(page.into_string())).into_response()
}

async fn style() -> impl IntoResponse {
    const CSS: &str = concat!(include_str!("demo/style.css"), include_str!("admin/style.css"));
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "private, max-age=3600")], CSS)
}

/// The search, and the result of the last action.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Search {
    subject: String,
    ended: Option<u64>,
    unreadable: u64,
}

async fn list(_: Operator, State(admin): State<Admin>, Query(search): Query<Search>) -> Response {
    let subject = Some(search.subject.trim()).filter(|subject| !subject.is_empty());
    match admin.inspector.list(subject, ON_A_PAGE).await {
        Ok(listing) => {
            let has_subjects = admin.inspector.identity.is_some();
            let charts = admin.history.charts(listing.total, admin.layer.sessions_created());
            let done = search.ended.map(|ended| Ended { ended, unreadable: search.unreadable });
            let page_ = pages::list(&listing, subject, done, has_subjects, &charts);
            page(StatusCode::OK, page_)
        }
        Err(error) => failed(&error),
    }
}

async fn show(_: Operator, State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    match admin.inspector.show(&name).await {
        Ok(Some(shown)) => page(StatusCode::OK, pages::show(&shown)),
        Ok(None) => page(StatusCode::NOT_FOUND, pages::not_found()),
        Err(error) => failed(&error.into()),
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn end(_: Operator, State(admin): State<Admin>, Form(form): Form<Named>) -> Response {
    match admin.inspector.end(&form.name).await {
        Ok(was_there) => {
            let ended = u64::from(was_there);
            tracing::info!("an operator ended {ended} sessions");
            Redirect::to(&format!("/sessions?ended={ended}")).into_response()
        }
        Err(error) => failed(&error.into()),
    }
}

#[derive(Deserialize)]
struct Subject {
    subject: String,
}

async fn ask_end(_: Operator, State(admin): State<Admin>, Query(named): Query<Named>) -> Response {
    match admin.inspector.show(&named.name).await {
        Ok(Some(shown)) => page(StatusCode::OK, pages::ask_end(&shown)),
        Ok(None) => page(StatusCode::NOT_FOUND, pages::not_found()),
        Err(error) => failed(&error.into()),
    }
}

async fn ask_end_all(_: Operator, Query(of): Query<Subject>) -> Response {
    page(StatusCode::OK, pages::ask_end_all(&of.subject))
}

async fn end_all(_: Operator, State(admin): State<Admin>, Form(form): Form<Subject>) -> Response {
    match admin.inspector.end_all(&form.subject).await {
        Ok(Ended { ended, unreadable: 0 }) => {
            tracing::info!("an operator ended {ended} sessions");
            Redirect::to(&format!("/sessions?ended={ended}")).into_response()
        }
        Ok(Ended { ended, unreadable }) => {
            tracing::warn!(
                "an operator ended {ended} sessions of a subject; {unreadable} cannot be read"
            );
            // Unreadable sessions are listed for every subject.
            let subject = utf8_percent_encode(&form.subject, NON_ALPHANUMERIC);
            let query = format!("ended={ended}&unreadable={unreadable}&subject={subject}");
            Redirect::to(&format!("/sessions?{query}")).into_response()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &InspectError) -> Response {
    match error {
        InspectError::NoIdentity => page(StatusCode::CONFLICT, pages::no_identity(error)),
        InspectError::Store(error) => {
            tracing::error!("sessions cannot be read: {error}");
            page(StatusCode::SERVICE_UNAVAILABLE, pages::unavailable())
        }
    }
}

// --------------------------------------------------------------- for the command line ----

#[derive(Deserialize)]
struct Wanted {
    subject: Option<String>,
    limit: Option<usize>,
}

async fn api_list(
    _: Operator,
    State(admin): State<Admin>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let limit = wanted.limit.unwrap_or(ON_A_PAGE).min(TOLD_AT_ONCE);
    json(admin.inspector.list(wanted.subject.as_deref(), limit).await)
}

async fn api_show(_: Operator, State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    json(admin.inspector.show(&name).await)
}

async fn api_end(_: Operator, State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    json(admin.inspector.end(&name).await.map(u64::from))
}

async fn api_end_all(
    _: Operator,
    State(admin): State<Admin>,
    Query(Subject { subject }): Query<Subject>,
) -> Response {
    json(admin.inspector.end_all(&subject).await)
}

fn json(result: Result<impl serde::Serialize, impl Into<InspectError>>) -> Response {
    let text = result.map(|value| serde_json::to_string(&value)).map_err(Into::into);
    match text {
        Ok(Ok(text)) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(error @ InspectError::NoIdentity) => {
            (StatusCode::CONFLICT, format!("{error}\n")).into_response()
        }
        Err(InspectError::Store(error)) => {
            tracing::error!("sessions cannot be read: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_configured_names_are_known_hosts_and_other_names_are_not() {
        let hosts = ["Edge.internal".to_owned()];
        for host in [
            "127.0.0.1:9090",
            "127.0.0.1",
            "10.1.2.3:9090",
            "[::1]:9090",
            "[::1]",
            "localhost",
            "LOCALHOST:9090",
            "edge.internal",
            "edge.internal:9090",
        ] {
            assert!(is_known(host, &hosts), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            ":9090",
            "[::1",
            "edge.internal.evil.example",
            "127.0.0.1:9090:1",
        ] {
            assert!(!is_known(host, &hosts), "{host}");
        }
    }
}
