//! Delays, methods, `Retry-After` and scripted exchanges, answered by [`policies::Retry`] and by what the gateway says
//! of an attempt's end.
//!
//! Our retry budget is a balance of at most 20 that first attempts and time pay into. The vectors' budgets are of other
//! kinds (a share of what is under way, a bucket that failures empty, deposits that age), and unsupported.

use std::sync::Arc;
use std::time::Duration;

use gateway::call::classify::{Repeatable, RetryOn, wait_of};
use gateway::call::fault::Fault;
use gateway::message::FieldMap;
use http::{HeaderValue, Method, StatusCode};
use policies::breaker::{BreakerSettings, ForcedState};
use policies::retry::Stop;
use policies::{Backoff, Breaker, Deadline, Jitter, Moment, Retry};
use serde_json::{Value, json};

use super::{Answer, in_millis, list, millis, number, optional, text, whole};

/// Those that RFC 9110 section 9.2.2 calls idempotent, which is what `retry.methods` would list.
const IDEMPOTENT: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::TRACE,
    Method::PUT,
    Method::DELETE,
];

pub(super) fn answer(case: &Value) -> Answer {
    match text(case, "kind")? {
        "delay" => {
            let (backoff, attempt) = (backoff(&case["policy"])?, whole(case, "attempt")?);
            let attempt = u32::try_from(attempt).map_err(|_| "an attempt out of range")?;
            let delay = |_| in_millis(backoff.delay(attempt, fastrand::f64()));
            let delays: Vec<Value> = (0..whole(case, "samples")?).map(delay).collect();
            Ok(json!({ "delays_ms": delays }))
        }
        "method" => Ok(json!({ "retryable": is_repeatable(case)? })),
        "attempts" => Exchange::read(case)?.play(list(case, "outcomes")?),
        "retry_after" => {
            let now = Duration::from_secs(whole(case, "now_epoch_s")?);
            let wait = wait_of(text(case, "value")?, now);
            Ok(json!({ "wait_ms": wait.map(in_millis) }))
        }
        _ => Err("a retry budget of another kind"),
    }
}

fn backoff(policy: &Value) -> Result<Backoff, &'static str> {
    Ok(Backoff {
        initial: millis(policy, "initial_ms")?,
        max: millis(policy, "max_ms")?,
        factor: number(policy, "multiplier")?,
        jitter: Jitter::Proportional(number(policy, "jitter")?),
    })
}

fn is_repeatable(case: &Value) -> Result<bool, &'static str> {
    let repeatable = Repeatable {
        methods: IDEMPOTENT.into(),
        with_idempotency_key: case["policy"]["idempotency_key"] == true,
    };
    let mut headers = FieldMap::new();
    if case["has_idempotency_key"] == true {
        headers.insert("idempotency-key", HeaderValue::from_static("k"));
    }
    let method = text(case, "method")?.parse().map_err(|_| "no method")?;
    Ok(repeatable.admits(&method, &headers))
}

/// A scripted call, decided in the order in which `gateway::call` decides.
struct Exchange {
    retry: Retry,
    on: RetryOn,
    repeatable: bool,
    deadline: Deadline,
    /// The longest `Retry-After` to wait for, if the case has a bound of its own.
    longest_wait: Option<Duration>,
    has_own_deadline: bool,
    /// Whether the body is gone once it was sent.
    streamed: bool,
    breaker: Arc<Breaker>,
}

/// What an attempt came to, and whether its end allows another.
struct Ended {
    again: bool,
    sent: bool,
    retry_after: Option<Duration>,
}

