//! Compiles tiers, tenants and limits into account tables, and into the terms of each owner.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use policies::{CalendarQuota, Every, Quota, WindowQuota};

use crate::auth::verifications::FailedChecks;
use crate::config::{self, At, Code, Measure, Mistake, NamedMap, Rate, RateLimit, Tier as WrittenTier};
use crate::limits::kinds::Terms;
use crate::limits::owner::{Owner, OwnerKey};
use crate::limits::store::TermsByOwner;
use crate::limits::store::local::account_caps::AccountLimits;
use crate::limits::{IN_FLIGHT, Limit, Mode, Per};
use crate::plan::RouteLimit;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::{costs, metered, shared_limits, tenants};
use crate::plan::managed_files::TenantsRead;
use crate::setting::SettingId;
use crate::tenancy::own_terms::{OwnPart, OwnRule};
use crate::tenancy::record::{Counted, RecordQuota};
use crate::tenancy::{Allowance, OwnTerms, Tier, TierRank, Tiers, WrittenTenant};

/// Largest number of tenants of the file whose mistakes are shown.
pub(super) const MOST_NAMED: usize = 100;

/// All account tables of a plan.
pub(super) struct Tables {
    pub(super) tiers: Arc<Tiers>,
    pub(super) failures: Option<RouteLimit>,
    /// Limits on failed signature checks, for the authenticator.
    pub(super) failed_checks: Option<FailedChecks>,
    /// Terms to apply when the plan takes effect.
    pub(super) terms: Vec<(Arc<str>, TermsByOwner)>,
}

/// Returns how many weights of other tiers are lower: the tiers that come first when newcomers have to be refused.
fn rank(config: &config::Config, weight: u32) -> usize {
    let lower = config.tiers.iter().map(|(_, tier)| *tier.weight);
    lower.filter(|other| *other < weight).collect::<BTreeSet<_>>().len()
}

impl Tables {
    pub(super) fn compile(compiler: &mut Compiler<'_>, tenants: Option<&TenantsRead>) -> Option<Self> {
        let config = compiler.config;
        let mut tables = Vec::new();
        let directory = tenants.map(|read| tenants::part(compiler, read));
        let of_file = directory.as_ref().map(|part| OfFile {
            quotas: tenants::quotas(&part.tenants),
        });
        let of_file = of_file.as_ref();
        check_periods(compiler);
        shared_limits::check_quotas(compiler);
        warn_of_forgetting(compiler);
        let mut by_name = HashMap::new();
        let weights = config.tiers.iter().map(|(_, tier)| *tier.weight);
        let top_rank = weights.max().map_or(0, |most| rank(config, most));
        for (number, (name, tier)) in (0..).zip(config.tiers.iter()) {
            let config::Tier {
                // Compiled in functions of their own.
                rate: _,
                mode: _,
                counted: _,
                in_flight: _,
                quotas: _,
                weight,
            } = tier;
            let rate = rate(compiler, &mut tables, (name, tier));
            let mut allowances: Vec<_> = rate.into_iter().collect();
            allowances.extend(in_flight(compiler, &mut tables, (name, tier), of_file));
            for quota in quota_names(config, of_file) {
                allowances.extend(self::quota(compiler, &mut tables, (name, tier), &quota, of_file));
            }
            let rank = TierRank {
                number,
                weight: **weight,
                rank: rank(config, **weight),
                top_rank,
                refused: compiler.state.loads.refused_of(name),
            };
            let tier = Tier::new(Arc::clone(name), rank, allowances);
            by_name.insert(Arc::clone(name), Arc::new(tier));
        }
        let mut tenants = HashMap::new();
        for (tenant, terms) in config.tenants.iter() {
            let config::Tenant {
                tier,
                // Compiled with the limits of tiers.
                rate: _,
                burst: _,
                in_flight: _,
                quotas: _,
                disabled,
                // For people alone.
                labels: _,
            } = terms;
            let tier = tier
                .as_ref()
                .and_then(|name| compiler.resolve("tier", name, &config.tiers));
            let disabled = (**disabled).then(|| compiler.setting(&format!("tenants.{tenant}.disabled")));
            tenants.insert(
                Arc::clone(tenant),
                WrittenTenant {
                    tier: tier.and_then(|(name, _)| by_name.get(&name.value).cloned()),
                    disabled,
                },
            );
        }
        compiler.resolve("tier", &config.default_tier, &config.tiers);
        let mut of_callers = |name: &str, rate, burst| {
            let key = format!("callers.{name}");
            let terms = Terms::Bucket(bucket(compiler, &key, rate, burst)?);
            let limit = Written {
                name: name.into(),
                key: key.as_str().into(),
                per: Per::ClientAddress,
                mode: Mode::Enforce,
                cost: Some(1),
                wait: Duration::ZERO,
                counts_units: false,
                setting: compiler.setting(&key),
            };
            let limit = limit.open(compiler, &mut tables, &TermsByOwner::for_all(terms));
            Some((Arc::new(limit), terms))
        };
        let callers = &config.callers;
        let failures = callers
            .failures
            .as_ref()
            .and_then(|config::Failures { rate, burst }| of_callers("failures", rate, burst))
            .map(|(limit, terms)| RouteLimit::new(limit, terms));
        let failed_checks = callers
            .verifications
            .as_ref()
            .and_then(|checks| {
                let config::Verifications {
                    rate,
                    burst,
                    // Compiled with the callers.
                    share: _,
                } = checks;
                of_callers("verifications", rate, burst)
            })
            .map(|(limit, terms)| FailedChecks { limit, terms });
        let default = by_name.get(config.default_tier.as_str()).cloned()?;
        let registry = Arc::clone(&compiler.state.observer.registry);
        Some(Self {
            tiers: Arc::new(Tiers::new(by_name, default, tenants, directory, registry)),
            failures,
            failed_checks,
            terms: tables,
        })
    }

