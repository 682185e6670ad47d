//! A visitor: a small HTTP client that keeps cookies unparsed, so that tests can inspect them.

use std::collections::BTreeMap;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, RequestBuilder};

use crate::server::Confidential;

/// Longer than any deadline of the server, so that a hanging request fails its test.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client with a cookie jar. A clone has a copy of the jar, which is separate from then on.
#[derive(Clone)]
pub struct Visitor {
    agent: Agent,
    url: String,
    cookies: BTreeMap<String, String>,
    csrf: Option<String>,
    confidential: Confidential,
}

impl Visitor {
    pub(crate) fn new(url: String, confidential: Confidential) -> Self {
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        Self { agent, url, cookies: BTreeMap::new(), csrf: None, confidential }
    }

    /// Directs the visitor to another server, with the same cookies: cookies ignore ports.
    pub fn moved_to(mut self, url: String) -> Self {
        self.url = url;
        self
    }

    /// Sends a GET, without following redirects.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Page {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Sends a GET to a server that may be gone.
    pub fn try_get(&mut self, path: &str) -> Result<Page, ureq::Error> {
        let response = self.with_cookies(self.agent.get(format!("{}{path}", self.url))).call()?;
        self.take_in(response)
    }

    /// Posts a form, with the CSRF token of the last form shown.
    #[track_caller]
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.csrf.clone().expect("a page with a form was shown");
        let fields = [fields, &[("csrf", &*csrf)]].concat();
        self.post_without_csrf(path, &fields)
    }

    /// Posts a form exactly as given.
    #[track_caller]
    pub fn post_without_csrf(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.with_cookies(self.agent.post(format!("{}{path}", self.url)));
        let response = request.send_form(fields.iter().copied());
        response
            .and_then(|response| self.take_in(response))
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Loads the login form and submits it.
    #[track_caller]
    pub fn log_in(&mut self, username: &str) -> Page {
        self.get("/login");
        self.post("/login", &[("username", username)])
    }

    /// Returns the session cookie as the server sent it.
    #[track_caller]
    pub fn cookie(&self) -> &str {
        self.cookies.get("connect.sid").expect("the visitor has a session cookie")
    }

    /// Returns whether there is a session cookie.
    pub fn has_cookie(&self) -> bool {
        self.cookies.contains_key("connect.sid")
    }

    /// Puts a session cookie into the jar.
    pub fn set_cookie(&mut self, value: &str) {
        self.cookies.insert("connect.sid".into(), value.into());
    }

    /// Returns the identifier in the session cookie `s%3AID.SIGNATURE`.
    #[track_caller]
    pub fn session_id(&self) -> String {
        identifier_and_signature(self.cookie()).0.to_owned()
    }

    /// Returns all cookies as the value of a request header.
    pub fn cookie_header(&self) -> String {
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    fn with_cookies<Body>(&self, request: RequestBuilder<Body>) -> RequestBuilder<Body> {
        if self.cookies.is_empty() {
            request
        } else {
            request.header("cookie", self.cookie_header())
        }
    }

    fn take_in(&mut self, mut response: Response<ureq::Body>) -> Result<Page, ureq::Error> {
        let page = Page {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string()?,
        };
        for cookie in page.set_cookies() {
            let pair = cookie.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a Set-Cookie starts with name=value");
            if cookie.contains("Expires=Thu, 01 Jan 1970 00:00:00 GMT") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
        self.csrf = page.hidden("csrf").map(String::from).or(self.csrf.take());
        self.note_confidential();
        Ok(page)
    }

    fn note_confidential(&self) {
        if self.has_cookie() {
            let (id, signature) = identifier_and_signature(self.cookie());
            self.confidential.lock().unwrap().extend([id.to_owned(), signature.to_owned()]);
        }
    }
}

#[track_caller]
fn identifier_and_signature(cookie: &str) -> (&str, &str) {
    cookie
        .strip_prefix("s%3A")
        .and_then(|signed| signed.rsplit_once('.'))
        .unwrap_or_else(|| panic!("not the session cookie's format: {cookie}"))
}

/// A response.
#[derive(Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub body: String,
}

impl Page {
    /// Returns the number in "you have visited this page N times".
    #[track_caller]
    pub fn count(&self) -> u64 {
        assert_eq!(self.status, 200, "not a counter page: {self:#?}");
        count_in(&self.body)
    }

    /// Returns the `Set-Cookie` headers, unparsed.
    pub fn set_cookies(&self) -> Vec<&str> {
        let all = self.headers.get_all("set-cookie").iter();
        all.map(|value| value.to_str().expect("our own cookies are ASCII")).collect()
    }

    /// Returns the target of a redirect.
    pub fn location(&self) -> Option<&str> {
        self.headers.get("location").and_then(|value| value.to_str().ok())
    }

    /// Returns the value of a hidden form field.
    fn hidden(&self, name: &str) -> Option<&str> {
        let at = self.body.find(&format!("name=\"{name}\""))?;
        let tag = &self.body[self.body[..at].rfind('<')?..];
        let tag = &tag[..tag.find('>')?];
        tag.split_once("value=\"")?.1.split('"').next()
    }
}

/// Returns the number in "you have visited this page N times".
#[track_caller]
pub fn count_in(text: &str) -> u64 {
    text.split_once("you have visited this page ")
        .and_then(|(_, rest)| rest.split_once(" times"))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or_else(|| panic!("no count in: {text}"))
}
