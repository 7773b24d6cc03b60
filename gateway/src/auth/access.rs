//! Access rules of a route: which credentials it admits, and which callers may use it.
//!
//! The two are separate. Admitting a kind of credential is part of authentication (401). Permitting a caller comes
//! later, when its tier is known (403).

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::auth::caller::{Caller, Kind};
use crate::auth::check::{Category, Check};
use crate::auth::external::{RefusalKind, ServiceRefusal};
use crate::auth::jwt::fetch_state;
use crate::auth::refusal::Refusal;
use crate::rejection::{Challenge, Rejection};
use crate::setting::SettingId;

/// The kinds of credential that a route admits.
#[derive(Debug, Clone, Default)]
pub struct Admitted {
    pub api_key: bool,
    pub jwt: AdmittedIssuers,
    /// Client certificate of the connection.
    pub mtls: bool,
    pub basic: bool,
    /// Credential that the external service answers for.
    pub external: bool,
    /// Callers without credentials.
    pub anonymous: bool,
    /// Whether all kinds are required together. Otherwise any one is enough.
    pub together: bool,
}

/// The issuers whose tokens a route admits.
#[derive(Debug, Clone, Default)]
pub enum AdmittedIssuers {
    #[default]
    None,
    Any,
    /// Issuers by their names in the config.
    These(Box<[Arc<str>]>),
}

/// A set of credential kinds: those that a request has and the route admits, or those that are missing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CredentialKinds {
    pub(crate) jwt: bool,
    pub(crate) api_key: bool,
    pub(crate) basic: bool,
    pub(crate) mtls: bool,
    pub(crate) external: bool,
}

/// Compiled form of a route's `access`.
#[derive(Debug, Clone)]
pub struct Access {
    admitted: Admitted,
    demands: Requirements,
    api_key_header: HeaderName,
    missing: Arc<Challenge>,
    invalid: Arc<Challenge>,
    expired: Arc<Challenge>,
    /// Setting that the rules come from.
    setting: SettingId,
}

/// Requirements on a caller beyond a valid credential.
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    /// Scopes that are all required.
    pub scopes: Box<[Arc<str>]>,
    /// Tiers of which one is required. Empty admits any.
    pub tiers: Box<[Arc<str>]>,
    /// Tenants of which one is required. Empty admits any.
    pub tenants: Box<[Arc<str>]>,
}

impl Access {
    /// Compiles a route's rules. `api_key_header` carries API keys, and is named to callers that lack one.
    pub fn new(admitted: Admitted, demands: Requirements, api_key_header: &HeaderName, setting: SettingId) -> Self {
        let asked = CredentialKinds {
            jwt: !matches!(admitted.jwt, AdmittedIssuers::None),
            api_key: admitted.api_key,
            basic: admitted.basic,
            mtls: admitted.mtls,
            external: admitted.external,
        };
        let challenge = |error: &str, hint: &str| {
            Arc::new(Challenge {
                www_authenticate: asked.schemes(api_key_header, error),
                hint: hint.to_owned(),
                by: setting,
            })
        };
        // RFC 6750 section 3.1: `error` only where a token was presented.
        Self {
            missing: challenge("", &asked.how(api_key_header, admitted.together)),
            invalid: challenge(
                ", error=\"invalid_token\"",
                "The credential is not valid here: check that it is complete, current and issued for this gateway.",
            ),
            expired: challenge(
                ", error=\"invalid_token\", error_description=\"expired\"",
                "The credential has expired: obtain a new one and try again.",
            ),
            api_key_header: api_key_header.clone(),
            admitted,
            demands,
            setting,
        }
    }

    /// Checks whether a caller with a valid credential may use the route. `tier` is the caller's final tier.
    ///
    /// # Errors
    /// [`Rejection::NotAllowed`], naming the unmet requirement.
    pub fn permits(&self, caller: &Caller, tier: &str) -> Result<(), Rejection> {
        let Requirements { scopes, tiers, tenants } = &self.demands;
        if !scopes.iter().all(|scope| caller.scopes.contains(scope)) {
            return Err(Rejection::NotAllowed {
                why: "The credential lacks a scope that this route needs.",
                by: self.setting,
            });
        }
        if !tiers.is_empty() && !tiers.iter().any(|admitted| **admitted == *tier) {
            return Err(Rejection::NotAllowed {
                why: "This route is not part of the caller's tier.",
                by: self.setting,
            });
        }
        if !tenants.is_empty() && !tenants.contains(&caller.tenant) {
            return Err(Rejection::NotAllowed {
                why: "This route belongs to other tenants.",
                by: self.setting,
            });
        }
        Ok(())
    }

