//! Explains a token for an operator: every check that it passes or fails.
//!
//! The same functions decide as for a request, so a token that a request would be refused for is not accepted here. A
//! failed check does not end the inspection: the operator wants to see every failure, and the first one.

use crate::auth::caller::Caller;
use crate::auth::check::Check;
use crate::auth::jwt::issuer::{self, Issuer};
use crate::auth::jwt::jws::{self, Jws};
use crate::json::Document;

/// Result of an inspection. Never holds the token's signature.
#[derive(Debug)]
pub struct Inspection<'a> {
    /// Header as far as it can be read. Like the claims, it is untrusted unless every check passes.
    pub header: Option<Document>,
    pub claims: Option<Document>,
    pub issuer: Option<&'a Issuer>,
    /// Stages in the order of the checks.
    pub stages: Vec<Stage>,
    /// Caller that the token identifies if its signature is valid.
    pub caller: Option<Caller>,
}

/// Group of checks, made in this order until one fails.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    pub name: &'static str,
    pub checks: &'static [Check],
    /// Result of the stage. `None` if an earlier failure has left nothing to check.
    pub result: Option<Result<(), Check>>,
}

const FORM: &[Check] = &[
    Check::TokenTooLarge,
    Check::TokenMalformed,
    Check::CriticalExtension,
    Check::TokenType,
    Check::Algorithm,
    Check::ClaimsMalformed,
];
const ISSUER: &[Check] = &[Check::Issuer, Check::TokenType];
const SIGNATURE: &[Check] = &[
    Check::KeysUnavailable,
    Check::KeyIdUnknown,
    Check::Algorithm,
    Check::KeyIdMissing,
    Check::Signature,
];
const CLAIMS: &[Check] = &[
    Check::Expiry,
    Check::TokenExpired,
    Check::NotBefore,
    Check::IssuedAt,
    Check::TokenTooOld,
    Check::Audience,
    Check::ClaimMissing,
    Check::Subject,
    Check::Tenant,
    Check::TenantOfOther,
];

/// Returns the issuer that the token names, if it is in `issuers`.
pub fn issuer_of<'a>(issuers: &'a [Issuer], token: &str) -> Option<&'a Issuer> {
    let claims = jws::readable(token).1?;
    issuer::claimed(issuers, &claims).ok().map(|(_, issuer)| issuer)
}

/// Makes every check that is possible.
pub fn inspect<'a>(issuers: &'a [Issuer], token: &str, unix_now: u64) -> Inspection<'a> {
    let (header, claims) = jws::readable(token);
    let parsed = Jws::parse(token).and_then(|jws| issuer::claims_of(&jws).map(|_| jws));
    let claimed = claims.as_ref().map(|claims| issuer::claimed(issuers, claims));
    let issuer = claimed.and_then(Result::ok).map(|(_, issuer)| issuer);
    let taken = claimed.map(|claimed| match (claimed, &parsed) {
        (Ok((_, issuer)), Ok(jws)) if !issuer.takes_type(jws.typ) => Err(Check::TokenType),
        (claimed, _) => claimed.map(drop),
    });
    let signature = match (&parsed, issuer) {
        (Ok(jws), Some(issuer)) => Some(issuer.keys().current().verify(jws)),
        _ => None,
    };
    let caller = match (&claims, issuer) {
        (Some(claims), Some(issuer)) => Some(issuer.caller(claims.clone(), unix_now)),
        _ => None,
    };
    let stage = |name, checks, result| Stage { name, checks, result };
    let stages = vec![
        stage("form", FORM, Some(parsed.as_ref().map(|_| ()).map_err(|check| *check))),
        stage("issuer", ISSUER, taken),
        stage("signature", SIGNATURE, signature),
        stage(
            "claims",
            CLAIMS,
            caller
                .as_ref()
                .map(|caller| caller.as_ref().map(drop).map_err(|check| *check)),
        ),
    ];
    Inspection {
        header,
        claims,
        issuer,
        stages,
        caller: caller.and_then(Result::ok),
    }
}

