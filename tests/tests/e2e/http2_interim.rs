//! Checks what reaches an HTTP/2 caller ahead of its answer: early hints of the backend, and `100 Continue`.

use std::future::poll_fn;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderValue, Method, Response};
use tests::configs::{Config, UNGUARDED};
use tests::http2_caller::{Http2, Stream};
use tests::{Gateway, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;

use crate::SOON;

/// Starts a gateway in front of a backend that the test plays.
async fn start(guards: &str, route: &str) -> (TcpListener, Gateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let config = Config::default()
        .top("workers: 1")
        .backend("api", address, guards)
        .open_route("api", "api", route);
    (listener, Gateway::start(config.to_string()).await)
}

/// Accepts a connection and reads the head of its first request.
async fn asked(listener: &TcpListener) -> (TcpStream, String) {
    let (mut backend, _) = within(SOON, "a connection", listener.accept()).await.expect("it comes");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(SOON, "a head", backend.read_u8()).await.expect("a head"));
    }
    (backend, String::from_utf8_lossy(&head).into_owned())
}

async fn say(backend: &mut TcpStream, text: &str) {
    let bytes = text.replace('~', "\r\n").into_bytes();
    backend.write_all(&bytes).await.expect("it is open");
}

/// Returns the next interim answer.
async fn interim(stream: &mut Stream) -> Response<()> {
    let polled = poll_fn(|cx| stream.response.poll_informational(cx));
    let answer = within(SOON, "an interim answer", polled).await;
    answer.expect("one before the answer").expect("no error")
}

/// Returns the interim answers that have come ahead of the answer, once that has come.
async fn until_answer(stream: &mut Stream) -> (Vec<u16>, u16) {
    let mut interim = Vec::new();
    let answer = poll_fn(|cx| {
        while let std::task::Poll::Ready(Some(answer)) = stream.response.poll_informational(cx) {
            interim.push(answer.expect("no error").status().as_u16());
        }
        std::pin::Pin::new(&mut stream.response).poll(cx)
    });
    let answer = within(SOON, "an answer", answer).await.expect("an answer");
    (interim, answer.status().as_u16())
}

#[tokio::test]
async fn early_hints_come_before_the_answer_of_their_own_stream() {
    const HINT: &str = "~link: </a.css>; rel=preload~connection: x-hop~x-hop: 1~x-gateway-x: 2~~";
    let (listener, gateway) = start(UNGUARDED, "").await;
    let caller = Http2::connect(gateway.address()).await;
    let ask = async || {
        let request = caller.request(Method::GET, "/api/page");
        caller.send(request, true).await.expect("it is taken")
    };
    let mut first = ask().await;
    let (mut of_first, _) = asked(&listener).await;
    let mut second = ask().await;
    let (mut of_second, _) = asked(&listener).await;
    say(
        &mut of_second,
        &format!("HTTP/1.1 100 Continue~~HTTP/1.1 103 Early Hints{HINT}"),
    )
    .await;
    let hint = interim(&mut second).await;
    assert_eq!(hint.status(), 103, "nothing of the answer has come");
    assert_eq!(hint.headers()["link"], "</a.css>; rel=preload");
    for field in ["connection", "x-hop", "x-gateway-x", "date"] {
        assert!(!hint.headers().contains_key(field), "{hint:?}");
    }
    say(&mut of_first, "HTTP/1.1 200 OK~content-length: 2~~ok").await;
    assert_eq!(until_answer(&mut first).await, (vec![], 200));
    let answer = format!("HTTP/1.1 102 Processing{HINT}HTTP/1.1 404 Not Found~content-length: 0~~");
    say(&mut of_second, &answer).await;
    assert_eq!(until_answer(&mut second).await, (vec![102], 404));
}

#[tokio::test]
async fn early_hints_that_are_dropped_and_switches_that_nothing_asked_for_do_not_come() {
    let guards = format!("connections: {{ informational: drop }}, {UNGUARDED}");
    let hint = "HTTP/1.1 103 Early Hints~link: </a>~~HTTP/1.1 200 OK~content-length: 0~~";
    let switch = "HTTP/1.1 101 Switching Protocols~connection: upgrade~upgrade: websocket~~";
    for (guards, says, status) in [(&*guards, hint, 200), (UNGUARDED, switch, 502)] {
        let (listener, gateway) = start(guards, "").await;
        let caller = Http2::connect(gateway.address()).await;
        let mut stream = caller
            .send(caller.request(Method::GET, "/api/page"), true)
            .await
            .expect("it is taken");
        let (mut backend, _) = asked(&listener).await;
        say(&mut backend, says).await;
        assert_eq!(until_answer(&mut stream).await, (vec![], status), "{says}");
    }
}

