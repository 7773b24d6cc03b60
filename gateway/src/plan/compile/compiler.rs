//! What all sections of the config share while they are compiled: the input, and what was found so far.
//!
//! Invariant: a section reports a mistake and goes on, so that all mistakes come at once.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::compression::Compression;
use crate::config::{At, Config, Mistake, Mistakes, NamedMap, Sources, Span, Unsound};
use crate::plan::State;
use crate::setting::{Location, SettingId, SettingsBuilder};

/// The inputs and results that all sections share.
pub(super) struct Compiler<'a> {
    pub(super) config: &'a Config,
    /// Entries that are left out of the config because they have mistakes.
    pub(super) unsound: &'a Unsound,
    pub(super) state: &'a State,
    pub(super) sources: &'a mut Sources,
    pub(super) mistakes: Mistakes,
    pub(super) warnings: Mistakes,
    /// Locations of settings, by their path in the config.
    pub(super) places: HashMap<String, Location>,
    /// Settings that can decide on a request.
    pub(super) settings: SettingsBuilder,
    pub(super) workers: usize,
    /// Compression of the routes that have none of their own.
    pub(super) compression: Option<Arc<Compression>>,
    /// Files of endpoints whose mistakes are reported. Several backends may name one file.
    pub(super) unusable: Vec<PathBuf>,
    /// Tenants that credentials can belong to; `None` if tokens may name any.
    pub(super) tenants: Option<BTreeSet<String>>,
    /// Files that the plan depends on. A change of one of them triggers a reload.
    pub(super) files: Vec<PathBuf>,
}

impl<'a> Compiler<'a> {
    /// Finds `name`, or reports a mistake that suggests a similar name.
    pub(super) fn resolve<'m, T>(
        &mut self,
        kind: &str,
        name: &At<String>,
        all: &'m NamedMap<T>,
    ) -> Option<(&'m At<Arc<str>>, &'m T)> {
        self.resolve_but(kind, name, all, None)
    }

    /// Finds `name`, or reports a mistake that does not suggest `other`.
    pub(super) fn resolve_but<'m, T>(
        &mut self,
        kind: &str,
        name: &At<String>,
        all: &'m NamedMap<T>,
        other: Option<&str>,
    ) -> Option<(&'m At<Arc<str>>, &'m T)> {
        let found = all.entry(name);
        if found.is_none() && !all.may_contain(name) {
            self.mistakes.push(all.unknown_but(kind, name, other));
        }
        found
    }

    /// Stores the location of `setting`, if it is written.
    pub(super) fn note(&mut self, setting: String, at: Option<Span>) {
        if let Some(at) = at {
            self.places.insert(setting, self.sources.locate(at));
        }
    }

    /// Returns the id of the setting at this path.
    pub(super) fn setting(&mut self, path: &str) -> SettingId {
        self.settings.add(path)
    }

    /// Returns the id of the setting at this path, and stores its location, if it is written.
    pub(super) fn setting_at(&mut self, path: &str, at: Option<Span>) -> SettingId {
        self.note(path.to_owned(), at);
        self.setting(path)
    }

    /// Adds a tenant that credentials can belong to.
    pub(super) fn know_tenant(&mut self, name: &str) {
        if let Some(known) = &mut self.tenants {
            known.insert(name.to_owned());
        }
    }

    pub(super) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }
}
