//! A store with a deadline and counters, for the loop.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::counters::{Counters, operation};
use crate::store::{Changed, Content, Created, Store, StoreError, Stored};
use edge_session_component::wit;

/// For naming an operation whose content has been passed on.
const NO_CONTENT: Content = Content { data: String::new(), expires: 0 };

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

    /// Returns whether every operation completes when it is first polled.
    pub(crate) fn is_immediate(&self) -> bool {
        self.store.is_immediate()
    }

    /// Loads a session within the deadline. The error says why the store is unavailable.
    pub(crate) async fn load(&self, id: &str) -> Result<Option<Stored>, String> {
        match self.timed(&wit::Operation::Load, self.store.load(id)).await {
            Ok(stored) => Ok(stored),
            Err(wit::Obstacle::Refused(why) | wit::Obstacle::Unavailable(why)) => Err(why),
            Err(_) => Ok(None),
        }
    }

    /// Performs a write within the deadline, only if the stored text is the expected one.
    pub(crate) async fn perform(
        &self,
        id: &str,
        operation: wit::Operation,
        expected: Option<&str>,
    ) -> Result<(), wit::Obstacle> {
        use wit::{Obstacle, Operation};
        let store = &*self.store;
        let changed = match operation {
            Operation::Load => {
                let stored = Box::pin(self.load(id)).await.map_err(Obstacle::Unavailable)?;
                return Err(stored.map_or(Obstacle::Missing, Obstacle::Conflict));
            }
            Operation::Create(content) => {
                let kind = Operation::Create(NO_CONTENT);
                return match Box::pin(self.timed(&kind, store.create(id, content))).await? {
                    Created::Done => Ok(()),
                    Created::Taken => Err(Obstacle::Taken),
                };
            }
            Operation::Replace(content) => {
                let kind = Operation::Replace(NO_CONTENT);
                self.timed(&kind, store.replace(id, content, expected)).await?
            }
            Operation::Touch(expires) => self.timed(&operation, store.touch(id, expires)).await?,
            Operation::Delete => self.timed(&operation, store.delete(id, expected)).await?,
        };
        match changed {
            Changed::Done => Ok(()),
            Changed::Missing => Err(Obstacle::Missing),
            Changed::Conflict(current) => Err(Obstacle::Conflict(current)),
        }
    }

    /// Awaits the store for no longer than the deadline, and counts.
    async fn timed<T>(
        &self,
        kind: &wit::Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, wit::Obstacle> {
        let (operation, name) = operation(kind);
        // A store in memory takes less time than the clock.
        let began = (!self.store.is_immediate()).then(Instant::now);
        let mut work = pin!(work);
        // A memory store completes at once and needs no timer.
        let done = match poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
            Poll::Ready(done) => Ok(done),
            Poll::Pending => Box::pin(tokio::time::timeout(self.deadline, work)).await,
        };
        let is_answer = match &done {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.is_refusal(),
            Err(_) => false,
        };
        let took = began.map_or(Duration::ZERO, |began| began.elapsed());
        self.counters.store(operation, took, !is_answer);
        let why = match done {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if error.is_refusal() => {
                return Err(wit::Obstacle::Refused(error.to_string()));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {} s", self.deadline.as_secs_f32()),
        };
        Err(wit::Obstacle::Unavailable(format!("{name}: {why}")))
    }

    /// Checks whether sessions can be read and written.
    pub(crate) async fn check(&self) -> Result<(), String> {
        // Identifiers are longer: the store has to search and finds nothing. Missing write
        // permission is reported all the same.
        self.load("-").await?;
        match self.perform("-", wit::Operation::Touch(1), None).await {
            Err(wit::Obstacle::Unavailable(why) | wit::Obstacle::Refused(why)) => Err(why),
            _ => Ok(()),
        }
    }
}
