//! The gateway's parsers for requests. Its modules are part of the program and are compiled again
//! here.

#[path = "../../gateways/server/src/telemetry/traces/context.rs"]
mod context;
#[path = "../../gateways/server/src/net/connections/frames.rs"]
mod frames;
#[allow(dead_code)]
#[path = "../../gateways/server/src/proxy/headers.rs"]
pub(crate) mod headers;
#[allow(dead_code)]
#[path = "../../gateways/server/src/net/connections/heads.rs"]
mod heads;
#[allow(dead_code)]
#[path = "../../gateways/server/src/proxy/path.rs"]
mod path;
#[path = "../../gateways/server/src/net/query.rs"]
pub(crate) mod query;
#[path = "../../gateways/server/src/proxy/target.rs"]
mod target;

use std::net::{IpAddr, Ipv6Addr};

use edge_session_headers as session_headers;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Uri, Version};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};

use self::path::{PlainPath, RulePath};
use crate::{head, readings};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Takes the head of a request: its target, then its headers, one per line.
pub fn request(data: &[u8]) {
    check_frames(data);
    let (target, headers) = head::parse(data);
    check_query(target);
    // hyper refuses an invalid target.
    if let Some(uri) = query::parse(target) {
        check_path(&uri);
        check_host(&uri, &headers);
    }
    if headers::lists_too_much(&headers) {
        return;
    }
    for is_trusted in [false, true] {
        check_headers(headers.clone(), is_trusted);
    }
    check_cookies(&headers);
    check_trace(&headers);
    check_trailers(headers);
}

/// Frames are the same whatever the pieces in which they arrive.
fn check_frames(data: &[u8]) {
    let follow = |size: usize| {
        let mut frames = frames::Frames::default();
        frames.follow(frames::PREFACE);
        data.chunks(size).map(|piece| frames.follow(piece)).sum::<u32>()
    };
    let count = follow(data.len().max(1));
    assert!(count as usize <= data.len() / 9);
    assert!([1, 2, 7, 9, 10].iter().all(|size| follow(*size) == count));
}

/// Escaping changes nothing but the query, whatever the pieces in which a request arrives.
fn check_query(target: &[u8]) {
    let line = [b"GET ", target, b" HTTP/1.1\r\nX: /?\"\r\n\r\n"].concat();
    let feed = |pieces: &[&[u8]], next: heads::Next| -> Vec<u8> {
        let mut heads = heads::Heads::default();
        let mut all = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                if heads.needs_next() {
                    heads.go_on(next);
                }
                let (count, escaped) = heads.follow(piece);
                all.extend(escaped.unwrap_or_else(|| piece[..count].to_vec()));
                piece = &piece[count..];
            }
        }
        all
    };
    for next in [heads::Next::Body(3), heads::Next::Unknown] {
        let whole = feed(&[&line], next);
        for at in [target.len() / 2, line.len() / 2, line.len() - 1] {
            let (one, other) = line.split_at(at);
            assert_eq!(feed(&[one, other], next), whole);
        }
    }
    let whole = feed(&[&line], heads::Next::Unknown);
    let path = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    assert_eq!(whole[..4 + path], line[..4 + path], "the path has changed");
    assert!(whole.ends_with(b"\r\nX: /?\"\r\n\r\n"), "a header has changed");
    if let Ok(uri) = Uri::try_from(target) {
        assert_eq!(query::parse(target), Some(uri));
    }
    if let Some(uri) = query::parse(target)
        && let Some(query) = uri.query()
    {
        let sent: Vec<u8> = target[path + 1..].split(|byte| *byte == b'#').next().unwrap().to_vec();
        let decoded = |bytes: &[u8]| percent_encoding::percent_decode(bytes).collect::<Vec<_>>();
        assert_eq!(decoded(query.as_bytes()), decoded(&sent));
    }
}

