//! Checks costs that are read from answers: they are reserved before a request is sent and settled at its end, however it
//! ends; no stream waits for being read.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::language_model::{LanguageModel, Usage};
use futures_util::future::join_all;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::http2_caller::Http2;
use tests::{Answer, Ask, Gateway, Setup, Streaming, eventually};

use crate::SOON;

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
overload: off
usage: {}
tiers: { open: { rate: 1/h, burst: 10000, in_flight: 10000, quotas: { units: { limit: 100000, every: month } } } }
default_tier: open
callers: { api_keys: { file: keys.yaml } }
"#;

const OPENAI: &str = "body: usage.total_tokens, quotas: [units], reserve: { max: [body.max_tokens, body.max_completion_tokens], most: 20000 }";
const ANTHROPIC: &str =
    "body: [usage.input_tokens|message.usage.input_tokens, usage.output_tokens], reserve: { max: body.max_tokens }";

/// A gateway with the route `/chat` to the model, which has a budget of so many units for each tenant.
async fn start(model: &LanguageModel, cost: &str, budget: u64) -> Gateway {
    let keys = key_file(&["a", "b"].map(|name| KeyLine::new(name, name, &format!("{name}-key"))));
    let config = Config::with(TOP)
        .backend(
            "model",
            model.address(),
            "retry: off, breaker: off, ejection: off, bulkhead: { limit: 1000, streams: 1000 }",
        )
        .route(
            "chat",
            &format!(
                "{{ match: {{ path: /chat }}, cost: {{ {cost} }}, limits: {{ budget: {{ rate: 1/h, burst: {budget} }}, \
                 calls: {{ rate: 1/h, burst: 1000, cost: 1 }} }}, body_limit: 8KiB, backend: model }}"
            ),
        )
        .route("other", "{ match: { path: /other }, backend: model }");
    Setup::new(config.to_string()).file("keys.yaml", keys).start().await
}

fn ask(gateway: &Gateway, body: &Value) -> Ask {
    gateway.post("/chat").key("a-key").body(body.to_string())
}

fn prompt(body: &Value) -> u64 {
    body.to_string().len().div_ceil(4) as u64
}

/// What the metrics say of the units of `/chat`: reserved, beyond, refunded, settled.
async fn units(gateway: &Gateway) -> [u64; 4] {
    let page = gateway.metrics().await;
    ["reserved", "beyond", "refunded", "settled"].map(|event| {
        let labels = [("route", "chat"), ("event", event)];
        page.sum("gateway_cost_units_total", &labels).unwrap_or(0.0) as u64
    })
}

async fn settled_requests(gateway: &Gateway, by: &str, count: f64) {
    let labels = [("route", "chat"), ("by", by)];
    gateway
        .metric_becomes("gateway_cost_settlements_total", &labels, count)
        .await;
}

/// What is left of the limits of a request's answer, by their names.
fn left(answer: &Answer, limit: &str) -> u64 {
    let line = answer.header("ratelimit").expect("what was charged is told");
    let of_limit = line.split(", ").find(|one| one.starts_with(&format!("\"{limit}\"")));
    let left = of_limit.and_then(|one| one.split(';').find_map(|field| field.strip_prefix("r=")));
    left.and_then(|left| left.parse().ok())
        .unwrap_or_else(|| panic!("{limit} in {line}"))
}

async fn read_to_the_end(mut stream: Streaming) -> String {
    let mut text = Vec::new();
    while let Some(piece) = stream.piece().await.expect("no break") {
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).expect("events are text")
}

