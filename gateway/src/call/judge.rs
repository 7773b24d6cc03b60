//! Judges an attempt by what happened on both sides: what its caller is told, what is recorded of the backend, and
//! whether it may be made again.
//!
//! A backend answers for the time in which it was waited for, which begins with the last byte of the request: the pace of
//! a caller is not its fault. What it does itself (it closes, resets, answers with something else) is its own doing
//! however far the request has come; only a timeout can be explained by a body that is still to come.
//!
//! Pure: no clock, no state.

use std::time::Duration;

use http::StatusCode;
use policies::breaker::Outcome;
use policies::{Deadline, Moment};

use super::classify::{Fault, RetryOn};
use super::replay::{Sending, Upload};
use crate::rejection::{Rejection, Setting};

/// How an attempt ended, as the connection tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Answered {
        status: StatusCode,
        /// Whether an operator counts this status as a failure.
        is_failure: bool,
    },
    /// [`Fault::Upload`] if the exchange was ended by the end of the request's own body.
    Failed(Fault),
}

/// When what happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptTimes {
    pub(crate) began: Moment,
    /// When the connection was given the request; `None` if there was none to give it to.
    pub(crate) sent: Option<Moment>,
    /// When the head of the answer came, or the attempt failed.
    pub(crate) ended: Moment,
    /// How far the request had come by then.
    pub(crate) sending: Sending,
}

/// Until when an attempt could go on, by whose word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The attempt, in all.
    pub(crate) attempt: Deadline,
    /// The attempt, if its caller had not asked for less time.
    pub(crate) by_operator: Deadline,
    /// The limit that `attempt` is.
    pub(crate) time: Setting,
    /// The smallest limit that an operator wrote for the attempt or for what it is part of.
    pub(crate) meant: Duration,
    /// Bytes of the request's body.
    pub(crate) body: u64,
}

/// What may be tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again<'a> {
    pub(crate) on: &'a RetryOn,
    /// Whether the request may be sent twice.
    pub(crate) is_repeatable: bool,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    /// What is recorded of the backend and of its endpoint.
    pub(crate) outcome: Outcome,
    /// Why there is no answer; `None` if there is one.
    pub(crate) fault: Option<Fault>,
    /// Whether the attempt may be made again, as far as its own end says.
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
            let fault = course.explain(fault);
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
    /// For how long the backend was waited for: while it was connected to, and since it last took something of the
    /// request, unless the caller is waited for.
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

    /// What the caller's side does to explain a fault.
    fn explain(&self, fault: Fault) -> Fault {
        match (fault, self.sending) {
            (Fault::TimedOut { sent: true } | Fault::Upload(_), Sending::Spoilt(upload)) => Fault::Upload(upload),
            (Fault::TimedOut { sent: true }, Sending::AwaitsCaller) => Fault::Upload(Upload::Underway),
            _ => fault,
        }
    }
}

impl Limits {
    /// What the caller is told of a fault, as it was judged.
    pub(crate) fn rejection(&self, fault: Fault) -> Rejection {
        fault.rejection(self.time, self.body)
    }

    /// Whether a backend that was waited for so long has had what its operator gave it: most of it where the operator's
    /// own limit ended the attempt, all of it where the caller's wish did. Otherwise a caller could open a breaker for
    /// everyone by asking for little time, or by taking most of it for itself.
    fn were_used_up_by_backend(&self, took: Duration) -> bool {
        if self.attempt < self.by_operator {
            took >= self.meant
        } else {
            took.as_nanos() * 5 >= self.meant.as_nanos() * 4
        }
    }
}

#[cfg(test)]
mod tests;
