//! The `cookie` member of a stored session: nine settings in a fixed order, as
//! express-session's `Cookie.prototype.toJSON` writes them, undefined ones left out.

use std::borrow::Cow;

use time::format_description::{BorrowedFormatItem, well_known::Rfc3339};
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

use crate::cookie_header::{Attributes, is_domain, is_path};
use crate::document::{Damaged, Members};
use crate::wit::{Cookie, CookieOptions, Millis, Priority, SameSite, Secure};

/// The settings' names in the order in which they are written.
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

/// The settings of one session's cookie, each as the JSON text that it came as: one
/// that nobody changes is written back as it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionCookie<'a>([Option<Cow<'a, str>>; 9]);

impl<'a> SessionCookie<'a> {
    /// Read the raw `cookie` member. A setting that express-session could not serialise
    /// is damage.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Damaged> {
        let cookie = match Self::parse_plain(text) {
            Some(cookie) => cookie,
            None => Self::parse_any(text)?,
        };
        cookie.check().ok_or(Damaged)?;
        Ok(cookie)
    }

    /// Any JSON object.
    fn parse_any(text: &'a str) -> Result<Self, Damaged> {
        let mut cookie = Self([const { None }; 9]);
        for (name, value) in Members::parse(text)?.iter() {
            cookie.put(&name, value);
        }
        Ok(cookie)
    }

    /// The same for an object as this engine and Node write them: without white space,
    /// escapes, and values other than text, whole numbers and words. Reading a cookie is
    /// the costliest part of a request, and nearly all are of this form. None: not this one.
    fn parse_plain(text: &'a str) -> Option<Self> {
        let mut cookie = Self([const { None }; 9]);
        let mut rest = text.strip_prefix('{')?;
        loop {
            let (name, after) = split_text(rest.strip_prefix('"')?)?;
            let value = after.strip_prefix(':')?;
            let length = match value.as_bytes().first()? {
                b'"' => split_text(&value[1..])?.0.len() + 2,
                _ => value.bytes().position(|b| matches!(b, b',' | b'}'))?,
            };
            let (value, after) = value.split_at(length);
            let is_whole_number = value.len() <= 15
                && value.bytes().all(|b| b.is_ascii_digit())
                && (value.len() == 1 || !value.starts_with('0'));
            let is_word = matches!(value, "null" | "true" | "false");
            if !(value.starts_with('"') || is_word || (is_whole_number && !value.is_empty())) {
                return None;
            }
            cookie.put(name, value);
            match after {
                "}" => return Some(cookie),
                _ => rest = after.strip_prefix(',')?,
            }
        }
    }

    /// Settings that a cookie does not have are dropped, as express-session drops them.
    fn put(&mut self, name: &str, value: &'a str) {
        if let Some(at) = KEYS.iter().position(|key| *key == name) {
            self.0[at] = Some(Cow::Borrowed(value));
        }
    }

    /// The cookie of a new session; `secure`: the request that creates it is.
    pub(crate) fn new(options: &CookieOptions, secure: bool, now: Millis) -> Self {
        let max_age = options.max_age.or(options.expires.map(|at| at.saturating_sub(now)));
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

    /// Begin the lifetime anew: `resetMaxAge` of express-session. A cookie without a
    /// lifetime ends with the browser.
    pub(crate) fn touch(&mut self, now: Millis) {
        let expires = self.original_max_age().map(|age| now.saturating_add(age));
        self.0[EXPIRES] = Some(match expires {
            None => Cow::Borrowed("null"),
            Some(at) => Cow::Owned(format!("\"{}\"", iso(at))),
        });
    }

    /// Take over what the application changed in `new`, compared to this cookie, with
    /// the effect of Cookie.prototype's setters: setting `expires` sets the lifetime too.
    pub(crate) fn change(&mut self, new: &Cookie, now: Millis) {
        let old = self.view();
        if new.original_max_age != old.original_max_age {
            self.0[ORIGINAL_MAX_AGE] = Some(number(new.original_max_age));
        } else if new.expires != old.expires {
            self.0[ORIGINAL_MAX_AGE] = Some(number(new.expires.map(|at| at.saturating_sub(now))));
        }
        if new.partitioned != old.partitioned {
            self.0[PARTITIONED] = Some(boolean(new.partitioned));
        }
        if new.priority != old.priority {
            self.0[PRIORITY] = new.priority.map(|p| string(priority_name(p)));
        }
        if new.secure != old.secure {
            self.0[SECURE] = Some(boolean(new.secure));
        }
        if new.http_only != old.http_only {
            self.0[HTTP_ONLY] = Some(boolean(new.http_only));
        }
        if new.domain != old.domain {
            self.0[DOMAIN] = new.domain.as_deref().map(string);
        }
        if new.path != old.path {
            self.0[PATH] = Some(string(&new.path));
        }
        if new.same_site != old.same_site {
            self.0[SAME_SITE] = new.same_site.map(|s| string(same_site_name(s)));
        }
    }

    /// Whether every setting can be written into a Set-Cookie.
    pub(crate) fn check(&self) -> Option<()> {
        let text_or_falsy = |at: usize| !self.truthy(at) || self.text(at).is_some();
        let ok = (self.is_null(ORIGINAL_MAX_AGE) || self.original_max_age().is_some())
            && (self.is_null(EXPIRES) || self.expires().is_some())
            && (!self.truthy(PRIORITY) || self.priority().is_some())
            && (!self.truthy(SAME_SITE) || self.same_site().is_some())
            && text_or_falsy(DOMAIN)
            && text_or_falsy(PATH)
            && self.text(DOMAIN).is_none_or(|domain| domain.is_empty() || is_domain(&domain))
            && self.text(PATH).is_none_or(|path| is_path(&path));
        ok.then_some(())
    }

    /// As JSON text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::with_capacity(120);
        text.push('{');
        for (key, value) in KEYS.iter().zip(&self.0) {
            let Some(value) = value else { continue };
            if text.len() > 1 {
                text.push(',');
            }
            text.push('"');
            text.push_str(key);
            text.push_str("\":");
            text.push_str(value);
        }
        text.push('}');
        text
    }

    /// As the application sees it.
    pub(crate) fn view(&self) -> Cookie {
        Cookie {
            original_max_age: self.original_max_age(),
            expires: self.expires(),
            path: self.text(PATH).unwrap_or_default().into_owned(),
            domain: self.text(DOMAIN).map(Cow::into_owned),
            http_only: self.truthy(HTTP_ONLY),
            secure: self.secure(),
            same_site: self.same_site(),
            partitioned: self.truthy(PARTITIONED),
            priority: self.priority(),
        }
    }

    /// `Expires` etc. of the Set-Cookie that keeps the session.
    pub(crate) fn serialize(&self, name: &str, value: &str) -> String {
        let expires = self.expires().map(|at| format_date(at, IMF));
        self.write(name, value, expires)
    }

    /// The Set-Cookie that makes the browser forget the session.
    pub(crate) fn serialize_removal(&self, name: &str) -> String {
        self.write(name, "", Some(format_date(0, IMF)))
    }

    fn write(&self, name: &str, value: &str, expires: Option<String>) -> String {
        let domain = self.text(DOMAIN).filter(|text| !text.is_empty());
        let path = self.text(PATH).filter(|text| !text.is_empty());
        crate::cookie_header::serialize(
            name,
            value,
            &Attributes {
                domain: domain.as_deref(),
                path: path.as_deref(),
                expires,
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
        )
    }

    /// The lifetime in milliseconds; a negative one is over at once.
    pub(crate) fn original_max_age(&self) -> Option<Millis> {
        let text = self.0[ORIGINAL_MAX_AGE].as_deref()?;
        // `as` saturates: no number panics. JavaScript's numbers may have a fraction.
        text.parse::<Millis>().ok().or_else(|| text.parse::<f64>().ok().map(|n| n as Millis))
    }

    /// When the cookie ends.
    pub(crate) fn expires(&self) -> Option<Millis> {
        let date = OffsetDateTime::parse(&self.text(EXPIRES)?, &Rfc3339).ok()?;
        Some(Millis::try_from(date.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
    }

    /// The `Secure` attribute.
    pub(crate) fn secure(&self) -> bool {
        self.truthy(SECURE)
    }

    fn priority(&self) -> Option<Priority> {
        let text = self.text(PRIORITY)?;
        let all = [Priority::Low, Priority::Medium, Priority::High];
        all.into_iter().find(|priority| text.eq_ignore_ascii_case(priority_name(*priority)))
    }

    fn same_site(&self) -> Option<SameSite> {
        if self.0[SAME_SITE].as_deref() == Some("true") {
            return Some(SameSite::Strict);
        }
        let text = self.text(SAME_SITE)?;
        let all = [SameSite::Strict, SameSite::Lax, SameSite::None];
        all.into_iter().find(|same_site| text.eq_ignore_ascii_case(same_site_name(*same_site)))
    }

    fn is_null(&self, at: usize) -> bool {
        matches!(self.0[at].as_deref(), None | Some("null"))
    }

    /// JavaScript's truth of a JSON value.
    fn truthy(&self, at: usize) -> bool {
        !matches!(self.0[at].as_deref(), None | Some("null" | "false" | "0" | "-0" | "\"\""))
    }

    /// The value where it is a string.
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

/// A text without escapes, up to its closing quote, and what follows that.
fn split_text(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..0x20))?;
    let (inner, after) = text.split_at(end);
    Some((inner, after.strip_prefix('"')?))
}

fn number(value: Option<Millis>) -> Cow<'static, str> {
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

/// `auto` is for options; a session's cookie has it resolved.
fn same_site_name(same_site: SameSite) -> &'static str {
    match same_site {
        SameSite::Strict => "strict",
        SameSite::Lax | SameSite::Auto => "lax",
        SameSite::None => "none",
    }
}

