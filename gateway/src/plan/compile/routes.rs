//! Compiles routes into the routing table, each with its target, access rules and limits.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::auth::credential_removal::Forward;
use crate::call::backend::Backend;
use crate::config::{self, At, Code, Mistake, NamedMap, Span};
use crate::message::FieldMap;
use crate::plan::compile::backends::Backends;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::limits::Tables;
use crate::plan::compile::scope::{Scope, template};
use crate::plan::compile::wanted::is;
use crate::plan::compile::{
    caches, costs, credentials, fallbacks, hedges, idempotency, literals, metered, mirrors, redirects, route_edge,
    splits,
};
use crate::plan::{Fallback, Route, RouteSettingIds, Target};
use crate::request_key::RequestKey;
use crate::routing::{self, Condition, Pattern, REST, Spec, Table};
use crate::setting::Configured;
use crate::template::{Placeholder, Syntax, Template};

/// All routes, as a routing table and in the order of the config.
pub(super) struct Routes {
    pub(super) table: Table<Arc<Route>>,
    pub(super) listed: Vec<Arc<Route>>,
}

pub(super) fn compile(compiler: &mut Compiler<'_>, tables: &mut Option<Tables>, backends: &Backends) -> Option<Routes> {
    let config = compiler.config;
    credentials::check(compiler);
    let mut specs = Vec::new();
    for (name, written) in config.routes.iter() {
        if let Some(spec) = route(compiler, name, written, tables.as_mut(), backends) {
            specs.push(spec);
        }
    }
    for (_, unsound) in config.routes.unsound() {
        check_names(compiler, unsound);
    }
    let listed = specs.iter().map(|spec| Arc::clone(&spec.target)).collect();
    let table = Table::build(specs)
        .map_err(|mistakes| {
            mistakes
                .iter()
                .for_each(|mistake| compiler.mistake(told(config, mistake)));
        })
        .ok()?;
    Some(Routes { table, listed })
}

/// Reports unknown names in a route that has mistakes and is left out.
fn check_names(compiler: &mut Compiler<'_>, route: &config::Route) {
    let config = compiler.config;
    for tier in &route.access.tiers {
        compiler.resolve("tier", tier, &config.tiers);
    }
    let (mut names, mut own) = (Vec::new(), None);
    match &route.target {
        config::Target::Backend { name, .. } => {
            names.push(name);
            own = Some(name.as_str());
        }
        config::Target::Split { entries, .. } => names.extend(entries.iter().map(|entry| &entry.backend)),
        config::Target::Aggregate(aggregate) => {
            for (_, part) in aggregate.parts.iter().chain(aggregate.parts.unsound()) {
                names.push(&part.backend);
                fallbacks::check_fallbacks(compiler, &part.fallback, Some(part.backend.as_str()));
            }
        }
        config::Target::Respond(_) | config::Target::Redirect(_) => {}
    }
    for name in names {
        compiler.resolve("backend", name, &config.backends);
    }
    if let Some(mirror) = &route.mirror {
        compiler.resolve_but("backend", &mirror.to, &config.backends, own);
    }
    fallbacks::check_fallbacks(compiler, &route.fallback, own);
}

