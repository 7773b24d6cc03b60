//! Counts the requests and rejections of each tenant, for the admin API.
//!
//! Tenants come from credentials and not from the config, so they are no labels of the metrics page, and at most
//! [`MOST`] are counted. Above that, a new tenant replaces the least busy one whose credentials are no longer cached.
//! If there is none, the new tenant is served but not listed.
//!
//! A cached credential holds the counters of its tenant, so that a count is one relaxed addition.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::rejection::Reason;

/// Maximum number of counted tenants.
pub const MOST: usize = 1000;

/// Tenants that have metrics of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Number of the busiest tenants.
    pub top: usize,
    /// Tenants that are shown in any case.
    pub names: Vec<Arc<str>>,
}

/// Requests of one tenant.
#[derive(Debug)]
pub struct TenantMetrics {
    pub name: Arc<str>,
    tier: Mutex<Arc<str>>,
    pub(super) requests: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) rejected: AtomicU64,
    /// By the reason's place; made by the first refusal.
    refused: OnceLock<Box<[AtomicU64; Reason::ALL.len()]>>,
}

/// All counted tenants.
#[derive(Debug, Default)]
pub struct Tenants {
    seen: Mutex<HashMap<Arc<str>, Arc<TenantMetrics>>>,
    unlisted: AtomicU64,
}

impl TenantMetrics {
    fn new(name: Arc<str>, tier: &str) -> Self {
        Self {
            name,
            tier: Mutex::new(tier.into()),
            requests: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            refused: OnceLock::new(),
        }
    }

    /// Returns the tier of the credential that was verified last.
    pub fn tier(&self) -> Arc<str> {
        Arc::clone(&unpoisoned(&self.tier))
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns the number of requests that a limit rejected.
    pub fn limited(&self) -> u64 {
        self.limited.load(Relaxed)
    }

    /// Counts a refusal.
    pub(super) fn count_refused(&self, reason: Reason) {
        let refused = self
            .refused
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// Returns the reasons for which requests were refused, with their numbers.
    pub fn refused(&self) -> Vec<(Reason, u64)> {
        let counts = self.refused.get().into_iter().flat_map(|counts| counts.iter());
        let all = Reason::ALL.into_iter().zip(counts.map(|count| count.load(Relaxed)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns the number of requests that the gateway rejected or failed for another reason.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }
}

impl Tenants {
    /// Finds or adds the counters of the tenant `name`, and sets its tier.
    pub fn find_or_add(&self, name: &str, tier: &str) -> Arc<TenantMetrics> {
        let mut seen = unpoisoned(&self.seen);
        if let Some(found) = seen.get(name) {
            *unpoisoned(&found.tier) = tier.into();
            return Arc::clone(found);
        }
        let name: Arc<str> = name.into();
        let added = Arc::new(TenantMetrics::new(Arc::clone(&name), tier));
        if seen.len() >= MOST && !make_room(&mut seen) {
            self.unlisted.fetch_add(1, Relaxed);
            return added;
        }
        seen.insert(name, Arc::clone(&added));
        added
    }

    /// Returns all counted tenants, in no order.
    pub fn all(&self) -> Vec<Arc<TenantMetrics>> {
        unpoisoned(&self.seen).values().cloned().collect()
    }

    /// Returns how often a tenant could not be added.
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Relaxed)
    }
}

fn make_room(seen: &mut HashMap<Arc<str>, Arc<TenantMetrics>>) -> bool {
    let forgotten = seen.values().filter(|tenant| Arc::strong_count(tenant) == 1);
    let least = forgotten
        .min_by_key(|tenant| tenant.requests())
        .map(|tenant| Arc::clone(&tenant.name));
    least.is_some_and(|name| seen.remove(&name).is_some())
}

/// Ignores poisoning: every change under these locks is one assignment or insertion, so no change can be half done.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::record::RequestRecord;
    use super::*;

    #[test]
    fn a_tenant_has_one_set_of_counters_and_its_latest_tier() {
        let tenants = Tenants::default();
        let first = tenants.find_or_add("acme", "free");
        let again = tenants.find_or_add("acme", "premium");
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(&*first.tier(), "premium");
    }

    #[test]
    fn refusals_are_told_apart_from_limits() {
        let tenant = Tenants::default().find_or_add("acme", "free");
        let reasons = [
            None,
            Some(Reason::RateLimited),
            Some(Reason::BreakerOpen),
            Some(Reason::CallerGone),
        ];
        for reason in reasons {
            let mut record = RequestRecord::default();
            record.reason = reason;
            tenant.count(&record);
        }
        assert_eq!((tenant.requests(), tenant.limited(), tenant.rejected()), (4, 1, 1));
    }

    #[test]
    fn the_least_busy_of_the_forgotten_makes_room() {
        let tenants = Tenants::default();
        for number in 0..MOST {
            let tenant = tenants.find_or_add(&number.to_string(), "free");
            (0..=number).for_each(|_| tenant.count(&RequestRecord::default()));
        }
        let held = tenants.find_or_add("0", "free");
        tenants.find_or_add("new", "free");
        let names: Vec<_> = tenants.all().iter().map(|tenant| tenant.name.to_string()).collect();
        assert_eq!((names.len(), tenants.unlisted()), (MOST, 0));
        assert!(names.contains(&held.name.to_string()) && names.contains(&"new".to_owned()));
        assert!(
            !names.contains(&"1".to_owned()),
            "it was the least busy that nobody held"
        );
    }

    #[test]
    fn a_crowd_that_is_held_leaves_no_room_and_is_served() {
        let tenants = Tenants::default();
        let _held: Vec<_> = (0..MOST)
            .map(|number| tenants.find_or_add(&number.to_string(), "free"))
            .collect();
        assert_eq!(&*tenants.find_or_add("late", "free").name, "late");
        assert_eq!((tenants.all().len(), tenants.unlisted()), (MOST, 1));
    }
}
