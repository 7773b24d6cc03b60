//! Compares all routes with one request, for people: which route takes it, which fit as well, and what the others miss.
//!
//! The table's own search and its own conditions decide what fits, so the result cannot differ from
//! [`Table::find`]. Looks at every route, so it is not for the hot path.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use serde::Serialize;

use super::condition::PathParameters;
use super::host;
use super::leaf::{Entry, Leaf};
use super::path::NormalPath;
use super::pattern::Segment;
use super::precedence::shown;
use super::table::{HostTree, Table};
use super::tree::Tree;
use crate::message::FieldMap;
use crate::template::Query;
use crate::template::captures::Ranges;

/// Maximum number of routes that are shown beside the one that takes the request.
const MOST: usize = 8;
/// The same where none takes it and nothing but the path is missed.
const MOST_FAR: usize = 4;

/// One host and path of a route, compared with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rival {
    pub route: Arc<str>,
    /// Host pattern, or `*` for any host.
    pub host: String,
    pub path: String,
    #[serde(flatten)]
    pub standing: Standing,
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", content = "why", rename_all = "snake_case")]
pub enum Standing {
    /// Takes the request.
    Taken,
    /// Fits, but the route that takes the request has precedence.
    Fits(Precedence),
    /// Fits, but a more specific path refuses the method, and the search ends there.
    Behind,
    /// Does not fit.
    Misses(Miss),
}

/// Rule that puts a route behind another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precedence {
    Host,
    Path,
    Conditions,
    Method,
}

/// First thing that a route asks for and the request does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    Host,
    /// Number of leading segments that fit.
    Path(usize),
    /// The condition, in words.
    Condition(String),
    /// The methods of the route, as in `Allow`.
    Method(String),
}

impl Precedence {
    /// Returns what is said of the route that has precedence, after "of NAME".
    pub const fn of(self) -> &'static str {
        match self {
            Self::Host => "the host is more specific",
            Self::Path => "the path is more specific",
            Self::Conditions => "more conditions hold",
            Self::Method => "the methods name this one",
        }
    }
}

/// A place of a route, before it is compared with the others.
struct Candidate<'t> {
    host: &'t str,
    segments: Vec<Segment>,
    entry: &'t Entry,
    /// Position of the leaf in the search; `None` if host or path do not fit.
    position: Option<usize>,
    miss: Option<Miss>,
}

impl<T> Table<T> {
    /// Returns the route that takes the request, those that fit as well, and those that come nearest, in this order.
    pub fn rivals(
        &self,
        host: &str,
        path: &NormalPath<'_>,
        method: &Method,
        headers: &FieldMap,
        query: &Query<'_>,
    ) -> Vec<Rival> {
        let host = host::normalise(host);
        let trees = self.hosts();
        let asked: Vec<&Tree<Leaf>> = self.trees(&host).collect();
        let reached = reached(&asked, path.canonical());
        let mut candidates = Vec::new();
        for HostTree { host, tree, .. } in &trees {
            let is_asked = asked.iter().any(|asked| std::ptr::eq(*asked, *tree));
            tree.each(&mut |segments, leaf| {
                let found = reached.get(&std::ptr::from_ref(leaf)).filter(|_| is_asked);
                for entry in leaf.entries() {
                    let miss = match found {
                        None if !is_asked => Some(Miss::Host),
                        None => Some(Miss::Path(leading(segments, path.canonical()))),
                        Some((_, ranges)) => self.miss(entry, method, headers, query, (path.canonical(), ranges)),
                    };
                    candidates.push(Candidate {
                        host,
                        segments: segments.to_vec(),
                        entry,
                        position: found.map(|(position, _)| *position),
                        miss,
                    });
                }
            });
        }
        self.rank(candidates, method)
    }

    /// Returns what the request lacks for a route whose host and path fit.
    fn miss(
        &self,
        entry: &Entry,
        method: &Method,
        headers: &FieldMap,
        query: &Query<'_>,
        (path, ranges): (&str, &Ranges),
    ) -> Option<Miss> {
        let route = self.route(entry);
        let parameters = PathParameters {
            path,
            names: &entry.names,
            ranges,
        };
        let unmet = route
            .conditions
            .iter()
            .find(|condition| !condition.holds(headers, query, parameters).unwrap_or(false));
        match unmet {
            Some(condition) => Some(Miss::Condition(condition.to_string())),
            None if !route.methods.admits(method) => Some(Miss::Method(route.methods.to_string())),
            None => None,
        }
    }

