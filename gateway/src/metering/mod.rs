//! Measures what a request costs by its body and its answer, for routes whose `cost` is read from answers.
//!
//! [`Metering`] holds a route's terms. [`Metering::reserve`] reads the request, and [`AnswerMeter`] the answer while it
//! passes. [`Tally::settle`] decides at the end. Nothing here waits, buffers or charges.
//!
//! Invariant: a byte of an answer is never held back for being read, and the memory of a reader is fixed.

mod answer_meter;
mod event_reader;
mod json_reader;
mod path;
mod reserve;
mod tally;

#[cfg(test)]
mod properties;

pub use self::answer_meter::AnswerMeter;
pub use self::path::{AnswerPath, MOST_SUMMANDS, Paths};
pub use self::reserve::{RequestPath, Reserve, ReserveError, Reserved};
pub use self::tally::{AnswerEnd, Settlement, Source, Tally};

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::setting::SettingId;

/// How requests of a route are measured.
#[derive(Debug)]
pub struct Metering {
    /// Where answers say what was used, and where their texts are.
    pub paths: Paths,
    pub reserve: Reserve,
    /// Quotas of tiers and tenants that count units.
    pub quotas: Vec<Arc<str>>,
    pub setting: SettingId,
}

const fn units(bytes: u64, per_unit: NonZeroU64) -> u64 {
    bytes.div_ceil(per_unit.get())
}
