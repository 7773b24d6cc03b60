use super::*;
use crate::bucket::Quota;
use crate::calendar::{CalendarQuota, Every};
use crate::lease::{CentralBucket, CentralQuota};

const LEASE_TIME: Duration = Duration::from_secs(2);

/// Time on a full minute.
fn wall(milliseconds: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_millis(1_795_521_600_000 + milliseconds))
}

/// Returns a limit of one token a second, ten at once.
fn bucket() -> Central<CentralBucket> {
    let quota = Quota::new(1, Duration::from_secs(1), 10).unwrap();
    Central::new(CentralBucket::full(&quota), LEASE_TIME, 7)
}

fn quota(limit: u64) -> Central<CentralQuota> {
    let quota = CalendarQuota::new(limit, Every::Minute).unwrap();
    Central::new(CentralQuota::new(quota), LEASE_TIME, 7)
}

fn request(replica: u64, sequence: u64) -> Request {
    Request {
        replica,
        sequence,
        held: 0,
        returned: 0,
        charged: 0,
        needed: 1,
        waiting: 1,
        wanted: 4,
        most: 100,
    }
}

#[test]
fn a_request_is_executed_once() {
    let mut store = bucket();
    let first = store.execute(wall(0), &request(1, 1)).unwrap();
    assert_eq!((first.granted, first.left, first.known), (4, 6, false));
    assert_eq!(store.execute(wall(10), &request(1, 1)), Some(first));
    let second = store.execute(wall(20), &request(1, 2)).unwrap();
    assert_eq!((second.granted, second.left, second.known), (4, 2, true));
    assert_eq!(store.execute(wall(30), &request(1, 1)), None, "older than the last");
    assert_eq!(store.execute(wall(30), &request(1, 2)), Some(second));
}

#[test]
fn a_return_is_credited_against_what_is_on_lease() {
    let check = |held, returned, time, left| {
        let mut store = bucket();
        store.execute(wall(0), &request(1, 1)).unwrap();
        let second = Request {
            held,
            returned,
            wanted: 0,
            needed: 0,
            waiting: 0,
            ..request(1, 2)
        };
        let reply = store.execute(wall(time), &second).unwrap();
        assert_eq!(reply.left, left, "{held} held, {returned} returned at {time}");
    };
    check(0, 3, 0, 9);
    check(0, 400, 0, 10);
    check(3, 4, 0, 7);
    check(9, 1, 0, 6);
    check(0, 1, 3_999, 10);
    // Forgotten. Three tokens were earned, and nothing is credited.
    let mut store = bucket();
    store
        .execute(
            wall(0),
            &Request {
                needed: 10,
                waiting: 10,
                ..request(1, 1)
            },
        )
        .unwrap();
    let late = Request {
        returned: 10,
        wanted: 0,
        needed: 0,
        waiting: 0,
        ..request(1, 2)
    };
    assert_eq!(store.execute(wall(4_000), &late).unwrap().left, 4);
}

#[test]
fn all_that_is_needed_or_nothing() {
    let mut store = bucket();
    store
        .execute(
            wall(0),
            &Request {
                needed: 8,
                waiting: 8,
                ..request(1, 1)
            },
        )
        .unwrap();
    let reply = store
        .execute(
            wall(0),
            &Request {
                needed: 5,
                waiting: 5,
                ..request(2, 1)
            },
        )
        .unwrap();
    assert_eq!((reply.granted, reply.left, reply.replicas), (0, 2, 2));
    assert_eq!(reply.next, Some(Duration::from_secs(3)));
    let reply = store.execute(wall(0), &request(2, 2)).unwrap();
    assert_eq!((reply.granted, reply.next), (2, Some(Duration::ZERO)));
    let reply = store
        .execute(
            wall(0),
            &Request {
                needed: 11,
                waiting: 11,
                ..request(2, 3)
            },
        )
        .unwrap();
    assert_eq!((reply.granted, reply.next), (0, None));
}

#[test]
fn callers_that_wait_share_what_is_left() {
    let mut store = bucket();
    let waiting = Request {
        needed: 2,
        waiting: 12,
        wanted: 12,
        most: 0,
        ..request(1, 1)
    };
    let reply = store.execute(wall(0), &waiting).unwrap();
    assert_eq!((reply.granted, reply.next), (10, Some(Duration::ZERO)));
}

