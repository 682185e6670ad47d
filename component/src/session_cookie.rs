//! The `cookie` member of a stored session: nine settings in a fixed order, as express-session's
//! `Cookie.prototype.toJSON` writes them, without undefined ones.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;
use time::format_description::{BorrowedFormatItem, well_known::Rfc3339};
use time::macros::format_description;
use time::{Date, Duration, Month, OffsetDateTime};

use crate::cookie_header::{Attributes, is_domain, is_path};
use crate::document::Damaged;
use crate::json;
use crate::options::{CookieOptions, PRIORITIES, Priority, SAME_SITES, SameSite, Secure, scalar};
use crate::wit::{Edit, Millis};

/// A lifetime in milliseconds: a JavaScript number, as in stored sessions.
type Lifetime = f64;

/// The settings' names, in the order in which they are written.
const KEYS: [&str; 9] = [
    "originalMaxAge",
    "partitioned",
    "priority",
    "expires",
    "secure",
    "httpOnly",
    "domain",
    "path",
    "sameSite",
];
const ORIGINAL_MAX_AGE: usize = 0;
const PARTITIONED: usize = 1;
const PRIORITY: usize = 2;
const EXPIRES: usize = 3;
const SECURE: usize = 4;
const HTTP_ONLY: usize = 5;
const DOMAIN: usize = 6;
const PATH: usize = 7;
const SAME_SITE: usize = 8;

/// The settings of a session's cookie, each as its original JSON text, so that unchanged ones are
/// written back as they were.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionCookie<'a>([Option<Cow<'a, str>>; 9]);

