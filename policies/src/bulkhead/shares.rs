//! Counts the slots that each tenant holds, so that no tenant can hold them all.
//!
//! Fair turns divide a backend between tenants that ask at the same time. They do not keep a single tenant from taking
//! all slots with slow calls just before the others come. A cap on each tenant's share does, at the price of slots that
//! stay idle while only one tenant asks.
//!
//! Counting takes no lock: each tenant has a word in a table of fixed size. If two tenants meet in one word, the second
//! is counted apart, under the lock of the queue, while the first holds any slot. A flag in the word sends both tenants
//! to the lock until nothing is counted apart. So the counts are exact.
//!
//! Invariant: a slot that was counted when it was handed out is uncounted when it comes back. Without a cap nothing is
//! counted. Slots from before there was a cap are never counted.

use crate::ratio::Ratio;
use crate::sync::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Number of bits of the index into the table. Small under the interleaving checker, so that tenants meet.
#[cfg(loom)]
const INDEX_BITS: u32 = 1;
#[cfg(not(loom))]
const INDEX_BITS: u32 = 9;

pub(super) struct Shares {
    words: Box<[AtomicU64]>,
}

/// Counts of tenants that met another tenant in their word. Used under the lock of the queue.
#[derive(Default)]
pub(super) struct Apart {
    /// Slots by tenant, for tenants with at least one slot counted here.
    held: BTreeMap<u64, u32>,
}

/// Tenant of a counted slot, and where the slot is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) tenant: u64,
    pub(super) apart: bool,
}

/// Returns the most slots that one tenant may hold: its share, rounded down, but at least one. `None` if that is all
/// slots.
pub(super) fn tenant_cap(limit: NonZeroU32, share: Ratio) -> Option<NonZeroU32> {
    let slots = u64::from(limit.get()) * u64::from(share.millionths()) / u64::from(Ratio::ONE.millionths());
    let cap = NonZeroU32::new(slots as u32).unwrap_or(NonZeroU32::MIN);
    (cap < limit).then_some(cap)
}

/// Returns the largest share of the slots for one tenant where none is written: four fifths, which keeps room for others
/// even while they do not call. Of fewer than five slots it is all, because one kept back is too large a part.
pub const fn usual_tenant_share(slots: u32) -> Ratio {
    if slots < 5 { Ratio::ONE } else { FOUR_FIFTHS }
}

const FOUR_FIFTHS: Ratio = Ratio::from_millionths(800_000).expect("below a million");

