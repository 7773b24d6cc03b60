//! Lists the routes of a table in the order of precedence, for people.

use std::fmt;
use std::sync::Arc;

use super::condition::{Condition, Is};
use super::leaf::{Entry, Leaf};
use super::methods::Methods;
use super::pattern::Segment;
use super::table::{HostTree, Table};
use super::tree::Tree;

/// Text of a parameter in a sample path. No literal of a pattern equals it, because a path has no control characters.
const SAMPLE: &str = "\u{1}";

/// One pair of host and path of a route. Of the places that fit a request, the first one decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Host, `*.` and a host, or `*` for any host.
    pub host: String,
    pub path: String,
    /// Methods as in `Allow`; empty for all that are not refused everywhere.
    pub methods: String,
    pub conditions: Vec<String>,
    pub route: Arc<str>,
    /// Methods that are refused here, although a less specific route takes them on paths around this one.
    pub refused: Vec<Refused>,
}

/// Methods that a route would take, if a more specific one did not refuse them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Methods as in `Allow`; empty for all others.
    pub methods: String,
    pub route: Arc<str>,
}

impl<T> Table<T> {
    /// Returns every place of every route: exact hosts by name, then wildcard hosts (longer ones first), then any host,
    /// and within a host by path, conditions and methods.
    pub fn by_precedence(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for HostTree { host, tree, later } in self.hosts() {
            tree.each(&mut |segments, leaf| {
                let mut entries: Vec<&Entry> = leaf.entries().iter().collect();
                entries.sort_by_key(|entry| std::cmp::Reverse(self.route(entry).conditions.len()));
                let refused = self.refused(segments, leaf, tree, &later);
                for entry in entries {
                    let route = self.route(entry);
                    let is_last_word = route.conditions.is_empty();
                    places.push(Place {
                        host: host.clone(),
                        path: shown(segments, &entry.names),
                        methods: route.methods.to_string(),
                        conditions: route.conditions.iter().map(ToString::to_string).collect(),
                        route: Arc::clone(&route.name),
                        refused: if is_last_word { refused.clone() } else { Vec::new() },
                    });
                }
            });
        }
        places
    }

    /// Returns the methods that a request to this pattern is refused for, with the routes that would take them. There
    /// are none while all routes of the pattern have conditions, because the search goes on where these do not hold.
    fn refused(&self, segments: &[Segment], leaf: &Leaf, tree: &Tree<Leaf>, later: &[&Tree<Leaf>]) -> Vec<Refused> {
        let here: Vec<&Methods> = leaf.entries().iter().map(|entry| &self.route(entry).methods).collect();
        if !leaf
            .entries()
            .iter()
            .any(|entry| self.route(entry).conditions.is_empty())
        {
            return Vec::new();
        }
        let mut refused: Vec<Refused> = Vec::new();
        for sample in samples(segments) {
            let mut is_behind = false;
            let mut collect = |other: &Leaf| {
                if is_behind {
                    for entry in other.entries() {
                        let route = self.route(entry);
                        let is_known = refused.iter().any(|known| known.route == route.name);
                        if let (Some(methods), false) = (route.methods.without(&here), is_known) {
                            let route = Arc::clone(&route.name);
                            refused.push(Refused { methods, route });
                        }
                    }
                }
                is_behind |= std::ptr::eq(other, leaf);
            };
            for tree in std::iter::once(tree).chain(later.iter().copied()) {
                tree.search(&sample, |leaf, _| -> Option<()> {
                    collect(leaf);
                    None
                });
            }
        }
        refused
    }
}

/// Returns paths that the pattern matches and that match no pattern by chance.
fn samples(segments: &[Segment]) -> Vec<String> {
    let sample = |below: &str| -> String {
        let texts = segments.iter().map(|segment| match segment {
            Segment::Literal(text) => &**text,
            Segment::Parameter => SAMPLE,
            Segment::Wildcard => below,
        });
        texts.fold(String::new(), |path, text| path + "/" + text)
    };
    match segments.last() {
        Some(Segment::Wildcard) => vec![sample(SAMPLE), sample(&[SAMPLE; 2].join("/"))],
        _ => vec![sample("")],
    }
}

