//! Compares the settings of two configs, as they are read.

use std::path::{Path, PathBuf};

use super::leaves::{Leaves, leaves};
use super::{Change, Side};
use crate::config::{JwtKeys, Secret};
use crate::files::FileSet;

/// Settings that decide on no request: begins of their paths, or with `*` for a name.
const OPERATION: [&str; 9] = [
    "workers",
    "watch",
    "access_log",
    "admin",
    "state_file",
    "usage",
    "time_limits.drain",
    "listeners.*.address",
    "callers.api_keys.file",
];

/// Returns the settings that can decide on requests, and those that cannot, which differ.
pub(super) fn compare(old: &Side, new: &Side) -> (Vec<Change>, Vec<Change>) {
    let mut changes = changes(&of(old), &of(new));
    for change in &mut changes {
        change.old_at = change.old.as_ref().and_then(|_| old.place(&change.setting));
        change.new_at = change.new.as_ref().and_then(|_| new.place(&change.setting));
    }
    changes.into_iter().partition(|change| !is_operation(&change.setting))
}

/// Returns the values of a config with those of its key file.
fn of(side: &Side) -> Leaves {
    let folder = format!("{}/", side.folder.display());
    let relative = |value: String| match value.strip_prefix(&folder) {
        Some(rest) if folder.len() > 1 => rest.to_owned(),
        _ => value,
    };
    let mut all: Leaves = leaves(&side.config)
        .into_iter()
        .map(|(path, value)| (written_path(&path), relative(value)))
        .collect();
    for (name, issuer) in side.config.callers.jwt.iter() {
        if let Some(secret) = secret(&issuer.keys) {
            // Only whether it is the same may be known.
            all.insert(
                format!("callers.jwt.{name}.keys.secret"),
                mark(secret.expose().as_bytes()),
            );
        }
    }
    let mut meant = Vec::new();
    if let Some(keys) = side.plan.authenticator.api_keys() {
        meant.extend(
            side.config
                .callers
                .api_keys
                .as_ref()
                .map(|keys| keys.file.value.clone()),
        );
        for key in keys.all() {
            let about = format!("keys.{}", key.id);
            for (path, value) in leaves(key) {
                // A label is for people; the digest is that of the key, and is known to whom may read the file.
                if !path.starts_with("label") && !path.starts_with("digest") && !path.starts_with('.') {
                    all.insert(format!("{about}.{path}"), value);
                }
            }
            all.insert(format!("{about}.digest"), mark(&key.digest));
        }
    }
    meant.push(side.path.clone());
    all.extend(files(&side.files, &side.folder, &meant));
    all
}

fn secret(keys: &JwtKeys) -> Option<&Secret> {
    match keys {
        JwtKeys::Secret(secret) => Some(secret),
        _ => None,
    }
}

/// Returns the contents of the other files, by name.
fn files<'a>(
    files: &'a FileSet,
    folder: &'a Path,
    meant: &'a [PathBuf],
) -> impl Iterator<Item = (String, String)> + 'a {
    let others = files.iter().filter(|(path, _)| !meant.contains(path));
    others.map(move |(path, version)| {
        let name = path.strip_prefix(folder).unwrap_or(path);
        (format!("file {}", name.display()), mark(&version.bytes))
    })
}

/// Returns a mark that tells contents apart and cannot be turned back into them.
fn mark(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    let digits = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}"));
    format!("(content {})", digits.collect::<String>())
}

/// Turns the name of a field into that of its key.
fn written_path(path: &str) -> String {
    path.replace(".matches", ".match")
        .replace(".moves.", ".move.")
        .replace(".rate.rate", ".rate")
        .replace(".rate.burst", ".burst")
}

/// End of the path of the kind of a section.
const KIND: &str = ".(kind)";

fn is_operation(setting: &str) -> bool {
    let is_one = |pattern: &&str| match pattern.split_once(".*.") {
        None => setting.starts_with(*pattern),
        Some((before, after)) => {
            let within = setting.strip_prefix(before).and_then(|rest| rest.strip_prefix('.'));
            within.is_some_and(|rest| rest.ends_with(after))
        }
    };
    OPERATION.iter().any(is_one)
}

/// Returns the paths whose values differ. What is absent on one side as a whole is one change.
fn changes(old: &Leaves, new: &Leaves) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        if before == after {
            continue;
        }
        let of_kind = path.strip_suffix(KIND);
        let (setting, is_whole) = match (before, after) {
            (Some(_), None) => whole(path, new),
            (None, Some(_)) => whole(path, old),
            _ => (of_kind.unwrap_or(path).to_owned(), false),
        };
        let shown = |value: Option<&String>| value.map(|value| if is_whole { "...".to_owned() } else { value.clone() });
        let change = Change {
            setting,
            old: shown(before),
            new: shown(after),
            old_at: None,
            new_at: None,
        };
        let is_part = changes.last().is_some_and(|last| {
            last.setting == change.setting
                && is_whole
                && (last.old.is_some(), last.new.is_some()) == (before.is_some(), after.is_some())
        });
        if !is_part {
            changes.push(change);
        }
    }
    changes
}

/// Returns the outermost section around a path that the other side does not have, and whether it is more than the path.
fn whole(path: &str, other: &Leaves) -> (String, bool) {
    let ends = path.match_indices(['.', '[']).map(|(at, _)| at);
    for end in ends {
        let section = &path[..end];
        let is_there = other.contains_key(section) || {
            let begin = [format!("{section}."), format!("{section}[")];
            begin.iter().any(|begin| {
                other
                    .range(begin.clone()..)
                    .next()
                    .is_some_and(|(next, _)| next.starts_with(begin))
            })
        };
        if !is_there && !section.is_empty() {
            return (section.to_owned(), true);
        }
    }
    (path.to_owned(), false)
}
