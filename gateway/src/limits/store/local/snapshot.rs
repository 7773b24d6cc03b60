//! Copies the accounts of all limits into another process of this machine, with the terms that they are held under.
//!
//! The other process puts the same terms in force first, and then those of its own config, so that a changed limit means
//! what it means on a reload: a bucket keeps the share to which it is full, and a limit of another kind carries over what
//! was taken.
//!
//! Both processes must have the same [`HashKeys`](crate::limits::owner::HashKeys) and the same zero of the monotonic
//! clock. A part holds a bounded number of owners, so that a message is bounded too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use policies::calendar::LeftPeriods;
use policies::{CalendarQuota, Every, Moment, Quota, WallTime, WindowQuota};
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::limits::charge_log::Entry;
use crate::limits::kinds::{Account, Kind, SavedCount, Taken, Terms};
use crate::limits::owner::{OwnerKey, OwnerName};
use crate::limits::owner_class::OwnerClass;
use crate::limits::store::local::Accounts;
use crate::limits::store::{Table, TermsByOwner};

/// Largest number of owners in a part, and of moments of one owner.
const MOST: usize = 1_000;

/// Terms of a limit, or of some more of its owners.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedTerms {
    limit: Arc<str>,
    usual: SavedTerm,
    named: Vec<(SavedOwner, SavedTerm)>,
    /// Whether the limit is of this kind now. Other kinds are tables from before a reload.
    in_force: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum SavedTerm {
    /// Ticks to earn a token, and the burst.
    TokenBucket(u64, u64),
    /// Limit, and the window in nanoseconds.
    SlidingWindow(u64, u64),
    Quota(u64, SavedPeriod),
    InFlight(u32),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedPeriod {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

/// Counts of some owners of a limit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCounts {
    limit: Arc<str>,
    kind: String,
    owners: Vec<(SavedOwner, SavedCount)>,
}

/// Owner of an account: its key, and what else a new account needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedOwner {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Box<str>>,
}

/// Use of one owner in periods that the clock has left by a jump.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLeft {
    limit: Arc<str>,
    owner: Box<str>,
    /// Seconds since 1970, as in the state file.
    at: u64,
    periods: Vec<(u64, u64)>,
}

/// A charge or a refund.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCharge {
    limit: Arc<str>,
    kind: String,
    owner: SavedOwner,
    tokens: u64,
    /// Time of the charge.
    at: SavedTime,
    /// Nanoseconds by which the tokens were taken in advance.
    delay: u64,
    /// Time of the refund, if it is one.
    given_back: Option<SavedTime>,
}

/// Requests in flight of one owner under one limit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedInFlight {
    limit: Arc<str>,
    owner: SavedOwner,
    requests: u32,
}

/// Nanoseconds of the monotonic clock, and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SavedTime(u64, u64);

/// The accounts at one instant.
pub struct Snapshot {
    tables: Vec<(Arc<dyn Table>, Vec<SavedAccount>)>,
}

/// Owner with its name, if it has one, and its count.
type SavedAccount = (OwnerKey, Option<Box<str>>, SavedCount);

impl Snapshot {
    /// Copies all accounts from which something is taken.
    pub fn of(accounts: &Accounts, now: Now) -> Self {
        let mut tables = Vec::new();
        for table in accounts.kept_here() {
            let mut owners = Vec::new();
            table.each(&mut |owner, account| {
                if account.is_idle(now) {
                    return;
                }
                if let Some(saved) = account.saved() {
                    owners.push((owner, name_of(&account), saved));
                }
            });
            tables.push((table, owners));
        }
        Self { tables }
    }

    /// Returns the number of accounts.
    pub fn owners(&self) -> usize {
        self.tables.iter().map(|(_, owners)| owners.len()).sum()
    }

