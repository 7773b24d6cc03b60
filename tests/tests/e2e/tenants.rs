//! Checks tenants and keys that change while the gateway runs, through the admin API and in their files.
//!
//! A change is in force for the next request, and the file differs by the lines that a person would have written.

use std::collections::BTreeMap;
use std::fs;

use fixtures::api_keys;
use http::Method;
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Answer, Client, Gateway, Setup, cli, eventually};

use crate::SOON;
use crate::described::Described;

pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

pub(crate) const TENANTS: &str = "\
# Our customers.
tenants:
  # The first one.
  acme: # since 2019
    tier: 'basic'   # by contract
    labels: { owner: ada }

  globex: { tier: free }
# The end.
";

pub(crate) const KEYS: &str = "\
# Keys of our customers.
keys:
  - id: acme-1
    tenant: acme   # the only one
    digest: \"sha256:DIGEST\"
# The end.
";

/// Returns the hexadecimal SHA-256 of a key or token.
pub(crate) fn digest(text: &str) -> String {
    api_keys::digest(text).trim_start_matches("sha256:").to_owned()
}

pub(crate) fn config() -> Config {
    Config::with(
        r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
workers: 4
overload: off
tiers:
  free: { rate: 1/h, burst: 2, in_flight: off }
  basic: { rate: 1/h, burst: 5 }
  open: { rate: 1000000/s, burst: 1000000, in_flight: off }
callers: { api_keys: { file: keys.yaml }, revocations: { file: revoked.yaml } }
tenants: { file: tenants.yaml }
"#,
    )
    .route("r", "{ match: { path: /r }, respond: { status: 204 } }")
}

pub(crate) fn setup() -> Setup {
    Setup::new(config().to_string())
        .file("keys.yaml", KEYS.replace("DIGEST", &digest("key-acme")))
        .file("tenants.yaml", TENANTS)
        .file("revoked.yaml", "# None yet.\nrevocations: []\n")
        .file("admin.token", TOKEN)
}

/// Sends a change with the token of the config. `more` are further fields.
pub(crate) async fn ask(gateway: &Gateway, method: &str, path: &str, body: Value, more: &[(&str, &str)]) -> Answer {
    let method: Method = method.parse().expect("a method");
    let mut ask = Client::to(gateway.admin_address()).ask(method, path).bearer(TOKEN);
    for (name, value) in more {
        ask = ask.header(name, value);
    }
    if !body.is_null() {
        ask = ask.body(body.to_string());
    }
    ask.send().await
}

/// Sends a change that succeeds, and checks its answer against the document of the API.
pub(crate) async fn change(gateway: &Gateway, method: &str, path: &str, body: Value) -> Value {
    let answer = ask(gateway, method, path, body, &[]).await;
    assert!(matches!(answer.status, 200 | 201), "{method} {path}: {}", answer.text());
    let described = Described::of(gateway).await;
    described.check(&method.to_lowercase(), path, &answer);
    answer.json()
}

pub(crate) fn text(gateway: &Gateway, name: &str) -> String {
    fs::read_to_string(gateway.path(name)).expect("a file of ours")
}

pub(crate) async fn status(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("/r").key(key).send().await.status
}

/// Number of requests that are admitted before one is refused.
async fn admitted(gateway: &Gateway, key: &str) -> usize {
    let mut count = 0;
    while status(gateway, key).await == 204 {
        count += 1;
        assert!(count < 100, "not limited");
    }
    count
}

