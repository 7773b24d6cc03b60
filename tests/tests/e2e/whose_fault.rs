//! Checks that a backend's health depends only on its own behaviour and on the time that the gateway waited for it,
//! never on a caller's speed.

use std::time::Duration;

use bytes::Bytes;
use fixtures::fleet::{Behaviour, Fault, Latency};
use futures_util::future::join_all;
use tests::abrupt::{Abrupt, Act, Then};
use tests::configs::Config;
use tests::frames::{RST_STREAM, frame};
use tests::http2::{Http2, Manner};
use tests::{Gateway, Raw, http2_caller};

use crate::one_backend;

/// Opens at 5 calls of which 60 % failed, and stays open for longer than a test lasts. Nothing is tried twice.
const BREAKER: &str = "retry: off, breaker: { min_calls: 5, failure_ratio: 0.6, open_for: 1h }";

const OPEN: f64 = 2.0;
const CLOSED: f64 = 0.0;

async fn state(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_breaker_state", &[("backend", "api")]).await
}

/// A caller whose request is still coming: it has sent a part, and sends more now and then or nothing.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Length { goes_on: bool },
    Chunked { goes_on: bool },
    Http2 { goes_on: bool },
    Grpc { goes_on: bool },
}

const CALLERS: [Caller; 8] = [
    Caller::Length { goes_on: false },
    Caller::Length { goes_on: true },
    Caller::Chunked { goes_on: false },
    Caller::Chunked { goes_on: true },
    Caller::Http2 { goes_on: false },
    Caller::Http2 { goes_on: true },
    Caller::Grpc { goes_on: false },
    Caller::Grpc { goes_on: true },
];

const NOW_AND_THEN: Duration = Duration::from_millis(5);

impl Caller {
    /// Asks, and returns the status, the gateway's reason, and the status of gRPC, once it is told.
    async fn ask(self, gateway: &Gateway) -> (u16, String, Option<String>) {
        match self {
            Self::Length { goes_on } => Self::over_http1(gateway, "content-length: 100000", "abc", goes_on).await,
            Self::Chunked { goes_on } => {
                Self::over_http1(gateway, "transfer-encoding: chunked", "3\r\nabc\r\n", goes_on).await
            }
            Self::Http2 { goes_on } => Self::over_http2(gateway, "text/plain", goes_on).await,
            Self::Grpc { goes_on } => Self::over_http2(gateway, "application/grpc", goes_on).await,
        }
    }

    async fn over_http1(gateway: &Gateway, framing: &str, piece: &str, goes_on: bool) -> (u16, String, Option<String>) {
        let mut caller = gateway.connect().await;
        caller
            .send(format!(
                "POST /api/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{framing}\r\n\r\n{piece}"
            ))
            .await;
        let told = if goes_on {
            let told = told(&mut caller, piece);
            told.await
        } else {
            caller.head().await
        };
        let reason = told.split("x-gateway-reason: ").nth(1).unwrap_or_default();
        let status = told.split(' ').nth(1).and_then(|status| status.parse().ok());
        (
            status.unwrap_or_default(),
            reason.lines().next().unwrap_or_default().to_owned(),
            None,
        )
    }

    async fn over_http2(gateway: &Gateway, kind: &str, goes_on: bool) -> (u16, String, Option<String>) {
        let caller = http2_caller::Http2::connect(gateway.address()).await;
        let mut request = caller.request(http::Method::POST, "/api/x");
        request
            .headers_mut()
            .insert("content-type", kind.parse().expect("a value"));
        let mut stream = caller.send(request, false).await.expect("it is taken");
        let mut response = stream.response;
        let head = loop {
            // Fails once it is told.
            let _ = stream.upload.send_data(Bytes::from_static(b"abc"), false);
            match tokio::time::timeout(NOW_AND_THEN, &mut response).await {
                Ok(head) => break head.expect("a head"),
                Err(_) if goes_on => {}
                Err(_) => break response.await.expect("a head"),
            }
        };
        let field = |name: &str| {
            head.headers()
                .get(name)
                .map(|value| value.to_str().expect("text").to_owned())
        };
        (
            head.status().as_u16(),
            field("x-gateway-reason").unwrap_or_default(),
            field("grpc-status"),
        )
    }
}

