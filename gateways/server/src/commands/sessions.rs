//! `edge-session sessions`: lists and ends sessions on the command line.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::say;
use crate::admin::inspector::{
    Ended, InspectError, Inspector, Listed, Listing, Shown, harmless, now,
};
use crate::admin::span;
use crate::cli::SessionsCommand;
use crate::setup::{Setup, is_server};

/// After this time, a message explains the delay.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command and prints the result.
pub(crate) async fn run(setup: &Setup, command: &SessionsCommand) -> anyhow::Result<()> {
    let progress = async {
        tokio::time::sleep(PATIENCE).await;
        eprintln!("reading all sessions …");
        std::future::pending().await
    };
    tokio::select! {
        result = execute(setup, command) => result,
        () = progress => Ok(()),
    }
}

async fn execute(setup: &Setup, command: &SessionsCommand) -> anyhow::Result<()> {
    let source = Source::of(setup).await?;
    match command {
        SessionsCommand::List { subject, limit, json } => {
            let listing = source.list(subject.as_deref(), *limit).await?;
            if *json {
                say_json(&listing)?;
            } else {
                say(table(&listing, now()).trim_end());
            }
        }
        SessionsCommand::Show { session } => {
            let shown = source.show(session).await?;
            let shown = shown.with_context(|| format!("there is no session {session}"))?;
            say_json(&shown)?;
        }
        SessionsCommand::End { sessions } => {
            let mut missing = Vec::new();
            for session in sessions {
                match source.end(session).await? {
                    true => say(&format!("{session} was ended")),
                    false => missing.push(session.as_str()),
                }
            }
            if !missing.is_empty() {
                bail!("there is no session {}", missing.join(", "));
            }
        }
        SessionsCommand::EndAll { subject } => {
            let Ended { ended, unreadable } = source.end_all(subject).await?;
            say(&format!("{ended} sessions of {subject:?} were ended"));
            if unreadable > 0 {
                bail!(left(unreadable, subject));
            }
        }
    }
    Ok(())
}

/// Describes the unreadable sessions that remain after all readable ones of a subject were ended.
fn left(unreadable: u64, subject: &str) -> String {
    let (sessions, them) = match unreadable {
        1 => ("1 session cannot be read".to_owned(), "it"),
        n => (format!("{n} sessions cannot be read"), "them"),
    };
    format!(
        "{sessions} and may also belong to {subject:?}.\n`edge-session sessions list --subject …` \
         lists {them} as unreadable, `sessions show NAME` prints what is stored, and `sessions end \
         NAME` ends one"
    )
}

/// Prints a value as JSON.
fn say_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    say(&harmless(&text));
    Ok(())
}

/// Where the sessions are inspected.
enum Source {
    /// The store itself.
    Store(Inspector),
    /// Through the admin address of the process that has the store open.
    Process { url: String, token: String },
}

impl Source {
    async fn of(setup: &Setup) -> anyhow::Result<Self> {
        let url = &setup.store_url;
        let is_memory = url == "memory:";
        if is_memory {
            return Self::process(setup, "sessions in memory are accessible only to their process");
        }
        if let Some(path) = url.strip_prefix("file:").filter(|path| !Path::new(path).exists()) {
            let why = format!("the file {path} does not exist, as seen from the current directory");
            let running = Self::process(setup, &why);
            return running.map_err(|_| anyhow!("there are no sessions: {why}"));
        }
        match setup.open_store().await {
            Ok(stores) => Ok(Self::Store(setup.inspector(stores.browse))),
            Err(why) if is_server(url) => Err(why),
            Err(why) => Self::process(setup, &format!("{why:#}")),
        }
    }

    fn process(setup: &Setup, why: &str) -> anyhow::Result<Self> {
        match (setup.settings.admin, &setup.admin_token) {
            (Some(address), Some(token)) => {
                Ok(Self::Process { url: format!("http://{address}"), token: token.clone() })
            }
            _ => Err(anyhow!(
                "{why}.\nTo query that process, set admin.listen and EDGE_SESSION_ADMIN_TOKEN for \
                 it and for this command"
            )),
        }
    }

    async fn list(&self, subject: Option<&str>, limit: usize) -> anyhow::Result<Listing> {
        match self {
            Self::Store(inspector) => Ok(inspector.list(subject, limit).await?),
            Self::Process { .. } => {
                let subject = subject.map(|it| format!("&subject={}", escaped(it)));
                let query = format!("?limit={limit}{}", subject.unwrap_or_default());
                let listing = self.ask(Method::GET, &format!("/api/sessions{query}")).await?;
                listing.context(
                    "the process does not show its sessions: is \
                     EDGE_SESSION_ADMIN_TOKEN set for it?",
                )
            }
        }
    }

