//! Plays a history against the session logic, and checks its promises.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use edge_session_component::wit::{
    Action, Beginning, Change, DataChange, Edit, Event as Happened, Failure, Obstacle, Operation,
    Origin, Outcome, Plan, Request as Facts, Session, Setting, Stored, Value, Visit,
};
use edge_session_component::{Engine, Environment};

use crate::history::{Carried, Deed, Event, Fault, GATEWAYS, History, VISITORS};
use crate::store::{Lineage, Store};

const START: u64 = 1_893_456_000_000;

/// A request that takes longer than this may come too late to follow a session: docs/embedding.md.
const GRACE: u64 = 25_000;

/// No request needs more steps, with all others in its way.
const MAX_STEPS: u32 = 2000;

/// The options that histories use.
const OPTIONS: [&[(&str, &str)]; 7] = [
    &[("store.touch_after", "0")],
    &[("rolling", "true"), ("cookie.max_age", "3600000")],
    &[("on_store_error", "anonymous"), ("store.touch_after", "0")],
    &[("save_uninitialized", "true"), ("store.touch_after", "10")],
    &[("unset", "destroy"), ("resave", "true")],
    &[],
    &[("rolling", "true"), ("store.touch_after", "10")],
];

/// Engines of all options: two of each, as two instances of a component.
pub(crate) struct Rig(Vec<[Engine; 2]>);

impl Rig {
    pub(crate) fn new() -> Self {
        let engine = |options: &[(&str, &str)]| {
            let secret = Setting { name: "secret".to_owned(), value: Value::Bytes(vec![b'k'; 32]) };
            let others = options.iter().map(|(name, text)| Setting {
                name: (*name).to_owned(),
                value: Value::Text((*text).to_owned()),
            });
            let settings: Vec<_> = std::iter::once(secret).chain(others).collect();
            Engine::configure(&settings).unwrap_or_else(|problems| panic!("{problems:?}"))
        };
        Self(OPTIONS.iter().map(|options| [engine(options), engine(options)]).collect())
    }

    /// Plays a history; fails with the promise that is broken. With `tells`, prints every step.
    pub(crate) fn play(&self, history: &History, tells: bool) -> Result<(), String> {
        let engines = &self.0[usize::from(history.options) % self.0.len()];
        let mut world = World::new(engines, history, tells);
        for event in &history.events {
            world.happen(*event)?;
        }
        world.end()
    }
}

/// The time and the randomness of one call.
struct Moment<'w> {
    now: u64,
    drawn: &'w Cell<u64>,
}

impl Environment for Moment<'_> {
    fn now(&self) -> u64 {
        self.now
    }

    fn random(&self) -> [u8; 24] {
        self.drawn.set(self.drawn.get() + 1);
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.drawn.get().to_le_bytes());
        bytes
    }
}

/// A request in progress.
struct Request {
    visitor: usize,
    gateway: usize,
    deed: Deed,
    number: usize,
    began: u64,
    steps: u32,
    /// The identifiers that the request carried.
    carried: Vec<String>,
    stage: Stage,
    stored: Option<Stored>,
    seen: Option<Stored>,
    change: Change,
    /// The session that the request works on, and the one that it begins.
    lineage: Lineage,
    next: Lineage,
    /// Whether it has deleted a session.
    has_deleted: bool,
}

enum Stage {
    /// The engine decides what is next.
    Called,
    Load(Visit),
    Open(Box<Session>),
    Write(Plan, usize),
}

struct World<'w> {
    engines: &'w [Engine; 2],
    tells: bool,
    skews: [i32; GATEWAYS as usize],
    now: u64,
    drawn: Cell<u64>,
    calls: usize,
    store: Store,
    /// What every visitor's browser sends.
    browsers: [Option<String>; VISITORS as usize],
    requests: Vec<Request>,
    /// How many requests there were.
    count: usize,
    lineages: Lineage,
    owners: HashMap<Lineage, usize>,
    /// Changes that visitors were told of: the session, and the member.
    told: Vec<(Lineage, String)>,
    /// Sessions whose end visitors were told of.
    ended: HashSet<Lineage>,
    /// Sessions that a request has deleted, without having said so.
    perhaps_ended: HashSet<Lineage>,
    /// Sessions of which nobody can know whether they had ended: a request took so long that others
    /// could not follow it any more, or the store failed, or a gateway stopped, in the midst of a
    /// deletion.
    unsure: HashSet<Lineage>,
    /// Identifiers that visitors were told not to use any more.
    moved: HashSet<String>,
}