fn check_path(uri: &Uri) {
    let path = uri.path();
    let plain = target::path(uri, false);
    // What passes while escaped slashes are forbidden gives the same result when they are allowed.
    let with_slashes = target::path(uri, true);
    if let Ok(plain) = &plain {
        assert_eq!(with_slashes.as_ref(), Ok(plain));
    }
    if let Ok(plain) = &plain {
        let rule = |path| RulePath::parse(path).expect("a guard's path is one");
        assert!(plain.is_below(&rule("/")) && plain.is_below(plain));
        if readings::first_segments(path).iter().any(|first| first == "internal") {
            assert!(plain.is_below(&rule("/internal")), "{path} passes a guard");
        }
    }
    // A path that is excepted from a guard has only one reading, and a guard on that path applies.
    let public = PlainPath::parse("/public").expect("an exception's path is one");
    if PlainPath::parse(path).is_some_and(|path| path.is_below(&public)) {
        assert!(plain.is_ok());
        let firsts = readings::first_segments(path);
        assert!(firsts.iter().all(|first| first == "public"), "{path} is {firsts:?}");
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let back = path::return_path(target);
    assert!(back.starts_with('/') && !back[1..].starts_with(['/', '\\']), "{back}");
}

fn check_host(uri: &Uri, headers: &HeaderMap) {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let Ok(host) = target::host(uri, headers, version) else { continue };
        let Some(host) = host else {
            assert!(version != Version::HTTP_11 && !headers.contains_key(HOST));
            continue;
        };
        let name = target::without_port(&host);
        assert!(host.starts_with(name));
        assert!(!name.contains(['@', '/', '?', '#', '\\', ' ', ',']), "{host}");
        assert!(!name.contains(':') || (name.starts_with('[') && name.ends_with(']')), "{host}");
        let port = &host[name.len()..];
        assert!(port.is_empty() || port == ":" || port[1..].parse::<u16>().is_ok(), "{host}");
        // A host that is given in both places is the same.
        for other in headers.get(HOST).into_iter().chain(None) {
            assert!(host.as_bytes().eq_ignore_ascii_case(other.as_bytes()), "{host}");
        }
        assert!(target::is_own_origin(format!("https://{host}").as_bytes(), &host));
        for origin in [format!("https://{host}.example"), format!("https://example/://{host}")] {
            assert!(!target::is_own_origin(origin.as_bytes(), &host), "{origin}");
        }
        if let Some(origin) = headers.get(ORIGIN)
            && target::is_own_origin(origin.as_bytes(), &host)
        {
            let origin = origin.to_str().expect("a host is text").to_ascii_lowercase();
            assert!(origin.ends_with(&format!("://{}", host.to_ascii_lowercase())), "{origin}");
        }
    }
}

/// Whether proxies set the variable, to state where a request comes from.
fn is_said_by_proxies(variable: &str) -> bool {
    variable.starts_with("X_FORWARDED_") || matches!(variable, "FORWARDED" | "X_REAL_IP")
}

