//! Ends connections that keep us waiting: for their first bytes, for a whole head or body, for room to write an answer.
//!
//! One coarse sweep per worker instead of a timer per connection: a connection notes in atomics what it is doing,
//! and the sweep ends what has been at it for too long. The time is the sweep's own, so noting costs no clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::pace::Pace;
use crate::observe::Awaited;
use crate::plan::Rates;

/// How often connections are looked at. Nobody has less time than a limit says, and at most two ticks more.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How long a connection may take over what it is doing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the first byte of a head to its last.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// Without the caller taking a single byte of what we have for it.
    pub(crate) write: Duration,
    /// From accepting to the first byte.
    pub(crate) first_byte: Duration,
    /// Over a whole body or answer.
    pub(crate) rates: Option<Rates>,
}

const FRESH: u8 = 0;
const AWAITING_HEAD: u8 = 1;
const SERVING: u8 = 2;
const IDLE: u8 = 3;
/// Idle for too long, and about to be ended.
const DISMISSED: u8 = 4;
/// Too slow in sending a head, and about to be ended.
const LATE: u8 = 5;

const NOT_AWAITED: u8 = 0;
const AWAITED: u8 = 1;
const TOO_SLOW: u8 = 2;

/// A request's body has come more slowly than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

/// What one connection is doing, and since which tick.
#[derive(Debug)]
pub(crate) struct Activity {
    doing: AtomicU8,
    since: AtomicU32,
    /// Since when the caller takes nothing; 0 while it does.
    stalled: AtomicU32,
    /// Another protocol is spoken.
    switched: AtomicBool,
    /// Of the request under way: ticks at which we waited for its body, and bytes of it that came.
    sends: Pace,
    /// Ticks at which the caller took nothing of the answer, and bytes of it that it took.
    takes: Pace,
    /// More of a body is awaited; or it was, and came too slowly.
    body: AtomicU8,
    /// Wakes whoever reads the body.
    reader: Mutex<Option<Waker>>,
    requests: AtomicU32,
    ticks: Arc<AtomicU32>,
}

impl Activity {
    fn note(&self, doing: u8) {
        self.doing.store(doing, Relaxed);
        self.since.store(self.ticks.load(Relaxed), Relaxed);
    }

    /// So many bytes have come from the caller.
    pub(crate) fn has_read(&self, count: usize) {
        if self.doing.load(Relaxed) == SERVING {
            self.sends.progress(count);
            if self.body.load(Relaxed) == AWAITED {
                self.body.store(NOT_AWAITED, Relaxed);
            }
            return;
        }
        if matches!(self.doing.load(Relaxed), FRESH | IDLE) {
            self.note(AWAITING_HEAD);
        }
    }

    /// A handshake is over, and the connection is as if it had just been accepted.
    pub(crate) fn begins_anew(&self) {
        self.note(FRESH);
    }

