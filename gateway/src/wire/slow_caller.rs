//! Records what a request waits for from its caller: more of its body, and room for more of its answer.
//!
//! The code that carries the bytes records the waiting. A sweep checks once per tick and gives up on a caller that is
//! too slow. For a slow body the reader is told, so that the caller still gets an answer. A slow answer can only be
//! cut, and only if it is one stream of many; elsewhere the connection itself is watched.
//!
//! Invariant: only the caller's slowness counts. Time that a backend or the gateway takes is not counted. Two-way
//! streams have no rate; their idle time is limited elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use policies::Moment;

use crate::rejection::Reason;
use crate::wire::expiry::Expiry;
use crate::wire::interim::InterimAnswers;
use crate::wire::min_rate::{MinRate, TICK};

const NOT_AWAITED: u8 = 0;
const AWAITED: u8 = 1;
const TOO_SLOW: u8 = 2;

/// Bytes from a caller that count as one sign of life, like a whole message.
pub const LIVELY: u64 = 16 * 1024;

/// Error of a request body that came more slowly than the minimum rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSlow;

/// Limits on how long a caller may take.
#[derive(Debug, Clone, Copy)]
pub struct WaitLimits {
    /// Maximum time without taking a single byte of the answer.
    pub write: Duration,
    /// Minimum rates beyond `grace`. `None` means no rates.
    pub rates: Option<Rates>,
}

/// Minimum rates of body and answer beyond `grace`, in bytes per second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub grace: Duration,
    pub body: u64,
    pub answer: u64,
}

/// Part of the exchange that was waited for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    Body,
    Answer,
}

#[derive(Debug, Default)]
pub struct Transfer {
    /// State of waiting for the body: not awaited, awaited, or too slow.
    body: AtomicU8,
    sends: MinRate,
    /// Number of signs of life in the body: whole messages and large pieces. It wraps around.
    signs_of_life: AtomicU32,
    /// Whether the body may pause without limit.
    pauses: AtomicBool,
    /// Reason why the body failed, which is the caller's fault.
    spoilt: OnceLock<Reason>,
    /// Waker of the body's reader.
    reader: Mutex<Option<Waker>>,
    /// Whether a piece of the answer was handed over and the next one was not asked for.
    handed: AtomicBool,
    /// Number of consecutive ticks at which a piece of the answer waited for the caller.
    stalled: AtomicU32,
    takes: MinRate,
    /// Whether the answer was cut because it was not taken.
    cut: AtomicBool,
    /// Time by which the answer must have been sent.
    expiry: Expiry,
    /// Waker of the exchange, if it can be ended alone: it then looks whether its answer was cut.
    carrier: OnceLock<Waker>,
    /// Interim answers that wait to be sent on the request's own stream.
    interim: InterimAnswers,
}

impl Transfer {
    /// Counts bytes of the body that arrived.
    pub fn note_received(&self, count: usize) {
        self.sends.progress(count);
        if self.body.load(Relaxed) == AWAITED {
            self.body.store(NOT_AWAITED, Relaxed);
        }
    }

