//! Keeps the usage of a process in a file of its own, so that a process that is killed loses at most a second.
//!
//! Each process writes one file, named by its epoch, in a folder that it may share with others, and holds a lock on it.
//! A file whose lock is free belongs to a process that has ended: the next one that looks reads it, writes its own file
//! anew with what it has read, and deletes it. The new file names what it has taken over, so a crash between these steps
//! counts nothing twice. So a process that takes over from another one needs nothing but the folder.
//!
//! A file is lines of text. Each second one block of lines is added, which ends in a checksum; a block that is cut or
//! damaged is left out, with all that follow it. When the blocks are several times as long as what they say, the file
//! is written anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::counts::Counts;
use super::ledger::{Entry, Gap, Record};
use super::names::Names;
use super::query::By;
use crate::{files, json};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 30;
/// A file is not written anew before it has grown by so many bytes.
const LEAST_GROWTH: u64 = 1 << 20;
/// Longest header and longest names of a series, in bytes.
const MAX_LINE: usize = 1 << 20;
/// Maximum number of files that are remembered as unreadable.
const MOST_UNREADABLE: usize = 100;
const ENDING: &str = "usage";

/// First line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    epoch: String,
    /// Epochs of the files that this one has taken over.
    taken_over: Vec<String>,
}

const VERSION: u32 = 1;

/// The file that this process writes.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    epoch: Arc<str>,
    /// Open for appending; `None` after a failure, until the file is written anew.
    file: Option<File>,
    series: HashMap<Arc<Names>, u64>,
    /// Length of the file when it was last written anew, and now.
    length: (u64, u64),
    taken_over: Vec<String>,
    /// Lock that is held as long as this process runs. It holds the time of the last write.
    lock: File,
    is_failing: bool,
    /// Files that cannot be read, which is told once.
    unreadable: Vec<PathBuf>,
}

/// File that a process left behind when it ended.
#[derive(Debug)]
pub struct Left {
    pub epoch: String,
    pub entries: Vec<Entry>,
    /// Time of its last write since 1970, unless it ended in order.
    pub killed_after: Option<Duration>,
    /// Number of bytes at the end that could not be read.
    pub damaged: usize,
    path: PathBuf,
    _lock: File,
}

