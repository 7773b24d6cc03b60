//! The records of idempotency keys: in the store that replicas share where the config has one, else in memory.
//!
//! Invariant: while the shared store does not answer, no request begins. What cannot be told to the store after a request
//! has ended is tried again for a minute; after that, its record says by itself that the outcome is unknown.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::table::Table;
use super::{Begun, Claim, Ending, RecordId, RecordView, Release, StateWord, StoredAnswer, Subject, fingerprint};
use crate::clock;
use crate::store::{KeyAsk, KeyCall, KeyReply, KeyTerms, SHARDS, Store, Trouble};

/// Most calls that wait to be tried again.
const MOST_LATE: usize = 1_024;
/// First wait of those. Each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LATE_TRIES: u32 = 10;

/// All records of this process, and the way to those in the store.
#[derive(Default)]
pub struct Records {
    table: Mutex<Table>,
    store: OnceLock<Arc<Store>>,
    settings: Mutex<Settings>,
    late: AtomicUsize,
    under_way: AtomicUsize,
}

/// Counts one request with a key as under way, with or without its caller, until it is dropped.
#[must_use]
pub struct UnderWay(Arc<Records>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    most: u64,
    forgets: bool,
}

/// Size of the records in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsSize {
    /// Approximate memory in bytes.
    pub bytes: u64,
    pub most: u64,
    pub tenants: usize,
    /// Answered keys that made room before their time, since the start.
    pub forgotten: u64,
    /// Number of records in each state. One that was lost while it ran counts as running.
    pub counts: [(StateWord, usize); 4],
}

/// Reason why nothing is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreached {
    /// Whether the store may have executed the call.
    pub may_be_done: bool,
}

impl Unreached {
    const AT_ONCE: Self = Self { may_be_done: false };

    fn by(trouble: Trouble) -> Self {
        let never = matches!(trouble, Trouble::Connecting | Trouble::Unreached | Trouble::TooMany);
        Self { may_be_done: !never }
    }
}

/// Call that the store has not answered.
enum Late {
    Finish(Arc<Claim>, Ending),
    Release(Arc<Claim>),
}

/// Where a claim's record is, as the store names it.
struct Place {
    shard: u8,
    tenant: String,
    record: String,
}

impl Place {
    fn of(tenant: &str, id: &RecordId) -> Self {
        let digest = fingerprint::digest([tenant.as_bytes()]);
        Self {
            shard: digest[0] % SHARDS,
            tenant: hex(&digest[..16]),
            record: hex(&id.0),
        }
    }

    fn call<'a>(&'a self, what: KeyAsk<'a>) -> KeyCall<'a> {
        KeyCall {
            shard: self.shard,
            tenant: &self.tenant,
            record: &self.record,
            what,
        }
    }
}

impl Records {
    /// Uses this store for the routes whose terms say so.
    pub fn use_store(&self, store: Arc<Store>) {
        let _ = self.store.set(store);
    }

    /// Counts a request as under way.
    pub fn enter(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Number of requests with a key that are under way, also of those whose callers have left.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    /// Sets the limit in bytes, and whether answered keys make room for new ones.
    pub fn set(&self, most: u64, forgets: bool) {
        self.table().set(most, forgets);
        *lock(&self.settings) = Settings { most, forgets };
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Returns the store, if it can be reached now.
    fn reached(&self) -> Result<&Arc<Store>, Unreached> {
        let store = self.store.get().filter(|store| store.state().is_up());
        store.ok_or(Unreached::AT_ONCE)
    }

    /// Decides on a request with a key, and records it as running if the key is new.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn begin(&self, claim: &Claim, in_store: bool) -> Result<Begun, Unreached> {
        if !in_store {
            return Ok(self.table().begin(claim, clock::now()));
        }
        let store = self.reached()?;
        let (place, subject) = (place(claim), written(&claim.subject));
        let what = KeyAsk::Begin {
            terms: self.terms(claim, &subject),
            lease: claim.lease,
        };
        let reply = store.ask_key(&place.call(what)).await.map_err(Unreached::by)?;
        begun(reply).ok_or(Unreached { may_be_done: true })
    }

    /// Records how a request ended. If the store does not answer, this is tried again later.
    pub async fn finish(self: &Arc<Self>, claim: &Arc<Claim>, ending: Ending, in_store: bool) {
        if !in_store {
            self.table().finish(claim, ending, clock::now());
            return;
        }
        if !self.try_finish(claim, &ending).await {
            self.try_later(Late::Finish(Arc::clone(claim), ending));
        }
    }

    async fn try_finish(&self, claim: &Claim, ending: &Ending) -> bool {
        let Ok(store) = self.reached() else { return false };
        let (place, subject) = (place(claim), written(&claim.subject));
        let (word, status, answer) = match ending {
            Ending::Answered(answer) => {
                let status = answer.read().map_or(0, |(status, ..)| status.as_u16());
                (StateWord::Answered, status, answer.as_bytes())
            }
            Ending::NotKept { status } => (StateWord::NotKept, *status, &[][..]),
            Ending::Unknown => (StateWord::Unknown, 0, &[][..]),
        };
        let what = KeyAsk::Finish {
            terms: self.terms(claim, &subject),
            ending: word.as_str(),
            status,
            answer,
        };
        store.ask_key(&place.call(what)).await.is_ok()
    }

    /// Frees a key whose request has sent nothing. If the store does not answer, this is tried again later.
    pub async fn release(self: &Arc<Self>, claim: &Arc<Claim>, in_store: bool) {
        if !in_store {
            self.table().release(claim);
            return;
        }
        if !self.try_release(claim).await {
            self.try_later(Late::Release(Arc::clone(claim)));
        }
    }

    async fn try_release(&self, claim: &Claim) -> bool {
        let Ok(store) = self.reached() else { return false };
        let place = place(claim);
        let what = KeyAsk::Release { token: claim.token };
        store.ask_key(&place.call(what)).await.is_ok()
    }

    /// Tries until the store has answered, for a minute. Gives up at once if too many wait.
    fn try_later(self: &Arc<Self>, late: Late) {
        if self.late.fetch_add(1, Relaxed) >= MOST_LATE {
            self.late.fetch_sub(1, Relaxed);
            return;
        }
        let records = Arc::clone(self);
        drop(tokio::spawn(async move {
            for number in 0..LATE_TRIES {
                tokio::time::sleep(FIRST_WAIT * 2_u32.pow(number)).await;
                let is_done = match &late {
                    Late::Finish(claim, ending) => records.try_finish(claim, ending).await,
                    Late::Release(claim) => records.try_release(claim).await,
                };
                if is_done {
                    break;
                }
            }
            records.late.fetch_sub(1, Relaxed);
        }));
    }

    /// Records that the outcome of a request is unknown, without waiting. In the store, that follows from the record when
    /// its lease is over.
    pub fn lose(&self, claim: &Claim, in_store: bool) {
        if !in_store {
            self.table().finish(claim, Ending::Unknown, clock::now());
        }
    }

    /// Frees a key by the word of an operator, unless its request is under way.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn free(&self, tenant: &str, id: &RecordId, in_store: bool) -> Result<Release, Unreached> {
        if !in_store {
            return Ok(self.table().free(id, clock::now()));
        }
        let place = Place::of(tenant, id);
        let reply = self.reached()?.ask_key(&place.call(KeyAsk::Free)).await;
        let reply = reply.map_err(Unreached::by)?;
        Ok(match &*reply.word {
            "freed" => {
                let word = str::from_utf8(&reply.bytes).ok().and_then(StateWord::of);
                Release::Released(word.unwrap_or(StateWord::Unknown))
            }
            "running" => Release::Running,
            _ => Release::NoSuchKey,
        })
    }

