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
            Self::Hit { ttl } => value(format_args!("gateway; hit; ttl={ttl}")),
            Self::Forwarded {
                why,
                status,
                stored,
                collapsed,
                detail,
            } => {
                let mut text = format!("gateway; fwd={}", why.as_str());
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
                value(format_args!("{text}"))
            }
        }
    }
}

fn value(text: std::fmt::Arguments<'_>) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).expect("words and digits")
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
