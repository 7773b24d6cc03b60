//! Checks that a malformed request is refused before any byte of it reaches a backend, without harm to other requests.
//!
//! The cases are from RFC 9110 and 9112 and from published collections of smuggling attempts (PortSwigger, llhttp,
//! HAProxy, nginx, http-garden). In them `^` stands for the path of the route, `SMUGGLED` for a path that must never
//! arrive, and `~` for the end of a line.

use std::time::Duration;

use fixtures::fleet::{Fleet, Handle};
use tests::configs::{Config, UNGUARDED};
use tests::{Gateway, Raw};

use crate::{SOON, one_backend};

async fn start(top: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default().top(top).open("api", api.address(), UNGUARDED);
    (fleet, api, Gateway::start(config.to_string()).await)
}

fn bytes(case: &str) -> Vec<u8> {
    let text = case
        .replace('^', "/api/echo")
        .replace("SMUGGLED", "/api/smuggled")
        .replace('~', "\r\n");
    // Each character up to U+00FF is one byte.
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("Latin-1"))
        .collect()
}

/// Refused as soon as the head is there.
const HEADS: &[&str] = &[
    // Two readings of where the body ends.
    "POST ^ HTTP/1.1~Host: a~Content-Length: 44~Transfer-Encoding: chunked~~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: chunked~Content-Length: 4~~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "GET ^ HTTP/1.1~Host: a~Content-Length: 44~Transfer-Encoding: chunked~~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: xchunked~Content-Length: 5~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 10~Transfer-Encoding:~Transfer-Encoding:~~2~AA~0~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 47~Transfer-Encoding\t: chunked~~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 47~Transfer-Encoding : chunked~~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 47~Transfer-Encoding: \0chunked~~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: \"chunked\"~~0~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: \u{ff}chunked\u{ff}~~0~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: pigeons~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: chunked, gzip, chunked~~0~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: gzip~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: chunked~Transfer-Encoding: chunked~~0~~",
    "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: identity~Transfer-Encoding: chunked~~5~World~0~~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 0~Content-Length: 37~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 5, 6~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length: +5~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length: -5~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 0x5~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 5Z~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length:~~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 5.0~~hello",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 1000000000000000000000~~",
    "POST ^ HTTP/1.1~Host: a~Content-Length: 5\0~~hello",
    "POST ^ HTTP/1.1~Host: a~Content\rLength: 5~~hello",
    // Fields that are none.
    "GET ^ HTTP/1.1~Host: a~Fo\0o: b~~",
    "GET ^ HTTP/1.1~Host: a~No colon here~~",
    "GET ^ HTTP/1.1~Host: a~: no name~~",
    "GET ^ HTTP/1.1~Host: a~Two words: x~~",
    "GET ^ HTTP/1.1~Host: a~X: a\0b~~",
    "GET ^ HTTP/1.1~Host: a~ folded: x~~",
    // The request line.
    "GE(T ^ HTTP/1.1~Host: a~~",
    " ^ HTTP/1.1~Host: a~~",
    "GET ^~",
    "GET ^ HTTP/2.0~Host: a~~",
    "GET ^ HTTP/1.11~Host: a~~",
    "GET ^ HTTP/4294967295.255~Host: a~~",
    "GET ^ HTTP/5.6~Host: a~~",
    "GET ^ HTTP/1.1 x~Host: a~~",
    "GET ^ http/1.1~Host: a~~",
    "GET admin HTTP/1.1~Host: a~~",
    "GET * HTTP/1.1~Host: a~~",
    "OPTIONS */test HTTP/1.1~Host: a~~",
    "GET ^\u{7f} HTTP/1.1~Host: a~~",
    // Whom it is for.
    "GET ^ HTTP/1.1~~",
    "GET ^ HTTP/1.1~Host: a~Host: a~~",
    "GET ^ HTTP/1.1~Host: a~A: b~host: evil.example~~",
    "GET ^ HTTP/1.1~Host: a b~~",
    "GET ^ HTTP/1.1~Host: evil@a~~",
    "GET ^ HTTP/1.1~Host: 123.40.56.78:9000:80~~",
    "GET ^ HTTP/1.1~Host: a\0.example~~",
    // No HTTP at all.
    "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}hello of another protocol~~",
    "~~~~hello~~",
];

/// Refused when the body shows it: what has reached a backend by then is a request that never comes to its end.
const CHUNKS: &[&str] = &[
    "-5~hello~0~~",
    "0_2e~~GET SMUGGLED HTTP/1.1~Host: a~~0~~",
    " 5~hello~0~~",
    "g~hello~0~~",
    "FFFFFFFFFFFFFFFFF~hello~0~~",
    "4~SEE-THIS~0~~",
    "5;a\nhello~0~~",
    "5\nhello~0~~",
    "5\r\r;ABCD~34~E~0~~GET SMUGGLED HTTP/1.1~Host: a~~",
    "Z~ZZ~ZZZ~~",
    "3~foo~~",
];

