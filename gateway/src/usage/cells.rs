//! Counts requests on the threads that serve them, without a lock and without shared cache lines.
//!
//! Each thread has cells of its own, one per series, which it finds by the addresses of the names: the plan and the
//! cached credentials hold those. A cell has one writer, so a count is a few plain loads and stores. Once a second the
//! control thread reads all cells (`Cells::collect`).
//!
//! Invariant: what is counted is collected once, also if its thread ends or forgets its cells. A cell holds the names
//! whose addresses it is found by, so no other name can have these addresses meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::counts::{CLASSES, Counts};
use super::names::Names;
use crate::rejection::Reason;

/// Maximum number of cells that one thread remembers. One more makes it forget them all.
const MOST_OF_A_THREAD: usize = 16_384;
/// Maximum number of cells of all threads, forgotten ones included. What finds no room is counted by route.
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
    requests: AtomicU64,
    by_class: [AtomicU64; CLASSES],
    cost: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// By the reason's place; made by the first refusal.
    refused: OnceLock<Box<[AtomicU64; Reason::ALL.len()]>>,
}

/// Addresses of the tenant's, the route's and the key's name; 0 for none.
type Place = [usize; 3];

/// Cells of one thread.
#[derive(Default)]
struct Own {
    /// The [`Cells`] that they belong to.
    of: u64,
    cells: HashMap<Place, Arc<Cell>>,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

/// Cells of all threads.
#[derive(Debug)]
pub(super) struct Cells {
    id: u64,
    all: Mutex<Vec<Known>>,
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
            all: Mutex::default(),
        }
    }
}

impl Cells {
    pub(super) fn count(&self, used: Used<'_>) {
        let place = [used.tenant, used.route, used.key].map(|name| name.map_or(0, |name| Arc::as_ptr(name).addr()));
        let counted = OWN.try_with(|own| {
            let own = &mut *own.borrow_mut();
            if own.of != self.id {
                *own = Own {
                    of: self.id,
                    cells: HashMap::new(),
                };
            }
            if let Some(cell) = own.cells.get(&place) {
                cell.count(&used);
            } else {
                self.count_first(own, place, &used);
            }
        });
        if counted.is_err() {
            // The thread is ending. Nobody holds this cell, so it is collected once and dropped.
            let cell = Arc::new(Cell::new(Names::of(&used)));
            cell.count(&used);
            self.all().push(Known::new(cell));
        }
    }

    #[cold]
    fn count_first(&self, own: &mut Own, mut place: Place, used: &Used<'_>) {
        if own.cells.len() >= MOST_OF_A_THREAD {
            own.cells.clear();
        }
        let mut all = self.all();
        let names = if all.len() < MOST {
            Names::of(used)
        } else {
            place = [1, place[1], 0];
            Names::other(used.route.cloned())
        };
        let cell = own.cells.entry(place).or_insert_with(|| {
            let cell = Arc::new(Cell::new(names));
            all.push(Known::new(Arc::clone(&cell)));
            cell
        });
        cell.count(used);
    }

    /// Hands what was counted since the last call to `add`.
    pub(super) fn collect(&self, mut add: impl FnMut(&Names, Counts)) {
        self.all().retain_mut(|Known { cell, seen }| {
            // Before the counts are read: later nobody counts in a cell that only this list holds.
            let is_forgotten = Arc::strong_count(cell) == 1;
            fence(Acquire);
            if cell.requests.load(Acquire) != seen.requests {
                let counts = cell.counts();
                add(&cell.names, counts.since(seen));
                *seen = counts;
            }
            !is_forgotten
        });
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

impl Known {
    fn new(cell: Arc<Cell>) -> Self {
        Self {
            cell,
            seen: Counts::default(),
        }
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
            requests: AtomicU64::new(0),
            by_class: Default::default(),
            cost: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            refused: OnceLock::new(),
        }
    }

    /// Counts a request. Only the thread that the cell belongs to calls it.
    fn count(&self, used: &Used<'_>) {
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
        cells.collect(|names, counts| into.entry(names.clone()).or_default().add(&counts));
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
    fn a_name_that_takes_the_place_of_another_one_has_its_own_counts() {
        let (cells, mut all) = (Cells::default(), BTreeMap::new());
        let route: Arc<str> = "users".into();
        for number in 0..100 {
            let tenant: Arc<str> = format!("t{number}").into();
            cells.count(used(Some(&tenant), &route));
        }
        collect(&cells, &mut all);
        assert_eq!(all.len(), 100);
        assert!(all.values().all(|counts| counts.requests == 1));
    }

    #[test]
    fn a_thread_that_forgets_its_cells_loses_no_count() {
        let (cells, mut all) = (Cells::default(), BTreeMap::new());
        let route: Arc<str> = "users".into();
        for round in 0..2 {
            for number in 0..=MOST_OF_A_THREAD {
                let tenant: Arc<str> = number.to_string().into();
                cells.count(used(Some(&tenant), &route));
            }
            collect(&cells, &mut all);
            assert!(cells.all().len() <= MOST_OF_A_THREAD + 1, "round {round}");
        }
        assert_eq!(all.len(), MOST_OF_A_THREAD + 1);
        assert!(all.values().all(|counts| counts.requests == 2));
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
