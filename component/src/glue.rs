//! Connects the component's exports and imports to the logic. Contains no logic itself.

use std::cell::Cell;

use crate::bindings::exports::edge::session::engine as out;
use crate::bindings::wasi::{clocks::wall_clock, random::random};
use crate::engine::{Engine, Environment};
use crate::failure::misuse;
use crate::options::describe;
use crate::wit;

/// The clock and the random source that the component imports.
struct Wasi;

impl Environment for Wasi {
    fn now(&self) -> wit::Millis {
        let now = wall_clock::now();
        now.seconds * 1000 + u64::from(now.nanoseconds / 1_000_000)
    }

    fn random(&self) -> [u8; 24] {
        // Three integers cross the boundary more cheaply than one list.
        let mut bytes = [0; 24];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&random::get_random_u64().to_le_bytes());
        }
        bytes
    }
}

thread_local! {
    /// The engine that `configure` has made. It is kept as long as the instance.
    static ENGINE: Cell<Option<&'static Engine>> = const { Cell::new(None) };
}

fn engine() -> Result<&'static Engine, wit::Failure> {
    ENGINE.get().ok_or_else(|| misuse("the instance is not configured"))
}

struct Component;

impl out::Guest for Component {
    fn options() -> Vec<out::OptionDescription> {
        let description = |it: wit::OptionDescription| out::OptionDescription {
            name: it.name,
            values: it.values,
            safe: it.safe,
            express: it.express,
            help: it.help,
        };
        describe().into_iter().map(description).collect()
    }

    fn configure(settings: Vec<out::Setting>) -> Result<Vec<out::Setting>, Vec<out::Problem>> {
        let settings: Vec<_> = settings.into_iter().map(setting_in).collect();
        let problem = |wit::Problem { name, message }: wit::Problem| out::Problem { name, message };
        let engine = Engine::configure(&settings)
            .map_err(|problems| problems.into_iter().map(problem).collect::<Vec<_>>())?;
        drop(settings);
        let in_force = engine.in_force().into_iter().map(setting_out).collect();
        ENGINE.set(Some(Box::leak(Box::new(engine))));
        crate::arena::keep();
        Ok(in_force)
    }

    fn begin(request: out::Request) -> Result<out::Beginning, out::Failure> {
        let out::Request { cookies, path, tls, secure, forwarded_proto } = request;
        let request = wit::Request { cookies, path, tls, secure, forwarded_proto };
        let engine = engine().map_err(failure)?;
        Ok(beginning(engine.begin(&Wasi, &request)))
    }

    fn loaded(
        visit: out::Visit,
        stored: Result<Option<out::Stored>, String>,
    ) -> Result<out::Beginning, out::Failure> {
        let stored = stored.map(|it| it.map(stored_in));
        let stored = stored.as_ref().map(Option::as_ref).map_err(Clone::clone);
        let begun = engine().and_then(|it| it.loaded(&Wasi, visit_in(visit), stored));
        begun.map(beginning).map_err(failure)
    }

    fn finish(
        visit: out::Visit,
        stored: Option<out::Stored>,
        change: out::Change,
    ) -> Result<out::Plan, out::Failure> {
        let (stored, change) = (stored.map(stored_in), change_in(change));
        let decided =
            engine().and_then(|it| it.finish(&Wasi, visit_in(visit), stored.as_ref(), &change));
        decided.map(plan).map_err(failure)
    }

    fn resume(
        visit: out::Visit,
        stored: Option<out::Stored>,
        change: out::Change,
        at: u32,
        obstacle: out::Obstacle,
    ) -> Result<out::Plan, out::Failure> {
        let (stored, change) = (stored.map(stored_in), change_in(change));
        let obstacle = match obstacle {
            out::Obstacle::Missing => wit::Obstacle::Missing,
            out::Obstacle::Taken => wit::Obstacle::Taken,
            out::Obstacle::Conflict(current) => wit::Obstacle::Conflict(stored_in(current)),
            out::Obstacle::Refused(why) => wit::Obstacle::Refused(why),
            out::Obstacle::Unavailable(why) => wit::Obstacle::Unavailable(why),
        };
        let decided = engine().and_then(|it| {
            it.resume(&Wasi, visit_in(visit), stored.as_ref(), &change, at as usize, obstacle)
        });
        decided.map(plan).map_err(failure)
    }
}

// ------------------------------------------- between generated types and those of the logic ----

fn setting_in(setting: out::Setting) -> wit::Setting {
    let value = match setting.value {
        out::Value::Json(json) => wit::Value::Json(json),
        out::Value::Text(text) => wit::Value::Text(text),
        out::Value::Bytes(bytes) => wit::Value::Bytes(bytes),
    };
    wit::Setting { name: setting.name, value }
}

