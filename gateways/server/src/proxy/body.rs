//! Bodies that pass through: observed, and buffered only up to a limit.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body as AnyBody;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::headers::clean_trailers;
use super::pace::{Meter, WINDOW};
use super::refusal::Refusal;

/// The limits of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long it may take until the next piece arrives.
    pub(crate) idle: Duration,
    /// When it must be complete.
    pub(crate) end: Option<Instant>,
    /// How many bytes it may have.
    pub(crate) bytes: Option<u64>,
    /// How many bytes per second must arrive at least, while it is awaited.
    pub(crate) rate: Option<u64>,
}

/// Why a body was ended early.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq)]
pub(crate) enum BodyError {
    #[error("nothing arrived for {0:?}")]
    Idle(Duration),
    #[error("it was too slow for {WINDOW:?}")]
    TooSlow,
    #[error("the exchange took longer than allowed")]
    TooLong,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// It violates HTTP's framing, or stopped arriving.
    #[error("it is broken")]
    Broken,
}

/// When a body last made progress. Shared by clones.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Progress {
    pub(crate) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Awaits `future`; gives up after `limit` without body progress.
    pub(crate) async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            match timeout_at(self.last() + limit, &mut future).await {
                Ok(output) => return Some(output),
                Err(_) if self.last() + limit > Instant::now() => {}
                Err(_) => return None,
            }
        }
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A body that fails when it exceeds its bounds. `on_error` is called with that error, or with an
/// error of the body itself.
pub(crate) struct Bounded<B, F> {
    inner: B,
    bounds: Bounds,
    bytes: u64,
    meter: Option<Meter>,
    waiting_since: Option<Instant>,
    /// Created when it first has to wait.
    timer: Option<Pin<Box<Sleep>>>,
    on_error: Option<F>,
    progress: Option<Progress>,
}

impl<B, F: FnOnce(&BoxError)> Bounded<B, F> {
    pub(crate) fn new(inner: B, bounds: Bounds, on_error: F) -> Self {
        Self {
            inner,
            bounds,
            bytes: 0,
            meter: bounds.rate.map(Meter::new),
            waiting_since: None,
            timer: None,
            on_error: Some(on_error),
            progress: None,
        }
    }

    /// Makes the body record its progress.
    pub(crate) fn telling(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }

