//! The component's options, by name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use edge_session_component::wit;

/// Options by name, as express-session and connect-mongo name them: `rolling`, `cookie.max_age`,
/// `store.ttl`. [`crate::Component::options`] describes all of them. What is not set has the
/// preset's value.
///
/// ```
/// use edge_session::Options;
///
/// let mut options = Options::default();
/// options.secret("a secret of 32 random bytes or more").set("cookie.max_age", 3_600_000);
/// ```
#[derive(Clone, Default)]
pub struct Options {
    secrets: Vec<Vec<u8>>,
    settings: Vec<(String, wit::Value)>,
}

impl Options {
    /// Options with the defaults of express-session 1.19, including its quirks. Those of
    /// [`Options::default`] are safe.
    pub fn express() -> Self {
        let mut options = Self::default();
        options.set("preset", "express");
        options
    }

    /// Adds a signing key, which should have 32 random bytes or more. The first one signs; all of
    /// them verify.
    pub fn secret(&mut self, secret: impl Into<Vec<u8>>) -> &mut Self {
        self.secrets.push(secret.into());
        self
    }

    /// Sets an option. Names and values are checked when the options are used.
    pub fn set(&mut self, name: &str, value: impl Serialize) -> &mut Self {
        // What cannot be written as JSON is refused like any other value.
        let json = serde_json::to_string(&value).unwrap_or_default();
        self.settings.push((name.to_owned(), wit::Value::Json(json)));
        self
    }

    /// Sets an option to a text, as in an environment variable: `true`, `60000`, `lax`.
    pub fn set_text(&mut self, name: &str, text: &str) -> &mut Self {
        self.settings.push((name.to_owned(), wit::Value::Text(text.to_owned())));
        self
    }

    /// Returns the newest secret; empty if there is none.
    pub(crate) fn newest_secret(&self) -> &[u8] {
        self.secrets.first().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn settings(&self) -> Vec<wit::Setting> {
        let secrets = self.secrets.iter().map(|secret| wit::Setting {
            name: "secret".to_owned(),
            value: wit::Value::Bytes(secret.clone()),
        });
        let others = self
            .settings
            .iter()
            .map(|(name, value)| wit::Setting { name: name.clone(), value: value.clone() });
        secrets.chain(others).collect()
    }
}

impl std::fmt::Debug for Options {
    /// Omits the values, among which are the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.settings.iter().map(|(name, _)| name)).finish()
    }
}

/// The options in force, without the secrets.
#[derive(Clone, Debug)]
pub struct InForce(BTreeMap<String, Value>);

impl InForce {
    pub(crate) fn new(settings: Vec<wit::Setting>) -> Self {
        let read = |setting: wit::Setting| match setting.value {
            wit::Value::Json(json) => {
                (setting.name, serde_json::from_str(&json).unwrap_or_default())
            }
            wit::Value::Text(_) | wit::Value::Bytes(_) => (setting.name, Value::Null),
        };
        Self(settings.into_iter().map(read).collect())
    }

    /// Returns an option by its name in configuration files, such as `cookie.max_age`; null if it
    /// is not set.
    pub fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    /// Returns a text, such as `name` and `cookie.path`; empty if it is not set.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap_or_default()
    }

    /// Returns a whole number, such as `store.ttl`; 0 if it is not set.
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).as_u64().unwrap_or_default()
    }
}