impl Journal {
    /// Opens the folder for this process, which is known by `epoch`. A missing folder is made. Nothing is written yet.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn open(folder: &Path, epoch: Arc<str>) -> io::Result<Self> {
        if let Err(error) = fs::create_dir(folder)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let lock = files::lock(&lock_path(&path(folder, &epoch)))?;
        Ok(Self {
            folder: folder.to_owned(),
            epoch,
            file: None,
            series: HashMap::new(),
            length: (0, 0),
            taken_over: Vec::new(),
            lock,
            is_failing: false,
            unreadable: Vec::new(),
        })
    }

    /// Reads the files of processes that have ended. They stay until [`Journal::take_over`].
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn left_behind(&mut self) -> io::Result<Vec<Left>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let epoch = path
                .file_stem()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            if path.extension().is_none_or(|ending| ending != ENDING)
                || *epoch == *self.epoch
                || self.unreadable.contains(&path)
            {
                continue;
            }
            match read(&path, epoch) {
                Ok(Some(one)) => found.push(one),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "usage of an earlier process cannot be read");
                    if self.unreadable.len() < MOST_UNREADABLE {
                        self.unreadable.push(path);
                    }
                }
            }
        }
        // One that has taken over another was killed before it could delete that.
        let of_others = found.iter().flat_map(|(header, _)| header.taken_over.iter().cloned());
        let taken_over: Vec<_> = of_others.chain(self.taken_over.iter().cloned()).collect();
        let (gone, mut left): (Vec<_>, Vec<_>) = found
            .into_iter()
            .map(|(_, left)| left)
            .partition(|left| taken_over.contains(&left.epoch));
        self.delete(gone);
        left.sort_by(|one, other| one.epoch.cmp(&other.epoch));
        Ok(left)
    }

    /// Deletes what was left behind, after it was taken over into the ledger, of which `snapshot` is made.
    ///
    /// # Errors
    /// If the own file cannot be written. Then what was left behind stays.
    pub fn take_over(&mut self, left: &mut Vec<Left>, snapshot: &[Entry]) -> io::Result<()> {
        self.taken_over.extend(left.iter().map(|left| left.epoch.clone()));
        self.write_anew(snapshot)?;
        self.delete(left.drain(..));
        Ok(())
    }

    /// Deletes files that are taken over. One that cannot be deleted is named in the own file, so that nobody reads it
    /// again.
    fn delete(&mut self, gone: impl IntoIterator<Item = Left>) {
        for left in gone {
            let (epoch, path) = (left.epoch.clone(), left.path.clone());
            self.taken_over.retain(|known| *known != epoch);
            if !left.delete() {
                self.taken_over.push(epoch);
                self.unreadable.push(path);
            }
        }
    }

    /// Whether the file should be written anew, because it has grown or could not be written.
    pub const fn wants_snapshot(&self) -> bool {
        let (anew, now) = self.length;
        let grown = now - anew;
        self.file.is_none() || (grown > LEAST_GROWTH && grown > 3 * anew)
    }

    /// Writes the file anew, with `snapshot` as its content.
    ///
    /// # Errors
    /// If it cannot be written; it then stays as it is, and a snapshot is wanted.
    pub fn write_anew(&mut self, snapshot: &[Entry]) -> io::Result<()> {
        self.file = None;
        let header = Header {
            version: VERSION,
            epoch: self.epoch.to_string(),
            taken_over: self.taken_over.clone(),
        };
        let mut text = serde_json::to_string(&header)?;
        text.push('\n');
        let mut series = HashMap::new();
        for entry in snapshot {
            encode(entry, &mut series, &mut text);
        }
        seal(&mut text, 0);
        let path = path(&self.folder, &self.epoch);
        files::replace(&path, text.as_bytes(), files::Mode::Private)?;
        self.file = Some(files::append(&path)?);
        self.series = series;
        self.length = (text.len() as u64, text.len() as u64);
        Ok(())
    }

    /// Adds a block. An empty one is not written.
    ///
    /// # Errors
    /// If it cannot be written. A snapshot is wanted then.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("it has to be written anew"));
        };
        if !entries.is_empty() {
            let mut text = String::new();
            for entry in entries {
                encode(entry, &mut self.series, &mut text);
            }
            seal(&mut text, 0);
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            self.length.1 += text.len() as u64;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Notes that all that was counted until `now`, time since 1970, is written.
    ///
    /// # Errors
    /// If the lock cannot be written.
    pub fn written_until(&mut self, now: Duration) -> io::Result<()> {
        self.lock.seek(SeekFrom::Start(0))?;
        self.lock.write_all(format!("{:020}\n", now.as_millis()).as_bytes())
    }

    /// Marks the file as complete: the process ends in order.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn end(&mut self) -> io::Result<()> {
        self.lock.seek(SeekFrom::Start(0))?;
        self.lock.write_all(format!("{ENDED:<20}\n").as_bytes())
    }

    /// Logs a failure when it begins and when it is over, not each time.
    pub fn tell(&mut self, result: io::Result<()>) {
        match (&result, self.is_failing) {
            (Err(error), false) => tracing::error!(
                folder = %self.folder.display(), %error,
                "usage cannot be written: a restart would forget what is counted from now on"
            ),
            (Ok(()), true) => tracing::info!("usage is written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.is_failing = result.is_err();
    }
}

/// Content of the lock of a process that has ended in order.
const ENDED: &str = "ended";

impl Left {
    /// Returns false if the file stays.
    fn delete(self) -> bool {
        // The lock goes last, so that nobody can take the name before the file is gone.
        for path in [&self.path, &lock_path(&self.path)] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(file = %path.display(), %error, "usage that was taken over cannot be deleted");
                return false;
            }
        }
        true
    }
}

