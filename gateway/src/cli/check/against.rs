//! Compares the routes of a config with the operations of an OpenAPI description.
//!
//! An operation has a route if the table of routes takes a request like it, on any host; conditions on fields, queries and
//! parameters count as met.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use http::Method;

use crate::cli::import;
use crate::config;
use crate::import::openapi::{self, Operation};
use crate::message::FieldMap;
use crate::plan::Plan;
use crate::plan::outline::MatchOutline;
use crate::routing::path::NormalPath;
use crate::routing::rivals::{Miss, Standing};
use crate::template::Query;

/// Stands for the value of a parameter.
const VALUE: &str = "a-value";
/// A host that no route is likely to name.
const ANY_HOST: &str = "any.invalid";

/// Returns the differences, and whether there are none.
///
/// # Errors
/// A sentence that says why the description cannot be read.
pub(super) fn compare(file: &Path, plan: &Plan) -> Result<(String, bool), String> {
    let read = || openapi::operations(&config::read_document(&import::read(file)?)?);
    let operations = read().map_err(|why| format!("{}: {why}", file.display()))?;
    let hosts = hosts(plan);
    let mut lacking = Vec::new();
    // Methods of operations, by the route that takes them.
    let mut taken: BTreeMap<Arc<str>, BTreeSet<String>> = BTreeMap::new();
    for operation in &operations {
        let routes = routes(plan, operation, &hosts);
        if routes.is_empty() {
            lacking.push(operation);
        }
        for route in routes {
            taken.entry(route).or_default().insert(operation.method.clone());
        }
    }
    let mut further = Vec::new();
    for route in &plan.outline.routes {
        let known = taken.get(&route.name);
        let methods: Vec<_> = match route.matches.methods.as_slice() {
            [] if known.is_none() => vec!["any method".to_owned()],
            [] => Vec::new(),
            methods => {
                let is_new = |method: &&String| known.is_none_or(|known| !known.contains(*method));
                methods.iter().filter(is_new).cloned().collect()
            }
        };
        if !methods.is_empty() {
            further.push((&route.name, methods.join(","), place(&route.matches)));
        }
    }
    let mut text = format!(
        "\n{}: {} operations, {} without a route, {} routes with more than the operations\n",
        file.display(),
        operations.len(),
        lacking.len(),
        further.len()
    );
    if !lacking.is_empty() {
        text.push_str("\nOperations without a route\n\n");
    }
    for Operation { method, path, id } in &lacking {
        let line = format!("  {method:7} {path}  {id}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if !further.is_empty() {
        text.push_str("\nRoutes without an operation\n\n");
    }
    for (name, methods, place) in &further {
        let _ = writeln!(text, "  {name}  {methods} {place}");
    }
    Ok((text, lacking.is_empty() && further.is_empty()))
}

/// Returns a host for each host pattern of the routes, and one more.
fn hosts(plan: &Plan) -> BTreeSet<String> {
    let written = plan.outline.routes.iter().flat_map(|route| &route.matches.hosts);
    let hosts = written.map(|host| host.replacen('*', "any", 1));
    hosts.chain([ANY_HOST.to_owned()]).collect()
}

/// Returns the routes that take an operation.
fn routes(plan: &Plan, operation: &Operation, hosts: &BTreeSet<String>) -> BTreeSet<Arc<str>> {
    let path = sample(&operation.path);
    let (Ok(path), Ok(method)) = (NormalPath::parse(&path), operation.method.parse::<Method>()) else {
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    for host in hosts {
        let rivals = plan
            .routes
            .rivals(host, &path, &method, &FieldMap::new(), &Query::new(None));
        let takes = |standing: &Standing| matches!(standing, Standing::Taken | Standing::Misses(Miss::Condition(_)));
        found.extend(
            rivals
                .into_iter()
                .filter(|rival| takes(&rival.standing))
                .map(|rival| rival.route),
        );
    }
    found
}

/// Returns a path with a value in place of each parameter.
fn sample(pattern: &str) -> String {
    let mut path = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push_str(VALUE);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    path + rest
}

fn place(matches: &MatchOutline) -> String {
    let prefixes = matches.prefixes.iter().map(|prefix| format!("{prefix} and below"));
    let paths: Vec<_> = matches.paths.iter().cloned().chain(prefixes).collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_a_value_for_each_parameter() {
        for (pattern, expected) in [
            ("/users", "/users"),
            ("/users/{id}/x", "/users/a-value/x"),
            ("/report-{day}.{format}", "/report-a-value.a-value"),
            ("/a/{open", "/a/a-value"),
        ] {
            assert_eq!(sample(pattern), expected);
        }
    }
}
