//! Stores revocations: the list in force, and the file that keeps it across restarts.
//!
//! The file is authoritative. It is read when a plan takes effect and whenever it changes. Entries from the admin API
//! are in force at once and are then written to the file. The store fails closed: a file that cannot be read or has
//! mistakes changes nothing, and an entry that cannot be written stays in force and is written later (`pending`).
//!
//! Other processes may write the file at any time and in any way. So the store replaces only the version that it has
//! read, waits for a write in progress to end, and takes over what is written to a version after its replacement.
//!
//! Runs only on the control thread and its helper threads; workers only read the list. A file system may be slow or
//! never answer, so no lock on `Kept` is held during file access, only a `FileTurn`. Every wait for a turn has a limit.

mod form;
mod pending;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use policies::Moment;

pub(super) use self::form::load;
use self::pending::Pending;
use crate::auth::revocations::{List, MOST, Revocations, Revoked};
use crate::clock::{self, Now};
use crate::config::Sources;
use crate::files::watch::{FileWatch, Look};
use crate::files::{self, LastVersion, Replaced, Stamp};
use crate::plan::file_turn::{FileTurn, HeldTurn};
use crate::plan::revocation_expiry::RevocationAges;

/// Longest wait of a change for another read or write of the file.
const TURN: Duration = Duration::from_secs(5);
/// Interval between checks of a file that another process is writing, while a change waits for it.
const LOOK: Duration = Duration::from_millis(100);
/// Number of tries of a change if another process changes the file in between.
const TRIES: u32 = 5;
/// Time during which a process that has the replaced version open may still write to it.
const LATE: Duration = Duration::from_secs(10);
/// Maximum number of replaced versions that are checked for late writes.
const MOST_LATE: usize = 64;

/// Number of entries that a process that takes over gets at a time.
const PART: usize = 1_000;

pub struct RevocationStore {
    in_force: Arc<Revocations>,
    kept: Mutex<Kept>,
    turn: FileTurn,
    /// Longest wait for a turn.
    patience: Duration,
}

impl Default for RevocationStore {
    fn default() -> Self {
        Self {
            in_force: Arc::default(),
            kept: Mutex::default(),
            turn: FileTurn::default(),
            patience: TURN,
        }
    }
}

#[derive(Default)]
struct Kept {
    path: Option<PathBuf>,
    /// The version of the file that was last read or written.
    version: Option<Stamp>,
    /// Content of that version.
    says: Arc<List>,
    watch: FileWatch,
    /// Reason why the newest version is not in force.
    error: Option<Failure>,
    /// Reason why the list could not be written.
    write_error: Option<Failure>,
    pending: Pending,
    /// Replaced versions, the oldest first.
    replaced: VecDeque<ReplacedVersion>,
    /// Number of reads and writes of the file.
    changes: u64,
    learnt: RevocationAges,
}

impl Kept {
    fn watch_late(&mut self, version: LastVersion, said: Arc<List>, now: Moment) {
        if self.replaced.len() == MOST_LATE {
            self.replaced.pop_front();
        }
        self.replaced.push_back(ReplacedVersion {
            version,
            replaced: now,
            said,
            late: None,
        });
    }
}

/// A version of the file that was replaced a short time ago.
struct ReplacedVersion {
    version: LastVersion,
    replaced: Moment,
    said: Arc<List>,
    /// Content that was written late. It is used once it is the same in two checks.
    late: Option<Vec<u8>>,
}

/// The file as a plan has read it.
pub struct RevocationFile {
    pub path: PathBuf,
    pub version: Option<Stamp>,
    pub list: List,
    /// Value of [`RevocationStore::changes`] before the read; `None` if the content comes from an earlier plan.
    pub changes: Option<u64>,
}

/// Reason and time (in seconds since 1970) of a failed read or write.
#[derive(Debug, Clone)]
pub struct Failure {
    pub at: u64,
    pub error: String,
}

/// The state of the store, for the admin API.
#[derive(Debug, Clone)]
pub struct RevocationStoreStatus {
    pub file: Option<PathBuf>,
    pub error: Option<Failure>,
    /// Number of entries that a restart would lose.
    pub unwritten: usize,
    /// Reason why they are not written yet; the write is retried.
    pub write_error: Option<Failure>,
}

/// Reasons why a change failed, wholly or in part.
#[derive(Debug)]
pub enum RevocationStoreError {
    /// The list is full; nothing has changed.
    TooMany,
    /// The file would exceed the size that is read; nothing has changed.
    TooLong,
    /// The entry does not exist.
    Absent,
    /// The file could not be written. New entries are in force and will be written later; nothing is removed.
    NotWritten(String),
}