/// Converts a mistake of the routing table into one with locations in the config.
fn told(config: &config::Config, mistake: &routing::Mistake) -> Mistake {
    let written = |route: &str| -> Vec<&At<String>> {
        let matches = config.routes.get(route).map(|route| &route.matches);
        let all = matches
            .into_iter()
            .flat_map(|matches| [&matches.paths, &matches.prefixes]);
        all.flatten().collect()
    };
    let paths = written(mistake.route());
    let exactly = |wanted: &str| {
        paths
            .iter()
            .rfind(|path| path.as_str() == wanted)
            .and_then(|path| path.span())
    };
    let around = || {
        let name = config.routes.entry(mistake.route()).and_then(|(name, _)| name.span());
        paths.first().and_then(|path| path.span()).or(name)
    };
    let conflict = |at: Option<Span>| Mistake::new(Code::Conflict, at.or_else(around), mistake.to_string());
    match mistake {
        routing::Mistake::Path { text, .. } => {
            let told = conflict(exactly(text));
            match routing::pattern_meant(text) {
                Some(meant) => told.hint(literals::pattern_hint(&meant)),
                None => told,
            }
        }
        routing::Mistake::Host { route, text } => {
            let hosts = config.routes.get(route).map_or(&[][..], |route| &route.matches.hosts);
            conflict(hosts.iter().find(|host| ***host == *text).and_then(At::span))
        }
        routing::Mistake::Tie { first, path, .. } => {
            let shared = |other: &&At<String>| {
                let mine = [Pattern::parse(path).map(|one| vec![one]), Pattern::of_prefix(path)];
                let other = [Pattern::parse(other).map(|one| vec![one]), Pattern::of_prefix(other)];
                let pairs = mine
                    .iter()
                    .flatten()
                    .flatten()
                    .map(|mine| other.iter().flatten().flatten().any(|one| one.matches_as(mine)));
                pairs.into_iter().any(|is_same| is_same)
            };
            let earlier = written(first);
            let exact = earlier.iter().find(|other| other.as_str() == path);
            let earlier = exact
                .or_else(|| earlier.iter().find(|other| shared(other)))
                .and_then(|other| other.span());
            let told = conflict(exactly(path))
                .label("is taken here")
                .related(earlier, "and here");
            let methods = |route: &str| {
                let methods = config.routes.get(route).map_or(&[][..], |route| &route.matches.methods);
                methods.iter().map(|method| method.value.clone()).collect::<Vec<_>>()
            };
            let (of_first, of_second) = (methods(first), methods(mistake.route()));
            let shared: Vec<_> = of_first.iter().filter(|method| of_second.contains(method)).collect();
            let shared: Vec<_> = shared.into_iter().map(|method| format!("`{method}`")).collect();
            match shared.as_slice() {
                _ if **first == *mistake.route() => told,
                [] => told,
                [one] => told.hint(format!("both take {one}: take it out of one")),
                more => told.hint(format!("both take {}: take them out of one", more.join(", "))),
            }
        }
        routing::Mistake::TooManyRegexes { path, .. } => conflict(exactly(path)),
        routing::Mistake::NoPath { .. } | routing::Mistake::TooManyPlaces { .. } | routing::Mistake::Method { .. } => {
            conflict(None)
        }
    }
}

/// Whether the target looks at a header field that the gateway adds.
fn reads_added(target: &Target) -> bool {
    match target {
        Target::Backend { rewrite, .. } | Target::Split { rewrite, .. } => {
            route_edge::reads_added(rewrite.iter().flat_map(Template::uses))
        }
        Target::Aggregate(aggregate) => {
            let mut calls = aggregate.calls.iter();
            // An answer that may serve as a fallback, or be used again, is kept by the fields of its request.
            calls.any(|call| !call.fallbacks.is_empty() || call.cache.is_some() || route_edge::reads_added(call.uses()))
        }
        Target::Redirect(_) => true,
        Target::Respond { .. } => false,
    }
}

