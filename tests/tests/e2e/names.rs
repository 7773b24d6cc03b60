//! Checks names of callers and tenants in any Unicode text: backends get them percent-encoded, logs and other outputs
//! show them unchanged.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, Setup, Signal, eventually};

use crate::callers::{all_keys, claims, signed};
use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
tenants: { "org \u2603": { tier: premium } }
callers:
  api_keys: { file: keys.yaml }
  basic: { file: users.yaml }
  jwt: { main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256],
                 tenant: /tenant, scopes: /scope } }
  revocations: { file: revoked.yaml }
"#;

/// Each with what backends read.
const NAMES: [(&str, &str); 12] = [
    ("ada", "ada"),
    ("us\u{e9}r-\u{2603}", "us%C3%A9r-%E2%98%83"),
    ("use\u{301}r", "use%CC%81r"),
    ("\u{1f600}", "%F0%9F%98%80"),
    ("\u{5d0}\u{5d1}\u{5d2}", "%D7%90%D7%91%D7%92"),
    ("two words", "two%20words"),
    (" ends ", "%20ends%20"),
    ("50%", "50%25"),
    ("a%20b", "a%2520b"),
    ("\u{202e}gnirts", "%E2%80%AEgnirts"),
    ("a\u{2028}b", "a%E2%80%A8b"),
    ("o'brien, \"x\";y=1", "o'brien,%20\"x\";y=1"),
];

/// The word `lovelace`.
const HASH: &str = "$2b$10$/ZsGkLXy3vF/5sxtezIWGejgQsFEHybCdXm7490eqDXG1ioZCSAG6";

fn setup(api: &Handle, top: &str) -> Setup {
    let config = Config::with(TOP)
        .top(top)
        .backend("api", api.address(), "")
        .mapped(
            "any",
            "api",
            "headers: { request: { set: { x-login: \"{claim.sub}\", x-search: \"<{query.q}>\", x-copy: \"{header.x-raw}\" } } }",
        )
        .mapped("limited", "api", "limits: { few: { limit: 2, every: day, per: caller } }")
        .mapped("scoped", "api", "access: { scopes: [\"le\u{ed}do\"] }");
    let keys = [
        KeyLine::new("cl\u{e9} 1", "org \u{2603}", "key-one"),
        KeyLine::new("plain", "acme", "key-two"),
    ];
    let users =
        format!("users:\n  - {{ id: \"us\u{e9}r \u{2603}\", tenant: \"\u{f6}rg\", password_hash: \"{HASH}\" }}\n");
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("users.yaml", users)
        .file("revoked.yaml", "revocations: []")
        .file("admin.token", "a-token-of-the-tests")
        .file("jwks.json", all_keys().to_string())
}

async fn start() -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let gateway = setup(&api, "").start().await;
    (fleet, api, gateway)
}

fn token(name: &Value, tenant: &Value) -> String {
    let mut all = claims();
    (all["sub"], all["tenant"]) = (name.clone(), tenant.clone());
    signed(&all)
}

