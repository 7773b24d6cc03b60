//! Counts results over a rolling window, without a lock and without clearing.
//!
//! The window is a ring of time slices. Each count holds its slice and generation in the same word. A count that is too
//! old or of another generation reads as zero, and the next result that needs its place replaces it.
//!
//! Invariant: a result of an earlier generation never appears in the counts of a later one.

use super::state::Generation;
use crate::moment::Moment;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Number of slices, a power of two, so that finding the place of a slice is cheap.
pub(super) const SLICES: u64 = 16;

#[derive(Debug, Default)]
pub(super) struct Window {
    slices: [Slice; SLICES as usize],
    /// Time at which the last failure or slow call was counted, in nanoseconds.
    last_fault: AtomicU64,
}

#[derive(Debug, Default)]
struct Slice {
    calls: PackedCounts,
    failures: PackedCounts,
    slow: PackedCounts,
}

/// Facts of a result that the window counts.
#[derive(Clone, Copy)]
pub(super) struct Result {
    pub(super) call: bool,
    pub(super) failed: bool,
    pub(super) slow: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

impl Window {
    /// Adds a result. `width` is the length of a slice, in nanoseconds.
    pub(super) fn add(&self, generation: Generation, width: u64, now: Moment, result: Result) {
        let number = now.nanos() / width;
        let tag = Tag::new(number, generation);
        let slice = self.slice(number);
        if result.call {
            slice.calls.add(tag);
        }
        if result.failed {
            slice.failures.add(tag);
        }
        if result.slow {
            slice.slow.add(tag);
        }
        if result.failed || result.slow {
            self.last_fault.store(now.nanos(), Relaxed);
        }
    }

    /// Returns whether the window may hold a failure or a slow call. If not, a success need not be judged.
    pub(super) fn has_recent_fault(&self, width: u64, now: Moment) -> bool {
        let last = Moment::from_nanos(self.last_fault.load(Relaxed));
        now.since(last) <= Duration::from_nanos(width.saturating_mul(SLICES))
    }

    pub(super) fn sums(&self, generation: Generation, width: u64, now: Moment) -> Sums {
        let newest = now.nanos() / width;
        let mut sums = Sums::default();
        for age in 0..SLICES.min(newest.saturating_add(1)) {
            let number = newest - age;
            let tag = Tag::new(number, generation);
            let slice = self.slice(number);
            sums.failures += slice.failures.count(tag);
            sums.slow += slice.slow.count(tag);
            sums.calls += slice.calls.count(tag);
        }
        // A late failure may still be in the window when its call is not.
        sums.calls = sums.calls.max(sums.failures).max(sums.slow);
        sums
    }

    /// Moves all counts into the newest slice of the new width, so that no result is forgotten. Results that are added
    /// at the same time may be lost.
    pub(super) fn resize(&self, generation: Generation, from: u64, to: u64, now: Moment) {
        let sums = self.sums(generation, from, now);
        for slice in &self.slices {
            for tally in [&slice.calls, &slice.failures, &slice.slow] {
                tally.clear();
            }
        }
        let number = now.nanos() / to;
        let tag = Tag::new(number, generation);
        let slice = self.slice(number);
        slice.calls.set(tag, sums.calls);
        slice.failures.set(tag, sums.failures);
        slice.slow.set(tag, sums.slow);
    }

