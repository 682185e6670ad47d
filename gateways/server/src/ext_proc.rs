//! External processing: the gRPC service that gives Envoy's applications sessions.
//!
//! Envoy opens a stream for each request. It sends the request's headers, gets those for the
//! application or a response for the client, sends the headers of the application's response, and
//! gets those for the client. In between, the request is in the [`Proxy`], as any other.

mod messages;
mod translation;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::IntoResponse as _;
use edge_session::SessionLayer;
use futures_util::stream::{BoxStream, unfold};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use self::messages::{
    BODY_FULL_DUPLEX, BODY_NONE, Empty, Event, HealthReply, HttpHeaders, NOT_SERVING,
    ProcessingMode, ProcessingRequest, ProcessingResponse, Reply, SEND, SERVING, SKIP,
};
use crate::net::connections::{Answers, TurnedAway};
use crate::proxy::{Exchange, Forwarded, Proxy, Refusal, Relayed};

const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// From this long on, a stream that ends while its session is loaded or stored counts as given up
/// by Envoy. Visitors leave at any time, but seldom just then.
const LONG: Duration = Duration::from_millis(100);

/// The gRPC service.
#[derive(Clone)]
pub(crate) struct ExtProc(Arc<Shared>);

struct Shared {
    proxy: Proxy,
    layer: SessionLayer,
    told: Told,
}

/// What the log has said of Envoy's configuration.
#[derive(Default)]
struct Told {
    bodies: AtomicBool,
    observes: AtomicBool,
    http1: AtomicBool,
    /// How many requests in a row have ended without the headers of a response.
    without: AtomicUsize,
}

/// After this many of them in a row, Envoy does not send the headers of responses.
const MANY: usize = 16;

/// Returns whether this is the first time.
fn first(told: &AtomicBool) -> bool {
    !told.swap(true, Ordering::Relaxed)
}

impl ExtProc {
    /// Creates the service. The layer is asked about the store's health.
    pub(crate) fn new(proxy: Proxy, layer: SessionLayer) -> Self {
        Self(Arc::new(Shared { proxy, layer, told: Told::default() }))
    }
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

impl Service<Request<Body>> for ExtProc {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<Response<Body>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.version() != Version::HTTP_2 {
                return Ok(this.0.not_grpc());
            }
            let response = match request.uri().path() {
                PROCESS => Grpc::new(ProstCodec::default()).streaming(this, request).await,
                CHECK => Grpc::new(ProstCodec::default()).unary(this, request).await,
                _ => Status::unimplemented("this server has no such method").into_http(),
            };
            Ok(response.map(Body::new))
        })
    }
}

impl Answers for ExtProc {
    fn turn_away(&self, _: Request<Body>, _: IpAddr, why: TurnedAway) -> Response<Body> {
        let (_, text) = why.status_and_text();
        metrics::counter!("edge_session_refused_total", "reason" => why.reason()).increment(1);
        Status::resource_exhausted(text).into_http::<tonic::body::Body>().map(Body::new)
    }
}

impl UnaryService<Empty> for ExtProc {
    type Response = HealthReply;
    type Future =
        Pin<Box<dyn Future<Output = Result<tonic::Response<HealthReply>, Status>> + Send>>;

    fn call(&mut self, _: tonic::Request<Empty>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let status = match shared.layer.check_store().await {
                Ok(()) => SERVING,
                Err(why) => {
                    tracing::warn!("not healthy: {why}");
                    NOT_SERVING
                }
            };
            Ok(tonic::Response::new(HealthReply { status }))
        })
    }
}

impl StreamingService<ProcessingRequest> for ExtProc {
    type Response = ProcessingResponse;
    type ResponseStream = BoxStream<'static, Result<ProcessingResponse, Status>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let conversation =
            Conversation { shared: self.0.clone(), events: request.into_inner(), at: At::Start };
        // Nothing is spawned: the request is dropped with its stream.
        let replies = unfold(conversation, |mut conversation| async move {
            let reply = conversation.next().await.transpose()?;
            Some((reply, conversation))
        });
        std::future::ready(Ok(tonic::Response::new(Box::pin(replies))))
    }
}

impl Shared {
    /// The response to a client that does not speak HTTP/2.
    fn not_grpc(&self) -> Response<Body> {
        if first(&self.told.http1) {
            tracing::warn!(
                "a client of ext_proc.listen speaks HTTP/1: this is a gRPC service, so an Envoy \
                 cluster for it needs http2_protocol_options; forward authentication has its own \
                 address, auth.listen. This is logged once"
            );
        }
        let text = "this is a gRPC service, which needs HTTP/2\n";
        (StatusCode::HTTP_VERSION_NOT_SUPPORTED, text).into_response()
    }

    /// Notices an Envoy that never sends the headers of responses. Visitors may leave before.
    fn ends_without_response(&self) {
        if self.told.without.fetch_add(1, Ordering::Relaxed) + 1 == MANY {
            tracing::error!(
                "Envoy has sent no headers of a response for {MANY} requests in a row, so no session \
                 is stored: set the filter's response_header_mode to SEND"
            );
        }
    }

