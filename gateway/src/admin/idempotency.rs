//! Shows idempotency keys whose requests have no answer, and frees keys.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body_limit::MAX_BODY;
use super::list_query::{ListQuery, NoParameters, Page};
use super::problem::Problem;
use super::state::Admin;
use super::token::Authorised;
use crate::idempotency::{RecordView, Records, Release, StateWord, Subject};
use crate::json;

/// Most keys that are listed.
const MOST: usize = 1000;

/// Records of keys in the memory of this process.
#[derive(Serialize)]
pub(super) struct KeysInMemory {
    bytes: u64,
    max_bytes: u64,
    tenants: usize,
    running: usize,
    unknown: usize,
    answered: usize,
    not_kept: usize,
    /// Answered keys that made room before their time.
    forgotten: u64,
}

impl KeysInMemory {
    pub(super) fn of(records: &Records) -> Self {
        let size = records.size();
        let count = |wanted: StateWord| {
            let found = size.counts.iter().find(|(word, _)| *word == wanted);
            found.map_or(0, |(_, count)| *count)
        };
        Self {
            bytes: size.bytes,
            max_bytes: size.most,
            tenants: size.tenants,
            running: count(StateWord::Running),
            unknown: count(StateWord::Unknown),
            answered: count(StateWord::Answered),
            not_kept: count(StateWord::NotKept),
            forgotten: size.forgotten,
        }
    }
}

/// A key, as it is listed.
#[derive(Serialize)]
struct Entry {
    route: Arc<str>,
    tenant: Arc<str>,
    caller: Box<str>,
    key: Box<str>,
    state: &'static str,
    forgotten_in_seconds: u64,
}

impl From<RecordView> for Entry {
    fn from(view: RecordView) -> Self {
        let Subject {
            route,
            tenant,
            caller,
            key,
        } = view.subject;
        Self {
            route,
            tenant,
            caller,
            key,
            state: view.state.as_str(),
            forgotten_in_seconds: view.kept_for.as_secs(),
        }
    }
}

/// A key that is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    route: String,
    tenant: String,
    #[serde(default)]
    caller: String,
    key: String,
}

const UNREACHED: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "store_unreached",
    "The shared store does not answer",
    "Its keys can be seen and freed when limits_store in /api/v1/status is up.",
);

const NO_SUCH_KEY: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "no_such_key",
    "This key is not known",
    "Name route, tenant, caller and key as /api/v1/idempotency and the access log do, the caller with its kind as \
     api_key:acme-1, and not at all on a route with scope: tenant.",
);

fn in_store(admin: &Admin) -> bool {
    admin.gateway.live.load().edge.store.is_some()
}

/// `GET /api/v1/idempotency`: keys whose request is under way, or whose outcome is unknown, the next to be forgotten
/// first.
pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Result<Json<Value>, Problem> {
    let records = &admin.gateway.state.idempotency;
    let open = records.open(MOST, in_store(&admin)).await.map_err(|_| UNREACHED)?;
    let found = open.into_iter().filter(|view| {
        let subject = &view.subject;
        query.finds([
            &*subject.route,
            &*subject.tenant,
            &*subject.caller,
            &*subject.key,
            view.state.as_str(),
        ])
    });
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(found.map(Entry::from).collect());
    Ok(Json(
        json!({ "keys": entries, "total": total, "next_offset": next_offset }),
    ))
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<Subject, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let Wanted {
        route,
        tenant,
        caller,
        key,
    } = json::typed(&body, MAX_BODY).map_err(|error| {
        Problem::bad_value(format!(
            "The body is {{\"route\": \"NAME\", \"tenant\": \"acme\", \"caller\": \"api_key:acme-1\", \"key\": \
             \"...\"}}: {error}."
        ))
    })?;
    Ok(Subject {
        route: route.into(),
        tenant: tenant.into(),
        caller: caller.into(),
        key: key.into(),
    })
}

/// `POST /api/v1/idempotency/find`: shows one key, whatever its state.
pub(super) async fn find(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let subject = read(body)?;
    let found = admin.gateway.state.idempotency.find(&subject, in_store(&admin)).await;
    let view = found.map_err(|_| UNREACHED)?.ok_or(NO_SUCH_KEY)?;
    Ok(Json(json!(Entry::from(view))))
}

/// `POST /api/v1/idempotency/release`: frees a key, so that a request with it is sent to the backend again.
pub(super) async fn release(
    _: Authorised,
    _: NoParameters,
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let subject = read(body)?;
    let records = &admin.gateway.state.idempotency;
    let freed = records.free(&subject.tenant, &subject.id(), in_store(&admin)).await;
    match freed.map_err(|_| UNREACHED)? {
        Release::Released(was) => {
            let Subject { route, tenant, .. } = &subject;
            tracing::info!(%route, %tenant, was = was.as_str(), "an idempotency key was freed through the admin API");
            Ok(Json(json!({ "was": was.as_str() })))
        }
        Release::Running => Err(Problem::new(
            StatusCode::CONFLICT,
            "request_under_way",
            "The request with this key is under way",
            "It ends within the time limit of its route; then its answer is stored, or its outcome is unknown.",
        )),
        Release::NoSuchKey => Err(NO_SUCH_KEY),
    }
}
