//! Connections: who may come in, for how long, and how they are let go.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use edge_session::Encrypted;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

use crate::tls::Tls;

/// How HTTP/2 begins where TLS has not agreed on it (RFC 9113, section 3.3).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

const MAX_HTTP2_STREAMS: u32 = 128;

/// What clients may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// How many connections may be open; more wait.
    pub(crate) connections: usize,
    /// The largest header of a request, in bytes.
    pub(crate) header_bytes: usize,
    /// How long the next request's header may take, from the opening of the connection or
    /// the end of the last response on.
    pub(crate) header: Duration,
    /// How long a client may leave what it is sent.
    pub(crate) idle: Duration,
    /// How long what is open may go on after a signal to stop.
    pub(crate) drain: Duration,
}

/// The connection that a request came by. It counts as open as long as a clone is kept.
#[derive(Clone)]
pub(crate) struct Peer {
    connection: Arc<Connection>,
    /// Who resets a stream does not have its request's place before that has ended.
    _stream: Option<Arc<OwnedSemaphorePermit>>,
}

pub(crate) struct Connection {
    pub(crate) address: IpAddr,
    pub(crate) tls: bool,
    /// How many whole headers of requests have come.
    requests: AtomicU64,
    /// How many more requests may be at work. Of HTTP/1 there is one at a time.
    streams: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Peer {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Serve until `stop`, and then until all is done or the time for that is over.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    tls: Option<Tls>,
    limits: Limits,
    service: S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let free = Arc::new(Semaphore::new(limits.connections));
    let (close_idle, idle_closing) = watch::channel(());
    let is_draining = Arc::new(AtomicBool::new(false));
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &free) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, address, permit)) = accepted else { continue };
        let guest = Guest {
            peer: address.ip(),
            tls: tls.clone(),
            limits,
            service: service.clone(),
            idle_closing: idle_closing.clone(),
            is_draining: is_draining.clone(),
        };
        tokio::spawn(guest.welcome(stream, permit));
    }
    // Whoever comes now shall come to another process.
    drop(listener);
    let open = || limits.connections - free.available_permits();
    tracing::info!("stopping: {} connections are open", open());
    is_draining.store(true, Ordering::Relaxed);
    let all_closed = async {
        let most = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        let _ = free.acquire_many(most).await;
    };
    let drained = async {
        let mut all_closed = pin!(all_closed);
        // Clients learn by the answers to their next requests that these are the last ones.
        // Who sends none in a while has its connection closed, as after any idle time.
        if timeout(limits.drain / 10, &mut all_closed).await.is_ok() {
            return;
        }
        close_idle.send_replace(());
        all_closed.await;
    };
    if timeout(limits.drain, drained).await.is_err() {
        let seconds = limits.drain.as_secs_f32();
        tracing::warn!("{} connections did not end within {seconds} s", open());
    }
}

