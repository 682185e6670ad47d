//! Connections: accepting, limits, timeouts and draining.

mod frames;
mod heads;
mod http1_io;
mod http2_io;
mod places;
mod portions;
mod streams;

use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::IntoResponse as _;
use edge_session::Encrypted;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, join};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

use self::http1_io::Http1;
pub(crate) use self::http1_io::Interim;
use self::http2_io::Http2;
pub(crate) use self::places::{Bounds, Connection, Full, client_of};
use self::places::{Place, Places};
use self::streams::{Offered, Streams};
use crate::net::address::{self, Listener, Stream};
use crate::net::tls::Tls;

/// The maximum number of concurrent requests per connection. A smaller one slows down pages with
/// many images (RFC 9113, section 6.5.2).
const MAX_HTTP2_STREAMS: u32 = 128;

/// The maximum size of a request's header in HTTP/2. Decompressed, it may be a thousand times as
/// large as what was sent.
const HTTP2_HEADER_BYTES: usize = 32 * 1024;

/// The maximum number of fields, as in HTTP/1, not counting cookies, which HTTP/2 may split.
const HTTP2_FIELDS: usize = 100;

/// How much a connection buffers of request bodies that the application has not read, and of each
/// response that the client has not read.
const HTTP2_WINDOW: u32 = 256 * 1024;
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// Limits on clients.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) bounds: Bounds,
    /// The maximum size of a request's header, in bytes.
    pub(crate) header_bytes: usize,
    /// The time limit for the next request's header, from the opening of the connection or the end
    /// of the previous response.
    pub(crate) header: Duration,
    /// How long a client may take to read data that was sent.
    pub(crate) idle: Duration,
    /// How long open connections may continue after a signal to stop.
    pub(crate) drain: Duration,
}

/// The connection of a request. Both keep their places while a clone exists.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Place>);

impl Deref for Peer {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.connection
    }
}

/// The service that answers requests.
pub(crate) trait Answers:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Answers a request of a client at `address` that was refused.
    fn turn_away(&self, request: Request<Body>, address: IpAddr, why: TurnedAway)
    -> Response<Body>;
}

impl Answers for Router {
    fn turn_away(&self, _: Request<Body>, _: IpAddr, why: TurnedAway) -> Response<Body> {
        refused(why.reason());
        let (status, text) = why.status_and_text();
        (status, [(CACHE_CONTROL, "no-store")], format!("{text}\n")).into_response()
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TurnedAway {
    TooManyFields,
    Full(Full),
}

impl TurnedAway {
    /// Returns the reason for logs and counters.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooManyFields => "too-many-fields",
            Self::Full(full) => full.reason(),
        }
    }

    pub(crate) fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            Self::TooManyFields => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The request has too many header fields.",
            ),
            Self::Full(_) => {
                let text = "Too many requests are in progress. Please try again.";
                (StatusCode::SERVICE_UNAVAILABLE, text)
            }
        }
    }
}

/// Serves until `stop`, and then drains connections within the time limit.
pub(crate) async fn serve(
    listener: Listener,
    tls: Option<Tls>,
    limits: Limits,
    service: impl Answers,
    stop: impl Future<Output = ()>,
) {
    let places = Places::new(limits.bounds.clone());
    let (close_idle, idle_closing) = watch::channel(());
    let is_draining = Arc::new(AtomicBool::new(false));
    let drain = limits.drain;
    let limits = Arc::new(limits);
    let mut stop = pin!(stop);
    let mut is_crowded = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places, tls.is_some()) => accepted,
            () = &mut stop => break,
        };
        // Not always: connections that the system keeps are lost when the program stops.
        if is_crowded != places.are_crowded(is_crowded) {
            is_crowded = !is_crowded;
            listener.defer_accept(is_crowded);
        }
        let Some((stream, connection)) = accepted else { continue };
        let accepted = Accepted {
            connection,
            tls: tls.clone(),
            limits: limits.clone(),
            service: service.clone(),
            idle_closing: idle_closing.clone(),
            is_draining: is_draining.clone(),
        };
        tokio::spawn(accepted.welcome(stream));
        // Lets the requests in progress proceed while many connections arrive.
        yield_now().await;
    }
    // From now on, new clients must reach another process.
    drop(listener);
    tracing::info!("stopping: {} connections are open", places.open());
    is_draining.store(true, Ordering::Relaxed);
    let drained = async {
        let mut all_closed = pin!(places.all_closed());
        // Clients learn from the response to their next request that it is the last one.
        // Connections without requests are then closed as idle.
        if timeout(drain / 10, &mut all_closed).await.is_ok() {
            return;
        }
        close_idle.send_replace(());
        all_closed.await;
    };
    if timeout(drain, drained).await.is_err() {
        let seconds = drain.as_secs_f32();
        tracing::warn!("{} connections did not end within {seconds} s", places.open());
    }
}

