//! A client with any number of connections, as cheap as the application.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::app::VIEW_COUNT;
use crate::Result;

/// A connection that is kept for further requests.
pub(crate) struct Connection(BufReader<TcpStream>);

/// A response with the status 200.
#[derive(Default)]
pub(crate) struct Answer {
    /// The session's cookie in the form of a Cookie header.
    pub(crate) cookie: Option<String>,
    /// The visitor's number of visits, if counted.
    pub(crate) count: Option<u64>,
    pub(crate) body: String,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        Self::patient(port, Duration::from_secs(30))
    }

    /// Connects with `patience` as the timeout for connecting and for each read.
    pub(crate) fn patient(port: u16, patience: Duration) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        // Ten thousand of these are open at a time.
        Ok(Self(BufReader::with_capacity(1024, stream)))
    }

    pub(crate) fn get(&mut self, path: &str, cookie: Option<&str>) -> Result<Answer> {
        let cookie = cookie.map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{cookie}\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;

        let mut answer = Answer::default();
        let mut length = None;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{path} was answered with {line:?}").into());
        }
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or("not a header")?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse()?),
                "set-cookie" => answer.cookie = value.split(';').next().map(str::to_owned),
                VIEW_COUNT => answer.count = Some(value.parse()?),
                _ => {}
            }
        }
        let mut body = vec![0; length.ok_or("an answer without a length")?];
        self.0.read_exact(&mut body)?;
        answer.body = String::from_utf8(body)?;
        Ok(answer)
    }
}

/// Lets `count` visitors visit once each, some concurrently. Returns the results of `visit`.
pub(crate) fn each<T: Send>(
    port: u16,
    count: usize,
    visit: impl Fn(&mut Connection, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    const AT_A_TIME: usize = 32;
    let next = AtomicUsize::new(0);
    let run = || -> Result<Vec<_>> {
        let mut connection = Connection::open(port)?;
        let mut results = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(results);
            }
            results.push((number, visit(&mut connection, number)?));
        }
    };
    // Errors of this crate cannot be sent between threads.
    let run = || run().map_err(|error| error.to_string());
    let mut all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(run)).collect();
        let mut all = Vec::with_capacity(count);
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a visitor panicked")??);
        }
        Ok::<_, crate::Error>(all)
    })?;
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}
