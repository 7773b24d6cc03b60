//! The facts of one request, noted as it goes through the stages and read once, when its last byte has left.
//!
//! Small and bounded: text that a caller chose is cut, names are shared with the plan. Nothing in it decides anything;
//! a stage that needs a value is given it as an argument.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use policies::Moment;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use super::counters::RouteMetrics;
use super::decided::Decided;
use super::labels::{CallerKind, FallbackKind};
use super::tenants::TenantMetrics;
use super::timestamp::Timestamp;
use super::unknown_tiers::UnknownTier;
use crate::rejection::Reason;

#[derive(Debug, Default)]
pub struct RequestRecord {
    /// When the request's head had arrived: t0 of its budget.
    pub started: Moment,
    /// The same instant on the wall clock.
    pub at: Timestamp,
    pub request_id: Text,
    pub method: Method,
    /// Without the query, which may hold secrets.
    pub path: Text,
    /// As its caller spoke it; empty if that is not known.
    pub protocol: &'static str,
    pub client: Option<IpAddr>,
    pub route: Option<Arc<RouteMetrics>>,
    pub tenant: Option<Arc<TenantMetrics>>,
    pub tier: Option<Arc<str>>,
    /// What its credential calls its tier, if there is no such tier.
    pub unknown_tier: Option<Arc<UnknownTier>>,
    /// Who of the tenant: a key's id or a token's subject.
    pub caller: Option<Arc<str>>,
    /// What was presented, whether or not it held.
    pub caller_kind: CallerKind,
    /// What was answered; 0 until there is an answer.
    pub status: u16,
    /// What a call of gRPC ended with, as far as it is known; its `status` is nearly always 200.
    pub grpc_status: Option<u16>,
    /// Why the gateway said no; `None` for a backend's own answer, whatever its status.
    pub reason: Option<Reason>,
    /// The tightest of the limits that refused it.
    pub limit: Option<Arc<str>>,
    /// Which setting of which config refused it.
    pub decided: Option<Box<Decided>>,
    /// Spent waiting for a limit.
    pub delayed: Duration,
    /// The one backend that was called; `None` for an aggregate.
    pub backend: Option<Arc<str>>,
    /// Of all calls together.
    pub attempts: u32,
    /// What the request was given when it was routed.
    pub budget: Option<Duration>,
    /// From `started` to the last byte; set at the end.
    pub used: Duration,
    /// Spent waiting for a bulkhead.
    pub queued: Duration,
    /// Spent on opening a connection; `None` if one was reused.
    pub connect: Option<Duration>,
    /// From `started` to the head of the backend's answer.
    pub first_byte: Option<Duration>,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
    /// Whether an aggregate has all of its parts; `None` for anything else.
    pub complete: Option<bool>,
    /// What stood in for answers that backends did not give, each as often as it did.
    pub fallbacks: SmallVec<[FallbackKind; 4]>,
    /// The answer broke off after its head had been sent.
    pub aborted: bool,
    fault: Option<Cow<'static, str>>,
}

impl RequestRecord {
    /// `path` is cut at 256 bytes, `request_id` at 128.
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

    /// The gateway answers with a rejection of its own.
    pub fn refused(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.status = reason.status().as_u16();
    }

    /// Notes what went wrong inside, for the log alone. The first fault is kept: what follows is mostly its result.
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

/// Text of bounded length, kept without an allocation if it is as short as a UUID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(SmallVec<[u8; 36]>);

impl Text {
    /// At most `most` bytes of `text`.
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

    /// A record is moved a few times and waits in the access log's queue by the thousand.
    #[test]
    fn a_record_stays_small() {
        assert!(
            size_of::<RequestRecord>() <= 448,
            "{} bytes",
            size_of::<RequestRecord>()
        );
    }
}
