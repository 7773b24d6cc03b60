//! Schemas of answers and of some bodies, in a short notation: one line for each object, with its members and their types.
//!
//! A member is `name: type`; `name?` may be left out. A type is a word of [`simple`] or the name of an object, with `[]`
//! for a list, `{}` for a map by names, and `?` if it may be `null`. Objects have no other members.

use serde_json::{Map, Value, json};

/// Objects with their members.
const OBJECTS: &[(&str, &str)] = &[
    ("Place", "file: text, line: count, column: count"),
    ("Decided", "setting: text, at: Place?"),
    (
        "Status",
        "version: text, started: time, uptime_seconds: count, clock: Clock, phase: text, ready: bool, workers: count, \
         overload: Worker[], listeners: Listener[], admin: AdminAddress, connections: Connections, \
         requests_in_flight: count, config: ConfigState, breakers: OpenBreakers, degraded_backends: text[], \
         kept_backends: text[], issuers: Issuer[], external: External?, unknown_tiers: UnknownTiers, \
         revocations: RevocationsState, stored_answers: StoredAnswers, idempotency: KeysInMemory, limits_store: Store?, access_log_dropped: count",
    ),
    (
        "StoredAnswers",
        "bytes: count, max_bytes: count, answers: count, tenants: count, evicted: count",
    ),
    (
        "KeysInMemory",
        "bytes: count, max_bytes: count, tenants: count, running: count, unknown: count, answered: count, \
         not_kept: count, forgotten: count",
    ),
    (
        "IdempotencyKey",
        "route: text, tenant: text, caller: text, key: text, state: text, forgotten_in_seconds: count",
    ),
    ("ReleasedKey", "was: text"),
    ("Clock", "time: time, jumps: count, wall_clock_ahead_seconds: number"),
    (
        "Worker",
        "delay_ms: number, refused_share: number, refused_tiers: text[]",
    ),
    ("Listener", "name: text, address: text, certificates: Certificate[]"),
    ("Certificate", "dns_names: text[], subject: text?, expires: time"),
    (
        "AdminAddress",
        "address: text, health: text?, changes: bool, read_token: bool",
    ),
    ("Connections", "open: count, accepted: count, malformed: count"),
    (
        "ConfigState",
        "path: text, generation: count, last_reload: LastReload, canary_seconds: count?",
    ),
    ("LastReload", "successful: bool, at: time, error: text?"),
    ("OpenBreakers", "open: count, half_open: count, open_at: text[]"),
    (
        "Issuer",
        "name: text, issuer: text, keys: IssuerKey[], stale: bool, url: text?, last_ok: time?, age_seconds: count?, \
         usable_until: time?, next_fetch: time?, last_error: Failure?, attempts: count",
    ),
    (
        "External",
        "url: text?, breaker: text?, callers: count, refusals: count, lookups: count{}, questions: count{}, \
         last_failure: ExternalFailure?",
    ),
    ("ExternalFailure", "at: time, outcome: text, detail: text"),
    ("IssuerKey", "kid: text?, algorithm: text"),
    ("Failure", "at: time, error: text"),
    ("UnknownTiers", "requests: count, named: UnknownTier[]"),
    ("UnknownTier", "name: text, tenant: text, requests: count"),
    (
        "RevocationsState",
        "total: count, ended: count, file: text?, note: text?, not_in_file: count, last_error: Failure?, \
         last_write_error: Failure?",
    ),
    (
        "Store",
        "address: text, replica: text, up: bool, for_seconds: count, trouble: text?, last_failure: text?, epoch: text?, \
         eviction: text?, warning: text?",
    ),
    ("Replicas", "replicas: Replica[], limits_store: Store"),
    (
        "Replica",
        "replica: text, this: bool, name: text, version: text, config_generation: count, started: time, \
         on_lease: count, changes: Changes, silent_for_ms: count",
    ),
    (
        "Changes",
        "revoked: count, forced: count, drained: count, tenants: count, keys: count, conflicts: count",
    ),
    (
        "Routes",
        "routes: Route[], total: count, next_offset: count?, unrouted: Traffic, totals: Totals",
    ),
    ("Totals", "requests: count{}, rejections: count{}, incomplete: count"),
    (
        "Traffic",
        "requests: count{}, rejections: count{}, incomplete: count, duration: Times",
    ),
    (
        "Route",
        "name: text, match: Match, access: Access, limits: RouteLimit[], cost: count, measured_cost: MeasuredCost?, time_limit_ms: count, \
         worst_case_ms: count, time_budget: any, fan_out: any, stream: bool, body_limit_bytes: count, reads_json: bool, \
         edge: Edge, target: any, mirror: Mirror?, cache: RouteCache?, idempotency: RouteIdempotency?, at: Place?, @Traffic, mirrored?: Mirrored, \
         cached?: Cached, cached_parts?: Cached, hedge: Hedge?",
    ),
    ("Hedge", "after: text, at_least_ms: count, at_most_ms: count"),
    (
        "Match",
        "hosts: text[], paths: text[], prefixes: text[], methods: text[], headers: text[], query: text[], \
         parameters: text[]",
    ),
    (
        "Access",
        "any_of: text[], all_of: text[], scopes: text[], tiers: text[], tenants: text[]",
    ),
    (
        "RouteLimit",
        "name: text, terms: text, per: text, mode: text, cost: count, counts_units: bool",
    ),
    (
        "MeasuredCost",
        "body: text[], text: text[], bytes_per_unit: count, max: text[], default: count?, most: count?, times: text[], \
         quotas: text[]",
    ),
    (
        "Edge",
        "allow: text[]?, deny: text[], origins: text[]?, compression: Compression?, security_headers: text, added_headers: text[], \
         request_fields: text[], response_fields: text[], method_override: text, path_policy: text{}, upgrade: text",
    ),
    ("Compression", "codings: text[], types: text[], minimum_bytes: count"),
    (
        "Mirror",
        "to: text, percent: number, key: text, methods: text[], body_limit_bytes: count, limit: count, compare: text",
    ),
    (
        "RouteCache",
        "scope: text, ttl_ms: count?, stale_while_revalidate_ms: count?, stale_if_error_ms: count?, vary: text[], \
         caller_directives: text",
    ),
    (
        "RouteIdempotency",
        "required: bool, keep_for_ms: count, scope: text, max_answer_bytes: count, headers: text[], \
         release_on: count[], when_down: text?",
    ),
    (
        "Cached",
        "hits: count, stale: count, revalidated: count, misses: count, collapsed: count, bypassed: count",
    ),
    ("Purged", "purged: count"),
    (
        "Mirrored",
        "in_flight: count, breaker: text?, requests: count{}, comparisons: count{}?",
    ),
    (
        "Times",
        "count: count, sum_ms: number, p50_ms: number?, p99_ms: number?, le_ms: number?[], at_or_below: count[]",
    ),
    ("Backends", "backends: Backend[], total: count, next_offset: count?"),
    (
        "Backend",
        "name: text, at: Place?, protocol: text, time_limit_ms: count, attempt_limit_ms: count, endpoints: Endpoint[], \
         source: Source?, degraded: bool, balance: Balance, balance_at: Place?, bulkhead: Bulkhead, \
         breaker: BreakerState?, breaker_at: Place?, ejection: Ejection?, retry: Retry, calls: count{}, \
         attempts: count{}, rejections: count{}, duration: Times, answer_duration: Times",
    ),
    (
        "Endpoint",
        "url: text, address: text?, weight: count, readiness: text, state: text?, down_for_ms: count?, \
         probe_error: text?, in_flight: count, latency_ms: number?, warm: number, returns_in_ms: count?, \
         connections: EndpointConnections",
    ),
    ("EndpointConnections", "active: count, idle: count, exchanges: count"),
    (
        "Source",
        "kind: text, name: text, answered: time?, error: text?, failing_since: time?, kept_since: time?, \
         keep_ms: count?, lookups: count{}",
    ),
    (
        "Balance",
        "by: text, key: text?, failure_costs_ms: count, warm_up_ms: count",
    ),
    (
        "Bulkhead",
        "at: Place?, in_use: count, limit: count, adaptive: count{}?, tenant_cap: count?, waiting: count, queue: count, \
         wait_ms: count, outcomes: SlotOutcomes, streams: StreamSlots",
    ),
    (
        "StreamSlots",
        "in_use: count, limit: count, tenant_cap: count?, waiting: count, outcomes: SlotOutcomes",
    ),
    (
        "SlotOutcomes",
        "admitted: count, full: count, timeout: count, left: count",
    ),
    (
        "BreakerState",
        "state: text, cause: text?, retry_in_ms: count?, counts: count{}, mean_latency_ms: count?, \
         settings: BreakerSettings",
    ),
    (
        "BreakerSettings",
        "window_ms: count, min_calls: count, failure_ratio: number?, slow: number{}?, consecutive: count?, \
         adaptive: AdaptiveBreaker?, open_for_ms: count, growth: number, open_for_max_ms: count, jitter: number, \
         probes: count",
    ),
    (
        "AdaptiveBreaker",
        "latency_window: count, threshold_ms: count, failure_ratios: number[]",
    ),
    (
        "Ejection",
        "consecutive: count, eject_for_ms: count, growth: number, eject_for_max_ms: count, share: number",
    ),
    (
        "Retry",
        "attempts: count, budget: RetryBudget, stopped: count{}, hedges: count{}",
    ),
    (
        "RetryBudget",
        "balance: count, cap: count, share: number, floor_per_second: number",
    ),
    ("BreakerChange", "backend: text, breaker: BreakerState"),
    ("EndpointChange", "backend: text, endpoints: Endpoint[]"),
    (
        "TenantRequests",
        "total: count, limited: count, rejected: count, by_reason: count{}, by_limit: count{}",
    ),
    (
        "TenantLimit",
        "name: text, route: text?, setting: text?, at: Place?, kind: text, most: count, per_second: number?, \
         balance: count, resets_in_seconds: count?",
    ),
    (
        "Used",
        "requests: count, answers: count{}, refused: count{}, cost: count, bytes_in: count, bytes_out: count",
    ),
    ("TenantUse", "today: Used, this_month: Used"),
    (
        "UsageRow",
        "time: time, tenant: text?, route: text?, key: text?, other?: bool, requests: count, answers: count{}, \
         refused: count{}, cost: count, bytes_in: count, bytes_out: count",
    ),
    ("UsageGap", "after: time, found: time"),
    (
        "Usage",
        "by: text, from: time, to: time, usage: UsageRow[], sum: Used, total: count, next_offset: count?, \
         kept_from: time?, gaps: UsageGap[]",
    ),
    (
        "QuotaChange",
        "tenant: text, quota: text, route: text?, was_used: count, used: count, on_lease: count, most: count, \
         balance: count, resets_in_seconds: count",
    ),
    (
        "Rejections",
        "rejections: LinkedRejection[], total: count, next_offset: count?",
    ),
    ("LinkedRejection", "@Rejection, explain: text?"),
    (
        "Rejection",
        "time: time, reason: text, status: count, method: text, path: text, route: text?, tenant: text?, tier: text?, \
         limit: text?, backend: text?, request_id: text, detail: text?, decided_by: Decided?, attempt_details: Attempt[], \
         attempts_left_out: count",
    ),
    (
        "Attempt",
        "part?: text, element?: count, backend: text, endpoint?: text, outcome: text, status?: count, reason?: text, \
         start_ms?: number, queue_ms?: number, backoff_ms?: number, connect_ms?: number, first_byte_ms?: number, \
         took_ms?: number",
    ),
    (
        "RejectionGroups",
        "groups: RejectionGroup[], total: count, next_offset: count?, others: count",
    ),
    (
        "RejectionGroup",
        "reason: text, status: count, tenant: text?, decided_by: Decided?, count: count, since: time, latest: time, \
         explain: text?",
    ),
    (
        "History",
        "every_seconds: count, most_points: count, newest: count, newest_at: time, all: Series, routes: Series{}, \
         backends: Series{}, tenants: Series{}",
    ),
    (
        "Series",
        "points: count, requests: count[], failed: count[], refused: count[], incomplete: count[]",
    ),
    (
        "Explanation",
        "method: text, host: text, path: text, client: text, generation: count, outcome: Outcome, steps: Step[]",
    ),
    (
        "Outcome",
        "verdict: text, status: count?, reason: text?, limits: text[], backend: text?, delay_ms: count?, text: text, \
         setting: text?, at: Place?",
    ),
    (
        "Step",
        "topic: text, text: text, setting: text?, at: Place?, is_default: bool, facts?: any, steps?: Step[]",
    ),
    (
        "Difference",
        "effects: Effect[], settings: SettingChange[], operation: SettingChange[]",
    ),
    ("Effect", "topic: text, text: text, old_at: Place?, new_at: Place?"),
    (
        "SettingChange",
        "setting: text, old: text?, new: text?, old_at: Place?, new_at: Place?",
    ),
    (
        "Revocation",
        "key?: text, jti?: text, subject?: text, tenant?: text, issuer?: text, until: time?, holds: bool, reason: text?",
    ),
    (
        "Revocations",
        "@RevocationsState, revocations: Revocation[], next_offset: count?",
    ),
    // Bodies of requests.
    (
        "RevocationEntry",
        "key?: text?, jti?: text?, subject?: text?, tenant?: text?, issuer?: text?, until?: text?, reason?: text?",
    ),
    ("RevocationOrder", "@RevocationEntry, revocations?: RevocationEntry[]"),
    (
        "Question",
        "url: text, method?: text?, headers?: text[], key?: text?, tenant?: text?, tier?: text?, claims?: any, from?: text?",
    ),
    ("OtherConfig", "config?: text?"),
    // The rest of the answers.
    ("Reloaded", "generation: count"),
    ("Draining", "phase: text"),
];

