//! Checks revocations: a revoked credential is refused from the next request on, by every worker, on open connections,
//! and after a restart.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::Fleet;
use fixtures::keys;
use http::Method;
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Answer, Gateway, Setup, cli, eventually};

use crate::callers::{claims_with, signed};
use crate::{SOON, one_backend};

const TOKEN: &str = "correct-horse-battery-staple";
const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
workers: 4
admin: { address: "127.0.0.1:0", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
callers:
  api_keys: { file: keys.yaml }
  jwt:
    main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256], tenant: /tenant }
  revocations: { file: revoked.yaml }
"#;

async fn start(revoked: &str) -> (Fleet, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(TOP)
        .backend("api", api.address(), "")
        .mapped("any", "api", "");
    let lines = [KeyLine::new("k1", "acme", "key-1"), KeyLine::new("k2", "acme", "key-2")];
    let gateway = Setup::new(config.to_string())
        .file("keys.yaml", key_file(&lines))
        .file("jwks.json", keys::JWKS)
        .file("admin.token", TOKEN)
        .file("revoked.yaml", revoked)
        .start()
        .await;
    (fleet, gateway)
}

async fn change(gateway: &Gateway, method: Method, more: &str, body: &Value) -> Answer {
    let ask = tests::Client::to(gateway.admin_address()).ask(method, &format!("/api/v1/revocations{more}"));
    ask.bearer(TOKEN).body(body.to_string()).send().await
}

async fn post(gateway: &Gateway, body: Value) -> Value {
    change(gateway, Method::POST, "", &body).await.expect(200).json()
}

fn token(jti: &str) -> String {
    signed(&claims_with("jti", jti.into()))
}