fn check_headers(mut headers: HeaderMap, is_trusted: bool) {
    headers::remove_untrusted(&mut headers, is_trusted);
    session_headers::strip(&mut headers);
    for name in headers.keys() {
        let variable = head::cgi(name);
        let is_proper = !name.as_str().contains(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        assert!(!variable.starts_with("EDGE_SESSION"), "{name}");
        assert!(!matches!(&*variable, "X_ORIGINAL_URL" | "X_REWRITE_URL" | "PROXY"), "{name}");
        if is_said_by_proxies(&variable) {
            assert!(is_trusted && is_proper, "{name}");
        }
        if matches!(&*variable, "TRANSFER_ENCODING" | "CONTENT_LENGTH" | "CONTENT_TYPE") {
            assert!(is_proper, "{name}");
        }
    }

    if !headers::has_unknown_coding(&headers) {
        for coding in head::all(&headers, &TRANSFER_ENCODING) {
            assert!(coding.eq_ignore_ascii_case(b"chunked"));
        }
    }
    if let Some(protocols) = headers::upgrade(&headers) {
        assert!(headers.contains_key(CONNECTION) && headers.contains_key(UPGRADE));
        let protocols = protocols.to_str().expect("tokens are text").to_ascii_lowercase();
        for protocol in protocols.split(',').map(str::trim) {
            assert!(!protocol.is_empty() && !protocol.starts_with("http"), "{protocols}");
            assert!(!protocol.starts_with("h2"), "{protocols}");
        }
    }
    check_hop_by_hop(&mut headers);
    check_forwarded(&mut headers);
}

fn check_hop_by_hop(headers: &mut HeaderMap) {
    let before = headers.clone();
    headers::remove_hop_by_hop(headers);
    for name in ["connection", "transfer-encoding", "upgrade", "expect", "keep-alive"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    for name in ["proxy-authenticate", "proxy-authorization", "proxy-connection"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    for te in head::all(headers, &TE) {
        assert!(te.eq_ignore_ascii_case(b"trailers"));
    }
    if before.contains_key(TRANSFER_ENCODING) {
        assert!(!headers.contains_key(CONTENT_LENGTH));
    }
    // A message cannot remove headers that the gateway or its applications rely on.
    let relied_on = [HOST, COOKIE, AUTHORIZATION, FORWARDED, X_FORWARDED_FOR, X_REQUEST_ID];
    for name in relied_on {
        assert_eq!(head::all(headers, &name), head::all(&before, &name));
    }
    // The listed headers are removed, and nothing is added.
    for (name, value) in headers.iter() {
        assert!(before.get_all(name).iter().any(|it| it == value), "{name}");
    }
}

fn check_forwarded(headers: &mut HeaderMap) {
    headers.insert(HOST, HeaderValue::from_static("a.example"));
    let before = headers.clone();
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for (peer, for_) in [(IpAddr::from([192, 0, 2, 1]), "192.0.2.1"), (v6, "\"[::1]\"")] {
        let mut headers = before.clone();
        headers::add_forwarded(&mut headers, peer, false);
        let [chain] = head::all(&headers, &X_FORWARDED_FOR)[..] else {
            panic!("there is one X-Forwarded-For")
        };
        let chain = std::str::from_utf8(chain).expect("it is text");
        let nearest = chain.rsplit(',').next().map(str::trim);
        assert_eq!(nearest, Some(&*peer.to_string()), "{chain}");
        assert_eq!(
            head::all(&headers, &FORWARDED).len(),
            usize::from(before.contains_key(FORWARDED))
        );
        for chain in head::all(&headers, &FORWARDED) {
            let nearest = format!("for={for_};proto=http");
            assert!(chain.ends_with(nearest.as_bytes()), "{chain:?}");
        }
        for name in ["x-forwarded-proto", "x-forwarded-host"] {
            assert!(headers.contains_key(name));
        }
    }
}

/// Returns the cookies of all Cookie headers, in order.
fn pairs(headers: &HeaderMap) -> Vec<&[u8]> {
    let values = head::all(headers, &COOKIE).into_iter();
    let pairs = values.flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).collect()
}

fn check_cookies(headers: &HeaderMap) {
    let mut joined = headers.clone();
    headers::join_cookies(&mut joined);
    assert_eq!(head::all(&joined, &COOKIE).len(), usize::from(headers.contains_key(COOKIE)));
    assert_eq!(pairs(&joined), pairs(headers));

    let mut hidden = headers.clone();
    headers::hide_cookie(&mut hidden, "connect.sid");
    let name = |pair: &[u8]| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        pair[..end].trim_ascii().to_vec()
    };
    let mut others = pairs(headers);
    others.retain(|pair| name(pair) != b"connect.sid");
    assert_eq!(pairs(&hidden), others);
}

fn check_trailers(mut trailers: HeaderMap) {
    headers::clean_trailers(&mut trailers);
    for name in trailers.keys() {
        let variable = head::cgi(name);
        let is_framing = matches!(&*variable, "CONTENT_LENGTH" | "TRANSFER_ENCODING" | "HOST");
        assert!(!variable.starts_with("EDGE_SESSION") && !is_said_by_proxies(&variable), "{name}");
        assert!(!is_framing, "{name}");
    }
}

/// Checks that an application receives the gateway's trace context whatever a visitor sends, and a
/// trusted proxy's own if it is valid.
fn check_trace(headers: &HeaderMap) {
    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
    let own = |trace: TraceId, state: TraceState| {
        let span = SpanId::from(7);
        Context::new().with_remote_span_context(SpanContext::new(
            trace,
            span,
            TraceFlags::SAMPLED,
            false,
            state,
        ))
    };
    let (parent, links) = context::parent(headers, false);
    assert!(!parent.span().span_context().is_valid() && links.len() < 2);
    let mut told = headers.clone();
    context::tell(&own(TraceId::from(5), TraceState::NONE), &mut told);
    let expected = format!("00-{:032x}-{:016x}-01", 5, 7);
    assert_eq!(head::all(&told, &TRACEPARENT), [expected.as_bytes()]);
    assert!(!told.contains_key(TRACESTATE));

    let (parent, links) = context::parent(headers, true);
    assert!(links.is_empty());
    let sender = parent.span().span_context().clone();
    if sender.is_valid() {
        let given = headers.get(TRACEPARENT).expect("it was read").to_str().expect("it is text");
        let trace = sender.trace_id();
        assert!(given.to_ascii_lowercase().contains(&format!("-{trace}-")), "{given}");
        let mut told = headers.clone();
        context::tell(&own(trace, sender.trace_state().clone()), &mut told);
        let told = head::all(&told, &TRACEPARENT);
        assert_eq!(told, [format!("00-{trace}-{:016x}-01", 7).as_bytes()]);
    }
}
