//! Checks exchanges with callers of HTTP/1.1 and 1.0 in which the caller does something early, odd or seldom.

use fixtures::fleet::{Behaviour, Fault};
use tests::configs::{Config, UNGUARDED};
use tests::message::{self, Message};
use tests::{Gateway, Raw, Recorder, Script, eventually};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{SOON, one_backend};

const GUARDED: &str = "bulkhead: { limit: 1, queue: 0 }, retry: off, breaker: off, ejection: off";

const AFTER: &str = "GET /api/after HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

async fn start(guards: &str, route: &str) -> (Recorder, Gateway) {
    let recorder = Recorder::start().await;
    let config = Config::default()
        .top("workers: 1")
        .backend("api", recorder.address(), guards)
        .open_route("api", "api", route);
    (recorder, Gateway::start(config.to_string()).await)
}

fn bytes(text: &str) -> Vec<u8> {
    text.replace('~', "\r\n").into_bytes()
}

/// Returns the answers among the bytes, and whether nothing but whole answers came.
fn answers(all: &[u8], is_head: bool) -> (Vec<Message>, bool) {
    let (mut answers, mut rest) = (Vec::new(), all.to_vec());
    while !rest.is_empty() {
        let answer = message::answer(&rest, is_head, true);
        let Some(end) = answer.end else {
            return (answers, false);
        };
        rest.drain(..end);
        answers.push(answer);
    }
    (answers, true)
}

/// Returns the statuses of the answers, but for `100 Continue`: a caller that has closed its direction gets it if its
/// answer takes a moment.
fn statuses(answers: &[Message]) -> Vec<u16> {
    let statuses = answers
        .iter()
        .map(|answer| answer.head.as_ref().map_or(0, message::Head::status));
    statuses.filter(|status| *status != 100).collect()
}

/// Exchanges of every kind: their requests, and the statuses of the answers.
const EXCHANGES: [(&str, &[u16]); 8] = [
    ("GET /api/a HTTP/1.1~host: a~~", &[200]),
    ("GET /api/a HTTP/1.0~connection: keep-alive~~", &[200]),
    ("POST /api/a HTTP/1.1~host: a~content-length: 5~~hello", &[200]),
    (
        "POST /api/a HTTP/1.1~host: a~transfer-encoding: chunked~trailer: x-sum~~5;a=b~hello~3~abc~0~x-sum: 8~~",
        &[200],
    ),
    (
        "GET /api/a HTTP/1.1~host: a~~POST /api/b HTTP/1.1~host: a~content-length: 2~~okGET /api/c HTTP/1.1~host: a~~",
        &[200, 200, 200],
    ),
    ("POST /nowhere HTTP/1.1~host: a~content-length: 5~~hello", &[404]),
    ("~GET /api/a HTTP/1.1~host: a~connection: close~~", &[200]),
    ("GET /api/a HTTP/1.1~host: a~~GET bad HTTP/1.1~host: a~~", &[200, 400]),
];

/// Every byte of a request may be the last one of its connection, which the caller closes or resets.
#[tokio::test]
async fn a_request_cut_at_any_byte_leaves_nothing_behind() {
    let limits = "limits: { few: { in_flight: 1, per: route } }";
    let (recorder, gateway) = start(GUARDED, limits).await;
    let total = async || {
        let page = gateway.metrics().await;
        page.sum("gateway_connections_total", &[]).unwrap_or_default()
    };
    let mut accepted = total().await;
    for (text, _) in EXCHANGES {
        let whole = bytes(text);
        for length in 0..=whole.len() {
            for resets in [false, true] {
                let mut caller = gateway.connect().await;
                caller.send(&whole[..length]).await;
                if resets {
                    caller.reset();
                } else {
                    drop(caller);
                }
                // It may be gone before the gateway has even accepted it.
                accepted += 1.0;
                eventually(SOON, "it is accepted", || async {
                    (total().await == accepted).then_some(())
                })
                .await;
                gateway.metric_becomes("gateway_connections", &[], 0.0).await;
                let about = format!("{text}, cut after {length}, reset: {resets}");
                for family in ["gateway_requests_in_flight", "gateway_bulkhead_in_use"] {
                    let left = gateway.metric(family, &[]).await;
                    assert!(left.abs() < f64::EPSILON, "{family} {left}: {about}");
                }
            }
        }
        let told = gateway.raw(AFTER).await;
        accepted += 1.0;
        assert!(
            told.starts_with("HTTP/1.1 200"),
            "a slot or a token is lost: {text}: {told}"
        );
    }
    for arrived in recorder.arrived() {
        assert!(arrived.defects.is_empty(), "{arrived:?}");
        let sent = arrived
            .head
            .all("content-length")
            .first()
            .map(|length| length.parse::<usize>());
        if let (true, Some(Ok(length))) = (arrived.complete, sent) {
            assert_eq!(arrived.body.len(), length, "{arrived:?}");
        }
    }
}

