//! What calendar quotas have counted, kept in a file over a restart.
//!
//! Written whole to a second file that then takes the first one's place, so that a crash leaves the old counts or the
//! new ones and nothing between. Only one process may count in a file: two that share one would each forget what the
//! other has counted.
//!
//! A count is kept from the moment it is written: what a process counts after its last write, it takes with it when it
//! is killed. Whoever writes decides how much that can be.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policies::WallTime;
use policies::calendar::Saved;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::accounts::{Accounts, TermsByOwner};
use super::owner::Owner;
use crate::clock::Now;
use crate::files;

/// A file that this process alone counts in.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What was last written, so that nothing is written where nothing has changed.
    written: Vec<u8>,
    /// Held for as long as the process counts.
    _lock: File,
}

/// By limit, then by owner.
type Counts = BTreeMap<Arc<str>, BTreeMap<Box<str>, Count>>;

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    counts: Counts,
}

/// What one owner has used in its current period.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    /// When the period began, in seconds since 1970.
    since: u64,
    used: u64,
}

/// Of this file's format.
const VERSION: u32 = 1;

impl StateFile {
    /// Takes the file at `path` for this process and adds what it holds to `accounts`, as far as `limits` still names
    /// it and its period still goes on.
    ///
    /// # Errors
    /// If another process counts in the file, it cannot be read, or it is not one of ours: a count that is lost without
    /// a word is a quota sold twice.
    pub fn open(path: &Path, accounts: &Accounts, limits: &[(Arc<str>, TermsByOwner)], now: Now) -> io::Result<Self> {
        let lock = files::lock(&lock_path(path)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::other("another process counts in it"),
            kind => io::Error::new(kind, format!("its lock {}: {error}", lock_path(path).display())),
        })?;
        let written = match files::read_own(path) {
            Ok(found) => found.bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if !written.is_empty() {
            restore(read(&written)?, accounts, limits, now);
        }
        Ok(Self {
            path: path.to_owned(),
            written,
            _lock: lock,
        })
    }

    /// Writes what has been counted, if that is not what the file holds.
    ///
    /// # Errors
    /// If the file cannot be written; it is then as it was.
    pub fn write(&mut self, accounts: &Accounts) -> io::Result<()> {
        let document = Document {
            version: VERSION,
            counts: counted(accounts),
        };
        let text = serde_json::to_vec(&document)?;
        if text == self.written {
            return Ok(());
        }
        files::replace(&self.path, &text, files::Mode::Private)?;
        self.written = text;
        Ok(())
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

fn counted(accounts: &Accounts) -> Counts {
    let mut counts = Counts::new();
    accounts.each(|limit, account| {
        if let Account::Calendar(meter, _) = account {
            let Saved { since, used } = meter.usage.saved();
            if used > 0 {
                let since = since.elapsed().as_secs();
                let of_limit = counts.entry(Arc::clone(limit)).or_default();
                of_limit.insert(meter.owner.clone(), Count { since, used });
            }
        }
    });
    counts
}

fn read(text: &[u8]) -> io::Result<Counts> {
    let document: Document = serde_json::from_slice(text)?;
    if document.version == VERSION {
        Ok(document.counts)
    } else {
        let found = document.version;
        Err(io::Error::other(format!(
            "it has version {found}, and only version {VERSION} is known"
        )))
    }
}

fn restore(counts: Counts, accounts: &Accounts, limits: &[(Arc<str>, TermsByOwner)], now: Now) {
    for (limit, by_owner) in counts {
        let Some((_, terms)) = limits.iter().find(|(name, _)| *name == limit) else {
            tracing::warn!(%limit, "no limit has this name now: what was counted for it is forgotten");
            continue;
        };
        let table = accounts.table(&limit, terms);
        for (name, Count { since, used }) in by_owner {
            let Some(owner) = Owner::parse(&name) else {
                tracing::warn!(%limit, owner = %name, "not an owner: what was counted for it is forgotten");
                continue;
            };
            if let Account::Calendar(meter, quota) = table.account(owner, terms.of(owner.key()), true) {
                let since = WallTime::since_epoch(Duration::from_secs(since));
                meter.usage.restore(&quota, now.wall, Saved { since, used });
            }
        }
    }
}
