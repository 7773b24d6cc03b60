//! Writes files in folders where other processes may have put something first.
//!
//! Invariant: only [`append`] opens an existing file for writing, and no file is truncated. New content goes into a new
//! file (`O_EXCL`, so no symbolic link is followed), which then takes the old name.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::read::regular;

/// Permissions of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mode 0600, also if the old file had another mode.
    Private,
    /// Mode of the old file; 0600 if there was none.
    Kept,
}

const PRIVATE: u32 = 0o600;

/// Number of names that are tried for the new file. Each has 64 random bits.
const TRIES: u32 = 8;

/// Replaces a file by a new one that is written beside it. A crash leaves either the old content or the new.
///
/// # Errors
/// Returns an error if the file cannot be written, or the old one is not regular (for example a symbolic link). It is
/// then unchanged.
pub fn replace(path: &Path, content: &[u8], mode: Mode) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => {
            regular(found.file_type())?;
            Some(found.mode() & 0o777)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (mut file, fresh) = create_beside(path)?;
    let written = (|| {
        if let (Mode::Kept, Some(found)) = (mode, found) {
            file.set_permissions(Permissions::from_mode(found))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    if let Err(error) = written {
        // The temporary file belongs to this process, and no other code deletes it.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    // Without this sync, the new name may be lost in a power failure.
    File::open(folder_of(path))?.sync_all()
}

/// Creates a file in the same folder that no other process can have opened.
pub(super) fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it has no name"))?;
    let mut tries = 0;
    loop {
        let mut fresh = std::ffi::OsString::from(".");
        fresh.push(name);
        fresh.push(format!(".{:016x}.new", fastrand::u64(..)));
        let fresh = folder_of(path).join(fresh);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&fresh);
        match created {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
            created => return Ok((created?, fresh)),
        }
    }
}

/// Returns whether this is the name of a file that [`create_beside`] makes for `name`.
pub(super) fn is_beside(found: &OsStr, name: &OsStr) -> bool {
    let (found, name) = (found.as_encoded_bytes(), name.as_encoded_bytes());
    let middle = found
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name)?.strip_prefix(b".")?.strip_suffix(b".new"));
    middle.is_some_and(|middle| middle.len() == 16 && middle.iter().all(u8::is_ascii_hexdigit))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Opens a file to append to. A missing file is created with mode 0600.
///
/// Symbolic links are followed only below `/dev`. A FIFO must have a reader.
///
/// # Errors
/// Returns an error if the file cannot be opened.
pub fn append(path: &Path) -> io::Result<File> {
    let flags = match path.starts_with("/dev") {
        true => OFlags::NOCTTY,
        false => OFlags::NOCTTY | OFlags::NOFOLLOW,
    };
    // Fails at once, instead of a wait for the reader of a FIFO.
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let options = || {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(PRIVATE).custom_flags(flags);
        options
    };
    let is_regular = fs::metadata(path).map_or(true, |found| found.is_file());
    // Read access is used only to check the last byte, so a file without it works too.
    let readable = is_regular.then(|| options().read(true).open(path));
    let file = match readable {
        Some(Ok(file)) => file,
        _ => options().open(path).map_err(|error| explained(error, path))?,
    };
    // Writes may block from here on.
    let plain = fcntl_getfl(&file)? - OFlags::NONBLOCK;
    fcntl_setfl(&file, plain)?;
    Ok(file)
}

/// Returns true if the last line of a file has no line end, as after a crash or on a full disk. Returns false if the
/// file cannot be read.
pub fn ends_within_a_line(file: &mut File) -> bool {
    let is_regular = file.metadata().is_ok_and(|found| found.is_file());
    let mut last = [b'\n'];
    is_regular
        && file
            .seek(SeekFrom::End(-1))
            .and_then(|_| file.read_exact(&mut last))
            .is_ok_and(|()| last != [b'\n'])
}

fn explained(error: io::Error, path: &Path) -> io::Error {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::LOOP) if is_link => io::Error::new(
            ErrorKind::InvalidInput,
            format!("{} is a symbolic link: name the file that it leads to", path.display()),
        ),
        Some(rustix::io::Errno::NXIO) => {
            io::Error::new(error.kind(), format!("{} is a FIFO that nobody reads", path.display()))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_replaced_keeps_or_gets_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let check = |found: Option<u32>, wanted: Mode, expected: u32| {
            let _ = fs::remove_file(&path);
            if let Some(found) = found {
                fs::write(&path, "old").unwrap();
                fs::set_permissions(&path, Permissions::from_mode(found)).unwrap();
            }
            replace(&path, b"new", wanted).unwrap();
            assert_eq!(mode(&path), expected, "{found:?} {wanted:?}");
            assert_eq!(fs::read(&path).unwrap(), b"new");
        };
        check(None, Mode::Private, 0o600);
        check(None, Mode::Kept, 0o600);
        check(Some(0o640), Mode::Kept, 0o640);
        check(Some(0o640), Mode::Private, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_link_is_written_through_and_none_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("victim"), "precious").unwrap();
        symlink(path("victim"), path("link")).unwrap();
        symlink(path("absent"), path("dangling")).unwrap();
        mkfifoat(CWD, path("fifo"), rustix::fs::Mode::RWXU).unwrap();
        for name in ["link", "dangling", "fifo"] {
            let error = replace(&path(name), b"new", Mode::Private).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{name}: {error}");
        }
        for (name, says) in [
            ("link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("fifo", "nobody reads"),
        ] {
            let error = append(&path(name)).unwrap_err();
            assert!(error.to_string().contains(says), "{name}: {error}");
        }
        assert_eq!(fs::read(path("victim")).unwrap(), b"precious");
        assert!(!path("absent").exists());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            4,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"new", Mode::Private).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("absent/file"), b"new", Mode::Private).is_err());
    }

    #[test]
    fn what_is_appended_to_is_private_and_known_to_be_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let check = |found: Option<&str>, torn: bool| {
            let _ = fs::remove_file(&path);
            if let Some(found) = found {
                fs::write(&path, found).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            }
            let mut file = append(&path).unwrap();
            assert_eq!(ends_within_a_line(&mut file), torn, "{found:?}");
            file.write_all(b"new\n").unwrap();
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                format!("{}new\n", found.unwrap_or_default())
            );
            assert_eq!(mode(&path), if found.is_some() { 0o640 } else { 0o600 });
        };
        check(None, false);
        check(Some(""), false);
        check(Some("old\n"), false);
        check(Some("old\nto"), true);
        assert!(!ends_within_a_line(&mut append(Path::new("/dev/null")).unwrap()));
    }
}