/// A caller may leave after any byte of its answer.
#[tokio::test]
async fn a_caller_that_leaves_after_any_byte_of_its_answer_leaves_nothing_behind() {
    let (recorder, gateway) = start(GUARDED, "").await;
    for (answer, closes) in [
        ("HTTP/1.1 200 OK~content-length: 5~~hello", false),
        ("HTTP/1.1 200 OK~transfer-encoding: chunked~~5~hello~3~abc~0~~", false),
        ("HTTP/1.1 200 OK~~hello", true),
    ] {
        recorder.script(
            "cut",
            Script {
                bytes: bytes(answer),
                closes,
            },
        );
        let ask = "GET /api/cut HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let length = gateway.raw(ask).await.len();
        for count in 0..length {
            let mut caller = gateway.connect().await;
            caller.send(ask).await;
            caller.take(count).await;
            caller.reset();
            gateway.metric_becomes("gateway_connections", &[], 0.0).await;
            gateway
                .metric_becomes("gateway_bulkhead_in_use", &[("backend", "api")], 0.0)
                .await;
        }
        let told = gateway.raw(AFTER).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{answer}: {told}");
    }
}

/// The network may cut the bytes anywhere.
#[tokio::test]
async fn requests_in_any_two_pieces_get_the_same_answers() {
    let (recorder, gateway) = start(UNGUARDED, "").await;
    for (text, expected) in EXCHANGES {
        let whole = bytes(text);
        for at in 0..=whole.len() {
            let before = recorder.arrived().len();
            let mut caller = gateway.connect().await;
            let (first, second) = whole.split_at(at);
            caller.send(first).await;
            caller.send(second).await;
            caller.half_close().await;
            let all = caller.rest().await;
            let (answers, is_whole) = answers(all.as_bytes(), false);
            assert_eq!(
                (statuses(&answers).as_slice(), is_whole),
                (expected, true),
                "{text}, {at}: {all}"
            );
            let arrived = recorder.arrived().split_off(before);
            let good = expected.iter().filter(|&&status| status == 200).count();
            assert!(
                arrived.len() == good && arrived.iter().all(|one| one.complete && one.defects.is_empty()),
                "{text}, {at}: {arrived:?}"
            );
        }
    }
}

/// RFC 9112 section 9.3: HTTP/1.0 knows no chunks, so an answer without a length ends with its connection.
#[tokio::test]
async fn an_answer_without_length_to_http_1_0_says_that_the_connection_closes() {
    let (recorder, gateway) = start(UNGUARDED, "").await;
    let script = |bytes: &str, closes| Script {
        bytes: self::bytes(bytes),
        closes,
    };
    recorder.script(
        "chunks",
        script("HTTP/1.1 200 OK~transfer-encoding: chunked~~5~hello~0~~", false),
    );
    recorder.script(
        "cut",
        script("HTTP/1.1 200 OK~transfer-encoding: chunked~~5~hello~", true),
    );
    let ask = |target: &str| format!("GET /api/{target} HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");

    let mut caller = gateway.connect().await;
    caller.send(ask("length")).await;
    let head = caller.head().await;
    assert!(head.contains("\r\nconnection: keep-alive\r\n"), "{head}");
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    caller.take(length.expect("a length").parse().expect("a number")).await;

    caller.send(ask("chunks")).await;
    let all = caller.whole().await.expect("it is closed in good order");
    assert!(
        all.contains("\r\nconnection: close\r\n") && !all.contains("chunked") && all.ends_with("\r\n\r\nhello"),
        "{all}"
    );

    let mut caller = gateway.connect().await;
    caller.send(ask("cut")).await;
    assert!(caller.whole().await.is_err(), "it looks complete");
}

