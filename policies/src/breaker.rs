//! Stops calling a backend that keeps failing: it can recover, and callers learn at once.
//!
//! Closed, calls flow and a rolling window counts their results. Open, none flow for a while. Then
//! half-open: as many probes at once as it takes successes to close; one failure reopens, for longer
//! each time where the settings say so.
//!
//! Invariant: a result counts only in the generation it began in; every change of state starts a new
//! one. A place for a probe is given back exactly once, judged or not. While open, nothing flows.
//!
//! Knows nothing of HTTP: what a failure is, the caller says. Admission while closed is one load, a
//! result one compare-and-swap; locks are taken only for probes, to open and to force.

use crate::moment::Moment;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};
use std::sync::Arc;
use std::time::Duration;

mod chance;
mod latencies;
mod probes;
mod settings;
mod state;
mod verdict;
mod window;

pub use probes::Asker;
pub use settings::{AdaptiveRule, BreakerSettings, SlowCalls};
pub use state::{Cause, ForcedState, Generation, State, Transition};

use latencies::Latencies;
use probes::Probes;
use settings::SettingsInForce;
use state::Word;
use window::{PackedCounts, Tag, Window};

#[derive(Debug)]
pub struct Breaker {
    word: AtomicU64,
    settings: SettingsInForce,
    window: Window,
    /// Failures since the last success.
    streak: PackedCounts,
    latencies: Latencies,
    seed: u64,
    /// Failed probes in a row that have reopened it. Written under `opening` alone, before `word` says open.
    reopenings: AtomicU32,
    /// While open: until when, in nanoseconds. Written under `opening` alone, before `word` says open.
    open_until: AtomicU64,
    opening: Mutex<()>,
    /// Why it is in its state, for whoever looks: the number of the last change's cause, or 0.
    cause: AtomicU32,
    /// Locked before `opening`. While it is, no place for a probe is taken or given back.
    probes: Mutex<Probes>,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The time to the next probe. Zero in half-open, where all probes are under way and the next may
    /// be free at any moment; the usual open time while forced open, which has no end of its own.
    pub retry_in: Duration,
    pub why: Why,
}

/// Why nothing is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The open time is not over.
    Open,
    ForcedOpen,
    /// Half-open, with as many probes under way as may be.
    ProbesUnderWay,
    /// Half-open, with as many of this tenant's own unfinished requests under way as there may be probes.
    OwnProbesUnderWay,
}

/// How an admitted call ended, as far as it says something about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success {
        took: Duration,
    },
    Failure {
        took: Duration,
    },
    /// It says nothing: the caller left, or our own rules ended it.
    Ignored,
}

/// The right to make one call. Hand it to [`Breaker::record`]; dropped unjudged it says nothing, and
/// gives a probe's place back.
#[must_use = "an admitted call is recorded"]
#[derive(Debug)]
pub struct Permit {
    generation: Generation,
    /// The breaker that counts it, and its number there; only a probe has one.
    probe: Option<(Arc<Breaker>, u64)>,
    began: Option<Transition>,
}

/// What is known of the present generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Results in the rolling window, and how many of them were failures or slow.
    pub calls: u64,
    pub failures: u64,
    pub slow: u64,
    pub consecutive_failures: u64,
    /// How often in a row a failed probe has opened it again.
    pub reopenings: u32,
    /// Probes that have a place.
    pub probes_under_way: u32,
    /// Probes that have none: their callers owe a part of them, or others asked for the place.
    pub probes_without_place: u32,
    pub probe_successes: u32,
}

impl Breaker {
    /// Closed, with nothing counted.
    pub fn new(settings: BreakerSettings) -> Breaker {
        Breaker::seeded(settings, 0)
    }

    /// The same, with a `seed` for the jitter that differs from those of its replicas.
    pub fn seeded(settings: BreakerSettings, seed: u64) -> Breaker {
        Breaker {
            word: AtomicU64::new(Word::new(State::Closed, Generation::FIRST).bits()),
            settings: SettingsInForce::new(settings),
            window: Window::default(),
            streak: PackedCounts::default(),
            latencies: Latencies::default(),
            seed,
            reopenings: AtomicU32::new(0),
            open_until: AtomicU64::new(0),
            opening: Mutex::new(()),
            cause: AtomicU32::new(0),
            probes: Mutex::default(),
        }
    }

