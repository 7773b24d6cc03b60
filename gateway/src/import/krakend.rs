//! Makes a config of a KrakenD configuration, version 2 or 3 of its format, in JSON.
//!
//! What has no counterpart becomes a comment with its path. A guard without one (a check of tokens or of expressions)
//! closes its route to everybody, so that nothing is open that was not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map as Object, Value};

use super::Imported;
use super::names::{self, unused};
use super::yaml::{Map, Yaml};

/// KrakenD's own time limit of an endpoint.
const USUAL_TIMEOUT: &str = "2s";
/// Longest time of a request and of a call here, unless the config says otherwise; in milliseconds.
const USUAL_MOST: f64 = 28_000.0;
const USUAL_CALL: f64 = 10_000.0;
/// Tier of all callers: KrakenD knows none.
const TIER: &str = "unlimited";

/// Makes a config of a configuration.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub fn import(root: &Value) -> Result<Imported, String> {
    let root = root
        .as_object()
        .ok_or("this is not a KrakenD configuration: it is no map")?;
    let endpoints = root.get("endpoints").and_then(Value::as_array);
    let endpoints = endpoints.ok_or("this is not a KrakenD configuration: it has no `endpoints`")?;
    let mut importer = Importer::new(root);
    for (number, endpoint) in endpoints.iter().enumerate() {
        match endpoint.as_object() {
            Some(endpoint) => importer.endpoint(number, endpoint),
            None => return Err(format!("endpoints[{number}] is no map")),
        }
    }
    Ok(importer.finish())
}

struct Importer<'a> {
    root: &'a Object<String, Value>,
    /// Comments at the top.
    notes: Vec<String>,
    left_out: usize,
    backends: Map,
    /// Names of backends by all that makes them.
    known: HashMap<String, String>,
    issuers: Map,
    known_issuers: HashMap<String, String>,
    routes: Map,
    names: BTreeSet<String>,
    /// Longest time of an endpoint, in milliseconds.
    longest: f64,
}

/// Things without a counterpart, on their way to a comment.
#[derive(Default)]
struct LeftOut(Vec<String>, usize);

impl LeftOut {
    /// Notes something that has no counterpart.
    fn add(&mut self, path: &str, why: &str) {
        self.1 += 1;
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        self.0.push(format!("no counterpart: {path}{why}"));
    }

    /// Notes something that is a little different here.
    fn note(&mut self, text: impl Into<String>) {
        self.0.push(format!("note: {}", text.into()));
    }
}

impl<'a> Importer<'a> {
    fn new(root: &'a Object<String, Value>) -> Self {
        Self {
            root,
            notes: Vec::new(),
            left_out: 0,
            backends: Map::default(),
            known: HashMap::new(),
            issuers: Map::default(),
            known_issuers: HashMap::new(),
            routes: Map::default(),
            names: BTreeSet::new(),
            longest: 0.0,
        }
    }

    fn finish(mut self) -> Imported {
        let mut left = LeftOut::default();
        let mut top = Map::default();
        self.top(&mut top, &mut left);
        left.note("parts are merged in the order in which they stand here, whichever answer came first");
        left.note("a caller's header fields and credentials pass as docs/edge.md says, not by input_headers alone");
        left.note(
            "a plain route passes on the status of its backend, where KrakenD answers 500 to all but 200 and 201",
        );
        self.left_out += left.1;
        let mut config =
            String::from("# yaml-language-server: $schema=gateway.schema.json\n# Made of a KrakenD configuration.\n");
        for note in self.notes.iter().chain(&left.0) {
            let note: String = note.chars().filter(|c| !c.is_control()).collect();
            config.push_str(&format!("# {note}\n"));
        }
        config.push('\n');
        let mut callers = Map::default();
        if !self.issuers.is_empty() {
            callers.put("jwt", self.issuers);
        }
        callers.put("anonymous", Map::default().with("by", Yaml::plain("client_address")));
        top.put("callers", callers);
        let rates = Map::default()
            .with("rate", Yaml::plain("1000000/s"))
            .with("burst", Yaml::plain(1_000_000));
        top.put_noted(
            "tiers",
            Map::default().with(TIER, rates),
            vec!["KrakenD has no tiers: this one limits nobody.".to_owned()],
        );
        top.put("default_tier", Yaml::plain(TIER));
        if !self.backends.is_empty() {
            let mut backends = Map::default();
            for (name, backend) in self.backends.into_entries() {
                backends.put(
                    &name,
                    match backend {
                        Yaml::Map(backend) if self.longest > USUAL_CALL => backend
                            .with("time_limit", Yaml::plain(format!("{}ms", self.longest)))
                            .into(),
                        backend => backend,
                    },
                );
            }
            top.put("backends", backends);
        }
        top.put("routes", self.routes);
        config.push_str(&top.document());
        Imported {
            config,
            left_out: self.left_out,
        }
    }

