//! Sessions in wasmCloud's `wasmcloud:keyvalue`: `store-wasmcloud.wasm`.
//!
//! Keys, values and the bucket (`default`) are those of `store-keyvalue.wasm`, so that one may
//! replace the other.
//!
//! # Guarantees and limits
//!
//! - *Comparing and writing are one operation*, for any number of instances and hosts: a change is
//!   a swap that requires the version which was read. A swap that fails because of a touch is tried
//!   again.
//! - *A session is created only if its identifier is free*: the host's `if-not-exists`.
//! - *An expired session is a missing one* always holds: the expiry is in the value. The host's
//!   `ttl-ms` is not used, because a swap cannot move it: a session that is touched would end when
//!   it was first to end. The next request that names an expired session deletes it; one that is
//!   never requested again stays until something else removes it (in NATS: the bucket's `max_age`).
//! - The interface cannot delete under a condition. A session is ended by a swap to a value that
//!   has expired, which is then deleted. A session that is saved unconditionally between the two
//!   ends as well.
//! - A call takes at most 2 s; then the host's operation is cancelled.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod bindings;
#[path = "../../store-keyvalue/src/value.rs"]
mod value;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use edge_session_component::wit::{Content, Millis, Stored};

use bindings::exports::edge::session::store::{Changed, Created, Error, Guest};
use bindings::wasi::clocks0_3_0::monotonic_clock;
use bindings::wasmcloud::keyvalue::cas::{self, CasOptions, CasResult, Entry};
use bindings::wasmcloud::keyvalue::store;
use bindings::wasmcloud::keyvalue::types::{self, Bucket, SetOptions};
use value::Value;

/// The name of the bucket.
const BUCKET: &str = "default";

/// How long a call may take, in nanoseconds.
const DEADLINE: u64 = 2_000_000_000;

/// A swap that was not made.
struct Stale;

thread_local! {
    /// Opened at the first call, and kept.
    static OPENED: RefCell<Option<Rc<Bucket>>> = const { RefCell::new(None) };
}

struct WasmcloudStore;

impl Guest for WasmcloudStore {
    async fn load(id: String) -> Result<Option<Stored>, Error> {
        in_time(async {
            let bucket = bucket().await?;
            Ok(find(&bucket, &id).await?.map(|(value, _)| value.into()))
        })
        .await
    }

    async fn create(id: String, content: Content) -> Result<Created, Error> {
        in_time(async {
            let bucket = bucket().await?;
            let value = Value::of(content).write()?;
            let options = SetOptions { ttl_ms: None, if_not_exists: true };
            match bucket.set(id.clone(), value.clone(), Some(options)).await {
                Ok(()) => return Ok(Created::Done),
                Err(types::Error::PreconditionFailed) => {}
                Err(error) => return Err(failed("set", &error)),
            }
            // What is there may have expired.
            let Some(entry) = current(&bucket, &id).await? else { return Ok(Created::Taken) };
            let (there, version) = read(entry)?;
            let is_done = there.has_expired() && swap(&bucket, &id, value, version).await?.is_ok();
            Ok(if is_done { Created::Done } else { Created::Taken })
        })
        .await
    }

    async fn replace(
        id: String,
        content: Content,
        expected: Option<String>,
    ) -> Result<Changed, Error> {
        let value = Value::of(content).write()?;
        in_time(async {
            let bucket = bucket().await?;
            match expected {
                Some(expected) => change(&bucket, &id, &expected, value).await,
                None => {
                    set(&bucket, &id, value).await?;
                    Ok(Changed::Done)
                }
            }
        })
        .await
    }

    async fn touch(id: String, expires: Millis) -> Result<Changed, Error> {
        in_time(async {
            let bucket = bucket().await?;
            let Some((now, version)) = find(&bucket, &id).await? else {
                return Ok(Changed::Missing);
            };
            let value = Value::of(Content { data: now.data, expires }).write()?;
            // Another change since then set an expiry as well: it counts as the later one.
            let _ = swap(&bucket, &id, value, version).await?;
            Ok(Changed::Done)
        })
        .await
    }

    async fn delete(id: String, expected: Option<String>) -> Result<Changed, Error> {
        in_time(async {
            let bucket = bucket().await?;
            let changed = match expected {
                Some(expected) => change(&bucket, &id, &expected, ended()?).await?,
                None if find(&bucket, &id).await?.is_none() => Changed::Missing,
                // Not a swap: whoever logs out does not wait until nobody else changes the session.
                None => {
                    set(&bucket, &id, ended()?).await?;
                    Changed::Done
                }
            };
            if matches!(changed, Changed::Done) {
                remove(&bucket, &id).await;
            }
            Ok(changed)
        })
        .await
    }
}

