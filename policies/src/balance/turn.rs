//! Chooses endpoints in turn, as often as their weights say: smooth weighted round robin, as nginx does.
//!
//! The order of the turns is made once for a set of endpoints, so a choice is one addition. The turns of a heavy
//! endpoint do not follow each other.
//!
//! Invariant: while all candidates are up, warm and untried, each gets its share of every full round exactly. The turn
//! of an endpoint that cannot be used is used up; otherwise the next one in the list would get all of those turns.

use super::{Candidate, Class, best_class, derive, fraction};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Most turns in a round. Larger weights are scaled down; each endpoint keeps at least one turn.
const MOST_TURNS: u64 = 4_096;

/// Order of the endpoints of one backend.
#[derive(Debug, Default)]
pub struct Turns {
    /// Indexes of the candidates.
    turns: Box<[u32]>,
    next: AtomicU64,
    /// Number of choices for which no turn gave a usable endpoint.
    out_of_turn: AtomicU64,
}

impl Turns {
    /// Returns the turns of endpoints with these weights, in the order of the candidates. `start` is the first turn;
    /// gateways that start at different turns do not ask the same endpoint at the same time.
    pub fn new(weights: &[u32], start: u64) -> Turns {
        let turns = spread(&scaled(weights));
        Turns {
            next: AtomicU64::new(start % (turns.len() as u64).max(1)),
            turns,
            out_of_turn: AtomicU64::new(0),
        }
    }

    /// Chooses one of `count` candidates, as many as there were weights; `None` if all are out. `candidate` returns the
    /// candidate at an index below `count`.
    pub fn choose(&self, count: usize, candidate: impl Fn(usize) -> Candidate, random: u64) -> Option<usize> {
        let in_turn = (0..count as u64)
            .filter_map(|number| Some((number, self.next_turn().filter(|index| *index < count)?)))
            .find(|(number, index)| {
                let candidate = candidate(*index);
                // An endpoint that warms up uses a part of its turns.
                candidate.class() == Class::BEST && fraction(derive(random, *number)) < f64::from(candidate.warm)
            });
        if let Some((_, index)) = in_turn {
            return Some(index);
        }
        // The turns of an unusable heavy endpoint can fill the whole window. The others then take equal shares.
        let best = best_class((0..count).map(&candidate))?;
        let fitting = || (0..count).filter(|index| candidate(*index).class() == best);
        let number = self.out_of_turn.fetch_add(1, Relaxed) as usize % fitting().count().max(1);
        fitting()
            .nth(number)
            // A candidate may have changed between two looks.
            .or_else(|| (0..count).find(|index| candidate(*index).class() != Class::NEVER))
    }

    fn next_turn(&self) -> Option<usize> {
        let turn = self.next.fetch_add(1, Relaxed) % (self.turns.len() as u64).max(1);
        self.turns.get(turn as usize).map(|index| *index as usize)
    }
}

/// Divides the weights by what they have in common, and scales them down until a round is short enough.
fn scaled(weights: &[u32]) -> Vec<u64> {
    let weights = weights.iter().map(|weight| u64::from(*weight).max(1));
    let common = weights.clone().fold(0, greatest_common_divisor).max(1);
    let total: u64 = weights.clone().sum::<u64>() / common;
    let most = MOST_TURNS.max(weights.len() as u64);
    weights
        .map(|weight| weight / common)
        .map(|weight| {
            if total > most {
                (weight * most / total).max(1)
            } else {
                weight
            }
        })
        .collect()
}

fn greatest_common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        greatest_common_divisor(other, one % other)
    }
}

/// Spreads the turns. In each turn every endpoint gains its weight as credit; the endpoint with the most credit is
/// chosen and pays the total weight.
fn spread(weights: &[u64]) -> Box<[u32]> {
    let total: u64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += *weight as i64;
        }
        let Some(richest) = (0..credit.len()).rev().max_by_key(|index| credit[*index]) else {
            break;
        };
        credit[richest] -= total as i64;
        turns.push(richest as u32);
    }
    turns.into()
}
