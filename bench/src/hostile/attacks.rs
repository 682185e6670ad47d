//! The attackers: this program, run as `attack NAME PORT COOKIE`, from a separate address. It
//! prints `ready` once the attack is under way, continues until its input ends, and then prints the
//! results.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::Result;

/// Returns the address of this process's connections. It is not the bystander's, so that limits per
/// address do not protect the bystander. Each process has another one: on an address with thousands
/// of connections that have ended lately, the system needs milliseconds to find a port.
fn address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 66, high, low)
}

/// The pause after a connection could not be opened or was closed.
const PAUSE: Duration = Duration::from_millis(100);

/// The attackers' actions and their results.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    good: AtomicU64,
    unavailable: AtomicU64,
    other: AtomicU64,
    /// Connections that are open, and those that the other side closed or did not accept.
    open: AtomicU64,
    closed: AtomicU64,
}

/// The same, as the bench reads it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) sent: u64,
    pub(super) good: u64,
    pub(super) unavailable: u64,
    pub(super) other: u64,
    pub(super) open: u64,
    pub(super) closed: u64,
}

impl Outcome {
    pub(super) fn answers(&self) -> u64 {
        self.good + self.unavailable + self.other
    }

    pub(super) fn parse(line: &str) -> Result<Self> {
        let numbers = line.split_whitespace().map(str::parse);
        let numbers: Vec<u64> = numbers.collect::<std::result::Result<_, _>>()?;
        let [sent, good, unavailable, other, open, closed] = numbers[..] else {
            return Err(format!("an attacker said {line:?}").into());
        };
        Ok(Self { sent, good, unavailable, other, open, closed })
    }
}

impl Tally {
    fn answered(&self, status: u16) {
        let counter = match status {
            200..300 => &self.good,
            503 => &self.unavailable,
            _ => &self.other,
        };
        add(counter, 1);
    }

    fn line(&self) -> String {
        [&self.sent, &self.good, &self.unavailable, &self.other, &self.open, &self.closed]
            .map(|counter| counter.load(Ordering::Relaxed).to_string())
            .join(" ")
    }
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}

/// What a connection of an attack needs.
#[derive(Clone)]
struct Attacker {
    target: SocketAddr,
    cookie: String,
    tally: Arc<Tally>,
}

pub(crate) fn run(name: &str, port: &str, cookie: &str) -> Result<()> {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    let tally = Arc::new(Tally::default());
    let attacker = Attacker { target, cookie: cookie.to_owned(), tally: tally.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match name {
            "storm" => attacker.many(1000, |it| it.conflicts()),
            "streams" => attacker.many(6, |it| it.streams(128, "/slow")),
            "header" => attacker.many(4, |it| it.large_header()),
            "pings" => attacker.many(500, |it| it.answer_pings()),
            "byte" => attacker.many(4000, |it| it.say(b"P")),
            "senders" => attacker.many(200, |it| it.send_slowly()),
            "readers" => attacker.many(200, |it| it.read_slowly()),
            "hpack" => attacker.many(32, |it| it.compressed(false)),
            "continuation" => attacker.many(400, |it| it.compressed(true)),
            "silent" => attacker.many(1200, |it| it.say(b"")),
            "tokens" => attacker.many(8, |it| it.wrong_tokens()),
            "visits" => attacker.many(4, |it| it.visits()),
            _ => return Err(format!("there is no attack {name}").into()),
        }
        // By then, all connections that will succeed have been made.
        sleep(Duration::from_millis(500)).await;
        println!("ready");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::stdin().lines().count();
            let _ = end.send(());
        });
        let _ = ended.await;
        println!("{}", tally.line());
        Ok(())
    })
}

impl Attacker {
    /// Runs the attack on many connections, and restarts it where it fails or ends.
    fn many<F>(&self, count: usize, attack: fn(Self) -> F)
    where
        F: Future<Output = Result<()>> + 'static + Send,
    {
        for _ in 0..count {
            let attacker = self.clone();
            tokio::spawn(async move {
                loop {
                    let result = attack(attacker.clone()).await.map_err(|error| error.to_string());
                    if result.is_err() {
                        add(&attacker.tally.closed, 1);
                        sleep(PAUSE).await;
                    }
                }
            });
        }
    }

    async fn connect(&self) -> Result<Open> {
        self.connect_by(TcpSocket::new_v4()?).await
    }

    async fn connect_by(&self, socket: TcpSocket) -> Result<Open> {
        socket.bind((address(), 0).into())?;
        let stream = timeout(Duration::from_secs(5), socket.connect(self.target)).await??;
        stream.set_nodelay(true)?;
        add(&self.tally.open, 1);
        Ok(Open { stream, tally: self.tally.clone() })
    }

    /// Changes one session repeatedly.
    async fn conflicts(self) -> Result<()> {
        self.visit("/count", &format!("Cookie: {}\r\n", self.cookie)).await
    }

    async fn visits(self) -> Result<()> {
        self.visit("/", &format!("Cookie: {}\r\n", self.cookie)).await
    }

    async fn wrong_tokens(self) -> Result<()> {
        self.visit("/sessions", "Authorization: Bearer wrong\r\n").await
    }

    async fn visit(&self, path: &str, headers: &str) -> Result<()> {
        let mut open = self.connect().await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        loop {
            open.send(request.as_bytes()).await?;
            self.tally.answered(open.answer().await?);
        }
    }

    /// Sends a header that exceeds all limits.
    async fn large_header(self) -> Result<()> {
        const PIECE: &[u8] = &[b'c'; 64 << 10];
        let mut open = self.connect().await?;
        open.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: ").await?;
        for _ in 0..256 {
            if open.send(PIECE).await.is_err() {
                break;
            }
        }
        let _ = open.send(b"\r\n\r\n").await;
        self.tally.answered(open.answer().await?);
        Ok(())
    }

