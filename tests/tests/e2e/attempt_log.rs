//! Checks what the access log and the list of rejections tell of the attempts of a request: which endpoint was asked,
//! when, and with what result.

use fixtures::fleet::{Behaviour, Fault, Fleet, Latency};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::{SOON, backends};

/// A gateway before three backends. `routes` adds routes to it.
async fn start(routes: impl FnOnce(Config) -> Config) -> (Fleet, Gateway) {
    let (fleet, [one, two, three]) = backends(["one", "two", "three"]).await;
    let retried = "retry: { attempts: 2, backoff: 20ms..20ms, jitter: 0.0 }, breaker: off, attempt_limit: 200ms";
    let config = Config::default()
        .top("access_log: { file: access.log }")
        .open("one", one.address(), retried)
        .backend("two", two.address(), "retry: off")
        .backend(
            "three",
            three.address(),
            "retry: off, breaker: { min_calls: 1, open_for: 1h }",
        );
    let gateway = Gateway::start(routes(config).to_string()).await;
    (fleet, gateway)
}

/// Returns the line of the access log for this path.
async fn line(gateway: &Gateway, path: &str) -> Value {
    eventually(SOON, "the request is in the access log", || async {
        let log = std::fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
        let mut whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.find_map(|line| {
            let line: Value = serde_json::from_str(line).expect("a line is JSON");
            (line["path"] == path).then_some(line)
        })
    })
    .await
}

fn list(line: &Value) -> &[Value] {
    line["attempt_details"].as_array().map_or(&[], Vec::as_slice)
}

