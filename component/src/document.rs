//! The stored session: one JSON object whose member `cookie` is express-session's
//! and whose other members are the application's.
//!
//! Values are sliced, never parsed: unchanged ones are written back byte for byte, whatever their
//! number format, key order, escapes or lone surrogates.

use std::collections::BTreeMap;

use crate::json::{self, Invalid, Key};
use crate::wit::{DataChange, Edit};

/// The member that holds the cookie settings.
const COOKIE: &str = "cookie";
const COOKIE_KEY: Key<'static> = Key::plain("\"cookie\"");

/// The prefix of nearly every stored session.
const BEGINNING: &str = "{\"cookie\":";

/// The maximum number of members, more than any legitimate session has. A member costs far more
/// than its bytes, because members are listed and looked up by name.
pub(crate) const MAX_MEMBERS: usize = 10_000;

/// Whether express-session drops a member of this name when it loads a session, because
/// `Session.prototype` or `Object.prototype` has it.
fn is_reserved(name: &[u8]) -> bool {
    matches!(
        name,
        b"req"
            | b"id"
            | b"touch"
            | b"resetMaxAge"
            | b"save"
            | b"reload"
            | b"destroy"
            | b"regenerate"
            | b"constructor"
            | b"toString"
            | b"valueOf"
            | b"hasOwnProperty"
            | b"isPrototypeOf"
            | b"propertyIsEnumerable"
            | b"toLocaleString"
            | b"__proto__"
            | b"__defineGetter__"
            | b"__defineSetter__"
            | b"__lookupGetter__"
            | b"__lookupSetter__"
    )
}

/// The text is not a JSON object, is not a session, or has too many members.
#[derive(Debug, PartialEq)]
pub(crate) struct Damaged;

impl From<Invalid> for Damaged {
    fn from(_: Invalid) -> Self {
        Self
    }
}

/// A member of a JSON object; its value is the original text.
#[derive(Clone, Debug, PartialEq)]
struct Member<'a, Value = &'a str> {
    key: Key<'a>,
    value: Value,
}

impl Member<'_> {
    fn is_cookie(&self) -> bool {
        *self.key.name() == *COOKIE.as_bytes()
    }
}

/// The change to a key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate<'a> {
    Set(&'a str),
    Removed,
    /// Removed, then set again: it moves to the end.
    SetAnew(&'a str),
}

type KeyEdit<'a> = Member<'a, Fate<'a>>;

/// Up to this many members, a linear search is faster than an index.
const FEW: usize = 32;

/// Finds members by key, in a list that only grows.
#[derive(Default)]
struct Index(BTreeMap<Vec<u8>, usize>);

impl Index {
    fn find<Value>(&mut self, members: &[Member<'_, Value>], key: &Key<'_>) -> Option<usize> {
        if members.len() <= FEW {
            return members.iter().position(|member| member.key == *key);
        }
        for (at, member) in members.iter().enumerate().skip(self.0.len()) {
            self.0.insert(member.key.name().to_vec(), at);
        }
        self.0.get(key.name()).copied()
    }
}

/// The members of a JSON object, in order. As in JavaScript, a duplicate key keeps the position of
/// its first occurrence and the value of its last.
#[derive(Default)]
struct Members<'a> {
    list: Vec<Member<'a>>,
    index: Index,
}

impl<'a> Members<'a> {
    fn set(&mut self, key: Key<'a>, value: &'a str) {
        match self.index.find(&self.list, &key) {
            Some(at) => self.list[at].value = value,
            None => self.list.push(Member { key, value }),
        }
    }
}

fn parse_members(text: &str) -> Result<Vec<Member<'_>>, Invalid> {
    let mut members = Members::default();
    json::members(text, |key, value| {
        members.set(key, value);
        Ok(())
    })?;
    Ok(members.list)
}

/// A parsed session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document<'a> {
    /// The application's members, with `cookie` in its position among them.
    members: Vec<Member<'a>>,
    /// Whether reserved members were dropped.
    is_reduced: bool,
    /// Whether the text had other members than this document.
    is_rewritten: bool,
    /// The template that the cookie matches.
    template: Option<usize>,
}

impl<'a> Document<'a> {
    /// Returns a session without data. Its cookie is still to be written.
    pub(crate) fn empty() -> Self {
        let members = vec![Member { key: COOKIE_KEY, value: "" }];
        Self { members, is_reduced: false, is_rewritten: false, template: None }
    }

