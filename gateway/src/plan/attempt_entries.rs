//! Tests which entries a call leaves of its attempts: when each began, what it waited for, and how it ended. Whole calls
//! run on a virtual clock, over connections in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment};
use tokio::time::{sleep, timeout};

use crate::aggregate;
use crate::cache::responses::CacheCaller;
use crate::call::endpoints::Pools;
use crate::call::scripted::{Behaviour, Scripted, Tail};
use crate::call::{self, CallBody, CallRequest, Facts, Streaming};
use crate::clock;
use crate::headers::AddedFields;
use crate::message::FieldMap;
use crate::observe::{Attempt, Attempts};
use crate::plan::time_budget::properties::{on_paused_time, plan};
use crate::plan::{Plan, Target};
use crate::template::{Captures, Query};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Builds a config with one backend `b` of these endpoints and settings, behind a route with this target.
pub(super) fn config(endpoints: usize, settings: &str, target: &str) -> String {
    let endpoints: Vec<_> = (0..endpoints)
        .map(|number| format!("{{ url: \"http://{number}.invalid\" }}"))
        .collect();
    format!(
        "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
         time_limits: {{ request: 30s, reserve: 2s, minimum: 5ms }}\n\
         callers: {{ anonymous: {{ by: client_address }} }}\n\
         backends:\n  b: {{ endpoints: [{}], {settings} }}\n\
         routes:\n  r: {{ match: {{ path: /r }}, access: {{ any_of: [anonymous] }}, {target} }}\n",
        endpoints.join(", ")
    )
}

pub(super) fn answer(after: u64, status: u16) -> Behaviour {
    Behaviour::Answer {
        after: ms(after),
        status,
        retry_after: None,
        tail: Tail::AtOnce,
    }
}

fn deadline() -> Deadline {
    Deadline::at(clock::now() + Duration::from_secs(28))
}

fn entrant() -> Entrant {
    Entrant {
        tenant: 1,
        tier: 0,
        weight: 1,
        deadline: Moment::MAX,
    }
}

/// Puts a script behind all backends of the plan: these turns, and the last one again and again.
pub(super) async fn play(plan: &Plan, connections: usize, turns: Vec<Behaviour>) {
    for backend in &plan.backends {
        let mut turns: VecDeque<_> = turns.clone().into();
        let next = move || match turns.len() {
            1 => turns[0].clone(),
            _ => turns.pop_front().expect("a script has a turn"),
        };
        let _ = Scripted::behind(backend, connections, next).await;
    }
}

/// Calls the backend once, and reads the answer to its end.
async fn call(plan: &Plan, attempts: &mut Attempts) {
    call_as(plan, attempts, Streaming::Never).await;
}

pub(super) async fn call_as(plan: &Plan, attempts: &mut Attempts, streaming: Streaming) {
    let mut order = CallRequest {
        method: Method::GET,
        target: PathAndQuery::from_static("/"),
        headers: FieldMap::new(),
        added: AddedFields::default(),
        body: CallBody::Empty,
        deadline: deadline(),
        deadline_by: None,
        operator_deadline: deadline(),
        caller_deadline: None,
        trailers: false,
        operator_limit: Duration::from_secs(28),
        entrant: entrant(),
        is_retry: false,
        streaming,
        switches: false,
        interim: None,
        expects: false,
        cost_header: None,
        hash_keys: Default::default(),
        mirror: None,
        hedge: None,
    };
    let called = call::call(&plan.backends[0], 0, &mut order, attempts, &mut Facts::default()).await;
    if let Ok(reply) = called {
        let _ = reply.body.collect().await;
    }
    attempts.end(clock::now(), None, None);
}

/// Times in ms of an entry: start, wait for a slot, wait between attempts, head of the answer, length. They are counted
/// from `began`.
fn shown(attempt: &Attempt, began: Moment) -> String {
    let ms = |time: Duration| time.as_millis();
    let name = attempt.endpoint.as_deref().unwrap_or("-");
    let mut text = format!(
        "{} {} at {}",
        name.split_once(' ').map_or(name, |(url, _)| url),
        attempt.outcome.as_str(),
        attempt.started().map_or(0, |start| ms(start.since(began))),
    );
    for (name, time) in [
        ("queue", Some(attempt.queued()).filter(|time| !time.is_zero())),
        ("backoff", Some(attempt.backoff()).filter(|time| !time.is_zero())),
        ("head", attempt.first_byte()),
        ("took", attempt.took()),
    ] {
        if let Some(time) = time {
            text += &format!(" {name} {}", ms(time));
        }
    }
    if let Some(reason) = attempt.reason {
        text += &format!(" ({reason})");
    }
    text
}

