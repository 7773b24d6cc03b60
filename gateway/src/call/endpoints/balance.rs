//! Chooses among the endpoints of a backend by weighted round robin and leaves out endpoints that are not up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use policies::Moment;
use policies::balance::Availability;
use policies::health::WhenNoneIsUp;

use super::endpoint::{Endpoint, EndpointId};
use super::member::Readiness;
// Circle with `set`: turns are made of the entries of a set, and the set keeps its turns.
use super::set::Listed;

/// Maximum number of turns after which they repeat. Weights are scaled down to it.
const MOST_TURNS: u64 = 10_000;

/// Turns of the endpoints of a set, according to their weights.
#[derive(Default)]
pub(super) struct Turns {
    /// Indexes into the set, spread so that the turns of a heavy endpoint do not follow each other.
    turns: Box<[u16]>,
    next: AtomicUsize,
    /// Number of choices for which no turn gave a usable endpoint.
    out_of_turn: AtomicUsize,
}

impl Turns {
    /// Creates the turns of the ready endpoints, which come first in `all`; if there are none, of all.
    pub(super) fn new(all: &[Listed]) -> Self {
        let ready = all.iter().filter(|listed| listed.readiness == Readiness::Ready).count();
        let first = if ready == 0 { all.len() } else { ready };
        let weights: Vec<_> = all.iter().take(first).map(|listed| listed.weight).collect();
        Self {
            turns: spread(&weights),
            next: AtomicUsize::new(0),
            out_of_turn: AtomicUsize::new(0),
        }
    }

    /// Chooses the endpoint of an attempt, where the endpoints in `tried` have failed, the latest of them at the end.
    /// Prefers the next in turn that is ready, up and not tried, then one that only serves, then one that is not up and
    /// was not tried, then a tried one that is up and, if possible, not the latest. `none_up` says whether an endpoint
    /// that is not up may be chosen; one that is drained never is.
    pub(super) fn choose<'a>(
        &self,
        all: &'a [Listed],
        tried: &[EndpointId],
        none_up: WhenNoneIsUp,
        now: Moment,
    ) -> Option<&'a Arc<Endpoint>> {
        let may_get_calls = |listed: &&Listed| listed.endpoint.state(now).availability(none_up) != Availability::Out;
        if let [only] = all {
            return Some(only).filter(may_get_calls).map(|only| &only.endpoint);
        }
        let is_in = |listed: &&Listed| listed.endpoint.state(now).is_up();
        let is_untried = |listed: &&Listed| !tried.contains(&listed.endpoint.id());
        let fits = |listed: &&Listed| listed.readiness == Readiness::Ready && is_in(listed) && is_untried(listed);
        // A turn of an unusable endpoint is used up. Otherwise the next endpoint in the list would get all of those
        // turns.
        let in_turn = (0..all.len())
            .map(|_| self.next.fetch_add(1, Relaxed) % self.turns.len())
            .map(|turn| &all[usize::from(self.turns[turn])])
            .find(fits);
        let chosen = in_turn.or_else(|| {
            // The turns of an ejected heavy endpoint can fill the whole window. The other endpoints then take equal
            // shares.
            let number = self.out_of_turn.fetch_add(1, Relaxed);
            let one_of = |wanted: &dyn Fn(&&Listed) -> bool| {
                let wanted = |listed: &&Listed| wanted(listed) && may_get_calls(listed);
                let count = all.iter().filter(wanted).count();
                all.iter().filter(wanted).nth(number % count.max(1))
            };
            let is_another = |listed: &&Listed| tried.last().is_none_or(|last| *last != listed.endpoint.id());
            one_of(&fits)
                .or_else(|| one_of(&|listed| is_in(listed) && is_untried(listed)))
                .or_else(|| one_of(&is_untried))
                .or_else(|| one_of(&|listed| is_in(listed) && is_another(listed)))
                .or_else(|| one_of(&is_in))
                .or_else(|| one_of(&|_| true))
        });
        chosen.map(|listed| &listed.endpoint)
    }
}

/// Divides the weights by their greatest common divisor, and scales them down so that they add up to about
/// [`MOST_TURNS`] at most.
fn reduced(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
    let total: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let scaled = |weight: &u32| {
        let weight = u64::from(weight / divisor);
        let weight = if total > MOST_TURNS {
            weight * MOST_TURNS / total
        } else {
            weight
        };
        u32::try_from(weight).unwrap_or(u32::MAX).max(1)
    };
    weights.iter().map(scaled).collect()
}

const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Spreads turns by smooth weighted round robin, as nginx does. In each turn every endpoint gains its weight as credit;
/// the endpoint with the most credit is chosen and pays the total weight.
fn spread(weights: &[u32]) -> Box<[u16]> {
    let weights = reduced(weights);
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let mut credit = vec![0i64; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += i64::from(*weight);
        }
        let Some(richest) = (0..credit.len()).rev().max_by_key(|index| credit[*index]) else {
            break;
        };
        credit[richest] -= total;
        turns.push(u16::try_from(richest).expect("a set has at most 1,024 endpoints"));
    }
    turns.into()
}

#[cfg(test)]
mod tests;
