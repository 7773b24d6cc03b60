//! Counts a call exactly once: by its result, or as cancelled if it was dropped before it had one.

use http::StatusCode;
use policies::Moment;

use super::backend::Backend;
use super::fault::Fault;
use super::grpc;
use super::reply::Reply;
use crate::clock;
use crate::observe::{Family, Outcome};
use crate::rejection::Rejection;

/// Guard that counts its call when the call ends or the guard is dropped.
pub(crate) struct CallGuard<'a> {
    backend: &'a Backend,
    started: Moment,
    settled: bool,
}

impl<'a> CallGuard<'a> {
    pub(crate) fn begin(backend: &'a Backend, started: Moment) -> Self {
        Self {
            backend,
            started,
            settled: false,
        }
    }

    pub(crate) fn end(mut self, result: &Result<Reply, Rejection>) {
        self.settled = true;
        let outcome = match result {
            Ok(reply) => outcome_of_status(self.backend, grpc::judged_head(&reply.head)),
            Err(rejection) => {
                let reason = rejection.reason();
                self.backend.metrics.add(Family::BackendRejections, reason);
                Outcome::of(reason)
            }
        };
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        self.backend.metrics.called(outcome, clock::now().since(self.started));
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.count(Outcome::Cancelled);
        }
    }
}

pub(crate) fn outcome_of_status(backend: &Backend, status: StatusCode) -> Outcome {
    if backend.settings.failures.contains(&status) {
        Outcome::FailedStatus
    } else {
        Outcome::Answered
    }
}

pub(crate) const fn outcome_of_fault(fault: Fault) -> Outcome {
    match fault {
        Fault::Unreached => Outcome::Unreached,
        Fault::Broken => Outcome::Broken,
        Fault::Invalid => Outcome::Invalid,
        Fault::TimedOut { .. } => Outcome::TimedOut,
        Fault::BodyGone | Fault::Upload(_) => Outcome::Cancelled,
    }
}
