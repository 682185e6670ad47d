//! One request's way from its cookie to its Set-Cookie: the state machine.
//!
//! `begin` → (load) → ready → `finish` → (create | replace | touch | delete …) → done.
//! Every function takes the facts and answers with a [`Step`]; nothing is kept between
//! the calls but what the [`Exchange`] carries.

use crate::cookie_header::{Found, find};
use crate::document::{Damaged, Document};
use crate::identifier;
use crate::lifecycle::{self, Facts, Storage};
use crate::options;
use crate::session_cookie::SessionCookie;
use crate::signature::Keys;
use crate::wit::{
    Action, Change, Conflicts, Entry, Event, Exchange, Failure, Millis, OnStoreError, Options,
    Origin, Outcome, Pending, Phase, Preset, Problem, Removal, Replacement, Request, Session, Step,
    StoreReply, StoreRequest, Stored, Touched, Unset,
};

/// A request gives up after this many conflicts. Each means that another request of
/// the same session was stored, so that 64 at once always get through.
const MAX_CONFLICTS: u32 = 256;

/// The two things that the logic cannot know by itself.
pub trait Environment {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Millis;
    /// Unpredictable bytes for an identifier.
    fn random(&self) -> [u8; 24];
}

/// Options that were checked, and keys that are ready to sign.
pub struct Engine {
    options: Options,
    keys: Keys,
}

/// What is to be stored and sent.
struct Decision {
    storage: Storage,
    text: String,
    expires: Millis,
    outcome: Outcome,
}

impl Engine {
    /// Check the options and build an engine from them, or say everything that is wrong.
    pub fn open(options: Options) -> Result<Self, Vec<Problem>> {
        let problems = options::check(&options);
        if !problems.is_empty() {
            return Err(problems);
        }
        let keys = Keys::new(&options.secrets);
        Ok(Self { options, keys })
    }

    /// Begin an exchange: read the cookie, and ask for the session that it names.
    pub fn begin(&self, env: &impl Environment, request: &Request) -> Step {
        // express-session's test is of the bare prefix: `/foo` matches `/foobar`.
        let path = if request.path.is_empty() { "/" } else { &request.path };
        if !path.starts_with(&self.options.cookie.path) {
            return Step::Done(outcome(Event::None, None, 0));
        }
        let found = find(&request.cookies, &self.options.name);
        let presented = found != Found::Absent;
        let secure = self.is_secure(request);
        let origin = match &found {
            Found::Absent => Origin::Absent,
            Found::Oversized => Origin::Oversized,
            Found::Value(value) => match value.strip_prefix("s:") {
                None => Origin::Malformed,
                Some(signed) => match self.keys.unsign(signed) {
                    None => Origin::Forged,
                    Some("") => Origin::Malformed,
                    Some(id) => {
                        return Step::Store(Pending {
                            request: StoreRequest::Load(id.to_owned()),
                            exchange: Exchange {
                                phase: Phase::Loading,
                                ..exchange(id.to_owned(), Origin::Loaded, secure, presented)
                            },
                            on_done: None,
                        });
                    }
                },
            },
        };
        self.fresh(env, origin, secure, presented)
    }

    /// The application is done: decide what is stored and which cookie is sent.
    pub fn finish(&self, env: &impl Environment, exchange: Exchange, change: &Change) -> Step {
        if exchange.origin == Origin::Detached {
            return Step::Done(outcome(Event::None, None, 0));
        }
        match (change.action, self.options.unset) {
            (Action::Destroy, _) | (Action::Unset, Unset::Destroy) => self.destroy(exchange),
            (Action::Unset, Unset::Keep) => Step::Done(outcome(Event::None, None, 0)),
            (Action::Keep | Action::Renew | Action::Regenerate, _) => {
                self.store(env, exchange, change)
            }
        }
    }

