//! Tests that every foreign word gets a hint, and that the suggestion is valid as it stands.

use std::path::Path;

use super::*;
use crate::config::mistake::{Code, Mistakes};
use crate::config::section_examples::{SECTION_EXAMPLES, SectionExample};
use crate::config::tree::{self, Kind};
use crate::config::{Invalid, parse};

fn read(text: &str) -> Result<(), Box<Invalid>> {
    parse("gateway.yaml", text, Path::new("."), &|_| None).map(|_| ())
}

/// Returns the keys of a map that is written without braces.
fn keys(entries: &str) -> Vec<String> {
    let root = tree::parse(0, &format!("{{ {entries} }}"), &mut Mistakes::default()).expect(entries);
    match &root.kind {
        Kind::Map(entries) => entries.iter().map(|(key, _)| key.text.clone()).collect(),
        _ => panic!("{entries} is a map"),
    }
}

/// Returns the hint for a key with this value in the section of a place.
fn told(place: &SectionExample, key: &str, value: &str) -> Option<String> {
    let invalid = read(&place.with(&format!("{key}: {value}"), &[key.to_owned()])).err()?;
    let mut of_key = invalid.mistakes.iter().filter(|mistake| {
        matches!(mistake.code, Code::UnknownKey | Code::NotBuilt) && mistake.message.contains(&format!("{key}`"))
    });
    of_key.next()?.hint.clone()
}

/// Returns the place of a section, found by its keys.
fn place_of(section: &Section) -> &'static SectionExample {
    let mut found = SECTION_EXAMPLES.iter().filter(|place| {
        let strange = read(&place.with("not_a_key: x", &[])).expect_err("that is no key");
        let is_known = |key: &&&str| {
            let others: Vec<_> = strange
                .mistakes
                .iter()
                .filter(|mistake| mistake.code != Code::UnknownKey)
                .collect();
            assert!(others.is_empty(), "{strange}");
            told(place, key, "x").is_none()
        };
        section.has.iter().filter(is_known).count() == section.has.len()
    });
    found
        .next()
        .unwrap_or_else(|| panic!("no place for a section with {:?}", section.has))
}

#[test]
fn every_foreign_word_says_ours_and_ours_can_be_written() {
    let (mut words, mut wrong) = (0, Vec::new());
    for section in SECTIONS.into_iter().flatten() {
        let place = place_of(section);
        for word in section.words {
            let Word {
                foreign,
                of,
                ours,
                note,
            } = word;
            let value = match of {
                Of::Anything => "x".to_owned(),
                Of::Words(words) => words.split(' ').next().unwrap_or_default().to_owned(),
                Of::Number => "5".to_owned(),
                Of::Single => "/x".to_owned(),
                Of::MapWith(keys) => format!("{{ {}: {{}} }}", keys.split(' ').next().unwrap_or_default()),
            };
            let ours = &ours.replace('$', &value);
            if !ours.is_empty()
                && let Err(invalid) = read(&place.with(ours, &keys(ours)))
            {
                wrong.push(format!("`{ours}` for `{foreign}`: {invalid}"));
            }
            for foreign in foreign.split(' ') {
                words += 1;
                let is_single = |other: &Word| {
                    matches!(other.of, Of::Single) && other.foreign.split(' ').any(|other| other == foreign)
                };
                let value = match of {
                    Of::Anything if section.words.iter().any(is_single) => "[x]",
                    _ => &value,
                };
                let hint = told(place, foreign, value).unwrap_or_default();
                if snake_case(foreign) != foreign || !hint.contains(ours.as_str()) || !hint.contains(note) {
                    wrong.push(format!("`{foreign}` in {:?}: {hint}", section.has));
                }
            }
        }
        let unconditional = section.words.iter().filter(|word| matches!(word.of, Of::Anything));
        let all: Vec<_> = unconditional.flat_map(|word| word.foreign.split(' ')).collect();
        for (at, word) in all.iter().enumerate().filter(|(at, word)| all[..*at].contains(word)) {
            wrong.push(format!("`{word}` twice in {:?}, as number {at}", section.has));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(words > 700, "{words}");
}

#[test]
fn a_word_is_known_in_every_spelling() {
    for spelling in [
        "path_prefix",
        "pathPrefix",
        "path-prefix",
        "PathPrefix",
        "Path-Prefix",
        "path.prefix",
    ] {
        assert_eq!(snake_case(spelling), "path_prefix", "{spelling}");
    }
    assert_eq!(snake_case("consecutive5xx"), "consecutive5xx");
    let known = ["path", "methods", "query"];
    let value = tree::parse(0, "x", &mut Mistakes::default()).expect("a word");
    let meant_by = |key: &str, known: &[&str]| super::meant_by(key, &value, known);
    assert_eq!(
        meant_by("urlPattern", &known).as_deref(),
        Some(r#"here it is `path: "/users/{id}"`"#)
    );
    assert_eq!(meant_by("pth", &known), None);
    assert_eq!(meant_by("urlPattern", &["address"]), None);
}

#[test]
fn a_foreign_value_is_one_of_ours() {
    let check = |word: &str, ours: &[&str], expected: Option<&str>| {
        assert_eq!(value_meant_by(word, ours), expected, "{word} of {ours:?}");
    };
    check("http2", &["http1", "h2"], Some("h2"));
    check("HTTP/1.1", &["http1", "h2"], Some("http1"));
    check("oauth2", &["api_key", "jwt", "anonymous"], Some("jwt"));
    check("none", &["api_key", "jwt", "anonymous"], Some("anonymous"));
    check(
        "ip",
        &["tenant", "caller", "client_address", "route", "global"],
        Some("client_address"),
    );
    check("Daily", &["minute", "hour", "day", "week", "month"], Some("day"));
    check("dry-run", &["enforce", "shadow"], Some("shadow"));
    check("ip", &["enforce", "shadow"], None);
    for (at, (ours, foreign)) in VALUES.iter().enumerate() {
        assert!(
            foreign.split(' ').all(|word| word != *ours && !word.is_empty()),
            "{ours}"
        );
        assert!(VALUES[..at].iter().all(|(other, _)| other != ours), "{ours} twice");
    }
}
