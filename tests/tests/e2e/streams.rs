//! Checks long-lived answers: streams and tunnels have their own slots, a longest life, and must show that the peer is
//! present.

use std::time::Duration;

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method};
use tests::configs::{Config, UNGUARDED};
use tests::http2::{Http2 as Http2Backend, Manner};
use tests::http2_caller::Http2;
use tests::{Failure, Gateway, Setup, eventually, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::{SOON, one_backend};

const API: [(&str, &str); 1] = [("backend", "api")];
const CHAT: [(&str, &str); 1] = [("backend", "chat")];
const STREAMS: &str = "gateway_bulkhead_streams_in_use";
const CALLS: &str = "gateway_bulkhead_in_use";

/// A backend that answers handshakes and then every message, until the caller leaves.
async fn echoes() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await?;
                while let Some(message) = socket.next().await {
                    let message = message?;
                    if message.is_text() {
                        socket.send(message).await?;
                    }
                }
                Ok::<(), Error>(())
            });
        }
    });
    address
}

async fn open(gateway: &Gateway, path: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(gateway.address())
        .await
        .expect("the gateway listens");
    let request = format!("ws://{}{path}", gateway.address()).into_client_request()?;
    let opened = within(SOON, "a handshake", client_async(request, stream)).await;
    opened.map(|(socket, _)| socket)
}

async fn start(top: &str, guards: &str, route: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top(top)
        .backend("api", api.address(), &format!("retry: off, breaker: off, {guards}"))
        .open_route("api", "api", route)
        .open_route(
            "long",
            "api",
            &format!("stream: true{}{route}", if route.is_empty() { "" } else { ", " }),
        );
    (fleet, api, Gateway::start(config.to_string()).await)
}

#[tokio::test]
async fn tunnels_take_no_slot_of_a_call_and_half_as_many_are_there_by_default() {
    let (_fleet, api) = one_backend("api").await;
    let guards = "retry: off, breaker: off, bulkhead: { limit: 4, queue: 0 }";
    let config = Config::default()
        .backend("chat", echoes().await, guards)
        .open_route("ws", "chat", "upgrade: websocket")
        .open("api", api.address(), guards);
    let gateway = Gateway::start(config.to_string()).await;
    let (one, _two) = (open(&gateway, "/ws/a").await, open(&gateway, "/ws/b").await);
    let mut one = one.expect("the first");
    match open(&gateway, "/ws/c").await {
        Err(Error::Http(refusal)) => assert_eq!(refusal.headers()["x-gateway-reason"], "bulkhead_full"),
        other => panic!("{other:?}"),
    }
    assert_eq!(gateway.metric("gateway_bulkhead_streams_limit", &CHAT).await, 2.0);
    assert_eq!(gateway.metric(STREAMS, &CHAT).await, 2.0);
    assert_eq!(gateway.metric(CALLS, &CHAT).await, 0.0);
    one.close(None).await.expect("it closes");
    while let Some(Ok(_)) = one.next().await {}
    eventually(SOON, "the slot is free again", || async {
        open(&gateway, "/ws/d").await.ok()
    })
    .await;
}

#[tokio::test]
async fn streams_leave_the_slots_of_calls_alone() {
    let (_fleet, api, gateway) = start("", "bulkhead: { limit: 2, queue: 0, streams: 2 }", "").await;
    let open = |path: &str| gateway.get(&format!("{path}?events=100000&every_ms=20")).open();
    let _declared = open("/long/sse").await.expect("a head");
    let _found_out = open("/api/sse").await.expect("a head");
    gateway.metric_becomes(STREAMS, &API, 2.0).await;
    gateway.metric_becomes(CALLS, &API, 0.0).await;
    let refused = gateway.get("/long/echo").send().await;
    refused.refusal(503, "bulkhead_full");
    api.close_gate();
    let calls = [(); 2].map(|()| tokio::spawn(gateway.get("/api/echo").send()));
    gateway.metric_becomes(CALLS, &API, 2.0).await;
    gateway.get("/api/echo").send().await.refusal(503, "bulkhead_full");
    api.open_gate();
    for call in calls {
        call.await.expect("no panic").expect(200);
    }
}

