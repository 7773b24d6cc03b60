//! Explains how long a request may take: the limits of the request, the route, each call and each attempt.

use super::Scene;
use super::step::Step;
use super::text::time;
use crate::pipeline::decision::AuthorizedRequest;
use crate::plan::time_budget::{CallBudget, Limit, PartBudget, Uses};

impl Scene<'_> {
    /// Returns the time of the request, with the times of its calls.
    pub(super) fn time(&self, request: &AuthorizedRequest<'_>) -> Step {
        let budget = request.budget;
        let step = |text: String| Step::plain("time", text).fact("limit_ms", millis(budget.limit));
        let step = match budget.by {
            Some(by) => step(format!("{} for the whole request", time(budget.limit))).by(self.plan, by),
            None => step(format!(
                "{} for the whole request, as the caller asks: the route allows {}",
                time(budget.limit),
                time(request.route.time_limit)
            )),
        };
        let outlines = &self.plan.outline.routes;
        let outline = outlines.iter().find(|outline| outline.name == request.route.name);
        let Some(outline) = outline else { return step };
        let tree = &outline.time_budget;
        let turn = tree.turn.as_ref().map(|turn| self.line("to wait for tokens", turn));
        let step = step.with(turn);
        match &tree.uses {
            Uses::Call(call) => step.with([self.call_time(call)]),
            Uses::OneOf(calls) => {
                let chosen = request.chosen.map(|backend| &backend.name);
                let of_chosen = calls
                    .iter()
                    .filter(|call| chosen.is_none_or(|name| *name == call.backend));
                step.with(of_chosen.map(|call| self.call_time(call)))
            }
            Uses::Parts(parts) => step.with(parts.iter().map(|part| self.part_time(part))),
            Uses::Nothing => step,
        }
    }

    fn part_time(&self, part: &PartBudget) -> Step {
        let text = match &*part.needs {
            [] => format!("for part {}", part.name),
            needs => format!("for part {}, after {}", part.name, super::text::list(needs, "and")),
        };
        self.line(&text, &part.limit).with([self.call_time(&part.call)])
    }

    fn call_time(&self, call: &CallBudget) -> Step {
        let step = self.line(&format!("for the call to {}", call.backend), &call.limit);
        let queue = (!call.queue.is_zero()).then(|| {
            let queue = Limit {
                setting: format!("backends.{}.bulkhead.wait", call.backend),
                time: call.queue,
            };
            self.line("to wait for a slot", &queue)
        });
        let attempts = call.backoffs.len() + 1;
        let attempt = match attempts {
            1 => "for the attempt".to_owned(),
            _ => format!("for each of {attempts} attempts"),
        };
        step.with(queue).with([self.line(&attempt, &call.attempt)])
    }

    fn line(&self, what: &str, limit: &Limit) -> Step {
        Step::plain("time", format!("{} {what}", time(limit.time)))
            .at(self.plan, limit.setting.clone())
            .fact("limit_ms", millis(limit.time))
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
