//! One owner's account under one limit: the terms, and what has been taken under them.
//!
//! The four kinds of limit (token bucket, sliding window, calendar quota, requests in flight) answer the same calls
//! here. Knows nothing of tables or answers.

use std::sync::Arc;
use std::time::Duration;

use policies::{Bucket, CalendarQuota, InFlight, Quota, SlidingWindow, Usage, WindowQuota};

use crate::clock::Now;
use crate::limits::owner::Owner;

/// The amount that an owner may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    Bucket(Quota),
    Window(WindowQuota),
    Calendar(CalendarQuota),
    /// Number of requests at once.
    InFlight(u32),
}

/// An owner's counter, with the terms that it is read under.
#[derive(Clone)]
pub enum Account {
    Bucket(Arc<Bucket>, Quota),
    Window(Arc<SlidingWindow>, WindowQuota),
    Calendar(Arc<QuotaCount>, CalendarQuota),
    InFlight(Arc<InFlight>, u32),
}

/// The kind of limit that terms and accounts belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Bucket,
    Window,
    Calendar,
    InFlight,
}

/// The count of a calendar quota. It outlives the process in the state file, so it holds its owner's name.
#[derive(Debug)]
pub struct QuotaCount {
    pub owner: Box<str>,
    pub usage: Usage,
}

/// A counter that a table keeps for each owner.
pub trait Measure: Send + Sync + 'static {
    /// Creates a counter from which nothing is taken.
    fn new(owner: Owner<'_>) -> Self;

    /// Combines the counter with `terms`.
    ///
    /// # Panics
    /// If the terms are of another kind.
    fn account(self: Arc<Self>, terms: Terms) -> Account;
}

macro_rules! measures {
    ($($kind:ident: $measure:ty = |$owner:pat_param| $new:expr;)*) => {$(
        impl Measure for $measure {
            fn new($owner: Owner<'_>) -> Self {
                $new
            }

            fn account(self: Arc<Self>, terms: Terms) -> Account {
                match terms {
                    Terms::$kind(terms) => Account::$kind(self, terms),
                    other => unreachable!("a table is found by its kind, and this is not {other:?}"),
                }
            }
        }
    )*};
}

measures! {
    Bucket: Bucket = |_| Bucket::full();
    Window: SlidingWindow = |_| SlidingWindow::new();
    Calendar: QuotaCount = |owner| QuotaCount { owner: owner.to_string().into(), usage: Usage::new() };
    InFlight: InFlight = |_| InFlight::new();
}

/// Wait that is told where the cap on requests in flight refuses. It is a guess, because nothing says when another
/// request ends.
const COME_BACK: Duration = Duration::from_secs(1);

impl Kind {
    pub const ALL: [Self; 4] = [Self::Bucket, Self::Window, Self::Calendar, Self::InFlight];

    /// Word for the kind in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bucket => "token_bucket",
            Self::Window => "sliding_window",
            Self::Calendar => "quota",
            Self::InFlight => "in_flight",
        }
    }
}

impl Terms {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Bucket(_) => Kind::Bucket,
            Self::Window(_) => Kind::Window,
            Self::Calendar(_) => Kind::Calendar,
            Self::InFlight(_) => Kind::InFlight,
        }
    }

    /// Returns the most that one request can take.
    pub const fn most(&self) -> u64 {
        match self {
            Self::Bucket(quota) => quota.burst(),
            Self::Window(quota) => quota.limit(),
            Self::Calendar(quota) => quota.limit(),
            Self::InFlight(cap) => *cap as u64,
        }
    }
}

impl Account {
    pub const fn terms(&self) -> Terms {
        match self {
            Self::Bucket(_, quota) => Terms::Bucket(*quota),
            Self::Window(_, quota) => Terms::Window(*quota),
            Self::Calendar(_, quota) => Terms::Calendar(*quota),
            Self::InFlight(_, cap) => Terms::InFlight(*cap),
        }
    }

    /// Takes `cost` tokens, or none. A token bucket or a sliding window may take them in advance, if the wait for them
    /// is `most` at the longest.
    ///
    /// Returns the time that the request has to wait before it goes on, which is zero for most requests.
    ///
    /// # Errors
    /// The time after which an owner without other requests is admitted.
    pub fn take(&self, now: Now, cost: u64, most: Duration) -> Result<Duration, Duration> {
        match self {
            Self::Bucket(bucket, quota) if most.is_zero() => {
                bucket.take(quota, now.moment, cost).map(|_| Duration::ZERO)
            }
            Self::Bucket(bucket, quota) => bucket.reserve(quota, now.moment, cost, most),
            Self::Window(window, quota) => window.reserve(quota, now.moment, cost, most),
            Self::Calendar(meter, quota) => meter.usage.take(quota, now.wall, cost).map(|_| Duration::ZERO),
            Self::InFlight(count, cap) => {
                return count.enter(*cap).map(|_| Duration::ZERO).map_err(|_| COME_BACK);
            }
        }
        // `retry_in` is `None` only for a cost above the limit, which the config does not admit.
        .map_err(|wait| wait.retry_in.unwrap_or(Duration::MAX))
    }

