//! Traces by OpenTelemetry's protocol (OTLP over HTTP), if configured.

mod context;

use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a collector's response, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Creates a span for every request. Clones share the connection to the collector.
#[derive(Clone)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Sends to the collector at `url`, such as `http://127.0.0.1:4318`.
    pub(crate) fn to(url: &str) -> anyhow::Result<Self> {
        let client = TokioClient {
            handle: Handle::current(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| anyhow!("traces cannot be sent to {url} (telemetry.otlp): {error}"))?;
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name("edge-session").build())
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("edge-session");
        Ok(Self { provider, tracer })
    }

    /// Begins a request's span, and passes its context on in the request's headers.
    pub(crate) fn begin<B>(&self, request: &mut Request<B>, is_trusted: bool) -> RequestSpan {
        let (parent, links) = context::parent(request.headers(), is_trusted);
        let method = request.method().as_str().to_owned();
        let builder = self
            .tracer
            .span_builder(method.clone())
            .with_kind(SpanKind::Server)
            .with_links(links)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                // Without the query, which may contain private data.
                KeyValue::new("url.path", request.uri().path().to_owned()),
            ]);
        let span = self.tracer.build_with_context(builder, &parent);
        let context = parent.with_span(span);
        context::tell(&context, request.headers_mut());
        RequestSpan(context)
    }

    /// Sends the remaining traces. Blocks.
    pub(crate) fn end(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("some traces were not sent: {error}");
        }
    }
}

/// The span of one request. It ends when dropped.
pub(crate) struct RequestSpan(Context);

impl RequestSpan {
    pub(crate) fn answered<B>(&self, response: &Response<B>) {
        let span = self.0.span();
        let status = response.status();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
    }
}

/// Runs exports on tokio, because the exporter's own thread has no runtime.
#[derive(Debug)]
struct TokioClient {
    handle: Handle,
    client: Client<HttpConnector, Body>,
}

#[async_trait]
impl HttpClient for TokioClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.handle.spawn(async move {
            let request = request.map(|body| Body::new(Full::new(body)));
            let response = tokio::time::timeout(TIMEOUT, client.request(request)).await??;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        });
        sending.await?
    }
}
