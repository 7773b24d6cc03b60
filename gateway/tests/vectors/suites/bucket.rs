//! Token bucket timelines, played on [`policies::Bucket`].
//!
//! A rate of zero and a burst of zero are mistakes in our config, and a changed burst keeps a bucket as full in
//! proportion where the vectors keep its tokens; neither is played. No limit at all is what an infinite rate is.
//! What was reserved is given back as long as it waits and nobody is behind it: no one else's start moves.

use std::time::Duration;

use gateway::clock::Now;
use gateway::limits;
use policies::{Bucket, Moment, Quota, WallTime};
use serde_json::{Value, json};

use super::{Answer, in_millis, list, moment_of, number, optional, text, whole};

pub(super) fn answer(case: &Value) -> Answer {
    let policy = &case["policy"];
    let steps = list(case, "steps")?.iter();
    let results: Result<Vec<Value>, _> = if policy["rate"] == "inf" {
        steps.map(without_limit).collect()
    } else {
        let mut limit = Limit {
            quota: quota(number(policy, "rate")?, whole(policy, "burst")?)?,
            bucket: Bucket::full(),
            rate: number(policy, "rate")?,
            last: None,
        };
        steps.map(|step| limit.step(step)).collect()
    };
    Ok(json!({ "results": results? }))
}

struct Limit {
    quota: Quota,
    bucket: Bucket,
    /// Tokens per second.
    rate: f64,
    /// What was taken last, if it was reserved: its name, its cost and its start.
    last: Option<(String, u64, Moment)>,
}

impl Limit {
    fn step(&mut self, step: &Value) -> Answer {
        let now = moment_of(step)?;
        match text(step, "op")? {
            "allow" => {
                let taken = self.bucket.take(&self.quota, now, tokens(step)?).is_ok();
                if taken {
                    self.last = None;
                }
                Ok(taken.into())
            }
            "remaining" => Ok(self.bucket.balance(&self.quota, now).into()),
            "retry_after" => {
                let wait = self.bucket.wait_for(&self.quota, now, tokens(step)?);
                Ok(wait.map_or(Value::Null, in_millis))
            }
            "tokens" => {
                let burst = self.quota.burst();
                let to_full = self.bucket.wait_for(&self.quota, now, burst);
                let missing = to_full.ok_or("never full")?.as_secs_f64() * self.rate;
                Ok((burst as f64 - missing).into())
            }
            "set_rate" => {
                self.rate = number(step, "rate")?;
                let changed = quota(self.rate, self.quota.burst())?;
                self.bucket.rescale(&self.quota, &changed, now);
                self.last = None;
                self.quota = changed;
                Ok(Value::Null)
            }
            "set_burst" => Err("a changed burst scales what is there"),
            "reserve" => {
                let (cost, most) = (tokens(step)?, optional(step, "max_wait_ms")?.unwrap_or(Duration::MAX));
                Ok(match self.bucket.reserve(&self.quota, now, cost, most) {
                    Ok(wait) => {
                        let at = now + wait;
                        self.last = Some((text(step, "id")?.to_owned(), cost, at));
                        json!({ "ok": true, "at_ms": in_millis(at.since(Moment::ZERO)) })
                    }
                    Err(_) => json!({ "ok": false, "at_ms": null }),
                })
            }
            "cancel" => match self.last.take() {
                Some((id, cost, at)) if id == text(step, "id")? && at > now => {
                    self.bucket.refund(&self.quota, now, at, cost);
                    Ok(Value::Null)
                }
                _ => Err("a reservation that is cancelled late, or from between others"),
            },
            _ => Err("a step of another kind"),
        }
    }
}

fn without_limit(step: &Value) -> Answer {
    let now = moment_of(step)?;
    match text(step, "op")? {
        "allow" => {
            let now = Now {
                moment: now,
                wall: WallTime::since_epoch(now.since(Moment::ZERO)),
            };
            Ok(limits::take(Default::default(), now, Duration::ZERO).is_ok().into())
        }
        "retry_after" => Ok(0.into()),
        "tokens" => Ok(Value::Null),
        _ => Err("no such step without a limit"),
    }
}

fn tokens(step: &Value) -> Result<u64, &'static str> {
    match step["n"] {
        Value::Null => Ok(1),
        _ => whole(step, "n"),
    }
}

/// The fewest decimals of a second's tokens that say the rate exactly, at most nine.
fn quota(rate: f64, burst: u64) -> Result<Quota, &'static str> {
    let decimals = |places: u32| (rate * 10f64.powi(places as i32), 10u64.pow(places));
    let is_whole = |value: f64| (value - value.round()).abs() <= value * 1e-12;
    let (count, seconds) = (0..9)
        .map(decimals)
        .find(|(count, _)| is_whole(*count))
        .unwrap_or_else(|| decimals(9));
    Quota::new(count.round() as u64, Duration::from_secs(seconds), burst)
        .map_err(|_| "a quota of zero, or out of range")
}
