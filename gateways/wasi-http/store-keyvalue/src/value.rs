//! How sessions are written in buckets: by all stores over key-value interfaces alike.

use edge_session_component::wit::{Content, Millis, Stored};
use serde::{Deserialize, Serialize};

use crate::bindings::exports::edge::session::store::Error;
use crate::bindings::wasi::clocks0_3_0::system_clock;

/// A stored value.
#[derive(Deserialize, Serialize)]
pub(crate) struct Value {
    pub(crate) data: String,
    pub(crate) expires: Millis,
    pub(crate) touched: Millis,
}

impl Value {
    /// Returns the value of content that is stored now.
    pub(crate) fn of(Content { data, expires }: Content) -> Self {
        Self { data, expires, touched: now() }
    }

    /// Reads a value.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let unreadable =
            |_| Error::Unavailable("a value in the bucket is not a session".to_owned());
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// Returns the bytes of the value.
    pub(crate) fn write(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|_| Error::Refused("a session cannot be written as JSON".to_owned()))
    }

    /// Returns whether the session has expired.
    pub(crate) fn has_expired(&self) -> bool {
        self.expires <= now()
    }
}

impl From<Value> for Stored {
    fn from(Value { data, expires, touched }: Value) -> Self {
        Self { data, expires: Some(expires), touched: Some(touched) }
    }
}

fn now() -> Millis {
    let now = system_clock::now();
    // A clock before 1970 has not been set.
    u64::try_from(now.seconds).unwrap_or(0) * 1000 + u64::from(now.nanoseconds / 1_000_000)
}
