//! Tests that every example config compiles, and that every invalid one gives exactly its expected messages.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::auth::jwt::jws::Algorithm;
use crate::control::reload;
use crate::observe::{Observer, Target};
use crate::plan::State;

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
        let is_no_config = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| ["endpoints.yaml", "keys.yaml", "users.yaml", "revoked.yaml"].contains(&name));
        // This config takes a secret from the environment, as recommended.
        let needs_environment = path.file_name().is_some_and(|name| name == "callers.yaml");
        if is_no_config || needs_environment {
            continue;
        }
        if let Err(mistakes) = read(&path) {
            panic!("{}:\n{mistakes}", path.display());
        }
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    says("invalid/compile", |path| read(path).expect_err("a mistaken config"));
}

#[test]
fn every_doubt_is_told() {
    says("doubtful", |path| read(path).expect("a doubtful config still runs"));
}

/// Compares the messages for each config with the file beside it. `UPDATE_EXPECTED=1` writes these files.
fn says(folder: &str, say: impl Fn(&Path) -> String) {
    for path in fixtures(folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap().display().to_string();
        let said = say(&path)
            .replace(&format!("{folder}/"), "")
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n");
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, format!("{}\n", said.trim_end())).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(said.trim_end(), expected.trim_end(), "{name}");
    }
}

/// Uses the P-521 key of RFC 7520 section 3.1, because the test keys have none.
#[test]
fn every_algorithm_can_be_configured() {
    let mut keys = Vec::new();
    for set in [fixtures::keys::JWKS, fixtures::keys::OCT_JWKS] {
        let set: Value = serde_json::from_str(set).unwrap();
        keys.extend(set["keys"].as_array().unwrap().clone());
    }
    keys.push(json!({
        "kty": "EC",
        "crv": "P-521",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
    }));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jwks.json"), json!({ "keys": keys }).to_string()).unwrap();
    for algorithm in Algorithm::ALL {
        let config = format!(
            "listeners: {{ public: {{ address: 127.0.0.1:0 }} }}
tiers: {{ open: {{ rate: 1/s, burst: 1 }} }}
default_tier: open
callers:
  jwt:
    main: {{ issuer: a, audience: b, tenant: /t, keys: {{ file: jwks.json }}, algorithms: {} }}
routes:
  hello: {{ match: {{ path: / }}, respond: {{ status: 200 }} }}
",
            algorithm.as_str()
        );
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, config).unwrap();
        if let Err(mistakes) = read(&path) {
            panic!("{algorithm:?}:\n{mistakes}");
        }
    }
}
