//! The messages of external processing and of gRPC's health check, as far as they are used here.
//! Field numbers are those of `envoy/service/ext_proc/v3/external_processor.proto`,
//! `envoy/config/core/v3/base.proto` and `grpc/health/v1/health.proto`.

use bytes::Bytes;

/// What Envoy sends: one event of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProcessingRequest {
    /// Whether Envoy ignores all replies.
    #[prost(bool, tag = "10")]
    pub(super) observability_mode: bool,
    /// Only in the first message of a stream.
    #[prost(message, optional, tag = "11")]
    pub(super) protocol_config: Option<ProtocolConfiguration>,
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7")]
    pub(super) event: Option<Event>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Event {
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    #[prost(message, tag = "4")]
    RequestBody(Empty),
    #[prost(message, tag = "5")]
    ResponseBody(Empty),
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    #[prost(message, tag = "7")]
    ResponseTrailers(Empty),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HttpTrailers {
    #[prost(message, optional, tag = "1")]
    pub(super) trailers: Option<Headers>,
}

/// How Envoy is configured to send bodies.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtocolConfiguration {
    #[prost(int32, tag = "1")]
    pub(super) request_body_mode: i32,
    #[prost(int32, tag = "2")]
    pub(super) response_body_mode: i32,
}

/// `BodySendMode`: bodies are not sent.
pub(super) const BODY_NONE: i32 = 0;
/// `BodySendMode`: Envoy forwards what the reply contains, and nothing else.
pub(super) const BODY_FULL_DUPLEX: i32 = 4;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HttpHeaders {
    #[prost(message, optional, tag = "1")]
    pub(super) headers: Option<Headers>,
    /// Whether there is no body.
    #[prost(bool, tag = "3")]
    pub(super) end_of_stream: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Headers {
    #[prost(message, repeated, tag = "1")]
    pub(super) headers: Vec<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
    /// Excludes `value`.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) raw_value: Bytes,
}

impl Header {
    pub(super) fn into_value(self) -> Bytes {
        if self.raw_value.is_empty() { self.value.into() } else { self.raw_value }
    }
}

/// A message whose content is not used.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Empty {}

/// What Envoy gets for each event.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProcessingResponse {
    /// Which events Envoy shall send from now on; without `allow_mode_override`, it has no effect.
    #[prost(message, optional, tag = "9")]
    pub(super) mode_override: Option<ProcessingMode>,
    #[prost(oneof = "Reply", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) reply: Option<Reply>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Reply {
    #[prost(message, tag = "1")]
    RequestHeaders(HeadersReply),
    #[prost(message, tag = "2")]
    ResponseHeaders(HeadersReply),
    #[prost(message, tag = "3")]
    RequestBody(Empty),
    #[prost(message, tag = "4")]
    ResponseBody(Empty),
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersReply),
    #[prost(message, tag = "6")]
    ResponseTrailers(Empty),
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TrailersReply {
    #[prost(message, optional, tag = "1")]
    pub(super) mutation: Option<HeaderMutation>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ProcessingMode {
    #[prost(int32, tag = "2")]
    pub(super) response_header_mode: i32,
    #[prost(int32, tag = "5")]
    pub(super) request_trailer_mode: i32,
    #[prost(int32, tag = "6")]
    pub(super) response_trailer_mode: i32,
}

/// `HeaderSendMode`
pub(super) const SEND: i32 = 1;
/// `HeaderSendMode`
pub(super) const SKIP: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HeadersReply {
    #[prost(message, optional, tag = "1")]
    pub(super) common: Option<CommonReply>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CommonReply {
    #[prost(message, optional, tag = "2")]
    pub(super) mutation: Option<HeaderMutation>,
}

/// Envoy answers the client itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImmediateResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<HttpStatus>,
    #[prost(message, optional, tag = "2")]
    pub(super) headers: Option<HeaderMutation>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) body: Bytes,
    /// For Envoy's log.
    #[prost(string, tag = "5")]
    pub(super) details: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HeaderMutation {
    #[prost(message, repeated, tag = "1")]
    pub(super) set: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "2")]
    pub(super) remove: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    /// Whether to add a field, not to replace all fields of the name. Envoy looks at it first, and
    /// replaces them if it is missing, although `append_action` is to be its successor.
    #[prost(message, optional, tag = "2")]
    pub(super) append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    pub(super) append_action: i32,
}

/// `google.protobuf.BoolValue`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(super) value: bool,
}

impl HeaderOption {
    /// Adds a field.
    pub(super) fn adding(header: Header) -> Self {
        /// `HeaderAppendAction`
        const APPEND_IF_EXISTS_OR_ADD: i32 = 0;
        Self {
            header: Some(header),
            append: Some(BoolValue { value: true }),
            append_action: APPEND_IF_EXISTS_OR_ADD,
        }
    }

    /// Replaces all fields of the name.
    pub(super) fn replacing(header: Header) -> Self {
        /// `HeaderAppendAction`
        const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;
        let append_action = OVERWRITE_IF_EXISTS_OR_ADD;
        Self { header: Some(header), append: None, append_action }
    }
}

/// The reply to a health check.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct HealthReply {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// `ServingStatus`
pub(super) const SERVING: i32 = 1;
/// `ServingStatus`
pub(super) const NOT_SERVING: i32 = 2;