    /// Carries over what holds for all endpoints.
    fn top(&self, top: &mut Map, left: &mut LeftOut) {
        let port = self.root.get("port").and_then(Value::as_u64).unwrap_or(8080);
        let ip = self
            .root
            .get("listen_ip")
            .and_then(Value::as_str)
            .filter(|ip| !ip.is_empty());
        let ip = ip.map_or("0.0.0.0".to_owned(), |ip| {
            if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            }
        });
        let mut listener = Map::default().with("address", Yaml::text(format!("{ip}:{port}")));
        let tls = self.root.get("tls").and_then(Value::as_object);
        let tls = tls.map(|tls| {
            tls.get("keys")
                .and_then(Value::as_array)
                .and_then(|keys| keys.first()?.as_object())
                .unwrap_or(tls)
        });
        if let Some(tls) = tls.filter(|tls| tls.get("disabled") != Some(&Value::Bool(true))) {
            match (text(tls, "public_key"), text(tls, "private_key")) {
                (Some(public), Some(private)) => {
                    let pair = Map::default()
                        .with("cert_file", Yaml::text(public))
                        .with("key_file", Yaml::text(private));
                    listener.put(
                        "tls",
                        Map::default().with("certificates", Yaml::List(vec![pair.into()])),
                    );
                }
                _ => left.add("tls", "it names no files"),
            }
        }
        top.put("listeners", Map::default().with("public", listener));
        let mut limits = Map::default();
        if self.longest > USUAL_MOST {
            limits.put("request", Yaml::plain(format!("{}ms", self.longest + 2000.0)));
        }
        for (theirs, ours) in [
            ("read_header_timeout", "head"),
            ("idle_timeout", "keep_alive"),
            ("write_timeout", "write"),
        ] {
            match self.root.get(theirs).and_then(Value::as_str).map(duration) {
                Some(Some(time)) if millis(&time) >= 1000.0 => limits.put(ours, Yaml::plain(time)),
                Some(_) => left.add(theirs, ""),
                None => {}
            }
        }
        if !limits.is_empty() {
            top.put("time_limits", limits);
        }
        let extra = self.root.get("extra_config").and_then(Value::as_object);
        for (name, value) in extra.into_iter().flatten() {
            let path = format!("extra_config.{name}");
            match name.as_str() {
                "security/cors" | "github_com/devopsfaith/krakend-cors" => match cors(value) {
                    Some(cors) => top.put("cors", cors),
                    None => left.add(&path, ""),
                },
                "telemetry/metrics" | "telemetry/opencensus" | "github_com/devopsfaith/krakend-metrics" => {
                    left.add(&path, "write `admin: { address: 127.0.0.1:9900 }`; it serves /metrics");
                }
                "telemetry/logging" | "github_com/devopsfaith/krakend-gologging" => {
                    left.add(&path, "the log goes to standard error, the access log to `access_log`");
                }
                "telemetry/opentelemetry" => left.add(&path, "write `tracing: { otlp: { url: ... } }`"),
                "auth/revoker" => left.add(&path, "write `callers.revocations: { file: revoked.yaml }`"),
                _ => left.add(&path, ""),
            }
        }
        const KNOWN: [&str; 13] = [
            "version",
            "$schema",
            "name",
            "port",
            "listen_ip",
            "host",
            "timeout",
            "endpoints",
            "extra_config",
            "tls",
            "read_header_timeout",
            "idle_timeout",
            "write_timeout",
        ];
        for name in self
            .root
            .keys()
            .filter(|name| !KNOWN.contains(&name.as_str()) && !name.starts_with('@') && !name.starts_with("//"))
        {
            left.add(
                name,
                if name == "cache_ttl" {
                    "backends say themselves how long their answers may be kept"
                } else {
                    ""
                },
            );
        }
    }

    fn endpoint(&mut self, number: usize, endpoint: &Object<String, Value>) {
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

    /// Makes a route that passes requests on.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the one route that is made")]
    fn single(
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
        target.put("rewrite", Yaml::text(path));
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

    /// Makes a route that merges answers.
    fn aggregate(
        &mut self,
        cx: &Endpoint<'_>,
        backends: &[(usize, &Value)],
        static_value: Option<&Value>,
        limits: &mut Map,
        target: &mut Map,
        left: &mut LeftOut,
    ) {
        let mut parts = Map::default();
        let mut shapes: Vec<Shape> = Vec::new();
        let mut names = BTreeSet::new();
        // Time of the parts that wait for each other.
        let mut chain = 0.0;
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
            let shape = Shape::of(one, unused(&part_name(one, pattern, *place), &mut names));
            shape.write(one, &at, &mut part, left);
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
            if backends.len() == 1 {
                part.put("required", Yaml::plain(true));
            }
            parts.put(&shape.name.clone(), part);
            shapes.push(shape);
        }
        let mut aggregate = Map::default();
        if backends.len() > 1 {
            aggregate.put("partial", Yaml::plain("allow"));
            aggregate.put("conflict", Yaml::plain("deep"));
        }
        if static_value.is_some() {
            left.add(
                &format!("{}.extra_config.proxy.static", cx.at),
                "write a `fallback: [{ value: ... }]` in a part",
            );
        }
        aggregate.put("parts", parts);
        target.put("aggregate", aggregate);
    }

    /// Returns the name of the backend with these hosts and guards.
    fn backend(&mut self, at: &str, written: &Value, limits: &mut Map, left: &mut LeftOut) -> String {
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
                        .filter(|key| *key != "shadow")
                    {
                        left.add(&format!("{path}.{key}"), "");
                    }
                }
                "qos/http-cache" => left.add(
                    &path,
                    "answers are not kept; a `fallback: [{ stale: ... }]` keeps good ones for bad times",
                ),
                "backend/http" => left.add(
                    &path,
                    "a plain route passes on status and body; for parts see `errors: details`",
                ),
                _ => left.add(&path, ""),
            }
        }
        backend.put("breaker", breaker.map_or_else(|| Yaml::plain("off"), Yaml::from));
        let key = Map::default().with("b", backend.clone()).document();
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

    /// Returns the access of a route whose tokens KrakenD checks; `None` if the check has no counterpart.
    fn issuer(&mut self, value: &Value, path: &str, left: &mut LeftOut) -> Option<Map> {
        let value = value.as_object()?;
        let algorithm = text(value, "alg").unwrap_or("RS256");
        let audience: Vec<_> = value
            .get("audience")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (issuer, url) = (text(value, "issuer")?, text(value, "jwk_url")?);
        // A shared key that is fetched would let everybody sign who can fetch it.
        if audience.is_empty() || algorithm.starts_with("HS") {
            return None;
        }
        let roles: Vec<_> = value
            .get("roles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let scopes: Vec<_> = value
            .get("scopes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let any_scope = text(value, "scopes_matcher").is_none_or(|matcher| matcher == "any") && scopes.len() > 1;
        // One of several is enough there; here all scopes are needed.
        if roles.len() > 1 || any_scope || (!roles.is_empty() && !scopes.is_empty()) {
            return None;
        }
        let (key, needed) = match roles.is_empty() {
            true => (text(value, "scopes_key").unwrap_or("scope"), scopes),
            false => (text(value, "roles_key").unwrap_or("roles"), roles),
        };
        let is_nested =
            value.get("roles_key_is_nested") == Some(&Value::Bool(true)) || key.contains('.') && !key.contains("://");
        let pointer = if is_nested {
            key.replace('~', "~0").replace('/', "~1").replace('.', "/")
        } else {
            key.replace('~', "~0").replace('/', "~1")
        };
        let mut entry = Map::default()
            .with("issuer", Yaml::text(issuer))
            .with("audience", Yaml::texts(audience))
            .with("algorithms", Yaml::texts([algorithm]))
            .with("keys", Map::default().with("url", Yaml::text(url)))
            .with("tenant", Yaml::text("/sub"));
        if !needed.is_empty() {
            entry.put("scopes", Yaml::text(format!("/{pointer}")));
        }
        for key in value.keys() {
            const KNOWN: [&str; 12] = [
                "alg",
                "audience",
                "issuer",
                "jwk_url",
                "roles",
                "roles_key",
                "roles_key_is_nested",
                "scopes",
                "scopes_key",
                "scopes_matcher",
                "cache",
                "disable_jwk_security",
            ];
            if !KNOWN.contains(&key.as_str()) {
                left.add(&format!("{path}.{key}"), "");
            }
        }
        let id = Map::default().with("i", entry.clone()).document();
        let name = match self.known_issuers.get(&id) {
            Some(name) => name.clone(),
            None => {
                let name = format!("issuer_{}", self.known_issuers.len() + 1);
                self.known_issuers.insert(id, name.clone());
                self.issuers.put_noted(
                    &name,
                    entry,
                    vec!["note: KrakenD knows no tenants; here each subject is one".to_owned()],
                );
                name
            }
        };
        let access = Map::default().with("any_of", Yaml::texts([format!("jwt:{name}")]));
        Some(match needed.is_empty() {
            true => access,
            false => access.with("scopes", Yaml::texts(needed)),
        })
    }
}

/// Settings that the backends of an endpoint have in common.
struct Endpoint<'a> {
    at: &'a str,
    method: &'a str,
    pattern: &'a Pattern,
    query: &'a [String],
    sequential: bool,
    is_plain: bool,
    time: &'a str,
}

