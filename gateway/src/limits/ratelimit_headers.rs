//! Tells callers of their limits in `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! A cap on requests in flight is named only where it refuses: in any other answer the number would be out of date when
//! it is read.
//!
//! Invariant: a told wait is at most a day, or 32 days for a quota, whatever the terms and clocks are. A caller that
//! waits for a day and is refused again is told the rest of the wait then.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::clock::Now;
use crate::header_fields::{self, Grant};
use crate::limits::kinds::{Account, Terms};
use crate::limits::{Charge, Mode};
use crate::message::FieldMap;

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
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

/// Adds `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which tell of one limit. No standard defines
/// them; here the last one is a number of seconds from now, as in `RateLimit`.
pub fn legacy(headers: &mut FieldMap, most: u64, remaining: u64, reset: u64) {
    headers.insert(X_RATELIMIT_LIMIT, HeaderValue::from(most));
    headers.insert(X_RATELIMIT_REMAINING, HeaderValue::from(remaining));
    headers.insert(X_RATELIMIT_RESET, HeaderValue::from(reset));
}

/// Adds the fields that older clients read, for the limit that admits the fewest further requests like this one.
pub(crate) fn tell_legacy(charged: &[Charge], headers: &mut FieldMap, now: Now) {
    let is_told = |held: &&Charge| held.limit.mode == Mode::Enforce && held.account.terms().kind().is_told();
    let requests = |held: &&Charge| held.account.balance(now) / held.cost.max(1);
    let Some(held) = charged.iter().filter(is_told).min_by_key(requests) else {
        return;
    };
    let (remaining, reset) = left(held, now);
    legacy(headers, held.account.terms().most(), remaining, reset);
}

/// Returns what is left of a limit, and the seconds until there is more.
fn left(held: &Charge, now: Now) -> (u64, u64) {
    let remaining = held.account.balance(now);
    // If the next request like this one would be refused, this is the wait that the rejection would tell.
    let reset = match held.account.wait_for(now, held.cost.max(1)) {
        Duration::ZERO => held.account.reset_in(now, remaining),
        wait => wait,
    };
    (remaining, header_fields::whole_seconds(bounded(&held.account, reset)))
}

pub(crate) fn tell(charged: &[Charge], headers: &mut FieldMap, now: Now) {
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
            let (remaining, reset) = left(held, now);
            header_fields::Balance {
                limit: &held.limit.name,
                remaining,
                reset,
            }
        })),
    );
}
