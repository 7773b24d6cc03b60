//! Reads an answer of the service.
//!
//! Invariant: only a whole answer in exactly the documented form names a caller. An answer that is wrong in any way is
//! no answer: it neither admits nor refuses the caller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde::Deserialize;

use super::{RefusalKind, ServiceAnswer, ServiceRefusal};
use crate::auth::caller::{Caller, Kind, is_caller_id, is_tenant_name};
use crate::auth::jwt::key_fetch::fresh_for;
use crate::identity;
use crate::json;

/// Maximum size of an answer's body, in bytes.
pub const MAX_BODY: usize = 64 << 10;

/// Maximum number of scopes of one caller.
const MOST_SCOPES: usize = 256;

/// Maximum length of a `WWW-Authenticate` that is passed on, in bytes.
const LONGEST_CHALLENGE: usize = 1024;

/// An answer that was understood.
#[derive(Debug)]
pub struct Answer {
    pub verdict: Result<Caller, ServiceRefusal>,
    /// Longest time for which `Cache-Control` allows the answer to be used again; `None` if it says nothing.
    pub fresh_for: Option<Duration>,
}

/// Reason why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    Status(StatusCode),
    /// The body is not JSON of the documented form. Holds the place and the kind of the mistake.
    Form(String),
    Tenant,
    Subject,
    Scopes,
    /// Holds the tier's name.
    UnknownTier(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCaller {
    tenant: String,
    subject: String,
    tier: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    expires: Option<u64>,
}

/// Reads an answer. `is_tier` tells whether a tier exists.
///
/// # Errors
/// If it is not exactly of the documented form.
pub fn read(answer: &ServiceAnswer, is_tier: impl Fn(&str) -> bool, unix_now: u64) -> Result<Answer, Unusable> {
    let verdict = match answer.status {
        StatusCode::OK => match caller(&answer.body, is_tier)? {
            caller if caller.expires.is_some_and(|expires| expires <= unix_now) => Err(ServiceRefusal {
                kind: RefusalKind::Expired,
                www_authenticate: None,
            }),
            caller => Ok(caller),
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(refusal(answer)),
        other => return Err(Unusable::Status(other)),
    };
    Ok(Answer {
        verdict,
        fresh_for: fresh_for(&answer.headers),
    })
}

fn caller(body: &[u8], is_tier: impl Fn(&str) -> bool) -> Result<Caller, Unusable> {
    let written: WrittenCaller = json::typed(body, MAX_BODY).map_err(Unusable::Form)?;
    let WrittenCaller {
        tenant,
        subject,
        tier,
        scopes,
        expires,
    } = written;
    if !is_tenant_name(&tenant) {
        return Err(Unusable::Tenant);
    }
    if !is_caller_id(&subject) {
        return Err(Unusable::Subject);
    }
    let is_scope = |scope: &String| identity::is_name(scope, identity::CALLER_LENGTH);
    if scopes.len() > MOST_SCOPES || !scopes.iter().all(is_scope) {
        return Err(Unusable::Scopes);
    }
    if let Some(tier) = tier.as_deref().filter(|tier| !is_tier(tier)) {
        return Err(Unusable::UnknownTier(tier.chars().take(64).collect()));
    }
    Ok(Caller {
        tenant: tenant.into(),
        id: subject.into(),
        tier: tier.map(Arc::from),
        scopes: scopes.into_iter().map(Arc::from).collect(),
        kind: Kind::External,
        claims: None,
        configured: false,
        expires,
    })
}

fn refusal(answer: &ServiceAnswer) -> ServiceRefusal {
    let mut challenges = answer.headers.get_all(WWW_AUTHENTICATE).iter();
    let only = match (challenges.next(), challenges.next()) {
        (Some(only), None) => Some(only).filter(|only| only.len() <= LONGEST_CHALLENGE),
        _ => None,
    };
    ServiceRefusal {
        kind: match answer.status {
            StatusCode::FORBIDDEN => RefusalKind::Forbidden,
            _ => RefusalKind::Invalid,
        },
        www_authenticate: only.cloned(),
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) if status.is_redirection() => {
                write!(f, "status {}: redirects are not followed", status.as_u16())
            }
            Self::Status(status) => write!(f, "status {}, which is none of 200, 401 and 403", status.as_u16()),
            Self::Form(why) => write!(f, "the body is not a caller: {why}"),
            Self::Tenant => f.write_str("`tenant` is no name of a tenant"),
            Self::Subject => f.write_str("`subject` is no name of a caller"),
            Self::Scopes => f.write_str("`scopes` are too many, or not names"),
            Self::UnknownTier(tier) => write!(f, "there is no tier `{}`", tier.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::FieldMap;
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn answered(status: u16, body: &str) -> ServiceAnswer {
        ServiceAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: FieldMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn read_body(status: u16, body: &str) -> Result<Answer, Unusable> {
        read(&answered(status, body), |tier| tier == "basic", 98)
    }

    #[test]
    fn a_whole_answer_names_a_caller() {
        let body = r#"{"tenant":"acme","subject":"ada","tier":"basic","scopes":["a","b"],"expires":99}"#;
        let caller = read_body(200, body).unwrap().verdict.unwrap();
        assert_eq!((&*caller.tenant, &*caller.id), ("acme", "ada"));
        assert_eq!((caller.tier.as_deref(), caller.expires), (Some("basic"), Some(99)));
        assert_eq!(caller.scopes.len(), 2);
        let least = read_body(200, r#"{"tenant":"acme","subject":"ada"}"#)
            .unwrap()
            .verdict
            .unwrap();
        let expired = read_body(200, r#"{"tenant":"acme","subject":"ada","expires":98}"#).unwrap();
        assert_eq!(expired.verdict.unwrap_err().kind, RefusalKind::Expired);
        assert!(least.tier.is_none() && least.expires.is_none() && least.scopes.is_empty());
    }

    #[test]
    fn every_other_answer_is_none() {
        let check = |status, body: &str, expected: fn(&Unusable) -> bool| {
            let unusable = read_body(status, body).expect_err(body);
            assert!(expected(&unusable), "{body}: {unusable}");
        };
        let form: fn(&Unusable) -> bool = |why| matches!(why, Unusable::Form(_));
        for body in [
            "",
            "null",
            "[]",
            "true",
            "<html>",
            "{}",
            r#"{"tenant":"acme"}"#,
            r#"{"tenant":"acme","subject":null}"#,
            r#"{"tenant":"acme","subject":"ada""#,
            r#"{"tenant":"acme","subject":"ada"} x"#,
            r#"{"tenant":"acme","subject":"ada","tenant":"other"}"#,
            r#"{"tenant":"acme","subject":"ada","expire":1}"#,
            r#"{"tenant":"acme","subject":"ada","expires":-1}"#,
            r#"{"tenant":"acme","subject":"ada","expires":"soon"}"#,
            r#"{"tenant":"acme","subject":"ada","scopes":"a b"}"#,
            r#"{"tenant":["acme"],"subject":"ada"}"#,
        ] {
            check(200, body, form);
        }
        check(200, r#"{"tenant":"anonymous","subject":"ada"}"#, |why| {
            *why == Unusable::Tenant
        });
        check(200, r#"{"tenant":"","subject":"ada"}"#, |why| *why == Unusable::Tenant);
        check(200, r#"{"tenant":"acme","subject":"a\nb"}"#, |why| {
            *why == Unusable::Subject
        });
        check(200, r#"{"tenant":"acme","subject":"ada","scopes":[""]}"#, |why| {
            *why == Unusable::Scopes
        });
        check(200, r#"{"tenant":"acme","subject":"ada","tier":"gold"}"#, |why| {
            *why == Unusable::UnknownTier("gold".to_owned())
        });
        let good = r#"{"tenant":"acme","subject":"ada"}"#;
        for status in [201, 204, 302, 400, 404, 407, 429, 500, 503] {
            check(status, good, |why| matches!(why, Unusable::Status(_)));
        }
        let huge = format!(r#"{{"tenant":"acme","subject":"{}"}}"#, "x".repeat(MAX_BODY));
        check(200, &huge, form);
    }

    #[test]
    fn a_refusal_passes_one_challenge_on() {
        let check = |status, challenges: &[&str], expected: Option<&str>| {
            let mut answer = answered(status, "anything");
            for challenge in challenges {
                answer
                    .headers
                    .append(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap());
            }
            let refusal = read(&answer, |_| true, 0).unwrap().verdict.unwrap_err();
            assert_eq!(refusal.kind == RefusalKind::Forbidden, status == 403);
            let told = refusal.www_authenticate.as_ref().map(|told| told.to_str().unwrap());
            assert_eq!(told, expected, "{challenges:?}");
        };
        check(401, &[], None);
        check(401, &["Bearer realm=\"x\""], Some("Bearer realm=\"x\""));
        check(401, &["Bearer", "Basic"], None);
        check(401, &["x".repeat(LONGEST_CHALLENGE + 1).as_str()], None);
        check(403, &[], None);
    }

    #[test]
    fn cache_control_is_read() {
        let check = |value: &'static str, expected: Option<u64>| {
            let mut answer = answered(401, "");
            answer.headers.insert("cache-control", HeaderValue::from_static(value));
            let read = read(&answer, |_| true, 0).unwrap();
            assert_eq!(read.fresh_for, expected.map(Duration::from_secs), "{value}");
        };
        check("max-age=7", Some(7));
        check("private, max-age=0", Some(0));
        check("no-store", Some(0));
        check("no-cache, max-age=9", Some(0));
        check("private", None);
    }
}
