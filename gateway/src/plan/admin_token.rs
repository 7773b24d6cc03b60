//! A bearer token of the admin API.
//!
//! Only the SHA-256 is kept: a memory dump does not reveal the token, and a comparison takes the same time for any
//! guess.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

use crate::config::admin_tokens::{AdminTokenEntry, Role};
use crate::files;

/// Minimum length in characters. 16 random base64 characters hold 96 bits.
const SHORTEST: usize = 16;

#[derive(Debug, Clone)]
pub struct AdminToken(Digest);

/// A token of the file of tokens.
#[derive(Debug, Clone)]
pub struct NamedToken {
    pub name: Arc<str>,
    digest: [u8; 32],
    /// Whether it may change tenants, keys, revocations and counts of quotas.
    pub may_change_keys: bool,
    /// Whether it may change everything.
    pub may_change_all: bool,
    /// First second since 1970 in which it is no longer valid.
    expires: Option<u64>,
    is_disabled: bool,
}

impl NamedToken {
    pub fn new(written: &AdminTokenEntry) -> Self {
        let AdminTokenEntry {
            name,
            digest,
            roles,
            expires,
            disabled,
        } = written;
        let has = |role| roles.iter().any(|written| **written == role);
        Self {
            name: name.as_str().into(),
            digest: digest.0,
            may_change_keys: has(Role::Keys) || has(Role::All),
            may_change_all: has(Role::All),
            expires: expires.as_ref().map(|at| at.0),
            is_disabled: **disabled,
        }
    }

    /// Returns the token among `all` that was presented, if it is valid now.
    pub fn find<'a>(all: &'a [Self], presented: &str, unix_now: u64) -> Option<&'a Self> {
        let presented = digest(&SHA256, presented.as_bytes());
        let is_it = |token: &&Self| verify_slices_are_equal(&token.digest, presented.as_ref()).is_ok();
        let is_valid = |token: &&Self| !token.is_disabled && token.expires.is_none_or(|end| unix_now < end);
        all.iter().find(is_it).filter(is_valid)
    }
}

/// Reasons why a file has no usable token.
#[derive(Debug)]
pub enum NoToken {
    Unreadable(io::Error),
    TooShort,
}

impl AdminToken {
    /// Reads the token from `file`, without the white space around it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or the token is too short.
    pub fn read(file: &Path) -> Result<Self, NoToken> {
        let content = files::read(file).map_err(NoToken::Unreadable)?;
        let text = String::from_utf8_lossy(&content.bytes);
        let token = text.trim();
        if token.chars().count() < SHORTEST {
            return Err(NoToken::TooShort);
        }
        Ok(Self(digest(&SHA256, token.as_bytes())))
    }

    pub fn is(&self, presented: &str) -> bool {
        self.is_same(&Self(digest(&SHA256, presented.as_bytes())))
    }

    pub fn is_same(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.0.as_ref(), other.0.as_ref()).is_ok()
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::TooShort => write!(
                f,
                "it holds a token of fewer than {SHORTEST} characters; make one with: openssl rand -hex 32"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_stands_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            AdminToken::read(&path)
        };
        let token = read(" correct-horse-battery\n").unwrap();
        assert!(token.is("correct-horse-battery"));
        assert!(!token.is("correct-horse-batterz") && !token.is(""));
        assert!(token.is_same(&read("correct-horse-battery").unwrap()));
        assert!(matches!(read("fifteen-letters"), Err(NoToken::TooShort)));
        assert!(matches!(AdminToken::read(folder.path()), Err(NoToken::Unreadable(_))));
    }
}
