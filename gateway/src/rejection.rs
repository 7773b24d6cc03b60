//! Every "no" of the gateway: one enum, one stable word each, one place that says what status it has.
//!
//! A rejection carries what the *caller* may know. What happened inside goes to the request record
//! and from there to the log. A backend's own 4xx and 5xx are answers, not rejections.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

/// Why a request was not served, with what the caller needs to know about it.
#[derive(Debug, Clone)]
pub enum Rejection {
    /// The message or a part of it is outside the grammar; says what to mend.
    MalformedRequest {
        why: &'static str,
    },
    /// The route needs a credential and none of an admitted kind was presented.
    CredentialsMissing {
        challenge: Arc<Challenge>,
    },
    /// A credential was presented and does not hold.
    CredentialsInvalid {
        challenge: Arc<Challenge>,
    },
    /// A credential was genuine once; a fresh one helps.
    CredentialsExpired {
        challenge: Arc<Challenge>,
    },
    /// We know who it is, and this route is not for them.
    NotAllowed {
        why: &'static str,
    },
    /// The route is not for where the request comes from.
    AddressNotAllowed,
    /// The route is not for pages of that origin.
    OriginNotAllowed,
    NoRoute,
    MethodNotAllowed {
        allow: HeaderValue,
    },
    /// The caller was too slow in sending its request.
    RequestTimeout(Setting),
    /// `limit` in bytes.
    BodyTooLarge {
        limit: u64,
    },
    UriTooLong,
    RateLimited(Box<Violation>),
    QuotaExhausted(Box<Violation>),
    TooManyInFlight(Box<Violation>),
    HeadersTooLarge(Setting),
    /// A bug of ours.
    Internal,
    /// No connection to the backend could be made, in time if a setting says so: nothing was sent.
    BackendUnreached(Option<Setting>),
    /// The connection broke before a whole answer had come.
    BackendBroken,
    /// The backend answered with something that is not HTTP.
    BackendInvalid,
    BulkheadFull {
        retry_after: Duration,
    },
    BulkheadTimeout {
        retry_after: Duration,
    },
    BreakerOpen {
        retry_after: Duration,
    },
    NoEndpoint {
        retry_after: Duration,
    },
    Overloaded {
        retry_after: Duration,
        /// `None` where what is full has a size of its own.
        by: Option<Setting>,
    },
    /// The keys that the token would be checked with are not here, and could not be fetched in time.
    KeysUnavailable {
        retry_after: Duration,
    },
    Draining,
    /// The request's own budget ran out before a backend could use its share.
    OutOfTime(Setting),
    /// The backend used up the time an operator gave it.
    BackendTimeout(Setting),
    /// Nobody is left to read an answer; only the log sees this.
    CallerGone,
}

/// The setting that decided on a rejection, where several can. The names of route, backend and part that belong to it
/// stand in the record of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `request_limits.head`
    HeadBytes,
    /// `request_limits.headers`
    HeadFields,
    /// `time_limits.head`
    HeadTime,
    /// `minimum_rates.body`
    BodyPace,
    /// `connection_limits.total`
    Connections,
    /// `connection_limits.per_address`
    ConnectionsOfAddress,
    /// `callers.verifications.share`
    VerificationShare,
    /// `callers.verifications.rate`
    FailedVerifications,
    /// `request_limits.json_total`
    JsonTotal,
    /// `request_limits.parked_total`
    ParkedTotal,
    /// `time_limits.request`
    RequestTime,
    /// `time_limits.connect`
    ConnectTime,
    /// A route's `time_limit`, or what `time_limits` leaves.
    RouteTime,
    /// What the caller asked for; there is no setting.
    CallersWish,
    /// A part's `time_limit`.
    PartTime,
    /// A backend's `time_limit`.
    CallTime,
    /// A backend's `attempt_limit`.
    AttemptTime,
    /// The number of elements that a part is called for.
    ElementLimit,
    /// A part's `body_limit`.
    PartBytes,
    /// An aggregate's `body_limit`, for all parts together.
    AggregateBytes,
    /// What an aggregate makes of two parts that have one name.
    Conflict,
    /// A part as it is written: what it takes from elsewhere is not there, or its answer cannot stand where it should.
    Part,
    /// `path_policy`, by the name of its key.
    PathPolicy(&'static str),
    /// A route's `path_policy`, other than that of other routes.
    RoutePathPolicy,
    /// A route's `method_override`.
    MethodOverride,
    /// A route's `upgrade`.
    Upgrade,
}