/// The next connection, as soon as there may be one more.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = match free.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            metrics::counter!("edge_session_connections_full_total").increment(1);
            tracing::warn!("all connections that may be open are open: new ones wait");
            free.clone().acquire_owned().await.ok()?
        }
    };
    match listener.accept().await {
        Ok((stream, address)) => {
            // Without it small answers may wait for an acknowledgement.
            let _ = stream.set_nodelay(true);
            Some((stream, address, permit))
        }
        Err(error) => {
            // Out of file descriptors, as a rule: it passes when connections end.
            tracing::error!("a connection cannot be accepted: {error}");
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// What a connection needs.
struct Guest<S> {
    peer: IpAddr,
    tls: Option<Tls>,
    limits: Limits,
    service: S,
    idle_closing: watch::Receiver<()>,
    is_draining: Arc<AtomicBool>,
}

impl<S> Guest<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    async fn welcome(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let limit = self.limits.header;
        let connection = |tls| {
            let connection = Connection {
                address: self.peer,
                tls,
                requests: AtomicU64::new(0),
                streams: Arc::new(Semaphore::new(MAX_HTTP2_STREAMS as usize)),
                _permit: permit,
            };
            Peer { connection: Arc::new(connection), _stream: None }
        };
        match &self.tls {
            None => match timeout(limit, speaks_http2(&stream)).await {
                Ok(Ok(http2)) => {
                    let peer = connection(false);
                    self.talk(stream, http2, peer).await;
                }
                Ok(Err(_)) => {}
                Err(_) => refused("slow"),
            },
            Some(tls) => match timeout(limit, tls.accept(stream)).await {
                Ok(Ok((stream, http2))) => {
                    let peer = connection(true);
                    self.talk(stream, http2, peer).await;
                }
                Ok(Err(error)) => {
                    refused("tls");
                    tracing::debug!("a TLS handshake failed: {error}");
                }
                Err(_) => refused("slow"),
            },
        }
    }

    async fn talk<IO>(self, io: IO, is_http2: bool, peer: Peer)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { limits, service, idle_closing, is_draining, .. } = self;
        let connection = peer.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            let is_http1 = request.version() < Version::HTTP_2;
            let extensions = request.extensions_mut();
            if peer.tls {
                extensions.insert(Encrypted);
            }
            peer.requests.fetch_add(1, Ordering::Relaxed);
            let (mut peer, mut service) = (peer.clone(), service.clone());
            let is_draining = is_draining.clone();
            async move {
                if !is_http1 {
                    // The semaphore is never closed.
                    let stream = peer.streams.clone().acquire_owned().await.ok();
                    peer._stream = stream.map(Arc::new);
                }
                request.extensions_mut().insert(peer);
                let mut response = service.call(request).await?;
                if is_http1 && is_draining.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().entry(CONNECTION).or_insert(close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        // A client that does not take its answer must not keep it for good.
        let mut io = Box::pin(TimeoutStream::new(io));
        io.as_mut().set_write_timeout_pinned(Some(limits.idle));
        let io = TokioIo::new(io);
        let result = if is_http2 {
            let serving = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_HTTP2_STREAMS)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .keep_alive_interval(limits.header)
                .keep_alive_timeout(limits.header)
                .serve_connection(io, service);
            let watched = until_closed(serving, idle_closing, |it| it.graceful_shutdown());
            let mut watched = pin!(watched);
            // hyper has no limit on how long an HTTP/2 client may say nothing.
            tokio::select! {
                result = &mut watched => result,
                () = sleep(limits.header) => {
                    if connection.requests.load(Ordering::Relaxed) == 0 {
                        return refused("slow");
                    }
                    watched.await
                }
            }
        } else {
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header)
                .max_buf_size(limits.header_bytes)
                .serve_connection(io, service)
                .with_upgrades();
            until_closed(serving, idle_closing, |it| it.graceful_shutdown()).await
        };
        if let Err(error) = result {
            if error.is_parse() {
                refused("malformed");
                tracing::info!("a request was not HTTP: {error}");
            } else if error.is_timeout() {
                // After the first request, a slow one cannot be told from none.
                if connection.requests.load(Ordering::Relaxed) == 0 {
                    refused("slow");
                }
                tracing::debug!("a connection was closed: {error}");
            } else {
                tracing::debug!("a connection ended early: {error}");
            }
        }
    }
}

/// Drive a connection to its end; once idle ones are to be closed, to that of its requests.
async fn until_closed<C: Future>(
    connection: C,
    mut idle_closing: watch::Receiver<()>,
    close: impl FnOnce(Pin<&mut C>),
) -> C::Output {
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        _ = idle_closing.changed() => {}
    }
    close(connection.as_mut());
    connection.await
}

fn refused(reason: &'static str) {
    metrics::counter!("edge_session_refused_total", "reason" => reason).increment(1);
}

/// Whether a connection begins as HTTP/2 does. Nothing of it is consumed.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut begin = [0; HTTP2_PREFACE.len()];
    loop {
        let count = stream.peek(&mut begin).await?;
        if begin[..count] != HTTP2_PREFACE[..count] || count == 0 {
            return Ok(false);
        }
        if count == begin.len() {
            return Ok(true);
        }
        // The rest is on its way; there is no waiting for "more than this".
        sleep(Duration::from_millis(5)).await;
    }
}
