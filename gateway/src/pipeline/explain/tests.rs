//! Explanations beside what the gateway then does: whole requests on paused time, over connections in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt;
use policies::bulkhead::{Entrant, Entry};
use policies::overload::{OverloadGuard, OverloadSettings};
use policies::{Moment, breaker};
use serde_json::{Value, json};

use super::outcome::Verdict;
use super::*;
use crate::call::backend::Backend;
use crate::call::guards::{Slot, SlotNotifier};
use crate::call::scripted::{Behaviour, Scripted, Tail, caller_body};
use crate::clock;
use crate::control::reload;
use crate::message::Request;
use crate::observe::{Observer, Target};
use crate::plan::State;

const CONFIG: &str = include_str!("tests.yaml");
const KEYS: &str = include_str!("../../../../fixtures/configs/keys.yaml");

/// A compiled config with scripted backends.
struct Bench {
    plan: Plan,
    load: Arc<WorkerLoad>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.yaml"), KEYS).unwrap();
        std::fs::write(folder.path().join("gateway.yaml"), CONFIG).unwrap();
        let state = State::new(Observer::start(&Target::Off).unwrap());
        let read = reload::read(&folder.path().join("gateway.yaml"), &state, 1);
        let (compiled, _) = read.unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        Self {
            plan: compiled.plan,
            load: Arc::default(),
            folder,
        }
    }

    fn backend(&self, name: &str) -> &Arc<Backend> {
        self.plan
            .backends
            .iter()
            .find(|backend| *backend.name == *name)
            .unwrap()
    }

    fn explain(&self, described: &Described) -> Explanation {
        let question = Question::read(described, &self.plan).unwrap();
        explain(&self.plan, Arc::clone(&self.load), question, true)
    }

    /// Explains a GET of this URL with these fields.
    fn get(&self, url: &str, key: Option<&str>, fields: &[&str]) -> Explanation {
        self.explain(&Described {
            url: url.to_owned(),
            key: key.map(str::to_owned),
            headers: fields.iter().map(|field| (*field).to_owned()).collect(),
            ..Described::default()
        })
    }

    /// Sends the request and returns its response.
    async fn send(&self, described: &Described) -> Response<Bytes> {
        let question = Question::read(described, &self.plan).unwrap();
        let peer = Peer {
            address: SocketAddr::new(question.from, 0),
            client_is_known: true,
            worker: 0,
            load: Arc::clone(&self.load),
            scheme: question.scheme,
            certificate: None,
            interim: None,
            forwarded: ForwardedLines::default(),
            assumed: None,
        };
        let body = caller_body(Vec::new(), Some(0), true);
        let request = Request::from_parts(question.parts, body);
        let (head, body) = crate::pipeline::serve(&self.plan, &peer, request).await.into_parts();
        // An answer that breaks off has a status all the same.
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Response::from_parts(head, body)
    }
}

fn steps<'e>(explanation: &'e Explanation, topic: &str) -> Vec<&'e Step> {
    explanation.steps.iter().filter(|step| step.topic == topic).collect()
}

fn only<'e>(explanation: &'e Explanation, topic: &str) -> &'e Step {
    let found = steps(explanation, topic);
    assert_eq!(found.len(), 1, "{topic}: {explanation:#?}");
    found[0]
}

/// Calls `visit` with every step.
fn each(steps: &[Step], visit: &mut impl FnMut(&Step)) {
    for step in steps {
        visit(step);
        each(&step.steps, visit);
    }
}

/// Returns the line of the config that has this text.
fn line_of(text: &str) -> usize {
    let found = CONFIG.lines().position(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("no line has {text}")) + 1
}

fn line(step: &Step) -> Option<usize> {
    step.at.as_ref().map(|at| at.line)
}

const ACME: Option<&str> = Some("example-acme-1");

