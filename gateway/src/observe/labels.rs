//! Defines the possible values of labels, and counters for them.
//!
//! Invariant: all values of a label are known before the first request, and no request can add one. So the maximum size
//! of the page is known.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::compression::Coding;
use crate::rejection::Reason;

/// A closed set of values for one label.
pub trait Label: Copy + 'static {
    const ALL: &'static [Self];
    /// The words of [`Label::ALL`], in its order.
    const WORDS: &'static [&'static str];
    fn as_str(self) -> &'static str;
    /// Returns the position in [`Label::ALL`].
    fn index(self) -> usize;
}

/// A value for each label of a family that has a closed set of words.
pub trait Values {
    /// Words of these labels, in their order.
    const WORDS: &'static [&'static [&'static str]];
    /// Returns the position among all combinations of words; the last label varies fastest.
    fn position(self) -> usize;
}

impl Values for () {
    const WORDS: &'static [&'static [&'static str]] = &[];
    #[inline]
    fn position(self) -> usize {
        0
    }
}

impl<L: Label> Values for L {
    const WORDS: &'static [&'static [&'static str]] = &[L::WORDS];
    #[inline]
    fn position(self) -> usize {
        self.index()
    }
}

impl<A: Label, B: Label> Values for (A, B) {
    const WORDS: &'static [&'static [&'static str]] = &[A::WORDS, B::WORDS];
    #[inline]
    fn position(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }
}

/// One counter per value of a label, for a thing that counts by itself and is asked at each scrape.
#[derive(Debug)]
pub struct CounterVec<L> {
    counts: Box<[AtomicU64]>,
    label: PhantomData<L>,
}

impl<L: Label> Default for CounterVec<L> {
    fn default() -> Self {
        Self {
            counts: L::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label> CounterVec<L> {
    #[inline]
    pub fn add(&self, label: L) {
        self.counts[label.index()].fetch_add(1, Relaxed);
    }

    pub fn count(&self, label: L) -> u64 {
        self.counts[label.index()].load(Relaxed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|&label| (label, self.count(label)))
    }
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$note])* $variant),+ }

