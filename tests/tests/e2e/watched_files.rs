//! Checks that every file named in the config takes effect automatically, whatever replaces it, and that no such file
//! keeps the process from reloading or from ending.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::keys;
use http::Method;
use serde_json::Value;
use tests::{Gateway, Setup, Signal, eventually};

use crate::SOON;

const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
callers:
  failures: off
  api_keys: { file: keys.yaml }
  basic: { file: users.yaml }
  jwt:
    main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256], tenant: /tenant }
  revocations: { file: revoked.yaml }
routes: { fixed: { match: { path: /fixed }, respond: { status: 204 } } }
"#;
const TOKEN: &str = "correct-horse-battery-staple";

fn keys(ids: &[&str]) -> String {
    let lines: Vec<_> = ids
        .iter()
        .map(|id| KeyLine::new(id, "acme", &format!("key-{id}")))
        .collect();
    key_file(&lines)
}

async fn start() -> Gateway {
    Setup::new(CONFIG)
        .file("keys.yaml", keys(&["a", "b"]))
        .file("users.yaml", "users: []")
        .file("jwks.json", keys::JWKS)
        .file("revoked.yaml", "revocations: []")
        .file("admin.token", TOKEN)
        .start()
        .await
}

/// Puts another file in its place in one step.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    let fresh = gateway.path(&format!("{name}.fresh"));
    fs::write(&fresh, text).expect("a folder of ours");
    fs::rename(fresh, gateway.path(name)).expect("a file of ours");
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    let made = Command::new("mkfifo").arg(path).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "no FIFO at {}",
        path.display()
    );
}

async fn status_of(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("/fixed").key(key).send().await.status
}

async fn becomes(gateway: &Gateway, key: &str, status: u16) {
    eventually(SOON, &format!("{key} gets {status}"), || async {
        (status_of(gateway, key).await == status).then_some(())
    })
    .await;
}

/// Changes a file many times a second for as long as `meanwhile` takes.
async fn while_changing(gateway: &Gateway, name: &str, text: &str, meanwhile: impl Future<Output = ()>) {
    let changing = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            replace(gateway, name, text);
        }
    };
    tokio::select! {
        () = changing => {}
        () = meanwhile => {}
    }
}

