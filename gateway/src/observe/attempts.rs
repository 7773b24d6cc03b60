//! Keeps one entry for each attempt of a request: which endpoint was asked, when, and with what result. A call or part
//! for which nothing was sent has an entry too, which says why.
//!
//! An entry is added when its wait begins and completed as it goes on, so that a request whose caller leaves shows what
//! it was waiting for.
//!
//! Invariant: the list is bounded. Entries beyond the bound are counted, and the sums over all entries stay correct.

use std::sync::Arc;
use std::time::Duration;

use policies::Moment;
use smallvec::SmallVec;

use super::labels::{AttemptOutcome, Outcome};
use crate::rejection::Reason;

/// Maximum number of entries of one request.
pub const MOST: usize = 64;
/// Maximum number of entries of answered calls for the elements of one part. They must not crowd out other parts.
const MOST_ANSWERED_ELEMENTS: usize = 16;

/// Reason of a first attempt that was cancelled because a hedge was answered first.
pub const LOST_TO_HEDGE: &str = "lost_to_hedge";
/// Reason of a hedge that was cancelled because the first attempt was answered first.
pub const HEDGE_LOST: &str = "hedge_lost";

/// One attempt, or a call or part for which no attempt was made.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub backend: Arc<str>,
    /// URL of the endpoint; `None` if none was asked.
    pub endpoint: Option<Arc<str>>,
    /// Part of the aggregate.
    pub part: Option<Arc<str>>,
    /// Index of the element of a `for_each` part, from 0.
    pub element: Option<u32>,
    pub outcome: AttemptOutcome,
    /// Status of the answer; 0 if there is none.
    pub status: u16,
    /// Reason of a rejection, or fault of a part whose answer cannot be used.
    pub reason: Option<&'static str>,
    /// Id of the span that the backend was told; 0 if it was told none.
    pub span: u64,
    /// Number within the call, from 1.
    number: u32,
    /// Nanoseconds of waiting before the start: for a slot if it is the call's first attempt, else between two attempts.
    waited: u64,
    /// Start of the attempt, or of its wait while that is not over. [`Moment::MAX`] if unknown.
    started: Moment,
    /// Nanoseconds of connecting; 0 if a connection was reused.
    connecting: u64,
    /// Arrival of the answer's head; [`Moment::MAX`] if there is none.
    head: Moment,
    /// [`Moment::MAX`] until the attempt has ended.
    ended: Moment,
}

impl Attempt {
    fn new(backend: &Arc<str>, number: u32, started: Moment) -> Self {
        Self {
            backend: Arc::clone(backend),
            endpoint: None,
            part: None,
            element: None,
            // Applies until there is a result.
            outcome: AttemptOutcome::Cancelled,
            status: 0,
            reason: None,
            span: 0,
            number,
            waited: 0,
            started,
            connecting: 0,
            head: Moment::MAX,
            ended: Moment::MAX,
        }
    }

    /// Whether the attempt was cancelled because another one at the same time was answered first.
    pub fn is_lost(&self) -> bool {
        self.outcome == AttemptOutcome::Cancelled && matches!(self.reason, Some(LOST_TO_HEDGE | HEDGE_LOST))
    }

    /// Start of the attempt, after its waits; `None` if unknown.
    pub fn started(&self) -> Option<Moment> {
        known(self.started)
    }

    /// Start of the wait before the attempt; `None` if unknown.
    pub fn entered(&self) -> Option<Moment> {
        let started = known(self.started)?;
        Some(Moment::from_nanos(started.nanos().saturating_sub(self.waited)))
    }

    /// End of the attempt; `None` if it goes on.
    pub fn ended(&self) -> Option<Moment> {
        known(self.ended)
    }

    /// Number within the call, from 1.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Time spent waiting for a slot of the bulkhead before the attempt.
    pub const fn queued(&self) -> Duration {
        Duration::from_nanos(if self.number == 1 { self.waited } else { 0 })
    }

    /// Time spent waiting between the attempt before and this one.
    pub const fn backoff(&self) -> Duration {
        Duration::from_nanos(if self.number == 1 { 0 } else { self.waited })
    }

