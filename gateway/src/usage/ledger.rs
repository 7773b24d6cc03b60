//! Sums of what each series has used: by minute, hour and day of UTC, and the minutes that wait to be delivered.
//!
//! Everything is bounded. A day has a largest number of series; what has no series of its own is counted with the others
//! of its route. The keys of one tenant can have a quarter of them; beyond, its requests are counted without a key. When there are too many records, the oldest minutes are dropped first, then the oldest hours, since the
//! days still have their sums; at last the series of the oldest day are added up by route.
//!
//! Invariant: the sum over all series of a day is what was counted on that day, whatever was left out. A minute that is
//! over never changes again, so it can be delivered: a request counts in the minute in which its end was collected.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use policies::{Every, WallTime};

use super::counts::Counts;
use super::names::Names;
use super::query::By;

/// Longest jump of the clock backwards, in minutes, during which the newest minute just goes on.
const SMALL_JUMP: u64 = 2;
/// Number of periods of each level that are kept at most: a day of minutes, 32 days of hours, 400 days.
const KEPT: [u64; 3] = [24 * 60, 32 * 24, 400];
/// Maximum number of gaps that are remembered.
const MOST_GAPS: usize = 100;

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Series of one day.
    pub series: usize,
    /// Records of all levels together: one series in one period each.
    pub records: usize,
    /// Records that wait to be delivered; `None` if nothing is delivered.
    pub waiting: Option<usize>,
}

/// Use of one series in one minute that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The run of a process that counted it.
    pub epoch: Arc<str>,
    /// Minutes since 1970-01-01T00:00Z.
    pub minute: u64,
    pub names: Arc<Names>,
    pub counts: Counts,
}

/// A time of which some requests may not be counted, because a process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Time of the last write of the killed process, since 1970.
    pub from: Duration,
    /// Start of the process that found it.
    pub to: Duration,
}

/// A change of the ledger, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Run in which the following was counted.
    Epoch(Arc<str>),
    /// Minute in which the following was counted.
    Minute(u64),
    /// Use in the current minute.
    Used(Arc<Names>, Counts),
    /// Sum of a period, in a file that was written anew.
    Sum(By, u64, Arc<Names>, Counts),
    /// Part of the current minute that the sums hold already.
    Open(Arc<Names>, Counts),
    /// A minute that waits to be delivered.
    Waiting(Record),
    /// A minute that was delivered.
    Delivered(Arc<str>, u64, Arc<Names>),
    /// Number of records that were dropped, because too many waited.
    Dropped(u64),
    Gap(Gap),
}

type Sums = HashMap<Arc<Names>, Counts>;

/// Use of a tenant in the current day and month.
#[derive(Debug, Clone, Default)]
pub struct TenantUse {
    day: u64,
    today: Counts,
    /// Start of the month, in minutes since 1970.
    month: u64,
    this_month: Counts,
}

/// Use of tenants in the current day and month. A tenant for which there was no room has none.
#[derive(Debug, Default)]
pub struct TenantUses(DashMap<Arc<str>, TenantUse>);

#[derive(Debug)]
pub struct Ledger {
    bounds: Bounds,
    epoch: Arc<str>,
    /// Number of times that the clock went back far.
    turns: u64,
    minute: u64,
    names: HashSet<Arc<Names>>,
    /// By minute, hour and day.
    levels: [BTreeMap<u64, Sums>; 3],
    records: usize,
    /// First day whose series are not added up by route.
    unfolded: u64,
    /// Use in the current minute.
    open: Sums,
    waiting: VecDeque<Record>,
    dropped: u64,
    delivered: u64,
    tenants: Arc<TenantUses>,
    /// Number of series with a key on the current day, by tenant.
    keys: HashMap<Arc<str>, usize>,
    gaps: Vec<Gap>,
    /// Changes that the journal does not have yet.
    changes: Option<Vec<Entry>>,
}

impl Ledger {
    pub fn new(epoch: Arc<str>, bounds: Bounds) -> Self {
        Self {
            bounds,
            epoch,
            turns: 0,
            minute: 0,
            names: HashSet::new(),
            levels: Default::default(),
            records: 0,
            unfolded: 0,
            open: Sums::new(),
            waiting: VecDeque::new(),
            dropped: 0,
            delivered: 0,
            tenants: Arc::default(),
            keys: HashMap::new(),
            gaps: Vec::new(),
            changes: None,
        }
    }

