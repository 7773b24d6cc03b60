//! Makes a route of an endpoint.

use serde_json::{Map as Object, Value};

use super::Importer;
use super::closed::{closed, guards_of, is_guard};
use super::duration::{duration, millis};
use super::left_out::LeftOut;
use super::limits::router_limits;
use super::object::{proxy_of, text};
use super::path::{Pattern, pattern};
use super::shape::Shape;
use super::static_data::StaticData;
use crate::import::names::unused;
use crate::import::yaml::{Map, Yaml};

/// KrakenD's own time limit of an endpoint.
const USUAL_TIMEOUT: &str = "2s";

/// Settings that the backends of an endpoint have in common.
pub(super) struct Endpoint<'a> {
    pub(super) at: &'a str,
    pub(super) method: &'a str,
    pub(super) pattern: &'a Pattern,
    pub(super) query: &'a [String],
    /// Header fields of the caller that backends get, in lower case; `*` stands for all.
    pub(super) fields: &'a [String],
    pub(super) static_data: Option<StaticData<'a>>,
    pub(super) sequential: bool,
    pub(super) is_plain: bool,
    /// The answer is the array of the one backend, not an object that has it.
    pub(super) is_collection: bool,
    pub(super) time: &'a str,
}

impl Endpoint<'_> {
    /// Returns whether backends get this header field of the caller.
    pub(super) fn passes(&self, field: &str) -> bool {
        self.fields.iter().any(|one| one == "*" || one == field)
    }
}

