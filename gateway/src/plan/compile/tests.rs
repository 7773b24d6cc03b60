//! Every example config compiles; every mistaken one says what it must say, to the letter.

use std::path::{Path, PathBuf};

use crate::observe::{Observer, Target};
use crate::plan::State;
use crate::plan::reload;

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(path: &Path) -> Result<String, String> {
    let state = State::new(Observer::start(&Target::Off).unwrap());
    reload::read(path, &state, 1)
        .map(|(compiled, loaded)| loaded.sources.render_warnings(&compiled.warnings, false))
        .map_err(|invalid| invalid.render(false))
}

#[test]
fn every_example_compiles() {
    for path in fixtures("configs") {
        let is_key_file = path.file_name().is_some_and(|name| name == "keys.yaml");
        // It takes a secret from the environment, as such configs should.
        let needs_environment = path.file_name().is_some_and(|name| name == "callers.yaml");
        if is_key_file || needs_environment {
            continue;
        }
        if let Err(mistakes) = read(&path) {
            panic!("{}:\n{mistakes}", path.display());
        }
    }
}

/// `UPDATE_EXPECTED=1` writes what is said now.
#[test]
fn every_mistake_is_told_at_once() {
    for path in fixtures("invalid/compile") {
        let said = read(&path).expect_err(&path.display().to_string());
        let name = path.file_name().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap().display().to_string();
        let said = said
            .replace(&format!("{folder}/"), "")
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n");
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, format!("{said}\n")).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(said.trim_end(), expected.trim_end(), "{name}");
    }
}
