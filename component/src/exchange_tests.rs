//! Whole exchanges against a model of a store, with a clock and randomness of the test's own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::document::MAX_MEMBERS;
use crate::options::defaults;
use crate::wit::{CookieEdit, DataChange, Edit};

const START: Millis = 1_893_456_000_000;
const TTL: Millis = 14 * 24 * 60 * 60 * 1000;

struct World {
    engine: Engine,
    now: Cell<Millis>,
    drawn: Cell<u64>,
    store: RefCell<HashMap<String, Stored>>,
    /// The store requests so far, by name.
    log: RefCell<Vec<&'static str>>,
}

/// A request that the application is working on.
struct Open {
    session: Session,
    known: Known,
}

impl std::ops::Deref for Open {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

fn unknown() -> Known {
    Known { loaded: None, current: None }
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
    fn new(spoil: impl FnOnce(&mut Options)) -> Self {
        Self::with(Preset::Safe, spoil)
    }

    fn with(preset: Preset, spoil: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options { secrets: vec![vec![b'k'; 32]], ..defaults(preset) };
        spoil(&mut options);
        Self {
            engine: Engine::open(options).unwrap_or_else(|problems| panic!("{problems:?}")),
            now: Cell::new(START),
            drawn: Cell::default(),
            store: RefCell::default(),
            log: RefCell::default(),
        }
    }

    /// The five operations as `wit/engine.wit` promises them.
    fn perform(&self, id: &str, request: StoreRequest, known: &mut Known) -> StoreReply {
        let mut store = self.store.borrow_mut();
        let now = self.now.get();
        store.retain(|_, stored| stored.expires.is_none_or(|expires| expires > now));
        let current = store.get(id).cloned();
        let expected = known.current.as_ref().or(known.loaded.as_ref()).map(|it| it.data.clone());
        let is_other = |current: &Stored| Some(&current.data) != expected.as_ref();
        let stored = |content: Content| Stored {
            data: content.data,
            expires: Some(content.expires),
            touched: None,
        };
        let (name, reply) = match (request, current) {
            (StoreRequest::Load, None) => ("load", StoreReply::Missing),
            (StoreRequest::Load, current) => {
                known.loaded = current;
                ("load", StoreReply::Found)
            }
            (StoreRequest::Create(_), Some(_)) => ("create", StoreReply::Taken),
            (StoreRequest::Create(content), None) => {
                store.insert(id.to_owned(), stored(content));
                ("create", StoreReply::Done)
            }
            (StoreRequest::Replace(Replacement { only_known: true, .. }), None) => {
                ("replace", StoreReply::Missing)
            }
            (StoreRequest::Replace(Replacement { only_known: true, .. }), Some(current))
                if is_other(&current) =>
            {
                known.current = Some(current);
                ("replace", StoreReply::Conflict)
            }
            (StoreRequest::Replace(replacement), _) => {
                store.insert(id.to_owned(), stored(replacement.content));
                ("replace", StoreReply::Done)
            }
            (StoreRequest::Touch(_), None) => ("touch", StoreReply::Missing),
            (StoreRequest::Touch(expires), Some(current)) => {
                store.insert(id.to_owned(), Stored { expires: Some(expires), ..current });
                ("touch", StoreReply::Done)
            }
            (StoreRequest::Delete(_), None) => ("delete", StoreReply::Missing),
            (StoreRequest::Delete(true), Some(current)) if is_other(&current) => {
                known.current = Some(current);
                ("delete", StoreReply::Conflict)
            }
            (StoreRequest::Delete(_), Some(_)) => {
                store.remove(id);
                ("delete", StoreReply::Done)
            }
        };
        self.log.borrow_mut().push(name);
        reply
    }

    /// The loop of a gateway.
    fn drive(&self, mut step: Step, known: &mut Known, change: Option<&Change>) -> Step {
        loop {
            step = match step {
                Step::Store(pending) => {
                    match self.perform(&pending.exchange.id, pending.request, known) {
                        StoreReply::Done if pending.on_done.is_some() => {
                            return Step::Done(pending.on_done.unwrap());
                        }
                        reply => self.engine.resume(self, pending.exchange, known, change, reply),
                    }
                }
                end => return end,
            }
        }
    }

    fn open(&self, cookie: Option<&str>) -> Open {
        let mut known = unknown();
        match self.drive(self.engine.begin(self, &request(cookie)), &mut known, None) {
            Step::Ready(session) => Open { session, known },
            other => panic!("no session: {other:?}"),
        }
    }

    fn close(&self, open: Open, change: &Change) -> Outcome {
        let Open { session, mut known } = open;
        let step = self.engine.finish(self, session.exchange, &known, change);
        match self.drive(step, &mut known, Some(change)) {
            Step::Done(outcome) => outcome,
            other => panic!("not done: {other:?}"),
        }
    }

    /// One whole request.
    fn visit(&self, cookie: Option<&str>, change: &Change) -> Outcome {
        self.log.borrow_mut().clear();
        let session = self.open(cookie);
        self.close(session, change)
    }

    /// A visitor who has a session with `a` = 1; its cookie.
    fn visitor(&self) -> String {
        cookie(&self.visit(None, &set("a", "1")))
    }

    fn only(&self) -> String {
        let store = self.store.borrow();
        assert_eq!(store.len(), 1, "{store:?}");
        store.values().next().unwrap().data.clone()
    }

    fn log(&self) -> String {
        self.log.borrow().join(" ")
    }
}

fn request(cookie: Option<&str>) -> Request {
    Request {
        cookies: cookie.map(|c| c.as_bytes().to_vec()).into_iter().collect(),
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

fn set(key: &str, value: &str) -> Change {
    let edit = Edit { key: key.into(), value: Some(value.into()) };
    change(Action::Keep, DataChange::Edits(vec![edit]))
}

/// What the browser sends back.
fn cookie(outcome: &Outcome) -> String {
    let header = outcome.set_cookie.as_deref().expect("a Set-Cookie");
    header.split(';').next().unwrap().to_owned()
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
    let world = World::new(|o| o.touch_after = 60);
    let cookie = world.visitor();
    world.now.set(START + 59_999);
    assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::None);
    assert_eq!(world.log(), "load");
    world.now.set(START + 60_000);
    assert_eq!(world.visit(Some(&cookie), &nothing()).event, Event::Touched);
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
    assert_eq!(world.open(Some(&cookie)).exchange.origin, Origin::Unknown);
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
    let change = Change { cookie: vec![CookieEdit::MaxAge(Some(1000.0))], ..nothing() };
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
    let cookie = vec![CookieEdit::MaxAge(Some(1000.0))];
    let outcome = world.close(session, &Change { cookie, ..nothing() });
    assert_eq!((outcome.event, outcome.set_cookie), (Event::Touched, None));
    assert_eq!(world.store.borrow().values().next().unwrap().expires, Some(START + 1000));
}

#[test]
fn settings_that_are_assigned_are_stored_and_sent() {
    let world = World::new(|_| {});
    let cookie = vec![
        CookieEdit::Path("/app".into()),
        CookieEdit::Domain(Some("a.example".into())),
        CookieEdit::HttpOnly(false),
    ];
    let outcome = world.visit(None, &Change { cookie, ..set("a", "1") });
    let header = outcome.set_cookie.unwrap();
    assert!(header.ends_with("; Domain=a.example; Path=/app; SameSite=Lax"), "{header}");
    assert!(world.only().contains(r#""httpOnly":false,"domain":"a.example","path":"/app","#));
}

#[test]
fn an_invalid_cookie_setting_is_refused() {
    let world = World::new(|_| {});
    for edit in [CookieEdit::Path("/\r\nX: y".into()), CookieEdit::Domain(Some("a b".into()))] {
        let change = Change { cookie: vec![edit], ..set("a", "1") };
        let outcome = world.close(world.open(None), &change);
        assert!(matches!(outcome.failure, Some(Failure::InvalidChange(_))), "{outcome:?}");
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
        assert_eq!(session.exchange.origin, origin, "{cookie:.60}");
    }
    assert_eq!(world.log(), "");
}

#[test]
fn the_first_of_two_cookies_counts_under_the_express_preset() {
    let world = World::with(Preset::Express, |_| {});
    let good = cookie(&world.visit(None, &nothing()));
    let origin = |cookies: &str| world.open(Some(cookies)).exchange.origin;
    assert_eq!(origin(&format!("connect.sid=x; {good}")), Origin::Malformed);
    assert_eq!(origin(&format!("connect.sid=; {good}")), Origin::Absent);
    assert_eq!(origin(&format!("{good}; connect.sid=x")), Origin::Loaded);
    let ended = signed(&world, "ended");
    world.log.borrow_mut().clear();
    assert_eq!(origin(&format!("{ended}; {good}")), Origin::Unknown);
    assert_eq!(world.log(), "load");
}

/// A cookie of ours for the session `id`.
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
            assert_eq!(open.exchange.origin, Origin::Loaded, "{cookies:.60}");
            assert_eq!(open.data, r#"{"a":1}"#);
            assert!(open.exchange.others.is_empty());
            let changed = world.close(open, &set("b", "2"));
            assert_eq!((changed.event, changed.set_cookie), (Event::Saved, None));
            world.visit(Some(&good), &change(Action::Keep, DataChange::Whole(r#"{"a":1}"#.into())));
        }
    }
    let renew = Change { action: Action::Renew, ..nothing() };
    let moved = world.visit(Some(&format!("{ended}; {good}")), &renew);
    let new = cookie(&moved);
    assert_eq!(
        (moved.event, world.open(Some(&new)).exchange.origin),
        (Event::Moved, Origin::Loaded)
    );
    let logout = change(Action::Destroy, DataChange::Nothing);
    let ended = world.visit(Some(&format!("{ended}; {new}")), &logout);
    assert_eq!(ended.event, Event::Destroyed);
    assert_eq!(world.open(Some(&new)).exchange.origin, Origin::Unknown);
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
        assert_eq!(open.exchange.origin, origin, "{cookies}");
        assert!(open.exchange.presented && open.exchange.others.is_empty());
    }
    assert!(!world.open(Some("connect.sid=; connect.sid=")).exchange.presented);
}

#[test]
fn no_more_cookies_and_sessions_are_looked_at_than_browsers_send() {
    let world = World::new(|_| {});
    let good = world.visitor();
    let origin = |count: usize, cookie: &dyn Fn(usize) -> String| {
        world.log.borrow_mut().clear();
        let mut cookies: Vec<_> = (0..count).map(cookie).collect();
        cookies.push(good.clone());
        let origin = world.open(Some(&cookies.join("; "))).exchange.origin;
        (origin, world.log())
    };
    let forged = |_| "connect.sid=s%3Aabc".to_owned();
    assert_eq!(origin(MAX_COOKIES - 1, &forged), (Origin::Loaded, "load".to_owned()));
    assert_eq!(origin(MAX_COOKIES, &forged), (Origin::Forged, String::new()));
    let ended = |n| signed(&world, &format!("ended-{n}"));
    assert_eq!(origin(MAX_LOADS - 1, &ended), (Origin::Loaded, "load load load".to_owned()));
    assert_eq!(origin(MAX_LOADS, &ended), (Origin::Unknown, "load load load".to_owned()));
    // The same one is looked for once.
    let same = |_| signed(&world, "ended");
    assert_eq!(origin(MAX_COOKIES - 1, &same), (Origin::Loaded, "load load".to_owned()));
}

#[test]
fn while_a_session_cannot_be_looked_for_no_other_counts() {
    let world = World::new(|_| {});
    let cookies = format!("{}; {}", signed(&world, "ended"), world.visitor());
    let Step::Store(first) = world.engine.begin(&world, &request(Some(&cookies))) else { panic!() };
    let missing = StoreReply::Missing;
    let step = world.engine.resume(&world, first.exchange, &unknown(), None, missing);
    let Step::Store(second) = step else { panic!("{step:?}") };
    let down = StoreReply::Unavailable("down".into());
    let step = world.engine.resume(&world, second.exchange, &unknown(), None, down);
    let Step::Done(Outcome { failure: Some(Failure::Unavailable(_)), .. }) = step else {
        panic!("{step:?}")
    };
}

#[test]
fn a_signed_but_empty_identifier_is_none() {
    let world = World::new(|_| {});
    let signed = format!("connect.sid=s:{}", world.engine.keys.sign(""));
    assert_eq!(world.open(Some(&signed)).exchange.origin, Origin::Malformed);
}

#[test]
fn an_unknown_identifier_is_never_adopted() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    world.store.borrow_mut().clear();
    let session = world.open(Some(&cookie));
    assert_eq!(session.exchange.origin, Origin::Unknown);
    assert!(!cookie.contains(&session.exchange.id));
}

#[test]
fn an_expired_session_is_unknown_even_if_the_store_returns_it() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let Step::Store(pending) = world.engine.begin(&world, &request(Some(&cookie))) else {
        panic!()
    };
    let late = Stored { data: world.only(), expires: Some(START), touched: None };
    let known = Known { loaded: Some(late), current: None };
    let step = world.engine.resume(&world, pending.exchange, &known, None, StoreReply::Found);
    assert!(matches!(step, Step::Ready(session) if session.exchange.origin == Origin::Unknown));
}

/// A session with so many keys besides `a`, as another tool may store it.
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
    // With `cookie` and `a`.
    let many = with_keys(&usual, MAX_MEMBERS - 2);
    for legal in [sized(1 << 19), many] {
        put(&legal);
        assert_eq!(world.open(Some(&cookie)).session.exchange.origin, Origin::Loaded);
    }
    for beyond in [sized((1 << 19) + 1), with_keys(&usual, MAX_MEMBERS - 1)] {
        put(&beyond);
        let open = world.open(Some(&cookie));
        assert_eq!(open.session.exchange.origin, Origin::Damaged);
        assert_eq!(open.session.data, "{}");
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
    // `cookie` counts.
    let full = world.visit(None, &change(Action::Keep, keys(MAX_MEMBERS - 1)));
    assert_eq!((full.event, &full.failure), (Event::Created, &None));
    let before = world.only();
    let outcome = world.visit(Some(&cookie(&full)), &set("one-more", "1"));
    match outcome.failure {
        Some(Failure::InvalidChange(why)) => assert!(why.contains("10001 keys"), "{why}"),
        other => panic!("{other:?}"),
    }
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
    assert!(matches!(outcome.failure, Some(Failure::Unavailable(_))), "{outcome:?}");
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
        assert_eq!(session.exchange.origin, Origin::Damaged, "{text}");
        let old = session.exchange.id.clone();
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
            assert!(matches!(begin(outside), Step::Done(_)), "{outside}");
        }
        for inside in ["/foo", "/foo/", "/foo/bar"] {
            assert!(matches!(begin(inside), Step::Ready(_)), "{inside}");
        }
        let everywhere = World::with(preset, |_| {});
        let begin =
            everywhere.engine.begin(&everywhere, &Request { path: "".into(), ..request(None) });
        assert!(matches!(begin, Step::Ready(_)), "an empty path is /");
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
    let world = World::new(|o| o.cookie.secure = Some(crate::wit::Secure::Always));
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
    let world = World { engine: Engine::open(options).ok().unwrap(), ..world };
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
    assert_eq!(world.log(), "load create delete");
    assert_ne!(cookie(&outcome), old);
    assert!(world.only().ends_with(r#","a":1,"user":"ada"}"#));
    assert_eq!(world.open(Some(&old)).exchange.origin, Origin::Unknown);
    assert_eq!(world.open(Some(&cookie(&outcome))).exchange.origin, Origin::Loaded);
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
        assert_eq!((outcome.event, outcome.new_id), (Event::Gone, None));
        assert!(world.store.borrow().is_empty());
        // The browser may have been told of a new session meanwhile.
        assert_eq!(outcome.set_cookie, None);
    }
}

#[test]
fn a_change_that_races_a_renewal_moves_along() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let renewing = world.open(Some(&cookie));
    let change = Change { action: Action::Renew, ..set("user", "\"ada\"") };
    // The renewal has created the successor and is about to delete the old session …
    let Open { session, mut known } = renewing;
    let Step::Store(create) = world.engine.finish(&world, session.exchange, &known, &change) else {
        panic!()
    };
    let reply = world.perform(&create.exchange.id, create.request, &mut known);
    let step = world.engine.resume(&world, create.exchange, &known, Some(&change), reply);
    // … when another request changes it.
    world.visit(Some(&cookie), &set("b", "2"));
    let Step::Done(outcome) = world.drive(step, &mut known, Some(&change)) else { panic!() };
    assert_eq!((outcome.event, outcome.conflicts), (Event::Moved, 1));
    assert!(world.only().ends_with(r#","a":1,"b":2,"user":"ada"}"#), "{}", world.only());
}

#[test]
fn a_taken_identifier_is_not_overwritten() {
    let world = World::new(|_| {});
    let session = world.open(None);
    let taken = Stored { data: "other".into(), expires: None, touched: None };
    world.store.borrow_mut().insert(session.exchange.id.clone(), taken.clone());
    let id = session.exchange.id.clone();
    let outcome = world.close(session, &set("a", "1"));
    assert_eq!(outcome.event, Event::Created);
    let new_id = outcome.new_id.expect("another identifier");
    assert_ne!(new_id, id);
    assert_eq!(world.store.borrow()[&id], taken);
    assert!(outcome.set_cookie.unwrap().contains(&new_id));
}

#[test]
fn endless_conflicts_end() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let Open { session, mut known } = world.open(Some(&cookie));
    let change = set("a", "2");
    let mut step = world.engine.finish(&world, session.exchange, &known, &change);
    let mut rounds = 0;
    while let Step::Store(pending) = step {
        rounds += 1;
        let other = Stored {
            data: format!(r#"{{"cookie":{{}},"n":{rounds}}}"#),
            expires: None,
            touched: None,
        };
        known.current = Some(other);
        let reply = StoreReply::Conflict;
        step = world.engine.resume(&world, pending.exchange, &known, Some(&change), reply);
    }
    assert!(matches!(step, Step::Done(Outcome { failure: Some(Failure::Contention), .. })));
    assert_eq!(rounds, MAX_CONFLICTS + 1);
}

#[test]
fn a_store_that_is_down_denies_or_detaches() {
    let down = || StoreReply::Unavailable("down".into());
    let denied = |step: &Step| matches!(step, Step::Done(Outcome { failure: Some(Failure::Unavailable(why)), .. }) if why == "down");
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let begin = |world: &World| match world.engine.begin(world, &request(Some(&cookie))) {
        Step::Store(pending) => pending.exchange,
        other => panic!("{other:?}"),
    };
    assert!(denied(&world.engine.resume(&world, begin(&world), &unknown(), None, down())));
    let Open { session, known } = world.open(Some(&cookie));
    let change = set("a", "2");
    let Step::Store(pending) = world.engine.finish(&world, session.exchange, &known, &change)
    else {
        panic!()
    };
    assert!(denied(&world.engine.resume(&world, pending.exchange, &known, Some(&change), down())));

    let world = World::new(|o| o.on_store_error = OnStoreError::Anonymous);
    let Step::Ready(session) = world.engine.resume(&world, begin(&world), &unknown(), None, down())
    else {
        panic!()
    };
    assert_eq!(session.exchange.origin, Origin::Detached);
    let open = Open { session, known: unknown() };
    let outcome = world.close(open, &set("a", "1"));
    assert_eq!((outcome.event, outcome.set_cookie, outcome.failure), (Event::None, None, None));
    assert_eq!(world.log(), "");

    // What nobody has is not missed.
    for conflicts in [Conflicts::Merge, Conflicts::Overwrite] {
        let world = World::new(|o| {
            o.on_store_error = OnStoreError::Anonymous;
            o.conflicts = conflicts;
        });
        let Open { session, known } = world.open(None);
        let change = set("a", "1");
        let step = world.engine.finish(&world, session.exchange, &known, &change);
        let Step::Store(create) = step else { panic!("{step:?}") };
        let step = world.engine.resume(&world, create.exchange, &known, Some(&change), down());
        let Step::Done(outcome) = step else { panic!("{step:?}") };
        assert_eq!((outcome.event, outcome.set_cookie, outcome.failure), (Event::None, None, None));
    }

    // A change of what is stored is not lost in silence.
    let cookie = world.visitor();
    for action in [Action::Keep, Action::Destroy] {
        let Open { session, known } = world.open(Some(&cookie));
        let change = Change { action, ..set("a", "2") };
        let step = world.engine.finish(&world, session.exchange, &known, &change);
        let Step::Store(pending) = step else { panic!("{step:?}") };
        let change = Some(&change);
        assert!(denied(&world.engine.resume(&world, pending.exchange, &known, change, down())));
    }
}

#[test]
fn a_moved_session_whose_predecessor_cannot_be_deleted_is_not_lost() {
    let world = World::new(|_| {});
    let Open { session, mut known } = world.open(Some(&world.visitor()));
    let renew = Change { action: Action::Renew, ..set("b", "2") };
    let step = world.engine.finish(&world, session.exchange, &known, &renew);
    let Step::Store(create) = step else { panic!("{step:?}") };
    let reply = world.perform(&create.exchange.id, create.request, &mut known);
    let step = world.engine.resume(&world, create.exchange, &known, Some(&renew), reply);
    let Step::Store(delete) = step else { panic!("{step:?}") };
    let down = StoreReply::Unavailable("down".into());
    let step = world.engine.resume(&world, delete.exchange, &known, Some(&renew), down);
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    assert_eq!((outcome.event, &outcome.failure), (Event::Moved, &None));
    let data = world.open(Some(&cookie(&outcome))).session.data;
    assert_eq!(data, r#"{"a":1,"b":2}"#);
}

#[test]
fn a_text_that_the_store_can_never_keep_is_the_applications_mistake() {
    let world = World::new(|_| {});
    let Open { session, known } = world.open(None);
    let change = set("a", "2");
    let step = world.engine.finish(&world, session.exchange, &known, &change);
    let Step::Store(pending) = step else { panic!("{step:?}") };
    let refused = StoreReply::Refused("no".into());
    let step = world.engine.resume(&world, pending.exchange, &known, Some(&change), refused);
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    assert_eq!(outcome.failure, Some(Failure::InvalidChange("no".into())));
}

#[test]
fn a_store_that_breaks_its_promises_is_unavailable() {
    let world = World::new(|_| {});
    let cookie = world.visitor();
    let Step::Store(pending) = world.engine.begin(&world, &request(Some(&cookie))) else {
        panic!()
    };
    let Step::Done(outcome) =
        world.engine.resume(&world, pending.exchange, &unknown(), None, StoreReply::Taken)
    else {
        panic!()
    };
    assert_eq!(
        outcome.failure,
        Some(Failure::Unavailable("the store answered `taken` to a load".into()))
    );
    let Open { session, known } = world.open(Some(&cookie));
    assert_eq!(session.exchange.phase, Phase::Open);
    let change = set("a", "2");
    let step = world.engine.finish(&world, session.exchange, &known, &change);
    let Step::Store(pending) = step else { panic!("{step:?}") };
    let reply = StoreReply::Taken;
    let step = world.engine.resume(&world, pending.exchange, &known, Some(&change), reply);
    let Step::Done(outcome) = step else { panic!("{step:?}") };
    assert_eq!(
        outcome.failure,
        Some(Failure::Unavailable("the store answered `taken` to a replace".into()))
    );
}

#[test]
fn a_session_above_the_cap_is_not_stored() {
    let world = World::new(|o| o.max_session_bytes = 200);
    let big = format!("\"{}\"", "x".repeat(200));
    let outcome = world.visit(None, &set("a", &big));
    let Some(Failure::TooLarge(size)) = outcome.failure else { panic!("{outcome:?}") };
    assert!(size > 200);
    assert!(world.store.borrow().is_empty());
    for (cap, event) in [(size, Event::Created), (size - 1, Event::None)] {
        let world = World::new(|o| o.max_session_bytes = cap as u32);
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

/// A store that answers `conflict` to an unconditional delete breaks its promise. What was
/// given up must not come back by it.
#[test]
fn a_regenerated_session_takes_nothing_over() {
    let world = World::new(|_| {});
    let Open { session, mut known } = world.open(Some(&world.visitor()));
    let change = Change { action: Action::Regenerate, ..set("b", "2") };
    let mut step = world.engine.finish(&world, session.exchange, &known, &change);
    for reply in [StoreReply::Done, StoreReply::Conflict] {
        let Step::Store(pending) = step else { panic!("{step:?}") };
        if reply == StoreReply::Conflict {
            known.current.clone_from(&known.loaded);
        }
        step = world.engine.resume(&world, pending.exchange, &known, Some(&change), reply);
    }
    let Step::Store(Pending { request: StoreRequest::Replace(replacement), .. }) = step else {
        panic!("{step:?}")
    };
    assert!(!replacement.content.data.contains("\"a\""), "{}", replacement.content.data);
}

/// One request of a generated history: which visitor's cookie, when it closes, and what it does.
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
    /// All requests open, then close in turn: whatever they do, the end is as if each
    /// had run alone in the order of their closing.
    #[test]
    fn overlapping_requests_are_serialisable(deeds in proptest::collection::vec(deed(), 1..8)) {
        let world = World::new(|_| {});
        let mut browser = Some(world.visitor());
        let open: Vec<_> = deeds.iter().map(|_| world.open(browser.as_deref())).collect();
        let mut model = Some(serde_json::json!({"a": 1}));
        let mut moved = false;
        for (deed, session) in deeds.iter().zip(open) {
            let outcome = world.close(session, &deed.change());
            prop_assert!(outcome.failure.is_none());
            if model.is_none() || moved {
                prop_assert!(matches!(outcome.event, Event::Gone | Event::Destroyed), "{:?}", outcome);
                continue;
            }
            match deed {
                Deed::Set(key, value) => model.as_mut().unwrap()[format!("k{key}")] = (*value).into(),
                Deed::Nothing => {}
                Deed::Renew => { moved = true; browser = Some(cookie(&outcome)); }
                Deed::Destroy => { model = None; }
            }
        }
        let end = world.open(browser.as_deref());
        match model {
            None => prop_assert_eq!(end.exchange.origin, Origin::Unknown),
            Some(model) => {
                let data: serde_json::Value = serde_json::from_str(&end.data).unwrap();
                prop_assert_eq!(data, model);
            }
        }
    }

    /// Of cookies of any kind in any order, the first one counts whose session is there, among
    /// those that are looked at.
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
                prop_assert_eq!(open.exchange.origin, Origin::Loaded);
                let value = visitors[*id].split_once("s%3A").unwrap().1;
                prop_assert!(value.starts_with(&open.exchange.id));
            }
            None => prop_assert!(open.exchange.origin != Origin::Loaded),
        }
    }

    /// No reply in any state panics or loops.
    #[test]
    fn any_reply_in_any_state_has_an_outcome(replies in proptest::collection::vec(0..7usize, 0..12), deed in deed(), cookie: bool, text in "\\PC{0,20}") {
        let world = World::new(|_| {});
        let visitor = world.visitor();
        let stored = || Some(Stored { data: text.clone(), expires: None, touched: None });
        let mut known = unknown();
        let mut replies = replies.into_iter().map(|n| match n {
            6 => StoreReply::Refused("no".into()),
            0 => StoreReply::Found,
            1 => StoreReply::Missing,
            2 => StoreReply::Done,
            3 => StoreReply::Taken,
            4 => StoreReply::Conflict,
            _ => StoreReply::Unavailable("down".into()),
        });
        let mut step = world.engine.begin(&world, &request(cookie.then_some(visitor.as_str())));
        let change = deed.change();
        let mut given = None;
        loop {
            step = match step {
                Step::Done(_) => break,
                Step::Ready(session) => {
                    given = Some(&change);
                    world.engine.finish(&world, session.exchange, &known, &change)
                }
                Step::Store(pending) => match replies.next() {
                    None => break,
                    Some(reply) => {
                        match reply {
                            StoreReply::Found => known.loaded = stored(),
                            StoreReply::Conflict => known.current = stored(),
                            _ => {}
                        }
                        world.engine.resume(&world, pending.exchange, &known, given, reply)
                    }
                },
            };
        }
    }
}
