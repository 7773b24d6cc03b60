//! Checks which credential fields a backend receives: all that the gateway did not use, and of those that it used the
//! ones that the route passes on.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use http::Method;
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::{Gateway, Setup};

use crate::callers::{all_keys, claims, claims_with, signed};
use crate::one_backend;

/// The user ada, whose password is lovelace.
const USERS: &str = r#"
users:
  - { id: ada, tenant: acme, password_hash: "$2b$10$/ZsGkLXy3vF/5sxtezIWGejgQsFEHybCdXm7490eqDXG1ioZCSAG6" }
"#;
const ADA: &str = "Basic YWRhOmxvdmVsYWNl";

fn top(places: &str) -> String {
    format!(
        r#"
listeners: {{ public: {{ address: "127.0.0.1:0" }} }}
admin: {{ address: "127.0.0.1:0" }}
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }} }}
default_tier: open
callers:
  api_keys: {{ file: keys.yaml{places} }}
  jwt:
    main: {{ issuer: "https://id.test", audience: [edge], keys: {{ file: jwks.json }}, algorithms: [ES256], tenant: /tenant }}
    narrow: {{ issuer: "https://narrow.test", audience: [edge], keys: {{ file: jwks.json }}, algorithms: [ES256], tenant: /tenant }}
  basic: {{ file: users.yaml }}
  anonymous: {{ by: client_address, tier: open }}
  failures: off
"#
    )
}

const ROUTES: [(&str, &str); 14] = [
    ("keys", "access: { any_of: [api_key] }"),
    ("tokens", "access: { any_of: [jwt] }"),
    ("basic", "access: { any_of: [basic] }"),
    ("open", "access: { any_of: [anonymous] }"),
    ("several", "access: { any_of: [api_key, jwt, basic, anonymous] }"),
    ("both", "access: { all_of: [api_key, jwt] }"),
    (
        "some",
        "access: { any_of: [api_key, \"jwt:main\"] }, forward_credential: false",
    ),
    ("keys-on", "access: { any_of: [api_key] }, forward_credential: true"),
    ("tokens-on", "access: { any_of: [jwt] }, forward_credential: true"),
    ("basic-on", "access: { any_of: [basic] }, forward_credential: true"),
    (
        "both-on",
        "access: { all_of: [api_key, jwt] }, forward_credential: true",
    ),
    ("keys-off", "access: { any_of: [api_key] }, forward_credential: false"),
    ("tokens-off", "access: { any_of: [jwt] }, forward_credential: false"),
    (
        "both-off",
        "access: { all_of: [api_key, jwt] }, forward_credential: false",
    ),
];

async fn start(places: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(top(places)).backend("api", api.address(), "retry: off");
    let config = ROUTES
        .iter()
        .fold(config, |config, (name, more)| config.mapped(name, "api", more));
    let parts = |name: &str, access: &str, forward: &str| {
        format!(
            "{{ match: {{ path: /{name} }}, {access}, \
             aggregate: {{ {forward}parts: {{ one: {{ backend: api, path: /echo }}, two: {{ backend: api, path: /echo }} }} }} }}"
        )
    };
    let config = ROUTES.iter().fold(config, |config, (name, access)| {
        let (all, usual) = (format!("all-{name}"), format!("usual-{name}"));
        config
            .route(&all, &parts(&all, access, "forward: all, "))
            .route(&usual, &parts(&usual, access, ""))
    });
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&[KeyLine::new("acme-1", "acme", "key-acme")]))
        .file("jwks.json", all_keys().to_string())
        .file("users.yaml", USERS)
        .start()
        .await;
    (fleet, api, gateway)
}

/// A request's `x-api-key` and `authorization`, if any.
type Sent<'a> = (Option<&'a str>, Option<&'a str>);

