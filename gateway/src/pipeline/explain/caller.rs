//! Explains who the caller is, where its tenant and tier come from, and what its limits have left.

use std::sync::Arc;

use super::Scene;
use super::step::Step;
use super::text::{list, terms, time};
use crate::auth::caller::{Caller, Kind};
use crate::limits::charge_order;
use crate::limits::{Charge, Mode, Per};
use crate::pipeline::decision::Findings;
use crate::plan::Route;
use crate::plan::own_settings::OF_EACH;
use crate::tenancy::Principal;

impl Scene<'_> {
    /// Explains the credential, and what the route admits.
    pub(super) fn credential(&self, route: &Route, found: &Findings<'_>, would_wait: bool) -> Step {
        let outline = self
            .plan
            .outline
            .routes
            .iter()
            .find(|outline| outline.name == route.name);
        let admitted = outline.map_or_else(String::new, |outline| match &*outline.access.all_of {
            [] => list(&outline.access.any_of, "or"),
            all => list(all, "and"),
        });
        let text = match (&found.principal, found.failed_check) {
            (Some(principal), _) => {
                let caller = &principal.caller;
                let rule = match caller.kind {
                    Kind::Anonymous => "without a credential",
                    _ => caller.kind.as_str(),
                };
                format!("{rule} {}; the route admits {admitted}", caller.id)
            }
            (None, _) if would_wait && self.would_ask(route) => {
                format!("the external service would be asked; the route admits {admitted}")
            }
            (None, _) if would_wait => format!("a slow check would be waited for; the route admits {admitted}"),
            (None, Some(check)) => format!("refused: {check}; the route admits {admitted}"),
            (None, None) => format!("not looked at; the route admits {admitted}"),
        };
        let step = Step::plain("credential", text).by(self.plan, route.access.setting());
        match found.failed_check {
            Some(check) => step.fact("check", check),
            None => step,
        }
    }

    /// Whether what would be waited for is an answer of the external service.
    fn would_ask(&self, route: &Route) -> bool {
        let external = self.plan.authenticator.external();
        route.access.admits(&Kind::External)
            && external.is_some_and(|external| external.is_presented(&self.asked.headers))
    }

    /// Explains tenant, tier and rights.
    pub(super) fn who(&self, route: &Route, principal: &Principal) -> Vec<Step> {
        let mut steps = vec![self.tenant(&principal.caller), self.tier(principal)];
        let needed = route.access.requirements();
        let mut needs = Vec::new();
        for (what, names) in [
            ("all scopes of", &needed.scopes),
            ("a tier of", &needed.tiers),
            ("a tenant of", &needed.tenants),
        ] {
            if !names.is_empty() {
                needs.push(format!("{what} {}", list(names, "and")));
            }
        }
        if !needs.is_empty() {
            let verdict = match route.access.permits(&principal.caller, &principal.tier.name) {
                Ok(()) => "the caller has them",
                Err(_) => "the caller has not",
            };
            let text = format!("needs {}: {verdict}", needs.join(" and "));
            steps.push(Step::plain("rights", text).by(self.plan, route.access.setting()));
        }
        steps
    }

    fn tenant(&self, caller: &Caller) -> Step {
        let tenant = &caller.tenant;
        let step = |from: &str| Step::plain("tenant", format!("{tenant}, {from}")).fact("tenant", &**tenant);
        match &caller.kind {
            Kind::ApiKey => step("of the key").at(self.plan, format!("keys.{tenant}")),
            Kind::Jwt(issuer) => step("by the claims").at(self.plan, format!("callers.jwt.{issuer}")),
            Kind::Mtls => step("of the certificate").at(self.plan, "callers.mtls".to_owned()),
            Kind::Basic => step("of the user").at(self.plan, "callers.basic".to_owned()),
            Kind::External => step("by the external service").at(self.plan, "callers.external".to_owned()),
            Kind::Anonymous => step("as any caller without a credential").at(self.plan, "callers.anonymous".to_owned()),
        }
    }

    fn tier(&self, principal: &Principal) -> Step {
        let (tier, caller) = (&principal.tier.name, &principal.caller);
        let step = |from: String| Step::plain("tier", format!("{tier}, {from}")).fact("tier", &**tier);
        let default = || "default_tier".to_owned();
        let record = principal.record.as_deref();
        if record.is_some_and(|record| record.tier.is_some()) {
            let step = step("from the file of tenants".to_owned()).at(self.plan, "tenants.file".to_owned());
            return step.called(format!("{OF_EACH}tier"));
        }
        if self.plan.tiers.tier_of(&caller.tenant, record).is_some() {
            let path = format!("tenants.{}.tier", caller.tenant);
            return step("from the table of tenants".to_owned()).at(self.plan, path);
        }
        match (&caller.tier, &principal.unknown_tier) {
            (Some(named), Some(_)) => {
                step(format!("because `{named}`, which the credential names, is no tier")).at(self.plan, default())
            }
            (None, _) => step("the default".to_owned()).at(self.plan, default()),
            (Some(_), None) => match &caller.kind {
                Kind::ApiKey => step("from the key".to_owned()).at(self.plan, format!("keys.{}", caller.tenant)),
                Kind::Jwt(issuer) => step("from the claims".to_owned()).at(self.plan, format!("callers.jwt.{issuer}")),
                Kind::Mtls => step("from the certificate's owner".to_owned()).at(self.plan, "callers.mtls".to_owned()),
                Kind::Basic => step("from the user".to_owned()).at(self.plan, "callers.basic".to_owned()),
                Kind::External => {
                    step("from the external service".to_owned()).at(self.plan, "callers.external".to_owned())
                }
                Kind::Anonymous => {
                    step("of callers without a credential".to_owned()).at(self.plan, "callers.anonymous".to_owned())
                }
            },
        }
    }

    /// Explains each charge, the limit with the lowest balance first.
    pub(super) fn limits(&self, charges: &[Charge], found: &Findings<'_>) -> Vec<Step> {
        let charges = charge_order(charges, self.now);
        charges.iter().map(|charge| self.limit(charge, found)).collect()
    }

    fn limit(&self, charge: &Charge, found: &Findings<'_>) -> Step {
        let (limit, account, now) = (&charge.hold.limit, &charge.hold.account, self.now);
        let (left, wait) = (account.balance(now), account.wait_for(now, charge.cost));
        let owner = match limit.per {
            Per::Tenant => "tenant",
            Per::Caller => "caller",
            Per::ClientAddress => "client address",
            Per::Route => "route",
            Per::Global => "all callers",
        };
        let mut text = format!("{}: {} for each {owner}", limit.metrics.name, terms(account));
        if matches!(limit.per, Per::Global) {
            text = format!("{}: {} for all callers together", limit.metrics.name, terms(account));
        }
        match limit.counts_units {
            true => text.push_str(&format!("; takes what the body reserves, {left} left")),
            false => text.push_str(&format!("; takes {}, {left} left", charge.cost)),
        }
        if found.principal.is_none() {
            text.push_str(", for a failed authentication");
        }
        if !wait.is_zero() {
            let what = if limit.mode == Mode::Shadow {
                "would refuse"
            } else {
                "refuses"
            };
            text.push_str(&format!(": {what} for {}", time(wait)));
        } else if limit.mode == Mode::Shadow {
            text.push_str(" (shadow: only counts)");
        }
        if charge.hold.is_shared {
            text.push_str("; the account is shared with others, because the table is full");
        }
        let mut step = Step::plain("limit", text)
            .by(self.plan, limit.setting)
            .fact("limit", &*limit.name)
            .fact("kind", account.terms().kind().as_str())
            .fact("most", account.terms().most())
            .fact("left", left)
            .fact("cost", charge.cost);
        if let Some(period) = account.terms().renewed_in(now) {
            step = step.fact("renewed_in_seconds", period.as_secs());
        }
        if !wait.is_zero() && limit.mode == Mode::Enforce {
            step = step.fact("refuses_for_ms", u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        step
    }

    /// Explains what the worker does with newcomers of the caller's tier; nothing while it refuses none.
    pub(super) fn overload(&self, principal: &Arc<Principal>) -> Option<Step> {
        let part = self.refused_part(principal);
        (part > 0.0).then(|| {
            let text = format!(
                "the worker is overloaded, and refuses {:.0} % of this tier",
                part * 100.0
            );
            Step::plain("overload", text)
                .by(self.plan, crate::setting::SettingId::OVERLOAD)
                .fact("refused_share", part)
        })
    }
}
