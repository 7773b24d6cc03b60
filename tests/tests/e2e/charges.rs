//! Checks the final cost of a request: charges reported by all backends are added, and nothing is given back for a
//! request whose own caller gave it no time.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle, Spec};
use tests::configs::Config;
use tests::{Answer, Gateway, Setup};

use crate::SOON;

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
tiers: { trickle: { rate: 1/h, burst: 1000 } }
default_tier: trickle
callers: { api_keys: { file: keys.yaml } }
"#;

async fn start(config: Config) -> Gateway {
    let keys = key_file(&["a", "b"].map(|name| KeyLine::new(name, name, &format!("{name}-key"))));
    Setup::new(config.to_string()).file("keys.yaml", keys).start().await
}

/// Two backends behind three routes: `/one` falls back from the first to the second, `/all` asks both, and `/again` asks
/// the first again after a 503. Each costs 10 where nobody says otherwise.
async fn start_priced() -> (Fleet, [Handle; 2], Gateway) {
    let fleet = Fleet::start(["first", "second", "third"].map(Spec::new))
        .await
        .expect("ports are free");
    let backends = ["first", "second"].map(|name| fleet.backend(name));
    let priced = "cost: 10, cost_header: x-tokens";
    let part = |backend: &str| format!("{backend}: {{ backend: {backend}, path: /x }}");
    let config = Config::with(TOP)
        .backend("first", backends[0].address(), "retry: off, breaker: off")
        .backend("second", backends[1].address(), "retry: off, breaker: off")
        .backend(
            "stubborn",
            backends[0].address(),
            "breaker: off, retry: { attempts: 2, backoff: 1ms..2ms }",
        )
        .route(
            "one",
            &format!("{{ match: {{ path: /one }}, {priced}, backend: first, fallback: {{ backend: second }} }}"),
        )
        .route(
            "again",
            &format!("{{ match: {{ path: /again }}, {priced}, backend: stubborn }}"),
        )
        .route(
            "all",
            &format!(
                "{{ match: {{ path: /all }}, {priced}, aggregate: {{ partial: allow, headers: {{ x-tokens: first }}, parts: {{ {}, {} }} }} }}",
                part("first"),
                part("second")
            ),
        );
    (fleet, backends, start(config).await)
}

