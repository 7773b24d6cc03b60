//! Decisions as values, on compiled configs and made heads: no socket, no backend, no clock.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use policies::{Moment, WallTime};

use super::*;
use crate::control::reload;
use crate::headers::{ForwardedLines, Scheme, Trace, ValueText};
use crate::message::{Request, RequestHead};
use crate::observe::{Observer, Target as LogTarget};
use crate::pipeline::charge::charge;
use crate::plan::State;
use crate::rejection::Reason;

const KEY: (&str, &str) = ("x-api-key", "example-acme-1");
const HOST: (&str, &str) = ("host", "api.example.com");
/// A head that route `users` takes, without a credential.
const USERS: [(&str, &str); 2] = [HOST, ("x-version", "2")];

/// A config whose route `users` has a rule of each kind.
const RULES: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
cors: { origins: ["https://app.example.com"], methods: [GET, POST] }
callers:
  api_keys: { file: keys.yaml }
  anonymous: { by: client_address, tier: free }
  failures: { rate: 5/s, burst: 50 }
tenants:
  acme: { tier: enterprise, quotas: { monthly: { limit: 5000000, every: month } } }
backends: { users: { endpoints: [{ url: "http://10.0.0.5:8080" }] } }
routes:
  users:
    match: { host: api.example.com, path: "/users/{id}", methods: [GET, POST], headers: { x-version: "2" }, query: { view: full } }
    access:
      any_of: [api_key, anonymous]
      scopes: [users.read]
      tenants: [acme]
      addresses: { allow: [10.0.0.0/8], deny: [10.6.6.0/24] }
    headers: { request: { set: { x-edge: eu-1, x-item: "{path.id}" } } }
    method_override: reject
    limits:
      search: { rate: 5/s, burst: 10, per: tenant }
      daily: { limit: 10000, every: day, per: client_address }
    time_limit: 5s
    backend: users
  prices:
    match: { path: "/prices/{sku}" }
    backend: users
"#;

struct Scene {
    plan: Plan,
    peer: Peer,
    now: Now,
}

/// A decision in words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    route: String,
    /// Tenant, caller and tier.
    caller: String,
    /// Names of limits, each with the tokens to take.
    charges: Vec<String>,
    /// Time limit and target of a request that goes on; otherwise reason and setting.
    outcome: String,
    /// The head for the backend.
    head: Vec<String>,
}

impl Scene {
    fn of_fixture(name: &str) -> Self {
        Self::of(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../fixtures/configs")
                .join(name),
        )
    }

    /// A scene with this config, and with the keys of the examples.
    fn of_text(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = include_str!("../../../../fixtures/configs/keys.yaml");
        std::fs::write(folder.path().join("keys.yaml"), keys).unwrap();
        std::fs::write(folder.path().join("gateway.yaml"), config).unwrap();
        Self::of(&folder.path().join("gateway.yaml"))
    }

    fn of(config: &Path) -> Self {
        let state = State::new(Observer::start(&LogTarget::Off).unwrap());
        let (compiled, _) =
            reload::read(config, &state, 1).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        Self {
            plan: compiled.plan,
            peer: Peer {
                address: SocketAddr::from(([10, 1, 2, 3], 40_000)),
                client_is_known: true,
                worker: 0,
                load: Arc::default(),
                scheme: Scheme::Https,
                certificate: None,
                interim: None,
                forwarded: ForwardedLines::default(),
                assumed: None,
            },
            now: Now {
                moment: Moment::from_nanos(7_200_000_000_000),
                wall: WallTime::since_epoch(Duration::from_secs(1_796_000_000)),
            },
        }
    }

    fn from(mut self, address: [u8; 4]) -> Self {
        self.peer.address = (address, 40_000).into();
        self
    }

    fn head(&self, method: &str, uri: &str, fields: &[(&str, &str)]) -> DecisionInput {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let parts = RequestHead {
            method: method.parse().unwrap(),
            uri: uri.parse().unwrap(),
            headers: fields.collect(),
            ..RequestHead::default()
        };
        let trace = Trace::read_or_start(&parts.headers, false);
        DecisionInput::read(&self.plan, parts, &trace)
    }

