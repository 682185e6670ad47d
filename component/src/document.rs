//! The stored session: one JSON object whose member `cookie` is express-session's
//! and whose other members are the application's.
//!
//! Values are never parsed, only sliced: what nobody changes is written back byte
//! for byte, whatever its number format, key order, escapes or lone surrogates.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::wit::{DataChange, Edit};

/// The member that holds the cookie's settings.
const COOKIE: &str = "cookie";

/// Names that express-session drops when it loads a session, because
/// `Session.prototype` or `Object.prototype` has them.
fn is_reserved(key: &str) -> bool {
    matches!(
        key,
        "req"
            | "id"
            | "touch"
            | "resetMaxAge"
            | "save"
            | "reload"
            | "destroy"
            | "regenerate"
            | "constructor"
            | "toString"
            | "valueOf"
            | "hasOwnProperty"
            | "isPrototypeOf"
            | "propertyIsEnumerable"
            | "toLocaleString"
            | "__proto__"
            | "__defineGetter__"
            | "__defineSetter__"
            | "__lookupGetter__"
            | "__lookupSetter__"
    )
}

/// The text is not a JSON object, or not one of a session.
#[derive(Debug, PartialEq)]
pub(crate) struct Damaged;

/// The key of a member, as it is written: with its quotes and escapes.
#[derive(Clone, Debug)]
struct Key<'a> {
    raw: Cow<'a, str>,
    /// Few keys are, and the others are compared as they stand.
    is_escaped: bool,
}

impl<'a> Key<'a> {
    fn new(raw: Cow<'a, str>) -> Self {
        let is_escaped = raw.as_bytes().contains(&b'\\');
        Self { raw, is_escaped }
    }

    /// What the key says. One that is no Unicode text (a lone surrogate) equals nothing but
    /// its own spelling.
    fn name(&self) -> Cow<'_, str> {
        let inner = &self.raw[1..self.raw.len() - 1];
        if self.is_escaped {
            serde_json::from_str(&self.raw).map_or(Cow::Borrowed(inner), Cow::Owned)
        } else {
            Cow::Borrowed(inner)
        }
    }
}

impl PartialEq for Key<'_> {
    /// Whether the two say the same.
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
            || ((self.is_escaped || other.is_escaped) && self.name() == other.name())
    }
}

/// One member of a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member<'a> {
    key: Key<'a>,
    /// As it is written.
    value: &'a str,
}

/// The members of a JSON object in their order. Of duplicate keys the last value
/// counts, at the first one's place, as in JavaScript.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members<'a>(Vec<Member<'a>>);

impl<'a> Members<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Damaged> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = Self::deserialize(&mut deserializer).map_err(|_| Damaged)?;
        deserializer.end().map_err(|_| Damaged)?;
        Ok(members)
    }

    /// The raw value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Names and raw values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &'a str)> {
        self.0.iter().map(|member| (member.key.name(), member.value))
    }

    fn set(&mut self, key: Key<'a>, value: &'a str) {
        let new = Member { key, value };
        match self.0.iter().position(|old| old.key == new.key) {
            Some(at) => self.0[at].value = value,
            None => self.0.push(new),
        }
    }

    fn apply(&mut self, edits: Vec<KeyEdit<'a>>) {
        for (key, value) in edits {
            match value {
                Some(value) => self.set(key, value),
                None => self.0.retain(|member| member.key != key),
            }
        }
    }

    /// The object as JSON text, its first member `cookie` if one is given.
    fn to_text(&self, cookie: Option<&str>) -> String {
        let size: usize = self.0.iter().map(|m| m.key.raw.len() + m.value.len() + 2).sum();
        let mut text = String::with_capacity(size + cookie.map_or(0, str::len) + 12);
        text.push('{');
        if let Some(cookie) = cookie {
            text.push_str("\"cookie\":");
            text.push_str(cookie);
        }
        for member in &self.0 {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&member.key.raw);
            text.push(':');
            text.push_str(member.value);
        }
        text.push('}');
        text
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members(Vec::with_capacity(8));
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.set(Key::new(Cow::Borrowed(key.get())), value.get());
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A stored session, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Document<'a> {
    /// The raw `cookie` member.
    pub(crate) cookie: Option<&'a str>,
    /// The application's members.
    data: Members<'a>,
}

