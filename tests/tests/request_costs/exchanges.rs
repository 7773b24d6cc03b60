//! Kinds of exchanges that are counted, each on one kept connection.

use std::time::Duration;

use fixtures::fleet::{Fleet, Spec};
use fixtures::keys::OCT_JWKS;
use fixtures::tokens::{self, Algorithm};
use serde_json::json;
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::{Client, Gateway, Setup};

const TOP: &str = "
workers: 1
access_log: off
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
overload: off
tiers: { open: { rate: 1000000/s, burst: 1000000 }, drained: { rate: 1/h, burst: 1 } }
default_tier: open
callers:
  failures: off
  anonymous: { by: client_address, tier: open }
  jwt:
    issuer: { issuer: \"https://id.test\", audience: [edge], keys: { file: jwks.json }, algorithms: [HS256],
              tenant: /tenant, tier: /tier }
";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Exchange {
    /// An anonymous GET over HTTP/1.1; the answer has 1 KiB.
    Plain,
    /// The same with a token, HS256, and the limit of its tenant.
    Token,
    /// A request with a token that is answered with 429.
    Limited,
    /// An anonymous GET over HTTP/2.
    Http2,
    /// One document of three calls.
    Aggregate,
}

/// A gateway with a caller and a backend for one kind of exchange.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    caller: Caller,
    _fleet: Fleet,
}

enum Caller {
    Http1 {
        client: Client,
        path: &'static str,
        token: Option<String>,
        status: u16,
    },
    Http2 {
        connection: Http2,
        path: &'static str,
    },
}

impl Exchange {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Token => "token",
            Self::Limited => "limited",
            Self::Http2 => "http2",
            Self::Aggregate => "aggregate",
        }
    }

    pub(crate) async fn start(self) -> Running {
        let fleet = Fleet::start([Spec::new("api")]).await.expect("a port is free");
        let config = Config::with(TOP)
            .backend("api", fleet.address("api"), "")
            .open_route("open", "api", "")
            .mapped("tokens", "api", "access: { any_of: [jwt] }")
            .route(
                "page",
                "{ match: { path: /page }, access: { any_of: [anonymous] }, aggregate: { parts: {
                    a: { backend: api, path: /echo }, b: { backend: api, path: /echo },
                    c: { backend: api, path: /echo } } } }",
            );
        let gateway = Setup::new(config.to_string()).file("jwks.json", OCT_JWKS).start().await;
        let http1 = |path, tier: Option<&str>, status| Caller::Http1 {
            client: gateway.client(),
            path,
            token: tier.map(token),
            status,
        };
        let caller = match self {
            Self::Plain => http1("/open/bytes/1024", None, 200),
            Self::Token => http1("/tokens/bytes/1024", Some("open"), 200),
            Self::Limited => http1("/tokens/bytes/1024", Some("drained"), 429),
            Self::Aggregate => http1("/page", None, 200),
            Self::Http2 => Caller::Http2 {
                connection: Http2::connect(gateway.address()).await,
                path: "/open/bytes/1024",
            },
        };
        let running = Running {
            gateway,
            caller,
            _fleet: fleet,
        };
        if matches!(self, Self::Limited) {
            // The first one takes the only token.
            let first = running.gateway.get("/tokens/bytes/1024");
            first
                .header("authorization", &format!("Bearer {}", token("drained")))
                .send()
                .await
                .expect(200);
        }
        running
    }
}

fn token(tier: &str) -> String {
    let until = tokens::seconds_from_now(Duration::from_secs(3600));
    let claims =
        json!({ "iss": "https://id.test", "aud": "edge", "sub": "ada", "tenant": "acme", "tier": tier, "exp": until });
    tokens::mint(Algorithm::HS256, &claims, Some(&tokens::kid(Algorithm::HS256)))
}

impl Running {
    /// Sends requests one after the other.
    pub(crate) async fn send(&mut self, count: usize) {
        for _ in 0..count {
            match &self.caller {
                Caller::Http1 {
                    client,
                    path,
                    token,
                    status,
                } => {
                    let mut ask = client.get(path);
                    if let Some(token) = token {
                        ask = ask.header("authorization", &format!("Bearer {token}"));
                    }
                    ask.send().await.expect(*status);
                }
                Caller::Http2 { connection, path } => {
                    let answer = connection.get(path).await.expect("an answer");
                    assert_eq!(answer.status, 200);
                }
            }
        }
    }
}
