//! The streams of HTTP/2 end when clients do not take their answers. The connection as a whole may
//! be well: it is the stream's window that is closed, and nobody asks its body for more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};

tokio::task_local! {
    /// The answer of the stream that this task is for.
    static OFFERED: Offered;
}

/// Runs streams, each as long as its client takes something of its answer every `idle`.
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
                // Whoever is left with half an answer sees by the reset that it is one.
                () = offered.in_vain(idle) => super::refused("not-taken"),
            }
        }));
    }
}

/// Since when a piece of an answer has been offered, if one is. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Offered(Arc<Mutex<Option<Instant>>>);

impl Offered {
    /// This task's body has given a piece.
    pub(super) fn something() {
        let _ = OFFERED.try_with(|it| *it.lock() = Some(Instant::now()));
    }

    /// This task's body is asked for another piece.
    pub(super) fn nothing() {
        let _ = OFFERED.try_with(|it| *it.lock() = None);
    }

    /// Wait until a piece was offered for `limit`.
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