impl RevocationStore {
    /// Returns the list that callers are checked against.
    pub fn in_force(&self) -> Arc<Revocations> {
        Arc::clone(&self.in_force)
    }

    /// Sets the file that keeps the list, and replaces the list by its content. Reads no file.
    pub fn keep_in(&self, file: Option<&RevocationFile>) {
        let mut kept = self.kept();
        let path = file.map(|file| &file.path);
        // The content is out of date if the file has been read or written since.
        let is_older = file.is_some_and(|file| file.changes != Some(kept.changes)) && kept.path.as_ref() == path;
        if is_older {
            return;
        }
        kept.path = path.cloned();
        kept.version = file.and_then(|file| file.version);
        kept.watch = FileWatch::default();
        kept.error = None;
        kept.replaced.clear();
        if let Some(file) = file {
            self.replace(&mut kept, file.list.clone());
        }
    }

    /// Returns a number that changes with every read and write of the file.
    pub fn changes(&self) -> u64 {
        self.kept().changes
    }

    /// Puts the content of a new version of the file in force, together with entries that are not written yet.
    fn replace(&self, kept: &mut Kept, list: List) {
        kept.changes += 1;
        kept.says = Arc::new(list);
        let (list, lost) = kept.pending.over(List::clone(&kept.says), clock::now());
        tracing::info!(entries = list.len(), "revocations read");
        if lost > 0 {
            tracing::warn!(
                entries = lost,
                "the file of revocations was written over by somebody who did not know what had just been added through \
                 the admin API: that stays in force, and is written again; take it out by DELETE"
            );
        }
        self.in_force.replace(list);
    }

    /// Checks the file for changes, and retries a failed write.
    pub(crate) fn follow(&self, now: Moment) {
        let Some(turn) = self.turn.take(Duration::ZERO) else {
            return;
        };
        let Some(path) = self.kept().path.clone() else { return };
        let found = Stamp::of(&path);
        let (look, overdue) = {
            let mut kept = self.kept();
            let version = kept.version;
            (kept.watch.look(version, found, now), kept.watch.overdue(now))
        };
        if let Some(waited) = overdue {
            tracing::warn!(path = %path.display(), ?waited, "a file has changed and has not been read for long");
        }
        if look == Look::Due {
            self.read(&turn);
        }
        self.hear_late(&turn, now);
        let is_due = {
            let kept = self.kept();
            kept.error.is_none() && kept.pending.is_due(now)
        };
        if is_due && look != Look::Settling {
            // The result is visible in the status.
            let _ = self.write(&turn, |in_force| Ok(List::clone(in_force)));
        }
    }

    /// Writes pending entries before a shutdown.
    pub fn write_out(&self) {
        if self.kept().pending.len() > 0
            && let Some(turn) = self.turn.take(self.patience)
        {
            let _ = self.write(&turn, |in_force| Ok(List::clone(in_force)));
        }
    }

    /// Returns the entries that may not be in the file, some at a time and in the form of the file, for a process that
    /// takes over.
    pub fn unwritten(&self) -> Vec<String> {
        let mut all = self.kept().pending.all(clock::now()).into_iter().peekable();
        let mut parts = Vec::new();
        while all.peek().is_some() {
            parts.push(form::text(&all.by_ref().take(PART).collect()));
        }
        parts
    }

    /// Takes over what another process may not have written to the file, and reads what it has written to it.
    ///
    /// # Errors
    /// What is wrong with the entries.
    pub fn take_over_unwritten(&self, text: &str) -> Result<(), String> {
        let mut sources = Sources::default();
        let entries = form::parse("the revocations of the process before", text, &mut sources)
            .map_err(|mistakes| sources.render(&mistakes, false))?;
        if let Some(turn) = self.turn.take(self.patience) {
            self.catch_up(&turn);
        }
        let mut kept = self.kept();
        let mut list = List::clone(&self.in_force.list());
        list.extend(entries.clone());
        self.in_force.replace(list);
        let says = Arc::clone(&kept.says);
        let unwritten = entries
            .into_iter()
            .filter(|(revoked, terms)| says.get(revoked) != Some(terms));
        kept.pending.add(unwritten.collect());
        Ok(())
    }