    /// Whether the route admits this kind of credential.
    pub fn admits(&self, kind: &Kind) -> bool {
        match kind {
            Kind::ApiKey => self.admitted.api_key,
            Kind::Jwt(issuer) => self.admits_issuer(issuer),
            Kind::Mtls => self.admitted.mtls,
            Kind::Basic => self.admitted.basic,
            Kind::External => self.admitted.external,
            Kind::Anonymous => self.admitted.anonymous,
        }
    }

    /// Setting that the rules come from.
    pub const fn setting(&self) -> SettingId {
        self.setting
    }

    /// Requirements on a caller beyond a valid credential.
    pub const fn requirements(&self) -> &Requirements {
        &self.demands
    }

    /// Whether the route admits tokens of at least one issuer.
    pub(crate) const fn admits_tokens(&self) -> bool {
        !matches!(self.admitted.jwt, AdmittedIssuers::None)
    }

    pub(crate) fn admits_issuer(&self, name: &Arc<str>) -> bool {
        match &self.admitted.jwt {
            AdmittedIssuers::None => false,
            AdmittedIssuers::Any => true,
            AdmittedIssuers::These(names) => names.contains(name),
        }
    }

    /// Whether all kinds are required together.
    pub(crate) const fn is_together(&self) -> bool {
        self.admitted.together
    }

    /// Returns the required kinds that are not in `held`, or `None` if there are none.
    pub(crate) const fn lacks(&self, held: CredentialKinds) -> Option<CredentialKinds> {
        let jwt = !matches!(self.admitted.jwt, AdmittedIssuers::None) && !held.jwt;
        let api_key = self.admitted.api_key && !held.api_key;
        let (basic, mtls) = (self.admitted.basic && !held.basic, self.admitted.mtls && !held.mtls);
        let external = self.admitted.external && !held.external;
        if !(jwt || api_key || basic || mtls || external) {
            return None;
        }
        Some(CredentialKinds {
            jwt,
            api_key,
            basic,
            mtls,
            external,
        })
    }

    /// Builds the refusal of a request that has only some of the required credentials. `lacks` are the missing ones.
    pub(crate) fn refuse_incomplete(&self, lacks: CredentialKinds) -> Refusal {
        let challenge = Challenge {
            www_authenticate: lacks.schemes(&self.api_key_header, ""),
            hint: lacks.how(&self.api_key_header, true),
            by: self.setting,
        };
        Refusal {
            rejection: Rejection::CredentialsMissing {
                challenge: Arc::new(challenge),
            },
            check: Some(Check::Incomplete.as_str()),
            suspect: false,
        }
    }

    /// Builds the refusal of a token whose issuer's keys are not there. `issuer` is the issuer's setting.
    pub(crate) fn refuse_without_keys(&self, issuer: SettingId) -> Refusal {
        Refusal {
            rejection: Rejection::KeysUnavailable {
                retry_after: fetch_state::SOON,
                by: Some(issuer),
            },
            ..self.refuse(Check::KeysUnavailable)
        }
    }

    /// Builds the refusal of a credential that the external service has refused.
    pub(crate) fn refuse_external(&self, refusal: &ServiceRefusal) -> Refusal {
        let check = match refusal.kind {
            RefusalKind::Forbidden => {
                return Refusal {
                    rejection: Rejection::NotAllowed {
                        why: "The service that knows the callers does not allow this one.",
                        by: self.setting,
                    },
                    check: Some("external_forbidden"),
                    suspect: false,
                };
            }
            RefusalKind::Invalid => Check::ExternalRefused,
            RefusalKind::Expired => Check::ExternalExpired,
        };
        let mut refused = self.refuse(check);
        if let (Some(www_authenticate), Rejection::CredentialsInvalid { challenge }) =
            (&refusal.www_authenticate, &mut refused.rejection)
        {
            *challenge = Arc::new(Challenge {
                www_authenticate: www_authenticate.clone(),
                ..Challenge::clone(challenge)
            });
        }
        refused
    }

    /// Builds the refusal of a credential that fails `check`.
    pub(crate) fn refuse(&self, check: Check) -> Refusal {
        let rejection = match check.category() {
            Category::Missing => Rejection::CredentialsMissing {
                challenge: self.missing.clone(),
            },
            Category::Invalid => Rejection::CredentialsInvalid {
                challenge: self.invalid.clone(),
            },
            Category::Expired => Rejection::CredentialsExpired {
                challenge: self.expired.clone(),
            },
            Category::Unverifiable => Rejection::KeysUnavailable {
                retry_after: fetch_state::SOON,
                by: None,
            },
            Category::PutOff { retry_after } => Rejection::Overloaded {
                retry_after,
                by: check.setting(),
            },
        };
        Refusal {
            rejection,
            check: Some(check.as_str()),
            suspect: check.is_suspect(),
        }
    }
}

