//! What callers are told of their limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! A cap on requests in flight is named where it refuses; in an answer it would be out of date before it is read.
//!
//! Invariant: nobody is told of a wait beyond a day, nor, for a quota, beyond 32 days, whatever the terms and clocks. Who
//! waits for a day and is still refused is told how long it takes from then on.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use policies::Every;

use crate::clock::Now;
use crate::header_fields::{self, Grant, LONGEST_RENEWAL, LONGEST_WAIT};
use crate::limits::account::{Account, Terms};
use crate::limits::{Charge, Mode};

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What one limit grants.
pub fn granted(limit: &str, terms: &Terms) -> HeaderValue {
    header_fields::ratelimit_policy([grant(limit, terms)])
}

fn grant<'a>(limit: &'a str, terms: &Terms) -> Grant<'a> {
    let window = match terms {
        // The time in which a burst is earned anew.
        Terms::Bucket(quota) => Some(quota.time_to_earn(quota.burst())),
        Terms::Window(quota) => Some(quota.window()),
        Terms::Calendar(quota) => Some(length(quota.every())),
        Terms::InFlight(_) => None,
    };
    Grant {
        limit,
        quota: terms.most(),
        window: window.map(header_fields::whole_seconds),
    }
}

/// Of a month, the longest there is.
const fn length(every: Every) -> Duration {
    const DAY: u64 = 24 * 3600;
    Duration::from_secs(match every {
        Every::Minute => 60,
        Every::Hour => 3600,
        Every::Day => DAY,
        Every::Week => 7 * DAY,
        Every::Month => 31 * DAY,
    })
}

pub(crate) fn policy<'a>(limits: impl Iterator<Item = &'a Charge>) -> HeaderValue {
    header_fields::ratelimit_policy(limits.map(|held| grant(&held.limit.name, &held.account.terms())))
}

/// As much of a wait as is told.
pub(crate) fn bounded(account: &Account, wait: Duration) -> Duration {
    wait.min(match account {
        Account::Bucket(..) | Account::Window(..) | Account::InFlight(..) => LONGEST_WAIT,
        Account::Calendar(..) => LONGEST_RENEWAL,
    })
}

/// Limits that refuse, with the wait of each.
pub(crate) fn exhausted<'a>(limits: impl Iterator<Item = (&'a Charge, Duration)>) -> HeaderValue {
    header_fields::ratelimit(limits.map(|(held, wait)| header_fields::Balance {
        limit: &held.limit.name,
        remaining: 0,
        reset: header_fields::whole_seconds(bounded(&held.account, wait)),
    }))
}

pub(crate) fn tell(charged: &[Charge], headers: &mut HeaderMap, now: Now) {
    let is_told = |held: &&Charge| held.limit.mode == Mode::Enforce && !matches!(held.account, Account::InFlight(..));
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
            // Where the next request like this one would be refused, what its refusal would say.
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
