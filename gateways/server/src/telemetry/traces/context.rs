//! The trace context of requests (W3C Trace Context).

use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Link, TraceContextExt as _};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Returns the parent of a request's span, and its links. A trusted proxy's trace is continued. For
/// any other client a new trace begins, linked to the client's, so that clients cannot decide which
/// requests are recorded (section 5.3: restart the trace).
pub(crate) fn parent(headers: &HeaderMap, is_trusted: bool) -> (Context, Vec<Link>) {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let is_told = values.next().is_some_and(|it| is_traceparent(it.as_bytes()));
    if !is_told || values.next().is_some() {
        return (Context::new(), Vec::new());
    }
    let sender = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let span = sender.span().span_context().clone();
    match is_trusted || !span.is_valid() {
        true => (sender, Vec::new()),
        false => (Context::new(), vec![Link::with_context(span)]),
    }
}

/// Returns whether the fields have the lengths of section 3.2.2, which the propagator does not
/// check.
fn is_traceparent(value: &[u8]) -> bool {
    let mut fields = value.split(|byte| *byte == b'-');
    let is_hex = |field: &[u8]| field.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    [2, 32, 16, 2]
        .iter()
        .all(|length| fields.next().is_some_and(|field| field.len() == *length && is_hex(field)))
}

/// Sets the trace headers for the next hop, replacing those of the sender.
pub(crate) fn tell(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
    if headers.get(TRACESTATE).is_some_and(HeaderValue::is_empty) {
        headers.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn is_told(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        let (trusted, links) = parent(&headers, true);
        let (other, other_links) = parent(&headers, false);
        assert!(links.is_empty() && !other.span().span_context().is_valid());
        let is_told = trusted.span().span_context().is_valid();
        assert_eq!(other_links.len(), usize::from(is_told));
        is_told
    }

    #[test]
    fn only_what_is_a_traceparent_says_whose_trace_it_is() {
        assert!(is_told(&[USUAL]));
        assert!(is_told(&[&format!("01{}-more", &USUAL[2..])]));
        for value in [
            "",
            "00-0af76c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(!is_told(&[value]), "{value}");
        }
        assert!(!is_told(&[USUAL, USUAL]));
    }
}