#[test]
fn every_fact_comes_with_the_line_of_its_setting() {
    let bench = Bench::new();
    let explanation = bench.get("http://api.example.com/users/7?view=full", ACME, &[]);
    let route = only(&explanation, "route");
    assert_eq!(route.text, "users, as /users/{id}");
    assert_eq!(
        line(route),
        Some(line_of("path: \"/users/{id}\", methods: [GET, POST]") - 1)
    );
    let others: Vec<_> = route.steps.iter().map(|step| &*step.text).collect();
    assert_eq!(
        others,
        [
            "rest /users/{*path}: fits too, but of users the path is more specific",
            "beta /users/{id}: needs header x-beta",
        ]
    );
    let credential = only(&explanation, "credential");
    assert_eq!(credential.text, "api_key acme-1; the route admits api_key or anonymous");
    let tier = only(&explanation, "tier");
    assert_eq!(tier.text, "enterprise, from the table of tenants");
    assert_eq!(line(tier), Some(line_of("acme: { tier: enterprise")));
    let limits: Vec<_> = steps(&explanation, "limit").iter().map(|step| &*step.text).collect();
    assert_eq!(
        limits,
        [
            "users/search: 2/s, burst 4 for each tenant; takes 1, 4 left",
            "tenants.quotas.monthly: 40 every 744h for each tenant; takes 1, 40 left",
            "enterprise: 100/s, burst 200 for each tenant; takes 1, 200 left",
            "tenants.in_flight: 400 in flight for each tenant; takes 1, 400 left",
        ]
    );
    let time = only(&explanation, "time");
    assert_eq!(
        (&*time.text, line(time)),
        ("5s for the whole request", Some(line_of("time_limit: 5s")))
    );
    let backend = only(&explanation, "backend");
    let guards: Vec<_> = backend.steps.iter().map(|step| (step.topic, &*step.text)).collect();
    assert_eq!(
        guards,
        [
            ("bulkhead", "0 of 2 slots in use, 0 of 0 waiting"),
            ("breaker", "closed: 0 of 0 calls failed"),
            ("retry", "off: one attempt"),
            ("endpoint", "http://10.0.0.5:8080 at 10.0.0.5:8080: up, 0 in flight"),
        ]
    );
    assert_eq!(line(&backend.steps[0]), Some(line_of("bulkhead: { limit: 2")));
    let outcome = &explanation.outcome;
    assert_eq!((outcome.verdict, &*outcome.text), (Verdict::Sent, "sent to users"));
}

#[test]
fn a_request_without_a_route_is_told_what_came_nearest() {
    let bench = Bench::new();
    let explanation = bench.get("/private", None, &[]);
    assert_eq!(explanation.outcome.reason, Some("no_route"));
    let route = only(&explanation, "route");
    assert_eq!(route.text, "no route takes the request");
    assert_eq!(
        route.steps[0].text,
        "private /private/{id}: fits up to segment 1, and then is for another path"
    );
    let described = Described {
        method: Some("DELETE".to_owned()),
        url: "/users/7".to_owned(),
        ..Described::default()
    };
    let explanation = bench.explain(&described);
    assert_eq!(explanation.outcome.status, Some(405));
    let route = only(&explanation, "route");
    let others: Vec<_> = route.steps.iter().map(|step| &*step.text).collect();
    assert_eq!(
        others[..2],
        [
            "rest /users/{*path}: would take it, but a more specific path refuses the method",
            "users /users/{id}: takes GET, HEAD, POST alone",
        ]
    );
    assert!(
        explanation.outcome.text.contains("allowed: GET, HEAD, POST"),
        "{}",
        explanation.outcome.text
    );
}

#[test]
fn a_caller_may_be_a_tenant_or_a_token_that_is_not_there() {
    let bench = Bench::new();
    let of = |change: &dyn Fn(&mut Described)| {
        let mut described = Described {
            url: "/private/7".to_owned(),
            ..Described::default()
        };
        change(&mut described);
        bench.explain(&described)
    };
    let tenant = of(&|described| described.tenant = Some("globex".to_owned()));
    assert_eq!(only(&tenant, "tenant").facts["tenant"], "globex");
    assert_eq!(
        only(&tenant, "tier").text,
        "premium, from the key",
        "a key of the tenant is taken"
    );
    let unlisted = of(&|described| {
        described.tenant = Some("nobody".to_owned());
        described.tier = Some("basic".to_owned());
    });
    assert_eq!(only(&unlisted, "tier").text, "basic, from the key");
    let claims = json!({ "sub": "ada", "org": "hooli", "plan": "premium" });
    let token = of(&|described| described.claims = claims.as_object().cloned());
    assert_eq!(
        only(&token, "credential").text,
        "jwt ada; the route admits api_key or jwt"
    );
    assert_eq!(only(&token, "tier").text, "premium, from the claims");
    let expired = json!({ "sub": "ada", "org": "hooli", "exp": 7 });
    let expired = of(&|described| described.claims = expired.as_object().cloned());
    assert_eq!(expired.outcome.reason, Some("credentials_expired"));
    let nobody = of(&|_| {});
    assert_eq!(nobody.outcome.reason, Some("credentials_missing"));
    assert_eq!(
        nobody.outcome.at.as_ref().map(|at| at.line),
        Some(line_of("any_of: [api_key, jwt]"))
    );
    let wrong = of(&|described| described.key = Some("guessed".to_owned()));
    assert_eq!(wrong.outcome.reason, Some("credentials_invalid"));
    assert_eq!(only(&wrong, "limit").facts["limit"], "failures");
}

