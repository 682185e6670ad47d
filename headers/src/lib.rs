//! The headers by which an application behind a gateway reads and changes its session. This crate
//! contains only the rules, for all gateways that support them.
//!
//! The application receives `Edge-Session-Id` and `Edge-Session`, the session's data as ASCII JSON.
//! It may answer with `Edge-Session`, the whole new data, or with `Edge-Session-Merge`, a JSON
//! merge patch (RFC 7396), and with `Edge-Session-Action`: `destroy`, `regenerate` or `touch`.
//!
//! The crate also finds the data in a session's text, and contains the rules for the caching headers of a response that carries a session's
//! cookie.

mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, VARY};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

pub use text::{data, member};

const PREFIX: &str = "edge-session";
const ID: HeaderName = HeaderName::from_static("edge-session-id");
const SESSION: HeaderName = HeaderName::from_static("edge-session");
const MERGE: HeaderName = HeaderName::from_static("edge-session-merge");
const ACTION: HeaderName = HeaderName::from_static("edge-session-action");

/// Returns a header's name as applications may read it. CGI keeps letters and digits and maps every
/// other character to one (`HTTP_EDGE_SESSION`: RFC 3875, section 4.1.18), as do PHP and WSGI: for
/// them `Edge.Session`, `Edge_Session` and `Edge-Session` are the same.
pub fn dashed(name: &HeaderName) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match name.as_str().bytes().all(is_plain) {
        true => name.as_str().into(),
        false => name.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-").into(),
    }
}

/// Returns whether Kubernetes sets this variable for a service whose name has our prefix:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT_HTTP`, `…_PORT`, `…_PORT_8080_TCP_ADDR`. Such a variable is
/// not a setting.
pub fn is_of_kubernetes(variable: &str) -> bool {
    let mut after_port = variable.split("_PORT_").skip(1);
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || after_port.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns whether a header is reserved for the gateway and its applications, in any spelling that
/// an application may read as such.
pub fn is_ours(name: &HeaderName) -> bool {
    dashed(name).starts_with(PREFIX)
}

/// Removes all headers reserved for the gateway and its applications, and returns whether there
/// were any.
pub fn strip(headers: &mut HeaderMap) -> bool {
    remove_where(headers, is_ours)
}

/// Removes the headers that match, and returns whether there were any. Checking each name once
/// costs less than looking up many names.
pub fn remove_where(headers: &mut HeaderMap, is_meant: impl Fn(&HeaderName) -> bool) -> bool {
    let meant: Vec<_> = headers.keys().filter(|name| is_meant(name)).cloned().collect();
    for name in &meant {
        headers.remove(name);
    }
    !meant.is_empty()
}

/// Sets the application's session headers: the identifier, and the data as a JSON object. Requests
/// without a session get both headers, too, with empty values, so that no other header can be
/// mistaken for them.
pub fn tell(headers: &mut HeaderMap, session: Option<(&str, &str)>) {
    let value = |(id, data)| {
        // Identifiers from cookies and ASCII JSON are valid header values.
        Some((HeaderValue::try_from(id).ok()?, HeaderValue::try_from(to_ascii(data)).ok()?))
    };
    let nothing = || (HeaderValue::from_static(""), HeaderValue::from_static("{}"));
    let (id, data) = session.and_then(value).unwrap_or_else(nothing);
    headers.insert(ID, id);
    headers.insert(SESSION, data);
}

/// Converts JSON to printable ASCII. Escapes all other characters, which occur only in strings.
fn to_ascii(json: &str) -> String {
    if json.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return json.to_owned();
    }
    let mut ascii = String::with_capacity(json.len() + json.len() / 2);
    for c in json.chars() {
        match c {
            ' '..='~' => ascii.push(c),
            // These occur only between values: strings contain them escaped.
            '\t' | '\n' | '\r' => ascii.push(' '),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    ascii
}

/// What the application requests for its session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The change of the data.
    pub change: Change,
    /// The change of the session as a whole.
    pub action: Action,
}

/// What the application requests for the session's data.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Change {
    /// Keep the data.
    #[default]
    Nothing,
    /// Replace the data with this JSON object.
    Whole(String),
    /// Apply this merge patch to the data.
    Merge(Map<String, Value>),
}

/// What the application requests for the session as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Action {
    /// Keep the session.
    #[default]
    Keep,
    /// End the session.
    Destroy,
    /// End the session, and begin another one with the data of this answer.
    Regenerate,
}

