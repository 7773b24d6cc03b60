//! Packs a breaker's state into one word: the state, its generation and the counts of its probes.
//!
//! Invariant: a generation has one state from its beginning to its end.

use crate::moment::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls flow.
    Closed,
    Open,
    HalfOpen,
    ForcedOpen,
    ForcedClosed,
}

/// State set by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedState {
    Open,
    Closed,
}

/// State of a breaker that is not closed, for another process. Counts of calls are not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedBreaker {
    pub state: SavedState,
    pub cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedState {
    /// Open until this moment; half-open if it is over.
    Open {
        until: Moment,
        /// Number of failed probes in a row.
        reopenings: u32,
    },
    Forced(ForcedState),
}

/// Change of state, to be logged and counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub at: Moment,
    pub cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    FailureRatio,
    SlowRatio,
    ConsecutiveFailures,
    /// Adaptive rule, while fewer calls have been seen than the mean needs.
    AdaptiveFilling,
    /// Adaptive rule: calls fail, and their mean latency is above the threshold.
    AdaptiveLatency,
    /// Adaptive rule: so many calls fail that the latency does not matter.
    AdaptiveRatio,
    OpenTimeOver,
    ProbesSucceeded,
    ProbeFailed,
    Forced,
    Unforced,
}

impl Cause {
    const ALL: [Cause; 11] = [
        Cause::FailureRatio,
        Cause::SlowRatio,
        Cause::ConsecutiveFailures,
        Cause::AdaptiveFilling,
        Cause::AdaptiveLatency,
        Cause::AdaptiveRatio,
        Cause::OpenTimeOver,
        Cause::ProbesSucceeded,
        Cause::ProbeFailed,
        Cause::Forced,
        Cause::Unforced,
    ];

    /// Returns the number of the cause, from 1.
    pub const fn number(self) -> u32 {
        self as u32 + 1
    }

    /// Returns the cause of this number; `None` for 0 and for numbers without a cause.
    pub fn of_number(number: u32) -> Option<Cause> {
        Cause::ALL.get((number as usize).checked_sub(1)?).copied()
    }
}

/// Number of changes of state so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// Layout: generation (33 bits) | successes of probes (14) | probes under way (14) | state (3)
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

const STATE_BITS: u32 = 3;
const PROBE_BITS: u32 = 14;
const SUCCESSES_AT: u32 = STATE_BITS + PROBE_BITS;
const GENERATION_AT: u32 = SUCCESSES_AT + PROBE_BITS;

/// Largest number of probes that the word can hold.
pub(super) const MOST_PROBES: u32 = (1 << PROBE_BITS) - 1;

impl Generation {
    pub(super) const FIRST: Generation = Generation(0);

    pub(super) const fn next(self) -> Generation {
        Generation(self.0.wrapping_add(1) & (u64::MAX >> GENERATION_AT))
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

impl Word {
    pub(super) const fn new(state: State, generation: Generation) -> Word {
        Word((generation.0 << GENERATION_AT) | state as u64)
    }

    pub(super) const fn from_bits(bits: u64) -> Word {
        Word(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn state(self) -> State {
        match self.0 & ((1 << STATE_BITS) - 1) {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            3 => State::ForcedOpen,
            _ => State::ForcedClosed,
        }
    }

    pub(super) const fn generation(self) -> Generation {
        Generation(self.0 >> GENERATION_AT)
    }

    pub(super) const fn probes(self) -> u32 {
        (self.0 >> STATE_BITS) as u32 & MOST_PROBES
    }

    pub(super) const fn successes(self) -> u32 {
        (self.0 >> SUCCESSES_AT) as u32 & MOST_PROBES
    }

    /// Returns whether a probe may take a place. No more probes are under way than successes are still needed. One
    /// probe is always allowed, because a reload that lowers the limit must not keep the breaker from closing.
    pub(super) const fn has_place_for_probe(self, limit: u32) -> bool {
        self.probes() == 0 || self.probes() + self.successes() < limit
    }

    pub(super) const fn with_probe(self) -> Word {
        Word(self.0 + (1 << STATE_BITS))
    }

    pub(super) const fn without_probe(self) -> Word {
        Word(self.0 - (1 << STATE_BITS))
    }

    pub(super) const fn with_success(self) -> Word {
        Word(self.0 + (1 << SUCCESSES_AT))
    }
}

impl Transition {
    pub(super) const fn between(from: Word, to: Word, at: Moment, cause: Cause) -> Transition {
        Transition {
            from: from.state(),
            to: to.state(),
            at,
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_a_number_of_its_own() {
        for cause in Cause::ALL {
            assert_eq!(Cause::of_number(cause.number()), Some(cause));
        }
        assert_eq!(Cause::of_number(0), None);
        assert_eq!(Cause::of_number(Cause::ALL.len() as u32 + 1), None);
    }

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let last = Generation(u64::MAX >> GENERATION_AT);
        let states = [
            State::Closed,
            State::Open,
            State::HalfOpen,
            State::ForcedOpen,
            State::ForcedClosed,
        ];
        for state in states {
            let mut word = Word::new(state, last);
            for probes in 1..=MOST_PROBES {
                word = word.with_probe();
                assert_eq!(word.probes(), probes);
            }
            for successes in 1..=MOST_PROBES {
                word = word.without_probe().with_success();
                assert_eq!((word.successes(), word.probes()), (successes, MOST_PROBES - successes));
            }
            assert_eq!((word.state(), word.generation()), (state, last));
        }
        assert_eq!(last.next(), Generation::FIRST);
    }
}