/// It cannot be refused any more, nor may it go on for ever: it is a call like any other.
#[tokio::test]
async fn a_stream_without_a_slot_of_its_own_ends_at_the_deadline_of_its_call() {
    let guards = "bulkhead: { limit: 2, queue: 0, streams: 1 }";
    let (_fleet, _api, gateway) = start("", guards, "time_limit: 600ms").await;
    let open = || gateway.get("/api/sse?events=100000&every_ms=20").open();
    let mut exempt = open().await.expect("a head");
    let mut other = open().await.expect("a head");
    assert_eq!(gateway.metric(CALLS, &API).await, 1.0);
    let broken = loop {
        match other.piece().await {
            Ok(piece) => assert!(piece.is_some(), "it did not come to its end"),
            Err(broken) => break broken,
        }
    };
    assert!(matches!(broken, Failure::Aborted { status: 200, .. }), "{broken}");
    gateway.metric_becomes(CALLS, &API, 0.0).await;
    for _ in 0..10 {
        assert!(exempt.piece().await.expect("it goes on").is_some());
    }
    eventually(SOON, "the log says why", || async {
        let log = gateway.stdout();
        log.contains("all slots for streams were taken").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_stream_that_has_lived_long_enough_ends_between_two_events() {
    let (_fleet, _api, gateway) = start("time_limits: { stream_limit: 500ms }", "", "").await;
    for path in ["/api/sse", "/long/sse"] {
        let mut stream = gateway
            .get(&format!("{path}?events=100000&every_ms=20"))
            .open()
            .await
            .expect("a head");
        let mut all = String::new();
        while let Some(piece) = stream.piece().await.expect("a proper end") {
            all.push_str(&String::from_utf8_lossy(&piece));
        }
        assert!(all.ends_with("\n\n") && all.matches("id: ").count() > 5, "{all:?}");
    }
}

#[tokio::test]
async fn a_web_socket_that_has_lived_long_enough_is_told_to_go() {
    let config = Config::default()
        .top("time_limits: { stream_limit: 500ms }")
        .backend("chat", echoes().await, "")
        .open_route("ws", "chat", "upgrade: websocket");
    let gateway = Gateway::start(config.to_string()).await;
    let mut socket = open(&gateway, "/ws/room").await.expect("it opens");
    let code = loop {
        // Whatever cannot be said any more has been answered by a word of the gateway.
        let _ = socket.send(Message::text("still here")).await;
        match within(SOON, "a message", socket.next()).await {
            Some(Ok(Message::Close(frame))) => break frame.map(|frame| frame.code),
            Some(Ok(message)) => assert_eq!(message, Message::text("still here")),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, Some(CloseCode::Away));
    gateway.metric_becomes(STREAMS, &CHAT, 0.0).await;
}

fn grpc_config(backend: &Http2Backend, top: &str) -> String {
    let route = "{ match: { path: \"/grpc.Test/{method}\" }, access: { any_of: [anonymous] }, backend: calls }";
    Config::default()
        .top(top)
        .backend("calls", backend.address(), "protocol: h2c, retry: off, breaker: off")
        .route("calls", route)
        .to_string()
}

/// A stream of gRPC that has begun, byte by byte.
async fn call(caller: &Http2, method: &str) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let mut request = caller.request(Method::POST, &format!("/grpc.Test/{method}"));
    let kind = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", kind);
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let stream = caller.send(request, false).await.expect("it is taken");
    let tests::http2_caller::Stream { mut upload, response } = stream;
    upload
        .send_data(Bytes::from_static(b"\0\0\0\0\x02go"), false)
        .expect("it is open");
    let answer = within(SOON, "a head", response).await.expect("a head");
    (upload, answer.into_body())
}

/// The status at its end; `meanwhile` is sent ten times a second.
async fn status(upload: &mut h2::SendStream<Bytes>, body: &mut h2::RecvStream, meanwhile: &'static [u8]) -> String {
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let end = async {
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    // The stream may have ended already.
                    let _ = upload.send_data(Bytes::from_static(meanwhile), false);
                }
                piece = body.data() => match piece {
                    Some(Ok(piece)) => body.flow_control().release_capacity(piece.len()).expect("it came"),
                    Some(Err(error)) => panic!("{error}"),
                    None => break,
                },
            }
        }
        body.trailers().await.expect("no break").expect("trailers")
    };
    let trailers = within(SOON, "the end of a stream", end).await;
    trailers["grpc-status"].to_str().expect("digits").to_owned()
}

#[tokio::test]
async fn a_stream_of_grpc_that_has_lived_long_enough_is_unavailable() {
    let backend = Http2Backend::start(Manner::default()).await;
    let gateway = Gateway::start(grpc_config(&backend, "time_limits: { stream_limit: 500ms }")).await;
    let caller = Http2::connect(gateway.address()).await;
    let (mut upload, mut body) = call(&caller, "Endless").await;
    assert_eq!(status(&mut upload, &mut body, b"").await, "14");
}

