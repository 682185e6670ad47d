//! The failures of requests: HTTP status, the text for the visitor, and the reason for the log.

use crate::wit::{Failure, FailureKind};

/// Returns a failure with the status and the text of its kind.
pub fn failed(kind: FailureKind, reason: String) -> Failure {
    let (status, message) = match kind {
        FailureKind::Unavailable => (503, "Sessions are unavailable. Please try again."),
        FailureKind::Contention => {
            (503, "The session has changed meanwhile. Please reload the page.")
        }
        FailureKind::InvalidChange | FailureKind::TooLarge => {
            (500, "The session could not be saved.")
        }
        FailureKind::Misuse => (500, "The session failed."),
    };
    Failure { kind, status, message: message.to_owned(), reason }
}

/// Returns the failure of a request whose store, or whose component, cannot be used.
pub fn unavailable(reason: String) -> Failure {
    failed(FailureKind::Unavailable, reason)
}

#[cfg(feature = "logic")]
pub(crate) fn contention() -> Failure {
    let reason = "too many requests changed the session at once, or its identifier has changed";
    failed(FailureKind::Contention, reason.to_owned())
}

#[cfg(feature = "logic")]
pub(crate) fn too_large(bytes: usize, most: u32) -> Failure {
    let reason =
        format!("the session would have {bytes} bytes, more than max_session_bytes, {most}");
    failed(FailureKind::TooLarge, reason)
}

#[cfg(feature = "logic")]
pub(crate) fn misuse(what: &str) -> Failure {
    failed(FailureKind::Misuse, format!("the gateway broke the contract: {what}"))
}
