//! Writes `Cache-Status` (RFC 9211): whether an answer came from the cache, and if not, why.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, StatusCode};

pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Part that the cache took in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// The stored answer, and the seconds for which it stays fresh.
    Hit { ttl: i64 },
    /// The answer of the backend, or one that it has confirmed.
    Forwarded {
        why: Forward,
        /// Status of the backend, where the caller gets another.
        status: Option<StatusCode>,
        /// Whether the answer was stored.
        stored: bool,
        /// Whether the request waited for the answer to another one.
        collapsed: bool,
        detail: Option<&'static str>,
    },
}

/// Why a request was sent on (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The request is not one that the cache answers.
    Bypass,
    /// Method with which nothing is stored.
    Method,
    UriMiss,
    Stale,
    /// The caller wants a newer answer.
    Request,
}

impl Forward {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

impl CacheStatus {
    /// A request that was sent on, with nothing more to say.
    pub const fn forwarded(why: Forward) -> Self {
        Self::Forwarded {
            why,
            status: None,
            stored: false,
            collapsed: false,
            detail: None,
        }
    }

    pub fn to_value(self) -> HeaderValue {
        match self {
            Self::Forwarded {
                why: Forward::UriMiss,
                status: None,
                stored: true,
                collapsed: false,
                detail: None,
            } => HeaderValue::from_static("gateway; fwd=uri-miss; stored"),
            _ => value("gateway".to_owned(), self),
        }
    }

    /// Returns the value for a part of an aggregate, whose cache is named after it. Several calls are one status, with
    /// the number of hits among them.
    pub fn of_part(self, part: &str, (hits, calls): (u32, u32)) -> HeaderValue {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte);
        // A token, or else a string (RFC 8941 section 3.3).
        let name = match part.as_bytes().iter().all(is_token) {
            true => format!("gateway/{part}"),
            false => {
                let is_plain = |letter: &char| matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\');
                let plain: String = part.chars().filter(is_plain).collect();
                format!("\"gateway/{plain}\"")
            }
        };
        let mut value = value(name, self).to_str().unwrap_or_default().to_owned();
        if calls > 1 {
            let _ = write!(value, "; calls={calls}; hits={hits}");
        }
        HeaderValue::try_from(value).unwrap_or_else(|_| self.to_value())
    }
}

fn value(mut text: String, status: CacheStatus) -> HeaderValue {
    // Writing to text does not fail.
    match status {
        CacheStatus::Hit { ttl } => {
            let _ = write!(text, "; hit; ttl={ttl}");
        }
        CacheStatus::Forwarded {
            why,
            status,
            stored,
            collapsed,
            detail,
        } => {
            let _ = write!(text, "; fwd={}", why.as_str());
            if let Some(status) = status {
                let _ = write!(text, "; fwd-status={}", status.as_u16());
            }
            if stored {
                text.push_str("; stored");
            }
            if collapsed {
                text.push_str("; collapsed");
            }
            if let Some(detail) = detail {
                let _ = write!(text, "; detail={detail}");
            }
        }
    }
    HeaderValue::try_from(text).expect("words and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_says_what_happened() {
        let check = |status: CacheStatus, expected: &str| assert_eq!(status.to_value(), expected);
        check(CacheStatus::Hit { ttl: 30 }, "gateway; hit; ttl=30");
        check(CacheStatus::Hit { ttl: -5 }, "gateway; hit; ttl=-5");
        check(CacheStatus::forwarded(Forward::Bypass), "gateway; fwd=bypass");
        let forwarded = |status, stored, collapsed, detail| CacheStatus::Forwarded {
            why: Forward::Stale,
            status,
            stored,
            collapsed,
            detail,
        };
        check(
            forwarded(Some(StatusCode::NOT_MODIFIED), true, true, None),
            "gateway; fwd=stale; fwd-status=304; stored; collapsed",
        );
        check(
            forwarded(None, false, false, Some("stale-if-error")),
            "gateway; fwd=stale; detail=stale-if-error",
        );
    }
}