    /// The store has replied.
    pub fn resume(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        change: Option<&Change>,
        reply: StoreReply,
    ) -> Step {
        let reply = match reply {
            StoreReply::Unavailable(why) => return self.unavailable(env, exchange, why),
            reply => reply,
        };
        let Some(change) = change.filter(|_| exchange.phase != Phase::Loading) else {
            return self.loaded(env, exchange, reply);
        };
        match (exchange.phase, reply) {
            (Phase::Destroying, StoreReply::Done | StoreReply::Missing) => {
                Step::Done(self.destroyed(&exchange))
            }
            (
                Phase::Creating | Phase::Saving | Phase::Touching | Phase::Retiring,
                StoreReply::Done,
            ) => self.decided(env, &exchange, change),
            (Phase::Creating, StoreReply::Taken) => {
                exchange.id = identifier::from_random(env.random());
                self.again(env, exchange, change)
            }
            (Phase::Moving, StoreReply::Taken) => {
                exchange.successor = None;
                self.again(env, exchange, change)
            }
            (Phase::Moving, StoreReply::Done) => self.retire(env, exchange, change),
            (Phase::Retiring, StoreReply::Missing) if change.action == Action::Regenerate => {
                self.decided(env, &exchange, change)
            }
            // Ended by another request: the successor must not outlive it.
            (Phase::Retiring, StoreReply::Missing) => {
                exchange.id = exchange.successor.take().unwrap_or(exchange.id);
                exchange.origin = Origin::Unknown;
                exchange.phase = Phase::Destroying;
                let on_done = self.gone(&exchange);
                delete(exchange, None, on_done)
            }
            (Phase::Saving | Phase::Touching, StoreReply::Missing) => {
                Step::Done(self.gone(&exchange))
            }
            (Phase::Saving | Phase::Retiring, StoreReply::Conflict(current)) => {
                exchange.seen = Some(current);
                self.again(env, exchange, change)
            }
            (phase, reply) => {
                let why = format!("the store answered {} to {}", name(&reply), phase_name(phase));
                self.unavailable(env, exchange, why)
            }
        }
    }

    fn loaded(&self, env: &impl Environment, mut exchange: Exchange, reply: StoreReply) -> Step {
        let (secure, presented) = (exchange.secure, exchange.presented);
        let stored = match reply {
            StoreReply::Found(stored) => stored,
            StoreReply::Missing => return self.fresh(env, Origin::Unknown, secure, presented),
            reply => {
                let why = format!("the store answered {} to a load", name(&reply));
                return self.unavailable(env, exchange, why);
            }
        };
        if stored.expires.is_some_and(|expires| expires <= env.now()) {
            return self.fresh(env, Origin::Unknown, secure, presented);
        }
        let Ok((data, cookie)) = Document::parse(&stored.data).and_then(|document| {
            let cookie = SessionCookie::parse(document.cookie.ok_or(Damaged)?)?;
            Ok((document.data_text(), cookie.view()))
        }) else {
            return self.fresh(env, Origin::Damaged, secure, presented);
        };
        exchange.phase = Phase::Open;
        Step::Ready(Session {
            data,
            cookie,
            expires: stored.expires,
            exchange: Exchange { loaded: Some(stored), ..exchange },
        })
    }

    /// A new session. The identifier that came with the request, if any, is never adopted.
    fn fresh(&self, env: &impl Environment, origin: Origin, secure: bool, presented: bool) -> Step {
        Step::Ready(Session {
            exchange: exchange(identifier::from_random(env.random()), origin, secure, presented),
            data: "{}".to_owned(),
            cookie: SessionCookie::new(&self.options.cookie, secure, env.now()).view(),
            expires: None,
        })
    }

    /// Ask the store for what [`Self::decide`] decided.
    fn store(&self, env: &impl Environment, mut exchange: Exchange, change: &Change) -> Step {
        let moving = change.action != Action::Keep && exchange.loaded.is_some();
        if moving && exchange.successor.is_none() {
            exchange.successor = Some(identifier::from_random(env.random()));
            // Nobody has been told of an earlier successor: it is created, not replaced.
            exchange.phase = Phase::Open;
        }
        let Decision { storage, text, expires, outcome } = match self.decide(env, &exchange, change)
        {
            Ok(decision) => decision,
            Err(failure) => return failed(failure, exchange.conflicts),
        };
        if text.len() > self.options.max_session_bytes as usize {
            return failed(Failure::TooLarge(text.len() as u64), exchange.conflicts);
        }
        let id = exchange.id.clone();
        let entry = |id| Entry { id, data: text, expires };
        let (phase, request) = match storage {
            Storage::Leave => return Step::Done(outcome),
            Storage::Touch => (Phase::Touching, StoreRequest::Touch(Touched { id, expires })),
            Storage::Save if moving => {
                let entry = entry(exchange.successor.clone().unwrap_or_default());
                let request = if exchange.phase == Phase::Retiring {
                    StoreRequest::Replace(Replacement { entry, expected: None })
                } else {
                    StoreRequest::Create(entry)
                };
                (Phase::Moving, request)
            }
            Storage::Save => match (&exchange.loaded, self.options.conflicts) {
                (None, Conflicts::Merge) => (Phase::Creating, StoreRequest::Create(entry(id))),
                (_, Conflicts::Overwrite) => (
                    Phase::Saving,
                    StoreRequest::Replace(Replacement { entry: entry(id), expected: None }),
                ),
                (Some(_), Conflicts::Merge) => {
                    let expected = expected(&exchange);
                    (
                        Phase::Saving,
                        StoreRequest::Replace(Replacement { entry: entry(id), expected }),
                    )
                }
            },
        };
        // A moved session's predecessor has yet to be deleted.
        let on_done = (phase != Phase::Moving).then_some(outcome);
        Step::Store(Pending { request, exchange: Exchange { phase, ..exchange }, on_done })
    }

