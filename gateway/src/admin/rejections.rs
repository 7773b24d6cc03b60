//! `GET /api/v1/rejections`: the newest rejections, each with the config line that decided it and a link to its
//! explanation.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::explain;
use super::list_query::{ListQuery, Page};
use super::state::Admin;
use crate::observe::rejections::Recent;
use crate::plan::Plan;
use crate::plan::own_settings::OwnSettings;

/// A rejection, with the address of the explanation of a request like it.
#[derive(Serialize)]
struct Linked<'r> {
    #[serde(flatten)]
    recent: &'r Recent,
    explain: Option<String>,
}

impl<'r> Linked<'r> {
    fn new(plan: &Plan, recent: &'r Recent) -> Self {
        Self {
            recent,
            explain: explain::link(plan, recent),
        }
    }
}

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
    let plan = admin.gateway.live.load();
    let own = OwnSettings::new(&plan);
    let entries: Vec<_> = entries.into_iter().map(|recent| placed(&own, recent)).collect();
    let entries: Vec<_> = entries.iter().map(|recent| Linked::new(&plan, recent)).collect();
    json!({ "rejections": entries, "total": total, "next_offset": next_offset })
}

/// Returns the rejection with the line in the file of tenants, if a setting of its tenant decided.
pub(super) fn placed(own: &OwnSettings<'_>, recent: Recent) -> Recent {
    Recent {
        decided_by: recent
            .decided_by
            .map(|decided| own.of(recent.tenant.as_deref(), decided)),
        ..recent
    }
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
