//! Finds the route of a request: by host, then by path, then by conditions, then by method.
//!
//! Each rule of precedence only decides where the earlier ones leave a choice:
//! 1. An exact host beats `*.example.com` (a longer one first), which beats a route for any host.
//! 2. Segment by segment from the left, a literal beats a parameter, which beats a wildcard.
//! 3. More conditions on header fields, the query and path parameters beat fewer.
//! 4. A configured method beats HEAD as part of GET.
//!
//! Two routes that none of these rules tell apart are a mistake, which is found when the table is built. A route whose
//! host, path or conditions do not fit is passed over. But if only the method does not fit, the request is refused and
//! no less specific route is tried: a wildcard must not serve a method that its author did not know was missing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderValue, Method};
use memchr::memchr;
use smallvec::SmallVec;

use super::condition::Condition;
use super::host;
use super::leaf::{Entry, Leaf};
use super::methods::Methods;
use super::mistake::{MOST_PLACES, MOST_REGEXES, Mistake};
use super::path::NormalPath;
use super::path_parameters;
use super::pattern::Pattern;
use super::tree::Tree;
use crate::message::FieldMap;
use crate::rejection::Rejection;
use crate::template::captures::Ranges;
use crate::template::{Captures, Query, TooManyParameters};

/// A route, as input for the table.
#[derive(Debug, Clone)]
pub struct Spec<T> {
    /// Name for messages about mistakes.
    pub name: Arc<str>,
    /// Hosts such as `api.example.com`, `*.example.com` (one label or more in place of the star) or `*`; an empty list
    /// means any host.
    pub hosts: Vec<String>,
    /// Path patterns; see [`Pattern`].
    pub paths: Vec<String>,
    /// Patterns of which a path only has to begin with one, segment by segment. The rest of the path, which may be
    /// empty, is a parameter called [`REST`](super::pattern::REST).
    pub prefixes: Vec<String>,
    /// Methods; an empty list means every method except OPTIONS, CONNECT and TRACE. GET includes HEAD.
    pub methods: Vec<Method>,
    /// Conditions, all of which must hold.
    pub conditions: Vec<Condition>,
    pub target: T,
}

/// The routes of a plan, indexed for search.
#[derive(Debug)]
pub struct Table<T> {
    routes: Vec<Route<T>>,
    exact: HashMap<Box<str>, Tree<Leaf>>,
    /// Trees of wildcard hosts, by the text after `*.`.
    wildcard: HashMap<Box<str>, Tree<Leaf>>,
    any: Tree<Leaf>,
}

#[derive(Debug)]
pub(super) struct Route<T> {
    pub(super) name: Arc<str>,
    pub(super) methods: Methods,
    pub(super) conditions: Box<[Condition]>,
    target: T,
}

/// The route that a request takes.
#[derive(Debug)]
pub struct Found<'a, T> {
    pub target: &'a T,
    pub captures: Captures<'a>,
}

/// The reason why no route takes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound<'a, T> {
    NoRoute,
    /// Routes of the path have conditions on query parameters, and the query has more parameters than are read.
    TooManyParameters,
    /// The path leads to another route if its path parameters are cut off.
    TwoRoutes,
    MethodNotAllowed {
        allow: HeaderValue,
        /// The routes of the path whose conditions hold, in the order of the config.
        routes: SmallVec<[&'a T; 4]>,
    },
}

impl<T> From<NotFound<'_, T>> for Rejection {
    fn from(not_found: NotFound<'_, T>) -> Self {
        match not_found {
            NotFound::NoRoute => Self::NoRoute,
            NotFound::TooManyParameters => Self::malformed("the query has more than 1000 parameters"),
            NotFound::TwoRoutes => {
                Self::malformed("the path leads to another route without what follows a ';' in its segments")
            }
            NotFound::MethodNotAllowed { allow, .. } => Self::MethodNotAllowed { allow, by: None },
        }
    }
}

/// Tree of one host pattern, as [`Table::hosts`] lists it.
pub(super) struct HostTree<'a> {
    /// Host pattern as written.
    pub(super) host: String,
    pub(super) tree: &'a Tree<Leaf>,
    /// Trees that a request to that host goes on to, in order of precedence.
    pub(super) later: Vec<&'a Tree<Leaf>>,
}

