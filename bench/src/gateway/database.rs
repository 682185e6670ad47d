//! MongoDB, used together with the gateway.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Collection};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt as _, SeedableRng as _};
use ring::hmac;

use crate::{Result, SECRET};

/// A database for the gateway under test only. Dropping this removes it.
pub(crate) struct Database {
    runtime: tokio::runtime::Runtime,
    client: Client,
    name: String,
}

impl Database {
    pub(crate) fn open(uri: &str, name: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(Client::with_uri_str(uri))?;
        Ok(Self { runtime, client, name: name.to_owned() })
    }

    fn sessions(&self) -> Collection<Document> {
        self.client.database(&self.name).collection("sessions")
    }

    pub(crate) fn version(&self) -> Result<String> {
        let admin = self.client.database("admin");
        let answer =
            self.runtime.block_on(async { admin.run_command(doc! { "buildInfo": 1 }).await });
        Ok(answer?.get_str("version")?.to_owned())
    }

    pub(crate) fn count(&self) -> Result<u64> {
        Ok(self.runtime.block_on(async { self.sessions().count_documents(doc! {}).await })?)
    }

    /// Returns the number of operations since the database started.
    pub(crate) fn operations(&self) -> Result<i64> {
        let admin = self.client.database("admin");
        let status =
            self.runtime.block_on(async { admin.run_command(doc! { "serverStatus": 1 }).await })?;
        let counters = status.get_document("opcounters")?;
        let number = |name| match counters.get(name) {
            Some(Bson::Int32(number)) => i64::from(*number),
            Some(Bson::Int64(number)) => *number,
            _ => 0,
        };
        Ok(["insert", "query", "update", "delete", "command"].into_iter().map(number).sum())
    }

    /// Stores a session of about this size, consisting of tiny keys, as a copy of one that the
    /// gateway stored. Returns its cookie.
    pub(crate) fn store_costly(&self, bytes: usize) -> Result<String> {
        let sessions = self.sessions();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let mut random = StdRng::try_from_rng(&mut SysRng)?;
        let id = URL_SAFE_NO_PAD.encode(random.random::<[u8; 24]>());
        let mut text = String::with_capacity(bytes + 64);
        text.push('{');
        for number in 0.. {
            if text.len() >= bytes {
                break;
            }
            write!(text, "\"{number:x}\":0,")?;
        }
        self.runtime.block_on(async {
            let model = sessions.find_one(doc! {}).await?.ok_or("there is no session to copy")?;
            let mut document = model.clone();
            let session = model.get_str("session")?;
            text.push_str(session.strip_prefix('{').ok_or("a stored session is no object")?);
            document.insert("_id", &id);
            document.insert("session", text);
            sessions.insert_one(document).await?;
            Ok(cookie(&key, &id))
        })
    }

    /// Stores copies of a session that the gateway stored until there are `count` of them. Returns
    /// the cookies of every hundredth.
    pub(crate) fn fill(&self, count: usize) -> Result<Vec<String>> {
        const AT_ONCE: usize = 10_000;
        let sessions = self.sessions();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let mut random = StdRng::try_from_rng(&mut SysRng)?;
        let mut cookies = Vec::new();
        self.runtime.block_on(async {
            let model = sessions.find_one(doc! {}).await?.ok_or("there is no session to copy")?;
            for first in (0..count).step_by(AT_ONCE) {
                let mut documents = Vec::with_capacity(AT_ONCE);
                for number in first..count.min(first + AT_ONCE) {
                    let id = URL_SAFE_NO_PAD.encode(random.random::<[u8; 24]>());
                    if number % 100 == 0 {
                        cookies.push(cookie(&key, &id));
                    }
                    let mut document = model.clone();
                    document.insert("_id", id);
                    documents.push(document);
                }
                sessions.insert_many(documents).ordered(false).await?;
            }
            Ok(cookies)
        })
    }
}

/// Returns the Cookie header of a session.
pub(crate) fn cookie(key: &hmac::Key, id: &str) -> String {
    let signature = STANDARD_NO_PAD.encode(hmac::sign(key, id.as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    format!("connect.sid=s%3A{id}.{signature}")
}

impl Drop for Database {
    fn drop(&mut self) {
        // A failure here could not be reported.
        let _ = self.runtime.block_on(async { self.client.database(&self.name).drop().await });
    }
}