/// Asks the route of this name, alone and as an aggregate, and compares what each request to the backend had.
#[track_caller]
fn got_by(api: &Handle, what: &str, expected: Sent<'_>, requests: usize) {
    let got = api.take_requests();
    assert_eq!(got.len(), requests, "{what}");
    for request in got {
        let found = (request.header("x-api-key"), request.header("authorization"));
        assert_eq!(found, expected, "{what}");
        let odd: Vec<_> = request.headers.iter().filter(|(name, _)| name.contains('_')).collect();
        assert!(odd.is_empty(), "{what}: {odd:?}");
    }
}

#[tokio::test]
async fn a_field_that_was_not_taken_passes_and_one_that_was_goes_unless_it_may() {
    let (_fleet, api, gateway) = start("").await;
    let token = format!("Bearer {}", signed(&claims()));
    let narrow = format!("Bearer {}", signed(&claims_with("iss", "https://narrow.test".into())));
    let (key, token, narrow) = (Some("key-acme"), Some(token.as_str()), Some(narrow.as_str()));
    let theirs = [
        Some("Bearer of-the-backend"),
        Some("Bearer a.b.c"),
        Some("Basic dGhlaXI6b3du"),
        Some("Basic"),
        Some("Digest username=\"ada\""),
        token,
        None,
    ];
    let mut cases: Vec<(&str, Sent<'_>, Sent<'_>)> = Vec::new();
    // A key for the application, and whatever its user has for the backend.
    for theirs in theirs {
        cases.push(("keys", (key, theirs), (None, theirs)));
        cases.push(("keys-off", (key, theirs), (None, theirs)));
        cases.push(("keys-on", (key, theirs), (key, theirs)));
        cases.push(("open", (None, theirs), (None, theirs)));
        cases.push(("open", (key, theirs), (key, theirs)));
        cases.push(("open", (Some("wrong"), theirs), (Some("wrong"), theirs)));
    }
    // A key for the backend.
    for theirs in [Some("of-the-backend"), key, Some(""), None] {
        cases.push(("tokens", (theirs, token), (theirs, token)));
        cases.push(("tokens-on", (theirs, token), (theirs, token)));
        cases.push(("tokens-off", (theirs, token), (theirs, None)));
        cases.push(("basic", (theirs, Some(ADA)), (theirs, None)));
        cases.push(("basic-on", (theirs, Some(ADA)), (theirs, Some(ADA))));
    }
    // Of several credentials, those that were read and are valid.
    for theirs in [Some("Digest username=\"ada\""), Some("Negotiate abc"), None] {
        cases.push(("several", (None, theirs), (None, theirs)));
        cases.push(("several", (key, theirs), (None, theirs)));
    }
    cases.push(("several", (key, token), (None, token)));
    cases.push(("several", (key, Some(ADA)), (None, None)));
    cases.push(("both", (key, token), (None, token)));
    cases.push(("both-on", (key, token), (key, token)));
    cases.push(("both-off", (key, token), (None, None)));
    // A token that the route does not admit does not act.
    cases.push(("some", (key, narrow), (None, narrow)));
    cases.push(("some", (key, token), (None, None)));
    for (route, (key, authorization), expected) in cases {
        for (target, requests) in [(format!("/{route}/echo"), 1), (format!("/all-{route}"), 2)] {
            let mut ask = gateway
                .get(&target)
                .header("x_api_key", "key-acme")
                .header("x-api_key", "key-acme")
                .header("proxy-authorization", "Basic YTpi");
            if let Some(key) = key {
                ask = ask.key(key);
            }
            if let Some(value) = authorization {
                ask = ask.header("authorization", value);
            }
            let what = format!("{target} with {key:?} and {authorization:?}");
            let answer = ask.send().await;
            assert_eq!(answer.status, 200, "{what}: {answer:#?}");
            assert!(
                api.requests()
                    .iter()
                    .all(|got| got.header("proxy-authorization").is_none()),
                "{what}"
            );
            got_by(&api, &what, expected, requests);
        }
    }
}

