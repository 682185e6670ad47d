//! Connections to an application, kept for later requests.
//!
//! The task that waits for a response also drives its connection: a separate task per connection
//! would spend more on wake-ups than on the connection's work.

use std::fmt::{Display, Formatter};
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service as _;

/// Less than the 5 s after which Node closes connections, so that the gateway closes them first.
const IDLE: Duration = Duration::from_secs(4);

/// How many bytes of a response are read ahead, and buffered while a client reads slowly. The
/// response's header must fit.
const READ_AHEAD: usize = 128 * 1024;

/// Where an application listens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AppAddress {
    /// Scheme and authority only.
    Url(Uri),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Display for AppAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(uri) => f.write_str(uri.authority().map_or("", |it| it.as_str())),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

impl Connector {
    /// Creates a connector. `limit` applies to opening a connection, including TLS.
    pub(crate) fn new(limit: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        // The system's certificates or those of SSL_CERT_FILE, else Mozilla's.
        let builder = match HttpsConnectorBuilder::new().with_native_roots() {
            Ok(builder) => builder,
            Err(_) => HttpsConnectorBuilder::new().with_webpki_roots(),
        };
        Self { inner: builder.https_or_http().enable_http1().wrap_connector(http), limit }
    }

    async fn connect(&self, address: &AppAddress) -> Result<Connection, BoxError> {
        let opening = async {
            match address {
                AppAddress::Url(uri) => {
                    let mut connector = self.inner.clone();
                    poll_fn(|context| connector.poll_ready(context)).await?;
                    begin(connector.call(uri.clone()).await?).await
                }
                AppAddress::Unix(path) => begin(TokioIo::new(reach(path).await?)).await,
            }
        };
        let late = |_| format!("no connection within {:?}", self.limit);
        timeout(self.limit, opening).await.map_err(late)?
    }
}

/// Connects to a unix socket. A full backlog is reported at once, so this retries.
async fn reach(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
}

async fn begin(io: impl Read + Write + Unpin + Send + 'static) -> Result<Connection, BoxError> {
    let (sender, driver) = http1::Builder::new().max_buf_size(READ_AHEAD).handshake(io).await?;
    Ok(Connection { sender, driver: Some(Box::pin(driver.with_upgrades())) })
}

/// Why there is no response.
pub(crate) enum SendError {
    /// The connection failed: nothing was sent.
    Connect(BoxError),
    Http(hyper::Error),
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

struct Connection {
    sender: SendRequest<Body>,
    /// Reads and writes; none after the connection has ended.
    driver: Option<Driver>,
}

impl Connection {
    /// Takes the request and sends it.
    async fn send(
        &mut self,
        request: &mut Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = pin!(self.sender.try_send_request(std::mem::take(request)));
        let driver = &mut self.driver;
        poll_fn(|context| {
            drive(driver, context);
            // Only the driver wakes this task.
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Returns whether an idle connection can take another request.
    fn is_free(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Waits until it can take another request; false if it never will.
    async fn until_free(&mut self) -> bool {
        poll_fn(|context| {
            drive(&mut self.driver, context);
            match &self.driver {
                Some(_) => self.sender.poll_ready(context).map(|ready| ready.is_ok()),
                None => Poll::Ready(false),
            }
        })
        .await
    }
}

/// Reads and writes what is possible. Errors surface in the request's future and the response's
/// body.
fn drive(driver: &mut Option<Driver>, context: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(context).is_ready()
    {
        *driver = None;
    }
}

/// The idle connections to one application, the most recent one last. Shared by clones.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<(Instant, Connection)>>>);

impl Pool {
    /// Takes the request and sends it over an idle connection, or over a new one to `address`. If a
    /// connection was closed before anything was sent, tries another one. Without `may_reuse`, the
    /// connection is new.
    pub(crate) async fn send(
        &self,
        connector: &Connector,
        address: &AppAddress,
        request: &mut Request<Body>,
        may_reuse: bool,
    ) -> Result<Response<Answer>, SendError> {
        loop {
            let kept = if may_reuse { self.take() } else { None };
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(kept) => kept,
                None => {
                    let connecting = Box::pin(connector.connect(address));
                    connecting.await.map_err(SendError::Connect)?
                }
            };
            let mut failed = match connection.send(request).await {
                Ok(response) => return Ok(self.answer(response, connection)),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unsent) if !is_new => *request = unsent,
                _ => return Err(SendError::Http(failed.into_error())),
            }
        }
    }

    fn answer(&self, response: Response<Incoming>, mut connection: Connection) -> Response<Answer> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Hands the connection over to the task that awaits the upgrade.
            if let Some(driver) = connection.driver.take() {
                tokio::spawn(driver);
            }
        }
        response.map(|body| {
            let mut answer = Answer { body, connection: Some(connection), pool: self.clone() };
            answer.release_at_end();
            answer
        })
    }

    fn take(&self) -> Option<Connection> {
        loop {
            // The lock is not held while the connection is checked.
            let (since, mut connection) = self.lock().pop()?;
            if since.elapsed() < IDLE && connection.is_free() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        self.lock().push((Instant::now(), connection));
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn close_idle(&self) {
        let mut connections = self.lock();
        let old = connections.iter().take_while(|(since, _)| since.elapsed() >= IDLE).count();
        let old: Vec<_> = connections.drain(..old).collect();
        drop(connections);
        drop(old);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a response. At its end, the connection becomes idle; if dropped earlier, the
/// connection is closed.
pub(crate) struct Answer {
    body: Incoming,
    connection: Option<Connection>,
    pool: Pool,
}

impl Answer {
    fn release_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            self.release(connection);
        }
    }

    fn release(&self, mut connection: Connection) {
        if connection.is_free() {
            self.pool.put(connection);
        } else if connection.driver.is_some() {
            // The application has responded before the whole request was sent.
            let pool = self.pool.clone();
            tokio::spawn(async move {
                if connection.until_free().await {
                    pool.put(connection);
                }
            });
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        // Polling for a frame lets the connection read one.
        let mut frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_pending()
            && let Some(connection) = &mut this.connection
        {
            drive(&mut connection.driver, context);
            frame = Pin::new(&mut this.body).poll_frame(context);
        }
        match &frame {
            Poll::Ready(Some(Ok(_))) => this.release_at_end(),
            Poll::Ready(None) => {
                if let Some(connection) = this.connection.take() {
                    this.release(connection);
                }
            }
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
