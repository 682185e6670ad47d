//! Reading in portions, so that no connection keeps the others waiting.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::task::yield_now;

/// Reads a connection in portions. Behind a whole one, others get their turn before more is read.
#[derive(Default)]
pub(super) struct Portions {
    was_whole: bool,
}

impl Portions {
    /// Reads a portion of at most so many bytes.
    pub(super) fn poll_read(
        &mut self,
        mut io: impl AsyncRead + Unpin,
        most: usize,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.was_whole) {
            return pin!(yield_now()).poll(context).map(Ok);
        }
        let before = buffer.filled().len();
        let mut portion = (&mut io).take(most as u64);
        ready!(Pin::new(&mut portion).poll_read(context, buffer))?;
        self.was_whole = buffer.filled().len() - before == most;
        Poll::Ready(Ok(()))
    }
}
