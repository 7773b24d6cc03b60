//! Counts refusals by reason, tenant and the setting that decided, so that an operator sees what is refused most.
//!
//! Every refusal is counted, unlike in the list of single rejections. Invariant: the number of groups is bounded. A
//! refusal of a known group costs a hash of its names and an addition, and waits for nothing. If no place is left for a
//! new group, it replaces one that has been quiet for a while; otherwise its refusals are counted together with those
//! of all other such groups.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::decided::{Decided, SettingPlace};
use super::labels::Label;
use super::record::RequestRecord;
use super::timestamp::Timestamp;
use crate::rejection::Reason;

/// Maximum number of groups.
const PLACES: usize = 256;
/// Number of places that a group may have, one after the other.
const REACH: usize = 16;
/// Time without a refusal after which a group may be replaced.
const QUIET: Duration = Duration::from_secs(600);
/// Key of a place that is free.
const FREE: u64 = 0;

/// Counts of all groups.
#[derive(Debug)]
pub struct RefusalGroups {
    hasher: RandomState,
    places: Box<[Place]>,
    names: Mutex<Box<[Option<Names>]>>,
    others: AtomicU64,
}

/// Count of one group. The names of the group stand in [`RefusalGroups::names`] at the same index.
#[derive(Debug)]
struct Place {
    /// Hash of the names, or [`FREE`].
    key: AtomicU64,
    count: AtomicU64,
    /// Time of the latest refusal in Unix seconds.
    latest: AtomicU64,
}

#[derive(Debug, Clone)]
struct Names {
    reason: Reason,
    tenant: Option<Arc<str>>,
    decided_by: Option<SettingPlace>,
    since: Timestamp,
}

/// A group of refusals that have the reason, the tenant and the deciding setting in common.
#[derive(Debug, Clone)]
pub struct RefusalGroup {
    pub reason: Reason,
    pub tenant: Option<Arc<str>>,
    /// The setting that decided; `None` if no setting would change the answer.
    pub decided_by: Option<SettingPlace>,
    /// Number of refusals since `since`.
    pub count: u64,
    pub since: Timestamp,
    /// Time of the latest refusal, at the start of its second.
    pub latest: Timestamp,
}

impl Default for RefusalGroups {
    fn default() -> Self {
        let place = || Place {
            key: AtomicU64::new(FREE),
            count: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        };
        Self {
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| place()).collect(),
            names: Mutex::new(vec![None; PLACES].into()),
            others: AtomicU64::new(0),
        }
    }
}

impl RefusalGroups {
    /// Counts the refusal of `record`, if there is one. A caller that left was not refused.
    #[inline]
    pub(super) fn note(&self, record: &RequestRecord) {
        if let Some(reason) = record.reason
            && reason != Reason::CallerGone
        {
            self.count(reason, record);
        }
    }

    /// Returns all groups, in no order.
    pub fn all(&self) -> Vec<RefusalGroup> {
        let names = self.names();
        let taken = self.places.iter().zip(names.iter());
        taken
            .filter_map(|(place, names)| {
                let names = names.clone()?;
                Some(RefusalGroup {
                    reason: names.reason,
                    tenant: names.tenant,
                    decided_by: names.decided_by,
                    count: place.count.load(Relaxed),
                    since: names.since,
                    latest: Timestamp(Duration::from_secs(place.latest.load(Relaxed))),
                })
            })
            .collect()
    }

    /// Returns the number of refusals for whose group there was no place.
    pub fn others(&self) -> u64 {
        self.others.load(Relaxed)
    }

    fn count(&self, reason: Reason, record: &RequestRecord) {
        let key = self.key(reason, record);
        let second = record.at.0.as_secs();
        match self.reach(key).find(|&at| self.places[at].key.load(Acquire) == key) {
            Some(at) => self.places[at].add(second),
            None => self.begin(key, reason, record, second),
        }
    }

