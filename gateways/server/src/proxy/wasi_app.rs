//! An application that is itself a component (`wasi:http`), run in this process.
//!
//! It can read the time and random bytes, send HTTP requests and write to this program's output. It
//! has no files, no environment and no sockets.

use std::future::{Future, pending};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::body::Body;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime::component::{Component, GuestTaskId, Linker, ResourceTable};
use wasmtime::{
    Config, Engine, Store, StoreContextMut, StoreLimits, StoreLimitsBuilder, UpdateDeadline,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, TrapOrPanicError,
    WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::{Error, WasiHttpCtx, WasiHttpCtxView, WasiHttpView, p2, p3};

use super::body::Progress;
use super::refusal::Refusal;

/// The maximum memory of one instance.
const MAX_MEMORY: usize = 512 << 20;

/// The maximum number of concurrent requests per instance, if the application allows it.
const MAX_CONCURRENT: usize = 16;

/// How many requests one instance handles before it is replaced, which reclaims leaked memory.
const MAX_REQUESTS: usize = 10_000;

/// How long an idle instance is kept.
const KEPT: Duration = Duration::from_secs(30);

/// How often a computing instance yields to other tasks.
const TICK: Duration = Duration::from_millis(10);

/// After this many consecutive ticks without a new request, the instance is considered stuck.
const MAX_TICKS: u32 = 3000;

/// The application and its instances.
pub(crate) struct App {
    handler: ProxyHandler<Instances>,
    limit: Duration,
}

/// Creates instances.
struct Instances {
    pre: ProxyPre<Host>,
    engine: Engine,
    limit: Duration,
}

/// What an instance can access.
struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    limits: StoreLimits,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: Default::default(), table: &mut self.table, ctx: &mut self.http }
    }
}

impl App {
    /// Compiles the component in `file`. `limit` is how long it may take to begin a response. The
    /// error is shown to the person who started the program.
    pub(crate) fn load(file: &Path, limit: Duration) -> anyhow::Result<Self> {
        let shown = file.display();
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read the application {shown}"))?;
        if !bytes.starts_with(b"\0asm") {
            bail!("the application {shown} is not a WebAssembly component");
        }
        let runtime = |error: wasmtime::Error| {
            anyhow!("cannot set up WebAssembly on this machine: {error:#}")
        };
        let engine = engine().map_err(runtime)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| p2::add_only_http_to_linker_async(&mut linker))
            .and_then(|()| wasmtime_wasi::p3::add_to_linker(&mut linker))
            .and_then(|()| p3::add_to_linker(&mut linker))
            .map_err(runtime)?;
        let component = Component::from_binary(&engine, &bytes).map_err(|error| {
            anyhow!("the application {shown} is not a WebAssembly component: {error:#}")
        })?;
        let pre = linker.instantiate_pre(&component).map_err(|error| {
            anyhow!("the application {shown} imports something that is not available: {error:#}")
        })?;
        let pre = match p3::bindings::ServicePre::new(pre.clone()) {
            Ok(pre) => ProxyPre::P3(pre),
            Err(_) => ProxyPre::P2(p2::bindings::ProxyPre::new(pre).map_err(|_| {
                anyhow!(
                    "the application {shown} exports neither wasi:http/handler@0.3 nor \
                     wasi:http/incoming-handler@0.2"
                )
            })?),
        };
        let handler = ProxyHandler::new(Instances { pre, engine, limit });
        Ok(Self { handler, limit })
    }

    /// Forwards a request to the application.
    pub(crate) async fn answer(
        &self,
        request: Request<Body>,
        tls: bool,
        progress: &Progress,
    ) -> Result<Response<Body>, Refusal> {
        let (mut head, body) = request.into_parts();
        // In wasi:http, the host is part of the target, not of the headers.
        let host = head.headers.remove(header::HOST);
        head.uri = target(&head.uri, host.as_ref(), tls)
            .ok_or(Refusal::BadRequest("The request target is not valid."))?;
        head.headers.remove(header::CONNECTION);
        head.headers.remove(header::UPGRADE);
        let body = body.map_err(|error| Error::InternalError(Some(error.to_string())));
        let request = Request::from_parts(head, body.boxed_unsync());
        let answered = self.handler.handle(progress.clone(), request);
        match progress.within(self.limit, answered).await {
            Some(Ok(response)) => Ok(response.map(Body::new)),
            // The reason was logged when the instance ended.
            Some(Err(error)) if error.is::<TrapOrPanicError>() => Err(Refusal::UpstreamFailed),
            Some(Err(error)) => {
                tracing::warn!("the application sent no response: {error:#}");
                Err(Refusal::UpstreamFailed)
            }
            None => {
                tracing::warn!("the application did not respond within {:?}", self.limit);
                Err(Refusal::UpstreamTimeout)
            }
        }
    }
}