    /// Parses `text`. A text without a `cookie` member is damaged, because express-session fails on
    /// it too. So is one with more than [`MAX_MEMBERS`] members.
    ///
    /// `known` may return the template that the cookie at the start of the text passed to it matches,
    /// and its length; that part is then not scanned.
    pub(crate) fn parse(
        text: &'a str,
        known: impl Fn(&str) -> Option<(usize, usize)>,
    ) -> Result<Self, Damaged> {
        let mut members = Members::default();
        let mut count = 0;
        let mut set = |key: Key<'a>, value: &'a str| {
            // Duplicates count too, because each is looked up.
            count += 1;
            if count > MAX_MEMBERS {
                return Err(Invalid);
            }
            members.set(key, value);
            Ok(())
        };
        let after = text.strip_prefix(BEGINNING);
        let known = after.and_then(|after| Some((after, known(after)?)));
        match known {
            Some((after, (_, length))) => {
                set(COOKIE_KEY, &after[..length])?;
                json::members_from(text, BEGINNING.len() + length, set)?;
            }
            None => json::members(text, set)?,
        }
        let mut members = members.list;
        let all = members.len();
        members.retain(|member| !is_reserved(member.key.name()));
        let is_reduced = members.len() < all;
        if members.iter().any(Member::is_cookie) {
            let is_rewritten = members.len() < count;
            // A duplicate replaces it.
            let template = known.map(|(_, (template, _))| template).filter(|_| !is_rewritten);
            Ok(Self { members, is_reduced, is_rewritten, template })
        } else {
            Err(Damaged)
        }
    }

    /// Whether the text had members that express-session drops and therefore treats as changed.
    pub(crate) fn is_reduced(&self) -> bool {
        self.is_reduced
    }

    /// Whether the text had members that this document has not: dropped ones, or duplicates.
    pub(crate) fn is_rewritten(&self) -> bool {
        self.is_rewritten
    }

    /// Returns the template that the cookie matches, if it is known to match one.
    pub(crate) fn template(&self) -> Option<usize> {
        self.template
    }

