use super::*;
use crate::bucket::Quota;
use crate::calendar::WallTime;
use crate::lease::{Central, CentralBucket, Count, Short, Spent};
use crate::ratio::Ratio;

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

fn wall(milliseconds: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_millis(1_795_521_600_000 + milliseconds))
}

const LEASE_TIME: Duration = Duration::from_secs(2);

/// Replicas of a premium tier: 200 a second, 400 at once, 40 tokens on lease.
struct Fleet {
    terms: LeaseTerms,
    store: Central<CentralBucket>,
    replicas: Vec<Replica>,
}

struct Replica {
    lease: Lease,
    tokens: LeasedTokens,
    owed: Owed,
}

impl Fleet {
    fn new(replicas: u64) -> Fleet {
        let quota = Quota::new(200, Duration::from_secs(1), 400).unwrap();
        let replica = |name| Replica {
            lease: Lease::new(name),
            tokens: LeasedTokens::new(),
            owed: Owed::new(),
        };
        Fleet {
            terms: LeaseTerms::new(400, Ratio::new(0.1).unwrap(), LEASE_TIME).unwrap(),
            store: Central::new(CentralBucket::full(&quota), LEASE_TIME, 1),
            replicas: (0..replicas).map(replica).collect(),
        }
    }

    /// Returns the request for one caller that waits, or for none if `cost` is zero.
    fn request(&mut self, replica: usize, time: u64, cost: u64) -> Option<Request> {
        let Replica { lease, tokens, owed } = &mut self.replicas[replica];
        lease.renew(&self.terms, tokens, owed, at(time), Waiting::NONE.and(cost))
    }

    fn apply(&mut self, replica: usize, time: u64, reply: &Reply) -> bool {
        let Replica { lease, tokens, .. } = &mut self.replicas[replica];
        lease.apply(&self.terms, tokens, at(time), reply)
    }

    /// Asks the store; returns what was wanted and what was granted.
    fn renew(&mut self, replica: usize, time: u64, cost: u64) -> Option<(u64, u64)> {
        let request = self.request(replica, time, cost)?;
        let reply = self.store.execute(wall(time), &request).unwrap();
        assert!(self.apply(replica, time, &reply));
        Some((request.wanted, reply.granted))
    }

    fn take(&self, replica: usize, time: u64) -> Result<Spent, Short> {
        self.replicas[replica].tokens.take(at(time), 1)
    }

    fn left(&self, time: u64) -> u64 {
        let mut count = self.store.count().clone();
        count.advance(wall(time));
        count.left()
    }
}

#[test]
fn the_size_follows_the_replicas_that_the_store_has_seen() {
    let mut fleet = Fleet::new(3);
    assert_eq!(fleet.renew(0, 0, 1), Some((40, 40)));
    assert_eq!(
        fleet.renew(1, 0, 1),
        Some((40, 1)),
        "the first holds all that may be on lease"
    );
    assert_eq!(fleet.renew(2, 0, 1), Some((40, 1)));
    assert_eq!(fleet.replicas[2].lease.size(&fleet.terms, at(0)), 13);
    for _ in 0..40 {
        fleet.take(0, 0).unwrap();
    }
    assert_eq!(fleet.renew(0, 1, 1), Some((40, 13)), "its part of three");
    for (replica, wanted) in [(1, 20), (2, 13)] {
        fleet.take(replica, 2).unwrap();
        assert_eq!(fleet.renew(replica, 2, 1), Some((wanted, 13)));
    }
    assert_eq!(fleet.store.on_lease(wall(3)), 39);
}

#[test]
fn a_lease_is_as_large_as_the_use_within_its_time() {
    let mut fleet = Fleet::new(1);
    fleet.renew(0, 0, 1);
    for _ in 0..5 {
        fleet.take(0, 500).unwrap();
    }
    // Five in one second are ten in the lease time; 35 are held.
    assert_eq!(fleet.renew(0, 1_000, 0), None);
    for _ in 0..30 {
        fleet.take(0, 1_500).unwrap();
    }
    assert_eq!(fleet.renew(0, 1_900, 0), Some((32, 32)), "35 in 1.9 s are 37 in 2 s");
}