impl<'a> SessionCookie<'a> {
    /// Parses the raw `cookie` member.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Damaged> {
        let mut cookie = Self([const { None }; 9]);
        // In the usual order, the first comparison finds each setting. Unknown settings are
        // dropped, as in express-session.
        let mut next = 0;
        json::members(text, |key, value| {
            let name = key.name();
            let place = (next..9).chain(0..next).find(|at| *KEYS[*at].as_bytes() == *name);
            if let Some(at) = place {
                cookie.0[at] = Some(Cow::Borrowed(value));
                next = at + 1;
            }
            Ok(())
        })?;
        // The defaults of `new Cookie(stored)`.
        cookie.0[EXPIRES].get_or_insert(Cow::Borrowed("null"));
        cookie.0[HTTP_ONLY].get_or_insert(Cow::Borrowed("true"));
        cookie.0[PATH].get_or_insert(Cow::Borrowed("\"/\""));
        // express-session fails on every request with such a lifetime. Other invalid settings
        // matter only when the cookie is sent.
        let has_lifetime = !cookie.truthy(ORIGINAL_MAX_AGE) || cookie.lifetime().is_some();
        if has_lifetime { Ok(cookie) } else { Err(Damaged) }
    }

    /// Creates the cookie of a new session; `secure`: whether the request that creates it is
    /// secure.
    pub(crate) fn new(options: &CookieOptions, secure: bool, now: Millis) -> Self {
        let max_age = options.max_age.map(|age| whole(age, now));
        let max_age = max_age.or(options.expires.map(|at| left(at, now)));
        let mut cookie = Self([const { None }; 9]);
        cookie.0[ORIGINAL_MAX_AGE] = Some(number(max_age));
        cookie.0[PARTITIONED] = options.partitioned.map(boolean);
        cookie.0[PRIORITY] = options.priority.map(|p| string(priority_name(p)));
        cookie.0[SECURE] = options.secure.map(|option| match option {
            Secure::Never => boolean(false),
            Secure::Always => boolean(true),
            Secure::Auto => boolean(secure),
        });
        cookie.0[HTTP_ONLY] = Some(boolean(options.http_only));
        cookie.0[DOMAIN] = options.domain.as_deref().map(string);
        cookie.0[PATH] = Some(string(&options.path));
        cookie.0[SAME_SITE] = options.same_site.map(|option| {
            string(match option {
                SameSite::Auto if secure => "none",
                SameSite::Auto => "lax",
                other => same_site_name(other),
            })
        });
        cookie.touch(now);
        cookie
    }

    /// Restarts the lifetime: express-session's `resetMaxAge`. A cookie without a lifetime ends
    /// with the browser session.
    pub(crate) fn touch(&mut self, now: Millis) {
        self.0[EXPIRES] = match (&self.0[ORIGINAL_MAX_AGE], self.lifetime()) {
            (None, _) => None,
            // null, or another falsy value.
            (Some(text), None) => Some(text.clone()),
            (Some(text), Some(age)) => {
                let age = text.parse().unwrap_or_else(|_| {
                    let age = whole(age, now);
                    self.0[ORIGINAL_MAX_AGE] = Some(number(Some(age)));
                    age
                });
                Some(Cow::Owned(format!("\"{}\"", iso(date(now).saturating_add(age)))))
            }
        };
    }

    /// Assigns a setting, with the effect of Cookie.prototype's setters: setting `expires` sets the
    /// lifetime. Returns what is wrong with a value that no cookie can have.
    pub(crate) fn edit(&mut self, edit: &Edit, now: Millis) -> Result<(), String> {
        let Edit { key, value } = edit;
        let Some(parsed) = scalar(value.as_deref().unwrap_or("null")) else {
            return Err(format!("the cookie's {} is not valid", key.escape_debug()));
        };
        let named = |names: &[&str]| {
            let text = parsed.as_str()?;
            names.iter().find(|name| name.eq_ignore_ascii_case(text)).map(|name| string(name))
        };
        let flag = || parsed.as_bool().map(|flag| Some(boolean(flag)));
        let set = match (key.as_str(), &parsed) {
            ("maxAge" | "expires", Value::Null) => Some((ORIGINAL_MAX_AGE, Some(number(None)))),
            ("maxAge", _) => {
                let age = parsed.as_f64().filter(|age| is_lifetime(*age));
                age.map(|age| (ORIGINAL_MAX_AGE, Some(number(Some(whole(age, now))))))
            }
            ("expires", _) => {
                let at = parsed.as_u64();
                at.map(|at| (ORIGINAL_MAX_AGE, Some(number(Some(left(at, now))))))
            }
            ("path", _) => {
                let path = parsed.as_str().filter(|path| is_path(path));
                path.map(|path| (PATH, Some(string(path))))
            }
            ("domain", Value::Null) => Some((DOMAIN, None)),
            ("domain", _) => {
                let domain = parsed.as_str().filter(|domain| is_domain(domain));
                domain.map(|domain| (DOMAIN, Some(string(domain))))
            }
            ("httpOnly", _) => flag().map(|flag| (HTTP_ONLY, flag)),
            ("secure", _) => flag().map(|flag| (SECURE, flag)),
            ("partitioned", _) => flag().map(|flag| (PARTITIONED, flag)),
            ("sameSite", Value::Null | Value::Bool(false)) => Some((SAME_SITE, None)),
            ("sameSite", Value::Bool(true)) => Some((SAME_SITE, Some(string("strict")))),
            ("sameSite", _) => {
                named(&["strict", "lax", "none"]).map(|name| (SAME_SITE, Some(name)))
            }
            ("priority", Value::Null) => Some((PRIORITY, None)),
            ("priority", _) => named(&["low", "medium", "high"]).map(|name| (PRIORITY, Some(name))),
            _ => return Err(format!("`{}` is not a setting of a cookie", key.escape_debug())),
        };
        let (at, value) = set.ok_or_else(|| format!("the cookie's {key} is not valid"))?;
        self.0[at] = value;
        Ok(())
    }

    /// Whether every setting can be written into a Set-Cookie.
    fn is_sendable(&self) -> bool {
        let text_or_falsy = |at: usize| !self.truthy(at) || self.text(at).is_some();
        (!self.truthy(EXPIRES) || self.end().is_some())
            && (!self.truthy(PRIORITY) || self.priority().is_some())
            && (!self.truthy(SAME_SITE) || self.same_site().is_some())
            && text_or_falsy(DOMAIN)
            && text_or_falsy(PATH)
            && self.text(DOMAIN).is_none_or(|domain| domain.is_empty() || is_domain(&domain))
            && self.text(PATH).is_none_or(|path| is_path(&path))
    }

    /// Returns the cookie as JSON text.
    pub(crate) fn to_text(&self) -> String {
        self.to_text_and_places().0
    }

    /// Also returns the positions of the values in the text.
    fn to_text_and_places(&self) -> (String, [Option<Range<usize>>; 9]) {
        let mut text = String::with_capacity(160);
        let mut places = [const { None }; 9];
        text.push('{');
        for ((key, value), place) in KEYS.iter().zip(&self.0).zip(&mut places) {
            let Some(value) = value else { continue };
            if text.len() > 1 {
                text.push(',');
            }
            text.push('"');
            text.push_str(key);
            text.push_str("\":");
            let begin = text.len();
            text.push_str(value);
            *place = Some(begin..text.len());
        }
        text.push('}');
        (text, places)
    }

    /// Returns the Set-Cookie that keeps the session; none if a setting cannot be written. If `now`
    /// is given, it includes Max-Age, which does not depend on the browser's clock.
    pub(crate) fn serialize(&self, name: &str, value: &str, now: Option<Millis>) -> Option<String> {
        let end = self.end();
        let max_age = now.zip(end).map(|(now, end)| seconds(end.saturating_sub(date(now))));
        self.write(name, value, end, max_age)
    }

    /// Returns the Set-Cookie that makes the browser delete its cookie.
    pub(crate) fn serialize_removal(&self, name: &str) -> Option<String> {
        self.write(name, "", Some(0), Some(0))
    }

    fn write(
        &self,
        name: &str,
        value: &str,
        end: Option<i64>,
        max_age: Option<i64>,
    ) -> Option<String> {
        if !self.is_sendable() {
            return None;
        }
        let domain = self.text(DOMAIN).filter(|text| !text.is_empty());
        let path = self.text(PATH).filter(|text| !text.is_empty());
        Some(crate::cookie_header::serialize(
            name,
            value,
            &Attributes {
                domain: domain.as_deref(),
                path: path.as_deref(),
                expires: end.map(|at| format_date(at, IMF)),
                max_age,
                http_only: self.truthy(HTTP_ONLY),
                secure: self.secure(),
                partitioned: self.truthy(PARTITIONED),
                priority: self.priority().map(|priority| match priority {
                    Priority::Low => "Low",
                    Priority::Medium => "Medium",
                    Priority::High => "High",
                }),
                same_site: self.same_site().map(|same_site| match same_site {
                    SameSite::Strict => "Strict",
                    SameSite::None => "None",
                    SameSite::Lax | SameSite::Auto => "Lax",
                }),
            },
        ))
    }

    /// Returns the lifetime since the last save or touch; none if it is not a number.
    pub(crate) fn lifetime(&self) -> Option<Lifetime> {
        self.0[ORIGINAL_MAX_AGE].as_deref()?.parse().ok()
    }

    /// Whether JavaScript's `expires` is neither null nor undefined.
    pub(crate) fn has_expires(&self) -> bool {
        !self.is_null(EXPIRES)
    }

    /// Returns when the cookie expires, not before 1970.
    pub(crate) fn expires(&self) -> Option<Millis> {
        self.end().map(|at| Millis::try_from(at).unwrap_or(0))
    }

    /// Returns when the cookie expires, in milliseconds since the Unix epoch.
    fn end(&self) -> Option<i64> {
        let text = self.text(EXPIRES)?;
        parse_iso(text.as_bytes()).or_else(|| {
            let date = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
            i64::try_from(date.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
        })
    }

    /// Returns the `Secure` attribute.
    pub(crate) fn secure(&self) -> bool {
        self.truthy(SECURE)
    }

    fn priority(&self) -> Option<Priority> {
        let text = self.text(PRIORITY)?;
        let is_it = |(name, _): &&(&str, Priority)| text.eq_ignore_ascii_case(name);
        PRIORITIES.iter().find(is_it).map(|(_, priority)| *priority)
    }

    fn same_site(&self) -> Option<SameSite> {
        if self.0[SAME_SITE].as_deref() == Some("true") {
            return Some(SameSite::Strict);
        }
        let text = self.text(SAME_SITE)?;
        let is_it = |(name, value): &&(&str, SameSite)| {
            *value != SameSite::Auto && text.eq_ignore_ascii_case(name)
        };
        SAME_SITES.iter().find(is_it).map(|(_, same_site)| *same_site)
    }

    fn is_null(&self, at: usize) -> bool {
        matches!(self.0[at].as_deref(), None | Some("null"))
    }

    /// Whether a JSON value is truthy in JavaScript.
    fn truthy(&self, at: usize) -> bool {
        !matches!(self.0[at].as_deref(), None | Some("null" | "false" | "0" | "-0" | "\"\""))
    }

    /// Returns the value if it is a string.
    fn text(&self, at: usize) -> Option<Cow<'_, str>> {
        let raw = self.0[at].as_deref()?;
        let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') {
            serde_json::from_str(raw).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(inner))
        }
    }
}

