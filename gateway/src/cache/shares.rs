//! A store of bounded weight that several owners share equally. When it is full, each owner may hold as much as any
//! other; space that one owner does not use is available to the others.
//!
//! Invariant: an owner's share is the whole weight divided by the number of owners that hold anything. An owner within
//! its share loses nothing to another owner. Expired values are evicted first. Next comes a value of the inserting owner,
//! if the new value takes that owner above its share, otherwise of the heaviest owner: its oldest one that was not used
//! since it was stored or last passed over (second chance, an approximation of the least recently used).
//!
//! Looking a value up changes a flag only, so that many threads may do it at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use policies::Moment;

/// Values that one eviction passes over at most, which bounds the time that the store is locked.
const SECOND_CHANCES: usize = 32;

pub(super) struct Shares<K, V> {
    entries: HashMap<K, Entry<V>>,
    owners: HashMap<u64, Holding<K>>,
    /// Owners sorted by held weight, the heaviest last.
    by_weight: BTreeSet<(u64, u64)>,
    /// Entries sorted by expiry, then by arrival.
    by_expiry: BTreeMap<(Moment, u64), K>,
    weight: u64,
    most: u64,
    /// Counter of insertions and of second chances. Orders entries by their age.
    turn: u64,
}

/// Owner, weight and expiry of a stored value.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredEntry {
    pub(super) owner: u64,
    pub(super) weight: u64,
    pub(super) expires: Moment,
}

struct Entry<V> {
    value: V,
    owner: u64,
    weight: u64,
    expires: (Moment, u64),
    /// Turn of the insertion, or of the last second chance.
    turn: u64,
    /// Whether the value was used since then.
    is_used: AtomicBool,
}

struct Holding<K> {
    weight: u64,
    /// Entries sorted by turn, the oldest first.
    by_turn: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V> Shares<K, V> {
    pub(super) fn new(most: u64) -> Self {
        Self {
            entries: HashMap::new(),
            owners: HashMap::new(),
            by_weight: BTreeSet::new(),
            by_expiry: BTreeMap::new(),
            weight: 0,
            most,
            turn: 0,
        }
    }

    /// Stores a value until it expires and replaces an earlier value of this key, if the owner may hold that much.
    /// Returns the values that are gone, so that the caller can drop them outside the lock, and how many of them were
    /// evicted. A refused value is returned as well.
    pub(super) fn insert(&mut self, now: Moment, key: K, value: V, lot: StoredEntry) -> (Vec<V>, u64) {
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        if lot.weight > self.most {
            gone.push(value);
            return (gone, 0);
        }
        let mut evicted = 0;
        while self.weight + lot.weight > self.most {
            match self.gives_way(now, &lot).and_then(|key| self.remove(&key)) {
                Some(value) => {
                    gone.push(value);
                    evicted += 1;
                }
                None => {
                    gone.push(value);
                    return (gone, evicted);
                }
            }
        }
        self.turn += 1;
        let turn = self.turn;
        let expires = (lot.expires, turn);
        let entry = Entry {
            value,
            owner: lot.owner,
            weight: lot.weight,
            expires,
            turn,
            is_used: AtomicBool::new(false),
        };
        self.entries.insert(key.clone(), entry);
        self.by_expiry.insert(expires, key.clone());
        self.weight += lot.weight;
        self.change(lot.owner, |holding| {
            holding.weight += lot.weight;
            holding.by_turn.insert(turn, key);
        });
        (gone, evicted)
    }

    /// Returns a value and marks it as used.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let entry = self.entries.get(key)?;
        // Only a change is written, so that the threads that read one value do not contend for it.
        if !entry.is_used.load(Relaxed) {
            entry.is_used.store(true, Relaxed);
        }
        Some(&entry.value)
    }

    /// Changes the whole weight, and returns what no longer has room.
    pub(super) fn resize(&mut self, now: Moment, most: u64) -> Vec<V> {
        self.most = most;
        let mut gone = Vec::new();
        let nothing = StoredEntry {
            owner: u64::MAX,
            weight: 0,
            expires: now,
        };
        while self.weight > self.most {
            let Some(value) = self.gives_way(now, &nothing).and_then(|key| self.remove(&key)) else {
                break;
            };
            gone.push(value);
        }
        gone
    }

