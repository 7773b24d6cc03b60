//! Chooses the requests whose traces are exported, and queues their records for the exporter.
//!
//! A trace is made from the record of a request after its last byte, as the access log is, so nothing is measured twice.
//! Chosen are a share of the traces that begin here, those that the caller has sampled, and whatever an operator will ask
//! about: errors, refusals other than by a rate limit, and requests slower than 99 of 100 of their route.
//!
//! Invariant: a request never waits for the exporter. The queue is bounded, a record that finds no room is dropped and
//! counted. What callers can cause at will (their own sampling, errors, refusals) is bounded per second.

pub mod otlp;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::counters::RouteMetrics;
use super::families::Family;
use super::histogram::Histogram;
use super::labels::TraceOutcome;
use super::metrics::Registry;
use super::record::RequestRecord;
use crate::headers::TraceId;
use crate::rejection::Reason;

/// Capacity of the queue in traces. The exporter empties it four times a second.
const CAPACITY: usize = 2048;
/// Most traces per second that are exported because the caller has sampled them, and as many because of their end.
const MOST_CHOSEN: u64 = 100;
/// Number of requests after which the time of the slowest hundredth is estimated anew.
const ENOUGH: u64 = 200;

/// What is exported and where.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// Address that takes OTLP in JSON.
    pub url: reqwest::Url,
    /// Header fields of each export.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub time_limit: Duration,
    /// Share of the traces that begin here.
    pub sample: Share,
    /// Whether errors, refusals and slow requests are exported in any case.
    pub tail: bool,
    /// Name of the service in the traces.
    pub service: String,
}

/// A share of all numbers of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// `share` is from 0 to 1.
    pub const fn new(share: f64) -> Self {
        Self(share)
    }

    /// Whether a number drawn by chance is in the share.
    pub fn has(self, chance: u64) -> bool {
        (chance >> 11) as f64 / (1_u64 << 53) as f64 <= self.0 && self.0 > 0.0
    }
}

/// Place of a request in its trace. Requests have none while no traces are exported.
#[derive(Debug, Clone)]
pub struct SpanContext {
    /// Id of the request's span.
    pub span: u64,
    /// Id of the caller's span, if the caller sent a trace.
    pub parent: Option<u64>,
    /// Flags of the trace context: bit 0 is set if the trace is sampled.
    pub flags: u8,
    /// Whether the end of the request can choose it.
    pub tail: bool,
    /// `http` or `https`, as the caller sees it.
    pub scheme: &'static str,
}

/// Records of the requests whose traces are exported, on their way to the exporter.
#[derive(Debug)]
pub struct Traces {
    queue: SyncSender<Box<RequestRecord>>,
    queued: Mutex<Receiver<Box<RequestRecord>>>,
    by_caller: Gate,
    by_end: Gate,
    registry: Arc<Registry>,
}

/// Lets a number of requests per second through: the second in the upper 32 bits, the number in the lower.
#[derive(Debug, Default)]
struct Gate(AtomicU64);

/// Estimate of how long 99 of 100 requests of a route take at most.
#[derive(Debug)]
pub struct Slow {
    /// In nanoseconds; the largest number while too few requests are known.
    limit: AtomicU64,
    /// Counts of the buckets at the last estimate.
    before: Mutex<Vec<u64>>,
}