    /// What becomes of the session, by the rules of [`lifecycle`].
    fn decide(
        &self,
        env: &impl Environment,
        exchange: &Exchange,
        change: &Change,
    ) -> Result<Decision, Failure> {
        let now = env.now();
        let damaged = |Damaged| Failure::Unavailable("the stored session is damaged".to_owned());
        let starts_empty = change.action == Action::Regenerate;
        let base = match &exchange.loaded {
            Some(stored) if !starts_empty => Document::parse(&stored.data).map_err(damaged)?,
            _ => Document::default(),
        };
        let plan = base.plan(&change.data).map_err(Failure::InvalidChange)?;
        let document = match &exchange.seen {
            Some(seen) if !starts_empty => {
                Document::parse(&seen.data).map_err(damaged)?.merged(&plan)
            }
            _ => base.changed(&plan),
        };
        let mut cookie = match document.cookie {
            Some(text) => SessionCookie::parse(text).map_err(damaged)?,
            None => SessionCookie::new(&self.options.cookie, exchange.secure, now),
        };
        let cookie_changed = match &change.cookie {
            None => false,
            Some(new) => {
                let old = cookie.clone();
                cookie.change(new, now);
                let invalid = || {
                    Failure::InvalidChange("the cookie's path or domain is not valid".to_owned())
                };
                cookie.check().ok_or_else(invalid)?;
                cookie != old
            }
        };
        cookie.touch(now);

        let moved = change.action != Action::Keep;
        let counts = self.options.preset == Preset::Safe;
        let facts = Facts {
            is_new: exchange.loaded.is_none() || moved,
            modified: !plan.is_empty() || moved || (cookie_changed && counts),
            expires: cookie.expires().is_some(),
        };
        let ttl = self.options.ttl.saturating_mul(1000);
        let mut storage = lifecycle::storage(&self.options, facts);
        if storage == Storage::Touch {
            let stored_expiry = exchange.loaded.as_ref().and_then(|stored| stored.expires);
            let lifetime = cookie.original_max_age().unwrap_or(ttl);
            if lifecycle::was_touched_recently(&self.options, stored_expiry, lifetime, now) {
                storage = Storage::Leave;
            }
        }
        let id = exchange.successor.as_ref().unwrap_or(&exchange.id);
        let may_send = exchange.secure || !cookie.secure();
        let set_cookie = (may_send && lifecycle::sends_cookie(&self.options, facts))
            .then(|| cookie.serialize(&self.options.name, &format!("s:{}", self.keys.sign(id))));
        let event = match storage {
            Storage::Leave => Event::None,
            Storage::Touch => Event::Touched,
            Storage::Save if exchange.loaded.is_none() => Event::Created,
            Storage::Save if moved => Event::Moved,
            Storage::Save => Event::Saved,
        };
        let known = !facts.is_new || storage == Storage::Save;
        Ok(Decision {
            storage,
            text: if storage == Storage::Save {
                document.to_text(&cookie.to_text())
            } else {
                String::new()
            },
            expires: cookie.expires().unwrap_or(now.saturating_add(ttl)),
            outcome: Outcome {
                no_store: self.forbids_caching(set_cookie.as_ref()),
                set_cookie,
                ..outcome(event, known.then(|| id.clone()), exchange.conflicts)
            },
        })
    }

    /// Decide anew after a conflict.
    fn again(&self, env: &impl Environment, mut exchange: Exchange, change: &Change) -> Step {
        exchange.conflicts += 1;
        if exchange.conflicts > MAX_CONFLICTS {
            return failed(Failure::Contention, exchange.conflicts);
        }
        self.store(env, exchange, change)
    }

    /// The session is stored under its successor: delete the old one, for renewals only
    /// as it was last seen, so that no concurrent change is lost with it.
    fn retire(&self, env: &impl Environment, exchange: Exchange, change: &Change) -> Step {
        let conditional =
            change.action == Action::Renew && self.options.conflicts == Conflicts::Merge;
        let expected = expected(&exchange).filter(|_| conditional);
        let on_done = match self.decide(env, &exchange, change) {
            Ok(decision) => decision.outcome,
            Err(failure) => return failed(failure, exchange.conflicts),
        };
        delete(Exchange { phase: Phase::Retiring, ..exchange }, expected, on_done)
    }

    /// The store has done all that was decided.
    fn decided(&self, env: &impl Environment, exchange: &Exchange, change: &Change) -> Step {
        match self.decide(env, exchange, change) {
            Ok(decision) => Step::Done(decision.outcome),
            Err(failure) => failed(failure, exchange.conflicts),
        }
    }

