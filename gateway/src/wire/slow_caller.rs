//! What one request has its caller waited for: more of its body, and room for more of its answer.
//!
//! Those who carry the bytes note what they wait for; a sweep looks once a tick and gives up on whoever is too slow.
//! A body that comes too slowly is told to its reader, so that the caller can still be answered. An answer that is
//! not taken can only be cut, and that only where it is one stream of many: elsewhere the connection itself is watched.
//!
//! Invariant: only the caller's slowness counts. Whatever a backend or we ourselves take is not waited for here, and a
//! conversation, which has no pace, is waited for by whoever watches its silence.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use policies::Moment;
use tokio::task::AbortHandle;

use crate::rejection::Reason;
use crate::wire::expiry::Expiry;
use crate::wire::min_rate::{MinRate, TICK};

const NOT_AWAITED: u8 = 0;
const AWAITED: u8 = 1;
const TOO_SLOW: u8 = 2;

/// So many bytes from a caller show as much life as a whole message does.
pub const LIVELY: u64 = 16 * 1024;

/// A request's body has come more slowly than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSlow;

/// What a caller may take its time for.
#[derive(Debug, Clone, Copy)]
pub struct WaitLimits {
    /// Without taking a single byte of its answer.
    pub write: Duration,
    /// Beyond `grace`, so many bytes pay for a second of waiting: of a body, and of an answer. `None` is no rate.
    pub rates: Option<Rates>,
}

/// How slow a caller may be beyond `grace`, in bytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub grace: Duration,
    pub body: u64,
    pub answer: u64,
}

/// What has been waited for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    Body,
    Answer,
}

#[derive(Debug, Default)]
pub struct Transfer {
    /// Somebody has begun to read the body.
    asked: AtomicBool,
    /// More of it is awaited; or it was, and came too slowly.
    body: AtomicU8,
    sends: MinRate,
    /// Whole messages, and large pieces, that have come of it; begins anew where it ends.
    signs_of_life: AtomicU32,
    /// It may pause for as long as it pleases.
    pauses: AtomicBool,
    /// Why it came to a bad end, which is the caller's doing.
    spoilt: OnceLock<Reason>,
    /// Wakes whoever reads the body.
    reader: Mutex<Option<Waker>>,
    /// A piece of the answer has been handed over, and nobody has asked for the next one.
    handed: AtomicBool,
    /// Ticks at which that was so, without a break.
    stalled: AtomicU32,
    takes: MinRate,
    /// The answer was cut, because it was not taken.
    cut: AtomicBool,
    /// When the answer has to have left.
    expiry: Expiry,
    /// What carries the answer, where that can be ended by itself.
    carrier: OnceLock<AbortHandle>,
}

impl Transfer {
    /// So many bytes of the body have come.
    pub fn note_received(&self, count: usize) {
        self.asked.store(true, Relaxed);
        self.sends.progress(count);
        if self.body.load(Relaxed) == AWAITED {
            self.body.store(NOT_AWAITED, Relaxed);
        }
    }

