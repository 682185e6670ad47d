//! The component's parsers: a client's cookies, stored documents, an application's changes.

use edge_session_component::wit::{
    Action, Beginning, Change, DataChange, Edit, Failure, Obstacle, Operation, Origin, Plan,
    Request, Session, Setting, Stored, Value,
};
use edge_session_component::{Engine, Environment};
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
    let setting = |name: &str, value| Setting { name: name.to_owned(), value };
    let engine = Engine::configure(&[
        setting("secret", Value::Bytes(vec![b'k'; 32])),
        setting("proxy", Value::Text("true".to_owned())),
    ]);
    let Ok(engine) = engine else { unreachable!("the options are valid") };
    engine
}

/// Returns a request over plain HTTP.
fn facts(cookies: Vec<u8>) -> Request {
    Request { cookies, path: "/".to_owned(), tls: false, secure: false, forwarded_proto: None }
}

/// Takes a Cookie header and a forwarded protocol, as a client may send them.
pub fn request(data: &[u8]) {
    let engine = engine();
    let request = |cookies| Request {
        path: format!("/{}", String::from_utf8_lossy(data)),
        forwarded_proto: Some(data.to_vec()),
        ..facts(cookies)
    };
    // A signature cannot be guessed, so the store is never called.
    let Beginning::Ready(session) = engine.begin(&Fixed, &request(data.to_vec())) else {
        panic!("a session that nobody has signed is loaded")
    };
    // A valid cookie is found after any other cookies.
    if session.origin == Origin::Absent && !has(data, b"connect.sid") && data.len() < 15_000 {
        let own = own_cookie(&engine, session);
        let cookies = [data, b"; ", own.as_bytes()].concat();
        assert!(matches!(engine.begin(&Fixed, &request(cookies)), Beginning::Load(_)));
    }
}

fn has(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// Checks that, whatever the options, a new session's cookie is a valid header with the configured
/// name.
pub(crate) fn check_new_cookie(engine: &Engine, name: &str) {
    let request = Request { tls: true, secure: true, ..facts(Vec::new()) };
    // None: the session's path does not match.
    if let Beginning::Ready(session) = engine.begin(&Fixed, &request) {
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
    let edit = Edit { key: "n".to_owned(), value: Some("1".to_owned()) };
    let change = keep(DataChange::Edits(vec![edit]));
    engine.finish(&Fixed, session.visit, None, &change).ok()?.outcome.set_cookie
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
    let loaded = stored(loaded);
    let session = load(&engine, &loaded);
    for change in changes(new) {
        let mut plan = engine.finish(&Fixed, session.visit.clone(), Some(&loaded), &change);
        check_plan(&engine, &plan);
        for round in 0..2 {
            let Ok(Plan { visit, writes, .. }) = plan else { break };
            let Some(at) = writes.len().checked_sub(1) else { break };
            let obstacle = match round {
                0 => Obstacle::Conflict(stored(seen.clone())),
                _ => Obstacle::Missing,
            };
            plan = engine.resume(&Fixed, visit, Some(&loaded), &change, at, obstacle);
            check_plan(&engine, &plan);
        }
    }
}

/// Returns changes that an application may make with a text.
fn changes(text: String) -> Vec<Change> {
    let edit = Edit { key: text.chars().take(3).collect(), value: Some(text.clone()) };
    let mut renewal = keep(DataChange::Edits(vec![edit.clone()]));
    renewal.action = Action::Renew;
    let cookie = |key: &str| {
        let edit = Edit { key: key.to_owned(), value: Some(text.clone()) };
        Change { cookie: vec![edit], ..keep(DataChange::Nothing) }
    };
    let cookies = ["maxAge", "expires", "path", "domain", "sameSite", "secure"].map(cookie);
    let mut changes = vec![keep(DataChange::Edits(vec![edit])), renewal];
    changes.extend(cookies);
    changes.push(keep(DataChange::Whole(text)));
    changes
}

fn check_plan(engine: &Engine, plan: &Result<Plan, Failure>) {
    let Ok(Plan { writes, outcome, .. }) = plan else { return };
    if let Some(cookie) = &outcome.set_cookie {
        assert!(HeaderValue::try_from(cookie).is_ok(), "{cookie:?}");
    }
    for write in writes {
        if let Operation::Create(content) | Operation::Replace(content) = &write.operation {
            // What is written can be read again.
            assert!(is_session(engine, &content.data));
        }
    }
}

pub(crate) fn of_text(data: String) -> Stored {
    Stored { data, expires: None, touched: None }
}

fn is_session(engine: &Engine, text: &str) -> bool {
    load(engine, &of_text(text.to_owned())).origin == Origin::Loaded
}

/// Loads a stored text with the engine.
pub(crate) fn load(engine: &Engine, stored: &Stored) -> Session {
    let mut beginning = engine.begin(&Fixed, &facts(cookie_of_a_visitor(engine).into_bytes()));
    let mut found = Some(stored);
    loop {
        beginning = match beginning {
            Beginning::Ready(session) => return session,
            Beginning::None => panic!("the path has sessions"),
            // A damaged session may have moved: there is no note.
            Beginning::Load(visit) => match engine.loaded(&Fixed, visit, Ok(found.take())) {
                Ok(next) => next,
                Err(failure) => panic!("every document has an outcome, not {failure:?}"),
            },
        };
    }
}

/// Returns a valid cookie.
fn cookie_of_a_visitor(engine: &Engine) -> String {
    match engine.begin(&Fixed, &facts(Vec::new())) {
        Beginning::Ready(session) => own_cookie(engine, session),
        other => panic!("a visitor without a cookie begins with {other:?}"),
    }
}
