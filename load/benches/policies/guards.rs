//! Measures the guards before every call: the breaker while it is closed, and the bulkhead while there is room.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use policies::breaker::Outcome;
use policies::bulkhead::{Entrant, Entry, Signal};
use policies::{Breaker, BreakerSettings, Bulkhead, Moment};

use crate::moments::Moments;
use crate::rounds::Subject;

/// Signal that is never given, because no call waits here.
struct Nobody;

impl Signal for Nobody {
    fn signal(self) {}
}

pub(crate) fn subjects() -> Vec<Subject> {
    let breaker = Arc::new(Breaker::new(BreakerSettings::default()));
    let bulkhead = Arc::new(Bulkhead::<Nobody>::new(NonZeroU32::new(100).expect("above zero"), 100));
    let entrant = Entrant {
        tenant: 1,
        tier: 1,
        weight: 1,
        deadline: Moment::MAX,
    };
    let took = Duration::from_millis(1);
    let moments = Moments::new();
    let more = moments.clone();
    vec![
        Subject::new(
            "breaker closed: admit and record a success, told the time",
            move |decisions, _| {
                for now in moments.next(decisions) {
                    if let Ok(permit) = breaker.admit(now) {
                        black_box(breaker.record(permit, Outcome::Success { took }, now));
                    }
                }
            },
        ),
        Subject::new(
            "bulkhead with room: enter and leave, told the time",
            move |decisions, _| {
                for now in more.next(decisions) {
                    if let Entry::Admitted(slot) = bulkhead.enter(now, entrant, || Nobody) {
                        black_box(slot).release(now);
                    }
                }
            },
        ),
    ]
}
