//! All rejections of the gateway, each with one stable word and one status.
//!
//! A rejection holds what the caller may know. Internal facts go to the request record and from there to the log. A 4xx
//! or 5xx of a backend is an answer, not a rejection.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::setting::{Configured, SettingId};

/// Defines one reason in each row: the fields of its rejection, its status, its gRPC code, its stable word, and its
/// title (RFC 9457 section 3.1.3), which is the same for every occurrence.
macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $reason:ident $({ $($field:tt)* })? $(($held:ty))?: $status:literal $grpc:ident $word:literal $title:literal;
    )+) => {
        /// A reason why a request was not served, with what the caller needs to know about it.
        #[derive(Debug, Clone)]
        pub enum Rejection {
            $($(#[$doc])* $reason $({ $($field)* })? $(($held))?,)+
        }

        /// The reason of a rejection. Its stable word is the same in problem document, metrics, access log and header.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $reason,)+
        }

        impl Reason {
            pub const ALL: [Self; [$(Self::$reason),+].len()] = [$(Self::$reason),+];

            const fn facts(self) -> (&'static str, u16, &'static str) {
                match self {
                    $(Self::$reason => ($word, $status, $title),)+
                }
            }

            /// Returns the status for a gRPC client. A broken or invalid answer of a backend is `UNAVAILABLE`, as gRPC
            /// clients read a 502; the client decides whether to repeat the call.
            pub const fn grpc_code(self) -> GrpcCode {
                match self {
                    $(Self::$reason => GrpcCode::$grpc,)+
                }
            }
        }

        impl Rejection {
            pub const fn reason(&self) -> Reason {
                match self {
                    $(Self::$reason { .. } => Reason::$reason,)+
                }
            }
        }
    };
}

