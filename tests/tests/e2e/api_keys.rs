//! Checks API keys during their whole life: a command issues them, they are read from a file that may change at any
//! time, and callers send them where the config allows.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, Setup, cli, cli_reading, eventually};

use crate::{SOON, one_backend};

const SUCCESSFUL: &str = "gateway_config_last_reload_successful";

fn top(more: &str) -> String {
    format!(
        "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         tiers: {{ trickle: {{ rate: 1/h, burst: 3 }}, open: {{ rate: 1000000/s, burst: 1000000 }} }}\n\
         default_tier: open\n\
         callers: {{ failures: off, api_keys: {{ file: keys.yaml{more} }} }}\n"
    )
}

async fn start(keys: &str, more: &str) -> (Fleet, Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::with(top(more))
        .backend("api", api.address(), "")
        .route("api", "{ match: { path: \"/{*rest}\" }, backend: api }");
    let gateway = Setup::new(config.to_string()).file("keys.yaml", keys).start().await;
    (fleet, api, gateway)
}

fn file(keys: &[(&str, &str)]) -> String {
    let lines: Vec<_> = keys.iter().map(|(id, key)| KeyLine::new(id, "acme", key)).collect();
    key_file(&lines)
}

fn write(gateway: &Gateway, keys: impl AsRef<[u8]>) {
    std::fs::write(gateway.path("keys.yaml"), keys).expect("a file of ours");
}