    /// Has changes noted from now on, for [`Ledger::take_changes`].
    pub fn note_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Returns the changes since the last call.
    pub fn take_changes(&mut self) -> Vec<Entry> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Puts other bounds in force.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        if self.bounds != bounds {
            if bounds.waiting.is_none() {
                self.waiting.clear();
            }
            self.bounds = bounds;
            self.make_room();
        }
    }

    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// Moves on to the minute of `now`, time since 1970. The minute before is over then.
    pub fn move_to(&mut self, now: Duration) {
        let minute = now.as_secs() / 60;
        if minute == self.minute || (minute < self.minute && self.minute - minute <= SMALL_JUMP) {
            return;
        }
        self.close();
        if minute < self.minute {
            self.turn();
        }
        let is_new_day = By::Day.period(minute) != By::Day.period(self.minute);
        self.minute = minute;
        self.note(Entry::Minute(minute));
        self.forget_old();
        if is_new_day {
            self.count_keys();
        }
    }

    /// Ends the current minute before its time. It goes on with another epoch.
    pub fn end_minute(&mut self) {
        self.close();
        self.turn();
    }

    /// Adds use in the current minute.
    pub fn add(&mut self, names: &Names, counts: Counts) {
        let names = self.within_keys(names);
        if self.bounds.waiting.is_some() {
            self.open.entry(Arc::clone(&names)).or_default().add(&counts);
        }
        self.add_sums(&names, &counts);
        self.note(Entry::Used(names, counts));
    }

    /// Returns at most `most` of the records that wait, oldest first.
    pub fn waiting(&self, most: usize) -> Vec<Record> {
        self.waiting.iter().take(most).cloned().collect()
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of records that were dropped because too many waited.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the number of records that were delivered since the start.
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub const fn records(&self) -> usize {
        self.records
    }

    /// Forgets records that were delivered. They are the oldest ones, unless some were dropped meanwhile.
    pub fn delivered_all(&mut self, records: &[Record]) {
        for record in records {
            let is_it =
                |one: &Record| (one.minute, &one.epoch, &one.names) == (record.minute, &record.epoch, &record.names);
            let Some(place) = self.waiting.iter().take(records.len() + 1).position(is_it) else {
                continue;
            };
            self.waiting.remove(place);
            self.delivered += 1;
            self.note(Entry::Delivered(
                Arc::clone(&record.epoch),
                record.minute,
                Arc::clone(&record.names),
            ));
        }
    }

    /// Returns the use of tenants in the current day and month, which workers may read.
    pub fn tenants(&self) -> &Arc<TenantUses> {
        &self.tenants
    }

    /// Returns the sums of a level from the oldest period on.
    pub(super) fn sums(&self, by: By) -> &BTreeMap<u64, Sums> {
        &self.levels[by as usize]
    }

    /// Makes the entries that lead an empty ledger to the same state.
    pub fn snapshot(&self) -> Vec<Entry> {
        // Before what waits: it tells how many of those before it are gone.
        let mut all = Vec::from_iter((self.dropped > 0).then_some(Entry::Dropped(self.dropped)));
        for by in By::ALL {
            for (period, sums) in self.sums(by) {
                for (names, counts) in sums {
                    all.push(Entry::Sum(by, *period, Arc::clone(names), counts.clone()));
                }
            }
        }
        all.extend(self.waiting.iter().cloned().map(Entry::Waiting));
        all.extend(self.gaps.iter().copied().map(Entry::Gap));
        all.push(Entry::Epoch(Arc::clone(&self.epoch)));
        all.push(Entry::Minute(self.minute));
        let open = self.open.iter();
        all.extend(open.map(|(names, counts)| Entry::Open(Arc::clone(names), counts.clone())));
        all
    }

    /// Adds what a process that has ended left behind. Its last minute is over.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut restored = Restored::default();
        let noted = self.changes.take();
        for entry in entries {
            self.restore_entry(entry, &mut restored);
        }
        restored.close();
        let mut waiting: Vec<_> = restored.waiting.into_iter().collect();
        waiting.sort_by(|a, b| (a.minute, &a.epoch, &a.names).cmp(&(b.minute, &b.epoch, &b.names)));
        // Oldest first, so that all of them are before what waits already.
        if self.bounds.waiting.is_some() {
            for record in waiting.into_iter().rev() {
                self.waiting.push_front(record);
            }
        }
        self.changes = noted;
        self.make_room();
        self.count_keys();
    }

    fn restore_entry(&mut self, entry: Entry, restored: &mut Restored) {
        match entry {
            Entry::Epoch(epoch) => {
                restored.close();
                restored.epoch = epoch;
            }
            Entry::Minute(minute) => {
                restored.close();
                restored.minute = minute;
            }
            Entry::Used(names, counts) => {
                let names = self.intern(&names);
                for by in By::ALL {
                    self.add_sum(by, by.period(restored.minute), &names, &counts);
                }
                self.add_tenant(&names, &counts, restored.minute);
                restored.open.entry(names).or_default().add(&counts);
            }
            Entry::Open(names, counts) => {
                let names = self.intern(&names);
                restored.open.entry(names).or_default().add(&counts);
            }
            Entry::Sum(by, period, names, counts) => {
                let names = self.intern(&names);
                self.add_sum(by, period, &names, &counts);
                if by == By::Day {
                    self.add_tenant(&names, &counts, period * 24 * 60);
                }
            }
            Entry::Waiting(record) => {
                let names = self.intern(&record.names);
                restored.waiting.push_back(Record { names, ..record });
            }
            Entry::Delivered(epoch, minute, names) => {
                let is_it = |one: &Record| (one.minute, &one.epoch, &one.names) == (minute, &epoch, &names);
                if let Some(place) = restored.waiting.iter().position(is_it) {
                    restored.waiting.remove(place);
                }
            }
            Entry::Dropped(count) => {
                self.dropped += count;
                let gone = usize::try_from(count).unwrap_or(usize::MAX).min(restored.waiting.len());
                restored.waiting.drain(..gone);
            }
            Entry::Gap(gap) => self.note_gap(gap),
        }
    }

    /// Remembers a time of which some requests may not be counted.
    pub fn note_gap(&mut self, gap: Gap) {
        if self.gaps.len() >= MOST_GAPS {
            self.gaps.remove(0);
        }
        self.gaps.push(gap);
        self.note(Entry::Gap(gap));
    }

    fn note(&mut self, entry: Entry) {
        if let Some(changes) = &mut self.changes {
            changes.push(entry);
        }
    }

    /// Counts the series with a key on the current day.
    fn count_keys(&mut self) {
        self.keys.clear();
        let today = self.levels[By::Day as usize].get(&By::Day.period(self.minute));
        for names in today.into_iter().flat_map(HashMap::keys) {
            if let Some(tenant) = names.tenant_with_key() {
                *self.keys.entry(Arc::clone(tenant)).or_default() += 1;
            }
        }
    }

    /// Returns the names in which use is counted: without the key if the tenant has no room for another one.
    fn within_keys(&mut self, names: &Names) -> Arc<Names> {
        let Some(tenant) = names.tenant_with_key() else {
            return self.intern(names);
        };
        let today = self.levels[By::Day as usize].get(&By::Day.period(self.minute));
        if today.is_some_and(|today| today.contains_key(names)) {
            return self.intern(names);
        }
        let keys = self.keys.entry(Arc::clone(tenant)).or_default();
        if *keys >= self.bounds.series / 4 {
            let key = None;
            return self.intern(&Names { key, ..names.clone() });
        }
        *keys += 1;
        self.intern(names)
    }

    fn intern(&mut self, names: &Names) -> Arc<Names> {
        if let Some(known) = self.names.get(names) {
            return Arc::clone(known);
        }
        if self.names.len() > self.records + self.waiting.len() + 1024 {
            self.names.retain(|names| Arc::strong_count(names) > 1);
        }
        let names = Arc::new(names.clone());
        self.names.insert(Arc::clone(&names));
        names
    }

    /// Begins another epoch: what is counted again for a minute that is over needs another id.
    fn turn(&mut self) {
        self.turns += 1;
        let base = self.epoch.split('.').next().unwrap_or_default();
        self.epoch = format!("{base}.{}", self.turns).into();
        self.note(Entry::Epoch(Arc::clone(&self.epoch)));
    }

    /// Ends the current minute: its records wait to be delivered.
    fn close(&mut self) {
        self.waiting.extend(over(&mut self.open, &self.epoch, self.minute));
        self.make_room();
    }

    fn add_sums(&mut self, names: &Arc<Names>, counts: &Counts) {
        for by in By::ALL {
            self.add_sum(by, by.period(self.minute), names, counts);
        }
        self.add_tenant(names, counts, self.minute);
        self.make_room();
    }

    fn add_sum(&mut self, by: By, period: u64, names: &Arc<Names>, counts: &Counts) {
        let sums = self.levels[by as usize].entry(period).or_default();
        let before = sums.len();
        if let Some(sum) = sums.get_mut(names) {
            sum.add(counts);
        } else if before < self.bounds.series {
            sums.insert(Arc::clone(names), counts.clone());
        } else {
            let other = Arc::new(Names::other(names.route.clone()));
            sums.entry(other).or_default().add(counts);
        }
        self.records += sums.len() - before;
    }

    fn add_tenant(&mut self, names: &Names, counts: &Counts, minute: u64) {
        let Some(tenant) = &names.tenant else { return };
        if let Some(mut used) = self.tenants.0.get_mut(tenant) {
            used.add(counts, minute);
        } else if self.tenants.0.len() < self.bounds.series {
            let mut used = TenantUse::default();
            used.add(counts, minute);
            self.tenants.0.insert(Arc::clone(tenant), used);
        }
    }

    fn forget_old(&mut self) {
        for by in By::ALL {
            let oldest = by.period(self.minute).saturating_sub(KEPT[by as usize]);
            let level = &mut self.levels[by as usize];
            while let Some(first) = level.first_entry().filter(|first| *first.key() < oldest) {
                self.records -= first.remove().len();
            }
        }
        let month = month(self.minute);
        self.tenants.0.retain(|_, used| used.month >= month);
    }

    /// Drops or adds up what is over the bounds.
    fn make_room(&mut self) {
        let most_waiting = self.bounds.waiting.unwrap_or(0);
        let excess = self.waiting.len().saturating_sub(most_waiting);
        if excess > 0 {
            self.waiting.drain(..excess);
            self.dropped += excess as u64;
            self.note(Entry::Dropped(excess as u64));
        }
        let [minutes, hours, days] = &mut self.levels;
        for level in [minutes, hours] {
            while self.records > self.bounds.records && level.len() > 1 {
                self.records -= level.pop_first().map_or(0, |(_, sums)| sums.len());
            }
        }
        while self.records > self.bounds.records {
            let newest = days.last_key_value().map_or(0, |(day, _)| *day);
            let first = self.unfolded.min(newest);
            let Some((day, sums)) = days.range_mut(first..newest).next() else {
                break;
            };
            self.unfolded = *day + 1;
            let before = sums.len();
            *sums = folded(std::mem::take(sums));
            self.records -= before - sums.len();
        }
    }
}