impl Answer {
    /// Takes the application's answer out of the response's headers. An error says what is wrong,
    /// without quoting values, which are secret.
    pub fn take(headers: &mut HeaderMap) -> Result<Self, String> {
        if !headers.keys().any(is_ours) {
            return Ok(Self::default());
        }
        let answer = Self::read(headers);
        strip(headers);
        answer
    }

    fn read(headers: &HeaderMap) -> Result<Self, String> {
        let known = [SESSION, MERGE, ACTION, ID];
        let stray = |name: &&HeaderName| is_ours(name) && !known.contains(name);
        if let Some(name) = headers.keys().find(stray) {
            return Err(format!(
                "{name} is none of Edge-Session, Edge-Session-Merge, Edge-Session-Action"
            ));
        }
        let change = match (single(headers, &SESSION)?, single(headers, &MERGE)?) {
            (None, None) => Change::Nothing,
            (Some(_), Some(_)) => {
                return Err("Edge-Session and Edge-Session-Merge exclude each other".to_owned());
            }
            // A lone surrogate is valid JSON, though not Unicode text: values are not parsed.
            (Some(whole), None) => match serde_json::from_str::<BTreeMap<String, &RawValue>>(whole)
            {
                Ok(_) => Change::Whole(whole.to_owned()),
                Err(_) => return Err("Edge-Session is not a JSON object".to_owned()),
            },
            (None, Some(patch)) => match serde_json::from_str(patch) {
                Ok(patch) => Change::Merge(patch),
                Err(_) => return Err("Edge-Session-Merge is not a JSON object".to_owned()),
            },
        };
        let action = match single(headers, &ACTION)? {
            None | Some("touch") => Action::Keep,
            Some("destroy") => Action::Destroy,
            Some("regenerate") => Action::Regenerate,
            Some(_) => {
                let what = "Edge-Session-Action is not one of destroy, regenerate, touch";
                return Err(what.to_owned());
            }
        };
        if action == Action::Destroy && change != Change::Nothing {
            return Err("a session that is destroyed cannot be changed".to_owned());
        }
        Ok(Self { change, action })
    }

    /// Returns whether the application requests nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the text to store for a value that replaces `old`: the old text if both are equal, so
/// that only real differences count as changes.
pub fn text_of(new: &RawValue, old: Option<&RawValue>) -> Box<RawValue> {
    let means = |text: &RawValue, value: &Value| {
        serde_json::from_str::<Value>(text.get()).is_ok_and(|old| is_same(&old, value))
    };
    match (old, serde_json::from_str::<Value>(new.get())) {
        (Some(old), Ok(value)) if means(old, &value) => old.to_owned(),
        // Keep digits that a double would lose: in languages with large integers they are
        // significant.
        (_, Ok(_)) if has_huge_integer(new.get()) => new.to_owned(),
        // Without spaces, as JavaScript writes it.
        (_, Ok(value)) => to_raw_value(&value).unwrap_or_else(|_| new.to_owned()),
        // A lone surrogate is valid JSON, though not Unicode text.
        (_, Err(_)) => new.to_owned(),
    }
}

/// Returns whether two values are equal in every language: 1.0 is 1.
fn is_same(one: &Value, other: &Value) -> bool {
    /// Up to this, a double stands for exactly one integer (ECMA-262: Number.MAX_SAFE_INTEGER).
    const EXACT: f64 = 9_007_199_254_740_991.0;
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (a, b) = (one.as_f64(), other.as_f64());
            one == other || (a == b && a.is_some_and(|a| a.abs() <= EXACT))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |(key, value)| other.get(key).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(has)
        }
        (one, other) => one == other,
    }
}

/// Returns whether a JSON text contains an integer beyond 64 bits.
fn has_huge_integer(json: &str) -> bool {
    // Few values have so many digits, and the others are not copied.
    let has_digits = json.split(|c: char| !c.is_ascii_digit()).any(|run| run.len() > 18);
    if !has_digits {
        return false;
    }
    // Without escaped quotation marks, every other piece is outside of strings.
    let plain = json.replace("\\\\", "").replace("\\\"", "");
    let outside = plain.split('"').step_by(2);
    let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let numbers = outside.flat_map(|text| text.split(move |c| !is_part(c)));
    numbers
        .filter(|number| number.len() > 18 && !number.contains(['.', 'e', 'E']))
        .any(|number| number.parse::<u64>().is_err() && number.parse::<i64>().is_err())
}

/// Applies a merge patch (RFC 7396, section 2).
pub fn merge_into(target: &mut Value, patch: Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    // Removes all keys at once, so that the others are moved only once.
    if patch.values().any(Value::is_null) {
        target.retain(|key, _| !patch.get(key).is_some_and(Value::is_null));
    }
    for (key, value) in patch {
        match value {
            Value::Null => {}
            Value::Object(patch) => merge_into(target.entry(key).or_insert(Value::Null), patch),
            value => drop(target.insert(key, value)),
        }
    }
}

