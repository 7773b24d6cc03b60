//! Checks that the HTTP/1.1 reader tells the same events however the bytes are split, that httparse and hyper read the
//! same messages, and that what is read can be written and read again.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use gateway::wire::http1::{
    Asked, BodyEncoder, BodyLength, Cut, Event, Head, Limits, Reader, Refusal, StartLine, write_answer_head,
    write_request_head,
};
use http::HeaderMap;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMITS: Limits = Limits::of_heads(200, 1000, 20);
/// Size of the pipe to hyper, more than any input has.
const ROOM: usize = 64 * 1024;

/// How the reading of the bytes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    Closed,
    Refused(Refusal),
    Cut(Cut),
    /// Number of bytes after the last message.
    Rest(usize),
}

/// A message that was read whole: its first line, its fields in order of their names, its body, its trailers.
type Whole = (String, Vec<(String, Vec<u8>)>, Vec<u8>, Vec<(String, Vec<u8>)>);

/// Checks a flag byte and the bytes of a connection that closes after them. The flags select the side, and seed where
/// the bytes are split.
pub fn check(data: &[u8]) {
    let Some((flags, bytes)) = crate::split_flags(data) else {
        return;
    };
    let asked = match flags % 4 {
        0 | 1 => None,
        2 => Some(Asked::Other),
        _ => Some(Asked::Head),
    };
    let (events, stop, read) = read(asked, &[bytes]);
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
    let single: Vec<_> = bytes.chunks(1).collect();
    for pieces in [pieces, single] {
        let (others, other_stop, _) = self::read(asked, &pieces);
        assert_eq!((&others, &other_stop), (&events, &stop), "in {} pieces", pieces.len());
    }

    for event in &events {
        if let Event::Head(head) | Event::Interim(head) = event {
            agrees_with_httparse(head);
        }
    }
    let (messages, _) = whole(&events);
    let good = &bytes[..read];
    match asked {
        None => assert_eq!(requests_by_hyper(good), messages, "{:?}", String::from_utf8_lossy(good)),
        Some(asked) => {
            if let Some(message) = messages.first() {
                let theirs = answer_by_hyper(good.to_vec(), asked);
                assert_eq!(theirs.as_ref(), Some(message), "{:?}", String::from_utf8_lossy(good));
            }
        }
    }
    is_written_and_read(asked, &events);
}

fn reader(asked: Option<Asked>) -> Reader {
    let Some(asked) = asked else {
        return Reader::requests(LIMITS);
    };
    let mut reader = Reader::answers(LIMITS);
    reader.expect(asked);
    reader
}

/// Returns the events, with adjacent content joined, how they end, and how many bytes were read for them.
fn read(asked: Option<Asked>, pieces: &[&[u8]]) -> (Vec<Event>, Stop, usize) {
    let (mut reader, mut held, mut events) = (reader(asked), BytesMut::new(), Vec::new());
    let mut arrived = 0;
    for piece in pieces {
        held.extend_from_slice(piece);
        arrived += piece.len();
        loop {
            match reader.read(&mut held) {
                Ok(None) => break,
                Ok(Some(Event::Data(data))) => {
                    assert!(!data.is_empty(), "no event without content");
                    if let Some(Event::Data(before)) = events.last_mut() {
                        *before = Bytes::from([&before[..], &data[..]].concat());
                    } else {
                        events.push(Event::Data(data));
                    }
                }
                Ok(Some(event)) => events.push(event),
                Err(refusal) => {
                    let left = held.len();
                    held.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
                    assert_eq!(reader.read(&mut held), Err(refusal), "a refusal is final");
                    return (events, Stop::Refused(refusal), arrived - left);
                }
            }
        }
    }
    let read = arrived - held.len();
    if reader.has_switched() || !held.is_empty() && reader.is_complete() {
        return (events, Stop::Rest(arrived - read), read);
    }
    match reader.close() {
        Ok(event) => {
            events.extend(event);
            (events, Stop::Closed, read)
        }
        Err(cut) => (events, Stop::Cut(cut), read),
    }
}

/// Checks a head against the parser that most of the ecosystem uses.
fn agrees_with_httparse(head: &Head) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let bytes = head.bytes();
    let read = match head.start_line() {
        StartLine::Request { method, target } => {
            let mut request = httparse::Request::new(&mut fields);
            assert_eq!(
                request.parse(bytes),
                Ok(httparse::Status::Complete(bytes.len())),
                "{head:?}"
            );
            assert_eq!(request.method.map(str::as_bytes), Some(method), "{head:?}");
            assert_eq!(request.path.map(str::as_bytes), Some(target), "{head:?}");
            request.headers
        }
        StartLine::Answer { status, .. } => {
            let mut answer = httparse::Response::new(&mut fields);
            assert_eq!(
                answer.parse(bytes),
                Ok(httparse::Status::Complete(bytes.len())),
                "{head:?}"
            );
            assert_eq!(answer.code, Some(status), "{head:?}");
            answer.headers
        }
    };
    let theirs = read.iter().map(|field| (field.name.as_bytes(), field.value));
    let ours = head.fields.iter().map(|field| (field.name, field.value));
    assert!(theirs.eq(ours), "{head:?}");
}

fn lines(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    let mut lines: Vec<_> = map.iter().map(line).collect();
    lines.sort();
    lines
}

