//! Checks that a request's body reaches the backend complete or is refused, for every method and both protocols of the
//! backend.

use tests::configs::{Config, UNGUARDED};
use tests::http2::{Http2, Manner};
use tests::{Arrived, Gateway, Recorder, Script, http2_caller};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const ROUTE: &str = "{ match: { path: \"/api/{*rest}\", methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS] }, \
    access: { any_of: [anonymous] }, backend: api, rewrite: \"/{path.rest}\" }";

async fn start() -> (Recorder, Gateway) {
    let recorder = Recorder::start().await;
    let config = Config::default()
        .backend("api", recorder.address(), UNGUARDED)
        .route("api", ROUTE);
    (recorder, Gateway::start(config.to_string()).await)
}

/// The request line's method and version, the body, and whether it is whole and without defects.
fn seen(arrived: &Arrived) -> (&str, &str, &[u8], bool) {
    let version = arrived.head.first.rsplit(' ').next().unwrap_or_default();
    let is_sound = arrived.complete && arrived.defects.is_empty();
    (arrived.head.method(), version, &arrived.body, is_sound)
}

#[tokio::test]
async fn a_body_of_unknown_length_arrives_with_every_method() {
    let (recorder, gateway) = start().await;
    for method in METHODS {
        let answer = gateway
            .raw(format!(
                "{method} /api/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                 transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        let arrived = recorder.arrived().pop().expect("it came");
        assert_eq!(seen(&arrived), (method, "HTTP/1.1", &b"abcde"[..], true), "{arrived:?}");
        assert_eq!(arrived.head.all("transfer-encoding"), ["chunked"], "{method}");
    }
    // A body with a length, or of a caller that speaks HTTP/2, arrives as well.
    for method in METHODS {
        let answer = gateway
            .raw(format!(
                "{method} /api/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n\r\nabcde"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        let arrived = recorder.arrived().pop().expect("it came");
        assert_eq!(seen(&arrived), (method, "HTTP/1.1", &b"abcde"[..], true), "{arrived:?}");
    }
    let caller = http2_caller::Http2::connect(gateway.address()).await;
    for method in METHODS {
        let request = caller.request(method.parse().expect("a method"), "/api/echo");
        let mut stream = caller.send(request, false).await.expect("it is taken");
        stream.upload.send_data("abcde".into(), true).expect("it is open");
        assert_eq!(stream.whole().await.expect("an answer").status, 200, "{method}");
        let arrived = recorder.arrived().pop().expect("it came");
        assert_eq!(seen(&arrived), (method, "HTTP/1.1", &b"abcde"[..], true), "{arrived:?}");
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_arrives_over_http2_with_every_method() {
    let backend = Http2::start(Manner::default()).await;
    let config = Config::default()
        .backend("api", backend.address(), &format!("protocol: h2c, {UNGUARDED}"))
        .route("api", ROUTE);
    let gateway = Gateway::start(config.to_string()).await;
    for (number, method) in METHODS.into_iter().enumerate() {
        gateway
            .raw(format!(
                "{method} /api/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                 transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
            ))
            .await;
        let came = backend.until_came(number + 1).await.pop().expect("it came");
        assert_eq!((came.method.as_str(), came.received), (method, 5));
    }
}

#[tokio::test]
async fn a_body_is_judged_with_every_method() {
    let (recorder, gateway) = start().await;
    let bad = [
        ("a chunk size that is none", "G\r\nabc\r\n0\r\n\r\n"),
        ("a chunk that ends in LF alone", "3\nabc\r\n0\r\n\r\n"),
        ("a chunk that is longer than its size", "2\r\nabc\r\n0\r\n\r\n"),
        ("a trailer that ends in LF alone", "3\r\nabc\r\n0\r\nx: y\n\r\n"),
    ];
    for method in METHODS {
        for (what, body) in bad {
            let answer = gateway
                .raw(format!(
                    "{method} /api/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"
                ))
                .await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{method}, {what}: {answer}");
        }
    }
    for method in METHODS {
        for framing in [
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "content-length: 9\r\n\r\nabc",
        ] {
            let mut caller = gateway.connect().await;
            caller
                .send(format!("{method} /api/echo HTTP/1.1\r\nhost: a\r\n{framing}"))
                .await;
            caller.half_close().await;
            let answer = caller.rest().await;
            assert!(!answer.starts_with("HTTP/1.1 200"), "{method}, {framing:?}: {answer}");
        }
    }
    for arrived in recorder.arrived() {
        assert!(!arrived.complete, "nothing bad arrives whole: {arrived:?}");
    }
}

#[tokio::test]
async fn no_body_is_lost_on_a_backend_that_answers_in_http_1_0() {
    let (recorder, gateway) = start().await;
    for (segment, connection) in [("kept", "connection: keep-alive\r\n"), ("plain", "")] {
        recorder.script(
            segment,
            Script {
                bytes: format!("HTTP/1.0 200 OK\r\n{connection}content-length: 2\r\n\r\nok").into_bytes(),
                closes: connection.is_empty(),
            },
        );
        for number in 0..20 {
            let method = ["POST", "GET"][number % 2];
            let answer = gateway
                .raw(format!(
                    "{method} /api/{segment} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                     transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
                ))
                .await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let arrived = recorder.arrived().pop().expect("it came");
            assert_eq!(seen(&arrived), (method, "HTTP/1.1", &b"abcde"[..], true), "{arrived:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_opens_a_websocket_has_no_body() {
    let recorder = Recorder::start().await;
    let config = Config::default()
        .backend("api", recorder.address(), UNGUARDED)
        .open_route("ws", "api", "upgrade: websocket");
    let gateway = Gateway::start(config.to_string()).await;
    for body in [
        "transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "content-length: 5\r\n\r\nabcde",
    ] {
        let answer = gateway
            .raw(format!(
                "GET /ws/socket HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{body}"
            ))
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("malformed_request"),
            "{answer}"
        );
    }
    assert!(recorder.arrived().is_empty());
}
