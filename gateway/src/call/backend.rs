//! A backend as meant: its endpoints, its limits, and the guards that every route to it shares.
//!
//! The guards' state is kept by the backend's name and outlives the plan that named it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use policies::breaker::{Asker, Generation, Open, Outcome, Permit, State, Transition};
use policies::bulkhead::Entrant;
use policies::ejection::Change;
use policies::retry::RetryBudgetSettings;
use policies::{
    Breaker, BreakerSettings, Bulkhead, Deadline, EjectionSettings, Ejector, Moment, Ratio, Retry, RetryBudget,
};

use super::classify::{Repeatable, RetryOn};
use super::endpoints::{Endpoint, Endpoints};
use super::guards::{self, Slot, SlotNotifier};
use super::pool::PoolSettings;
use super::timer::Timer;
use crate::clock;
use crate::observe::{BackendMetrics, BreakerState};
use crate::rejection::{Rejection, Setting};

/// What an operator wrote about calls to a backend.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most one call may take, queue and all attempts together.
    pub time_limit: Duration,
    pub attempt_limit: Duration,
    /// The most that connecting may take.
    pub connect: Duration,
    /// Nothing starts that would leave less than this.
    pub minimum: Duration,
    /// The most a call may wait for a slot.
    pub queue_wait: Duration,
    pub retry: Retry,
    pub retry_on: RetryOn,
    pub repeatable: Repeatable,
    /// Bytes of a request body that are kept for another attempt.
    pub keep: usize,
    /// Statuses that count as failures of the backend and of its endpoint.
    pub failures: Vec<StatusCode>,
    pub pool: PoolSettings,
    /// Whether the backend sees the Host that the caller asked for.
    pub preserve_host: bool,
    /// The longest pause within a stream.
    pub idle_stream: Duration,
    /// The longest life of a stream or tunnel.
    pub stream_limit: Option<Duration>,
}

/// What an operator wrote about the guards of a backend.
#[derive(Debug, Clone)]
pub struct GuardSettings {
    /// Off, the breaker neither counts nor refuses.
    pub breaker: Option<BreakerSettings>,
    /// Off, no endpoint is left out.
    pub ejection: Option<EjectionSettings>,
    /// Calls at once.
    pub slots: NonZeroU32,
    /// Streams and tunnels at once, beside the calls.
    pub stream_slots: NonZeroU32,
    /// Calls that may wait.
    pub queue: u32,
    /// The most of the slots for one tenant.
    pub tenant_share: Ratio,
    pub retry_budget: RetryBudgetSettings,
}

/// What stands before a backend, for all routes and all plans.
pub struct Guards {
    pub breaker: Arc<Breaker>,
    pub ejector: Ejector,
    pub bulkhead: Arc<Bulkhead<SlotNotifier>>,
    /// For streams and tunnels, which may go on for as long as they please.
    pub streams: Arc<Bulkhead<SlotNotifier>>,
    pub retry_budget: RetryBudget,
}

impl Guards {
    pub fn new(settings: &GuardSettings) -> Self {
        Self {
            breaker: Arc::new(Breaker::seeded(settings.breaker.unwrap_or_default(), fastrand::u64(..))),
            ejector: Ejector::new(settings.ejection),
            bulkhead: Arc::new(bulkhead(settings.slots, settings)),
            streams: Arc::new(bulkhead(settings.stream_slots, settings)),
            retry_budget: RetryBudget::new(settings.retry_budget),
        }
    }

    fn reconfigure(&self, settings: &GuardSettings, endpoints: &Endpoints, now: Moment) {
        if let Some(breaker) = settings.breaker {
            self.breaker.reconfigure(breaker, now);
        }
        let GuardSettings {
            slots,
            stream_slots,
            queue,
            tenant_share,
            ..
        } = *settings;
        self.bulkhead.reconfigure(slots, queue, tenant_share, now);
        self.streams.reconfigure(stream_slots, queue, tenant_share, now);
        self.retry_budget.reconfigure(settings.retry_budget);
        self.ejector.reconfigure(settings.ejection, endpoints.standings(), now);
    }
}

fn bulkhead(slots: NonZeroU32, settings: &GuardSettings) -> Bulkhead<SlotNotifier> {
    Bulkhead::new(slots, settings.queue).with_tenant_share(settings.tenant_share)
}

/// A backend with everything that a call needs.
pub struct Backend {
    pub name: Arc<str>,
    pub settings: Settings,
    pub guards: Arc<Guards>,
    pub guard_settings: GuardSettings,
    /// Off, the breaker neither counts nor refuses.
    pub breaker_on: bool,
    pub endpoints: Endpoints,
    /// When the certificate that is shown to it expires, in seconds since 1970.
    pub certificate_expires: Option<u64>,
    pub metrics: Arc<BackendMetrics>,
}