    /// Decides on a request that waits for nothing.
    fn decide<'a>(&'a self, head: &'a mut DecisionInput) -> Decision<'a> {
        let nothing = |_: &Findings<'a>| panic!("nothing is awaited");
        let decision = decide(&self.plan, &self.peer, head, self.now, nothing);
        decision
            .now_or_never()
            .expect("a decision that waits for nothing is ready")
    }

    fn told(&self, method: &str, uri: &str, fields: &[(&str, &str)]) -> Told {
        self.tell(&mut self.decide(&mut self.head(method, uri, fields)))
    }

    fn tell(&self, decision: &mut Decision<'_>) -> Told {
        let trace = Trace::read_or_start(&crate::message::FieldMap::new(), false);
        decision.write_head(&self.plan, &self.peer, &trace, true, &mut ValueText::default());
        if let Ok(request) = &mut decision.outcome {
            std::mem::take(&mut request.added).insert_into(&mut request.head.headers);
        }
        let found = &decision.found;
        let outcome = match &decision.outcome {
            Ok(request) => {
                let Budget { limit, deadline, by } = request.budget;
                assert_eq!(deadline, Deadline::at(self.now.moment + limit));
                let by = if by.is_none() { " by the caller" } else { "" };
                format!("{limit:?}{by}: {}", request.target.uri)
            }
            Err(Stop::Preflight(fields)) => {
                let methods = fields.get("access-control-allow-methods").unwrap();
                format!("preflight: {}", methods.to_str().unwrap())
            }
            Err(Stop::Refused(rejection)) => format!("{}: {}", rejection.reason().as_str(), self.setting(rejection)),
        };
        let head = decision.outcome.as_ref().map(|request| {
            let lines = request.head.headers.iter();
            let mut lines: Vec<_> = lines
                .filter(|(name, _)| *name != "traceparent")
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort();
            lines
        });
        Told {
            route: found.route.map(|route| route.name.to_string()).unwrap_or_default(),
            caller: found.principal.as_ref().map_or_else(String::new, |known| {
                format!("{} {} {}", known.caller.tenant, known.caller.id, known.tier.name)
            }),
            charges: decision
                .charges
                .iter()
                .map(|charge| format!("{} {}", charge.limit.metrics.name, charge.cost))
                .collect(),
            outcome,
            head: head.unwrap_or_default(),
        }
    }

    /// Path of the setting that decided; empty if none did.
    fn setting(&self, rejection: &Rejection) -> &str {
        let setting = rejection.setting().and_then(|id| self.plan.settings.get(id));
        setting.map_or("", |setting| &setting.path)
    }
}

const OF_ACME: [&str; 5] = [
    "enterprise 1",
    "tenants.in_flight 1",
    "tenants.quotas.monthly 1",
    "users/search 1",
    "users/daily 1",
];

#[test]
fn a_request_is_decided_without_being_charged_or_called() {
    let scene = Scene::of_text(RULES);
    let told = scene.told("GET", "/users/7?view=full", &[USERS[0], USERS[1], KEY]);
    assert_eq!((&*told.route, &*told.caller), ("users", "acme acme-1 enterprise"));
    assert_eq!(told.charges, OF_ACME);
    assert_eq!(told.outcome, "5s: /users/7?view=full");
    for field in ["x-tenant-id: acme", "x-caller-id: acme-1", "x-edge: eu-1", "x-item: 7"] {
        assert!(told.head.iter().any(|line| line == field), "{field}: {told:#?}");
    }
}

