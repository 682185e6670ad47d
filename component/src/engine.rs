//! The state machine of one request, from its Cookie header to its Set-Cookie.
//!
//! `begin` → (load) → ready → `finish` → (create | replace | touch | delete …) → done.
//! Every function takes facts and returns a [`Step`]. All state between calls is in the
//! [`Exchange`].

use crate::cookie_header::{Found, find, path_matches};
use crate::document::{Damaged, Document, MAX_MEMBERS};
use crate::identifier;
use crate::lifecycle::{self, Facts, Storage};
use crate::moved;
use crate::options;
use crate::session_cookie::{CookieTemplate, SessionCookie};
use crate::signature::Keys;
use crate::wit::{
    Action, Change, Conflicts, Content, Event, Exchange, Failure, Known, Millis, OnStoreError,
    Options, Origin, Outcome, Pending, Phase, Preset, Problem, Replacement, Request, Session, Step,
    StoreReply, StoreRequest, Stored, Unset,
};

/// The maximum number of conflicts of one request. Each conflict means that another request stored
/// the same session, so 64 concurrent requests always succeed, even if the gateway does not
/// serialize them.
const MAX_CONFLICTS: u32 = 64;

/// Limits on how many cookies of one name are read, and how many sessions are looked up. Browsers
/// send one cookie for each path and domain that it was set for.
const MAX_COOKIES: usize = 8;
const MAX_LOADS: usize = 3;

/// The two inputs that the logic cannot compute.
pub trait Environment {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Millis;
    /// Returns unpredictable bytes for an identifier.
    fn random(&self) -> [u8; 24];
}

/// Checked options, and signing keys that are ready for use.
pub struct Engine {
    options: Options,
    keys: Keys,
    /// For sessions created by insecure and by secure requests.
    cookie_templates: [CookieTemplate; 2],
}

/// What to store and to send.
struct Decision {
    storage: Storage,
    text: String,
    expires: Millis,
    outcome: Outcome,
}

impl Engine {
    /// Checks the options and creates an engine from them, or returns all problems.
    pub fn open(options: Options) -> Result<Self, Vec<Problem>> {
        let problems = options::check(&options);
        if !problems.is_empty() {
            return Err(problems);
        }
        let keys = Keys::new(&options.secrets);
        let cookie_templates =
            [false, true].map(|secure| CookieTemplate::new(&options.cookie, secure));
        Ok(Self { options, keys, cookie_templates })
    }

    /// Begins an exchange: reads the cookie, and loads the session that it names.
    pub fn begin(&self, env: &impl Environment, request: &Request) -> Step {
        let path = if request.path.is_empty() { "/" } else { &request.path };
        if !path_matches(path, &self.options.cookie.path) {
            return Step::Done(outcome(Event::None, 0));
        }
        // express-session uses the first cookie only. That one may be left over from another path,
        // domain or secret.
        let most = if self.options.preset == Preset::Safe { MAX_COOKIES } else { 1 };
        let cookies = find(&request.cookies, &self.options.name, most);
        let presented = cookies.iter().any(|cookie| *cookie != Found::Absent);
        let secure = self.is_secure(request);
        let mut ids = Vec::new();
        let mut origin = Origin::Absent;
        for cookie in &cookies {
            match self.identifier(cookie) {
                Ok(id) if ids.iter().all(|it| it != id) => ids.push(id.to_owned()),
                Ok(_) => {}
                Err(wrong) if origin == Origin::Absent => origin = wrong,
                Err(_) => {}
            }
        }
        ids.truncate(MAX_LOADS);
        let Some(first) = ids.first().cloned() else {
            return Step::Ready(self.fresh(env, origin, secure, presented));
        };
        let phase = Phase::Loading;
        let first = exchange(first, Origin::Loaded, secure, presented);
        load(Exchange { phase, others: ids, ..first })
    }

