//! The bearer token that every change needs.
//!
//! Only its SHA-256 is kept, so a memory dump does not hand it out and comparing takes the same time for any guess.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::Admin;
use super::problem::Problem;
use crate::files;

/// Characters; 16 random ones of base64 hold 96 bits.
const SHORTEST: usize = 16;

pub(super) struct Token(Digest);

impl Token {
    /// The content of `file` without the white space around it.
    ///
    /// # Errors
    /// It cannot be read or is too short to be a secret.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let content = files::read(file).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot read the token in {}: {error}", file.display()),
            )
        })?;
        let text = String::from_utf8_lossy(&content.bytes);
        let token = text.trim();
        if token.chars().count() < SHORTEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the token in {} has fewer than {SHORTEST} characters; make one with: openssl rand -hex 32",
                    file.display()
                ),
            ));
        }
        Ok(Self(digest(&SHA256, token.as_bytes())))
    }

    fn is(&self, presented: &str) -> bool {
        verify_slices_are_equal(self.0.as_ref(), digest(&SHA256, presented.as_bytes()).as_ref()).is_ok()
    }
}

/// Proof that a request may change something: a handler that takes it cannot be reached without the token.
pub(super) struct Authorised;

impl FromRequestParts<Arc<Admin>> for Authorised {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let token = admin.token.as_ref().ok_or(Problem::CHANGES_DISABLED)?;
        let presented = parts.headers.get(AUTHORIZATION).ok_or(Problem::TOKEN_MISSING)?;
        let presented = presented.to_str().ok().and_then(|text| text.split_once(' '));
        match presented {
            // RFC 9110 section 11.1: the scheme's case does not matter.
            Some((scheme, presented)) if scheme.eq_ignore_ascii_case("bearer") && token.is(presented.trim()) => {
                Ok(Self)
            }
            _ => Err(Problem::TOKEN_INVALID),
        }
    }
}
