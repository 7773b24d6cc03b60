//! Lists the faults that keep an attempt from bringing an answer, and the rejection that the caller receives for each.
//!
//! Invariant: a fault of the caller's own body never counts against the backend.

use crate::rejection::Rejection;
use crate::setting::{Configured, SettingId};

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

    /// Returns the rejection for the caller. `time` is the limit that ended the attempt, `endpoints` the setting of the
    /// backend's endpoints.
    pub(crate) fn rejection(self, time: TimeLimit, endpoints: SettingId) -> Rejection {
        match self {
            Self::Unreached => Rejection::BackendUnreached(endpoints),
            // A body is sent again only after an earlier backend broke off, so `BodyGone` reports the same.
            Self::Broken | Self::BodyGone => Rejection::BackendBroken(endpoints),
            Self::Invalid => Rejection::BackendInvalid(endpoints),
            Self::TimedOut { .. } => time.rejection(),
            Self::Upload(upload) => upload.rejection(time.setting()),
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

/// Limit that a deadline comes from, with its setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    /// Limit of the request or of the part. `None` if the caller set it.
    Request(Option<SettingId>),
    /// Limit of the backend for a call or for an attempt.
    Backend(SettingId),
}

impl TimeLimit {
    pub(crate) const fn setting(self) -> Option<SettingId> {
        match self {
            Self::Request(by) => by,
            Self::Backend(by) => Some(by),
        }
    }

    /// Returns the rejection of a request that ran out of time by this limit.
    pub(crate) const fn rejection(self) -> Rejection {
        match self {
            Self::Request(by) => Rejection::OutOfTime(by),
            Self::Backend(by) => Rejection::BackendTimeout(by),
        }
    }
}

/// State of a streamed request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// More has to come from the caller.
    Underway,
    Complete,
    /// The caller sent more than the route admits. Holds the limit in bytes.
    TooLarge(Configured<u64>),
    /// The caller sent more slowly than its minimum rate.
    TooSlow,
    /// The caller broke the framing.
    Malformed(&'static str),
    /// The caller's connection or stream broke off.
    Broken,
}

impl Upload {
    /// Returns the rejection for the caller. `time` is the setting of the limit that ended the attempt.
    pub(crate) const fn rejection(self, time: Option<SettingId>) -> Rejection {
        match self {
            Self::Malformed(why) => Rejection::malformed(why),
            Self::TooLarge(limit) => Rejection::BodyTooLarge(limit),
            Self::Underway => Rejection::RequestTimeout(time),
            Self::TooSlow => Rejection::RequestTimeout(Some(SettingId::BODY_RATE)),
            Self::Broken | Self::Complete => Rejection::CallerGone,
        }
    }
}
