//! The mistakes that a certificate file or a key file can have.
//!
//! Invariant: a mistake says what is wrong with the file, and never repeats what the file holds.

use std::fmt;

/// Mistake in a certificate file or a key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMistake {
    NotPem(String),
    NoCertificate,
    NoKey,
    /// The key cannot be used: it is encrypted, of an unknown type, or too short.
    Key(String),
    /// The key belongs to another certificate.
    KeyMismatch,
    Certificate(String),
    NotYetValid {
        from: u64,
    },
    Expired {
        since: u64,
    },
}

impl TlsMistake {
    /// Whether the mistake is in the key file. Otherwise it is in the certificate file.
    pub const fn is_about_the_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Key(_) | Self::KeyMismatch)
    }
}

impl fmt::Display for TlsMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem(error) => write!(f, "is not PEM: {error}"),
            Self::NoCertificate => f.write_str("holds no certificate"),
            Self::NoKey => f.write_str("holds no private key"),
            Self::Key(error) => write!(f, "holds a key that cannot be used: {error}"),
            Self::KeyMismatch => f.write_str("holds the key of another certificate"),
            Self::Certificate(error) => write!(f, "holds a certificate that cannot be used: {error}"),
            Self::NotYetValid { from } => write!(f, "holds a certificate that is not valid before {}", day(*from)),
            Self::Expired { since } => write!(f, "holds a certificate that expired on {}", day(*since)),
        }
    }
}

impl std::error::Error for TlsMistake {}

/// Returns the day of a time in seconds since 1970, as `24 Nov 2026`.
pub fn day(unix: u64) -> String {
    let text = httpdate::HttpDate::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix)).to_string();
    // `Sun, 06 Nov 1994 08:49:37 GMT` without the weekday and the time of day.
    text.get(5..16).unwrap_or(&text).to_owned()
}
