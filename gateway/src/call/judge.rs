//! Judges an attempt by the behaviour of both sides: what the caller is told, what is recorded for the backend, and
//! whether the attempt may be repeated.
//!
//! A backend is responsible only for the time it is waited for, which begins with the last byte of the request: a slow
//! caller is not the backend's fault. What the backend does itself (it closes, resets, sends something invalid) is its
//! own fault, however much of the request was sent. Only a timeout can be explained by a request body that is not
//! complete.
//!
//! Pure: no clock, no state.

use std::time::Duration;

use http::StatusCode;
use policies::breaker::Outcome;
use policies::{Deadline, Moment};

use super::classify::RetryOn;
use super::fault::{Fault, TimeLimit, Upload};
use super::replay::Sending;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// End of an attempt, as seen on the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Answered {
        status: StatusCode,
        /// Whether an operator counts this status as a failure.
        is_failure: bool,
    },
    /// Failure. [`Fault::Upload`] means that the request's own body ended the exchange.
    Failed(Fault),
}

/// Times of the steps of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptTimes {
    pub(crate) began: Moment,
    /// Time at which the connection was given the request; `None` if there was no connection.
    pub(crate) sent: Option<Moment>,
    /// Time at which the head of the answer came, or the attempt failed.
    pub(crate) ended: Moment,
    /// Progress of sending the request at that time.
    pub(crate) sending: Sending,
}

/// Limits of an attempt, and where they come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Deadline of the whole attempt.
    pub(crate) attempt: Deadline,
    /// Deadline of the attempt without the caller's own time limit.
    pub(crate) by_operator: Deadline,
    /// Limit that sets `attempt`.
    pub(crate) time: TimeLimit,
    /// Smallest operator's limit for the attempt, the call, and the part or route.
    pub(crate) operator_limit: Duration,
    /// Setting of the backend's endpoints.
    pub(crate) endpoints: SettingId,
    /// Whether the exchange is a stream. Its request may stay open on purpose, so that the answer is waited for.
    pub(crate) is_stream: bool,
}

/// Rules of what may be retried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again<'a> {
    pub(crate) on: &'a RetryOn,
    /// Whether the request may be sent twice.
    pub(crate) is_repeatable: bool,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    /// Outcome recorded for the backend and for its endpoint.
    pub(crate) outcome: Outcome,
    /// Fault because of which there is no answer; `None` if there is an answer.
    pub(crate) fault: Option<Fault>,
    /// Whether the attempt may be repeated, judged only by how it ended.
    pub(crate) again: bool,
}

/// Judges the end of an attempt.
pub(crate) fn judge(end: End, course: &AttemptTimes, limits: &Limits, again: Again<'_>) -> Verdict {
    let took = course.backend_time();
    match end {
        End::Answered { status, is_failure } => Verdict {
            outcome: if is_failure {
                Outcome::Failure { took }
            } else {
                Outcome::Success { took }
            },
            fault: None,
            again: again.on.admits_status(status, again.is_repeatable),
        },
        End::Failed(fault) => {
            let fault = course.explain(fault, limits.is_stream);
            let is_blamed = match fault {
                Fault::Unreached | Fault::Broken | Fault::Invalid => true,
                Fault::TimedOut { .. } => limits.were_used_up_by_backend(took),
                Fault::BodyGone | Fault::Upload(_) => false,
            };
            Verdict {
                outcome: if is_blamed {
                    Outcome::Failure { took }
                } else {
                    Outcome::Ignored
                },
                fault: Some(fault),
                again: again.on.admits_fault(fault, again.is_repeatable),
            }
        }
    }
}

impl AttemptTimes {
    /// Returns how long the backend was waited for: while connecting, and since it last took a part of the request.
    /// Time in which the caller is waited for does not count.
    fn backend_time(&self) -> Duration {
        let Some(sent) = self.sent else {
            return self.ended.since(self.began);
        };
        let owed = match self.sending {
            Sending::Complete { since } | Sending::Untaken { since } => self.ended.since(since.max(sent)),
            Sending::AwaitsCaller | Sending::Spoilt(_) => Duration::ZERO,
        };
        sent.since(self.began) + owed
    }

    /// Replaces a fault by the caller's if the caller's side explains it.
    fn explain(&self, fault: Fault, is_stream: bool) -> Fault {
        match (fault, self.sending) {
            (Fault::TimedOut { sent: true } | Fault::Upload(_), Sending::Spoilt(upload)) => Fault::Upload(upload),
            (Fault::TimedOut { sent: true }, Sending::AwaitsCaller) if !is_stream => Fault::Upload(Upload::Underway),
            _ => fault,
        }
    }
}

impl Limits {
    /// Returns the rejection for a judged fault.
    pub(crate) fn rejection(&self, fault: Fault) -> Rejection {
        fault.rejection(self.time, self.endpoints)
    }

    /// Whether the backend used up the operator's time limit. It must use 4/5 of the limit if the operator's own limit
    /// ended the attempt, and all of it if the caller's own time limit did. Otherwise a caller could open the breaker
    /// for all callers by asking for little time, or by using most of the time itself.
    fn were_used_up_by_backend(&self, took: Duration) -> bool {
        if self.attempt < self.by_operator {
            took >= self.operator_limit
        } else {
            took.as_nanos() * 5 >= self.operator_limit.as_nanos() * 4
        }
    }
}

#[cfg(test)]
mod tests;
