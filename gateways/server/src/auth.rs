//! Forward authentication: gateways ask before they forward a request, and applications read and
//! change their sessions with HTTP requests.
//!
//! A gateway sends the head of a request to `/auth`, and copies headers of the response to the
//! application. Since the application's own response does not come here, the application changes
//! its session at `/session` ([`api`]).

mod api;
mod store;
mod values;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use edge_session::SessionLayer;
use edge_session::store::Store;
use edge_session_headers::{dashed, is_ours};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use tower_service::Service;

use self::api::{Api, problem};
use self::store::StoreApi;
pub(crate) use self::values::ValueHeader;
use crate::admin::{Key, bearer};
use crate::health::healthz;
use crate::net::connections::{Answers, Peer, TurnedAway};
use crate::net::query;
use crate::proxy::{Exchange, Forwarded, Proxy, Refusal, Relayed, TrustedProxies};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The description of `/session`, for people and tools.
const OPENAPI: &str = include_str!("auth/openapi.json");

/// How long a wrong token waits for its answer.
const DELAY: Duration = Duration::from_secs(1);

/// The query of `/auth` by which a gateway asks for 401 in place of redirects, and 403 in place of
/// all other refusals.
const STATUS_401: &str = "status=401";

/// The service for gateways and for the applications behind them.
#[derive(Clone)]
pub(crate) struct Auth(Arc<Shared>);

struct Shared {
    proxy: Proxy,
    api: Api,
    store: StoreApi,
    key: Option<Key>,
    layer: SessionLayer,
    values: Vec<ValueHeader>,
    trusted: TrustedProxies,
}

/// A gateway's question.
struct Question {
    /// The visitor's request.
    request: Request<Body>,
    /// Whether the gateway understands only 401 and 403.
    only_401: bool,
    /// The origin of absolute addresses, such as `https://example.com`.
    origin: String,
}

impl Auth {
    /// `token` permits applications to use `/session`, and gateways to use `/store`; without it,
    /// none may.
    pub(crate) fn new(
        proxy: Proxy,
        layer: &SessionLayer,
        store: (Arc<dyn Store>, Duration),
        settings: AuthSettings,
        token: Option<&str>,
    ) -> Self {
        let AuthSettings { values, trusted, cookie_path, is_shared, renewed_for } = settings;
        let api = Api::new(layer, cookie_path, is_shared, renewed_for);
        let (store, deadline) = store;
        let store = StoreApi::new(store, deadline);
        let (key, layer) = (token.map(Key::new), layer.clone());
        Self(Arc::new(Shared { proxy, api, store, key, layer, values, trusted }))
    }
}

/// What this service needs of the configuration.
pub(crate) struct AuthSettings {
    /// Values of the session that the application gets in headers of their own.
    pub(crate) values: Vec<ValueHeader>,
    /// The gateways whose questions are answered.
    pub(crate) trusted: TrustedProxies,
    /// Where sessions are.
    pub(crate) cookie_path: String,
    /// Whether the application owns the sessions.
    pub(crate) is_shared: bool,
    /// JSON pointers to the values that change at login.
    pub(crate) renewed_for: Vec<String>,
}

impl Service<Request<Body>> for Auth {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { Ok(shared.respond(request).await) })
    }
}

impl Answers for Auth {
    fn turn_away(&self, _: Request<Body>, _: IpAddr, why: TurnedAway) -> Response<Body> {
        Refusal::TurnedAway(why).respond()
    }
}

impl Shared {
    async fn respond(&self, mut request: Request<Body>) -> Response<Body> {
        let peer = request.extensions_mut().remove::<Peer>();
        let address = peer.as_ref().map(|peer| peer.address);
        let path = request.uri().path();
        let is_store = path.starts_with("/store/");
        match path {
            "/healthz" => healthz(axum::extract::State(self.layer.clone())).await.into_response(),
            "/openapi.json" => ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response(),
            _ if path == "/session" || path.starts_with("/session/") || is_store => {
                match self.permit(request.headers(), address).await {
                    Err(problem) => problem,
                    Ok(()) if is_store => self.store.respond(request).await,
                    Ok(()) => self.api.respond(request).await,
                }
            }
            _ if path == "/auth" || path.starts_with("/auth/") => match address {
                Some(address) if self.trusted.contains(address) => self.authenticate(request).await,
                _ => self.untrusted(address),
            },
            _ => {
                if path.starts_with("/envoy.service.") {
                    tracing::error!(
                        "an Envoy sends external processing to auth.listen: give it the address in \
                         ext_proc.listen"
                    );
                }
                let text = "this address has /auth and /store for gateways, /session for \
                            applications, /openapi.json and /healthz\n";
                (StatusCode::NOT_FOUND, text).into_response()
            }
        }
    }

