//! Checks the PROXY protocol: a trusted load balancer reports the client address, and no other peer may connect.

use tests::configs::Config;
use tests::tls::{Authority, Tls};
use tests::{Gateway, Raw, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{SOON, one_backend};

const REFUSED: &str = "gateway_connections_refused_total";

fn top(trusted: &str) -> String {
    format!(
        r#"
listeners:
  public: {{ address: "127.0.0.1:0" }}
  behind: {{ address: "127.0.0.1:0", proxy_protocol: required }}
  secure:
    address: "127.0.0.1:0"
    proxy_protocol: required
    tls: {{ certificates: [{{ cert_file: edge.pem, key_file: edge.key }}] }}
admin: {{ address: "127.0.0.1:0" }}
client_address: {{ trusted_proxies: [{trusted}] }}
time_limits: {{ first_byte: 1s, head: 1s }}
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }} }}
callers: {{ anonymous: {{ by: client_address, tier: open }} }}
"#
    )
}

async fn start(trusted: &str, address: std::net::SocketAddr, authority: &Authority) -> Gateway {
    let edge = authority.issue(&["edge.test"]);
    Setup::new(Config::with(top(trusted)).open("api", address, "").to_string())
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .start()
        .await
}

async fn refused(gateway: &Gateway, reason: &str, count: f64) {
    gateway.metric_becomes(REFUSED, &[("reason", reason)], count).await;
}

const REQUEST: &str = "GET /api/echo HTTP/1.1\r\nhost: edge.test\r\nconnection: close\r\n\r\n";

/// Version 2, for 203.0.113.9:80, with extras.
fn binary() -> Vec<u8> {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10";
    let addresses = [203, 0, 113, 9, 127, 0, 0, 1, 0, 80, 0, 80];
    [&fixed[..], &addresses, &[0x04, 0, 1, 0]].concat()
}

