//! The cost of a session in a call of the service, compared with tower-sessions: one thread,
//! without HTTP. It varies less from run to run than servers under load.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use tower::ServiceExt as _;

use crate::server::{Kind, app};
use crate::{Effort, Result, median, say};

const VISITORS: usize = 1000;

/// An app and the visitors that take turns in visiting it.
struct Subject {
    app: Router,
    cookies: Vec<HeaderValue>,
    next: usize,
    /// Nanoseconds per request.
    costs: Vec<f64>,
}

/// Returns the nanoseconds of the bare page, with tower-sessions, and with edge-session's component
/// and native code.
pub(crate) fn costs(effort: &Effort) -> Result<[f64; 4]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut subjects = [
            Subject::new(Kind::Bare).await?,
            Subject::new(Kind::TowerSessions).await?,
            Subject::new(Kind::EdgeSession).await?,
            Subject::new(Kind::EdgeSessionNative).await?,
        ];
        for batch in 0..effort.batches {
            for at in 0..subjects.len() {
                let next = (batch + at) % subjects.len();
                subjects[next].run(effort).await?;
            }
        }
        Ok(subjects.map(|subject| median(&subject.costs)))
    })
}

/// Repeats requests through our layer, for a profiler.
pub(crate) fn repeat(seconds: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let until = Instant::now() + std::time::Duration::from_secs(seconds.parse()?);
    runtime.block_on(async {
        let mut subject = Subject::new(Kind::EdgeSession).await?;
        while Instant::now() < until {
            subject.run(&Effort::QUICK).await?;
        }
        Ok(())
    })
}

pub(crate) fn measure(effort: &Effort) -> Result<String> {
    let [bare, theirs, ours, native] = costs(effort)?;
    say(format!(
        "without HTTP: bare {bare:.0}, tower-sessions {theirs:.0}, ours {ours:.0}, native {native:.0} ns"
    ));
    let mut table = String::from(
        "### The layer beside tower-sessions, without HTTP\n\n\
         | one call of the service | bare page | with a session | the session's share | ratio |\n\
         |---|--:|--:|--:|--:|\n",
    );
    let rows = [
        ("axum + tower-sessions, signed", theirs),
        ("axum + edge-session", ours),
        ("axum + edge-session, native", native),
    ];
    for (name, with) in rows {
        let (share, ratio) = (with - bare, (with - bare) / (theirs - bare));
        writeln!(
            table,
            "| {name} | {bare:.0} ns | {with:.0} ns | **{share:.0} ns** | {ratio:.2} |"
        )?;
    }
    Ok(table)
}

impl Subject {
    async fn new(kind: Kind) -> Result<Self> {
        let cookies = Vec::with_capacity(VISITORS);
        let mut subject = Self { app: app(kind)?, cookies, next: 0, costs: Vec::new() };
        for _ in 0..VISITORS {
            let response = subject.visit(HeaderValue::from_static("other=1")).await?;
            let cookie = match response.headers().get(SET_COOKIE) {
                Some(header) => header.to_str()?.split(';').next().unwrap_or_default().parse()?,
                None if kind == Kind::Bare => HeaderValue::from_static("other=1"),
                None => return Err("a new visitor got no cookie".into()),
            };
            subject.cookies.push(cookie);
        }
        Ok(subject)
    }

    async fn visit(&self, cookie: HeaderValue) -> Result<Response<Body>> {
        let request = Request::get("/").header(COOKIE, cookie).body(Body::empty())?;
        let response = self.app.clone().oneshot(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("a visit was answered with {}", response.status()).into());
        }
        Ok(response)
    }

    /// Sends visits for the duration of one batch.
    async fn run(&mut self, effort: &Effort) -> Result<()> {
        let mut count = 0;
        let began = Instant::now();
        while began.elapsed() < effort.batch {
            for _ in 0..100 {
                let cookie = self.cookies[self.next].clone();
                self.next = (self.next + 1) % VISITORS;
                drop(black_box(self.visit(cookie).await?));
            }
            count += 100;
        }
        self.costs.push(began.elapsed().as_nanos() as f64 / f64::from(count));
        Ok(())
    }
}