#[tokio::test]
async fn fifty_streams_at_once_never_use_more_than_the_budget() {
    const BUDGET: u64 = 5000;
    let model = LanguageModel::start_gated(Usage::Last).await.expect("a port is free");
    let gateway = start(&model, OPENAI, BUDGET).await;
    let body = json!({ "stream": true, "max_tokens": 200, "messages": [{ "role": "user", "content": "Hello there" }] });
    let reserved = prompt(&body) + 200;
    // All of them are under way at once: the model generates nothing yet.
    let opened = join_all((0..50).map(|_| ask(&gateway, &body).open())).await;
    let (mut streams, mut refused) = (Vec::new(), 0);
    for stream in opened {
        let stream = stream.expect("a head");
        match stream.status {
            200 => streams.push(stream),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        (streams.len() as u64, refused),
        (BUDGET / reserved, 50 - BUDGET / reserved)
    );
    model.allow(1_000_000);
    for text in join_all(streams.into_iter().map(read_to_the_end)).await {
        assert_eq!(text.matches("word").count(), 200);
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    assert!(model.used() <= BUDGET, "{} used of {BUDGET}", model.used());
    settled_requests(&gateway, "usage", (BUDGET / reserved) as f64).await;
    let [reserved_in_all, beyond, refunded, settled] = units(&gateway).await;
    assert_eq!((settled, beyond), (model.used(), 0));
    assert_eq!(reserved_in_all, settled + refunded);
    // Another tenant has a budget of its own.
    let small = json!({ "max_tokens": 1 });
    gateway
        .post("/chat")
        .key("b-key")
        .body(small.to_string())
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn a_stream_that_its_caller_leaves_is_paid_for_and_ended() {
    let model = LanguageModel::start_gated(Usage::Never).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let body = json!({ "stream": true, "max_tokens": 1000 });
    let mut stream = ask(&gateway, &body).open().await.expect("a head");
    model.allow(3);
    let mut text = String::new();
    while text.matches("word").count() < 3 {
        let piece = stream.piece().await.expect("no break").expect("more");
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    drop(stream);
    // The gateway learns of it when it writes.
    eventually(SOON, "the call is ended", || async {
        model.allow(1);
        (model.cut() == 1).then_some(())
    })
    .await;
    settled_requests(&gateway, "estimate", 1.0).await;
    let [reserved, beyond, refunded, settled] = units(&gateway).await;
    let prompt = prompt(&body);
    assert_eq!((reserved, beyond, reserved - refunded), (prompt + 1000, 0, settled));
    assert!(model.generated() < 1000, "it went on");
    assert!(
        (prompt + 3..=prompt + model.generated()).contains(&settled),
        "{settled}"
    );
    // Its cost is in the log and in the bill.
    let log = gateway.stdout();
    let line = log
        .lines()
        .find(|line| line.contains("\"cost_by\":\"estimate\""))
        .expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["cost"], &line["reserved"]), (&json!(settled), &json!(reserved)));
}

#[tokio::test]
async fn no_event_waits_for_the_next_one() {
    for (usage, cost) in [(Usage::Last, OPENAI), (Usage::Split, ANTHROPIC)] {
        let model = LanguageModel::start_gated(usage).await.expect("a port is free");
        let gateway = start(&model, cost, 5000).await;
        let body = json!({ "stream": true, "max_tokens": 20 });
        let mut stream = ask(&gateway, &body).open().await.expect("a head");
        let mut text = String::new();
        for number in 1..=20 {
            model.allow(1);
            while text.matches("word").count() < number {
                let piece = stream.piece().await.expect("no break").expect("more");
                text.push_str(&String::from_utf8_lossy(&piece));
            }
            assert_eq!(model.generated(), number as u64, "the next one is not there yet");
        }
        text.push_str(&read_to_the_end(stream).await);
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        settled_requests(&gateway, "usage", 1.0).await;
        assert_eq!(units(&gateway).await, [prompt(&body) + 20, 0, 0, prompt(&body) + 20]);
    }
}

#[tokio::test]
async fn each_form_of_usage_is_charged_and_the_bill_is_exact() {
    for (usage, cost, by) in [
        (Usage::Last, OPENAI, "usage"),
        (Usage::Split, ANTHROPIC, "usage"),
        (Usage::Never, OPENAI, "estimate"),
    ] {
        let model = LanguageModel::start(usage).await.expect("a port is free");
        let gateway = start(&model, cost, 5000).await;
        let bodies = [
            json!({ "stream": true, "max_tokens": 300, "generate": 7 }),
            json!({ "max_tokens": 300, "generate": 7 }),
            json!({ "stream": true, "max_tokens": 100, "n": 2, "generate": 150 }),
        ];
        let mut reserved = 0;
        for body in &bodies {
            ask(&gateway, body).send().await.expect(200);
            reserved += prompt(body) + body["max_tokens"].as_u64().unwrap() * body["n"].as_u64().unwrap_or(1);
        }
        settled_requests(&gateway, by, 3.0).await;
        assert_eq!(
            units(&gateway).await,
            [reserved, 0, reserved - model.used(), model.used()],
            "{usage:?}"
        );
        // The bucket, and the bill.
        let last = json!({ "max_tokens": 1 });
        let answer = ask(&gateway, &last).send().await.expect(200);
        let expected = 5000 - (model.used() - prompt(&last) - 1) - (prompt(&last) + 1);
        assert_eq!(left(&answer, "budget"), expected, "{usage:?}");
        settled_requests(&gateway, by, 4.0).await;
        eventually(SOON, "the bill is written", || async {
            let report = gateway.admin_json("/api/v1/usage?by=day").await;
            let is_there = report.to_string().contains(&format!("\"cost\":{}", model.used()));
            is_there.then_some(())
        })
        .await;
        for (head, body) in model.requests() {
            assert!(head.to_lowercase().contains("accept-encoding: identity"), "{head}");
            let sent = bodies
                .iter()
                .chain([&last])
                .any(|asked| asked.to_string().as_bytes() == body);
            assert!(sent, "the same bytes: {}", String::from_utf8_lossy(&body));
        }
    }
}

#[tokio::test]
async fn what_yields_nothing_costs_nothing() {
    let model = LanguageModel::start(Usage::Last).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    for status in [400, 500] {
        ask(&gateway, &json!({ "max_tokens": 100, "fail": status }))
            .send()
            .await
            .expect(status);
    }
    settled_requests(&gateway, "refund", 2.0).await;
    let answer = ask(&gateway, &json!({ "max_tokens": 100 })).send().await.expect(200);
    assert_eq!(
        left(&answer, "budget"),
        5000 - prompt(&json!({ "max_tokens": 100 })) - 100
    );
    assert_eq!(left(&answer, "calls"), 997, "each of them was a request");
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_paid_for_what_it_gave() {
    let model = LanguageModel::start(Usage::Never).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let body = json!({ "stream": true, "max_tokens": 100, "break_after": 2 });
    let mut stream = ask(&gateway, &body).open().await.expect("a head");
    while let Ok(Some(_)) = stream.piece().await {}
    settled_requests(&gateway, "estimate", 1.0).await;
    assert_eq!(units(&gateway).await, [prompt(&body) + 100, 0, 98, prompt(&body) + 2]);
}

#[tokio::test]
async fn a_caller_that_leaves_before_an_answer_pays_for_what_it_asked() {
    let model = LanguageModel::start_gated(Usage::Last).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let body = json!({ "max_tokens": 100 });
    let asked = ask(&gateway, &body);
    let leaves = tokio::spawn(asked.try_send());
    eventually(SOON, "the model is asked", || async {
        (model.requests().len() == 1).then_some(())
    })
    .await;
    leaves.abort();
    settled_requests(&gateway, "reservation", 1.0).await;
    assert_eq!(units(&gateway).await, [prompt(&body) + 100, 0, 0, prompt(&body) + 100]);
    eventually(SOON, "the call is ended", || async { (model.cut() == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_body_that_hides_what_it_may_cost_is_refused() {
    let model = LanguageModel::start(Usage::Last).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let cases = [
        ("{}", 400, "cost_unknown"),
        (r#"{"max_tokens":-1}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":1e400}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":1.5}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":"7"}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":99999999999999999999}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":20001}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":1,"Max_Tokens":4000}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":1,"n":"9"}"#, 400, "cost_unknown"),
        (r#"{"max_tokens":1,"max_tokens":4000}"#, 400, "malformed_request"),
        (r#"{"max_tokens":1} {"max_tokens":4000}"#, 400, "malformed_request"),
        ("max_tokens=1", 400, "malformed_request"),
        ("", 400, "cost_unknown"),
        (r#"{"max_tokens":5000}"#, 400, "cost_too_high"),
        (r#"{"max_tokens":1,"max_completion_tokens":5000}"#, 400, "cost_too_high"),
        (r#"{"max_tokens":1000,"n":5}"#, 400, "cost_too_high"),
    ];
    for (body, status, reason) in cases {
        let answer = gateway.post("/chat").key("a-key").body(body).send().await;
        answer.refusal(status, reason);
        assert_eq!(answer.header("retry-after"), None, "no wait helps: {body}");
    }
    let deep = format!("{{\"max_tokens\":1,\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    gateway
        .post("/chat")
        .key("a-key")
        .body(deep)
        .send()
        .await
        .refusal(400, "malformed_request");
    let long = format!("{{\"max_tokens\":1,\"x\":\"{}\"}}", "x".repeat(8 << 10));
    gateway
        .post("/chat")
        .key("a-key")
        .body(long)
        .send()
        .await
        .refusal(413, "body_too_large");
    assert_eq!(model.requests().len(), 0, "nothing was sent");
    // Each of them was charged as a request, and one unit.
    let body = json!({ "max_tokens": 1 });
    let answer = ask(&gateway, &body).send().await.expect(200);
    let refused = cases.len() as u64 + 2;
    assert_eq!(left(&answer, "calls"), 999 - refused);
    assert_eq!(left(&answer, "budget"), 5000 - refused - prompt(&body) - 1);
}

#[tokio::test]
async fn a_quota_of_units_counts_nothing_else() {
    let model = LanguageModel::start(Usage::Last).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let body = json!({ "max_tokens": 10 });
    for _ in 0..3 {
        let answer = gateway
            .post("/other")
            .key("a-key")
            .body(body.to_string())
            .send()
            .await
            .expect(200);
        assert!(!answer.header("ratelimit").expect("limits are told").contains("units"));
    }
    let answer = ask(&gateway, &body).send().await.expect(200);
    assert_eq!(left(&answer, "units"), 100_000 - prompt(&body) - 10);
    assert_eq!(left(&answer, "open"), 9_996, "the tier counts requests");
}

#[tokio::test]
async fn a_caller_that_does_not_read_pays_for_what_has_arrived() {
    let model = LanguageModel::start(Usage::Last).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let body = json!({ "stream": true, "max_tokens": 1000 });
    let stream = ask(&gateway, &body).open().await.expect("a head");
    eventually(SOON, "all of it is generated", || async {
        (model.generated() == 1000).then_some(())
    })
    .await;
    drop(stream);
    eventually(SOON, "it is settled", || async {
        let [reserved, beyond, refunded, settled] = units(&gateway).await;
        let prompt = prompt(&body);
        let is_over = settled > 0 && (reserved, beyond) == (settled + refunded, 0);
        (is_over && settled == prompt + 1000).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_of_one_http2_connection_are_settled_one_by_one() {
    let model = LanguageModel::start_gated(Usage::Never).await.expect("a port is free");
    let gateway = start(&model, OPENAI, 5000).await;
    let caller = Http2::connect(gateway.address()).await;
    let body = json!({ "stream": true, "max_tokens": 50 });
    let open = async || {
        let mut request = caller.request(Method::POST, "/chat");
        let key = HeaderValue::from_static("a-key");
        request.headers_mut().insert("x-api-key", key);
        let mut stream = caller.send(request, false).await.expect("a stream");
        let data = body.to_string().into();
        stream.upload.send_data(data, true).expect("the body is taken");
        stream
    };
    let (left, read) = (open().await, open().await);
    eventually(SOON, "both are asked", || async {
        (model.requests().len() == 2).then_some(())
    })
    .await;
    left.cancel();
    eventually(SOON, "the call is ended", || async { (model.cut() == 1).then_some(()) }).await;
    model.allow(50);
    let whole = read.whole().await.expect("a whole answer");
    assert_eq!(whole.text().matches("word").count(), 50);
    eventually(SOON, "both are settled", || async {
        let [reserved, beyond, refunded, settled] = units(&gateway).await;
        let (prompt, is_over) = (prompt(&body), settled + refunded == reserved);
        (is_over && beyond == 0 && settled >= 2 * prompt + 50 && settled <= 2 * (prompt + 50)).then_some(())
    })
    .await;
}
