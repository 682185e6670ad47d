//! A store with a deadline and counters, for the loop.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::bindings::exports::edge::session::engine as wit;
use crate::counters::{Counters, operation};
use crate::store::{Changed, Created, Store, StoreError};

/// A store with its deadline for one operation and the counters of its operations.
#[derive(Clone)]
pub(crate) struct TimedStore {
    store: Arc<dyn Store>,
    deadline: Duration,
    counters: Arc<Counters>,
}

impl TimedStore {
    pub(crate) fn new(store: Arc<dyn Store>, deadline: Duration, counters: Arc<Counters>) -> Self {
        Self { store, deadline, counters }
    }

    /// Performs a store operation within the deadline, and records the result in `known`.
    pub(crate) async fn perform(
        &self,
        id: &str,
        request: wit::StoreRequest,
        known: &mut wit::Known,
    ) -> wit::StoreReply {
        let (operation, name) = operation(&request);
        let began = Instant::now();
        let mut work = pin!(perform(&*self.store, id, request, known));
        // A memory store completes at once and needs no timer.
        let done = match poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
            Poll::Ready(done) => Ok(done),
            Poll::Pending => tokio::time::timeout(self.deadline, work).await,
        };
        let is_answer = match &done {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.is_refusal(),
            Err(_) => false,
        };
        self.counters.store(operation, began.elapsed(), !is_answer);
        let why = match done {
            Ok(Ok(reply)) => return reply,
            Ok(Err(error)) if error.is_refusal() => {
                return wit::StoreReply::Refused(error.to_string());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {} s", self.deadline.as_secs_f32()),
        };
        wit::StoreReply::Unavailable(format!("{name}: {why}"))
    }

    /// Checks whether sessions can be read and written.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut known = wit::Known { loaded: None, current: None };
        for request in [wit::StoreRequest::Load, wit::StoreRequest::Touch(1)] {
            // Identifiers are longer: the store has to search and finds nothing. Missing write
            // permission is reported all the same.
            match self.perform("-", request, &mut known).await {
                wit::StoreReply::Unavailable(why) | wit::StoreReply::Refused(why) => {
                    return Err(why);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn perform(
    store: &dyn Store,
    id: &str,
    request: wit::StoreRequest,
    known: &mut wit::Known,
) -> Result<wit::StoreReply, StoreError> {
    use wit::{StoreReply as Reply, StoreRequest as Request};
    let last = known.current.as_ref().or(known.loaded.as_ref());
    let expected = |only_known: bool| last.filter(|_| only_known).map(|it| it.data.as_str());
    let changed = match request {
        Request::Load => {
            known.loaded = store.load(id).await?;
            return Ok(if known.loaded.is_some() { Reply::Found } else { Reply::Missing });
        }
        Request::Create(content) => {
            return Ok(match store.create(id, content).await? {
                Created::Done => Reply::Done,
                Created::Taken => Reply::Taken,
            });
        }
        Request::Replace(wit::Replacement { content, only_known }) => {
            store.replace(id, content, expected(only_known)).await?
        }
        Request::Touch(expires) => store.touch(id, expires).await?,
        Request::Delete(only_known) => store.delete(id, expected(only_known)).await?,
    };
    Ok(match changed {
        Changed::Done => Reply::Done,
        Changed::Missing => Reply::Missing,
        Changed::Conflict(current) => {
            known.current = Some(current);
            Reply::Conflict
        }
    })
}
