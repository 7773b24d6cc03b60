//! Holds which setting each rejection names, and where it stands, on compiled configs: one that writes every setting
//! that can decide, and one that leaves them to their defaults.

use std::collections::BTreeSet;
use std::time::Duration;

use policies::{Moment, WallTime};
use smallvec::SmallVec;

use super::Plan;
use super::route::{Route, Target};
use super::time_budget::properties::plan;
use crate::aggregate::Aggregate;
use crate::auth::caller::{Caller, Kind as Credential};
use crate::auth::check::Check;
use crate::client::address::ClientAddress;
use crate::clock::Now;
use crate::headers::MethodOverride;
use crate::headers::cors::Verdict;
use crate::idempotency::IdempotencySettingIds;
use crate::limits::{self, Charge};
use crate::rejection::{Reason, Rejection};
use crate::setting::SettingId;

const WRITTEN: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
time_limits:
  request: 30s
  head: 9s
  connect: 900ms
request_limits:
  head: 15KiB
  headers: 55
  uri: 5KiB
  body: 7MiB
  json_body: 99KiB
  json_total: 50MiB
  parked_total: 51MiB
connection_limits:
  total: 777
  per_address: 33
minimum_rates:
  body: 333B
overload:
  for: 120ms
idempotency:
  max_bytes: 77MiB
path_policy:
  dot_segments: reject
  double_slash: reject
  encoded_slash: reject
  backslash: reject
cors: { origins: ["https://top.example"] }
callers:
  anonymous: { by: client_address }
  jwt:
    main: { issuer: "https://id.example", audience: [edge], algorithms: [HS256], keys: { secret: "0123456789abcdef0123456789abcdef" }, tenant: /tenant }
  failures: { rate: 1/min, burst: 1 }
  verifications:
    share: 0.3
    rate: 4/min
    burst: 4
tiers:
  gold:
    rate: 1/min
    burst: 1
    in_flight: 1
    quotas:
      daily: { limit: 1, every: day }
tenants:
  acme:
    tier: gold
    rate: 1/h
    in_flight: 1
    quotas:
      daily: { limit: 1, every: day }
  bursts:
    tier: gold
    burst: 1
backends:
  b:
    endpoints:
      - url: "http://endpoint.invalid"
    time_limit: 8s
    attempt_limit: 3s
    when_none_is_up: refuse
    bulkhead:
      limit: 12
      wait: 70ms
    breaker:
      window: 11s
routes:
  r:
    match: { path: /r }
    access:
      any_of: [anonymous, jwt]
      addresses:
        deny: [10.0.0.0/8]
    limits:
      own: { rate: 1/min, burst: 1 }
      count: { in_flight: 1, per: global }
    time_limit: 7s
    body_limit: 3MiB
    cors:
      origins: ["https://route.example"]
    path_policy:
      backslash: keep
    method_override: reject
    upgrade: "off"
    idempotency:
      required: true
      max_answer: 9KiB
    backend: b
  a:
    match: { path: /a }
    access: { any_of: [anonymous] }
    aggregate:
      body_limit: 4MiB
      conflict: error
      parts:
        first: { backend: b, path: /first }
        p:
          backend: b
          path: "/x/{item}"
          time_limit: 2s
          body_limit: 1MiB
          for_each:
            in: "{part.first.all}"
            limit: 44
"#;

const DEFAULT: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address } }
cors: { origins: ["https://top.example"] }
tiers: { gold: { rate: 1/min, burst: 1 } }
backends:
  b: { endpoints: [{ url: "http://endpoint.invalid" }] }
routes:
  r: { match: { path: /r }, access: { any_of: [anonymous] }, backend: b }
  a: { match: { path: /a }, access: { any_of: [anonymous] }, aggregate: { parts: { first: { backend: b, path: /f }, p: { backend: b, path: "/{body.x}" } } } }
"#;

fn now(seconds: u64) -> Now {
    Now {
        moment: Moment::from_nanos((1_000_000 + seconds) * 1_000_000_000),
        wall: WallTime::since_epoch(Duration::from_secs(1_796_000_000 + seconds)),
    }
}

fn r(plan: &Plan) -> &Route {
    &plan.listed[0]
}

fn aggregate(plan: &Plan) -> &Aggregate {
    match &plan.listed[1].target {
        Target::Aggregate(aggregate) => aggregate,
        _ => panic!("an aggregate"),
    }
}

fn ids(plan: &Plan) -> &crate::call::backend::BackendSettingIds {
    &plan.backends[0].ids
}

