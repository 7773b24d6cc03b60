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

use super::single::quoted;
use super::tree::{Kind, Node};
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
    /// Values that the words must have to mean this.
    of: Of,
    /// Text to write instead; empty if the config has nothing for it. `$` stands for the written value.
    ours: &'static str,
    /// Additional note.
    note: &'static str,
}

/// Kind of value that a foreign word has.
enum Of {
    Anything,
    /// One of these words, separated by spaces, in `snake_case`.
    Words(&'static str),
    Number,
    /// A single value.
    Single,
    /// A map with at least one of these keys, separated by spaces.
    MapWith(&'static str),
}

const fn word(foreign: &'static str, ours: &'static str) -> Word {
    noted(foreign, ours, "")
}

const fn noted(foreign: &'static str, ours: &'static str, note: &'static str) -> Word {
    Word {
        foreign,
        of: Of::Anything,
        ours,
        note,
    }
}

const fn with_value(foreign: &'static str, of: Of, ours: &'static str, note: &'static str) -> Word {
    Word {
        foreign,
        of,
        ours,
        note,
    }
}

impl Of {
    fn fits(&self, value: &Node) -> bool {
        match (self, &value.kind) {
            (Self::Anything, _) => true,
            (Self::Words(words), Kind::Scalar { text, .. }) => {
                let text = snake_case(text);
                words.split(' ').any(|word| word == text)
            }
            (Self::Number, Kind::Scalar { text, .. }) => text.parse::<u64>().is_ok(),
            (Self::Single, Kind::Scalar { .. }) => !value.is_null(),
            (Self::MapWith(keys), Kind::Map(entries)) => keys
                .split(' ')
                .any(|wanted| entries.iter().any(|(key, _)| key.text == wanted)),
            _ => false,
        }
    }
}

/// Returns what `key` with this value means in a section that has the keys `known`.
fn find(key: &str, value: &Node, known: &[&str]) -> Option<&'static Word> {
    let key = snake_case(key);
    let section = SECTIONS
        .into_iter()
        .flatten()
        .find(|section| section.has.iter().all(|key| known.contains(key)))?;
    let is_meant = |word: &&Word| word.foreign.split(' ').any(|foreign| foreign == key) && word.of.fits(value);
    section.words.iter().find(is_meant)
}

/// Returns a hint for `key` with this value in a section that has the keys `known`.
pub(super) fn meant_by(key: &str, value: &Node, known: &[&str]) -> Option<String> {
    let Word { ours, note, .. } = find(key, value, known)?;
    let ours = match &value.kind {
        Kind::Scalar { text, .. } => ours.replace('$', &quoted(text)),
        Kind::List(_) | Kind::Map(_) => (*ours).to_owned(),
    };
    Some(match (&*ours, *note) {
        ("", note) => note.to_owned(),
        (ours, "") => format!("here it is `{ours}`"),
        (ours, note) => format!("here it is `{ours}`: {note}"),
    })
}

/// Returns the section that `key` means, if its value may be that section: a map, or a map of maps where the section is
/// keyed by name.
pub(super) fn section_meant_by(key: &str, value: &Node, known: &[&str]) -> Option<&'static str> {
    let (section, ours) = find(key, value, known)?.ours.split_once(": { ")?;
    let Kind::Map(entries) = &value.kind else {
        return None;
    };
    let is_named = ours.split_once(": ").is_some_and(|(_, first)| first.starts_with("{ "));
    let fits = |(_, value): &(super::tree::Key, std::rc::Rc<Node>)| !is_named || matches!(value.kind, Kind::Map(_));
    (!entries.is_empty() && entries.iter().all(fits)).then_some(section)
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
