//! Checks WebSockets through a route that allows them: both directions, while a peer sends, and closed with a close
//! frame.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tests::configs::Config;
use tests::tls::{Authority, Tls};
use tests::{Gateway, Setup, Signal, within};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::SOON;

const API: [(&str, &str); 1] = [("backend", "api")];

/// Echoes messages, and reports each head it has read and each code it was closed with.
struct Echo {
    address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
}

#[derive(Debug)]
enum Seen {
    Opened(http::HeaderMap),
    Closed(Option<u16>),
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, tell.clone()));
            }
        });
        Self { address, seen }
    }

    async fn serve(stream: TcpStream, tell: mpsc::UnboundedSender<Seen>) {
        #[allow(clippy::result_large_err)]
        let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            // Nobody listens any more once a test has seen enough.
            let _ = tell.send(Seen::Opened(request.headers().clone()));
            Ok(response)
        };
        let Ok(mut socket) = accept_hdr_async(stream, look).await else {
            return;
        };
        let mut code = None;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            } else if message.is_text() || message.is_binary() {
                let echoed = socket.send(message).await;
                if echoed.is_err() {
                    break;
                }
            }
        }
        let _ = tell.send(Seen::Closed(code));
    }

    async fn next(&mut self) -> Seen {
        within(SOON, "the backend sees something", self.seen.recv())
            .await
            .expect("it runs")
    }

    async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Seen::Closed(code) = self.next().await {
                return code;
            }
        }
    }
}

async fn start(top: &str, more: &str) -> (Echo, Gateway) {
    let echo = Echo::start().await;
    let config = Config::default()
        .top(top)
        .backend(
            "api",
            echo.address,
            "retry: off, bulkhead: { limit: 1, queue: 0, streams: 2 }",
        )
        .open_route("ws", "api", &format!("upgrade: websocket{more}"))
        .open_route("plain", "api", "");
    (echo, Gateway::start(config.to_string()).await)
}

async fn open_with(
    gateway: &Gateway,
    target: &str,
    fields: &[(&'static str, &'static str)],
) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(gateway.address())
        .await
        .expect("the gateway listens");
    let mut request = format!("ws://{}{target}", gateway.address()).into_client_request()?;
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    let opened = within(SOON, "a handshake", client_async(request, stream)).await;
    opened.map(|(socket, _)| socket)
}

