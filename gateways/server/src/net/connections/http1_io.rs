//! What hyper's server of HTTP/1 cannot do: it refuses queries that nginx and Node pass on, and it
//! sends no interim responses. Both are done here, between the connection and hyper.
//!
//! # When bytes are changed
//!
//! Only in a request line. Where one begins is known exactly, or nothing is changed: from a line,
//! heads are followed to the empty line that ends them (RFC 9112, section 2.1), hyper gets no byte
//! behind it before it has parsed the head, and then says how long the body is. After a request
//! whose end only hyper knows (chunks), or which may change the protocol, the rest of the connection
//! passes as it is.
//!
//! # When interim responses are sent
//!
//! When hyper flushes the connection, which it does with nothing left to write, and as long as it
//! has not got the response: what is waiting then comes behind the last response and before this one.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, LINK, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

use super::heads::{Heads, Next};
use super::portions::Portions;

/// The fields of an interim response that are passed on: those that browsers use.
const INTERIM_FIELDS: [HeaderName; 2] = [LINK, CONTENT_SECURITY_POLICY];

/// How much of interim responses may wait until it is written.
const MAX_INTERIM_BYTES: usize = 16 * 1024;

/// How much is read at a time, except from a body of known length. It may belong to a head, of which
/// hyper looks at each byte: after so much, the requests of others get their turn.
const MAX_READ_BYTES: usize = 16 * 1024;

/// The state of a connection, which hyper's two sides share.
#[derive(Default)]
struct Shared {
    /// What follows the head that hyper has parsed last, until it is used.
    next: Mutex<Option<Next>>,
    /// Interim responses to send.
    interim: Mutex<Vec<u8>>,
}

/// The side of a connection where requests are answered.
#[derive(Clone)]
pub(super) struct Requests(Arc<Shared>);

impl Requests {
    /// Notes what follows the head of a request, and lets it be sent interim responses.
    pub(super) fn begin<B: http_body::Body>(&self, request: &mut Request<B>) {
        let may_switch =
            request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
        let length = request.body().size_hint().exact().filter(|_| !may_switch);
        *lock(&self.0.next) = Some(length.map_or(Next::Unknown, Next::Body));
        // Clients of HTTP/1.0 do not know them (RFC 9110, section 15.2).
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(Interim(self.0.clone()));
        }
    }

    /// Notes that a response is there. What is still waiting is sent before it, if that is possible
    /// at once.
    pub(super) async fn end(&self) {
        if !lock(&self.0.interim).is_empty() {
            // hyper flushes while this is pending.
            yield_now().await;
            lock(&self.0.interim).clear();
        }
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
        if text.len() == before {
            return;
        }
        text.extend_from_slice(b"\r\n");
        let mut interim = lock(&self.0.interim);
        if interim.len() + text.len() <= MAX_INTERIM_BYTES {
            interim.extend_from_slice(&text);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The side of a connection where hyper reads and writes.
pub(super) struct Http1<IO> {
    io: IO,
    shared: Arc<Shared>,
    heads: Heads,
    /// Bytes for hyper, as it gets them.
    ready: Bytes,
    /// Bytes that were read and come behind those.
    later: Bytes,
    /// Interim responses that are being written.
    writing: Bytes,
    portions: Portions,
}

impl<IO> Http1<IO> {
    /// Returns both sides of a connection.
    pub(super) fn new(io: IO) -> (Self, Requests) {
        let shared = Arc::<Shared>::default();
        let [ready, later, writing] = [const { Bytes::new() }; 3];
        let (heads, portions) = (Heads::default(), Portions::default());
        (
            Self { io, shared: shared.clone(), heads, ready, later, writing, portions },
            Requests(shared),
        )
    }

    /// Follows bytes that were read: see [`Heads::follow`].
    fn follow(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        if self.heads.needs_next() {
            self.heads.go_on(lock(&self.shared.next).take().unwrap_or(Next::Unknown));
        }
        self.heads.follow(bytes)
    }

    /// Divides bytes into those that hyper gets now and those behind them.
    fn divide(&mut self, mut bytes: Bytes, (count, escaped): (usize, Option<Vec<u8>>)) {
        self.later = bytes.split_off(count);
        self.ready = escaped.map_or(bytes, Bytes::from);
    }

    /// Fills hyper's buffer with what is ready.
    fn hand_over(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready[..count]);
        advance(&mut self.ready, count);
    }
}

impl<IO: AsyncWrite + Unpin> Http1<IO> {
    /// Writes the rest of interim responses of which a part has been written.
    fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.writing))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            advance(&mut self.writing, count);
        }
        Poll::Ready(Ok(()))
    }
}

/// Removes what has been used. An idle connection keeps no memory for it.
fn advance(bytes: &mut Bytes, used: usize) {
    *bytes = if used == bytes.len() { Bytes::new() } else { bytes.slice(used..) };
}

impl<IO: AsyncRead + Unpin> AsyncRead for Http1<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ready.is_empty() && !this.later.is_empty() {
            let bytes = std::mem::take(&mut this.later);
            let followed = this.follow(&bytes);
            this.divide(bytes, followed);
        }
        if !this.ready.is_empty() {
            this.hand_over(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let most = if this.heads.is_body() { usize::MAX } else { MAX_READ_BYTES };
        ready!(this.portions.poll_read(&mut this.io, most, context, buffer))?;
        let bytes = &buffer.filled()[before..];
        let followed = this.follow(bytes);
        if this.heads.is_empty_for_long() {
            super::refused("malformed");
            return Poll::Ready(Err(io::Error::other("empty lines without a request")));
        }
        // Nearly always, hyper can have them as they are, where they are.
        if followed != (bytes.len(), None) {
            this.divide(Bytes::copy_from_slice(bytes), followed);
            buffer.set_filled(before);
            this.hand_over(buffer);
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
        ready!(self.poll_begun(context))?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(context))?;
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begun(context))?;
        let waiting = std::mem::take(&mut *lock(&self.shared.interim));
        if !waiting.is_empty() {
            self.writing = waiting.into();
            ready!(self.poll_begun(context))?;
        }
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begun(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
