//! Checks that usage is what the metrics counted, survives a kill and a take-over, and reaches a receiver exactly once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Handle};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, Setup, Signal, cli, eventually};

use crate::{SOON, backends};

fn top(usage: &str) -> String {
    format!(
        r#"
listeners: {{ public: {{ address: "127.0.0.1:0" }} }}
admin: {{ address: "127.0.0.1:0" }}
overload: off
access_log: off
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }}, twice: {{ rate: 1/h, burst: 6 }} }}
callers: {{ api_keys: {{ file: keys.yaml }}, anonymous: {{ by: client_address, tier: open }} }}
usage: {usage}
"#
    )
}

fn setup(usage: &str, users: &Handle) -> Setup {
    let config = Config::with(top(usage))
        .backend("users", users.address(), "retry: off")
        .route(
            "users",
            "{ match: { path: /users }, access: { any_of: [api_key] }, cost: 3, backend: users, rewrite: /echo }",
        );
    let config = config.route(
        "open",
        "{ match: { path: /open }, access: { any_of: [anonymous] }, respond: { body: hello } }",
    );
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme-1").tier("open"),
        KeyLine::new("acme-2", "acme", "key-acme-2").tier("open"),
        KeyLine::new("globex-1", "globex", "key-globex-1").tier("twice"),
    ];
    Setup::new(config.to_string()).file("keys.yaml", key_file(&keys))
}

/// Requests of each tenant, key and route.
fn requests(rows: &Value) -> BTreeMap<(String, String, String), u64> {
    let mut all = BTreeMap::new();
    for row in rows.as_array().expect("a list") {
        let word = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let count = row["requests"].as_u64().expect("a number");
        *all.entry((word("tenant"), word("key"), word("route"))).or_default() += count;
    }
    all
}

fn named(all: &[(&str, &str, &str, u64)]) -> BTreeMap<(String, String, String), u64> {
    let row = |(tenant, key, route, count): &(&str, &str, &str, u64)| {
        (((*tenant).to_owned(), (*key).to_owned(), (*route).to_owned()), *count)
    };
    all.iter().map(row).collect()
}

/// Waits until the gateway has counted so many requests: an answer arrives before its request is counted.
async fn counted(gateway: &Gateway, total: u64) -> Value {
    eventually(SOON, &format!("{total} requests are counted"), || async {
        let usage = gateway.admin_json("/api/v1/usage?by=day").await;
        (usage["sum"]["requests"] == total).then_some(usage)
    })
    .await
}

