//! Keeps the counts of calendar quotas in a file over a restart.
//!
//! Invariant: the file is replaced as a whole, so that a crash leaves the old counts or the new ones. Only one process
//! may count in a file, because two would each overwrite the counts of the other.
//!
//! The file is never longer than the limit at which it is read back. If there are more owners than fit, those who have
//! used the most are kept.
//!
//! A process that is killed loses what it has counted since the last write. The caller decides how often to write.
//!
//! If a period begins in the future or is over, the clock may be wrong now or may have been wrong at the write. Counts
//! of a future period are carried into the current period, with a warning. Counts of a past period are kept apart
//! ([`LeftCounts`](crate::limits::store::local::set_aside::LeftCounts)).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policies::WallTime;
use policies::calendar::{LeftPeriods, Saved};
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::files;
use crate::json;
use crate::limits::kinds::Terms;
use crate::limits::owner::OwnerName;
use crate::limits::owner_class::OwnerClass;
use crate::limits::store::local::Accounts;
use crate::limits::store::{Opened, Origin, TermsByOwner};
use crate::observe::timestamp::Timestamp;

/// The state file, which only this process counts in.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// The last written content; a write with the same content is skipped.
    written: Vec<u8>,
    /// Longest content that is written, in bytes.
    most: usize,
    /// Number of owners that the last write had no room for.
    left_out: usize,
    /// Whether the last write failed.
    is_failing: bool,
    /// Whether another process counts in the file, or is about to.
    is_handed_over: bool,
    /// Lock that is held for as long as the process counts.
    lock: File,
}

/// Values by limit, then by owner.
type ByOwner<T> = BTreeMap<Arc<str>, BTreeMap<Box<str>, T>>;

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    counts: ByOwner<Count>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    set_aside: ByOwner<Left>,
}

/// The use of one owner in its current period.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    /// Beginning of the period, in seconds since 1970.
    since: u64,
    used: u64,
}

/// The use of one owner in periods that the clock has left by a jump.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    /// Beginning of the period that the last jump led to, in seconds since 1970.
    at: u64,
    periods: Vec<Count>,
}

/// Version of the file format.
const VERSION: u32 = 1;

/// Longest content of the file in bytes: room for the number of accounts that the config allows by default.
const MOST: usize = 64 << 20;

