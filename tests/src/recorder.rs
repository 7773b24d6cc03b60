//! Runs a backend that records what it receives byte for byte, and reads it more strictly than any real server.
//!
//! Each violation that it finds is a defect of the gateway: nothing malformed, framed twice or incomplete may ever
//! arrive. It answers with an echo, unless a script for the target says otherwise.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::message::{self, Head};

/// Request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the request reached its end.
    pub complete: bool,
    pub defects: Vec<String>,
    /// Number of the connection it came on, counted from 0.
    pub connection: usize,
}

/// Bytes that are written instead of an echo.
#[derive(Debug, Clone)]
pub struct Script {
    pub bytes: Vec<u8>,
    /// Whether the connection is closed after them.
    pub closes: bool,
}

/// Running backend. Dropping it closes its port.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    arrived: Vec<Arrived>,
    /// Scripts by the last segment of the path.
    scripts: HashMap<String, Script>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = 0..;
                while let (Ok((stream, _)), Some(number)) = (listener.accept().await, connections.next()) {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        // An error is expected: in some cases the gateway closes the connection.
                        let _ = serve(stream, number, &shared).await;
                    });
                }
            }
        });
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn script(&self, segment: &str, script: Script) {
        lock(&self.shared).scripts.insert(segment.to_owned(), script);
    }

    /// Returns all requests so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        lock(&self.shared).arrived.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, connection: usize, shared: &Mutex<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let mut index = None;
    loop {
        let read = message::request(&bytes);
        if !bytes.is_empty() {
            let mut shared = lock(shared);
            let index = *index.get_or_insert_with(|| {
                shared.arrived.push(Arrived {
                    connection,
                    ..Arrived::default()
                });
                shared.arrived.len() - 1
            });
            let arrived = &mut shared.arrived[index];
            arrived.head = read.head.clone().unwrap_or_else(|| Head::broken(&bytes));
            arrived.body.clone_from(&read.body);
            arrived.trailers.clone_from(&read.trailers);
            arrived.complete = read.end.is_some();
            arrived.defects.clone_from(&read.defects);
        }
        if let (Some(end), Some(head)) = (read.end, &read.head) {
            bytes.drain(..end);
            index = None;
            let segment = head.path().rsplit('/').next().unwrap_or_default();
            let script = lock(shared).scripts.get(segment).cloned();
            let script = script.unwrap_or_else(|| echo(head));
            stream.write_all(&script.bytes).await?;
            if script.closes {
                return Ok(());
            }
            continue;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// Returns the target as a body, with a status and a framing that the query may choose.
fn echo(head: &Head) -> Script {
    let asked = |what: &str| head.target().split(['?', '&']).skip(1).any(|pair| pair == what);
    let body = format!("{{\"target\":\"{}\"}}", head.target());
    let (line, framing) = match () {
        () if asked("status=204") => ("204 No Content", String::new()),
        () if asked("chunked=1") => ("200 OK", "transfer-encoding: chunked\r\n".to_owned()),
        () => ("200 OK", format!("content-length: {}\r\n", body.len())),
    };
    let body = match () {
        () if head.method() == "HEAD" || line.starts_with("204") => String::new(),
        () if framing.starts_with("transfer") => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        () => body,
    };
    Script {
        bytes: format!("HTTP/1.1 {line}\r\n{framing}\r\n{body}").into_bytes(),
        closes: false,
    }
}