impl Endpoint<'_> {
    /// Returns the path that a backend gets, and the parts whose answers it names.
    fn path(&self, pattern: &str, before: &[Shape], left: &mut LeftOut, at: &str) -> (String, Vec<String>) {
        let (mut path, mut needs) = (String::new(), Vec::new());
        let mut rest = pattern;
        if !pattern.starts_with('/') {
            path.push('/');
        }
        while let Some((text, after)) = rest.split_once('{') {
            path.push_str(text);
            let Some((name, after)) = after.split_once('}') else {
                path.push_str("{{");
                rest = after;
                continue;
            };
            match self.placeholder(name, before, &mut needs) {
                Some(placeholder) => path.push_str(&placeholder),
                None => {
                    left.add(&format!("{at}.url_pattern {{{name}}}"), "nothing has this name");
                    path.push_str(&escaped(name));
                }
            }
            rest = after;
        }
        path.push_str(rest);
        // A fragment is never sent.
        (path.replace(' ', "%20"), needs)
    }

    fn placeholder(&self, name: &str, before: &[Shape], needs: &mut Vec<String>) -> Option<String> {
        if let Some(renamed) = self.pattern.names.get(name) {
            return Some(format!("{{path.{renamed}}}"));
        }
        if let Some(claim) = name.strip_prefix("JWT.") {
            // A claim whose name is a URL cannot be told from a path into claims.
            return (!claim.contains("://")).then(|| format!("{{claim.{claim}}}"));
        }
        let rest = name.strip_prefix("resp")?;
        let end = rest.find('_')?;
        let shape = before.get(rest[..end].parse::<usize>().ok()?)?;
        needs.push(shape.name.clone());
        Some(format!("{{part.{}.{}}}", shape.name, shape.raw(&rest[end + 1..])))
    }
}

