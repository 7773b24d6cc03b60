//! Compares two configs by what they mean: what they decide on requests, and which settings have other values.
//!
//! Both are compiled, and a set of requests is explained by each: for every route each path and method, from callers of
//! every tier and tenant. What the explanations say differently are the effects. The settings are those of the configs as
//! they are read, with defaults filled in and in one unit, so that neither order nor spelling counts.
//!
//! Invariant: without a difference in effects and settings, both decide alike on every request, because a decision
//! depends on nothing else than what is compared.

mod effects;
mod leaves;
mod settings;
mod witnesses;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::config::{Code, Config, Invalid, Loaded, Mistake, Sources};
use crate::control::reload;
use crate::files::{FileReader, FileSet};
use crate::observe::{Observer, Target};
use crate::plan::compile::Compiled;
use crate::plan::{Plan, State};
use crate::setting::Location;

/// A config to compare.
pub struct Side {
    plan: Plan,
    config: Config,
    /// Folder that file names are relative to.
    folder: PathBuf,
    /// All files that the config names, with the config itself unless it came as a text.
    files: FileSet,
    path: PathBuf,
    /// Keeps alive what the plan uses.
    _state: State,
}

/// What two configs differ in.
#[derive(Debug, Default, Serialize)]
pub struct Difference {
    /// What is decided differently.
    pub effects: Vec<Effect>,
    /// Settings that can decide on requests.
    pub settings: Vec<Change>,
    /// Settings that decide on none, such as addresses and logs.
    pub operation: Vec<Change>,
}

/// Something that is decided differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// What it is about: `route`, `limit`, `time` and so on.
    pub topic: String,
    /// One sentence.
    pub text: String,
    pub old_at: Option<Location>,
    pub new_at: Option<Location>,
}

/// A setting with another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Path of the setting.
    pub setting: String,
    /// `null` where the setting is absent.
    pub old: Option<String>,
    pub new: Option<String>,
    pub old_at: Option<Location>,
    pub new_at: Option<Location>,
}

impl Side {
    /// Reads and compiles a config.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(path: &Path) -> Result<Self, Box<Invalid>> {
        let state = fresh()?;
        let read = reload::read(path, &state, 1)?;
        Ok(Self::of(path, read, state))
    }

    /// Compiles a text of the config at `path`. Files that are in `files` are not read again.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn of_text(path: &Path, text: &str, files: FileSet) -> Result<Self, Box<Invalid>> {
        let state = fresh()?;
        let reader = FileReader::new(files, BTreeSet::new(), Arc::new(|_| ()));
        let read = reload::read_text(path, text, reader, &state)?;
        Ok(Self::of(path, read, state))
    }

    fn of(path: &Path, (compiled, mut loaded): (Compiled, Loaded), state: State) -> Self {
        Self {
            plan: compiled.plan,
            files: loaded.sources.reader().all(),
            config: loaded.config,
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            path: path.to_owned(),
            _state: state,
        }
    }

    /// Returns the place of a setting, or of the nearest section around it.
    fn place(&self, setting: &str) -> Option<Location> {
        self.plan.outline.place(setting).cloned()
    }
}

/// Returns a state for a plan that never takes effect.
fn fresh() -> Result<State, Box<Invalid>> {
    match Observer::start(&Target::Off) {
        Ok(observer) => Ok(State::new(observer)),
        Err(error) => {
            let message = format!("no thread can be started: {error}");
            Err(Box::new(Invalid {
                sources: Sources::default(),
                mistakes: Mistake::new(Code::Unreadable, None, message).into(),
            }))
        }
    }
}

/// Compares two configs.
pub fn compare(old: &Side, new: &Side) -> Difference {
    let (settings, operation) = settings::compare(old, new);
    Difference {
        effects: effects::compare(old, new),
        settings,
        operation,
    }
}

impl Difference {
    /// Whether both decide alike on every request.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.settings.is_empty()
    }
}
