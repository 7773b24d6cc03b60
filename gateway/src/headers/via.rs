//! `Via`: tells the next hop that a message passed through this gateway, and detects a request that comes back.
//!
//! Each gateway has its own pseudonym, so that one gateway behind another is not taken for a loop.

use http::header::VIA;
use http::{HeaderValue, Version};

use crate::message::FieldMap;

/// The gateway's entry in `Via` (RFC 9110 section 7.6.3), prepared for each HTTP version that a message can come in.
#[derive(Debug, Clone)]
pub struct Via {
    pseudonym: Box<str>,
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// Returns `None` if `pseudonym` is empty or has characters other than letters, digits, `-`, `.` and `_`.
    pub fn new(pseudonym: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if pseudonym.is_empty() || !pseudonym.bytes().all(fits) {
            return None;
        }
        let value = |version: &str| HeaderValue::try_from(format!("{version} {pseudonym}")).ok();
        Some(Self {
            pseudonym: pseudonym.into(),
            http10: value("1.0")?,
            http11: value("1.1")?,
            http2: value("2.0")?,
        })
    }

    /// Creates an entry with a random pseudonym that no other process has.
    pub fn unique() -> Self {
        Self::new(&format!("gateway-{:016x}", fastrand::u64(..))).expect("letters, digits and a hyphen")
    }

    pub fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// Returns the entry for a message that was received in `version`.
    pub(crate) fn value(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_2 => self.http2.clone(),
            Version::HTTP_10 => self.http10.clone(),
            _ => self.http11.clone(),
        }
    }

    /// Whether the message has passed through this gateway before.
    pub(crate) fn is_in(&self, headers: &FieldMap) -> bool {
        let is_ours = |entry: &str| {
            let received_by = entry.split_ascii_whitespace().nth(1);
            received_by.is_some_and(|name| name.eq_ignore_ascii_case(&self.pseudonym))
        };
        let lines = headers
            .get_all(VIA)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()));
        lines.into_iter().any(|line| line.split(',').any(is_ours))
    }
}