/// The text of the cookies that this engine creates. Nearly all stored cookies equal it except for
/// their expiry and need not be parsed, which would be the costliest part of a request.
#[derive(PartialEq)]
pub(crate) struct CookieTemplate {
    /// The text before and after the value of `expires`.
    before: String,
    after: String,
    /// The length of `null` or of a date.
    expires_length: usize,
    places: [Option<Range<usize>>; 9],
}

impl CookieTemplate {
    pub(crate) fn new(options: &CookieOptions, secure: bool) -> Self {
        let (text, places) = SessionCookie::new(options, secure, 0).to_text_and_places();
        let expires = places[EXPIRES].clone().unwrap_or(text.len()..text.len());
        Self {
            before: text[..expires.start].to_owned(),
            after: text[expires.end..].to_owned(),
            expires_length: expires.len(),
            places,
        }
    }

    /// Returns the length of the cookie at the start of `text`, if it matches this template.
    pub(crate) fn length(&self, text: &str) -> Option<usize> {
        let rest = after(text, &self.before)?;
        let (expires, rest) = rest.split_at_checked(self.expires_length)?;
        let is_expiry = match expires {
            "null" => true,
            _ => {
                let date = expires.strip_prefix('"')?.strip_suffix('"')?;
                parse_iso(date.as_bytes()).is_some()
            }
        };
        (is_expiry && after(rest, &self.after).is_some())
            .then(|| self.before.len() + self.expires_length + self.after.len())
    }

