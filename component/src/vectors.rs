//! Compares with the output of express-session 1.19.0, cookie 0.7.2 and cookie-signature 1.0.7,
//! which tests/node/vectors.mjs records in `testdata/vectors.json`.

use serde_json::Value;

use crate::cookie_header::{Found, find, is_name};
use crate::document::Document;
use crate::options::{CookieOptions, Preset, Priority, SameSite, Secure, defaults};
use crate::session_cookie::SessionCookie;
use crate::signature::Keys;
use crate::wit::{DataChange, Edit, Millis};

const NOW: Millis = 1_800_000_000_000;

fn vectors(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../testdata/vectors.json")).unwrap();
    let vectors = all[name].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn secret(value: &Value) -> Vec<u8> {
    match value["hex"].as_str() {
        None => text(value).into(),
        Some(hex) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect(),
    }
}

#[test]
fn identifiers_are_signed_as_cookie_signature_signs_them() {
    for vector in vectors("sign") {
        let keys = Keys::new(&[secret(&vector["secret"])]);
        let signed = keys.sign(text(&vector["id"]));
        assert_eq!(signed, text(&vector["signed"]));
        assert_eq!(keys.unsign(&signed), Some(text(&vector["id"])));
        let cookie =
            SessionCookie::parse("{}").unwrap().serialize("n", &format!("s:{signed}"), None);
        let cookie = cookie.unwrap();
        assert_eq!(cookie.split(';').next(), Some(&*format!("n={}", text(&vector["cookieValue"]))));
    }
    for vector in vectors("unsign") {
        assert_eq!(vector["ok"], false);
        assert_eq!(Keys::new(&[secret(&vector["s"])]).unsign(text(&vector["v"])), None);
    }
}

#[test]
fn cookie_headers_are_read_as_cookie_reads_them() {
    for vector in vectors("cookieParse") {
        // Node decodes header bytes as Latin-1.
        let header = text(&vector["header"]).chars().map(|c| u8::try_from(c).unwrap());
        let header: Vec<u8> = header.collect();
        for name in ["connect.sid", "CONNECT.SID", "a"] {
            let expected = vector["parsed"][name].as_str().filter(|value| !value.is_empty());
            let found = match find(&header, name, 1).pop() {
                Some(Found::Value(value)) => Some(value.into_owned()),
                _ => None,
            };
            assert_eq!(found.as_deref(), expected, "{vector}");
        }
    }
}

#[test]
fn cookies_are_written_as_cookie_writes_them() {
    for vector in vectors("cookieSerialize") {
        // All settings with defaults are present, so that express-session adds none.
        let mut stored = serde_json::json!({ "httpOnly": false, "path": null, "expires": null });
        for (key, value) in vector["opts"].as_object().unwrap() {
            stored[key] = value.clone();
        }
        let written = SessionCookie::parse(&stored.to_string()).unwrap().serialize(
            "connect.sid",
            "s:a+b/c.d",
            None,
        );
        assert_eq!(written.as_deref(), vector["result"].as_str(), "{vector}");
    }
    for vector in vectors("badName") {
        assert_eq!(is_name(text(&vector["n"])), vector["r"].is_string(), "{vector}");
    }
}

#[test]
fn members_that_express_session_drops_are_dropped() {
    let all: Value = serde_json::from_str(include_str!("../testdata/vectors.json")).unwrap();
    let vector = &all["loadFilter"];
    let kept: Value = serde_json::from_str(text(&vector["kept"])).unwrap();
    let members: Vec<_> = vector["stored"].as_array().unwrap().iter().map(text).collect();
    let value = |name| kept.get(name).cloned().unwrap_or(Value::from("stored"));
    let stored: Vec<_> =
        members.iter().map(|name| format!("\"{name}\":{}", value(*name))).collect();
    let stored = format!("{{{}}}", stored.join(","));
    let document = Document::parse(&stored, |_| None).unwrap();
    assert_eq!(document.to_text(&kept["cookie"].to_string()).parse::<Value>().unwrap(), kept);
    assert!(document.is_reduced());
}

/// JavaScript would rewrite numbers and escapes. What JavaScript drops is dropped here too.
#[test]
fn texts_that_javascript_rewrites_stay_as_they_are() {
    for vector in vectors("json") {
        let stored = text(&vector["in"]).replacen('{', "{\"cookie\":{},", 1);
        let document = Document::parse(&stored, |_| None).unwrap();
        let is_double = vector["in"].as_str().unwrap().contains("dup");
        let expected = if is_double { text(&vector["out"]) } else { text(&vector["in"]) };
        assert_eq!(document.data_text(), expected);
        let edit = Edit { key: "new".to_owned(), value: Some("1".to_owned()) };
        let change = DataChange::Edits(vec![edit]);
        let plan = document.plan(&change).unwrap();
        let changed = document.clone().changed(&plan).data_text();
        assert_eq!(changed, format!("{},\"new\":1}}", expected.strip_suffix('}').unwrap()));
    }
}

#[test]
fn new_cookies_are_stored_as_express_session_stores_them() {
    for vector in vectors("cookieJSON") {
        let mut options = defaults(Preset::Express).cookie;
        let given = &vector["opts"];
        let word = |key: &str| given[key].as_str().map(str::to_owned);
        options.http_only = given["httpOnly"].as_bool().unwrap_or(true);
        options.secure = given["secure"].as_bool().map(|_| Secure::Always);
        options.same_site = word("sameSite").map(|_| SameSite::Lax);
        options.priority = word("priority").map(|_| Priority::Low);
        options.partitioned = given["partitioned"].as_bool();
        options.domain = word("domain");
        options.path = word("path").unwrap_or("/".to_owned());
        options.expires = word("expires").map(|_| 1_893_553_445_678);
        let left = (1_893_553_445_678 - NOW).to_string();
        let expected = text(&vector["json"]).replace("<expires-now>", &left);
        assert_eq!(SessionCookie::new(&options, false, NOW).to_text(), expected, "{vector}");
    }
}

#[test]
fn lifetimes_are_taken_as_express_session_takes_them() {
    for vector in vectors("cookieMaxAge") {
        let max_age = vector["maxAge"].as_f64();
        let options = CookieOptions { max_age, ..defaults(Preset::Express).cookie };
        let configured = SessionCookie::new(&options, false, NOW);
        let mut assigned = SessionCookie::new(&defaults(Preset::Express).cookie, false, NOW);
        let value = max_age.map(|age| age.to_string());
        assigned.edit(&Edit { key: "maxAge".into(), value }, NOW).unwrap();
        assigned.touch(NOW);
        for cookie in [configured, assigned] {
            assert_eq!(cookie.to_text(), text(&vector["json"]), "{vector}");
            assert_eq!(
                cookie.serialize("n", "v", None).as_deref(),
                vector["header"].as_str(),
                "{vector}"
            );
        }
    }
}
