use super::*;
use proptest::prelude::*;
use std::sync::Mutex;
use std::time::Duration;

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

/// Signal that writes its name into a list.
struct Bell(Arc<Mutex<String>>, char);

impl Signal for Bell {
    fn signal(self) {
        self.0.lock().unwrap().push(self.1);
    }
}

struct Script {
    bulkhead: Arc<Bulkhead<Bell>>,
    rung: Arc<Mutex<String>>,
    slots: Vec<(char, Slot<Bell>)>,
    tickets: Vec<(char, Ticket<Bell>)>,
}

/// Step of a test. The letter is the tenant; several rows may use it. A tenant gives back its oldest slot, claims its
/// oldest ticket, and is refused or leaves with its newest.
enum Do {
    /// Enters with a deadline (ms).
    Admitted(char),
    Queued(char, u64),
    /// Enters the queue in the place of another waiter, which is signalled.
    Displaces(char, &'static str),
    Full(char),
    /// Gives a slot back and tells the time; the text names the waiters signalled.
    Release(char, &'static str),
    DropSlot(char, &'static str),
    Claims(char),
    Unclaimed(char, Unserved),
    DropTicket(char, &'static str),
    Reconfigure(u32, u32, f64, &'static str),
}
use Do::*;

impl Script {
    fn new(limit: u32, queue: u32, share: f64) -> Script {
        let bulkhead = Bulkhead::new(NonZeroU32::new(limit).unwrap(), queue);
        Script {
            bulkhead: Arc::new(bulkhead.with_tenant_share(Ratio::new(share).unwrap())),
            rung: Arc::default(),
            slots: vec![],
            tickets: vec![],
        }
    }

    fn enter(&mut self, name: char, now: u64, deadline: u64) -> &'static str {
        let entrant = Entrant {
            tenant: u64::from(name),
            tier: 0,
            weight: 1,
            deadline: at(deadline),
        };
        let rung = Arc::clone(&self.rung);
        let foreseen = self.bulkhead.foresee(entrant);
        let (word, expected) = match self.bulkhead.enter(at(now), entrant, || Bell(rung, name)) {
            Entry::Admitted(slot) => {
                self.slots.push((name, slot));
                ("admitted", Foreseen::Admitted)
            }
            Entry::Queued(ticket) => {
                self.tickets.push((name, ticket));
                ("queued", Foreseen::Queued)
            }
            Entry::Full => ("full", Foreseen::Full),
        };
        assert_eq!(foreseen, expected);
        word
    }

    fn slot(&mut self, name: char) -> Slot<Bell> {
        let index = self.slots.iter().position(|slot| slot.0 == name).unwrap();
        self.slots.remove(index).1
    }

    fn ticket(&mut self, name: char) -> Ticket<Bell> {
        let index = self.tickets.iter().rposition(|ticket| ticket.0 == name).unwrap();
        self.tickets.remove(index).1
    }

    /// Returns the names signalled since the last call.
    fn rung(&self) -> String {
        std::mem::take(&mut *self.rung.lock().unwrap())
    }

    fn step(&mut self, now: u64, what: &Do) {
        let mut signalled = "";
        match *what {
            Admitted(name) => assert_eq!(self.enter(name, now, now), "admitted"),
            Queued(name, deadline) => assert_eq!(self.enter(name, now, deadline), "queued"),
            Displaces(name, rings) => {
                assert_eq!(self.enter(name, now, 99), "queued");
                signalled = rings;
            }
            Full(name) => assert_eq!(self.enter(name, now, 99), "full"),
            Release(name, rings) => {
                self.slot(name).release(at(now));
                signalled = rings;
            }
            DropSlot(name, rings) => {
                drop(self.slot(name));
                signalled = rings;
            }
            Claims(name) => {
                let index = self.tickets.iter().position(|ticket| ticket.0 == name).unwrap();
                let ticket = self.tickets.remove(index).1;
                let slot = ticket.claim(at(now)).unwrap_or_else(|why| panic!("{why:?}"));
                self.slots.push((name, slot));
            }
            Unclaimed(name, why) => assert_eq!(self.ticket(name).claim(at(now)).err(), Some(why)),
            DropTicket(name, rings) => {
                drop(self.ticket(name));
                signalled = rings;
            }
            Reconfigure(limit, queue, share, rings) => {
                let (limit, share) = (NonZeroU32::new(limit).unwrap(), Ratio::new(share).unwrap());
                self.bulkhead.reconfigure(limit, queue, share, at(now));
                signalled = rings;
            }
        }
        assert_eq!(self.rung(), signalled, "at {now} ms");
    }
}

/// Runs the rows, which must end every call, and checks the outcomes `[admitted, full, timed out, left]`.
fn check(limit: u32, queue: u32, rows: &[(u64, Do)], outcomes: [u64; 4]) {
    check_share(limit, queue, 1.0, rows, outcomes);
}

fn check_share(limit: u32, queue: u32, share: f64, rows: &[(u64, Do)], outcomes: [u64; 4]) {
    let mut script = Script::new(limit, queue, share);
    for (now, what) in rows {
        script.step(*now, what);
    }
    let bulkhead = Arc::clone(&script.bulkhead);
    assert_eq!(bulkhead.in_use() as usize, script.slots.len());
    drop(script);
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
    let [admitted, full, timed_out, left] = outcomes;
    assert_eq!(
        bulkhead.outcomes(),
        Outcomes {
            admitted,
            full,
            timed_out,
            left
        }
    );
}

#[test]
fn admits_up_to_the_limit() {
    check(
        2,
        0,
        &[(0, Admitted('a')), (0, Admitted('a')), (0, Full('b'))],
        [2, 1, 0, 0],
    );
    check(
        1,
        0,
        &[(0, Admitted('a')), (0, Release('a', "")), (0, Admitted('b'))],
        [2, 0, 0, 0],
    );
}

#[test]
fn says_how_many_are_in_and_how_many_wait() {
    let mut script = Script::new(1, 9, 1.0);
    let counts = |script: &Script| (script.bulkhead.in_use(), script.bulkhead.waiting());
    script.step(0, &Admitted('a'));
    script.step(0, &Queued('b', 99));
    script.step(0, &Queued('c', 99));
    assert_eq!(counts(&script), (1, 2));
    script.step(1, &Release('a', "b"));
    assert_eq!(counts(&script), (1, 1));
    let shown = format!("{:?}", script.bulkhead);
    assert!(
        shown.starts_with("Bulkhead { in_use: 1, limit: 1, waiting: 1, "),
        "{shown}"
    );
}

#[test]
fn hands_a_slot_to_the_next_who_waits() {
    check(
        1,
        9,
        &[
            (0, Admitted('a')),
            (0, Queued('b', 99)),
            (0, Queued('c', 99)),
            (1, Release('a', "b")),
            (1, Queued('d', 99)),
            (2, Claims('b')),
            (3, DropSlot('b', "c")),
            (4, Claims('c')),
            (5, Release('c', "d")),
            (6, Claims('d')),
            (7, Release('d', "")),
            (7, Admitted('e')),
        ],
        [5, 0, 0, 0],
    );
}

#[test]
fn those_who_are_late_are_dropped_before_they_are_served() {
    check(
        1,
        9,
        &[
            (0, Admitted('a')),
            (0, Queued('b', 10)),
            (0, Queued('c', 20)),
            (0, Queued('d', 10)),
            (11, Release('a', "cb")),
            (11, Unclaimed('b', Unserved::TimedOut)),
            (20, Claims('c')),
            (21, Release('c', "d")),
            (21, Unclaimed('d', Unserved::TimedOut)),
            (21, Admitted('e')),
        ],
        [3, 0, 2, 0],
    );
}

#[test]
fn a_slot_that_comes_too_late_goes_to_the_next() {
    let mut script = Script::new(1, 9, 1.0);
    script.step(0, &Admitted('a'));
    script.step(0, &Queued('b', 10));
    script.step(0, &Queued('c', 20));
    script.step(9, &Release('a', "b"));
    assert_eq!(script.ticket('b').claim(at(11)).err(), Some(Unserved::TimedOut));
    assert_eq!(script.rung(), "c");
    script.step(20, &Claims('c'));
}

#[test]
fn who_waits_no_longer_leaves_the_queue() {
    check(
        1,
        9,
        &[
            (0, Admitted('a')),
            (0, Queued('b', 10)),
            (0, Queued('c', 10)),
            (0, Queued('d', 10)),
            (10, Unclaimed('b', Unserved::TimedOut)),
            (10, DropTicket('c', "")),
            (10, Release('a', "d")),
            // Served, and then dropped.
            (10, DropTicket('d', "")),
            (10, Admitted('e')),
        ],
        [2, 0, 1, 2],
    );
    check(
        1,
        9,
        &[
            (0, Admitted('a')),
            (0, Queued('b', 10)),
            (0, Queued('c', 10)),
            (0, Release('a', "b")),
            (0, DropTicket('b', "c")),
            (0, Claims('c')),
        ],
        [2, 0, 0, 1],
    );
}

#[test]
fn a_full_queue_makes_room_for_whoever_has_less_of_it() {
    check(
        1,
        2,
        &[
            (0, Admitted('a')),
            (0, Queued('a', 99)),
            (0, Queued('a', 99)),
            (0, Full('a')),
            (0, Displaces('b', "a")),
            (0, Unclaimed('a', Unserved::Displaced)),
            (0, Full('c')),
            (0, Full('b')),
        ],
        [1, 4, 0, 2],
    );
}

#[test]
fn a_reload_lends_and_takes_slots() {
    check(
        1,
        9,
        &[
            (0, Admitted('a')),
            (0, Queued('b', 5)),
            (0, Queued('c', 99)),
            (0, Queued('d', 99)),
            (9, Reconfigure(2, 9, 1.0, "cb")),
            (9, Claims('c')),
            (9, Reconfigure(1, 0, 1.0, "")),
            (9, Full('e')),
            (9, Release('a', "")),
            (9, Release('c', "d")),
            (9, Claims('d')),
        ],
        [3, 1, 1, 0],
    );
}

#[test]
fn no_tenant_holds_more_than_its_share() {
    check_share(
        4,
        9,
        0.5,
        &[
            (0, Admitted('a')),
            (0, Admitted('a')),
            (0, Queued('a', 99)),
            (0, Queued('a', 99)),
            // The other tenants still have room.
            (1, Admitted('b')),
            (1, Release('b', "")),
            (1, Admitted('b')),
            (1, Admitted('c')),
            (1, Queued('c', 99)),
            // Goes to the waiter that may have it, although its turn has not come.
            (2, Release('b', "c")),
            (2, Claims('c')),
            (2, Queued('d', 99)),
            (3, Release('a', "a")),
            (3, Claims('a')),
            (4, Release('c', "d")),
            (4, Claims('d')),
            (5, Release('a', "a")),
            (5, Claims('a')),
        ],
        [9, 0, 0, 0],
    );
}

#[test]
fn without_a_queue_a_tenant_at_its_share_is_refused() {
    check_share(
        3,
        0,
        0.7,
        &[
            (0, Admitted('a')),
            (0, Admitted('a')),
            (0, Full('a')),
            (0, Admitted('b')),
            (0, Full('c')),
            (0, DropSlot('a', "")),
            (0, Admitted('a')),
        ],
        [4, 2, 0, 0],
    );
}

#[test]
fn a_slot_of_a_share_comes_back_from_whoever_does_not_use_it() {
    let served = || {
        let mut script = Script::new(3, 9, 0.4);
        script.step(0, &Admitted('a'));
        script.step(0, &Queued('a', 10));
        script.step(0, &Queued('a', 99));
        script.step(9, &Release('a', "a"));
        let (_, ticket) = script.tickets.remove(0);
        (script, ticket)
    };
    let comes_back = |mut script: Script| {
        assert_eq!(script.rung(), "a");
        script.step(11, &Claims('a'));
        script.step(11, &Queued('a', 99));
        script.step(12, &Admitted('b'));
        assert_eq!(script.bulkhead.in_use(), 2);
    };
    let (script, ticket) = served();
    drop(ticket);
    comes_back(script);
    let (script, ticket) = served();
    assert_eq!(ticket.claim(at(11)).err(), Some(Unserved::TimedOut));
    comes_back(script);
}

#[test]
fn a_reload_sets_and_lifts_the_share() {
    check_share(
        4,
        9,
        0.5,
        &[
            (0, Admitted('a')),
            (0, Admitted('a')),
            (0, Queued('a', 99)),
            (0, Queued('a', 99)),
            (0, Queued('a', 99)),
            (0, Admitted('b')),
            (1, Reconfigure(4, 9, 0.75, "a")),
            (1, Claims('a')),
            (2, Reconfigure(8, 9, 0.5, "a")),
            (2, Claims('a')),
            // Down to the lower cap before it is served again.
            (3, Reconfigure(4, 9, 0.5, "")),
            (3, Release('a', "")),
            (3, Release('a', "")),
            (3, Release('a', "a")),
            (3, Claims('a')),
            (4, Reconfigure(4, 9, 1.0, "")),
            (4, Admitted('c')),
            // One of the slots from before counts for no share.
            (5, Reconfigure(4, 9, 0.5, "")),
            (5, Queued('a', 99)),
            (5, Queued('c', 99)),
            (5, Release('b', "c")),
            (5, Claims('c')),
            (5, Release('a', "a")),
            (5, Claims('a')),
        ],
        [9, 0, 0, 0],
    );
    check(
        3,
        9,
        &[
            (0, Admitted('a')),
            (0, Admitted('a')),
            (0, Admitted('a')),
            (0, Queued('a', 99)),
            (0, Queued('b', 99)),
            (1, Reconfigure(3, 9, 0.4, "")),
            (1, Release('a', "a")),
            (1, Claims('a')),
            (1, Release('a', "b")),
            (1, Claims('b')),
            (2, Queued('b', 99)),
            (2, Release('a', "")),
            (3, Reconfigure(3, 9, 1.0, "b")),
            (3, Claims('b')),
        ],
        [6, 0, 0, 0],
    );
}

#[test]
fn time_running_backwards_drops_no_one() {
    check(
        1,
        9,
        &[
            (100, Admitted('a')),
            (100, Queued('b', 110)),
            (50, Queued('c', 60)),
            (40, Release('a', "b")),
            (40, Claims('b')),
            (30, DropSlot('b', "c")),
            (20, Claims('c')),
        ],
        [3, 0, 0, 0],
    );
}

#[test]
fn a_slot_comes_back_when_its_holder_panics() {
    let bulkhead: Arc<Bulkhead<Ignored>> = Arc::new(Bulkhead::new(NonZeroU32::MIN, 0));
    let entrant = Entrant {
        tenant: 0,
        tier: 0,
        weight: 1,
        deadline: at(0),
    };
    let holder = Arc::clone(&bulkhead);
    let panicked = std::thread::spawn(move || {
        let _entry = holder.enter(at(0), entrant, || Ignored);
        assert_eq!(holder.in_use(), 0, "this one is out, so this panics");
    })
    .join();
    assert!(panicked.is_err());
    assert_eq!(bulkhead.in_use(), 0);
}

struct Ignored;

impl Signal for Ignored {
    fn signal(self) {}
}

/// Slots and tickets are used in other threads and tasks.
#[test]
fn slots_and_tickets_can_be_sent() {
    fn can_be_sent<T: Send + 'static>() {}
    can_be_sent::<Slot<Ignored>>();
    can_be_sent::<Ticket<Ignored>>();
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Random entrants on a virtual clock: the limits hold, no slot is idle while somebody waits, no waiter is served
    /// late, and each entrant has one outcome.
    #[test]
    fn every_entrant_has_one_outcome(
        limit in 1..6u32, queue in 0..6u32, share in prop::sample::select(vec![0.3, 0.5, 0.8, 1.0]),
        steps in prop::collection::vec(
            (0..6u8, 0..10u64, 0..4u8, 0..40u64, any::<prop::sample::Index>()), 1..200,
        ),
    ) {
        let mut script = Script::new(limit, queue, share);
        let (mut now, mut entered, mut ended) = (0, 0, Outcomes::default());
        for (step, pause, tenant, patience, which) in steps {
            now += pause;
            match step {
                0..=2 => {
                    entered += 1;
                    match script.enter(char::from(b'a' + tenant), now, now + patience) {
                        "admitted" => ended.admitted += 1,
                        "full" => ended.full += 1,
                        _ => {}
                    }
                }
                3 if !script.slots.is_empty() => {
                    let index = which.index(script.slots.len());
                    script.slots.swap_remove(index).1.release(at(now));
                }
                4 if !script.tickets.is_empty() => {
                    let index = which.index(script.tickets.len());
                    let (name, ticket) = script.tickets.swap_remove(index);
                    let deadline = ticket.deadline();
                    match ticket.claim(at(now)) {
                        Ok(slot) => {
                            prop_assert!(at(now) <= deadline);
                            ended.admitted += 1;
                            script.slots.push((name, slot));
                        }
                        Err(Unserved::TimedOut) => ended.timed_out += 1,
                        Err(Unserved::Displaced) => ended.full += 1,
                    }
                }
                5 if !script.tickets.is_empty() => {
                    let index = which.index(script.tickets.len());
                    drop(script.tickets.swap_remove(index));
                }
                _ => {}
            }
            let bulkhead = &script.bulkhead;
            prop_assert!(bulkhead.in_use() <= limit);
            prop_assert!(bulkhead.waiting() <= queue);
            let cap = bulkhead.tenant_cap().map_or(limit, NonZeroU32::get);
            let held = |tenant: char| script.slots.iter().filter(|slot| slot.0 == tenant).count() as u32;
            prop_assert!(('a'..='d').all(|tenant| held(tenant) <= cap));
            prop_assert!(bulkhead.waiting() == 0 || bulkhead.in_use() >= cap);
            prop_assert!(cap < limit || bulkhead.waiting() == 0 || bulkhead.in_use() == limit);
            prop_assert!(bulkhead.in_use() as usize >= script.slots.len());
        }
        let bulkhead = Arc::clone(&script.bulkhead);
        drop(script);
        prop_assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
        let outcomes = bulkhead.outcomes();
        prop_assert_eq!(outcomes.admitted, ended.admitted);
        prop_assert_eq!(outcomes.admitted + outcomes.full + outcomes.timed_out + outcomes.left, entered);
    }
}
