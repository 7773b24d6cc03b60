//! `GET /api/v1/openapi.json`: describes the admin API (OpenAPI 3.1).
//!
//! The document is made from one table, and tests compare it with the router and with answers.

use axum::Json;
use serde_json::{Map, Value, json};

use super::list_query::NoParameters;

mod answers;

/// Role and body that a request needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing: it is a probe.
    Nothing,
    Read,
    Keys,
    All,
}

/// One operation: path, method, need, summary, parameters of the query, schema of the body, schema of the answer, and its
/// status.
type Operation = (
    &'static str,
    &'static str,
    Needs,
    &'static str,
    &'static [&'static str],
    Option<&'static str>,
    &'static str,
    u16,
);

const LIST: &[&str] = &["limit", "offset", "q"];
const DRY: &[&str] = &["dry_run"];

const OPERATIONS: &[Operation] = &[
    (
        "/livez",
        "get",
        Needs::Nothing,
        "Say that the process runs",
        &[],
        None,
        "text",
        200,
    ),
    (
        "/readyz",
        "get",
        Needs::Nothing,
        "Say whether new requests should be sent here",
        &[],
        None,
        "text",
        200,
    ),
    (
        "/metrics",
        "get",
        Needs::Read,
        "Write the metrics for Prometheus",
        &[],
        None,
        "text",
        200,
    ),
    ("/", "get", Needs::Read, "Show the dashboard", &[], None, "text", 200),
    (
        "/dashboard/{file}",
        "get",
        Needs::Read,
        "Return a part of the dashboard",
        &[],
        None,
        "text",
        200,
    ),
    (
        "/docs/{page}",
        "get",
        Needs::Read,
        "Return a page of the documentation",
        &[],
        None,
        "text",
        200,
    ),
    (
        "/api/v1/openapi.json",
        "get",
        Needs::Read,
        "Describe the admin API",
        &[],
        None,
        "Object",
        200,
    ),
    (
        "/api/v1/status",
        "get",
        Needs::Read,
        "Show what the gateway does now",
        &[],
        None,
        "Status",
        200,
    ),
    (
        "/api/v1/replicas",
        "get",
        Needs::Read,
        "List the replicas that share the store",
        &[],
        None,
        "Replicas",
        200,
    ),
    (
        "/api/v1/routes",
        "get",
        Needs::Read,
        "List the routes",
        LIST,
        None,
        "Routes",
        200,
    ),
    (
        "/api/v1/backends",
        "get",
        Needs::Read,
        "List the backends",
        LIST,
        None,
        "Backends",
        200,
    ),
    (
        "/api/v1/backends/{name}/breaker",
        "post",
        Needs::All,
        "Force a breaker, or let it decide again",
        &[],
        Some("Breaker"),
        "BreakerChange",
        200,
    ),
    (
        "/api/v1/cache/purge",
        "post",
        Needs::All,
        "Remove stored answers of a route, of a URI, or all",
        &[],
        Some("Purge"),
        "Purged",
        200,
    ),
    (
        "/api/v1/idempotency",
        "get",
        Needs::Read,
        "List idempotency keys whose request is under way, or whose outcome is unknown",
        LIST,
        None,
        "IdempotencyKeys",
        200,
    ),
    (
        "/api/v1/idempotency/find",
        "post",
        Needs::All,
        "Show one idempotency key",
        &[],
        Some("WantedKey"),
        "IdempotencyKey",
        200,
    ),
    (
        "/api/v1/idempotency/release",
        "post",
        Needs::All,
        "Free an idempotency key, so that a request with it is sent again",
        &[],
        Some("WantedKey"),
        "ReleasedKey",
        200,
    ),
    (
        "/api/v1/external/purge",
        "post",
        Needs::All,
        "Forget all answers of the external service",
        &[],
        None,
        "Purged",
        200,
    ),
    (
        "/api/v1/backends/{name}/endpoints",
        "post",
        Needs::All,
        "Drain an endpoint, or use it again",
        &[],
        Some("Drain"),
        "EndpointChange",
        200,
    ),
    (
        "/api/v1/tenants",
        "get",
        Needs::Read,
        "List tenants, their limits and what is left of each",
        LIST,
        None,
        "Tenants",
        200,
    ),
    (
        "/api/v1/tenants/{tenant}",
        "get",
        Needs::Read,
        "Show one tenant",
        &[],
        None,
        "Tenant",
        200,
    ),
    (
        "/api/v1/tenants/{tenant}",
        "put",
        Needs::Keys,
        "Write the entry of a tenant in the file of tenants",
        DRY,
        Some("TenantRecord"),
        "TenantChange",
        200,
    ),
    (
        "/api/v1/tenants/{tenant}",
        "patch",
        Needs::Keys,
        "Merge into the entry of a tenant (RFC 7396)",
        DRY,
        Some("TenantPatch"),
        "TenantChange",
        200,
    ),
    (
        "/api/v1/tenants/{tenant}",
        "delete",
        Needs::Keys,
        "Take a tenant out of the file of tenants",
        DRY,
        None,
        "TenantChange",
        200,
    ),
    (
        "/api/v1/tenants/{tenant}/keys",
        "get",
        Needs::Read,
        "List the keys of a tenant",
        LIST,
        None,
        "Keys",
        200,
    ),
    (
        "/api/v1/tenants/{tenant}/keys",
        "post",
        Needs::Keys,
        "Make a key: the answer holds it, once",
        DRY,
        Some("NewKey"),
        "KeyChange",
        201,
    ),
    (
        "/api/v1/tenants/{tenant}/quotas/{quota}",
        "post",
        Needs::Keys,
        "Set the count of a quota",
        &["route"],
        Some("Count"),
        "QuotaChange",
        200,
    ),
    (
        "/api/v1/usage",
        "get",
        Needs::Read,
        "Show what tenants have used",
        &[
            "tenant", "route", "key", "from", "to", "by", "format", "limit", "offset",
        ],
        None,
        "Usage",
        200,
    ),
    (
        "/api/v1/keys",
        "get",
        Needs::Read,
        "List the API keys",
        &["limit", "offset", "q", "tenant"],
        None,
        "Keys",
        200,
    ),
    (
        "/api/v1/keys/{key}",
        "get",
        Needs::Read,
        "Show one key",
        &[],
        None,
        "Key",
        200,
    ),
    (
        "/api/v1/keys/{key}",
        "patch",
        Needs::Keys,
        "Merge into the entry of a key (RFC 7396)",
        DRY,
        Some("KeyPatch"),
        "KeyChange",
        200,
    ),
    (
        "/api/v1/keys/{key}",
        "delete",
        Needs::Keys,
        "Take a key out of the key file",
        DRY,
        None,
        "KeyChange",
        200,
    ),
    (
        "/api/v1/rejections",
        "get",
        Needs::Read,
        "List the newest rejections",
        &["limit", "offset", "q"],
        None,
        "Rejections",
        200,
    ),
    (
        "/api/v1/rejections/groups",
        "get",
        Needs::Read,
        "Group the rejections by what decided",
        &[],
        None,
        "RejectionGroups",
        200,
    ),
    (
        "/api/v1/history",
        "get",
        Needs::Read,
        "Show the last minutes",
        &[],
        None,
        "History",
        200,
    ),
    (
        "/api/v1/events",
        "get",
        Needs::Read,
        "Stream what the dashboard shows",
        &[],
        None,
        "text",
        200,
    ),
    (
        "/api/v1/explain",
        "get",
        Needs::Read,
        "Explain what would be decided on a request",
        &["*"],
        None,
        "Explanation",
        200,
    ),
    (
        "/api/v1/explain",
        "post",
        Needs::Read,
        "Explain what would be decided on a request",
        &["*"],
        Some("Question"),
        "Explanation",
        200,
    ),
    (
        "/api/v1/diff",
        "post",
        Needs::Read,
        "Compare the config in force with another",
        &["*"],
        Some("OtherConfig"),
        "Difference",
        200,
    ),
    (
        "/api/v1/revocations",
        "get",
        Needs::Read,
        "List the revocations",
        LIST,
        None,
        "Revocations",
        200,
    ),
    (
        "/api/v1/revocations",
        "post",
        Needs::Keys,
        "Revoke credentials",
        &[],
        Some("RevocationOrder"),
        "RevocationsState",
        200,
    ),
    (
        "/api/v1/revocations",
        "delete",
        Needs::Keys,
        "Take a revocation back",
        &["key", "jti", "subject", "tenant", "issuer"],
        None,
        "RevocationsState",
        200,
    ),
    (
        "/api/v1/reload",
        "post",
        Needs::All,
        "Read the config again",
        &["canary"],
        None,
        "Reloaded",
        200,
    ),
    (
        "/api/v1/drain",
        "post",
        Needs::All,
        "Stop as on SIGTERM",
        &[],
        None,
        "Draining",
        202,
    ),
];