    /// Takes tokens that have been spent already, even if the balance falls below zero. Does nothing for requests in
    /// flight.
    pub fn charge(&self, now: Now, cost: u64) {
        match self {
            Self::Bucket(bucket, quota) => {
                bucket.charge(quota, now.moment, cost);
            }
            Self::Window(window, quota) => {
                window.charge(quota, now.moment, cost);
            }
            Self::Calendar(meter, quota) => {
                meter.usage.charge(quota, now.wall, cost);
            }
            Self::InFlight(..) => {}
        }
    }

    /// Gives back tokens that were taken at `taken_at` for a request that had to wait for `delay`. `in_force` are the
    /// terms that apply now; a reload may have changed them since. Does nothing for requests in flight: their guard
    /// gives the slot back.
    pub fn refund(&self, now: Now, taken_at: Now, delay: Duration, cost: u64, in_force: Terms) {
        let start = taken_at.moment + delay;
        match (self, self.under(in_force)) {
            (Self::Bucket(bucket, old), Self::Bucket(_, new)) if *old != new => {
                bucket.refund_rescaled(old, &new, now.moment, start, cost);
            }
            (_, Self::Bucket(bucket, quota)) => {
                bucket.refund(&quota, now.moment, start, cost);
            }
            (_, Self::Window(window, quota)) => {
                window.refund(&quota, now.moment, start, cost);
            }
            (_, Self::Calendar(meter, quota)) => {
                meter.usage.refund(&quota, now.wall, taken_at.wall, cost);
            }
            (_, Self::InFlight(..)) => {}
        }
    }

    /// Returns the same account under other terms, or unchanged if those are of another kind.
    pub fn under(&self, terms: Terms) -> Self {
        match (self, terms) {
            (Self::Bucket(bucket, _), Terms::Bucket(quota)) => Self::Bucket(Arc::clone(bucket), quota),
            (Self::Window(window, _), Terms::Window(quota)) => Self::Window(Arc::clone(window), quota),
            (Self::Calendar(meter, _), Terms::Calendar(quota)) => Self::Calendar(Arc::clone(meter), quota),
            _ => self.clone(),
        }
    }

    /// Returns the part of the limit that has been taken and still counts; 0 for requests in flight.
    pub fn taken(&self, now: Now) -> u64 {
        match self {
            Self::InFlight(..) => 0,
            _ => self.terms().most() - self.balance(now),
        }
    }

    /// Returns the number of whole tokens that can be taken now, or of further requests that may be in flight.
    pub fn balance(&self, now: Now) -> u64 {
        match self {
            Self::Bucket(bucket, quota) => bucket.balance(quota, now.moment),
            Self::Window(window, quota) => window.balance(quota, now.moment),
            Self::Calendar(meter, quota) => meter.usage.balance(quota, now.wall),
            Self::InFlight(count, cap) => cap.saturating_sub(count.count()).into(),
        }
    }

    /// Returns the time until `cost` can be taken, or zero if it can be taken now.
    pub fn wait_for(&self, now: Now, cost: u64) -> Duration {
        match self {
            Self::Bucket(bucket, quota) => bucket.wait_for(quota, now.moment, cost),
            Self::Window(window, quota) => window.wait_for(quota, now.moment, cost),
            Self::Calendar(meter, quota) => meter.usage.wait_for(quota, now.wall, cost),
            Self::InFlight(count, cap) => Some(if count.count() < *cap {
                Duration::ZERO
            } else {
                COME_BACK
            }),
        }
        .unwrap_or(Duration::MAX)
    }

    /// Returns the time until a balance of `remaining` is renewed: until a bucket has earned as many tokens again,
    /// until the window has passed, or until the period ends.
    pub fn reset_in(&self, now: Now, remaining: u64) -> Duration {
        match self {
            Self::Bucket(_, quota) => quota.time_to_earn(remaining),
            Self::Window(_, quota) => quota.window(),
            Self::Calendar(meter, quota) => meter.usage.ends_in(quota, now.wall),
            Self::InFlight(..) => COME_BACK,
        }
    }

    /// Whether the account equals a new one, so that it can be dropped.
    pub fn is_idle(&self, now: Now) -> bool {
        match self {
            Self::Bucket(bucket, _) => bucket.is_full(now.moment),
            Self::Window(window, quota) => window.is_idle(quota, now.moment),
            Self::Calendar(meter, quota) => meter.usage.is_idle(quota, now.wall),
            Self::InFlight(count, _) => count.count() == 0,
        }
    }

    /// Puts other terms in force. A bucket keeps the share to which it is full; a calendar quota keeps what was used in
    /// its period. What a window has counted and what is in flight stay the same.
    pub fn change_terms(&self, terms: Terms, now: Now) {
        match (self, terms) {
            (Self::Bucket(bucket, was), Terms::Bucket(is)) if *was != is => bucket.rescale(was, &is, now.moment),
            (Self::Calendar(meter, was), Terms::Calendar(is)) if was.every() != is.every() => {
                meter.usage.carry_over(was, &is, now.wall);
            }
            _ => {}
        }
    }
}
