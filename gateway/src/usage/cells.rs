//! Counts requests on the threads that serve them, without a lock and without shared cache lines.
//!
//! Each thread has cells of its own, one per series, which it finds by a keyed hash of the names: no caller can choose
//! names that share a cell, and a tenant has the same cells whichever credential names it. A cell has one writer, so a
//! count is a few plain loads and stores. Once a second the control thread reads all cells (`Cells::collect`).
//!
//! A thread drops cells that were not used in this minute or the last one when it needs room, and a tenant has a bounded
//! number of cells for its keys. So memory depends on the series in use, and not on the number of credentials.
//!
//! Invariant: what is counted is collected once, also if its thread ends or drops its cells.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::counts::{CLASSES, Counts};
use super::names::Names;
use crate::rejection::Reason;

/// Maximum number of cells of one thread. Beyond, requests are counted by route.
const MOST_OF_A_THREAD: usize = 16_384;
/// Maximum number of cells that one thread has for keys of one tenant. Beyond, its requests are counted without a key.
const MOST_KEYS: usize = MOST_OF_A_THREAD / 4;
/// Number of cells below which a thread drops none.
const FEW: usize = 256;
/// Maximum number of cells of all threads, dropped ones included until they are collected.
const MOST: usize = 262_144;

/// Use of one request.
#[derive(Debug, Clone, Copy)]
pub struct Used<'a> {
    pub tenant: Option<&'a Arc<str>>,
    pub route: Option<&'a Arc<str>>,
    pub key: Option<&'a Arc<str>>,
    pub status: u16,
    pub reason: Option<Reason>,
    pub cost: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Counts of one series by one thread.
#[derive(Debug)]
struct Cell {
    names: Names,
    /// Minute of the last collection before the last request, since 1970.
    minute: AtomicU64,
    requests: AtomicU64,
    by_class: [AtomicU64; CLASSES],
    cost: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// By the reason's place; made by the first refusal.
    refused: OnceLock<Box<[AtomicU64; Reason::ALL.len()]>>,
}

/// Keyed hash of the names of a series. Two series never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64, u64);

/// Passes on the part of a [`Place`] that a table needs, which is a hash already.
#[derive(Debug, Default)]
struct OfPlace(u64);

/// Cells of one thread.
#[derive(Default)]
struct Own {
    /// The [`Cells`] that they belong to.
    of: u64,
    cells: HashMap<Place, Arc<Cell>, BuildHasherDefault<OfPlace>>,
    /// Number of cells with a key, by tenant.
    keys: HashMap<Arc<str>, usize>,
    /// Number of cells from which on unused ones are dropped.
    full_at: usize,
    /// Minute in which unused cells were dropped last.
    swept: u64,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

/// Cells of all threads.
#[derive(Debug)]
pub(super) struct Cells {
    id: u64,
    /// Keys of the hash of names.
    keys: (u64, u64),
    /// Minutes since 1970 at the last collection.
    minute: AtomicU64,
    all: Mutex<Vec<Known>>,
    /// Length of `all` when it was changed last.
    count: AtomicUsize,
}

/// A cell, and its counts when it was last collected.
#[derive(Debug)]
struct Known {
    cell: Arc<Cell>,
    seen: Counts,
}

impl Default for Cells {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            keys: (fastrand::u64(..), fastrand::u64(..)),
            minute: AtomicU64::new(0),
            all: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }
}

impl Cells {
    pub(super) fn count(&self, used: Used<'_>) {
        let place = self.place(used.tenant, used.route, used.key, false);
        let counted = OWN.try_with(|own| {
            let own = &mut *own.borrow_mut();
            if own.of != self.id {
                *own = Own {
                    of: self.id,
                    ..Own::default()
                };
            }
            let minute = self.minute.load(Relaxed);
            if let Some(cell) = own.cells.get(&place) {
                cell.count(&used, minute);
            } else {
                self.count_rare(own, place, &used, minute);
            }
        });
        if counted.is_err() {
            // The thread is ending. Nobody holds this cell, so it is collected once and dropped.
            let cell = Arc::new(Cell::new(Names::of(&used)));
            cell.count(&used, 0);
            self.know(cell);
        }
    }