#[test]
fn without_a_lease_callers_ask_for_what_they_need() {
    let mut fleet = Fleet::new(1);
    fleet.terms = LeaseTerms::new(9, Ratio::new(0.1).unwrap(), LEASE_TIME).unwrap();
    assert_eq!(fleet.renew(0, 0, 3), Some((3, 3)));
    assert_eq!(fleet.renew(0, 0, 0), Some((0, 0)), "what is not taken goes back");
    assert_eq!(fleet.left(0), 400);
    assert_eq!(fleet.renew(0, 0, 0), None);
}

#[test]
fn callers_wait_for_what_the_lease_lacks() {
    let mut fleet = Fleet::new(1);
    fleet.renew(0, 0, 1);
    fleet.replicas[0].tokens.take(at(0), 35).unwrap();
    let Replica { lease, tokens, owed } = &mut fleet.replicas[0];
    let waiting = Waiting::NONE.and(9).and(7).and(80);
    let request = lease.renew(&fleet.terms, tokens, owed, at(1), waiting).unwrap();
    let Request {
        held,
        needed,
        waiting,
        wanted,
        ..
    } = request;
    assert_eq!((held, needed, waiting, wanted), (5, 2, 91, 91));
    // The store has none until 500 ms later.
    let reply = Reply {
        sequence: request.sequence,
        granted: 0,
        usable_for: LEASE_TIME,
        left: 1,
        next: Some(Duration::from_millis(500)),
        replicas: 1,
        epoch: 1,
        known: true,
    };
    assert!(fleet.apply(0, 1, &reply));
    let take = |cost| fleet.replicas[0].tokens.take(at(2), cost);
    assert!(matches!(take(7), Err(Short::Refused(_))));
    assert_eq!(take(6), Err(Short::Ask { first: true }), "the store may have one");
    assert_eq!(take(5).map(|spent| spent.left), Ok(0));
}

#[test]
fn the_store_refuses_until_the_next_token() {
    let mut fleet = Fleet::new(1);
    while fleet.renew(0, 0, 1).unwrap().1 > 0 {
        while fleet.take(0, 0).is_ok() {}
    }
    let wait = |fleet: &Fleet, time| match fleet.take(0, time) {
        Err(Short::Refused(wait)) => wait.retry_in.unwrap().as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&fleet, 0), 5);
    assert_eq!(wait(&fleet, 4), 1);
    assert_eq!(fleet.take(0, 6), Err(Short::Ask { first: true }));
    assert_eq!(fleet.renew(0, 6, 1), Some((1, 1)));
}

#[test]
fn an_answer_is_applied_once_and_in_time() {
    let mut fleet = Fleet::new(1);
    let request = fleet.request(0, 0, 1).unwrap();
    assert_eq!(fleet.request(0, 100, 5), Some(request), "the same until it is answered");
    let reply = fleet.store.execute(wall(100), &request).unwrap();
    assert_eq!(
        fleet.store.execute(wall(150), &request),
        Some(reply),
        "answered as before"
    );
    assert_eq!(fleet.left(150), 370, "ten were earned in 50 ms");
    let other = Reply { sequence: 7, ..reply };
    assert!(!fleet.apply(0, 200, &other));
    assert!(fleet.apply(0, 200, &reply));
    assert!(!fleet.apply(0, 201, &reply));
    let held = fleet.replicas[0].tokens.held();
    assert_eq!(held.tokens, 40);
    assert!(held.expires <= at(2_000), "it counts from the first sending");

    // The second answer comes when the lease time has passed: its tokens go back unused.
    for _ in 0..40 {
        fleet.take(0, 300).unwrap();
    }
    let request = fleet.request(0, 1_000, 1).unwrap();
    let reply = fleet.store.execute(wall(1_000), &request).unwrap();
    assert!(fleet.apply(0, 3_000, &reply));
    assert_eq!(fleet.replicas[0].tokens.balance(at(3_000)), 0);
    assert_eq!(fleet.replicas[0].lease.unused(), 40);
    let request = fleet.request(0, 3_000, 0).unwrap();
    assert_eq!((request.returned, request.held), (40, 0));
}

