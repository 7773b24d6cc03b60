//! Checks that no change of a tenant is lost or half written, whatever happens to the process or the disk.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tests::{Client, Signal};

use crate::tenants::{TENANTS, TOKEN, ask, change, setup, status, text};

#[tokio::test]
async fn four_writers_lose_no_change_and_no_request() {
    const EACH: usize = 25;
    let gateway = setup().start().await;
    change(&gateway, "PATCH", "/api/v1/tenants/acme", json!({ "tier": "open" })).await;
    let (retried, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let write = async |writer: usize| {
        for number in 0..EACH {
            // All write to one entry: each adds one to a label of its own.
            loop {
                let shown = ask(&gateway, "GET", "/api/v1/tenants/globex", Value::Null, &[])
                    .await
                    .expect(200);
                let tag = shown.header("etag").expect("an entry has a tag").to_owned();
                let mut labels = json!({});
                labels[format!("w{writer}")] = number.to_string().into();
                let body = json!({ "labels": labels });
                let answer = ask(&gateway, "PATCH", "/api/v1/tenants/globex", body, &[("if-match", &tag)]).await;
                match answer.status {
                    200 => break,
                    412 => retried.fetch_add(1, Relaxed),
                    other => panic!("{other}: {}", answer.text()),
                };
            }
        }
    };
    let load = async {
        let mut count = 0;
        while !is_over.load(Relaxed) {
            assert_eq!(status(&gateway, "key-acme").await, 204);
            count += 1;
        }
        count
    };
    let writers = async {
        tokio::join!(write(0), write(1), write(2), write(3));
        is_over.store(true, Relaxed);
    };
    let ((), served) = tokio::join!(writers, load);
    assert!(served > 0);
    let last = (EACH - 1).to_string();
    let shown = gateway.admin_json("/api/v1/tenants/globex").await;
    assert_eq!(
        shown["record"]["labels"],
        json!({ "w0": last, "w1": last, "w2": last, "w3": last })
    );
    let log = gateway.log();
    assert_eq!(log.matches("audit:").count(), 4 * EACH + 1, "each change once");
    assert_eq!(
        gateway.metric("gateway_config_generation", &[]).await,
        1.0,
        "no plan is made for it"
    );
}

#[tokio::test]
async fn a_killed_process_leaves_the_old_file_or_the_new_one() {
    const KILLS: usize = if cfg!(feature = "long") { 200 } else { 6 };
    let mut gateway = setup().start().await;
    let mut last = 0;
    for kill in 0..KILLS {
        let changing = async {
            let mut number = last;
            loop {
                number += 1;
                let body = json!({ "labels": { "count": number.to_string() } });
                let client = Client::to(gateway.admin_address());
                let ask = client.ask(Method::PATCH, "/api/v1/tenants/globex").bearer(TOKEN);
                match ask.body(body.to_string()).try_send().await {
                    Ok(answer) if answer.status == 200 => last = number,
                    Ok(answer) => panic!("{}", answer.text()),
                    Err(_) => return number,
                }
            }
        };
        let pid = gateway.pid();
        let killing = async {
            tokio::time::sleep(Duration::from_micros(
                RandomState::new().hash_one(kill) % 55_000 + 5_000,
            ))
            .await;
            Signal::Kill.send(pid);
        };
        let (tried, ()) = tokio::join!(changing, killing);
        let found = text(&gateway, "tenants.yaml");
        let with = |number: usize| match number {
            0 => TENANTS.to_owned(),
            number => TENANTS.replace(
                "{ tier: free }",
                &format!("{{ tier: free, labels: {{ count: \"{number}\" }} }}"),
            ),
        };
        assert!(
            found == with(last) || found == with(tried),
            "kill {kill}, {last} or {tried}: {found}"
        );
        last = if found == with(tried) { tried } else { last };
        gateway = setup().file("tenants.yaml", found).start().await;
    }
}

#[tokio::test]
async fn a_folder_that_takes_no_file_changes_nothing() {
    let gateway = setup().start().await;
    // Root may write anywhere, so the limit on the size of a file stands for a full disk as well.
    let pid = gateway.pid().to_string();
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=64"])
        .status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit is there");
    let refused = ask(
        &gateway,
        "PATCH",
        "/api/v1/tenants/globex",
        json!({ "tier": "open" }),
        &[],
    )
    .await;
    assert_eq!(
        (refused.status, &refused.json()["reason"]),
        (507, &json!("storage_full")),
        "{}",
        refused.text()
    );
    let refused = ask(&gateway, "POST", "/api/v1/tenants/globex/keys", json!({}), &[]).await;
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(text(&gateway, "tenants.yaml"), TENANTS);
    assert_eq!(status(&gateway, "key-acme").await, 204);
    let left = fs::read_dir(gateway.path(".")).expect("a folder of ours");
    let left = left.filter(|entry| {
        let name = entry.as_ref().expect("a file of ours").file_name();
        name.to_string_lossy().ends_with(".new")
    });
    assert_eq!(left.count(), 0, "nothing is left beside the files");
}
