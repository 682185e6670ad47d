//! Stored documents and an application's changes. The input is three texts, split at NUL:
//! what is stored, what another request has stored meanwhile, and the change.
#![no_main]

use edge_session_component::Engine;
use edge_session_component::wit::{
    Action, Change, DataChange, Edit, Exchange, Origin, Phase, Session, Step, StoreReply,
    StoreRequest, Stored,
};
use edge_session_fuzz::{Fixed, engine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let (loaded, seen, new) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let stored = |data: Option<String>| Stored { data: data.unwrap_or_default(), expires: None };
    let engine = engine();
    let session = load(&engine, stored(loaded));
    let edit = Edit { key: new.chars().take(3).collect(), value: Some(new.clone()) };
    for data in [DataChange::Whole(new), DataChange::Edits(vec![edit])] {
        let change = Change { action: Action::Keep, data, cookie: None };
        let mut step = engine.finish(&Fixed, session.exchange.clone(), &change);
        for round in 0.. {
            step = match step {
                Step::Done(_) => break,
                Step::Ready(_) => panic!("a finished exchange is not ready again"),
                Step::Store(pending) => {
                    if let StoreRequest::Replace(replacement) = &pending.request {
                        // What is written is a document that is read again.
                        assert!(is_session(&engine, &replacement.entry.data));
                    }
                    let reply = match round {
                        0 => StoreReply::Conflict(stored(seen.clone())),
                        _ => StoreReply::Done,
                    };
                    engine.resume(&Fixed, pending.exchange, Some(&change), reply)
                }
            };
        }
    }
});

fn is_session(engine: &Engine, text: &str) -> bool {
    let stored = Stored { data: text.to_owned(), expires: None };
    load(engine, stored).exchange.origin == Origin::Loaded
}

/// What the engine makes of a stored text.
fn load(engine: &Engine, stored: Stored) -> Session {
    let exchange = Exchange {
        id: "x".into(),
        phase: Phase::Loading,
        secure: false,
        presented: true,
        origin: Origin::Loaded,
        loaded: None,
        seen: None,
        successor: None,
        conflicts: 0,
    };
    match engine.resume(&Fixed, exchange, None, StoreReply::Found(stored)) {
        Step::Ready(session) => session,
        other => panic!("every document has an outcome, not {other:?}"),
    }
}
