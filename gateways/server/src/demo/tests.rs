//! Tests of the application that need no session.

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{ALLOW, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use tower::ServiceExt as _;

use super::*;

async fn ask(method: &str, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    router().oneshot(request).await.unwrap()
}

async fn body(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn only_paths_of_this_site_are_returned_to() {
    for path in ["/", "/account", "/a//b", "/a?b=//c#d", "/é"] {
        assert!(is_local(path), "{path:?}");
    }
    let long = format!("/{}", "a".repeat(MAX_RETURN));
    for path in [
        "",
        "account",
        "//example.com",
        "/\\example.com",
        "\\\\example.com",
        "https://example.com/",
        "javascript:alert(1)",
        " /account",
        "/\t/example.com",
        "/a\r\nSet-Cookie: b=c",
        "/a\u{85}",
        &long,
    ] {
        assert!(!is_local(path), "{path:?}");
    }
}

#[test]
fn an_address_is_escaped_for_its_header() {
    assert_eq!(header_text("/é a?b=%20&c=\"d\""), "/%C3%A9%20a?b=%20&c=\"d\"");
}

#[test]
fn names_have_1_to_64_characters() {
    assert!(check_username("a").is_ok());
    assert!(check_username(&"é".repeat(64)).is_ok());
    assert!(check_username("").is_err());
    assert!(check_username(&"é".repeat(65)).is_err());
}

#[test]
fn keys_that_are_taken_empty_or_too_long_are_refused() {
    assert_eq!(check_value("colour", "blue"), Ok(()));
    assert_eq!(check_value(&"k".repeat(64), &"é".repeat(1024)), Ok(()));
    for key in RESERVED_KEYS {
        assert!(check_value(key, "v").unwrap_err().contains(key));
    }
    for (key, value) in [("", "v"), (" ", "v"), ("k", ""), (&"k".repeat(65), "v")] {
        assert!(check_value(key, value).is_err(), "{key:?}: {value:?}");
    }
    assert!(check_value("k", &"v".repeat(1025)).is_err());
}

#[test]
fn the_token_is_not_shown() {
    assert_eq!(shown("csrf", &Value::from("secret")), None);
    assert_eq!(shown("name", &Value::from("ada")), Some("\"ada\"".to_owned()));
}

#[tokio::test]
async fn every_answer_forbids_scripts_and_frames() {
    for (method, path) in [("GET", "/nowhere"), ("GET", "/style.css"), ("PUT", "/"), ("GET", "/")] {
        let response = ask(method, path).await;
        let headers = response.headers();
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'self'; form-action"),
            "{policy}"
        );
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[REFERRER_POLICY], "same-origin");
    }
}

#[tokio::test]
async fn an_unknown_address_gets_a_page_that_is_not_cached() {
    let response = ask("GET", "/nowhere").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(body(response).await.contains("There is no such page"));
}

#[tokio::test]
async fn a_wrong_method_gets_405_and_the_right_ones() {
    for (method, path, allowed) in
        [("PUT", "/login", "GET,HEAD,POST"), ("GET", "/logout", "POST"), ("POST", "/", "GET,HEAD")]
    {
        let response = ask(method, path).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(response.headers()[ALLOW], allowed);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn the_style_needs_no_session_and_is_cached() {
    let response = ask("GET", "/style.css").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/css; charset=utf-8");
    assert_eq!(response.headers()[CACHE_CONTROL], "private, max-age=3600");
    assert!(body(response).await.contains("prefers-color-scheme"));
}

#[tokio::test]
async fn pages_outside_a_session_layer_fail() {
    for (method, path) in [("GET", "/"), ("GET", "/account"), ("POST", "/logout")] {
        assert_eq!(ask(method, path).await.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
}