    /// Returns the identifier that a cookie names, or why it names none.
    fn identifier<'c>(&self, cookie: &'c Found<'_>) -> Result<&'c str, Origin> {
        let Found::Value(value) = cookie else {
            let is_absent = *cookie == Found::Absent;
            return Err(if is_absent { Origin::Absent } else { Origin::Oversized });
        };
        let signed = value.strip_prefix("s:").ok_or(Origin::Malformed)?;
        match self.keys.unsign(signed) {
            None => Err(Origin::Forged),
            Some("") => Err(Origin::Malformed),
            Some(id) => Ok(id),
        }
    }

    /// Decides what to store and which cookie to send, after the application has finished.
    pub fn finish(
        &self,
        env: &impl Environment,
        exchange: Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        if exchange.origin == Origin::Detached {
            return Step::Done(outcome(Event::None, 0));
        }
        // A new login starts a session of its own.
        let begins = matches!(change.action, Action::Renew | Action::Regenerate);
        if exchange.phase == Phase::Late && !begins {
            return self.too_late(change);
        }
        match (change.action, self.options.unset) {
            (Action::Destroy, _) | (Action::Unset, Unset::Destroy) => self.destroy(exchange, known),
            (Action::Unset, Unset::Keep) => Step::Done(outcome(Event::None, 0)),
            (Action::Keep | Action::Renew | Action::Regenerate, _) => {
                self.store(env, exchange, known, change)
            }
        }
    }

    /// Continues with the store's reply.
    pub fn resume(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        change: Option<&Change>,
        reply: StoreReply,
    ) -> Step {
        let reply = match reply {
            StoreReply::Unavailable(why) => {
                return match change {
                    // The successor is stored, and its cookie must not be lost. The old session may
                    // remain until it expires.
                    Some(change) if exchange.phase == Phase::Retiring => {
                        swap(&mut exchange);
                        self.decided(env, &exchange, known, change)
                    }
                    _ => self.unavailable(env, exchange, why),
                };
            }
            StoreReply::Refused(why) if exchange.phase == Phase::Touching => {
                return self.unavailable(env, exchange, why);
            }
            StoreReply::Refused(why) => {
                return failed(Failure::InvalidChange(why), exchange.conflicts);
            }
            reply => reply,
        };
        let Some(change) = change.filter(|_| exchange.phase != Phase::Loading) else {
            return self.loaded(env, exchange, known, reply);
        };
        match (exchange.phase, reply) {
            (Phase::Destroying, StoreReply::Missing) if self.notes_moves() => {
                match exchange.others.is_empty() {
                    true => self.follow(env, exchange, known, change),
                    false => failed(Failure::Contention, exchange.conflicts),
                }
            }
            (Phase::Destroying, StoreReply::Missing) => {
                Step::Done(self.destroyed(&exchange, known))
            }
            (Phase::Creating, StoreReply::Taken) => {
                let new = identifier::of(env.random());
                exchange.others = vec![std::mem::replace(&mut exchange.id, new)];
                self.again(env, exchange, known, change)
            }
            (Phase::Moving, StoreReply::Taken) => self.again(env, exchange, known, change),
            (Phase::Moving, StoreReply::Done) if self.notes_moves() => {
                self.note(env, exchange, change)
            }
            (Phase::Noting, StoreReply::Done) => {
                exchange.id = exchange.others.remove(0);
                self.retire(env, exchange, known, change)
            }
            (Phase::Moving, StoreReply::Done) => self.retire(env, exchange, known, change),
            (Phase::Retiring, StoreReply::Missing) => {
                swap(&mut exchange);
                if change.action == Action::Regenerate {
                    return self.decided(env, &exchange, known, change);
                }
                // Another request ended or moved the session, so the successor must be deleted too.
                exchange.origin = Origin::Unknown;
                exchange.phase = Phase::Destroying;
                let on_done = self.overtaken(&exchange);
                delete(exchange, false, on_done)
            }
            (Phase::Saving, StoreReply::Missing) if self.notes_moves() => {
                self.follow(env, exchange, known, change)
            }
            (Phase::Following, StoreReply::Conflict) => self.followed(env, exchange, known, change),
            // A note was found, but its successor no longer exists.
            (Phase::Following, StoreReply::Missing) if exchange.others.len() > 1 => {
                failed(Failure::Contention, exchange.conflicts)
            }
            (Phase::Following, StoreReply::Missing) if change.action != Action::Keep => {
                Step::Done(self.destroyed(&exchange, known))
            }
            (Phase::Saving | Phase::Touching | Phase::Following, StoreReply::Missing) => {
                Step::Done(outcome(Event::Gone, exchange.conflicts))
            }
            (Phase::Saving | Phase::Retiring, StoreReply::Conflict) => {
                self.again(env, exchange, known, change)
            }
            (phase, reply) => {
                let why = format!("the store answered {} to {}", name(&reply), phase_name(phase));
                self.unavailable(env, exchange, why)
            }
        }
    }