impl StateFile {
    /// Locks the file at `path` for this process and adds its counts to `accounts`. Counts of limits that `limits` does
    /// not name are dropped with a warning; counts of other periods are handled as described above.
    ///
    /// # Errors
    /// If another process counts in the file, or it cannot be read or parsed. Going on without the counts would sell a
    /// quota twice.
    pub fn open(path: &Path, accounts: &Accounts, limits: &[(Arc<str>, TermsByOwner)], now: Now) -> io::Result<Self> {
        let lock = exclusive(path)?;
        let written = match files::read_own(path, MOST as u64) {
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
            most: MOST,
            left_out: 0,
            is_failing: false,
            is_handed_over: false,
            lock,
        })
    }

    /// Goes on with the file of the process that this one replaces. The accounts hold its counts already, so the file is
    /// not read. `lock` is that of the other process; the file at `path` gets a lock of its own if it is another one.
    ///
    /// # Errors
    /// If a third process counts in the file at `path`.
    pub fn continue_from(path: &Path, lock: File) -> io::Result<Self> {
        let of_path = fs::symlink_metadata(lock_path(path));
        let found = lock.metadata()?;
        let is_same = of_path.is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()));
        Ok(Self {
            path: path.to_owned(),
            written: Vec::new(),
            most: MOST,
            left_out: 0,
            is_failing: false,
            is_handed_over: false,
            lock: if is_same { lock } else { exclusive(path)? },
        })
    }

    /// Returns another descriptor of the lock, for the process that takes over.
    ///
    /// # Errors
    /// If no more files may be open.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Stops writing because another process counts from now on, or begins again.
    pub const fn hand_over(&mut self, is_handed_over: bool) {
        self.is_handed_over = is_handed_over;
    }

    /// Writes the counts, unless the file holds the same.
    ///
    /// # Errors
    /// If the file cannot be written; its content then stays as before.
    pub fn write(&mut self, accounts: &Accounts) -> io::Result<()> {
        if self.is_handed_over {
            return Ok(());
        }
        let mut document = Document {
            version: VERSION,
            counts: counted(accounts),
            set_aside: set_aside(accounts),
        };
        let mut text = serde_json::to_vec(&document)?;
        let excess = text.len().saturating_sub(self.most);
        let left_out = if excess > 0 { document.leave_out(excess)? } else { 0 };
        if left_out > 0 {
            text = serde_json::to_vec(&document)?;
        }
        if left_out > 0 && self.left_out == 0 {
            let (owners, bytes) = (left_out, self.most);
            tracing::warn!(
                owners,
                bytes,
                "the state file would be too long: a restart will forget what those have used who have used the least"
            );
        }
        self.left_out = left_out;
        if text == self.written {
            return Ok(());
        }
        files::replace(&self.path, &text, files::Mode::Private)?;
        self.written = text;
        Ok(())
    }

    /// Writes the counts, and logs a failure when it begins and when it is over, not each time.
    pub fn write_and_tell(&mut self, accounts: &Accounts) {
        let result = self.write(accounts);
        match (&result, self.is_failing) {
            (Err(error), false) => tracing::error!(
                %error,
                "the state file cannot be written: a restart would forget what quotas count from now on"
            ),
            (Ok(()), true) => tracing::info!("the state file is written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.is_failing = result.is_err();
    }
}

/// Locks the file at `path` for this process.
fn exclusive(path: &Path) -> io::Result<File> {
    files::lock(&lock_path(path)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other("another process counts in it"),
        kind => io::Error::new(kind, format!("its lock {}: {error}", lock_path(path).display())),
    })
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

fn counted(accounts: &Accounts) -> ByOwner<Count> {
    let mut counts = ByOwner::new();
    accounts.each(|limit, account| {
        if let Some((count, _)) = account.as_calendar() {
            let saved = count.usage.saved();
            if saved.used > 0 {
                let of_limit: &mut BTreeMap<_, _> = counts.entry(Arc::clone(limit)).or_default();
                of_limit.insert(count.owner.clone(), Count::of(saved));
            }
        }
    });
    counts
}

fn set_aside(accounts: &Accounts) -> ByOwner<Left> {
    let mut all = ByOwner::new();
    accounts.set_aside.each(|limit, owner, left| {
        let (at, periods) = left.saved();
        let of_limit: &mut BTreeMap<_, _> = all.entry(Arc::clone(limit)).or_default();
        let left = Left {
            at: at.elapsed().as_secs(),
            periods: periods.iter().copied().map(Count::of).collect(),
        };
        of_limit.insert(owner.into(), left);
    });
    all
}

impl Document {
    /// Removes owners with the least use until the text is at least `excess` bytes shorter. Returns the number of
    /// removed owners.
    fn leave_out(&mut self, mut excess: usize) -> serde_json::Result<usize> {
        let mut entries = Vec::new();
        for (limit, owners) in &self.counts {
            for (owner, count) in owners {
                entries.push((
                    count.used,
                    written_length(owner, count)?,
                    Arc::clone(limit),
                    owner.clone(),
                    true,
                ));
            }
        }
        for (limit, owners) in &self.set_aside {
            for (owner, left) in owners {
                let used = left
                    .periods
                    .iter()
                    .fold(0, |used: u64, count| used.saturating_add(count.used));
                entries.push((
                    used,
                    written_length(owner, left)?,
                    Arc::clone(limit),
                    owner.clone(),
                    false,
                ));
            }
        }
        entries.sort_by_key(|(used, ..)| *used);
        let mut left_out = 0;
        for (_, length, limit, owner, is_count) in entries {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(length);
            left_out += 1;
            if is_count {
                self.counts.get_mut(&limit).and_then(|owners| owners.remove(&owner));
            } else {
                self.set_aside.get_mut(&limit).and_then(|owners| owners.remove(&owner));
            }
        }
        Ok(left_out)
    }
}

/// Returns the length in bytes of a member `"name":value`, without a comma.
fn written_length(name: &str, value: &impl Serialize) -> serde_json::Result<usize> {
    Ok(serde_json::to_vec(name)?.len() + 1 + serde_json::to_vec(value)?.len())
}

impl Count {
    fn of(Saved { since, used }: Saved) -> Self {
        let since = since.elapsed().as_secs();
        Self { since, used }
    }

    fn saved(self) -> Saved {
        let (since, used) = (at(self.since), self.used);
        Saved { since, used }
    }
}

fn at(unix: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_secs(unix))
}

