//! The files of keys and tenants that the admin API rewrites: whose turn it is, and what was written last.
//!
//! A change holds the turn from the read of the file until it is in force, and a reload holds it from the read of the
//! config until its plan is in force. So neither undoes the other. A reload that gets no turn in time goes on without
//! one, because an unreachable file must not stop it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file_turn::{FileTurn, HeldTurn};
use crate::files::{FileSet, FileVersion, Stamp};
use crate::tenancy::directory::TenantDirectory;

/// State of the files that the admin API rewrites.
#[derive(Default)]
pub struct ManagedFiles {
    turn: FileTurn,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Versions that this process has written since the plan in force was made.
    written: FileSet,
    tenants: Option<TenantsRead>,
    /// Values that this process has announced to other replicas, by name.
    announced: BTreeMap<Box<str>, Box<str>>,
    /// Names of the entries that a file has otherwise than the last change by the admin API.
    conflicts: Arc<[Box<str>]>,
}

/// Largest number of announced values that are remembered.
const MOST_ANNOUNCED: usize = 10_000;

/// The file of tenants as it was read last.
#[derive(Clone)]
pub struct TenantsRead {
    pub path: PathBuf,
    pub stamp: Option<Stamp>,
    pub directory: Arc<TenantDirectory>,
}

/// The turn to read or write the files; it ends when this is dropped.
#[must_use = "the turn ends when this is dropped"]
pub struct Turn<'a>(#[expect(dead_code, reason = "held until it is dropped")] HeldTurn<'a>);

impl ManagedFiles {
    /// Waits for the turn; `None` if another still has it after `limit`.
    pub fn turn(&self, limit: Duration) -> Option<Turn<'_>> {
        self.turn.take(limit).map(Turn)
    }

    /// Returns the version of a file that counts: the one that this process has written, or else `read`.
    pub fn version(&self, path: &Path, read: Option<Stamp>) -> Option<Stamp> {
        self.kept().written.get(path).map_or(read, |written| written.stamp)
    }

    /// Notes a version that this process has written and put in force.
    pub fn note_written(&self, path: &Path, stamp: Stamp, bytes: Arc<[u8]>) {
        let mut kept = self.kept();
        if let Some(tenants) = kept.tenants.as_mut().filter(|tenants| tenants.path == path) {
            tenants.stamp = Some(stamp);
        }
        let stamp = Some(stamp);
        kept.written.insert(path.to_owned(), FileVersion { stamp, bytes });
    }

    /// Returns the versions that this process has written.
    pub fn written(&self) -> BTreeMap<PathBuf, FileVersion> {
        self.kept().written.clone()
    }

    /// Notes that a plan is in force that was made from newer versions, or from those that were written.
    pub fn take_effect(&self, tenants: Option<TenantsRead>) {
        let mut kept = self.kept();
        kept.written.clear();
        kept.tenants = tenants;
    }

    /// Returns the tenants that were read from a file before, if it is still the file in force.
    pub fn tenants(&self, path: &Path) -> Option<TenantsRead> {
        self.kept().tenants.clone().filter(|read| read.path == path)
    }

    /// Remembers a value that is announced to other replicas.
    pub fn announced(&self, name: &str, value: &str) {
        let announced = &mut self.kept().announced;
        if announced.len() < MOST_ANNOUNCED || announced.contains_key(name) {
            announced.insert(name.into(), value.into());
        }
    }

    /// Returns the value that was announced last and was not overtaken.
    pub fn last_announced(&self, name: &str) -> Option<Box<str>> {
        self.kept().announced.get(name).cloned()
    }

    /// Returns whether another value than the one that was announced here is in force everywhere, and forgets the latter.
    pub fn is_overtaken(&self, name: &str, value: &str) -> bool {
        let announced = self.kept().announced.remove(name);
        announced.is_some_and(|announced| *announced != *value)
    }

    /// Notes the entries that a file has otherwise than the last change by the admin API, which all replicas have.
    pub fn note_conflicts(&self, names: Arc<[Box<str>]>) {
        self.kept().conflicts = names;
    }

    pub fn conflicts(&self) -> Arc<[Box<str>]> {
        Arc::clone(&self.kept().conflicts)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
