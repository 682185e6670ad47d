//! Complete exchanges against a model of a store, with a controlled clock and controlled
//! randomness.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::document::MAX_MEMBERS;
use crate::options::{Secure, defaults};
use crate::wit::{self, DataChange, Edit};

const START: Millis = 1_893_456_000_000;
const TTL: Millis = 14 * 24 * 60 * 60 * 1000;

struct World {
    engine: Engine,
    now: Cell<Millis>,
    drawn: Cell<u64>,
    store: RefCell<HashMap<String, Stored>>,
    /// The names of the store requests so far.
    log: RefCell<Vec<&'static str>>,
}

/// A request that the application is handling.
struct Open {
    session: Session,
    stored: Option<Stored>,
    /// The session's text without its cookie.
    data: String,
}

impl std::ops::Deref for Open {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

/// What a request has come to.
#[derive(Debug)]
struct Answer {
    event: Event,
    new_id: Option<String>,
    set_cookie: Option<String>,
    no_store: bool,
    failure: Option<FailureKind>,
    reason: String,
    /// The number of conflicts that its writes met.
    conflicts: usize,
}

/// A request whose plan is being performed.
struct Run<'w> {
    world: &'w World,
    stored: Option<Stored>,
    change: Change,
    plan: Result<Plan, Failure>,
    at: usize,
    seen: Option<Stored>,
    conflicts: usize,
}

impl Run<'_> {
    /// Returns the next write; none after the last one.
    fn next(&self) -> Option<&Write> {
        self.plan.as_ref().ok()?.writes.get(self.at)
    }

    /// Continues as if the next write had met an obstacle.
    fn meet(&mut self, obstacle: Obstacle) {
        if let Obstacle::Conflict(current) = &obstacle {
            self.conflicts += 1;
            self.seen = Some(current.clone());
        }
        let visit = self.plan.as_ref().expect("a plan").visit.clone();
        let stored = self.stored.as_ref();
        let world = self.world;
        self.plan = world.engine.resume(world, visit, stored, &self.change, self.at, obstacle);
        self.at = 0;
    }

    /// Performs the next write.
    fn perform(&mut self) {
        let write = self.next().expect("a write").clone();
        match self.world.perform(&write, self.seen.as_ref()) {
            Ok(()) => self.at += 1,
            Err(obstacle) => self.meet(obstacle),
        }
    }

    /// Performs what is left to do.
    fn end(mut self) -> Answer {
        while self.next().is_some() {
            self.perform();
        }
        let conflicts = self.conflicts;
        match self.plan {
            Ok(Plan { outcome, .. }) => {
                let Outcome { event, new_id, set_cookie, no_store } = outcome;
                let (failure, reason) = (None, String::new());
                Answer { event, new_id, set_cookie, no_store, failure, reason, conflicts }
            }
            Err(failure) => Answer {
                event: Event::None,
                new_id: None,
                set_cookie: None,
                no_store: false,
                failure: Some(failure.kind),
                reason: failure.reason,
                conflicts,
            },
        }
    }
}

impl Environment for World {
    fn now(&self) -> Millis {
        self.now.get()
    }
    fn random(&self) -> [u8; 24] {
        self.drawn.set(self.drawn.get() + 1);
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.drawn.get().to_le_bytes());
        bytes
    }
}

impl World {
    fn new(configure: impl FnOnce(&mut Options)) -> Self {
        Self::with(Preset::Safe, configure)
    }

    fn with(preset: Preset, configure: impl FnOnce(&mut Options)) -> Self {
        let secrets = vec![vec![b'k'; 32]];
        // Every touch is seen.
        let mut options = Options { secrets, touch_after: Some(0), ..defaults(preset) };
        configure(&mut options);
        Self {
            engine: checked(options),
            now: Cell::new(START),
            drawn: Cell::default(),
            store: RefCell::default(),
            log: RefCell::default(),
        }
    }

    /// The five operations as specified in `wit/engine.wit`.
    fn perform(&self, write: &Write, seen: Option<&Stored>) -> Result<(), Obstacle> {
        let mut store = self.store.borrow_mut();
        let now = self.now.get();
        store.retain(|_, stored| stored.expires.is_none_or(|expires| expires > now));
        let id = write.id.clone();
        let current = store.get(&id).cloned();
        let stored = |content: &Content| Stored {
            data: content.data.clone(),
            expires: Some(content.expires),
            touched: None,
        };
        let name = match &write.operation {
            Operation::Create(_) => "create",
            Operation::Replace(_) => "replace",
            Operation::Touch(_) => "touch",
            Operation::Delete => "delete",
            Operation::Load => "load",
        };
        self.log.borrow_mut().push(name);
        if write.if_unchanged {
            let expected = seen.map(|it| &it.data);
            match &current {
                Some(current) if Some(&current.data) == expected => {}
                Some(current) => return Err(Obstacle::Conflict(current.clone())),
                None => return Err(Obstacle::Missing),
            }
        }
        match (&write.operation, current) {
            (Operation::Create(_), Some(_)) => return Err(Obstacle::Taken),
            (Operation::Create(content), None) | (Operation::Replace(content), _) => {
                store.insert(id, stored(content));
            }
            (Operation::Touch(expires), Some(current)) => {
                store.insert(id, Stored { expires: Some(*expires), ..current });
            }
            (Operation::Delete, Some(_)) => {
                store.remove(&id);
            }
            (Operation::Load, Some(current)) => return Err(Obstacle::Conflict(current)),
            (Operation::Touch(_) | Operation::Delete | Operation::Load, None) => {
                return Err(Obstacle::Missing);
            }
        }
        Ok(())
    }

    /// Performs a load.
    fn load(&self, id: &str) -> Option<Stored> {
        let load = write(id.to_owned(), Operation::Load);
        match self.perform(&load, None) {
            Err(Obstacle::Conflict(stored)) => Some(stored),
            _ => None,
        }
    }

    /// Begins a request, which loads a session.
    fn begin(&self, cookie: &str) -> Visit {
        match self.engine.begin(self, &request(Some(cookie))) {
            Beginning::Load(visit) => visit,
            other => panic!("no load: {other:?}"),
        }
    }

    fn open(&self, cookie: Option<&str>) -> Open {
        let mut stored = None;
        let mut beginning = self.engine.begin(self, &request(cookie));
        loop {
            beginning = match beginning {
                Beginning::None => panic!("no session"),
                Beginning::Ready(session) => return self.opened(session, stored),
                Beginning::Load(visit) => {
                    stored = self.load(&visit.id);
                    self.engine.loaded(self, visit, Ok(stored.as_ref())).expect("no failure")
                }
            }
        }
    }

    fn opened(&self, session: Session, stored: Option<Stored>) -> Open {
        let text = session.text.as_deref().or(stored.as_ref().map(|it| &*it.data));
        let document = Document::parse(text.expect("a text"), |_| None).expect("a session");
        let data = document.data_text();
        Open { session, stored, data }
    }

    /// The application has finished.
    fn finish(&self, open: Open, change: &Change) -> Run<'_> {
        let Open { session, stored, .. } = open;
        let plan = self.engine.finish(self, session.visit, stored.as_ref(), change);
        let (seen, change) = (stored.clone(), change.clone());
        Run { world: self, stored, change, plan, at: 0, seen, conflicts: 0 }
    }

    fn close(&self, open: Open, change: &Change) -> Answer {
        self.finish(open, change).end()
    }

    fn state(&self, open: &Open) -> State {
        State::read(self.engine.fingerprint, &open.visit.state).expect("a state")
    }

    /// Performs a complete request.
    fn visit(&self, cookie: Option<&str>, change: &Change) -> Answer {
        self.log.borrow_mut().clear();
        let session = self.open(cookie);
        self.close(session, change)
    }

    /// Creates a visitor with a session in which `a` = 1; returns its cookie.
    fn visitor(&self) -> String {
        cookie(&self.visit(None, &set("a", "1")))
    }

    /// Returns the text of the only session, ignoring notes.
    fn only(&self) -> String {
        let store = self.store.borrow();
        let mut sessions = store.values().filter(|it| !it.data.contains("\"movedTo\""));
        let only = sessions.next().expect("a session").data.clone();
        assert_eq!(sessions.next(), None, "{store:?}");
        only
    }

    /// Returns the note about the session of a cookie.
    fn note_about(&self, cookie: &str) -> Option<String> {
        let place = moved::place(&self.engine.keys, &id_of(cookie));
        self.store.borrow().get(&place).map(|it| it.data.clone())
    }

    fn log(&self) -> String {
        self.log.borrow().join(" ")
    }
}

fn checked(options: Options) -> Engine {
    assert_eq!(options::check(&options), []);
    Engine::of(options)
}

fn request(cookie: Option<&str>) -> Request {
    Request {
        cookies: cookie.unwrap_or_default().into(),
        path: "/".into(),
        tls: false,
        secure: false,
        forwarded_proto: None,
    }
}

fn change(action: Action, data: DataChange) -> Change {
    Change { action, data, cookie: Vec::new() }
}

fn nothing() -> Change {
    change(Action::Keep, DataChange::Nothing)
}

fn edit(key: &str, value: &str) -> Edit {
    Edit { key: key.into(), value: Some(value.into()) }
}

fn set(key: &str, value: &str) -> Change {
    change(Action::Keep, DataChange::Edits(vec![edit(key, value)]))
}

/// Returns what the browser sends back.
fn cookie(outcome: &Answer) -> String {
    let header = outcome.set_cookie.as_deref().expect("a Set-Cookie");
    header.split(';').next().unwrap().to_owned()
}