    /// Counts in a new cell, or in one of those for what has no cell of its own. Only a new one takes the lock.
    #[cold]
    fn count_rare(&self, own: &mut Own, mut place: Place, used: &Used<'_>, minute: u64) {
        own.make_room(minute);
        let keys = used.key.and(used.tenant).and_then(|tenant| own.keys.get(tenant));
        let is_other = own.cells.len() >= MOST_OF_A_THREAD || self.count.load(Relaxed) >= MOST;
        let has_no_key = keys.is_some_and(|keys| *keys >= MOST_KEYS);
        if is_other {
            place = self.place(None, used.route, None, true);
        } else if has_no_key {
            place = self.place(used.tenant, used.route, None, false);
        }
        if let Some(cell) = own.cells.get(&place) {
            return cell.count(used, minute);
        }
        let names = match Names::of(used) {
            names if is_other => Names::other(names.route),
            names if has_no_key => Names { key: None, ..names },
            names => names,
        };
        let cell = Arc::new(Cell::new(names));
        cell.count(used, minute);
        own.add(place, Arc::clone(&cell));
        self.know(cell);
    }

    fn know(&self, cell: Arc<Cell>) {
        let seen = Counts::default();
        let mut all = self.all();
        all.push(Known { cell, seen });
        self.count.store(all.len(), Relaxed);
    }

    fn place(
        &self,
        tenant: Option<&Arc<str>>,
        route: Option<&Arc<str>>,
        key: Option<&Arc<str>>,
        is_other: bool,
    ) -> Place {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        (tenant, route, key, is_other).hash(&mut hasher);
        let hash = hasher.finish128();
        Place(hash.h1, hash.h2)
    }