    /// May a call be made now?
    pub fn admit(self: &Arc<Self>, now: Moment) -> Result<Permit, Open> {
        self.admit_from(Asker::default(), now)
    }

    /// May this one make a call now?
    pub fn admit_from(self: &Arc<Self>, asker: Asker, now: Moment) -> Result<Permit, Open> {
        let word = self.word();
        match word.state() {
            State::Closed | State::ForcedClosed => Ok(Permit::of_a_call(word)),
            State::ForcedOpen => Err(self.forced_open()),
            State::Open | State::HalfOpen => self.admit_probe(asker, now),
        }
    }

    fn admit_probe(self: &Arc<Self>, asker: Asker, now: Moment) -> Result<Permit, Open> {
        let mut probes = lock(&self.probes);
        let mut word = self.word();
        loop {
            let generation = word.generation();
            let (next, began) = match word.state() {
                State::Closed | State::ForcedClosed => return Ok(Permit::of_a_call(word)),
                State::ForcedOpen => return Err(self.forced_open()),
                State::Open => {
                    let left = self.open_for_another(word, now);
                    if !left.is_zero() {
                        return Err(Open {
                            retry_in: left,
                            why: Why::Open,
                        });
                    }
                    let probing = Word::new(State::HalfOpen, generation.next());
                    let began = Transition::between(word, probing, now, Cause::OpenTimeOver);
                    (if asker.is_whole { probing.with_probe() } else { probing }, Some(began))
                }
                State::HalfOpen => (self.with_probe_of(asker, word, &mut probes)?, None),
            };
            // Where the place is another's, or none is taken, nothing changes.
            let replaced = if next == word { Ok(()) } else { self.replace(word, next) };
            match replaced {
                Ok(()) => {
                    if let Some(began) = began {
                        self.note(began.cause);
                    }
                    let number = probes.begin(next.generation(), asker.tenant, asker.is_whole);
                    return Ok(Permit {
                        generation: next.generation(),
                        probe: Some((Arc::clone(self), number)),
                        began,
                    });
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// The word with one more probe in half-open. A tenant without a place has one as long as there is one for each
    /// success that it takes, or as another tenant has two.
    fn with_probe_of(&self, asker: Asker, word: Word, probes: &mut Probes) -> Result<Word, Open> {
        let (generation, limit) = (word.generation(), self.settings.probes());
        let refused = |why| {
            Err(Open {
                retry_in: Duration::ZERO,
                why,
            })
        };
        if !asker.is_whole {
            let own = probes.without_place(generation, Some(asker.tenant));
            return if own < limit {
                Ok(word)
            } else {
                refused(Why::OwnProbesUnderWay)
            };
        }
        let has_none = !probes.has_place(generation, asker.tenant);
        if word.has_place_for_probe(limit) || has_none && word.probes() < limit {
            Ok(word.with_probe())
        } else if has_none && probes.take_from_the_richest(generation) {
            Ok(word)
        } else {
            refused(Why::ProbesUnderWay)
        }
    }

    fn forced_open(&self) -> Open {
        Open {
            retry_in: self.settings.open_for(),
            why: Why::ForcedOpen,
        }
    }

    /// Judges a call by its outcome. Returns the change of state that this result made, if it did.
    pub fn record(&self, mut permit: Permit, outcome: Outcome, now: Moment) -> Option<Transition> {
        let (took, failed) = match outcome {
            Outcome::Success { took } => (took, false),
            Outcome::Failure { took } => (took, true),
            Outcome::Ignored => return None,
        };
        let generation = permit.generation;
        // From here on the place is given back by judging it.
        let judged = permit.probe.take().map(|(_, number)| {
            let mut probes = lock(&self.probes);
            let has_place = probes.end(number);
            (probes, has_place)
        });
        let has_place = judged.as_ref().is_some_and(|(_, has_place)| *has_place);
        let word = self.word();
        if word.generation() != generation {
            return None;
        }
        let slow = self.settings.is_slow(took);
        let width = self.settings.slice_nanos();
        self.window.add(
            generation,
            width,
            now,
            window::Result {
                call: true,
                failed,
                slow,
            },
        );
        self.count_streak(generation, failed);
        if let Some(window) = self.settings.latency_window() {
            self.latencies.add(generation, window, took);
        }
        match word.state() {
            State::HalfOpen if failed || slow => self.open(generation, now, Cause::ProbeFailed),
            State::HalfOpen => self.probe_succeeded(generation, has_place, now),
            State::Closed if failed || slow || self.window.has_recent_fault(width, now) => {
                self.open(generation, now, self.verdict(generation, now)?)
            }
            _ => None,
        }
    }

    /// A call that was recorded as a success has failed after all: its body broke off. One more
    /// failure, but not one more call.
    pub fn late_failure(&self, generation: Generation, now: Moment) -> Option<Transition> {
        let word = self.word();
        if word.generation() != generation {
            return None;
        }
        let result = window::Result {
            call: false,
            failed: true,
            slow: false,
        };
        self.window.add(generation, self.settings.slice_nanos(), now, result);
        self.count_streak(generation, true);
        match word.state() {
            State::HalfOpen => self.open(generation, now, Cause::ProbeFailed),
            State::Closed => self.open(generation, now, self.verdict(generation, now)?),
            _ => None,
        }
    }

    /// Half-open from the moment on at which a probe would be admitted.
    pub fn state(&self, now: Moment) -> State {
        let word = self.word();
        match word.state() {
            State::Open if self.open_for_another(word, now).is_zero() => State::HalfOpen,
            state => state,
        }
    }

    /// The time to the first probe while it is open by its own judgement; otherwise there is none to wait for.
    pub fn retry_in(&self, now: Moment) -> Option<Duration> {
        let word = self.word();
        (word.state() == State::Open).then(|| self.open_for_another(word, now))
    }

    /// What made it the state that it is in; nothing if it has never changed.
    pub fn cause(&self) -> Option<Cause> {
        Cause::of_number(self.cause.load(Ordering::Relaxed))
    }

    pub fn counts(&self, now: Moment) -> Counts {
        let word = self.word();
        let sums = self.window.sums(word.generation(), self.settings.slice_nanos(), now);
        Counts {
            calls: sums.calls,
            failures: sums.failures,
            slow: sums.slow,
            consecutive_failures: self.streak.count(Tag::of_generation(word.generation())),
            reopenings: match word.state() {
                State::Open | State::HalfOpen => self.reopenings.load(Ordering::Relaxed),
                State::Closed | State::ForcedOpen | State::ForcedClosed => 0,
            },
            probes_under_way: word.probes(),
            probes_without_place: match word.state() {
                State::HalfOpen => lock(&self.probes).without_place(word.generation(), None),
                _ => 0,
            },
            probe_successes: word.successes(),
        }
    }

    /// What the adaptive rule goes by; nothing while it is off, or has not seen enough calls in this state.
    pub fn mean_latency(&self) -> Option<Duration> {
        self.latencies
            .mean(self.word().generation(), self.settings.latency_window()?)
    }

    /// Opens or closes it whatever the results, until [`unforce`](Breaker::unforce).
    pub fn force(&self, forced: ForcedState, now: Moment) -> Option<Transition> {
        let (state, cause) = match forced {
            ForcedState::Open => (State::ForcedOpen, Cause::Forced),
            ForcedState::Closed => (State::ForcedClosed, Cause::Forced),
        };
        self.change(now, cause, |word| (word.state() != state).then_some(state))
    }

    /// Back to its own judgement: closed, with nothing counted.
    pub fn unforce(&self, now: Moment) -> Option<Transition> {
        self.change(now, Cause::Unforced, |word| {
            matches!(word.state(), State::ForcedOpen | State::ForcedClosed).then_some(State::Closed)
        })
    }

    /// Other settings from now on; state and counts stay. An open time that has become shorter ends
    /// sooner.
    pub fn reconfigure(&self, settings: BreakerSettings, now: Moment) {
        let before = self.settings.slice_nanos();
        self.settings.store(settings);
        let after = self.settings.slice_nanos();
        if before != after {
            self.window.resize(self.word().generation(), before, after, now);
        }
    }

    /// The rest of the open time. It is never longer than all of it: where it seems to be, the clock
    /// has run backwards or the setting has shrunk, and the end is moved.
    fn open_for_another(&self, word: Word, now: Moment) -> Duration {
        let whole = || self.open_time(word.generation(), self.reopenings.load(Ordering::Acquire));
        let rest = Moment::from_nanos(self.open_until.load(Ordering::Acquire)).since(now);
        if rest.is_zero() || rest <= whole() {
            return rest;
        }
        let _opening = lock(&self.opening);
        let whole = whole();
        if self.word().generation() == word.generation() {
            self.open_until.store((now + whole).nanos(), Ordering::Release);
        }
        whole
    }

    /// How long a generation in which it is open lasts, by the settings as they are now.
    fn open_time(&self, generation: Generation, reopenings: u32) -> Duration {
        self.settings
            .open_time(reopenings, || chance::of(self.seed, generation))
    }

    fn open(&self, generation: Generation, now: Moment, cause: Cause) -> Option<Transition> {
        self.change(now, cause, |word| {
            (word.generation() == generation).then_some(State::Open)
        })
    }

    /// Changes to the state that `next` names, and starts a new generation.
    fn change(&self, now: Moment, cause: Cause, next: impl Fn(Word) -> Option<State>) -> Option<Transition> {
        let _opening = lock(&self.opening);
        let reopenings = self.reopenings.load(Ordering::Relaxed);
        let mut word = self.word();
        loop {
            let changed = Word::new(next(word)?, word.generation().next());
            if changed.state() == State::Open {
                let reopenings = match word.state() {
                    State::HalfOpen => reopenings.saturating_add(1),
                    _ => 0,
                };
                let until = now + self.open_time(changed.generation(), reopenings);
                self.reopenings.store(reopenings, Ordering::Release);
                self.open_until.store(until.nanos(), Ordering::Release);
            }
            match self.replace(word, changed) {
                Ok(()) => {
                    self.note(cause);
                    return Some(Transition::between(word, changed, now, cause));
                }
                Err(seen) => word = seen,
            }
        }
    }

    fn probe_succeeded(&self, generation: Generation, had_place: bool, now: Moment) -> Option<Transition> {
        let mut word = self.word();
        while word.generation() == generation {
            let closes = word.successes() + 1 >= self.settings.probes();
            let next = if closes {
                Word::new(State::Closed, generation.next())
            } else if had_place {
                word.without_probe().with_success()
            } else {
                word.with_success()
            };
            match self.replace(word, next) {
                Ok(()) if closes => {
                    self.note(Cause::ProbesSucceeded);
                    return Some(Transition::between(word, next, now, Cause::ProbesSucceeded));
                }
                Ok(()) => return None,
                Err(seen) => word = seen,
            }
        }
        None
    }

    fn give_place_back(&self, generation: Generation) {
        let mut word = self.word();
        while word.generation() == generation {
            match self.replace(word, word.without_probe()) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    fn count_streak(&self, generation: Generation, failed: bool) {
        let tag = Tag::of_generation(generation);
        if failed {
            self.streak.add(tag);
        } else if self.streak.count(tag) > 0 {
            self.streak.reset(tag);
        }
    }

    fn note(&self, cause: Cause) {
        self.cause.store(cause.number(), Ordering::Relaxed);
    }

    fn word(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    fn replace(&self, word: Word, by: Word) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(word.bits(), by.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Word::from_bits)
    }
}

impl Permit {
    /// While it is closed.
    const fn of_a_call(word: Word) -> Permit {
        Permit {
            generation: word.generation(),
            probe: None,
            began: None,
        }
    }

    /// For news that arrives after the outcome: [`Breaker::late_failure`].
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The change from open to half-open, if this admission made it.
    pub fn began(&self) -> Option<Transition> {
        self.began
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((breaker, number)) = self.probe.take() {
            let mut probes = lock(&breaker.probes);
            if probes.end(number) {
                breaker.give_place_back(self.generation);
            }
        }
    }
}

#[cfg(test)]
mod tests;