    /// Returns the keys of the values for which `is` is true.
    pub(super) fn keys_where(&self, is: impl Fn(&V) -> bool) -> impl Iterator<Item = &K> {
        let entries = self.entries.iter();
        entries.filter(move |(_, entry)| is(&entry.value)).map(|(key, _)| key)
    }

    pub(super) const fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn owners(&self) -> usize {
        self.owners.len()
    }

    /// Chooses the entry to evict. `None` if no entry may be evicted.
    fn gives_way(&mut self, now: Moment, lot: &StoredEntry) -> Option<K> {
        if let Some(((expires, _), key)) = self.by_expiry.first_key_value()
            && *expires < now
        {
            return Some(key.clone());
        }
        let held = self.owners.get(&lot.owner).map_or(0, |holding| holding.weight);
        let owners = self.owners.len() as u64 + u64::from(held == 0);
        let share = self.most / owners;
        if lot.weight > share && self.weight - held + lot.weight > self.most {
            // A value larger than a share must not evict other owners' values. Nothing is evicted for a value that
            // would not fit anyway.
            return None;
        }
        let owner = if held > 0 && held + lot.weight > share {
            lot.owner
        } else {
            // This owner stays within its share, so another owner is above its share.
            self.by_weight.last()?.1
        };
        let by_turn = &mut self.owners.get_mut(&owner)?.by_turn;
        for _ in 0..SECOND_CHANCES {
            let (_, key) = by_turn.first_key_value()?;
            let entry = self.entries.get_mut(key)?;
            if !std::mem::take(entry.is_used.get_mut()) {
                return Some(key.clone());
            }
            self.turn += 1;
            let (_, key) = by_turn.pop_first()?;
            by_turn.insert(self.turn, key);
            entry.turn = self.turn;
        }
        by_turn.first_key_value().map(|(_, key)| key.clone())
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.by_expiry.remove(&entry.expires);
        self.weight -= entry.weight;
        self.change(entry.owner, |holding| {
            holding.weight -= entry.weight;
            holding.by_turn.remove(&entry.turn);
        });
        Some(entry.value)
    }

