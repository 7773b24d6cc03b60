//! Chooses the protocol of a plain-text connection and serves it.
//!
//! Under TLS both sides agree on the protocol by ALPN (see [`super::tls`]). In plain text an HTTP/2 caller begins with
//! the connection preface, which no HTTP/1.1 request can begin with ("prior knowledge", RFC 9113 section 3.3).
//! `Upgrade: h2c` is not offered.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::connection_guard::ConnectionGuard;
use super::guarded_io::GuardedIo;
use super::preface::{self, Preface};
use super::{http1, http2};
use crate::headers::Scheme;
use crate::plan::Protocols;

/// Serves requests in plain text until either side closes the connection.
///
/// This is no `async fn`, whose future would hold the arguments twice: an idle connection is little more than it.
pub(super) fn serve_plain(
    stream: TcpStream,
    address: SocketAddr,
    protocols: Protocols,
    guard: ConnectionGuard,
) -> impl Future<Output = ()> + Send {
    let peer = guard.peer(address, Scheme::Http);
    let mut io = GuardedIo::new(stream, guard.activity().clone());
    async move {
        let is_http2 = match protocols {
            Protocols::Http1 => false,
            Protocols::Http2 => true,
            Protocols::Both => match preface::read(&mut io).await {
                Ok(preface) => preface == Preface::Http2,
                // The caller has left.
                Err(_) => return,
            },
        };
        if is_http2 {
            // Boxed, so that an HTTP/1.1 connection does not reserve memory for the HTTP/2 state.
            Box::pin(http2::serve(io, peer, guard)).await;
        } else {
            http1::serve(&mut io, &peer, &guard).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of connections may be idle.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        fn size<F>(_: impl FnOnce(TcpStream, SocketAddr, Protocols, ConnectionGuard) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(serve_plain);
        assert!(bytes <= 600, "{bytes} bytes");
    }
}
