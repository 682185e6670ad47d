//! Hop-by-hop headers, and headers that proxies add (RFC 9110, section 7.6; RFC 7239).

use std::borrow::Cow;
use std::net::IpAddr;

use edge_session_headers::{cookie_name, cookies, dashed, is_ours, remove_where};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use ipnet::IpNet;

use super::X_REQUEST_ID;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers that concern one connection. Expect is answered here when the upstream accepts the body.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, TE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TRANSFER_ENCODING, UPGRADE, EXPECT];

/// Returns the protocols that a request asks to switch to, such as `websocket`. An upgrade to HTTP
/// is not passed on, because the requests after it would bypass the proxy's checks.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let is_other = |token: &&str| {
        let token = token.to_ascii_lowercase();
        !token.starts_with("h2") && !token.starts_with("http")
    };
    let protocols: Vec<_> = tokens(headers, &UPGRADE).filter(is_other).collect();
    HeaderValue::from_str(&protocols.join(", ")).ok().filter(|value| !value.is_empty())
}

/// Returns whether the body has a transfer coding other than `chunked`.
pub(crate) fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TRANSFER_ENCODING);
    codings.iter().any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Returns whether a header is end-to-end even if a Connection header lists it: applications rely
/// on it.
fn is_for_applications(name: &HeaderName) -> bool {
    [HOST, COOKIE, SET_COOKIE, AUTHORIZATION, FORWARDED, X_REAL_IP, X_REQUEST_ID].contains(name)
        || name.as_str().starts_with("x-forwarded-")
        || is_ours(name)
}

/// A message cannot have more fields than this, and has no reason to list more.
const MAX_LISTED: usize = 100;

/// Returns whether a Connection header lists too many names. Processing them all would cost more
/// than the rest of the request.
pub(crate) fn lists_too_much(headers: &HeaderMap) -> bool {
    let commas = |value: &HeaderValue| value.as_bytes().iter().filter(|it| **it == b',').count();
    headers.get_all(CONNECTION).iter().map(|value| commas(value) + 1).sum::<usize>() > MAX_LISTED
}

/// Removes hop-by-hop headers. `TE: trailers` stays, because this hop passes trailers on.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // A message must not remove headers that the proxy or applications rely on.
    let listed: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !is_for_applications(name))
        .collect();
    // If both are present, Transfer-Encoding determines the body's length (RFC 9112, section 6.3).
    let has_no_length = headers.contains_key(TRANSFER_ENCODING);
    let te = headers.get(TE).filter(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")).cloned();
    remove_where(headers, |name| {
        HOP_BY_HOP.contains(name)
            || (has_no_length && *name == CONTENT_LENGTH)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection")
            || listed.contains(name)
    });
    if let Some(te) = te {
        headers.insert(TE, te);
    }
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// The proxies whose forwarding headers are trusted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrustedProxies(pub(crate) Vec<IpNet>);

impl TrustedProxies {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Removes headers that a client must not set for an application: forwarding headers, unless they
/// come from a trusted proxy; headers that replace the request's path; and headers that imitate a
/// relevant one for applications that read CGI variables, where all characters but letters and
/// digits are alike. No legitimate client or proxy sends those.
pub(crate) fn remove_untrusted(headers: &mut HeaderMap, is_trusted: bool) {
    remove_where(headers, |name| {
        let read = dashed(name);
        let is_plain = matches!(read, Cow::Borrowed(_));
        replaces_target(&read)
            || (is_said_by_proxies(&read) && !(is_trusted && is_plain))
            || (is_relied_on(&read) && !is_plain)
            // CGI's HTTP_PROXY: many HTTP clients use it as their outgoing proxy.
            || read == "proxy"
    });
}

/// Removes fields that are not allowed in trailers: those of proxies and gateways, and those that
/// frame a message (RFC 9110, section 6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| {
        let read = dashed(name);
        is_ours(name)
            || replaces_target(&read)
            || is_said_by_proxies(&read)
            || is_relied_on(&read)
            || [HOST, COOKIE, SET_COOKIE, AUTHORIZATION].contains(name)
    });
}