/// A head, while the caller goes on sending.
async fn told(caller: &mut Raw, piece: &str) -> String {
    let mut told = Vec::new();
    while !told.windows(4).any(|window| window == b"\r\n\r\n") {
        caller.send(piece).await;
        match tokio::time::timeout(NOW_AND_THEN, caller.piece()).await {
            Ok(Some(more)) => told.extend(more),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    String::from_utf8_lossy(&told).into_owned()
}

/// Asks until the breaker would open, and a little more; everyone is told `reason`.
async fn all_are_told(backend: &Abrupt, protocol: &str, what: &str, reason: &str) {
    for caller in CALLERS {
        let config = Config::default().open("api", backend.address(), &format!("protocol: {protocol}, {BREAKER}"));
        let gateway = Gateway::start(config.to_string()).await;
        for _ in 0..5 {
            let told = caller.ask(&gateway).await;
            let expected = match caller {
                Caller::Grpc { .. } => (200, reason.to_owned(), Some("14".to_owned())),
                _ => (502, reason.to_owned(), None),
            };
            assert_eq!(told, expected, "{protocol}: {what}, {caller:?}");
        }
        assert_eq!(state(&gateway).await, OPEN, "{protocol}: {what}, {caller:?}");
    }
}

#[tokio::test]
async fn what_a_backend_does_during_an_upload_is_its_own_doing() {
    let cases = [
        ("it closes", b"".as_slice(), Then::Closes, "backend_broken"),
        ("it resets", b"", Then::Resets, "backend_broken"),
        (
            "it closes within a head",
            b"HTTP/1.1 200 OK\r\nx",
            Then::Closes,
            "backend_broken",
        ),
        (
            "it says garbage",
            b"\x15\x03\x01garbage\r\n\r\n",
            Then::Stays,
            "backend_invalid",
        ),
        (
            "it says garbage and closes",
            b"HTTP/9.9 what\r\n\r\n",
            Then::Closes,
            "backend_invalid",
        ),
    ];
    for (what, writes, then, reason) in cases {
        let writes = writes.to_vec();
        let backend = Abrupt::http1(Act { writes, then }).await;
        all_are_told(&backend, "http1", what, reason).await;
    }
}

#[tokio::test]
async fn what_a_backend_does_during_an_upload_over_http2_is_its_own_doing() {
    let reset = |reason: u32| move |id| frame(RST_STREAM, 0, id, &reason.to_be_bytes());
    type Frames = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;
    let cases: [(&str, Frames, Then, &str); 6] = [
        ("it closes", Box::new(|_| Vec::new()), Then::Closes, "backend_broken"),
        ("it resets", Box::new(|_| Vec::new()), Then::Resets, "backend_broken"),
        (
            "it resets the stream",
            Box::new(reset(2)),
            Then::Stays,
            "backend_broken",
        ),
        (
            "it cancels the stream",
            Box::new(reset(8)),
            Then::Stays,
            "backend_broken",
        ),
        (
            "it resets without an error",
            Box::new(reset(0)),
            Then::Stays,
            "backend_broken",
        ),
        (
            "it says garbage",
            Box::new(|_| frame(0, 0, 2, b"data for a stream that is not there")),
            Then::Stays,
            "backend_invalid",
        ),
    ];
    for (what, frames, then, reason) in cases {
        let backend = Abrupt::http2(move |id| Act {
            writes: frames(id),
            then,
        })
        .await;
        all_are_told(&backend, "h2c", what, reason).await;
    }
}

#[tokio::test]
async fn a_backend_is_ejected_for_what_it_does_during_an_upload() {
    let bad = Abrupt::http1(Act {
        writes: Vec::new(),
        then: Then::Closes,
    })
    .await;
    let (_fleet, good) = one_backend("api").await;
    let ejection = "balance: { by: turn }, retry: off, breaker: off, ejection: { consecutive: 3, eject_for: 1h }";
    let config = Config::default()
        .backend_of("api", [bad.address(), good.address()], ejection)
        .open_route("api", "api", "");
    let gateway = Gateway::start(config.to_string()).await;
    let caller = Caller::Length { goes_on: false };
    let mut broken = 0;
    while broken < 3 {
        // The good one waits for the rest of the body, so every other is left hanging; nobody waits for it.
        if let Ok((_, reason, _)) = tokio::time::timeout(Duration::from_millis(300), caller.ask(&gateway)).await {
            assert_eq!(reason, "backend_broken");
            broken += 1;
        }
    }
    let ejected = gateway.metric("gateway_endpoints_ejected", &[("backend", "api")]).await;
    assert_eq!(ejected, 1.0);
}

/// So many uploads at once whose last byte comes `after`, half of them over HTTP/2.
async fn upload_slowly(gateway: &Gateway, count: usize, after: Duration) {
    let over_http1 = async || {
        let mut caller = gateway.connect().await;
        caller
            .send("POST /api/whole HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n123456789")
            .await;
        tokio::time::sleep(after).await;
        caller.send("0").await;
        caller.rest().await
    };
    let over_http2 = async || {
        let caller = http2_caller::Http2::connect(gateway.address()).await;
        let request = caller.request(http::Method::POST, "/api/whole");
        let mut stream = caller.send(request, false).await.expect("it is taken");
        stream
            .upload
            .send_data(Bytes::from_static(b"123456789"), false)
            .expect("it is open");
        tokio::time::sleep(after).await;
        // Fails if it is too late.
        let _ = stream.upload.send_data(Bytes::from_static(b"0"), true);
        stream.head().await.map(|head| head.status())
    };
    let (first, second) = tokio::join!(
        join_all((0..count / 2).map(|_| over_http1())),
        join_all((0..count / 2).map(|_| over_http2()))
    );
    drop((first, second));
}

#[tokio::test]
async fn no_slow_upload_counts_against_a_backend_that_answers_in_time() {
    let rules = [
        "failure_ratio: 0.3, consecutive: 5, slow: { over: 600ms, ratio: 0.3 }",
        "adaptive: { latency_window: 5, threshold: 600ms }, consecutive: 5",
    ];
    let (_fleet, api) = one_backend("api").await;
    api.behave(Behaviour::late(Latency::fixed(100))).await;
    let http2 = Http2::start(Manner::default()).await;
    for (rule, (protocol, address)) in rules
        .iter()
        .flat_map(|rule| [("http1", api.address()), ("h2c", http2.address())].map(|of| (rule, of)))
    {
        let guards = format!(
            "protocol: {protocol}, retry: off, attempt_limit: 1s, breaker: {{ min_calls: 5, open_for: 1h, {rule} }}"
        );
        let gateway = Gateway::start(Config::default().open("api", address, &guards).to_string()).await;
        // In time, and too late for an answer.
        for after in [800, 950] {
            upload_slowly(&gateway, 12, Duration::from_millis(after)).await;
            assert_eq!(state(&gateway).await, CLOSED, "{protocol}: {rule}, {after}");
        }
        let shown = gateway.admin_json("/api/v1/backends").await;
        let counts = &shown["backends"][0]["breaker"]["counts"];
        assert_eq!(
            (&counts["failures"], &counts["slow"]),
            (&0.into(), &0.into()),
            "{protocol}: {rule}: {counts}"
        );
    }
}

#[tokio::test]
async fn a_backend_that_had_everything_and_hangs_is_found_out() {
    let (_fleet, api) = one_backend("api").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let http2 = Http2::start(Manner::default()).await;
    for (protocol, address) in [("http1", api.address()), ("h2c", http2.address())] {
        let guards = format!("protocol: {protocol}, {BREAKER}, attempt_limit: 1s");
        let gateway = Gateway::start(Config::default().open("api", address, &guards).to_string()).await;
        join_all((0..6).map(|_| gateway.post("/api/hang").body("all of it").send())).await;
        assert_eq!(state(&gateway).await, OPEN, "{protocol}");
    }
}

#[tokio::test]
async fn a_body_that_has_gone_by_counts_against_nobody_else() {
    let first = Abrupt::http1(Act {
        writes: Vec::new(),
        then: Then::Stays,
    })
    .await;
    for (protocol, other) in [
        ("http1", Http2::start(Manner::default()).await),
        ("h2c", Http2::start(Manner::default()).await),
    ] {
        let config = Config::default()
            .backend("first", first.address(), "retry: off, breaker: off, time_limit: 200ms")
            .backend("api", other.address(), &format!("protocol: {protocol}, {BREAKER}"))
            .open_route("first", "first", "fallback: { backend: api }");
        let gateway = Gateway::start(config.to_string()).await;
        for _ in 0..6 {
            let body = vec![b'x'; 1_000_000];
            let answer = gateway
                .client()
                .ask(http::Method::PUT, "/first/x")
                .body(body)
                .send()
                .await;
            assert_eq!(answer.status, 504, "{answer:?}");
        }
        assert_eq!(state(&gateway).await, CLOSED, "{protocol}");
    }
}

#[tokio::test]
async fn a_wish_for_less_time_counts_against_nobody() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default()
        .backend("api", api.address(), &format!("{BREAKER}, time_limit: 1s"))
        .open_route("api", "api", "")
        .route(
            "both",
            "{ match: { path: /both }, access: { any_of: [anonymous] }, \
             aggregate: { parts: { a: { backend: api, path: /echo } } } }",
        );
    let gateway = Gateway::start(config.to_string()).await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    for (name, wish) in [("x-request-timeout-ms", "900"), ("grpc-timeout", "900m")] {
        for target in ["/api/echo", "/both"] {
            let asked = (0..6).map(|_| gateway.get(target).header(name, wish).send());
            for answer in join_all(asked).await {
                assert_eq!(answer.status, 504, "{name} {target}: {answer:?}");
            }
            assert_eq!(state(&gateway).await, CLOSED, "{name} {target}");
        }
    }
    // A caller that allows as much time as the route does, or more, shortens nothing.
    let asked = (0..6).map(|_| gateway.get("/api/echo").header("x-request-timeout-ms", "60000").send());
    join_all(asked).await;
    assert_eq!(state(&gateway).await, OPEN);
}

#[tokio::test]
async fn no_caller_makes_a_shared_connection_be_left() {
    let backend = Abrupt::http2(|_| Act::default()).await;
    let more = "protocol: h2c, retry: off, breaker: off, time_limit: 20s";
    let config = Config::default().top("workers: 1").open("api", backend.address(), more);
    let gateway = Gateway::start(config.to_string()).await;
    for _ in 0..8 {
        let hurried = gateway.get("/api/x").header("x-request-timeout-ms", "30").send().await;
        hurried.refusal(504, "out_of_time");
    }
    let shown = gateway.admin_json("/api/v1/backends").await;
    let connections = &shown["backends"][0]["endpoints"][0]["connections"];
    assert_eq!(
        (&connections["active"], &connections["idle"]),
        (&0.into(), &1.into()),
        "{connections}"
    );
    assert_eq!(backend.connections(), 1);
}
