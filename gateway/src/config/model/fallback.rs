//! What stands in for an answer that a backend does not give, of a route or of a part.

use std::time::Duration;

use super::ranges::time_above_zero;
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;
use crate::json::Document;

/// One substitute for an answer; exactly one of the keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Fallback {
    /// A JSON value.
    Value(At<Document>),
    /// The last good answer to the same request of the same caller, if it is no older.
    Stale(At<Duration>),
    /// The answer of another backend to the same request.
    Backend(At<String>),
}

impl Read for Fallback {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ stale: $ }", "{ backend: $ }"],
        sample: "{ stale: 10m }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let kind = f.exactly_one(&["value", "stale", "backend"]);
            let (value, within, backend) = (f.optional("value"), f.optional("stale"), f.optional("backend"));
            time_above_zero(f, "stale", within.as_ref());
            Some(match kind? {
                "value" => Self::Value(value?),
                "stale" => Self::Stale(within?),
                _ => Self::Backend(backend?),
            })
        })?
    }
}
