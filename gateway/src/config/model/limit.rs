//! How often, how much, and how many at once: the limits that are written for routes, tiers and tenants.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::words;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::Rate;
use crate::config::value::Value;

use super::Counted;

/// A limit of one route; exactly one of `rate`, `limit` and `in_flight`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub measure: Measure,
    /// Who shares one count.
    pub per: At<Per>,
    /// `shadow` counts what it would have refused, and refuses nothing.
    pub mode: At<Mode>,
    /// Tokens that a request takes from this limit. Left out: the route's `cost`.
    pub cost: Option<At<NonZeroU64>>,
    /// Whether all processes count together. Left out: `leased` with a `limits_store`, else `local`.
    pub counted: Option<At<Counted>>,
}

/// What a limit counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    Rate(RateLimit),
    Quota(Quota),
    /// Requests at once, from their admission to the last byte of the answer.
    InFlight(At<NonZeroU32>),
}

/// A number of tokens per time.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// `token_bucket` holds `burst` tokens and gets `rate` back. `sliding_window` admits the rate's number in any
    /// stretch of the rate's time, exactly.
    pub kind: At<Kind>,
    /// Tokens per time.
    pub rate: At<Rate>,
    /// Tokens that a full bucket holds. A sliding window has none.
    pub burst: Option<At<NonZeroU64>>,
    /// A request that would be admitted within this time waits instead of being refused.
    pub wait: At<Duration>,
}

/// A number of tokens in each period of the calendar, in UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    /// Tokens in a period; at most 137,438,953,471.
    pub limit: At<NonZeroU64>,
    /// Length of the period. A week begins on Monday (ISO 8601).
    pub every: At<Every>,
    /// `shadow` counts what it would have refused, and refuses nothing.
    pub mode: At<Mode>,
    /// Whether all processes count together. Left out: `leased` with a `limits_store`, else `local`.
    pub counted: Option<At<Counted>>,
}

/// As an operator would say it.
impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => rate.fmt(f),
            Self::Quota(quota) => write!(f, "{} every {}", quota.limit, quota.every.as_str()),
            Self::InFlight(cap) => write!(f, "{cap} in flight"),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.burst {
            Some(burst) => write!(f, "{}, burst {burst}", self.rate),
            None => write!(f, "{}, sliding", self.rate),
        }
    }
}

words! {
    /// How a rate is counted.
    pub enum Kind {
        /// Holds `burst` tokens and earns `rate`.
        TokenBucket = "token_bucket",
        /// At most the rate's number in any stretch of the rate's time, exactly.
        SlidingWindow = "sliding_window",
    }

    /// A period of the calendar; a week begins on Monday (ISO 8601).
    pub enum Every { Minute = "minute", Hour = "hour", Day = "day", Week = "week", Month = "month" }

    /// Who shares a count.
    pub enum Per {
        Tenant = "tenant",
        Caller = "caller",
        ClientAddress = "client_address",
        Route = "route",
        Global = "global",
    }

    /// Whether a limit refuses or only counts what it would have refused.
    pub enum Mode { Enforce = "enforce", Shadow = "shadow" }
}

impl Read for Limit {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ rate: $, burst: 20 }", "{ limit: $, every: day }"],
        sample: "{ rate: 10/s, burst: 20 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let measure = match f.exactly_one(&["rate", "limit", "in_flight"]) {
                Some("rate") => rate_limit(f, None).map(Measure::Rate),
                Some("limit") => quota(f).map(Measure::Quota),
                Some(_) => f.optional("in_flight").map(Measure::InFlight),
                None => {
                    // Which of them it was to be is not known; none is called unknown as well.
                    for name in ["kind", "burst", "wait", "every"] {
                        f.value(name);
                    }
                    None
                }
            };
            let (per, mode) = (f.or("per", Per::Tenant), f.or("mode", Mode::Enforce));
            let cost: Option<At<NonZeroU64>> = f.optional("cost");
            let counted = f.optional("counted");
            let measure = measure?;
            if let (Measure::InFlight(_), Some(cost)) = (&measure, &cost) {
                let message = format!("`{}.cost` does not go with `in_flight`", f.path);
                f.push(Mistake::new(Code::Conflict, cost.span(), message).label("requests are counted, not tokens"));
            }
            Some(Self {
                measure,
                per,
                mode,
                cost,
                counted,
            })
        })?
    }
}

impl Read for Quota {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ limit: $, every: month }"],
        sample: "{ limit: 100000, every: month }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(quota)?
    }
}

fn quota(f: &mut Fields<'_>) -> Option<Quota> {
    let (limit, every) = (f.required("limit"), f.required("every"));
    let mode = f.or("mode", Mode::Enforce);
    let counted = f.optional("counted");
    Some(Quota {
        limit: limit?,
        every: every?,
        mode,
        counted,
    })
}

/// Rate, kind, burst and wait; what is left out comes from `base`.
pub(super) fn rate_limit(f: &mut Fields<'_>, base: Option<&RateLimit>) -> Option<RateLimit> {
    let kind = f.or("kind", base.map_or(Kind::TokenBucket, |base| *base.kind));
    let rate: Option<At<Rate>> = match base {
        Some(base) => f.optional("rate").or(Some(base.rate)),
        None => f.required("rate"),
    };
    let wait = f.within("wait", Duration::ZERO, Duration::ZERO..=Duration::from_secs(60));
    let burst = match *kind {
        Kind::TokenBucket => match base.and_then(|base| base.burst) {
            Some(burst) => Some(f.optional("burst").unwrap_or(burst)),
            None => Some(f.required("burst")?),
        },
        Kind::SlidingWindow => {
            if let Some(burst) = f.optional::<At<NonZeroU64>>("burst") {
                let message = format!("`{}.burst` does not go with a sliding window", f.path);
                f.push(
                    Mistake::new(Code::Conflict, burst.span(), message)
                        .related(kind.span(), "which holds the rate over any stretch of its time")
                        .hint("remove it: the rate's number is the most there can be at once"),
                );
            }
            None
        }
    };
    Some(RateLimit {
        kind,
        rate: rate?,
        burst,
        wait,
    })
}
