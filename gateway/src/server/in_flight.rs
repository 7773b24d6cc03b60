//! Counts one request, from its head to the last byte of its answer, for its connection and for the process.

use std::sync::Arc;
use std::time::Duration;

use policies::Moment;

use super::lifecycle::Phase;
use super::reaper::ConnectionActivity;
use super::worker::Worker;
use crate::clock;
use crate::plan::Edge;
use crate::response::Leaving;
use crate::wire::slow_caller::Transfer;

pub(super) struct InFlight {
    pub(super) worker: Arc<Worker>,
    pub(super) activity: Arc<ConnectionActivity>,
    flow: Option<Arc<Transfer>>,
}

impl InFlight {
    pub(super) fn new(worker: &Arc<Worker>, activity: &Arc<ConnectionActivity>, flow: Option<Arc<Transfer>>) -> Self {
        activity.serves(flow.as_ref());
        worker.lifecycle.request_began();
        Self {
            worker: Arc::clone(worker),
            activity: Arc::clone(activity),
            flow,
        }
    }

    /// Returns whether the connection must close after this request.
    pub(super) fn is_the_last(&self, edge: &Edge) -> bool {
        self.worker.lifecycle.phase() >= Phase::Draining
            || self.activity.is_withdrawn()
            || edge.most_requests.is_some_and(|most| self.activity.requests() >= most)
    }

    /// Sets the moment by which the answer must be sent.
    pub(super) fn expires(&self, moment: Option<Moment>) {
        match self.flow.as_ref().filter(|flow| flow.is_carried()) {
            Some(flow) => flow.expires(moment),
            None => self.activity.expires(moment),
        }
    }

    fn has_expired(&self) -> bool {
        let now = clock::now();
        self.activity.has_expired(now) || self.flow.as_ref().is_some_and(|flow| flow.has_expired(now))
    }

    /// Returns the fault of an answer that ends because the caller reads it too slowly, if it does.
    pub(super) fn unread_fault(&self) -> Option<&'static str> {
        let is_unread = self.activity.is_unread() || self.flow.as_ref().is_some_and(|flow| flow.is_cut());
        is_unread.then(|| match self.has_expired() {
            true => "out of time within the body: the caller had not taken the rest",
            false => "the caller took the answer too slowly",
        })
    }

    /// Returns a future that is ready when an endless stream or tunnel must end: when the drain begins, but after three
    /// quarters of the drain time if another process has taken over.
    pub(super) fn leaving(&self) -> Leaving {
        let (worker, activity) = (Arc::clone(&self.worker), Arc::clone(&self.activity));
        Box::pin(async move {
            must_leave(&worker, &activity).await;
            if worker.lifecycle.is_handed_over() {
                let late = tokio::time::sleep(late_in(&worker));
                match activity.certificate() {
                    None => late.await,
                    Some(certificate) => tokio::select! {
                        () = late => {}
                        () = certificate.withdrawn() => {}
                    },
                }
            }
        })
    }

    /// Returns a future that is ready after three quarters of the drain time, when a long answer must be cut.
    pub(super) fn leaving_late(&self) -> Leaving {
        let (worker, activity) = (Arc::clone(&self.worker), Arc::clone(&self.activity));
        Box::pin(async move {
            must_leave(&worker, &activity).await;
            tokio::time::sleep(late_in(&worker)).await;
        })
    }
}

/// Returns the part of the drain time that is left to those who would like to stay.
fn late_in(worker: &Worker) -> Duration {
    worker.live.load().edge.drain.mul_f32(0.75)
}

/// Waits until the drain begins, or until no authority accepts the caller's certificate any more.
async fn must_leave(worker: &Worker, activity: &ConnectionActivity) {
    let draining = worker.lifecycle.reached(Phase::Draining);
    match activity.certificate() {
        None => draining.await,
        Some(certificate) => tokio::select! {
            () = draining => {}
            () = certificate.withdrawn() => {}
        },
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.worker.lifecycle.request_ended();
        self.activity.end_answer(self.flow.as_ref());
    }
}
