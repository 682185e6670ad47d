//! The types of the contract, `wit/engine.wit`, as plain Rust. Both sides use them: the engine as
//! native code, and hosts that run the component in wasmtime, which compares them with the
//! component's.

#[cfg(feature = "wasmtime")]
use wasmtime::component::{ComponentType, Lift, Lower};

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// The value of an option.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(variant))]
pub enum Value {
    /// JSON text: `true`, `60000`, `"lax"`. `null` is the default.
    #[cfg_attr(feature = "wasmtime", component(name = "json"))]
    Json(String),
    /// Text as in an environment variable: `true`, `60000`, `lax`. Several secrets are separated by
    /// commas.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text(String),
    /// One secret, in bytes. For several secrets, the option is set several times, newest first.
    #[cfg_attr(feature = "wasmtime", component(name = "bytes"))]
    Bytes(Vec<u8>),
}

/// An option and its value. Case, `_`, `-` and `.` do not matter in names: `cookie.max_age`,
/// `cookie.maxAge` and `COOKIE_MAX_AGE` are one option.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Setting {
    /// The name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// What can be set.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct OptionDescription {
    /// The name as in configuration files: `cookie.max_age`.
    pub name: String,
    /// The possible values, in words: `one of "keep", "destroy"`.
    pub values: String,
    /// The default, as JSON text, with `preset = "safe"`.
    pub safe: String,
    /// The default, as JSON text, with `preset = "express"`.
    pub express: String,
    /// What the option does, in one or more sentences.
    pub help: String,
}

/// A problem with the options.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Problem {
    /// The option's name, as it was given, or else as in configuration files.
    pub name: String,
    /// What is wrong, and how to fix it. Never contains a secret.
    pub message: String,
}

/// A stored session.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Stored {
    /// The JSON text, byte for byte as it was written.
    pub data: String,
    /// When the session expires. None: never.
    pub expires: Option<Millis>,
    /// When the session was last saved or touched (connect-mongo's `lastModified`). None: the store
    /// does not record it.
    pub touched: Option<Millis>,
}

/// The text of a session to store.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Content {
    /// The JSON text.
    pub data: String,
    /// When the session expires.
    pub expires: Millis,
}

/// An operation on the store. A store treats an expired session as missing.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(variant))]
pub enum Operation {
    /// Store a session under a new identifier. Replies: `done`, or the obstacle `taken` if the
    /// identifier is in use. Never overwrites.
    #[cfg_attr(feature = "wasmtime", component(name = "create"))]
    Create(Content),
    /// Replace the stored text, and create the session if it is missing. With `if-unchanged`, only
    /// an existing session whose text equals the expected one: otherwise the obstacle is `missing`
    /// or `conflict`. Comparing and writing must be one atomic operation.
    #[cfg_attr(feature = "wasmtime", component(name = "replace"))]
    Replace(Content),
    /// Set a new expiry. Replies: `done`, or `missing`. Never creates a session or changes its
    /// text.
    #[cfg_attr(feature = "wasmtime", component(name = "touch"))]
    Touch(Millis),
    /// Delete the session. Replies: `done`, or `missing`. With `if-unchanged`, only if the stored
    /// text equals the expected one; otherwise the obstacle is `conflict`.
    #[cfg_attr(feature = "wasmtime", component(name = "delete"))]
    Delete,
    /// Load the session. Always an obstacle: `conflict` with the session, or `missing`.
    #[cfg_attr(feature = "wasmtime", component(name = "load"))]
    Load,
}

/// One operation of a plan.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Write {
    /// The identifier of the session.
    pub id: String,
    /// What to do.
    pub operation: Operation,
    /// Perform the operation only if the stored text equals the last one that was seen: that of
    /// the last `conflict` in this request, or else the loaded one.
    #[cfg_attr(feature = "wasmtime", component(name = "if-unchanged"))]
    pub if_unchanged: bool,
}

/// Why an operation was not performed.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(variant))]
pub enum Obstacle {
    /// The session does not exist, or has expired.
    #[cfg_attr(feature = "wasmtime", component(name = "missing"))]
    Missing,
    /// The identifier passed to `create` is in use.
    #[cfg_attr(feature = "wasmtime", component(name = "taken"))]
    Taken,
    /// The stored session, which differs from the expected one.
    #[cfg_attr(feature = "wasmtime", component(name = "conflict"))]
    Conflict(Stored),
    /// The store can never store this text, with the reason: `failure-kind.invalid-change`.
    #[cfg_attr(feature = "wasmtime", component(name = "refused"))]
    Refused(String),
    /// The store failed or did not reply in time, with the reason. The operation may have been
    /// performed.
    #[cfg_attr(feature = "wasmtime", component(name = "unavailable"))]
    Unavailable(String),
}