    fn loaded(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        reply: StoreReply,
    ) -> Step {
        let stored = match (&reply, &known.loaded) {
            (StoreReply::Found, Some(stored)) => Some(stored),
            (StoreReply::Missing, _) => None,
            _ => {
                let why = format!("the store answered {} to a load", name(&reply));
                return self.unavailable(env, exchange, why);
            }
        };
        let stored = stored.filter(|it| it.expires.is_none_or(|expires| expires > env.now()));
        let Some(stored) = stored else { return self.next(env, exchange) };
        if exchange.phase == Phase::Following {
            // The browser has received, or is about to receive, another cookie. Only requests with
            // that cookie may see the session's data.
            let mut session = self.fresh(env, Origin::Unknown, exchange.secure, exchange.presented);
            session.exchange.phase = Phase::Late;
            return Step::Ready(session);
        }
        let Ok((data, cookie)) = self.document(&stored.data).and_then(|document| {
            let cookie = self.cookie(document.cookie().ok_or(Damaged)?)?;
            Ok((document.data_text(), cookie.view()))
        }) else {
            exchange.origin = Origin::Damaged;
            return self.next(env, exchange);
        };
        exchange.others.clear();
        let exchange = Exchange { phase: Phase::Open, origin: Origin::Loaded, ..exchange };
        Step::Ready(Session { exchange, data, cookie, expires: stored.expires })
    }

    /// The cookie's session does not exist: tries the next cookie. After the last one, checks
    /// whether one of the sessions has just moved.
    fn next(&self, env: &impl Environment, exchange: Exchange) -> Step {
        let is_following = exchange.phase == Phase::Following;
        let place = |id: &String| match is_following {
            true => moved::place(&self.keys, id),
            false => id.clone(),
        };
        let mut later = exchange.others.iter().skip_while(|id| place(id) != exchange.id).skip(1);
        if let Some(id) = later.next().map(place) {
            return load(Exchange { id, ..exchange });
        }
        let origin = match exchange.origin {
            Origin::Damaged => Origin::Damaged,
            _ => Origin::Unknown,
        };
        match exchange.others.first() {
            Some(first) if self.notes_moves() && !is_following => {
                let id = moved::place(&self.keys, first);
                load(Exchange { id, origin, phase: Phase::Following, ..exchange })
            }
            _ => Step::Ready(self.fresh(env, origin, exchange.secure, exchange.presented)),
        }
    }

    /// Refuses changes in place of a session that has just moved. A new session must not start
    /// there, and its cookie must not replace the moved session's cookie.
    fn too_late(&self, change: &Change) -> Step {
        let is_nothing = match (change.action, self.options.unset) {
            (Action::Unset, Unset::Keep) => true,
            (Action::Keep, _) => match Document::empty().plan(&change.data) {
                Ok(plan) => plan.is_empty() && change.cookie.is_empty(),
                Err(why) => return failed(Failure::InvalidChange(why), 0),
            },
            _ => false,
        };
        if is_nothing {
            Step::Done(outcome(Event::None, 0))
        } else {
            failed(Failure::Contention, 0)
        }
    }

    /// Creates a new session. An identifier from the request is never adopted.
    fn fresh(
        &self,
        env: &impl Environment,
        origin: Origin,
        secure: bool,
        presented: bool,
    ) -> Session {
        Session {
            exchange: exchange(identifier::of(env.random()), origin, secure, presented),
            data: "{}".to_owned(),
            cookie: SessionCookie::new(&self.options.cookie, secure, env.now()).view(),
            expires: None,
        }
    }

