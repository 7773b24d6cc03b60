//! How many? A request is charged to all its limits or to none of them.
//!
//! Buckets are taken tightest first and given back when a later one refuses, so a rejection consumes nothing; a
//! concurrent request may see them taken for that instant, never the other way round.

use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use policies::{Bucket, Moment, Quota};
use smallvec::SmallVec;

use super::buckets::Table;
use crate::fields;
use crate::observe::{Decision, LimitMetrics};
use crate::rejection::{Rejection, Violation};

/// Whose bucket a limit is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Tenant,
    Caller,
    ClientAddress,
    Route,
    Global,
}

/// Whether a limit refuses or only counts what it would have refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Shadow,
}

/// A limit as meant: what callers see of it, and where it is counted.
#[derive(Clone)]
pub struct Limit {
    /// As callers see it in `RateLimit` and `violated-policies`.
    pub name: Arc<str>,
    pub per: Per,
    pub mode: Mode,
    /// Tokens a request takes; at most the burst.
    pub cost: u64,
    pub table: Arc<Table>,
    pub metrics: Arc<LimitMetrics>,
}

/// An owner's hold on one limit: made once for a credential that is remembered.
pub struct Hold {
    pub limit: Arc<Limit>,
    pub quota: Quota,
    pub bucket: Arc<Bucket>,
    /// What the limit grants, as the caller is told.
    pub policy: HeaderValue,
}

impl Hold {
    pub fn new(limit: Arc<Limit>, quota: Quota, bucket: Arc<Bucket>) -> Self {
        let policy = granted_by(&limit.name, &quota);
        Self {
            limit,
            quota,
            bucket,
            policy,
        }
    }
}

/// A hold, and how many tokens one request takes through it.
#[derive(Clone)]
pub struct Held {
    pub hold: Arc<Hold>,
    pub cost: u64,
}

impl Deref for Held {
    type Target = Hold;
    fn deref(&self) -> &Hold {
        &self.hold
    }
}

/// A request's charge, which can be given back while nothing has been sent.
#[must_use]
#[derive(Default)]
pub struct Receipt {
    taken: SmallVec<[Held; 2]>,
}

pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Takes from all of `limits`, or from none.
///
/// # Errors
/// [`Rejection::RateLimited`] naming the limits that refused and the wait after which an otherwise idle caller is
/// admitted.
pub fn take(mut limits: SmallVec<[Held; 2]>, now: Moment) -> Result<Receipt, Rejection> {
    if limits.len() > 1 {
        limits.sort_by_cached_key(|held| held.bucket.balance(&held.quota, now));
    }
    for index in 0..limits.len() {
        let held = &mut limits[index];
        match held.bucket.take(&held.quota, now, held.cost) {
            Ok(_) => held.limit.metrics.decisions.add(Decision::Admitted),
            Err(_) if held.limit.mode == Mode::Shadow => {
                held.limit.metrics.decisions.add(Decision::Shadow);
                // Having taken nothing it has nothing to give back.
                held.cost = 0;
            }
            Err(_) => {
                held.limit.metrics.decisions.add(Decision::Refused);
                for taken in &limits[..index] {
                    taken.bucket.refund(&taken.quota, now, taken.cost);
                }
                return Err(refusal(&limits, now));
            }
        }
    }
    Ok(Receipt { taken: limits })
}

/// Names every limit that would refuse now, with the longest of their waits.
fn refusal(limits: &[Held], now: Moment) -> Rejection {
    let wait = |held: &Held| held.bucket.wait_for(&held.quota, now, held.cost).unwrap_or_default();
    let mut refused: SmallVec<[&Held; 2]> = limits
        .iter()
        .filter(|held| held.limit.mode == Mode::Enforce && !wait(held).is_zero())
        .collect();
    if refused.is_empty() {
        // Tokens came in since; the limit that refused was the first that could.
        refused.extend(limits.first());
    }
    let wait = refused.iter().map(|held| wait(held)).max().unwrap_or_default();
    Rejection::RateLimited(Box::new(Violation {
        limits: refused.iter().map(|held| Arc::clone(&held.limit.name)).collect(),
        wait,
        policy: policy(refused.iter().copied()),
        state: fields::ratelimit(refused.iter().map(|held| fields::Balance {
            limit: &held.limit.name,
            remaining: 0,
            reset: fields::whole_seconds(wait),
        })),
    }))
}

impl Receipt {
    /// For a request of which nothing was sent. A limit per client address is not given back: it guards against
    /// floods, whatever becomes of them.
    pub fn refund(&self, now: Moment) {
        for held in &self.taken {
            if held.limit.per != Per::ClientAddress {
                held.bucket.refund(&held.quota, now, held.cost);
            }
        }
    }

    /// Tells the caller what its limits are and what is left of them.
    pub fn tell(&self, headers: &mut HeaderMap, now: Moment) {
        let told = || self.taken.iter().filter(|held| held.limit.mode == Mode::Enforce);
        if told().next().is_none() {
            return;
        }
        let only = if let [only] = self.taken.as_slice() {
            Some(only.policy.clone())
        } else {
            None
        };
        headers.insert(RATELIMIT_POLICY, only.unwrap_or_else(|| policy(told())));
        headers.insert(
            RATELIMIT,
            fields::ratelimit(told().map(|held| {
                let remaining = held.bucket.balance(&held.quota, now);
                let reset = fields::whole_seconds(held.quota.time_to_earn(remaining));
                fields::Balance {
                    limit: &held.limit.name,
                    remaining,
                    reset,
                }
            })),
        );
    }
}

