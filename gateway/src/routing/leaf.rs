//! The routes of one pattern on one host, indexed by their conditions.
//!
//! Thousands of routes may share a pattern and differ in one parameter or header field, and a route is chosen before
//! the caller is authenticated. So each route is indexed by one of its conditions, the one that the fewest other routes
//! share. A request then only looks at routes whose indexed condition it meets, so the cost depends on the request and
//! hardly on the number of routes.

use std::collections::HashMap;

use http::HeaderName;
use smallvec::{SmallVec, smallvec};

use super::condition::{Condition, Is, PathParameters};
use crate::message::FieldMap;
use crate::template::captures::Ranges;
use crate::template::{Query, TooManyParameters};

#[derive(Debug, Default)]
pub(super) struct Leaf {
    entries: Vec<Entry>,
    /// Entries that no header field or query parameter leads to.
    plain: Vec<u32>,
    by_query: HashMap<Box<str>, Filed<str>>,
    by_header: HashMap<HeaderName, Filed<[u8]>>,
    /// Number of routes with an expression in a condition. Such routes are compared with each other one by one.
    pub(super) regexes: usize,
    /// Routes by their outline; emptied once the table is built.
    possible_ties: HashMap<Outline, Rivals>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) route: usize,
    /// Names of the pattern's parameters; each route may choose its own. For a prefix, the last one has no range where
    /// nothing follows the prefix.
    pub(super) names: Box<[Box<str>]>,
    /// Index of the condition that the entry is filed under. A lookup through it does not check it again.
    filed_under: Option<usize>,
}

/// Entries by the value that their condition asks for.
#[derive(Debug)]
struct Filed<V: ?Sized> {
    any: Vec<u32>,
    exactly: HashMap<Box<V>, Vec<u32>>,
}

/// The subjects of a route's conditions without their values. Two routes with the same outline exclude each other
/// unless they ask for the same values.
type Outline = Vec<(Subject, bool)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    Header(String),
    Query(String),
    Path(String),
}

#[derive(Debug, Default)]
struct Rivals {
    all: Vec<usize>,
    by_values: HashMap<Vec<String>, Vec<usize>>,
}

impl Leaf {
    /// Returns the routes added so far that may tie with a route of these conditions.
    pub(super) fn possible_ties(&self, conditions: &[Condition]) -> impl Iterator<Item = usize> {
        let (outline, values) = outlined(conditions);
        let of_outline = move |(other, possible_ties): (&Outline, &'_ Rivals)| -> Vec<usize> {
            if other.len() != outline.len() {
                // The route with more conditions takes precedence.
                Vec::new()
            } else if *other == outline {
                possible_ties.by_values.get(&values).cloned().unwrap_or_default()
            } else {
                possible_ties.all.clone()
            }
        };
        self.possible_ties.iter().flat_map(of_outline)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a route. Called for all routes before [`file`](Self::file).
    pub(super) fn add(&mut self, route: usize, conditions: &[Condition], names: Box<[Box<str>]>) {
        let is_regex = |condition: &Condition| matches!(condition.is(), Is::Matching(_));
        self.regexes += usize::from(conditions.iter().any(is_regex));
        self.entries.push(Entry {
            route,
            names,
            filed_under: None,
        });
        let (outline, values) = outlined(conditions);
        let possible_ties = self.possible_ties.entry(outline).or_default();
        possible_ties.all.push(route);
        possible_ties.by_values.entry(values).or_default().push(route);
    }

    /// Indexes all entries. Called once, when all have been added.
    pub(super) fn file<'c>(&mut self, conditions_of: impl Fn(usize) -> &'c [Condition]) {
        self.possible_ties = HashMap::new();
        let mut shared: HashMap<&Condition, usize> = HashMap::new();
        for entry in &self.entries {
            for condition in conditions_of(entry.route) {
                *shared.entry(condition).or_default() += 1;
            }
        }
        for (position, entry) in (0..).zip(&mut self.entries) {
            let conditions = conditions_of(entry.route);
            let indexed = (0..conditions.len()).filter(|at| !matches!(conditions[*at], Condition::Path { .. }));
            let rarest = indexed.min_by_key(|at| shared[&conditions[*at]]);
            // An expression is filed by the name alone, so a lookup still has to check it.
            entry.filed_under = rarest.filter(|at| !matches!(conditions[*at].is(), Is::Matching(_)));
            match rarest.map(|at| &conditions[at]) {
                None | Some(Condition::Path { .. }) => self.plain.push(position),
                Some(Condition::Query { name, is }) => {
                    let filed = self.by_query.entry(name.as_str().into()).or_default();
                    filed.add(is, |text| text.into(), position);
                }
                Some(Condition::Header { name, is }) => {
                    let filed = self.by_header.entry(name.clone()).or_default();
                    filed.add(is, |text| text.as_bytes().into(), position);
                }
            }
        }
    }

