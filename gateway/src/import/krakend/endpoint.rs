//! Makes a route of an endpoint.

use serde_json::{Map as Object, Value};

use super::Importer;
use super::duration::{duration, millis};
use super::left_out::LeftOut;
use super::limits::router_limits;
use super::object::text;
use super::path::{Pattern, pattern};
use super::tokens::closed;
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
    pub(super) sequential: bool,
    pub(super) is_plain: bool,
    pub(super) time: &'a str,
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
        let mut limits = Map::default();
        let mut sequential = false;
        let mut static_value = None;
        let extra = endpoint.get("extra_config").and_then(Value::as_object);
        for (name, value) in extra.into_iter().flatten() {
            let path = format!("{at}.extra_config.{name}");
            match name.as_str() {
                "proxy" | "github.com/devopsfaith/krakend/proxy" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        match key.as_str() {
                            "sequential" => sequential = value == true,
                            "static" => static_value = Some(value),
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
                        None => {
                            left.add(&path, "the route is closed until you say who may use it");
                            access = closed();
                        }
                    }
                }
                "auth/api-keys" | "auth/basic" | "validation/cel" | "security/policies" | "auth/signer" => {
                    left.add(&path, "the route is closed until you say who may use it");
                    access = closed();
                }
                _ => left.add(&path, ""),
            }
        }
        let backends = endpoint
            .get("backend")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let encoding = text(endpoint, "output_encoding").unwrap_or("json");
        if !matches!(encoding, "json" | "no-op" | "fast-json") {
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
            sequential,
            is_plain: encoding == "no-op",
            time: &time,
        };
        let shadows: Vec<_> = backends.iter().enumerate().filter(|(_, one)| is_shadow(one)).collect();
        let served: Vec<_> = backends.iter().enumerate().filter(|(_, one)| !is_shadow(one)).collect();
        let is_shaped = |one: &Value| {
            [
                "allow",
                "deny",
                "whitelist",
                "blacklist",
                "mapping",
                "group",
                "target",
                "is_collection",
            ]
            .iter()
            .any(|key| one.get(key).is_some_and(|value| *value != Value::Bool(false)))
        };
        let mut target = Map::default();
        match served.as_slice() {
            [] => {
                left.add(&format!("{at}.backend"), "there is none");
                target.put("respond", Map::default().with("status", Yaml::plain(501)));
            }
            [(place, one)] if cx.is_plain || !is_shaped(one) => {
                self.single(&cx, *place, one, &shadows, &mut limits, &mut target, &mut left);
            }
            all => {
                if let Some((place, _)) = shadows.first() {
                    left.add(
                        &format!("{at}.backend[{place}].extra_config.proxy.shadow"),
                        "copies are made of plain routes alone",
                    );
                }
                self.aggregate(&cx, all, static_value, &mut limits, &mut target, &mut left);
                static_value = None;
            }
        }
        if static_value.is_some() {
            left.add(
                &format!("{at}.extra_config.proxy.static"),
                "write a `fallback: [{ value: ... }]`",
            );
        }
        self.longest = self.longest.max(millis(&time));
        route.put("access", access);
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

fn is_shadow(backend: &Value) -> bool {
    let extra = backend.get("extra_config");
    let proxy = extra.and_then(|extra| {
        extra
            .get("proxy")
            .or_else(|| extra.get("github.com/devopsfaith/krakend/proxy"))
    });
    proxy.and_then(|proxy| proxy.get("shadow")) == Some(&Value::Bool(true))
}
