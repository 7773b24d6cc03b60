//! Checks TLS on a listener: it presents the certificate for the requested name, waits for no slow caller, and changes
//! certificates between callers.

use std::fs;

use tests::configs::Config;
use tests::tls::{Authority, Tls};
use tests::{Client, Gateway, Setup, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{SOON, one_backend};

const HANDSHAKES: &str = "gateway_tls_handshakes_total";

/// A plain listener for the harness beside one with two certificates; `more` goes into its `tls`.
fn top(more: &str) -> String {
    format!(
        r#"
listeners:
  public: {{ address: "127.0.0.1:0" }}
  secure:
    address: "127.0.0.1:0"
    tls:
      certificates: [{{ cert_file: edge.pem, key_file: edge.key }}, {{ cert_file: shop.pem, key_file: shop.key }}]
{more}
admin: {{ address: "127.0.0.1:0" }}
time_limits: {{ head: 1s }}
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }} }}
callers: {{ anonymous: {{ by: client_address, tier: open }} }}
"#
    )
}

fn hello(more: &str) -> String {
    Config::with(top(more))
        .route(
            "hello",
            "{ match: { path: /hello }, access: { any_of: [anonymous] }, respond: { body: hello } }",
        )
        .to_string()
}

fn setup(authority: &Authority, config: String) -> Setup {
    let edge = authority.issue(&["edge.test"]);
    let shop = authority.issue(&["*.shop.test"]);
    Setup::new(config)
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .file("shop.pem", &shop.cert_pem)
        .file("shop.key", &shop.key_pem)
}

fn secure(gateway: &Gateway, tls: Tls) -> Client {
    Client::over_tls(gateway.address_of("secure"), tls)
}

