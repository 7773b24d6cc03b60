//! Checks exchanges with backends of HTTP/1.1 in which a side does something early, odd or seldom.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use tests::abrupt::{Abrupt, Act, Then};
use tests::configs::{Config, UNGUARDED};
use tests::{Gateway, Raw, Recorder, Script};

async fn start(more: &str) -> (Recorder, Gateway) {
    let recorder = Recorder::start().await;
    let config = Config::default()
        .top("workers: 1")
        .backend("api", recorder.address(), &format!("{more}{UNGUARDED}"))
        .route(
            "api",
            "{ match: { path: \"/api/{*rest}\", methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS] }, \
             access: { any_of: [anonymous] }, backend: api }",
        );
    (recorder, Gateway::start(config.to_string()).await)
}

fn script(bytes: &str) -> Script {
    Script {
        bytes: bytes.replace('~', "\r\n").into_bytes(),
        closes: false,
    }
}

/// Asks on a connection of its own, and returns all that comes back.
async fn ask(gateway: &Gateway, method: &str, target: &str) -> String {
    gateway
        .raw(format!(
            "{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        ))
        .await
}

/// Starts a gateway that takes large uploads for this backend.
async fn start_before(backend: SocketAddr) -> Gateway {
    let config = Config::default()
        .top("workers: 1")
        .backend("api", backend, UNGUARDED)
        .open_route("api", "api", "body_limit: 64MiB");
    Gateway::start(config.to_string()).await
}

/// An upload of so many bytes, with a length or in chunks.
fn upload(size: usize, chunked: bool) -> Vec<u8> {
    let head = "POST /api/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let mut bytes = if chunked {
        format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n").into_bytes()
    } else {
        format!("{head}content-length: {size}\r\n\r\n").into_bytes()
    };
    bytes.resize(bytes.len() + size, b'x');
    if chunked {
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    }
    bytes
}

#[tokio::test]
async fn an_answer_that_arrived_is_the_answer_although_the_upload_failed() {
    for then in [Then::Leaves, Then::Closes, Then::Resets] {
        for (answer, status, body) in [
            (
                "HTTP/1.1 413 Too Large~content-length: 8~connection: close~~too long",
                "413",
                "too long",
            ),
            ("HTTP/1.1 401 No~transfer-encoding: chunked~~3~who~0~~", "401", "who"),
            ("HTTP/1.1 200 OK~content-length: 2~~ok", "200", "ok"),
        ] {
            let writes = answer.replace('~', "\r\n").into_bytes();
            let backend = Abrupt::http1(Act { writes, then }).await;
            let gateway = start_before(backend.address()).await;
            for size in [10_000, 300_000, 5_000_000] {
                for chunked in [false, true] {
                    let mut caller = gateway.connect().await;
                    caller.send(upload(size, chunked)).await;
                    let told = caller.rest().await;
                    // A reset may come before what was written has left the backend: then nothing has arrived.
                    let is_cut = matches!(then, Then::Resets) && told.starts_with("HTTP/1.1 502");
                    let is_whole = told.starts_with(&format!("HTTP/1.1 {status} ")) && told.contains(body);
                    assert!(is_whole || is_cut, "{then:?}, {size}, {chunked}: {told}");
                }
            }
        }
    }
}

/// Starts a backend that sends `answer` at the first byte of a request, and reads on beside it.
async fn early_backend(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.into_split();
                let first = reads.read_u8().await;
                let mut nowhere = tokio::io::sink();
                // Each ends with the connection.
                let _ = tokio::join!(tokio::io::copy(&mut reads, &mut nowhere), writes.write_all(&answer));
                first
            });
        }
    });
    address
}

/// A caller that reads nothing before it has sent everything must not wait for itself.
#[tokio::test]
async fn an_early_answer_does_not_hold_up_the_upload() {
    let body = "y".repeat(8_000_000);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let backend = early_backend(answer.into_bytes()).await;
    for chunked in [false, true] {
        let gateway = start_before(backend).await;
        let mut caller = gateway.connect().await;
        assert!(caller.takes(&upload(12_000_000, chunked)).await, "all of it is taken");
        let head = caller.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(caller.take(body.len()).await, body.as_bytes());
    }
}