#[test]
fn a_question_that_cannot_be_read_says_why() {
    let bench = Bench::new();
    let check = |described: Value, expected: &str| {
        let described: Described = serde_json::from_value(described).unwrap();
        let why = Question::read(&described, &bench.plan).err().unwrap();
        assert!(why.contains(expected), "{why}");
    };
    check(json!({ "url": "users" }), "neither a URL nor a path");
    check(json!({ "url": "/", "method": "G ET" }), "is not a method");
    check(json!({ "url": "ftp://a/" }), "is not http or https");
    check(json!({ "url": "/", "headers": ["x"] }), "write `name: value`");
    check(json!({ "url": "/", "tier": "free" }), "a tier needs a tenant");
    check(json!({ "url": "/", "tenant": "a", "key": "b" }), "one caller");
    check(json!({ "url": "/", "tenant": "" }), "not a tenant's name");
}

/// Random states of limits and guards.
struct States<'b> {
    bench: &'b Bench,
    rng: fastrand::Rng,
    held: Vec<Slot>,
    guard: OverloadGuard,
}

const OVERLOAD: OverloadSettings = OverloadSettings {
    delay: Duration::from_millis(20),
    period: Duration::from_millis(100),
};

impl States<'_> {
    /// Changes something, or nothing.
    async fn change(&mut self) {
        let names = ["users", "shop", "v2", "slow"];
        let backend = self.bench.backend(names[self.rng.usize(..names.len())]);
        let now = clock::now();
        match self.rng.u8(..14) {
            0 => {
                let _ = backend.guards.breaker.force(breaker::ForcedState::Open, now);
            }
            1 | 2 => {
                let _ = backend.guards.breaker.unforce(now);
            }
            3 => self.hold(backend),
            4 | 5 => {
                let some = self.rng.usize(..=self.held.len());
                self.held.truncate(some);
            }
            6 => {
                let address = backend.endpoints.load().all()[0].endpoint.address();
                backend.endpoints.registry().drain(address, true);
            }
            7 => {
                for listed in backend.endpoints.load().all() {
                    backend.endpoints.registry().drain(listed.endpoint.address(), false);
                }
            }
            8 => self.tick(Duration::from_millis(400)),
            9 | 10 => self.tick(Duration::ZERO),
            11 | 12 => tokio::time::sleep(Duration::from_millis(self.rng.u64(1..700))).await,
            _ => {}
        }
    }

    fn hold(&mut self, backend: &Backend) {
        let entrant = Entrant {
            tenant: self.rng.u64(..3),
            tier: 0,
            weight: 1,
            deadline: Moment::MAX,
        };
        let signal = || SlotNotifier::new(tokio::sync::oneshot::channel().0);
        if let Entry::Admitted(slot) = backend.guards.bulkhead.enter(clock::now(), entrant, signal) {
            self.held.push(slot);
        }
    }

    /// Lets the worker be late, or not, for some periods.
    fn tick(&mut self, delay: Duration) {
        let mut now = clock::now();
        for _ in 0..self.rng.usize(1..12) {
            now = now + Duration::from_millis(60);
            self.guard.tick(delay, now, &self.bench.load.admission);
        }
    }

    fn request(&mut self) -> Described {
        let mut one_of = |all: &[&str]| all[self.rng.usize(..all.len())].to_owned();
        let url = one_of(&[
            "/users/7",
            "/users/7",
            "/shop/1",
            "/split/1",
            "/slow/1",
            "/both/1",
            "/both/1",
            "/hello",
            "/old/1",
            "/private/1",
            "/window",
            "/nowhere",
            "/users/%zz",
            "/rewritten/1",
            "http://other.example.com/users/7",
            "http://a.closed.example.com/x",
        ]);
        let method = one_of(&[
            "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS",
        ]);
        let key = one_of(&[
            "",
            "example-acme-1",
            "example-acme-2",
            "example-globex",
            "example-globex",
            "example-initech",
            "example-initech",
            "guessed",
        ]);
        let headers = match self.rng.u8(..8) {
            0 => vec!["x-beta: 1".to_owned()],
            1 => vec!["x-request-timeout-ms: 900".to_owned()],
            2 => vec!["x-request-timeout-ms: 2".to_owned()],
            3 => vec!["expect: wonders".to_owned()],
            _ => Vec::new(),
        };
        Described {
            method: Some(method),
            url,
            headers,
            key: Some(key).filter(|key| !key.is_empty()),
            from: Some(IpAddr::from([10, 0, 0, self.rng.u8(1..4)])),
            ..Described::default()
        }
    }
}

