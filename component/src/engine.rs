//! The state machine of one request, from its Cookie header to its Set-Cookie.
//!
//! `begin` → (`loaded`) → the application → `finish` → (`resume` after an obstacle).
//! Every function takes facts and returns a decision. What has to be remembered between calls is in
//! the [`Visit`], encoded by [`State`].

use crate::cookie_header::{Found, find, path_matches};
use crate::document::{Damaged, Document, MAX_MEMBERS};
use crate::failure::{contention, failed, misuse, too_large, unavailable};
use crate::identifier;
use crate::lifecycle::{self, Facts, Storage};
use crate::moved;
use crate::options::{self, Conflicts, OnStoreError, Options, Preset, Unset};
use crate::session_cookie::{CookieTemplate, SessionCookie};
use crate::signature::Keys;
use crate::state::{Phase, State};
use crate::wit::{
    Action, Beginning, Change, Content, Event, Failure, FailureKind, Millis, Obstacle, Operation,
    Origin, Outcome, Plan, Problem, Request, Session, Setting, Stored, Visit, Write,
};

/// The maximum number of conflicts of one request. Each conflict means that another request stored
/// the same session, so 64 concurrent requests always succeed, even if the gateway does not
/// serialize them.
const MAX_CONFLICTS: u8 = 64;

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
    /// Distinguishes the states of this engine from those of other options.
    fingerprint: u32,
    /// For sessions created by insecure and by secure requests, if these differ.
    cookie_templates: Vec<CookieTemplate>,
}

