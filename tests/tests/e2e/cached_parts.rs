//! Checks the cache of single parts of an aggregate: how often each backend is asked, who shares an answer, and what the
//! whole document says of it. Facts are judged by what the backends were asked, not by times.

use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Keep, Spec};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::crowd::at_once;
use tests::{Client, Gateway, Setup, eventually};

const TOKEN: &str = "correct-horse-battery-staple";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\", token_file: admin.token }
tiers: { open: { rate: 1000000/s, burst: 1000000, in_flight: off } }
default_tier: open
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
overload: off
access_log: { file: access.log }
";

async fn fleet() -> Fleet {
    Fleet::start(["first", "second"].map(|name| Spec::new(name).keep(Keep::default())))
        .await
        .expect("ports are free")
}

/// `/page` has the parts `parts`.
fn config(fleet: &Fleet, parts: &str) -> Config {
    Config::with(TOP)
        .backend(
            "first",
            fleet.address("first"),
            "retry: off, breaker: off, ejection: off",
        )
        .backend(
            "second",
            fleet.address("second"),
            "retry: off, breaker: off, ejection: off",
        )
        .route(
            "page",
            &format!(
                "{{ match: {{ path: /page }}, access: {{ any_of: [api_key, anonymous] }}, \
                 aggregate: {{ partial: allow, parts: {{ {parts} }} }} }}"
            ),
        )
}

/// Starts a gateway with two keys of `acme`, and one of `other`.
async fn start(config: Config) -> Gateway {
    let keys = [
        KeyLine::new("acme-1", "acme", "key-acme-1"),
        KeyLine::new("acme-2", "acme", "key-acme-2"),
        KeyLine::new("other-1", "other", "key-other-1"),
    ];
    Setup::new(config.to_string())
        .file("keys.yaml", key_file(&keys))
        .file("admin.token", TOKEN)
        .start()
        .await
}

fn answers(head: &str, body: &Value) -> Behaviour {
    let body = body.to_string();
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{head}\r\n{body}"
    ))
}

fn asked(backend: &Handle) -> usize {
    backend.take_requests().len()
}

#[tokio::test]
async fn two_hundred_requests_ask_each_backend_once() {
    let fleet = fleet().await;
    let parts = "one: { backend: first, path: /one, cache: { scope: tenant } }, \
                 two: { backend: second, path: /two, cache: { scope: tenant } }";
    let gateway = start(config(&fleet, parts)).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    first
        .behave(answers("cache-control: max-age=600\r\n", &json!({ "a": 1 })))
        .await;
    second
        .behave(answers("cache-control: public, max-age=600\r\n", &json!({ "b": 2 })))
        .await;
    first.close_gate();
    let keys = ["key-acme-1", "key-acme-2"];
    let crowd = at_once(200, |number| gateway.get("/page").key(keys[number % 2]));
    let open = async {
        gateway.metric_becomes("gateway_requests_in_flight", &[], 200.0).await;
        first.open_gate();
    };
    let (tally, ()) = tokio::join!(crowd, open);
    tally.all(200);
    let whole = json!({ "one": { "a": 1 }, "two": { "b": 2 } });
    assert!(tally.answers().all(|answer| answer.json() == whole));
    assert_eq!((asked(&first), asked(&second)), (1, 1));
    // Another tenant shares what is for everyone, and nothing else.
    gateway.get("/page").key("key-other-1").send().await.expect(200);
    assert_eq!((asked(&first), asked(&second)), (1, 0));
    let count = async |result| {
        let labels = [("route", "page"), ("result", result)];
        gateway.metric("gateway_cache_part_requests_total", &labels).await
    };
    assert_eq!(count("miss").await, 3.0);
    assert_eq!(count("collapsed").await + count("hit").await, 399.0);
    assert_eq!(
        gateway.metric("gateway_backend_calls_total", &[]).await,
        3.0,
        "a stored answer is no call"
    );
}

