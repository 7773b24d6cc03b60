//! Collects the written config and its locations for the admin API.

use std::sync::Arc;

use crate::config::{self, At, Config, Credential, NamedMap, Span};
use crate::plan::Route;
use crate::plan::calls::FanOut;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::metered;
use crate::plan::outline::{
    AccessOutline, CacheOutline, FieldsOutline, ForEachOutline, ForwardedOutline, HedgeOutline, IdempotencyOutline,
    LimitOutline, MatchOutline, MeasuredCostOutline, MirrorOutline, Outline, PartOutline, RouteOutline, SplitOutline,
    TargetOutline,
};
use crate::plan::time_budget::{Limit, TimeBudget};

/// Builds the outline. `routes` are the compiled routes, in the order of the config.
pub(super) fn compile(compiler: &mut Compiler<'_>, routes: &[Arc<Route>]) -> Outline {
    let config = compiler.config;
    note_places(compiler, config);
    let routes = config
        .routes
        .iter()
        .zip(routes)
        .map(|((name, written), meant)| route(config, name, written, meant))
        .collect();
    Outline::new(routes, std::mem::take(&mut compiler.places))
}

fn note_places(compiler: &mut Compiler<'_>, config: &Config) {
    let (times, sizes) = (&config.time_limits, &config.request_limits);
    compiler.note("time_limits.request".into(), times.request.span());
    compiler.note("time_limits.head".into(), times.head.span());
    compiler.note("time_limits.connect".into(), times.connect.span());
    compiler.note("request_limits.head".into(), sizes.head.span());
    compiler.note("request_limits.headers".into(), sizes.headers.span());
    compiler.note("request_limits.uri".into(), sizes.uri.span());
    compiler.note("request_limits.body".into(), sizes.body.span());
    compiler.note("request_limits.json_body".into(), sizes.json_body.span());
    compiler.note("request_limits.json_total".into(), sizes.json_total.span());
    compiler.note("request_limits.parked_total".into(), sizes.parked_total.span());
    let connections = &config.connection_limits;
    compiler.note("idempotency.max_bytes".into(), config.idempotency.max_bytes.span());
    compiler.note("connection_limits.total".into(), connections.total.span());
    let per_address = connections.per_address.as_ref().and_then(At::span);
    compiler.note("connection_limits.per_address".into(), per_address);
    let body_rate = config.minimum_rates.as_ref().and_then(|rates| rates.body.span());
    compiler.note("minimum_rates.body".into(), body_rate);
    if let Some(overload) = &config.overload {
        compiler.note(
            "overload".into(),
            first([overload.delay.span(), overload.period.span()]),
        );
    }
    note_path_policy(compiler, "path_policy", &config.path_policy);
    if let Some(cors) = &config.cors {
        compiler.note("cors".into(), first(cors.origins.iter().map(At::span)));
    }
    if let Some(compression) = &config.compression {
        compiler.note("compression".into(), place_of_compression(compression));
    }
    if let Some(failures) = &config.callers.failures {
        compiler.note(
            "callers.failures".into(),
            first([failures.rate.span(), failures.burst.span()]),
        );
    }
    if let Some(checks) = &config.callers.verifications {
        let written = [checks.share.span(), checks.rate.span(), checks.burst.span()];
        compiler.note("callers.verifications".into(), first(written));
        compiler.note("callers.verifications.share".into(), checks.share.span());
        let failed = [checks.rate.span(), checks.burst.span()];
        compiler.note("callers.verifications.rate".into(), first(failed));
    }
    for (name, tier) in config.tiers.iter() {
        let path = format!("tiers.{name}");
        compiler.note(path.clone(), name.span());
        compiler.note(format!("{path}.wait"), tier.rate.wait.span());
        note_allowances(
            compiler,
            &path,
            tier.in_flight.as_ref().and_then(At::span),
            &tier.quotas,
        );
    }
    for (name, tenant) in config.tenants.iter() {
        let path = format!("tenants.{name}");
        compiler.note(path.clone(), name.span());
        let rate = [
            tenant.rate.as_ref().and_then(At::span),
            tenant.burst.as_ref().and_then(At::span),
        ];
        compiler.note(format!("{path}.rate"), first(rate));
        compiler.note(format!("{path}.tier"), tenant.tier.as_ref().and_then(At::span));
        compiler.note(format!("{path}.disabled"), tenant.disabled.span());
        note_allowances(
            compiler,
            &path,
            tenant.in_flight.as_ref().and_then(At::span),
            &tenant.quotas,
        );
    }
    compiler.note("default_tier".into(), config.default_tier.span());
    note_callers(compiler, &config.callers);
    for (name, _) in config.callers.jwt.iter() {
        compiler.note(format!("callers.jwt.{name}"), name.span());
    }
    for (name, backend) in config.backends.iter() {
        note_backend(compiler, &format!("backends.{name}"), name.span(), backend);
    }
    for (name, route) in config.routes.iter() {
        note_route(compiler, &format!("routes.{name}"), name.span(), route);
    }
}