    /// Adds entries to the list. They are in force from the next request on.
    ///
    /// # Errors
    /// See [`RevocationStoreError`].
    pub fn revoke(&self, entries: List) -> Result<(), RevocationStoreError> {
        {
            // The entries are in force before the write, because the file may be slow.
            let mut kept = self.kept();
            let mut list = List::clone(&self.in_force.list());
            list.extend(entries.clone());
            if list.len() > MOST {
                return Err(RevocationStoreError::TooMany);
            }
            if form::is_too_long(&list) {
                return Err(RevocationStoreError::TooLong);
            }
            self.in_force.replace(list);
            kept.pending.add(entries);
        }
        let turn = self.turn.take(self.patience).ok_or_else(busy)?;
        self.write(&turn, |in_force| Ok(List::clone(in_force)))
    }

    /// Removes an entry from the list.
    ///
    /// # Errors
    /// See [`RevocationStoreError`].
    pub fn restore(&self, revoked: &Revoked) -> Result<(), RevocationStoreError> {
        let turn = self.turn.take(self.patience).ok_or_else(busy)?;
        self.write(&turn, |in_force| {
            let mut list = List::clone(in_force);
            list.remove(revoked).ok_or(RevocationStoreError::Absent)?;
            Ok(list)
        })?;
        let mut kept = self.kept();
        kept.pending.remove(revoked);
        // The list may have changed during the write.
        let mut list = List::clone(&self.in_force.list());
        list.remove(revoked);
        self.in_force.replace(list);
        Ok(())
    }

    /// Removes entries that ended long ago; the file loses them at the next write. Must be called about once a second.
    pub fn forget_ended(&self, now: Now) {
        let mut kept = self.kept();
        let list = self.in_force.list();
        let over = kept.learnt.long_over(&list, now);
        if !over.is_empty() {
            let mut list = List::clone(&list);
            for revoked in &over {
                list.remove(revoked);
                kept.pending.remove(revoked);
            }
            self.in_force.replace(list);
        }
    }

    pub fn status(&self) -> RevocationStoreStatus {
        let kept = self.kept();
        RevocationStoreStatus {
            file: kept.path.clone(),
            error: kept.error.clone(),
            unwritten: kept.pending.len(),
            write_error: kept.write_error.clone(),
        }
    }

    /// Reads the current version of the file before a change. A file that is being written is read once it is stable.
    fn catch_up(&self, turn: &HeldTurn<'_>) {
        let Some(path) = self.kept().path.clone() else { return };
        loop {
            let found = Stamp::of(&path);
            let look = {
                let mut kept = self.kept();
                let version = kept.version;
                kept.watch.look(version, found, clock::now())
            };
            match look {
                Look::Same => return,
                Look::Due => return self.read(turn),
                Look::Settling => thread::sleep(LOOK),
            }
        }
    }

    fn read(&self, _: &HeldTurn<'_>) {
        let Some(path) = self.kept().path.clone() else { return };
        let version = Stamp::of(&path);
        let mut sources = Sources::default();
        let loaded = form::load(&path, &mut sources);
        let mut kept = self.kept();
        if kept.path.as_ref() != Some(&path) {
            // Another plan has set another file meanwhile.
            return;
        }
        kept.version = version;
        kept.watch = FileWatch::default();
        match loaded {
            Ok(list) => {
                kept.error = None;
                self.replace(&mut kept, list);
            }
            Err(mistakes) => {
                let error = sources.render(&mistakes, false);
                tracing::error!("revocations not read, those in force stay:\n{error}");
                kept.error = Some(Failure {
                    at: clock::unix_seconds(),
                    error,
                });
            }
        }
    }