/// Returns whether proxies set a header to describe a request's client, user or original target.
fn is_said_by_proxies(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "forwarded"
                | "x-forwarded"
                | "forwarded-for"
                | "x-forward-for"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-proxyuser-ip"
                | "client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "fastly-client-ip"
                | "x-envoy-external-address"
                | "x-host"
                | "x-original-host"
                | "x-http-host-override"
                | "remote-user"
                | "x-remote-user"
        )
}

/// Returns whether frameworks or servers use a header in place of the request's target, bypassing
/// all rules about paths: the first two by Symfony, Zend and ASP.NET; the others by nginx recipes,
/// gunicorn, Flask, IIS and Envoy.
fn replaces_target(name: &str) -> bool {
    matches!(
        name,
        "x-original-url"
            | "x-rewrite-url"
            | "x-original-uri"
            | "x-override-url"
            | "script-name"
            | "path-info"
            | "x-script-name"
            | "x-ms-original-url"
            | "unencoded-url"
            | "x-waws-unencoded-url"
            | "x-envoy-original-path"
    )
}

/// Returns whether the proxy reads, sets or removes a header under its proper name.
fn is_relied_on(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "content-type"
            | "transfer-encoding"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "set-cookie"
            | "x-request-id"
    ) || name.starts_with("sec-fetch-")
}

/// Detects loops (RFC 8586): gateways of any vendor pass it on.
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// The name of this gateway in CDN-Loop.
const PSEUDONYM: &str = "edge-session";

/// Returns how many of our gateways a request has passed.
pub(crate) fn rounds(headers: &HeaderMap) -> usize {
    let name = |entry: &&str| entry.split(';').next().is_some_and(|it| it.trim() == PSEUDONYM);
    tokens(headers, &CDN_LOOP).filter(name).count()
}

/// Records that a request has passed this gateway.
pub(crate) fn add_round(headers: &mut HeaderMap) {
    headers.append(CDN_LOOP, HeaderValue::from_static(PSEUDONYM));
}

/// Adds this hop to the forwarding headers of trusted proxies.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, peer: IpAddr, tls: bool) {
    let peer = peer.to_canonical();
    let proto = if tls { "https" } else { "http" };
    let before = headers.get(X_FORWARDED_FOR).and_then(|before| before.to_str().ok());
    let chain = match before {
        // The last of several headers is from the nearest proxy.
        Some(_) if headers.get_all(X_FORWARDED_FOR).iter().count() > 1 => {
            let all: Vec<_> = tokens(headers, &X_FORWARDED_FOR).collect();
            format!("{}, {peer}", all.join(", "))
        }
        Some(before) => format!("{before}, {peer}"),
        None => peer.to_string(),
    };
    set(headers, X_FORWARDED_FOR, &chain);
    add_round(headers);
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    // Only extended if present: X-Forwarded-* have the same content, and more applications read
    // them.
    if headers.contains_key(FORWARDED) {
        let for_ = match peer {
            IpAddr::V4(peer) => peer.to_string(),
            IpAddr::V6(peer) => format!("\"[{peer}]\""),
        };
        let before: Vec<_> = tokens(headers, &FORWARDED).collect();
        let chain = format!("{}, for={for_};proto={proto}", before.join(", "));
        set(headers, FORWARDED, &chain);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Built from header values and addresses, so it is always valid.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Joins the Cookie headers: HTTP/2 clients may send several, which HTTP/1 does not allow (RFC
/// 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies(headers)) {
        headers.insert(COOKIE, joined);
    }
}

