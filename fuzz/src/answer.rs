//! An application's response, and its effect on the session. The host's library and the wasi:http
//! middleware implement it separately, and must produce the same result.

#[allow(dead_code)]
#[path = "../../gateways/wasi-http/src/change.rs"]
mod change;
#[allow(dead_code)]
#[path = "../../host/src/session.rs"]
mod session;

use std::sync::Arc;

use edge_session_component::wit::{Operation, Origin, Write};
use edge_session_headers::{self as session_headers, Action, Answer, Change};
use http::header::{HeaderMap, SET_COOKIE};
use serde_json::{Map, Value};

use self::session::Session;
use crate::component::{Fixed, engine, load, of_text};
use crate::head;

/// Takes a stored session on the first line, followed by the headers of a response.
pub fn answer(data: &[u8]) {
    let (stored, mut headers) = head::parse(data);
    check_set_cookie(&headers);
    let (Ok(answer), Ok(same)) = (Answer::take(&mut headers.clone()), Answer::take(&mut headers))
    else {
        return;
    };
    assert!(!headers.keys().any(|name| head::cgi(name).starts_with("EDGE_SESSION")));

    let Ok(stored) = std::str::from_utf8(stored) else { return };
    let engine = engine();
    let stored = of_text(stored.to_owned());
    let session = load(&engine, &stored);
    if session.origin != Origin::Loaded {
        return;
    }
    let data = session_headers::data(session.text.as_deref().unwrap_or(&stored.data));
    check_told(&data);
    let expected = expected(&data, &answer);
    let in_middleware = change::of(same, &data);
    let (handle, visit) = Session::new(session, Some(Arc::new(stored.clone())));
    assert_eq!(handle.to_json(), data);
    let on_host = apply(answer, &handle).map(|()| handle.change());
    let (Ok(on_host), Ok(in_middleware)) = (on_host, in_middleware) else { return };

    let on_host = engine.finish(&Fixed, visit.clone(), Some(&stored), &on_host);
    let in_middleware = engine.finish(&Fixed, visit, Some(&stored), &in_middleware);
    assert_eq!(on_host, in_middleware);
    if let (Ok(plan), Some(expected)) = (on_host, expected)
        && let Some(Write { operation: Operation::Replace(content), .. }) = plan.writes.first()
    {
        let mut new: Map<String, Value> =
            serde_json::from_str(&content.data).expect("what is written is read");
        new.remove("cookie");
        assert_eq!(as_doubles(Value::Object(new)), as_doubles(expected));
    }
}

/// Converts numbers to those of JavaScript, in which 1.0 and 1 are equal.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().filter(|it| it.abs() < 9_007_199_254_740_992.0);
            double.map_or(Value::Number(number), Value::from)
        }
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(key, value)| (key, as_doubles(value))).collect()
        }
        other => other,
    }
}

fn check_set_cookie(headers: &HeaderMap) {
    let mut left = headers.clone();
    let was_there = session_headers::remove_set_cookie(&mut left, "connect.sid");
    let before = head::all(headers, &SET_COOKIE);
    let after = head::all(&left, &SET_COOKIE);
    assert_eq!(was_there, after.len() < before.len());
    for cookie in after {
        // As browsers parse it (RFC 6265bis, section 5.6).
        let pair = cookie.split(|byte| *byte == b';').next().unwrap_or_default();
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        assert!(!pair.contains(&b'=') || name.trim_ascii() != b"connect.sid");
    }
}

/// Checks that what an application receives is a valid header and means what is stored.
fn check_told(data: &str) {
    let mut headers = HeaderMap::new();
    session_headers::tell(&mut headers, Some(("an-id", data)));
    let told = headers["edge-session"].to_str().expect("it is ASCII");
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    assert_eq!(read(told), read(data));
    assert_eq!(headers.len(), 2);
}

/// Applies the response like the gateway.
fn apply(answer: Answer, session: &Session) -> Result<(), session::SessionError> {
    match answer.action {
        Action::Destroy => session.destroy(),
        Action::Regenerate => session.regenerate(),
        Action::Keep => {}
    }
    match answer.change {
        Change::Nothing => Ok(()),
        Change::Whole(json) => session.set_json(&json),
        Change::Merge(patch) => session.merge(patch),
    }
}

/// Returns the expected data of a session that continues; none if it is not known.
fn expected(data: &str, answer: &Answer) -> Option<Value> {
    if answer.action != Action::Keep {
        return None;
    }
    match &answer.change {
        Change::Nothing => None,
        Change::Whole(json) => serde_json::from_str(json).ok(),
        Change::Merge(patch) => {
            let data = serde_json::from_str(data).ok()?;
            Some(merge_patch(data, &Value::Object(patch.clone())))
        }
    }
}

/// RFC 7396, section 2, word by word.
fn merge_patch(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = match target {
        Value::Object(target) => target,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let old = target.remove(name).unwrap_or(Value::Null);
            target.insert(name.clone(), merge_patch(old, value));
        }
    }
    Value::Object(target)
}