    fn key(&self, reason: Reason, record: &RequestRecord) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        reason.index().hash(&mut hasher);
        record.tenant.as_ref().map(|tenant| &*tenant.name).hash(&mut hasher);
        let setting = record.decided.as_deref();
        let setting = setting.and_then(|decided| decided.settings.get(decided.setting));
        setting
            .map(|setting| (&*setting.path, setting.at.as_ref().map(|at| at.line)))
            .hash(&mut hasher);
        hasher.finish().max(FREE + 1)
    }

    /// Returns the places that a group with this key may have.
    fn reach(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let first = (key % PLACES as u64) as usize;
        (first..first + REACH).map(|at| at % PLACES)
    }

    /// Finds a place for a new group. A request that finds the names locked does not wait and is counted with the others.
    #[cold]
    fn begin(&self, key: u64, reason: Reason, record: &RequestRecord, second: u64) {
        let mut names = match self.names.try_lock() {
            Ok(names) => names,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.count_other(),
        };
        // Another worker may have begun the group meanwhile.
        if let Some(at) = self.reach(key).find(|&at| self.places[at].key.load(Relaxed) == key) {
            return self.places[at].add(second);
        }
        let is_quiet = |place: &Place| second.saturating_sub(place.latest.load(Relaxed)) >= QUIET.as_secs();
        let free = self.reach(key).find(|&at| self.places[at].key.load(Relaxed) == FREE);
        let stalest = || {
            let quiet = self.reach(key).filter(|&at| is_quiet(&self.places[at]));
            quiet.min_by_key(|&at| self.places[at].latest.load(Relaxed))
        };
        let Some(at) = free.or_else(stalest) else {
            return self.count_other();
        };
        names[at] = Some(Names {
            reason,
            tenant: record.tenant.as_ref().map(|tenant| Arc::clone(&tenant.name)),
            decided_by: record.decided.as_deref().and_then(Decided::place),
            since: record.at,
        });
        let place = &self.places[at];
        place.count.store(1, Relaxed);
        place.latest.store(second, Relaxed);
        place.key.store(key, Release);
    }

    fn count_other(&self) {
        self.others.fetch_add(1, Relaxed);
    }

    /// Ignores poisoning: each change is one assignment.
    fn names(&self) -> MutexGuard<'_, Box<[Option<Names>]>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn add(&self, second: u64) {
        self.count.fetch_add(1, Relaxed);
        // Written once a second, so that a flood does not contend for it.
        if self.latest.load(Relaxed) < second {
            self.latest.store(second, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use policies::Moment;

    use super::*;
    use crate::observe::tenants::Tenants;

    fn refusal(second: u64, reason: Reason, tenant: Option<&str>) -> RequestRecord {
        let at = Duration::from_secs(second);
        let mut record = RequestRecord::begin(Moment::ZERO, at, "id", Method::GET, "/");
        record.tenant = tenant.map(|tenant| Tenants::default().find_or_add(tenant, "free"));
        record.refused(reason);
        record
    }

    fn counts(groups: &RefusalGroups) -> Vec<(Reason, Option<String>, u64)> {
        let mut all: Vec<_> = groups.all();
        all.sort_by_key(|group| std::cmp::Reverse(group.count));
        let row = |group: RefusalGroup| (group.reason, group.tenant.map(|name| name.to_string()), group.count);
        all.into_iter().map(row).collect()
    }

    #[test]
    fn every_refusal_is_counted_in_its_group() {
        let groups = RefusalGroups::default();
        for second in 0..1000 {
            groups.note(&refusal(second, Reason::RateLimited, Some("acme")));
        }
        for second in 0..10 {
            groups.note(&refusal(second, Reason::RateLimited, Some("globex")));
            groups.note(&refusal(second, Reason::CallerGone, Some("acme")));
        }
        groups.note(&refusal(7, Reason::NoRoute, None));
        groups.note(&RequestRecord::default());
        assert_eq!(
            counts(&groups),
            [
                (Reason::RateLimited, Some("acme".to_owned()), 1000),
                (Reason::RateLimited, Some("globex".to_owned()), 10),
                (Reason::NoRoute, None, 1),
            ]
        );
        let acme = groups.all().into_iter().max_by_key(|group| group.count).unwrap();
        assert_eq!((acme.since.0.as_secs(), acme.latest.0.as_secs()), (0, 999));
        assert_eq!(groups.others(), 0);
    }

    #[test]
    fn groups_are_bounded_and_none_that_is_busy_is_replaced() {
        let groups = RefusalGroups::default();
        for number in 0..10 * PLACES as u64 {
            groups.note(&refusal(5, Reason::RateLimited, Some(&format!("tenant-{number}"))));
        }
        let counted: u64 = groups.all().iter().map(|group| group.count).sum();
        assert!(groups.all().len() <= PLACES);
        assert_eq!(counted + groups.others(), 10 * PLACES as u64, "none is lost");
        let before = groups.others();
        groups.note(&refusal(5 + QUIET.as_secs(), Reason::BreakerOpen, Some("late")));
        assert_eq!(groups.others(), before, "it has taken the place of a quiet one");
        assert!(groups.all().iter().any(|group| group.reason == Reason::BreakerOpen));
    }

    #[test]
    fn no_request_waits_for_the_list() {
        let groups = RefusalGroups::default();
        groups.note(&refusal(1, Reason::NoRoute, None));
        let busy = groups.names();
        groups.note(&refusal(1, Reason::NoRoute, None));
        groups.note(&refusal(1, Reason::BreakerOpen, None));
        drop(busy);
        assert_eq!(
            (counts(&groups), groups.others()),
            (vec![(Reason::NoRoute, None, 2)], 1)
        );
    }
}
