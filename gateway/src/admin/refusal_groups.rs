//! `GET /api/v1/rejections/groups`: refusals by reason, tenant and the config line that decided, each with a count.
//!
//! Groups with a refusal in the last five minutes come first, then those with the most refusals.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::explain;
use super::list_query::{ListQuery, Page};
use super::state::Admin;
use crate::clock;
use crate::observe::SettingPlace;
use crate::observe::refusal_groups::RefusalGroup;
use crate::observe::rejections::Recent;
use crate::observe::timestamp::Timestamp;
use crate::plan::own_settings::OwnSettings;

/// Age of the latest refusal up to which a group is of now.
const NOW: Duration = Duration::from_secs(300);

#[derive(Serialize)]
struct Entry<'g> {
    reason: &'static str,
    status: u16,
    tenant: Option<&'g str>,
    /// The setting that decided; `null` if no setting would change the answer.
    decided_by: Option<SettingPlace>,
    /// Number of refusals since `since`.
    count: u64,
    since: Timestamp,
    latest: Timestamp,
    /// Address of the explanation of a request like the newest one; `null` if it is not kept any more.
    explain: Option<String>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Json<Value> {
    Json(list(&admin, &query))
}

/// Lists groups. `others` counts the refusals for whose group there was no place.
pub(super) fn list(admin: &Admin, query: &ListQuery) -> Value {
    let observer = &admin.gateway.state.observer;
    let mut found = observer.refusal_groups.all();
    found.retain(|group| query.finds(texts(group)));
    let now = clock::unix_time();
    found.sort_by_key(|group| {
        let is_of_now = now.saturating_sub(group.latest.0) <= NOW;
        Reverse((is_of_now, group.count, group.latest.0))
    });
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(found);
    let (plan, newest) = (admin.gateway.live.load(), observer.rejections.newest(usize::MAX));
    let own = OwnSettings::new(&plan);
    let placed = |group: &RefusalGroup| Some(own.of(group.tenant.as_deref(), group.decided_by.clone()?));
    let entries: Vec<_> = entries
        .iter()
        .map(|group| Entry {
            reason: group.reason.as_str(),
            status: group.reason.status().as_u16(),
            tenant: group.tenant.as_deref(),
            decided_by: placed(group),
            count: group.count,
            since: group.since,
            latest: group.latest,
            explain: newest
                .iter()
                .find(|recent| is_of(recent, group))
                .and_then(|recent| explain::link(&plan, recent)),
        })
        .collect();
    json!({
        "groups": entries,
        "total": total,
        "next_offset": next_offset,
        "others": observer.refusal_groups.others(),
    })
}

fn is_of(recent: &Recent, group: &RefusalGroup) -> bool {
    recent.reason == group.reason && recent.tenant == group.tenant && recent.decided_by == group.decided_by
}

/// Returns the texts that a search looks at.
fn texts(group: &RefusalGroup) -> impl Iterator<Item = &str> {
    let setting = group.decided_by.as_ref().map(|decided| decided.setting.as_str());
    [Some(group.reason.as_str()), group.tenant.as_deref(), setting]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests;
