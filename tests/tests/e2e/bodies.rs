//! Checks that bodies stream both ways, whatever their size, and that a truncated body never looks complete.

use std::time::Duration;

use bytes::Bytes;
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use tests::configs::Config;
use tests::{Failure, Gateway, Upload, within};

use crate::{SOON, one_backend};

const MIB: usize = 1 << 20;

async fn start(route: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .backend("api", api.address(), "retry: off, breaker: off, time_limit: 25s")
        .open_route("api", "api", &format!("time_limit: 25s{route}"));
    (fleet, api, Gateway::start(config.to_string()).await)
}

#[tokio::test]
async fn an_answer_begins_while_the_request_is_still_coming() {
    let (_fleet, _api, gateway) = start("").await;
    let (pieces, upload) = Upload::pieces(1);
    let mut answer = gateway.post("/api/mirror").upload(upload).open().await.expect("a head");
    for word in ["one", "two", "three"] {
        pieces.send(Bytes::from(word)).await.expect("the request is open");
        let back = answer.piece().await.expect("no failure").expect("not the end");
        assert_eq!(back, word);
    }
    drop(pieces);
    assert_eq!(answer.piece().await.expect("no failure"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sixty_four_megabytes_pass_both_ways_without_being_kept() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 64 * MIB / PIECE;
    let (_fleet, api, gateway) = start(", body_limit: 128MiB").await;
    gateway.get("/api/echo").send().await.expect(200);
    let before = gateway.memory();
    let (pieces, upload) = Upload::pieces(1);
    let sending = tokio::spawn(async move {
        for number in 0..PIECES {
            let piece = vec![(number % 251) as u8; PIECE];
            pieces.send(piece.into()).await.expect("the request is open");
        }
    });
    let mut answer = gateway.post("/api/mirror").upload(upload).open().await.expect("a head");
    let (mut received, mut most) = (0, 0);
    while let Some(piece) = answer.piece().await.expect("no failure") {
        for byte in piece {
            assert_eq!(usize::from(byte), received / PIECE % 251, "at byte {received}");
            received += 1;
        }
        if received % MIB == 0 {
            most = most.max(gateway.memory());
        }
    }
    sending.await.expect("no panic");
    assert_eq!(received, PIECES * PIECE);
    let grown = most.max(gateway.memory()).saturating_sub(before);
    assert!(grown < 16 * MIB as u64, "{grown} bytes more than before");
    assert!(api.requests().last().expect("it came").body_complete);
}

#[tokio::test]
async fn a_caller_who_does_not_read_holds_up_the_backend_and_not_the_memory() {
    let (_fleet, api, gateway) = start("").await;
    gateway.get("/api/echo").send().await.expect(200);
    let before = gateway.memory();
    let mut caller = gateway.connect().await;
    caller
        .send("GET /api/bytes/268435456 HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200"));
    caller.take(MIB).await;
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 * MIB as u64, "{grown} bytes more than before");
    assert_eq!(api.in_flight(), 1, "the rest waits at the backend");
}

#[tokio::test]
async fn an_upload_arrives_byte_for_byte() {
    let (_fleet, api, gateway) = start("").await;
    let body: Vec<u8> = (0..100_000).map(|n| (n % 253) as u8).collect();
    let answer = gateway.post("/api/echo").body(body.clone()).send().await.expect(200);
    assert_eq!(answer.json()["body_length"], 100_000);
    let request = api.take_requests().pop().expect("it came");
    assert_eq!(request.header("content-length"), Some("100000"));
    assert!(request.body_complete && request.body[..] == body[..request.body.len()]);

    let chunked = "POST /api/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let answer = gateway.raw(chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let request = api.take_requests().pop().expect("it came");
    assert!(request.body_complete && request.body == b"abcde", "{request:?}");
}

#[tokio::test]
async fn an_answer_that_the_backend_cuts_short_never_looks_whole() {
    let (_fleet, api, gateway) = start("").await;
    let faults = [
        Fault::ResetMidBody,
        Fault::CutOff { chunked: false },
        Fault::CutOff { chunked: true },
    ];
    for fault in faults {
        api.behave(Behaviour::always(fault.clone())).await;
        for _ in 0..10 {
            match gateway.get("/api/echo").try_send().await {
                Err(Failure::Aborted { .. } | Failure::Unanswered(_)) => {}
                Ok(answer) if answer.status == 502 => drop(answer.refusal(502, "backend_broken")),
                other => panic!("{fault:?}: {other:?}"),
            }
        }
    }
    let in_use = [("backend", "api")];
    gateway.metric_becomes("gateway_bulkhead_in_use", &in_use, 0.0).await;
    assert!(
        gateway
            .metric("gateway_aborted_responses_total", &[("route", "api")])
            .await
            > 0.0
    );
}

