//! Connections to an application, which are kept for the next request.
//!
//! Whoever waits for an answer drives its connection, in the same task: with a task for each
//! connection, waking it and being woken by it cost more than all that it does.

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

/// Below the 5 s after which Node closes connections: the gateway closes them first.
const IDLE: Duration = Duration::from_secs(4);

/// How many bytes of an answer are read at a time, and as many wait to be sent while a client reads
/// slowly. Its header has to fit.
const READ_AHEAD: usize = 128 * 1024;

/// Where an application listens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AppAddress {
    /// Scheme and authority only.
    Url(Uri),
    /// The file of a unix socket.
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
    /// `limit` is for a connection to be open, TLS included.
    pub(crate) fn new(limit: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        // The system's certificates, or those of SSL_CERT_FILE; where there are none, Mozilla's.
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

/// Connect to a unix socket. Where as many wait there as may, it says so at once: wait, too.
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

/// Why there is no answer.
pub(crate) enum SendError {
    /// There is no connection: nothing was sent.
    Connect(BoxError),
    Http(hyper::Error),
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

struct Connection {
    sender: SendRequest<Body>,
    /// Reads and writes; none once the connection has ended.
    driver: Option<Driver>,
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        poll_fn(|context| {
            drive(driver, context);
            // Nobody but the driver wakes it.
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Whether it can take another request, when nothing more is expected of it.
    fn is_free(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Wait until it can take another request; false: it never will.
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

/// Read and write what can be. Errors come out at the request's future and its answer's body.
fn drive(driver: &mut Option<Driver>, context: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(context).is_ready()
    {
        *driver = None;
    }
}

/// The connections to one application that no request uses, the latest one last. Clones are
/// the same.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<(Instant, Connection)>>>);

impl Pool {
    /// Send a request over a free connection, or over a new one to `address`. A connection that
    /// was closed before anything was sent is no error while there are others.
    pub(crate) async fn send(
        &self,
        connector: &Connector,
        address: &AppAddress,
        mut request: Request<Body>,
    ) -> Result<Response<Answer>, SendError> {
        loop {
            let kept = self.take();
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(kept) => kept,
                None => connector.connect(address).await.map_err(SendError::Connect)?,
            };
            let mut failed = match connection.send(request).await {
                Ok(response) => return Ok(self.answer(response, connection)),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(SendError::Http(failed.into_error())),
            }
        }
    }

    fn answer(&self, response: Response<Incoming>, mut connection: Connection) -> Response<Answer> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // It is handed over to whoever awaits the upgrade.
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
            // Not locked while the connection is looked at.
            let (since, mut connection) = self.lock().pop()?;
            if since.elapsed() < IDLE && connection.is_free() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        self.lock().push((Instant::now(), connection));
    }

    /// Close what was not used for a while.
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

/// The body of an answer. When it ends, its connection is free; when it is dropped before,
/// the connection is closed.
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
            // The application has answered before the whole request was sent.
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
        // Asking for a frame lets the connection read one.
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
