//! The session as a handler sees it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use edge_session_headers::{merge_into, text_of};
use http::StatusCode;
use http::request::Parts;
use indexmap::IndexMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::Origin;
use crate::found::{Found, Unreadable, member, members};
use crate::store::Stored;
use edge_session_component::wit;

/// The member of a session's text that is not data.
const COOKIE: &str = "cookie";

/// One visitor's session, for the duration of one request.
///
/// Extract it in an axum handler, or take it from the request's extensions elsewhere. All clones
/// share the same session. Changes are stored after the handler returns and before the response's
/// headers are sent; if the inner service returns an error, nothing is changed.
///
/// ```
/// # use edge_session::Session;
/// async fn view_counter(session: Session) -> Result<String, edge_session::SessionError> {
///     let count = session.get::<u64>("viewCount")?.unwrap_or(0) + 1;
///     session.insert("viewCount", count)?;
///     Ok(format!("you have visited this page {count} times"))
/// }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Mutex<State>>);

struct State {
    id: String,
    origin: Origin,
    /// The session as it was loaded.
    stored: Option<Arc<Stored>>,
    /// The session's JSON text, if it is not that of `stored`.
    text: Option<String>,
    cookie_edits: Vec<wit::Edit>,
    edits: Edits,
    /// Whether the stored data is discarded.
    is_cleared: bool,
    action: wit::Action,
}

/// An edit of one key.
enum Edit {
    Set(Box<RawValue>),
    Removed,
    /// Removed and then set again, which moves the key to the end.
    SetAnew(Box<RawValue>),
}

impl Edit {
    fn value(&self) -> Option<&RawValue> {
        match self {
            Self::Set(raw) | Self::SetAnew(raw) => Some(raw),
            Self::Removed => None,
        }
    }
}

/// The edits of all keys.
#[derive(Default)]
struct Edits {
    /// Each with a number that preserves the key order of JavaScript objects.
    by_key: HashMap<String, (usize, Edit)>,
    next: usize,
}

impl Edits {
    fn get(&self, key: &str) -> Option<&Edit> {
        self.by_key.get(key).map(|(_, edit)| edit)
    }

    fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn set(&mut self, key: String, raw: Box<RawValue>) {
        let (number, edit) = match self.by_key.get(&key) {
            Some((_, Edit::Removed)) => (self.next, Edit::SetAnew(raw)),
            Some((number, Edit::SetAnew(_))) => (*number, Edit::SetAnew(raw)),
            Some((number, Edit::Set(_))) => (*number, Edit::Set(raw)),
            None => (self.next, Edit::Set(raw)),
        };
        self.by_key.insert(key, (number, edit));
        self.next += 1;
    }

    fn remove(&mut self, key: String) {
        self.by_key.insert(key, (self.next, Edit::Removed));
        self.next += 1;
    }

    fn in_order(&self) -> Vec<(&str, &Edit)> {
        let mut list: Vec<_> = self.by_key.iter().collect();
        list.sort_unstable_by_key(|(_, (number, _))| *number);
        list.into_iter().map(|(key, (_, edit))| (key.as_str(), edit)).collect()
    }

    fn into_order(self) -> Vec<(String, Edit)> {
        let mut list: Vec<_> = self.by_key.into_iter().collect();
        list.sort_unstable_by_key(|(_, (number, _))| *number);
        list.into_iter().map(|(key, (_, edit))| (key, edit)).collect()
    }

    /// Returns whether the stored value of the key no longer counts: it was removed, or moved to
    /// the end.
    fn leaves_out(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Edit::Removed | Edit::SetAnew(_)))
    }
}

/// A value that cannot be stored or read in the requested form. Errors name keys and types. Neither
/// `Display` nor `Debug` shows values, which are the visitor's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The value cannot be written as JSON.
    #[error("the session value `{key}` cannot be written as JSON: its type is {given}")]
    Serialize {
        /// The key.
        key: String,
        /// The value's Rust type.
        given: &'static str,
        /// The problem with the value.
        source: ValueError,
    },
    /// The new data is not a JSON object.
    #[error("the session's data is not a JSON object: {source}")]
    NotAnObject {
        /// The problem with the data.
        source: ValueError,
    },
    /// The stored value is not of the requested type.
    #[error("the session value `{key}` cannot be read as {expected}: {source}")]
    Deserialize {
        /// The key.
        key: String,
        /// The requested Rust type.
        expected: &'static str,
        /// How the value differs.
        source: ValueError,
    },
}