    fn destroy(&self, exchange: Exchange) -> Step {
        let on_done = self.destroyed(&exchange);
        if exchange.loaded.is_none() {
            return Step::Done(on_done);
        }
        delete(Exchange { phase: Phase::Destroying, ..exchange }, None, on_done)
    }

    fn destroyed(&self, exchange: &Exchange) -> Outcome {
        let event = match (&exchange.loaded, exchange.origin) {
            (Some(_), Origin::Loaded) => Event::Destroyed,
            (Some(_), _) => Event::Gone,
            (None, _) => Event::None,
        };
        self.without_session(exchange, event)
    }

    fn gone(&self, exchange: &Exchange) -> Outcome {
        self.without_session(exchange, Event::Gone)
    }

    /// The visitor has no session any more. The browser's cookie is cleared, which
    /// express-session leaves undone.
    fn without_session(&self, exchange: &Exchange, event: Event) -> Outcome {
        let stored = exchange.loaded.as_ref().and_then(|s| Document::parse(&s.data).ok()?.cookie);
        let cookie = stored
            .and_then(|text| SessionCookie::parse(text).ok())
            .unwrap_or_else(|| SessionCookie::new(&self.options.cookie, exchange.secure, 0));
        let clears = self.options.preset == Preset::Safe
            && exchange.presented
            && (exchange.secure || !cookie.secure());
        let set_cookie = clears.then(|| cookie.serialize_removal(&self.options.name));
        Outcome {
            no_store: self.forbids_caching(set_cookie.as_ref()),
            set_cookie,
            ..outcome(event, None, exchange.conflicts)
        }
    }

    fn unavailable(&self, env: &impl Environment, exchange: Exchange, why: String) -> Step {
        match (self.options.on_store_error, exchange.phase) {
            (OnStoreError::Deny, _) => failed(Failure::Unavailable(why), exchange.conflicts),
            (OnStoreError::Anonymous, Phase::Loading) => {
                self.fresh(env, Origin::Detached, exchange.secure, exchange.presented)
            }
            (OnStoreError::Anonymous, _) => {
                Step::Done(outcome(Event::None, None, exchange.conflicts))
            }
        }
    }

    /// A response that carries somebody's cookie must not be served to others.
    fn forbids_caching(&self, set_cookie: Option<&String>) -> bool {
        self.options.preset == Preset::Safe && set_cookie.is_some()
    }

    /// express-session's `issecure`.
    fn is_secure(&self, request: &Request) -> bool {
        request.tls
            || match self.options.proxy {
                Some(false) => false,
                None => request.secure,
                Some(true) => request.forwarded_proto.as_deref().is_some_and(|header| {
                    let first = header.split(|b| *b == b',').next().unwrap_or_default();
                    first.trim_ascii().eq_ignore_ascii_case(b"https")
                }),
            }
    }
}

/// The beginning of every exchange.
fn exchange(id: String, origin: Origin, secure: bool, presented: bool) -> Exchange {
    Exchange {
        id,
        phase: Phase::Open,
        secure,
        presented,
        origin,
        loaded: None,
        seen: None,
        successor: None,
        conflicts: 0,
    }
}

/// The text that the store has, as far as this exchange knows.
fn expected(exchange: &Exchange) -> Option<String> {
    let known: Option<&Stored> = exchange.seen.as_ref().or(exchange.loaded.as_ref());
    known.map(|stored| stored.data.clone())
}

fn delete(exchange: Exchange, expected: Option<String>, on_done: Outcome) -> Step {
    let request = StoreRequest::Delete(Removal { id: exchange.id.clone(), expected });
    Step::Store(Pending { request, exchange, on_done: Some(on_done) })
}

fn outcome(event: Event, id: Option<String>, conflicts: u32) -> Outcome {
    Outcome { event, id, set_cookie: None, no_store: false, conflicts, failure: None }
}

fn failed(failure: Failure, conflicts: u32) -> Step {
    Step::Done(Outcome { failure: Some(failure), ..outcome(Event::None, None, conflicts) })
}

fn name(reply: &StoreReply) -> &'static str {
    match reply {
        StoreReply::Found(_) => "`found`",
        StoreReply::Missing => "`missing`",
        StoreReply::Done => "`done`",
        StoreReply::Taken => "`taken`",
        StoreReply::Conflict(_) => "`conflict`",
        StoreReply::Unavailable(_) => "`unavailable`",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Loading => "a load",
        Phase::Open => "no request",
        Phase::Creating | Phase::Moving => "a create",
        Phase::Saving => "a replace",
        Phase::Touching => "a touch",
        Phase::Destroying | Phase::Retiring => "a delete",
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
