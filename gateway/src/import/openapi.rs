//! Makes a config of an OpenAPI description, version 3.
//!
//! Each path becomes a route, or several where its operations differ in who may use them or in what their extensions say.
//! `x-gateway-NAME` in an operation, a path or the description is the setting `NAME` of its routes (with `_` for `-`), as
//! in `x-gateway-time-limit: 5s`; the nearest one holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map as Object, Value};

use super::Imported;
use super::names::{self, unused};
use super::yaml::{Map, Yaml};

/// Methods of OpenAPI.
pub const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const EXTENSION: &str = "x-gateway-";

/// An operation that a description lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// In capitals.
    pub method: String,
    /// Path with that of the server before it, and parameters in braces.
    pub path: String,
    /// Its `operationId`, or empty.
    pub id: String,
}

/// Returns all operations of a description, in its order.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub fn operations(root: &Value) -> Result<Vec<Operation>, String> {
    let paths = paths(root)?;
    let mut all = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let server = server(root, item, operation);
            all.push(Operation {
                method: method.to_ascii_uppercase(),
                path: format!("{}{path}", server.base),
                id: operation["operationId"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(all)
}

fn paths(root: &Value) -> Result<&Object<String, Value>, String> {
    match root["openapi"].as_str() {
        Some(version) if version.starts_with("3.") => {}
        _ if root["swagger"].is_string() => {
            return Err("this is OpenAPI 2 (Swagger): convert it to version 3 first".to_owned());
        }
        _ => return Err("this is no OpenAPI description: it has no `openapi: 3...`".to_owned()),
    }
    let none = "this OpenAPI description has no `paths`";
    root["paths"].as_object().ok_or_else(|| none.to_owned())
}

/// Makes a config of a description.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub fn import(root: &Value) -> Result<Imported, String> {
    let mut importer = Importer {
        root,
        notes: Vec::new(),
        left_out: 0,
        backends: Map::default(),
        known: HashMap::new(),
        callers: Callers::default(),
        names: BTreeSet::new(),
    };
    let mut routes = Map::default();
    for (path, item) in paths(root)? {
        importer.path(path, item, &mut routes);
    }
    if routes.is_empty() {
        return Err("this OpenAPI description has no operations".to_owned());
    }
    for name in ["webhooks", "x-webhooks"] {
        if root.get(name).is_some() {
            importer.leave_out(name, "");
        }
    }
    Ok(importer.finish(routes))
}

/// Where the operations of a path go.
struct Server {
    /// Scheme and authority.
    origin: String,
    /// Path that stands before those of the description.
    base: String,
    is_known: bool,
}

/// Kinds of credentials that some operation takes.
#[derive(Default)]
struct Callers {
    key_header: Option<String>,
    has_keys: bool,
    issuers: BTreeMap<String, Option<String>>,
    has_basic: bool,
    has_mtls: bool,
    has_anonymous: bool,
}

struct Importer<'a> {
    root: &'a Value,
    notes: Vec<String>,
    left_out: usize,
    backends: Map,
    /// Names of backends by origin.
    known: HashMap<String, String>,
    callers: Callers,
    names: BTreeSet<String>,
}