#[tokio::test]
async fn usage_is_what_the_metrics_counted() {
    let (_fleet, [users]) = backends(["users"]).await;
    let gateway = setup("{}", &users).start().await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
    }
    assert_eq!(gateway.get("/users").key("key-acme-2").send().await.status, 200);
    for expected in [200, 200, 429, 429] {
        let body = vec![b'x'; 100];
        assert_eq!(
            gateway
                .post("/users")
                .key("key-globex-1")
                .body(body)
                .send()
                .await
                .status,
            expected
        );
    }
    assert_eq!(gateway.get("/open").send().await.status, 200);
    assert_eq!(gateway.get("/users").send().await.status, 401);
    assert_eq!(gateway.get("/nowhere").send().await.status, 404);

    let usage = counted(&gateway, 13).await;
    let expected = named(&[
        ("acme", "acme-1", "users", 5),
        ("acme", "acme-2", "users", 1),
        ("globex", "globex-1", "users", 4),
        ("anonymous", "-", "open", 1),
        ("-", "-", "users", 1),
        ("-", "-", "-", 1),
    ]);
    assert_eq!(requests(&usage["usage"]), expected);
    for route in ["users", "open", ""] {
        let metric = gateway.metric("gateway_requests_total", &[("route", route)]).await;
        let shown = usage["usage"].as_array().expect("a list").iter();
        let sum: u64 = shown
            .filter(|row| row["route"].as_str().unwrap_or_default() == route)
            .map(|row| row["requests"].as_u64().expect("a number"))
            .sum();
        assert_eq!(sum as f64, metric, "{route:?}");
    }
    let globex = gateway.admin_json("/api/v1/usage?tenant=globex&by=minute").await;
    let sum = &globex["sum"];
    assert_eq!(
        (&sum["answers"]["2xx"], &sum["answers"]["4xx"]),
        (&2.into(), &2.into()),
        "{globex}"
    );
    assert_eq!(
        (&sum["refused"]["rate_limited"], &sum["cost"]),
        (&2.into(), &6.into()),
        "{globex}"
    );
    assert_eq!(sum["bytes_in"], 200, "{globex}");

    let first = gateway.admin_json("/api/v1/usage?limit=2").await;
    assert_eq!((&first["total"], &first["next_offset"]), (&6.into(), &2.into()));
    let answer = gateway.admin("/api/v1/usage?format=csv&tenant=acme").send().await;
    let text = answer.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("time,tenant,route,key,requests,") && lines.len() == 3,
        "{lines:?}"
    );
    let wrong = gateway.admin("/api/v1/usage?by=week").send().await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn without_usage_nothing_is_counted() {
    let (_fleet, [users]) = backends(["users"]).await;
    let setup = setup("{}", &users);
    let gateway = setup.start().await;
    let config = fs::read_to_string(gateway.path("gateway.yaml")).expect("it is there");
    gateway.reload(config.replace("usage: {}", "")).await;
    assert_eq!(gateway.get("/open").send().await.status, 200);
    assert_eq!(gateway.admin("/api/v1/usage").send().await.status, 404);
    gateway.reload(config).await;
    let usage = gateway.admin_json("/api/v1/usage").await;
    assert_eq!(usage["sum"]["requests"], 0, "{usage}");
}

#[tokio::test]
async fn the_command_prints_what_was_used() {
    let (_fleet, [users]) = backends(["users"]).await;
    let gateway = setup("{}", &users).start().await;
    assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
    counted(&gateway, 1).await;
    let admin = gateway.admin_address().to_string();
    let print = |options: &[&str]| {
        let all = [&["usage", "--admin", &admin], options].concat();
        let printed = cli(&all, &Setup::default());
        assert_eq!(printed.code, Some(0), "{printed:?}");
        printed.stdout
    };
    let table = print(&[]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[1].contains("acme    users  acme-1         1    1"), "{table}");
    assert!(lines[2].starts_with("sum "), "{table}");
    let csv = print(&["--csv", "--tenant", "acme"]);
    assert!(
        csv.lines()
            .nth(1)
            .is_some_and(|line| line.contains(",acme,users,acme-1,1,0,1,0,0,0,3,")),
        "{csv}"
    );
    let json: Value = serde_json::from_str(&print(&["--json", "--by", "minute"])).expect("JSON");
    assert_eq!(json["sum"]["cost"], 3);
    let wrong = cli(&["usage", "--admin", &admin, "--from", "yesterday"], &Setup::default());
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("from is a day or an instant"), "{}", wrong.stderr);
}

#[tokio::test]
async fn a_kill_loses_at_most_a_second_and_the_next_process_says_so() {
    let (_fleet, [users]) = backends(["users"]).await;
    let folder = tempfile::tempdir().expect("there is room");
    let usage = format!("{{ folder: {:?} }}", folder.path().join("usage"));
    let mut gateway = setup(&usage, &users).start().await;
    let mut sent = 0;
    // Some requests that are surely written: the file has grown since they were counted.
    for _ in 0..20 {
        assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
        sent += 1;
    }
    counted(&gateway, sent).await;
    eventually(SOON, "the counts are in the file", || async {
        (written(folder.path()) >= 20).then_some(())
    })
    .await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
        sent += 1;
    }
    gateway.signal(Signal::Kill);
    gateway.wait_exit().await;

    let next = setup(&usage, &users).start().await;
    let kept = next.admin_json("/api/v1/usage").await;
    let count = kept["sum"]["requests"].as_u64().expect("a number");
    assert!((20..=sent).contains(&count), "{count} of {sent}");
    assert_eq!(kept["gaps"].as_array().map(Vec::len), Some(1), "{kept}");
    assert!(next.log().contains("an earlier process was killed"), "{}", next.log());
    assert_eq!(next.get("/users").key("key-acme-1").send().await.status, 200);
    counted(&next, count + 1).await;

    // A stop in order loses nothing and leaves no gap.
    let mut next = next;
    next.signal(Signal::Term);
    assert_eq!(next.wait_exit().await, Some(0));
    let last = setup(&usage, &users).start().await;
    let kept = last.admin_json("/api/v1/usage").await;
    assert_eq!(kept["sum"]["requests"], count + 1, "{kept}");
    assert_eq!(kept["gaps"].as_array().map(Vec::len), Some(1), "{kept}");
}

