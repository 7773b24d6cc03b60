use std::sync::Arc;

use policies::bulkhead::{Entrant, Entry};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

const fn settings(limit: SlotLimit) -> SlotSettings {
    SlotSettings {
        limit,
        queue: None,
        tenant_share: None,
    }
}

fn fixed(slots: u32) -> SlotSettings {
    settings(SlotLimit::Fixed(number(slots)))
}

fn adaptive(from: u32, to: u32) -> SlotSettings {
    settings(SlotLimit::Adaptive(AdaptiveSettings {
        from: number(from),
        to: number(to),
    }))
}

/// Control of a bulkhead, as a backend has it.
struct Slots {
    control: SlotControl,
    bulkhead: Arc<Bulkhead<SlotNotifier>>,
}

impl Slots {
    fn new(settings: SlotSettings) -> Self {
        let control = SlotControl::new(settings, at(0));
        let limits = control.current();
        let bulkhead = Bulkhead::new(limits.slots, limits.places).with_tenant_share(limits.tenant_share);
        Self {
            control,
            bulkhead: Arc::new(bulkhead),
        }
    }

    /// Returns slots under a rule that knows the latency of a call that does not wait: 10 ms.
    fn learned() -> Self {
        let slots = Self::new(adaptive(4, 200));
        slots.record(10, 0);
        slots
    }

    fn take_effect(&self, settings: SlotSettings, now: u64) {
        self.control.take_effect(settings, &self.bulkhead, at(now));
    }

    /// Returns slots, the most for one tenant, and places in the queue.
    fn in_force(&self) -> (u32, u32, u32) {
        let bulkhead = &self.bulkhead;
        let cap = bulkhead.tenant_cap().map_or(bulkhead.limit(), NonZeroU32::get);
        (bulkhead.limit(), cap, bulkhead.queue_limit())
    }

    fn enter(&self, tenant: u64) -> (Entry<SlotNotifier>, oneshot::Receiver<()>) {
        let (ring, heard) = oneshot::channel();
        let entrant = Entrant {
            tenant,
            tier: 0,
            weight: 1,
            deadline: Moment::MAX,
        };
        (self.bulkhead.enter(at(0), entrant, || SlotNotifier::new(ring)), heard)
    }

    /// Takes all slots that there are, each for a tenant of its own.
    fn fill(&self) -> Vec<Entry<SlotNotifier>> {
        let all = (0..u64::from(self.bulkhead.limit())).map(|tenant| self.enter(tenant).0);
        all.collect()
    }

    /// Records as many results as make the number change, if it changes: one a millisecond, for two seconds.
    fn record(&self, latency: u64, from: u64) {
        for now in from..from + 2_000 {
            self.control
                .record(Duration::from_millis(latency), &self.bulkhead, at(now));
        }
    }
}

#[test]
fn queue_and_share_follow_the_number_unless_they_are_written() {
    let check = |settings, expected| assert_eq!(Slots::new(settings).in_force(), expected, "{settings:?}");
    check(fixed(10), (10, 8, 10));
    check(fixed(4), (4, 4, 4));
    check(adaptive(4, 200), (20, 16, 20));
    check(adaptive(1, 4), (4, 4, 4));
    let written = SlotSettings {
        queue: Some(7),
        tenant_share: Ratio::new(0.5),
        ..adaptive(4, 200)
    };
    check(written, (20, 10, 7));
    let without = SlotSettings {
        queue: Some(0),
        ..written
    };
    assert!(written.has_queue() && !without.has_queue());
}

#[test]
fn a_reload_keeps_what_was_found() {
    let slots = Slots::learned();
    let held = slots.fill();
    slots.record(10, 2_000);
    let found = slots.bulkhead.limit();
    assert!(found > 20, "{found}");
    for (settings, expected) in [
        (adaptive(4, 200), found),
        (adaptive(4, 10), 10),
        (adaptive(30, 200), 30),
        // A number, and back: the search begins at the number.
        (fixed(7), 7),
        (fixed(50), 50),
        (adaptive(4, 200), 50),
        (adaptive(4, 40), 40),
    ] {
        slots.take_effect(settings, 4_000);
        assert_eq!(slots.bulkhead.limit(), expected, "{settings:?}");
        assert_eq!(slots.bulkhead.queue_limit(), expected, "{settings:?}");
    }
    drop(held);
}

#[test]
fn waiting_calls_get_the_slots_that_the_search_adds() {
    let slots = Slots::learned();
    let _held = slots.fill();
    let (entry, mut heard) = slots.enter(99);
    let Entry::Queued(ticket) = entry else {
        panic!("there is no slot left");
    };
    assert_eq!(heard.try_recv(), Err(TryRecvError::Empty));
    slots.record(10, 2_000);
    assert_eq!(heard.try_recv(), Ok(()));
    assert!(ticket.claim(at(4_000)).is_ok());
}

#[test]
fn one_tenant_that_has_all_it_may_have_uses_the_limit() {
    let slots = Slots::learned();
    let _held: Vec<_> = (0..16).map(|_| slots.enter(1).0).collect();
    let (entry, mut heard) = slots.enter(1);
    assert!(matches!(entry, Entry::Queued(_)));
    assert_eq!((slots.bulkhead.in_use(), slots.bulkhead.limit()), (16, 20));
    slots.record(10, 2_000);
    assert_eq!(heard.try_recv(), Ok(()));
}

#[test]
fn a_limit_that_is_not_used_stays() {
    let slots = Slots::learned();
    let _held = slots.enter(1);
    slots.record(10, 2_000);
    assert_eq!(slots.in_force(), (20, 16, 20));
}

/// A result that comes after the number was written by hand changes nothing.
#[test]
fn a_late_result_does_not_undo_a_number() {
    let slots = Slots::learned();
    let _held = slots.fill();
    slots.take_effect(fixed(5), 2_000);
    slots.record(10, 2_000);
    assert_eq!(slots.in_force(), (5, 4, 5));
}

/// Threads that learn and threads that reload at once leave the latest in force, whoever comes last.
#[test]
fn the_bulkhead_ends_with_the_latest_number() {
    for round in 0..20 {
        let slots = Slots::new(adaptive(1, 100_000));
        let _held = slots.fill();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let slots = &slots;
                scope.spawn(move || slots.record(10 + thread, round * 2_000));
            }
            let slots = &slots;
            scope.spawn(move || {
                for change in 0..200 {
                    slots.take_effect(adaptive(1, 100 + change % 7 * 10), round * 2_000);
                }
            });
        });
        let (limits, in_force) = (slots.control.current(), slots.in_force());
        assert_eq!((limits.slots.get(), limits.places), (in_force.0, in_force.2), "{round}");
    }
}
