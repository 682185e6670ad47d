//! The exchange with a gateway that forwards requests itself: it is given the headers for the
//! application, and gives back the head of the application's response.

use http::{HeaderMap, response};
use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;

/// A request extension that marks a request of such a gateway.
#[derive(Clone)]
pub(crate) struct Exchange(mpsc::Sender<Forwarded>);

/// A request that may be forwarded.
pub(crate) struct Forwarded {
    /// The headers that the application is to get.
    pub(crate) headers: HeaderMap,
    /// Whether the session is in the store.
    pub(crate) is_stored: bool,
    /// Takes the application's response.
    pub(crate) answer: oneshot::Sender<response::Parts>,
}

/// A response extension: the body is the application's, and the gateway has it.
#[derive(Clone, Copy)]
pub(crate) struct Relayed;

impl Exchange {
    /// Creates an exchange, and the receiver of the request once it may be forwarded.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Forwarded>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    pub(super) async fn forward(
        &self,
        headers: HeaderMap,
        is_stored: bool,
    ) -> Result<response::Parts, Refusal> {
        let (answer, answered) = oneshot::channel();
        // If the gateway is gone, so is whoever would read this refusal.
        self.0
            .send(Forwarded { headers, is_stored, answer })
            .await
            .map_err(|_| Refusal::UpstreamUnreachable)?;
        answered.await.map_err(|_| Refusal::UpstreamFailed)
    }
}