/// A field that is set here but not removed from requests would let callers pass for others where it is not set.
#[test]
fn no_caller_sends_a_field_that_the_gateway_sets() {
    let scene = Scene::of_text(RULES);
    let told = scene.told("GET", "/prices/7", &[HOST, KEY]);
    // These continue what the caller sent, by their standards; so does `traceparent`.
    let is_set = |line: &&String| !["host: ", "via: "].iter().any(|name| line.starts_with(name));
    let set: Vec<_> = told.head.iter().filter(is_set).collect();
    assert!(set.len() >= 7, "{told:#?}");
    let names = set.iter().filter_map(|line| line.split(':').next());
    let forged: Vec<_> = names.map(|name| (name, "forged")).chain([HOST, KEY]).collect();
    let forged = scene.told("GET", "/prices/7", &forged);
    assert_eq!(forged.head.iter().filter(is_set).collect::<Vec<_>>(), set);
    for of_attempt in ["x-attempt", "x-request-timeout-ms"] {
        let name = http::HeaderName::from_static(of_attempt);
        assert!(headers::is_always_removed(&name), "{name}");
    }
}

#[test]
fn each_reason_against_a_request_comes_with_the_setting_that_decided() {
    let scene = Scene::of_text(RULES);
    let check = |method: &str, uri: &str, fields: &[(&str, &str)], expected: [&str; 3], charges: &[&str]| {
        let told = scene.told(method, uri, fields);
        let given = [&*told.route, &*told.caller, &*told.outcome];
        assert_eq!(given, expected, "{method} {uri} {fields:?}");
        assert_eq!(told.charges, charges, "{method} {uri} {fields:?}");
    };
    let users = "/users/7?view=full";
    let with = |more: &[(&'static str, &'static str)]| [&USERS[..], more].concat();
    let none: &[&str] = &[];
    let too_long = format!("/users/{}", "7".repeat(9000));

    check("GET", "/nowhere", &[HOST], ["", "", "no_route: "], none);
    check(
        "GET",
        &too_long,
        &[HOST],
        ["", "", "uri_too_long: request_limits.uri"],
        none,
    );
    check(
        "GET",
        r"/users\7",
        &[HOST],
        ["", "", "malformed_request: path_policy.backslash"],
        none,
    );
    check("DELETE", users, &with(&[KEY]), ["", "", "method_not_allowed: "], none);
    check(
        "GET",
        users,
        &with(&[("x-api-key", "guessed")]),
        ["users", "", "credentials_invalid: routes.users.access"],
        &["callers.failures 1"],
    );
    check(
        "GET",
        users,
        &USERS,
        ["users", "anonymous 10.1.2.3 free", "not_allowed: routes.users.access"],
        none,
    );
    let acme = "acme acme-1 enterprise";
    check(
        "GET",
        users,
        &with(&[KEY, ("x-http-method-override", "DELETE")]),
        ["users", acme, "malformed_request: routes.users.method_override"],
        none,
    );
    check(
        "GET",
        users,
        &with(&[KEY, ("x-request-timeout-ms", "soon")]),
        ["users", acme, "malformed_request: "],
        none,
    );
    check(
        "GET",
        users,
        &with(&[KEY, ("x-request-timeout-ms", "1500")]),
        ["users", acme, "1.5s by the caller: /users/7?view=full"],
        &OF_ACME,
    );
    let from_app = [
        HOST,
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "GET"),
    ];
    check(
        "OPTIONS",
        "/prices/1",
        &from_app,
        ["prices", "", "preflight: GET, POST"],
        none,
    );
    let from_elsewhere = [
        HOST,
        ("origin", "https://x.example"),
        ("access-control-request-method", "GET"),
    ];
    check(
        "OPTIONS",
        "/prices/1",
        &from_elsewhere,
        ["prices", "", "origin_not_allowed: cors"],
        none,
    );
}

#[test]
fn the_route_decides_on_addresses() {
    let scene = Scene::of_text(RULES).from([10, 6, 6, 1]);
    let told = scene.told("GET", "/users/7?view=full", &[USERS[0], USERS[1], KEY]);
    let expected = ("users", "", "address_not_allowed: routes.users.access.addresses");
    assert_eq!((&*told.route, &*told.caller, &*told.outcome), expected);
    assert_eq!(told.charges, [""; 0]);
}