    /// Nothing of the body is there to be read.
    ///
    /// # Errors
    /// It is not waited for any longer.
    pub fn awaits(&self, reader: &Waker) -> Result<(), TooSlow> {
        if self.body.load(Relaxed) == TOO_SLOW {
            return Err(TooSlow);
        }
        self.asked.store(true, Relaxed);
        self.body.store(AWAITED, Relaxed);
        let mut kept = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| !kept.will_wake(reader)) {
            *kept = Some(reader.clone());
        }
        Ok(())
    }

    /// Whether anybody has begun to read the body.
    pub fn is_asked_for(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// The body is read no more.
    pub fn stop_waiting(&self) {
        self.body.store(NOT_AWAITED, Relaxed);
    }

    /// Something has come of the body that a byte now and then is not.
    pub fn shows_life(&self) {
        let signs = self.signs_of_life.load(Relaxed);
        self.signs_of_life.store(signs.wrapping_add(1), Relaxed);
    }

    /// Changes whenever such has come.
    pub fn signs_of_life(&self) -> u32 {
        self.signs_of_life.load(Relaxed)
    }

    /// The body is one side of a conversation.
    pub fn may_pause(&self) {
        self.pauses.store(true, Relaxed);
    }

    /// The caller has brought its body to a bad end.
    pub fn spoil(&self, reason: Reason) {
        // What comes after the end changes nothing.
        let _ = self.spoilt.set(reason);
    }

    /// Why the body came to a bad end, if it did.
    pub fn is_spoilt(&self) -> Option<Reason> {
        self.spoilt.get().copied()
    }

    /// The answer is carried by a task of its own.
    pub fn set_carrier(&self, task: AbortHandle) {
        // One request has one task.
        let _ = self.carrier.set(task);
    }

    /// Whether the answer is carried by a task of its own.
    pub fn is_carried(&self) -> bool {
        self.carrier.get().is_some()
    }

    /// The answer has to have left by then, if it is carried by a task of its own.
    pub fn expires(&self, moment: Option<Moment>) {
        self.expiry.set(moment);
    }

    /// Whether the answer has had all its time.
    pub fn has_expired(&self, now: Moment) -> bool {
        self.expiry.has_passed(now)
    }

    /// The caller has room for more of its answer.
    pub fn note_room(&self) {
        self.handed.store(false, Relaxed);
        self.stalled.store(0, Relaxed);
    }

    /// So many bytes of the answer are on their way.
    pub fn hands_over(&self, count: usize) {
        self.takes.progress(count);
        self.handed.store(true, Relaxed);
    }

    /// Whether the answer was cut, because it was not taken.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// For each tick: what has been waited for too long, if anything has. Its body is told so; the answer is cut.
    pub fn look(&self, leave: &WaitLimits, now: Moment) -> Option<Overdue> {
        if let Some(carrier) = self.carrier.get()
            && !self.cut.load(Relaxed)
            && (self.expiry.has_passed(now) || self.is_taken_too_slowly(leave))
        {
            self.cut.store(true, Relaxed);
            carrier.abort();
            return Some(Overdue::Answer);
        }
        if let (AWAITED, Some(rates), false) = (self.body.load(Relaxed), &leave.rates, self.pauses.load(Relaxed))
            && self.sends.falls_behind(rates.grace, rates.body)
        {
            self.body.store(TOO_SLOW, Relaxed);
            if let Some(reader) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
                reader.wake();
            }
            return Some(Overdue::Body);
        }
        None
    }

    /// One more tick at which a piece of the answer may have waited for its caller: whether that makes too many.
    fn is_taken_too_slowly(&self, leave: &WaitLimits) -> bool {
        if !self.handed.load(Relaxed) {
            return false;
        }
        let ticks = self.stalled.load(Relaxed).saturating_add(1);
        self.stalled.store(ticks, Relaxed);
        // The tick it began in was under way already, so only the whole ones since then are certain.
        let for_too_long = TICK * (ticks - 1) >= leave.write;
        let rate = leave.rates.as_ref();
        for_too_long || rate.is_some_and(|rates| self.takes.falls_behind(rates.grace, rates.answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave() -> WaitLimits {
        let rates = Rates {
            grace: Duration::from_secs(2),
            body: 100,
            answer: 100,
        };
        WaitLimits {
            write: Duration::from_secs(10),
            rates: Some(rates),
        }
    }

    /// What is given up on within so many ticks, `between` which something happens.
    fn after(flow: &Transfer, ticks: usize, leave: &WaitLimits, between: impl Fn(&Transfer)) -> Option<Overdue> {
        (0..ticks).find_map(|_| {
            between(flow);
            flow.look(leave, Moment::ZERO)
        })
    }

    #[test]
    fn a_body_must_come_at_a_rate_for_as_long_as_it_is_waited_for() {
        let comes = |bytes| {
            move |flow: &Transfer| {
                flow.note_received(bytes);
                assert_eq!(flow.awaits(Waker::noop()), Ok(()));
            }
        };
        let leave = &leave();
        assert_eq!(after(&Transfer::default(), 9, leave, comes(1)), Some(Overdue::Body));
        assert_eq!(after(&Transfer::default(), 1000, leave, comes(25)), None);
        // What nobody reads is not waited for.
        assert_eq!(after(&Transfer::default(), 1000, leave, |_| {}), None);
        let read = Transfer::default();
        assert!(!read.is_asked_for());
        assert_eq!(read.awaits(Waker::noop()), Ok(()));
        assert!(read.is_asked_for());
        read.stop_waiting();
        assert_eq!(after(&read, 1000, leave, |_| {}), None);
        // Nor is what somebody has to say when there is something to say.
        let talk = Transfer::default();
        talk.may_pause();
        assert_eq!(after(&talk, 1000, leave, comes(0)), None);

        let slow = Transfer::default();
        after(&slow, 9, leave, comes(0));
        assert_eq!(slow.awaits(Waker::noop()), Err(TooSlow), "its reader is told");
        assert_eq!(after(&slow, 100, leave, |_| {}), None, "and it is counted once");
    }

    fn carried() -> (Transfer, tokio::task::JoinHandle<()>) {
        let (flow, task) = (Transfer::default(), tokio::spawn(std::future::pending()));
        flow.set_carrier(task.abort_handle());
        (flow, task)
    }

    #[tokio::test]
    async fn an_answer_must_be_taken_at_a_rate_for_as_long_as_there_is_more_of_it() {
        let takes = |bytes| {
            move |flow: &Transfer| {
                flow.note_room();
                flow.hands_over(bytes);
            }
        };
        let leave = &leave();
        assert_eq!(after(&carried().0, 9, leave, takes(1)), Some(Overdue::Answer));
        assert_eq!(after(&carried().0, 1000, leave, takes(25)), None);
        // A backend that has no more of it is not the caller's fault.
        let quiet = |flow: &Transfer| flow.note_room();
        assert_eq!(after(&carried().0, 1000, leave, quiet), None);
        // Nor is it ours to end what has no carrier of its own.
        assert_eq!(after(&Transfer::default(), 1000, leave, takes(1)), None);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_at_all_loses_its_carrier() {
        let leave = WaitLimits { rates: None, ..leave() };
        let (flow, task) = carried();
        flow.hands_over(1 << 20);
        assert_eq!(after(&flow, 40, &leave, |_| {}), None);
        assert_eq!(flow.look(&leave, Moment::ZERO), Some(Overdue::Answer));
        assert_eq!(after(&flow, 100, &leave, |_| {}), None, "it is counted once");
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    }
    #[tokio::test]
    async fn an_answer_that_has_had_its_time_loses_its_carrier_whoever_is_slow() {
        let at = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        let (flow, task) = carried();
        flow.expires(Some(at(5)));
        assert_eq!(flow.look(&leave(), at(5)), None, "it may still end itself");
        assert_eq!(flow.look(&leave(), at(6)), Some(Overdue::Answer));
        assert_eq!(flow.look(&leave(), at(7)), None, "it is counted once");
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
        let (flow, _task) = carried();
        flow.expires(None);
        assert_eq!(flow.look(&leave(), Moment::MAX), None);
    }
}