async fn open(gateway: &Gateway) -> WebSocketStream<TcpStream> {
    open_with(gateway, "/ws/room", &[]).await.expect("it opens")
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Result<Message, Error>> {
    within(SOON, "a message", socket.next()).await
}

async fn echoes(socket: &mut WebSocketStream<TcpStream>, message: Message) {
    socket.send(message.clone()).await.expect("it takes messages");
    let back = next(socket).await.expect("no end").expect("no break");
    assert_eq!(back, message);
}

fn refusal(result: Result<WebSocketStream<TcpStream>, Error>) -> (u16, Option<String>) {
    match result {
        Err(Error::Http(response)) => (
            response.status().as_u16(),
            response
                .headers()
                .get("x-gateway-reason")
                .map(|value| value.to_str().expect("a word").to_owned()),
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_are_counted() {
    let (mut echo, gateway) = start("", "").await;
    let forged = [
        ("x-tenant-id", "forged"),
        ("sec-websocket-extensions", "x-none"),
        ("authorization", "Bearer of-the-backend"),
        ("x-api-key", "of-the-backend"),
    ];
    let mut socket = open_with(&gateway, "/ws/room", &forged).await.expect("it opens");
    let Seen::Opened(head) = echo.next().await else {
        panic!("no head")
    };
    assert_ne!(head["x-tenant-id"], "forged");
    assert_eq!(head["sec-websocket-extensions"], "x-none");
    assert_eq!(head["authorization"], "Bearer of-the-backend");
    assert_eq!(head["x-api-key"], "of-the-backend");
    echoes(&mut socket, Message::text("hello")).await;
    echoes(&mut socket, Message::binary(vec![7; 300_000])).await;
    assert_eq!(gateway.metric("gateway_tunnels", &[]).await, 1.0);
    assert_eq!(gateway.metric("gateway_requests_in_flight", &[]).await, 1.0);
    socket.close(None).await.expect("it closes");
    while let Some(Ok(_)) = next(&mut socket).await {}
    gateway.metric_becomes("gateway_tunnels", &[], 0.0).await;
    gateway
        .metric_becomes("gateway_bulkhead_streams_in_use", &API, 0.0)
        .await;
    let line = tests::eventually(SOON, "the request is in the access log", || async {
        let out = gateway.stdout();
        out.lines()
            .filter(|line| line.contains("\"status\":101"))
            .find(|line| line.contains("\"bytes_in\":300"))
            .map(str::to_owned)
    })
    .await;
    assert!(line.contains("\"bytes_out\":300"), "{line}");
    assert!(!line.contains("aborted"), "{line}");
}

#[tokio::test]
async fn a_socket_outlives_the_time_of_a_request_and_holds_its_slot() {
    let (_echo, gateway) = start("time_limits: { request: 300ms, reserve: 100ms, idle_stream: 20s }", "").await;
    let (mut one, two) = (open(&gateway).await, open(&gateway).await);
    assert_eq!(
        refusal(open_with(&gateway, "/ws/room", &[]).await),
        (503, Some("bulkhead_full".into()))
    );
    assert_eq!(gateway.metric("gateway_bulkhead_streams_in_use", &API).await, 2.0);
    for _ in 0..6 {
        echoes(&mut one, Message::text("still here")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(two);
    gateway
        .metric_becomes("gateway_bulkhead_streams_in_use", &API, 1.0)
        .await;
    open(&gateway).await;
}

#[tokio::test]
async fn only_routes_that_say_so_and_well_formed_wishes_switch() {
    let (_echo, gateway) = start("", "").await;
    // The wish goes no further than us, so the backend sees a plain request, and says that it wants none.
    let (status, reason) = refusal(open_with(&gateway, "/plain/room", &[]).await);
    assert!(status != 101 && status >= 400, "{status} {reason:?}");
    for (name, value, status) in [
        ("sec-websocket-version", "8", "426"),
        ("sec-websocket-key", "short", "400"),
        ("content-length", "3", "400"),
    ] {
        let head = [
            ("host", "a"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut head: Vec<_> = head.into_iter().filter(|(known, _)| *known != name).collect();
        head.push((name, value));
        let lines: String = head
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let answer = gateway.raw(format!("GET /ws/room HTTP/1.1\r\n{lines}\r\nabc")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer}");
        // RFC 6455 section 4.4, RFC 9110 section 15.5.22.
        let names_what_is_spoken = ["sec-websocket-version: 13", "upgrade: websocket", "connection: upgrade"]
            .iter()
            .all(|line| answer.contains(line));
        assert_eq!(names_what_is_spoken, status == "426", "{name}: {answer}");
    }
}

/// A backend that answers each handshake with 101 and these fields, `ACCEPT` being the proof of having read the key.
async fn answering(fields: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
            let proof = derive_accept_key(key.unwrap_or_default().as_bytes());
            let fields = fields.replace("ACCEPT", &proof);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{fields}\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            // Until the other side has seen enough.
            let _ = stream.read(&mut [0; 64]).await;
        }
    });
    address
}

async fn before(backend: SocketAddr, more: &str) -> Gateway {
    let config = Config::default().backend("api", backend, "retry: off").open_route(
        "ws",
        "api",
        &format!("upgrade: websocket{more}"),
    );
    Gateway::start(config.to_string()).await
}

#[tokio::test]
async fn a_backend_that_only_claims_to_switch_is_not_believed() {
    let gateway = before(
        answering("sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n").await,
        "",
    )
    .await;
    assert_eq!(
        refusal(open_with(&gateway, "/ws/room", &[]).await),
        (502, Some("backend_invalid".into()))
    );
    gateway
        .metric_becomes("gateway_bulkhead_streams_in_use", &API, 0.0)
        .await;
}

#[tokio::test]
async fn a_backend_that_agrees_to_what_nobody_offered_has_not_switched() {
    const CHAT: &str = "sec-websocket-accept: ACCEPT\r\nsec-websocket-protocol: chat\r\n";
    const TWO: &str = "sec-websocket-accept: ACCEPT\r\nsec-websocket-protocol: chat\r\nsec-websocket-protocol: log\r\n";
    const DEFLATE: &str =
        "sec-websocket-accept: ACCEPT\r\nsec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\n";
    const NEITHER: &str = "sec-websocket-accept: ACCEPT\r\n";
    let protocol = |offer| ("sec-websocket-protocol", offer);
    let extension = |offer| ("sec-websocket-extensions", offer);
    let without = ", headers: { request: { remove: [sec-websocket-extensions] } }";
    for (fields, rules, offers, opens) in [
        (NEITHER, "", vec![], true),
        (NEITHER, "", vec![extension("permessage-deflate")], true),
        (CHAT, "", vec![], false),
        (CHAT, "", vec![protocol("log")], false),
        (CHAT, "", vec![protocol("Chat")], false),
        (CHAT, "", vec![protocol("log, chat")], true),
        (TWO, "", vec![protocol("log, chat")], false),
        (DEFLATE, "", vec![], false),
        (DEFLATE, "", vec![extension("x-webkit-deflate-frame")], false),
        (
            DEFLATE,
            "",
            vec![extension("permessage-deflate; client_max_window_bits")],
            true,
        ),
        // An extension that the operator's rules removed was not offered either.
        (DEFLATE, without, vec![extension("permessage-deflate")], false),
    ] {
        let gateway = before(answering(fields).await, rules).await;
        let head = "GET /ws/room HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let offers: String = offers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let answer = gateway.raw(format!("{head}{offers}\r\n")).await;
        let status = if opens { "HTTP/1.1 101" } else { "HTTP/1.1 502" };
        assert!(answer.starts_with(status), "{fields} {rules} {offers}: {answer}");
        assert!(
            opens || answer.contains("x-gateway-reason: backend_invalid"),
            "{answer}"
        );
        gateway
            .metric_becomes("gateway_bulkhead_streams_in_use", &API, 0.0)
            .await;
    }
}

#[tokio::test]
async fn pages_of_other_origins_open_none() {
    let (_echo, gateway) = start("", ", cors: { origins: [\"https://app.example.com\"] }").await;
    let evil = open_with(&gateway, "/ws/room", &[("origin", "https://evil.example")]).await;
    assert_eq!(refusal(evil), (403, Some("origin_not_allowed".into())));
    let app = open_with(&gateway, "/ws/room", &[("origin", "https://app.example.com")]).await;
    echoes(&mut app.expect("it opens"), Message::text("hello")).await;
    echoes(&mut open(&gateway).await, Message::text("no browser")).await;
}

#[tokio::test]
async fn over_tls_as_well() {
    let mut echo = Echo::start().await;
    let authority = Authority::new("test");
    let edge = authority.issue(&["edge.test"]);
    let top = "
listeners:
  public: { address: \"127.0.0.1:0\" }
  secure: { address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }] } }
admin: { address: \"127.0.0.1:0\" }
callers: { anonymous: { by: client_address } }
";
    let config = Config::with(top)
        .backend("api", echo.address, "")
        .open_route("ws", "api", "upgrade: websocket");
    let gateway = Setup::new(config.to_string())
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .start()
        .await;
    let stream = Tls::new(&authority, "edge.test")
        .connect(gateway.address_of("secure"))
        .await
        .expect("a handshake");
    let request = "wss://edge.test/ws/room".into_client_request().expect("a target");
    let (mut socket, _) = within(SOON, "a handshake", Box::pin(client_async(request, stream)))
        .await
        .expect("it opens");
    let message = Message::text("hello");
    socket.send(message.clone()).await.expect("it takes messages");
    let back = within(SOON, "an echo", socket.next()).await;
    assert_eq!(back.expect("no end").expect("no break"), message);
    socket.close(None).await.expect("it closes");
    assert_eq!(echo.closed().await, None);
}

async fn is_told_to_go(socket: &mut WebSocketStream<TcpStream>) {
    let frame = loop {
        if let Message::Close(frame) = next(socket)
            .await
            .expect("no end before a close frame")
            .expect("no break")
        {
            break frame;
        }
    };
    assert_eq!(frame.map(|frame| frame.code), Some(CloseCode::Away));
    // tungstenite answers by itself; what is left is the end.
    assert!(matches!(
        next(socket).await,
        None | Some(Err(Error::ConnectionClosed | Error::Protocol(_) | Error::Io(_)))
    ));
}

#[tokio::test]
async fn silence_ends_a_socket_and_a_message_prolongs_it() {
    let (mut echo, gateway) = start("time_limits: { idle_stream: 500ms }", "").await;
    let mut socket = open(&gateway).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        echoes(&mut socket, Message::text("still here")).await;
    }
    is_told_to_go(&mut socket).await;
    assert_eq!(echo.closed().await, Some(1001));
    gateway
        .metric_becomes("gateway_bulkhead_streams_in_use", &API, 0.0)
        .await;
}

#[tokio::test]
async fn a_drain_closes_sockets_with_a_word() {
    let (mut echo, mut gateway) = start("time_limits: { drain: 15s }", "").await;
    let (mut idle, mut busy) = (open(&gateway).await, open(&gateway).await);
    echoes(&mut busy, Message::text("hello")).await;
    gateway.signal(Signal::Term);
    is_told_to_go(&mut idle).await;
    is_told_to_go(&mut busy).await;
    assert_eq!((echo.closed().await, echo.closed().await), (Some(1001), Some(1001)));
    assert_eq!(gateway.wait_exit().await, Some(0));
}
