//! Lets requests for the same thing wait for one answer (RFC 9111 section 4, *collapsed requests*).
//!
//! Invariant: a flight has one leader. If it leaves without a result, its followers learn that at once, and look again.
//! A request joins no flight that was begun before the resource changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use tokio::sync::watch;

use super::responses::Found;
use super::reuse::UriHandle;
use super::store::Key;

#[derive(Default)]
pub struct Flights(Arc<Mutex<Map>>);

type Map = HashMap<Key, Flight>;

struct Flight {
    result: watch::Receiver<Landing>,
    uri: UriHandle,
}

/// Result of a flight.
#[derive(Debug, Clone, Default)]
pub enum Landing {
    #[default]
    Coming,
    /// An answer, which is for the followers of its audience.
    Answer(Found),
    /// A stale answer in place of a failure, with the status of the backend if it had one.
    StandIn(Found, Option<StatusCode>),
    /// An answer that is for the leader alone, or none.
    Nothing,
}

/// Place of a request in a flight.
pub enum Joined {
    Leader(Leader),
    Follower(Follower),
}

/// The request that asks the backend. Dropped without a result, it lets its followers go.
pub struct Leader {
    flights: Arc<Mutex<Map>>,
    key: Key,
    result: watch::Sender<Landing>,
    uri: UriHandle,
    is_registered: bool,
}

/// A request that waits for the leader's answer.
pub struct Follower(watch::Receiver<Landing>);

impl Flights {
    /// Joins the flight of a key, or begins one.
    pub(super) fn join(&self, key: &Key, uri: impl FnOnce() -> UriHandle) -> Joined {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(key)
            && flight.uri.is_current()
        {
            return Joined::Follower(Follower(flight.result.clone()));
        }
        let (sender, receiver) = watch::channel(Landing::Coming);
        let uri = uri();
        let flight = Flight {
            result: receiver,
            uri: uri.clone(),
        };
        let before = flights.insert(key.clone(), flight);
        drop(flights);
        // The handle of an earlier flight takes another lock when it is dropped.
        drop(before);
        Joined::Leader(Leader {
            flights: Arc::clone(&self.0),
            key: key.clone(),
            result: sender,
            uri,
            is_registered: true,
        })
    }
}

impl Leader {
    /// Handle of the URI, taken before the backend was asked.
    pub fn uri(&self) -> UriHandle {
        self.uri.clone()
    }

    /// Ends the flight. Requests that come from now on do not join it.
    pub fn land(mut self, landing: Landing) {
        self.leave();
        // Without followers, nobody listens.
        let _ = self.result.send(landing);
    }

    fn leave(&mut self) {
        if !std::mem::take(&mut self.is_registered) {
            return;
        }
        let mut flights = lock(&self.flights);
        let is_own = |flight: &Flight| flight.result.same_channel(&self.result.subscribe());
        let gone = match flights.get(&self.key).is_some_and(is_own) {
            true => flights.remove(&self.key),
            false => None,
        };
        drop(flights);
        drop(gone);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Follower {
    /// Waits for the result. `None` if the leader has left without one.
    pub async fn wait(mut self) -> Option<Landing> {
        let landing = self
            .0
            .wait_for(|landing| !matches!(landing, Landing::Coming))
            .await
            .ok()?;
        Some(landing.clone())
    }
}

fn lock(flights: &Mutex<Map>) -> MutexGuard<'_, Map> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}
