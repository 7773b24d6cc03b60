//! Chooses the endpoint where a call is to wait least: the cost of an endpoint is its latency for each call ahead.
//!
//! The cost is `max(latency, floor) x (in flight / weight + 1)`, with the weights relative to their mean. So an idle
//! endpoint costs its latency, whatever its weight is, and under load the calls in flight are as the weights. Among
//! endpoints that cost almost the same, chance decides by weight; otherwise the first would get all calls of a quiet
//! backend.
//!
//! Up to 16 endpoints are all looked at. Of more, three are drawn: that is cheap, and three choices come close to all.
//!
//! Latency times calls starves a slow endpoint, so that nobody would notice when it is well again. Two rules prevent
//! that. An endpoint that is due gets the call. And one choice in twenty goes by weight alone, if that endpoint has less
//! to do than the cheapest one and nothing speaks against it.
//!
//! Invariant: a call that failed elsewhere is never spent on either rule.

use super::{Candidate, Class, Tried, best_class, by_weight, derive, fraction};

/// Largest number of endpoints of which all are looked at.
pub const SCAN_AT_MOST: usize = 16;
/// Number of endpoints drawn from more than that.
const DRAWS: usize = 3;
/// Latency below which endpoints do not differ, in nanoseconds.
const LATENCY_FLOOR: u64 = 1_000_000;
/// Costs within this factor of the lowest are as good as it.
const AS_GOOD: f64 = 1.1;
/// Share of the choices that go by weight alone.
const BY_WEIGHT: f64 = 0.05;

/// Chooses one of `count` candidates; `None` if all are out. `candidate` returns the candidate at an index below
/// `count`. `take_floor` is called for a candidate that is due and would be chosen for that; it returns whether the
/// call may go there, which is not so if another worker has just asked the endpoint.
pub fn choose(
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    take_floor: impl Fn(usize) -> bool,
    random: u64,
) -> Option<usize> {
    if count <= SCAN_AT_MOST {
        return Looked::at(0..count, &candidate).choose(take_floor, random);
    }
    let draw = |number| ((u128::from(derive(random, number as u64 + 8)) * count as u128) >> 64) as usize;
    let mut drawn = [0; DRAWS];
    for number in 0..DRAWS {
        let mut index = draw(number);
        // The draws are distinct: there are more candidates than draws.
        while drawn[..number].contains(&index) {
            index = (index + 1) % count;
        }
        drawn[number] = index;
    }
    let looked = Looked::at(drawn, &candidate);
    if looked.best_class() == Some(Class::BEST) {
        return looked.choose(take_floor, random);
    }
    // None of them is up and untried. So look for the best class among all, from a place by chance.
    let start = draw(DRAWS);
    let all = (0..count).map(|offset| (start + offset) % count);
    let best = best_class(all.clone().map(&candidate))?;
    let fitting = all.filter(|index| candidate(*index).class() == best);
    Looked::at(fitting.take(SCAN_AT_MOST), &candidate)
        .choose(take_floor, random)
        // A candidate may have changed between the two looks.
        .or_else(|| (0..count).find(|index| candidate(*index).class() != Class::NEVER))
}

/// Candidates as they were at one look; they may change while a choice is made.
struct Looked {
    candidates: [(usize, Candidate); SCAN_AT_MOST],
    count: usize,
}

impl Looked {
    fn at(indexes: impl IntoIterator<Item = usize>, candidate: impl Fn(usize) -> Candidate) -> Looked {
        let mut looked = Looked {
            candidates: [(0, Candidate::new(0)); SCAN_AT_MOST],
            count: 0,
        };
        for (place, index) in looked.candidates.iter_mut().zip(indexes) {
            *place = (index, candidate(index));
            looked.count += 1;
        }
        looked
    }

    fn all(&self) -> impl Iterator<Item = &(usize, Candidate)> + Clone {
        self.candidates[..self.count].iter()
    }

    fn best_class(&self) -> Option<Class> {
        best_class(self.all().map(|(_, candidate)| *candidate))
    }

    fn choose(&self, take_floor: impl Fn(usize) -> bool, random: u64) -> Option<usize> {
        let best = self.best_class()?;
        let fitting = self.all().filter(|(_, candidate)| candidate.class() == best);
        if fitting.clone().count() == 1 {
            return fitting.map(|(index, _)| *index).next();
        }
        let is_first_attempt = self.all().all(|(_, candidate)| candidate.tried == Tried::No);
        if is_first_attempt {
            let due = fitting.clone().filter(|(_, candidate)| candidate.due);
            let skipped = derive(random, 0) as usize % due.clone().count().max(1);
            let from_there = due.clone().skip(skipped).chain(due.take(skipped));
            if let Some(index) = from_there.map(|(index, _)| *index).find(|index| take_floor(*index)) {
                return Some(index);
            }
        }
        let scale = Scale::of(fitting.clone().map(|(_, candidate)| candidate));
        let lowest = fitting
            .clone()
            .map(|(_, candidate)| scale.cost(candidate))
            .fold(f64::INFINITY, f64::min);
        let as_good = fitting
            .clone()
            .filter(|(_, candidate)| scale.cost(candidate) <= lowest * AS_GOOD)
            .map(|(index, candidate)| (*index, candidate.effective_weight()));
        let cheapest = by_weight(as_good, fraction(derive(random, 1)))?;
        if !is_first_attempt || fraction(derive(random, 2)) >= BY_WEIGHT {
            return Some(cheapest);
        }
        let load_of = |wanted| {
            self.all()
                .find(|(index, _)| *index == wanted)
                .map_or(0.0, |(_, candidate)| {
                    f64::from(candidate.in_flight) / candidate.effective_weight()
                })
        };
        let known = fitting
            .filter(|(_, candidate)| !candidate.in_doubt)
            .map(|(index, candidate)| (*index, candidate.effective_weight()));
        by_weight(known, fraction(derive(random, 3)))
            .filter(|other| load_of(*other) < load_of(cheapest))
            .or(Some(cheapest))
    }
}

/// What a cost is measured by.
struct Scale {
    mean_weight: f64,
    /// Mean of the known latencies, in nanoseconds: what an endpoint is taken to need of which nothing is known.
    mean_latency: f64,
}

impl Scale {
    fn of<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Scale {
        let (mut count, mut weights, mut known, mut latencies) = (0.0, 0.0, 0.0, 0.0);
        for candidate in candidates {
            count += 1.0;
            weights += candidate.effective_weight();
            if candidate.latency > 0 {
                known += 1.0;
                latencies += candidate.latency as f64;
            }
        }
        Scale {
            mean_weight: weights / count,
            mean_latency: if known > 0.0 { latencies / known } else { 0.0 },
        }
    }

    fn cost(&self, candidate: &Candidate) -> f64 {
        let latency = match candidate.latency {
            0 => self.mean_latency,
            known => known as f64,
        };
        let weight = candidate.effective_weight() / self.mean_weight;
        latency.max(LATENCY_FLOOR as f64) * (f64::from(candidate.in_flight) / weight + 1.0)
    }
}