impl Shares {
    pub(super) fn new() -> Shares {
        Shares {
            words: (0..1 << INDEX_BITS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts one more slot for the tenant if that stays within the cap, without the lock. Returns `false` also if the
    /// word alone cannot tell.
    pub(super) fn take(&self, tenant: u64, cap: NonZeroU32) -> bool {
        let (word, tag) = self.find(tenant);
        let mut seen = Word(word.load(Ordering::Acquire));
        loop {
            if seen.some_apart() || !seen.admits(tag) || seen.count_of(tag) >= cap.get() {
                return false;
            }
            match word.compare_exchange_weak(seen.0, seen.plus_one(tag).0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(other) => seen = Word(other),
            }
        }
    }

    /// Uncounts a slot that [`Shares::take`] has counted, without the lock.
    pub(super) fn give_back(&self, tenant: u64) {
        self.find(tenant).0.fetch_sub(Word::ONE, Ordering::AcqRel);
    }

    /// Returns whether the tenant's count exceeds the cap, without the lock.
    pub(super) fn exceeds(&self, tenant: u64, cap: NonZeroU32) -> bool {
        let (word, tag) = self.find(tenant);
        Word(word.load(Ordering::Acquire)).count_of(tag) > cap.get()
    }

    pub(super) fn has_room(&self, apart: &Apart, tenant: u64, cap: Option<NonZeroU32>) -> bool {
        cap.is_none_or(|cap| self.held(apart, tenant) < cap.get())
    }

    /// Counts one more slot if that stays within the cap. Called under the lock.
    pub(super) fn count_in(&self, apart: &mut Apart, tenant: u64, cap: NonZeroU32) -> Option<Counted> {
        let (word, tag) = self.find(tenant);
        let of_apart = apart.of(tenant);
        let mut seen = Word(word.load(Ordering::Acquire));
        loop {
            if seen.count_of(tag) + of_apart >= cap.get() {
                return None;
            }
            let here = seen.admits(tag);
            let next = if here {
                seen.plus_one(tag)
            } else {
                seen.with_some_apart()
            };
            match word.compare_exchange_weak(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if here => return Some(Counted { tenant, apart: false }),
                Ok(_) => {
                    *apart.held.entry(tenant).or_default() += 1;
                    return Some(Counted { tenant, apart: true });
                }
                Err(other) => seen = Word(other),
            }
        }
    }

    pub(super) fn count_out(&self, apart: &mut Apart, counted: Counted) {
        if !counted.apart {
            self.give_back(counted.tenant);
            return;
        }
        let held = apart
            .held
            .get_mut(&counted.tenant)
            .expect("what is counted out was counted in");
        *held -= 1;
        if *held == 0 {
            apart.held.remove(&counted.tenant);
            if !apart.held.keys().any(|other| index(*other) == index(counted.tenant)) {
                self.find(counted.tenant)
                    .0
                    .fetch_and(!Word::SOME_APART, Ordering::AcqRel);
            }
        }
    }

    fn held(&self, apart: &Apart, tenant: u64) -> u32 {
        let (word, tag) = self.find(tenant);
        Word(word.load(Ordering::Acquire)).count_of(tag) + apart.of(tenant)
    }

    /// Returns the tenant's word in the table, and the tag that marks the word as this tenant's.
    fn find(&self, tenant: u64) -> (&AtomicU64, u64) {
        (&self.words[index(tenant)], (tenant >> INDEX_BITS) & Word::MOST_TAG)
    }
}

fn index(tenant: u64) -> usize {
    (tenant & ((1 << INDEX_BITS) - 1)) as usize
}

impl Apart {
    fn of(&self, tenant: u64) -> u32 {
        self.held.get(&tenant).copied().unwrap_or(0)
    }
}

/// Layout: tag of the tenant (44 bits) | some slot is counted apart (1 bit) | slots (19 bits)
///
/// Tag and index together distinguish tenants by 53 bits of their number.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const ONE: u64 = 1;
    const COUNT_BITS: u32 = 19;
    const COUNT: u64 = (1 << Word::COUNT_BITS) - 1;
    const SOME_APART: u64 = 1 << Word::COUNT_BITS;
    const TAG_SHIFT: u32 = Word::COUNT_BITS + 1;
    const MOST_TAG: u64 = u64::MAX >> Word::TAG_SHIFT;

    const fn count(self) -> u32 {
        (self.0 & Word::COUNT) as u32
    }

    const fn tag(self) -> u64 {
        self.0 >> Word::TAG_SHIFT
    }

    const fn some_apart(self) -> bool {
        self.0 & Word::SOME_APART != 0
    }

    /// Returns whether this tenant can be counted in the word.
    const fn admits(self, tag: u64) -> bool {
        self.count() == 0 || self.tag() == tag
    }

    const fn count_of(self, tag: u64) -> u32 {
        if self.tag() == tag { self.count() } else { 0 }
    }

    const fn plus_one(self, tag: u64) -> Word {
        let rest = self.0 & (Word::SOME_APART | Word::COUNT);
        Word((tag << Word::TAG_SHIFT) | (rest + Word::ONE))
    }

    const fn with_some_apart(self) -> Word {
        Word(self.0 | Word::SOME_APART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_share_is_rounded_down_to_at_least_one_slot() {
        let check = |limit, share, expected| {
            let limit = NonZeroU32::new(limit).unwrap();
            let cap = tenant_cap(limit, Ratio::new(share).unwrap());
            assert_eq!(cap.map(NonZeroU32::get), expected, "{share} of {limit}");
        };
        check(10, 0.5, Some(5));
        check(10, 0.3, Some(3));
        check(9, 0.5, Some(4));
        check(10, 0.01, Some(1));
        check(10, 0.0, Some(1));
        check(10, 0.999_999, Some(9));
        check(10, 1.0, None);
        check(1, 0.5, None);
        check(u32::MAX, 0.5, Some(u32::MAX / 2));
        check(u32::MAX, 1.0, None);
    }

    #[test]
    fn two_who_meet_in_a_word_are_counted_each() {
        let (shares, mut apart, cap) = (Shares::new(), Apart::default(), NonZeroU32::new(2).unwrap());
        let (one, other) = (7, 7 + (1 << INDEX_BITS));
        assert!(shares.take(one, cap));
        assert!(!shares.take(other, cap), "it cannot be told without the lock");
        let first = shares.count_in(&mut apart, other, cap).unwrap();
        assert!(first.apart);
        assert!(!shares.take(one, cap), "nor can it be from now on");
        assert!(
            shares
                .count_in(&mut apart, one, cap)
                .is_some_and(|counted| !counted.apart)
        );
        assert!(shares.count_in(&mut apart, one, cap).is_none());
        shares.give_back(one);
        shares.give_back(one);
        // The word is free; both slots of the second tenant count for it.
        let second = shares.count_in(&mut apart, other, cap).unwrap();
        assert!(!second.apart && shares.count_in(&mut apart, other, cap).is_none());
        shares.count_out(&mut apart, first);
        assert!(shares.take(other, cap) && !shares.take(other, cap));
        assert!(shares.has_room(&apart, one, Some(cap)));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Compares the counts with a plain map. Many of the tenants meet in one word.
        #[test]
        fn counts_are_exact(
            steps in prop::collection::vec((0..6_u64, 0..3_u8, any::<prop::sample::Index>()), 1..200),
            cap in 1..4_u32,
        ) {
            let (shares, mut apart, cap) = (Shares::new(), Apart::default(), NonZeroU32::new(cap).unwrap());
            let (mut model, mut held) = (BTreeMap::<u64, u32>::new(), Vec::new());
            for (number, step, index) in steps {
                // Three tenants for each word, and two words.
                let tenant = (number % 2) | (number << INDEX_BITS);
                let count = model.entry(tenant).or_default();
                match step {
                    0 => {
                        if shares.take(tenant, cap) {
                            prop_assert!(*count < cap.get());
                            *count += 1;
                            held.push(Counted { tenant, apart: false });
                        }
                    }
                    1 => {
                        prop_assert_eq!(shares.has_room(&apart, tenant, Some(cap)), *count < cap.get());
                        let counted = shares.count_in(&mut apart, tenant, cap);
                        prop_assert_eq!(counted.is_some(), *count < cap.get());
                        *count += u32::from(counted.is_some());
                        held.extend(counted);
                    }
                    _ if held.is_empty() => {}
                    _ => {
                        let counted = held.swap_remove(index.index(held.len()));
                        shares.count_out(&mut apart, counted);
                        *model.get_mut(&counted.tenant).expect("it holds some") -= 1;
                    }
                }
            }
            for counted in held.drain(..) {
                shares.count_out(&mut apart, counted);
            }
            prop_assert!(apart.held.is_empty());
            for word in &shares.words {
                let word = Word(word.load(Ordering::Relaxed));
                prop_assert!(word.count() == 0 && !word.some_apart());
            }
        }
    }
}