impl Traces {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let (queue, queued) = sync_channel(CAPACITY);
        Self {
            queue,
            queued: Mutex::new(queued),
            by_caller: Gate::default(),
            by_end: Gate::default(),
            registry,
        }
    }

    /// Queues a copy of the record if its trace is to be exported. Returns the trace if it is queued.
    #[inline]
    pub(super) fn note(&self, record: &RequestRecord) -> Option<TraceId> {
        let context = record.span.as_ref()?;
        self.choose(record, context).then_some(record.trace)?
    }

    /// Returns whether the record is queued.
    fn choose(&self, record: &RequestRecord, context: &SpanContext) -> bool {
        let second = record.at.0.as_secs();
        let is_sampled = context.flags & 1 == 1;
        let gate = match (is_sampled, context.parent) {
            (true, None) => None,
            (true, Some(_)) => Some(&self.by_caller),
            (false, _) if context.tail && is_telling(record) => Some(&self.by_end),
            (false, _) => return false,
        };
        if gate.is_some_and(|gate| !gate.admits(second)) {
            self.count(TraceOutcome::TooMany, 1);
            return false;
        }
        let is_queued = self.queue.try_send(Box::new(record.clone())).is_ok();
        if !is_queued {
            self.count(TraceOutcome::QueueFull, 1);
        }
        is_queued
    }

    /// Takes at most `most` records from the queue.
    pub fn take(&self, most: usize) -> Vec<RequestRecord> {
        let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.try_iter().take(most).map(|record| *record).collect()
    }

    /// Counts traces by what became of them.
    pub fn count(&self, outcome: TraceOutcome, traces: usize) {
        (0..traces).for_each(|_| self.registry.process.add(Family::Traces, outcome));
    }
}

/// Whether an operator will ask about the request: an error, a refusal other than by a rate limit, or a slow answer. A
/// caller that left is neither.
fn is_telling(record: &RequestRecord) -> bool {
    let is_error = record.status >= 500 || record.aborted || record.complete == Some(false);
    let is_refusal = record
        .reason
        .is_some_and(|reason| reason != Reason::CallerGone && reason.status() != http::StatusCode::TOO_MANY_REQUESTS);
    let is_slow = |route: &RouteMetrics| route.slow.is_exceeded_by(record.used);
    is_error || is_refusal || record.route.as_deref().is_some_and(is_slow)
}

impl Gate {
    fn admits(&self, second: u64) -> bool {
        let second = second << 32;
        let seen = self.0.load(Relaxed);
        let passed = if seen >> 32 == second >> 32 {
            seen & 0xffff_ffff
        } else {
            0
        };
        // A lost race drops one of many.
        passed < MOST_CHOSEN
            && self
                .0
                .compare_exchange(seen, second | (passed + 1), Relaxed, Relaxed)
                .is_ok()
    }
}

impl Default for Slow {
    fn default() -> Self {
        Self {
            limit: AtomicU64::new(u64::MAX),
            before: Mutex::default(),
        }
    }
}

impl Slow {
    /// Whether the time is longer than that of 99 of 100 requests.
    pub fn is_exceeded_by(&self, time: Duration) -> bool {
        time.as_nanos() > u128::from(self.limit.load(Relaxed))
    }

    /// Estimates the limit from what was counted since the last estimate, if that is enough. Values are spread evenly
    /// within a bucket; of the last bucket nothing is known but its lower bound.
    pub fn learn(&self, times: &Histogram) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let points: Vec<(f64, u64)> = times.cumulative().collect();
        let grown = |at: usize| points[at].1 - before.get(at).copied().unwrap_or(0).min(points[at].1);
        let total = grown(points.len() - 1);
        if total < ENOUGH {
            return;
        }
        let rank = total as f64 * 0.99;
        let found = (0..points.len())
            .find(|&at| grown(at) as f64 >= rank)
            .unwrap_or(points.len() - 1);
        let (low, below) = match found {
            0 => (0.0, 0),
            found => (points[found - 1].0, grown(found - 1)),
        };
        let limit = match points[found].0 {
            high if high.is_finite() => {
                low + (high - low) * (rank - below as f64) / (grown(found) - below).max(1) as f64
            }
            _ => low,
        };
        self.limit.store((limit * 1e9) as u64, Relaxed);
        *before = points.into_iter().map(|(_, count)| count).collect();
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use policies::Moment;

    use super::*;

    fn context(flags: u8, parent: Option<u64>, tail: bool) -> Option<Box<SpanContext>> {
        Some(Box::new(SpanContext {
            span: 7,
            parent,
            flags,
            tail,
            scheme: "http",
        }))
    }

