//! Keeps the counters of all named things, and makes the metrics page of one gateway.
//!
//! Invariant: a name has one set of counters. A plan gets its handles by name, so counts continue across reloads. Names
//! that no plan uses any more stay for a while, so a route that returns counts on; their number is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;

use super::counters::{BackendMetrics, Counters, LimitMetrics, RouteMetrics, Store};
use super::families::{Family, Scope};
use super::page::{Format, Page};
use super::process;
use super::tenants::Tenants;
use super::unknown_tiers::UnknownTiers;
use crate::clock;

/// Maximum number of names of one kind that are kept although nobody uses them.
const MOST_UNUSED: usize = 1000;

/// Callback that adds current values to the page at each scrape.
pub type Sampler = Box<dyn Fn(&mut Page) + Send + Sync>;

/// All metrics of a gateway.
pub struct Registry {
    store: Arc<Store>,
    routes: Named<RouteMetrics>,
    unrouted: Arc<RouteMetrics>,
    backends: Named<BackendMetrics>,
    limits: Named<LimitMetrics>,
    /// Counters of families without a name from the config.
    pub process: Counters,
    handshake_time: AtomicU64,
    /// Tenants are not on the page, because their names come from requests.
    pub tenants: Tenants,
    pub unknown_tiers: UnknownTiers,
    config_in_use_is_newest: AtomicBool,
    config_loaded_at: AtomicU64,
    config_generation: AtomicU64,
    samplers: Mutex<BTreeMap<&'static str, Sampler>>,
    started_at: Duration,
    started: Moment,
}

impl Default for Registry {
    fn default() -> Self {
        let store = Arc::default();
        Self {
            routes: Named::default(),
            unrouted: Arc::new(RouteMetrics::unrouted(&store)),
            backends: Named::default(),
            limits: Named::default(),
            process: Counters::lone(Scope::Process, &store),
            store,
            handshake_time: AtomicU64::new(0),
            tenants: Tenants::default(),
            unknown_tiers: UnknownTiers::default(),
            config_in_use_is_newest: AtomicBool::new(false),
            config_loaded_at: AtomicU64::new(0),
            config_generation: AtomicU64::new(0),
            samplers: Mutex::default(),
            started_at: clock::unix_time(),
            started: clock::now(),
        }
    }
}