#[test]
fn the_cost_of_a_route_is_charged_to_the_tier_and_its_own_limits() {
    let scene = Scene::of_fixture("tiers.yaml");
    let told = scene.told("POST", "/export", &[HOST, KEY]);
    assert_eq!((&*told.caller, &*told.route), ("acme acme-1 enterprise", "export"));
    assert_eq!(
        told.charges,
        ["enterprise 100", "tenants.in_flight 100", "export/export 1"]
    );
    let told = scene.told("GET", "/reports/7", &[HOST, ("x-api-key", "example-globex")]);
    assert_eq!((&*told.charges[0], &*told.outcome), ("premium 10", "25s: /reports/7"));
}

#[test]
fn a_shared_limit_is_charged_beside_those_of_the_caller() {
    let scene = Scene::of_fixture("limits.yaml");
    let told = scene.told("GET", "/search", &[HOST, KEY]);
    assert_eq!((&*told.caller, &*told.route), ("acme acme-1 premium", "search"));
    let expected = [
        "premium 1",
        "tenants.in_flight 1",
        "tenants.quotas.monthly 1",
        "search/caller 1",
        "search/address 1",
        "search/index 1",
        "search/planned 1",
    ];
    assert_eq!(told.charges, expected);
    let told = scene.told("GET", "/search", &[HOST]);
    assert_eq!(&*told.caller, "anonymous 10.1.2.3 free");
}

#[test]
fn the_same_head_is_decided_twice_in_the_same_way_and_nothing_is_taken() {
    let scene = Scene::of_text(RULES);
    let users = [USERS[0], USERS[1], KEY];
    let guessed = [USERS[0], USERS[1], ("x-api-key", "guessed")];
    for fields in [&users, &guessed, &[USERS[0], USERS[1], HOST]] {
        let first = scene.head("GET", "/users/7?view=full", fields);
        let (chance, mut balances, mut all) = (first.chance, Vec::new(), Vec::new());
        for _ in 0..100 {
            let mut head = scene.head("GET", "/users/7?view=full", fields);
            head.chance = chance;
            let mut decision = scene.decide(&mut head);
            balances.push(
                decision
                    .charges
                    .iter()
                    .map(|charge| charge.account.balance(scene.now))
                    .collect::<Vec<_>>(),
            );
            all.push(scene.tell(&mut decision));
        }
        assert!(all.iter().all(|told| *told == all[0]), "{fields:?}");
        assert!(balances.iter().all(|balance| *balance == balances[0]), "{fields:?}");
    }
}

#[tokio::test]
async fn a_429_is_decided_when_the_charges_are_taken() {
    let scene = Scene::of_text(RULES);
    let taken = async |fields: &[(&str, &str)]| {
        let mut head = scene.head("GET", "/users/7?view=full", fields);
        let mut decision = scene.decide(&mut head);
        let charged = charge(&scene.plan, &mut decision).await;
        assert!(decision.charges.is_empty());
        charged.map(drop).map_err(|rejection| rejection.reason())
    };
    // The burst of the route's limit `search`, and what comes in meanwhile.
    let mut served = 0;
    while served < 100 && taken(&[USERS[0], USERS[1], KEY]).await.is_ok() {
        served += 1;
    }
    assert!((10..100).contains(&served), "{served}");
    // A guess is refused with a 429 instead of a 401 once the address has used up its failures.
    let mut guesses = 0;
    while guesses < 200 && taken(&[USERS[0], USERS[1], ("x-api-key", "guessed")]).await.is_ok() {
        guesses += 1;
    }
    assert!((50..200).contains(&guesses), "{guesses}");
    assert_eq!(
        taken(&[USERS[0], USERS[1], ("x-api-key", "guessed")]).await,
        Err(Reason::RateLimited)
    );
}