fn note_callers(compiler: &mut Compiler<'_>, callers: &config::Callers) {
    if let Some(anonymous) = &callers.anonymous {
        let written = [anonymous.by.span(), anonymous.tier.as_ref().and_then(At::span)];
        compiler.note("callers.anonymous".into(), first(written));
    }
    if let Some(basic) = &callers.basic {
        compiler.note("callers.basic".into(), basic.file.span());
    }
    if let Some(external) = &callers.external {
        let service = external.as_backend();
        note_backend(compiler, super::external::SERVICE, external.url.span(), &service);
    }
    if let Some(mtls) = &callers.mtls {
        let tenants = mtls.identities.iter().map(|identity| identity.tenant.span());
        compiler.note("callers.mtls".into(), first(tenants));
    }
}

fn note_allowances(compiler: &mut Compiler<'_>, path: &str, in_flight: Option<Span>, quotas: &NamedMap<config::Quota>) {
    compiler.note(format!("{path}.in_flight"), in_flight);
    for (name, _) in quotas.iter() {
        compiler.note(format!("{path}.quotas.{name}"), name.span());
    }
}

fn note_backend(compiler: &mut Compiler<'_>, path: &str, at: Option<Span>, backend: &config::Backend) {
    compiler.note(path.to_owned(), at);
    compiler.note(format!("{path}.endpoints"), backend.endpoints.span());
    compiler.note(format!("{path}.time_limit"), backend.time_limit.span());
    compiler.note(format!("{path}.attempt_limit"), backend.attempt_limit.span());
    let bulkhead = &backend.bulkhead;
    let in_bulkhead = [
        bulkhead.limit.span(),
        bulkhead.from.span(),
        bulkhead.to.span(),
        bulkhead.queue.span(),
        bulkhead.wait.span(),
        bulkhead.tenant_share.span(),
        bulkhead.streams.span(),
    ];
    compiler.note(format!("{path}.bulkhead"), first(in_bulkhead));
    compiler.note(format!("{path}.bulkhead.wait"), bulkhead.wait.span());
    if let Some(breaker) = &backend.breaker {
        let slow = breaker
            .slow
            .iter()
            .flat_map(|slow| [slow.over.span(), slow.ratio.span()]);
        let adaptive = breaker
            .adaptive
            .iter()
            .flat_map(|adaptive| [adaptive.latency_window.span(), adaptive.threshold.span()]);
        let others = [
            breaker.window.span(),
            breaker.min_calls.span(),
            breaker.failure_ratio.span(),
            breaker.open_for.span(),
            breaker.growth.span(),
            breaker.open_for_max.span(),
            breaker.jitter.span(),
            breaker.probes.span(),
            breaker.consecutive.as_ref().and_then(At::span),
        ];
        let statuses = breaker.failure_statuses.iter().map(At::span);
        let written = slow.chain(adaptive).chain(others).chain(statuses);
        compiler.note(format!("{path}.breaker"), first(written));
    }
    if let Some(ejection) = &backend.ejection {
        let in_ejection = [
            ejection.consecutive.span(),
            ejection.eject_for.span(),
            ejection.growth.span(),
            ejection.eject_for_max.span(),
            ejection.share.span(),
        ];
        compiler.note(format!("{path}.ejection"), first(in_ejection));
    }
    let retry = &backend.retry;
    let in_retry = [
        retry.attempts.span(),
        retry.backoff.span(),
        retry.jitter.span(),
        retry.share.span(),
        retry.floor.span(),
    ];
    compiler.note(format!("{path}.retry"), first(in_retry));
}

