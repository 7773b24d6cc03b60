//! The tenants of the file of tenants, by name. There may be a million of them, and each can change at any time.
//!
//! Names are spread over shards. A lookup reads one shard without a lock, and a change replaces one shard, so that it
//! costs the same however many tenants there are. Equal records are stored once: most tenants only have a tier.
//!
//! Invariant: [`TenantDirectory::changes`] grows after each change is visible, so a reader that finds the same number
//! twice has seen no older record in between.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::record::TenantRecord;
use crate::fingerprint;

/// Number of shards: 250 names in each of a million.
const SHARDS: usize = 4096;
/// Largest number of distinct records that are looked for among those read.
const MOST_SHARED: usize = 65_536;

type Shard = HashMap<Box<str>, Arc<TenantRecord>>;

/// All tenants of the file.
pub struct TenantDirectory {
    shards: Box<[ArcSwap<Shard>]>,
    hasher: RandomState,
    changes: AtomicU64,
    count: AtomicUsize,
    /// Sum of the fingerprints of all entries.
    fingerprint: AtomicU64,
    /// Held by the one that changes a shard.
    writer: Mutex<()>,
}

/// Tenants that are being read.
pub struct DirectoryBuilder {
    shards: Vec<Shard>,
    hasher: RandomState,
    shared: HashSet<Arc<TenantRecord>>,
    count: usize,
    fingerprint: u64,
}

impl Default for DirectoryBuilder {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            hasher: RandomState::new(),
            shared: HashSet::new(),
            count: 0,
            fingerprint: 0,
        }
    }
}

impl DirectoryBuilder {
    /// Returns the stored record that equals this one.
    pub fn share(&mut self, record: TenantRecord) -> Arc<TenantRecord> {
        if let Some(found) = self.shared.get(&record) {
            return Arc::clone(found);
        }
        let record = Arc::new(record);
        if self.shared.len() < MOST_SHARED {
            self.shared.insert(Arc::clone(&record));
        }
        record
    }

    /// Adds a tenant. Returns false if there is one of this name.
    pub fn add(&mut self, name: &str, record: Arc<TenantRecord>) -> bool {
        let shard = &mut self.shards[place(&self.hasher, name)];
        if shard.contains_key(name) {
            return false;
        }
        self.fingerprint = self.fingerprint.wrapping_add(fingerprint::of(&(name, &record)));
        shard.insert(name.into(), record);
        self.count += 1;
        true
    }

    pub fn finish(self) -> TenantDirectory {
        let shards = self.shards.into_iter().map(|mut shard| {
            shard.shrink_to_fit();
            ArcSwap::from_pointee(shard)
        });
        TenantDirectory {
            shards: shards.collect(),
            hasher: self.hasher,
            changes: AtomicU64::new(1),
            count: AtomicUsize::new(self.count),
            fingerprint: AtomicU64::new(self.fingerprint),
            writer: Mutex::new(()),
        }
    }
}

fn place(hasher: &RandomState, name: &str) -> usize {
    hasher.hash_one(name) as usize % SHARDS
}

impl TenantDirectory {
    /// Returns what is written for a tenant.
    pub fn get(&self, name: &str) -> Option<Arc<TenantRecord>> {
        self.shards[place(&self.hasher, name)].load().get(name).cloned()
    }

    /// Returns a number that grows with every change, from 1.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the fingerprint of all entries.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a tenant's new terms in force, or takes the tenant out. Every request that begins afterwards sees it.
    pub fn set(&self, name: &str, record: Option<TenantRecord>) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &self.shards[place(&self.hasher, name)];
        let mut shard = Shard::clone(&slot.load());
        let of = |record: Option<&Arc<TenantRecord>>| record.map_or(0, |record| fingerprint::of(&(name, record)));
        let before = match record {
            Some(record) => shard.insert(name.into(), Arc::new(record)),
            None => shard.remove(name),
        };
        let after = shard.get(name);
        let difference = of(after).wrapping_sub(of(before.as_ref()));
        let (before, after) = (before.is_some(), after.is_some());
        slot.store(Arc::new(shard));
        self.fingerprint.fetch_add(difference, Ordering::Relaxed);
        match (before, after) {
            (false, true) => self.count.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.count.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Calls `f` with every tenant, in no order.
    pub fn each(&self, mut f: impl FnMut(&str, &Arc<TenantRecord>)) {
        for shard in &self.shards {
            shard.load().iter().for_each(|(name, record)| f(name, record));
        }
    }

    /// Calls `f` once for each distinct record, with the name of a tenant that has it.
    pub fn each_distinct(&self, mut f: impl FnMut(&str, &TenantRecord)) {
        let mut seen = HashSet::new();
        self.each(|name, record| {
            if seen.insert(Arc::as_ptr(record)) {
                f(name, record);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_tier(tier: &str) -> TenantRecord {
        TenantRecord {
            tier: Some(tier.into()),
            ..TenantRecord::default()
        }
    }

    #[test]
    fn a_change_is_seen_and_counted() {
        let mut builder = DirectoryBuilder::default();
        for number in 0..10_000 {
            let record = builder.share(of_tier(if number % 2 == 0 { "free" } else { "basic" }));
            assert!(builder.add(&format!("t{number}"), record));
        }
        assert!(!builder.add("t7", Arc::default()));
        let directory = builder.finish();
        assert_eq!((directory.len(), directory.changes()), (10_000, 1));
        assert_eq!(*directory.get("t7").unwrap(), of_tier("basic"));
        assert_eq!(directory.get("x"), None);
        let mut distinct = 0;
        directory.each_distinct(|_, _| distinct += 1);
        assert_eq!(distinct, 2);
        directory.set("t7", Some(of_tier("premium")));
        directory.set("new", Some(of_tier("free")));
        directory.set("t8", None);
        assert_eq!((directory.len(), directory.changes()), (10_000, 4));
        assert_eq!(*directory.get("t7").unwrap(), of_tier("premium"));
        assert_eq!(directory.get("t8"), None);
        let mut other = DirectoryBuilder::default();
        directory.each(|name, record| assert!(other.add(name, Arc::clone(record))));
        assert_eq!(directory.fingerprint(), other.finish().fingerprint());
        let mut all = 0;
        directory.each(|_, _| all += 1);
        assert_eq!(all, 10_000);
    }
}