#[tokio::test]
async fn a_status_without_a_body_ends_with_its_head() {
    let (recorder, gateway) = start("").await;
    for (name, answer) in [
        (
            "chunked",
            "HTTP/1.1 204 No Content~transfer-encoding: chunked~x: y~~0~~",
        ),
        ("length", "HTTP/1.1 204 No Content~content-length: 5~x: y~~hello"),
        ("unchanged", "HTTP/1.1 304 Not Modified~content-length: 5~x: y~~"),
        (
            "both",
            "HTTP/1.1 304 Not Modified~transfer-encoding: chunked~x: y~~HTTP/1.1 200 OK~content-length: 6~~poison",
        ),
    ] {
        recorder.script(name, script(answer));
        let before = recorder.arrived().len();
        for _ in 0..2 {
            let told = ask(&gateway, "GET", &format!("/api/{name}")).await;
            let status = answer.split(' ').nth(1).expect("a status");
            assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {told}");
            assert!(
                told.contains("x: y\r\n") && told.ends_with("\r\n\r\n"),
                "{name}: {told}"
            );
            for field in ["content-length", "transfer-encoding"] {
                assert!(!told.contains(field), "{name}: {told}");
            }
        }
        let arrived = recorder.arrived();
        assert_ne!(
            arrived[before].connection,
            arrived[before + 1].connection,
            "{name}: it is not used again"
        );
    }
    recorder.script("plain", script("HTTP/1.1 204 No Content~content-length: 0~~"));
    for _ in 0..2 {
        ask(&gateway, "GET", "/api/plain").await;
    }
    let arrived = recorder.arrived();
    let [.., first, second] = &arrived[..] else {
        panic!("two came")
    };
    assert_eq!(first.connection, second.connection, "nothing more can come after it");
}

#[tokio::test]
async fn a_connection_is_used_only_while_the_backend_keeps_it() {
    let (recorder, gateway) = start("").await;
    for (name, field, is_kept) in [
        ("plain", "", true),
        ("long", "keep-alive: timeout=60, max=100~", true),
        ("minute", "connection: keep-alive~Keep-Alive: timeout=61~", true),
        ("one", "keep-alive: timeout=1~", false),
        ("none", "keep-alive: max=9, timeout=0~", false),
        ("close", "connection: close~", false),
    ] {
        recorder.script(name, script(&format!("HTTP/1.1 200 OK~{field}content-length: 2~~ok")));
        ask(&gateway, "GET", &format!("/api/{name}")).await;
        ask(&gateway, "GET", &format!("/api/{name}")).await;
        let arrived = recorder.arrived();
        let [.., first, second] = &arrived[..] else {
            panic!("two came")
        };
        assert_eq!(first.connection == second.connection, is_kept, "{name}");
    }
    // Less a second, it is over before the backend closes.
    let two = "HTTP/1.1 200 OK~keep-alive: timeout=2~content-length: 2~~ok";
    recorder.script("two", script(two));
    ask(&gateway, "GET", "/api/two").await;
    let first = recorder.arrived().pop().expect("it came").connection;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ask(&gateway, "GET", "/api/two").await;
    assert_ne!(recorder.arrived().pop().expect("it came").connection, first);
}

#[tokio::test]
async fn a_request_says_that_it_has_no_body_where_it_usually_has_one() {
    let (recorder, gateway) = start("").await;
    for (method, lengths) in [
        ("POST", &["0"][..]),
        ("PUT", &["0"]),
        ("PATCH", &["0"]),
        ("GET", &[]),
        ("HEAD", &[]),
        ("DELETE", &[]),
        ("OPTIONS", &[]),
    ] {
        ask(&gateway, method, "/api/echo").await;
        let arrived = recorder.arrived().pop().expect("it came");
        assert!(arrived.complete && arrived.defects.is_empty(), "{arrived:?}");
        assert_eq!(
            (arrived.head.method(), arrived.head.all("content-length")),
            (method, lengths.to_vec())
        );
        assert!(arrived.head.all("transfer-encoding").is_empty(), "{method}");
    }
}

