//! Keeps how long the last calls took, and computes their mean: a ring that is written without a lock.
//!
//! Each entry carries its generation, so nothing has to be cleared when the state changes: entries of another
//! generation are ignored. The mean is computed on demand, which is when calls fail, and not on every call.

use super::state::Generation;
use crate::sync::{AtomicU64, OnceLock, Ordering::Relaxed};
use std::time::Duration;

/// Ring of latencies, allocated when the first call is added, because most breakers never need a mean.
#[derive(Debug, Default)]
pub(super) struct Latencies(OnceLock<Ring>);

#[derive(Debug)]
struct Ring {
    next: AtomicU64,
    entries: Box<[AtomicU64]>,
}

/// Longest window, in calls.
pub(super) const MOST: u32 = 1_000;

/// Layout of an entry: generation (33 bits) | microseconds (31 bits, saturates at 35 minutes).
const TIME_BITS: u32 = 31;
const LONGEST: u64 = (1 << TIME_BITS) - 1;

/// Entry that holds no call. Its generation is the last possible one, which is never reached.
const VACANT: u64 = u64::MAX;

impl Latencies {
    /// Adds a call. `window` is the number of calls that are kept, up to [`MOST`].
    pub(super) fn add(&self, generation: Generation, window: u32, took: Duration) {
        let ring = self.0.get_or_init(Ring::vacant);
        let position = ring.next.fetch_add(1, Relaxed) % u64::from(window);
        let micros = u64::try_from(took.as_micros()).map_or(LONGEST, |micros| micros.min(LONGEST));
        ring.entries[position as usize].store((generation.number() << TIME_BITS) | micros, Relaxed);
    }

    /// Returns the mean of the last `window` calls of this generation; `None` if there were fewer.
    pub(super) fn mean(&self, generation: Generation, window: u32) -> Option<Duration> {
        let ring = self.0.get()?;
        let mut sum = 0;
        for entry in &ring.entries[..window as usize] {
            let entry = entry.load(Relaxed);
            if entry >> TIME_BITS != generation.number() {
                return None;
            }
            sum += entry & LONGEST;
        }
        Some(Duration::from_micros(sum) / window)
    }
}

impl Ring {
    fn vacant() -> Ring {
        Ring {
            next: AtomicU64::new(0),
            entries: (0..MOST).map(|_| AtomicU64::new(VACANT)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_mean_is_of_a_full_window_of_one_generation() {
        let (first, second) = (Generation::FIRST, Generation::FIRST.next());
        let latencies = Latencies::default();
        let check = |generation, expected: Option<u64>| {
            assert_eq!(latencies.mean(generation, 3), expected.map(ms), "{generation:?}");
        };
        check(first, None);
        latencies.add(first, 3, ms(10));
        latencies.add(first, 3, ms(20));
        check(first, None);
        latencies.add(first, 3, ms(30));
        check(first, Some(20));
        latencies.add(first, 3, ms(70));
        check(first, Some(40));
        check(second, None);
        (0..3).for_each(|_| latencies.add(second, 3, ms(5)));
        check(second, Some(5));
        check(first, None);
    }

    #[test]
    fn the_longest_call_does_not_spill_into_the_generation() {
        let latencies = Latencies::default();
        latencies.add(Generation::FIRST, 1, Duration::MAX);
        assert_eq!(
            latencies.mean(Generation::FIRST, 1),
            Some(Duration::from_micros(LONGEST))
        );
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn is_the_mean_of_the_end_of_a_list(
            window in 1..=20u32, tooks in prop::collection::vec((0..10_000_000u64, 0..30u8), 0..100),
        ) {
            let latencies = Latencies::default();
            let (mut list, mut generation) = (vec![], Generation::FIRST);
            for (micros, changes) in tooks {
                if changes == 0 {
                    generation = generation.next();
                    list.clear();
                }
                latencies.add(generation, window, Duration::from_micros(micros));
                list.push(micros);
                let last = list.iter().rev().take(window as usize);
                let expected = (list.len() >= window as usize)
                    .then(|| Duration::from_micros(last.sum::<u64>()) / window);
                prop_assert_eq!(latencies.mean(generation, window), expected);
            }
        }
    }
}
