//! A gateway in the test's process: an axum app with a session layer.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::{get, post};
use edge_session::store::Store;
use edge_session::{Component, Options, Session, SessionError, SessionLayer};
use http::{Request, Response};
use tower::ServiceExt as _;

pub(crate) const SECRET: &[u8] = b"only-for-tests-0123456789-abcdefghij";

pub(crate) fn component_path() -> PathBuf {
    // Read at run time instead of with `env!`, because checkouts may share a target directory.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let path = std::path::Path::new(&manifest).join("session.wasm");
    assert!(path.exists(), "{} is missing: run `make bundle`", path.display());
    path
}

/// Returns the component, which is compiled once.
pub(crate) fn component() -> Component {
    static COMPONENT: LazyLock<Component> =
        LazyLock::new(|| Component::from_file(component_path(), None).unwrap());
    COMPONENT.clone()
}

pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.secret(SECRET);
    options
}

/// An app whose pages count visits, with a few pages for session operations.
pub(crate) struct Gateway(Router);

impl Gateway {
    pub(crate) fn new(store: impl Store) -> Self {
        Self::with(component(), |_| {}, Arc::new(store))
    }

    pub(crate) fn with(
        component: Component,
        configure: impl FnOnce(&mut Options),
        store: Arc<dyn Store>,
    ) -> Self {
        let mut options = options();
        configure(&mut options);
        let deadline = Duration::from_secs(2);
        let layer = SessionLayer::with_deadline(component, options, store, deadline).unwrap();
        let app =
            Router::new()
                .route("/", get(count))
                .route("/set/{key}/{value}", post(set))
                .route("/logout", post(|session: Session| async move { session.destroy() }))
                .route("/renew", post(|session: Session| async move { session.renew() }))
                .route("/regenerate", post(|session: Session| async move { session.regenerate() }))
                .route("/remember", post(remember))
                .route("/clear", post(|session: Session| async move { session.clear() }))
                .route(
                    "/data",
                    get(|session: Session| async move {
                        serde_json::to_string(&session.data()).unwrap()
                    }),
                )
                .route("/long-names", post(set_long_names))
                .route("/own-cookie", get(own_cookie))
                .layer(layer);
        Self(app)
    }

    pub(crate) async fn get(&self, path: &str, cookie: Option<&str>) -> Response<Body> {
        self.send(Request::get(path), cookie).await
    }

    pub(crate) async fn post(&self, path: &str, cookie: Option<&str>) -> Response<Body> {
        self.send(Request::post(path), cookie).await
    }

    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        cookie: Option<&str>,
    ) -> Response<Body> {
        let request = match cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        self.0.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }
}

async fn count(session: Session) -> Result<([(&'static str, String); 1], String), SessionError> {
    let count = session.get::<u64>("viewCount")?.unwrap_or(0) + 1;
    session.insert("viewCount", count)?;
    Ok(([("x-visits", count.to_string())], format!("you have visited this page {count} times")))
}

async fn set(
    session: Session,
    Path((key, value)): Path<(String, String)>,
) -> Result<(), SessionError> {
    session.insert(&key, value)
}

async fn remember(session: Session) {
    session.set_max_age(Some(Duration::from_secs(3600)));
}

/// Changes 31 values whose names are long and have an escape in JSON.
async fn set_long_names(session: Session) {
    for n in 10..41 {
        let name = format!("{}{n}\n", "a".repeat(20_000));
        let count = session.get::<u64>(&name).unwrap().unwrap_or(0);
        session.insert(&name, count + 1).unwrap();
    }
}

async fn own_cookie(session: Session) -> Result<[(&'static str, &'static str); 2], SessionError> {
    session.insert("a", 1)?;
    Ok([("set-cookie", "mine=1"), ("cache-control", "max-age=5")])
}

pub(crate) fn visits<B>(response: &Response<B>) -> u64 {
    response.headers()["x-visits"].to_str().unwrap().parse().unwrap()
}

/// Returns what a browser would send back.
pub(crate) fn cookie<B>(response: &Response<B>) -> String {
    let header = response.headers()["set-cookie"].to_str().unwrap();
    header.split(';').next().unwrap().to_owned()
}

/// Returns a cookie for an identifier, signed with the gateway's secret.
pub(crate) fn signed(id: &str) -> String {
    use edge_session_component::{Engine, wit};
    // Uses the component's own signing code, which is tested against the real package.
    struct Fixed;
    impl edge_session_component::Environment for Fixed {
        fn now(&self) -> u64 {
            0
        }
        fn random(&self) -> [u8; 24] {
            [0; 24]
        }
    }
    let setting = |name: &str, value| wit::Setting { name: name.to_owned(), value };
    let engine = Engine::configure(&[
        setting("secret", wit::Value::Bytes(SECRET.to_vec())),
        setting("rolling", wit::Value::Text("true".to_owned())),
    ]);
    let engine = engine.ok().unwrap();
    let request = wit::Request {
        cookies: Vec::new(),
        path: "/".to_owned(),
        tls: true,
        secure: true,
        forwarded_proto: None,
    };
    let wit::Beginning::Ready(mut session) = engine.begin(&Fixed, &request) else { panic!() };
    id.clone_into(&mut session.visit.id);
    let edit = wit::Edit { key: "a".to_owned(), value: Some("1".to_owned()) };
    let change = wit::Change {
        action: wit::Action::Keep,
        data: wit::DataChange::Edits(vec![edit]),
        cookie: Vec::new(),
    };
    let plan = engine.finish(&Fixed, session.visit, None, &change).ok().unwrap();
    plan.outcome.set_cookie.unwrap().split(';').next().unwrap().to_owned()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}
