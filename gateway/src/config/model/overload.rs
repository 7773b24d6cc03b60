//! When a worker is overloaded.

use std::time::Duration;

use super::ranges::MS;
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// When a worker refuses newcomers, those of the tiers of least `weight` first, to keep its promises to the others. It
/// refuses no more than it has to, and what is under way goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Overload {
    /// How long what is ready may wait for the worker.
    pub delay: At<Duration>,
    /// For how long all of it must have waited longer. How many are refused is decided anew as often.
    pub period: At<Duration>,
}

impl Read for Overload {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ delay: $ }"],
        sample: "{ delay: 20ms }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            // Timers are exact to a millisecond or two.
            delay: f.within("delay", 20 * MS, 5 * MS..=Duration::from_secs(10)),
            period: f.within("for", 100 * MS, 20 * MS..=Duration::from_secs(60)),
        })
    }
}
