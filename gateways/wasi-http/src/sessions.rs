//! The loop that every gateway runs: it asks the engine and performs the store operations.

use edge_session_component::wit::{
    Beginning, Change, Failure, Millis, Obstacle, Operation, Outcome, Request, Session, Stored,
    Value, Write,
};
use edge_session_component::{Engine, Environment};
use edge_session_headers as session_headers;

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

/// A session for the application, with what the store has returned for it.
pub(crate) struct Begun {
    pub(crate) session: Session,
    pub(crate) stored: Option<Stored>,
}

impl Begun {
    /// Returns the session's data.
    pub(crate) fn data(&self) -> String {
        let stored = self.stored.as_ref().map(|it| &*it.data);
        session_headers::data(self.session.text.as_deref().or(stored).unwrap_or("{}"))
    }
}

impl Sessions {
    /// Configures the engine with the options of the environment; fails with everything that is
    /// wrong with them.
    pub(crate) fn open() -> Result<Self, String> {
        let engine = Engine::configure(&options::read(&get_environment()))
            .map_err(|problems| options::explain(&problems))?;
        let in_force = engine.in_force();
        let json = |name: &str| {
            let setting = in_force.iter().find(|it| it.name == name)?;
            match &setting.value {
                Value::Json(json) => serde_json::from_str::<serde_json::Value>(json).ok(),
                Value::Text(_) | Value::Bytes(_) => None,
            }
        };
        let cookie_name = json("name").and_then(|it| it.as_str().map(str::to_owned));
        let believes_proto = json("proxy") == Some(true.into());
        Ok(Self { engine, cookie_name: cookie_name.unwrap_or_default(), believes_proto })
    }

    pub(crate) fn cookie_name(&self) -> &str {
        &self.cookie_name
    }

    /// Returns whether the rules use X-Forwarded-Proto.
    pub(crate) fn believes_proto(&self) -> bool {
        self.believes_proto
    }

    /// Begins a request; none: the path has no session.
    pub(crate) async fn begin(&self, request: &Request) -> Result<Option<Begun>, Failure> {
        let mut stored = None;
        let mut beginning = self.engine.begin(&Wasi, request);
        loop {
            beginning = match beginning {
                Beginning::None => return Ok(None),
                Beginning::Ready(session) => return Ok(Some(Begun { session, stored })),
                Beginning::Load(visit) => {
                    let loaded = store::load(visit.id.clone()).await.map_err(report);
                    stored = loaded.clone().unwrap_or_default();
                    let loaded = loaded.as_ref().map(Option::as_ref).map_err(Clone::clone);
                    self.engine.loaded(&Wasi, visit, loaded)?
                }
            };
        }
    }

    /// Stores the application's change.
    pub(crate) async fn finish(&self, begun: Begun, change: &Change) -> Result<Outcome, Failure> {
        let Begun { session, stored } = begun;
        let stored = stored.as_ref();
        let mut plan = self.engine.finish(&Wasi, session.visit, stored, change)?;
        let mut seen = stored.cloned();
        loop {
            let mut met = None;
            for (at, write) in plan.writes.into_iter().enumerate() {
                if let Err(obstacle) = perform(write, seen.as_ref()).await {
                    met = Some((at, obstacle));
                    break;
                }
            }
            let Some((at, obstacle)) = met else { return Ok(plan.outcome) };
            if let Obstacle::Conflict(current) = &obstacle {
                seen = Some(current.clone());
            }
            plan = self.engine.resume(&Wasi, plan.visit, stored, change, at, obstacle)?;
        }
    }
}

/// Performs an operation of a plan.
async fn perform(write: Write, seen: Option<&Stored>) -> Result<(), Obstacle> {
    let Write { id, operation, if_unchanged } = write;
    let expected = seen.filter(|_| if_unchanged).map(|it| it.data.clone());
    let changed = match operation {
        Operation::Load => {
            let stored = store::load(id).await.map_err(obstacle)?;
            return Err(stored.map_or(Obstacle::Missing, Obstacle::Conflict));
        }
        Operation::Create(content) => {
            return match store::create(id, content).await.map_err(obstacle)? {
                Created::Done => Ok(()),
                Created::Taken => Err(Obstacle::Taken),
            };
        }
        Operation::Replace(content) => store::replace(id, content, expected).await,
        Operation::Touch(expires) => store::touch(id, expires).await,
        Operation::Delete => store::delete(id, expected).await,
    };
    match changed.map_err(obstacle)? {
        Changed::Done => Ok(()),
        Changed::Missing => Err(Obstacle::Missing),
        Changed::Conflict(current) => Err(Obstacle::Conflict(current)),
    }
}

fn obstacle(error: Error) -> Obstacle {
    match error {
        Error::Refused(why) => Obstacle::Refused(why),
        error @ Error::Unavailable(_) => Obstacle::Unavailable(report(error)),
    }
}

/// Logs why the store failed, and returns the reason.
fn report(error: Error) -> String {
    let (Error::Refused(why) | Error::Unavailable(why)) = error;
    log(format!("the store failed: {why}"));
    why
}
