//! Counters that requests increment, as handles of the `metrics` facade. A stage holds the [`Counters`] of its route,
//! backend or limit, so a count is one call of a handle and one atomic addition, without a lookup or an allocation.
//!
//! The storage is `metrics-util`'s registry and not the Prometheus exporter's recorder. The exporter's counters cannot be
//! read, but the admin API shows the same counts; each addition is two there; and a series can leave it only by a time
//! limit. Here a series leaves the storage when nobody holds its handle.
//!
//! Invariant: counters only rise. Values that mirror a state (slots in use, breaker state, open connections) are read
//! from their owner at each scrape and are not stored here.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Key, Label as KeyLabel};
use metrics_util::registry::{AtomicStorage, Registry};

use super::exemplars::Exemplars;
use super::families::{Family, Scope};
use super::histogram::Histogram;
use super::labels::{Label, Outcome, Values};
use super::traces::Slow;

/// Storage of all series of a gateway that are counted.
pub(super) struct Store(Registry<Key, AtomicStorage>);

/// Counters of one thing: of the process, a route, a backend or a limit. They are all those families whose scope it is.
#[derive(Debug)]
pub struct Counters {
    /// Name of the thing; empty for the process, and for requests without a route.
    pub name: Arc<str>,
    scope: Scope,
    store: Arc<Store>,
    /// One place per counter, empty until the first count: a thing has many counters and most of them stay at zero.
    series: Box<[OnceLock<Box<Series>>]>,
}

/// A registered counter.
#[derive(Debug)]
struct Series {
    counter: Counter,
    /// What `counter` adds to. A counter of the facade cannot be read.
    count: Arc<AtomicU64>,
}

impl Counters {
    /// Creates the counters of a thing that config names. Its series appear on the page when they are counted.
    pub(super) fn named(scope: Scope, name: Arc<str>, store: &Arc<Store>) -> Self {
        Self {
            name,
            scope,
            store: Arc::clone(store),
            series: (0..scope.counters()).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Creates the counters of a thing that there is once. Its series are always present.
    pub(super) fn lone(scope: Scope, store: &Arc<Store>) -> Self {
        let counters = Self::named(scope, Arc::from(""), store);
        for family in Family::ALL {
            counters.present(family);
        }
        counters
    }

    /// Makes all series of a family present, at zero.
    fn present(&self, family: Family) {
        let facts = family.facts();
        if facts.scope() == self.scope {
            (0..facts.counters()).for_each(|position| _ = self.series(family, position));
        }
    }

    /// Adds one to a counter. `values` are those of the family's labels that have a closed set of words; `()` for none.
    #[inline]
    pub fn add<V: Values>(&self, family: Family, values: V) {
        self.add_all(family, values, 1);
    }

    /// Adds a number to a counter, as [`Counters::add`] does.
    #[inline]
    pub fn add_all<V: Values>(&self, family: Family, values: V, count: u64) {
        self.check::<V>(family);
        self.series(family, values.position()).counter.increment(count);
    }

    /// Returns the value of a counter.
    pub fn count<V: Values>(&self, family: Family, values: V) -> u64 {
        self.check::<V>(family);
        let series = self.series[family.place() + values.position()].get();
        series.map_or(0, |series| series.count.load(Relaxed))
    }

    /// Returns the counters of a family that has one label with a closed set of words.
    pub fn by<L: Label>(&self, family: Family) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(move |&label| (label, self.count(family, label)))
    }

    #[inline]
    fn series(&self, family: Family, position: usize) -> &Series {
        self.series[family.place() + position].get_or_init(|| self.register(family, position))
    }

    #[cold]
    fn register(&self, family: Family, mut position: usize) -> Box<Series> {
        let facts = family.facts();
        let mut values = Vec::with_capacity(facts.labels.len());
        for label in facts.closed_labels().iter().rev() {
            let words = label.words.unwrap_or(&[""]);
            values.push(words[position % words.len()]);
            position /= words.len();
        }
        if facts.labels.len() > values.len() {
            values.push(&self.name);
        }
        values.reverse();
        Box::new(self.store.register(&key(family, &values)))
    }

    /// A wrong family or label would count in the place of another one.
    #[inline]
    fn check<V: Values>(&self, family: Family) {
        debug_assert!(
            family.facts().scope() == self.scope && family.facts().counters() > 0,
            "{family:?} does not count here"
        );
        debug_assert!(
            family
                .facts()
                .closed_labels()
                .iter()
                .map(|label| label.words.unwrap_or_default())
                .eq(V::WORDS.iter().copied()),
            "{family:?} has other labels"
        );
    }
}

impl Store {
    fn register(&self, key: &Key) -> Series {
        // A retained key is cheap to copy.
        self.0.get_or_create_counter(&key.to_retained(), |count| Series {
            counter: Counter::from_arc(Arc::clone(count)),
            count: Arc::clone(count),
        })
    }

