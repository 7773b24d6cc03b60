//! Checks backends that speak HTTP/2: many exchanges on few connections, and a failed exchange does not affect the
//! others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use h2::Reason;
use tests::configs::{Config, UNGUARDED};
use tests::http2::{Ended, Http2, Manner};
use tests::tls::{Authority, Front};
use tests::{Answer, Gateway, Raw, Setup, eventually};
use tokio::net::TcpListener;

use crate::{SOON, one_backend};

/// One worker, so that its connections can be counted; `more` is the rest of the backend's mapping.
pub(crate) fn config(address: SocketAddr, more: &str) -> String {
    let more = format!("protocol: h2c, {more}");
    Config::default()
        .top("workers: 1")
        .open("api", address, &more)
        .to_string()
}

async fn start(manner: Manner, more: &str) -> (Http2, Gateway) {
    let backend = Http2::start(manner).await;
    let gateway = Gateway::start(config(backend.address(), more)).await;
    (backend, gateway)
}

/// Asks so many times at once.
fn ask(gateway: &Gateway, target: &'static str, count: usize) -> tokio::task::JoinHandle<Vec<Answer>> {
    let asked: Vec<_> = (0..count).map(|_| gateway.get(target).send()).collect();
    tokio::spawn(join_all(asked))
}

fn by_connection(backend: &Http2) -> Vec<usize> {
    let mut counts = BTreeMap::new();
    for came in backend.came() {
        *counts.entry(came.connection).or_default() += 1;
    }
    counts.into_values().collect()
}

#[tokio::test]
async fn exchanges_share_connections_within_the_limit_of_the_backend() {
    let manner = Manner {
        streams: Some(10),
        ..Manner::default()
    };
    let (backend, gateway) = start(manner, UNGUARDED).await;
    let held = ask(&gateway, "/api/hold", 30);
    backend.until_came(30).await;
    assert_eq!(by_connection(&backend), [10, 10, 10]);
    let shown = gateway.admin_json("/api/v1/backends").await;
    let api = &shown["backends"][0];
    assert_eq!(api["protocol"], "h2c");
    assert_eq!(
        api["endpoints"][0]["connections"],
        serde_json::json!({ "active": 3, "idle": 0, "exchanges": 30 })
    );
    assert_eq!(
        gateway.metric("gateway_backend_exchanges", &[("backend", "api")]).await,
        30.0
    );
    backend.release();
    for answer in held.await.expect("all are answered") {
        assert_eq!(answer.expect(200).text(), "released");
    }
    for _ in 0..20 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    assert_eq!(backend.connections(), 3, "what is open is used again");
    let newest: Vec<_> = backend.came()[30..].iter().map(|came| came.connection).collect();
    assert!(
        newest.windows(2).all(|pair| pair[0] == pair[1]),
        "load gathers: {newest:?}"
    );
}

#[tokio::test]
async fn exchanges_share_connections_within_our_own_limit() {
    let (backend, gateway) = start(
        Manner::default(),
        &format!("{UNGUARDED}, connections: {{ streams: 4 }}"),
    )
    .await;
    let held = ask(&gateway, "/api/hold", 8);
    backend.until_came(8).await;
    assert_eq!(by_connection(&backend), [4, 4]);
    backend.release();
    held.await.expect("all are answered").into_iter().for_each(|answer| {
        answer.expect(200);
    });
}

#[tokio::test]
async fn a_request_has_the_form_of_http2() {
    let (backend, gateway) = start(Manner::default(), &format!("{UNGUARDED}, preserve_host: true")).await;
    gateway
        .get("/api/a%2Db/echo?q=%7B1%7D")
        .header("host", "shop.example")
        .header("te", "trailers")
        .header("connection", "te")
        .send()
        .await
        .expect(200);
    let [came] = backend.came().try_into().expect("one came");
    assert_eq!(came.uri, "http://shop.example/a%2Db/echo?q=%7B1%7D");
    assert_eq!(came.headers["te"], "trailers");
    for gone in ["host", "connection", "upgrade", "keep-alive", "transfer-encoding"] {
        assert!(!came.headers.contains_key(gone), "{gone}: {:?}", came.headers);
    }

    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let answer = gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(answer.headers["via"].to_str().unwrap().split(' ').next(), Some("2.0"));
    let [came] = backend.came().try_into().expect("one came");
    assert_eq!(came.uri.authority().unwrap().as_str(), backend.address().to_string());
    assert!(!came.headers.contains_key("te"));
}