    fn record(span: Option<Box<SpanContext>>) -> RequestRecord {
        let mut record = RequestRecord::begin(Moment::ZERO, Duration::from_secs(9), "id", Method::GET, "/");
        record.status = 200;
        record.span = span;
        record
    }

    #[test]
    fn the_sampled_and_the_telling_are_chosen() {
        let check = |expected: bool, span: Option<Box<SpanContext>>, change: fn(&mut RequestRecord)| {
            let traces = Traces::new(Arc::default());
            let mut record = record(span);
            change(&mut record);
            traces.note(&record);
            assert_eq!(traces.take(9).len(), usize::from(expected), "{record:?}");
        };
        let nothing = |_: &mut RequestRecord| {};
        check(false, None, |record| record.status = 500);
        check(true, context(1, None, false), nothing);
        check(true, context(1, Some(3), false), nothing);
        check(false, context(0, None, true), nothing);
        check(false, context(0, None, false), |record| record.status = 500);
        check(true, context(0, None, true), |record| record.status = 500);
        check(true, context(0, Some(3), true), |record| record.aborted = true);
        check(true, context(0, None, true), |record| record.complete = Some(false));
        check(true, context(0, None, true), |record| {
            record.refused(Reason::NotAllowed)
        });
        check(true, context(0, None, true), |record| {
            record.refused(Reason::BreakerOpen)
        });
        check(false, context(0, None, true), |record| {
            record.refused(Reason::RateLimited)
        });
        check(false, context(0, None, true), |record| {
            record.refused(Reason::QuotaExhausted)
        });
        check(false, context(0, None, true), |record| {
            record.refused(Reason::CallerGone)
        });
    }

    #[test]
    fn slow_is_what_99_of_100_are_not() {
        let route = Registry::default().route("users");
        let mut slow = record(context(0, None, true));
        (slow.route, slow.used) = (Some(Arc::clone(&route)), Duration::from_secs(20));
        let traces = Traces::new(Arc::default());
        traces.note(&slow);
        assert!(traces.take(9).is_empty(), "nothing is known yet");
        for number in 0..1000 {
            route
                .duration
                .observe(Duration::from_millis(if number < 995 { 20 } else { 900 }));
        }
        route.slow.learn(&route.duration);
        traces.note(&slow);
        slow.used = Duration::from_millis(20);
        traces.note(&slow);
        assert_eq!(traces.take(9).len(), 1);
        // From now on the route is slower.
        for _ in 0..1000 {
            route.duration.observe(Duration::from_secs(25));
        }
        route.slow.learn(&route.duration);
        slow.used = Duration::from_secs(20);
        traces.note(&slow);
        assert!(traces.take(9).is_empty());
    }

    #[test]
    fn the_queue_and_what_callers_cause_are_bounded() {
        let traces = Traces::new(Arc::default());
        let count = |outcome: TraceOutcome| traces.registry.process.count(Family::Traces, outcome);
        for _ in 0..MOST_CHOSEN + 5 {
            traces.note(&record(context(1, Some(3), true)));
            let mut failed = record(context(0, None, true));
            failed.refused(Reason::NoRoute);
            traces.note(&failed);
        }
        assert_eq!(count(TraceOutcome::TooMany), 10);
        assert_eq!(traces.take(CAPACITY).len() as u64, 2 * MOST_CHOSEN);
        for _ in 0..CAPACITY + 3 {
            traces.note(&record(context(1, None, true)));
        }
        assert_eq!(count(TraceOutcome::QueueFull), 3);
        assert_eq!(traces.take(10).len(), 10);
    }

    #[test]
    fn a_share_is_of_all_numbers() {
        let hits = |share: f64| {
            (0..1000_u64)
                .filter(|n| Share::new(share).has(n * (u64::MAX / 1000)))
                .count()
        };
        assert_eq!([hits(0.0), hits(1.0)], [0, 1000]);
        assert!((245..=255).contains(&hits(0.25)), "{}", hits(0.25));
        assert!(!Share::new(0.0).has(0) && Share::new(1.0).has(u64::MAX));
    }
}