fn target(uri: &Uri, host: Option<&HeaderValue>, tls: bool) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    // `OPTIONS *` is about the root, and HTTP/1.0 clients may omit the host.
    parts.path_and_query = match parts.path_and_query {
        Some(path) if path.as_str().starts_with('/') => Some(path),
        _ => Some(http::uri::PathAndQuery::from_static("/")),
    };
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = match host {
        Some(host) => Some(host.to_str().ok()?.parse().ok()?),
        None => Some(http::uri::Authority::from_static("localhost")),
    };
    Uri::from_parts(parts).ok()
}

fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.wasm_component_model_async(true).epoch_interruption(true);
    let engine = Engine::new(&config)?;
    let ticking = engine.weak();
    thread::Builder::new().name("edge-session-app".to_owned()).spawn(move || {
        while let Some(engine) = ticking.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(engine)
}

impl HandlerState for Instances {
    type StoreData = Host;
    type WorkerExpiration = Expiry;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Expiry, Worker>> {
        let host = Host {
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().inherit_stdout().inherit_stderr().build(),
            http: WasiHttpCtx::new(),
            limits: StoreLimitsBuilder::new().memory_size(MAX_MEMORY).build(),
        };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        let worker = Worker { latest: Arc::default(), ticks: Arc::default() };
        let expiry = Expiry {
            latest: worker.latest.clone(),
            limit: self.limit,
            timer: Box::pin(sleep_until(Instant::now())),
        };
        let ticks = worker.ticks.clone();
        let mut last = std::time::Instant::now();
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if last.elapsed() > 4 * TICK {
                ticks.store(0, Ordering::Relaxed);
            }
            last = std::time::Instant::now();
            match ticks.fetch_add(1, Ordering::Relaxed) {
                MAX_TICKS.. => Err(wasmtime::Error::msg("it computed for too long")),
                _ => Ok(UpdateDeadline::Yield(1)),
            }
        });
        let proxy = self.pre.instantiate_async(&mut store).await?;
        Ok(Instance { store, proxy, view: Host::http, expiration: expiry, state: worker })
    }
}

/// The state of a running instance.
struct Worker {
    /// The progress of its latest request.
    latest: Arc<Mutex<Option<Progress>>>,
    /// How many consecutive ticks it has computed since its latest request.
    ticks: Arc<AtomicU32>,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = Progress;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        match (concurrent, total) {
            (_, MAX_REQUESTS..) => ShouldAccept::Never,
            (MAX_CONCURRENT.., _) => ShouldAccept::No,
            _ => ShouldAccept::Yes,
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Host>,
        progress: Progress,
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        self.ticks.store(0, Ordering::Relaxed);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        // The caller has its own time limit, and the instance is monitored from outside.
        Box::pin(pending())
    }

    fn drop(&self, _: Store<Host>, result: wasmtime::Result<()>) {
        // At the program's end its tasks are dropped, which is reported as a panic here, too.
        let is_over = |error: &wasmtime::Error| {
            error.to_string() == "worker panicked" && !thread::panicking()
        };
        if let Err(error) = result
            && !is_over(&error)
        {
            metrics::counter!("edge_session_app_traps_total").increment(1);
            tracing::error!("an instance of the application ended: {error:#}");
        }
    }
}

/// Determines when an instance is ended.
struct Expiry {
    latest: Arc<Mutex<Option<Progress>>>,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl WorkerExpiration for Expiry {
    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        since: std::time::Instant,
    ) -> Poll<()> {
        let end = match status {
            WorkerStatus::Idle => Instant::from_std(since) + KEPT,
            WorkerStatus::Requests => {
                let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
                let last = latest.as_ref().map(Progress::last);
                // A second later than the caller's own limit.
                last.unwrap_or_else(|| Instant::from_std(since))
                    + self.limit
                    + Duration::from_secs(1)
            }
            // It is still sending bodies, for as long as their readers continue.
            WorkerStatus::PostReturn => return Poll::Pending,
        };
        self.timer.as_mut().reset(end);
        self.timer.as_mut().poll(context)
    }
}
