//! Probes the endpoints of all backends that have a health check, each at its own times.
//!
//! Runs on the control thread. Probes are started with jitter, and at most [`AT_ONCE`] run at the same time, so that a
//! config with many endpoints neither opens all connections at once nor keeps the thread from its other work. The next
//! probe of an endpoint is due only after the last one has ended.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use policies::{Health, Moment};
use tokio::task::JoinSet;

use crate::call::backend::Backend;
use crate::call::endpoints::{Endpoint, EndpointId};
use crate::clock;
use crate::plan::{LivePlan, Plan};

/// Maximum number of probes at the same time.
const AT_ONCE: usize = 64;
/// Interval between looks for endpoints that have come or gone.
const LOOK: Duration = Duration::from_millis(500);

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
            .next_due()
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
}

/// Endpoints that are probed, and when.
#[derive(Default)]
struct Schedule {
    probed: HashMap<EndpointId, Probed>,
    /// Times at which probes are due. An entry holds only if it is the one of its endpoint.
    due: BinaryHeap<Reverse<(Moment, EndpointId)>>,
}

impl Schedule {
    /// Takes over the endpoints of a plan. An endpoint that is not probed any more is not down any more.
    fn follow(&mut self, plan: &Plan, now: Moment) {
        let mut before = std::mem::take(&mut self.probed);
        for backend in &plan.backends {
            let Some(check) = &backend.health_check else { continue };
            for endpoint in backend.endpoints.load().endpoints() {
                let id = endpoint.id();
                let known = before.remove(&id);
                let is_same = |known: &Probed| known.backend.health_check.as_ref() == Some(check);
                let due = match &known {
                    Some(known) if known.due.is_none() || is_same(known) => known.due,
                    _ => {
                        let due = now + Health::first_probe(&check.settings, fastrand::f64());
                        self.due.push(Reverse((due, id)));
                        Some(due)
                    }
                };
                let probed = Probed {
                    endpoint: Arc::clone(endpoint),
                    backend: Arc::clone(backend),
                    due,
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
        let next = endpoint.health.next_probe(is_ejected, &check.settings, fastrand::f64());
        probed.due = Some(now + next);
        self.due.push(Reverse((now + next, id)));
    }

    fn next_due(&self) -> Option<Moment> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use policies::health::Probe;

    use super::*;
    use crate::config;
    use crate::observe::{Observer, Target};
    use crate::plan::State;
    use crate::plan::compile::compile;

    fn plan(state: &State, health: &str) -> Plan {
        let text = format!(
            "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
             backends:\n  b: {{ endpoints: [{{ url: \"http://127.0.0.1:1\" }}, {{ url: \"http://127.0.0.1:2\" }}]{health} }}\n\
             callers: {{ anonymous: {{ by: client_address }} }}\n\
             routes:\n  r: {{ match: {{ path: / }}, access: {{ any_of: [anonymous] }}, respond: {{ body: r }} }}\n"
        );
        let mut loaded = config::parse("gateway.yaml", &text, Path::new("."), &|_| None).expect("it is valid");
        match compile(&mut loaded, state, 1) {
            Ok(compiled) => compiled.plan,
            Err(mistakes) => panic!("{}", loaded.sources.render(&mistakes, false)),
        }
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
        let state = State::new(Observer::start(&Target::Off).expect("no file is opened"));
        let (mut schedule, start) = (Schedule::default(), Moment::ZERO + MINUTE);
        let with = plan(&state, ", health: { path: /ready, every: 10s }");
        schedule.follow(&with, start);
        // The first probe is quick, the others come every ten seconds. Following the same plan changes nothing.
        for _ in 0..3 {
            schedule.follow(&with, start);
        }
        let well = run(&mut schedule, start, MINUTE, true);
        assert!((12..=14).contains(&well), "{well}");
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
    fn a_probe_does_not_begin_before_the_last_one_has_ended() {
        let state = State::new(Observer::start(&Target::Off).expect("no file is opened"));
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
