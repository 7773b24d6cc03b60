//! Probes the endpoints of all backends that have a health check, each at its own times.
//!
//! Runs on the control thread. Probes are started with jitter, and at most [`AT_ONCE`] run at the same time, so that a
//! config with many endpoints neither opens all connections at once nor keeps the thread from its other work. The next
//! probe of an endpoint is due only after the last one has ended. Where nobody has written how often to probe, all
//! endpoints together are probed [`PACE`] times a second at most, unless they are in doubt.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use policies::{Health, HealthSettings, Moment};
use tokio::task::JoinSet;

use crate::call::backend::Backend;
use crate::call::endpoints::{Endpoint, EndpointId, Snapshot};
use crate::call::health_check::HealthCheck;
use crate::clock;
use crate::plan::{LivePlan, Plan};

/// Maximum number of probes at the same time.
const AT_ONCE: usize = 64;
/// Interval between looks for endpoints that have come or gone.
const LOOK: Duration = Duration::from_millis(500);
/// Maximum number of probes in a second of endpoints whose interval is not written. It is a little less than one
/// percent of a core.
const PACE: f64 = 100.0;
/// Number of endpoints from which probes begin together, [`TICK`] apart. Waking up costs about as much as a probe.
const CROWD: usize = 100;
const TICK: Duration = Duration::from_millis(200);
/// Interval from which a probe may wait for others.
const PATIENT: Duration = TICK.saturating_mul(10);

/// Probes endpoints, forever.
pub(super) async fn probe_endpoints(live: Arc<LivePlan>) {
    let mut schedule = Schedule::default();
    let mut running = JoinSet::new();
    let mut looks_at = Moment::ZERO;
    loop {
        let now = clock::now();
        if looks_at <= now {
            schedule.follow(&live.load(), now);
            looks_at = now + LOOK;
        }
        while running.len() < AT_ONCE
            && let Some(Probed { endpoint, backend, .. }) = schedule.take_due(now)
        {
            let (endpoint, backend) = (Arc::clone(endpoint), Arc::clone(backend));
            running.spawn(async move {
                if let Some(check) = &backend.health_check {
                    backend.probe(check, &endpoint).await;
                }
                endpoint
            });
        }
        let is_full = running.len() == AT_ONCE;
        let wakes_at = schedule
            .wakes_at()
            .filter(|_| !is_full)
            .unwrap_or(looks_at)
            .min(looks_at);
        tokio::select! {
            Some(ended) = running.join_next() => {
                if let Ok(endpoint) = ended {
                    schedule.ended(&endpoint, clock::now());
                }
            }
            () = clock::wait_until(wakes_at) => {}
        }
    }
}

/// Endpoint that is probed.
struct Probed {
    endpoint: Arc<Endpoint>,
    backend: Arc<Backend>,
    /// Time of the next probe; `None` while one runs.
    due: Option<Moment>,
    /// Whether its first probe has not ended.
    is_new: bool,
}

/// Endpoints that are probed, and when.
#[derive(Default)]
struct Schedule {
    probed: HashMap<EndpointId, Probed>,
    /// Times at which probes are due. An entry holds only if it is the one of its endpoint.
    due: BinaryHeap<Reverse<(Moment, EndpointId)>>,
    /// Backends that are probed, with their endpoints, as they were taken over.
    followed: Vec<(Arc<Backend>, Arc<Snapshot>)>,
    /// Factor of the intervals that are not written, at least 1 as soon as something is followed.
    stretch: f64,
}

