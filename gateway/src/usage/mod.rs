//! Counts what each tenant uses: by route, key and minute of UTC.
//!
//! Requests are counted on the threads that serve them ([`cells`]). Once a second the control thread adds these counts
//! to the ledger, which keeps sums by minute, hour and day ([`ledger`]), and to a file ([`journal`]). A minute that is
//! over can be delivered ([`events`]).
//!
//! Invariant: every finished request is counted in one series, also one that no route matched and one whose caller is
//! not known. So the sum over the series of a route is the route's `gateway_requests_total`. While usage is off, a
//! request costs one load.

pub mod cells;
pub mod counts;
pub mod events;
pub mod journal;
pub mod ledger;
pub mod names;
pub mod query;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use self::cells::Cells;
pub use self::cells::Used;
pub use self::counts::Counts;
use self::ledger::{Bounds, Ledger, TenantUses};
pub use self::names::Names;
pub use self::query::{By, Query, Row};
use crate::clock;

/// Settings of usage: its bounds, its files and its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSettings {
    /// Folder of the journal; `None` keeps usage in memory alone.
    pub folder: Option<PathBuf>,
    /// Name of this replica in the ids of events.
    pub replica: String,
    pub bounds: Bounds,
    /// Delivery; `None` delivers nothing.
    pub push: Option<PushSettings>,
}

/// Delivery of usage to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSettings {
    pub url: reqwest::Url,
    /// Header fields of each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Maximum number of events in one request.
    pub batch: usize,
    pub time_limit: Duration,
}

/// Usage of one process.
#[derive(Debug)]
pub struct Usage {
    is_on: AtomicBool,
    cells: Cells,
    ledger: Mutex<Ledger>,
    tenants: Arc<TenantUses>,
    replica: OnceLock<String>,
}

impl Default for Usage {
    fn default() -> Self {
        let bounds = Bounds {
            series: 0,
            records: 0,
            waiting: None,
        };
        // The time makes it readable, the number unique.
        let epoch = format!("{:x}-{:08x}", clock::unix_seconds(), fastrand::u32(..));
        let ledger = Ledger::new(epoch.into(), bounds);
        Self {
            is_on: AtomicBool::new(false),
            cells: Cells::default(),
            tenants: Arc::clone(ledger.tenants()),
            ledger: Mutex::new(ledger),
            replica: OnceLock::new(),
        }
    }
}

impl Usage {
    /// Counts a finished request if usage is on. `used` says what it has used.
    #[inline]
    pub fn count<'a>(&self, used: impl FnOnce() -> Used<'a>) {
        if self.is_on.load(Relaxed) {
            self.cells.count(used());
        }
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Turns usage on or off, and puts its bounds in force. The name of the replica is that of the first call.
    pub fn set(&self, settings: Option<&UsageSettings>) {
        if let Some(settings) = settings {
            let _ = self.replica.set(settings.replica.clone());
            let mut ledger = self.ledger();
            ledger.set_bounds(settings.bounds);
            if !self.is_on() {
                ledger.move_to(clock::unix_time());
            }
        }
        self.is_on.store(settings.is_some(), Relaxed);
    }

    pub fn replica(&self) -> &str {
        self.replica.get().map_or("", String::as_str)
    }

    /// Adds what was counted since the last call to the ledger, in the minute of the last call. `now` is the time since
    /// 1970; a request counts at most one call later than it ended.
    pub fn collect(&self, now: Duration) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger();
        self.cells
            .collect(now.as_secs() / 60, |names, counts| ledger.add(names, counts));
        ledger.move_to(now);
        ledger
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a tenant's use today and in this month of UTC. It waits for nothing, so workers may call it.
    pub fn of_tenant(&self, tenant: &str) -> Option<(Counts, Counts)> {
        self.tenants.find(tenant, clock::unix_time())
    }
}
