//! Which setting decided on a refusal: told by the setting that came with it, and else by its reason.

use std::collections::HashMap;

use super::outline::Outline;
use crate::config::Location;
use crate::observe::{Decided, RequestRecord, SettingPlace, Settings};
use crate::rejection::{Reason, Setting};

/// Where the settings stand that hold before a request is read, for connections that outlive the plan they began with.
#[derive(Debug, Default)]
pub struct EdgePlaces(HashMap<&'static str, Location>);

impl EdgePlaces {
    pub(super) fn of(outline: &Outline) -> Self {
        let settings = [
            Setting::HeadBytes,
            Setting::HeadFields,
            Setting::HeadTime,
            Setting::Connections,
            Setting::ConnectionsOfAddress,
        ];
        let paths = settings.into_iter().filter_map(of_edge).chain([URI]);
        Self(
            paths
                .filter_map(|path| Some((path, outline.place(path)?.clone())))
                .collect(),
        )
    }
}

const URI: &str = "request_limits.uri";

/// The path of a setting at the top of the config.
const fn of_edge(setting: Setting) -> Option<&'static str> {
    Some(match setting {
        Setting::HeadBytes => "request_limits.head",
        Setting::HeadFields => "request_limits.headers",
        Setting::HeadTime => "time_limits.head",
        Setting::BodyPace => "minimum_rates.body",
        Setting::Connections => "connection_limits.total",
        Setting::ConnectionsOfAddress => "connection_limits.per_address",
        Setting::VerificationShare => "callers.verifications.share",
        Setting::FailedVerifications => "callers.verifications.rate",
        Setting::JsonTotal => "request_limits.json_total",
        Setting::ParkedTotal => "request_limits.parked_total",
        Setting::RequestTime => "time_limits.request",
        _ => return None,
    })
}

impl Settings for EdgePlaces {
    fn that_decided(&self, _: &RequestRecord, reason: Reason, decided: &Decided) -> Option<SettingPlace> {
        let path = match (decided.setting, reason) {
            (Some(setting), _) => of_edge(setting)?,
            (None, Reason::UriTooLong) => URI,
            (None, _) => return None,
        };
        Some(SettingPlace {
            setting: path.to_owned(),
            at: self.0.get(path).cloned(),
        })
    }
}

impl Settings for Outline {
    fn that_decided(&self, record: &RequestRecord, reason: Reason, decided: &Decided) -> Option<SettingPlace> {
        let names = Names {
            outline: self,
            record,
            decided,
        };
        let setting = match decided.setting {
            Some(setting) => names.of_setting(setting),
            None => names.of_reason(reason),
        }?;
        Some(SettingPlace {
            at: self.place(&setting).cloned(),
            setting,
        })
    }
}

/// The names that complete a setting.
struct Names<'a> {
    outline: &'a Outline,
    record: &'a RequestRecord,
    decided: &'a Decided,
}

