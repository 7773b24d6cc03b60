//! How late the workers run what is ready, and which newcomers they therefore refuse.
//!
//! Each worker has a state of its own, because one may be overloaded while another is idle. The worker measures its
//! delay and writes the state ([`crate::server`]); its requests read it; the admin side shows all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::overload::{Admission, Period};

/// State of one worker.
#[derive(Debug, Default)]
pub struct WorkerLoad {
    pub admission: Admission,
    /// Delay of the last period, in nanoseconds.
    delay: AtomicU64,
    /// Share of the newcomers that are refused, as bits of a float.
    share: AtomicU64,
}

impl WorkerLoad {
    pub(crate) fn show(&self, period: Period) {
        let delay = u64::try_from(period.delay.as_nanos()).unwrap_or(u64::MAX);
        self.delay.store(delay, Relaxed);
        self.share.store(period.share.to_bits(), Relaxed);
    }

    /// Returns the least time that a ready task waited in the last period.
    pub fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay.load(Relaxed))
    }

    /// Returns the share of the newcomers that are refused.
    pub fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Relaxed))
    }
}

/// States of all workers, and counts of the requests that they refused.
#[derive(Debug, Default)]
pub struct WorkerLoads {
    workers: Mutex<Vec<Arc<WorkerLoad>>>,
    /// Refused requests by tier, for all tiers that there have been.
    refused: Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>,
}

impl WorkerLoads {
    /// Returns the state of another worker.
    pub fn add(&self) -> Arc<WorkerLoad> {
        let added = Arc::default();
        lock(&self.workers).push(Arc::clone(&added));
        added
    }

    /// Returns the states of the workers, in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<WorkerLoad>> {
        lock(&self.workers).clone()
    }

    /// Returns the count of refused requests of a tier.
    pub fn refused_of(&self, tier: &Arc<str>) -> Arc<AtomicU64> {
        Arc::clone(lock(&self.refused).entry(Arc::clone(tier)).or_default())
    }

    /// Returns the counts of refused requests by tier, sorted by name.
    pub fn refused(&self) -> Vec<(Arc<str>, u64)> {
        let all = lock(&self.refused);
        all.iter()
            .map(|(tier, count)| (Arc::clone(tier), count.load(Relaxed)))
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