    async fn show(&self, session: &str) -> anyhow::Result<Option<Shown>> {
        match self {
            Self::Store(inspector) => Ok(inspector.show(session).await?),
            Self::Process { .. } => {
                let path = format!("/api/sessions/{}", escaped(session));
                Ok(self.ask::<Option<Shown>>(Method::GET, &path).await?.flatten())
            }
        }
    }

    async fn end(&self, session: &str) -> anyhow::Result<bool> {
        match self {
            Self::Store(inspector) => Ok(inspector.end(session).await?),
            Self::Process { .. } => {
                let path = format!("/api/sessions/{}", escaped(session));
                Ok(self.ask::<u64>(Method::DELETE, &path).await?.unwrap_or(0) > 0)
            }
        }
    }

    async fn end_all(&self, subject: &str) -> anyhow::Result<Ended> {
        match self {
            Self::Store(inspector) => Ok(inspector.end_all(subject).await?),
            Self::Process { .. } => {
                let path = format!("/api/sessions?subject={}", escaped(subject));
                let ended = self.ask(Method::DELETE, &path).await?;
                ended.context(
                    "the process does not show its sessions: is \
                     EDGE_SESSION_ADMIN_TOKEN set for it?",
                )
            }
        }
    }

    /// Returns the process's answer; none for 404.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<Option<T>> {
        let Self::Process { url, token } = self else { return Ok(None) };
        let wrong = |what: &dyn std::fmt::Display| anyhow!("the process at {url} {what}");
        let request = Request::builder()
            .method(method)
            .uri(format!("{url}{path}"))
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .context("cannot build the request")?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client
            .request(request)
            .await
            .map_err(|_| wrong(&"(admin.listen) cannot be reached: is it running?"))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED => {
                return Err(wrong(&"has another EDGE_SESSION_ADMIN_TOKEN"));
            }
            // The only operation that its configuration can rule out.
            StatusCode::CONFLICT => {
                return Err(wrong(&format!("says: {}", InspectError::NoIdentity)));
            }
            status => return Err(wrong(&format!("responded with {status}"))),
        }
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| wrong(&format!("stopped responding: {error}")))?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| wrong(&"sent an invalid response"))
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Formats a listing for people.
fn table(listing: &Listing, now: u64) -> String {
    let subject = |listed: &Listed| match &listed.subject {
        // Applications may have stored terminal escapes.
        Some(subject) => harmless(&subject.replace('\n', " ")).chars().take(40).collect(),
        None if listed.unreadable => "unreadable".to_owned(),
        None => "-".to_owned(),
    };
    let rows = listing.sessions.iter().map(|listed| {
        let age = listed.created.map_or("-".to_owned(), |at| span(now.saturating_sub(at)));
        let left = listed.expires.map_or("-".to_owned(), |at| span(at.saturating_sub(now)));
        [listed.session.clone(), subject(listed), age, left, listed.bytes.to_string()]
    });
    let head = ["SESSION", "SUBJECT", "AGE", "ENDS IN", "BYTES"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for [session, subject, age, left, bytes] in &rows {
        let [w0, w1, w2, w3] = widths;
        text.push_str(&format!("{session:w0$}  {subject:w1$}  {age:>w2$}  {left:>w3$}  {bytes}\n"));
    }
    let more = if listing.has_more { "; there are more (--limit)" } else { "" };
    text.push_str(&format!(
        "{} of about {} sessions{more}\n",
        listing.sessions.len(),
        listing.total
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_holds_nothing_that_a_terminal_obeys() {
        let listed = |session: &str, subject: Option<&str>| Listed {
            session: session.to_owned(),
            subject: subject.map(str::to_owned),
            unreadable: false,
            created: Some(0),
            expires: Some(7_200_000),
            bytes: 42,
        };
        let sessions = vec![
            listed("aaaaaaaaaaaa", Some("zo\u{1b}[31më")),
            listed("bbbbbbbbbbbb", None),
            Listed { unreadable: true, ..listed("cccccccccccc", None) },
        ];
        let listing = Listing { sessions, total: 4, has_more: true };
        assert_eq!(
            table(&listing, 60_000),
            "SESSION       SUBJECT         AGE  ENDS IN  BYTES\n\
             aaaaaaaaaaaa  zo\\u001b[31më  60 s  119 min  42\n\
             bbbbbbbbbbbb  -              60 s  119 min  42\n\
             cccccccccccc  unreadable     60 s  119 min  42\n\
             3 of about 4 sessions; there are more (--limit)\n"
        );
    }
}
