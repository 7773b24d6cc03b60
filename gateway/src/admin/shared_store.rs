//! Describes the store that replicas share, for the admin API.

use serde::Serialize;

use crate::clock;
use crate::store::{Health, Store};

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