/// Returns the number of requests in the lines of use of all files in the folder.
fn written(folder: &Path) -> u64 {
    let files = fs::read_dir(folder.join("usage")).expect("the folder is there");
    let files = files.map(|entry| entry.expect("it is there").path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "usage"));
    let count = |line: &str| line.strip_prefix("U ")?.split(' ').nth(1)?.parse::<u64>().ok();
    let all = files.map(|path| fs::read_to_string(path).unwrap_or_default());
    all.map(|text| text.lines().filter_map(count).sum::<u64>()).sum()
}

#[tokio::test]
async fn a_process_that_takes_over_adds_what_the_one_before_counted_last() {
    let (_fleet, [users]) = backends(["users"]).await;
    let setup = setup("{ folder: usage }", &users)
        .option("--take-over")
        .option("hand-over.sock");
    let mut gateway = setup.clone().start().await;
    for _ in 0..7 {
        assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
    }
    counted(&gateway, 7).await;
    let mut past = gateway.replace(&setup).await;
    assert_eq!(past.wait_exit().await, Some(0));
    assert_eq!(
        gateway
            .another_client()
            .get("/users")
            .key("key-acme-1")
            .send()
            .await
            .status,
        200
    );
    // The new process looks every other second for what others have left.
    let usage = counted(&gateway, 8).await;
    assert_eq!(usage["gaps"].as_array().map(Vec::len), Some(0), "{usage}");
}

/// Events that the receiver has taken, by id; those with one id must be the same.
fn taken(receiver: &Handle, statuses: &[u16]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (request, status) in receiver.requests().into_iter().zip(statuses) {
        assert_eq!(
            request.header("content-type"),
            Some("application/cloudevents-batch+json")
        );
        if *status >= 300 {
            continue;
        }
        let events: Vec<Value> = serde_json::from_slice(&request.body).expect("a batch is JSON");
        for event in events {
            let id = event["id"].as_str().expect("an id").to_owned();
            if let Some(before) = all.insert(id, event.clone()) {
                assert_eq!(before, event, "one id is one event");
            }
        }
    }
    all
}