/// Returns the Cookie headers as one (RFC 9113, section 8.2.3).
pub fn cookies(headers: &HeaderMap) -> Vec<u8> {
    let mut all = headers.get_all(COOKIE).iter();
    let mut cookies = all.next().map_or(Vec::new(), |value| value.as_bytes().to_vec());
    for value in all {
        cookies.extend_from_slice(b"; ");
        cookies.extend_from_slice(value.as_bytes());
    }
    cookies
}

/// Returns whether there is a Set-Cookie for the cookie `name`.
pub fn has_set_cookie(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(SET_COOKIE);
    values.iter().any(|value| cookie_name(value.as_bytes()) == name.as_bytes())
}

/// Removes every Set-Cookie for the cookie `name`, and returns whether there was one.
pub fn remove_set_cookie(headers: &mut HeaderMap, name: &str) -> bool {
    let is_ours = |value: &HeaderValue| cookie_name(value.as_bytes()) == name.as_bytes();
    if !has_set_cookie(headers, name) {
        return false;
    }
    let http::header::Entry::Occupied(entry) = headers.entry(SET_COOKIE) else { return false };
    let (_, values) = entry.remove_entry_mult();
    let others: Vec<_> = values.filter(|value| !is_ours(value)).collect();
    for value in others {
        headers.append(SET_COOKIE, value);
    }
    true
}

/// Prevents shared caches from serving a response with a visitor's cookie to others: sets
/// `Cache-Control: no-store`, or the application's value as changed by [`cache_control`], and
/// `Vary: Cookie`.
pub fn keep_private(headers: &mut HeaderMap) {
    let old: Vec<_> = headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    let new = match old.is_empty() {
        true => b"no-store".to_vec(),
        // Several fields are one list (RFC 9110, section 5.3).
        false => cache_control(&old.join(&b", "[..])),
    };
    // Joined header values form a valid header value.
    if let Ok(new) = HeaderValue::from_bytes(&new) {
        headers.insert(CACHE_CONTROL, new);
    }
    // These are for shared caches, which then ignore Cache-Control (RFC 9213).
    let is_targeted = |name: &&HeaderName| {
        let name = name.as_str();
        name == "surrogate-control" || name.ends_with("-cache-control")
    };
    let targeted: Vec<_> = headers.keys().filter(is_targeted).cloned().collect();
    for name in targeted {
        headers.insert(name, HeaderValue::from_static("no-store"));
    }
    vary_by_cookie(headers);
}

/// Adds `Vary: Cookie`, unless already present, so that caches serve the response only to requests
/// with the same cookies.
pub fn vary_by_cookie(headers: &mut HeaderMap) {
    let varies = headers.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(COOKIE.as_str().as_bytes()))
    });
    if !varies {
        headers.append(VARY, HeaderValue::from_static("Cookie"));
    }
}

/// Returns a Cache-Control that forbids shared caching: removes `public` and `s-maxage`, and adds
/// `private` unless it or `no-store` is present. Other directives are unchanged.
pub fn cache_control(value: &[u8]) -> Vec<u8> {
    let directives = directives(value).into_iter().filter(|directive| {
        let (name, _) = parts(directive);
        !name.eq_ignore_ascii_case(b"public") && !name.eq_ignore_ascii_case(b"s-maxage")
    });
    let mut directives: Vec<_> = directives.collect();
    let has = |sought: &[u8]| {
        // `private="x-user"` restricts only that field.
        let is_sought = |(name, argument): (&[u8], &[u8])| {
            argument.is_empty() && name.eq_ignore_ascii_case(sought)
        };
        directives.iter().any(|directive| is_sought(parts(directive)))
    };
    // Beside `must-understand`, `no-store` is ignored by caches that understand the status (RFC
    // 9111, 5.2.2.3).
    if !has(b"private") && (!has(b"no-store") || has(b"must-understand")) {
        // In front, because after an unclosed quotation mark it would not be a directive.
        directives.insert(0, b"private");
    }
    directives.join(&b", "[..])
}

/// Splits a list at its commas, except within quotation marks (RFC 9110, 5.6.4).
fn directives(value: &[u8]) -> Vec<&[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let pieces = value.split(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' => return !is_quoted,
            _ => {}
        }
        false
    });
    pieces.map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty()).collect()
}