    /// Returns the raw `cookie` member; none in an empty document.
    pub(crate) fn cookie(&self) -> Option<&'a str> {
        let cookie = self.members.iter().find(|member| member.is_cookie())?;
        Some(cookie.value).filter(|text| !text.is_empty())
    }

    /// Returns the number of members, including `cookie`.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns the whole session as JSON text, with the given cookie.
    pub(crate) fn to_text(&self, cookie: &str) -> String {
        let size: usize = self.members.iter().map(|m| m.key.raw().len() + m.value.len() + 2).sum();
        let mut text = String::with_capacity(size + cookie.len() + 2);
        text.push('{');
        for member in &self.members {
            let value = if member.is_cookie() { cookie } else { member.value };
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(member.key.raw());
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }

    /// Returns the effect of the application's change on this document.
    pub(crate) fn plan(&self, change: &'a DataChange) -> Result<Plan<'a>, String> {
        let mut plan = match change {
            DataChange::Nothing => return Ok(Plan::default()),
            DataChange::Edits(edits) => Plan { edits: read_edits(edits)?, whole: None },
            DataChange::Whole(text) => self.plan_whole(text)?,
        };
        let mut index = Index::default();
        plan.edits.retain(|edit| {
            let old = index.find(&self.members, &edit.key);
            match (edit.value, old) {
                (Fate::Removed, old) => old.is_some(),
                (Fate::Set(new), Some(at)) => self.members[at].value != new,
                (Fate::Set(_), None) | (Fate::SetAnew(_), _) => true,
            }
        });
        // If keys were removed and set again with the same values, possibly all at the end,
        // JavaScript writes the same text.
        let is_anew = |edit: &KeyEdit<'_>| matches!(edit.value, Fate::SetAnew(_));
        if plan.whole.is_none()
            && plan.edits.iter().any(is_anew)
            && self.clone().merged(&plan).members == self.members
        {
            plan.edits.clear();
        }
        Ok(plan)
    }

    fn plan_whole(&self, text: &'a str) -> Result<Plan<'a>, String> {
        let mut whole = parse_members(text)
            .map_err(|Invalid| "the whole data is not a JSON object".to_owned())?;
        for member in &whole {
            check_key(&member.key)?;
        }
        // Array indices come first.
        whole.sort_by_cached_key(|member| member.array_index().unwrap_or(u32::MAX));
        let mut index = Index::default();
        let old = self.members.iter().filter(|member| !member.is_cookie());
        let mut edits: Vec<KeyEdit<'a>> = old
            .clone()
            .filter(|old| index.find(&whole, &old.key).is_none())
            .map(|old| Member { key: old.key.clone(), value: Fate::Removed })
            .collect();
        let set = |m: &Member<'a>| Member { key: m.key.clone(), value: Fate::Set(m.value) };
        edits.extend(whole.iter().map(set));
        // The order matters: it changes JavaScript's JSON text of the object.
        let is_same = old.eq(&whole);
        Ok(Plan { edits, whole: (!is_same).then_some(whole) })
    }

    /// Applies `plan` to this document.
    pub(crate) fn changed(mut self, plan: &Plan<'a>) -> Self {
        let Some(whole) = &plan.whole else { return self.merged(plan) };
        // The cookie stays after the members that it followed.
        let mut index = Index::default();
        let before = self.members.iter().take_while(|member| !member.is_cookie());
        let before = before.filter_map(|old| index.find(whole, &old.key)).max();
        let indices = whole.iter().take_while(|member| member.array_index().is_some()).count();
        let place = before.map_or(0, |at| at + 1).max(indices);
        self.members.retain(Member::is_cookie);
        self.members.splice(0..0, whole[..place].iter().cloned());
        self.members.extend_from_slice(&whole[place..]);
        self
    }

    /// Applies the key edits of `plan` to this document, which another request may have stored in
    /// the meantime. New keys are placed where JavaScript places them.
    pub(crate) fn merged(mut self, plan: &Plan<'a>) -> Self {
        let mut index = Index::default();
        let mut removed = Vec::new();
        let mut added = Vec::new();
        for KeyEdit { key, value } in &plan.edits {
            let old = index.find(&self.members, key);
            match (*value, old) {
                (Fate::Set(value), Some(at)) => self.members[at].value = value,
                (Fate::Set(value) | Fate::SetAnew(value), _) => {
                    added.push(Member { key: key.clone(), value });
                }
                (Fate::Removed, _) => {}
            }
            if !matches!(value, Fate::Set(_)) {
                removed.extend(old);
            }
        }
        if !removed.is_empty() {
            removed.sort_unstable();
            let mut places = 0..;
            self.members.retain(|_| {
                places.next().is_none_or(|place| removed.binary_search(&place).is_err())
            });
        }
        let (indices, others): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|member| member.array_index().is_some());
        if !indices.is_empty() {
            let is_index = |member: &&Member<'_>| member.array_index().is_some();
            let there = self.members.iter().take_while(is_index).count();
            self.members.splice(there..there, indices.iter().cloned());
            self.members[..there + indices.len()].sort_by_cached_key(Member::array_index);
        }
        self.members.extend(others);
        self
    }
}

impl Member<'_> {
    /// Returns the key if it is an array index (ECMA-262, section 6.1.7): in JavaScript, such
    /// members come first in every object, in ascending order.
    fn array_index(&self) -> Option<u32> {
        let name = self.key.name();
        let is_canonical = match name {
            [b'0'] => true,
            [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        let text = std::str::from_utf8(name).ok().filter(|_| is_canonical)?;
        text.parse().ok().filter(|index| *index < u32::MAX)
    }
}

/// The changes that a request makes to the data.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// The keys that change, each once.
    edits: Vec<KeyEdit<'a>>,
    /// The complete new data, if the application gave it.
    whole: Option<Vec<Member<'a>>>,
}

impl Plan<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.whole.is_none()
    }
}

fn check_key(key: &Key<'_>) -> Result<(), String> {
    let name = key.name();
    if *name == *COOKIE.as_bytes() || is_reserved(name) {
        return Err(format!(
            "`{}` cannot be a key of session data: express-session reserves it",
            String::from_utf8_lossy(name)
        ));
    }
    Ok(())
}

/// Reduces the edits to one per key.
fn read_edits(edits: &[Edit]) -> Result<Vec<KeyEdit<'_>>, String> {
    // Includes the number of the edit that determines the key's position.
    let mut last: Vec<Member<'_, (usize, Fate<'_>)>> = Vec::with_capacity(edits.len());
    let mut index = Index::default();
    for (number, edit) in edits.iter().enumerate() {
        let key = Key::of(&edit.key);
        check_key(&key)?;
        let value =
            edit.value.as_deref().map(json::value).transpose().map_err(|Invalid| {
                format!("the value of `{}` is not JSON", edit.key.escape_debug())
            })?;
        let old = index.find(&last, &key);
        let fate = match (value, old.map(|at| last[at].value)) {
            (None, _) => (number, Fate::Removed),
            (Some(value), None) => (number, Fate::Set(value)),
            (Some(value), Some((first, Fate::Set(_)))) => (first, Fate::Set(value)),
            (Some(value), Some((_, Fate::Removed))) => (number, Fate::SetAnew(value)),
            (Some(value), Some((first, Fate::SetAnew(_)))) => (first, Fate::SetAnew(value)),
        };
        match old {
            None => last.push(Member { key, value: fate }),
            Some(at) => last[at].value = fate,
        }
    }
    last.sort_by_key(|edit| edit.value.0);
    Ok(last.into_iter().map(|edit| Member { key: edit.key, value: edit.value.1 }).collect())
}