fn note_route(compiler: &mut Compiler<'_>, path: &str, at: Option<Span>, route: &config::Route) {
    compiler.note(path.to_owned(), at);
    let config::Access {
        any_of,
        all_of,
        scopes,
        tiers,
        tenants,
        addresses,
    } = &route.access;
    let admitted = any_of.iter().chain(all_of).flatten().map(At::span);
    let demanded = [scopes, tiers, tenants].into_iter().flatten().map(At::span);
    compiler.note(format!("{path}.access"), first(admitted.chain(demanded)));
    let listed = addresses.allow.iter().flatten().chain(&addresses.deny).map(At::span);
    compiler.note(format!("{path}.access.addresses"), first(listed));
    if let Some(config::OwnCors::On(cors)) = &route.cors {
        compiler.note(format!("{path}.cors"), first(cors.origins.iter().map(At::span)));
    }
    if let Some(config::OwnCompression::On(compression)) = &route.compression {
        compiler.note(format!("{path}.compression"), place_of_compression(compression));
    }
    compiler.note(
        format!("{path}.time_limit"),
        route.time_limit.as_ref().and_then(At::span),
    );
    compiler.note(
        format!("{path}.body_limit"),
        route.body_limit.as_ref().and_then(At::span),
    );
    note_path_policy(compiler, &format!("{path}.path_policy"), &route.path_policy);
    compiler.note(format!("{path}.method_override"), route.method_override.span());
    compiler.note(format!("{path}.upgrade"), route.upgrade.span());
    for (name, limit) in route.limits.iter() {
        compiler.note(format!("{path}.limits.{name}"), name.span());
        if let config::Measure::Rate(rate) = &limit.measure {
            compiler.note(format!("{path}.limits.{name}.wait"), rate.wait.span());
        }
    }
    if let Some(cost) = &route.measured_cost {
        compiler.note(format!("{path}.cost"), first(cost.body.iter().map(At::span)));
    }
    if let Some(mirror) = &route.mirror {
        compiler.note(format!("{path}.mirror"), mirror.to.span());
    }
    if let Some(cache) = &route.cache {
        compiler.note(format!("{path}.cache"), cache.scope.span().or(at));
    }
    if let Some(once) = &route.idempotency {
        let own = [
            (".required", once.required.span()),
            (".max_answer", once.max_answer.span()),
            (".when_down", once.when_down.span()),
        ];
        let any = first(own.iter().map(|(_, at)| *at)).or(once.keep_for.span());
        compiler.note(format!("{path}.idempotency"), any.or(once.scope.span()).or(at));
        for (key, at) in own {
            compiler.note(format!("{path}.idempotency{key}"), at);
        }
    }
    if let config::Target::Split { entries, .. } = &route.target {
        let backends = entries.iter().map(|entry| entry.backend.span());
        compiler.note(format!("{path}.split"), first(backends));
    }
    if let config::Target::Aggregate(aggregate) = &route.target {
        compiler.note(format!("{path}.aggregate.body_limit"), aggregate.body_limit.span());
        compiler.note(format!("{path}.aggregate.conflict"), aggregate.conflict.span());
        let fields = aggregate.fields.as_ref().and_then(|fields| fields.allow.first());
        compiler.note(format!("{path}.aggregate.fields"), fields.and_then(At::span));
        for (name, part) in aggregate.parts.iter() {
            let part_path = format!("{path}.aggregate.parts.{name}");
            compiler.note(
                format!("{part_path}.time_limit"),
                part.time_limit.as_ref().and_then(At::span),
            );
            let elements = part.for_each.as_ref().and_then(|for_each| for_each.limit.span());
            compiler.note(format!("{part_path}.for_each.limit"), elements);
            compiler.note(format!("{part_path}.body_limit"), part.body_limit.span());
            compiler.note(part_path, name.span());
        }
    }
}

fn note_path_policy(compiler: &mut Compiler<'_>, path: &str, policy: &config::PathPolicy) {
    let config::PathPolicy {
        dot_segments,
        double_slash,
        encoded_slash,
        backslash,
    } = policy;
    let keys = [
        ("dot_segments", dot_segments.as_ref().and_then(At::span)),
        ("double_slash", double_slash.as_ref().and_then(At::span)),
        ("encoded_slash", encoded_slash.as_ref().and_then(At::span)),
        ("backslash", backslash.as_ref().and_then(At::span)),
    ];
    compiler.note(path.to_owned(), first(keys.iter().map(|(_, at)| *at)));
    for (key, at) in keys {
        compiler.note(format!("{path}.{key}"), at);
    }
}

