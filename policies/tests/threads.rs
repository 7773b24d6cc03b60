//! Runs the policies on real threads and checks what must hold for every schedule.

use policies::breaker::{ForcedState, Outcome, State};
use policies::bulkhead::{Entrant, Entry, Signal, Slot};
use policies::ejection::{Change, Standing};
use policies::lease::Short;
use policies::{
    Breaker, BreakerSettings, Bucket, Bulkhead, CalendarQuota, EjectionSettings, Ejector, Every, InFlight,
    LeasedTokens, Moment, Quota, Ratio, SlidingWindow, Usage, WallTime, WindowQuota,
};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

const THREADS: u64 = 8;

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

/// Runs `work` on every thread at once; returns the sum of the results.
fn on_all_threads(work: impl Fn(u64) -> u64 + Sync) -> u64 {
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        let run = |thread| {
            let (work, start) = (&work, &start);
            scope.spawn(move || {
                start.wait();
                work(thread)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn a_bucket_is_taken_exactly() {
    let quota = Quota::new(1_000, Duration::from_secs(1), 5_000).unwrap();
    let bucket = Bucket::full();
    let taken = on_all_threads(|_| (0..2_000).filter(|_| bucket.take(&quota, at(0), 1).is_ok()).count() as u64);
    assert_eq!(taken, 5_000);
    let taken = on_all_threads(|_| (0..2_000).filter(|_| bucket.take(&quota, at(3_000), 2).is_ok()).count() as u64);
    assert_eq!(taken, 1_500);
}

#[test]
fn leased_tokens_are_spent_or_returned() {
    let tokens = LeasedTokens::new();
    let granted = AtomicU64::new(0);
    // Those that were spent, collected or had expired.
    let gone = on_all_threads(|thread| {
        let mut gone = 0;
        for round in 0..2_000 {
            let asks = match tokens.take(at(round), 1) {
                Ok(spent) => {
                    gone += 1;
                    spent.renew
                }
                Err(short) => short == Short::Ask { first: true },
            };
            if asks {
                granted.fetch_add(7, SeqCst);
                gone += tokens.grant(at(round), 7, at(round + 50));
            }
            if (round + thread).is_multiple_of(100) {
                gone += tokens.collect(at(round), 3);
            }
        }
        gone
    });
    let left = tokens.held().tokens;
    assert!(gone > 1_000, "{gone} of {left}");
    assert_eq!(gone + left, granted.load(SeqCst));
}

#[test]
fn takings_and_refunds_of_a_bucket_balance() {
    let quota = Quota::new(1, Duration::from_secs(3_600), 100).unwrap();
    let bucket = Bucket::full();
    let kept = on_all_threads(|thread| {
        let mut kept = 0;
        for round in 0..2_000 {
            if bucket.take(&quota, at(0), 1).is_ok() {
                if (round + thread).is_multiple_of(200) {
                    kept += 1;
                } else {
                    bucket.refund(&quota, at(0), at(0), 1);
                }
            }
        }
        kept
    });
    assert_eq!(bucket.balance(&quota, at(0)), 100 - kept);
}

#[test]
fn what_is_reserved_by_many_is_earned_first() {
    let quota = Quota::new(1_000, Duration::from_secs(1), 100).unwrap();
    let bucket = Bucket::full();
    let longest = Duration::from_millis(900);
    let reserved = on_all_threads(|_| {
        let reserve = |_: &u32| bucket.reserve(&quota, at(0), 1, longest).is_ok();
        (0..1_000).filter(reserve).count() as u64
    });
    assert_eq!(reserved, 100 + 900);
    assert_eq!(bucket.wait_for(&quota, at(0), 1), Some(Duration::from_millis(901)));
}

#[test]
fn windows_and_calendars_are_taken_exactly() {
    let (window, window_quota) = (
        SlidingWindow::new(),
        WindowQuota::new(5_000, Duration::from_secs(1)).unwrap(),
    );
    let (usage, usage_quota) = (Usage::new(), CalendarQuota::new(5_000, Every::Day).unwrap());
    let today = WallTime::since_epoch(Duration::from_secs(1_706_659_200));
    let (of_window, of_usage) = (AtomicU32::new(0), AtomicU32::new(0));
    on_all_threads(|thread| {
        for round in 0..2_000 {
            // Every third take is given back.
            let kept = u32::from((round + thread) % 3 > 0);
            let now = at(round / 4);
            if window.take(&window_quota, now, 1).is_ok() {
                of_window.fetch_add(kept, SeqCst);
                if kept == 0 {
                    window.refund(&window_quota, now, now, 1);
                }
            }
            if usage.take(&usage_quota, today, 1).is_ok() {
                of_usage.fetch_add(kept, SeqCst);
                if kept == 0 {
                    usage.refund(&usage_quota, today, today, 1);
                }
            }
        }
        0
    });
    assert!(of_window.into_inner() <= 5_000);
    assert_eq!(usage.used(&usage_quota, today), u64::from(of_usage.into_inner()));
    assert_eq!(usage.used(&usage_quota, today), 5_000);
}

#[test]
fn no_more_are_in_flight_than_the_cap() {
    let in_flight = InFlight::new();
    let most = AtomicU32::new(0);
    on_all_threads(|_| {
        for _ in 0..5_000 {
            if let Ok(count) = in_flight.enter(3) {
                most.fetch_max(count, SeqCst);
                assert!(in_flight.count() <= 3);
                in_flight.leave();
            }
        }
        0
    });
    assert_eq!((in_flight.count(), most.into_inner() <= 3), (0, true));
}

/// Returns a breaker that opens at the first failure, for a millisecond.
fn touchy_breaker() -> Arc<Breaker> {
    Arc::new(Breaker::new(BreakerSettings {
        min_calls: 1,
        failure_ratio: Some(Ratio::ZERO),
        open_for: Duration::from_millis(1),
        probes: NonZeroU32::new(3).unwrap(),
        ..BreakerSettings::default()
    }))
}

const FAILURE: Outcome = Outcome::Failure { took: Duration::ZERO };
const SUCCESS: Outcome = Outcome::Success { took: Duration::ZERO };

#[test]
fn a_breaker_has_no_more_probes_under_way_than_it_may() {
    let breaker = touchy_breaker();
    // One clock for all: a thread that lags behind would find the breaker open for the rest of its time.
    let rounds = AtomicU64::new(0);
    // Generation of each probe, from after its admission until before its result.
    let under_way = Mutex::new(vec![]);
    let probes = on_all_threads(|thread| {
        let mut probes = 0;
        for _ in 0..5_000 {
            let round = rounds.fetch_add(1, SeqCst);
            let now = at(10 * round);
            let Ok(permit) = breaker.admit(now) else {
                // A refusal takes no time: the threads that hold the probes must get to run.
                thread::yield_now();
                continue;
            };
            let generation = permit.generation();
            if permit.is_probe() {
                probes += 1;
                {
                    let mut under_way = under_way.lock().unwrap();
                    under_way.push(generation);
                    let of_this = under_way.iter().filter(|other| **other == generation).count();
                    assert!(of_this <= 3, "{of_this} probes at once");
                }
                thread::yield_now();
                let mut under_way = under_way.lock().unwrap();
                let index = under_way.iter().position(|other| *other == generation).unwrap();
                under_way.swap_remove(index);
            }
            match (round + thread) % 8 {
                0 => drop(permit),
                1 => drop(breaker.record(permit, FAILURE, now)),
                _ => drop(breaker.record(permit, SUCCESS, now)),
            }
        }
        probes
    });
    assert!(probes > 100, "{probes} probes");
    assert_eq!(breaker.counts(at(1_000_000)).probes_under_way, 0);
}

#[test]
fn only_as_many_threads_as_there_are_probes_pass_a_half_open_breaker() {
    for _ in 0..200 {
        let breaker = touchy_breaker();
        let first = breaker.admit(at(0)).unwrap();
        breaker.record(first, FAILURE, at(0));
        let permits = Mutex::new(vec![]);
        let began = on_all_threads(|_| {
            let Ok(permit) = breaker.admit(at(1)) else { return 0 };
            let began = permit.began().is_some();
            permits.lock().unwrap().push(permit);
            u64::from(began)
        });
        assert_eq!((permits.lock().unwrap().len(), began), (3, 1));
    }
}

#[test]
fn a_breaker_counts_every_result_and_tells_each_change_once() {
    let settings = BreakerSettings {
        min_calls: 10_000,
        failure_ratio: Some(Ratio::ONE),
        ..BreakerSettings::default()
    };
    let breaker = Arc::new(Breaker::new(settings));
    let told = on_all_threads(|_| {
        let fail = |_: &u32| {
            let Ok(permit) = breaker.admit(at(0)) else { return false };
            breaker.record(permit, FAILURE, at(0)).is_some()
        };
        (0..3_000).filter(fail).count() as u64
    });
    assert_eq!((told, breaker.state(at(0))), (1, State::Open));
    let told = on_all_threads(|_| u64::from(breaker.force(ForcedState::Closed, at(0)).is_some()));
    assert_eq!((told, breaker.state(at(0))), (1, State::ForcedClosed));
    on_all_threads(|_| {
        for _ in 0..1_000 {
            let permit = breaker.admit(at(0)).unwrap();
            breaker.record(permit, FAILURE, at(0));
        }
        0
    });
    assert_eq!(breaker.counts(at(0)).failures, 8_000);
}

struct Wake(mpsc::Sender<()>);

impl Signal for Wake {
    fn signal(self) {
        // A waiter that has left no longer listens.
        let _ = self.0.send(());
    }
}

#[test]
fn a_bulkhead_keeps_its_limit_and_gets_every_slot_back() {
    keeps_its_limits(Ratio::ONE, 3);
}

#[test]
fn a_bulkhead_keeps_each_tenant_to_its_share() {
    keeps_its_limits(Ratio::new(0.5).unwrap(), 1);
    keeps_its_limits(Ratio::new(0.7).unwrap(), 2);
}

/// Checks a bulkhead of three slots, of which one tenant may hold at most `cap`.
fn keeps_its_limits(share: Ratio, cap: u32) {
    const LIMIT: u32 = 3;
    const TENANTS: u64 = 4;
    let bulkhead = Bulkhead::new(NonZeroU32::new(LIMIT).unwrap(), 6).with_tenant_share(share);
    let bulkhead = Arc::new(bulkhead);
    let inside = AtomicU32::new(0);
    let inside_of: [AtomicU32; TENANTS as usize] = Default::default();
    let work = |tenant: u64, slot: Slot<Wake>, round: u64| {
        let of_tenant = &inside_of[tenant as usize];
        assert!(inside.fetch_add(1, SeqCst) < LIMIT, "more inside than slots");
        assert!(
            of_tenant.fetch_add(1, SeqCst) < cap,
            "more of one tenant than its share"
        );
        if round.is_multiple_of(3) {
            thread::yield_now();
        }
        of_tenant.fetch_sub(1, SeqCst);
        inside.fetch_sub(1, SeqCst);
        if round.is_multiple_of(2) {
            slot.release(at(round))
        } else {
            drop(slot)
        }
    };
    let served = on_all_threads(|thread| {
        let (mut served, tenant) = (0, thread % TENANTS);
        for round in 0..5_000u64 {
            let patience = if round.is_multiple_of(7) { 0 } else { 1_000_000 };
            let entrant = Entrant {
                tenant,
                tier: tenant as u32 % 2,
                weight: 1,
                deadline: at(round + patience),
            };
            let (sender, woken) = mpsc::channel();
            match bulkhead.enter(at(round), entrant, || Wake(sender)) {
                Entry::Full => {}
                Entry::Admitted(slot) => {
                    served += 1;
                    work(tenant, slot, round);
                }
                Entry::Queued(ticket) if round.is_multiple_of(5) => drop(ticket),
                Entry::Queued(ticket) => {
                    woken
                        .recv_timeout(Duration::from_secs(30))
                        .expect("who waits is signalled");
                    if let Ok(slot) = ticket.claim(at(round)) {
                        served += 1;
                        work(tenant, slot, round);
                    }
                }
            }
        }
        served
    });
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
    let outcomes = bulkhead.outcomes();
    assert_eq!(outcomes.admitted, served);
    let all = outcomes.admitted + outcomes.full + outcomes.timed_out + outcomes.left;
    assert_eq!(all, THREADS * 5_000, "{outcomes:?}");
}

#[test]
fn no_more_than_half_of_the_endpoints_are_ejected_and_each_is_told_once() {
    for _ in 0..200 {
        let ejector = Ejector::new(Some(EjectionSettings::default()));
        let standings: [Standing; 5] = Default::default();
        let told = on_all_threads(|thread| {
            let mut told = 0;
            for round in 0..50 {
                let of = &standings[((round + thread) % 5) as usize];
                let change = ejector.record(of, &standings, at(1), true, at(1));
                told += u64::from(matches!(change, Some(Change::Ejected { .. })));
                let out = standings.iter().filter(|standing| standing.is_ejected(at(1))).count();
                assert!(out <= 2, "{out} of 5");
            }
            told
        });
        assert_eq!(told, 2);
    }
}
