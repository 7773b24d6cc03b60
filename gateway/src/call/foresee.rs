//! Foresees whether a call would be refused now, by what guards its backend.
//!
//! Asks the same policies in the same order as [`call`](super::call) does, takes nothing from them and calls nothing.

use std::time::Duration;

use policies::Moment;
use policies::breaker::{Asker, Open};
use policies::bulkhead::{Entrant, Foreseen as Entry};
use policies::{Deadline, bulkhead};

use super::backend::Backend;
use super::guards;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// A call that has not been made.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub entrant: Entrant,
    /// Whether it is known from the start to be a stream or tunnel.
    pub is_stream: bool,
    /// Deadline of the request or of the part.
    pub deadline: Deadline,
    /// Setting that the deadline comes from; `None` if the caller set it.
    pub deadline_by: Option<SettingId>,
}

/// Outcome that a call would have now.
#[derive(Debug, Clone)]
pub enum Foreseen {
    Sent {
        /// Whether it would be a probe of the breaker.
        is_probe: bool,
    },
    /// Wait for a slot, with an outcome that is not known.
    Waits,
    Refused(Rejection),
}

impl Backend {
    /// Returns what would happen to a call now, if its whole request has arrived.
    pub fn foresee(&self, planned: Planned, now: Moment) -> Foreseen {
        match self.foresee_entry(planned, now) {
            Ok(bulkhead::Foreseen::Queued) => Foreseen::Waits,
            Ok(_) => match self.foresee_attempt(planned, now) {
                Ok(is_probe) => Foreseen::Sent { is_probe },
                Err(rejection) => Foreseen::Refused(rejection),
            },
            Err(rejection) => Foreseen::Refused(rejection),
        }
    }

    fn foresee_entry(&self, planned: Planned, now: Moment) -> Result<Entry, Rejection> {
        let deadline = planned.deadline.child(now, self.settings.time_limit);
        if !deadline.allows(now, Duration::ZERO, self.settings.minimum) {
            let of_backend = deadline < planned.deadline;
            let by = if of_backend {
                Some(self.ids.time_limit)
            } else {
                planned.deadline_by
            };
            return Err(Rejection::OutOfTime(by));
        }
        let slots = match planned.is_stream {
            true => &self.guards.streams,
            false => &self.guards.bulkhead,
        };
        match slots.foresee(planned.entrant) {
            Entry::Full => Err(guards::full(&self.ids.bulkhead)),
            entry => Ok(entry),
        }
    }

    /// Returns whether the attempt would be a probe.
    fn foresee_attempt(&self, planned: Planned, now: Moment) -> Result<bool, Rejection> {
        let endpoints = self.endpoints.load();
        let none = |by| Rejection::NoEndpoint {
            retry_after: Duration::from_secs(1),
            by,
        };
        if endpoints.all().is_empty() {
            return Err(none(self.ids.endpoints));
        }
        let asker = Asker {
            tenant: planned.entrant.tenant,
            is_whole: true,
        };
        let admitted = match self.breaker_on {
            true => self.guards.breaker.foresee(asker, now),
            false => Ok(false),
        };
        let is_probe = admitted.map_err(|Open { retry_in, .. }| Rejection::BreakerOpen {
            retry_after: retry_in,
            by: self.ids.breaker,
        })?;
        match endpoints.has_another(&[], self.settings.when_none_is_up, now) {
            true => Ok(is_probe),
            false => Err(none(self.ids.when_none_is_up)),
        }
    }
}
