//! Checks callers that authenticate with their own certificate, alone or together with another credential.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use tests::configs::Config;
use tests::tls::{Authority, Issued, Tls};
use tests::{Answer, Client, Failure, Gateway, Setup, eventually};

use crate::{SOON, one_backend};

const HANDSHAKES: &str = "gateway_tls_handshakes_total";

const TOP: &str = r#"
listeners:
  public: { address: "127.0.0.1:0" }
  open: { address: "127.0.0.1:0", tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }], client_ca_file: ca.pem, client: optional } }
  mesh: { address: "127.0.0.1:0", tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }], client_ca_file: ca.pem } }
admin: { address: "127.0.0.1:0" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
"#;

const CALLERS: &str = r#"
callers:
  anonymous: { by: client_address }
  api_keys: { file: keys.yaml }
  mtls:
    identities:
      - { uri: "spiffe://acme.test/billing", tenant: acme, tier: premium, scopes: [users.read] }
      - { uri: "spiffe://globex.test/*", tenant: globex }
      - { dns: "*.acme.test", tenant: acme }
      - { subject: "CN=nightly batch,O=Initech", id: nightly, tenant: initech }
      - { subject: "CN=n\u00fatt \u2603,O=Soci\u00e9t\u00e9", tenant: "soci\u00e9t\u00e9" }
"#;

struct Scene {
    _fleet: Fleet,
    api: Handle,
    gateway: Gateway,
    public: Authority,
    callers: Authority,
}

fn config(api: &Handle, callers: &str) -> String {
    let route = |config: Config, name: &str, access: &str| config.mapped(name, "api", &format!("access: {access}"));
    let config = Config::with(TOP).top(callers).backend("api", api.address(), "");
    let config = config.mapped("any", "api", "cost: 1");
    let config = route(config, "cert", "{ any_of: [mtls] }");
    let config = route(config, "both", "{ any_of: [mtls, anonymous] }");
    let config = route(config, "keys", "{ any_of: [api_key] }");
    let config = route(config, "free", "{ any_of: [anonymous] }");
    let config = route(config, "scoped", "{ any_of: [mtls], scopes: [users.read] }");
    route(config, "pair", "{ all_of: [mtls, api_key] }").to_string()
}

impl Scene {
    async fn start() -> Self {
        let (fleet, api) = one_backend("api").await;
        let (public, callers) = (Authority::new("public"), Authority::new("callers"));
        let edge = public.issue(&["edge.test"]);
        let keys = [
            KeyLine::new("acme-1", "acme", "key-acme"),
            KeyLine::new("globex-1", "globex", "key-globex"),
        ];
        let gateway = Setup::new(config(&api, CALLERS))
            .file("edge.pem", &edge.cert_pem)
            .file("edge.key", &edge.key_pem)
            .file("ca.pem", callers.pem())
            .file("keys.yaml", key_file(&keys))
            .start()
            .await;
        Self {
            _fleet: fleet,
            api,
            gateway,
            public,
            callers,
        }
    }

    fn client(&self, listener: &str, own: Option<&Issued>) -> Client {
        let tls = match own {
            Some(own) => Tls::showing(&self.public, "edge.test", own),
            None => Tls::new(&self.public, "edge.test"),
        };
        Client::over_tls(self.gateway.address_of(listener), tls)
    }

    fn billing(&self) -> Client {
        self.client("open", Some(&self.callers.issue(&["spiffe://acme.test/billing"])))
    }
}

fn who(answer: Answer) -> String {
    let answer = answer.expect(200);
    ["x-tenant-id", "x-tenant-tier", "x-caller-id"]
        .map(|name| answer.echoed(name).unwrap_or_default())
        .join(" ")
}

#[tokio::test]
async fn a_certificate_names_tenant_tier_and_caller() {
    let scene = Scene::start().await;
    let ca = &scene.callers;
    for (own, expected) in [
        (
            ca.issue(&["spiffe://acme.test/billing"]),
            "acme premium spiffe://acme.test/billing",
        ),
        (
            ca.issue(&["spiffe://globex.test/a/b"]),
            "globex open spiffe://globex.test/a/b",
        ),
        (ca.issue(&["Till.acme.test"]), "acme open till.acme.test"),
        (ca.issue_to("Initech", "nightly batch"), "initech open nightly"),
        (
            ca.issue_to("Soci\u{e9}t\u{e9}", "n\u{fa}tt \u{2603}"),
            "soci%C3%A9t%C3%A9 open CN=n%C3%BAtt%20%E2%98%83,O=Soci%C3%A9t%C3%A9",
        ),
    ] {
        for listener in ["open", "mesh"] {
            let client = scene.client(listener, Some(&own));
            for route in ["any", "cert", "both"] {
                assert_eq!(who(client.get(&format!("/{route}/echo")).send().await), expected);
            }
        }
    }
    let admitted = [("kind", "mtls"), ("outcome", "admitted")];
    assert_eq!(scene.gateway.metric("gateway_callers_total", &admitted).await, 30.0);
}

#[tokio::test]
async fn what_a_caller_says_about_itself_never_arrives() {
    let scene = Scene::start().await;
    let ask = scene
        .billing()
        .get("/cert/echo")
        .header("x-caller-id", "root")
        .header("x-tenant-id", "globex");
    assert_eq!(who(ask.send().await), "acme premium spiffe://acme.test/billing");
}

#[tokio::test]
async fn without_one_there_is_no_connection_where_it_is_required() {
    let scene = Scene::start().await;
    let refused = scene.client("mesh", None).get("/both/echo").try_send().await;
    assert!(
        matches!(refused, Err(Failure::Refused(_) | Failure::Unanswered(_))),
        "{refused:?}"
    );
    let evil = Authority::new("callers");
    for own in [
        evil.issue(&["spiffe://acme.test/billing"]),
        scene.callers.issue_expired(&["spiffe://acme.test/billing"]),
    ] {
        for listener in ["open", "mesh"] {
            let refused = scene.client(listener, Some(&own)).get("/both/echo").try_send().await;
            assert!(
                matches!(refused, Err(Failure::Refused(_) | Failure::Unanswered(_))),
                "{refused:?}"
            );
        }
    }
    scene
        .gateway
        .metric_becomes(HANDSHAKES, &[("outcome", "certificate_refused")], 5.0)
        .await;
    assert_eq!(scene.api.counts().requests, 0);
}

#[tokio::test]
async fn without_one_others_are_served_where_it_is_optional() {
    let scene = Scene::start().await;
    let client = scene.client("open", None);
    assert!(who(client.get("/both/echo").send().await).starts_with("anonymous "));
    assert_eq!(
        who(client.get("/any/echo").key("key-acme").send().await),
        "acme open acme-1"
    );
    let refused = client.get("/cert/echo").send().await;
    let detail = refused.refusal(401, "credentials_missing")["detail"].to_string();
    assert!(detail.contains("certificate"), "{detail}");
    assert_eq!(
        refused.header("www-authenticate"),
        Some("ClientCertificate realm=\"gateway\"")
    );
    // A plain connection has no certificate, whatever its headers say.
    let plain = scene
        .gateway
        .get("/cert/echo")
        .header("x-client-cert", "spiffe://acme.test/billing");
    plain.send().await.refusal(401, "credentials_missing");
}

#[tokio::test]
async fn one_that_stands_for_nobody_counts_only_where_certificates_do() {
    let scene = Scene::start().await;
    let stranger = scene.client("open", Some(&scene.callers.issue(&["spiffe://acme.test/unknown"])));
    for route in ["cert", "both", "any"] {
        let refused = stranger.get(&format!("/{route}/echo")).send().await;
        refused.refusal(401, "credentials_invalid");
    }
    assert_eq!(
        who(stranger.get("/any/echo").key("key-acme").send().await),
        "acme open acme-1"
    );
    assert_eq!(
        who(stranger.get("/keys/echo").key("key-acme").send().await),
        "acme open acme-1"
    );
    assert!(who(stranger.get("/free/echo").send().await).starts_with("anonymous "));
    stranger
        .get("/keys/echo")
        .send()
        .await
        .refusal(401, "credentials_missing");
    let log = || async { scene.gateway.stdout().contains("certificate_unknown").then_some(()) };
    eventually(SOON, "the log names the check", log).await;
}

/// Alternative names as they stand in a certificate: 0x82 is a DNS name, 0x86 a URI.
fn names(all: &[(u8, &[u8])]) -> Vec<u8> {
    let entries: Vec<u8> = all
        .iter()
        .flat_map(|(tag, name)| [&[*tag, u8::try_from(name.len()).expect("short")], *name].concat())
        .collect();
    [&[0x30, u8::try_from(entries.len()).expect("short")], &entries[..]].concat()
}

/// One that its authority has signed, and whose names have two readings or none, is not as if none had been shown.
#[tokio::test]
async fn one_whose_names_cannot_be_read_fails() {
    let scene = Scene::start().await;
    const DNS: u8 = 0x82;
    const URI: u8 = 0x86;
    const GOOD: (u8, &[u8]) = (URI, b"spiffe://acme.test/billing");
    // A kind of name that there is not; one that ends after its certificate.
    let mut odd = vec![names(&[GOOD, (0x8f, b"x")]), vec![0x30, 3, DNS, 9, b'a']];
    for name in [
        &b"a.acme.test\0"[..],
        b"a\0.acme.test",
        b"a.acme.test\r\nx-tenant-id: root",
        b"a..acme.test",
    ] {
        odd.push(names(&[(DNS, name)]));
        odd.push(names(&[GOOD, (DNS, name)]));
    }
    odd.push(names(&[(DNS, "caf\u{e9}.acme.test".as_bytes())]));
    for name in [
        &b"spiffe://globex.test/a/../b"[..],
        b"spiffe://globex.test/./a",
        b"spiffe://globex.test/a\0",
        b"spiffe://globex.test/a\r\nb",
        b"spiffe://globex.test/%2e%2e/b",
        b"spiffe://globex.test//a",
        b"spiffe://globex.test/caf\xc3\xa9",
        b"SPIFFE://globex.test/a",
    ] {
        odd.push(names(&[(URI, name)]));
    }
    odd.push(names(&[GOOD, (URI, b"spiffe://globex.test/a")]));
    odd.push(names(&[(URI, b"urn:acme:a"), GOOD]));
    for content in &odd {
        let own = scene.callers.issue_with_names(content);
        for listener in ["open", "mesh"] {
            let client = scene.client(listener, Some(&own));
            for route in ["any", "cert", "both", "scoped"] {
                let refused = client.get(&format!("/{route}/echo")).send().await;
                refused.refusal(401, "credentials_invalid");
            }
            let refused = client.get("/any/echo").key("key-acme").send().await;
            refused.refusal(401, "credentials_invalid");
            // Where certificates do not count, neither does this one.
            assert!(who(client.get("/free/echo").send().await).starts_with("anonymous "));
            assert_eq!(
                who(client.get("/keys/echo").key("key-acme").send().await),
                "acme open acme-1"
            );
        }
    }
    let log = || async { scene.gateway.stdout().contains("certificate_malformed").then_some(()) };
    eventually(SOON, "the log names the check", log).await;
    let good = scene.client("mesh", Some(&scene.callers.issue_with_names(&names(&[GOOD]))));
    assert_eq!(
        who(good.get("/cert/echo").send().await),
        "acme premium spiffe://acme.test/billing"
    );
}

#[tokio::test]
async fn a_resumed_session_has_the_certificate_of_the_first() {
    let scene = Scene::start().await;
    let own = scene.callers.issue(&["a.acme.test"]);
    let tls = Tls::showing(&scene.public, "edge.test", &own);
    for _ in 0..2 {
        let client = Client::over_tls(scene.gateway.address_of("mesh"), tls.clone());
        assert_eq!(who(client.get("/cert/echo").send().await), "acme open a.acme.test");
    }
    scene
        .gateway
        .metric_becomes(HANDSHAKES, &[("outcome", "resumed")], 1.0)
        .await;
}

#[tokio::test]
async fn scopes_are_asked_of_certificates_too() {
    let scene = Scene::start().await;
    scene.billing().get("/scoped/echo").send().await.expect(200);
    let other = scene.client("open", Some(&scene.callers.issue(&["a.acme.test"])));
    other.get("/scoped/echo").send().await.refusal(403, "not_allowed");
}

#[tokio::test]
async fn two_credentials_must_name_one_tenant() {
    let scene = Scene::start().await;
    let client = scene.billing();
    assert_eq!(
        who(client.get("/any/echo").key("key-acme").send().await),
        "acme open acme-1"
    );
    client
        .get("/any/echo")
        .key("key-globex")
        .send()
        .await
        .refusal(401, "credentials_invalid");
    client
        .get("/any/echo")
        .key("wrong")
        .send()
        .await
        .refusal(401, "credentials_invalid");
    // Where certificates are not asked for, the key's tenant is the only one.
    assert_eq!(
        who(client.get("/keys/echo").key("key-globex").send().await),
        "globex open globex-1"
    );
}

#[tokio::test]
async fn a_pair_is_wanted_as_a_pair() {
    let scene = Scene::start().await;
    let (certified, bare) = (scene.billing(), scene.client("open", None));
    assert_eq!(
        who(certified.get("/pair/echo").key("key-acme").send().await),
        "acme open acme-1"
    );
    let refused = |answer: Answer, lacks: &[&str], has: &str| {
        let detail = answer.refusal(401, "credentials_missing")["detail"].to_string();
        assert!(lacks.iter().all(|word| detail.contains(word)), "{detail}");
        assert!(has.is_empty() || !detail.contains(has), "{detail}");
    };
    refused(certified.get("/pair/echo").send().await, &["x-api-key"], "certificate");
    refused(
        bare.get("/pair/echo").key("key-acme").send().await,
        &["certificate"],
        "x-api-key",
    );
    refused(bare.get("/pair/echo").send().await, &["certificate", "x-api-key"], "");
    certified
        .get("/pair/echo")
        .key("key-globex")
        .send()
        .await
        .refusal(401, "credentials_invalid");
    certified
        .get("/pair/echo")
        .key("wrong")
        .send()
        .await
        .refusal(401, "credentials_invalid");
}

#[tokio::test]
async fn a_name_that_is_taken_out_stops_counting_on_open_connections() {
    let scene = Scene::start().await;
    let client = scene.billing();
    client.get("/cert/echo").send().await.expect(200);
    let without = CALLERS.replace("acme.test/billing", "acme.test/other");
    scene.gateway.reload(config(&scene.api, &without)).await;
    client
        .get("/cert/echo")
        .send()
        .await
        .refusal(401, "credentials_invalid");
}
