//! Puts a plan in force, at the start and on every reload; a bad one changes nothing.
//!
//! In order: read, compile, and only then change the terms of limits, reconfigure the guards, swap the plan. Requests under way
//! keep the plan they began with, and are counted in the same buckets and guards as the new ones.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::compile::{Compiled, compile};
use super::{LivePlan, Plan, State};
use crate::clock;
use crate::config::{self, AccessLog, Invalid, Loaded};
use crate::files::Stamp;
use crate::observe;

/// Reads the config again whenever it is told to.
pub struct Reloader {
    path: PathBuf,
    live: Arc<LivePlan>,
    state: Arc<State>,
    last: Mutex<LastReload>,
    watched: Mutex<Watched>,
    /// One at a time: a signal and the admin API may ask at once.
    turn: Mutex<()>,
}

/// What was seen of the files that the config names, since they were last read with success.
#[derive(Default)]
struct Watched {
    /// A newer version, which is read when it has stayed the same from one look to the next.
    settling: Vec<Option<Stamp>>,
    /// One that could not be used; it is not tried again.
    refused: Vec<Option<Stamp>>,
}

/// What brings a reload about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Somebody wants the config to be read anew.
    Asked,
    /// A file that the config names has changed. The config itself is taken as it was last read: what somebody may be
    /// writing in it is not asked for yet.
    FileChanged,
}

/// How the latest attempt to put a config in force ended.
#[derive(Debug, Clone, Default)]
pub struct LastReload {
    pub successful: bool,
    /// Seconds since 1970.
    pub at: u64,
    /// What was wrong, as it stands in the log.
    pub error: Option<String>,
    /// It was the config, not only a file that it names.
    whole: bool,
}

/// Reads and compiles the config at `path`.
///
/// # Errors
/// Every mistake in it, ready to be shown.
pub fn read(path: &Path, state: &State, generation: u64) -> Result<(Compiled, Loaded), Box<Invalid>> {
    compiled(config::load(path)?, state, generation)
}

fn compiled(mut loaded: Loaded, state: &State, generation: u64) -> Result<(Compiled, Loaded), Box<Invalid>> {
    match compile(&mut loaded, state, generation) {
        Ok(compiled) => Ok((compiled, loaded)),
        Err(mistakes) => Err(Box::new(Invalid {
            sources: loaded.sources,
            mistakes,
        })),
    }
}

/// Makes a plan's numbers hold for the state it shares with its predecessors.
pub fn take_effect(plan: &Plan, state: &State) {
    let now = clock::Now::read();
    state.accounts.take_effect(&plan.terms, now);
    for backend in &plan.backends {
        backend.take_effect(now.moment);
    }
    state.forget_all_but(plan);
    state.revocations.keep_in(plan.revocations.as_deref());
    state.observer.registry.config_loaded(plan.generation);
}

/// Where the access log is to go.
pub fn access_log(loaded: &Loaded) -> observe::Target {
    match &loaded.config.access_log {
        AccessLog::Off => observe::Target::Off,
        AccessLog::Stdout => observe::Target::Stdout,
        AccessLog::File(path) => observe::Target::File(path.value.clone()),
    }
}

impl Reloader {
    pub fn new(path: PathBuf, live: Arc<LivePlan>, state: Arc<State>) -> Self {
        let last = LastReload {
            successful: true,
            at: clock::unix_seconds(),
            error: None,
            whole: true,
        };
        Self {
            path,
            live,
            state,
            last: Mutex::new(last),
            watched: Mutex::default(),
            turn: Mutex::new(()),
        }
    }

    /// Puts the config as it is now written in force; returns the generation of the new plan.
    ///
    /// # Errors
    /// What is wrong with it; everything runs on as before.
    pub fn reload(&self) -> Result<u64, String> {
        self.put_in_force(Cause::Asked)
    }

    /// Looks whether a file that the config names has changed, and then reads all of them; to be called every now and
    /// then. A bad file changes nothing and is not tried again before it changes.
    pub fn follow(&self) {
        self.state.revocations.follow(clock::now());
        let plan = self.live.load();
        let (read, found): (Vec<_>, Vec<_>) = plan
            .written
            .files
            .iter()
            .map(|(path, read)| (*read, Stamp::of(path)))
            .unzip();
        let settled = {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if found == read || found == watched.refused {
                false
            } else if found == watched.settling {
                watched.refused = found;
                true
            } else {
                watched.settling = found;
                false
            }
        };
        if settled {
            let _ = self.put_in_force(Cause::FileChanged);
        }
    }

    fn put_in_force(&self, cause: Cause) -> Result<u64, String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.try_reload(cause);
        let whole = cause == Cause::Asked;
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if result.is_ok() && !whole && last.whole && !last.successful {
                // Good files do not make a bad config good.
                self.state.observer.registry.config_refused();
            } else {
                *last = LastReload {
                    successful: result.is_ok(),
                    at: clock::unix_seconds(),
                    error: result.as_ref().err().cloned(),
                    whole,
                };
            }
        }
        match &result {
            Ok(generation) if whole => tracing::info!(generation, "config reloaded"),
            Ok(generation) => tracing::info!(generation, "a file that the config names has changed: reloaded"),
            Err(error) => {
                self.state.observer.registry.config_refused();
                tracing::error!("config not reloaded, everything runs on as before:\n{error}");
            }
        }
        result
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn last(&self) -> LastReload {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn try_reload(&self, cause: Cause) -> Result<u64, String> {
        let running = self.live.load();
        let generation = running.generation + 1;
        let loaded = match cause {
            Cause::Asked => config::load(&self.path),
            Cause::FileChanged => config::load_again(&self.path, &running.written.text),
        };
        let (Compiled { plan, warnings }, loaded) = loaded
            .and_then(|loaded| compiled(loaded, &self.state, generation))
            .map_err(|invalid| invalid.to_string())?;
        let (old, new) = (&running.edge, &plan.edge);
        let stays = old.addresses().eq(new.addresses());
        if !stays || (old.workers, &old.state_file) != (new.workers, &new.state_file) {
            return Err(
                "the names and addresses of `listeners`, `workers` and `state_file` cannot change while the gateway \
                 runs: restart it"
                    .to_owned(),
            );
        }
        self.state
            .observer
            .access_log
            .point_at(&access_log(&loaded))
            .map_err(|error| format!("the access log cannot be opened: {error}"))?;
        if !warnings.is_empty() {
            tracing::warn!("{}", loaded.sources.render_warnings(&warnings, false));
        }
        take_effect(&plan, &self.state);
        self.live.replace(Arc::new(plan));
        Ok(generation)
    }
}