/// Returns the identifier in a cookie.
fn id_of(cookie: &str) -> String {
    let (_, value) = cookie.split_once("s%3A").expect("a cookie of ours");
    value.split('.').next().unwrap().to_owned()
}

#[test]
fn a_new_visitor_gets_a_cookie_with_the_first_data() {
    let world = World::new(|_| {});
    let outcome = world.visit(None, &set("viewCount", "1"));
    assert_eq!(outcome.event, Event::Created);
    assert_eq!(world.log(), "create");
    assert_eq!(
        world.only(),
        r#"{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"viewCount":1}"#
    );
    let header = outcome.set_cookie.unwrap();
    assert!(header.starts_with("connect.sid=s%3A"), "{header}");
    assert!(header.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{header}");
    assert!(outcome.no_store);
}

#[test]
fn nothing_is_stored_or_sent_without_data() {
    let world = World::new(|_| {});
    let outcome = world.visit(None, &nothing());
    assert_eq!((outcome.event, outcome.new_id, outcome.set_cookie), (Event::None, None, None));
    assert_eq!(world.log(), "");
}

#[test]
fn the_express_preset_stores_and_sends_at_once() {
    let world = World::with(Preset::Express, |_| {});
    let outcome = world.visit(None, &nothing());
    assert!(outcome.set_cookie.unwrap().ends_with("; Path=/; HttpOnly"));
    assert!(!outcome.no_store);
    assert_eq!(
        world.only(),
        r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}}"#
    );
}

#[test]
fn a_returning_visitor_is_touched_or_saved() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    world.now.set(START + 5000);
    assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::Touched);
    assert_eq!(world.log(), "load touch");
    assert_eq!(world.store.borrow().values().next().unwrap().expires, Some(START + 5000 + TTL));
    let outcome = world.visit(Some(&cookie), &set("a", "2"));
    assert_eq!((outcome.event, outcome.set_cookie), (Event::Saved, None));
    assert_eq!(world.log(), "load replace");
    assert!(world.only().ends_with(r#","a":2}"#));
}

#[test]
fn an_unchanged_value_is_no_change() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    assert_eq!(world.visit(Some(&cookie), &set("a", "1")).event, Event::Touched);
}

#[test]
fn resave_saves_what_did_not_change() {
    let world = World::new(|o| o.resave = true);
    let cookie = world.visitor();
    assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::Saved);
}

#[test]
fn touch_after_spares_the_store() {
    let world = World::new(|o| o.touch_after = Some(60));
    let cookie = world.visitor();
    world.now.set(START + 59_999);
    assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::None);
    assert_eq!(world.log(), "load");
    world.now.set(START + 60_000);
    assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::Touched);
}

#[test]
fn by_default_a_session_in_use_ends_early_by_no_more_than_a_tenth_of_its_lifetime() {
    for (max_age, pause) in [(None, 60_000), (Some(30_000.0), 3_000)] {
        let world = World::new(|o| (o.touch_after, o.cookie.max_age) = (None, max_age));
        let cookie = world.visitor();
        world.now.set(START + pause - 1);
        assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::None);
        assert_eq!(world.log(), "load");
        world.now.set(START + pause);
        assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::Touched);
    }
    // A cookie that is sent each time lives as long as the session.
    let world = World::new(|o| (o.touch_after, o.rolling) = (None, true));
    let cookie = world.visitor();
    let outcome = world.visit(Some(&cookie), &nothing());
    assert_eq!((outcome.event, self::cookie(&outcome)), (Event::Touched, cookie));
    let express = World::with(Preset::Express, |o| (o.touch_after, o.resave) = (None, false));
    let cookie = express.visitor();
    assert_eq!(express.visit(Some(&cookie), &nothing()).event, Event::Touched);
}

#[test]
fn a_cookie_is_not_sent_again_unless_the_session_is_known_to_be_there() {
    for (preset, is_sent) in [(Preset::Safe, false), (Preset::Express, true)] {
        let world = World::with(preset, |o| {
            (o.touch_after, o.rolling, o.resave) = (Some(60), true, false);
        });
        let cookie = world.visitor();
        // Another request may move the session meanwhile.
        let outcome = world.visit(Some(&cookie), &nothing());
        assert_eq!((outcome.event, outcome.set_cookie.is_some()), (Event::None, is_sent));
        world.now.set(START + 60_000);
        let outcome = world.visit(Some(&cookie), &nothing());
        assert_eq!((outcome.event, outcome.set_cookie.is_some()), (Event::Touched, true));
    }
}