#[tokio::test]
async fn the_document_tells_which_parts_were_stored_and_is_no_fresher_than_they() {
    let fleet = fleet().await;
    let parts = "one: { backend: first, path: /one, cache: {} }, two: { backend: second, path: /two }";
    let gateway = start(config(&fleet, parts)).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    // It was 500 s old when it came, and so the document is.
    first
        .behave(answers("cache-control: max-age=600\r\nage: 500\r\n", &json!(1)))
        .await;
    second
        .behave(answers("cache-control: max-age=3600\r\n", &json!(2)))
        .await;
    let miss = gateway.get("/page").send().await.expect(200);
    assert_eq!(miss.header("cache-status"), Some("gateway/one; fwd=uri-miss; stored"));
    let hit = gateway.get("/page").send().await.expect(200);
    assert_eq!(hit.json(), json!({ "one": 1, "two": 2 }));
    assert_eq!(hit.header("x-gateway-complete"), Some("true"));
    let status = hit.header("cache-status").expect("it has one");
    assert!(status.starts_with("gateway/one; hit; ttl="), "{status}");
    for document in [&miss, &hit] {
        let lifetime = document.header("cache-control").expect("it has one");
        let seconds: u64 = lifetime
            .strip_prefix("max-age=")
            .expect("a lifetime")
            .parse()
            .expect("a number");
        assert!(seconds <= 100, "{lifetime}");
    }
    assert_eq!(miss.header("etag"), hit.header("etag"));
    assert_eq!((asked(&first), asked(&second)), (1, 2));
    let lines = eventually(
        Duration::from_secs(30),
        "both requests are in the access log",
        || async {
            let log = std::fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
            let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (lines.len() == 2).then_some(lines)
        },
    )
    .await;
    assert_eq!((&lines[0]["attempts"], &lines[1]["attempts"]), (&json!(2), &json!(1)));
    let entries = lines[1]["attempt_details"].as_array().expect("a list");
    let outcomes: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["part"], &entry["outcome"]))
        .collect();
    assert!(outcomes.contains(&(&json!("one"), &json!("cached"))), "{:#}", lines[1]);
}

#[tokio::test]
async fn each_element_is_stored_by_itself() {
    let fleet = fleet().await;
    let parts = "cart: { backend: first, path: /cart }, \
                 stock: { backend: second, path: \"/stock/{item}\", for_each: { in: \"{part.cart}\" }, cache: {} }";
    let gateway = start(config(&fleet, parts)).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    second
        .behave(answers("cache-control: max-age=600\r\n", &json!({ "n": 1 })))
        .await;
    let page = async |cart: Value| {
        first.behave(answers("", &cart)).await;
        let page = gateway.get("/page").send().await.expect(200);
        assert_eq!(
            page.json()["stock"].as_array().map(Vec::len),
            cart.as_array().map(Vec::len)
        );
        let paths: Vec<_> = second
            .take_requests()
            .into_iter()
            .map(|request| request.target)
            .collect();
        (paths, page.header("cache-status").unwrap_or_default().to_owned())
    };
    let (mut paths, status) = page(json!(["a", "b", "a"])).await;
    paths.sort();
    assert_eq!(
        paths,
        ["/stock/a", "/stock/b"],
        "two elements that are alike are asked for once"
    );
    assert!(status.ends_with("; calls=3; hits=0"), "{status}");
    let (paths, status) = page(json!(["c", "b", "a"])).await;
    assert_eq!(paths, ["/stock/c"]);
    assert!(
        status.starts_with("gateway/stock; fwd=uri-miss") && status.ends_with("; calls=3; hits=2"),
        "{status}"
    );
    let (paths, status) = page(json!(["c", "a"])).await;
    assert!(paths.is_empty());
    assert!(status.starts_with("gateway/stock; hit; ttl="), "{status}");
}

#[tokio::test]
async fn nobody_gets_a_part_that_was_answered_to_another() {
    let fleet = fleet().await;
    let parts = "one: { backend: first, path: \"/one/{query.q}\", headers: { x-q: \"{query.h}\" }, \
                 forward: all, cache: {} }";
    let gateway = start(config(&fleet, parts)).await;
    let first = fleet.backend("first");
    let page = async |query: &str, key: &str, cookie: &str, head: &str| {
        let own = format!("{query} {key} {cookie}");
        first.behave(answers(head, &json!(own))).await;
        let path = format!("/page?{query}");
        let page = gateway.get(&path).key(key).header("cookie", cookie);
        page.send().await.expect(200).json()["one"].as_str().map(str::to_owned)
    };
    let plain = "cache-control: max-age=600\r\n";
    for query in ["q=1&h=1", "q=1&h=2", "q=2&h=1"] {
        for key in ["key-acme-1", "key-acme-2", "key-other-1"] {
            for cookie in ["s=1", "s=2"] {
                let own = format!("{query} {key} {cookie}");
                assert_eq!(page(query, key, cookie, plain).await, Some(own.clone()));
                assert_eq!(page(query, key, cookie, "cache-control: no-store\r\n").await, Some(own));
            }
        }
    }
    assert_eq!(asked(&first), 18, "each asked once");
    // Shared by those for whom the answer says it is: here the field is one that the gateway writes.
    let of_tenant = "cache-control: public, max-age=600\r\nvary: x-tenant-id\r\n";
    let own = Some("q=9&h=1 key-acme-1 s=1".to_owned());
    assert_eq!(page("q=9&h=1", "key-acme-1", "s=1", of_tenant).await, own);
    assert_eq!(page("q=9&h=1", "key-acme-2", "s=2", of_tenant).await, own);
    let other = page("q=9&h=1", "key-other-1", "s=1", of_tenant).await;
    assert_eq!(other.as_deref(), Some("q=9&h=1 key-other-1 s=1"));
}

