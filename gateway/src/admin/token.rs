//! Checks the bearer tokens: one for every change, and one for reading if the config asks for it.

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

/// Proof that a request may change something: a handler that takes it runs only with the token.
pub(super) struct Authorised;

impl FromRequestParts<Arc<Admin>> for Authorised {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let token = admin.tokens.change.as_ref().ok_or(Problem::CHANGES_DISABLED)?;
        match Presented::read(&parts.headers) {
            None => Err(Problem::TOKEN_MISSING),
            // A password is not accepted, because a browser sends it by itself for any page.
            Some(Presented::Bearer(presented)) if token.is(&presented) => Ok(Self),
            Some(_) => Err(Problem::TOKEN_INVALID),
        }
    }
}

/// Rejects reading without a token, if one is configured for reading. The token for changes also allows reading.
pub(super) async fn check(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let tokens = &admin.tokens;
    let Some(read) = &tokens.read else {
        return next.run(request).await;
    };
    if health::is_probe(request.uri().path()) {
        return next.run(request).await;
    }
    match Presented::read(request.headers()) {
        None => Problem::READ_TOKEN_MISSING.into_response(),
        Some(Presented::Bearer(presented) | Presented::Password(presented))
            if read.is(&presented) || tokens.change.as_ref().is_some_and(|change| change.is(&presented)) =>
        {
            next.run(request).await
        }
        Some(_) => Problem::READ_TOKEN_INVALID.into_response(),
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