/// serde's error about a value. serde's message may quote the value, which is secret: `Display` and
/// `Debug` give only the position in the value's JSON.
pub struct ValueError(serde_json::Error);

impl ValueError {
    /// Returns serde's own error, which may quote the value: not for logs or visitors.
    pub fn in_full(&self) -> &serde_json::Error {
        &self.0
    }
}

impl std::error::Error for ValueError {}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.line(), self.0.column()) {
            (0, _) => f.write_str("serde rejects the value"),
            (line, column) => write!(f, "at line {line}, column {column} of its JSON"),
        }
    }
}

impl std::fmt::Debug for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ValueError({self})")
    }
}

impl IntoResponse for SessionError {
    /// Responds with 500, without details.
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        (StatusCode::INTERNAL_SERVER_ERROR, "session error\n").into_response()
    }
}

impl Session {
    /// Creates the application's handle, and returns it with the visit that the gateway keeps.
    pub(crate) fn new(session: wit::Session, stored: Option<Arc<Stored>>) -> (Self, wit::Visit) {
        let wit::Session { visit, origin, text } = session;
        let state = State {
            id: visit.id.clone(),
            origin,
            stored,
            text,
            cookie_edits: Vec::new(),
            edits: Edits::default(),
            is_cleared: false,
            action: wit::Action::Keep,
        };
        (Self(Arc::new(Mutex::new(state))), visit)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the value of `key`, if there is one.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        let state = self.lock();
        // The component passes only JSON objects, which can always be searched.
        let raw = state.value(key).unwrap_or(None);
        raw.map(|raw| serde_json::from_str(raw.get())).transpose().map_err(|source| {
            let expected = std::any::type_name::<T>();
            SessionError::Deserialize { key: key.to_owned(), expected, source: ValueError(source) }
        })
    }

    /// Sets `key` to `value`, as JSON. `cookie` and the names of JavaScript's `Session.prototype`
    /// (`id`, `save`, `toString`, …) are not allowed as keys and make the request fail.
    pub fn insert(&self, key: &str, value: impl Serialize) -> Result<(), SessionError> {
        let raw = to_raw_value(&value).map_err(|source| {
            let given = std::any::type_name_of_val(&value);
            SessionError::Serialize { key: key.to_owned(), given, source: ValueError(source) }
        })?;
        self.set(key.to_owned(), raw);
        Ok(())
    }

    fn set(&self, key: String, raw: Box<RawValue>) {
        self.lock().edits.set(key, raw);
    }

    /// Removes `key`.
    pub fn remove(&self, key: &str) {
        self.lock().edits.remove(key.to_owned());
    }

