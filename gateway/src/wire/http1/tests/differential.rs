//! Tests that hyper reads everything that is a message as the same message, from both sides.
//!
//! The two differ only where this reader refuses: white space and bare LF that hyper takes for line ends, lengths that
//! hyper reconciles, extensions that hyper does not inspect.

use std::convert::Infallible;
use std::sync::Mutex;

use http::HeaderMap;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::*;

/// A message that was read whole: its first line, its fields in order of their names, its body, its trailers.
type Whole = (String, Vec<(String, Vec<u8>)>, Vec<u8>, Vec<(String, Vec<u8>)>);

fn lines(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<_> = map
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    lines.sort();
    lines
}

/// Returns the messages among the events, and whether the events end between two messages.
fn whole(events: &[Event]) -> (Vec<Whole>, bool) {
    let (mut all, mut current): (Vec<Whole>, Option<Whole>) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Interim(_) => {}
            Event::Head(head) => {
                let line = match head.start_line() {
                    StartLine::Request { method, target } => {
                        format!(
                            "{} {}",
                            String::from_utf8_lossy(method),
                            String::from_utf8_lossy(target)
                        )
                    }
                    StartLine::Answer { status, .. } => status.to_string(),
                };
                let fields = lines(&head.fields.to_map().expect("it fits").into());
                current = Some((line, fields, Vec::new(), Vec::new()));
            }
            Event::Data(data) => current.as_mut().expect("a head came first").2.extend_from_slice(data),
            Event::Trailers(fields) => {
                current.as_mut().expect("a head came first").3 = lines(&fields.to_map().expect("it fits").into());
            }
            Event::End => all.extend(current.take()),
        }
    }
    (all, current.is_none())
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Returns the requests that hyper's server reads whole, and its error if there is one.
async fn requests_by_hyper(bytes: &[u8]) -> (Vec<Whole>, Option<hyper::Error>) {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(bytes).await.expect("there is room");
    near.shutdown().await.expect("it is open");
    let all = Mutex::new(Vec::new());
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
        let (head, body) = request.into_parts();
        if let Ok(body) = body.collect().await {
            let trailers = body.trailers().map(lines).unwrap_or_default();
            let line = format!("{} {}", head.method, head.uri);
            let body = body.to_bytes().to_vec();
            all.lock()
                .expect("no panic")
                .push((line, lines(&head.headers), body, trailers));
        }
        // CONNECT is refused too, because success would end the exchange of messages.
        let mut response = http::Response::new(Empty::<Bytes>::new());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let ended = http.half_close(true).serve_connection(TokioIo::new(far), service).await;
    let all = all.lock().expect("no panic").clone();
    (all, ended.err())
}

/// Returns the answer that hyper's client reads, if it is complete.
async fn answer_by_hyper(bytes: Vec<u8>, asked: Asked) -> Option<Whole> {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(far)).await.ok()?;
    let method = if asked == Asked::Head {
        http::Method::HEAD
    } else {
        http::Method::GET
    };
    let request = http::Request::builder()
        .method(method)
        .header("host", "a")
        .body(Full::<Bytes>::default());
    let exchange = async {
        let (head, body) = sender.send_request(request.ok()?).await.ok()?.into_parts();
        let body = body.collect().await.ok()?;
        let trailers = body.trailers().map(lines).unwrap_or_default();
        let line = head.status.as_u16().to_string();
        Some((line, lines(&head.headers), body.to_bytes().to_vec(), trailers))
    };
    let backend = async {
        let mut head = [0; 4096];
        let _ = near.read(&mut head).await;
        let _ = near.write_all(&bytes).await;
        let _ = near.shutdown().await;
        let _ = near.read(&mut head).await;
    };
    let connection = async {
        let _ = connection.await;
    };
    tokio::join!(exchange, connection, backend).0
}

/// Checks that hyper reads the bytes of these requests, up to where ours stopped, as the same requests.
fn check_requests(bytes: &[u8]) {
    let mut held = BytesMut::from(bytes);
    let (mut reader, mut events) = (requests(), Vec::new());
    while let Ok(Some(event)) = reader.read(&mut held) {
        events.push(event);
    }
    // hyper gets what was read and not what was refused.
    let good = &bytes[..bytes.len() - held.len()];
    let (mut ours, is_between) = whole(&events);
    for (line, ..) in &mut ours {
        // hyper tells the target as its `Uri` writes it, with a path where the authority stands alone.
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let target: http::Uri = target.parse().expect("hyper reads it so");
        *line = format!("{method} {target}");
    }
    let (theirs, error) = runtime().block_on(requests_by_hyper(good));
    assert_eq!(theirs, ours, "{:?}", String::from_utf8_lossy(good));
    if is_between {
        assert!(error.is_none(), "{error:?}: {:?}", String::from_utf8_lossy(good));
    }
}

/// Checks that hyper reads the answer as ours does, if ours is complete and no switch.
fn check_answer(bytes: &[u8], asked: Asked) {
    let (events, stop) = read(answers(asked), &[bytes], true);
    let (ours, _) = whole(&events);
    let Some(ours) = ours.first() else { return };
    let rest = if let Stop::Rest(rest) = stop { rest.len() } else { 0 };
    let good = bytes[..bytes.len() - rest].to_vec();
    let theirs = runtime().block_on(answer_by_hyper(good, asked));
    assert_eq!(theirs.as_ref(), Some(ours), "{:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn hyper_reads_answers_alike() {
    for (text, asked) in [
        ("HTTP/1.1 200 OK~Content-Length: 2~~ok", Asked::Other),
        ("HTTP/1.1 200~Content-Length: 2~~ok", Asked::Other),
        ("HTTP/1.0 200 ~~until the end", Asked::Other),
        (
            "HTTP/1.1 100 Continue~~HTTP/1.1 103 Early~Link: x~~HTTP/1.1 204 No~Content-Length: 0~~",
            Asked::Other,
        ),
        (
            "HTTP/1.1 599 \u{e9}~Transfer-Encoding: chunked~~2 ;a=\"b\"~ok~0~T: v~~",
            Asked::Other,
        ),
        ("HTTP/1.1 304 No~Content-Length: 9~~", Asked::Other),
        ("HTTP/1.1 200 OK~Content-Length: 9~~", Asked::Head),
        ("HTTP/1.1 200 OK~Transfer-Encoding: chunked~~", Asked::Head),
    ] {
        let bytes = wire(text);
        assert!(
            read(answers(asked), &[&bytes], true).0.contains(&Event::End),
            "{text:?}"
        );
        check_answer(&bytes, asked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..cases::counted() })]

    #[test]
    fn properties_hyper_reads_the_same_requests(bytes in properties::traffic()) {
        check_requests(&bytes);
    }

    #[test]
    fn properties_hyper_reads_the_same_answer(bytes in properties::answer_traffic(), head in any::<bool>()) {
        check_answer(&bytes, if head { Asked::Head } else { Asked::Other });
    }
}