fn caller(tenant: &str) -> Caller {
    Caller {
        tenant: tenant.into(),
        id: "k".into(),
        tier: Some("gold".into()),
        scopes: Box::default(),
        kind: Credential::ApiKey,
        claims: None,
        configured: true,
        expires: None,
    }
}

/// Returns the setting that refuses the second of two charges.
fn refused(charge: &Charge) -> (Reason, SettingId) {
    let take = |at| limits::take(SmallVec::from_iter([charge.clone()]), now(at), Duration::ZERO);
    let first = take(0);
    let rejection = take(1).err().expect("the limit admits one");
    drop(first);
    (rejection.reason(), rejection.setting().expect("a limit has a setting"))
}

/// Returns the setting of the tenant's limit with this number.
fn of_tenant(plan: &Plan, tenant: &str, number: usize) -> SettingId {
    let principal = plan.tiers.build_principal(caller(tenant));
    refused(&principal.holds()[number].charge(1)).1
}

fn of_route_limit(plan: &Plan, number: usize) -> SettingId {
    let principal = plan.tiers.build_principal(caller("other"));
    let address = std::net::IpAddr::from([192, 0, 2, 1]);
    refused(&r(plan).limits[number].charge(&principal, address, "r", 1)).1
}

fn setting(rejection: &Rejection) -> SettingId {
    rejection.setting().expect("it names its setting")
}

fn address_not_allowed(plan: &Plan) -> SettingId {
    let ip = std::net::IpAddr::from([10, 0, 0, 1]);
    let client = ClientAddress {
        ip,
        peer: ip,
        trusted_peer: false,
        is_known: true,
    };
    let list = r(plan).edge.addresses.as_ref().expect("the route has a list");
    setting(&list.permits(&client).expect_err("it is denied"))
}

fn origin_not_allowed(plan: &Plan) -> SettingId {
    let cors = r(plan).edge.finish.as_ref().and_then(|fields| fields.cors.as_ref());
    let cors = cors.expect("the route has CORS");
    setting(&cors.grant(&Verdict::Silent).expect_err("no origin is allowed"))
}

fn method_override(plan: &Plan) -> SettingId {
    match r(plan).edge.method_override {
        MethodOverride::Reject(by) => by,
        MethodOverride::Strip => panic!("the route rejects"),
    }
}

fn once(plan: &Plan) -> &IdempotencySettingIds {
    &r(plan).idempotency.as_ref().expect("the route has it").ids
}

fn keys_unavailable(plan: &Plan) -> SettingId {
    let issuer = plan.authenticator.issuers().first().expect("there is an issuer");
    setting(&r(plan).access.refuse_without_keys(issuer.setting()).rejection)
}

/// A setting that can decide: what holds it, the path and a text on its line, where it is written.
type Row = (fn(&Plan) -> SettingId, &'static str, &'static str);

/// The same for a default. The text is that of the section around it; `None` if none is written.
type DefaultRow = (fn(&Plan) -> SettingId, &'static str, Option<&'static str>);

