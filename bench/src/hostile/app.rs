//! The application behind the proxies under attack: this program, run as `hostile-app PORT`.
//! Besides small pages, it has pages that attackers prefer, and it counts the requests in progress.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Result;
use crate::gateway::app::{PAGE, count};

/// How long the slow page takes.
const SLOW: Duration = Duration::from_secs(10);

/// The huge page: the piece and the number of pieces, 16 MiB in total.
const PIECE: &[u8] = &[b'x'; 64 << 10];
const PIECES: usize = 256;

/// The numbers of requests in progress, now and at most.
#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A request in progress.
struct Hold(Arc<Held>);

impl Hold {
    fn new(held: &Arc<Held>) -> Self {
        let now = held.now.fetch_add(1, Ordering::Relaxed) + 1;
        held.most.fetch_max(now, Ordering::Relaxed);
        Self(held.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body. The request is in progress until the body is written.
enum Page {
    Small(Full<Bytes>, #[expect(dead_code, reason = "held until dropped")] Option<Hold>),
    Huge(usize, #[expect(dead_code, reason = "held until dropped")] Hold),
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Small(body, _) => Pin::new(body).poll_frame(context),
            Self::Huge(0, _) => Poll::Ready(None),
            Self::Huge(left, _) => {
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
            }
        }
    }

    /// Gives responses a Content-Length.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Small(body, _) => body.size_hint(),
            Self::Huge(left, _) => SizeHint::with_exact((left * PIECE.len()) as u64),
        }
    }
}

/// Serves until killed.
pub(crate) fn serve(port: &str) -> Result<()> {
    let address = format!("127.0.0.1:{port}");
    let held = Arc::new(Held::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let held = held.clone();
            let service = service_fn(move |request| {
                let held = held.clone();
                async move { Ok::<_, Infallible>(answer(request, &held).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            // Proxies may close connections at any time.
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    })
}

async fn answer(request: Request<Incoming>, held: &Arc<Held>) -> Response<Page> {
    let small = |text: String, hold| Response::new(Page::Small(Full::new(text.into()), hold));
    if request.uri().path() == "/held" {
        let [now, most] = [&held.now, &held.most].map(|it| it.load(Ordering::Relaxed));
        return small(format!("{now} {most}"), None);
    }
    let hold = Hold::new(held);
    match request.uri().path() {
        "/" => small(PAGE.to_owned(), Some(hold)),
        "/count" => {
            let mut response = small(PAGE.to_owned(), Some(hold));
            count(request.headers(), response.headers_mut());
            response
        }
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            small(PAGE.to_owned(), Some(hold))
        }
        "/post" => {
            let length = request.collect().await.map_or(0, |body| body.to_bytes().len());
            small(length.to_string(), Some(hold))
        }
        "/huge" => Response::new(Page::Huge(PIECES, hold)),
        _ => {
            let mut response = small(String::new(), Some(hold));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}