    /// Calls `take` with each entry whose conditions hold, and its position. No entry comes twice.
    ///
    /// # Errors
    /// If conditions are on query parameters, and the query has too many of them.
    pub(super) fn each_fitting<'l, 'c>(
        &'l self,
        headers: &FieldMap,
        query: &Query<'_>,
        (path, ranges): (&str, &Ranges),
        conditions_of: impl Fn(usize) -> &'c [Condition],
        mut take: impl FnMut(u32, &'l Entry),
    ) -> Result<(), TooManyParameters> {
        let holds = |entry: &Entry| -> Result<bool, TooManyParameters> {
            let path = PathParameters {
                path,
                names: &entry.names,
                ranges,
            };
            let mut conditions = (0..).zip(conditions_of(entry.route));
            conditions.try_fold(true, |all, (at, condition)| {
                Ok(all && (Some(at) == entry.filed_under || condition.holds(headers, query, path)?))
            })
        };
        for position in &self.plain {
            let entry = &self.entries[*position as usize];
            if holds(entry)? {
                take(*position, entry);
            }
        }
        if self.plain.len() == self.entries.len() {
            return Ok(());
        }
        let mut seen = Seen::of(self.entries.len());
        let mut offer = |positions: &[u32]| -> Result<(), TooManyParameters> {
            for position in positions {
                if !seen.is_new(*position) {
                    continue;
                }
                let entry = &self.entries[*position as usize];
                if holds(entry)? {
                    take(*position, entry);
                }
            }
            Ok(())
        };
        // Goes through the shorter of the two: the indexed fields or the request's fields.
        if self.by_header.len() <= headers.len() {
            for (name, filed) in &self.by_header {
                for value in headers.get_all(name) {
                    filed.find(value.as_bytes(), &mut offer)?;
                }
            }
        } else {
            for (name, value) in headers {
                if let Some(filed) = self.by_header.get(name) {
                    filed.find(value.as_bytes(), &mut offer)?;
                }
            }
        }
        if !self.by_query.is_empty() {
            for (name, value) in query.parameters()? {
                match (self.by_query.get(name), value) {
                    (Some(filed), Some(value)) => filed.find(value, &mut offer)?,
                    (Some(filed), None) => offer(&filed.any)?,
                    (None, _) => {}
                }
            }
        }
        Ok(())
    }
}

/// Returns the subjects of the conditions and the values that they ask for, both in a fixed order.
fn outlined(conditions: &[Condition]) -> (Outline, Vec<String>) {
    let mut all: Vec<_> = conditions
        .iter()
        .map(|condition| {
            let (subject, is) = match condition {
                Condition::Header { name, is } => (Subject::Header(name.to_string()), is),
                Condition::Query { name, is } => (Subject::Query(name.clone()), is),
                Condition::Path { name, is } => (Subject::Path(name.clone()), is),
            };
            match is {
                Is::Present | Is::Matching(_) => ((subject, false), None),
                Is::Exactly(text) => ((subject, true), Some(text.clone())),
            }
        })
        .collect();
    all.sort_unstable();
    let (outline, values): (Outline, Vec<_>) = all.into_iter().unzip();
    (outline, values.into_iter().flatten().collect())
}

impl<V: ?Sized> Default for Filed<V> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            exactly: HashMap::new(),
        }
    }
}

impl<V: ?Sized + Eq + std::hash::Hash> Filed<V> {
    fn add(&mut self, is: &Is, value: impl Fn(&str) -> Box<V>, position: u32) {
        match is {
            Is::Present | Is::Matching(_) => self.any.push(position),
            Is::Exactly(text) => self.exactly.entry(value(text)).or_default().push(position),
        }
    }

    fn find<E>(&self, value: &V, offer: &mut impl FnMut(&[u32]) -> Result<(), E>) -> Result<(), E> {
        offer(&self.any)?;
        offer(self.exactly.get(value).map_or(&[], Vec::as_slice))
    }
}

/// The entries that a request has looked at, one bit each.
struct Seen(SmallVec<[u64; 16]>);

impl Seen {
    fn of(count: usize) -> Self {
        Self(smallvec![0; count.div_ceil(64)])
    }

    fn is_new(&mut self, position: u32) -> bool {
        let (word, bit) = (position as usize / 64, 1 << (position % 64));
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}