    fn rank(&self, mut candidates: Vec<Candidate<'_>>, method: &Method) -> Vec<Rival> {
        let conditions_hold = |one: &Candidate<'_>| matches!(one.miss, None | Some(Miss::Method(_)));
        // The search ends at the first pattern with a route whose conditions hold.
        let decides = candidates
            .iter()
            .filter(|one| conditions_hold(one))
            .filter_map(|one| one.position)
            .min();
        // Equal ones stay in the order of precedence.
        candidates.sort_by_key(|one| {
            let route = self.route(one.entry);
            let nearness = match &one.miss {
                None => 0,
                Some(Miss::Method(_)) => 1,
                Some(Miss::Condition(_)) => 2,
                Some(Miss::Path(_)) => 3,
                Some(Miss::Host) => 4,
            };
            let fitting = match one.miss {
                Some(Miss::Path(segments)) => segments,
                _ => 0,
            };
            (
                nearness,
                Reverse(fitting),
                one.position,
                Reverse(route.conditions.len()),
                !route.methods.names(method),
            )
        });
        let taken = candidates
            .iter()
            .position(|one| one.miss.is_none() && one.position == decides);
        let taken = taken.map(|at| candidates.remove(at));
        let standing = |one: &Candidate<'_>| match (&one.miss, &taken) {
            (Some(miss), _) => Standing::Misses(miss.clone()),
            (None, None) => Standing::Behind,
            (None, Some(taken)) => Standing::Fits(self.precedence(taken, one, method)),
        };
        let seen = |candidate: &Candidate<'_>, standing| Rival {
            route: Arc::clone(&self.route(candidate.entry).name),
            host: candidate.host.to_owned(),
            path: shown(&candidate.segments, &candidate.entry.names),
            standing,
        };
        let first = taken.as_ref().map(|one| seen(one, Standing::Taken));
        let others = candidates.iter().map(|one| seen(one, standing(one)));
        // Of a route that does not fit, its nearest place is enough; and none of them is near where another fits.
        let most_far = if first.is_some() { 0 } else { MOST_FAR };
        let (mut all, mut far) = (Vec::<Rival>::new(), 0);
        for rival in first.into_iter().chain(others) {
            let is_known = all.iter().any(|known| known.route == rival.route);
            match rival.standing {
                Standing::Misses(_) if is_known => {}
                Standing::Misses(Miss::Path(_) | Miss::Host) if far == most_far => {}
                Standing::Misses(Miss::Path(_) | Miss::Host) => {
                    far += 1;
                    all.push(rival);
                }
                _ if all.len() <= MOST => all.push(rival),
                _ => {}
            }
        }
        all
    }

    fn precedence(&self, taken: &Candidate<'_>, other: &Candidate<'_>, method: &Method) -> Precedence {
        let (one, two) = (self.route(taken.entry), self.route(other.entry));
        if taken.host != other.host {
            Precedence::Host
        } else if taken.position != other.position {
            Precedence::Path
        } else if one.conditions.len() != two.conditions.len() || one.methods.names(method) == two.methods.names(method)
        {
            Precedence::Conditions
        } else {
            Precedence::Method
        }
    }
}

/// Returns the leaves that a search for the path visits, each with its position in the search and its parameters.
fn reached(trees: &[&Tree<Leaf>], path: &str) -> HashMap<*const Leaf, (usize, Ranges)> {
    let mut reached = HashMap::new();
    for tree in trees {
        tree.search(path, |leaf, ranges| -> Option<()> {
            let position = reached.len();
            reached.insert(std::ptr::from_ref(leaf), (position, ranges.clone()));
            None
        });
    }
    reached
}

