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
/// Maximum number of limits that are told apart for a tenant. Beyond, refusals count as [`OTHER_LIMITS`].
const MOST_LIMITS: usize = 16;
/// Name of all limits of a tenant that are not told apart.
const OTHER_LIMITS: &str = "(others)";

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
    /// Made by the first refusal of a limit.
    limits: OnceLock<Box<LimitRefusals>>,
}

/// Refusals by the limit that refused, in the order of their first refusals. A count takes no lock.
#[derive(Debug, Default)]
struct LimitRefusals {
    by_name: [OnceLock<(Arc<str>, AtomicU64)>; MOST_LIMITS],
    others: AtomicU64,
}

impl LimitRefusals {
    fn count(&self, limit: &Arc<str>) {
        for place in &self.by_name {
            let (name, count) = place.get_or_init(|| (Arc::clone(limit), AtomicU64::new(0)));
            if name == limit {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
        self.others.fetch_add(1, Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        let named = self.by_name.iter().map_while(OnceLock::get);
        let named = named.map(|(name, count)| (&**name, count.load(Relaxed)));
        let others = Some(self.others.load(Relaxed)).filter(|count| *count > 0);
        named.chain(others.map(|count| (OTHER_LIMITS, count)))
    }
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
            limits: OnceLock::new(),
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

    /// Counts a refusal by the strictest limit that refused.
    pub(super) fn count_limit(&self, limit: &Arc<str>) {
        self.limits.get_or_init(Box::default).count(limit);
    }

    /// Returns the limits that refused requests, with their numbers.
    pub fn limits(&self) -> impl Iterator<Item = (&str, u64)> {
        self.limits.get().into_iter().flat_map(|limits| limits.all())
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
    fn refusals_are_counted_by_a_bounded_number_of_limits() {
        let tenant = Tenants::default().find_or_add("acme", "free");
        for number in 0..MOST_LIMITS + 3 {
            let mut record = RequestRecord::default();
            record.reason = Some(Reason::RateLimited);
            record.limit = Some(format!("limit-{number}").into());
            tenant.count(&record);
            tenant.count(&record);
        }
        let limits: Vec<_> = tenant.limits().collect();
        assert_eq!(
            (limits.len(), limits[0], limits[1].0),
            (MOST_LIMITS + 1, ("limit-0", 2), "limit-1")
        );
        assert_eq!(limits[MOST_LIMITS], (OTHER_LIMITS, 6));
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
