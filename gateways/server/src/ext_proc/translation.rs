//! Translates between Envoy's messages and HTTP messages.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version, response};
use http_body_util::BodyExt as _;

use super::messages::{
    CommonReply, Header, HeaderMutation, HeaderOption, HeadersReply, HttpHeaders, HttpStatus,
    HttpTrailers, ImmediateResponse, TrailersReply,
};
use crate::net::query;
use crate::proxy::clean_trailers;

/// The pseudo-headers of a message, and the others.
#[derive(Default)]
struct Fields {
    method: Option<Bytes>,
    path: Option<Bytes>,
    status: Option<Bytes>,
    headers: HeaderMap,
}

impl Fields {
    /// The error says what is wrong.
    fn read(message: HttpHeaders) -> Result<Self, &'static str> {
        let mut fields = Self::default();
        for header in message.headers.unwrap_or_default().headers {
            let name = header.key.to_ascii_lowercase();
            let value = |header: Header| {
                HeaderValue::from_maybe_shared(header.into_value())
                    .map_err(|_| "A header's value is not valid.")
            };
            match &*name {
                ":method" => fields.method = Some(header.into_value()),
                ":path" => fields.path = Some(header.into_value()),
                ":status" => fields.status = Some(header.into_value()),
                ":authority" => {
                    fields.headers.insert(HOST, value(header)?);
                }
                _ if name.starts_with(':') => {}
                _ => {
                    let name = HeaderName::try_from(name);
                    let name = name.map_err(|_| "A header's name is not valid.")?;
                    fields.headers.append(name, value(header)?);
                }
            }
        }
        Ok(fields)
    }
}

/// Returns the request that Envoy describes. The error says what is wrong.
pub(super) fn request(message: HttpHeaders) -> Result<Request<Body>, &'static str> {
    let has_body = !message.end_of_stream;
    let Fields { method, path, headers, .. } = Fields::read(message)?;
    let method = Method::from_bytes(&method.unwrap_or_default());
    let path = path.unwrap_or_default();
    if path.contains(&b'#') {
        // A URI drops what follows, which applications may read as a part of the path.
        return Err("The request target has a fragment.");
    }
    let target = query::parse(&path);
    let mut request = Request::new(if has_body { Body::new(Elsewhere) } else { Body::empty() });
    *request.method_mut() = method.map_err(|_| "The method is not valid.")?;
    *request.uri_mut() = target.ok_or("The request target is not valid.")?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Returns the head of the response that Envoy describes.
pub(super) fn response(message: HttpHeaders) -> Result<response::Parts, &'static str> {
    let Fields { status, headers, .. } = Fields::read(message)?;
    let (mut head, ()) = Response::new(()).into_parts();
    let status = StatusCode::from_bytes(&status.unwrap_or_default());
    head.status = status.map_err(|_| "The status is not valid.")?;
    head.headers = headers;
    Ok(head)
}

/// The body of a request, which only Envoy has.
struct Elsewhere;