    /// Compiles the limits of one route, in the order of the config. State is keyed by route and limit, so two routes
    /// share none.
    pub(super) fn of_route(
        &self,
        compiler: &mut Compiler<'_>,
        route: &str,
        written: &config::Route,
    ) -> (Vec<RouteLimit>, Vec<(Arc<str>, TermsByOwner)>) {
        let mut tables = Vec::new();
        let mut limits = Vec::new();
        for (name, limit) in written.limits.iter() {
            let path = format!("routes.{route}.limits.{name}");
            let config::Limit {
                measure,
                per,
                mode,
                cost: own_cost,
                counted,
            } = limit;
            let cost = own_cost.as_ref().unwrap_or_else(|| metered::least_cost(written));
            let span = match measure {
                Measure::Rate(rate) => rate.rate.span(),
                Measure::Quota(quota) => quota.limit.span(),
                Measure::InFlight(cap) => cap.span(),
            };
            let (terms, wait) = match measure {
                Measure::Rate(rate) => {
                    costs::check(compiler, &path, cost, costs::most_at_once(rate));
                    (
                        rate_terms(compiler, &path, rate, &rate.rate, rate.burst.as_ref()),
                        *rate.wait,
                    )
                }
                Measure::Quota(quota) => {
                    costs::check(compiler, &path, cost, quota.limit);
                    (calendar_terms(compiler, &path, quota), Duration::ZERO)
                }
                Measure::InFlight(cap) => (Some(Terms::InFlight(cap.get())), Duration::ZERO),
            };
            let terms = terms.and_then(|terms| shared_limits::terms(compiler, &path, counted.as_ref(), span, terms));
            let Some(terms) = terms else { continue };
            let limit = Written {
                name: Arc::clone(name),
                key: format!("{route}/{name}").into(),
                per: self::per(**per),
                mode: self::mode(**mode),
                cost: own_cost.as_ref().map(|cost| cost.get()),
                wait,
                counts_units: metered::limit_counts_units(written, limit),
                setting: compiler.setting(&path),
            };
            let limit = limit.open(compiler, &mut tables, &TermsByOwner::for_all(terms));
            limits.push(RouteLimit::new(Arc::new(limit), terms));
        }
        (limits, tables)
    }
}

