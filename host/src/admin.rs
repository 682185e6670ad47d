//! The admin address: metrics, whether the program is well, and, with a token, its sessions.

mod charts;
mod pages;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Form, FromRequestParts, Path, Query, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use edge_session::SessionLayer;
use edge_session::store::StoreError;
use metrics_exporter_prometheus::PrometheusHandle;
use ring::hmac;
use serde::Deserialize;
use tokio::net::TcpListener;

use self::charts::History;
pub(crate) use self::pages::span;
use crate::app;
use crate::inspector::Inspector;
use crate::serve::healthz;

/// The cookie that opens the sessions. It is for nobody else: see the gateway.
pub(crate) const COOKIE_NAME: &str = "edge-session-admin";

/// How many sessions a page shows, and how many are told at once.
const ON_A_PAGE: usize = 100;
const TOLD_AT_ONCE: usize = 10_000;

/// What the admin address shows.
#[derive(Clone)]
pub(crate) struct Admin {
    layer: SessionLayer,
    recorder: PrometheusHandle,
    inspector: Inspector,
    history: History,
    key: Option<Key>,
}

/// Opens the sessions.
#[derive(Clone)]
struct Key {
    /// Compares what is given with the token, in a time that does not depend on either.
    comparison: hmac::Key,
    token: hmac::Tag,
    /// What browsers have after a login: good until a logout, or the end of this process.
    cookie: Arc<Mutex<String>>,
}

impl Key {
    fn new(token: &str) -> Self {
        let salt: [u8; 32] = rand::random();
        let comparison = hmac::Key::new(hmac::HMAC_SHA256, &salt);
        let token = hmac::sign(&comparison, token.as_bytes());
        let key = Self { comparison, token, cookie: Arc::default() };
        key.change_cookie();
        key
    }

    fn cookie(&self) -> String {
        self.cookie.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change_cookie(&self) {
        let pass: [u8; 24] = rand::random();
        let cookie = pass.iter().map(|byte| format!("{byte:02x}")).collect();
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = cookie;
    }

    fn is_token(&self, given: &str) -> bool {
        hmac::verify(&self.comparison, given.as_bytes(), self.token.as_ref()).is_ok()
    }

    fn is_cookie(&self, given: &str) -> bool {
        let pass = hmac::sign(&self.comparison, self.cookie().as_bytes());
        hmac::verify(&self.comparison, given.as_bytes(), pass.as_ref()).is_ok()
    }
}

impl Admin {
    /// Without a token, sessions can neither be seen nor ended.
    pub(crate) fn new(
        layer: SessionLayer,
        recorder: PrometheusHandle,
        inspector: Inspector,
        token: Option<&str>,
    ) -> Self {
        let key = token.map(Key::new);
        Self { layer, recorder, inspector, history: History::default(), key }
    }

    /// Serve in the background, as long as the program runs.
    pub(crate) async fn serve(self, address: SocketAddr) -> Result<(), String> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address} (admin.listen): {error}"))?;
        tracing::info!("metrics at http://{address}/metrics");
        if self.key.is_some() {
            tracing::info!("sessions at http://{address}/sessions");
            if !address.ip().is_loopback() {
                tracing::warn!("the admin token crosses the network unencrypted: see admin.listen");
            }
            let history = self.history.clone();
            tokio::spawn(history.keep(self.recorder.clone(), self.inspector.clone()));
        }
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
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
                .route("/sessions/end", post(end))
                .route("/sessions/end-all", post(end_all))
                .route("/sessions/{name}", get(show))
                .route("/api/sessions", get(api_list).delete(api_end_all))
                .route("/api/sessions/{name}", get(api_show).delete(api_end));
        }
        router.with_state(self).merge(health).layer(map_response(app::with_safe_headers))
    }
}

// ------------------------------------------------------------------- who may come in ----

/// Somebody who has the token. No handler of sessions goes without.
struct Operator;

