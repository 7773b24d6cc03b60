//! Performs the steps of a test at their times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Uri};
use tokio::task::JoinHandle;

use super::names::endpoint_of;
use crate::clock;
use crate::config::policy_tests::{BackendScript, Behaviour, PolicyTests, Requests, Step, TestCaller};
use crate::config::{At, NamedMap};
use crate::headers::Scheme;
use crate::message::FieldMap;
use crate::observe::{Decision, Family};
use crate::pipeline::explain::{Described, assumed_caller};
use crate::plan::Plan;
use crate::simulation::coverage::limits;
use crate::simulation::{Answered, Message, Simulation};

/// Host of requests whose target is only a path.
const NO_HOST: &str = "localhost";

/// Place of the request's number in the name of a tenant.
const NUMBER: &str = "{n}";

/// Time after the last step in which requests may end.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Rounds of the runtime in which the requests of one step get beyond their decision, before those of the next step at
/// the same time begin.
const ROUNDS: usize = 64;

/// A step with its answers.
pub(super) struct Performed<'a> {
    pub(super) step: &'a Step,
    pub(super) answers: Vec<Answered>,
    /// Requests that limits in shadow mode would have refused, until the next step, by limit.
    pub(super) shadowed: Shadowed,
}

type Shadowed = BTreeMap<Arc<str>, u64>;

/// The steps in the order of the file.
pub(super) struct PerformedSteps<'a> {
    pub(super) steps: Vec<Performed<'a>>,
    /// Number of requests that have not ended.
    pub(super) unfinished: usize,
    /// Time of the end.
    pub(super) time: Duration,
}

/// Runs all steps, and waits for the last answer.
pub(super) async fn perform<'a>(
    simulation: &Arc<Simulation>,
    tests: &PolicyTests,
    steps: &'a [Step],
) -> PerformedSteps<'a> {
    for (name, script) in tests.backends.iter() {
        let (backend, endpoint) = endpoint_of(name);
        simulation.script(backend, endpoint, script);
    }
    let refuses = |script: &BackendScript| {
        let mut phases = script.phases.iter();
        phases.any(|phase| matches!(*phase.answer, Behaviour::Refuse | Behaviour::Unreachable))
    };
    let scripts = steps.iter().map(|step| &step.backends).chain([&tests.backends]);
    let may_eject = scripts.flat_map(NamedMap::iter).any(|(_, script)| refuses(script));
    let reacher = may_eject.then(|| {
        let simulation = Arc::clone(simulation);
        tokio::spawn(async move { simulation.bring_back().await })
    });

    let mut time = Duration::ZERO;
    let timed = steps.iter().enumerate().map(|(number, step)| {
        time = step.time().unwrap_or(time);
        (time, number, step)
    });
    let mut timed: Vec<_> = timed.collect();
    timed.sort_by_key(|(time, ..)| *time);
    let mut shadow_counts: Vec<(usize, Shadowed)> = Vec::new();
    let mut running: Vec<(usize, JoinHandle<Vec<JoinHandle<Answered>>>)> = Vec::new();
    for (time, number, step) in timed {
        simulation.wait_until(time).await;
        for _ in 0..ROUNDS {
            tokio::task::yield_now().await;
        }
        shadow_counts.push((number, shadowed(&simulation.plan)));
        for (name, script) in step.backends.iter() {
            let (backend, endpoint) = endpoint_of(name);
            simulation.script(backend, endpoint, script);
        }
        if let Some(send) = &step.send {
            let message = message(send, step, tests, simulation);
            let caller = send.caller.as_deref().and_then(|name| tests.callers.get(name));
            let numbered = caller.filter(|caller| is_numbered(caller)).cloned();
            let (simulation, send) = (Arc::clone(simulation), send.value.clone());
            let sender = tokio::spawn(async move { send_all(&simulation, &message, numbered, &send, time).await });
            running.push((number, sender));
        }
    }
    running.sort_by_key(|(number, _)| *number);
    let mut performed = PerformedSteps {
        steps: steps
            .iter()
            .map(|step| Performed {
                step,
                answers: Vec::new(),
                shadowed: Shadowed::new(),
            })
            .collect(),
        unfinished: 0,
        time: Duration::ZERO,
    };
    let mut senders = Vec::new();
    for (number, sender) in running {
        // A panic of the sender would be a bug of this module.
        let requests = sender.await.expect("a sender only waits and spawns");
        senders.push((number, requests));
    }
    let deadline = clock::instant(clock::now() + PATIENCE);
    for (number, requests) in senders {
        for request in requests {
            match tokio::time::timeout_at(deadline, request).await {
                Ok(Ok(answered)) => performed.steps[number].answers.push(answered),
                Ok(Err(_)) | Err(_) => performed.unfinished += 1,
            }
        }
    }
    performed.time = simulation.now();
    let mut after = shadowed(&simulation.plan);
    for (number, before) in shadow_counts.into_iter().rev() {
        let since = after.iter().map(|(limit, count)| {
            let before = before.get(limit).copied().unwrap_or_default();
            (Arc::clone(limit), count - before)
        });
        performed.steps[number].shadowed = since.collect();
        after = before;
    }
    if let Some(reacher) = reacher {
        reacher.abort();
    }
    performed
}

