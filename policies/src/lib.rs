//! Decides for one request: may it start, how long may it take, is another try worth it?
//!
//! This crate has no clock, no randomness, no IO, no logging and no runtime. Time ([`Moment`]) and chance are
//! arguments, and a change of state is a return value. Hence tests can check every rule on a table of instants, on
//! random schedules and on every interleaving. The code that calls a policy does the waiting, logging and counting.
//!
//! Every request makes one decision or more, so a decision without contention uses atomics only, no lock.

pub mod adaptive_limit;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod bucket;
pub mod bulkhead;
pub mod calendar;
pub mod canary;
pub mod clock_follower;
pub mod deadline;
pub mod decision;
pub mod ejection;
pub mod health;
pub mod hedge;
pub mod in_flight;
pub mod lease;
pub mod moment;
pub mod overload;
mod queue;
pub mod ratio;
pub mod retry;
pub mod sliding_window;
pub mod split;
mod sync;
pub mod time_share;

pub use adaptive_limit::{AdaptiveLimit, AdaptiveSettings};
pub use backoff::{Backoff, Jitter};
pub use breaker::{Breaker, BreakerSettings};
pub use bucket::{Bucket, Quota};
pub use bulkhead::Bulkhead;
pub use calendar::{CalendarQuota, Every, Usage, WallTime};
pub use canary::Outcomes;
pub use clock_follower::ClockFollower;
pub use deadline::Deadline;
pub use decision::{Balance, Wait};
pub use ejection::{EjectionSettings, Ejector};
pub use health::{Health, HealthSettings};
pub use in_flight::InFlight;
pub use lease::{Lease, LeaseTerms, LeasedTokens};
pub use moment::Moment;
pub use ratio::Ratio;
pub use retry::{Retry, RetryBudget};
pub use sliding_window::{SlidingWindow, WindowQuota};
pub use time_share::{Share, TimeShare};