/// A byte now and then keeps nothing, a message does.
#[tokio::test]
async fn only_whole_messages_of_a_caller_break_a_silence() {
    let backend = Http2Backend::start(Manner::default()).await;
    let gateway = Gateway::start(grpc_config(&backend, "time_limits: { idle_stream: 700ms }")).await;
    let caller = Http2::connect(gateway.address()).await;
    let (mut upload, mut body) = call(&caller, "Listen").await;
    // The length of a message that takes its time.
    upload
        .send_data(Bytes::from_static(b"\0\0\0\x40\0"), false)
        .expect("it is open");
    assert_eq!(status(&mut upload, &mut body, b"x").await, "4");

    let (mut upload, mut body) = call(&caller, "Listen").await;
    let speaks = status(&mut upload, &mut body, b"\0\0\0\0\x01x");
    let outlives = tokio::time::timeout(Duration::from_millis(2100), speaks).await;
    assert!(outlives.is_err(), "it goes on for as long as its caller speaks");
}

#[tokio::test]
async fn no_tenant_takes_all_slots_by_default() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::with(
        "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
callers: { api_keys: { file: keys.yaml } }
",
    )
    .backend(
        "api",
        api.address(),
        "retry: off, breaker: off, bulkhead: { limit: 5, queue: 0 }",
    )
    .mapped("api", "api", "");
    let keys = key_file(&[KeyLine::new("a", "acme", "key-a"), KeyLine::new("b", "globex", "key-b")]);
    let gateway = Setup::new(config.to_string()).file("keys.yaml", &keys).start().await;
    let ask = |key| gateway.get("/api/echo").header("x-api-key", key).send();
    api.close_gate();
    let held: Vec<_> = (0..4).map(|_| tokio::spawn(ask("key-a"))).collect();
    api.wait_for(|counts| counts.at_gate == 4, SOON)
        .await
        .expect("four are asked");
    ask("key-a").await.refusal(503, "bulkhead_full");
    let other = tokio::spawn(ask("key-b"));
    api.wait_for(|counts| counts.at_gate == 5, SOON)
        .await
        .expect("the other has the fifth");
    api.open_gate();
    for answer in held.into_iter().chain([other]) {
        answer.await.expect("no panic").expect(200);
    }
}

/// The free tier admits twenty at once, unless it is written otherwise.
#[tokio::test]
async fn a_built_in_tier_bounds_what_is_under_way() {
    for (in_flight, most) in [("", 20), (", in_flight: off", 30)] {
        let (_fleet, api) = one_backend("api").await;
        let top = format!(
            "
listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}
admin: {{ address: \"127.0.0.1:0\" }}
callers: {{ anonymous: {{ by: client_address }} }}
tiers: {{ free: {{ rate: 1000/s, burst: 1000{in_flight} }} }}
"
        );
        let config = Config::with(top).open("api", api.address(), UNGUARDED);
        let gateway = Gateway::start(config.to_string()).await;
        api.close_gate();
        let held: Vec<_> = (0..most)
            .map(|_| tokio::spawn(gateway.get("/api/echo").send()))
            .collect();
        api.wait_for(|counts| counts.at_gate == most, SOON)
            .await
            .expect("all are asked");
        if in_flight.is_empty() {
            gateway.get("/api/echo").send().await.refusal(429, "too_many_in_flight");
        }
        api.open_gate();
        for answer in held {
            answer.await.expect("no panic").expect(200);
        }
    }
}

#[tokio::test]
async fn a_ping_does_not_keep_a_tunnel_alive_and_a_message_does() {
    let config = Config::default()
        .top("time_limits: { idle_stream: 700ms }")
        .backend("chat", echoes().await, "")
        .open_route("ws", "chat", "upgrade: websocket");
    let gateway = Gateway::start(config.to_string()).await;
    let mut socket = open(&gateway, "/ws/room").await.expect("it opens");
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    // The backend's library answers each of them.
    let ended = async {
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    let _ = socket.send(Message::Ping(tungstenite::Bytes::new())).await;
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                },
            }
        }
    };
    let code = within(SOON, "the gateway ends it", ended).await;
    assert_eq!(code, Some(CloseCode::Away));
    let mut socket = open(&gateway, "/ws/room").await.expect("it opens");
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        socket.send(Message::text("here")).await.expect("it is open");
        let back = within(SOON, "an echo", socket.next()).await;
        assert_eq!(back.expect("no end").expect("no break"), Message::text("here"));
    }
}
