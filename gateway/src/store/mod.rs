//! Connects to the shared store, in which the replicas of the gateway keep the central counts of their limits.
//!
//! The store is Redis or Valkey. A [`Command`] is one step of one central count, which a script in the store executes in
//! the store's own time, by the rule of [`policies::lease::Central`]. Commands that are given together travel in one
//! pipeline, those of one owner in one call, and end within the call limit whatever the store does.
//!
//! All trouble with the store is one state: it is up, or it is down since a moment because of a [`Trouble`]. While it is
//! down, commands fail at once, and one task tries to reach it again.
//!
//! Knows nothing of tenants, plans or leases that a replica holds.

use std::sync::Arc;

use redis::Pipeline;
use tokio::runtime::Handle;
use tokio::sync::watch;

mod call;
mod cluster;
mod command;
mod connection;
mod counts;
mod idempotency;
mod keeper;
mod presence;
mod scripts;
mod settings;
mod spread;
mod state;
mod trouble;

pub use command::{Answer, Ask, CentralTerms, Command, StoreKey};
pub use idempotency::{KeyAsk, KeyCall, KeyReply, KeyTerms, ListedKey, SHARDS};
pub use presence::Replica;
pub use settings::{AddressError, Password, Pem, ServerAddress, StoreAddress, StoreSettings};
pub use spread::Notice;
pub use state::{Eviction, Health, StoreState};
pub use trouble::Trouble;

use keeper::{AbortOnDrop, Keeper};

use crate::observe::{Family, Page};

/// Connection to the shared store. It is made and kept by a task, until this value is dropped.
#[derive(Debug)]
pub struct Store {
    keeper: Arc<Keeper>,
    /// Random name of this process, for its requests.
    replica: u64,
    _task: AbortOnDrop,
}

impl Store {
    /// Most commands in one pipeline.
    pub const MOST: usize = 512;

    /// Begins to connect. All connections run on `runtime`, which must not be kept busy for longer than a small part of
    /// the call limit.
    pub fn start(settings: StoreSettings, runtime: &Handle) -> Arc<Store> {
        let replica = fastrand::u64(..);
        let keeper = Arc::new(Keeper::new(settings, replica));
        let task = runtime.spawn(Arc::clone(&keeper).run());
        Arc::new(Store {
            keeper,
            replica,
            _task: AbortOnDrop(task),
        })
    }

    /// Returns the random name of this process, which is another one for each [`Store`].
    pub const fn replica(&self) -> u64 {
        self.replica
    }

    pub fn settings(&self) -> &StoreSettings {
        &self.keeper.settings
    }

    /// Executes commands in one pipeline, and returns their answers in the same order. Ends within the call limit, and
    /// at once while the store is down. Any worker may call it.
    pub async fn execute(&self, commands: Vec<Command>) -> Vec<Result<Answer, Trouble>> {
        Box::pin(self.execute_all(&commands)).await
    }

    async fn execute_all(&self, commands: &[Command]) -> Vec<Result<Answer, Trouble>> {
        // What is in no call stays at this.
        let mut answers: Vec<_> = commands.iter().map(|_| Err(Trouble::Inexact)).collect();
        for answer in answers.iter_mut().skip(Store::MOST) {
            *answer = Err(Trouble::TooMany);
        }
        let sent = &commands[..commands.len().min(Store::MOST)];
        let (keeper, mut pipeline) = (&self.keeper, Pipeline::new());
        let mut places = Vec::with_capacity(sent.len());
        for (call, places_of_call) in keeper.common.calls(&keeper.keys, sent) {
            pipeline.add_command(call);
            places.push(places_of_call);
        }
        if places.is_empty() {
            return answers;
        }
        let replies = keeper.call(&pipeline).await;
        for (number, places) in places.into_iter().enumerate() {
            let reply = match &replies {
                Ok(replies) => scripts::replies(&replies.values()[number], places.len()),
                Err(trouble) => Err(*trouble),
            };
            match reply {
                Ok(reply) => {
                    keeper.note_answer(reply.memory);
                    for (place, value) in places.into_iter().zip(reply.counts) {
                        answers[place] = scripts::answer(&commands[place].ask, value);
                    }
                }
                Err(trouble) => places.into_iter().for_each(|place| answers[place] = Err(trouble)),
            }
        }
        answers
    }

    pub fn state(&self) -> StoreState {
        self.keeper.state()
    }

    /// Returns a receiver that is told each change of the state.
    pub fn watch(&self) -> watch::Receiver<StoreState> {
        self.keeper.watch()
    }

    /// Returns the last failure in words, for the admin API.
    pub fn last_failure(&self) -> Option<Box<str>> {
        self.keeper.detail()
    }

    /// Announces a notice to all replicas, this one included, as soon as the store can be reached. It replaces the earlier
    /// one of that name. `ends` is in seconds since 1970; a notice that ends is forgotten. Returns false if it is too
    /// long, or if too many wait for the store.
    pub fn announce(&self, name: &str, value: &str, ends: Option<u64>) -> bool {
        let ends = ends.map_or(0, |ends| ends.saturating_mul(1_000_000).clamp(1, command::MOST_EXACT));
        self.keeper.spread.announce(name, value, ends)
    }

    /// Returns the notices of all replicas that have not ended.
    pub fn notices(&self) -> Vec<Notice> {
        self.keeper.spread.known()
    }

    /// Returns a receiver that is told each change of the notices.
    pub fn watch_notices(&self) -> watch::Receiver<u64> {
        self.keeper.spread.watch()
    }

    /// Sets what this replica tells of itself, at most 1 KiB: `at_once`, or within five seconds.
    pub fn set_presence(&self, text: &str, at_once: bool) {
        self.keeper.set_presence(text, at_once);
    }

    /// Lists the replicas that use the store.
    ///
    /// # Errors
    /// The trouble of the store.
    pub async fn replicas(&self) -> Result<Vec<Replica>, Trouble> {
        self.keeper.replicas().await
    }

    /// Tells that this replica leaves. Ends within the call limit.
    pub async fn leave(&self) {
        self.keeper.leave().await;
    }

    /// Adds the metrics of the store to the page.
    pub fn sample(&self, page: &mut Page) {
        let (state, counts) = (self.state(), &self.keeper.counts);
        page.put(Family::StoreUp, &[], u8::from(state.is_up()));
        page.put(Family::StoreMayEvict, &[], u8::from(state.may_evict()));
        for (outcome, count) in counts.outcomes.iter() {
            page.put(Family::StoreCalls, &[outcome.as_str()], count);
        }
        page.put_histogram(Family::StoreDuration, "", &counts.duration);
    }
}
