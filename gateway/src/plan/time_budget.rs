//! How long a route may keep a caller waiting, told from the plan alone: the budget tree that deadlines are cut from.
//!
//! Invariant: no request waits longer for the head of its answer than its route's worst case, whatever backends do
//! and however long they ask us to wait; timers are taken to be exact. It reads the settings that calls go by, so
//! that what it says and what happens cannot drift apart, and the properties hold the two against each other.
//!
//! Knows no clock and starts nothing. What a caller wishes only shortens; an endless stream goes on past its head.

#[cfg(test)]
pub(super) mod properties;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::aggregate::{Aggregate, ForEach};
use crate::call::backend::Backend;
use crate::plan::{Route, Target};

/// The time that a route has, and what may use it.
#[derive(Debug, Serialize)]
pub struct TimeBudget {
    /// The route's own limit, else what the request's limit leaves of it.
    pub limit: Limit,
    /// The longest wait of a request that comes before its tokens, where a limit lets it wait.
    pub turn: Option<Limit>,
    pub uses: Uses,
    pub worst: Worst,
}

/// A bound on time, and the setting it comes from by its path in the config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub setting: String,
    #[serde(rename = "limit_ms", serialize_with = "millis")]
    pub time: Duration,
}

/// What happens within a route's time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Uses {
    Call(CallBudget),
    /// In declared order; each begins when all that it needs is done.
    Parts(Vec<PartBudget>),
    /// An answer that is there at once.
    Nothing,
}

/// The steps of one call, each at its longest.
#[derive(Debug, Serialize)]
pub struct CallBudget {
    pub backend: Arc<str>,
    /// In the words of the config.
    pub protocol: &'static str,
    pub limit: Limit,
    /// The wait for a slot; zero where nobody may wait.
    #[serde(rename = "queue_ms", serialize_with = "millis")]
    pub queue: Duration,
    /// Connecting included.
    pub attempt: Limit,
    /// Before each attempt but the first, jitter included.
    #[serde(rename = "backoffs_ms", serialize_with = "all_millis")]
    pub backoffs: Vec<Duration>,
    /// A backend that answers with `Retry-After` may put an attempt off for as long as the call's limit allows.
    pub heeds_retry_after: bool,
}

/// A call among others.
#[derive(Debug, Serialize)]
pub struct PartBudget {
    pub name: Arc<str>,
    /// The names of what it waits for.
    pub needs: Vec<Arc<str>>,
    /// What bounds it from its own start, up to the last byte of its answer: its own limit, or for each of its waves
    /// its backend's, and those of the backends that stand in.
    #[serde(flatten)]
    pub limit: Limit,
    /// When it starts at the latest, from the start of the request.
    #[serde(rename = "starts_ms", serialize_with = "millis")]
    pub starts: Duration,
    /// Whether it is on the chain that takes longest.
    pub critical: bool,
    /// How often its calls follow each other: with `for_each`, elements over those at once; otherwise 1.
    pub waves: u32,
    pub call: CallBudget,
    /// Calls to the backends that stand in, one after the other, each when all before it have failed.
    pub stand_ins: Vec<CallBudget>,
}

/// The longest wait for the head of an answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Worst {
    #[serde(rename = "worst_case_ms", serialize_with = "millis")]
    pub time: Duration,
    /// The setting to change for another worst case; empty where there is nothing to wait for.
    pub decided_by: String,
    /// What all steps would take one after the other if nothing cut them short, no `Retry-After` being sent.
    #[serde(rename = "uncut_ms", serialize_with = "millis")]
    pub uncut: Duration,
}

impl TimeBudget {
    /// `limited_by` is the setting that `route.time_limit` comes from; `turn` is the longest wait for tokens.
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
            Target::Aggregate(aggregate) => {
                let (mut parts, worst) = parts(&route.name, aggregate);
                for part in &mut parts {
                    part.starts = part.starts.saturating_add(waited).min(limit.time);
                }
                (Uses::Parts(parts), worst)
            }
            Target::Respond { .. } => {
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

    /// A limit that is met exactly decides too, as what runs goes by the outermost.
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
        let may_wait = backend.guard_settings.queue > 0;
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
            // Only an answer can carry the field, and only an answer of these is followed by an attempt.
            heeds_retry_after: settings.retry.attempts > 1 && !settings.retry_on.statuses.is_empty(),
        }
    }

    /// Everything one after the other.
    fn uncut(&self) -> Duration {
        let attempts = u32::try_from(self.backoffs.len()).map_or(u32::MAX, |retries| retries.saturating_add(1));
        self.backoffs
            .iter()
            .fold(self.queue, |sum, wait| sum.saturating_add(*wait))
            .saturating_add(self.attempt.time.saturating_mul(attempts))
    }

    /// Were there no route around it.
    fn worst(&self) -> Worst {
        let uncut = self.uncut();
        let worst = Worst {
            // Whatever a backend asks for, the call's limit is the first to refuse.
            time: if self.heeds_retry_after { Duration::MAX } else { uncut },
            decided_by: self.attempt.setting.clone(),
            uncut,
        };
        worst.within(&self.limit)
    }
}

impl PartBudget {
    /// What all calls for one answer take at most.
    fn wave(call: &CallBudget, stand_ins: &[CallBudget]) -> Duration {
        let others = stand_ins.iter().map(|other| other.limit.time);
        others.fold(call.limit.time, Duration::saturating_add)
    }

    /// What the part would take if it had no limit of its own.
    pub fn uncut(&self) -> Duration {
        Self::wave(&self.call, &self.stand_ins).saturating_mul(self.waves)
    }
}

/// The outer one if they are the same, as calls go by it too.
fn shorter<'l>(outer: &'l Limit, inner: &'l Limit) -> &'l Limit {
    if inner.time < outer.time { inner } else { outer }
}

/// A part may use all of its limit whatever its attempts take: its body is awaited too.
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

/// Up to the next whole millisecond, as befits a bound.
fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(whole_millis(*time))
}

fn all_millis<S: Serializer>(times: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(|time| whole_millis(*time)))
}