#[tokio::test]
async fn a_part_is_confirmed_covered_and_renewed() {
    let fleet = fleet().await;
    let parts =
        "one: { backend: first, path: /one, cache: { stale_if_error: 1h } }, two: { backend: second, path: /two }";
    let gateway = start(config(&fleet, parts)).await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    second.behave(answers("", &json!(2))).await;
    first
        .behave(answers("cache-control: max-age=0\r\netag: \"7\"\r\n", &json!("good")))
        .await;
    let fresh = gateway.get("/page").send().await.expect(200);
    assert_eq!(fresh.header("x-gateway-complete"), Some("true"));
    first.take_requests();
    first
        .behave(Behaviour::raw(
            "HTTP/1.1 304 Not Modified\r\nconnection: close\r\netag: \"7\"\r\ncache-control: max-age=0\r\n\r\n",
        ))
        .await;
    let confirmed = gateway.get("/page").send().await.expect(200);
    assert_eq!(confirmed.json()["one"], "good");
    assert_eq!(confirmed.header("x-gateway-complete"), Some("true"));
    assert_eq!(
        confirmed.header("cache-status"),
        Some("gateway/one; fwd=stale; fwd-status=304; stored")
    );
    assert_eq!(first.take_requests()[0].header("if-none-match"), Some("\"7\""));
    for outage in [
        Behaviour::status(503),
        Behaviour::always(Fault::Reset),
        Behaviour::always(Fault::Garbage),
    ] {
        first.behave(outage.clone()).await;
        let covered = gateway.get("/page").send().await.expect(200);
        assert_eq!(covered.json()["one"], "good", "{outage:?}");
        assert_eq!(covered.header("x-gateway-complete"), Some("false"));
        assert_eq!(covered.header("cache-control"), Some("no-store"));
        let status = covered.header("cache-status").unwrap_or_default().to_owned();
        assert!(status.ends_with("detail=stale-if-error"), "{status}");
        assert!(
            covered
                .header("proxy-status")
                .is_some_and(|entry| entry.contains("one"))
        );
    }
    let later = "cache-control: max-age=0, stale-while-revalidate=3600\r\n";
    first.behave(answers(later, &json!("old"))).await;
    assert_eq!(gateway.get("/page").send().await.json()["one"], "old");
    first.take_requests();
    first
        .behave(answers("cache-control: max-age=600\r\n", &json!("new")))
        .await;
    first.close_gate();
    // The backend has not answered yet, so these cannot have waited for it.
    for _ in 0..3 {
        let stale = gateway.get("/page").send().await.expect(200);
        assert_eq!(stale.json()["one"], "old");
    }
    first.open_gate();
    eventually(Duration::from_secs(30), "the newer answer is used", async || {
        (gateway.get("/page").send().await.json()["one"] == "new").then_some(())
    })
    .await;
    assert_eq!(asked(&first), 1, "it is fetched once");
}

#[tokio::test]
async fn a_change_and_a_purge_end_the_use_of_a_part() {
    let fleet = fleet().await;
    let parts = "one: { backend: first, path: /one, cache: {} }";
    let config = config(&fleet, parts)
        .route(
            "own",
            "{ match: { path: /own }, access: { any_of: [anonymous] }, backend: first, rewrite: /one }",
        )
        .route(
            "change",
            "{ match: { path: /change }, access: { any_of: [anonymous] }, \
             aggregate: { parts: { one: { backend: first, path: /one, method: PUT, body: { a: 1 } } } } }",
        );
    let gateway = start(config).await;
    let first = fleet.backend("first");
    first
        .behave(answers("cache-control: max-age=600\r\n", &json!({ "a": 1 })))
        .await;
    let is_asked = async || {
        first.take_requests();
        gateway.get("/page").send().await.expect(200);
        asked(&first) == 1
    };
    assert!(is_asked().await && !is_asked().await);
    gateway.post("/own").body("b").send().await.expect(200);
    assert!(is_asked().await && !is_asked().await, "a route has changed it");
    gateway.post("/change").body("{}").send().await.expect(200);
    assert!(is_asked().await && !is_asked().await, "a part has changed it");
    let purge = async |what: Value| {
        let admin = Client::to(gateway.admin_address());
        let ask = admin.post("/api/v1/cache/purge").bearer(TOKEN);
        ask.body(what.to_string()).send().await.expect(200).json()["purged"].as_u64()
    };
    assert_eq!(purge(json!({ "uri": "/one" })).await, Some(1));
    assert!(is_asked().await && !is_asked().await);
    assert_eq!(purge(json!({ "route": "page" })).await, Some(1));
    assert!(is_asked().await && !is_asked().await);
}
