//! Counts requests whose credential names a tier that the config does not have. Such callers get the default tier, and
//! the operator should know.
//!
//! The counts survive reloads. The names come from tokens, so their number and length are bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of names that are counted separately.
const MOST: usize = 50;

/// Maximum length of a name in bytes; the rest is cut. A tier's name cannot be longer.
const MOST_OF_NAME: usize = 64;

/// All unknown tiers that the process has seen.
#[derive(Debug, Default)]
pub struct UnknownTiers {
    by_name: Mutex<BTreeMap<Arc<str>, Arc<UnknownTier>>>,
    requests: AtomicU64,
}

/// A tier that the config does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownTier {
    pub name: Arc<str>,
    /// Tenant of the first credential that named it.
    pub tenant: Arc<str>,
    requests: Requests,
}

#[derive(Debug, Default)]
struct Requests(AtomicU64);

impl PartialEq for Requests {
    fn eq(&self, other: &Self) -> bool {
        self.0.load(Relaxed) == other.0.load(Relaxed)
    }
}

impl Eq for Requests {}

impl UnknownTiers {
    /// Finds or adds the counter of an unknown tier. Each added name is logged once.
    pub fn find_or_add(&self, name: &str, tenant: &Arc<str>) -> Arc<UnknownTier> {
        let name = &name[..name.floor_char_boundary(MOST_OF_NAME)];
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = by_name.get(name) {
            return Arc::clone(found);
        }
        let added = Arc::new(UnknownTier {
            name: name.into(),
            tenant: Arc::clone(tenant),
            requests: Requests::default(),
        });
        if by_name.len() < MOST {
            tracing::warn!(
                tier = name,
                tenant = &**tenant,
                "a credential names a tier that there is not: its caller gets the default tier"
            );
            by_name.insert(Arc::clone(&added.name), Arc::clone(&added));
        }
        added
    }

    /// Counts a request whose credential names this tier.
    pub(super) fn count(&self, tier: &UnknownTier) {
        self.requests.fetch_add(1, Relaxed);
        tier.requests.0.fetch_add(1, Relaxed);
    }

    /// Returns the number of requests for all unknown tiers, including names that are not counted separately.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns the separately counted tiers with their requests, the busiest first.
    pub fn all(&self) -> Vec<(Arc<UnknownTier>, u64)> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = |tier: &Arc<UnknownTier>| (Arc::clone(tier), tier.requests.0.load(Relaxed));
        let mut all: Vec<_> = by_name.values().map(counted).collect();
        drop(by_name);
        all.sort_by_key(|(_, requests)| std::cmp::Reverse(*requests));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_name_and_together() {
        let tiers = UnknownTiers::default();
        let (gold, lead) = (
            tiers.find_or_add("gold", &"acme".into()),
            tiers.find_or_add("lead", &"acme".into()),
        );
        let again = tiers.find_or_add("gold", &"globex".into());
        assert!(Arc::ptr_eq(&gold, &again));
        tiers.count(&lead);
        tiers.count(&gold);
        tiers.count(&again);
        let all: Vec<_> = tiers
            .all()
            .into_iter()
            .map(|(tier, requests)| (tier.name.to_string(), tier.tenant.to_string(), requests))
            .collect();
        let expected =
            [("gold", 2), ("lead", 1)].map(|(name, requests)| (name.to_owned(), "acme".to_owned(), requests));
        assert_eq!(all, expected);
        assert_eq!(tiers.requests(), 3);
    }

    #[test]
    fn names_are_few_and_short() {
        let tiers = UnknownTiers::default();
        let long = tiers.find_or_add(&"\u{2603}".repeat(1000), &"acme".into());
        assert_eq!(&*long.name, "\u{2603}".repeat(MOST_OF_NAME / 3));
        for number in 0..10 * MOST {
            let tier = tiers.find_or_add(&number.to_string(), &"acme".into());
            tiers.count(&tier);
        }
        assert_eq!((tiers.all().len(), tiers.requests()), (MOST, 10 * MOST as u64));
    }
}