#[tokio::test]
async fn parts_get_no_cookie_and_only_credentials_that_were_taken() {
    let (_fleet, api, gateway) = start("").await;
    let token = format!("Bearer {}", signed(&claims()));
    let (key, token, theirs) = (Some("key-acme"), Some(token.as_str()), Some("Bearer of-the-backend"));
    let cases: [(&str, Sent<'_>, Sent<'_>); 13] = [
        ("keys", (key, theirs), (None, None)),
        ("keys-on", (key, theirs), (key, None)),
        ("tokens", (theirs, token), (None, token)),
        ("tokens-on", (theirs, token), (None, token)),
        ("tokens-off", (theirs, token), (None, None)),
        ("open", (theirs, token), (None, None)),
        ("basic", (theirs, Some(ADA)), (None, None)),
        ("basic-on", (theirs, Some(ADA)), (None, Some(ADA))),
        ("several", (key, None), (None, None)),
        ("several", (key, token), (None, token)),
        ("several", (None, Some("Digest username=\"ada\"")), (None, None)),
        ("both", (key, token), (None, token)),
        ("both-on", (key, token), (key, token)),
    ];
    for (route, (key, authorization), expected) in cases {
        for (target, cookie) in [
            (format!("/usual-{route}"), None),
            (format!("/all-{route}"), Some("a=1")),
        ] {
            let mut ask = gateway
                .get(&target)
                .header("cookie", "a=1")
                .header("accept-language", "de");
            if let Some(key) = key {
                ask = ask.key(key);
            }
            if let Some(value) = authorization {
                ask = ask.header("authorization", value);
            }
            let what = format!("{target} with {key:?} and {authorization:?}");
            ask.send().await.expect(200);
            for got in api.requests() {
                assert_eq!(got.header("cookie"), cookie, "{what}");
                assert_eq!(got.header("accept-language"), Some("de"), "{what}");
            }
            match cookie {
                None => got_by(&api, &what, expected, 2),
                Some(_) => drop(api.take_requests()),
            }
        }
    }
}

#[tokio::test]
async fn what_the_route_asks_for_must_hold_whatever_else_is_sent() {
    let (_fleet, api, gateway) = start("").await;
    let token = signed(&claims());
    let other = signed(&claims_with("tenant", "globex".into()));
    for (route, key, bearer, reason) in [
        ("keys", "wrong", token.as_str(), "credentials_invalid"),
        ("tokens", "key-acme", "forged", "credentials_invalid"),
        ("several", "key-acme", "forged", "credentials_invalid"),
        ("several", "wrong", token.as_str(), "credentials_invalid"),
        ("several", "key-acme", other.as_str(), "credentials_invalid"),
        ("basic", "key-acme", token.as_str(), "credentials_missing"),
    ] {
        let refused = gateway
            .get(&format!("/{route}/echo"))
            .key(key)
            .bearer(bearer)
            .send()
            .await;
        refused.refusal(401, reason);
    }
    // No other spelling is a key.
    let odd = gateway.get("/keys/echo").header("x_api_key", "key-acme").send().await;
    odd.refusal(401, "credentials_missing");
    assert_eq!(api.counts().requests, 0);
}

