//! Computes how long a route may keep a caller waiting, from the plan alone.
//!
//! Invariant: no request waits longer for its response head than the worst case of its route, whatever backends do or
//! ask for. Exact timers are assumed. The settings are the ones that calls use, so the result cannot drift from the
//! real behaviour; the property tests compare the two.
//!
//! Reads no clock and starts nothing. A caller's own deadline can only shorten the wait. A stream goes on after its
//! head.

#[cfg(test)]
pub(super) mod properties;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::aggregate::{Aggregate, ForEach};
use crate::call::backend::Backend;
use crate::plan::route::{Route, Target};

/// The time limit of a route and the steps that use it.
#[derive(Debug, Serialize)]
pub struct TimeBudget {
    /// The route's own limit, or the request limit minus the reserve.
    pub limit: Limit,
    /// Longest wait for rate-limit tokens, if a limit lets requests wait.
    pub turn: Option<Limit>,
    pub uses: Uses,
    pub worst: Worst,
}

/// A time limit and the path of its setting in the config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub setting: String,
    #[serde(rename = "limit_ms", serialize_with = "millis")]
    pub time: Duration,
}

/// The steps within a route's time limit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Uses {
    Call(CallBudget),
    /// One of several calls: those of the backends that share the route's requests.
    OneOf(Vec<CallBudget>),
    /// Parts in the order of the config. Each starts when all parts that it needs are done.
    Parts(Vec<PartBudget>),
    /// A fixed response.
    Nothing,
}

/// The longest time of each step of one call.
#[derive(Debug, Serialize)]
pub struct CallBudget {
    pub backend: Arc<str>,
    /// Protocol, in the words of the config.
    pub protocol: &'static str,
    pub limit: Limit,
    /// Wait for a slot; zero without a queue.
    #[serde(rename = "queue_ms", serialize_with = "millis")]
    pub queue: Duration,
    /// Limit of one attempt, including the connect.
    pub attempt: Limit,
    /// Wait before each retry, including jitter.
    #[serde(rename = "backoffs_ms", serialize_with = "all_millis")]
    pub backoffs: Vec<Duration>,
    /// True if `Retry-After` can delay a retry, up to the call's limit.
    pub heeds_retry_after: bool,
}

/// The budget of one part of an aggregate.
#[derive(Debug, Serialize)]
pub struct PartBudget {
    pub name: Arc<str>,
    /// Names of the parts that it waits for.
    pub needs: Vec<Arc<str>>,
    /// Longest time from its start to the last byte of its response: its own limit, or the limits of its backend and
    /// its fallback backends, times the number of waves.
    #[serde(flatten)]
    pub limit: Limit,
    /// Latest start, from the start of the request.
    #[serde(rename = "starts_ms", serialize_with = "millis")]
    pub starts: Duration,
    /// True if the part is on the critical path.
    pub critical: bool,
    /// Number of sequential rounds of calls: with `for_each`, elements divided by concurrent calls; otherwise 1.
    pub waves: u32,
    pub call: CallBudget,
    /// Calls to fallback backends, one after the other, each after all before it have failed.
    pub stand_ins: Vec<CallBudget>,
}

/// The longest wait for a response head.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Worst {
    #[serde(rename = "worst_case_ms", serialize_with = "millis")]
    pub time: Duration,
    /// The setting that limits the worst case; empty if there is no wait.
    pub decided_by: String,
    /// Sum of all steps if no limit cut them short and no `Retry-After` came.
    #[serde(rename = "uncut_ms", serialize_with = "millis")]
    pub uncut: Duration,
}

impl TimeBudget {
    /// `limited_by` is the setting behind `route.time_limit`; `turn` is the longest wait for tokens.
    pub fn of(route: &Route, limited_by: String, turn: Option<Limit>) -> Self {
        let limit = Limit {
            setting: limited_by,
            time: route.time_limit,
        };
        let waited = turn.as_ref().map_or(Duration::ZERO, |turn| turn.time);
        let (uses, worst) = match &route.target {
            Target::Backend { backend, .. } => {
                let call = CallBudget::of(backend);
                let worst = call.worst();
                (Uses::Call(call), worst)
            }
            Target::Split { split, .. } => {
                let calls: Vec<_> = split.backends().map(|backend| CallBudget::of(backend)).collect();
                let all = calls.iter().map(CallBudget::worst);
                let worst = all.max_by_key(|worst| worst.time).expect("a split has a backend");
                (Uses::OneOf(calls), worst)
            }
            Target::Aggregate(aggregate) => {
                let (mut parts, worst) = parts(&route.name, aggregate);
                for part in &mut parts {
                    part.starts = part.starts.saturating_add(waited).min(limit.time);
                }
                (Uses::Parts(parts), worst)
            }
            Target::Respond { .. } | Target::Redirect(_) => {
                let worst = Worst {
                    time: Duration::ZERO,
                    decided_by: turn.as_ref().map(|turn| turn.setting.clone()).unwrap_or_default(),
                    uncut: Duration::ZERO,
                };
                (Uses::Nothing, worst)
            }
        };
        Self {
            worst: worst.after(waited).within(&limit),
            limit,
            turn,
            uses,
        }
    }
}

