//! Derives the random number of an open time from a seed and the generation.
//!
//! Only an opening needs a random number, and openings are rare, so calls need not bring one. The number depends on
//! nothing but the seed and the generation. Hence the open time can be computed again and need not be stored.

use super::state::Generation;

/// Returns a number evenly distributed in `0.0..1.0`: the 53 highest bits of `SplitMix64`'s output (Steele, Lea and
/// Flood 2014).
pub(super) fn of(seed: u64, generation: Generation) -> f64 {
    let mut bits = seed.wrapping_add(generation.number().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_evenly_for_every_seed_and_over_the_generations_of_one() {
        let check = |draws: Vec<f64>| {
            let mut tenths = [0; 10];
            for draw in draws {
                tenths[(draw * 10.0) as usize] += 1;
            }
            assert!(tenths.iter().all(|count| (850..=1_150).contains(count)), "{tenths:?}");
        };
        check((0..10_000).map(|seed| of(seed, Generation::FIRST)).collect());
        let mut generation = Generation::FIRST;
        let mut next = || {
            generation = generation.next();
            of(7, generation)
        };
        check((0..10_000).map(|_| next()).collect());
    }

    /// First outputs of SplitMix64 for seed 0, as printed by its author's `splitmix64.c`.
    #[test]
    fn is_splitmix64() {
        let mut generation = Generation::FIRST;
        for output in [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f] {
            assert_eq!(of(0, generation), (output >> 11) as f64 / (1u64 << 53) as f64);
            generation = generation.next();
        }
    }
}
