//! What a case's own breaker goes by, as far as it is not what ours goes by.
//!
//! It answers nothing: it tells whether a verdict of ours is about other results, or calls, than the case's is.

use std::time::Duration;

use policies::Moment;
use policies::breaker::{BreakerSettings, Counts};

pub(super) struct Law {
    pub(super) settings: BreakerSettings,
    pub(super) window: Window,
    /// A ratio of the calls admitted, asked after failures alone. Ours is of results, and asked after each.
    pub(super) of_admitted: bool,
    /// A probe whose result says nothing keeps its place. With us it gives it back.
    pub(super) keeps_places: bool,
    /// Half-open is judged by the rates once all results are in. With us one failed probe reopens.
    pub(super) half_open_by_rate: bool,
    /// Of the present generation, since it was last cleared.
    results: Vec<Entry>,
    /// Calls of which nothing is known but that they were admitted, and when.
    ignored: Vec<Moment>,
    /// When the generation began, or the window was last cleared.
    since: Moment,
}

/// What a window remembers of a generation.
pub(super) enum Window {
    Endless,
    /// The newest slices of so much time.
    Sliced {
        width: Duration,
        slices: u64,
        from_start: bool,
    },
    /// What came since it was cleared, which the first step after so much time does.
    Cleared {
        every: Duration,
    },
    /// The last so many results.
    Last(usize),
}

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) admitted: Moment,
    pub(super) ended: Moment,
    pub(super) failed: bool,
    pub(super) slow: bool,
}

impl Law {
    pub(super) fn new(settings: BreakerSettings, window: Window) -> Self {
        Self {
            settings,
            window,
            of_admitted: false,
            keeps_places: false,
            half_open_by_rate: false,
            results: Vec::new(),
            ignored: Vec::new(),
            since: Moment::ZERO,
        }
    }

    /// Starts from nothing.
    pub(super) fn begin(&mut self, now: Moment) {
        self.since = now;
        self.results.clear();
        self.ignored.clear();
    }

    /// Whether all is forgotten by `now`, and calls under way are of the past.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        matches!(self.window, Window::Cleared { every } if now > self.since + every)
    }

    pub(super) fn note(&mut self, result: Entry) {
        self.results.push(result);
    }

    pub(super) fn ignore(&mut self, admitted: Moment) {
        self.ignored.push(admitted);
    }

    pub(super) fn has_ignored(&self) -> bool {
        !self.ignored.is_empty()
    }

    /// Why a verdict of ours is not one about what the case's window holds, if it is not.
    pub(super) fn differs(&self, ours: &Counts, now: Moment) -> Option<&'static str> {
        let count = |is: fn(&&Entry) -> bool| self.remembered(now).filter(is).count() as u64;
        let held = [count(|_| true), count(|e| e.failed), count(|e| e.slow)];
        (held != [ours.calls, ours.failures, ours.slow]).then_some(match self.window {
            Window::Endless => "a window without end",
            Window::Sliced { .. } => "a window of other slices: ours has sixteen",
            Window::Cleared { .. } => "a window that is cleared at once: ours rolls",
            Window::Last(_) => "a window of the last calls: ours is one of time",
        })
    }

    /// Whether the case's breaker opens on the result noted last, with calls under way that were admitted then.
    pub(super) fn opens(&self, now: Moment, under_way: impl Iterator<Item = Moment>) -> bool {
        if let Some(most) = self.settings.consecutive {
            let streak = self.results.iter().rev().take_while(|result| result.failed);
            return streak.count() >= most.get() as usize;
        }
        let failures = self.remembered(now).filter(|result| result.failed).count() as u64;
        let slow = self.remembered(now).filter(|result| result.slow).count() as u64;
        let calls = if self.of_admitted {
            self.admitted(now, under_way)
        } else {
            self.remembered(now).count() as u64
        };
        let is_asked = !self.of_admitted || self.results.last().is_some_and(|result| result.failed);
        let reaches = |ratio: Option<policies::Ratio>, part| ratio.is_some_and(|ratio| ratio.reached_by(part, calls));
        is_asked
            && calls >= u64::from(self.settings.min_calls)
            && (reaches(self.settings.failure_ratio, failures)
                || reaches(self.settings.slow.map(|slow| slow.ratio), slow))
    }

    /// The calls that the case's window holds by when they were admitted.
    pub(super) fn admitted(&self, now: Moment, under_way: impl Iterator<Item = Moment>) -> u64 {
        let ended = self.results.iter().map(|result| result.admitted);
        let all = ended.chain(self.ignored.iter().copied()).chain(under_way);
        all.filter(|admitted| self.holds(*admitted, now)).count() as u64
    }

    fn remembered(&self, now: Moment) -> impl Iterator<Item = &Entry> {
        let gone = match self.window {
            Window::Last(size) => self.results.len().saturating_sub(size),
            _ => 0,
        };
        self.results[gone..]
            .iter()
            .filter(move |result| self.holds(result.ended, now))
    }

    fn holds(&self, moment: Moment, now: Moment) -> bool {
        let Window::Sliced {
            width,
            slices,
            from_start,
        } = self.window
        else {
            return true;
        };
        let start = if from_start { self.since } else { Moment::ZERO };
        let slice = |moment: Moment| moment.since(start).as_nanos() / width.as_nanos();
        slice(now).saturating_sub(slice(moment)) < u128::from(slices)
    }
}
