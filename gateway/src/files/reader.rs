//! Reads the files of a config and keeps them as they were read.
//!
//! A reader can be given earlier versions that it does not read again. So a changed file can be read alone while others
//! are changing, broken or unreachable. The reader announces each file before it reads it, for messages about slow
//! reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::permissions::exposure;
use super::read::read;
use super::{Exposure, Stamp};

/// File versions by path.
pub type FileSet = BTreeMap<PathBuf, FileVersion>;

/// The content of a file as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct FileVersion {
    pub stamp: Option<Stamp>,
    pub bytes: Arc<[u8]>,
}

/// Callback that is called before each file is read.
pub type OnRead = Arc<dyn Fn(&Path) + Send + Sync>;

/// Reason why a file was not read: the version that was found, and the error.
type Unread = (Option<Stamp>, ErrorKind, String);

/// Reads each file once and keeps its content.
#[derive(Clone, Default)]
pub struct FileReader {
    /// Earlier versions that are used without a read.
    kept: FileSet,
    /// Files whose file system does not answer. They are not read.
    unreachable: BTreeSet<PathBuf>,
    on_read: Option<OnRead>,
    /// Results by path: the content, or the error.
    read: BTreeMap<PathBuf, Result<FileVersion, Unread>>,
}

impl FileReader {
    pub fn new(kept: FileSet, unreachable: BTreeSet<PathBuf>, on_read: OnRead) -> Self {
        Self {
            kept,
            unreachable,
            on_read: Some(on_read),
            read: BTreeMap::new(),
        }
    }

    /// Returns the content of a regular file; see [`read`](super::read()).
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        if let Some(version) = self.kept.get(path) {
            self.read.insert(path.to_owned(), Ok(version.clone()));
        }
        if !self.read.contains_key(path) {
            let found = self.read_anew(path);
            self.read.insert(path.to_owned(), found);
        }
        match &self.read[path] {
            Ok(version) => Ok(Arc::clone(&version.bytes)),
            Err((_, kind, why)) => Err(io::Error::new(*kind, why.clone())),
        }
    }

    fn read_anew(&self, path: &Path) -> Result<FileVersion, Unread> {
        if self.unreachable.contains(path) {
            return Err((None, ErrorKind::Other, "its file system does not answer".to_owned()));
        }
        if let Some(on_read) = &self.on_read {
            on_read(path);
        }
        let before = Stamp::of(path);
        match read(path) {
            Ok(content) => Ok(FileVersion {
                stamp: Some(content.stamp),
                bytes: content.bytes.into(),
            }),
            Err(error) => Err((before, error.kind(), error.to_string())),
        }
    }

    /// Announces that a file is read by other means.
    ///
    /// # Errors
    /// Its file system does not answer.
    pub fn begin(&self, path: &Path) -> io::Result<()> {
        if self.unreachable.contains(path) {
            return Err(io::Error::other("its file system does not answer"));
        }
        if let Some(on_read) = &self.on_read {
            on_read(path);
        }
        Ok(())
    }

    /// Notes the version of a file that was read by other means. Its content is not kept.
    pub fn note(&mut self, path: &Path, stamp: Option<Stamp>) {
        let bytes = Arc::from([]);
        self.read.insert(path.to_owned(), Ok(FileVersion { stamp, bytes }));
    }

    /// Returns true if an earlier version is used and the file is not read.
    pub fn keeps(&self, path: &Path) -> bool {
        self.kept.contains_key(path)
    }

    /// Returns the access of other users to a file; `None` if the reader does not read it or it does not exist.
    pub fn exposure(&self, path: &Path) -> Option<Exposure> {
        let is_read = !self.keeps(path) && !self.unreachable.contains(path);
        is_read.then(|| exposure(path).ok())?
    }

    /// Returns the version that was read, or that could not be read.
    pub fn stamp(&self, path: &Path) -> Option<Stamp> {
        match self.read.get(path)? {
            Ok(version) => version.stamp,
            Err((stamp, ..)) => *stamp,
        }
    }

    /// Returns the versions of all files that were read.
    pub fn all(&self) -> FileSet {
        let read = self.read.iter();
        read.filter_map(|(path, version)| Some((path.clone(), version.as_ref().ok()?.clone())))
            .collect()
    }

    /// Returns the versions of those `paths` that were read.
    pub fn versions<'p>(&self, paths: impl IntoIterator<Item = &'p PathBuf>) -> FileSet {
        let version = |path: &PathBuf| Some((path.clone(), self.read.get(path)?.as_ref().ok()?.clone()));
        paths.into_iter().filter_map(version).collect()
    }
}

/// Omits the content, which may be a secret.
impl fmt::Debug for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:?}", self.bytes.len(), self.stamp)
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_file_is_read_once_and_what_is_kept_or_out_of_reach_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["fresh", "kept", "mounted"] {
            fs::write(path(name), name).unwrap();
        }
        let kept = FileVersion {
            stamp: None,
            bytes: b"as it was".as_slice().into(),
        };
        let told = Arc::new(Mutex::new(Vec::new()));
        let on_read = {
            let told = Arc::clone(&told);
            Arc::new(move |path: &Path| told.lock().unwrap().push(path.to_owned()))
        };
        let mut reader = FileReader::new(
            FileSet::from([(path("kept"), kept.clone())]),
            BTreeSet::from([path("mounted")]),
            on_read,
        );
        let mut read = |name: &str| reader.read(&path(name)).map_err(|error| error.to_string());
        assert_eq!(&*read("fresh").unwrap(), b"fresh");
        fs::write(path("fresh"), "newer").unwrap();
        assert_eq!(&*read("fresh").unwrap(), b"fresh", "one reading sees one version");
        assert_eq!(&*read("kept").unwrap(), b"as it was");
        assert_eq!(read("mounted").unwrap_err(), "its file system does not answer");
        assert!(read("absent").unwrap_err().contains("No such file"));
        assert_eq!(*told.lock().unwrap(), [path("fresh"), path("absent")]);
        let versions = reader.versions(&[path("fresh"), path("kept"), path("absent"), path("other")]);
        assert_eq!(
            versions.keys().cloned().collect::<Vec<_>>(),
            [path("fresh"), path("kept")]
        );
        assert_eq!(versions[&path("kept")], kept);
        assert_ne!(
            reader.stamp(&path("fresh")),
            Stamp::of(&path("fresh")),
            "it has changed since"
        );
        assert!(!format!("{reader:?}").contains("as it was"));
    }
}
