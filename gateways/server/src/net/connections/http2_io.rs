//! What hyper's server of HTTP/2 does not watch: frames that belong to no request (RFC 9113, section
//! 10.5). They cost a client little, no limit on requests counts them, and hyper processes all that
//! has arrived before others get their turn. Here, between the connection and hyper, they are
//! counted, and read in small portions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::Frames;
use super::portions::Portions;

/// How much is read at a time: after so much, the requests of others get their turn. Less behind
/// many frames that belong to no request, since each costs as much as a whole read.
const MAX_READ_BYTES: usize = 16 * 1024;
const MANY_FRAMES: u32 = 16;
const MAX_READ_BYTES_BEHIND_MANY: usize = 1024;

/// How many such frames a client may send at once, how many more it may send each second, and for
/// how many bytes that it gets it may send one more. Clients announce what they have read
/// (WINDOW_UPDATE), for the stream and for the connection: usually every 4 KiB or more, with the
/// smallest windows every 512 bytes.
const AT_ONCE: f64 = 4096.0;
const PER_SECOND: f64 = 1000.0;
const BYTES_FOR_ONE: f64 = 256.0;

/// The side of a connection where hyper reads and writes.
pub(super) struct Http2<IO> {
    io: IO,
    frames: Frames,
    /// How many frames the client may send. None: any number, because it stands for many clients.
    allowance: Option<Allowance>,
    /// How much may be read next.
    most: usize,
    portions: Portions,
}

struct Allowance {
    frames: f64,
    since: Instant,
    /// How many bytes have been written since then.
    written: usize,
}

impl<IO> Http2<IO> {
    pub(super) fn new(io: IO, is_limited: bool) -> Self {
        let allowance =
            is_limited.then(|| Allowance { frames: AT_ONCE, since: Instant::now(), written: 0 });
        let (frames, portions) = (Frames::default(), Portions::default());
        Self { io, frames, allowance, most: MAX_READ_BYTES, portions }
    }

    fn wrote(&mut self, count: usize) {
        if let Some(allowance) = &mut self.allowance {
            allowance.written += count;
        }
    }
}

impl Allowance {
    /// Takes frames from what is allowed. Returns whether it was enough.
    fn take(&mut self, frames: u32) -> bool {
        let now = Instant::now();
        let more = (now - self.since).as_secs_f64() * PER_SECOND
            + std::mem::take(&mut self.written) as f64 / BYTES_FOR_ONE;
        self.since = now;
        self.frames = (self.frames + more).min(AT_ONCE) - f64::from(frames);
        self.frames >= 0.0
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Http2<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(this.portions.poll_read(&mut this.io, this.most, context, buffer))?;
        let frames = this.frames.follow(&buffer.filled()[before..]);
        let are_many = frames >= MANY_FRAMES;
        this.most = if are_many { MAX_READ_BYTES_BEHIND_MANY } else { MAX_READ_BYTES };
        if frames > 0 && this.allowance.as_mut().is_some_and(|it| !it.take(frames)) {
            super::refused("flood");
            return Poll::Ready(Err(io::Error::other("too many frames that belong to no request")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Http2<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write_vectored(context, pieces))?;
        self.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_send_frames_for_what_it_gets_and_for_the_time_that_passes() {
        let mut allowance = Allowance { frames: AT_ONCE, since: Instant::now(), written: 0 };
        assert!(allowance.take(4096) && !allowance.take(1));
        advance(Duration::from_secs(2)).await;
        assert!(allowance.take(1999) && !allowance.take(1));
        allowance.written = 100 * 256;
        assert!(allowance.take(99) && !allowance.take(1));
        advance(Duration::from_secs(3600)).await;
        assert!(allowance.take(4096) && !allowance.take(1), "no more is saved");
    }
}
