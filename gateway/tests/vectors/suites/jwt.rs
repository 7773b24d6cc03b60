//! Tokens, presented to the gateway's own doorman by a request's header fields.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gateway::auth::access::{Access, Admitted, AdmittedIssuers, Requirements};
use gateway::auth::authenticator::Authenticator;
use gateway::auth::caller::Caller;
use gateway::auth::jwt::issuer::{Issuer, IssuerSettings};
use gateway::auth::jwt::jwk::Origin;
use gateway::auth::jwt::jws::{self, Algorithm};
use gateway::auth::jwt::key_set::KeySet;
use gateway::auth::jwt::live_keys::LiveKeys;
use gateway::message::FieldMap;
use gateway::rejection::Rejection;
use gateway::setting::SettingId;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{Answer, list, text, whole};

pub(super) fn answer(case: &Value) -> Answer {
    let door = Door::new(&case["jwks"], &case["hmac"], &case["verifier"])?;
    let verdict = door.ask(&bearer(text(case, "token")?), whole(case, "now_epoch_s")?);
    Ok(json!({ "accept": verdict.is_ok() }))
}

/// The door of a route that takes tokens of one issuer and nothing else.
pub(crate) struct Door {
    doorman: Authenticator<()>,
    access: Access,
}

impl Door {
    /// `verifier` is the vectors' description of the issuer; tenant and tier are where all of its tokens have them.
    pub(crate) fn new(jwks: &Value, hmac: &Value, verifier: &Value) -> Result<Self, &'static str> {
        let mut keys = list(jwks, "keys")?.to_vec();
        keys.extend((!hmac.is_null()).then(|| hmac.clone()));
        let jwks = json!({ "keys": keys }).to_string();
        let algorithms: Option<Vec<Algorithm>> = list(verifier, "algorithms")?
            .iter()
            .map(|name| jws::algorithm(name.as_str()?))
            .collect();
        let algorithms = algorithms.ok_or("an algorithm that is not verified")?;
        let keys = KeySet::from_jwks(jwks.as_bytes(), &algorithms, Origin::File).map_err(|_| "no usable key")?;
        let settings = IssuerSettings {
            name: "main".into(),
            issuer: text(verifier, "issuer")?.into(),
            audience: match list(verifier, "audience") {
                Ok(all) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
                Err(_) => vec![text(verifier, "audience")?.to_owned()],
            },
            types: Vec::new(),
            required_claims: Vec::new(),
            caller: "/sub".into(),
            tenant: "/tenant".into(),
            tier: Some("/tier".into()),
            scopes: None,
            leeway: Duration::from_secs(whole(verifier, "leeway_s_max")?),
            max_age: None,
            setting: SettingId::URI,
        };
        let issuer = Issuer::new(settings, LiveKeys::with(keys)).map_err(|_| "an issuer that is a mistake with us")?;
        let admitted = Admitted {
            jwt: AdmittedIssuers::Any,
            ..Admitted::default()
        };
        let doorman = Authenticator::new(None, vec![issuer], None, 1000, |_: Caller| ());
        Ok(Self {
            doorman: doorman.map_err(|_| "issuers that exclude each other")?,
            access: Access::new(
                admitted,
                Requirements::default(),
                &HeaderName::from_static("x-api-key"),
                SettingId::URI,
            ),
        })
    }

    /// Asks twice, since what is remembered must be what was found.
    ///
    /// # Panics
    /// If the answers differ.
    pub(crate) fn ask(&self, headers: &FieldMap, unix_now: u64) -> Result<Arc<()>, &'static str> {
        let ask = || {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let identified = self.doorman.identify(headers, &self.access, address, unix_now, || {
                Err(Rejection::KeysUnavailable {
                    retry_after: Duration::ZERO,
                    by: None,
                })
            });
            let identified = identified
                .now_or_never()
                .expect("a token whose keys are known waits for nothing");
            identified.map_err(|refusal| refusal.check.unwrap_or_default())
        };
        let (first, again) = (ask(), ask());
        assert_eq!(first, again, "what is remembered is not what was found");
        first
    }
}

/// The fields that present a token. A value that HTTP itself does not allow never arrives.
pub(crate) fn bearer(token: &str) -> FieldMap {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok();
    value.into_iter().map(|value| (AUTHORIZATION, value)).collect()
}
