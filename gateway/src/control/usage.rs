//! Collects what workers have counted, once a second, and keeps it in the journal.
//!
//! It runs on threads for work that blocks. Each round begins with a second of the clock, so that a request counts in the
//! minute in which it ended, or in the next if it ended within the last moment.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::observe::timestamp::Timestamp;
use crate::usage::journal::{Journal, Left};
use crate::usage::ledger::{Gap, Ledger};
use crate::usage::{Usage, UsageSettings};

/// Number of rounds between looks for what other processes have left behind.
const LOOK_EVERY: u32 = 2;

/// Adds the counts of the workers to the ledger, and both to the journal.
pub struct UsageKeeper {
    usage: Arc<Usage>,
    journal: Option<Mutex<Kept>>,
}

struct Kept {
    journal: Journal,
    /// Counts that are in the ledger and not yet in the own file.
    taken: Vec<Left>,
    rounds: u32,
}

impl UsageKeeper {
    /// Reads what earlier processes have left in the folder, and begins a file there. Without a folder, usage is kept in
    /// memory alone.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn start(settings: Option<&UsageSettings>, usage: Arc<Usage>) -> io::Result<Self> {
        let Some(folder) = settings.and_then(|settings| settings.folder.as_ref()) else {
            return Ok(Self { usage, journal: None });
        };
        let epoch = Arc::clone(usage.ledger().epoch());
        let mut kept = Kept {
            journal: Journal::open(folder, epoch)?,
            taken: Vec::new(),
            rounds: 0,
        };
        usage.ledger().note_changes();
        kept.take_over(&usage)?;
        if kept.journal.wants_snapshot() {
            let snapshot = usage.ledger().snapshot();
            kept.journal.write_anew(&snapshot)?;
        }
        kept.journal.written_until(clock::unix_time())?;
        Ok(Self {
            usage,
            journal: Some(Mutex::new(kept)),
        })
    }

    /// Collects forever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let now = clock::unix_time();
            let next = Duration::from_secs(now.as_secs() + 1);
            tokio::time::sleep(next.saturating_sub(now)).await;
            self.collect().await;
        }
    }

    /// Collects what was counted until now.
    pub async fn collect(self: &Arc<Self>) {
        let keeper = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || keeper.round(false)).await;
    }

    /// Collects for the last time: the process ends in order, and its last minute is over.
    pub async fn end(self: &Arc<Self>) {
        let keeper = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || keeper.round(true)).await;
    }

    fn round(&self, is_last: bool) {
        if !self.usage.is_on() && !is_last {
            return;
        }
        let mut kept = self
            .journal
            .as_ref()
            .map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner));
        let now = clock::unix_time();
        let mut ledger = self.usage.collect(now);
        if is_last {
            ledger.end_minute();
        }
        let Some(kept) = &mut kept else { return };
        let changes = ledger.take_changes();
        let snapshot = kept.journal.wants_snapshot().then(|| ledger.snapshot());
        drop(ledger);
        let mut result = match snapshot {
            Some(snapshot) => kept.journal.write_anew(&snapshot),
            None => kept.journal.append(&changes),
        };
        if result.is_ok() {
            result = if is_last {
                kept.journal.end()
            } else {
                kept.journal.written_until(now)
            };
        }
        kept.journal.tell(result);
        kept.rounds = kept.rounds.wrapping_add(1);
        if !is_last && kept.rounds.is_multiple_of(LOOK_EVERY) {
            let result = kept.take_over(&self.usage);
            kept.journal.tell(result);
        }
    }
}

impl Kept {
    /// Takes over what processes that have ended left behind.
    fn take_over(&mut self, usage: &Usage) -> io::Result<()> {
        let left = self.journal.left_behind()?;
        if left.is_empty() && self.taken.is_empty() {
            return Ok(());
        }
        let mut ledger = usage.ledger();
        for mut left in left {
            restore(&mut ledger, &mut left);
            self.taken.push(left);
        }
        ledger.take_changes();
        let snapshot = ledger.snapshot();
        drop(ledger);
        // What stays after a failure is not read again, because its lock is held.
        self.journal.take_over(&mut self.taken, &snapshot)
    }
}

fn restore(ledger: &mut Ledger, left: &mut Left) {
    ledger.restore(std::mem::take(&mut left.entries));
    if left.damaged > 0 {
        tracing::warn!(
            epoch = left.epoch,
            bytes = left.damaged,
            "the end of a file of usage cannot be read"
        );
    }
    if let Some(from) = left.killed_after {
        let to = clock::unix_time();
        tracing::warn!(
            epoch = left.epoch,
            after = %Timestamp(from),
            found = %Timestamp(to),
            "an earlier process was killed: requests that ended in the second after its last write are missing in usage"
        );
        ledger.note_gap(Gap { from, to });
    }
}