    /// Removes all keys.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.edits = Edits::default();
        state.is_cleared = true;
    }

    /// Returns all current values.
    pub fn data(&self) -> Map<String, Value> {
        let state = self.lock();
        // A text that is not Unicode (a lone surrogate) has no `Value`.
        let value = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        state.now().into_iter().map(|(key, raw)| (key.into_owned(), value(raw))).collect()
    }

    /// Returns the current value at a JSON pointer (RFC 6901). Also none if the pointer is empty or
    /// the value cannot be read; [`Self::find`] distinguishes these.
    pub fn pointer(&self, pointer: &str) -> Option<Value> {
        self.find(pointer).value().ok().flatten()
    }

    /// Looks up a JSON pointer (RFC 6901) in the current data.
    pub fn find(&self, pointer: &str) -> Found {
        let state = self.lock();
        Found::among(|key| state.value(key), pointer)
    }

    /// Returns all data as a JSON object; the stored text if nothing was changed.
    pub fn to_json(&self) -> String {
        let state = self.lock();
        if state.edits.is_empty() && !state.is_cleared {
            return edge_session_headers::data(state.text());
        }
        // Serialization cannot fail: the values are JSON already.
        serde_json::to_string(&state.now()).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Replaces all data with a JSON object. Values that equal the previous ones keep their text,
    /// so that only real differences count as changes.
    pub fn set_json(&self, json: &str) -> Result<(), SessionError> {
        let new: IndexMap<String, &RawValue> = serde_json::from_str(json)
            .map_err(|source| SessionError::NotAnObject { source: ValueError(source) })?;
        let mut state = self.lock();
        let mut edits = Edits::default();
        {
            let old = state.stored();
            for (key, new) in new {
                let raw = text_of(new, old.get(key.as_str()).copied());
                edits.set(key, raw);
            }
        }
        state.edits = edits;
        state.is_cleared = true;
        Ok(())
    }

    /// Applies a JSON merge patch (RFC 7396) to the data: null removes, objects merge, everything
    /// else is set. Fails without any change if an object would be merged into an unreadable value.
    pub fn merge(&self, patch: Map<String, Value>) -> Result<(), SessionError> {
        let mut state = self.lock();
        for (key, raw) in state.merged(patch)? {
            match raw {
                Some(raw) => state.edits.set(key, raw),
                None => state.edits.remove(key),
            }
        }
        Ok(())
    }

    /// Renews the session: keeps the data under a new identifier. Call it when a visitor's
    /// privileges change, above all at login, to prevent session fixation.
    pub fn renew(&self) {
        let mut state = self.lock();
        if state.action == wit::Action::Keep {
            state.action = wit::Action::Renew;
        }
    }

    /// Deletes the session and begins an empty one under a new identifier.
    pub fn regenerate(&self) {
        self.clear();
        let mut state = self.lock();
        state.action = wit::Action::Regenerate;
        state.cookie_edits.clear();
    }

    /// Corresponds to setting `req.session` to null: depending on the option `unset`, the stored
    /// session is kept unchanged or deleted as by [`Self::destroy`].
    pub fn unset(&self) {
        let mut state = self.lock();
        state.action = match state.action {
            // The stored session was already given up.
            wit::Action::Regenerate | wit::Action::Destroy => wit::Action::Destroy,
            _ => wit::Action::Unset,
        };
    }

    /// Deletes the session and clears the browser's cookie: logout.
    pub fn destroy(&self) {
        self.clear();
        self.lock().action = wit::Action::Destroy;
    }

    /// Sets the lifetime of this session and its cookie, counted from the last request: "remember
    /// me". None: until the browser closes. Other sessions keep the configured lifetime.
    pub fn set_max_age(&self, max_age: Option<Duration>) {
        // The largest time value of a JavaScript Date, far beyond the year 9999.
        let millis = |age: Duration| age.as_millis().min(8_640_000_000_000_000) as u64;
        self.set_cookie("maxAge", max_age.map(millis));
    }

    /// Assigns a setting of this session's cookie, as to a property of express-session's
    /// `req.session.cookie`: `maxAge` and `expires` (milliseconds), `path`, `domain`, `httpOnly`,
    /// `secure`, `sameSite`, `partitioned`, `priority`. None removes `domain`, `sameSite` and
    /// `priority`. A setting or a value that no cookie can have makes the request fail.
    /// [`Self::set_max_age`] is the usual one.
    pub fn set_cookie(&self, setting: &str, value: impl Serialize) {
        // What cannot be written as JSON is refused like any other value.
        let value = Some(serde_json::to_string(&value).unwrap_or_default());
        self.lock().cookie_edits.push(wit::Edit { key: setting.to_owned(), value });
    }

    /// Returns the session's identifier. It is as secret as a password: never log or show it.
    pub fn id(&self) -> String {
        self.lock().id.clone()
    }

    /// Returns where the session comes from.
    pub fn origin(&self) -> Origin {
        self.lock().origin
    }

    /// Returns the settings of the session's cookie as they were at the beginning of the request,
    /// as express-session writes them: `originalMaxAge` and `expires`, `path`, `httpOnly`, and
    /// those of `domain`, `secure`, `sameSite`, `partitioned` and `priority` that are set.
    pub fn cookie(&self) -> Map<String, Value> {
        let state = self.lock();
        let cookie = member(state.text(), COOKIE).unwrap_or(None);
        cookie.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// Returns when the stored session expires unless it is used; none if it is not stored yet.
    pub fn expires(&self) -> Option<SystemTime> {
        let state = self.lock();
        let expires = state.stored.as_ref().filter(|_| state.origin == Origin::Loaded)?.expires?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(expires))
    }

    /// Returns the application's change.
    pub(crate) fn change(&self) -> wit::Change {
        let mut state = self.lock();
        let edits = std::mem::take(&mut state.edits);
        let data = if state.is_cleared {
            let order = edits.in_order().into_iter();
            let kept: IndexMap<_, _> =
                order.filter_map(|(key, edit)| Some((key, edit.value()?))).collect();
            // Serialization cannot fail: the values are JSON already.
            wit::DataChange::Whole(serde_json::to_string(&kept).unwrap_or_else(|_| "{}".to_owned()))
        } else if edits.is_empty() {
            wit::DataChange::Nothing
        } else {
            let mut list = Vec::new();
            for (key, edit) in edits.into_order() {
                if let Edit::SetAnew(_) = edit {
                    list.push(wit::Edit { key: key.clone(), value: None });
                }
                let value = match edit {
                    Edit::Set(raw) | Edit::SetAnew(raw) => Some(Box::<str>::from(raw).into()),
                    Edit::Removed => None,
                };
                list.push(wit::Edit { key, value });
            }
            wit::DataChange::Edits(list)
        };
        let cookie = std::mem::take(&mut state.cookie_edits);
        wit::Change { action: state.action, data, cookie }
    }
}

