//! What one owner may take under one limit, and has taken: the four measures behind one set of questions.
//!
//! Knows nothing of owners, names or answers.

use std::sync::Arc;
use std::time::Duration;

use policies::{Bucket, CalendarQuota, InFlight, Quota, SlidingWindow, Usage, WindowQuota};

use crate::clock::Now;
use crate::limits::owner::Owner;

/// How much an owner may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    Bucket(Quota),
    Window(WindowQuota),
    Calendar(CalendarQuota),
    /// So many at once.
    InFlight(u32),
}

/// Terms, and what has been taken under them.
#[derive(Clone)]
pub enum Account {
    Bucket(Arc<Bucket>, Quota),
    Window(Arc<SlidingWindow>, WindowQuota),
    Calendar(Arc<Meter>, CalendarQuota),
    InFlight(Arc<InFlight>, u32),
}

/// What terms are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Bucket,
    Window,
    Calendar,
    InFlight,
}

/// A count that outlives the process, and so remembers whose it is.
#[derive(Debug)]
pub struct Meter {
    pub owner: Box<str>,
    pub usage: Usage,
}

/// What is kept of one owner in a table.
pub trait Measure: Send + Sync + 'static {
    /// Nothing taken yet.
    fn new(owner: Owner<'_>) -> Self;

    /// # Panics
    /// If the terms are about something else.
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
    Calendar: Meter = |owner| Meter { owner: owner.to_string().into(), usage: Usage::new() };
    InFlight: InFlight = |_| InFlight::new();
}

/// There is no telling when someone else's request ends.
const COME_BACK: Duration = Duration::from_secs(1);

impl Kind {
    pub const ALL: [Self; 4] = [Self::Bucket, Self::Window, Self::Calendar, Self::InFlight];

    /// The word that the admin API uses.
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

    /// The most that one request can take.
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

    /// Takes `cost`, or nothing. A rate may be taken in advance if that is for no longer than `most`.
    ///
    /// Returns how long the request has to wait before it goes on, mostly not at all.
    ///
    /// # Errors
    /// The wait after which an otherwise idle owner is admitted.
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
        // The config admits no cost that is more than there can ever be.
        .map_err(|wait| wait.retry_in.unwrap_or(Duration::MAX))
    }

    /// Takes what has been spent already, whether or not it is there.
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

    /// Gives back what was taken at `taken_at` for a request that had to wait for `delay`, where `in_force` are the terms
    /// that a reload may have put in place of these. Who is in flight leaves instead, once.
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

    /// The same account under other terms, unless they are about something else.
    pub fn under(&self, terms: Terms) -> Self {
        match (self, terms) {
            (Self::Bucket(bucket, _), Terms::Bucket(quota)) => Self::Bucket(Arc::clone(bucket), quota),
            (Self::Window(window, _), Terms::Window(quota)) => Self::Window(Arc::clone(window), quota),
            (Self::Calendar(meter, _), Terms::Calendar(quota)) => Self::Calendar(Arc::clone(meter), quota),
            _ => self.clone(),
        }
    }

    /// Of the most that there can be, what has been taken and still counts. Requests in flight take nothing.
    pub fn taken(&self, now: Now) -> u64 {
        match self {
            Self::InFlight(..) => 0,
            _ => self.terms().most() - self.balance(now),
        }
    }

    /// Whole tokens that could be taken now, or requests that could be let in.
    pub fn balance(&self, now: Now) -> u64 {
        match self {
            Self::Bucket(bucket, quota) => bucket.balance(quota, now.moment),
            Self::Window(window, quota) => window.balance(quota, now.moment),
            Self::Calendar(meter, quota) => meter.usage.balance(quota, now.wall),
            Self::InFlight(count, cap) => cap.saturating_sub(count.count()).into(),
        }
    }

    /// How long until `cost` could be taken: zero if now.
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

    /// For how long a balance of `remaining` is what it is: until it has been earned anew, has passed out of the
    /// window, or the period ends.
    pub fn reset_in(&self, now: Now, remaining: u64) -> Duration {
        match self {
            Self::Bucket(_, quota) => quota.time_to_earn(remaining),
            Self::Window(_, quota) => quota.window(),
            Self::Calendar(meter, quota) => meter.usage.ends_in(quota, now.wall),
            Self::InFlight(..) => COME_BACK,
        }
    }

    /// Whether forgetting it would change nothing.
    pub fn is_idle(&self, now: Now) -> bool {
        match self {
            Self::Bucket(bucket, _) => bucket.is_full(now.moment),
            Self::Window(window, quota) => window.is_idle(quota, now.moment),
            Self::Calendar(meter, quota) => meter.usage.is_idle(quota, now.wall),
            Self::InFlight(count, _) => count.count() == 0,
        }
    }

    /// Other terms from now on: a bucket keeps its share of fullness, a period what was used in it. What is in a
    /// window or in flight stays what it is, whatever the limit.
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
