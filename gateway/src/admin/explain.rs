//! `/api/v1/explain`: what the gateway would do with a request now, and why.
//!
//! `POST` takes the token for changes, because its body may hold credentials and would tell which of them are valid.
//! `GET` takes no credential, and explains the request of a tenant or of a client address.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::Uri;
use serde::Deserialize;

use super::body_limit::MAX_BODY;
use super::list_query::NoParameters;
use super::problem::Problem;
use super::state::Admin;
use super::token::Authorised;
use crate::json;
use crate::observe::rejections::Recent;
use crate::pipeline::explain::{Described, Explanation, Question, explain};
use crate::plan::Plan;

/// A request in the query, without credentials.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Linked {
    method: Option<String>,
    url: String,
    tenant: Option<String>,
    tier: Option<String>,
    from: Option<IpAddr>,
}

/// `POST /api/v1/explain` with `{"method", "url", "headers", "key", "tenant", "tier", "claims", "from"}`, of which only
/// `url` is required.
pub(super) async fn post(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Explanation>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let described = json::typed(&body, MAX_BODY)
        .map_err(|error| Problem::bad_value(format!("The body is {{\"url\": \"/users/7\", ...}}: {error}.")))?;
    answer(&admin, &described)
}

/// `GET /api/v1/explain?method=&url=&tenant=&tier=&from=`, of which only `url` is required.
pub(super) async fn get(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Explanation>, Problem> {
    let Query(linked) = Query::<Linked>::try_from_uri(&uri).map_err(|error| Problem::bad_value(error.to_string()))?;
    let Linked {
        method,
        url,
        tenant,
        tier,
        from,
    } = linked;
    let described = Described {
        method,
        url,
        tenant,
        tier,
        from,
        ..Described::default()
    };
    answer(&admin, &described)
}

fn answer(admin: &Admin, described: &Described) -> Result<Json<Explanation>, Problem> {
    let plan = admin.gateway.live.load();
    let question = Question::read(described, &plan).map_err(|why| Problem::bad_value(format!("{why}.")))?;
    // Of the workers that the request may come to, the one that would refuse most.
    let loads = plan.loads.all();
    let busiest = loads
        .into_iter()
        .max_by(|one, other| one.share().total_cmp(&other.share()));
    Ok(Json(explain(&plan, busiest.unwrap_or_default(), question, true)))
}

/// Returns the address of the explanation of a request like the rejected one, without its query, header fields and
/// credential.
pub(super) fn link(plan: &Plan, recent: &Recent) -> Option<String> {
    let host = recent.route.as_deref().and_then(|route| host_of(plan, route));
    let url = host.map_or_else(String::new, |host| format!("http://{host}")) + recent.path.as_str();
    let tenant = recent.tenant.as_deref();
    let described = Described {
        method: Some(recent.method.to_string()),
        url,
        tenant: tenant.map(str::to_owned),
        tier: tenant.and(recent.tier.as_deref()).map(str::to_owned),
        from: recent.client,
        ..Described::default()
    };
    described.link()
}

/// Returns a host that the route is for; `None` if it is for any.
fn host_of(plan: &Plan, route: &str) -> Option<String> {
    let outline = plan.outline.routes.iter().find(|outline| *outline.name == *route)?;
    let host = outline.matches.hosts.first()?;
    Some(host.replace("*.", "any.")).filter(|host| host != "*")
}