#[tokio::test]
async fn a_key_is_taken_from_where_it_came_and_from_nowhere_else() {
    let (_fleet, api, gateway) = start(", in: [header, authorization, query], query: token").await;
    let token = signed(&claims());
    let bearer = format!("Bearer {token}");
    // The route, the query, x-api-key and authorization as sent; then as the backend got them.
    let cases: [(&str, [&str; 3], [&str; 3]); 17] = [
        ("keys", ["?token=key-acme&a=b", "", ""], ["?a=b", "", ""]),
        (
            "keys",
            ["?a=b&to%6ben=key-acme", "", "Basic YTpi"],
            ["?a=b", "", "Basic YTpi"],
        ),
        ("keys", ["?a=b", "key-acme", &bearer], ["?a=b", "", &bearer]),
        ("keys", ["", "", "ApiKey key-acme"], ["", "", ""]),
        ("keys", ["", "", "bearer key-acme"], ["", "", ""]),
        ("keys-on", ["?token=key-acme", "", ""], ["?token=key-acme", "", ""]),
        ("keys-on", ["", "", "ApiKey key-acme"], ["", "", "ApiKey key-acme"]),
        ("keys-on", ["", "key-acme", &bearer], ["", "key-acme", &bearer]),
        (
            "open",
            ["?token=theirs&a=b", "theirs", "ApiKey theirs"],
            ["?token=theirs&a=b", "theirs", "ApiKey theirs"],
        ),
        (
            "open",
            ["?token=", "", "Bearer opaque"],
            ["?token=", "", "Bearer opaque"],
        ),
        (
            "tokens",
            ["?token=theirs", "theirs", &bearer],
            ["?token=theirs", "theirs", &bearer],
        ),
        (
            "tokens-off",
            ["?token=theirs", "theirs", &bearer],
            ["?token=theirs", "theirs", ""],
        ),
        (
            "basic",
            ["?token=theirs", "theirs", ADA],
            ["?token=theirs", "theirs", ""],
        ),
        ("several", ["?token=key-acme", "", &bearer], ["", "", &bearer]),
        ("several", ["", "", "ApiKey key-acme"], ["", "", ""]),
        ("both", ["?token=key-acme", "", &bearer], ["", "", &bearer]),
        (
            "both-on",
            ["?token=key-acme", "", &bearer],
            ["?token=key-acme", "", &bearer],
        ),
    ];
    for (route, [query, key, authorization], [to_query, to_key, to_authorization]) in cases {
        let mut ask = gateway.get(&format!("/{route}/echo{query}"));
        for (name, value) in [("x-api-key", key), ("authorization", authorization)] {
            if !value.is_empty() {
                ask = ask.header(name, value);
            }
        }
        let what = format!("{route} with {query} {key} {authorization}");
        let answer = ask.send().await;
        assert_eq!(answer.status, 200, "{what}: {answer:#?}");
        let got = api.take_requests().pop().expect("it came");
        assert_eq!(got.target, format!("/echo{to_query}"), "{what}");
        assert_eq!(got.header("x-api-key").unwrap_or_default(), to_key, "{what}");
        assert_eq!(
            got.header("authorization").unwrap_or_default(),
            to_authorization,
            "{what}"
        );
    }
    for (query, key, authorization) in [
        ("?token=key-acme", "key-acme", "Basic YTpi"),
        ("?token=key-acme&token=key-acme", "", "Basic YTpi"),
        ("", "key-acme", "ApiKey key-acme"),
    ] {
        let mut ask = gateway
            .get(&format!("/keys/echo{query}"))
            .header("authorization", authorization);
        if !key.is_empty() {
            ask = ask.key(key);
        }
        ask.send().await.refusal(401, "credentials_invalid");
    }
    // The header is the backend's where keys do not come in it.
    let (_fleet, api, gateway) = start(", in: [authorization]").await;
    let ask = gateway.get("/keys/echo").key("theirs").header("x_api_key", "odd");
    ask.header("authorization", "ApiKey key-acme").send().await.expect(200);
    got_by(&api, "keys in authorization alone", (Some("theirs"), None), 1);
}

#[tokio::test]
async fn it_is_the_same_over_http2() {
    let (_fleet, api, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    for (path, key, expected) in [
        ("/keys/echo", "key-acme", (None, Some("Bearer theirs"))),
        ("/open/echo", "theirs", (Some("theirs"), Some("Bearer theirs"))),
    ] {
        let mut request = caller.request(Method::GET, path);
        request.headers_mut().insert("x-api-key", key.parse().expect("a value"));
        let theirs = "Bearer theirs".parse().expect("a value");
        request.headers_mut().insert("authorization", theirs);
        let stream = caller.send(request, true).await.expect("it takes requests");
        let answer = stream.whole().await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        got_by(&api, path, expected, 1);
    }
}
