//! Bodies on their way through: never gathered, but watched.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

/// What a body may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long it may take until something more of it comes.
    pub(crate) idle: Duration,
    /// When it has to be over.
    pub(crate) end: Option<Instant>,
    /// How many bytes it may have.
    pub(crate) bytes: Option<u64>,
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq)]
pub(crate) enum BodyError {
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("the exchange took longer than it may")]
    TooLong,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// Its bytes are not as HTTP has them, or stopped coming.
    #[error("it is broken")]
    Broken,
}

/// When something of a body came last. Clones tell the same.
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

    /// What comes of `future`, when nothing of the body moves for no longer than `limit`.
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

/// A body that ends with an error when it does what it may not. `on_error` is told of that,
/// and of the errors of the body itself.
pub(crate) struct Bounded<B, F> {
    inner: B,
    bounds: Bounds,
    bytes: u64,
    /// Made when there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    on_error: Option<F>,
    progress: Option<Progress>,
}

impl<B, F: FnOnce(&BoxError)> Bounded<B, F> {
    pub(crate) fn new(inner: B, bounds: Bounds, on_error: F) -> Self {
        Self { inner, bounds, bytes: 0, timer: None, on_error: Some(on_error), progress: None }
    }

    /// The same body, which tells when something of it has come.
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
                        edge_session_contract::strip(trailers);
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
            this.bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
            return match this.bounds.bytes {
                Some(most) if this.bytes > most => this.fail(BodyError::TooLarge(most).into()),
                _ => Poll::Ready(Some(Ok(frame))),
            };
        }
        let Bounds { idle, end, .. } = this.bounds;
        let timer = this.timer.get_or_insert_with(|| {
            let idle = Instant::now() + idle;
            Box::pin(sleep_until(end.map_or(idle, |end| end.min(idle))))
        });
        ready!(timer.as_mut().poll(context));
        let is_over = end.is_some_and(|end| end <= Instant::now());
        this.fail(if is_over { BodyError::TooLong } else { BodyError::Idle(idle) }.into())
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The bound that a body broke, if that is what an error is about.
pub(crate) fn broken_bound(error: &(dyn std::error::Error + 'static)) -> Option<BodyError> {
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
    use axum::body::Body as AnyBody;
    use http_body_util::BodyExt as _;
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

    const BOUNDS: Bounds = Bounds { idle: Duration::from_secs(5), end: None, bytes: Some(10) };

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
        let error = "nothing came for 5s".to_owned();
        let start = Instant::now();
        assert_eq!(ends(AnyBody::new(Stalled), BOUNDS).await, (Err(error.clone()), Some(error)));
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_fails_at_the_end_of_the_whole_time() {
        let end = Some(Instant::now() + Duration::from_secs(2));
        let (result, _) = ends(AnyBody::new(Stalled), Bounds { end, ..BOUNDS }).await;
        assert_eq!(result, Err("the exchange took longer than it may".to_owned()));
    }

    /// A body that never says anything.
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
