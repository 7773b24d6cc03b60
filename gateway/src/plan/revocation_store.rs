//! The register of revocations: the list in force, and the file that keeps it over a restart.
//!
//! The file has the last word. It is read when a plan takes effect and whenever it changes; what the admin API adds is
//! in force at once and is then written to it. Failing closed: a file that cannot be read or has mistakes changes
//! nothing, and an entry that cannot be written holds all the same, and is written when it can be (`pending`).
//!
//! Others write the file as well, at any moment and in any way. So it is replaced only where it still is the version that
//! was read, what somebody is just writing is waited for, and what is written to a version after it was replaced is taken
//! over.
//!
//! Runs on the control thread and its helpers alone; workers see the list. The file system may take its time, or for
//! ever, so what is kept is never locked while the file is read or written: only `FileTurn` is held then, which nobody
//! waits for without a limit.

mod form;
mod pending;
mod turn;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use policies::Moment;

pub(super) use self::form::load;
use self::pending::Pending;
use self::turn::{FileTurn, HeldTurn};
use crate::auth::revocations::{List, MOST, Revocations, Revoked};
use crate::clock::{self, Now};
use crate::config::Sources;
use crate::files::watch::{FileWatch, Look};
use crate::files::{self, LastVersion, Replaced, Stamp};
use crate::plan::long_over::Learnt;

/// How long a change waits for another that reads or writes the file.
const TURN: Duration = Duration::from_secs(5);
/// Between two looks at a file that somebody else is writing, while a change waits for it to rest.
const LOOK: Duration = Duration::from_millis(100);
/// How often a change begins anew because somebody else has changed the file in between.
const TRIES: u32 = 5;
/// For so long somebody who had the version open that was replaced may still write to it.
const LATE: Duration = Duration::from_secs(10);
/// Versions that are watched for that.
const MOST_LATE: usize = 64;

pub struct RevocationStore {
    in_force: Arc<Revocations>,
    kept: Mutex<Kept>,
    turn: FileTurn,
    /// How long a turn is waited for.
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
    /// The version of the file that was read or written last.
    version: Option<Stamp>,
    /// What it says.
    says: Arc<List>,
    watch: FileWatch,
    /// Why the newest version is not in force.
    error: Option<Failure>,
    /// Why it is not written, if it was to be.
    write_error: Option<Failure>,
    pending: Pending,
    /// The oldest first.
    replaced: VecDeque<ReplacedVersion>,
    /// Counts what has been read and written.
    changes: u64,
    learnt: Learnt,
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

/// A version that was replaced a short while ago.
struct ReplacedVersion {
    version: LastVersion,
    replaced: Moment,
    said: Arc<List>,
    /// Found written to it, and not looked at before it has stayed the same from one look to the next.
    late: Option<Vec<u8>>,
}

/// The file as a plan has found it.
pub struct RevocationFile {
    pub path: PathBuf,
    pub version: Option<Stamp>,
    pub list: List,
    /// What [`RevocationStore::changes`] said before it was read; `None` if it was taken as an earlier plan had read it.
    pub changes: Option<u64>,
}

/// Why the file is not what is in force, and since when (seconds since 1970).
#[derive(Debug, Clone)]
pub struct Failure {
    pub at: u64,
    pub error: String,
}

/// For the admin API.
#[derive(Debug, Clone)]
pub struct RevocationStoreStatus {
    pub file: Option<PathBuf>,
    pub error: Option<Failure>,
    /// Entries that a restart would forget.
    pub unwritten: usize,
    /// Why they are not written; they are tried again.
    pub write_error: Option<Failure>,
}

/// Why a change was not made, or not made for good.
#[derive(Debug)]
pub enum RevocationStoreError {
    /// The list is as long as it may be; nothing has changed.
    TooMany,
    /// The file of the list would be longer than what is read of one; nothing has changed.
    TooLong,
    /// There is no such entry.
    Absent,
    /// New entries are in force, and will be written when the file can be; nothing is taken out.
    NotWritten(String),
}

impl RevocationStore {
    /// The list that callers are held against.
    pub fn in_force(&self) -> Arc<Revocations> {
        Arc::clone(&self.in_force)
    }

    /// From now on the list is kept in this file, if in any, and is what the file says. Reads nothing.
    pub fn keep_in(&self, file: Option<&RevocationFile>) {
        let mut kept = self.kept();
        let path = file.map(|file| &file.path);
        // What the file said before it was read or written the last time is out of date.
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

    /// Changes whenever the file has been read or written.
    pub fn changes(&self) -> u64 {
        self.kept().changes
    }

    /// The file says this now.
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

    /// Looks whether the file has changed, and writes what could not be written before.
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
            // Whoever waits for it is told by the status.
            let _ = self.write(&turn, |in_force| Ok(List::clone(in_force)));
        }
    }

    /// Tries once more to write what could not be written; for a good end.
    pub fn write_out(&self) {
        if self.kept().pending.len() > 0
            && let Some(turn) = self.turn.take(self.patience)
        {
            let _ = self.write(&turn, |in_force| Ok(List::clone(in_force)));
        }
    }

    /// Takes back what the entries name, from the next request on.
    ///
    /// # Errors
    /// See [`RevocationStoreError`].
    pub fn revoke(&self, entries: List) -> Result<(), RevocationStoreError> {
        {
            // In force before anything else: the file may take its time.
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

    /// Lets through again what an entry named.
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
        // Others may have come or ended since.
        let mut list = List::clone(&self.in_force.list());
        list.remove(revoked);
        self.in_force.replace(list);
        Ok(())
    }

    /// Takes entries out that are long over; the file loses them when it is written next. To be called
    /// every second or so.
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

    /// Whoever changes the list begins with what the file says now. What somebody else is just writing is not taken for
    /// the whole before it rests.
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
            // It is kept elsewhere since.
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

    /// Writes what `wanted` makes of the list in force to the file, over the version that was read and no other.
    fn write(
        &self,
        turn: &HeldTurn<'_>,
        wanted: impl Fn(&List) -> Result<List, RevocationStoreError>,
    ) -> Result<(), RevocationStoreError> {
        for _ in 0..TRIES {
            // Many changes, one after another, leave no turn to whoever looks now and then.
            self.hear_late(turn, clock::now());
            self.catch_up(turn);
            let (path, version, error) = {
                let kept = self.kept();
                (kept.path.clone(), kept.version, kept.error.clone())
            };
            let list = wanted(&self.in_force.list())?;
            let Some(path) = path else { return Ok(()) };
            if let Some(Failure { error, .. }) = error {
                // Written over, it would lose what somebody was about to say.
                return Err(RevocationStoreError::NotWritten(error));
            }
            let written = match version {
                _ if list.len() > MOST => Err(format!("there are more than {MOST} revocations with those of the file")),
                _ if form::is_too_long(&list) => {
                    Err("it would be too long with the revocations of the file".to_owned())
                }
                None => Err("there is no such file".to_owned()),
                Some(version) => files::replace_version(&path, version, form::text(&list).as_bytes(), self.patience)
                    .map_err(|error| error.to_string()),
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
            // It is kept elsewhere since, and has to be written there.
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

    /// Takes over what somebody has written to a version that was replaced under their hands, or just before.
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
        // Nobody else has a turn, so none has come meanwhile.
        self.kept().replaced = all;
    }

    /// Adds what `late` has that was not `said` before. What it has no more stays: failing closed.
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