/// Takes the records of a minute that is over, by name.
fn over(open: &mut Sums, epoch: &Arc<str>, minute: u64) -> Vec<Record> {
    let record = |(names, counts)| Record {
        epoch: Arc::clone(epoch),
        minute,
        names,
        counts,
    };
    let mut records: Vec<_> = open.drain().map(record).collect();
    records.sort_by(|one, other| one.names.cmp(&other.names));
    records
}

/// Adds up the series of each route.
fn folded(sums: Sums) -> Sums {
    let mut by_route = Sums::new();
    for (names, counts) in sums {
        let other = Arc::new(Names::other(names.route.clone()));
        by_route.entry(other).or_default().add(&counts);
    }
    by_route
}

/// Returns the first minute of the month of `minute`.
fn month(minute: u64) -> u64 {
    let time = WallTime::since_epoch(Duration::from_secs(minute * 60));
    Every::Month.start(time).elapsed().as_secs() / 60
}

impl TenantUses {
    /// Returns a tenant's use on the day and in the month of UTC of `now`, time since 1970; `None` if it has used nothing
    /// this month, or is not known.
    pub fn find(&self, tenant: &str, now: Duration) -> Option<(Counts, Counts)> {
        self.0.get(tenant).map(|used| used.at(now.as_secs() / 60))
    }
}