    /// Calls `f` with the counts, part by part. Ends at the first error.
    pub fn counts<E>(self, mut f: impl FnMut(SavedCounts) -> Result<(), E>) -> Result<(), E> {
        for (table, owners) in self.tables {
            let kind = table.all_terms().usual.kind();
            let part = || SavedCounts {
                limit: Arc::clone(table.limit()),
                kind: kind.as_str().to_owned(),
                owners: Vec::new(),
            };
            let (mut next, mut moments) = (part(), 0);
            for (owner, name, count) in owners {
                for count in pieces(count) {
                    moments += match &count {
                        SavedCount::SlidingWindow(moments) => moments.len(),
                        SavedCount::TokenBucket(_) | SavedCount::Quota(..) => 1,
                    };
                    next.owners.push((SavedOwner::new(owner, name.clone()), count));
                    if moments >= MOST {
                        f(std::mem::replace(&mut next, part()))?;
                        moments = 0;
                    }
                }
            }
            if !next.owners.is_empty() {
                f(next)?;
            }
        }
        Ok(())
    }
}

/// Cuts the count of a window with many moments. All pieces are added up again.
fn pieces(count: SavedCount) -> Vec<SavedCount> {
    match count {
        SavedCount::SlidingWindow(moments) if moments.len() > MOST => moments
            .chunks(MOST)
            .map(|some| SavedCount::SlidingWindow(some.to_vec()))
            .collect(),
        other => vec![other],
    }
}

fn name_of(account: &Account) -> Option<Box<str>> {
    account.as_calendar().map(|(count, _)| count.owner.clone())
}

impl Accounts {
    /// Returns the terms of all limits, part by part.
    pub fn saved_terms(&self) -> Vec<SavedTerms> {
        let mut all = Vec::new();
        for table in self.kept_here() {
            let terms = table.all_terms();
            let Some(usual) = SavedTerm::of(terms.usual) else {
                continue;
            };
            let part = |named| SavedTerms {
                limit: Arc::clone(table.limit()),
                usual,
                named,
                in_force: self.kind_in_force(table.limit()) == Some(terms.usual.kind()),
            };
            let named: Vec<_> = terms.named.iter().collect();
            all.push(part(Vec::new()));
            for some in named.chunks(MOST) {
                let some = some
                    .iter()
                    .filter_map(|(owner, own)| Some((SavedOwner::new(**owner, None), SavedTerm::of(**own)?)));
                all.push(part(some.collect()));
            }
        }
        all
    }

