//! Puts a plan in force, at the start and on every reload. A bad config changes nothing.
//!
//! The order is: read, compile, then set the terms of limits, reconfigure the guards and swap the plan. Requests in
//! progress keep their plan, and count in the same buckets and guards as new ones.
//!
//! When a file that the config names has changed, only that file is read; all others keep the content that was read
//! last. So a file that is bad, always changing or unreachable does not block the others.

mod canary;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;

use self::canary::{Canary, Verdict};
use self::worker::{Outcome, Work, WorkPermit, Worker};
use crate::clock;
use crate::config::{self, AccessLog, Invalid, Loaded, Readable};
use crate::files::watch::{FileWatch, Look};
use crate::files::{FileReader, FileSet, Stamp};
use crate::observe;
use crate::plan::compile::{Compiled, compile_readable};
use crate::plan::{LivePlan, Plan, State};
use crate::store::StoreSettings;
use crate::usage::UsageSettings;

/// Longest wait of a reload for a change of keys or tenants in progress.
const CHANGE: Duration = Duration::from_secs(1);

/// Reloads the config on request and when its files change.
pub struct Reloader {
    reloading: Arc<Reloading>,
    worker: Worker,
}

/// The inputs of the worker thread.
struct Reloading {
    path: PathBuf,
    live: Arc<LivePlan>,
    state: Arc<State>,
    last: Mutex<LastReload>,
    /// Observed changes of the files that the config names.
    watched: Mutex<BTreeMap<PathBuf, FileWatch>>,
    /// The config file itself, if its changes are followed.
    own: Option<Mutex<OwnFile>>,
    canary: Canary,
    /// Whether the config in force is to be compiled again.
    is_to_compile: AtomicBool,
}

/// Number of looks at whether a plan is in force, and the pause between them.
const AGAIN: (u32, Duration) = (500, Duration::from_millis(10));

/// What a process does beside reloads on request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Following {
    /// Version of the config file that is in force, if its changes are followed.
    pub config: Option<Stamp>,
    /// Time for which each reload is watched, unless it asks for another.
    pub canary: Option<Duration>,
}

/// The config file: the version that was read last, whether or not it is in force, and later changes.
struct OwnFile {
    read: Option<Stamp>,
    watch: FileWatch,
}

/// Reads the time for which a reload is watched, from 1s to 1h.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn canary_time(text: &str) -> Result<Duration, String> {
    let time = config::read_duration(text).map_err(|why| format!("it {why}"))?;
    match (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time) {
        true => Ok(time),
        false => Err("it is from 1s to 1h".to_owned()),
    }
}

