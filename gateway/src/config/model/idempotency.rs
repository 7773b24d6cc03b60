//! Which requests are done once however often they are sent, by the key that their callers give them.

use std::time::Duration;

use http::HeaderName;

use super::ranges::HOUR;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::words;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;

/// The store of idempotency keys, for all routes with `idempotency`.
#[derive(Debug, Clone, PartialEq)]
pub struct Idempotency {
    /// Memory for all keys with their answers. One tenant holds at most as much as it leaves free: half of it, if it is
    /// alone. In the shared store, half of it is the most of one tenant.
    pub max_bytes: At<ByteSize>,
    /// What happens to a request with a new key whose tenant has no room left.
    pub when_full: At<WhenFull>,
}

/// How the requests of a route are done once (draft-ietf-httpapi-idempotency-key-header). Holds for methods that change
/// something; GET, HEAD and OPTIONS pass by.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteIdempotency {
    /// Whether a request without `Idempotency-Key` is refused.
    pub required: At<bool>,
    /// Time for which a key is remembered, from the end of its request.
    pub keep_for: At<Duration>,
    /// Who shares a key. `caller`: nobody. `tenant`: the callers of one tenant, which then get each other's answers.
    pub scope: At<IdempotencyScope>,
    /// Longest answer that is stored, body and header fields. Of a longer one only the status is.
    pub max_answer: At<ByteSize>,
    /// Header fields that must be the same when a key is sent again, beside `Content-Type` and `Content-Encoding`.
    pub headers: Vec<At<HeaderName>>,
    /// Statuses by which the backend says that it has done nothing. They are not stored, and free the key.
    pub release_on: Vec<At<u16>>,
    /// What happens to requests with a key while the shared store cannot be reached.
    pub when_down: At<IdempotencyWhenDown>,
}

words! {
    /// Who shares a key.
    pub enum IdempotencyScope { Caller = "caller", Tenant = "tenant" }

    /// What happens to a request with a new key that there is no room for.
    pub enum WhenFull {
        /// It is refused with `idempotency_full`.
        Refuse = "refuse",
        /// The oldest answered keys of its tenant are forgotten before their time.
        Forget = "forget",
    }

    /// What happens to requests with a key while the shared store cannot be reached.
    pub enum IdempotencyWhenDown {
        /// They are refused with `idempotency_unavailable`.
        Closed = "closed",
        /// They are passed on, and a request that is sent twice may be done twice.
        Open = "open",
    }
}

const DEFAULT_BYTES: ByteSize = ByteSize(256 << 20);

/// Statuses that say by their definition that the request was not applied: RFC 9110 section 15.5.2, RFC 8470 section
/// 5.2, RFC 6585 section 4.
const RELEASE_ON: [u16; 3] = [401, 425, 429];

impl Read for Idempotency {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ max_bytes: $ }"],
        sample: "{ max_bytes: 256MiB }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            max_bytes: f.within("max_bytes", DEFAULT_BYTES, ByteSize(1 << 20)..=ByteSize(1 << 40)),
            when_full: f.or("when_full", WhenFull::Refuse),
        })
    }
}

impl Read for RouteIdempotency {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ required: $ }", "{ keep_for: $ }", "{ scope: $ }"],
        sample: "{ required: true }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let release_on = f.list_or("release_on", &RELEASE_ON);
            for status in &release_on {
                if !(400..=599).contains(&**status) {
                    let message = format!("`{}.release_on` has a status that refuses nothing", f.path);
                    f.push(
                        Mistake::new(Code::OutOfRange, status.span(), message)
                            .hint("400 to 599: a status by which the backend says that it has done nothing"),
                    );
                }
            }
            Self {
                required: f.or("required", false),
                keep_for: f.within("keep_for", 24 * HOUR, Duration::from_secs(60)..=30 * 24 * HOUR),
                scope: f.or("scope", IdempotencyScope::Caller),
                max_answer: f.within("max_answer", ByteSize(64 << 10), ByteSize(0)..=ByteSize(1 << 20)),
                headers: f.list("headers"),
                release_on,
                when_down: f.or("when_down", IdempotencyWhenDown::Closed),
            }
        })
    }
}