impl<T> Table<T> {
    /// Builds the table.
    ///
    /// # Errors
    /// All mistakes, in the order of the specs.
    pub fn build(specs: Vec<Spec<T>>) -> Result<Self, Vec<Mistake>> {
        let mut table = Self {
            routes: Vec::new(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: Tree::default(),
        };
        let mut mistakes = Vec::new();
        for spec in specs {
            table.add(spec, &mut mistakes);
        }
        let Self {
            routes,
            exact,
            wildcard,
            any,
        } = &mut table;
        for tree in exact.values_mut().chain(wildcard.values_mut()).chain([any]) {
            tree.each_leaf(&mut |leaf: &mut Leaf| leaf.file(|route| &routes[route].conditions));
        }
        if mistakes.is_empty() { Ok(table) } else { Err(mistakes) }
    }

    /// Returns the most specific route that takes the request. Allocates only if `host` has upper-case letters, the
    /// path has more than four captures, the method is refused, or routes of the path have conditions on query
    /// parameters.
    ///
    /// # Errors
    /// [`NotFound`], also if the path leads to another route without its path parameters (`;`). `Allow` lists the
    /// methods of those routes of the path whose conditions hold.
    pub fn find<'a>(
        &'a self,
        host: &str,
        path: &NormalPath<'a>,
        method: &Method,
        headers: &FieldMap,
        query: &Query<'_>,
    ) -> Result<Found<'a, T>, NotFound<'a, T>> {
        let host = host::normalise(host);
        let search = |path: &str| {
            let judge = |leaf: &'a Leaf, ranges: &Ranges| self.judge(leaf, method, headers, query, (path, ranges));
            self.trees(&host).find_map(|tree| tree.search(path, judge))
        };
        let (verdict, mut ranges) = search(path.canonical()).ok_or(NotFound::NoRoute)?;
        let entry = verdict?;
        if ranges.len() < entry.names.len() {
            // Nothing follows the prefix.
            let end = path.canonical().len();
            ranges.push(end..end);
        }
        if memchr(b';', path.canonical().as_bytes()).is_some()
            && let Some(cut) = path_parameters::cut(path.canonical(), &ranges)
        {
            // The path must lead to the same route if another server cuts its parameters off.
            match search(&cut) {
                Some((Ok(other), _)) if other.route == entry.route => {}
                Some(_) => return Err(NotFound::TwoRoutes),
                None => {}
            }
        }
        for range in &mut ranges {
            *range = path.raw_offset(range.start)..path.raw_offset(range.end);
        }
        let captures = Captures::new(path.raw(), &entry.names, ranges);
        Ok(Found {
            target: &self.routes[entry.route].target,
            captures,
        })
    }

    pub(super) fn route(&self, entry: &Entry) -> &Route<T> {
        &self.routes[entry.route]
    }