    /// Puts the terms of another process in force. To be called before any account has a count.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn restore_terms(&self, all: Vec<SavedTerms>, now: Now) -> Result<(), String> {
        let (mut tables, mut in_force) = (HashMap::<(Arc<str>, Kind), TermsByOwner>::new(), Vec::new());
        for saved in all {
            let usual = saved.usual.meant()?;
            let terms = tables
                .entry((Arc::clone(&saved.limit), usual.kind()))
                .or_insert_with(|| TermsByOwner::for_all(usual));
            for (owner, own) in saved.named {
                terms.named.insert(owner.key()?, own.meant()?);
            }
            if saved.in_force {
                in_force.push((saved.limit, usual.kind()));
            }
        }
        for ((limit, _), terms) in &tables {
            self.table(limit, terms).change_terms(terms, now);
        }
        let in_force: Vec<_> = tables
            .into_iter()
            .filter(|(table, _)| in_force.contains(table))
            .map(|((limit, _), terms)| (limit, terms))
            .collect();
        self.take_effect(&in_force, now);
        Ok(())
    }

    /// Adds counts of another process.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn restore_counts(&self, saved: SavedCounts, now: Now) -> Result<(), String> {
        let table = self.found(&saved.limit, &saved.kind)?;
        for (owner, count) in saved.owners {
            if !owner.adopt(&*table)?.restore(now, &count) {
                return Err(format!("a count of {} is of another kind", saved.limit));
            }
        }
        Ok(())
    }

    /// Adds a charge of another process, or gives it back.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn restore_charge(&self, saved: SavedCharge) -> Result<(), String> {
        let table = self.found(&saved.limit, &saved.kind)?;
        // After a change of kind, what is charged to the kind before counts under the kind in force, if that one can have
        // an account without a name.
        let in_force = self.kind_in_force(&saved.limit);
        let in_force = in_force.filter(|kind| !kind.needs_name() || saved.owner.name.is_some());
        let table = in_force.and_then(|kind| self.of(&saved.limit, kind)).unwrap_or(table);
        let account = saved.owner.adopt(&*table)?;
        let taken = Taken {
            at: saved.at.meant(),
            delay: Duration::from_nanos(saved.delay),
            tokens: saved.tokens,
        };
        let (owner, given_back) = (saved.owner.key()?, saved.given_back.map(SavedTime::meant));
        // This process may be handing over too.
        self.log.make(|| {
            match given_back {
                None => account.add(taken),
                Some(at) => account.refund(at, taken, account.terms()),
            }
            Entry {
                table,
                owner,
                account,
                taken,
                given_back,
            }
        });
        Ok(())
    }

    /// Returns the account in which requests in flight of another process count.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn account_in_flight(&self, saved: &SavedInFlight) -> Result<(Account, u32), String> {
        let table = self.found(&saved.limit, Kind::InFlight.as_str())?;
        Ok((saved.owner.adopt(&*table)?, saved.requests))
    }

    /// Returns the owners with requests in flight.
    pub fn saved_in_flight(&self) -> Vec<SavedInFlight> {
        let mut all = Vec::new();
        for table in self.all() {
            table.each(&mut |owner, account| {
                if let Account::InFlight(count, _) = &account
                    && count.count() > 0
                {
                    all.push(SavedInFlight {
                        limit: Arc::clone(table.limit()),
                        owner: SavedOwner::new(owner, None),
                        requests: count.count(),
                    });
                }
            });
        }
        all
    }

    /// Returns the use in periods that the clock has left.
    pub fn saved_left(&self) -> Vec<SavedLeft> {
        let mut all = Vec::new();
        self.set_aside.each(|limit, owner, left| {
            let (at, periods) = left.saved();
            all.push(SavedLeft {
                limit: Arc::clone(limit),
                owner: owner.into(),
                at: at.elapsed().as_secs(),
                periods: periods
                    .iter()
                    .map(|saved| (saved.since.elapsed().as_secs(), saved.used))
                    .collect(),
            });
        });
        all
    }

    pub fn restore_left(&self, saved: SavedLeft, now: Now) {
        let at = |seconds| WallTime::since_epoch(Duration::from_secs(seconds));
        let periods = saved
            .periods
            .into_iter()
            .map(|(since, used)| policies::calendar::Saved { since: at(since), used });
        let left = LeftPeriods::restore(at(saved.at), periods);
        self.set_aside.restore(&saved.limit, &saved.owner, left, now.moment);
    }

    fn found(&self, limit: &Arc<str>, kind: &str) -> Result<Arc<dyn Table>, String> {
        let kind = Kind::of_word(kind).ok_or_else(|| format!("limits of kind {kind} are not known"))?;
        self.of(limit, kind)
            .ok_or_else(|| format!("there are counts of {limit} without its terms"))
    }
}

impl SavedOwner {
    fn new(owner: OwnerKey, name: Option<Box<str>>) -> Self {
        let key = owner.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let room = owner.room().map(|room| room.as_str().to_owned());
        Self { key, room, name }
    }

