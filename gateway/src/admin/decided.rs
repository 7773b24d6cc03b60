//! Which setting of the config decided on a rejection, and on which line it stands.

use serde::Serialize;

use crate::config::Location;
use crate::intake::limits::IN_FLIGHT;
use crate::observe::rejections::Recent;
use crate::plan::Plan;
use crate::rejection::Reason;

/// A setting by its path in the config. It stands at `at`, or within what does; `null` for a default.
#[derive(Debug, Serialize)]
pub(super) struct Decided {
    setting: String,
    at: Option<Location>,
}

impl Decided {
    /// By the config in force now. `None` if no setting would have changed the answer.
    pub(super) fn by(recent: &Recent, plan: &Plan) -> Option<Self> {
        let setting = setting(recent, plan)?;
        Some(Self {
            at: plan.outline.place(&setting).cloned(),
            setting,
        })
    }
}

fn setting(recent: &Recent, plan: &Plan) -> Option<String> {
    let route = |of: &str| recent.route.as_ref().map(|route| format!("routes.{route}{of}"));
    // An aggregate calls several backends; which one it was stands in its detail.
    let backend = |of: &str| match &recent.backend {
        Some(backend) => Some(format!("backends.{backend}{of}")),
        None => route(""),
    };
    let written = |setting: &Option<String>| setting.as_ref().is_some_and(|it| plan.outline.is_written(it));
    match recent.reason {
        Reason::CredentialsMissing | Reason::CredentialsInvalid | Reason::CredentialsExpired | Reason::NotAllowed => {
            route(".access")
        }
        Reason::AddressNotAllowed => route(".access.addresses"),
        Reason::OriginNotAllowed => {
            let own = route(".cors");
            if written(&own) { own } else { Some("cors".to_owned()) }
        }
        Reason::RateLimited | Reason::QuotaExhausted | Reason::TooManyInFlight => limit(recent, plan),
        Reason::BodyTooLarge => {
            let own = route(".body_limit");
            if written(&own) {
                return own;
            }
            let mut readers = plan.outline.routes.iter().filter(|route| route.reads_json);
            let reads_json = readers.any(|route| Some(&route.name) == recent.route.as_ref());
            let of = if reads_json { "json_body" } else { "body" };
            Some(format!("request_limits.{of}"))
        }
        Reason::UriTooLong => Some("request_limits.uri".to_owned()),
        Reason::HeadersTooLarge => Some("request_limits.headers".to_owned()),
        Reason::RequestTimeout => Some("time_limits.head".to_owned()),
        Reason::BackendUnreached | Reason::BackendBroken | Reason::BackendInvalid | Reason::NoEndpoint => {
            backend(".endpoints")
        }
        Reason::BulkheadFull => backend(".bulkhead"),
        Reason::BulkheadTimeout => backend(".bulkhead.wait"),
        Reason::BreakerOpen => backend(".breaker"),
        Reason::OutOfTime => {
            let own = route(".time_limit");
            if written(&own) {
                own
            } else {
                Some("time_limits.request".to_owned())
            }
        }
        Reason::BackendTimeout => {
            let attempt = backend(".attempt_limit");
            if written(&attempt) {
                attempt
            } else {
                backend(".time_limit")
            }
        }
        // Once it is known who asks, it is no longer about a signature.
        Reason::Overloaded if recent.tenant.is_some() => Some("request_limits.json_total".to_owned()),
        Reason::Overloaded => Some("callers.verifications".to_owned()),
        Reason::MalformedRequest
        | Reason::NoRoute
        | Reason::MethodNotAllowed
        | Reason::Internal
        | Reason::Draining
        | Reason::CallerGone => None,
    }
}

/// A route's own limit, the one on failed authentications, or what the tier allows, unless the tenant has terms of its
/// own.
fn limit(recent: &Recent, plan: &Plan) -> Option<String> {
    let limit = &**recent.limit.as_ref()?;
    let is_written = |setting: &String| plan.outline.is_written(setting);
    let of_route = recent
        .route
        .as_ref()
        .map(|route| format!("routes.{route}.limits.{limit}"));
    if let Some(own) = of_route.filter(is_written) {
        return Some(own);
    }
    let tenant = recent.tenant.as_ref().map(|tenant| format!("tenants.{tenant}"));
    if plan.tiers.by_name.contains_key(limit) {
        let own = tenant.filter(|tenant| is_written(&format!("{tenant}.rate")));
        return Some(own.unwrap_or_else(|| format!("tiers.{limit}")));
    }
    let below = |owner: String| match limit {
        IN_FLIGHT => format!("{owner}.{limit}"),
        _ => format!("{owner}.quotas.{limit}"),
    };
    let tier = recent.tier.as_ref().map(|tier| format!("tiers.{tier}"));
    let own = tenant
        .map(below)
        .filter(is_written)
        .or(tier.map(below).filter(is_written));
    Some(own.unwrap_or_else(|| format!("callers.{limit}")))
}