#[tokio::test]
async fn the_client_is_who_the_header_says() {
    let (_fleet, api) = one_backend("api").await;
    let gateway = start("127.0.0.0/8", api.address(), &Authority::new("public")).await;
    let behind = gateway.address_of("behind");
    let text = |line: &str| format!("PROXY {line}\r\n").into_bytes();
    for (header, client) in [
        (text("TCP4 203.0.113.7 127.0.0.1 4711 80"), "203.0.113.7"),
        (text("TCP6 2001:db8::7 ::1 4711 80"), "2001:db8::7"),
        (binary(), "203.0.113.9"),
        (text("UNKNOWN"), "127.0.0.1"),
    ] {
        // A client's own claim is ignored, because the client is no trusted proxy.
        let request = REQUEST.replace("\r\n\r\n", "\r\nx-forwarded-for: 198.51.100.1\r\n\r\n");
        let request = if client == "127.0.0.1" {
            REQUEST.to_owned()
        } else {
            request
        };
        // In one piece, and byte by byte.
        let mut whole = Raw::connect(behind).await;
        whole.send([&header[..], request.as_bytes()].concat()).await;
        let mut bytewise = Raw::connect(behind).await;
        for byte in &header {
            bytewise.send([*byte]).await;
        }
        bytewise.send(&request).await;
        for answer in [whole.rest().await, bytewise.rest().await] {
            assert!(answer.starts_with("HTTP/1.1 200"), "{client}: {answer}");
        }
        for request in api.take_requests() {
            let seen = request.headers.iter().find(|(name, _)| name == "x-forwarded-for");
            assert_eq!(seen.map(|(_, value)| value.as_str()), Some(client));
        }
    }
    // A listener without it takes a header for what it is there: not HTTP.
    let answer = gateway.raw([&text("UNKNOWN")[..], REQUEST.as_bytes()].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn tls_begins_after_the_header() {
    let (_fleet, api) = one_backend("api").await;
    let authority = Authority::new("public");
    let gateway = start("127.0.0.0/8", api.address(), &authority).await;
    let mut stream = TcpStream::connect(gateway.address_of("secure"))
        .await
        .expect("it listens");
    stream.write_all(&binary()).await.expect("it is taken");
    let mut stream = Tls::new(&authority, "edge.test")
        .over(stream)
        .await
        .expect("hands are shaken");
    stream.write_all(REQUEST.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    tests::within(SOON, "an answer", stream.read_to_string(&mut answer))
        .await
        .expect("a proper end");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn who_does_not_begin_with_a_header_gets_no_further() {
    let (_fleet, api) = one_backend("api").await;
    let gateway = start("127.0.0.0/8", api.address(), &Authority::new("public")).await;
    let behind = gateway.address_of("behind");
    let mut plain = Raw::connect(behind).await;
    plain.send(REQUEST).await;
    assert_eq!(plain.rest().await, "");
    refused(&gateway, "proxy_malformed", 1.0).await;
    let mut half = Raw::connect(behind).await;
    half.send("PROXY TCP4 203.0.113.7 ").await;
    drop(half);
    refused(&gateway, "proxy_abandoned", 1.0).await;
    let mut silent = Raw::connect(behind).await;
    let mut dawdler = Raw::connect(behind).await;
    dawdler.send("PROXY TCP4 203.0.113.7 ").await;
    assert_eq!(silent.rest().await, "");
    assert_eq!(dawdler.rest().await, "");
    refused(&gateway, "proxy_timed_out", 2.0).await;
    gateway.metric_becomes("gateway_connections", &[], 0.0).await;
    assert!(api.take_requests().is_empty());
}

/// Returns a header of version 2 with this command, family and block.
fn binary_of(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, block].concat()
}

/// A load balancer that does not say for whom it has connected passes on whatever the client writes.
#[tokio::test]
async fn a_client_that_is_not_named_cannot_name_itself() {
    let (_fleet, api) = one_backend("api").await;
    let edge = Authority::new("public").issue(&["edge.test"]);
    let config = Config::with(top("127.0.0.0/8")).open("api", api.address(), "").mapped(
        "inside",
        "api",
        "access: { any_of: [anonymous], addresses: { deny: [192.0.2.0/24] } }",
    );
    let gateway = Setup::new(config.to_string())
        .file("edge.pem", &edge.cert_pem)
        .file("edge.key", &edge.key_pem)
        .start()
        .await;
    let ask = async |header: &[u8], route: &str| {
        let request = format!(
            "GET /{route}/echo HTTP/1.1\r\nhost: edge.test\r\nx-forwarded-for: 203.0.113.1\r\nconnection: close\r\n\r\n"
        );
        let mut raw = Raw::connect(gateway.address_of("behind")).await;
        raw.send([header, request.as_bytes()].concat()).await;
        let answer = raw.rest().await;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let seen = api.take_requests().into_iter().next().map(|request| {
            let told = request.headers.iter().find(|(name, _)| name == "x-forwarded-for");
            told.expect("it is told").1.clone()
        });
        (status, seen.unwrap_or_default())
    };
    let told = |status: &str, seen: &str| (status.to_owned(), seen.to_owned());
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.1 127.0.0.1 1 2\r\n".to_vec(),
        binary_of(0x21, 0x00, &[]),
        binary_of(0x21, 0x00, &[203, 0, 113, 1]),
        binary_of(0x21, 0x31, &[b'/'; 216]),
        binary_of(0x21, 0x31, &[&[b'/'; 216][..], &[0x04, 0, 1, 0]].concat()),
    ] {
        assert_eq!(ask(&header, "api").await, told("200", "127.0.0.1"), "{header:?}");
        assert_eq!(ask(&header, "inside").await, told("403", ""), "{header:?}");
    }
    // The load balancer itself, which is trusted as a proxy too.
    let local = binary_of(0x20, 0x00, &[]);
    assert_eq!(ask(&local, "inside").await, told("200", "203.0.113.1, 127.0.0.1"));
    let named = binary_of(0x21, 0x11, &[198, 51, 100, 1, 127, 0, 0, 1, 0, 80, 0, 80]);
    assert_eq!(ask(&named, "inside").await, told("200", "198.51.100.1"));
    let denied = binary_of(0x21, 0x11, &[192, 0, 2, 1, 127, 0, 0, 1, 0, 80, 0, 80]);
    assert_eq!(ask(&denied, "inside").await, told("403", ""));
}

#[tokio::test]
async fn a_header_with_damaged_extras_is_none() {
    let (_fleet, api) = one_backend("api").await;
    let gateway = start("127.0.0.0/8", api.address(), &Authority::new("public")).await;
    let addresses = [203, 0, 113, 9, 127, 0, 0, 1, 0, 80, 0, 80];
    let damaged: [&[u8]; 6] = [
        &[0x04],
        &[0x04, 0],
        &[0x04, 0, 9, 1],
        &[0x04, 0xff, 0xff],
        &[0x04, 0, 1, 0, 0x04],
        // A checksum of something else.
        &[0x03, 0, 4, 1, 2, 3, 4],
    ];
    for (count, extras) in damaged.into_iter().enumerate() {
        let header = binary_of(0x21, 0x11, &[&addresses[..], extras].concat());
        let mut raw = Raw::connect(gateway.address_of("behind")).await;
        raw.send([&header[..], REQUEST.as_bytes()].concat()).await;
        assert_eq!(raw.rest().await, "", "{extras:?}");
        refused(&gateway, "proxy_malformed", count as f64 + 1.0).await;
    }
    assert!(api.take_requests().is_empty());
}

#[tokio::test]
async fn nobody_else_may_say_who_is_there() {
    let (_fleet, api) = one_backend("api").await;
    let gateway = start("10.0.0.0/8", api.address(), &Authority::new("public")).await;
    let mut raw = Raw::connect(gateway.address_of("behind")).await;
    raw.send(format!("PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n{REQUEST}"))
        .await;
    assert_eq!(raw.rest().await, "");
    refused(&gateway, "proxy_untrusted", 1.0).await;
    assert!(api.take_requests().is_empty());
}