/// The properties of a request that affect its session.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Request {
    /// The raw value of the Cookie header; empty if there is none. Several headers are joined with
    /// `; ` (RFC 9113, section 8.2.3).
    pub cookies: Vec<u8>,
    /// The path of the request target as it was received, without the query.
    pub path: String,
    /// Whether the connection to the gateway itself uses TLS.
    pub tls: bool,
    /// Whether the gateway's framework considers the request secure (Express: `req.secure`). Used
    /// when the option `proxy` is null.
    pub secure: bool,
    /// The value of X-Forwarded-Proto. Used when the option `proxy` is true.
    #[cfg_attr(feature = "wasmtime", component(name = "forwarded-proto"))]
    pub forwarded_proto: Option<Vec<u8>>,
}

/// Where a session comes from, or why it is new.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(enum))]
#[repr(u8)]
pub enum Origin {
    /// Loaded from the store.
    #[cfg_attr(feature = "wasmtime", component(name = "loaded"))]
    Loaded,
    /// New: the request had no cookie.
    #[cfg_attr(feature = "wasmtime", component(name = "absent"))]
    Absent,
    /// New: the cookie's value does not have the form `s:ID.SIGNATURE`.
    #[cfg_attr(feature = "wasmtime", component(name = "malformed"))]
    Malformed,
    /// New: the cookie's signature matches none of the keys.
    #[cfg_attr(feature = "wasmtime", component(name = "forged"))]
    Forged,
    /// New: the cookie or all cookies together exceed the size of any legitimate one.
    #[cfg_attr(feature = "wasmtime", component(name = "oversized"))]
    Oversized,
    /// New: the store does not have the identifier, or no longer has it. The identifier is not
    /// adopted. If the session has just moved to a new identifier, changes fail:
    /// `failure-kind.contention`.
    #[cfg_attr(feature = "wasmtime", component(name = "unknown"))]
    Unknown,
    /// New: the stored document cannot be parsed, is larger than `max_session_bytes`, or has too
    /// many keys. The document is left unchanged.
    #[cfg_attr(feature = "wasmtime", component(name = "damaged"))]
    Damaged,
    /// New, and never stored: the store was unavailable (`on_store_error = "anonymous"`).
    #[cfg_attr(feature = "wasmtime", component(name = "detached"))]
    Detached,
}

/// What the engine has to remember between two calls. Opaque: the gateway passes it on unchanged.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct State {
    /// Flags.
    pub bits: u64,
    /// Identifiers.
    pub text: Option<String>,
}

/// One request of a visitor.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Visit {
    /// The identifier of the session. When `ready` returns a session that was not loaded, the
    /// gateway may replace it (express-session's `genid`) by one that is not empty, unpredictable
    /// and never used before. When the engine needs another identifier, after `taken` or to renew or
    /// regenerate, it generates one and returns it as the outcome's `new-id`.
    pub id: String,
    /// What the engine remembers.
    pub state: State,
}

/// The session as the application sees it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Session {
    /// Passed to `finish`.
    pub visit: Visit,
    /// Where the session comes from.
    pub origin: Origin,
    /// The session's JSON text, an object whose names are unique. Its member `cookie` is the cookie
    /// as express-session writes it; all others are the session's data. None: the text that was
    /// loaded.
    pub text: Option<String>,
}

/// How a request begins.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(variant))]
pub enum Beginning {
    /// The path has no session.
    #[cfg_attr(feature = "wasmtime", component(name = "none"))]
    None,
    /// Load the session `visit.id`, and call `loaded`. Nearly always the last time: another load
    /// follows only if the session does not exist and the request has another cookie of this name,
    /// or the session may have just moved to a new identifier.
    #[cfg_attr(feature = "wasmtime", component(name = "load"))]
    Load(Visit),
    /// Run the application, then call `finish`.
    #[cfg_attr(feature = "wasmtime", component(name = "ready"))]
    Ready(Session),
}

/// The new value of a top-level key as JSON text. None: the key is removed. The key `cookie` and
/// the names of properties of JavaScript's Session.prototype and Object.prototype are refused.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Edit {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Option<String>,
}

/// How the application changed the data.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(variant))]
pub enum DataChange {
    /// No change.
    #[cfg_attr(feature = "wasmtime", component(name = "nothing"))]
    Nothing,
    /// Keys were set or removed, in this order. As in JavaScript, a new key comes last (but array
    /// indices come first), and a key that is set again keeps its place unless it was removed in
    /// between.
    #[cfg_attr(feature = "wasmtime", component(name = "edits"))]
    Edits(Vec<Edit>),
    /// The complete new data: a JSON object without `cookie`.
    #[cfg_attr(feature = "wasmtime", component(name = "whole"))]
    Whole(String),
}

