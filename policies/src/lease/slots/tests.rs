use super::*;

const HEARTBEAT: Duration = Duration::from_secs(1);

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

fn wall(milliseconds: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_millis(1_795_521_600_000 + milliseconds))
}

struct Replica {
    lease: SlotLease,
    slots: HeldSlots,
}

impl Replica {
    fn new(name: u64) -> Replica {
        Replica {
            lease: SlotLease::new(name, HEARTBEAT),
            slots: HeldSlots::new(),
        }
    }

    /// Sends a heartbeat that is answered at once; returns the cap from then on.
    fn beat(&mut self, store: &mut CentralSlots, time: u64, in_flight: u32, spare: u32) -> u32 {
        let request = self.lease.request(&self.slots, at(time), in_flight, spare);
        let reply = store.execute(wall(time), &request).unwrap();
        assert!(self.lease.apply(&self.slots, &reply));
        self.slots.cap(at(time))
    }
}

#[test]
fn slots_are_given_once() {
    let mut store = CentralSlots::new(10, HEARTBEAT);
    let (mut one, mut other) = (Replica::new(1), Replica::new(2));
    assert_eq!(one.beat(&mut store, 0, 0, 7), 7);
    assert_eq!(other.beat(&mut store, 0, 0, 7), 3);
    assert_eq!(one.beat(&mut store, 500, 7, 2), 7);
    assert_eq!(store.held(wall(500)), 10);
}

#[test]
fn slots_that_are_not_needed_go_back_one_heartbeat_later() {
    let mut store = CentralSlots::new(10, HEARTBEAT);
    let (mut one, mut other) = (Replica::new(1), Replica::new(2));
    one.beat(&mut store, 0, 0, 7);
    assert_eq!(one.beat(&mut store, 1_000, 1, 1), 2);
    assert_eq!(other.beat(&mut store, 1_000, 0, 9), 3, "the first may still use seven");
    assert_eq!(one.beat(&mut store, 2_000, 1, 1), 2);
    assert_eq!(other.beat(&mut store, 2_000, 0, 9), 8);
}

#[test]
fn slots_of_a_silent_replica_come_back_after_two_heartbeats() {
    let mut store = CentralSlots::new(10, HEARTBEAT);
    let (mut dead, mut other) = (Replica::new(1), Replica::new(2));
    dead.beat(&mut store, 0, 0, 10);
    assert_eq!(other.beat(&mut store, 1_999, 0, 5), 0);
    assert_eq!(dead.slots.cap(at(1_990)), 10);
    assert_eq!(dead.slots.cap(at(2_000)), 0);
    assert_eq!(other.beat(&mut store, 2_000, 0, 5), 5);
    assert_eq!(dead.beat(&mut store, 2_100, 10, 0), 5, "what is free, and no more");
}

#[test]
fn old_messages_change_nothing() {
    let mut store = CentralSlots::new(10, HEARTBEAT);
    let mut replica = Replica::new(1);
    let first = replica.lease.request(&replica.slots, at(0), 0, 9);
    let second = replica.lease.request(&replica.slots, at(10), 0, 4);
    let reply = store.execute(wall(20), &second).unwrap();
    assert_eq!(store.execute(wall(30), &first), None);
    assert_eq!(store.execute(wall(30), &second), None);
    assert_eq!(store.held(wall(30)), 4);
    let late = SlotReply {
        sequence: 1,
        granted: 9,
    };
    assert!(!replica.lease.apply(&replica.slots, &late));
    assert!(replica.lease.apply(&replica.slots, &reply));
    assert!(!replica.lease.apply(&replica.slots, &reply), "once");
    assert_eq!(replica.slots.cap(at(30)), 4);
}

#[test]
fn a_store_whose_clock_was_set_back_keeps_nobody_for_ever() {
    let mut store = CentralSlots::new(10, HEARTBEAT);
    Replica::new(1).beat(&mut store, 3_600_000, 0, 10);
    assert_eq!(store.held(wall(0)), 10);
    assert_eq!(store.held(wall(2_000)), 0);
}