#[tokio::test]
async fn what_was_refused_is_tried_again_whatever_the_method() {
    let guards = "breaker: off, retry: { attempts: 2, backoff: 1ms..5ms }";
    let (backend, gateway) = start(Manner::default(), guards).await;
    backend.refuse(1);
    let answer = gateway.post("/api/echo").body("one order").send().await.expect(200);
    assert_eq!(answer.text(), "one order");
    let ends: Vec<_> = backend.came().iter().map(|came| came.ended).collect();
    assert_eq!(ends, [Some(Ended::Refused), Some(Ended::Answered)]);
    assert_eq!(backend.connections(), 1, "a refusal does not concern the connection");
    backend.refuse(2);
    gateway
        .post("/api/echo")
        .body("one order")
        .send()
        .await
        .refusal(502, "backend_unreached");
}

#[tokio::test]
async fn a_connection_that_goes_away_loses_nothing() {
    let manner = Manner {
        goes_after: Some(5),
        ..Manner::default()
    };
    let (backend, gateway) = start(manner, UNGUARDED).await;
    let callers = (0..8).map(|caller| {
        let client = gateway.another_client();
        tokio::spawn(async move {
            for number in 0..50 {
                let order = format!("order {caller} {number}");
                let answer = client.post("/api/echo").body(order.clone()).send().await.expect(200);
                assert_eq!(answer.text(), order);
            }
        })
    });
    for caller in join_all(callers).await {
        caller.expect("every order was served");
    }
    assert_eq!(backend.came().len(), 400, "each order once");
    assert!(backend.connections() > 10, "{}", backend.connections());
}

#[tokio::test]
async fn a_caller_who_hangs_up_resets_a_stream_and_no_more() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let mut caller = gateway.connect().await;
    caller.send("GET /api/hang HTTP/1.1\r\nhost: a\r\n\r\n").await;
    backend.until_came(1).await;
    let held = ask(&gateway, "/api/hold", 2);
    backend.until_came(3).await;
    drop(caller);
    assert_eq!(backend.until_ended(0).await, Ended::Reset(Reason::CANCEL));
    backend.release();
    for answer in held.await.expect("both are answered") {
        answer.expect(200);
    }

    // In the middle of an answer as well.
    let mut caller = gateway.connect().await;
    caller.send("GET /api/endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    caller.take(100_000).await;
    drop(caller);
    assert_eq!(backend.until_ended(3).await, Ended::Reset(Reason::CANCEL));
    // And of a request.
    let mut caller = gateway.connect().await;
    caller
        .send("POST /api/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    eventually(SOON, "half of it arrives", || async {
        (backend.came().get(4)?.received == 4).then_some(())
    })
    .await;
    drop(caller);
    assert_eq!(backend.until_ended(4).await, Ended::Reset(Reason::CANCEL));
    gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(backend.connections(), 1);
    gateway
        .metric_becomes("gateway_backend_exchanges", &[("backend", "api")], 0.0)
        .await;
}

#[tokio::test]
async fn a_caller_who_leaves_a_backend_that_reads_nothing_leaves_nothing_behind() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let mut caller = gateway.connect().await;
    caller
        .send("POST /api/grpc.Test/Endless HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    // More than there is room for.
    caller.send(vec![b'x'; 200_000]).await;
    caller.head().await;
    caller.take(100).await;
    drop(caller);
    assert_eq!(backend.until_ended(0).await, Ended::Reset(Reason::CANCEL));
    gateway
        .metric_becomes("gateway_backend_exchanges", &[("backend", "api")], 0.0)
        .await;
}

#[tokio::test]
async fn a_crowd_that_hangs_up_breaks_nothing_for_those_who_stay() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let held = ask(&gateway, "/api/hold", 1);
    backend.until_came(1).await;
    let address = gateway.address();
    let crowd = (0..16).map(|_| async move {
        for _ in 0..100 {
            let mut caller = Raw::connect(address).await;
            caller.send("GET /api/endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
            caller.take(20_000).await;
        }
    });
    join_all(crowd).await;
    backend.release();
    held.await.expect("it is answered").pop().expect("one").expect(200);
    assert_eq!((backend.connections(), backend.came().len()), (1, 1601));
}

