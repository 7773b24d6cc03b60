//! The caller that an explanation assumes in place of a credential.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::auth::access::Access;
use crate::auth::authenticator::Authenticator;
use crate::auth::caller::{Caller, Kind};
use crate::auth::jwt::issuer::Issuer;
use crate::auth::refusal::Refusal;
use crate::json::Document;
use crate::plan::{Plan, Route};
use crate::tenancy::Principal;

/// Id of a caller that no credential names.
const ANY: &str = "any-caller";
/// Life of assumed claims without an `exp`, in seconds.
const LIFE: u64 = 300;
/// Largest text of claims, in bytes.
const LONGEST: usize = 64 * 1024;

/// A caller without a credential to check.
#[derive(Debug, Clone)]
pub enum AssumedCaller {
    /// Any caller of a tenant, with the rights that the route asks for.
    Tenant {
        tenant: Arc<str>,
        /// Tier that its credential names.
        tier: Option<Arc<str>>,
    },
    /// The holder of the API key with this id.
    Key(Arc<str>),
    /// The holder of a token with these claims, whose signature is good. Missing are filled in: `iss` and `aud` of the
    /// issuer, if there is only one, and an `exp`.
    Claims(Map<String, Value>),
}

impl AssumedCaller {
    /// Identifies the caller as a credential would. `None` where the route admits no credential, so that the caller is
    /// anonymous.
    pub(in crate::pipeline) fn identify(
        &self,
        plan: &Plan,
        route: &Route,
        unix_now: u64,
    ) -> Option<Result<Arc<Principal>, Refusal>> {
        let (authenticator, access) = (&plan.authenticator, &route.access);
        let caller = match self {
            Self::Tenant { tenant, tier } => {
                let key = authenticator.api_keys().filter(|_| access.admits(&Kind::ApiKey));
                let of_key = key.and_then(|keys| keys.first_of(tenant, tier.as_deref(), unix_now));
                match of_key {
                    Some(caller) => caller,
                    None => any_of(tenant, tier.as_ref(), access, authenticator)?,
                }
            }
            Self::Key(id) => {
                let keys = authenticator.api_keys().filter(|_| access.admits(&Kind::ApiKey));
                keys.and_then(|keys| keys.holder(id))?
            }
            Self::Claims(claims) => {
                let issuer = issuer_of(authenticator.issuers(), claims);
                let Some(issuer) = issuer.filter(|_| access.admits_tokens()) else {
                    return match access.admits(&Kind::Anonymous) {
                        true => None,
                        false => Some(Err(access.refuse(crate::auth::check::Check::Issuer))),
                    };
                };
                match issuer.caller(completed(claims, issuer, unix_now), unix_now) {
                    Ok(caller) => caller,
                    Err(check) => return Some(Err(access.refuse(check))),
                }
            }
        };
        Some(authenticator.assume(caller, access, unix_now))
    }
}

/// Returns a caller of the tenant, with a kind of credential that the route admits.
fn any_of(
    tenant: &Arc<str>,
    tier: Option<&Arc<str>>,
    access: &Access,
    authenticator: &Authenticator<Principal>,
) -> Option<Caller> {
    let tokens = authenticator
        .issuers()
        .iter()
        .map(|issuer| Kind::Jwt(Arc::clone(issuer.name())));
    let kinds = [Kind::ApiKey, Kind::Basic, Kind::Mtls, Kind::External]
        .into_iter()
        .chain(tokens);
    let kind = kinds.into_iter().find(|kind| access.admits(kind))?;
    let keys = authenticator.api_keys();
    let listed = keys.as_ref().map_or(&[][..], |keys| keys.all());
    Some(Caller {
        tenant: Arc::clone(tenant),
        id: ANY.into(),
        tier: tier.cloned(),
        scopes: access.requirements().scopes.clone(),
        kind,
        claims: None,
        configured: listed.iter().any(|key| key.tenant == *tenant),
        expires: None,
    })
}

/// Returns the issuer that the claims name, or the only one if they name none.
fn issuer_of<'a>(issuers: &'a [Issuer], claims: &Map<String, Value>) -> Option<&'a Issuer> {
    match (claims.get("iss"), issuers) {
        (Some(iss), _) => issuers.iter().find(|issuer| *iss == *issuer.issuer()),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

fn completed(claims: &Map<String, Value>, issuer: &Issuer, unix_now: u64) -> Document {
    let mut claims = claims.clone();
    let mut fill = |name: &str, value: Option<Value>| {
        if let (false, Some(value)) = (claims.contains_key(name), value) {
            claims.insert(name.to_owned(), value);
        }
    };
    fill("iss", Some(issuer.issuer().into()));
    fill(
        "aud",
        issuer.audience().first().map(|audience| audience.as_str().into()),
    );
    fill("iat", Some(unix_now.into()));
    fill("exp", Some((unix_now + LIFE).into()));
    let text = Bytes::from(Value::Object(claims).to_string());
    Document::check(&text, LONGEST).unwrap_or_else(|_| Document::empty_object())
}
