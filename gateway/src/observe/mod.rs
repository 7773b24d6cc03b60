//! Reports the result of each request once: to the counters, the access log and the list of recent rejections.
//!
//! A [`RequestGuard`] follows a request from its head to its last byte. Stages note facts in it, and the end of the
//! response body ends it.
//!
//! Invariant: every request that begins is finished exactly once, also when its caller leaves or its handler panics.

pub mod access_log;
mod attempt_line;
pub mod attempts;
pub mod counters;
pub mod decided;
mod exemplars;
pub mod families;
mod finished;
pub mod histogram;
pub mod labels;
mod line;
mod lines;
pub mod log;
pub mod log_sampler;
pub mod metrics;
pub mod page;
mod process;
pub mod record;
pub mod refusal_groups;
pub mod rejections;
pub mod tenants;
pub mod timestamp;
pub mod traces;
pub mod unknown_tiers;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::clock;
use crate::rejection::Reason;
use crate::usage::Usage;

pub use access_log::{AccessLog, Target};
pub use attempts::{Attempt, Attempts, HEDGE_LOST, LOST_TO_HEDGE};
pub use counters::{BackendMetrics, Counters, LimitMetrics, RouteMetrics};
pub use decided::{Decided, SettingPlace};
pub use exemplars::{Exemplar, Exemplars};
pub use families::{Family, families};
pub use labels::{
    Admission, AttemptOutcome, Awaited, BackendHandshake, BreakerState, CacheResult, CallerKind, ConnectionRefusal,
    ConnectionState, CostSource, CounterVec, Decision, ExternalLookup, ExternalOutcome, FallbackKind, FetchOutcome,
    FrameKind, Handshake, HandshakeDelay, HedgeEvent, IdempotencyResult, LookupOutcome, MirrorComparison,
    MirrorOutcome, Outcome, ProbeOutcome, RetryStop, StoreOutcome, TraceOutcome, UnitEvent, Verification,
};
pub use metrics::Registry;
pub use page::{Format, Page};
pub use record::RequestRecord;
pub use refusal_groups::RefusalGroups;
pub use rejections::Rejections;
pub use tenants::TenantMetrics;
pub use traces::Traces;
pub use unknown_tiers::UnknownTier;

/// Function that sees each finished request.
struct Watcher(Box<dyn Fn(&RequestRecord) + Send + Sync>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher(..)")
    }
}

/// Everything that observes requests. One per process, shared by its workers.
#[derive(Debug)]
pub struct Observer {
    pub registry: Arc<Registry>,
    pub access_log: Arc<AccessLog>,
    pub rejections: Rejections,
    pub refusal_groups: RefusalGroups,
    pub traces: Arc<Traces>,
    pub usage: Arc<Usage>,
    unrouted: Arc<RouteMetrics>,
    /// Sees each finished request; only on virtual time.
    watcher: OnceLock<Watcher>,
    /// Set when the drain is over. Requests that still run are then ended by the gateway.
    cutting: AtomicBool,
}

impl Observer {
    /// # Errors
    /// Returns an error if the access log cannot be opened or its thread cannot be started.
    pub fn start(access_log: &Target) -> io::Result<Arc<Self>> {
        let registry = Arc::new(Registry::default());
        let access_log = Arc::new(AccessLog::start(access_log)?);
        let log = Arc::clone(&access_log);
        let dropped = move |page: &mut Page| page.put(Family::AccessLogDropped, &[], log.dropped());
        registry.on_scrape("access_log", Box::new(dropped));
        let traces = Arc::new(Traces::new(Arc::clone(&registry)));
        let usage = Arc::new(Usage::default());
        let sampled = Arc::clone(&usage);
        registry.on_scrape("usage", Box::new(move |page| finished::put_usage(&sampled, page)));
        let unrouted = registry.unrouted();
        Ok(Arc::new(Self {
            registry,
            access_log,
            rejections: Rejections::default(),
            refusal_groups: RefusalGroups::default(),
            traces,
            usage,
            unrouted,
            watcher: OnceLock::new(),
            cutting: AtomicBool::new(false),
        }))
    }

    /// Has `watch` called with each finished request from now on. Only the first call has an effect.
    pub fn watch(&self, watch: impl Fn(&RequestRecord) + Send + Sync + 'static) {
        let _ = self.watcher.set(Watcher(Box::new(watch)));
    }

    /// Begins to follow a request. The guard is boxed, because it is moved often until its request ends.
    pub fn begin(self: &Arc<Self>, record: RequestRecord) -> Box<RequestGuard> {
        Box::new(RequestGuard {
            observer: Arc::clone(self),
            record,
            ended: false,
        })
    }

    /// Marks the end of the drain: a request that is dropped from now on was ended by the gateway and not by its
    /// caller.
    pub fn cuts(&self) {
        self.cutting.store(true, Relaxed);
    }

    /// Finishes a request: its last byte has been sent, or never will be.
    pub fn finish(&self, record: &mut RequestRecord) {
        record.end(clock::now());
        let route = record.route.as_ref().unwrap_or(&self.unrouted);
        route.count_request(record, record.used);
        self.registry.process.count_caller(record);
        self.registry.process.count_compression(record);
        self.usage.count(|| record.used());
        if let Some(tenant) = &record.tenant {
            tenant.count(record);
        }
        if let Some(tier) = &record.unknown_tier {
            self.registry.unknown_tiers.count(tier);
        }
        self.rejections.note(record);
        self.refusal_groups.note(record);
        if let Some(trace) = self.traces.note(record) {
            let (took, at) = (record.used, clock::unix_time());
            route.exemplars.put(&Exemplar { trace, took, at });
        }
        if let Some(Watcher(watch)) = self.watcher.get() {
            watch(record);
        }
        self.access_log.write(record);
    }
}

