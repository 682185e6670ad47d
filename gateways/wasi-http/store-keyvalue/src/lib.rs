//! Sessions in `wasi:keyvalue`: `store-keyvalue.wasm`, and `store-keyvalue-draft2.wasm` for hosts
//! that have its second draft.
//!
//! The key is the session's identifier, the value a JSON object: `data` (the text), `expires` and
//! `touched` (milliseconds since the Unix epoch). The bucket is the host's `default`, or the
//! unnamed one if the host has no such bucket (`wasmtime serve`).
//!
//! # Guarantees and limits
//!
//! `wasi:keyvalue` can read, write and delete one key. It has no compare-and-swap (the draft of
//! `atomics` has only `increment`) and no expiry. For a store's promises this means:
//!
//! - *Comparing and writing are one operation* holds within one instance of this component, which
//!   handles one call at a time. If two instances change one session at the same moment, one change
//!   may be lost, or a session that one instance ended may reappear.
//! - *What was saved is seen by the next request* holds if every instance can read what the others
//!   wrote to the host's key-value store. The interface promises this only to the writer.
//! - *An expired session is a missing one* always holds. The next request that names it deletes it;
//!   a session that is never requested again stays until something else removes it.
//! - *Durable* depends on the host's key-value store. `wasmtime serve` keeps it in the instance's
//!   memory: it ends with the instance and is not visible to others.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;
mod value;

use edge_session_component::wit::{Content, Millis, Stored};

use bindings::exports::edge::session::store::{Changed, Created, Error, Guest};
use bindings::keyvalue::{self as store, Bucket};
use value::Value;

/// Tried in this order.
const BUCKETS: [&str; 2] = ["default", ""];

thread_local! {
    /// Opened at the first call and kept, because some hosts drop the data with the bucket.
    static BUCKET: Result<Bucket, store::Error> = open();
}

struct KeyValueStore;

impl Guest for KeyValueStore {
    async fn load(id: String) -> Result<Option<Stored>, Error> {
        bucket(|bucket| Ok(find(bucket, &id)?.map(Stored::from)))
    }

    async fn create(id: String, content: Content) -> Result<Created, Error> {
        bucket(|bucket| match find(bucket, &id)? {
            Some(_) => Ok(Created::Taken),
            None => {
                write(bucket, &id, content)?;
                Ok(Created::Done)
            }
        })
    }

    async fn replace(
        id: String,
        content: Content,
        expected: Option<String>,
    ) -> Result<Changed, Error> {
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

    async fn touch(id: String, expires: Millis) -> Result<Changed, Error> {
        bucket(|bucket| match find(bucket, &id)? {
            None => Ok(Changed::Missing),
            Some(Value { data, .. }) => {
                write(bucket, &id, Content { data, expires })?;
                Ok(Changed::Done)
            }
        })
    }

    async fn delete(id: String, expected: Option<String>) -> Result<Changed, Error> {
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

/// Performs an operation on the bucket.
fn bucket<T>(operation: impl FnOnce(&Bucket) -> Result<T, Error>) -> Result<T, Error> {
    BUCKET.with(|bucket| match bucket {
        Ok(bucket) => operation(bucket),
        Err(error) => Err(failed("open", error)),
    })
}

/// Returns the value of a session that has not expired.
fn find(bucket: &Bucket, id: &str) -> Result<Option<Value>, Error> {
    let Some(bytes) = bucket.get(id).map_err(|error| failed("get", &error))? else {
        return Ok(None);
    };
    let value = Value::read(&bytes)?;
    if value.has_expired() {
        bucket.delete(id).map_err(|error| failed("delete", &error))?;
        return Ok(None);
    }
    Ok(Some(value))
}

/// Returns why a change that requires the stored text to equal `expected` cannot be made.
fn differing(bucket: &Bucket, id: &str, expected: &str) -> Result<Option<Changed>, Error> {
    Ok(match find(bucket, id)? {
        None => Some(Changed::Missing),
        Some(value) if value.data == expected => None,
        Some(value) => Some(Changed::Conflict(value.into())),
    })
}

fn write(bucket: &Bucket, id: &str, content: Content) -> Result<(), Error> {
    let bytes = Value::of(content).write()?;
    bucket.set(id, &bytes).map_err(|error| failed("set", &error))
}

/// Omits the host's message, which may quote the key, a secret.
fn failed(operation: &str, error: &store::Error) -> Error {
    Error::Unavailable(match error {
        store::Error::NoSuchStore => {
            format!("wasi:keyvalue has neither of the buckets {BUCKETS:?}: configure one")
        }
        store::Error::AccessDenied => format!("wasi:keyvalue denied access to {operation}"),
        store::Error::Other(_) => format!("wasi:keyvalue failed to {operation}"),
    })
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(KeyValueStore with_types_in crate::bindings);
    use super::KeyValueStore;
}