#[tokio::test]
async fn what_is_no_answer_becomes_a_502() {
    let (_fleet, api, gateway) = start("").await;
    let cases = [
        (Behaviour::always(Fault::Reset), "backend_broken"),
        (Behaviour::always(Fault::Close), "backend_broken"),
        (Behaviour::always(Fault::Garbage), "backend_invalid"),
        (Behaviour::always(Fault::HugeHead { bytes: 4 * MIB }), "backend_invalid"),
        (
            Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
            "backend_invalid",
        ),
        (
            Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello"),
            "backend_invalid",
        ),
        (Behaviour::raw("HTTP/1.1 abc OK\r\n\r\n"), "backend_invalid"),
        (
            Behaviour::raw("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
            "backend_invalid",
        ),
        (Behaviour::raw("HTTP/1.1 20"), "backend_broken"),
        (
            Behaviour::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            "backend_invalid",
        ),
        (Behaviour::refusing(), "backend_unreached"),
    ];
    for (behaviour, reason) in cases {
        api.behave(behaviour.clone()).await;
        let refused = gateway.get("/api/echo").send().await;
        assert_eq!(
            (refused.status, refused.reason()),
            (502, Some(reason)),
            "{behaviour:?}: {refused:#?}"
        );
    }
    api.heal().await;
    gateway.get("/api/echo").send().await.expect(200);
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let (_fleet, api, gateway) = start("").await;
    api.behave(Behaviour::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end")).await;
    let answer = gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(answer.text(), "until the end");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_the_backend_has_it_whole() {
    let (_fleet, api, gateway) = start(", body_limit: 1KiB").await;
    gateway
        .post("/api/echo")
        .body(vec![b'x'; 1024])
        .send()
        .await
        .expect(200);
    api.take_requests();
    let refused = gateway.post("/api/echo").body(vec![b'x'; 1025]).send().await;
    refused.refusal(413, "body_too_large");
    assert_eq!(api.take_requests().len(), 0, "its length said so");

    let (pieces, upload) = Upload::pieces(4);
    for _ in 0..3 {
        pieces.send(Bytes::from(vec![b'x'; 512])).await.expect("there is room");
    }
    drop(pieces);
    let refused = gateway.post("/api/echo").upload(upload).send().await;
    refused.refusal(413, "body_too_large");
    api.wait_for(|counts| counts.in_flight == 0, SOON)
        .await
        .expect("it is cancelled");
    assert!(
        api.requests().iter().all(|request| !request.body_complete),
        "{:?}",
        api.requests()
    );
}

#[tokio::test]
async fn a_caller_who_hangs_up_during_an_upload_leaves_nothing_behind() {
    let (_fleet, api, gateway) = start("").await;
    for heads in ["content-length: 1000", "transfer-encoding: chunked"] {
        let cancelled = api.counts().cancelled;
        let mut caller = gateway.connect().await;
        caller
            .send(format!(
                "POST /api/mirror HTTP/1.1\r\nhost: a\r\n{heads}\r\n\r\n5\r\nhello\r\n"
            ))
            .await;
        api.wait_for(|counts| counts.in_flight == 1, SOON)
            .await
            .expect("it is asked");
        drop(caller);
        let gone = |counts: &fixtures::fleet::Counts| counts.cancelled > cancelled && counts.in_flight == 0;
        api.wait_for(gone, SOON).await.expect("the connection is closed");
        let request = api.take_requests().pop().expect("it came");
        assert!(!request.body_complete, "{heads}: half a body is not a body");
    }
    gateway
        .metric_becomes("gateway_bulkhead_in_use", &[("backend", "api")], 0.0)
        .await;
}

#[tokio::test]
async fn whoever_asks_first_is_told_to_go_on() {
    let (_fleet, _api, gateway) = start("").await;
    let mut caller = gateway.connect().await;
    caller
        .send("POST /api/echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    let interim = within(Duration::from_secs(5), "100 Continue", caller.head()).await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    caller.send("hello").await;
    let answer = caller.head().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn whoever_asks_first_and_is_refused_is_not_told_to_go_on() {
    let (_fleet, api, gateway) = start(", limits: { few: { rate: 1/h, burst: 1, per: route } }").await;
    gateway.get("/api/echo").send().await.expect(200);
    api.take_requests();
    for target in ["/api/echo", "/nowhere"] {
        let mut caller = gateway.connect().await;
        caller
            .send(format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
            ))
            .await;
        let all = caller.rest().await.to_ascii_lowercase();
        assert!(
            all.starts_with("http/1.1 4") && all.contains("\r\nconnection: close\r\n"),
            "{all}"
        );
    }
    assert_eq!(api.take_requests().len(), 0);
}

/// Closing while a caller still sends would reset the connection, and many a caller would lose the answer with it.
#[tokio::test]
async fn a_caller_who_is_refused_may_finish_its_sentence() {
    let (_fleet, _api, gateway) = start("").await;
    let mut caller = gateway.connect().await;
    caller
        .send("POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n")
        .await;
    let told = caller.rest().await.to_ascii_lowercase();
    assert!(
        told.starts_with("http/1.1 404") && told.contains("\r\nconnection: close\r\n"),
        "{told}"
    );
    for _ in 0..20 {
        assert!(caller.takes(&[b'x'; 10_000]).await, "the connection was reset");
    }
    caller.half_close().await;
    gateway.metric_becomes("gateway_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_ends_its_connection_unless_it_is_there() {
    let (_fleet, _api, gateway) = start("").await;
    let head = "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n";
    let mut caller = gateway.connect().await;
    for _ in 0..2 {
        caller.send(format!("{head}hello")).await;
        let told = caller.head().await.to_ascii_lowercase();
        assert!(
            told.starts_with("http/1.1 404") && !told.contains("\r\nconnection: close\r\n"),
            "{told}"
        );
        let length = told
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split('\r').next());
        caller
            .take(length.expect("it has one").parse().expect("a number"))
            .await;
    }
    caller.send(head).await;
    let told = caller.rest().await.to_ascii_lowercase();
    assert!(
        told.starts_with("http/1.1 404") && told.contains("\r\nconnection: close\r\n"),
        "{told}"
    );
}