reasons! {
    /// The message or a part of it violates the grammar; `why` tells what to correct.
    MalformedRequest { why: &'static str, by: Option<SettingId> }: 400 InvalidArgument "malformed_request" "Malformed request";
    /// The caller chooses a field of a document that is not offered, or does not write fields; `why` tells which are.
    FieldNotOffered { why: Box<str>, by: SettingId }: 400 InvalidArgument "field_not_offered" "Field not offered";
    /// The route needs a credential, and none of a kind that it takes was presented.
    CredentialsMissing { challenge: Arc<Challenge> }: 401 Unauthenticated "credentials_missing" "Credentials missing";
    /// A presented credential is not valid.
    CredentialsInvalid { challenge: Arc<Challenge> }: 401 Unauthenticated "credentials_invalid" "Credentials invalid";
    /// A presented credential is no longer valid; a fresh one helps.
    CredentialsExpired { challenge: Arc<Challenge> }: 401 Unauthenticated "credentials_expired" "Credentials expired";
    /// The caller is known, but may not use the route.
    NotAllowed { why: &'static str, by: SettingId }: 403 PermissionDenied "not_allowed" "Not allowed";
    /// The operator has disabled the caller's tenant.
    TenantDisabled(SettingId): 403 PermissionDenied "tenant_disabled" "Tenant disabled";
    /// The route is closed to the client's address.
    AddressNotAllowed(SettingId): 403 PermissionDenied "address_not_allowed" "Address not allowed";
    /// The route is closed to pages of the request's origin.
    OriginNotAllowed(SettingId): 403 PermissionDenied "origin_not_allowed" "Origin not allowed";
    /// The route wants a key and the request has none.
    IdempotencyKeyMissing(SettingId): 400 InvalidArgument "idempotency_key_missing" "Idempotency-Key is missing";
    /// The key cannot be read or used; `why` tells what to correct.
    IdempotencyKeyInvalid { why: &'static str, by: SettingId }: 400 InvalidArgument "idempotency_key_invalid" "Idempotency-Key cannot be used";
    /// The request's body does not say what it may cost; `what` tells which value to correct.
    CostUnknown { what: Box<str>, by: SettingId }: 400 InvalidArgument "cost_unknown" "Cost of the request is not known";
    /// The request would take more than a limit ever holds, which is `most`. No wait helps.
    CostTooHigh { most: u64, by: SettingId }: 400 InvalidArgument "cost_too_high" "Request costs more than a limit holds";
    NoRoute: 404 Unimplemented "no_route" "No such route";
    MethodNotAllowed { allow: HeaderValue, by: Option<SettingId> }: 405 Unimplemented "method_not_allowed" "Method not allowed";
    /// The caller sent its request too slowly. Holds `None` if the caller set the time itself.
    RequestTimeout(Option<SettingId>): 408 DeadlineExceeded "request_timeout" "Request came too slowly";
    /// The request with this key is under way.
    IdempotencyKeyInUse(SettingId): 409 Aborted "idempotency_key_in_use" "A request is outstanding for this Idempotency-Key";
    /// The request with this key may have been done, and its answer never came.
    OutcomeUnknown {
        /// Time for which the key is still remembered.
        kept_for: Duration,
        by: SettingId,
    }: 409 FailedPrecondition "idempotency_outcome_unknown" "Outcome of the request with this Idempotency-Key is unknown";
    /// The request with this key was answered, and the answer was not stored.
    AnswerNotKept {
        /// Status of the answer.
        status: u16,
        by: SettingId,
    }: 409 FailedPrecondition "idempotency_answer_not_kept" "Answer to the request with this Idempotency-Key was not kept";
    /// Holds the largest allowed body in bytes.
    BodyTooLarge(Configured<u64>): 413 ResourceExhausted "body_too_large" "Request body too large";
    UriTooLong: 414 ResourceExhausted "uri_too_long" "Request URI too long";
    /// The key belongs to another request.
    IdempotencyKeyReused(SettingId): 422 InvalidArgument "idempotency_key_reused" "Idempotency-Key is already used";
    /// The request asks for a version of WebSockets that is not spoken here.
    WebSocketVersion: 426 Unimplemented "websocket_version" "WebSocket version not supported";
    RateLimited(Box<Violation>): 429 ResourceExhausted "rate_limited" "Rate limit exceeded";
    QuotaExhausted(Box<Violation>): 429 ResourceExhausted "quota_exhausted" "Quota exhausted";
    TooManyInFlight(Box<Violation>): 429 ResourceExhausted "too_many_in_flight" "Too many requests in flight";
    HeadersTooLarge(SettingId): 431 ResourceExhausted "headers_too_large" "Request headers too large";
    /// A bug of the gateway.
    Internal: 500 Internal "internal" "Internal error";
    /// No connection to the backend was made, or not in time. Nothing was sent.
    BackendUnreached(SettingId): 502 Unavailable "backend_unreached" "Backend could not be reached";
    /// The backend's connection broke before its whole answer had come.
    BackendBroken(SettingId): 502 Unavailable "backend_broken" "Backend broke off";
    /// The backend answered with something that is not HTTP.
    BackendInvalid(SettingId): 502 Unavailable "backend_invalid" "Backend answer is invalid";
    BulkheadFull { retry_after: Duration, by: SettingId }: 503 Unavailable "bulkhead_full" "Backend is at its limit";
    BulkheadTimeout { retry_after: Duration, by: SettingId }: 503 Unavailable "bulkhead_timeout" "Waited too long for the backend";
    BreakerOpen { retry_after: Duration, by: SettingId }: 503 Unavailable "breaker_open" "Backend is failing and left alone for now";
    NoEndpoint { retry_after: Duration, by: SettingId }: 503 Unavailable "no_endpoint" "No endpoint of the backend is available";
    Overloaded {
        retry_after: Duration,
        /// The setting that caps what is full; `None` where the cap is fixed.
        by: Option<SettingId>,
    }: 503 Unavailable "overloaded" "Gateway is overloaded";
    /// The keys to check the token are not cached and could not be fetched in time.
    KeysUnavailable { retry_after: Duration, by: Option<SettingId> }: 503 Unavailable "keys_unavailable" "Keys of the token's issuer are not here";
    /// The service that knows the callers could not be asked, or gave no answer that can be used.
    IdentityUnavailable { retry_after: Duration, by: SettingId }: 503 Unavailable "identity_unavailable" "Caller cannot be identified now";
    /// The store that a limit is counted in cannot be reached, and the config says that such requests are refused.
    LimitsUnavailable(SettingId): 503 Unavailable "limits_unavailable" "Limits cannot be counted";
    /// The store of idempotency keys cannot be reached, and the config says that such requests are refused.
    IdempotencyUnavailable(SettingId): 503 Unavailable "idempotency_unavailable" "Idempotency-Key cannot be looked up";
    /// The tenant has as many idempotency keys as there is room for.
    IdempotencyFull { retry_after: Duration, by: SettingId }: 503 Unavailable "idempotency_full" "No room for another Idempotency-Key";
    Draining: 503 Unavailable "draining" "Gateway is shutting down";
    /// The request's own time ran out before a backend had used its share of it. Holds `None` if the caller set the time.
    OutOfTime(Option<SettingId>): 504 DeadlineExceeded "out_of_time" "Request ran out of time";
    /// The backend used up the time that the operator allows it.
    BackendTimeout(SettingId): 504 DeadlineExceeded "backend_timeout" "Backend took too long";
    /// The caller has closed its connection; only the log shows this reason.
    CallerGone: 499 Cancelled "caller_gone" "Caller hung up";
}

/// gRPC status codes that the gateway uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcCode {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The authentication that a 401 asks for (RFC 9110 section 11.6.1).
#[derive(Debug, Clone)]
pub struct Challenge {
    /// Value of `WWW-Authenticate`, which every 401 has (RFC 9110 section 15.5.2).
    pub www_authenticate: HeaderValue,
    /// Text that tells which credentials the route takes, and where they go.
    pub hint: String,
    /// Setting of the route that asks for the authentication.
    pub by: SettingId,
}

/// The limits that refused a request, with the values for the answer.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Names of the limits that refused, lowest balance first.
    pub limits: Vec<Arc<str>>,
    /// Setting of the limit with the longest wait.
    pub by: SettingId,
    /// Time until the request is admitted if the caller sends no other.
    pub wait: Duration,
    /// `RateLimit-Policy` and `RateLimit` of the limits that refused.
    pub policy: HeaderValue,
    pub state: HeaderValue,
    /// The most that the limit with the longest wait grants, for fields that older clients read.
    pub most: u64,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().1).expect("every status in the table is between 400 and 504")
    }

    /// Returns a short title for people, the same for every occurrence (RFC 9457 section 3.1.3).
    pub const fn title(self) -> &'static str {
        self.facts().2
    }
}

