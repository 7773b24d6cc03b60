//! Lists the faults that keep an attempt from bringing an answer, and the rejection that the caller receives for each.
//!
//! Invariant: a fault of the caller's own body never counts against the backend.

use crate::rejection::{Rejection, Setting};
use crate::setting::SettingId;

/// Fault that kept an attempt from bringing an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection was made, or it closed before it took the request: nothing was sent.
    Unreached,
    /// The connection broke after the request was sent.
    Broken,
    /// The bytes received are not a valid HTTP answer.
    Invalid,
    /// The attempt ran out of time; `sent` says whether the request was already being sent.
    TimedOut { sent: bool },
    /// Too much of the body was used up by an earlier attempt or by another backend: nothing was sent.
    BodyGone,
    /// The caller's body ended the exchange.
    Upload(Upload),
}

impl Fault {
    /// Whether the backend may have seen the request.
    pub(crate) const fn was_sent(self) -> bool {
        !matches!(self, Self::Unreached | Self::TimedOut { sent: false } | Self::BodyGone)
    }

    /// Returns the rejection for the caller. `time` is the limit that ended the attempt, `body_limit` a size in bytes.
    pub(crate) fn rejection(self, time: Setting, body_limit: u64) -> Rejection {
        match self {
            Self::Unreached => Rejection::BackendUnreached(None),
            // A body is sent again only after an earlier backend broke off, so `BodyGone` reports the same.
            Self::Broken | Self::BodyGone => Rejection::BackendBroken,
            Self::Invalid => Rejection::BackendInvalid,
            Self::TimedOut { .. } => timed_out(time),
            Self::Upload(Upload::Malformed(why)) => Rejection::MalformedRequest { why },
            Self::Upload(Upload::TooLarge) => Rejection::BodyTooLarge { limit: body_limit },
            Self::Upload(Upload::Underway) => Rejection::RequestTimeout(time),
            Self::Upload(Upload::TooSlow) => Rejection::RequestTimeout(Setting::At(SettingId::BODY_RATE)),
            Self::Upload(Upload::Broken | Upload::Complete) => Rejection::CallerGone,
        }
    }

    /// Returns the name of the fault for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreached => "unreached",
            Self::Broken => "broken",
            Self::Invalid => "invalid",
            Self::TimedOut { sent: true } => "timed_out",
            Self::TimedOut { sent: false } => "timed_out_connecting",
            Self::BodyGone => "body_gone",
            Self::Upload(_) => "upload",
        }
    }
}

/// Returns the rejection of a request that ran out of time by this limit.
pub(crate) const fn timed_out(by: Setting) -> Rejection {
    match by {
        Setting::CallTime | Setting::AttemptTime => Rejection::BackendTimeout(by),
        _ => Rejection::OutOfTime(by),
    }
}

/// State of a streamed request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// More has to come from the caller.
    Underway,
    Complete,
    /// The caller sent more than the route admits.
    TooLarge,
    /// The caller sent more slowly than its minimum rate.
    TooSlow,
    /// The caller broke the framing.
    Malformed(&'static str),
    /// The caller's connection or stream broke off.
    Broken,
}
