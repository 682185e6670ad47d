//! One side of the comparison: plays a case and records everything that is observable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use edge_session::store::{
    AutoRemove, Changed, Content, Created, MongoOptions, MongoStore, Store, StoreError, Stored,
};
use edge_session::{Component, Encrypted, Session, SessionLayer};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{COOKIE, SET_COOKIE};
use mongodb::bson::{Bson, Document, doc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tower::{Layer as _, ServiceExt as _};

use crate::case::{Case, CookieIn, Deed, Foreign, KEYS, Request, SECRETS, START, Set, Step};
use crate::peer::Peer;
use crate::records::{self, Records, Server};

/// IMF-fixdate (RFC 9110, section 5.6.7).
const IMF: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

tokio::task_local! {
    /// The time, in milliseconds since the Unix epoch.
    static NOW: u64;
}

/// Returns the time of the current step.
pub(crate) fn clock() -> SystemTime {
    let now = NOW.try_with(|now| *now).unwrap_or(START);
    SystemTime::UNIX_EPOCH + Duration::from_millis(now)
}

/// The resources that both sides share.
pub(crate) struct Rig {
    pub(crate) peer: Peer,
    pub(crate) component: Component,
    pub(crate) server: Server,
    /// The edge-session stores, two for every set: one for each side.
    pub(crate) stores: BTreeMap<String, Arc<dyn Store>>,
}

/// The database of the rig.
pub(crate) const DATABASE: &str = "edge_session_interop";

fn collection_name(set: Set, is_ours: bool) -> String {
    format!("{set:?}_{}", if is_ours { "ours" } else { "theirs" })
}

impl Rig {
    /// Opens the stores of a set.
    pub(crate) async fn add(&mut self, set: Set) -> Result<(), String> {
        for is_ours in [false, true] {
            let name = collection_name(set, is_ours);
            let store: Arc<dyn Store> = match &self.server {
                Server::Mongodb(client) => {
                    let options = MongoOptions {
                        collection: name.clone(),
                        db_name: Some(DATABASE.to_owned()),
                        auto_remove: AutoRemove::Disabled,
                        ..set.ours()
                    };
                    let store = MongoStore::from_client(client, &options).await;
                    Arc::new(store.map_err(|error| error.to_string())?.with_clock(clock))
                }
                Server::Redis(_) => Arc::new(records::in_redis(&name).await?),
                Server::Postgres(_) => Arc::new(records::in_postgres(&name).await?),
            };
            self.stores.insert(name, store);
        }
        Ok(())
    }
}

/// A store that records the identifiers of the sessions that it stores.
struct Noting {
    store: Arc<dyn Store>,
    ids: Arc<Mutex<Vec<String>>>,
    /// The time of the current step, for operations in tasks of their own.
    now: Arc<AtomicU64>,
}

impl Noting {
    fn at_its_time<F: Future>(&self, operation: F) -> impl Future<Output = F::Output> {
        NOW.scope(self.now.load(Ordering::Relaxed), operation)
    }

    fn note(&self, id: &str) {
        self.ids.lock().unwrap().push(id.to_owned());
    }
}

#[async_trait]
impl Store for Noting {
    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        self.at_its_time(self.store.load(id)).await
    }
    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        self.note(id);
        self.at_its_time(self.store.create(id, content)).await
    }
    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        self.note(id);
        self.at_its_time(self.store.replace(id, content, expected)).await
    }
    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        self.at_its_time(self.store.touch(id, expires)).await
    }
    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        self.at_its_time(self.store.delete(id, expected)).await
    }
}

/// The observable result of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) status: u64,
    pub(crate) error: Option<String>,
    pub(crate) cookies: Vec<String>,
    /// The application's values at the beginning.
    pub(crate) data: Option<BTreeMap<String, String>>,
    /// The stored documents, with letters for identifiers.
    pub(crate) documents: Vec<String>,
}

/// One side.
pub(crate) struct World<'r> {
    rig: &'r Rig,
    case: &'r Case,
    /// Whether edge-session handles some of the requests.
    is_ours: bool,
    now: u64,
    store_now: Arc<AtomicU64>,
    /// The session's cookies, in the order in which they were set.
    jar: Vec<String>,
    /// Identifiers, in the order in which they were seen.
    ids: Arc<Mutex<Vec<String>>>,
    letters: Vec<String>,
    records: Records,
    layer: SessionLayer,
    config: Value,
    /// Whether something that JavaScript writes differently was stored.
    pub(crate) is_foreign: bool,
}

