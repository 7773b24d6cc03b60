//! The Unix socket at which a gateway hands over: who may connect, and how it is found and left.
//!
//! The socket is passed on like the others, so a new process answers at it without a gap. Its file has mode 0600, and the
//! kernel is asked which user is at the other end: only the same user, or root, may take over.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::wire::Wire;

/// Connects to the process that answers at the path. Returns `None` if nobody does.
///
/// # Errors
/// If the path is something else than a socket, or a socket of another user.
pub(super) fn connect(path: &Path) -> io::Result<Option<Wire>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::other("it is no socket"));
    }
    let wire = match UnixStream::connect(path) {
        Ok(stream) => Wire::new(stream)?,
        // The process that had bound it was killed.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    is_trusted(&wire)?;
    Ok(Some(wire))
}

/// Checks that the other process runs as the same user or as root.
///
/// # Errors
/// If it does not.
pub(super) fn is_trusted(wire: &Wire) -> io::Result<()> {
    let peer = wire.peer()?;
    if peer.uid == rustix::process::geteuid() || peer.uid.is_root() {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::PermissionDenied,
        format!("process {} runs as another user", peer.pid),
    ))
}

/// The listening socket with its file.
#[derive(Debug)]
pub(super) struct HandOverSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl HandOverSocket {
    /// Binds the socket, in place of one at which nobody answers.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        // It appears at its path when only this user can connect.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(name);
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        let placed = fs::set_permissions(&fresh, Permissions::from_mode(0o600)).and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self::of(listener, path))
    }

    /// Goes on with the socket of the process that this one replaces.
    pub(super) fn of(listener: UnixListener, path: &Path) -> Self {
        Self {
            listener,
            path: path.to_owned(),
        }
    }

    /// Removes the file, so that the next process finds nobody. A file that is a newer one stays.
    pub(super) fn remove(path: &Path, inode: Option<u64>) {
        if fs::symlink_metadata(path).is_ok_and(|found| Some(found.ino()) == inode) {
            let _ = fs::remove_file(path);
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the inode of the file.
    pub(super) fn inode(&self) -> Option<u64> {
        fs::symlink_metadata(&self.path).ok().map(|found| found.ino())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_answers_where_there_is_no_socket_or_its_process_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.sock");
        assert!(connect(&path).unwrap().is_none());
        drop(UnixListener::bind(&path).unwrap());
        assert!(connect(&path).unwrap().is_none());
        let bound = HandOverSocket::bind(&path).expect("it takes the place of a dead one");
        assert!(connect(&path).unwrap().is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        HandOverSocket::remove(&path, bound.inode().map(|inode| inode + 1));
        assert!(path.exists());
        HandOverSocket::remove(&path, bound.inode());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(connect(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
