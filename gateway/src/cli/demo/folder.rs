//! The demo's private folder: what it runs on, laid open for its user to read and edit, and gone when it ends.
//!
//! The folder is also how a second process finds the demo: `running.json` in it says where it listens. Only its owner
//! can read it, so nobody steers somebody else's demo.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Running;
use crate::files;
use crate::json;

const PREFIX: &str = "gateway-demo-";
const RUNNING: &str = "running.json";
/// A longer one is none of ours, in bytes.
const MAX_RUNNING: usize = 64 << 10;

/// Removed, with everything in it, when this is dropped.
#[must_use = "the folder is removed when this is dropped"]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new folder in the system's temporary one.
    ///
    /// # Errors
    /// It cannot be made.
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

    /// Writes a file into it and says where that is.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        files::replace(&path, text.as_bytes(), files::Mode::Private)?;
        Ok(path)
    }

    /// From now on, [`running`] finds this demo.
    pub(super) fn announce(&self, demo: &Running) -> io::Result<()> {
        self.write(RUNNING, &serde_json::to_string_pretty(demo)?).map(drop)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up, as it is in a temporary folder.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The user's demos that answer. One that was killed may have left its folder behind; it does not count.
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

/// A folder that nobody but this user can have written into.
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
