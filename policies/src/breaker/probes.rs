//! Tracks the probes under way, so that no tenant keeps the places of all, neither by asking first nor by being slow.
//!
//! A probe holds a place while its backend works. A request whose caller has not sent all of it takes no place; its
//! result counts all the same. A tenant without a place is refused only if every place belongs to a different tenant.
//! If one tenant has two places, the newer one is given to the tenant without one; the call that lost its place goes on
//! and counts.
//!
//! The breaker locks this only while it is not closed. Its size is the number of probes under way.

use super::state::Generation;

/// Tenant that asks for a call, and how much of its request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub tenant: u64,
    /// Whether the whole request has arrived, so that only the backend can be slow.
    pub is_whole: bool,
}

impl Default for Asker {
    /// Returns tenant 0 with a whole request.
    fn default() -> Asker {
        Asker {
            tenant: 0,
            is_whole: true,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Probes of all generations, oldest first.
    under_way: Vec<Probe>,
    last: u64,
}

#[derive(Debug)]
struct Probe {
    number: u64,
    generation: Generation,
    tenant: u64,
    has_place: bool,
}

impl Probes {
    /// Returns the number of probes of this generation without a place; only those of `tenant` if one is given.
    pub(super) fn without_place(&self, generation: Generation, tenant: Option<u64>) -> u32 {
        let counts = |probe: &&Probe| !probe.has_place && tenant.is_none_or(|tenant| probe.tenant == tenant);
        self.of(generation).filter(counts).count() as u32
    }

    pub(super) fn has_place(&self, generation: Generation, tenant: u64) -> bool {
        self.places(generation, tenant) > 0
    }

    /// Begins a probe; returns its number.
    pub(super) fn begin(&mut self, generation: Generation, tenant: u64, has_place: bool) -> u64 {
        self.last += 1;
        self.under_way.push(Probe {
            number: self.last,
            generation,
            tenant,
            has_place,
        });
        self.last
    }

    /// Returns the tenant with the most places, if it has more than one.
    pub(super) fn richest(&self, generation: Generation) -> Option<u64> {
        let placed = |probe: &&Probe| probe.has_place;
        let richest = self
            .of(generation)
            .filter(placed)
            .map(|probe| probe.tenant)
            .max_by_key(|tenant| self.places(generation, *tenant));
        richest.filter(|tenant| self.places(generation, *tenant) > 1)
    }

    /// Takes the newest place from the tenant with the most places, if it has more than one.
    pub(super) fn take_from_the_richest(&mut self, generation: Generation) -> bool {
        let Some(richest) = self.richest(generation) else {
            return false;
        };
        let its_own = |probe: &&mut Probe| probe.generation == generation && probe.has_place && probe.tenant == richest;
        match self.under_way.iter_mut().rev().find(its_own) {
            Some(newest) => {
                newest.has_place = false;
                true
            }
            None => false,
        }
    }

    /// Ends a probe; returns whether it still had its place.
    pub(super) fn end(&mut self, number: u64) -> bool {
        let at = self.under_way.iter().position(|probe| probe.number == number);
        at.is_some_and(|at| self.under_way.remove(at).has_place)
    }

    fn of(&self, generation: Generation) -> impl Iterator<Item = &Probe> {
        self.under_way
            .iter()
            .filter(move |probe| probe.generation == generation)
    }

    fn places(&self, generation: Generation, tenant: u64) -> usize {
        self.of(generation)
            .filter(|probe| probe.has_place && probe.tenant == tenant)
            .count()
    }
}

#[cfg(test)]
mod tests;