impl<'w> World<'w> {
    fn new(engines: &'w [Engine; 2], history: &History, tells: bool) -> Self {
        Self {
            engines,
            tells,
            skews: history.skews,
            now: START,
            drawn: Cell::new(0),
            calls: 0,
            store: Store::default(),
            browsers: [const { None }; VISITORS as usize],
            requests: Vec::new(),
            count: 0,
            lineages: 0,
            owners: HashMap::new(),
            told: Vec::new(),
            ended: HashSet::new(),
            perhaps_ended: HashSet::new(),
            unsure: HashSet::new(),
            moved: HashSet::new(),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick(millis) => {
                self.now += u64::from(millis);
                let slow = self.requests.iter().filter(|it| self.now - it.began >= GRACE);
                self.unsure.extend(slow.map(|it| it.lineage));
            }
            Event::Start { visitor, gateway, deed, carried } => {
                return self.start(visitor.into(), gateway.into(), deed, carried);
            }
            Event::Step { request, fault } if !self.requests.is_empty() => {
                return self.step(usize::from(request) % self.requests.len(), fault);
            }
            Event::Crash { request } if !self.requests.is_empty() => {
                let at = usize::from(request) % self.requests.len();
                let request = self.requests.remove(at);
                if let Stage::Write(plan, at) = &request.stage {
                    self.store.abandon(&plan.writes[*at..]);
                    self.unsure.insert(request.lineage);
                }
                self.give_up(&request);
            }
            Event::Step { .. } | Event::Crash { .. } => {}
        }
        Ok(())
    }

    /// Ends all requests, and looks for what was promised.
    fn end(mut self) -> Result<(), String> {
        while !self.requests.is_empty() {
            self.step(self.requests.len() - 1, Fault::None)?;
        }
        for (lineage, member) in &self.told {
            let is_over = self.ended.contains(lineage) || self.perhaps_ended.contains(lineage);
            if !is_over && !self.store.has(*lineage, member, self.now) {
                return Err(format!("the acknowledged change {member} is lost"));
            }
        }
        for lineage in self.ended.difference(&self.unsure) {
            if self.store.has(*lineage, "\"owner\"", self.now) {
                return Err("an ended session is still stored".to_owned());
            }
        }
        Ok(())
    }

