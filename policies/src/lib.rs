//! Decides, and does nothing else: may this start, how long may it take, is it worth another try?
//!
//! There is no clock, no randomness, no IO, no logging and no runtime in this crate. The time is an
//! argument ([`Moment`]), chance is an argument, and a change of state is a return value. Hence every
//! rule can be checked on a table of instants, on random schedules and on every interleaving, and
//! the caller decides what waiting, logging and counting mean.
//!
//! Decisions are atomics on the uncontended path: they are made once or more per request.

pub mod backoff;
pub mod breaker;
pub mod bucket;
pub mod bulkhead;
pub mod calendar;
pub mod clock_follower;
pub mod deadline;
pub mod decision;
pub mod ejection;
pub mod in_flight;
pub mod moment;
mod queue;
pub mod ratio;
pub mod retry;
pub mod sliding_window;
mod sync;
pub mod time_share;

pub use backoff::{Backoff, Jitter};
pub use breaker::{Breaker, BreakerSettings};
pub use bucket::{Bucket, Quota};
pub use bulkhead::Bulkhead;
pub use calendar::{CalendarQuota, Every, Usage, WallTime};
pub use clock_follower::ClockFollower;
pub use deadline::Deadline;
pub use decision::{Balance, Wait};
pub use ejection::{EjectionSettings, Ejector};
pub use in_flight::InFlight;
pub use moment::Moment;
pub use ratio::Ratio;
pub use retry::{Retry, RetryBudget};
pub use sliding_window::{SlidingWindow, WindowQuota};
pub use time_share::{Share, TimeShare};