impl Exchange {
    fn read(case: &Value) -> Result<Self, &'static str> {
        let policy = &case["policy"];
        let mut on = RetryOn {
            unreached: false,
            broken: false,
            timed_out: false,
            statuses: list(policy, "retry_statuses")?.iter().filter_map(status_of).collect(),
        };
        for word in list(policy, "retry_on")? {
            match word.as_str() {
                // Of a stream or a connection, refused ones included (Envoy `retry_on`, "reset").
                Some("reset") => (on.unreached, on.broken) = (true, true),
                Some("connect-failure" | "refused-stream") => on.unreached = true,
                _ => return Err("a retry on something else"),
            }
        }
        let (deadline, longest_wait) = (optional(case, "deadline_ms")?, optional(policy, "max_retry_after_ms")?);
        // A wait is bounded by the deadline with us; without one in the case, the bound on waits is the one to set.
        let time_limit = deadline.or(longest_wait).unwrap_or(Duration::MAX);
        Ok(Self {
            retry: Retry {
                attempts: u32::try_from(whole(policy, "max_attempts")?).map_err(|_| "too many attempts")?,
                backoff: backoff(policy)?,
            },
            on,
            repeatable: is_repeatable(case)?,
            deadline: Deadline::at(Moment::ZERO + time_limit),
            longest_wait,
            has_own_deadline: deadline.is_some(),
            streamed: case["body_streamed"] == true,
            breaker: Arc::new(Breaker::new(BreakerSettings::default())),
        })
    }

    fn play(&self, outcomes: &[Value]) -> Answer {
        let told = |made: u32, end: &str| Ok(json!({ "attempts": made, "final": end }));
        let (mut now, mut made, mut was_sent) = (Moment::ZERO, 0, false);
        loop {
            let outcome = outcomes.get(made as usize).or(outcomes.last()).ok_or("no outcome")?;
            if self.deadline.has_passed(now) {
                return told(made, "deadline");
            }
            let result = text(outcome, "result")?;
            if result == "circuit_open" {
                self.breaker.force(ForcedState::Open, now);
            }
            if self.breaker.admit(now).is_err() {
                return told(made, "circuit_open");
            }
            made += 1;
            now = now + optional(outcome, "latency_ms")?.unwrap_or_default();
            if now > self.deadline.moment() {
                return told(made, "deadline");
            }
            let ended = self.judge(outcome, result)?;
            was_sent |= ended.sent;
            if !ended.again || self.streamed && was_sent {
                return told(made, result);
            }
            match self.wait(made, now, ended.retry_after)? {
                Some(wait) => now = now + wait,
                None => return told(made, result),
            }
        }
    }

    fn judge(&self, outcome: &Value, result: &str) -> Result<Ended, &'static str> {
        let fault = |fault, sent| Ended {
            again: self.on.admits_fault(fault, self.repeatable),
            sent,
            retry_after: None,
        };
        Ok(match result {
            // A refused stream was not processed (RFC 9113 section 8.7): as good as unreached.
            "connect_refused" | "refused_stream" => fault(Fault::Unreached, false),
            "reset_before_headers" => fault(Fault::Broken, true),
            // The answer has begun by then, and is the caller's.
            "reset_after_headers" => Ended {
                again: false,
                sent: true,
                retry_after: None,
            },
            status => {
                let status: StatusCode = status.parse().map_err(|_| "an end of another kind")?;
                let asked = outcome["retry_after"].as_str();
                if asked.is_some_and(|value| value.contains(':')) {
                    return Err("a date where a script has no wall clock");
                }
                Ended {
                    again: self.on.admits_status(status, self.repeatable),
                    sent: true,
                    retry_after: asked.and_then(|value| wait_of(value, Duration::ZERO)),
                }
            }
        })
    }

    /// The wait before another attempt, or nothing if there is to be none.
    fn wait(&self, made: u32, now: Moment, asked: Option<Duration>) -> Result<Option<Duration>, &'static str> {
        const CAP: &str = "a bound on Retry-After: ours is the deadline";
        let is_short = |asked: &Duration| self.longest_wait.is_some_and(|longest| *asked <= longest);
        match self.retry.again(made, self.deadline, now, Duration::ZERO, asked, 0.5) {
            Ok(_) if asked.is_some_and(|asked| self.longest_wait.is_some() && !is_short(&asked)) => Err(CAP),
            Ok(wait) => Ok(Some(wait)),
            Err(Stop::RetryAfterTooLong | Stop::OutOfTime)
                if !self.has_own_deadline && asked.as_ref().is_none_or(is_short) =>
            {
                Err(CAP)
            }
            Err(_) => Ok(None),
        }
    }
}

fn status_of(word: &Value) -> Option<u16> {
    word.as_str()
        .map_or_else(|| word.as_u64()?.try_into().ok(), |text| text.parse().ok())
}