fn read(text: &[u8]) -> io::Result<Document> {
    let document: Document = json::typed(text, text.len()).map_err(io::Error::other)?;
    if document.version == VERSION {
        Ok(document)
    } else {
        let found = document.version;
        Err(io::Error::other(format!(
            "it has version {found}, and only version {VERSION} is known"
        )))
    }
}

fn restore(document: Document, accounts: &Accounts, limits: &[(Arc<str>, TermsByOwner)], now: Now) {
    let Document {
        mut counts, set_aside, ..
    } = document;
    // An owner may have counts set aside and no current count.
    let mut all: ByOwner<(Option<Count>, Option<Left>)> = ByOwner::new();
    for (limit, owners) in set_aside {
        for (owner, left) in owners {
            let count = counts.get_mut(&limit).and_then(|owners| owners.remove(&owner));
            let of_limit = all.entry(Arc::clone(&limit)).or_default();
            of_limit.insert(owner, (count, Some(left)));
        }
    }
    for (limit, owners) in counts {
        let of_limit = all.entry(limit).or_default();
        of_limit.extend(owners.into_iter().map(|(owner, count)| (owner, (Some(count), None))));
    }
    for (limit, owners) in all {
        let Some((_, terms)) = limits.iter().find(|(name, _)| *name == limit) else {
            tracing::warn!(%limit, "no limit has this name now: what was counted for it is forgotten");
            continue;
        };
        let (mut ahead, mut latest) = (0_usize, 0);
        let (mut uncounted, mut without_room) = (0_usize, 0_usize);
        let mut owners: Vec<_> = owners.into_iter().collect();
        if owners.len() > accounts.rooms.most(OwnerClass::Restored) {
            // Owners that have used the most come first, because there may not be room for all.
            owners.sort_by_key(|(_, (count, _))| Reverse(count.map(|count| count.used)));
        }
        for (name, (count, left)) in owners {
            let read = OwnerName::read(&name);
            let Some(owner) = read.as_ref().and_then(OwnerName::owner) else {
                tracing::warn!(%limit, owner = %name, "not an owner: what was counted for it is forgotten");
                continue;
            };
            let Terms::Calendar(quota) = terms.of(owner.key()) else {
                uncounted += 1;
                continue;
            };
            let mut left = left.map_or_else(LeftPeriods::default, |left| {
                LeftPeriods::restore(at(left.at), left.periods.into_iter().map(Count::saved))
            });
            let counted = count.map(Count::saved).unwrap_or(Saved {
                since: left.saved().0,
                used: 0,
            });
            if counted.used > 0 && counted.is_ahead(now.wall) {
                ahead += 1;
                latest = latest.max(counted.since.elapsed().as_secs());
            }
            let again = left.jump(quota.every(), counted, counted.since, now.wall);
            if counted.used_at(quota.every(), now.wall) > 0 || again > 0 {
                let table = accounts.table(&limit, terms);
                match table.open(owner, Terms::Calendar(quota), Origin::Restored) {
                    Opened { is_shared: true, .. } => without_room += 1,
                    Opened { account, .. } => {
                        if let Some((count, quota)) = account.as_calendar() {
                            count.usage.restore(quota, now.wall, counted);
                            count.usage.charge(quota, now.wall, again);
                        }
                    }
                }
            }
            accounts.set_aside.restore(&limit, &name, left, now.moment);
        }
        if uncounted > 0 {
            let owners = uncounted;
            tracing::warn!(%limit, owners, "the limit is no quota now: what was counted for it is forgotten");
        }
        if without_room > 0 {
            let owners = without_room;
            tracing::warn!(%limit, owners, "more owners than can be remembered: what these have used is forgotten");
        }
        if ahead > 0 {
            tracing::warn!(
                %limit,
                owners = ahead,
                until = %Timestamp(Duration::from_secs(latest)),
                "the state file has counts of periods that begin in the future: they are carried into the period of now"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use policies::{CalendarQuota, Every, Moment};

    use super::*;
    use crate::limits::owner::Owner;

    /// Noon of 2026-11-24.
    const NOON: u64 = 1_795_521_600;
    /// Beginnings of months, in seconds since 1970: two of 2026, and one of 2094.
    const NOVEMBER: u64 = 1_793_491_200;
    const DECEMBER: u64 = 1_796_083_200;
    const AHEAD: u64 = 3_942_086_400;

    fn now(unix: u64) -> Now {
        Now {
            moment: Moment::ZERO + Duration::from_secs(3_600),
            wall: at(unix),
        }
    }

    /// A process that has opened a state file, and its limits.
    struct Process {
        accounts: Accounts,
        limits: [(Arc<str>, TermsByOwner); 1],
        file: StateFile,
    }

    impl Process {
        fn start(path: &Path, unix: u64) -> Self {
            let quota = CalendarQuota::new(100, Every::Month).unwrap();
            let limits = [("monthly".into(), TermsByOwner::for_all(Terms::Calendar(quota)))];
            let accounts = Accounts::new(10);
            let file = StateFile::open(path, &accounts, &limits, now(unix)).unwrap();
            Self { accounts, limits, file }
        }

        fn take(&self, cost: u64, unix: u64) {
            let [(name, terms)] = &self.limits;
            let table = self.accounts.table(name, terms);
            let account = table.account(Owner::Tenant("acme"), terms.usual, Origin::Request);
            account.take(now(unix), cost, Duration::ZERO).unwrap();
        }

        fn left(&self, unix: u64) -> u64 {
            let [(name, terms)] = &self.limits;
            let owner = Owner::Tenant("acme").key();
            self.accounts.table(name, terms).balance(owner, terms.usual, now(unix))
        }

        fn owners(&self) -> usize {
            let [(name, terms)] = &self.limits;
            self.accounts.table(name, terms).owners()
        }

        fn end(mut self) {
            self.file.write(&self.accounts).unwrap();
        }
    }

    fn written(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.json");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn counts(since: u64, used: u64) -> String {
        format!(r#"{{"version":1,"counts":{{"monthly":{{"tenant acme":{{"since":{since},"used":{used}}}}}}}}}"#)
    }

    #[test]
    fn a_count_is_of_the_period_of_now_or_carried_into_it_or_over() {
        let check = |since, used, expected, owners| {
            let (_folder, path) = written(&counts(since, used));
            let process = Process::start(&path, NOON);
            assert_eq!(
                (process.left(NOON), process.owners()),
                (expected, owners),
                "since {since}"
            );
            assert_eq!(process.left(DECEMBER), 100, "since {since}");
            process.end();
            assert_eq!(
                Process::start(&path, NOON).left(NOON),
                expected,
                "since {since}, once more"
            );
        };
        check(NOVEMBER, 90, 10, 1);
        check(NOVEMBER - 3_600, 90, 100, 0);
        check(0, 90, 100, 0);
        check(DECEMBER, 90, 10, 1);
        check(AHEAD, 90, 10, 1);
        check(u64::MAX, 90, 10, 1);
        check(AHEAD, u64::MAX, 0, 1);
    }

    #[test]
    fn a_process_that_begins_at_a_wrong_time_forgets_nothing() {
        for wrong in [0, NOON + 40 * 86_400, AHEAD] {
            let (_folder, path) = written(&counts(NOVEMBER, 60));
            for (unix, cost) in [(NOON, 1), (wrong, 2), (wrong, 4), (NOON, 8), (wrong, 0), (NOON, 0)] {
                let process = Process::start(&path, unix);
                process.take(cost, unix);
                process.end();
            }
            assert_eq!(
                Process::start(&path, NOON).left(NOON),
                100 - 60 - 1 - 2 - 4 - 8,
                "{wrong}"
            );
        }
    }

    /// Checks the config's default number of accounts, each for the longest name of an address.
    #[test]
    fn there_is_room_for_all_accounts() {
        let Document { counts, .. } = read(counts(NOVEMBER, 100_000).as_bytes()).unwrap();
        let count = counts["monthly"]["tenant acme"];
        let length = written_length("address 2001:db8:1234:5678::", &count).unwrap() + ",".len();
        assert!(1_000_000 * length <= MOST, "{length}");
    }

    #[test]
    fn what_others_have_made_long_is_still_read() {
        let (_folder, path) = written(&(counts(NOVEMBER, 60) + &" ".repeat(17 << 20)));
        assert_eq!(Process::start(&path, NOON).left(NOON), 40);
        let (_folder, path) = written(&" ".repeat(MOST + 1));
        let accounts = Accounts::new(1);
        let refused = StateFile::open(&path, &accounts, &[], now(NOON)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn the_file_never_outgrows_what_is_read_and_keeps_those_who_have_used_the_most() {
        for most in [0, 200, 300, 370, 400, 5_000] {
            let (_folder, path) = written(&counts(NOVEMBER, 90));
            let mut process = Process::start(&path, NOON);
            process.file.most = most;
            let [(name, terms)] = &process.limits;
            let table = process.accounts.table(name, terms);
            for (cost, tenant) in (1..).zip(["a\"b\\c", "d", "e", "f", "g", "h", "i"]) {
                let account = table.account(Owner::Tenant(tenant), terms.usual, Origin::Request);
                account.take(now(NOON), cost, Duration::ZERO).unwrap();
            }
            process.file.write(&process.accounts).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let kept: Vec<u64> = read(text.as_bytes()).unwrap().counts["monthly"]
                .values()
                .map(|count| count.used)
                .collect();
            // Without owners the document still has its fixed members.
            assert!(text.len() <= most.max(40), "{most}: {text}");
            let least_kept = kept.iter().min().copied().unwrap_or(u64::MAX);
            let all = (1..=7).chain([90]);
            assert_eq!(
                all.filter(|used| *used >= least_kept).count(),
                kept.len(),
                "{most}: {text}"
            );
            assert_eq!(kept.len() == 8, most >= 400, "{most}: {text}");
            process.end();
            Process::start(&path, NOON);
        }
    }

    #[test]
    fn nothing_is_set_aside_where_no_period_has_ended() {
        let (_folder, path) = written(&counts(NOVEMBER, 60));
        Process::start(&path, NOON).end();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), counts(NOVEMBER, 60));
    }

    #[test]
    fn what_is_no_state_file_is_refused() {
        for content in [
            "{",
            "[]",
            r#"{"version":2,"counts":{}}"#,
            &counts(1, 1).replace("since", "from"),
        ] {
            let (_folder, path) = written(content);
            let opened = StateFile::open(&path, &Accounts::new(1), &[], now(NOON));
            assert!(opened.is_err(), "{content}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
