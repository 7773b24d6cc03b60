//! Checks that requests which pass the screen of an HTTP/1.1 connection pass however they are split, and that the parsers
//! behind the screen read the same messages.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use gateway::wire::framing::{Read, Screen};
use gateway::wire::http1::Limits;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

const LIMITS: Limits = Limits::of_heads(200, 1000, 20);
/// Size of the buffer, more than any input has.
const ROOM: usize = 64 * 1024;

/// Checks a flag byte and the bytes of a socket. The flags seed where the bytes are split.
pub fn check(data: &[u8]) {
    let Some((flags, bytes)) = crate::split_flags(data) else {
        return;
    };
    let screen = || Screen::new(LIMITS);
    let whole = screened(screen(), vec![bytes], ROOM);
    assert!(bytes.starts_with(&whole.0), "something was changed");

    let (mut seed, mut pieces, mut rest) = (u64::from(flags) + 1, Vec::new(), bytes);
    while !rest.is_empty() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = usize::try_from(seed >> 59).expect("5 bits") + 1;
        let (piece, more) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    for room in [1 + usize::from(flags >> 2), ROOM] {
        assert_eq!(
            screened(screen(), pieces.clone(), room),
            whole,
            "in pieces, with room for {room}"
        );
    }
    let passed = &whole.0;
    assert_eq!(
        screened(screen(), vec![passed], ROOM),
        (passed.clone(), Read::Passed),
        "what is good stays good"
    );

    let messages = messages(screen(), passed);
    for message in &messages {
        assert_eq!(message.parsed(), Some(message.head.len()), "{message:?}");
    }
    let complete = messages.iter().filter(|message| message.complete);
    let lengths: Vec<_> = complete.map(Message::length).collect();
    assert_eq!(read_by_hyper(passed), lengths, "{:?}", String::from_utf8_lossy(passed));
}

/// Reader that returns the given pieces, and then nothing.
struct Pieces<'a>(Vec<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let Some(piece) = self.0.last_mut() else {
            return Poll::Pending;
        };
        let count = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..count]);
        *piece = &piece[count..];
        if piece.is_empty() {
            self.0.pop();
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the bytes that pass, and the verdict on the rest; [`Read::Passed`] if there is none yet.
fn screened(mut screen: Screen, mut pieces: Vec<&[u8]>, room: usize) -> (Vec<u8>, Read) {
    pieces.retain(|piece| !piece.is_empty());
    pieces.reverse();
    let mut pieces = Pieces(pieces);
    let mut passed = Vec::new();
    let mut memory = vec![0; room];
    loop {
        let mut buf = ReadBuf::new(&mut memory);
        match screen.poll_read(&mut pieces, &mut Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Ready(Ok(Read::Passed)) => passed.extend_from_slice(buf.filled()),
            Poll::Ready(Ok(verdict)) => return (passed, verdict),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => return (passed, Read::Passed),
        }
    }
}

#[derive(Debug)]
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
    complete: bool,
}

/// Returns heads and bodies as the screen separates them. Byte by byte, a head passes at its last byte.
fn messages(mut screen: Screen, bytes: &[u8]) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let mut memory = vec![0; ROOM];
    for byte in bytes {
        let mut buf = ReadBuf::new(&mut memory);
        let was_within = screen.is_within_body();
        let mut piece = Pieces(vec![std::slice::from_ref(byte)]);
        let polled = screen.poll_read(&mut piece, &mut Context::from_waker(Waker::noop()), &mut buf);
        assert!(
            matches!(polled, Poll::Pending | Poll::Ready(Ok(Read::Passed))),
            "{polled:?}"
        );
        let complete = !screen.is_within_body();
        match messages.last_mut() {
            Some(message) if was_within => {
                message.body.extend_from_slice(buf.filled());
                message.complete = complete;
            }
            _ if buf.filled().is_empty() => {}
            _ => messages.push(Message {
                head: buf.filled().to_vec(),
                body: Vec::new(),
                complete,
            }),
        }
    }
    messages
}

impl Message {
    /// Returns the length of the head according to the parser that hyper uses.
    fn parsed(&self) -> Option<usize> {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        match httparse::Request::new(&mut fields).parse(&self.head) {
            Ok(httparse::Status::Complete(length)) => Some(length),
            _ => None,
        }
    }

    /// Returns the number of bytes of content.
    fn length(&self) -> usize {
        let head = self.head.to_ascii_lowercase();
        if !head.windows(20).any(|window| window == b"\r\ntransfer-encoding:") {
            return self.body.len();
        }
        let (mut rest, mut length) = (&self.body[..], 0);
        loop {
            let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(rest) else {
                panic!("{self:?}: a chunk that cannot be read has passed");
            };
            if size == 0 {
                return length;
            }
            let size = usize::try_from(size).expect("as long as the input at most");
            length += size;
            rest = &rest[line + size + 2..];
        }
    }
}

/// Returns the lengths of the bodies that a server receives whole.
fn read_by_hyper(bytes: &[u8]) -> Vec<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(ROOM);
        near.write_all(bytes).await.expect("there is room");
        near.shutdown().await.expect("it is open");
        let lengths = RefCell::new(Vec::new());
        let service = service_fn(|request: http::Request<Incoming>| async {
            if let Ok(body) = request.into_body().collect().await {
                lengths.borrow_mut().push(body.to_bytes().len());
            }
            // CONNECT is refused too, because success would end the exchange of messages.
            let mut response = http::Response::new(Empty::<Bytes>::new());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        let served = http.half_close(true).serve_connection(TokioIo::new(far), service);
        // An incomplete message ends in an error, a complete one does not.
        let _ = served.await;
        lengths.take()
    })
}
