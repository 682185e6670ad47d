//! Values of the session in headers of their own, such as Remote-User.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// A header, and the JSON pointer to its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValueHeader {
    pub(crate) name: HeaderName,
    pub(crate) pointer: String,
}

/// Sets all headers from the session in Edge-Session. A missing value is an empty header, which
/// replaces the visitor's own.
pub(super) fn tell(values: &[ValueHeader], headers: &mut HeaderMap) {
    if values.is_empty() {
        return;
    }
    let session = headers.get("edge-session").map(HeaderValue::as_bytes).unwrap_or(b"{}");
    let session = serde_json::from_slice::<Value>(session).unwrap_or_default();
    for ValueHeader { name, pointer } in values {
        let value = session.pointer(pointer).map(|value| in_header(value, name));
        headers.insert(name, value.unwrap_or(HeaderValue::from_static("")));
    }
}

/// Returns a value as a header. A text that would arrive as another one counts as missing: somebody
/// else may have that name.
fn in_header(value: &Value, name: &HeaderName) -> HeaderValue {
    let text = match value {
        Value::Null => return HeaderValue::from_static(""),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // HTTP does not transport spaces at the ends (RFC 9110, section 5.5).
    let value = HeaderValue::try_from(&text).ok().filter(|_| text.trim_ascii() == text);
    value.unwrap_or_else(|| {
        tracing::warn!(
            "a session's value for the header {name} contains control characters or begins or ends \
             with a space: the header is empty"
        );
        HeaderValue::from_static("")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_they_are_or_not_at_all() {
        let session = r#"{"user":"zo\u00eb","n":7,"l":["a"],"no":null,"odd":["a ","a\n"," a",""]}"#;
        let at = |pointer: &str| {
            let name = HeaderName::from_static("remote-user");
            let mut headers = HeaderMap::new();
            headers.insert("edge-session", HeaderValue::from_static(session));
            headers.insert(&name, HeaderValue::from_static("forged"));
            tell(&[ValueHeader { name: name.clone(), pointer: pointer.to_owned() }], &mut headers);
            String::from_utf8(headers[&name].as_bytes().to_vec()).unwrap()
        };
        assert_eq!(at("/user"), "zoë");
        assert_eq!(at("/n"), "7");
        assert_eq!(at("/l"), r#"["a"]"#);
        for nothing in ["/no", "/missing", "/odd/0", "/odd/1", "/odd/2", "/odd/3"] {
            assert_eq!(at(nothing), "", "{nothing}");
        }
    }
}