impl Importer<'_> {
    fn leave_out(&mut self, path: &str, why: &str) {
        self.left_out += 1;
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        self.notes.push(format!("no counterpart: {path}{why}"));
    }

    fn path(&mut self, path: &str, item: &Value, routes: &mut Map) {
        if item.get("$ref").is_some() {
            self.leave_out(&format!("paths.{path}.$ref"), "resolve references first");
        }
        // Operations that differ in nothing but the method are one route.
        let mut groups: Vec<(Route, Vec<&str>, String)> = Vec::new();
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            if method == "trace" {
                self.leave_out(&format!("paths.{path}.trace"), "TRACE is always refused");
                continue;
            }
            let route = self.route(path, item, operation, method);
            match groups.iter_mut().find(|(known, ..)| *known == route) {
                Some((_, methods, _)) => methods.push(method),
                None => {
                    let id = operation["operationId"].as_str().unwrap_or_default();
                    groups.push((route, vec![method], id.to_owned()));
                }
            }
        }
        // GET includes HEAD.
        for (_, methods, _) in &mut groups {
            if methods.contains(&"get") {
                methods.retain(|method| *method != "head");
            }
        }
        let is_one = groups.len() == 1;
        for (route, methods, id) in groups {
            let name = match (is_one && methods.len() > 1, id.as_str()) {
                (false, id) if !id.is_empty() && methods.len() == 1 => id.to_owned(),
                (true, _) => path.to_owned(),
                _ => format!("{} {path}", methods[0]),
            };
            let name = self.name(&name);
            let methods = methods.iter().map(|method| Yaml::plain(method.to_ascii_uppercase()));
            let pattern = pattern(&format!("{}{path}", route.base));
            let mut matches = Map::default()
                .with("path", Yaml::text(pattern.text))
                .with("methods", Yaml::List(methods.collect()));
            if !pattern.parameters.is_empty() {
                let parameters = pattern.parameters.iter().fold(Map::default(), |all, (name, regex)| {
                    all.with(name, Map::default().with("regex", Yaml::text(regex)))
                });
                matches.put("parameters", parameters);
            }
            let mut written = Map::default().with("match", matches).with("access", route.access);
            let target = ["backend", "split", "aggregate", "respond", "redirect"];
            let has_target = route.settings.iter().any(|(name, _)| target.contains(&name.as_str()));
            for (name, value) in &route.settings {
                written.put(name, setting(value));
            }
            if !has_target {
                written.put("backend", Yaml::text(route.backend));
            }
            routes.put(&name, written);
        }
    }

    fn route(&mut self, path: &str, item: &Value, operation: &Value, method: &str) -> Route {
        let server = server(self.root, item, operation);
        let backend = self.backend(&server);
        let at = format!("paths.{path}.{method}");
        let access = self.access(operation.get("security").or_else(|| self.root.get("security")), &at);
        let mut settings: BTreeMap<String, Value> = BTreeMap::new();
        for level in [self.root, item, operation] {
            for (name, value) in level.as_object().into_iter().flatten() {
                if let Some(name) = name.strip_prefix(EXTENSION) {
                    settings.insert(name.replace('-', "_"), value.clone());
                }
            }
        }
        if operation.get("callbacks").is_some() {
            self.leave_out(&format!("{at}.callbacks"), "");
        }
        Route {
            base: server.base,
            backend,
            access,
            settings: settings.into_iter().collect(),
        }
    }

    fn backend(&mut self, server: &Server) -> String {
        if let Some(name) = self.known.get(&server.origin) {
            return name.clone();
        }
        if !server.is_known {
            self.notes
                .push("to do: the description names no server: write the endpoint of `backends`".to_owned());
        }
        let mut used: BTreeSet<_> = self.known.values().cloned().collect();
        let name = unused(&names::of_backend(&server.origin), &mut used);
        self.known.insert(server.origin.clone(), name.clone());
        let endpoint = Map::default().with("url", Yaml::text(&*server.origin));
        self.backends.put(
            &name,
            Map::default().with("endpoints", Yaml::List(vec![endpoint.into()])),
        );
        name
    }

    /// Returns who may use an operation.
    fn access(&mut self, security: Option<&Value>, at: &str) -> Map {
        let alternatives = security.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if alternatives.is_empty() {
            self.callers.has_anonymous = true;
            return Map::default().with("any_of", Yaml::texts(["anonymous"]));
        }
        let mut any_of: Vec<String> = Vec::new();
        let mut scopes: Option<Vec<String>> = None;
        let is_single = alternatives.len() == 1;
        for alternative in alternatives {
            let needed: Vec<_> = alternative.as_object().into_iter().flatten().collect();
            let mut names = Vec::new();
            for (scheme, wanted) in &needed {
                match self.credential(scheme, at) {
                    Some(name) => names.push(name),
                    None => return self.closed(at, &format!("security {scheme}")),
                }
                let wanted: Vec<_> = wanted
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                match &scopes {
                    None => scopes = Some(wanted),
                    Some(known) if *known == wanted || is_single => {
                        let mut all = known.clone();
                        all.extend(wanted.into_iter().filter(|scope| !known.contains(scope)));
                        scopes = Some(all);
                    }
                    Some(_) => return self.closed(at, "security with other scopes for other credentials"),
                }
            }
            match names.len() {
                0 => {
                    self.callers.has_anonymous = true;
                    any_of.push("anonymous".to_owned());
                }
                1 => any_of.extend(names),
                _ if is_single => {
                    let access = Map::default().with("all_of", Yaml::texts(names));
                    return with_scopes(access, scopes);
                }
                _ => return self.closed(at, "security with several credentials at once as one of several ways"),
            }
        }
        let mut seen = BTreeSet::new();
        any_of.retain(|name| seen.insert(name.clone()));
        with_scopes(Map::default().with("any_of", Yaml::texts(any_of)), scopes)
    }

    /// Returns access that nobody has, for a rule that has no counterpart.
    fn closed(&mut self, at: &str, what: &str) -> Map {
        self.leave_out(
            &format!("{at}.{what}"),
            "the route is closed until you say who may use it",
        );
        self.callers.has_anonymous = true;
        let deny = Map::default().with("deny", Yaml::texts(["0.0.0.0/0", "::/0"]));
        Map::default()
            .with("any_of", Yaml::texts(["anonymous"]))
            .with("addresses", deny)
    }

    /// Returns our name of a credential; `None` if there is none.
    fn credential(&mut self, scheme: &str, at: &str) -> Option<String> {
        let written = &self.root["components"]["securitySchemes"][scheme];
        match written["type"].as_str()? {
            "apiKey" => {
                let name = written["name"].as_str()?.to_ascii_lowercase();
                if written["in"] != "header" {
                    self.leave_out(
                        &format!("components.securitySchemes.{scheme}.in"),
                        "keys are read from a header field; see `callers.api_keys.in`",
                    );
                    return None;
                }
                if self.callers.key_header.as_ref().is_some_and(|known| *known != name) {
                    self.leave_out(
                        &format!("components.securitySchemes.{scheme}.name"),
                        "there is one field for keys",
                    );
                    return None;
                }
                self.callers.has_keys = true;
                self.callers.key_header = Some(name);
                Some("api_key".to_owned())
            }
            "http" => match written["scheme"].as_str()?.to_ascii_lowercase().as_str() {
                "basic" => {
                    self.callers.has_basic = true;
                    Some("basic".to_owned())
                }
                "bearer" => Some(self.issuer(scheme, None)),
                _ => None,
            },
            "oauth2" => Some(self.issuer(scheme, None)),
            "openIdConnect" => {
                let url = written["openIdConnectUrl"].as_str().unwrap_or_default();
                let issuer = url.strip_suffix("/.well-known/openid-configuration").map(str::to_owned);
                Some(self.issuer(scheme, issuer))
            }
            "mutualTLS" => {
                self.callers.has_mtls = true;
                let _ = at;
                Some("mtls".to_owned())
            }
            _ => None,
        }
    }

    fn issuer(&mut self, scheme: &str, issuer: Option<String>) -> String {
        let name = word(scheme, "issuer");
        self.callers.issuers.insert(name.clone(), issuer);
        format!("jwt:{name}")
    }

    fn name(&mut self, wanted: &str) -> String {
        let name = word(wanted, "route");
        unused(&name, &mut self.names)
    }

    fn finish(self, routes: Map) -> Imported {
        let title = self.root["info"]["title"].as_str().unwrap_or("an API");
        let title: String = title.chars().filter(|c| !c.is_control()).take(100).collect();
        let mut text = format!(
            "# yaml-language-server: $schema=gateway.schema.json\n# Made of the OpenAPI description of {title}.\n"
        );
        let mut top = Map::default();
        top.put(
            "listeners",
            Map::default().with("public", Map::default().with("address", Yaml::text("0.0.0.0:8080"))),
        );
        let mut callers = Map::default();
        let Callers {
            key_header,
            has_keys,
            issuers,
            has_basic,
            has_mtls,
            has_anonymous,
        } = self.callers;
        if has_keys {
            let mut keys = Map::default().with("file", Yaml::text("keys.yaml"));
            if let Some(header) = key_header.filter(|header| header != "x-api-key") {
                keys.put("header", Yaml::text(header));
            }
            let how = "to do: `gateway key new --tenant acme --into keys.yaml` makes a key".to_owned();
            callers.put_noted("api_keys", keys, vec![how]);
        }
        let mut jwt = Map::default();
        for (name, issuer) in issuers {
            let url = issuer.unwrap_or_else(|| "https://id.example.com".to_owned());
            let entry = Map::default()
                .with("issuer", Yaml::text(&*url))
                .with("audience", Yaml::texts(["api"]))
                .with("algorithms", Yaml::texts(["RS256", "ES256"]))
                .with(
                    "keys",
                    Map::default().with("url", Yaml::text(format!("{}/jwks.json", url.trim_end_matches('/')))),
                )
                .with("tenant", Yaml::text("/sub"))
                .with("scopes", Yaml::text("/scope"));
            jwt.put_noted(
                &name,
                entry,
                vec!["to do: issuer, audience, address of the keys, and which claim is the tenant".to_owned()],
            );
        }
        if !jwt.is_empty() {
            callers.put("jwt", jwt);
        }
        if has_basic {
            callers.put_noted(
                "basic",
                Map::default().with("file", Yaml::text("users.yaml")),
                vec!["to do: write users.yaml".to_owned()],
            );
        }
        if has_mtls {
            let identity = Map::default()
                .with("dns", Yaml::text("*.example.com"))
                .with("tenant", Yaml::text("example"));
            let todo = "to do: whose certificates; and `tls` with `client_ca_file` of a listener".to_owned();
            callers.put_noted(
                "mtls",
                Map::default().with("identities", Yaml::List(vec![identity.into()])),
                vec![todo],
            );
        }
        if has_anonymous {
            callers.put("anonymous", Map::default().with("by", Yaml::plain("client_address")));
        }
        top.put("callers", callers);
        top.put("backends", self.backends);
        top.put("routes", routes);
        for note in &self.notes {
            let note: String = note.chars().filter(|c| !c.is_control()).collect();
            text.push_str(&format!("# {note}\n"));
        }
        text.push('\n');
        text.push_str(&top.document());
        Imported {
            config: text,
            left_out: self.left_out,
        }
    }
}