/// Returns these fields of each attempt, separated by blanks; `-` for one that is left out.
fn fields(line: &Value, names: &[&str]) -> Vec<String> {
    let text = |attempt: &Value, name: &&str| match &attempt[*name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |attempt| {
        names
            .iter()
            .map(|name| text(attempt, name))
            .collect::<Vec<_>>()
            .join(" ")
    };
    list(line).iter().map(row).collect()
}

/// Returns a time of an attempt in milliseconds.
fn time(attempt: &Value, name: &str) -> f64 {
    attempt[name].as_f64().unwrap_or_else(|| panic!("{name}: {attempt:#}"))
}

#[tokio::test]
async fn each_attempt_is_in_the_log_with_its_times() {
    let (fleet, gateway) = start(|config| config).await;
    let one = fleet.backend("one");
    one.next([Behaviour::status(503)]);
    gateway.get("/one/echo").send().await.expect(200);
    let line = line(&gateway, "/one/echo").await;
    let url = format!("http://{}", one.address());
    assert_eq!(
        fields(&line, &["backend", "endpoint", "outcome", "status", "part", "reason"]),
        [
            format!("one {url} failed_status 503 - -"),
            format!("one {url} answered 200 - -")
        ],
        "{line:#}"
    );
    let [first, second] = list(&line) else {
        panic!("{line:#}")
    };
    // The wait lies between the two, and all within the time of the request.
    let gap = time(second, "start_ms") - time(first, "start_ms") - time(first, "took_ms");
    assert!((gap - time(second, "backoff_ms")).abs() < 0.01, "{line:#}");
    assert!(
        time(second, "backoff_ms") >= 20.0 && first["backoff_ms"].is_null(),
        "{line:#}"
    );
    assert!(time(second, "first_byte_ms") <= time(second, "took_ms"), "{line:#}");
    let end = time(second, "start_ms") + time(second, "took_ms");
    assert!((end - time(&line, "used_ms")).abs() < 0.01, "{line:#}");
    // The fields of the whole request derive from them.
    assert_eq!(
        (&line["attempts"], &line["attempts_left_out"]),
        (&2.into(), &Value::Null)
    );
    assert!(
        (time(&line, "connect_ms") - time(first, "connect_ms")).abs() < 0.01,
        "{line:#}"
    );
    let head = time(second, "start_ms") + time(second, "first_byte_ms");
    assert!((head - time(&line, "first_byte_ms")).abs() < 0.01, "{line:#}");
}

#[tokio::test]
async fn the_result_of_an_attempt_is_the_one_of_its_answer() {
    let (fleet, gateway) = start(|config| config).await;
    let one = fleet.backend("one");
    let both = |behaviour: &Behaviour| [behaviour.clone(), behaviour.clone()];
    let hangs = Behaviour::always(Fault::Hang);
    one.next(both(&hangs));
    gateway.get("/one/hang").send().await.refusal(504, "backend_timeout");
    let hung = line(&gateway, "/one/hang").await;
    assert_eq!(fields(&hung, &["outcome", "status"]), ["timed_out -", "timed_out -"]);
    assert!(
        list(&hung).iter().all(|attempt| time(attempt, "took_ms") >= 199.0),
        "{hung:#}"
    );
    // An answer that breaks off after its head, and a caller that leaves.
    one.next([Behaviour::always(Fault::ResetMidBody)]);
    let _ = gateway.get("/one/cut").try_send().await;
    let cut = line(&gateway, "/one/cut").await;
    assert_eq!(fields(&cut, &["outcome", "status"]), ["broken 200"], "{cut:#}");
    one.next([Behaviour::late(Latency::fixed(60_000))]);
    let mut caller = gateway.connect().await;
    caller.send("GET /one/left HTTP/1.1\r\nhost: a\r\n\r\n").await;
    one.wait_for(|counts| counts.requests >= 4, SOON)
        .await
        .expect("it is asked");
    // A reset says at once that nobody waits; to a caller that only closes, the gateway speaks first.
    caller.reset();
    let left = line(&gateway, "/one/left").await;
    assert_eq!(
        (&left["reason"], &left["attempts"]),
        (&"caller_gone".into(), &1.into()),
        "{left:#}"
    );
    assert_eq!(fields(&left, &["outcome"]), ["cancelled"], "{left:#}");
}

#[tokio::test]
async fn each_part_of_an_aggregate_is_in_the_log() {
    let parts = r#"good: { backend: two, path: "/echo?good" }, bad: { backend: three, path: /status/500 },
                   text: { backend: two, path: /bytes/9 }, late: { backend: two, path: "/echo?late", needs: [bad] },
                   each: { backend: two, path: "/echo?{item}", for_each: { in: "{body}", limit: 99 } }"#;
    let (_fleet, gateway) = start(|config| {
        config.route(
            "parts",
            &format!(
                "{{ match: {{ path: \"/parts/{{id}}\", methods: [POST] }}, access: {{ any_of: [anonymous] }}, \
                 aggregate: {{ partial: allow, parts: {{ {parts} }} }} }}"
            ),
        )
    })
    .await;
    gateway.post("/parts/1").body("[7, 8]").send().await.expect(200);
    let first = line(&gateway, "/parts/1").await;
    let names = ["part", "element", "backend", "outcome", "status", "reason"];
    let mut found = fields(&first, &names);
    let last = found.pop();
    assert_eq!(last.as_deref(), Some("late - two refused - need_failed"), "{first:#}");
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "bad - three failed_status 500 -",
            "each 0 two answered 200 -",
            "each 1 two answered 200 -",
            "good - two answered 200 -",
            "text - two invalid 200 invalid_json",
        ],
        "{first:#}"
    );
    assert_eq!(first["attempts"], 5, "{first:#}");
    let starts: Vec<_> = list(&first)[..5].iter().map(|part| time(part, "start_ms")).collect();
    assert!(starts.is_sorted(), "{first:#}");
    for part in &list(&first)[..5] {
        assert!(
            time(part, "start_ms") + time(part, "took_ms") <= time(&first, "used_ms"),
            "{first:#}"
        );
    }
    // Elements do not crowd out the other parts, and the line is bounded.
    let elements: Vec<_> = (0..60).collect();
    gateway
        .post("/parts/2")
        .body(json!(elements).to_string())
        .send()
        .await
        .expect(200);
    let second = line(&gateway, "/parts/2").await;
    let mut parts = fields(&second, &["part"]);
    parts.retain(|part| part != "each");
    parts.sort_unstable();
    assert_eq!(parts, ["bad", "good", "late", "text"], "{second:#}");
    assert_eq!(
        (list(&second).len(), &second["attempts_left_out"]),
        (16 + 4, &44.into()),
        "{second:#}"
    );
    assert_eq!(
        fields(&second, &["part", "outcome", "reason"])[1],
        "bad refused breaker_open",
        "{second:#}"
    );
    assert_eq!(second["attempts"], 62, "{second:#}");
}