    /// Changes the holding of an owner and updates the indexes.
    fn change(&mut self, owner: u64, change: impl FnOnce(&mut Holding<K>)) {
        let holding = self.owners.entry(owner).or_insert_with(|| Holding {
            weight: 0,
            by_turn: BTreeMap::new(),
        });
        self.by_weight.remove(&(holding.weight, owner));
        change(holding);
        if holding.by_turn.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.by_weight.insert((holding.weight, owner));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    const fn lot(owner: u64, weight: u64) -> StoredEntry {
        StoredEntry {
            owner,
            weight,
            expires: Moment::MAX,
        }
    }

    /// Stores a value of this weight under each key in turn.
    fn fill(shares: &mut Shares<u32, u32>, owner: u64, weight: u64, keys: impl IntoIterator<Item = u32>) {
        for key in keys {
            shares.insert(at(0), key, key, lot(owner, weight));
        }
    }

    fn kept(shares: &Shares<u32, u32>, keys: impl IntoIterator<Item = u32>) -> Vec<u32> {
        keys.into_iter()
            .filter(|key| shares.entries.contains_key(key))
            .collect()
    }

    #[test]
    fn one_owner_has_it_all_until_others_come() {
        let mut shares = Shares::new(100);
        fill(&mut shares, 1, 10, 0..20);
        assert_eq!(kept(&shares, 0..20), (10..20).collect::<Vec<_>>(), "the latest");
        fill(&mut shares, 2, 10, 100..103);
        assert_eq!(kept(&shares, 10..200), [13, 14, 15, 16, 17, 18, 19, 100, 101, 102]);
        // The second owner gets up to its half, and no more.
        fill(&mut shares, 2, 10, 103..120);
        assert_eq!(kept(&shares, 0..20), [15, 16, 17, 18, 19]);
        assert_eq!(kept(&shares, 100..120), [115, 116, 117, 118, 119]);
    }

    #[test]
    fn a_flood_takes_nothing_from_those_within_their_share() {
        let mut shares = Shares::new(100);
        fill(&mut shares, 1, 10, [1]);
        fill(&mut shares, 2, 10, [2, 3]);
        fill(&mut shares, 9, 1, 1_000..9_000);
        fill(&mut shares, 9, 25, 10_000..10_100);
        assert_eq!(kept(&shares, 0..10), [1, 2, 3]);
    }

    #[test]
    fn what_was_used_goes_last() {
        let mut shares = Shares::new(30);
        fill(&mut shares, 1, 10, 0..3);
        assert_eq!(shares.get(&0), Some(&0));
        fill(&mut shares, 1, 10, [3]);
        assert_eq!(kept(&shares, 0..10), [0, 2, 3]);
        assert_eq!(shares.get(&1), None);
        // Storing a value again makes it the newest.
        fill(&mut shares, 1, 10, [2, 4]);
        assert_eq!(kept(&shares, 0..10), [2, 3, 4]);
    }

    #[test]
    fn what_has_expired_goes_first() {
        let mut shares = Shares::new(30);
        let short = StoredEntry {
            expires: at(10),
            ..lot(1, 10)
        };
        shares.insert(at(0), 1, 1, short);
        fill(&mut shares, 2, 10, [2]);
        shares.insert(at(0), 3, 3, short);
        shares.insert(at(10), 4, 4, lot(2, 10));
        assert_eq!(kept(&shares, 0..10), [1, 3, 4], "none has expired: its own goes");
        shares.insert(at(11), 5, 5, lot(2, 20));
        assert_eq!(kept(&shares, 0..10), [4, 5]);
    }

    #[test]
    fn what_is_more_than_a_share_is_kept_where_nobody_else_wants_it() {
        let mut shares = Shares::new(100);
        fill(&mut shares, 1, 101, [1]);
        fill(&mut shares, 1, 100, [2]);
        assert_eq!(kept(&shares, 0..10), [2]);
        for owner in 1..=20 {
            fill(&mut shares, owner, 5, [owner as u32 + 100]);
        }
        fill(&mut shares, 30, 10, [3]);
        assert!(kept(&shares, 0..10).is_empty());
        assert_eq!(kept(&shares, 100..200).len(), 20);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert {
            owner: u64,
            key: u32,
            weight: u64,
            lives: u64,
        },
        Get(u32),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let insert = (0..5u64, 0..40u32, 1..30u64, 1..100u64).prop_map(|(owner, key, weight, lives)| Step::Insert {
            owner,
            key: key * 5 + owner as u32,
            weight,
            lives,
        });
        let step = prop_oneof![
            6 => insert,
            3 => (0..200u32).prop_map(Step::Get),
            1 => (0..20u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn held(shares: &Shares<u32, u32>) -> HashMap<u64, u64> {
        let holdings = shares.owners.iter();
        holdings.map(|(owner, holding)| (*owner, holding.weight)).collect()
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Checks the limits, the indexes and the fairness after every insertion.
        #[test]
        fn nobody_loses_its_share_to_another(steps in steps()) {
            let mut shares: Shares<u32, u32> = Shares::new(100);
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Pass(seconds) => now += seconds,
                    Step::Get(key) => {
                        let has = shares.entries.contains_key(&key);
                        prop_assert_eq!(shares.get(&key).is_some(), has);
                    }
                    Step::Insert { owner, key, weight, lives } => {
                        let has_expired = shares.entries.values().any(|entry| entry.expires.0 < at(now));
                        let before = held(&shares);
                        let owners = before.len() as u64 + u64::from(!before.contains_key(&owner));
                        shares.insert(at(now), key, key, StoredEntry { owner, weight, expires: at(now + lives) });
                        let after = held(&shares);
                        for (other, held) in before.iter().filter(|(other, _)| **other != owner) {
                            let left = after.get(other).copied().unwrap_or(0);
                            prop_assert!(left == *held || *held > 100 / owners || has_expired, "{other} had {held}");
                        }
                        if weight <= 100 / owners {
                            prop_assert!(shares.entries.contains_key(&key), "within a share there is room");
                        }
                    }
                }
                let total: u64 = shares.entries.values().map(|entry| entry.weight).sum();
                prop_assert!(total <= 100 && total == shares.weight);
                prop_assert_eq!(shares.by_expiry.len(), shares.entries.len());
                prop_assert_eq!(shares.by_weight.len(), shares.owners.len());
                for (owner, holding) in &shares.owners {
                    let own = shares.entries.values().filter(|entry| entry.owner == *owner);
                    prop_assert_eq!(own.clone().map(|entry| entry.weight).sum::<u64>(), holding.weight);
                    prop_assert_eq!(own.count(), holding.by_turn.len());
                    prop_assert!(shares.by_weight.contains(&(holding.weight, *owner)));
                }
            }
        }
    }
}
