//! Breaker timelines, played on [`policies::Breaker`].
//!
//! Where a case's breaker goes by another law, ours is asked all the same, and answers for as long as both go by the
//! same results. From the first verdict on that falls otherwise because they do not, the case is unsupported. A
//! verdict that falls otherwise for no such reason is ours, and wrong.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use policies::breaker::{Breaker, BreakerSettings, Cause, Outcome, Permit, SlowCalls, State};
use policies::{Moment, Ratio};
use serde_json::{Value, json};

use self::law::{Entry, Law, Window};
use super::{Answer, list, millis, moment_of, number, optional, text, whole};

mod law;

/// Longer than any timeline.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) fn answer(case: &Value) -> Answer {
    let policy = &case["policy"];
    let law = match text(policy, "kind")? {
        "fixed_window" => fixed(policy)?,
        "time_window" => {
            let slices = whole(policy, "size")?;
            let width = Duration::from_secs(1);
            let from_start = false;
            let window = Window::Sliced {
                width,
                slices,
                from_start,
            };
            sliding(policy, Duration::from_secs(slices), window)?
        }
        "count_window" => {
            let size = usize::try_from(whole(policy, "size")?).map_err(|_| "a window out of range")?;
            sliding(policy, ENDLESS, Window::Last(size))?
        }
        _ => return Err("a breaker of another kind"),
    };
    let mut play = Play {
        breaker: Arc::new(Breaker::new(law.settings)),
        law,
        generation: 0,
        under_way: HashMap::new(),
    };
    let results: Result<Vec<Value>, _> = list(case, "steps")?.iter().map(|step| play.step(step)).collect();
    Ok(json!({ "results": results? }))
}

/// As of sony/gobreaker. Its ratio is of the calls admitted, and asked after failures alone.
fn fixed(policy: &Value) -> Result<Law, &'static str> {
    let every = millis(policy, "interval_ms")?;
    let (length, window) = if every.is_zero() {
        (ENDLESS, Window::Endless)
    } else if policy["bucket_ms"].is_null() {
        (every, Window::Cleared { every })
    } else {
        let width = millis(policy, "bucket_ms")?;
        if width.is_zero() {
            return Err("slices of no time");
        }
        let window = Window::Sliced {
            width,
            slices: u64::try_from(every.as_nanos() / width.as_nanos()).map_err(|_| "too many slices")?,
            from_start: true,
        };
        (every, window)
    };
    let trip = &policy["trip"];
    let (min_calls, failure_ratio, consecutive) = if trip["consecutive_failures"].is_null() {
        let ratio = Ratio::new(number(trip, "failure_ratio")?).ok_or("a ratio out of range")?;
        (count(trip, "min_requests")?, Some(ratio), None)
    } else {
        let most = NonZeroU32::new(count(trip, "consecutive_failures")?);
        (1, None, Some(most.ok_or("a trip after no failure")?))
    };
    let settings = BreakerSettings {
        window: length,
        min_calls,
        failure_ratio,
        consecutive,
        open_for: millis(policy, "open_ms")?,
        probes: NonZeroU32::new(count(policy, "half_open_max")?).unwrap_or(NonZeroU32::MIN),
        ..BreakerSettings::default()
    };
    let mut law = Law::new(settings, window);
    law.of_admitted = failure_ratio.is_some();
    law.keeps_places = true;
    Ok(law)
}

/// As of resilience4j. Rates are percentages, and above 100 they are off.
fn sliding(policy: &Value, length: Duration, window: Window) -> Result<Law, &'static str> {
    let rate = |name: &str| Ok::<_, &'static str>(Ratio::new(number(policy, name)? / 100.0));
    let slow = match rate("slow_rate")? {
        Some(ratio) => Some(SlowCalls {
            over: millis(policy, "slow_ms")?,
            ratio,
        }),
        None => None,
    };
    let failure_ratio = rate("failure_rate")?;
    let probes = NonZeroU32::new(count(policy, "half_open_calls")?).ok_or("half-open without a call")?;
    let settings = BreakerSettings {
        window: length,
        min_calls: count(policy, "min_calls")?,
        failure_ratio,
        slow,
        open_for: millis(policy, "open_ms")?,
        probes,
        ..BreakerSettings::default()
    };
    // One probe that failed is all of them.
    let one_decides = probes == NonZeroU32::MIN && failure_ratio.is_some();
    let mut law = Law::new(settings, window);
    law.half_open_by_rate = !one_decides;
    Ok(law)
}

struct Play {
    breaker: Arc<Breaker>,
    law: Law,
    /// Counts the case's: changes of state, and clearings of its window.
    generation: u32,
    under_way: HashMap<String, Call>,
}