#[test]
fn a_written_setting_is_named_with_its_line() {
    let rows: [Row; 51] = [
        (|_| SettingId::OVERLOAD, "overload", "for: 120ms"),
        (|_| SettingId::HEAD_BYTES, "request_limits.head", "head: 15KiB"),
        (|_| SettingId::HEAD_FIELDS, "request_limits.headers", "headers: 55"),
        (|_| SettingId::URI, "request_limits.uri", "uri: 5KiB"),
        (
            |_| SettingId::JSON_TOTAL,
            "request_limits.json_total",
            "json_total: 50MiB",
        ),
        (
            |_| SettingId::PARKED_TOTAL,
            "request_limits.parked_total",
            "parked_total: 51MiB",
        ),
        (|_| SettingId::HEAD_TIME, "time_limits.head", "head: 9s"),
        (|_| SettingId::REQUEST_TIME, "time_limits.request", "request: 30s"),
        (|_| SettingId::CONNECT_TIME, "time_limits.connect", "connect: 900ms"),
        (|_| SettingId::BODY_RATE, "minimum_rates.body", "body: 333B"),
        (|_| SettingId::CONNECTIONS, "connection_limits.total", "total: 777"),
        (
            |_| SettingId::CONNECTIONS_PER_ADDRESS,
            "connection_limits.per_address",
            "per_address: 33",
        ),
        (
            |_| {
                Check::OverBudget {
                    retry_after: Duration::ZERO,
                }
                .setting()
                .unwrap()
            },
            "callers.verifications.share",
            "share: 0.3",
        ),
        (
            |_| {
                Check::AddressOverBudget {
                    retry_after: Duration::ZERO,
                }
                .setting()
                .unwrap()
            },
            "callers.verifications.rate",
            "rate: 4/min",
        ),
        (
            |_| SettingId::DOT_SEGMENTS,
            "path_policy.dot_segments",
            "dot_segments: reject",
        ),
        (
            |_| SettingId::DOUBLE_SLASH,
            "path_policy.double_slash",
            "double_slash: reject",
        ),
        (
            |_| SettingId::ENCODED_SLASH,
            "path_policy.encoded_slash",
            "encoded_slash: reject",
        ),
        (|_| SettingId::BACKSLASH, "path_policy.backslash", "backslash: reject"),
        (keys_unavailable, "callers.jwt.main", "main: {"),
        (|plan| once(plan).idempotency, "routes.r.idempotency", "required: true"),
        (
            |plan| once(plan).required,
            "routes.r.idempotency.required",
            "required: true",
        ),
        (
            |plan| once(plan).max_answer,
            "routes.r.idempotency.max_answer",
            "max_answer: 9KiB",
        ),
        (|plan| once(plan).max_bytes, "idempotency.max_bytes", "max_bytes: 77MiB"),
        (
            |plan| plan.failures.as_ref().unwrap().limit.setting,
            "callers.failures",
            "failures: {",
        ),
        (|plan| of_tenant(plan, "other", 0), "tiers.gold", "gold:"),
        (
            |plan| of_tenant(plan, "other", 1),
            "tiers.gold.in_flight",
            "in_flight: 1",
        ),
        (
            |plan| of_tenant(plan, "other", 2),
            "tiers.gold.quotas.daily",
            "daily: {",
        ),
        (|plan| of_tenant(plan, "acme", 0), "tenants.acme", "acme:"),
        (
            |plan| of_tenant(plan, "acme", 1),
            "tenants.acme.in_flight",
            "in_flight: 1",
        ),
        (
            |plan| of_tenant(plan, "acme", 2),
            "tenants.acme.quotas.daily",
            "daily: {",
        ),
        (|plan| of_tenant(plan, "bursts", 0), "tenants.bursts", "bursts:"),
        (|plan| of_route_limit(plan, 0), "routes.r.limits.own", "own: {"),
        (|plan| of_route_limit(plan, 1), "routes.r.limits.count", "count: {"),
        (
            |plan| setting(&r(plan).access.refuse(Check::Absent).rejection),
            "routes.r.access",
            "any_of: [anonymous, jwt]",
        ),
        (address_not_allowed, "routes.r.access.addresses", "deny: [10"),
        (origin_not_allowed, "routes.r.cors", "https://route.example"),
        (|plan| r(plan).ids.time_limit, "routes.r.time_limit", "time_limit: 7s"),
        (|plan| r(plan).body_limit.by, "routes.r.body_limit", "body_limit: 3MiB"),
        (
            |plan| r(plan).ids.path_policy,
            "routes.r.path_policy",
            "backslash: keep",
        ),
        (method_override, "routes.r.method_override", "method_override: reject"),
        (|plan| r(plan).ids.upgrade, "routes.r.upgrade", "upgrade: \"off\""),
        (
            |plan| ids(plan).endpoints,
            "backends.b.endpoints",
            "http://endpoint.invalid",
        ),
        (|plan| ids(plan).time_limit, "backends.b.time_limit", "time_limit: 8s"),
        (
            |plan| ids(plan).attempt_limit,
            "backends.b.attempt_limit",
            "attempt_limit: 3s",
        ),
        (|plan| ids(plan).bulkhead.slots, "backends.b.bulkhead", "limit: 12"),
        (|plan| ids(plan).bulkhead.wait, "backends.b.bulkhead.wait", "wait: 70ms"),
        (|plan| ids(plan).breaker, "backends.b.breaker", "window: 11s"),
        (
            |plan| ids(plan).when_none_is_up,
            "backends.b.when_none_is_up",
            "when_none_is_up: refuse",
        ),
        (
            |plan| aggregate(plan).conflict,
            "routes.a.aggregate.conflict",
            "conflict: error",
        ),
        (
            |plan| aggregate(plan).calls[1].ids.element_limit,
            "routes.a.aggregate.parts.p.for_each.limit",
            "limit: 44",
        ),
        (
            |plan| aggregate(plan).calls[1].body_limit.by,
            "routes.a.aggregate.parts.p.body_limit",
            "body_limit: 1MiB",
        ),
    ];
    let plan = plan(WRITTEN);
    let mut named = BTreeSet::new();
    for (id, path, text) in rows {
        let setting = plan.settings.get(id(&plan)).expect("it is in the plan's table");
        assert_eq!(&*setting.path, path);
        assert!(setting.is_written, "{path}");
        let at = setting.at.as_ref().expect("it is written");
        let line = WRITTEN.lines().nth(at.line - 1).unwrap_or_default();
        assert!(line.contains(text), "{path}: {line}");
        assert_eq!(&*at.file, "gateway.yaml");
        named.insert(path);
    }
    let others = [
        // Held by the recipe, where only the aggregate can see it.
        "routes.a.aggregate.body_limit",
        "routes.a.aggregate.parts.p",
        "routes.a.aggregate.parts.p.time_limit",
    ];
    for path in others {
        let found = plan.settings.iter().find(|(_, setting)| *setting.path == *path);
        assert!(found.is_some_and(|(_, setting)| setting.is_written), "{path}");
    }
}