impl Rejection {
    /// Returns the limits that refused; `None` if it was not a limit.
    pub const fn violation(&self) -> Option<&Violation> {
        match self {
            Self::RateLimited(violation) | Self::QuotaExhausted(violation) | Self::TooManyInFlight(violation) => {
                Some(violation)
            }
            _ => None,
        }
    }

    /// Returns the rejection of a malformed message. No setting would change it.
    pub const fn malformed(why: &'static str) -> Self {
        Self::MalformedRequest { why, by: None }
    }

    /// Returns the rejection of an upload for which there is no room before it is read.
    pub const fn no_room_for_upload() -> Self {
        Self::Overloaded {
            retry_after: Duration::from_secs(1),
            by: Some(SettingId::PARKED_TOTAL),
        }
    }

    /// Returns the setting that decided; `None` if no setting would change the answer.
    pub fn setting(&self) -> Option<SettingId> {
        match self {
            Self::CredentialsMissing { challenge }
            | Self::CredentialsInvalid { challenge }
            | Self::CredentialsExpired { challenge } => Some(challenge.by),
            Self::RateLimited(violation) | Self::QuotaExhausted(violation) | Self::TooManyInFlight(violation) => {
                Some(violation.by)
            }
            Self::BodyTooLarge(limit) => Some(limit.by),
            Self::UriTooLong => Some(SettingId::URI),
            Self::NotAllowed { by, .. }
            | Self::CostUnknown { by, .. }
            | Self::CostTooHigh { by, .. }
            | Self::FieldNotOffered { by, .. }
            | Self::BulkheadFull { by, .. }
            | Self::BulkheadTimeout { by, .. }
            | Self::BreakerOpen { by, .. }
            | Self::NoEndpoint { by, .. }
            | Self::IdentityUnavailable { by, .. }
            | Self::TenantDisabled(by)
            | Self::AddressNotAllowed(by)
            | Self::OriginNotAllowed(by)
            | Self::HeadersTooLarge(by)
            | Self::BackendUnreached(by)
            | Self::BackendBroken(by)
            | Self::BackendInvalid(by)
            | Self::LimitsUnavailable(by)
            | Self::IdempotencyKeyMissing(by)
            | Self::IdempotencyKeyInvalid { by, .. }
            | Self::IdempotencyKeyInUse(by)
            | Self::OutcomeUnknown { by, .. }
            | Self::AnswerNotKept { by, .. }
            | Self::IdempotencyKeyReused(by)
            | Self::IdempotencyUnavailable(by)
            | Self::IdempotencyFull { by, .. }
            | Self::BackendTimeout(by) => Some(*by),
            Self::MalformedRequest { by, .. }
            | Self::MethodNotAllowed { by, .. }
            | Self::Overloaded { by, .. }
            | Self::KeysUnavailable { by, .. }
            | Self::RequestTimeout(by)
            | Self::OutOfTime(by) => *by,
            Self::NoRoute | Self::WebSocketVersion | Self::Internal | Self::Draining | Self::CallerGone => None,
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