/// Returns the caps on the number of accounts whose owners the config does not name.
pub(super) fn account_limits(config: &config::Config) -> AccountLimits {
    let most = |written: &At<u32>| **written as usize;
    let config::AccountLimits {
        addresses,
        networks,
        tenants,
        callers,
    } = &config.account_limits;
    AccountLimits {
        addresses: most(addresses),
        networks: most(networks),
        tenants: most(tenants),
        callers: most(callers),
    }
}

/// A limit with checked terms.
struct Written {
    name: Arc<str>,
    /// Key of its state and its metrics.
    key: Arc<str>,
    per: Per,
    mode: Mode,
    cost: Option<u64>,
    wait: Duration,
    counts_units: bool,
    setting: SettingId,
}

impl Written {
    /// Opens the limit's table and collects the terms that apply when the plan takes effect.
    fn open(self, compiler: &Compiler<'_>, tables: &mut Vec<(Arc<str>, TermsByOwner)>, terms: &TermsByOwner) -> Limit {
        let limit = Limit {
            table: compiler.state.accounts.table(&self.key, terms),
            metrics: compiler.state.observer.registry.limit(&self.key),
            name: self.name,
            per: self.per,
            mode: self.mode,
            cost: self.cost,
            wait: self.wait,
            setting: self.setting,
            counts_units: self.counts_units,
            // What the store counts is not handed over.
            log: if terms.usual.kind().is_shared() {
                Arc::default()
            } else {
                Arc::clone(&compiler.state.accounts.log)
            },
        };
        match tables.iter_mut().find(|(key, _)| *key == self.key) {
            Some((_, noted)) => noted
                .named
                .extend(terms.named.iter().map(|(owner, terms)| (*owner, *terms))),
            None => tables.push((self.key, terms.clone())),
        }
        limit
    }

    /// Opens the limit for the tenants of one tier.
    fn allow(
        self,
        compiler: &Compiler<'_>,
        tables: &mut Vec<(Arc<str>, TermsByOwner)>,
        usual: Option<Terms>,
        named: HashMap<OwnerKey, OwnTerms>,
        rule: OwnRule,
        of_file: Option<Terms>,
    ) -> Option<Allowance> {
        let any = usual
            .or_else(|| named.values().next().map(|own| own.terms))
            .or(of_file)?;
        let terms = TermsByOwner {
            usual: any,
            named: named.iter().map(|(owner, own)| (*owner, own.terms)).collect(),
        };
        Some(Allowance::new(self.open(compiler, tables, &terms), usual, named, rule))
    }
}

/// Compiles the rate of a tier, with the own terms of its tenants.
fn rate(
    compiler: &mut Compiler<'_>,
    tables: &mut Vec<(Arc<str>, TermsByOwner)>,
    (name, tier): (&Arc<str>, &WrittenTier),
) -> Option<Allowance> {
    let path = format!("tiers.{name}");
    let counted = tier.counted.as_ref();
    let usual = rate_terms(compiler, &path, &tier.rate, &tier.rate.rate, tier.rate.burst.as_ref())?;
    let usual = shared_limits::terms(compiler, &path, counted, tier.rate.rate.span(), usual)?;
    let mode = mode(*tier.mode);
    let mut named = HashMap::new();
    for (tenant, terms) in compiler.config.tenants.iter() {
        // The requests of a tenant with a tier of its own are never in another.
        let is_elsewhere = terms.tier.as_ref().is_some_and(|tier| **tier != **name);
        if terms.rate.is_none() && terms.burst.is_none() || is_elsewhere {
            continue;
        }
        let rate = terms.rate.as_ref().unwrap_or(&tier.rate.rate);
        let burst = terms.burst.as_ref().or(tier.rate.burst.as_ref());
        let path = format!("tenants.{tenant}");
        let terms = rate_terms(compiler, &path, &tier.rate, rate, burst);
        if let Some(terms) = terms.and_then(|terms| shared_limits::terms(compiler, &path, counted, rate.span(), terms))
        {
            let setting = compiler.setting(&path);
            named.insert(Owner::Tenant(tenant).key(), OwnTerms { terms, mode, setting });
        }
    }
    let limit = Written {
        name: Arc::clone(name),
        key: Arc::clone(name),
        per: Per::Tenant,
        mode,
        cost: None,
        wait: *tier.rate.wait,
        counts_units: false,
        setting: compiler.setting(&path),
    };
    let part = OwnPart::Rate {
        is_window: *tier.rate.kind == config::Kind::SlidingWindow,
        rate: (tier.rate.rate.count, tier.rate.rate.per),
        burst: tier.rate.burst.as_ref().map(|burst| **burst),
    };
    let rule = rule(compiler, part, mode, counted);
    limit.allow(compiler, tables, Some(usual), named, rule, None)
}