struct Task {
    deeds: Vec<Deed>,
    app_cookie: bool,
    data: Arc<Mutex<Option<BTreeMap<String, String>>>>,
}

impl<'r> World<'r> {
    pub(crate) fn new(rig: &'r Rig, case: &'r Case, is_ours: bool) -> Result<Self, String> {
        let name = collection_name(case.set, is_ours);
        let ids = Arc::new(Mutex::new(Vec::new()));
        let now = Arc::new(AtomicU64::new(START));
        let store = Noting { store: rig.stores[&name].clone(), ids: ids.clone(), now: now.clone() };
        let preset = if case.set.is_safe() { "safe" } else { "express" };
        let options = case.settings.ours(preset);
        let deadline = Duration::from_secs(60);
        let layer =
            SessionLayer::with_deadline(rig.component.clone(), options, Arc::new(store), deadline);
        Ok(Self {
            rig,
            case,
            is_ours,
            now: START,
            store_now: now,
            jar: Vec::new(),
            ids,
            letters: Vec::new(),
            records: rig.server.records(DATABASE, &name),
            layer: layer.map_err(|error| error.to_string())?,
            config: case.settings.theirs(case.set.theirs(), &name),
            is_foreign: false,
        })
    }

    /// Performs a step. Returns none if it has no observable result of its own.
    pub(crate) async fn step(&mut self, step: &Step) -> Result<Option<Seen>, String> {
        match step {
            Step::Request(request) => {
                self.now = self.now.saturating_add_signed(request.after);
                if let Records::Postgres(..) = self.records
                    && self.now.is_multiple_of(1000)
                {
                    // Here, connect-pg-simple finds a session that ends in this millisecond.
                    self.now += 1;
                }
                self.store_now.store(self.now, Ordering::Relaxed);
                let cookies = self.cookies(request.cookie);
                let mut seen = if self.is_ours && request.by_us {
                    NOW.scope(self.now, self.by_us(request, &cookies)).await?
                } else {
                    self.by_them(request, &cookies).await?
                };
                if self.case.set.is_safe() {
                    // The safe preset clears the cookie of a session that was ended.
                    let cleared = format!("{}=;", self.case.settings.name);
                    seen.cookies.retain(|cookie| !cookie.starts_with(&cleared));
                    // It also adds a Max-Age to every Expires.
                    if self.is_ours && request.by_us {
                        seen.cookies.iter_mut().try_for_each(|it| self.take_max_age(it))?;
                    }
                }
                for cookie in &mut seen.cookies {
                    self.take(cookie)?;
                }
                seen.documents = self.documents().await?;
                Ok(Some(seen))
            }
            Step::Write(foreign) => {
                self.write(foreign).await?;
                Ok(None)
            }
        }
    }

