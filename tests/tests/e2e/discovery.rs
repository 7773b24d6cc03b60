//! Checks that the endpoints of a backend follow their source without a failed request, and that a source that fails
//! changes nothing and is shown.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fixtures::fleet::{Behaviour, Handle};
use serde_json::{Value, json};
use tests::configs::{Config, UNGUARDED};
use tests::crowd::steadily;
use tests::{Gateway, Setup, cli, eventually};

use crate::{SOON, backends, one_backend};

const FILE: &str = "{ file: endpoints.yaml }";
const KEPT: &str = "gateway_backend_endpoints_kept";
const OF_API: [(&str, &str); 1] = [("backend", "api")];

/// A file that lists these backends.
fn listing<const N: usize>(handles: [&Handle; N]) -> String {
    let lines = handles.map(|handle| format!("  - {{ url: \"http://{}\" }}\n", handle.address()));
    format!("endpoints:\n{}", lines.concat())
}

fn config(source: &str, more: &str) -> String {
    let guards = format!("ejection: off, {UNGUARDED}{more}");
    Config::default()
        .backend_from("api", source, &guards)
        .open_route("api", "api", "")
        .to_string()
}

/// A gateway whose backend `api` has the endpoints of a file.
async fn start(source: &str, file: &str) -> Gateway {
    Setup::new(config(source, ""))
        .file("endpoints.yaml", file)
        .start()
        .await
}

/// Puts another file in its place in one step.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).expect("a folder of ours");
    fs::rename(fresh, path).expect("a file of ours");
}

async fn backend(gateway: &Gateway) -> Value {
    gateway.admin_json("/api/v1/backends").await["backends"][0].clone()
}

/// Returns when the endpoints in force are those of these backends.
async fn are<const N: usize>(gateway: &Gateway, handles: [&Handle; N]) {
    let expected = handles.map(|handle| Value::from(format!("http://{}", handle.address())));
    eventually(SOON, "the endpoints are in force", || async {
        let shown = backend(gateway).await["endpoints"].as_array()?.clone();
        let urls = shown.iter().map(|endpoint| endpoint["url"].clone());
        urls.eq(expected.iter().cloned()).then_some(())
    })
    .await;
}

/// Returns what is shown of the source, once it fails with an error that holds all of `parts`.
async fn fails(gateway: &Gateway, parts: &[&str]) -> Value {
    eventually(SOON, "the failure is shown", || async {
        let source = backend(gateway).await["source"].clone();
        let error = source["error"].as_str()?.to_owned();
        parts.iter().all(|part| error.contains(part)).then_some(source)
    })
    .await
}

#[tokio::test]
async fn a_file_that_is_replaced_under_traffic_fails_no_request() {
    let (_fleet, [a, b, c]) = backends(["a", "b", "c"]).await;
    let gateway = start(FILE, &listing([&a, &b])).await;
    let generation = gateway.metric("gateway_config_generation", &[]).await;
    let changes = async {
        are(&gateway, [&a, &b]).await;
        for _ in 0..2 {
            replace(&gateway.path("endpoints.yaml"), &listing([&b, &c]));
            are(&gateway, [&b, &c]).await;
            replace(&gateway.path("endpoints.yaml"), &listing([&c]));
            are(&gateway, [&c]).await;
            replace(&gateway.path("endpoints.yaml"), &listing([&a, &b, &c]));
            are(&gateway, [&a, &b, &c]).await;
        }
    };
    let (tally, ()) = steadily(200, || gateway.get("/api/echo"), changes).await;
    tally.all(200);
    for handle in [&a, &b, &c] {
        assert!(handle.counts().requests > 0, "{} got none", handle.name());
    }
    assert_eq!(
        gateway.metric("gateway_config_generation", &[]).await,
        generation,
        "the config is not read again"
    );
    let log = gateway.log();
    let line = |what: &str, handle: &Handle| {
        let address = handle.address().to_string();
        log.lines().any(|line| line.contains(what) && line.contains(&address))
    };
    assert!(line("endpoints added", &c) && line("endpoints removed", &a), "{log}");
}

#[tokio::test]
async fn an_endpoint_that_is_removed_ends_the_call_that_it_has_and_gets_no_other() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let gateway = start(FILE, &listing([&a])).await;
    a.close_gate();
    let running = tokio::spawn(gateway.get("/api/echo").send());
    a.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
    replace(&gateway.path("endpoints.yaml"), &listing([&b]));
    are(&gateway, [&b]).await;
    for _ in 0..20 {
        gateway.get("/api/echo").send().await.expect(200);
    }
    assert_eq!((a.counts().requests, b.counts().requests), (1, 20));
    a.open_gate();
    running.await.expect("it ends").expect(200);
}