    /// Returns the trees of all hosts in the order of precedence.
    pub(super) fn hosts(&self) -> Vec<HostTree<'_>> {
        let mut exact: Vec<_> = self.exact.keys().collect();
        exact.sort_unstable();
        let mut wildcard: Vec<_> = self.wildcard.keys().collect();
        wildcard.sort_unstable_by_key(|suffix| (Reverse(suffix.len()), *suffix));
        let exact = exact.into_iter().map(|host| (host.to_string(), &**host, true));
        let wildcard = wildcard
            .into_iter()
            .map(|suffix| (format!("*.{suffix}"), &**suffix, false));
        let named = exact.chain(wildcard).filter_map(|(shown, name, is_exact)| {
            let mut trees = self
                .trees(name)
                .skip(usize::from(!is_exact && self.exact.contains_key(name)));
            let tree = match is_exact {
                true => trees.next()?,
                false => self.wildcard.get(name)?,
            };
            Some(HostTree {
                host: shown,
                tree,
                later: trees.collect(),
            })
        });
        let any = HostTree {
            host: "*".to_owned(),
            tree: &self.any,
            later: Vec::new(),
        };
        named.chain([any]).collect()
    }

    /// Returns the trees for a host, in order of precedence.
    pub(super) fn trees<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Tree<Leaf>> {
        let host_of_wildcards = if self.wildcard.is_empty() { "" } else { host };
        let suffixes = host_of_wildcards
            .match_indices('.')
            .map(|(dot, _)| &host_of_wildcards[dot + 1..]);
        let wildcard = suffixes.filter_map(|suffix| self.wildcard.get(suffix));
        self.exact.get(host).into_iter().chain(wildcard).chain([&self.any])
    }

    /// Judges the routes of a leaf; `None` if no route's conditions hold, so that the search goes on.
    fn judge<'a>(
        &'a self,
        leaf: &'a Leaf,
        method: &Method,
        headers: &FieldMap,
        query: &Query<'_>,
        path: (&str, &Ranges),
    ) -> Option<Result<&'a Entry, NotFound<'a, T>>> {
        let conditions_of = |route: usize| &*self.routes[route].conditions;
        let mut best = None;
        let mut refusing = SmallVec::<[(u32, &Route<T>); 4]>::new();
        let asked = leaf.each_fitting(headers, query, path, conditions_of, |position, entry| {
            let route = &self.routes[entry.route];
            let Route {
                methods, conditions, ..
            } = route;
            if !methods.admits(method) {
                refusing.push((position, route));
                return;
            }
            let rank = (Reverse(conditions.len()), !methods.names(method), position);
            if best.is_none_or(|(known, _)| rank < known) {
                best = Some((rank, entry));
            }
        });
        match (asked, best) {
            (Err(TooManyParameters), _) => Some(Err(NotFound::TooManyParameters)),
            (Ok(()), Some((_, entry))) => Some(Ok(entry)),
            (Ok(()), None) if refusing.is_empty() => None,
            (Ok(()), None) => {
                refusing.sort_unstable_by_key(|(position, _)| *position);
                Some(Err(NotFound::MethodNotAllowed {
                    allow: Methods::allow(refusing.iter().map(|(_, route)| &route.methods)),
                    routes: refusing.iter().map(|(_, route)| &route.target).collect(),
                }))
            }
        }
    }

    fn add(&mut self, spec: Spec<T>, mistakes: &mut Vec<Mistake>) {
        let index = self.routes.len();
        let Spec {
            name,
            mut hosts,
            paths,
            prefixes,
            methods,
            conditions,
            target,
        } = spec;
        for method in methods.iter().filter(|method| Methods::is_forbidden(method)) {
            mistakes.push(Mistake::Method {
                route: name.clone(),
                method: method.clone(),
            });
        }
        if paths.is_empty() && prefixes.is_empty() {
            mistakes.push(Mistake::NoPath { route: name.clone() });
        }
        if hosts.is_empty() {
            hosts.push("*".to_owned());
        }
        self.routes.push(Route {
            name: name.clone(),
            methods: Methods::new(methods),
            conditions: conditions.into(),
            target,
        });
        if (paths.len() + 3 * prefixes.len()).saturating_mul(hosts.len()) > MOST_PLACES {
            mistakes.push(Mistake::TooManyPlaces { route: name });
            return;
        }
        let paths = paths
            .into_iter()
            .map(|text| (Pattern::parse(&text).map(|one| vec![one]), text));
        let prefixes = prefixes.into_iter().map(|text| (Pattern::of_prefix(&text), text));
        let mut patterns = Vec::new();
        for (parsed, text) in paths.chain(prefixes) {
            match parsed {
                Ok(parsed) => patterns.extend(parsed.into_iter().map(|pattern| (text.clone(), pattern))),
                Err(error) => mistakes.push(Mistake::Path {
                    route: name.clone(),
                    text,
                    error,
                }),
            }
        }
        for text in hosts {
            let Some(tree) = self.tree_of(&text) else {
                mistakes.push(Mistake::Host {
                    route: name.clone(),
                    text,
                });
                continue;
            };
            // The tree is taken out of the table while the routes are compared.
            let mut grown = std::mem::take(tree);
            for (path, pattern) in &patterns {
                let leaf = grown.leaf(&pattern.segments);
                let conditions = &self.routes[index].conditions;
                if let Some(rival) = leaf.possible_ties(conditions).find(|rival| self.ties(*rival, index)) {
                    let first = self.routes[rival].name.clone();
                    mistakes.push(Mistake::Tie {
                        first,
                        second: name.clone(),
                        host: text.clone(),
                        path: path.clone(),
                    });
                }
                leaf.add(index, conditions, pattern.names().into());
                if leaf.regexes > MOST_REGEXES {
                    mistakes.push(Mistake::TooManyRegexes {
                        route: name.clone(),
                        path: path.clone(),
                    });
                }
            }
            if let Some(tree) = self.tree_of(&text) {
                *tree = grown;
            }
        }
    }

    /// Whether only their order in the config could decide between two routes of one pattern.
    fn ties(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.routes[one], &self.routes[other]);
        let apart = |is: &Condition| other.conditions.iter().any(|other| is.excludes(other));
        one.conditions.len() == other.conditions.len()
            && one.methods.overlap(&other.methods)
            && !one.conditions.iter().any(apart)
    }

    /// Returns the tree of a host pattern; `None` if the pattern is malformed.
    fn tree_of(&mut self, text: &str) -> Option<&mut Tree<Leaf>> {
        if text == "*" {
            return Some(&mut self.any);
        }
        let (group, name) = match text.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, text),
        };
        let normal = host::normalise(name);
        let is_address = name.starts_with('[') && host::check(name).is_ok();
        let has_port = !is_address && name.contains(':');
        if has_port || !(host::is_name(&normal) || is_address) {
            return None;
        }
        Some(group.entry(normal.into()).or_default())
    }
}

#[cfg(test)]
mod tests;
