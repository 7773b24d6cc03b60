//! Reads and writes files that other processes read and write at the same time.
//!
//! A file is replaced as a whole or not at all, and only regular files are read. A change is detected by a file's
//! [`Stamp`], because a change notification can be lost and a mounted file may send none.

mod exchange;
mod lock;
mod permissions;
mod read;
mod reader;
pub(crate) mod watch;
mod write;

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use exchange::{LastVersion, Replaced, replace_version, splice_version};
pub use lock::lock;
pub use permissions::{Exposure, Others};
pub use read::{FileContent, LARGEST, read, read_ends, read_own, read_up_to};
pub use reader::{FileReader, FileSet, FileVersion, OnRead};
pub use write::{Mode, append, ends_within_a_line, replace};

/// Identity of a file version: inode, length, and the times at which content and inode were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of the file at `path`, following symbolic links; `None` if there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::from)
    }

    /// Returns true if both are one file with one content, possibly renamed in between.
    fn is_same_content(&self, other: &Self) -> bool {
        (self.inode, self.length, self.modified) == (other.inode, other.length, other.modified)
    }
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Self {
        Self {
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
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
        replace(&path, b"five", Mode::Kept).unwrap();
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
