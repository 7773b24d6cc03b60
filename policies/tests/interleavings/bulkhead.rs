//! Checks entering, leaving, handing over, giving up, being displaced and a reload at once. Never more calls are inside
//! than slots, every slot comes back, and every waiter is woken (else the model ends in a deadlock, which loom
//! reports).

use super::{at, explore};
use loom::sync::Notify;
use loom::thread;
use policies::bulkhead::{Entrant, Entry, Outcomes, Signal, Slot, Ticket, Unserved};
use policies::{Bulkhead, Ratio};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// Wakes a waiter. A wait may end without a signal, hence the flag.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    notify: Notify,
}

impl Bell {
    fn wait(&self) {
        while !self.rung.load(SeqCst) {
            self.notify.wait();
        }
    }
}

struct Wake(Arc<Bell>);

impl Signal for Wake {
    fn signal(self) {
        self.0.rung.store(true, SeqCst);
        self.0.notify.notify();
    }
}

struct Subject {
    bulkhead: Arc<Bulkhead<Wake>>,
    limit: u32,
    inside: Arc<AtomicU32>,
}

/// Ticket, and the bell that signals it.
struct Waiting(Ticket<Wake>, Arc<Bell>);

impl Clone for Subject {
    fn clone(&self) -> Subject {
        Subject {
            bulkhead: Arc::clone(&self.bulkhead),
            limit: self.limit,
            inside: Arc::clone(&self.inside),
        }
    }
}

impl Subject {
    fn new(limit: u32, queue: u32) -> Subject {
        Subject {
            bulkhead: Arc::new(Bulkhead::new(NonZeroU32::new(limit).unwrap(), queue)),
            limit,
            inside: Arc::default(),
        }
    }

    /// Returns a bulkhead of two slots, of which a tenant may hold one.
    fn shared(queue: u32) -> Subject {
        let half = Ratio::new(0.5).unwrap();
        let bulkhead = Bulkhead::new(NonZeroU32::new(2).unwrap(), queue).with_tenant_share(half);
        Subject {
            bulkhead: Arc::new(bulkhead),
            limit: 2,
            inside: Arc::default(),
        }
    }

    /// Enters as tenant number `patience`, which waits for this many seconds.
    fn enter(&self, patience: u64) -> Result<Slot<Wake>, Option<Waiting>> {
        let entrant = Entrant {
            tenant: patience,
            tier: 0,
            weight: 1,
            deadline: at(patience * 1_000),
        };
        let bell = Arc::new(Bell::default());
        match self.bulkhead.enter(at(0), entrant, || Wake(Arc::clone(&bell))) {
            Entry::Admitted(slot) => Ok(slot),
            Entry::Queued(ticket) => Err(Some(Waiting(ticket, bell))),
            Entry::Full => Err(None),
        }
    }

    fn slot(&self) -> Slot<Wake> {
        self.enter(0).ok().expect("a slot is free")
    }

    fn waiting(&self, patience: u64) -> Waiting {
        self.enter(patience).err().flatten().expect("there is room to wait")
    }

    /// Enters, waits for the signal if necessary, works and leaves. Returns whether there was a slot.
    fn visit(&self, patience: u64) -> bool {
        match self.enter(patience) {
            Ok(slot) => self.work(slot),
            Err(Some(waiting)) => return self.wait(waiting).is_ok(),
            Err(None) => return false,
        }
        true
    }

    fn wait(&self, Waiting(ticket, bell): Waiting) -> Result<(), Unserved> {
        bell.wait();
        self.work(ticket.claim(at(0))?);
        Ok(())
    }

    fn work(&self, slot: Slot<Wake>) {
        assert!(self.inside.fetch_add(1, SeqCst) < self.limit, "more inside than slots");
        thread::yield_now();
        self.inside.fetch_sub(1, SeqCst);
        drop(slot);
    }

    fn spawn<R: 'static>(&self, step: impl FnOnce(&Subject) -> R + 'static) -> thread::JoinHandle<R> {
        let subject = self.clone();
        thread::spawn(move || step(&subject))
    }

    /// Checks at the end that nothing is left, and the numbers of `[admitted, full, timed out, left]`.
    fn check(&self, [admitted, full, timed_out, left]: [u64; 4]) {
        let outcomes = Outcomes {
            admitted,
            full,
            timed_out,
            left,
        };
        assert_eq!(self.bulkhead.outcomes(), outcomes);
        assert_eq!((self.bulkhead.in_use(), self.bulkhead.waiting()), (0, 0));
    }
}