#[tokio::test]
async fn what_is_no_request_is_400_and_nothing_of_it_arrives() {
    let (_fleet, api, gateway) = start("").await;
    for case in HEADS {
        let answer = gateway.raw(bytes(case)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{case:?}: {answer:?}");
        assert!(answer.contains("malformed_request"), "{case:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case:?}: {answer}");
        assert_eq!(api.requests().len(), 0, "{case:?}: {answer}");
        gateway.get("/api/echo").send().await.expect(200);
        api.wait_for(|counts| counts.in_flight == 0, SOON)
            .await
            .expect("the canary is done");
        assert_eq!(api.take_requests().len(), 1, "{case:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_none_never_arrives_whole() {
    let (_fleet, api, gateway) = start("").await;
    for case in CHUNKS {
        let head = "POST ^ HTTP/1.1~Host: a~Transfer-Encoding: chunked~~";
        let answer = gateway.raw(bytes(&format!("{head}{case}"))).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{case:?}: {answer}");
        api.wait_for(|counts| counts.in_flight == 0, SOON)
            .await
            .expect("it is cancelled");
        for request in api.take_requests() {
            assert!(!request.body_complete, "{case:?}: {request:?}");
            assert_eq!(request.target, "/echo", "{case:?}");
        }
        gateway.get("/api/echo").send().await.expect(200);
        api.take_requests();
    }
}

#[tokio::test]
async fn a_refused_connection_is_not_used_again() {
    let (_fleet, api, gateway) = start("").await;
    let mut caller = gateway.connect().await;
    caller.send(bytes("GET ^ HTTP/1.1~Host: a~~")).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200"));
    caller.send(bytes("Invalid~~GET SMUGGLED HTTP/1.1~Host: a~~")).await;
    let rest = caller.rest().await;
    assert!(rest.contains("HTTP/1.1 400"), "{rest}");
    assert_eq!(api.counts().requests, 1);
}

/// Bytes are well formed and mean two things: then nobody can tell what those behind them mean.
#[tokio::test]
async fn what_has_two_readings_ends_its_connection() {
    let (_fleet, api, gateway) = start("").await;
    for bad in [
        "GET http://b/api/echo HTTP/1.1~Host: a~~",
        "GET /api/echo/../x HTTP/1.1~Host: a~~",
        "GET /api/echo HTTP/1.1~Host: a@b~~",
    ] {
        let mut caller = gateway.connect().await;
        caller
            .send(bytes(&format!("{bad}GET /api/smuggled HTTP/1.1~Host: a~~")))
            .await;
        let all = caller.rest().await.to_ascii_lowercase();
        assert!(
            all.starts_with("http/1.1 400") && all.contains("\r\nconnection: close\r\n"),
            "{bad}: {all}"
        );
        assert_eq!(all.matches("http/1.1 ").count(), 1, "{bad}: {all}");
    }
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_in_order() {
    let (_fleet, api, gateway) = start("").await;
    let first = "POST /api/echo/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let second = "GET /api/echo/2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut caller = gateway.connect().await;
    caller.send(format!("{first}{second}")).await;
    let answers = caller.rest().await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    let targets: Vec<String> = api.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/echo/1", "/echo/2"]);
}

#[tokio::test]
async fn a_body_is_never_a_request() {
    let (_fleet, api, gateway) = start("").await;
    let smuggled = "GET /api/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (method, field) in [
        ("GET", "x: y"),
        ("POST", "connection: content-length"),
        ("POST", "expect: 100-continue"),
    ] {
        let length = smuggled.len();
        let head = format!(
            "{method} /api/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{field}\r\ncontent-length: {length}\r\n\r\n"
        );
        gateway.raw(format!("{head}{smuggled}")).await;
        api.wait_for(|counts| counts.in_flight == 0, SOON)
            .await
            .expect("it is done");
        let targets: Vec<String> = api.take_requests().into_iter().map(|request| request.target).collect();
        assert!(targets.iter().all(|target| target == "/echo"), "{field}: {targets:?}");
    }
}

#[tokio::test]
async fn too_much_of_a_head_has_its_own_word() {
    let (_fleet, api, gateway) = start("request_limits: { head: 8KiB, headers: 20, uri: 1KiB }").await;
    let long = "x".repeat(2000);
    gateway
        .get(&format!("/api/echo?{long}"))
        .send()
        .await
        .refusal(414, "uri_too_long");
    let many = (0..30).fold(gateway.get("/api/echo"), |ask, n| ask.header(&format!("x-{n}"), "v"));
    many.send().await.refusal(431, "headers_too_large");
    let wide = (0..8).fold(gateway.get("/api/echo"), |ask, n| ask.header(&format!("x-{n}"), &long));
    assert_eq!(wide.send().await.status, 431);
    assert_eq!(api.counts().requests, 0);
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn whoever_is_too_slow_with_a_head_is_sent_away() {
    let (_fleet, api, gateway) = start("time_limits: { head: 200ms, keep_alive: 300ms }").await;
    let silent = Raw::connect(gateway.address());
    let slow = async {
        let mut slow = Raw::connect(gateway.address()).await;
        slow.send("GET /api/echo HTTP/1.1\r\nhost: a\r\nx-").await;
        slow.rest().await
    };
    let idle = async {
        let mut idle = Raw::connect(gateway.address()).await;
        idle.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
        idle.head().await;
        idle.rest().await
    };
    let silent = async { silent.await.rest().await };
    let ended = tests::within(Duration::from_secs(8), "all three are closed", async {
        tokio::join!(silent, slow, idle)
    });
    let (silent, slow, _) = ended.await;
    assert_eq!(silent, "");
    assert!(
        slow.starts_with("HTTP/1.1 408") && slow.contains("request_timeout"),
        "{slow}"
    );
    assert_eq!(api.counts().requests, 1);
}
