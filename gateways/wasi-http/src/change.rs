//! Applies an application's answer to the session's data.

use edge_session_component::wit::{Action, Change, DataChange, Edit};
use edge_session_headers::{self as session_headers, Answer, merge_into, text_of};
use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

const EMPTY: &str = "{}";

/// Returns a change that leaves the session as it is.
pub(crate) fn nothing() -> Change {
    Change { action: Action::Keep, data: DataChange::Nothing, cookie: Vec::new() }
}

/// Returns the change that `answer` requests for a session with this data.
pub(crate) fn of(answer: Answer, data: &str) -> Result<Change, String> {
    let (action, data) = match answer.action {
        session_headers::Action::Keep => (Action::Keep, data),
        session_headers::Action::Regenerate => (Action::Regenerate, EMPTY),
        session_headers::Action::Destroy => (Action::Destroy, EMPTY),
    };
    let old: IndexMap<String, &RawValue> =
        serde_json::from_str(data).map_err(|_| "the session's data cannot be read")?;
    let data = match answer.change {
        session_headers::Change::Nothing => DataChange::Nothing,
        session_headers::Change::Whole(json) => DataChange::Whole(whole(&old, &json)?),
        session_headers::Change::Merge(patch) => {
            let edit = |(key, value)| {
                let old = old.get(&key).copied();
                Ok(Edit { value: patched(old, value)?, key })
            };
            DataChange::Edits(patch.into_iter().map(edit).collect::<Result<_, &'static str>>()?)
        }
    };
    Ok(Change { action, data, cookie: Vec::new() })
}

/// Replaces all data. Values that equal the previous ones keep their text.
fn whole(old: &IndexMap<String, &RawValue>, json: &str) -> Result<String, &'static str> {
    let new: IndexMap<String, &RawValue> =
        serde_json::from_str(json).map_err(|_| "Edge-Session cannot be read")?;
    let text = |(key, new)| {
        let raw = text_of(new, old.get(&key).copied());
        (key, raw)
    };
    let data: IndexMap<String, Box<RawValue>> = new.into_iter().map(text).collect();
    serde_json::to_string(&data).map_err(|_| "Edge-Session cannot be read")
}

/// Applies a merge patch to one value; none: the value is removed.
fn patched(old: Option<&RawValue>, patch: Value) -> Result<Option<String>, &'static str> {
    match patch {
        Value::Null => Ok(None),
        Value::Object(patch) => {
            let mut target = match old {
                None => Value::Null,
                Some(old) => serde_json::from_str(old.get())
                    .map_err(|_| "Edge-Session-Merge applies to a value that cannot be read")?,
            };
            merge_into(&mut target, patch);
            Ok(Some(target.to_string()))
        }
        value => Ok(Some(value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = r#"{"n":1e2,"o":{"b":1,"a":"\u00e9"},"x":1}"#;

    fn answer(action: session_headers::Action, change: session_headers::Change) -> Answer {
        Answer { action, change }
    }

    #[test]
    fn data_that_means_the_same_keeps_its_text() {
        let json = r#"{ "n": 100.0, "o": {"b": 1, "a": "é"}, "new": [1, 2] }"#;
        let change = session_headers::Change::Whole(json.to_owned());
        let change = of(answer(session_headers::Action::Keep, change), DATA).unwrap();
        let expected = r#"{"n":1e2,"o":{"b":1,"a":"\u00e9"},"new":[1,2]}"#;
        assert_eq!(change.data, DataChange::Whole(expected.to_owned()));
    }

    #[test]
    fn a_merge_patch_sets_removes_and_goes_into_objects() {
        let patch = r#"{"n":null,"o":{"b":null,"c":[1]},"y":{"z":null}}"#;
        let change = session_headers::Change::Merge(serde_json::from_str(patch).unwrap());
        let change = of(answer(session_headers::Action::Keep, change), DATA).unwrap();
        let edit = |key: &str, value: Option<&str>| Edit {
            key: key.to_owned(),
            value: value.map(str::to_owned),
        };
        let expected =
            vec![edit("n", None), edit("o", Some(r#"{"a":"é","c":[1]}"#)), edit("y", Some("{}"))];
        assert_eq!(change.data, DataChange::Edits(expected));
    }

    #[test]
    fn a_regenerated_session_has_nothing_of_the_old_one() {
        let patch = serde_json::from_str(r#"{"o":{"c":1}}"#).unwrap();
        let merge =
            answer(session_headers::Action::Regenerate, session_headers::Change::Merge(patch));
        let change = of(merge, DATA).unwrap();
        assert_eq!(change.action, Action::Regenerate);
        let edit = Edit { key: "o".to_owned(), value: Some(r#"{"c":1}"#.to_owned()) };
        assert_eq!(change.data, DataChange::Edits(vec![edit]));
    }

    #[test]
    fn an_object_does_not_go_into_what_cannot_be_read() {
        let patch = serde_json::from_str(r#"{"a":{"b":1}}"#).unwrap();
        let merge = answer(session_headers::Action::Keep, session_headers::Change::Merge(patch));
        assert!(of(merge, r#"{"a":"\ud800"}"#).is_err());
    }
}
