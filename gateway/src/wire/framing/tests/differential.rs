//! Tests that hyper reads everything that passes the check as the same messages, with bodies of the same length.
//!
//! This is the purpose of a check before a parser. The two differ only where the check refuses: white space and bare LF
//! that hyper takes for line ends, lengths that hyper reconciles, extensions that hyper does not inspect.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::wire::framing::tests::*;

/// Returns the lengths of the complete bodies in `bytes`, and whether the bytes end between two messages.
fn read_by_us(mut bytes: &[u8]) -> (Vec<u64>, bool) {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let Ok(Some(good)) = Head::new(Kind::Request).read(bytes, &LIMITS) else {
            return (lengths, false);
        };
        bytes = &bytes[good.length..];
        let mut length = 0;
        if let Follows::Body(mut body) = good.follows {
            // Read byte by byte, so that content can be told from framing.
            loop {
                let Some((first, rest)) = bytes.split_first() else {
                    return (lengths, false);
                };
                let before = body.clone();
                let (_, ended) = body.pass(std::slice::from_ref(first));
                length += u64::from(before.is_in_content());
                bytes = rest;
                match ended {
                    None => {}
                    Some(Ok(())) => break,
                    Some(Err(refusal)) => panic!("{refusal} has passed"),
                }
            }
        }
        lengths.push(length);
        if good.last {
            break;
        }
    }
    (lengths, true)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Returns the body lengths that hyper's server reads, and its error if there is one.
async fn read_by_hyper(bytes: &[u8]) -> (Vec<u64>, Option<hyper::Error>) {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(bytes).await.expect("there is room");
    near.shutdown().await.expect("it is open");
    let lengths = Mutex::new(Vec::new());
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
        if let Ok(body) = request.into_body().collect().await {
            lengths.lock().expect("no panic").push(body.to_bytes().len() as u64);
        }
        Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let ended = http.half_close(true).serve_connection(TokioIo::new(far), service).await;
    let lengths = lengths.lock().expect("no panic").clone();
    (lengths, ended.err())
}

/// Returns status and body as hyper's client reads them, if they are complete.
async fn answer_by_hyper(bytes: Vec<u8>, method: http::Method) -> Option<(u16, Vec<u8>)> {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(far)).await.ok()?;
    let request = http::Request::builder()
        .method(method)
        .header("host", "a")
        .body(Full::<Bytes>::default());
    let exchange = async {
        let response = sender.send_request(request.ok()?).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?;
        Some((status, body.to_bytes().to_vec()))
    };
    let backend = async {
        let mut head = [0; 4096];
        let _ = near.read(&mut head).await;
        let _ = near.write_all(&bytes).await;
        let _ = near.shutdown().await;
        let _ = near.read(&mut head).await;
    };
    tokio::join!(
        exchange,
        async {
            let _ = connection.await;
        },
        backend
    )
    .0
}

#[test]
fn hyper_delivers_the_answers_that_pass() {
    let runtime = runtime();
    for (text, status, body) in [
        ("HTTP/1.1 200 OK~Content-Length: 2~~ok", 200, "ok"),
        ("HTTP/1.1 200~Content-Length: 2~~ok", 200, "ok"),
        ("HTTP/1.0 200 ~~until the end", 200, "until the end"),
        (
            "HTTP/1.1 100 Continue~~HTTP/1.1 103 Early~Link: x~~HTTP/1.1 204 No~Content-Length: 0~~",
            204,
            "",
        ),
        (
            "HTTP/1.1 599 \u{e9}~Transfer-Encoding: chunked~~2 ;a=\"b\"~ok~0~T: v~~",
            599,
            "ok",
        ),
        ("HTTP/1.1 304 No~Content-Length: 9~~", 304, ""),
    ] {
        let (passed, _) = screened(answers(false), vec![&wire(text)], 8192);
        assert_eq!(passed, wire(text));
        let read = runtime.block_on(answer_by_hyper(passed, http::Method::GET));
        assert_eq!(read, Some((status, body.as_bytes().to_vec())), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..cases::counted() })]

    #[test]
    fn properties_hyper_reads_the_same_messages(bytes in traffic()) {
        let (passed, _) = screened(Screen::requests(LIMITS), vec![&bytes], 8192);
        let (ours, between) = read_by_us(&passed);
        let (theirs, error) = runtime().block_on(read_by_hyper(&passed));
        prop_assert_eq!(&theirs, &ours, "{:?}", String::from_utf8_lossy(&passed));
        if between {
            prop_assert!(error.is_none(), "{:?}: {:?}", error, String::from_utf8_lossy(&passed));
        }
    }
}
