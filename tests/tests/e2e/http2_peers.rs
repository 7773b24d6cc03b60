//! Checks HTTP/2 peers that send what no correct server sends, or nothing at all: written by hand, frame by frame.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use tests::configs::UNGUARDED;
use tests::http2_caller::Http2;
use tests::{Gateway, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http2_backends::config;

/// A peer that is written frame by frame: it opens a connection and does with each request what it is told.
async fn by_hand(answer: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            // Whatever breaks off is what its test is about.
            let _ = by_hand_on(&mut stream, |id| answer(number, id)).await;
        }
    });
    address
}

async fn by_hand_on(stream: &mut TcpStream, answer: impl Fn(u32) -> Vec<u8>) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == 1 {
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            stream.write_all(&answer(id)).await?;
        }
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `:status: 200` and the end (RFC 7541 appendix A, entry 8).
fn ok(id: u32) -> Vec<u8> {
    frame(1, 0x05, id, &[0x88])
}

fn goaway(last: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_elsewhere_in_the_same_attempt() {
    // The first connection answers one request and is gone for the second, which it has not looked at.
    let address = by_hand(|connection, id| match (connection, id) {
        (0, 3) => goaway(1),
        _ => ok(id),
    })
    .await;
    let gateway = Gateway::start(config(address, UNGUARDED)).await;
    for _ in 0..3 {
        gateway.post("/api/echo").body("one order").send().await.expect(200);
    }
    let attempts = [("backend", "api"), ("outcome", "answered")];
    assert_eq!(gateway.metric("gateway_backend_attempts_total", &attempts).await, 3.0);

    // One that leaves out everything is not asked for ever.
    let address = by_hand(|_, _| goaway(0)).await;
    let gateway = Gateway::start(config(address, UNGUARDED)).await;
    gateway
        .post("/api/echo")
        .body("one order")
        .send()
        .await
        .refusal(502, "backend_unreached");
}

#[tokio::test]
async fn an_answer_against_the_protocol_is_invalid() {
    // The empty name of a field.
    let address = by_hand(|_, id| frame(1, 0x05, id, &[0x88, 0x00, 0x00, 0x01, b'x'])).await;
    let gateway = Gateway::start(config(address, UNGUARDED)).await;
    gateway.get("/api/echo").send().await.refusal(502, "backend_invalid");
}

#[tokio::test]
async fn what_is_left_of_a_request_ends_with_its_answer() {
    // Without a word about the rest, which the caller goes on with.
    let address = by_hand(|_, id| ok(id)).await;
    let gateway = Gateway::start(config(address, UNGUARDED)).await;
    let caller = Http2::connect(gateway.address()).await;
    let request = caller.request(Method::POST, "/api/echo");
    let mut stream = caller.send(request, false).await.expect("the gateway takes requests");
    let half = Bytes::from_static(b"half");
    stream.upload.send_data(half, false).expect("the stream is open");
    let head = (&mut stream.response).await.expect("an answer");
    assert_eq!(head.status(), 200);
    gateway
        .metric_becomes("gateway_backend_exchanges", &[("backend", "api")], 0.0)
        .await;
}

#[tokio::test]
async fn a_peer_that_is_gone_is_noticed() {
    // The peer answers nothing, not even a PING.
    let address = by_hand(|_, _| Vec::new()).await;
    let more = format!("{UNGUARDED}, connections: {{ ping: 200ms }}, time_limit: 60s");
    let gateway = Setup::new(config(address, &more).replace("tiers:", "time_limits: { request: 90s }\ntiers:"))
        .start()
        .await;
    gateway.get("/api/echo").send().await.refusal(502, "backend_broken");
}
