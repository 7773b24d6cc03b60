//! Who has probes under way: no caller keeps the places of all, neither by asking first nor by being slow.
//!
//! A place is held while the backend is at work. A request of which its caller owes a part takes none: its result
//! counts all the same. A tenant that has no place is refused only if every place is that of another tenant: where one
//! tenant has two, the newer one is given up, whose call goes on and counts.
//!
//! Locked by the breaker, and only while it is not closed. As long as the calls that are under way.

use super::state::Generation;

/// Who asks to be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub tenant: u64,
    /// Whether all of the request is there, so that the backend alone is waited for.
    pub is_whole: bool,
}

impl Default for Asker {
    /// One tenant, who sends whole requests.
    fn default() -> Asker {
        Asker {
            tenant: 0,
            is_whole: true,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Oldest first, of every generation that has some left.
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
    /// The probes of this generation that have no place; with a tenant, its own.
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

    /// Takes the newest place of the tenant that has most, if it has more than one.
    pub(super) fn take_from_the_richest(&mut self, generation: Generation) -> bool {
        let placed = |probe: &&Probe| probe.has_place;
        let richest = self
            .of(generation)
            .filter(placed)
            .map(|probe| probe.tenant)
            .max_by_key(|tenant| self.places(generation, *tenant));
        let Some(richest) = richest.filter(|tenant| self.places(generation, *tenant) > 1) else {
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

    /// Ends a probe; returns whether it had a place to the end.
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
