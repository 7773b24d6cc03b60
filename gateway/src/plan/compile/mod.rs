//! Compiles the config into a plan, or reports every mistake at once.
//!
//! This folder is the only place that sees both the config and the stages. Each section reports its mistakes and goes
//! on, so that an operator can fix a file in one pass. Nothing that runs is changed here: a mistaken plan leaves no
//! trace, and a good one takes effect in [`crate::control::reload`].

mod admin;
mod aggregates;
mod backend_tls;
mod backends;
mod caches;
pub mod callers;
mod compiler;
mod compression;
mod costs;
mod credentials;
mod endpoints;
pub mod external;
mod fallbacks;
mod hedges;
mod idempotency;
mod limits;
mod listeners;
mod literals;
mod metered;
mod metrics;
mod mirrors;
mod named_files;
mod optional;
mod outline;
mod part_heads;
mod redirects;
mod request_keys;
mod route_edge;
mod routes;
mod scope;
mod shared_limits;
mod shared_store;
mod splits;
pub mod tenants;
#[cfg(test)]
pub(crate) mod test_plan;
#[cfg(test)]
mod tests;
mod tls_files;
mod tracing;
mod usage;
mod wanted;
mod warnings;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use self::backends::Backends;
use self::compiler::Compiler;
use self::limits::Tables;
use crate::plan::{Edge, Plan, State, TimeLimits, Written};
use policies::overload::OverloadSettings;
use policies::{Ratio, Share};

use crate::client::address::TrustedProxies;
use crate::config::{self, Code, Config, Invalid, Loaded, Mistake, Mistakes, Readable, Workers};
use crate::files::FileSet;
use crate::setting::SettingsBuilder;
use crate::wire::slow_caller::Rates;

/// A plan that is ready to take effect.
pub struct Compiled {
    pub plan: Plan,
    pub warnings: Mistakes,
}

/// Compiles a config, or reports every mistake in it: those of reading, and those that can be found in the rest of it.
///
/// # Errors
/// Every mistake, ready to be shown.
pub fn compile_readable(
    readable: Readable,
    state: &State,
    generation: u64,
) -> Result<(Compiled, Loaded), Box<Invalid>> {
    let Readable {
        mut loaded,
        mut mistakes,
    } = readable;
    let found = match compile(&mut loaded, state, generation) {
        Ok(compiled) if mistakes.is_empty() => return Ok((compiled, loaded)),
        Ok(_) => Mistakes::default(),
        Err(found) => found,
    };
    let is_known = |found: &Mistake| {
        mistakes
            .iter()
            .any(|known| known.at == found.at && known.message == found.message)
    };
    let more: Vec<_> = found
        .iter()
        .filter(|found| !loaded.unsound.may_explain(found) && !is_known(found))
        .cloned()
        .collect();
    mistakes.extend(more);
    let Loaded { sources, .. } = loaded;
    Err(Box::new(Invalid { sources, mistakes }))
}

