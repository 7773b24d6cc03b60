//! Does a request once however often it is sent, by the key that its caller gives it
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! A key is recorded as running *before* the backend is called. It becomes free again only if nothing was sent. If the
//! backend may have acted and no whole answer came, the outcome is unknown, and the key stays taken until it is
//! forgotten or an operator releases it.
//!
//! Invariant: between two requests to the backend with one key, the record of the first has ended, or been released by
//! an operator. Whoever the caller is, it gets only answers of its own scope: tenant, route, caller and key.
//!
//! `table` decides in memory, and a script of the same rules decides in the shared store. `records` chooses between
//! them. Knows nothing of calls.

mod answer;
mod fingerprint;
mod key;
#[cfg(test)]
mod properties;
pub mod records;
mod table;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

pub use self::answer::StoredAnswer;
pub use self::fingerprint::{FingerprintInput, fingerprint};
pub use self::key::IdempotencyKey;
pub use self::records::{Records, RecordsSize, UnderWay};
use crate::setting::SettingId;

/// Compiled `idempotency` of a route.
#[derive(Debug)]
pub struct IdempotencyTerms {
    pub required: bool,
    pub keep_for: Duration,
    pub shares_with_tenant: bool,
    /// Longest stored answer in bytes, body and header fields.
    pub max_answer: usize,
    /// Fields that count in the fingerprint, beside those of every request.
    pub headers: Box<[HeaderName]>,
    /// Statuses that free the key.
    pub release_on: Box<[u16]>,
    /// Whether keys are in the shared store.
    pub in_store: bool,
    /// Whether requests pass without protection while the shared store is down.
    pub is_open_when_down: bool,
    pub ids: IdempotencySettingIds,
}

/// Settings that decide on requests with a key.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencySettingIds {
    pub idempotency: SettingId,
    pub required: SettingId,
    pub max_answer: SettingId,
    pub when_down: SettingId,
    pub max_bytes: SettingId,
}

/// Identity of a record: the digest of its scope and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 32]);

/// Digest of everything that must be the same when a key is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Whose key it is, as an operator reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub route: Arc<str>,
    pub tenant: Arc<str>,
    /// Kind and id of the caller, such as `api_key:acme-1`; empty if the tenant's callers share keys.
    pub caller: Box<str>,
    pub key: Box<str>,
}

impl Subject {
    /// Returns the identity of the record. Each text is preceded by its length, so that no two subjects have the same.
    pub fn id(&self) -> RecordId {
        RecordId(fingerprint::digest([
            self.route.as_bytes(),
            self.tenant.as_bytes(),
            self.caller.as_bytes(),
            self.key.as_bytes(),
        ]))
    }
}

/// What a request with a key claims before it is sent.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: RecordId,
    pub subject: Arc<Subject>,
    pub fingerprint: Fingerprint,
    /// Random name of this request among all with the same key.
    pub token: u64,
    /// Time after which a request that has told nothing counts as lost. Longer than the request may take.
    pub lease: Duration,
    pub keep_for: Duration,
}

impl Claim {
    /// Memory of a record in bytes without its answer, indexes included, as estimated.
    fn weight(&self) -> u64 {
        let Subject {
            route,
            tenant,
            caller,
            key,
        } = &*self.subject;
        768 + (route.len() + tenant.len() + caller.len() + key.len()) as u64
    }
}

/// Verdict on a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The key is new: the request is recorded as running and may be sent.
    First,
    /// A request with the key is under way.
    Running,
    /// The request was done, and this is its answer.
    Answered(StoredAnswer),
    /// The request may have been done.
    Unknown { kept_for: Duration },
    /// The request was answered with this status, and the answer was not stored.
    NotKept { status: u16 },
    /// The key belongs to another request.
    Reused,
    /// There is no room for the key. The time is that until the next one of the tenant is forgotten.
    Full { retry_after: Duration },
}

/// How a request that was sent has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Answered(StoredAnswer),
    NotKept { status: u16 },
    Unknown,
}

/// A record, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    pub id: RecordId,
    pub subject: Subject,
    pub state: StateWord,
    /// Time for which it is still kept.
    pub kept_for: Duration,
}

/// State of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateWord {
    Running,
    Unknown,
    Answered,
    NotKept,
}

impl StateWord {
    pub const ALL: [Self; 4] = [Self::Running, Self::Unknown, Self::Answered, Self::NotKept];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Unknown => "unknown",
            Self::Answered => "answered",
            Self::NotKept => "not_kept",
        }
    }

    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Result of an operator's release of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The key is free. Holds the state that it had.
    Released(StateWord),
    /// Its request is under way.
    Running,
    NoSuchKey,
}
