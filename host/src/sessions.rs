//! The loop that every gateway runs: ask the component, do what it says to the store.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::bindings::exports::edge::session::engine as wit;
use crate::component::Component;
use crate::counters::{Counters, event_name, operation, origin_name};
use crate::hasher::SessionHasher;
use crate::instance::{Instances, OpenError};
use crate::store::{Changed, Created, Store, StoreError};
use crate::{Options, Problem};

/// The options cannot be used, and why: everything that is wrong with them.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionsError {
    /// What is wrong, one entry for each problem.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for OptionsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the options cannot be used:")?;
        for Problem { name, message } in &self.problems {
            write!(f, "\n  {name}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for OptionsError {}

impl From<OpenError> for OptionsError {
    fn from(error: OpenError) -> Self {
        let problems = match error {
            OpenError::Options(problems) => problems,
            OpenError::Trap(error) => vec![Problem {
                name: "component".to_owned(),
                message: format!("failed while it checked the options: {error:#}"),
            }],
        };
        Self { problems }
    }
}

/// The component and a store, joined.
pub(crate) struct Sessions {
    instances: Instances,
    store: Arc<dyn Store>,
    deadline: Duration,
    counters: Counters,
    hasher: SessionHasher,
}

/// What a request begins with.
pub(crate) enum Begun {
    /// The application may use this session. What the store said of it is for `finish`.
    Session(Box<wit::Session>, wit::Known),
    /// The path has none.
    None,
    /// The request cannot be answered.
    Failed(wit::Failure),
}

impl Sessions {
    pub(crate) fn new(
        component: Component,
        options: Options,
        store: Arc<dyn Store>,
        deadline: Duration,
    ) -> Result<Self, OptionsError> {
        // A configuration without a secret is refused below.
        let hasher = SessionHasher::new(options.secrets.first().map_or(&[], Vec::as_slice));
        let instances = Instances::open(component, options)?;
        Ok(Self { instances, store, deadline, counters: Counters::new(), hasher })
    }

    pub(crate) async fn begin(&self, request: &wit::Request) -> Begun {
        let mut known = wit::Known { loaded: None, current: None };
        let mut step = self.instances.begin(request);
        let mut unavailable = None;
        let failure = loop {
            match step {
                Ok(wit::Step::Store(pending)) => {
                    let id = &pending.exchange.id;
                    let reply = self.perform(id, pending.request, &mut known).await;
                    if let wit::StoreReply::Unavailable(why) = &reply {
                        unavailable = Some(why.clone());
                    }
                    step = self.instances.resume(&pending.exchange, &known, None, &reply);
                }
                Ok(wit::Step::Ready(session)) => {
                    self.counters.begun(session.exchange.origin);
                    let origin = origin_name(session.exchange.origin);
                    match session.exchange.origin {
                        wit::Origin::Loaded | wit::Origin::Absent => {}
                        wit::Origin::Damaged => {
                            tracing::warn!(
                                origin,
                                "a stored session cannot be read and is left alone"
                            );
                        }
                        wit::Origin::Detached => {
                            let why = unavailable.unwrap_or_default();
                            tracing::error!("a request goes on without its session: {why}");
                        }
                        _ => tracing::info!(origin, "a new session begins"),
                    }
                    return Begun::Session(Box::new(session), known);
                }
                Ok(wit::Step::Done(wit::Outcome { failure: None, .. })) => return Begun::None,
                Ok(wit::Step::Done(wit::Outcome { failure: Some(failure), .. })) => break failure,
                Err(error) => break trapped(&error),
            }
        };
        self.report(&failure);
        Begun::Failed(failure)
    }

    pub(crate) async fn finish(
        &self,
        exchange: wit::Exchange,
        mut known: wit::Known,
        change: wit::Change,
    ) -> wit::Outcome {
        let mut step = self.instances.finish(&exchange, &known, &change);
        let mut unavailable = None;
        let outcome = loop {
            match step {
                Ok(wit::Step::Store(pending)) => {
                    let wit::Pending { request, exchange, on_done } = pending;
                    let reply = self.perform(&exchange.id, request, &mut known).await;
                    step = match (reply, on_done) {
                        (wit::StoreReply::Done, Some(outcome)) => break outcome,
                        (reply, _) => {
                            if let wit::StoreReply::Unavailable(why) = &reply {
                                unavailable = Some(why.clone());
                            }
                            self.instances.resume(&exchange, &known, Some(&change), &reply)
                        }
                    };
                }
                Ok(wit::Step::Done(outcome)) => break outcome,
                Ok(wit::Step::Ready(_)) => {
                    break failed(trapped(&"it answered `ready` to a finish"));
                }
                Err(error) => break failed(trapped(&error)),
            }
        };
        self.counters.finished(&outcome);
        self.log(&exchange.id, &outcome);
        match (&outcome.failure, unavailable) {
            (Some(failure), _) => self.report(failure),
            (None, Some(why)) => {
                tracing::error!("a request ended well although the store failed: {why}");
            }
            (None, None) => {}
        }
        outcome
    }

    /// Tell what became of a session. Its beginning and end may be of interest to those who
    /// look for an attack.
    fn log(&self, id: &str, outcome: &wit::Outcome) {
        let event = event_name(outcome.event);
        let session = || self.hasher.name(outcome.new_id.as_deref().unwrap_or(id));
        match outcome.event {
            wit::Event::None => {}
            wit::Event::Moved => {
                let old = self.hasher.name(id);
                tracing::info!(event, session = session(), old, "a session has a new identifier");
            }
            wit::Event::Destroyed => tracing::info!(event, session = session(), "a session ended"),
            _ if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!(event, session = session(), "a session was used");
            }
            _ => {}
        }
    }

    /// The name of a session for logs.
    pub(crate) fn hasher(&self) -> &SessionHasher {
        &self.hasher
    }

    /// Do what the component asks of the store, within the deadline, and keep what it says.
    async fn perform(
        &self,
        id: &str,
        request: wit::StoreRequest,
        known: &mut wit::Known,
    ) -> wit::StoreReply {
        let (operation, name) = operation(&request);
        let began = Instant::now();
        let mut work = pin!(perform(&*self.store, id, request, known));
        // A store in memory is done at once, and needs no timer.
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
            Err(_) => format!("no answer within {} s", self.deadline.as_secs_f32()),
        };
        wit::StoreReply::Unavailable(format!("{name}: {why}"))
    }

    pub(crate) async fn check_store(&self) -> Result<(), String> {
        // No identifier is that short: the store has to look for it and finds nothing.
        let mut known = wit::Known { loaded: None, current: None };
        match self.perform("-", wit::StoreRequest::Load, &mut known).await {
            wit::StoreReply::Unavailable(why) => Err(why),
            _ => Ok(()),
        }
    }

    pub(crate) fn options(&self) -> &Options {
        self.instances.options()
    }

    fn report(&self, failure: &wit::Failure) {
        self.counters.failed(failure);
        match failure {
            wit::Failure::Unavailable(why) => tracing::error!("sessions are unavailable: {why}"),
            wit::Failure::InvalidChange(why) => {
                tracing::error!("the application's change to the session was refused: {why}");
            }
            wit::Failure::TooLarge(bytes) => {
                tracing::error!(bytes, "the session is above max_session_bytes and was not stored");
            }
            wit::Failure::Contention => {
                tracing::error!("too many requests changed one session at once: this one gave up");
            }
        }
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

fn failed(failure: wit::Failure) -> wit::Outcome {
    wit::Outcome {
        event: wit::Event::None,
        new_id: None,
        set_cookie: None,
        no_store: false,
        conflicts: 0,
        failure: Some(failure),
    }
}

fn trapped(error: &dyn std::fmt::Display) -> wit::Failure {
    wit::Failure::Unavailable(format!("the component failed: {error}"))
}
