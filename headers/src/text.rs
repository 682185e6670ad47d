//! Sessions as JSON text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The member of a session's text that is not data.
const COOKIE: &str = "cookie";

/// Returns the value of one key of a JSON object, without keeping the others. The value is a part
/// of `object`.
pub fn member<'d>(object: &'d str, key: &str) -> serde_json::Result<Option<&'d RawValue>> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let found = deserializer.deserialize_map(Member(key))?;
    deserializer.end()?;
    Ok(found)
}

/// Returns the data in a session's text: all of it but the member `cookie`, byte for byte.
pub fn data(session: &str) -> String {
    let Ok(Some(cookie)) = member(session, COOKIE) else { return session.to_owned() };
    let begin = cookie.get().as_ptr() as usize - session.as_ptr() as usize;
    let after = session[begin + cookie.get().len()..].trim_start();
    let before = session[..begin].trim_end_matches([':', ' ', '\t', '\n', '\r']);
    let before = before[..key_start(before)].trim_end();
    match before.strip_suffix(',') {
        Some(before) => [before, after].concat(),
        None => [before, after.strip_prefix(',').unwrap_or(after)].concat(),
    }
}

/// Returns where the JSON string at the end of `text` begins. Quotes inside it are escaped.
fn key_start(text: &str) -> usize {
    let mut end = text.len().saturating_sub(1);
    while let Some(quote) = text[..end].rfind('"') {
        let backslashes = text[..quote].bytes().rev().take_while(|b| *b == b'\\').count();
        if backslashes % 2 == 0 {
            return quote;
        }
        end = quote;
    }
    0
}

struct Member<'k>(&'k str);

impl<'d> Visitor<'d> for Member<'_> {
    type Value = Option<&'d RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // If a key occurs twice, the last one counts, as in JavaScript.
        while let Some(is_it) = map.next_key_seed(Is(self.0))? {
            let value = map.next_value::<&RawValue>()?;
            if is_it {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// Deserializes to whether a key equals this one.
struct Is<'k>(&'k str);

impl<'d> DeserializeSeed<'d> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<bool, D::Error> {
        // Bytes, because a key may hold a lone surrogate.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<bool, E> {
        Ok(key == self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_cut_out_and_the_rest_is_as_it_was() {
        for (session, expected) in [
            (r#"{"cookie":{"x":1},"a":1,"\ud800":2}"#, r#"{"a":1,"\ud800":2}"#),
            (r#"{"0":1,"cookie":{"x":1},"a":"\u00e9"}"#, r#"{"0":1,"a":"\u00e9"}"#),
            (r#"{ "a" : 1 , "cookie" : {} } "#, r#"{ "a" : 1 } "#),
            (r#"{ "cookie" : {} , "a" : 1 }"#, r#"{ "a" : 1 }"#),
            (r#"{"cookie":null}"#, "{}"),
            (r#"{"a\"":1,"\u0063ookie":3,"b":{"cookie":4}}"#, r#"{"a\"":1,"b":{"cookie":4}}"#),
            (r#"{"a\\":1,"cookie":3}"#, r#"{"a\\":1}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(data(session), expected);
        }
    }

    #[test]
    fn a_key_is_found_in_any_spelling_and_what_is_no_object_is_an_error() {
        let object = r#"{"\ud800":1,"a":2,"\u0062":3,"a":4}"#;
        let text = |key: &str| member(object, key).unwrap().map(RawValue::get);
        assert_eq!((text("a"), text("b"), text("c")), (Some("4"), Some("3"), None));
        for wrong in ["", "[]", "{", "{} x"] {
            assert!(member(wrong, "a").is_err(), "{wrong}");
        }
    }
}
