//! Spreads notices from each replica to all others, such as a revocation or a forced breaker.
//!
//! A notice has a name and a value. The store gives each announcement the next version, and keeps the last one of each
//! name. A replica asks for the last version several times a second, together with the name of the store's memory, and
//! reads what came after the version that it has. So a replica that was away catches up, and no message can be lost. A
//! channel to subscribe to would be quicker by a fraction of a second, but loses what is said while nobody listens.
//!
//! Invariant: of two announcements of one name the later holds, on every replica, by the time of the store. A store that
//! has lost its memory is told again by every replica what it knows, with the times of then.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};

use super::scripts::{Script, whole};
use crate::clock;

/// Tag of the keys of the notices and of the replicas.
pub(super) const TAG: &str = "{spread}";
/// Most notices.
pub(super) const MOST: usize = 10_000;
/// Longest name and value of a notice, in bytes.
const LONGEST: usize = 4_096;
/// Announcements in one pipeline.
const TOGETHER: usize = 100;
/// Notices that are read at once.
pub(super) const MOST_READ: usize = 200;

/// A notice of this replica or of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub name: Box<str>,
    pub value: Box<str>,
    /// Microseconds since the epoch, by the clock of the store. Another announcement of the name has another time.
    pub at: u64,
}

/// A notice as it is kept under its name.
#[derive(Clone, Debug)]
struct Kept {
    value: Box<str>,
    at: u64,
    /// Microseconds since the epoch; zero for never.
    ends: u64,
}

/// An announcement that the store has not executed yet.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    name: Box<str>,
    kept: Kept,
}

/// Notices that are known, and those that are to be sent.
#[derive(Debug)]
pub(super) struct Spread {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    known: BTreeMap<Box<str>, Kept>,
    outbox: VecDeque<Announcement>,
    /// Name of the memory that the version is of; zero before the first.
    epoch: u64,
    version: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Spread {
            inner: Mutex::default(),
            changes: watch::Sender::new(0),
            wake: Notify::new(),
        }
    }
}

impl Spread {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to announce. Returns false if the notice is too long, or if too many wait for the store.
    pub(super) fn announce(&self, name: &str, value: &str, ends: u64) -> bool {
        let mut inner = self.inner();
        if name.len() + value.len() > LONGEST || inner.outbox.len() >= MOST {
            return false;
        }
        let kept = Kept {
            value: value.into(),
            // The store tells the time.
            at: 0,
            ends,
        };
        inner.outbox.push_back(Announcement {
            name: name.into(),
            kept,
        });
        drop(inner);
        self.wake.notify_one();
        true
    }

    /// Returns a receiver that is told each change of what is known.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns all notices that have not ended.
    pub(super) fn known(&self) -> Vec<Notice> {
        let now = u64::try_from(clock::unix_time().as_micros()).unwrap_or(u64::MAX);
        let inner = self.inner();
        let current = inner.known.iter().filter(|(_, kept)| kept.ends == 0 || now < kept.ends);
        let notices = current.map(|(name, kept)| Notice {
            name: name.clone(),
            value: kept.value.clone(),
            at: kept.at,
        });
        notices.collect()
    }

    /// Follows the name of the store's memory and its last version. Another memory is told all that is known, and so is
    /// one that has gone back to an earlier state. Returns whether there is something to read.
    pub(super) fn note_memory(&self, epoch: u64, version: u64) -> bool {
        let mut inner = self.inner();
        if inner.epoch != epoch || version < inner.version {
            (inner.epoch, inner.version) = (epoch, 0);
            let again = inner.known.iter().map(|(name, kept)| Announcement {
                name: name.clone(),
                kept: kept.clone(),
            });
            let again: Vec<_> = again.collect();
            // What was to be told to the memory before is among them.
            inner.outbox.retain(|announcement| announcement.kept.at == 0);
            inner.outbox.extend(again);
        }
        version != inner.version
    }

    /// Compares what is known with the last version of a memory; `None` if it is another memory than the one that was read,
    /// or if announcements wait for it.
    pub(super) fn compare(&self, epoch: u64, version: u64) -> Option<Ordering> {
        let inner = self.inner();
        (inner.epoch == epoch && inner.outbox.is_empty()).then(|| inner.version.cmp(&version))
    }

    /// Notes that all notices up to a version have been read.
    pub(super) fn note_read(&self, version: u64) {
        let mut inner = self.inner();
        inner.version = inner.version.max(version);
    }

    /// Returns the version up to which notices are known.
    pub(super) fn version(&self) -> u64 {
        self.inner().version
    }

    /// Returns the next announcements to send. They stay until [`Spread::sent`].
    pub(super) fn to_send(&self) -> Vec<Announcement> {
        self.inner().outbox.iter().take(TOGETHER).cloned().collect()
    }

    /// Forgets announcements that the store has executed.
    pub(super) fn sent(&self, count: usize) {
        self.inner().outbox.drain(..count);
    }

    /// Takes in changes that the store lists. Returns the version up to which they go, and whether there may be more;
    /// `None` if they cannot be read.
    pub(super) fn take_in(&self, listed: &Value) -> Option<bool> {
        let Value::Array(listed) = listed else { return None };
        let mut inner = self.inner();
        let mut is_news = false;
        for notice in listed {
            let Value::Array(fields) = notice else { return None };
            let [name, version, at, ends, value] = &**fields else {
                return None;
            };
            let (name, kept) = (
                text(name)?,
                Kept {
                    value: text(value)?.into(),
                    at: whole(at)?,
                    ends: whole(ends)?,
                },
            );
            inner.version = inner.version.max(whole(version)?);
            let is_newer = inner.known.get(name).is_none_or(|before| before.at < kept.at);
            if is_newer && (inner.known.len() < MOST || inner.known.contains_key(name)) {
                inner.known.insert(name.into(), kept);
                is_news = true;
            }
        }
        let now = u64::try_from(clock::unix_time().as_micros()).unwrap_or(u64::MAX);
        inner.known.retain(|_, kept| kept.ends == 0 || now < kept.ends);
        drop(inner);
        if is_news {
            self.changes.send_modify(|count| *count += 1);
        }
        Some(listed.len() == MOST_READ)
    }
}

impl Announcement {
    pub(super) fn call(&self, keys: &SpreadKeys) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(Script::Announce.name()).arg(4);
        call.arg(&keys.version)
            .arg(&keys.order)
            .arg(&keys.notices)
            .arg(&keys.ends);
        call.arg(&*self.name)
            .arg(&*self.kept.value)
            .arg(self.kept.at)
            .arg(self.kept.ends)
            .arg(MOST);
        call
    }
}

/// Keys of the notices and of the replicas. They have one tag, because a script of a cluster reads one node.
#[derive(Clone, Debug)]
pub(super) struct SpreadKeys {
    pub(super) version: String,
    pub(super) order: String,
    pub(super) notices: String,
    ends: String,
    pub(super) replicas: String,
}

impl SpreadKeys {
    pub(super) fn new(prefix: &str) -> SpreadKeys {
        let key = |name: &str| format!("{prefix}{TAG}:{name}");
        SpreadKeys {
            version: key("version"),
            order: key("order"),
            notices: key("notices"),
            ends: key("ends"),
            replicas: key("replicas"),
        }
    }

    /// Returns the call that lists what came after a version.
    pub(super) fn changes(&self, version: u64) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(Script::Changes.name()).arg(2);
        call.arg(&self.order).arg(&self.notices).arg(version).arg(MOST_READ);
        call
    }
}

/// Reads text of the store.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
