//! Manages the demo's private folder. It holds the demo's files for the user to read and edit, and is removed at the
//! end.
//!
//! A second process finds the demo by the folder: `running.json` in it holds the addresses. Only its owner can read the
//! folder, so no user can control another user's demo.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::running::Running;
use crate::{files, json};

const PREFIX: &str = "gateway-demo-";
const RUNNING: &str = "running.json";
/// Largest `running.json` that is read, in bytes; a demo never writes a longer one.
const MAX_RUNNING: usize = 64 << 10;

/// A folder that is removed, with everything in it, on drop.
#[must_use = "the folder is removed when this is dropped"]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates a new folder in the system's temporary folder.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
    pub(super) fn create() -> io::Result<Self> {
        loop {
            let path = std::env::temp_dir().join(format!("{PREFIX}{:04x}", fastrand::u16(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the folder. Returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        files::replace(&path, text.as_bytes(), files::Mode::Private)?;
        Ok(path)
    }

    /// Makes this demo known to [`running`].
    pub(super) fn announce(&self, demo: &Running) -> io::Result<()> {
        self.write(RUNNING, &serde_json::to_string_pretty(demo)?).map(drop)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The system cleans up temporary folders, so a failure does no harm.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns the user's demos that answer. The folder of a demo that was killed may still exist; it is skipped.
pub(super) fn running() -> Vec<Running> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return Vec::new();
    };
    let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    let mut demos: Vec<Running> = entries
        .flatten()
        .filter(|entry| ours(&entry.file_name()))
        .filter(|entry| entry.metadata().is_ok_and(|found| is_private(&found)))
        .filter_map(|entry| {
            let text = files::read_own(&entry.path().join(RUNNING), files::LARGEST).ok()?.bytes;
            json::typed(&text, MAX_RUNNING).ok()
        })
        .filter(|demo: &Running| demo.control.ip().is_loopback())
        .filter(|demo| TcpStream::connect_timeout(&demo.control, Duration::from_millis(500)).is_ok())
        .collect();
    demos.sort_by_key(|demo| demo.public);
    demos
}

/// Returns whether only this user can write into the folder.
fn is_private(found: &Metadata) -> bool {
    found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_demo_is_found_while_it_answers() {
        let folder = Folder::create().expect("a temporary folder can be written to");
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let at = control.local_addr().expect("bound");
        let found = || running().iter().any(|demo| demo.control == at);
        assert!(!found());
        let path = folder.path().to_owned();
        folder
            .announce(&Running {
                pid: 1,
                public: at,
                admin: at,
                control: at,
                folder: path.clone(),
                alone: true,
            })
            .expect("written");
        assert!(found());
        let opened = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        opened(0o777);
        assert!(!found(), "anybody could have written that");
        opened(0o700);
        assert!(found());
        drop(control);
        assert!(!found(), "nobody answers");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
