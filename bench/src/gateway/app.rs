//! The application behind the proxies, made as cheap as possible: this program, run as `app PORT`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Result;

pub(super) const BIG: usize = 1 << 20;

/// The header in which the application, or Express in its place, reports its count.
pub(crate) const VIEW_COUNT: &str = "view-count";

pub(crate) const PAGE: &str = "<!doctype html><title>a page</title><h1>A page</h1><p>As small as a page \
                    of a hundred bytes is.</p>";

struct App {
    page: Bytes,
    big: Bytes,
    /// The number of answered requests.
    answered: AtomicU64,
}

/// Serves until killed.
pub(crate) fn serve(port: &str) -> Result<()> {
    let address = format!("127.0.0.1:{port}");
    let big = vec![b'x'; BIG].into();
    let app = Arc::new(App { page: PAGE.into(), big, answered: AtomicU64::new(0) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let app = app.clone();
            let service = service_fn(move |request| {
                let response = app.answer(&request);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            // Proxies may close connections at any time.
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    })
}

impl App {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        match request.uri().path() {
            "/" => *response.body_mut() = Full::new(self.page.clone()),
            "/big" => *response.body_mut() = Full::new(self.big.clone()),
            "/count" => {
                *response.body_mut() = Full::new(self.page.clone());
                count(request.headers(), response.headers_mut());
            }
            "/answered" => {
                let answered = self.answered.load(Ordering::Relaxed).to_string();
                *response.body_mut() = Full::new(answered.into());
                return response;
            }
            _ => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        response
    }
}

/// Counts the visit if there is a session. The number after `viewCount` is found without a JSON
/// parser, because it is the only number in a session here.
pub(crate) fn count(request: &HeaderMap, response: &mut HeaderMap) {
    // Where there is no session, its identifier is empty.
    if request.get("edge-session-id").is_none_or(HeaderValue::is_empty) {
        return;
    }
    let session = request.get("edge-session").and_then(|session| session.to_str().ok());
    let Some(session) = session else { return };
    let digits = session.split_once("\"viewCount\":").map_or("0", |(_, rest)| rest);
    let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let count = digits.parse::<u64>().map_or(0, |count| count + 1);
    let merge = HeaderValue::try_from(format!("{{\"viewCount\":{count}}}"));
    if let Ok(merge) = merge {
        response.insert("edge-session-merge", merge);
        response.insert(HeaderName::from_static(VIEW_COUNT), count.into());
    }
}
