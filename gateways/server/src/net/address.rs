//! Addresses to listen on: a port or a unix socket.

mod deferred;

use std::fmt::{Display, Formatter};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use listenfd::ListenFd;
use tokio::io::Join;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, tcp, unix};
use tokio_util::either::Either;

/// How many connections may wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 4096;

/// The maximum length of a socket's path, in bytes (`sun_path` on Linux).
pub(crate) const LONGEST: usize = 107;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Address {
    Port(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Self {
        Self::Port((Ipv4Addr::LOCALHOST, 8080).into())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let port =
            |address: Ipv4Addr, port: &str| Some((address, port.parse::<u16>().ok()?).into());
        let address = match text.rsplit_once(':') {
            Some(("", text)) => port(Ipv4Addr::UNSPECIFIED, text),
            Some(("localhost", text)) => port(Ipv4Addr::LOCALHOST, text),
            _ => text.parse().ok(),
        };
        let expected = "is neither an address with a port, such as 127.0.0.1:8080 or :8080, nor a \
                        socket, such as unix:/run/edge-session/http.sock";
        address.map(Self::Port).ok_or_else(|| expected.to_owned())
    }
}

impl Address {
    /// Returns the known problem with a socket's path, if any.
    pub(crate) fn why_not(&self) -> Option<String> {
        let Self::Unix(path) = self else { return None };
        let is_there = std::fs::metadata(path);
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
        if path.as_os_str().len() > LONGEST {
            Some(format!("the path of a socket has at most {LONGEST} bytes"))
        } else if let Some(directory) = directory.filter(|it| !it.is_dir()) {
            Some(format!("the directory {} does not exist", directory.display()))
        } else if is_there.is_ok_and(|it| !it.file_type().is_socket()) {
            Some("the file is not a socket, and is left unchanged".to_owned())
        } else {
            None
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound address. Binding comes early, so that an address in use is reported at once.
pub(crate) enum Bound {
    /// Already listening: handed over by socket activation (systemd), or a unix socket.
    Listening(Listener),
    /// Bound only: clients are refused until it listens.
    Port(TcpSocket),
}

impl Bound {
    /// Binds the address, unless a socket was handed over.
    pub(crate) fn at(address: Option<Address>) -> anyhow::Result<Self> {
        let unusable = "the socket passed by socket activation cannot be used";
        if let Some(listener) = handed_over().context(unusable)? {
            return Ok(Self::Listening(listener));
        }
        let address = address.unwrap_or_default();
        Self::new(&address).map_err(|error| {
            anyhow!(
                "cannot listen on {address}: {}",
                address.why_not().unwrap_or(error.to_string())
            )
        })
    }

    pub(crate) fn new(address: &Address) -> io::Result<Self> {
        match address {
            Address::Port(address) => bind(*address).map(Self::Port),
            Address::Unix(path) => {
                remove_left_over(path);
                UnixListener::bind(path).map(Listener::Unix).map(Self::Listening)
            }
        }
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Port(socket) => Address::Port(socket.local_addr()?),
            Self::Listening(Listener::Tcp(listener)) => Address::Port(listener.local_addr()?),
            Self::Listening(Listener::Unix(listener)) => {
                let address = listener.local_addr()?;
                Address::Unix(address.as_pathname().unwrap_or("(without a name)".as_ref()).into())
            }
        })
    }

    pub(crate) fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Listening(listener) => Ok(listener),
            // The backlog leaves room for bursts; beyond it the system resets connections.
            Self::Port(socket) => socket.listen(BACKLOG).map(Listener::Tcp),
        }
    }
}

fn handed_over() -> io::Result<Option<Listener>> {
    let mut handed = ListenFd::from_env();
    match handed.take_tcp_listener(0) {
        Ok(None) => Ok(None),
        Ok(Some(listener)) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener).map(Listener::Tcp).map(Some)
        }
        Err(not_tcp) => {
            let listener = handed.take_unix_listener(0)?.ok_or(not_tcp)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(Listener::Unix).map(Some)
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Lets a new process listen while connections of the previous one linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Removes the socket file that an ended process left behind. A socket in use or another kind of
/// file stays, and binding fails.
fn remove_left_over(path: &std::path::Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if !is_socket {
        return;
    }
    if is_left_over(path).unwrap_or(false) {
        // If it cannot be removed, binding reports the error.
        let _ = std::fs::remove_file(path);
    }
}

/// Returns whether no process listens on the socket. A busy process counts as listening; the check
/// does not wait for it.
fn is_left_over(path: &std::path::Path) -> rustix::io::Result<bool> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?) == Err(rustix::io::Errno::CONNREFUSED))
}

/// Accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection's stream.
pub(crate) type Stream = Either<TcpStream, UnixStream>;

/// The two directions of a connection.
pub(crate) type Halves = Join<
    Either<tcp::OwnedReadHalf, unix::OwnedReadHalf>,
    Either<tcp::OwnedWriteHalf, unix::OwnedWriteHalf>,
>;

impl Listener {
    /// Sets whether the system keeps new connections until their clients have sent something.
    pub(crate) fn defer_accept(&self, defers: bool) {
        if let Self::Tcp(listener) = self {
            deferred::defer_accept(listener, defers);
        }
    }

    /// Accepts the next connection, and returns its client's address. Clients of a unix socket are
    /// local and count as 127.0.0.1.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Without TCP_NODELAY, small responses may wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), address.ip()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), Ipv4Addr::LOCALHOST.into()))
            }
        }
    }
}

/// Splits a stream into its directions.
pub(crate) fn split(stream: Stream) -> Halves {
    match stream {
        Either::Left(stream) => {
            let (read, write) = stream.into_split();
            tokio::io::join(Either::Left(read), Either::Left(write))
        }
        Either::Right(stream) => {
            let (read, write) = stream.into_split();
            tokio::io::join(Either::Right(read), Either::Right(write))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_whose_owner_accepts_nobody_is_in_use_and_is_not_waited_for() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let owner = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&owner, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&owner, 0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        remove_left_over(&path);
        assert!(path.exists());
        drop(owner);
        remove_left_over(&path);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn connections_are_accepted_when_their_clients_have_sent_something_if_that_is_set() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = bind(any).map(Bound::Port).unwrap().listen().unwrap();
        let Listener::Tcp(tcp) = &listener else { panic!("it is a port") };
        let address = tcp.local_addr().unwrap();
        let mut open = Vec::new();
        for (defers, is_first) in [(false, true), (true, false), (false, true)] {
            listener.defer_accept(defers);
            let silent = TcpStream::connect(address).await.unwrap();
            let client = TcpStream::connect(address).await.unwrap();
            client.try_write(b"G").unwrap();
            let (Either::Left(accepted), _) = listener.accept().await.unwrap() else {
                panic!("it is a port")
            };
            let expected = if is_first { &silent } else { &client };
            assert_eq!(accepted.peer_addr().unwrap(), expected.local_addr().unwrap());
            if is_first {
                listener.accept().await.unwrap();
            }
            open.push((silent, client));
        }
    }

    #[test]
    fn an_address_may_be_short_or_a_socket() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::]:80", "[::]:80"),
            (":8080", "0.0.0.0:8080"),
            ("localhost:0", "127.0.0.1:0"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:a b", "unix:a b"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in ["", ":", "8080", "a:80", "localhost", ":99999", "unix:", "::1:80:", ":-1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
