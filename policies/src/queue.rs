//! Orders waiters fairly between tiers, and between the tenants of a tier.
//!
//! Tiers are served in proportion to their weights by stride scheduling: the tier that has used the least for its
//! weight is next. The tenants of a tier are served in turn, and the waiters of a tenant in order of arrival. A tier or
//! tenant without waiters takes no turn, and saves no turns for later. A tenant that may not be served now is passed
//! over and keeps its turn.
//!
//! Invariant: more waiters of a tenant lengthen only that tenant's wait. This module knows nothing of slots or of time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// All tiers ever seen, with or without waiters: a tier that lost its pass by leaving for a moment would get more
    /// than its share. There are at most as many as the plan has.
    tiers: BTreeMap<u32, Tier<T>>,
    /// Pass of the tier that was served last. No tier has a lower pass.
    virtual_time: u64,
    next_number: u64,
    len: usize,
}

/// Tier and tenant whose turn a waiter uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) tier: u32,
    /// Weight of the tier, at least 1. The weight of the latest arrival holds for the whole tier.
    pub(crate) weight: u32,
    pub(crate) tenant: u64,
}

/// Position of a waiter in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuePosition {
    tier: u32,
    pub(crate) tenant: u64,
    number: u64,
}

#[derive(Debug)]
struct Tier<T> {
    weight: u32,
    /// Virtual time of the tier; grows by `STRIDE / weight` with each waiter served.
    pass: u64,
    next_turn: u64,
    /// Waiters by tenant; only tenants that have waiters.
    tenants: BTreeMap<u64, Line<T>>,
    /// Tenants by turn; the lowest turn is next.
    turns: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Line<T> {
    turn: u64,
    /// Waiters with their numbers, in rising order.
    waiters: VecDeque<(u64, T)>,
}

/// Virtual time of one turn at weight 1. Every weight up to 10 divides it without remainder.
const STRIDE: u64 = 2_520 << 20;

impl<T> FairQueue<T> {
    pub(crate) const fn new() -> FairQueue<T> {
        FairQueue {
            tiers: BTreeMap::new(),
            virtual_time: 0,
            next_number: 0,
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, party: Party, waiter: T) -> QueuePosition {
        let tier = self
            .tiers
            .entry(party.tier)
            .or_insert_with(|| Tier::new(self.virtual_time));
        tier.weight = party.weight.max(1);
        let number = self.next_number;
        tier.push(party.tenant, number, waiter);
        self.next_number += 1;
        self.len += 1;
        QueuePosition {
            tier: party.tier,
            tenant: party.tenant,
            number,
        }
    }

    /// Takes out the next waiter of a tenant that `may` be served. Waiters before it that are `gone` are passed to
    /// `drop_gone`; they use up neither a turn of their tenant nor of their tier.
    pub(crate) fn pop(
        &mut self,
        may: impl Fn(u64) -> bool,
        gone: impl Fn(&T) -> bool,
        mut drop_gone: impl FnMut(T),
    ) -> Option<T> {
        loop {
            let turns = self.tiers.values_mut().filter_map(|tier| {
                let turn = tier.next_turn_of(&may)?;
                Some((tier, turn))
            });
            let (tier, turn) = turns.min_by_key(|(tier, _)| tier.pass)?;
            let tenant = tier.turns.remove(&turn).expect("it is that of a tenant who waits");
            let line = tier.tenants.get_mut(&tenant).expect("who has a turn waits");
            let mut served = None;
            while let Some((_, waiter)) = line.waiters.pop_front() {
                self.len -= 1;
                if gone(&waiter) {
                    drop_gone(waiter);
                } else {
                    served = Some(waiter);
                    break;
                }
            }
            if line.waiters.is_empty() {
                tier.tenants.remove(&tenant);
            } else {
                line.turn = tier.next_turn;
                tier.turns.insert(tier.next_turn, tenant);
                tier.next_turn += 1;
            }
            if served.is_some() {
                let pass = tier.pass;
                tier.pass += STRIDE / u64::from(tier.weight);
                self.pass_by(pass);
                return served;
            }
        }
    }

    /// Raises all passes to this one after a tier was served, so that a tier whose tenants could not be served saves no
    /// turns.
    fn pass_by(&mut self, pass: u64) {
        self.virtual_time = pass;
        for tier in self.tiers.values_mut() {
            tier.pass = tier.pass.max(pass);
        }
    }

    /// Takes out the waiter at this place; `None` if it waits no longer.
    pub(crate) fn remove(&mut self, place: QueuePosition) -> Option<T> {
        let tier = self.tiers.get_mut(&place.tier)?;
        let waiters = &mut tier.tenants.get_mut(&place.tenant)?.waiters;
        let index = waiters
            .binary_search_by_key(&place.number, |(number, _)| *number)
            .ok()?;
        let (_, waiter) = waiters.remove(index)?;
        tier.forget_if_empty(place.tenant);
        self.len -= 1;
        Some(waiter)
    }

    /// Returns the waiter that should make room for a newcomer: the newest of the tenant that is furthest over its
    /// share. `None` if the newcomer's tenant would be as far over, or further, counting the newcomer.
    pub(crate) fn furthest_over_share(&self, newcomer: Party) -> Option<QueuePosition> {
        let is_new = |tier: &Tier<T>| !tier.tenants.contains_key(&newcomer.tenant);
        let own = match self.tiers.get(&newcomer.tier) {
            Some(tier) => {
                let waiting = tier.tenants.get(&newcomer.tenant).map_or(0, |line| line.waiters.len());
                Load::of(
                    waiting + 1,
                    tier.tenants.len() + usize::from(is_new(tier)),
                    newcomer.weight,
                )
            }
            None => Load::of(1, 1, newcomer.weight),
        };
        let mut furthest = (own, None);
        for (&id, tier) in &self.tiers {
            let joined = usize::from(id == newcomer.tier && is_new(tier));
            for (&tenant, line) in &tier.tenants {
                let load = Load::of(line.waiters.len(), tier.tenants.len() + joined, tier.weight);
                let is_own = (id, tenant) == (newcomer.tier, newcomer.tenant);
                if !is_own && load.cmp(&furthest.0) == Ordering::Greater {
                    let newest = line.waiters.back().map(|&(number, _)| QueuePosition {
                        tier: id,
                        tenant,
                        number,
                    });
                    furthest = (load, newest);
                }
            }
        }
        furthest.1
    }
}

impl<T> Tier<T> {
    const fn new(pass: u64) -> Tier<T> {
        Tier {
            weight: 1,
            pass,
            next_turn: 0,
            tenants: BTreeMap::new(),
            turns: BTreeMap::new(),
        }
    }

