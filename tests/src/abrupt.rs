//! Runs a backend that acts as soon as the head of a request has arrived, without waiting for the body.
//!
//! It speaks HTTP/1.1 or HTTP/2, and sends exactly the bytes that its test gives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::frames::{HEADERS, SETTINGS, frame, read};

/// Number of bytes that open a caller's side of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: usize = 24;

/// Response to one request: bytes to write, and what follows.
#[derive(Debug, Clone, Default)]
pub struct Act {
    pub writes: Vec<u8>,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, Default)]
pub enum Then {
    /// Continues to read.
    #[default]
    Stays,
    Closes,
    /// Ends with RST instead of FIN.
    Resets,
    /// Closes at once. What has come and was not read turns the close into a reset, after what was written.
    Leaves,
}

/// Running backend. Dropping it closes its port.
#[derive(Debug)]
pub struct Abrupt {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

impl Abrupt {
    /// Starts a backend for HTTP/1.1, with one request on each connection.
    pub async fn http1(act: Act) -> Self {
        Self::start(Protocol::Http1, move |_| act.clone()).await
    }

    /// Starts a backend for HTTP/2 with prior knowledge. `act` gets the stream of each request.
    pub async fn http2(act: impl Fn(u32) -> Act + Send + Sync + 'static) -> Self {
        Self::start(Protocol::Http2, act).await
    }

    async fn start(protocol: Protocol, act: impl Fn(u32) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (act, connections) = (Arc::new(act), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                let act = Arc::clone(&act);
                tokio::spawn(async move { serve(stream, protocol, &*act).await });
            }
        });
        Self {
            address,
            connections,
            accepting,
        }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

impl Drop for Abrupt {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves one connection. Returns `None` once either side has closed.
async fn serve(mut stream: TcpStream, protocol: Protocol, act: &(impl Fn(u32) -> Act + ?Sized)) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    if let Protocol::Http2 = protocol {
        let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat();
        stream.write_all(&settings).await.ok()?;
    }
    let (mut bytes, mut done) = (Vec::new(), 0);
    while stream.read_buf(&mut bytes).await.ok()? > 0 {
        let requests = requests(protocol, &bytes);
        for id in &requests[done.min(requests.len())..] {
            let Act { writes, then } = act(*id);
            stream.write_all(&writes).await.ok()?;
            match then {
                Then::Stays => {}
                Then::Closes => {
                    stream.shutdown().await.ok()?;
                    // Reads until the other side has closed as well, because unread bytes would turn the close into a
                    // reset.
                    while stream.read_buf(&mut bytes).await.ok()? > 0 {}
                    return None;
                }
                Then::Leaves => return None,
                Then::Resets => {
                    stream.set_zero_linger().ok()?;
                    return None;
                }
            }
        }
        done = requests.len();
    }
    None
}

/// Returns the streams of the requests whose heads have arrived; for HTTP/1.1 a zero for its single request.
fn requests(protocol: Protocol, bytes: &[u8]) -> Vec<u32> {
    match protocol {
        Protocol::Http1 => {
            let has_head = bytes.windows(4).any(|window| window == b"\r\n\r\n");
            if has_head { vec![0] } else { Vec::new() }
        }
        Protocol::Http2 => {
            let frames = read(bytes.get(PREFACE..).unwrap_or_default());
            let heads = frames.iter().filter(|(kind, ..)| *kind == HEADERS);
            heads.map(|(_, _, id, _)| *id).collect()
        }
    }
}