/// Returns the start of a section: the position of its first written setting.
fn first(spans: impl IntoIterator<Item = Option<Span>>) -> Option<Span> {
    spans.into_iter().flatten().min()
}

fn route(config: &Config, name: &At<Arc<str>>, written: &config::Route, meant: &Route) -> RouteOutline {
    let limited_by = match &written.time_limit {
        Some(_) => format!("routes.{name}.time_limit"),
        None => "time_limits.request".to_owned(),
    };
    let time_budget = TimeBudget::of(meant, limited_by, turn(config, name, written));
    RouteOutline {
        name: Arc::clone(name),
        matches: matches(&written.matches),
        access: access(config, &written.access),
        limits: written
            .limits
            .iter()
            .map(|(name, limit)| self::limit(name, limit, written))
            .collect(),
        cost: written.cost.get(),
        measured_cost: written.measured_cost.as_ref().map(measured_cost),
        time_limit_ms: millis(meant.time_limit),
        worst_case_ms: millis(time_budget.worst.time),
        time_budget,
        fan_out: FanOut::of(meant, tiers(config, written)),
        stream: *written.stream,
        body_limit_bytes: meant.body_limit.value,
        reads_json: matches!(&meant.target, crate::plan::Target::Aggregate(aggregate) if aggregate.reads_body()),
        edge: crate::plan::compile::route_edge::outline(config, written),
        target: target(&written.target),
        mirror: written.mirror.as_ref().map(mirror),
        cache: written.cache.as_ref().map(cache),
        idempotency: written.idempotency.as_ref().map(|once| idempotency(config, once)),
        hedge: written.hedge.as_ref().map(hedge),
    }
}

/// Returns the longest wait for rate-limit tokens; `None` if no limit lets requests wait.
fn turn(config: &Config, name: &str, written: &config::Route) -> Option<Limit> {
    let of_tiers = admitted(config, written).map(|(tier, terms)| (format!("tiers.{tier}.wait"), *terms.rate.wait));
    let own = written.limits.iter().filter_map(|(limit, terms)| match &terms.measure {
        config::Measure::Rate(rate) => Some((format!("routes.{name}.limits.{limit}.wait"), *rate.wait)),
        config::Measure::Quota(_) | config::Measure::InFlight(_) => None,
    });
    of_tiers
        .chain(own)
        .map(|(setting, time)| Limit { setting, time })
        .filter(|limit| !limit.time.is_zero())
        .max_by_key(|limit| limit.time)
}

fn admitted<'c>(
    config: &'c Config,
    written: &'c config::Route,
) -> impl Iterator<Item = (&'c At<Arc<str>>, &'c config::Tier)> {
    let tiers = &written.access.tiers;
    let admits = |tier: &str| tiers.is_empty() || tiers.iter().any(|admitted| **admitted == *tier);
    config.tiers.iter().filter(move |(tier, _)| admits(tier))
}

/// Returns the tiers that the route admits, with their tokens per second.
fn tiers<'c>(config: &'c Config, written: &'c config::Route) -> impl Iterator<Item = (Arc<str>, f64)> {
    admitted(config, written).map(|(tier, terms)| {
        let rate = &terms.rate.rate;
        (Arc::clone(tier), rate.count.get() as f64 / rate.per.as_secs_f64())
    })
}

/// Writes wanted values, each with the name of what has it before it.
fn pairs(map: &NamedMap<config::Wanted>, between: &str) -> Vec<String> {
    let pair = |(name, wanted): (&At<Arc<str>>, &config::Wanted)| match wanted {
        config::Wanted::Any => format!("{name}{between}*"),
        config::Wanted::Exactly(text) => format!("{name}{between}{text}"),
        config::Wanted::Regex(text) => format!("{name}{between}/{text}/"),
    };
    map.iter().map(pair).collect()
}

fn matches(written: &config::Match) -> MatchOutline {
    MatchOutline {
        hosts: texts(&written.hosts),
        paths: texts(&written.paths),
        prefixes: texts(&written.prefixes),
        methods: texts(&written.methods),
        headers: pairs(&written.headers, ": "),
        query: pairs(&written.query, "="),
        parameters: pairs(&written.parameters, "="),
    }
}