/// What a 401 tells about how to authenticate (RFC 9110 section 11.6.1).
#[derive(Debug, Clone)]
pub struct Challenge {
    /// `WWW-Authenticate`; absent where the route takes no credential that has a scheme.
    pub www_authenticate: HeaderValue,
    /// In words: which credentials the route takes, and where they go.
    pub hint: String,
}

/// The limits that refused a request, ready for the answer.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Names of the limits that refused, tightest first.
    pub limits: Vec<Arc<str>>,
    /// What the one with the longest wait goes by: its name, and before that of a route's own limit, the route's.
    pub key: Arc<str>,
    /// Until the request would be admitted if nothing else came.
    pub wait: Duration,
    /// `RateLimit-Policy` and `RateLimit` of the limits that refused.
    pub policy: HeaderValue,
    pub state: HeaderValue,
}

/// The stable word for a rejection: problem document, metric label, access log, header and documentation use it alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    MalformedRequest,
    CredentialsMissing,
    CredentialsInvalid,
    CredentialsExpired,
    NotAllowed,
    AddressNotAllowed,
    OriginNotAllowed,
    NoRoute,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    UriTooLong,
    RateLimited,
    QuotaExhausted,
    TooManyInFlight,
    HeadersTooLarge,
    Internal,
    BackendUnreached,
    BackendBroken,
    BackendInvalid,
    BulkheadFull,
    BulkheadTimeout,
    BreakerOpen,
    NoEndpoint,
    Overloaded,
    KeysUnavailable,
    Draining,
    OutOfTime,
    BackendTimeout,
    CallerGone,
}

impl Reason {
    pub const ALL: [Self; 30] = [
        Self::MalformedRequest,
        Self::CredentialsMissing,
        Self::CredentialsInvalid,
        Self::CredentialsExpired,
        Self::NotAllowed,
        Self::AddressNotAllowed,
        Self::OriginNotAllowed,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::TooManyInFlight,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::BackendUnreached,
        Self::BackendBroken,
        Self::BackendInvalid,
        Self::BulkheadFull,
        Self::BulkheadTimeout,
        Self::BreakerOpen,
        Self::NoEndpoint,
        Self::Overloaded,
        Self::KeysUnavailable,
        Self::Draining,
        Self::OutOfTime,
        Self::BackendTimeout,
        Self::CallerGone,
    ];

    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().1).expect("every status in the table is between 400 and 504")
    }

    /// A short human title, the same for every occurrence (RFC 9457 section 3.1.3).
    pub const fn title(self) -> &'static str {
        self.facts().2
    }

    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::MalformedRequest => ("malformed_request", 400, "Malformed request"),
            Self::CredentialsMissing => ("credentials_missing", 401, "Credentials missing"),
            Self::CredentialsInvalid => ("credentials_invalid", 401, "Credentials invalid"),
            Self::CredentialsExpired => ("credentials_expired", 401, "Credentials expired"),
            Self::NotAllowed => ("not_allowed", 403, "Not allowed"),
            Self::AddressNotAllowed => ("address_not_allowed", 403, "Address not allowed"),
            Self::OriginNotAllowed => ("origin_not_allowed", 403, "Origin not allowed"),
            Self::NoRoute => ("no_route", 404, "No such route"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed"),
            Self::RequestTimeout => ("request_timeout", 408, "Request came too slowly"),
            Self::BodyTooLarge => ("body_too_large", 413, "Request body too large"),
            Self::UriTooLong => ("uri_too_long", 414, "Request URI too long"),
            Self::RateLimited => ("rate_limited", 429, "Rate limit exceeded"),
            Self::QuotaExhausted => ("quota_exhausted", 429, "Quota exhausted"),
            Self::TooManyInFlight => ("too_many_in_flight", 429, "Too many requests in flight"),
            Self::HeadersTooLarge => ("headers_too_large", 431, "Request headers too large"),
            Self::Internal => ("internal", 500, "Internal error"),
            Self::BackendUnreached => ("backend_unreached", 502, "Backend could not be reached"),
            Self::BackendBroken => ("backend_broken", 502, "Backend broke off"),
            Self::BackendInvalid => ("backend_invalid", 502, "Backend answer is invalid"),
            Self::BulkheadFull => ("bulkhead_full", 503, "Backend is at its limit"),
            Self::BulkheadTimeout => ("bulkhead_timeout", 503, "Waited too long for the backend"),
            Self::BreakerOpen => ("breaker_open", 503, "Backend is failing and left alone for now"),
            Self::NoEndpoint => ("no_endpoint", 503, "No endpoint of the backend is available"),
            Self::Overloaded => ("overloaded", 503, "Gateway is overloaded"),
            Self::KeysUnavailable => ("keys_unavailable", 503, "Keys of the token's issuer are not here"),
            Self::Draining => ("draining", 503, "Gateway is shutting down"),
            Self::OutOfTime => ("out_of_time", 504, "Request ran out of time"),
            Self::BackendTimeout => ("backend_timeout", 504, "Backend took too long"),
            // 499 is nginx's word for it; no caller ever sees it.
            Self::CallerGone => ("caller_gone", 499, "Caller hung up"),
        }
    }
}