fn route(
    compiler: &mut Compiler<'_>,
    name: &Arc<str>,
    written: &config::Route,
    tables: Option<&mut Tables>,
    backends: &Backends,
) -> Option<Spec<Arc<Route>>> {
    let config::Route {
        matches,
        access: who,
        cost,
        cost_header,
        stream,
        forward_credential,
        fallback,
        cache,
        idempotency,
        hedge,
        mirror,
        target,
        // Compiled in functions of their own.
        measured_cost: _,
        limits: _,
        time_limit: _,
        body_limit: _,
        cors: _,
        compression: _,
        headers: _,
        security_headers: _,
        added_headers: _,
        path_policy: _,
        method_override: _,
        upgrade: _,
    } = written;
    let access = credentials::access(compiler, name, who);
    let parameters = parameters(matches);
    let conditions = conditions(compiler, name, matches, &parameters);
    let time_limit = time_limit(compiler, name, written);
    costs::check_route(compiler, name, written);
    let route_limits = tables.map(|tables| {
        let (limits, terms) = tables.of_route(compiler, name, written);
        tables.terms.extend(terms);
        limits
    });
    check_cost_header(compiler, name, written);
    let metering = metered::compile(compiler, name, written);
    let mut edge = route_edge::compile(compiler, name, written, &parameters);
    let mirror = match mirror {
        Some(mirror) => {
            mirrors::compile(compiler, name, target, mirror, &parameters, backends).map(|mirror| Some(Box::new(mirror)))
        }
        None => Some(None),
    };
    let hedge = match (hedge, target) {
        (Some(hedge), config::Target::Backend { name: backend, .. }) => Some(hedges::compile(compiler, backend, hedge)),
        _ => None,
    };
    let target = match target {
        config::Target::Backend { name: wanted, rewrite } => {
            let rewrite = self::rewrite(compiler, written, rewrite.as_ref(), &parameters);
            compiler.resolve("backend", wanted, &compiler.config.backends);
            let backend = backends.get(wanted).cloned();
            backend
                .zip(rewrite)
                .map(|(backend, rewrite)| Target::Backend { backend, rewrite })
        }
        config::Target::Split { entries, rewrite } => {
            let rewrite = self::rewrite(compiler, written, rewrite.as_ref(), &parameters);
            splits::compile(compiler, name, entries, &parameters, backends)
                .zip(rewrite)
                .map(|(split, rewrite)| Target::Split { split, rewrite })
        }
        config::Target::Aggregate(aggregate) => {
            crate::plan::compile::aggregates::compile(compiler, name, aggregate, time_limit, &parameters, backends)
                .map(Target::Aggregate)
        }
        config::Target::Respond(respond) => respond_target(compiler, name, respond),
        config::Target::Redirect(redirect) => {
            redirects::compile(compiler, name, redirect, &parameters).map(Target::Redirect)
        }
    };
    edge.is_head_read |= target.as_ref().is_some_and(reads_added);
    let cache = cache
        .as_ref()
        .map(|cache| Arc::new(caches::compile(written, cache, target.as_ref())));
    let idempotency = idempotency
        .as_ref()
        .map(|written| Arc::new(idempotency::compile(compiler, name, written, time_limit)));
    let body_limit = body_limit(compiler, name, written, target.as_ref());
    let fallbacks = fallbacks::of_route(compiler, name, &written.target, fallback, backends);
    let hash_keys = match (&target, &fallbacks, &mirror) {
        (Some(target), Some(fallbacks), Some(mirror)) => {
            let copied_to = mirror.as_ref().map(|mirror| &mirror.mirror.backend);
            hash_keys(compiler, name, (target, fallbacks, copied_to), &parameters)
        }
        _ => Vec::new(),
    };
    let route = Route {
        name: Arc::clone(name),
        hash_keys,
        fallbacks: fallbacks?,
        cache,
        idempotency,
        hedge,
        mirror: mirror?,
        access: access?,
        limits: route_limits?,
        cost: cost.get(),
        cost_header: cost_header.as_ref().map(|name| Arc::new(name.value.clone())),
        metering,
        time_limit,
        stream: **stream,
        body_limit,
        forward_credential: match forward_credential.as_deref() {
            None => Forward::Tokens,
            Some(true) => Forward::Everything,
            Some(false) => Forward::Nothing,
        },
        edge,
        target: target?,
        metrics: compiler.state.observer.registry.route(name),
        ids: ids(compiler, name, written),
    };
    Some(Spec {
        name: Arc::clone(name),
        hosts: matches.hosts.iter().map(|host| host.value.clone()).collect(),
        paths: matches.paths.iter().map(|path| path.value.clone()).collect(),
        prefixes: matches.prefixes.iter().map(|path| path.value.clone()).collect(),
        methods: matches.methods.iter().map(|method| method.value.clone()).collect(),
        conditions: conditions?,
        target: Arc::new(route),
    })
}