/// What happens to the session as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(enum))]
#[repr(u8)]
pub enum Action {
    /// The session continues.
    #[cfg_attr(feature = "wasmtime", component(name = "keep"))]
    Keep,
    /// The session continues under a new identifier with its data; for a change of privilege.
    #[cfg_attr(feature = "wasmtime", component(name = "renew"))]
    Renew,
    /// The session is deleted, and an empty one starts under a new identifier.
    #[cfg_attr(feature = "wasmtime", component(name = "regenerate"))]
    Regenerate,
    /// The session is deleted.
    #[cfg_attr(feature = "wasmtime", component(name = "destroy"))]
    Destroy,
    /// The application set the session to null: see the option `unset`.
    #[cfg_attr(feature = "wasmtime", component(name = "unset"))]
    Unset,
}

/// What the application did in this request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Change {
    /// action
    pub action: Action,
    /// Changes to the data; after `regenerate`, the data of the new session.
    pub data: DataChange,
    /// Assignments to settings of the session's cookie, as to properties of express-session's
    /// `req.session.cookie`, in order; after `regenerate`, to those of the new session. `maxAge`:
    /// the lifetime since the last save or touch in milliseconds, or null (until the browser
    /// closes). `expires`: a time in milliseconds since the Unix epoch, or null; the lifetime
    /// becomes the time left until then. `path`, `domain`, `httpOnly`, `secure`, `sameSite`,
    /// `partitioned`, `priority`: as the options of the same names.
    pub cookie: Vec<Edit>,
}

/// What happened to the session.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(enum))]
#[repr(u8)]
pub enum Event {
    /// Nothing was stored.
    #[cfg_attr(feature = "wasmtime", component(name = "none"))]
    None,
    /// The session was created.
    #[cfg_attr(feature = "wasmtime", component(name = "created"))]
    Created,
    /// The session was saved.
    #[cfg_attr(feature = "wasmtime", component(name = "saved"))]
    Saved,
    /// The expiry was extended.
    #[cfg_attr(feature = "wasmtime", component(name = "touched"))]
    Touched,
    /// The session has a new identifier.
    #[cfg_attr(feature = "wasmtime", component(name = "moved"))]
    Moved,
    /// The session was deleted.
    #[cfg_attr(feature = "wasmtime", component(name = "destroyed"))]
    Destroyed,
    /// Another request ended the session in the meantime; this request's changes were dropped.
    #[cfg_attr(feature = "wasmtime", component(name = "gone"))]
    Gone,
}

/// Why a request fails.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(enum))]
#[repr(u8)]
pub enum FailureKind {
    /// The store is unavailable.
    #[cfg_attr(feature = "wasmtime", component(name = "unavailable"))]
    Unavailable,
    /// The application's change is not valid.
    #[cfg_attr(feature = "wasmtime", component(name = "invalid-change"))]
    InvalidChange,
    /// The session would exceed `max_session_bytes`.
    #[cfg_attr(feature = "wasmtime", component(name = "too-large"))]
    TooLarge,
    /// Too many concurrent requests changed the session, or it has just moved to another identifier
    /// and this request's change cannot be applied there.
    #[cfg_attr(feature = "wasmtime", component(name = "contention"))]
    Contention,
    /// The gateway broke this contract: a state of other options, an index that the plan does not
    /// have, or an obstacle that the operation cannot meet. Nothing more is written.
    #[cfg_attr(feature = "wasmtime", component(name = "misuse"))]
    Misuse,
}

/// Why a request fails, and how it is answered.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The HTTP status of the response, which replaces the application's.
    pub status: u16,
    /// The text of the response, for the visitor: a sentence.
    pub message: String,
    /// What happened, for the log. Contains no secret and no identifier.
    pub reason: String,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Outcome {
    /// What happened to the session.
    pub event: Event,
    /// The session's new identifier, if it differs from the one returned by `ready`.
    #[cfg_attr(feature = "wasmtime", component(name = "new-id"))]
    pub new_id: Option<String>,
    /// The value of a Set-Cookie header to add after those of the application.
    #[cfg_attr(feature = "wasmtime", component(name = "set-cookie"))]
    pub set_cookie: Option<String>,
    /// Keep the response out of shared caches: add `Vary: Cookie`, and `Cache-Control: no-store`.
    /// If the application sent a Cache-Control, keep it, without `public` and `s-maxage` and with
    /// `private`.
    #[cfg_attr(feature = "wasmtime", component(name = "no-store"))]
    pub no_store: bool,
}

/// What to store.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Plan {
    /// Passed to `resume`.
    pub visit: Visit,
    /// The operations to perform, in order. Usually one; none if nothing is stored.
    pub writes: Vec<Write>,
    /// The result of the request once all of them are done.
    pub outcome: Outcome,
}