impl Registry {
    /// Returns the counters of a route. [`Counters`] says when they appear on the page.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes
            .find_or_add(name, |name| RouteMetrics::new(name, &self.store))
    }

    /// Returns the counters of requests that matched no route.
    pub fn unrouted(&self) -> Arc<RouteMetrics> {
        Arc::clone(&self.unrouted)
    }

    pub fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        self.backends
            .find_or_add(name, |name| BackendMetrics::new(name, &self.store))
    }

    pub fn limit(&self, name: &str) -> Arc<LimitMetrics> {
        self.limits
            .find_or_add(name, |name| LimitMetrics::new(name, &self.store))
    }

    /// Notes that a config was put in force, at the start or by a reload.
    pub fn config_loaded(&self, generation: u64) {
        self.config_generation.store(generation, Relaxed);
        self.config_loaded_at.store(clock::unix_seconds(), Relaxed);
        self.config_in_use_is_newest.store(true, Relaxed);
    }

    /// Notes that a config was rejected; the old one stays in force.
    pub fn config_refused(&self) {
        self.config_in_use_is_newest.store(false, Relaxed);
    }

    /// Calls `sampler` at each scrape, in place of an earlier one with this name.
    ///
    /// A sampler must not register another one and must not wait for a worker.
    pub fn on_scrape(&self, name: &'static str, sampler: Sampler) {
        unpoisoned(&self.samplers).insert(name, sampler);
    }

    /// Returns the start of the process, as time since 1970-01-01T00:00:00Z.
    pub const fn started_at(&self) -> Duration {
        self.started_at
    }

    /// Returns how long the process has run, by the monotonic clock.
    pub fn uptime(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// Adds the time that a worker spent on a step of a TLS handshake.
    pub fn note_handshake_time(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.handshake_time.fetch_add(nanos, Relaxed);
    }

    /// Returns the page for `/metrics` in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.render_as(Format::Prometheus)
    }

    /// Returns the page for `/metrics`, to be served as the content type of the format.
    pub fn render_as(&self, format: Format) -> String {
        let mut page = Page::new(format);
        for (key, count) in self.store.all() {
            page.put_counter(&key, count);
        }
        let mut put_route = |route: &RouteMetrics| {
            let (duration, exemplars) = (&route.duration, &route.exemplars);
            page.put_with_exemplars(Family::RequestDuration, &route.name, duration, exemplars);
        };
        put_route(&self.unrouted);
        self.routes.each(put_route);
        self.backends
            .each(|backend| page.put_histogram(Family::BackendDuration, &backend.name, &backend.duration));
        self.backends
            .each(|backend| page.put_histogram(Family::BackendAnswerDuration, &backend.name, &backend.whole));
        page.put(Family::UnknownTiers, &[], self.unknown_tiers.requests());
        let time = Duration::from_nanos(self.handshake_time.load(Relaxed));
        page.put(Family::TlsHandshakeTime, &[], time.as_secs_f64());
        let newest = u8::from(self.config_in_use_is_newest.load(Relaxed));
        page.put(Family::ConfigLastReloadSuccessful, &[], newest);
        page.put(
            Family::ConfigLastReloadSuccessTimestamp,
            &[],
            self.config_loaded_at.load(Relaxed),
        );
        page.put(Family::ConfigGeneration, &[], self.config_generation.load(Relaxed));
        page.put(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
        page.put(Family::ProcessStartTime, &[], self.started_at.as_secs_f64());
        process::sample(&mut page);
        for sampler in unpoisoned(&self.samplers).values() {
            sampler(&mut page);
        }
        page.into_text()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// One `T` per name, added at first use. Those that nobody else holds are dropped when they become too many, the one
/// asked for longest ago first.
struct Named<T>(Mutex<Names<T>>);

struct Names<T> {
    all: BTreeMap<Arc<str>, Entry<T>>,
    /// Number of names at which unused ones are looked for.
    full: usize,
    asked: u64,
}

struct Entry<T> {
    value: Arc<T>,
    /// Value of [`Names::asked`] when it was asked for last.
    asked: u64,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::new(Names {
            all: BTreeMap::new(),
            full: MOST_UNUSED,
            asked: 0,
        }))
    }
}

impl<T> Named<T> {
    fn find_or_add(&self, name: &str, add: impl FnOnce(Arc<str>) -> T) -> Arc<T> {
        let mut names = unpoisoned(&self.0);
        names.asked += 1;
        let asked = names.asked;
        if let Some(found) = names.all.get_mut(name) {
            found.asked = asked;
            return Arc::clone(&found.value);
        }
        if names.all.len() >= names.full {
            names.drop_unused();
        }
        let name: Arc<str> = name.into();
        let value = Arc::new(add(Arc::clone(&name)));
        let added = Entry {
            value: Arc::clone(&value),
            asked,
        };
        names.all.insert(name, added);
        value
    }

    fn each(&self, mut visit: impl FnMut(&T)) {
        unpoisoned(&self.0).all.values().for_each(|entry| visit(&entry.value));
    }
}

impl<T> Names<T> {
    /// Drops unused names beyond half of their maximum. It runs once per so many new names, so its cost is spread.
    fn drop_unused(&mut self) {
        let unused = self
            .all
            .iter()
            .filter(|(_, entry)| Arc::strong_count(&entry.value) == 1);
        let mut unused: Vec<_> = unused.map(|(name, entry)| (entry.asked, Arc::clone(name))).collect();
        unused.sort_unstable();
        let extra = unused.len().saturating_sub(MOST_UNUSED / 2);
        for (_, name) in &unused[..extra] {
            self.all.remove(name);
        }
        self.full = self.all.len() + MOST_UNUSED / 2;
    }
}

