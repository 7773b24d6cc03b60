//! What a route asks of its callers.
//!
//! Two questions apart: *may this kind of credential come in* belongs to finding out who it is (401), *may this
//! caller use the route* comes after, when the tier is known too (403).

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::caller::{Caller, Kind};
use super::check::{Category, Check};
use super::doorman::Refusal;
use crate::rejection::{Challenge, Rejection};

/// The kinds of credential that a route admits.
#[derive(Debug, Clone, Default)]
pub struct Admitted {
    pub api_key: bool,
    pub jwt: AdmittedIssuers,
    /// Callers without credentials.
    pub anonymous: bool,
}

/// The issuers whose tokens a route admits.
#[derive(Debug, Clone, Default)]
pub enum AdmittedIssuers {
    #[default]
    None,
    Any,
    /// By their names in the config.
    These(Box<[Arc<str>]>),
}

/// Compiled form of a route's `access`.
#[derive(Debug, Clone)]
pub struct Access {
    admitted: Admitted,
    demands: Demands,
    missing: Arc<Challenge>,
    invalid: Arc<Challenge>,
    expired: Arc<Challenge>,
}

/// What a caller must have beside a credential that holds.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// All of them.
    pub scopes: Box<[Arc<str>]>,
    /// One of them; empty means any.
    pub tiers: Box<[Arc<str>]>,
    /// One of them; empty means any.
    pub tenants: Box<[Arc<str>]>,
}

impl Access {
    /// `api_key_header` is where keys are looked for, and is told to callers who lack one.
    pub fn new(admitted: Admitted, demands: Demands, api_key_header: &HeaderName) -> Self {
        let bearer = !matches!(admitted.jwt, AdmittedIssuers::None);
        let key = format!("ApiKey realm=\"gateway\", header=\"{api_key_header}\"");
        let schemes = |error: &str| {
            let token = format!("Bearer realm=\"gateway\"{error}");
            let text = match (bearer, admitted.api_key) {
                (true, true) => format!("{token}, {key}"),
                (true, false) => token,
                (false, _) => key.clone(),
            };
            HeaderValue::from_str(&text).expect("realm, error and a header's name are visible ASCII")
        };
        let challenge = |error: &str, hint: String| {
            Arc::new(Challenge {
                www_authenticate: schemes(error),
                hint,
            })
        };
        let how = match (bearer, admitted.api_key) {
            (true, true) => {
                format!("Send an API key as `{api_key_header}`, or a token as `Authorization: Bearer ...`.")
            }
            (true, false) => "Send a token as `Authorization: Bearer ...`.".into(),
            (false, true) => format!("Send an API key as `{api_key_header}`."),
            (false, false) => "This route takes no credentials that can be presented here.".into(),
        };
        // RFC 6750 section 3.1: `error` only where a token was presented.
        Self {
            missing: challenge("", how),
            invalid: challenge(
                ", error=\"invalid_token\"",
                "The credential is not valid here: check that it is complete, current and issued for this gateway."
                    .into(),
            ),
            expired: challenge(
                ", error=\"invalid_token\", error_description=\"expired\"",
                "The credential has expired: obtain a new one and try again.".into(),
            ),
            admitted,
            demands,
        }
    }

    /// Whether a caller whose credential holds may use the route. `tier` is the caller's final one.
    ///
    /// # Errors
    /// [`Rejection::NotAllowed`], saying which demand is not met.
    pub fn permits(&self, caller: &Caller, tier: &str) -> Result<(), Rejection> {
        let Demands { scopes, tiers, tenants } = &self.demands;
        if !scopes.iter().all(|scope| caller.scopes.contains(scope)) {
            return Err(Rejection::NotAllowed {
                why: "The credential lacks a scope that this route needs.",
            });
        }
        if !tiers.is_empty() && !tiers.iter().any(|admitted| **admitted == *tier) {
            return Err(Rejection::NotAllowed {
                why: "This route is not part of the caller's tier.",
            });
        }
        if !tenants.is_empty() && !tenants.contains(&caller.tenant) {
            return Err(Rejection::NotAllowed {
                why: "This route belongs to other tenants.",
            });
        }
        Ok(())
    }

    /// Whether callers of this kind may come in at all.
    pub fn admits(&self, kind: &Kind) -> bool {
        match kind {
            Kind::ApiKey => self.admitted.api_key,
            Kind::Jwt(issuer) => self.admits_issuer(issuer),
            Kind::Anonymous => self.admitted.anonymous,
        }
    }

    pub(super) fn admits_issuer(&self, name: &Arc<str>) -> bool {
        match &self.admitted.jwt {
            AdmittedIssuers::None => false,
            AdmittedIssuers::Any => true,
            AdmittedIssuers::These(names) => names.contains(name),
        }
    }

    /// The answer to a credential that fails `check`.
    pub(super) fn refuse(&self, check: Check) -> Refusal {
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
            Category::PutOff { retry_after } => Rejection::Overloaded { retry_after },
        };
        Refusal {
            rejection,
            check: check.as_str(),
            suspect: check.is_suspect(),
        }
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
            let demands = Demands {
                scopes: names(scopes),
                tiers: names(tiers),
                tenants: names(tenants),
            };
            let access = Access::new(Admitted::default(), demands, &header);
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
                anonymous: false,
            };
            let refusal = Access::new(admitted, Demands::default(), &header).refuse(asked);
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
