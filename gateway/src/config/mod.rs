//! Reads config files, and reports every mistake in them with its place.
//!
//! A file passes through `tree` (YAML with places) and `reader` (keeps places, collects mistakes) into the `model`.
//! This module does not check references between names, or whether limits fit into each other. `plan` does, with the
//! places that [`At`] carries and the [`Sources`] that can show them.
//!
//! Invariant: a config is returned only if it has no mistake. Unknown keys, duplicate keys and keys that have no effect
//! yet are mistakes; they are never ignored.

mod addresses;
pub mod admin_tokens;
mod asked;
pub mod edit;
pub mod endpoint_file;
pub mod entry_lines;
mod fields;
mod foreign;
mod forms;
mod free_document;
mod hint;
mod indentation;
mod json;
mod key_path;
pub mod keys;
mod line_indentation;
mod mistake;
mod model;
mod named;
pub mod policy_tests;
mod reader;
#[cfg(test)]
mod reference;
pub mod revocations;
mod scalar;
#[cfg(test)]
mod section_examples;
mod single;
mod sources;
mod span;
pub mod tenant_file;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod unknown;
mod unsound;
pub mod users;
mod value;
mod variables;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use free_document::read_document;
pub use hint::{did_you_mean, for_missing_file};
pub use mistake::{Code, Mistake, Mistakes};
pub use model::*;
pub use named::NamedMap;
pub use scalar::written;
pub use sources::{Invalid, Sources};
pub use span::{At, Span};
pub use units::{Backoff, ByteSize, Percent, Rate, Ratio, duration_text, read_duration, size_text};
pub use unsound::Unsound;

use reader::Read;
use tree::Repaired;
use unknown::Sections;
use value::{Context, Value};

use crate::files::FileReader;

/// A config without mistakes, and the sources that are needed to report later ones.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub sources: Sources,
    /// Valid settings that were probably not intended.
    pub warnings: Mistakes,
    /// Entries that are left out because they have mistakes; empty except in [`Readable`].
    pub unsound: Unsound,
    /// Files that are read with the config, also those that such entries name.
    pub files: Vec<At<PathBuf>>,
}

/// Config that may hold mistakes, as far as it can be read.
#[derive(Debug)]
pub struct Readable {
    pub loaded: Loaded,
    /// Mistakes found so far. The config is valid only if there are none.
    pub mistakes: Mistakes,
}

impl Readable {
    fn whole(self) -> Result<Loaded, Box<Invalid>> {
        let Self { loaded, mistakes } = self;
        if mistakes.is_empty() {
            return Ok(loaded);
        }
        let Loaded { sources, .. } = loaded;
        Err(Box::new(Invalid { sources, mistakes }))
    }
}

/// Reads a config file. Paths in it are relative to its folder; `${VARIABLES}` come from the environment.
pub fn load(path: &Path) -> Result<Loaded, Box<Invalid>> {
    load_by(path, FileReader::default())?.whole()
}

/// Reads what can be read of a config file, with `reader`, which then also reads the files that the config names.
pub fn load_by(path: &Path, reader: FileReader) -> Result<Readable, Box<Invalid>> {
    let mut sources = Sources::read_by(reader);
    match sources.read(path) {
        Ok(source) => finish(source, sources, path.parent().unwrap_or(Path::new(".")), &environment),
        Err(mut mistake) => {
            if !path.exists() {
                let other = hint::like_missing_file(path, hint::is_config).map(|question| question + " ");
                mistake.hint = Some(other.unwrap_or_default() + "`gateway init` writes a config to begin with");
            }
            Err(Box::new(Invalid {
                sources,
                mistakes: mistake.into(),
            }))
        }
    }
}

/// Reads what can be read of an earlier text of the file at `path`.
pub fn load_again(path: &Path, text: &str, reader: FileReader) -> Result<Readable, Box<Invalid>> {
    let base_dir = path.parent().unwrap_or(Path::new("."));
    parse_into(
        Sources::read_by(reader),
        &path.display().to_string(),
        text,
        base_dir,
        &environment,
    )
}

