//! A connection that a load balancer has passed on: before anything else it must say for whom (PROXY protocol).
//!
//! Invariant: only a trusted proxy is listened to, and who does not begin with a header gets no further; a client that
//! reaches the listener by another way could otherwise be anyone. The watch bounds the time, as it does for a head.
//! What follows the header stays in the socket.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::connection_guard::ConnectionGuard;
use crate::client::proxy_protocol::{self, Origin};
use crate::observe::ConnectionRefusal;

/// For whom the sender has connected; `None` if it was refused, which is counted here.
pub(crate) async fn origin(stream: &mut TcpStream, sender: SocketAddr, enrolled: &ConnectionGuard) -> Option<Origin> {
    if !enrolled.worker().live.load().edge.trusted.contains(sender.ip()) {
        enrolled.worker().refuse(ConnectionRefusal::ProxyUntrusted);
        return None;
    }
    let mut counted = Counted {
        enrolled,
        refusal: Some(ConnectionRefusal::ProxyTimedOut),
    };
    match header(stream, enrolled).await {
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

/// Takes the header out of the socket; `None` if what came is none.
async fn header(stream: &mut TcpStream, enrolled: &ConnectionGuard) -> io::Result<Option<Origin>> {
    let mut held = Vec::with_capacity(128);
    loop {
        let mut piece = [0; 512];
        let before = held.len();
        let count = stream.peek(&mut piece).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        enrolled.activity().note_read();
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

/// Counts a refusal even if the wait is ended from outside: then it has taken too long.
struct Counted<'a> {
    enrolled: &'a ConnectionGuard,
    refusal: Option<ConnectionRefusal>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(refusal) = self.refusal {
            self.enrolled.worker().refuse(refusal);
        }
    }
}
