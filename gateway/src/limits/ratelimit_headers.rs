//! Tells callers of their limits in `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! A cap on requests in flight is named only where it refuses: in any other answer the number would be out of date when
//! it is read.
//!
//! Invariant: a told wait is at most a day, or 32 days for a quota, whatever the terms and clocks are. A caller that
//! waits for a day and is refused again is told the rest of the wait then.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Now;
use crate::header_fields::{self, Grant};
use crate::limits::kinds::{Account, Terms};
use crate::limits::{Charge, Mode};

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Returns the `RateLimit-Policy` value of one limit.
pub fn granted(limit: &str, terms: &Terms) -> HeaderValue {
    header_fields::ratelimit_policy([grant(limit, terms)])
}

fn grant<'a>(limit: &'a str, terms: &Terms) -> Grant<'a> {
    Grant {
        limit,
        quota: terms.most(),
        window: terms.period().map(header_fields::whole_seconds),
    }
}

pub(crate) fn policy<'a>(limits: impl Iterator<Item = &'a Charge>) -> HeaderValue {
    header_fields::ratelimit_policy(limits.map(|held| grant(&held.limit.name, &held.account.terms())))
}

/// Limits a wait to the longest that is told.
pub(crate) fn bounded(account: &Account, wait: Duration) -> Duration {
    wait.min(account.terms().kind().longest_wait())
}

/// Returns the `RateLimit` value of limits that refuse, with the wait of each.
pub(crate) fn exhausted<'a>(limits: impl Iterator<Item = (&'a Charge, Duration)>) -> HeaderValue {
    header_fields::ratelimit(limits.map(|(held, wait)| header_fields::Balance {
        limit: &held.limit.name,
        remaining: 0,
        reset: header_fields::whole_seconds(bounded(&held.account, wait)),
    }))
}

pub(crate) fn tell(charged: &[Charge], headers: &mut HeaderMap, now: Now) {
    let is_told = |held: &&Charge| held.limit.mode == Mode::Enforce && held.account.terms().kind().is_told();
    let told = || charged.iter().filter(is_told);
    let (Some(first), more) = (told().next(), told().nth(1).is_some()) else {
        return;
    };
    headers.insert(
        RATELIMIT_POLICY,
        if more { policy(told()) } else { first.policy.clone() },
    );
    headers.insert(
        RATELIMIT,
        header_fields::ratelimit(told().map(|held| {
            let remaining = held.account.balance(now);
            // If the next request like this one would be refused, this is the wait that the rejection would tell.
            let reset = match held.account.wait_for(now, held.cost.max(1)) {
                Duration::ZERO => held.account.reset_in(now, remaining),
                wait => wait,
            };
            let reset = bounded(&held.account, reset);
            header_fields::Balance {
                limit: &held.limit.name,
                remaining,
                reset: header_fields::whole_seconds(reset),
            }
        })),
    );
}
