//! Fingerprints of entries: equal entries have equal ones, in every process of one version of the gateway.
//!
//! They tell an operator that two replicas have read different files. They prove nothing against an attacker, who could
//! make entries with one fingerprint.

use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Returns the fingerprint of an entry. Those of many entries are added up, wrapping, so that their order does not
/// matter.
pub fn of(entry: &impl Hash) -> u64 {
    let mut hasher = SipHasher13::new();
    entry.hash(&mut hasher);
    hasher.finish128().h1
}

/// Returns the part of a fingerprint that a number with a fraction holds exactly: 48 bits.
pub const fn shown(sum: u64) -> u64 {
    sum >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_matter_and_every_entry_does() {
        let sum = |entries: &[(&str, u32)]| entries.iter().map(of).fold(0, u64::wrapping_add);
        let first = sum(&[("acme", 1), ("globex", 2)]);
        assert_eq!(first, sum(&[("globex", 2), ("acme", 1)]));
        for other in [
            &[("acme", 1)][..],
            &[("acme", 2), ("globex", 2)],
            &[("acme", 2), ("globex", 1)],
        ] {
            assert_ne!(shown(first), shown(sum(other)), "{other:?}");
        }
        assert!(shown(u64::MAX) < 1 << 53);
    }
}