/// Ignores poisoning: every change to the map is one insertion, so no change can be half done.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::observe::families::{Kind, families};
    use crate::observe::labels::{BreakerState, Class, Decision, Outcome};
    use crate::observe::record::RequestRecord;
    use crate::rejection::Reason;

    #[test]
    fn a_route_that_nobody_asks_has_a_few_series() {
        let registry = Registry::default();
        let series = |registry: &Registry, name: &str| {
            let label = format!("route=\"{name}\"");
            let page = parse(&registry.render());
            page.samples.keys().filter(|series| series.contains(&label)).count()
        };
        let users = registry.route("users");
        assert_eq!(series(&registry, "users"), 2);
        let page = parse(&registry.render());
        for reason in Reason::ALL {
            let series = format!("gateway_rejections_total{{route=\"\",reason=\"{}\"}}", reason.as_str());
            assert_eq!(page.samples.get(&series), Some(&0.0), "{series}");
        }
        let mut record = RequestRecord::default();
        record.refused(Reason::BreakerOpen);
        users.count_request(&record, Duration::from_millis(3));
        // One status class, one reason, and the histogram with 17 buckets, sum and count.
        assert_eq!(series(&registry, "users"), 2 + 2 + 19);
    }

    #[test]
    fn a_name_keeps_its_counters() {
        let registry = Registry::default();
        registry.backend("users").add(Family::Retries, ());
        let after_reload = registry.backend("users");
        after_reload.add(Family::Retries, ());
        assert_eq!(
            parse(&registry.render()).samples["gateway_retries_total{backend=\"users\"}"],
            2.0
        );
        assert!(Arc::ptr_eq(&after_reload, &registry.backend("users")));
    }

    #[test]
    fn names_that_no_plan_uses_stay_and_are_bounded() {
        let registry = Registry::default();
        let counted = |route: &RouteMetrics| {
            let record = RequestRecord::default();
            route.count_request(&record, Duration::ZERO);
        };
        let [used, first] = ["used", "first"].map(|name| registry.route(name));
        counted(&used);
        counted(&first);
        drop(first);
        counted(&registry.route("first"));
        let count = |route: &RouteMetrics| route.count(Family::Requests, Class::Informational);
        assert_eq!(
            count(&registry.route("first")),
            2,
            "a route that returns soon counts on"
        );
        let mut most = 0;
        for generation in 0..10 {
            for number in 0..MOST_UNUSED / 4 {
                counted(&registry.route(&format!("{generation}/{number}")));
            }
            let page = parse(&registry.render());
            let series = page.samples.keys();
            let requests = series.filter(|series| series.starts_with("gateway_requests_total{route=\""));
            let of_names = requests.filter(|series| !series.contains("route=\"\"")).count();
            most = most.max(of_names);
            assert_eq!(page.samples["gateway_requests_total{route=\"used\",code=\"1xx\"}"], 1.0);
            let latest = format!("gateway_requests_total{{route=\"{generation}/0\",code=\"1xx\"}}");
            assert_eq!(page.samples[&latest], 1.0);
        }
        assert!(most > MOST_UNUSED / 2 && most <= MOST_UNUSED, "{most}");
        assert_eq!(count(&registry.route("first")), 0, "it has been forgotten");
    }

    #[test]
    fn a_route_that_is_forgotten_while_a_request_runs_still_counts() {
        let registry = Registry::default();
        let running = registry.route("users");
        (0..3 * MOST_UNUSED).for_each(|number| drop(registry.route(&number.to_string())));
        let after_reload = registry.route("users");
        running.count_request(&RequestRecord::default(), Duration::ZERO);
        assert_eq!(after_reload.count(Family::Requests, Class::Informational), 1);
        assert!(Arc::ptr_eq(&running, &after_reload), "what is used is not forgotten");
    }

    #[test]
    fn what_a_sampler_no_longer_adds_is_gone() {
        let registry = Registry::default();
        for (name, gone) in [("users", "orders"), ("orders", "users")] {
            registry.on_scrape(
                "plan",
                Box::new(move |page| {
                    page.put(Family::BulkheadLimit, &[name], 1);
                    page.put(Family::LimitOverflow, &[name], 1);
                }),
            );
            let page = registry.render();
            for (label, there) in [(name, true), (gone, false)] {
                assert_eq!(
                    page.contains(&format!("gateway_bulkhead_limit{{backend=\"{label}\"}}")),
                    there
                );
                assert_eq!(
                    page.contains(&format!("gateway_limit_overflow_total{{limit=\"{label}\"}}")),
                    there
                );
            }
        }
    }

    #[test]
    fn two_gateways_of_one_process_count_apart() {
        let [one, other] = [0, 1].map(|_| Registry::default());
        one.route("users")
            .count_request(&RequestRecord::default(), Duration::ZERO);
        assert!(one.render().contains("gateway_requests_total{route=\"users\""));
        assert!(!other.render().contains("route=\"users\""));
    }

    #[test]
    fn a_refused_config_shows_and_leaves_the_generation() {
        let registry = Registry::default();
        registry.config_loaded(3);
        registry.config_refused();
        let page = parse(&registry.render());
        assert_eq!(page.samples["gateway_config_last_reload_successful"], 0.0);
        assert_eq!(page.samples["gateway_config_generation"], 3.0);
        assert!(page.samples["gateway_config_last_reload_success_timestamp_seconds"] > 0.0);
    }

    #[test]
    fn a_sampler_replaces_the_earlier_one_of_its_name() {
        let registry = Registry::default();
        for slots in [20, 30] {
            registry.on_scrape(
                "plan",
                Box::new(move |page| page.put(Family::BulkheadLimit, &["users"], slots)),
            );
        }
        assert_eq!(
            parse(&registry.render()).samples["gateway_bulkhead_limit{backend=\"users\"}"],
            30.0
        );
    }

    #[test]
    fn a_full_page_conforms_to_the_format() {
        let registry = Arc::new(Registry::default());
        let mut record = RequestRecord::default();
        record.refused(Reason::BreakerOpen);
        registry.route("users").count_request(&record, Duration::from_millis(3));
        record.complete = Some(false);
        registry
            .route("a \"strange\"\\name\n")
            .count_request(&record, Duration::from_secs(100));
        registry.process.count_caller(&record);
        let backend = registry.backend("users");
        backend.called(Outcome::TimedOut, Duration::from_secs(2));
        backend.add(Family::BackendAttempts, Outcome::Broken);
        backend.add(Family::BackendRejections, Reason::Internal);
        backend.add(Family::BreakerTransitions, BreakerState::Open);
        let limit = registry.limit("free");
        limit.add(Family::LimitDecisions, Decision::Shadow);
        registry.on_scrape(
            "state",
            Box::new(|page| {
                page.put(Family::BulkheadInUse, &["users"], 1);
                page.put(Family::BulkheadWaiting, &["users"], 0);
                page.put(Family::BulkheadLimit, &["users"], 20);
                page.put(Family::BulkheadOutcomes, &["users", "left"], 1);
                page.put(Family::BreakerState, &["users"], 2);
                page.put(Family::EndpointsEjected, &["users"], 1);
                page.put(Family::RetryBudgetBalance, &["users"], 20);
                page.put(Family::BackendConnections, &["users", "idle"], 2);
                page.put(Family::BackendExchanges, &["users"], 1);
                page.put(Family::BackendHandshakes, &["users", "untrusted"], 1);
                page.put(Family::BackendCertificateExpiry, &["users"], 1);
                page.put(Family::LimitOwners, &["free"], 7);
                page.put(Family::LimitOverflow, &["free"], 0);
                page.put(Family::Verifications, &["failed"], 3);
                page.put(Family::VerificationSeconds, &[], 0.0002);
                page.put(Family::JwksFetches, &["main", "timed_out"], 1);
                page.put(Family::JwksKeys, &["main"], 2);
                page.put(Family::JwksAge, &["main"], 12.5);
                page.put(Family::JwksStale, &["main"], 1);
                page.put(Family::JsonReserved, &[], 1);
                page.put(Family::JsonRefused, &[], 1);
                page.put(Family::ParkedBytes, &[], 1);
                page.put(Family::ParkedCounted, &[], 1);
                page.put(Family::ParkedRefused, &[], 1);
                page.put(Family::ParkedPauses, &[], 1);
                page.put(Family::RequestsInFlight, &[], 1);
                page.put(Family::Connections, &[], 1);
                page.put(Family::ConnectionsAccepted, &[], 3);
                page.put(Family::MalformedConnections, &[], 0);
                page.put(Family::Tunnels, &[], 0);
                page.put(Family::CertificateExpiry, &["secure", "1"], 1);
                page.put(Family::Revocations, &["key"], 0);
                page.put(Family::RevocationsUnwritten, &[], 2);
                page.put(Family::ClockJumps, &[], 1);
                page.put(Family::ClockAhead, &[], -2.5);
                page.put(Family::AccessLogDropped, &[], 0);
                page.put(Family::LogLinesLeftOut, &[], 0);
            }),
        );
        let page = parse(&registry.render());
        assert_eq!(
            page.samples["gateway_backend_rejections_total{backend=\"users\",reason=\"internal\"}"],
            1.0
        );
        assert_eq!(page.samples["gateway_partial_responses_total{route=\"users\"}"], 0.0);
        let written: Vec<_> = page.families.iter().map(String::as_str).collect();
        let expected: Vec<_> = families()
            .map(|facts| facts.name)
            .filter(|name| cfg!(target_os = "linux") || !name.starts_with("process_"))
            .collect();
        assert_eq!(written, expected, "every family is written, once, in order");
    }

    struct Parsed {
        families: Vec<String>,
        samples: HashMap<String, f64>,
    }

    /// Parses the exposition format strictly, with the rules of `promtool check metrics`.
    fn parse(text: &str) -> Parsed {
        assert!(
            text.ends_with('\n') && !text.contains("\n\n"),
            "one line feed ends every line"
        );
        let kinds: HashMap<_, _> = families().map(|facts| (facts.name, facts)).collect();
        let mut parsed = Parsed {
            families: Vec::new(),
            samples: HashMap::new(),
        };
        let (mut buckets, mut lines) = (HashMap::<String, Vec<(f64, f64)>>::new(), text.lines().peekable());
        while let Some(line) = lines.next() {
            let (name, help) = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .expect(line);
            let facts = kinds.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
            assert!(!help.is_empty(), "{line}");
            assert_eq!(
                lines.next(),
                Some(format!("# TYPE {name} {}", facts.kind.as_str()).as_str())
            );
            assert!(
                !parsed.families.iter().any(|earlier| earlier == name),
                "{name} is in two places"
            );
            parsed.families.push(name.to_owned());
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let (series, value) = sample.rsplit_once(' ').expect(sample);
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {sample}"));
                let (sampled, labels) = series.split_once('{').unwrap_or((series, ""));
                let mut labels = read_labels(labels);
                match sampled.strip_prefix(name).expect(sample) {
                    "" => assert_ne!(facts.kind, Kind::Histogram, "{sample}"),
                    "_bucket" => {
                        let (key, bound) = labels.pop().expect(sample);
                        assert_eq!(key, "le", "{sample}");
                        buckets
                            .entry(format!("{name}{labels:?}"))
                            .or_default()
                            .push((bound.parse().unwrap(), value));
                    }
                    "_count" => {
                        let points = &buckets[&format!("{name}{labels:?}")];
                        assert!(
                            points
                                .windows(2)
                                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1)
                        );
                        assert_eq!(points.last(), Some(&(f64::INFINITY, value)), "{sample}");
                    }
                    "_sum" => {}
                    suffix => panic!("a sample of another family: {suffix} in {sample}"),
                }
                let names: Vec<_> = labels.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(
                    names,
                    facts.labels.iter().map(|label| label.name).collect::<Vec<_>>(),
                    "{sample}"
                );
                assert!(facts.kind == Kind::Gauge || value >= 0.0, "{sample}");
                assert!(
                    parsed.samples.insert(series.to_owned(), value).is_none(),
                    "twice: {series}"
                );
            }
        }
        parsed
    }

    /// Parses `name="value",...}` and removes the escapes.
    fn read_labels(text: &str) -> Vec<(String, String)> {
        let (mut labels, mut rest) = (Vec::new(), text);
        while let Some((name, after)) = rest.split_once("=\"") {
            let (mut value, mut characters) = (String::new(), after.chars());
            loop {
                match characters.next().expect("the value is closed") {
                    '"' => break,
                    '\\' => value.push(match characters.next() {
                        Some('n') => '\n',
                        Some(other @ ('"' | '\\')) => other,
                        other => panic!("not an escape: {other:?}"),
                    }),
                    other => value.push(other),
                }
            }
            labels.push((name.to_owned(), value));
            rest = characters.as_str();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        assert!(rest.is_empty() || rest == "}", "{text}");
        labels
    }
}