/// Returns the lines of the access log about requests for this path.
async fn logged(gateway: &Gateway, path: &str, count: usize) -> Vec<Value> {
    eventually(SOON, "the lines are written", || async {
        let lines: Vec<Value> = gateway
            .stdout()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line["path"] == path)
            .collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn a_token_may_name_anybody() {
    let (_fleet, _api, gateway) = start().await;
    for (name, told) in NAMES {
        let token = token(&name.into(), &name.into());
        let answer = gateway.get("/any/echo?q=1").bearer(&token).send().await.expect(200);
        for field in ["x-caller-id", "x-tenant-id"] {
            assert_eq!(answer.echoed(field).as_deref(), Some(told), "{name:?}");
        }
    }
    let lines = logged(&gateway, "/any/echo", NAMES.len()).await;
    let known = gateway.admin_json("/api/v1/tenants").await.to_string();
    for (line, (name, _)) in lines.iter().zip(NAMES) {
        assert_eq!((&line["caller"], &line["tenant"]), (&name.into(), &name.into()));
        assert!(known.contains(&json!(name).to_string()), "{name:?} in {known}");
    }
    // None of them says more in the log than what JSON shows.
    let hidden = |letter: char| (letter.is_control() && letter != '\n') || matches!(letter, '\u{2028}'..='\u{202e}');
    assert_eq!(gateway.stdout().find(hidden), None);
}

#[tokio::test]
async fn a_number_is_its_digits_and_what_is_no_name_is_refused() {
    let (_fleet, _api, gateway) = start().await;
    for (number, told) in [
        ("7", "7"),
        ("0", "0"),
        ("-7", "-7"),
        ("9007199254740993", "9007199254740993"),
    ] {
        let number: Value = serde_json::from_str(number).expect("JSON");
        let answer = gateway
            .get("/any/echo")
            .bearer(&token(&number, &number))
            .send()
            .await
            .expect(200);
        for field in ["x-caller-id", "x-tenant-id"] {
            assert_eq!(answer.echoed(field).as_deref(), Some(told));
        }
    }
    for bad in [
        json!(""),
        json!(null),
        json!(true),
        json!([7]),
        json!({ "id": 7 }),
        json!(7.5),
        json!("a\r\nx-tenant-id: root"),
        json!("a\0"),
        json!("a\u{7f}"),
        json!("a\u{9b}31m"),
    ] {
        for token in [token(&bad, &"acme".into()), token(&"ada".into(), &bad)] {
            let refused = gateway.get("/any/echo").bearer(&token).send().await;
            refused.refusal(401, "credentials_invalid");
        }
    }
    let refused = gateway
        .get("/any/echo")
        .bearer(&token(&"ada".into(), &"anonymous".into()))
        .send()
        .await;
    refused.refusal(401, "credentials_invalid");
}

#[tokio::test]
async fn keys_and_users_may_be_called_anything_too() {
    let (_fleet, _api, gateway) = start().await;
    let by_key = gateway.get("/any/echo").key("key-one").send().await.expect(200);
    let told = |answer: &tests::Answer| ["x-tenant-id", "x-caller-id", "x-tenant-tier"].map(|name| answer.echoed(name));
    let expected = |texts: [&str; 3]| texts.map(|text| Some(text.to_owned()));
    assert_eq!(told(&by_key), expected(["org%20%E2%98%83", "cl%C3%A9%201", "premium"]));
    // "usér ☃:lovelace"
    let credential = "Basic dXPDqXIg4piDOmxvdmVsYWNl";
    let by_name = gateway
        .get("/any/echo")
        .header("authorization", credential)
        .send()
        .await
        .expect(200);
    assert_eq!(told(&by_name), expected(["%C3%B6rg", "us%C3%A9r%20%E2%98%83", "open"]));
    let lines = logged(&gateway, "/any/echo", 2).await;
    assert_eq!(
        (&lines[0]["caller"], &lines[0]["tenant"]),
        (&"cl\u{e9} 1".into(), &"org \u{2603}".into())
    );
    assert_eq!(
        (&lines[1]["caller"], &lines[1]["tenant"]),
        (&"us\u{e9}r \u{2603}".into(), &"\u{f6}rg".into())
    );
}

#[tokio::test]
async fn what_fills_a_field_is_encoded_in_it() {
    let (_fleet, _api, gateway) = start().await;
    let ask = |target: &str, sub: &str| {
        let ask = gateway.get(target).bearer(&token(&sub.into(), &"acme".into()));
        ask.header("x-raw", "50% off").send()
    };
    let check = async |target: &str, sub: &str, login: &str, search: Option<&str>| {
        let answer = ask(target, sub).await.expect(200);
        assert_eq!(answer.echoed("x-login").as_deref(), Some(login), "{sub:?}");
        assert_eq!(answer.echoed("x-search").as_deref(), search, "{target}");
        assert_eq!(
            answer.echoed("x-copy").as_deref(),
            Some("50% off"),
            "it is of a field already"
        );
    };
    check("/any/echo?q=a%20b", "two words", "two words", Some("<a b>")).await;
    check("/any/echo?q=%C3%A9", "us\u{e9}r", "us%C3%A9r", Some("<%C3%A9>")).await;
    check("/any/echo?q=100%25", "50%", "50%25", Some("<100%25>")).await;
    check("/any/echo?q=+a+", " a", "%20a", Some("<%20a%20>")).await;
    check("/any/echo?q=a%0d%0ab", "ada", "ada", None).await;
    check("/any/echo?q=%ff", "ada", "ada", None).await;
}

#[tokio::test]
async fn scopes_are_unicode() {
    let (_fleet, _api, gateway) = start().await;
    for (scope, status) in [
        (json!("le\u{ed}do"), 200),
        (json!(["x", "le\u{ed}do"]), 200),
        (json!("lei\u{301}do"), 403),
        (json!("le%C3%ADdo"), 403),
    ] {
        let mut claims = claims();
        claims["scope"] = scope.clone();
        let answer = gateway.get("/scoped/echo").bearer(&signed(&claims)).send().await;
        assert_eq!(answer.status, status, "{scope}");
    }
}

#[tokio::test]
async fn each_name_is_taken_back_and_counted_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_fleet, api) = one_backend("api").await;
    let top = format!("state_file: {}", folder.path().join("counts").display());
    let counting = || setup(&api, &top);
    // The last two look alike once one of them is encoded.
    let names = ["us\u{e9}r-\u{2603}", "use\u{301}r-\u{2603}", "a b", "a%20b"];
    let mut gateway = counting().start().await;
    let ask = async |gateway: &Gateway, name: &str| {
        let token = token(&name.into(), &"\u{f6}rg \u{2603}".into());
        gateway.get("/limited/echo").bearer(&token).send().await
    };
    for name in names {
        ask(&gateway, name).await.expect(200);
    }
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, Some(0));
    let gateway = counting().start().await;
    for name in names {
        ask(&gateway, name).await.expect(200);
        ask(&gateway, name).await.refusal(429, "quota_exhausted");
    }
    for (at, name) in names.iter().enumerate() {
        let entry = json!({ "subject": name }).to_string();
        let revoked = tests::Client::to(gateway.admin_address())
            .post("/api/v1/revocations")
            .bearer("a-token-of-the-tests");
        revoked.body(entry).send().await.expect(200);
        for (other_at, other) in names.iter().enumerate() {
            let status = ask(&gateway, other).await.status;
            assert_eq!(
                status,
                if other_at <= at { 401 } else { 429 },
                "{other:?} after {name:?}"
            );
        }
    }
}
