//! `GET /api/v1/rejections`: the newest refusals, each with the line of the config that decided it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::Admin;
use super::decided::Decided;
use super::page_size::PageSize;
use crate::observe::rejections::Recent;

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    recent: Recent,
    /// `null` if no setting would have changed the answer.
    decided_by: Option<Decided>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, size: PageSize) -> Json<Value> {
    Json(list(&admin, size))
}

/// The newest first.
pub(super) fn list(admin: &Admin, PageSize(most): PageSize) -> Value {
    let plan = admin.gateway.live.load();
    let newest = admin.gateway.state.observer.rejections.newest(most).into_iter();
    let entries: Vec<_> = newest
        .map(|recent| Entry {
            decided_by: Decided::by(&recent, &plan),
            recent,
        })
        .collect();
    json!({ "rejections": entries })
}