/// A request in progress. A drop finishes it, as aborted unless [`RequestGuard::end`] was called.
#[derive(Debug)]
#[must_use = "the request is finished when this is dropped"]
pub struct RequestGuard {
    observer: Arc<Observer>,
    record: RequestRecord,
    ended: bool,
}

impl RequestGuard {
    /// Notes that the whole response has been handed to the connection.
    pub fn end(mut self: Box<Self>) {
        self.ended = true;
    }
}

impl Deref for RequestGuard {
    type Target = RequestRecord;
    fn deref(&self) -> &RequestRecord {
        &self.record
    }
}

impl DerefMut for RequestGuard {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        &mut self.record
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let record = &mut self.record;
        if thread::panicking() {
            record.note_fault("panic");
        }
        let is_cut = !self.ended && self.observer.cutting.load(Relaxed);
        if is_cut {
            record.note_fault("cut at the end of the drain");
        }
        match (record.status, self.ended) {
            (0, _) if thread::panicking() => record.refused(Reason::Internal),
            (0, _) if is_cut => record.refused(Reason::Draining),
            (0, _) => record.refused(Reason::CallerGone),
            (_, ended) => record.aborted |= !ended,
        }
        self.observer.finish(record);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use http::Method;
    use policies::Moment;

    use super::*;
    use crate::observe::labels::CallerKind;

    /// Returns the lines of the metrics page with a value above zero, except those that count time.
    fn counted(observer: &Observer) -> Vec<String> {
        let page = observer.registry.render();
        page.lines()
            .filter(|line| line.starts_with("gateway_") && line.contains("_total") && !line.ends_with(" 0"))
            .map(str::to_owned)
            .collect()
    }

    fn begin(observer: &Arc<Observer>) -> Box<RequestGuard> {
        let record = RequestRecord::begin(clock::now(), Duration::from_secs(1), "id", Method::GET, "/users/1");
        let mut request = observer.begin(record);
        request.route = Some(observer.registry.route("users"));
        request
    }

    fn check(expected: &[&str], request: impl FnOnce(Box<RequestGuard>)) {
        let observer = Observer::start(&Target::Off).unwrap();
        request(begin(&observer));
        assert_eq!(counted(&observer), expected);
    }

    #[test]
    fn a_served_request_is_counted_once() {
        let expected = [
            "gateway_requests_total{route=\"users\",code=\"2xx\"} 1",
            "gateway_callers_total{kind=\"jwt\",outcome=\"admitted\"} 1",
        ];
        check(&expected, |mut request| {
            request.caller_kind = CallerKind::Jwt;
            request.status = 200;
            request.end();
        });
    }

    #[test]
    fn a_refusal_is_counted_by_reason() {
        let expected = [
            "gateway_requests_total{route=\"users\",code=\"4xx\"} 1",
            "gateway_rejections_total{route=\"users\",reason=\"credentials_expired\"} 1",
            "gateway_callers_total{kind=\"jwt\",outcome=\"expired\"} 1",
        ];
        check(&expected, |mut request| {
            request.caller_kind = CallerKind::Jwt;
            request.refused(Reason::CredentialsExpired);
            request.end();
        });
    }

    #[test]
    fn a_request_without_an_answer_means_that_its_caller_left() {
        let expected = [
            "gateway_requests_total{route=\"users\",code=\"4xx\"} 1",
            "gateway_rejections_total{route=\"users\",reason=\"caller_gone\"} 1",
        ];
        check(&expected, drop);
    }

    #[test]
    fn an_answer_that_does_not_end_was_aborted() {
        let expected = [
            "gateway_requests_total{route=\"users\",code=\"2xx\"} 1",
            "gateway_aborted_responses_total{route=\"users\"} 1",
        ];
        check(&expected, |mut request| request.status = 200);
    }

    #[test]
    fn a_panic_is_our_fault_and_is_counted() {
        let expected = [
            "gateway_requests_total{route=\"users\",code=\"5xx\"} 1",
            "gateway_rejections_total{route=\"users\",reason=\"internal\"} 1",
        ];
        check(&expected, |request| {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _request = request;
                panic!("a bug, on purpose");
            }));
            assert!(panicked.is_err());
        });
    }

    #[test]
    fn a_request_that_matched_no_route_counts_under_the_empty_one() {
        let expected = [
            "gateway_requests_total{route=\"\",code=\"4xx\"} 1",
            "gateway_rejections_total{route=\"\",reason=\"no_route\"} 1",
        ];
        check(&expected, |mut request| {
            request.route = None;
            request.refused(Reason::NoRoute);
            request.end();
        });
    }

    #[test]
    fn the_time_used_is_known_to_the_log_and_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let observer = Observer::start(&Target::File(path.clone())).unwrap();
        let mut request = begin(&observer);
        request.started = Moment::ZERO;
        request.refused(Reason::Overloaded);
        request.end();
        assert!(observer.access_log.close(Duration::from_secs(10)));
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        // The clock starts one hour after `Moment::ZERO`, so this request has used at least an hour.
        assert!(line["used_ms"].as_f64().unwrap() >= 3_600_000.0, "{line}");
        assert_eq!(line["reason"], "overloaded");
        assert_eq!(observer.rejections.newest(1)[0].request_id.as_str(), "id");
    }
}