    /// Returns the first turn of a tenant that may be served.
    fn next_turn_of(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        let mut turns = self.turns.iter();
        turns.find(|(_, tenant)| may(**tenant)).map(|(turn, _)| *turn)
    }

    fn push(&mut self, tenant: u64, number: u64, waiter: T) {
        let line = self.tenants.entry(tenant).or_insert_with(|| {
            let turn = self.next_turn;
            self.next_turn += 1;
            self.turns.insert(turn, tenant);
            Line {
                turn,
                waiters: VecDeque::new(),
            }
        });
        line.waiters.push_back((number, waiter));
    }

    fn forget_if_empty(&mut self, tenant: u64) {
        if self.tenants.get(&tenant).is_some_and(|line| line.waiters.is_empty()) {
            let line = self.tenants.remove(&tenant).expect("it was there a line ago");
            self.turns.remove(&line.turn);
        }
    }
}

/// Waiters of a tenant in relation to its share of the queue: `waiting / (weight / tenants)`. The size of the queue and
/// the sum of the weights are the same for all, so they are left out. The first waiter of any tenant comes before the
/// second of another; otherwise a short queue would have no place for a tenant of little weight.
#[derive(Clone, Copy)]
struct Load {
    more_than_one: bool,
    waiting_times_tenants: u128,
    weight: u128,
}

impl Load {
    fn of(waiting: usize, tenants: usize, weight: u32) -> Load {
        Load {
            more_than_one: waiting > 1,
            waiting_times_tenants: waiting as u128 * tenants as u128,
            weight: u128::from(weight.max(1)),
        }
    }