#[tokio::test]
async fn every_kind_of_entry_stops_what_it_names_at_once_on_open_connections() {
    let (_fleet, gateway) = start("revocations: []").await;
    let ada = token("t1");
    // Connections enough that every worker has some.
    let clients: Vec<_> = (0..16).map(|_| gateway.another_client()).collect();
    let all = async |token: &str, status: u16| {
        for client in &clients {
            client.get("/any/echo").bearer(token).send().await.expect(status);
        }
    };
    let with_key = async |key: &str, status: u16| {
        for client in &clients {
            client.get("/any/echo").key(key).send().await.expect(status);
        }
    };
    all(&ada, 200).await;
    with_key("key-1", 200).await;
    for (entry, query) in [
        (json!({ "jti": "t1", "issuer": "main" }), "?jti=t1&issuer=main"),
        (json!({ "subject": "ada" }), "?subject=ada"),
        (json!({ "tenant": "acme" }), "?tenant=acme"),
    ] {
        post(&gateway, entry).await;
        all(&ada, 401).await;
        change(&gateway, Method::DELETE, query, &Value::Null).await.expect(200);
        all(&ada, 200).await;
    }
    post(&gateway, json!({ "key": "k1", "reason": "leaked" })).await;
    with_key("key-1", 401).await;
    with_key("key-2", 200).await;
    all(&ada, 200).await;
    let keys = gateway.admin_json("/api/v1/keys?tenant=acme").await;
    assert_eq!(
        (&keys["total"], &keys["keys"][0]["id"]),
        (&json!(2), &json!("k1")),
        "{keys:#}"
    );
    assert_eq!(keys["keys"][0]["fails"], "revoked_key", "{keys:#}");
    assert_eq!(keys["keys"][1]["holds"], true, "{keys:#}");
    let both = gateway.get("/any/echo").bearer(&ada).key("key-1").send().await;
    both.refusal(401, "credentials_invalid");
    eventually(SOON, "the log says which", || async {
        let log = gateway.stdout();
        ["revoked_key", "revoked_jti", "revoked_subject", "revoked_tenant"]
            .iter()
            .all(|word| log.contains(word))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_file_is_followed_and_kept() {
    let (_fleet, gateway) = start("revocations: [{ key: k1, reason: lost }]").await;
    let status_of = async |key: &str| gateway.get("/any/echo").key(key).send().await.status;
    assert_eq!((status_of("key-1").await, status_of("key-2").await), (401, 200));
    std::fs::write(gateway.path("revoked.yaml"), "revocations: [{ key: k2 }]").expect("a file of ours");
    eventually(SOON, "k2 is revoked", || async {
        (status_of("key-2").await == 401).then_some(())
    })
    .await;
    assert_eq!(status_of("key-1").await, 200);
    assert_eq!(gateway.metric("gateway_revocations", &[("kind", "key")]).await, 1.0);
    assert_eq!(
        gateway.metric("gateway_config_generation", &[]).await,
        1.0,
        "no plan is made for it"
    );

    post(
        &gateway,
        json!({ "revocations": [{ "key": "k1" }, { "tenant": "hooli", "until": "1h" }] }),
    )
    .await;
    let written = std::fs::read_to_string(gateway.path("revoked.yaml")).expect("a file of ours");
    for word in ["key: k1", "key: k2", "tenant: hooli, until: 20"] {
        assert!(written.contains(word), "{written}");
    }
    gateway
        .reload(std::fs::read_to_string(gateway.path("gateway.yaml")).expect("ours"))
        .await;
    assert_eq!((status_of("key-1").await, status_of("key-2").await), (401, 401));
    let listed = gateway.admin_json("/api/v1/revocations").await;
    assert_eq!(listed["total"], 3, "{listed:#}");
    assert_eq!(gateway.admin_json("/api/v1/status").await["revocations"]["total"], 3);
}

#[tokio::test]
async fn a_bad_file_lets_nobody_back_in() {
    let (_fleet, gateway) = start("revocations: [{ key: k1 }]").await;
    std::fs::write(gateway.path("revoked.yaml"), "revocations: [{ keys: k1 }]").expect("a file of ours");
    eventually(SOON, "the status says so", || async {
        let status = gateway.admin_json("/api/v1/status").await;
        status["revocations"]["last_error"]["error"]
            .as_str()?
            .contains("revoked.yaml:1:")
            .then_some(())
    })
    .await;
    gateway
        .get("/any/echo")
        .key("key-1")
        .send()
        .await
        .refusal(401, "credentials_invalid");
    let added = change(&gateway, Method::POST, "", &json!({ "key": "k2" })).await;
    assert_eq!(added.json()["reason"], "revocation_not_written", "{added:?}");
    gateway
        .get("/any/echo")
        .key("key-2")
        .send()
        .await
        .refusal(401, "credentials_invalid");
}

#[tokio::test]
async fn nobody_revokes_without_the_token_or_what_cannot_be() {
    let (_fleet, gateway) = start("revocations: []").await;
    let admin = tests::Client::to(gateway.admin_address());
    for method in [Method::POST, Method::DELETE] {
        let ask = admin.ask(method, "/api/v1/revocations?key=k1").body("{\"key\":\"k1\"}");
        ask.send().await.expect(401);
    }
    for body in [
        json!({}),
        json!([]),
        json!({ "key": "k1", "tenant": "acme" }),
        json!({ "key": "k1", "issuer": "main" }),
        json!({ "tenant": "anonymous" }),
        json!({ "key": "k1", "until": "tomorrow" }),
        json!({ "keys": "k1" }),
        json!({ "revocations": [{ "key": "k1" }, {}] }),
        json!({ "revocations": [{ "key": "k1" }], "key": "k2" }),
        json!({ "revocations": [{ "key": "k1" }, { "key": "k1", "until": "1h" }] }),
        json!({ "key": "k1", "until": "2020-01-01" }),
        json!({ "key": "k1", "until": "2020-01-01T00:00:00Z" }),
        json!({ "key": "k1", "until": "0s" }),
        json!({ "key": "k1", "until": "9999999d" }),
        json!({ "revocations": [{ "key": "k1" }, { "key": "k2", "until": "2020-01-01" }] }),
    ] {
        let refused = change(&gateway, Method::POST, "", &body).await;
        assert_eq!(
            (refused.status, refused.json()["reason"].as_str()),
            (400, Some("bad_value")),
            "{body}"
        );
    }
    // If two members have one name, readers differ in which one they take.
    for body in [
        r#"{"key":"k2","key":"k1"}"#,
        r#"{"key":"k1","until":"1h","until":"2h"}"#,
        r#"{"key":"k1","reason":"a","reason":"b"}"#,
        r#"{"revocations":[{"key":"k2"}],"revocations":[{"key":"k1"}]}"#,
        r#"{"revocations":[{"key":"k2","key":"k1"}]}"#,
        r#"{"key":"k1","\u006bey":"k2"}"#,
    ] {
        let ask = admin.ask(Method::POST, "/api/v1/revocations").bearer(TOKEN);
        let refused = ask.body(body).send().await;
        assert_eq!(
            (refused.status, refused.json()["reason"].as_str()),
            (400, Some("bad_value")),
            "{body}"
        );
    }
    change(&gateway, Method::DELETE, "?key=k1&key=k2", &Value::Null)
        .await
        .expect(400);
    assert_eq!(gateway.admin_json("/api/v1/revocations").await["total"], 0);
    change(&gateway, Method::DELETE, "?key=k1", &Value::Null)
        .await
        .expect(404);
    gateway.get("/any/echo").key("key-1").send().await.expect(200);
}

#[tokio::test]
async fn what_cannot_be_written_holds_shows_and_is_written_when_it_can_be() {
    let (_fleet, gateway) = start("revocations: []").await;
    // A link is read, and never written through.
    let (path, real) = (gateway.path("revoked.yaml"), gateway.path("real.yaml"));
    std::fs::rename(&path, &real).expect("a file of ours");
    std::os::unix::fs::symlink(&real, &path).expect("a link of ours");
    let added = change(&gateway, Method::POST, "", &json!({ "key": "k1" })).await;
    assert_eq!(
        (added.status, &added.json()["reason"]),
        (500, &json!("revocation_not_written")),
        "{added:?}"
    );
    let status_of = async || gateway.get("/any/echo").key("key-1").send().await.status;
    assert_eq!(status_of().await, 401);
    assert_eq!(gateway.metric("gateway_revocations_unwritten", &[]).await, 1.0);
    let status = gateway.admin_json("/api/v1/status").await["revocations"].clone();
    assert_eq!(status["not_in_file"], 1, "{status:#}");
    let error = status["last_write_error"]["error"].as_str();
    assert!(error.is_some_and(|error| error.contains("symbolic link")), "{status:#}");

    std::fs::rename(&real, &path).expect("a file of ours");
    eventually(SOON, "it is written", || async {
        let written = std::fs::read_to_string(&path).expect("a file of ours");
        written.contains("key: k1").then_some(())
    })
    .await;
    gateway.metric_becomes("gateway_revocations_unwritten", &[], 0.0).await;
    assert_eq!(status_of().await, 401);
    let status = gateway.admin_json("/api/v1/status").await["revocations"].clone();
    assert_eq!(status["last_write_error"], Value::Null, "{status:#}");
}

#[tokio::test]
async fn an_editor_with_an_old_version_takes_nothing_out_that_was_just_added() {
    let (_fleet, gateway) = start("revocations: []").await;
    post(&gateway, json!({ "key": "k1" })).await;
    std::fs::write(gateway.path("revoked.yaml"), "revocations: [{ key: k2 }]").expect("a file of ours");
    eventually(SOON, "both are in the file", || async {
        let written = std::fs::read_to_string(gateway.path("revoked.yaml")).expect("a file of ours");
        (written.contains("key: k1") && written.contains("key: k2")).then_some(())
    })
    .await;
    for key in ["key-1", "key-2"] {
        let refused = gateway.get("/any/echo").key(key).send().await;
        refused.refusal(401, "credentials_invalid");
    }
}

/// Without a file what is revoked is good again after a restart, which nobody finds out too late.
#[tokio::test]
async fn that_a_list_dies_with_its_process_is_said_beforehand_and_with_each_change() {
    const WORDS: &str = "good again";
    let callers = [
        "api_keys: { file: keys.yaml }",
        "basic: { file: users.yaml }",
        "jwt: { main: { issuer: \"https://id.test\", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256], \
         tenant: /tenant } }",
    ];
    let setup_of = |admin: &str, callers: &str| {
        let top = format!(
            "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\nadmin: {{ address: \"127.0.0.1:0\"{admin} }}\n\
             callers: {{ {callers} }}\n"
        );
        let route = "{ match: { path: /hello }, access: { any_of: [anonymous] }, respond: { body: hello } }";
        let config = Config::with(top).route("hello", route).to_string();
        Setup::new(config)
            .file("keys.yaml", key_file(&[KeyLine::new("k1", "acme", "key-1")]))
            .file("users.yaml", "users: []")
            .file("jwks.json", keys::JWKS)
            .file("admin.token", TOKEN)
            .file("revoked.yaml", "revocations: []")
    };
    let token = ", token_file: admin.token";
    let open = "anonymous: { by: client_address }";
    for kind in callers {
        for (admin, more, warns) in [
            (token, "", true),
            (token, ", revocations: { file: revoked.yaml }", false),
            ("", "", false),
        ] {
            let told = cli(&["check"], &setup_of(admin, &format!("{open}, {kind}{more}")));
            assert_eq!(told.code, Some(0), "{kind}{more}: {told:?}");
            let output = told.stdout + &told.stderr;
            assert_eq!(
                output.contains("callers.revocations"),
                warns,
                "{kind}{more}{admin}: {output}"
            );
        }
    }
    let told = cli(&["check"], &setup_of(token, open));
    assert!(
        !(told.stdout + &told.stderr).contains("callers.revocations"),
        "nothing can be revoked"
    );

    for (more, is_lost) in [("", true), (", revocations: { file: revoked.yaml }", false)] {
        let gateway = setup_of(token, &format!("{open}, {}{more}", callers[0])).start().await;
        let check = |said: &Value| {
            let note = said["note"].as_str();
            assert_eq!(note.is_some_and(|note| note.contains(WORDS)), is_lost, "{said:#}");
        };
        check(&post(&gateway, json!({ "key": "k1" })).await);
        check(&gateway.admin_json("/api/v1/revocations").await);
        check(&gateway.admin_json("/api/v1/status").await["revocations"]);
        check(
            &change(&gateway, Method::DELETE, "?key=k1", &Value::Null)
                .await
                .expect(200)
                .json(),
        );
    }
}
