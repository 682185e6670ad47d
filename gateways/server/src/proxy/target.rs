//! The rules for a request's target: its path and its host.

use std::net::Ipv6Addr;

use http::header::{HOST, HeaderMap};
use http::uri::PathAndQuery;
use http::{Uri, Version};

use super::path::{Ambiguous, RulePath};

/// Returns the path of a request's target in the form that rules compare.
pub(crate) fn path(uri: &Uri, escaped_slashes: bool) -> Result<RulePath, Ambiguous> {
    // In HTTP/2 the path may be missing, so that the target begins with the query.
    let has_none = |target: &PathAndQuery| !target.as_str().starts_with(['/', '*']);
    match (uri.path(), uri.path_and_query()) {
        (_, Some(target)) if has_none(target) => Err(Ambiguous),
        // OPTIONS * asks about the server as a whole.
        ("*", _) => RulePath::parse("/"),
        (path, _) => RulePath::parse_with(path, escaped_slashes),
    }
}

/// Returns the host of a request, with its port (RFC 9112, section 3.2); none for a request of
/// HTTP/1.0 that names none. An error says what is wrong.
pub(crate) fn host(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
) -> Result<Option<String>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("There is more than one Host header."),
        (Some(host), None) => Some(host.to_str().map_err(|_| "The Host header is not valid.")?),
        (None, None) => None,
    };
    if uri.authority().is_some() && uri.scheme().is_none() {
        return Err("The request target is not a path.");
    }
    if header.is_some_and(|host| !is_host(host)) {
        return Err("The Host header is not valid.");
    }
    if uri.authority().is_some_and(|authority| !is_host(authority.as_str())) {
        return Err("The request target's host is not valid.");
    }
    match (uri.authority(), header) {
        (Some(authority), Some(header)) if !authority.as_str().eq_ignore_ascii_case(header) => {
            Err("The Host header differs from the request target.")
        }
        (Some(authority), _) => Ok(Some(authority.as_str().to_owned())),
        (None, Some(header)) => Ok(Some(header.to_owned())),
        (None, None) if version == Version::HTTP_11 => Err("The Host header is missing."),
        (None, None) => Ok(None),
    }
}

/// Returns whether a text is a host with an optional port, and nothing else. `Authority` accepts
/// more: text after an address, and commas, which X-Forwarded-Host would split into two hosts.
fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|it| it.parse::<Ipv6Addr>().is_ok()),
        None => !name.is_empty() && name.bytes().all(is_plain),
    };
    is_name && port.is_none_or(|port| port.is_empty() || is_port(port))
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Returns a host without its port.
pub(crate) fn without_port(host: &str) -> &str {
    split_port(host).0
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host, None),
    }
}

/// Returns whether an Origin header (RFC 6454, section 7) matches the request's host. It may have
/// either scheme, because a proxy in front may have terminated TLS.
pub(crate) fn is_own_origin(origin: &[u8], host: &str) -> bool {
    let origin = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
    let is_scheme = |it: &str| ["http", "https"].iter().any(|http| it.eq_ignore_ascii_case(http));
    origin.is_some_and(|(scheme, authority)| {
        is_scheme(scheme) && authority.eq_ignore_ascii_case(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_without_a_path_is_refused() {
        let of_http2 = |target: &str| {
            let builder = Uri::builder().scheme("http").authority("a");
            path(&builder.path_and_query(target).build().unwrap(), false)
        };
        assert_eq!(of_http2("?x=/admin"), Err(Ambiguous));
        // Without its fragment, which only the client uses, this is the root.
        for target in ["", "#/admin", "/", "/?x"] {
            assert_eq!(of_http2(target), RulePath::parse("/"), "{target:?}");
        }
        for target in ["http://a", "/", "*"] {
            assert!(path(&target.parse().unwrap(), false).is_ok(), "{target}");
        }
    }

    #[test]
    fn an_origin_is_own_when_its_host_and_port_are() {
        for origin in ["http://a.example:8080", "HTTPS://A.example:8080"] {
            assert!(is_own_origin(origin.as_bytes(), "a.example:8080"), "{origin}");
        }
        let others: [&[u8]; 10] = [
            b"://a.example:8080",
            "http/\u{59a}://a.example:8080".as_bytes(),
            b"http://a.example",
            b"http://b.example:8080",
            b"null",
            b"/",
            b"",
            b"://",
            b"http:/a.example:8080",
            b"http://\xff",
        ];
        for origin in others {
            assert!(!is_own_origin(origin, "a.example:8080"), "{origin:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in ["a.example", "a.example:80", "127.0.0.1:", "[::1]", "[::1]:80"] {
            assert!(is_host(host), "{host}");
        }
        let others = [
            "", "a:x", "a:65536", "u@a", "[::1", "[::1]a", "[:::8]10", "[a]", "a]:1", "a b", "a,b",
            ":1", "a:+1",
        ];
        for host in others {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn a_port_is_taken_from_a_host() {
        for (host, without) in
            [("a", "a"), ("a:1", "a"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"), ("a:", "a")]
        {
            assert_eq!(without_port(host), without);
        }
    }
}
