use super::*;
use proptest::prelude::*;
use std::sync::Mutex;
use std::time::Duration;

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

/// Writes its name down when it is signalled.
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

/// The letter is the tenant; each row may use it again and means its oldest slot or newest ticket.
enum Do {
    /// Enters with a deadline (ms).
    Admitted(char),
    Queued(char, u64),
    /// Queued in the place of another, who is signalled.
    Displaces(char, &'static str),
    Full(char),
    /// Gives a slot back, telling the time; who is signalled.
    Release(char, &'static str),
    DropSlot(char, &'static str),
    Claims(char),
    Unclaimed(char, Unserved),
    DropTicket(char, &'static str),
    Reconfigure(u32, u32, &'static str),
}
use Do::*;

impl Script {
    fn new(limit: u32, queue: u32) -> Script {
        let bulkhead = Arc::new(Bulkhead::new(NonZeroU32::new(limit).unwrap(), queue));
        Script {
            bulkhead,
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
        match self.bulkhead.enter(at(now), entrant, || Bell(rung, name)) {
            Entry::Admitted(slot) => {
                self.slots.push((name, slot));
                "admitted"
            }
            Entry::Queued(ticket) => {
                self.tickets.push((name, ticket));
                "queued"
            }
            Entry::Full => "full",
        }
    }

    fn slot(&mut self, name: char) -> Slot<Bell> {
        let index = self.slots.iter().position(|slot| slot.0 == name).unwrap();
        self.slots.remove(index).1
    }

    fn ticket(&mut self, name: char) -> Ticket<Bell> {
        let index = self.tickets.iter().rposition(|ticket| ticket.0 == name).unwrap();
        self.tickets.remove(index).1
    }

    /// Who was signalled since the last time.
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
                let slot = self.ticket(name).claim(at(now)).unwrap_or_else(|why| panic!("{why:?}"));
                self.slots.push((name, slot));
            }
            Unclaimed(name, why) => assert_eq!(self.ticket(name).claim(at(now)).err(), Some(why)),
            DropTicket(name, rings) => {
                drop(self.ticket(name));
                signalled = rings;
            }
            Reconfigure(limit, queue, rings) => {
                self.bulkhead
                    .reconfigure(NonZeroU32::new(limit).unwrap(), queue, at(now));
                signalled = rings;
            }
        }
        assert_eq!(self.rung(), signalled, "at {now} ms");
    }
}

/// `[admitted, full, timed out, left]` when all is over, which the rows bring about.
fn check(limit: u32, queue: u32, rows: &[(u64, Do)], outcomes: [u64; 4]) {
    let mut script = Script::new(limit, queue);
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
    let mut script = Script::new(1, 9);
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
            // Served and then gone.
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
            (9, Reconfigure(2, 9, "cb")),
            (9, Claims('c')),
            (9, Reconfigure(1, 0, "")),
            (9, Full('e')),
            (9, Release('a', "")),
            (9, Release('c', "d")),
            (9, Claims('d')),
        ],
        [3, 1, 1, 0],
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

/// What a slot or a ticket is used in: other threads and tasks.
#[test]
fn slots_and_tickets_can_be_sent() {
    fn can_be_sent<T: Send + 'static>() {}
    can_be_sent::<Slot<Ignored>>();
    can_be_sent::<Ticket<Ignored>>();
}

proptest! {
    /// A random crowd on a virtual clock: the limits hold, slots are never idle while someone waits, no
    /// one is served late, and each entrant has one outcome.
    #[test]
    fn every_entrant_has_one_outcome(
        limit in 1..4u32, queue in 0..6u32,
        steps in prop::collection::vec(
            (0..6u8, 0..10u64, 0..4u8, 0..40u64, any::<prop::sample::Index>()), 1..200,
        ),
    ) {
        let mut script = Script::new(limit, queue);
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
            prop_assert!(bulkhead.waiting() == 0 || bulkhead.in_use() == limit);
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