    fn fail<T>(&mut self, error: BoxError) -> Poll<Option<Result<T, BoxError>>> {
        if let Some(on_error) = self.on_error.take() {
            on_error(&error);
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl<B, F> Body for Bounded<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(&BoxError) + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.timer = None;
            if let Some(progress) = &this.progress {
                progress.now();
            }
            let frame = match frame {
                Some(Ok(mut frame)) => {
                    if let Some(trailers) = frame.trailers_mut() {
                        clean_trailers(trailers);
                    }
                    frame
                }
                Some(Err(error)) => {
                    if let Some(on_error) = this.on_error.take() {
                        on_error(&error.into());
                    }
                    return Poll::Ready(Some(Err(BodyError::Broken.into())));
                }
                None => return Poll::Ready(None),
            };
            let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            this.bytes += bytes;
            if let Some(meter) = &mut this.meter {
                let waited = this.waiting_since.take().map(|since| since.elapsed());
                meter.record(bytes, waited.unwrap_or_default());
            }
            return match this.bounds.bytes {
                Some(most) if this.bytes > most => this.fail(BodyError::TooLarge(most).into()),
                _ => Poll::Ready(Some(Ok(frame))),
            };
        }
        let Bounds { idle, end, .. } = this.bounds;
        let since = *this.waiting_since.get_or_insert_with(Instant::now);
        let too_slow = this.meter.as_ref().map(|meter| since + meter.left());
        let timer = this.timer.get_or_insert_with(|| {
            let first = [Some(since + idle), end, too_slow].into_iter().flatten().min();
            Box::pin(sleep_until(first.unwrap_or(since + idle)))
        });
        ready!(timer.as_mut().poll(context));
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        let error = match () {
            () if is_over(end) => BodyError::TooLong,
            () if is_over(Some(since + idle)) => BodyError::Idle(idle),
            () => BodyError::TooSlow,
        };
        this.fail(error.into())
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads a body to its end, or until `most` bytes have arrived, so that an application does not
/// wait for a slow client.
pub(crate) async fn gather(mut body: AnyBody, most: usize) -> Result<AnyBody, BoxError> {
    // Copied into one buffer, because each frame of a single byte has its overhead.
    let mut data = Vec::new();
    let mut trailers = None;
    while data.len() < most {
        let Some(frame) = body.frame().await else {
            match trailers {
                None => return Ok(AnyBody::from(data)),
                Some(_) => break,
            }
        };
        match frame?.into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(other) => trailers = Some(other),
        }
    }
    let frames = [Some(Frame::data(data.into())), trailers].into_iter().flatten().collect();
    Ok(AnyBody::new(Begun { frames, rest: body }))
}

/// A body that has been read in part.
struct Begun {
    frames: VecDeque<Frame<Bytes>>,
    rest: AnyBody,
}

impl Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let there: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (there, rest) = (there as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(there.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(there)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Returns the refusal for an error, if it is about a bound that the request's body exceeded.
pub(crate) fn refusal_of(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    Some(match broken_bound(error)? {
        BodyError::TooLarge(_) => Refusal::BodyTooLarge,
        BodyError::Broken => Refusal::BadRequest("The body is incomplete or malformed."),
        BodyError::Idle(_) | BodyError::TooSlow | BodyError::TooLong => Refusal::RequestTimeout,
    })
}

/// Returns the bound that a body exceeded, if the error is about that.
fn broken_bound(error: &(dyn std::error::Error + 'static)) -> Option<BodyError> {
    let mut error = Some(error);
    while let Some(cause) = error {
        if let Some(broken) = cause.downcast_ref::<BodyError>() {
            return Some(*broken);
        }
        error = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    async fn ends(body: AnyBody, bounds: Bounds) -> (Result<usize, String>, Option<String>) {
        let told = Arc::new(Mutex::new(None));
        let listener = told.clone();
        let body = Bounded::new(body, bounds, move |error: &BoxError| {
            *listener.lock().unwrap() = Some(error.to_string());
        });
        let result = body.collect().await.map(|all| all.to_bytes().len());
        let told = told.lock().unwrap().take();
        (result.map_err(|error| error.to_string()), told)
    }

    const BOUNDS: Bounds =
        Bounds { idle: Duration::from_secs(5), end: None, bytes: Some(10), rate: None };

    #[tokio::test]
    async fn a_body_within_its_bounds_passes() {
        assert_eq!(ends(AnyBody::from("0123456789"), BOUNDS).await, (Ok(10), None));
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_fails_and_it_is_told() {
        let error = "it is larger than 10 bytes".to_owned();
        assert_eq!(
            ends(AnyBody::from("0123456789a"), BOUNDS).await,
            (Err(error.clone()), Some(error))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_fails_after_the_idle_time() {
        let error = "nothing arrived for 5s".to_owned();
        let start = Instant::now();
        assert_eq!(ends(AnyBody::new(Stalled), BOUNDS).await, (Err(error.clone()), Some(error)));
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_fails_at_the_end_of_the_whole_time() {
        let end = Some(Instant::now() + Duration::from_secs(2));
        let (result, _) = ends(AnyBody::new(Stalled), Bounds { end, ..BOUNDS }).await;
        assert_eq!(result, Err("the exchange took longer than allowed".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_byte_by_byte_fails_when_it_is_slower_than_it_may_be() {
        let bounds = Bounds { bytes: None, rate: Some(2), ..BOUNDS };
        let start = Instant::now();
        let (result, _) = ends(AnyBody::new(Trickle::every(Duration::from_secs(1))), bounds).await;
        assert_eq!(result, Err("it was too slow for 20s".to_owned()));
        assert_eq!(start.elapsed(), WINDOW);
        // Exactly at the minimum rate, for an hour.
        let trickle = Trickle { left: 7200, ..Trickle::every(Duration::from_millis(500)) };
        assert_eq!(ends(AnyBody::new(trickle), bounds).await, (Ok(7200), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_gathered_up_to_a_bound() {
        let whole = gather(AnyBody::from("0123456789"), 100).await.unwrap();
        assert_eq!(whole.size_hint().exact(), Some(10));
        let trickle = Trickle { left: 10, ..Trickle::every(Duration::from_secs(1)) };
        let start = Instant::now();
        let begun = gather(AnyBody::new(trickle), 6).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 6);
        assert_eq!(begun.collect().await.unwrap().to_bytes().len(), 10);
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gathered_byte_by_byte_is_held_in_one_piece() {
        let trickle = Trickle { left: 70_000, ..Trickle::every(Duration::from_millis(1)) };
        let mut begun = gather(AnyBody::new(trickle), 65_536).await.unwrap();
        let first = begun.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), 65_536);
    }

    #[tokio::test]
    async fn a_gathered_body_keeps_its_trailers() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let body = AnyBody::new(AnyBody::from("abc").with_trailers(async { Some(Ok(trailers)) }));
        let all = gather(body, 100).await.unwrap().collect().await.unwrap();
        assert_eq!(all.trailers().unwrap()["x-sum"], "1");
        assert_eq!(all.to_bytes(), "abc");
    }

    /// A body that produces one byte at a time.
    struct Trickle {
        pause: Duration,
        left: usize,
        sleep: Option<Pin<Box<Sleep>>>,
    }

    impl Trickle {
        fn every(pause: Duration) -> Self {
            Self { pause, left: usize::MAX, sleep: None }
        }
    }

    impl Body for Trickle {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            let pause = self.pause;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleep.as_mut().poll(context));
            self.sleep = None;
            self.left -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    /// A body that never produces anything.
    struct Stalled;

    impl Body for Stalled {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }
}