    /// Returns all series, and forgets those whose handle nobody holds.
    ///
    /// A first count waits for it, so it only copies.
    pub(super) fn all(&self) -> Vec<(Key, u64)> {
        self.0.retain_counters(|_, count| Arc::strong_count(count) > 1);
        let mut all = Vec::new();
        self.0
            .visit_counters(|key, count| all.push((key.clone(), count.load(Relaxed))));
        all
    }
}

impl Default for Store {
    fn default() -> Self {
        Self(Registry::atomic())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Returns the key of a series; `values` are those of the family's labels, in their order.
///
/// The exporter takes two backslashes in a row for one that is escaped already, so each is doubled here.
pub(super) fn key(family: Family, values: &[&str]) -> Key {
    let facts = family.facts();
    debug_assert_eq!(
        facts.labels.len(),
        values.len(),
        "{} has the labels {:?}",
        facts.name,
        facts.labels
    );
    let labels = facts.labels.iter().zip(values);
    let labels = labels.map(|(label, value)| KeyLabel::new(label.name, value.replace('\\', "\\\\")));
    Key::from_parts(facts.name, labels.collect::<Vec<_>>())
}

/// Requests of one route, or without a route if the name is empty.
#[derive(Debug)]
pub struct RouteMetrics {
    counters: Counters,
    /// Time from a request's head to the last byte of its response.
    pub duration: Histogram,
    /// Traced requests among those of `duration`.
    pub exemplars: Exemplars,
    /// How long its slow requests take.
    pub slow: Slow,
}

impl RouteMetrics {
    pub(super) fn new(name: Arc<str>, store: &Arc<Store>) -> Self {
        let counters = Counters::named(Scope::Route, name, store);
        counters.present(Family::AbortedResponses);
        counters.present(Family::PartialResponses);
        Self {
            counters,
            duration: Histogram::default(),
            exemplars: Exemplars::default(),
            slow: Slow::default(),
        }
    }

    /// Estimates anew what is slow.
    pub fn learn_slow(&self) {
        self.slow.learn(&self.duration);
    }

    pub(super) fn unrouted(store: &Arc<Store>) -> Self {
        Self {
            counters: Counters::lone(Scope::Route, store),
            duration: Histogram::default(),
            exemplars: Exemplars::default(),
            slow: Slow::default(),
        }
    }
}

impl Deref for RouteMetrics {
    type Target = Counters;
    fn deref(&self) -> &Counters {
        &self.counters
    }
}

/// Calls to one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    counters: Counters,
    /// Time from the start of a call, including the queue, to the head of its response.
    pub duration: Histogram,
    /// Time from the start of a call, including the queue, to the last byte of its response.
    pub whole: Histogram,
}

impl BackendMetrics {
    pub(super) fn new(name: Arc<str>, store: &Arc<Store>) -> Self {
        let counters = Counters::named(Scope::Backend, name, store);
        counters.present(Family::Retries);
        counters.present(Family::EndpointEjections);
        Self {
            counters,
            duration: Histogram::default(),
            whole: Histogram::default(),
        }
    }

    /// Counts a finished call. `took` is the time from its start, including the queue, to the head of the response or
    /// the end.
    #[inline]
    pub fn called(&self, outcome: Outcome, took: Duration) {
        self.add(Family::BackendCalls, outcome);
        self.duration.observe(took);
    }
}

impl Deref for BackendMetrics {
    type Target = Counters;
    fn deref(&self) -> &Counters {
        &self.counters
    }
}

/// Decisions of one limit.
#[derive(Debug)]
pub struct LimitMetrics(Counters);

impl LimitMetrics {
    pub(super) fn new(name: Arc<str>, store: &Arc<Store>) -> Self {
        Self(Counters::named(Scope::Limit, name, store))
    }
}

impl Deref for LimitMetrics {
    type Target = Counters;
    fn deref(&self) -> &Counters {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::labels::{CallerKind, CallerOutcome, Class, Decision};

    fn series(store: &Store) -> Vec<(String, u64)> {
        let all = store.all().into_iter();
        let mut all: Vec<_> = all.map(|(key, count)| (key.to_string(), count)).collect();
        all.sort();
        all
    }

    #[test]
    fn a_series_is_registered_by_its_first_count() {
        let store = Arc::default();
        let limit = LimitMetrics::new("free".into(), &store);
        assert_eq!(
            (
                series(&store).len(),
                limit.count(Family::LimitDecisions, Decision::Shadow)
            ),
            (0, 0)
        );
        limit.add(Family::LimitDecisions, Decision::Shadow);
        limit.add(Family::LimitDecisions, Decision::Shadow);
        assert_eq!(series(&store).len(), 1);
        let counts: Vec<_> = limit
            .by::<Decision>(Family::LimitDecisions)
            .map(|(_, count)| count)
            .collect();
        assert_eq!(counts, [0, 0, 0, 2]);
    }

    #[test]
    fn every_combination_of_words_is_a_series_with_these_words() {
        let store = Arc::default();
        let process = Counters::lone(Scope::Process, &store);
        for kind in CallerKind::ALL {
            for outcome in CallerOutcome::ALL {
                process.add(Family::Callers, (*kind, *outcome));
                let key = key(Family::Callers, &[kind.as_str(), outcome.as_str()]);
                assert_eq!(process.store.register(&key).count.load(Relaxed), 1, "{key}");
            }
        }
    }

    #[test]
    fn a_name_that_is_used_again_counts_on() {
        let store = Arc::default();
        let [before, after] = [0, 1].map(|_| LimitMetrics::new("free".into(), &store));
        before.add(Family::LimitDecisions, Decision::Refused);
        after.add(Family::LimitDecisions, Decision::Refused);
        assert_eq!(before.count(Family::LimitDecisions, Decision::Refused), 2);
        drop(before);
        assert_eq!(series(&store).len(), 1);
        drop(after);
        assert_eq!(series(&store).len(), 0, "nobody holds it");
    }

    #[test]
    #[should_panic(expected = "has other labels")]
    fn a_label_of_another_family_is_a_bug() {
        RouteMetrics::new("users".into(), &Arc::default()).add(Family::Requests, Decision::Refused);
    }

    #[test]
    #[should_panic(expected = "does not count here")]
    fn a_family_of_another_scope_is_a_bug() {
        RouteMetrics::new("users".into(), &Arc::default()).add(Family::BackendCalls, Class::Successful);
    }
}
