//! Connections that have switched protocols: WebSocket and others.

use std::io::{Error, ErrorKind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::{Instant, timeout, timeout_at};

use crate::net::connections::Peer;

/// Copies bytes both ways after both sides have switched protocols, until one of them closes or
/// both are silent for `idle`. The connection counts as open meanwhile.
pub(crate) fn open(visitor: OnUpgrade, upstream: OnUpgrade, idle: Duration, peer: Peer) {
    tokio::spawn(async move {
        let (visitor, upstream) = match tokio::try_join!(visitor, upstream) {
            Ok(both) => both,
            Err(error) => return tracing::info!("a protocol upgrade failed: {error}"),
        };
        let gauge = metrics::gauge!("edge_session_tunnels");
        gauge.increment(1.0);
        pass(TokioIo::new(visitor), TokioIo::new(upstream), idle).await;
        gauge.decrement(1.0);
        drop(peer);
    });
}

async fn pass(
    one: impl AsyncRead + AsyncWrite,
    other: impl AsyncRead + AsyncWrite,
    idle: Duration,
) {
    let last = Mutex::new(Instant::now());
    let (mut one_in, mut one_out) = split(one);
    let (mut other_in, mut other_out) = split(other);
    let there = copy(&mut one_in, &mut other_out, &last, idle);
    let back = copy(&mut other_in, &mut one_out, &last, idle);
    if let Err(error) = tokio::try_join!(there, back) {
        tracing::debug!("an upgraded connection ended: {error}");
    }
}

/// Copies until the end. `last` is when either direction last copied something.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    last: &Mutex<Instant>,
    idle: Duration,
) -> Result<(), Error> {
    let last = || last.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let deadline = *last() + idle;
        let count = match timeout_at(deadline, from.read(&mut buffer)).await {
            Ok(count) => count?,
            // The other direction is active.
            Err(_) if *last() + idle > Instant::now() => continue,
            Err(_) => return Err(ErrorKind::TimedOut.into()),
        };
        if count == 0 {
            return to.shutdown().await;
        }
        *last() = Instant::now();
        timeout(idle, to.write_all(&buffer[..count])).await??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_both_ways_until_one_side_ends() {
        let (mut visitor, gateway_front) = duplex(64);
        let (gateway_back, mut upstream) = duplex(64);
        let passing = tokio::spawn(pass(gateway_front, gateway_back, Duration::from_secs(60)));
        visitor.write_all(b"ping").await.unwrap();
        let mut four = [0; 4];
        upstream.read_exact(&mut four).await.unwrap();
        upstream.write_all(b"pong").await.unwrap();
        visitor.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"pong");
        drop((visitor, upstream));
        passing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_but_not_while_one_side_talks() {
        let (mut visitor, gateway_front) = duplex(64);
        let (gateway_back, upstream) = duplex(1024);
        let start = Instant::now();
        let passing = tokio::spawn(pass(gateway_front, gateway_back, Duration::from_secs(60)));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            visitor.write_all(b"x").await.unwrap();
        }
        passing.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 210);
        drop((visitor, upstream));
    }
}
