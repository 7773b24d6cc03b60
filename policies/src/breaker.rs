//! Stops calls to a backend that keeps failing, so that the backend can recover and callers get an answer at once.
//!
//! Closed: calls flow, and a rolling window counts their results. Open: no call flows for the open time. Half-open: the
//! breaker admits as many probes at once as successes are needed to close it. One failed probe opens it again, for a
//! longer time if the settings say so.
//!
//! Invariant: a result counts only in the generation in which its call began; every change of state starts a new
//! generation. Each place for a probe is given back exactly once, whether the probe is recorded or dropped. No call is
//! admitted while the breaker is open.
//!
//! This module knows nothing of HTTP: the code that calls [`Breaker::record`] decides what is a failure. Admission
//! while closed is one atomic load, and a result is one compare-and-swap. Locks are taken only for probes, to open the
//! breaker and to force its state.

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
pub use state::{Cause, ForcedState, Generation, SavedBreaker, SavedState, State, Transition};

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
    /// Number of failures since the last success.
    streak: PackedCounts,
    latencies: Latencies,
    seed: u64,
    /// Number of failed probes in a row that reopened the breaker. Written only under `opening`, before `word` says
    /// open.
    reopenings: AtomicU32,
    /// End of the open time, in nanoseconds. Written only under `opening`, before `word` says open.
    open_until: AtomicU64,
    opening: Mutex<()>,
    /// Number of the [`Cause`] of the last change of state; 0 if there was no change. For status pages only.
    cause: AtomicU32,
    /// Probes under way. Locked before `opening`. Only the holder of this lock takes or gives back a place for a probe.
    probes: Mutex<Probes>,
}

/// Refusal of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Time until the next probe. Zero in half-open: all probes are under way, and a place may become free at any
    /// moment. The configured open time while forced open, because that state has no end of its own.
    pub retry_in: Duration,
    pub why: Why,
}

/// Reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The open time is not over.
    Open,
    ForcedOpen,
    /// Half-open, and all places for probes are taken.
    ProbesUnderWay,
    /// Half-open, and this tenant has as many unfinished requests under way as there are places for probes.
    OwnProbesUnderWay,
}

/// Result of an admitted call, as far as it says something about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success {
        took: Duration,
    },
    Failure {
        took: Duration,
    },
    /// The result says nothing about the backend: the caller left, or a rule of the gateway ended the call.
    Ignored,
}

/// Permission to make one call. Pass it to [`Breaker::record`]. A permit that is dropped without a result counts for
/// nothing, and gives back its place for a probe.
#[must_use = "an admitted call is recorded"]
#[derive(Debug)]
pub struct Permit {
    generation: Generation,
    /// Breaker and number of the probe. `None` for a call that is not a probe.
    probe: Option<(Arc<Breaker>, u64)>,
    began: Option<Transition>,
}

/// Where the place of a probe comes from.
enum ProbePlace {
    /// It takes none, because its caller has not sent the whole request.
    None,
    Free,
    /// A tenant with more than one place loses one.
    OfAnother,
}

/// Counts of the current generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of results in the rolling window; the next two fields count how many of them were failures or slow.
    pub calls: u64,
    pub failures: u64,
    pub slow: u64,
    pub consecutive_failures: u64,
    /// Number of failed probes in a row that reopened the breaker.
    pub reopenings: u32,
    /// Number of probes that hold a place.
    pub probes_under_way: u32,
    /// Number of probes without a place: their callers have not sent the whole request yet, or another tenant took the
    /// place.
    pub probes_without_place: u32,
    pub probe_successes: u32,
}

impl Breaker {
    /// Returns a closed breaker with no results.
    pub fn new(settings: BreakerSettings) -> Breaker {
        Breaker::seeded(settings, 0)
    }

    /// Like [`Breaker::new`], with a `seed` for the jitter. Replicas of the gateway need different seeds.
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

