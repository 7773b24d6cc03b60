//! The values that labels may have, and counters for them.
//!
//! Invariant: a label's values are known before the first request, so what the page can grow to is known as well; no
//! request can add a value.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::rejection::Reason;

/// A closed set of words for one label.
pub trait Label: Copy + 'static {
    const ALL: &'static [Self];
    fn as_str(self) -> &'static str;
    /// The position in [`Label::ALL`].
    fn index(self) -> usize;
}

/// One counter for each value of a label.
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
            fn as_str(self) -> &'static str {
                self.as_str()
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels! {
    /// The class of an answer's status. A status outside of 100 to 599 cannot be sent.
    Class { Informational = "1xx", Successful = "2xx", Redirection = "3xx", ClientError = "4xx", ServerError = "5xx" }

    /// What stood in for an answer that a backend did not give.
    FallbackKind { Value = "value", Stale = "stale", Backend = "backend" }

    /// How a call to a backend, or one attempt of it, ended.
    Outcome {
        /// With a status that does not count as a failure.
        Answered = "answered",
        /// With a status that counts as a failure.
        FailedStatus = "failed_status",
        Unreached = "unreached",
        Broken = "broken",
        Invalid = "invalid",
        TimedOut = "timed_out",
        /// A guard said no: nothing was sent.
        Refused = "refused",
        /// The caller left, or a sibling's failure made it pointless.
        Cancelled = "cancelled",
    }

    /// The four disjoint ends of asking a bulkhead for a slot.
    Admission { Admitted = "admitted", Full = "full", TimedOut = "timeout", Left = "left" }

    BreakerState { Closed = "closed", HalfOpen = "half_open", Open = "open" }

    /// Why an attempt that could have been made again was not.
    RetryStop {
        /// All attempts were made.
        Exhausted = "exhausted",
        /// After the wait, too little time would be left.
        OutOfTime = "out_of_time",
        /// The backend asked for a longer wait than there is time for.
        RetryAfterTooLong = "retry_after_too_long",
        /// The backend asked not to be tried again.
        PushedBack = "pushed_back",
        /// The retries of this backend have used up what its first attempts earned.
        BudgetEmpty = "budget_empty",
        /// It is open, or the attempt was a probe.
        BreakerNotClosed = "breaker_not_closed",
        /// Too much of the request's body has gone by to send it again.
        BodyNotKept = "body_not_kept",
        /// The request came to us as somebody's retry.
        IsRetry = "is_retry",
    }

    /// What a limit said. `delayed` was admitted after a wait, `shadow` would have refused, but only counts.
    Decision { Admitted = "admitted", Delayed = "delayed", Refused = "refused", Shadow = "shadow" }

    /// What a caller proved to be, or tried to.
    #[derive(Default)]
    CallerKind {
        ApiKey = "api_key",
        Jwt = "jwt",
        Mtls = "mtls",
        Basic = "basic",
        Anonymous = "anonymous",
        /// No credential that the route takes.
        #[default]
        Nobody = "none",
    }

    /// What came of identifying a caller.
    CallerOutcome {
        Admitted = "admitted",
        Missing = "missing",
        Invalid = "invalid",
        Expired = "expired",
        NotAllowed = "not_allowed",
    }

    /// Why a connection was closed before anything was read from it as a request.
    ConnectionRefusal {
        /// There are as many as there may be.
        TooMany = "too_many",
        /// Its client address has as many as it may have.
        TooManyFromAddress = "too_many_from_address",
        /// The listener is for trusted proxies alone.
        ProxyUntrusted = "proxy_untrusted",
        /// It did not begin with a header of the PROXY protocol.
        ProxyMalformed = "proxy_malformed",
        /// The other side hung up within that header.
        ProxyAbandoned = "proxy_abandoned",
        /// That header did not come in time.
        ProxyTimedOut = "proxy_timed_out",
    }

    /// What an HTTP/2 caller sent too much of, asking for nothing.
    FrameKind {
        EmptyData = "empty_data",
        Priority = "priority",
        /// Requests that were cancelled as soon as they were made.
        RstStream = "rst_stream",
        Settings = "settings",
        Ping = "ping",
        WindowUpdate = "window_update",
        Continuation = "continuation",
        Other = "other",
    }

    /// What a connection had been waited for too long.
    Awaited { FirstByte = "first_byte", Head = "head", Body = "body", Reader = "reader", NextRequest = "next_request" }

    /// How the TLS handshake of a caller ended.
    Handshake {
        /// With everything verified.
        Full = "full",
        /// With the session of an earlier one.
        Resumed = "resumed",
        /// The caller showed no certificate, or one that no authority of the listener has signed.
        CertificateRefused = "certificate_refused",
        /// The caller did not like our certificate.
        RefusedByCaller = "refused_by_caller",
        /// What came was not TLS, or there was nothing that both sides speak.
        Failed = "failed",
        /// The caller hung up.
        Abandoned = "abandoned",
        TimedOut = "timed_out",
        /// It had no place, or no turn, as long as it may take.
        Overloaded = "overloaded",
    }

    /// Why a TLS handshake of a caller has to wait.
    HandshakeDelay {
        /// Its address has too many under way.
        Address = "address",
        /// Handshakes have had their share of the workers' time.
        Workers = "workers",
    }

    /// How a TLS handshake with a backend ended.
    BackendHandshake {
        /// With everything verified.
        Full = "full",
        /// With the session of an earlier one.
        Resumed = "resumed",
        /// No authority that we trust has signed its certificate.
        Untrusted = "untrusted",
        /// Its certificate stands for somebody else.
        WrongName = "wrong_name",
        /// Its certificate does not hold any more, or not yet.
        Expired = "expired",
        /// It wants a certificate of ours, or another one.
        RefusedByBackend = "refused_by_backend",
        /// What came was not TLS, or there was nothing that both sides speak.
        Failed = "failed",
        /// It hung up.
        Abandoned = "abandoned",
        TimedOut = "timed_out",
    }

    /// What came of a signature that nobody had looked at yet.
    Verification {
        Verified = "verified",
        Failed = "failed",
        /// Put off: too many from the same client address have failed.
        AddressOverBudget = "address_over_budget",
        /// Put off: the workers' share for it is used up.
        OverBudget = "over_budget",
    }

    /// What came of fetching an issuer's keys.
    FetchOutcome {
        /// Keys that are in use now.
        Fetched = "fetched",
        /// No connection, or one that broke.
        Unreached = "unreached",
        TimedOut = "timed_out",
        /// An answer that is not 200; redirects are not followed.
        Status = "status",
        TooLarge = "too_large",
        /// Not a key set, too many keys, or none that is of use.
        Invalid = "invalid",
    }

    /// What a pooled connection to a backend is doing.
    ConnectionState { Active = "active", Idle = "idle" }
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
            assert_eq!(label.index(), position, "{}", label.as_str());
        }
    }

    #[test]
    fn every_value_has_its_own_word_and_place() {
        check::<Class>();
        check::<FallbackKind>();
        check::<Outcome>();
        check::<Admission>();
        check::<BreakerState>();
        check::<RetryStop>();
        check::<Decision>();
        check::<CallerKind>();
        check::<CallerOutcome>();
        check::<Handshake>();
        check::<HandshakeDelay>();
        check::<Verification>();
        check::<FetchOutcome>();
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