    /// Time spent connecting; zero if a connection was reused.
    pub const fn connecting(&self) -> Duration {
        Duration::from_nanos(self.connecting)
    }

    /// Time from the start to the head of the answer.
    pub fn first_byte(&self) -> Option<Duration> {
        Some(known(self.head)?.since(self.started))
    }

    /// Time from the start to the end, which is the last byte of an answer that was used.
    pub fn took(&self) -> Option<Duration> {
        Some(known(self.ended)?.since(self.started))
    }

    /// Whether the attempt goes on. An entry without times does not.
    fn is_open(&self) -> bool {
        self.ended == Moment::MAX && self.started < Moment::MAX
    }

    fn is_answered_element(&self) -> bool {
        let is_good = matches!(self.outcome, AttemptOutcome::Answered | AttemptOutcome::Cached);
        self.element.is_some() && is_good && self.reason.is_none()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn known(moment: Moment) -> Option<Moment> {
    (moment < Moment::MAX).then_some(moment)
}

/// Attempts of one request, over all of its calls. The attempts of a call follow each other.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    entries: SmallVec<[Attempt; 1]>,
    left_out: Option<Box<Sums>>,
}

/// Sums over several entries.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    entries: u32,
    attempts: u32,
    queued: Duration,
    connecting: Duration,
    head: Option<Moment>,
}

impl Sums {
    /// Adds an entry. `connecting` is the time spent connecting over all attempts of its call so far.
    fn add(&mut self, entry: &Attempt, connecting: Duration) {
        self.entries += 1;
        self.attempts += u32::from(entry.endpoint.is_some());
        self.queued = self.queued.max(entry.queued());
        self.connecting = self.connecting.max(connecting);
        self.head = self.head.max(known(entry.head));
    }
}

impl Attempts {
    /// Adds an entry of a call to `backend`, which begins with a wait. `number` counts within the call from 1. The entry
    /// before has ended by now.
    pub fn begin(&mut self, backend: &Arc<str>, number: u32, now: Moment) {
        self.end(now, None, None);
        if self.entries.len() == MOST
            && let Some(last) = self.entries.pop()
        {
            self.leave_out(&last);
        }
        self.entries.push(Attempt::new(backend, number, now));
    }

    /// Ends the wait of the last entry.
    pub fn end_wait(&mut self, now: Moment) {
        if let Some(last) = self.open() {
            last.waited = nanos(now.since(last.started));
            last.started = now;
        }
    }

    /// Notes that the last entry asks `endpoint` from now on.
    pub fn ask(&mut self, endpoint: &Arc<str>, now: Moment) {
        if let Some(last) = self.open() {
            last.endpoint = Some(Arc::clone(endpoint));
            last.started = now;
        }
    }

    /// Notes the span that the last entry's backend is told.
    pub fn note_span(&mut self, span: u64) {
        if let Some(last) = self.open() {
            last.span = span;
        }
    }

    /// Notes the time that the last entry spent connecting.
    pub fn note_connecting(&mut self, connecting: Duration) {
        if let Some(last) = self.open() {
            last.connecting = nanos(connecting);
        }
    }

    /// Notes the head of the last entry's answer. The entry goes on until the answer's last byte.
    pub fn answer(&mut self, now: Moment, status: u16, outcome: Outcome) {
        if let Some(last) = self.open() {
            last.head = now;
            last.status = status;
            last.outcome = outcome.into();
        }
    }

    /// Ends the last entry, unless it has ended. Without an `outcome` it keeps the one that it has so far.
    pub fn end(&mut self, now: Moment, outcome: Option<Outcome>, reason: Option<&'static str>) {
        if let Some(last) = self.open() {
            if let Some(outcome) = outcome {
                last.outcome = outcome.into();
            }
            last.reason = reason;
            last.ended = now;
        }
    }