impl TenantUse {
    fn add(&mut self, counts: &Counts, minute: u64) {
        let (day, month) = (By::Day.period(minute), month(minute));
        if month < self.month {
            return;
        }
        if month > self.month {
            (self.month, self.this_month) = (month, Counts::default());
        }
        self.this_month.add(counts);
        if day > self.day {
            (self.day, self.today) = (day, Counts::default());
        }
        if day == self.day {
            self.today.add(counts);
        }
    }

    /// Returns the use on the day and in the month of `minute`.
    fn at(&self, minute: u64) -> (Counts, Counts) {
        let today = (By::Day.period(minute) == self.day).then(|| self.today.clone());
        let this_month = (month(minute) == self.month).then(|| self.this_month.clone());
        (today.unwrap_or_default(), this_month.unwrap_or_default())
    }
}

/// Usage that a process left behind.
#[derive(Default)]
struct Restored {
    epoch: Arc<str>,
    minute: u64,
    open: Sums,
    waiting: VecDeque<Record>,
}

impl Restored {
    fn close(&mut self) {
        self.waiting.extend(over(&mut self.open, &self.epoch, self.minute));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tenant: &str, route: &str) -> Names {
        Names {
            tenant: Some(tenant.into()),
            route: Some(route.into()),
            ..Names::default()
        }
    }

