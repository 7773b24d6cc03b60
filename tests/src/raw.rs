//! Provides a bare socket, for bytes that no correct client sends and for callers that disconnect.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::within;

const LIMIT: Duration = Duration::from_secs(10);

/// Sends the bytes on a new connection and returns all bytes that come back. Closes the connection after the first
/// answer unless the gateway does.
pub(crate) async fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    let head = raw.head().await;
    if !head.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
        // Fails only if the gateway closed first.
        let _ = raw.stream.shutdown().await;
    }
    head + &raw.rest().await
}

/// Connection on which a test sends and reads bytes directly. Dropping it closes the connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the gateway listens");
        stream.set_nodelay(true).expect("a connected socket takes options");
        Self { stream }
    }

    /// Connects from another address of this machine.
    pub async fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        socket.bind((from, 0).into()).expect("all of 127/8 is this machine");
        let stream = socket.connect(address).await.expect("the gateway listens");
        Self { stream }
    }

    /// Sends the bytes. Ignores an error, because the peer may have closed, which the test sees when it reads the
    /// answer.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Returns whether the peer's side of the connection still accepts bytes.
    pub async fn takes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Ends the connection with RST instead of FIN.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a connected socket takes options");
    }

    /// Closes the sending side.
    pub async fn half_close(&mut self) {
        // Fails only if the peer closed first.
        let _ = self.stream.shutdown().await;
    }

    /// Returns the next bytes; `None` when the connection has ended for any reason.
    pub async fn piece(&mut self) -> Option<Vec<u8>> {
        let mut piece = vec![0; 4096];
        let count = within(LIMIT, "bytes or the end from the gateway", self.stream.read(&mut piece)).await;
        piece.truncate(count.unwrap_or_default());
        (!piece.is_empty()).then_some(piece)
    }

    /// Returns a head, including the empty line.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                match self.stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
        };
        within(LIMIT, "a head from the gateway", read).await;
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Returns the next bytes, this many.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = self.stream.read_exact(&mut bytes);
        within(LIMIT, "bytes from the gateway", read)
            .await
            .expect("so many bytes come");
        bytes
    }

    /// Returns all bytes until the connection is closed properly.
    ///
    /// # Errors
    /// The connection is reset.
    pub async fn whole(&mut self) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        let read = self.stream.read_to_end(&mut bytes);
        within(LIMIT, "the gateway closes the connection", read).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns all bytes until the connection ends for any reason.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = async {
            let mut piece = vec![0; 4096];
            while let Ok(count @ 1..) = self.stream.read(&mut piece).await {
                bytes.extend_from_slice(&piece[..count]);
            }
        };
        within(LIMIT, "the gateway closes the connection", read).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