    /// Requests a page on many streams at a time, like legitimate clients.
    async fn streams(self, count: usize, path: &'static str) -> Result<()> {
        let Open { stream, tally: _ } = &mut self.connect().await?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        let asking = (0..count).map(|_| {
            let (mut requests, tally, target) = (requests.clone(), self.tally.clone(), self.target);
            async move {
                loop {
                    requests = requests.ready().await?;
                    let request = Request::get(format!("http://{target}{path}")).body(())?;
                    match requests.send_request(request, true)?.0.await {
                        Ok(response) => tally.answered(response.status().as_u16()),
                        Err(error) if error.is_reset() => sleep(PAUSE).await,
                        Err(error) => return Err::<(), crate::Error>(error.into()),
                    }
                }
            }
        });
        tokio::select! {
            result = connection => Ok(result?),
            result = all(asking.collect()) => result,
        }
    }

    /// Requests one page and stays connected, replying to pings. Does not reconnect.
    async fn answer_pings(self) -> Result<()> {
        let mut open = self.connect().await?;
        let (requests, connection) = h2::client::handshake(&mut open.stream).await?;
        let asking = async {
            let mut requests = requests.ready().await?;
            let request = Request::get(format!("http://{}/", self.target)).body(())?;
            let response = requests.send_request(request, true)?.0.await?;
            self.tally.answered(response.status().as_u16());
            std::future::pending::<()>().await;
            Ok::<_, crate::Error>(())
        };
        let _ = tokio::select! {
            result = connection => result.map_err(|error| error.to_string()),
            result = asking => result.map_err(|error| error.to_string()),
        };
        drop(open);
        add(&self.tally.closed, 1);
        std::future::pending().await
    }

    /// Sends these bytes, and nothing more.
    async fn say(self, begin: &[u8]) -> Result<()> {
        let mut open = self.connect().await?;
        open.send(begin).await?;
        open.drain().await
    }

    /// Sends one byte of a body per second.
    async fn send_slowly(self) -> Result<()> {
        let mut open = self.connect().await?;
        open.send(b"POST /post HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
            .await?;
        loop {
            tokio::select! {
                status = open.answer() => {
                    self.tally.answered(status?);
                    return Err("answered early".into());
                }
                () = sleep(Duration::from_secs(1)) => {}
            }
            open.send(b"x").await?;
        }
    }

    /// Reads one byte of a response per second.
    async fn read_slowly(self) -> Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut open = self.connect_by(socket).await?;
        open.send(b"GET /huge HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await?;
        loop {
            open.stream.read_u8().await?;
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Sends header blocks of a few bytes that decode to almost the maximum size of a header: a
    /// large entry of the dynamic table, repeated. `unfinished`: they never end.
    async fn compressed(self, unfinished: bool) -> Result<()> {
        const STREAMS: u32 = 128;
        const STAY: Duration = Duration::from_secs(3);
        /// About 4 KiB each: below the maximum header size of 128 KiB.
        const REFERENCES: usize = 29;
        const INDEXED: u8 = 0x80 | 62;

        let mut open = self.connect().await?;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut bytes, 4, 0, 0, &[]);
        frame(&mut bytes, 4, 1, 0, &[]);
        for number in 0..if unfinished { 1 } else { STREAMS } {
            // GET, http, and a literal path and authority that are not added to the table.
            let mut block = vec![0x82, 0x86, 0x04, 5];
            block.extend(b"/slow");
            block.extend([0x01, 9]);
            block.extend(b"127.0.0.1");
            if number == 0 {
                // A literal that is added to the table: 4,000 bytes, with a length of three bytes.
                block.extend([0x40, 3]);
                block.extend(b"x-a");
                block.extend([0x7f, 0xa1, 0x1e]);
                block.extend([b'v'; 4000]);
            }
            block.extend([INDEXED; REFERENCES]);
            let end_headers = if unfinished { 0 } else { 4 };
            frame(&mut bytes, 1, end_headers | 1, 2 * number + 1, &block);
            if unfinished {
                frame(&mut bytes, 9, 0, 2 * number + 1, &[INDEXED]);
            }
        }
        open.send(&bytes).await?;
        match timeout(STAY, open.drain()).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }
}

/// Runs all concurrently until one fails.
async fn all<F: Future<Output = Result<()>>>(futures: Vec<F>) -> Result<()> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(result) = future.as_mut().poll(context) {
                return std::task::Poll::Ready(result);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // A payload has at most 16 KiB, so three bytes suffice for its length.
    bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// A connection that counts as open until it is dropped.
struct Open {
    stream: TcpStream,
    tally: Arc<Tally>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tally.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Open {
    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        add(&self.tally.sent, bytes.len());
        Ok(())
    }

    /// Reads until the other side closes the connection.
    async fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.stream.read(&mut buffer).await? > 0 {}
        Err("closed".into())
    }

    /// Reads a response; returns its status.
    async fn answer(&mut self) -> Result<u16> {
        let began = Instant::now();
        let mut bytes = Vec::new();
        loop {
            if self.stream.read_buf(&mut bytes).await? == 0 {
                return Err(format!("closed after {:?}", began.elapsed()).into());
            }
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            let mut lines = head.lines();
            let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
            let length = lines.find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if bytes.len() >= head.len() + 4 + length.unwrap_or(0_usize) {
                return Ok(status.ok_or("an answer without a status")?);
            }
        }
    }
}