#[test]
fn a_default_is_named_with_the_nearest_section_that_is_written() {
    let rows: [DefaultRow; 18] = [
        (|_| SettingId::OVERLOAD, "overload", None),
        (|_| SettingId::HEAD_BYTES, "request_limits.head", None),
        (|_| SettingId::VERIFICATION_SHARE, "callers.verifications.share", None),
        (|plan| r(plan).ids.time_limit, "time_limits.request", None),
        (|plan| r(plan).body_limit.by, "request_limits.body", None),
        (|plan| plan.listed[1].body_limit.by, "request_limits.json_body", None),
        (|plan| r(plan).ids.path_policy, "path_policy", None),
        (|plan| r(plan).ids.upgrade, "routes.r.upgrade", Some("  r: {")),
        (method_override, "routes.r.method_override", Some("  r: {")),
        (|plan| ids(plan).time_limit, "backends.b.time_limit", Some("  b: {")),
        (
            |plan| ids(plan).attempt_limit,
            "backends.b.attempt_limit",
            Some("  b: {"),
        ),
        (|plan| ids(plan).bulkhead.slots, "backends.b.bulkhead", Some("  b: {")),
        (
            |plan| ids(plan).bulkhead.wait,
            "backends.b.bulkhead.wait",
            Some("  b: {"),
        ),
        (|plan| ids(plan).breaker, "backends.b.breaker", Some("  b: {")),
        (
            |plan| aggregate(plan).conflict,
            "routes.a.aggregate.conflict",
            Some("  a: {"),
        ),
        (
            |plan| aggregate(plan).calls[1].ids.element_limit,
            "routes.a.aggregate.parts.p.for_each.limit",
            Some("  a: {"),
        ),
        (
            |plan| aggregate(plan).calls[1].ids.time_limit,
            "routes.a.aggregate.parts.p.time_limit",
            Some("  a: {"),
        ),
        (
            |plan| plan.tiers.by_name["free"].allowances[0].limit.setting,
            "tiers.free",
            None,
        ),
    ];
    let plan = plan(DEFAULT);
    for (id, path, text) in rows {
        let setting = plan.settings.get(id(&plan)).expect("it is in the plan's table");
        assert_eq!(&*setting.path, path);
        assert!(!setting.is_written, "{path}");
        let line = setting.at.as_ref().and_then(|at| DEFAULT.lines().nth(at.line - 1));
        match text {
            Some(text) => assert!(line.is_some_and(|line| line.starts_with(text)), "{path}: {line:?}"),
            None => assert_eq!(line, None, "{path}"),
        }
    }
    // The route has no CORS of its own, and the one of the top level is written.
    let of_top = plan.settings.get(origin_not_allowed(&plan)).unwrap();
    assert_eq!((&*of_top.path, of_top.is_written), ("cors", true));
}

/// What is written under a path of the table has a line of its own: no key is taken for a default.
#[test]
fn every_key_that_is_written_has_a_place() {
    let text = serde_yaml::from_str::<serde_json::Value>(WRITTEN).expect("it is YAML");
    let plan = plan(WRITTEN);
    let mut count = 0;
    for (_, setting) in plan.settings.iter() {
        let found = setting.path.split('.').try_fold(&text, |node, key| node.get(key));
        if found.is_some() {
            count += 1;
            assert!(setting.is_written, "{}", setting.path);
        }
    }
    assert!(count > 40, "{count}");
}