    async fn by_them(&self, request: &Request, cookies: &[String]) -> Result<Seen, String> {
        let mut headers = json!({});
        if !cookies.is_empty() {
            headers["cookie"] = cookies.join("; ").into();
        }
        if let Some(proto) = request.proto {
            headers["x-forwarded-proto"] = proto.into();
        }
        let deeds: Vec<_> = request.deeds.iter().map(Deed::theirs).collect();
        let app_cookies = if request.app_cookie { vec!["app=1"] } else { vec![] };
        let task = json!({ "config": self.config, "request": {
            "path": request.path, "tls": request.tls, "secure": false, "headers": headers,
            "deeds": deeds, "keys": KEYS, "cookies": app_cookies,
        } });
        let answer = self.rig.peer.call("request", self.now, task).await?;
        if let Some(id) = answer["session"].as_str() {
            self.ids.lock().unwrap().push(id.to_owned());
        }
        let strings = |value: &Value| -> Vec<String> {
            let values = value.as_array().into_iter().flatten();
            values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        Ok(Seen {
            status: answer["status"].as_u64().unwrap_or_default(),
            error: answer["error"].as_str().map(str::to_owned),
            cookies: strings(&answer["cookies"]),
            data: answer["data"].as_object().map(|data| {
                let value = |(key, value): (&String, &Value)| {
                    Some((key.clone(), value.as_str()?.to_owned()))
                };
                data.iter().filter_map(value).collect()
            }),
            documents: Vec::new(),
        })
    }

    async fn by_us(&self, request: &Request, cookies: &[String]) -> Result<Seen, String> {
        let data = Arc::new(Mutex::new(None));
        let task = Task {
            deeds: request.deeds.clone(),
            app_cookie: request.app_cookie,
            data: data.clone(),
        };
        let mut builder = http::Request::get(request.path).extension(Arc::new(task));
        for cookie in cookies {
            builder = builder.header(COOKIE, cookie);
        }
        if let Some(proto) = request.proto {
            builder = builder.header("x-forwarded-proto", proto);
        }
        if request.tls {
            builder = builder.extension(Encrypted);
        }
        let request = builder.body(String::new()).map_err(|error| error.to_string())?;
        let service = self.layer.layer(tower::service_fn(application));
        let response = service.oneshot(request).await.map_err(|error| error.to_string())?;
        let cookies = response.headers().get_all(SET_COOKIE).iter();
        let data = data.lock().unwrap().take();
        Ok(Seen {
            status: response.status().as_u16().into(),
            error: None,
            cookies: cookies
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect(),
            data,
            documents: Vec::new(),
        })
    }

    /// Keeps the session's cookie, and replaces its identifier by a letter.
    fn take(&mut self, cookie: &mut String) -> Result<(), String> {
        let name = self.case.settings.name;
        let Some(rest) = cookie.strip_prefix(&format!("{name}=")) else { return Ok(()) };
        let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
        let decoded = decode(value);
        let (id, signature) = decoded
            .strip_prefix("s:")
            .and_then(|signed| signed.rsplit_once('.'))
            .ok_or_else(|| format!("not a signed cookie: {cookie}"))?;
        let secret = SECRETS[self.case.settings.secrets[0]];
        if sign(id, secret) != signature {
            return Err(format!("not signed with the first secret: {cookie}"));
        }
        self.jar.push(format!("{name}={value}"));
        self.ids.lock().unwrap().push(id.to_owned());
        *cookie = format!("{name}=<{}>;{attributes}", self.letter(id));
        Ok(())
    }

    /// Removes the Max-Age from a cookie with an Expires, after checking that they agree.
    fn take_max_age(&self, cookie: &mut String) -> Result<(), String> {
        let Some((before, after)) = cookie.split_once("; Expires=") else { return Ok(()) };
        let wrong = || format!("its Max-Age is not as long as until its Expires: {cookie}");
        let (expires, after) = after.split_once("; Max-Age=").ok_or_else(wrong)?;
        let digits = after.find(';').unwrap_or(after.len());
        let max_age: i64 = after[..digits].parse().map_err(|_| wrong())?;
        let end = PrimitiveDateTime::parse(expires, IMF).map_err(|_| wrong())?.assume_utc();
        let later = self.now as i64 + 1000 * max_age - 1000 * end.unix_timestamp();
        // Expires is truncated to the second, and Max-Age is rounded up; an expired cookie has 0.
        let is_over = max_age == 0 && later > 0;
        if !(is_over || (0..2000).contains(&later)) {
            return Err(wrong());
        }
        *cookie = format!("{before}; Expires={expires}{}", &after[digits..]);
        Ok(())
    }

    fn letter(&mut self, id: &str) -> usize {
        self.letters.iter().position(|other| other == id).unwrap_or_else(|| {
            self.letters.push(id.to_owned());
            self.letters.len() - 1
        })
    }

    /// Returns the Cookie headers of a request.
    fn cookies(&self, cookie: CookieIn) -> Vec<String> {
        let name = self.case.settings.name;
        let Some(last) = self.jar.last() else { return Vec::new() };
        let value = last.split_once('=').map_or("", |(_, value)| value);
        let decoded = decode(value);
        let signed = decoded.strip_prefix("s:").unwrap_or_default();
        let (id, signature) = signed.rsplit_once('.').unwrap_or_default();
        let encode = |id: &str, signature: &str| {
            let signature = signature.replace('+', "%2B").replace('/', "%2F");
            format!("{name}=s%3A{id}.{signature}")
        };
        vec![match cookie {
            CookieIn::None => return Vec::new(),
            CookieIn::Last => last.clone(),
            CookieIn::First => self.jar[0].clone(),
            CookieIn::Raw => format!("{name}=s:{signed}"),
            CookieIn::Quoted => format!("{name}=\"{value}\""),
            CookieIn::Tampered(at) => {
                let other = if signature.as_bytes()[at] == b'A' { "B" } else { "A" };
                let mut tampered = signature.to_owned();
                tampered.replace_range(at..=at, other);
                encode(id, &tampered)
            }
            CookieIn::Cut => encode(id, &signature[..20]),
            CookieIn::Unsigned => format!("{name}={id}"),
            CookieIn::Signed(secret) => encode(id, &sign(id, SECRETS[secret])),
            CookieIn::UnknownId => {
                let secret = SECRETS[self.case.settings.secrets[0]];
                encode("nobody", &sign("nobody", secret))
            }
            CookieIn::EmptyId => {
                let secret = SECRETS[self.case.settings.secrets[0]];
                encode("", &sign("", secret))
            }
            CookieIn::Empty => format!("{name}="),
            CookieIn::Malformed => format!("{name}=%E0%A4%A"),
            CookieIn::AfterBogus => format!("{name}=bogus; {last}"),
            CookieIn::BeforeBogus => format!("{last}; {name}=bogus"),
            CookieIn::AmongOthers => format!("a=b;;=; x ; {last} ;{name}2=c; "),
            CookieIn::TwoHeaders => return vec!["a=b".to_owned(), last.clone()],
        }]
    }

    fn key(&self, id: &str) -> String {
        match self.case.set {
            Set::Kruptein => Sha256::digest(id).iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
            _ => id.to_owned(),
        }
    }

    /// Returns everything that is stored, in an order that depends only on the content.
    async fn documents(&mut self) -> Result<Vec<String>, String> {
        let mut ids = self.ids.lock().unwrap().clone();
        ids.sort();
        ids.dedup();
        let mut texts = Vec::new();
        for id in ids {
            let (is_note, shown) = match &self.records {
                Records::Mongodb(collection) => {
                    let found = collection.find_one(doc! { "_id": self.key(&id) }).await;
                    let Some(document) = found.map_err(|error| error.to_string())? else {
                        continue;
                    };
                    let is_note = document.get_str("session").is_ok_and(is_note);
                    (is_note, self.shown(&id, &document).await?)
                }
                records => {
                    let Some((text, lifetime)) = records.text(&id).await? else { continue };
                    (is_note(&text), format!("{text}, {lifetime}"))
                }
            };
            // Skips the note about a moved session, which express-session does not write.
            if is_note {
                if !self.case.settings.keeps_notes {
                    self.records.delete(vec![self.key(&id)]).await?;
                }
                continue;
            }
            texts.push(shown);
        }
        texts.sort();
        Ok(texts)
    }

    /// Returns a document without what necessarily differs: its identifier, its ciphertext, the
    /// server's time.
    async fn shown(&self, id: &str, document: &Document) -> Result<String, String> {
        let mut text = String::new();
        for (key, value) in document {
            let value = match (key.as_str(), value) {
                ("_id", _) => "…".to_owned(),
                ("updatedAt", Bson::DateTime(_)) => "a date".to_owned(),
                ("session", Bson::String(_))
                    if matches!(self.case.set, Set::Kruptein | Set::Webcrypto) =>
                {
                    self.decrypted(id).await?
                }
                ("session", Bson::String(text)) if self.is_foreign => {
                    let answer = self.rig.peer.call("json", START, json!({ "text": text })).await;
                    answer.map_or(text.clone(), |it| it["text"].as_str().unwrap_or(text).to_owned())
                }
                (_, Bson::DateTime(date)) => {
                    let after = date.timestamp_millis() - START as i64;
                    format!("{after} ms")
                }
                (_, value) => format!("{value:?}"),
            };
            let _ = write!(text, "{key}: {value}, ");
        }
        Ok(text)
    }

    /// Returns a session as both sides read it; they must agree.
    async fn decrypted(&self, id: &str) -> Result<String, String> {
        let store = &self.rig.stores[&collection_name(self.case.set, self.is_ours)];
        // A time at which nothing had expired.
        let before = START / 2;
        let ours = NOW.scope(before, store.load(id)).await.map_err(|error| error.to_string())?;
        let task = json!({ "config": self.config, "id": id });
        let theirs = self.rig.peer.call("load", before, task).await?;
        let ours = ours.map(|stored| stored.data).unwrap_or_default();
        if theirs["text"].as_str() != Some(&ours) {
            return Err(format!("of one document we read {ours:?} and they {theirs}"));
        }
        Ok(ours)
    }

    /// Writes what another tool might into the document of the last cookie.
    async fn write(&mut self, foreign: &Foreign) -> Result<(), String> {
        let Records::Mongodb(collection) = &self.records else { return Ok(()) };
        let Some(last) = self.jar.last() else { return Ok(()) };
        let value = last.split_once("s%3A").map_or("", |(_, value)| value);
        let id = value.split('.').next().unwrap_or_default();
        let document = doc! { "cookie": { "path": "/", "expires": null }, "a": 1 };
        let change = match foreign {
            Foreign::Text(text) => doc! { "$set": { "session": text } },
            Foreign::Document => doc! { "$set": { "session": document } },
            Foreign::Number => doc! { "$set": { "session": 5 } },
            Foreign::Nothing => doc! { "$unset": { "session": 1 } },
            Foreign::ExpiresText => doc! { "$set": { "expires": "2040-01-01T00:00:00.000Z" } },
            Foreign::ExpiresNumber => doc! { "$set": { "expires": (START + 600_000) as f64 } },
            Foreign::ExpiresNothing => doc! { "$unset": { "expires": 1 } },
            Foreign::Set(members) => doc! { "$set": members },
        };
        self.is_foreign = !self.case.settings.shows_raw;
        let changed = collection.update_one(doc! { "_id": id }, change).await;
        changed.map(drop).map_err(|error| error.to_string())
    }

    /// Deletes the sessions.
    pub(crate) async fn clean(&self) {
        let ids = self.ids.lock().unwrap().clone();
        let keys: Vec<_> = ids.iter().map(|id| self.key(id)).collect();
        let _ = self.records.delete(keys).await;
    }
}

fn is_note(text: &str) -> bool {
    text.contains("\"movedTo\"")
}

/// The application behind the edge-session layer.
async fn application(
    request: http::Request<String>,
) -> Result<http::Response<String>, std::convert::Infallible> {
    let mut response = http::Response::new("ok".to_owned());
    let Some(task) = request.extensions().get::<Arc<Task>>() else { return Ok(response) };
    if let Some(session) = request.extensions().get::<Session>() {
        let mut data = BTreeMap::new();
        for key in KEYS {
            if let Ok(Some(value)) = session.get::<Box<RawValue>>(key) {
                data.insert(key.to_owned(), value.get().to_owned());
            }
        }
        *task.data.lock().unwrap() = Some(data);
        for deed in &task.deeds {
            perform(session, deed);
        }
    }
    if task.app_cookie {
        response.headers_mut().append(SET_COOKIE, http::HeaderValue::from_static("app=1"));
    }
    Ok(response)
}

fn perform(session: &Session, deed: &Deed) {
    match deed {
        Deed::Set(key, value) => {
            let value: Box<RawValue> = serde_json::from_str(value).expect("cases hold JSON");
            session.insert(key, value).expect("JSON can be written as JSON");
        }
        Deed::Remove(key) => session.remove(key),
        Deed::Clear => session.clear(),
        Deed::Regenerate => session.regenerate(),
        Deed::Destroy => session.destroy(),
        Deed::Unset => session.unset(),
        other => {
            if let Some((setting, value)) = other.cookie_edit() {
                session.set_cookie(&setting, value);
            }
        }
    }
}

/// Decodes a signed identifier that `encodeURIComponent` encoded.
fn decode(value: &str) -> String {
    value.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
}

fn sign(id: &str, secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys of any length");
    mac.update(id.as_bytes());
    STANDARD_NO_PAD.encode(mac.finalize().into_bytes())
}
