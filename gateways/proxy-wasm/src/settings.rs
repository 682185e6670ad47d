//! The plugin's configuration: a JSON object.
//!
//! `service` says where the store is; all other keys are options, with the names of the
//! configuration file: `{"service": {"cluster": "edge_session", "token": "…"}, "secret": "…",
//! "cookie": {"max_age": 3600000}}`.

use std::time::Duration;

use edge_session_component::Engine;
use edge_session_component::wit::{Problem, Setting, Value};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// A valid configuration.
pub(crate) struct Settings {
    pub(crate) engine: Engine,
    pub(crate) cookie_name: String,
    pub(crate) believes_proto: bool,
    pub(crate) service: Service,
}

/// Where the store is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// The gateway's name for the servers of edge-session.
    pub(crate) cluster: String,
    /// The value of EDGE_SESSION_AUTH_TOKEN there.
    pub(crate) token: String,
    /// How long one operation may take.
    #[serde(default = "deadline")]
    timeout_ms: u64,
}

fn deadline() -> u64 {
    3000
}

impl Service {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

impl Settings {
    /// The error contains everything that is wrong. It quotes no value, since one may be a secret.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let mut all: Map<String, Json> =
            serde_json::from_slice(text).map_err(|_| "it is not a JSON object")?;
        let service = all.remove("service").ok_or("`service` is missing")?;
        let service: Service = serde_json::from_value(service).map_err(
            |_| "`service` needs `cluster` and `token`, texts, and may have `timeout_ms`, a number",
        )?;
        let engine = Engine::configure(&options(all)).map_err(|problems| explain(&problems))?;
        let json = |name: &str| {
            let setting = engine.in_force().into_iter().find(|it| it.name == name)?;
            match setting.value {
                Value::Json(json) => serde_json::from_str::<Json>(&json).ok(),
                Value::Text(_) | Value::Bytes(_) => None,
            }
        };
        let cookie_name = json("name").and_then(|it| it.as_str().map(str::to_owned));
        let believes_proto = json("proxy") == Some(true.into());
        Ok(Self { cookie_name: cookie_name.unwrap_or_default(), believes_proto, service, engine })
    }
}

/// Returns the options, those of sections included.
fn options(all: Map<String, Json>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let setting = |name: String, value: Json| {
        let value = match value {
            Json::String(text) => Value::Text(text),
            other => Value::Json(other.to_string()),
        };
        Setting { name, value }
    };
    for (name, value) in all {
        match value {
            Json::Object(section) => {
                for (key, value) in section {
                    settings.push(setting(format!("{name}.{key}"), value));
                }
            }
            // Several secrets, newest first.
            Json::Array(list) if name == "secret" => {
                for secret in list {
                    let value = match secret {
                        Json::String(text) => Value::Bytes(text.into_bytes()),
                        other => Value::Json(other.to_string()),
                    };
                    settings.push(Setting { name: name.clone(), value });
                }
            }
            value => settings.push(setting(name, value)),
        }
    }
    settings
}

fn explain(problems: &[Problem]) -> String {
    let problems = problems.iter().map(|Problem { name, message }| format!("{name} {message}"));
    problems.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = r#""service":{"cluster":"e","token":"only-for-tests"}"#;

    fn read(options: &str) -> Result<Settings, String> {
        Settings::read(format!("{{{SERVICE}{options}}}").as_bytes())
    }

    #[test]
    fn options_have_the_names_of_the_configuration_file() {
        let secret = r#","secret":"only-for-tests-0123456789-abcdefghij""#;
        let settings = read(&format!(
            r#"{secret},"name":"sid","proxy":true,"rolling":true,"cookie":{{"max_age":1000}}"#
        ));
        let settings = settings.unwrap();
        assert_eq!((&*settings.cookie_name, settings.believes_proto), ("sid", true));
        assert_eq!(settings.service.timeout(), Duration::from_secs(3));
    }

    #[test]
    fn all_problems_are_told_and_no_value_is_quoted() {
        let problems = read(r#","rolling":"hunter2","cookie":{"speed":1}"#).err().unwrap();
        for said in ["rolling", "cookie.speed", "secret"] {
            assert!(problems.contains(said), "{problems}");
        }
        assert!(!problems.contains("hunter2"));
        for (text, said) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "`service` is missing"),
            (r#"{"service":{"cluster":"hunter2"}}"#, "`cluster` and `token`"),
            (r#"{"service":{"cluster":"c","token":"t","tokn":"hunter2"}}"#, "`cluster`"),
        ] {
            let problem = Settings::read(text.as_bytes()).err().unwrap();
            assert!(problem.contains(said) && !problem.contains("hunter2"), "{problem}");
        }
    }
}
