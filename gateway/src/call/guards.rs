//! Waits for a slot of a bulkhead. The bulkhead orders the tickets; this file does the waiting.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use policies::bulkhead::{self, Bulkhead, Entrant, Entry, Signal, Unserved};
use policies::{Deadline, Moment};
use tokio::sync::oneshot;

use super::timer::Timer;
use crate::clock;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// Signal sent once to a waiting call: a slot is free, or a call with a higher claim took its place in the queue.
pub struct SlotNotifier(oneshot::Sender<()>);

#[cfg(test)]
impl SlotNotifier {
    pub(crate) const fn new(ring: oneshot::Sender<()>) -> Self {
        Self(ring)
    }
}

impl Signal for SlotNotifier {
    fn signal(self) {
        // Without a receiver, the caller has left. Its dropped ticket passes the slot on.
        let _ = self.0.send(());
    }
}

/// Ids of the settings that can refuse a call its slot.
#[derive(Debug, Clone, Copy)]
pub struct BulkheadSettingIds {
    /// The bulkhead as a whole.
    pub slots: SettingId,
    pub wait: SettingId,
}

pub type Slot = bulkhead::Slot<SlotNotifier>;

/// `Retry-After` of a full bulkhead. Nothing better is known.
const COME_BACK: Duration = Duration::from_secs(1);

/// Returns the rejection of a call without a slot and without a place in the queue.
pub(super) const fn full(by: &BulkheadSettingIds) -> Rejection {
    Rejection::BulkheadFull {
        retry_after: COME_BACK,
        by: by.slots,
    }
}

/// Resolution of timers. If less time than this is left, the deadline ended the wait.
const LEEWAY: Duration = Duration::from_millis(2);

/// Enters the bulkhead, whose settings have the ids `by`. Waits at most `wait`, and stops early enough to leave `minimum` of the deadline. `time`
/// is the setting that the deadline comes from. `now` becomes the end of the wait, if there is one.
///
/// # Errors
/// Returns `bulkhead_full`, `bulkhead_timeout`, or `out_of_time` if the deadline ended the wait.
pub(crate) async fn enter(
    bulkhead: &Arc<Bulkhead<SlotNotifier>>,
    entrant: Entrant,
    now: &mut Moment,
    (wait, by): (Duration, &BulkheadSettingIds),
    (deadline, time): (Deadline, Option<SettingId>),
    minimum: Duration,
    timer: &mut Timer,
) -> Result<Slot, Rejection> {
    let full = || full(by);
    let last = *now + wait.min(deadline.remaining(*now).saturating_sub(minimum));
    let mut bell = None;
    let entry = bulkhead.enter(
        *now,
        Entrant {
            deadline: last,
            ..entrant
        },
        || {
            let (ring, heard) = oneshot::channel();
            bell = Some(heard);
            SlotNotifier(ring)
        },
    );
    let ticket = match entry {
        Entry::Admitted(slot) => return Ok(slot),
        Entry::Full => return Err(full()),
        Entry::Queued(ticket) => ticket,
    };
    if let Some(heard) = bell {
        // With or without a signal, the ticket knows its state.
        let _ = timer.run(last, pin!(heard)).await;
    }
    *now = clock::now();
    ticket.claim(*now).map_err(|unserved| match unserved {
        Unserved::Displaced => full(),
        Unserved::TimedOut if deadline.allows(*now, Duration::ZERO, minimum + LEEWAY) => Rejection::BulkheadTimeout {
            retry_after: COME_BACK,
            by: by.wait,
        },
        Unserved::TimedOut => Rejection::OutOfTime(time),
    })
}