impl Worst {
    fn after(self, wait: Duration) -> Self {
        Self {
            time: self.time.saturating_add(wait),
            uncut: self.uncut.saturating_add(wait),
            ..self
        }
    }

    /// Caps the worst case. On a tie the outer limit is named, because it is the one that ends the call.
    fn within(self, limit: &Limit) -> Self {
        if self.time < limit.time {
            return self;
        }
        Self {
            time: limit.time,
            decided_by: limit.setting.clone(),
            ..self
        }
    }
}

impl CallBudget {
    fn of(backend: &Backend) -> Self {
        let settings = &backend.settings;
        let path = |key| format!("backends.{}.{key}", backend.name);
        let may_wait = backend.guard_settings.slots.has_queue();
        Self {
            backend: Arc::clone(&backend.name),
            protocol: backend.protocol(),
            limit: Limit {
                setting: path("time_limit"),
                time: settings.time_limit,
            },
            queue: if may_wait { settings.queue_wait } else { Duration::ZERO },
            attempt: Limit {
                setting: path("attempt_limit"),
                time: settings.attempt_limit,
            },
            backoffs: (1..settings.retry.attempts)
                .map(|retry| settings.retry.backoff.longest(retry))
                .collect(),
            // A retry can follow a response only if its status is listed in `retry.on`; other retries carry no
            // `Retry-After`.
            heeds_retry_after: settings.retry.attempts > 1 && !settings.retry_on.statuses.is_empty(),
        }
    }

    /// Returns the sum of all steps.
    fn uncut(&self) -> Duration {
        let attempts = u32::try_from(self.backoffs.len()).map_or(u32::MAX, |retries| retries.saturating_add(1));
        self.backoffs
            .iter()
            .fold(self.queue, |sum, wait| sum.saturating_add(*wait))
            .saturating_add(self.attempt.time.saturating_mul(attempts))
    }

    /// Returns the worst case of the call without a route's limit.
    fn worst(&self) -> Worst {
        let uncut = self.uncut();
        let worst = Worst {
            // `Retry-After` can ask for any wait, so only the call's limit bounds it.
            time: if self.heeds_retry_after { Duration::MAX } else { uncut },
            decided_by: self.attempt.setting.clone(),
            uncut,
        };
        worst.within(&self.limit)
    }
}

impl PartBudget {
    /// Returns the longest time of all calls for one element.
    fn wave(call: &CallBudget, stand_ins: &[CallBudget]) -> Duration {
        let others = stand_ins.iter().map(|other| other.limit.time);
        others.fold(call.limit.time, Duration::saturating_add)
    }

    /// Returns the longest time of the part without its own limit.
    pub fn uncut(&self) -> Duration {
        Self::wave(&self.call, &self.stand_ins).saturating_mul(self.waves)
    }
}

/// Returns the shorter limit, or the outer one on a tie, because it is the one that ends the call.
fn shorter<'l>(outer: &'l Limit, inner: &'l Limit) -> &'l Limit {
    if inner.time < outer.time { inner } else { outer }
}

/// Computes the budgets of all parts. A part can use its whole limit, because its body is awaited too.
fn parts(route: &str, aggregate: &Aggregate) -> (Vec<PartBudget>, Worst) {
    let parts = aggregate.recipe.parts();
    let mut budgets: Vec<_> = parts
        .iter()
        .zip(&aggregate.calls)
        .map(|(part, written)| {
            let call = CallBudget::of(&written.backend);
            let stand_ins: Vec<_> = written
                .backends()
                .skip(1)
                .map(|backend| CallBudget::of(backend))
                .collect();
            let waves = written.for_each.as_ref().map_or(1, ForEach::waves);
            let all = Limit {
                time: PartBudget::wave(&call, &stand_ins).saturating_mul(waves),
                ..call.limit.clone()
            };
            let own = written.time_limit.map(|time| Limit {
                setting: format!("routes.{route}.aggregate.parts.{}.time_limit", part.name()),
                time,
            });
            PartBudget {
                name: Arc::clone(part.name()),
                needs: part
                    .awaits()
                    .iter()
                    .map(|need| Arc::clone(parts[*need].name()))
                    .collect(),
                limit: own.as_ref().map_or(&all, |own| shorter(own, &all)).clone(),
                starts: Duration::ZERO,
                critical: false,
                waves,
                call,
                stand_ins,
            }
        })
        .collect();
    let chain = aggregate.recipe.critical_path(|part| budgets[part].limit.time);
    for (budget, starts) in budgets.iter_mut().zip(&chain.starts) {
        budget.starts = *starts;
    }
    for part in &chain.parts {
        budgets[*part].critical = true;
    }
    let longest = chain.parts.iter().map(|part| &budgets[*part].limit);
    let worst = Worst {
        time: chain.time,
        decided_by: longest
            .max_by_key(|limit| limit.time)
            .map(|limit| limit.setting.clone())
            .unwrap_or_default(),
        uncut: chain.time,
    };
    (budgets, worst)
}

/// Rounds up to whole milliseconds, because the value is an upper bound.
fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(whole_millis(*time))
}

fn all_millis<S: Serializer>(times: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(|time| whole_millis(*time)))
}