#[test]
fn a_slot_that_comes_back_is_found_by_whoever_enters() {
    explore("bulkhead: a release beside an entering", || {
        let subject = Subject::new(1, 1);
        let slot = subject.slot();
        let visitor = subject.spawn(|s| s.visit(1));
        slot.release(at(0));
        assert!(visitor.join().unwrap());
        subject.check([2, 0, 0, 0]);
    });
}

#[test]
fn everyone_who_waits_is_woken() {
    explore("bulkhead: two visitors beside a release", || {
        let subject = Subject::new(1, 2);
        let slot = subject.slot();
        let visitors = [1, 2].map(|tenant| subject.spawn(move |s| s.visit(tenant)));
        slot.release(at(0));
        assert!(visitors.into_iter().all(|visitor| visitor.join().unwrap()));
        subject.check([3, 0, 0, 0]);
    });
}

#[test]
fn two_slots_let_two_in() {
    explore("bulkhead: three visitors of two slots", || {
        let subject = Subject::new(2, 1);
        let visitors = [1, 2].map(|tenant| subject.spawn(move |s| s.visit(tenant)));
        assert!(subject.visit(3));
        assert!(visitors.into_iter().all(|visitor| visitor.join().unwrap()));
        subject.check([3, 0, 0, 0]);
    });
}

#[test]
fn without_a_queue_there_is_a_slot_or_none() {
    explore("bulkhead: three visitors of one slot, no queue", || {
        let subject = Subject::new(1, 0);
        let visitors = [1, 2].map(|tenant| subject.spawn(move |s| s.visit(tenant)));
        let mut admitted = u64::from(subject.visit(3));
        for visitor in visitors {
            admitted += u64::from(visitor.join().unwrap());
        }
        assert!(admitted >= 1);
        subject.check([admitted, 3 - admitted, 0, 0]);
    });
}

#[test]
fn a_slot_handed_to_one_who_leaves_goes_to_the_next() {
    explore("bulkhead: a release beside a waiter that leaves", || {
        let subject = Subject::new(1, 2);
        let slot = subject.slot();
        let leaves = subject.waiting(1);
        let stays = subject.waiting(2);
        let gone = subject.spawn(move |_| drop(leaves));
        let served = subject.spawn(move |s| s.wait(stays));
        slot.release(at(0));
        gone.join().unwrap();
        assert_eq!(served.join().unwrap(), Ok(()));
        subject.check([2, 0, 0, 1]);
    });
}

#[test]
fn a_slot_that_comes_at_the_deadline_goes_to_the_waiter_or_to_the_next() {
    explore("bulkhead: a release beside a waiter whose time is over", || {
        let subject = Subject::new(1, 2);
        let slot = subject.slot();
        let Waiting(late, _) = subject.waiting(1);
        let stays = subject.waiting(2);
        let gave_up = subject.spawn(move |_| late.claim(at(1_001)).err());
        let served = subject.spawn(move |s| s.wait(stays));
        drop(slot);
        assert_eq!(gave_up.join().unwrap(), Some(Unserved::TimedOut));
        assert_eq!(served.join().unwrap(), Ok(()));
        subject.check([2, 0, 1, 0]);
    });
}

#[test]
fn who_is_displaced_while_it_claims_has_one_outcome() {
    explore("bulkhead: a release beside a displacing and a claim", || {
        let subject = Subject::new(1, 2);
        let slot = subject.slot();
        let first = subject.waiting(1);
        let Waiting(second, _) = subject.waiting(1);
        let newcomer = subject.spawn(|s| s.visit(2));
        let claims = subject.spawn(move |_| second.claim(at(0)).map(drop));
        drop(slot);
        assert_eq!(subject.wait(first), Ok(()));
        assert!(newcomer.join().unwrap());
        let outcomes = match claims.join().unwrap() {
            Ok(()) => [4, 0, 0, 0],
            Err(Unserved::Displaced) => [3, 1, 0, 0],
            // No slot had come at the claim: the waiter counts as having waited until its deadline.
            Err(Unserved::TimedOut) => [3, 0, 1, 0],
        };
        subject.check(outcomes);
    });
}

