//! Tests that every example config compiles, that every invalid one gives exactly its expected messages, and that what a
//! message suggests is right.
//!
//! After a deliberate change of wording, `UPDATE_EXPECTED=1 cargo test -p gateway compile::tests` rewrites the expected
//! messages; check the difference.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::compile_readable;
use crate::auth::jwt::jws::Algorithm;
use crate::config::{self, Code, Invalid, Mistake};
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

fn env(name: &str) -> Option<String> {
    match name {
        "GATEWAY_JWT_SECRET" => Some("an example secret of more than 32 bytes".to_owned()),
        "TOO_SHORT" | "NOT_A_DURATION" => Some("hunter2".to_owned()),
        _ => None,
    }
}

/// Returns all mistakes of a text that stands for the config at `path`.
fn mistakes_of(path: &Path, text: &str) -> Option<Box<Invalid>> {
    let state = State::new(Observer::start(&Target::Off).unwrap());
    let name = path.display().to_string();
    let readable = config::parse_readable(&name, text, path.parent().unwrap(), &env);
    readable
        .and_then(|readable| compile_readable(readable, &state, 1))
        .err()
}

#[test]
fn every_mistake_is_told_at_once() {
    for folder in ["invalid", "invalid/compile"] {
        says(folder, |path| {
            let text = std::fs::read_to_string(path).unwrap();
            mistakes_of(path, &text).expect("a mistaken config").render(false)
        });
    }
}

/// Returns what a hint suggests in place of what is marked.
fn suggested(hint: &str) -> Option<&str> {
    let (suggested, after) = hint.strip_prefix("did you mean `")?.split_once('`')?;
    if !["?", ", ", " or "].iter().any(|end| after.starts_with(end)) {
        return None;
    }
    let is_example = ["NAME", "...", "FILE"].iter().any(|gap| suggested.contains(gap));
    // A list stands for all of the written one, not for the item that is marked.
    (!is_example && !suggested.starts_with('[')).then_some(suggested)
}

/// Applies each suggestion that replaces the marked text, alone. The mistake must be gone, and no other may stand there.
#[test]
fn what_is_suggested_is_right() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for path in ["invalid", "invalid/compile"].into_iter().flat_map(fixtures) {
        let text = std::fs::read_to_string(&path).unwrap();
        let invalid = mistakes_of(&path, &text).expect("a mistaken config");
        for mistake in invalid.mistakes.iter() {
            let Some((0, range)) = mistake.at.map(|at| at.place()) else {
                continue;
            };
            let Some(suggested) = mistake.hint.as_deref().and_then(suggested) else {
                continue;
            };
            // A key is marked if its value is of the wrong kind, and then it is the value that is to be replaced.
            let is_key = text[range.end..].trim_start().starts_with(':');
            if is_key != (mistake.code == Code::UnknownKey) {
                continue;
            }
            tried += 1;
            let fixed = format!("{}{suggested}{}", &text[..range.start], &text[range.end..]);
            let place = range.start..range.start + suggested.len();
            let left = mistakes_of(&path, &fixed);
            let left = left.iter().flat_map(|left| left.mistakes.iter());
            let there = left.filter(|left| {
                left.at
                    .is_some_and(|at| at.place().0 == 0 && place.contains(&at.place().1.start))
            });
            // What does not go with another section is no fault of the suggestion.
            let is_of_others =
                |left: &Mistake| matches!(left.code, Code::Conflict | Code::UnknownName | Code::MissingKey);
            let is_new = |left: &&Mistake| left.message == mistake.message || !is_key && !is_of_others(left);
            for left in there.filter(is_new) {
                wrong.push(format!(
                    "{}: `{}` -> `{suggested}`: {} {}",
                    path.display(),
                    &text[range.clone()],
                    left.message,
                    left.label.as_deref().unwrap_or_default()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 80, "{tried}");
}

/// Replaces each value of each line of the examples by others, one at a time. Compiling what can be read of the result
/// must report mistakes or succeed; it must not stop the process.
#[test]
fn no_mistaken_value_reaches_the_compiler() {
    const VALUES: [&str; 9] = ["0", "-1", "99999999999", "x", "\"\"", "0s", "0.0", "[]", "{}"];
    let mut tried = 0;
    for name in ["everything.yaml", "callers.yaml", "aggregate.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fixtures/configs")
            .join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices(": ") {
            let (before, rest) = (&text[..at + 2], &text[at + 2..]);
            let end = rest.find([',', '}', ']', '\n', '#']).unwrap_or(rest.len());
            let is_value = !rest.starts_with(['{', '[', '#', '|'])
                && before.lines().last().is_some_and(|line| !line.contains('#'));
            if !is_value {
                continue;
            }
            tried += 1;
            let value = VALUES[tried % VALUES.len()];
            drop(mistakes_of(&path, &format!("{before}{value}{}", &rest[end..])));
        }
    }
    assert!(tried > 200, "{tried}");
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