    /// Returns the settings in `text`, which [`Self::length`] has found to match this template.
    pub(crate) fn read<'a>(&self, text: &'a str) -> Option<SessionCookie<'a>> {
        let mut settings = [const { None }; 9];
        for (setting, place) in settings.iter_mut().zip(&self.places) {
            if let Some(place) = place {
                *setting = Some(Cow::Borrowed(text.get(place.clone())?));
            }
        }
        Some(SessionCookie(settings))
    }
}

/// Returns what follows a prefix. Compares words, since WebAssembly's `memcmp` compares bytes.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = text.get(prefix.len()..)?;
    let (text, prefix) = (&text.as_bytes()[..prefix.len()], prefix.as_bytes());
    let (words, bytes) = text.as_chunks::<8>();
    let (prefix_words, prefix_bytes) = prefix.as_chunks::<8>();
    let is_same = words
        .iter()
        .zip(prefix_words)
        .all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b));
    (is_same && bytes.iter().zip(prefix_bytes).all(|(a, b)| a == b)).then_some(rest)
}

/// The maximum distance of a JavaScript date from the Unix epoch, in milliseconds.
const MAX_DATE: f64 = 8.64e15;

/// Whether a number is a lifetime: it reaches a JavaScript date.
pub(crate) fn is_lifetime(age: Lifetime) -> bool {
    age.abs() <= MAX_DATE // false for NaN
}

/// Returns the time from now until the expiry, which is a whole millisecond. As with
/// `cookie.maxAge = age` in JavaScript, it is `new Date(now + age) - now`.
fn whole(age: Lifetime, now: Millis) -> i64 {
    // `as` saturates, so no number panics.
    let now = now as f64;
    ((now + age).trunc() - now) as i64
}

/// Returns the time left until `at`; negative if it has passed.
fn left(at: Millis, now: Millis) -> i64 {
    date(at) - date(now)
}

/// Rounds up: a cookie with less than a second left has not expired.
fn seconds(millis: i64) -> i64 {
    millis.max(0).saturating_add(999) / 1000
}

/// Converts to a signed number, for dates before 1970.
fn date(at: Millis) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn number(value: Option<i64>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed("null"), |n| Cow::Owned(n.to_string()))
}

fn boolean(value: bool) -> Cow<'static, str> {
    Cow::Borrowed(if value { "true" } else { "false" })
}

fn string(value: &str) -> Cow<'static, str> {
    Cow::Owned(serde_json::Value::from(value).to_string())
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Medium => "medium",
        Priority::High => "high",
    }
}