/// Settings that the operations of one route have in common.
#[derive(PartialEq)]
struct Route {
    base: String,
    backend: String,
    access: Map,
    settings: Vec<(String, Value)>,
}

fn with_scopes(access: Map, scopes: Option<Vec<String>>) -> Map {
    match scopes.filter(|scopes| !scopes.is_empty()) {
        Some(scopes) => access.with("scopes", Yaml::texts(scopes)),
        None => access,
    }
}

/// Returns the first server of an operation, of its path, or of the description.
fn server(root: &Value, item: &Value, operation: &Value) -> Server {
    let servers = [operation, item, root]
        .into_iter()
        .filter_map(|level| level["servers"].as_array()?.first());
    let mut url = servers.map(|server| {
        let mut url = server["url"].as_str().unwrap_or_default().to_owned();
        for (name, variable) in server["variables"].as_object().into_iter().flatten() {
            url = url.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap_or_default());
        }
        url
    });
    let url = url.next().unwrap_or_default();
    let (origin, base) = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            (Some(format!("{scheme}://{authority}")), base.to_owned())
        }
        Some(_) => (None, String::new()),
        None => (None, url.clone()),
    };
    let base = base.trim_end_matches('/').to_owned();
    Server {
        is_known: origin.is_some(),
        origin: origin.unwrap_or_else(|| "http://127.0.0.1:8000".to_owned()),
        base: if base.is_empty() || base.starts_with('/') {
            base
        } else {
            format!("/{base}")
        },
    }
}