/// A change to decide about.
struct Work<'w> {
    /// The session's identifier, at the beginning of the request or since `taken`.
    id: String,
    state: State,
    /// Another session that this request is about: see [`Phase`].
    other: Option<String>,
    /// The session as it was loaded; none if it is new.
    loaded: Option<&'w Stored>,
    change: &'w Change,
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
    pub fn configure(settings: &[Setting]) -> Result<Self, Vec<Problem>> {
        options::read(settings).map(Self::of)
    }

    fn of(options: Options) -> Self {
        let keys = Keys::new(&options.secrets);
        let [a, b, c, d, ..] = keys.derive("options", &format!("{options:?}"));
        let fingerprint = u32::from_le_bytes([a, b, c, d]);
        let template = |secure| CookieTemplate::new(&options.cookie, secure);
        let mut cookie_templates = vec![template(false), template(true)];
        cookie_templates.dedup();
        Self { options, keys, fingerprint, cookie_templates }
    }

    /// Returns the options in force, secrets excepted.
    pub fn in_force(&self) -> Vec<Setting> {
        options::in_force(&self.options)
    }

    // ------------------------------------------------------------------ the beginning ----

    /// Begins a request: reads the cookie, and asks for the session that it names.
    pub fn begin(&self, env: &impl Environment, request: &Request) -> Beginning {
        let path = if request.path.is_empty() { "/" } else { &request.path };
        if !path_matches(path, &self.options.cookie.path) {
            return Beginning::None;
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
                Ok(id) if !ids.contains(&id) => ids.push(id),
                Ok(_) => {}
                Err(wrong) if origin == Origin::Absent => origin = wrong,
                Err(_) => {}
            }
        }
        ids.truncate(MAX_LOADS);
        let state = State { secure, presented, ..State::new(Phase::Loading, origin) };
        match *ids {
            [] => Beginning::Ready(self.fresh(env, state)),
            [id] => self.load(id.to_owned(), state, None),
            [id, ..] => {
                let all = serde_json::Value::from(ids.clone()).to_string();
                self.load(id.to_owned(), state, Some(all))
            }
        }
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

    /// Asks for a session. `all`: the sessions that the cookies name; none if it is the only one.
    fn load(&self, id: String, state: State, all: Option<String>) -> Beginning {
        Beginning::Load(self.visit(id, state, all))
    }

    fn visit(&self, id: String, state: State, text: Option<String>) -> Visit {
        Visit { id, state: state.write(self.fingerprint, text) }
    }

    /// Continues with what the store has loaded, or the reason why it is unavailable.
    pub fn loaded(
        &self,
        env: &impl Environment,
        visit: Visit,
        stored: Result<Option<&Stored>, String>,
    ) -> Result<Beginning, Failure> {
        let state = State::read(self.fingerprint, &visit.state)?;
        if !matches!(state.phase, Phase::Loading | Phase::Following) {
            return Err(misuse("`loaded` was called although nothing was to be loaded"));
        }
        let stored = match stored {
            Ok(stored) => stored,
            Err(_) if self.options.on_store_error == OnStoreError::Anonymous => {
                let state = State { origin: Origin::Detached, ..state };
                return Ok(Beginning::Ready(self.fresh(env, state)));
            }
            Err(why) => return Err(unavailable(why)),
        };
        let stored = stored.filter(|it| it.expires.is_none_or(|expires| expires > env.now()));
        let Some(stored) = stored else { return self.next(env, visit, state) };
        if state.phase == Phase::Following {
            // The browser has received, or is about to receive, another cookie. Only requests with
            // that cookie may see the session's data.
            let mut session = self.fresh(env, state);
            let late = State { phase: Phase::Late, ..state };
            session.visit.state = late.write(self.fingerprint, None);
            return Ok(Beginning::Ready(session));
        }
        let parsed = self.document(&stored.data).and_then(|document| {
            let cookie = document.cookie().ok_or(Damaged)?;
            self.cookie(&document)?;
            // What express-session drops, the application does not see.
            Ok(document.is_rewritten().then(|| document.to_text(cookie)))
        });
        match parsed {
            Ok(text) => {
                let origin = Origin::Loaded;
                let state = State { phase: Phase::Open, origin, ..state };
                let visit = self.visit(visit.id, state, None);
                Ok(Beginning::Ready(Session { visit, origin, text }))
            }
            Err(Damaged) => self.next(env, visit, State { origin: Origin::Damaged, ..state }),
        }
    }

    /// The cookie's session does not exist: tries the next cookie. After the last one, checks
    /// whether one of the sessions has just moved.
    fn next(
        &self,
        env: &impl Environment,
        visit: Visit,
        state: State,
    ) -> Result<Beginning, Failure> {
        let is_following = state.phase == Phase::Following;
        let text = visit.state.text;
        let all: Vec<String> = match &text {
            None => vec![visit.id],
            Some(text) => serde_json::from_str(text).map_err(|_| misuse("a state was altered"))?,
        };
        if all.len() > MAX_LOADS {
            return Err(misuse("a state was altered"));
        }
        if let Some(id) = all.get(usize::from(state.candidate) + 1) {
            let state = State { candidate: state.candidate + 1, ..state };
            let id = if is_following { moved::place(&self.keys, id) } else { id.clone() };
            return Ok(self.load(id, state, text));
        }
        let origin = match state.origin {
            Origin::Damaged => Origin::Damaged,
            _ => Origin::Unknown,
        };
        let state = State { origin, candidate: 0, ..state };
        match all.first() {
            Some(first) if self.notes_moves() && !is_following => {
                let id = moved::place(&self.keys, first);
                let all = text.unwrap_or_else(|| serde_json::Value::from(all).to_string());
                Ok(self.load(id, State { phase: Phase::Following, ..state }, Some(all)))
            }
            _ => Ok(Beginning::Ready(self.fresh(env, state))),
        }
    }

    /// Creates a new session. An identifier from the request is never adopted.
    fn fresh(&self, env: &impl Environment, state: State) -> Session {
        let cookie = SessionCookie::new(&self.options.cookie, state.secure, env.now());
        let state = State { phase: Phase::Open, ..state };
        Session {
            visit: self.visit(identifier::of(env.random()), state, None),
            origin: state.origin,
            text: Some(Document::empty().to_text(&cookie.to_text())),
        }
    }

    // --------------------------------------------------------------------- the change ----

    /// Decides what to store and which cookie to send, after the application has finished.
    pub fn finish(
        &self,
        env: &impl Environment,
        visit: Visit,
        stored: Option<&Stored>,
        change: &Change,
    ) -> Result<Plan, Failure> {
        let work = self.work(visit, stored, change)?;
        if !matches!(work.state.phase, Phase::Open | Phase::Late) {
            return Err(misuse("`finish` was called for a request that is not ready"));
        }
        if work.state.origin == Origin::Detached {
            return Ok(self.settled(work, outcome(Event::None)));
        }
        // A new login starts a session of its own.
        let begins = matches!(change.action, Action::Renew | Action::Regenerate);
        if work.state.phase == Phase::Late && !begins {
            return self.too_late(work);
        }
        match (change.action, self.options.unset) {
            (Action::Destroy, _) | (Action::Unset, Unset::Destroy) => Ok(self.destroy(work)),
            (Action::Unset, Unset::Keep) => Ok(self.settled(work, outcome(Event::None))),
            (Action::Keep, _) => self.save(env, work, None),
            (Action::Renew | Action::Regenerate, _) if work.loaded.is_none() => {
                self.save(env, work, None)
            }
            (Action::Renew | Action::Regenerate, _) => {
                let new = identifier::of(env.random());
                self.relocate(env, Work { other: Some(new), ..work }, None)
            }
        }
    }

    /// Decides again after an obstacle.
    pub fn resume(
        &self,
        env: &impl Environment,
        visit: Visit,
        stored: Option<&Stored>,
        change: &Change,
        at: usize,
        obstacle: Obstacle,
    ) -> Result<Plan, Failure> {
        let work = self.work(visit, stored, change)?;
        let is_last = self.is_last(&work, at)?;
        let phase = work.state.phase;
        let current = match obstacle {
            // The successor is stored, and its cookie must not be lost. The old session may remain
            // until it expires.
            Obstacle::Unavailable(_) if phase == Phase::Moving && is_last => {
                return self.relocated(env, work);
            }
            Obstacle::Unavailable(why) => return self.unavailable(work, why),
            Obstacle::Refused(why) if phase == Phase::Touching => {
                return self.unavailable(work, why);
            }
            Obstacle::Refused(why) => match phase {
                Phase::Creating | Phase::Saving => {
                    return Err(failed(FailureKind::InvalidChange, why));
                }
                Phase::Moving if !is_last => return Err(failed(FailureKind::InvalidChange, why)),
                _ => return Err(impossible("refused", phase)),
            },
            Obstacle::Taken => {
                let mut work = self.again(work)?;
                let new = identifier::of(env.random());
                return match (phase, at) {
                    // The identifier was never used, and is replaced.
                    (Phase::Creating, _) => self.save(env, Work { id: new, ..work }, None),
                    (Phase::Moving, 0) if !work.state.is_stored => {
                        work.other = Some(new);
                        self.relocate(env, work, None)
                    }
                    // Another request has just moved the session, and its note must stay.
                    (Phase::Moving, _) if !is_last && !work.state.is_stored => {
                        Ok(self.withdraw(work, None))
                    }
                    _ => Err(impossible("taken", phase)),
                };
            }
            Obstacle::Missing => None,
            Obstacle::Conflict(current) => Some(current),
        };
        match (phase, current) {
            (Phase::Saving, Some(current)) if self.is_conditional() => {
                let work = self.again(work)?;
                self.save(env, work, Some(&current))
            }
            (Phase::Saving, None) if self.is_conditional() => match self.notes_moves() {
                true => self.trace(work),
                false => Ok(self.settled(work, outcome(Event::Gone))),
            },
            (Phase::Touching, None) => Ok(self.settled(work, outcome(Event::Gone))),
            (Phase::Moving, Some(current)) if is_last && self.keeps_changes(change) => {
                let mut work = self.again(work)?;
                work.state.is_stored = true;
                self.relocate(env, work, Some(&current))
            }
            (Phase::Moving, None) if is_last => match change.action {
                Action::Regenerate => self.relocated(env, work),
                // Another request ended the session.
                _ => {
                    let note = moved::place(&self.keys, &work.id);
                    Ok(self.withdraw(work, Some(note)))
                }
            },
            (Phase::Withdrawing, _) if self.notes_moves() => Err(contention()),
            (Phase::Withdrawing, None) => Ok(self.settled(work, outcome(Event::Gone))),
            (Phase::Destroying, None) => match (self.notes_moves(), &work.other) {
                (true, None) => self.trace(work),
                (true, Some(_)) => Err(contention()),
                (false, _) => {
                    let outcome = self.without_session(&work, Event::Destroyed);
                    Ok(self.settled(work, outcome))
                }
            },
            (Phase::Tracing, Some(note)) => self.traced(work, &note),
            (Phase::Tracing, None) => match (&work.other, change.action) {
                // A note was found, but its successor no longer exists.
                (Some(old), _) if *old != work.id => Err(contention()),
                (_, Action::Keep) => Ok(self.settled(work, outcome(Event::Gone))),
                _ => {
                    let outcome = self.without_session(&work, Event::Destroyed);
                    Ok(self.settled(work, outcome))
                }
            },
            (Phase::Joining, Some(current)) => {
                let work = self.again(work)?;
                self.save(env, work, Some(&current))
            }
            (Phase::Joining, None) => self.trace(work),
            (phase, Some(_)) => Err(impossible("conflict", phase)),
            (phase, None) => Err(impossible("missing", phase)),
        }
    }

    /// Reads the state of a request whose application has finished.
    fn work<'w>(
        &self,
        visit: Visit,
        stored: Option<&'w Stored>,
        change: &'w Change,
    ) -> Result<Work<'w>, Failure> {
        let state = State::read(self.fingerprint, &visit.state)?;
        let loaded = stored.filter(|_| state.origin == Origin::Loaded);
        if state.origin == Origin::Loaded && loaded.is_none() {
            return Err(misuse("a loaded session was not passed on"));
        }
        if visit.id.is_empty() {
            return Err(misuse("the session's identifier is empty"));
        }
        Ok(Work { id: visit.id, state, other: visit.state.text, loaded, change })
    }

    /// Returns whether the write `at` is the last one of the plan that `work` is about.
    fn is_last(&self, work: &Work<'_>, at: usize) -> Result<bool, Failure> {
        let writes = usize::from(work.state.writes);
        match at < writes {
            true => Ok(at + 1 == writes),
            false => Err(misuse(&format!("the plan has {writes} writes, and none at {at}"))),
        }
    }

    /// Counts a conflict.
    fn again<'w>(&self, mut work: Work<'w>) -> Result<Work<'w>, Failure> {
        work.state.conflicts += 1;
        if work.state.conflicts > MAX_CONFLICTS { Err(contention()) } else { Ok(work) }
    }

    /// Returns a plan with these writes.
    fn plan(&self, work: Work<'_>, phase: Phase, writes: Vec<Write>, outcome: Outcome) -> Plan {
        let state = State { phase, writes: writes.len() as u8, ..work.state };
        Plan { visit: self.visit(work.id, state, work.other), writes, outcome }
    }

    /// Returns the plan of a request that stores nothing more.
    fn settled(&self, work: Work<'_>, outcome: Outcome) -> Plan {
        self.plan(work, Phase::Done, Vec::new(), outcome)
    }

    /// Refuses changes in place of a session that has just moved. A new session must not start
    /// there, and its cookie must not replace the moved session's cookie.
    fn too_late(&self, work: Work<'_>) -> Result<Plan, Failure> {
        let change = work.change;
        let is_nothing = match (change.action, self.options.unset) {
            (Action::Unset, Unset::Keep) => true,
            (Action::Keep, _) => match Document::empty().plan(&change.data) {
                Ok(plan) => plan.is_empty() && change.cookie.is_empty(),
                Err(why) => return Err(failed(FailureKind::InvalidChange, why)),
            },
            _ => false,
        };
        if is_nothing { Ok(self.settled(work, outcome(Event::None))) } else { Err(contention()) }
    }

    /// Stores the change in place of the session, or creates it. `current`: what is stored now, if
    /// it differs from what was loaded. `work.other`: the session's new identifier, if another
    /// request has moved it.
    fn save(
        &self,
        env: &impl Environment,
        mut work: Work<'_>,
        current: Option<&Stored>,
    ) -> Result<Plan, Failure> {
        let follows = work.other.is_some();
        // Since the last obstacle, the session has an identifier that the gateway does not know.
        let is_new = work.state.phase == Phase::Creating;
        let Decision { storage, text, expires, mut outcome } =
            self.decide(env, &work, &work.id, follows, current)?;
        outcome.new_id = (is_new && storage == Storage::Save).then(|| work.id.clone());
        let content = Content { data: text, expires };
        let (phase, operation) = match storage {
            Storage::Leave => return Ok(self.settled(work, outcome)),
            Storage::Touch => (Phase::Touching, Operation::Touch(expires)),
            Storage::Save if work.loaded.is_none() && self.is_conditional() => {
                (Phase::Creating, Operation::Create(content))
            }
            Storage::Save => (Phase::Saving, Operation::Replace(content)),
        };
        let id = work.other.clone().unwrap_or_else(|| work.id.clone());
        work.state.is_stored = false;
        let if_unchanged = phase == Phase::Saving && self.is_conditional();
        Ok(self.plan(work, phase, vec![Write { id, operation, if_unchanged }], outcome))
    }

    /// Stores the session under its new identifier, `work.other`; records it in a note for the
    /// requests that are still in progress, of which only the first can move it; and deletes the old
    /// session. A renewal deletes it only
    /// if it is unchanged, so that no concurrent change is lost. After `regenerate`, the new
    /// session takes no changes from other requests.
    fn relocate(
        &self,
        env: &impl Environment,
        work: Work<'_>,
        current: Option<&Stored>,
    ) -> Result<Plan, Failure> {
        let Some(new) = work.other.clone() else { return Err(misuse("a state was altered")) };
        let Decision { text, expires, mut outcome, .. } =
            self.decide(env, &work, &new, false, current)?;
        outcome.new_id = Some(new.clone());
        let content = Content { data: text, expires };
        // What this request has stored, it overwrites.
        let store = if work.state.is_stored { Operation::Replace } else { Operation::Create };
        let mut writes = vec![write(new, store(content))];
        if self.notes_moves() {
            let (place, content) = self.note(env, &work);
            writes.push(write(place, store(content)));
        }
        let if_unchanged = self.keeps_changes(work.change);
        writes.push(Write { if_unchanged, ..write(work.id.clone(), Operation::Delete) });
        Ok(self.plan(work, Phase::Moving, writes, outcome))
    }

    /// Whether a change under a new identifier includes what other requests change meanwhile.
    fn keeps_changes(&self, change: &Change) -> bool {
        change.action == Action::Renew && self.is_conditional()
    }

    /// Returns the plan of a request whose successor is stored, and whose old session is gone.
    fn relocated(&self, env: &impl Environment, work: Work<'_>) -> Result<Plan, Failure> {
        let Some(new) = work.other.clone() else { return Err(misuse("a state was altered")) };
        let decision = self.decide(env, &work, &new, false, None)?;
        let outcome = Outcome { new_id: Some(new), ..decision.outcome };
        Ok(self.settled(work, outcome))
    }

    /// Decides what happens to the session, by the rules of [`lifecycle`]. `id` is the identifier
    /// that it will have.
    fn decide(
        &self,
        env: &impl Environment,
        work: &Work<'_>,
        id: &str,
        follows: bool,
        current: Option<&Stored>,
    ) -> Result<Decision, Failure> {
        let Work { state, loaded, change, .. } = work;
        let now = env.now();
        let damaged = |Damaged| unavailable("the stored session is damaged".to_owned());
        let invalid = |why| failed(FailureKind::InvalidChange, why);
        let starts_empty = change.action == Action::Regenerate;
        let base = match loaded {
            Some(stored) if !starts_empty => self.document(&stored.data).map_err(damaged)?,
            _ => Document::empty(),
        };
        let is_reduced = base.is_reduced();
        let plan = base.plan(&change.data).map_err(invalid)?;
        let document = match current {
            Some(current) => self.document(&current.data).map_err(damaged)?.merged(&plan),
            None => base.changed(&plan),
        };
        if document.len() > MAX_MEMBERS {
            return Err(invalid(format!(
                "the session would have {} keys, more than {MAX_MEMBERS}: keep many values under \
                 one key, or elsewhere",
                document.len()
            )));
        }
        let mut cookie = match self.cookie(&document).map_err(damaged)? {
            Some(cookie) => cookie,
            None => SessionCookie::new(&self.options.cookie, state.secure, now),
        };
        let mut cookie_changed = false;
        if !change.cookie.is_empty() {
            let old = cookie.clone();
            for edit in &change.cookie {
                cookie.edit(edit, now).map_err(|why| invalid(why.to_owned()))?;
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
            is_new: loaded.is_none() || moved,
            modified: !plan.is_empty() || moved || also_modified,
            expires: cookie.has_expires(),
        };
        let ttl = self.options.ttl.saturating_mul(1000);
        let mut storage = lifecycle::storage(&self.options, facts);
        let mut is_spared = false;
        if storage == Storage::Touch {
            // `as` maps a negative lifetime to 0.
            let lifetime = cookie.lifetime().map_or(ttl, |age| age as Millis);
            let last_touch = loaded.and_then(|stored| {
                stored.touched.or(Some(stored.expires?.saturating_sub(lifetime)))
            });
            if lifecycle::was_touched_recently(&self.options, lifetime, last_touch, now) {
                storage = Storage::Leave;
                is_spared = true;
            }
        }
        // A request that followed the session does not have its new cookie, and must not receive
        // it. Without a touch, it is not known whether another request has moved the session, and
        // has sent the browser a new cookie.
        let is_unsure = is_spared && self.options.preset == Preset::Safe;
        let may_send = (state.secure || !cookie.secure()) && !follows && !is_unsure;
        let set_cookie = if may_send && lifecycle::sends_cookie(&self.options, facts) {
            let value = format!("s:{}", self.keys.sign(id));
            // express-session sends no Max-Age.
            let now = (self.options.preset == Preset::Safe).then_some(now);
            cookie.serialize(&self.options.name, &value, now)
        } else {
            None
        };
        let event = match storage {
            Storage::Leave => Event::None,
            Storage::Touch => Event::Touched,
            Storage::Save if loaded.is_none() => Event::Created,
            Storage::Save if moved => Event::Moved,
            Storage::Save => Event::Saved,
        };
        let text = match storage {
            Storage::Save => document.to_text(&cookie.to_text()),
            Storage::Touch | Storage::Leave => String::new(),
        };
        if text.len() > self.options.max_session_bytes as usize {
            return Err(too_large(text.len(), self.options.max_session_bytes));
        }
        Ok(Decision {
            storage,
            text,
            expires: cookie.expires().unwrap_or(now.saturating_add(ttl)),
            outcome: self.with_cookie(event, set_cookie),
        })
    }

    fn with_cookie(&self, event: Event, set_cookie: Option<String>) -> Outcome {
        // A response with a visitor's cookie must not be served to others.
        let no_store = self.options.preset == Preset::Safe && set_cookie.is_some();
        Outcome { set_cookie, no_store, ..outcome(event) }
    }

    /// Whether concurrent changes of a session are merged.
    fn is_conditional(&self) -> bool {
        self.options.conflicts == Conflicts::Merge
    }

    /// Whether requests with the old identifier of a session can find out that it has moved.
    fn notes_moves(&self) -> bool {
        self.options.preset == Preset::Safe && self.is_conditional()
    }

    /// Returns the note about the session's new identifier, and its own identifier.
    fn note(&self, env: &impl Environment, work: &Work<'_>) -> (String, Content) {
        let now = env.now();
        let new = work.other.as_deref().filter(|_| work.change.action == Action::Renew);
        let data = moved::note(&self.keys, &work.id, new, &self.options.cookie, now);
        let content = Content { data, expires: now.saturating_add(moved::GRACE) };
        (moved::place(&self.keys, &work.id), content)
    }

    /// The session is missing: looks for a note about where it has moved.
    fn trace(&self, mut work: Work<'_>) -> Result<Plan, Failure> {
        let old = work.other.take().unwrap_or_else(|| work.id.clone());
        let place = moved::place(&self.keys, &old);
        work.other = Some(old);
        let writes = vec![write(place, Operation::Load)];
        Ok(self.plan(work, Phase::Tracing, writes, outcome(Event::None)))
    }

    /// The session has moved: applies the change, or the end, to the successor.
    fn traced(&self, work: Work<'_>, note: &Stored) -> Result<Plan, Failure> {
        let mut work = self.again(work)?;
        let old = work.other.as_deref();
        let Some(new) = old.and_then(|old| moved::read(&self.keys, old, &note.data)) else {
            return Err(contention());
        };
        work.other = Some(new.clone());
        Ok(match work.change.action {
            Action::Keep => {
                let writes = vec![write(new, Operation::Load)];
                self.plan(work, Phase::Joining, writes, outcome(Event::None))
            }
            _ => {
                let outcome = self.without_session(&work, Event::Destroyed);
                self.plan(work, Phase::Destroying, vec![write(new, Operation::Delete)], outcome)
            }
        })
    }

    /// Another request ended or moved the session before this one could, so the successor must be
    /// deleted, and the note about it, if this request wrote one.
    fn withdraw(&self, work: Work<'_>, note: Option<String>) -> Plan {
        let note = note.filter(|_| self.notes_moves());
        let deleted = work.other.iter().chain(&note);
        let mut writes: Vec<_> = deleted.map(|id| write(id.clone(), Operation::Delete)).collect();
        if self.notes_moves() {
            // Always an obstacle, so that the request fails after the deletion.
            writes.push(write(work.id.clone(), Operation::Load));
        }
        self.plan(work, Phase::Withdrawing, writes, outcome(Event::Gone))
    }

    fn destroy(&self, work: Work<'_>) -> Plan {
        if work.loaded.is_none() {
            let outcome = self.without_session(&work, Event::None);
            return self.settled(work, outcome);
        }
        let outcome = self.without_session(&work, Event::Destroyed);
        let writes = vec![write(work.id.clone(), Operation::Delete)];
        self.plan(work, Phase::Destroying, writes, outcome)
    }

    /// The application ended the session: clears the browser's cookie, which express-session does
    /// not do. (If another request ended or moved the session, the cookie is left alone: that
    /// request may have sent the browser a new one.)
    fn without_session(&self, work: &Work<'_>, event: Event) -> Outcome {
        let state = work.state;
        let document = work.loaded.and_then(|stored| self.document(&stored.data).ok());
        let cookie = document
            .as_ref()
            .and_then(|document| self.cookie(document).ok().flatten())
            .unwrap_or_else(|| SessionCookie::new(&self.options.cookie, state.secure, 0));
        let clears = self.options.preset == Preset::Safe
            && state.presented
            && (state.secure || !cookie.secure());
        let set_cookie = if clears { cookie.serialize_removal(&self.options.name) } else { None };
        self.with_cookie(event, set_cookie)
    }

    fn unavailable(&self, work: Work<'_>, why: String) -> Result<Plan, Failure> {
        let State { phase, origin, .. } = work.state;
        let is_tolerated = match self.options.on_store_error {
            // The loaded data is valid and lives on for a while. express-session reports an error.
            OnStoreError::Deny => phase == Phase::Touching && self.options.preset == Preset::Safe,
            // Nothing was stored yet, or only the expiry would have been extended.
            OnStoreError::Anonymous => {
                matches!(phase, Phase::Creating | Phase::Touching)
                    || (phase == Phase::Saving && origin != Origin::Loaded)
            }
        };
        match is_tolerated {
            true => Ok(self.settled(work, outcome(Event::None))),
            false => Err(unavailable(why)),
        }
    }

    /// Parses a stored session. One that exceeds the limit is refused, because parsing it at every
    /// request costs too much.
    fn document<'a>(&self, text: &'a str) -> Result<Document<'a>, Damaged> {
        if text.len() > self.options.max_session_bytes as usize {
            return Err(Damaged);
        }
        let known = |text: &str| {
            let templates = self.cookie_templates.iter().enumerate();
            templates.into_iter().find_map(|(at, template)| Some((at, template.length(text)?)))
        };
        Document::parse(text, known)
    }

    /// Returns a session's cookie; none if it has none yet.
    fn cookie<'a>(&self, document: &Document<'a>) -> Result<Option<SessionCookie<'a>>, Damaged> {
        let Some(text) = document.cookie() else { return Ok(None) };
        let template = document.template().and_then(|at| self.cookie_templates.get(at));
        match template.and_then(|template| template.read(text)) {
            Some(cookie) => Ok(Some(cookie)),
            None => SessionCookie::parse(text).map(Some),
        }
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

fn write(id: String, operation: Operation) -> Write {
    Write { id, operation, if_unchanged: false }
}

fn outcome(event: Event) -> Outcome {
    Outcome { event, new_id: None, set_cookie: None, no_store: false }
}

fn impossible(obstacle: &str, phase: Phase) -> Failure {
    misuse(&format!("`{obstacle}` cannot be an obstacle to {}", phase.name()))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
