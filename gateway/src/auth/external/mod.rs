//! Callers that a service outside the gateway answers for.
//!
//! A request's fields become a [`question::Question`], and the service's answer a caller or a refusal ([`answer`]), which
//! is stored for a time ([`known_answers`]). Knows nothing of connections: a [`Service`] makes the call.

pub mod answer;
mod callers;
pub mod known_answers;
pub mod question;

pub(crate) use self::callers::{Answered, PendingQuestion, Step};
pub use self::callers::{ExternalCallers, ExternalSettings};

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use self::question::Question;
use crate::message::FieldMap;
use crate::observe::ExternalOutcome;
use crate::setting::SettingId;

/// What came of a question: an answer of the service as it was received, or the reason why there is none.
pub type Asked = Result<ServiceAnswer, Unavailable>;

/// Asks the service.
pub trait Service: Send + Sync {
    /// Asks one question for a client address. Ends within the service's time limit.
    fn ask(&self, question: Question, worker: usize, client: IpAddr) -> Pin<Box<dyn Future<Output = Asked> + Send>>;
}

/// An answer of the service, whole and decoded.
#[derive(Debug)]
pub struct ServiceAnswer {
    pub status: StatusCode,
    pub headers: FieldMap,
    pub body: Bytes,
}

/// Reason why it is not known who a caller is.
#[derive(Debug, Clone)]
pub struct Unavailable {
    pub outcome: ExternalOutcome,
    /// What happened, for the log and the status. Holds nothing of the question.
    pub detail: Arc<str>,
    pub retry_after: Duration,
    /// Setting that decided.
    pub by: SettingId,
}

impl Unavailable {
    /// Returns the word of the failed check, for the log.
    pub const fn check(&self) -> &'static str {
        match self.outcome {
            ExternalOutcome::TimedOut => "external_timed_out",
            ExternalOutcome::Status => "external_status",
            ExternalOutcome::Invalid => "external_invalid",
            ExternalOutcome::Full => "external_full",
            ExternalOutcome::BreakerOpen => "external_breaker_open",
            ExternalOutcome::Unreached => "external_unreached",
            ExternalOutcome::Broken
            | ExternalOutcome::Identified
            | ExternalOutcome::Refused
            | ExternalOutcome::Forbidden => "external_broken",
        }
    }
}

/// A refusal of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRefusal {
    pub kind: RefusalKind,
    /// `WWW-Authenticate` of the service, if there is exactly one that is not too long.
    pub www_authenticate: Option<HeaderValue>,
}

/// Kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The credential is not valid (401).
    Invalid,
    /// The caller is known, and may not make the request (403).
    Forbidden,
    /// The credential named a caller until now.
    Expired,
}

#[cfg(test)]
mod tests;
