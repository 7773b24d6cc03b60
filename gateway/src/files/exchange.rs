//! Replaces a file that another process may be writing at the same moment, so that neither version is lost.
//!
//! A rename is atomic, but it cannot depend on the current content of the target. So the new file and the old one
//! exchange names (`RENAME_EXCHANGE`), and the old one stays open. If it is not the expected version, or if a process
//! that has it open still writes to it, the caller learns this afterwards. The exchange is not undone, because other
//! processes may have read the new file already. Processes that use this function take turns by a lock on the folder
//! (`flock`).

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::read::{open, regular, whole};
use super::write::{create_beside, folder_of, is_beside};
use super::{FileContent, Stamp};

/// The result of a replacement.
#[derive(Debug)]
pub enum Replaced {
    /// The file is replaced and has this version.
    Done { version: Stamp, last: LastVersion },
    /// The file was no longer the expected version and is left as it is.
    Changed,
}

/// The replaced file: usually the expected version, or else one that came in between. It has no name any more, but a
/// process that has it open may still write to it.
#[derive(Debug)]
pub struct LastVersion {
    file: File,
    /// Stamp of the content that the caller knows.
    known: Stamp,
}

/// Age from which a new file beside the target was left over by a process that was killed.
const LEFT_OVER: Duration = Duration::from_secs(60);
/// Interval between tries to get the lock on the folder.
const PAUSE: Duration = Duration::from_millis(10);

/// Replaces a regular file if it is the expected version, and keeps its mode. Waits up to `patience` for another
/// process that holds the lock on its folder.
///
/// # Errors
/// Returns an error if the file cannot be written or is not regular. It is then unchanged.
pub fn replace_version(path: &Path, expected: Stamp, content: &[u8], patience: Duration) -> io::Result<Replaced> {
    replace_by(path, expected, patience, |file| file.write_all(content))
}

/// Replaces a part of a file as [`replace_version`] replaces the whole. The rest is copied by the system, which takes a
/// fraction of the time and no memory.
///
/// # Errors
/// As [`replace_version`].
pub fn splice_version(
    path: &Path,
    expected: Stamp,
    part: Range<u64>,
    content: &[u8],
    patience: Duration,
) -> io::Result<Replaced> {
    replace_by(path, expected, patience, |file| {
        let mut old = File::open(path)?;
        io::copy(&mut (&mut old).take(part.start), file)?;
        file.write_all(content)?;
        old.seek(SeekFrom::Start(part.end))?;
        io::copy(&mut old, file).map(drop)
    })
}

fn replace_by(
    path: &Path,
    expected: Stamp,
    patience: Duration,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<Replaced> {
    let _turn = turn(folder_of(path), patience)?;
    let found = fs::symlink_metadata(path)?;
    regular(found.file_type())?;
    if Stamp::from(&found) != expected {
        return Ok(Replaced::Changed);
    }
    remove_left_over(path, LEFT_OVER);
    let (mut file, name) = create_beside(path)?;
    let ours = TempFile(name);
    file.set_permissions(Permissions::from_mode(found.mode() & 0o777))?;
    write(&mut file)?;
    file.sync_all()?;
    trade(path, expected, &file, &ours)
}

/// Removes files that killed processes have left beside `path`: those that nothing has written to for `age`.
fn remove_left_over(path: &Path, age: Duration) {
    let Some(name) = path.file_name() else { return };
    let Ok(entries) = fs::read_dir(folder_of(path)) else {
        return;
    };
    for entry in entries.flatten() {
        let is_old = || {
            let modified = entry.metadata().and_then(|found| found.modified());
            modified.is_ok_and(|at| at.elapsed().is_ok_and(|since| since >= age))
        };
        if is_beside(&entry.file_name(), name) && is_old() {
            // Another process may be faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Locks the folder until the returned file is closed.
fn turn(folder: &Path, mut patience: Duration) -> io::Result<File> {
    let folder = File::open(folder)?;
    loop {
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) if !patience.is_zero() => {
                patience = patience.saturating_sub(PAUSE);
                thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process holds a lock on its folder"));
            }
            // The file system has no locks, so the work goes on without one.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(folder),
        }
    }
}

fn trade(path: &Path, known: Stamp, file: &File, ours: &TempFile) -> io::Result<Replaced> {
    let written = stamp(file)?;
    // Keeps the old file open for file systems without an exchange. A version that comes in between is then lost.
    let found = File::open(path)?;
    let last = match exchange(path, &ours.0) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::rename(&ours.0, path)?;
            found
        }
        traded => {
            traded?;
            open(&ours.0, OFlags::NOFOLLOW)?.0
        }
    };
    // Without this sync, the new name may be lost in a power failure.
    File::open(folder_of(path))?.sync_all()?;
    // The exchange itself changes the inode's time, which is expected. A changed content is a later write by another
    // process.
    let named = stamp(file)?;
    let version = if named.is_same_content(&written) {
        named
    } else {
        written
    };
    Ok(Replaced::Done {
        version,
        last: LastVersion { file: last, known },
    })
}

fn exchange(path: &Path, beside: &Path) -> Result<(), Errno> {
    renameat_with(CWD, beside, CWD, path, RenameFlags::EXCHANGE)
}

fn stamp(file: &File) -> io::Result<Stamp> {
    Ok(Stamp::from(&file.metadata()?))
}

/// A temporary file beside the target, or the old file after the exchange. Deleted when dropped.
struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        // No other code deletes it. After a plain rename it does not exist.
        let _ = fs::remove_file(&self.0);
    }
}

