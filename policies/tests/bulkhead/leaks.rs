//! Checks that slots come back however their holders end.

use policies::bulkhead::{Entrant, Entry, Outcomes, Signal, Slot, Ticket, Unserved};
use policies::{Bulkhead, Moment, Ratio};
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

struct Unheard;

impl Signal for Unheard {
    fn signal(self) {}
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

/// Unwinds with the held value, as a panic does, without a message.
fn panic_with<T>(held: T) {
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _held = held;
        resume_unwind(Box::new("as a panic does"));
    }));
    assert!(unwound.is_err());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter {
        tenant: u64,
        patience: u64,
    },
    Release,
    DropSlot,
    PanicWithSlot,
    /// Claims at the signal or before it, in time or late.
    Claim,
    Cancel,
    PanicWithTicket,
    Reconfigure {
        limit: u32,
        queue: u32,
        share: f64,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let share = || prop::sample::select(vec![0.3, 0.6, 1.0]);
    prop_oneof![
        10 => (0..4u64, 0..60u64).prop_map(|(tenant, patience)| Step::Enter { tenant, patience }),
        2 => Just(Step::Release),
        1 => Just(Step::DropSlot),
        1 => Just(Step::PanicWithSlot),
        3 => Just(Step::Claim),
        1 => Just(Step::Cancel),
        1 => Just(Step::PanicWithTicket),
        1 => (1..6u32, 0..8u32, share()).prop_map(|(limit, queue, share)| Step::Reconfigure { limit, queue, share }),
    ]
}

/// Takes one value out at random, if there is any.
fn pick<T>(from: &mut Vec<T>, which: prop::sample::Index) -> Option<T> {
    (!from.is_empty()).then(|| {
        let index = which.index(from.len());
        from.swap_remove(index)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..cases::counted() })]

    #[test]
    fn all_slots_come_back_and_each_entrant_is_counted_once(
        mut limit in 1..6u32, queue in 0..8u32,
        steps in prop::collection::vec((steps(), 0..15u64, any::<prop::sample::Index>()), 1..150),
    ) {
        let bulkhead = Arc::new(Bulkhead::new(NonZeroU32::new(limit).unwrap(), queue));
        let (mut slots, mut tickets): (Vec<Slot<Unheard>>, Vec<Ticket<Unheard>>) = (vec![], vec![]);
        let (mut now, mut entered, mut seen) = (0, 0, Outcomes::default());
        // Includes slots from before the limit was lowered.
        let mut most = limit;
        for (step, pause, which) in steps {
            now += pause;
            match step {
                Step::Enter { tenant, patience } => {
                    entered += 1;
                    let entrant = Entrant { tenant, tier: tenant as u32 % 2, weight: 3, deadline: at(now + patience) };
                    match bulkhead.enter(at(now), entrant, || Unheard) {
                        Entry::Admitted(slot) => {
                            seen.admitted += 1;
                            slots.push(slot);
                        }
                        Entry::Queued(ticket) => tickets.push(ticket),
                        Entry::Full => seen.full += 1,
                    }
                }
                Step::Release => pick(&mut slots, which).into_iter().for_each(|slot| slot.release(at(now))),
                Step::DropSlot => drop(pick(&mut slots, which)),
                Step::PanicWithSlot => panic_with(pick(&mut slots, which)),
                Step::Claim => match pick(&mut tickets, which).map(|ticket| ticket.claim(at(now))) {
                    Some(Ok(slot)) => {
                        seen.admitted += 1;
                        slots.push(slot);
                    }
                    Some(Err(Unserved::Displaced)) => seen.full += 1,
                    Some(Err(Unserved::TimedOut)) => seen.timed_out += 1,
                    None => {}
                },
                Step::Cancel => drop(pick(&mut tickets, which)),
                Step::PanicWithTicket => panic_with(pick(&mut tickets, which)),
                Step::Reconfigure { limit: next, queue, share } => {
                    limit = next;
                    let (limit, share) = (NonZeroU32::new(limit).unwrap(), Ratio::new(share).unwrap());
                    bulkhead.reconfigure(limit, queue, share, at(now));
                }
            }
            most = limit.max(most.min(bulkhead.in_use()));
            prop_assert!(bulkhead.in_use() <= most);
            prop_assert!(bulkhead.in_use() as usize >= slots.len());
            prop_assert!(bulkhead.waiting() as usize <= tickets.len());
        }
        drop((slots, tickets));
        prop_assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
        let outcomes = bulkhead.outcomes();
        let Outcomes { admitted, full, timed_out, left } = outcomes;
        prop_assert_eq!(admitted, seen.admitted);
        prop_assert!(full >= seen.full && timed_out >= seen.timed_out);
        prop_assert_eq!(admitted + full + timed_out + left, entered, "{:?}", outcomes);
    }
}