fn setting_out(setting: wit::Setting) -> out::Setting {
    let value = match setting.value {
        wit::Value::Json(json) => out::Value::Json(json),
        wit::Value::Text(text) => out::Value::Text(text),
        wit::Value::Bytes(bytes) => out::Value::Bytes(bytes),
    };
    out::Setting { name: setting.name, value }
}

fn visit_in(visit: out::Visit) -> wit::Visit {
    let out::Visit { id, state: out::State { bits, text } } = visit;
    wit::Visit { id, state: wit::State { bits, text } }
}

fn visit_out(visit: wit::Visit) -> out::Visit {
    let wit::Visit { id, state: wit::State { bits, text } } = visit;
    out::Visit { id, state: out::State { bits, text } }
}

fn stored_in(stored: out::Stored) -> wit::Stored {
    let out::Stored { data, expires, touched } = stored;
    wit::Stored { data, expires, touched }
}

fn change_in(change: out::Change) -> wit::Change {
    let edits = |edits: Vec<out::Edit>| {
        let edit = |out::Edit { key, value }| wit::Edit { key, value };
        edits.into_iter().map(edit).collect()
    };
    wit::Change {
        action: match change.action {
            out::Action::Keep => wit::Action::Keep,
            out::Action::Renew => wit::Action::Renew,
            out::Action::Regenerate => wit::Action::Regenerate,
            out::Action::Destroy => wit::Action::Destroy,
            out::Action::Unset => wit::Action::Unset,
        },
        data: match change.data {
            out::DataChange::Nothing => wit::DataChange::Nothing,
            out::DataChange::Edits(list) => wit::DataChange::Edits(edits(list)),
            out::DataChange::Whole(text) => wit::DataChange::Whole(text),
        },
        cookie: edits(change.cookie),
    }
}

fn beginning(beginning: wit::Beginning) -> out::Beginning {
    match beginning {
        wit::Beginning::None => out::Beginning::None,
        wit::Beginning::Load(visit) => out::Beginning::Load(visit_out(visit)),
        wit::Beginning::Ready(session) => out::Beginning::Ready(out::Session {
            visit: visit_out(session.visit),
            origin: match session.origin {
                wit::Origin::Loaded => out::Origin::Loaded,
                wit::Origin::Absent => out::Origin::Absent,
                wit::Origin::Malformed => out::Origin::Malformed,
                wit::Origin::Forged => out::Origin::Forged,
                wit::Origin::Oversized => out::Origin::Oversized,
                wit::Origin::Unknown => out::Origin::Unknown,
                wit::Origin::Damaged => out::Origin::Damaged,
                wit::Origin::Detached => out::Origin::Detached,
            },
            text: session.text,
        }),
    }
}

fn plan(plan: wit::Plan) -> out::Plan {
    let content = |wit::Content { data, expires }| out::Content { data, expires };
    let write = |wit::Write { id, operation, if_unchanged }| {
        let operation = match operation {
            wit::Operation::Create(new) => out::Operation::Create(content(new)),
            wit::Operation::Replace(new) => out::Operation::Replace(content(new)),
            wit::Operation::Touch(expires) => out::Operation::Touch(expires),
            wit::Operation::Delete => out::Operation::Delete,
            wit::Operation::Load => out::Operation::Load,
        };
        out::Write { id, operation, if_unchanged }
    };
    let wit::Outcome { event, new_id, set_cookie, no_store } = plan.outcome;
    let event = match event {
        wit::Event::None => out::Event::None,
        wit::Event::Created => out::Event::Created,
        wit::Event::Saved => out::Event::Saved,
        wit::Event::Touched => out::Event::Touched,
        wit::Event::Moved => out::Event::Moved,
        wit::Event::Destroyed => out::Event::Destroyed,
        wit::Event::Gone => out::Event::Gone,
    };
    out::Plan {
        visit: visit_out(plan.visit),
        writes: plan.writes.into_iter().map(write).collect(),
        outcome: out::Outcome { event, new_id, set_cookie, no_store },
    }
}

fn failure(failure: wit::Failure) -> out::Failure {
    let wit::Failure { kind, status, message, reason } = failure;
    let kind = match kind {
        wit::FailureKind::Unavailable => out::FailureKind::Unavailable,
        wit::FailureKind::InvalidChange => out::FailureKind::InvalidChange,
        wit::FailureKind::TooLarge => out::FailureKind::TooLarge,
        wit::FailureKind::Contention => out::FailureKind::Contention,
        wit::FailureKind::Misuse => out::FailureKind::Misuse,
    };
    out::Failure { kind, status, message, reason }
}

#[allow(unsafe_code, unreachable_pub, reason = "export symbols of the component model")]
mod export {
    crate::bindings::export!(Component with_types_in crate::bindings);
    use super::Component;
}