#[tokio::test]
async fn a_tenant_and_a_key_are_made_changed_and_stopped_without_a_reload() {
    let gateway = setup().start().await;
    let made = change(&gateway, "PUT", "/api/v1/tenants/initech", json!({ "tier": "free" })).await;
    assert_eq!(made["diff"], "+  initech: { tier: free }\n");
    let key = change(
        &gateway,
        "POST",
        "/api/v1/tenants/initech/keys",
        json!({ "label": "first" }),
    )
    .await;
    let secret = key["secret"].as_str().expect("it is shown once").to_owned();
    assert!(secret.starts_with("gw_initech-"), "{key}");
    // Connections enough that every worker has some.
    let clients: Vec<_> = (0..12).map(|_| gateway.another_client()).collect();
    let mut statuses = BTreeMap::new();
    for client in &clients {
        let status = client.get("/r").key(&secret).send().await.status;
        *statuses.entry(status).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(204, 2), (429, 10)]), "the burst of free");

    // The new burst is 5, and what was taken stays taken.
    change(&gateway, "PATCH", "/api/v1/tenants/initech", json!({ "tier": "basic" })).await;
    assert_eq!(admitted(&gateway, &secret).await, 5);
    change(
        &gateway,
        "PATCH",
        "/api/v1/tenants/initech",
        json!({ "tier": "open", "quotas": { "monthly": { "limit": 3, "every": "month" } } }),
    )
    .await;
    assert_eq!(admitted(&gateway, &secret).await, 3);
    let refused = gateway.get("/r").key(&secret).send().await;
    refused.refusal(429, "quota_exhausted");
    change(&gateway, "PATCH", "/api/v1/tenants/initech", json!({ "quotas": null })).await;
    assert_eq!(status(&gateway, &secret).await, 204);

    change(
        &gateway,
        "PATCH",
        "/api/v1/tenants/initech",
        json!({ "disabled": true }),
    )
    .await;
    for client in &clients {
        client
            .get("/r")
            .key(&secret)
            .send()
            .await
            .refusal(403, "tenant_disabled");
    }
    change(
        &gateway,
        "PATCH",
        "/api/v1/tenants/initech",
        json!({ "disabled": false }),
    )
    .await;
    assert_eq!(status(&gateway, &secret).await, 204);
    let id = key["id"].as_str().expect("it has an id");
    let of_key = format!("/api/v1/keys/{id}");
    change(&gateway, "PATCH", &of_key, json!({ "disabled": true })).await;
    gateway
        .get("/r")
        .key(&secret)
        .send()
        .await
        .refusal(401, "credentials_invalid");
    change(&gateway, "PATCH", &of_key, json!({ "disabled": null })).await;
    assert_eq!(status(&gateway, &secret).await, 204);
    change(&gateway, "DELETE", &of_key, Value::Null).await;
    assert_eq!(status(&gateway, &secret).await, 401);
    change(&gateway, "DELETE", "/api/v1/tenants/initech", Value::Null).await;
    assert_eq!(text(&gateway, "tenants.yaml"), TENANTS);
    assert_eq!(text(&gateway, "keys.yaml"), KEYS.replace("DIGEST", &digest("key-acme")));
    let log = gateway.log();
    assert!(!log.contains(&secret) && !log.contains("sha256:"), "{log}");
    let audit: Vec<_> = log.lines().filter(|line| line.contains("audit:")).collect();
    assert_eq!(audit.len(), 11, "{audit:#?}");
    assert!(
        audit[0].contains("admin.token_file") && audit[0].contains("initech"),
        "{audit:#?}"
    );
}

