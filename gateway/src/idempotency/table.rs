//! The records of idempotency keys in memory, and what they decide.
//!
//! Invariant: a record that is running or unknown is removed only at its end, by its own request, or by an operator.
//! The table is bounded in bytes. A tenant gets room for a new key only if it then holds at most as much as stays free:
//! alone half of the whole, one of `n` greedy tenants one part in `n + 1`. So a newcomer always finds room.
//!
//! Is told the time. `store/scripts/idempotency.lua` decides by the same rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use policies::Moment;

use super::{Begun, Claim, Ending, Fingerprint, RecordId, RecordView, Release, StateWord, StoredAnswer, Subject};

/// Ended records that are removed at once at most, and answered ones that are forgotten for one new key.
const AT_ONCE: usize = 64;

#[derive(Default)]
pub(super) struct Table {
    records: HashMap<RecordId, Record>,
    /// Records by their end, then by arrival.
    by_end: BTreeMap<(Moment, u64), RecordId>,
    tenants: HashMap<Arc<str>, Holding>,
    bytes: u64,
    most: u64,
    /// Whether answered records make room for new ones.
    forgets: bool,
    turn: u64,
    forgotten: u64,
    /// Number of records in each state, in the order of [`StateWord::ALL`].
    counts: [usize; 4],
}

struct Record {
    subject: Arc<Subject>,
    fingerprint: Fingerprint,
    token: u64,
    state: State,
    ends: (Moment, u64),
    weight: u64,
}

enum State {
    Running { until: Moment },
    Unknown,
    Answered(StoredAnswer),
    NotKept { status: u16 },
}

/// What one tenant holds.
#[derive(Default)]
struct Holding {
    bytes: u64,
    records: usize,
    /// Records that were answered, the oldest first.
    answered: BTreeMap<u64, RecordId>,
}

/// Size of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) most: u64,
    pub(super) tenants: usize,
    /// Answered records that made room before their time.
    pub(super) forgotten: u64,
    pub(super) counts: [usize; 4],
}

impl State {
    /// Returns the state at a time: a request that has told nothing for longer than it may take is lost.
    fn word(&self, now: Moment) -> StateWord {
        match self {
            Self::Running { until } if now < *until => StateWord::Running,
            Self::Running { .. } | Self::Unknown => StateWord::Unknown,
            Self::Answered(_) => StateWord::Answered,
            Self::NotKept { .. } => StateWord::NotKept,
        }
    }

    /// Place in the counts.
    const fn place(&self) -> usize {
        match self {
            Self::Running { .. } => 0,
            Self::Unknown => 1,
            Self::Answered(_) => 2,
            Self::NotKept { .. } => 3,
        }
    }
}

impl Table {
    /// Sets the limit in bytes, and whether answered records make room for new ones. What is above the limit stays until
    /// it ends.
    pub(super) fn set(&mut self, most: u64, forgets: bool) {
        (self.most, self.forgets) = (most, forgets);
    }

    /// Decides on a request with a key, and records it as running if the key is new.
    pub(super) fn begin(&mut self, claim: &Claim, now: Moment) -> Begun {
        self.remove_ended(now);
        if let Some(record) = self.records.get(&claim.id).filter(|record| now < record.ends.0) {
            if record.fingerprint != claim.fingerprint {
                return Begun::Reused;
            }
            if record.token == claim.token && matches!(record.state, State::Running { .. }) {
                return Begun::First;
            }
            return match (&record.state, record.state.word(now)) {
                (State::Answered(answer), _) => Begun::Answered(answer.clone()),
                (State::NotKept { status }, _) => Begun::NotKept { status: *status },
                (_, StateWord::Running) => Begun::Running,
                _ => Begun::Unknown {
                    kept_for: record.ends.0.since(now),
                },
            };
        }
        self.remove(&claim.id);
        let weight = claim.weight();
        if let Err(retry_after) = self.make_room(&claim.subject.tenant, weight, now) {
            return Begun::Full { retry_after };
        }
        let state = State::Running {
            until: now + claim.lease,
        };
        self.insert(claim, state, weight, now);
        Begun::First
    }

    /// Records how a request ended. Returns false if the key belongs to another request by now.
    pub(super) fn finish(&mut self, claim: &Claim, ending: Ending, now: Moment) -> bool {
        match self.records.get(&claim.id) {
            Some(record) if record.token != claim.token => return false,
            // An operator has released the key while the request was under way, or so it seemed.
            None => {}
            Some(_) => self.remove(&claim.id),
        }
        let own = claim.weight();
        let state = match ending {
            Ending::Unknown => State::Unknown,
            Ending::NotKept { status } => State::NotKept { status },
            Ending::Answered(answer) => {
                let weight = own + answer.as_bytes().len() as u64;
                if self.make_room(&claim.subject.tenant, weight, now).is_ok() {
                    self.insert(claim, State::Answered(answer), weight, now);
                    return true;
                }
                // Without room for the answer, that it was given is remembered.
                let status = answer.read().map_or(0, |(status, ..)| status.as_u16());
                State::NotKept { status }
            }
        };
        self.insert(claim, state, own, now);
        true
    }