    /// Ends the last entry, if it has not ended, because the call was rejected before the attempt.
    pub fn refuse(&mut self, now: Moment, reason: Reason) {
        if let Some(last) = self.open() {
            if last.waited == 0 {
                last.waited = nanos(now.since(last.started));
            }
            last.started = now;
            self.end(now, Some(Outcome::of(reason)), Some(reason.as_str()));
        }
    }

    /// Changes the outcome of the last entry, if it has a head and has not ended: the rest of its answer does not come or
    /// is not wanted.
    pub fn break_off(&mut self, outcome: Outcome) {
        if let Some(last) = self.open()
            && last.head < Moment::MAX
        {
            last.outcome = outcome.into();
        }
    }

    /// Adds the entry of a call that was answered from the cache, at once or after a wait for another request.
    pub fn add_cached(&mut self, backend: &Arc<str>, began: Moment, now: Moment) {
        self.begin(backend, 1, began);
        if let Some(last) = self.open() {
            (last.outcome, last.ended) = (AttemptOutcome::Cached, now);
        }
    }

    /// Ends the last entry, unless it has ended, because the answer of another attempt at the same time is used. Returns
    /// whether it is cancelled by that.
    pub fn give_up(&mut self, now: Moment, reason: &'static str) -> bool {
        let Some(last) = self.open() else {
            return false;
        };
        last.ended = now;
        let is_cancelled = last.head == Moment::MAX;
        if is_cancelled {
            last.reason = Some(reason);
        }
        is_cancelled
    }

    /// Adds the entries of an attempt at the same time after the others, of which the last has ended.
    pub fn append(&mut self, other: Self) {
        for entry in other.entries {
            if self.entries.len() == MOST
                && let Some(last) = self.entries.pop()
            {
                self.leave_out(&last);
            }
            self.entries.push(entry);
        }
    }

    /// Adds the entries of an attempt at the same time before the last one, whose answer is used.
    pub fn insert_before_last(&mut self, other: Self) {
        let last = self.entries.pop();
        self.append(other);
        let entries = last.into_iter().collect();
        let left_out = None;
        self.append(Self { entries, left_out });
    }

    /// Whether the last entry has not ended.
    pub fn is_open(&self) -> bool {
        self.entries.last().is_some_and(Attempt::is_open)
    }

    fn open(&mut self) -> Option<&mut Attempt> {
        self.entries.last_mut().filter(|last| last.is_open())
    }

    fn leave_out(&mut self, entry: &Attempt) {
        self.left_out.get_or_insert_default().add(entry, entry.connecting());
    }

    /// Marks all entries as those of a part.
    pub fn set_part(&mut self, part: &Arc<str>, element: Option<u32>) {
        for entry in &mut self.entries {
            entry.part = Some(Arc::clone(part));
            entry.element = element;
        }
    }

    /// Adds the entries of another call, before those of calls that began later.
    pub fn merge(&mut self, mut other: Self) {
        if let Some(sums) = other.left_out.take() {
            let own = self.left_out.get_or_insert_default();
            own.entries += sums.entries;
            own.attempts += sums.attempts;
            own.queued = own.queued.max(sums.queued);
            own.connecting = own.connecting.max(sums.connecting);
            own.head = own.head.max(sums.head);
        }
        let Some(first) = other.entries.first() else { return };
        let is_later = |entry: &Attempt| entry.number == 1 && entry.started > first.started;
        let mut at = self.entries.iter().position(is_later).unwrap_or(self.entries.len());
        for entry in other.entries {
            if self.has_room_for(&entry) {
                self.entries.insert(at, entry);
                at += 1;
            } else {
                self.leave_out(&entry);
            }
        }
    }

    fn has_room_for(&self, entry: &Attempt) -> bool {
        let is_alike = |other: &&Attempt| other.part == entry.part && other.is_answered_element();
        self.entries.len() < MOST
            && (!entry.is_answered_element() || self.entries.iter().filter(is_alike).count() < MOST_ANSWERED_ELEMENTS)
    }

    /// Whether there is an entry of this part.
    pub fn has_part(&self, part: &Arc<str>) -> bool {
        self.entries.iter().any(|entry| entry.part.as_ref() == Some(part))
    }

