//! The tower layer, which gives every request a session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use edge_session_headers::{cookies, keep_private};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::driver::{Begun, Driver};
use crate::engine::Logic;
use crate::error::OptionsError;
use crate::run_to_completion::RunToCompletion;
use crate::store::Store;
use crate::{InForce, Options, Session, SessionHasher};
use edge_session_component::wit;

const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The default deadline of a store operation.
const DEADLINE: Duration = Duration::from_secs(2);

/// A request extension that marks a TLS connection terminated by the gateway itself.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

/// A response extension that a [`SessionService`] sets when it answers itself because the session
/// failed.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The body's text, for gateways that want another format.
    pub text: String,
    /// Whether the change itself cannot be stored: it is not valid, or the session would be too
    /// large. The log has the reason.
    pub is_invalid: bool,
}

/// Gives every request a [`Session`] and every response its cookie.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use edge_session::{Component, Options, SessionLayer, store::MemoryStore};
///
/// let mut options = Options::default();
/// options.secret(std::env::var("EDGE_SESSION_SECRET")?);
/// let layer = SessionLayer::new(Component::bundled()?, options, MemoryStore::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionLayer {
    driver: Arc<Driver>,
    reads_only: bool,
}

impl SessionLayer {
    /// Checks the options, and joins the logic, usually a [`Component`](crate::Component), to a store. A store operation may take 2
    /// seconds.
    pub fn new(
        logic: impl Into<Logic>,
        options: Options,
        store: impl Store,
    ) -> Result<Self, OptionsError> {
        Self::with_deadline(logic, options, Arc::new(store), DEADLINE)
    }

    /// Creates a layer as [`Self::new`] does, with a shared store and another deadline for each of
    /// its operations. A request usually makes two.
    pub fn with_deadline(
        logic: impl Into<Logic>,
        options: Options,
        store: Arc<dyn Store>,
        deadline: Duration,
    ) -> Result<Self, OptionsError> {
        let driver = Arc::new(Driver::new(logic.into(), options, store, deadline)?);
        Ok(Self { driver, reads_only: false })
    }

    /// Makes the layer read-only, for sessions that another program owns: they are never created,
    /// changed or touched. Changes to a [`Session`] are discarded, and no cookie is sent.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { reads_only: true, ..self }
    }

    /// Checks whether the store answers; the error says why not.
    pub async fn check_store(&self) -> Result<(), String> {
        self.driver.store().check().await
    }

    /// Returns the number of sessions that this layer and its clones have created.
    pub fn sessions_created(&self) -> u64 {
        self.driver.created()
    }

    /// Returns the hasher that names sessions in logs.
    pub fn hasher(&self) -> &SessionHasher {
        self.driver.hasher()
    }

    /// Returns the options in force.
    pub fn options(&self) -> &InForce {
        self.driver.options()
    }
}

impl std::fmt::Debug for SessionLayer {
    /// Omits the options, which hold the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, driver: self.driver.clone(), reads_only: self.reads_only }
    }
}

/// A service wrapped by a [`SessionLayer`].
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    driver: Arc<Driver>,
    reads_only: bool,
}

impl<S: std::fmt::Debug> std::fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for SessionService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    RequestBody: Send + 'static,
    ResponseBody: From<String> + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        // Call the service that was polled ready, and leave its clone.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let (driver, reads_only) = (self.driver.clone(), self.reads_only);
        Box::pin(async move {
            let (session, stored) = match driver.begin(facts(&request), reads_only).await {
                Begun::Session(session, stored) => (session, stored),
                Begun::None => return inner.call(request).await,
                Begun::Failed(failure) => return Ok(refusal(failure)),
            };
            let (session, visit) = Session::new(session, stored.clone());
            request.extensions_mut().insert(session.clone());
            let mut response = inner.call(request).await?;
            if reads_only {
                return Ok(response);
            }
            // Runs to completion even if the client disconnects, so that a logout takes effect and
            // a renewal is not left half-done.
            let finish = driver.finish(visit, stored, Arc::new(session.change()));
            let outcome = match RunToCompletion::new(Box::pin(finish)).await {
                Ok(outcome) => outcome,
                Err(failure) => return Ok(refusal(failure)),
            };
            let headers = response.headers_mut();
            let set_cookie = outcome.set_cookie.and_then(|text| HeaderValue::try_from(text).ok());
            if let Some(set_cookie) = set_cookie {
                headers.append(SET_COOKIE, set_cookie);
                if outcome.no_store {
                    keep_private(headers);
                }
            }
            Ok(response)
        })
    }
}

fn facts<B>(request: &Request<B>) -> wit::Request {
    let headers = request.headers();
    wit::Request {
        cookies: cookies(headers),
        path: request.uri().path().to_owned(),
        tls: request.extensions().get::<Encrypted>().is_some(),
        secure: false,
        forwarded_proto: headers.get(X_FORWARDED_PROTO).map(|value| value.as_bytes().to_vec()),
    }
}

/// Returns the response to a request whose session failed. The log says why.
fn refusal<B: From<String>>(failure: wit::Failure) -> Response<B> {
    let wit::Failure { status, message, kind, .. } = failure;
    let mut response = Response::new(B::from(format!("{message}\n")));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_invalid = matches!(kind, wit::FailureKind::InvalidChange | wit::FailureKind::TooLarge);
    response.extensions_mut().insert(Refused { text: message, is_invalid });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