#[test]
fn no_more_than_the_share_is_on_lease() {
    let mut store = bucket();
    let ask = |store: &mut Central<CentralBucket>, time, replica, sequence, held| {
        let request = Request {
            held,
            most: 6,
            wanted: 6,
            ..request(replica, sequence)
        };
        store.execute(wall(time), &request).unwrap().granted
    };
    assert_eq!(ask(&mut store, 0, 1, 1, 0), 6);
    assert_eq!(ask(&mut store, 0, 2, 1, 0), 1, "only what callers wait for");
    assert_eq!(ask(&mut store, 0, 1, 2, 1), 2, "its part of two");
    assert_eq!(ask(&mut store, 0, 2, 2, 0), 1, "the bucket is empty after that");
    assert_eq!(ask(&mut store, 3_000, 2, 3, 1), 2, "the other lease has ended");
}

#[test]
fn what_is_on_lease_ends_with_the_lease() {
    let mut store = bucket();
    store.execute(wall(0), &request(1, 1)).unwrap();
    store
        .execute(
            wall(1_000),
            &Request {
                held: 1,
                ..request(2, 1)
            },
        )
        .unwrap();
    assert_eq!(store.on_lease(wall(1_999)), 9);
    assert_eq!(store.on_lease(wall(2_000)), 5);
    assert_eq!(store.on_lease(wall(3_000)), 0);
    assert!(!store.is_idle());
}

#[test]
fn a_clock_that_was_set_back_keeps_nobody_for_ever() {
    let mut store = bucket();
    store.execute(wall(3_600_000), &request(1, 1)).unwrap();
    assert_eq!(store.execute(wall(0), &request(2, 1)).unwrap().replicas, 2);
    assert_eq!(store.execute(wall(4_000), &request(2, 2)).unwrap().replicas, 1);
}

#[test]
fn a_quota_is_refused_until_a_lease_may_come_back() {
    let mut store = quota(6);
    assert_eq!(store.execute(wall(0), &request(1, 1)).unwrap().granted, 4);
    assert_eq!(store.execute(wall(500), &request(2, 1)).unwrap().granted, 1);
    assert_eq!(store.execute(wall(500), &request(2, 2)).unwrap().granted, 1);
    let next = |store: &mut Central<CentralQuota>, time, sequence| {
        store.execute(wall(time), &request(2, sequence)).unwrap().next
    };
    assert_eq!(next(&mut store, 500, 3), Some(Duration::from_millis(1_500)));
    assert_eq!(next(&mut store, 2_500, 4), Some(Duration::from_millis(250)));
    assert_eq!(
        next(&mut store, 4_000, 5),
        Some(Duration::from_secs(56)),
        "nobody holds any"
    );
}

#[test]
fn no_lease_of_a_quota_outlives_its_period() {
    let mut store = quota(100);
    let reply = store.execute(wall(59_000), &request(1, 1)).unwrap();
    assert_eq!(reply.usable_for, Duration::from_secs(1));
    let back = Request {
        returned: 4,
        wanted: 0,
        needed: 0,
        waiting: 0,
        ..request(1, 2)
    };
    assert_eq!(store.execute(wall(60_000), &back).unwrap().left, 100);
}

#[test]
fn what_is_used_of_a_quota_can_be_set() {
    let mut store = quota(100);
    let lent = store.execute(wall(0), &request(1, 1)).unwrap().granted;
    assert_eq!(lent, 4);
    let reply = store.set_used(wall(100), 90);
    assert_eq!((reply.was, reply.on_lease, reply.left), (0, lent, 6));
    // Three of them were spent.
    let back = Request {
        held: 0,
        returned: 1,
        wanted: 0,
        needed: 0,
        waiting: 0,
        ..request(1, 2)
    };
    assert_eq!(store.execute(wall(200), &back).unwrap().left, 7);
    // Nothing is on lease now, so it is set exactly. A return is not credited twice.
    let reply = store.set_used(wall(300), 0);
    assert_eq!((reply.was, reply.on_lease, reply.left), (93, 0, 100));
    assert_eq!(store.set_used(wall(300), 1_000).left, 0);
    let again = Request { sequence: 3, ..back };
    assert_eq!(store.execute(wall(400), &again).unwrap().left, 0);
    // The next period begins with nothing used, whatever was lent in the one before.
    store.set_used(wall(500), 0);
    store.execute(wall(59_900), &request(1, 4)).unwrap();
    let reply = store.set_used(wall(60_000), 10);
    assert_eq!((reply.was, reply.on_lease, reply.left), (0, 0, 90));
}