/// Reads a config from a text. Mistakes call it `name`.
pub fn parse(
    name: &str,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Box<Invalid>> {
    parse_readable(name, text, base_dir, env)?.whole()
}

/// Reads what can be read of a config from a text. Mistakes call it `name`.
pub fn parse_readable(
    name: &str,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Readable, Box<Invalid>> {
    parse_into(Sources::default(), name, text, base_dir, env)
}

fn parse_into(
    mut sources: Sources,
    name: &str,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Readable, Box<Invalid>> {
    match sources.add(name, text) {
        Ok(source) => finish(source, sources, base_dir, env),
        Err(mistake) => Err(Box::new(Invalid {
            sources,
            mistakes: mistake.into(),
        })),
    }
}

fn finish(
    source: u16,
    sources: Sources,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Readable, Box<Invalid>> {
    let Reading {
        value,
        mistakes,
        warnings,
        unsound,
        files,
    } = read_parts(source, &sources, base_dir, env);
    match value {
        Some(config) => Ok(Readable {
            loaded: Loaded {
                config,
                sources,
                warnings,
                unsound,
                files,
            },
            mistakes,
        }),
        None => Err(Box::new(Invalid { sources, mistakes })),
    }
}

/// Result of reading one source.
struct Reading<T> {
    /// Content without the entries that are mistaken.
    value: Option<T>,
    mistakes: Mistakes,
    warnings: Mistakes,
    unsound: Unsound,
    files: Vec<At<PathBuf>>,
}

/// Reads one source as a `T`. Returns it with the warnings, or every mistake.
fn read<T: Read>(
    source: u16,
    sources: &Sources,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(T, Mistakes), Mistakes> {
    let reading = read_parts(source, sources, base_dir, env);
    match reading.value {
        Some(value) if reading.mistakes.is_empty() => Ok((value, reading.warnings)),
        _ => Err(reading.mistakes),
    }
}

/// Largest number of readings in which misspelt keys are looked into.
const MOST_READINGS: usize = 8;

fn read_parts<T: Read>(
    source: u16,
    sources: &Sources,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Reading<T> {
    let mut of_tree = Mistakes::default();
    let parsed = tree::parse_on(source, sources.text(source), &mut of_tree);
    of_tree
        .iter_mut()
        .for_each(|mistake| variables::tell_unset(mistake, sources.text(source), env));
    let Some(Repaired { mut root, lossy }) = parsed else {
        return Reading {
            value: None,
            mistakes: of_tree,
            warnings: Mistakes::default(),
            unsound: Unsound::default(),
            files: Vec::new(),
        };
    };
    let start = Span {
        source,
        start: 0,
        end: 0,
    };
    let mut unknown = Vec::new();
    let (value, cx) = loop {
        let cx = Context {
            beginning: T::BEGINNING,
            ..Context::new(base_dir, env, of_tree.clone())
        };
        let value = T::read(&Value::new(&root, start, String::new(), &cx));
        // What stands under a misspelt key is read as if the key were right.
        let (certain, others): (Vec<_>, Vec<_>) =
            cx.unknown.take().into_iter().partition(|key| key.certain().is_some());
        let is_last = certain.is_empty() || unknown.len() >= MOST_READINGS;
        if !is_last {
            let names = certain.iter().filter_map(|key| Some((key.key.span, key.certain()?)));
            root = Rc::new(root.renamed(&names.collect()));
        }
        unknown.push(certain);
        if is_last {
            unknown.push(others);
            break (value, cx);
        }
    };
    let mut unknown: Vec<_> = unknown.into_iter().flatten().collect();
    if T::BEGINNING.is_some() && value.is_none() {
        // A file of another kind: what it should begin with is reported, and says more.
        unknown.retain(|key| !key.path.is_empty());
    }
    if !unknown.is_empty() {
        // Hints for unknown keys need the keys of all sections; a second reading collects them.
        let again = Context {
            asked: Some(RefCell::default()),
            ..cx.scratch()
        };
        let _ = T::read(&Value::new(&root, start, String::new(), &again));
        let sections = Sections::from(again.asked.unwrap_or_default().into_inner());
        let mut mistakes = cx.mistakes.borrow_mut();
        let mut seen = HashSet::new();
        unknown
            .into_iter()
            .filter(|key| seen.insert(key.key.span))
            .for_each(|key| mistakes.push(key.mistake(&sections)));
    }
    let (mistakes, warnings) = (cx.mistakes.take(), cx.warnings.take());
    let unsound = Unsound::of(&root, &mistakes, &lossy);
    Reading {
        value,
        mistakes: unsound.without_follow_ups(mistakes),
        unsound,
        warnings,
        files: cx.files.take(),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