#[tokio::test]
async fn a_receiver_that_fails_every_second_time_ends_with_the_exact_totals() {
    let (_fleet, [users, receiver]) = backends(["users", "receiver"]).await;
    let statuses: Vec<u16> = (0..200).map(|number| if number % 2 == 0 { 503 } else { 204 }).collect();
    receiver.next(statuses.iter().map(|status| Behaviour::status(*status)));
    let folder = tempfile::tempdir().expect("there is room");
    let usage = format!(
        "\n  folder: {:?}\n  replica: edge-1\n  push:\n    url: \"http://{}/events\"\n    batch: 1\n    token: ${{TOKEN}}",
        folder.path().join("usage"),
        receiver.address()
    );
    let setup = setup(&usage, &users).variable("TOKEN", "correct-horse");
    let mut sent = 0;
    // Each process ends in a way of its own, and its last minute is over by that.
    for signal in [Signal::Term, Signal::Kill, Signal::Term] {
        let mut gateway = setup.clone().start().await;
        let before = gateway.admin_json("/api/v1/usage").await["sum"]["requests"]
            .as_u64()
            .expect("a number");
        for key in ["key-acme-1", "key-acme-2"] {
            for _ in 0..3 {
                assert_eq!(gateway.get("/users").key(key).send().await.status, 200);
                sent += 1;
            }
        }
        counted(&gateway, before + 6).await;
        if signal == Signal::Kill {
            eventually(SOON, "the counts are in the file", || async {
                (written(folder.path()) >= 6).then_some(())
            })
            .await;
        }
        gateway.signal(signal);
        gateway.wait_exit().await;
    }
    let last = setup.start().await;
    eventually(SOON * 2, "all is delivered", || async {
        let waiting = last.metric("gateway_usage_waiting", &[]).await;
        (waiting == 0.0).then_some(())
    })
    .await;
    let events = taken(&receiver, &statuses);
    let total: u64 = events
        .values()
        .map(|event| event["data"]["requests"].as_u64().expect("a number"))
        .sum();
    assert_eq!(total, sent);
    let tokens = receiver.requests();
    assert!(
        tokens
            .iter()
            .all(|request| request.header("authorization") == Some("Bearer correct-horse"))
    );
    let event = events.values().next().expect("there is one");
    assert_eq!(
        (&event["specversion"], &event["source"]),
        (&"1.0".into(), &"/gateway/edge-1".into())
    );
    assert_eq!(last.metric("gateway_usage_dropped_total", &[]).await, 0.0);
    let log = last.log();
    assert!(!log.contains("correct-horse"), "{log}");
}

/// Runs the commands of the block of `gateway/docs/usage.md` that begins with `gateway usage`.
#[tokio::test]
async fn the_commands_of_the_docs_work() {
    let (_fleet, [users]) = backends(["users"]).await;
    let gateway = setup("{}", &users).start().await;
    assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
    counted(&gateway, 1).await;
    let page = include_str!("../../../gateway/docs/usage.md");
    let (_, block) = page.split_once("```sh\ngateway usage").expect("there is such a block");
    let (block, _) = block.split_once("```").expect("it ends");
    let commands = format!("gateway usage{block}");
    let admin = gateway.admin_address().to_string();
    let mut run = 0;
    for command in commands.lines() {
        let command = command.replace("127.0.0.1:9900", &admin);
        if let Some(arguments) = command.strip_prefix("gateway ") {
            let arguments: Vec<_> = arguments.split(' ').chain(["--admin", &admin]).collect();
            let printed = cli(&arguments, &Setup::default());
            assert_eq!(printed.code, Some(0), "{printed:?}");
            assert!(printed.stdout.contains("acme"), "{printed:?}");
        } else {
            let target = command
                .strip_prefix("curl -s '")
                .and_then(|rest| rest.strip_suffix('\''));
            let target = target
                .and_then(|url| url.strip_prefix(&admin))
                .expect("an address of the admin API");
            let answer = gateway.admin(target).send().await;
            assert!(answer.status == 200 && answer.text().contains("acme"), "{command}");
        }
        run += 1;
    }
    assert_eq!(run, 5);
}