/// Returns the reason of a refusal, and the limits that it names.
fn refusal(response: &Response<Bytes>) -> (Option<String>, Vec<String>) {
    let reason = response.headers().get("x-gateway-reason");
    let problem: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let violated = problem["violated-policies"].as_array().into_iter().flatten();
    let names = violated.filter_map(Value::as_str).map(str::to_owned).collect();
    (reason.map(|reason| reason.to_str().unwrap().to_owned()), names)
}

/// On random requests in random states, the gateway does what the explanation said just before.
#[test]
fn what_is_explained_is_what_is_done() {
    let mut seen = BTreeMap::<String, usize>::new();
    // A runtime ends the connections of its requests.
    for seed in 0..10 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(compare(seed, 1_000, &mut seen));
    }
    for word in [
        "Sent",
        "Answered",
        "Perhaps",
        "Waits",
        "rate_limited",
        "quota_exhausted",
        "breaker_open",
        "bulkhead_full",
        "no_endpoint",
        "overloaded",
        "not_allowed",
        "address_not_allowed",
        "no_route",
        "method_not_allowed",
        "malformed_request",
        "credentials_invalid",
        "credentials_missing",
        "out_of_time",
    ] {
        assert!(seen.get(word).is_some_and(|count| *count >= 5), "{word} in {seen:#?}");
    }
}

/// Gives each backend connections to a script that fails one request of five.
async fn connect(bench: &Bench, seed: u64) {
    for backend in &bench.plan.backends {
        let mut rng = fastrand::Rng::with_seed(seed);
        let answer = move || Behaviour::Answer {
            after: Duration::ZERO,
            status: if rng.u8(..5) == 0 { 500 } else { 200 },
            retry_after: None,
            tail: Tail::AtOnce,
        };
        let _ = Scripted::behind(backend, 8, answer).await;
    }
}

async fn compare(seed: u64, requests: usize, seen: &mut BTreeMap<String, usize>) {
    let bench = Bench::new();
    let mut states = States {
        bench: &bench,
        rng: fastrand::Rng::with_seed(seed),
        held: Vec::new(),
        guard: OverloadGuard::new(OVERLOAD, clock::now()),
    };
    for number in 0..requests {
        if number % 50 == 0 {
            // Connections are closed when they have been idle for long.
            connect(&bench, seed).await;
        }
        states.change().await;
        let described = states.request();
        let explanation = bench.explain(&described);
        let again = bench.explain(&described);
        let response = bench.send(&described).await;
        let (reason, limits) = refusal(&response);
        let outcome = &explanation.outcome;
        let told = || format!("{number}: {described:#?}\n{explanation:#?}\n{response:#?}");
        assert_eq!(again.outcome, *outcome, "an explanation changes nothing: {}", told());
        match outcome.verdict {
            Verdict::Refused => {
                assert_eq!(Some(response.status().as_u16()), outcome.status, "{}", told());
                let is_head = described.method.as_deref() == Some("HEAD");
                assert_eq!(reason.as_deref(), outcome.reason, "{}", told());
                let foreseen: Vec<&str> = outcome.limits.iter().map(AsRef::as_ref).collect();
                assert!(is_head || limits == foreseen, "{}", told());
            }
            // What a backend answers is not foreseen.
            Verdict::Sent => assert!(reason.is_none_or(|reason| is_of_backend(&reason)), "{}", told()),
            Verdict::Answered => {
                assert_eq!(Some(response.status().as_u16()), outcome.status, "{}", told());
                assert_eq!(reason, None, "{}", told());
            }
            Verdict::Waits => assert!(reason.is_none_or(|reason| reason.starts_with("bulkhead")), "{}", told()),
            Verdict::Perhaps => {}
            Verdict::Unknown => panic!("nothing is slow here: {}", told()),
        }
        let word = outcome
            .reason
            .map_or_else(|| format!("{:?}", outcome.verdict), str::to_owned);
        *seen.entry(word).or_default() += 1;
        if number % 50 == 0 {
            every_line_exists(&bench, &explanation);
        }
    }
}

fn is_of_backend(reason: &str) -> bool {
    reason.starts_with("backend_") || reason == "invalid_json"
}

fn every_line_exists(bench: &Bench, explanation: &Explanation) {
    each(&explanation.steps, &mut |step| {
        let Some(at) = &step.at else { return };
        let file = bench.folder.path().join(Path::new(&*at.file).file_name().unwrap());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().nth(at.line - 1).unwrap_or_default();
        assert!(
            !line.trim().is_empty() && !line.trim_start().starts_with('#'),
            "{step:#?}: {line}"
        );
    });
}
