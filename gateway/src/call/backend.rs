//! A compiled backend: its endpoints, its limits, and the guards that all routes to it share.
//!
//! The state of the guards is kept by the backend's name and outlives the plan.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use policies::breaker::{Asker, Generation, Open, Outcome, Permit, State, Transition};
use policies::bulkhead::{Entrant, Limits};
use policies::ejection::Change;
use policies::health::WhenNoneIsUp;
use policies::retry::RetryBudgetSettings;
use policies::{Breaker, BreakerSettings, Bulkhead, Deadline, EjectionSettings, Ejector, Moment, Retry, RetryBudget};

use super::classify::{Repeatable, RetryOn};
use super::endpoints::{BalanceSettings, Endpoint, EndpointSet, WrittenEndpoints};
use super::guards::{self, BulkheadSettingIds, Slot, SlotNotifier};
use super::health_check::{HealthCheck, ProbeCounts};
use super::pool::PoolSettings;
use super::slot_limit::{SlotControl, SlotSettings};
use super::timer::Timer;
use crate::clock;
use crate::observe::{BackendMetrics, BreakerState, Family};
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// Operator's settings of the calls to a backend.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Maximum time of one call, with queueing and all attempts.
    pub time_limit: Duration,
    pub attempt_limit: Duration,
    /// Maximum time of connecting.
    pub connect: Duration,
    /// Minimum time that must remain for the call, a wait or an attempt to start.
    pub minimum: Duration,
    /// Maximum time that a call waits for a slot.
    pub queue_wait: Duration,
    pub retry: Retry,
    pub retry_on: RetryOn,
    pub repeatable: Repeatable,
    /// Maximum size in bytes of the request body that is kept for another attempt.
    pub keep: usize,
    /// Statuses that count as failures of the backend and of the endpoint.
    pub failures: Vec<StatusCode>,
    pub pool: PoolSettings,
    pub balance: BalanceSettings,
    /// Whether the backend receives the caller's Host instead of the endpoint's own.
    pub preserve_host: bool,
    /// Whether traces are exported, so that each attempt has a span of its own.
    pub is_traced: bool,
    /// Maximum pause within a stream.
    pub idle_stream: Duration,
    /// Maximum duration of a stream or tunnel.
    pub stream_limit: Option<Duration>,
    /// Whether calls go to endpoints that are not up while none is.
    pub when_none_is_up: WhenNoneIsUp,
}

/// Operator's settings of the guards of a backend.
#[derive(Debug, Clone)]
pub struct GuardSettings {
    /// Settings of the breaker. `None` turns it off: it neither counts nor rejects.
    pub breaker: Option<BreakerSettings>,
    /// Settings of ejection. `None` turns it off: no endpoint is left out.
    pub ejection: Option<EjectionSettings>,
    /// Slots for calls.
    pub slots: SlotSettings,
    /// Slots for streams and tunnels, counted apart from the calls.
    pub stream_slots: Limits,
    pub retry_budget: RetryBudgetSettings,
}

/// Guards of a backend, shared by all routes and all plans.
pub struct Guards {
    pub breaker: Arc<Breaker>,
    pub ejector: Ejector,
    pub bulkhead: Arc<Bulkhead<SlotNotifier>>,
    slots: SlotControl,
    /// Slots of streams and tunnels, whose duration may be unlimited.
    pub streams: Arc<Bulkhead<SlotNotifier>>,
    pub retry_budget: RetryBudget,
    pub probes: ProbeCounts,
}

impl Guards {
    pub fn new(settings: &GuardSettings, now: Moment) -> Self {
        let slots = SlotControl::new(settings.slots, now);
        Self {
            breaker: Arc::new(Breaker::seeded(settings.breaker.unwrap_or_default(), fastrand::u64(..))),
            ejector: Ejector::new(settings.ejection),
            bulkhead: Arc::new(bulkhead(slots.current())),
            slots,
            streams: Arc::new(bulkhead(settings.stream_slots)),
            retry_budget: RetryBudget::new(settings.retry_budget),
            probes: ProbeCounts::default(),
        }
    }

    /// Learns from a call that succeeded how many may run at once. The call still holds its slot.
    pub(crate) fn learn_limit(&self, took: Duration, now: Moment) {
        self.slots.record(took, &self.bulkhead, now);
    }

    fn reconfigure(&self, settings: &GuardSettings, endpoints: &EndpointSet, now: Moment) {
        if let Some(breaker) = settings.breaker {
            self.breaker.reconfigure(breaker, now);
        }
        self.slots.take_effect(settings.slots, &self.bulkhead, now);
        self.streams.reconfigure_with(|| settings.stream_slots, now);
        self.retry_budget.reconfigure(settings.retry_budget);
        let all = endpoints.load();
        let ejected: Vec<_> = all
            .endpoints()
            .filter(|endpoint| endpoint.standing.is_ejected(now))
            .collect();
        self.ejector.reconfigure(settings.ejection, all.standings(), now);
        // The time of return may be another one now.
        for endpoint in ejected {
            endpoint
                .load
                .warm_up(now + endpoint.standing.left(now).unwrap_or_default());
        }
    }
}

fn bulkhead(limits: Limits) -> Bulkhead<SlotNotifier> {
    Bulkhead::new(limits.slots, limits.places).with_tenant_share(limits.tenant_share)
}

