//! Checks the bearer tokens: one for every change, one for reading if the config asks for it, and those of the file of
//! tokens, each with its roles.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::health;
use super::problem::Problem;
use super::state::Admin;
use crate::clock;
use crate::plan::admin_token::NamedToken;

/// Proof that a request may change everything: a handler that takes it runs only with the token.
pub(super) struct Authorised;

/// Proof that a request may change tenants, keys, revocations and counts of quotas. Holds the name of the token.
pub(super) struct MayChangeKeys(pub(super) Arc<str>);

/// Name of the token of `admin.token_file` in the audit.
const ONLY: &str = "admin.token_file";

impl FromRequestParts<Arc<Admin>> for Authorised {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        changing(&parts.headers, admin, |token| token.may_change_all).map(|_| Self)
    }
}

impl FromRequestParts<Arc<Admin>> for MayChangeKeys {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        changing(&parts.headers, admin, |token| token.may_change_keys).map(Self)
    }
}

/// Returns the name of the token of a request that changes something.
fn changing(headers: &HeaderMap, admin: &Admin, may: fn(&NamedToken) -> bool) -> Result<Arc<str>, Problem> {
    let plan = admin.gateway.live.load();
    let (only, named) = (admin.tokens.change.as_ref(), plan.admin_tokens.as_deref());
    if only.is_none() && named.is_none() {
        return Err(Problem::CHANGES_DISABLED);
    }
    match Presented::read(headers) {
        None => Err(Problem::TOKEN_MISSING),
        // A password is not accepted, because a browser sends it by itself for any page.
        Some(Presented::Bearer(presented)) => {
            if only.is_some_and(|token| token.is(&presented)) {
                return Ok(ONLY.into());
            }
            match NamedToken::find(named.unwrap_or_default(), &presented, clock::unix_seconds()) {
                Some(token) if may(token) => Ok(Arc::clone(&token.name)),
                Some(_) => Err(Problem::ROLE_MISSING),
                None => Err(Problem::TOKEN_INVALID),
            }
        }
        Some(_) => Err(Problem::TOKEN_INVALID),
    }
}

/// Rejects reading without a token, if one is configured for reading. Every token allows reading.
pub(super) async fn check(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let tokens = &admin.tokens;
    let plan = admin.gateway.live.load();
    let named = plan.admin_tokens.as_deref();
    if tokens.read.is_none() && named.is_none() || health::is_probe(request.uri().path()) {
        drop(plan);
        return next.run(request).await;
    }
    let may_read = |presented: &str| {
        let ours = [&tokens.read, &tokens.change].into_iter().flatten();
        ours.into_iter().any(|token| token.is(presented))
            || NamedToken::find(named.unwrap_or_default(), presented, clock::unix_seconds()).is_some()
    };
    let refused = match Presented::read(request.headers()) {
        None => Some(Problem::READ_TOKEN_MISSING),
        Some(Presented::Bearer(presented) | Presented::Password(presented)) if may_read(&presented) => None,
        Some(_) => Some(Problem::READ_TOKEN_INVALID),
    };
    drop(plan);
    match refused {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

enum Presented {
    Bearer(String),
    /// Password of basic authentication, with any user name, as browsers send it.
    Password(String),
    /// Another scheme, or a malformed field.
    Nothing,
}

impl Presented {
    /// Returns `None` if the field is absent.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let field = headers.get(AUTHORIZATION)?;
        let Some((scheme, rest)) = field.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Some(Self::Nothing);
        };
        let rest = rest.trim();
        // The scheme is case-insensitive (RFC 9110 section 11.1).
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Nothing);
        }
        let decoded = STANDARD
            .decode(rest)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        Some(match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((_, password)) => Self::Password(password.to_owned()),
            None => Self::Nothing,
        })
    }
}

#[cfg(test)]
mod tests;
