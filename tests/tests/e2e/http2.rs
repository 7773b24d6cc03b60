//! Checks HTTP/2 from callers: many requests on one connection, and the end of one does not affect the others.

use std::time::Duration;

use bytes::Bytes;
use fixtures::fleet::{Fleet, Handle};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use h2::client::Builder;
use h2::ext::Protocol;
use http::{HeaderValue, Method};
use tests::configs::{Config, UNGUARDED};
use tests::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame};
use tests::http2_caller::{Http2, Stream};
use tests::tls::{Authority, Tls};
use tests::{Gateway, Setup, Signal, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::{SOON, backends, one_backend};

const OVERDUE: &str = "gateway_connections_overdue_total";
const API: [(&str, &str); 1] = [("backend", "api")];

async fn start(top: &str) -> (Fleet, Handle, Gateway) {
    start_guarded(top, UNGUARDED).await
}

async fn start_guarded(top: &str, guards: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().top(top).open("api", api.address(), guards);
    (fleet, api, Gateway::start(config.to_string()).await)
}

/// A request that is under way at the backend.
async fn held(caller: &Http2, api: &Handle) -> Stream {
    let before = api.counts().at_gate;
    let stream = caller.send(caller.request(Method::GET, "/api/echo"), true).await;
    api.wait_for(|counts| counts.at_gate > before, SOON)
        .await
        .expect("the backend is asked");
    stream.expect("the gateway takes requests")
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let (_fleet, api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    caller.get("/api/echo").await.expect("an answer");
    assert_eq!(caller.streams(), 100);
    api.close_gate();
    let asked = join_all((0..50).map(|_| caller.get("/api/echo")));
    let all_wait = async {
        api.wait_for(|counts| counts.at_gate == 50, SOON)
            .await
            .expect("all are asked at once");
        api.open_gate();
    };
    let (answers, ()) = tokio::join!(asked, all_wait);
    for answer in answers {
        assert_eq!(answer.expect("an answer").status, 200);
    }
    assert_eq!(gateway.metric("gateway_connections_total", &[]).await, 1.0);
    assert_eq!(gateway.metric("gateway_requests_in_flight", &[]).await, 0.0);
}

#[tokio::test]
async fn uploads_that_wait_hold_up_no_other() {
    const WAITING: usize = 80;
    let (_fleet, [busy, well]) = backends(["busy", "well"]).await;
    let queue = "retry: off, breaker: off, bulkhead: { limit: 1, queue: 100, wait: 1m }";
    let config = Config::default()
        .top("time_limits: { request: 90s }")
        .open("busy", busy.address(), queue)
        .open("well", well.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let caller = Http2::connect(gateway.address()).await;
    caller.get("/well/echo").await.expect("an answer");
    busy.close_gate();
    let upload = async |path, size| {
        let request = caller.request(Method::POST, path);
        let mut stream = caller.send(request, false).await.expect("the gateway takes requests");
        stream
            .upload
            .send_data(Bytes::from(vec![b'x'; size]), true)
            .expect("the stream is open");
        stream
    };
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        waiting.push(upload("/busy/echo", 256 << 10).await);
    }
    let answer = upload("/well/mirror", 1 << 20).await.whole().await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    assert!(gateway.metric("gateway_requests_in_flight", &[]).await >= WAITING as f64);
}

#[tokio::test]
async fn a_request_says_to_the_backend_what_it_would_say_over_http1() {
    let (_fleet, api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    let mut request = caller.request(Method::POST, "/api/mirror?a=b%20c");
    for (name, value) in [
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("x-tenant-id", "forged"),
        ("te", "trailers"),
    ] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let mut stream = caller.send(request, false).await.expect("it is taken");
    stream
        .upload
        .send_data(Bytes::from_static(b"hello"), true)
        .expect("there is room");
    let answer = stream.whole().await.expect("an answer");
    assert_eq!(answer.status, 200);
    let seen = &api.requests()[0];
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/mirror?a=b%20c")
    );
    assert_eq!(seen.header_values("cookie"), ["a=b; c=d"]);
    assert_ne!(seen.header("x-tenant-id"), Some("forged"));
    assert_eq!(
        seen.header("x-forwarded-host"),
        Some(gateway.address().to_string().as_str())
    );
    assert_eq!(seen.body, b"hello");
    assert!(!answer.headers.contains_key("connection"), "{answer:?}");
}

#[tokio::test]
async fn a_backend_that_is_to_see_the_callers_host_sees_its_authority() {
    let (_fleet, api, gateway) = start_guarded("", "preserve_host: true, retry: off").await;
    let caller = Http2::connect(gateway.address()).await;
    caller.get("/api/echo").await.expect("an answer");
    let seen = &api.requests()[0];
    assert_eq!(seen.header("host"), Some(gateway.address().to_string().as_str()));
}

#[tokio::test]
async fn large_bodies_go_both_ways_beside_each_other() {
    let (_fleet, _api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    let up_and_down = async |byte: u8| {
        let body = vec![byte; 3_000_000];
        let mut stream = caller
            .send(caller.request(Method::POST, "/api/mirror"), false)
            .await
            .expect("it is taken");
        let upload = async {
            for piece in body.chunks(50_000) {
                stream.upload.reserve_capacity(piece.len());
                let mut left = Bytes::copy_from_slice(piece);
                while !left.is_empty() {
                    let room = std::future::poll_fn(|cx| stream.upload.poll_capacity(cx)).await;
                    let room = room.expect("the stream goes on").expect("no error").min(left.len());
                    stream
                        .upload
                        .send_data(left.split_to(room), false)
                        .expect("there is room");
                }
            }
            stream.upload.send_data(Bytes::new(), true).expect("it ends");
        };
        within(SOON, "the body is taken", upload).await;
        let answer = stream.whole().await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes", answer.body.len());
    };
    join_all((0..4).map(up_and_down)).await;
}

#[tokio::test]
async fn a_refusal_is_the_same_in_both_protocols() {
    let (_fleet, _api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    let answer = caller.get("/nowhere").await.expect("an answer");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-gateway-reason"), "no_route");
    assert!(answer.text().contains("\"reason\":\"no_route\""), "{answer:?}");
    let mut request = caller.request(Method::GET, "/api/echo");
    let long = HeaderValue::try_from("x".repeat(70_000)).expect("a value");
    request.headers_mut().insert("x-long", long);
    let answer = caller.send(request, true).await.expect("it is taken").whole().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 431);
    assert_eq!(answer.header("x-gateway-reason"), "headers_too_large");
    let mut trace = caller.request(Method::CONNECT, "/");
    *trace.uri_mut() = http::Uri::from_static("somewhere.test:80");
    let answer = caller.send(trace, true).await.expect("it is taken").whole().await;
    assert_eq!(answer.expect("an answer").status, 405);
}

#[tokio::test]
async fn a_caller_who_cancels_frees_its_slot_and_disturbs_no_neighbour() {
    let (_fleet, api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    api.close_gate();
    let (leaves, stays) = (held(&caller, &api).await, held(&caller, &api).await);
    assert_eq!(gateway.metric("gateway_bulkhead_in_use", &API).await, 2.0);
    leaves.cancel();
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 1.0).await;
    api.wait_for(|counts| counts.cancelled == 1, SOON)
        .await
        .expect("the backend sees its caller leave");
    api.open_gate();
    assert_eq!(stays.whole().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_deadline_ends_a_stream_and_not_the_connection() {
    let (_fleet, api, gateway) = start("time_limits: { request: 400ms, reserve: 100ms }").await;
    let caller = Http2::connect(gateway.address()).await;
    api.close_gate();
    let answer = held(&caller, &api).await.whole().await.expect("an answer");
    assert_eq!((answer.status, answer.header("x-gateway-reason")), (504, "out_of_time"));
    api.open_gate();
    assert_eq!(caller.get("/api/echo").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn no_more_streams_are_open_at_once_than_may_be() {
    let (_fleet, api, gateway) = start("connection_limits: { streams: 2 }").await;
    let caller = Http2::connect(gateway.address()).await;
    caller.get("/api/echo").await.expect("an answer");
    assert_eq!(caller.streams(), 2);
    // A caller that exceeds the limit is refused, and none of its requests begins.
    api.close_gate();
    let mut rude = gateway.connect().await;
    let block = frames::fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/api/echo"),
        (":authority", "a"),
    ]);
    let get = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block);
    rude.send([frames::begin(), get(1), get(3), get(5)].concat()).await;
    let mut came = Vec::new();
    let (.., stream, code) = loop {
        came.extend(rude.piece().await.expect("a connection that goes on"));
        let mut frames = frames::read(&came).into_iter();
        if let Some(reset) = frames.find(|(kind, ..)| *kind == RST_STREAM) {
            break reset;
        }
    };
    assert_eq!((stream, code), (5, vec![0, 0, 0, 7]), "REFUSED_STREAM");
    api.wait_for(|counts| counts.at_gate == 2, SOON)
        .await
        .expect("two are asked");
    api.open_gate();
}

#[tokio::test]
async fn a_connection_ends_with_the_last_request_it_may_bring() {
    let (_fleet, api, gateway) = start("connection_limits: { requests: 3 }").await;
    let caller = Http2::connect(gateway.address()).await;
    api.close_gate();
    let streams = [
        held(&caller, &api).await,
        held(&caller, &api).await,
        held(&caller, &api).await,
    ];
    api.open_gate();
    for stream in streams {
        assert_eq!(stream.whole().await.expect("an answer").status, 200);
    }
    caller.ended().await.expect("it ends in good order");
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_says_goodbye() {
    let (_fleet, api, mut gateway) = start("time_limits: { drain: 10s }").await;
    let (caller, idle) = (
        Http2::connect(gateway.address()).await,
        Http2::connect(gateway.address()).await,
    );
    idle.get("/api/echo").await.expect("an answer");
    api.close_gate();
    let streams = [held(&caller, &api).await, held(&caller, &api).await];
    gateway.signal(Signal::Term);
    idle.ended().await.expect("it ends in good order");
    api.open_gate();
    for stream in streams {
        assert_eq!(stream.whole().await.expect("an answer").status, 200);
    }
    caller.ended().await.expect("it ends in good order");
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_drain_waits_for_the_rest_of_an_answer_that_a_caller_has_no_room_for() {
    let (_fleet, _api, mut gateway) = start("time_limits: { drain: 20s }").await;
    let caller = Http2::connect(gateway.address()).await;
    let large = caller.request(Method::GET, "/api/bytes/80000");
    let answer = caller.send(large, true).await.expect("it is taken").head().await;
    let mut body = answer.expect("a head").into_body();
    let mut come = 0;
    while come < 65_535 {
        come += within(SOON, "what there is room for", body.data())
            .await
            .expect("more")
            .expect("more")
            .len();
    }
    gateway.signal(Signal::Term);
    tokio::time::sleep(Duration::from_secs(4)).await;
    body.flow_control().release_capacity(come).expect("it was taken");
    while let Some(piece) = within(SOON, "the rest", body.data()).await {
        come += piece.expect("the rest comes").len();
    }
    assert_eq!(come, 80_000);
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_body_that_is_reset_is_not_whole_whatever_the_reason() {
    let (_fleet, api, gateway) = start("").await;
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/api/echo"),
        (":authority", "a"),
    ];
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let mut caller = gateway.connect().await;
        let begins = frame(HEADERS, END_HEADERS, 1, &frames::fields(&head));
        caller.send([frames::begin(), begins].concat()).await;
        api.wait_for(|counts| counts.in_flight == 1, SOON)
            .await
            .expect("it is asked");
        let reset = frame(RST_STREAM, 0, 1, &u32::from(reason).to_be_bytes());
        caller.send([frame(DATA, 0, 1, b"half"), reset].concat()).await;
        api.wait_for(|counts| counts.in_flight == 0, SOON)
            .await
            .expect("it is over");
        let request = api.take_requests().pop().expect("it came");
        assert!(!request.body_complete, "{reason:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_cut_and_its_neighbours_are_not() {
    let (_fleet, api, gateway) = start("time_limits: { write: 300ms }").await;
    let small_windows = Builder::new().initial_window_size(1000).clone();
    let caller = Http2::connect_with(gateway.address(), &small_windows).await;
    let large = caller.request(Method::GET, "/api/bytes/1000000");
    let answer = caller.send(large, true).await.expect("it is taken").head().await;
    let mut body = answer.expect("a head").into_body();
    api.close_gate();
    let neighbour = held(&caller, &api).await;
    gateway.metric_becomes(OVERDUE, &[("awaited", "reader")], 1.0).await;
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 1.0).await;
    let ended = async {
        while let Some(piece) = body.data().await {
            piece?;
        }
        Ok::<_, h2::Error>(())
    };
    assert!(within(SOON, "the end of the answer", ended).await.is_err());
    eventually(SOON, "the log says why it was cut", || async {
        gateway.stdout().contains("took the answer too slowly").then_some(())
    })
    .await;
    api.open_gate();
    assert_eq!(neighbour.whole().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_and_its_neighbours_are_not() {
    let (_fleet, api, gateway) = start("minimum_rates: { grace: 300ms, body: 1KiB }").await;
    let caller = Http2::connect(gateway.address()).await;
    let slow = caller.request(Method::POST, "/api/mirror");
    let mut slow = caller.send(slow, false).await.expect("it is taken");
    slow.upload
        .send_data(Bytes::from_static(b"x"), false)
        .expect("there is room");
    api.close_gate();
    let neighbour = held(&caller, &api).await;
    let answer = slow.whole().await.expect("an answer");
    assert_eq!(
        (answer.status, answer.header("x-gateway-reason")),
        (408, "request_timeout")
    );
    gateway.metric_becomes(OVERDUE, &[("awaited", "body")], 1.0).await;
    api.open_gate();
    assert_eq!(neighbour.whole().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn who_keeps_the_connection_waiting_is_told_apart() {
    let (_fleet, _api, gateway) = start("time_limits: { head: 1ms, keep_alive: 1ms }").await;
    let idle = Http2::connect(gateway.address()).await;
    idle.ended().await.expect("it ends in good order");
    gateway
        .metric_becomes(OVERDUE, &[("awaited", "next_request")], 1.0)
        .await;
    // Part of a preface, and part of a head.
    for piece in [
        &b"PRI * HTTP/2.0\r\n"[..],
        &[frames::begin(), frame(HEADERS, 0, 1, &[0x82])].concat(),
    ] {
        let mut half = gateway.connect().await;
        half.send(piece).await;
        half.rest().await;
    }
    gateway.metric_becomes(OVERDUE, &[("awaited", "head")], 2.0).await;
}

#[tokio::test]
async fn the_preface_may_come_in_pieces_and_all_else_is_http1() {
    let (_fleet, _api, gateway) = start("").await;
    for cut in [1, 3, 4, 23] {
        let mut slow = gateway.connect().await;
        let begin = frames::begin();
        slow.send(&begin[..cut]).await;
        // The pause lets the frames be read one by one.
        tokio::time::sleep(Duration::from_millis(20)).await;
        slow.send(&begin[cut..]).await;
        let came = slow.take(9).await;
        assert_eq!(frames::read(&[came, vec![0; 100]].concat())[0].0, frames::SETTINGS);
    }
    let mut old = gateway.connect().await;
    old.send("P").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    old.send("OST /api/mirror HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert!(old.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_listener_speaks_what_it_is_told_to() {
    let authority = Authority::new("public");
    let edge = authority.issue(&["edge.test"]);
    let tls = "certificates: [{ cert_file: edge.pem, key_file: edge.key }]";
    let top = format!(
        "listeners:\n  public: {{ address: \"127.0.0.1:0\", protocols: [http1] }}\n  new: {{ address: \"127.0.0.1:0\", protocols: [h2] }}\n  \
         secure: {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }}\n\
         tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }} }}\ncallers: {{ anonymous: {{ by: client_address, tier: open }} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n"
    );
    let config = Config::with(top).route(
        "hello",
        "{ match: { path: /hello }, access: { any_of: [anonymous] }, respond: { body: hello } }",
    );
    let gateway = Setup::new(config.to_string())
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .start()
        .await;

    let mut old = gateway.connect().await;
    old.send(frames::begin()).await;
    assert!(old.head().await.starts_with("HTTP/1.1 400"));
    let new = Http2::connect(gateway.address_of("new")).await;
    assert_eq!(new.get("/hello").await.expect("an answer").text(), "hello");
    let mut old = tests::Raw::connect(gateway.address_of("new")).await;
    old.send("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!old.rest().await.contains("hello"));

    let secure = gateway.address_of("secure");
    let offers = Tls::new(&authority, "edge.test").offering(&["h2", "http/1.1"]);
    let stream = offers.connect(secure).await.expect("hands are shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let caller = Http2::over(stream, "edge.test".to_owned(), &Builder::new()).await;
    assert_eq!(caller.get("/hello").await.expect("an answer").text(), "hello");
    // Without an offer it is what it always was.
    let stream = Tls::new(&authority, "edge.test").connect(secure).await;
    assert_eq!(stream.expect("hands are shaken").get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_terms() {
    let (_fleet, _api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    let mut request = caller.request(Method::POST, "/no.such.Service/Method");
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let answer = caller.send(request, true).await.expect("it is taken").whole().await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"));
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(answer.header("x-gateway-reason"), "no_route");
    assert!(
        answer.header("grpc-message").contains("Nothing is served here"),
        "{answer:?}"
    );
    assert!(answer.body.is_empty(), "{answer:?}");
    let logged = "\"status\":200,\"grpc_status\":12,\"reason\":\"no_route\"";
    eventually(SOON, "the log has its status", || async {
        gateway.stdout().contains(logged).then_some(())
    })
    .await;
}

/// Echoes WebSocket messages until it is closed, over and over.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.expect("a handshake");
                while let Some(Ok(message)) = socket.next().await {
                    if !message.is_close() && socket.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A WebSocket on a stream (RFC 8441); `Err` with the answer's status if it is not opened.
async fn open(caller: &Http2, path: &str) -> Result<WebSocketStream<DuplexStream>, u16> {
    let mut request = caller.request(Method::CONNECT, path);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let version = HeaderValue::from_static("13");
    request.headers_mut().insert("sec-websocket-version", version);
    let Stream { mut upload, response } = caller.send(request, false).await.expect("it is taken");
    let response = within(SOON, "an answer", response).await.expect("an answer");
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    for field in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(field), "{response:?}");
    }
    let (ours, theirs) = duplex(1 << 20);
    let (mut from_test, mut to_test) = tokio::io::split(theirs);
    let mut download = response.into_body();
    tokio::spawn(async move {
        while let Some(Ok(piece)) = download.data().await {
            let released = download.flow_control().release_capacity(piece.len());
            if released.is_err() || to_test.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to_test.shutdown().await;
    });
    tokio::spawn(async move {
        let mut piece = vec![0; 16_000];
        while let Ok(count @ 1..) = from_test.read(&mut piece).await {
            if upload
                .send_data(Bytes::copy_from_slice(&piece[..count]), false)
                .is_err()
            {
                break;
            }
        }
        let _ = upload.send_data(Bytes::new(), true);
    });
    Ok(WebSocketStream::from_raw_socket(ours, Role::Client, None).await)
}

#[tokio::test]
async fn websockets_open_on_streams_beside_requests() {
    let (_fleet, plain) = one_backend("plain").await;
    let config = Config::default()
        .top("time_limits: { drain: 10s }")
        .backend("echo", echo().await, UNGUARDED)
        .open_route("ws", "echo", "upgrade: websocket")
        .open("plain", plain.address(), UNGUARDED)
        .open_route("deaf", "plain", "upgrade: websocket");
    let mut gateway = Gateway::start(config.to_string()).await;
    let caller = Http2::connect(gateway.address()).await;
    caller.get("/plain/echo").await.expect("an answer");

    assert_eq!(
        open(&caller, "/plain/room").await.err(),
        Some(405),
        "it is no route for that"
    );
    let answered = open(&caller, "/deaf/bytes/10").await.err();
    assert_eq!(answered, Some(502), "whoever answers has not switched");
    assert_eq!(open(&caller, "/deaf/status/403").await.err(), Some(403));

    let (mut one, mut two) = (
        open(&caller, "/ws/a").await.expect("it opens"),
        open(&caller, "/ws/b").await.expect("it opens"),
    );
    gateway.metric_becomes("gateway_tunnels", &[], 2.0).await;
    for socket in [&mut one, &mut two] {
        let message = Message::binary(vec![7; 100_000]);
        socket.send(message.clone()).await.expect("it takes messages");
        let back = within(SOON, "a message", socket.next()).await;
        assert_eq!(back.expect("no end").expect("no break"), message);
    }
    one.close(None).await.expect("it closes");
    while let Some(Ok(_)) = within(SOON, "the end", one.next()).await {}
    gateway.metric_becomes("gateway_tunnels", &[], 1.0).await;
    assert_eq!(caller.get("/plain/echo").await.expect("an answer").status, 200);

    gateway.signal(Signal::Term);
    let parting = within(SOON, "a parting", two.next()).await;
    let Some(Ok(Message::Close(Some(close)))) = parting else {
        panic!("{parting:?}")
    };
    assert_eq!(u16::from(close.code), 1001);
    drop(two);
    caller.ended().await.expect("it ends in good order");
    assert_eq!(gateway.wait_exit().await, Some(0));
}