/// A key and its new value; none: the key is removed.
type Patched = (String, Option<Box<RawValue>>);

impl State {
    /// Returns the session's JSON text, with its cookie.
    fn text(&self) -> &str {
        let stored = self.stored.as_ref().map(|it| &*it.data);
        self.text.as_deref().or(stored).unwrap_or("{}")
    }

    /// Returns the current value of `key`.
    fn value(&self, key: &str) -> Result<Option<&RawValue>, Unreadable> {
        match self.edits.get(key) {
            Some(edit) => Ok(edit.value()),
            None if self.is_cleared || key == COOKIE => Ok(None),
            None => member(self.text(), key),
        }
    }

    /// Returns the stored values, unless they were cleared.
    fn stored(&self) -> IndexMap<Cow<'_, str>, &RawValue> {
        if self.is_cleared {
            return IndexMap::new();
        }
        let mut members = members(self.text()).unwrap_or_default();
        members.shift_remove(COOKIE);
        members
    }

    /// Returns the new values of the keys in a merge patch.
    fn merged(&self, patch: Map<String, Value>) -> Result<Vec<Patched>, SessionError> {
        // Parsed once, however many values are needed.
        let stored = match patch.values().any(Value::is_object) {
            true => self.stored(),
            false => IndexMap::new(),
        };
        let old = |key: &str| match self.edits.get(key) {
            Some(edit) => edit.value(),
            None => stored.get(key).copied(),
        };
        let mut merged = Vec::with_capacity(patch.len());
        for (key, value) in patch {
            let value = match value {
                Value::Null => {
                    merged.push((key, None));
                    continue;
                }
                Value::Object(patch) => {
                    let mut target = match old(&key).map(|raw| serde_json::from_str(raw.get())) {
                        None => Value::Null,
                        Some(Ok(value)) => value,
                        Some(Err(source)) => {
                            let source = ValueError(source);
                            let expected = std::any::type_name::<Value>();
                            return Err(SessionError::Deserialize { key, expected, source });
                        }
                    };
                    merge_into(&mut target, patch);
                    target
                }
                value => value,
            };
            merged.push((key, Some(to_raw_value(&value).unwrap_or_default())));
        }
        Ok(merged)
    }

    /// Returns all current values.
    fn now(&self) -> IndexMap<Cow<'_, str>, &RawValue> {
        let mut data = self.stored();
        data.retain(|key, _| !self.edits.leaves_out(key));
        for (key, edit) in self.edits.in_order() {
            if let Some(raw) = edit.value() {
                data.insert(key.into(), raw);
            }
        }
        data
    }
}