    /// Notes the result of a part whose backend was not asked or whose answer cannot be used. A reason that is already
    /// known is kept, because it is more exact.
    pub fn note_part(
        &mut self,
        part: &Arc<str>,
        backend: &Arc<str>,
        outcome: AttemptOutcome,
        reason: Option<&'static str>,
    ) {
        let is_of_part = |entry: &&mut Attempt| entry.part.as_ref() == Some(part);
        let mut last = None;
        for entry in self.entries.iter_mut().filter(is_of_part) {
            if entry.reason.is_some() {
                return;
            }
            last = Some(entry);
        }
        if let Some(entry) = last {
            entry.reason = reason;
            return;
        }
        let mut entry = Attempt::new(backend, 1, Moment::MAX);
        entry.part = Some(Arc::clone(part));
        (entry.outcome, entry.reason) = (outcome, reason);
        if self.entries.len() < MOST {
            self.entries.push(entry);
        } else {
            self.leave_out(&entry);
        }
    }

    /// Returns the entries that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.entries.iter()
    }

    /// Number of entries that were not kept.
    pub fn left_out(&self) -> u32 {
        self.left_out.as_ref().map_or(0, |sums| sums.entries)
    }

    /// Number of attempts, with those that were not kept.
    pub fn count(&self) -> u32 {
        self.sums().attempts
    }

    /// Longest time that a call waited for a slot.
    pub fn queued(&self) -> Duration {
        self.sums().queued
    }

    /// Longest time that a call spent connecting, over its attempts; zero if all connections were reused.
    pub fn connecting(&self) -> Duration {
        self.sums().connecting
    }

    /// Time at which the head of the latest answer arrived.
    pub fn head(&self) -> Option<Moment> {
        self.sums().head
    }

    fn sums(&self) -> Sums {
        let mut sums = self.left_out.as_deref().copied().unwrap_or_default();
        let mut connecting = Duration::ZERO;
        for entry in &self.entries {
            if entry.number == 1 {
                connecting = Duration::ZERO;
            }
            connecting += entry.connecting();
            sums.add(entry, connecting);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + ms(milliseconds)
    }

    /// Returns the attempts of a call that begins at `began` and is answered 10 ms later, after 3 ms in the queue.
    fn answered(began: u64) -> Attempts {
        let mut attempts = Attempts::default();
        attempts.begin(&"users".into(), 1, at(began));
        attempts.end_wait(at(began + 3));
        attempts.ask(&"http://a".into(), at(began + 3));
        attempts.note_connecting(ms(2));
        attempts.answer(at(began + 10), 200, Outcome::Answered);
        attempts.end(at(began + 12), None, None);
        attempts
    }

    #[test]
    fn the_sums_are_those_of_the_entries() {
        let mut attempts = answered(0);
        attempts.begin(&"users".into(), 2, at(20));
        attempts.end_wait(at(50));
        attempts.ask(&"http://b".into(), at(50));
        attempts.note_connecting(ms(4));
        attempts.end(at(60), Some(Outcome::Broken), None);
        assert_eq!((attempts.count(), attempts.queued()), (2, ms(3)));
        assert_eq!((attempts.connecting(), attempts.head()), (ms(6), Some(at(10))));
        let [first, second] = &attempts.entries[..] else {
            panic!("{attempts:?}")
        };
        assert_eq!((first.queued(), first.backoff()), (ms(3), ms(0)));
        assert_eq!((first.first_byte(), first.took()), (Some(ms(7)), Some(ms(9))));
        assert_eq!((second.queued(), second.backoff()), (ms(0), ms(30)));
        assert_eq!((second.first_byte(), second.took()), (None, Some(ms(10))));
        // A call of its own connects beside the first one, not after it.
        attempts.merge(answered(5));
        assert_eq!((attempts.count(), attempts.connecting()), (3, ms(6)));
    }

    #[test]
    fn a_rejected_call_has_an_entry_of_no_length() {
        let mut attempts = Attempts::default();
        attempts.begin(&"users".into(), 1, at(10));
        attempts.end_wait(at(30));
        attempts.refuse(at(30), Reason::BulkheadTimeout);
        // What comes later changes nothing.
        attempts.refuse(at(90), Reason::OutOfTime);
        attempts.break_off(Outcome::Cancelled);
        let entry = attempts.iter().next().unwrap();
        assert_eq!(
            (entry.outcome, entry.reason),
            (AttemptOutcome::Refused, Some("bulkhead_timeout"))
        );
        assert_eq!(
            (entry.started(), entry.queued(), entry.took()),
            (Some(at(30)), ms(20), Some(ms(0)))
        );
        assert_eq!((attempts.count(), attempts.queued()), (0, ms(20)));
    }

    #[test]
    fn an_entry_that_never_ends_was_cancelled() {
        let mut attempts = Attempts::default();
        attempts.begin(&"users".into(), 1, at(10));
        attempts.end(at(25), None, None);
        let entry = attempts.iter().next().unwrap();
        assert_eq!((entry.outcome, entry.took()), (AttemptOutcome::Cancelled, Some(ms(15))));
        assert_eq!(attempts.count(), 0, "nothing was asked");
    }

    #[test]
    fn calls_are_listed_in_the_order_of_their_start() {
        let mut attempts = Attempts::default();
        for (part, began) in [("b", 30), ("a", 10), ("c", 20)] {
            let mut call = answered(began);
            call.begin(&"users".into(), 2, at(began + 100));
            call.set_part(&part.into(), None);
            attempts.merge(call);
        }
        let parts: Vec<_> = attempts.iter().filter_map(|entry| entry.part.as_deref()).collect();
        assert_eq!(parts, ["a", "a", "c", "c", "b", "b"]);
    }

    #[test]
    fn the_list_is_bounded_and_the_rest_is_counted() {
        let mut attempts = Attempts::default();
        for number in 1..=100 {
            attempts.begin(&"users".into(), number, at(0));
            attempts.ask(&"http://a".into(), at(u64::from(number)));
            attempts.note_connecting(ms(1));
            attempts.end(at(200), Some(Outcome::Broken), None);
        }
        assert_eq!(
            (attempts.entries.len(), attempts.left_out(), attempts.count()),
            (MOST, 36, 100)
        );
        assert_eq!(
            attempts.iter().last().and_then(Attempt::started),
            Some(at(100)),
            "the newest is kept"
        );

        let mut attempts = Attempts::default();
        for element in 0..1000 {
            let mut call = answered(u64::from(element));
            if element % 100 == 7 {
                call.entries[0].outcome = AttemptOutcome::TimedOut;
            }
            call.set_part(&"stock".into(), Some(element));
            attempts.merge(call);
        }
        let mut other = answered(0);
        other.set_part(&"user".into(), None);
        attempts.merge(other);
        assert_eq!(attempts.entries.len(), MOST_ANSWERED_ELEMENTS + 10 + 1);
        assert_eq!(attempts.count(), 1001);
        assert_eq!(
            (attempts.left_out() as usize, attempts.queued()),
            (1001 - attempts.entries.len(), ms(3))
        );
    }

    #[test]
    fn a_part_without_a_call_has_an_entry_without_times() {
        let (user, stock) = ("user".into(), "stock".into());
        let mut attempts = answered(0);
        attempts.set_part(&user, None);
        attempts.note_part(&user, &"users".into(), AttemptOutcome::Refused, Some("not_mergeable"));
        attempts.note_part(&user, &"users".into(), AttemptOutcome::Refused, Some("less exact"));
        attempts.note_part(&stock, &"shop".into(), AttemptOutcome::Skipped, None);
        attempts.end(at(90), Some(Outcome::Broken), None);
        let found: Vec<_> = attempts
            .iter()
            .map(|entry| {
                (
                    entry.outcome.as_str(),
                    entry.reason,
                    entry.started().is_some(),
                    entry.took().is_some(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("answered", Some("not_mergeable"), true, true),
                ("skipped", None, false, false)
            ]
        );
        assert_eq!(attempts.count(), 1);
    }
}