    fn counts(requests: u64) -> Counts {
        Counts {
            requests,
            cost: requests,
            ..Counts::default()
        }
    }

    fn ledger(series: usize, records: usize, waiting: Option<usize>) -> Ledger {
        let bounds = Bounds {
            series,
            records,
            waiting,
        };
        let mut ledger = Ledger::new("e".into(), bounds);
        ledger.note_changes();
        ledger
    }

    fn at(minute: u64) -> Duration {
        Duration::from_secs(minute * 60 + 7)
    }

    fn total(ledger: &Ledger, by: By) -> u64 {
        ledger
            .sums(by)
            .values()
            .flat_map(HashMap::values)
            .map(|sum| sum.requests)
            .sum()
    }

    #[test]
    fn a_request_is_in_its_minute_its_hour_and_its_day() {
        let mut ledger = ledger(10, 1000, Some(100));
        for minute in [60, 61, 119, 120, 1440] {
            ledger.move_to(at(minute));
            ledger.add(&names("acme", "users"), counts(2));
        }
        let periods = |by: By| ledger.sums(by).keys().copied().collect::<Vec<_>>();
        assert_eq!(periods(By::Minute), [60, 61, 119, 120, 1440]);
        assert_eq!((periods(By::Hour), periods(By::Day)), (vec![1, 2, 24], vec![0, 1]));
        assert_eq!([By::Minute, By::Hour, By::Day].map(|by| total(&ledger, by)), [10; 3]);
        assert_eq!(ledger.waiting_count(), 4, "the last minute is not over");
        let (today, month) = ledger.tenants().find("acme", at(1440)).unwrap();
        assert_eq!((today.requests, month.requests), (2, 10));
    }

    #[test]
    fn what_has_no_room_is_counted_by_route_and_not_lost() {
        let mut few = ledger(3, 1000, None);
        few.move_to(at(60));
        for number in 0..10 {
            few.add(
                &names(&number.to_string(), if number % 2 == 0 { "a" } else { "b" }),
                counts(1),
            );
        }
        assert_eq!(total(&few, By::Day), 10);
        let other = |route: &str| Arc::new(Names::other(Some(route.into())));
        let day = &few.sums(By::Day)[&0];
        assert_eq!((day[&other("a")].requests, day[&other("b")].requests), (3, 4));

        let mut small = ledger(100, 40, None);
        for day in 0..20_u64 {
            small.move_to(at(day * 1440));
            for number in 0..5 {
                small.add(&names(&number.to_string(), "a"), counts(1));
            }
            assert!(small.records() <= 40, "{}", small.records());
            assert_eq!(total(&small, By::Day), 5 * (day + 1));
        }
        let (first, last) = (&small.sums(By::Day)[&0], &small.sums(By::Day)[&19]);
        assert_eq!((first[&other("a")].requests, first.len(), last.len()), (5, 1, 5));
    }