fn policy<'a>(limits: impl IntoIterator<Item = &'a Held>) -> HeaderValue {
    fields::ratelimit_policy(limits.into_iter().map(|held| granted(&held.limit.name, &held.quota)))
}

/// What one limit grants, as a caller is told.
pub fn granted_by(limit: &str, quota: &Quota) -> HeaderValue {
    fields::ratelimit_policy([granted(limit, quota)])
}

/// `q` is the burst and `w` the time in which it is earned anew.
fn granted<'a>(limit: &'a str, quota: &Quota) -> fields::Quota<'a> {
    let burst = quota.burst();
    fields::Quota {
        limit,
        quota: burst,
        window: fields::whole_seconds(quota.time_to_earn(burst)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::intake::buckets::{Buckets, Owner, Quotas};
    use crate::observe::Registry;

    const NOW: Moment = Moment::from_nanos(1_000_000_000_000);

    fn held(name: &str, burst: u64, per: Per, mode: Mode) -> Held {
        let quota = Quota::new(1, Duration::from_secs(1), burst).unwrap();
        let quotas = Quotas {
            usual: quota,
            named: HashMap::new(),
        };
        let table = Buckets::new(10).table(&name.into(), &quotas);
        let bucket = table.bucket(Owner::Everyone.key(), true);
        Held {
            hold: Arc::new(Hold::new(
                Arc::new(Limit {
                    name: name.into(),
                    per,
                    mode,
                    cost: 1,
                    table,
                    metrics: Registry::default().limit(name),
                }),
                quota,
                bucket,
            )),
            cost: 1,
        }
    }

    fn take_all(limits: &[&Held]) -> Result<Receipt, Rejection> {
        take(limits.iter().map(|held| (*held).clone()).collect(), NOW)
    }

    fn left(held: &Held) -> u64 {
        held.bucket.balance(&held.quota, NOW)
    }

    #[test]
    fn all_are_charged_or_none() {
        let (wide, narrow) = (
            held("wide", 5, Per::Tenant, Mode::Enforce),
            held("narrow", 2, Per::Route, Mode::Enforce),
        );
        for _ in 0..2 {
            assert!(take_all(&[&wide, &narrow]).is_ok());
        }
        let Err(Rejection::RateLimited(violation)) = take_all(&[&wide, &narrow]) else {
            panic!("narrow is empty")
        };
        assert_eq!(*violation.limits, ["narrow".into()]);
        assert_eq!(violation.wait, Duration::from_secs(1));
        assert_eq!((left(&wide), left(&narrow)), (3, 0));
    }

    #[test]
    fn a_refusal_names_every_limit_that_refuses() {
        let (one, two) = (
            held("one", 1, Per::Tenant, Mode::Enforce),
            held("two", 1, Per::Route, Mode::Enforce),
        );
        assert!(take_all(&[&one, &two]).is_ok());
        let Err(Rejection::RateLimited(violation)) = take_all(&[&one, &two]) else {
            panic!("both are empty")
        };
        assert_eq!(violation.limits.len(), 2);
        assert_eq!(violation.state, "\"one\";r=0;t=1, \"two\";r=0;t=1");
    }

    #[test]
    fn a_refund_gives_back_all_but_what_guards_addresses() {
        let (tenant, address) = (
            held("tenant", 5, Per::Tenant, Mode::Enforce),
            held("address", 5, Per::ClientAddress, Mode::Enforce),
        );
        take_all(&[&tenant, &address]).unwrap().refund(NOW);
        assert_eq!((left(&tenant), left(&address)), (5, 4));
    }

    #[test]
    fn a_shadow_limit_never_refuses_is_not_told_and_refunds_only_what_it_took() {
        let shadow = held("shadow", 1, Per::Tenant, Mode::Shadow);
        assert!(take_all(&[&shadow]).is_ok());
        let receipt = take_all(&[&shadow]).unwrap();
        receipt.refund(NOW);
        assert_eq!(left(&shadow), 0);
        let mut headers = HeaderMap::new();
        receipt.tell(&mut headers, NOW);
        assert!(headers.is_empty());
    }

    #[test]
    fn the_answer_tells_the_tightest_first() {
        let (wide, narrow) = (
            held("wide", 5, Per::Tenant, Mode::Enforce),
            held("narrow", 2, Per::Route, Mode::Enforce),
        );
        let mut headers = HeaderMap::new();
        take_all(&[&wide, &narrow]).unwrap().tell(&mut headers, NOW);
        assert_eq!(headers[RATELIMIT], "\"narrow\";r=1;t=1, \"wide\";r=4;t=4");
        assert_eq!(headers[RATELIMIT_POLICY], "\"narrow\";q=2;w=2, \"wide\";q=5;w=5");
    }
}
