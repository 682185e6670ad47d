//! An application behind the proxy: it records all bytes that it receives, and answers as a test
//! requires, with valid HTTP or not.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::wire::{Head, Wire};

/// A running application, until it is dropped.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    asked: Mutex<Vec<Asked>>,
    /// The bytes received on each connection.
    bytes: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    is_over: AtomicBool,
}

/// A request as received.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The target.
    pub target: String,
    /// All headers.
    pub head: Head,
    /// The body, as far as the application has read it.
    pub body: Vec<u8>,
    /// The trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// A request that awaits its response.
pub struct Call {
    /// The request.
    pub asked: Asked,
    /// The request's connection.
    pub wire: Wire,
    at: usize,
    state: Arc<State>,
    is_last: bool,
}

/// A response with a length.
pub struct Reply {
    status: u16,
    headers: Vec<u8>,
    body: Vec<u8>,
}

impl Upstream {
    /// Starts an application that reads whole requests and sends whole responses.
    #[track_caller]
    pub fn app(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::raw(move |call| {
            if call.read_body().is_ok() {
                let reply = answer(&call.asked);
                call.reply(reply);
            }
        })
    }

    /// Starts an application that sends what the request specifies: each `Say` header is a header
    /// of the response, `Say-Status` its status, and the body is the session in the request.
    #[track_caller]
    pub fn parrot() -> Self {
        Self::app(Asked::parrot)
    }

    /// Starts an application that handles the connection itself after the head of each request.
    #[track_caller]
    pub fn raw(talk: impl Fn(&mut Call) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", talk)
    }

    /// Starts such an application at a given address.
    #[track_caller]
    pub fn at(address: &str, talk: impl Fn(&mut Call) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<State>::default();
        let (for_thread, talk) = (state.clone(), Arc::new(talk));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.is_over.load(Relaxed) {
                    return;
                }
                let (state, talk) = (for_thread.clone(), talk.clone());
                thread::spawn(move || host(stream, &state, &*talk));
            }
        });
        Self { address, state }
    }

    /// Returns whether every connection has been closed.
    pub fn is_left(&self) -> bool {
        self.state.connections.load(Relaxed) == 0
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns all requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Returns the latest request.
    #[track_caller]
    pub fn last(&self) -> Asked {
        self.asked().pop().expect("the application was asked")
    }

    /// Returns the latest request for this target.
    #[track_caller]
    pub fn last_of(&self, target: &str) -> Asked {
        let mut asked = self.asked().into_iter();
        asked.rfind(|it| it.target == target).expect("the application was asked for it")
    }

    /// Returns the number of requests so far.
    pub fn count(&self) -> usize {
        self.state.asked.lock().unwrap().len()
    }

    /// Returns all received data so far, by connection.
    pub fn received(&self) -> Vec<String> {
        let all = self.state.bytes.lock().unwrap();
        all.iter().map(|one| String::from_utf8_lossy(&one.lock().unwrap()).into_owned()).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.is_over.store(true, Relaxed);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread, so that it exits and frees the address.
        let _ = TcpStream::connect(self.address);
    }
}

fn host(stream: TcpStream, state: &Arc<State>, talk: &dyn Fn(&mut Call)) {
    let record = Arc::<Mutex<Vec<u8>>>::default();
    state.connections.fetch_add(1, Relaxed);
    state.bytes.lock().unwrap().push(record.clone());
    let mut wire = Wire::over(stream).recording(record);
    state.open.lock().unwrap().push(wire.second_handle());
    while let Ok(Some(head)) = wire.try_head() {
        let mut words = head.first.split(' ').map(str::to_owned);
        let (method, target) = (words.next(), words.next());
        let asked = Asked {
            method: method.unwrap_or_default(),
            target: target.unwrap_or_default(),
            head,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        let at = {
            let mut all = state.asked.lock().unwrap();
            all.push(asked.clone());
            all.len() - 1
        };
        let mut call = Call { asked, wire, at, state: state.clone(), is_last: false };
        talk(&mut call);
        wire = call.wire;
        if call.is_last {
            break;
        }
    }
    wire.close();
    state.connections.fetch_sub(1, Relaxed);
}

impl Call {
    /// Reads the body of the request.
    pub fn read_body(&mut self) -> std::io::Result<()> {
        let (body, trailers) = self.wire.body(&self.asked.head, false)?;
        (self.asked.body, self.asked.trailers) = (body, trailers);
        self.state.asked.lock().unwrap()[self.at] = self.asked.clone();
        Ok(())
    }

    /// Sends bytes; a closed connection is not an error.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.try_send(bytes);
    }

    /// Sends a response.
    pub fn reply(&mut self, reply: Reply) {
        self.say(reply.into_bytes());
    }

    /// Closes the connection after this request.
    pub fn hang_up(&mut self) {
        self.is_last = true;
    }
}

impl Asked {
    /// Returns the only header with this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Returns the session that the application received.
    #[track_caller]
    pub fn session(&self) -> Value {
        let text = self.header("edge-session").expect("the application is told of a session");
        serde_json::from_str(text).expect("it is JSON")
    }

    /// Returns the response of [`Upstream::parrot`].
    pub fn parrot(&self) -> Reply {
        let status = self.header("say-status").and_then(|status| status.parse().ok());
        let mut reply = Reply::new(status.unwrap_or(200));
        for line in self.head.all("say") {
            reply = reply.line(line);
        }
        let told = self.head.all("edge-session").concat();
        reply.body(told)
    }
}

impl Reply {
    /// Creates a response with this status.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Creates a response with status 200 and this text.
    pub fn text(text: &str) -> Self {
        Self::new(200).line("Content-Type: text/html; charset=utf-8").body(text)
    }

    /// Adds a header line.
    pub fn line(mut self, line: impl AsRef<[u8]>) -> Self {
        self.headers.extend(line.as_ref());
        self.headers.extend(b"\r\n");
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    fn into_bytes(self) -> Vec<u8> {
        let Self { status, headers, body } = self;
        let length = match status {
            204 | 304 => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let first = format!("HTTP/1.1 {status} Whatever\r\n{length}");
        [first.as_bytes(), &headers, b"\r\n", &body].concat()
    }
}
