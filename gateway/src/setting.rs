//! Identities of settings, so that whatever a setting decides can name it, with its line in the config.
//!
//! Everything that can decide on a request (a limit, a backend, a deadline, an access rule) holds the [`SettingId`] of
//! its setting and hands it on with the decision. The path and the line are looked up only when a decision is recorded.
//!
//! Invariant: an id belongs to the table that it was added to. Only the ids of [`SettingId`]'s constants are the same in
//! every table. A request keeps the table of its plan, and a connection that of the plan it began with.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::Serialize;

/// Number of a setting in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SettingId(NonZeroU32);

/// Defines the settings that stand outside of routes, backends and callers: one constant and one path in each row.
macro_rules! general {
    ($($name:ident $path:literal;)+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum General { $($name,)+ }

        const GENERAL: [&str; [$($path),+].len()] = [$($path),+];

        impl SettingId {
            $(#[doc = concat!("`", $path, "`")] pub const $name: Self = Self::at(General::$name as u32);)+
        }
    };
}

general! {
    HEAD_BYTES "request_limits.head";
    HEAD_FIELDS "request_limits.headers";
    URI "request_limits.uri";
    JSON_TOTAL "request_limits.json_total";
    PARKED_TOTAL "request_limits.parked_total";
    HEAD_TIME "time_limits.head";
    REQUEST_TIME "time_limits.request";
    CONNECT_TIME "time_limits.connect";
    BODY_RATE "minimum_rates.body";
    OVERLOAD "overload";
    CONNECTIONS "connection_limits.total";
    CONNECTIONS_PER_ADDRESS "connection_limits.per_address";
    VERIFICATION_SHARE "callers.verifications.share";
    FAILED_VERIFICATIONS "callers.verifications.rate";
    DOT_SEGMENTS "path_policy.dot_segments";
    DOUBLE_SLASH "path_policy.double_slash";
    ENCODED_SLASH "path_policy.encoded_slash";
    BACKSLASH "path_policy.backslash";
}

/// A value with the setting that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configured<T> {
    pub value: T,
    pub by: SettingId,
}

/// A place in a file. Line and column count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

/// A setting of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Path in the config, such as `backends.users.time_limit`.
    pub path: Box<str>,
    /// Where the setting is written. For a default, where the nearest section around it is written, if one is.
    pub at: Option<Location>,
    /// False for a default.
    pub is_written: bool,
}

/// All settings of one plan that can decide on a request.
#[derive(Debug)]
pub struct Settings(Box<[Setting]>);

/// Collects settings while a plan is compiled.
#[derive(Debug)]
pub struct SettingsBuilder {
    paths: Vec<Box<str>>,
    ids: HashMap<Box<str>, SettingId>,
}

impl SettingId {
    const fn at(index: u32) -> Self {
        // The addition cannot overflow: a table has far fewer entries.
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Settings {
    /// Returns the setting with this id; `None` if the id is of another table.
    pub fn get(&self, id: SettingId) -> Option<&Setting> {
        self.0.get(id.index())
    }

    pub fn iter(&self) -> impl Iterator<Item = (SettingId, &Setting)> {
        (0..).map(SettingId::at).zip(&self.0)
    }
}

impl Default for SettingsBuilder {
    fn default() -> Self {
        let mut builder = Self {
            paths: Vec::new(),
            ids: HashMap::new(),
        };
        for path in GENERAL {
            builder.add(path);
        }
        builder
    }
}

impl SettingsBuilder {
    /// Returns the id of the setting at `path`, the same for every call.
    pub fn add(&mut self, path: &str) -> SettingId {
        if let Some(known) = self.ids.get(path) {
            return *known;
        }
        // More settings than 32 bits can number do not fit into a config file.
        let id = SettingId::at(u32::try_from(self.paths.len()).unwrap_or(u32::MAX));
        self.paths.push(path.into());
        self.ids.insert(path.into(), id);
        id
    }

    /// Completes the table. `places` has the location of each written setting and section, by its path.
    pub fn build(self, places: &HashMap<String, Location>) -> Settings {
        let located = |path: Box<str>| Setting {
            at: nearest(places, &path).cloned(),
            is_written: places.contains_key(&*path),
            path,
        };
        Settings(self.paths.into_iter().map(located).collect())
    }
}

/// Returns the location of `path`, or of the nearest section around it; `None` if neither is written.
pub fn nearest<'p>(places: &'p HashMap<String, Location>, path: &str) -> Option<&'p Location> {
    let around = |inner: &&str| inner.rfind('.').map(|dot| &path[..dot]);
    std::iter::successors(Some(path), around).find_map(|path| places.get(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(paths: &[&str], written: &[(&str, usize)]) -> (Vec<SettingId>, Settings) {
        let mut builder = SettingsBuilder::default();
        let ids = paths.iter().map(|path| builder.add(path)).collect();
        let at = |line| Location {
            file: "gateway.yaml".into(),
            line,
            column: 1,
        };
        let places = written.iter().map(|(path, line)| ((*path).to_owned(), at(*line)));
        (ids, builder.build(&places.collect()))
    }

    #[test]
    fn a_default_is_found_where_the_section_around_it_is_written() {
        let written = [("backends.users", 3), ("backends.users.breaker", 5), ("tenants.a.b", 7)];
        for (path, line, is_written) in [
            ("backends.users.breaker", Some(5), true),
            ("backends.users.breaker.window", Some(5), false),
            ("backends.users.bulkhead.wait", Some(3), false),
            ("backends.orders", None, false),
            ("tenants.a.b", Some(7), true),
            ("tiers.free", None, false),
        ] {
            let (ids, settings) = table(&[path], &written);
            let found = settings.get(ids[0]).expect("it is in its own table");
            assert_eq!((&*found.path, found.is_written), (path, is_written));
            assert_eq!(found.at.as_ref().map(|at| at.line), line, "{path}");
        }
    }

    #[test]
    fn a_path_has_one_id() {
        let (ids, settings) = table(
            &["routes.a", "routes.b", "routes.a", "time_limits.request"],
            &[("time_limits.request", 2)],
        );
        assert_eq!(ids[0], ids[2]);
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[3], SettingId::REQUEST_TIME);
        assert_eq!(settings.iter().count(), GENERAL.len() + 2);
        for (id, setting) in settings.iter() {
            assert_eq!(settings.get(id), Some(setting));
        }
    }

    #[test]
    fn an_id_is_small() {
        assert_eq!(size_of::<Option<SettingId>>(), 4);
    }
}
