//! The pages' HTML.

use std::time::Duration;

use edge_session::Origin;
use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value};

use super::{MAX_KEY, MAX_NAME, MAX_VALUE};

/// The visitor of a page.
pub(super) struct Visitor {
    /// The name of the logged-in user.
    pub(super) user: Option<String>,
    /// The CSRF token of forms.
    pub(super) token: String,
}

/// The prefilled values of the login form.
#[derive(Default)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) remember: bool,
    /// Where to redirect after the login: a checked path.
    pub(super) return_to: Option<String>,
}

/// The prefilled values of the form that sets a value.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) key: String,
    pub(super) value: String,
}

/// What the counter's page shows of the session.
pub(super) struct Panel {
    /// Keys and values as JSON; none for a hidden value.
    pub(super) values: Vec<(String, Option<String>)>,
    /// None if unknown.
    pub(super) cookie_name: Option<String>,
    pub(super) cookie: Map<String, Value>,
    pub(super) lifetimes: Lifetimes,
    pub(super) origin: Origin,
}

/// The session's lifetimes, counted from this visit.
pub(super) struct Lifetimes {
    /// None: until the browser closes.
    pub(super) in_browser: Option<Duration>,
    /// None if unknown.
    pub(super) in_store: Option<Duration>,
    /// The remaining lifetime in the store at the beginning of the request; none if it was not
    /// stored.
    pub(super) left: Option<Duration>,
}

/// The current entry of the navigation.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Counter,
    Account,
    Login,
    Elsewhere,
}

// --------------------------------------------------------------------------- pages ----

pub(super) fn counter(visitor: &Visitor, count: u64, panel: &Panel) -> Markup {
    let content = html! {
        section.card.counter {
            // A single text node, which tests look for.
            h1 { (format!("you have visited this page {count} times")) }
            p.quiet {
                "Reload the page to continue counting. The number is kept in your session, on the \
                 server; "
                "your browser has only a signed cookie."
            }
        }
        section.card aria-labelledby="data" {
            h2 #data { "In your session" }
            (values(&panel.values))
            h3 { "Store a value in your session" }
            (value_form(visitor, &Draft::default(), None))
        }
        section.card aria-labelledby="cookie" {
            h2 #cookie { "The cookie" }
            (cookie_facts(panel))
        }
        section.card aria-labelledby="life" {
            h2 #life { "The lifetime" }
            (life_facts(panel))
        }
    };
    layout("View counter", Place::Counter, Some(visitor), &content)
}

pub(super) fn login(visitor: &Visitor, login: &Login, problem: Option<&str>) -> Markup {
    let content = html! {
        section.card {
            h1 { "Log in" }
            p.quiet {
                "This is a demonstration: there are no passwords, and any name will do. "
                "The session is real, and continues under a new identifier."
            }
            @if let Some(user) = &visitor.user {
                p { "You are logged in as " strong.name { (user) } "." }
            }
            form method="post" action="/login" {
                (token_field(visitor))
                @if let Some(path) = &login.return_to {
                    input type="hidden" name="return" value=(path);
                }
                (problem_note(problem))
                label for="username" { "Name" }
                input #username type="text" name="username" value=(login.username)
                    required maxlength=(MAX_NAME) autocomplete="username" autocapitalize="words"
                    spellcheck="false" autofocus aria-invalid=[problem.map(|_| "true")]
                    aria-describedby=[problem.map(|_| "problem")];
                label.check for="remember" {
                    input #remember type="checkbox" name="remember" value="yes"
                        checked[login.remember];
                    span { "Remember me for 30 days, even after the browser is closed" }
                }
                button.primary type="submit" { "Log in" }
            }
        }
    };
    layout("Log in", Place::Login, Some(visitor), &content)
}

pub(super) fn account(visitor: &Visitor, user: &str) -> Markup {
    let content = html! {
        section.card {
            h1 { "Hello, " span.name { (user) } }
            p.quiet {
                "Only logged-in visitors see this page; others are redirected to the login. "
                "Logging out deletes your session from the store, including its count, and clears "
                "the cookie."
            }
            (logout_form(visitor, "primary"))
        }
    };
    layout("Account", Place::Account, Some(visitor), &content)
}