pub(super) fn entries(attempts: &Attempts, began: Moment) -> Vec<String> {
    attempts.iter().map(|attempt| shown(attempt, began)).collect()
}

/// Checks the entries of one call.
fn check(endpoints: usize, settings: &str, connections: usize, turns: Vec<Behaviour>, expected: &[&str]) {
    on_paused_time(async {
        let plan = plan(&config(endpoints, settings, "backend: b"));
        play(&plan, connections, turns.clone()).await;
        let began = clock::now();
        let mut attempts = Attempts::default();
        call(&plan, &mut attempts).await;
        assert_eq!(entries(&attempts, began), expected, "{settings} {turns:?}");
    });
}

#[test]
fn each_attempt_of_a_call_has_its_entry() {
    let once = "retry: off, attempt_limit: 300ms";
    let twice = "retry: { attempts: 2, backoff: 50ms..50ms, jitter: 0.0 }, attempt_limit: 300ms";
    check(
        1,
        once,
        1,
        vec![answer(20, 200)],
        &["http://0.invalid answered at 0 head 20 took 20"],
    );
    // A retry after a wait.
    check(
        1,
        twice,
        2,
        vec![answer(20, 503), answer(10, 200)],
        &[
            "http://0.invalid failed_status at 0 head 20 took 20",
            "http://0.invalid answered at 70 backoff 50 head 10 took 10",
        ],
    );
    check(
        1,
        twice,
        2,
        vec![Behaviour::Break { after: ms(10) }, answer(10, 200)],
        &[
            "http://0.invalid broken at 0 took 10",
            "http://0.invalid answered at 60 backoff 50 head 10 took 10",
        ],
    );
    // The time of an attempt is over.
    check(
        1,
        once,
        1,
        vec![Behaviour::Hang],
        &["http://0.invalid timed_out at 0 took 300"],
    );
    // An answer that breaks off, or comes in two halves.
    let tail = |tail| {
        vec![Behaviour::Answer {
            after: ms(10),
            status: 200,
            retry_after: None,
            tail,
        }]
    };
    check(
        1,
        once,
        1,
        tail(Tail::Late(ms(40))),
        &["http://0.invalid answered at 0 head 10 took 50"],
    );
}

#[test]
fn a_failover_has_an_entry_for_each_endpoint() {
    on_paused_time(async {
        let plan = plan(&config(2, "retry: off, breaker: off, ejection: off", "backend: b"));
        play(&plan, 1, vec![answer(20, 200)]).await;
        let backend = &plan.backends[0];
        let endpoints = backend.endpoints.load_full();
        let Pools::Http1(pools) = &endpoints.all()[0].endpoint.pools else {
            panic!("the script is in HTTP/1.1")
        };
        drop(pools[0].take(&backend.settings.pool, clock::now()));
        // Until it is the turn of the endpoint that cannot be reached.
        for _ in 0..8 {
            let (began, mut attempts) = (clock::now(), Attempts::default());
            call(&plan, &mut attempts).await;
            if attempts.count() > 1 {
                let expected = [
                    "http://0.invalid unreached at 0 took 0",
                    "http://1.invalid answered at 0 head 20 took 20",
                ];
                assert_eq!(entries(&attempts, began), expected);
                return;
            }
        }
        panic!("the endpoint is never chosen");
    });
}

#[test]
fn a_call_that_a_guard_refuses_has_an_entry_of_no_length() {
    on_paused_time(async {
        let settings = "retry: { attempts: 2, backoff: 50ms..50ms, jitter: 0.0 }, bulkhead: { limit: 1, queue: 1, wait: 200ms }, \
                        breaker: { min_calls: 1, failure_ratio: 0.5, open_for: 10s }, attempt_limit: 1s";
        let plan = plan(&config(1, settings, "backend: b"));
        play(&plan, 1, vec![Behaviour::Break { after: ms(300) }]).await;
        let began = clock::now();
        let [mut first, mut second, mut third, mut fourth] = std::array::from_fn(|_| Attempts::default());
        tokio::join!(
            call(&plan, &mut first),
            async {
                sleep(ms(10)).await;
                call(&plan, &mut second).await;
            },
            async {
                sleep(ms(20)).await;
                call(&plan, &mut third).await;
            },
            async {
                sleep(ms(400)).await;
                call(&plan, &mut fourth).await;
            },
        );
        assert_eq!(entries(&first, began), ["http://0.invalid broken at 0 took 300"]);
        assert_eq!(
            entries(&second, began),
            ["- refused at 210 queue 200 took 0 (bulkhead_timeout)"]
        );
        assert_eq!(entries(&third, began), ["- refused at 20 took 0 (bulkhead_full)"]);
        assert_eq!(entries(&fourth, began), ["- refused at 400 took 0 (breaker_open)"]);
        assert_eq!((first.count(), second.count()), (1, 0));
    });
}

