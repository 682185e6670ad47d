//! Looks up a JSON pointer in a session's data, in the same way for guards, for renewal at login,
//! and for operators.
//!
//! serde cannot read every JSON text that applications write as a [`Value`]: it refuses a lone
//! surrogate (`"\ud800"`) and nesting above 127. The lookup therefore parses only the values along
//! the pointer's path and keeps the others as text, so that an unreadable value does not hide its
//! siblings.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The result of looking up a JSON pointer (RFC 6901) in a session's data.
#[derive(Clone)]
pub struct Found(Result<Option<Box<RawValue>>, Unreadable>);

/// A value that exists, or may exist, and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the value cannot be read")]
pub struct Unreadable;

impl Found {
    /// Looks into a session's stored data. A pointer that is empty or does not begin with a slash
    /// finds nothing.
    pub fn in_data(data: &str, pointer: &str) -> Self {
        Self::among(|key| member(data, key), pointer)
    }

    /// Looks into data whose top-level values are returned by `value`.
    pub(crate) fn among<'d>(
        value: impl FnOnce(&str) -> Result<Option<&'d RawValue>, Unreadable>,
        pointer: &str,
    ) -> Self {
        let Some((key, rest)) = first(pointer) else { return Self(Ok(None)) };
        let found = value(&key).and_then(|value| value.map_or(Ok(None), |it| below(it, rest)));
        Self(found.map(|value| value.map(ToOwned::to_owned)))
    }

    /// Returns the value, if there is one.
    pub fn value(&self) -> Result<Option<Value>, Unreadable> {
        let text = self.text()?;
        text.map(|text| serde_json::from_str(text).map_err(|_| Unreadable)).transpose()
    }

    /// Returns the value's JSON text, even if the value has no [`Value`].
    pub fn text(&self) -> Result<Option<&str>, Unreadable> {
        match &self.0 {
            Ok(value) => Ok(value.as_deref().map(RawValue::get)),
            Err(unreadable) => Err(*unreadable),
        }
    }

    /// Returns whether both are certainly equal: both absent, the same text, or two spellings of
    /// one string. An unreadable value equals nothing.
    pub fn is_surely(&self, other: &Self) -> bool {
        let string = |text: &str| serde_json::from_str::<String>(text).ok();
        match (self.text(), other.text()) {
            (Ok(None), Ok(None)) => true,
            (Ok(Some(one)), Ok(Some(other))) => {
                one == other || string(one).is_some_and(|one| string(other) == Some(one))
            }
            _ => false,
        }
    }
}

impl std::fmt::Debug for Found {
    /// Omits the value, which is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").finish_non_exhaustive()
    }
}

/// Splits a pointer into its first key and the rest.
fn first(pointer: &str) -> Option<(String, &str)> {
    let pointer = pointer.strip_prefix('/')?;
    let (key, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
    Some((key.replace("~1", "/").replace("~0", "~"), rest))
}

/// Returns the value at `pointer` inside a value.
fn below<'d>(
    mut value: &'d RawValue,
    mut pointer: &str,
) -> Result<Option<&'d RawValue>, Unreadable> {
    while let Some((key, rest)) = first(pointer) {
        let inner = match value.get().as_bytes().first() {
            Some(b'{') => member(value.get(), &key)?,
            Some(b'[') => element(value.get(), &key)?,
            _ => None,
        };
        let Some(inner) = inner else { return Ok(None) };
        (value, pointer) = (inner, rest);
    }
    Ok(Some(value))
}

/// Returns an element of a JSON array.
fn element<'d>(array: &'d str, index: &str) -> Result<Option<&'d RawValue>, Unreadable> {
    let is_index = index == "0" || !index.starts_with(['0', '+']);
    let Some(index) = index.parse::<usize>().ok().filter(|_| is_index) else { return Ok(None) };
    let elements: Vec<&RawValue> = serde_json::from_str(array).map_err(|_| Unreadable)?;
    Ok(elements.get(index).copied())
}

/// Returns the value of one key of a JSON object.
pub(crate) fn member<'d>(object: &'d str, key: &str) -> Result<Option<&'d RawValue>, Unreadable> {
    edge_session_headers::member(object, key).map_err(|_| Unreadable)
}

/// Returns the members of a JSON object by key, omitting keys that are not Unicode text (lone
/// surrogates).
pub(crate) fn members(object: &str) -> Result<IndexMap<Cow<'_, str>, &RawValue>, Unreadable> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let members = deserializer.deserialize_map(Members).map_err(|_| Unreadable)?;
    deserializer.end().map_err(|_| Unreadable)?;
    Ok(members)
}

struct Members;