#[cfg(test)]
impl Document<'_> {
    /// Returns the application's members as JSON text.
    pub(crate) fn data_text(&self) -> String {
        let members = self.members.iter().filter(|member| !member.is_cookie()).cloned().collect();
        Document { members, ..*self }.to_text("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Document<'_>, Damaged> {
        Document::parse(text, |_| None)
    }

    fn edit(key: &str, value: Option<&str>) -> Edit {
        Edit { key: key.into(), value: value.map(Into::into) }
    }

    /// Returns `text` after `change`, with an empty cookie.
    fn after(text: &str, change: DataChange) -> String {
        let document = parse(text).unwrap();
        document.clone().changed(&document.plan(&change).unwrap()).to_text("{}")
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
        let document = parse(r#"{"cookie":{},"a":1}"#).unwrap();
        let change = DataChange::Edits(vec![edit("a", Some("1")), edit("b", None)]);
        assert!(document.plan(&change).unwrap().is_empty());
        assert!(document.plan(&DataChange::Whole(r#"{ "a" : 1 }"#.into())).unwrap().is_empty());
    }

    #[test]
    fn whole_data_replaces_all_members_in_its_own_order() {
        let text = r#"{"cookie":{},"a":1,"b":2}"#;
        let whole = DataChange::Whole(r#"{"c":3,"a":1}"#.into());
        assert_eq!(after(text, whole), r#"{"cookie":{},"c":3,"a":1}"#);
        let document = parse(text).unwrap();
        let reordered = DataChange::Whole(r#"{"b":2,"a":1}"#.into());
        assert!(!document.plan(&reordered).unwrap().is_empty());
    }

    #[test]
    fn merging_takes_only_the_keys_that_this_request_changed() {
        let base = parse(r#"{"cookie":{},"a":1,"b":2,"c":3}"#).unwrap();
        let now = parse(r#"{"cookie":{},"a":10,"b":2,"c":3,"d":4}"#).unwrap();
        let change = DataChange::Whole(r#"{"a":1,"b":20}"#.into());
        let plan = base.plan(&change).unwrap();
        assert_eq!(now.merged(&plan).to_text("{}"), r#"{"cookie":{},"a":10,"b":20,"d":4}"#);
    }

    #[test]
    fn of_duplicate_keys_the_last_value_counts_at_the_first_place() {
        let document = parse(r#"{"cookie":{},"d":1,"x":0,"d":2,"\u0064":3}"#).unwrap();
        assert_eq!(document.data_text(), r#"{"d":3,"x":0}"#);
    }

    #[test]
    fn a_text_whose_members_are_dropped_or_repeated_is_not_what_the_application_sees() {
        for (text, is_rewritten) in [
            (r#"{"cookie":{}}"#, false),
            (r#"{ "cookie": {}, "a": 1 }"#, false),
            (r#"{"cookie":{},"req":1}"#, true),
            (r#"{"cookie":{},"a":1,"a":1}"#, true),
            (r#"{"cookie":{},"cookie":{}}"#, true),
        ] {
            assert_eq!(parse(text).unwrap().is_rewritten(), is_rewritten, "{text}");
        }
    }

    #[test]
    fn a_cookie_at_the_start_may_be_known_unless_a_later_one_replaces_it() {
        let known = |text: &str| text.starts_with("{}").then_some((3, 2));
        for (text, template) in [
            (r#"{"cookie":{},"a":1}"#, Some(3)),
            (r#"{"cookie":{"a":1}}"#, None),
            (r#"{"a":1,"cookie":{}}"#, None),
            (r#"{"cookie":{},"cookie":{"b":1}}"#, None),
        ] {
            assert_eq!(Document::parse(text, known).unwrap().template(), template, "{text}");
        }
    }

    #[test]
    fn names_of_the_prototypes_are_dropped_as_express_drops_them() {
        let document = parse(
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
            assert_eq!(parse(text), Err(Damaged), "{text}");
        }
    }

    #[test]
    fn reserved_keys_and_invalid_json_are_refused() {
        let document = Document::empty();
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
    fn the_cookie_and_array_indices_are_where_javascript_has_them() {
        let edits = vec![edit("10", Some("0")), edit("z", Some("0")), edit("3", Some("0"))];
        assert_eq!(
            after(r#"{"7":1,"a":1,"cookie":{},"b":1}"#, DataChange::Edits(edits)),
            r#"{"3":0,"7":1,"10":0,"a":1,"cookie":{},"b":1,"z":0}"#
        );
        assert_eq!(
            after(r#"{"1":1,"cookie":{}}"#, DataChange::Edits(vec![edit("0", Some("0"))])),
            r#"{"0":0,"1":1,"cookie":{}}"#
        );
        let not_indices = ["01", "-1", "1.5", "4294967295"].map(|key| edit(key, Some("0")));
        assert_eq!(
            after(r#"{"cookie":{}}"#, DataChange::Edits(not_indices.to_vec())),
            r#"{"cookie":{},"01":0,"-1":0,"1.5":0,"4294967295":0}"#
        );
        let whole = DataChange::Whole(r#"{"3":0,"a":2,"b":1,"c":0}"#.into());
        assert_eq!(
            after(r#"{"7":1,"a":1,"cookie":{},"b":1}"#, whole),
            r#"{"3":0,"a":2,"cookie":{},"b":1,"c":0}"#
        );
        let whole = DataChange::Whole(r#"{"3":0,"c":0}"#.into());
        assert_eq!(after(r#"{"cookie":{},"b":1}"#, whole), r#"{"3":0,"cookie":{},"c":0}"#);
    }

    #[test]
    fn a_key_that_was_removed_and_set_again_comes_last() {
        let again = vec![
            edit("a", None),
            edit("x", Some("1")),
            edit("a", Some("1")),
            edit("x", Some("2")),
            edit("b", Some("5")),
        ];
        assert_eq!(
            after(r#"{"cookie":{},"a":1,"b":2}"#, DataChange::Edits(again)),
            r#"{"cookie":{},"b":5,"x":2,"a":1}"#
        );
        let document = parse(r#"{"cookie":{},"a":1}"#).unwrap();
        let again = DataChange::Edits(vec![edit("a", None), edit("a", Some("1"))]);
        assert!(document.plan(&again).unwrap().is_empty());
        let document = parse(r#"{"2":1,"cookie":{},"a":1,"b":2}"#).unwrap();
        let again = |keys: &[&str]| {
            let edits = |key: &&str| {
                [edit(key, None), edit(key, Some(if *key == "b" { "2" } else { "1" }))]
            };
            document
                .plan(&DataChange::Edits(keys.iter().flat_map(edits).collect()))
                .unwrap()
                .is_empty()
        };
        assert!(again(&["2"]) && again(&["a", "b"]) && again(&["b"]));
        assert!(!again(&["a"]) && !again(&["b", "a"]));
    }

    #[test]
    fn many_keys_are_found_as_quickly_as_few() {
        let count = MAX_MEMBERS - 1;
        let members: String = (0..count).map(|n| format!(",\"k{n}\":{n}")).collect();
        let text = format!("{{\"cookie\":{{}}{members}}}");
        let document = parse(&text).unwrap();
        assert_eq!(document.to_text("{}"), text);
        let whole = DataChange::Whole(document.data_text().replacen(":0", ":-1", 1));
        let edits = (0..count).map(|n| edit(&format!("k{n}"), (n % 2 == 1).then_some("1")));
        for change in [whole, DataChange::Edits(edits.collect())] {
            assert!(!document.plan(&change).unwrap().is_empty());
            document.clone().changed(&document.plan(&change).unwrap()).to_text("{}");
        }
        let doubled = format!("{{\"cookie\":{{}}{members}{members}}}");
        assert_eq!(parse(&doubled), Err(Damaged));
    }

    #[test]
    fn many_array_indices_are_added_as_quickly_as_few() {
        // Each index is placed before all previous ones.
        let count = 300_000;
        let edits = (0..count).rev().map(|n| edit(&format!("{n}"), Some("0"))).collect();
        let indices: String = (0..count).map(|n| format!("\"{n}\":0,")).collect();
        assert!(
            after(r#"{"7":1,"cookie":{},"a":1}"#, DataChange::Edits(edits))
                == format!(r#"{{{indices}"cookie":{{}},"a":1}}"#)
        );
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
            let _ = parse(&text);
            let _ = parse(&braces);
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
            let document = parse(&text).unwrap();
            let plan = document.plan(&change).unwrap();
            let result: serde_json::Value =
                serde_json::from_str(&document.clone().changed(&plan).data_text()).unwrap();
            prop_assert_eq!(result, serde_json::Value::Object(model));
        }
    }
}