/// `Date.prototype.toISOString`.
const ISO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// IMF-fixdate (RFC 9110, section 5.6.7), `Date.prototype.toUTCString`.
const IMF: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The last millisecond that both formats can write.
const END_OF_9999: Millis = 253_402_300_799_999;

fn iso(at: Millis) -> String {
    format_date(at, ISO)
}

fn format_date(at: Millis, format: &[BorrowedFormatItem<'_>]) -> String {
    let since = Duration::milliseconds(at.min(END_OF_9999) as i64);
    let date = OffsetDateTime::UNIX_EPOCH + since;
    date.format(&format).expect("every date until the end of 9999 has these forms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::defaults;
    use crate::wit::Preset;
    use proptest::prelude::*;

    const THEN: Millis = 1_893_553_445_678; // 2030-01-02T03:04:05.678Z

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
        let view = |secure| SessionCookie::new(&auto, secure, 0).view();
        assert_eq!((view(true).secure, view(true).same_site), (true, Some(SameSite::None)));
        assert_eq!((view(false).secure, view(false).same_site), (false, Some(SameSite::Lax)));
    }

    #[test]
    fn what_nobody_changes_is_written_back_as_it_was() {
        let text = r#"{"originalMaxAge":6e4,"expires":null,"secure":"auto","httpOnly":1,"path":"\/","sameSite":true}"#;
        let cookie = SessionCookie::parse(text).unwrap();
        assert_eq!(cookie.to_text(), text);
        assert_eq!(cookie.original_max_age(), Some(60_000));
        let header = cookie.serialize("n", "v");
        assert_eq!(header, "n=v; Path=/; HttpOnly; Secure; SameSite=Strict");
    }

    #[test]
    fn unknown_settings_are_dropped_and_the_order_is_restored() {
        let cookie = SessionCookie::parse(r#"{"path":"/","foo":1,"originalMaxAge":null}"#).unwrap();
        assert_eq!(cookie.to_text(), r#"{"originalMaxAge":null,"path":"/"}"#);
    }

    #[test]
    fn a_touched_cookie_lives_its_lifetime_anew() {
        let mut cookie =
            SessionCookie::parse(r#"{"originalMaxAge":1000,"expires":"2001-01-01T00:00:00.000Z"}"#)
                .unwrap();
        cookie.touch(THEN);
        assert_eq!(cookie.expires(), Some(THEN + 1000));
        assert_eq!(cookie.serialize("n", "v"), "n=v; Expires=Wed, 02 Jan 2030 03:04:06 GMT");
    }

    #[test]
    fn setting_the_end_sets_the_lifetime() {
        let mut cookie = SessionCookie::new(&express(), false, THEN);
        let mut view = cookie.view();
        view.expires = Some(THEN + 5000);
        cookie.change(&view, THEN);
        cookie.touch(THEN);
        assert_eq!(cookie.original_max_age(), Some(5000));
        assert_eq!(cookie.expires(), Some(THEN + 5000));
    }

    #[test]
    fn settings_that_no_cookie_can_have_are_damage() {
        for text in [
            "null",
            "[]",
            r#"{"expires":"soon"}"#,
            r#"{"expires":5}"#,
            r#"{"originalMaxAge":"1h"}"#,
            r#"{"path":5}"#,
            r#"{"path":"/;HttpOnly"}"#,
            r#"{"path":"/\r\nSet-Cookie: a=b"}"#,
            r#"{"domain":"a b"}"#,
            r#"{"sameSite":"bogus"}"#,
            r#"{"priority":"x"}"#,
        ] {
            assert_eq!(SessionCookie::parse(text), Err(Damaged), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_of_reading_agrees_with_the_general_one(
            text in "(\\{|)((\"(path|expires|secure|originalMaxAge|x)\":|\"pa\\\\)(null|true|0|7|07|-1|1e3|\"/\"|\"\\\\u0041\"|\"é\"|\\{\\}|)[, ]?){0,4}\\}?x?",
        ) {
            if let Some(plain) = SessionCookie::parse_plain(&text) {
                prop_assert_eq!(Ok(plain), SessionCookie::parse_any(&text));
            }
        }

        #[test]
        fn what_this_engine_writes_is_read_the_quick_way(age: Option<u32>, secure: bool) {
            let options = CookieOptions {
                max_age: age.map(u64::from),
                secure: Some(Secure::Auto),
                same_site: Some(SameSite::Auto),
                domain: Some("example.com".into()),
                ..express()
            };
            let cookie = SessionCookie::new(&options, secure, THEN);
            let text = cookie.to_text();
            prop_assert_eq!(SessionCookie::parse_plain(&text), Some(cookie));
        }

        #[test]
        fn no_lifetime_and_no_clock_panics(age: Option<u64>, now: u64) {
            let mut cookie = SessionCookie::new(&CookieOptions { max_age: age, ..express() }, false, now);
            cookie.touch(now);
            cookie.serialize("n", "v");
            prop_assert!(SessionCookie::parse(&cookie.to_text()).is_ok());
        }

        #[test]
        fn dates_read_back_as_written(at in 0..END_OF_9999) {
            let text = format!(r#"{{"expires":"{}"}}"#, iso(at));
            prop_assert_eq!(SessionCookie::parse(&text).unwrap().expires(), Some(at));
        }
    }
}
