//! Every "no" of the gateway: one enum, one stable word each, one place that says what status it has.
//!
//! A rejection carries what the *caller* may know. What happened inside goes to the request record
//! and from there to the log. A backend's own 4xx and 5xx are answers, not rejections.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

/// One row a reason: what a rejection for it carries, its status, its gRPC code, its stable word, and its title
/// (RFC 9457 section 3.1.3), which is the same for every occurrence.
macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $reason:ident $({ $($field:tt)* })? $(($held:ty))?: $status:literal $grpc:ident $word:literal $title:literal;
    )+) => {
        /// Why a request was not served, with what the caller needs to know about it.
        #[derive(Debug, Clone)]
        pub enum Rejection {
            $($(#[$doc])* $reason $({ $($field)* })? $(($held))?,)+
        }

        /// The stable word for a rejection: problem document, metric label, access log and header use it alike.
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

            /// What a gRPC client is to make of it. A backend that breaks off or answers with something else is
            /// `UNAVAILABLE`, as a 502 is for every gRPC client; the client decides whether to repeat the call.
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
    /// The message or a part of it is outside the grammar; says what to mend.
    MalformedRequest { why: &'static str }: 400 InvalidArgument "malformed_request" "Malformed request";
    /// The route needs a credential and none of an admitted kind was presented.
    CredentialsMissing { challenge: Arc<Challenge> }: 401 Unauthenticated "credentials_missing" "Credentials missing";
    /// A credential was presented and does not hold.
    CredentialsInvalid { challenge: Arc<Challenge> }: 401 Unauthenticated "credentials_invalid" "Credentials invalid";
    /// A credential was genuine once; a fresh one helps.
    CredentialsExpired { challenge: Arc<Challenge> }: 401 Unauthenticated "credentials_expired" "Credentials expired";
    /// We know who it is, and this route is not for them.
    NotAllowed { why: &'static str }: 403 PermissionDenied "not_allowed" "Not allowed";
    /// The route is not for where the request comes from.
    AddressNotAllowed: 403 PermissionDenied "address_not_allowed" "Address not allowed";
    /// The route is not for pages of that origin.
    OriginNotAllowed: 403 PermissionDenied "origin_not_allowed" "Origin not allowed";
    NoRoute: 404 Unimplemented "no_route" "No such route";
    MethodNotAllowed { allow: HeaderValue }: 405 Unimplemented "method_not_allowed" "Method not allowed";
    /// The caller was too slow in sending its request.
    RequestTimeout(Setting): 408 DeadlineExceeded "request_timeout" "Request came too slowly";
    /// `limit` in bytes.
    BodyTooLarge { limit: u64 }: 413 ResourceExhausted "body_too_large" "Request body too large";
    UriTooLong: 414 ResourceExhausted "uri_too_long" "Request URI too long";
    RateLimited(Box<Violation>): 429 ResourceExhausted "rate_limited" "Rate limit exceeded";
    QuotaExhausted(Box<Violation>): 429 ResourceExhausted "quota_exhausted" "Quota exhausted";
    TooManyInFlight(Box<Violation>): 429 ResourceExhausted "too_many_in_flight" "Too many requests in flight";
    HeadersTooLarge(Setting): 431 ResourceExhausted "headers_too_large" "Request headers too large";
    /// A bug of ours.
    Internal: 500 Internal "internal" "Internal error";
    /// No connection to the backend could be made, in time if a setting says so: nothing was sent.
    BackendUnreached(Option<Setting>): 502 Unavailable "backend_unreached" "Backend could not be reached";
    /// The connection broke before a whole answer had come.
    BackendBroken: 502 Unavailable "backend_broken" "Backend broke off";
    /// The backend answered with something that is not HTTP.
    BackendInvalid: 502 Unavailable "backend_invalid" "Backend answer is invalid";
    BulkheadFull { retry_after: Duration }: 503 Unavailable "bulkhead_full" "Backend is at its limit";
    BulkheadTimeout { retry_after: Duration }: 503 Unavailable "bulkhead_timeout" "Waited too long for the backend";
    BreakerOpen { retry_after: Duration }: 503 Unavailable "breaker_open" "Backend is failing and left alone for now";
    NoEndpoint { retry_after: Duration }: 503 Unavailable "no_endpoint" "No endpoint of the backend is available";
    Overloaded {
        retry_after: Duration,
        /// `None` where what is full has a size of its own.
        by: Option<Setting>,
    }: 503 Unavailable "overloaded" "Gateway is overloaded";
    /// The keys that the token would be checked with are not here, and could not be fetched in time.
    KeysUnavailable { retry_after: Duration }: 503 Unavailable "keys_unavailable" "Keys of the token's issuer are not here";
    Draining: 503 Unavailable "draining" "Gateway is shutting down";
    /// The request's own budget ran out before a backend could use its share.
    OutOfTime(Setting): 504 DeadlineExceeded "out_of_time" "Request ran out of time";
    /// The backend used up the time an operator gave it.
    BackendTimeout(Setting): 504 DeadlineExceeded "backend_timeout" "Backend took too long";
    /// Nobody is left to read an answer; only the log sees this.
    CallerGone: 499 Cancelled "caller_gone" "Caller hung up";
}

/// The status codes of gRPC that a gateway has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcCode {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
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

impl Reason {
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