    /// Returns a header of a visitor that the application may take for one of ours. A gateway
    /// replaces only those that its own configuration names, and no other spelling of them.
    fn imitation<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderName> {
        let is_value =
            |name: &HeaderName| self.values.iter().any(|it| dashed(&it.name) == dashed(name));
        headers.keys().find(|name| is_ours(name) || is_value(name))
    }

    /// Checks the token. The error is the response.
    async fn permit(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Result<(), Response<Body>> {
        let (Some(key), Some(address)) = (&self.key, address) else {
            let what =
                "the session API is off: start edge-session with EDGE_SESSION_AUTH_TOKEN set";
            tracing::warn!(
                "a call of the session API was refused: EDGE_SESSION_AUTH_TOKEN is not set"
            );
            return Err(problem(StatusCode::FORBIDDEN, what));
        };
        // The right token waits for nobody: one program's wrong token must not stop the others.
        if bearer(headers).is_some_and(|token| key.is_token(token)) {
            return Ok(());
        }
        tokio::time::sleep(DELAY).await;
        let which = if bearer(headers).is_some() { "wrong" } else { "missing" };
        tracing::warn!(
            "a call of the session API from {address} was refused: its token is {which}"
        );
        let what = "send Authorization: Bearer TOKEN, with the value of EDGE_SESSION_AUTH_TOKEN";
        let mut response = problem(StatusCode::UNAUTHORIZED, what);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(response)
    }

    fn untrusted(&self, address: Option<IpAddr>) -> Response<Body> {
        let address = address.map_or_else(|| "an unknown address".to_owned(), |it| it.to_string());
        tracing::error!(
            "a question to /auth came from {address}, which is not in gateway.trusted_proxies: add \
             the gateway's address"
        );
        let text = "this address is not in gateway.trusted_proxies\n";
        (StatusCode::FORBIDDEN, text).into_response()
    }

    /// Answers a gateway's question: 200 with the headers for the application, or the response for
    /// the visitor.
    async fn authenticate(&self, request: Request<Body>) -> Response<Body> {
        let Question { mut request, only_401, origin } = match question(request) {
            Ok(question) => question,
            Err(what) => {
                tracing::error!("a gateway's question to /auth cannot be answered: {what}");
                return (StatusCode::INTERNAL_SERVER_ERROR, format!("{what}\n")).into_response();
            }
        };
        if let Some(name) = self.imitation(request.headers()) {
            tracing::info!("a visitor's request has the header {name}, and was refused");
            metrics::counter!("edge_session_stripped_total").increment(1);
            // The gateway would pass it on beside the headers that it replaces.
            let text = "a header of this request is reserved for gateways\n";
            let response = (StatusCode::BAD_REQUEST, text).into_response();
            return for_gateway(response, &origin, only_401);
        }
        let (exchange, mut forwarded) = Exchange::before_the_application();
        request.extensions_mut().insert(exchange);
        let mut answering = self.proxy.clone().call(request);
        let told = tokio::select! {
            Ok(response) = &mut answering => return for_gateway(response, &origin, only_401),
            Some(Forwarded { headers, answer }) = forwarded.recv() => {
                let (head, ()) = Response::new(()).into_parts();
                // Never without a receiver: the request waits for it.
                let _ = answer.send(head);
                headers
            }
        };
        let Ok(mut response) = answering.await;
        if response.extensions().get::<Relayed>().is_none() {
            return for_gateway(response, &origin, only_401);
        }
        let headers = response.headers_mut();
        for (name, value) in told.iter().filter(|(name, _)| is_ours(name)) {
            headers.insert(name, value.clone());
        }
        values::tell(&self.values, headers);
        response
    }
}

/// Returns the visitor's request. The error says what is missing or wrong.
fn question(request: Request<Body>) -> Result<Question, String> {
    let (mut head, _) = request.into_parts();
    let asked = head.uri.path().strip_prefix("/auth").unwrap_or_default();
    // A gateway that appends the visitor's path keeps the method as well.
    let (target, method, only_401) = if asked.is_empty() {
        let required = |name: &HeaderName, shown: &str, what: &str| {
            single_value(&head.headers, name)?.map(HeaderValue::as_bytes).ok_or_else(|| {
                format!(
                    "the header {shown}, with the visitor's {what}, is missing: the gateway must \
                     set it (docs/gateways.md has complete configurations)"
                )
            })
        };
        let target = required(&X_FORWARDED_URI, "X-Forwarded-Uri", "path")?.to_vec();
        let method = required(&X_FORWARDED_METHOD, "X-Forwarded-Method", "method")?;
        let method = Method::from_bytes(method)
            .map_err(|_| "the header X-Forwarded-Method is not a method")?;
        // Caddy appends the visitor's own query, which changes no more than that visitor's answer.
        (target, method, head.uri.query() == Some(STATUS_401))
    } else {
        let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        // Such a gateway keeps the host, too: another one would be the visitor's invention.
        head.headers.remove(X_FORWARDED_HOST);
        (format!("{asked}{query}").into_bytes(), head.method.clone(), false)
    };
    let host = match single(&head.headers, &X_FORWARDED_HOST)? {
        Some(host) => Some(host.to_owned()),
        None => single(&head.headers, &HOST)?.map(str::to_owned),
    };
    let host = host.or_else(|| head.uri.authority().map(|it| it.as_str().to_owned()));
    let proto = single(&head.headers, &X_FORWARDED_PROTO)?;
    // Traefik says wss of a WebSocket.
    let is_secure = proto.is_some_and(|proto| matches!(proto, "https" | "wss"));
    let scheme = if is_secure { "https" } else { "http" };
    let origin = format!("{scheme}://{}", host.as_deref().unwrap_or_default());
    for name in [X_FORWARDED_URI, X_FORWARDED_METHOD, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION]
    {
        head.headers.remove(name);
    }
    if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
        head.headers.insert(HOST, host);
    }
    let has_fragment = target.contains(&b'#');
    let mut request = Request::new(Body::empty());
    // The request is refused as any other whose path is ambiguous. Applications may read what comes
    // after # as a part of the path; a URI drops it.
    let target = query::parse(&target).filter(|_| !has_fragment);
    *request.uri_mut() = target.unwrap_or_else(|| Uri::from_static("//"));
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers;
    Ok(Question { request, only_401, origin })
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, String> {
    let value = single_value(headers, name)?.map(HeaderValue::to_str).transpose();
    value.map_err(|_| format!("the header {name} is not valid"))
}

fn single_value<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(format!(
            "there is more than one header {name}: the gateway must replace those of visitors"
        )),
    }
}

