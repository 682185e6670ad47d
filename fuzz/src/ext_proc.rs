//! The messages that Envoy sends for external processing.

#[allow(dead_code)]
#[path = "../../gateways/server/src/ext_proc/messages.rs"]
mod messages;
#[allow(dead_code)]
#[path = "../../gateways/server/src/ext_proc/translation.rs"]
mod translation;

use edge_session_headers as session_headers;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;

use self::messages::{Event, HeaderMutation, HeadersReply, ProcessingRequest};

/// Takes one message.
pub fn message(data: &[u8]) {
    let Ok(message) = ProcessingRequest::decode(data) else { return };
    match message.event {
        Some(Event::RequestHeaders(headers)) => {
            let Ok(request) = translation::request(headers) else { return };
            let old = request.headers();
            let mut new = old.clone();
            session_headers::strip(&mut new);
            session_headers::tell(&mut new, Some(("an-id", "{\"a\":\"é\"}")));
            check(old, &new);
        }
        Some(Event::ResponseHeaders(headers)) => {
            let Ok(mut head) = translation::response(headers) else { return };
            let old = head.headers.clone();
            let _ = session_headers::Answer::take(&mut head.headers);
            session_headers::remove_set_cookie(&mut head.headers, "connect.sid");
            session_headers::keep_private(&mut head.headers);
            check(&old, &head.headers);
        }
        Some(Event::RequestTrailers(trailers)) => {
            let named = trailers.clone().trailers.unwrap_or_default().headers;
            let removed = translation::trailers_reply(trailers).mutation.unwrap_or_default().remove;
            for name in named.iter().filter_map(|it| HeaderName::try_from(&*it.key).ok()) {
                let is_removed = removed.iter().any(|it| it == name.as_str());
                assert!(is_removed || !session_headers::is_ours(&name), "{name} passes");
            }
        }
        _ => {}
    }
}

/// Checks that the reply makes Envoy do what is meant, whose names have no case.
fn check(old: &HeaderMap, new: &HeaderMap) {
    let HeadersReply { common } = translation::headers_reply(old, new);
    let mutation = common.and_then(|common| common.mutation).unwrap_or_default();
    let HeaderMutation { set, remove } = mutation;
    let mut changed = old.clone();
    for name in &remove {
        changed.remove(&**name);
    }
    for option in set {
        let header = option.header.expect("there is one");
        let name = HeaderName::try_from(&*header.key).expect("it is a name");
        let value = HeaderValue::from_maybe_shared(header.into_value()).expect("it is a value");
        match option.append.is_some_and(|it| it.value) {
            true => drop(changed.append(name, value)),
            false => drop(changed.insert(name, value)),
        }
    }
    let hosts = [&changed, new].map(|headers| headers.get_all(HOST).iter().count());
    assert_eq!(hosts[0].max(1), hosts[1].max(1));
    assert_eq!(changed, *new);
}
