//! Decides when to read a changed file: when two checks in a row find the same version, because a process
//! may still be writing it, and at the latest [`LATEST`] after the change was seen, because it may never become stable.
//!
//! Each watch is for one file, so that a file that changes all the time does not delay others. The caller passes in the
//! versions and the time; a watch reads neither files nor clocks.

use std::time::Duration;

use policies::Moment;

use crate::files::Stamp;

/// Longest wait for a changed file to become stable.
pub(crate) const LATEST: Duration = Duration::from_secs(1);
/// Wait after which a change that is not read is logged.
pub(crate) const TOLD: Duration = Duration::from_secs(2);

/// The observed changes of one file. A version of `None` means that the file does not exist.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileWatch {
    change: Option<Change>,
    /// A version that could not be used and is not tried again.
    refused: Option<Option<Stamp>>,
}

/// A version that differs from the one in force.
#[derive(Debug, Clone, Copy)]
struct Change {
    first_seen: Moment,
    version: Option<Stamp>,
    told: bool,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing new to read.
    Same,
    /// The file has changed and may still be changing.
    Settling,
    /// The file must be read now.
    Due,
}

impl FileWatch {
    /// Checks the version `found` against the version `read`, which is in force.
    pub(crate) fn look(&mut self, read: Option<Stamp>, found: Option<Stamp>, now: Moment) -> Look {
        if found == read {
            *self = Self::default();
            return Look::Same;
        }
        if self.refused == Some(found) {
            self.change = None;
            return Look::Same;
        }
        self.refused = None;
        let Some(change) = &mut self.change else {
            self.change = Some(Change {
                first_seen: now,
                version: found,
                told: false,
            });
            return Look::Settling;
        };
        let rests = change.version == found;
        change.version = found;
        match rests || now.since(change.first_seen) >= LATEST {
            true => Look::Due,
            false => Look::Settling,
        }
    }

    /// Notes that a version has been read and cannot be used.
    pub(crate) fn refuse(&mut self, version: Option<Stamp>) {
        self.change = None;
        self.refused = Some(version);
    }

    /// Returns true if the newest version could not be used.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Returns how long a change has waited, if it is too long and not reported yet.
    pub(crate) fn overdue(&mut self, now: Moment) -> Option<Duration> {
        let change = self.change.as_mut().filter(|change| !change.told)?;
        let waited = now.since(change.first_seen);
        change.told = waited > TOLD;
        change.told.then_some(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a file every 200 ms that has these versions, one per character; `0` is in force, `-` is no file. Returns
    /// `!` where the file is due and `.` elsewhere. A version that is read is in force afterwards if `good`.
    fn looks(versions: &str, good: bool) -> String {
        let folder = tempfile::tempdir().unwrap();
        let mut stamps = std::collections::HashMap::new();
        let mut stamp = |name: char| {
            *stamps.entry(name).or_insert_with(|| {
                let path = folder.path().join(name.to_string());
                std::fs::write(&path, "").unwrap();
                Stamp::of(&path).filter(|_| name != '-')
            })
        };
        let mut in_force = stamp('0');
        let mut watch = FileWatch::default();
        let mut out = String::new();
        for (number, name) in (0..).zip(versions.chars()) {
            let now = Moment::from_nanos(number * 200_000_000);
            let found = stamp(name);
            let due = watch.look(in_force, found, now) == Look::Due;
            match (due, good) {
                (true, true) => (watch, in_force) = (FileWatch::default(), found),
                (true, false) => watch.refuse(found),
                (false, _) => {}
            }
            out.push(if due { '!' } else { '.' });
        }
        out
    }

    #[test]
    fn a_file_is_read_when_it_rests_and_at_the_latest_after_a_second() {
        for (versions, good, expected) in [
            ("0000", true, "...."),
            ("0110", true, "..!."),
            ("01111", true, "..!.."),
            ("010101", true, "......"),
            ("0--0", true, "..!."),
            // A file that never becomes stable is read one second after its change was seen, and again a second after
            // the next change.
            ("0123456789abcd", true, "......!.....!."),
            ("01234566789", true, "......!...."),
            // A version that cannot be used is tried once.
            ("01111111", false, "..!....."),
            ("0111222", false, "..!..!."),
            ("0112211", false, "..!.!.!"),
            ("011001", false, "..!..."),
        ] {
            assert_eq!(looks(versions, good), expected, "{versions}");
        }
    }

    #[test]
    fn waiting_too_long_is_told_once() {
        let mut watch = FileWatch::default();
        let path = tempfile::NamedTempFile::new().unwrap();
        let found = Stamp::of(path.path());
        let at = |seconds: f64| Moment::ZERO + Duration::from_secs_f64(seconds);
        assert_eq!(watch.overdue(at(9.0)), None, "nothing waits");
        assert_eq!(watch.look(None, found, at(10.0)), Look::Settling);
        assert_eq!(watch.overdue(at(12.0)), None);
        assert_eq!(watch.overdue(at(12.5)), Some(Duration::from_millis(2500)));
        assert_eq!(watch.overdue(at(13.0)), None);
        assert_eq!(watch.look(None, found, at(9.0)), Look::Due, "time goes backwards");
        watch.refuse(found);
        assert_eq!(watch.overdue(at(20.0)), None);
    }
}
