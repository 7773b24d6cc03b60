//! Makes a backend of hosts that share their guards.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Importer;
use super::closed::is_guard;
use super::left_out::LeftOut;
use super::limits::rate;
use super::martian;
use super::object::text_of;
use crate::import::names::{self, unused};
use crate::import::yaml::{Map, Yaml};

impl Importer<'_> {
    /// Returns the name of the backend with these hosts and guards.
    pub(super) fn backend(&mut self, at: &str, written: &Value, limits: &mut Map, left: &mut LeftOut) -> String {
        let hosts = written
            .get("host")
            .or_else(|| self.root.get("host"))
            .and_then(Value::as_array);
        let hosts: Vec<_> = hosts
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(origin)
            .collect();
        let mut backend = Map::default();
        match text_of(written, "sd") {
            Some("dns") if hosts.len() == 1 => {
                let name = hosts[0]
                    .0
                    .split_once("://")
                    .map_or(&*hosts[0].0, |(_, name)| name)
                    .to_owned();
                backend.put(
                    "endpoints",
                    Map::default()
                        .with("srv", Yaml::text(name))
                        .with("scheme", Yaml::plain("http")),
                );
            }
            sd => {
                if let Some(sd) = sd.filter(|sd| *sd != "static") {
                    left.add(&format!("{at}.sd {sd}"), "");
                }
                let urls = hosts
                    .iter()
                    .map(|(url, _)| Yaml::from(Map::default().with("url", Yaml::text(url))));
                let urls: Vec<_> = urls.collect();
                if urls.is_empty() {
                    left.add(&format!("{at}.host"), "there is none: write the endpoints");
                    backend.put(
                        "endpoints",
                        Yaml::List(vec![
                            Map::default().with("url", Yaml::text("http://127.0.0.1:9")).into(),
                        ]),
                    );
                } else {
                    backend.put("endpoints", Yaml::List(urls));
                }
            }
        }
        for (url, path) in &hosts {
            if !path.is_empty() {
                left.add(
                    &format!("{at}.host {url}{path}"),
                    "an endpoint has no path: add it to the path of the route",
                );
            }
        }
        backend.put("retry", Yaml::plain("off"));
        let mut breaker = None;
        let extra = written.get("extra_config").and_then(Value::as_object);
        for (name, value) in extra.into_iter().flatten() {
            let path = format!("{at}.extra_config.{name}");
            match name.as_str() {
                "qos/circuit-breaker" | "github.com/devopsfaith/krakend-circuitbreaker/gobreaker" => {
                    breaker = breaker_of(value)
                }
                "qos/ratelimit/proxy" | "github.com/devopsfaith/krakend-ratelimit/juju/proxy" => {
                    match rate(value, "max_rate", "capacity") {
                        Some(limit) => {
                            limits.put(
                                &format!("backend_{}", limits.len() + 1),
                                limit.with("per", Yaml::plain("route")),
                            );
                            left.note(format!("{path}: counted for the route, and refused with 429"));
                        }
                        None => left.add(&path, ""),
                    }
                }
                // Told apart where they are used.
                "proxy" | "github.com/devopsfaith/krakend/proxy" => {
                    for key in value
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(key, _)| key)
                        .filter(|key| !matches!(key.as_str(), "shadow" | "flatmap_filter"))
                    {
                        left.add(&format!("{path}.{key}"), "");
                    }
                }
                // A setting of the route.
                "qos/http-cache" | "github.com/devopsfaith/krakend-httpcache" => {}
                // A plain route passes on status and body, and an aggregate has `errors: details`.
                "backend/http" | "github.com/devopsfaith/krakend/http" => {}
                name if martian::NAMES.contains(&name) || is_guard(name) => {}
                _ => left.add(&path, ""),
            }
        }
        let has_breaker = breaker.is_some();
        backend.put("breaker", breaker.map_or_else(|| Yaml::plain("off"), Yaml::from));
        let mut key = Map::default().with("b", backend.clone()).document();
        if has_breaker {
            // Each entry there has a breaker of its own: good answers of one call close none of another.
            key.push_str(text_of(written, "url_pattern").unwrap_or_default());
        }
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let host = hosts.first().map_or("backend", |(url, _)| url.as_str());
        let mut used: BTreeSet<_> = self.known.values().cloned().collect();
        let name = unused(&names::of_backend(host), &mut used);
        self.known.insert(key, name.clone());
        self.backends.put(&name, backend);
        name
    }
}

/// Returns an origin, and the path that was written behind it.
fn origin(host: &str) -> (String, String) {
    let host = host.trim();
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let scheme = if scheme == "https" { "https" } else { "http" };
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, path)| (authority, path));
    let path = if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    };
    (format!("{scheme}://{authority}"), path)
}

/// Returns the breaker of a circuit breaker that opens after more than so many failures in a row.
fn breaker_of(value: &Value) -> Option<Map> {
    let errors = value.get("max_errors").or_else(|| value.get("maxErrors"))?.as_u64()?;
    let seconds = |name: &str| value.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
    let mut breaker = Map::default()
        .with("consecutive", Yaml::plain(errors + 1))
        .with("failure_ratio", Yaml::plain(1));
    if let Some(window) = seconds("interval") {
        breaker.put("window", Yaml::plain(format!("{}s", window.clamp(1, 3600))));
    }
    if let Some(time) = seconds("timeout") {
        breaker.put("open_for", Yaml::plain(format!("{time}s")));
    }
    breaker.put("probes", Yaml::plain(1));
    Some(breaker)
}
