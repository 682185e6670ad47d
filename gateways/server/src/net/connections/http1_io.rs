//! What hyper's server of HTTP/1 cannot do: it refuses queries that nginx and Node pass on, and it
//! sends no interim responses. Both are done here, between the connection and hyper.
//!
//! # When bytes are changed
//!
//! Only in a request line, where escaping a byte does not change where messages begin and end. A
//! line is looked for when hyper can have nothing of the next request in its buffer and reads no
//! more of the last one: at the beginning of a connection, and when the last request has been read
//! to its end and its response has ended. A client that sends requests before they are due
//! (pipelining) is served as by hyper alone.
//!
//! # When interim responses are sent
//!
//! Between a request's head and its response's, when hyper has nothing to write: it reads the next
//! request only after it has written the last response. What is waiting goes out before whatever
//! hyper writes next.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http::header::{CONTENT_SECURITY_POLICY, LINK};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::query;

/// The fields of an interim response that are passed on: those that browsers use.
const INTERIM_FIELDS: [http::HeaderName; 2] = [LINK, CONTENT_SECURITY_POLICY];

/// How much an interim response may have, so that clients that wait need not store more.
const MAX_INTERIM_BYTES: usize = 16 * 1024;

/// The state of a connection, which hyper's two sides share.
#[derive(Default)]
struct Shared {
    /// Whether the next bytes that are read are a request line.
    is_line_next: AtomicBool,
    /// Whether the current request has been read to its end.
    is_read: AtomicBool,
    /// Interim responses to send.
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
}

impl Shared {
    fn interim(&self) -> MutexGuard<'_, Vec<u8>> {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of a connection where requests are answered.
#[derive(Clone)]
pub(super) struct Requests(Arc<Shared>);

impl Requests {
    /// Notes that a request's head has been read.
    pub(super) fn begin<B>(&self, request: Request<B>) -> Request<Body>
    where
        B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
    {
        self.0.is_line_next.store(false, Ordering::Relaxed);
        self.0.is_read.store(request.body().is_end_stream(), Ordering::Relaxed);
        let interim = Interim(self.0.clone());
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(Received { body, shared: self.0.clone() }),
        });
        // Clients of HTTP/1.0 do not know them (RFC 9110, section 15.2).
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(interim);
        }
        request
    }

    /// Returns a guard that is dropped when a response with this status has ended.
    pub(super) fn answer(&self, status: StatusCode) -> Option<Answered> {
        // What follows is another protocol.
        let is_last = status == StatusCode::SWITCHING_PROTOCOLS;
        (!is_last).then(|| Answered(self.0.clone()))
    }
}

/// A response, until it has ended.
pub(super) struct Answered(Arc<Shared>);

impl Drop for Answered {
    fn drop(&mut self) {
        let is_read = self.0.is_read.load(Ordering::Relaxed);
        self.0.is_line_next.store(is_read, Ordering::Relaxed);
    }
}

/// Sends interim responses to a request.
#[derive(Clone)]
pub(crate) struct Interim(Arc<Shared>);

impl Interim {
    /// Sends an application's interim response, as far as browsers use it (RFC 8297).
    pub(crate) fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if status != StatusCode::EARLY_HINTS {
            return;
        }
        let mut text = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
        let before = text.len();
        for (name, value) in headers.iter().filter(|(name, _)| INTERIM_FIELDS.contains(name)) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
        if text.len() > before && text.len() <= MAX_INTERIM_BYTES {
            text.extend_from_slice(b"\r\n");
            let mut interim = self.0.interim();
            // A client that does not read does not make them pile up.
            if interim.len() + text.len() <= MAX_INTERIM_BYTES {
                interim.extend_from_slice(&text);
                self.0.has_interim.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// A request's body.
struct Received<B> {
    body: B,
    shared: Arc<Shared>,
}

impl<B: http_body::Body> Received<B> {
    fn look(&self) {
        if self.body.is_end_stream() {
            self.shared.is_read.store(true, Ordering::Relaxed);
        }
    }
}

impl<B> http_body::Body for Received<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match frame {
            None => self.shared.is_read.store(true, Ordering::Relaxed),
            Some(_) => self.look(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The side of a connection where hyper reads and writes.
pub(super) struct Http1<IO> {
    io: IO,
    shared: Arc<Shared>,
    line: query::Line,
    /// Bytes that were read, and did not fit into the reader's buffer after escaping.
    rest: Vec<u8>,
    /// Interim responses that are being written.
    writing: Vec<u8>,
}

impl<IO> Http1<IO> {
    /// Returns both sides of a connection.
    pub(super) fn new(io: IO) -> (Self, Requests) {
        let shared = Arc::new(Shared::default());
        shared.is_line_next.store(true, Ordering::Relaxed);
        let line = query::Line::default();
        (Self { io, shared: shared.clone(), line, rest: vec![], writing: vec![] }, Requests(shared))
    }
}

impl<IO: AsyncWrite + Unpin> Http1<IO> {
    /// Writes the interim responses that are waiting.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.writing.is_empty() {
                if !self.shared.has_interim.swap(false, Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                self.writing = std::mem::take(&mut *self.shared.interim());
            }
            while !self.writing.is_empty() {
                let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.writing))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.writing.drain(..count);
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Http1<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            let count = this.rest.len().min(buffer.remaining());
            buffer.put_slice(&this.rest[..count]);
            this.rest.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        if this.shared.is_line_next.load(Ordering::Relaxed) {
            if let Some(escaped) = this.line.escape(&buffer.filled()[before..]) {
                buffer.set_filled(before);
                let count = escaped.len().min(buffer.remaining());
                buffer.put_slice(&escaped[..count]);
                this.rest = escaped[count..].to_vec();
            }
            if this.line.has_ended() {
                this.line = query::Line::default();
                this.shared.is_line_next.store(false, Ordering::Relaxed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Http1<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