#[tokio::test]
async fn the_files_differ_by_what_a_person_would_have_written() {
    let gateway = setup().start().await;
    let keys = KEYS.replace("DIGEST", &digest("key-acme"));
    change(
        &gateway,
        "PATCH",
        "/api/v1/tenants/acme",
        json!({ "tier": "open", "in_flight": 7 }),
    )
    .await;
    let expected = TENANTS
        .replace("'basic'", "open")
        .replace("{ owner: ada }\n", "{ owner: ada }\n    in_flight: 7\n");
    assert_eq!(text(&gateway, "tenants.yaml"), expected);
    change(
        &gateway,
        "PATCH",
        "/api/v1/keys/acme-1",
        json!({ "label": "main", "scopes": ["a", "b c"] }),
    )
    .await;
    let line = format!("    digest: \"sha256:{}\"\n", digest("key-acme"));
    let expected = keys.replace(&line, &format!("{line}    scopes: [a, \"b c\"]\n    label: main\n"));
    assert_eq!(text(&gateway, "keys.yaml"), expected);
    let tried = change(&gateway, "DELETE", "/api/v1/keys/acme-1?dry_run", Value::Null).await;
    assert_eq!(tried["dry_run"], true);
    assert!(
        tried["diff"]
            .as_str()
            .is_some_and(|diff| diff.contains("-  - id: acme-1\n") && diff.ends_with("+keys: []\n")),
        "{tried}"
    );
    assert_eq!(text(&gateway, "keys.yaml"), expected);
    assert_eq!(status(&gateway, "key-acme").await, 204);

    // A revocation keeps the comments as well.
    let revoked = json!({ "key": "acme-1", "reason": "lost" });
    ask(&gateway, "POST", "/api/v1/revocations", revoked, &[])
        .await
        .expect(200);
    assert_eq!(
        text(&gateway, "revoked.yaml"),
        "# None yet.\nrevocations:\n  - { key: acme-1, reason: lost }\n"
    );
    ask(&gateway, "DELETE", "/api/v1/revocations?key=acme-1", Value::Null, &[])
        .await
        .expect(200);
    assert_eq!(text(&gateway, "revoked.yaml"), "# None yet.\nrevocations: []\n");
    let names: Vec<_> = fs::read_dir(gateway.path("."))
        .expect("a folder of ours")
        .map(|entry| entry.expect("a file of ours").file_name().into_string().expect("ASCII"))
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert_eq!(names, Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_used_is_told_all_at_once_and_changes_nothing() {
    let gateway = setup().start().await;
    let described = Described::of(&gateway).await;
    let check = async |method: &str, path: &str, body: Value, more: &[(&str, &str)], status: u16, reason: &str| {
        let answer = ask(&gateway, method, path, body, more).await;
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["reason"]),
            (status, &json!(reason)),
            "{method} {path}: {problem}"
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        described.check_problem(&problem);
        problem
    };
    let acme = "/api/v1/tenants/acme";
    let many = json!({ "tier": "gold", "rate": "fast", "burst": 0, "nonsense": 1 });
    let problem = check("PUT", acme, many, &[], 422, "invalid").await;
    assert!(
        problem["errors"].as_array().is_some_and(|errors| errors.len() == 4),
        "{problem}"
    );
    let problem = check("PUT", acme, json!({ "tier": "gold" }), &[], 422, "invalid").await;
    assert_eq!(problem["errors"], json!(["`tier`: there is no tier `gold`"]));
    check("PUT", acme, json!([1]), &[], 400, "bad_value").await;
    check("PATCH", "/api/v1/tenants/nobody", json!({}), &[], 404, "no_such_entry").await;
    check(
        "DELETE",
        "/api/v1/tenants/nobody",
        Value::Null,
        &[],
        404,
        "no_such_entry",
    )
    .await;
    check("PUT", "/api/v1/tenants/anonymous", json!({}), &[], 400, "bad_value").await;
    check("PUT", &format!("{acme}?dry"), json!({}), &[], 400, "bad_value").await;
    check(
        "POST",
        "/api/v1/tenants/nobody/keys",
        json!({}),
        &[],
        404,
        "no_such_entry",
    )
    .await;
    let keys = "/api/v1/tenants/acme/keys";
    let problem = check(
        "POST",
        keys,
        json!({ "digest": "x", "expires": "soon", "tier": 1 }),
        &[],
        422,
        "invalid",
    )
    .await;
    assert!(
        problem["errors"].as_array().is_some_and(|errors| errors.len() >= 2),
        "{problem}"
    );
    check("POST", keys, json!({ "id": "acme-1" }), &[], 422, "invalid").await;
    check("POST", keys, json!({ "id": "a b" }), &[], 400, "bad_value").await;
    let long = json!({ "label": "x".repeat(70_000) });
    check("POST", keys, long, &[], 400, "bad_value").await;
    check(
        "PATCH",
        acme,
        json!({}),
        &[("if-match", "\"old\"")],
        412,
        "precondition_failed",
    )
    .await;
    check(
        "PUT",
        acme,
        json!({}),
        &[("if-none-match", "*")],
        412,
        "precondition_failed",
    )
    .await;

    let shown = ask(&gateway, "GET", acme, Value::Null, &[]).await.expect(200);
    described.check("get", acme, &shown);
    let tag = shown.header("etag").expect("an entry has a tag").to_owned();
    let body = json!({ "tier": "open" });
    let first = ask(&gateway, "PATCH", acme, body.clone(), &[("if-match", &tag)])
        .await
        .expect(200);
    assert_ne!(first.header("etag"), Some(&*tag));
    check("PATCH", acme, body, &[("if-match", &tag)], 412, "precondition_failed").await;
    let listed = ask(&gateway, "GET", "/api/v1/tenants?q=glob", Value::Null, &[])
        .await
        .expect(200);
    described.check("get", "/api/v1/tenants", &listed);
    assert_eq!(listed.json()["tenants"][0]["name"], "globex");
    let listed = ask(&gateway, "GET", "/api/v1/keys", Value::Null, &[]).await.expect(200);
    described.check("get", "/api/v1/keys", &listed);
    assert_eq!(text(&gateway, "tenants.yaml"), TENANTS.replace("'basic'", "open"));
}

#[tokio::test]
async fn a_token_may_do_what_its_roles_say() {
    const READ: &str = "a-token-that-reads-only";
    const SELLS: &str = "a-token-that-sells-keys";
    let config = config()
        .to_string()
        .replace("token_file: admin.token", "tokens_file: tokens.yaml");
    let file = |more: &str| {
        format!(
            "tokens:\n  - {{ name: viewer, roles: [read], digest: \"sha256:{}\" }}\n  - {{ name: shop, roles: [keys], digest: \"sha256:{}\"{more} }}\n  - {{ name: root, roles: [all], digest: \"sha256:{}\" }}\n",
            digest(READ),
            digest(SELLS),
            digest(TOKEN)
        )
    };
    let gateway = Setup::new(config)
        .file("keys.yaml", KEYS.replace("DIGEST", &digest("key-acme")))
        .file("tenants.yaml", TENANTS)
        .file("revoked.yaml", "revocations: []\n")
        .file("tokens.yaml", file(""))
        .start();
    let gateway = gateway.await;
    let send = async |token: &str, method: Method, path: &str| {
        let client = Client::to(gateway.admin_address());
        let mut ask = client.ask(method.clone(), path).bearer(token);
        if method == Method::PATCH {
            ask = ask.body("{}");
        }
        ask.send().await.status
    };
    let acme = "/api/v1/tenants/acme";
    for (token, get, patch, reload) in [
        ("wrong-token-wrong-token", 401, 401, 401),
        (READ, 200, 403, 403),
        (SELLS, 200, 200, 403),
        (TOKEN, 200, 200, 200),
    ] {
        assert_eq!(send(token, Method::GET, acme).await, get, "{token}");
        assert_eq!(send(token, Method::PATCH, acme).await, patch, "{token}");
        assert_eq!(send(token, Method::POST, "/api/v1/reload").await, reload, "{token}");
    }
    assert_eq!(gateway.admin("/api/v1/status").send().await.status, 401);
    fs::write(gateway.path("tokens.yaml"), file(", disabled: true")).expect("a file of ours");
    eventually(SOON, "the token is refused", || async {
        (send(SELLS, Method::GET, acme).await == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_file_is_followed_and_a_bad_one_changes_nothing() {
    let gateway = setup().start().await;
    assert_eq!(admitted(&gateway, "key-acme").await, 5);
    fs::write(gateway.path("tenants.yaml"), TENANTS.replace("'basic'", "open")).expect("a file of ours");
    eventually(SOON, "the tenant has another tier", || async {
        (status(&gateway, "key-acme").await == 204).then_some(())
    })
    .await;
    fs::write(gateway.path("tenants.yaml"), TENANTS.replace("'basic'", "gold")).expect("a file of ours");
    eventually(SOON, "the mistake is told", || async {
        let log = gateway.log();
        (log.contains("tenants.yaml:5") && log.contains("there is no tier `gold`")).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, "key-acme").await, 204);
    // A change would undo what the file says.
    let refused = ask(&gateway, "PATCH", "/api/v1/tenants/acme", json!({ "burst": 9 }), &[]).await;
    assert_eq!(refused.json()["reason"], "file_not_in_force");
    fs::write(gateway.path("tenants.yaml"), TENANTS).expect("a file of ours");
    eventually(SOON, "changes are taken again", || async {
        let answer = ask(&gateway, "PATCH", "/api/v1/tenants/acme", json!({ "burst": 9 }), &[]).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn mistakes_of_the_file_are_shown_with_their_lines() {
    let setup = setup()
        .file("tenants.yaml", "tenants:\n  acme: { tier: gold }\n  acme: {}\n  x: { rate: fast, labels: { a: [] } }\n  initech: { tier: free }\n")
        .file("gateway.yaml", config().top("").to_string().replace("{ file: tenants.yaml }", "{ file: tenants.yaml, initech: {} }"));
    let checked = cli(&["check"], &setup);
    assert_eq!(checked.code, Some(78), "{checked:?}");
    for part in ["tenants.yaml:3", "written twice", "tenants.yaml:4", "fast"] {
        assert!(checked.stderr.contains(part), "{part}: {}", checked.stderr);
    }
    let setup = setup.file(
        "tenants.yaml",
        "tenants:\n  globex: { tier: gold }\n  initech: { tier: free }\n",
    );
    let checked = cli(&["check"], &setup);
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert!(
        checked.stderr.contains("tenants.yaml:3") && checked.stderr.contains("stands in the config"),
        "{}",
        checked.stderr
    );
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().expect("there is room");
    for (name, mebibytes) in [("keys.yaml", 16), ("revoked.yaml", 16), ("tenants.yaml", 512)] {
        // Longer by one byte; the file has holes, so it takes no room on the disk.
        let path = folder.path().join(name);
        let large = fs::File::create(&path).expect("a folder of ours");
        large.set_len((mebibytes << 20) + 1).expect("a file of ours");
        let config = config().to_string().replace(name, &path.display().to_string());
        let setup = Setup::new(config)
            .file("keys.yaml", "keys: []\n")
            .file("tenants.yaml", TENANTS)
            .file("revoked.yaml", "revocations: []\n")
            .file("admin.token", TOKEN);
        let checked = cli(&["check"], &setup);
        assert_eq!(checked.code, Some(78), "{name}: {checked:?}");
        for part in [
            name,
            "gateway.yaml:",
            &format!("it is larger than {} bytes", mebibytes << 20),
        ] {
            assert!(checked.stderr.contains(part), "{name}, {part}: {}", checked.stderr);
        }
    }
}

#[tokio::test]
async fn what_decides_is_told_with_its_line_in_the_file_of_tenants() {
    let gateway = setup().start().await;
    let terms = json!({ "burst": 1, "quotas": { "daily": { "limit": 9, "every": "day", "counted": "local" } } });
    change(&gateway, "PATCH", "/api/v1/tenants/acme", terms).await;
    let file = text(&gateway, "tenants.yaml");
    let line = |part: &str| file[..file.find(part).expect("it is written")].matches('\n').count() + 1;
    let is_at = |shown: &Value, setting: &str, part: &str| {
        let place = (&shown["setting"], &shown["at"]["line"]);
        assert_eq!(place, (&json!(setting), &json!(line(part))), "{shown}");
        let file = shown["at"]["file"].as_str().expect("a file");
        assert!(file.ends_with("tenants.yaml"), "{shown}");
    };
    assert_eq!(admitted(&gateway, "key-acme").await, 1);
    eventually(SOON, "the refusal is kept", || async {
        let kept = gateway.admin_json("/api/v1/rejections").await;
        kept["rejections"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
            .then_some(())
    })
    .await;
    for page in ["/api/v1/rejections", "/api/v1/tenants/acme"] {
        let shown = gateway.admin_json(page).await;
        is_at(&shown["rejections"][0]["decided_by"], "tenants.acme.rate", "burst: 1");
    }
    let groups = gateway.admin_json("/api/v1/rejections/groups").await;
    is_at(&groups["groups"][0]["decided_by"], "tenants.acme.rate", "burst: 1");
    let shown = gateway.admin_json("/api/v1/tenants/acme").await;
    let limits = shown["limits"].as_array().expect("a list");
    let quota = limits.iter().find(|limit| limit["name"] == "daily").expect("it is one");
    is_at(quota, "tenants.acme.quotas.daily", "daily:");
    assert_eq!(shown["at"]["line"], line("acme:"));
    assert_eq!(shown["record"]["quotas"]["daily"]["counted"], "local");

    let explained = gateway.admin_json("/api/v1/explain?url=/r&tenant=acme").await;
    is_at(&explained["outcome"], "tenants.acme.rate", "burst: 1");
    let steps = explained["steps"].as_array().expect("a list");
    let of = |topic: &str| {
        steps
            .iter()
            .find(|step| step["topic"] == topic)
            .expect("it is explained")
    };
    is_at(of("tier"), "tenants.acme.tier", "tier: 'basic'");
    // Without a store, nothing is counted in one.
    let terms = json!({ "quotas": { "weekly": { "limit": 9, "every": "week", "counted": "exact" } } });
    let refused = ask(&gateway, "PATCH", "/api/v1/tenants/acme", terms, &[]).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(
        refused.text().contains("there is no `limits_store`"),
        "{}",
        refused.text()
    );
    let terms = json!({ "disabled": true });
    change(&gateway, "PATCH", "/api/v1/tenants/globex", terms).await;
    let file = text(&gateway, "tenants.yaml");
    let explained = gateway.admin_json("/api/v1/explain?url=/r&tenant=globex").await;
    let expected = file[..file.find("globex").expect("it is written")]
        .matches('\n')
        .count()
        + 1;
    let outcome = &explained["outcome"];
    assert_eq!(
        (&outcome["setting"], &outcome["at"]["line"]),
        (&json!("tenants.globex.disabled"), &json!(expected))
    );
}