struct Call {
    permit: Permit,
    admitted: Moment,
    generation: u32,
}

impl Play {
    fn step(&mut self, step: &Value) -> Answer {
        let now = moment_of(step)?;
        if self.law.is_over(now) && self.breaker.state(now) == State::Closed {
            self.begin(now);
        }
        match text(step, "op")? {
            "allow" => match self.breaker.admit(now) {
                Ok(permit) => {
                    if permit.began().is_some() {
                        self.begin(now);
                    }
                    if permit.is_probe() && self.law.keeps_places && self.law.has_ignored() {
                        return Err("a probe that is ignored and keeps its place: ours gives it back");
                    }
                    let call = Call {
                        permit,
                        admitted: now,
                        generation: self.generation,
                    };
                    self.under_way.insert(text(step, "id")?.to_owned(), call);
                    Ok("admitted".into())
                }
                Err(_) => Ok("rejected".into()),
            },
            op @ ("success" | "failure" | "ignored") => {
                let took = optional(step, "duration_ms")?.unwrap_or_default();
                let outcome = match op {
                    "success" => Outcome::Success { took },
                    "failure" => Outcome::Failure { took },
                    _ => Outcome::Ignored,
                };
                // A call that was refused has no result.
                if let Some(call) = self.under_way.remove(text(step, "id")?) {
                    self.record(call, outcome, took, now)?;
                }
                Ok(Value::Null)
            }
            "state" => Ok(match self.breaker.state(now) {
                State::Closed | State::ForcedClosed => "closed".into(),
                State::Open | State::ForcedOpen => "open".into(),
                State::HalfOpen => "half_open".into(),
            }),
            "counts" => self.counts(now),
            _ => Err("a step of another kind"),
        }
    }

    fn record(&mut self, call: Call, outcome: Outcome, took: Duration, now: Moment) -> Result<(), &'static str> {
        let is_closed = self.breaker.state(now) == State::Closed;
        let before = self.breaker.counts(now);
        let held_otherwise = self.law.differs(&before, now);
        let failed = matches!(outcome, Outcome::Failure { .. });
        let is_current = call.generation == self.generation;
        let is_noted = is_current && outcome != Outcome::Ignored;
        if is_noted {
            self.law.note(Entry {
                admitted: call.admitted,
                ended: now,
                failed,
                slow: self.law.settings.slow.is_some_and(|slow| took > slow.over),
            });
        } else if is_current {
            self.law.ignore(call.admitted);
        }

        let change = self.breaker.record(call.permit, outcome, now);
        let opens = is_noted && self.law.opens(now, self.under_way());
        if is_closed && opens != change.is_some() {
            if let Some(why) = held_otherwise {
                return Err(why);
            }
            if !is_current && matches!(self.law.window, Window::Cleared { .. }) {
                return Err("a result from before a window was cleared: ours rolls");
            }
            if self.law.of_admitted && (!failed || self.law.admitted(now, self.under_way()) != before.calls + 1) {
                return Err("a ratio of the calls admitted, asked after failures: ours is of results");
            }
        }
        if self.law.half_open_by_rate && change.is_some_and(|change| change.cause == Cause::ProbeFailed) {
            return Err("half-open judged by a rate: with us one failed or slow probe reopens");
        }
        if change.is_some() {
            self.begin(now);
        }
        Ok(())
    }

    /// When the calls were admitted that are under way and of the case's present generation.
    fn under_way(&self) -> impl Iterator<Item = Moment> {
        let current = self
            .under_way
            .values()
            .filter(|call| call.generation == self.generation);
        current.map(|call| call.admitted)
    }

    fn begin(&mut self, now: Moment) {
        self.generation += 1;
        self.law.begin(now);
    }

    fn counts(&self, now: Moment) -> Answer {
        let counts = self.breaker.counts(now);
        if self.breaker.state(now) == State::Closed
            && let Some(why) = self.law.differs(&counts, now)
        {
            return Err(why);
        }
        let mut told = json!({
            "successes": counts.calls - counts.failures,
            "failures": counts.failures,
            "consecutive_failures": counts.consecutive_failures,
            "slow": counts.slow,
        });
        // With gobreaker they are those admitted, of which we know no number while some are under way.
        if !self.law.keeps_places || self.under_way().next().is_none() && !self.law.has_ignored() {
            told["requests"] = counts.calls.into();
        }
        Ok(told)
    }
}

fn count(policy: &Value, name: &str) -> Result<u32, &'static str> {
    u32::try_from(whole(policy, name)?).map_err(|_| "a count out of range")
}