impl std::fmt::Debug for Session {
    /// Omits the identifier and the data, which are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// No session was found to extract: the route is not behind a `SessionLayer`, or its path is
/// outside the cookie's path.
#[derive(Clone, Copy, Debug)]
pub struct NoSession;

impl IntoResponse for NoSession {
    /// Responds with 500: it is the gateway's mistake, not the visitor's.
    fn into_response(self) -> Response {
        tracing::error!(
            "a handler requires a session, but there is none: is the route behind a SessionLayer, \
             and does its path begin with cookie.path?"
        );
        (StatusCode::INTERNAL_SERVER_ERROR, "no session\n").into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoSession> {
        parts.extensions.get::<Self>().cloned().ok_or(NoSession)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(data: &str) -> Session {
        let data = data.replacen('{', r#"{"cookie":{"path":"/"},"#, 1).replace(",}", "}");
        let visit =
            wit::Visit { id: "an-identifier".into(), state: wit::State { bits: 0, text: None } };
        let stored = Arc::new(Stored { data, expires: None, touched: None });
        Session::new(wit::Session { visit, origin: Origin::Loaded, text: None }, Some(stored)).0
    }

    /// Returns the whole data that the component would get.
    fn whole(session: &Session) -> String {
        match session.change().data {
            wit::DataChange::Whole(text) => text.to_string(),
            other => panic!("not the whole data: {other:?}"),
        }
    }

    #[test]
    fn data_that_means_the_same_keeps_its_text() {
        let session = session(r#"{"n":1e2,"o":{"b":1,"a":"\u00e9"},"x":1}"#);
        session.set_json(r#"{ "n": 100.0, "o": {"b": 1, "a": "é"}, "new": [1, 2] }"#).unwrap();
        assert_eq!(session.to_json(), r#"{"n":1e2,"o":{"b":1,"a":"\u00e9"},"new":[1,2]}"#);
        assert_eq!(whole(&session), r#"{"n":1e2,"o":{"b":1,"a":"\u00e9"},"new":[1,2]}"#);
    }

    #[test]
    fn whole_data_that_is_no_object_changes_nothing() {
        let session = session(r#"{"a":1}"#);
        for json in ["", "[]", "1", "null", r#"{"a":1"#, "{} x"] {
            assert!(session.set_json(json).is_err(), "{json}");
        }
        assert_eq!(session.to_json(), r#"{"a":1}"#);
        // Valid JSON that is not Unicode text.
        session.set_json(r#"{"a":"\ud800"}"#).unwrap();
        assert_eq!(session.to_json(), r#"{"a":"\ud800"}"#);
    }

    #[test]
    fn a_merge_patch_sets_removes_and_goes_into_objects() {
        let session = session(r#"{"a":1,"b":{"c":1,"d":{"e":1}},"gone":1,"text":"x"}"#);
        let patch =
            r#"{"a":2,"b":{"c":null,"d":{"f":[null]}},"gone":null,"text":{"y":1},"z":{"n":null}}"#;
        session.merge(serde_json::from_str(patch).unwrap()).unwrap();
        assert_eq!(
            session.to_json(),
            r#"{"a":2,"b":{"d":{"e":1,"f":[null]}},"text":{"y":1},"z":{}}"#
        );
    }

    #[test]
    fn keys_are_in_the_order_of_javascripts_objects() {
        let session = session(r#"{"a":1,"b":2,"c":3}"#);
        session.insert("d", 4).unwrap();
        session.remove("a");
        session.insert("b", 5).unwrap();
        session.insert("a", 6).unwrap();
        session.insert("d", 7).unwrap();
        let expected = r#"{"b":5,"c":3,"d":7,"a":6}"#;
        assert_eq!(session.to_json(), expected);
        assert_eq!(Value::from(session.data()).to_string(), expected);
    }

    #[test]
    fn the_cookie_is_no_data() {
        let session = session(r#"{"a":1}"#);
        assert_eq!(session.get::<Value>("cookie").unwrap(), None);
        assert_eq!(session.pointer("/cookie/path"), None);
        assert_eq!(session.to_json(), r#"{"a":1}"#);
        assert_eq!(Value::from(session.data()).to_string(), r#"{"a":1}"#);
        assert_eq!(Value::from(session.cookie()).to_string(), r#"{"path":"/"}"#);
        session.insert("b", 2).unwrap();
        assert_eq!(session.to_json(), r#"{"a":1,"b":2}"#);
    }

    #[test]
    fn many_keys_are_changed_as_quickly_as_few() {
        let count = 100_000;
        let members = |value: usize| {
            let list: Vec<_> = (0..count).map(|n| format!("\"{n}\":{{\"v\":{value}}}")).collect();
            format!("{{{}}}", list.join(","))
        };
        let session = session(&members(1));
        session.merge(serde_json::from_str(&members(2)).unwrap()).unwrap();
        assert!(session.to_json() == members(2));
        for n in 0..count {
            session.remove(&n.to_string());
            session.set(n.to_string(), RawValue::from_string("{\"v\":3}".into()).unwrap());
        }
        assert!(session.to_json() == members(3));
        assert_eq!(session.data().len(), count);
    }

    #[test]
    fn a_pointer_finds_values_of_now() {
        let session = session(r#"{"passport":{"user":"zoe"},"a/b":{"~":[7]}}"#);
        assert_eq!(session.pointer("/passport/user"), Some("zoe".into()));
        assert_eq!(session.pointer("/a~1b/~0/0"), Some(7.into()));
        for nothing in ["", "passport", "/", "/passport/name", "/passport/user/x", "/x"] {
            assert_eq!(session.pointer(nothing), None, "{nothing}");
        }
        session.remove("passport");
        assert_eq!(session.pointer("/passport/user"), None);
    }

    #[test]
    fn no_error_quotes_a_value_to_a_log() {
        struct Failing;
        impl Serialize for Failing {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("hunter2"))
            }
        }
        let session = session(r#"{"password":"hunter2","list":[1,{"hunter2":"hunter2"}]}"#);
        let errors = [
            session.get::<u64>("password").unwrap_err(),
            session.get::<Vec<u64>>("list").unwrap_err(),
            session.set_json(r#""hunter2""#).unwrap_err(),
            session.insert("password", Failing).unwrap_err(),
        ];
        for error in errors {
            let source = std::error::Error::source(&error).expect("there is a cause");
            let shown = format!("{error} {error:?} {error:#?} {source} {source:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            let (SessionError::Serialize { source, .. }
            | SessionError::Deserialize { source, .. }
            | SessionError::NotAnObject { source }) = &error;
            assert!(!source.in_full().to_string().is_empty(), "who asks is told");
        }
        let error = session.get::<u64>("password").unwrap_err().to_string();
        assert!(error.contains("`password`") && error.contains("u64"), "{error}");
    }

    #[test]
    fn a_key_that_is_no_text_loses_no_other() {
        let session = session(r#"{"\ud800":1,"\u0061":{"b":1},"c":2}"#);
        session.merge(serde_json::from_str(r#"{"a":{"d":3}}"#).unwrap()).unwrap();
        assert_eq!(session.get::<Value>("a").unwrap(), Some(serde_json::json!({"b":1,"d":3})));
        assert_eq!(Value::Object(session.data()), serde_json::json!({"a":{"b":1,"d":3},"c":2}));
    }

    #[test]
    fn a_key_that_is_no_text_hides_no_change_of_another() {
        let session = session(r#"{"\ud800":1,"passport":{"user":"eve"}}"#);
        let before = session.find("/passport/user");
        session.remove("passport");
        assert!(!session.find("/passport/user").is_surely(&before));
    }
}