fn path(folder: &Path, epoch: &str) -> PathBuf {
    folder.join(format!("{epoch}.{ENDING}"))
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Reads the file of another process; `None` if that process runs.
fn read(path: &Path, epoch: String) -> io::Result<Option<(Header, Left)>> {
    let lock = match files::lock(&lock_path(path)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = match files::read_own(path, LARGEST) {
        Ok(found) => found.bytes,
        // It was deleted meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let state = files::read_own(&lock_path(path), 100)
        .map(|found| found.bytes)
        .unwrap_or_default();
    let state = String::from_utf8_lossy(&state);
    let killed_after = match state.trim() {
        ENDED => None,
        millis => Some(Duration::from_millis(millis.parse().unwrap_or(0))),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (header, rest) = bytes.split_at(end);
    let header: Header = json::typed(header, MAX_LINE).map_err(|_| io::Error::other("it is no usage file"))?;
    if header.version != VERSION {
        return Err(io::Error::other(format!("its version is {}", header.version)));
    }
    let (entries, damaged) = decode(rest.get(1..).unwrap_or_default(), end + 1, &bytes);
    let left = Left {
        epoch,
        entries,
        killed_after,
        damaged,
        path: path.to_owned(),
        _lock: lock,
    };
    Ok(Some((header, left)))
}

/// Writes an entry as one line, and before it the names of its series if they are new.
fn encode(entry: &Entry, series: &mut HashMap<Arc<Names>, u64>, out: &mut String) {
    let mut number = |names: &Arc<Names>, out: &mut String| {
        let next = series.len() as u64;
        *series.entry(Arc::clone(names)).or_insert_with(|| {
            let text = serde_json::to_string(&(&names.tenant, &names.route, &names.key, names.is_other));
            let _ = writeln!(out, "S {next} {}", text.expect("strings are JSON"));
            next
        })
    };
    let _ = match entry {
        Entry::Epoch(epoch) => writeln!(out, "E {epoch}"),
        Entry::Minute(minute) => writeln!(out, "M {minute}"),
        Entry::Used(names, counts) => {
            let number = number(names, out);
            writeln!(out, "U {number} {counts}")
        }
        Entry::Sum(by, period, names, counts) => {
            let number = number(names, out);
            writeln!(out, "P {} {period} {number} {counts}", by.as_str())
        }
        Entry::Open(names, counts) => {
            let number = number(names, out);
            writeln!(out, "O {number} {counts}")
        }
        Entry::Waiting(Record {
            epoch,
            minute,
            names,
            counts,
        }) => {
            let number = number(names, out);
            writeln!(out, "W {epoch} {minute} {number} {counts}")
        }
        Entry::Delivered(epoch, minute, names) => {
            let number = number(names, out);
            writeln!(out, "D {epoch} {minute} {number}")
        }
        Entry::Dropped(count) => writeln!(out, "X {count}"),
        Entry::Gap(Gap { from, to }) => writeln!(out, "G {} {}", from.as_millis(), to.as_millis()),
    };
}

/// Ends the block that begins at `from` with its checksum.
fn seal(text: &mut String, from: usize) {
    let sum = checksum(&text.as_bytes()[from..]);
    let _ = writeln!(text, "C {sum:016x}");
}

fn checksum(bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(0x7573_6167_6530_3031, 0).hash(bytes)
}

/// Returns the entries of all blocks that are whole, and the number of bytes that are left over. `from` is the place of
/// the first line in `bytes`; the header belongs to the first block.
fn decode(lines: &[u8], from: usize, bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut all, mut block, mut series) = (Vec::new(), Vec::new(), HashMap::new());
    let (mut start, mut at) = (0, from);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix('\n'));
        let Some(text) = text else { break };
        if let Some(sum) = text.strip_prefix("C ") {
            if u64::from_str_radix(sum, 16).ok() != Some(checksum(&bytes[start..at])) {
                break;
            }
            all.append(&mut block);
            start = at + line.len();
        } else if let Some(read) = decode_line(text, &mut series) {
            block.extend(read);
        } else {
            break;
        }
        at += line.len();
    }
    (all, bytes.len() - start)
}

/// Reads one line; `Some(None)` if it only names a series.
#[expect(clippy::option_option, reason = "a line can be good and say nothing of its own")]
fn decode_line(line: &str, series: &mut HashMap<u64, Arc<Names>>) -> Option<Option<Entry>> {
    let (kind, rest) = line.split_once(' ')?;
    let mut words = rest.split(' ');
    let mut word = || words.next();
    let entry = match kind {
        "S" => {
            let (number, names) = rest.split_once(' ')?;
            let (tenant, route, key, is_other) = json::typed(names.as_bytes(), MAX_LINE).ok()?;
            let names = Names {
                tenant,
                route,
                key,
                is_other,
            };
            series.insert(number.parse().ok()?, Arc::new(names));
            return Some(None);
        }
        "E" => Entry::Epoch(rest.into()),
        "M" => Entry::Minute(rest.parse().ok()?),
        "U" | "O" => {
            let (number, counts) = rest.split_once(' ')?;
            let names = Arc::clone(series.get(&number.parse().ok()?)?);
            let counts = Counts::parse(counts)?;
            match kind {
                "U" => Entry::Used(names, counts),
                _ => Entry::Open(names, counts),
            }
        }
        "P" => {
            let (by, period, names) = (
                By::parse(word()?)?,
                word()?.parse().ok()?,
                series.get(&word()?.parse().ok()?)?,
            );
            Entry::Sum(by, period, Arc::clone(names), Counts::parse(&rest_of(rest, 3)?)?)
        }
        "W" => {
            let (epoch, minute, names) = (
                word()?.into(),
                word()?.parse().ok()?,
                series.get(&word()?.parse().ok()?)?,
            );
            Entry::Waiting(Record {
                epoch,
                minute,
                names: Arc::clone(names),
                counts: Counts::parse(&rest_of(rest, 3)?)?,
            })
        }
        "D" => {
            let (epoch, minute, names) = (
                word()?.into(),
                word()?.parse().ok()?,
                series.get(&word()?.parse().ok()?)?,
            );
            Entry::Delivered(epoch, minute, Arc::clone(names))
        }
        "X" => Entry::Dropped(rest.parse().ok()?),
        "G" => {
            let millis = |text: &str| text.parse().ok().map(Duration::from_millis);
            Entry::Gap(Gap {
                from: millis(word()?)?,
                to: millis(word()?)?,
            })
        }
        _ => return None,
    };
    Some(Some(entry))
}

/// Returns what follows the first `words` words.
fn rest_of(text: &str, words: usize) -> Option<String> {
    let mut left = text;
    for _ in 0..words {
        left = left.split_once(' ')?.1;
    }
    Some(left.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tenant: &str) -> Arc<Names> {
        Arc::new(Names {
            tenant: Some(tenant.into()),
            route: Some("users".into()),
            ..Names::default()
        })
    }

    fn used(tenant: &str, requests: u64) -> Entry {
        let counts = Counts {
            requests,
            ..Counts::default()
        };
        Entry::Used(names(tenant), counts)
    }

    fn journal(folder: &Path, epoch: &str) -> Journal {
        let mut journal = Journal::open(folder, epoch.into()).unwrap();
        journal
            .write_anew(&[Entry::Epoch(epoch.into()), Entry::Minute(60)])
            .unwrap();
        journal
    }

    fn requests(left: &[Left]) -> u64 {
        let entries = left.iter().flat_map(|left| &left.entries);
        let counts = entries.filter_map(|entry| match entry {
            Entry::Used(_, counts) => Some(counts.requests),
            _ => None,
        });
        counts.sum()
    }

    #[test]
    fn each_entry_is_read_back() {
        let counts = Counts {
            requests: 7,
            cost: 9,
            ..Counts::default()
        };
        let all = [
            Entry::Epoch("e.1".into()),
            Entry::Minute(99),
            Entry::Used(names("a b\n\u{e9}\""), counts.clone()),
            Entry::Sum(By::Hour, 12, names("a"), counts.clone()),
            Entry::Open(Arc::new(Names::other(None)), counts.clone()),
            Entry::Waiting(Record {
                epoch: "e".into(),
                minute: 98,
                names: Arc::default(),
                counts,
            }),
            Entry::Delivered("e".into(), 97, names("a")),
            Entry::Dropped(3),
            Entry::Gap(Gap {
                from: Duration::from_millis(1234),
                to: Duration::from_millis(5678),
            }),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut first = journal(folder.path(), "one");
        first.append(&all).unwrap();
        drop(first);
        let mut next = Journal::open(folder.path(), "two".into()).unwrap();
        let left = next.left_behind().unwrap();
        assert_eq!(left[0].entries[2..], all);
        assert_eq!(left[0].damaged, 0);
    }

    #[test]
    fn only_what_an_ended_process_left_is_read_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = journal(folder.path(), "one");
        first.append(&[used("a", 1)]).unwrap();
        first.written_until(Duration::from_secs(1000)).unwrap();
        let mut second = journal(folder.path(), "two");
        assert!(second.left_behind().unwrap().is_empty(), "it runs");
        first.append(&[used("a", 2)]).unwrap();
        drop(first);
        let mut left = second.left_behind().unwrap();
        assert_eq!(
            (requests(&left), left[0].killed_after),
            (3, Some(Duration::from_secs(1000)))
        );
        second.take_over(&mut left, &[used("a", 3)]).unwrap();
        assert!(second.left_behind().unwrap().is_empty());
        second.end().unwrap();
        drop(second);
        let left = journal(folder.path(), "three").left_behind().unwrap();
        assert_eq!((requests(&left), left[0].killed_after), (3, None), "it ended in order");
    }

    #[test]
    fn a_crash_between_taking_over_and_deleting_counts_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = journal(folder.path(), "one");
        first.append(&[used("a", 5)]).unwrap();
        drop(first);
        let copy = fs::read(folder.path().join("one.usage")).unwrap();
        let mut second = journal(folder.path(), "two");
        let mut left = second.left_behind().unwrap();
        second.take_over(&mut left, &[used("a", 5)]).unwrap();
        drop(second);
        fs::write(folder.path().join("one.usage"), copy).unwrap();
        let left = journal(folder.path(), "three").left_behind().unwrap();
        assert_eq!(requests(&left), 5);
        assert!(!folder.path().join("one.usage").exists());
    }

    #[test]
    fn a_file_that_was_cut_anywhere_keeps_its_whole_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = journal(folder.path(), "one");
        let file = folder.path().join("one.usage");
        let mut ends = Vec::new();
        for number in 0..4 {
            first.append(&[used(&number.to_string(), 1), used("all", 1)]).unwrap();
            ends.push(fs::metadata(&file).unwrap().len() as usize);
        }
        drop(first);
        let whole = fs::read(&file).unwrap();
        let begin = ends[0] - 60;
        for length in begin..=whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            let left = journal(folder.path(), "two").left_behind().unwrap();
            let blocks = ends.iter().filter(|end| **end <= length).count() as u64;
            assert_eq!(requests(&left), 2 * blocks, "{length}");
        }
        for place in (begin..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(&file, &damaged).unwrap();
            let left = journal(folder.path(), "two").left_behind().unwrap();
            let blocks = ends.iter().filter(|end| **end <= place).count() as u64;
            assert_eq!(requests(&left), 2 * blocks, "{place}");
            assert!(left[0].damaged > 0);
        }
    }

    #[test]
    fn a_file_that_has_grown_wants_to_be_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path(), "one");
        let block = vec![used("a", 1); 1000];
        let mut blocks = 0;
        while !journal.wants_snapshot() {
            journal.append(&block).unwrap();
            blocks += 1;
        }
        assert!((20..100).contains(&blocks), "{blocks}");
        journal.write_anew(&block).unwrap();
        assert!(!journal.wants_snapshot());
    }
}
