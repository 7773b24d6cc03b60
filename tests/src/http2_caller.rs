//! Calls over one HTTP/2 connection; the test decides what is read and when the connection closes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::within;

const LIMIT: Duration = Duration::from_secs(10);

/// Connection with prior knowledge, or over a stream that has negotiated HTTP/2. Dropping it closes the connection.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

/// Request under way. Dropping it cancels the request.
pub struct Stream {
    /// Body of the request; ended already if the request has none.
    pub upload: SendStream<Bytes>,
    pub response: ResponseFuture,
}

/// Answer up to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &Builder::new()).await
    }

    /// Connects with the settings of the builder.
    pub async fn connect_with(address: SocketAddr, builder: &Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("the gateway listens");
        stream.set_nodelay(true).expect("a connected socket takes options");
        Self::over(stream, address.to_string(), builder).await
    }

    pub async fn over<S>(stream: S, authority: String, builder: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = within(LIMIT, "a preface from the gateway", builder.handshake(stream)).await;
        let (sender, connection) = shaken.expect("the gateway speaks HTTP/2");
        Self {
            sender,
            driver: tokio::spawn(connection),
            authority,
        }
    }

    pub fn request(&self, method: Method, path: &str) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{}{path}", self.authority).parse().expect("a path");
        request
    }

    /// Sends a head; `ends` means that no body follows.
    ///
    /// # Errors
    /// The connection accepts no more requests.
    pub async fn send(&self, request: Request<()>, ends: bool) -> Result<Stream, h2::Error> {
        let ready = within(LIMIT, "room for a stream", self.sender.clone().ready()).await;
        let (response, upload) = ready?.send_request(request, ends)?;
        Ok(Stream { upload, response })
    }

    /// Sends a GET and reads the whole answer.
    ///
    /// # Errors
    /// The stream or the connection ended before that.
    pub async fn get(&self, path: &str) -> Result<Whole, h2::Error> {
        self.send(self.request(Method::GET, path), true).await?.whole().await
    }

    /// Returns when the gateway has ended the connection, with the error that it sent.
    pub async fn ended(mut self) -> Result<(), h2::Error> {
        let ended = within(LIMIT, "the gateway ends the connection", &mut self.driver).await;
        ended.expect("it does not panic")
    }

    /// Returns the number of streams that the gateway allows at once.
    pub fn streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Stream {
    /// Returns the head of the answer, with a body that is not read yet.
    ///
    /// # Errors
    /// The stream or the connection ended before that.
    pub async fn head(self) -> Result<Response<RecvStream>, h2::Error> {
        within(LIMIT, "the head of an answer", self.response).await
    }

    /// # Errors
    /// The stream or the connection ended before the end of the answer.
    pub async fn whole(self) -> Result<Whole, h2::Error> {
        let (head, mut stream) = self.head().await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = within(LIMIT, "more of an answer", stream.data()).await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        Ok(Whole {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            trailers: within(LIMIT, "the end of an answer", stream.trailers()).await?,
        })
    }

    pub fn cancel(mut self) {
        self.upload.send_reset(Reason::CANCEL);
    }
}

impl Whole {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// The field is missing or is not text.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("text")
    }
}