#[tokio::test]
async fn a_request_over_tls_is_answered_and_the_backend_hears_of_it() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("public");
    let config = Config::with(top("")).open("api", api.address(), "").to_string();
    let gateway = setup(&authority, config).start().await;
    let client = secure(&gateway, Tls::new(&authority, "edge.test"));
    for _ in 0..3 {
        let answer = client
            .get("/api/echo")
            .header("host", "edge.test")
            .send()
            .await
            .expect(200);
        assert_eq!(answer.echoed("x-forwarded-proto").as_deref(), Some("https"));
        let forwarded = answer.echoed("forwarded").expect("it is stamped");
        assert!(forwarded.contains("proto=https"), "{forwarded}");
    }
    let plain = gateway.get("/api/echo").send().await.expect(200);
    assert_eq!(plain.echoed("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(gateway.metric(HANDSHAKES, &[("outcome", "full")]).await, 1.0);
    assert_eq!(gateway.metric(HANDSHAKES, &[("outcome", "failed")]).await, 0.0);
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("public");
    let config = Config::with(top("")).open("api", api.address(), "").to_string();
    let gateway = setup(&authority, config).start().await;
    let client = secure(&gateway, Tls::new(&authority, "edge.test"));
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
    client.post("/api/echo").body(sent).send().await.expect(200);
    let request = api.take_requests().pop().expect("it came");
    assert_eq!(request.body_length, 3_000_000);
}

#[tokio::test]
async fn the_certificate_is_chosen_by_server_name() {
    let authority = Authority::new("public");
    let gateway = setup(&authority, hello("")).start().await;
    let address = gateway.address_of("secure");
    for name in ["edge.test", "a.shop.test", "B.Shop.test"] {
        // The caller checks that the certificate is trusted for the name.
        let client = secure(&gateway, Tls::new(&authority, name));
        client.get("/hello").send().await.expect(200);
    }
    // For a name that no certificate has, the first one is shown, and the caller decides whether to accept it.
    for name in ["nobody.test", "a.b.shop.test", "127.0.0.1"] {
        let failure = Tls::new(&authority, name).connect(address).await.expect_err(name);
        assert!(failure.to_string().contains("not valid for name"), "{name}: {failure}");
    }
    gateway
        .metric_becomes(HANDSHAKES, &[("outcome", "refused_by_caller")], 3.0)
        .await;
}

#[tokio::test]
async fn a_second_connection_resumes_the_session_of_the_first() {
    let authority = Authority::new("public");
    let gateway = setup(&authority, hello("")).start().await;
    let tls = Tls::new(&authority, "edge.test");
    secure(&gateway, tls.clone()).get("/hello").send().await.expect(200);
    secure(&gateway, tls).get("/hello").send().await.expect(200);
    gateway.metric_becomes(HANDSHAKES, &[("outcome", "resumed")], 1.0).await;
}

#[tokio::test]
async fn versions_and_protocols_that_are_not_spoken_are_refused() {
    let authority = Authority::new("public");
    let gateway = setup(
        &authority,
        hello("      minimum_version: \"1.3\"\n    protocols: [http1]"),
    )
    .start()
    .await;
    let address = gateway.address_of("secure");
    assert!(Tls::old(&authority, "edge.test").connect(address).await.is_err());
    let only_h2 = Tls::new(&authority, "edge.test").offering(&["h2"]);
    assert!(only_h2.connect(address).await.is_err());
    let both = Tls::new(&authority, "edge.test").offering(&["h2", "http/1.1"]);
    let stream = both.connect(address).await.expect("there is one that both speak");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    gateway.metric_becomes(HANDSHAKES, &[("outcome", "failed")], 2.0).await;
    let gateway = setup(&authority, hello("")).start().await;
    let old = secure(&gateway, Tls::old(&authority, "edge.test"));
    old.get("/hello").send().await.expect(200);
}

#[tokio::test]
async fn whoever_does_not_shake_hands_is_not_waited_for() {
    let authority = Authority::new("public");
    let gateway = setup(&authority, hello("")).start().await;
    let address = gateway.address_of("secure");
    let connect = || tests::Raw::connect(address);
    let mut silent = connect().await;
    let mut dawdler = connect().await;
    dawdler.send([0x16, 0x03, 0x01, 0x02]).await;
    let mut plain = connect().await;
    plain.send("GET /hello HTTP/1.1\r\nhost: edge.test\r\n\r\n").await;
    drop(connect().await);
    let told = plain.whole().await.expect("no reset");
    assert!(
        told.starts_with("HTTP/1.1 400") && told.contains("send the request over TLS"),
        "{told}"
    );
    silent.rest().await;
    dawdler.rest().await;
    for (outcome, count) in [("timed_out", 2.0), ("failed", 1.0), ("abandoned", 1.0)] {
        gateway.metric_becomes(HANDSHAKES, &[("outcome", outcome)], count).await;
    }
    gateway.metric_becomes("gateway_connections", &[], 0.0).await;
    let client = secure(&gateway, Tls::new(&authority, "edge.test"));
    client.get("/hello").send().await.expect(200);
}

#[tokio::test]
async fn a_reload_changes_the_certificate_and_drops_no_connection() {
    let authority = Authority::new("public");
    let gateway = setup(&authority, hello("")).start().await;
    let address = gateway.address_of("secure");
    let tls = Tls::new(&authority, "edge.test");
    let client = secure(&gateway, tls.clone());
    client.get("/hello").send().await.expect(200);
    let before = tls.shown(address).await;

    let renewed = authority.issue(&["edge.test"]);
    fs::write(gateway.path("edge.pem"), &renewed.cert_pem).expect("the folder takes files");
    // Half of a renewal is a mistake, and changes nothing.
    gateway.signal(Signal::Hup);
    gateway
        .metric_becomes("gateway_config_last_reload_successful", &[], 0.0)
        .await;
    assert!(
        gateway.log().contains("holds the key of another certificate"),
        "{}",
        gateway.log()
    );
    assert_eq!(Tls::new(&authority, "edge.test").shown(address).await, before);

    fs::write(gateway.path("edge.key"), &renewed.key_pem).expect("the folder takes files");
    gateway.reload(hello("")).await;
    assert_eq!(tls.shown(address).await, renewed.cert_der);
    let accepted = gateway.metric("gateway_connections_total", &[]).await;
    client.get("/hello").send().await.expect(200);
    assert_eq!(
        gateway.metric("gateway_connections_total", &[]).await,
        accepted,
        "the old connection goes on"
    );
}

#[tokio::test]
async fn fifty_renewals_under_load_fail_no_handshake() {
    const RENEWALS: usize = 50;
    let authority = Authority::new("public");
    let gateway = setup(&authority, hello("")).start().await;
    let tls = Tls::new(&authority, "edge.test");
    let (done, watched) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    // Some resume sessions of certificates that are gone by then, some have none.
    for own in [true, false, false] {
        let (address, watched, shared) = (gateway.address_of("secure"), watched.clone(), tls.clone());
        let fresh = Tls::new(&authority, "edge.test");
        callers.spawn(async move {
            let mut answered = 0;
            while !*watched.borrow() || answered < RENEWALS {
                let tls = if own { fresh.clone() } else { shared.clone() };
                Client::over_tls(address, tls).get("/hello").send().await.expect(200);
                answered += 1;
            }
        });
    }
    for _ in 0..RENEWALS {
        let renewed = authority.issue(&["edge.test"]);
        // In this order, so that whoever looks in between finds a mismatch and keeps what it has.
        fs::write(gateway.path("edge.pem"), &renewed.cert_pem).expect("the folder takes files");
        fs::write(gateway.path("edge.key"), &renewed.key_pem).expect("the folder takes files");
        gateway.reload(hello("")).await;
        assert_eq!(tls.shown(gateway.address_of("secure")).await, renewed.cert_der);
    }
    done.send(true).expect("callers wait for it");
    callers.join_all().await;
    for outcome in ["failed", "abandoned", "refused_by_caller", "timed_out"] {
        assert_eq!(
            gateway.metric(HANDSHAKES, &[("outcome", outcome)]).await,
            0.0,
            "{outcome}"
        );
    }
}

#[tokio::test]
async fn what_operators_look_at_says_when_certificates_expire() {
    let authority = Authority::new("public");
    let gateway = setup(&authority, hello("")).start().await;
    let labels = [("listener", "secure"), ("number", "2")];
    assert!(
        gateway
            .metric("gateway_tls_certificate_expiry_timestamp_seconds", &labels)
            .await
            > 1.7e9
    );
    let status = gateway.admin_json("/api/v1/status").await;
    assert_eq!(
        status["listeners"][1]["certificates"][1]["dns_names"][0], "*.shop.test",
        "{status:#}"
    );
    assert_eq!(status["listeners"][0]["certificates"], serde_json::json!([]));
}

#[tokio::test]
async fn a_drain_takes_its_leave() {
    let authority = Authority::new("public");
    let mut gateway = setup(&authority, hello("")).start().await;
    let tls = Tls::new(&authority, "edge.test");
    let mut idle = tls
        .connect(gateway.address_of("secure"))
        .await
        .expect("hands are shaken");
    idle.write_all(b"GET /hello HTTP/1.1\r\nhost: edge.test\r\n\r\n")
        .await
        .expect("it is taken");
    let mut answer = [0; 16];
    idle.read_exact(&mut answer).await.expect("an answer");
    gateway.signal(Signal::Term);
    // An end without `close_notify` would be an error.
    let mut rest = Vec::new();
    tests::within(SOON, "the connection ends", idle.read_to_end(&mut rest))
        .await
        .expect("a proper end");
    assert_eq!(gateway.wait_exit().await, Some(0));
}
