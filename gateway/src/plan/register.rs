//! The register of revocations: the list in force, and the file that keeps it over a restart.
//!
//! The file has the last word. It is read when a plan takes effect and whenever it changes; what the admin API adds is
//! in force at once and is then written to it. Failing closed: a file that cannot be read or has mistakes changes
//! nothing, and an entry that cannot be written holds all the same, and is kept for the next version of the file.
//!
//! Runs on the control thread and its helpers alone; workers see the list. The file system may take its time, or for
//! ever, so what is kept is never locked while the file is read or written: only `FileTurn` is held then, which nobody
//! waits for without a limit.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;

use super::long_over::Learnt;
use super::watch::{FileWatch, Look};
use crate::clock::{self, Now};
use crate::config::revocations::{Revocation, What};
use crate::config::{Code, Mistake, Mistakes, Sources, revocations, written};
use crate::files::{self, Stamp};
use crate::intake::revocations::{List, MOST, NotRevocable, Revocations, Revoked, RevokedKind, Terms};
use crate::observe::timestamp::Timestamp;

/// How long a change waits for another that reads or writes the file.
const TURN: Duration = Duration::from_secs(5);

pub struct Register {
    in_force: Arc<Revocations>,
    kept: Mutex<Kept>,
    turn: FileTurn,
    /// How long a turn is waited for.
    patience: Duration,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            in_force: Arc::default(),
            kept: Mutex::default(),
            turn: FileTurn::default(),
            patience: TURN,
        }
    }
}

/// One at a time reads or writes the file.
#[derive(Default)]
struct FileTurn {
    taken: Mutex<bool>,
    free: Condvar,
}

#[must_use = "the turn ends when this is dropped"]
struct HeldTurn<'a>(&'a FileTurn);

impl FileTurn {
    /// `None` if another still has it when the limit is over.
    fn take(&self, limit: Duration) -> Option<HeldTurn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = self
            .free
            .wait_timeout_while(taken, limit, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        let free = !std::mem::replace(&mut *taken, true);
        drop(taken);
        // Not `then_some`: a turn that is not ours must not end.
        free.then(|| HeldTurn(self))
    }
}

impl Drop for HeldTurn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

#[derive(Default)]
struct Kept {
    path: Option<PathBuf>,
    /// The version of the file that was read or written last.
    version: Option<Stamp>,
    watch: FileWatch,
    /// Why that version is not in force.
    error: Option<Failure>,
    /// In force, and not in the file.
    unwritten: List,
    /// Counts what has been read and written.
    changes: u64,
    learnt: Learnt,
}

/// The file as a plan has found it.
pub struct RevocationFile {
    pub path: PathBuf,
    pub version: Option<Stamp>,
    pub list: List,
    /// What [`Register::changes`] said before it was read; `None` if it was taken as an earlier plan had read it.
    pub changes: Option<u64>,
}

/// Why the file is not what is in force, and since when (seconds since 1970).
#[derive(Debug, Clone)]
pub struct Failure {
    pub at: u64,
    pub error: String,
}

/// For the admin API.
#[derive(Debug, Clone)]
pub struct RegisterStatus {
    pub file: Option<PathBuf>,
    pub error: Option<Failure>,
    /// Entries that a restart would forget.
    pub unwritten: usize,
}

/// Why a change was not made, or not made for good.
#[derive(Debug)]
pub enum RegisterError {
    /// The list is as long as it may be; nothing has changed.
    TooMany,
    /// There is no such entry.
    Absent,
    /// New entries are in force, and will be written when the file can be; nothing is taken out.
    NotWritten(String),
}

impl Register {
    /// The list that callers are held against.
    pub fn in_force(&self) -> Arc<Revocations> {
        Arc::clone(&self.in_force)
    }

    /// From now on the list is kept in this file, if in any, and is what the file says. Reads nothing.
    pub fn keep_in(&self, file: Option<&RevocationFile>) {
        let mut kept = self.kept();
        let path = file.map(|file| &file.path);
        // What the file said before it was read or written the last time is out of date.
        let is_older = file.is_some_and(|file| file.changes != Some(kept.changes)) && kept.path.as_ref() == path;
        if is_older {
            return;
        }
        kept.path = path.cloned();
        kept.version = file.and_then(|file| file.version);
        kept.watch = FileWatch::default();
        kept.error = None;
        if let Some(file) = file {
            self.replace(&mut kept, file.list.clone());
        }
    }