/// A config with the user `ada`, whose password is `lovelace`.
fn with_a_user() -> (tempfile::TempDir, Scene) {
    let folder = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash("lovelace", 4).unwrap();
    let users = format!("users: [{{ id: ada, tenant: acme, password_hash: \"{hash}\" }}]\n");
    let config = r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { basic: { file: users.yaml }, failures: { rate: 1/h, burst: 2 } }
backends: { api: { endpoints: [{ url: "http://127.0.0.1:9" }] } }
routes: { any: { match: { path: "/{*rest}" }, backend: api } }
"#;
    std::fs::write(folder.path().join("users.yaml"), users).unwrap();
    std::fs::write(folder.path().join("gateway.yaml"), config).unwrap();
    let scene = Scene::of(&folder.path().join("gateway.yaml"));
    (folder, scene)
}

#[tokio::test]
async fn a_request_that_waits_for_a_comparison_goes_through_each_stage_once() {
    let (_folder, mut scene) = with_a_user();
    scene.now = Now::read();
    // Base64 of `ada:lovelace`, and of two wrong passwords and one more.
    let right = ("authorization", "Basic YWRhOmxvdmVsYWNl");
    let wrong = ("authorization", "Basic YWRhOmJ5cm9u");
    let also_wrong = ("authorization", "Basic YWRhOmJ5cm9uMg==");
    let one_more = ("authorization", "Basic YWRhOmJ5cm9uMw==");
    let ask = async |fields: &[(&str, &str)]| {
        let mut head = scene.head("GET", "/users", &[&[HOST], fields].concat());
        let waits = Cell::new(0);
        let before_wait = |found: &Findings<'_>| {
            // The record can name the route of a caller that does not wait for the comparison.
            assert_eq!(found.route.map(|route| &*route.name), Some("any"));
            assert!(found.principal.is_none());
            waits.set(waits.get() + 1);
        };
        let mut decision = decide(&scene.plan, &scene.peer, &mut head, scene.now, before_wait).await;
        let told = scene.tell(&mut decision);
        let via = told.head.iter().filter(|line| line.starts_with("via: ")).count();
        assert_eq!(
            via,
            usize::from(decision.outcome.is_ok()),
            "the head is made ready once"
        );
        (told.caller, told.outcome, told.charges, waits.get())
    };
    let free = ["free 1", "tenants.in_flight 1"].map(str::to_owned).to_vec();
    let served = |waits| {
        (
            "acme ada free".to_owned(),
            "28s: /users".to_owned(),
            free.clone(),
            waits,
        )
    };
    assert_eq!(ask(&[right]).await, served(1));
    assert_eq!(ask(&[right]).await, served(0), "its verdict is known");

    let invalid = "credentials_invalid: routes.any.access".to_owned();
    let refused = |charges: &[&str], waits| {
        let charges = charges.iter().map(|charge| (*charge).to_owned()).collect::<Vec<_>>();
        (String::new(), invalid.clone(), charges, waits)
    };
    // A comparison is charged in advance, so nothing is left to take.
    assert_eq!(ask(&[wrong]).await, refused(&[], 1));
    assert_eq!(ask(&[wrong]).await, refused(&["callers.failures 1"], 0));
    assert_eq!(ask(&[also_wrong]).await, refused(&[], 1));
    // The address has no failures left: nothing is compared for it.
    let (.., outcome, charges, _) = ask(&[one_more]).await;
    assert!(outcome.starts_with("rate_limited: "), "{outcome}");
    assert_eq!(charges, [""; 0]);
    assert_eq!(ask(&[right]).await, served(0));
    // A malformed deadline is refused before anything is compared.
    let (.., outcome, _, waits) = ask(&[one_more, ("x-request-timeout-ms", "soon")]).await;
    assert_eq!((&*outcome, waits), ("malformed_request: ", 1));
}

const MIRRORED: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address, tier: free } }
backends:
  v1: { endpoints: [{ url: "http://10.0.0.5:8080" }] }
  v2: { endpoints: [{ url: "http://10.0.0.6:8080" }] }