    /// Admits a call now, or refuses it.
    pub fn admit(self: &Arc<Self>, now: Moment) -> Result<Permit, Open> {
        self.admit_from(Asker::default(), now)
    }

    /// Admits a call of this tenant now, or refuses it.
    pub fn admit_from(self: &Arc<Self>, asker: Asker, now: Moment) -> Result<Permit, Open> {
        let word = self.word();
        match word.state() {
            State::Closed | State::ForcedClosed => Ok(Permit::of_a_call(word)),
            State::ForcedOpen => Err(self.forced_open()),
            State::Open | State::HalfOpen => self.admit_probe(asker, now),
        }
    }

    /// Returns what [`admit_from`](Breaker::admit_from) would return now: whether the call would be a probe, or the
    /// refusal. Changes nothing.
    pub fn foresee(&self, asker: Asker, now: Moment) -> Result<bool, Open> {
        let probes = lock(&self.probes);
        let word = self.word();
        match word.state() {
            State::Closed | State::ForcedClosed => Ok(false),
            State::ForcedOpen => Err(self.forced_open()),
            State::Open => match self.open_for_another(word, now) {
                Duration::ZERO => Ok(true),
                retry_in => Err(Open {
                    retry_in,
                    why: Why::Open,
                }),
            },
            State::HalfOpen => self.place_of(asker, word, &probes).map(|_| true),
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
            // The word does not change if the probe took another tenant's place, or takes no place at all.
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

    /// Returns the word with one more probe in half-open. A tenant without a place gets one while places are free, or
    /// while another tenant has two. There are as many places as successes are needed to close.
    fn with_probe_of(&self, asker: Asker, word: Word, probes: &mut Probes) -> Result<Word, Open> {
        match self.place_of(asker, word, probes)? {
            ProbePlace::None => Ok(word),
            ProbePlace::Free => Ok(word.with_probe()),
            ProbePlace::OfAnother => {
                probes.take_from_the_richest(word.generation());
                Ok(word)
            }
        }
    }

    /// Returns where the place of one more probe in half-open comes from. Takes none.
    fn place_of(&self, asker: Asker, word: Word, probes: &Probes) -> Result<ProbePlace, Open> {
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
                Ok(ProbePlace::None)
            } else {
                refused(Why::OwnProbesUnderWay)
            };
        }
        let has_none = !probes.has_place(generation, asker.tenant);
        if word.has_place_for_probe(limit) || has_none && word.probes() < limit {
            Ok(ProbePlace::Free)
        } else if has_none && probes.richest(generation).is_some() {
            Ok(ProbePlace::OfAnother)
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

    /// Judges a call by its outcome. Returns the change of state that this result caused, if any.
    pub fn record(&self, mut permit: Permit, outcome: Outcome, now: Moment) -> Option<Transition> {
        let (took, failed) = match outcome {
            Outcome::Success { took } => (took, false),
            Outcome::Failure { took } => (took, true),
            Outcome::Ignored => return None,
        };
        let generation = permit.generation;
        // From here on the call to `end` gives the place back.
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

    /// Counts one more failure, but no further call: a call that was recorded as a success failed later, because its
    /// body broke off.
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

    /// Returns the state. An open breaker counts as half-open from the moment at which it would admit a probe.
    pub fn state(&self, now: Moment) -> State {
        let word = self.word();
        match word.state() {
            State::Open if self.open_for_another(word, now).is_zero() => State::HalfOpen,
            state => state,
        }
    }

    /// Returns the time until the first probe if the breaker opened because of results; `None` in every other state.
    pub fn retry_in(&self, now: Moment) -> Option<Duration> {
        let word = self.word();
        (word.state() == State::Open).then(|| self.open_for_another(word, now))
    }

    /// Returns the cause of the last change of state; `None` if the state never changed.
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

    /// Returns the mean latency that the adaptive rule uses. `None` while the rule is off, or has too few calls in this
    /// state.
    pub fn mean_latency(&self) -> Option<Duration> {
        self.latencies
            .mean(self.word().generation(), self.settings.latency_window()?)
    }

    /// Returns the state for another process with the same [`Moment::ZERO`]; `None` while the breaker is closed.
    pub fn saved(&self) -> Option<SavedBreaker> {
        let opening = lock(&self.opening);
        let state = match self.word().state() {
            State::Closed => return None,
            State::Open | State::HalfOpen => SavedState::Open {
                until: Moment::from_nanos(self.open_until.load(Ordering::Acquire)),
                reopenings: self.reopenings.load(Ordering::Relaxed),
            },
            State::ForcedOpen => SavedState::Forced(ForcedState::Open),
            State::ForcedClosed => SavedState::Forced(ForcedState::Closed),
        };
        drop(opening);
        Some(SavedBreaker {
            state,
            cause: self.cause(),
        })
    }

    /// Takes over the state of another process. A half-open breaker is open again, and its open time is over, so the
    /// next call is a probe.
    pub fn restore(&self, saved: SavedBreaker, now: Moment) -> Option<Transition> {
        let cause = saved.cause.unwrap_or(Cause::Forced);
        let changed = match saved.state {
            SavedState::Forced(ForcedState::Open) => self.change(now, cause, |_| Some(State::ForcedOpen)),
            SavedState::Forced(ForcedState::Closed) => self.change(now, cause, |_| Some(State::ForcedClosed)),
            SavedState::Open { .. } => self.change(now, cause, |_| Some(State::Open)),
        };
        if let SavedState::Open { until, reopenings } = saved.state {
            let _opening = lock(&self.opening);
            if self.word().state() == State::Open {
                self.reopenings.store(reopenings, Ordering::Release);
                self.open_until.store(until.nanos(), Ordering::Release);
            }
        }
        changed
    }

    /// Opens or closes the breaker regardless of results, until [`unforce`](Breaker::unforce).
    pub fn force(&self, forced: ForcedState, now: Moment) -> Option<Transition> {
        let (state, cause) = match forced {
            ForcedState::Open => (State::ForcedOpen, Cause::Forced),
            ForcedState::Closed => (State::ForcedClosed, Cause::Forced),
        };
        self.change(now, cause, |word| (word.state() != state).then_some(state))
    }

    /// Ends a forced state: the breaker is closed, with nothing counted.
    pub fn unforce(&self, now: Moment) -> Option<Transition> {
        self.change(now, Cause::Unforced, |word| {
            matches!(word.state(), State::ForcedOpen | State::ForcedClosed).then_some(State::Closed)
        })
    }

    /// Applies other settings from now on; state and counts stay. A shorter open time also shortens the one that is
    /// running.
    pub fn reconfigure(&self, settings: BreakerSettings, now: Moment) {
        let before = self.settings.slice_nanos();
        self.settings.store(settings);
        let after = self.settings.slice_nanos();
        if before != after {
            self.window.resize(self.word().generation(), before, after, now);
        }
    }

    /// Returns the rest of the open time, never more than the whole open time. If more seems to be left, the clock has
    /// run backwards or the setting has become shorter; then the end is moved.
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

    /// Returns the whole open time of this generation, by the current settings.
    fn open_time(&self, generation: Generation, reopenings: u32) -> Duration {
        self.settings
            .open_time(reopenings, || chance::of(self.seed, generation))
    }

    fn open(&self, generation: Generation, now: Moment, cause: Cause) -> Option<Transition> {
        self.change(now, cause, |word| {
            (word.generation() == generation).then_some(State::Open)
        })
    }

    /// Changes to the state that `next` returns, and starts a new generation.
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
    /// Returns the permit of a call that is not a probe.
    const fn of_a_call(word: Word) -> Permit {
        Permit {
            generation: word.generation(),
            probe: None,
            began: None,
        }
    }

    /// Returns the generation of the call, which [`Breaker::late_failure`] needs after the outcome.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Returns the change from open to half-open, if this admission caused it.
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