fn access(config: &Config, written: &config::Access) -> AccessOutline {
    let words = |all: &[At<Credential>]| all.iter().map(|credential| word(credential)).collect();
    let callers = &config.callers;
    let any_of = match (&written.any_of, &written.all_of) {
        (Some(any_of), _) => words(any_of),
        (None, Some(_)) => Vec::new(),
        (None, None) => {
            let configured = [
                (callers.api_keys.is_some(), Credential::ApiKey),
                (!callers.jwt.is_empty(), Credential::Jwt),
                (callers.mtls.is_some(), Credential::Mtls),
                (callers.basic.is_some(), Credential::Basic),
                (callers.external.is_some(), Credential::External),
            ];
            let configured = configured.iter().filter(|(is, _)| *is);
            configured.map(|(_, credential)| word(credential)).collect()
        }
    };
    let all_of = written.all_of.as_deref().map(words).unwrap_or_default();
    let [scopes, tiers, tenants] = [&written.scopes, &written.tiers, &written.tenants].map(|names| texts(names));
    AccessOutline {
        any_of,
        all_of,
        scopes,
        tiers,
        tenants,
    }
}

fn word(credential: &Credential) -> String {
    match credential {
        Credential::ApiKey => "api_key".to_owned(),
        Credential::Jwt => "jwt".to_owned(),
        Credential::JwtFrom(issuer) => format!("jwt:{issuer}"),
        Credential::Mtls => "mtls".to_owned(),
        Credential::Basic => "basic".to_owned(),
        Credential::External => "external".to_owned(),
        Credential::Anonymous => "anonymous".to_owned(),
    }
}

fn limit(name: &Arc<str>, written: &config::Limit, route: &config::Route) -> LimitOutline {
    LimitOutline {
        name: Arc::clone(name),
        terms: written.measure.to_string(),
        per: written.per.as_str(),
        mode: written.mode.as_str(),
        cost: written.cost.as_ref().unwrap_or(&route.cost).get(),
        counts_units: metered::limit_counts_units(route, written),
    }
}

fn target(written: &config::Target) -> TargetOutline {
    match written {
        config::Target::Backend { name, rewrite } => TargetOutline::Backend {
            name: name.value.clone(),
            rewrite: rewrite.as_ref().map(|rewrite| rewrite.value.clone()),
        },
        config::Target::Split { entries, rewrite } => TargetOutline::Split {
            entries: entries.iter().map(split_entry).collect(),
            rewrite: rewrite.as_ref().map(|rewrite| rewrite.value.clone()),
        },
        config::Target::Aggregate(aggregate) => TargetOutline::Aggregate {
            partial: aggregate.partial.as_str(),
            document: aggregate.document.as_ref().map(|part| part.value.clone()),
            fields: aggregate.fields.as_ref().map(|fields| FieldsOutline {
                parameter: fields.parameter.value.clone(),
                allow: texts(&fields.allow),
            }),
            parts: aggregate
                .parts
                .iter()
                .map(|(name, part)| self::part(name, part, aggregate))
                .collect(),
        },
        config::Target::Respond(respond) => TargetOutline::Respond {
            status: *respond.status,
        },
        config::Target::Redirect(redirect) => TargetOutline::Redirect {
            to: redirect.to.value.clone(),
            status: *redirect.status,
        },
    }
}

fn split_entry(written: &config::SplitEntry) -> SplitOutline {
    let when = written.when.as_ref();
    let lists = when
        .into_iter()
        .flat_map(|when| [("tier", &when.tier), ("tenant", &when.tenant)]);
    let lists = lists.filter(|(_, names)| !names.is_empty());
    let of_lists = lists.map(|(what, names)| format!("{what} {}", texts(names).join(" or ")));
    let fields = when
        .into_iter()
        .flat_map(|when| [("header", &when.header), ("cookie", &when.cookie)]);
    let of_fields = fields.flat_map(|(what, values)| {
        let told = pairs(values, ": ").into_iter();
        told.map(move |pair| format!("{what} {pair}"))
    });
    SplitOutline {
        backend: written.backend.value.clone(),
        percent: written
            .percent
            .as_ref()
            .map(|percent| f64::from(percent.hundredths()) / 100.0),
        key: written.key.as_ref().map(ToString::to_string),
        when: of_lists.chain(of_fields).collect(),
    }
}