    fn cmp(&self, other: &Load) -> Ordering {
        let shares = (self.waiting_times_tenants * other.weight).cmp(&(other.waiting_times_tenants * self.weight));
        self.more_than_one.cmp(&other.more_than_one).then(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the party of a letter. The letter is the tenant: a, b, c ... in tier 0 of weight 1; A, B, C ... in tier
    /// 1 of weight 4.
    fn party(name: char) -> Party {
        let tier = u32::from(name.is_ascii_uppercase());
        Party {
            tier,
            weight: 1 + 3 * tier,
            tenant: u64::from(name),
        }
    }

    fn queue(names: &str) -> FairQueue<char> {
        let mut queue = FairQueue::new();
        for name in names.chars() {
            queue.push(party(name), name);
        }
        queue
    }

    fn served(queue: &mut FairQueue<char>) -> String {
        std::iter::from_fn(|| queue.pop(|_| true, |_| false, |_| ())).collect()
    }

    #[test]
    fn serves_tenants_in_turn_and_tiers_by_weight() {
        let check = |waiting, expected| assert_eq!(served(&mut queue(waiting)), expected, "{waiting}");
        check("", "");
        check("aaa", "aaa");
        check("aaaab", "abaaa");
        check("aaabbc", "abcaba");
        check("aaaAAAAAAAA", "aAAAAaAAAAa");
        check("AAAAAAAAaaa", "aAAAAaAAAAa");
        check("ABABABABaab", "aABABbABABa");
    }

    #[test]
    fn who_leaves_saves_nothing_up() {
        let mut queue = queue("aaaaaaaa");
        for _ in 0..6 {
            queue.pop(|_| true, |_| false, |_| ());
        }
        for name in "AAAAAA".chars() {
            queue.push(party(name), name);
        }
        assert_eq!(served(&mut queue), "AAAAaAAa");
    }

    #[test]
    fn who_comes_back_at_once_gains_nothing() {
        let mut queue = queue("aAAAAAAAAAAAAAAA");
        let mut order = String::new();
        for _ in 0..15 {
            let name = queue.pop(|_| true, |_| false, |_| ()).unwrap();
            order.push(name);
            queue.push(party(name), name);
        }
        assert_eq!(order, "aAAAAaAAAAaAAAA");
    }

    #[test]
    fn the_gone_use_up_no_turn() {
        let mut queue = FairQueue::new();
        for (name, gone) in [
            ('a', true),
            ('a', true),
            ('b', true),
            ('a', false),
            ('b', false),
            ('a', false),
        ] {
            queue.push(party(name), (name, gone));
        }
        let mut dropped = String::new();
        let mut next = || {
            queue
                .pop(|_| true, |waiter| waiter.1, |waiter| dropped.push(waiter.0))
                .map(|waiter| waiter.0)
        };
        assert_eq!(
            [next(), next(), next(), next()],
            [Some('a'), Some('b'), Some('a'), None]
        );
        assert_eq!(dropped, "aab");
        assert_eq!(queue.len(), 0);
    }

    /// Serves all tenants except `held`, then all.
    #[test]
    fn who_may_not_be_served_is_passed_by_and_keeps_its_turn() {
        let check = |waiting, held: &str, others, then| {
            let mut queue = queue(waiting);
            let held: Vec<_> = held.chars().map(u64::from).collect();
            let passed = std::iter::from_fn(|| queue.pop(|tenant| !held.contains(&tenant), |_| false, |_| ()));
            assert_eq!(passed.collect::<String>(), others, "{waiting} without {held:?}");
            assert_eq!(served(&mut queue), then, "after {waiting} without {held:?}");
        };
        check("aabb", "a", "bb", "aa");
        check("aabbcc", "b", "acac", "bb");
        check("aabbcc", "abc", "", "abcabc");
        check("aAAAA", "a", "AAAA", "a");
        check("aaaAAAA", "A", "aaa", "AAAA");
    }

    #[test]
    fn a_tenant_that_was_passed_by_is_next() {
        let mut queue = queue("abcabc");
        let mut order = String::new();
        for turn in 0..6 {
            order.extend(queue.pop(|tenant| turn >= 3 || tenant != u64::from('a'), |_| false, |_| ()));
        }
        assert_eq!(order, "bcbaca");
    }

    #[test]
    fn a_tier_that_was_passed_by_saves_nothing_up() {
        let mut queue = queue("aaaaaaaaAAAAAAAA");
        for _ in 0..6 {
            queue.pop(|tenant| tenant == u64::from('a'), |_| false, |_| ());
        }
        assert_eq!(served(&mut queue), "AAAAaAAAAa");
    }

    #[test]
    fn the_newest_of_the_furthest_over_its_share_makes_room() {
        let check = |waiting, newcomer, expected: Option<char>, left| {
            let mut queue = queue(waiting);
            let displaced = queue
                .furthest_over_share(party(newcomer))
                .and_then(|place| queue.remove(place));
            assert_eq!(displaced, expected, "{newcomer} to {waiting}");
            assert_eq!(served(&mut queue), left);
        };
        check("aaaa", 'a', None, "aaaa");
        check("aaaa", 'b', Some('a'), "aaa");
        check("aabb", 'a', None, "abab");
        check("aab", 'b', None, "aba");
        check("aaab", 'b', Some('a'), "aba");
        check("abc", 'd', None, "abc");
        // The tier of weight 4 has four fifths of the places, the tier of weight 1 has one fifth.
        check("aaAAAA", 'A', Some('a'), "aAAAA");
        check("aAAAA", 'A', None, "aAAAA");
        check("AAAAA", 'a', Some('A'), "AAAA");
        // A tenant's first place comes before another tenant's second.
        check("AAAA", 'a', Some('A'), "AAA");
        check("AA", 'a', Some('A'), "A");
        check("A", 'a', None, "A");
        check("aAA", 'A', None, "aAA");
        check("a", 'A', Some('a'), "");
    }

    #[test]
    fn displaces_the_newest() {
        let mut queue = FairQueue::new();
        for number in 1..=3 {
            queue.push(party('a'), number);
        }
        let place = queue.furthest_over_share(party('b')).unwrap();
        assert_eq!(queue.remove(place), Some(3));
    }

    /// Returns how often each party was served while all tenants always have waiters.
    fn shares(parties: &[Party], servings: u32) -> Vec<f64> {
        let mut queue = FairQueue::new();
        for (index, party) in parties.iter().enumerate() {
            for _ in 0..3 {
                queue.push(*party, index);
            }
        }
        let mut shares = vec![0.0; parties.len()];
        for _ in 0..servings {
            let index = queue.pop(|_| true, |_| false, |_| ()).unwrap();
            shares[index] += 1.0;
            queue.push(parties[index], index);
        }
        shares
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn tiers_get_their_weights_and_tenants_the_same(
            tiers in prop::collection::vec((1..12u32, 1..6u64), 1..5),
        ) {
            let parties: Vec<_> = tiers.iter().enumerate().flat_map(|(tier, &(weight, tenants))| {
                (0..tenants).map(move |tenant| Party { tier: tier as u32, weight, tenant })
            }).collect();
            let servings = 5_000;
            let shares = shares(&parties, servings);
            let all_weights: u32 = tiers.iter().map(|tier| tier.0).sum();
            for (party, share) in parties.iter().zip(&shares) {
                let (weight, tenants) = tiers[party.tier as usize];
                let due = f64::from(servings) * f64::from(weight) / f64::from(all_weights) / tenants as f64;
                prop_assert!((share - due).abs() <= 2.0, "{party:?} got {share}, due {due}");
            }
        }

        /// Compares with the rule on a plain list. The weights divide 840, so that shares compare exactly.
        #[test]
        fn who_makes_room_is_furthest_over_its_share(
            steps in prop::collection::vec((0..4u8, 0..6u64, any::<prop::sample::Index>()), 1..60),
            newcomer in 0..12u64,
        ) {
            let party = |tenant: u64| Party { tier: tenant as u32 % 3, weight: [1, 3, 8][tenant as usize % 3], tenant };
            let mut queue = FairQueue::new();
            let mut waiting: Vec<(Party, QueuePosition)> = vec![];
            for (step, tenant, which) in steps {
                if step > 0 {
                    waiting.push((party(tenant), queue.push(party(tenant), ())));
                } else if !waiting.is_empty() {
                    let (_, place) = waiting.remove(which.index(waiting.len()));
                    prop_assert_eq!(queue.remove(place), Some(()));
                }
            }
            let newcomer = party(newcomer);
            let present: BTreeMap<(u32, u64), Party> = waiting
                .iter()
                .map(|(party, _)| *party)
                .chain([newcomer])
                .map(|party| ((party.tier, party.tenant), party))
                .collect();
            let over = |party: Party| {
                let places = waiting.iter().filter(|waiter| waiter.0 == party).count() + usize::from(party == newcomer);
                let sharers = present.keys().filter(|(tier, _)| *tier == party.tier).count();
                (places > 1, (places * sharers) as u32 * 840 / party.weight)
            };
            let most = present.values().map(|party| over(*party)).max().unwrap();
            let furthest = present.values().find(|party| over(**party) == most).filter(|_| over(newcomer) < most);
            let newest = furthest.map(|furthest| {
                waiting.iter().rev().find(|waiter| waiter.0 == *furthest).expect("it waits").1
            });
            prop_assert_eq!(queue.furthest_over_share(newcomer), newest);
        }

        /// Compares with plain lists: each waiter is served once, and each tenant's waiters in order.
        #[test]
        fn loses_no_one_and_serves_each_tenant_in_order(
            steps in prop::collection::vec((0..4u8, 0..6u64, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut queue = FairQueue::new();
            let mut naive: Vec<(QueuePosition, u64, usize)> = vec![];
            for (count, (step, tenant, which)) in steps.into_iter().enumerate() {
                let party = Party { tier: tenant as u32 % 2, weight: 1 + tenant as u32 % 2, tenant };
                match step {
                    0 | 1 => naive.push((queue.push(party, count), tenant, count)),
                    2 => {
                        let served = queue.pop(|_| true, |_| false, |_| ());
                        let index = naive.iter().position(|waiter| Some(waiter.2) == served);
                        prop_assert_eq!(index.is_none(), naive.is_empty());
                        if let Some(index) = index {
                            let tenant = naive[index].1;
                            prop_assert!(naive[..index].iter().all(|waiter| waiter.1 != tenant));
                            naive.remove(index);
                        }
                    }
                    _ if naive.is_empty() => {}
                    _ => {
                        let (place, _, waiter) = naive.remove(which.index(naive.len()));
                        prop_assert_eq!(queue.remove(place), Some(waiter));
                        prop_assert_eq!(queue.remove(place), None);
                    }
                }
                prop_assert_eq!(queue.len(), naive.len());
            }
        }
    }
}
