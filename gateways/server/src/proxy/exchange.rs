//! The exchange with a gateway that forwards requests itself: it is given the headers for the
//! application, and gives back the head of the application's response.

use http::{HeaderMap, response};
use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;

/// A request extension that marks a request of such a gateway.
#[derive(Clone)]
pub(crate) struct Exchange {
    forward: mpsc::Sender<Forwarded>,
    /// Whether the application's response comes here.
    pub(super) sees_response: bool,
}

/// A request that may be forwarded.
pub(crate) struct Forwarded {
    /// The headers that the application is to get.
    pub(crate) headers: HeaderMap,
    /// Takes the application's response.
    pub(crate) answer: oneshot::Sender<response::Parts>,
}

/// A response extension: the body is the application's, and the gateway has it.
#[derive(Clone, Copy)]
pub(crate) struct Relayed;

impl Exchange {
    /// Creates an exchange with a gateway that shows the application's response. Also returns the
    /// receiver of the request once it may be forwarded.
    pub(crate) fn around_the_application() -> (Self, mpsc::Receiver<Forwarded>) {
        Self::new(true)
    }

    /// Creates an exchange with a gateway that shows only requests.
    pub(crate) fn before_the_application() -> (Self, mpsc::Receiver<Forwarded>) {
        Self::new(false)
    }

    fn new(sees_response: bool) -> (Self, mpsc::Receiver<Forwarded>) {
        let (forward, receiver) = mpsc::channel(1);
        (Self { forward, sees_response }, receiver)
    }

    pub(super) async fn forward(&self, headers: HeaderMap) -> Result<response::Parts, Refusal> {
        let (answer, answered) = oneshot::channel();
        // If the gateway is gone, so is whoever would read this refusal.
        self.forward
            .send(Forwarded { headers, answer })
            .await
            .map_err(|_| Refusal::UpstreamUnreachable)?;
        answered.await.map_err(|_| Refusal::UpstreamFailed)
    }
}
