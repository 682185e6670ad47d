//! Sessions as documents (`stringify: false`): converts BSON to JSON text and back, as JavaScript
//! and its MongoDB driver do.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mongodb::bson::{Bson, DateTime, Document};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The cookie's settings. connect-mongo writes all of them, and null for undefined ones.
const COOKIE_KEYS: [&str; 9] = [
    "originalMaxAge",
    "partitioned",
    "priority",
    "expires",
    "secure",
    "httpOnly",
    "domain",
    "path",
    "sameSite",
];

/// Returns `JSON.stringify` of the Node driver's object for the document.
pub(super) fn document_text(document: &Document) -> String {
    let mut text = String::new();
    push_document(&mut text, document);
    text
}

fn value_text(value: &Bson) -> String {
    let mut text = String::new();
    push_value(&mut text, value);
    text
}

fn push_document(text: &mut String, document: &Document) {
    let mut members: Vec<_> = document.iter().filter(|(_, v)| **v != Bson::Undefined).collect();
    members.sort_by_key(|(key, _)| array_index(key).unwrap_or(u32::MAX));
    text.push('{');
    for (at, (key, value)) in members.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        push_string(text, key);
        text.push(':');
        push_value(text, value);
    }
    text.push('}');
}

/// Returns a key as an array index. JavaScript objects list these first (ECMA-262, section 6.1.7).
fn array_index(key: &str) -> Option<u32> {
    match key.as_bytes() {
        [b'0'] | [b'1'..=b'9', ..] => key.parse().ok().filter(|index| *index < u32::MAX),
        _ => None,
    }
}

fn push_value(text: &mut String, value: &Bson) {
    match value {
        Bson::Document(document) => push_document(text, document),
        Bson::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                push_value(text, value);
            }
            text.push(']');
        }
        Bson::String(string) | Bson::Symbol(string) => push_string(text, string),
        Bson::Boolean(boolean) => text.push_str(if *boolean { "true" } else { "false" }),
        Bson::Int32(number) => push(text, number),
        Bson::Int64(number) => push_double(text, *number as f64),
        Bson::Double(number) => push_double(text, *number),
        Bson::DateTime(date) => push_string(text, &iso(*date)),
        Bson::ObjectId(id) => push_string(text, &id.to_hex()),
        Bson::Binary(binary) => push_string(text, &STANDARD.encode(&binary.bytes)),
        // The driver represents the other types by its own objects. They are not changed through
        // JSON, and `session_document` keeps them as they are.
        other => text.push_str(&serde_json::to_string(other).unwrap_or_default()),
    }
}

fn push(text: &mut String, value: impl fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
}

fn push_string(text: &mut String, string: &str) {
    push(text, serde_json::Value::from(string));
}

/// Writes a number as `Number::toString` does (ECMA-262, section 6.1.6.1.20); JSON has no
/// infinities.
fn push_double(text: &mut String, number: f64) {
    if number.is_finite() {
        text.push_str(ryu_js::Buffer::new().format_finite(number));
    } else {
        text.push_str("null");
    }
}

/// Formats a date as `Date.prototype.toISOString` does, except for years of more than four digits.
fn iso(date: DateTime) -> String {
    let text = date.try_to_rfc3339_string().unwrap_or_default();
    match text.strip_suffix('Z') {
        Some(seconds) if seconds.len() == 19 => format!("{seconds}.000Z"),
        Some(long) => {
            let (seconds, fraction) = long.split_once('.').unwrap_or((long, ""));
            format!("{seconds}.{fraction:0<3}Z")
        }
        None => text,
    }
}

/// Returns the document for a session's JSON text. A member of `old` whose text has not changed is
/// kept as it is.
pub(super) fn session_document(text: &str, old: Option<&Document>) -> Result<Document, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let new = Value.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    let Bson::Document(mut new) = new else { return Err("it is not a JSON object".to_owned()) };
    if let Some(cookie) = new.get_mut("cookie").and_then(Bson::as_document_mut) {
        let mut all = Document::new();
        for key in COOKIE_KEYS {
            let value = cookie.remove(key).unwrap_or(Bson::Null);
            all.insert(key, if key == "expires" { date(value) } else { value });
        }
        *cookie = all;
    }
    // connect-mongo puts the cookie before all keys but array indices.
    let mut rest: Vec<_> = std::mem::take(&mut new).into_iter().collect();
    rest.sort_by_key(|(key, _)| match array_index(key) {
        Some(index) => (0, index),
        None if key == "cookie" => (1, 0),
        None => (2, 0),
    });
    new.extend(rest);
    for (key, value) in new.iter_mut().filter(|(key, _)| *key != "cookie") {
        if let Some(old) = old.and_then(|old| old.get(key)) {
            keep(value, old);
        }
    }
    Ok(new)
}

/// Keeps `old`, or those parts of it whose text is the same.
fn keep(new: &mut Bson, old: &Bson) {
    if value_text(new) == value_text(old) {
        new.clone_from(old);
        return;
    }
    match (new, old) {
        (Bson::Document(new), Bson::Document(old)) => {
            for (key, value) in new.iter_mut() {
                if let Some(old) = old.get(key) {
                    keep(value, old);
                }
            }
        }
        (Bson::Array(new), Bson::Array(old)) => {
            for (new, old) in new.iter_mut().zip(old) {
                keep(new, old);
            }
        }
        _ => {}
    }
}