pub(super) fn value_refused(visitor: &Visitor, draft: &Draft, problem: &str) -> Markup {
    let content = html! {
        section.card {
            h1 { "The value was not stored" }
            (value_form(visitor, draft, Some(problem)))
            p { a href="/" { "Back to the counter" } }
        }
    };
    layout("Not stored", Place::Elsewhere, Some(visitor), &content)
}

pub(super) fn not_found(visitor: Option<&Visitor>, path: &str) -> Markup {
    let content = html! {
        section.card {
            h1 { "There is no such page" }
            p.quiet { "Nothing exists at " code { (path) } "." }
            p { a href="/" { "Go to the counter" } }
        }
    };
    layout("Not found", Place::Elsewhere, visitor, &content)
}

pub(super) fn refusal(visitor: Option<&Visitor>, title: &str, text: &str, back: &str) -> Markup {
    let content = html! {
        section.card {
            h1 { (title) }
            p.quiet { (text) }
            p { a href=(back) { "Go back" } }
        }
    };
    layout(title, Place::Elsewhere, visitor, &content)
}

fn layout(title: &str, place: Place, visitor: Option<&Visitor>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · edge-session" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    a.brand href="/" { "edge-session" }
                    (navigation(place, visitor))
                }
                main { (content) }
                footer {
                    "edge-session " (env!("CARGO_PKG_VERSION")) ", the built-in demonstration. "
                    "Sessions compatible with express-session, managed by a WebAssembly component."
                }
            }
        }
    }
}

fn navigation(place: Place, visitor: Option<&Visitor>) -> Markup {
    let current = |entry| (place == entry).then_some("page");
    html! {
        nav aria-label="Main" {
            a href="/" aria-current=[current(Place::Counter)] { "Counter" }
            a href="/account" aria-current=[current(Place::Account)] { "Account" }
            @match visitor.filter(|visitor| visitor.user.is_some()) {
                Some(visitor) => (logout_form(visitor, "plain")),
                None => a href="/login" aria-current=[current(Place::Login)] { "Log in" },
            }
        }
    }
}

// --------------------------------------------------------------------------- forms ----

fn token_field(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(super::csrf::KEY) value=(visitor.token); }
}

fn logout_form(visitor: &Visitor, button: &str) -> Markup {
    html! {
        form method="post" action="/logout" {
            (token_field(visitor))
            button class=(button) type="submit" { "Log out" }
        }
    }
}

fn value_form(visitor: &Visitor, draft: &Draft, problem: Option<&str>) -> Markup {
    let describedby = problem.map(|_| "problem");
    html! {
        form.pair method="post" action="/demo/set" {
            (token_field(visitor))
            (problem_note(problem))
            div {
                label for="key" { "Key" }
                input #key type="text" name="key" value=(draft.key) required maxlength=(MAX_KEY)
                    autocomplete="off" autocapitalize="none" spellcheck="false"
                    aria-describedby=[describedby];
            }
            div {
                label for="value" { "Value" }
                input #value type="text" name="value" value=(draft.value) required
                    maxlength=(MAX_VALUE) autocomplete="off" aria-describedby=[describedby];
            }
            button.primary type="submit" { "Store" }
        }
    }
}

fn problem_note(problem: Option<&str>) -> Markup {
    html! {
        @if let Some(problem) = problem {
            p.problem #problem role="alert" { (problem) }
        }
    }
}

// ------------------------------------------------------------------------ the panel ----

fn values(values: &[(String, Option<String>)]) -> Markup {
    html! {
        dl.facts {
            @for (key, value) in values {
                div {
                    dt { code { (key) } }
                    dd {
                        @match value {
                            Some(json) => pre { code { (json) } },
                            None => { "•••••••• " span.quiet { "hidden: it protects the forms" } },
                        }
                    }
                }
            }
        }
    }
}

fn cookie_facts(panel: &Panel) -> Markup {
    let text = |name: &str| panel.cookie.get(name).and_then(Value::as_str);
    let is_set = |name: &str| panel.cookie.get(name) == Some(&Value::Bool(true));
    html! {
        dl.facts {
            @if let Some(name) = &panel.cookie_name {
                (fact("Name", &html! { code { (name) } }))
            }
            (fact("Path", &html! { code { (text("path").unwrap_or("/")) } }))
            (fact("Sent to", &html! {
                @match text("domain") {
                    Some(domain) => { code { (domain) } " and the hosts below it" },
                    None => "this host only",
                }
            }))
            (flag("Secure", is_set("secure"), "sent over HTTPS only", "sent over plain HTTP too"))
            (flag("HttpOnly", is_set("httpOnly"), "scripts cannot read it", "scripts can read it"))
            (fact("SameSite", &same_site(text("sameSite"))))
            (fact("Kept by the browser", &html! { (until(panel.lifetimes.in_browser)) }))
        }
    }
}

