//! The facts of one request. Stages note them; they are read once, after the last byte.
//!
//! The record is small and bounded: text from a caller is cut, and names are shared with the plan. No decision depends
//! on it; a stage that needs a value gets it as an argument.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};
use policies::Moment;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use super::attempts::Attempts;
use super::counters::RouteMetrics;
use super::decided::Decided;
use super::labels::{CacheResult, CallerKind, CostSource, FallbackKind, IdempotencyResult, Outcome};
use super::tenants::TenantMetrics;
use super::timestamp::Timestamp;
use super::traces::SpanContext;
use super::unknown_tiers::UnknownTier;
use crate::compression::Coding;
use crate::headers::TraceId;
use crate::rejection::Reason;

#[derive(Debug, Clone, Default)]
pub struct RequestRecord {
    /// Time at which the request's head had arrived. The time limits count from here.
    pub started: Moment,
    /// The same instant in the time of day.
    pub at: Timestamp,
    pub request_id: Text,
    /// The caller's trace, or a new one; `None` before the head is read.
    pub trace: Option<TraceId>,
    /// Place of the request in its trace; `None` while no traces are exported.
    pub span: Option<Box<SpanContext>>,
    pub method: Method,
    /// Path without the query, which may hold secrets.
    pub path: Text,
    /// HTTP version of the caller; `None` if unknown.
    pub version: Option<Version>,
    pub client: Option<IpAddr>,
    pub route: Option<Arc<RouteMetrics>>,
    pub tenant: Option<Arc<TenantMetrics>>,
    pub tier: Option<Arc<str>>,
    /// Tier named by the credential, if the config has no such tier.
    pub unknown_tier: Option<Arc<UnknownTier>>,
    /// Caller within the tenant: a key's id or a token's subject.
    pub caller: Option<Arc<str>>,
    /// Kind of credential that was presented, valid or not.
    pub caller_kind: CallerKind,
    /// Status of the response; 0 until there is one.
    pub status: u16,
    /// Status of a gRPC call, if known; its HTTP `status` is nearly always 200.
    pub grpc_status: Option<u16>,
    /// Reason of the gateway's rejection; `None` for a backend's own response, whatever its status.
    pub reason: Option<Reason>,
    /// The strictest of the limits that rejected the request.
    pub limit: Option<Arc<str>>,
    /// The setting that led to the rejection; `None` if no setting would change the response.
    pub decided: Option<Box<Decided>>,
    /// Time spent waiting for tokens of a limit.
    pub delayed: Duration,
    /// The backend that was called; `None` for an aggregate.
    pub backend: Option<Arc<str>>,
    /// Attempts of all calls. The times of the calls derive from them.
    pub attempts: Attempts,
    /// Tokens that the request cost, as far as the type can tell; 0 if it was refused before, or its charge was given
    /// back.
    pub cost: u32,
    /// Units that were reserved for the request; `None` where its cost is not measured, and for none.
    pub reserved: Option<NonZeroU32>,
    /// What its cost goes by; `None` until it is settled.
    pub cost_by: Option<CostSource>,
    /// Time limit of the request, set when its limits are charged.
    pub budget: Option<Duration>,
    /// Time from `started` to the last byte; set at the end.
    pub used: Duration,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body, as they are sent.
    pub bytes_out: u64,
    /// Coding in which the gateway sends the response; `None` if it is sent as it came.
    pub coding: Option<Coding>,
    /// Bytes of the response body before it was compressed.
    pub bytes_plain: u64,
    /// True if an aggregate has all of its parts; `None` for other routes.
    pub complete: Option<bool>,
    /// Fallbacks that were served, one entry for each use.
    pub fallbacks: SmallVec<[FallbackKind; 4]>,
    /// How the response cache took part; `None` on routes without a cache.
    pub cache: Option<CacheResult>,
    /// What became of the request; `None` on routes without `idempotency`.
    pub idempotency: Option<IdempotencyResult>,
    /// True if the response broke off after its head was sent.
    pub aborted: bool,
    fault: Option<Cow<'static, str>>,
}

impl RequestRecord {
    /// Starts a record. `path` is cut at 256 bytes, `request_id` at 128.
    pub fn begin(started: Moment, at: Duration, request_id: &str, method: Method, path: &str) -> Self {
        Self {
            started,
            at: Timestamp(at),
            request_id: Text::cut(request_id, 128),
            method,
            path: Text::cut(path, 256),
            ..Self::default()
        }
    }

    /// Returns the protocol of the caller as text; empty if unknown.
    pub(super) fn protocol(&self) -> &'static str {
        match self.version {
            None => "",
            Some(Version::HTTP_2) => "HTTP/2",
            Some(Version::HTTP_10) => "HTTP/1.0",
            Some(_) => "HTTP/1.1",
        }
    }

    /// Notes that the gateway rejects the request.
    pub fn refused(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.status = reason.status().as_u16();
    }

    /// Notes the end of the request, and of the answer that it was still receiving.
    pub(super) fn end(&mut self, now: Moment) {
        self.used = now.since(self.started);
        if self.aborted {
            self.attempts.break_off(Outcome::Cancelled);
        } else if self.reason == Some(Reason::BackendInvalid) {
            self.attempts.break_off(Outcome::Invalid);
        }
        self.attempts.end(now, None, None);
    }

    /// Notes an internal fault, for the log only. The first fault is kept, because later ones mostly result from it.
    pub fn note_fault(&mut self, fault: impl Into<Cow<'static, str>>) {
        const MOST: usize = 256;
        if self.fault.is_none() {
            self.fault = Some(match fault.into() {
                long if long.len() > MOST => Cow::Owned(start_of(&long, MOST).to_owned()),
                short => short,
            });
        }
    }

    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

/// Text of limited length, without an allocation up to the length of a UUID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(SmallVec<[u8; 36]>);

impl Text {
    /// Keeps at most `most` bytes of `text`.
    pub fn cut(text: &str, most: usize) -> Self {
        Self(SmallVec::from_slice(start_of(text, most).as_bytes()))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was made from a str, cut between characters")
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn start_of(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        fn check(text: &str, most: usize, expected: &str) {
            assert_eq!(Text::cut(text, most).as_str(), expected);
        }
        check("", 4, "");
        check("abcd", 4, "abcd");
        check("abcde", 4, "abcd");
        check("abcé", 4, "abc");
        check("日本語", 5, "日");
        check(&"x".repeat(300), 256, &"x".repeat(256));
    }

    #[test]
    fn the_first_fault_is_kept_and_cut() {
        let mut record = RequestRecord::default();
        record.note_fault("é".repeat(400));
        record.note_fault("later");
        assert_eq!(record.fault().map(str::len), Some(256));
        assert_eq!(record.fault().and_then(|fault| fault.chars().next()), Some('é'));
    }

    #[test]
    fn a_refusal_sets_reason_and_status_together() {
        let mut record = RequestRecord::default();
        record.refused(Reason::BreakerOpen);
        assert_eq!((record.status, record.reason), (503, Some(Reason::BreakerOpen)));
    }

    /// A record is moved several times, and thousands can wait in the access log's queue. A fifth of it is the first
    /// attempt, which most requests have, so that it needs no allocation.
    #[test]
    fn a_record_stays_small() {
        assert!(
            size_of::<RequestRecord>() <= 584,
            "{} bytes",
            size_of::<RequestRecord>()
        );
    }
}
