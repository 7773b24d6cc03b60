//! Checks that TLS handshakes use a bounded part of the gateway: for each address, and of the workers' time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::future::join_all;
use tests::configs::Config;
use tests::tls::{Authority, Tls};
use tests::{Client, Gateway, Raw, Setup, eventually};
use tokio::net::{TcpSocket, TcpStream};

use crate::SOON;

const DELAYED: &str = "gateway_tls_handshakes_delayed_total";
const HANDSHAKES: &str = "gateway_tls_handshakes_total";

async fn start(authority: &Authority, limits: &str, head: &str) -> Gateway {
    let top = format!(
        r#"
listeners:
  public: {{ address: "127.0.0.1:0" }}
  secure:
    address: "127.0.0.1:0"
    tls: {{ certificates: [{{ cert_file: edge.pem, key_file: edge.key }}] }}
admin: {{ address: "127.0.0.1:0" }}
workers: 1
time_limits: {{ head: {head} }}
connection_limits: {limits}
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }} }}
callers: {{ anonymous: {{ by: client_address, tier: open }} }}
"#
    );
    let hello = "{ match: { path: /hello }, access: { any_of: [anonymous] }, respond: { body: hello } }";
    let edge = authority.issue(&["edge.test"]);
    Setup::new(Config::with(top).route("hello", hello).to_string())
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .start()
        .await
}

const fn local(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

async fn connect_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("there are sockets");
    socket.bind((from, 0).into()).expect("all of 127/8 is this machine");
    socket.connect(to).await.expect("the gateway listens")
}

/// Has begun a handshake, and does not go on with it.
async fn dawdles(from: IpAddr, to: SocketAddr) -> Raw {
    let mut raw = Raw::connect_from(from, to).await;
    raw.send([0x16, 3, 1, 2, 0, 1]).await;
    raw
}

#[tokio::test]
async fn an_address_has_so_many_handshakes_at_once_and_another_does_not_notice() {
    const MOST: usize = 3;
    let authority = Authority::new("public");
    let gateway = start(&authority, "{ handshakes_per_address: 3 }", "10s").await;
    let address = gateway.address_of("secure");
    let mut places = Vec::new();
    for _ in 0..MOST {
        places.push(dawdles(local(2), address).await);
    }
    // A connection that has sent nothing has no slot.
    let _silent = connect_from(local(3), address).await;
    let tls = Tls::new(&authority, "edge.test");
    let waits = {
        let (tls, stream) = (tls.clone(), connect_from(local(2), address).await);
        tokio::spawn(async move { tls.over(stream).await })
    };
    gateway.metric_becomes(DELAYED, &[("by", "address")], 1.0).await;
    for _ in 0..2 * MOST {
        let stream = connect_from(local(3), address).await;
        tls.over(stream).await.expect("hands are shaken");
    }
    assert!(!waits.is_finished());
    drop(places.pop());
    waits.await.expect("no panic").expect("hands are shaken");
    assert_eq!(gateway.metric(DELAYED, &[("by", "address")]).await, 1.0);
    // A connection that is used takes no place.
    let kept = Client::over_tls(address, tls);
    kept.get("/hello").send().await.expect(200);
    gateway
        .metric_becomes(HANDSHAKES, &[("outcome", "abandoned")], 1.0)
        .await;
}

#[tokio::test]
async fn a_handshake_that_finds_no_place_is_ended_as_one_that_takes_too_long() {
    let authority = Authority::new("public");
    let gateway = start(&authority, "{ handshakes_per_address: 1 }", "1s").await;
    let address = gateway.address_of("secure");
    let mut held = dawdles(local(2), address).await;
    let mut waits = dawdles(local(2), address).await;
    gateway.metric_becomes(DELAYED, &[("by", "address")], 1.0).await;
    assert_eq!(held.rest().await, "");
    assert_eq!(waits.rest().await, "");
    eventually(SOON, "both are counted", || async {
        let page = gateway.metrics().await;
        let count = |outcome| page.sum(HANDSHAKES, &[("outcome", outcome)]).unwrap_or_default();
        // The place may have come free just before the time of the other was over.
        (count("timed_out") + count("overloaded") == 2.0).then_some(())
    })
    .await;
    gateway.metric_becomes("gateway_connections", &[], 0.0).await;
}

#[tokio::test]
async fn handshakes_beyond_their_share_of_the_time_wait_and_are_made() {
    let authority = Authority::new("public");
    let gateway = start(&authority, "{ handshake_share: 0.01 }", "30s").await;
    let address = gateway.address_of("secure");
    let tls = Tls::new(&authority, "edge.test");
    let shaken = eventually(SOON, "some have to wait", || async {
        let shaken = join_all((0..20).map(|_| tls.connect(address))).await;
        (gateway.metric(DELAYED, &[("by", "workers")]).await > 0.0).then_some(shaken)
    });
    let others = async {
        for _ in 0..100 {
            gateway.get("/hello").send().await.expect(200);
        }
    };
    let (shaken, ()) = tokio::join!(shaken, others);
    assert!(shaken.iter().all(Result::is_ok));
    assert_eq!(gateway.metric(DELAYED, &[("by", "address")]).await, 0.0);
    let spent = gateway.metric("gateway_tls_handshake_seconds_total", &[]).await;
    assert!(spent > 0.0);
}