impl LastVersion {
    /// Returns the content if it is not known to the caller: written just before the replacement, or since then, or
    /// since the last call.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn written_since(&mut self) -> io::Result<Option<FileContent>> {
        let found = stamp(&self.file)?;
        if found.is_same_content(&self.known) {
            return Ok(None);
        }
        self.known = found;
        self.file.rewind()?;
        whole((self.file.try_clone()?, found)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn folder_with(content: &str) -> (tempfile::TempDir, PathBuf, Stamp) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let stamp = Stamp::of(&path).unwrap();
        (folder, path, stamp)
    }

    #[test]
    fn the_version_that_is_there_is_replaced_and_no_other() {
        let (folder, path, first) = folder_with("one");
        let Replaced::Done { version, .. } = replace_version(&path, first, b"two", LONG).unwrap() else {
            panic!("nobody else writes");
        };
        assert_eq!(
            (fs::read(&path).unwrap(), Stamp::of(&path)),
            (b"two".to_vec(), Some(version))
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let again = replace_version(&path, first, b"three", LONG).unwrap();
        assert!(matches!(again, Replaced::Changed), "{again:?}");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_part_is_replaced_and_the_rest_stays() {
        let (folder, path, first) = folder_with("one, two, three");
        let mut version = first;
        for (part, new, expected) in [
            (5..8, "2", "one, 2, three"),
            (0..3, "", ", 2, three"),
            (10..10, "!", ", 2, three!"),
            (0..11, "all", "all"),
        ] {
            let Replaced::Done { version: next, .. } =
                splice_version(&path, version, part, new.as_bytes(), LONG).unwrap()
            else {
                panic!("nobody else writes");
            };
            version = next;
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
        let again = splice_version(&path, first, 0..1, b"x", LONG).unwrap();
        assert!(matches!(again, Replaced::Changed), "{again:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Returns the unknown content of the replaced version.
    #[track_caller]
    fn heard(traded: io::Result<Replaced>) -> Option<String> {
        let Ok(Replaced::Done { mut last, .. }) = traded else {
            panic!("{traded:?}");
        };
        let found = last.written_since().unwrap();
        found.map(|content| String::from_utf8(content.bytes).unwrap())
    }

    #[test]
    fn one_who_replaces_the_file_in_between_is_heard() {
        let (folder, path, first) = folder_with("one");
        let (mut file, name) = create_beside(&path).unwrap();
        file.write_all(b"two").unwrap();
        let theirs = folder.path().join("theirs");
        fs::write(&theirs, "three").unwrap();
        fs::rename(&theirs, &path).unwrap();
        let found = heard(trade(&path, first, &file, &TempFile(name)));
        assert_eq!(found.as_deref(), Some("three"));
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_who_writes_into_the_file_in_between_is_heard() {
        let (folder, path, first) = folder_with("one");
        let (mut file, name) = create_beside(&path).unwrap();
        file.write_all(b"two").unwrap();
        let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
        writer.write_all(b", three").unwrap();
        let found = heard(trade(&path, first, &file, &TempFile(name)));
        assert_eq!(found.as_deref(), Some("one, three"));
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_who_had_the_last_version_open_is_heard() {
        let (_folder, path, first) = folder_with("one");
        let mut writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let Replaced::Done { mut last, .. } = replace_version(&path, first, b"two", LONG).unwrap() else {
            panic!("nobody else writes");
        };
        assert_eq!(last.written_since().unwrap(), None);
        for expected in ["one, and more", "one, and more, and more"] {
            writer.write_all(b", and more").unwrap();
            let found = last.written_since().unwrap().map(|content| content.bytes);
            assert_eq!(found.as_deref(), Some(expected.as_bytes()));
            assert_eq!(last.written_since().unwrap(), None);
        }
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_is() {
        let (folder, path, first) = folder_with("one");
        assert!(replace_version(&folder.path().join("absent"), first, b"two", LONG).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(replace_version(&link, first, b"two", LONG).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed() {
        let (folder, path, first) = folder_with("one");
        let left = create_beside(&path).unwrap().1;
        for other in [
            "file.new",
            ".other.0123456789abcdef.new",
            ".file.new",
            ".file.0123456789abcdeg.new",
        ] {
            fs::write(folder.path().join(other), "theirs").unwrap();
        }
        replace_version(&path, first, b"two", LONG).unwrap();
        assert!(left.exists(), "it may still be written");
        remove_left_over(&path, Duration::ZERO);
        assert!(!left.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }

    #[test]
    fn another_process_is_waited_for_and_not_for_ever() {
        let (folder, path, first) = folder_with("one");
        let theirs = turn(folder.path(), Duration::ZERO).unwrap();
        assert!(replace_version(&path, first, b"two", PAUSE).is_err());
        thread::scope(|scope| {
            let ours = scope.spawn(|| replace_version(&path, first, b"two", LONG));
            drop(theirs);
            assert!(matches!(ours.join().unwrap(), Ok(Replaced::Done { .. })));
        });
    }

    /// Several writers each append a number to what they have read, again and again. No number is lost.
    #[test]
    fn racing_writers_lose_nothing() {
        const EACH: usize = 40;
        let (folder, path, _) = folder_with("");
        let add = |line: &str| loop {
            let read = super::super::read(&path).unwrap();
            let content = [&read.bytes[..], line.as_bytes(), b"\n"].concat();
            if let Replaced::Done { .. } = replace_version(&path, read.stamp, &content, LONG).unwrap() {
                return;
            }
        };
        thread::scope(|scope| {
            for writer in 0..4 {
                let add = &add;
                scope.spawn(move || (0..EACH).for_each(|number| add(&format!("{writer} {number}"))));
            }
        });
        let content = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = content.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 4 * EACH);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
