//! Checks the client address: what a trusted proxy reports counts and is passed on; what any other peer reports is
//! ignored.

use fixtures::fleet::{Fleet, Handle};
use tests::Gateway;
use tests::configs::Config;

use crate::one_backend;

const FIELDS: [&str; 28] = [
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "x-client-ip",
    "client-ip",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "do-connecting-ip",
    "x-real-ip",
    "x-original-forwarded-for",
    "x-vercel-forwarded-for",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-azure-clientip",
    "x-appengine-user-ip",
    "x-envoy-external-address",
    "cloudfront-viewer-address",
    "wl-proxy-client-ip",
    "x-forwarded-proto",
    "x-forwarded-port",
    "front-end-https",
    "client-cert",
    "x-ssl-client-verify",
    "x-original-url",
    "x-rewrite-url",
];

async fn start(top: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top(top)
        .backend("api", api.address(), "")
        .open_route("one", "api", "")
        .route(
            "two",
            "{ match: { path: /all }, access: { any_of: [anonymous] }, \
             aggregate: { parts: { one: { backend: api, path: /echo }, two: { backend: api, path: /echo } } } }",
        );
    (fleet, api, Gateway::start(config.to_string()).await)
}

#[tokio::test]
async fn what_a_stranger_says_of_an_address_does_not_arrive() {
    let (_fleet, api, gateway) = start("").await;
    for target in ["/one/echo", "/all"] {
        let mut ask = gateway.get(target);
        for name in FIELDS.iter().chain(&["forwarded", "x-forwarded-for"]) {
            let capital = name[..1].to_uppercase() + &name[1..];
            ask = ask.header(&capital, "lie").header(&name.replace('-', "_"), "lie");
            ask = ask.header(&name.replacen('-', "_", 1), "lie");
        }
        // A wish to have them removed on the way changes nothing.
        ask = ask.header("connection", "x-forwarded-for, true-client-ip");
        ask.header("x-own", "kept").send().await.expect(200);
        for got in api.take_requests() {
            let lies: Vec<_> = got.headers.iter().filter(|(_, value)| value.contains("lie")).collect();
            assert!(lies.is_empty(), "{lies:?}");
            assert_eq!(got.header("x-own"), Some("kept"));
            assert_eq!(got.header_values("x-forwarded-for"), ["127.0.0.1"]);
        }
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_says_of_an_address_arrives_under_its_own_spelling() {
    let (_fleet, api, gateway) = start("client_address: { trusted_proxies: [127.0.0.0/8] }").await;
    for target in ["/one/echo", "/all"] {
        let mut ask = gateway.get(target);
        for name in FIELDS {
            ask = ask.header(name, "told").header(&name.replace('-', "_"), "lie");
        }
        ask.send().await.expect(200);
        for got in api.take_requests() {
            for name in FIELDS {
                assert_eq!(got.header_values(name), ["told"], "{name}");
            }
            let odd: Vec<_> = got.headers.iter().filter(|(name, _)| name.contains('_')).collect();
            assert!(odd.is_empty(), "{odd:?}");
        }
    }
}

#[tokio::test]
async fn empty_elements_of_a_list_name_nobody() {
    let (_fleet, api, gateway) = start("client_address: { trusted_proxies: [127.0.0.0/8, 10.0.0.0/8] }").await;
    for (name, lines, client) in [
        ("x-forwarded-for", &[",198.51.100.8,"][..], "198.51.100.8"),
        ("x-forwarded-for", &["198.51.100.8, "], "198.51.100.8"),
        ("x-forwarded-for", &["198.51.100.8,,10.0.0.1,\t,"], "198.51.100.8"),
        ("x-forwarded-for", &["6.6.6.6,,198.51.100.8", ","], "198.51.100.8"),
        ("x-forwarded-for", &[",198.51.100.8", "", ",10.0.0.1"], "198.51.100.8"),
        ("x-forwarded-for", &[" , ,, "], "127.0.0.1"),
        ("x-forwarded-for", &[",2001:db8::1,"], "2001:db8::"),
        ("forwarded", &[",for=198.51.100.8,"], "198.51.100.8"),
        ("forwarded", &["for=198.51.100.8, ,for=10.0.0.1", ","], "198.51.100.8"),
    ] {
        let ask = lines
            .iter()
            .fold(gateway.get("/one/echo"), |ask, line| ask.header(name, line));
        ask.send().await.expect(200);
        let got = api.take_requests().pop().expect("it came");
        assert_eq!(got.header("x-caller-id"), Some(client), "{name}: {lines:?}");
        let list = got.header_values("x-forwarded-for").join(", ");
        assert!(!list.starts_with([',', ' ']) && list.ends_with("127.0.0.1"), "{list}");
    }
}