/// Accepts the next connection, and waits for a place for it.
async fn accept(
    listener: &Listener,
    places: &Arc<Places>,
    tls: bool,
) -> Option<(Stream, Arc<Connection>)> {
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, places.admit(address, tls).await)),
        // The client has disconnected: no need to pause.
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => None,
        Err(error) => {
            // Usually out of file descriptors, which are freed as connections close.
            tracing::error!("a connection cannot be accepted: {error}");
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// The parts of an accepted connection.
struct Accepted<S> {
    connection: Arc<Connection>,
    tls: Option<Tls>,
    limits: Arc<Limits>,
    service: S,
    idle_closing: watch::Receiver<()>,
    is_draining: Arc<AtomicBool>,
}

impl<S: Answers> Accepted<S> {
    // An idle connection keeps its task's memory, which has room for the largest of all stages. So
    // the handshake and the connections of either protocol are in boxes of their own.

    async fn welcome(self, stream: Stream) {
        let connection = self.connection.clone();
        tokio::select! {
            () = self.greet(stream) => {}
            () = connection.must_leave() => {}
        }
    }

    async fn greet(self, mut stream: Stream) {
        let limit = self.limits.header;
        match self.tls.clone() {
            None => match timeout(limit, preface(&mut stream)).await {
                Ok(Ok((is_http2, begin))) => {
                    let (read, write) = address::split(stream).into_inner();
                    let stream = join(Begun { begin, rest: read }, write);
                    self.talk(stream, is_http2).await;
                }
                Ok(Err(_)) => {}
                Err(_) => refused("slow"),
            },
            Some(tls) => match Box::pin(timeout(limit, tls.accept(stream))).await {
                Ok(Ok((stream, is_http2))) => self.talk(stream, is_http2).await,
                Ok(Err(error)) => {
                    refused("tls");
                    tracing::debug!("a TLS handshake failed: {error}");
                }
                Err(_) => refused("slow"),
            },
        }
    }

    async fn talk<IO>(self, io: IO, is_http2: bool)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { connection, limits, service, idle_closing, is_draining, .. } = self;
        let answered = {
            let connection = connection.clone();
            move |request: Request<Body>| {
                connection.requests.fetch_add(1, Ordering::Relaxed);
                let (connection, service) = (connection.clone(), service.clone());
                answer(connection, is_draining.clone(), service, request)
            }
        };
        // A client that does not read its response must not hold the connection forever.
        let mut io = Box::pin(TimeoutStream::new(io));
        io.as_mut().set_write_timeout_pinned(Some(limits.idle));
        let result = if is_http2 {
            let header_bytes = limits.header_bytes.min(HTTP2_HEADER_BYTES);
            let service =
                service_fn(move |request: Request<Incoming>| answered(request.map(Body::new)));
            let io = Http2::new(io, !connection.is_exempt());
            let serving = http2::Builder::new(Streams { idle: limits.idle })
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_HTTP2_STREAMS)
                .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
                .initial_stream_window_size(HTTP2_WINDOW)
                .initial_connection_window_size(HTTP2_WINDOW)
                .max_send_buf_size(HTTP2_SEND_BUFFER)
                .keep_alive_interval(limits.header)
                .keep_alive_timeout(limits.header)
                .serve_connection(TokioIo::new(io), service);
            // hyper has no idle timeout for HTTP/2 connections.
            let serving = Box::pin(serving);
            let serving = while_busy(serving, &connection, limits.header, idle_closing, |it| {
                it.graceful_shutdown()
            });
            match serving.await {
                Some(result) => result,
                None if connection.requests.load(Ordering::Relaxed) == 0 => return refused("slow"),
                None => {
                    return tracing::debug!(
                        "a client kept its connection open although asked to close it"
                    );
                }
            }
        } else {
            let (io, requests) = Http1::new(io);
            let service = service_fn(move |mut request: Request<Incoming>| {
                requests.begin(&mut request);
                let (requests, answer) = (requests.clone(), answered(request.map(Body::new)));
                async move {
                    let response = answer.await;
                    requests.end().await;
                    response
                }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header)
                .max_buf_size(limits.header_bytes)
                .serve_connection(TokioIo::new(io), service)
                .with_upgrades();
            until_closed(Box::pin(serving), idle_closing, |it| it.graceful_shutdown()).await
        };
        if let Err(error) = result {
            if error.is_parse() {
                refused("malformed");
                tracing::info!("a request was not valid HTTP: {error}");
            } else if error.is_timeout() {
                // After the first request, a slow one is indistinguishable from an idle connection.
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

/// Answers a request, if there is a place for it.
async fn answer(
    connection: Arc<Connection>,
    is_draining: Arc<AtomicBool>,
    mut service: impl Answers,
    mut request: Request<Body>,
) -> Result<Response<Placed>, Infallible> {
    let is_http1 = request.version() < Version::HTTP_2;
    let is_head = *request.method() == Method::HEAD;
    let complete = |response: Response<Body>, peer| {
        // hyper does this only for HTTP/1.
        let response = if is_head && !is_http1 { without_body(response) } else { response };
        response.map(|body| Placed { body, _peer: peer })
    };
    let turn_away =
        |request, why| complete(service.turn_away(request, connection.address, why), None);
    if !is_http1 && has_too_many_fields(request.headers()) {
        return Ok(turn_away(request, TurnedAway::TooManyFields));
    }
    let came = Instant::now();
    let place = match connection.clone().enter().await {
        Ok(place) => place,
        Err(full) => {
            let (address, whose) = (connection.address, full.whose());
            tracing::warn!("a request from {address} was refused: {whose}");
            // Only the response is held back: the request's memory is freed first.
            let mut response = turn_away(request, TurnedAway::Full(full));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            connection.hold(came).await;
            return Ok(response);
        }
    };
    let peer = Peer(Arc::new(place));
    let extensions = request.extensions_mut();
    if peer.tls {
        extensions.insert(Encrypted);
    }
    extensions.insert(peer.clone());
    let unanswered = peer.0.connection.clone().unanswered();
    let Ok(mut response) = service.call(request).await;
    unanswered.answered();
    if is_http1 && is_draining.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().entry(CONNECTION).or_insert(close);
    }
    Ok(complete(response, Some(peer)))
}

/// Returns the response to HEAD: with the body's length but without the body (RFC 9110, section
/// 9.3.2).
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        head.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(head, Body::empty())
}

fn has_too_many_fields(headers: &HeaderMap) -> bool {
    // Counts every field, including those with the same name.
    let cookies = headers.get_all(COOKIE).iter().count();
    headers.len() - cookies > HTTP2_FIELDS
}

/// A response body that holds the request's place until it ends.
struct Placed {
    body: Body,
    _peer: Option<Peer>,
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Offered::nothing();
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            Offered::something();
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

/// Drives a connection to its end. When idle connections are to be closed, ends it after its
/// current requests.
async fn until_closed<C: Future>(
    mut connection: Pin<Box<C>>,
    mut idle_closing: watch::Receiver<()>,
    close: impl FnOnce(Pin<&mut C>),
) -> C::Output {
    tokio::select! {
        result = &mut connection => return result,
        _ = idle_closing.changed() => {}
    }
    close(connection.as_mut());
    connection.await
}

/// Drives a connection as [`until_closed`] does, and also closes it after `limit` without a
/// request. Returns none if the connection had no request at all, or stayed open for another
/// `limit`.
async fn while_busy<C: Future>(
    mut connection: Pin<Box<C>>,
    peer: &Connection,
    limit: Duration,
    mut idle_closing: watch::Receiver<()>,
    close: impl FnOnce(Pin<&mut C>),
) -> Option<C::Output> {
    let is_quiet = tokio::select! {
        result = &mut connection => return Some(result),
        _ = idle_closing.changed() => false,
        () = peer.quiet_for(limit, Instant::now()) => true,
    };
    if is_quiet && peer.requests.load(Ordering::Relaxed) == 0 {
        return None;
    }
    close(connection.as_mut());
    tokio::select! {
        result = &mut connection => Some(result),
        () = peer.quiet_for(limit, Instant::now()) => None,
    }
}

fn refused(reason: &'static str) {
    metrics::counter!("edge_session_refused_total", "reason" => reason).increment(1);
}

/// A stream whose beginning was already read.
struct Begun<R> {
    begin: Vec<u8>,
    rest: R,
}

impl<R: AsyncRead + Unpin> AsyncRead for Begun<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.begin.is_empty() {
            return Pin::new(&mut self.rest).poll_read(context, buffer);
        }
        let count = self.begin.len().min(buffer.remaining());
        buffer.put_slice(&self.begin[..count]);
        self.begin = self.begin.split_off(count);
        // What has come meanwhile follows in the same read: hyper doubles its buffer, for as long
        // as the connection lasts, if the first read ends in the middle of a request's head.
        match buffer.remaining() {
            0 => Poll::Ready(Ok(())),
            _ => match Pin::new(&mut self.rest).poll_read(context, buffer) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
            },
        }
    }
}

/// Reads the beginning of a connection where TLS has not negotiated the protocol, and returns
/// whether it is the HTTP/2 preface, with the bytes read.
async fn preface(stream: &mut Stream) -> std::io::Result<(bool, Vec<u8>)> {
    let mut begin = Vec::with_capacity(frames::PREFACE.len());
    while begin.len() < frames::PREFACE.len() {
        let missing = frames::PREFACE.len() - begin.len();
        let count = (&mut *stream).take(missing as u64).read_buf(&mut begin).await?;
        if count == 0 || !frames::PREFACE.starts_with(&begin) {
            return Ok((false, begin));
        }
    }
    Ok((true, begin))
}