routes:
  all: { match: { path: /all }, access: { any_of: [anonymous] }, backend: v1, upgrade: websocket, mirror: { to: v2, percent: 100, methods: [GET, POST] } }
  none: { match: { path: /none }, access: { any_of: [anonymous] }, backend: v1, mirror: { to: v2, percent: 0 } }
  some: { match: { path: /some }, access: { any_of: [anonymous] }, backend: v1, mirror: { to: v2, percent: 30 } }
  keyed: { match: { path: "/keyed/{id}" }, access: { any_of: [anonymous] }, backend: v1, mirror: { to: v2, percent: 30, key: path.id } }
  lacking: { match: { path: /lacking }, access: { any_of: [anonymous] }, backend: v1, mirror: { to: v2, percent: 99.99, key: cookie.sid } }
  both:
    match: { path: /both }
    access: { any_of: [anonymous] }
    split: [{ backend: v2, percent: 50, key: none }, { backend: v1 }]
    mirror: { to: v2, percent: 50 }
"#;

/// Decides on a request. Returns whether it is mirrored, and the backend that a split chose.
fn mirrored(scene: &Scene, method: &str, target: &str, fields: &[(&str, &str)]) -> (bool, Option<String>) {
    let mut head = scene.head(method, target, &[&[HOST], fields].concat());
    let request = scene.decide(&mut head).outcome.expect("it goes on");
    let chosen = request.chosen.map(|backend| backend.name.to_string());
    (request.is_mirrored, chosen)
}

#[test]
fn requests_that_may_last_and_other_methods_are_not_mirrored() {
    let scene = Scene::of_text(MIRRORED);
    let check = |method: &str, target: &str, fields: &[(&str, &str)], expected| {
        assert_eq!(
            mirrored(&scene, method, target, fields).0,
            expected,
            "{method} {target} {fields:?}"
        );
    };
    check("GET", "/all", &[], true);
    check("POST", "/all", &[("content-type", "application/json")], true);
    check("HEAD", "/all", &[], false);
    check("PUT", "/all", &[], false);
    check("GET", "/all", &[("accept", "text/event-stream")], false);
    check("POST", "/all", &[("content-type", "application/grpc+proto")], false);
    let handshake = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    check("GET", "/all", &handshake, false);
    check("GET", "/none", &[], false);
    check("GET", "/lacking", &[], false);
}

#[test]
fn the_share_that_is_mirrored_is_as_written() {
    let scene = Scene::of_text(MIRRORED);
    let share = |count: usize, is_in: &dyn Fn(usize) -> bool| (0..count).filter(|number| is_in(*number)).count();
    let by_chance = share(2_000, &|_| mirrored(&scene, "GET", "/some", &[]).0);
    assert!((480..=720).contains(&by_chance), "{by_chance} of 2000");
    let of_key = |number| mirrored(&scene, "GET", &format!("/keyed/{number}"), &[]).0;
    let by_key = share(2_000, &of_key);
    assert!((480..=720).contains(&by_key), "{by_key} of 2000");
    assert!((0..100).all(|number| of_key(number) == of_key(number)));

    // Half of the requests go to the mirror's backend anyway. Of the others, half are mirrored: chance decides twice.
    let all: Vec<_> = (0..2_000).map(|_| mirrored(&scene, "GET", "/both", &[])).collect();
    let of = |wanted: (bool, &str)| {
        let is_wanted = |(is_mirrored, chosen): &&(bool, Option<String>)| {
            (*is_mirrored, chosen.as_deref()) == (wanted.0, Some(wanted.1))
        };
        all.iter().filter(is_wanted).count()
    };
    assert_eq!(of((true, "v2")), 0);
    let [copied, alone] = [true, false].map(|is_mirrored| of((is_mirrored, "v1")));
    for count in [copied, alone] {
        assert!((380..=620).contains(&count), "{copied} and {alone} of 2000");
    }
}

/// The slow paths are boxed, so that a request that waits for nothing does not carry them.
#[test]
fn the_future_of_a_request_stays_small() {
    fn size<'a, F>(_: impl FnOnce(&'a Plan, &'a Peer, Request<crate::wire::caller_body::CallerBody>) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size(crate::pipeline::serve);
    assert!(bytes <= 6600, "{bytes} bytes");
}
