//! Checks that no request waits longer than the static worst case. Random plans run on paused time, in the code that
//! serves requests, against backends that answer, send `Retry-After`, break off, hang or send slowly.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use http_body_util::BodyExt;
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use tokio::time::sleep;

use crate::aggregate;
use crate::call::scripted::{Behaviour, Scripted, Tail};
use crate::call::{self, CallBody, CallRequest, Facts, Streaming};
use crate::clock;
use crate::config;
use crate::headers::AddedFields;
use crate::json::{Document, Selection};
use crate::message::FieldMap;
use crate::observe::Attempts;
use crate::observe::{self, Observer};
use crate::plan::compile::compile;
use crate::plan::time_budget::*;
use crate::plan::{Plan, State};
use crate::template::{Captures, Query};

/// A config with three backends and one route, and the callers that use it.
#[derive(Clone)]
struct Case {
    config: String,
    /// Arrival time of each caller and the deadline that it asks for, in milliseconds.
    callers: Vec<(u64, Option<u64>)>,
    /// Number of connections that each backend accepts before it becomes unreachable.
    connections: usize,
    /// Seed for the backends' behaviour and for jitter.
    seed: u64,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            config,
            callers,
            connections,
            seed,
        } = self;
        write!(
            f,
            "seed {seed}, {connections} connections, callers {callers:?}\n{config}"
        )
    }
}

/// A limit in milliseconds: either short enough to cut a step or long enough for waits of whole seconds.
fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![20..600u64, 600..5_000u64]
}

fn backend() -> impl Strategy<Value = String> {
    let bulkhead = (1..=3u32, 0..=3u32, 0..600u64);
    let retry = (1..=4u32, 1..150u64, 1..=4u64, 0..=100u32, any::<bool>());
    (limit(), 1..=60u64, bulkhead, retry, any::<bool>()).prop_map(
        |(limit, share, (slots, queue, wait), (attempts, first, growth, jitter, statuses), breaker)| {
            let attempt = (limit * share / 100).max(1);
            let (jitter, cap) = (f64::from(jitter) / 100.0, first * growth);
            let on = if statuses { ", 500, 503" } else { "" };
            let breaker = if breaker {
                "{ min_calls: 3, open_for: 40ms }"
            } else {
                "off"
            };
            format!(
                "{{ endpoints: [{{ url: \"http://nowhere.invalid\" }}], time_limit: {limit}ms, \
                 attempt_limit: {attempt}ms, bulkhead: {{ limit: {slots}, queue: {queue}, wait: {wait}ms }}, \
                 breaker: {breaker}, connections: {{ limit: 100, idle: 1h, age: 1h }}, retry: {{ attempts: {attempts}, \
                 backoff: {first}ms..{cap}ms, jitter: {jitter}, on: [unreached, broken, timed_out{on}] }} }}"
            )
        },
    )
}

/// Each part needs some of the earlier parts. The sum of their own limits fits into the route's limit.
fn target(route_limit: u64) -> impl Strategy<Value = String> {
    let each = prop::option::weighted(0.3, 1..=5u32);
    let part = (
        0..3usize,
        prop::option::of(1..=100u64),
        any::<u8>(),
        any::<bool>(),
        each,
    );
    let parts = prop::collection::vec(part, 1..=4).prop_map(move |parts| {
        let most = route_limit / parts.len() as u64;
        let lines = parts
            .iter()
            .enumerate()
            .map(|(index, (backend, share, needs, required, each))| {
                let has_spare = !required && needs & 0x80 != 0;
                let needs: Vec<_> = (0..index)
                    .filter(|need| needs & (1 << need) != 0)
                    .map(|need| format!("p{need}"))
                    .collect();
                let limit = share.map_or(String::new(), |share| {
                    format!(", time_limit: {}ms", (most * share / 100).max(1))
                });
                let spare = if has_spare {
                    ", fallback: { backend: b2 }"
                } else {
                    ""
                };
                let each = each.map_or(String::new(), |at_once| {
                    format!(", for_each: {{ in: '{{body}}', limit: 5, at_once: {at_once}, on_failure: omit }}")
                });
                format!(
                    "p{index}: {{ backend: b{backend}, path: /p, required: {required}, needs: [{}]{limit}{each}{spare} }}",
                    needs.join(", ")
                )
            });
        let lines: Vec<_> = lines.collect();
        format!("aggregate: {{ partial: allow, parts: {{ {} }} }}", lines.join(", "))
    });
    prop_oneof![Just("backend: b0".to_owned()), parts]
}

