//! The component's parsers: a client's cookies, stored documents, an application's changes.

use edge_session_component::wit::{
    Action, Change, CookieEdit, DataChange, Edit, Exchange, Known, Origin, Outcome, Pending, Phase,
    Preset, Request, Session, Step, StoreReply, StoreRequest, Stored,
};
use edge_session_component::{Engine, Environment, defaults};
use http::HeaderValue;

/// A constant clock and constant randomness, so that findings are reproducible.
pub(crate) struct Fixed;

impl Environment for Fixed {
    fn now(&self) -> u64 {
        1_893_456_000_000
    }
    fn random(&self) -> [u8; 24] {
        [7; 24]
    }
}

/// Creates an engine that trusts X-Forwarded-Proto, so that it is parsed too.
pub(crate) fn engine() -> Engine {
    let mut options = defaults(Preset::Safe);
    options.secrets = vec![vec![b'k'; 32]];
    options.proxy = Some(true);
    let Ok(engine) = Engine::open(options) else { unreachable!("the options are valid") };
    engine
}

/// Takes Cookie headers, one per line, and forwarded protocols, as a client may send them.
pub fn request(data: &[u8]) {
    let engine = engine();
    let mut cookies: Vec<_> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let request = |cookies| Request {
        cookies,
        path: format!("/{}", String::from_utf8_lossy(data)),
        tls: false,
        secure: false,
        forwarded_proto: Some(data.to_vec()),
    };
    // A signature cannot be guessed, so the store is never called.
    let Step::Ready(session) = engine.begin(&Fixed, &request(cookies.clone())) else {
        panic!("a session that nobody has signed is loaded")
    };
    // A valid cookie is found after any other cookies.
    if session.exchange.origin == Origin::Absent && !has(data, b"connect.sid") {
        cookies.push(own_cookie(&engine, session).into_bytes());
        assert!(matches!(engine.begin(&Fixed, &request(cookies)), Step::Store(_)));
    }
}

fn has(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// Checks that, whatever the options, a new session's cookie is a valid header with the configured
/// name.
pub(crate) fn check_new_cookie(engine: &Engine, name: &str) {
    let request = Request {
        cookies: Vec::new(),
        path: "/".to_owned(),
        tls: true,
        secure: true,
        forwarded_proto: None,
    };
    // None: the session's path does not match.
    if let Step::Ready(session) = engine.begin(&Fixed, &request) {
        // None: the cookie is for secure requests only, or the session is too large.
        let Some(cookie) = set_cookie(engine, session) else { return };
        let after = cookie.strip_prefix(name);
        assert!(after.is_some_and(|after| after.starts_with('=')), "{cookie}");
        assert!(HeaderValue::try_from(cookie).is_ok());
    }
}

/// Returns the cookie of a new session.
fn own_cookie(engine: &Engine, session: Session) -> String {
    let cookie = set_cookie(engine, session).expect("it is sent to any request");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

fn set_cookie(engine: &Engine, session: Session) -> Option<String> {
    let known = Known { loaded: None, current: None };
    let edit = Edit { key: "n".to_owned(), value: Some("1".to_owned()) };
    let change = keep(DataChange::Edits(vec![edit]));
    match engine.finish(&Fixed, session.exchange, &known, &change) {
        Step::Store(pending) => pending.on_done?.set_cookie,
        _ => None,
    }
}

fn keep(data: DataChange) -> Change {
    Change { action: Action::Keep, data, cookie: Vec::new() }
}

/// Takes stored documents and an application's changes: three texts, separated by NUL, which are
/// the stored one, the one that another request has stored since, and the change.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let (loaded, seen, new) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let stored = |data: Option<String>| of_text(data.unwrap_or_default());
    let engine = engine();
    let mut known = Known { loaded: Some(stored(loaded)), current: None };
    let session = load(&engine, &known);
    for change in changes(new) {
        let mut step = engine.finish(&Fixed, session.exchange.clone(), &known, &change);
        for round in 0.. {
            step = match step {
                Step::Done(outcome) => {
                    check_outcome(outcome);
                    break;
                }
                Step::Ready(_) => panic!("a finished exchange is not ready again"),
                Step::Store(Pending { on_done: Some(outcome), .. }) if round > 0 => {
                    check_outcome(outcome);
                    break;
                }
                Step::Store(pending) => {
                    if let StoreRequest::Replace(replacement) = &pending.request {
                        // What is written can be read again.
                        assert!(is_session(&engine, &replacement.content.data));
                    }
                    known.current = Some(stored(seen.clone()));
                    let reply = match round {
                        0 => StoreReply::Conflict,
                        _ => StoreReply::Done,
                    };
                    engine.resume(&Fixed, pending.exchange, &known, Some(&change), reply)
                }
            };
        }
    }
}

/// Returns changes that an application may make with a text.
fn changes(text: String) -> [Change; 6] {
    let edit = Edit { key: text.chars().take(3).collect(), value: Some(text.clone()) };
    let mut renewal = keep(DataChange::Edits(vec![edit.clone()]));
    renewal.action = Action::Renew;
    let lifetime = text.trim().parse().ok();
    let cookie = |edit| Change { cookie: vec![edit], ..keep(DataChange::Nothing) };
    [
        keep(DataChange::Edits(vec![edit])),
        renewal,
        cookie(CookieEdit::MaxAge(lifetime)),
        cookie(CookieEdit::Path(text.clone())),
        cookie(CookieEdit::Domain(Some(text.clone()))),
        keep(DataChange::Whole(text)),
    ]
}

fn check_outcome(outcome: Outcome) {
    if let Some(cookie) = outcome.set_cookie {
        assert!(HeaderValue::try_from(&cookie).is_ok(), "{cookie:?}");
    }
}

pub(crate) fn of_text(data: String) -> Stored {
    Stored { data, expires: None, touched: None }
}

fn is_session(engine: &Engine, text: &str) -> bool {
    let stored = of_text(text.to_owned());
    let known = Known { loaded: Some(stored), current: None };
    load(engine, &known).exchange.origin == Origin::Loaded
}

/// Loads a stored text with the engine.
pub(crate) fn load(engine: &Engine, known: &Known) -> Session {
    let exchange = Exchange {
        id: "x".into(),
        others: Vec::new(),
        phase: Phase::Loading,
        secure: false,
        presented: true,
        origin: Origin::Loaded,
        conflicts: 0,
    };
    match engine.resume(&Fixed, exchange, known, None, StoreReply::Found) {
        Step::Ready(session) => session,
        other => panic!("every document has an outcome, not {other:?}"),
    }
}
