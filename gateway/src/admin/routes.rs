//! `GET /api/v1/routes`: every route as it is in force, where it stands in the config, and what became of its requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::Admin;
use super::page_size::PageSize;
use super::traffic::Traffic;
use crate::config::Location;
use crate::plan::outline::RouteOutline;

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    route: &'a RouteOutline,
    at: Option<&'a Location>,
    #[serde(flatten)]
    traffic: Traffic,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, size: PageSize) -> Json<Value> {
    Json(list(&admin, size))
}

/// In declared order; `unrouted` is what matched none.
pub(super) fn list(admin: &Admin, PageSize(most): PageSize) -> Value {
    let (plan, registry) = (admin.gateway.live.load(), &admin.gateway.state.observer.registry);
    let outline = &plan.outline;
    let entry = |route: &'_ RouteOutline| {
        let at = outline.place(&format!("routes.{}", route.name));
        json!(Entry {
            route,
            at,
            traffic: Traffic::of(&registry.route(&route.name))
        })
    };
    json!({
        "routes": outline.routes.iter().take(most).map(entry).collect::<Vec<_>>(),
        "total": outline.routes.len(),
        "unrouted": Traffic::of(&registry.unrouted()),
    })
}
