//! Reads the PROXY protocol header with which a load balancer names the client of a connection.
//!
//! Invariant: only a trusted proxy is believed, and a connection without the header is refused; otherwise a client that
//! reaches the listener directly could claim any address. The reaper limits the time as it does for a head. Bytes after
//! the header stay in the socket.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::connection_guard::ConnectionGuard;
use crate::client::proxy_protocol::{self, Origin};
use crate::observe::ConnectionRefusal;

/// Returns the client that the sender names, or `None`, and counts the refusal, if the connection is refused.
pub(crate) async fn origin(stream: &mut TcpStream, sender: SocketAddr, guard: &ConnectionGuard) -> Option<Origin> {
    if !guard.worker().live.load().edge.trusted.contains(sender.ip()) {
        guard.worker().refuse(ConnectionRefusal::ProxyUntrusted);
        return None;
    }
    let mut counted = Counted {
        guard,
        refusal: Some(ConnectionRefusal::ProxyTimedOut),
    };
    match header(stream, guard).await {
        Ok(Some(origin)) => {
            counted.refusal = None;
            Some(origin)
        }
        Ok(None) => {
            counted.refusal = Some(ConnectionRefusal::ProxyMalformed);
            None
        }
        Err(_) => {
            counted.refusal = Some(ConnectionRefusal::ProxyAbandoned);
            None
        }
    }
}

/// Takes the header out of the socket. Returns `None` if the bytes are no valid header.
async fn header(stream: &mut TcpStream, guard: &ConnectionGuard) -> io::Result<Option<Origin>> {
    let mut held = Vec::with_capacity(128);
    loop {
        let mut piece = [0; 512];
        let before = held.len();
        let count = stream.peek(&mut piece).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        guard.activity().note_read();
        held.extend_from_slice(&piece[..count]);
        let Ok(read) = proxy_protocol::read(&held) else {
            return Ok(None);
        };
        let taken = read.map_or(count, |(_, length)| length - before);
        stream.read_exact(&mut piece[..taken]).await?;
        if let Some((origin, _)) = read {
            return Ok(Some(origin));
        }
    }
}

/// Counts a refusal on drop. If the task is aborted, the header was too slow.
struct Counted<'a> {
    guard: &'a ConnectionGuard,
    refusal: Option<ConnectionRefusal>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(refusal) = self.refusal {
            self.guard.worker().refuse(refusal);
        }
    }
}