/// Limits that the file of tenants adds to those of tiers.
struct OfFile {
    quotas: BTreeMap<Arc<str>, RecordQuota>,
}

/// Returns the rule for tenants of the file.
fn rule(compiler: &mut Compiler<'_>, part: OwnPart, mode: Mode, counted: Option<&At<config::Counted>>) -> OwnRule {
    let setting = match &part {
        OwnPart::Rate { .. } => tenants::own_setting(compiler, "rate"),
        OwnPart::InFlight => tenants::own_setting(compiler, "in_flight"),
        OwnPart::Quota(name, _) => tenants::own_setting(compiler, &format!("quotas.{name}")),
    };
    OwnRule {
        part,
        mode,
        lease: shared_limits::lease_rule(compiler.config, counted),
        setting,
    }
}

/// Compiles the cap on a tenant's requests in flight. The count is per tenant, across the tiers of its keys.
fn in_flight(
    compiler: &mut Compiler<'_>,
    tables: &mut Vec<(Arc<str>, TermsByOwner)>,
    (name, tier): (&str, &WrittenTier),
    of_file: Option<&OfFile>,
) -> Option<Allowance> {
    let terms = |compiler: &mut Compiler<'_>, path: &str, cap: &At<NonZeroU32>| {
        shared_limits::terms(compiler, path, None, cap.span(), Terms::InFlight(cap.get()))
    };
    let mut named = HashMap::new();
    for (tenant, written) in compiler.config.tenants.iter() {
        let path = format!("tenants.{tenant}.in_flight");
        if let Some(cap) = &written.in_flight
            && let Some(terms) = terms(compiler, &path, cap)
        {
            let own = OwnTerms {
                terms,
                mode: Mode::Enforce,
                setting: compiler.setting(&path),
            };
            named.insert(Owner::Tenant(tenant).key(), own);
        }
    }
    let path = format!("tiers.{name}.in_flight");
    let usual = tier.in_flight.as_ref().and_then(|cap| terms(compiler, &path, cap));
    let limit = Written {
        name: IN_FLIGHT.into(),
        key: format!("tenants.{IN_FLIGHT}").into(),
        per: Per::Tenant,
        mode: Mode::Enforce,
        cost: None,
        wait: Duration::ZERO,
        counts_units: false,
        setting: compiler.setting(&path),
    };
    let rule = rule(compiler, OwnPart::InFlight, Mode::Enforce, None);
    // A tenant of the file may get a cap where its tier has none.
    let one = Terms::InFlight(1);
    let any = of_file.map(|_| rule.lease.map_or(one, |lease| lease.leased(one)));
    limit.allow(compiler, tables, usual, named, rule, any)
}

