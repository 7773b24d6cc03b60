//! Sends requests as an HTTP/1.1 caller with a pool of kept connections, without hidden changes or retries.
//!
//! The target is sent as written, so that a test can send targets that other clients would normalise. A request is sent
//! again on another connection only if none of its bytes was sent. An answer is either complete or a [`Failure`].

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::answer::Answer;
use crate::tls::Tls;

/// Limit of every wait, longer than anything a test waits for on purpose.
const LIMIT: Duration = Duration::from_secs(20);

/// Limit for a connection to be ready again once its answer has ended.
const TURN: Duration = Duration::from_secs(1);

type Content = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<Tls>,
    /// Idle connections, newest last.
    idle: Arc<Mutex<Vec<SendRequest<Content>>>>,
}

/// Reason why there is no complete answer.
#[derive(Debug)]
pub enum Failure {
    /// No connection could be made.
    Refused(io::Error),
    /// The connection ended before an answer began.
    Unanswered(hyper::Error),
    /// An answer began and did not reach its proper end.
    Aborted {
        status: u16,
        received: usize,
    },
    TooLong,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            idle: Arc::default(),
        }
    }

    pub fn over_tls(address: SocketAddr, tls: Tls) -> Self {
        Self {
            tls: Some(tls),
            ..Self::to(address)
        }
    }

    pub fn get(&self, target: &str) -> Ask {
        self.ask(Method::GET, target)
    }

    pub fn post(&self, target: &str) -> Ask {
        self.ask(Method::POST, target)
    }

    pub fn ask(&self, method: Method, target: &str) -> Ask {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.address.to_string())
            .body(Full::default().boxed_unsync())
            .expect("the test writes a valid request");
        Ask {
            client: self.clone(),
            request,
        }
    }

    fn kept(&self) -> Option<SendRequest<Content>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| sender.is_ready())
    }

    fn keep(&self, sender: SendRequest<Content>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    }

    async fn connect(&self) -> Result<SendRequest<Content>, Failure> {
        if let Some(tls) = &self.tls {
            return Self::begin(tls.connect(self.address).await.map_err(Failure::Refused)?).await;
        }
        let stream = TcpStream::connect(self.address).await.map_err(Failure::Refused)?;
        stream.set_nodelay(true).map_err(Failure::Refused)?;
        Self::begin(stream).await
    }

    async fn begin<S>(stream: S) -> Result<SendRequest<Content>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::Unanswered)?;
        // The end of the connection is reported to the pending request.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn open(&self, request: Request<Content>) -> Result<Streaming, Failure> {
        let mut request = request;
        while let Some(mut sender) = self.kept() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.streaming(response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Unanswered(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(Failure::Unanswered)?;
        Ok(self.streaming(response, sender))
    }

    fn streaming(&self, response: Response<Incoming>, sender: SendRequest<Content>) -> Streaming {
        let (head, body) = response.into_parts();
        Streaming {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            received: 0,
            client: self.clone(),
            sender,
        }
    }
}

/// Builder of a request.
#[must_use = "a request goes out when it is sent"]
pub struct Ask {
    client: Client,
    request: Request<Content>,
}

impl Ask {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("the test writes a valid field name");
        let value = HeaderValue::from_str(value).expect("the test writes a valid field value");
        if name == header::HOST {
            self.request.headers_mut().insert(name, value);
        } else {
            self.request.headers_mut().append(name, value);
        }
        self
    }

    /// Adds an API key in the field where the gateway expects it by default.
    pub fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Full::new(body.into()).boxed_unsync();
        self
    }

    /// Sends a chunked body while it is being made.
    pub fn upload(mut self, upload: Upload) -> Self {
        *self.request.body_mut() = upload.boxed_unsync();
        self
    }

    /// Returns the whole answer.
    ///
    /// # Panics
    /// There is no whole answer.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.request.method(), self.request.uri());
        self.try_send()
            .await
            .unwrap_or_else(|failure| panic!("{what}: {failure}"))
    }

    pub async fn try_send(self) -> Result<Answer, Failure> {
        let whole = async { self.open().await?.collect().await };
        timeout(LIMIT, whole).await.unwrap_or(Err(Failure::TooLong))
    }

    /// Returns the head of the answer, with its body still to come.
    pub async fn open(self) -> Result<Streaming, Failure> {
        let opened = self.client.open(self.request);
        timeout(LIMIT, opened).await.unwrap_or(Err(Failure::TooLong))
    }
}

/// Answer whose body is still to come. Dropping it closes the connection.
pub struct Streaming {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    received: usize,
    client: Client,
    sender: SendRequest<Content>,
}

impl Streaming {
    /// Returns the next piece of the body; `None` at its proper end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout(LIMIT, self.body.frame()).await.map_err(|_| Failure::TooLong)?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.received += data.len();
                        return Ok(Some(data));
                    }
                }
                Some(Err(_)) => {
                    return Err(Failure::Aborted {
                        status: self.status,
                        received: self.received,
                    });
                }
            }
        }
    }

    async fn collect(mut self) -> Result<Answer, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        // After an answer that came before the end of the request, the connection is busy or closed.
        if let Ok(Ok(())) = timeout(TURN, self.sender.ready()).await {
            self.client.keep(self.sender);
        }
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body: body.into(),
        })
    }
}

/// Request body that a test sends piece by piece. It ends when the sender is dropped.
pub struct Upload {
    pieces: mpsc::Receiver<Bytes>,
}

impl Upload {
    /// Returns a sender and its upload; `room` is the number of pieces that may wait to be sent.
    pub fn pieces(room: usize) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(room);
        (sender, Self { pieces })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "no connection: {error}"),
            Self::Unanswered(error) => write!(f, "no answer: {error:?}"),
            Self::Aborted { status, received } => write!(f, "a {status} broke off after {received} bytes"),
            Self::TooLong => write!(f, "no whole answer within {LIMIT:?}"),
        }
    }
}

impl std::error::Error for Failure {}