    /// Changes whenever the file has been read or written.
    pub fn changes(&self) -> u64 {
        self.kept().changes
    }

    fn replace(&self, kept: &mut Kept, mut list: List) {
        kept.changes += 1;
        list.extend(kept.unwritten.clone());
        tracing::info!(entries = list.len(), "revocations read");
        self.in_force.replace(list);
    }

    /// Looks whether the file has changed.
    pub(super) fn follow(&self, now: Moment) {
        let Some(turn) = self.turn.take(Duration::ZERO) else {
            return;
        };
        let Some(path) = self.kept().path.clone() else { return };
        let found = Stamp::of(&path);
        let (look, overdue) = {
            let mut kept = self.kept();
            let version = kept.version;
            (kept.watch.look(version, found, now), kept.watch.overdue(now))
        };
        if let Some(waited) = overdue {
            tracing::warn!(path = %path.display(), ?waited, "a file has changed and has not been read for long");
        }
        if look == Look::Due {
            self.read(&turn);
        }
    }

    /// Takes back what the entries name, from the next request on.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn revoke(&self, entries: List) -> Result<(), RegisterError> {
        let turn = self.turn.take(self.patience);
        if let Some(turn) = &turn {
            self.catch_up(turn);
        }
        let list = {
            let mut kept = self.kept();
            let mut list = List::clone(&self.in_force.list());
            list.extend(entries.clone());
            if list.len() > MOST {
                return Err(RegisterError::TooMany);
            }
            self.in_force.replace(list);
            kept.unwritten.extend(entries);
            self.in_force.list()
        };
        self.write(turn.as_ref().ok_or_else(busy)?, &list)
    }

    /// Lets through again what an entry named.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn restore(&self, revoked: &Revoked) -> Result<(), RegisterError> {
        let turn = self.turn.take(self.patience).ok_or_else(busy)?;
        self.catch_up(&turn);
        let mut list = List::clone(&self.in_force.list());
        list.remove(revoked).ok_or(RegisterError::Absent)?;
        self.write(&turn, &list)?;
        let mut kept = self.kept();
        kept.unwritten.remove(revoked);
        // Others may have come or ended since.
        let mut list = List::clone(&self.in_force.list());
        list.remove(revoked);
        self.in_force.replace(list);
        Ok(())
    }

    /// Takes entries out that are long over; the file loses them when it is written next. To be called
    /// every second or so.
    pub fn forget_ended(&self, now: Now) {
        let mut kept = self.kept();
        let list = self.in_force.list();
        let over = kept.learnt.long_over(&list, now);
        if !over.is_empty() {
            let mut list = List::clone(&list);
            for revoked in &over {
                list.remove(revoked);
                kept.unwritten.remove(revoked);
            }
            self.in_force.replace(list);
        }
    }

    pub fn status(&self) -> RegisterStatus {
        let kept = self.kept();
        RegisterStatus {
            file: kept.path.clone(),
            error: kept.error.clone(),
            unwritten: kept.unwritten.len(),
        }
    }

    /// Whoever changes the list begins with what the file says now.
    fn catch_up(&self, turn: &HeldTurn<'_>) {
        let (path, version) = {
            let kept = self.kept();
            (kept.path.clone(), kept.version)
        };
        if path.is_some_and(|path| Stamp::of(&path) != version) {
            self.read(turn);
        }
    }

    fn read(&self, _: &HeldTurn<'_>) {
        let Some(path) = self.kept().path.clone() else { return };
        let version = Stamp::of(&path);
        let mut sources = Sources::default();
        let loaded = load(&path, &mut sources);
        let mut kept = self.kept();
        if kept.path.as_ref() != Some(&path) {
            // It is kept elsewhere since.
            return;
        }
        kept.version = version;
        kept.watch = FileWatch::default();
        match loaded {
            Ok(list) => {
                kept.error = None;
                self.replace(&mut kept, list);
            }
            Err(mistakes) => {
                let error = sources.render(&mistakes, false);
                tracing::error!("revocations not read, those in force stay:\n{error}");
                kept.error = Some(Failure {
                    at: clock::unix_seconds(),
                    error,
                });
            }
        }
    }

    fn write(&self, _: &HeldTurn<'_>, list: &List) -> Result<(), RegisterError> {
        let (path, error) = {
            let kept = self.kept();
            (kept.path.clone(), kept.error.clone())
        };
        let Some(path) = path else { return Ok(()) };
        if let Some(Failure { error, .. }) = error {
            // Written over, it would lose what somebody was about to say.
            return Err(RegisterError::NotWritten(error));
        }
        files::replace(&path, text(list).as_bytes(), files::Mode::Kept).map_err(|error| {
            tracing::error!(%error, "revocations cannot be written: a restart would forget the newest");
            RegisterError::NotWritten(format!("cannot write {}: {error}", path.display()))
        })?;
        let version = Stamp::of(&path);
        let mut kept = self.kept();
        // What came while it was written is still to be written.
        kept.unwritten.retain(|revoked, terms| list.get(revoked) != Some(terms));
        kept.changes += 1;
        if kept.path.as_ref() == Some(&path) {
            kept.version = version;
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> RegisterError {
    RegisterError::NotWritten("whoever reads or writes the file has not finished".to_owned())
}

/// What the file says, or every mistake in it.
pub(super) fn load(path: &Path, sources: &mut Sources) -> Result<List, Mistakes> {
    let file = revocations::load(path, sources)?;
    let (mut list, mut mistakes) = (List::new(), Mistakes::default());
    for entry in &file.revocations {
        match revoked(entry) {
            Ok(revoked) => {
                let terms = Terms {
                    until: entry.until.as_ref().map(|until| until.0),
                    reason: entry.reason.as_ref().map(|reason| reason.as_str().into()),
                };
                list.insert(revoked, terms);
            }
            Err(why) => {
                mistakes.push(Mistake::new(Code::BadValue, entry.name.span(), "this cannot be revoked").label(why.0));
            }
        }
    }
    if list.len() > MOST {
        let at = file.revocations.get(MOST).and_then(|entry| entry.name.span());
        let message = format!("more than {MOST} revocations");
        let hint = "a revoked tenant or subject stands for all of its tokens; give entries an `until`";
        mistakes.push(Mistake::new(Code::OutOfRange, at, message).hint(hint));
    }
    if mistakes.is_empty() { Ok(list) } else { Err(mistakes) }
}

fn revoked(entry: &Revocation) -> Result<Revoked, NotRevocable> {
    let kind = match entry.what {
        What::Key => RevokedKind::Key,
        What::Jti => RevokedKind::Token,
        What::Subject => RevokedKind::Subject,
        What::Tenant => RevokedKind::Tenant,
    };
    Revoked::new(kind, &entry.name, entry.issuer.as_ref().map(|issuer| issuer.as_str()))
}

/// The file that says this list.
fn text(list: &List) -> String {
    let mut text = String::from(
        "# Written by the gateway when the list is changed through its admin API: comments are lost then.\nrevocations:",
    );
    text.push_str(if list.is_empty() { " []\n" } else { "\n" });
    for (revoked, terms) in list {
        let _ = write!(text, "  - {{ {}: {}", revoked.kind().as_str(), written(revoked.name()));
        if let Some(issuer) = revoked.issuer() {
            let _ = write!(text, ", issuer: {}", written(issuer));
        }
        if let Some(until) = terms.until {
            let until = Timestamp(Duration::from_secs(until)).whole_seconds();
            let _ = write!(text, ", until: {until}");
        }
        if let Some(reason) = &terms.reason {
            let _ = write!(text, ", reason: {}", written(reason));
        }
        text.push_str(" }\n");
    }
    text
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are {MOST} revocations already"),
            Self::Absent => f.write_str("there is no such revocation"),
            Self::NotWritten(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RegisterError {}

#[cfg(test)]
mod tests {
    use policies::WallTime;

    use super::*;

    fn key(id: &str) -> Revoked {
        Revoked::new(RevokedKind::Key, id, None).unwrap()
    }

    fn list(ids: &[&str]) -> List {
        ids.iter().map(|id| (key(id), Terms::default())).collect()
    }

    struct Bench {
        _folder: tempfile::TempDir,
        path: PathBuf,
        register: Register,
    }

    fn bench(content: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.yaml");
        std::fs::write(&path, content).unwrap();
        let register = Register::default();
        register.keep_in(Some(&found(&path, &register)));
        Bench {
            _folder: folder,
            path,
            register,
        }
    }

    /// The file as a plan finds it.
    fn found(path: &Path, register: &Register) -> RevocationFile {
        let changes = Some(register.changes());
        let mut sources = Sources::default();
        let list = load(path, &mut sources).unwrap();
        RevocationFile {
            path: path.to_owned(),
            version: sources.reader().stamp(path),
            list,
            changes,
        }
    }

    impl Bench {
        #[track_caller]
        fn check(&self, ids: &[&str]) {
            let list = self.register.in_force.list();
            let found: Vec<_> = list.keys().map(|revoked| &**revoked.name()).collect();
            assert_eq!(found, ids);
        }

        fn edit(&self, content: &str) {
            files::replace(&self.path, content.as_bytes(), files::Mode::Kept).unwrap();
        }

        fn after_restart(&self) -> Register {
            let register = Register::default();
            register.keep_in(Some(&found(&self.path, &register)));
            register
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let path = tempfile::tempdir().unwrap().keep().join("revoked.yaml");
        let strange = ["k1", "true", "007", "\"", "${HOME}", "$${HOME}", "a:b", "#", "null"];
        let mut all = list(&strange);
        for issuer in [None, Some("main")] {
            for kind in [RevokedKind::Token, RevokedKind::Subject] {
                let revoked = Revoked::new(kind, "{x:y,z}", issuer).unwrap();
                let terms = Terms {
                    until: Some(4_000_000_000),
                    reason: Some("a \"leak\"\n# of ${HOME}".into()),
                };
                all.insert(revoked, terms);
            }
        }
        all.insert(
            Revoked::new(RevokedKind::Tenant, "acme", None).unwrap(),
            Terms::default(),
        );
        for list in [List::new(), all] {
            std::fs::write(&path, text(&list)).unwrap();
            let mut sources = Sources::default();
            let read = load(&path, &mut sources).unwrap_or_else(|m| panic!("{}", sources.render(&m, false)));
            assert_eq!(read, list);
        }
    }

    #[test]
    fn changes_hold_at_once_and_over_a_restart() {
        let bench = bench("revocations: [{ key: a }]");
        bench.register.revoke(list(&["b"])).unwrap();
        bench.check(&["a", "b"]);
        assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
        bench.register.restore(&key("a")).unwrap();
        bench.check(&["b"]);
        assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
        assert!(matches!(bench.register.restore(&key("a")), Err(RegisterError::Absent)));
        assert_eq!(bench.register.status().unwritten, 0);
    }

    #[test]
    fn an_edited_file_is_read_once_it_stays_as_it_is() {
        let bench = bench("revocations: []");
        bench.edit("revocations: [{ key: a }]");
        bench.register.follow(Moment::ZERO);
        bench.check(&[]);
        bench.register.follow(Moment::ZERO);
        bench.check(&["a"]);
        bench.edit("revocations: []");
        bench.register.follow(Moment::ZERO);
        bench.register.follow(Moment::ZERO);
        bench.check(&[]);
    }

    #[test]
    fn a_plan_that_read_the_file_before_it_was_written_takes_nothing_out() {
        let bench = bench("revocations: [{ key: a }]");
        let before = found(&bench.path, &bench.register);
        bench.register.revoke(list(&["b"])).unwrap();
        bench.register.keep_in(Some(&before));
        bench.check(&["a", "b"]);
        bench.edit("revocations: [{ key: c }]");
        bench.register.keep_in(Some(&found(&bench.path, &bench.register)));
        bench.check(&["c"]);
        let other = bench.path.with_extension("other");
        std::fs::write(&other, "revocations: [{ key: d }]").unwrap();
        bench.register.keep_in(Some(&found(&other, &bench.register)));
        bench.check(&["d"]);
        bench.register.keep_in(None);
        bench.check(&["d"]);
    }

    #[test]
    fn a_file_that_never_rests_is_read_all_the_same() {
        let bench = bench("revocations: []");
        for round in 0..7 {
            bench.edit(&format!("revocations: [{{ key: a{round} }}]"));
            bench.register.follow(Moment::from_nanos(round * 200_000_000));
        }
        bench.check(&["a5"]);
    }

    #[test]
    fn a_file_system_that_does_not_answer_holds_up_no_entry_and_nobody_who_asks() {
        let mut bench = bench("revocations: []");
        bench.register.patience = Duration::from_millis(1);
        let turn = bench.register.turn.take(Duration::ZERO).expect("nobody has it");
        bench.register.forget_ended(Now::read());
        assert_eq!(bench.register.status().unwritten, 0);
        bench.register.follow(Moment::ZERO);
        let added = bench.register.revoke(list(&["b"]));
        assert!(matches!(added, Err(RegisterError::NotWritten(_))), "{added:?}");
        bench.check(&["b"]);
        assert_eq!(bench.register.status().unwritten, 1);
        drop(turn);
        bench.register.revoke(list(&["c"])).unwrap();
        assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    }

    #[test]
    fn whoever_changes_the_list_loses_nothing_that_was_just_edited() {
        let bench = bench("revocations: []");
        bench.edit("revocations: [{ key: a }]");
        bench.register.revoke(list(&["b"])).unwrap();
        bench.check(&["a", "b"]);
    }

    #[test]
    fn a_bad_file_changes_nothing_and_what_is_added_meanwhile_is_not_lost() {
        let bench = bench("revocations: [{ key: a }]");
        for bad in [
            "revocations: [{ key: a",
            "revocations: [{ keys: a }]",
            "revocations: [{ key: a b }]",
            "",
        ] {
            bench.edit(bad);
            bench.register.follow(Moment::ZERO);
            bench.register.follow(Moment::ZERO);
            bench.check(&["a"]);
            assert!(bench.register.status().error.is_some(), "{bad}");
        }
        std::fs::remove_file(&bench.path).unwrap();
        bench.register.follow(Moment::ZERO);
        bench.register.follow(Moment::ZERO);
        bench.check(&["a"]);
        let added = bench.register.revoke(list(&["b"]));
        assert!(matches!(added, Err(RegisterError::NotWritten(_))), "{added:?}");
        bench.check(&["a", "b"]);
        let taken = bench.register.restore(&key("a"));
        assert!(matches!(taken, Err(RegisterError::NotWritten(_))), "{taken:?}");
        bench.check(&["a", "b"]);
        bench.edit("revocations: [{ key: c }]");
        bench.register.follow(Moment::ZERO);
        bench.register.follow(Moment::ZERO);
        bench.check(&["b", "c"]);
        assert_eq!(bench.register.status().unwritten, 1);
        bench.register.revoke(list(&["d"])).unwrap();
        assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_while_erases_nothing() {
        let file = "revocations: [{ key: a, until: 2000-01-01 }, { key: b, until: 2199-01-01 }, { key: c }]";
        let bench = bench(file);
        bench.check(&["a", "b", "c"]);
        let at = |hours: u64, wall: u64| Now {
            moment: Moment::ZERO + Duration::from_secs(hours * 3600),
            wall: WallTime::since_epoch(Duration::from_secs(wall)),
        };
        let (in_2026, in_2200) = (1_795_521_600, 7_258_118_400);
        bench.register.forget_ended(at(0, in_2026));
        bench.register.forget_ended(at(0, in_2200));
        bench.check(&["a", "b", "c"]);
        bench.register.forget_ended(at(30, in_2200));
        bench.check(&["b", "c"]);
        bench.register.revoke(list(&["d"])).unwrap();
        let written = std::fs::read_to_string(&bench.path).unwrap();
        assert!(written.contains("key: b, until: 2199-01-01"), "{written}");
        assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    }

    #[test]
    fn without_a_file_the_list_lives_in_memory_and_is_bounded() {
        let register = Register::default();
        let ids: Vec<_> = (0..MOST).map(|number| number.to_string()).collect();
        register
            .revoke(ids.iter().map(|id| (key(id), Terms::default())).collect())
            .unwrap();
        assert!(matches!(
            register.revoke(list(&["one-more"])),
            Err(RegisterError::TooMany)
        ));
        assert_eq!(register.in_force.list().len(), MOST);
        register.restore(&key("7")).unwrap();
        register.revoke(list(&["one-more"])).unwrap();
    }
}