/// Removes the cookie `name` from the Cookie headers.
pub(crate) fn hide_cookie(headers: &mut HeaderMap, name: &str) {
    let is_there = headers.get_all(COOKIE).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b';')
            .any(|pair| cookie_name(pair) == name.as_bytes())
    });
    if !is_there {
        return;
    }
    let http::header::Entry::Occupied(entry) = headers.entry(COOKIE) else { return };
    let (_, values) = entry.remove_entry_mult();
    let kept: Vec<_> = values
        .filter_map(|value| {
            let pairs = value.as_bytes().split(|byte| *byte == b';');
            let others: Vec<_> =
                pairs.filter(|pair| cookie_name(pair) != name.as_bytes()).collect();
            let text = others.join(&b";"[..]);
            HeaderValue::from_bytes(text.trim_ascii()).ok().filter(|value| !value.is_empty())
        })
        .collect();
    for value in kept {
        headers.append(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn what_is_for_one_connection_goes_no_further() {
        let mut headers = headers(&[
            ("connection", "close, X-Mine, Host, X-Forwarded-For"),
            ("x-mine", "1"),
            ("host", "a"),
            ("content-length", "3"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("proxy-authorization", "x"),
            ("trailer", "x-sum"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "te", "trailer"]);
    }

    #[test]
    fn only_an_upgrade_that_is_asked_for_in_both_headers_is_one() {
        let websocket = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade(&websocket).unwrap(), "websocket");
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])).is_none());
        let both = headers(&[("connection", "upgrade"), ("upgrade", "h2c, websocket, HTTP/2.0")]);
        assert_eq!(upgrade(&both).unwrap(), "websocket");
    }

    #[test]
    fn only_trusted_proxies_say_whom_a_request_comes_from() {
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let said = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.2.3.4"),
            ("host", "a.example"),
        ];

        let mut from_trusted = headers(&said);
        let peer = "::ffff:10.0.0.1".parse().unwrap();
        assert!(trusted.contains(peer));
        add_forwarded(&mut from_trusted, peer, false);
        assert_eq!(all(&from_trusted, "x-forwarded-for"), ["1.2.3.4, 10.0.0.1"]);
        assert_eq!(all(&from_trusted, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&from_trusted, "forwarded"), ["for=1.2.3.4, for=10.0.0.1;proto=http"]);

        let mut from_others = headers(&said);
        let peer = "8.8.8.8".parse().unwrap();
        assert!(!trusted.contains(peer));
        remove_untrusted(&mut from_others, false);
        add_forwarded(&mut from_others, peer, true);
        assert_eq!(all(&from_others, "x-forwarded-for"), ["8.8.8.8"]);
        assert_eq!(all(&from_others, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&from_others, "x-forwarded-host"), ["a.example"]);
        assert!(all(&from_others, "forwarded").is_empty());
    }

    #[test]
    fn no_visitor_says_what_the_request_is_for_and_no_spelling_looks_like_a_header() {
        let said = [
            ("x-original-url", "/internal"),
            ("x_rewrite_url", "/internal"),
            ("script_name", "/public"),
            ("x-envoy-original-path", "/internal"),
            ("unencoded_url", "/internal"),
            ("proxy", "http://evil.example"),
            ("x.forwarded.for", "1.2.3.4"),
            ("x-forwarded_proto", "https"),
            ("transfer_encoding", "chunked"),
            ("content!length", "3"),
            ("x~request~id", "1"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-original-host", "evil.example"),
            ("remote-user", "admin"),
            ("x_remote_user", "admin"),
            ("api_key", "1"),
            ("content-length", "3"),
        ];
        let from_proxy =
            ["api_key", "content-length", "remote-user", "x-forwarded-for", "x-original-host"];
        for (is_trusted, expected) in
            [(true, &from_proxy[..]), (false, &["api_key", "content-length"])]
        {
            let mut headers = headers(&said);
            remove_untrusted(&mut headers, is_trusted);
            let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn trailers_hold_nothing_that_matters_before_them() {
        let mut trailers = headers(&[
            ("edge.session", "{}"),
            ("x-forwarded-for", "1.2.3.4"),
            ("content_length", "3"),
            ("cookie", "a=1"),
            ("x-sum", "1"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }

    #[test]
    fn a_connection_header_lists_what_a_message_can_have() {
        let listing = |count: usize| headers(&[("connection", &"a,".repeat(count))]);
        assert!(!lists_too_much(&listing(99)));
        assert!(lists_too_much(&listing(100)));
        assert!(!lists_too_much(&HeaderMap::new()));
    }

    #[test]
    fn one_cookie_is_hidden_and_the_others_stay() {
        let mut headers = headers(&[
            ("cookie", "a=1; connect.sid=s%3Ax.y; b=2"),
            ("cookie", "connect.sid=z"),
            ("cookie", "c=3"),
        ]);
        hide_cookie(&mut headers, "connect.sid");
        assert_eq!(all(&headers, "cookie"), ["a=1; b=2", "c=3"]);
    }

    #[test]
    fn cookies_of_http2_become_one_header() {
        let mut headers = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(all(&headers, "cookie"), ["a=1; b=2"]);
    }
}
