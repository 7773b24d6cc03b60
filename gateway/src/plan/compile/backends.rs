//! Compiles backends, reusing the guards and endpoints that outlive a plan.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::StatusCode;
use policies::balance::LoadSettings;
use policies::breaker::{AdaptiveRule, SlowCalls};
use policies::bulkhead::Limits;
use policies::retry::RetryBudgetSettings;
use policies::{
    AdaptiveSettings, Backoff, BreakerSettings, EjectionSettings, HealthSettings, Jitter, Ratio, Retry, health,
};

use crate::call::backend::{Backend, BackendSettingIds, GuardSettings, Guards, Settings};
use crate::call::classify::{Repeatable, RetryOn};
use crate::call::endpoints::{BalanceSettings, EndpointSettings};
use crate::call::guards::BulkheadSettingIds;
use crate::call::health_check::{Asks, HealthCheck};
use crate::call::pool::PoolSettings;
use crate::call::slot_limit::{SlotLimit, SlotSettings};
use crate::clock;
use crate::config::{self, Code, Mistake};
use crate::plan::compile::backend_tls::{self, System};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::request_keys::check_field;
use crate::plan::compile::{endpoints, external};
use crate::request_key::RequestKey;

/// All backends, by name and in the order of the config.
pub(super) struct Backends {
    order: Vec<Arc<Backend>>,
    /// The external service, which routes cannot name.
    external: Option<Arc<Backend>>,
    by_name: HashMap<Arc<str>, Arc<Backend>>,
}

impl Backends {
    pub(super) fn compile(compiler: &mut Compiler<'_>) -> Self {
        let config = compiler.config;
        let system = System::default();
        let order: Vec<_> = config
            .backends
            .iter()
            .map(|(name, written)| Arc::new(backend(compiler, &system, name, written)))
            .collect();
        let by_name = order
            .iter()
            .map(|backend| (Arc::clone(&backend.name), Arc::clone(backend)))
            .collect();
        let external = config.callers.external.as_ref().map(|written| {
            let name = Arc::from(external::SERVICE);
            Arc::new(backend(compiler, &system, &name, &written.as_backend()))
        });
        Self {
            order,
            external,
            by_name,
        }
    }

