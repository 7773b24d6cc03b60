//! Ends connections that keep us waiting: for their first bytes, for a whole head, for room to write an answer.
//!
//! One coarse sweep per worker instead of a timer per connection: a connection notes in atomics what it is doing,
//! and the sweep ends what has been at it for too long. The time is the sweep's own, so noting costs no clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::AbortHandle;

/// How often connections are looked at. Nobody has less time than a limit says, and at most two ticks more.
const TICK: Duration = Duration::from_millis(250);

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
}

const FRESH: u8 = 0;
const AWAITING_HEAD: u8 = 1;
const SERVING: u8 = 2;
const IDLE: u8 = 3;
/// Idle for too long, and about to be ended.
const DISMISSED: u8 = 4;
/// Too slow in sending a head, and about to be ended.
const LATE: u8 = 5;

/// What one connection is doing, and since which tick.
#[derive(Debug)]
pub(crate) struct Activity {
    doing: AtomicU8,
    since: AtomicU32,
    /// Since when the caller takes nothing; 0 while it does.
    stalled: AtomicU32,
    /// Another protocol is spoken.
    switched: AtomicBool,
    ticks: Arc<AtomicU32>,
}

impl Activity {
    fn note(&self, doing: u8) {
        self.doing.store(doing, Relaxed);
        self.since.store(self.ticks.load(Relaxed), Relaxed);
    }

    /// Bytes have come from the caller.
    pub(crate) fn has_read(&self) {
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

    /// A whole head has come.
    pub(crate) fn serves(&self) {
        self.note(SERVING);
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

    /// Bytes have gone to the caller.
    pub(crate) fn has_written(&self) {
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

    fn is_overdue(&self, patience: &Patience) -> bool {
        let now = self.ticks.load(Relaxed);
        // The tick it began in was under way already, so only the whole ones since then are certain.
        let longer = |since: u32, limit| TICK * now.wrapping_sub(since).saturating_sub(1) >= limit;
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 && longer(stalled, patience.write) {
            return true;
        }
        match self.doing.load(Relaxed) {
            FRESH => longer(self.since.load(Relaxed), patience.first_byte),
            AWAITING_HEAD => longer(self.since.load(Relaxed), patience.head),
            IDLE => longer(self.since.load(Relaxed), patience.idle),
            _ => false,
        }
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

    /// Looks at all connections, for ever.
    pub(crate) async fn sweep(&self, patience: impl Fn() -> Patience) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.ticks.fetch_add(1, Relaxed);
            let patience = patience();
            for (activity, task) in self.lock().connections.values() {
                if let Some(task) = task.as_ref().filter(|_| activity.is_overdue(&patience)) {
                    activity.dismiss();
                    task.abort();
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
        };
        let watch = Watch::default();
        let (_, activity) = watch.begin();
        let wait = |seconds: u32| {
            watch.ticks.fetch_add(seconds * 4, Relaxed);
            activity.is_overdue(&patience)
        };
        assert!(!wait(1));
        assert!(wait(1), "no first byte");
        activity.serves();
        assert!(!wait(100), "a request may take its time");
        activity.cannot_write();
        assert!(!wait(2));
        activity.has_written();
        assert!(!wait(2));
        activity.cannot_write();
        assert!(wait(3), "the caller takes nothing");
        activity.has_written();
        activity.has_answered();
        assert!(!wait(4));
        assert!(wait(1), "idle for too long");
        activity.has_read();
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
        };
        let watch = Watch::default();
        let (_, activity) = watch.begin();
        watch.ticks.fetch_add(1, Relaxed);
        assert!(!activity.is_overdue(&patience), "it may have begun a moment ago");
        watch.ticks.fetch_add(1, Relaxed);
        assert!(activity.is_overdue(&patience));
    }
}
