//! Chooses the endpoint by the hash of a key, so that the calls of one key meet the same endpoint and find its caches
//! warm.
//!
//! Rendezvous hashing (Thaler and Ravishankar 1998): each endpoint gets a score from the key, its name and its weight,
//! and the highest score wins. When an endpoint comes or goes, only its own keys move. It needs no table. A load bound
//! keeps one popular key from drowning its endpoint (Mirrokni, Thorup and Zadimoghaddam 2018): an endpoint that holds
//! more than 1.25 times its fair share of the calls in flight, and at least four, is passed over for the next score.
//!
//! Invariant: as long as no endpoint is over the bound, the choice depends on the key and on the names, weights and
//! classes of the endpoints only. So all replicas of the gateway agree, and so do its restarts. Chance plays no part.

use super::{Candidate, Class, best_class, mix};

/// Most calls in flight at one endpoint, as a multiple of its fair share.
const BOUND: f64 = 1.25;
/// Calls in flight with which an endpoint is never over its bound. Without them, a quiet backend would move a key because
/// its last call has not quite ended.
const FEW: f64 = 4.0;

/// Returns the hash of a key or a name: 64-bit FNV-1a, its bits mixed by the last step of `SplitMix64`. It is the same
/// on each machine and in each version.
pub const fn of(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    mix(hash)
}

/// Chooses one of `count` candidates for a key with this hash; `None` if all are out. `candidate` returns the candidate
/// at an index below `count`.
pub fn choose(count: usize, candidate: impl Fn(usize) -> Candidate, key: u64) -> Option<usize> {
    let best = best_class((0..count).map(&candidate))?;
    let fitting = || {
        (0..count)
            .map(|index| (index, candidate(index)))
            .filter(|(_, candidate)| candidate.class() == best)
    };
    let (mut calls, mut weights) = (1.0, 0.0);
    for (_, candidate) in fitting() {
        calls += f64::from(candidate.in_flight);
        weights += candidate.effective_weight();
    }
    let has_room = |candidate: &Candidate| {
        let fair = calls * candidate.effective_weight() / weights;
        let few = FEW * candidate.effective_weight() / f64::from(candidate.weight.max(1));
        f64::from(candidate.in_flight) < (BOUND * fair).max(few).ceil()
    };
    let highest = |candidates: &mut dyn Iterator<Item = (usize, Candidate)>| {
        candidates
            .map(|(index, candidate)| (index, score(key, candidate.name, candidate.weight)))
            .max_by(|(one, left), (other, right)| left.total_cmp(right).then(other.cmp(one)))
            .map(|(index, _)| index)
    };
    highest(&mut fitting().filter(|(_, candidate)| has_room(candidate)))
        .or_else(|| highest(&mut fitting()))
        // A candidate may have changed between two looks.
        .or_else(|| (0..count).find(|index| candidate(*index).class() != Class::NEVER))
}

/// Returns a score that is the highest of all with a probability in proportion to the weight: `-weight / ln(u)`, with
/// `u` in `0.0..1.0` from the hash of key and name.
fn score(key: u64, name: u64, weight: u32) -> f64 {
    let hash = mix(key ^ name.rotate_left(32));
    let u = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(weight.max(1)) / u.ln()
}