#[tokio::test]
async fn a_file_that_always_changes_holds_up_no_other() {
    let gateway = start().await;
    let cases = [
        ("jwks.json", keys::JWKS),
        ("jwks.json", "{ nonsense"),
        ("users.yaml", "users: []"),
        ("users.yaml", "users: [{"),
        ("revoked.yaml", "revocations: []"),
        ("revoked.yaml", "revocations: ["),
    ];
    for (name, text) in cases {
        while_changing(&gateway, name, text, async {
            replace(&gateway, "keys.yaml", &keys(&["b"]));
            becomes(&gateway, "key-a", 401).await;
            assert_eq!(status_of(&gateway, "key-b").await, 204);
            replace(&gateway, "keys.yaml", &keys(&["a", "b"]));
            becomes(&gateway, "key-a", 204).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_file_that_always_changes_is_read_all_the_same() {
    let gateway = start().await;
    while_changing(&gateway, "keys.yaml", &keys(&["b"]), becomes(&gateway, "key-a", 401)).await;
    while_changing(
        &gateway,
        "revoked.yaml",
        "revocations: [{ key: b }]",
        becomes(&gateway, "key-b", 401),
    )
    .await;
}

#[tokio::test]
async fn what_is_no_file_or_a_bad_one_holds_up_no_other_and_shows() {
    let gateway = start().await;
    for name in ["users.yaml", "jwks.json", "revoked.yaml"] {
        let good = fs::read_to_string(gateway.path(name)).expect("it is there");
        let lies: [(&str, &dyn Fn()); 4] = [
            ("a FIFO", &|| fifo(&gateway.path(name))),
            ("a folder", &|| {
                let _ = fs::remove_file(gateway.path(name));
                fs::create_dir(gateway.path(name)).expect("a folder of ours");
            }),
            ("nothing", &|| {
                let _ = fs::remove_dir(gateway.path(name));
            }),
            ("nonsense", &|| replace(&gateway, name, "{ nonsense")),
        ];
        for (what, lay) in lies {
            lay();
            replace(&gateway, "keys.yaml", &keys(&["b"]));
            becomes(&gateway, "key-a", 401).await;
            replace(&gateway, "keys.yaml", &keys(&["a", "b"]));
            becomes(&gateway, "key-a", 204).await;
            let status = gateway.admin_json("/api/v1/status").await;
            assert!(
                status.to_string().contains(name),
                "{what} in place of {name}: {status:#}"
            );
        }
        replace(&gateway, name, &good);
        eventually(SOON, "all is well again", || async {
            let status = gateway.admin_json("/api/v1/status").await;
            let reloaded = status["config"]["last_reload"]["successful"] == Value::Bool(true);
            let revocations = status["revocations"]["last_error"].is_null();
            (reloaded && revocations).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_fifo_in_place_of_a_file_ends_neither_reloads_nor_the_process() {
    for name in ["gateway.yaml", "keys.yaml", "revoked.yaml", "jwks.json"] {
        let mut gateway = start().await;
        let good = fs::read_to_string(gateway.path(name)).expect("it is there");
        fifo(&gateway.path(name));
        gateway.signal(Signal::Hup);
        gateway
            .metric_becomes("gateway_config_last_reload_successful", &[], 0.0)
            .await;
        let log = gateway.log();
        assert!(log.contains(name) && log.contains("it is a FIFO"), "{name}: {log}");
        fs::remove_file(gateway.path(name)).expect("a file of ours");
        fs::write(gateway.path(name), good).expect("a folder of ours");
        gateway.reload(CONFIG).await;
        fifo(&gateway.path(name));
        gateway.signal(Signal::Hup);
        gateway.signal(Signal::Term);
        assert_eq!(gateway.wait_exit().await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn many_reloads_at_once_share_one_thread_and_keep_no_memory() {
    let gateway = start().await;
    let reload = || {
        tests::Client::to(gateway.admin_address())
            .ask(Method::POST, "/api/v1/reload")
            .bearer(TOKEN)
            .send()
    };
    reload().await.expect(200);
    let threads = || fs::read_dir(format!("/proc/{}/task", gateway.pid())).map_or(0, Iterator::count);
    let (before, threads_before) = (gateway.memory(), threads());
    for _ in 0..10 {
        let all: Vec<_> = (0..100).map(|_| tokio::spawn(reload())).collect();
        gateway.signal(Signal::Hup);
        for answer in all {
            answer.await.expect("no panic").expect(200);
        }
        assert!(
            threads() < threads_before + 8,
            "{} threads, {threads_before} before",
            threads()
        );
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more after 1000 reloads");
}

/// Checks that `--watch` follows the config: rewritten in place, replaced, and behind the links of a ConfigMap.
#[tokio::test]
async fn the_config_itself_is_followed_on_request() {
    const OPEN: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
callers: { anonymous: { by: client_address } }
routes: { fixed: { match: { path: /fixed }, access: { any_of: [anonymous] }, respond: { status: 204 } } }
"#;
    let with = |status: u16| OPEN.replace("status: 204", &format!("status: {status}"));
    let gateway = Setup::new(OPEN).option("--watch").start().await;
    let becomes = async |status: u16| {
        eventually(SOON, &format!("/fixed is {status}"), || async {
            (gateway.get("/fixed").send().await.status == status).then_some(())
        })
        .await;
    };
    gateway.rewrite_config(with(210));
    becomes(210).await;
    fs::write(gateway.path("gateway.yaml"), with(211)).expect("a file of ours");
    becomes(211).await;

    gateway.rewrite_config(with(212).replace("respond", "repsond"));
    eventually(SOON, "the mistake is told", || async {
        gateway.log().contains("has no key `repsond`").then_some(())
    })
    .await;
    assert_eq!(gateway.get("/fixed").send().await.status, 211);
    assert_eq!(gateway.log().matches("has no key `repsond`").count(), 1);
    // A file that is gone is no config.
    fs::remove_file(gateway.path("gateway.yaml")).expect("a file of ours");

    let version = |name: &str, status: u16| {
        fs::create_dir(gateway.path(name)).expect("a folder of ours");
        fs::write(gateway.path(name).join("gateway.yaml"), with(status)).expect("a folder of ours");
        symlink(name, gateway.path("..fresh")).expect("a folder of ours");
        fs::rename(gateway.path("..fresh"), gateway.path("..data")).expect("a link of ours");
    };
    version("..1", 213);
    symlink("..data/gateway.yaml", gateway.path("gateway.yaml")).expect("a folder of ours");
    becomes(213).await;
    version("..2", 214);
    becomes(214).await;
}
