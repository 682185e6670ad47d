//! HTTP/1 byte by byte, including what a well-behaved client library would never send or would
//! hide.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::server::Confidential;

/// Longer than any deadline of a test, so that a hang fails its test.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection.
pub struct Wire {
    stream: TcpStream,
    /// Bytes received but not used yet.
    ahead: Vec<u8>,
    /// All bytes received.
    record: Option<Arc<Mutex<Vec<u8>>>>,
}

/// The head of a message.
#[derive(Clone, Debug)]
pub struct Head {
    /// The request line or the status line.
    pub first: String,
    /// Names as received.
    pub headers: Vec<(String, String)>,
}

/// A response with its body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All headers and the status line.
    pub head: Head,
    /// The body, dechunked.
    pub body: Vec<u8>,
    /// The trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Wire {
    /// Opens a connection to `HOST:PORT`.
    #[track_caller]
    pub fn open(address: impl ToSocketAddrs) -> Self {
        Self::over(TcpStream::connect(address).expect("somebody listens"))
    }

    /// Opens a connection to `HOST:PORT` from this local address, such as 127.0.0.2.
    #[track_caller]
    pub fn open_from(source: &str, address: &str) -> Self {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
        let source: SocketAddrV4 = format!("{source}:0").parse().expect("it is an address");
        let address: SocketAddrV4 = address.parse().expect("it is an address");
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        // Programs that other tests start meanwhile must not inherit it.
        let connected = socket_with(family, kind, SocketFlags::CLOEXEC, None).and_then(|socket| {
            bind(&socket, &source)?;
            connect(&socket, &address)?;
            Ok(socket)
        });
        Self::over(connected.expect("somebody listens").into())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.set_nodelay(true).expect("it is a TCP connection");
        Self { stream, ahead: Vec::new(), record: None }
    }

    pub(crate) fn recording(mut self, record: Arc<Mutex<Vec<u8>>>) -> Self {
        self.record = Some(record);
        self
    }

    pub(crate) fn second_handle(&self) -> TcpStream {
        self.stream.try_clone().expect("a connection can have two handles")
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the other side takes it");
        self
    }

    /// Sends bytes, if the peer is still connected.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Shuts down the sending direction.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Returns the next bytes; none at the end.
    pub fn some(&mut self) -> Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Returns exactly `count` bytes.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < count {
            self.fill_or_fail()?;
        }
        let rest = self.ahead.split_off(count);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Returns everything until the peer closes. A reset counts as the end, too.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.ahead),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return std::mem::take(&mut self.ahead);
                }
                Err(error) => panic!("the connection stays open: {error}"),
            }
        }
    }

    /// Reads a head; none if the connection ends before one.
    pub fn try_head(&mut self) -> Result<Option<Head>> {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill()? == 0 {
                if self.ahead.is_empty() {
                    return Ok(None);
                }
                let text = String::from_utf8_lossy(&self.ahead);
                return Err(Error::other(format!("half a head: {text}")));
            }
        };
        let head = self.exactly(end)?;
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        Ok(Some(Head { first, headers: fields(lines) }))
    }

    /// Reads the head of a response.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        self.try_head().expect("it can be read").expect("there is an answer")
    }

    /// Reads a response to any method but HEAD. An error means that it is incomplete.
    pub fn try_answer(&mut self) -> Result<Answer> {
        let head = self.try_head()?.ok_or(ErrorKind::UnexpectedEof)?;
        let status = head.status();
        let (body, trailers) = match status {
            100..=199 | 204 | 304 => (Vec::new(), Vec::new()),
            _ => self.body(&head, true)?,
        };
        Ok(Answer { status, head, body, trailers })
    }

    /// Reads a complete response to any method but HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|error| panic!("no whole answer: {error}"))
    }

    /// Reads the body after a head, and its trailers.
    #[allow(clippy::type_complexity)]
    pub(crate) fn body(
        &mut self,
        head: &Head,
        is_response: bool,
    ) -> Result<(Vec<u8>, Vec<(String, String)>)> {
        if head.all("transfer-encoding").last().is_some_and(|te| te.ends_with("chunked")) {
            let mut body = Vec::new();
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                body.extend(chunk);
            }
            let mut lines = Vec::new();
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    return Ok((body, fields(lines.iter().map(String::as_str))));
                }
                lines.push(line);
            }
        }
        if let Some(length) = head.header("content-length") {
            let length = length.parse::<usize>().map_err(Error::other)?;
            return Ok((self.exactly(length)?, Vec::new()));
        }
        if !is_response {
            return Ok((Vec::new(), Vec::new()));
        }
        while self.fill()? > 0 {}
        Ok((std::mem::take(&mut self.ahead), Vec::new()))
    }

    /// Reads the next chunk of a body; an empty one is the last, followed by the trailers.
    pub fn chunk(&mut self) -> Result<Vec<u8>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(Error::other)?;
        let chunk = self.exactly(size)?;
        if size > 0 {
            self.exactly(2)?;
        }
        Ok(chunk)
    }

    fn line(&mut self) -> Result<String> {
        let end = loop {
            if let Some(at) = self.ahead.windows(2).position(|bytes| bytes == b"\r\n") {
                break at;
            }
            self.fill_or_fail()?;
        };
        let line = self.exactly(end + 2)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.ahead.extend(&buffer[..count]);
        if let Some(record) = &self.record {
            record.lock().unwrap().extend(&buffer[..count]);
        }
        Ok(count)
    }

    fn fill_or_fail(&mut self) -> Result<()> {
        match self.fill()? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn fields<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<(String, String)> {
    let pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

impl Head {
    /// Returns the only header with this name; panics if there are more.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came more than once: {self:#?}");
        all.first().copied()
    }

    /// Returns all headers with this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let ours = self.headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        ours.map(|(_, value)| value.as_str()).collect()
    }

    /// Returns all headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns whether any header's name begins with this prefix.
    pub fn has_any(&self, prefix: &str) -> bool {
        let prefix = prefix.to_ascii_lowercase();
        self.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with(&prefix))
    }

    /// Returns a response's status code.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let code = self.first.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not a status line: {}", self.first))
    }
}

