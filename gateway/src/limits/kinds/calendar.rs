//! A limit that is a quota of the calendar: so many tokens in each minute, hour, day, week or month, in UTC.
//!
//! Its counts outlive the process in the [state file](crate::limits::store::local::state_file).

use std::sync::Arc;
use std::time::Duration;

use policies::calendar::Saved;
use policies::{CalendarQuota, Every, Usage, WallTime};

use super::{Account, LimitCounter, NewAccount, SavedCount, Taken, time};
use crate::clock::Now;
use crate::header_fields::LONGEST_RENEWAL;
use crate::rejection::{Rejection, Violation};

/// The count of a calendar quota. It outlives the process in the state file, so it holds its owner's name.
#[derive(Debug)]
pub struct QuotaCount {
    pub owner: Box<str>,
    pub usage: Usage,
}

impl Account {
    /// Returns the count and the terms of a calendar quota; `None` for other kinds.
    pub fn as_calendar(&self) -> Option<(&QuotaCount, &CalendarQuota)> {
        match self {
            Self::Calendar(count, quota) => Some((count, quota)),
            _ => None,
        }
    }
}

impl LimitCounter for QuotaCount {
    type Terms = CalendarQuota;

    const WORD: &'static str = "quota";
    const LONGEST_WAIT: Duration = LONGEST_RENEWAL;

    fn new(account: &NewAccount<'_>) -> Arc<Self> {
        Arc::new(Self {
            owner: account.owner.to_string().into(),
            usage: Usage::new(),
        })
    }

    fn most(quota: &CalendarQuota) -> u64 {
        quota.limit()
    }

    /// Returns the length of the quota's period; 31 days for a month.
    fn period(quota: &CalendarQuota) -> Option<Duration> {
        const DAY: u64 = 24 * 3600;
        Some(Duration::from_secs(match quota.every() {
            Every::Minute => 60,
            Every::Hour => 3600,
            Every::Day => DAY,
            Every::Week => 7 * DAY,
            Every::Month => 31 * DAY,
        }))
    }

    fn renewed_in(quota: &CalendarQuota, now: Now) -> Option<Duration> {
        let end = quota.every().end(now.wall);
        Some(end.elapsed().saturating_sub(now.wall.elapsed()))
    }

    fn rejection(violation: Box<Violation>) -> Rejection {
        Rejection::QuotaExhausted(violation)
    }

    fn take(&self, quota: &CalendarQuota, now: Now, cost: u64, _longest: Duration) -> Result<Duration, Duration> {
        let taken = self.usage.take(quota, now.wall, cost);
        taken.map(|_| Duration::ZERO).map_err(time)
    }

    fn charge(&self, quota: &CalendarQuota, now: Now, cost: u64) {
        self.usage.charge(quota, now.wall, cost);
    }

    fn refund(&self, _: &CalendarQuota, new: &CalendarQuota, now: Now, taken: Taken) {
        self.usage.refund(new, now.wall, taken.at.wall, taken.tokens);
    }

    fn balance(&self, quota: &CalendarQuota, now: Now) -> u64 {
        self.usage.balance(quota, now.wall)
    }

    fn wait_for(&self, quota: &CalendarQuota, now: Now, cost: u64) -> Duration {
        self.usage.wait_for(quota, now.wall, cost).unwrap_or(Duration::MAX)
    }

    /// Returns the time until the period ends.
    fn reset_in(&self, quota: &CalendarQuota, now: Now, _remaining: u64) -> Duration {
        self.usage.ends_in(quota, now.wall)
    }

    fn is_idle(&self, quota: &CalendarQuota, now: Now) -> bool {
        self.usage.is_idle(quota, now.wall)
    }

    /// Keeps what was used in the period.
    fn change_terms(&self, old: &CalendarQuota, new: &CalendarQuota, now: Now) {
        if old.every() != new.every() {
            self.usage.carry_over(old, new, now.wall);
        }
    }

    fn saved(&self) -> Option<SavedCount> {
        let Saved { since, used } = self.usage.saved();
        Some(SavedCount::Quota(since.elapsed().as_secs(), used))
    }

    fn restore(&self, quota: &CalendarQuota, now: Now, saved: &SavedCount) -> bool {
        let SavedCount::Quota(since, used) = *saved else {
            return false;
        };
        let since = WallTime::since_epoch(Duration::from_secs(since));
        self.usage.restore(quota, now.wall, Saved { since, used });
        true
    }
}