/// Returns the schemas by name.
pub(super) fn schemas() -> Map<String, Value> {
    let schemas = OBJECTS
        .iter()
        .map(|(name, members)| ((*name).to_owned(), object(members)));
    schemas.collect()
}

fn object(members: &str) -> Value {
    let (mut required, mut properties) = (Vec::new(), Map::new());
    add_members(members, &mut required, &mut properties);
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn add_members(members: &str, required: &mut Vec<String>, properties: &mut Map<String, Value>) {
    for member in members.split(", ") {
        // `@Name` stands for the members of another object.
        if let Some(other) = member.strip_prefix('@') {
            let other = OBJECTS.iter().find(|(name, _)| *name == other);
            add_members(other.expect("every name is that of an object").1, required, properties);
            continue;
        }
        let (name, kind) = member.split_once(": ").expect("a member has a type");
        let name = match name.strip_suffix('?') {
            Some(optional) => optional,
            None => {
                required.push(name.to_owned());
                name
            }
        };
        properties.insert(name.to_owned(), schema(kind));
    }
}

/// Returns the schema of a type.
fn schema(kind: &str) -> Value {
    if let Some(item) = kind.strip_suffix("[]") {
        return json!({ "type": "array", "items": schema(item) });
    }
    if let Some(item) = kind.strip_suffix("{}") {
        return json!({ "type": "object", "additionalProperties": schema(item) });
    }
    if let Some(item) = kind.strip_suffix('?') {
        let mut schema = schema(item);
        match schema["type"].as_str().map(str::to_owned) {
            Some(kind) => schema["type"] = json!([kind, "null"]),
            None => return json!({ "anyOf": [schema, { "type": "null" }] }),
        }
        return schema;
    }
    simple(kind).unwrap_or_else(|| json!({ "$ref": format!("#/components/schemas/{kind}") }))
}

/// Returns the schema of a word; `None` for the name of an object.
fn simple(kind: &str) -> Option<Value> {
    Some(match kind {
        "text" => json!({ "type": "string" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "count" => json!({ "type": "integer", "minimum": 0 }),
        "number" => json!({ "type": "number" }),
        "bool" => json!({ "type": "boolean" }),
        // Depends on the config, and is meant for people.
        "any" => json!({}),
        _ => return None,
    })
}