    /// Records that the reader waits for more of the body.
    ///
    /// # Errors
    /// Returns [`TooSlow`] if the body is no longer waited for.
    pub fn awaits(&self, reader: &Waker) -> Result<(), TooSlow> {
        if self.body.load(Relaxed) == TOO_SLOW {
            return Err(TooSlow);
        }
        self.body.store(AWAITED, Relaxed);
        let mut kept = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| !kept.will_wake(reader)) {
            *kept = Some(reader.clone());
        }
        Ok(())
    }

    /// Records that the body is no longer read.
    pub fn stop_waiting(&self) {
        self.body.store(NOT_AWAITED, Relaxed);
    }

    /// Counts a sign of life of the caller. A few single bytes are none.
    pub fn shows_life(&self) {
        let signs = self.signs_of_life.load(Relaxed);
        self.signs_of_life.store(signs.wrapping_add(1), Relaxed);
    }

    /// Returns the number of signs of life, which changes with each.
    pub fn signs_of_life(&self) -> u32 {
        self.signs_of_life.load(Relaxed)
    }

    /// Marks the body as one side of a two-way stream, which may pause.
    pub fn may_pause(&self) {
        self.pauses.store(true, Relaxed);
    }

    /// Records that the body failed through the caller's fault.
    pub fn spoil(&self, reason: Reason) {
        // Only the first reason counts.
        let _ = self.spoilt.set(reason);
    }

    /// Returns why the body failed, if it did.
    pub fn is_spoilt(&self) -> Option<Reason> {
        self.spoilt.get().copied()
    }

    /// Records the waker of the exchange, which ends when it finds its answer cut. It must stay the same.
    pub fn set_carrier(&self, exchange: &Waker) {
        self.carrier.get_or_init(|| exchange.clone());
    }

    /// Wakes the exchange, if it can be ended alone.
    pub fn wake_carrier(&self) {
        if let Some(carrier) = self.carrier.get() {
            carrier.wake_by_ref();
        }
    }

    /// Returns the interim answers that wait to be sent on the request's own stream.
    pub const fn interim(&self) -> &InterimAnswers {
        &self.interim
    }

    /// Whether the answer can be ended alone.
    pub fn is_carried(&self) -> bool {
        self.carrier.get().is_some()
    }

    /// Sets the time by which the answer must have been sent, if it can be ended alone.
    pub fn expires(&self, moment: Option<Moment>) {
        self.expiry.set(moment);
    }

    /// Whether the time for sending the answer passed at least one tick ago.
    pub fn has_expired(&self, now: Moment) -> bool {
        self.expiry.has_passed(now)
    }

    /// Records that the caller has room for more of its answer.
    pub fn note_room(&self) {
        self.handed.store(false, Relaxed);
        self.stalled.store(0, Relaxed);
    }

    /// Counts bytes of the answer that were handed over.
    pub fn hands_over(&self, count: usize) {
        self.takes.progress(count);
        self.handed.store(true, Relaxed);
    }

    /// Whether the answer was cut because it was not taken.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Checks the caller at a tick, and returns what was waited for too long. Wakes the reader of a slow body. Cuts a
    /// slow answer, and one whose time is over.
    pub fn look(&self, leave: &WaitLimits, now: Moment) -> Option<Overdue> {
        if let Some(carrier) = self.carrier.get()
            && !self.cut.load(Relaxed)
            && (self.expiry.has_passed(now) || self.is_taken_too_slowly(leave))
        {
            self.cut.store(true, Relaxed);
            carrier.wake_by_ref();
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

    /// Counts one more tick if a piece of the answer waits for the caller. Returns whether the caller is too slow.
    fn is_taken_too_slowly(&self, leave: &WaitLimits) -> bool {
        if !self.handed.load(Relaxed) {
            return false;
        }
        let ticks = self.stalled.load(Relaxed).saturating_add(1);
        self.stalled.store(ticks, Relaxed);
        // The first tick was already under way when the wait began, so only the ticks after it are whole.
        let for_too_long = TICK * (ticks - 1) >= leave.write;
        let rate = leave.rates.as_ref();
        for_too_long || rate.is_some_and(|rates| self.takes.falls_behind(rates.grace, rates.answer))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

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

    /// Returns what is given up on within `ticks`, with `between` called before each.
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
        // A body that is not read is not waited for.
        assert_eq!(after(&Transfer::default(), 1000, leave, |_| {}), None);
        let read = Transfer::default();
        assert_eq!(read.awaits(Waker::noop()), Ok(()));
        read.stop_waiting();
        assert_eq!(after(&read, 1000, leave, |_| {}), None);
        // A two-way stream may pause.
        let talk = Transfer::default();
        talk.may_pause();
        assert_eq!(after(&talk, 1000, leave, comes(0)), None);

        let slow = Transfer::default();
        after(&slow, 9, leave, comes(0));
        assert_eq!(slow.awaits(Waker::noop()), Err(TooSlow), "its reader is told");
        assert_eq!(after(&slow, 100, leave, |_| {}), None, "and it is counted once");
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    impl Woken {
        /// Whether the exchange was woken since the last call.
        fn take(&self) -> bool {
            self.0.swap(false, Relaxed)
        }
    }

    fn carried() -> (Transfer, Arc<Woken>) {
        let (flow, woken) = (Transfer::default(), Arc::<Woken>::default());
        flow.set_carrier(&Arc::clone(&woken).into());
        (flow, woken)
    }

    #[test]
    fn an_answer_must_be_taken_at_a_rate_for_as_long_as_there_is_more_of_it() {
        let takes = |bytes| {
            move |flow: &Transfer| {
                flow.note_room();
                flow.hands_over(bytes);
            }
        };
        let leave = &leave();
        assert_eq!(after(&carried().0, 9, leave, takes(1)), Some(Overdue::Answer));
        assert_eq!(after(&carried().0, 1000, leave, takes(25)), None);
        // A backend without more to send is not the caller's fault.
        let quiet = |flow: &Transfer| flow.note_room();
        assert_eq!(after(&carried().0, 1000, leave, quiet), None);
        // An answer that cannot be ended alone is not cut here.
        assert_eq!(after(&Transfer::default(), 1000, leave, takes(1)), None);
    }

    #[test]
    fn an_answer_that_is_not_taken_at_all_is_cut() {
        let leave = WaitLimits { rates: None, ..leave() };
        let (flow, woken) = carried();
        flow.hands_over(1 << 20);
        assert_eq!(after(&flow, 40, &leave, |_| {}), None);
        assert!(!flow.is_cut() && !woken.take());
        assert_eq!(flow.look(&leave, Moment::ZERO), Some(Overdue::Answer));
        assert!(flow.is_cut() && woken.take(), "the exchange is told");
        assert_eq!(after(&flow, 100, &leave, |_| {}), None, "it is counted once");
        assert!(!woken.take());
    }

    #[test]
    fn an_answer_that_has_had_its_time_is_cut_whoever_is_slow() {
        let at = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        let (flow, woken) = carried();
        flow.expires(Some(at(5)));
        assert_eq!(flow.look(&leave(), at(5)), None, "it may still end itself");
        assert_eq!(flow.look(&leave(), at(6)), Some(Overdue::Answer));
        assert_eq!(flow.look(&leave(), at(7)), None, "it is counted once");
        assert!(flow.is_cut() && woken.take());
        let (flow, _woken) = carried();
        flow.expires(None);
        assert_eq!(flow.look(&leave(), Moment::MAX), None);
    }
}