    /// The instances take turns: each finds the states of the other.
    fn engine(&mut self) -> &'w Engine {
        self.calls += 1;
        &self.engines[self.calls % 2]
    }

    fn moment(&self, gateway: usize) -> (u64, &Cell<u64>) {
        let now = self.now.saturating_add_signed(self.skews[gateway].into());
        (now, &self.drawn)
    }

    fn start(
        &mut self,
        visitor: usize,
        gateway: usize,
        deed: Deed,
        carried: Carried,
    ) -> Result<(), String> {
        let own = self.browsers[visitor].clone().filter(|_| carried != Carried::None);
        let stale = "connect.sid=s%3Astale.stale".to_owned();
        let stale = Some(stale).filter(|_| carried == Carried::BehindStale);
        let cookies: Vec<_> = stale.into_iter().chain(own).collect();
        let facts = Facts {
            cookies: cookies.join("; ").into_bytes(),
            path: "/".to_owned(),
            tls: false,
            secure: false,
            forwarded_proto: None,
        };
        let engine = self.engine();
        let (now, drawn) = self.moment(gateway);
        let beginning = engine.begin(&Moment { now, drawn }, &facts);
        self.count += 1;
        let request = Request {
            visitor,
            gateway,
            deed,
            number: self.count,
            began: self.now,
            steps: 0,
            carried: cookies.iter().filter_map(|cookie| id_of(cookie)).collect(),
            stage: Stage::Called,
            stored: None,
            seen: None,
            change: Change { action: Action::Keep, data: DataChange::Nothing, cookie: Vec::new() },
            lineage: 0,
            next: 0,
            has_deleted: false,
        };
        self.begun(request, Ok(beginning))
    }

    /// Continues with how a request begins.
    fn begun(
        &mut self,
        request: Request,
        beginning: Result<Beginning, Failure>,
    ) -> Result<(), String> {
        match beginning {
            Ok(Beginning::Load(visit)) => {
                self.requests.push(Request { stage: Stage::Load(visit), ..request });
                Ok(())
            }
            Ok(Beginning::Ready(session)) => self.ready(request, session),
            Ok(Beginning::None) => Err("a path has no session".to_owned()),
            // The visitor is told that sessions are unavailable.
            Err(failure) if failure.status == 503 => Ok(()),
            Err(failure) => Err(format!("a request fails: {failure:?}")),
        }
    }

    /// The application receives a session, and makes its change.
    fn ready(&mut self, mut request: Request, session: Session) -> Result<(), String> {
        let id = &session.visit.id;
        let text = session.text.as_deref().or(request.stored.as_ref().map(|it| &*it.data));
        let text = text.ok_or("a session has no text")?;
        let is_loaded = session.origin == Origin::Loaded;
        if is_loaded {
            let mut others = (0..usize::from(VISITORS)).filter(|it| *it != request.visitor);
            if others.any(|other| text.contains(&format!(r#""owner":{other}"#))) {
                return Err(format!("visitor {} is given {text}", request.visitor));
            }
            request.lineage = self.store.lineage(id).ok_or("an unknown session is loaded")?;
        } else {
            if request.carried.contains(id) {
                return Err("an identifier of a client is adopted".to_owned());
            }
            if text.contains("owner") {
                return Err(format!("a new session has data: {text}"));
            }
            self.lineages += 1;
            request.lineage = self.lineages;
            self.owners.insert(request.lineage, request.visitor);
        }
        let edit = |key: String, value: usize| Edit { key, value: Some(value.to_string()) };
        let mut edits = vec![edit(format!("k{}", request.number), request.number)];
        if !is_loaded || request.deed == Deed::Regenerate {
            edits.insert(0, edit("owner".to_owned(), request.visitor));
        }
        request.next = request.lineage;
        if request.deed == Deed::Regenerate && is_loaded {
            self.lineages += 1;
            request.next = self.lineages;
            self.owners.insert(request.next, request.visitor);
        }
        let (action, data) = match request.deed {
            Deed::Nothing => (Action::Keep, DataChange::Nothing),
            Deed::Set => (Action::Keep, DataChange::Edits(edits)),
            Deed::Renew => (Action::Renew, DataChange::Edits(edits)),
            Deed::Regenerate => (Action::Regenerate, DataChange::Edits(edits)),
            Deed::Destroy => (Action::Destroy, DataChange::Nothing),
        };
        request.change = Change { action, data, cookie: Vec::new() };
        request.stage = Stage::Open(Box::new(session));
        self.requests.push(request);
        Ok(())
    }

    /// Takes the next step of a request.
    fn step(&mut self, at: usize, fault: Fault) -> Result<(), String> {
        let mut request = self.requests.remove(at);
        request.steps += 1;
        if request.steps > MAX_STEPS {
            return Err("a request does not end".to_owned());
        }
        let engine = self.engine();
        let now = self.now;
        match std::mem::replace(&mut request.stage, Stage::Called) {
            Stage::Called => Err("a request waits for nothing".to_owned()),
            Stage::Load(visit) => {
                let loaded = self.store.load(&visit.id, fault, now);
                self.tell(&request, || format!("loads {}: {loaded:?}", short(&visit.id)));
                // A note about a session that has moved is no session.
                if let Ok(Some(stored)) = &loaded
                    && !stored.data.contains("movedTo")
                {
                    self.check_loaded(&visit.id)?;
                }
                request.stored = loaded.clone().unwrap_or_default();
                let (now, drawn) = self.moment(request.gateway);
                let stored = loaded.as_ref().map(Option::as_ref).map_err(Clone::clone);
                let beginning = engine.loaded(&Moment { now, drawn }, visit, stored);
                self.begun(request, beginning)
            }
            Stage::Open(session) => {
                let (now, drawn) = self.moment(request.gateway);
                let stored = request.stored.as_ref();
                let environment = Moment { now, drawn };
                let plan = engine.finish(&environment, session.visit, stored, &request.change);
                request.seen.clone_from(&request.stored);
                self.planned(request, plan)
            }
            Stage::Write(plan, at) => {
                let write = &plan.writes[at];
                let is_delete = write.operation == Operation::Delete;
                let is_own = self.store.lineage(&write.id) == Some(request.lineage);
                let done =
                    self.store.perform(write, request.seen.as_ref(), request.next, fault, now);
                let is_move = matches!(request.deed, Deed::Renew | Deed::Regenerate);
                if (is_delete || is_move) && fault != Fault::None {
                    // A session may be left over. And if another request has ended the old one, this
                    // cannot be known: the new one continues, so that a fault logs nobody out.
                    self.store.abandon(&plan.writes);
                    self.unsure.insert(request.lineage);
                }
                // With a lost reply, it may have been deleted.
                request.has_deleted |=
                    is_delete && is_own && (done.is_ok() || fault != Fault::None);
                self.tell(&request, || {
                    let (what, id) = (&write.operation, short(&write.id));
                    let condition = if write.if_unchanged { " if unchanged" } else { "" };
                    format!("{what:?} {id}{condition}: {done:?}")
                });
                let Err(obstacle) = done else {
                    request.stage = Stage::Write(plan, at + 1);
                    return self.advance(request);
                };
                if let Obstacle::Conflict(current) = &obstacle {
                    request.seen = Some(current.clone());
                }
                let (now, drawn) = self.moment(request.gateway);
                let (environment, visit) = (Moment { now, drawn }, plan.visit);
                let (stored, change) = (request.stored.as_ref(), &request.change);
                let plan = engine.resume(&environment, visit, stored, change, at, obstacle);
                self.planned(request, plan)
            }
        }
    }

    /// An ended session is never loaded again.
    fn check_loaded(&self, id: &str) -> Result<(), String> {
        let Some(lineage) = self.store.lineage(id) else { return Ok(()) };
        let is_ended = self.ended.contains(&lineage) && !self.unsure.contains(&lineage);
        match is_ended {
            true => Err("an ended session is loaded".to_owned()),
            false => Ok(()),
        }
    }

    /// Prints what happens, if somebody wants to know.
    fn tell(&self, request: &Request, what: impl FnOnce() -> String) {
        if self.tells {
            let Request { number, visitor, deed, .. } = request;
            println!("  {number} (visitor {visitor}, {deed:?}) {}", what());
        }
    }

    fn planned(&mut self, mut request: Request, plan: Result<Plan, Failure>) -> Result<(), String> {
        match plan {
            Ok(plan) => {
                request.stage = Stage::Write(plan, 0);
                self.advance(request)
            }
            Err(failure) if failure.status == 503 => {
                self.tell(&request, || format!("fails: {}", failure.reason));
                self.give_up(&request);
                Ok(())
            }
            Err(failure) => Err(format!("a request fails: {failure:?}")),
        }
    }

    /// The visitor is not told that the request succeeded.
    fn give_up(&mut self, request: &Request) {
        if request.has_deleted {
            self.perhaps_ended.insert(request.lineage);
        }
    }

    /// Keeps a request that has more to write, and answers one that has not.
    fn advance(&mut self, request: Request) -> Result<(), String> {
        match &request.stage {
            Stage::Write(plan, at) if *at == plan.writes.len() => {
                let outcome = plan.outcome.clone();
                self.answer(&request, &outcome)
            }
            _ => {
                self.requests.push(request);
                Ok(())
            }
        }
    }

    /// The visitor receives the response.
    fn answer(&mut self, request: &Request, outcome: &Outcome) -> Result<(), String> {
        self.tell(request, || format!("ends: {outcome:?}"));
        let member = format!(r#""k{}":{}"#, request.number, request.number);
        match outcome.event {
            Happened::Created | Happened::Saved | Happened::Moved
                if !matches!(request.deed, Deed::Nothing) =>
            {
                self.told.push((request.next, member));
            }
            _ => {}
        }
        match (outcome.event, request.deed) {
            (Happened::Moved, Deed::Regenerate) | (Happened::Destroyed, _) => {
                self.ended.insert(request.lineage);
            }
            (Happened::Moved, _) => {}
            _ => self.give_up(request),
        }
        let Some(set_cookie) = &outcome.set_cookie else { return Ok(()) };
        let cookie = set_cookie.split(';').next().unwrap_or_default().to_owned();
        let Some(id) = id_of(&cookie) else {
            // Logged out. (Another request's cookie may have come before.)
            if request.deed != Deed::Destroy {
                return Err(format!("{:?} clears the cookie", request.deed));
            }
            self.browsers[request.visitor] = None;
            return Ok(());
        };
        let is_told = outcome.new_id.as_ref().is_none_or(|new| *new == id);
        if !is_told || self.store.lineage(&id) != Some(request.next) {
            return Err("a cookie names a session that is not the request's".to_owned());
        }
        if self.owners.get(&request.next) != Some(&request.visitor) {
            return Err("a cookie names another visitor's session".to_owned());
        }
        if self.moved.contains(&id) && !self.store.is_left_over(&id) {
            return Err("a cookie names an identifier that the session no longer has".to_owned());
        }
        if outcome.event == Happened::Moved {
            self.moved.extend(request.carried.iter().cloned());
        }
        self.browsers[request.visitor] = Some(cookie);
        Ok(())
    }
}

/// Returns the first characters of an identifier, in which they differ.
fn short(id: &str) -> &str {
    id.get(..6).unwrap_or(id)
}

/// Returns the identifier in a cookie of ours.
fn id_of(cookie: &str) -> Option<String> {
    let (_, signed) = cookie.split_once("=s%3A")?;
    Some(signed.split('.').next()?.to_owned())
}