    /// Whether it is being ended for idling, when nothing was owed to it.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.doing.load(Relaxed) == DISMISSED
    }

    /// Whether it is being ended for sending a head too slowly.
    pub(crate) fn is_late(&self) -> bool {
        self.doing.load(Relaxed) == LATE
    }

    /// Whether an answer is owed.
    pub(crate) fn is_serving(&self) -> bool {
        self.doing.load(Relaxed) == SERVING
    }

    /// The answer switches to another protocol.
    pub(crate) fn switches(&self) {
        self.switched.store(true, Relaxed);
    }

    pub(crate) fn has_switched(&self) -> bool {
        self.switched.load(Relaxed)
    }

    /// Nothing of the request's body is there to be read.
    ///
    /// # Errors
    /// It is not waited for any longer.
    pub(crate) fn awaits_body(&self, reader: &Waker) -> Result<(), TooSlow> {
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

    /// A whole head has come.
    pub(crate) fn serves(&self) {
        self.note(SERVING);
        self.sends.begin();
        self.takes.begin();
        self.body.store(NOT_AWAITED, Relaxed);
        self.requests
            .store(self.requests.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Requests that have come so far.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// The last byte of the answer has been handed to the connection.
    pub(crate) fn has_answered(&self) {
        self.note(IDLE);
    }

    /// The caller takes nothing at present.
    pub(crate) fn cannot_write(&self) {
        if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.ticks.load(Relaxed), Relaxed);
        }
    }

    /// So many bytes have gone to the caller.
    pub(crate) fn has_written(&self, count: usize) {
        self.takes.progress(count);
        if self.stalled.load(Relaxed) != 0 {
            self.stalled.store(0, Relaxed);
        }
    }

    fn dismiss(&self) {
        match self.doing.load(Relaxed) {
            FRESH | IDLE => self.doing.store(DISMISSED, Relaxed),
            AWAITING_HEAD => self.doing.store(LATE, Relaxed),
            _ => {}
        }
    }

    /// What has been waited for too long, if anything has. A body that comes too slowly is given up by whoever reads
    /// it, and so can still be answered.
    fn look(&self, patience: &Patience) -> Option<Awaited> {
        let stalled = self.stalled.load(Relaxed) != 0;
        let awaited = self.body.load(Relaxed) == AWAITED && self.doing.load(Relaxed) == SERVING;
        if let Some(rates) = &patience.rates {
            if stalled && self.takes.falls_behind(rates.grace, rates.answer) {
                return Some(Awaited::Reader);
            }
            if awaited && self.sends.falls_behind(rates.grace, rates.body) {
                self.body.store(TOO_SLOW, Relaxed);
                if let Some(reader) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    reader.wake();
                }
                return Some(Awaited::Body);
            }
        }
        self.overdue(patience)
    }

    fn overdue(&self, patience: &Patience) -> Option<Awaited> {
        let now = self.ticks.load(Relaxed);
        // The tick it began in was under way already, so only the whole ones since then are certain.
        let longer = |since: u32, limit| TICK * now.wrapping_sub(since).saturating_sub(1) >= limit;
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 && longer(stalled, patience.write) {
            return Some(Awaited::Reader);
        }
        let (awaited, limit) = match self.doing.load(Relaxed) {
            FRESH => (Awaited::FirstByte, patience.first_byte),
            AWAITING_HEAD => (Awaited::Head, patience.head),
            IDLE => (Awaited::NextRequest, patience.idle),
            _ => return None,
        };
        longer(self.since.load(Relaxed), limit).then_some(awaited)
    }
}

/// The connections of one worker.
pub(crate) struct Watch {
    /// Counts from 1, so that 0 can stand for never.
    ticks: Arc<AtomicU32>,
    watched: Mutex<Watched>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            ticks: Arc::new(AtomicU32::new(1)),
            watched: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct Watched {
    next: u64,
    connections: HashMap<u64, (Arc<Activity>, Option<AbortHandle>)>,
}

impl Watch {
    /// Starts watching; the connection's task is told by [`Self::attend`] once it runs.
    pub(crate) fn begin(&self) -> (u64, Arc<Activity>) {
        let activity = Arc::new(Activity {
            doing: AtomicU8::new(FRESH),
            since: AtomicU32::new(self.ticks.load(Relaxed)),
            stalled: AtomicU32::new(0),
            switched: AtomicBool::new(false),
            sends: Pace::default(),
            takes: Pace::default(),
            body: AtomicU8::new(NOT_AWAITED),
            reader: Mutex::default(),
            requests: AtomicU32::new(0),
            ticks: Arc::clone(&self.ticks),
        });
        let mut watched = self.lock();
        let id = watched.next;
        watched.next += 1;
        watched.connections.insert(id, (Arc::clone(&activity), None));
        (id, activity)
    }

    pub(crate) fn attend(&self, id: u64, task: AbortHandle) {
        if let Some((_, handle)) = self.lock().connections.get_mut(&id) {
            *handle = Some(task);
        }
    }

