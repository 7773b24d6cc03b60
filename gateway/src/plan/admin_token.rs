//! A bearer token of the admin API.
//!
//! Only the SHA-256 is kept: a memory dump does not reveal the token, and a comparison takes the same time for any
//! guess.

use std::fmt;
use std::io;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

use crate::files;

/// Minimum length in characters. 16 random base64 characters hold 96 bits.
const SHORTEST: usize = 16;

#[derive(Debug, Clone)]
pub struct AdminToken(Digest);

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