impl Backend {
    /// What its endpoints speak, in the words of the config.
    pub fn protocol(&self) -> &'static str {
        self.endpoints.all().first().map_or("http1", |first| first.protocol())
    }

    /// For the moment its plan takes effect: other numbers for the guards, the same state.
    pub fn take_effect(&self, now: Moment) {
        self.guards.reconfigure(&self.guard_settings, &self.endpoints, now);
    }

    /// Waits for a slot: for a stream, one of those that are for streams.
    pub(crate) async fn enter(
        &self,
        entrant: Entrant,
        is_stream: bool,
        now: Moment,
        deadline: Deadline,
        time: Setting,
        timer: &mut Timer,
    ) -> Result<Slot, Rejection> {
        let Settings {
            queue_wait, minimum, ..
        } = self.settings;
        let slots = if is_stream {
            &self.guards.streams
        } else {
            &self.guards.bulkhead
        };
        guards::enter(slots, entrant, now, queue_wait, (deadline, time), minimum, timer).await
    }

    /// Whether an attempt would be a probe.
    pub(crate) fn is_half_open(&self, now: Moment) -> bool {
        self.breaker_on && self.guards.breaker.state(now) == State::HalfOpen
    }

    /// The breaker's leave for one attempt; nothing to hold while it is off.
    ///
    /// # Errors
    /// It gives none, and says why.
    pub(crate) fn admit(&self, asker: Asker, now: Moment) -> Result<Option<Permit>, Open> {
        if !self.breaker_on {
            return Ok(None);
        }
        let permit = self.guards.breaker.admit_from(asker, now)?;
        self.tell(permit.began());
        Ok(Some(permit))
    }

    pub(crate) fn judge(&self, permit: Permit, outcome: Outcome, now: Moment) {
        self.tell(self.guards.breaker.record(permit, outcome, now));
    }

    /// The same for the endpoint that was asked. One that is ejected or has returned is logged once, here.
    pub(crate) fn judge_endpoint(
        &self,
        endpoint: &Endpoint,
        outcome: Outcome,
        is_unreached: bool,
        began: Moment,
        now: Moment,
    ) {
        let failed = match outcome {
            Outcome::Success { .. } => false,
            Outcome::Failure { .. } => true,
            Outcome::Ignored => return,
        };
        if self.endpoints.all().len() < 2 {
            return;
        }
        if failed {
            endpoint.note_failure(is_unreached);
        }
        let all = self.endpoints.standings();
        let changed = self.guards.ejector.record(&endpoint.standing, all, began, failed, now);
        self.tell_of(endpoint, changed);
    }

    /// Connects to the endpoints that are left out because no connection could be made, and lets in what can be reached.
    /// Each may take as long as `limit`.
    pub async fn bring_back(&self, limit: Duration) {
        for endpoint in self.endpoints.all() {
            if !endpoint.is_unreached() || !endpoint.standing.is_ejected(clock::now()) {
                continue;
            }
            let Some(address) = endpoint.address() else { continue };
            if let Ok(Ok(_)) = tokio::time::timeout(limit, endpoint.reach(address)).await {
                let changed = self.guards.ejector.bring_back(&endpoint.standing, clock::now());
                self.tell_of(endpoint, changed);
            }
        }
    }

    fn tell_of(&self, endpoint: &Endpoint, changed: Option<Change>) {
        let (name, endpoint) = (&self.name, &endpoint.url);
        match changed {
            Some(Change::Ejected { eject_for, ejections }) => {
                self.metrics.ejected();
                tracing::warn!(backend = %name, %endpoint, ?eject_for, ejections, "endpoint ejected");
            }
            Some(Change::Returned) => tracing::warn!(backend = %name, %endpoint, "endpoint is back"),
            None => {}
        }
    }

    /// An answer that was taken for a success has broken off within its body.
    pub(crate) fn broke_off(&self, generation: Option<Generation>) {
        if let Some(generation) = generation {
            self.tell(self.guards.breaker.late_failure(generation, clock::now()));
        }
    }

    /// A change of the breaker's state is logged once, here.
    pub(crate) fn tell(&self, transition: Option<Transition>) {
        if let Some(Transition { from, to, cause, .. }) = transition {
            self.metrics.transitions.add(match to {
                State::Closed | State::ForcedClosed => BreakerState::Closed,
                State::HalfOpen => BreakerState::HalfOpen,
                State::Open | State::ForcedOpen => BreakerState::Open,
            });
            tracing::warn!(backend = %self.name, ?from, ?to, ?cause, "breaker changed");
        }
    }
}