    pub(crate) fn end(&self, id: u64) {
        self.lock().connections.remove(&id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }

    /// Looks at all connections, for ever; `count` is told of each that is given up.
    pub(crate) async fn sweep(&self, patience: impl Fn() -> Patience, count: impl Fn(Awaited)) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.ticks.fetch_add(1, Relaxed);
            let patience = patience();
            for (activity, task) in self.lock().connections.values() {
                let Some(task) = task else { continue };
                match activity.look(&patience) {
                    None => continue,
                    Some(Awaited::Body) => count(Awaited::Body),
                    Some(awaited) => {
                        count(awaited);
                        activity.dismiss();
                        task.abort();
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_us_waiting_is_overdue() {
        let second = Duration::from_secs(1);
        let patience = Patience {
            first_byte: second,
            head: second,
            idle: 4 * second,
            write: 2 * second,
            rates: None,
        };
        let watch = Watch::default();
        let (_, activity) = watch.begin();
        let wait = |seconds: u32| {
            watch.ticks.fetch_add(seconds * 4, Relaxed);
            activity.look(&patience).is_some()
        };
        assert!(!wait(1));
        assert!(wait(1), "no first byte");
        activity.serves();
        assert!(!wait(100), "a request may take its time");
        activity.cannot_write();
        assert!(!wait(2));
        activity.has_written(1);
        assert!(!wait(2));
        activity.cannot_write();
        assert!(wait(3), "the caller takes nothing");
        activity.has_written(1);
        activity.has_answered();
        assert!(!wait(4));
        assert!(wait(1), "idle for too long");
        activity.has_read(1);
        assert!(!wait(1));
        assert!(wait(1), "half a head");
        activity.dismiss();
        assert!(activity.is_late() && !activity.is_dismissed(), "it may be told so");
    }

    #[test]
    fn nobody_is_hurried_by_a_tick_that_falls_behind_them() {
        let patience = Patience {
            first_byte: TICK / 2,
            head: TICK / 2,
            idle: TICK / 2,
            write: TICK / 2,
            rates: None,
        };
        let watch = Watch::default();
        let (_, activity) = watch.begin();
        watch.ticks.fetch_add(1, Relaxed);
        assert!(activity.look(&patience).is_none(), "it may have begun a moment ago");
        watch.ticks.fetch_add(1, Relaxed);
        assert!(activity.look(&patience).is_some());
    }

    /// A connection on which a request is served, as the sweep sees it.
    struct Served {
        watch: Watch,
        activity: Arc<Activity>,
        patience: Patience,
    }

    impl Served {
        fn new() -> Self {
            let (second, watch) = (Duration::from_secs(1), Watch::default());
            let (_, activity) = watch.begin();
            activity.has_read(500);
            activity.serves();
            let rates = Rates {
                grace: 2 * second,
                body: 100,
                answer: 100,
            };
            let patience = Patience {
                first_byte: second,
                head: second,
                idle: second,
                write: 10 * second,
                rates: Some(rates),
            };
            Self {
                watch,
                activity,
                patience,
            }
        }

        /// What is given up on within so many sweeps, `between` which something happens.
        fn after(&self, sweeps: usize, between: impl Fn(&Activity)) -> Option<Awaited> {
            (0..sweeps).find_map(|_| {
                between(&self.activity);
                self.watch.ticks.fetch_add(1, Relaxed);
                self.activity.look(&self.patience)
            })
        }
    }

    #[test]
    fn a_body_must_come_at_a_rate_for_as_long_as_it_is_waited_for() {
        let comes = |bytes| {
            move |activity: &Activity| {
                activity.has_read(bytes);
                assert_eq!(activity.awaits_body(Waker::noop()), Ok(()));
            }
        };
        assert_eq!(Served::new().after(9, comes(1)), Some(Awaited::Body));
        assert_eq!(Served::new().after(1000, comes(25)), None);
        // What nobody reads is not waited for.
        assert_eq!(Served::new().after(1000, |_| {}), None);

        let slow = Served::new();
        slow.after(9, comes(0));
        let still = slow.activity.awaits_body(Waker::noop());
        assert_eq!(still, Err(TooSlow), "its reader is told");
        assert_eq!(slow.after(100, |_| {}), None, "and it is counted once");
        slow.activity.serves();
        assert_eq!(
            slow.activity.awaits_body(Waker::noop()),
            Ok(()),
            "the next one begins anew"
        );
    }

    #[test]
    fn an_answer_must_be_taken_at_a_rate_for_as_long_as_there_is_more_of_it() {
        let takes = |bytes| {
            move |activity: &Activity| {
                activity.has_written(bytes);
                activity.cannot_write();
            }
        };
        assert_eq!(Served::new().after(9, takes(1)), Some(Awaited::Reader));
        assert_eq!(Served::new().after(1000, takes(25)), None);
        assert_eq!(Served::new().after(1000, |activity| activity.has_written(1)), None);
    }
}