pub(super) async fn show(_: NoParameters) -> Json<Value> {
    Json(document())
}

/// Returns the whole document.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let item = paths.entry(operation.0).or_insert_with(|| json!({}));
        item[operation.1] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gateway admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Changes need a bearer token with the role that the operation names in x-gateway-role. Reading needs one if the config says so.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn described((path, method, needs, summary, parameters, body, answer, status): &Operation) -> Value {
    let named = path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let mut all: Vec<_> = named
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let of_query = parameters.iter().filter(|name| **name != "*");
    all.extend(of_query.map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })));
    if parameters.contains(&"dry_run") {
        let header = |name: &str| json!({ "name": name, "in": "header", "schema": { "type": "string" } });
        all.extend([header("If-Match"), header("If-None-Match")]);
    }
    let mut responses = Map::new();
    responses.insert(
        status.to_string(),
        json!({ "description": "Done", "content": content(answer) }),
    );
    if (*method, *path) == ("put", "/api/v1/tenants/{tenant}") {
        responses.insert(
            "201".to_owned(),
            json!({ "description": "Made", "content": content(answer) }),
        );
    }
    if *status == 201 {
        responses.insert(
            "200".to_owned(),
            json!({ "description": "Only tried", "content": content(answer) }),
        );
    }
    responses.insert(
        "default".to_owned(),
        json!({ "description": "A problem (RFC 9457)", "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } } }),
    );
    let mut shown = json!({ "summary": summary, "parameters": all, "responses": responses });
    if let Some(body) = body {
        let is_required = *body != "NewKey";
        shown["requestBody"] = json!({ "required": is_required, "content": content(body) });
    }
    let role = match needs {
        Needs::Nothing => return shown,
        Needs::Read => "read",
        Needs::Keys => "keys",
        Needs::All => "all",
    };
    shown["x-gateway-role"] = role.into();
    shown["security"] = match needs {
        // Where the config names no token for reading, none is needed.
        Needs::Read => json!([{}, { "token": [] }]),
        _ => json!([{ "token": [] }]),
    };
    shown
}

fn content(schema: &str) -> Value {
    match schema {
        "text" => json!({ "text/plain": { "schema": { "type": "string" } } }),
        schema => json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } }),
    }
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let maybe = || json!({ "type": ["string", "null"] });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let positive = |may_be_null: bool| match may_be_null {
        true => json!({ "type": ["integer", "null"], "minimum": 1 }),
        false => json!({ "type": "integer", "minimum": 1 }),
    };
    let record = |is_patch: bool| {
        let or_null = |kind: &str| match is_patch {
            true => json!({ "type": [kind, "null"] }),
            false => json!({ "type": kind }),
        };
        let mut quotas = or_null("object");
        quotas["additionalProperties"] = json!({ "type": ["object", "null"], "properties": {
            "limit": positive(false),
            "every": { "enum": ["minute", "hour", "day", "week", "month"] },
            "mode": { "enum": ["enforce", "shadow"] },
            "counted": { "enum": ["leased", "exact", "local"] },
        }, "additionalProperties": false });
        let mut labels = or_null("object");
        labels["additionalProperties"] = or_null("string");
        json!({ "type": "object", "additionalProperties": false, "properties": {
            "tier": or_null("string"),
            "rate": or_null("string"),
            "burst": positive(is_patch),
            "in_flight": positive(is_patch),
            "quotas": quotas,
            "disabled": or_null("boolean"),
            "labels": labels,
        } })
    };
    let settable = |with_id: bool| {
        let mut properties = json!({
            "tier": maybe(),
            "scopes": { "type": ["array", "null"], "items": text() },
            "label": maybe(),
            "not_before": maybe(),
            "expires": maybe(),
            "disabled": { "type": ["boolean", "null"] },
        });
        if with_id {
            properties["id"] = maybe();
        }
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    };
    let key = json!({
        "id": text(), "tenant": text(), "tier": maybe(), "scopes": { "type": "array", "items": text() },
        "label": maybe(), "not_before": maybe(), "expires": maybe(), "disabled": { "type": "boolean" },
        "holds": { "type": "boolean" }, "fails": maybe(),
    });
    let mut changed_key = key.clone();
    changed_key["secret"] = text();
    changed_key["deleted"] = json!({ "type": "boolean" });
    changed_key["dry_run"] = json!({ "type": "boolean" });
    changed_key["diff"] = text();
    let of_key = [
        "id",
        "tenant",
        "tier",
        "scopes",
        "label",
        "not_before",
        "expires",
        "disabled",
        "holds",
        "fails",
    ];
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let list = |name: &str| json!({ "type": "array", "items": reference(name) });
    let tenant = json!({
        "name": text(), "at": { "anyOf": [reference("Place"), { "type": "null" }] },
        "tiers": { "type": "array", "items": text() }, "disabled": { "type": "boolean" },
        "api_keys": count(), "requests": reference("TenantRequests"), "limits": list("TenantLimit"),
        "usage": reference("TenantUse"), "rejections": list("Rejection"),
        "record": { "anyOf": [reference("TenantRecord"), { "type": "null" }] },
    });
    let page = |name: &str, item: &str| {
        json!({ "type": "object", "required": [name, "total", "next_offset"], "properties": {
            name: { "type": "array", "items": reference(item) },
            "total": count(),
            "next_offset": { "type": ["integer", "null"] },
        } })
    };
    let mut all = json!({
        "Object": { "type": "object" },
        "Problem": { "type": "object", "required": ["type", "title", "status", "detail", "reason"], "properties": {
            "type": text(), "title": text(), "status": { "type": "integer" }, "detail": text(), "reason": text(),
            "errors": { "type": "array", "items": text() },
        } },
        "TenantRecord": record(false),
        "TenantPatch": record(true),
        "Tenant": { "type": "object", "additionalProperties": false,
            "required": ["name", "at", "tiers", "disabled", "api_keys", "requests", "limits"], "properties": tenant },
        "Tenants": page("tenants", "Tenant"),
        "TenantChange": { "type": "object", "additionalProperties": false,
            "required": ["name", "record", "dry_run", "diff"], "properties": {
                "name": text(),
                "record": { "anyOf": [reference("TenantRecord"), { "type": "null" }] },
                "dry_run": { "type": "boolean" },
                "diff": text(),
            } },
        "Key": { "type": "object", "additionalProperties": false, "required": of_key, "properties": key },
        "Keys": page("keys", "Key"),
        "NewKey": settable(true),
        "KeyPatch": settable(false),
        "KeyChange": { "type": "object", "additionalProperties": false, "required": ["id", "tenant", "dry_run", "diff"],
            "properties": changed_key },
        "Count": { "type": "object", "required": ["used"], "properties": { "used": count() } },
        "Breaker": { "type": "object", "required": ["state"], "properties": {
            "state": { "enum": ["open", "closed", "auto"] } } },
        "Purge": { "type": "object", "minProperties": 1, "maxProperties": 1, "properties": {
            "route": text(), "uri": text(), "all": { "const": true } } },
        "WantedKey": { "type": "object", "additionalProperties": false, "required": ["route", "tenant", "key"],
            "properties": { "route": text(), "tenant": text(), "caller": text(), "key": text() } },
        "IdempotencyKeys": page("keys", "IdempotencyKey"),
        "Drain": { "type": "object", "required": ["address", "state"], "properties": {
            "address": text(), "state": { "enum": ["drained", "auto"] } } },
    });
    if let Value::Object(all) = &mut all {
        all.extend(answers::schemas());
    }
    all
}

#[cfg(test)]
mod tests;