impl Answer {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:#?}"))
    }
}

/// A client with a session cookie that sends exactly what a test specifies, on a new connection
/// each time.
#[derive(Clone)]
pub struct Caller {
    address: String,
    confidential: Confidential,
    /// The session cookie's value.
    pub cookie: Option<String>,
}

impl Caller {
    pub(crate) fn new(address: String, confidential: Confidential) -> Self {
        Self { address, confidential, cookie: None }
    }

    /// Sends a GET with these header lines.
    #[track_caller]
    pub fn get(&mut self, target: &str, headers: &[&str]) -> Answer {
        self.ask("GET", target, headers, b"")
    }

    /// Sends a request with these header lines.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut wire = self.begin(method, target, headers, body);
        let answer = wire.answer();
        self.take_in(&answer.head);
        answer
    }

    /// Sends a request and leaves the response to the test.
    #[track_caller]
    pub fn begin(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Wire {
        let mut lines = vec![format!("{method} {target} HTTP/1.1")];
        if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            lines.push(format!("Host: {}", self.address));
        }
        if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("connection:")) {
            lines.push("Connection: close".to_owned());
        }
        if let Some(cookie) = &self.cookie {
            lines.push(format!("Cookie: connect.sid={cookie}"));
        }
        if !body.is_empty() {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        lines.extend(headers.iter().map(|line| (*line).to_owned()));
        let mut wire = Wire::open(&*self.address);
        wire.send(lines.join("\r\n") + "\r\n\r\n").send(body);
        wire
    }

    /// Keeps the session cookie that a response sets.
    pub fn take_in(&mut self, head: &Head) {
        for cookie in head.all("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            let Some(value) = pair.strip_prefix("connect.sid=") else { continue };
            self.cookie = (!value.is_empty()).then(|| value.to_owned());
        }
        if let Some(signed) = self.cookie.as_deref().and_then(|it| it.strip_prefix("s%3A")) {
            let mut confidential = self.confidential.lock().unwrap();
            confidential.extend(signed.split('.').map(str::to_owned));
        }
    }

    /// Returns the identifier in the session cookie.
    #[track_caller]
    pub fn session_id(&self) -> String {
        let signed = self.cookie.as_deref().and_then(|cookie| cookie.strip_prefix("s%3A"));
        let id = signed.and_then(|signed| signed.split('.').next());
        id.expect("there is a session cookie").to_owned()
    }
}