fn measured_cost(written: &config::MeasuredCost) -> MeasuredCostOutline {
    let reserve = &written.reserve;
    MeasuredCostOutline {
        body: shown(&written.body),
        text: shown(&written.text),
        bytes_per_unit: *reserve.bytes_per_unit,
        max: shown(&reserve.max),
        default: reserve.default.as_deref().map(|default| default.get()),
        most: reserve.most.as_deref().map(|most| most.get()),
        times: shown(&reserve.times),
        quotas: texts(&written.quotas),
    }
}

fn shown<T: std::fmt::Display>(all: &[At<T>]) -> Vec<String> {
    all.iter().map(|one| one.value.to_string()).collect()
}

fn cache(written: &config::RouteCache) -> CacheOutline {
    let time = |time: &Option<At<std::time::Duration>>| time.as_ref().map(|time| millis(**time));
    CacheOutline {
        scope: written.scope.as_str(),
        ttl_ms: time(&written.ttl),
        stale_while_revalidate_ms: time(&written.stale_while_revalidate),
        stale_if_error_ms: time(&written.stale_if_error),
        vary: texts(&written.vary),
        caller_directives: written.caller_directives.as_str(),
    }
}

fn idempotency(config: &Config, written: &config::RouteIdempotency) -> IdempotencyOutline {
    IdempotencyOutline {
        required: *written.required,
        keep_for_ms: millis(*written.keep_for),
        scope: written.scope.as_str(),
        max_answer_bytes: written.max_answer.0,
        headers: texts(&written.headers),
        release_on: written.release_on.iter().map(|status| **status).collect(),
        when_down: config.limits_store.as_ref().map(|_| written.when_down.as_str()),
    }
}

fn mirror(written: &config::Mirror) -> MirrorOutline {
    MirrorOutline {
        to: written.to.value.clone(),
        percent: f64::from(written.percent.hundredths()) / 100.0,
        key: written.key.to_string(),
        methods: texts(&written.methods),
        body_limit_bytes: written.body.0,
        limit: *written.limit,
        compare: written.compare.as_str(),
    }
}

fn part(name: &Arc<str>, written: &config::Part, aggregate: &config::Aggregate) -> PartOutline {
    let forward = written.forward.as_ref().or(aggregate.forward.as_ref());
    PartOutline {
        name: Arc::clone(name),
        backend: written.backend.value.clone(),
        path: written.path.value.clone(),
        required: *written.required,
        time_limit_ms: written.time_limit.as_ref().map(|limit| millis(**limit)),
        needs: texts(&written.needs),
        method: written.method.to_string(),
        forward: match forward {
            None => ForwardedOutline::Word("all_but_credentials"),
            Some(fields) if fields.iter().any(|field| field.value == config::ForwardedField::All) => {
                ForwardedOutline::Word("all")
            }
            Some(fields) => ForwardedOutline::Names(
                fields
                    .iter()
                    .filter_map(|field| match &field.value {
                        config::ForwardedField::Named(name) => Some(name.to_string()),
                        config::ForwardedField::All => None,
                    })
                    .collect(),
            ),
        },
        conditional: written.when.is_some(),
        for_each: written.for_each.as_ref().map(|for_each| ForEachOutline {
            over: for_each.over.value.clone(),
            into: for_each.into.as_ref().map(|path| path.value.clone()),
            limit: *for_each.limit,
            at_once: *for_each.at_once,
            on_failure: for_each.on_failure.as_str(),
        }),
        cache: written.cache.as_ref().map(cache),
        hedge: written.hedge.as_ref().map(hedge),
    }
}

fn hedge(written: &config::Hedge) -> HedgeOutline {
    HedgeOutline {
        after: match *written.after {
            config::HedgeAfter::P95 => "p95".to_owned(),
            config::HedgeAfter::Time(time) => config::duration_text(time),
        },
        at_least_ms: millis(*written.at_least),
        at_most_ms: millis(*written.at_most),
    }
}

fn texts<T: std::fmt::Display>(all: &[At<T>]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns where a compression is written; `None` if all of it is left to the defaults.
fn place_of_compression(written: &config::Compression) -> Option<Span> {
    let lists = written
        .codings
        .iter()
        .map(At::span)
        .chain(written.types.iter().map(At::span));
    first(lists.chain([written.minimum.span(), written.memory.span()]))
}