/// Converts a date that is written as text.
fn date(value: Bson) -> Bson {
    match value.as_str().map(DateTime::parse_rfc3339_str) {
        Some(Ok(date)) => Bson::DateTime(date),
        _ => value,
    }
}

/// Deserializes JSON as `JSON.parse` and the driver do: numbers become 32-bit integers or doubles.
#[derive(Clone, Copy)]
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Bson;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bson, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Bson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }

    fn visit_bool<E>(self, boolean: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(boolean))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Bson, E> {
        Ok(i32::try_from(number).map_or(Bson::Double(number as f64), Bson::Int32))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Bson, E> {
        Ok(i32::try_from(number).map_or(Bson::Double(number as f64), Bson::Int32))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Bson, E> {
        let is_whole = number.fract() == 0.0 && !(number == 0.0 && number.is_sign_negative());
        let fits = is_whole && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
        Ok(if fits { Bson::Int32(number as i32) } else { Bson::Double(number) })
    }

    fn visit_str<E>(self, string: &str) -> Result<Bson, E> {
        Ok(Bson::String(string.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Bson, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = values.next_element_seed(self)? {
            array.push(value);
        }
        Ok(Bson::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Bson, A::Error> {
        let mut document = Document::new();
        while let Some(key) = members.next_key::<String>()? {
            if key.contains('\0') {
                return Err(serde::de::Error::custom("a key contains the character U+0000"));
            }
            document.insert(key, members.next_value_seed(self)?);
        }
        Ok(Bson::Document(document))
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::{Decimal128, doc};

    use super::*;

    #[test]
    fn a_document_reads_as_javascript_would_print_it() {
        let id = ObjectId::parse_str("0123456789abcdef01234567").unwrap();
        let document = doc! {
            "b": 1.0, "10": 1, "9": true, "cookie": { "expires": DateTime::from_millis(1_893_553_445_678), "path": null },
            "big": 1e21, "long": 12_345_678_901_i64, "small": 1e-7, "nan": f64::NAN, "second": DateTime::from_millis(0),
            "s": "\u{7f}\"\u{1}é", "list": [1, [], {}], "id": id,
        };
        assert_eq!(
            document_text(&document),
            r#"{"9":true,"10":1,"b":1,"cookie":{"expires":"2030-01-02T03:04:05.678Z","path":null},"big":1e+21,"long":12345678901,"small":1e-7,"nan":null,"second":"1970-01-01T00:00:00.000Z","s":""#
                .to_owned()
                + "\u{7f}"
                + r#"\"\u0001é","list":[1,[],{}],"id":"0123456789abcdef01234567"}"#
        );
    }

    #[test]
    fn a_session_becomes_a_document_as_the_driver_writes_it() {
        let text = r#"{"cookie":{"originalMaxAge":60000,"expires":"2030-01-02T03:04:05.678Z","httpOnly":true,"path":"/"},"n":1,"f":1.5,"w":2.0,"m":-0.0,"big":2147483648,"o":{"$oid":"x","a.b":[null]}}"#;
        let expected = doc! {
            "cookie": {
                "originalMaxAge": 60000, "partitioned": null, "priority": null,
                "expires": DateTime::from_millis(1_893_553_445_678), "secure": null,
                "httpOnly": true, "domain": null, "path": "/", "sameSite": null,
            },
            "n": 1, "f": 1.5, "w": 2, "m": -0.0, "big": 2_147_483_648.0, "o": { "$oid": "x", "a.b": [null] },
        };
        assert_eq!(session_document(text, None).unwrap(), expected);
    }

    #[test]
    fn what_was_not_changed_keeps_its_type() {
        let old = doc! {
            "cookie": {}, "when": DateTime::from_millis(5), "price": "1.10".parse::<Decimal128>().unwrap(),
            "id": ObjectId::new(), "long": 7_i64, "changed": DateTime::from_millis(6),
            "exact": 0.945_270_695_553_922_3,
            "deep": { "list": [DateTime::from_millis(8), DateTime::from_millis(6)], "id": ObjectId::new() },
        };
        let text = document_text(&old).replace("00.006Z", "00.007Z");
        let new = session_document(&text, Some(&old)).unwrap();
        for key in ["when", "price", "id", "long", "exact"] {
            assert_eq!(new.get(key), old.get(key), "{key}");
        }
        let deep = |document: &Document| document.get_document("deep").unwrap().clone();
        assert_eq!(deep(&new).get("id"), deep(&old).get("id"));
        let list = |document: &Document| deep(document).get_array("list").unwrap().clone();
        assert_eq!(list(&new)[0], list(&old)[0]);
        assert_eq!(list(&new)[1], Bson::from("1970-01-01T00:00:00.007Z"));
        assert_eq!(new.get("changed"), Some(&Bson::from("1970-01-01T00:00:00.007Z")));
    }

    #[test]
    fn what_no_document_can_hold_is_refused() {
        for text in [r#"{"a":"\ud800"}"#, r#"{"a\u0000":1}"#, "[]", "", "{} x"] {
            assert!(session_document(text, None).is_err(), "{text}");
        }
    }
}
