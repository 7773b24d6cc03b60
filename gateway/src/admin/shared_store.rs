//! `GET /api/v1/replicas`: the replicas that share a store. The store itself is a part of the status.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::list_query::NoParameters;
use super::numbers::millis;
use super::problem::Problem;
use super::state::Admin;
use crate::control::notices::Changes;
use crate::observe::timestamp::Timestamp;
use crate::store::{Health, Replica, Store};
use crate::{clock, json};

/// Longest text of a replica, in bytes.
const LONGEST: usize = 4_096;

#[derive(Serialize)]
pub(super) struct Replicas {
    replicas: Vec<ReplicaView>,
    limits_store: StoreView,
}

#[derive(Serialize)]
struct ReplicaView {
    /// Random name of the process, as the store knows it.
    replica: String,
    /// Whether it is the one that answers.
    this: bool,
    /// Host and number of the process.
    name: String,
    version: String,
    /// Number of the plan in the process, counted from 1.
    config_generation: u64,
    started: Timestamp,
    /// Tokens that it holds.
    on_lease: u64,
    /// Numbers of changes by operators that are in force there.
    changes: Changes,
    /// Time since it last told of itself, which it does every five seconds.
    silent_for_ms: u64,
}

/// Presence of a replica, as it announces itself in the store.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    name: String,
    version: String,
    generation: u64,
    started: u64,
    on_lease: u64,
    changes: Changes,
}

pub(super) async fn replicas(_: NoParameters, State(admin): State<Arc<Admin>>) -> Result<Json<Replicas>, Problem> {
    let Some(store) = admin.gateway.state.shared_store.get() else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_limits_store",
            "This gateway shares no store",
            "Write `limits_store`, so that replicas count limits together and know each other.",
        ));
    };
    let listed = store.replicas().await.map_err(|trouble| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "limits_store_down",
            "The shared store does not list the replicas",
            "",
        )
        .detail(format!("The trouble is: {trouble}. /api/v1/status says more."))
    })?;
    let mut replicas: Vec<_> = listed.iter().map(|replica| ReplicaView::of(replica, store)).collect();
    replicas.sort_by(|one, other| (&one.name, &one.replica).cmp(&(&other.name, &other.replica)));
    Ok(Json(Replicas {
        replicas,
        limits_store: StoreView::of(store),
    }))
}

impl ReplicaView {
    fn of(replica: &Replica, store: &Store) -> Self {
        let told: Told = json::typed(replica.text.as_bytes(), LONGEST).unwrap_or_default();
        Self {
            replica: format!("{:016x}", replica.name),
            this: replica.name == store.replica(),
            name: told.name,
            version: told.version,
            config_generation: told.generation,
            started: Timestamp(Duration::from_secs(told.started)),
            on_lease: told.on_lease,
            changes: told.changes,
            silent_for_ms: millis(replica.silent_for),
        }
    }
}

/// The shared store, as this replica sees it.
#[derive(Serialize)]
pub(super) struct StoreView {
    address: String,
    /// Random name of this process, as the store knows it.
    replica: String,
    up: bool,
    /// Time for which it has been up or down.
    for_seconds: u64,
    /// Kind of the trouble; `null` while the store is up.
    trouble: Option<&'static str>,
    /// Words of the last failure; `null` if there was none.
    last_failure: Option<Box<str>>,
    /// Name of the store's memory. Another one means that it has forgotten all counts.
    epoch: Option<String>,
    /// `maxmemory-policy` of the store; `null` if it does not tell.
    eviction: Option<&'static str>,
    /// Sentence that says what is wrong with the settings of the store.
    warning: Option<&'static str>,
}

impl StoreView {
    pub(super) fn of(store: &Store) -> Self {
        let state = store.state();
        let (since, trouble) = match state.health {
            Health::Up { since } => (since, None),
            Health::Down { since, trouble } => (since, Some(trouble.word())),
        };
        Self {
            address: store.settings().address.to_string(),
            replica: format!("{:016x}", store.replica()),
            up: state.is_up(),
            for_seconds: clock::now().since(since).as_secs(),
            trouble,
            last_failure: store.last_failure(),
            epoch: state.epoch.map(|epoch| epoch.to_string()),
            eviction: state.eviction.map(|eviction| eviction.word()),
            warning: state.may_evict().then_some(
                "It may drop counts when its memory is full, and their owners then start with fresh limits: set \
                 maxmemory-policy noeviction there.",
            ),
        }
    }
}
