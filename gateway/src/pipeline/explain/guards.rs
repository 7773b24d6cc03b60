//! Explains what guards a backend, and what they would do with a call now.

use policies::breaker::{Counts, State};
use policies::health;
use serde_json::Value;

use super::Scene;
use super::step::Step;
use super::text::{count, time};
use crate::call::backend::Backend;
use crate::call::endpoints::{EndpointSet, Listed};
use crate::call::foresee::{Foreseen, Planned};
use crate::rejection::Rejection;

/// Maximum number of endpoints that are shown.
const MOST_ENDPOINTS: usize = 16;

impl Scene<'_> {
    /// Explains a backend: its endpoints and its guards, in the order in which a call meets them.
    pub(super) fn backend(&self, topic: &'static str, label: &str, backend: &Backend, planned: Planned) -> Step {
        let name = &backend.name;
        let endpoints = count(backend.endpoints.load().all().len() as u64, "endpoint");
        let foreseen = self.foresee(backend, planned);
        let verdict = match &foreseen {
            Foreseen::Sent { is_probe: false } => "takes the call".to_owned(),
            Foreseen::Sent { is_probe: true } => "takes the call as a probe".to_owned(),
            Foreseen::Waits => "lets the call wait for a slot".to_owned(),
            Foreseen::Refused(rejection) => format!("refuses the call: {}", rejection.reason().as_str()),
        };
        let mut step = Step::plain(
            topic,
            format!("{label}{name} ({}, {endpoints}): {verdict}", backend.protocol()),
        )
        .at(self.plan, format!("backends.{name}"))
        .fact("backend", &**name);
        if let Foreseen::Refused(rejection) = &foreseen {
            step = step.fact("reason", rejection.reason().as_str());
        }
        let guards = [
            self.bulkhead(backend, planned),
            self.breaker(backend),
            self.retry(backend),
        ];
        step.with(guards).with(self.endpoints(backend))
    }

    /// Returns what would happen to a call now. Without a running gateway no name is looked up, so a backend without an
    /// address is taken to have one.
    pub(super) fn foresee(&self, backend: &Backend, planned: Planned) -> Foreseen {
        match backend.foresee(planned, self.now.moment) {
            Foreseen::Refused(Rejection::NoEndpoint { .. })
                if !self.is_live && backend.endpoints.load().all().is_empty() =>
            {
                Foreseen::Sent { is_probe: false }
            }
            foreseen => foreseen,
        }
    }

    fn bulkhead(&self, backend: &Backend, planned: Planned) -> Step {
        let (slots, what) = match planned.is_stream {
            true => (&backend.guards.streams, "stream slot"),
            false => (&backend.guards.bulkhead, "slot"),
        };
        let (used, limit) = (slots.in_use(), slots.limit());
        let mut text = format!(
            "{used} of {} in use, {} of {} waiting",
            count(limit.into(), what),
            slots.waiting(),
            slots.queue_limit()
        );
        if let Some(cap) = slots.tenant_cap() {
            text.push_str(&format!(", {cap} for one tenant"));
        }
        Step::plain("bulkhead", text)
            .by(self.plan, backend.ids.bulkhead.slots)
            .fact("in_use", used)
            .fact("limit", limit)
            .fact("waiting", slots.waiting())
            .fact("queue", slots.queue_limit())
    }

    fn breaker(&self, backend: &Backend) -> Step {
        let step = |text: String| Step::plain("breaker", text).by(self.plan, backend.ids.breaker);
        if !backend.breaker_on {
            return step("off".to_owned());
        }
        let (breaker, now) = (&backend.guards.breaker, self.now.moment);
        let Counts {
            calls,
            failures,
            probes_under_way,
            ..
        } = breaker.counts(now);
        let state = breaker.state(now);
        let (word, text) = match state {
            State::Closed => (
                "closed",
                format!("closed: {failures} of {} failed", count(calls, "call")),
            ),
            State::Open => {
                let left = breaker.retry_in(now).unwrap_or_default();
                ("open", format!("open: the next probe in {}", time(left)))
            }
            State::HalfOpen => {
                let probes = count(probes_under_way.into(), "probe");
                ("half_open", format!("half-open: {probes} under way"))
            }
            State::ForcedOpen => ("forced_open", "open, forced by an operator".to_owned()),
            State::ForcedClosed => ("forced_closed", "closed, forced by an operator".to_owned()),
        };
        step(text)
            .fact("state", word)
            .fact("calls", calls)
            .fact("failures", failures)
    }

    fn retry(&self, backend: &Backend) -> Step {
        let attempts = backend.settings.retry.attempts;
        let balance = backend.guards.retry_budget.balance(self.now.moment);
        let text = match attempts {
            1 => "off: one attempt".to_owned(),
            _ => format!("up to {attempts} attempts; the budget pays for {balance} now"),
        };
        Step::plain("retry", text)
            .at(self.plan, format!("backends.{}.retry", backend.name))
            .fact("attempts", attempts)
            .fact("budget", balance)
    }

    fn endpoints(&self, backend: &Backend) -> Vec<Step> {
        let of_endpoints = |step: Step| step.by(self.plan, backend.ids.endpoints);
        let snapshot = backend.endpoints.load();
        let all = snapshot.all();
        let mut steps: Vec<_> = all
            .iter()
            .take(MOST_ENDPOINTS)
            .map(|listed| of_endpoints(self.endpoint(listed)))
            .collect();
        if all.is_empty() {
            steps.push(of_endpoints(Step::plain(
                "endpoint",
                self.no_endpoint(&backend.endpoints),
            )));
        }
        if all.len() > MOST_ENDPOINTS {
            let text = format!("and {} more", all.len() - MOST_ENDPOINTS);
            steps.push(of_endpoints(Step::plain("endpoint", text)));
        }
        steps
    }

    fn endpoint(&self, listed: &Listed) -> Step {
        let (endpoint, now) = (&listed.endpoint, self.now.moment);
        let state = endpoint.state(now);
        let mut text = format!("{} at {}: {}", endpoint.url(), endpoint.address(), state.word());
        match state {
            health::State::Down { since } => text.push_str(&format!(" for {}", time(now.since(since)))),
            _ => {
                if let Some(left) = endpoint.standing.left(now) {
                    text.push_str(&format!(", back in {}", time(left)));
                }
            }
        }
        if let Some(error) = endpoint.probe_error() {
            text.push_str(&format!(" ({error})"));
        }
        let load = endpoint.load();
        text.push_str(&format!(", {} in flight", load.in_flight()));
        let latency = load.latency();
        if !latency.is_zero() {
            text.push_str(&format!(", about {}", time(latency)));
        }
        Step::plain("endpoint", text)
            .fact("address", endpoint.address().to_string())
            .fact("state", state.word())
            .fact("in_flight", load.in_flight())
            .fact("weight", Value::from(listed.weight))
    }

    fn no_endpoint(&self, set: &EndpointSet) -> String {
        let source = match set.discovery() {
            Some(discovery) => format!("{} {}", discovery.source.kind(), discovery.source),
            None => "the names".to_owned(),
        };
        match self.is_live {
            true => format!("none: {source} gave no address yet"),
            false => format!("none here: a running gateway looks up {source}"),
        }
    }
}