/// Rules by which an answer is cut to shape.
struct Shape {
    /// Name of the part.
    name: String,
    group: Option<String>,
    target: Option<String>,
    /// New name to old name.
    renamed: BTreeMap<String, String>,
    /// Name that an array is put under.
    collection: Option<String>,
}

impl Shape {
    fn of(backend: &Value, name: String) -> Self {
        let is_collection = backend.get("is_collection") == Some(&Value::Bool(true));
        let mapping = backend.get("mapping").and_then(Value::as_object);
        let mut renamed: BTreeMap<_, _> = mapping
            .into_iter()
            .flatten()
            .filter_map(|(old, new)| Some((new.as_str()?.to_owned(), old.clone())))
            .collect();
        let collection = is_collection.then(|| {
            let named = renamed
                .iter()
                .find(|(_, old)| *old == "collection")
                .map(|(new, _)| new.clone());
            named.unwrap_or_else(|| "collection".to_owned())
        });
        if is_collection {
            renamed.retain(|_, old| old != "collection");
        }
        Self {
            name,
            group: text_of(backend, "group").map(str::to_owned),
            target: text_of(backend, "target").map(str::to_owned),
            renamed,
            collection,
        }
    }

    /// Returns the path into the answer itself of a path into the shaped one.
    fn raw(&self, path: &str) -> String {
        let path = match &self.group {
            Some(group) => path
                .strip_prefix(group.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .unwrap_or(path),
            None => path,
        };
        let path = match &self.collection {
            Some(collection) => path
                .strip_prefix(collection.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .unwrap_or(path),
            None => path,
        };
        let (first, rest) = path.split_once('.').map_or((path, ""), |(first, rest)| (first, rest));
        let first = self.renamed.get(first).map_or(first, String::as_str);
        let mut raw = self
            .target
            .as_ref()
            .map_or(String::new(), |target| format!("{target}."));
        raw.push_str(first);
        if !rest.is_empty() {
            raw.push('.');
            raw.push_str(rest);
        }
        raw
    }

    fn write(&self, backend: &Value, at: &str, part: &mut Map, left: &mut LeftOut) {
        if let Some(target) = &self.target {
            part.put("target", Yaml::text(target));
        }
        let list = |names: [&str; 2]| {
            let list = names.iter().find_map(|name| backend.get(name)?.as_array());
            list.map(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .unwrap_or_default()
        };
        let (keep, drop) = (list(["allow", "whitelist"]), list(["deny", "blacklist"]));
        if self.collection.is_some() && !(keep.is_empty() && drop.is_empty()) {
            left.note(format!("{at}: names in an array are those of its elements"));
        }
        let within = |paths: Vec<String>| {
            paths.into_iter().map(|path| match self.collection {
                Some(_) => path.strip_prefix("collection.").map_or(path.clone(), str::to_owned),
                None => path,
            })
        };
        if !keep.is_empty() {
            part.put("keep", Yaml::texts(within(keep)));
        }
        if !drop.is_empty() {
            part.put("drop", Yaml::texts(within(drop)));
        }
        if !self.renamed.is_empty() {
            let (deep, top): (Vec<_>, Vec<_>) = self.renamed.iter().partition(|(_, old)| old.contains('.'));
            for (_, old) in deep {
                left.add(&format!("{at}.mapping {old}"), "names at the top alone can be changed");
            }
            if !top.is_empty() {
                part.put(
                    "rename",
                    top.iter().fold(Map::default(), |all, (new, old)| {
                        all.with(old, Yaml::text(new.as_str()))
                    }),
                );
            }
        }
        part.put("group", Yaml::text(self.group.as_deref().unwrap_or(".")));
        if let Some(collection) = &self.collection {
            part.put("collection", Yaml::text(collection));
        }
        if text_of(backend, "encoding").is_some_and(|encoding| !matches!(encoding, "json" | "safejson" | "fast-json")) {
            left.add(&format!("{at}.encoding"), "a part is JSON");
        }
    }
}

/// A path pattern of ours.
struct Pattern {
    text: String,
    /// Names here by names there.
    names: HashMap<String, String>,
}

fn pattern(path: &str) -> Pattern {
    let mut names = HashMap::new();
    let segments = path
        .trim_start_matches('/')
        .split('/')
        .enumerate()
        .map(|(place, segment)| {
            let named = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
                .or_else(|| segment.strip_prefix(':'));
            if segment == "*" {
                return "{*rest}".to_owned();
            }
            let Some(name) = named else {
                return segment.replace('{', "{{").replace('}', "}}");
            };
            let mut ours: String = name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') {
                        c
                    } else {
                        '_'
                    }
                })
                .collect();
            if !ours.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                ours = format!("p{place}_{ours}");
            }
            names.insert(name.to_owned(), ours.clone());
            format!("{{{ours}}}")
        });
    let text = format!("/{}", segments.collect::<Vec<_>>().join("/"));
    Pattern { text, names }
}