#[tokio::test]
async fn a_caller_is_told_its_own_plan_and_never_that_of_another() {
    let (_fleet, [users]) = backends(["users"]).await;
    let setup = setup("{}", &users);
    let gateway = setup.start().await;
    let config = fs::read_to_string(gateway.path("gateway.yaml")).expect("it is there");
    let plan =
        "  plan: { match: { path: /plan }, access: { any_of: [api_key, anonymous] }, respond: { limits: true } }\n";
    gateway.reload(config + plan).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/users").key("key-acme-1").send().await.status, 200);
    }
    assert_eq!(gateway.get("/users").key("key-globex-1").send().await.status, 200);
    eventually(SOON, "the usage of both is collected", || async {
        let usage = gateway.admin_json("/api/v1/usage").await;
        (usage["sum"]["requests"].as_u64() >= Some(4)).then_some(())
    })
    .await;
    let answer = gateway.get("/plan").key("key-globex-1").send().await;
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    let told = answer.json();
    assert_eq!(
        (&told["tenant"], &told["key"], &told["tier"]),
        (&json!("globex"), &json!("globex-1"), &json!("twice"))
    );
    let limit = &told["limits"][0];
    assert_eq!((&limit["limit"], &limit["remaining"]), (&json!(6), &json!(2)), "{told}");
    assert_eq!(told["usage"]["this_month"]["requests"], 1, "{told}");
    let acme = gateway.get("/plan").key("key-acme-2").send().await.json();
    assert_eq!(
        (&acme["tenant"], &acme["usage"]["today"]["requests"]),
        (&json!("acme"), &json!(3)),
        "{acme}"
    );
    let anonymous = gateway.get("/plan").send().await.json();
    assert_eq!(
        (&anonymous["tenant"], anonymous.get("usage")),
        (&Value::Null, None),
        "{anonymous}"
    );
    assert_eq!(anonymous["limits"][0]["limit"], 1_000_000, "{anonymous}");
    assert!(!anonymous.to_string().contains("acme") && !acme.to_string().contains("globex"));
}

#[tokio::test]
async fn older_clients_are_told_of_the_limit_with_the_least_left() {
    let (_fleet, [users]) = backends(["users"]).await;
    let setup = setup("{}", &users);
    let gateway = setup.start().await;
    let answer = gateway.get("/users").key("key-globex-1").send().await;
    assert_eq!(answer.header("x-ratelimit-limit"), None);
    let config = fs::read_to_string(gateway.path("gateway.yaml")).expect("it is there");
    gateway.reload(format!("legacy_limit_fields: true\n{config}")).await;
    let answer = gateway.get("/users").key("key-globex-1").send().await;
    let told = ["x-ratelimit-limit", "x-ratelimit-remaining"].map(|name| answer.header(name).unwrap_or_default());
    assert_eq!((answer.status, told), (200, ["6", "0"]));
    let refused = gateway.get("/users").key("key-globex-1").send().await;
    let told = ["x-ratelimit-limit", "x-ratelimit-remaining"].map(|name| refused.header(name).unwrap_or_default());
    assert_eq!((refused.status, told), (429, ["6", "0"]));
    assert_eq!(refused.header("x-ratelimit-reset"), refused.header("retry-after"));
}

#[tokio::test]
async fn the_busiest_and_the_named_tenants_have_metrics() {
    let (_fleet, [users]) = backends(["users"]).await;
    let setup = setup("{}\nmetrics: { tenants: { top: 1, names: [globex] } }", &users);
    let gateway = setup.start().await;
    for _ in 0..4 {
        gateway.get("/users").key("key-acme-1").send().await;
    }
    for _ in 0..3 {
        gateway.get("/users").key("key-globex-1").send().await;
    }
    assert_eq!(gateway.get("/open").send().await.status, 200);
    counted(&gateway, 8).await;
    for (tenant, requests) in [("acme", 4.0), ("globex", 3.0)] {
        let counted = gateway
            .metric("gateway_tenant_requests_total", &[("tenant", tenant)])
            .await;
        assert_eq!(counted, requests, "{tenant}");
    }
    let labels = [("tenant", "globex"), ("reason", "rate_limited")];
    assert_eq!(gateway.metric("gateway_tenant_refusals_total", &labels).await, 1.0);
    let labels = [("tenant", "globex"), ("limit", "twice")];
    assert_eq!(gateway.metric("gateway_tenant_limit_remaining", &labels).await, 0.0);
    let refusals = gateway.metric("gateway_tenant_limit_refusals_total", &labels).await;
    assert_eq!(refusals, 1.0);
    let shown = gateway.admin_json("/api/v1/tenants/globex").await;
    let (reasons, limits) = (&shown["requests"]["by_reason"], &shown["requests"]["by_limit"]);
    assert_eq!(
        (reasons, limits),
        (&json!({ "rate_limited": 1 }), &json!({ "twice": 1 }))
    );
    assert!(!gateway.metrics().await.text().contains("tenant=\"anonymous\""));
}