#[tokio::test]
async fn the_number_of_fields_of_an_answer_has_a_limit() {
    let answer = |fields| {
        script(&format!(
            "HTTP/1.1 200 OK~content-length: 2~{}~ok",
            "x: y~".repeat(fields)
        ))
    };
    for (settings, most) in [
        ("", 100),
        ("connections: { answer_fields: 10 }, ", 10),
        ("connections: { answer_fields: 300 }, ", 300),
    ] {
        let (recorder, gateway) = start(settings).await;
        recorder.script("fits", answer(most - 1));
        recorder.script("more", answer(most));
        let fits = ask(&gateway, "GET", "/api/fits").await;
        assert!(
            fits.starts_with("HTTP/1.1 200") && fits.ends_with("ok"),
            "{most}: {fits}"
        );
        let more = ask(&gateway, "GET", "/api/more").await;
        assert!(
            more.starts_with("HTTP/1.1 502") && more.contains("backend_invalid"),
            "{most}: {more}"
        );
    }
}

#[tokio::test]
async fn a_backtick_in_a_query_arrives_as_it_is() {
    let (recorder, gateway) = start("").await;
    let told = ask(&gateway, "GET", "/api/echo?a=`b`").await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    let arrived = recorder.arrived().pop().expect("it came");
    assert_eq!((arrived.head.target(), arrived.defects.len()), ("/api/echo?a=`b`", 0));
    let told = ask(&gateway, "GET", "/api/`b`").await;
    assert!(told.starts_with("HTTP/1.1 400"), "{told}");
}

/// Answers the first request on the next connection, and returns the connection.
async fn answer_one(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("it comes");
    let mut piece = [0; 4096];
    let count = stream.read(&mut piece).await.expect("a request");
    assert!(count > 0, "a request");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(answer).await.expect("it is open");
    stream
}

/// What a backend says between two requests, such as 408 before it closes, answers neither. A connection that it closed
/// is replaced, and nobody is told.
#[tokio::test]
async fn what_comes_between_two_requests_is_no_answer() {
    for (late, closes) in [
        ("", true),
        (
            "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", false),
        ("HTTP/1.1 200 OK\r\ncontent-le", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let gateway = start_before(listener.local_addr().expect("it is bound")).await;
        let ask = || gateway.post("/api/x").send();
        let (told, mut first) = tokio::join!(ask(), answer_one(&listener));
        assert_eq!(told.status, 200);
        first.write_all(late.as_bytes()).await.expect("it is open");
        let kept = (!closes).then_some(first);
        let (told, _) = tokio::join!(ask(), answer_one(&listener));
        assert_eq!((told.status, told.text().as_str()), (200, "ok"), "{late:?}");
        drop(kept);
    }
}

/// Every byte of an exchange may be the last one of its connection.
#[tokio::test]
async fn an_answer_cut_at_any_byte_is_no_whole_answer_and_frees_its_slot() {
    let answers = [
        "HTTP/1.1 200 OK~content-length: 5~~hello",
        "HTTP/1.1 200 OK~transfer-encoding: chunked~~5~hello~3;a=b~abc~0~T: v~~",
        "HTTP/1.1 100 Continue~~HTTP/1.1 200 OK~content-length: 2~~ok",
    ];
    let recorder = Recorder::start().await;
    let more = "bulkhead: { limit: 1, queue: 0 }, retry: off, breaker: off, ejection: off";
    let config = Config::default()
        .top("workers: 1")
        .open("api", recorder.address(), more);
    let gateway = Gateway::start(config.to_string()).await;
    for answer in answers {
        let bytes = answer.replace('~', "\r\n").into_bytes();
        for length in 0..=bytes.len() {
            recorder.script(
                "cut",
                Script {
                    bytes: bytes[..length].to_vec(),
                    closes: true,
                },
            );
            let mut caller: Raw = gateway.connect().await;
            caller
                .send("GET /api/cut HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await;
            let told = caller.rest().await;
            let (head, body) = told.split_once("\r\n\r\n").unwrap_or_default();
            let is_whole = if head.contains("transfer-encoding: chunked") {
                body.ends_with("0\r\n\r\n")
            } else {
                let stated = head
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.lines().next());
                stated.and_then(|stated| stated.parse().ok()) == Some(body.len())
            };
            let is_ok = told.starts_with("HTTP/1.1 200") && is_whole;
            assert_eq!(is_ok, length == bytes.len(), "{answer}, {length}: {told}");
            assert!(!told.contains("bulkhead_full"), "{answer}, {length}: {told}");
        }
    }
    let shown = gateway.admin_json("/api/v1/backends").await;
    assert_eq!(shown["backends"][0]["endpoints"][0]["connections"]["active"], 0);
}