/// Returns the keys by which the backends of a route choose their endpoints. Reports those that the route does not have.
fn hash_keys(
    compiler: &mut Compiler<'_>,
    route: &str,
    (target, fallbacks, copied_to): (&Target, &[Fallback], Option<&Arc<Backend>>),
    parameters: &HashSet<String>,
) -> Vec<RequestKey> {
    let own = match target {
        Target::Backend { backend, .. } => vec![backend],
        Target::Aggregate(aggregate) => aggregate.calls.iter().flat_map(|part| part.backends()).collect(),
        Target::Split { split, .. } => split.backends().collect(),
        Target::Respond { .. } | Target::Redirect(_) => Vec::new(),
    };
    let others = fallbacks.iter().filter_map(|fallback| match fallback {
        Fallback::Backend(backend) => Some(backend),
        Fallback::Value(_) | Fallback::Stale(_) => None,
    });
    let mut keys = Vec::new();
    let mut seen = HashSet::new();
    for backend in own.into_iter().chain(others).chain(copied_to) {
        let Some(key) = &backend.settings.balance.key else {
            continue;
        };
        if let RequestKey::Path(parameter) = key
            && !parameters.contains(&**parameter)
            && seen.insert(Arc::clone(&backend.name))
        {
            let written = compiler.config.backends.get(&backend.name);
            let at = written.and_then(|written| written.balance.key.as_ref()?.span());
            let routes = &compiler.config.routes;
            let path = routes.get(route).and_then(|route| {
                let matches = &route.matches;
                matches.paths.first().or(matches.prefixes.first())?.span()
            });
            let message =
                format!("`routes.{route}` has no path parameter `{parameter}`, by which its calls are hashed");
            compiler.mistake(
                Mistake::new(Code::UnknownName, at, message)
                    .related(path, "its path")
                    .hint("every route of the backend needs it: name it in the path, or take another key"),
            );
        }
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys
}

/// Compiles the rewrite, or that of `match.strip`, if there is one. The outer `None` stands for a mistake.
fn rewrite(
    compiler: &mut Compiler<'_>,
    route: &config::Route,
    written: Option<&At<String>>,
    parameters: &HashSet<String>,
) -> Option<Option<Template>> {
    let strip = route.matches.strip.map(|_| format!("/{{path.{REST}}}"));
    match written.or((*route.matches.strip).then_some(&strip)) {
        None => Some(None),
        Some(text) => template(compiler, text, Syntax::Path, &Scope::of_route(parameters)).map(Some),
    }
}

/// Compiles the conditions of a route. Reports malformed expressions, and parameters that a path does not have.
fn conditions(
    compiler: &mut Compiler<'_>,
    route: &str,
    matches: &config::Match,
    parameters: &HashSet<String>,
) -> Option<Vec<Condition>> {
    let config::Match {
        hosts: _,
        paths: _,
        prefixes: _,
        strip: _,
        methods: _,
        headers,
        query,
        parameters: of_path,
    } = matches;
    let mut conditions = Vec::new();
    let mut are_good = true;
    let kinds = [("headers", headers), ("query", query), ("parameters", of_path)];
    for (kind, name, wanted) in kinds
        .into_iter()
        .flat_map(|(kind, all)| all.iter().map(move |(name, wanted)| (kind, name, wanted)))
    {
        let Some(is) = is(compiler, &format!("routes.{route}.match.{kind}.{name}"), wanted) else {
            are_good = false;
            continue;
        };
        let text = name.to_string();
        match kind {
            "headers" => conditions.extend(HeaderName::from_str(name).map(|name| Condition::Header { name, is })),
            "query" => conditions.push(Condition::Query { name: text, is }),
            _ => {
                are_good &=
                    Scope::of_route(parameters).admits(compiler, &Placeholder::Path(text.as_str().into()), name.span());
                conditions.push(Condition::Path { name: text, is });
            }
        }
    }
    are_good.then_some(conditions)
}

/// Returns the parameters that every path of the route has. A parameter of only some paths cannot be used.
fn parameters(matches: &config::Match) -> HashSet<String> {
    let names =
        |pattern: &Pattern| -> HashSet<String> { pattern.names().iter().map(|name| name.to_string()).collect() };
    let of_paths = matches
        .paths
        .iter()
        .map(|path| Pattern::parse(path).map(|one| names(&one)));
    let first_names = |patterns: Vec<Pattern>| patterns.first().map(names).unwrap_or_default();
    let of_prefixes = matches
        .prefixes
        .iter()
        .map(|prefix| Pattern::of_prefix(prefix).map(first_names));
    let mut all = of_paths.chain(of_prefixes).map(Result::unwrap_or_default);
    let first = all.next().unwrap_or_default();
    all.fold(first, |common, names| common.intersection(&names).cloned().collect())
}

/// Returns the time limit of the route: its own, or the request limit minus the reserve.
fn time_limit(compiler: &mut Compiler<'_>, name: &str, written: &config::Route) -> Duration {
    let limits = &compiler.config.time_limits;
    let most = limits.request.saturating_sub(*limits.reserve);
    let Some(own) = &written.time_limit else { return most };
    if **own > most {
        compiler.mistake(
            Mistake::new(
                Code::OverParent,
                own.span(),
                format!("`routes.{name}.time_limit` is longer than a request may take"),
            )
            .related(limits.request.span(), "the whole request")
            .related(limits.reserve.span(), "of which this is kept for answering")
            .hint(format!(
                "at most {} are left: lower it, or raise `time_limits.request`",
                config::duration_text(most)
            )),
        );
    }
    **own
}

/// Reports a cost header on a fixed response: only a backend can state a cost.
fn check_cost_header(compiler: &mut Compiler<'_>, name: &str, written: &config::Route) {
    let target = match &written.target {
        config::Target::Respond(_) => "respond",
        config::Target::Redirect(_) => "redirect",
        config::Target::Backend { .. } | config::Target::Split { .. } | config::Target::Aggregate(_) => return,
    };
    if let Some(cost_header) = &written.cost_header {
        compiler.mistake(
            Mistake::new(
                Code::Conflict,
                cost_header.span(),
                format!("`routes.{name}.cost_header` does not go with `{target}`"),
            )
            .label("no backend is asked whose answer could say it")
            .hint("write the `cost` instead"),
        );
    }
}

/// Returns the settings of the route that decide on its requests: its own where they are written, or else those for all
/// requests.
fn ids(compiler: &mut Compiler<'_>, name: &str, written: &config::Route) -> RouteSettingIds {
    let config::PathPolicy {
        dot_segments,
        double_slash,
        encoded_slash,
        backslash,
    } = &written.path_policy;
    let has_policy = dot_segments.is_some() || double_slash.is_some() || encoded_slash.is_some() || backslash.is_some();
    let mut own_or = |is_own: bool, key: &str, other: &str| {
        let own = format!("routes.{name}.{key}");
        compiler.setting(if is_own { &own } else { other })
    };
    RouteSettingIds {
        time_limit: own_or(written.time_limit.is_some(), "time_limit", "time_limits.request"),
        path_policy: own_or(has_policy, "path_policy", "path_policy"),
        upgrade: own_or(true, "upgrade", ""),
    }
}

/// Returns the route's body limit; by default that of all bodies, or that of JSON bodies if the route reads them, or any
/// body to its end.
fn body_limit(
    compiler: &mut Compiler<'_>,
    name: &str,
    written: &config::Route,
    target: Option<&Target>,
) -> Configured<u64> {
    let limits = &compiler.config.request_limits;
    let reads_json = written.idempotency.is_some()
        || written.measured_cost.is_some()
        || matches!(target, Some(Target::Aggregate(aggregate)) if aggregate.reads_body());
    let (value, path) = match &written.body_limit {
        Some(own) if reads_json => {
            let value =
                crate::plan::compile::aggregates::check_fits(compiler, own, &format!("`routes.{name}` reads bodies"));
            (value, format!("routes.{name}.body_limit"))
        }
        Some(own) => (own.0, format!("routes.{name}.body_limit")),
        None if reads_json && limits.json_body.0 <= limits.body.0 => {
            (limits.json_body.0, "request_limits.json_body".to_owned())
        }
        None => (limits.body.0, "request_limits.body".to_owned()),
    };
    Configured {
        value,
        by: compiler.setting(&path),
    }
}

fn respond_target(compiler: &mut Compiler<'_>, name: &str, written: &config::Respond) -> Option<Target> {
    let config::Respond {
        status,
        headers: fields,
        body,
        limits,
    } = written;
    let mut headers = headers(compiler, &format!("routes.{name}.respond.headers"), fields);
    let body = match body {
        None => Bytes::new(),
        Some(config::Body::Text(text)) => Bytes::from(text.value.clone()),
        Some(config::Body::Json(value)) => {
            headers.insert_missing(header::CONTENT_TYPE, || HeaderValue::from_static("application/json"));
            value.bytes().clone()
        }
    };
    let status = StatusCode::from_u16(**status).ok()?;
    Some(Target::Respond {
        status,
        headers,
        body,
        tells_limits: **limits,
    })
}

fn headers(compiler: &mut Compiler<'_>, path: &str, written: &NamedMap<At<String>>) -> FieldMap {
    let mut headers = FieldMap::new();
    for (name, value) in written.iter() {
        match (HeaderName::from_str(name), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            _ => compiler.mistake(Mistake::new(
                Code::BadValue,
                value.span(),
                format!("`{path}.{name}` is not a header field"),
            )),
        }
    }
    headers
}
