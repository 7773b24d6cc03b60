//! Makes a route that passes requests on to one backend.

use serde_json::Value;

use super::Importer;
use super::endpoint::Endpoint;
use super::left_out::LeftOut;
use super::martian::Changes;
use super::object::text_of;
use crate::import::yaml::{Map, Yaml};

/// Fields that a backend gets only where the configuration says so: they may be secrets of the caller.
const CREDENTIALS: [&str; 2] = ["authorization", "cookie"];

impl Importer<'_> {
    /// Makes a route that passes requests on.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the one route that is made")]
    pub(super) fn single(
        &mut self,
        cx: &Endpoint<'_>,
        place: usize,
        backend: &Value,
        shadows: &[(usize, &Value)],
        limits: &mut Map,
        target: &mut Map,
        left: &mut LeftOut,
    ) {
        let at = format!("{}.backend[{place}]", cx.at);
        let name = self.backend(&at, backend, limits, left);
        let pattern = text_of(backend, "url_pattern").unwrap_or("/");
        let (mut path, _) = cx.path(pattern, &[], left, &at);
        if let Some(method) = text_of(backend, "method").filter(|method| !method.eq_ignore_ascii_case(cx.method)) {
            left.add(
                &format!("{at}.method {method}"),
                "a plain route keeps the caller's method",
            );
        }
        if text_of(backend, "encoding")
            .is_some_and(|encoding| !matches!(encoding, "json" | "safejson" | "no-op" | "fast-json"))
        {
            left.add(&format!("{at}.encoding"), "the answer is passed on as it is");
        }
        let mut changes = Changes::read(backend, &at, left);
        for field in CREDENTIALS.iter().filter(|field| !cx.passes(field)) {
            changes.request.remove.push((*field).to_owned());
        }
        let mut fields = Map::default();
        if let Some(request) = changes.request.section() {
            fields.put("request", request);
        }
        // Only `no-op` passes on the fields of an answer there.
        if let Some(response) = changes.response.section().filter(|_| cx.is_plain) {
            fields.put("response", response);
        }
        if !fields.is_empty() {
            target.put("headers", fields);
        }
        target.put("backend", Yaml::text(name));
        if cx.query.is_empty() && !path.contains('?') {
            // With a `?`, the query of the caller is not passed on.
            path.push('?');
        } else if !cx.query.is_empty() && path.contains('?') {
            left.note(format!(
                "{}: the query of the caller is not added to that of url_pattern",
                cx.at
            ));
        }
        if !cx.query.is_empty() && !cx.query.iter().any(|name| name == "*") {
            left.note(format!(
                "{}: the whole query is passed on, not input_query_strings alone",
                cx.at
            ));
        }
        target.put("rewrite", Yaml::text(path));
        if let Some(data) = &cx.static_data {
            data.put(&mut [&mut *target], true, cx.at, left);
        }
        if let Some((place, shadow)) = shadows.first() {
            let at = format!("{}.backend[{place}]", cx.at);
            let to = self.backend(&at, shadow, limits, left);
            target.put(
                "mirror",
                Map::default()
                    .with("to", Yaml::text(to))
                    .with("percent", Yaml::plain(100)),
            );
            left.note(format!("{at}: a mirror gets the path of the route's own backend"));
        }
        for (place, _) in shadows.iter().skip(1) {
            left.add(
                &format!("{}.backend[{place}].extra_config.proxy.shadow", cx.at),
                "a route has one mirror",
            );
        }
    }
}