/// Compiles a calendar quota. The count is per tenant, across the tiers of its keys.
fn quota(
    compiler: &mut Compiler<'_>,
    tables: &mut Vec<(Arc<str>, TermsByOwner)>,
    (tier_name, tier): (&Arc<str>, &WrittenTier),
    name: &Arc<str>,
    of_file: Option<&OfFile>,
) -> Option<Allowance> {
    let of_tier = tier.quotas.get(name);
    let path = format!("tiers.{tier_name}.quotas.{name}");
    let terms = |compiler: &mut Compiler<'_>, path: &str, quota: &config::Quota| {
        let terms = calendar_terms(compiler, path, quota)?;
        shared_limits::terms(compiler, path, quota.counted.as_ref(), quota.limit.span(), terms)
    };
    let usual = of_tier.and_then(|quota| terms(compiler, &path, quota));
    let mut named = HashMap::new();
    for (tenant, written) in compiler.config.tenants.iter() {
        let path = format!("tenants.{tenant}.quotas.{name}");
        if let Some(own) = written.quotas.get(name)
            && let Some(terms) = terms(compiler, &path, own)
        {
            let own = OwnTerms {
                terms,
                mode: mode(*own.mode),
                setting: compiler.setting(&path),
            };
            named.insert(Owner::Tenant(tenant).key(), own);
        }
    }
    let limit = Written {
        name: Arc::clone(name),
        key: format!("tenants.quotas.{name}").into(),
        per: Per::Tenant,
        mode: of_tier.map_or(Mode::Enforce, |quota| mode(*quota.mode)),
        cost: None,
        wait: Duration::ZERO,
        counts_units: metered::counts_units(compiler.config, name),
        setting: compiler.setting(&path),
    };
    let written = all_quotas(compiler.config).find_map(|(_, quotas)| quotas.get(name));
    let in_file = of_file.and_then(|file| file.quotas.get(name));
    let every = written
        .map(|quota| every(*quota.every))
        .or(in_file.map(|quota| quota.every))?;
    let counted = written.and_then(|quota| quota.counted.as_ref());
    let part = OwnPart::Quota(Arc::clone(name), every);
    let mut rule = rule(compiler, part, Mode::Enforce, counted);
    // The file alone decides where a quota is counted that the config does not have.
    let is_local = in_file.is_some_and(|quota| quota.counted == Some(Counted::Local));
    if written.is_none() && is_local {
        rule.lease = None;
    }
    let any = in_file.and_then(|quota| {
        let terms = CalendarQuota::new(quota.limit.get(), every).map(Terms::Calendar).ok()?;
        Some(rule.lease.map_or(terms, |lease| lease.leased(terms)))
    });
    limit.allow(compiler, tables, usual, named, rule, any)
}

pub(super) fn all_quotas(config: &config::Config) -> impl Iterator<Item = (String, &NamedMap<config::Quota>)> {
    let of_tiers = config
        .tiers
        .iter()
        .map(|(name, tier)| (format!("tiers.{name}"), &tier.quotas));
    let of_tenants = config
        .tenants
        .iter()
        .map(|(name, tenant)| (format!("tenants.{name}"), &tenant.quotas));
    of_tiers.chain(of_tenants)
}

fn quota_names(config: &config::Config, of_file: Option<&OfFile>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    let written = all_quotas(config).flat_map(|(_, quotas)| quotas.iter().map(|(name, _)| &name.value));
    for name in written.chain(of_file.iter().flat_map(|file| file.quotas.keys())) {
        if !names.contains(name) {
            names.push(Arc::clone(name));
        }
    }
    names
}

/// Checks that a quota has the same period everywhere, because a tenant has only one count for it.
fn check_periods(compiler: &mut Compiler<'_>) {
    let mut first: BTreeMap<&str, &At<config::Every>> = BTreeMap::new();
    for (owner, quotas) in all_quotas(compiler.config) {
        for (name, quota) in quotas.iter() {
            let seen = *first.entry(name).or_insert(&quota.every);
            if **seen != *quota.every {
                compiler.mistake(
                    Mistake::new(
                        Code::Conflict,
                        quota.every.span(),
                        format!("`{owner}.quotas.{name}` is counted by another period than elsewhere"),
                    )
                    .related(seen.span(), "here it is another")
                    .hint(format!(
                        "a tenant has one count for each name: write `every: {}` here too, or another name here and \
                         wherever this quota is changed for a tenant",
                        seen.as_str()
                    )),
                );
            }
        }
    }
}

