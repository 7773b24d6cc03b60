//! Chooses the endpoint of an attempt among the endpoints of one backend: by load, in turn, or by the hash of a key.
//!
//! Each policy is a file of its own. All of them first take the best class of candidates: an endpoint that is up and was
//! not tried comes before one that is not up, and that one before one that was tried. A policy decides only within the
//! class.
//!
//! Invariant: a candidate that is [`Out`](Availability::Out) is never chosen; if another one exists, one is chosen. The
//! same candidates and the same random number give the same choice. A choice allocates nothing.
//!
//! Knows neither addresses nor names: a candidate is a few numbers, and the answer is its index.

pub mod endpoint_load;
pub mod hash;
pub mod latency;
pub mod load;
pub mod turn;

pub use endpoint_load::{Answer, EndpointLoad, LoadSettings};
pub use turn::Turns;

/// One row per policy: its name in the code and its word in configs.
macro_rules! policies {
    ($($(#[$meta:meta])* $policy:ident = $word:literal),+ $(,)?) => {
        /// Rule by which an endpoint is chosen.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Policy {
            $($(#[$meta])* $policy,)+
        }

        impl Policy {
            pub const ALL: [Policy; [$($word),+].len()] = [$(Policy::$policy),+];

            /// Returns the word for the policy in configs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Policy::$policy => $word,)+
                }
            }
        }
    };
}

policies! {
    /// Where a call is to wait least.
    #[default]
    Load = "load",
    /// In turn, as often as the weights say.
    Turn = "turn",
    /// By the hash of a key. A call without a key goes by load.
    Hash = "hash",
}

/// What a choice is made by, besides the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    pub policy: Policy,
    /// Turns of the candidates.
    pub turns: &'a Turns,
    /// Hash of the key of the call, by [`hash::of`].
    pub key: Option<u64>,
    pub random: u64,
}

impl Choice<'_> {
    /// Chooses one of `count` candidates; `None` if all are out. `candidate` returns the candidate at an index below
    /// `count`; `take_floor` is that of [`load::choose`].
    pub fn make(
        &self,
        count: usize,
        candidate: impl Fn(usize) -> Candidate,
        take_floor: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match (self.policy, self.key) {
            (Policy::Turn, _) => self.turns.choose(count, candidate, self.random),
            (Policy::Hash, Some(key)) => hash::choose(count, candidate, key),
            (Policy::Load | Policy::Hash, _) => load::choose(count, candidate, take_floor, self.random),
        }
    }

    /// Chooses for a request that must leave no trace in what other choices are made by: by the hash of its key, or else
    /// by chance and weight. It uses up no turn and no floor.
    pub fn make_aside(&self, count: usize, candidate: impl Fn(usize) -> Candidate) -> Option<usize> {
        match (self.policy, self.key) {
            (Policy::Hash, Some(key)) => hash::choose(count, candidate, key),
            (Policy::Load | Policy::Turn | Policy::Hash, _) => by_chance(count, candidate, self.random),
        }
    }
}

/// Chooses one of `count` candidates by chance, in proportion to the weights in force and whatever they hold; `None` if
/// all are out. `candidate` returns the candidate at an index below `count`. Changes nothing that another choice depends
/// on. `random` is any number.
fn by_chance(count: usize, candidate: impl Fn(usize) -> Candidate, random: u64) -> Option<usize> {
    let best = best_class((0..count).map(&candidate))?;
    let fitting = (0..count)
        .map(|index| (index, candidate(index)))
        .filter(|(_, candidate)| candidate.class() == best)
        .map(|(index, candidate)| (index, candidate.effective_weight()));
    by_weight(fitting, fraction(random))
        // A candidate may have changed between two looks.
        .or_else(|| (0..count).find(|index| candidate(*index).class() != Class::NEVER))
}

/// Endpoint as the policies see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub availability: Availability,
    pub tried: Tried,
    /// Weight from the config or from discovery, at least 1.
    pub weight: u32,
    /// Share of the weight that is in force, in `0.0..=1.0`: below 1 while the endpoint warms up.
    pub warm: f32,
    /// Calls that the endpoint has and has not finished, over all workers, those that wait for a connection included.
    pub in_flight: u32,
    /// Latency that a call is to expect, in nanoseconds; 0 if nothing is known yet.
    pub latency: u64,
    /// Whether the latency may be out of date because the endpoint has not been asked for a while.
    pub due: bool,
    /// Whether the endpoint failed last, asked for a pause, or does not answer as fast as it used to.
    pub in_doubt: bool,
    /// Hash of the endpoint's name, by [`hash::of`]; only [`hash::choose`] reads it.
    pub name: u64,
}

/// Says whether an endpoint may get a new call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Up,
    /// About to go, and still serving: it gets a call if no endpoint is up.
    Leaving,
    /// Ejected or down: it gets a call if no other endpoint is left.
    LastResort,
    /// Gets no call, whatever happens to the others.
    Out,
}

/// Says whether an earlier attempt of the same call went to the endpoint, and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    No,
    Before,
    Latest,
}

/// Class of a candidate; the lowest one is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Class(u8);

impl Class {
    const BEST: Class = Class(0);
    const NEVER: Class = Class(u8::MAX);
}

impl Candidate {
    /// Returns a candidate that is up, of weight 1, idle and unknown.
    pub const fn new(name: u64) -> Candidate {
        Candidate {
            availability: Availability::Up,
            tried: Tried::No,
            weight: 1,
            warm: 1.0,
            in_flight: 0,
            latency: 0,
            due: false,
            in_doubt: false,
            name,
        }
    }

    const fn class(&self) -> Class {
        use Availability::{LastResort, Leaving, Out, Up};
        Class(match (self.tried, self.availability) {
            (_, Out) => return Class::NEVER,
            (Tried::No, Up) => 0,
            (Tried::No, Leaving) => 1,
            (Tried::No, LastResort) => 2,
            (Tried::Before, Up) => 3,
            (Tried::Before, Leaving) => 4,
            (Tried::Latest, Up) => 5,
            (Tried::Latest, Leaving) => 6,
            (Tried::Before, LastResort) => 7,
            (Tried::Latest, LastResort) => 8,
        })
    }

    /// Returns the weight in force, above zero.
    fn effective_weight(&self) -> f64 {
        f64::from(self.weight.max(1)) * f64::from(self.warm.clamp(0.001, 1.0))
    }
}

/// Returns the best class among the candidates; `None` if all are out.
fn best_class(candidates: impl Iterator<Item = Candidate>) -> Option<Class> {
    let best = candidates.map(|candidate| candidate.class()).min()?;
    (best != Class::NEVER).then_some(best)
}

/// Chooses by chance, in proportion to the weights in force. `random` is in `0.0..1.0`.
fn by_weight(candidates: impl Iterator<Item = (usize, f64)> + Clone, random: f64) -> Option<usize> {
    let total: f64 = candidates.clone().map(|(_, weight)| weight).sum();
    let mut left = random * total;
    let mut last = None;
    for (index, weight) in candidates {
        last = Some(index);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    // Rounding may leave a rest behind the last candidate.
    last
}

/// Derives the `number`th of several random numbers from one: `SplitMix64` (Steele, Lea and Flood 2014).
const fn derive(random: u64, number: u64) -> u64 {
    mix(random.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Mixes all bits of a number into each bit of the result; the last step of `SplitMix64`.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Returns the number as a fraction in `0.0..1.0`, from its 53 highest bits.
const fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