    /// Writes the list that `wanted` makes from the list in force, if the file still is the version that was read.
    fn write(
        &self,
        turn: &HeldTurn<'_>,
        wanted: impl Fn(&List) -> Result<List, RevocationStoreError>,
    ) -> Result<(), RevocationStoreError> {
        for _ in 0..TRIES {
            // A series of changes would leave `follow` no turn to check for late writes, so they are checked here too.
            self.hear_late(turn, clock::now());
            self.catch_up(turn);
            let (path, version, error, says) = {
                let kept = self.kept();
                (
                    kept.path.clone(),
                    kept.version,
                    kept.error.clone(),
                    Arc::clone(&kept.says),
                )
            };
            let list = wanted(&self.in_force.list())?;
            let Some(path) = path else { return Ok(()) };
            if let Some(Failure { error, .. }) = error {
                // A write would destroy the change that could not be read.
                return Err(RevocationStoreError::NotWritten(error));
            }
            let written = match version {
                _ if list.len() > MOST => Err(format!("there are more than {MOST} revocations with those of the file")),
                _ if form::is_too_long(&list) => {
                    Err("it would be too long with the revocations of the file".to_owned())
                }
                None => Err("there is no such file".to_owned()),
                Some(version) => {
                    let old = files::read(&path).ok().filter(|content| content.stamp == version);
                    let old = old.and_then(|content| String::from_utf8(content.bytes).ok());
                    let text = old.and_then(|old| form::edited(&old, &says, &list));
                    let text = text.unwrap_or_else(|| form::text(&list));
                    files::replace_version(&path, version, text.as_bytes(), self.patience)
                        .map_err(|error| error.to_string())
                }
            };
            match written {
                Ok(Replaced::Done { version, last }) => return self.note_written(&path, list, version, last),
                Ok(Replaced::Changed) => {}
                Err(why) => return Err(self.has_failed(format!("cannot write {}: {why}", path.display()))),
            }
        }
        Err(self.has_failed("somebody else writes the file all the time".to_owned()))
    }

    fn note_written(
        &self,
        path: &Path,
        list: List,
        version: Stamp,
        last: LastVersion,
    ) -> Result<(), RevocationStoreError> {
        let (mut kept, now) = (self.kept(), clock::now());
        kept.changes += 1;
        if kept.path.as_deref() != Some(path) {
            // Another plan has set another file, and the list must be written there.
            return Err(busy());
        }
        if kept.write_error.take().is_some() {
            tracing::info!(entries = list.len(), "revocations are written again");
        }
        kept.pending.written(&list, now);
        kept.version = Some(version);
        let said = std::mem::replace(&mut kept.says, Arc::new(list));
        kept.watch_late(last, said, now);
        Ok(())
    }

    fn has_failed(&self, error: String) -> RevocationStoreError {
        let mut kept = self.kept();
        kept.pending.failed(clock::now());
        if kept.pending.failures() == 1 {
            tracing::error!(%error, "revocations are not written: a restart would forget the newest; tried again");
        }
        kept.write_error = Some(Failure {
            at: clock::unix_seconds(),
            error: error.clone(),
        });
        RevocationStoreError::NotWritten(error)
    }

    /// Takes over what another process has written to a replaced version, during its replacement or after it.
    fn hear_late(&self, _: &HeldTurn<'_>, now: Moment) {
        let mut all = std::mem::take(&mut self.kept().replaced);
        all.retain_mut(|one| {
            let late = match one.version.written_since() {
                Ok(Some(content)) => {
                    one.late = Some(content.bytes);
                    None
                }
                Ok(None) => one.late.take(),
                Err(error) => {
                    tracing::warn!(%error, "what was written to the file of revocations too late cannot be read");
                    return false;
                }
            };
            if let Some(late) = late {
                self.take_over(&mut self.kept(), &one.said, &late);
            }
            now.since(one.replaced) < LATE || one.late.is_some()
        });
        // Only one thread has a turn, so the field is still empty.
        self.kept().replaced = all;
    }

    /// Adds the entries of `late` that are not in `said`. Entries that are missing in `late` stay, to fail closed.
    fn take_over(&self, kept: &mut Kept, said: &List, late: &[u8]) {
        let mut sources = Sources::default();
        let text = String::from_utf8_lossy(late);
        match form::parse("the file of revocations as it was replaced", &text, &mut sources) {
            Ok(mut list) => {
                list.retain(|revoked, terms| said.get(revoked) != Some(terms));
                if !list.is_empty() {
                    tracing::warn!(
                        entries = list.len(),
                        "somebody was writing the file of revocations while it was replaced: what was added is taken over"
                    );
                    let mut all = List::clone(&self.in_force.list());
                    all.extend(list.clone());
                    self.in_force.replace(all);
                    kept.pending.add(list);
                }
            }
            Err(mistakes) => {
                let error = sources.render(&mistakes, false);
                tracing::warn!(
                    "what was written to the file of revocations while it was replaced is not used:\n{error}"
                );
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> RevocationStoreError {
    RevocationStoreError::NotWritten("whoever reads or writes the file has not finished".to_owned())
}

impl fmt::Display for RevocationStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are {MOST} revocations already"),
            Self::TooLong => f.write_str("the file of revocations would be too long"),
            Self::Absent => f.write_str("there is no such revocation"),
            Self::NotWritten(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RevocationStoreError {}

#[cfg(test)]
mod tests;