fn case() -> impl Strategy<Value = Case> {
    let route = limit().prop_flat_map(|limit| (Just(limit), target(limit)));
    let callers = prop::collection::vec((0..300u64, prop::option::weighted(0.2, 1..1_500u64)), 1..=5);
    (
        [backend(), backend(), backend()],
        route,
        (1..10u64, 0..50u64),
        callers,
        0..12usize,
        any::<u64>(),
    )
        .prop_map(
            |([b0, b1, b2], (limit, target), (minimum, turn), callers, connections, seed)| Case {
                config: format!(
                    "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
                 time_limits: {{ request: 6s, reserve: 1s, minimum: {minimum}ms, idle_stream: 1s }}\n\
                 callers: {{ anonymous: {{ by: client_address }} }}\n\
                 backends:\n  b0: {b0}\n  b1: {b1}\n  b2: {b2}\n\
                 routes:\n  r: {{ match: {{ path: /r }}, access: {{ any_of: [anonymous] }}, time_limit: {limit}ms, \
                 limits: {{ l: {{ rate: 1/s, burst: 1, wait: {turn}ms }} }}, {target} }}\n"
                ),
                callers,
                connections,
                seed,
            },
        )
}

/// Returns a random behaviour of a backend: mostly an answer, sometimes late, sometimes a fault.
fn turn(random: &mut fastrand::Rng) -> Behaviour {
    // Short delays are more likely, so that short attempts also see answers.
    let after = Duration::from_millis(random.u64(0..20).pow(2));
    let tail = match random.u8(0..6) {
        0 => Tail::Late(Duration::from_millis(random.u64(1..2_000))),
        1 => Tail::Events(Duration::from_millis(random.u64(1..900))),
        _ => Tail::AtOnce,
    };
    match random.u8(0..10) {
        0..=3 => Behaviour::Answer {
            after,
            status: 200,
            retry_after: None,
            tail,
        },
        4..=6 => Behaviour::Answer {
            after,
            status: [500, 503][random.usize(0..2)],
            retry_after: random.bool().then(|| random.u64(0..3)),
            tail: Tail::AtOnce,
        },
        7 => Behaviour::Break { after },
        _ => Behaviour::Hang,
    }
}

pub(in crate::plan) fn plan(config: &str) -> Plan {
    static OBSERVER: OnceLock<Arc<Observer>> = OnceLock::new();
    let observer = OBSERVER.get_or_init(|| Observer::start(&observe::Target::Off).unwrap());
    let mut loaded = config::parse("gateway.yaml", config, Path::new("."), &|_| None).unwrap();
    match compile(&mut loaded, &State::new(Arc::clone(observer)), 1) {
        Ok(compiled) => compiled.plan,
        Err(mistakes) => panic!("{}", loaded.sources.render(&mistakes, false)),
    }
}

/// The result of one request, from its arrival to the last byte.
pub(super) struct Visit {
    number: usize,
    deadline: Deadline,
    /// Deadline of a call to the route's own backend.
    call_due: Deadline,
    pub(super) head_after: Duration,
    ended: Moment,
    /// True if the caller left a stream after its head.
    left: bool,
}

const NUMBER: &str = "x-number";

pub(super) async fn visit(plan: &Plan, number: usize, (comes, wish): (u64, Option<u64>)) -> Visit {
    let route = &plan.listed[0];
    sleep(Duration::from_millis(comes)).await;
    let started = clock::now();
    let wish = wish.map_or(Duration::MAX, Duration::from_millis);
    let deadline = Deadline::at(started + route.time_limit.min(wish));
    let mut headers = FieldMap::new();
    headers.insert(NUMBER, HeaderValue::from(number));
    let entrant = Entrant {
        tenant: number as u64,
        tier: 0,
        weight: 1,
        deadline: Moment::MAX,
    };
    // The policy grants no longer wait, and the pipeline waits for that long.
    let longest = budget(plan).turn.as_ref().map_or(Duration::ZERO, |turn| turn.time);
    let longest = longest.min(deadline.remaining(started).saturating_sub(plan.time.minimum));
    sleep(Duration::from_millis(fastrand::u64(0..=longest.as_millis() as u64))).await;
    let (mut left, mut call_due) = (false, deadline);
    let head_after = match &route.target {
        Target::Backend { backend, .. } => {
            call_due = deadline.child(clock::now(), backend.settings.time_limit);
            let mut order = CallRequest {
                method: Method::GET,
                target: PathAndQuery::from_static("/"),
                headers,
                added: AddedFields::default(),
                body: CallBody::Empty,
                deadline,
                deadline_by: None,
                operator_deadline: Deadline::at(started + route.time_limit),
                caller_deadline: None,
                trailers: false,
                operator_limit: route.time_limit,
                entrant,
                is_retry: false,
                streaming: Streaming::IfDeclared,
                switches: false,
                interim: None,
                expects: false,
                hash_keys: Default::default(),
                mirror: None,
                hedge: None,
                cost_header: None,
            };
            let called = call::call(backend, 0, &mut order, &mut Attempts::default(), &mut Facts::default()).await;
            let head_after = clock::now().since(started);
            if let Ok(reply) = called {
                left = reply.head.headers["content-type"] == "text/event-stream";
                if !left {
                    // The body ends, complete or broken off.
                    let _ = reply.body.collect().await;
                }
            }
            head_after
        }
        Target::Split { .. } => unreachable!("no config here has one"),
        Target::Aggregate(aggregate) => {
            let body = Document::of(&[1, 2, 3, 4, 5]);
            let body = Selection::of(&body, &aggregate.body_paths);
            let until = deadline.moment();
            let request = aggregate::Request {
                not_taken: &[],
                method: &http::Method::GET,
                captures: &Captures::new("", &[], Default::default()),
                query: &Query::default(),
                headers: &headers,
                added: &AddedFields::default(),
                claims: None,
                cache_caller: None,
                body: Some(&body),
                reservation: &plan.workspace.reserve(u64::MAX, 0, (until, None)),
                fields: None,
                deadline,
                deadline_by: None,
                operator_deadline: Deadline::at(started + route.time_limit),
                caller_deadline: None,
                hash_keys: &Default::default(),
                cost_header: None,
                operator_limit: route.time_limit,
                entrant,
                is_retry: false,
                worker: 0,
            };
            let _ = aggregate.serve(&request, &mut Attempts::default()).await;
            clock::now().since(started)
        }
        Target::Respond { .. } | Target::Redirect(_) => unreachable!("no such route is drawn"),
    };
    Visit {
        number,
        deadline,
        call_due,
        head_after,
        ended: clock::now(),
        left,
    }
}