/// RFC 9110 section 10.1.1: the backend says whether an upload comes at all, and one that says nothing gets it.
#[tokio::test]
async fn a_caller_that_asks_before_it_uploads_is_told_to_go_on_or_refused() {
    for (says, is_wanted) in [
        ("HTTP/1.1 100 Continue~~", true),
        ("HTTP/1.1 413 Too Large~content-length: 0~~", false),
        ("", true),
    ] {
        let (listener, gateway) = start(UNGUARDED, "").await;
        let caller = Http2::connect(gateway.address()).await;
        let mut request = caller.request(Method::POST, "/api/upload");
        for (name, value) in [("expect", "100-continue"), ("content-length", "5")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let mut stream = caller.send(request, false).await.expect("it is taken");
        let (mut backend, head) = asked(&listener).await;
        assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
        say(&mut backend, says).await;
        if !is_wanted {
            assert_eq!(until_answer(&mut stream).await, (vec![], 413));
            continue;
        }
        assert_eq!(interim(&mut stream).await.status(), 100, "{says:?}");
        let sent = stream.upload.send_data(Bytes::from_static(b"hello"), true);
        sent.expect("the stream is open");
        let mut body = [0; 5];
        within(SOON, "the body", backend.read_exact(&mut body))
            .await
            .expect("the body");
        assert_eq!(&body, b"hello");
        say(&mut backend, "HTTP/1.1 200 OK~content-length: 0~~").await;
        assert_eq!(until_answer(&mut stream).await, (vec![], 200));
    }
}

/// A refusal by the gateway itself comes in place of `100 Continue`; an upload that has come already needs none.
#[tokio::test]
async fn a_caller_is_not_told_to_go_on_for_nothing() {
    let (listener, gateway) = start(UNGUARDED, "").await;
    let caller = Http2::connect(gateway.address()).await;
    let asks = |path| {
        let mut request = caller.request(Method::POST, path);
        let expected = HeaderValue::from_static("100-continue");
        request.headers_mut().insert("expect", expected);
        request
    };
    let mut refused = caller.send(asks("/nowhere"), false).await.expect("it is taken");
    assert_eq!(until_answer(&mut refused).await, (vec![], 404));
    let mut whole = caller.send(asks("/api/upload"), false).await.expect("it is taken");
    let sent = whole.upload.send_data(Bytes::from_static(b"hello"), true);
    sent.expect("the stream is open");
    let (mut backend, _) = asked(&listener).await;
    // A second stream shows that the body of the first has come.
    caller.get("/nowhere").await.expect("an answer");
    say(&mut backend, "HTTP/1.1 100 Continue~~").await;
    let mut body = Vec::new();
    while !body.ends_with(b"0\r\n\r\n") {
        body.push(within(SOON, "the body", backend.read_u8()).await.expect("the body"));
    }
    assert!(body.starts_with(b"5\r\nhello\r\n"), "{body:?}");
    say(&mut backend, "HTTP/1.1 200 OK~content-length: 0~~").await;
    assert_eq!(until_answer(&mut whole).await, (vec![], 200));
}

#[tokio::test]
async fn a_websocket_whose_backend_breaks_off_ends_with_cancel() {
    let (listener, gateway) = start(UNGUARDED, "upgrade: websocket").await;
    let caller = Http2::connect(gateway.address()).await;
    let mut request = caller.request(Method::CONNECT, "/api/chat");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let version = HeaderValue::from_static("13");
    request.headers_mut().insert("sec-websocket-version", version);
    let stream = caller.send(request, false).await.expect("it is taken");
    let (backend, _) = within(SOON, "a connection", listener.accept()).await.expect("it comes");
    let socket = accept_async(backend).await.expect("a WebSocket");
    let Stream { upload, response } = stream;
    let answer = within(SOON, "an answer", response).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let backend = socket.get_ref();
    backend.set_zero_linger().expect("a connected socket takes options");
    drop(socket);
    let ended = within(SOON, "the end of the stream", answer.into_body().data()).await;
    let error = ended.expect("no orderly end").expect_err("a reset");
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    drop(upload);
}

/// Plays a backend on HTTP/2 that sends an early hint ahead of each answer, and more of them than may come if asked to.
async fn hinting() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut backend = h2::server::handshake(stream).await.expect("it speaks HTTP/2");
                while let Some(Ok((request, mut caller))) = backend.accept().await {
                    let count = if request.uri().path() == "/flood" { 101 } else { 1 };
                    for _ in 0..count {
                        let hint = Response::builder()
                            .status(103)
                            .header("link", "</a.css>; rel=preload")
                            .header("x-gateway-x", "2");
                        let hint = hint.body(()).expect("a head");
                        // The last ones find the stream reset.
                        let _ = caller.send_informational(hint);
                    }
                    let _ = caller.send_response(Response::new(()), true);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn early_hints_of_a_backend_on_http2_come_too() {
    for (informational, expected) in [("forward", vec![103]), ("drop", vec![])] {
        let guards = format!("protocol: h2c, connections: {{ informational: {informational} }}, {UNGUARDED}");
        let config = Config::default().open("api", hinting().await, &guards);
        let gateway = Gateway::start(config.to_string()).await;
        let caller = Http2::connect(gateway.address()).await;
        let ask = async |path| {
            let request = caller.request(Method::GET, path);
            caller.send(request, true).await.expect("it is taken")
        };
        let mut stream = ask("/api/page").await;
        if informational == "forward" {
            let hint = interim(&mut stream).await;
            assert_eq!(hint.headers()["link"], "</a.css>; rel=preload");
            assert!(!hint.headers().contains_key("x-gateway-x"), "{hint:?}");
            assert_eq!(until_answer(&mut stream).await, (vec![], 200));
        } else {
            assert_eq!(until_answer(&mut stream).await, (vec![], 200));
        }
        let mut caller = gateway.connect().await;
        caller
            .send("GET /api/page HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        let all = caller.rest().await;
        let told: Vec<u16> = all.matches("HTTP/1.1 103 ").map(|_| 103).collect();
        assert_eq!(told, expected, "{all}");
        assert!(all.contains("HTTP/1.1 200 "), "{all}");
        gateway.get("/api/flood").send().await.refusal(502, "backend_invalid");
    }
}