#[test]
fn a_raised_limit_and_a_slot_that_comes_back_wake_two() {
    explore("bulkhead: a raised limit beside a release", || {
        let subject = Subject {
            limit: 2,
            ..Subject::new(1, 2)
        };
        let slot = subject.slot();
        let waiting = [1, 2].map(|tenant| subject.waiting(tenant));
        let reload = subject.spawn(|s| {
            s.bulkhead
                .reconfigure(NonZeroU32::new(2).unwrap(), 2, Ratio::ONE, at(0))
        });
        let [one, two] = waiting;
        let served = subject.spawn(move |s| s.wait(one));
        drop(slot);
        assert_eq!(subject.wait(two), Ok(()));
        assert_eq!(served.join().unwrap(), Ok(()));
        reload.join().unwrap();
        subject.check([3, 0, 0, 0]);
    });
}

#[test]
fn a_raised_limit_is_seen_by_whoever_enters_meanwhile() {
    explore("bulkhead: a raised limit beside an entering", || {
        let subject = Subject {
            limit: 2,
            ..Subject::new(1, 1)
        };
        let slot = subject.slot();
        let visitor = subject.spawn(|s| s.visit(1));
        subject
            .bulkhead
            .reconfigure(NonZeroU32::new(2).unwrap(), 1, Ratio::ONE, at(0));
        assert!(visitor.join().unwrap());
        drop(slot);
        subject.check([2, 0, 0, 0]);
    });
}

#[test]
fn a_lowered_limit_still_serves_who_waits() {
    explore("bulkhead: a lowered limit beside two releases", || {
        let subject = Subject::new(2, 1);
        let slots = [subject.slot(), subject.slot()];
        let waiting = subject.waiting(1);
        let reload = subject.spawn(|s| s.bulkhead.reconfigure(NonZeroU32::MIN, 1, Ratio::ONE, at(0)));
        let [one, two] = slots;
        let releases = subject.spawn(move |_| drop(one));
        drop(two);
        assert_eq!(subject.wait(waiting), Ok(()));
        releases.join().unwrap();
        reload.join().unwrap();
        subject.check([3, 0, 0, 0]);
    });
}

#[test]
fn a_tenant_at_its_share_gets_the_slot_that_it_gives_back() {
    explore(
        "bulkhead: a tenant at its share waits beside another that visits",
        || {
            let subject = Subject::shared(1);
            let slot = subject.enter(1).ok().expect("a slot is free");
            let waiting = subject.waiting(1);
            let visitor = subject.spawn(|s| s.visit(2));
            let served = subject.spawn(move |s| s.wait(waiting));
            slot.release(at(0));
            assert_eq!(served.join().unwrap(), Ok(()));
            assert!(visitor.join().unwrap());
            subject.check([3, 0, 0, 0]);
        },
    );
}

#[test]
fn a_share_that_comes_back_to_one_who_leaves_goes_to_the_next() {
    explore("bulkhead: two at their share, of whom one leaves", || {
        let subject = Subject::shared(2);
        let slot = subject.enter(1).ok().expect("a slot is free");
        let Waiting(leaves, _) = subject.waiting(1);
        let stays = subject.waiting(1);
        let gone = subject.spawn(move |_| drop(leaves));
        let served = subject.spawn(move |s| s.wait(stays));
        drop(slot);
        gone.join().unwrap();
        assert_eq!(served.join().unwrap(), Ok(()));
        subject.check([2, 0, 0, 1]);
    });
}

#[test]
fn a_lifted_share_wakes_whoever_waited_for_it() {
    explore("bulkhead: a lifted share beside a release", || {
        let subject = Subject::shared(2);
        let slot = subject.enter(1).ok().expect("a slot is free");
        let [one, two] = [1, 1].map(|tenant| subject.waiting(tenant));
        let two_slots = NonZeroU32::new(2).unwrap();
        let reload = subject.spawn(move |s| s.bulkhead.reconfigure(two_slots, 2, Ratio::ONE, at(0)));
        let served = subject.spawn(move |s| s.wait(one));
        drop(slot);
        assert_eq!(subject.wait(two), Ok(()));
        assert_eq!(served.join().unwrap(), Ok(()));
        reload.join().unwrap();
        subject.check([3, 0, 0, 0]);
    });
}