impl FromRequestParts<Admin> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Response> {
        let Some(key) = &admin.key else { return Err(StatusCode::NOT_FOUND.into_response()) };
        let bearer = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
            return match key.is_token(token) {
                true => Ok(Self),
                false => Err((StatusCode::UNAUTHORIZED, "the token is wrong\n").into_response()),
            };
        }
        let is_own = parts.method == Method::GET || is_own_form(&parts.headers);
        if is_own && cookie(&parts.headers).is_some_and(|pass| key.is_cookie(pass)) {
            return Ok(Self);
        }
        if parts.uri.path().starts_with("/api/") {
            return Err((StatusCode::UNAUTHORIZED, "a token is needed\n").into_response());
        }
        Err(Redirect::to("/login").into_response())
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|it| it.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE_NAME).map(|(_, value)| value.trim())
}

/// The cookie is for requests of its own site; this is for browsers that do not know that.
fn is_own_form(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

async fn show_login() -> Response {
    page(StatusCode::OK, pages::login(false))
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

async fn log_in(
    State(admin): State<Admin>,
    headers: HeaderMap,
    Form(form): Form<Token>,
) -> Response {
    let key = admin.key.as_ref().filter(|key| key.is_token(&form.token));
    let Some(key) = key.filter(|_| is_own_form(&headers)) else {
        tracing::warn!("somebody tried to log in to the admin page with a wrong token");
        return page(StatusCode::FORBIDDEN, pages::login(true));
    };
    let cookie = format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict", key.cookie());
    ([(SET_COOKIE, cookie)], Redirect::to("/sessions")).into_response()
}

async fn log_out(_: Operator, State(admin): State<Admin>) -> Response {
    if let Some(key) = &admin.key {
        key.change_cookie();
    }
    let cookie = format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    ([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

// ------------------------------------------------------------------------- the pages ----

fn page(status: StatusCode, page: maud::Markup) -> Response {
    (status, Html(page.into_string())).into_response()
}

async fn style() -> impl IntoResponse {
    const CSS: &str = concat!(include_str!("app/style.css"), include_str!("admin/style.css"));
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "private, max-age=3600")], CSS)
}

/// What is looked for, and what was just done.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Search {
    subject: String,
    ended: Option<u64>,
}

async fn list(_: Operator, State(admin): State<Admin>, Query(search): Query<Search>) -> Response {
    let subject = Some(search.subject.trim()).filter(|subject| !subject.is_empty());
    match admin.inspector.list(subject, ON_A_PAGE).await {
        Ok(listing) => {
            let has_subjects = admin.inspector.identity.is_some();
            let charts = admin.history.charts(listing.total);
            let page_ = pages::list(&listing, subject, search.ended, has_subjects, &charts);
            page(StatusCode::OK, page_)
        }
        Err(error) => failed(&error),
    }
}

async fn show(_: Operator, State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    match admin.inspector.show(&name).await {
        Ok(Some(shown)) => page(StatusCode::OK, pages::show(&shown)),
        Ok(None) => page(StatusCode::NOT_FOUND, pages::not_found()),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn end(_: Operator, State(admin): State<Admin>, Form(form): Form<Named>) -> Response {
    match admin.inspector.end(&form.name).await {
        Ok(was_there) => ended(u64::from(was_there)),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
struct Subject {
    subject: String,
}

async fn end_all(_: Operator, State(admin): State<Admin>, Form(form): Form<Subject>) -> Response {
    match admin.inspector.end_all(&form.subject).await {
        Ok(count) => ended(count),
        Err(error) => failed(&error),
    }
}

fn ended(count: u64) -> Response {
    tracing::info!("an operator ended {count} sessions");
    Redirect::to(&format!("/sessions?ended={count}")).into_response()
}

fn failed(error: &StoreError) -> Response {
    tracing::error!("sessions cannot be looked at: {error}");
    page(StatusCode::SERVICE_UNAVAILABLE, pages::unavailable())
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

fn json(result: Result<impl serde::Serialize, StoreError>) -> Response {
    let text = result.map(|value| serde_json::to_string(&value));
    match text {
        Ok(Ok(text)) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(error) => {
            tracing::error!("sessions cannot be looked at: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
    }
}
