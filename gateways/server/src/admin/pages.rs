//! The admin pages' HTML.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::admin::inspector::{Ended, InspectError, Listed, Listing, Shown, harmless, now};

fn frame(title: &str, is_in: bool, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · edge-session" }
                link rel="stylesheet" href="/style.css";
            }
            body.admin {
                a.skip href="#content" { "Skip to the content" }
                header {
                    a.brand href="/sessions" { "edge-session admin" }
                    @if is_in {
                        nav {
                            a href="/sessions" { "Sessions" }
                            " "
                            a href="/metrics" { "Metrics" }
                            " "
                            form method="post" action="/logout" { button { "Log out" } }
                        }
                    }
                }
                main #content { (content) }
            }
        }
    }
}

pub(super) fn login(problem: Option<&str>) -> Markup {
    let content = html! {
        section.card {
            h1 { "Log in" }
            p.quiet { "Enter the token that this program was started with: EDGE_SESSION_ADMIN_TOKEN." }
            @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
            form method="post" action="/login" {
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus;
                button.primary { "Log in" }
            }
        }
    };
    frame("Log in", false, &content)
}

pub(super) fn list(
    listing: &Listing,
    subject: Option<&str>,
    done: Option<Ended>,
    has_subjects: bool,
    charts: &Markup,
) -> Markup {
    let now = now();
    let content = html! {
        @if let Some(Ended { ended, unreadable }) = done {
            p.card role="status" { (count(ended, "session")) @if ended == 1 { " was" } @else { " were" } " ended." }
            @if unreadable > 0 {
                p.card.problem role="alert" {
                    (count(unreadable, "session"))
                    " cannot be read and may belong to the same subject. They are listed below as \
                     unreadable: check what is stored, and end them individually."
                }
            }
        }
        section.card aria-label="The last hour" { (charts) }
        section.card {
            h1 { "Live sessions" }
            form.search method="get" action="/sessions" {
                div {
                    label for="subject" { "Subject contains" }
                    input #subject type="text" name="subject" value=(subject.unwrap_or_default());
                }
                button.primary { "Search" }
                @if subject.is_some() { a href="/sessions" { "Show all" } }
            }
            @if !has_subjects {
                p.quiet { "Sessions have no subject: set gateway.identity to its JSON pointer, for example /passport/user." }
            }
            @if let Some(subject) = subject.filter(|_| !listing.sessions.is_empty()) {
                form method="get" action="/sessions/end-all" {
                    input type="hidden" name="subject" value=(subject);
                    button.end { "End all sessions of exactly “" (subject) "”" }
                }
            }
            (table(&listing.sessions, now))
            p.quiet {
                @if listing.has_more { "The first " (listing.sessions.len()) ". " }
                "The store has about " (count(listing.total, "session")) "."
            }
        }
    };
    frame("Live sessions", true, &content)
}

fn table(sessions: &[Listed], now: u64) -> Markup {
    if sessions.is_empty() {
        return html! { p { "There are no sessions." } };
    }
    html! {
        div.scroll { table.sessions {
            thead { tr {
                th { "Session" } th { "Subject" } th.right { "Age" } th.right { "Ends in" }
                th.right { "Size" } th { span.hidden { "Action" } }
            } }
            tbody {
                @for listed in sessions {
                    tr {
                        td { a href=(format!("/sessions/{}", listed.session)) { code { (listed.session) } } }
                        td.subject { (subject(listed)) }
                        td.right data-name="Age" { (age(listed, now)) }
                        td.right data-name="Ends in" { (left(listed, now)) }
                        td.right data-name="Size" { (listed.bytes) " B" }
                        td.do { (end_form(&listed.session)) }
                    }
                }
            }
        } }
    }
}

/// A form that asks for confirmation.
fn end_form(name: &str) -> Markup {
    html! {
        form method="get" action="/sessions/end" {
            input type="hidden" name="name" value=(name);
            button.end aria-label=(format!("End the session {name}")) { "End" }
        }
    }
}

/// Asks whether to end one session.
pub(super) fn ask_end(shown: &Shown) -> Markup {
    let name = &shown.listed.session;
    let back = format!("/sessions/{name}");
    let of = shown.listed.subject.as_deref().map(|subject| format!(" of “{subject}”"));
    let question = format!("End the session{}?", of.unwrap_or_default());
    ask(&question, "Its visitor is logged out.", "/sessions/end", ("name", name), &back)
}

/// Asks whether to end all sessions of a subject.
pub(super) fn ask_end_all(subject: &str) -> Markup {
    let back = format!("/sessions?subject={}", utf8_percent_encode(subject, NON_ALPHANUMERIC));
    let question = format!("End all sessions of exactly “{subject}”?");
    let text = "This subject is logged out everywhere.";
    ask(&question, text, "/sessions/end-all", ("subject", subject), &back)
}

fn ask(question: &str, text: &str, action: &str, field: (&str, &str), back: &str) -> Markup {
    let content = html! {
        section.card {
            h1 { (question) }
            p { (text) }
            form.answer method="post" action=(action) {
                input type="hidden" name=(field.0) value=(field.1);
                button.end { "End" }
                a href=(back) { "Cancel" }
            }
        }
    };
    frame(question, true, &content)
}

pub(super) fn show(shown: &Shown) -> Markup {
    let (listed, now) = (&shown.listed, now());
    let content = html! {
        section.card {
            h1 { "Session " code { (listed.session) } }
            dl.facts {
                div { dt { "Subject" } dd { (subject(listed)) } }
                div { dt { "Age" } dd { (age(listed, now)) } }
                div { dt { "Ends in" } dd { (left(listed, now)) } }
                div { dt { "Size" } dd { (listed.bytes) " bytes" } }
            }
            h2 { "Data" }
            @match &shown.data {
                Some(data) => pre { (harmless(&serde_json::to_string_pretty(data).unwrap_or_default())) },
                None => {
                    p { "The data cannot be read completely. The stored text is:" }
                    pre { (harmless(shown.raw.as_deref().unwrap_or_default())) }
                }
            }
            (end_form(&listed.session))
        }
    };
    frame("Session", true, &content)
}

pub(super) fn not_found() -> Markup {
    message("There is no such session", "It has ended, or the name is wrong.")
}

pub(super) fn unavailable() -> Markup {
    message("The store does not respond", "Please try again. The program's log has the details.")
}

pub(super) fn no_identity(error: &InspectError) -> Markup {
    message("Sessions cannot be searched by subject", &error.to_string())
}

fn message(title: &str, text: &str) -> Markup {
    let content = html! {
        section.card { h1 { (title) } p { (text) } p { a href="/sessions" { "All sessions" } } }
    };
    frame(title, true, &content)
}

fn subject(listed: &Listed) -> &str {
    match &listed.subject {
        Some(subject) => subject,
        None if listed.unreadable => "unreadable",
        None => "—",
    }
}

fn age(listed: &Listed, now: u64) -> String {
    listed.created.map_or("—".to_owned(), |at| span(now.saturating_sub(at)))
}

fn left(listed: &Listed, now: u64) -> String {
    listed.expires.map_or("never".to_owned(), |at| span(at.saturating_sub(now)))
}

/// Formats a duration, rounded.
pub(crate) fn span(millis: u64) -> String {
    let seconds = Duration::from_millis(millis).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
