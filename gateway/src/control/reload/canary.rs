//! Watches the answers for some time after a reload, and says if they got worse than before.
//!
//! Two shares are judged, of each route and of all requests: answers with a 5xx, and refusals. A route without requests
//! before is judged as a part of all requests only, which includes those that match no route.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::{Moment, Outcomes};

use crate::observe::families::Family;
use crate::observe::labels::Class;
use crate::observe::{Registry, RouteMetrics};
use crate::plan::Plan;
use crate::rejection::Reason;

/// Time between two marks. The time before a reload that is compared reaches from one to two of these back.
const MARKED_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks at the counters.
const JUDGED_EVERY: Duration = Duration::from_secs(1);

/// Counts of a route's requests since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    failed: Outcomes,
    refused: Outcomes,
}

/// Counts of all routes, and their sum.
#[derive(Debug, Clone, Default)]
struct Counts {
    routes: HashMap<Arc<str>, Counted>,
    all: Counted,
}

/// Follows what is put in force.
#[derive(Default)]
pub(super) struct Canary(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Time for which each reload is watched, unless one asks for another time.
    usual: Option<Duration>,
    /// Time that the next reload asks for.
    wanted: Option<Duration>,
    older: Counts,
    newer: Counts,
    marked: Moment,
    under_way: Option<UnderWay>,
}

/// A reload that is watched.
struct UnderWay {
    /// Plan to return to.
    last_good: Arc<Plan>,
    generation: u64,
    until: Moment,
    judged: Moment,
    began: Counts,
    before: Counts,
}

/// What has become of a reload that was watched.
pub(super) enum Verdict {
    Good { generation: u64 },
    Worse { last_good: Arc<Plan>, why: String },
}

impl Counted {
    fn of(route: &RouteMetrics) -> Self {
        let requests = route.by::<Class>(Family::Requests).map(|(_, count)| count).sum();
        let refused: u64 = route.by::<Reason>(Family::Rejections).map(|(_, count)| count).sum();
        let outcomes = |bad: u64| Outcomes { requests, bad };
        Self {
            failed: outcomes(route.count(Family::Requests, Class::ServerError)),
            refused: outcomes(refused.min(requests)),
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            failed: self.failed.since(earlier.failed),
            refused: self.refused.since(earlier.refused),
        }
    }

    fn add(&mut self, other: Self) {
        for (sum, more) in [(&mut self.failed, other.failed), (&mut self.refused, other.refused)] {
            sum.requests += more.requests;
            sum.bad += more.bad;
        }
    }

    /// Returns what got worse.
    fn worse_than(self, before: Self) -> Option<String> {
        let tell = |what: &str, since: Outcomes, before: Outcomes| {
            let percent = |outcomes: Outcomes| (outcomes.share() * 1000.0).round() / 10.0;
            since.are_worse_than(before).then(|| {
                let (now, then) = (percent(since), percent(before));
                format!(
                    "{then} % of the requests were {what} before, and {now} % of {} since",
                    since.requests
                )
            })
        };
        tell("answered with 5xx", self.failed, before.failed).or_else(|| tell("refused", self.refused, before.refused))
    }
}

impl Counts {
    fn of(plan: &Plan, registry: &Registry) -> Self {
        let mut counts = Self::default();
        counts.all.add(Counted::of(&registry.unrouted()));
        for route in &plan.listed {
            let counted = Counted::of(&route.metrics);
            counts.all.add(counted);
            counts.routes.insert(Arc::clone(&route.name), counted);
        }
        counts
    }

    fn since(&self, earlier: &Self) -> Self {
        let routes = self.routes.iter().map(|(name, counted)| {
            let earlier = earlier.routes.get(name).copied().unwrap_or_default();
            (Arc::clone(name), counted.since(earlier))
        });
        Self {
            routes: routes.collect(),
            all: self.all.since(earlier.all),
        }
    }

    /// Returns what got worse: of the routes that did, the one with the most bad answers, or else all requests together.
    fn worse_than(&self, before: &Self) -> Option<String> {
        let worse = self.routes.iter().filter_map(|(name, counted)| {
            let why = counted.worse_than(*before.routes.get(name)?)?;
            Some((counted.failed.bad + counted.refused.bad, name, why))
        });
        match worse.max_by_key(|(bad, name, _)| (*bad, Arc::clone(name))) {
            Some((_, name, why)) => Some(format!("route {name}: {why}")),
            None => self.all.worse_than(before.all),
        }
    }
}

impl Canary {
    /// Watches every reload for this time; `None` watches those alone that ask for it.
    pub(super) fn new(usual: Option<Duration>) -> Self {
        Self(Mutex::new(Inner {
            usual,
            ..Inner::default()
        }))
    }

    /// Lets the next reload be watched for this time.
    pub(super) fn want(&self, time: Duration) {
        self.inner().wanted = Some(time);
    }

    /// Begins to watch a plan that replaces `before`, if that is wanted. If `before` is itself being watched, the plan
    /// to return to stays the one before that.
    pub(super) fn begin(&self, before: &Arc<Plan>, generation: u64, registry: &Registry, now: Moment) {
        let mut inner = self.inner();
        let Some(time) = inner.wanted.take().or(inner.usual) else {
            inner.under_way = None;
            return;
        };
        let began = Counts::of(before, registry);
        let (last_good, earlier) = match inner.under_way.take() {
            Some(UnderWay { last_good, before, .. }) => (last_good, before),
            None => (Arc::clone(before), began.since(&inner.older)),
        };
        inner.under_way = Some(UnderWay {
            last_good,
            generation,
            until: now + time,
            judged: now,
            began,
            before: earlier,
        });
    }

    /// Looks at the counters. Returns what has become of the reload once that is known.
    pub(super) fn look(&self, plan: &Plan, registry: &Registry, now: Moment) -> Option<Verdict> {
        let mut inner = self.inner();
        if now.since(inner.marked) >= MARKED_EVERY {
            inner.older = std::mem::replace(&mut inner.newer, Counts::of(plan, registry));
            inner.marked = now;
        }
        let under_way = inner.under_way.as_mut()?;
        let is_over = now >= under_way.until;
        if !is_over && now.since(under_way.judged) < JUDGED_EVERY {
            return None;
        }
        under_way.judged = now;
        let since = Counts::of(plan, registry).since(&under_way.began);
        let worse = since.worse_than(&under_way.before);
        if worse.is_none() && !is_over {
            return None;
        }
        let UnderWay {
            last_good, generation, ..
        } = inner.under_way.take()?;
        Some(match worse {
            Some(why) => Verdict::Worse { last_good, why },
            None => Verdict::Good { generation },
        })
    }

    /// Returns for how long the plan in force is still watched.
    pub(super) fn left(&self, now: Moment) -> Option<Duration> {
        let until = self.inner().under_way.as_ref()?.until;
        Some(until.since(now))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
