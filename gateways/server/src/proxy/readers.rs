//! Cuts off clients that read responses too slowly.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::body::BodyError;
use super::pace::Meter;

/// How often waiting responses are checked.
const SWEEP: Duration = Duration::from_secs(1);

/// The responses being sent to clients. Shared by clones.
#[derive(Clone)]
pub(crate) struct Readers {
    rate: u64,
    answers: Arc<Mutex<Vec<Weak<Mutex<Reading>>>>>,
}

/// A response that a client is reading.
struct Reading {
    /// None: it has been read, or was taken from a slow client.
    body: Option<Body>,
    meter: Meter,
    /// Since when the client has not asked for more.
    held_since: Option<Instant>,
    is_cut: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Creates the readers. `rate` is the minimum, in bytes per second.
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, answers: Arc::default() }
    }

    /// Wraps a body so that it is taken away from a client that reads too slowly: the inner body is
    /// dropped then, even if the client never asks for more.
    pub(crate) fn watched(&self, body: Body) -> Body {
        let reading = Reading {
            body: Some(body),
            meter: Meter::new(self.rate),
            held_since: None,
            is_cut: false,
        };
        let reading = Arc::new(Mutex::new(reading));
        lock(&self.answers).push(Arc::downgrade(&reading));
        Body::new(Watched(reading))
    }

    /// Repeatedly cuts off slow clients. Never returns.
    pub(crate) async fn sweep(&self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep_once(Instant::now());
        }
    }

    fn sweep_once(&self, now: Instant) {
        let mut cut = Vec::new();
        lock(&self.answers).retain(|answer| {
            let Some(reading) = answer.upgrade() else { return false };
            // A response in use is not stalled.
            let Ok(mut reading) = reading.try_lock() else { return true };
            let held = reading.held_since.map(|since| now.saturating_duration_since(since));
            if held.is_some_and(|held| held > reading.meter.left()) {
                reading.is_cut = true;
                cut.extend(reading.body.take());
            }
            reading.body.is_some()
        });
        if !cut.is_empty() {
            metrics::counter!("edge_session_slow_readers_total").increment(cut.len() as u64);
        }
        // Closes connections to applications while nothing is locked.
        drop(cut);
    }
}

struct Watched(Arc<Mutex<Reading>>);

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut reading = lock(&self.0);
        let held = reading.held_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        reading.meter.record(0, held);
        let Some(body) = &mut reading.body else {
            return Poll::Ready(reading.is_cut.then(|| Err(BodyError::TooSlow.into())));
        };
        let frame = Pin::new(body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                reading.meter.record(bytes, Duration::ZERO);
                reading.held_since = Some(Instant::now());
            }
            Poll::Ready(_) => reading.body = None,
            // Waiting for the application does not count.
            Poll::Pending => {}
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        let reading = lock(&self.0);
        !reading.is_cut && reading.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::super::pace::WINDOW;
    use super::*;

    const RATE: u64 = 100;

    /// An endless body that reveals when it was dropped.
    struct Endless(#[allow(dead_code, reason = "dropped with it")] Arc<()>);

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 10])))))
        }
    }

    async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
        poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_taken_from_who_reads_a_little_now_and_then_or_nothing() {
        for reads_a_little in [true, false] {
            let readers = Readers::new(RATE);
            let alive = Arc::new(());
            let mut body = readers.watched(Body::new(Endless(alive.clone())));
            let start = Instant::now();
            assert!(next(&mut body).await.is_some_and(|frame| frame.is_ok()));
            while Arc::strong_count(&alive) > 1 {
                tokio::time::advance(Duration::from_secs(1)).await;
                readers.sweep_once(Instant::now());
                if reads_a_little && Arc::strong_count(&alive) > 1 {
                    assert!(next(&mut body).await.is_some_and(|frame| frame.is_ok()));
                }
                assert!(start.elapsed() < WINDOW * 2);
            }
            assert!(start.elapsed() >= WINDOW);
            assert!(next(&mut body).await.is_some_and(|frame| frame.is_err()));
            assert!(lock(&readers.answers).is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_fast_enough_and_who_waits_for_the_application_keep_theirs() {
        let readers = Readers::new(RATE);
        let alive = Arc::new(());
        let mut fast = readers.watched(Body::new(Endless(alive.clone())));
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let mut quiet = readers.watched(Body::new(Quiet(receiver)));
        for _ in 0..600 {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut quiet).poll_frame(&mut context).is_pending());
            for _ in 0..11 {
                assert!(next(&mut fast).await.is_some_and(|frame| frame.is_ok()));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            readers.sweep_once(Instant::now());
        }
        assert_eq!(Arc::strong_count(&alive), 2);
        sender.send(Bytes::from_static(b"late")).await.unwrap();
        assert!(next(&mut quiet).await.is_some_and(|frame| frame.is_ok()));
    }

    /// A body with occasional data.
    struct Quiet(tokio::sync::mpsc::Receiver<Bytes>);

    impl http_body::Body for Quiet {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(context).map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }
}