    /// Checks how Envoy is configured, as far as it says so.
    fn check(&self, event: &ProcessingRequest) -> Result<(), Status> {
        if event.observability_mode && first(&self.told.observes) {
            tracing::error!(
                "Envoy's filter is in observability_mode, which ignores all replies: there are no \
                 sessions, and nothing is guarded. This is logged once"
            );
        }
        let Some(config) = &event.protocol_config else { return Ok(()) };
        let modes = [config.request_body_mode, config.response_body_mode];
        if modes.contains(&BODY_FULL_DUPLEX) {
            return Err(Status::new(
                Code::InvalidArgument,
                "set request_body_mode and response_body_mode to NONE: in FULL_DUPLEX_STREAMED, \
                 Envoy would lose the bodies, which are not looked at",
            ));
        }
        if modes.iter().any(|mode| *mode != BODY_NONE) && first(&self.told.bodies) {
            tracing::warn!(
                "Envoy's filter sends bodies, which are not looked at and take time: set its \
                 request_body_mode and response_body_mode to NONE. This is logged once"
            );
        }
        Ok(())
    }
}

/// One request.
struct Conversation {
    shared: Arc<Shared>,
    events: Streaming<ProcessingRequest>,
    at: At,
}

/// How far a request has come.
enum At {
    Start,
    Forwarded(Box<AtApplication>),
    Answered,
}

/// A request that its application is answering.
struct AtApplication {
    answering: Answering<Response<Body>>,
    answer: oneshot::Sender<http::response::Parts>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if matches!(self.at, At::Forwarded(_)) {
            self.shared.ends_without_response();
        }
    }
}

impl Conversation {
    /// Returns the next reply; none at the end, after which Envoy continues on its own.
    async fn next(&mut self) -> Result<Option<ProcessingResponse>, Status> {
        if matches!(self.at, At::Answered) {
            return Ok(None);
        }
        let Some(event) = self.events.message().await? else { return Ok(None) };
        if let Err(status) = self.shared.check(&event) {
            tracing::error!("Envoy's filter is misconfigured: {}", status.message());
            return Err(status);
        }
        let mut mode_override = None;
        let reply = match (event.event, std::mem::replace(&mut self.at, At::Answered)) {
            (Some(Event::RequestHeaders(headers)), At::Start) => {
                mode_override = Some(ProcessingMode {
                    response_header_mode: SEND,
                    request_trailer_mode: SEND,
                    response_trailer_mode: SKIP,
                });
                self.begin(headers).await
            }
            (Some(Event::ResponseHeaders(headers)), At::Forwarded(application)) => {
                self.shared.told.without.store(0, Ordering::Relaxed);
                Self::finish(headers, *application).await
            }
            // A response of Envoy itself, before this filter saw the request.
            (Some(Event::ResponseHeaders(_)), At::Start) => {
                Reply::ResponseHeaders(messages::HeadersReply::default())
            }
            (event, at) => {
                self.at = at;
                match event {
                    Some(Event::RequestBody(_)) => Reply::RequestBody(Empty {}),
                    Some(Event::ResponseBody(_)) => Reply::ResponseBody(Empty {}),
                    Some(Event::RequestTrailers(trailers)) => {
                        Reply::RequestTrailers(translation::trailers_reply(trailers))
                    }
                    Some(Event::ResponseTrailers(_)) => Reply::ResponseTrailers(Empty {}),
                    _ => return Err(Status::invalid_argument("this event is out of order")),
                }
            }
        };
        Ok(Some(ProcessingResponse { mode_override, reply: Some(reply) }))
    }

    /// Begins a request: it is forwarded, or answered at once.
    async fn begin(&mut self, headers: HttpHeaders) -> Reply {
        let waiting = Waiting::since_now();
        let (exchange, mut forwarded) = Exchange::around_the_application();
        let mut request = match translation::request(headers) {
            Ok(request) => request,
            Err(what) => {
                let response = Refusal::BadRequest(what).respond();
                return Reply::Immediate(translation::immediate(response).await);
            }
        };
        let before = request.headers().clone();
        request.extensions_mut().insert(exchange);
        let mut answering = self.shared.proxy.clone().call(request);
        let reply = tokio::select! {
            Ok(response) = &mut answering => {
                Reply::Immediate(translation::immediate(response).await)
            }
            Some(Forwarded { headers, answer }) = forwarded.recv() => {
                self.at = At::Forwarded(Box::new(AtApplication { answering, answer }));
                Reply::RequestHeaders(translation::headers_reply(&before, &headers))
            }
        };
        waiting.end();
        reply
    }

    /// Ends a request with its application's response.
    async fn finish(headers: HttpHeaders, application: AtApplication) -> Reply {
        let waiting = Waiting::since_now();
        let AtApplication { answering, answer } = application;
        let before = match translation::response(headers) {
            Ok(head) => {
                let before = head.headers.clone();
                // Never without a receiver: the request waits for it.
                let _ = answer.send(head);
                before
            }
            Err(what) => {
                tracing::warn!("Envoy sent an invalid response: {what}");
                drop(answer);
                HeaderMap::new()
            }
        };
        let Ok(response) = answering.await;
        let reply = match response.extensions().get::<Relayed>() {
            Some(Relayed) => {
                Reply::ResponseHeaders(translation::headers_reply(&before, response.headers()))
            }
            None => Reply::Immediate(translation::immediate(response).await),
        };
        waiting.end();
        reply
    }
}

/// Envoy waits for a reply. Dropped before the wait is over, Envoy has given up.
struct Waiting(Option<Instant>);

impl Waiting {
    fn since_now() -> Self {
        Self(Some(Instant::now()))
    }

    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(waited) = self.0.map(|since| since.elapsed()) else { return };
        metrics::counter!("edge_session_ext_proc_given_up_total").increment(1);
        if waited >= LONG {
            tracing::warn!(
                "Envoy ended a stream after {} ms, while a session was loaded or stored: the \
                 visitor has left, or the filter's message_timeout is below the store's deadline, \
                 store.timeout_ms",
                waited.as_millis()
            );
        }
    }
}