/// Resolves names, checks ranges and reuses the state that outlives a plan.
///
/// # Errors
/// Every mistake that could not be seen while the config was read.
pub fn compile(loaded: &mut Loaded, state: &State, generation: u64) -> Result<Compiled, Mistakes> {
    let config = &loaded.config;
    let mut compiler = Compiler {
        config,
        unsound: &loaded.unsound,
        state,
        sources: &mut loaded.sources,
        mistakes: Mistakes::default(),
        warnings: std::mem::take(&mut loaded.warnings),
        places: HashMap::new(),
        settings: SettingsBuilder::default(),
        workers: workers(config),
        compression: compression::of_top(config),
        unusable: Vec::new(),
        tenants: Some(BTreeSet::new()),
        files: Vec::new(),
    };
    let config_file = PathBuf::from(compiler.sources.first_name());
    named_files::doubt_writers(&mut compiler, &config_file, None);
    let tenants = tenants::read(&mut compiler);
    let of_file = tenants.as_ref().ok().and_then(Option::as_ref);
    let mut tables = Tables::compile(&mut compiler, of_file);
    let backends = Backends::compile(&mut compiler);
    let listeners = listeners::compile(&mut compiler);
    let (admin, operator_token) = admin::compile(&mut compiler).unzip();
    let admin_tokens = admin::tokens(&mut compiler);
    let revocations = callers::revocations(&mut compiler);
    let store = shared_store::compile(&mut compiler);
    let tracing = tracing::compile(&mut compiler);
    let usage = usage::compile(&mut compiler);
    let external = external::compile(&mut compiler, &backends);
    let authenticator = callers::compile(&mut compiler, &tables, external);
    let routes = routes::compile(&mut compiler, &mut tables, &backends);
    if let (Some(read), Some(tables), Some(routes)) = (of_file, &tables, &routes) {
        let costs = routes.listed.iter().map(|route| route.cost);
        tenants::check(&mut compiler, read, &tables.tiers, costs.max().unwrap_or(1));
    }
    let time = time_limits(&mut compiler);
    warnings::check(&mut compiler);
    named_files::check_others(&mut compiler, &loaded.files);
    let made = (listeners, tables, authenticator, routes);
    let ((Some(listeners), Some(tables), Some(authenticator), Some(routes)), true) =
        (made, compiler.mistakes.is_empty())
    else {
        return Err(compiler.mistakes);
    };
    let finish_of_top = route_edge::finish_of_top(&mut compiler);
    let outline = Arc::new(outline::compile(&mut compiler, &routes.listed));
    let Compiler {
        sources,
        warnings,
        workers,
        compression,
        files,
        settings,
        ..
    } = compiler;
    let Config {
        // Compiled in sections of their own, above.
        compression: _,
        listeners: _,
        admin: _,
        cache: _,
        idempotency: _,
        callers: _,
        tiers: _,
        default_tier: _,
        tenants: _,
        tenants_file: _,
        backends: _,
        routes: _,
        account_limits: _,
        limits_store: _,
        cors: _,
        security_headers: _,
        added_headers: _,
        path_policy: _,
        workers: _,
        // Read at the start alone.
        access_log: _,
        tracing: _,
        usage: _,
        client_address,
        time_limits,
        request_limits,
        connection_limits,
        minimum_rates,
        overload,
        watch,
        state_file,
        metrics,
        legacy_limit_fields,
    } = config;
    let config::ClientAddress {
        trusted_proxies,
        ipv6_prefix,
    } = client_address;
    let config::TimeLimits {
        // Compiled in `time_limits`.
        request: _,
        reserve: _,
        minimum: _,
        // Settings of calls.
        connect: _,
        idle_stream: _,
        stream_limit: _,
        write,
        first_byte,
        head,
        keep_alive,
        drain_notice,
        drain,
    } = time_limits;
    let config::RequestLimits {
        head: head_limit,
        headers,
        uri,
        // Defaults of routes.
        body: _,
        json_body: _,
        json_total,
        parked_total,
        mirrored_total,
    } = request_limits;
    let config::ConnectionLimits {
        total,
        per_address,
        requests,
        streams,
        handshakes_per_address,
        handshake_share,
    } = connection_limits;
    let rates = |config::MinimumRates { grace, body, answer }: &config::MinimumRates| Rates {
        grace: **grace,
        body: body.0,
        answer: answer.0,
    };
    let overload_settings = |config::Overload { delay, period }: &config::Overload| OverloadSettings {
        delay: **delay,
        period: **period,
    };
    let plan = Plan {
        admin_tokens,
        tenants: tenants.ok().flatten(),
        generation,
        edge: Edge {
            listeners,
            workers,
            store,
            tracing,
            usage,
            state_file: state_file.as_ref().map(|file| file.value.clone()),
            admin,
            operator_token: operator_token.flatten(),
            trusted: TrustedProxies::new(trusted_proxies.iter().map(|net| **net)),
            ipv6_prefix: **ipv6_prefix,
            uri_limit: usize::try_from(uri.0).unwrap_or(usize::MAX),
            head_limit: usize::try_from(head_limit.0).unwrap_or(usize::MAX),
            header_limit: **headers as usize,
            json_total: json_total.0,
            parked_total: parked_total.0,
            mirrored_total: mirrored_total.0,
            most_connections: **total as usize,
            most_per_address: per_address.as_ref().map(|most| most.value),
            most_requests: requests.as_ref().map(|most| most.value),
            most_handshakes_per_address: **handshakes_per_address,
            handshake_share: self::handshake_share(handshake_share),
            most_streams: **streams,
            rates: minimum_rates.as_ref().map(rates),
            overload: overload.as_ref().map(overload_settings),
            first_byte: **first_byte,
            head: **head,
            idle: **keep_alive,
            write: **write,
            drain_notice: **drain_notice,
            drain: **drain,
            legacy_limit_fields: **legacy_limit_fields,
            finish: finish_of_top,
            compression,
        },
        time,
        routes: routes.table,
        listed: routes.listed,
        path_policies: route_edge::path_policies(config),
        authenticator,
        tiers: tables.tiers,
        failures: tables.failures,
        backends: backends.into_all(),
        observer: Arc::clone(&state.observer),
        stale: Arc::clone(state.responses.store()),
        responses: Arc::clone(&state.responses),
        has_cache: caches::has_any(config),
        stored_bytes: caches::stored_bytes(config),
        idempotency: Arc::clone(&state.idempotency),
        idempotency_room: idempotency::room(config),
        workspace: Arc::clone(&state.workspace),
        parked: Arc::clone(&state.parked),
        loads: Arc::clone(&state.loads),
        via: state.via.clone(),
        key_file: config.callers.api_keys.as_ref().map(|keys| {
            let stamp = sources.reader().stamp(&keys.file);
            (keys.file.value.clone(), stamp)
        }),
        key_places: callers::key_places(config),
        external_fields: external::fields(config),
        revocations,
        written: Written {
            text: sources.first().into(),
            revocations: sources
                .reader()
                .versions(config.callers.revocations.iter().map(|kept| &kept.file.value)),
            files: if **watch {
                sources.reader().versions(&files)
            } else {
                FileSet::new()
            },
        },
        account_limits: limits::account_limits(config),
        terms: tables.terms,
        metric_tenants: metrics::compile(metrics),
        settings: Arc::new(settings.build(&outline.places)),
        outline,
    };
    Ok(Compiled { plan, warnings })
}

/// Returns the share of a worker's time for TLS handshakes; `None` sets no limit.
fn handshake_share(written: &config::Ratio) -> Option<Share> {
    let share = Ratio::new(written.get()).filter(|share| *share < Ratio::ONE);
    share.and_then(|share| Share::new(share, 1))
}

fn workers(config: &Config) -> usize {
    match *config.workers {
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        Workers::Count(count) => count.get() as usize,
    }
}

fn time_limits(compiler: &mut Compiler<'_>) -> TimeLimits {
    let limits = &compiler.config.time_limits;
    if limits.reserve.value >= limits.request.value {
        let at = limits.reserve.span().or(limits.request.span());
        compiler.mistakes.push(
            Mistake::new(
                Code::OverParent,
                at,
                "`time_limits.reserve` leaves nothing of `time_limits.request`",
            )
            .related(limits.request.span(), "the whole request")
            .hint("the reserve is what we keep for answering; 2s of 30s is usual"),
        );
    }
    TimeLimits {
        request: limits.request.saturating_sub(limits.reserve.value),
        minimum: limits.minimum.value,
    }
}