fn life_facts(panel: &Panel) -> Markup {
    let Lifetimes { in_store, left, .. } = panel.lifetimes;
    html! {
        dl.facts {
            (fact("This visit", &html! { (origin(panel.origin)) }))
            @if let Some(left) = left {
                (fact("Before this visit", &html! { (words(left)) " left" }))
            }
            @if let Some(in_store) = in_store {
                (fact("In the store", &html! { (words(in_store)) ", unless you come back" }))
            }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn flag(name: &str, is_set: bool, yes: &str, no: &str) -> Markup {
    let (answer, meaning) = if is_set { ("yes", yes) } else { ("no", no) };
    fact(name, &html! { (answer) ": " (meaning) })
}

fn same_site(same_site: Option<&str>) -> Markup {
    let (name, meaning) = match same_site {
        Some("strict") => ("Strict", "sent only when you come from this site itself"),
        Some("lax") => ("Lax", "other sites can link here, but not send forms with it"),
        Some("none") => ("None", "sent from other sites, too"),
        _ => ("not set", "the browser decides"),
    };
    html! { (name) ": " (meaning) }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Loaded => "loaded from the store",
        Origin::Absent => "new: your browser sent no cookie",
        Origin::Malformed => "new: the cookie is malformed",
        Origin::Forged => "new: the cookie's signature is wrong",
        Origin::Oversized => "new: the cookies are too large",
        Origin::Unknown => "new: the session of your cookie has ended",
        Origin::Damaged => "new: the session of your cookie is damaged",
        Origin::Detached => "new, and not kept: the store does not respond",
    }
}

fn until(lifetime: Option<Duration>) -> String {
    match lifetime {
        Some(lifetime) => format!("for {} from now", words(lifetime)),
        None => "until the browser closes".to_owned(),
    }
}

/// Formats a duration in its two largest units, rounded down.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 86_400, "day"),
        (seconds / 3_600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let Some(first) = units.iter().position(|(count, _)| *count > 0) else {
        return "less than a second".to_owned();
    };
    let said = units[first..].iter().take(2).filter(|(count, _)| *count > 0);
    let said: Vec<_> = said
        .map(|(count, unit)| format!("{count} {unit}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_said_in_its_two_largest_units() {
        const DAY: u64 = 86_400;
        for (seconds, said) in [
            (0, "less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3_600 + 61, "1 hour 1 minute"),
            (3_600 + 59, "1 hour"),
            (14 * DAY - 1, "13 days 23 hours"),
            (14 * DAY, "14 days"),
            (DAY + 1, "1 day"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), said);
        }
        assert_eq!(words(Duration::from_millis(999)), "less than a second");
    }

    #[test]
    fn what_visitors_write_is_escaped() {
        let visitor = Visitor { user: Some("<b>".to_owned()), token: "t".to_owned() };
        let draft = Draft { key: "\"><i>".to_owned(), value: "<u>".to_owned() };
        for page in [
            account(&visitor, "<b>"),
            value_refused(&visitor, &draft, "<s>"),
            not_found(Some(&visitor), "/<p>x"),
        ] {
            let page = page.into_string();
            for tag in ["<b>", "<i>", "<u>", "<s>", "<p>x"] {
                assert!(!page.contains(tag), "{tag} is in {page}");
            }
        }
    }

    #[test]
    fn who_is_logged_in_can_log_out_from_every_page() {
        let ada = Visitor { user: Some("ada".to_owned()), token: "secret".to_owned() };
        let page = not_found(Some(&ada), "/").into_string();
        assert!(
            page.contains(r#"action="/logout""#) && page.contains(r#"value="secret""#),
            "{page}"
        );
        let page = not_found(None, "/").into_string();
        assert!(page.contains(r#"href="/login""#) && !page.contains("/logout"), "{page}");
    }
}