impl Schedule {
    /// Takes over the endpoints of a plan. An endpoint that is not probed any more is not down any more.
    fn follow(&mut self, plan: &Plan, now: Moment) {
        let probed = plan.backends.iter().filter(|backend| backend.health_check.is_some());
        let is_same = |(backend, followed): (&Arc<Backend>, &(Arc<Backend>, Arc<Snapshot>))| {
            Arc::ptr_eq(backend, &followed.0) && std::ptr::eq(&**backend.endpoints.load(), &*followed.1)
        };
        if probed.clone().count() == self.followed.len() && probed.clone().zip(&self.followed).all(is_same) {
            return;
        }
        self.followed = probed
            .map(|backend| (Arc::clone(backend), backend.endpoints.load_full()))
            .collect();
        self.stretch = stretch(&self.followed);
        let mut before = std::mem::take(&mut self.probed);
        for (backend, endpoints) in &self.followed {
            let Some(check) = &backend.health_check else { continue };
            for endpoint in endpoints.endpoints() {
                let id = endpoint.id();
                let known = before.remove(&id);
                let is_same = |known: &Probed| known.backend.health_check.as_ref() == Some(check);
                let due = match &known {
                    Some(known) if known.due.is_none() || is_same(known) => known.due,
                    _ => {
                        let first = Health::first_probe(&check.settings, fastrand::f64());
                        let due = now + stretched(first, check, self.stretch);
                        self.due.push(Reverse((due, id)));
                        Some(due)
                    }
                };
                let probed = Probed {
                    endpoint: Arc::clone(endpoint),
                    backend: Arc::clone(backend),
                    due,
                    is_new: known.is_none_or(|known| known.is_new || !is_same(&known)),
                };
                self.probed.insert(id, probed);
            }
        }
        for gone in before.into_values() {
            gone.endpoint.forget_probes();
        }
    }

    /// Returns an endpoint whose probe is due, and notes that the probe runs.
    fn take_due(&mut self, now: Moment) -> Option<&Probed> {
        loop {
            let Reverse((due, id)) = *self.due.peek().filter(|Reverse((due, _))| *due <= now)?;
            self.due.pop();
            // Looked up twice, because the borrow checker does not accept an early return of the first.
            if self.probed.get(&id).is_some_and(|probed| probed.due == Some(due)) {
                let probed = self.probed.get_mut(&id)?;
                probed.due = None;
                return Some(probed);
            }
        }
    }

    /// Notes that a probe has ended, and plans the next one.
    fn ended(&mut self, endpoint: &Endpoint, now: Moment) {
        let id = endpoint.id();
        let Some(probed) = self.probed.get_mut(&id) else {
            endpoint.forget_probes();
            return;
        };
        let Some(check) = &probed.backend.health_check else {
            return;
        };
        let is_ejected = endpoint.standing.is_ejected(now);
        let settings = HealthSettings {
            every: stretched(check.settings.every, check, self.stretch),
            ..check.settings
        };
        let mut next = endpoint.health.next_probe(is_ejected, &settings, fastrand::f64());
        if std::mem::take(&mut probed.is_new) {
            // The first probes come soon after each other. From the second on, they are spread over the interval.
            next = next.mul_f64(fastrand::f64());
        }
        probed.due = Some(now + next);
        self.due.push(Reverse((now + next, id)));
    }

    /// Returns the time at which the next probes begin.
    fn wakes_at(&self) -> Option<Moment> {
        let Reverse((due, id)) = self.due.peek()?;
        let check = self
            .probed
            .get(id)
            .and_then(|probed| probed.backend.health_check.as_ref());
        if self.probed.len() < CROWD || check.is_some_and(|check| check.settings.every < PATIENT) {
            return Some(*due);
        }
        let tick = TICK.as_nanos() as u64;
        Some(Moment::from_nanos(due.nanos().next_multiple_of(tick)))
    }
}

/// Returns the factor by which the intervals that are not written are longer, so that their probes keep to [`PACE`].
fn stretch(followed: &[(Arc<Backend>, Arc<Snapshot>)]) -> f64 {
    let probes = followed.iter().filter_map(|(backend, endpoints)| {
        let check = backend.health_check.as_ref().filter(|check| check.is_paced)?;
        Some(endpoints.all().len() as f64 / check.settings.every.as_secs_f64())
    });
    (probes.sum::<f64>() / PACE).max(1.0)
}

fn stretched(time: Duration, check: &HealthCheck, stretch: f64) -> Duration {
    if check.is_paced { time.mul_f64(stretch) } else { time }
}

#[cfg(test)]
mod tests {
    use policies::health::Probe;

    use super::*;
    use crate::plan::State;
    use crate::plan::compile::test_plan;

    fn plan(state: &State, health: &str) -> Plan {
        plan_of(state, 2, health)
    }

    fn plan_of(state: &State, endpoints: usize, health: &str) -> Plan {
        let urls: Vec<_> = (1..=endpoints)
            .map(|port| format!("{{ url: \"http://127.0.0.1:{port}\" }}"))
            .collect();
        let text = format!(
            "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
             backends:\n  b: {{ endpoints: [{urls}]{health} }}\n\
             callers: {{ anonymous: {{ by: client_address }} }}\n\
             routes:\n  r: {{ match: {{ path: / }}, access: {{ any_of: [anonymous] }}, respond: {{ body: r }} }}\n",
            urls = urls.join(", "),
        );
        test_plan::plan(&text, state)
    }