fn budget(plan: &Plan) -> &TimeBudget {
    &plan.outline.routes[0].time_budget
}

const MS: Duration = Duration::from_millis(1);

/// Allowance for Tokio timers, each of which can be a millisecond late.
fn slack(budget: &TimeBudget) -> Duration {
    match &budget.uses {
        Uses::Call(call) if budget.worst.decided_by == call.attempt.setting => {
            MS * (2 * call.backoffs.len() as u32 + 3)
        }
        Uses::Call(_) | Uses::OneOf(_) => 2 * MS,
        Uses::Parts(parts) => {
            let calls = parts.iter().map(|part| part.waves * (1 + part.stand_ins.len() as u32));
            MS * (calls.sum::<u32>() + 1)
        }
        Uses::Nothing => Duration::ZERO,
    }
}

async fn play(case: &Case) -> TestCaseResult {
    fastrand::seed(case.seed);
    let plan = plan(&case.config);
    let mut scripted = Vec::new();
    for (backend, number) in plan.backends.iter().zip(0..) {
        let mut random = fastrand::Rng::with_seed(case.seed ^ number);
        scripted.push(Scripted::behind(backend, case.connections, move || turn(&mut random)).await);
    }
    let visits = case.callers.iter().enumerate();
    let visits = join_all(visits.map(|(number, caller)| visit(&plan, number, *caller))).await;

    let budget = budget(&plan);
    for visit in &visits {
        let worst = budget.worst.time + slack(budget);
        prop_assert!(
            visit.head_after <= worst,
            "{:?} > {worst:?}: {budget:?}",
            visit.head_after
        );
        let due = visit.call_due.moment() + MS;
        prop_assert!(visit.left || visit.ended <= due, "{:?} > {due:?}", visit.ended);
    }
    for arrival in scripted.iter().flat_map(|scripted| scripted.arrivals().clone()) {
        let number = |name| arrival.headers[name].to_str().unwrap().parse::<u64>().unwrap();
        let visit = &visits[number(NUMBER) as usize];
        prop_assert_eq!(visit.number as u64, number(NUMBER));
        let left = visit.call_due.remaining(arrival.at);
        prop_assert!(left >= plan.time.minimum, "an attempt that cannot finish: {left:?}");
        let told = Duration::from_millis(number("x-request-timeout-ms"));
        prop_assert!(told <= left && visit.deadline >= visit.call_due, "{told:?} of {left:?}");
    }
    // A backend sees a cancelled request when it next looks at its connections.
    sleep(MS).await;
    for (backend, scripted) in plan.backends.iter().zip(&scripted) {
        let bulkhead = &backend.guards.bulkhead;
        prop_assert_eq!((scripted.active(), bulkhead.in_use(), bulkhead.waiting()), (0, 0, 0));
    }
    Ok(())
}

pub(in crate::plan) fn on_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..cases::counted() })]

    #[test]
    fn nobody_waits_longer_than_the_worst_case(case in case()) {
        on_paused_time(play(&case))?;
    }
}