#[tokio::test]
async fn a_wrong_file_is_refused_as_a_whole_and_shown() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let good = listing([&a, &b]);
    let gateway = start(FILE, &good).await;
    let half = good[..good.len() / 2].trim_end().to_owned();
    let one_bad = format!("{good}  - {{ url: \"10.0.0.6:8080\" }}\n");
    let same_twice = format!("{good}  - {{ url: \"http://{}\" }}\n", a.address());
    let cases = [
        (&*half, vec!["endpoints.yaml:"]),
        ("", vec!["endpoints.yaml"]),
        ("endpoints: []\n", vec!["endpoints.yaml:1:12", "at least one"]),
        (&*one_bad, vec!["endpoints.yaml:4", "http://10.0.0.6:8080"]),
        (&*same_twice, vec!["endpoints.yaml:4", "twice"]),
        ("endpoints: { dns: users }\n", vec!["endpoints.yaml:1"]),
    ];
    for (number, (text, parts)) in (1..).zip(cases) {
        // As an editor would: in place.
        fs::write(gateway.path("endpoints.yaml"), text).expect("a file of ours");
        let source = fails(&gateway, &parts).await;
        assert!(
            source["kept_since"].is_string() && source["keep_ms"].is_null(),
            "{source:#}"
        );
        assert_eq!(
            (&source["kind"], &source["lookups"]["failed"]),
            (&json!("file"), &json!(number))
        );
        assert_eq!(gateway.metric(KEPT, &OF_API).await, 1.0);
        let status = gateway.admin_json("/api/v1/status").await;
        assert_eq!(status["kept_backends"], json!(["api"]));
        are(&gateway, [&a, &b]).await;
        for _ in 0..4 {
            gateway.get("/api/echo").send().await.expect(200);
        }
        assert!(
            parts.iter().all(|part| gateway.log().contains(part)),
            "{}",
            gateway.log()
        );
        // The config can be reloaded all the same.
        gateway.reload(config(FILE, ", time_limit: 9s")).await;
        gateway.reload(config(FILE, "")).await;
        assert_eq!(gateway.metric(KEPT, &OF_API).await, 1.0);

        replace(&gateway.path("endpoints.yaml"), &listing([&b]));
        are(&gateway, [&b]).await;
        replace(&gateway.path("endpoints.yaml"), &good);
        are(&gateway, [&a, &b]).await;
        assert_eq!(gateway.metric(KEPT, &OF_API).await, 0.0);
        assert_eq!(backend(&gateway).await["source"]["error"], Value::Null);
    }
    fs::remove_file(gateway.path("endpoints.yaml")).expect("a file of ours");
    fails(&gateway, &["endpoints.yaml", "No such file"]).await;
    are(&gateway, [&a, &b]).await;
}

#[tokio::test]
async fn endpoints_are_given_up_after_the_time_to_keep_them() {
    let (_fleet, api) = one_backend("api").await;
    let gateway = start("{ file: endpoints.yaml, keep: 300ms }", &listing([&api])).await;
    gateway.get("/api/echo").send().await.expect(200);
    replace(&gateway.path("endpoints.yaml"), "endpoints: [{");
    gateway.metric_becomes("gateway_backend_endpoints", &OF_API, 0.0).await;
    let refused = gateway.get("/api/echo").send().await;
    refused.refusal(503, "no_endpoint");
    let shown = gateway.admin_json("/api/v1/rejections").await;
    let decided = &shown["rejections"][0]["decided_by"];
    assert_eq!(decided["setting"], "backends.api.endpoints", "{shown:#}");
    let source = backend(&gateway).await["source"].clone();
    assert_eq!((&source["kept_since"], &source["keep_ms"]), (&Value::Null, &json!(300)));
    assert!(
        source["failing_since"].is_string() && source["answered"].is_string(),
        "{source:#}"
    );
    assert!(gateway.log().contains("kept for long enough"), "{}", gateway.log());
    replace(&gateway.path("endpoints.yaml"), &listing([&api]));
    are(&gateway, [&api]).await;
    gateway.get("/api/echo").send().await.expect(200);
}

/// As Kubernetes replaces the files of a ConfigMap: the file is a link into a folder that is a link, which is swapped.
#[tokio::test]
async fn a_swapped_link_in_the_path_is_a_change() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let folder = tempfile::tempdir().expect("there is room");
    let at = |name: &str| folder.path().join(name);
    for (version, handle) in [("v1", &a), ("v2", &b)] {
        fs::create_dir(at(version)).expect("a folder of ours");
        fs::write(at(version).join("endpoints.yaml"), listing([handle])).expect("a folder of ours");
    }
    symlink("v1", at("..data")).expect("a folder of ours");
    symlink("..data/endpoints.yaml", at("endpoints.yaml")).expect("a folder of ours");
    let source = format!("{{ file: \"{}\" }}", at("endpoints.yaml").display());
    let gateway = Gateway::start(config(&source, "")).await;
    are(&gateway, [&a]).await;
    for (version, handle) in [("v2", &b), ("v1", &a)] {
        symlink(version, at("..data_tmp")).expect("a folder of ours");
        fs::rename(at("..data_tmp"), at("..data")).expect("a link of ours");
        are(&gateway, [handle]).await;
    }
}