impl Rejection {
    /// The setting that decided, where its reason alone does not tell.
    pub const fn setting(&self) -> Option<Setting> {
        match self {
            Self::RequestTimeout(by) | Self::HeadersTooLarge(by) | Self::OutOfTime(by) | Self::BackendTimeout(by) => {
                Some(*by)
            }
            Self::Overloaded { by, .. } | Self::BackendUnreached(by) => *by,
            _ => None,
        }
    }

    pub const fn reason(&self) -> Reason {
        match self {
            Self::MalformedRequest { .. } => Reason::MalformedRequest,
            Self::CredentialsMissing { .. } => Reason::CredentialsMissing,
            Self::CredentialsInvalid { .. } => Reason::CredentialsInvalid,
            Self::CredentialsExpired { .. } => Reason::CredentialsExpired,
            Self::NotAllowed { .. } => Reason::NotAllowed,
            Self::AddressNotAllowed => Reason::AddressNotAllowed,
            Self::OriginNotAllowed => Reason::OriginNotAllowed,
            Self::NoRoute => Reason::NoRoute,
            Self::MethodNotAllowed { .. } => Reason::MethodNotAllowed,
            Self::RequestTimeout(_) => Reason::RequestTimeout,
            Self::BodyTooLarge { .. } => Reason::BodyTooLarge,
            Self::UriTooLong => Reason::UriTooLong,
            Self::RateLimited(_) => Reason::RateLimited,
            Self::QuotaExhausted(_) => Reason::QuotaExhausted,
            Self::TooManyInFlight(_) => Reason::TooManyInFlight,
            Self::HeadersTooLarge(_) => Reason::HeadersTooLarge,
            Self::Internal => Reason::Internal,
            Self::BackendUnreached(_) => Reason::BackendUnreached,
            Self::BackendBroken => Reason::BackendBroken,
            Self::BackendInvalid => Reason::BackendInvalid,
            Self::BulkheadFull { .. } => Reason::BulkheadFull,
            Self::BulkheadTimeout { .. } => Reason::BulkheadTimeout,
            Self::BreakerOpen { .. } => Reason::BreakerOpen,
            Self::NoEndpoint { .. } => Reason::NoEndpoint,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::KeysUnavailable { .. } => Reason::KeysUnavailable,
            Self::Draining => Reason::Draining,
            Self::OutOfTime(_) => Reason::OutOfTime,
            Self::BackendTimeout(_) => Reason::BackendTimeout,
            Self::CallerGone => Reason::CallerGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_in_the_docs_with_its_status() {
        let page = include_str!("../docs/refusals.md");
        for reason in Reason::ALL {
            let (word, status) = (format!("`{}`", reason.as_str()), reason.status().as_u16().to_string());
            let is_row = |line: &&str| {
                let mut cells = line.split('|').skip(1);
                cells
                    .next()
                    .is_some_and(|words| words.split(',').any(|one| one.trim() == word))
                    && cells.next().is_some_and(|statuses| statuses.contains(&status))
            };
            assert!(page.lines().any(|line| is_row(&line)), "{word}, {status}");
        }
    }
}