/// Returns what limits in shadow mode would have refused so far.
fn shadowed(plan: &Plan) -> Shadowed {
    let counts = limits(plan).into_iter().map(|(limit, _)| {
        let count = limit.metrics.count(Family::LimitDecisions, Decision::Shadow);
        (Arc::clone(&limit.name), count)
    });
    counts.collect()
}

/// Begins all requests of a step, evenly over the time.
async fn send_all(
    simulation: &Arc<Simulation>,
    message: &Message,
    numbered: Option<TestCaller>,
    send: &Requests,
    from: Duration,
) -> Vec<JoinHandle<Answered>> {
    let (count, over) = (send.count, send.over);
    let mut requests = Vec::with_capacity(count as usize);
    for number in 0..count {
        if !over.is_zero() {
            let share = over.as_nanos() * u128::from(number) / u128::from(count);
            simulation
                .wait_until(from + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX)))
                .await;
        }
        let (simulation, mut message) = (Arc::clone(simulation), message.clone());
        if let Some(caller) = &numbered {
            message.assumed = assumed_caller(&described(caller, u64::from(number) + 1)).ok().flatten();
        }
        requests.push(tokio::spawn(async move { simulation.send(message).await }));
    }
    requests
}

fn message(send: &Requests, step: &Step, tests: &PolicyTests, simulation: &Simulation) -> Message {
    let caller = send.caller.as_deref().and_then(|name| tests.callers.get(name));
    let mut headers = FieldMap::new();
    let host = send.target.authority().map_or(NO_HOST, |authority| authority.as_str());
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    let own = caller.map(|caller| &caller.headers);
    for (name, value) in own.into_iter().chain([&step.headers]).flat_map(NamedMap::iter) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    let key = caller.and_then(|caller| caller.key.as_ref());
    let field = simulation.plan.authenticator.api_key_header();
    if let (Some(key), Some(field)) = (key, field)
        && let Ok(key) = HeaderValue::from_str(key)
    {
        headers.insert(field.clone(), key);
    }
    let body = match &step.body {
        Some(body) => {
            let json = HeaderValue::from_static("application/json");
            headers.insert_missing(CONTENT_TYPE, || json);
            body.bytes().clone()
        }
        None => Bytes::new(),
    };
    let target = send.target.path_and_query().map_or("/", |target| target.as_str());
    Message {
        method: send.method.clone(),
        target: target.parse::<Uri>().unwrap_or_default(),
        scheme: match send.target.scheme_str() {
            Some("https") => Scheme::Https,
            _ => Scheme::Http,
        },
        headers,
        body,
        from: send
            .from
            .or(caller.and_then(|caller| Some(caller.from.as_ref()?.value))),
        assumed: caller.and_then(|caller| assumed_caller(&described(caller, 1)).ok().flatten()),
    }
}

/// Whether each request comes from another tenant.
fn is_numbered(caller: &TestCaller) -> bool {
    caller.tenant.as_ref().is_some_and(|tenant| tenant.contains(NUMBER))
}

/// Describes the caller of the request with this number.
pub(super) fn described(caller: &TestCaller, number: u64) -> Described {
    let text = |text: &Option<At<String>>| text.as_ref().map(|text| text.value.clone());
    Described {
        key: text(&caller.key),
        tenant: text(&caller.tenant).map(|tenant| tenant.replace(NUMBER, &number.to_string())),
        tier: text(&caller.tier),
        claims: caller
            .claims
            .as_ref()
            .and_then(|claims| crate::json::typed(claims.bytes(), usize::MAX).ok()),
        ..Described::default()
    }
}
