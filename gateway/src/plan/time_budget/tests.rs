//! Tests budgets computed by hand, and worst cases that are reached to the millisecond.

use serde_json::Value;

use crate::call::scripted::{Behaviour, Scripted, Tail};
use crate::plan::time_budget::properties::{on_paused_time, plan, visit};
use crate::plan::time_budget::*;

/// Builds a config from `backends` and `routes`. The request limit is 10s, with a reserve of 2s.
fn config(backends: &str, route: &str) -> String {
    format!(
        "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
         time_limits: {{ request: 10s, reserve: 2s, minimum: 5ms, idle_stream: 1h }}\n\
         callers: {{ anonymous: {{ by: client_address }} }}\n\
         backends: {{ {backends} }}\n\
         routes:\n  r: {{ match: {{ path: /r }}, access: {{ any_of: [anonymous] }}, {route} }}\n"
    )
}

fn backend(name: &str, settings: &str) -> String {
    format!("{name}: {{ endpoints: [{{ url: \"http://nowhere.invalid\" }}], {settings} }}")
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn the_worst_case_of_a_call_is_its_steps_or_what_cuts_them() {
    let check = |settings: &str, route: &str, time: u64, decided_by: &str, uncut: u64| {
        let plan = plan(&config(&backend("b", settings), &format!("{route}, backend: b")));
        let expected = Worst {
            time: ms(time),
            decided_by: decided_by.to_owned(),
            uncut: ms(uncut),
        };
        assert_eq!(
            plan.outline.routes[0].time_budget.worst, expected,
            "{settings}; {route}"
        );
    };
    let (route, request) = ("routes.r.time_limit", "time_limits.request");
    let (call, attempt) = ("backends.b.time_limit", "backends.b.attempt_limit");
    let once = "retry: off, bulkhead: { limit: 20, queue: 0 }";
    // One attempt is cut by the smallest limit; on a tie the outer limit is named.
    check(&format!("time_limit: 3s, {once}"), "cost: 1", 3000, call, 3000);
    check(&format!("time_limit: 3s, {once}"), "time_limit: 2s", 2000, route, 3000);
    check(&format!("time_limit: 3s, {once}"), "time_limit: 3s", 3000, route, 3000);
    check(&format!("time_limit: 9s, {once}"), "cost: 1", 8000, request, 9000);
    check(
        &format!("time_limit: 3s, attempt_limit: 1s, {once}"),
        "cost: 1",
        1000,
        attempt,
        1000,
    );
    // The wait in the queue comes first, if there is a queue.
    let queue = "time_limit: 3s, attempt_limit: 1s, retry: off, bulkhead: { limit: 1, wait: 500ms }";
    check(queue, "cost: 1", 1500, attempt, 1500);
    // Backoffs grow to their cap; jitter is added on top.
    let thrice = "time_limit: 5s, attempt_limit: 200ms, bulkhead: { limit: 20, queue: 0 }";
    let waits = |on| format!("{thrice}, retry: {{ attempts: 4, backoff: 100ms..150ms, jitter: 0.1, on: [{on}] }}");
    check(&waits("timed_out"), "cost: 1", 1240, attempt, 1240);
    check(&waits("timed_out"), "time_limit: 1s", 1000, route, 1240);
    // The wait for tokens comes first: the longest of all limits.
    let turns = "limits: { a: { rate: 1/s, burst: 1, wait: 30ms }, b: { rate: 1/s, burst: 1, wait: 70ms } }";
    check(queue, turns, 1570, attempt, 1570);
    check(queue, &format!("time_limit: 1550ms, {turns}"), 1550, route, 1570);
    // `Retry-After` can ask for any wait within the limit.
    check(&waits("503"), "cost: 1", 5000, call, 1240);
}

#[test]
fn the_worst_case_of_an_aggregate_is_its_longest_chain() {
    let check = |parts: &str, route: &str, time: u64, decided_by: &str, uncut: u64, chain: &[&str]| {
        let backends = format!(
            "{}, {}",
            backend("one", "time_limit: 1s"),
            backend("two", "time_limit: 2s")
        );
        let route = format!("{route}, aggregate: {{ parts: {{ {parts} }} }}");
        let plan = plan(&config(&backends, &route));
        let budget = &plan.outline.routes[0].time_budget;
        let expected = Worst {
            time: ms(time),
            decided_by: decided_by.to_owned(),
            uncut: ms(uncut),
        };
        assert_eq!(budget.worst, expected, "{parts}; {route}");
        let Uses::Parts(parts) = &budget.uses else {
            panic!("{budget:?}")
        };
        let critical = parts.iter().filter(|part| part.critical);
        assert!(critical.map(|part| &*part.name).eq(chain.iter().copied()), "{parts:?}");
    };
    let both = "a: { backend: one, path: /a }, b: { backend: two, path: /b }";
    check(both, "cost: 1", 2000, "backends.two.time_limit", 2000, &["b"]);
    let chained =
        "a: { backend: one, path: /a }, b: { backend: two, path: /b, needs: [a] }, c: { backend: two, path: /c }";
    check(chained, "cost: 1", 3000, "backends.two.time_limit", 3000, &["a", "b"]);
    check(
        chained,
        "time_limit: 2500ms",
        2500,
        "routes.r.time_limit",
        3000,
        &["a", "b"],
    );
    // Seven elements, three at once, make three waves. The part's own limit applies to all waves together.
    let each = |more: &str| {
        format!(
            "a: {{ backend: one, path: '/{{item}}', for_each: {{ in: '{{body}}', limit: 7, at_once: 3 }}{more} }}, {}",
            "b: { backend: two, path: /b }"
        )
    };
    check(&each(""), "cost: 1", 3000, "backends.one.time_limit", 3000, &["a"]);
    check(
        &each(", time_limit: 2500ms"),
        "cost: 1",
        2500,
        "routes.r.aggregate.parts.a.time_limit",
        2500,
        &["a"],
    );
    check(
        &each(", time_limit: 1s"),
        "cost: 1",
        2000,
        "backends.two.time_limit",
        2000,
        &["b"],
    );
    let spare = "a: { backend: one, path: /a, fallback: { backend: two } }";
    let allow = "cost: 1, aggregate: { partial: allow";
    let plan = plan(&config(
        &format!(
            "{}, {}",
            backend("one", "time_limit: 1s"),
            backend("two", "time_limit: 2s")
        ),
        &format!("{allow}, parts: {{ {spare} }} }}"),
    ));
    assert_eq!(plan.outline.routes[0].time_budget.worst.time, ms(3000));
    let limited = "a: { backend: two, path: /a, time_limit: 1900ms }, b: { backend: one, path: /b, time_limit: 1500ms, needs: [a] }";
    let own = "routes.r.aggregate.parts.a.time_limit";
    check(limited, "cost: 1", 2900, own, 2900, &["a", "b"]);
}

/// Returns how long the only caller waits if the backend answers every request with `turn`.
fn wait(config: &str, turn: Behaviour) -> (Duration, Duration) {
    on_paused_time(async {
        let plan = plan(config);
        for backend in &plan.backends {
            let turn = turn.clone();
            let _ = Scripted::behind(backend, 20, move || turn.clone()).await;
        }
        let visit = visit(&plan, 0, (0, None)).await;
        (visit.head_after, plan.outline.routes[0].time_budget.worst.time)
    })
}

#[test]
fn worst_cases_are_met() {
    let retried = "attempt_limit: 300ms, bulkhead: { limit: 20, queue: 0 }, \
                   retry: { attempts: 3, backoff: 50ms..50ms, jitter: 0.0, on: [timed_out] }";
    let call = |settings: &str, route: &str| config(&backend("b", settings), &format!("{route}, backend: b"));
    let parts = "aggregate: { parts: { a: { backend: b, path: /a }, c: { backend: b, path: /c, needs: [a] } } }";
    let slowly = |tail| Behaviour::Answer {
        after: ms(290),
        status: 200,
        retry_after: None,
        tail,
    };
    let patience = Behaviour::Answer {
        after: ms(10),
        status: 503,
        retry_after: Some(1),
        tail: Tail::AtOnce,
    };
    let asks = "attempt_limit: 300ms, time_limit: 1320ms, retry: { attempts: 2, on: [503], jitter: 0.0 }, \
                bulkhead: { limit: 20, queue: 0 }";
    for (config, turn, waited) in [
        (call(retried, "time_limit: 5s"), Behaviour::Hang, 1000),
        (call(retried, "time_limit: 450ms"), Behaviour::Hang, 450),
        (
            call(&format!("time_limit: 400ms, {retried}"), "time_limit: 5s"),
            Behaviour::Hang,
            400,
        ),
        (call(asks, "time_limit: 5s"), patience, 1020),
        // A part is awaited to its last byte, and an event stream has none.
        (
            config(&backend("b", "time_limit: 700ms"), parts),
            slowly(Tail::Late(ms(50))),
            680,
        ),
        (
            config(&backend("b", "time_limit: 700ms"), parts),
            slowly(Tail::Events(ms(50))),
            700,
        ),
    ] {
        let (took, worst) = wait(&config, turn.clone());
        assert!(
            took >= ms(waited) && took <= ms(waited) + ms(1),
            "{took:?}, {turn:?}\n{config}"
        );
        assert!(took <= worst + ms(1), "{took:?} > {worst:?}\n{config}");
    }
}

#[test]
fn bounds_are_rounded_up() {
    let worst = Worst {
        time: Duration::from_nanos(1_000_001),
        decided_by: String::new(),
        uncut: ms(3),
    };
    let shown: Value = serde_json::to_value(&worst).unwrap();
    assert_eq!((&shown["worst_case_ms"], &shown["uncut_ms"]), (&2.into(), &3.into()));
}
