//! `GET /api/v1/rejections`: the newest rejections, each with the config line that decided it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::list_query::{ListQuery, Page};
use super::state::Admin;
use crate::observe::rejections::Recent;

pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Json<Value> {
    Json(list(&admin, &query))
}

/// Lists rejections, the newest first.
pub(super) fn list(admin: &Admin, query: &ListQuery) -> Value {
    let mut found = admin.gateway.state.observer.rejections.newest(usize::MAX);
    found.retain(|recent| query.finds(texts(recent)));
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(found);
    json!({ "rejections": entries, "total": total, "next_offset": next_offset })
}

/// Returns the texts that a search looks at.
fn texts(recent: &Recent) -> impl Iterator<Item = &str> {
    let words = [recent.reason.as_str(), recent.path.as_str(), recent.request_id.as_str()];
    let names = [
        &recent.route,
        &recent.tenant,
        &recent.tier,
        &recent.limit,
        &recent.backend,
    ];
    let names = names.into_iter().filter_map(|name| name.as_deref());
    words.into_iter().chain(names).chain(recent.detail.as_deref())
}

#[cfg(test)]
mod tests;
