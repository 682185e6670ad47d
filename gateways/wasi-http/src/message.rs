//! Reads requests and responses, and rebuilds them with other headers.

use edge_session_component::wit;
use edge_session_headers as session_headers;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use wit_bindgen::{FutureReader, StreamReader, StreamResult};

use crate::bindings::wasi::http::types::{
    ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme, Trailers,
};
use crate::bindings::{wit_future, wit_stream};

type TrailersReader = FutureReader<Result<Option<Trailers>, ErrorCode>>;

/// The size of the chunks in which a body is copied.
const PIECE: usize = 64 * 1024;

/// The limit of the rules for all Cookie headers together. One byte more is copied, to show that
/// the limit is exceeded.
const COOKIES: usize = 16 * 1024;

/// A body that passes through.
struct Body {
    content: StreamReader<u8>,
    trailers: TrailersReader,
}

/// A request.
pub(crate) struct Incoming {
    pub(crate) headers: HeaderMap,
    method: Method,
    scheme: Option<Scheme>,
    authority: Option<String>,
    path_with_query: Option<String>,
    options: Option<RequestOptions>,
    body: Body,
}

/// The application's response.
pub(crate) struct Outgoing {
    pub(crate) headers: HeaderMap,
    pub(crate) status: u16,
    body: Body,
}

impl From<Request> for Incoming {
    fn from(request: Request) -> Self {
        let headers = read(&request.get_headers());
        let method = request.get_method();
        let scheme = request.get_scheme();
        let authority = request.get_authority();
        let path_with_query = request.get_path_with_query();
        let options = request.get_options();
        let (content, trailers) = Request::consume_body(request, all_is_well());
        let body = Body { content, trailers };
        Self { headers, method, scheme, authority, path_with_query, options, body }
    }
}

impl Incoming {
    /// Returns the request's facts that sessions depend on. `believes_proto`: X-Forwarded-Proto is
    /// trusted.
    pub(crate) fn facts(&self, believes_proto: bool) -> wit::Request {
        let mut cookies = session_headers::cookies(&self.headers);
        cookies.truncate(COOKIES + 1);
        let path = self.path_with_query.as_deref().unwrap_or_default();
        wit::Request {
            cookies,
            path: path.split('?').next().unwrap_or_default().to_owned(),
            // The host terminates the connection and reports the scheme.
            tls: false,
            secure: matches!(self.scheme, Some(Scheme::Https)),
            forwarded_proto: self
                .headers
                .get("x-forwarded-proto")
                .filter(|_| believes_proto)
                .map(|value| value.as_bytes().to_vec()),
        }
    }
}

impl TryFrom<Incoming> for Request {
    type Error = String;

    fn try_from(incoming: Incoming) -> Result<Self, String> {
        let Body { content, trailers } = clean(incoming.body);
        // The result says whether the body was read, which concerns only the application.
        let headers = write(&incoming.headers)?;
        let (request, _) = Request::new(headers, Some(content), trailers, incoming.options);
        let is_set = request.set_method(&incoming.method).is_ok()
            && request.set_scheme(incoming.scheme.as_ref()).is_ok()
            && request.set_authority(incoming.authority.as_deref()).is_ok()
            && request.set_path_with_query(incoming.path_with_query.as_deref()).is_ok();
        is_set.then_some(request).ok_or_else(|| "its target is not valid".to_owned())
    }
}

impl From<Response> for Outgoing {
    fn from(response: Response) -> Self {
        let headers = read(&response.get_headers());
        let status = response.get_status_code();
        let (content, trailers) = Response::consume_body(response, all_is_well());
        Self { headers, status, body: Body { content, trailers } }
    }
}

impl From<Outgoing> for Response {
    fn from(outgoing: Outgoing) -> Self {
        // Passed on as they are: reading a stream that the application echoes, which may originate
        // here, is an error that ends the instance.
        let Body { content, trailers } = outgoing.body;
        let headers = match write(&outgoing.headers) {
            Ok(headers) => headers,
            Err(what) => {
                crate::log(format!("the application's response cannot be passed on: {what}"));
                return refusal(502, "The application sent no valid response.");
            }
        };
        let (response, _) = Response::new(headers, Some(content), trailers);
        // A received status is valid.
        let _ = response.set_status_code(outgoing.status);
        response
    }
}

/// Returns a response of the middleware itself.
pub(crate) fn refusal(status: u16, text: &str) -> Response {
    let body = format!("{text}\n").into_bytes();
    let headers = Fields::new();
    for (name, value) in
        [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]
    {
        // Both are valid headers.
        let _ = headers.append(name, value.as_bytes());
    }
    let (mut writer, content) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(headers, Some(content), trailers);
    // The status is valid.
    let _ = response.set_status_code(status);
    wit_bindgen::spawn_local(async move {
        writer.write_all(body).await;
    });
    response
}

fn read(fields: &Fields) -> HeaderMap {
    let pairs = fields.copy_all().into_iter();
    // Headers from the host are valid.
    let pairs = pairs.filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    pairs.collect()
}

fn write(headers: &HeaderMap) -> Result<Fields, String> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    let pairs: Vec<_> = headers.iter().map(pair).collect();
    // A large session may exceed the host's limit on headers.
    Fields::from_list(&pairs).map_err(|error| format!("its headers were refused ({error})"))
}

/// Reports that a message was received without an error.
fn all_is_well() -> FutureReader<Result<(), ErrorCode>> {
    wit_future::new(|| Ok(())).1
}

/// Copies the body in chunks and removes session headers from its trailers. (Passing the stream on
/// unchanged would be cheaper, but a host may use the trailers of its own stream and ignore ours,
/// as wasmtime does.)
fn clean(body: Body) -> Body {
    let Body { content: mut from, trailers } = body;
    let (mut to, content) = wit_stream::new();
    let (writer, cleaned) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        loop {
            let (status, piece) = from.read(Vec::with_capacity(PIECE)).await;
            let is_last = !matches!(status, StreamResult::Complete(_));
            let unwanted = to.write_all(piece).await;
            if is_last || !unwanted.is_empty() {
                break;
            }
        }
        drop((from, to));
        let trailers = match trailers.await {
            Ok(Some(trailers)) => {
                let mut headers = read(&trailers);
                session_headers::strip(&mut headers);
                Ok(write(&headers).ok())
            }
            other => other,
        };
        // A failed write means that the trailers are not needed.
        let _ = writer.write(trailers).await;
    });
    Body { content, trailers: cleaned }
}
