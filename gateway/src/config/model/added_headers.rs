//! Which header fields the gateway adds to requests and answers.

use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Header fields that the gateway adds. A route's section overrides the one at the top key by key; at the top, what is
/// not written is `true`. Fields of these names that a stranger sends are removed in any case.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AddedHeaders {
    /// Whether the backend is told the caller: `x-tenant-id`, `x-tenant-tier` and `x-caller-id`.
    pub identity: Option<At<bool>>,
    /// Whether the backend is told where the request came in: `forwarded` and `x-forwarded-for`, `-proto` and `-host`.
    pub forwarded: Option<At<bool>>,
    /// Whether the backend is told the gateway's span and the request id: `traceparent` and `x-request-id`. If not, it
    /// gets those of the caller as they are.
    pub trace: Option<At<bool>>,
    /// Whether the caller is told of its limits: `ratelimit-policy` and `ratelimit`. A 429 says them in any case.
    pub ratelimit: Option<At<bool>>,
}

impl Read for AddedHeaders {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ identity: $, forwarded: $ }"],
        sample: "{ forwarded: false }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            identity: f.optional("identity"),
            forwarded: f.optional("forwarded"),
            trace: f.optional("trace"),
            ratelimit: f.optional("ratelimit"),
        })
    }
}