        impl $name {
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            const WORDS: &'static [&'static str] = &[$($word),+];
            fn as_str(self) -> &'static str {
                self.as_str()
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

impl Label for Coding {
    const ALL: &'static [Self] = &Self::ALL;
    const WORDS: &'static [&'static str] = &[Self::Gzip.as_str(), Self::Brotli.as_str(), Self::Zstd.as_str()];
    fn as_str(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}

labels! {
    /// Class of a response status. A status outside of 100 to 599 cannot be sent.
    Class { Informational = "1xx", Successful = "2xx", Redirection = "3xx", ClientError = "4xx", ServerError = "5xx" }

    /// Fallback that was served for a failed backend.
    FallbackKind { Value = "value", Stale = "stale", Backend = "backend" }

    /// What becomes of units that requests cost.
    UnitEvent {
        /// Taken before the request was sent.
        Reserved = "reserved",
        /// Taken in the end beyond what was reserved.
        Beyond = "beyond",
        /// Given back in the end.
        Refunded = "refunded",
        /// What requests cost in the end.
        Settled = "settled",
    }

    /// What the cost of a request goes by.
    CostSource {
        /// The backend said what was used.
        Usage = "usage",
        /// What was seen of the answer.
        Estimate = "estimate",
        /// The whole reservation, because nobody can tell.
        Reservation = "reservation",
        /// Nothing was generated.
        Refund = "refund",
    }

    /// How the response cache took part in an answer.
    CacheResult {
        /// The stored answer, while it was fresh.
        Hit = "hit",
        /// The stored answer although it was stale.
        Stale = "stale",
        /// The stored answer, confirmed by the backend.
        Revalidated = "revalidated",
        /// The backend's answer.
        Miss = "miss",
        /// The backend's answer to another request, which this one waited for.
        Collapsed = "collapsed",
        /// The request is not one that the cache answers.
        Bypass = "bypass",
    }

    /// What became of a request on a route with `idempotency`.
    IdempotencyResult {
        /// The backend's answer, which is stored.
        Kept = "kept",
        /// The backend's answer, of which the status alone is stored.
        NotKept = "not_kept",
        /// Nothing was done, and the key is free again.
        Released = "released",
        /// The backend may have acted, and gave no whole answer.
        Unknown = "unknown",
        /// The stored answer.
        Replayed = "replayed",
        /// Refused: the request with the key is under way.
        Running = "running",
        /// Refused: the key belongs to another request.
        Reused = "reused",
        /// Refused: the outcome of the request with the key is unknown, or its answer was not stored.
        Locked = "locked",
        /// Refused: there is no key.
        Missing = "missing",
        /// Refused: the key cannot be used.
        Invalid = "invalid",
        /// Refused: there is no room for the key.
        Full = "full",
        /// Refused: the shared store does not answer.
        Unavailable = "unavailable",
        /// Passed on although the shared store does not answer.
        Unprotected = "unprotected",
        /// The caller left or gave up, and the call went on.
        GoesOn = "goes_on",
        /// Passed on, since it has no key and needs none.
        WithoutKey = "without_key",
    }

    /// Result of a call to a backend, or of one attempt.
    Outcome {
        /// A response with a status that does not count as a failure.
        Answered = "answered",
        /// A response with a status that counts as a failure.
        FailedStatus = "failed_status",
        Unreached = "unreached",
        Broken = "broken",
        Invalid = "invalid",
        TimedOut = "timed_out",
        /// A guard rejected the call and nothing was sent.
        Refused = "refused",
        /// The caller left, or another part's failure made the call useless.
        Cancelled = "cancelled",
    }

    /// What became of the copy of a request that was to be mirrored.
    MirrorOutcome {
        /// An answer with a status that does not count as a failure.
        Answered = "answered",
        /// An answer with a status that counts as a failure.
        FailedStatus = "failed_status",
        Unreached = "unreached",
        Broken = "broken",
        Invalid = "invalid",
        TimedOut = "timed_out",
        /// No endpoint of the backend was usable.
        NoEndpoint = "no_endpoint",
        /// The mirror's own breaker was open.
        BreakerOpen = "breaker_open",
        /// As many copies were under way as may be.
        Full = "full",
        /// There was no memory left for bodies that are copied.
        NoRoom = "no_room",
        /// The body was longer than is copied.
        BodyTooLarge = "body_too_large",
        /// The caller did not send the whole body, or not in time.
        BodyCut = "body_cut",
    }

    /// Result of comparing the answer to a copy with the one that the caller got.
    MirrorComparison {
        Same = "same",
        Different = "different",
        /// One of the two broke off or was too long, or the caller got no answer of a backend.
        NotCompared = "not_compared",
    }

    /// Result of an attempt, or of a call or part for which none was made.
    AttemptOutcome {
        Answered = "answered",
        FailedStatus = "failed_status",
        Unreached = "unreached",
        Broken = "broken",
        Invalid = "invalid",
        TimedOut = "timed_out",
        Refused = "refused",
        Cancelled = "cancelled",
        /// The aggregate left the part out.
        Skipped = "skipped",
        /// The answer of the part was a stored one, or the answer to another request that it waited for.
        Cached = "cached",
    }

    /// Result of waiting for a slot of a bulkhead. Exactly one applies.
    Admission { Admitted = "admitted", Full = "full", TimedOut = "timeout", Left = "left" }

    /// Result of a health check of an endpoint.
    ProbeOutcome { Passed = "passed", Failed = "failed" }

    /// Result of a look at the source of a backend's endpoints.
    LookupOutcome { Found = "found", Failed = "failed" }

    /// Result of a call of the shared store.
    StoreOutcome {
        Answered = "answered",
        Connecting = "connecting",
        Unreached = "unreached",
        Timeout = "timeout",
        Closed = "closed",
        Denied = "denied",
        ReadOnly = "read_only",
        Loading = "loading",
        MasterDown = "master_down",
        OutOfMemory = "out_of_memory",
        NoScript = "no_script",
        Busy = "busy",
        Misconfigured = "misconfigured",
        ClusterDown = "cluster_down",
        Unexpected = "unexpected",
        TooMany = "too_many",
        Inexact = "inexact",
    }

    /// What became of a trace that was chosen for export.
    TraceOutcome {
        Exported = "exported",
        /// The queue of the exporter was full.
        QueueFull = "queue_full",
        /// More were chosen by callers or by their end in a second than are exported.
        TooMany = "too_many",
        /// The collector did not take it.
        NotAccepted = "not_accepted",
    }

    BreakerState { Closed = "closed", HalfOpen = "half_open", Open = "open" }

    /// Reason why an attempt was not retried although its result allows it.
    RetryStop {
        /// All attempts have been made.
        Exhausted = "exhausted",
        /// Too little time would be left after the wait.
        OutOfTime = "out_of_time",
        /// The backend asked for a longer wait than the time that is left.
        RetryAfterTooLong = "retry_after_too_long",
        /// The backend asked not to be tried again.
        PushedBack = "pushed_back",
        /// The retry budget of the backend is used up.
        BudgetEmpty = "budget_empty",
        /// The breaker is not closed, or the attempt was a probe.
        BreakerNotClosed = "breaker_not_closed",
        /// Too much of the request body has been sent to send it again.
        BodyNotKept = "body_not_kept",
        /// The request itself is a retry by its sender.
        IsRetry = "is_retry",
        /// A hedge was under way.
        Hedged = "hedged",
    }

    /// What became of a first attempt that was slow.
    HedgeEvent {
        /// A second attempt was made.
        Sent = "sent",
        /// The second attempt's answer was used.
        Won = "won",
        /// There was none, because the retry budget of the backend is used up.
        BudgetEmpty = "budget_empty",
        /// There was none, because no slot was free.
        NoSlot = "no_slot",
        /// There was none, because no other endpoint is up.
        NoEndpoint = "no_endpoint",
        /// There was none, because the breaker is not closed.
        BreakerNotClosed = "breaker_not_closed",
        /// There was none, because too little time was left.
        OutOfTime = "out_of_time",
    }

    /// Decision of a limit. `delayed`: admitted after a wait. `shadow`: would have been refused, but is only counted.
    Decision { Admitted = "admitted", Delayed = "delayed", Refused = "refused", Shadow = "shadow" }

    /// Kind of credential that a caller presented.
    #[derive(Default)]
    CallerKind {
        ApiKey = "api_key",
        Jwt = "jwt",
        Mtls = "mtls",
        Basic = "basic",
        External = "external",
        Anonymous = "anonymous",
        /// No credential that the route accepts.
        #[default]
        Nobody = "none",
    }

    /// Result of authenticating and authorizing a caller.
    CallerOutcome {
        Admitted = "admitted",
        Missing = "missing",
        Invalid = "invalid",
        Expired = "expired",
        NotAllowed = "not_allowed",
    }

    /// Reason why a connection was closed before a request was read from it.
    ConnectionRefusal {
        /// The maximum number of connections is open.
        TooMany = "too_many",
        /// The client address has the maximum number of connections.
        TooManyFromAddress = "too_many_from_address",
        /// The listener accepts only trusted proxies.
        ProxyUntrusted = "proxy_untrusted",
        /// The connection did not begin with a PROXY protocol header.
        ProxyMalformed = "proxy_malformed",
        /// The peer closed it within the PROXY protocol header.
        ProxyAbandoned = "proxy_abandoned",
        /// The PROXY protocol header did not arrive in time.
        ProxyTimedOut = "proxy_timed_out",
    }

    /// Kind of frame that an HTTP/2 caller sent too often without need.
    FrameKind {
        EmptyData = "empty_data",
        Priority = "priority",
        /// Requests that were cancelled right after they were made.
        RstStream = "rst_stream",
        Settings = "settings",
        Ping = "ping",
        WindowUpdate = "window_update",
        Continuation = "continuation",
        Other = "other",
    }

    /// The awaited event whose time limit closed a connection.
    Awaited { FirstByte = "first_byte", Head = "head", Body = "body", Reader = "reader", NextRequest = "next_request" }

    /// Result of a caller's TLS handshake.
    Handshake {
        /// Completed with full verification.
        Full = "full",
        /// Completed by resuming an earlier session.
        Resumed = "resumed",
        /// The caller sent no certificate, or one that no authority of the listener has signed.
        CertificateRefused = "certificate_refused",
        /// The caller rejected the gateway's certificate.
        RefusedByCaller = "refused_by_caller",
        /// The bytes were not TLS, or the two sides have no common version or cipher.
        Failed = "failed",
        /// The caller closed the connection.
        Abandoned = "abandoned",
        TimedOut = "timed_out",
        /// The handshake got no place or no turn within its time limit.
        Overloaded = "overloaded",
    }

    /// Reason why a caller's TLS handshake must wait.
    HandshakeDelay {
        /// Its client address has too many handshakes in progress.
        Address = "address",
        /// Handshakes have used their share of the workers' time.
        Workers = "workers",
    }

    /// Result of a TLS handshake with a backend.
    BackendHandshake {
        /// Completed with full verification.
        Full = "full",
        /// Completed by resuming an earlier session.
        Resumed = "resumed",
        /// No trusted authority has signed the backend's certificate.
        Untrusted = "untrusted",
        /// The backend's certificate is for another name.
        WrongName = "wrong_name",
        /// The backend's certificate has expired or is not valid yet.
        Expired = "expired",
        /// The backend requires a client certificate, or another one.
        RefusedByBackend = "refused_by_backend",
        /// The bytes were not TLS, or the two sides have no common version or cipher.
        Failed = "failed",
        /// The backend closed the connection.
        Abandoned = "abandoned",
        TimedOut = "timed_out",
    }

    /// Result of a signature check whose answer is not cached.
    Verification {
        Verified = "verified",
        Failed = "failed",
        /// Postponed: too many checks from this client address have failed.
        AddressOverBudget = "address_over_budget",
        /// Postponed: the workers' share for checks is used up.
        OverBudget = "over_budget",
    }

    /// How a caller's answer of the external service was found.
    ExternalLookup {
        /// A stored answer named the caller.
        Hit = "hit",
        /// A stored answer refused the caller.
        Refused = "refused",
        /// A question was begun.
        Asked = "asked",
        /// The question was being asked for another request.
        Joined = "joined",
        /// The service failed, and an answer was used that is older than its `ttl`.
        Stale = "stale",
    }

    /// Result of a question to the external service.
    ExternalOutcome {
        Identified = "identified",
        /// The credential is not valid (401).
        Refused = "refused",
        /// The caller is known, and may not make the request (403).
        Forbidden = "forbidden",
        /// The connection failed.
        Unreached = "unreached",
        /// The connection broke, or the answer was not HTTP.
        Broken = "broken",
        TimedOut = "timed_out",
        /// The status is none of 200, 401 and 403; redirects are not followed.
        Status = "status",
        /// The answer is too large, or does not have the documented form.
        Invalid = "invalid",
        /// Not asked: there was no slot for the question.
        Full = "full",
        /// Not asked: the breaker is open.
        BreakerOpen = "breaker_open",
    }

    /// Result of fetching an issuer's keys.
    FetchOutcome {
        /// New keys are in use.
        Fetched = "fetched",
        /// The connection failed or broke.
        Unreached = "unreached",
        TimedOut = "timed_out",
        /// The status is not 200; redirects are not followed.
        Status = "status",
        TooLarge = "too_large",
        /// The response is not a key set, has too many keys, or none that can be used.
        Invalid = "invalid",
    }

    /// State of a pooled connection to a backend.
    ConnectionState { Active = "active", Idle = "idle" }
}

impl Outcome {
    /// Returns the outcome of a call that was rejected for this reason.
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::BackendUnreached => Self::Unreached,
            Reason::BackendBroken => Self::Broken,
            Reason::BackendInvalid => Self::Invalid,
            Reason::BackendTimeout | Reason::OutOfTime => Self::TimedOut,
            Reason::CallerGone | Reason::RequestTimeout | Reason::BodyTooLarge => Self::Cancelled,
            _ => Self::Refused,
        }
    }
}

impl From<Outcome> for AttemptOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered => Self::Answered,
            Outcome::FailedStatus => Self::FailedStatus,
            Outcome::Unreached => Self::Unreached,
            Outcome::Broken => Self::Broken,
            Outcome::Invalid => Self::Invalid,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Refused => Self::Refused,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

impl Class {
    pub(super) const fn of(status: u16) -> Self {
        match status / 100 {
            0 | 1 => Self::Informational,
            2 => Self::Successful,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl Label for Reason {
    const ALL: &'static [Self] = &Self::ALL;
    const WORDS: &'static [&'static str] = &{
        let (mut words, mut position) = ([""; Self::ALL.len()], 0);
        while position < words.len() {
            words[position] = Self::ALL[position].as_str();
            position += 1;
        }
        words
    };
    fn as_str(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check<L: Label>() {
        let words: HashSet<_> = L::ALL.iter().map(|label| label.as_str()).collect();
        assert_eq!(words.len(), L::ALL.len(), "two values share a word: {words:?}");
        for (position, label) in L::ALL.iter().enumerate() {
            assert_eq!((label.index(), L::WORDS[position]), (position, label.as_str()));
        }
    }

    #[test]
    fn every_value_has_its_own_word_and_place() {
        check::<Class>();
        check::<Coding>();
        check::<FallbackKind>();
        check::<UnitEvent>();
        check::<CostSource>();
        check::<CacheResult>();
        check::<IdempotencyResult>();
        check::<Outcome>();
        check::<AttemptOutcome>();
        check::<Admission>();
        check::<BreakerState>();
        check::<ProbeOutcome>();
        check::<LookupOutcome>();
        check::<StoreOutcome>();
        check::<RetryStop>();
        check::<Decision>();
        check::<CallerKind>();
        check::<CallerOutcome>();
        check::<Handshake>();
        check::<HandshakeDelay>();
        check::<Verification>();
        check::<ExternalLookup>();
        check::<ExternalOutcome>();
        check::<FetchOutcome>();
        check::<ConnectionRefusal>();
        check::<FrameKind>();
        check::<Awaited>();
        check::<BackendHandshake>();
        check::<ConnectionState>();
        check::<Reason>();
    }

    #[test]
    fn a_tally_counts_each_value_apart() {
        let tally = CounterVec::<Decision>::default();
        tally.add(Decision::Refused);
        tally.add(Decision::Refused);
        tally.add(Decision::Shadow);
        let counts: Vec<_> = tally.iter().map(|(label, count)| (label.as_str(), count)).collect();
        assert_eq!(counts, [("admitted", 0), ("delayed", 0), ("refused", 2), ("shadow", 1)]);
    }

    #[test]
    fn a_status_falls_in_its_class() {
        for (status, class) in [
            (101, "1xx"),
            (200, "2xx"),
            (304, "3xx"),
            (499, "4xx"),
            (500, "5xx"),
            (599, "5xx"),
        ] {
            assert_eq!(Class::of(status).as_str(), class);
        }
    }
}
