//! Measures token buckets: this crate's as the gateway uses them, and `governor`'s, with the same quota.
//!
//! The gateway's bucket gets the time as an argument and governor reads a clock, so each is measured with and without a
//! clock. The gateway uses std's clock. governor's default clock, quanta, is faster to read and is shown too.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gateway::clock;
use gateway::clock::Now;
use gateway::limits::kinds::Terms;
use gateway::limits::owner::Owner;
use gateway::limits::store::local::Accounts;
use gateway::limits::store::{Origin, Table, TermsByOwner};
use governor::clock::{Clock, FakeRelativeClock, MonotonicClock, QuantaClock, ReasonablyRealtime};
use governor::{Quota as GovernorQuota, RateLimiter};
use policies::{Bucket, Quota};

use crate::moments::Moments;
use crate::rounds::Subject;

pub(crate) const KEYS: usize = 1_000_000;

/// Tokens in a second, one in each nanosecond: no loop is fast enough to be refused.
const PLENTY: u32 = 1_000_000_000;

pub(crate) fn subjects() -> Vec<Subject> {
    [clocks(), hot(), refused(), million()].into_iter().flatten().collect()
}

pub(crate) fn plenty() -> Quota {
    Quota::new(PLENTY.into(), Duration::from_secs(1), PLENTY.into()).expect("a token a nanosecond is in range")
}

/// Returns a quota of one token an hour: the bucket is empty after the first take.
pub(crate) fn scarce() -> Quota {
    Quota::new(1, Duration::from_secs(3600), 1).expect("an hour is in range")
}

pub(crate) fn governor_scarce() -> GovernorQuota {
    let hour = GovernorQuota::with_period(Duration::from_secs(3600)).expect("an hour is above zero");
    hour.allow_burst(NonZeroU32::MIN)
}

fn governor_plenty() -> GovernorQuota {
    GovernorQuota::per_second(NonZeroU32::new(PLENTY).expect("above zero"))
}

/// Returns the names of tenants in random order.
pub(crate) fn tenants() -> Vec<String> {
    let mut tenants: Vec<String> = (0..KEYS).map(|n| format!("tenant-{n}")).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut tenants);
    tenants
}

pub(crate) fn table(quota: Quota) -> Arc<dyn Table> {
    Accounts::new(KEYS + 1).table(&"bench".into(), &TermsByOwner::for_all(Terms::Bucket(quota)))
}

/// Measures the clocks alone, which every other line with a clock includes.
fn clocks() -> Vec<Subject> {
    vec![
        Subject::new("reading the gateway's clock, nothing else", |decisions, _| {
            for _ in 0..decisions {
                black_box(clock::now());
            }
        }),
        Subject::new("reading quanta's clock, nothing else", {
            let quanta = QuantaClock::default();
            move |decisions, _| {
                for _ in 0..decisions {
                    black_box(quanta.now());
                }
            }
        }),
    ]
}

/// Measures the bucket of one busy tenant, held by its verified credential.
fn hot() -> Vec<Subject> {
    let (bucket, told, quota) = (Bucket::full(), Bucket::full(), plenty());
    let moments = Moments::new();
    let standing = RateLimiter::direct_with_clock(governor_plenty(), FakeRelativeClock::default());
    vec![
        Subject::new("bucket, hot key, admitted: ours, told the time", move |decisions, _| {
            for now in moments.next(decisions) {
                let _ = black_box(told.take(&quota, now, 1));
            }
        }),
        Subject::new(
            "bucket, hot key, admitted: governor, its clock standing still",
            move |decisions, _| {
                for _ in 0..decisions {
                    let _ = black_box(standing.check());
                }
            },
        ),
        Subject::new("bucket, hot key, admitted: ours, std's clock", move |decisions, _| {
            for _ in 0..decisions {
                let _ = black_box(bucket.take(&quota, clock::now(), 1));
            }
        }),
        governors(
            "bucket, hot key, admitted: governor, std's clock",
            governor_plenty(),
            MonotonicClock,
        ),
        governors(
            "bucket, hot key, admitted: governor, quanta's clock",
            governor_plenty(),
            QuantaClock::default(),
        ),
    ]
}

/// Measures a tenant over its limit.
fn refused() -> Vec<Subject> {
    let (bucket, quota) = (Bucket::full(), scarce());
    vec![
        Subject::new("bucket, hot key, refused: ours, std's clock", move |decisions, _| {
            for _ in 0..decisions {
                let _ = black_box(bucket.take(&quota, clock::now(), 1));
            }
        }),
        governors(
            "bucket, hot key, refused: governor, std's clock",
            governor_scarce(),
            MonotonicClock,
        ),
    ]
}

fn governors<C>(name: &'static str, quota: GovernorQuota, clock: C) -> Subject
where
    C: ReasonablyRealtime + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    let limiter = RateLimiter::direct_with_clock(quota, clock);
    Subject::new(name, move |decisions, _| {
        for _ in 0..decisions {
            let _ = black_box(limiter.check());
        }
    })
}

/// Measures a million tenants in random order, each found in the table: the cost of a credential that is not known yet.
fn million() -> Vec<Subject> {
    let tenants: Arc<[String]> = tenants().into();
    let (table, terms) = (table(plenty()), Terms::Bucket(plenty()));
    for tenant in tenants.iter() {
        table.account(Owner::Tenant(tenant), terms, Origin::Request);
    }
    let names = Arc::clone(&tenants);
    let governor = RateLimiter::dashmap_with_clock(governor_plenty(), MonotonicClock);
    for name in names.iter() {
        let _ = governor.check_key(name);
    }
    vec![
        Subject::new(
            "bucket, a million keys, looked up: ours, std's clocks",
            move |decisions, thread| {
                for tenant in from_its_own_place(&tenants, thread).take(decisions as usize) {
                    let account = table.account(Owner::Tenant(tenant), terms, Origin::Request);
                    let _ = black_box(account.take(Now::read(), 1, Duration::ZERO));
                }
            },
        ),
        Subject::new(
            "bucket, a million keys, looked up: governor, std's clock",
            move |decisions, thread| {
                for name in from_its_own_place(&names, thread).take(decisions as usize) {
                    let _ = black_box(governor.check_key(name));
                }
            },
        ),
    ]
}

/// Iterates over the keys; two threads start half of the keys apart.
fn from_its_own_place<T>(keys: &[T], thread: usize) -> impl Iterator<Item = &T> {
    keys.iter().cycle().skip(thread % 2 * (KEYS / 2))
}
