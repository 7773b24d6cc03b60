//! Finds the setting that led to a rejection: the one that the rejection carries, or else one by the reason.

use crate::observe::{Decided, RequestRecord, SettingPlace, Settings};
use crate::plan::outline::Outline;
use crate::rejection::{Reason, Setting};

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

/// The request's route, part, backend and tenant, which complete the path of a setting.
struct Names<'a> {
    outline: &'a Outline,
    record: &'a RequestRecord,
    decided: &'a Decided,
}

impl Names<'_> {
    fn of_setting(&self, setting: Setting) -> Option<String> {
        match setting {
            Setting::At(id) => self.outline.settings.get(id).map(|setting| setting.path.to_string()),
            Setting::RouteTime => self.own(".time_limit").or(Some("time_limits.request".to_owned())),
            Setting::PartTime => self.part(".time_limit"),
            Setting::ElementLimit => self.part(".for_each.limit"),
            Setting::PartBytes => self.part(".body_limit"),
            Setting::AggregateBytes => self.route(".aggregate.body_limit"),
            Setting::Conflict => self.route(".aggregate.conflict"),
            Setting::Part => self.part(""),
            Setting::CallTime => self.backend(".time_limit"),
            Setting::AttemptTime => self.backend(".attempt_limit"),
            Setting::RoutePathPolicy => self.own(".path_policy").or(Some("path_policy".to_owned())),
            Setting::MethodOverride => self.route(".method_override"),
            Setting::Upgrade => self.route(".upgrade"),
            Setting::CallersWish => None,
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
            Reason::BodyTooLarge => self.own(".body_limit").or_else(|| {
                let mut readers = self.outline.routes.iter().filter(|route| route.reads_json);
                let reads_json = readers.any(|route| Some(&*route.name) == self.route_name());
                let of = if reads_json { "json_body" } else { "body" };
                Some(format!("request_limits.{of}"))
            }),
            Reason::UriTooLong => Some("request_limits.uri".to_owned()),
            Reason::BackendUnreached | Reason::BackendBroken | Reason::BackendInvalid | Reason::NoEndpoint => {
                self.backend(".endpoints")
            }
            Reason::BulkheadFull => self.backend(".bulkhead"),
            Reason::BulkheadTimeout => self.backend(".bulkhead.wait"),
            Reason::BreakerOpen => self.backend(".breaker"),
            // These reasons carry their setting, or none applies.
            Reason::HeadersTooLarge
            | Reason::RequestTimeout
            | Reason::OutOfTime
            | Reason::BackendTimeout
            | Reason::Overloaded
            | Reason::RateLimited
            | Reason::QuotaExhausted
            | Reason::TooManyInFlight => None,
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

    /// Returns the route's setting, if it is written.
    fn own(&self, of: &str) -> Option<String> {
        self.route(of).filter(|setting| self.outline.is_written(setting))
    }

    /// Returns a setting of the failed part.
    fn part(&self, of: &str) -> Option<String> {
        let (part, _) = self.decided.part.as_ref()?;
        self.route(&format!(".aggregate.parts.{part}{of}"))
    }

    /// Returns a setting of the called backend, or the route if no backend was called.
    fn backend(&self, of: &str) -> Option<String> {
        let of_part = self.decided.part.as_ref().map(|(_, backend)| backend);
        match of_part.or(self.record.backend.as_ref()) {
            Some(backend) => Some(format!("backends.{backend}{of}")),
            None => self.route(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observe::Registry;
    use crate::setting::{Location, SettingId, SettingsBuilder};

    const SETTINGS: [Setting; 14] = [
        Setting::At(SettingId::HEAD_BYTES),
        Setting::RouteTime,
        Setting::CallersWish,
        Setting::PartTime,
        Setting::CallTime,
        Setting::AttemptTime,
        Setting::ElementLimit,
        Setting::PartBytes,
        Setting::AggregateBytes,
        Setting::Conflict,
        Setting::Part,
        Setting::RoutePathPolicy,
        Setting::MethodOverride,
        Setting::Upgrade,
    ];

    /// Expected path for a request of route `r` (which writes no settings), backend `b`, tenant `t` and tier `gold`.
    /// Its part `p` calls backend `q`.
    fn place_of(setting: Setting) -> Option<&'static str> {
        match setting {
            Setting::At(_) => Some("request_limits.head"),
            Setting::RouteTime => Some("time_limits.request"),
            Setting::CallersWish => None,
            Setting::PartTime => Some("routes.r.aggregate.parts.p.time_limit"),
            Setting::CallTime => Some("backends.q.time_limit"),
            Setting::AttemptTime => Some("backends.q.attempt_limit"),
            Setting::ElementLimit => Some("routes.r.aggregate.parts.p.for_each.limit"),
            Setting::PartBytes => Some("routes.r.aggregate.parts.p.body_limit"),
            Setting::AggregateBytes => Some("routes.r.aggregate.body_limit"),
            Setting::Conflict => Some("routes.r.aggregate.conflict"),
            Setting::Part => Some("routes.r.aggregate.parts.p"),
            Setting::RoutePathPolicy => Some("path_policy"),
            Setting::MethodOverride => Some("routes.r.method_override"),
            Setting::Upgrade => Some("routes.r.upgrade"),
        }
    }

    /// Expected path for a rejection that carries no setting.
    fn place_of_reason(reason: Reason) -> Option<&'static str> {
        match reason {
            Reason::CredentialsMissing
            | Reason::CredentialsInvalid
            | Reason::CredentialsExpired
            | Reason::NotAllowed => Some("routes.r.access"),
            Reason::KeysUnavailable => Some("callers.jwt"),
            Reason::AddressNotAllowed => Some("routes.r.access.addresses"),
            Reason::OriginNotAllowed => Some("cors"),
            Reason::BodyTooLarge => Some("request_limits.body"),
            Reason::UriTooLong => Some("request_limits.uri"),
            Reason::BackendUnreached | Reason::BackendBroken | Reason::BackendInvalid | Reason::NoEndpoint => {
                Some("backends.q.endpoints")
            }
            Reason::BulkheadFull => Some("backends.q.bulkhead"),
            Reason::BulkheadTimeout => Some("backends.q.bulkhead.wait"),
            Reason::BreakerOpen => Some("backends.q.breaker"),
            Reason::HeadersTooLarge
            | Reason::RequestTimeout
            | Reason::OutOfTime
            | Reason::BackendTimeout
            | Reason::Overloaded
            | Reason::RateLimited
            | Reason::QuotaExhausted
            | Reason::TooManyInFlight
            | Reason::MalformedRequest
            | Reason::NoRoute
            | Reason::MethodNotAllowed
            | Reason::Internal
            | Reason::Draining
            | Reason::CallerGone => None,
        }
    }

    fn outline(written: &[&str]) -> Arc<Outline> {
        let at = |line: usize| Location {
            file: "gateway.yaml".into(),
            line,
            column: 1,
        };
        let places = written
            .iter()
            .enumerate()
            .map(|(line, path)| ((*path).to_owned(), at(line)));
        let places = places.collect();
        let settings = Arc::new(SettingsBuilder::default().build(&places));
        Arc::new(Outline::new(Vec::new(), places, settings))
    }

    fn record() -> RequestRecord {
        let registry = Registry::default();
        let mut record = RequestRecord::default();
        record.route = Some(registry.route("r"));
        record.backend = Some("b".into());
        record.tenant = Some(registry.tenants.find_or_add("t", "gold"));
        record.tier = Some("gold".into());
        record
    }

    /// Returns the decided setting of a rejected request; `of_part` says whether a part failed.
    fn told(written: &[&str], reason: Reason, setting: Option<Setting>, of_part: bool) -> Option<String> {
        let outline = outline(written);
        let mut decided = Decided::by(setting, Arc::clone(&outline) as _);
        decided.part = of_part.then(|| ("p".into(), "q".into()));
        let place = outline.that_decided(&record(), reason, &decided)?;
        Some(place.setting)
    }

    #[test]
    fn a_setting_that_comes_with_a_refusal_decides_whatever_its_reason() {
        for reason in Reason::ALL {
            for setting in SETTINGS {
                let found = told(&[], reason, Some(setting), true);
                assert_eq!(found.as_deref(), place_of(setting), "{reason:?} {setting:?}");
            }
        }
    }

    #[test]
    fn without_one_the_reason_tells() {
        for reason in Reason::ALL {
            let found = told(&[], reason, None, true);
            assert_eq!(found.as_deref(), place_of_reason(reason), "{reason:?}");
        }
    }

    #[test]
    fn what_is_written_nearer_comes_first() {
        let check = |written: &[&str], reason, setting, expected: &str| {
            let found = told(written, reason, setting, false);
            assert_eq!(found.as_deref(), Some(expected), "{written:?} {reason:?} {setting:?}");
        };
        let out_of_time = Reason::OutOfTime;
        check(
            &["routes.r.time_limit"],
            out_of_time,
            Some(Setting::RouteTime),
            "routes.r.time_limit",
        );
        check(&["routes.r.cors"], Reason::OriginNotAllowed, None, "routes.r.cors");
        check(
            &["routes.r.body_limit"],
            Reason::BodyTooLarge,
            None,
            "routes.r.body_limit",
        );
        check(
            &["routes.r.path_policy"],
            Reason::MalformedRequest,
            Some(Setting::RoutePathPolicy),
            "routes.r.path_policy",
        );
        check(
            &[],
            Reason::BackendTimeout,
            Some(Setting::CallTime),
            "backends.b.time_limit",
        );
        check(&[], Reason::NoEndpoint, None, "backends.b.endpoints");
    }
}