impl<'a> Document<'a> {
    /// Take `text` apart. A text without a `cookie` member is damaged: express-session
    /// fails on it too.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Damaged> {
        let mut data = Members::parse(text)?;
        let mut cookie = None;
        data.0.retain(|member| {
            let name = member.key.name();
            if name == COOKIE {
                cookie = Some(member.value);
                return false;
            }
            !is_reserved(&name)
        });
        Ok(Self { cookie: Some(cookie.ok_or(Damaged)?), data })
    }

    /// The application's members as JSON text.
    pub(crate) fn data_text(&self) -> String {
        self.data.to_text(None)
    }

    /// The whole session as JSON text. `cookie` comes first, where express-session has it.
    pub(crate) fn to_text(&self, cookie: &str) -> String {
        self.data.to_text(Some(cookie))
    }

    /// The application's change relative to this document.
    pub(crate) fn plan(&self, change: &'a DataChange) -> Result<Plan<'a>, String> {
        match change {
            DataChange::Nothing => Ok(Plan::default()),
            DataChange::Edits(edits) => {
                let mut last: Vec<KeyEdit<'a>> = Vec::with_capacity(edits.len());
                for edit in edits {
                    let (key, value) = read_edit(edit)?;
                    last.retain(|(other, _)| *other != key);
                    last.push((key, value));
                }
                Ok(self.changing(last, None))
            }
            DataChange::Whole(text) => {
                let whole = Members::parse(text)
                    .map_err(|Damaged| "the whole data is not a JSON object".to_owned())?;
                for member in &whole.0 {
                    check_key(&member.key.name())?;
                }
                let removed = self.data.0.iter().filter(|old| whole.get(&old.key.name()).is_none());
                let edits = removed
                    .map(|old| (old.key.clone(), None))
                    .chain(whole.0.iter().map(|new| (new.key.clone(), Some(new.value))))
                    .collect();
                Ok(self.changing(edits, Some(whole)))
            }
        }
    }

    /// `edits` without those that change nothing here. The order of a whole object
    /// counts: JavaScript's JSON text of it does change.
    fn changing(&self, edits: Vec<KeyEdit<'a>>, whole: Option<Members<'a>>) -> Plan<'a> {
        let edits = edits
            .into_iter()
            .filter(|(key, value)| {
                self.data.0.iter().find(|m| m.key == *key).map(|m| m.value) != *value
            })
            .collect();
        let whole = whole.filter(|whole| *whole != self.data);
        Plan { edits, whole }
    }

    /// This document with what `plan` changes.
    pub(crate) fn changed(&self, plan: &Plan<'a>) -> Self {
        let mut data = self.data.clone();
        match &plan.whole {
            Some(whole) => data = whole.clone(),
            None => data.apply(plan.edits.clone()),
        }
        Self { cookie: self.cookie, data }
    }

    /// This document, which another request has stored meanwhile, with what `plan`
    /// changes. Of a whole object only the keys that it changed are taken.
    pub(crate) fn merged(&self, plan: &Plan<'a>) -> Self {
        let mut data = self.data.clone();
        data.apply(plan.edits.clone());
        Self { cookie: self.cookie, data }
    }
}

type KeyEdit<'a> = (Key<'a>, Option<&'a str>);

/// What a request changes in the data.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    edits: Vec<KeyEdit<'a>>,
    whole: Option<Members<'a>>,
}

impl Plan<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.whole.is_none()
    }
}

fn check_key(name: &str) -> Result<(), String> {
    if name == COOKIE || is_reserved(name) {
        return Err(format!(
            "`{name}` cannot be a key of session data: express-session reserves it"
        ));
    }
    Ok(())
}