/// An answer with a statement of its cost, if there is one.
fn states(status: u16, cost: Option<&str>) -> Behaviour {
    let line = cost.map_or_else(String::new, |cost| format!("x-tokens: {cost}\r\n"));
    Behaviour::raw(format!(
        "HTTP/1.1 {status} Some\r\n{line}content-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    ))
}

fn left(answer: &Answer) -> u64 {
    let line = answer.header("ratelimit").expect("what was charged is told");
    let left = line.split(';').find_map(|field| field.strip_prefix("r="));
    left.and_then(|left| left.parse().ok()).expect("a number")
}

const MUCH: &str = "99999999999999999999";

#[tokio::test]
async fn a_request_costs_what_all_that_answered_say_together() {
    let (_fleet, [first, second], gateway) = start_priced().await;
    // Each row: path, answer of the first backend, answer of the second, balance that is left of 1,000 tokens.
    let cases = [
        ("/one", (500, Some("300")), (200, Some("5")), 695),
        ("/one", (500, Some("300")), (200, None), 395),
        ("/one", (500, Some("0")), (200, Some("300")), 95),
        ("/one", (200, Some("4")), (200, Some("80")), 91),
        ("/one", (500, None), (500, None), 81),
        ("/one", (500, Some("80")), (500, Some("1")), 0),
    ];
    for (path, said, says, expected) in cases {
        first.behave(states(said.0, said.1)).await;
        second.behave(states(says.0, says.1)).await;
        let answer = gateway.get(path).key("a-key").send().await;
        assert_eq!(left(&answer), expected, "{path} {said:?} {says:?}");
        assert_eq!(answer.header("x-tokens"), None);
    }
}

#[tokio::test]
async fn all_attempts_and_all_parts_count() {
    let (_fleet, [first, second], gateway) = start_priced().await;
    second.behave(states(200, Some("7"))).await;
    let ask = |path: &str| gateway.get(path).key("a-key").send();

    first.behave(states(200, Some("5"))).await;
    first.next([states(503, Some("300"))]);
    let answer = ask("/again").await.expect(200);
    assert_eq!(left(&answer), 695, "the first attempt cost 300");

    let answer = ask("/all").await.expect(200);
    assert_eq!((left(&answer), answer.header("x-tokens")), (683, None));
    first.behave(states(200, Some("0"))).await;
    assert_eq!(left(&ask("/all").await.expect(200)), 676);
    first.behave(states(500, Some("100"))).await;
    assert_eq!(left(&ask("/all").await), 569, "a part that fails has cost what it says");
    first.behave(states(200, Some("some"))).await;
    assert_eq!(
        left(&ask("/all").await.expect(200)),
        552,
        "the route's own 10 for the one that cannot be read"
    );
}

#[tokio::test]
async fn a_cost_beyond_all_numbers_is_the_most_there_can_be() {
    let (_fleet, [first, second], gateway) = start_priced().await;
    first.behave(states(200, Some(MUCH))).await;
    second.behave(states(200, Some("18446744073709551615"))).await;
    for (path, key) in [("/one", "a-key"), ("/all", "b-key")] {
        let answer = gateway.get(path).key(key).send().await.expect(200);
        assert_eq!(left(&answer), 0, "{path}");
        gateway.get(path).key(key).send().await.refusal(429, "rate_limited");
    }
}

/// `/one`, `/all` and, with something to fall back on, `/else`, to a backend of one slot and a queue.
async fn start_narrow() -> (Fleet, Handle, Gateway) {
    let fleet = Fleet::start([Spec::new("narrow")]).await.expect("a port is free");
    let narrow = fleet.backend("narrow");
    let config = Config::with(TOP)
        .backend(
            "narrow",
            narrow.address(),
            "retry: off, bulkhead: { limit: 1, queue: 10, wait: 20s }",
        )
        .mapped("hold", "narrow", "")
        .route("one", "{ match: { path: /one }, backend: narrow }")
        .route("else", "{ match: { path: /else }, backend: narrow, fallback: { value: 7 } }")
        .route(
            "all",
            "{ match: { path: /all }, aggregate: { partial: allow, parts: { one: { backend: narrow, path: /x, fallback: { value: 7 } } } } }",
        )
        .route(
            "each",
            "{ match: { path: /each }, aggregate: { parts: { one: { backend: narrow, path: /x, required: true } } } }",
        )
        .route(
            "late",
            "{ match: { path: /late }, time_limit: 300ms, aggregate: { parts: { one: { backend: narrow, path: /x } } } }",
        );
    let gateway = start(config).await;
    (fleet, narrow, gateway)
}

#[tokio::test]
async fn who_gives_a_request_no_time_pays_for_it() {
    let (_fleet, narrow, gateway) = start_narrow().await;
    let mut expected = 1000;
    for path in ["/one", "/else", "/all", "/each"] {
        for (field, value) in [
            ("x-request-timeout-ms", "0"),
            ("x-request-timeout-ms", "1"),
            ("grpc-timeout", "0S"),
            ("grpc-timeout", "999999n"),
        ] {
            let answer = gateway.get(path).key("a-key").header(field, value).send().await;
            expected -= 1;
            assert_eq!(left(&answer), expected, "{path} {field}: {value}: {answer:#?}");
        }
    }
    assert_eq!(narrow.counts().requests, 0, "nothing of it was sent");
}

#[tokio::test]
async fn who_waits_for_less_than_the_operator_would_pays_and_who_is_kept_waiting_does_not() {
    let (_fleet, narrow, gateway) = start_narrow().await;
    narrow.close_gate();
    let held = tokio::spawn(gateway.get("/hold/echo").key("b-key").send());
    let waits = narrow.wait_for(|counts| counts.at_gate == 1, SOON);
    waits.await.expect("the slot is taken");
    for (path, expected) in [("/one", 999), ("/else", 998), ("/all", 997), ("/each", 996)] {
        let ask = gateway.get(path).key("a-key").header("x-request-timeout-ms", "60");
        let answer = ask.send().await;
        assert_eq!(left(&answer), expected, "{path}: {answer:#?}");
    }
    // By the route's own limit: a caller that would wait for longer gets its charge back.
    for wish in [None, Some("60000")] {
        let ask = gateway.get("/late").key("a-key");
        let ask = match wish {
            Some(wish) => ask.header("x-request-timeout-ms", wish),
            None => ask,
        };
        assert_eq!(left(&ask.send().await), 996, "{wish:?}");
    }
    narrow.open_gate();
    held.await.expect("no panic").expect(200);
}