/// The trigger of a reload.
enum Cause<'a> {
    /// An explicit request to read the whole config again.
    Asked,
    /// Changes of these files, which the config names. The config file itself is not read, because it may be half
    /// edited and nobody has asked for its changes yet.
    FilesChanged(&'a Changed),
    /// The answers got worse since this plan was replaced.
    Returned(&'a Plan),
}

/// Files with the versions that were found; `None` if the file is missing.
type Changed = BTreeMap<PathBuf, Option<Stamp>>;

/// The result of the latest reload.
#[derive(Debug, Clone, Default)]
pub struct LastReload {
    pub successful: bool,
    /// Time of the reload, in seconds since 1970.
    pub at: u64,
    /// The error, as in the log.
    pub error: Option<String>,
    /// True if the whole config was read, and not only files that it names.
    whole: bool,
}

/// Reads and compiles the config at `path`.
///
/// # Errors
/// Every mistake in the config, ready to be shown.
pub fn read(path: &Path, state: &State, generation: u64) -> Result<(Compiled, Loaded), Box<Invalid>> {
    compile_readable(config::load_by(path, FileReader::default())?, state, generation)
}

/// Compiles an earlier text of the config at `path`, whose files `reader` gives.
///
/// # Errors
/// Every mistake in the config, ready to be shown.
pub fn read_text(
    path: &Path,
    text: &str,
    reader: FileReader,
    state: &State,
) -> Result<(Compiled, Loaded), Box<Invalid>> {
    compile_readable(config::load_again(path, text, reader)?, state, 1)
}

/// Applies a plan's limits and settings to the state that it shares with earlier plans.
pub fn take_effect(plan: &Plan, state: &State) {
    let now = clock::Now::read();
    state.accounts.rooms.resize(plan.account_limits);
    state.accounts.take_effect(&plan.terms, now);
    for backend in &plan.backends {
        backend.take_effect(now.moment);
    }
    state.responses.store().resize(plan.stored_bytes, now.moment);
    let (most, forgets) = plan.idempotency_room;
    state.idempotency.set(most, forgets);
    state.copied.resize(plan.edge.mirrored_total);
    state.observer.usage.set(plan.edge.usage.as_deref());
    for mirror in plan.listed.iter().filter_map(|route| route.mirror.as_ref()) {
        mirror.mirror.take_effect(now.moment);
    }
    state.forget_all_but(plan);
    state.revocations.keep_in(plan.revocations.as_ref());
    state.managed.take_effect(plan.tenants.clone());
}

/// Returns the configured target of the access log.
pub fn access_log(loaded: &Loaded) -> observe::Target {
    match &loaded.config.access_log {
        AccessLog::Off => observe::Target::Off,
        AccessLog::Stdout => observe::Target::Stdout,
        AccessLog::File(path) => observe::Target::File(path.value.clone()),
    }
}

impl Reloader {
    /// Starts the thread that reads files.
    pub fn new(path: PathBuf, live: Arc<LivePlan>, state: Arc<State>, following: Following) -> Self {
        let last = LastReload {
            successful: true,
            at: clock::unix_seconds(),
            error: None,
            whole: true,
        };
        let reloading = Arc::new(Reloading {
            path,
            live,
            state,
            last: Mutex::new(last),
            watched: Mutex::default(),
            own: following.config.map(|read| {
                let (read, watch) = (Some(read), FileWatch::default());
                Mutex::new(OwnFile { read, watch })
            }),
            canary: Canary::new(following.canary),
            is_to_compile: AtomicBool::new(false),
        });
        Self {
            worker: Worker::start(Arc::clone(&reloading) as Arc<dyn Work>),
            reloading,
        }
    }

    /// Reads the config and puts it in force; returns the generation of the new plan. Callers that ask at the same
    /// time share one reload.
    ///
    /// # Errors
    /// The mistakes in the config. The old plan stays in force.
    pub async fn reload(&self) -> Result<u64, Arc<str>> {
        self.worker.reload().await
    }

    /// Reloads, and returns to the plan in force before if the answers get worse within this time.
    ///
    /// # Errors
    /// As for [`Self::reload`].
    pub async fn reload_watched(&self, time: Duration) -> Result<u64, Arc<str>> {
        self.reloading.canary.want(time);
        self.worker.reload().await
    }

    /// Returns for how long the plan in force is still watched.
    pub fn watched_for(&self) -> Option<Duration> {
        self.reloading.canary.left(clock::now())
    }

    /// Compiles the config in force again, without reading it, and waits until the new plan is in force.
    ///
    /// # Errors
    /// The mistakes, or that it took too long.
    pub async fn compile_again(&self) -> Result<(), String> {
        let before = self.reloading.live.load().generation;
        self.reloading.is_to_compile.store(true, Ordering::Relaxed);
        for _ in 0..AGAIN.0 {
            self.worker.tend(clock::now());
            tokio::time::sleep(AGAIN.1).await;
            if self.reloading.live.load().generation > before {
                return Ok(());
            }
        }
        Err("The config was not compiled again in time.".to_owned())
    }

    /// Requests a reload without waiting for it.
    pub fn ask(&self) {
        self.worker.ask();
    }

    /// Starts a check of the files that the config names; changed files are read. Must be called several times a
    /// second. Never waits.
    pub fn tend(&self, now: Moment) {
        self.worker.tend(now);
    }

    pub fn path(&self) -> &Path {
        &self.reloading.path
    }

    pub fn last(&self) -> LastReload {
        self.reloading.last().clone()
    }
}

impl Work for Reloading {
    fn look(&self, turn: &WorkPermit) {
        let plan = self.live.load();
        if let Some(file) = &plan.revocations {
            turn.at(&file.path);
        }
        self.state.revocations.follow(clock::now());
        match self.canary.look(&plan, &self.state.observer.registry, clock::now()) {
            Some(Verdict::Good { generation }) => {
                tracing::info!(generation, "the config has been watched for its time, and stays");
            }
            Some(Verdict::Worse { last_good, why }) => {
                self.go_back(&last_good, &why, turn);
                return;
            }
            None => {}
        }
        if self.has_changed(turn) {
            tracing::info!(path = %self.path.display(), "the config has changed");
            if turn.begin_reading() {
                // The outcome is logged.
                let _ = self.reload(turn);
            }
            return;
        }
        if self.is_to_compile.swap(false, Ordering::Relaxed) && turn.begin_reading() {
            let compiled = self.try_reload(&Cause::FilesChanged(&Changed::new()), turn);
            if !turn.is_given_up() {
                self.note_files(compiled.err());
            }
            return;
        }
        let (due, changed) = self.look_at(&plan.written.files, turn);
        if !due.is_empty() {
            let refused = self.read_changed(&due, &changed, turn);
            if !turn.is_given_up() {
                self.note_files(refused);
            }
        }
    }

    fn reload(&self, turn: &WorkPermit) -> Outcome {
        if let Some(mut own) = self.own() {
            // A change from here on is another one.
            own.read = Stamp::of(&self.path);
        }
        let result = self.try_reload(&Cause::Asked, turn);
        if !turn.is_given_up() {
            self.note_asked(&result);
        }
        result.map_err(Into::into)
    }

    fn gave_up(&self, why: &str) {
        self.note_asked(&Err(why.to_owned()));
    }
}

impl Reloading {
    /// Puts the plan in force again that the answers were better with. Its file is not read: it holds the other one.
    fn go_back(&self, last_good: &Plan, why: &str, turn: &WorkPermit) {
        let error = format!("the config before is in force again: {why}");
        if !turn.begin_reading() {
            return;
        }
        let returned = self.try_reload(&Cause::Returned(last_good), turn);
        if turn.is_given_up() {
            return;
        }
        let error = match returned {
            Ok(generation) => {
                tracing::error!(generation, "{error}");
                error
            }
            Err(failed) => {
                tracing::error!("{error}, but not: {failed}");
                failed
            }
        };
        self.state.observer.registry.config_refused();
        *self.last() = LastReload {
            successful: false,
            at: clock::unix_seconds(),
            error: Some(error),
            whole: true,
        };
    }

    /// Whether the config file is followed, has changed, and rests. A file that is gone is not a change: an editor or a
    /// mount may be about to put another one in its place.
    fn has_changed(&self, turn: &WorkPermit) -> bool {
        if self.own.is_none() {
            return false;
        }
        turn.at(&self.path);
        let found = Stamp::of(&self.path);
        self.own().zip(found).is_some_and(|(mut own, found)| {
            let read = own.read;
            own.watch.look(read, Some(found), clock::now()) == Look::Due
        })
    }

    fn own(&self) -> Option<MutexGuard<'_, OwnFile>> {
        let own = self.own.as_ref()?;
        Some(own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the files to read now, and all changed files, including those whose content was refused before.
    fn look_at(&self, files: &FileSet, turn: &WorkPermit) -> (BTreeSet<PathBuf>, Changed) {
        let (mut due, mut changed) = (BTreeSet::new(), Changed::new());
        let unreachable = turn.unreachable();
        for (path, version) in files.iter().filter(|(path, _)| !unreachable.contains(*path)) {
            turn.at(path);
            let (found, now) = (Stamp::of(path), clock::now());
            let mut watched = self.watched();
            let watch = watched.entry(path.clone()).or_default();
            let look = watch.look(self.state.managed.version(path, version.stamp), found, now);
            if let Some(waited) = watch.overdue(now) {
                tracing::warn!(path = %path.display(), ?waited, "a file has changed and has not been read for long");
            }
            if look == Look::Due {
                due.insert(path.clone());
            }
            if look == Look::Due || watch.is_refused() {
                changed.insert(path.clone(), found);
            }
        }
        self.watched().retain(|path, _| files.contains_key(path));
        (due, changed)
    }

    /// Reads the changed files, first all together: files may depend on each other, like a certificate and its key. If
    /// that fails, each due file is tried alone, so that a bad file does not block the others. Returns an error, if
    /// any.
    fn read_changed(&self, due: &BTreeSet<PathBuf>, changed: &Changed, turn: &WorkPermit) -> Option<String> {
        let attempt = |files: &Changed| {
            let ours = turn.begin_reading();
            ours.then(|| self.try_reload(&Cause::FilesChanged(files), turn).err())?
        };
        let of_all = attempt(changed)?;
        if changed.len() == 1 {
            return Some(of_all);
        }
        let alone = |path: &PathBuf| attempt(&Changed::from([(path.clone(), changed.get(path).copied()?)]));
        // Every file is tried, even if another one fails.
        let refused: Vec<String> = due.iter().filter_map(alone).collect();
        refused.into_iter().next_back().or(Some(of_all))
    }

    /// Logs and records the result of a reload that file changes triggered.
    fn note_files(&self, refused: Option<String>) {
        let generation = self.live.load().generation;
        let is_bad = self.watched().values().any(FileWatch::is_refused);
        match &refused {
            None => tracing::info!(generation, "a file that the config names has changed: reloaded"),
            Some(error) => {
                tracing::error!("a file that the config names is not used, everything else runs on:\n{error}");
            }
        }
        let mut last = self.last();
        let bad_config = last.whole && !last.successful;
        if is_bad || bad_config {
            // A good file fixes neither a bad config nor another bad file.
            self.state.observer.registry.config_refused();
        }
        if !bad_config && (refused.is_some() || !is_bad) {
            *last = LastReload {
                successful: refused.is_none(),
                at: clock::unix_seconds(),
                error: refused,
                whole: false,
            };
        }
    }

    /// Logs and records the result of a requested reload.
    fn note_asked(&self, result: &Result<u64, String>) {
        *self.last() = LastReload {
            successful: result.is_ok(),
            at: clock::unix_seconds(),
            error: result.as_ref().err().cloned(),
            whole: true,
        };
        match result {
            Ok(generation) => tracing::info!(generation, "config reloaded"),
            Err(error) => {
                self.state.observer.registry.config_refused();
                tracing::error!("config not reloaded, everything runs on as before:\n{error}");
            }
        }
    }

    /// Reads, compiles and puts in force. Records which file versions are now handled.
    fn try_reload(&self, cause: &Cause<'_>, turn: &WorkPermit) -> Result<u64, String> {
        // Until the new plan is in force, no change of keys or tenants comes in between.
        let _turn = self.state.managed.turn(CHANGE);
        let running = self.live.load();
        let generation = running.generation + 1;
        let on_read = turn.teller();
        let loaded = match cause {
            Cause::Asked => {
                let reader = FileReader::new(FileSet::new(), turn.unreachable(), on_read);
                config::load_by(&self.path, reader)
            }
            Cause::FilesChanged(fresh) => self.load_again(&running, Some(fresh), turn),
            Cause::Returned(last_good) => self.load_again(last_good, None, turn),
        };
        let compiled = loaded.and_then(|readable| compile_readable(readable, &self.state, generation));
        let (Compiled { plan, warnings }, loaded) = match compiled {
            Ok(made) => made,
            Err(mut invalid) => {
                if let Cause::FilesChanged(fresh) = cause {
                    self.refuse(fresh, invalid.sources.reader());
                }
                return Err(invalid.to_string());
            }
        };
        let (old, new) = (&running.edge, &plan.edge);
        let stays = old.addresses().eq(new.addresses());
        if !stays || (old.workers, &old.state_file, old.admin) != (new.workers, &new.state_file, new.admin) {
            return Err(
                "the names and addresses of `listeners`, those of `admin`, `workers` and `state_file` cannot change \
                 while the gateway runs: restart it"
                    .to_owned(),
            );
        }
        let folder = |usage: &Option<Arc<UsageSettings>>| {
            usage
                .as_ref()
                .map(|usage| (usage.folder.clone(), usage.replica.clone()))
        };
        if let (Some(old), Some(new)) = (folder(&old.usage), folder(&new.usage))
            && old != new
        {
            return Err(
                "`folder` and `replica` of `usage` cannot change while the gateway runs: restart it".to_owned(),
            );
        }
        let kept = |usage: &Option<Arc<UsageSettings>>| usage.as_ref().is_some_and(|usage| usage.folder.is_some());
        if kept(&old.usage) != kept(&new.usage) {
            return Err(
                "`usage` with a `folder` cannot be turned on or off while the gateway runs: restart it".to_owned(),
            );
        }
        if !StoreSettings::are_same(old.store.as_ref(), new.store.as_ref()) {
            return Err(
                "`redis`, `lease_time` and `call_limit` of `limits_store` cannot change while the gateway runs: restart \
                 it"
                .to_owned(),
            );
        }
        // A log rotation reopens the access log on request only, not at a change of another file.
        let log = match cause {
            Cause::Asked => Some(
                observe::access_log::Opened::open(&access_log(&loaded))
                    .map_err(|error| format!("the access log cannot be opened: {error}"))?,
            ),
            Cause::FilesChanged(_) | Cause::Returned(_) => None,
        };
        if !turn.commit() {
            return Err("it took too long".to_owned());
        }
        if !warnings.is_empty() {
            tracing::warn!("{}", loaded.sources.render_warnings(&warnings, false));
        }
        if let Some(log) = log {
            self.state.observer.access_log.point_at(log);
        }
        take_effect(&plan, &self.state);
        if matches!(cause, Cause::Asked) {
            let registry = &self.state.observer.registry;
            self.canary.begin(&running, generation, registry, clock::now());
        }
        self.live.replace(Arc::new(plan));
        // Not earlier: whoever waits for this number may rely on the new plan.
        self.state.observer.registry.config_loaded(generation);
        // The plan in force now has the versions that were just read.
        let mut watched = self.watched();
        match cause {
            Cause::Asked | Cause::Returned(_) => watched.clear(),
            Cause::FilesChanged(fresh) => watched.retain(|path, _| !fresh.contains_key(path)),
        }
        Ok(generation)
    }

    /// Reads the config of a plan again as it was, with its files as they were but those that have changed.
    fn load_again(&self, plan: &Plan, changed: Option<&Changed>, turn: &WorkPermit) -> Result<Readable, Box<Invalid>> {
        let kept = plan.written.files.iter().chain(&plan.written.revocations);
        let kept = kept.filter(|(path, _)| !changed.is_some_and(|changed| changed.contains_key(*path)));
        let mut kept: FileSet = kept.map(|(path, version)| (path.clone(), version.clone())).collect();
        for (path, written) in self.state.managed.written() {
            if let Some(version) = kept.get_mut(&path) {
                *version = written;
            }
        }
        let reader = FileReader::new(kept, turn.unreachable(), turn.teller());
        config::load_again(&self.path, &plan.written.text, reader)
    }

    /// Marks these versions as refused, so that they are not tried again.
    fn refuse(&self, files: &Changed, reader: &FileReader) {
        let mut watched = self.watched();
        for (path, found) in files {
            let version = reader.stamp(path).or(*found);
            watched.entry(path.clone()).or_default().refuse(version);
        }
    }

    fn last(&self) -> MutexGuard<'_, LastReload> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<PathBuf, FileWatch>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
