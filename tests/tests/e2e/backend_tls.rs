//! Checks TLS to backends: only a backend that proves its identity gets requests, and every failure says what was
//! wrong.

use std::net::SocketAddr;

use tests::configs::{Config, UNGUARDED};
use tests::tls::{Authority, Front};
use tests::{Gateway, Setup, eventually};
use tokio::net::TcpListener;

use crate::{SOON, one_backend};

const HANDSHAKES: &str = "gateway_backend_tls_handshakes_total";

/// One backend at `https://{host}:{port}`; `more` is the rest of its mapping.
fn config(host: &str, address: SocketAddr, more: &str) -> String {
    let backend = format!(
        "backends:\n  api: {{ endpoints: [{{ url: \"https://{host}:{}\" }}], {UNGUARDED}{more} }}",
        address.port()
    );
    Config::default().top(backend).open_route("api", "api", "").to_string()
}

fn setup(authority: &Authority, config: String) -> Setup {
    Setup::new(config).file("ca.pem", authority.pem())
}

async fn counts(gateway: &Gateway, outcome: &str, count: f64) {
    gateway
        .metric_becomes(HANDSHAKES, &[("backend", "api"), ("outcome", outcome)], count)
        .await;
}

/// Checks that the call is refused before anything is sent, and counted under `outcome`.
async fn fails(gateway: &Gateway, outcome: &str) {
    let answer = gateway.get("/api/echo").send().await.expect(502);
    assert_eq!(answer.reason(), Some("backend_unreached"));
    counts(gateway, outcome, 1.0).await;
}

#[tokio::test]
async fn a_backend_of_a_private_authority_is_spoken_to() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("private");
    let front = Front::start(&authority.issue(&["localhost"]), None, api.address()).await;
    let config = config("localhost", front.address(), ", tls: { ca_file: ca.pem }");
    let gateway = setup(&authority, config).start().await;
    for _ in 0..3 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    let sent = vec![b'x'; 1_000_000];
    gateway.post("/api/echo").body(sent).send().await.expect(200);
    let last = api.take_requests().pop().expect("it came");
    assert_eq!(last.body_length, 1_000_000);
    // One connection is made and kept.
    counts(&gateway, "full", 1.0).await;
    counts(&gateway, "resumed", 0.0).await;
}

#[tokio::test]
async fn nobody_is_believed_who_cannot_prove_who_they_are() {
    let (_fleet, api) = one_backend("api").await;
    let (authority, other) = (Authority::new("private"), Authority::new("other"));
    let named = authority.issue(&["users.internal"]);
    let front = Front::start(&named, None, api.address()).await;
    let start = async |host, more| setup(&authority, config(host, front.address(), more)).start().await;

    let gateway = start("localhost", ", tls: { ca_file: ca.pem }").await;
    fails(&gateway, "wrong_name").await;
    eventually(SOON, "the log says whose certificate it is", || async {
        gateway.stdout().contains("users.internal").then_some(())
    })
    .await;
    let gateway = start("127.0.0.1", ", tls: { ca_file: ca.pem, server_name: users.internal }").await;
    gateway.get("/api/echo").send().await.expect(200);
    // The system's authorities know nothing of ours.
    if let Some(gateway) = system_authorities().then(|| start("localhost", "")) {
        fails(&gateway.await, "untrusted").await;
    }
    let elsewhere = config(
        "localhost",
        front.address(),
        ", tls: { ca_file: ca.pem, server_name: users.internal }",
    );
    fails(&setup(&other, elsewhere).start().await, "untrusted").await;

    let expired = authority.issue_expired(&["localhost"]);
    let front = Front::start(&expired, None, api.address()).await;
    let config = config("localhost", front.address(), ", tls: { ca_file: ca.pem }");
    fails(&setup(&authority, config).start().await, "expired").await;
    assert_eq!(api.take_requests().len(), 1, "nothing was sent but what was answered");
}

/// Whether there are any on this machine; without them the gateway does not start, and says so.
fn system_authorities() -> bool {
    [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ]
    .iter()
    .any(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0))
}

#[tokio::test]
async fn a_backend_that_asks_is_shown_our_certificate() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("private");
    let front = Front::start(&authority.issue(&["localhost"]), Some(&authority), api.address()).await;
    let nothing = config("localhost", front.address(), ", tls: { ca_file: ca.pem }");
    fails(&setup(&authority, nothing).start().await, "refused_by_backend").await;

    let own = authority.issue(&["spiffe://edge/gateway"]);
    let tls = ", tls: { ca_file: ca.pem, cert_file: own.pem, key_file: own.key }";
    let gateway = setup(&authority, config("localhost", front.address(), tls))
        .file("own.pem", &own.cert_pem)
        .file("own.key", &own.key_pem)
        .start()
        .await;
    gateway.get("/api/echo").send().await.expect(200);
    let expires = "gateway_backend_tls_certificate_expiry_timestamp_seconds";
    assert!(gateway.metric(expires, &[("backend", "api")]).await > 1.7e9);
}

#[tokio::test]
async fn a_new_connection_resumes_the_session_of_an_old_one() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("private");
    let front = Front::start(&authority.issue(&["localhost"]), None, api.address()).await;
    let more = ", tls: { ca_file: ca.pem }, connections: { idle: 1ms }";
    let gateway = setup(&authority, config("localhost", front.address(), more))
        .start()
        .await;
    eventually(SOON, "a session is resumed", || async {
        gateway.get("/api/echo").send().await.expect(200);
        let labels = [("backend", "api"), ("outcome", "resumed")];
        (gateway.metric(HANDSHAKES, &labels).await > 0.0).then_some(())
    })
    .await;
    counts(&gateway, "full", 1.0).await;
}

#[tokio::test]
async fn whoever_does_not_shake_hands_is_not_waited_for() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("private");
    // The backend listens, and never sends anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = silent.local_addr().expect("it is bound");
    let tls = ", tls: { ca_file: ca.pem }";
    let impatient = format!(
        "time_limits: {{ connect: 100ms }}\n{}",
        config("localhost", address, tls)
    );
    fails(&setup(&authority, impatient).start().await, "timed_out").await;
    let plain = config("localhost", api.address(), tls);
    let gateway = setup(&authority, plain).start().await;
    gateway.get("/api/echo").send().await.expect(502);
    let outcomes = async |outcome| {
        gateway
            .metric(HANDSHAKES, &[("backend", "api"), ("outcome", outcome)])
            .await
    };
    // Plain HTTP is answered with plain HTTP, or with an end.
    assert_eq!(outcomes("failed").await + outcomes("abandoned").await, 1.0);
}

#[tokio::test]
async fn changed_terms_hold_from_the_next_request_on() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("private");
    let front = Front::start(&authority.issue(&["localhost"]), None, api.address()).await;
    let trusting = config("localhost", front.address(), ", tls: { ca_file: ca.pem }");
    let gateway = setup(&authority, trusting)
        .file("other.pem", Authority::new("other").pem())
        .start()
        .await;
    gateway.get("/api/echo").send().await.expect(200);
    let wary = config("localhost", front.address(), ", tls: { ca_file: other.pem }");
    gateway.reload(wary).await;
    gateway.get("/api/echo").send().await.expect(502);
}