/// Returns a response for the visitor in the form that the gateway passes on: with an absolute
/// address, and with 401 and 403 if it understands nothing else.
fn for_gateway(mut response: Response<Body>, origin: &str, only_401: bool) -> Response<Body> {
    let location = response.headers().get(LOCATION).and_then(|it| it.to_str().ok());
    if let Some(path) = location.filter(|it| it.starts_with('/'))
        && let Ok(location) = HeaderValue::try_from(format!("{origin}{path}"))
    {
        response.headers_mut().insert(LOCATION, location);
    }
    let status = response.status();
    if only_401 && status.is_redirection() {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    } else if only_401 && status.is_client_error() && status != StatusCode::UNAUTHORIZED {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str, headers: &[(&str, &str)]) -> Result<Question, String> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        question(request.body(Body::empty()).unwrap())
    }

    #[test]
    fn the_visitors_request_comes_from_one_place_only() {
        let headers = [
            ("x-forwarded-uri", "/a?b"),
            ("x-forwarded-method", "POST"),
            ("x-forwarded-host", "h"),
        ];
        let question = asked("/auth", &headers).unwrap();
        assert_eq!(question.request.uri(), "/a?b");
        assert_eq!(question.request.method(), Method::POST);
        assert_eq!(question.origin, "http://h");
        assert!(!question.only_401);
        for (proto, scheme) in
            [("https", "https"), ("wss", "https"), ("ws", "http"), ("javascript", "http")]
        {
            let headers = [&headers[..], &[("x-forwarded-proto", proto)]].concat();
            assert_eq!(asked("/auth", &headers).unwrap().origin, format!("{scheme}://h"));
        }
        // Envoy appends the path: what a visitor says does not count.
        let question = asked("/auth/c?d", &headers).unwrap();
        assert_eq!(question.request.uri(), "/c?d");
        assert_eq!(question.request.method(), Method::GET);
        assert!(asked("/auth?status=401", &headers).unwrap().only_401);
    }

    #[test]
    fn a_question_without_the_visitors_request_is_an_error_that_says_so() {
        let all = [("x-forwarded-uri", "/"), ("x-forwarded-method", "GET")];
        for (target, headers, expected) in [
            ("/auth", &all[..1], "X-Forwarded-Method"),
            ("/auth", &all[1..], "X-Forwarded-Uri"),
            ("/auth", &[all[0], all[0], all[1]], "more than one"),
            ("/auth", &[all[0], all[1], all[1]], "more than one"),
            ("/auth", &[all[0], ("x-forwarded-method", "G T")], "not a method"),
        ] {
            let error = asked(target, headers).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }
}