/// Returns the pattern with the route's own names.
pub(super) fn shown(segments: &[Segment], names: &[Box<str>]) -> String {
    let mut names = names.iter();
    let mut shown = String::new();
    for segment in segments {
        let mut name = || names.next().map_or("", |name| &**name);
        shown.push('/');
        match segment {
            Segment::Literal(text) => shown.push_str(text),
            Segment::Parameter => shown.extend(["{", name(), "}"]),
            Segment::Wildcard => shown.extend(["{*", name(), "}"]),
        }
    }
    shown
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name): (_, &str) = match self {
            Self::Header { name, .. } => ("header", name.as_str()),
            Self::Query { name, .. } => ("query", name),
            Self::Path { name, .. } => ("parameter", name),
        };
        match self.is() {
            Is::Present => write!(f, "{kind} {name}"),
            Is::Exactly(text) => write!(f, "{kind} {name}={text}"),
            Is::Matching(regex) => write!(f, "{kind} {name}={regex:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::routing::Spec;

    fn spec(name: &str, host: &str, path: &str, methods: &[Method], conditions: &[Condition]) -> Spec<()> {
        Spec {
            name: name.into(),
            hosts: (host != "*").then(|| host.to_owned()).into_iter().collect(),
            paths: vec![path.to_owned()],
            prefixes: Vec::new(),
            methods: methods.to_vec(),
            conditions: conditions.to_vec(),
            target: (),
        }
    }

    fn listed(specs: Vec<Spec<()>>) -> Vec<String> {
        let table = Table::build(specs).expect("no mistakes");
        let line = |place: Place| {
            let refused: Vec<_> = place
                .refused
                .iter()
                .map(|refused| format!(" !{}:{}", refused.methods.replace(", ", ","), refused.route))
                .collect();
            format!(
                "{} {} {} {:?} {}{}",
                place.host,
                place.path,
                place.methods.replace(", ", ","),
                place.conditions,
                place.route,
                refused.concat()
            )
        };
        table.by_precedence().into_iter().map(line).collect()
    }

    #[test]
    fn places_stand_in_the_order_that_decides() {
        let beta = Condition::Header {
            name: http::HeaderName::from_static("x-beta"),
            is: Is::Present,
        };
        let (get, all) = ([Method::GET], []);
        let listed = listed(vec![
            spec("rest", "*", "/{*rest}", &all, &[]),
            spec("user", "*", "/users/{id}", &[Method::GET, Method::DELETE], &[]),
            spec("me", "*", "/users/me", &get, &[]),
            spec("beta", "*", "/users/me", &get, &[beta]),
            spec("wide", "*.example.com", "/", &get, &[]),
            spec("narrow", "*.api.example.com", "/", &get, &[]),
            spec("exact", "api.example.com", "/users/{name}", &get, &[]),
        ]);
        assert_eq!(
            listed,
            [
                "api.example.com /users/{name} GET,HEAD [] exact !DELETE:user !:rest",
                "*.api.example.com / GET,HEAD [] narrow",
                "*.example.com / GET,HEAD [] wide",
                r#"* /users/me GET,HEAD ["header x-beta"] beta"#,
                "* /users/me GET,HEAD [] me !DELETE:user !:rest",
                "* /users/{id} GET,HEAD,DELETE [] user !:rest",
                "* /{*rest}  [] rest",
            ]
        );
    }

    #[test]
    fn a_pattern_refuses_nothing_while_its_routes_have_conditions() {
        let condition = Condition::Query {
            name: "a".to_owned(),
            is: Is::Exactly("1".to_owned()),
        };
        let listed = listed(vec![
            spec("rest", "*", "/{*rest}", &[], &[]),
            spec("some", "*", "/a", &[Method::GET], &[condition]),
        ]);
        assert_eq!(listed, [r#"* /a GET,HEAD ["query a=1"] some"#, "* /{*rest}  [] rest"]);
    }
}
