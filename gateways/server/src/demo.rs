//! The built-in application: a view counter, a login, and a view of the visitor's own session.
//!
//! It demonstrates sessions and serves the tests. It works without JavaScript, and the proxy does
//! not use it.

mod csrf;
mod form;
mod pages;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Query};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use edge_session::{Session, SessionError, SessionLayer};
use maud::Markup;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use self::form::Checked;
use self::pages::{Draft, Lifetimes, Login, Panel, Visitor};
use crate::web::with_safe_headers;

/// How long "remember me" keeps a visitor logged in.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const VIEW_COUNT: &str = "viewCount";
/// passport's key for the logged-in user, `{"user": NAME}`: an Express application with the same
/// store shares its logins with this one.
const PASSPORT: &str = "passport";

const MAX_NAME: usize = 64;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 1024;
const MAX_RETURN: usize = 2048;

/// The maximum size of a form: 1024 characters of four bytes, each written as `%XX`, plus the rest.
const MAX_FORM_BYTES: usize = 16 * 1024;

/// Keys reserved by the session's cookie, by JavaScript's `Session.prototype` and
/// `Object.prototype`, or by this application.
const RESERVED_KEYS: [&str; 24] = [
    VIEW_COUNT,
    PASSPORT,
    csrf::KEY,
    "cookie",
    "req",
    "id",
    "touch",
    "resetMaxAge",
    "save",
    "reload",
    "destroy",
    "regenerate",
    "constructor",
    "toString",
    "valueOf",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

/// Returns the application, to be wrapped in a [`SessionLayer`].
///
/// If that layer is also added as an [`Extension`], the counter's page shows the cookie's name and
/// the store's lifetime, which a session alone does not contain.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(counter))
        .route("/login", get(show_login).post(log_in))
        .route("/account", get(account))
        .route("/logout", post(log_out))
        .route("/demo/set", post(set_value))
        .route("/style.css", get(style))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(map_response(with_safe_headers))
}

fn page(status: StatusCode, page: Markup) -> Response {
    (status, Html(page.into_string())).into_response()
}

// ------------------------------------------------------------------------ the pages ----

async fn counter(
    session: Session,
    layer: Option<Extension<SessionLayer>>,
) -> Result<Response, SessionError> {
    let count = session.get::<u64>(VIEW_COUNT)?.unwrap_or(0).saturating_add(1);
    session.insert(VIEW_COUNT, count)?;
    let visitor = form_visitor(&session)?;
    let panel = panel(&session, layer.as_deref());
    Ok(page(StatusCode::OK, pages::counter(&visitor, count, &panel)))
}

async fn account(session: Session) -> Result<Response, SessionError> {
    let Some(user) = user(&session)? else {
        let login = HeaderValue::from_static("/login?return=%2Faccount");
        return Ok((StatusCode::FOUND, [(LOCATION, login)]).into_response());
    };
    Ok(page(StatusCode::OK, pages::account(&form_visitor(&session)?, &user)))
}

async fn show_login(
    session: Session,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, SessionError> {
    let return_to = query.into_iter().find(|(name, _)| name == "return").map(|(_, path)| path);
    let login = Login { return_to: return_to.filter(|path| is_local(path)), ..Login::default() };
    Ok(page(StatusCode::OK, pages::login(&form_visitor(&session)?, &login, None)))
}

async fn style() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/css; charset=utf-8"),
        // Not for shared caches: a rolling session may add its cookie to any response.
        (CACHE_CONTROL, "private, max-age=3600"),
    ];
    (headers, include_str!("demo/style.css"))
}

async fn not_found(session: Option<Session>, uri: Uri) -> Result<Response, SessionError> {
    let visitor = known_visitor(session.as_ref())?;
    Ok(page(StatusCode::NOT_FOUND, pages::not_found(visitor.as_ref(), uri.path())))
}

async fn method_not_allowed(
    session: Option<Session>,
    method: Method,
) -> Result<Response, SessionError> {
    let visitor = known_visitor(session.as_ref())?;
    let text = format!("This address does not support {method}.");
    let markup = pages::refusal(visitor.as_ref(), "That method is not supported", &text, "/");
    Ok(page(StatusCode::METHOD_NOT_ALLOWED, markup))
}

// ------------------------------------------------------------------------ the forms ----

/// The submitted login form.
#[derive(Default, Deserialize)]
#[serde(default)]
struct LoginFields {
    username: String,
    remember: Option<String>,
    r#return: Option<String>,
}

async fn log_in(
    session: Session,
    Checked(fields): Checked<LoginFields>,
) -> Result<Response, SessionError> {
    let login = Login {
        username: fields.username.trim().to_owned(),
        remember: fields.remember.is_some(),
        return_to: fields.r#return.filter(|path| is_local(path)),
    };
    if let Err(problem) = check_username(&login.username) {
        let markup = pages::login(&form_visitor(&session)?, &login, Some(problem));
        return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, markup));
    }
    // Prevents session fixation: an identifier or token known before the login becomes useless.
    session.renew();
    csrf::renew(&session)?;
    session.insert(PASSPORT, json!({ "user": login.username }))?;
    if login.remember {
        session.set_max_age(Some(REMEMBERED));
    }
    let target = login.return_to.as_deref().unwrap_or("/account");
    Ok(Redirect::to(&header_text(target)).into_response())
}