/// Returns how many leading segments of the pattern the path has.
fn leading(segments: &[Segment], path: &str) -> usize {
    let of_path = path.split('/').skip(1);
    segments
        .iter()
        .zip(of_path)
        .take_while(|(segment, text)| match segment {
            Segment::Literal(literal) => **literal == **text,
            Segment::Parameter | Segment::Wildcard => !text.is_empty(),
        })
        .count()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::routing::{Condition, Is, Spec};

    fn spec(name: &str, host: &str, path: &str, methods: &[Method], conditions: &[Condition]) -> Spec<usize> {
        Spec {
            name: name.into(),
            hosts: (host != "*").then(|| host.to_owned()).into_iter().collect(),
            paths: vec![path.to_owned()],
            prefixes: Vec::new(),
            methods: methods.to_vec(),
            conditions: conditions.to_vec(),
            target: name.parse().unwrap_or_default(),
        }
    }

    fn header(name: &'static str) -> Condition {
        Condition::Header {
            name: http::HeaderName::from_static(name),
            is: Is::Present,
        }
    }

    fn compared(table: &Table<usize>, host: &str, path: &str, method: &Method, fields: &[&'static str]) -> Vec<Rival> {
        let headers = fields
            .iter()
            .map(|name| (http::HeaderName::from_static(name), HeaderValue::from_static("1")));
        let path = NormalPath::parse(path).unwrap();
        table.rivals(host, &path, method, &headers.collect(), &Query::new(None))
    }

    #[test]
    fn each_route_is_told_why_it_does_not_take_the_request() {
        let (get, post) = ([Method::GET], [Method::POST]);
        let table = Table::build(vec![
            spec("me", "*", "/users/me", &get, &[]),
            spec("beta", "*", "/users/me", &get, &[header("x-beta")]),
            spec("write", "*", "/users/me", &post, &[]),
            spec("user", "*", "/users/{id}", &[], &[]),
            spec("orders", "*", "/users/{id}/orders", &get, &[]),
            spec("other", "api.example.com", "/users/me", &get, &[]),
        ])
        .unwrap();
        let told = |host: &str, path: &str, method: &Method, fields: &[&'static str]| -> Vec<String> {
            compared(&table, host, path, method, fields)
                .iter()
                .map(|rival| format!("{} {:?}", rival.route, rival.standing))
                .collect()
        };
        assert_eq!(
            told("a.example", "/users/me", &Method::GET, &[]),
            [
                "me Taken",
                "user Fits(Path)",
                "write Misses(Method(\"POST\"))",
                "beta Misses(Condition(\"header x-beta\"))",
            ]
        );
        assert_eq!(
            told("a.example", "/users/me", &Method::GET, &["x-beta"])[..3],
            ["beta Taken", "me Fits(Conditions)", "user Fits(Path)"]
        );
        assert_eq!(
            told("api.example.com", "/users/me", &Method::GET, &[])[..3],
            ["other Taken", "me Fits(Host)", "user Fits(Host)"]
        );
        // The more specific path refuses the method, and hides a route that would take it.
        assert_eq!(
            told("a.example", "/users/me", &Method::DELETE, &[])[..2],
            ["user Behind", "me Misses(Method(\"GET, HEAD\"))"]
        );
        assert_eq!(
            told("a.example", "/users/7/bills", &Method::GET, &[])[..2],
            ["user Misses(Path(2))", "orders Misses(Path(2))"]
        );
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// The first rival is the route that the table finds, and none is taken where it finds none.
        #[test]
        fn the_comparison_agrees_with_the_search(
            routes in prop::collection::vec((0..3_usize, 0..6_usize, 0..4_usize, any::<bool>()), 1..12),
            host in 0..3_usize,
            path in 0..5_usize,
            method in 0..3_usize,
            has_field in any::<bool>(),
        ) {
            const HOSTS: [&str; 3] = ["*", "a.example", "*.example"];
            const PATHS: [&str; 6] = ["/a", "/a/b", "/a/{x}", "/{y}/b", "/{*rest}", "/a/{*rest}"];
            const METHODS: [&[Method]; 4] = [&[], &[Method::GET], &[Method::POST], &[Method::HEAD, Method::POST]];
            let specs = routes.iter().enumerate().map(|(number, (host, path, methods, conditional))| {
                let conditions: &[_] = if *conditional { &[header("x-beta")] } else { &[] };
                spec(&number.to_string(), HOSTS[*host], PATHS[*path], METHODS[*methods], conditions)
            });
            let Ok(table) = Table::build(specs.collect()) else { return Ok(()) };
            let host = ["b.example", "a.example", "other"][host];
            let path = ["/a", "/a/b", "/a/c", "/c/b", "/a/b/c"][path];
            let method = [Method::GET, Method::HEAD, Method::POST][method].clone();
            let fields: &[&str] = if has_field { &["x-beta"] } else { &[] };
            let rivals = compared(&table, host, path, &method, fields);
            let headers = fields.iter().map(|name| (http::HeaderName::from_static(name), HeaderValue::from_static("1")));
            let normal = NormalPath::parse(path).unwrap();
            let headers = headers.collect();
            let query = Query::new(None);
            let found = table.find(host, &normal, &method, &headers, &query).ok().map(|found| found.target.to_string());
            let taken = rivals.first().filter(|rival| rival.standing == Standing::Taken).map(|rival| &*rival.route);
            prop_assert_eq!(taken, found.as_deref());
        }
    }
}