/// `auto` occurs only in options; a session's cookie has it resolved.
fn same_site_name(same_site: SameSite) -> &'static str {
    match same_site {
        SameSite::Strict => "strict",
        SameSite::Lax | SameSite::Auto => "lax",
        SameSite::None => "none",
    }
}

/// The format of `Date.prototype.toISOString`.
const ISO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// IMF-fixdate (RFC 9110, section 5.6.7), the format of `Date.prototype.toUTCString`.
const IMF: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The first and the last millisecond that both formats can represent: of the years 0 and 9999.
const FIRST: i64 = -62_167_219_200_000;
const LAST: i64 = 253_402_300_799_999;

/// Parses the output of [`iso`]; none if the text has another format or is not a date.
fn parse_iso(text: &[u8]) -> Option<i64> {
    const FORM: &[u8; 24] = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let text: &[u8; 24] = text.try_into().ok()?;
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    };
    if !text.iter().zip(FORM).all(fits) {
        return None;
    }
    let number = |place: Range<usize>| {
        text[place].iter().fold(0, |all, digit| all * 10 + u16::from(digit - b'0'))
    };
    let byte = |place| u8::try_from(number(place)).unwrap_or(u8::MAX);
    let month = Month::try_from(byte(5..7)).ok()?;
    let date = Date::from_calendar_date(number(0..4).into(), month, byte(8..10)).ok()?;
    let at = date.with_hms_milli(byte(11..13), byte(14..16), byte(17..19), number(20..23)).ok()?;
    let since = at.assume_utc() - OffsetDateTime::UNIX_EPOCH;
    i64::try_from(since.whole_milliseconds()).ok()
}

fn iso(at: i64) -> String {
    format_date(at, ISO)
}