    /// Takes all probes that are due within `time`, in steps of 10 ms, and ends each at once.
    fn run(schedule: &mut Schedule, from: Moment, time: Duration, succeeded: bool) -> usize {
        let (mut now, mut count) = (from, 0);
        while now < from + time {
            while let Some(probed) = schedule.take_due(now) {
                let endpoint = Arc::clone(&probed.endpoint);
                let check = probed.backend.health_check.clone().expect("it is probed");
                let probe = Probe { began: now, succeeded };
                endpoint.health.record(probe, None, &check.settings, now);
                schedule.ended(&endpoint, now);
                count += 1;
            }
            now = now + Duration::from_millis(10);
        }
        count
    }

    #[test]
    fn each_endpoint_is_probed_at_its_own_times() {
        const MINUTE: Duration = Duration::from_secs(60);
        let state = test_plan::state();
        let (mut schedule, start) = (Schedule::default(), Moment::ZERO + MINUTE);
        let with = plan(&state, ", health: { path: /ready, every: 10s }");
        schedule.follow(&with, start);
        // The first probe is quick, the others come every ten seconds. Following the same plan changes nothing.
        for _ in 0..3 {
            schedule.follow(&with, start);
        }
        let well = run(&mut schedule, start, MINUTE, true);
        assert!((12..=16).contains(&well), "{well}");
        // Two quick ones are between the first that fails and the third.
        let failing = run(&mut schedule, start + MINUTE, MINUTE, false);
        assert!((14..=18).contains(&failing), "{failing}");
        let endpoints = with.backends[0].endpoints.load_full();
        assert!(endpoints.is_degraded(start + 2 * MINUTE));
        // Other times hold at once.
        let often = plan(&state, ", health: { path: /ready, every: 1s }");
        schedule.follow(&often, start + 2 * MINUTE);
        let often = run(&mut schedule, start + 2 * MINUTE, MINUTE, false);
        assert!((100..=140).contains(&often), "{often}");
        // Without a check nothing is probed, and nothing is down.
        schedule.follow(&plan(&state, ""), start + 3 * MINUTE);
        assert_eq!(run(&mut schedule, start + 3 * MINUTE, MINUTE, false), 0);
        assert!(!endpoints.is_degraded(start + 3 * MINUTE));
    }

    #[test]
    fn many_endpoints_keep_to_the_pace_unless_their_interval_is_written() {
        const MINUTE: Duration = Duration::from_secs(60);
        let state = test_plan::state();
        let start = Moment::ZERO + MINUTE;
        // A thousand endpoints every five seconds are 200 probes a second, or 12,000 a minute.
        let check = |endpoints: usize, health: &str, fewest: usize, most: usize| {
            let mut schedule = Schedule::default();
            schedule.follow(&plan_of(&state, endpoints, health), start);
            run(&mut schedule, start, MINUTE, true);
            let second = run(&mut schedule, start + MINUTE, MINUTE, true);
            assert!((fewest..=most).contains(&second), "{second} of {endpoints}{health}");
        };
        check(1_000, ", health: { tcp: true }", 5_900, 6_100);
        check(1_000, ", health: { tcp: true, every: 5s }", 11_800, 12_200);
        check(400, ", health: { tcp: true }", 4_700, 4_900);
    }

    #[test]
    fn a_probe_does_not_begin_before_the_last_one_has_ended() {
        let state = test_plan::state();
        let (mut schedule, start) = (Schedule::default(), Moment::ZERO + Duration::from_secs(60));
        let plan = plan(&state, ", health: { tcp: true, every: 1s }");
        schedule.follow(&plan, start);
        let later = start + Duration::from_secs(10);
        let first = schedule.take_due(later).map(|probed| Arc::clone(&probed.endpoint));
        assert!(schedule.take_due(later).is_some() && schedule.take_due(later).is_none());
        schedule.follow(&plan, later);
        assert!(
            schedule.take_due(later + Duration::from_secs(10)).is_none(),
            "both still run"
        );
        schedule.ended(&first.expect("it was due"), later);
        assert!(schedule.take_due(later + Duration::from_secs(10)).is_some());
    }
}