/// Warns about a quota longer than a minute without a state file, because a restart resets its count.
fn warn_of_forgetting(compiler: &mut Compiler<'_>) {
    let config = compiler.config;
    let of_tenants = all_quotas(config).flat_map(|(_, quotas)| quotas.iter().map(|(_, quota)| quota));
    let of_routes = config.routes.iter().flat_map(|(_, route)| route.limits.iter());
    let of_routes = of_routes.filter_map(|(_, limit)| match &limit.measure {
        Measure::Quota(quota) => Some(quota),
        _ => None,
    });
    let is_long = |quota: &&config::Quota| *quota.every != config::Every::Minute;
    let is_kept = |quota: &&config::Quota| is_long(quota) && !shared_limits::is_shared(config, quota.counted.as_ref());
    if let (Some(quota), None) = (of_tenants.chain(of_routes).find(is_kept), &config.state_file) {
        compiler.warnings.push(
            Mistake::new(
                Code::Doubtful,
                quota.every.span(),
                "without a `state_file` a quota begins anew with every start of the gateway",
            )
            .hint("write `state_file: gateway.state` at the top"),
        );
    }
}

fn rate_terms(
    compiler: &mut Compiler<'_>,
    path: &str,
    limit: &RateLimit,
    rate: &At<Rate>,
    burst: Option<&At<NonZeroU64>>,
) -> Option<Terms> {
    let RateLimit {
        kind,
        // Given by the caller: a tenant can have its own.
        rate: _,
        burst: _,
        // Compiled with the limit.
        wait: _,
    } = limit;
    match **kind {
        config::Kind::TokenBucket => bucket(compiler, path, rate, burst?).map(Terms::Bucket),
        config::Kind::SlidingWindow => WindowQuota::new(rate.count.get(), rate.per)
            .map_err(|error| {
                let message = format!("`{path}` cannot be counted: {error}");
                compiler.mistake(Mistake::new(Code::OutOfRange, rate.span().or(kind.span()), message));
            })
            .map(Terms::Window)
            .ok(),
    }
}

fn bucket(compiler: &mut Compiler<'_>, path: &str, rate: &At<Rate>, burst: &At<NonZeroU64>) -> Option<Quota> {
    Quota::new(rate.count.get(), rate.per, burst.get())
        .map_err(|error| {
            compiler.mistake(
                Mistake::new(
                    Code::OutOfRange,
                    rate.span().or(burst.span()),
                    format!("`{path}` cannot be counted: {error}"),
                )
                .related(burst.span(), "with this burst"),
            );
        })
        .ok()
}

fn calendar_terms(compiler: &mut Compiler<'_>, path: &str, quota: &config::Quota) -> Option<Terms> {
    let config::Quota {
        limit,
        every,
        // Compiled with the limit that has the quota; a route's limit has its own of both.
        mode: _,
        counted: _,
    } = quota;
    CalendarQuota::new(limit.get(), self::every(**every))
        .map_err(|error| {
            let message = format!("`{path}` cannot be counted: {error}");
            let hint = "a quota nobody reaches is none: lower it, or leave it out";
            compiler.mistake(Mistake::new(Code::OutOfRange, limit.span(), message).hint(hint));
        })
        .map(Terms::Calendar)
        .ok()
}

pub(super) const fn every(written: config::Every) -> Every {
    match written {
        config::Every::Minute => Every::Minute,
        config::Every::Hour => Every::Hour,
        config::Every::Day => Every::Day,
        config::Every::Week => Every::Week,
        config::Every::Month => Every::Month,
    }
}

const fn mode(written: config::Mode) -> Mode {
    match written {
        config::Mode::Enforce => Mode::Enforce,
        config::Mode::Shadow => Mode::Shadow,
    }
}

const fn per(written: config::Per) -> Per {
    match written {
        config::Per::Tenant => Per::Tenant,
        config::Per::Caller => Per::Caller,
        config::Per::ClientAddress => Per::ClientAddress,
        config::Per::Route => Per::Route,
        config::Per::Global => Per::Global,
    }
}
