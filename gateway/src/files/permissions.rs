//! Checks whether other users can read or change a file that holds a secret.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Access of other users to a file. Superusers have all access and do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposure {
    /// True if another user owns the file and so can change it.
    pub foreign: bool,
    pub readable: Option<Others>,
    pub writable: Option<Others>,
    /// True if everyone can replace the file, because its folder is writable and not sticky.
    pub replaceable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    Group,
    Everyone,
}

impl Exposure {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Checks the file that the path leads to, and the folder in the path.
///
/// # Errors
/// Returns an error if there is no file at the path.
pub(super) fn exposure(path: &Path) -> io::Result<Exposure> {
    let file = fs::metadata(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(judge(
        &file,
        fs::metadata(folder).ok().as_ref(),
        rustix::process::geteuid().as_raw(),
    ))
}

fn judge(file: &Metadata, folder: Option<&Metadata>, us: u32) -> Exposure {
    const STICKY: u32 = 0o1000;
    Exposure {
        foreign: file.uid() != us && file.uid() != 0,
        readable: others(file.mode(), 0o4),
        writable: others(file.mode(), 0o2),
        replaceable: folder.is_some_and(|folder| folder.mode() & (0o2 | STICKY) == 0o2),
    }
}

fn others(mode: u32, bit: u32) -> Option<Others> {
    if mode & bit != 0 {
        Some(Others::Everyone)
    } else if mode & (bit << 3) != 0 {
        Some(Others::Group)
    } else {
        None
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "its group",
            Self::Everyone => "everyone",
        })
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = [
            self.foreign.then(|| "it belongs to another user".to_owned()),
            self.writable.map(|others| format!("{others} can write it")),
            self.readable.map(|others| format!("{others} can read it")),
            self.replaceable
                .then(|| "everyone can replace it, as its folder is writable".to_owned()),
        ];
        let all: Vec<String> = whole.into_iter().flatten().collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_others_can_do_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("token");
        fs::write(&path, "secret").unwrap();
        let check = |file: u32, around: u32, expected: &str| {
            fs::set_permissions(&inner, Permissions::from_mode(around)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(file)).unwrap();
            let found = exposure(&path).unwrap();
            assert_eq!(found.to_string(), expected, "{file:o} in {around:o}");
            assert_eq!(found.is_none(), expected.is_empty());
        };
        check(0o600, 0o755, "");
        check(0o400, 0o700, "");
        check(0o640, 0o755, "its group can read it");
        check(0o644, 0o755, "everyone can read it");
        check(0o620, 0o755, "its group can write it");
        check(0o602, 0o755, "everyone can write it");
        check(0o666, 0o755, "everyone can write it, everyone can read it");
        check(0o600, 0o777, "everyone can replace it, as its folder is writable");
        check(0o600, 0o775, "");
        check(0o600, 0o1777, "");
        let found = fs::metadata(&path).unwrap();
        let foreign = judge(&found, None, found.uid().wrapping_add(1)).foreign;
        assert_eq!(foreign, found.uid() != 0, "files of the superuser are nobody else's");
        assert!(exposure(&inner.join("absent")).is_err());
    }
}
