//! Sessions in `wasi:keyvalue`: `store-keyvalue.wasm`.
//!
//! The key is the session's identifier, the value a JSON object: `data` (the text), `expires`
//! and `touched` (milliseconds since the Unix epoch). The bucket is the host's `default`, or the
//! unnamed one where it has no such bucket (`wasmtime serve`).
//!
//! # What holds, and what does not
//!
//! `wasi:keyvalue` can read, write and delete one key. It has no compare-and-swap (of
//! `atomics`, the draft has `increment` alone) and no expiry, so that of a store's promises
//!
//! - *comparing and writing are one operation* holds within one instance of this component,
//!   which does one call at a time. Two instances that change one session at the same moment
//!   may lose the change of one of them, or bring back a session that the other one ended.
//! - *what was saved is seen by the next request* holds where the host's key-value store lets
//!   every instance read what any of them wrote. The interface promises it only to the writer.
//! - *an expired session is a missing one* always holds. It is deleted by the request that still
//!   names it; one that nobody asks for again stays until somebody else removes it.
//! - *durable* is what the host's key-value store is. That of `wasmtime serve` is the instance's
//!   memory: it ends with the instance, and no other one sees it.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;

use edge_session_component::wit::{Content, Millis, Stored};
use serde::{Deserialize, Serialize};

use bindings::exports::edge::session::store::{Changed, Created, Error, Guest};
use bindings::wasi::clocks0_3_0::system_clock;
use bindings::wasi::keyvalue::store::{self, Bucket};

/// In this order.
const BUCKETS: [&str; 2] = ["default", ""];

thread_local! {
    /// Opened at the first call and kept: in some hosts, what is stored lives as long as it.
    static BUCKET: Result<Bucket, store::Error> = open();
}

/// A value, as it is kept.
#[derive(Deserialize, Serialize)]
struct Value {
    data: String,
    expires: Millis,
    touched: Millis,
}

struct KeyValueStore;

impl Guest for KeyValueStore {
    fn load(id: String) -> Result<Option<Stored>, Error> {
        bucket(|bucket| Ok(find(bucket, &id)?.map(stored)))
    }

    fn create(id: String, content: Content) -> Result<Created, Error> {
        bucket(|bucket| match find(bucket, &id)? {
            Some(_) => Ok(Created::Taken),
            None => {
                write(bucket, &id, content)?;
                Ok(Created::Done)
            }
        })
    }

    fn replace(id: String, content: Content, expected: Option<String>) -> Result<Changed, Error> {
        bucket(|bucket| {
            if let Some(expected) = expected
                && let Some(other) = differing(bucket, &id, &expected)?
            {
                return Ok(other);
            }
            write(bucket, &id, content)?;
            Ok(Changed::Done)
        })
    }

    fn touch(id: String, expires: Millis) -> Result<Changed, Error> {
        bucket(|bucket| match find(bucket, &id)? {
            None => Ok(Changed::Missing),
            Some(Value { data, .. }) => {
                write(bucket, &id, Content { data, expires })?;
                Ok(Changed::Done)
            }
        })
    }

    fn delete(id: String, expected: Option<String>) -> Result<Changed, Error> {
        bucket(|bucket| {
            let other = match expected {
                Some(expected) => differing(bucket, &id, &expected)?,
                None => find(bucket, &id)?.is_none().then_some(Changed::Missing),
            };
            if let Some(other) = other {
                return Ok(other);
            }
            bucket.delete(&id).map_err(|error| failed("delete", &error))?;
            Ok(Changed::Done)
        })
    }
}

fn open() -> Result<Bucket, store::Error> {
    let mut opened = Err(store::Error::NoSuchStore);
    for name in BUCKETS {
        opened = store::open(name);
        if !matches!(opened, Err(store::Error::NoSuchStore)) {
            break;
        }
    }
    opened
}

/// Do this in the bucket.
fn bucket<T>(operation: impl FnOnce(&Bucket) -> Result<T, Error>) -> Result<T, Error> {
    BUCKET.with(|bucket| match bucket {
        Ok(bucket) => operation(bucket),
        Err(error) => Err(failed("open", error)),
    })
}

/// The value of a session that has not expired.
fn find(bucket: &Bucket, id: &str) -> Result<Option<Value>, Error> {
    let Some(bytes) = bucket.get(id).map_err(|error| failed("get", &error))? else {
        return Ok(None);
    };
    let unreadable = |_| Error::Unavailable("a value in the bucket is not a session's".to_owned());
    let value: Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
    if value.expires <= now() {
        bucket.delete(id).map_err(|error| failed("delete", &error))?;
        return Ok(None);
    }
    Ok(Some(value))
}

/// What forbids a change that is made only while the stored text equals `expected`.
fn differing(bucket: &Bucket, id: &str, expected: &str) -> Result<Option<Changed>, Error> {
    Ok(match find(bucket, id)? {
        None => Some(Changed::Missing),
        Some(value) if value.data == expected => None,
        Some(value) => Some(Changed::Conflict(stored(value))),
    })
}

fn write(bucket: &Bucket, id: &str, Content { data, expires }: Content) -> Result<(), Error> {
    let value = Value { data, expires, touched: now() };
    let bytes = serde_json::to_vec(&value)
        .map_err(|_| Error::Refused("a session cannot be written as JSON".to_owned()))?;
    bucket.set(id, &bytes).map_err(|error| failed("set", &error))
}

fn stored(Value { data, expires, touched }: Value) -> Stored {
    Stored { data, expires: Some(expires), touched: Some(touched) }
}

/// A host's own words may name the key, a secret: they are left out.
fn failed(operation: &str, error: &store::Error) -> Error {
    Error::Unavailable(match error {
        store::Error::NoSuchStore => {
            format!("wasi:keyvalue has neither of the buckets {BUCKETS:?}: configure one")
        }
        store::Error::AccessDenied => format!("wasi:keyvalue denied access to {operation}"),
        store::Error::Other(_) => format!("wasi:keyvalue failed to {operation}"),
    })
}

fn now() -> Millis {
    let now = system_clock::now();
    // A clock before 1970 is not set.
    u64::try_from(now.seconds).unwrap_or(0) * 1000 + u64::from(now.nanoseconds / 1_000_000)
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(KeyValueStore with_types_in crate::bindings);
    use super::KeyValueStore;
}