fn read_edit(edit: &Edit) -> Result<KeyEdit<'_>, String> {
    check_key(&edit.key)?;
    let key = Key::new(Cow::Owned(serde_json::Value::from(edit.key.as_str()).to_string()));
    let value = match &edit.value {
        None => None,
        Some(text) => {
            let raw: &RawValue = serde_json::from_str(text)
                .map_err(|_| format!("the value of `{}` is not JSON", edit.key.escape_debug()))?;
            Some(raw.get())
        }
    };
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(key: &str, value: Option<&str>) -> Edit {
        Edit { key: key.into(), value: value.map(Into::into) }
    }

    /// `text` after `change`, with an empty cookie.
    fn after(text: &str, change: DataChange) -> String {
        let document = Document::parse(text).unwrap();
        document.changed(&document.plan(&change).unwrap()).to_text("{}")
    }

    #[test]
    fn what_is_not_changed_stays_byte_for_byte() {
        let text = r#"{"cookie":{},"f":1.0,"e":1e21,"n":12345678901234567890,"s":"\ud800 \u00e9\/","o":{"b":1, "a":2},"2":1,"1":[ ]}"#;
        let changed = after(text, DataChange::Edits(vec![edit("x", Some("1"))]));
        let expected = text.strip_suffix('}').unwrap().to_owned() + r#","x":1}"#;
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_changed_key_keeps_its_place_and_a_removed_one_leaves_no_gap() {
        let text = r#"{"cookie":{},"a":1,"b":2,"c":3}"#;
        let edits = vec![edit("b", Some("[7]")), edit("a", None), edit("missing", None)];
        assert_eq!(after(text, DataChange::Edits(edits)), r#"{"cookie":{},"b":[7],"c":3}"#);
    }

    #[test]
    fn edits_that_change_nothing_are_no_change() {
        let document = Document::parse(r#"{"cookie":{},"a":1}"#).unwrap();
        let change = DataChange::Edits(vec![edit("a", Some("1")), edit("b", None)]);
        assert!(document.plan(&change).unwrap().is_empty());
        assert!(document.plan(&DataChange::Whole(r#"{ "a" : 1 }"#.into())).unwrap().is_empty());
    }

    #[test]
    fn whole_data_replaces_all_members_in_its_own_order() {
        let text = r#"{"cookie":{},"a":1,"b":2}"#;
        let whole = DataChange::Whole(r#"{"c":3,"a":1}"#.into());
        assert_eq!(after(text, whole), r#"{"cookie":{},"c":3,"a":1}"#);
        let document = Document::parse(text).unwrap();
        let reordered = DataChange::Whole(r#"{"b":2,"a":1}"#.into());
        assert!(!document.plan(&reordered).unwrap().is_empty());
    }

    #[test]
    fn merging_takes_only_the_keys_that_this_request_changed() {
        let base = Document::parse(r#"{"cookie":{},"a":1,"b":2,"c":3}"#).unwrap();
        let now = Document::parse(r#"{"cookie":{},"a":10,"b":2,"c":3,"d":4}"#).unwrap();
        let change = DataChange::Whole(r#"{"a":1,"b":20}"#.into());
        let plan = base.plan(&change).unwrap();
        assert_eq!(now.merged(&plan).to_text("{}"), r#"{"cookie":{},"a":10,"b":20,"d":4}"#);
    }

    #[test]
    fn of_duplicate_keys_the_last_value_counts_at_the_first_place() {
        let document = Document::parse(r#"{"cookie":{},"d":1,"x":0,"d":2,"\u0064":3}"#).unwrap();
        assert_eq!(document.data_text(), r#"{"d":3,"x":0}"#);
    }

    #[test]
    fn names_of_the_prototypes_are_dropped_as_express_drops_them() {
        let document = Document::parse(
            r#"{"7":"int","cookie":{"path":"/"},"req":1,"id":1,"__proto__":1,"toString":1,"ok":1}"#,
        )
        .unwrap();
        assert_eq!(document.data_text(), r#"{"7":"int","ok":1}"#);
    }

    #[test]
    fn a_text_that_is_no_session_is_damaged() {
        for text in
            ["", "null", "[]", "{", r#"{"a":1}"#, r#"{"cookie":{}} x"#, "\"{}\"", "{\"cookie\":}"]
        {
            assert_eq!(Document::parse(text), Err(Damaged), "{text}");
        }
    }

    #[test]
    fn reserved_keys_and_invalid_json_are_refused() {
        let document = Document::default();
        for change in [
            DataChange::Edits(vec![edit("cookie", Some("1"))]),
            DataChange::Edits(vec![edit("id", None)]),
            DataChange::Edits(vec![edit("a", Some("1} ,{"))]),
            DataChange::Edits(vec![edit("a", Some(""))]),
            DataChange::Whole("[1]".into()),
            DataChange::Whole(r#"{"cookie":{}}"#.into()),
        ] {
            assert!(document.plan(&change).is_err(), "{change:?}");
        }
    }

    #[test]
    fn a_key_with_a_lone_surrogate_is_kept() {
        let text = r#"{"cookie":{},"\ud800":1,"a":1}"#;
        let changed = after(text, DataChange::Edits(vec![edit("a", Some("2"))]));
        assert_eq!(changed, r#"{"cookie":{},"\ud800":1,"a":2}"#);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", braces in r#"\{("[a-c\\]*":?[0-9{}\[\],]*)*\}?"#) {
            let _ = Document::parse(&text);
            let _ = Document::parse(&braces);
        }

        #[test]
        fn edits_do_what_a_map_does(
            base in proptest::collection::vec(("[a-d\"\\\\é]", 0..5u8), 0..6),
            edits in proptest::collection::vec(("[a-d\"\\\\é]", proptest::option::of(0..5u8)), 0..6),
        ) {
            let mut model = serde_json::Map::new();
            for (key, value) in &base {
                model.insert(key.clone(), (*value).into());
            }
            let mut with_cookie = model.clone();
            with_cookie.insert("cookie".into(), serde_json::json!({}));
            let text = serde_json::Value::Object(with_cookie).to_string();
            let change = DataChange::Edits(
                edits.iter().map(|(k, v)| edit(k, v.map(|v| v.to_string()).as_deref())).collect(),
            );
            for (key, value) in &edits {
                match value {
                    Some(value) => { model.insert(key.clone(), (*value).into()); }
                    None => { model.remove(key); }
                }
            }
            let document = Document::parse(&text).unwrap();
            let plan = document.plan(&change).unwrap();
            let result: serde_json::Value =
                serde_json::from_str(&document.changed(&plan).data_text()).unwrap();
            prop_assert_eq!(result, serde_json::Value::Object(model));
        }
    }
}
