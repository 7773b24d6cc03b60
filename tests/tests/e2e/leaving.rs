//! Checks that a caller that disconnects before its answer is noticed soon, also if it has sent bytes that were not read.

use std::time::Duration;

use fixtures::fleet::{Behaviour, Fault, Fleet, Handle};
use tests::configs::Config;
use tests::tls::{Authority, Tls};
use tests::{Gateway, Raw, Setup};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::{SOON, one_backend};

const API: [(&str, &str); 1] = [("backend", "api")];
const FIRST: &str = "GET /api/echo HTTP/1.1\r\nhost: a\r\n\r\n";

/// The backend hangs, for longer than a test waits.
async fn start() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let config = Config::default()
        .top("time_limits: { request: 10m }")
        .backend("api", api.address(), "time_limit: 5m, retry: off, breaker: off")
        .open_route("api", "api", "time_limit: 5m, body_limit: 1GiB");
    (fleet, api, Gateway::start(config.to_string()).await)
}

async fn is_asked(api: &Handle) {
    api.wait_for(|counts| counts.in_flight == 1, SOON)
        .await
        .expect("the backend is asked");
}

async fn is_noticed(gateway: &Gateway, api: &Handle, what: &str) {
    let gone = api.wait_for(|counts| counts.in_flight == 0, SOON).await;
    assert!(gone.is_ok(), "{what}: {gone:?}");
    gateway.metric_becomes("gateway_bulkhead_in_use", &API, 0.0).await;
    gateway.metric_becomes("gateway_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn whatever_lies_unread() {
    let (_fleet, api, gateway) = start().await;
    let some = FIRST.repeat(500);
    let many = FIRST.repeat(20_000);
    let upload = "POST /api/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 500000000\r\n\r\n";
    let body = "x".repeat(6_000_000);
    // Bytes that find no room hold up a FIN that follows them, but not an RST.
    let cases: [(&str, &str, &str, bool); 7] = [
        ("nothing", FIRST, "", true),
        ("another request", FIRST, FIRST, true),
        ("a part of one", FIRST, "GET /api/ec", true),
        ("many others", FIRST, &some, true),
        ("more than there is room for", FIRST, &many, false),
        ("something that is no request", FIRST, "\0\0\0", true),
        ("a body that the backend does not take", upload, &body, false),
    ];
    for (what, request, more, fits) in cases {
        for resets in [true, false].into_iter().filter(|resets| *resets || fits) {
            let mut caller: Raw = gateway.connect().await;
            caller.send(request).await;
            is_asked(&api).await;
            // The gateway takes only so much of it.
            let _ = timeout(Duration::from_millis(200), caller.send(more)).await;
            if resets {
                caller.reset();
            } else {
                drop(caller);
            }
            is_noticed(&gateway, &api, what).await;
        }
    }
}

#[tokio::test]
async fn over_tls_as_well() {
    let (_fleet, api) = one_backend("api").await;
    api.behave(Behaviour::always(Fault::Hang)).await;
    let authority = Authority::new("test");
    let edge = authority.issue(&["edge.test"]);
    let top = "
listeners:
  public: { address: \"127.0.0.1:0\" }
  secure: { address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }] } }
admin: { address: \"127.0.0.1:0\" }
callers: { anonymous: { by: client_address } }
time_limits: { request: 10m }
";
    let config = Config::with(top)
        .backend("api", api.address(), "time_limit: 5m, retry: off, breaker: off")
        .open_route("api", "api", "time_limit: 5m");
    let gateway = Setup::new(config.to_string())
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .start()
        .await;
    let mut caller = Tls::new(&authority, "edge.test")
        .connect(gateway.address_of("secure"))
        .await
        .expect("a handshake");
    caller.write_all(FIRST.repeat(2).as_bytes()).await.expect("it is open");
    is_asked(&api).await;
    drop(caller);
    is_noticed(&gateway, &api, "another request, over TLS").await;
}

/// What was left unread while one answer was waited for is read once that is there.
#[tokio::test]
async fn nothing_that_lay_unread_is_lost() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), "retry: off, breaker: off");
    let gateway = Gateway::start(config.to_string()).await;
    const COUNT: usize = 3_000;
    api.close_gate();
    let mut caller = gateway.connect().await;
    caller.send(FIRST).await;
    api.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("the backend is asked");
    let more = FIRST.repeat(COUNT - 1);
    let sends = caller.takes(more.as_bytes());
    // All of it may not fit in before the first is answered.
    let (sent, ()) = tokio::join!(sends, async {
        tokio::task::yield_now().await;
        api.open_gate();
    });
    assert!(sent);
    for number in 0..COUNT {
        let head = caller.head().await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{number}: {head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .expect("a length");
        caller.take(length.trim().parse().expect("a number")).await;
    }
}
