//! Which answers are stored to be used again, for how long and for whom.

use std::time::Duration;

use http::HeaderName;

use super::ranges::time_above_zero;
use crate::config::reader::Read;
use crate::config::scalar::words;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;

/// The store of answers: those that routes and parts with a `cache` use again, and the last good ones of `fallback: [{ stale: ... }]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Memory for all stored answers. Tenants share it equally: none loses to another what it stores within its share.
    pub max_bytes: At<ByteSize>,
}

/// Which answers of a route or part are stored and used again (RFC 9111). `{}` stores what the backend allows to be stored, for
/// as long as it says.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteCache {
    /// Who shares answers that are not `public` and have no `s-maxage`. `caller`: nobody. `tenant`: the callers of one
    /// tenant, except answers that are `private`.
    pub scope: At<CacheScope>,
    /// Lifetime of answers that state none. Left out, they are not stored.
    pub ttl: Option<At<Duration>>,
    /// For how long a stale answer is used while a newer one is fetched, where the answer does not say.
    pub stale_while_revalidate: Option<At<Duration>>,
    /// For how long a stale answer is used if the backend fails, where the answer does not say.
    pub stale_if_error: Option<At<Duration>>,
    /// Header fields of requests for whose values answers are stored apart, beside those that their `Vary` names.
    pub vary: Vec<At<HeaderName>>,
    /// Whether `Cache-Control` of requests counts: callers can then have an answer confirmed by the backend.
    pub caller_directives: At<CallerDirectives>,
}

words! {
    /// Who shares a stored answer that does not say so itself.
    pub enum CacheScope { Caller = "caller", Tenant = "tenant" }

    /// What becomes of the wishes of callers.
    pub enum CallerDirectives { Follow = "follow", Ignore = "ignore" }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: At::unwritten(DEFAULT_BYTES),
        }
    }
}

const DEFAULT_BYTES: ByteSize = ByteSize(64 << 20);

impl Read for Cache {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ max_bytes: $ }"],
        sample: "{ max_bytes: 64MiB }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            max_bytes: f.within("max_bytes", DEFAULT_BYTES, ByteSize(1 << 20)..=ByteSize(1 << 40)),
        })
    }
}

impl Read for RouteCache {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ ttl: $ }", "{ scope: $ }"],
        sample: "{ ttl: 30s }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let scope = f.or("scope", CacheScope::Caller);
            let ttl = f.optional("ttl");
            time_above_zero(f, "ttl", ttl.as_ref());
            let stale_while_revalidate = f.optional("stale_while_revalidate");
            time_above_zero(f, "stale_while_revalidate", stale_while_revalidate.as_ref());
            let stale_if_error = f.optional("stale_if_error");
            time_above_zero(f, "stale_if_error", stale_if_error.as_ref());
            Self {
                scope,
                ttl,
                stale_while_revalidate,
                stale_if_error,
                vary: f.list("vary"),
                caller_directives: f.or("caller_directives", CallerDirectives::Follow),
            }
        })
    }
}