    /// Hands what was counted since the last call to `add`. `minute` is the present one, since 1970.
    pub(super) fn collect(&self, minute: u64, mut add: impl FnMut(&Names, Counts)) {
        self.minute.store(minute, Relaxed);
        let mut all = self.all();
        all.retain_mut(|Known { cell, seen }| {
            // Before the counts are read: later nobody counts in a cell that only this list holds.
            let is_dropped = Arc::strong_count(cell) == 1;
            fence(Acquire);
            if cell.requests.load(Acquire) != seen.requests {
                let counts = cell.counts();
                add(&cell.names, counts.since(seen));
                *seen = counts;
            }
            !is_dropped
        });
        self.count.store(all.len(), Relaxed);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Known>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn of(used: &Used<'_>) -> Self {
        Self {
            tenant: used.tenant.cloned(),
            route: used.route.cloned(),
            key: used.key.cloned(),
            is_other: false,
        }
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl Hasher for OfPlace {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a place is one number");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Own {
    fn add(&mut self, place: Place, cell: Arc<Cell>) {
        if let Some(tenant) = cell.names.tenant_with_key() {
            *self.keys.entry(Arc::clone(tenant)).or_default() += 1;
        }
        self.cells.insert(place, cell);
    }

    /// Drops cells that were used neither in `minute` nor in the one before, if there are many.
    fn make_room(&mut self, minute: u64) {
        // When most cells are in use, once a minute is enough: dropping looks at all of them.
        let is_full = self.cells.len() >= self.full_at.max(FEW);
        if !is_full || (self.full_at >= MOST_OF_A_THREAD && self.swept == minute) {
            return;
        }
        self.cells
            .retain(|_, cell| cell.minute.load(Relaxed).saturating_add(1) >= minute);
        self.cells.shrink_to(2 * self.cells.len());
        self.keys.clear();
        for tenant in self.cells.values().filter_map(|cell| cell.names.tenant_with_key()) {
            *self.keys.entry(Arc::clone(tenant)).or_default() += 1;
        }
        self.full_at = (2 * self.cells.len()).min(MOST_OF_A_THREAD);
        self.swept = minute;
    }
}

/// Adds to a number that only this thread changes.
fn add(to: &AtomicU64, number: u64) {
    to.store(to.load(Relaxed).wrapping_add(number), Relaxed);
}

impl Cell {
    fn new(names: Names) -> Self {
        Self {
            names,
            minute: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            by_class: Default::default(),
            cost: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            refused: OnceLock::new(),
        }
    }

    /// Counts a request. Only the thread that the cell belongs to calls it.
    fn count(&self, used: &Used<'_>, minute: u64) {
        self.minute.store(minute, Relaxed);
        add(&self.by_class[Counts::class(used.status)], 1);
        add(&self.cost, used.cost);
        add(&self.bytes_in, used.bytes_in);
        add(&self.bytes_out, used.bytes_out);
        if let Some(reason) = used.reason {
            let refused = self
                .refused
                .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
            add(&refused[reason as usize], 1);
        }
        // Last, so that a reader that sees it sees the others too.
        self.requests.store(self.requests.load(Relaxed) + 1, Release);
    }

    /// Returns the counts. Those of a request that is being counted may be seen in part; the rest is seen later.
    fn counts(&self) -> Counts {
        let read = |number: &AtomicU64| number.load(Relaxed);
        let mut counts = Counts {
            requests: self.requests.load(Acquire),
            by_class: std::array::from_fn(|class| read(&self.by_class[class])),
            cost: read(&self.cost),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            ..Counts::default()
        };
        if let Some(refused) = self.refused.get() {
            for (reason, count) in Reason::ALL.into_iter().zip(refused.iter()) {
                counts.add_refused(reason, read(count));
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use super::*;

    fn used<'a>(tenant: Option<&'a Arc<str>>, route: &'a Arc<str>) -> Used<'a> {
        Used {
            tenant,
            route: Some(route),
            key: None,
            status: 200,
            reason: None,
            cost: 1,
            bytes_in: 2,
            bytes_out: 3,
        }
    }

    fn collect(cells: &Cells, into: &mut BTreeMap<Names, Counts>) {
        cells.collect(1, |names, counts| into.entry(names.clone()).or_default().add(&counts));
    }

    #[test]
    fn what_threads_count_is_collected_once_while_they_count_and_after_they_have_ended() {
        const THREADS: u64 = 4;
        const REQUESTS: u64 = 20_000;
        let cells = Arc::new(Cells::default());
        let (tenant, route): (Arc<str>, Arc<str>) = ("acme".into(), "users".into());
        let counting: Vec<_> = (0..THREADS)
            .map(|_| {
                let (cells, tenant, route) = (Arc::clone(&cells), Arc::clone(&tenant), Arc::clone(&route));
                thread::spawn(move || (0..REQUESTS).for_each(|_| cells.count(used(Some(&tenant), &route))))
            })
            .collect();
        let mut all = BTreeMap::new();
        while !counting.iter().all(thread::JoinHandle::is_finished) {
            collect(&cells, &mut all);
        }
        counting.into_iter().for_each(|thread| thread.join().unwrap());
        collect(&cells, &mut all);
        let total = THREADS * REQUESTS;
        let counts = all.into_values().collect::<Vec<_>>();
        assert_eq!(counts.len(), 1);
        assert_eq!(
            (
                counts[0].requests,
                counts[0].by_class[1],
                counts[0].cost,
                counts[0].bytes_out
            ),
            (total, total, total, 3 * total)
        );
        collect(&cells, &mut BTreeMap::new());
        assert!(
            cells.all().is_empty(),
            "the cells of threads that have ended are dropped"
        );
    }

    #[test]
    fn a_tenant_has_one_cell_whichever_credential_names_it() {
        let (cells, mut all) = (Cells::default(), BTreeMap::new());
        let route: Arc<str> = "users".into();
        for _ in 0..10_000 {
            // Each token that is verified makes its own copy of the name.
            let tenant: Arc<str> = "acme".into();
            cells.count(used(Some(&tenant), &route));
        }
        assert_eq!(cells.all().len(), 1);
        collect(&cells, &mut all);
        let counts: Vec<_> = all.values().map(|counts| counts.requests).collect();
        assert_eq!(counts, [10_000]);
    }

    #[test]
    fn a_tenant_of_many_keys_has_a_bounded_number_of_cells() {
        let (cells, mut all) = (Cells::default(), BTreeMap::new());
        let (route, tenant): (Arc<str>, Arc<str>) = ("users".into(), "acme".into());
        for number in 0..MOST_OF_A_THREAD {
            let key: Arc<str> = number.to_string().into();
            cells.count(Used {
                key: Some(&key),
                ..used(Some(&tenant), &route)
            });
        }
        assert_eq!(cells.all().len(), MOST_KEYS + 1);
        let other: Arc<str> = "globex".into();
        cells.count(used(Some(&other), &route));
        collect(&cells, &mut all);
        let without_key = Names {
            tenant: Some(tenant),
            route: Some(route),
            ..Names::default()
        };
        assert_eq!(all[&without_key].requests as usize, MOST_OF_A_THREAD - MOST_KEYS);
        let of_other: Vec<_> = all
            .keys()
            .filter(|names| names.tenant.as_ref() == Some(&other))
            .collect();
        assert_eq!(of_other.len(), 1, "its neighbour has its own");
    }

    #[test]
    fn a_thread_without_room_counts_by_route_until_cells_are_unused() {
        let (cells, mut all) = (Cells::default(), BTreeMap::new());
        let route: Arc<str> = "users".into();
        let count = |number: usize| {
            let tenant: Arc<str> = number.to_string().into();
            cells.count(used(Some(&tenant), &route));
        };
        let add = |minute, all: &mut BTreeMap<Names, Counts>| {
            cells.collect(minute, |names, counts| {
                all.entry(names.clone()).or_default().add(&counts)
            });
        };
        for _ in 0..2 {
            (0..MOST_OF_A_THREAD + 100).for_each(count);
            add(1, &mut all);
            assert_eq!(cells.all().len(), MOST_OF_A_THREAD + 1);
        }
        let other = Names::other(Some(Arc::clone(&route)));
        assert_eq!((all.len(), all[&other].requests), (MOST_OF_A_THREAD + 1, 200));
        // The cells were used in minute 1, so there is no room in minute 2 and all of it in minute 3.
        add(2, &mut all);
        count(MOST_OF_A_THREAD);
        add(3, &mut all);
        assert_eq!(all[&other].requests, 201);
        count(MOST_OF_A_THREAD);
        add(3, &mut all);
        assert_eq!(
            cells.all().len(),
            2,
            "it and the one that counts by route, which was used in minute 2"
        );
        let sum: u64 = all.values().map(|counts| counts.requests).sum();
        assert_eq!(sum as usize, 2 * (MOST_OF_A_THREAD + 100) + 2);
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let (cells, mut all) = (Cells::default(), BTreeMap::new());
        let route: Arc<str> = "users".into();
        for (status, reason) in [
            (429, Some(Reason::RateLimited)),
            (404, Some(Reason::NoRoute)),
            (429, Some(Reason::RateLimited)),
            (404, None),
        ] {
            cells.count(Used {
                status,
                reason,
                ..used(None, &route)
            });
        }
        collect(&cells, &mut all);
        let counts = all.into_values().next().unwrap();
        assert_eq!(counts.refused(), [(Reason::NoRoute, 1), (Reason::RateLimited, 2)]);
        assert_eq!((counts.requests, counts.by_class[3], counts.refusals()), (4, 4, 3));
    }
}
