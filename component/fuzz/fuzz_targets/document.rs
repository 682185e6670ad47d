//! Stored documents and an application's changes. The input is three texts, split at NUL:
//! what is stored, what another request has stored meanwhile, and the change.
#![no_main]

use edge_session_component::Engine;
use edge_session_component::wit::{
    Action, Change, DataChange, Edit, Exchange, Known, Origin, Phase, Session, Step, StoreReply,
    StoreRequest, Stored,
};
use edge_session_fuzz::{Fixed, engine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let (loaded, seen, new) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let stored = |data: Option<String>| Stored { data: data.unwrap_or_default(), expires: None, touched: None };
    let engine = engine();
    let mut known = Known { loaded: Some(stored(loaded)), current: None };
    let session = load(&engine, &known);
    let edit = Edit { key: new.chars().take(3).collect(), value: Some(new.clone()) };
    for data in [DataChange::Whole(new), DataChange::Edits(vec![edit])] {
        let change = Change { action: Action::Keep, data, cookie: Vec::new() };
        let mut step = engine.finish(&Fixed, session.exchange.clone(), &known, &change);
        for round in 0.. {
            step = match step {
                Step::Done(_) => break,
                Step::Ready(_) => panic!("a finished exchange is not ready again"),
                Step::Store(pending) if pending.on_done.is_some() && round > 0 => break,
                Step::Store(pending) => {
                    if let StoreRequest::Replace(replacement) = &pending.request {
                        // What is written is a document that is read again.
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
});

fn is_session(engine: &Engine, text: &str) -> bool {
    let stored = Stored { data: text.to_owned(), expires: None, touched: None };
    load(engine, &Known { loaded: Some(stored), current: None }).exchange.origin == Origin::Loaded
}

/// What the engine makes of a stored text.
fn load(engine: &Engine, known: &Known) -> Session {
    let exchange = Exchange {
        id: "x".into(),
        other: None,
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
