//! Makes a route that merges the answers of several calls.

use std::collections::BTreeSet;
use std::str::FromStr;

use http::HeaderName;
use serde_json::Value;

use super::Importer;
use super::duration::{duration, millis};
use super::endpoint::Endpoint;
use super::left_out::LeftOut;
use super::martian::Changes;
use super::object::{errors_of, text_of};
use super::shape::Shape;
use crate::headers::rules::why_kept;
use crate::import::names::unused;
use crate::import::yaml::{Map, Yaml};

impl Importer<'_> {
    /// Makes a route that merges answers.
    pub(super) fn aggregate(
        &mut self,
        cx: &Endpoint<'_>,
        backends: &[(usize, &Value)],
        limits: &mut Map,
        target: &mut Map,
        left: &mut LeftOut,
    ) {
        let mut parts: Vec<Map> = Vec::new();
        let mut shapes: Vec<Shape> = Vec::new();
        let mut names = BTreeSet::new();
        // Time of the parts that wait for each other.
        let mut chain = 0.0;
        let mut document = None;
        let writes = !matches!(cx.method, "GET" | "HEAD" | "DELETE");
        for (place, one) in backends {
            let at = format!("{}.backend[{place}]", cx.at);
            let backend = self.backend(&at, one, limits, left);
            let mut part = Map::default().with("backend", Yaml::text(backend));
            let pattern = text_of(one, "url_pattern").unwrap_or("/");
            let (path, needs) = cx.path(pattern, &shapes, left, &at);
            part.put("path", Yaml::text(path));
            let method = text_of(one, "method").map_or(cx.method.to_owned(), str::to_ascii_uppercase);
            if method != "GET" {
                part.put("method", Yaml::plain(&method));
            }
            let named: Vec<_> = cx.query.iter().filter(|name| *name != "*").collect();
            if cx.query.iter().any(|name| name == "*") {
                left.add(
                    &format!("{}.input_query_strings *", cx.at),
                    "name the parameters as `query` of the part",
                );
            } else if !named.is_empty() {
                let query = named.iter().fold(Map::default(), |query, name| {
                    query.with(name, Yaml::text(format!("{{query.{name}}}")))
                });
                let missing = named.iter().fold(Map::default(), |all, name| {
                    all.with(&format!("query.{name}"), Yaml::text(""))
                });
                part.put("query", query);
                part.put("missing", Map::default().with("default", missing));
                left.note(format!("{at}: a parameter that the caller does not send is sent empty"));
            }
            if writes && method != "GET" {
                part.put("body", Yaml::text("{body}"));
            }
            if cx.sequential
                && needs.is_empty()
                && let Some(before) = shapes.last()
            {
                part.put("needs", Yaml::texts([before.name.as_str()]));
            }
            let shape = Shape::of(one, unused(&part_name(one, pattern, *place), &mut names), &at, left);
            let is_document = cx.is_collection && shape.is_array();
            if cx.is_collection && !is_document {
                left.add(
                    &format!("{}.output_encoding json-collection", cx.at),
                    "answers are JSON objects",
                );
            }
            shape.write(one, &at, is_document, &mut part, left);
            if is_document {
                document = Some(shape.name.clone());
            }
            if let Some(fields) = Changes::read(one, &at, left).request.sent() {
                part.put("headers", fields);
            }
            if let Some(time) = text_of(one, "timeout")
                .and_then(duration)
                .filter(|time| millis(time) > 0.0)
            {
                let is_chained = cx.sequential || !needs.is_empty();
                chain = if is_chained {
                    chain + millis(&time)
                } else {
                    millis(&time)
                };
                match chain < millis(cx.time) {
                    true => part.put("time_limit", Yaml::plain(time)),
                    false => left.note(format!("{at}.timeout: that of the endpoint ends sooner")),
                }
            }
            parts.push(part);
            shapes.push(shape);
        }
        let mut aggregate = Map::default();
        aggregate.put("forward", forwarded(cx, left));
        if let Some(document) = &document {
            aggregate.put("document", Yaml::text(document.as_str()));
        }
        let tells =
            |one: &Value| errors_of(one).is_some_and(|errors| text_of(errors, "return_error_details").is_some());
        if backends.iter().any(|(_, one)| tells(one)) && document.is_none() {
            aggregate.put("errors", Yaml::plain("details"));
            left.note(format!(
                "{}: return_error_details: failed parts are listed in `_errors`, where KrakenD writes `error_NAME`; if all fail, the answer is an error",
                cx.at
            ));
        }
        let mut has_fallback = false;
        if let Some(data) = &cx.static_data {
            let is_possible = shapes.iter().all(|shape| shape.passes(data.names()));
            let mut targets: Vec<_> = parts.iter_mut().collect();
            has_fallback = data.put(&mut targets, is_possible, cx.at, left);
        }
        if backends.len() > 1 || has_fallback {
            aggregate.put("partial", Yaml::plain("allow"));
        }
        let parts = shapes.iter().zip(parts);
        let parts = parts.fold(Map::default(), |all, (shape, part)| all.with(&shape.name, part));
        aggregate.put("parts", parts);
        target.put("aggregate", aggregate);
    }
}

/// Returns which of the caller's fields parts get: those of `input_headers`, as far as a part can get them.
fn forwarded(cx: &Endpoint<'_>, left: &mut LeftOut) -> Yaml {
    if cx.passes("*") {
        return Yaml::plain("all");
    }
    let of_form = |name: &str| {
        name.starts_with("content-")
            || name.starts_with("if-")
            || [
                "accept",
                "accept-encoding",
                "digest",
                "idempotency-key",
                "range",
                "repr-digest",
                "trailer",
            ]
            .contains(&name)
    };
    let mut names = Vec::new();
    for field in cx.fields {
        match HeaderName::from_str(field) {
            Ok(name) if !of_form(field) && why_kept(&name).is_none() => names.push(field.clone()),
            _ => left.note(format!(
                "{}.input_headers {field}: the gateway writes it for each part",
                cx.at
            )),
        }
    }
    names.sort_unstable();
    names.dedup();
    Yaml::texts(names)
}

/// Returns a name for a part: its group, or the last word of its path.
fn part_name(backend: &Value, pattern: &str, place: usize) -> String {
    let path = pattern.split('?').next().unwrap_or_default();
    let word = |text: &str| {
        text.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect::<String>()
    };
    let last = path
        .rsplit('/')
        .find(|segment| !segment.is_empty() && !segment.contains('{'));
    let name = text_of(backend, "group").or(last).map(word).unwrap_or_default();
    let name = name.trim_matches('_').to_ascii_lowercase();
    match name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => name,
        false => format!("part_{}", place + 1),
    }
}
