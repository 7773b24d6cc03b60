//! Adds up what an answer has shown of its cost, and decides what the request costs in the end.

use super::event_reader::Events;
use super::json_reader::Findings;
use super::path::MOST_SUMMANDS;
use super::{Metering, Reserved};

/// What an answer has shown so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The last value of each summand.
    values: [Option<u64>; MOST_SUMMANDS],
    /// Bytes of the answer.
    bytes: u64,
    /// Bytes of text in the event that has not ended.
    text: u64,
    /// Whether the event that has not ended said what was used.
    has_usage: bool,
    /// Units of text in the events since the last one that said what was used.
    since: u64,
    /// Whether any text was found.
    has_text: bool,
    /// Bytes per unit of text.
    per_unit: u64,
    form: Form,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events.
    #[default]
    Events,
    /// One JSON value after the other, each an event.
    Lines,
    /// Anything else. It was made whole before it began. Holds the length of its body in bytes, if it is known.
    Whole(Option<u64>),
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerEnd {
    /// With its last byte.
    Complete,
    /// Its backend broke off, or a time limit ended it.
    BrokeOff,
    /// Its caller left.
    CallerLeft,
}

/// What a settlement goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The backend said what was used.
    Usage,
    /// What was seen of the answer.
    Estimate,
    /// The whole reservation, because nobody can tell.
    Reservation,
    /// Nothing is owed.
    Refund,
}

/// What a request costs in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    pub units: u64,
    pub by: Source,
}

impl Settlement {
    /// The settlement of a request for which nothing is owed.
    pub const REFUND: Self = Self {
        units: 0,
        by: Source::Refund,
    };

    /// Returns the settlement of a request of which nobody can tell what was generated for it.
    pub const fn in_full(reserved: Reserved) -> Self {
        Self {
            units: reserved.units(),
            by: Source::Reservation,
        }
    }

    /// Returns the units that go back, of those that were reserved.
    pub const fn refunded(self, reserved: Reserved) -> u64 {
        reserved.units().saturating_sub(self.units)
    }

    /// Returns the units that are charged beyond those that were reserved.
    pub const fn beyond(self, reserved: Reserved) -> u64 {
        self.units.saturating_sub(reserved.units())
    }
}

impl Tally {
    pub(super) const fn new(metering: &Metering, form: Form) -> Self {
        Self {
            form,
            values: [None; MOST_SUMMANDS],
            bytes: 0,
            text: 0,
            has_usage: false,
            since: 0,
            has_text: false,
            per_unit: metering.reserve.bytes_per_unit.get(),
        }
    }

    pub(super) const fn pass(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Returns the sum of what the answer said was used; `None` if it said nothing.
    pub fn usage(&self) -> Option<u64> {
        let said = self.values.iter().flatten();
        said.copied().reduce(u64::saturating_add)
    }

    /// Returns the units of what was seen since the answer last said what was used. Without any text at the paths for it,
    /// all bytes count.
    fn seen(&self) -> u64 {
        if self.has_text {
            self.since.saturating_add(self.text.div_ceil(self.per_unit))
        } else {
            self.bytes.div_ceil(self.per_unit)
        }
    }

    /// Decides what a request costs whose answer has shown this. `is_good` is false for an answer with a status other than
    /// 2xx, for which nothing was generated unless it says so.
    ///
    /// What is estimated is at most the reservation. What the backend says counts as it is.
    pub fn settle(&self, reserved: Reserved, is_good: bool, end: AnswerEnd) -> Settlement {
        let most = reserved.units();
        let estimate = |units: u64| Settlement {
            units: units.min(most),
            by: Source::Estimate,
        };
        let by_usage = |units| Settlement {
            units,
            by: Source::Usage,
        };
        match (self.usage(), self.form, end) {
            // The usage of an answer that is no stream is that of all of it.
            (Some(units), _, AnswerEnd::Complete) | (Some(units), Form::Whole(_), _) => by_usage(units),
            (Some(units), ..) if !self.has_text || self.seen() == 0 => by_usage(units),
            (Some(units), ..) => Settlement {
                units: units.saturating_add(self.seen()).min(most.max(units)),
                by: Source::Estimate,
            },
            (None, ..) if !is_good => Settlement::REFUND,
            (None, Form::Whole(None), AnswerEnd::CallerLeft) => Settlement::in_full(reserved),
            (None, Form::Whole(Some(length)), AnswerEnd::CallerLeft) => {
                let generated = length.max(self.bytes).div_ceil(self.per_unit);
                estimate(reserved.prompt.saturating_add(generated))
            }
            (None, ..) => estimate(reserved.prompt.saturating_add(self.seen())),
        }
    }

    /// Ends an event. One with text, or that is JSON and says nothing else, counts as one unit at least.
    fn end(&mut self, counts: bool) {
        let text = std::mem::take(&mut self.text);
        if std::mem::take(&mut self.has_usage) {
            self.since = 0;
        } else if counts {
            self.since = self.since.saturating_add(text.div_ceil(self.per_unit).max(1));
        }
    }
}

impl Findings for Tally {
    fn number(&mut self, summand: usize, value: u64) {
        if let Some(place) = self.values.get_mut(summand) {
            *place = Some(value);
        }
        self.has_usage = true;
        self.text = 0;
        self.since = 0;
    }

    fn text(&mut self, bytes: u64) {
        self.text = self.text.saturating_add(bytes);
        self.has_text = true;
    }

    fn end_value(&mut self) {
        if self.form != Form::Events {
            self.end(true);
        }
    }
}

impl Events for Tally {
    fn end_event(&mut self, is_json: bool) {
        self.end(is_json);
    }
}