impl Inspection<'_> {
    /// Check that a request with this token would fail.
    pub fn first_failure(&self) -> Option<Check> {
        self.stages.iter().find_map(|stage| stage.result?.err())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fixtures::{keys, tokens};
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::jwt::issuer::IssuerSettings;
    use crate::auth::jwt::jwk::Origin;
    use crate::auth::jwt::key_set::KeySet;
    use crate::auth::jwt::live_keys::LiveKeys;

    const NOW: u64 = 1_000_000;

    fn issuers() -> Vec<Issuer> {
        let set = KeySet::from_jwks(keys::JWKS.as_bytes(), &[jws::Algorithm::ES256], Origin::File).unwrap();
        let settings = IssuerSettings {
            name: "main".into(),
            issuer: "https://id.test".into(),
            audience: vec!["edge".into()],
            tenant: "/tenant".into(),
            types: Vec::new(),
            required_claims: Vec::new(),
            caller: "/sub".into(),
            tier: None,
            scopes: None,
            leeway: Duration::ZERO,
            max_age: None,
            setting: crate::setting::SettingId::URI,
        };
        vec![Issuer::new(settings, LiveKeys::with(set)).unwrap()]
    }

    fn minted(algorithm: tokens::Algorithm, change: impl FnOnce(&mut Value)) -> String {
        let mut claims =
            json!({ "iss": "https://id.test", "aud": "edge", "sub": "ada", "tenant": "acme", "exp": NOW + 60 });
        change(&mut claims);
        tokens::mint(algorithm, &claims, Some(&tokens::kid(algorithm)))
    }

    #[test]
    fn every_stage_is_told_even_after_one_has_failed() {
        use tokens::Algorithm::{ES256, ES384};
        let issuers = issuers();
        let check = |token: &str, expected: [Option<Result<(), Check>>; 4], first: Option<Check>| {
            let told = inspect(&issuers, token, NOW);
            let results: Vec<_> = told.stages.iter().map(|stage| stage.result).collect();
            assert_eq!(results, expected, "{token}");
            assert_eq!(told.first_failure(), first, "{token}");
            for stage in &told.stages {
                if let Some(Err(failed)) = stage.result {
                    assert!(
                        stage.checks.contains(&failed),
                        "{} does not list {failed:?}",
                        stage.name
                    );
                }
            }
        };
        let ok = Some(Ok(()));
        let good = minted(ES256, |_| {});
        check(&good, [ok; 4], None);
        let late = minted(ES256, |claims| claims["exp"] = NOW.into());
        let expired = Some(Err(Check::TokenExpired));
        check(&late, [ok, ok, ok, expired], Some(Check::TokenExpired));
        let (signed, _) = late.rsplit_once('.').unwrap();
        let (_, other) = good.rsplit_once('.').unwrap();
        let forged = Some(Err(Check::Signature));
        check(
            &format!("{signed}.{other}"),
            [ok, ok, forged, expired],
            Some(Check::Signature),
        );
        let other_key = Some(Err(Check::KeyIdUnknown));
        check(
            &minted(ES384, |_| {}),
            [ok, ok, other_key, ok],
            Some(Check::KeyIdUnknown),
        );
        let stranger = minted(ES256, |claims| claims["iss"] = "https://evil.test".into());
        let unknown = Some(Err(Check::Issuer));
        check(&stranger, [ok, unknown, None, None], Some(Check::Issuer));
        let malformed = Some(Err(Check::TokenMalformed));
        check(
            "not a token",
            [malformed, None, None, None],
            Some(Check::TokenMalformed),
        );
        check("", [malformed, None, None, None], Some(Check::TokenMalformed));
    }

    #[test]
    fn what_can_be_read_is_shown_and_the_caller_only_if_the_claims_hold() {
        let issuers = issuers();
        let token = minted(tokens::Algorithm::ES256, |_| {});
        let told = inspect(&issuers, &token, NOW);
        let text = |document: Option<Document>, name| document?.value().get(name)?.text().map(String::from);
        assert_eq!(text(told.header, "alg").as_deref(), Some("ES256"));
        assert_eq!(text(told.claims, "sub").as_deref(), Some("ada"));
        assert_eq!(&*told.caller.unwrap().tenant, "acme");
        let cut = &token[..token.len() - 100];
        let told = inspect(&issuers, cut, NOW);
        assert!(told.header.is_some() && told.caller.is_none());
    }
}