    /// Frees a key whose request has sent nothing.
    pub(super) fn release(&mut self, claim: &Claim) {
        let is_own = |record: &Record| record.token == claim.token && matches!(record.state, State::Running { .. });
        if self.records.get(&claim.id).is_some_and(is_own) {
            self.remove(&claim.id);
        }
    }

    /// Frees a key by the word of an operator, unless its request is under way.
    pub(super) fn free(&mut self, id: &RecordId, now: Moment) -> Release {
        let Some(record) = self.records.get(id).filter(|record| now < record.ends.0) else {
            return Release::NoSuchKey;
        };
        match record.state.word(now) {
            StateWord::Running => Release::Running,
            word => {
                self.remove(id);
                Release::Released(word)
            }
        }
    }

    /// Lists records that are running or unknown, the next to end first, at most `most`.
    pub(super) fn open(&self, now: Moment, most: usize) -> Vec<RecordView> {
        let open = self.by_end.range((now, u64::MAX)..).filter_map(|(_, id)| {
            let record = self.records.get(id)?;
            let state = record.state.word(now);
            matches!(state, StateWord::Running | StateWord::Unknown).then(|| RecordView {
                id: *id,
                subject: Subject::clone(&record.subject),
                state,
                kept_for: record.ends.0.since(now),
            })
        });
        open.take(most).collect()
    }

    pub(super) fn find(&self, id: &RecordId, now: Moment) -> Option<RecordView> {
        let record = self.records.get(id).filter(|record| now < record.ends.0)?;
        Some(RecordView {
            id: *id,
            subject: Subject::clone(&record.subject),
            state: record.state.word(now),
            kept_for: record.ends.0.since(now),
        })
    }

    pub(super) fn size(&self) -> Size {
        Size {
            bytes: self.bytes,
            most: self.most,
            tenants: self.tenants.len(),
            forgotten: self.forgotten,
            counts: self.counts,
        }
    }

    /// Makes room for so many bytes of a tenant.
    ///
    /// # Errors
    /// There is none. Returns the time until a record of the tenant ends, as far as that is known.
    fn make_room(&mut self, tenant: &Arc<str>, weight: u64, now: Moment) -> Result<(), Duration> {
        for _ in 0..=AT_ONCE {
            let own = self.tenants.get(tenant).map_or(0, |holding| holding.bytes);
            if self.bytes + own + 2 * weight <= self.most {
                return Ok(());
            }
            let oldest = self.tenants.get(tenant).filter(|_| self.forgets);
            let Some((_, id)) = oldest.and_then(|holding| holding.answered.first_key_value()) else {
                break;
            };
            let id = *id;
            self.remove(&id);
            self.forgotten += 1;
        }
        let next = self.by_end.keys().next();
        Err(next.map_or(Duration::ZERO, |(end, _)| end.since(now)))
    }

    fn insert(&mut self, claim: &Claim, state: State, weight: u64, now: Moment) {
        self.turn += 1;
        let ends = (now + claim.keep_for, self.turn);
        let holding = self.tenants.entry(Arc::clone(&claim.subject.tenant)).or_default();
        holding.bytes += weight;
        holding.records += 1;
        if matches!(state, State::Answered(_) | State::NotKept { .. }) {
            holding.answered.insert(self.turn, claim.id);
        }
        self.bytes += weight;
        self.counts[state.place()] += 1;
        self.by_end.insert(ends, claim.id);
        let record = Record {
            subject: Arc::clone(&claim.subject),
            fingerprint: claim.fingerprint,
            token: claim.token,
            state,
            ends,
            weight,
        };
        self.records.insert(claim.id, record);
    }

    fn remove(&mut self, id: &RecordId) {
        let Some(record) = self.records.remove(id) else {
            return;
        };
        self.by_end.remove(&record.ends);
        self.bytes -= record.weight;
        self.counts[record.state.place()] -= 1;
        let tenant = &record.subject.tenant;
        if let Some(holding) = self.tenants.get_mut(tenant) {
            holding.bytes -= record.weight;
            holding.records -= 1;
            holding.answered.remove(&record.ends.1);
            if holding.records == 0 {
                self.tenants.remove(tenant);
            }
        }
    }

    fn remove_ended(&mut self, now: Moment) {
        for _ in 0..AT_ONCE {
            match self.by_end.first_key_value() {
                Some(((end, _), id)) if *end <= now => {
                    let id = *id;
                    self.remove(&id);
                }
                _ => return,
            }
        }
    }
}
