//! Reads regular files without waiting for another process.
//!
//! A FIFO blocks its reader until it has a writer, and a device may never end. Both can replace a regular file. So only
//! regular files are opened, and at most [`LARGEST`] bytes are read. A file system that does not answer can still block
//! without a limit, so files are read on a thread that can be abandoned.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use super::Stamp;

/// Maximum size in bytes of a file that is read.
pub const LARGEST: u64 = 16 * 1024 * 1024;

/// Interval and number of tries while another process holds a lease on the file. A non-blocking `open` then fails at
/// once.
const LEASE: (Duration, u32) = (Duration::from_millis(20), 50);

/// Content of a file and the version that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    pub bytes: Vec<u8>,
    /// Stamp from before the content was read. If the file changes during the read, it is that of the earlier version.
    pub stamp: Stamp,
}

/// Reads a regular file of at most [`LARGEST`] bytes. Symbolic links are followed.
///
/// # Errors
/// Returns an error if the file cannot be read, is not regular or is too large.
pub fn read(path: &Path) -> io::Result<FileContent> {
    whole(open(path, OFlags::empty())?)
}

/// Reads a regular file of at most `most` bytes. Symbolic links are followed.
///
/// # Errors
/// Returns the errors of [`read`].
pub fn read_up_to(path: &Path, most: u64) -> io::Result<FileContent> {
    up_to(most, open(path, OFlags::empty())?)
}

/// Reads the first and the last `ends` bytes of a regular file, or all of a short one. Returns its length too.
///
/// # Errors
/// Returns the errors of [`read`].
pub fn read_ends(path: &Path, ends: usize) -> io::Result<(FileContent, u64)> {
    let (mut file, stamp) = open(path, OFlags::empty())?;
    let length = file.metadata()?.len();
    let most = 2 * ends as u64;
    if length <= most {
        return Ok((up_to(most, (file, stamp))?, length));
    }
    let mut bytes = vec![0; 2 * ends];
    file.read_exact(&mut bytes[..ends])?;
    file.seek(SeekFrom::End(-i64::try_from(ends).unwrap_or(i64::MAX)))?;
    file.read_exact(&mut bytes[ends..])?;
    Ok((FileContent { bytes, stamp }, length))
}

/// Reads a file that the gateway itself writes, of at most `most` bytes. Symbolic links are not followed.
///
/// # Errors
/// Returns the errors of [`read`], or an error if the file is a symbolic link.
pub fn read_own(path: &Path, most: u64) -> io::Result<FileContent> {
    up_to(most, open(path, OFlags::NOFOLLOW)?)
}

pub(super) fn whole(opened: (File, Stamp)) -> io::Result<FileContent> {
    up_to(LARGEST, opened)
}

fn up_to(most: u64, (file, stamp): (File, Stamp)) -> io::Result<FileContent> {
    let too_large = || io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {most} bytes"));
    if stamp.length > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // The length may have grown since. One more byte shows whether the file is too large.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok(FileContent { bytes, stamp })
}

pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<(File, Stamp)> {
    // The type is checked before the file is opened, because opening a device can have effects.
    let found = match flags.contains(OFlags::NOFOLLOW) {
        true => fs::symlink_metadata(path)?,
        false => fs::metadata(path)?,
    };
    regular(found.file_type())?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | flags;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let (pause, mut tries) = LEASE;
    let file = loop {
        match options.open(path) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && tries > 0 => {
                tries -= 1;
                thread::sleep(pause);
            }
            opened => break opened?,
        }
    };
    let found = file.metadata()?;
    regular(found.file_type())?;
    Ok((file, Stamp::from(&found)))
}

/// # Errors
/// Returns an error if the file is of another type, which the error names.
pub(super) fn regular(found: FileType) -> io::Result<()> {
    let what = match found {
        found if found.is_file() => return Ok(()),
        found if found.is_dir() => "a folder",
        found if found.is_symlink() => "a symbolic link",
        found if found.is_fifo() => "a FIFO",
        found if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        format!("it is {what}, not a regular file"),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink(path("absent"), path("dangling")).unwrap();
        symlink(path("loop"), path("loop")).unwrap();
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        symlink(path("fifo"), path("link-to-fifo")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        let check = |name: &str, expected: Result<&str, &str>| {
            let found = read(&path(name)).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(found), Ok(text)) => {
                    assert_eq!(found.bytes, text.as_bytes(), "{name}");
                    assert_eq!(Some(found.stamp), Stamp::of(&path(name)), "{name}");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{name}: {error}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        };
        check("file", Ok("text"));
        check("link", Ok("text"));
        check("absent", Err("No such file"));
        check("dangling", Err("No such file"));
        check("loop", Err("symbolic links"));
        check("fifo", Err("it is a FIFO, not a regular file"));
        check("link-to-fifo", Err("it is a FIFO, not a regular file"));
        check("folder", Err("it is a folder"));
        check("socket", Err("it is a socket"));
        check("/dev/zero", Err("it is a device"));
        check("/dev/tty", Err("it is a device"));
        let error = read_own(&path("link"), LARGEST).unwrap_err().to_string();
        assert!(error.contains("it is a symbolic link"), "{error}");
    }

    #[test]
    fn a_file_is_read_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(LARGEST).unwrap();
        assert_eq!(read(&path).unwrap().bytes.len() as u64, LARGEST);
        file.set_len(LARGEST + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