    fn key(&self) -> Result<OwnerKey, String> {
        let wrong = || format!("no key of an owner: {}", self.key);
        let mut bytes = [0; 15];
        if self.key.len() != 30 || !self.key.is_ascii() {
            return Err(wrong());
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&self.key[at..at + 2], 16).map_err(|_| wrong())?;
        }
        // An unknown room is that of restored owners, which is the largest.
        let room = self.room.as_ref();
        let room = room.map(|word| OwnerClass::of_word(word).unwrap_or(OwnerClass::Restored));
        Ok(OwnerKey::of_bytes(bytes).in_room(room))
    }

    fn adopt(&self, table: &dyn Table) -> Result<Account, String> {
        let key = self.key()?;
        let name = self.name.as_deref().and_then(OwnerName::read);
        let owner = name.as_ref().and_then(OwnerName::owner);
        if owner.is_none() && table.all_terms().usual.kind() == Kind::Calendar {
            return Err(format!("an owner under {} has no name", table.limit()));
        }
        Ok(table.adopt(key, owner))
    }
}

impl SavedCharge {
    pub fn new(entry: &Entry) -> Self {
        let Entry {
            table,
            owner,
            account,
            taken,
            given_back,
        } = entry;
        Self {
            limit: Arc::clone(table.limit()),
            kind: account.terms().kind().as_str().to_owned(),
            owner: SavedOwner::new(*owner, name_of(account)),
            tokens: taken.tokens,
            at: taken.at.into(),
            delay: u64::try_from(taken.delay.as_nanos()).unwrap_or(u64::MAX),
            given_back: given_back.map(Into::into),
        }
    }
}

impl From<Now> for SavedTime {
    fn from(Now { moment, wall }: Now) -> Self {
        Self(
            moment.nanos(),
            u64::try_from(wall.elapsed().as_nanos()).unwrap_or(u64::MAX),
        )
    }
}

impl SavedTime {
    fn meant(self) -> Now {
        let Self(moment, wall) = self;
        Now {
            moment: Moment::from_nanos(moment),
            wall: WallTime::since_epoch(Duration::from_nanos(wall)),
        }
    }
}

impl SavedTerm {
    /// Returns the form of terms whose counts are in this process; `None` for others.
    fn of(terms: Terms) -> Option<Self> {
        Some(match terms {
            Terms::Bucket(quota) => {
                let (interval, burst) = quota.parts();
                Self::TokenBucket(interval, burst)
            }
            Terms::Window(quota) => {
                let window = u64::try_from(quota.window().as_nanos()).unwrap_or(u64::MAX);
                Self::SlidingWindow(quota.limit(), window)
            }
            Terms::Calendar(quota) => Self::Quota(
                quota.limit(),
                match quota.every() {
                    Every::Minute => SavedPeriod::Minute,
                    Every::Hour => SavedPeriod::Hour,
                    Every::Day => SavedPeriod::Day,
                    Every::Week => SavedPeriod::Week,
                    Every::Month => SavedPeriod::Month,
                },
            ),
            Terms::InFlight(cap) => Self::InFlight(cap),
            Terms::LeasedBucket(_) | Terms::LeasedWindow(_) | Terms::LeasedCalendar(_) | Terms::LeasedSlots(_) => {
                return None;
            }
        })
    }
}

impl SavedTerm {
    fn meant(self) -> Result<Terms, String> {
        let terms = match self {
            Self::TokenBucket(interval, burst) => Quota::of_parts(interval, burst).map(Terms::Bucket),
            Self::SlidingWindow(limit, window) => WindowQuota::new(limit, Duration::from_nanos(window))
                .ok()
                .map(Terms::Window),
            Self::Quota(limit, period) => {
                let every = match period {
                    SavedPeriod::Minute => Every::Minute,
                    SavedPeriod::Hour => Every::Hour,
                    SavedPeriod::Day => Every::Day,
                    SavedPeriod::Week => Every::Week,
                    SavedPeriod::Month => Every::Month,
                };
                CalendarQuota::new(limit, every).ok().map(Terms::Calendar)
            }
            Self::InFlight(cap) => Some(Terms::InFlight(cap)),
        };
        terms.ok_or_else(|| format!("no terms of a limit: {self:?}"))
    }
}

#[cfg(test)]
mod tests;
