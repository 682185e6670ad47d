//! The loop that every gateway runs: it asks the engine and performs the store operations.

use edge_session_component::wit::{
    Change, Event, Exchange, Failure, Known, Millis, Outcome, Pending, Replacement, Request,
    Session, Step, StoreReply, StoreRequest,
};
use edge_session_component::{Engine, Environment};

use crate::bindings::edge::session::store::{self, Changed, Created, Error};
use crate::bindings::wasi::cli::environment::get_environment;
use crate::bindings::wasi::clocks0_3_0::system_clock;
use crate::bindings::wasi::random0_3_0::random::get_random_u64;
use crate::log::log;
use crate::options;

/// The imported clock and randomness.
struct Wasi;

impl Environment for Wasi {
    fn now(&self) -> Millis {
        let now = system_clock::now();
        // A clock before 1970 has not been set.
        u64::try_from(now.seconds).unwrap_or(0) * 1000 + u64::from(now.nanoseconds / 1_000_000)
    }

    fn random(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&get_random_u64().to_le_bytes());
        }
        bytes
    }
}

/// This instance's engine.
pub(crate) struct Sessions {
    engine: Engine,
    cookie_name: String,
    believes_proto: bool,
}

/// The result of beginning an exchange.
pub(crate) enum Begun {
    Session(Box<Session>, Known),
    /// The path has no session.
    None,
    Failed(Failure),
}

impl Sessions {
    /// Opens the engine with the options of the environment; fails with everything that is wrong
    /// with them.
    pub(crate) fn open() -> Result<Self, String> {
        let options = options::read(&get_environment())?;
        let cookie_name = options.name.clone();
        let believes_proto = options.proxy == Some(true);
        let engine = Engine::open(options).map_err(|problems| options::explain(&problems))?;
        Ok(Self { engine, cookie_name, believes_proto })
    }

    pub(crate) fn cookie_name(&self) -> &str {
        &self.cookie_name
    }

    /// Returns whether the rules use X-Forwarded-Proto.
    pub(crate) fn believes_proto(&self) -> bool {
        self.believes_proto
    }

    pub(crate) fn begin(&self, request: &Request) -> Begun {
        let mut known = Known { loaded: None, current: None };
        let step = self.engine.begin(&Wasi, request);
        match self.run(step, &mut known, None) {
            Ok(session) => Begun::Session(session, known),
            Err(Outcome { failure: Some(failure), .. }) => Begun::Failed(failure),
            Err(_) => Begun::None,
        }
    }

    pub(crate) fn finish(&self, exchange: Exchange, mut known: Known, change: &Change) -> Outcome {
        let step = self.engine.finish(&Wasi, exchange, &known, change);
        match self.run(step, &mut known, Some(change)) {
            Err(outcome) => outcome,
            // By its contract, the engine is done here.
            Ok(_) => Outcome {
                event: Event::None,
                new_id: None,
                set_cookie: None,
                no_store: false,
                conflicts: 0,
                failure: Some(Failure::Unavailable("the session began again".to_owned())),
            },
        }
    }

    fn run(
        &self,
        mut step: Step,
        known: &mut Known,
        change: Option<&Change>,
    ) -> Result<Box<Session>, Outcome> {
        loop {
            let Pending { request, exchange, on_done } = match step {
                Step::Store(pending) => pending,
                Step::Ready(session) => return Ok(Box::new(session)),
                Step::Done(outcome) => {
                    report(&outcome);
                    return Err(outcome);
                }
            };
            let reply = match perform(&exchange.id, request, known) {
                Ok(reply) => reply,
                Err(Error::Refused(why)) => StoreReply::Refused(why),
                Err(Error::Unavailable(why)) => {
                    log(format!("the store failed: {why}"));
                    StoreReply::Unavailable(why)
                }
            };
            step = match (reply, on_done) {
                (StoreReply::Done, Some(outcome)) => Step::Done(outcome),
                (reply, _) => self.engine.resume(&Wasi, exchange, known, change, reply),
            };
        }
    }
}

/// Performs a store operation and records the result in `known`.
fn perform(id: &str, request: StoreRequest, known: &mut Known) -> Result<StoreReply, Error> {
    let last = known.current.as_ref().or(known.loaded.as_ref());
    let expected = |only_known: bool| last.filter(|_| only_known).map(|it| it.data.as_str());
    let changed = match request {
        StoreRequest::Load => {
            known.loaded = store::load(id)?;
            return Ok(match known.loaded {
                Some(_) => StoreReply::Found,
                None => StoreReply::Missing,
            });
        }
        StoreRequest::Create(content) => {
            return Ok(match store::create(id, &content)? {
                Created::Done => StoreReply::Done,
                Created::Taken => StoreReply::Taken,
            });
        }
        StoreRequest::Replace(Replacement { content, only_known }) => {
            store::replace(id, &content, expected(only_known))?
        }
        StoreRequest::Touch(expires) => store::touch(id, expires)?,
        StoreRequest::Delete(only_known) => store::delete(id, expected(only_known))?,
    };
    Ok(match changed {
        Changed::Done => StoreReply::Done,
        Changed::Missing => StoreReply::Missing,
        Changed::Conflict(current) => {
            known.current = Some(current);
            StoreReply::Conflict
        }
    })
}

/// Logs why a request fails. A store failure was logged when it occurred.
fn report(outcome: &Outcome) {
    match &outcome.failure {
        None | Some(Failure::Unavailable(_)) => {}
        Some(Failure::InvalidChange(why)) => {
            log(format!("the application's change to the session was refused: {why}"));
        }
        Some(Failure::TooLarge(bytes)) => log(format!(
            "the session has {bytes} bytes, more than max_session_bytes, and was not stored"
        )),
        Some(Failure::Contention) => {
            log("a change was not stored: too many requests changed the session at once, or its \
                 identifier has changed");
        }
    }
}