#[test]
fn what_expires_or_is_drained_goes_back() {
    let mut fleet = Fleet::new(1);
    fleet.renew(0, 0, 1);
    fleet.take(0, 10).unwrap();
    let give_back = |fleet: &mut Fleet, time, drain| {
        let Replica { lease, tokens, owed } = &mut fleet.replicas[0];
        let request = lease.give_back(&fleet.terms, tokens, owed, at(time), drain)?;
        let reply = fleet.store.execute(wall(time), &request).unwrap();
        assert!(fleet.apply(0, time, &reply));
        Some(request.returned)
    };
    assert_eq!(give_back(&mut fleet, 1_000, false), None, "the lease runs");
    assert_eq!(give_back(&mut fleet, 2_000, false), Some(39));
    assert_eq!(give_back(&mut fleet, 2_000, false), None);
    assert_eq!(fleet.left(2_000), 400);
    // It was used little, so it is small from now on.
    assert_eq!(fleet.renew(0, 4_000, 1), Some((1, 1)));
    assert_eq!(give_back(&mut fleet, 4_001, true), Some(1));
    assert_eq!(fleet.left(4_001), 400);
}

#[test]
fn a_store_that_forgot_is_asked_for_half() {
    let check = |epoch| {
        let mut fleet = Fleet::new(1);
        fleet.renew(0, 0, 1);
        let quota = Quota::new(200, Duration::from_secs(1), 400).unwrap();
        fleet.store = Central::new(CentralBucket::full(&quota), LEASE_TIME, epoch);
        while fleet.take(0, 100).is_ok() {}
        assert_eq!(fleet.renew(0, 100, 1), Some((40, 40)), "it cannot know yet");
        let sizes = [100, 2_099, 2_100].map(|time| fleet.replicas[0].lease.size(&fleet.terms, at(time)));
        assert_eq!(sizes, [20, 20, 40]);
        assert_eq!(fleet.renew(0, 101, 0), Some((0, 0)), "half goes back");
        assert_eq!(fleet.replicas[0].tokens.balance(at(101)), 20);
    };
    check(2);
    // Only this limit was forgotten, or the last writes.
    check(1);
}

#[test]
fn a_replica_that_was_silent_for_long_may_be_forgotten() {
    let mut fleet = Fleet::new(1);
    fleet.renew(0, 0, 1);
    fleet.renew(0, 4_001, 1);
    assert!(!fleet.replicas[0].lease.is_learning(at(4_001)));
}

#[test]
fn what_was_admitted_without_the_store_is_paid_once() {
    let mut fleet = Fleet::new(1);
    fleet.replicas[0].owed.add(500);
    let request = fleet.request(0, 0, 1).unwrap();
    assert_eq!(request.charged, 400);
    assert_eq!(fleet.request(0, 1, 1).unwrap().charged, 400, "the same request");
    let reply = fleet.store.execute(wall(1), &request).unwrap();
    assert_eq!((reply.granted, reply.left), (0, 0));
    assert_eq!(fleet.store.execute(wall(2), &request), Some(reply));
    fleet.apply(0, 2, &reply);
    fleet.replicas[0].tokens.ask_again();
    assert_eq!(fleet.request(0, 10, 1).unwrap().charged, 0);
}

#[test]
fn a_lease_is_renewed_before_it_runs_out() {
    let mut fleet = Fleet::new(1);
    fleet.renew(0, 0, 1);
    for time in 0..40 {
        fleet.take(0, time * 5).unwrap();
    }
    // 40 in 200 ms, and the store takes 10 ms: 4 are used in twice that time.
    let request = fleet.request(0, 200, 1).unwrap();
    let reply = fleet.store.execute(wall(205), &request).unwrap();
    fleet.apply(0, 210, &reply);
    let renewals: Vec<_> = (0..40)
        .map(|time| fleet.take(0, 210 + time).unwrap())
        .filter_map(|spent| spent.renew.then_some(spent.left))
        .collect();
    assert_eq!(renewals, [4]);
}