/// Splits a directive into its name and its argument.
fn parts(directive: &[u8]) -> (&[u8], &[u8]) {
    let equals = directive.iter().position(|byte| *byte == b'=').unwrap_or(directive.len());
    let argument = directive.get(equals + 1..).unwrap_or_default();
    (directive[..equals].trim_ascii(), argument.trim_ascii())
}

/// Returns the name in a `name=value` of a Cookie or Set-Cookie header.
pub fn cookie_name(pair: &[u8]) -> &[u8] {
    let end = pair.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(pair.len());
    pair[..end].trim_ascii()
}

/// Returns the value of a header that must be text and occur at most once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(format!("{name} is repeated")),
        (Some(value), None) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(format!("{name} is not UTF-8")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(list: &[(&'static str, &str)]) -> Result<Answer, String> {
        let mut headers: HeaderMap = list
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect();
        let answer = Answer::take(&mut headers);
        assert!(!headers.keys().any(is_ours));
        answer
    }

    #[test]
    fn what_means_the_same_keeps_its_text_and_no_digit_is_lost() {
        for (new, old, text) in [
            ("1", "1.0", "1.0"),
            ("[1,{\"a\":2.0}]", "[1.0, {\"a\":2}]", "[1.0, {\"a\":2}]"),
            ("-0", "0", "0"),
            ("1", "1.5", "1"),
            // Adjacent integers that are equal in JavaScript but not in other languages.
            ("9007199254740993", "9007199254740992", "9007199254740993"),
            ("9007199254740992", "9007199254740993.0", "9007199254740992"),
            ("18446744073709551617", "1", "18446744073709551617"),
            ("[\"\\\"\", -9223372036854775809]", "1", "[\"\\\"\", -9223372036854775809]"),
            // Digits in a string are not a number.
            ("\"18446744073709551617\\u0041\"", "1", "\"18446744073709551617A\""),
            ("[ 1 , 2.50 ]", "1", "[1,2.5]"),
        ] {
            let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
            assert_eq!(text_of(&raw(new), Some(&raw(old))).get(), text, "{new} for {old}");
        }
    }

    #[test]
    fn a_name_in_any_spelling_is_ours() {
        let mut headers = HeaderMap::new();
        for other in "-_.!#$%&'*+^`|~".chars() {
            for name in ["edge?session", "edge-session?id", "edge?session-merge"] {
                let name = name.replace('?', &other.to_string());
                headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("{}"));
            }
        }
        for name in ["edge", "x_y", "edgesession"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("{}"));
        }
        assert!(strip(&mut headers));
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["edge", "edgesession", "x_y"]);
    }

    #[test]
    fn an_application_is_told_of_every_session_and_of_none() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, Some(("an-id", "{\"n\":1}")));
        assert_eq!(
            (&headers[ID], &headers[SESSION]),
            (&"an-id".parse().unwrap(), &"{\"n\":1}".parse().unwrap())
        );
        tell(&mut headers, None);
        assert_eq!((headers[ID].as_bytes(), headers[SESSION].as_bytes()), (&b""[..], &b"{}"[..]));
    }

    #[test]
    fn an_answer_without_session_headers_changes_nothing() {
        assert!(take(&[("content-type", "text/plain")]).unwrap().is_nothing());
        assert!(take(&[("edge-session-action", "touch")]).unwrap().is_nothing());
    }

    #[test]
    fn headers_that_are_no_answer_are_refused_and_never_passed_on() {
        for (list, what) in [
            (&[("edge-session", "{")][..], "JSON object"),
            (&[("edge-session", "[1]")], "JSON object"),
            (&[("edge-session", "")], "JSON object"),
            (&[("edge-session-merge", "\"x\"")], "JSON object"),
            (&[("edge-session", "{}"), ("edge-session", "{}")], "is repeated"),
            (&[("edge-session", "{}"), ("edge-session-merge", "{}")], "exclude"),
            (&[("edge-session-action", "explode")], "not one of"),
            (&[("edge-session-action", "destroy"), ("edge-session", "{}")], "cannot be changed"),
            (&[("edge-session-marge", "{}")], "is none of"),
            (&[("edge_session", "{}")], "is none of"),
        ] {
            let error = take(list).unwrap_err();
            assert!(error.contains(what), "{list:?}: {error}");
        }
    }

    #[test]
    fn a_value_of_an_answer_is_never_in_an_error() {
        let error = take(&[("edge-session", "{\"password\": hunter2}")]).unwrap_err();
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn an_application_cannot_set_the_session_cookie() {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1; Path=/"));
        headers.append(SET_COOKIE, HeaderValue::from_static(" connect.sid = x; Path=/"));
        assert!(remove_set_cookie(&mut headers, "connect.sid"));
        assert_eq!(headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1; Path=/"]);
        assert!(!remove_set_cookie(&mut headers, "connect.sid"));
    }

    #[test]
    fn a_response_with_a_cookie_is_kept_out_of_shared_caches() {
        let table = include_str!("../../tests/conformance/cache-control.json");
        let table: Vec<(String, String)> = serde_json::from_str(table).unwrap();
        assert!(table.len() > 20);
        for (said, kept) in table {
            let new = cache_control(said.as_bytes());
            assert_eq!(
                new.escape_ascii().to_string(),
                kept.as_bytes().escape_ascii().to_string(),
                "{said}"
            );
        }
    }

    #[test]
    fn what_the_application_says_to_caches_is_one_list() {
        let kept = |said: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            keep_private(&mut headers);
            let all = headers.get_all(CACHE_CONTROL).iter();
            all.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[]), ["no-store"]);
        assert_eq!(kept(&["public", "max-age=60"]), ["private, max-age=60"]);
        assert_eq!(kept(&["max-age=60", "private"]), ["max-age=60, private"]);
        assert_eq!(kept(&[""]), ["private"]);
    }

    #[test]
    fn what_is_said_to_shared_caches_alone_is_that_they_store_nothing() {
        let mut headers = HeaderMap::new();
        for name in ["cdn-cache-control", "surrogate-control", "x-cdn-cache-control", "x-control"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("max-age=9"));
        }
        keep_private(&mut headers);
        for name in ["cdn-cache-control", "surrogate-control", "x-cdn-cache-control"] {
            assert_eq!(headers[name], "no-store", "{name}");
        }
        assert_eq!(headers["x-control"], "max-age=9");
    }

    #[test]
    fn a_response_with_a_cookie_varies_by_cookies_once() {
        for (said, kept) in [
            (&[][..], &["Cookie"][..]),
            (&["Accept"], &["Accept", "Cookie"]),
            (&["Accept, COOKIE"], &["Accept, COOKIE"]),
            (&["Accept", "cookie"], &["Accept", "cookie"]),
            (&["Accept , *"], &["Accept , *"]),
            (&["X-Cookie, Cookie-X"], &["X-Cookie, Cookie-X", "Cookie"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(VARY, HeaderValue::from_static(value));
            }
            for _ in 0..2 {
                keep_private(&mut headers);
                assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), kept);
            }
        }
    }

    proptest! {
        /// Whatever the application sends, its other directives stay, in their order, and no shared
        /// cache may store the response.
        #[test]
        fn directives_of_others_stay_as_they_are(
            said in proptest::collection::vec(
                proptest::sample::select(vec![
                    "public", "s-maxage=1", "private", "no-store", "max-age=60", "no-cache=\"a,b\"",
                    "private=\"x\"", "must-understand", "x=\"\\\"\"", "PUBLIC", "immutable",
                ]),
                0..6,
            ),
        ) {
            let new = cache_control(said.join(",").as_bytes());
            let shared = ["public", "s-maxage=1", "PUBLIC"];
            let left: Vec<_> = said.iter().filter(|it| !shared.contains(it)).copied().collect();
            let is_private = left.contains(&"private")
                || (left.contains(&"no-store") && !left.contains(&"must-understand"));
            let first = if is_private { None } else { Some("private") };
            let expected: Vec<_> = first.into_iter().chain(left).collect();
            prop_assert_eq!(String::from_utf8(new).unwrap(), expected.join(", "));
        }

        #[test]
        fn any_cache_control_is_kept_private_once(said in "[ -~\t\u{80}-\u{ff}]{0,40}") {
            let new = cache_control(said.as_bytes());
            prop_assert!(HeaderValue::from_bytes(&new).is_ok());
            prop_assert_eq!(cache_control(&new), new);
        }
    }

    #[test]
    fn a_merge_patch_removes_many_keys_as_quickly_as_few() {
        let object = |keys: std::ops::Range<usize>, value: Value| -> Map<String, Value> {
            keys.map(|n| (n.to_string(), value.clone())).collect()
        };
        let mut target = Value::from(object(0..200_000, 1.into()));
        merge_into(&mut target, object(0..100_000, Value::Null));
        assert!(target == Value::from(object(100_000..200_000, 1.into())));
    }

    #[test]
    fn data_is_told_in_ascii_that_means_the_same() {
        let json = "{\"name\":\"Zo\u{eb} \u{1f600} \\n\",\n\t\"n\":1}";
        let ascii = to_ascii(json);
        assert!(ascii.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{ascii}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&ascii), read(json));
        assert_eq!(to_ascii("{\"a\":1}"), "{\"a\":1}");
    }
}