fn format_date(at: i64, format: &[BorrowedFormatItem<'_>]) -> String {
    let date = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(at.clamp(FIRST, LAST));
    date.format(&format).expect("every date of these years has these forms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Preset, defaults};
    use proptest::prelude::*;

    const THEN: Millis = 1_893_553_445_678; // 2030-01-02T03:04:05.678Z

    fn edit(key: &str, value: &str) -> Edit {
        Edit { key: key.into(), value: Some(value.into()) }
    }

    fn express() -> CookieOptions {
        defaults(Preset::Express).cookie
    }

    #[test]
    fn new_cookies_are_written_as_express_writes_them() {
        let text = |options: &CookieOptions| SessionCookie::new(options, false, THEN).to_text();
        assert_eq!(
            text(&express()),
            r#"{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}"#
        );
        assert_eq!(
            text(&CookieOptions { http_only: false, ..express() }),
            r#"{"originalMaxAge":null,"expires":null,"httpOnly":false,"path":"/"}"#
        );
        assert_eq!(
            text(&CookieOptions {
                secure: Some(Secure::Always),
                same_site: Some(SameSite::Lax),
                domain: Some("x.com".into()),
                path: "/a".into(),
                partitioned: Some(true),
                priority: Some(Priority::Low),
                ..express()
            }),
            r#"{"originalMaxAge":null,"partitioned":true,"priority":"low","expires":null,"secure":true,"httpOnly":true,"domain":"x.com","path":"/a","sameSite":"lax"}"#
        );
        assert_eq!(
            text(&CookieOptions { expires: Some(THEN + 60_000), ..express() }),
            r#"{"originalMaxAge":60000,"expires":"2030-01-02T03:05:05.678Z","httpOnly":true,"path":"/"}"#
        );
    }

    #[test]
    fn auto_is_resolved_by_the_request_that_creates_the_session() {
        let auto = CookieOptions {
            secure: Some(Secure::Auto),
            same_site: Some(SameSite::Auto),
            ..express()
        };
        let cookie = |secure| SessionCookie::new(&auto, secure, 0);
        let (secure, insecure) = (cookie(true), cookie(false));
        assert_eq!((secure.secure(), secure.same_site()), (true, Some(SameSite::None)));
        assert_eq!((insecure.secure(), insecure.same_site()), (false, Some(SameSite::Lax)));
    }

    #[test]
    fn what_nobody_changes_is_written_back_as_it_was() {
        let text = r#"{"originalMaxAge":6e4,"expires":null,"secure":"auto","httpOnly":1,"path":"\/","sameSite":true}"#;
        let cookie = SessionCookie::parse(text).unwrap();
        assert_eq!(cookie.to_text(), text);
        assert_eq!(cookie.lifetime(), Some(60_000.0));
        let header = cookie.serialize("n", "v", None).unwrap();
        assert_eq!(header, "n=v; Path=/; HttpOnly; Secure; SameSite=Strict");
    }

    #[test]
    fn unknown_settings_are_dropped_and_the_order_is_restored() {
        let cookie = SessionCookie::parse(r#"{"path":"/","foo":1,"originalMaxAge":null}"#).unwrap();
        assert_eq!(
            cookie.to_text(),
            r#"{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}"#
        );
    }

    #[test]
    fn a_touched_cookie_lives_its_lifetime_anew() {
        let mut cookie =
            SessionCookie::parse(r#"{"originalMaxAge":1000,"expires":"2001-01-01T00:00:00.000Z"}"#)
                .unwrap();
        cookie.touch(THEN);
        assert_eq!(cookie.expires(), Some(THEN + 1000));
        assert_eq!(
            cookie.serialize("n", "v", None).unwrap(),
            "n=v; Path=/; Expires=Wed, 02 Jan 2030 03:04:06 GMT; HttpOnly"
        );
    }

    #[test]
    fn the_time_that_is_left_is_said_in_seconds_that_are_not_too_few() {
        for (age, seconds) in [
            (1000, 1),
            (1001, 2),
            (1999, 2),
            (1, 1),
            (0, 0),
            (-1, 0),
            (-5000, 0),
            (86_400_000, 86_400),
        ] {
            let text = format!(r#"{{"originalMaxAge":{age}}}"#);
            let mut cookie = SessionCookie::parse(&text).unwrap();
            cookie.touch(THEN);
            let header = cookie.serialize("n", "v", Some(THEN)).unwrap();
            assert!(header.ends_with(&format!(" GMT; Max-Age={seconds}; HttpOnly")), "{header}");
            let without = header.replace(&format!("; Max-Age={seconds}"), "");
            assert_eq!(cookie.serialize("n", "v", None), Some(without));
        }
        // Max-Age is the time left now, not the lifetime.
        let cookie = SessionCookie::parse(r#"{"expires":"2030-01-02T03:04:08.678Z"}"#).unwrap();
        assert!(cookie.serialize("n", "v", Some(THEN)).unwrap().contains("; Max-Age=3;"));
        let header = SessionCookie::new(&express(), false, THEN).serialize("n", "v", Some(THEN));
        assert_eq!(header.as_deref(), Some("n=v; Path=/; HttpOnly"), "until the browser closes");
    }

    #[test]
    fn each_setting_is_taken_in_all_its_forms_and_in_no_others() {
        // What is there before; the setting and its value; what is there then.
        let all = r#"{"originalMaxAge":1000,"partitioned":true,"priority":"low","expires":null,"secure":true,"httpOnly":true,"domain":"a.com","path":"/","sameSite":"lax"}"#;
        for (key, value, before, after) in [
            ("maxAge", "null", r#""originalMaxAge":1000"#, r#""originalMaxAge":null"#),
            ("expires", "null", r#""originalMaxAge":1000"#, r#""originalMaxAge":null"#),
            ("maxAge", "60000", r#""originalMaxAge":1000"#, r#""originalMaxAge":60000"#),
            ("path", "\"/b\"", r#""path":"/""#, r#""path":"/b""#),
            ("domain", "\"b.com\"", r#""domain":"a.com""#, r#""domain":"b.com""#),
            ("domain", "null", r#""domain":"a.com","#, ""),
            ("httpOnly", "false", r#""httpOnly":true"#, r#""httpOnly":false"#),
            ("secure", "false", r#""secure":true"#, r#""secure":false"#),
            ("partitioned", "false", r#""partitioned":true"#, r#""partitioned":false"#),
            ("sameSite", "\"None\"", r#""sameSite":"lax""#, r#""sameSite":"none""#),
            ("sameSite", "true", r#""sameSite":"lax""#, r#""sameSite":"strict""#),
            ("sameSite", "false", r#","sameSite":"lax""#, ""),
            ("sameSite", "null", r#","sameSite":"lax""#, ""),
            ("priority", "\"HIGH\"", r#""priority":"low""#, r#""priority":"high""#),
            ("priority", "null", r#""priority":"low","#, ""),
        ] {
            let mut cookie = SessionCookie::parse(all).unwrap();
            cookie.edit(&edit(key, value), THEN).unwrap();
            assert_eq!(cookie.to_text(), all.replace(before, after), "{key}: {value}");
        }
        for (key, value) in [
            ("maxAge", "\"1\""),
            ("expires", "-1"),
            ("path", "null"),
            ("domain", "1"),
            ("httpOnly", "null"),
            ("secure", "\"auto\""),
            ("partitioned", "1"),
            ("sameSite", "\"auto\""),
            ("sameSite", "1"),
            ("priority", "true"),
            ("name", "\"a\""),
        ] {
            let mut cookie = SessionCookie::parse(all).unwrap();
            let told = cookie.edit(&edit(key, value), THEN).unwrap_err();
            assert!(told.contains(key), "{told}");
            assert_eq!(cookie.to_text(), all, "{key}: {value}");
        }
    }

    #[test]
    fn touching_has_the_effect_of_the_setters() {
        let touched = |text| {
            let mut cookie = SessionCookie::parse(text).unwrap();
            cookie.touch(THEN);
            cookie.to_text()
        };
        assert_eq!(touched("{}"), r#"{"httpOnly":true,"path":"/"}"#);
        assert_eq!(
            touched(r#"{"originalMaxAge":1.5,"path":null}"#),
            r#"{"originalMaxAge":1,"expires":"2030-01-02T03:04:05.679Z","httpOnly":true,"path":null}"#
        );
        assert_eq!(
            touched(r#"{"originalMaxAge":-678,"httpOnly":false}"#),
            r#"{"originalMaxAge":-678,"expires":"2030-01-02T03:04:05.000Z","httpOnly":false,"path":"/"}"#
        );
        assert_eq!(
            touched(r#"{"originalMaxAge":-0.5}"#),
            r#"{"originalMaxAge":-1,"expires":"2030-01-02T03:04:05.677Z","httpOnly":true,"path":"/"}"#
        );
        assert_eq!(
            touched(r#"{"originalMaxAge":-1893553445679}"#),
            r#"{"originalMaxAge":-1893553445679,"expires":"1969-12-31T23:59:59.999Z","httpOnly":true,"path":"/"}"#
        );
    }

    #[test]
    fn a_number_that_reaches_no_date_is_no_lifetime() {
        let mut cookie = SessionCookie::new(&express(), false, THEN);
        let mut set = |age: Lifetime| cookie.edit(&edit("maxAge", &age.to_string()), THEN);
        for age in [-MAX_DATE, -0.5, 0.0, MAX_DATE] {
            assert_eq!(set(age), Ok(()), "{age}");
        }
        for age in [Lifetime::NAN, Lifetime::INFINITY, MAX_DATE + 1.0, -MAX_DATE - 1.0] {
            assert!(set(age).is_err(), "{age}");
        }
    }

    #[test]
    fn setting_the_end_sets_the_lifetime() {
        let mut cookie = SessionCookie::new(&express(), false, THEN);
        cookie.edit(&edit("expires", &(THEN + 5000).to_string()), THEN).unwrap();
        cookie.touch(THEN);
        assert_eq!(cookie.lifetime(), Some(5000.0));
        assert_eq!(cookie.expires(), Some(THEN + 5000));
    }

    #[test]
    fn what_express_session_fails_on_is_damage() {
        for text in ["null", "[]", "5", r#"{"originalMaxAge":"1h"}"#, r#"{"originalMaxAge":true}"#]
        {
            assert_eq!(SessionCookie::parse(text), Err(Damaged), "{text}");
        }
    }

    #[test]
    fn a_cookie_with_settings_that_none_can_have_is_read_and_not_sent() {
        for text in [
            r#"{"expires":"soon"}"#,
            r#"{"expires":5}"#,
            r#"{"path":5}"#,
            r#"{"path":"/;HttpOnly"}"#,
            r#"{"path":"/\r\nSet-Cookie: a=b"}"#,
            r#"{"domain":"a b"}"#,
            r#"{"sameSite":"bogus"}"#,
            r#"{"priority":"x"}"#,
        ] {
            let cookie = SessionCookie::parse(text).unwrap();
            assert_eq!(cookie.serialize("n", "v", None), None, "{text}");
        }
    }

    #[test]
    fn dates_are_read_in_other_forms_too() {
        for date in ["2030-01-02T04:04:05.678+01:00", "2030-01-02T03:04:05.678000Z"] {
            let text = format!(r#"{{"expires":"{date}"}}"#);
            let cookie = SessionCookie::parse(&text).unwrap();
            assert_eq!(cookie.expires(), Some(THEN), "{date}");
        }
        for date in ["1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.9995+00:00"] {
            let text = format!(r#"{{"expires":"{date}"}}"#);
            let cookie = SessionCookie::parse(&text).unwrap();
            assert_eq!(cookie.expires(), Some(0));
            let sent = "n=v; Path=/; Expires=Wed, 31 Dec 1969 23:59:59 GMT; HttpOnly";
            assert_eq!(cookie.serialize("n", "v", None).as_deref(), Some(sent));
        }
    }

    proptest! {
        /// Compared with Expires, which is truncated to the second, Max-Age never ends the cookie
        /// earlier, and at most two seconds later.
        #[test]
        fn both_ends_of_a_cookie_are_one(age in 0..1u64 << 40, now in 0..1u64 << 41) {
            let options = CookieOptions { max_age: Some(age as f64), ..express() };
            let header = SessionCookie::new(&options, false, now).serialize("n", "v", Some(now)).unwrap();
            let judge = cookie::Cookie::parse(header).unwrap();
            let expires = judge.expires_datetime().unwrap().unix_timestamp() * 1000;
            let ends = date(now) + judge.max_age().unwrap().whole_seconds() * 1000;
            prop_assert!((0..2000).contains(&(ends - expires)), "{} {}", ends, expires);
        }

        #[test]
        fn what_this_engine_writes_is_read_as_it_was(age: Option<u32>, secure: bool) {
            let options = CookieOptions {
                max_age: age.map(f64::from),
                secure: Some(Secure::Auto),
                same_site: Some(SameSite::Auto),
                domain: Some("example.com".into()),
                ..express()
            };
            let cookie = SessionCookie::new(&options, secure, THEN);
            let text = cookie.to_text();
            prop_assert_eq!(SessionCookie::parse(&text), Ok(cookie));
        }

        #[test]
        fn usual_cookies_are_read_as_all_others(
            age in proptest::option::of(0..1u64 << 40),
            now in 0..1u64 << 41,
            secure: bool,
            auto: bool,
            cut in 0..400usize,
            with in "[\"Z0-9,}]?",
        ) {
            let options = CookieOptions {
                max_age: age.map(|age| age as f64),
                secure: auto.then_some(Secure::Auto),
                same_site: Some(SameSite::Lax),
                ..express()
            };
            let template = CookieTemplate::new(&options, secure);
            let cookie = SessionCookie::new(&options, secure, now);
            let mut text = cookie.to_text();
            prop_assert_eq!(template.read(&text), Some(cookie));
            let length = text.len();
            prop_assert_eq!(template.length(&(text.clone() + ",x")), Some(length));
            let cut = cut % length;
            text.replace_range(cut..=cut, &with);
            if template.length(&text) == Some(text.len()) {
                prop_assert_eq!(SessionCookie::parse(&text).ok(), template.read(&text));
            }
        }

        #[test]
        fn no_lifetime_and_no_clock_panics(age: Option<f64>, at: Option<u64>, now: u64) {
            let options = CookieOptions { max_age: age, expires: at, ..express() };
            let mut cookie = SessionCookie::new(&options, false, now);
            let age_text = age.map_or("null".to_owned(), |age| age.to_string());
            let _ = cookie.edit(&edit("maxAge", &age_text), now);
            cookie.touch(now);
            cookie.serialize("n", "v", Some(now));
            prop_assert!(SessionCookie::parse(&cookie.to_text()).is_ok());
            if let Some(age) = age.filter(|age| age.is_finite()) {
                let text = format!(r#"{{"originalMaxAge":{age}}}"#);
                let mut cookie = SessionCookie::parse(&text).unwrap();
                cookie.touch(now);
                prop_assert!(SessionCookie::parse(&cookie.to_text()).is_ok());
            }
        }

        #[test]
        fn dates_read_back_as_written(at in FIRST..=LAST) {
            let text = format!(r#"{{"expires":"{}"}}"#, iso(at));
            prop_assert_eq!(SessionCookie::parse(&text).unwrap().end(), Some(at));
        }
    }
}
