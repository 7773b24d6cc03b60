//! What becomes of a path that another server could read differently.

use crate::config::reader::Read;
use crate::config::scalar::words;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// What happens to a path that another server could read differently. A route's section overrides the one at the top
/// key by key; at the top, what is not written is `reject`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PathPolicy {
    /// `.` and `..`, however they are encoded. `decode` resolves them (RFC 3986 section 5.2.4) and refuses those that
    /// lead above the root.
    pub dot_segments: Option<At<DotSegments>>,
    /// `//`. `decode` makes it one slash.
    pub double_slash: Option<At<PathAction>>,
    /// `%2F`. `decode` makes it a slash; `keep` leaves it as part of its segment.
    pub encoded_slash: Option<At<PathAction>>,
    /// `\` and `%5C`. `decode` makes it a slash, as browsers do.
    pub backslash: Option<At<PathAction>>,
}

words! {
    pub enum DotSegments { Reject = "reject", Decode = "decode" }

    pub enum PathAction { Reject = "reject", Decode = "decode", Keep = "keep" }
}

impl Read for PathPolicy {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ dot_segments: $, encoded_slash: $ }"],
        sample: "{ encoded_slash: decode }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            dot_segments: f.optional("dot_segments"),
            double_slash: f.optional("double_slash"),
            encoded_slash: f.optional("encoded_slash"),
            backslash: f.optional("backslash"),
        })
    }
}
