//! `GET /api/v1/keys`: the API keys of the key file, and whether each is accepted now.
//!
//! The order is that of the file. `?tenant=` shows the keys of one tenant. Keys and digests are never shown.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use serde_json::{Value, json};

use super::list_query::{ListQuery, Page};
use super::problem::Problem;
use super::state::Admin;
use crate::auth::api_key::keys::ApiKey;
use crate::auth::revocations::{List, Revoked};
use crate::clock;
use crate::observe::timestamp::Timestamp;

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    tenant: &'a str,
    /// Tier in the key file; the tenants table may override it.
    tier: Option<&'a str>,
    scopes: &'a [Arc<str>],
    label: Option<&'a str>,
    not_before: Option<Timestamp>,
    expires: Option<Timestamp>,
    disabled: bool,
    holds: bool,
    /// Check that a request with this key fails, named as in the log.
    fails: Option<&'static str>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let (query, tenant) = ListQuery::read(&uri, Some("tenant"))?;
    Ok(Json(list(&admin, &query, tenant.as_deref())))
}

/// Returns one page of the keys, or of those of one tenant.
pub(super) fn list(admin: &Admin, query: &ListQuery, tenant: Option<&str>) -> Value {
    let plan = admin.gateway.live.load();
    let revoked = admin.gateway.state.revocations.in_force().list();
    let keys = plan.authenticator.api_keys();
    let keys = keys.as_ref().map(|keys| keys.all()).unwrap_or_default();
    let found = keys.iter().filter(|key| {
        tenant.is_none_or(|tenant| *key.tenant == *tenant)
            && query.finds([&*key.id, &*key.tenant].into_iter().chain(key.label.as_deref()))
    });
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(found.collect());
    let entries: Vec<_> = entries.into_iter().map(|key| entry(key, &revoked)).collect();
    json!({ "keys": entries, "total": total, "next_offset": next_offset })
}

/// Returns one key.
pub(super) fn shown(admin: &Admin, key: &ApiKey) -> Value {
    let revoked = admin.gateway.state.revocations.in_force().list();
    serde_json::to_value(entry(key, &revoked)).unwrap_or_default()
}

fn entry<'a>(key: &'a ApiKey, revoked: &List) -> Entry<'a> {
    let at = |unix: u64| Timestamp(Duration::from_secs(unix));
    let unix_now = clock::unix_seconds();
    let fails = key.check(unix_now).err().map(|check| check.as_str());
    let names = [Revoked::Key(key.id.clone()), Revoked::Tenant(key.tenant.clone())];
    let is_revoked = names
        .iter()
        .find(|name| revoked.get(name).is_some_and(|terms| terms.hold(unix_now)));
    let fails = fails.or(is_revoked.map(|name| name.kind().check().as_str()));
    Entry {
        id: &key.id,
        tenant: &key.tenant,
        tier: key.tier.as_deref(),
        scopes: &key.scopes,
        label: key.label.as_deref(),
        not_before: key.not_before.map(at),
        expires: key.expires.map(at),
        disabled: key.disabled,
        holds: fails.is_none(),
        fails,
    }
}