impl CredentialKinds {
    /// Value of `WWW-Authenticate`. A 401 must name a scheme, also for keys and certificates, which have no registered
    /// one.
    fn schemes(self, api_key_header: &HeaderName, error: &str) -> HeaderValue {
        let token = self.jwt.then(|| format!("Bearer realm=\"gateway\"{error}"));
        let password = self
            .basic
            .then(|| "Basic realm=\"gateway\", charset=\"UTF-8\"".to_owned());
        let certificate = self.mtls.then(|| "ClientCertificate realm=\"gateway\"".to_owned());
        let external = self.external.then(|| "External realm=\"gateway\"".to_owned());
        let none = !(self.jwt || self.basic || self.mtls || self.external);
        let key = (self.api_key || none).then(|| format!("ApiKey realm=\"gateway\", header=\"{api_key_header}\""));
        let all: Vec<String> = [token, key, password, certificate, external]
            .into_iter()
            .flatten()
            .collect();
        HeaderValue::from_str(&all.join(", ")).expect("realm, error and a header's name are visible ASCII")
    }

    /// Text that says what to send, and where.
    fn how(self, api_key_header: &HeaderName, together: bool) -> String {
        let key = self.api_key.then(|| format!("an API key as `{api_key_header}`"));
        let token = self.jwt.then(|| "a token as `Authorization: Bearer ...`".to_owned());
        let password = self
            .basic
            .then(|| "a name and a password as `Authorization: Basic ...`".to_owned());
        let certificate = self.mtls.then(|| "a client certificate when connecting".to_owned());
        let external = self
            .external
            .then(|| "the credential of the service that knows the callers".to_owned());
        let all: Vec<String> = [key, token, password, certificate, external]
            .into_iter()
            .flatten()
            .collect();
        if all.is_empty() {
            return "This route takes no credentials that can be presented here.".to_owned();
        }
        format!("Send {}.", all.join(if together { ", and " } else { ", or " }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(tenant: &str, scopes: &[&str]) -> Caller {
        Caller {
            tenant: tenant.into(),
            id: "k1".into(),
            tier: None,
            scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
            kind: Kind::ApiKey,
            claims: None,
            configured: true,
            expires: None,
        }
    }

    fn names(list: &[&str]) -> Box<[Arc<str>]> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn every_demand_must_be_met() {
        let header = HeaderName::from_static("x-api-key");
        let check = |scopes: &[&str], tiers: &[&str], tenants: &[&str], permitted: bool| {
            let demands = Requirements {
                scopes: names(scopes),
                tiers: names(tiers),
                tenants: names(tenants),
            };
            let access = Access::new(Admitted::default(), demands, &header, SettingId::URI);
            let answer = access.permits(&caller("acme", &["a", "b"]), "basic");
            assert_eq!(answer.is_ok(), permitted, "{scopes:?} {tiers:?} {tenants:?}");
        };
        check(&[], &[], &[], true);
        check(&["a"], &[], &[], true);
        check(&["b", "a"], &["basic"], &["acme"], true);
        check(&["a", "c"], &[], &[], false);
        check(&[], &["free", "premium"], &[], false);
        check(&[], &["free", "basic"], &[], true);
        check(&[], &[], &["other"], false);
    }

    #[test]
    fn the_challenge_names_what_the_route_takes() {
        let header = HeaderName::from_static("x-key");
        let check = |api_key, jwt, asked: Check, expected: &str| {
            let admitted = Admitted {
                api_key,
                jwt,
                ..Admitted::default()
            };
            let refusal = Access::new(admitted, Requirements::default(), &header, SettingId::URI).refuse(asked);
            let (Rejection::CredentialsMissing { challenge }
            | Rejection::CredentialsInvalid { challenge }
            | Rejection::CredentialsExpired { challenge }) = refusal.rejection
            else {
                panic!("a 401")
            };
            assert_eq!(challenge.www_authenticate, expected);
        };
        let key = "ApiKey realm=\"gateway\", header=\"x-key\"";
        check(true, AdmittedIssuers::None, Check::Absent, key);
        check(true, AdmittedIssuers::None, Check::KeyUnknown, key);
        check(
            true,
            AdmittedIssuers::Any,
            Check::Absent,
            &format!("Bearer realm=\"gateway\", {key}"),
        );
        check(
            false,
            AdmittedIssuers::Any,
            Check::Signature,
            "Bearer realm=\"gateway\", error=\"invalid_token\"",
        );
        check(
            false,
            AdmittedIssuers::Any,
            Check::TokenExpired,
            "Bearer realm=\"gateway\", error=\"invalid_token\", error_description=\"expired\"",
        );
    }
}
