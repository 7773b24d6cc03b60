//! Translates words of other products into the words of this config, for hints.
//!
//! A key of nginx, Envoy, Kong, Traefik, KrakenD or Spring Cloud Gateway is not a typing error, so similar spelling
//! does not show what was meant. This table lists, for each section, such words and what to write instead.
//!
//! Invariant: what a hint suggests is valid, as it stands, in the section of the foreign word.

mod aggregates;
mod backends;
mod callers;
mod edge;
mod header_fields;
mod limits;
mod routes;
mod values;

use values::VALUES;

/// Foreign words of one section.
struct Section {
    /// Keys that identify the section: no other section has all of them.
    has: &'static [&'static str],
    words: &'static [Word],
}

/// Foreign words with the same meaning.
struct Word {
    /// Words separated by spaces, in `snake_case`; all spellings are compared in that form.
    foreign: &'static str,
    /// Text to write instead; empty if the config has nothing for it.
    ours: &'static str,
    /// Additional note.
    note: &'static str,
}

const fn word(foreign: &'static str, ours: &'static str) -> Word {
    Word {
        foreign,
        ours,
        note: "",
    }
}

const fn noted(foreign: &'static str, ours: &'static str, note: &'static str) -> Word {
    Word { foreign, ours, note }
}

/// Returns a hint for `key` in a section that has the keys `known`.
pub(super) fn meant_by(key: &str, known: &[&str]) -> Option<String> {
    let key = snake_case(key);
    let section = SECTIONS
        .into_iter()
        .flatten()
        .find(|section| section.has.iter().all(|key| known.contains(key)))?;
    let is_meant = |word: &&Word| word.foreign.split(' ').any(|foreign| foreign == key);
    let Word { ours, note, .. } = section.words.iter().find(is_meant)?;
    Some(match (*ours, *note) {
        ("", note) => note.to_owned(),
        (ours, "") => format!("here it is `{ours}`"),
        (ours, note) => format!("here it is `{ours}`: {note}"),
    })
}

/// Returns the word of `ours` that `word` means in another product.
pub(super) fn value_meant_by(word: &str, ours: &[&str]) -> Option<&'static str> {
    let word = snake_case(word);
    let is_meant = |(meant, foreign): &&(&str, &str)| ours.contains(meant) && foreign.split(' ').any(|one| one == word);
    VALUES.iter().find(is_meant).map(|(meant, _)| *meant)
}

/// Converts `pathPrefix`, `path-prefix` and `PathPrefix` to `path_prefix`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    let mut after_lower = false;
    for letter in key.chars() {
        if letter.is_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = letter.is_lowercase() || letter.is_ascii_digit();
        match letter {
            '-' | ' ' | '.' => out.push('_'),
            letter => out.extend(letter.to_lowercase()),
        }
    }
    out
}

/// All sections, by subject.
const SECTIONS: [&[Section]; 7] = [
    header_fields::SECTIONS,
    edge::SECTIONS,
    limits::SECTIONS,
    callers::SECTIONS,
    backends::SECTIONS,
    routes::SECTIONS,
    aggregates::SECTIONS,
];

#[cfg(test)]
mod tests;
