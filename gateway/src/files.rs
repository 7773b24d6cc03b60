//! Files that others read while we write them, and that others write while we read them.
//!
//! A file is replaced as a whole or not at all; and one that has changed is told from one that has not by its
//! [`Stamp`], since a notification can be lost and a mounted file may send none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What differs between a file and its next version: its inode, its length, and when content and inode were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of what the path leads to; `None` if that is nothing that could be read.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Writes a second file beside the first that then takes its place: a crash leaves the old content or the new.
///
/// # Errors
/// If it cannot be written; the file is then as it was.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = beside(path, "new");
    let mut file = File::create(&fresh)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // Without it the new name may not outlive a power cut.
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The path with a further ending.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_changing_a_file_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "one").unwrap();
        let mut seen = vec![Stamp::of(&path)];
        assert_eq!(Stamp::of(&path), seen[0]);
        let mut changed = || {
            let stamp = Stamp::of(&path);
            assert!(!seen.contains(&stamp), "{stamp:?}");
            seen.push(stamp);
        };
        fs::write(&path, "four").unwrap();
        changed();
        replace(&path, b"five").unwrap();
        changed();
        assert_eq!(fs::read(&path).unwrap(), b"five");
        fs::remove_file(&path).unwrap();
        changed();
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left beside it"
        );
    }
}
