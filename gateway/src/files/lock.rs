//! Locks a file, so that only one process at a time holds it.
//!
//! The content of the file does not matter: it is neither written nor truncated. A symbolic link is not followed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::read::regular;

/// Number of tries if the lock file is deleted while it is being locked.
const TRIES: u32 = 8;

/// Locks the file at `path` until the returned file is closed. A missing file is created with mode 0600.
///
/// # Errors
/// Returns an error if another process holds the lock, or the file cannot be opened or is not regular.
pub fn lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    for _ in 0..TRIES {
        match fs::symlink_metadata(path) {
            Ok(found) => regular(found.file_type())?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let ours = file.metadata()?;
        regular(ours.file_type())?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(ErrorKind::WouldBlock, "another process holds it"),
            TryLockError::Error(error) => error,
        })?;
        // A lock on a deleted file excludes no one, so the name must still lead to the locked file.
        if fs::symlink_metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
    Err(io::Error::other("it is replaced all the time"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn one_holds_it_and_what_was_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "a note").unwrap();
        let held = lock(&path).unwrap();
        assert_eq!(lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        lock(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a note");
        fs::remove_file(&path).unwrap();
        let _held = lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        lock(&path).expect("a lock on a file that is gone keeps nobody out");
    }

    #[test]
    fn only_a_regular_file_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("victim"), "precious").unwrap();
        symlink(path("victim"), path("link")).unwrap();
        symlink(path("absent"), path("dangling")).unwrap();
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        fs::create_dir(path("folder")).unwrap();
        for name in ["link", "dangling", "fifo", "folder"] {
            let error = lock(&path(name)).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{name}: {error}");
        }
        assert!(!path("absent").exists());
        assert_eq!(fs::read(path("victim")).unwrap(), b"precious");
    }
}
