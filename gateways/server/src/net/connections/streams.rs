//! Ends HTTP/2 streams whose clients do not read their responses. The connection as a whole may be
//! active: only the stream's window is closed, and its body is no longer polled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};

tokio::task_local! {
    /// The response of the stream that this task serves.
    static OFFERED: Offered;
}

/// Runs streams, each as long as its client reads some of its response every `idle`.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) idle: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (offered, idle) = (Offered::default(), self.idle);
        tokio::spawn(OFFERED.scope(offered.clone(), async move {
            tokio::select! {
                () = stream => {}
                // The reset tells the client that the response is incomplete.
                () = offered.in_vain(idle) => super::refused("not-taken"),
            }
        }));
    }
}

/// The time since which a piece of the response has been waiting, if any. Shared by clones.
#[derive(Clone, Default)]
pub(super) struct Offered(Arc<Mutex<Option<Instant>>>);

impl Offered {
    /// Records that this task's body has produced a piece.
    pub(super) fn something() {
        let _ = OFFERED.try_with(|it| *it.lock() = Some(Instant::now()));
    }

    /// Records that this task's body is polled for another piece.
    pub(super) fn nothing() {
        let _ = OFFERED.try_with(|it| *it.lock() = None);
    }

    /// Waits until a piece has been waiting for `limit`.
    async fn in_vain(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let since = self.lock().unwrap_or(now);
            if since + limit <= now {
                return;
            }
            sleep_until(since + limit).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