/// Works with the slot of a tenant that may hold only one.
fn works_alone(slot: Slot<Wake>, inside: &AtomicU32) {
    assert_eq!(inside.fetch_add(1, SeqCst), 0, "more of one tenant than its share");
    thread::yield_now();
    inside.fetch_sub(1, SeqCst);
    drop(slot);
}

fn waits_alone(Waiting(ticket, bell): Waiting, inside: &AtomicU32) {
    bell.wait();
    works_alone(ticket.claim(at(0)).ok().expect("nobody is too late"), inside);
}

/// Returns whether there was a slot.
fn visits_alone(subject: &Subject, inside: &AtomicU32) -> bool {
    match subject.enter(1) {
        Ok(slot) => works_alone(slot, inside),
        Err(Some(waiting)) => waits_alone(waiting, inside),
        Err(None) => return false,
    }
    true
}

#[test]
fn no_tenant_has_more_than_its_share_whichever_way_it_enters() {
    explore("bulkhead: two of a tenant that may hold one of two", || {
        let subject = Subject::shared(1);
        let inside = Arc::new(AtomicU32::new(0));
        let visitor = subject.spawn({
            let inside = Arc::clone(&inside);
            move |s| visits_alone(s, &inside)
        });
        assert!(visits_alone(&subject, &inside));
        assert!(visitor.join().unwrap());
        subject.check([2, 0, 0, 0]);
    });
}

#[test]
fn whoever_enters_in_vain_leaves_no_waiter_behind_and_is_none_too_many() {
    explore("bulkhead: a waiter at its share, a release and a newcomer", || {
        let subject = Subject::shared(1);
        let slot = subject.enter(1).ok().expect("a slot is free");
        let waiting = subject.waiting(1);
        let inside = Arc::new(AtomicU32::new(0));
        let served = subject.spawn({
            let inside = Arc::clone(&inside);
            move |_| waits_alone(waiting, &inside)
        });
        let newcomer = subject.spawn(move |s| visits_alone(s, &inside));
        slot.release(at(0));
        served.join().unwrap();
        let entered = u64::from(newcomer.join().unwrap());
        subject.check([2 + entered, 1 - entered, 0, 0]);
    });
}

#[test]
fn two_that_enter_beside_a_release_are_never_one_too_many() {
    explore("bulkhead: a release and two newcomers of its tenant", || {
        let subject = Subject::shared(2);
        let slot = subject.enter(1).ok().expect("a slot is free");
        let inside = Arc::new(AtomicU32::new(0));
        let visitors = [(); 2].map(|()| {
            let inside = Arc::clone(&inside);
            subject.spawn(move |s| visits_alone(s, &inside))
        });
        slot.release(at(0));
        assert!(visitors.into_iter().all(|visitor| visitor.join().unwrap()));
        subject.check([3, 0, 0, 0]);
    });
}

/// Tenants 1 and 3 share a word of the table.
#[test]
fn two_tenants_that_meet_in_the_table_have_a_share_each() {
    explore("bulkhead: two tenants counted in one place", || {
        let subject = Subject::shared(2);
        let slot = subject.enter(1).ok().expect("a slot is free");
        let other = subject.spawn(|s| s.visit(3));
        drop(slot);
        assert!(visits_alone(&subject, &AtomicU32::new(0)));
        assert!(other.join().unwrap());
        subject.check([3, 0, 0, 0]);
    });
}

#[test]
fn one_that_does_not_wait_takes_no_slot_from_those_who_do() {
    explore("bulkhead: one who tries beside one who waits", || {
        let subject = Subject::shared(1);
        let slot = subject.enter(1).ok().expect("a slot is free");
        let tries = subject.spawn(|s| s.bulkhead.try_enter(1).map(drop).is_some());
        let visitor = subject.spawn(|s| s.visit(1));
        drop(slot);
        let waited = u64::from(visitor.join().unwrap());
        let entered = u64::from(tries.join().unwrap());
        subject.check([1 + waited + entered, 1 - waited, 0, 0]);
    });
}