    #[test]
    fn the_keys_of_one_tenant_leave_room_for_the_others() {
        let with_key = |tenant: &str, key: usize| Names {
            key: Some(key.to_string().into()),
            ..names(tenant, "users")
        };
        let mut first = ledger(20, 1000, Some(100));
        for day in [0, 1] {
            first.move_to(at(1440 * day));
            (0..50).for_each(|key| first.add(&with_key("acme", key), counts(1)));
            first.add(&with_key("globex", 1), counts(1));
            let sums = &first.sums(By::Day)[&day];
            assert_eq!((sums.len(), sums[&names("acme", "users")].requests), (5 + 1 + 1, 45));
            assert_eq!(sums[&with_key("globex", 1)].requests, 1);
        }
        let mut second = ledger(20, 1000, Some(100));
        second.move_to(at(1440));
        second.restore(first.snapshot());
        second.add(&with_key("acme", 1), counts(1));
        second.add(&with_key("acme", 77), counts(1));
        let sums = &second.sums(By::Day)[&1];
        assert_eq!((sums.len(), sums[&with_key("acme", 1)].requests), (7, 2));
        assert_eq!(sums[&names("acme", "users")].requests, 46);
    }

    #[test]
    fn the_oldest_of_those_that_wait_are_dropped_and_counted() {
        let mut ledger = ledger(10, 1000, Some(3));
        for minute in 60..68 {
            ledger.move_to(at(minute));
            ledger.add(&names("acme", "users"), counts(1));
        }
        let minutes: Vec<_> = ledger.waiting(9).iter().map(|record| record.minute).collect();
        assert_eq!((minutes, ledger.dropped()), (vec![64, 65, 66], 4));
        ledger.delivered_all(&ledger.waiting(2));
        assert_eq!((ledger.waiting_count(), ledger.delivered()), (1, 2));
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_id_twice() {
        let mut ledger = ledger(10, 1000, Some(100));
        for minute in [600, 599, 601, 500, 501, 600, 602] {
            ledger.move_to(at(minute));
            ledger.add(&names("acme", "users"), counts(1));
        }
        ledger.move_to(at(700));
        let ids: HashSet<_> = ledger
            .waiting(99)
            .iter()
            .map(|one| (one.minute, one.epoch.clone()))
            .collect();
        assert_eq!(ids.len(), ledger.waiting_count());
        let sum: u64 = ledger.waiting(99).iter().map(|one| one.counts.requests).sum();
        assert_eq!(sum, 7);
        assert_eq!(
            ledger.waiting(1)[0].counts.requests,
            2,
            "a small jump goes on in the newest minute"
        );
    }

    #[test]
    fn changes_and_snapshots_lead_to_the_same_state() {
        let mut first = ledger(10, 1000, Some(100));
        let mut written = first.snapshot();
        for minute in 60..70 {
            first.move_to(at(minute));
            first.add(&names("acme", "users"), counts(minute));
            first.add(&names("globex", "users"), counts(1));
            if minute == 65 {
                written.extend(first.take_changes());
                written = {
                    let mut replayed = ledger(10, 1000, Some(100));
                    replayed.restore(written);
                    assert_eq!(total(&replayed, By::Day), total(&first, By::Day));
                    first.snapshot()
                };
                first.take_changes();
                first.add(&names("acme", "users"), counts(5));
            }
            if minute == 67 {
                first.delivered_all(&first.waiting(3));
            }
        }
        written.extend(first.take_changes());
        let mut second = ledger(10, 1000, Some(100));
        second.restore(written);
        for by in By::ALL {
            assert_eq!(first.sums(by), second.sums(by));
        }
        // The last minute of a process that has ended is over.
        first.move_to(at(99));
        assert_eq!(first.waiting(99), second.waiting(99));
        assert_eq!(second.waiting_count(), 20 - 3);
        assert_eq!(
            first.tenants().find("acme", at(99)),
            second.tenants().find("acme", at(99))
        );
    }
}