/// A path pattern of ours.
struct Pattern {
    text: String,
    /// Expressions for parameters that are a part of a segment.
    parameters: Vec<(String, String)>,
}

fn pattern(path: &str) -> Pattern {
    let mut parameters = Vec::new();
    let mut names = BTreeSet::new();
    let segments = path
        .trim_start_matches('/')
        .split('/')
        .enumerate()
        .map(|(place, segment)| {
            if !segment.contains(['{', '}']) {
                return segment.to_owned();
            }
            let whole = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match whole.filter(|name| !name.contains(['{', '}'])) {
                Some(name) => format!("{{{}}}", unused(&word(name, "p"), &mut names)),
                None => {
                    let name = unused(&format!("segment_{}", place + 1), &mut names);
                    parameters.push((name.clone(), expression(segment)));
                    format!("{{{name}}}")
                }
            }
        });
    let text = format!("/{}", segments.collect::<Vec<_>>().join("/"));
    Pattern { text, parameters }
}

/// Returns the expression of a segment that has parameters within it.
fn expression(segment: &str) -> String {
    let mut regex = String::new();
    let mut rest = segment;
    while let Some((literal, after)) = rest.split_once('{') {
        escape(literal, &mut regex);
        regex.push_str(".+");
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    escape(rest, &mut regex);
    regex
}

fn escape(literal: &str, regex: &mut String) {
    for c in literal.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-') && c.is_ascii() {
            regex.push('\\');
        }
        regex.push(c);
    }
}

/// Returns the value of a setting as the config writes it.
fn setting(value: &Value) -> Yaml {
    match value {
        // A time or a rate is not quoted.
        Value::String(text)
            if text.starts_with(|c: char| c.is_ascii_digit())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "/.".contains(c)) =>
        {
            Yaml::plain(text)
        }
        Value::Array(list) => Yaml::List(list.iter().map(setting).collect()),
        Value::Object(object) => Yaml::Map(
            object
                .iter()
                .fold(Map::default(), |map, (key, value)| map.with(key, setting(value))),
        ),
        other => Yaml::json(other),
    }
}

/// Returns a name of letters, digits and `_`.
fn word(text: &str, usual: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c.is_ascii_alphanumeric() {
            true => name.push(c.to_ascii_lowercase()),
            false if name.ends_with('_') => {}
            false => name.push('_'),
        }
    }
    let name = name.trim_matches('_');
    match name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => name.to_owned(),
        false => format!("{usual}_{name}").trim_end_matches('_').to_owned(),
    }
}