    pub(super) fn external(&self) -> Option<&Arc<Backend>> {
        self.external.as_ref()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Backend>> {
        self.by_name.get(name)
    }

    pub(super) fn into_all(self) -> Vec<Arc<Backend>> {
        self.order.into_iter().chain(self.external).collect()
    }
}

/// Returns the path of a backend in the config.
pub(super) fn path(name: &str) -> String {
    match name {
        external::SERVICE => name.to_owned(),
        _ => format!("backends.{name}"),
    }
}

fn backend(compiler: &mut Compiler<'_>, system: &System, name: &Arc<str>, written: &config::Backend) -> Backend {
    check_limits(compiler, name, written);
    if let Some(key) = &written.balance.key
        && let RequestKey::Header(field) = &key.value
    {
        check_field(compiler, &format!("backends.{name}.balance"), field, key.span());
    }
    let settings = settings(compiler.config, written);
    let guard_settings = guard_settings(written);
    let guards = Arc::clone(
        compiler
            .state
            .kept()
            .guards
            .entry(Arc::clone(name))
            .or_insert_with(|| Arc::new(Guards::new(&guard_settings, clock::now()))),
    );
    let metrics = compiler.state.observer.registry.backend(name);
    let tls = endpoints::may_speak_tls(system, written)
        .then(|| backend_tls::compile(compiler, system, name, written, &metrics))
        .flatten();
    let in_http2 = *written.protocol != config::Protocol::Http1;
    let found = endpoints::compile(compiler, name, written, tls.as_ref());
    let certificate_expires = tls.as_ref().and_then(|tls| tls.expires);
    let shared = EndpointSettings {
        tls: tls.map(|tls| tls.shared),
        in_http2,
        workers: compiler.workers,
    };
    Backend {
        name: Arc::clone(name),
        settings,
        ids: ids(compiler, name, written),
        guards,
        guard_settings,
        breaker_on: written.breaker.is_some(),
        endpoints: found.set(compiler, name, shared),
        health_check: written.health.as_ref().and_then(health_check),
        written: found.listed,
        certificate_expires,
        metrics,
    }
}

fn settings(config: &config::Config, written: &config::Backend) -> Settings {
    let limits = &config.time_limits;
    let config::Backend {
        // Compiled in `backend`.
        endpoints: _,
        protocol: _,
        tls: _,
        health: _,
        time_limit,
        attempt_limit,
        bulkhead,
        breaker,
        // A guard.
        ejection: _,
        balance: balanced,
        retry,
        when_none_is_up,
        preserve_host,
        connections,
    } = written;
    let config::Retry {
        attempts,
        backoff,
        factor,
        jitter,
        // Settings of the retry budget, which is a guard.
        share: _,
        floor: _,
        on: retried,
        methods,
        with_idempotency_key,
        body_limit,
    } = retry;
    let config::Connections {
        limit: idle_limit,
        idle,
        age,
        answer_fields,
        informational,
        streams,
        ping,
    } = connections;
    let statuses = retried.iter().filter_map(|on| match **on {
        config::RetryOn::Status(status) => Some(status),
        _ => None,
    });
    let on = |wanted| retried.iter().any(|on| **on == wanted);
    let failures = match breaker {
        Some(breaker) => breaker.failure_statuses.iter().map(|status| **status).collect(),
        None => config::Breaker::FAILURE_STATUSES.to_vec(),
    };
    Settings {
        time_limit: **time_limit,
        attempt_limit: **attempt_limit,
        connect: *limits.connect,
        minimum: *limits.minimum,
        queue_wait: *bulkhead.wait,
        retry: Retry {
            attempts: **attempts,
            backoff: Backoff {
                initial: backoff.first,
                max: backoff.cap,
                factor: **factor,
                jitter: match **jitter {
                    config::Jitter::Share(share) => Jitter::Proportional(share.get()),
                    config::Jitter::Full => Jitter::Full,
                    config::Jitter::Equal => Jitter::Equal,
                },
            },
        },
        retry_on: RetryOn {
            unreached: on(config::RetryOn::Unreached),
            broken: on(config::RetryOn::Broken),
            timed_out: on(config::RetryOn::TimedOut),
            statuses: statuses.collect(),
        },
        repeatable: Repeatable {
            methods: methods.iter().map(|method| method.value.clone()).collect(),
            with_idempotency_key: **with_idempotency_key,
        },
        keep: usize::try_from(body_limit.0).unwrap_or(usize::MAX),
        failures: failures
            .into_iter()
            .filter_map(|status| StatusCode::from_u16(status).ok())
            .collect(),
        pool: PoolSettings {
            // The default is the highest number of slots, so that all connections of a full backend are kept.
            idle_limit: idle_limit.as_ref().map_or_else(|| bulkhead.most(), |limit| limit.value) as usize,
            idle_for: **idle,
            max_age: **age,
            streams: **streams,
            ping: **ping,
            answer_fields: **answer_fields as usize,
            forwards_interim: **informational == config::Informational::Forward,
        },
        balance: balance(balanced),
        preserve_host: **preserve_host,
        is_traced: config.tracing.is_some(),
        idle_stream: *limits.idle_stream,
        stream_limit: limits.stream_limit.as_ref().map(|limit| limit.value),
        when_none_is_up: match **when_none_is_up {
            config::WhenNoneIsUp::TryAll => health::WhenNoneIsUp::TryAll,
            config::WhenNoneIsUp::Refuse => health::WhenNoneIsUp::Refuse,
        },
    }
}

fn ids(compiler: &mut Compiler<'_>, name: &str, written: &config::Backend) -> BackendSettingIds {
    let place = path(name);
    let when_none_is_up = compiler.setting_at(&format!("{place}.when_none_is_up"), written.when_none_is_up.span());
    let mut id = |key: &str| compiler.setting(&format!("{place}.{key}"));
    BackendSettingIds {
        endpoints: id(if name == external::SERVICE { "url" } else { "endpoints" }),
        time_limit: id("time_limit"),
        attempt_limit: id("attempt_limit"),
        bulkhead: BulkheadSettingIds {
            slots: id("bulkhead"),
            wait: id("bulkhead.wait"),
        },
        breaker: id("breaker"),
        when_none_is_up,
    }
}

fn balance(written: &config::Balance) -> BalanceSettings {
    let config::Balance {
        by,
        key,
        failure_costs,
        warm_up,
    } = written;
    BalanceSettings {
        policy: **by,
        key: key.as_ref().map(|key| key.value.clone()),
        load: LoadSettings {
            failure_costs: **failure_costs,
            warm_up: **warm_up,
        },
    }
}

fn guard_settings(written: &config::Backend) -> GuardSettings {
    let config::Bulkhead {
        limit,
        from,
        to,
        queue,
        // A setting of each call.
        wait: _,
        tenant_share,
        streams,
    } = &written.bulkhead;
    GuardSettings {
        breaker: written.breaker.as_ref().map(breaker),
        ejection: written.ejection.as_ref().map(ejection),
        slots: SlotSettings {
            limit: match **limit {
                config::SlotLimit::Fixed(number) => SlotLimit::Fixed(at_least_one(number)),
                config::SlotLimit::Adaptive => SlotLimit::Adaptive(AdaptiveSettings {
                    from: at_least_one(**from),
                    to: at_least_one(**to),
                }),
            },
            // A default follows the number of slots, which may change.
            queue: queue.is_written().then_some(**queue),
            tenant_share: tenant_share.is_written().then(|| ratio(tenant_share)),
        },
        stream_slots: Limits {
            slots: at_least_one(**streams),
            places: **queue,
            tenant_share: ratio(tenant_share),
        },
        retry_budget: RetryBudgetSettings {
            share: ratio(&written.retry.share),
            floor: written.retry.floor.count.get() as f64 / written.retry.floor.per.as_secs_f64(),
        },
    }
}

fn health_check(written: &config::Health) -> Option<HealthCheck> {
    let config::Health {
        path,
        // What is probed if neither of the others is written.
        tcp: _,
        grpc,
        expect,
        every,
        time_limit,
        fall,
        rise,
    } = written;
    let asks = if let Some(path) = path {
        let expected = expect.iter().map(|range| range.first..=range.last);
        Asks::Path(path.0.clone(), expected.collect())
    } else if let Some(service) = grpc {
        Asks::Grpc(service.value.clone())
    } else {
        Asks::Tcp
    };
    Some(HealthCheck {
        asks,
        time_limit: **time_limit,
        is_paced: !every.is_written(),
        settings: HealthSettings {
            every: **every,
            fall: NonZeroU32::new(**fall)?,
            rise: NonZeroU32::new(**rise)?,
        },
    })
}

fn breaker(written: &config::Breaker) -> BreakerSettings {
    let config::Breaker {
        window,
        min_calls,
        failure_ratio,
        open_for,
        growth,
        open_for_max,
        jitter,
        probes,
        slow: slow_calls,
        consecutive,
        adaptive,
        // A setting of each call.
        failure_statuses: _,
    } = written;
    let slow = |config::Slow { over, ratio: share }: &config::Slow| SlowCalls {
        over: **over,
        ratio: ratio(share),
    };
    let rule = |config::Adaptive {
                    latency_window,
                    threshold,
                }: &config::Adaptive| AdaptiveRule {
        latency_window: at_least_one(**latency_window),
        threshold: **threshold,
    };
    BreakerSettings {
        window: **window,
        min_calls: min_calls.get(),
        failure_ratio: adaptive.is_none().then(|| ratio(failure_ratio)),
        slow: slow_calls.as_ref().map(slow),
        consecutive: consecutive.as_ref().map(|most| most.value),
        adaptive: adaptive.as_ref().map(rule),
        open_for: **open_for,
        growth: **growth,
        open_for_max: **open_for_max,
        jitter: ratio(jitter),
        probes: at_least_one(**probes),
    }
}

fn ejection(written: &config::Ejection) -> EjectionSettings {
    let config::Ejection {
        consecutive,
        eject_for,
        growth,
        eject_for_max,
        share,
    } = written;
    EjectionSettings {
        consecutive: **consecutive,
        eject_for: **eject_for,
        growth: **growth,
        eject_for_max: **eject_for_max,
        share: ratio(share),
    }
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn ratio(written: &config::Ratio) -> Ratio {
    Ratio::new(written.get()).unwrap_or(Ratio::ONE)
}

fn check_limits(compiler: &mut Compiler<'_>, name: &str, written: &config::Backend) {
    if written.attempt_limit.value > written.time_limit.value {
        compiler.mistake(
            Mistake::new(
                Code::OverParent,
                written.attempt_limit.span(),
                format!("`{}.attempt_limit` is longer than the call it is part of", path(name)),
            )
            .related(written.time_limit.span(), "the most a call may take")
            .hint("an attempt ends with its call at the latest: lower it, or raise `time_limit`"),
        );
    }
    let all = written.attempt_limit.saturating_mul(*written.retry.attempts);
    if written.attempt_limit.is_written() && *written.retry.attempts > 1 && all > *written.time_limit {
        compiler.warnings.push(
            Mistake::new(
                Code::Doubtful,
                written.attempt_limit.span(),
                format!(
                    "{} attempts of `{}` do not fit into its `time_limit`",
                    *written.retry.attempts,
                    path(name)
                ),
            )
            .related(written.time_limit.span(), "the most a call may take")
            .hint("the last attempts get what is left, or are not made"),
        );
    }
    // A name may have several addresses.
    let is_address = |only: &&config::Endpoint| only.url.host.parse::<IpAddr>().is_ok();
    let only = <&[_; 1]>::try_from(written.endpoints.listed()).ok().map(|[only]| only);
    if let (Some(only), Some(ejection)) = (only.filter(is_address), &written.ejection) {
        let keys = [
            ejection.consecutive.span(),
            ejection.eject_for.span(),
            ejection.growth.span(),
            ejection.eject_for_max.span(),
        ];
        if let Some(first) = keys.into_iter().flatten().min() {
            compiler.warnings.push(
                Mistake::new(
                    Code::Doubtful,
                    first,
                    format!("`backends.{name}.ejection` does nothing"),
                )
                .related(only.url.span(), "the only endpoint is never left out")
                .hint("a backend that fails as a whole is the breaker's business"),
            );
        }
    }
}
