//! Every section of the config is taken apart, without a rest, where the plan is compiled: a new key is then a hard
//! error there (E0027) until it is compiled too.

use std::fs;
use std::path::Path;

/// Types of the model that are values, not sections.
const VALUES: [&str; 3] = ["EndpointUrl", "ServiceUrl", "StatusRange"];

#[test]
fn every_section_is_taken_apart_where_it_is_compiled() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let compile: Vec<_> = texts(&source.join("plan/compile"));
    let mut missing = Vec::new();
    let mut count = 0;
    for text in texts(&source.join("config/model")) {
        for (name, keys) in sections(&text) {
            if VALUES.contains(&name.as_str()) {
                continue;
            }
            count += 1;
            if !compile.iter().any(|text| names_all(text, &name, &keys)) {
                missing.push(name);
            }
        }
    }
    assert!(count > 40, "only {count} sections were found");
    assert!(missing.is_empty(), "{missing:?}");
}

fn texts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the source is there");
    let paths = entries.map(|entry| entry.expect("the source is there").path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources
        .map(|path| fs::read_to_string(path).expect("a source file can be read"))
        .collect()
}

/// Structs of a text with the names of their public fields.
fn sections(text: &str) -> Vec<(String, Vec<String>)> {
    let starts = text.match_indices("\npub struct ");
    let found = starts.filter_map(|(at, start)| {
        let (name, rest) = text[at + start.len()..].split_once(' ')?;
        let body = rest.strip_prefix('{')?.split("\n}").next()?;
        let keys = body.lines().filter_map(|line| {
            let (key, _) = line.trim().strip_prefix("pub ")?.split_once(':')?;
            Some(key.to_owned())
        });
        Some((name.to_owned(), keys.collect()))
    });
    found.collect()
}

/// Whether a text has a pattern of `name` that lists all `keys` and no rest.
fn names_all(text: &str, name: &str, keys: &[String]) -> bool {
    let start = format!("{name} {{");
    text.match_indices(&start).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            return false;
        }
        let body = text[at + start.len()..].split('}').next().unwrap_or_default();
        let lines = body.lines().map(|line| line.split("//").next().unwrap_or_default());
        let words: Vec<String> = lines
            .flat_map(|line| line.split(','))
            .map(|field| field.split(':').next().unwrap_or_default().trim().to_owned())
            .collect();
        !body.contains("..") && keys.iter().all(|key| words.contains(key))
    })
}

#[test]
fn a_pattern_with_a_rest_or_without_a_key_is_not_enough() {
    let keys = ["limit", "wait"].map(str::to_owned);
    let check = |text: &str, expected| assert_eq!(names_all(text, "Bulkhead", &keys), expected, "{text}");
    check("let config::Bulkhead { limit, wait } = written;", true);
    check(
        "let Bulkhead {\n    limit: most,\n    // Used elsewhere.\n    wait: _,\n} = written;",
        true,
    );
    check("let config::Bulkhead { limit, .. } = written;", false);
    check("let config::Bulkhead { limit } = written;", false);
    check("let OtherBulkhead { limit, wait } = written;", false);
    assert_eq!(
        sections("\npub struct Bulkhead {\n    /// A doc.\n    pub limit: At<u32>,\n    pub wait: At<Duration>,\n}\n"),
        [("Bulkhead".to_owned(), keys.to_vec())]
    );
}
