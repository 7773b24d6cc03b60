//! Waiting for a slot: the bulkhead orders the tickets, this does the waiting.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use policies::bulkhead::{self, Bulkhead, Entrant, Entry, Signal, Unserved};
use policies::{Deadline, Moment};
use tokio::sync::oneshot;

use super::timer::Timer;
use crate::clock;
use crate::rejection::{Rejection, Setting};

/// Rings once: a slot is there, or the place in the queue was given to someone with a better claim.
pub struct SlotNotifier(oneshot::Sender<()>);

impl Signal for SlotNotifier {
    fn signal(self) {
        // Nobody listening means that the caller left; the dropped ticket passes the slot on.
        let _ = self.0.send(());
    }
}

pub type Slot = bulkhead::Slot<SlotNotifier>;

/// A caller is told to come back after this long when a bulkhead has no room; nothing better is known.
const COME_BACK: Duration = Duration::from_secs(1);

/// Timers are no finer than this: with less left, it was the deadline that ended the wait.
const LEEWAY: Duration = Duration::from_millis(2);

/// Enters the bulkhead, waiting for at most `wait` and never so long that less than `minimum` of the deadline is left,
/// which is the limit `time`.
///
/// # Errors
/// `bulkhead_full`, `bulkhead_timeout`, or `out_of_time` where the deadline came before the end of the wait.
pub(crate) async fn enter(
    bulkhead: &Arc<Bulkhead<SlotNotifier>>,
    entrant: Entrant,
    now: Moment,
    wait: Duration,
    (deadline, time): (Deadline, Setting),
    minimum: Duration,
    timer: &mut Timer,
) -> Result<Slot, Rejection> {
    let last = now + wait.min(deadline.remaining(now).saturating_sub(minimum));
    let mut bell = None;
    let entry = bulkhead.enter(
        now,
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
        Entry::Full => return Err(Rejection::BulkheadFull { retry_after: COME_BACK }),
        Entry::Queued(ticket) => ticket,
    };
    if let Some(heard) = bell {
        // Heard or not, the ticket knows how it stands.
        let _ = timer.run(last, pin!(heard)).await;
    }
    let now = clock::now();
    ticket.claim(now).map_err(|unserved| match unserved {
        Unserved::Displaced => Rejection::BulkheadFull { retry_after: COME_BACK },
        Unserved::TimedOut if deadline.allows(now, Duration::ZERO, minimum + LEEWAY) => {
            Rejection::BulkheadTimeout { retry_after: COME_BACK }
        }
        Unserved::TimedOut => Rejection::OutOfTime(time),
    })
}