impl Names<'_> {
    fn of_setting(&self, setting: Setting) -> Option<String> {
        if let Some(path) = of_edge(setting) {
            return Some(path.to_owned());
        }
        match setting {
            Setting::RouteTime => self.own(".time_limit").or(Some("time_limits.request".to_owned())),
            Setting::PartTime => self.part(".time_limit"),
            Setting::ElementLimit => self.part(".for_each.limit"),
            Setting::CallTime => self.backend(".time_limit"),
            Setting::AttemptTime => self.backend(".attempt_limit"),
            Setting::PathPolicy(key) => Some(format!("path_policy.{key}")),
            Setting::RoutePathPolicy => self.own(".path_policy").or(Some("path_policy".to_owned())),
            Setting::MethodOverride => self.route(".method_override"),
            Setting::CallersWish => None,
            _ => of_edge(setting).map(str::to_owned),
        }
    }

    fn of_reason(&self, reason: Reason) -> Option<String> {
        match reason {
            Reason::CredentialsMissing
            | Reason::CredentialsInvalid
            | Reason::CredentialsExpired
            | Reason::NotAllowed => self.route(".access"),
            Reason::AddressNotAllowed => self.route(".access.addresses"),
            Reason::OriginNotAllowed => self.own(".cors").or(Some("cors".to_owned())),
            Reason::RateLimited | Reason::QuotaExhausted | Reason::TooManyInFlight => self.limit(),
            Reason::BodyTooLarge => self.own(".body_limit").or_else(|| {
                let mut readers = self.outline.routes.iter().filter(|route| route.reads_json);
                let reads_json = readers.any(|route| Some(&*route.name) == self.route_name());
                let of = if reads_json { "json_body" } else { "body" };
                Some(format!("request_limits.{of}"))
            }),
            Reason::UriTooLong => Some(URI.to_owned()),
            Reason::BackendUnreached | Reason::BackendBroken | Reason::BackendInvalid | Reason::NoEndpoint => {
                self.backend(".endpoints")
            }
            Reason::BulkheadFull => self.backend(".bulkhead"),
            Reason::BulkheadTimeout => self.backend(".bulkhead.wait"),
            Reason::BreakerOpen => self.backend(".breaker"),
            // These come with a setting, or there is none.
            Reason::HeadersTooLarge
            | Reason::RequestTimeout
            | Reason::OutOfTime
            | Reason::BackendTimeout
            | Reason::Overloaded => None,
            Reason::KeysUnavailable => Some("callers.jwt".to_owned()),
            Reason::MalformedRequest
            | Reason::NoRoute
            | Reason::MethodNotAllowed
            | Reason::Internal
            | Reason::Draining
            | Reason::CallerGone => None,
        }
    }

    fn route_name(&self) -> Option<&str> {
        self.record.route.as_ref().map(|route| &*route.name)
    }

    fn route(&self, of: &str) -> Option<String> {
        self.route_name().map(|route| format!("routes.{route}{of}"))
    }

    /// What the route itself has written.
    fn own(&self, of: &str) -> Option<String> {
        self.route(of).filter(|setting| self.outline.is_written(setting))
    }

    /// What stands with the part that the request failed with.
    fn part(&self, of: &str) -> Option<String> {
        let (part, _) = self.decided.part.as_ref()?;
        self.route(&format!(".aggregate.parts.{part}{of}"))
    }

    /// What stands with the backend that was asked; where none was, with the route.
    fn backend(&self, of: &str) -> Option<String> {
        let of_part = self.decided.part.as_ref().map(|(_, backend)| backend);
        match of_part.or(self.record.backend.as_ref()) {
            Some(backend) => Some(format!("backends.{backend}{of}")),
            None => self.route(""),
        }
    }

    /// A limit by its key: a route's own, one of all callers, or what the tier allows, unless the tenant has terms of its
    /// own.
    fn limit(&self) -> Option<String> {
        let key = &**self.decided.limit.as_ref()?;
        if let Some((route, limit)) = key.split_once('/') {
            return Some(format!("routes.{route}.limits.{limit}"));
        }
        if key.starts_with("callers.") {
            return Some(key.to_owned());
        }
        let tenant = self
            .record
            .tenant
            .as_ref()
            .map(|tenant| format!("tenants.{}", tenant.name));
        if let Some(of_tenant) = key.strip_prefix("tenants.") {
            let tier = self.record.tier.as_ref().map(|tier| format!("tiers.{tier}"));
            let places = tenant
                .into_iter()
                .chain(tier)
                .map(|owner| format!("{owner}.{of_tenant}"));
            let mut written = places.filter(|setting| self.outline.is_written(setting));
            return written.next();
        }
        let own = tenant.filter(|tenant| self.outline.is_written(&format!("{tenant}.rate")));
        Some(own.unwrap_or_else(|| format!("tiers.{key}")))
    }
}