impl Importer<'_> {
    pub(super) fn endpoint(&mut self, number: usize, endpoint: &Object<String, Value>) {
        let at = format!("endpoints[{number}]");
        let mut left = LeftOut::default();
        let Some(path) = text(endpoint, "endpoint") else {
            self.notes.push(format!("no counterpart: {at}: it has no path"));
            self.left_out += 1;
            return;
        };
        let method = text(endpoint, "method").unwrap_or("GET").to_ascii_uppercase();
        let pattern = pattern(path);
        let mut route = Map::default();
        let matches = Map::default().with("path", Yaml::text(&*pattern.text));
        route.put("match", matches.with("methods", Yaml::List(vec![Yaml::plain(&method)])));
        let time = text(endpoint, "timeout")
            .or_else(|| text(self.root, "timeout"))
            .unwrap_or(USUAL_TIMEOUT);
        let time = match duration(time) {
            Some(time) => time,
            None => {
                left.add(&format!("{at}.timeout"), "it is no time");
                USUAL_TIMEOUT.to_owned()
            }
        };
        let mut access = Map::default().with("any_of", Yaml::texts(["anonymous"]));
        // Counts whatever else there is.
        let mut shut = None;
        let mut limits = Map::default();
        let mut sequential = false;
        let mut static_data = None;
        let extra = endpoint.get("extra_config").and_then(Value::as_object);
        for (name, value) in extra.into_iter().flatten() {
            let path = format!("{at}.extra_config.{name}");
            match name.as_str() {
                "proxy" | "github.com/devopsfaith/krakend/proxy" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        match key.as_str() {
                            "sequential" => sequential = value == true,
                            "static" => static_data = StaticData::read(value),
                            "sequential_propagated_params" => {
                                left.add(&format!("{path}.{key}"), "name them in the path of a part")
                            }
                            _ => left.add(&format!("{path}.{key}"), ""),
                        }
                    }
                }
                "qos/ratelimit/router" | "github.com/devopsfaith/krakend-ratelimit/juju/router" => {
                    router_limits(value, &path, &mut limits, &mut left);
                }
                "auth/validator" | "github.com/devopsfaith/krakend-jose/validator" => {
                    match self.issuer(value, &path, &mut left) {
                        Some(found) => access = found,
                        None => shut = Some(closed(&path, &mut left)),
                    }
                }
                name if is_guard(name) => shut = Some(closed(&path, &mut left)),
                _ => left.add(&path, ""),
            }
        }
        let backends = endpoint
            .get("backend")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let encoding = text(endpoint, "output_encoding").unwrap_or("json");
        let is_bare_array = encoding == "json-collection" && backends.len() == 1 && Shape::is_array_alone(&backends[0]);
        let is_collection = encoding == "json-collection" && backends.len() == 1 && Shape::is_written(&backends[0]);
        if !matches!(encoding, "json" | "no-op" | "fast-json") && !is_bare_array && !is_collection {
            left.add(
                &format!("{at}.output_encoding {encoding}"),
                "answers are JSON, or what the backend sends",
            );
        }
        let passes_query = endpoint
            .get("input_query_strings")
            .or_else(|| endpoint.get("querystring_params"))
            .and_then(Value::as_array)
            .map(|all| {
                all.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .unwrap_or_default();
        let fields = ["input_headers", "headers_to_pass"];
        let fields = fields.iter().find_map(|key| endpoint.get(*key)?.as_array());
        let fields: Vec<_> = fields.into_iter().flatten().filter_map(Value::as_str).collect();
        let fields: Vec<_> = fields.iter().map(|field| field.to_ascii_lowercase()).collect();
        for key in ["cache_ttl", "concurrent_calls"] {
            if endpoint.contains_key(key) {
                left.add(&format!("{at}.{key}"), "");
            }
        }
        let cx = Endpoint {
            at: &at,
            method: &method,
            pattern: &pattern,
            query: &passes_query,
            fields: &fields,
            static_data,
            sequential,
            is_plain: encoding == "no-op" || is_bare_array,
            is_collection,
            time: &time,
        };
        for (place, one) in backends.iter().enumerate() {
            for guard in guards_of(one, &format!("{at}.backend[{place}]")) {
                shut = Some(closed(&guard, &mut left));
            }
        }
        let shadows: Vec<_> = backends.iter().enumerate().filter(|(_, one)| is_shadow(one)).collect();
        let served: Vec<_> = backends.iter().enumerate().filter(|(_, one)| !is_shadow(one)).collect();
        let mut target = Map::default();
        match served.as_slice() {
            [] => {
                left.add(&format!("{at}.backend"), "there is none");
                target.put("respond", Map::default().with("status", Yaml::plain(501)));
            }
            [(place, one)] if cx.is_plain || !Shape::is_written(one) => {
                self.single(&cx, *place, one, &shadows, &mut limits, &mut target, &mut left);
            }
            all => {
                if let Some((place, _)) = shadows.first() {
                    left.add(
                        &format!("{at}.backend[{place}].extra_config.proxy.shadow"),
                        "copies are made of plain routes alone",
                    );
                }
                self.aggregate(&cx, all, &mut limits, &mut target, &mut left);
            }
        }
        if served.iter().any(|(_, one)| keeps_answers(one)) {
            match method == "GET" && served.iter().all(|(_, one)| keeps_answers(one)) {
                true => {
                    route.put("cache", Map::default());
                    left.note(format!(
                        "{at}: qos/http-cache: an answer that does not say `public` or `s-maxage` is used again for the same caller alone"
                    ));
                }
                false => left.add(
                    &format!("{at}.backend.extra_config.qos/http-cache"),
                    "not all of its backends have one, or it is no GET: write a `cache` of the route",
                ),
            }
        }
        self.longest = self.longest.max(millis(&time));
        route.put("access", shut.unwrap_or(access));
        if !limits.is_empty() {
            route.put("limits", limits);
        }
        if millis(&time) > 0.0 {
            route.put("time_limit", Yaml::plain(time));
        }
        for entry in target.into_entries() {
            route.put(&entry.0, entry.1);
        }
        let name = self.name(&method, path);
        self.left_out += left.1;
        self.routes.put_noted(&name, route, left.0);
    }

    /// Returns a name for a route that no other has.
    fn name(&mut self, method: &str, path: &str) -> String {
        let words = path
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        let mut name = words.collect::<Vec<_>>().join("_").to_ascii_lowercase();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            name = format!("route_{name}").trim_end_matches('_').to_owned();
        }
        if method != "GET" {
            name = format!("{}_{name}", method.to_ascii_lowercase());
        }
        unused(&name, &mut self.names)
    }
}

/// Returns whether good answers of a backend are kept and used again.
fn keeps_answers(backend: &Value) -> bool {
    let extra = backend.get("extra_config").and_then(Value::as_object);
    let names = ["qos/http-cache", "github.com/devopsfaith/krakend-httpcache"];
    extra.is_some_and(|extra| names.iter().any(|name| extra.contains_key(*name)))
}

fn is_shadow(backend: &Value) -> bool {
    let proxy = backend.get("extra_config").and_then(proxy_of);
    proxy.and_then(|proxy| proxy.get("shadow")) == Some(&Value::Bool(true))
}
