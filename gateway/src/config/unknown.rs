//! Suggests what an unknown key was meant to be: a key of another product, a key in the wrong place, or a misspelt key.

use std::collections::BTreeMap;

use super::asked::Asked;
use super::hint;
use super::key_path::join;
use super::mistake::{Code, Mistake};
use super::tree::Key;

/// A key that no section asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    /// Path of the section that contains the key.
    pub path: String,
    pub key: Key,
    pub known: Vec<&'static str>,
    /// Hint for a word of another product.
    pub foreign: Option<String>,
    /// Key above it that has no value.
    pub under: Option<String>,
}

/// Keys of each section that was read, by path.
#[derive(Debug, Default)]
pub(super) struct Sections(BTreeMap<String, Vec<&'static str>>);

impl From<Asked> for Sections {
    fn from(asked: Asked) -> Self {
        let mut sections = Self::default();
        for key in asked.keys {
            let known = sections.0.entry(key.section).or_default();
            if !known.contains(&key.name) {
                known.push(key.name);
            }
        }
        sections
    }
}

impl Sections {
    /// Returns the nearest section that has the key: around the section at `path`, within it, or beside it.
    fn having<'s>(&'s self, key: &str, path: &str) -> Option<Nearest<'s>> {
        let has = |known: &Vec<&'static str>| known.contains(&key);
        let mut around = path;
        while !around.is_empty() {
            around = around.rfind('.').map_or("", |dot| &around[..dot]);
            if let Some((found, _)) = self.0.get_key_value(around).filter(|(_, known)| has(known)) {
                return Some(Nearest::Around(found));
            }
        }
        self.below(path, has).map(Nearest::Within).or_else(|| {
            let beside = path.rfind('.').map_or("", |dot| &path[..dot]);
            self.below(beside, has)
                .filter(|found| *found != path)
                .map(Nearest::Within)
        })
    }

    /// Returns the section nearest to `path` among those within it for which `has` is true.
    fn below<'s>(&'s self, path: &str, has: impl Fn(&Vec<&'static str>) -> bool) -> Option<&'s str> {
        let begin = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        let within = self
            .0
            .range(begin.clone()..)
            .take_while(|(other, _)| other.starts_with(&begin));
        within
            .filter(|(other, known)| !other.is_empty() && has(known))
            .min_by_key(|(other, _)| other.matches('.').count())
            .map(|(found, _)| found.as_str())
    }
}

enum Nearest<'s> {
    Around(&'s str),
    Within(&'s str),
}

impl Unknown {
    pub(super) fn mistake(self, sections: &Sections) -> Mistake {
        let Self { path, key, known, .. } = &self;
        let owner = called(path);
        let mut mistake = Mistake::new(Code::UnknownKey, key.span, format!("{owner} has no key `{}`", key.text));
        mistake.hint = Some(self.hint(sections)).filter(|hint| !hint.is_empty());
        debug_assert!(!known.contains(&key.text.as_str()));
        mistake
    }

    fn hint(&self, sections: &Sections) -> String {
        let Self {
            path,
            key,
            known,
            foreign,
            under,
        } = self;
        let words = || known.iter().copied();
        let text = &key.text;
        if let Some(exact) = known.iter().find(|known| hint::is_spelling_of(text, known)) {
            return format!("did you mean `{exact}`?");
        }
        let elsewhere = sections.having(text, path);
        if let Some(above) = under {
            let fits = sections
                .0
                .get(&join(path, above))
                .is_none_or(|known| known.contains(&text.as_str()));
            if fits {
                return format!("`{above}` above it has nothing under it: indent `{text}` if it belongs there");
            }
        }
        if let Some(foreign) = foreign {
            return foreign.clone();
        }
        let near = hint::did_you_mean(text, words());
        if near.is_some() && hint::is_slip(text, words()) {
            return near.unwrap_or_default();
        }
        match elsewhere {
            Some(Nearest::Around(around)) => {
                format!("`{text}` is a key of {}: indent it less", called(around))
            }
            Some(Nearest::Within(within)) => format!("`{text}` is a key of {}", called(within)),
            None => near.or_else(|| hint::one_of(words())).unwrap_or_default(),
        }
    }
}

/// Returns the name of a section in messages.
fn called(path: &str) -> String {
    if path.is_empty() {
        "the config".to_owned()
    } else {
        format!("`{path}`")
    }
}