#[tokio::test]
async fn a_fallback_is_one_more_backend_that_is_asked() {
    let route = "{ match: { path: \"/x/{id}\" }, access: { any_of: [anonymous] }, backend: three, rewrite: /echo, \
                 fallback: [{ backend: two }, { value: {} }] }";
    let (fleet, gateway) = start(|config| config.route("x", route)).await;
    fleet.backend("three").behave(Behaviour::status(500)).await;
    gateway.get("/x/1").send().await.expect(200);
    let first = line(&gateway, "/x/1").await;
    let names = ["backend", "outcome", "status", "reason"];
    assert_eq!(
        fields(&first, &names),
        ["three failed_status 500 -", "two answered 200 -"],
        "{first:#}"
    );
    // The breaker is open now, so nothing is sent to the first.
    fleet.backend("two").behave(Behaviour::status(503)).await;
    gateway.get("/x/2").send().await.expect(200);
    let second = line(&gateway, "/x/2").await;
    assert_eq!(
        fields(&second, &names),
        ["three refused - breaker_open", "two failed_status 503 -"],
        "{second:#}"
    );
    assert_eq!(
        (&second["attempts"], time(&list(&second)[0], "took_ms")),
        (&1.into(), 0.0)
    );
}

#[tokio::test]
async fn a_rejection_shows_who_was_asked() {
    let (fleet, gateway) = start(|config| config).await;
    fleet.backend("one").behave(Behaviour::refusing()).await;
    gateway.get("/one/echo").send().await.refusal(502, "backend_unreached");
    let listed = gateway.admin_json("/api/v1/rejections").await;
    let rejection = &listed["rejections"][0];
    assert_eq!(
        fields(rejection, &["backend", "outcome"]),
        ["one unreached", "one unreached"],
        "{rejection:#}"
    );
    assert_eq!(rejection["attempts_left_out"], 0);
    gateway.get("/nowhere").send().await.refusal(404, "no_route");
    let listed = gateway.admin_json("/api/v1/rejections").await;
    assert_eq!(listed["rejections"][0]["attempt_details"], Value::Array(vec![]));
}

#[tokio::test]
async fn every_request_has_a_trace_id() {
    let (fleet, gateway) = start(|config| config).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    gateway.get("/one/theirs").header("traceparent", parent).send().await;
    assert_eq!(
        line(&gateway, "/one/theirs").await["trace_id"],
        "0af7651916cd43dd8448eb211c80319c"
    );
    fleet.backend("one").take_requests();
    gateway.get("/one/ours").send().await;
    let sent = fleet.backend("one").take_requests().remove(0);
    let sent = sent.header("traceparent").expect("every request has one").to_owned();
    let logged = line(&gateway, "/one/ours").await["trace_id"].clone();
    assert_eq!(logged.as_str(), sent.get(3..35), "{sent}");
    // Refused before any backend is asked: the caller's trace, or one that nobody else has seen.
    gateway
        .get("/nowhere/1")
        .header("traceparent", parent)
        .send()
        .await
        .expect(404);
    assert_eq!(
        line(&gateway, "/nowhere/1").await["trace_id"],
        "0af7651916cd43dd8448eb211c80319c"
    );
    gateway
        .get("/nowhere/2")
        .header("traceparent", "00-0-0-0")
        .send()
        .await
        .expect(404);
    let own = line(&gateway, "/nowhere/2").await["trace_id"].clone();
    assert_eq!(own.as_str().map(str::len), Some(32), "{own}");
}
