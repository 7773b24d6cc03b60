//! Imports go down: a room of `gateway/src` uses only rooms that stand on lower floors than its own.
//!
//! Tests within the source are left out: they may use whatever they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms by floor, from the ground up. Rooms on one floor do not use each other.
const FLOORS: [&[&str]; 18] = [
    &["message"],
    &[
        "cache",
        "clock",
        "files",
        "fingerprint",
        "header_fields",
        "overload",
        "setting",
    ],
    &["rejection"],
    &["client", "compression", "json", "tls"],
    &["metering", "problem", "template"],
    &["identity", "request_key", "routing", "wire"],
    &["config", "headers", "usage"],
    &["import", "observe"],
    &["store"],
    &["call", "idempotency", "limits"],
    &["aggregate", "auth", "response"],
    &["tenancy"],
    &["plan"],
    &["control", "pipeline"],
    &["diff", "server"],
    &["admin", "simulation"],
    &["hand_over"],
    &["cli"],
];

/// Compiled for tests alone.
const FOR_TESTS: [&str; 1] = ["generated"];

#[test]
fn imports_go_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find(&source, &mut files);
    let mut upward = Vec::new();
    for file in files {
        let path = file.strip_prefix(&source).expect("it was found there");
        let room = path.components().next().expect("a file has a name");
        let room = room.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&room.as_str()) || FOR_TESTS.contains(&room.as_str()) {
            continue;
        }
        let own = floor(&room).unwrap_or_else(|| panic!("`{room}` has no floor: put it into FLOORS"));
        let text = fs::read_to_string(&file).expect("a source file can be read");
        for used in used(&text) {
            if used != room && !FOR_TESTS.contains(&used.as_str()) && floor(&used).is_none_or(|floor| floor >= own) {
                upward.push(format!("{}: `{room}` uses `{used}`", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Source files that are not tests.
fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the source is there") {
        let path = entry.expect("the source is there").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if ["tests", "properties", "scripted"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The rooms that a file names with `crate::`, outside of comments and tests.
fn used(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = line.len() - line.trim_start().len();
            let ends = |line: &str| {
                let own = line.len() - line.trim_start().len() == indent && !line.trim_start().starts_with("#[");
                own && (line.ends_with('}') || line.ends_with(';'))
            };
            for line in lines.by_ref() {
                if ends(line) {
                    break;
                }
            }
            continue;
        }
        let code = line.split("//").next().unwrap_or_default();
        for after in code.split("crate::").skip(1) {
            let names = after
                .strip_prefix('{')
                .map_or(after, |group| group.split('}').next().unwrap_or(group));
            let is_group = after.starts_with('{');
            for name in names.split(',').take(if is_group { usize::MAX } else { 1 }) {
                let name = name
                    .trim()
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_');
                rooms.insert(name.collect::<String>());
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn what_a_file_uses_is_found() {
    let text = "use crate::call::{self, Order};\n// crate::cli is not meant\nuse crate::{clock, problem};\n#[cfg(test)]\nmod tests {\n    use crate::admin::Admin;\n}\nfn f() { crate::json::read() }\n";
    let found: Vec<_> = used(text).into_iter().collect();
    assert_eq!(found, ["call", "clock", "json", "problem"]);
}