#[tokio::test]
async fn a_wrong_file_at_the_start_is_a_mistake_of_the_config() {
    let setup = Setup::new(config(FILE, ""));
    let check = |setup: &Setup| cli(&["check", "gateway.yaml"], setup);
    let missing = check(&setup);
    assert_eq!(missing.code, Some(78), "{missing:?}");
    assert!(missing.stderr.contains(":29\n"), "{}", missing.stderr);
    let text = "endpoints:\n  - { url: \"http://10.0.0.5:8080\" }\n  - { ulr: \"http://10.0.0.6:8080\" }\n";
    let wrong = check(&setup.clone().file("endpoints.yaml", text));
    assert_eq!(wrong.code, Some(78), "{wrong:?}");
    assert!(
        wrong.stderr.contains("endpoints.yaml:3:7") && wrong.stderr.contains("did you mean `url`?"),
        "{}",
        wrong.stderr
    );
    let good = check(&setup.file("endpoints.yaml", "endpoints: [{ url: \"http://10.0.0.5:8080\" }]"));
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(
        good.stdout
            .contains("  api  file endpoints.yaml, as it changes; 1 address now; kept for as long as it is wrong\n"),
        "{}",
        good.stdout
    );
}

#[tokio::test]
async fn a_name_is_looked_up_by_the_system_and_again_after_a_failed_connection() {
    let (_fleet, api) = one_backend("api").await;
    let port = api.address().port();
    // The fleet listens on 127.0.0.1, and `localhost` may be `::1` too, which is ejected then.
    let source = format!("{{ dns: localhost, port: {port}, refresh: 24h }}");
    let gateway = Gateway::start(config(&source, "")).await;
    gateway.get("/api/echo").send().await.expect(200);
    let shown = backend(&gateway).await;
    assert_eq!(
        (&shown["source"]["kind"], &shown["source"]["name"]),
        (&json!("dns"), &json!(format!("localhost:{port}")))
    );
    let url = format!("http://localhost:{port}");
    assert_eq!(shown["endpoints"][0]["url"], url, "{shown:#}");
    let asked = api.take_requests();
    assert_eq!(asked[0].header("host"), Some(&*format!("localhost:{port}")));

    let found = [("backend", "api"), ("outcome", "found")];
    let lookups = gateway.metric("gateway_endpoint_lookups_total", &found).await;
    api.behave(Behaviour::refusing()).await;
    eventually(SOON, "the name is looked up again", || async {
        // The first call may be on a connection that breaks; the next one cannot make another.
        gateway.get("/api/echo").send().await;
        let now = gateway.metric("gateway_endpoint_lookups_total", &found).await;
        (now > lookups).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_leaves_its_backend_without_endpoints() {
    let (_fleet, api) = one_backend("api").await;
    let nowhere = Config::default()
        .open("api", api.address(), UNGUARDED)
        .backend_from("nowhere", "{ dns: nowhere.invalid }", "breaker: off")
        .open_route("nowhere", "nowhere", "");
    let gateway = Gateway::start(nowhere.to_string()).await;
    gateway.get("/nowhere/echo").send().await.refusal(503, "no_endpoint");
    gateway.get("/api/echo").send().await.expect(200);
    let failed = [("backend", "nowhere"), ("outcome", "failed")];
    eventually(SOON, "the failure is counted", || async {
        let page = gateway.metrics().await;
        (page.sum("gateway_endpoint_lookups_total", &failed)? > 0.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric(KEPT, &[("backend", "nowhere")]).await, 0.0);
    assert!(gateway.log().contains("nowhere.invalid"), "{}", gateway.log());
}

#[tokio::test]
async fn another_source_takes_over_without_a_gap() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let listed = Config::default()
        .backend("api", a.address(), UNGUARDED)
        .open_route("api", "api", "")
        .to_string();
    let gateway = Setup::new(&listed).file("endpoints.yaml", listing([&b])).start().await;
    let changes = async {
        gateway.reload(config(FILE, "")).await;
        are(&gateway, [&b]).await;
        // A name that is never found: the endpoints of the file stay.
        gateway.reload(config("{ dns: nowhere.invalid }", "")).await;
        fails(&gateway, &["nowhere.invalid"]).await;
        are(&gateway, [&b]).await;
        gateway.reload(&listed).await;
        are(&gateway, [&a]).await;
    };
    let (tally, ()) = steadily(100, || gateway.get("/api/echo"), changes).await;
    tally.all(200);
}

#[tokio::test]
async fn a_reload_keeps_a_source_that_has_not_changed() {
    let (_fleet, api) = one_backend("api").await;
    let gateway = start(FILE, &listing([&api])).await;
    let lookups = |source: &Value| source["lookups"].clone();
    let before = eventually(SOON, "the file is read", || async {
        let source = backend(&gateway).await["source"].clone();
        (source["lookups"]["found"] == 1).then_some(source)
    })
    .await;
    gateway.reload(config(FILE, ", time_limit: 9s")).await;
    let after = backend(&gateway).await["source"].clone();
    assert_eq!(
        (lookups(&after), &after["answered"]),
        (lookups(&before), &before["answered"])
    );
}