fn check_username(name: &str) -> Result<(), &'static str> {
    match name.chars().count() {
        0 => Err("Please enter a name. Any will do."),
        1..=MAX_NAME => Ok(()),
        _ => Err("Please enter a shorter name: 64 characters at most."),
    }
}

/// A form that contains only its token.
#[derive(Deserialize)]
struct NoFields {}

async fn log_out(session: Session, Checked(NoFields {}): Checked<NoFields>) -> Redirect {
    session.destroy();
    Redirect::to("/")
}

/// The submitted form that sets a value.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ValueFields {
    key: String,
    value: String,
}

async fn set_value(
    session: Session,
    Checked(fields): Checked<ValueFields>,
) -> Result<Response, SessionError> {
    let ValueFields { key, value } = fields;
    if let Err(problem) = check_value(&key, &value) {
        let draft = Draft { key, value };
        let markup = pages::value_refused(&form_visitor(&session)?, &draft, &problem);
        return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, markup));
    }
    session.insert(&key, value)?;
    Ok(Redirect::to("/").into_response())
}

fn check_value(key: &str, value: &str) -> Result<(), String> {
    let check = |what, text: &str, most| match text.chars().count() {
        _ if text.trim().is_empty() => Err(format!("Please enter a {what}.")),
        length if length > most => {
            Err(format!("Please enter a shorter {what}: {most} characters at most."))
        }
        _ => Ok(()),
    };
    check("key", key, MAX_KEY)?;
    check("value", value, MAX_VALUE)?;
    if RESERVED_KEYS.contains(&key) {
        return Err(format!("The key “{key}” is taken. Please choose another."));
    }
    Ok(())
}

/// Returns whether every browser resolves a path on this site: some read `//` and `/\` as the
/// beginning of a host, and first drop tabs and line ends.
fn is_local(path: &str) -> bool {
    let mut start = path.chars();
    start.next() == Some('/')
        && !matches!(start.next(), Some('/' | '\\'))
        && !path.contains(char::is_control)
        && path.len() <= MAX_RETURN
}

/// Percent-encodes an address for a header.
fn header_text(path: &str) -> String {
    const NOT_VISIBLE: &AsciiSet = &CONTROLS.add(b' ');
    utf8_percent_encode(path, NOT_VISIBLE).to_string()
}

// ---------------------------------------------------------------------- the session ----

/// Returns a text in the session. Other types of value, which another application with the same
/// store may set, are ignored.
fn text(session: &Session, key: &str) -> Result<Option<String>, SessionError> {
    Ok(match session.get::<Value>(key)? {
        Some(Value::String(text)) => Some(text),
        _ => None,
    })
}

/// Returns the logged-in user. Other types of value, which another application with the same store
/// may set, are ignored.
fn user(session: &Session) -> Result<Option<String>, SessionError> {
    let passport = session.get::<Value>(PASSPORT)?.unwrap_or_default();
    Ok(passport["user"].as_str().map(str::to_owned))
}

/// Returns the visitor of a page with a form.
fn form_visitor(session: &Session) -> Result<Visitor, SessionError> {
    Ok(Visitor { user: user(session)?, token: csrf::token(session)? })
}

/// Returns the visitor of a page whose only form is the logout of logged-in users: other visitors
/// get no session from it.
fn known_visitor(session: Option<&Session>) -> Result<Option<Visitor>, SessionError> {
    match session {
        Some(session) if user(session)?.is_some() => form_visitor(session).map(Some),
        _ => Ok(None),
    }
}

/// Returns what the counter's page shows of the session: never the identifier.
fn panel(session: &Session, layer: Option<&SessionLayer>) -> Panel {
    let cookie = session.cookie();
    // `as` turns a negative age, which expires at once, into 0.
    let max_age = cookie.get("originalMaxAge").and_then(Value::as_f64);
    let in_browser = max_age.map(|age| Duration::from_millis(age as u64));
    let ttl = layer.map(|layer| Duration::from_secs(layer.options().number("store.ttl")));
    let left = session.expires().and_then(|end| end.duration_since(SystemTime::now()).ok());
    Panel {
        values: session
            .data()
            .iter()
            .map(|(key, value)| (key.clone(), shown(key, value)))
            .collect(),
        cookie_name: layer.map(|layer| layer.options().text("name").to_owned()),
        cookie,
        lifetimes: Lifetimes { in_browser, in_store: in_browser.or(ttl), left },
        origin: session.origin(),
    }
}

/// Returns a value as the application sees it; none for a secret.
fn shown(key: &str, value: &Value) -> Option<String> {
    (key != csrf::KEY).then(|| format!("{value:#}"))
}