async fn becomes(gateway: &Gateway, key: &str, status: u16) {
    eventually(SOON, &format!("{key} gets {status}"), || async {
        (gateway.get("/echo").key(key).send().await.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_come_and_go_with_their_file() {
    let (_fleet, _api, gateway) = start(&file(&[("a", "key-a"), ("b", "key-b")]), "").await;
    gateway.get("/echo").key("key-a").send().await.expect(200);
    write(&gateway, file(&[("b", "key-b"), ("c", "key-c")]));
    becomes(&gateway, "key-a", 401).await;
    gateway.get("/echo").key("key-b").send().await.expect(200);
    gateway.get("/echo").key("key-c").send().await.expect(200);
}

#[tokio::test]
async fn a_key_that_the_command_adds_to_the_file_is_admitted() {
    let (_fleet, _api, gateway) = start(&file(&[("a", "key-a")]), "").await;
    let add = |name: &str| {
        let path = gateway.path(name).display().to_string();
        let command = [
            "key",
            "new",
            "--tenant",
            "acme",
            "--scopes",
            "a.read,a.write",
            "--into",
            &path,
        ];
        cli(&command, &Setup::new(""))
    };
    let mut made = Vec::new();
    for _ in 0..2 {
        let told = add("keys.yaml");
        assert_eq!((told.code, &*told.stderr), (Some(0), ""), "{told:?}");
        made.push(told.stdout.trim().to_owned());
    }
    for key in &made {
        becomes(&gateway, key, 200).await;
    }
    gateway.get("/echo").key("key-a").send().await.expect(200);
    let text = std::fs::read_to_string(gateway.path("keys.yaml")).expect("it is there");
    assert!(text.contains("scopes: [a.read, a.write]"), "{text}");
    assert!(
        !made.iter().any(|key| text.contains(key.as_str())),
        "digests only: {text}"
    );

    assert_eq!(add("new.yaml").code, Some(0));
    let mode = std::fs::metadata(gateway.path("new.yaml"))
        .expect("it is created")
        .permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);

    std::fs::write(gateway.path("broken.yaml"), "keys: [").expect("a file of ours");
    let told = add("broken.yaml");
    assert_eq!(
        (told.code, &*told.stdout),
        (Some(1), ""),
        "no key without its line: {told:?}"
    );
    let text = std::fs::read_to_string(gateway.path("broken.yaml")).expect("it is there");
    assert_eq!(text, "keys: [");
}

#[tokio::test]
async fn a_bad_key_file_changes_nothing_and_shows() {
    let (_fleet, _api, gateway) = start(&file(&[("a", "key-a")]), "").await;
    for bad in ["keys: [{ id: oops }]", "keys: [", ""] {
        write(&gateway, bad);
        gateway.metric_becomes(SUCCESSFUL, &[], 0.0).await;
        gateway.get("/echo").key("key-a").send().await.expect(200);
        let status = gateway.admin_json("/api/v1/status").await.to_string();
        assert!(status.contains("keys.yaml"), "{status}");
        write(&gateway, file(&[("a", "key-a")]));
        gateway.metric_becomes(SUCCESSFUL, &[], 1.0).await;
    }
    let log = gateway.log();
    assert!(
        log.contains("`keys[0]` needs the key `tenant`") && log.contains("keys.yaml:1:"),
        "{log}"
    );
}

#[tokio::test]
async fn a_changed_key_file_does_not_put_half_a_config_in_force() {
    let (_fleet, _api, gateway) = start(&file(&[("a", "key-a")]), "").await;
    gateway.rewrite_config("listeners: { half: written");
    write(&gateway, file(&[("b", "key-b")]));
    becomes(&gateway, "key-b", 200).await;
    assert_eq!(gateway.metric(SUCCESSFUL, &[]).await, 1.0);
    gateway.signal(tests::Signal::Hup);
    gateway.metric_becomes(SUCCESSFUL, &[], 0.0).await;
    write(&gateway, file(&[("c", "key-c")]));
    becomes(&gateway, "key-c", 200).await;
    // The new config is still not in use.
    gateway.metric_becomes(SUCCESSFUL, &[], 0.0).await;
}

#[tokio::test]
async fn what_a_tenant_has_used_survives_its_keys() {
    let line = |id, key| key_file(&[KeyLine::new(id, "acme", key).tier("trickle")]);
    let (_fleet, _api, gateway) = start(&line("a", "key-a"), "").await;
    for _ in 0..3 {
        gateway.get("/echo").key("key-a").send().await.expect(200);
    }
    write(&gateway, line("b", "key-b"));
    becomes(&gateway, "key-a", 401).await;
    let refused = gateway.get("/echo").key("key-b").send().await;
    refused.refusal(429, "rate_limited");
}

#[tokio::test]
async fn a_key_may_come_where_the_config_says() {
    let more = ", in: [authorization, query], query: token";
    let (_fleet, api, gateway) = start(&file(&[("a", "key-a")]), more).await;
    for scheme in ["ApiKey", "Bearer", "bearer"] {
        let ask = gateway.get("/echo").header("authorization", &format!("{scheme} key-a"));
        let answer = ask.send().await.expect(200);
        assert_eq!(answer.echoed("authorization"), None, "{scheme}");
        assert_eq!(answer.echoed("x-api-key"), None, "{scheme}");
    }
    let elsewhere = gateway.get("/echo").key("key-a").send().await;
    let told = elsewhere.refusal(401, "credentials_missing")["detail"].to_string();
    assert!(told.contains("authorization") && !told.contains("x-api-key"), "{told}");
    let twice = gateway.get("/echo?token=key-a").header("authorization", "ApiKey key-a");
    twice.send().await.refusal(401, "credentials_invalid");

    api.take_requests();
    gateway.get("/echo?a=b&token=key-a&c=d%20e").send().await.expect(200);
    let request = api.take_requests().pop().expect("it came");
    assert_eq!(request.target, "/echo?a=b&c=d%20e");
    gateway
        .get("/echo?token=mistyped")
        .send()
        .await
        .refusal(401, "credentials_invalid");
    eventually(SOON, "the log has it all", || async {
        gateway.stdout().contains("key_unknown").then_some(())
    })
    .await;
    let told = gateway.stdout() + &gateway.log() + &gateway.admin_json("/api/v1/rejections").await.to_string();
    assert!(
        !told.contains("key-a") && !told.contains("mistyped"),
        "a key is told: {told}"
    );
}

#[tokio::test]
async fn every_failed_check_has_its_own_word_in_the_log_alone() {
    let keys = key_file(&[
        KeyLine::new("old", "acme", "key-old").with("expires", "2020-01-01"),
        KeyLine::new("early", "acme", "key-early").with("not_before", "2199-01-01"),
        KeyLine::new("off", "acme", "key-off").with("disabled", "true"),
    ]);
    let (_fleet, _api, gateway) = start(&keys, "").await;
    for (key, reason, word) in [
        ("nobody's", "credentials_invalid", "key_unknown"),
        ("gw_acme-1_mistyped", "credentials_invalid", "key_malformed"),
        ("key-old", "credentials_expired", "key_expired"),
        ("key-early", "credentials_invalid", "key_not_before"),
        ("key-off", "credentials_invalid", "key_disabled"),
    ] {
        let refused = gateway.get("/echo").key(key).send().await;
        let problem = refused.refusal(401, reason).to_string();
        assert!(
            !problem.contains(word) && !format!("{refused:?}").contains(word),
            "{refused:?}"
        );
        eventually(SOON, &format!("{word} in the log"), || async {
            gateway.stdout().contains(word).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_new_key_works_with_the_line_that_was_printed() {
    let made = cli(
        &[
            "key",
            "new",
            "--tenant=acme",
            "--tier=premium",
            "--scopes=a,b",
            "--expires=90d",
        ],
        &Setup::new(""),
    );
    assert_eq!(made.code, Some(0), "{made:?}");
    let key = made.stdout.strip_suffix('\n').expect("one line");
    assert!(key.starts_with("gw_acme-"), "{key}");
    assert!(!made.stderr.contains(key), "the key is told twice: {made:?}");
    let (_fleet, _api, gateway) = start(&format!("keys:\n{}", made.stderr), "").await;
    let answer = gateway.get("/echo").key(key).send().await.expect(200);
    assert_eq!(answer.echoed("x-tenant-id").as_deref(), Some("acme"));
    assert_eq!(answer.echoed("x-tenant-tier").as_deref(), Some("premium"));

    let hashed = cli_reading(&made.stdout, &["key", "hash"], &Setup::new(""));
    assert_eq!(hashed.code, Some(0), "{hashed:?}");
    assert!(made.stderr.contains(hashed.stdout.trim()), "{hashed:?}");
    let mistyped = cli_reading(&key[..key.len() - 1], &["key", "hash"], &Setup::new(""));
    assert_eq!((mistyped.code, &*mistyped.stdout), (Some(1), ""), "{mistyped:?}");
    assert!(!mistyped.stderr.contains(&key[10..20]), "{mistyped:?}");
    let wrong = cli(&["key", "new", "--tenant=anonymous"], &Setup::new(""));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[tokio::test]
async fn without_watch_a_changed_file_waits_for_the_signal() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::with(format!("watch: false\n{}", top("")))
        .backend("api", api.address(), "")
        .route("api", "{ match: { path: \"/{*rest}\" }, backend: api }")
        .to_string();
    let setup = Setup::new(&config).file("keys.yaml", file(&[("a", "key-a")]));
    let gateway = setup.start().await;
    write(&gateway, file(&[("b", "key-b")]));
    gateway.reload(&config).await;
    gateway.get("/echo").key("key-b").send().await.expect(200);
    let generation = gateway.admin_json("/api/v1/status").await["config"]["generation"].clone();
    assert_eq!(generation, Value::from(2), "one reload, and it was asked for");
}

#[tokio::test]
async fn neither_keys_nor_what_the_gateway_says_reach_a_backend_in_another_spelling() {
    let keys = file(&[("a", "key-a")]);
    for header in ["x-api-key", "x_api_key", "x-partner-key"] {
        let (_fleet, api, gateway) = start(&keys, &format!(", header: {header}")).await;
        let mut ask = gateway.get("/echo").header(header, "key-a");
        let name = header.replace('_', "-");
        let spellings = [name.replace('-', "_"), name.clone(), name.replacen('-', "_", 1)];
        for spelling in spellings.iter().filter(|spelling| *spelling != header) {
            ask = ask.header(spelling, "key-a");
        }
        for ours in [
            "x_request_id",
            "x_tenant_id",
            "x-caller_id",
            "x_attempt",
            "grpc_timeout",
            "x_forwarded_for",
        ] {
            ask = ask.header(ours, "forged");
        }
        ask.header("x_own", "kept").send().await.expect(200);
        let got = &api.requests()[0];
        let odd: Vec<_> = got.headers.iter().filter(|(name, _)| name.contains('_')).collect();
        assert_eq!(odd.len(), 1, "{odd:?}");
        assert_eq!(got.header("x_own"), Some("kept"));
        assert!(!got.headers.iter().any(|(_, value)| value.contains("key-a")), "{got:?}");
    }
}
