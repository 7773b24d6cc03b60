//! Reads config files, and reports every mistake in them with its place.
//!
//! A file passes through `tree` (YAML with places) and `reader` (keeps places, collects mistakes) into the `model`.
//! This module does not check references between names, or whether limits fit into each other. `plan` does, with the
//! places that [`At`] carries and the [`Sources`] that can show them.
//!
//! Invariant: a config is returned only if it has no mistake. Unknown keys, duplicate keys and keys that have no effect
//! yet are mistakes; they are never ignored.

mod addresses;
mod asked;
pub mod endpoint_file;
mod fields;
mod foreign;
mod hint;
mod indentation;
mod json;
mod key_path;
pub mod keys;
mod line_indentation;
mod mistake;
mod model;
mod named;
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
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod unknown;
pub mod users;
mod value;
mod variables;

use std::cell::RefCell;
use std::path::Path;

pub use mistake::{Code, Mistake, Mistakes};
pub use model::*;
pub use named::NamedMap;
pub use scalar::written;
pub use sources::{Invalid, Sources};
pub use span::{At, Span};
pub use units::{Backoff, ByteSize, Percent, Rate, Ratio, duration_text, read_duration};

use reader::Read;
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
}

/// Reads a config file. Paths in it are relative to its folder; `${VARIABLES}` come from the environment.
pub fn load(path: &Path) -> Result<Loaded, Box<Invalid>> {
    load_by(path, FileReader::default())
}

/// Reads a config file with `reader`, which then also reads the files that the config names.
pub fn load_by(path: &Path, reader: FileReader) -> Result<Loaded, Box<Invalid>> {
    let mut sources = Sources::read_by(reader);
    match sources.read(path) {
        Ok(source) => finish(source, sources, path.parent().unwrap_or(Path::new(".")), &environment),
        Err(mistake) => Err(Box::new(Invalid {
            sources,
            mistakes: mistake.into(),
        })),
    }
}

/// Reads a config from an earlier text of the file at `path`.
pub fn load_again(path: &Path, text: &str, reader: FileReader) -> Result<Loaded, Box<Invalid>> {
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
    parse_into(Sources::default(), name, text, base_dir, env)
}

fn parse_into(
    mut sources: Sources,
    name: &str,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Box<Invalid>> {
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
) -> Result<Loaded, Box<Invalid>> {
    match read(source, &sources, base_dir, env) {
        Ok((config, warnings)) => Ok(Loaded {
            config,
            sources,
            warnings,
        }),
        Err(mistakes) => Err(Box::new(Invalid { sources, mistakes })),
    }
}

/// Reads one source as a `T`. Returns it with the warnings, or every mistake.
fn read<T: Read>(
    source: u16,
    sources: &Sources,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(T, Mistakes), Mistakes> {
    let mut mistakes = Mistakes::default();
    let root = match tree::parse(source, sources.text(source), &mut mistakes) {
        Ok(root) => root,
        Err(mistake) => {
            mistakes.push(mistake);
            return Err(mistakes);
        }
    };
    let start = Span {
        source,
        start: 0,
        end: 0,
    };
    let cx = Context::new(base_dir, env, mistakes);
    let value = T::read(&Value::new(&root, start, String::new(), &cx));
    let unknown = cx.unknown.take();
    if !unknown.is_empty() {
        // Hints for unknown keys need the keys of all sections; a second reading collects them.
        let again = Context {
            asked: Some(RefCell::default()),
            ..cx.scratch()
        };
        let _ = T::read(&Value::new(&root, start, String::new(), &again));
        let sections = Sections::from(again.asked.unwrap_or_default().into_inner());
        let mut mistakes = cx.mistakes.borrow_mut();
        unknown
            .into_iter()
            .for_each(|key| mistakes.push(key.mistake(&sections)));
    }
    let (mistakes, warnings) = (cx.mistakes.into_inner(), cx.warnings.into_inner());
    match value {
        Some(value) if mistakes.is_empty() => Ok((value, warnings)),
        _ => Err(mistakes),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