#[test]
fn an_attempt_whose_caller_leaves_was_cancelled() {
    on_paused_time(async {
        let settings = "retry: off, bulkhead: { limit: 1, queue: 1, wait: 5s }";
        let plan = plan(&config(1, settings, "backend: b"));
        play(&plan, 1, vec![Behaviour::Hang]).await;
        let began = clock::now();
        let (mut asked, mut waiting) = (Attempts::default(), Attempts::default());
        let _ = timeout(ms(100), async {
            tokio::join!(call(&plan, &mut asked), call(&plan, &mut waiting))
        })
        .await;
        asked.end(clock::now(), None, None);
        waiting.end(clock::now(), None, None);
        assert_eq!(entries(&asked, began), ["http://0.invalid cancelled at 0 took 100"]);
        assert_eq!(entries(&waiting, began), ["- cancelled at 0 took 100"]);
    });
}

pub(super) async fn serve(plan: &Plan, attempts: &mut Attempts) {
    serve_as(plan, attempts, None).await;
}

pub(super) async fn serve_as(plan: &Plan, attempts: &mut Attempts, cache_caller: Option<&Arc<CacheCaller>>) {
    let Target::Aggregate(aggregate) = &plan.listed[0].target else {
        panic!("an aggregate")
    };
    let request = aggregate::Request {
        not_taken: &[],
        method: &Method::GET,
        captures: &Captures::new("", &[], Default::default()),
        query: &Query::default(),
        headers: &FieldMap::new(),
        added: &AddedFields::default(),
        claims: None,
        cache_caller,
        body: None,
        reservation: &plan.workspace.reserve(u64::MAX, 0, (deadline().moment(), None)),
        fields: None,
        deadline: deadline(),
        deadline_by: None,
        operator_deadline: deadline(),
        caller_deadline: None,
        cost_header: None,
        hash_keys: &Default::default(),
        operator_limit: Duration::from_secs(28),
        entrant: entrant(),
        is_retry: false,
        worker: 0,
    };
    let _ = aggregate.serve(&request, attempts).await;
}

/// Checks the entries of an aggregate with these parts, whose caller leaves after 5 s.
fn check_parts(parts: &str, turns: Vec<Behaviour>, expected: &[&str]) {
    on_paused_time(async {
        let target = format!("aggregate: {{ partial: allow, parts: {{ {parts} }} }}");
        let plan = plan(&config(
            1,
            "retry: off, attempt_limit: 10s, time_limit: 10s, breaker: off",
            &target,
        ));
        play(&plan, 8, turns.clone()).await;
        let (began, mut attempts) = (clock::now(), Attempts::default());
        let _ = timeout(Duration::from_secs(5), serve(&plan, &mut attempts)).await;
        let shown: Vec<_> = attempts
            .iter()
            .map(|attempt| {
                let part = attempt.part.as_deref().unwrap_or("-");
                let element = attempt.element.map(|element| element.to_string()).unwrap_or_default();
                format!("{part}{element} {}", shown(attempt, began))
            })
            .collect();
        assert_eq!(shown, expected, "{parts} {turns:?}");
    });
}

#[test]
fn each_part_of_an_aggregate_has_its_entry() {
    let (a, b) = ("a: { backend: b, path: /a }", "b: { backend: b, path: /b, needs: [a] }");
    check_parts(
        &format!("{a}, {b}"),
        vec![answer(20, 200), answer(10, 404)],
        &[
            "a http://0.invalid answered at 0 head 20 took 20",
            "b http://0.invalid answered at 20 head 10 took 10",
        ],
    );
    check_parts(
        &format!("{a}, {b}"),
        vec![answer(20, 500)],
        &[
            "a http://0.invalid failed_status at 0 head 20 took 20",
            "b - refused at 0 (need_failed)",
        ],
    );
    check_parts(
        "a: { backend: b, path: /a, target: nothing.here }, c: { backend: b, path: /c, when: { value: \"{header.x-no}\", is: y } }",
        vec![answer(20, 200)],
        &[
            "a http://0.invalid invalid at 0 head 20 took 20 (target_missing)",
            "c - skipped at 0",
        ],
    );
    // The caller leaves.
    check_parts(
        &format!("{a}, {b}"),
        vec![Behaviour::Hang],
        &["a http://0.invalid cancelled at 0 took 5000"],
    );
}