/// A refusal that leaves a body unread ends the connection, and says so: what was sent behind it is not answered.
#[tokio::test]
async fn a_refused_upload_says_that_its_connection_closes() {
    let (_recorder, gateway) = start(UNGUARDED, "body_limit: 1KiB").await;
    let chunk = format!("{:x}\r\n{}\r\n", 2000, "x".repeat(2000));
    for target in ["/api/a", "/nowhere"] {
        for _ in 0..20 {
            let mut caller = gateway.connect().await;
            caller
                .send(format!(
                    "POST {target} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
                ))
                .await;
            let head = caller.head().await;
            assert!(head.starts_with("HTTP/1.1 4"), "{head}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
            // The caller goes on, and learns of no reset before it has read the answer.
            for _ in 0..50 {
                caller.send(&chunk).await;
            }
            caller
                .send("0\r\n\r\nGET /api/behind HTTP/1.1\r\nhost: a\r\n\r\n")
                .await;
            let rest = caller.whole().await.expect("no reset");
            assert!(!rest.contains("HTTP/1.1"), "{rest}");
        }
    }
}

/// A small upload that is there is read although it is refused, and what follows it is answered.
#[tokio::test]
async fn what_follows_a_refused_request_that_is_there_is_answered() {
    let (_recorder, gateway) = start(UNGUARDED, "body_limit: 4B").await;
    let refused = "POST /api/a HTTP/1.1~host: a~transfer-encoding: chunked~~5~hello~0~~";
    let mut caller = gateway.connect().await;
    let asked = format!("{refused}GET /api/b HTTP/1.1~host: a~connection: close~~");
    caller.send(bytes(&asked)).await;
    let all = caller.whole().await.expect("no reset");
    let (answers, is_whole) = answers(all.as_bytes(), false);
    assert_eq!((statuses(&answers), is_whole), (vec![413, 200], true), "{all}");
}

/// RFC 9112 section 9.6: the last answer is not lost because the caller keeps sending.
#[tokio::test]
async fn the_last_answer_reaches_a_caller_that_keeps_sending() {
    let (_recorder, gateway) = start(UNGUARDED, "").await;
    let more = "GET /api/more HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500);
    for last in [
        "GET /api/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET bad HTTP/1.1\r\n\r\n",
    ] {
        for _ in 0..20 {
            let mut caller = gateway.connect().await;
            caller.send(last).await;
            for _ in 0..5 {
                caller.send(&more).await;
            }
            let all = caller.whole().await.expect("no reset");
            let (answers, is_whole) = answers(all.as_bytes(), false);
            assert_eq!((answers.len(), is_whole), (1, true), "{all}");
        }
    }
}

/// A caller that has said all that it has to say may close its direction.
#[tokio::test]
async fn a_caller_that_closes_its_direction_gets_its_answer() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    for request in [
        "GET /api/echo HTTP/1.1~host: a~~",
        "GET /api/echo HTTP/1.0~~",
        "POST /api/echo HTTP/1.1~host: a~content-length: 5~~hello",
        "POST /api/echo HTTP/1.1~host: a~transfer-encoding: chunked~~5~hello~0~~",
    ] {
        let mut caller = gateway.connect().await;
        caller.send(bytes(request)).await;
        caller.half_close().await;
        let all = caller.whole().await.expect("no reset");
        assert!(
            all.starts_with("HTTP/1.") && all.contains(" 200 OK\r\n"),
            "{request}: {all}"
        );
    }
    // While it waits for long, it is asked whether it does; but not over HTTP/1.0, which knows no interim answers.
    for version in ["1.1", "1.0"] {
        api.close_gate();
        let mut caller = gateway.connect().await;
        caller
            .send(format!("GET /api/echo HTTP/{version}\r\nhost: a\r\n\r\n"))
            .await;
        caller.half_close().await;
        api.wait_for(|counts| counts.at_gate == 1, SOON)
            .await
            .expect("it is asked");
        if version == "1.1" {
            assert_eq!(caller.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        }
        api.open_gate();
        let all = caller.whole().await.expect("no reset");
        let answer = all.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(answer.starts_with(&format!("HTTP/{version} 200")), "{all}");
    }
    // An upload that ends too early is not whole, and its backend does not get it as such.
    api.take_requests();
    let mut caller = gateway.connect().await;
    caller
        .send("POST /api/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhello")
        .await;
    caller.half_close().await;
    let all = caller.rest().await;
    assert!(!all.contains(" 200 "), "{all}");
    assert!(api.take_requests().iter().all(|request| !request.body_complete));
}

/// A caller that leaves closes its direction too, and its slot must come back.
#[tokio::test]
async fn a_caller_that_leaves_is_noticed_however_it_closes() {
    let (_fleet, api) = one_backend("api").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let config = Config::default()
        .backend("api", api.address(), "time_limit: 25s, retry: off, breaker: off")
        .open_route("api", "api", "time_limit: 25s");
    let gateway = Gateway::start(config.to_string()).await;
    let mut caller: Raw = gateway.connect().await;
    caller.send("GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n").await;
    api.wait_for(|counts| counts.in_flight == 1, SOON)
        .await
        .expect("it is asked");
    caller.half_close().await;
    assert!(caller.head().await.starts_with("HTTP/1.1 100"));
    assert_eq!(api.counts().in_flight, 1, "it waits");
    drop(caller);
    api.wait_for(|counts| counts.in_flight == 0, SOON)
        .await
        .expect("it is noticed");
}

/// RFC 9110 section 15.2: a proxy forwards interim answers, but not to HTTP/1.0.
#[tokio::test]
async fn early_hints_of_a_backend_reach_a_caller_that_knows_them() {
    const HINTS: &str =
        "HTTP/1.1 103 Early Hints~link: </a.css>; rel=preload~connection: x-hop~x-hop: 1~x-gateway-x: 2~~";
    let answer = format!("HTTP/1.1 100 Continue~~{HINTS}{HINTS}HTTP/1.1 200 OK~content-length: 2~~ok");
    for (guards, forwarded) in [
        (UNGUARDED.to_owned(), 2),
        (format!("connections: {{ informational: drop }}, {UNGUARDED}"), 0),
    ] {
        let (recorder, gateway) = start(&guards, "").await;
        recorder.script(
            "hints",
            Script {
                bytes: bytes(&answer),
                closes: false,
            },
        );
        for (version, forwarded) in [("1.1", forwarded), ("1.0", 0)] {
            let all = gateway
                .raw(format!(
                    "GET /api/hints HTTP/{version}\r\nhost: a\r\nconnection: close\r\n\r\n"
                ))
                .await;
            let hints: Vec<_> = all.split("\r\n\r\n").filter(|head| head.contains(" 103 ")).collect();
            assert_eq!(hints.len(), forwarded, "{version}: {all}");
            for hint in hints {
                assert!(hint.contains("link: </a.css>; rel=preload"), "{all}");
                assert!(!hint.contains("x-hop") && !hint.contains("x-gateway"), "{all}");
            }
            assert!(!all.contains(" 100 ") && all.ends_with("\r\n\r\nok"), "{all}");
        }
    }
}

/// RFC 9110 section 10.1.1: the backend says whether an upload comes at all, and one that says nothing gets it.
#[tokio::test]
async fn a_caller_that_asks_before_it_uploads_is_answered_by_the_backend() {
    for (says, is_wanted) in [
        ("HTTP/1.1 100 Continue~~", true),
        ("HTTP/1.1 103 Early Hints~~HTTP/1.1 100 Continue~~", true),
        ("HTTP/1.1 413 Too Large~content-length: 0~~", false),
        ("", true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let gateway = Gateway::start(Config::default().open("api", address, UNGUARDED).to_string()).await;
        let mut caller = gateway.connect().await;
        caller
            .send("POST /api/x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
            .await;
        let (mut backend, _) = listener.accept().await.expect("it comes");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(backend.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
        backend.write_all(&bytes(says)).await.expect("it is open");
        let mut told = caller.head().await;
        if told.starts_with("HTTP/1.1 103") {
            told = caller.head().await;
        }
        if !is_wanted {
            assert!(
                told.starts_with("HTTP/1.1 413") && told.contains("\r\nconnection: close\r\n"),
                "{told}"
            );
            let nothing = backend.read(&mut [0; 16]).await;
            assert!(
                matches!(nothing, Ok(0) | Err(_)),
                "a body comes although it is not wanted: {nothing:?}"
            );
            continue;
        }
        assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n", "{says:?}");
        caller.send("hello").await;
        let mut body = [0; 5];
        backend.read_exact(&mut body).await.expect("the body");
        assert_eq!(&body, b"hello");
        backend
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .expect("it is open");
        assert!(caller.head().await.starts_with("HTTP/1.1 200"));
    }
}