    /// Sends the store request that follows from [`Self::decide`].
    fn store(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        let known_loaded = loaded(&exchange, known);
        let moving = change.action != Action::Keep && known_loaded.is_some();
        // A stored successor is overwritten.
        let is_successor_stored = exchange.phase == Phase::Retiring;
        if is_successor_stored {
            swap(&mut exchange);
        } else if moving {
            let old = std::mem::replace(&mut exchange.id, identifier::of(env.random()));
            // If the identifier was taken, it was never used and is simply replaced.
            if exchange.others.is_empty() {
                exchange.others.push(old);
            }
        }
        let Decision { storage, text, expires, outcome } =
            match self.decide(env, &exchange, known, change) {
                Ok(decision) => decision,
                Err(failure) => return failed(failure, exchange.conflicts),
            };
        if text.len() > self.options.max_session_bytes as usize {
            return failed(Failure::TooLarge(text.len() as u64), exchange.conflicts);
        }
        let content = Content { data: text, expires };
        let replace =
            |content, only_known| StoreRequest::Replace(Replacement { content, only_known });
        let (phase, request) = match (storage, self.options.conflicts) {
            (Storage::Leave, _) => return Step::Done(outcome),
            (Storage::Touch, _) => (Phase::Touching, StoreRequest::Touch(expires)),
            (Storage::Save, _) if is_successor_stored => (Phase::Moving, replace(content, false)),
            (Storage::Save, _) if moving => (Phase::Moving, StoreRequest::Create(content)),
            (Storage::Save, Conflicts::Overwrite) => (Phase::Saving, replace(content, false)),
            (Storage::Save, Conflicts::Merge) if known_loaded.is_none() => {
                (Phase::Creating, StoreRequest::Create(content))
            }
            (Storage::Save, Conflicts::Merge) => (Phase::Saving, replace(content, true)),
        };
        // After a move, the old session must still be deleted.
        let on_done = (phase != Phase::Moving).then_some(outcome);
        Step::Store(Pending { request, exchange: Exchange { phase, ..exchange }, on_done })
    }

