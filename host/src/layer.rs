//! The tower layer, which gives every request a session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use edge_session_headers::keep_private;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::bindings::exports::edge::session::engine as wit;
use crate::component::Component;
use crate::driver::{Begun, Driver};
use crate::error::OptionsError;
use crate::run_to_completion::RunToCompletion;
use crate::store::Store;
use crate::{Options, Session, SessionHasher};

const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The default deadline of a store operation.
const DEADLINE: Duration = Duration::from_secs(2);

/// A request extension that marks a TLS connection terminated by the gateway itself.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

/// A response extension that a [`SessionService`] sets when it answers itself because the session
/// failed. It holds the body's text, for gateways that want another format.
#[derive(Clone, Copy, Debug)]
pub struct Refused(pub &'static str);

/// Gives every request a [`Session`] and every response its cookie.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use edge_session::{Component, Preset, SessionLayer, store::MemoryStore};
///
/// let component = Component::bundled()?;
/// let mut options = component.defaults(Preset::Safe)?;
/// options.secrets = vec![std::env::var("EDGE_SESSION_SECRET")?.into_bytes()];
/// let layer = SessionLayer::new(component, options, MemoryStore::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionLayer {
    driver: Arc<Driver>,
    reads_only: bool,
}

impl SessionLayer {
    /// Checks the options, and joins the component to a store. A store operation may take 2
    /// seconds.
    pub fn new(
        component: Component,
        options: Options,
        store: impl Store,
    ) -> Result<Self, OptionsError> {
        Self::with_deadline(component, options, Arc::new(store), DEADLINE)
    }

    /// Creates a layer as [`Self::new`] does, with a shared store and another deadline for each of
    /// its operations. A request usually makes two.
    pub fn with_deadline(
        component: Component,
        options: Options,
        store: Arc<dyn Store>,
        deadline: Duration,
    ) -> Result<Self, OptionsError> {
        let driver = Arc::new(Driver::new(component, options, store, deadline)?);
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
    pub fn options(&self) -> &Options {
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
    ResponseBody: From<&'static str> + Send + 'static,
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
            let (session, known) = match driver.begin(&facts(&request), reads_only).await {
                Begun::Session(session, known) => (*session, known),
                Begun::None => return inner.call(request).await,
                Begun::Failed(failure) => return Ok(refusal(&failure)),
            };
            let (session, exchange) = Session::new(session);
            request.extensions_mut().insert(session.clone());
            let mut response = inner.call(request).await?;
            if reads_only {
                return Ok(response);
            }
            // Runs to completion even if the client disconnects, so that a logout takes effect and
            // a renewal is not left half-done.
            let change = session.change();
            let finish = Box::pin(async move { driver.finish(exchange, known, change).await });
            let outcome = RunToCompletion::new(finish).await;
            if let Some(failure) = &outcome.failure {
                return Ok(refusal(failure));
            }
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
        cookies: headers.get_all(COOKIE).iter().map(|value| value.as_bytes().to_vec()).collect(),
        path: request.uri().path().to_owned(),
        tls: request.extensions().get::<Encrypted>().is_some(),
        secure: false,
        forwarded_proto: headers.get(X_FORWARDED_PROTO).map(|value| value.as_bytes().to_vec()),
    }
}

/// Returns the response to a request whose session failed. The log says why.
fn refusal<B: From<&'static str>>(failure: &wit::Failure) -> Response<B> {
    let (status, text) = match failure {
        wit::Failure::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Sessions are unavailable. Please try again.\n")
        }
        wit::Failure::Contention => {
            let text = "The session has changed meanwhile. Please reload the page.\n";
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        wit::Failure::InvalidChange(_) | wit::Failure::TooLarge(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "The session could not be saved.\n")
        }
    };
    let mut response = Response::new(B::from(text));
    *response.status_mut() = status;
    response.extensions_mut().insert(Refused(text.trim_end()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