    /// Returns what is known of a key.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn find(&self, subject: &Subject, in_store: bool) -> Result<Option<RecordView>, Unreached> {
        let id = subject.id();
        if !in_store {
            return Ok(self.table().find(&id, clock::now()));
        }
        let place = Place::of(&subject.tenant, &id);
        let reply = self.reached()?.ask_key(&place.call(KeyAsk::Find)).await;
        let reply = reply.map_err(Unreached::by)?;
        Ok(StateWord::of(&reply.word).map(|state| RecordView {
            id,
            subject: subject.clone(),
            state,
            kept_for: Duration::from_millis(reply.time),
        }))
    }

    /// Lists keys that are running or unknown, at most `most`, in memory or in the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(&self, most: usize, in_store: bool) -> Result<Vec<RecordView>, Unreached> {
        if !in_store {
            return Ok(self.table().open(clock::now(), most));
        }
        let store = self.reached()?;
        let mut open = Vec::new();
        for shard in 0..SHARDS {
            let left = most - open.len();
            if left == 0 {
                break;
            }
            let listed = store.list_keys(shard, left).await.map_err(Unreached::by)?;
            open.extend(listed.iter().filter_map(|listed| {
                Some(RecordView {
                    id: RecordId::read(&listed.record)?,
                    subject: read_subject(&listed.subject)?,
                    state: StateWord::of(&listed.state)?,
                    kept_for: listed.kept_for,
                })
            }));
        }
        Ok(open)
    }

    pub fn size(&self) -> RecordsSize {
        let size = self.table().size();
        let count = |place: usize| (StateWord::ALL[place], size.counts[place]);
        RecordsSize {
            bytes: size.bytes,
            most: size.most,
            tenants: size.tenants,
            forgotten: size.forgotten,
            counts: [count(0), count(1), count(2), count(3)],
        }
    }

    fn terms<'a>(&self, claim: &'a Claim, subject: &'a str) -> KeyTerms<'a> {
        let Settings { most, forgets } = *lock(&self.settings);
        KeyTerms {
            token: claim.token,
            fingerprint: &claim.fingerprint.0,
            keep_for: claim.keep_for,
            size: claim.weight(),
            most: most / 2,
            forgets,
            subject,
        }
    }
}

fn place(claim: &Claim) -> Place {
    Place::of(&claim.subject.tenant, &claim.id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begun(reply: KeyReply) -> Option<Begun> {
    let time = Duration::from_millis(reply.time);
    Some(match &*reply.word {
        "first" => Begun::First,
        "running" => Begun::Running,
        "reused" => Begun::Reused,
        "answered" => Begun::Answered(StoredAnswer::of_bytes(reply.bytes)),
        "unknown" => Begun::Unknown { kept_for: time },
        "not_kept" => Begun::NotKept { status: reply.status },
        "full" => Begun::Full { retry_after: time },
        _ => return None,
    })
}

/// Writes a subject as a text. None of its parts has a line break.
fn written(subject: &Subject) -> String {
    [&*subject.route, &*subject.tenant, &*subject.caller, &*subject.key].join("\n")
}

fn read_subject(text: &str) -> Option<Subject> {
    let mut parts = text.splitn(4, '\n');
    let mut next = || parts.next();
    Some(Subject {
        route: next()?.into(),
        tenant: next()?.into(),
        caller: next()?.into(),
        key: next()?.into(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl RecordId {
    /// Reads 64 hexadecimal digits.
    pub fn read(digits: &str) -> Option<Self> {
        let mut id = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (place, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