/// Ends an operation that takes too long.
async fn in_time<T>(operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut operation = pin!(operation);
    let mut deadline = pin!(monotonic_clock::wait_for(DEADLINE));
    poll_fn(|context| match operation.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => deadline.as_mut().poll(context).map(|()| {
            Err(Error::Unavailable("wasmcloud:keyvalue did not reply in 2 s".to_owned()))
        }),
    })
    .await
}

/// Returns the bucket. A failure to open it is not kept: the next call tries again.
async fn bucket() -> Result<Rc<Bucket>, Error> {
    if let Some(opened) = OPENED.with_borrow(Clone::clone) {
        return Ok(opened);
    }
    let opened = store::open(BUCKET.to_owned()).await.map_err(|error| failed("open", &error))?;
    let opened = Rc::new(opened);
    OPENED.set(Some(opened.clone()));
    Ok(opened)
}

async fn current(bucket: &Bucket, id: &str) -> Result<Option<Entry>, Error> {
    cas::current(bucket, id.to_owned()).await.map_err(|error| failed("read", &error))
}

/// Returns a session that has not expired, with its version. One that has is removed.
async fn find(bucket: &Bucket, id: &str) -> Result<Option<(Value, String)>, Error> {
    let Some(entry) = current(bucket, id).await? else { return Ok(None) };
    let (value, version) = read(entry)?;
    if value.has_expired() {
        if swap(bucket, id, ended()?, version).await?.is_ok() {
            remove(bucket, id).await;
        }
        return Ok(None);
    }
    Ok(Some((value, version)))
}

/// Writes the value if the stored text is the expected one.
async fn change(
    bucket: &Bucket,
    id: &str,
    expected: &str,
    value: Vec<u8>,
) -> Result<Changed, Error> {
    // Each time, somebody else has touched the session: the deadline ends it.
    while let Some((now, version)) = find(bucket, id).await? {
        if now.data != expected {
            return Ok(Changed::Conflict(now.into()));
        }
        if swap(bucket, id, value.clone(), version).await?.is_ok() {
            return Ok(Changed::Done);
        }
    }
    Ok(Changed::Missing)
}

async fn set(bucket: &Bucket, id: &str, value: Vec<u8>) -> Result<(), Error> {
    bucket.set(id.to_owned(), value, None).await.map_err(|error| failed("set", &error))
}

/// Swaps the entry of this version. Stale: another one is there.
async fn swap(
    bucket: &Bucket,
    id: &str,
    value: Vec<u8>,
    version: String,
) -> Result<Result<(), Stale>, Error> {
    let options = CasOptions { require_version: Some(version), require_value: None };
    match cas::swap(bucket, id.to_owned(), value, options).await {
        Ok(CasResult::Swapped) => Ok(Ok(())),
        Ok(CasResult::Stale(_)) => Ok(Err(Stale)),
        Err(error) => Err(failed("swap", &error)),
    }
}

/// The value of a session that has ended.
fn ended() -> Result<Vec<u8>, Error> {
    Value { data: "{}".to_owned(), expires: 0, touched: 0 }.write()
}

/// Removes the value of a session that has ended: if that fails, it counts as missing nevertheless.
async fn remove(bucket: &Bucket, id: &str) {
    let _ = bucket.delete(id.to_owned()).await;
}

fn read(Entry { value, version }: Entry) -> Result<(Value, String), Error> {
    Ok((Value::read(&value)?, version))
}

/// Omits the host's message, which may quote the key, a secret.
fn failed(operation: &str, error: &types::Error) -> Error {
    use types::Error as E;
    Error::Unavailable(match error {
        E::NoSuchStore => format!("wasmcloud:keyvalue has no bucket {BUCKET:?}: create it"),
        E::AccessDenied => format!("wasmcloud:keyvalue denied access to {operation}"),
        E::Timeout => format!("wasmcloud:keyvalue took too long to {operation}"),
        E::StoreUnavailable => {
            format!("the database of wasmcloud:keyvalue cannot be reached to {operation}")
        }
        E::QuotaExceeded => format!("a quota of wasmcloud:keyvalue does not allow to {operation}"),
        E::InvalidArgument | E::PreconditionFailed | E::Other(_) => {
            format!("wasmcloud:keyvalue failed to {operation}")
        }
    })
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(WasmcloudStore with_types_in crate::bindings);
    use super::WasmcloudStore;
}