/// Ids of the settings that can decide on a call.
#[derive(Debug, Clone, Copy)]
pub struct BackendSettingIds {
    pub endpoints: SettingId,
    pub time_limit: SettingId,
    pub attempt_limit: SettingId,
    pub bulkhead: BulkheadSettingIds,
    pub breaker: SettingId,
    pub when_none_is_up: SettingId,
}

/// Backend with everything that a call needs.
pub struct Backend {
    pub name: Arc<str>,
    pub settings: Settings,
    pub ids: BackendSettingIds,
    pub guards: Arc<Guards>,
    pub guard_settings: GuardSettings,
    /// Whether the breaker is on. When off, it neither counts nor rejects.
    pub breaker_on: bool,
    pub endpoints: Arc<EndpointSet>,
    /// Probes of the endpoints; `None` without them.
    pub health_check: Option<HealthCheck>,
    /// Endpoints as the config lists them.
    pub written: WrittenEndpoints,
    /// Expiry of the client certificate for this backend, in seconds since 1970.
    pub certificate_expires: Option<u64>,
    pub metrics: Arc<BackendMetrics>,
}

impl Backend {
    /// Returns the protocol of the endpoints, as named in the config.
    pub fn protocol(&self) -> &'static str {
        self.endpoints.settings().protocol()
    }

    /// Applies the guards' settings of a plan that takes effect. Keeps the guards' state.
    pub fn take_effect(&self, now: Moment) {
        self.guards.reconfigure(&self.guard_settings, &self.endpoints, now);
    }

    /// Waits for a slot. A stream waits for a stream slot. `now` becomes the end of the wait, if there is one.
    pub(crate) async fn enter(
        &self,
        entrant: Entrant,
        is_stream: bool,
        now: &mut Moment,
        deadline: Deadline,
        time: Option<SettingId>,
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
        guards::enter(
            slots,
            entrant,
            now,
            (queue_wait, &self.ids.bulkhead),
            (deadline, time),
            minimum,
            timer,
        )
        .await
    }

    /// Whether the breaker is half-open, and an attempt would be a probe.
    pub(crate) fn is_half_open(&self, now: Moment) -> bool {
        self.breaker_on && self.guards.breaker.state(now) == State::HalfOpen
    }

    /// Returns the breaker's permit for one attempt, or `None` while the breaker is off.
    ///
    /// # Errors
    /// Returns why the breaker admits nothing, and when it may.
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

    /// Records an outcome for the endpoint of an attempt. Logs once when the endpoint is ejected or returns.
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
        let all = self.endpoints.load();
        if all.all().len() < 2 {
            return;
        }
        if failed {
            endpoint.note_failure(is_unreached);
        }
        let standings = all.standings();
        let changed = self
            .guards
            .ejector
            .record(&endpoint.standing, standings, began, failed, now);
        if let Some(Change::Ejected { eject_for, .. }) = changed {
            // It warms up from the time of its return.
            endpoint.load.warm_up(now + eject_for);
        }
        self.log_ejection(endpoint, changed);
    }

    /// Connects to the endpoints that were ejected because they could not be reached, and ends the ejection
    /// of each that it reaches now. Each connection may take at most `limit`.
    pub async fn bring_back(&self, limit: Duration) {
        let all = self.endpoints.load_full();
        for endpoint in all.endpoints() {
            if !endpoint.is_unreached() || !endpoint.standing.is_ejected(clock::now()) {
                continue;
            }
            if let Ok(Ok(_)) = tokio::time::timeout(limit, endpoint.reach()).await {
                let now = clock::now();
                let changed = self.guards.ejector.bring_back(&endpoint.standing, now);
                if changed.is_some() {
                    endpoint.load.warm_up(now);
                }
                self.log_ejection(endpoint, changed);
            }
        }
    }

    pub(super) fn log_ejection(&self, endpoint: &Endpoint, changed: Option<Change>) {
        let (name, endpoint) = (&self.name, &endpoint.name);
        match changed {
            Some(Change::Ejected { eject_for, ejections }) => {
                self.metrics.add(Family::EndpointEjections, ());
                tracing::warn!(backend = %name, %endpoint, ?eject_for, ejections, "endpoint ejected");
            }
            Some(Change::Returned) => tracing::warn!(backend = %name, %endpoint, "endpoint is back"),
            None => {}
        }
    }

    /// Records that an answer counted as a success broke off within its body.
    pub(crate) fn record_late_failure(&self, generation: Option<Generation>) {
        if let Some(generation) = generation {
            self.tell(self.guards.breaker.late_failure(generation, clock::now()));
        }
    }

    /// Logs and counts a change of the breaker's state. Every change is logged once, here.
    pub(crate) fn tell(&self, transition: Option<Transition>) {
        if let Some(Transition { from, to, cause, .. }) = transition {
            self.metrics.add(
                Family::BreakerTransitions,
                match to {
                    State::Closed | State::ForcedClosed => BreakerState::Closed,
                    State::HalfOpen => BreakerState::HalfOpen,
                    State::Open | State::ForcedOpen => BreakerState::Open,
                },
            );
            tracing::warn!(backend = %self.name, ?from, ?to, ?cause, "breaker changed");
        }
    }
}