#[test]
fn a_lifetime_is_sent_and_moves_with_every_save() {
    let world = World::new(|o| o.cookie.max_age = Some(60_000.0));
    let first = world.visit(None, &set("a", "1"));
    assert!(
        first
            .set_cookie
            .as_ref()
            .unwrap()
            .contains("; Expires=Tue, 01 Jan 2030 00:01:00 GMT; Max-Age=60; HttpOnly")
    );
    let cookie = cookie(&first);
    world.now.set(START + 30_000);
    let saved = world.visit(Some(&cookie), &set("a", "2"));
    let sent = saved.set_cookie.unwrap();
    assert!(sent.contains("; Expires=Tue, 01 Jan 2030 00:01:30 GMT; Max-Age=60;"), "{sent}");
    assert!(world.only().contains(r#""expires":"2030-01-01T00:01:30.000Z""#));
    world.now.set(START + 60_000);
    let touched = world.visit(Some(&cookie), &nothing());
    assert_eq!((touched.event, touched.set_cookie), (Event::Touched, None));
    world.now.set(START + 120_000);
    assert_eq!(world.open(Some(&cookie)).origin, Origin::Unknown);
}

#[test]
fn the_express_preset_sends_no_max_age() {
    let world = World::with(Preset::Express, |o| o.cookie.max_age = Some(60_000.0));
    let header = world.visit(None, &set("a", "1")).set_cookie.unwrap();
    assert!(header.ends_with("; Expires=Tue, 01 Jan 2030 00:01:00 GMT; HttpOnly"), "{header}");
}

#[test]
fn rolling_sends_the_cookie_each_time() {
    let world = World::new(|o| o.rolling = true);
    let cookie = world.visitor();
    let outcome = world.visit(Some(&cookie), &nothing());
    assert_eq!(self::cookie(&outcome), cookie);
}

#[test]
fn a_changed_lifetime_reaches_the_browser_and_the_store() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let session = world.open(Some(&cookie));
    let change = Change { cookie: vec![edit("maxAge", "1000")], ..nothing() };
    let outcome = world.close(session, &change);
    assert_eq!(outcome.event, Event::Saved);
    assert!(outcome.set_cookie.unwrap().contains("Expires=Tue, 01 Jan 2030 00:00:01 GMT"));
    assert!(world.only().contains(r#""originalMaxAge":1000,"#));
}

#[test]
fn a_changed_lifetime_alone_is_only_touched_under_the_express_preset() {
    let world = World::with(Preset::Express, |o| o.resave = false);
    let cookie = world.visitor();
    let session = world.open(Some(&cookie));
    let cookie = vec![edit("maxAge", "1000")];
    let outcome = world.close(session, &Change { cookie, ..nothing() });
    assert_eq!((outcome.event, outcome.set_cookie), (Event::Touched, None));
    assert_eq!(world.store.borrow().values().next().unwrap().expires, Some(START + 1000));
}

#[test]
fn settings_that_are_assigned_are_stored_and_sent() {
    let world = World::new(|_| {});
    let cookie =
        vec![edit("path", "\"/app\""), edit("domain", "\"a.example\""), edit("httpOnly", "false")];
    let outcome = world.visit(None, &Change { cookie, ..set("a", "1") });
    let header = outcome.set_cookie.unwrap();
    assert!(header.ends_with("; Domain=a.example; Path=/app; SameSite=Lax"), "{header}");
    assert!(world.only().contains(r#""httpOnly":false,"domain":"a.example","path":"/app","#));
}

#[test]
fn an_invalid_cookie_setting_is_refused() {
    let world = World::new(|_| {});
    for (key, value) in [
        ("path", r#""/\r\nX: y""#),
        ("domain", r#""a b""#),
        ("maxAge", "1e300"),
        ("expires", "\"soon\""),
        ("secure", "\"auto\""),
        ("sameSite", "\"auto\""),
        ("priority", "7"),
        ("path", "{"),
        ("color", "\"red\""),
    ] {
        let change = Change { cookie: vec![edit(key, value)], ..set("a", "1") };
        let outcome = world.close(world.open(None), &change);
        assert_eq!(outcome.failure, Some(FailureKind::InvalidChange));
        assert!(world.store.borrow().is_empty());
    }
}

#[test]
fn bad_cookies_never_reach_the_store() {
    let world = World::new(|_| {});
    let good = world.visitor();
    let big = format!("connect.sid=s%3A{}", "x".repeat(64 * 1024));
    world.log.borrow_mut().clear();
    for (cookie, origin) in [
        ("a=b", Origin::Absent),
        ("connect.sid=", Origin::Absent),
        ("connect.sid=abc", Origin::Malformed),
        ("connect.sid=s%3Aabc", Origin::Forged),
        (&good[..good.len() - 1], Origin::Forged),
        (&good.replace("s%3A", "s%3AX"), Origin::Forged),
        (&big, Origin::Oversized),
    ] {
        let session = world.open(Some(cookie));
        assert_eq!(session.origin, origin, "{cookie:.60}");
    }
    assert_eq!(world.log(), "");
}

#[test]
fn the_first_of_two_cookies_counts_under_the_express_preset() {
    let world = World::with(Preset::Express, |_| {});
    let good = cookie(&world.visit(None, &nothing()));
    let origin = |cookies: &str| world.open(Some(cookies)).origin;
    assert_eq!(origin(&format!("connect.sid=x; {good}")), Origin::Malformed);
    assert_eq!(origin(&format!("connect.sid=; {good}")), Origin::Absent);
    assert_eq!(origin(&format!("{good}; connect.sid=x")), Origin::Loaded);
    let ended = signed(&world, "ended");
    world.log.borrow_mut().clear();
    assert_eq!(origin(&format!("{ended}; {good}")), Origin::Unknown);
    assert_eq!(world.log(), "load");
}

/// Returns a validly signed cookie for the session `id`.
fn signed(world: &World, id: &str) -> String {
    format!("connect.sid=s:{}", world.engine.keys.sign(id))
}

#[test]
fn a_stale_cookie_does_not_hide_the_one_whose_session_is_there() {
    let world = World::new(|_| {});
    let good = world.visitor();
    let big = format!("connect.sid=s%3A{}", "x".repeat(5000));
    let [ended, expired, damaged] = ["ended", "expired", "damaged"].map(|id| signed(&world, id));
    let stored = |data: &str, expires| Stored { data: data.into(), expires, touched: None };
    let usual = world.only();
    world.store.borrow_mut().insert("damaged".into(), stored("{", None));
    let stale = [
        "connect.sid=",
        "connect.sid=abc",
        "connect.sid=s%3Aabc",
        &good.replace("s%3A", "s%3AX"),
        &big,
        &ended,
        &expired,
        &damaged,
    ];
    for first in stale {
        world.store.borrow_mut().insert("expired".into(), stored(&usual, Some(START)));
        for cookies in [format!("{first}; {good}"), format!("{first}; {first}; a=b; {good}")] {
            let open = world.open(Some(&cookies));
            assert_eq!(open.origin, Origin::Loaded, "{cookies:.60}");
            assert_eq!(open.data, r#"{"a":1}"#);
            assert_eq!(open.visit.state.text, None);
            let changed = world.close(open, &set("b", "2"));
            assert_eq!((changed.event, changed.set_cookie), (Event::Saved, None));
            world.visit(Some(&good), &change(Action::Keep, DataChange::Whole(r#"{"a":1}"#.into())));
        }
    }
    let renew = Change { action: Action::Renew, ..nothing() };
    let moved = world.visit(Some(&format!("{ended}; {good}")), &renew);
    let new = cookie(&moved);
    assert_eq!((moved.event, world.open(Some(&new)).origin), (Event::Moved, Origin::Loaded));
    let logout = change(Action::Destroy, DataChange::Nothing);
    let ended = world.visit(Some(&format!("{ended}; {new}")), &logout);
    assert_eq!(ended.event, Event::Destroyed);
    assert_eq!(world.open(Some(&new)).origin, Origin::Unknown);
}

#[test]
fn where_no_cookie_counts_the_first_says_why() {
    let world = World::new(|_| {});
    let [one, two] = ["one", "two"].map(|id| signed(&world, id));
    let damaged = Stored { data: "{".into(), expires: None, touched: None };
    world.store.borrow_mut().insert("two".into(), damaged);
    for (cookies, origin) in [
        ("connect.sid=; connect.sid=abc", Origin::Malformed),
        ("connect.sid=abc; connect.sid=s%3Aabc", Origin::Malformed),
        ("connect.sid=s%3Aabc; connect.sid=abc", Origin::Forged),
        (&format!("connect.sid=abc; {one}"), Origin::Unknown),
        (&format!("{one}; {two}"), Origin::Damaged),
        (&format!("{two}; {one}"), Origin::Damaged),
    ] {
        let open = world.open(Some(cookies));
        assert_eq!(open.origin, origin, "{cookies}");
        assert!(world.state(&open).presented && open.visit.state.text.is_none());
    }
    assert!(!world.state(&world.open(Some("connect.sid=; connect.sid="))).presented);
}

#[test]
fn no_more_cookies_and_sessions_are_looked_at_than_browsers_send() {
    let world = World::new(|_| {});
    let good = world.visitor();
    let origin = |count: usize, cookie: &dyn Fn(usize) -> String| {
        world.log.borrow_mut().clear();
        let mut cookies: Vec<_> = (0..count).map(cookie).collect();
        cookies.push(good.clone());
        let origin = world.open(Some(&cookies.join("; "))).origin;
        (origin, world.log())
    };
    let forged = |_| "connect.sid=s%3Aabc".to_owned();
    assert_eq!(origin(MAX_COOKIES - 1, &forged), (Origin::Loaded, "load".to_owned()));
    assert_eq!(origin(MAX_COOKIES, &forged), (Origin::Forged, String::new()));
    let ended = |n| signed(&world, &format!("ended-{n}"));
    assert_eq!(origin(MAX_LOADS - 1, &ended), (Origin::Loaded, "load load load".to_owned()));
    // The second half checks whether one of them has moved.
    assert_eq!(origin(MAX_LOADS, &ended), (Origin::Unknown, ["load"; 2 * MAX_LOADS].join(" ")));
    // A repeated identifier is looked up once.
    let same = |_| signed(&world, "ended");
    assert_eq!(origin(MAX_COOKIES - 1, &same), (Origin::Loaded, "load load".to_owned()));
}

#[test]
fn while_a_session_cannot_be_looked_for_no_other_counts() {
    let world = World::new(|_| {});
    let cookies = format!("{}; {}", signed(&world, "ended"), world.visitor());
    let Ok(Beginning::Load(second)) = world.engine.loaded(&world, world.begin(&cookies), Ok(None))
    else {
        panic!("no load")
    };
    let failure = world.engine.loaded(&world, second, Err("down".into())).expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Unavailable);
}

#[test]
fn a_signed_but_empty_identifier_is_none() {
    let world = World::new(|_| {});
    let signed = format!("connect.sid=s:{}", world.engine.keys.sign(""));
    assert_eq!(world.open(Some(&signed)).origin, Origin::Malformed);
}

#[test]
fn an_unknown_identifier_is_never_adopted() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    world.store.borrow_mut().clear();
    let session = world.open(Some(&cookie));
    assert_eq!(session.origin, Origin::Unknown);
    assert!(!cookie.contains(&session.visit.id));
}

#[test]
fn an_expired_session_is_unknown_even_if_the_store_returns_it() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let late = Stored { data: world.only(), expires: Some(START), touched: None };
    let visit = world.begin(&cookie);
    let Ok(Beginning::Load(note)) = world.engine.loaded(&world, visit, Ok(Some(&late))) else {
        panic!("no load")
    };
    let Ok(Beginning::Ready(session)) = world.engine.loaded(&world, note, Ok(None)) else {
        panic!("no session")
    };
    assert_eq!(session.origin, Origin::Unknown);
}

/// Returns a session with this many keys besides `a`, as another tool may store it.
fn with_keys(text: &str, count: usize) -> String {
    let keys: String = (0..count).map(|n| format!(r#","k{n}":0"#)).collect();
    format!("{}{keys}}}", text.strip_suffix('}').unwrap())
}

#[test]
fn a_stored_session_beyond_the_limits_is_damaged_and_left_alone() {
    let world = World::new(|o| o.max_session_bytes = 1 << 19);
    let cookie = world.visitor();
    let usual = world.only();
    let put = |text: &str| {
        world.store.borrow_mut().values_mut().next().unwrap().data = text.to_owned();
    };
    let sized = |bytes: usize| {
        let text = usual.strip_suffix('}').unwrap();
        let text = format!(r#"{text},"pad":""}}"#);
        let pad = "x".repeat(bytes - text.len());
        text.replace(r#""pad":"""#, &format!(r#""pad":"{pad}""#))
    };
    // Including `cookie` and `a`.
    let many = with_keys(&usual, MAX_MEMBERS - 2);
    for legal in [sized(1 << 19), many] {
        put(&legal);
        assert_eq!(world.open(Some(&cookie)).origin, Origin::Loaded);
    }
    for beyond in [sized((1 << 19) + 1), with_keys(&usual, MAX_MEMBERS - 1)] {
        put(&beyond);
        let open = world.open(Some(&cookie));
        assert_eq!(open.origin, Origin::Damaged);
        assert_eq!(open.data, "{}");
        assert_eq!(world.close(open, &set("a", "2")).event, Event::Created);
        let mut store = world.store.borrow_mut();
        assert_eq!(store.len(), 2);
        store.retain(|_, stored| stored.data == beyond);
        assert_eq!(store.len(), 1, "it was changed");
    }
}

#[test]
fn a_session_with_too_many_keys_is_not_stored() {
    let world = World::new(|_| {});
    let keys = |count: usize| {
        let edits = (0..count).map(|n| Edit { key: format!("k{n}"), value: Some("0".into()) });
        DataChange::Edits(edits.collect())
    };
    // `cookie` counts too.
    let full = world.visit(None, &change(Action::Keep, keys(MAX_MEMBERS - 1)));
    assert_eq!((full.event, &full.failure), (Event::Created, &None));
    let before = world.only();
    let outcome = world.visit(Some(&cookie(&full)), &set("one-more", "1"));
    assert_eq!(outcome.failure, Some(FailureKind::InvalidChange));
    assert!(outcome.reason.contains("10001 keys"), "{}", outcome.reason);
    assert_eq!(world.only(), before);
}

#[test]
fn a_change_is_not_merged_into_a_session_beyond_the_limits() {
    let world = World::new(|o| o.max_session_bytes = 1000);
    let cookie = world.visitor();
    let open = world.open(Some(&cookie));
    let text = with_keys(&world.only(), 1000);
    world.store.borrow_mut().values_mut().next().unwrap().data = text.clone();
    let outcome = world.close(open, &set("b", "2"));
    assert_eq!(outcome.failure, Some(FailureKind::Unavailable));
    assert_eq!(world.only(), text);
}

#[test]
fn a_damaged_document_is_left_alone() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    for text in
        ["", "null", "{}", "{\"cookie\":5}", "{\"cookie\":{\"originalMaxAge\":\"1h\"}}", "not json"]
    {
        for stored in world.store.borrow_mut().values_mut() {
            stored.data = text.into();
        }
        let session = world.open(Some(&cookie));
        assert_eq!(session.origin, Origin::Damaged, "{text}");
        let old = session.visit.id.clone();
        assert!(!cookie.contains(&old));
        world.close(session, &nothing());
        assert_eq!(world.only(), text);
    }
}

#[test]
fn paths_outside_the_cookies_path_have_no_session() {
    for preset in [Preset::Safe, Preset::Express] {
        let world = World::with(preset, |o| o.cookie.path = "/foo".into());
        let begin = |path: &str| {
            world.engine.begin(&world, &Request { path: path.into(), ..request(None) })
        };
        for outside in ["/", "", "/foobar", "/foo.js"] {
            assert!(matches!(begin(outside), Beginning::None), "{outside}");
        }
        for inside in ["/foo", "/foo/", "/foo/bar"] {
            assert!(matches!(begin(inside), Beginning::Ready(_)), "{inside}");
        }
        let everywhere = World::with(preset, |_| {});
        let begin =
            everywhere.engine.begin(&everywhere, &Request { path: "".into(), ..request(None) });
        assert!(matches!(begin, Beginning::Ready(_)), "an empty path is /");
    }
}

#[test]
fn a_request_is_secure_as_proxy_defines_it() {
    let secure = |proxy, tls, secure, proto: Option<&str>| {
        let world = World::new(|o| o.proxy = proxy);
        world.engine.is_secure(&Request {
            tls,
            secure,
            forwarded_proto: proto.map(|p| p.as_bytes().to_vec()),
            ..request(None)
        })
    };
    assert!(secure(Some(false), true, false, None));
    assert!(!secure(Some(false), false, true, Some("https")));
    assert!(secure(None, false, true, None));
    assert!(!secure(None, false, false, Some("https")));
    assert!(secure(Some(true), false, false, Some(" HTTPS , http")));
    assert!(!secure(Some(true), false, true, Some("http, https")));
    assert!(!secure(Some(true), false, true, None));
}

#[test]
fn a_secure_cookie_is_stored_but_withheld_from_insecure_requests() {
    let world = World::new(|o| o.cookie.secure = Some(Secure::Always));
    let outcome = world.visit(None, &set("a", "1"));
    assert_eq!((outcome.event, outcome.set_cookie), (Event::Created, None));
    assert!(world.only().contains(r#""secure":true"#));
}

#[test]
fn a_cookie_of_an_older_secret_is_accepted_and_not_signed_anew() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let mut options = world.engine.options.clone();
    options.secrets.insert(0, vec![b'n'; 32]);
    let world = World { engine: checked(options), ..world };
    let outcome = world.visit(Some(&cookie), &set("a", "2"));
    assert_eq!((outcome.event, outcome.set_cookie), (Event::Saved, None));
}

#[test]
fn destroying_deletes_the_session_and_clears_the_cookie() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let outcome = world.visit(Some(&cookie), &change(Action::Destroy, DataChange::Nothing));
    assert_eq!((outcome.event, outcome.new_id), (Event::Destroyed, None));
    assert_eq!(
        outcome.set_cookie.unwrap(),
        "connect.sid=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; \
         SameSite=Lax"
    );
    assert!(world.store.borrow().is_empty());
    assert!(outcome.no_store);
    let nobody = world.visit(None, &change(Action::Destroy, DataChange::Nothing));
    assert_eq!((nobody.event, nobody.set_cookie), (Event::None, None));
}

#[test]
fn the_express_preset_leaves_the_browsers_cookie_alone() {
    let world = World::with(Preset::Express, |_| {});
    let cookie = world.visitor();
    let outcome = world.visit(Some(&cookie), &change(Action::Destroy, DataChange::Nothing));
    assert_eq!((outcome.event, outcome.set_cookie), (Event::Destroyed, None));
}

#[test]
fn unsetting_follows_its_option() {
    let unset = change(Action::Unset, DataChange::Nothing);
    let world = World::new(|_| {});
    let cookie = world.visitor();
    assert_eq!(world.visit(Some(&cookie), &unset).event, Event::None);
    assert_eq!(world.log(), "load");
    let world = World::new(|o| o.unset = Unset::Destroy);
    let cookie = world.visitor();
    assert_eq!(world.visit(Some(&cookie), &unset).event, Event::Destroyed);
}

#[test]
fn renewing_moves_the_data_to_a_new_identifier() {
    let world = World::new(|_| {});
    let old = world.visitor();
    let renew = Change { action: Action::Renew, ..set("user", "\"ada\"") };
    let outcome = world.visit(Some(&old), &renew);
    assert_eq!(outcome.event, Event::Moved);
    assert_eq!(world.log(), "load create create delete");
    assert_ne!(cookie(&outcome), old);
    assert!(world.only().ends_with(r#","a":1,"user":"ada"}"#));
    assert_eq!(world.open(Some(&old)).origin, Origin::Unknown);
    assert_eq!(world.open(Some(&cookie(&outcome))).origin, Origin::Loaded);
}

/// Renews a session while another request is in progress. Returns that request, the old cookie and
/// the new one.
fn renewed_beside(world: &World) -> (Open, String, String) {
    let old = world.visitor();
    let beside = world.open(Some(&old));
    let login =
        world.visit(Some(&old), &Change { action: Action::Renew, ..set("user", "\"ada\"") });
    assert_eq!(login.event, Event::Moved);
    (beside, old, cookie(&login))
}

#[test]
fn a_change_beside_a_renewal_follows_the_session_and_is_told_no_cookie() {
    // Either option would send the cookie with every change.
    let world = World::new(|o| {
        o.rolling = true;
        o.cookie.max_age = Some(60_000.0);
    });
    let (beside, old, new) = renewed_beside(&world);
    world.log.borrow_mut().clear();
    let outcome = world.close(beside, &set("b", "2"));
    assert_eq!((outcome.event, &outcome.failure), (Event::Saved, &None));
    assert_eq!((outcome.set_cookie, outcome.new_id, outcome.no_store), (None, None, false));
    // The old session, the note, then the new session: once to read it and once to write it.
    assert_eq!(world.log(), "replace load load replace");
    assert_eq!(world.open(Some(&new)).data, r#"{"a":1,"user":"ada","b":2}"#);
    assert_ne!(world.open(Some(&old)).origin, Origin::Loaded);
}

#[test]
fn a_change_follows_a_session_that_has_moved_twice() {
    let world = World::new(|_| {});
    let (beside, _, new) = renewed_beside(&world);
    let renew = Change { action: Action::Renew, ..set("role", "\"admin\"") };
    let newest = cookie(&world.visit(Some(&new), &renew));
    let outcome = world.close(beside, &set("b", "2"));
    assert_eq!((outcome.event, outcome.failure), (Event::Saved, None));
    let data = world.open(Some(&newest)).data;
    assert_eq!(data, r#"{"a":1,"user":"ada","role":"admin","b":2}"#);
}

#[test]
fn whole_data_follows_by_what_it_changed() {
    let world = World::new(|_| {});
    let (beside, _, new) = renewed_beside(&world);
    let whole = change(Action::Keep, DataChange::Whole(r#"{"b":2}"#.into()));
    assert_eq!(world.close(beside, &whole).event, Event::Saved);
    assert_eq!(world.open(Some(&new)).data, r#"{"user":"ada","b":2}"#);
}

#[test]
fn what_changes_nothing_beside_a_renewal_does_not_follow() {
    let world = World::new(|_| {});
    let (beside, _, _) = renewed_beside(&world);
    let outcome = world.close(beside, &nothing());
    assert_eq!((outcome.event, outcome.failure, outcome.set_cookie), (Event::Gone, None, None));
}

#[test]
fn a_change_that_cannot_follow_fails() {
    let logout = change(Action::Destroy, DataChange::Nothing);
    let failure = Some(FailureKind::Contention);
    // The successor has ended.
    let world = World::new(|_| {});
    let (beside, _, new) = renewed_beside(&world);
    world.visit(Some(&new), &logout);
    let outcome = world.close(beside, &set("b", "2"));
    assert_eq!(
        (outcome.event, &outcome.failure, outcome.set_cookie),
        (Event::None, &failure, None)
    );
    // The old data was discarded.
    let world = World::new(|_| {});
    let old = world.visitor();
    let beside = world.open(Some(&old));
    let new = world.visit(Some(&old), &Change { action: Action::Regenerate, ..set("c", "3") });
    assert_eq!(world.close(beside, &set("b", "2")).failure, failure);
    assert_eq!(world.open(Some(&cookie(&new))).data, r#"{"c":3}"#);
    // Another login came first.
    let world = World::new(|_| {});
    let (beside, _, new) = renewed_beside(&world);
    let renew = Change { action: Action::Renew, ..set("user", "\"eve\"") };
    let outcome = world.close(beside, &renew);
    assert_eq!((&outcome.failure, outcome.set_cookie), (&failure, None));
    assert_eq!(world.open(Some(&new)).data, r#"{"a":1,"user":"ada"}"#);
    world.only();
    // The note is not readable.
    let world = World::new(|_| {});
    let (beside, old, new) = renewed_beside(&world);
    let place = moved::place(&world.engine.keys, &id_of(&old));
    world.store.borrow_mut().get_mut(&place).unwrap().data = r#"{"cookie":{}}"#.into();
    assert_eq!(world.close(beside, &set("b", "2")).failure, failure);
    assert_eq!(world.open(Some(&new)).data, r#"{"a":1,"user":"ada"}"#);
}

#[test]
fn a_logout_beside_a_renewal_ends_the_renewed_session() {
    for unset in [Unset::Keep, Unset::Destroy] {
        let world = World::new(|o| o.unset = unset);
        let (beside, _, new) = renewed_beside(&world);
        let action = if unset == Unset::Keep { Action::Destroy } else { Action::Unset };
        world.log.borrow_mut().clear();
        let outcome = world.close(beside, &change(action, DataChange::Nothing));
        assert_eq!((outcome.event, outcome.failure), (Event::Destroyed, None));
        assert!(outcome.set_cookie.unwrap().starts_with("connect.sid=;"));
        // The old session, the note (which stays), and the new session.
        assert_eq!(world.log(), "delete load delete");
        assert_eq!(world.store.borrow().len(), 1);
        assert_eq!(world.open(Some(&new)).origin, Origin::Unknown);
    }
    // If the successor is unknown, the logout did not end it.
    let world = World::new(|_| {});
    let old = world.visitor();
    let beside = world.open(Some(&old));
    world.visit(Some(&old), &Change { action: Action::Regenerate, ..set("c", "3") });
    let outcome = world.close(beside, &change(Action::Destroy, DataChange::Nothing));
    assert_eq!((outcome.failure, outcome.set_cookie), (Some(FailureKind::Contention), None));
    let (beside, _, new) = renewed_beside(&world);
    world.visit(Some(&new), &change(Action::Destroy, DataChange::Nothing));
    let outcome = world.close(beside, &change(Action::Destroy, DataChange::Nothing));
    assert_eq!((outcome.failure, outcome.set_cookie), (Some(FailureKind::Contention), None));
}

#[test]
fn of_two_logouts_at_once_both_are_done() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let logout = change(Action::Destroy, DataChange::Nothing);
    let (one, two) = (world.open(Some(&cookie)), world.open(Some(&cookie)));
    for open in [one, two] {
        let outcome = world.close(open, &logout);
        assert_eq!((outcome.event, outcome.failure), (Event::Destroyed, None));
        assert!(outcome.set_cookie.unwrap().starts_with("connect.sid=;"));
    }
}

#[test]
fn a_change_of_a_session_that_ended_does_not_fail() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let beside = world.open(Some(&cookie));
    world.visit(Some(&cookie), &change(Action::Destroy, DataChange::Nothing));
    let outcome = world.close(beside, &set("b", "2"));
    assert_eq!((outcome.event, outcome.failure), (Event::Gone, None));
    // A session that moved long ago counts as ended.
    let (beside, _, _) = renewed_beside(&world);
    world.now.set(START + moved::GRACE);
    let outcome = world.close(beside, &set("b", "2"));
    assert_eq!((outcome.event, outcome.failure), (Event::Gone, None));
}

#[test]
fn a_request_with_the_old_cookie_begins_no_other_session_after_a_renewal() {
    for action in [Action::Renew, Action::Regenerate] {
        for save_uninitialized in [false, true] {
            let world = World::new(|o| {
                o.save_uninitialized = save_uninitialized;
                o.unset = Unset::Destroy;
            });
            let old = world.visitor();
            world.visit(Some(&old), &Change { action, ..set("user", "\"ada\"") });
            let before = world.store.borrow().clone();
            let visit = |change: &Change| {
                let open = world.open(Some(&old));
                // No data of the session is revealed.
                assert_eq!((open.origin, &*open.data), (Origin::Unknown, "{}"));
                assert!(!before.contains_key(&open.visit.id));
                let outcome = world.close(open, change);
                assert_eq!((outcome.event, outcome.set_cookie), (Event::None, None));
                outcome.failure
            };
            let whole = |text: &str| change(Action::Keep, DataChange::Whole(text.into()));
            assert_eq!(visit(&nothing()), None);
            assert_eq!(visit(&whole("{}")), None);
            let lifetime = Change { cookie: vec![edit("maxAge", "1000")], ..nothing() };
            let ends = [Action::Destroy, Action::Unset].map(|it| change(it, DataChange::Nothing));
            for late in [set("b", "2"), whole(r#"{"b":2}"#), lifetime].iter().chain(&ends) {
                assert_eq!(visit(late), Some(FailureKind::Contention), "{late:?}");
            }
            assert_eq!(visit(&whole("5")), Some(FailureKind::InvalidChange));
            assert_eq!(*world.store.borrow(), before);

            // A new login is intended, and is independent of the moved session.
            let login = Change { action: Action::Renew, ..set("user", "\"eve\"") };
            let login = world.visit(Some(&old), &login);
            assert_eq!((login.event, &login.failure), (Event::Created, &None));
            assert_eq!(world.open(Some(&cookie(&login))).data, r#"{"user":"eve"}"#);

            world.now.set(START + moved::GRACE);
            let later = world.visit(Some(&old), &set("b", "2"));
            assert_eq!((later.event, &later.failure), (Event::Created, &None));
            assert!(later.set_cookie.is_some());
        }
    }
}

#[test]
fn unsetting_in_place_of_a_moved_session_keeps_to_its_option() {
    let world = World::new(|_| {});
    let (_, old, _) = renewed_beside(&world);
    let outcome = world.visit(Some(&old), &change(Action::Unset, DataChange::Nothing));
    assert_eq!((outcome.event, outcome.failure, outcome.set_cookie), (Event::None, None, None));
}

#[test]
fn of_several_cookies_one_whose_session_moved_does_not_hide_the_new_one() {
    let world = World::new(|_| {});
    let (_, old, new) = renewed_beside(&world);
    assert_eq!(world.open(Some(&format!("{old}; {new}"))).origin, Origin::Loaded);
    // Its position among cookies of ended sessions does not matter.
    let [one, two] = ["one", "two"].map(|id| signed(&world, id));
    for cookies in [[&old, &one, &two], [&one, &old, &two], [&one, &two, &old]] {
        let cookies = cookies.map(String::as_str).join("; ");
        let outcome = world.visit(Some(&cookies), &set("b", "2"));
        assert_eq!(outcome.failure, Some(FailureKind::Contention), "{cookies}");
    }
    let none = world.visit(Some(&format!("{one}; {two}")), &set("b", "2"));
    assert_eq!(none.event, Event::Created);
}

#[test]
fn a_note_is_nobodys_session_and_says_nothing() {
    let world = World::new(|_| {});
    let (_, old, new) = renewed_beside(&world);
    let note = world.note_about(&old).expect("a note");
    assert!(!note.contains(&id_of(&new)) && !note.contains(&id_of(&old)) && !note.contains("ada"));
    let place = moved::place(&world.engine.keys, &id_of(&old));
    assert_eq!(world.store.borrow()[&place].expires, Some(START + moved::GRACE));
    // Even if the secret signs its identifier, a note is a session without data.
    assert_eq!(world.open(Some(&signed(&world, &place))).origin, Origin::Loaded);
    world.now.set(START + moved::GRACE);
    world.visit(None, &nothing());
    assert_eq!(world.open(Some(&signed(&world, &place))).origin, Origin::Unknown);
}

#[test]
fn moves_are_noted_where_changes_merge_and_nobody_expects_express_session() {
    type Spoil = fn(&mut Options);
    let cases: [(Preset, Spoil); 3] = [
        (Preset::Express, |_| {}),
        (Preset::Express, |o| o.conflicts = Conflicts::Merge),
        (Preset::Safe, |o| o.conflicts = Conflicts::Overwrite),
    ];
    for (preset, configure) in cases {
        let world = World::with(preset, configure);
        let old = world.visitor();
        let beside = [(); 3].map(|()| world.open(Some(&old)));
        let renew = Change { action: Action::Renew, ..set("user", "\"ada\"") };
        world.visit(Some(&old), &renew);
        assert_eq!(world.log(), "load create delete");
        assert_eq!(world.note_about(&old), None);
        world.log.borrow_mut().clear();
        world.open(Some(&old));
        assert_eq!(world.log(), "load");
        // A change that finds nothing does not look for a note either.
        let late = [change(Action::Destroy, DataChange::Nothing), set("b", "2"), renew];
        for (open, late) in beside.into_iter().zip(late) {
            world.log.borrow_mut().clear();
            let outcome = world.close(open, &late);
            assert_eq!(outcome.failure, None);
            let asked = match late.action {
                Action::Destroy => "delete",
                Action::Keep => "replace",
                // If changes merge, the request's own successor is deleted.
                _ if outcome.event == Event::Gone => "create delete delete",
                _ => "create delete",
            };
            assert_eq!(world.log(), asked, "{late:?}");
        }
    }
}

#[test]
fn a_store_that_fails_in_the_midst_of_following_fails_the_request() {
    for anonymous in [false, true] {
        let world = World::new(|o| {
            if anonymous {
                o.on_store_error = OnStoreError::Anonymous;
            }
        });
        let down = || Obstacle::Unavailable("down".into());
        // The store fails at each of the four operations of a following change in turn.
        for at in 0..4 {
            let (beside, _, _) = renewed_beside(&world);
            let mut run = world.finish(beside, &set("b", "2"));
            for _ in 0..at {
                run.perform();
            }
            run.meet(down());
            let outcome = run.end();
            let failure = (outcome.failure, &*outcome.reason);
            assert_eq!(failure, (Some(FailureKind::Unavailable), "down"), "{at}");
        }
        // At the beginning of a request, it is like a failure to load the session itself.
        let (_, old, _) = renewed_beside(&world);
        let Ok(Beginning::Load(note)) = world.engine.loaded(&world, world.begin(&old), Ok(None))
        else {
            panic!("no load")
        };
        match world.engine.loaded(&world, note, Err("down".into())) {
            Ok(Beginning::Ready(session)) if anonymous => {
                assert_eq!(session.origin, Origin::Detached);
                let open = world.opened(session, None);
                assert_eq!(world.state(&open).phase, Phase::Open);
            }
            Err(failure) if !anonymous => assert_eq!(failure.kind, FailureKind::Unavailable),
            other => panic!("{other:?}"),
        }
        // A renewal whose note cannot be stored fails.
        let cookie = world.visitor();
        let renew = change(Action::Renew, DataChange::Nothing);
        let mut run = world.finish(world.open(Some(&cookie)), &renew);
        run.perform();
        run.meet(down());
        let outcome = run.end();
        assert_eq!(outcome.failure, Some(FailureKind::Unavailable));
        assert_eq!(world.open(Some(&cookie)).origin, Origin::Loaded);
    }
}

#[test]
fn notes_that_lead_from_one_to_the_next_without_end_end() {
    let world = World::new(|_| {});
    let (beside, _, _) = renewed_beside(&world);
    let mut run = world.finish(beside, &set("b", "2"));
    let mut rounds = 0;
    while run.next().is_some() {
        rounds += 1;
        let visit = &run.plan.as_ref().unwrap().visit;
        let state = State::read(world.engine.fingerprint, &visit.state).unwrap();
        run.meet(match (state.phase, &visit.state.text) {
            (Phase::Tracing, Some(old)) => {
                let (options, new) = (&world.engine.options.cookie, identifier::of([rounds; 24]));
                let data = moved::note(&world.engine.keys, old, Some(&new), options, START);
                Obstacle::Conflict(Stored { data, expires: None, touched: None })
            }
            _ => Obstacle::Missing,
        });
    }
    assert_eq!(run.end().failure, Some(FailureKind::Contention));
    assert_eq!(rounds, 2 * (MAX_CONFLICTS + 1));
}

/// Found by the simulator: the successor stayed alive, with all its data.
#[test]
fn a_session_that_another_request_renews_is_not_regenerated_beside_it() {
    let world = World::new(|_| {});
    let (beside, _, new) = renewed_beside(&world);
    let outcome = world.close(beside, &Change { action: Action::Regenerate, ..set("c", "3") });
    assert_eq!((outcome.failure, outcome.set_cookie), (Some(FailureKind::Contention), None));
    assert_eq!(world.open(Some(&new)).data, r#"{"a":1,"user":"ada"}"#);
    world.only();
}

#[test]
fn a_renewal_that_comes_too_late_does_not_hide_where_the_session_is() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let [first, late, beside] = [(); 3].map(|()| world.open(Some(&cookie)));
    let renew = change(Action::Renew, DataChange::Nothing);
    let new = self::cookie(&world.close(first, &renew));
    assert_eq!(world.close(late, &renew).failure, Some(FailureKind::Contention));
    assert_eq!(world.close(beside, &set("b", "2")).event, Event::Saved);
    assert_eq!(world.open(Some(&new)).data, r#"{"a":1,"b":2}"#);
}

#[test]
fn regenerating_begins_an_empty_session() {
    let world = World::new(|_| {});
    let old = world.visitor();
    let outcome = world.visit(Some(&old), &Change { action: Action::Regenerate, ..set("b", "2") });
    assert_eq!(outcome.event, Event::Moved);
    assert!(world.only().ends_with(r#""sameSite":"lax"},"b":2}"#));
    assert_ne!(cookie(&outcome), old);
}

#[test]
fn regenerating_without_data_still_sends_the_new_identifier() {
    let world = World::new(|_| {});
    let old = world.visitor();
    let outcome = world.visit(Some(&old), &change(Action::Regenerate, DataChange::Nothing));
    assert_eq!(outcome.event, Event::Moved);
    assert!(outcome.set_cookie.is_some());
}

#[test]
fn parallel_changes_are_merged_by_key() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let (first, second) = (world.open(Some(&cookie)), world.open(Some(&cookie)));
    world.close(first, &set("b", "2"));
    let outcome = world.close(second, &set("c", "3"));
    assert_eq!((outcome.event, outcome.conflicts), (Event::Saved, 1));
    assert!(world.only().ends_with(r#","a":1,"b":2,"c":3}"#));
}

#[test]
fn whole_data_merges_by_what_it_changed() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let (first, second) = (world.open(Some(&cookie)), world.open(Some(&cookie)));
    let whole = |text: &str| change(Action::Keep, DataChange::Whole(text.into()));
    world.close(first, &whole(r#"{"a":1,"b":2}"#));
    world.close(second, &whole(r#"{"c":3}"#));
    assert!(world.only().ends_with(r#","b":2,"c":3}"#), "{}", world.only());
    assert!(!world.only().contains(r#""a""#));
}

#[test]
fn overwriting_loses_the_other_change_as_express_does() {
    let world = World::new(|o| o.conflicts = Conflicts::Overwrite);
    let cookie = world.visitor();
    let (first, second) = (world.open(Some(&cookie)), world.open(Some(&cookie)));
    world.close(first, &set("b", "2"));
    world.close(second, &set("c", "3"));
    assert!(world.only().ends_with(r#","a":1,"c":3}"#));
}

#[test]
fn a_late_save_or_touch_does_not_bring_a_session_back() {
    for late in [set("b", "2"), nothing(), Change { action: Action::Renew, ..set("b", "2") }] {
        let world = World::new(|_| {});
        let cookie = world.visitor();
        let (first, second) = (world.open(Some(&cookie)), world.open(Some(&cookie)));
        world.close(first, &change(Action::Destroy, DataChange::Nothing));
        let outcome = world.close(second, &late);
        // A login that was not stored fails.
        let (event, failure) = match late.action {
            Action::Keep => (Event::Gone, None),
            _ => (Event::None, Some(FailureKind::Contention)),
        };
        assert_eq!((outcome.event, outcome.new_id, outcome.failure), (event, None, failure));
        world.store.borrow_mut().retain(|_, it| !it.data.contains("movedTo"));
        assert!(world.store.borrow().is_empty());
        // The browser may have received a new cookie in the meantime.
        assert_eq!(outcome.set_cookie, None);
    }
}

#[test]
fn a_change_that_races_a_renewal_moves_along() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let renew = Change { action: Action::Renew, ..set("user", "\"ada\"") };
    // The renewal has created the successor and is about to delete the old session …
    let mut run = world.finish(world.open(Some(&cookie)), &renew);
    run.perform();
    run.perform();
    // … when another request changes it.
    world.visit(Some(&cookie), &set("b", "2"));
    let outcome = run.end();
    assert_eq!((outcome.event, outcome.conflicts), (Event::Moved, 1));
    assert!(world.only().ends_with(r#","a":1,"b":2,"user":"ada"}"#), "{}", world.only());
}

#[test]
fn a_taken_identifier_is_not_overwritten() {
    let world = World::new(|_| {});
    let session = world.open(None);
    let taken = Stored { data: "other".into(), expires: None, touched: None };
    world.store.borrow_mut().insert(session.visit.id.clone(), taken.clone());
    let id = session.visit.id.clone();
    let outcome = world.close(session, &set("a", "1"));
    assert_eq!(outcome.event, Event::Created);
    let new_id = outcome.new_id.expect("another identifier");
    assert_ne!(new_id, id);
    assert_eq!(world.store.borrow()[&id], taken);
    assert!(outcome.set_cookie.unwrap().contains(&new_id));
}

#[test]
fn a_taken_identifier_of_a_renewal_is_replaced() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let renew = change(Action::Renew, DataChange::Nothing);
    let mut run = world.finish(world.open(Some(&cookie)), &renew);
    let first = run.next().unwrap().id.clone();
    run.meet(Obstacle::Taken);
    let second = run.next().unwrap().id.clone();
    assert_ne!(first, second);
    let outcome = run.end();
    assert_eq!((outcome.event, outcome.new_id), (Event::Moved, Some(second)));

    // Once it is stored, this request's own writes are not in its way.
    let mut run = world.finish(world.open(Some(&world.visitor())), &renew);
    run.perform();
    run.perform();
    let data = format!("{}}}", r#"{"cookie":{"originalMaxAge":null,"path":"/"},"x":1"#);
    run.meet(Obstacle::Conflict(Stored { data, expires: None, touched: None }));
    assert!(matches!(run.next().unwrap().operation, Operation::Replace(_)));
    for at in [0, 1] {
        let visit = run.plan.as_ref().expect("a plan").visit.clone();
        let stored = run.stored.as_ref();
        let taken = world.engine.resume(&world, visit, stored, &renew, at, Obstacle::Taken);
        assert_eq!(taken.unwrap_err().kind, FailureKind::Misuse, "{at}");
    }
}

#[test]
fn a_regenerated_session_whose_predecessor_is_gone_is_kept() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let regenerate = Change { action: Action::Regenerate, ..set("b", "2") };
    let mut run = world.finish(world.open(Some(&cookie)), &regenerate);
    let new = run.next().unwrap().id.clone();
    run.perform();
    run.perform();
    run.meet(Obstacle::Missing);
    let outcome = run.end();
    assert_eq!((outcome.event, &outcome.new_id), (Event::Moved, &Some(new)));
    assert_eq!(world.open(Some(&self::cookie(&outcome))).data, r#"{"b":2}"#);
}

#[test]
fn without_notes_a_renewal_of_an_ended_session_is_gone() {
    let world = World::with(Preset::Express, |o| o.conflicts = Conflicts::Merge);
    let cookie = world.visitor();
    let renew = change(Action::Renew, DataChange::Nothing);
    for found in [true, false] {
        let mut run = world.finish(world.open(Some(&cookie)), &renew);
        run.perform();
        run.meet(Obstacle::Missing);
        assert!(matches!(run.next().unwrap().operation, Operation::Delete));
        if found {
            run.perform()
        } else {
            run.meet(Obstacle::Missing)
        }
        let outcome = run.end();
        assert_eq!((outcome.event, outcome.failure), (Event::Gone, None), "{found}");
    }
}

#[test]
fn a_session_that_begins_over_tls_has_a_secure_cookie() {
    let world = World::new(|_| {});
    for (tls, is_secure) in [(true, true), (false, false)] {
        let request = Request {
            cookies: Vec::new(),
            path: "/".into(),
            tls,
            secure: false,
            forwarded_proto: None,
        };
        let Beginning::Ready(session) = world.engine.begin(&world, &request) else {
            panic!("no session")
        };
        let outcome = world.close(world.opened(session, None), &set("a", "1"));
        let cookie = outcome.set_cookie.expect("a cookie");
        assert_eq!(cookie.contains("; Secure"), is_secure, "{cookie}");
    }
}

#[test]
fn the_options_in_force_are_told() {
    let world = World::new(|o| o.ttl = 5);
    let ttl = Setting { name: "store.ttl".into(), value: wit::Value::Json("5".into()) };
    assert!(world.engine.in_force().contains(&ttl));
}

#[test]
fn endless_conflicts_end() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let mut run = world.finish(world.open(Some(&cookie)), &set("a", "2"));
    let mut rounds = 0;
    while run.next().is_some() {
        rounds += 1;
        let data = format!(r#"{{"cookie":{{}},"n":{rounds}}}"#);
        run.meet(Obstacle::Conflict(Stored { data, expires: None, touched: None }));
    }
    assert_eq!(run.end().failure, Some(FailureKind::Contention));
    assert_eq!(rounds, MAX_CONFLICTS + 1);
}

#[test]
fn a_store_that_is_down_denies_or_detaches() {
    let down = || Obstacle::Unavailable("down".into());
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let failure = world.engine.loaded(&world, world.begin(&cookie), Err("down".into()));
    let failure = failure.expect_err("a failure");
    assert_eq!((failure.kind, failure.status), (FailureKind::Unavailable, 503));
    let mut run = world.finish(world.open(Some(&cookie)), &set("a", "2"));
    run.meet(down());
    assert_eq!(run.end().failure, Some(FailureKind::Unavailable));

    let world = World::new(|o| o.on_store_error = OnStoreError::Anonymous);
    let Ok(Beginning::Ready(session)) =
        world.engine.loaded(&world, world.begin(&cookie), Err("down".into()))
    else {
        panic!("no session")
    };
    assert_eq!(session.origin, Origin::Detached);
    let outcome = world.close(world.opened(session, None), &set("a", "1"));
    assert_eq!((outcome.event, outcome.set_cookie, outcome.failure), (Event::None, None, None));
    assert_eq!(world.log(), "");

    // A session that was never stored is not missed.
    for conflicts in [Conflicts::Merge, Conflicts::Overwrite] {
        let world = World::new(|o| {
            o.on_store_error = OnStoreError::Anonymous;
            o.conflicts = conflicts;
        });
        let mut run = world.finish(world.open(None), &set("a", "1"));
        run.meet(down());
        let outcome = run.end();
        assert_eq!((outcome.event, outcome.set_cookie, outcome.failure), (Event::None, None, None));
    }

    // A change to a stored session is not dropped silently.
    let cookie = world.visitor();
    for action in [Action::Keep, Action::Destroy] {
        let change = Change { action, ..set("a", "2") };
        let mut run = world.finish(world.open(Some(&cookie)), &change);
        run.meet(down());
        assert_eq!(run.end().failure, Some(FailureKind::Unavailable));
    }
}

#[test]
fn a_read_does_not_fail_because_its_touch_could_not_be_written() {
    for (preset, failure) in
        [(Preset::Safe, None), (Preset::Express, Some(FailureKind::Unavailable))]
    {
        let world = World::with(preset, |o| o.resave = false);
        let cookie = world.visitor();
        for why in [Obstacle::Unavailable("full".into()), Obstacle::Refused("no".into())] {
            let mut run = world.finish(world.open(Some(&cookie)), &nothing());
            assert!(matches!(run.next().unwrap().operation, Operation::Touch(_)));
            run.meet(why);
            let outcome = run.end();
            assert_eq!((outcome.event, outcome.failure), (Event::None, failure));
        }
    }
}

#[test]
fn a_moved_session_whose_predecessor_cannot_be_deleted_is_not_lost() {
    let world = World::new(|_| {});
    let renew = Change { action: Action::Renew, ..set("b", "2") };
    let mut run = world.finish(world.open(Some(&world.visitor())), &renew);
    run.perform();
    run.perform();
    run.meet(Obstacle::Unavailable("down".into()));
    let outcome = run.end();
    assert_eq!((outcome.event, &outcome.failure), (Event::Moved, &None));
    assert_eq!(world.open(Some(&cookie(&outcome))).data, r#"{"a":1,"b":2}"#);
}

#[test]
fn a_text_that_the_store_can_never_keep_is_the_applications_mistake() {
    let world = World::new(|_| {});
    let mut run = world.finish(world.open(None), &set("a", "2"));
    run.meet(Obstacle::Refused("no".into()));
    let outcome = run.end();
    let failure = (outcome.failure, &*outcome.reason);
    assert_eq!(failure, (Some(FailureKind::InvalidChange), "no"));
}

#[test]
fn a_gateway_that_breaks_the_contract_is_refused() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let before = world.only();
    let misuse = |result: Result<Plan, Failure>, why: &str| {
        let failure = result.expect_err("a failure");
        assert_eq!((failure.kind, failure.status), (FailureKind::Misuse, 500));
        assert!(failure.reason.contains(why), "{}", failure.reason);
    };
    let other = World::new(|o| o.ttl = 5);
    let change = set("a", "2");
    let open = || world.open(Some(&cookie));
    let current = || Stored { data: world.only(), expires: None, touched: None };

    // A state of other options, an altered one, and one of another step.
    let Open { session, stored, .. } = open();
    let (visit, stored) = (session.visit, stored.as_ref());
    misuse(other.engine.finish(&other, visit.clone(), stored, &change), "other options");
    let state = wit::State { bits: visit.state.bits ^ 0xf, text: None };
    let altered = Visit { state, ..visit.clone() };
    misuse(world.engine.finish(&world, altered, stored, &change), "altered");
    misuse(world.engine.finish(&world, world.begin(&cookie), stored, &change), "not ready");
    misuse(world.engine.finish(&world, visit.clone(), None, &change), "not passed on");
    let missing = Obstacle::Missing;
    misuse(world.engine.resume(&world, visit.clone(), stored, &change, 0, missing), "0 writes");
    let failure = world.engine.loaded(&world, visit, Ok(None)).expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Misuse);

    // A write that the plan does not have, and obstacles that cannot be.
    for change in [change.clone(), nothing(), self::change(Action::Renew, DataChange::Nothing)] {
        let mut run = world.finish(open(), &change);
        run.at = 3;
        run.meet(Obstacle::Missing);
        misuse(run.plan, "and none at 3");
    }
    let mut run = world.finish(open(), &change);
    run.meet(Obstacle::Taken);
    misuse(run.plan, "`taken` cannot be an obstacle to a replace");
    let mut run = world.finish(open(), &nothing());
    run.meet(Obstacle::Conflict(current()));
    misuse(run.plan, "`conflict` cannot be an obstacle to a touch");
    let mut run = world.finish(open(), &nothing());
    run.meet(Obstacle::Taken);
    misuse(run.plan, "`taken` cannot be an obstacle to a touch");
    let renew = self::change(Action::Renew, DataChange::Nothing);
    let mut run = world.finish(open(), &renew);
    run.meet(Obstacle::Missing);
    misuse(run.plan, "`missing` cannot be an obstacle to");
    let mut run = world.finish(open(), &renew);
    run.meet(Obstacle::Refused("no".into()));
    assert_eq!(run.plan.unwrap_err().kind, FailureKind::InvalidChange);
    // An unconditional write meets no such obstacle.
    let overwriting = World::with(Preset::Express, |_| {});
    let visitor = overwriting.visitor();
    for obstacle in [Obstacle::Missing, Obstacle::Conflict(current())] {
        let mut run = overwriting.finish(overwriting.open(Some(&visitor)), &change);
        run.meet(obstacle);
        misuse(run.plan, "cannot be an obstacle to a replace");
    }
    for (action, at) in [(Action::Destroy, 0), (Action::Renew, 2)] {
        let mut run = world.finish(open(), &self::change(action, DataChange::Nothing));
        run.at = at;
        run.meet(Obstacle::Refused("no".into()));
        misuse(run.plan, "`refused` cannot be an obstacle to");
    }
    // A renewal that finds another's note deletes its successor only, and then looks at the old
    // session: two writes, not three.
    let renew = self::change(Action::Renew, DataChange::Nothing);
    let mut run = world.finish(open(), &renew);
    run.at = 1;
    run.meet(Obstacle::Taken);
    assert_eq!(run.plan.as_ref().map_or(0, |plan| plan.writes.len()), 2);
    run.at = 2;
    run.meet(Obstacle::Missing);
    misuse(run.plan, "and none at 2");
    // A gateway's own identifier that is empty, and a list of cookies longer than any.
    let Session { visit, .. } = world.open(None).session;
    let nameless = Visit { id: String::new(), ..visit };
    misuse(world.engine.finish(&world, nameless, None, &change), "is empty");
    let mut visit = world.begin(&cookie);
    visit.state.text = Some(serde_json::Value::from(vec!["x"; MAX_LOADS + 1]).to_string());
    let failure = world.engine.loaded(&world, visit, Ok(None)).expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Misuse);
    for action in [Action::Destroy, Action::Regenerate] {
        let mut run = world.finish(open(), &self::change(action, DataChange::Nothing));
        run.at = if action == Action::Destroy { 0 } else { 2 };
        run.meet(Obstacle::Conflict(current()));
        misuse(run.plan, "`conflict` cannot be an obstacle to");
    }
    assert_eq!(world.only(), before);
}

#[test]
fn a_session_above_the_cap_is_not_stored() {
    let world = World::new(|o| o.max_session_bytes = 200);
    let big = format!("\"{}\"", "x".repeat(200));
    let outcome = world.visit(None, &set("a", &big));
    assert_eq!(outcome.failure, Some(FailureKind::TooLarge));
    let size = outcome.reason.split(' ').find_map(|word| word.parse::<u32>().ok()).expect("a size");
    assert!(size > 200);
    assert!(world.store.borrow().is_empty());
    for (cap, event) in [(size, Event::Created), (size - 1, Event::None)] {
        let world = World::new(|o| o.max_session_bytes = cap);
        assert_eq!(world.visit(None, &set("a", &big)).event, event);
    }
}

#[test]
fn only_a_new_identifier_is_told() {
    let world = World::new(|_| {});
    let created = world.visit(None, &set("a", "1"));
    let cookie = cookie(&created);
    let saved = world.visit(Some(&cookie), &set("a", "2"));
    assert_eq!((created.new_id, saved.event, saved.new_id), (None, Event::Saved, None));
    let renew = Change { action: Action::Renew, ..nothing() };
    let id = world.visit(Some(&cookie), &renew).new_id.expect("a new identifier");
    assert!(world.store.borrow().contains_key(&id));
}

#[test]
fn an_old_session_is_deleted_whatever_it_holds_unless_its_data_moves_along() {
    let regenerate = Change { action: Action::Regenerate, ..set("b", "2") };
    let renew = Change { action: Action::Renew, ..set("b", "2") };
    for (conflicts, change) in [(Conflicts::Merge, regenerate), (Conflicts::Overwrite, renew)] {
        let world = World::new(|o| o.conflicts = conflicts);
        let cookie = world.visitor();
        let open = world.open(Some(&cookie));
        world.visit(Some(&cookie), &set("c", "3"));
        let outcome = world.close(open, &change);
        assert_eq!((outcome.event, outcome.conflicts), (Event::Moved, 0));
        assert!(!world.only().contains("\"c\""), "{}", world.only());
    }
}

/// A request of a generated history: what it does.
#[derive(Clone, Debug)]
enum Deed {
    Set(u8, u8),
    Nothing,
    Renew,
    Destroy,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..4u8, any::<u8>()).prop_map(|(key, value)| Deed::Set(key, value)),
        2 => Just(Deed::Nothing),
        1 => Just(Deed::Renew),
        1 => Just(Deed::Destroy),
    ]
}

impl Deed {
    fn change(&self) -> Change {
        match self {
            Deed::Set(key, value) => set(&format!("k{key}"), &value.to_string()),
            Deed::Nothing => nothing(),
            Deed::Renew => change(Action::Renew, DataChange::Nothing),
            Deed::Destroy => change(Action::Destroy, DataChange::Nothing),
        }
    }
}

proptest! {
    /// All requests begin, then finish in turn. The result is the same as if each had run alone, in
    /// the order of finishing, or the request failed without effect. The cookie of a moved session
    /// is never sent again.
    #[test]
    fn overlapping_requests_are_serialisable(deeds in proptest::collection::vec(deed(), 1..8), rolling: bool) {
        let world = World::new(|o| o.rolling = rolling);
        let first = world.visitor();
        let mut browser = first.clone();
        let open: Vec<_> = deeds.iter().map(|_| world.open(Some(&browser))).collect();
        let mut model = Some(serde_json::json!({"a": 1}));
        let mut moved = false;
        for (deed, session) in deeds.iter().zip(open) {
            let outcome = world.close(session, &deed.change());
            if moved {
                let is_removal = |it: &String| it.starts_with("connect.sid=;");
                prop_assert!(outcome.set_cookie.as_ref().is_none_or(is_removal));
            }
            match (deed, &mut model) {
                (Deed::Renew, Some(_)) if !moved => {
                    prop_assert_eq!(outcome.event, Event::Moved);
                    moved = true;
                    browser = cookie(&outcome);
                }
                // Of several renewals, the first wins.
                (Deed::Renew, _) => {
                    prop_assert_eq!(outcome.failure, Some(FailureKind::Contention));
                }
                (Deed::Set(key, value), Some(model)) => {
                    prop_assert_eq!(outcome.event, Event::Saved);
                    model[format!("k{key}")] = (*value).into();
                }
                (Deed::Set(..), None) if moved => {
                    prop_assert_eq!(outcome.failure, Some(FailureKind::Contention));
                }
                (Deed::Set(..), None) => prop_assert_eq!(outcome.event, Event::Gone),
                (Deed::Destroy, Some(_)) => {
                    prop_assert_eq!(outcome.event, Event::Destroyed);
                    model = None;
                }
                (Deed::Destroy, None) if moved => {
                    prop_assert_eq!(outcome.failure, Some(FailureKind::Contention));
                }
                _ => prop_assert_eq!(outcome.failure, None),
            }
        }
        let end = world.open(Some(&browser));
        match model {
            None => prop_assert_eq!(end.origin, Origin::Unknown),
            Some(model) => {
                let data: serde_json::Value = serde_json::from_str(&end.data).unwrap();
                prop_assert_eq!(data, model);
            }
        }
    }

    /// Of any cookies in any order, the first one whose session exists is used, within the limits.
    #[test]
    fn the_first_cookie_counts_whose_session_is_there(kinds in proptest::collection::vec(0..5usize, 0..12)) {
        let world = World::new(|_| {});
        let visitors = [world.visitor(), world.visitor()];
        let cookie = |(n, kind): (usize, &usize)| match kind {
            0 | 1 => visitors[*kind].clone(),
            2 => signed(&world, &format!("ended-{n}")),
            3 => "connect.sid=s%3Aabc.def".to_owned(),
            _ => "connect.sid=".to_owned(),
        };
        let cookies: Vec<_> = kinds.iter().enumerate().map(cookie).collect();
        let open = world.open(Some(&cookies.join("; ")));
        let mut ours = Vec::new();
        for (n, kind) in kinds.iter().enumerate().take(MAX_COOKIES).filter(|(_, kind)| **kind < 3) {
            let id = if *kind < 2 { *kind } else { 10 + n };
            if !ours.contains(&id) {
                ours.push(id);
            }
        }
        match ours.iter().take(MAX_LOADS).find(|id| **id < 2) {
            Some(id) => {
                prop_assert_eq!(open.origin, Origin::Loaded);
                let value = visitors[*id].split_once("s%3A").unwrap().1;
                prop_assert!(value.starts_with(&open.visit.id));
            }
            None => prop_assert!(open.origin != Origin::Loaded),
        }
    }

    /// No reply in any state causes a panic or an endless loop.
    #[test]
    fn any_reply_in_any_state_has_an_outcome(
        replies in proptest::collection::vec((0..7usize, 0..4usize), 0..12),
        deed in deed(),
        cookie: bool,
        text in "\\PC{0,20}",
    ) {
        let world = World::new(|_| {});
        let visitor = world.visitor();
        let stored = || Stored { data: text.clone(), expires: None, touched: None };
        let mut replies = replies.into_iter();
        let mut seen = None;
        let mut beginning = world.engine.begin(&world, &request(cookie.then_some(&*visitor)));
        let session = loop {
            beginning = match beginning {
                Beginning::None => unreachable!("the path has sessions"),
                Beginning::Ready(session) => break session,
                Beginning::Load(visit) => {
                    seen = match replies.next().map(|(n, _)| n) {
                        Some(0) => Some(stored()),
                        Some(1..3) => Some(Stored { data: world.only(), ..stored() }),
                        _ => None,
                    };
                    world.engine.loaded(&world, visit, Ok(seen.as_ref())).expect("no failure")
                }
            }
        };
        let mut run = world.finish(Open { session, stored: seen, data: String::new() }, &deed.change());
        for (reply, at) in replies {
            if run.plan.is_err() {
                break;
            }
            run.at = at;
            run.meet(match reply {
                0 => Obstacle::Missing,
                1 => Obstacle::Taken,
                2 => Obstacle::Conflict(stored()),
                3 => Obstacle::Conflict(Stored { data: world.only(), ..stored() }),
                4 => Obstacle::Refused("no".into()),
                5 => Obstacle::Unavailable("down".into()),
                _ => continue,
            });
        }
    }
}