#[tokio::test]
async fn a_deadline_resets_a_stream_and_the_connection_lives() {
    let (backend, gateway) = start(Manner::default(), &format!("{UNGUARDED}, time_limit: 300ms")).await;
    gateway.get("/api/hang").send().await.refusal(504, "backend_timeout");
    assert_eq!(backend.until_ended(0).await, Ended::Reset(Reason::CANCEL));
    gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_concerns_nobody_else() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let held = ask(&gateway, "/api/hold", 1);
    backend.until_came(1).await;
    let mut broken = Vec::new();
    for target in ["/api/break", "/api/stop"] {
        let mut answer = gateway.get(target).open().await.expect("it begins");
        assert_eq!(answer.piece().await.expect("a piece").as_deref(), Some(&b"so far"[..]));
        broken.push(answer);
    }
    backend.release();
    for mut answer in broken {
        let rest = answer.piece().await;
        assert!(rest.is_err(), "it is not taken for whole: {rest:?}");
    }
    held.await.expect("it is answered").pop().expect("one").expect(200);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let answer = gateway
        .raw(
            "POST /api/echo HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close, te\r\ntrailer: x-sum\r\n\
             transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    let came = &backend.came()[0];
    assert_eq!(came.trailers.as_ref().expect("they came")["x-sum"], "7");
    assert!(answer.contains("body"), "{answer}");
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let sent: Vec<u8> = (0..4 << 20).map(|number: u32| (number % 251) as u8).collect();
    let answer = gateway.post("/api/echo").body(sent.clone()).send().await.expect(200);
    assert!(
        answer.body == sent,
        "{} of {} bytes, or others",
        answer.body.len(),
        sent.len()
    );
    let answer = gateway.get("/api/large").send().await.expect(200);
    assert_eq!(answer.body.len(), 4 << 20);
    // A caller that does not read does not stop the others on the connection.
    let mut slow = gateway.connect().await;
    slow.send("GET /api/endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    slow.head().await;
    let answers = ask(&gateway, "/api/large", 4).await.expect("all are answered");
    assert!(answers.iter().all(|answer| answer.body.len() == 4 << 20));
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn callers_who_do_not_read_hold_up_nobody_else() {
    const SLOW: usize = 90;
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let mut slow: Vec<Raw> = Vec::new();
    for _ in 0..SLOW {
        let mut caller = gateway.connect().await;
        caller.send("GET /api/endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200"));
        slow.push(caller);
    }
    // Until as much has come of each as may.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..5 {
        let answer = gateway.get("/api/large").send();
        let answer = tests::within(SOON, "an answer beside those that are not read", answer).await;
        assert_eq!(answer.expect(200).body.len(), 4 << 20);
    }
    assert_eq!(backend.connections(), 1);
    drop(slow);
}

#[tokio::test]
async fn an_answer_may_come_before_its_request_is_over() {
    let (backend, gateway) = start(Manner::default(), UNGUARDED).await;
    let answer = gateway
        .raw("POST /api/early HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = gateway
        .raw("POST /api/enough HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    assert!(answer.ends_with("6\r\nenough\r\n0\r\n\r\n"), "{answer}");
    gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn connections_that_are_old_are_replaced_without_a_word() {
    let more = format!("{UNGUARDED}, connections: {{ age: 1s }}");
    let (backend, gateway) = start(Manner::default(), &more).await;
    let held = ask(&gateway, "/api/hold", 1);
    backend.until_came(1).await;
    eventually(SOON, "a third connection is opened", || async {
        gateway.get("/api/echo").send().await.expect(200);
        (backend.connections() == 3).then_some(())
    })
    .await;
    eventually(SOON, "the second is closed, the first carries something", || async {
        (backend.open() == 2).then_some(())
    })
    .await;
    backend.release();
    held.await.expect("it is answered").pop().expect("one").expect(200);
    eventually(SOON, "the first is closed too", || async {
        gateway.get("/api/echo").send().await.expect(200);
        (backend.open() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let more = format!("{UNGUARDED}, connections: {{ idle: 100ms }}");
    let (backend, gateway) = start(Manner::default(), &more).await;
    gateway.get("/api/echo").send().await.expect(200);
    eventually(SOON, "it is closed", || async { (backend.open() == 0).then_some(()) }).await;
    gateway.get("/api/echo").send().await.expect(200);
}

fn in_tls(address: SocketAddr) -> String {
    let endpoint = format!("https://localhost:{}", address.port());
    let tls = "tls: { ca_file: ca.pem }";
    let backend =
        format!("backends:\n  api: {{ endpoints: [{{ url: \"{endpoint}\" }}], protocol: h2, {UNGUARDED}, {tls} }}");
    Config::default().top(backend).open_route("api", "api", "").to_string()
}

#[tokio::test]
async fn http2_is_agreed_upon_in_tls() {
    let authority = Authority::new("private");
    let shows = Some(authority.issue(&["localhost"]));
    let backend = Http2::start(Manner {
        shows,
        ..Manner::default()
    })
    .await;
    let gateway = Setup::new(in_tls(backend.address()))
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let answer = gateway.post("/api/echo").body("secret").send().await.expect(200);
    assert_eq!(answer.text(), "secret");
    assert_eq!(backend.came()[0].uri.scheme_str(), Some("https"));
    assert_eq!(
        gateway.admin_json("/api/v1/backends").await["backends"][0]["protocol"],
        "h2"
    );
}

#[tokio::test]
async fn who_does_not_speak_http2_is_told_apart_before_anything_is_sent() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("private");
    let front = Front::start(&authority.issue(&["localhost"]), None, api.address()).await;
    let gateway = Setup::new(in_tls(front.address()))
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let refused = |gateway: Gateway, why: &'static str| async move {
        gateway
            .post("/api/echo")
            .body("x")
            .send()
            .await
            .refusal(502, "backend_unreached");
        eventually(SOON, "the log says why", || async {
            gateway.stdout().contains(why).then_some(())
        })
        .await;
    };
    refused(gateway, "NoApplicationProtocol").await;
    let gateway = Gateway::start(config(api.address(), UNGUARDED)).await;
    refused(gateway, "does not speak HTTP/2").await;
    assert!(api.take_requests().is_empty());
}

#[tokio::test]
async fn websockets_are_opened_over_http2() {
    let websockets = |opens_websockets| Manner {
        opens_websockets,
        ..Manner::default()
    };
    let more = "upgrade: websocket";
    let start = async |manner| {
        let backend = Http2::start(manner).await;
        let config = Config::default()
            .top("workers: 1")
            .backend("api", backend.address(), &format!("protocol: h2c, {UNGUARDED}"))
            .open_route("ws", "api", more);
        (backend, Gateway::start(config.to_string()).await)
    };
    let (backend, gateway) = start(websockets(true)).await;
    let wish = "GET /ws/socket?room=7 HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut caller = gateway.connect().await;
    caller.send(wish).await;
    let head = caller.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    caller.send(b"\x82\x05hello").await;
    assert_eq!(caller.take(7).await, b"\x82\x05hello");
    let came = &backend.came()[0];
    assert_eq!(
        (came.method.as_str(), came.protocol.as_deref()),
        ("CONNECT", Some("websocket"))
    );
    assert_eq!(came.uri.path_and_query().unwrap(), "/socket?room=7");
    assert_eq!(came.headers["sec-websocket-version"], "13");
    for gone in ["sec-websocket-key", "connection", "upgrade"] {
        assert!(!came.headers.contains_key(gone), "{gone}");
    }
    caller.half_close().await;
    assert_eq!(backend.until_ended(0).await, Ended::Answered);

    let (_backend, gateway) = start(websockets(false)).await;
    let answer = gateway.raw(wish).await;
    assert!(answer.contains("backend_invalid"), "{answer}");
    let why = "SETTINGS_ENABLE_CONNECT_PROTOCOL";
    eventually(SOON, "the log says why", || async {
        gateway.stdout().contains(why).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_crowd_is_bounded_by_its_deadline() {
    // The connection is never accepted: all waiting calls are answered in time.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let gateway = Gateway::start(config(address, &format!("{UNGUARDED}, time_limit: 300ms"))).await;
    let answers = ask(&gateway, "/api/echo", 20).await.expect("all are told");
    for answer in answers {
        answer.refusal(504, "backend_timeout");
    }
    let open = Duration::from_secs(1);
    let first = tokio::time::timeout(open, listener.accept()).await;
    assert!(first.is_ok_and(|accepted| accepted.is_ok()), "one was opened for all");
}