/// Returns the whole messages among the events, and whether the events end with one.
fn whole(events: &[Event]) -> (Vec<Whole>, bool) {
    let (mut all, mut current): (Vec<Whole>, Option<Whole>) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Interim(_) => {}
            Event::Head(head) => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let line = match head.start_line() {
                    StartLine::Request { method, target } => format!("{} {}", text(method), uri(target)),
                    StartLine::Answer { status, .. } => status.to_string(),
                };
                let fields = lines(&head.fields.to_map().expect("few fields").into());
                current = Some((line, fields, Vec::new(), Vec::new()));
            }
            Event::Data(data) => current.as_mut().expect("a head came first").2.extend_from_slice(data),
            Event::Trailers(fields) => {
                current.as_mut().expect("a head came first").3 = lines(&fields.to_map().expect("few fields").into());
            }
            Event::End => all.extend(current.take()),
        }
    }
    (all, current.is_none())
}

/// Returns a target as hyper shows it.
fn uri(target: &[u8]) -> String {
    http::Uri::try_from(target).map_or_else(|error| panic!("{error}"), |uri| uri.to_string())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// Returns the requests that a server receives whole.
fn requests_by_hyper(bytes: &[u8]) -> Vec<Whole> {
    block_on(async {
        let (mut near, far) = tokio::io::duplex(ROOM);
        near.write_all(bytes).await.expect("there is room");
        near.shutdown().await.expect("it is open");
        let all = RefCell::new(Vec::new());
        let service = service_fn(|request: http::Request<Incoming>| async {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let trailers = body.trailers().map(lines).unwrap_or_default();
                let line = format!("{} {}", head.method, head.uri);
                let body = body.to_bytes().to_vec();
                all.borrow_mut().push((line, lines(&head.headers), body, trailers));
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
        all.take()
    })
}

/// Returns the answer that a client receives whole.
fn answer_by_hyper(bytes: Vec<u8>, asked: Asked) -> Option<Whole> {
    block_on(async {
        let (mut near, far) = tokio::io::duplex(ROOM);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(far)).await.ok()?;
        let request = http::Request::builder()
            .method(if asked == Asked::Head { "HEAD" } else { "GET" })
            .header("host", "a")
            .body(Empty::<Bytes>::new());
        let exchange = async {
            let (head, body) = sender.send_request(request.ok()?).await.ok()?.into_parts();
            let body = body.collect().await.ok()?;
            let trailers = body.trailers().map(lines).unwrap_or_default();
            let line = head.status.as_u16().to_string();
            Some((line, lines(&head.headers), body.to_bytes().to_vec(), trailers))
        };
        let backend = async {
            let mut head = [0; 1024];
            let _ = near.read(&mut head).await;
            let _ = near.write_all(&bytes).await;
            let _ = near.shutdown().await;
            let _ = near.read(&mut head).await;
        };
        let connection = async {
            let _ = connection.await;
        };
        tokio::join!(exchange, connection, backend).0
    })
}

/// Writes each whole message anew, and checks that it is read as the same.
fn is_written_and_read(asked: Option<Asked>, events: &[Event]) {
    for message in events.split_inclusive(|event| *event == Event::End) {
        let message = match message.iter().position(|event| matches!(event, Event::Head(_))) {
            Some(head) if message.ends_with(&[Event::End]) => &message[head..],
            _ => continue,
        };
        let Event::Head(head) = &message[0] else {
            unreachable!("found above")
        };
        let mut out = BytesMut::new();
        let fields = head.fields.to_map_without_framing().expect("few fields");
        let length = head.body();
        match head.start_line() {
            StartLine::Request { method, target } => {
                let text = |bytes| std::str::from_utf8(bytes).expect("ASCII");
                // A request of HTTP/1.0 may have none, and is written in HTTP/1.1.
                let host = (!fields.contains_key("host")).then(|| http::HeaderValue::from_static("a"));
                let start = (text(method), text(target), host.as_ref());
                write_request_head(&mut out, start, fields.iter(), length);
            }
            StartLine::Answer { reason, .. } => {
                let status = head.status().expect("it is an answer");
                write_answer_head(&mut out, (head.version(), status, Some(reason)), fields.iter(), length);
            }
        }
        let (mut encoder, mut trailers) = (BodyEncoder::new(length), None);
        for event in message {
            match event {
                Event::Data(data) => {
                    let frame = encoder.frame(data.len()).expect("it is as long as was said");
                    for part in [frame.before(), data, frame.after] {
                        out.extend_from_slice(part);
                    }
                }
                Event::Trailers(fields) => trailers = Some(fields.to_map().expect("few fields").into()),
                Event::Head(_) | Event::Interim(_) | Event::End => {}
            }
        }
        encoder
            .end(trailers.as_ref(), &mut out)
            .expect("it is as long as was said");
        // Framing may take more bytes than it did.
        let limits = Limits {
            head: 2000,
            fields: 30,
            trailers: 8 * 1024,
            ..LIMITS
        };
        let mut reader = match asked {
            None => Reader::requests(limits),
            Some(asked) => {
                let mut reader = Reader::answers(limits);
                reader.expect(asked);
                reader
            }
        };
        let mut again = Vec::new();
        while let Some(event) = reader.read(&mut out).expect("it was written by us") {
            again.push(event);
        }
        if length == Some(BodyLength::UntilClose) {
            again.extend(reader.close().expect("the close ends it"));
        }
        let is_new = !fields.contains_key("host");
        let framing = |whole: &mut Whole| {
            whole
                .1
                .retain(|(name, _)| !(is_framing(name) || is_new && name == "host"));
        };
        let (mut before, mut after) = (whole(message).0, whole(&again).0);
        before.iter_mut().for_each(framing);
        after.iter_mut().for_each(framing);
        assert_eq!(after, before);
    }
}

fn is_framing(name: &str) -> bool {
    matches!(name, "content-length" | "transfer-encoding")
}