impl<'d> Visitor<'d> for Members {
    type Value = IndexMap<Cow<'d, str>, &'d RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = IndexMap::new();
        while let Some(key) = map.next_key_seed(Text)? {
            let value = map.next_value::<&RawValue>()?;
            if let Some(key) = key {
                members.insert(key, value);
            }
        }
        Ok(members)
    }
}

/// Deserializes a key, if it is Unicode text.
struct Text;

impl<'d> DeserializeSeed<'d> for Text {
    type Value = Option<Cow<'d, str>>;

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'d> Visitor<'d> for Text {
    type Value = Option<Cow<'d, str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, key: &'d [u8]) -> Result<Self::Value, E> {
        Ok(std::str::from_utf8(key).ok().map(Cow::Borrowed))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(std::str::from_utf8(key).ok().map(|key| Cow::Owned(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(data: &str, pointer: &str) -> Result<Option<String>, Unreadable> {
        Found::in_data(data, pointer).text().map(|text| text.map(str::to_owned))
    }

    fn some(text: &str) -> Result<Option<String>, Unreadable> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn one_value_is_found_among_others() {
        let data = r#"{"a":{"b":1},"b":2,"\u0063":[3,{"d":"x"}],"a/b":{"~":[7]},"b":4}"#;
        assert_eq!(text(data, "/a"), some(r#"{"b":1}"#));
        assert_eq!(text(data, "/a/b"), some("1"));
        assert_eq!(text(data, "/b"), some("4"));
        assert_eq!(text(data, "/c/0"), some("3"));
        assert_eq!(text(data, "/c/1/d"), some(r#""x""#));
        assert_eq!(text(data, "/a~1b/~0/0"), some("7"));
        for nothing in
            ["", "a", "/", "/d", "/a/c", "/b/c", "/c/2", "/c/-", "/c/01", "/c/+1", "/c/1/d/e"]
        {
            assert_eq!(text(data, nothing), Ok(None), "{nothing}");
        }
        assert_eq!(text("{}", "/a"), Ok(None));
    }

    #[test]
    fn nothing_that_serde_cannot_read_hides_what_is_beside_it() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for data in [
            r#"{"\ud800":1,"passport":{"user":"zoe","\udc00":2}}"#.to_owned(),
            r#"{"a":"\ud800","passport":{"a":"\ud800","user":"zoe"}}"#.to_owned(),
            format!(r#"{{"a":{deep},"passport":{{"a":{deep},"user":"zoe","b":{deep}}}}}"#),
            format!(r#"{{"a":1e999,"passport":{{"a":{},"user":"zoe"}}}}"#, "9".repeat(400)),
        ] {
            let found = Found::in_data(&data, "/passport/user");
            assert_eq!(found.value(), Ok(Some("zoe".into())), "{data:.60}");
            assert_eq!(text(&data, "/passport/name"), Ok(None), "{data:.60}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        let surrogate = Found::in_data(r#"{"user":"\ud800"}"#, "/user");
        assert_eq!(surrogate.value(), Err(Unreadable));
        assert_eq!(surrogate.text(), Ok(Some(r#""\ud800""#)));
        for data in ["", "not JSON", "[1]", "7", r#"{"user":1"#, r#"{"user":1} x"#, r#"{"user":x}"#]
        {
            assert_eq!(text(data, "/user"), Err(Unreadable), "{data}");
            assert_eq!(text(data, "/other"), Err(Unreadable), "{data}");
        }
    }

    #[test]
    fn only_what_is_the_same_beyond_doubt_is_the_same() {
        let at = |user: &str| Found::in_data(&format!(r#"{{"user":{user}}}"#), "/user");
        let nothing = Found::in_data("{}", "/user");
        let unreadable = Found::in_data("not JSON", "/user");
        assert!(nothing.is_surely(&nothing));
        for user in [r#""zoe""#, r#""\ud800""#, "7", "null", r#"{"id":1}"#] {
            assert!(at(user).is_surely(&at(user)), "{user}");
            for other in [&nothing, &unreadable, &at(r#""\ud800x""#), &at("8")] {
                assert!(!at(user).is_surely(other) && !other.is_surely(&at(user)), "{user}");
            }
        }
        assert!(at(r#""zo\u00eb""#).is_surely(&at("\"zo\u{eb}\"")));
        assert!(!unreadable.is_surely(&unreadable));
        // Equal as JavaScript numbers, but two different users to other programs.
        assert!(!at("10000000000000000000001").is_surely(&at("10000000000000000000002")));
    }

    #[test]
    fn a_value_is_not_shown_by_accident() {
        let found = Found::in_data(r#"{"user":"hunter2"}"#, "/user");
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}