    /// Decides what happens to the session, by the rules of [`lifecycle`]. `exchange.id` is the
    /// identifier that it will have.
    fn decide(
        &self,
        env: &impl Environment,
        exchange: &Exchange,
        known: &Known,
        change: &Change,
    ) -> Result<Decision, Failure> {
        let now = env.now();
        let damaged = |Damaged| Failure::Unavailable("the stored session is damaged".to_owned());
        let starts_empty = change.action == Action::Regenerate;
        let known_loaded = loaded(exchange, known);
        let base = match known_loaded {
            Some(stored) if !starts_empty => self.document(&stored.data).map_err(damaged)?,
            _ => Document::empty(),
        };
        let is_reduced = base.is_reduced();
        let plan = base.plan(&change.data).map_err(Failure::InvalidChange)?;
        let document = match &known.current {
            Some(current) if !starts_empty => {
                self.document(&current.data).map_err(damaged)?.merged(&plan)
            }
            _ => base.changed(&plan),
        };
        if document.len() > MAX_MEMBERS {
            return Err(Failure::InvalidChange(format!(
                "the session would have {} keys, more than {MAX_MEMBERS}: keep many values under \
                 one key, or elsewhere",
                document.len()
            )));
        }
        let mut cookie = match document.cookie() {
            Some(text) => self.cookie(text).map_err(damaged)?,
            None => SessionCookie::new(&self.options.cookie, exchange.secure, now),
        };
        let mut cookie_changed = false;
        if !change.cookie.is_empty() {
            let old = cookie.clone();
            for edit in &change.cookie {
                cookie.edit(edit, now).map_err(|why| Failure::InvalidChange(why.to_owned()))?;
            }
            cookie_changed = cookie != old;
        }
        cookie.touch(now);

        let moved = change.action != Action::Keep;
        let also_modified = match self.options.preset {
            Preset::Safe => cookie_changed,
            // express-session treats members that it drops as a change.
            Preset::Express => is_reduced,
        };
        let facts = Facts {
            is_new: known_loaded.is_none() || moved,
            modified: !plan.is_empty() || moved || also_modified,
            expires: cookie.has_expires(),
        };
        let ttl = self.options.ttl.saturating_mul(1000);
        let mut storage = lifecycle::storage(&self.options, facts);
        if storage == Storage::Touch {
            // `as` maps a negative lifetime to 0.
            let lifetime = cookie.lifetime().map_or(ttl, |age| age as Millis);
            let last_touch = known_loaded.and_then(|stored| {
                stored.touched.or(Some(stored.expires?.saturating_sub(lifetime)))
            });
            if lifecycle::was_touched_recently(&self.options, last_touch, now) {
                storage = Storage::Leave;
            }
        }
        // A request that followed the session does not have its new cookie, and must not receive
        // it.
        let follows =
            change.action == Action::Keep && known_loaded.is_some() && !exchange.others.is_empty();
        let may_send = (exchange.secure || !cookie.secure()) && !follows;
        let set_cookie = if may_send && lifecycle::sends_cookie(&self.options, facts) {
            let value = format!("s:{}", self.keys.sign(&exchange.id));
            // express-session sends no Max-Age.
            let now = (self.options.preset == Preset::Safe).then_some(now);
            cookie.serialize(&self.options.name, &value, now)
        } else {
            None
        };
        let event = match storage {
            Storage::Leave => Event::None,
            Storage::Touch => Event::Touched,
            Storage::Save if known_loaded.is_none() => Event::Created,
            Storage::Save if moved => Event::Moved,
            Storage::Save => Event::Saved,
        };
        let has_new_id = !exchange.others.is_empty() && storage == Storage::Save && !follows;
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
                new_id: has_new_id.then(|| exchange.id.clone()),
                ..outcome(event, exchange.conflicts)
            },
        })
    }

    /// Decides again after a conflict.
    fn again(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        exchange.conflicts += 1;
        if exchange.conflicts > MAX_CONFLICTS {
            return failed(Failure::Contention, exchange.conflicts);
        }
        self.store(env, exchange, known, change)
    }

    /// Returns the outcome after all store requests have succeeded.
    fn decided(
        &self,
        env: &impl Environment,
        exchange: &Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        match self.decide(env, exchange, known, change) {
            Ok(decision) => Step::Done(decision.outcome),
            Err(failure) => failed(failure, exchange.conflicts),
        }
    }

    /// The successor is stored: deletes the old session. A renewal deletes it only if it is
    /// unchanged, so that no concurrent change is lost.
    fn retire(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        let on_done = match self.decide(env, &exchange, known, change) {
            Ok(decision) => decision.outcome,
            Err(failure) => return failed(failure, exchange.conflicts),
        };
        swap(&mut exchange);
        exchange.phase = Phase::Retiring;
        let only_known =
            change.action == Action::Renew && self.options.conflicts == Conflicts::Merge;
        delete(exchange, only_known, on_done)
    }

    /// Whether requests with the old identifier of a session can find out that it has moved.
    fn notes_moves(&self) -> bool {
        self.options.preset == Preset::Safe && self.options.conflicts == Conflicts::Merge
    }

    /// The successor is stored: records its identifier in a note for the requests that are still in
    /// progress. After `regenerate`, the new session takes no changes from them.
    fn note(&self, env: &impl Environment, mut exchange: Exchange, change: &Change) -> Step {
        let now = env.now();
        let Some(old) = exchange.others.first() else {
            return self.unavailable(env, exchange, "the store has lost a session".to_owned());
        };
        let new = (change.action == Action::Renew).then_some(&*exchange.id);
        let data = moved::note(&self.keys, old, new, &self.options.cookie, now);
        let content = Content { data, expires: now.saturating_add(moved::GRACE) };
        let id = moved::place(&self.keys, old);
        let new = std::mem::replace(&mut exchange.id, id);
        exchange.others.insert(0, new);
        exchange.phase = Phase::Noting;
        let request = StoreRequest::Replace(Replacement { content, only_known: false });
        Step::Store(Pending { request, exchange, on_done: None })
    }

    /// The session is missing: checks whether it has moved.
    fn follow(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        let place = moved::place(&self.keys, &exchange.id);
        let old = std::mem::replace(&mut exchange.id, place);
        exchange.others.insert(0, old);
        look(env, Exchange { phase: Phase::Following, ..exchange }, known, change)
    }

    /// A note conflicts, so the session has moved: applies the change, or the end, to the
    /// successor.
    fn followed(
        &self,
        env: &impl Environment,
        mut exchange: Exchange,
        known: &Known,
        change: &Change,
    ) -> Step {
        let (note, old) = (known.current.as_ref(), exchange.others.first());
        let read = |(note, old): (&Stored, &String)| moved::read(&self.keys, old, &note.data);
        exchange.conflicts += 1;
        match note.zip(old).and_then(read) {
            Some(id) if exchange.conflicts <= MAX_CONFLICTS => match change.action {
                Action::Keep => {
                    look(env, Exchange { id, phase: Phase::Saving, ..exchange }, known, change)
                }
                _ => {
                    let exchange = Exchange { id, phase: Phase::Destroying, ..exchange };
                    let on_done = self.destroyed(&exchange, known);
                    delete(exchange, false, on_done)
                }
            },
            _ => failed(Failure::Contention, exchange.conflicts),
        }
    }

    /// Returns the outcome of a renewal if another request ended or moved the session first.
    fn overtaken(&self, exchange: &Exchange) -> Outcome {
        let conflicts = exchange.conflicts;
        match self.notes_moves() {
            true => {
                Outcome { failure: Some(Failure::Contention), ..outcome(Event::None, conflicts) }
            }
            false => outcome(Event::Gone, conflicts),
        }
    }

    fn destroy(&self, exchange: Exchange, known: &Known) -> Step {
        let on_done = self.destroyed(&exchange, known);
        if loaded(&exchange, known).is_none() {
            return Step::Done(on_done);
        }
        delete(Exchange { phase: Phase::Destroying, ..exchange }, false, on_done)
    }

    fn destroyed(&self, exchange: &Exchange, known: &Known) -> Outcome {
        match (loaded(exchange, known), exchange.phase) {
            (Some(_), _) => self.without_session(exchange, known, Event::Destroyed),
            // The successor, after another request ended the old session.
            (None, Phase::Destroying) => outcome(Event::Gone, exchange.conflicts),
            (None, _) => self.without_session(exchange, known, Event::None),
        }
    }

    /// The application ended the session: clears the browser's cookie, which express-session does
    /// not do. (If another request ended or moved the session, the cookie is left alone: that
    /// request may have sent the browser a new one.)
    fn without_session(&self, exchange: &Exchange, known: &Known, event: Event) -> Outcome {
        let stored = known.loaded.as_ref().and_then(|s| self.document(&s.data).ok()?.cookie());
        let cookie = stored
            .and_then(|text| self.cookie(text).ok())
            .unwrap_or_else(|| SessionCookie::new(&self.options.cookie, exchange.secure, 0));
        let clears = self.options.preset == Preset::Safe
            && exchange.presented
            && (exchange.secure || !cookie.secure());
        let set_cookie = if clears { cookie.serialize_removal(&self.options.name) } else { None };
        Outcome {
            no_store: self.forbids_caching(set_cookie.as_ref()),
            set_cookie,
            ..outcome(event, exchange.conflicts)
        }
    }

    fn unavailable(&self, env: &impl Environment, exchange: Exchange, why: String) -> Step {
        let begins = exchange.phase == Phase::Loading
            || (exchange.phase == Phase::Following && exchange.origin != Origin::Loaded);
        match (self.options.on_store_error, exchange.phase) {
            (OnStoreError::Anonymous, _) if begins => {
                let Exchange { secure, presented, .. } = exchange;
                Step::Ready(self.fresh(env, Origin::Detached, secure, presented))
            }
            // The loaded data is valid and lives on for a while. express-session reports an error.
            (_, Phase::Touching) if self.options.preset == Preset::Safe => {
                Step::Done(outcome(Event::None, exchange.conflicts))
            }
            // Nothing was stored yet, or only the expiry would have been extended.
            (OnStoreError::Anonymous, phase)
                if matches!(phase, Phase::Creating | Phase::Touching)
                    || (phase == Phase::Saving && exchange.origin != Origin::Loaded) =>
            {
                Step::Done(outcome(Event::None, exchange.conflicts))
            }
            _ => failed(Failure::Unavailable(why), exchange.conflicts),
        }
    }

    /// Parses a stored session. One that exceeds the limit is refused, because parsing it at every
    /// request costs too much.
    fn document<'a>(&self, text: &'a str) -> Result<Document<'a>, Damaged> {
        if text.len() > self.options.max_session_bytes as usize {
            return Err(Damaged);
        }
        let length =
            |text: &str| self.cookie_templates.iter().find_map(|template| template.length(text));
        Document::parse(text, length)
    }

    /// Parses a session's cookie.
    fn cookie<'a>(&self, text: &'a str) -> Result<SessionCookie<'a>, Damaged> {
        let template = self.cookie_templates.iter().find_map(|template| template.read(text));
        template.map_or_else(|| SessionCookie::parse(text), Ok)
    }

    /// A response with a visitor's cookie must not be served to others.
    fn forbids_caching(&self, set_cookie: Option<&String>) -> bool {
        self.options.preset == Preset::Safe && set_cookie.is_some()
    }

    /// Implements express-session's `issecure`.
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