/// Returns the bytes of a name in braces, as a path has them.
fn escaped(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    format!("%7B{}%7D", name.bytes().map(byte).collect::<String>())
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

/// Returns access that nobody has.
fn closed() -> Map {
    let deny = Map::default().with("deny", Yaml::texts(["0.0.0.0/0", "::/0"]));
    Map::default()
        .with("any_of", Yaml::texts(["anonymous"]))
        .with("addresses", deny)
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

fn text<'v>(object: &'v Object<String, Value>, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
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

/// Returns a time of Go's as one of ours; `None` if it is none.
fn duration(text: &str) -> Option<String> {
    let mut nanos = 0.0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| end + at);
        let factor = match &rest[end..unit_end] {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * factor;
        rest = &rest[unit_end..];
    }
    // The shortest time here is a millisecond.
    let millis = (nanos / 1e6).ceil().max(if nanos > 0.0 { 1.0 } else { 0.0 });
    Some(match millis {
        millis if millis >= 3_600_000.0 && millis % 3_600_000.0 == 0.0 => format!("{}h", millis / 3_600_000.0),
        millis if millis >= 60_000.0 && millis % 60_000.0 == 0.0 => format!("{}m", millis / 60_000.0),
        millis if millis >= 1000.0 && millis % 1000.0 == 0.0 => format!("{}s", millis / 1000.0),
        millis => format!("{millis}ms"),
    })
}

/// Returns the milliseconds of a time that [`duration`] wrote.
fn millis(time: &str) -> f64 {
    let end = time.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(time.len());
    let number: f64 = time[..end].parse().unwrap_or(0.0);
    number
        * match &time[end..] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            _ => 1.0,
        }
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

/// Returns a limit of a rate and a capacity.
fn rate(value: &Value, rate: &str, capacity: &str) -> Option<Map> {
    let number = value.get(rate)?.as_f64().filter(|rate| *rate > 0.0)?;
    let every = value
        .get("every")
        .and_then(Value::as_str)
        .and_then(duration)
        .map_or(1000.0, |time| millis(&time));
    let per_second = number * 1000.0 / every;
    let (count, unit) = [(1.0, "s"), (60.0, "min"), (3600.0, "h")]
        .into_iter()
        .map(|(seconds, unit)| (per_second * seconds, unit))
        .find(|(count, _)| *count >= 1.0 && (count - count.round()).abs() < 1e-6)
        .unwrap_or(((per_second * 3600.0).ceil(), "h"));
    let burst = value
        .get(capacity)
        .and_then(Value::as_f64)
        .filter(|burst| *burst >= 1.0)
        .unwrap_or(number.max(1.0));
    Some(
        Map::default()
            .with("rate", Yaml::plain(format!("{}/{unit}", count.round())))
            .with("burst", Yaml::plain(burst.ceil())),
    )
}

fn router_limits(value: &Value, path: &str, limits: &mut Map, left: &mut LeftOut) {
    if let Some(limit) = rate(value, "max_rate", "capacity").or_else(|| rate(value, "maxRate", "capacity")) {
        limits.put("endpoint", limit.with("per", Yaml::plain("route")));
        left.note(format!("{path}.max_rate: refused with 429, where KrakenD answers 503"));
    }
    if let Some(limit) =
        rate(value, "client_max_rate", "client_capacity").or_else(|| rate(value, "clientMaxRate", "client_capacity"))
    {
        match value.get("strategy").and_then(Value::as_str) {
            Some("ip") if value.get("key").is_none() => {
                limits.put("client", limit.with("per", Yaml::plain("client_address")))
            }
            _ => {
                limits.put("client", limit.with("per", Yaml::plain("caller")));
                left.add(
                    &format!("{path}.strategy"),
                    "counted for each caller, that is, for each credential or address",
                );
            }
        }
    }
}

fn cors(value: &Value) -> Option<Map> {
    let list = |name: &str| {
        let list = value.get(name).and_then(Value::as_array);
        list.map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    let origins = list("allow_origins")
        .filter(|origins| !origins.is_empty())
        .unwrap_or_else(|| vec!["*".to_owned()]);
    let credentials = value.get("allow_credentials") == Some(&Value::Bool(true));
    // Whoever may send credentials has to be named.
    if credentials && origins.iter().any(|origin| origin.contains('*'))
        || origins.len() > 1 && origins.iter().any(|origin| origin == "*")
    {
        return None;
    }
    let mut cors = Map::default().with("origins", Yaml::texts(origins));
    if let Some(methods) = list("allow_methods").filter(|methods| !methods.is_empty()) {
        cors.put("methods", Yaml::texts(methods));
    }
    for (theirs, ours) in [("allow_headers", "request_headers"), ("expose_headers", "expose")] {
        if let Some(fields) =
            list(theirs).filter(|fields| !fields.is_empty() && !fields.iter().any(|field| field == "*"))
        {
            cors.put(
                ours,
                Yaml::texts(fields.into_iter().map(|field| field.to_ascii_lowercase())),
            );
        }
    }
    if credentials {
        cors.put("credentials", Yaml::plain(true));
    }
    if let Some(time) = value
        .get("max_age")
        .and_then(Value::as_str)
        .and_then(duration)
        .filter(|time| millis(time) >= 1000.0)
    {
        cors.put("max_age", Yaml::plain(time));
    }
    Some(cors)
}