impl http_body::Body for Elsewhere {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

/// Returns the reply that turns the headers `old` into `new`.
pub(super) fn headers_reply(old: &HeaderMap, new: &HeaderMap) -> HeadersReply {
    let mutation = Some(mutation(old, new)).filter(|it| *it != HeaderMutation::default());
    HeadersReply { common: mutation.map(|it| CommonReply { mutation: Some(it) }) }
}

/// Returns the reply that removes fields that are not allowed in trailers.
pub(super) fn trailers_reply(message: HttpTrailers) -> TrailersReply {
    let names = message.trailers.unwrap_or_default().headers.into_iter().map(|it| it.key);
    let mut old = HeaderMap::new();
    let mut remove = Vec::new();
    for name in names {
        match HeaderName::try_from(&*name) {
            Ok(name) => drop(old.insert(name, HeaderValue::from_static(""))),
            // What cannot be judged does not pass.
            Err(_) => remove.push(name),
        }
    }
    let mut new = old.clone();
    clean_trailers(&mut new);
    remove.extend(mutation(&old, &new).remove);
    let mutation = (!remove.is_empty()).then(|| HeaderMutation { set: Vec::new(), remove });
    TrailersReply { mutation }
}

fn mutation(old: &HeaderMap, new: &HeaderMap) -> HeaderMutation {
    let mut mutation = HeaderMutation::default();
    // Envoy refuses to change the host.
    for name in old.keys().filter(|name| **name != HOST && !new.contains_key(*name)) {
        mutation.remove.push(name.as_str().to_owned());
    }
    for name in new.keys().filter(|name| **name != HOST) {
        let values = new.get_all(name);
        let before = old.get_all(name);
        let same = before.iter().zip(&values).take_while(|(old, new)| old == new).count();
        let is_extended = same == before.iter().count();
        for (at, value) in values.iter().enumerate().skip(if is_extended { same } else { 0 }) {
            let field = field(name, value);
            mutation.set.push(match at {
                0 => HeaderOption::replacing(field),
                _ => HeaderOption::adding(field),
            });
        }
    }
    mutation
}

fn field(name: &HeaderName, value: &HeaderValue) -> Header {
    Header {
        key: name.as_str().to_owned(),
        value: String::new(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// Returns the reply that makes Envoy answer with a response of our own.
pub(super) async fn immediate(response: Response<Body>) -> ImmediateResponse {
    let (mut head, body) = response.into_parts();
    // Envoy sets it.
    head.headers.remove(CONTENT_LENGTH);
    // Our own bodies are in memory.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    ImmediateResponse {
        status: Some(HttpStatus { code: head.status.as_u16().into() }),
        headers: Some(mutation(&HeaderMap::new(), &head.headers)),
        body,
        details: "edge-session".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    /// Does what Envoy does with a mutation.
    fn mutated(old: &HeaderMap, mutation: &HeaderMutation) -> HeaderMap {
        let mut headers = old.clone();
        for name in &mutation.remove {
            headers.remove(name);
        }
        for option in &mutation.set {
            let header = option.header.clone().unwrap();
            let name = HeaderName::try_from(header.key.clone()).unwrap();
            let value = HeaderValue::from_maybe_shared(header.into_value()).unwrap();
            if option.append.is_some_and(|it| it.value) {
                headers.append(name, value);
            } else {
                headers.insert(name, value);
            }
        }
        headers
    }

    #[test]
    fn a_mutation_turns_the_old_headers_into_the_new_ones() {
        let old = headers(&[
            ("host", "a"),
            ("edge-session", "{\"forged\":1}"),
            ("edge_session_id", "forged"),
            ("set-cookie", "one=1"),
            ("set-cookie", "two=2"),
            ("vary", "Accept"),
        ]);
        let changed = [
            headers(&[("host", "a"), ("edge-session", "{}"), ("edge-session-id", "")]),
            headers(&[("host", "a"), ("set-cookie", "two=2"), ("set-cookie", "own=3")]),
            headers(&[
                ("host", "a"),
                ("set-cookie", "one=1"),
                ("set-cookie", "two=2"),
                ("set-cookie", "own=3"),
                ("vary", "Accept"),
                ("vary", "Cookie"),
            ]),
            headers(&[("host", "a"), ("set-cookie", "one=1")]),
        ];
        for new in &changed {
            assert_eq!(mutated(&old, &mutation(&old, new)), *new);
        }
        assert_eq!(mutation(&old, &old), HeaderMutation::default());
        // Nothing that stays is sent again.
        assert_eq!(mutation(&old, &changed[2]).set.len(), 2);
    }

    fn message(fields: &[(&str, &[u8])]) -> HttpHeaders {
        let fields = fields.iter().map(|(key, value)| Header {
            key: (*key).to_owned(),
            value: String::new(),
            raw_value: Bytes::copy_from_slice(value),
        });
        HttpHeaders {
            headers: Some(super::super::messages::Headers { headers: fields.collect() }),
            end_of_stream: true,
        }
    }

    #[test]
    fn a_request_that_cannot_be_represented_is_refused() {
        let valid: &[(&str, &[u8])] = &[(":method", b"GET"), (":path", b"/"), (":authority", b"a")];
        assert!(request(message(valid)).is_ok());
        for (name, value) in [
            (":path", &b"/a b"[..]),
            (":path", b"/\xff"),
            (":path", b"/free#/../account"),
            (":method", b"G T"),
            (":authority", b"a\n"),
            ("edge session", b"{}"),
            ("x", b"a\r\nEdge-Session: {}"),
            ("", b"x"),
        ] {
            let mut fields: Vec<_> = valid.iter().filter(|it| it.0 != name).copied().collect();
            fields.push((name, value));
            assert!(request(message(&fields)).is_err(), "{name} {value:?}");
        }
        assert!(request(message(&valid[..1])).is_err());
        assert!(request(message(&valid[1..])).is_err());
        for status in [&b""[..], b"1", b"9999", b"abc"] {
            assert!(response(message(&[(":status", status)])).is_err(), "{status:?}");
        }
    }
}