/// Returns the initial state of an exchange.
fn exchange(id: String, origin: Origin, secure: bool, presented: bool) -> Exchange {
    let (others, phase) = (Vec::new(), Phase::Open);
    Exchange { id, others, phase, secure, presented, origin, conflicts: 0 }
}

/// Returns the loaded session, unless the exchange started a new one instead, for example because
/// the loaded one is damaged.
fn loaded<'k>(exchange: &Exchange, known: &'k Known) -> Option<&'k Stored> {
    known.loaded.as_ref().filter(|_| exchange.origin == Origin::Loaded)
}

/// Switches to the session's other identifier.
fn swap(exchange: &mut Exchange) {
    if let Some(other) = exchange.others.first_mut() {
        std::mem::swap(&mut exchange.id, other);
    }
}

fn load(exchange: Exchange) -> Step {
    Step::Store(Pending { request: StoreRequest::Load, exchange, on_done: None })
}

/// Reads what is stored, in the middle of a change: replaces, or deletes, the known text if it is
/// stored. Any other text is returned as a conflict, and the known one is kept.
fn look(env: &impl Environment, exchange: Exchange, known: &Known, change: &Change) -> Step {
    let last = known.current.as_ref().or(known.loaded.as_ref());
    let data = last.map_or(String::new(), |stored| stored.data.clone());
    let content = Content { data, expires: env.now().saturating_add(moved::GRACE) };
    let request = match change.action {
        Action::Keep => StoreRequest::Replace(Replacement { content, only_known: true }),
        _ => StoreRequest::Delete(true),
    };
    Step::Store(Pending { request, exchange, on_done: None })
}

fn delete(exchange: Exchange, only_known: bool, on_done: Outcome) -> Step {
    let request = StoreRequest::Delete(only_known);
    Step::Store(Pending { request, exchange, on_done: Some(on_done) })
}

fn outcome(event: Event, conflicts: u32) -> Outcome {
    Outcome { event, new_id: None, set_cookie: None, no_store: false, conflicts, failure: None }
}

fn failed(failure: Failure, conflicts: u32) -> Step {
    Step::Done(Outcome { failure: Some(failure), ..outcome(Event::None, conflicts) })
}

fn name(reply: &StoreReply) -> &'static str {
    match reply {
        StoreReply::Found => "`found`",
        StoreReply::Missing => "`missing`",
        StoreReply::Done => "`done`",
        StoreReply::Taken => "`taken`",
        StoreReply::Conflict => "`conflict`",
        StoreReply::Refused(_) => "`refused`",
        StoreReply::Unavailable(_) => "`unavailable`",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Loading => "a load",
        Phase::Open | Phase::Late => "no request",
        Phase::Creating | Phase::Moving => "a create",
        Phase::Saving | Phase::Noting | Phase::Following => "a replace",
        Phase::Touching => "a touch",
        Phase::Destroying | Phase::Retiring => "a delete",
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