    fn slice(&self, number: u64) -> &Slice {
        &self.slices[(number % SLICES) as usize]
    }
}

/// Count with its tag: tag (40 bits) | count (24 bits, saturates at 16 million).
#[derive(Debug, Default)]
pub(super) struct PackedCounts(AtomicU64);

/// Layout: number of the slice (30 bits) | generation (10 bits), both truncated. To be mistaken for another, a count
/// would have to stay untouched for years, or for a thousand changes of state within one slice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

const COUNT_BITS: u32 = 24;
const MOST: u64 = (1 << COUNT_BITS) - 1;
const GENERATION_BITS: u32 = 10;
const GENERATIONS: u64 = 1 << GENERATION_BITS;
const NUMBER_MASK: u64 = (1 << 30) - 1;

impl PackedCounts {
    /// Adds one to the count of `tag`, unless the count belongs to a later generation.
    pub(super) fn add(&self, tag: Tag) {
        let mut word = self.0.load(Relaxed);
        loop {
            let held = Tag(word >> COUNT_BITS);
            let count = if held == tag { word & MOST } else { 0 };
            if count == MOST || held.is_later_generation_than(tag) {
                return;
            }
            match self
                .0
                .compare_exchange_weak(word, tag.with(count + 1), Relaxed, Relaxed)
            {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    pub(super) fn count(&self, tag: Tag) -> u64 {
        let word = self.0.load(Relaxed);
        if Tag(word >> COUNT_BITS) == tag { word & MOST } else { 0 }
    }

    /// Sets the count to zero, unless it belongs to another tag.
    pub(super) fn reset(&self, tag: Tag) {
        let mut word = self.0.load(Relaxed);
        while Tag(word >> COUNT_BITS) == tag {
            match self.0.compare_exchange_weak(word, tag.with(0), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    fn set(&self, tag: Tag, count: u64) {
        self.0.store(tag.with(count.min(MOST)), Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

impl Tag {
    fn new(number: u64, generation: Generation) -> Tag {
        Tag(((number & NUMBER_MASK) << GENERATION_BITS) | (generation.number() % GENERATIONS))
    }

    /// Returns the tag of a count that does not age within a generation.
    pub(super) fn of_generation(generation: Generation) -> Tag {
        Tag::new(0, generation)
    }

    const fn with(self, count: u64) -> u64 {
        (self.0 << COUNT_BITS) | count
    }

    /// Returns whether this tag has a later generation than `other`, in circular order.
    const fn is_later_generation_than(self, other: Tag) -> bool {
        let ahead = self.0.wrapping_sub(other.0) % GENERATIONS;
        self.0 >> GENERATION_BITS == other.0 >> GENERATION_BITS && ahead > 0 && ahead < GENERATIONS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDTH: u64 = 1_000;
    const FAILED: Result = Result {
        call: true,
        failed: true,
        slow: false,
    };

    fn generation(number: u64) -> Generation {
        (0..number).fold(Generation::FIRST, |generation, _| generation.next())
    }

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn forgets_by_the_slice() {
        let check = |added: &[u64], now, expected| {
            let window = Window::default();
            added
                .iter()
                .for_each(|&nanos| window.add(Generation::FIRST, WIDTH, at(nanos), FAILED));
            assert_eq!(
                window.sums(Generation::FIRST, WIDTH, at(now)).failures,
                expected,
                "{added:?} at {now}"
            );
        };
        check(&[], 0, 0);
        check(&[0, 0, 999], 999, 3);
        check(&[0, 1_000], 15_999, 2);
        check(&[0, 1_000], 16_000, 1);
        check(&[0, 1_000], 17_000, 0);
        check(&[0, 16_000], 16_000, 1);
        check(&[50_000], 66_000, 0);
        // Time runs backwards: results of the future are not seen, and new results are.
        check(&[50_000], 40_000, 0);
        check(&[50_000, 40_000], 40_000, 1);
        check(&[50_000, 34_000], 34_000, 1);
    }

    #[test]
    fn another_generation_starts_from_nothing() {
        let window = Window::default();
        window.add(generation(1), WIDTH, at(5), FAILED);
        assert_eq!(window.sums(generation(2), WIDTH, at(5)), Sums::default());
        window.add(generation(2), WIDTH, at(5), FAILED);
        window.add(generation(1), WIDTH, at(5), FAILED);
        assert_eq!(window.sums(generation(2), WIDTH, at(5)).calls, 1);
    }

    #[test]
    fn a_count_stops_at_its_most() {
        let (tally, tag) = (PackedCounts::default(), Tag::new(7, generation(3)));
        tally.set(tag, MOST - 1);
        tally.add(tag);
        tally.add(tag);
        assert_eq!(tally.count(tag), MOST);
    }

    #[test]
    fn resizing_keeps_the_sums() {
        // With half the width, some new slices have the numbers of old ones.
        for width in [WIDTH / 7, WIDTH / 2, WIDTH * 3] {
            let window = Window::default();
            for slice in 0..12 {
                window.add(generation(4), WIDTH, at(slice * WIDTH), FAILED);
            }
            let now = at(11 * WIDTH);
            let before = window.sums(generation(4), WIDTH, now);
            window.resize(generation(4), WIDTH, width, now);
            assert_eq!(before.calls, 12);
            assert_eq!(window.sums(generation(4), width, now), before, "{width}");
        }
    }

    #[test]
    fn a_fault_is_recent_for_as_long_as_it_may_count() {
        let window = Window::default();
        window.add(Generation::FIRST, WIDTH, at(50_000), FAILED);
        window.add(
            Generation::FIRST,
            WIDTH,
            at(60_000),
            Result {
                failed: false,
                ..FAILED
            },
        );
        let check = |now, expected| assert_eq!(window.has_recent_fault(WIDTH, at(now)), expected, "{now}");
        check(50_000, true);
        check(66_000, true);
        check(66_001, false);
        check(40_000, true);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn counts_as_a_list_does(
            results in prop::collection::vec((0..3_000u64, any::<(bool, bool)>(), 0..40u8), 1..200),
        ) {
            let window = Window::default();
            let (mut list, mut now, mut change) = (vec![], 0, 0);
            for (pause, (failed, slow), changes) in results {
                now += pause;
                change += u64::from(changes == 0);
                window.add(generation(change), WIDTH, at(now), Result { call: true, failed, slow });
                list.push((now / WIDTH, change, failed, slow));
                let live = list.iter().filter(|of| of.0 + SLICES > now / WIDTH && of.1 == change);
                let expected = live.fold(Sums::default(), |sums, of| Sums {
                    calls: sums.calls + 1,
                    failures: sums.failures + u64::from(of.2),
                    slow: sums.slow + u64::from(of.3),
                });
                prop_assert_eq!(window.sums(generation(change), WIDTH, at(now)), expected);
                prop_assert!(expected.failures + expected.slow == 0 || window.has_recent_fault(WIDTH, at(now)));
            }
        }
    }
}
